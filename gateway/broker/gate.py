"""The breaker of the broker: which queues confirm at present. Used by `RabbitBroker` only.

A publish that is not confirmed in time shuts all queues at once, for a frozen broker answers none of them;
one that is refused or returned shuts its own. Probes open them one by one. While a queue is shut, patient
callers wait within their own time; the others (green and urgent, which the workers then pick from the store)
fail at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from gateway.errors import BrokerDown

PATIENT_S = 1.0  # callers with less time than this are not kept waiting by a shut queue


class Gate:
    """Open or shut, per queue. `trouble` is set while any queue is shut."""

    def __init__(self) -> None:
        self.trouble = asyncio.Event()
        self._open: dict[str, asyncio.Event] = {}

    def add(self, queues: Collection[str]) -> None:
        """Learn of queues; they are shut until a probe confirms."""
        for queue in queues:
            self._open.setdefault(queue, asyncio.Event())
        self.trouble.set()

    def open(self, queue: str) -> None:
        """Let publishes through."""
        self._open[queue].set()
        if all(event.is_set() for event in self._open.values()):
            self.trouble.clear()

    def shut(self, queues: Collection[str] | None = None) -> None:
        """Stop publishes to `queues`, or to all."""
        for queue in self._open if queues is None else queues:
            self._open[queue].clear()
        self.trouble.set()

    def shut_queues(self) -> list[str]:
        """Queues a probe has to open."""
        return [queue for queue, event in self._open.items() if not event.is_set()]

    async def opened(self, queue: str) -> None:
        """Wait until the queue confirms."""
        await self._open[queue].wait()

    async def enter(self, queue: str, timeout_s: float, *, patient: bool = True) -> None:
        """Return when the queue is open.

        Raises:
            BrokerDown: unknown queue, or shut and the caller has no time or no wish to wait.
        """
        event = self._open.get(queue)
        if event is None:
            raise BrokerDown("queue not declared")
        if event.is_set():
            return
        if not patient or timeout_s < PATIENT_S:
            await asyncio.sleep(0)  # a caller in a loop must not starve the probe
            raise BrokerDown("breaker open")
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError as error:
            raise BrokerDown("breaker open") from error
