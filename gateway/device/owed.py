"""What a loudspeaker owes the gateway: receipts and alarms, each kept until it is acknowledged.

Every word is sent when it is owed, again after `RESEND_S`, and again on each connection. Of one command only the
latest word is kept: a village that was offline for a night reports what became of it, not how.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

RESEND_S = 10.0
KEPT_S = 86_400.0
KEPT = 2_000
NEVER = float("inf")
ANSWERS = ("stopped", "hushed")
UNHEARD = frozenset({"received", "playing", "busy"})
"""States from which a version may still become anything."""


class Word(msgspec.Struct):
    """One frame owed. `since`: when it came up, at the gateway; `next_s`: when it is to be sent (again), here."""

    frame: dict[str, Any]
    since: float
    next_s: float = 0.0


def key_of(frame: Mapping[str, Any]) -> tuple[str | int | None, ...]:
    """Return what a word and its acknowledgement have in common; whatever else a frame may hold is none of ours."""
    for kind in ("alarm", "order"):
        if kind in frame:
            return kind, _plain(frame[kind])
    # A stop and a hush are answered beside the play they end, under the same name.
    state = frame.get("state")
    return _plain(frame.get("batch")), _plain(frame.get("position")), state if state in ANSWERS else ""


def _plain(value: object) -> str | int | None:
    return value if isinstance(value, str | int) else None


class Owed:
    """The words that are not acknowledged."""

    __slots__ = ("_resend_s", "_words")

    def __init__(self, words: Iterable[Word] = (), resend_s: float = RESEND_S) -> None:
        self._words = {key_of(word.frame): word for word in words}
        self._resend_s = resend_s

    def __len__(self) -> int:
        return len(self._words)

    @property
    def words(self) -> list[Word]:
        """All of them, oldest first."""
        return list(self._words.values())

    def add(self, frame: dict[str, Any], at: float) -> None:
        """Owe one more; it takes the place of an earlier word on the same command. `at`: the gateway's time."""
        key = key_of(frame)
        self._words.pop(key, None)
        if frame.get("state") == "stopped":
            before = self._words.get((*key[:2], ""))
            if before is not None and before.frame["state"] in UNHEARD:
                del self._words[*key[:2], ""]
        self._words[key] = Word(frame, at)
        if len(self._words) > KEPT:
            del self._words[next(iter(self._words))]

    def acknowledged(self, ack: Mapping[str, Any]) -> None:
        """Forget what the gateway has; an acknowledgement of an earlier word changes nothing."""
        key = key_of(ack)
        word = self._words.get(key)
        if word is not None and ack.get("state", word.frame.get("state")) == word.frame.get("state"):
            del self._words[key]

    def refused(self, error: Mapping[str, Any]) -> None:
        """Let a word rest that this gateway does not expect: until the command comes again, or another connection."""
        if error.get("code") != "not_commanded":
            return
        for state in ("", *ANSWERS):
            word = self._words.get(key_of({**error, "state": state}))
            if word is not None:
                word.next_s = NEVER

    def connected(self) -> None:
        """Everything is to be sent again."""
        for word in self._words.values():
            word.next_s = 0.0

    def next_at(self) -> float | None:
        """Return when `due` will have something."""
        return min((word.next_s for word in self._words.values() if word.next_s != NEVER), default=None)

    def due(self, now: float) -> list[dict[str, Any]]:
        """Return what is to be sent now, oldest first."""
        found = [word for word in self._words.values() if word.next_s <= now]
        for word in found:
            word.next_s = now + self._resend_s
        return [word.frame for word in found]

    def forget(self, at: float) -> None:
        """Drop what is a day old: no gateway expects it."""
        self._words = {key: word for key, word in self._words.items() if at - word.since < KEPT_S}
