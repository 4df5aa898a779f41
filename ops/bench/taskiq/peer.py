"""taskiq with taskiq-aio-pika: one task per recipient, no result backend.

Messages are persistent; a publish is confirmed (aio-pika's default), with 32 of them on their way at a time; a task is
acked after it ran (its default).
"""

from __future__ import annotations

import asyncio

import sink
import uvloop
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

WINDOW = 32
PREFETCH = 100

broker = AioPikaBroker(
    sink.URL,
    qos=PREFETCH,
    exchange=Exchange(name=sink.QUEUE),
    task_queues=[Queue(name=sink.QUEUE, routing_key=sink.QUEUE)],
    delay_queue=Queue(name=f"{sink.QUEUE}.delay"),
    dead_letter_queue=Queue(name=f"{sink.QUEUE}.dead_letter"),
)


@broker.task(task_name="send")
async def send(person: int, address: str) -> None:
    """Deliver to one recipient."""
    sink.deliver(person, address)


async def produce() -> None:
    """Send as often as the bench asks."""
    await broker.startup()

    async def work(people: object) -> None:
        for person, address in people:  # one iterator for all
            await send.kiq(person, address)

    for number in sink.orders():  # nothing else runs in this process meanwhile
        people = sink.recipients(number)
        await asyncio.gather(*(work(people) for _ in range(WINDOW)))


if __name__ == "__main__":
    uvloop.run(produce())
