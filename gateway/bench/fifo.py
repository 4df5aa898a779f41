"""One queue for everything, first in, first out: how long a red message waits behind the blue ones.

A plain aio-pika layout on a durable quorum queue: persistent messages published with confirms, one consumer process
(`python -m gateway.bench.fifo`) with an ordinary prefetch that reads each message, does nothing with it, and acks.
Twice: a message per recipient, as task queues work (Celery, Dramatiq, taskiq); and a message per thousand, as this
gateway works. The consumer neither claims nor sends nor keeps a ledger and a red warning is one message here, which
flatters it. Reds are published evenly over the drain; the wait is from `publish` to the consumer's hand.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Sequence

import aio_pika
import msgspec
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from gateway.bench.measure import child, quantile

PREFETCH = 50
WINDOW = 64  # publishes on their way
EACH = 10_000
"""Messages of one recipient each per red one, at most: a million of them would take minutes."""
BATCH = 1_000
RED = b"red"
LONGEST_S = 300.0

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[tuple[int, str]]).decode


class Wait(msgspec.Struct, frozen=True):
    """What red messages waited behind so many blue ones."""

    messages: int
    recipients: int
    p50_ms: float
    p99_ms: float


class Fifo(msgspec.Struct, frozen=True):
    """One queue with a message per recipient, and one with a message per thousand."""

    each: Wait
    batches: Wait


class Task(msgspec.Struct, frozen=True):
    """What the consumer is to do: say so each time `every` of the `messages` are done, and end with the waits."""

    url: str
    queue: str
    messages: int
    reds: int


async def fifo(url: str, recipients: int, reds: int) -> Fifo:
    """Measure on the RabbitMQ of `url`, in a queue of its own.

    Raises:
        RuntimeError: the consumer failed.
    """
    return Fifo(
        await _pass(url, min(recipients, EACH * reds), 1, reds),
        await _pass(url, max(1, recipients // BATCH), min(BATCH, recipients), reds),
    )


async def _pass(url: str, messages: int, size: int, reds: int) -> Wait:
    name = f"bench-{secrets.token_hex(4)}.fifo"
    body = _pack([(1 << 61 | number, f"+86100{number:08d}") for number in range(size)])
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
        try:
            await _fill(channel.default_exchange, name, body, messages)
            waits = await _drain(channel.default_exchange, Task(url, name, messages, min(reds, messages)))
        finally:
            await channel.queue_delete(name)
    return Wait(messages, messages * size, quantile(waits, 0.5), quantile(waits, 0.99))


async def _fill(exchange: aio_pika.abc.AbstractExchange, name: str, body: bytes, messages: int) -> None:
    left = iter(range(messages))

    async def publisher() -> None:
        for _ in left:
            await exchange.publish(_persistent(body), name)

    async with asyncio.TaskGroup() as group:
        for _ in range(WINDOW):
            group.create_task(publisher())


async def _drain(exchange: aio_pika.abc.AbstractExchange, task: Task) -> Sequence[float]:
    """Publish a red message at every line of the consumer; the last line is the waits."""
    async with asyncio.timeout(LONGEST_S), child("gateway.bench.fifo", msgspec.json.encode(task).decode()) as output:
        for _ in range(task.reds):
            await output.readline()
            await exchange.publish(_persistent(RED + time.time_ns().to_bytes(8, "big")), task.queue)
        return msgspec.json.decode(await output.readline(), type=list[float])


def _persistent(body: bytes) -> aio_pika.Message:
    return aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)


# --- in the child ---------------------------------------------------------------------------------


async def consume(task: Task) -> list[float]:
    """Drain the queue; a line each time another part of the blue messages is done."""
    waits: list[float] = []
    done, ended = 0, asyncio.Event()
    marks = {task.messages * number // task.reds for number in range(task.reds)}

    async def take(message: AbstractIncomingMessage) -> None:
        nonlocal done
        if message.body.startswith(RED):
            waits.append(round((time.time_ns() - int.from_bytes(message.body[len(RED) :], "big")) / 1e6, 2))
        else:
            _unpack(message.body)
            done += 1
            _tell(done)
        await message.ack()
        if len(waits) == task.reds:
            ended.set()

    def _tell(number: int) -> None:
        if number in marks:
            sys.stdout.write("\n")
            sys.stdout.flush()

    _tell(0)
    async with await aio_pika.connect(task.url) as connection, connection.channel() as channel:
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(task.queue, ensure=False)
        await queue.consume(take)
        await ended.wait()
    return waits


def main() -> None:
    """Do what the argument says; the result is one line."""
    task = msgspec.json.decode(sys.argv[1], type=Task)
    sys.stdout.write(msgspec.json.encode(uvloop.run(consume(task))).decode() + "\n")


if __name__ == "__main__":
    main()
