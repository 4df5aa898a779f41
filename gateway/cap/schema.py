"""The JSON form of an alert as pydantic models; the OpenAPI description is generated from `AlertIn`.

`document` reads and writes it. Single values are read by `form`, so JSON and XML know the same formats.

**Source:** our own form; values are written as in OASIS CAP 1.2 (a time may also end in Z).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    PlainValidator,
    WithJsonSchema,
)

from gateway.cap import form
from gateway.cap.finding import Malformed
from gateway.cap.table import CATEGORIES, CERTAINTIES, RESPONSES, SCOPES, SEVERITIES, URGENCIES
from gateway.model import Circle, Code, Document, Kind, Level, Point, Status

_T = TypeVar("_T")


def _string(read: Callable[[str], _T]) -> Callable[[Any], _T]:
    def take(value: Any) -> _T:
        if not isinstance(value, str):
            raise Malformed("invalid_value", "write a string")
        return read(value.strip())

    return take


def _as(read: Callable[[str], Any], example: str, **schema: Any) -> tuple[PlainValidator, WithJsonSchema]:
    """Return the annotations of a value read by one of `form`'s readers."""
    return PlainValidator(_string(read)), WithJsonSchema({"type": "string", "examples": [example], **schema})


def _words(words: Iterable[str]) -> tuple[PlainValidator, WithJsonSchema]:
    listed = list(words)
    return PlainValidator(_string(form.one_of(listed))), WithJsonSchema({"type": "string", "enum": listed})


def _read_time(text: str) -> datetime:
    return form.read_time(f"{text[:-1]}+00:00" if text.endswith("Z") else text)


def _read_codes(value: Any) -> tuple[Code, ...]:
    """Return the pairs of {"name": ["value", ...]}, or of [["name", "value"], ...] where the order matters."""
    try:
        pairs = [(k, v) for k, vs in value.items() for v in _listed(vs)] if isinstance(value, dict) else _listed(value)
        return tuple(Code(_named(name), _text(item)) for name, item in pairs)
    except (TypeError, ValueError) as error:
        if isinstance(error, Malformed):
            raise
        raise Malformed("invalid_value", 'write {"name": ["value"]}') from None


def _listed(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    raise Malformed("invalid_value", 'write a list, as in {"name": ["value"]}')


def _named(value: Any) -> str:
    if name := _text(value):
        return name
    raise Malformed("missing_required_element", "a name is empty; write it")


def _read_level(value: Any) -> str:
    """Return the word as written; `classify` judges it, so that a digit is named as the trap it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def _read_feet(number: float) -> float:
    """Return the number, if CAP can carry it."""
    return form.read_number(form.write_number(number))


_text = _string(form.read_text)


_LEVELS = [level.name.lower() for level in Level]
_CODES_SCHEMA = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": {"type": "string"}},
    "examples": [{"township": ["411726204"]}],
}
Colour = Annotated[str, PlainValidator(_read_level), WithJsonSchema({"type": "string", "enum": _LEVELS})]
Text = Annotated[str, Field(min_length=1), AfterValidator(form.read_text)]
Time = Annotated[datetime, *_as(_read_time, "2026-07-20T14:30:00+08:00", format="date-time")]
Codes = Annotated[tuple[Code, ...], PlainValidator(_read_codes), WithJsonSchema(_CODES_SCHEMA)]
Ring = Annotated[tuple[Point, ...], *_as(form.read_polygon, "32.7,113.3 32.7,113.4 32.8,113.4 32.7,113.3")]
Disc = Annotated[Circle, *_as(form.read_circle, "32.72,113.33 5")]
Feet = Annotated[float, AfterValidator(_read_feet)]
Sender = Annotated[str, *_as(form.read_sender, "bypq@mingluo.example", maxLength=form.NAME_CHARS)]
Identifier = Annotated[str, *_as(form.read_identifier, "41172641600000_20260720143000", maxLength=form.NAME_CHARS)]
Many = Annotated[list[_T], FailFast()]
"""A list named wrong at its first wrong item: a hostile one of a million must not buy a million errors."""
Line = Annotated[Text | None, BeforeValidator(lambda value: None if value == "" else value)]


class _Form(BaseModel):
    """Closed: a misspelt key is an error, not a lost instruction."""

    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True, allow_inf_nan=False)


class ReferenceIn(_Form):
    """The key of an earlier message."""

    sender: Sender
    identifier: Identifier
    sent: Time


class AreaIn(_Form):
    """One area: the union of its geocodes, polygons and circles."""

    description: Text
    geocodes: Codes = ()
    polygons: Many[Ring] = Field(default_factory=list, description="Rings: lat,lon pairs, first = last")
    circles: Many[Disc] = Field(default_factory=list, description="lat,lon and the radius in km")
    altitude_ft: Feet | None = None
    ceiling_ft: Feet | None = None


class ResourceIn(_Form):
    """A picture or document that belongs to the alert."""

    description: Text
    mime_type: Annotated[str, *_as(form.read_mime_type, "image/png")]
    size_bytes: Annotated[int, Field(ge=0, lt=10**15)] | None = None
    uri: Annotated[str, *_as(form.read_uri, "https://mingluo.example/map.png")] | None = None
    deref_uri: Annotated[str, *_as(form.read_content, "aGVsbG8=")] | None = None
    digest: Annotated[str, *_as(form.read_digest, "0" * 40)] | None = None


class InfoIn(_Form):
    """The alert in one language. `severity` follows from the level unless stated."""

    event: Line = Field(None, description="Name of the event; the alert's own if absent", examples=["暴雨"])
    language: Annotated[str, *_as(form.read_language, "zh-CN")] = "zh-CN"
    categories: Many[Annotated[str, *_words(CATEGORIES)]] = Field(["Met"], min_length=1)
    response_types: Many[Annotated[str, *_words(RESPONSES)]] = Field(default_factory=list)
    urgency: Annotated[str, *_words(URGENCIES)] = "Unknown"
    severity: Annotated[str, *_words(SEVERITIES)] | None = None
    certainty: Annotated[str, *_words(CERTAINTIES)] = "Unknown"
    audience: Line = None
    event_codes: Codes = ()
    effective: Time | None = None
    onset: Time | None = None
    expires: Time | None = None
    sender_name: Line = None
    headline: Line = None
    description: Line = None
    instruction: Line = None
    web: Annotated[str, *_as(form.read_web, "https://mingluo.example/")] | None = None
    contact: Line = None
    parameters: Codes = ()
    resources: Many[ResourceIn] = Field(default_factory=list)
    areas: Many[AreaIn] = Field(default_factory=list)


class AlertIn(InfoIn):
    """A warning as JSON: who, when, what, how bad, where and what to do.

    State the text here, or one entry of `infos` per language, not both.
    """

    sender: Sender
    identifier: Identifier
    sent: Time
    status: Annotated[str, *_words(Status)]
    kind: Annotated[str, *_words(Kind)]
    document: Annotated[str, *_words(Document)] = "warning"
    event_code: str = Field("", description="GB/T 35561 code", examples=["11B03"])
    level: Annotated[str, PlainValidator(_read_level), WithJsonSchema({"type": "string", "enum": _LEVELS})] | None = (
        None
    )
    references: Many[ReferenceIn] = Field(default_factory=list)
    scope: Annotated[str, *_words(SCOPES)] = "Public"
    source: Line = None
    restriction: Line = None
    addresses: Many[Text] = Field(default_factory=list)
    codes: Many[Text] = Field(default_factory=list)
    note: Line = None
    incidents: Many[Text] = Field(default_factory=list)
    infos: Many[InfoIn] = Field(default_factory=list, max_length=100)
