"""Loudspeakers the bureau owns, each holding one WebSocket to us (docs/device-protocol.md).

The hub asks `held` and calls `command` with desired state; a device that has said hello wakes the hub, so what is
live and unfinished reaches it after every reconnect, and nothing older does.

Ordering: frames to one device leave in the order of `command`; its receipts are committed in the order they came.
Moment of ack: a receipt is acknowledged to the device only after `link.commit` returned; what waits meanwhile shares
the next commit. On failure: no commit, no ack, and the device sends the receipt again. A device that does not read
is cut, never waited for. Losing this process loses no command and no receipt: devices keep theirs until acknowledged.

**Source:** RFC 6455 for close codes (4000–4999 are private); the frames are our own.
"""

from __future__ import annotations

import asyncio
import hmac
import sys
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import ClassVar, Literal, NamedTuple

from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import Field

from channels._loudspeaker_frame import Hello, Told, events_of, head, parse
from channels._loudspeaker_socket import Commanded, Connection
from gateway.channel import Device, Event, Link, Play, Route, Sockets
from gateway.channel import Settings as ChannelSettings
from gateway.errors import ChannelError, MingluoError, Temporary
from gateway.model import DeviceEvent, Group, Message, Receipt, Slice, State

BAD_FRAMES, NO_HELLO, REPLACED = 4400, 4408, 4409
LONGEST_MESSAGE = 65_536  # beyond it the library closes with 1009 and reads no further
BAD_FRAMES_ALLOWED = 2
COMMIT_SIZE = 256
WAITING_PER_DEVICE = 64
PRESENCE_KEPT = 20_000
SUBMITTED = Receipt(State.SUBMITTED)


class LoudspeakerSettings(ChannelSettings):
    """Table `loudspeaker_ws`. `buffer_bytes`: unread bytes beyond which a device is cut; `repeat`: of each text."""

    heartbeat_s: float = Field(30.0, gt=0)
    hello_s: float = Field(10.0, gt=0)
    buffer_bytes: int = Field(65_536, ge=4096)
    repeat: int = Field(3, ge=1, le=10)


_Key = tuple[int, str, bool, str]


class _Waiting(NamedTuple):
    """Events to commit. With a connection: the receipt `told` is acknowledged to it, or it said hello (None)."""

    events: list[Event]
    connection: Connection | None = None
    told: Told | None = None


class LoudspeakerWs(Sockets):
    """Hold the sockets of loudspeakers; write plays and stops, commit what the devices report."""

    name: ClassVar[str] = "loudspeaker_ws"
    slice: ClassVar[int] = 200
    groups: ClassVar[frozenset[Group]] = frozenset({Group.LOUDSPEAKERS})
    answer_s: ClassVar[float] = 2.0
    text_limit: ClassVar[int] = 1000
    Settings = LoudspeakerSettings
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

    def routes(self, link: Link) -> Sequence[Route]:
        """Return the one socket route."""

        async def accept(request: web.Request) -> web.StreamResponse:
            return await self._serve(request, await _authenticated(request, link), link)

        return (Route("GET", "/v1/devices/{name}/ws", accept),)

    async def close(self) -> None:
        """Close all sockets, then finish the commit under way."""
        connections = list(self._connections.values())
        for connection in connections:
            await connection.part(WSCloseCode.GOING_AWAY)
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

    async def _serve(self, request: web.Request, device: Device, link: Link) -> web.StreamResponse:
        """Hold one connection from the upgrade to its end."""
        socket: web.WebSocketResponse[Literal[False]] = web.WebSocketResponse(
            timeout=1.0,
            heartbeat=self.settings.heartbeat_s,
            compress=False,
            max_msg_size=LONGEST_MESSAGE,
            writer_limit=sys.maxsize,  # the library never waits for the reader; `write` bounds the buffer
            decode_text=False,
        )
        await socket.prepare(request)
        transport = request.transport
        if transport is None:  # left during the upgrade
            return socket
        connection = Connection(device.id, socket, transport, self.settings.buffer_bytes)
        old, self._connections[device.id] = self._connections.get(device.id), connection
        try:
            if old is not None:
                self._queue(link, _Waiting([_presence(device.id, "replaced")]))
                await old.part(REPLACED)
            await self._read(connection, link)
        finally:
            connection.gone.set()
            if self._connections.get(device.id) is connection:
                del self._connections[device.id]
                if connection.greeted:
                    self._queue(link, _Waiting([_presence(device.id, "offline")]))
        return socket

    async def _read(self, connection: Connection, link: Link) -> None:
        """Take frames until the socket closes."""
        while connection.bad <= BAD_FRAMES_ALLOWED:
            try:
                frame = await connection.socket.receive(None if connection.greeted else self.settings.hello_s)
            except TimeoutError:
                break
            if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            try:
                told = parse(frame.data if frame.type is WSMsgType.TEXT else b"")
                await self._take(connection, told, link)
            except ValueError as error:
                connection.bad += 1
                await connection.answer("error", code=str(error))
        # The library waits a second for the device's answer, then cuts.
        await connection.socket.close(
            code=BAD_FRAMES if connection.greeted or connection.bad else NO_HELLO, drain=False
        )

    async def _take(self, connection: Connection, told: Hello | Told, link: Link) -> None:
        """Act on one frame.

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


async def _authenticated(request: web.Request, link: Link) -> Device:
    """Return the device that is calling. An unknown name takes the same way as a wrong key.

    Raises:
        web.HTTPUnauthorized: name or key is wrong.
        web.HTTPServiceUnavailable: the directory did not answer.
    """
    try:
        device = await link.device(request.match_info["name"])
    except MingluoError:
        raise web.HTTPServiceUnavailable(headers={"Retry-After": "5"}) from None
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    given = sha256(key.strip().encode("utf-8", "surrogateescape")).hexdigest()
    expected = device.key_hash.lower() if device is not None else "0" * 64
    same = hmac.compare_digest(given.encode(), expected.encode())
    if device is None or not same or scheme.lower() != "bearer":
        raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"})
    return device


def _presence(device: int, kind: str, code: str = "") -> DeviceEvent:
    return DeviceEvent(device, kind, datetime.now(UTC), code)


def _text(play: Play, texts: Sequence[str]) -> str:
    """Return the device's own text: the texts stand for the whole batch, or for this device alone."""
    return texts[0] if len(texts) == 1 else texts[play.position]


def _own(message: Message, index: int) -> Message:
    return message if message.texts is None else replace(message, text=message.text_at(index), texts=None)
