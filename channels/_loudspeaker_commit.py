"""What loudspeakers have said, on its way into the store: committed in groups, acknowledged afterwards.

Used by `_loudspeaker`, which tells the order, the moment of ack, and what happens on failure.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from channels._loudspeaker_commanded import Command
from channels._loudspeaker_connection import Connection
from gateway.channel import Event, Link
from gateway.errors import MingluoError

COMMIT_SIZE = 256
WAITING_PER_DEVICE = 64
PRESENCE_KEPT = 20_000


class Waiting(NamedTuple):
    """Events to commit, then the ack that is owed to `connection`. `hello`: it has just come."""

    events: list[Event]
    connection: Connection | None = None
    ack: Mapping[str, object] | None = None
    command: Command | None = None
    hello: bool = False


class Commits:
    """The commits of one channel. `greeted` is told of each device once its hello was on its way to the hub."""

    def __init__(self, greeted: Callable[[Connection], None]) -> None:
        self._greeted = greeted
        self._waiting: deque[Waiting] = deque()
        self._presence: list[Event] = []
        self._committing: asyncio.Task[None] | None = None
        self.quiet = asyncio.Event()
        """Set but while commands are being written."""
        self.quiet.set()

    async def finish(self) -> None:
        """Wait for the commit under way."""
        if self._committing is not None:
            await asyncio.wait({self._committing})

    async def keep(self, connection: Connection, waiting: Waiting, link: Link) -> None:
        """Let the next commit take what is to be acknowledged, unless the device has too much under way."""
        if connection.waiting >= WAITING_PER_DEVICE:
            await connection.answer("error", code="too_many", **(waiting.ack or {}))
            return
        connection.waiting += 1
        self.queue(link, waiting)

    def queue(self, link: Link, waiting: Waiting) -> None:
        """Let the next commit take it. A bug there ends the task, with its traceback; the next frame starts one."""
        self._waiting.append(waiting)
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit(link))

    async def _commit(self, link: Link) -> None:
        """Commit what waits, group by group. Devices that said hello become ready after it, whatever came of it."""
        while self._waiting:
            # The last village's warning goes before the first one's receipt, and the database works beside no writing.
            await self.quiet.wait()
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), COMMIT_SIZE))]
            try:
                await self._save(group, link)
            finally:
                # Presence first, then the wake: the hub forgets a device's old connection by its `online`.
                greeted = [item.connection for item in group if item.connection is not None and item.hello]
                for connection in greeted:
                    self._greeted(connection)
                if greeted:
                    await link.wake()

    async def _save(self, group: list[Waiting], link: Link) -> None:
        """Commit one group, then acknowledge. What is not durable is not acknowledged."""
        for item in group:
            if item.connection is not None and item.ack is not None:
                item.connection.waiting -= 1
            elif item.connection is not None and item.connection.report is item.events:
                item.connection.report = None
        presence = [*self._presence, *(event for item in group if item.ack is None for event in item.events)]
        events = [*self._presence, *(event for item in group for event in item.events)]
        try:
            await link.commit(events)
        except MingluoError:
            # Receipts come again, unacknowledged as they are. Presence does not: it joins the next commit.
            self._presence = presence[-PRESENCE_KEPT:]
            return
        self._presence = []
        for item in group:
            if item.connection is not None and item.ack is not None:
                if item.command is not None:
                    item.command.said = str(item.ack["state"])
                await item.connection.answer("ack", **item.ack)
