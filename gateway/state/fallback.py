"""Redis while it answers, the process alone while it does not: rung "Redis" of the degradation ladder.

The first call that gets no answer pays its timeout and trips the breaker; from then on every call goes to
the local state at once, at its conservative share, and one background task asks Redis until it answers.
Listeners hear both, so wakes inside the process go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gateway import log
from gateway.errors import StateDown
from gateway.state.local import LocalState
from gateway.state.redis import RedisState

SHARE = 0.25  # of every rate while processes cannot see each other
FIRST_PROBE_S, LONGEST_PROBE_S = 0.1, 2.0

_log = log.get("state")


class FallbackState:
    """`State` that never raises `StateDown`."""

    def __init__(self, primary: RedisState, local: LocalState | None = None) -> None:
        self._primary = primary
        self._local = local or LocalState(SHARE)
        self._probe: asyncio.Task[None] | None = None

    @property
    def down(self) -> bool:
        """Whether the local state stands in."""
        return self._probe is not None

    async def recovered(self) -> None:
        """Return once Redis answers again; at once if it does."""
        if self._probe is not None:
            await asyncio.shield(self._probe)

    async def take(self, bucket: str, units: int, rate_per_s: float, burst: int, reserve: int) -> float:
        """Take tokens, leaving at least `reserve`; 0.0 when taken, else seconds until it is worth asking again."""
        if not self.down:
            try:
                return await self._primary.take(bucket, units, rate_per_s, burst, reserve)
            except StateDown:
                self._trip()
        return await self._local.take(bucket, units, rate_per_s, burst, reserve)

    async def wake(self, topic: str, payload: str = "") -> None:
        """Tell every listener of `topic`; only those of this process while Redis is down. Never raises."""
        if not self.down:
            try:
                await self._primary.publish(topic, payload)
            except StateDown:
                self._trip()
            else:
                return
        await self._local.wake(topic, payload)

    async def wakes(self, topic: str) -> AsyncIterator[str]:
        """Yield payloads as they come, and "" whenever something may have been missed."""
        heard: asyncio.Queue[str] = asyncio.Queue(1)

        async def listen(state: RedisState | LocalState) -> None:
            async for payload in state.wakes(topic):
                await heard.put(payload)

        listeners = [asyncio.create_task(listen(state)) for state in (self._local, self._primary)]
        try:
            while True:
                yield await heard.get()
        finally:
            for listener in listeners:
                listener.cancel()
            await asyncio.gather(*listeners, return_exceptions=True)

    async def close(self) -> None:
        """Disconnect."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await self._primary.close()

    def _trip(self) -> None:
        if self._probe is None:
            _log.warning("redis_down")
            self._probe = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        pause_s = FIRST_PROBE_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._primary.ping()
            except StateDown:
                pause_s = min(2 * pause_s, LONGEST_PROBE_S)
            else:
                _log.info("redis_back")
                self._probe = None
                return
