"""The way to one loudspeaker that has come, whatever carries it.

Used by `_loudspeaker`; a transport derives its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress

import orjson

from gateway.channel import Event
from gateway.errors import Temporary

# Why we part from a device; over WebSocket the close codes.
GOING_AWAY, BAD_FRAMES, NO_HELLO, REPLACED, OTHER_PROTOCOL = 1001, 4400, 4408, 4409, 4426


class Connection(ABC):
    """The way to one device that has come.

    `greeted` once it said hello; `bad` counts refused frames, `waiting` the receipts that are not durable yet. `code`
    says why it is parted from; `gone`: it has left.
    """

    __slots__ = (
        "bad", "clock_skew_s", "code", "device", "firmware", "gone", "greeted", "name", "needs_audio", "nonce",
        "noted", "report", "waiting",
    )  # fmt: skip

    def __init__(self, device: int, name: str) -> None:
        self.device = device
        self.name = name
        self.greeted = False
        self.firmware = ""
        self.nonce = ""
        self.noted = False
        """Its hello is durable: it is known who holds it."""
        self.needs_audio = False
        """It can play a file and not speak a text."""
        self.clock_skew_s = 0.0
        self.bad = 0
        self.waiting = 0
        self.report: list[Event] | None = None
        """Its state that waits for the next commit; a newer one takes its place."""
        self.code = NO_HELLO
        self.gone = False

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
