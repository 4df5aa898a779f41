"""CAP 1.2 as one table: every element with its model field, how often it may stand, how it is read and written.

`reader` and `writer` walk it, `document` takes its names; the order of the rows is the order in the message.

**Source:** OASIS CAP 1.2 XSD (xs:sequence, so the order is fixed).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.cap import form
from gateway.model import Area, Code, Info, Resource, Status

NAMESPACE = "urn:oasis:names:tc:emergency:cap:1.2"
CATEGORIES = (
    "Geo", "Met", "Safety", "Security", "Rescue", "Fire", "Health", "Env", "Transport", "Infra", "CBRNE", "Other",
)  # fmt: skip
RESPONSES = ("Shelter", "Evacuate", "Prepare", "Execute", "Avoid", "Monitor", "Assess", "AllClear", "None")
URGENCIES = ("Immediate", "Expected", "Future", "Past", "Unknown")
SEVERITIES = ("Extreme", "Severe", "Moderate", "Minor", "Unknown")
CERTAINTIES = ("Observed", "Likely", "Possible", "Unlikely", "Unknown")
SCOPES = ("Public", "Restricted", "Private")
MESSAGE_TYPES = ("Alert", "Update", "Cancel", "Ack", "Error")
BLANKS = " \t\r\n"  # XML's; all others are characters like any

_read_status = form.one_of(Status)


class Rule(NamedTuple):
    """One row. `times` is 1, ?, * or +; `remark` may return a warning (code, message) on a readable text.

    `around` are the blanks that may surround the value (None: any, as in free text); `empty` lets the element be
    empty without a word.
    """

    name: str
    field: str
    times: str
    read: Callable[[str], Any] = form.read_text
    write: Callable[[Any], str] = form.clean_text
    remark: Callable[[str], tuple[str, str] | None] | None = None
    block: Block | None = None
    around: str | None = None
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """An element with children: what builds it from its fields, and its rows in order."""

    build: Callable[..., Any]
    rules: tuple[Rule, ...]


def _exact(name: str, field: str, times: str, read: Callable[[str], Any], write: Callable[[Any], str] = str) -> Rule:
    return Rule(name, field, times, read, write, around="")


def _collapsed(
    name: str, field: str, times: str, read: Callable[[str], Any], write: Callable[[Any], str] = str
) -> Rule:
    return Rule(name, field, times, read, write, around=BLANKS)


def _pair(name: str, field: str) -> Rule:
    return Rule(name, field, "*", block=CODE)


def _time(name: str, times: str = "?") -> Rule:
    return Rule(name, name, times, form.read_time, form.write_time, form.national_time, around=BLANKS)


def _number(name: str, field: str) -> Rule:
    return _collapsed(name, field, "?", form.read_number, form.write_number)


CODE = Block(Code, (Rule("valueName", "name", "1"), Rule("value", "value", "1", empty=True)))

_RESOURCE = Block(
    Resource,
    (
        Rule("resourceDesc", "description", "1"),
        Rule("mimeType", "mime_type", "1", form.read_mime_type),
        _collapsed("size", "size_bytes", "?", form.read_size),
        Rule("uri", "uri", "?", form.read_uri),
        Rule("derefUri", "deref_uri", "?", form.read_content),
        Rule("digest", "digest", "?", form.read_digest),
    ),
)

_AREA = Block(
    Area,
    (
        Rule("areaDesc", "description", "1"),
        Rule("polygon", "polygons", "*", form.read_polygon, form.write_polygon),
        Rule("circle", "circles", "*", form.read_circle, form.write_circle),
        _pair("geocode", "geocodes"),
        _number("altitude", "altitude_ft"),
        _number("ceiling", "ceiling_ft"),
    ),
)

_INFO = Block(
    Info,
    (
        _collapsed("language", "language", "?", form.read_language),
        _exact("category", "categories", "+", form.one_of(CATEGORIES)),
        Rule("event", "event", "1"),
        _exact("responseType", "response_types", "*", form.one_of(RESPONSES)),
        _exact("urgency", "urgency", "1", form.one_of(URGENCIES)),
        _exact("severity", "severity", "1", form.one_of(SEVERITIES)),
        _exact("certainty", "certainty", "1", form.one_of(CERTAINTIES)),
        Rule("audience", "audience", "?"),
        _pair("eventCode", "event_codes"),
        _time("effective"),
        _time("onset"),
        _time("expires"),
        Rule("senderName", "sender_name", "?"),
        Rule("headline", "headline", "?"),
        Rule("description", "description", "?"),
        Rule("instruction", "instruction", "?"),
        Rule("web", "web", "?", form.read_web),
        Rule("contact", "contact", "?"),
        _pair("parameter", "parameters"),
        Rule("resource", "resources", "*", block=_RESOURCE),
        Rule("area", "areas", "*", block=_AREA),
    ),
)

ALERT = Block(
    dict,
    (
        _exact("identifier", "identifier", "1", form.read_identifier),
        _exact("sender", "sender", "1", form.read_sender),
        _time("sent", "1"),
        _exact("status", "status", "1", lambda text: Status(_read_status(text))),
        _exact("msgType", "kind", "1", form.one_of(MESSAGE_TYPES)),
        Rule("source", "source", "?"),
        _exact("scope", "scope", "1", form.one_of(SCOPES)),
        Rule("restriction", "restriction", "?"),
        Rule("addresses", "addresses", "?", form.read_words, form.write_words, form.unbalanced),
        Rule("code", "codes", "*"),
        Rule("note", "note", "?"),
        Rule("references", "references", "?", form.read_references, form.write_references),
        Rule("incidents", "incidents", "?", form.read_words, form.write_words, form.unbalanced),
        Rule("info", "infos", "*", block=_INFO),
    ),
)


def repeated(block: Block = ALERT) -> frozenset[str]:
    """Return the names of all elements that may stand more than once; their paths carry a number."""
    own = frozenset(rule.name for rule in block.rules if rule.times in "*+")
    return own.union(*(repeated(rule.block) for rule in block.rules if rule.block))


def fields(block: Block = ALERT) -> dict[str, str]:
    """Return CAP name → model field, through all blocks."""
    names = {rule.name: rule.field for rule in block.rules}
    for rule in block.rules:
        names |= fields(rule.block) if rule.block and rule.block is not CODE else {}
    return names
