"""Turns by alert, so that a small one does not wait behind a large one (rule 5). Used by `relay` and `sender`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Rotation(Generic[T]):
    """A queue per alert; `take` gives one of each in turn, each alert's own in order."""

    def __init__(self) -> None:
        self._alerts: dict[str, deque[T]] = {}
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def of(self, alert: str) -> int:
        """How many of this alert wait."""
        return len(self._alerts.get(alert, ()))

    def add(self, alert: str, item: T) -> None:
        """Let it wait behind those of its alert."""
        self._alerts.setdefault(alert, deque()).append(item)
        self._number += 1

    def next_of(self, alert: str) -> T | None:
        """Look at the first one of this alert; None: none waits."""
        items = self._alerts.get(alert)
        return items[0] if items else None

    def take_of(self, alert: str) -> T:
        """Take the first one of this alert, whosever turn it is; one must wait."""
        items = self._alerts[alert]
        item = items.popleft()
        if not items:
            del self._alerts[alert]
        self._number -= 1
        return item

    def take(self) -> T:
        """Take the first one of the alert whose turn it is; something must wait."""
        alert = next(iter(self._alerts))
        item = self.take_of(alert)
        if alert in self._alerts:
            self._alerts[alert] = self._alerts.pop(alert)  # behind the others
        return item


class Turnstile:
    """Lets one through at a time, the alerts that wait in turn."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: Rotation[asyncio.Future[None]] = Rotation()

    @asynccontextmanager
    async def turn(self, alert: str) -> AsyncIterator[None]:
        """Wait for a turn of this alert and hold it."""
        if self._taken:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.add(alert, turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # it had just become ours
                    self._pass_on()
                raise
        self._taken = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.take()
            if not turn.done():  # else whoever waited was cancelled
                turn.set_result(None)
                return
        self._taken = False
