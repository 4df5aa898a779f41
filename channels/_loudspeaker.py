"""Loudspeakers the bureau owns, whatever carries their frames (docs/device-protocol.md).

A transport derives its channel from `Loudspeakers` and its way of writing to one device from `Connection`; it calls
`join` when a device has come, `hear` with each frame, `leave` when it has gone. The hub asks `held` and calls
`command` with desired state; a device that has said hello wakes the hub, so what is live and unfinished reaches it
after every reconnect, and nothing older does.

Ordering: frames to one device leave in the order of `command`; its receipts are committed in the order they came.
Moment of ack: a receipt is acknowledged to the device only after `link.commit` returned; what waits meanwhile shares
the next commit. On failure: no commit, no ack, and the device sends the receipt again. A device that does not read
is cut, never waited for. Losing this process loses no command and no receipt: devices keep theirs until acknowledged.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar, NamedTuple

import orjson
from pydantic import Field

from channels._loudspeaker_commanded import Commanded
from channels._loudspeaker_frame import Hello, Told, events_of, head, parse
from gateway.channel import Event, Link, Play, Sockets
from gateway.channel import Settings as ChannelSettings
from gateway.errors import ChannelError, MingluoError, Temporary
from gateway.model import DeviceEvent, Group, Message, Receipt, Slice, State

# Why we part from a device; over WebSocket the close codes.
GOING_AWAY, REPLACED = 1001, 4409
BAD_FRAMES_ALLOWED = 2
COMMIT_SIZE = 256
WAITING_PER_DEVICE = 64
PRESENCE_KEPT = 20_000
SUBMITTED = Receipt(State.SUBMITTED)


class LoudspeakerSettings(ChannelSettings):
    """What the tables of all loudspeaker channels hold. `repeat`: how often a text is spoken in a row."""

    repeat: int = Field(3, ge=1, le=10)


class Connection(ABC):
    """The way to one device that has come.

    `greeted` once it said hello, `ready` once that was on its way to the hub; `bad` counts refused frames, `waiting`
    the receipts that are not durable yet. `gone`: it has left.
    """

    __slots__ = ("bad", "device", "gone", "greeted", "ready", "waiting")

    def __init__(self, device: int) -> None:
        self.device = device
        self.greeted = False
        self.ready = False
        self.bad = 0
        self.waiting = 0
        self.gone = asyncio.Event()

    @abstractmethod
    async def write(self, frame: bytes) -> None:
        """Write one frame; never waits for the device.

        Raises:
            Temporary: it is gone, or was cut because it does not read.
        """

    @abstractmethod
    async def part(self, code: int) -> None:
        """Say goodbye without waiting; the transport calls `leave` once it is gone."""

    async def answer(self, kind: str, **fields: object) -> None:
        """Write an ack or error, unless the device is gone: it asks again."""
        with suppress(Temporary):
            await self.write(orjson.dumps({"type": kind, **fields}))


_Key = tuple[int, str, bool, str]


class _Waiting(NamedTuple):
    """Events to commit. With a connection: the receipt `told` is acknowledged to it, or it said hello (None)."""

    events: list[Event]
    connection: Connection | None = None
    told: Told | None = None


class Loudspeakers(Sockets):
    """Hold the connections of loudspeakers; write plays and stops, commit what the devices report."""

    slice: ClassVar[int] = 200
    groups: ClassVar[frozenset[Group]] = frozenset({Group.LOUDSPEAKERS})
    answer_s: ClassVar[float] = 2.0
    text_limit: ClassVar[int] = 1000
    Settings: ClassVar[type[ChannelSettings]] = LoudspeakerSettings
    settings: LoudspeakerSettings

    def __init__(self, settings: LoudspeakerSettings) -> None:
        super().__init__(settings)
        self._connections: dict[int, Connection] = {}
        self._commanded = Commanded()
        self._waiting: deque[_Waiting] = deque()
        self._presence: list[Event] = []
        self._committing: asyncio.Task[None] | None = None

    def held(self) -> Collection[int]:
        """Ids of the devices that have said hello here."""
        return [device for device, connection in self._connections.items() if connection.ready]

    async def close(self) -> None:
        """Part from all devices, then finish the commit under way."""
        connections = list(self._connections.values())
        for connection in connections:
            await connection.part(GOING_AWAY)
        for connection in connections:
            await connection.gone.wait()
        if self._committing is not None:
            await self._committing

    # -- to the devices ----------------------------------------------------------------------------------------------

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        """Write one slice; where texts differ, each device gets its own."""
        plays = [
            Play(slice_.batch, position, device, _own(message, index))
            for index, (position, device) in enumerate(zip(slice_.positions, slice_.persons, strict=True))
        ]
        return await self.command(plays, link)

    async def command(self, plays: Sequence[Play], link: Link) -> list[Receipt]:
        """Write plays and stops in a plain loop; each distinct message is serialised once."""
        heads: dict[_Key, bytes] = {}
        receipts: list[Receipt] = []
        now = asyncio.get_running_loop().time()
        self._commanded.forget(now)
        for count, play in enumerate(plays, 1):
            try:
                receipts.append(await self._write(play, heads, now))
            except ChannelError as error:
                receipts.append(Receipt(State.FAILED, error.code, error=error))
            except Exception as error:  # a bug for one device must not silence the others
                receipts.append(Receipt(State.FAILED, type(error).__name__, error=error))
            if count % self.slice == 0:
                await asyncio.sleep(0)  # a turn of the loop: receipts are read, and the first frames really leave
        return receipts

    async def _write(self, play: Play, heads: dict[_Key, bytes], now: float) -> Receipt:
        connection = self._connections.get(play.device)
        if connection is None or not connection.ready:
            raise Temporary("offline")
        text = play.message.text if play.message.texts is None else _text(play, play.message.texts)
        key = (id(play.message), play.batch, play.stop, text)  # the plays keep their messages alive: ids are distinct
        if (start := heads.get(key)) is None:
            start = heads[key] = self._head(play, text)
        if not start:
            return Receipt(State.EXPIRED, "expired")
        self._commanded.add(play, now)
        await connection.write(b"%b%d}" % (start, play.position))
        return SUBMITTED

    def _head(self, play: Play, text: str) -> bytes:
        """Return what all devices with this text share; nothing for a play that has expired (rule 4)."""
        now = datetime.now(UTC)
        if not play.stop and play.message.expires <= now:
            return b""
        return head(play, text, now, self.settings.repeat)

    # -- from the devices --------------------------------------------------------------------------------------------

    async def join(self, connection: Connection, link: Link) -> None:
        """Take a device's connection; an older one of the same device has to go."""
        old, self._connections[connection.device] = self._connections.get(connection.device), connection
        if old is not None:
            self._queue(link, _Waiting([_presence(connection.device, "replaced")]))
            await old.part(REPLACED)

    def leave(self, connection: Connection, link: Link) -> None:
        """Forget a connection that has ended."""
        connection.gone.set()
        if self._connections.get(connection.device) is connection:
            del self._connections[connection.device]
            if connection.greeted:
                self._queue(link, _Waiting([_presence(connection.device, "offline")]))

    async def hear(self, connection: Connection, frame: bytes, link: Link) -> bool:
        """Act on one frame; False once there were too many bad ones, and the transport cuts the device."""
        try:
            await self._take(connection, parse(frame), link)
        except ValueError as error:
            connection.bad += 1
            await connection.answer("error", code=str(error))
        return connection.bad <= BAD_FRAMES_ALLOWED

    async def _take(self, connection: Connection, told: Hello | Told, link: Link) -> None:
        """Act on one parsed frame.

        Raises:
            ValueError: "hello_first".
        """
        if isinstance(told, Hello):
            if not connection.greeted:
                connection.greeted = True
                self._queue(link, _Waiting([_presence(connection.device, "online", told.firmware)], connection))
            return
        if not connection.greeted:
            raise ValueError("hello_first")
        code = ""
        if not self._commanded.allows(told, connection.device, asyncio.get_running_loop().time()):
            code = "not_commanded"
        elif connection.waiting >= WAITING_PER_DEVICE:
            code = "too_many"
        if code:
            await connection.answer("error", code=code, batch=told.batch, position=told.position)
            return
        connection.waiting += 1
        self._queue(link, _Waiting(events_of(told, connection.device, self.name), connection, told))

    def _queue(self, link: Link, waiting: _Waiting) -> None:
        """Let the next commit take it. A bug there ends the task, with its traceback; the next frame starts one."""
        self._waiting.append(waiting)
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit(link))

    async def _commit(self, link: Link) -> None:
        """Commit what waits, group by group. Devices that said hello become ready after it, whatever came of it."""
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), COMMIT_SIZE))]
            greeted = [item.connection for item in group if item.connection is not None and item.told is None]
            try:
                await self._save(group, link)
            finally:
                # Presence first, then the wake: the hub forgets a device's old connection by its `online`.
                for connection in greeted:
                    connection.ready = True
                if greeted:
                    await link.wake()

    async def _save(self, group: list[_Waiting], link: Link) -> None:
        """Commit one group, then acknowledge. What is not durable is not acknowledged."""
        receipts = [(item.connection, item.told) for item in group if item.connection and item.told]
        for connection, _ in receipts:
            connection.waiting -= 1
        presence = [*self._presence, *(event for item in group if item.told is None for event in item.events)]
        events = [*self._presence, *(event for item in group for event in item.events)]
        try:
            await link.commit(events)
        except MingluoError:
            # Receipts come again, unacknowledged as they are. Presence does not: it joins the next commit.
            self._presence = presence[-PRESENCE_KEPT:]
            return
        self._presence = []
        for connection, told in receipts:
            await connection.answer("ack", batch=told.batch, position=told.position, state=told.state)


def _presence(device: int, kind: str, code: str = "") -> DeviceEvent:
    return DeviceEvent(device, kind, datetime.now(UTC), code)


def _text(play: Play, texts: Sequence[str]) -> str:
    """Return the device's own text: the texts stand for the whole batch, or for this device alone."""
    return texts[0] if len(texts) == 1 else texts[play.position]


def _own(message: Message, index: int) -> Message:
    return message if message.texts is None else replace(message, text=message.text_at(index), texts=None)
