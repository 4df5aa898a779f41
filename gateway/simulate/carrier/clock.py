"""The carrier's clock, in China's time, and ids made of its time and a counter."""

from __future__ import annotations

import time
from functools import lru_cache

CHINA_S = 8 * 3600


@lru_cache(maxsize=8)
def moment(seconds: int) -> time.struct_time:
    """Return China's calendar at this Unix time."""
    return time.gmtime(seconds + CHINA_S)


@lru_cache(maxsize=8)
def stamp(seconds: int, form: str) -> str:
    """Return China's time as `strftime` writes it."""
    return time.strftime(form, moment(seconds))


class Counter:
    """Numbers below `limit` that begin anew every `step_s` seconds and, with their time, never come twice.

    Where the numbers of a step do not suffice, those of the next one are used early.
    """

    def __init__(self, limit: int, step_s: int) -> None:
        self._limit, self._step_s = limit, step_s
        self._step = self._next = 0

    def take(self, count: int) -> tuple[int, int]:
        """Return the Unix time and the first of `count` numbers in a row."""
        step = int(time.time()) // self._step_s
        if step > self._step:
            self._step, self._next = step, 0
        if self._next + count > self._limit:
            self._step, self._next = self._step + 1, 0
        first = self._next
        self._next += count
        return self._step * self._step_s, first
