"""FastStream over RabbitMQ: one message per recipient.

Messages are persistent and the queue durable (not its defaults); a publish is confirmed (its default), with 32 of them
on their way at a time; a message is acked after its subscriber ran (its default).
"""

from __future__ import annotations

import asyncio

import sink
import uvloop
from faststream import FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

WINDOW = 32
PREFETCH = 100

broker = RabbitBroker(sink.URL, default_channel=Channel(prefetch_count=PREFETCH))
app = FastStream(broker)
queue = RabbitQueue(sink.QUEUE, durable=True)


@broker.subscriber(queue)
async def send(person: int, address: str) -> None:
    """Deliver to one recipient."""
    sink.deliver(person, address)


async def produce() -> None:
    """Send as often as the bench asks."""
    await broker.connect()
    await broker.declare_queue(queue)  # the workers may not be there yet

    async def work(people: object) -> None:
        for person, address in people:  # one iterator for all
            await broker.publish({"person": person, "address": address}, queue, persist=True)

    for number in sink.orders():  # nothing else runs in this process meanwhile
        people = sink.recipients(number)
        await asyncio.gather(*(work(people) for _ in range(WINDOW)))


if __name__ == "__main__":
    uvloop.run(produce())
