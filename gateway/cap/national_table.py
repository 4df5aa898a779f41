"""The national dialect (国突) as one table: each element with its field, how often it stands, how it is read, written.

`national_reader` and `national_writer` walk it; the order of the rows is the order in a written message. A row
without a field is an element that is not carried: what stands in it is named, and dropped.

**Source:** GB/T 35965.1-2018 is CAP-like; of its text only copies of Appendix A (values) were to be had. Element
names, their order, metres in `circle` and bare identifiers in `references` are from public code that talks to the
platform (a message of Henan's of 2020, and the description of the platform's interface in comments of two Java
projects). **Interoperability unverified**: nothing here has met the platform. So order, case of names and unknown
elements are no errors when reading, and the writer keeps to what those messages do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gateway.cap import form, national_form
from gateway.cap.finding import Malformed
from gateway.cap.form import EVENT_CODE
from gateway.cap.table import MESSAGE_TYPES, URGENCIES, Block, Rule
from gateway.model import Circle, Level, Point, Status

STATUSES = (Status.ACTUAL, Status.EXERCISE, Status.TEST, Status.DRAFT)
_read_status = form.one_of(STATUSES)


@dataclass(frozen=True, slots=True)
class Method:
    """A way of publishing the platform is asked for, such as SMS or SPEAKER."""

    name: str


@dataclass(frozen=True, slots=True)
class Methods:
    """The element `code`."""

    methods: tuple[Method, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where: an area of the national message."""

    description: str
    polygons: tuple[tuple[Point, ...], ...] = ()
    circles: tuple[Circle, ...] = ()
    geocodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What happens: an info of the national message. `signer` is a person's name in live messages."""

    event_code: str
    level: Level
    headline: str
    language: str = "zh-CN"
    urgency: str = "Unknown"
    certainty: str = "Unknown"
    effective: datetime | None = None
    onset: datetime | None = None
    expires: datetime | None = None
    signer: str | None = None
    description: str | None = None
    instruction: str | None = None
    web: str | None = None
    areas: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One message as the dialect has it. `unit_name` and `unit` name who issues it; `kind` is its msgType."""

    identifier: str
    unit_name: str
    unit: str
    sent: datetime
    status: Status
    kind: str
    parts: tuple[Part, ...]
    scope: str = "Public"
    code: Methods = Methods()
    classification: str = "None"
    note: str | None = None
    references: tuple[str, ...] = ()


NO_NAMES = "it names persons, and was dropped"
_OWN_PLAN = "it was dropped: this gateway's own plan and texts decide who hears what"


def _dropped(name: str, times: str, message: str) -> Rule:
    return Rule(name, "", times, remark=lambda _text: ("not_carried", message))


def _time(name: str, field: str, times: str = "?") -> Rule:
    return Rule(name, field, times, national_form.read_time, national_form.write_time)


def _read_event_type(text: str) -> str:
    if not EVENT_CODE.fullmatch(text):
        raise Malformed("invalid_value", f"{text[:40]!r} is no GB/T 35561 code; write one such as 11B03")
    return text


_METHOD = Block(
    Method,
    (
        Rule("methodName", "name", "1"),
        _dropped("message", "?", _OWN_PLAN),
        _dropped("audienceGrp", "?", _OWN_PLAN),
        _dropped("audenceprt", "?", NO_NAMES),  # the platform's own spelling
        _dropped("audiencePrt", "?", NO_NAMES),
    ),
)

_AREA = Block(
    Place,
    (
        Rule("areaDesc", "description", "1"),
        Rule("polygon", "polygons", "*", form.read_polygon, form.write_polygon),
        Rule("circle", "circles", "*", national_form.read_circle, national_form.write_circle),
        Rule("geocode", "geocodes", "?", national_form.read_geocodes, national_form.write_list),
    ),
)

_INFO = Block(
    Part,
    (
        Rule("language", "language", "?", form.read_language),
        Rule("eventType", "event_code", "1", _read_event_type),
        Rule("urgency", "urgency", "?", form.one_of(URGENCIES)),
        Rule("severity", "level", "1", national_form.read_colour, national_form.write_colour),
        Rule(
            "certainty", "certainty", "?", national_form.read_certainty, national_form.write_certainty,
            national_form.very_likely,
        ),
        _time("effective", "effective"),
        _time("onset", "onset"),
        _time("expires", "expires"),
        Rule("senderName", "signer", "?"),
        Rule("headline", "headline", "1"),
        Rule("description", "description", "?"),
        Rule("instruction", "instruction", "?"),
        Rule("web", "web", "?", form.read_web),
        _dropped("resource", "*", "attachments were dropped; none is sent from here"),
        Rule("area", "areas", "*", block=_AREA),
    ),
)  # fmt: skip

ALERT = Block(
    Message,
    (
        Rule("identifier", "identifier", "1", form.read_identifier),
        Rule("sender", "unit_name", "1"),
        Rule("senderCode", "unit", "1", form.read_sender),
        _dropped("phone", "?", NO_NAMES),
        _time("sendTime", "sent", "1"),
        Rule("status", "status", "1", lambda text: Status(_read_status(text)), str),
        Rule("msgType", "kind", "1", form.one_of(MESSAGE_TYPES)),
        Rule("scope", "scope", "?", national_form.read_scope),
        Rule("code", "code", "?", block=Block(Methods, (Rule("method", "methods", "*", block=_METHOD),))),
        Rule("secClassification", "classification", "?", national_form.read_classification),
        Rule("note", "note", "?"),
        Rule("references", "references", "?", national_form.read_references, national_form.write_list),
        Rule("info", "parts", "+", block=_INFO),
    ),
)
