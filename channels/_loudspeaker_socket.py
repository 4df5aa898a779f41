"""One loudspeaker's socket that is never waited for, and the memory of what was commanded to whom.

Used by `loudspeaker_ws`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import orjson
from aiohttp import WSMsgType, web

from channels._loudspeaker_frame import Told
from gateway.channel import Play
from gateway.errors import Temporary

CUT_AFTER_S = 5.0
REMEMBERED_S = 86_400.0
REMEMBERED = 200_000


@dataclass(slots=True, eq=False)
class Connection:
    """One device's socket.

    `greeted` once it said hello, `ready` once that was on its way to the hub; `bad` counts refused frames, `waiting`
    the receipts that are not durable yet. `buffer_bytes`: unread bytes beyond which it is cut. `gone`: nobody reads it
    any more.
    """

    device: int
    socket: web.WebSocketResponse[Literal[False]]
    transport: asyncio.Transport
    buffer_bytes: int
    greeted: bool = False
    ready: bool = False
    bad: int = 0
    waiting: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, frame: bytes) -> None:
        """Write one text frame; never waits for the device.

        Raises:
            Temporary: "slow_device", which is cut; or "offline".
        """
        if self._full():
            await asyncio.sleep(0)  # uvloop writes at the end of its turn: give many frames at once this chance
            if self._full():
                self.transport.abort()
                raise Temporary("slow_device")
        try:
            await self.socket.send_frame(frame, WSMsgType.TEXT)
        except (ConnectionError, RuntimeError):
            raise Temporary("offline") from None

    async def answer(self, kind: str, **fields: object) -> None:
        """Write an ack or error, unless the device is gone: it asks again."""
        with suppress(Temporary):
            await self.write(orjson.dumps({"type": kind, **fields}))

    async def part(self, code: int) -> None:
        """Say goodbye without waiting: the reader ends with the device's answer; without one, the device is cut."""
        asyncio.get_running_loop().call_later(CUT_AFTER_S, self.transport.abort)
        with suppress(ConnectionError, RuntimeError):  # gone already
            await self.socket.send_frame(code.to_bytes(2, "big"), WSMsgType.CLOSE)

    def _full(self) -> bool:
        return self.transport.get_write_buffer_size() > self.buffer_bytes


class Commanded:
    """Which command went to which device: bounded, forgotten after a day, by the loop's clock."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[int, str, float]] = {}

    def add(self, play: Play, now: float) -> None:
        """Remember one command."""
        key = (play.batch, play.position)
        self._known.pop(key, None)  # the newest stand last
        self._known[key] = (play.device, play.message.alert, now)

    def forget(self, now: float) -> None:
        """Drop what is too old or too much."""
        while self._known:
            key, (_, _, at) = next(iter(self._known.items()))
            if len(self._known) <= REMEMBERED and at >= now - REMEMBERED_S:
                return
            del self._known[key]

    def allows(self, told: Told, device: int, now: float) -> bool:
        """Tell whether this device may speak of this command."""
        found = self._known.get((told.batch, told.position))
        return found is not None and found[:2] == (device, told.id) and found[2] >= now - REMEMBERED_S
