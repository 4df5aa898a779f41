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


class LoudspeakerSettings(CommonSettings):
    """Table `loudspeaker_ws`.

    `buffer_bytes`: unread bytes beyond which a device is cut; `connects_per_s`: devices let in, the others are told to
    come again.
    """

    heartbeat_s: float = Field(30.0, gt=0)
    hello_s: float = Field(10.0, gt=0)
    buffer_bytes: int = Field(65_536, ge=4096)
    connects_per_s: float = Field(600.0, gt=0, allow_inf_nan=False)


class Socket(Connection):
    """One device's WebSocket."""

    __slots__ = ("_buffer_bytes", "_transport", "stream")

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

    async def write(self, frame: bytes) -> None:
        """Write one text frame; never waits for the device.

        Raises:
            Temporary: "slow_device", which is cut; or "offline".
        """
        if self._full():
            self._transport.abort()
            raise Temporary("slow_device")
        try:
            await self.stream.send_frame(frame, WSMsgType.TEXT)
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

    def routes(self, link: Link) -> Sequence[Route]:
        """Return the one socket route."""

        async def accept(request: web.Request) -> web.StreamResponse:
            if wait_s := self._admission.ask(asyncio.get_running_loop().time()):
                raise web.HTTPServiceUnavailable(headers={"Retry-After": str(wait_s)})
            with self._admission:
                device = await _authenticated(request, link)
            return await self._serve(request, device, link)

        return (Route("GET", "/v1/devices/{name}/ws", accept),)

    async def _serve(self, request: web.Request, device: Device, link: Link) -> web.StreamResponse:
        """Hold one connection from the upgrade to its end."""
        stream: web.WebSocketResponse[Literal[False]] = web.WebSocketResponse(
            timeout=1.0,
            heartbeat=self.settings.heartbeat_s,
            compress=False,
            max_msg_size=LONGEST_MESSAGE,
            writer_limit=sys.maxsize,  # the library never waits for the reader; `write` bounds the buffer
            decode_text=False,
        )
        await stream.prepare(request)
        transport = request.transport
        if transport is None:  # left during the upgrade
            return stream
        transport.set_write_buffer_limits(high=0)  # uvloop then writes at once, and not at the end of its turn
        connection = Socket(device.id, request.match_info["name"], stream, transport, self.settings.buffer_bytes)
        try:
            await self.join(connection, link)
            await self._read(connection, link)
        finally:
            self.leave(connection, link)
        return stream

    async def _read(self, connection: Socket, link: Link) -> None:
        """Take frames until the socket closes."""
        hearing = True
        while hearing:
            try:
                frame = await connection.stream.receive(None if connection.greeted else self.settings.hello_s)
            except TimeoutError:
                break
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
