"""What loudspeakers have said, on its way into the store: committed in groups, acknowledged afterwards.

Used by `_loudspeaker`, which tells the order, the moment of ack, and what happens on failure.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from channels._loudspeaker_commanded import Command
from channels._loudspeaker_connection import Connection
from channels._loudspeaker_hurry import Hurry
from gateway.channel import Event, Link
from gateway.errors import MingluoError

COMMIT_SIZE = 256
GATHER_S = 0.02  # what is acknowledged waits so long for others: hundreds answer one warning, each by three receipts
LINGER_S = 0.5  # what is not acknowledged waits for others: a fleet says all day how it is
WAITING_PER_DEVICE = 64
PRESENCE_KEPT = 20_000


class Waiting(NamedTuple):
    """Events to commit, then the ack that is owed to `connection`."""

    events: list[Event]
    connection: Connection | None = None
    ack: Mapping[str, object] | None = None
    command: Command | None = None


class Commits:
    """The commits of one channel. They wait while a warning is on its way."""

    def __init__(self, hurry: Hurry) -> None:
        self._waiting: deque[Waiting] = deque()
        self._presence: list[Event] = []
        self._committing: asyncio.Task[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._begin: Callable[[], None] = lambda: None
        self._hurry = hurry

    async def finish(self) -> None:
        """Commit what lingers, and wait for the commit under way."""
        if self._lingering is not None:
            self._begin()
        if self._committing is not None:
            await asyncio.wait({self._committing})

    async def keep(self, connection: Connection, waiting: Waiting, link: Link) -> None:
        """Let the next commit take what is to be acknowledged, unless the device has too much under way."""
        if connection.waiting >= WAITING_PER_DEVICE:
            await connection.answer("error", code="too_many", **(waiting.ack or {}))
            return
        connection.waiting += 1
        self._waiting.append(waiting)
        self._start(link)

    def note(self, link: Link, waiting: Waiting) -> None:
        """Let a commit take what nobody waits for, within `LINGER_S`; it keeps its place in the order."""
        self._waiting.append(waiting)
        if self._lingering is None:
            self._begin = partial(self._start, link)
            self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self._begin)

    def _start(self, link: Link) -> None:
        """Begin to commit. A bug there ends the task, with its traceback; the next frame starts one."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit(link))

    async def _commit(self, link: Link) -> None:
        """Commit what waits, group by group."""
        while self._waiting:
            # The last village's warning goes before the first one's receipt, and the database works beside no writing.
            await self._hurry.over()
            if len(self._waiting) < COMMIT_SIZE:
                await asyncio.sleep(GATHER_S)
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), COMMIT_SIZE))]
            await self._save(group, link)

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
            if item.connection is not None:
                item.connection.noted = True
            if item.connection is not None and item.ack is not None:
                if item.command is not None:
                    item.command.said = str(item.ack["state"])
                await item.connection.answer("ack", **item.ack)
