"""Whether this process has a connection to each carrier, and what follows when it has none.

Called by the wiring of every process that sends on channels which may be unable to (`Channel.up`). While a channel is
not up here, its queues are paused and its batches left to other processes; what was taken goes back to the broker at
once. All processes note in the store what they have: a channel that is up nowhere for `PATIENCE` becomes an outage,
although nobody has tried to send, so that the plan's fallbacks take over (see `store.outage`). The first that is up
takes it back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

from gateway import metrics
from gateway.channel import Channel, Lines
from gateway.ports import Clock, Outbox
from gateway.relay import Worker

CHECK_S = 0.03  # so soon work flows again
NOTE_S = 2.0
PATIENCE = timedelta(seconds=5)  # a login that is renewed takes moments


class Sessions:
    """Watches the channels of one process that may be without a connection."""

    def __init__(self, channels: Mapping[str, Channel], worker: Worker, outbox: Outbox, clock: Clock) -> None:
        self._channels = channels
        self._worker = worker
        self._outbox = outbox
        self._clock = clock
        self._down: dict[str, datetime] = {}
        self._broken: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        """Follow `up()` for ever."""
        while True:
            self.check()
            await asyncio.sleep(CHECK_S)

    def check(self) -> None:
        """Look once."""
        for name, channel in self._channels.items():
            up = channel.up()
            metrics.sessions_up.labels(name).set(int(up))
            if up:
                self._down.pop(name, None)
            else:
                self._down.setdefault(name, self._clock.now())
            if (lines := channel.lines()) is not None:
                self._show(name, lines)
        self._worker.check()

    def _show(self, name: str, lines: Lines) -> None:
        """Show what a channel, which counts nothing itself, says of its connections."""
        if lines.allowed:
            metrics.connections.labels(name).set(lines.serving)
            metrics.connections_allowed.labels(name).set(lines.allowed)
        for why, number in lines.broken.items():
            if new := number - self._broken[name, why]:
                metrics.connections_broken.labels(name, why if why in metrics.BROKEN else "other").inc(new)
                self._broken[name, why] = number

    async def note(self) -> None:
        """Tell the other processes.

        Raises:
            StoreDown: it is told the next time.
        """
        late = self._clock.now() - PATIENCE
        up = [name for name in self._channels if name not in self._down]
        await self._outbox.note_sessions(up, {name: since for name, since in self._down.items() if since <= late})
