"""The HTTP SMS channel against a loop that makes the same SDK call, on the same simulated carrier.

(a) `sms_twilio.send` over slices, as many in flight as a worker runs of bulk work; (b) as many bare workers as that
makes requests, each calling `messages.create_async`. Rounds alternate, so that a drifting machine hits both. The
carrier shares the machine: where it is the slower side both rates sink to its own, so the sender's CPU time per
text is compared as well (`cpu_ratio`, above 1: the channel needs less than the loop).
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
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.rest import Client

from gateway.bench.measure import Spread, answer, child
from gateway.channel import Channel, Device, Event, Lease, Number, Signed
from gateway.installed import channel_classes
from gateway.model import Batch, Job, Lane, Level, Message, Notice, Slice, State, Status
from gateway.relay import PREFETCH
from gateway.simulate.sms import SmsAccount

CHANNEL = "sms_twilio"
SENDER = "+8610000000000"
TEXT = "【泌阳县气象台】暴雨红色预警：未来3小时将有100毫米以上强降雨，请立即停止户外活动，低洼处人员马上转移。"
CALLBACK = "http://127.0.0.1:9/v1/callbacks/sms_twilio"
VALIDITY_S = 10_000
RATIO = 0.9
"""What is promised: channel to bare loop."""


class Task(msgspec.Struct, frozen=True):
    """What the child is to do."""

    url: str
    recipients: int
    rounds: int


class Pass(msgspec.Struct, frozen=True):
    """One pass over all recipients."""

    seconds: float
    cpu_s: float


class Measured(msgspec.Struct, frozen=True):
    """What the child found, round by round."""

    channel: list[Pass]
    loop: list[Pass]


class Sms(msgspec.Struct, frozen=True):
    """The result, as printed with --json. Ratios are channel to loop, within one round."""

    recipients: int
    rounds: int
    channel_s: Spread
    """Recipients per second through the channel."""
    loop_s: Spread
    """Recipients per second by the bare loop."""
    ratio: Spread
    cpu_ratio: Spread
    bench: str = "sms"


async def sms(recipients: int = 2_000, rounds: int = 7) -> Sms:
    """Measure in child processes: one carrier, one sender.

    Raises:
        RuntimeError: a child failed; its words are on standard error.
    """
    with tempfile.TemporaryDirectory(prefix="mingluo-bench-", ignore_cleanup_errors=True) as temporary:
        async with child("gateway.bench.carrier", str(Path(temporary) / "sms.log")) as output:
            url = (await asyncio.wait_for(output.readline(), 60)).decode().strip()
            task = msgspec.json.encode(Task(url, recipients, rounds)).decode()
            found = msgspec.json.decode(await answer("gateway.bench.sms", task), type=Measured)
    return result(recipients, found)


def result(recipients: int, found: Measured) -> Sms:
    """Return the figures of a run."""
    rounds = list(zip(found.channel, found.loop, strict=True))
    return Sms(
        recipients,
        len(rounds),
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
        """Nobody asks."""
        raise NotImplementedError

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


async def measure(task: Task) -> Measured:
    """Alternate channel and loop; one short pass of each opens the connections first."""
    addresses = [f"+86100{number:08d}" for number in range(task.recipients)]
    account = SmsAccount()
    kind = channel_classes()[CHANNEL]
    channel = kind(
        kind.Settings.model_validate(
            {
                "account_sid": account.sid,
                "auth_token": account.token,
                "sender": SENDER,
                "public_url": "http://127.0.0.1:9",
                "base_url": task.url,
            }
        )
    )
    client = Client(account.sid, account.token, http_client=AsyncTwilioHttpClient())
    client.api.base_url = task.url
    await channel.open(_Link())
    passes = Measured([], [])
    try:
        await _through_channel(channel, addresses[:200])
        await _through_loop(client, addresses[:200], _in_flight(channel))
        for number in range(task.rounds):
            # Who goes first alternates too: the second pass of a round finds a carrier that has just been busy.
            for which in ("channel", "loop") if number % 2 else ("loop", "channel"):
                cpu, started = time.process_time(), time.perf_counter()
                if which == "channel":
                    await _through_channel(channel, addresses)
                else:
                    await _through_loop(client, addresses, _in_flight(channel))
                getattr(passes, which).append(Pass(time.perf_counter() - started, time.process_time() - cpu))
    finally:
        await channel.close()
        await client.http_client.session.close()
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
        "bench", Notice.ISSUE, Status.ACTUAL, Level.RED, Lane.BULK, "zh", "暴雨红色预警", TEXT, expires
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
                raise RuntimeError(f"the carrier refused a text: {wrong[0].code}")

    async with asyncio.TaskGroup() as group:
        for _ in range(_slices(channel)):
            group.create_task(batch())


async def _through_loop(client: Client, addresses: Sequence[str], workers: int) -> None:
    work = iter(enumerate(addresses))

    async def worker() -> None:
        for position, address in work:
            await client.messages.create_async(
                to=address,
                from_=SENDER,
                body=TEXT,
                status_callback=f"{CALLBACK}/bench.1.0-{position}-1",
                validity_period=VALIDITY_S,
            )

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(worker())


def main() -> None:
    """Do what the argument says; the result is one line."""
    task = msgspec.json.decode(sys.argv[1], type=Task)
    sys.stdout.write(msgspec.json.encode(uvloop.run(measure(task))).decode() + "\n")


if __name__ == "__main__":
    main()
