"""The limit of the transport: the gateway's own packed batches through a quorum queue, and nothing else.

Run in the gateway's environment; `consume` is the worker. Each batch of a thousand is packed, published persistent and
confirmed with 32 on their way at a time, consumed, unpacked, given to the sink, and acked. There is no directory, no
outbox, no claim, no text and no ledger.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import aio_pika
import sink
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from gateway.model import Batch, Group, Lane, Notice
from gateway.store.codec import pack, unpack_batch

BATCH = 1000
WINDOW = 32


def batches(number: int) -> Iterator[Batch]:
    """Yield as many full batches as this many recipients need, the last one shorter."""
    addresses = tuple(address for _, address in sink.recipients(BATCH))
    persons = tuple(secrets.randbits(62) for _ in addresses)
    deadline = datetime.now(UTC) + timedelta(hours=3)
    for at, first in enumerate(range(0, number, BATCH)):
        size = min(BATCH, number - first)
        yield Batch(
            f"raw.1.{at}", "raw", 1, "noop", Lane.BULK, Group.RESIDENTS, Notice.ISSUE, "zh", "411726100", deadline,
            persons[:size], addresses[:size], (("411726100001", size),), slice=BATCH,
        )  # fmt: skip


async def connected() -> aio_pika.abc.AbstractChannel:
    """Open a channel with confirms and declare the queue."""
    connection = await aio_pika.connect(sink.URL)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=WINDOW)
    await channel.declare_queue(sink.QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    return channel


async def consume() -> None:
    """Take batches for ever."""
    channel = await connected()

    async def take(message: AbstractIncomingMessage) -> None:
        batch = unpack_batch(message.body)
        for person, address in zip(batch.persons, batch.addresses, strict=True):
            sink.deliver(person, address)
        await message.ack()

    await (await channel.get_queue(sink.QUEUE, ensure=False)).consume(take)
    await asyncio.Event().wait()


async def produce() -> None:
    """Send as often as the bench asks."""
    channel = await connected()

    async def work(waiting: Iterator[Batch]) -> None:
        for batch in waiting:  # one iterator for all
            message = aio_pika.Message(pack(batch), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, sink.QUEUE)

    for number in sink.orders():  # nothing else runs in this process meanwhile
        waiting = batches(number)
        await asyncio.gather(*(work(waiting) for _ in range(WINDOW)))


if __name__ == "__main__":
    uvloop.run(consume() if sys.argv[1:] == ["consume"] else produce())
