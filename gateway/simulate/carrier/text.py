"""Contents of short messages as a phone reads them: character sets, user data headers, parts put together again.

**Source:** 3GPP TS 23.040 §9.2.3.24 (user data header, concatenation with 8- and 16-bit references).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

UCS2, GB = 8, 15
SINGLE_BYTES, PART_BYTES = 140, 134
MOST_UNFINISHED = 200_000
CODECS = {0: "ascii", UCS2: "utf-16-be", GB: "gb18030"}


class Part(NamedTuple):
    """Which part of a long message: reference, how many in all, and its number from 1."""

    ref: int
    total: int
    number: int


def split_header(content: bytes, *, udhi: bool) -> tuple[Part | None, bytes]:
    """Return the part a content says it is, and the content without its header. A broken header is left in."""
    if not udhi or not content or len(content) <= content[0]:
        return None, content
    header, rest = content[1 : 1 + content[0]], content[1 + content[0] :]
    at = 0
    while at + 2 <= len(header):
        kind, size = header[at], header[at + 1]
        field = header[at + 2 : at + 2 + size]
        # Element 0 holds an 8-bit reference, 8 a 16-bit one; both then total and number.
        if (kind, size) in ((0, 3), (8, 4)) and len(field) == size and 1 <= field[-1] <= field[-2]:
            return Part(int.from_bytes(field[:-2], "big"), field[-2], field[-1]), rest
        at += 2 + size
    return None, rest


def decode(content: bytes, coding: int) -> str:
    """Return the text; what is no text is shown in hex, what is broken as U+FFFD."""
    codec = CODECS.get(coding)
    return content.decode(codec, "replace") if codec else content.hex()


def encode(text: str, ref: int) -> Iterator[tuple[int, bool, bytes]]:
    """Yield coding, UDHI and content of each part a phone sends for a text."""
    if text.isascii() and len(text) <= SINGLE_BYTES:
        yield 0, False, text.encode()
        return
    raw = text.encode("utf-16-be")
    if len(raw) <= SINGLE_BYTES:
        yield UCS2, False, raw
        return
    pieces = []
    while raw:
        # A high surrogate at the end would lose its other half.
        size = PART_BYTES - 2 * (len(raw) > PART_BYTES and 0xD8 <= raw[PART_BYTES - 2] <= 0xDB)
        pieces.append(raw[:size])
        raw = raw[size:]
    for number, piece in enumerate(pieces, 1):
        yield UCS2, True, bytes((5, 0, 3, ref & 0xFF, len(pieces), number)) + piece


class Assembly:
    """Parts of long messages per sender, number and reference, until they are whole."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str, int, int], dict[int, bytes]] = {}

    def add(self, source: str, numbers: Sequence[str], part: Part, content: bytes) -> Iterator[tuple[str, bytes]]:
        """Keep a part for each number; yield the numbers for which it was the last, with the whole content."""
        for number in numbers:
            key = (source, number, part.ref, part.total)
            parts = self._parts.setdefault(key, {})
            parts[part.number] = content
            if len(parts) == part.total:
                del self._parts[key]
                yield number, b"".join(parts[n] for n in range(1, part.total + 1))
        while len(self._parts) > MOST_UNFINISHED:  # a client that never finishes must not fill the memory
            del self._parts[next(iter(self._parts))]
