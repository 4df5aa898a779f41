"""The HTTP channels, each against a loop that makes the same request, on the same counterpart.

(a) `send` over slices, as many in flight as a worker runs of bulk work; (b) as many bare workers as that makes
requests (`gateway.bench.http_caller`). Rounds alternate, so that a drifting machine hits both. The counterpart shares
the machine: where it is the slower side both rates sink to its own, so the sender's CPU time per text is compared as
well (`cpu_ratio`, above 1: the channel needs less than the loop).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import msgspec
import uvloop

from gateway.app import collect_seldom
from gateway.bench.http_caller import CALLERS, TEXT, TITLE, VALIDITY_S, Caller
from gateway.bench.http_counterpart import Ready
from gateway.bench.measure import Spread, answer, child
from gateway.channel import Channel, Device, Event, Lease, Number, Signed
from gateway.installed import channel_classes
from gateway.model import Batch, Job, Lane, Level, Message, Notice, Slice, State, Status
from gateway.relay import PREFETCH

RATIO = 0.9
"""What is promised: channel to bare loop."""
WARM = 200


class Task(msgspec.Struct, frozen=True):
    """What the child is to do."""

    channel: str
    url: str
    addresses: list[str]
    rounds: int


class Pass(msgspec.Struct, frozen=True):
    """One pass over all recipients."""

    seconds: float
    cpu_s: float


class Passes(msgspec.Struct, frozen=True):
    """What the child found, round by round."""

    channel: list[Pass]
    loop: list[Pass]


class Compared(msgspec.Struct, frozen=True):
    """One channel. Ratios are channel to loop, within one round."""

    channel_s: Spread
    """Recipients per second through the channel."""
    loop_s: Spread
    """Recipients per second by the bare loop."""
    ratio: Spread
    cpu_ratio: Spread


class Http(msgspec.Struct, frozen=True):
    """The result, as printed with --json, by channel."""

    recipients: int
    rounds: int
    channels: dict[str, Compared]
    bench: str = "http"


async def http(recipients: int = 2_000, rounds: int = 7, channels: Sequence[str] = tuple(CALLERS)) -> Http:
    """Measure one channel after the other, each in child processes: one counterpart, one sender.

    Raises:
        RuntimeError: a child failed; its words are on standard error.
    """
    found = {name: compared(recipients, await _measured(name, recipients, rounds)) for name in channels}
    return Http(recipients, rounds, found)


async def _measured(channel: str, recipients: int, rounds: int) -> Passes:
    with tempfile.TemporaryDirectory(prefix="mingluo-bench-", ignore_cleanup_errors=True) as temporary:
        log = str(Path(temporary) / "received.log")
        async with child("gateway.bench.http_counterpart", channel, str(recipients), log) as output:
            ready = msgspec.json.decode(await asyncio.wait_for(output.readline(), 60), type=Ready)
            path = Path(temporary) / "task.json"
            path.write_bytes(msgspec.json.encode(Task(channel, ready.url, ready.addresses, rounds)))
            return msgspec.json.decode(await answer("gateway.bench.http", str(path)), type=Passes)


def compared(recipients: int, found: Passes) -> Compared:
    """Return the figures of a run."""
    rounds = list(zip(found.channel, found.loop, strict=True))
    return Compared(
        Spread.of(recipients / one.seconds for one in found.channel),
        Spread.of(recipients / one.seconds for one in found.loop),
        Spread.of(bare.seconds / channel.seconds for channel, bare in rounds),
        Spread.of(bare.cpu_s / channel.cpu_s for channel, bare in rounds),
    )


# --- in the child ---------------------------------------------------------------------------------


class _Link:
    """The gateway's door for a channel whose account has no rate and that hears nothing."""

    async def pace(self, account: str, units: int, lane: Lane) -> None:
        """Do not limit."""

    async def commit(self, events: Sequence[Event]) -> None:
        """Keep nothing."""

    async def lease(self, account: str, connections: int) -> Lease | None:
        """Hold nothing."""

    async def device(self, name: str) -> Device | None:
        """Know no device."""

    async def jobs(self, each_s: float) -> list[Job]:
        """There are none."""
        return []

    async def again(self, job: Job, source: str, positions: Sequence[int]) -> bool:
        """Repeat nothing."""
        return False

    async def message(self, batch: Batch, positions: Sequence[int]) -> Message:
        """Refuse: nothing is repeated here."""
        raise RuntimeError("a bench repeats nothing")

    async def number(self, sequence: str, key: str = "") -> Number:
        """Count nothing."""
        return Number(sequence, 0)

    async def wake(self) -> None:
        """Wake nobody."""

    def sign(self, payload: bytes) -> Signed:
        """Sign nothing."""
        return Signed("", "", "")

    def audio(self, message: Message, text: str) -> None:
        """Return that there is no speech."""

    async def recording(self, message: Message, text: str) -> None:
        """Return that there is none."""


