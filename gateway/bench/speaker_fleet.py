"""The loudspeakers of `mingluo bench speakers`: thousands of bare WebSocket clients in one process.

A device costs what a socket and a few fields cost, and answers as a real one does (docs/device-protocol.md): `received`
and `playing` after a moment, `played` when the sound has ended. It plays nothing and verifies nothing: what it needs on
the same cores is not the hub's. Moments are CLOCK_MONOTONIC, which all processes of a machine share.

`python -m gateway.bench.speaker_fleet`, asked by `gateway.bench.speakers` (see `partner`).
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
import resource
import struct
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import NamedTuple, cast

import orjson
import uvloop

from gateway.bench.partner import obey

AT_ONCE = 64  # handshakes in flight, but for a storm's
ANSWER_S = (0.05, 0.4)  # until it answers: a signature is verified, and radio takes its time
SOUND_S = (0.3, 0.9)  # until it says that it has played; what it says it heard is as long as the text
HANZI_PER_S = 4.5
STATE_S = 300.0  # each device says how it is so often
BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0
KEY = "a2V5LW9mLWEtbG91ZHNwZWFrZXI"
HELLO = b'{"type":"hello","protocol":2,"firmware":"bench-1","speech":true,"audio":false}'
STATE = (
    b'{"type":"state","volume":70,"power":"mains","battery":null,"clock":"%b","faults":[],"playing":null}'
)  # fmt: skip
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
RETRY_AFTER = re.compile(rb"(?im)^retry-after: *([0-9]+)")


def masked(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a client's frame; its mask is four zeros, which RFC 6455 allows and which costs nothing."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
    return bytes((0x80 | opcode,)) + length + b"\0\0\0\0" + payload


class Command(NamedTuple):
    """What a device needs of a command: the version to play and how long that sounds, or the order to carry out."""

    alert: str = ""
    sounds_s: float = 0.0
    order: str = ""


class Device(asyncio.Protocol):
    """One loudspeaker; of a fleet that answers nobody it only listens."""

    __slots__ = ("fleet", "name", "opened_at", "played", "played_at", "rest", "retry_s", "state", "transport")

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet = fleet
        self.name = name
        self.transport: asyncio.Transport | None = None
        self.state: asyncio.Future[bool] | None = None
        self.rest = b""
        self.opened_at = self.played_at = self.retry_s = 0.0
        self.played = ""

    async def connect(self) -> bool:
        """Try once; False if refused or cut before the upgrade."""
        loop = asyncio.get_running_loop()
        self.state, self.rest, self.retry_s = loop.create_future(), b"", 0.0
        try:
            await loop.create_connection(lambda: self, "127.0.0.1", self.fleet.port)
            return await self.state
        except OSError:
            return False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are of no such class
        self.transport.write(
            f"GET /v1/devices/{self.name}/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: bG91ZHNwZWFrZXItMTIzNA==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {KEY}\r\n\r\n".encode()
        )

    def connection_lost(self, _: Exception | None) -> None:
        """Remember that there is no connection."""
        self.transport = None
        self.fleet.open.discard(self)
        if self.state is not None and not self.state.done():
            self.state.set_result(False)

    def data_received(self, data: bytes) -> None:
        """Take whatever is complete."""
        if self.rest:
            data = self.rest + data
        if self.state is not None and not self.state.done():
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self.rest = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._refused(head)
                return
            self._opened()
        at = 0
        while (frame := _frame(data, at)) is not None:
            opcode, start, at = frame
            self._take(opcode, data[start:at])
        self.rest = data[at:]

    def _opened(self) -> None:
        assert self.transport is not None
        assert self.state is not None
        self.opened_at = time.monotonic()
        self.fleet.came(self)
        self.state.set_result(True)
        if self.fleet.answers:
            self.transport.write(masked(HELLO))

    def _refused(self, head: bytes) -> None:
        assert self.transport is not None
        found = RETRY_AFTER.search(head)
        self.retry_s = float(found[1]) if found else 0.0
        self.fleet.refused += 1
        self.transport.abort()

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.say(payload, opcode=PONG)
        elif opcode == CLOSE and self.transport is not None:
            self.transport.close()
        elif opcode == TEXT and payload.startswith(b'{"type":"command"'):
            self._play(payload)

    def say(self, *payloads: bytes, opcode: int = TEXT) -> None:
        """Write frames, unless the connection is gone."""
        if self.transport is not None:
            self.transport.write(b"".join(masked(payload, opcode) for payload in payloads))

    def _play(self, payload: bytes) -> None:
        now = time.monotonic()
        if not self.fleet.answers:
            self.fleet.took(self, now, payload)
            return
        head, _, tail = payload.rpartition(b',"batch":')  # what devices share, and what is each one's own
        command = self.fleet.command(head)
        if command.order:
            self.say(orjson.dumps({"type": "receipt", "order": command.order, "state": "done"}))
        elif command.alert and command.alert != self.played:
            self.played, self.played_at = command.alert, now
            self.fleet.took(self, now, payload)
            answer_s = random.uniform(*ANSWER_S)  # noqa: S311 - a load, not a secret
            asyncio.get_running_loop().call_later(answer_s, self._answer, command, tail[:-1])

    def _answer(self, command: Command, place: bytes) -> None:
        said = b'{"type":"receipt","id":"%b","batch":%b,"state":"%%b"%%b}' % (command.alert.encode(), place)
        self.say(said % (b"received", b""), said % (b"playing", b""))
        played = said % (b"played", b',"heard_s":%.1f' % command.sounds_s)
        sound_s = random.uniform(*SOUND_S)  # noqa: S311 - a load, not a secret
        asyncio.get_running_loop().call_later(sound_s, self.say, played)


def _frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Return the opcode of the server's frame at `at`, where its payload starts and ends; None: not all is there."""
    if len(data) < at + 2:
        return None
    size, start = data[at + 1], at + 2
    if size == 126:
        size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
    return (data[at] & 15, start, start + size) if len(data) >= start + size else None


