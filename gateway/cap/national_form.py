"""How single values are written in the national dialect: text to value and back.

`national_table` names these per element. Where the dialect writes as CAP does, `form` is used; readers raise
`Malformed`.

**Source:** GB/T 35965.1-2018, Appendix A (identifier, unit code, time, severity); for the rest see `national_table`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from gateway.cap import form
from gateway.cap.classify import LEVEL_WORDS
from gateway.cap.finding import Malformed
from gateway.model import Circle, Level

METRES = 1000
SMALLEST_M = 100
"""Radii below are refused but for 0, a point: they are kilometres that somebody copied from CAP."""
_NUMBER = re.compile(r"([0-9]{6}[0-9]{3}[0-9]{3}[0-9]{2})_([0-9]{14})(?:_([0-9]))?")
_UNIT = re.compile(r"[0-9]{14}")
_NAIVE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}")
_AREA_CODE = re.compile(r"[0-9]{6}(?:[0-9]{3}){0,2}")
_LIST = re.compile(r"[\s,，;；、]+")
_CERTAINTIES = {"observed": "Observed", "verylikely": "Likely", "likely": "Likely", "unlikely": "Unlikely"}


class Number(NamedTuple):
    """A national number `ZZZZZZDDDUUUXX_YYYYMMDDhhmmss_N`; live feeds leave out `_N`, then `sequence` is "".

    `unit` is the issuing unit's code: area (GB/T 2260), body (GB/T 4657; 416 is the meteorological service), unit
    within it, extension. `entered` is when the message was typed in, not when it was sent.
    """

    unit: str
    entered: datetime
    sequence: str

    @classmethod
    def of(cls, text: str) -> Number | None:
        """Return the number, or None if the text is none."""
        match = _NUMBER.fullmatch(text)
        if match is None:
            return None
        year, rest = match[2][:4], [match[2][at : at + 2] for at in range(4, 14, 2)]
        try:
            entered = read_time(f"{year}-{rest[0]}-{rest[1]} {rest[2]}:{rest[3]}:{rest[4]}")
        except Malformed:
            return None
        return cls(match[1], entered, match[3] or "")

    def same(self, other: Number) -> bool:
        """Whether both name one message: a sequence that is left out agrees with any."""
        return self[:2] == other[:2] and (not self.sequence or not other.sequence or self.sequence == other.sequence)


def is_unit(text: str) -> bool:
    """Whether this is a unit code of 14 digits."""
    return _UNIT.fullmatch(text) is not None


def read_time(text: str) -> datetime:
    """Return the time in UTC; one without offset is Chinese time."""
    return form.read_time(f"{text}+08:00" if _NAIVE.fullmatch(text) else text)


def write_time(when: datetime) -> str:
    """Write `YYYY-MM-DD hh:mm:ss+08:00`.

    Raises:
        ValueError: the time is naive.
    """
    return form.write_time(when).replace("T", " ")


def read_scope(text: str) -> str:
    """Return Public, the only scope in use."""
    if text != "Public":
        raise Malformed("not_public", f"scope {text[:40]!r}: only public warnings are taken in; write Public")
    return text


def read_classification(text: str) -> str:
    """Return None; what is classified as internal is for nobody's loudspeaker."""
    if text != "None":
        raise Malformed("not_public", f"secClassification {text[:40]!r}: only public warnings are taken in; write None")
    return text


def read_colour(text: str) -> Level:
    """Return the level of a colour word, in any case. A digit is never guessed."""
    word = text.lower()
    if word in LEVEL_WORDS:
        return LEVEL_WORDS[word]
    if word.isdigit():
        why = "is a digit, which stands for red in one feed and blue in another"
        raise Malformed("digit_level", f"{text[:40]!r} {why}; write RED, ORANGE, YELLOW, BLUE or UNKNOWN")
    raise Malformed("unknown_level", f"{text[:40]!r} is no level; write RED, ORANGE, YELLOW, BLUE or UNKNOWN")


def write_colour(level: Level) -> str:
    """Write a level as a colour word."""
    return level.name


def read_certainty(text: str) -> str:
    """Return CAP's word; the dialect's VeryLikely is part of CAP's Likely."""
    word = text.lower()
    if word == "unknown":
        return "Unknown"
    if word not in _CERTAINTIES:
        message = f"{text[:40]!r} is not allowed; write Observed, VeryLikely, Likely, Unlikely or Unknown"
        raise Malformed("invalid_enum_value", message)
    return _CERTAINTIES[word]


def write_certainty(certainty: str) -> str:
    """Write CAP's word; Possible has none here."""
    return certainty if certainty in _CERTAINTIES.values() else "Unknown"


def very_likely(text: str) -> tuple[str, str] | None:
    """Return the remark on a word that CAP does not know."""
    if text.lower() == "verylikely":
        return "not_carried", "VeryLikely has no word of its own in CAP and was read as Likely"
    return None


def read_references(text: str) -> tuple[str, ...]:
    """Return the identifiers of earlier messages, each once; usually one, of the first issue."""
    return tuple(dict.fromkeys(map(form.read_identifier, filter(None, _LIST.split(text)))))


def write_list(words: Iterable[str]) -> str:
    """Write a list separated by commas."""
    return ",".join(words)


def read_geocodes(text: str) -> tuple[str, ...]:
    """Return the administrative codes of 6, 9 or 12 digits, in order, padded to 12."""
    wrong = next((code for code in _LIST.split(text) if code and not _AREA_CODE.fullmatch(code)), None)
    if wrong is not None:
        message = f"{wrong[:40]!r} is no administrative code; write 6, 9 or 12 digits, separated by commas"
        raise Malformed("invalid_value", message)
    return codes_in(text)


def codes_in(text: str) -> tuple[str, ...]:
    """Return the administrative codes among what a text lists, padded to 12 digits as the dialect has them."""
    return tuple(part.ljust(12, "0") for part in _LIST.split(text) if _AREA_CODE.fullmatch(part))


def read_circle(text: str) -> Circle:
    """Return a circle whose radius is written in metres; CAP writes kilometres."""
    parts = text.split()
    if len(parts) != 2 or not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,30})?", parts[1]):
        raise Malformed("invalid_circle", f"{text[:60]!r} is no circle; write lat,lon radius-in-metres")
    radius_m = Decimal(parts[1])
    if 0 < radius_m < SMALLEST_M:
        message = f"a radius of {parts[1]} m looks like kilometres; write it in metres, or 0 for a point"
        raise Malformed("invalid_circle", message)
    return form.read_circle(f"{parts[0]} {radius_m / METRES:f}")


def written(circle: Circle) -> Circle:
    """Return the circle as the dialect can say it: one smaller than its smallest grows to that."""
    return circle._replace(radius_km=SMALLEST_M / METRES) if 0 < circle.radius_km * METRES < SMALLEST_M else circle


def write_circle(circle: Circle) -> str:
    """Write a circle with its radius in metres."""
    centre = form.write_circle(circle).split()[0]
    return f"{centre} {(Decimal(form.write_number(circle.radius_km)) * METRES).normalize():f}"