async def measure(task: Task) -> Passes:
    """Alternate channel and loop; one short pass of each opens the connections first."""
    caller, kind = CALLERS[task.channel](task.url), channel_classes()[task.channel]
    channel = kind(kind.Settings.model_validate(caller.settings()))
    await channel.open(_Link())
    passes = Passes([], [])
    try:
        await _through_channel(channel, task.addresses[:WARM])
        await _through_loop(caller, task.addresses[:WARM], _in_flight(channel))
        collect_seldom()  # as every process of the gateway does; for both
        for number in range(task.rounds):
            # Who goes first alternates too: the second pass of a round finds a counterpart that has just been busy.
            for which in ("channel", "loop") if number % 2 else ("loop", "channel"):
                cpu, started = time.process_time(), time.perf_counter()
                if which == "channel":
                    await _through_channel(channel, task.addresses)
                else:
                    await _through_loop(caller, task.addresses, _in_flight(channel))
                getattr(passes, which).append(Pass(time.perf_counter() - started, time.process_time() - cpu))
    finally:
        await channel.close()
        await caller.close()
    return passes


def _slices(channel: Channel) -> int:
    """Slices of bulk work a worker has in flight."""
    return channel.concurrency * PREFETCH[Lane.BULK]


def _in_flight(channel: Channel) -> int:
    """Requests that makes."""
    pool: int = getattr(channel, "pool", channel.slice)
    return _slices(channel) * min(pool, channel.slice)


async def _through_channel(channel: Channel, addresses: Sequence[str]) -> None:
    expires = datetime.now(UTC) + timedelta(seconds=VALIDITY_S)
    message = Message(
        "bench", Notice.ISSUE, Status.ACTUAL, Level.RED, Lane.BULK, "zh", TITLE, TEXT, expires
    )  # fmt: skip
    numbers = count()
    starts = iter(range(0, len(addresses), channel.slice))
    link = _Link()

    async def batch() -> None:
        for start in starts:
            part = addresses[start : start + channel.slice]
            positions = range(start, start + len(part))
            receipts = await channel.send(
                Slice("bench.1.0", next(numbers), 1, positions, positions, part), message, link
            )
            if wrong := [receipt for receipt in receipts if receipt.state is not State.SUBMITTED]:
                raise RuntimeError(f"the counterpart refused a text: {wrong[0].code}")

    async with asyncio.TaskGroup() as group:
        for _ in range(_slices(channel)):
            group.create_task(batch())


async def _through_loop(caller: Caller, addresses: Sequence[str], workers: int) -> None:
    work = iter(enumerate(addresses))

    async def worker() -> None:
        for position, address in work:
            await caller.call(address, position)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(worker())


def main() -> None:
    """Do what the file of the argument says; the result is one line."""
    task = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Task)
    sys.stdout.write(msgspec.json.encode(uvloop.run(measure(task))).decode() + "\n")


if __name__ == "__main__":
    main()
