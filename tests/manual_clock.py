"""Time moved by hand: tests get one from the fixture `clock`, so that none of them sleeps."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

START = datetime(2026, 7, 20, 6, 0, tzinfo=UTC)  # 14:00 in China, in the flood season


class ManualClock:
    """A `gateway.ports.Clock` that stands still until it is told to go on."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._sleepers: list[tuple[datetime, asyncio.Future[None]]] = []
        self._came = asyncio.Event()

    def now(self) -> datetime:
        """Aware UTC."""
        return self._now

    def set(self, moment: datetime) -> None:
        """Go to a moment and wake, in the order they are due, all who wait for it or an earlier one."""
        self._now = moment
        due = sorted((sleeper for sleeper in self._sleepers if sleeper[0] <= moment), key=lambda sleeper: sleeper[0])
        self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > moment]
        for _, woken in due:
            if not woken.done():
                woken.set_result(None)

    def advance(self, wait_s: float) -> None:
        """Go forward; a task that sleeps again counts from the new time."""
        self.set(self._now + timedelta(seconds=wait_s))

    async def sleep(self, wait_s: float) -> None:
        """Wait until the clock was moved that far; zero or less only lets others run."""
        if wait_s <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now + timedelta(seconds=wait_s), woken))
        self._came.set()
        try:
            await woken
        finally:
            self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[1] is not woken]

    async def sleeping(self, count: int = 1) -> None:
        """Wait until at least that many tasks sleep: then it is safe to advance."""
        while len(self._sleepers) < count:
            self._came.clear()
            await self._came.wait()
