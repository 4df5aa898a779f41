"""State of one process: token buckets by a monotonic clock, and wakes inside the process.

Alone it serves a process that shares its accounts with nobody; behind `FallbackState` it stands in for Redis
with a conservative `share` of every rate, since other processes then count for themselves too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

ROOM = 1024  # wakes waiting per listener; more are dropped, polling makes them good
MANY = 4096  # buckets kept before those that are full, and so tell nothing, are forgotten


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    rate_per_s: float
    burst: float

    def refill(self, now: float) -> None:
        """Add what has come since the last look; `now` in seconds, as `at`."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.rate_per_s)
        self.at = now


class LocalState:
    """`State` in one process; `share` scales rate, burst and reserve of every bucket."""

    def __init__(self, share: float = 1.0, now: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._now = now
        self._buckets: dict[str, _Bucket] = {}
        self._listeners: dict[str, set[asyncio.Queue[str]]] = {}

    async def take(self, bucket: str, units: int, rate_per_s: float, burst: int, reserve: int) -> float:
        """Take tokens, leaving at least `reserve`; 0.0 when taken, else seconds until it is worth asking again.

        More units than ever fit are taken from a full bucket, which then owes the rest.
        """
        rate, most, kept = rate_per_s * self._share, burst * self._share, reserve * self._share
        now = self._now()
        held = self._buckets.get(bucket)
        if held is None:
            self._forget(now)
            held = self._buckets[bucket] = _Bucket(most, now, rate, most)
        held.rate_per_s, held.burst = rate, most
        held.refill(now)
        needed = min(units + kept, most)
        if held.tokens < needed:
            return (needed - held.tokens) / rate
        held.tokens -= units
        return 0.0

    async def wake(self, topic: str, payload: str = "") -> None:
        """Tell every listener of `topic` in this process."""
        for listener in self._listeners.get(topic, ()):
            if not listener.full():
                listener.put_nowait(payload)

    async def wakes(self, topic: str) -> AsyncIterator[str]:
        """Yield "" once when listening, then payloads as they come."""
        listener: asyncio.Queue[str] = asyncio.Queue(ROOM)
        listeners = self._listeners.setdefault(topic, set())
        listeners.add(listener)
        try:
            yield ""
            while True:
                yield await listener.get()
        finally:
            listeners.discard(listener)

    async def close(self) -> None:
        """Nothing is held."""

    def _forget(self, now: float) -> None:
        if len(self._buckets) < MANY:
            return
        for name, held in list(self._buckets.items()):
            held.refill(now)
            if held.tokens >= held.burst:
                del self._buckets[name]
