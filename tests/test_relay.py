"""One message, several small batches: what is published together, and what becomes of it at the worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import blank
import pytest
from test_pipeline import until
from test_store import HandClock, alert, batch_of

from channels.noop import Noop, NoopSettings
from gateway.broker.local import LocalBroker
from gateway.database import Database
from gateway.errors import BrokerDown
from gateway.model import Batch, Lane
from gateway.ports import Message
from gateway.relay import MESSAGE, MOST, PREFETCH, Relay, Worker, queue
from gateway.sender import Stopping
from gateway.store import Store
from gateway.store.codec import pack, pack_message, unpack_message

GREEN = queue("noop", Lane.GREEN)


class Wire:
    """A broker that keeps what is published; `down`: it confirms nothing."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.down = False

    async def publish(self, queue: str, body: bytes, timeout_s: float = 5.0, *, patient: bool = True) -> None:
        """Keep one."""
        self.messages.append((queue, body))
        if self.down:
            raise BrokerDown("not confirmed")

    @property
    def batches(self) -> list[list[str]]:
        """The ids in each message, as a worker reads them."""
        return [[batch.id for batch in unpack_message(body)] for _, body in self.messages]


class Handed:
    """A message that notes its end."""

    def __init__(self, body: bytes, *, redelivered: bool = False) -> None:
        self.end = ""
        self.message = Message(body, redelivered=redelivered, ack=self._acked, reject=self._rejected)

    async def _acked(self) -> None:
        self.end = "acked"

    async def _rejected(self) -> None:
        self.end = "rejected"


class Ends:
    """A sender whose batches end as they are told to: sent, or with an error."""

    def __init__(self, **ends: Exception) -> None:
        self.ends = ends
        self.sent: list[str] = []
        self.settled: set[str] = set()
        self.under_way = self.most = 0

    async def send(self, batch: Batch) -> None:
        """Let some time pass, then end."""
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.001)
        self.under_way -= 1
        if (error := self.ends.get(batch.id.partition(".")[0])) is not None:
            raise error
        self.sent.append(batch.id)

    async def unfinished(self, batches: Sequence[Batch]) -> tuple[Batch, ...]:
        """Those that were not settled by another worker."""
        return tuple(batch for batch in batches if batch.id not in self.settled)

    def stop(self) -> None:
        """Nothing is held."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    database = Database(blank.sqlite(tmp_path))
    await database.open()
    yield Store(database, HandClock())
    await database.close()


def small(*names: str, **changes: object) -> list[Batch]:
    return [replace(batch_of(alert()), id=name, lane=Lane.GREEN, **changes) for name in names]  # type: ignore[arg-type]  # fields


async def published(store: Store, wire: Wire, batches: Sequence[Batch], messages: int) -> Relay:
    """Offer batches and wait for that many messages."""
    relay = Relay(wire, store.outbox)  # type: ignore[arg-type]  # what a relay asks of a broker
    running = asyncio.create_task(relay.run())
    relay.offer(batches)
    await until(lambda: len(wire.messages) >= messages and not relay._offered)
    running.cancel()
    return relay


async def test_the_officials_of_fourteen_townships_are_one_message(store: Store) -> None:
    """Fourteen messages are fourteen syncs of the broker and come in dribs; the last official waits for all of it."""
    wire, names = Wire(), [f"red.1.{at}" for at in range(14)]
    relay = await published(store, wire, small(*names), 1)
    assert (wire.batches, wire.messages[0][0]) == ([names], GREEN)
    assert relay._confirmed == names


async def test_a_message_is_of_one_alert_and_queue_and_no_longer_than_a_full_batch(store: Store) -> None:
    """Alerts still take turns, and no worker gets more at once than it did."""
    half = b"x" * (MESSAGE // 2 - 600)
    wide = small("wide.1.0", "wide.1.1", "wide.1.2", addresses=(half.decode(), ""))
    wire = Wire()
    elsewhere = small("red.2.0", channel="other")
    await published(store, wire, [*small("red.1.0"), *elsewhere, *small("red.1.1", "blue.1.0"), *wide], 6)
    assert sorted(wire.batches) == [
        ["blue.1.0"], ["red.1.0"], ["red.1.1"], ["red.2.0"], ["wide.1.0", "wide.1.1"], ["wide.1.2"]
    ]  # fmt: skip
    assert all(len(body) <= MESSAGE for _, body in wire.messages)


async def test_what_is_not_green_is_a_message_each(store: Store) -> None:
    """Whoever picks up what waits too long, turn by turn, finds each batch by itself."""
    wire = Wire()
    await published(store, wire, [replace(one, lane=Lane.URGENT) for one in small("red.1.0", "red.1.1")], 2)
    assert sorted(wire.batches) == [["red.1.0"], ["red.1.1"]]


async def test_no_message_has_more_batches_than_a_worker_begins(store: Store) -> None:
    """A hundred hamlets' officials are work for all workers there are."""
    wire = Wire()
    await published(store, wire, small(*(f"red.1.{at}" for at in range(MOST + 3))), 2)
    assert sorted(map(len, wire.batches)) == [3, MOST]


