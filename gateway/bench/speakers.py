"""Village loudspeakers: one hub and a whole city's fleet, against a bare loop that writes the same bytes.

A whole embedded gateway, the bare loop and the devices are processes of their own on the same cores, and stay
connected for the whole run. Hub and loop take turns, and begin every other round.

- a play: from the moment the hub has the batches in its store (the loop: from its first call) to the first and the
  last device that has the frame; each device answers the hub at once, as real ones do, and nobody answers the loop;
- the same with a sixth of the fleet, for the growth;
- a red warning over HTTP, from the request to the last device;
- heartbeats: CPU time of the hub over a minute in which nothing happens, beyond what it uses with nobody connected and
  the same warnings in force; every device has its volume policy by then, which each is ordered once in its life;
- a power cut: everybody reconnects as the protocol says, and a red warning goes out meanwhile.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence

import msgspec
from aiohttp import ClientSession

from gateway import cap
from gateway.bench.installation import HEADERS, inhabited
from gateway.bench.measure import Spread, red_rain
from gateway.bench.partner import Partner, partner

SHARE = 6  # the smaller fleet is this part of the whole
IDLE_S = 10.0
SETTLE_S = 1.0  # presence is written before the clock starts
MID_STORM = 3  # the red warning is posted once this part of the fleet is back

Say = Callable[[str], None]


class Play(msgspec.Struct, frozen=True):
    """One play to all: milliseconds to the first and the last device."""

    first_ms: float
    last_ms: float


class Speakers(msgspec.Struct, frozen=True):
    """The result, as printed with --json: medians; `ranges` has the lowest and the highest of those over rounds."""

    devices: int
    rounds: int
    first_ms: float
    """From the moment the hub has the batches."""
    last_ms: float
    bare_last_ms: float
    ratio: float
    """Hub to bare loop, within one round."""
    small_devices: int
    small_last_ms: float
    growth: float
    """How much longer the whole fleet takes than the smaller one, to how much larger it is: 1 is linear."""
    red_ms: float
    """Over HTTP, from the request to the last device."""
    bytes_per_device: int
    bare_bytes_per_device: int
    heartbeat_percent: float
    """Of one core."""
    idle_percent: float
    """What the gateway uses with nobody connected, not in the figure above."""
    reconnect_s: float
    storm_red_s: float
    """The longest any device waited for the red warning, from its request or from the device's own connection."""
    refused: int
    """How often a device was told to come again."""
    ranges: dict[str, tuple[float, float]]
    bench: str = "speakers"


async def speakers(devices: int = 6_000, rounds: int = 7, seconds: float = 60.0, say: Say = lambda _: None) -> Speakers:
    """Measure with child processes.

    Raises:
        RuntimeError: a child failed, or a device was not reached.
    """
    with tempfile.TemporaryDirectory(prefix="mingluo-bench-", ignore_cleanup_errors=True) as temporary:
        async with (
            partner("gateway.bench.speaker_hub", temporary, str(devices)) as hub,
            partner("gateway.bench.speaker_bare") as bare,
            partner("gateway.bench.speaker_fleet") as fleet,
        ):
            return await _Bench(hub, bare, fleet, devices, say).run(rounds, seconds)


