"""What a national message means as an Alert, and the other way round, with every loss named.

The losses of writing are not a list somebody keeps: the message is turned back, and whatever differs from the alert
is a loss. So nothing is dropped in silence, and nothing is written that our own reader would refuse.

**Source:** see `gateway.cap.national_table`. Interoperability unverified.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, NamedTuple

from gateway.cap.classify import EVENT_CODE_NAME, LEVEL_SEVERITY, classify, with_expiry
from gateway.cap.finding import Findings
from gateway.cap.national_form import Number, codes_in, is_unit, written
from gateway.cap.national_table import STATUSES, Message, Method, Methods, Part, Place
from gateway.cap.national_title import disagreements, read_title, write_title
from gateway.model import Alert, Area, Code, Document, Info, Kind, Reference, Status

GEOCODE = "GB/T 2260"
"""valueName of administrative codes that came from the dialect."""
METHOD = "national:method="
CARRIED = (Document.WARNING, Document.JOINT_RISK)
_CATEGORIES = {"11A": "Met", "11B": "Met", "11E": "Met", "11C": "Geo", "11D": "Geo", "11F": "Env", "11G": "Fire"}
_SECTORS = {"12": "Safety", "13": "Health", "14": "Security"}
_OF_ALERT = ("effective", "expires", "policy_digest", "infos")
"""Fields of the alert that follow from its infos, or are compared by themselves."""
CHANGED = {
    "identifier": "is not written as ZZZZZZDDDUUUXX_YYYYMMDDhhmmss; the platform will refuse it",
    "sender": "is written as a unit code of 14 digits; without one the platform will refuse it",
    "status": "System has no word here; it was written as Test, which nobody acts upon",
    "kind": "a correction has no word here; it was written as Cancel",
    "document": "is not said; it will be read as a warning",
    "event": "is read from the title, which says another name",
    "references": "names the first earlier message only, without sender and time",
    "infos": "was made from the alert itself",
    "language": "only the infos in Chinese are carried",
    "categories": "follow from the event code",
    "severity": "follows from the colour",
    "certainty": "has no word here; Possible was written as Unknown",
    "event_codes": "only the GB/T 35561 code is carried",
    "sender_name": "stands once for the message; it was taken from the first info, or from the sender",
    "headline": "was made from unit, event and level, or put right where it contradicted them",
    "description": "must be said; it was taken from the title",
    "circles": "smaller than 100 m were written as 100 m",
    "geocodes": "are administrative codes of 12 digits without a name; others are not carried",
    **dict.fromkeys(("sent", "onset", "expires"), "has no fraction of a second"),
    "effective": "must be said, without fraction of a second; where it was not, it is sent",
}
"""Model field → what becomes of it where it differs."""
DROPPED = "has no place in the dialect"


class Loss(NamedTuple):
    """One thing a translation could not carry: where it stands in the alert, and what became of it."""

    element: str
    message: str


class Unwritable(ValueError):
    """The alert has no form in the national dialect; the message says why, one reason a line."""


# --- national → alert -----------------------------------------------------------------------------


def to_alert(message: Message, findings: Findings) -> Alert | None:
    """Return the alert, or None after telling `findings` why not."""
    _check_numbers(message, findings)
    header: dict[str, Any] = {
        "identifier": message.identifier,
        "sender": message.unit,
        "sent": message.sent,
        "status": message.status,
        "kind": message.kind,
        "scope": message.scope,
        "note": message.note,
        "codes": tuple(METHOD + method.name for method in message.code.methods),
        "references": tuple(_reference(message, identifier) for identifier in message.references),
    }
    infos = tuple(_info(message, part, number, findings) for number, part in enumerate(message.parts))
    return classify(header, infos, {}, findings)


def _check_numbers(message: Message, findings: Findings) -> None:
    number = Number.of(message.identifier)
    if number is None:
        text = f"{message.identifier[:60]!r} is not written as ZZZZZZDDDUUUXX_YYYYMMDDhhmmss; it is no national number"
        findings.warn("national_identifier", (("identifier", 0),), text)
    elif number.unit != message.unit:
        text = f"the identifier is unit {number.unit}'s, the senderCode {message.unit[:40]}; make them agree"
        findings.error("identifier_disagrees", (("senderCode", 0),), text)
    if not is_unit(message.unit):
        text = f"{message.unit[:40]!r} is no unit code of 14 digits"
        findings.warn("national_identifier", (("senderCode", 0),), text)


def _reference(message: Message, identifier: str) -> Reference:
    """Return what a bare identifier refers to: its unit and the time it was typed in, as near as the dialect says."""
    number, own = Number.of(identifier), Number.of(message.identifier)
    if identifier == message.identifier or (number and own and number.same(own)):
        return Reference(message.unit, message.identifier, message.sent)
    if number is None:
        return Reference(message.unit, identifier, message.sent)
    # The time in the number is that of typing, which may lie behind the sendTime of the paper that follows it.
    return Reference(number.unit, identifier, min(number.entered, message.sent))


def _info(message: Message, part: Part, index: int, findings: Findings) -> Info:
    title, at = read_title(part.headline), (("info", index), ("headline", 0))
    for code, text, severity in disagreements(title, message.kind, part.level):
        findings.error(code, at, text) if severity == "error" else findings.warn(code, at, text)
    if not title.event:
        text = "the title does not read <unit>发布<event><colour>预警; the whole of it was taken as the event"
        findings.warn("odd_title", at, text)
    if part.signer not in (None, message.unit_name):
        findings.warn("not_carried", (("info", index), ("senderName", 0)), "it names a person, and was dropped")
    return Info(
        event=title.event or part.headline,
        language=part.language,
        categories=(_category(part.event_code),),
        urgency=part.urgency,
        severity=LEVEL_SEVERITY[part.level],
        certainty=part.certainty,
        event_codes=(Code(EVENT_CODE_NAME, part.event_code),),
        effective=part.effective,
        onset=part.onset,
        expires=part.expires,
        sender_name=message.unit_name if message.unit_name != message.unit else None,
        headline=part.headline,
        description=part.description,
        instruction=part.instruction,
        web=part.web,
        areas=tuple(_area(place) for place in part.areas),
    )


def _area(place: Place) -> Area:
    codes = tuple(Code(GEOCODE, code) for code in place.geocodes)
    return Area(place.description, place.polygons, place.circles, codes)


def _category(event_code: str) -> str:
    return _CATEGORIES.get(event_code[:3]) or _SECTORS.get(event_code[:2], "Other")


# --- alert → national -----------------------------------------------------------------------------


def from_alert(alert: Alert) -> tuple[Message, list[Loss]]:
    """Return the message and everything it does not carry.

    Raises:
        Unwritable: it is not public, no warning, without event code, or contradicts itself.
    """
    reasons = list(_obstacles(alert))
    if reasons:
        raise Unwritable("\n".join(reasons))
    alert = replace(alert, infos=with_expiry(alert), policy_digest="")
    chosen = _chosen(alert)
    message = _message(alert, [info for _, info in chosen])
    findings = Findings()
    again = to_alert(message, findings)
    if again is None:
        errors = (found for found in findings.found if found.severity == "error")
        raise Unwritable("\n".join(f"{found.element}: {found.message}" for found in errors))
    return message, list(dict.fromkeys(_losses(alert, chosen, again)))


def _obstacles(alert: Alert) -> Iterator[str]:
    if not alert.public:
        yield f"scope {alert.scope}: the dialect carries public warnings only"
    if alert.document not in CARRIED:
        yield f"document {alert.document}: the dialect knows warnings only, and would make one of it"
    if not alert.event_code:
        yield "eventType: the alert has no GB/T 35561 code; add one such as 11B03"


def _chosen(alert: Alert) -> list[tuple[int, Info]]:
    """Return the infos to write with their places: those in Chinese, else all; one from the alert if it has none."""
    every = list(enumerate(alert.infos or (Info(alert.event, language="zh-CN"),)))
    return [one for one in every if one[1].language.lower().startswith("zh")] or every


def _message(alert: Alert, infos: Sequence[Info]) -> Message:
    unit = _unit(alert)
    unit_name = infos[0].sender_name or unit
    kind = Kind.CANCEL if alert.kind is Kind.CORRECTION else alert.kind
    first = min(alert.references, key=lambda reference: reference.sent, default=None)
    methods = (code.removeprefix(METHOD) for code in alert.codes if code.startswith(METHOD) and code != METHOD)
    return Message(
        identifier=alert.identifier,
        unit_name=unit_name,
        unit=unit,
        sent=_whole(alert.sent),
        status=alert.status if alert.status in STATUSES else Status.TEST,
        kind=kind,
        code=Methods(tuple(map(Method, methods))),
        note=alert.note or None,
        references=(first.identifier,) if first else (),
        parts=tuple(_part(alert, info, unit_name, kind) for info in infos),
    )


def _unit(alert: Alert) -> str:
    """Return the unit's code: the sender, or what the identifier begins with where the sender is written otherwise."""
    number = Number.of(alert.identifier)
    return number.unit if number and not is_unit(alert.sender) else alert.sender