async def test_what_was_not_confirmed_may_be_offered_again_each_by_itself(store: Store) -> None:
    """The outbox still has every one of them; none of them counts as published."""
    wire = Wire()
    wire.down = True
    relay = await published(store, wire, small("red.1.0", "red.1.1"), 1)
    assert relay._confirmed == []
    wire.down = False
    running = asyncio.create_task(relay.run())
    relay.offer(small("red.1.1"))
    await until(lambda: len(wire.messages) == 2 and bool(relay._confirmed))
    running.cancel()
    assert (wire.batches[1], relay._confirmed) == (["red.1.1"], ["red.1.1"])


async def ended(sender: Ends, batches: Sequence[Batch]) -> tuple[str, Worker]:
    """Give a worker one message; return what became of it."""
    worker = Worker(LocalBroker(), sender, {"noop": Noop(NoopSettings())})  # type: ignore[arg-type]  # one method
    message = Handed(pack_message([pack(batch) for batch in batches]))
    worker._take(message.message)
    await until(lambda: not worker._tasks)
    return message.end, worker


async def test_a_message_is_acked_once_all_its_batches_are_over() -> None:
    sender = Ends()
    assert (await ended(sender, small("red.1.0", "red.1.1")))[0] == "acked"
    assert sorted(sender.sent) == ["red.1.0", "red.1.1"]


async def test_one_that_fails_takes_no_other_with_it() -> None:
    """The message is dead-lettered for the one; the others have been sent, and the outbox has the one."""
    sender = Ends(bad=RuntimeError("a bug"))
    assert (await ended(sender, small("bad.1.0", "red.1.1", "red.1.2")))[0] == "rejected"
    assert sorted(sender.sent) == ["red.1.1", "red.1.2"]


async def test_one_that_is_left_leaves_the_message_to_others_whatever_became_of_the_rest() -> None:
    """Unacked: another worker finds what is settled settled, and sends the one."""
    sender = Ends(held=Stopping(), bad=RuntimeError("a bug"))
    end, worker = await ended(sender, small("held.1.0", "bad.1.0", "red.1.1"))
    assert (end, worker._left, sender.sent) == ("", {"noop"}, ["red.1.1"])


async def test_no_more_are_sent_side_by_side_than_before() -> None:
    """A carrier's interface bears what its channel says, however many batches one message brings."""
    noop, sender = Noop(NoopSettings()), Ends()
    noop.concurrency = 1  # type: ignore[misc]  # of this one
    worker = Worker(LocalBroker(), sender, {"noop": noop})  # type: ignore[arg-type]  # one method
    worker._take(Handed(pack_message([pack(batch) for batch in small(*(f"red.1.{at}" for at in range(9)))])).message)
    await until(lambda: len(sender.sent) == 9)
    assert sender.most == 4


async def test_what_comes_again_is_not_paced_again_where_it_was_settled() -> None:
    """A worker that died had sent nineteen of twenty: their second copies must not use up the account's rate."""
    sender = Ends()
    sender.settled = {"red.1.0", "red.1.2"}
    batches = small("red.1.0", "red.1.1", "red.1.2")
    worker = Worker(LocalBroker(), sender, {"noop": Noop(NoopSettings())})  # type: ignore[arg-type]  # two methods
    handed = Handed(pack_message([pack(batch) for batch in batches]), redelivered=True)
    worker._take(handed.message)
    await until(lambda: not worker._tasks)
    assert (handed.end, sender.sent) == ("acked", ["red.1.1"])


async def test_what_is_picked_up_neither_waits_for_the_brokers_nor_takes_what_it_gave() -> None:
    """A small alert behind a large one is picked up to get its turn; what a message holds will be sent anyway."""
    gate = asyncio.Event()

    class Held(Ends):
        async def send(self, batch: Batch) -> None:
            """Hold the large one's."""
            if batch.id.startswith("large"):
                self.under_way += 1
                await gate.wait()
            self.sent.append(batch.id)

    noop, sender = Noop(NoopSettings()), Held()
    worker = Worker(LocalBroker(), sender, {"noop": noop})  # type: ignore[arg-type]  # two methods
    slots = noop.concurrency * PREFETCH[Lane.GREEN]
    large = small(*(f"large.1.{at}" for at in range(slots + 2)))
    for start in range(0, len(large), MOST):
        worker._take(Handed(pack_message([pack(one) for one in large[start : start + MOST]])).message)
    await until(lambda: sender.under_way == slots)
    for one in (*large, *small("small.1.0")):
        worker.direct(pack(one))
    await until(lambda: sender.sent == ["small.1.0"])
    gate.set()
    await until(lambda: not worker._tasks)
    assert sorted(sender.sent) == sorted(["small.1.0", *(one.id for one in large)])


async def test_a_message_of_one_batch_is_the_batch_itself_and_what_is_none_is_dead() -> None:
    """What stands in a queue from before an update is read, too."""
    (batch,) = small("red.1.0")
    assert pack_message([pack(batch)]) == pack(batch)
    assert unpack_message(pack(batch)) == (batch,)
    worker = Worker(LocalBroker(), Ends(), {"noop": Noop(NoopSettings())})  # type: ignore[arg-type]  # one method
    for body in (b"", b"\xc1", pack([1]), pack_message([pack(batch), pack(replace(batch, channel="other"))])):
        message = Handed(body)
        worker._take(message.message)
        await until(lambda: not worker._tasks)
        assert message.end == "rejected"
