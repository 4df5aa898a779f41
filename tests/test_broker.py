"""The contract of `Broker`, on every implementation, and what happens when RabbitMQ breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
import pytest
from pamqp.common import FieldTable
from servers import RabbitMQ

from gateway.bench.hold import Hold
from gateway.broker import LocalBroker, RabbitBroker
from gateway.errors import BrokerDown
from gateway.ports import Message
from gateway.relay import GREEN_TIMEOUT_S

SOON_S = 10.0
BACK_S = 60.0  # RabbitMQ needs its time to start again
HANGS_S = 30.0  # what takes longer waits for what is frozen
QUEUE = "sms.green"

Either = LocalBroker | RabbitBroker


class Inbox:
    """Takes messages as a worker does: without waiting."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[Message] = asyncio.Queue()

    def take(self, message: Message) -> None:
        self.taken.put_nowait(message)

    async def next(self, timeout_s: float = SOON_S) -> Message:
        async with asyncio.timeout(timeout_s):
            return await self.taken.get()


@pytest.fixture(params=["local", "rabbitmq"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def broker(request: pytest.FixtureRequest, kind: str, namespace: str) -> AsyncIterator[Either]:
    made: Either = LocalBroker() if kind == "local" else RabbitBroker(request.getfixturevalue("amqp_url"), namespace)
    await made.open([QUEUE, "sms.bulk"])
    yield made
    await made.close()


@asynccontextmanager
async def opened(url: str, prefix: str, dead_after_s: float = 6.0) -> AsyncIterator[RabbitBroker]:
    broker = RabbitBroker(url, prefix, dead_after_s)
    await broker.open([QUEUE])
    try:
        yield broker
    finally:
        await broker.close()


async def publish_until_confirmed(broker: Either, body: bytes) -> None:
    """Offer a batch as the sweeper does: again and again."""
    async with asyncio.timeout(BACK_S):
        while True:
            try:
                return await broker.publish(QUEUE, body, 5.0)
            except BrokerDown:
                continue


async def next_with(inbox: Inbox, body: bytes) -> Message:
    """Wait for a body; others before it are redeliveries and acked."""
    async with asyncio.timeout(BACK_S):
        while (message := await inbox.taken.get()).body != body:
            await message.ack()
    return message


async def test_what_is_published_is_consumed_in_order_and_acked(broker: Either) -> None:
    """A confirmed batch reaches a worker once; an acked one does not come back."""
    inbox = Inbox()
    for number in range(5):
        await broker.publish(QUEUE, b"%d" % number)
    await broker.consume(QUEUE, 10, inbox.take)
    for number in range(5):
        message = await inbox.next()
        assert (message.body, message.redelivered) == (b"%d" % number, False)
        await message.ack()
    await broker.close()
    assert inbox.taken.empty()


async def test_no_more_than_the_prefetch_is_out(broker: Either) -> None:
    """Prefetched work is latency for whoever comes later, so a worker holds only what it can do."""
    inbox = Inbox()
    await broker.consume(QUEUE, 2, inbox.take)
    for number in range(3):
        await broker.publish(QUEUE, b"%d" % number)
    first = await inbox.next()
    await inbox.next()
    await broker.publish("sms.bulk", b"x")  # a round trip: whatever was on its way is here
    assert inbox.taken.empty()
    await first.ack()
    assert (await inbox.next()).body == b"2"


async def test_lanes_are_apart(broker: Either) -> None:
    """Green must never wait behind bulk (rule 5)."""
    green, bulk = Inbox(), Inbox()
    for _ in range(20):
        await broker.publish("sms.bulk", b"bulk")
    await broker.consume("sms.bulk", 1, bulk.take)
    await broker.consume(QUEUE, 1, green.take)
    await broker.publish(QUEUE, b"green", GREEN_TIMEOUT_S)
    assert (await green.next()).body == b"green"
    assert (await bulk.next()).body == b"bulk"


async def test_unacked_messages_of_a_closed_consumer_come_again(broker: Either) -> None:
    """A worker that stops in the middle leaves its batches to the next one; a late ack of its changes nothing."""
    before, after = Inbox(), Inbox()
    await broker.consume(QUEUE, 10, before.take)
    for body in (b"1", b"2"):
        await broker.publish(QUEUE, body)
    await (await before.next()).ack()
    late = await before.next()
    await broker.close()
    await late.ack()
    await late.reject()
    await broker.open([QUEUE])
    await broker.consume(QUEUE, 10, after.take)
    message = await after.next()
    assert (message.body, message.redelivered) == (b"2", True)
    await message.ack()


async def test_a_rejected_message_is_a_dead_letter(broker: Either) -> None:
    """What no worker can read is kept for a person to see and does not come round again."""
    inbox = Inbox()
    await broker.consume(QUEUE, 1, inbox.take)
    await broker.publish(QUEUE, b"unreadable")
    await (await inbox.next()).reject()
    async with asyncio.timeout(SOON_S):
        while not (letters := await broker.dead()):
            await broker.publish(QUEUE, b"next")  # a round trip each time
            await (await inbox.next()).ack()
    assert [(letter.queue, letter.reason, letter.body) for letter in letters] == [(QUEUE, "rejected", b"unreadable")]
    assert await broker.dead() == letters  # looking does not take away


async def test_a_message_whose_take_fails_is_a_dead_letter(broker: Either) -> None:
    """A bug in one worker must not turn one batch into an endless loop."""
    inbox = Inbox()

    def take(message: Message) -> None:
        if message.body == b"bad":
            raise LookupError("bug")
        inbox.take(message)

    await broker.consume(QUEUE, 1, take)
    await broker.publish(QUEUE, b"bad")
    await broker.publish(QUEUE, b"good")
    assert (await inbox.next()).body == b"good"


async def test_depths_count_what_waits(broker: Either) -> None:
    """The duty room sees a backlog before the villages do."""
    for _ in range(3):
        await broker.publish(QUEUE, b"x")
    async with asyncio.timeout(SOON_S):
        while (depths := await broker.depths())[QUEUE] < 3:
            await broker.publish("sms.bulk", b"x")
    assert depths.keys() == {QUEUE, "sms.bulk"}


async def test_an_unknown_queue_is_refused(broker: Either) -> None:
    """A message nobody will ever consume must not count as handed over."""
    with pytest.raises(BrokerDown):
        await broker.publish("sms.nowhere", b"x")
    with pytest.raises(BrokerDown):
        await broker.consume("sms.nowhere", 1, Inbox().take)


async def test_empty_probes_are_not_shown_to_workers(broker: Either) -> None:
    """Opening again probes the queues under the feet of a worker."""
    inbox = Inbox()
    await broker.consume(QUEUE, 10, inbox.take)
    await broker.open([QUEUE])
    await broker.publish(QUEUE, b"real")
    assert (await inbox.next()).body == b"real"


async def test_a_full_local_queue_makes_its_publisher_wait() -> None:
    """Embedded, a million recipients must not move from the outbox into memory."""
    broker, inbox = LocalBroker(room=2), Inbox()
    await broker.open([QUEUE])
    for _ in range(2):
        await broker.publish(QUEUE, b"x")
    with pytest.raises(BrokerDown):
        await broker.publish(QUEUE, b"x", 0.01)
    waiting = asyncio.create_task(broker.publish(QUEUE, b"last"))
    await broker.consume(QUEUE, 1, inbox.take)
    await asyncio.wait_for(waiting, SOON_S)
    assert (await inbox.next()).body == b"x"


async def test_a_lost_queue_is_declared_again(amqp_url: str, namespace: str) -> None:
    """An operator's slip in the console must not silence a lane until the next restart."""
    async with opened(amqp_url, namespace) as broker:
        inbox = Inbox()
        await broker.consume(QUEUE, 1, inbox.take)
        await broker.publish(QUEUE, b"before")
        await (await inbox.next()).ack()
        async with await aio_pika.connect(amqp_url) as connection, connection.channel() as channel:
            await channel.queue_delete(f"{namespace}.{QUEUE}", if_unused=False, if_empty=False)
        with pytest.raises(BrokerDown):
            await broker.publish(QUEUE, b"lost")
        await publish_until_confirmed(broker, b"after")
        await (await next_with(inbox, b"after")).ack()


async def test_a_queue_that_never_confirms_is_declared_anew(amqp_url: str, namespace: str) -> None:
    """RabbitMQ 3.10.8 can leave a queue dead for good after a power cut; the outbox still has its work."""
    async with await aio_pika.connect(amqp_url) as connection, connection.channel() as channel:
        # Stands in for a dead queue: it is there, and refuses every message.
        refusing: FieldTable = {"x-max-length": 0, "x-overflow": "reject-publish"}
        await channel.declare_queue(f"{namespace}.{QUEUE}", durable=True, arguments=refusing)
    async with opened(amqp_url, namespace, dead_after_s=0.2) as broker:
        inbox = Inbox()
        await broker.publish(QUEUE, b"x")
        await broker.consume(QUEUE, 1, inbox.take)
        message = await inbox.next()
        assert message.body == b"x"
        await message.ack()


async def test_a_frozen_broker_is_tried_by_one_green_publish_only(namespace: str) -> None:
    """A publish that hangs would hold the first minute of a red warning; green goes on from the store.

    `mingluo bench frozen` has the figures: a quarter of a second for the first, next to nothing for the others.
    """
    assert GREEN_TIMEOUT_S <= 0.25
    with RabbitMQ() as server:
        async with (
            Hold(lambda: asyncio.open_connection("127.0.0.1", server.port)) as wire,
            opened(f"amqp://guest:guest@127.0.0.1:{wire.port}/", namespace) as broker,
        ):
            await broker.publish(QUEUE, b"before", SOON_S)
            server.freeze()
            async with asyncio.timeout(HANGS_S):
                with pytest.raises(BrokerDown):
                    await broker.publish(QUEUE, b"the first", GREEN_TIMEOUT_S)
                for _ in range(100):
                    with pytest.raises(BrokerDown):
                        await broker.publish(QUEUE, b"the hasty", GREEN_TIMEOUT_S)
                with pytest.raises(BrokerDown):  # urgent has the time for a slow confirm, and goes on from the store
                    await broker.publish(QUEUE, b"the hasty", BACK_S, patient=False)
                with pytest.raises(BrokerDown):
                    await broker.publish(QUEUE, b"the patient", 1.0)
            assert b"the first" in wire.heard
            assert b"the hasty" not in wire.heard
            waiting = asyncio.create_task(broker.publish(QUEUE, b"the most patient", BACK_S))
            server.thaw()
            await waiting
            await publish_until_confirmed(broker, b"after")


async def test_after_kill_and_restart_publish_and_consume_go_on(namespace: str) -> None:
    """A power cut of the broker loses nothing: unacked work comes again, and no process is restarted."""
    with RabbitMQ() as server:
        async with opened(server.url, namespace) as broker:
            inbox = Inbox()
            await broker.consume(QUEUE, 10, inbox.take)
            await broker.publish(QUEUE, b"held")
            held = await inbox.next()
            await asyncio.sleep(3)  # RabbitMQ 3.10 may lose a queue for good that is younger than this
            server.kill()
            with pytest.raises(BrokerDown):
                await broker.publish(QUEUE, b"lost", GREEN_TIMEOUT_S)
            assert await broker.depths() == {}
            await held.ack()  # swallowed: the channel is gone
            server.start()
            await publish_until_confirmed(broker, b"after")
            again = await next_with(inbox, b"held")
            assert again.redelivered
            await again.ack()
            await (await next_with(inbox, b"after")).ack()


async def test_a_broker_that_is_down_at_start_is_taken_up_later(namespace: str) -> None:
    """The gateway starts without its broker: delivery goes on from the store."""
    with RabbitMQ() as server:
        server.stop()
        broker = RabbitBroker(server.url, namespace)
        opening = asyncio.create_task(broker.open([QUEUE]))
        await asyncio.sleep(0)
        with pytest.raises(BrokerDown):
            await broker.publish(QUEUE, b"x", GREEN_TIMEOUT_S)
        server.start()
        await opening
        await publish_until_confirmed(broker, b"x")
        await broker.close()


async def test_queues_killed_in_their_first_second_serve_again(namespace: str) -> None:
    """Exactly so does RabbitMQ 3.10.8 lose quorum queues for good: installation day must survive a power cut."""
    queues = [f"sms{number}.green" for number in range(3)]
    with RabbitMQ() as server:
        young = RabbitBroker(server.url, namespace)
        await young.open(queues)
        await asyncio.sleep(0.5)  # the age at which they die
        server.kill()
        await young.close()
        server.start()
        broker, inbox = RabbitBroker(server.url, namespace, dead_after_s=1.0), Inbox()
        await broker.open(queues)
        for queue in queues:
            await broker.publish(queue, queue.encode(), BACK_S)
            await broker.consume(queue, 1, inbox.take)
        assert {(await inbox.next()).body.decode() for _ in queues} == set(queues)
        await broker.close()


async def test_a_paused_queue_gives_back_what_it_took_and_is_taken_up_again(broker: Either) -> None:
    """A hub that lost its carrier must not sit on the officials' messages: they come again, to it or to another."""
    inbox = Inbox()
    await broker.consume(QUEUE, 1, inbox.take)
    await broker.publish(QUEUE, b"first")
    assert (await inbox.next()).body == b"first"
    broker.pause(QUEUE)
    await broker.publish(QUEUE, b"second")
    assert inbox.taken.empty()
    broker.resume(QUEUE)
    again = await inbox.next()
    assert (again.body, again.redelivered) == (b"first", True)
    await again.ack()
    assert (await inbox.next()).body == b"second"
