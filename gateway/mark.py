"""The drill mark in words that are not ours: does a text begin as a drill does, however that is written? Pure.

What is not Actual gets its mark from the renderer, in front of everything. Here is the reverse: a real warning whose
issuer wrote 演练 in front would be taken for a drill and ignored, or is a drill sent under the wrong status. Asked by
`policy.route` (a person must say which it is) and by `render` (no real text ever begins like that).

**Source:** Unicode NFKC for what looks alike; DESIGN rule 3.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

_ALIKE = str.maketrans(
    {"練": "练", "煉": "练", "炼": "练", "鍊": "练", "習": "习", "擬": "拟", "試": "试", "測": "测"}
    | dict.fromkeys("\u0456\u0131\u03b9\u026a", "i")
    | {"\u0435": "e", "\u0455": "s", "\u0445": "x", "\u0441": "c"}
)
"""Traditional and mistyped Hanzi, and letters of other alphabets that look Latin."""
_MARK = re.compile(r"模拟演[练习]|演[练习]|测试|试播|dr[i1l]ll|exercise|test")
_BEGINNINGS = frozenset("模演测试det")
"""The letters that `_MARK` can begin with: hardly any text begins so, and the others are done with."""
LONGEST = 16
"""Letters looked at: a long description delays nobody."""
_SIGNATURE = re.compile(r"^\s*[【〔\[][^】〕\]]*[】〕\]]")
_GAPS = " ·-_*.。，,：:；;！!、|/\\()（）[]〔〕【】《》<>「」『』\"'“”"
_LATIN = re.compile(r"[a-z0-9]")
_STOP = re.compile(r"\s*(?:[^\w\s]|_|$)")
"""Behind "exercise" and "test", which also begin honest sentences ("Exercise caution …")."""


@lru_cache(4096)
def unmarked(text: str) -> str:
    """Return the text without what looks like drill marks at its head; itself where there are none."""
    rest = text
    while (end := _mark(rest)) or (end := _mark_behind_signature(rest)):
        rest = rest[end:].lstrip(_GAPS)
    return rest


def marked(text: str | None) -> bool:
    """Whether the text, or what stands behind its 【signature】, begins as a drill does.

    To the eye or the ear: width, gaps and unseen signs make no difference.
    """
    return text is not None and bool(_mark(text) or _mark_behind_signature(text))


def _mark_behind_signature(text: str) -> int:
    found = _SIGNATURE.match(text)
    end = _mark(text[found.end() :]) if found else 0
    return found.end() + end if found and end else 0


def _mark(text: str) -> int:
    """Return where a mark at the head ends, or 0."""
    first = next(_letters(text), None)
    if first is None or first[1] not in _BEGINNINGS:
        return 0
    letters = list(islice(_letters(text), LONGEST))
    found = _MARK.match("".join(letter for _, letter in letters))
    if not found:
        return 0
    end = letters[found.end() - 1][0] + 1
    while end < len(text) and unicodedata.category(text[end]) in ("Mn", "Me", "Cf"):
        end += 1
    if not found.group().isascii():
        return end
    if _LATIN.match(_plain(text[end : end + 1])):
        return 0  # "drilling", "tested"
    return end if found.group().startswith("dr") or _STOP.match(text[end:]) else 0


def _letters(text: str) -> Iterator[tuple[int, str]]:
    """Yield (place in the text, letter or digit in its one form)."""
    for place, char in enumerate(text):
        for letter in _plain(char):
            if letter.isalnum():
                yield place, letter


@lru_cache(4096)
def _plain(char: str) -> str:
    return unicodedata.normalize("NFKC", char).casefold().translate(_ALIKE)