class Fleet:
    """Devices of one gateway. `answers`: they say hello and report; otherwise they only listen."""

    def __init__(self, port: int, devices: int, *, answers: bool) -> None:
        self.port = port
        self.answers = answers
        self.devices = [Device(self, f"horn-{number}") for number in range(devices)]
        self.open: set[Device] = set()
        self.refused = 0
        self._commands: dict[bytes, Command] = {}
        self._wanted = 0
        self._took = 0
        self._first_at = self._last_at = 0.0
        self._sample = b""
        self._all = asyncio.Event()
        self._awaited = 0
        self._there = asyncio.Event()
        self._storm: list[asyncio.Task[None]] = []

    async def connect(self, count: int) -> int:
        """Connect the first `count` devices, a few at a time; return how many are."""
        waiting = iter([device for device in self.devices[:count] if device not in self.open])

        async def some() -> None:
            for device in waiting:
                while not await device.connect():
                    if not device.retry_s:
                        raise RuntimeError(f"{device.name} was refused")
                    await asyncio.sleep(device.retry_s)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(some())
        return len(self.open)

    def command(self, head: bytes) -> Command:
        """Read what is signed; what devices share is read once."""
        if (known := self._commands.get(head)) is None:
            payload = orjson.loads(head + b"}")["payload"]
            said = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            if "order" in said:
                return Command(order=said["order"])
            play = said["command"] == "play"
            known = Command(said["id"], len(said["text"]) * said["repeat"] / HANZI_PER_S) if play else Command()
            self._commands[head] = known
        return known

    async def expect(self, count: int) -> None:
        """Begin to count plays."""
        self._wanted, self._took, self._first_at = count, 0, 0.0
        self._all.clear()

    def took(self, _: Device, now: float, payload: bytes) -> None:
        """Count a play."""
        self._took += 1
        self._first_at, self._last_at = self._first_at or now, now
        if self._took == self._wanted:
            self._sample = payload
            self._all.set()

    async def taken(self, patience_s: float = 60.0) -> tuple[float, float, str]:
        """Wait until everybody has its play; return the moments of the first and the last, and one frame."""
        try:
            await asyncio.wait_for(self._all.wait(), patience_s)
        except TimeoutError:
            raise RuntimeError(f"{self._took} of {self._wanted} loudspeakers got the play") from None
        return self._first_at, self._last_at, self._sample.decode()

    async def beat(self, seconds: float) -> int:
        """Say how each device is, evenly, for so long; return how often."""
        until, said = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            now = datetime.now(UTC).isoformat(timespec="seconds").encode()  # a wrong clock would be ordered to be set
            self.devices[said % len(self.devices)].say(STATE % now)
            said += 1
            await asyncio.sleep(STATE_S / len(self.devices))
        return said

    async def cut(self) -> None:
        """Cut the power of the whole fleet."""
        for device in self.devices:
            device.played, device.played_at, device.retry_s = "", 0.0, 0.0
            if device.transport is not None:
                device.transport.abort()
        self.refused = 0

    async def restore(self) -> float:
        """Give the power back: everybody connects as the protocol says. Return the moment it came."""
        began = time.monotonic()
        self._storm = [asyncio.create_task(self._persist(device)) for device in self.devices]
        return began

    async def _persist(self, device: Device) -> None:
        failures = 0
        while True:
            longest_s = 1.0 if device.retry_s else min(LONGEST_BACKOFF_S, BACKOFF_S * 2**failures)
            await asyncio.sleep(device.retry_s + random.uniform(0, longest_s))  # noqa: S311 - a load, not a secret
            if await device.connect():
                return
            failures += not device.retry_s

    async def restored(self) -> float:
        """Wait until everybody is connected again; return the moment the last one was."""
        await asyncio.gather(*self._storm)
        return max(device.opened_at for device in self.devices)

    async def opened(self, count: int) -> None:
        """Wait until that many are connected."""
        self._awaited, self._there = count, asyncio.Event()
        self._count()
        await self._there.wait()

    def came(self, device: Device) -> None:
        """Note a device that is connected."""
        self.open.add(device)
        self._count()

    def _count(self) -> None:
        if len(self.open) >= self._awaited:
            self._there.set()

    async def waited(self, posted_at: float) -> float:
        """Return the longest any device waited for its last play, from the post or its own connection, in seconds."""
        return max(device.played_at - max(device.opened_at, posted_at) for device in self.devices)

    async def refusals(self) -> int:
        """Return how often a device was told to come again."""
        return self.refused


async def run() -> None:
    """Hold the fleets of the gateway and of the bare loop until nobody asks any more."""
    fleets: dict[str, Fleet] = {}

    async def fleet(of: str, port: int, devices: int, answers: bool) -> None:
        fleets[of] = Fleet(port, devices, answers=answers)

    def ask(name: str) -> Callable[..., Awaitable[object]]:
        async def of_one(of: str, **how: object) -> object:
            return await getattr(fleets[of], name)(**how)

        return of_one

    names = (
        "connect", "expect", "taken", "beat", "cut", "restore", "restored", "opened", "waited", "refusals",
    )  # fmt: skip
    await obey({"fleet": fleet, **{name: ask(name) for name in names}})


def lift_limit() -> None:
    """Let this process open as many files as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    lift_limit()
    uvloop.run(run())
