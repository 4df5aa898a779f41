"""Loudspeakers that each hold one WebSocket to us: the transport alone (docs/device-protocol.md).

What is written, and what becomes of what devices say, is in `_loudspeaker`.

**Source:** RFC 6455 for close codes (4000–4999 are private); the frames are our own.
"""

from __future__ import annotations

import asyncio
import hmac
import sys
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import ClassVar, Literal

from aiohttp import WSMsgType, web
from pydantic import Field

from channels._admission import Admission
from channels._loudspeaker import Loudspeakers
from channels._loudspeaker import LoudspeakerSettings as CommonSettings
from channels._loudspeaker_connection import Connection
from gateway.channel import Device, Link, Route
from gateway.errors import MingluoError, Temporary

LONGEST_MESSAGE = 65_536  # beyond it the library closes with 1009 and reads no further
CUT_AFTER_S = 5.0
LOOKS = 30  # at who is silent, in one `heartbeat_s`
TURN = 200  # pings in a row; then everything else has a turn
SOON_S = 0.001  # the library takes 0 for no limit
SPREAD = 16  # devices that fell silent together, as after a play, are not asked together


class LoudspeakerSettings(CommonSettings):
    """Table `loudspeaker_ws`.

    `heartbeat_s`: a device that is silent for so long is asked whether it is there, and cut after half as long again.
    `buffer_bytes`: unread bytes beyond which a device is cut; `connects_per_s`: devices let in, the others are told to
    come again.
    """

    heartbeat_s: float = Field(30.0, gt=0)
    hello_s: float = Field(10.0, gt=0)
    buffer_bytes: int = Field(65_536, ge=4096)
    connects_per_s: float = Field(600.0, gt=0, allow_inf_nan=False)


class Socket(Connection):
    """One device's WebSocket. `heard_at`: by the loop's clock; `asked`: whether it is there, since it was heard."""

    __slots__ = ("_buffer_bytes", "_transport", "asked", "heard_at", "stream")

    def __init__(
        self,
        device: int,
        name: str,
        stream: web.WebSocketResponse[Literal[False]],
        transport: asyncio.Transport,
        buffer_bytes: int,
    ) -> None:
        super().__init__(device, name)
        self.stream = stream
        self._transport = transport
        self._buffer_bytes = buffer_bytes
        self.heard_at = asyncio.get_running_loop().time()
        self.asked = False

    async def write(self, frame: bytes) -> None:
        """Write one text frame; never waits for the device.

        Raises:
            Temporary: "slow_device", which is cut; or "offline".
        """
        await self._write(frame, WSMsgType.TEXT)

    async def beat(self, now: float, heartbeat_s: float) -> bool:
        """Ask a device that is silent whether it is there, cut one that does not answer; True if it was asked."""
        silent_s = now - self.heard_at
        if silent_s >= heartbeat_s * 1.5:
            self._transport.abort()
        elif not self.asked and silent_s >= heartbeat_s * (1 - self.device % SPREAD / (4 * SPREAD)):
            self.asked = True
            with suppress(Temporary):  # gone already
                await self._write(b"", WSMsgType.PING)
            return True
        return False

    async def pong(self, payload: bytes) -> None:
        """Say that we are here."""
        with suppress(Temporary):
            await self._write(payload, WSMsgType.PONG)

    async def _write(self, payload: bytes, kind: WSMsgType) -> None:
        if self._full():
            self._transport.abort()
            raise Temporary("slow_device")
        try:
            await self.stream.send_frame(payload, kind)
        except (ConnectionError, RuntimeError):
            raise Temporary("offline") from None

    async def part(self, code: int) -> None:
        """Say goodbye without waiting: the reader ends with the device's answer; without one, the device is cut."""
        asyncio.get_running_loop().call_later(CUT_AFTER_S, self._transport.abort)
        with suppress(ConnectionError, RuntimeError):  # gone already
            await self.stream.send_frame(code.to_bytes(2, "big"), WSMsgType.CLOSE)

    def _full(self) -> bool:
        return self._transport.get_write_buffer_size() > self._buffer_bytes


