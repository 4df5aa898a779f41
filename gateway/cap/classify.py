"""What a well-formed message means here: kind, document, hazard, level; and whether its parts agree.

`reader` and `document` both end in `classify`, so XML and JSON obey the same rules. The gateway's own facts travel as
parameters of each info (`level`, `document`, `correction`, `mingluo:event`) and as an eventCode named GB/T 35561;
a message without info (a bare Cancel) carries them as `code` elements `mingluo:<fact>=<value>`. They are lifted onto
the Alert here and laid back by `facts_of` and `own_info`, so nothing is said twice inside the gateway.

**Source:** OASIS CAP 1.2 §3.2; GB/T 35561 event codes; the colour to severity table of CMA's feeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.cap.finding import Findings, Path
from gateway.cap.form import EVENT_CODE
from gateway.cap.rule import check_alert, check_header, check_infos, earlier
from gateway.model import Alert, Code, Document, Info, Kind, Level, Reference

EVENT_CODE_NAME = "GB/T 35561"
EVENT_FACT = "mingluo:event"
LEVEL_NAMES = frozenset({"colorcode", "colour", "color", "level", "severitycolor", "alertlevel"})
"""Parameter names, in any case, that hold the level as a word."""
LEVEL_WORDS = {
    "unknown": Level.UNKNOWN,
    **dict.fromkeys(("blue", "蓝", "蓝色"), Level.BLUE),
    **dict.fromkeys(("yellow", "黄", "黄色"), Level.YELLOW),
    **dict.fromkeys(("orange", "橙", "橙色"), Level.ORANGE),
    **dict.fromkeys(("red", "红", "红色"), Level.RED),
}
SEVERITY_LEVEL = {"Extreme": Level.RED, "Severe": Level.ORANGE, "Moderate": Level.YELLOW, "Minor": Level.BLUE}
LEVEL_SEVERITY = {Level.UNKNOWN: "Unknown", **{level: severity for severity, level in SEVERITY_LEVEL.items()}}
_OWN = ("level", "document", "correction", EVENT_FACT)
_COLOURED = (Document.WARNING, Document.JOINT_RISK)
_CODE_FACT = re.compile(r"mingluo:(level|document|correction|event|event_code)=(.*)", re.DOTALL)


def classify(
    header: dict[str, Any], infos: Sequence[Info], given: Mapping[str, str], findings: Findings
) -> Alert | None:
    """Return the Alert, or None after telling `findings` why not.

    `header` holds the alert-level fields by model name, with CAP's msgType in `kind`; `given` holds facts stated for
    the whole alert, as JSON does. Facts in `code` elements are added to them.
    """
    codes = header.pop("codes", ())
    facts = dict(given)
    for code in codes:
        if own := _CODE_FACT.fullmatch(code):
            facts.setdefault(own[1], own[2])
    header["codes"] = tuple(code for code in codes if not _CODE_FACT.fullmatch(code))
    case = _Case(header, infos, facts, findings)
    check_header(header, findings)
    check_infos(header["sent"], infos, findings)
    kind = case.kind()
    alert = Alert(
        **{
            **header,
            "kind": kind or Kind.ALERT,
            "references": case.references(kind),
            "document": case.document(),
            "event_code": case.event_code(),
            "event": facts.get("event") or case.stated(EVENT_FACT) or _event(infos),
            "level": case.level(),
            "infos": tuple(map(_lift, infos)),
            "effective": min((info.effective or header["sent"] for info in infos), default=header["sent"]),
            "expires": max((info.expires for info in infos if info.expires), default=None),
        }
    )
    check_alert(alert, findings)
    if not findings.errors and alert.infos and not alert.level and alert.document in _COLOURED:
        message = "no level is given; set severity, or a parameter level to red, orange, yellow or blue"
        findings.warn("missing_level", (("info", 0), ("severity", 0)), message)
    return None if findings.errors else alert


@dataclass(frozen=True, slots=True)
class _Case:
    """One message under classification: its header, infos, facts for the whole, and where to complain."""

    header: dict[str, Any]
    infos: Sequence[Info]
    facts: Mapping[str, str]
    findings: Findings

    def stated(self, name: str) -> str | None:
        """Return the fact of that name; parameters that contradict each other are an error."""
        values = {code.value: None for info in self.infos for code in info.parameters if code.name == name}
        if name in self.facts:
            values[self.facts[name]] = None
        if len(values) > 1:
            message = f"parameter {name} is given as {', '.join(map(str, values))}; send separate alerts"
            self.findings.error("mixed_infos", (("info", 0), ("parameter", 0)), message)
        return next(iter(values), None)

    def kind(self) -> Kind | None:
        """Return what the message does to the ones before it."""
        name = self.header["kind"]
        if name in ("Ack", "Error"):
            message = f"msgType {name} warns nobody; write Alert, Update or Cancel"
            self.findings.error("not_an_alert", (("msgType", 0),), message)
            return None
        correction = self.stated("correction") or "false"
        if correction not in ("true", "false") or (correction == "true" and name == "Alert"):
            message = f"correction={correction[:40]!r} with msgType {name}; write true, with msgType Update or Cancel"
            self.findings.error("invalid_parameter", (("info", 0), ("parameter", 0)), message)
            return Kind(name)
        return Kind.CORRECTION if correction == "true" else Kind(name)

    def references(self, kind: Kind | None) -> tuple[Reference, ...]:
        """Return the messages this one follows; only an Alert follows none."""
        others = earlier(self.header, self.findings)
        if not others and kind not in (Kind.ALERT, None):
            message = f"{self.header['kind']} names no earlier message; add references as sender,identifier,sent"
            self.findings.error("missing_references", (("references", 0),), message)
        return others

    def document(self) -> Document:
        """Return the kind of document; a warning unless stated."""
        word = self.stated("document") or Document.WARNING
        try:
            return Document(word)
        except ValueError:
            message = f"document {word[:40]!r} is not known; write one of {', '.join(Document)}"
            self.findings.error("invalid_parameter", (("info", 0), ("parameter", 0)), message)
            return Document.WARNING

    def event_code(self) -> str:
        """Return the one GB/T 35561 code of the message, or an empty string."""
        found = {code.value: None for info in self.infos for code in info.event_codes}
        codes = [value for value in found if EVENT_CODE.fullmatch(value)]
        stated = self.facts.get("event_code", "")
        path = (("info", 0), ("eventCode", 0))
        if stated and not EVENT_CODE.fullmatch(stated):
            message = f"{stated[:40]!r} is no GB/T 35561 code; write one such as 11B03"
            self.findings.error("invalid_parameter", (("event_code", 0),), message)
        codes = list(dict.fromkeys([stated, *codes] if stated else codes))
        if len(codes) > 1:
            message = f"the message carries the event codes {', '.join(codes)}; send separate alerts"
            self.findings.error("mixed_infos", path, message)
        if not codes and self.infos:
            message = "no GB/T 35561 code is given; add an eventCode such as 11B03"
            self.findings.warn("missing_event_code", path, message)
        return codes[0] if codes else ""

    def level(self) -> Level:
        """Return the one level of the message."""
        whole = self._word(self.facts["level"], (("level", 0),)) if "level" in self.facts else None
        levels = {self._info_level(info, number, whole): None for number, info in enumerate(self.infos)}
        known = [level for level in levels if level]
        if len(known) > 1:
            names = ", ".join(level.name.lower() for level in known)
            message = f"the infos carry the levels {names}; send separate alerts"
            self.findings.error("mixed_infos", (("info", 0), ("severity", 0)), message)
        return known[0] if known else whole or Level.UNKNOWN

    def _info_level(self, info: Info, number: int, whole: Level | None) -> Level:
        path = (("info", number), ("severity", 0))
        words = [(at, code) for at, code in enumerate(info.parameters) if code.name.lower() in LEVEL_NAMES]
        levels = {self._word(code.value, (("info", number), ("parameter", at))) for at, code in words}
        if whole is not None:
            levels.add(whole)
        if len(levels) > 1:
            levels.discard(Level.UNKNOWN)
        severity = SEVERITY_LEVEL.get(info.severity)
        stated = next(iter(levels), severity or Level.UNKNOWN)
        if len(levels) > 1 or (severity and stated and stated is not severity):
            names = ", ".join(sorted(level.name.lower() for level in levels))
            message = f"the level is given as {names}, the severity as {info.severity}; make them agree"
            self.findings.error("level_disagrees", path, message)
        return stated

    def _word(self, text: str, path: Path) -> Level:
        word = text.strip().lower()
        if word in LEVEL_WORDS:
            return LEVEL_WORDS[word]
        code, why = "unknown_level", "is no level"
        if re.fullmatch(r"\d+", word):
            code, why = "digit_level", "is a digit, which stands for red in one feed and blue in another"
        self.findings.error(code, path, f"{text[:40]!r} {why}; write red, orange, yellow or blue")
        return Level.UNKNOWN


def _event(infos: Sequence[Info]) -> str:
    chinese = (info.event for info in infos if info.language.lower().startswith("zh"))
    return next(chinese, infos[0].event if infos else "")


def _lift(info: Info) -> Info:
    """Return the info without the facts that now stand on the alert."""
    codes = tuple(c for c in info.event_codes if c.name != EVENT_CODE_NAME or not EVENT_CODE.fullmatch(c.value))
    parameters = tuple(code for code in info.parameters if code.name not in _OWN)
    if len(codes) == len(info.event_codes) and len(parameters) == len(info.parameters):
        return info
    return replace(info, event_codes=codes, parameters=parameters)


def facts_of(alert: Alert) -> Iterator[Code]:
    """Yield the facts that the infos do not carry by themselves; `own_info` adds level and event code."""
    if alert.document is not Document.WARNING:
        yield Code("document", alert.document)
    if alert.kind is Kind.CORRECTION:
        yield Code("correction", "true")
    if alert.infos and alert.event != _event(alert.infos):
        yield Code(EVENT_FACT, alert.event)


def with_expiry(alert: Alert) -> tuple[Info, ...]:
    """Return the infos; where none of them says when the alert lapses, with the expiry the policy set."""
    if alert.expires is None or any(info.expires for info in alert.infos):
        return alert.infos
    return tuple(replace(info, expires=alert.expires) for info in alert.infos)


def own_info(alert: Alert, info: Info) -> Info:
    """Return the info with the alert's facts laid back, for writing; the inverse of what `classify` lifted."""
    named = any(code.name.lower() in LEVEL_NAMES for code in info.parameters)
    level = () if named or SEVERITY_LEVEL.get(info.severity, Level.UNKNOWN) is alert.level else (_level_fact(alert),)
    coded = not alert.event_code or any(code.value == alert.event_code for code in info.event_codes)
    code = () if coded else (Code(EVENT_CODE_NAME, alert.event_code),)
    return replace(info, event_codes=code + info.event_codes, parameters=(*facts_of(alert), *level, *info.parameters))


def own_codes(alert: Alert) -> tuple[str, ...]:
    """Return the `code` elements, with the facts among them if there is no info to carry them."""
    if alert.infos:
        return alert.codes
    facts = [*facts_of(alert)]
    facts += [_level_fact(alert)] if alert.level else []
    facts += [Code("event_code", alert.event_code)] if alert.event_code else []
    facts += [Code("event", alert.event)] if alert.event else []
    return (*alert.codes, *(f"mingluo:{name}={value}" for name, value in facts))


def _level_fact(alert: Alert) -> Code:
    return Code("level", alert.level.name.lower())
