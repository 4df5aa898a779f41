"""Long messages from phones, put together again; and reference numbers for long messages of ours.

Used by `_conversation` and `_session`. A part of a reply is acknowledged with the whole: until then the carrier still
has it. What stays incomplete is handed on as it is, for "3, the dam is" is worth reading.

Source: 3GPP TS 23.040 section 9.2.3.24.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from channels._field import WireError
from channels._sms_text import Part, decoded, split_header
from channels._wire import Spoken, national
from gateway.model import Reply

WHOLE_WITHIN_S = 10.0
"""Less than a carrier waits for an answer before it sends a part again."""
MOST_UNFINISHED = 1_000
MOST_ANSWERS = 512  # of one reply: a part may come again
GAP = "…"
HELD_S = 3600.0
MOST_HELD = 200_000


class Whole(NamedTuple):
    """A reply, and what acknowledges its parts."""

    reply: Reply
    answers: list[Any]


@dataclass(slots=True)
class _Unfinished:
    first: Spoken
    due: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    answers: list[Any] = field(default_factory=list)


class Assembly:
    """Parts of replies of one account in this process: bounded, by the loop's clock."""

    def __init__(self, channel: str, src_id: str, extension: int = 0) -> None:
        self._channel = channel
        self._src_id = src_id
        self._extension = extension
        self._unfinished: dict[tuple[str, Part], _Unfinished] = {}

    def add(self, spoken: Spoken, answer: Any, now: float) -> Iterator[Whole]:
        """Take a message or a part; yield what is whole, or must not wait any longer."""
        part, octets = None, spoken.octets
        if spoken.headed:
            with suppress(WireError):  # the text is read with its broken header: a person may still make sense of it
                part, octets = split_header(octets)
        if part is None or part.total == 1:
            yield Whole(self._reply(spoken, decoded(spoken.msg_fmt, octets)), [answer])
            return
        key = (spoken.number, part._replace(number=0))
        found = self._unfinished.setdefault(key, _Unfinished(spoken, now + WHOLE_WITHIN_S))
        found.pieces[part.number] = octets
        found.answers.append(answer)
        if len(found.pieces) == part.total or len(found.answers) > MOST_ANSWERS:
            yield self._end(key)
        elif len(self._unfinished) > MOST_UNFINISHED:
            yield self._end(next(iter(self._unfinished)))

    def due(self, now: float) -> Iterator[Whole]:
        """Yield what has waited long enough, as far as it came."""
        for key in [key for key, one in self._unfinished.items() if one.due <= now]:
            yield self._end(key)

    def _end(self, key: tuple[str, Part]) -> Whole:
        found, total = self._unfinished.pop(key), key[1].total
        missing = [number for number in range(1, total + 1) if number not in found.pieces]
        if missing:
            texts = [decoded(found.first.msg_fmt, octets) for _, octets in sorted(found.pieces.items())]
            return Whole(self._reply(found.first, GAP.join(texts) + GAP), found.answers)
        # Joined before they are read: a phone may cut within a pair of surrogates.
        octets = b"".join(found.pieces[number] for number in range(1, total + 1))
        return Whole(self._reply(found.first, decoded(found.first.msg_fmt, octets)), found.answers)

    def _reply(self, spoken: Spoken, text: str) -> Reply:
        behind = spoken.dialled.removeprefix(self._src_id) if spoken.dialled.startswith(self._src_id) else ""
        extension = behind if len(behind) == self._extension else ""  # what a carrier adds of its own names no alert
        return Reply(
            self._channel, self._channel, spoken.reference, national(spoken.number), text, datetime.now(UTC), extension
        )


class LongReferences:
    """Reference numbers of long messages on one connection.

    A phone puts parts together by sender and reference: one still under way to a number is not given to it again.
    `ring` yields what no other connection of the account uses.
    """

    def __init__(self, ring: Iterator[int], size: int) -> None:
        self._ring = ring
        self._size = size
        self._held: dict[int, set[str]] = {}
        self._order: deque[tuple[float, int, tuple[str, ...]]] = deque()
        self._count = 0

    def take(self, numbers: tuple[str, ...], now: float) -> int:
        """Return a reference none of the numbers has under way; of all that have, the oldest."""
        self._forget(now)
        chosen = self._free(numbers)
        self._held.setdefault(chosen, set()).update(numbers)
        self._order.append((now + HELD_S, chosen, numbers))
        self._count += len(numbers)
        return chosen

    def _free(self, numbers: Iterable[str]) -> int:
        for _ in range(self._size):
            reference = next(self._ring)
            if self._held.get(reference, set()).isdisjoint(numbers):
                return reference
        return self._order[0][1]

    def _forget(self, now: float) -> None:
        while self._order and (self._order[0][0] <= now or self._count > MOST_HELD):
            _, reference, numbers = self._order.popleft()
            self._held[reference].difference_update(numbers)
            self._count -= len(numbers)
