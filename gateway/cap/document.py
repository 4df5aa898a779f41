"""Read and write alerts as JSON: the same model, the same rules and the same findings as CAP XML.

The API takes JSON beside XML and shows alerts in it. A finding's element is the JSON path; there are no lines.

**Source:** our own form, `gateway.cap.schema.AlertIn`.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import orjson
from pydantic import ValidationError

from gateway.cap import form
from gateway.cap.classify import LEVEL_SEVERITY, LEVEL_WORDS, classify, with_expiry
from gateway.cap.finding import FINDINGS, Finding, Findings, Malformed, Path
from gateway.cap.reader import too_large
from gateway.cap.schema import AlertIn, InfoIn
from gateway.cap.table import ALERT, CODE, Block, Rule, fields, repeated
from gateway.model import Alert, Area, Code, Info, Kind, Level, Reference, Resource, Status

_JSON_NAMES = fields()
_REPEATED = repeated()
_INFO_FIELDS = frozenset(InfoIn.model_fields) - {"event"}
_CODES_BY_TYPE = {
    "json_invalid": "not_json",
    "missing": "missing_required_element",
    "string_too_short": "missing_required_element",
    "too_short": "missing_required_element",
    "extra_forbidden": "unsupported_element",
    "greater_than_equal": "invalid_resource_size",
    "less_than": "invalid_resource_size",
}


def from_json(data: bytes) -> tuple[Alert | None, list[Finding]]:
    """Return the alert, None if any finding is an error, and all findings. Never raises on any bytes."""
    findings = Findings()
    if too_large(data, findings):
        return None, findings.found
    try:
        message = AlertIn.model_validate_json(data.removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        _explain(error, findings)
        return None, findings.found
    _refuse_twice(data, findings)
    findings.locate = lambda path: (_json_path(path, flat=not message.infos), None)
    infos = _infos(message, findings)
    if findings.errors:
        return None, findings.found
    return classify(_header(message), infos, _facts(message), findings), findings.found


def _explain(error: ValidationError, findings: Findings) -> None:
    """Turn pydantic's errors into findings of ours."""
    for item in error.errors(include_url=False, include_input=False):
        place = ("".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in item["loc"])[1:], None)
        reason = item.get("ctx", {}).get("error")
        if isinstance(reason, Malformed):
            findings.put(reason.code, place, reason.message)
        else:
            code = _CODES_BY_TYPE.get(item["type"], "invalid_value")
            findings.put(code, place, f"{FINDINGS[code]}: {item['msg']}; correct it as the schema AlertIn says")


