"""Plain-text tools of the renderer: UTF-16 lengths, SMS segments, cleaning of foreign text, cutting at clauses.

Used by the renderer, the preview, the carriers' codecs and the tests. Nothing here knows an alert.

**Source:** 3GPP TS 23.040 section 9.2.3.24 for the sizes of UCS-2 segments (70 units alone, 67 with a
concatenation header of six bytes).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

SINGLE = 70
PART = 67

_BRACKETS = str.maketrans(
    {"【": "〔", "】": "〕", "〖": "〔", "〗": "〕", "︻": "〔", "︼": "〕", "︗": "〔", "︘": "〕"}
)
_WIDE = r"[\u2e80-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
_GAP = re.compile(rf"(?<={_WIDE}) (?={_WIDE})")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Cn"})
_CLAUSE = re.compile(r"[^，。；！？,;!?]*(?:[，。；！？;!?]+|,+(?!\d)|,(?=\d)|\Z)")
_STOPS = "，。；、！？：,;:.!? "

# A clause that opens a condition or a circumstance says nothing, or the wrong thing, without its sequel.
_OPEN = re.compile(
    r"^(?:如|若|除|一旦|遇|当|因|由于|虽|只有|只要|凡|在|对|if |unless |when |except |until |after |before )"
    r"|(?:时|前|后|的|下|但|且|并|除外)$",
    re.IGNORECASE,
)

LINK = re.compile(
    r"(?:https?|ftp)://\S+|www\.\S+|(?<![A-Za-z0-9])[A-Za-z0-9][A-Za-z0-9-]*\."
    r"(?:com|cn|net|org|gov|edu|info|top|xyz|cc|io|me|mobi|vip|link)(?![A-Za-z0-9])\S*",
    re.IGNORECASE,
)
PHONE = re.compile(
    r"(?<![\d.])(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d)"
    r"|(?<![\d.])(?:0\d{2,3}[-－—) ]?\d{7,8}|[48]00[-－ ]?\d{3,4}[-－ ]?\d{3,4})(?!\d)"
    r"|(?:电话|拨打|热线|致电|来电|手机号?|微信|QQ|call|phone|tel)[：:. ]{0,2}\d{3,}",
    re.IGNORECASE,
)
IDENTITY = re.compile(r"(?<![\dA-Za-z])[1-9]\d{5}(?:19|20)\d{2}(?:0\d|1[0-2])[0-3]\d{4}[\dXx](?![\dA-Za-z])")
"""An identity card number: region, date of birth, serial, check digit (GB 11643)."""


def utf16_units(text: str) -> int:
    """Return the length in UTF-16 code units, the unit in which carriers count."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def segments(text: str, single: int = SINGLE, part: int = PART) -> list[str]:
    """Split into SMS parts: one if it has at most `single` units, else parts of at most `part` units.

    The parts join back to `text`; a surrogate pair is never split. `part` must be at least 2.
    """
    if utf16_units(text) <= single:
        return [text]
    parts: list[str] = []
    start = units = 0
    for index, char in enumerate(text):
        size = 2 if char > "\uffff" else 1
        if units + size > part:
            parts.append(text[start:index])
            start, units = index, 0
        units += size
    parts.append(text[start:])
    return parts


def segment_count(text: str) -> int:
    """Return how many SMS parts the text takes (and is charged as)."""
    return len(segments(text))


@lru_cache(4096)
def clean(text: str | None) -> str:
    """Make foreign text safe to show: one line, no control, format or bidi characters, no signature brackets.

    Private-use characters stay: older name registers hold rare Hanzi there.
    """
    if not text:
        return ""
    spaced = "".join(" " if char.isspace() else char for char in unicodedata.normalize("NFC", text))
    seen = "".join(char for char in spaced if unicodedata.category(char) not in _UNSEEN)
    return _GAP.sub("", " ".join(seen.translate(_BRACKETS).split()))


def clauses(text: str) -> tuple[str, ...]:
    """Split at commas, semicolons and full stops, each clause keeping its own; they join back to `text`."""
    found = [match.group() for match in _CLAUSE.finditer(text) if match.group()]
    whole: list[str] = []
    for clause in found:
        # "1,200" is one number.
        if whole and whole[-1].endswith(",") and clause[:1].isdigit() and whole[-1][-2:-1].isdigit():
            whole[-1] += clause
        else:
            whole.append(clause)
    return tuple(whole)


def bare(text: str) -> str:
    """Drop leading and trailing punctuation and spaces: the template sets its own."""
    return text.strip(_STOPS)


@lru_cache(4096)
def shorter(text: str) -> tuple[str, ...]:
    """Return ever shorter heads of `text`, cut at clauses only, longest first, the last one empty.

    A head never ends in a clause that only opens a condition ("如遇险情"): without its sequel it would mislead.
    """
    pieces = clauses(text)
    heads: list[str] = []
    for count in range(len(pieces) - 1, -1, -1):
        kept = list(pieces[:count])
        while kept and _OPEN.search(bare(kept[-1])):
            kept.pop()
        head = bare("".join(kept))
        if not heads or heads[-1] != head:
            heads.append(head)
    return tuple(heads) or ("",)


@lru_cache(4096)
def without_contacts(text: str) -> str:
    """Drop the clauses that hold a link or a phone number (carriers block such texts), with their openings."""
    if not (LINK.search(text) or PHONE.search(text)):
        return text
    kept: list[str] = []
    for clause in _mended(clauses(text)):
        if LINK.search(clause) or PHONE.search(clause):
            while kept and _OPEN.search(bare(kept[-1])) and not kept[-1].endswith(("。", "；")):
                kept.pop()
        else:
            kept.append(clause)
    return bare("".join(kept))


def _mended(pieces: Sequence[str]) -> list[str]:
    """Join clauses again where a link was split at its own punctuation ("?a=1;b=2")."""
    whole: list[str] = []
    for piece in pieces:
        if whole and LINK.search(whole[-1]) and whole[-1][-1] in ",;!?" and piece[:1].isascii():
            whole[-1] += piece
        else:
            whole.append(piece)
    return whole