class _Bench:
    """The three processes, and what they are asked in turn."""

    def __init__(self, hub: Partner, bare: Partner, fleet: Partner, devices: int, say: Say) -> None:
        self._hub = hub
        self._bare = bare
        self._fleet = fleet
        self._devices = devices
        self._say = say
        self._port = 0
        self._posted = 0

    async def run(self, rounds: int, seconds: float) -> Speakers:
        """Measure everything once."""
        self._port = await self._hub.ask("port")
        for of, port, answers in (("hub", self._port, True), ("bare", await self._bare.ask("port"), False)):
            await self._fleet.ask("fleet", of=of, port=port, devices=self._devices, answers=answers)
        before = [await one.ask("memory") for one in (self._hub, self._bare)]
        small = max(1, self._devices // SHARE)
        few = await self._rounds(small, rounds)
        frame = await self._connect(self._devices)
        memory = [await one.ask("memory") - was for one, was in zip((self._hub, self._bare), before, strict=True)]
        all_ = await self._alternate(self._devices, frame, rounds)
        red_ms = await self._red()
        busy = await self._beat(seconds)
        idle = await self._cut(min(IDLE_S, seconds))
        storm = await self._storm()
        return result(
            small, few, self._devices, all_, red_ms,
            (memory[0] // self._devices, memory[1] // self._devices), ((busy - idle) * 100, idle * 100), storm,
        )  # fmt: skip

    async def _rounds(self, devices: int, rounds: int) -> list[tuple[Play, Play]]:
        return await self._alternate(devices, await self._connect(devices), rounds)

    async def _connect(self, devices: int) -> str:
        """Connect so many, and play to them once, which also loads templates; return the frame the loop is to write."""
        for of in ("hub", "bare"):
            await self._fleet.ask("connect", of=of, count=devices)
        await self._hub.ask("held", devices=devices)
        await asyncio.sleep(SETTLE_S)
        await self._hub.ask("settled")  # whoever is new is ordered a volume first
        _, frame = await self._play(devices)
        return frame

    async def _alternate(self, devices: int, frame: str, rounds: int) -> list[tuple[Play, Play]]:
        found = []
        for number in range(rounds):
            await asyncio.sleep(SETTLE_S)
            if number % 2:
                loop = await self._loop(devices, frame)
                play, _ = await self._play(devices)
            else:
                play, _ = await self._play(devices)
                loop = await self._loop(devices, frame)
            found.append((play, loop))
            self._say(f"{devices:,} devices: {play.last_ms:.0f} ms, bare loop {loop.last_ms:.0f} ms")
        return found

    async def _play(self, devices: int) -> tuple[Play, str]:
        await self._fleet.ask("expect", of="hub", count=devices)
        began = await self._hub.ask("play", devices=devices)
        first, last, frame = await self._fleet.ask("taken", of="hub")
        await self._hub.ask("settled")
        return Play((first - began) * 1000, (last - began) * 1000), frame

    async def _loop(self, devices: int, frame: str) -> Play:
        await self._fleet.ask("expect", of="bare", count=devices)
        began = await self._bare.ask("play", frame=frame)
        first, last, _ = await self._fleet.ask("taken", of="bare")
        return Play((first - began) * 1000, (last - began) * 1000)

    async def _red(self) -> float:
        """Post a warning; return the milliseconds until the last device has it."""
        await self._fleet.ask("expect", of="hub", count=self._devices)
        posted = await self._post()
        _, last, _ = await self._fleet.ask("taken", of="hub")
        await self._hub.ask("settled")
        return float((last - posted) * 1000)

    async def _post(self) -> float:
        """Post a red warning to the whole county; return the moment its request began."""
        self._posted += 1
        data = cap.write(red_rain(str(self._posted), inhabited()))
        async with ClientSession(f"http://127.0.0.1:{self._port}", headers=HEADERS) as session:
            posted = time.monotonic()
            async with session.post("/v1/alerts", data=data) as answer:
                body = await answer.json()
        if answer.status != 202 or body["route"] != "green":
            raise RuntimeError(f"the alert was answered {answer.status}: {body}")
        return posted

    async def _beat(self, seconds: float) -> float:
        """Return the share of a core the hub needs while all devices are connected and nothing happens."""
        spent, _ = await asyncio.gather(
            self._hub.ask("spent", seconds=seconds), self._fleet.ask("beat", of="hub", seconds=seconds)
        )
        self._say(f"heartbeats: {spent:.2f} CPU s in {seconds:g} s")
        return float(spent) / seconds

    async def _cut(self, seconds: float) -> float:
        """Cut the power; return the share of a core the gateway needs then."""
        await self._fleet.ask("cut", of="hub")
        await self._hub.ask("held", devices=0)
        await asyncio.sleep(SETTLE_S)
        return float(await self._hub.ask("spent", seconds=seconds)) / seconds

    async def _storm(self) -> tuple[float, float, int]:
        """Give the power back; return when all were back, the longest wait for a red warning, refusals."""
        await self._fleet.ask("expect", of="hub", count=self._devices)
        began = await self._fleet.ask("restore", of="hub")
        await self._fleet.ask("opened", of="hub", count=self._devices // MID_STORM)
        posted = await self._post()
        restored = await self._fleet.ask("restored", of="hub")
        await self._fleet.ask("taken", of="hub")
        held = await self._hub.ask("held", devices=self._devices)
        self._say(f"storm: all back after {restored - began:.1f} s, held {held - began:.1f} s")
        return (
            restored - began,
            await self._fleet.ask("waited", of="hub", posted_at=posted),
            await self._fleet.ask("refusals", of="hub"),
        )


def result(
    small: int,
    few: Sequence[tuple[Play, Play]],
    devices: int,
    rounds: Sequence[tuple[Play, Play]],
    red_ms: float,
    memory: tuple[int, int],
    percent: tuple[float, float],
    storm: tuple[float, float, int],
) -> Speakers:
    """Return the figures of a run."""
    spreads = {
        "first_ms": Spread.of(play.first_ms for play, _ in rounds),
        "last_ms": Spread.of(play.last_ms for play, _ in rounds),
        "bare_last_ms": Spread.of(loop.last_ms for _, loop in rounds),
        "ratio": Spread.of(play.last_ms / loop.last_ms for play, loop in rounds),
        "small_last_ms": Spread.of(play.last_ms for play, _ in few),
    }
    longer = spreads["last_ms"].median / spreads["small_last_ms"].median
    return Speakers(
        devices=devices,
        rounds=len(rounds),
        small_devices=small,
        growth=round(longer / (devices / small), 3),
        red_ms=round(red_ms, 1),
        bytes_per_device=memory[0],
        bare_bytes_per_device=memory[1],
        heartbeat_percent=round(percent[0], 2),
        idle_percent=round(percent[1], 2),
        reconnect_s=round(storm[0], 2),
        storm_red_s=round(storm[1], 3),
        refused=storm[2],
        ranges={name: (one.low, one.high) for name, one in spreads.items()},
        first_ms=spreads["first_ms"].median,
        last_ms=spreads["last_ms"].median,
        bare_last_ms=spreads["bare_last_ms"].median,
        ratio=spreads["ratio"].median,
        small_last_ms=spreads["small_last_ms"].median,
    )