def _refuse_twice(data: bytes, findings: Findings) -> None:
    """Refuse keys that stand twice in one object: pydantic takes the last one, silently, and others the first.

    `data` has been read as an alert, so it is JSON, and shallow.
    """
    doubled: list[tuple[dict[str, Any], str]] = []

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        one = dict(pairs)
        if len(one) != len(pairs):
            doubled.extend((one, name) for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        return one

    text = data.removeprefix(codecs.BOM_UTF8).decode()
    whole = json.loads(text, object_pairs_hook=made, parse_int=str, parse_float=str)  # numbers are none of its business
    paths = {id(one): path for one, path in _objects(whole, "")} if doubled else {}
    for one, name in doubled:
        place = f"{paths.get(id(one), '')}.{name}".removeprefix(".")
        findings.put("duplicate_key", (place, None), f"{name} stands more than once in one object; write it once")


def _objects(value: Any, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every object in a JSON value with its path."""
    if isinstance(value, dict):
        yield value, path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, one in inner:
        place = f"{path}[{step}]" if isinstance(value, list) else f"{path}.{step}".removeprefix(".")
        yield from _objects(one, place)


def _json_path(path: Path, flat: bool) -> str:
    """Return the JSON path of a CAP path; the text at the top of a flat message is its only info."""
    steps = path[1:] if flat and path[:1] == (("info", 0),) and len(path) > 1 else path
    names = ((_JSON_NAMES.get(name, name), f"[{index}]" if name in _REPEATED else "") for name, index in steps)
    return ".".join(f"{name}{number}" for name, number in names)


def _header(message: AlertIn) -> dict[str, Any]:
    """Return the alert-level fields as `classify` takes them."""
    names = ("sender", "identifier", "sent", "source", "scope", "restriction", "note")
    return {
        **{name: getattr(message, name) for name in names},
        **{name: tuple(getattr(message, name)) for name in ("addresses", "codes", "incidents")},
        "status": Status(message.status),
        "kind": Kind.UPDATE if message.kind == Kind.CORRECTION else message.kind,
        "references": tuple(dict.fromkeys(Reference(r.sender, r.identifier, r.sent) for r in message.references)),
    }


def _facts(message: AlertIn) -> dict[str, str]:
    facts = {"level": message.level, "event": message.event, "event_code": message.event_code}
    facts |= {"document": message.document} if "document" in message.model_fields_set else {}
    facts |= {"correction": "true"} if message.kind == Kind.CORRECTION else {}
    return {name: value for name, value in facts.items() if value}


def _infos(message: AlertIn, findings: Findings) -> tuple[Info, ...]:
    stated = message.model_fields_set & _INFO_FIELDS
    if message.infos and stated:
        text = f"{', '.join(sorted(stated))} stand beside infos; move them into the infos"
        findings.put("unsupported_element", (min(stated), None), text)
    parts = message.infos or ([message] if stated or message.kind in (Kind.ALERT, Kind.UPDATE) else [])
    severity = LEVEL_SEVERITY[LEVEL_WORDS.get((message.level or "").lower(), Level.UNKNOWN)]
    for number, part in enumerate(parts):
        if not (part.event or message.event):
            place = (f"infos[{number}].event" if message.infos else "event", None)
            findings.put("missing_required_element", place, "event is missing; write the name of the event")
    return tuple(_info(part, message.event or "", severity) for part in parts)


def _info(part: InfoIn, event: str, severity: str) -> Info:
    values = {name: getattr(part, name) for name in InfoIn.model_fields}
    values |= {
        "event": part.event or event,
        "severity": part.severity or severity,
        "categories": tuple(part.categories),
        "response_types": tuple(part.response_types),
        "areas": tuple(
            Area(a.description, tuple(a.polygons), tuple(a.circles), a.geocodes, a.altitude_ft, a.ceiling_ft)
            for a in part.areas
        ),
        "resources": tuple(
            Resource(r.description, r.mime_type, r.size_bytes, r.uri, r.deref_uri, r.digest) for r in part.resources
        ),
    }
    return Info(**values)


def to_json(alert: Alert) -> bytes:
    """Return the alert as JSON, always with `infos`; `from_json` of it gives the same alert.

    What holds for `gateway.cap.writer.write` holds here: no policy digest, a policy's expiry in the infos.
    """
    shown = _shown(ALERT, replace(alert, infos=with_expiry(alert)))
    shown |= {"document": alert.document, "event_code": alert.event_code, "event": alert.event}
    shown |= {"level": alert.level.name.lower(), "infos": shown.get("infos", [])}
    return orjson.dumps(shown)


def _shown(block: Block, value: Any) -> dict[str, Any]:
    """Return the fields of one block that hold something."""
    every = ((rule, getattr(value, rule.field)) for rule in block.rules)
    return {rule.field: _show(rule, held) for rule, held in every if held is not None and held not in ((), "")}


def _show(rule: Rule, held: Any) -> Any:
    if rule.block is CODE:
        return _show_codes(held)
    if rule.block:
        return [_shown(rule.block, item) for item in held]
    if rule.name == "references":
        return [{"sender": r.sender, "identifier": r.identifier, "sent": form.write_time(r.sent)} for r in held]
    if rule.name in ("addresses", "incidents"):
        return list(map(form.clean_text, held))
    if rule.times in "*+":
        return list(map(rule.write, held))
    return held if isinstance(held, int | float) else rule.write(held)


def _show_codes(codes: Iterable[Code]) -> dict[str, list[str]] | list[tuple[str, str]]:
    """Group values by name, unless that would change their order."""
    pairs = [(form.clean_text(name), form.clean_text(value)) for name, value in codes]
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    same = [(name, value) for name, values in grouped.items() for value in values] == pairs
    return grouped if same else pairs