def _part(alert: Alert, info: Info, unit_name: str, kind: Kind) -> Part:
    own = write_title(unit_name, kind, alert.event, alert.level)
    said = info.headline or own
    wrong = any(severity == "error" for *_, severity in disagreements(read_title(said), kind, alert.level))
    title = own if wrong else said
    return Part(
        event_code=alert.event_code,
        level=alert.level,
        headline=title,
        language=info.language,
        urgency=info.urgency,
        certainty=info.certainty if info.certainty != "Possible" else "Unknown",
        effective=_whole(info.effective or alert.sent),
        onset=info.onset and _whole(info.onset),
        expires=info.expires and _whole(info.expires),
        signer=unit_name,
        description=info.description or title,
        instruction=info.instruction or None,
        web=info.web,
        areas=tuple(_place(area) for area in info.areas),
    )


def _place(area: Area) -> Place:
    codes = tuple(code for pair in area.geocodes for code in codes_in(pair.value))
    return Place(area.description, area.polygons, tuple(map(written, area.circles)), codes)


def _losses(alert: Alert, chosen: Sequence[tuple[int, Info]], again: Alert) -> Iterator[Loss]:
    """Yield every difference between an alert and what its message is read as."""
    if Number.of(alert.identifier) is None:
        yield Loss("identifier", CHANGED["identifier"])
    if not is_unit(alert.sender):
        yield Loss("sender", CHANGED["sender"])
    yield from _differing("", alert, again, _OF_ALERT)
    kept = {index for index, _ in chosen}
    yield from (
        Loss(f"info[{index + 1}]", f"{info.language}: {CHANGED['language']}")
        for index, info in enumerate(alert.infos)
        if index not in kept
    )
    if not alert.infos:
        yield Loss("info[1]", CHANGED["infos"])
        return
    for (index, info), found in zip(chosen, again.infos, strict=True):
        at = f"info[{index + 1}]/"
        yield from _differing(at, info, found, ("areas",))
        for number, (area, place) in enumerate(zip(info.areas, found.areas, strict=True), 1):
            yield from _differing(f"{at}area[{number}]/", area, place, ())


def _differing(at: str, one: Any, other: Any, apart: Sequence[str]) -> Iterator[Loss]:
    names = (field.name for field in fields(one) if field.name not in apart)
    yield from (
        Loss(at + name, CHANGED.get(name, DROPPED)) for name in names if getattr(one, name) != getattr(other, name)
    )


def _whole(when: datetime) -> datetime:
    return when.replace(microsecond=0)
