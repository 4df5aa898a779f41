"""How single values are written: text to value and back, one pair per format of CAP.

`table` names these per element; `document` uses the same ones for JSON. Readers raise `Malformed`.

**Source:** OASIS CAP 1.2 §3.2 and its XSD (no `Z`, no fraction in times; latitude first), RFC 3066.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import lru_cache

from gateway.cap.finding import Malformed
from gateway.model import Circle, Point, Reference

EVENT_CODE = re.compile(r"1[1-4][A-Z][0-9]{2}|00000")  # GB/T 35561
CHINA = timezone(timedelta(hours=8))
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2}:[0-9]{2})([-+][0-9]{2}:[0-5][0-9])")
_FARTHEST = timedelta(hours=14)  # from UTC, says XML Schema
_YEARS = range(1970, 2200)  # outside, somebody's clock or key slipped; inside, no conversion can overflow
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
NAME_CHARS = 255
"""Of an identifier or a sender. CAP sets no limit, but both are looked up by, and an index has one."""
# Zero width, or turning the text around them: two names would look the same, and one like another (UTR 36, UAX 9).
_HIDDEN = (
    r"\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff"
)
_NAME = re.compile(rf"[^\s\x00-\x1f\ufffe\uffff,<&{_HIDDEN}]{{1,{NAME_CHARS}}}")
_SEEN_BY_NOBODY = re.compile(f"[{_HIDDEN}]")
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")
_MIME = re.compile(r"[\w.+-]+/[\w.+-]+(\s*;[^\x00-\x1f\ufffe\uffff]*)?", re.ASCII)
_CHAR = (
    r"(?:[^\s\x00-\x1f\ufffe\uffff<>\"%\[\]#]|%[0-9A-Fa-f]{2})"  # RFC 3987; brackets stand only around an IPv6 address
)
_SERVER = rf"(?:(?:(?![/?@]){_CHAR})*@)?(?:\[[0-9A-Fa-f:.]+\]|(?:(?![/?@:]){_CHAR})*)(?::[0-9]{{1,5}})?"
_TAIL = rf"(?:[/?]{_CHAR}*)?(?:#{_CHAR}*)?"
_WEB = re.compile(rf"https?://(?=[^/?#:@]){_SERVER}{_TAIL}", re.IGNORECASE)
_URI = re.compile(
    rf"(?:[a-z][a-z0-9+.-]*:)?//{_SERVER}{_TAIL}"  # with a server
    rf"|(?:[a-z][a-z0-9+.-]*:|(?![^/?#]*:))(?!//){_CHAR}+(?:#{_CHAR}*)?",  # other schemes; relative
    re.IGNORECASE,
)
_SIZE = re.compile(r"\+?[0-9]{1,15}")
_DIGEST = re.compile(r"[0-9A-Fa-f]{40}")
_DECIMAL = re.compile(r"[-+]?([0-9]{1,15}(\.[0-9]*)?|\.[0-9]+)")
# Digits, signs, points and commas only: what float() takes of these is a plain decimal, never nan, inf or 1_0.
_PAIRS = re.compile(r"[-+0-9.,\s]+", re.ASCII)
_RING = re.compile(r"[-+0-9.]++,[-+0-9.]++(?:\s++[-+0-9.]++,[-+0-9.]++)*+", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_WORDS = re.compile(r'"([^"]*)"|(\S+)')
_MARKUP = re.compile(r"<[A-Za-z/!]|&(#[0-9]+|[A-Za-z]+);")


def read_text(text: str) -> str:
    """Return the text, which no control character may spoil."""
    if _FORBIDDEN.search(text):
        raise Malformed("invalid_character", "the text holds a control character; remove it")
    return text


def clean_text(text: str) -> str:
    """Return the text with what XML cannot carry replaced by U+FFFD."""
    return _FORBIDDEN.sub("\ufffd", text)


def has_markup(text: str) -> bool:
    """Whether the text has HTML tags or entities in it."""
    return ("<" in text or "&" in text) and _MARKUP.search(text) is not None


def _matching(pattern: re.Pattern[str], code: str, advice: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not pattern.fullmatch(text):
            raise Malformed(code, f"{text[:60]!r}: {advice}")
        return text

    return read


def _name(code: str, example: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if _NAME.fullmatch(text):
            return text
        advice = f"write it without blanks, commas, < and &, at most {NAME_CHARS} characters{example}"
        if hidden := _SEEN_BY_NOBODY.search(text):
            advice = f"U+{ord(hidden[0]):04X} is a character nobody sees; remove it"
        raise Malformed(code, f"{text[:60]!r}: {advice}")

    return read


read_identifier = _name("invalid_identifier", "")
read_sender = _name("invalid_sender", ", such as name@office.example")
read_language = _matching(_LANGUAGE, "invalid_language", "write a language code such as zh-CN or en")
read_mime_type = _matching(_MIME, "invalid_mime_type", "write type/subtype, such as image/png")
read_web = _matching(_WEB, "invalid_web", "write a full address that begins with https:// or http://")
read_uri = _matching(_URI, "invalid_uri", "write a URI; a blank is %20, [ is %5B, % itself is %25")
read_digest = _matching(_DIGEST, "invalid_digest", "write the 40 hexadecimal digits of the SHA-1")


def read_content(text: str) -> str:
    """Return the base64 of a resource without the blanks that broke it into lines."""
    content = "".join(text.split())
    if len(content) % 4 or not _BASE64.fullmatch(content):
        raise Malformed(
            "invalid_deref_uri", "the content is not base64; write the file's bytes in base64, or leave it out"
        )
    return content


def one_of(words: Iterable[str]) -> Callable[[str], str]:
    """Return a reader that takes exactly these words."""
    allowed = {word: word for word in words}

    def read(text: str) -> str:
        try:
            return allowed[text]
        except KeyError:
            near = difflib.get_close_matches(text[:40].capitalize(), allowed, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            message = f"{text[:40]!r} is not allowed; {hint}write one of {', '.join(allowed)}"
            raise Malformed("invalid_enum_value", message) from None

    return read


@lru_cache(1024)  # one message writes the same time in several elements, and so do those of one minute
def read_time(text: str) -> datetime:
    """Return the time in UTC; the national form with a space passes too (see `national_time`)."""
    parts = _TIME.fullmatch(text)
    if not parts:
        raise Malformed("invalid_date", _time_advice(text))
    day, clock, offset = parts.groups()
    midnight = clock == "24:00:00"  # the day's end, as XML Schema allows and 24时 is written in Chinese
    try:
        when = datetime.fromisoformat(f"{day}T{'00:00:00' if midnight else clock}{offset}")
        far = abs(when.utcoffset() or timedelta()) > _FARTHEST
        when = when.astimezone(UTC) + timedelta(days=midnight)
    except (ValueError, OverflowError):
        raise Malformed("invalid_date", f"{text!r} is no day and time of the calendar") from None
    if far:
        raise Malformed("invalid_date", f"{text!r} lies more than 14 hours from UTC; China is +08:00")
    if when.year not in _YEARS:
        raise Malformed("invalid_date", f"{text!r} is outside the years {_YEARS[0]} to {_YEARS[-1]}")
    return when


def _time_advice(text: str) -> str:
    form = "write it as 2026-07-20T14:30:00+08:00"
    if text.endswith(("Z", "z")):
        return f"{text[:40]!r} ends in Z, which CAP forbids; {form}, or with -00:00 for UTC"
    if re.fullmatch(r"[-0-9]{10}[T ][:0-9]{5,8}(\.[0-9]+)?", text):
        return f"{text[:40]!r} does not say its offset from UTC; {form}"
    return f"{text[:40]!r} is no CAP time; {form}, without fraction of a second"


def national_time(text: str) -> tuple[str, str] | None:
    """Return the remark on a time written with a space, as GB/T 35965 does."""
    if " " in text:
        return "national_date", f"{text!r} is the national form; CAP 1.2 writes a T instead of the space"
    return None


def write_time(when: datetime) -> str:
    """Write a time with +08:00 and whole seconds, as CAP's pattern asks.

    Raises:
        ValueError: the time is naive.
    """
    if when.tzinfo is None:
        raise ValueError("a time without offset cannot be written; use an aware datetime")
    return when.astimezone(CHINA).isoformat(timespec="seconds")


def read_number(text: str) -> float:
    """Return a decimal, in feet or whatever the element says."""
    if not _DECIMAL.fullmatch(text):
        raise Malformed("invalid_number", f"{text[:40]!r} is no decimal number; write it as 1200 or 1200.5")
    return float(text)


def write_number(number: float) -> str:
    """Write a number without exponent, which xs:decimal does not know."""
    text = repr(number)
    return format(Decimal(text), "f") if "e" in text else text


def read_size(text: str) -> int:
    """Return a size in bytes."""
    if not _SIZE.fullmatch(text):
        raise Malformed("invalid_resource_size", f"{text[:40]!r} is no size; write the whole number of bytes")
    return int(text)


def _point(text: str, code: str) -> Point:
    try:
        lat, lon = map(float, text.split(","))
    except ValueError:
        raise Malformed(code, f"{text[:40]!r} is no point; write latitude,longitude such as 32.72,113.33") from None
    if -90 <= lat <= 90 and -180 <= lon <= 180:
        return Point(lat, lon)
    swapped = "; latitude comes first, these look swapped" if -90 <= lon <= 90 and -180 <= lat <= 180 else ""
    raise Malformed(code, f"{text[:40]!r} is not on Earth{swapped}")


def _ring(text: str) -> tuple[Point, ...]:
    """Return the points; tens of thousands are read at once, and one by one only to name the wrong one."""
    if _RING.fullmatch(text):
        try:
            numbers = list(map(float, text.replace(",", " ").split()))
        except ValueError:
            numbers = []
        lats, lons = numbers[::2], numbers[1::2]
        if numbers and -90 <= min(lats) <= max(lats) <= 90 and -180 <= min(lons) <= max(lons) <= 180:
            return tuple(map(Point, lats, lons))
    return tuple([_point(pair, "invalid_polygon") for pair in text.split()])


def read_polygon(text: str) -> tuple[Point, ...]:
    """Return a closed ring of at least four points, first = last."""
    code = "invalid_polygon"
    if not _PAIRS.fullmatch(text):
        raise Malformed(code, "a polygon is pairs of plain decimals: lat,lon lat,lon lat,lon lat,lon")
    ring = _ring(text)
    if len(ring) < 4:
        raise Malformed(code, f"a polygon needs at least 4 points, this has {len(ring)}; the last repeats the first")
    if ring[0] != ring[-1]:
        raise Malformed(code, "the polygon is not closed; repeat its first point at the end")
    return ring


def write_polygon(ring: Iterable[Point]) -> str:
    """Write a ring as lat,lon pairs."""
    return " ".join([f"{write_number(lat)},{write_number(lon)}" for lat, lon in ring])


def read_circle(text: str) -> Circle:
    """Return centre and radius in kilometres."""
    code = "invalid_circle"
    parts = text.split()
    if len(parts) != 2 or not _PAIRS.fullmatch(parts[0]) or not _DECIMAL.fullmatch(parts[1]):
        raise Malformed(code, f"{text[:60]!r} is no circle; write lat,lon radius-in-km such as 32.72,113.33 5")
    radius = float(parts[1])
    if not 0 <= radius <= 20_040:  # half the Earth's girth
        raise Malformed(code, f"a radius of {parts[1]} km does not fit on Earth")
    return Circle(_point(parts[0], code), radius)


def write_circle(circle: Circle) -> str:
    """Write a circle as lat,lon radius."""
    centre, radius = circle
    return f"{write_number(centre.lat)},{write_number(centre.lon)} {write_number(radius)}"


def read_references(text: str) -> tuple[Reference, ...]:
    """Return the messages referenced, each once, in order."""
    found: dict[Reference, None] = {}
    for entry in text.split():
        parts = entry.split(",")
        if len(parts) != 3 or not all(parts):
            raise Malformed("invalid_references", f"{entry[:80]!r} is no reference; write sender,identifier,sent")
        try:
            found[Reference(read_sender(parts[0]), read_identifier(parts[1]), read_time(parts[2]))] = None
        except Malformed as error:
            raise Malformed("invalid_references", f"reference {entry[:80]!r}: {error.message}") from None
    return tuple(found)


def write_references(references: Iterable[Reference]) -> str:
    """Write references separated by blanks."""
    return " ".join(f"{sender},{identifier},{write_time(sent)}" for sender, identifier, sent in references)


def read_words(text: str) -> tuple[str, ...]:
    """Return the items of a list separated by blanks; an item with blanks stands in double quotes."""
    return tuple(item for item in (quoted or bare for quoted, bare in _WORDS.findall(text)) if item)


def unbalanced(text: str) -> tuple[str, str] | None:
    """Return the remark on a list whose double quotes do not pair."""
    if text.count('"') % 2:
        return "unbalanced_quotes", 'a double quote has no partner; write each item with blanks as "an item"'
    return None


def write_words(words: Iterable[str]) -> str:
    """Write a list separated by blanks; double quotes inside an item become single ones."""
    items = (word.replace('"', "'") for word in words)
    return " ".join(f'"{item}"' if re.search(r"\s", item) else item for item in items)
