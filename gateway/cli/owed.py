"""What rings in the duty room until a person has decided: how it is listed, and the decision; of `reply`, `speaker`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from gateway.cli.client import Gateway
from gateway.cli.frame import print_json


def standing(one: Mapping[str, Any]) -> str:
    """Return what was decided and by whom, or the answers there are."""
    return f"{one['decision']}: {one.get('by')}" if one.get("decision") else " | ".join(one.get("answers") or ())


def decide(gateway: Gateway, kind: str, id_: str, answer: str, reason: str, *, json: bool) -> None:
    """Hand a decision in and say it."""
    found = gateway.post(f"/v1/obligations/{id_}/{kind}", {"answer": answer, "remark": reason})
    print_json(found) if json else typer.echo(f"{id_}: {answer}")