class LoudspeakerWs(Loudspeakers):
    """Hold the sockets of loudspeakers."""

    name: ClassVar[str] = "loudspeaker_ws"
    Settings = LoudspeakerSettings
    settings: LoudspeakerSettings

    def __init__(self, settings: LoudspeakerSettings) -> None:
        super().__init__(settings)
        self._admission = Admission(settings.connects_per_s)
        self._beating: asyncio.Task[None] | None = None

    def routes(self, link: Link) -> Sequence[Route]:
        """Return the one socket route."""

        async def accept(request: web.Request) -> web.StreamResponse:
            if wait_s := self._admission.ask(asyncio.get_running_loop().time()):
                raise web.HTTPServiceUnavailable(headers={"Retry-After": str(wait_s)})
            with self._admission:
                await self._hurry.over()
                device = await _authenticated(request, link)
                stream = await self._upgraded(request)
            if request.transport is not None:  # None: left during the upgrade
                await self._serve(request, request.transport, stream, device, link)
            return stream

        return (Route("GET", "/v1/devices/{name}/ws", accept),)

    async def _upgraded(self, request: web.Request) -> web.WebSocketResponse[Literal[False]]:
        """Answer the upgrade. The library's own heartbeat costs a task and two timers for each ping."""
        stream: web.WebSocketResponse[Literal[False]] = web.WebSocketResponse(
            timeout=1.0,
            autoping=False,
            compress=False,
            max_msg_size=LONGEST_MESSAGE,
            writer_limit=sys.maxsize,  # the library never waits for the reader; `write` bounds the buffer
            decode_text=False,
        )
        await stream.prepare(request)
        return stream

    async def _serve(
        self, request: web.Request, transport: asyncio.Transport, stream: web.WebSocketResponse[Literal[False]],
        device: Device, link: Link,
    ) -> None:  # fmt: skip
        """Hold one connection to its end."""
        transport.set_write_buffer_limits(high=0)  # uvloop then writes at once, and not at the end of its turn
        connection = Socket(device.id, request.match_info["name"], stream, transport, self.settings.buffer_bytes)
        try:
            await self.join(connection, link)
            if self._beating is None or self._beating.done():
                self._beating = asyncio.create_task(self._beat())
            await self._read(connection, link)
        finally:
            self.leave(connection, link)

    async def _beat(self) -> None:
        """Look after those who are silent, while there is anybody."""
        loop, heartbeat_s = asyncio.get_running_loop(), self.settings.heartbeat_s
        while self._connections:
            await asyncio.sleep(heartbeat_s / LOOKS)
            asked, now = 0, loop.time()
            silent_at = now - heartbeat_s * (1 - 1 / 4)
            for connection in list(self._connections.values()):
                assert isinstance(connection, Socket)
                if connection.heard_at <= silent_at:
                    asked += await connection.beat(now, heartbeat_s)
                    if asked % TURN == TURN - 1:
                        await asyncio.sleep(0)

    async def _read(self, connection: Socket, link: Link) -> None:
        """Take frames until the socket closes."""
        loop, hearing = asyncio.get_running_loop(), True
        greeted_by = loop.time() + self.settings.hello_s
        while hearing:
            try:
                patience_s = None if connection.greeted else max(SOON_S, greeted_by - loop.time())
                frame = await connection.stream.receive(patience_s)
            except TimeoutError:
                break
            connection.heard_at, connection.asked = loop.time(), False
            if frame.type is WSMsgType.PONG:
                continue
            if frame.type is WSMsgType.PING:
                await connection.pong(frame.data)
                continue
            if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            hearing = await self.hear(connection, frame.data if frame.type is WSMsgType.TEXT else b"", link)
        # The library waits a second for the device's answer, then cuts.
        await connection.stream.close(code=connection.code, drain=False)


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
