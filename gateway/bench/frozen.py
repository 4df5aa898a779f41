"""What a frozen neighbour costs: the first call pays its timeout, every later one next to nothing.

Redis is the gateway's own Valkey; RabbitMQ is the one `MINGLUO_AMQP_URL` names, if it is set. Neither is harmed: the
wire in between is held (`gateway.bench.hold`), and carries again before the next round.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import msgspec

from gateway.bench.hold import Hold
from gateway.bench.measure import Spread
from gateway.broker import RabbitBroker
from gateway.errors import BrokerDown
from gateway.relay import GREEN_TIMEOUT_S
from gateway.state import FallbackState, RedisState, Valkey

LATER = 100  # calls after the first
QUEUE = "noop.green"
BACK_S = 60.0


class Cost(msgspec.Struct, frozen=True):
    """What calls took while the neighbour was frozen."""

    first_ms: Spread
    later_us: Spread
    """Of each of a hundred more."""


class Frozen(msgspec.Struct, frozen=True):
    """The result, as printed with --json."""

    rounds: int
    redis: Cost
    rabbitmq: Cost | None
    bench: str = "frozen"


async def frozen(rounds: int = 5) -> Frozen:
    """Measure in this process."""
    amqp = os.environ.get("MINGLUO_AMQP_URL", "")
    return Frozen(rounds, await _redis(rounds), await _rabbitmq(amqp, rounds) if amqp else None)


async def _redis(rounds: int) -> Cost:
    with Valkey() as valkey:
        async with Hold(lambda: asyncio.open_unix_connection(valkey.socket)) as hold:
            state = FallbackState(RedisState(f"redis://127.0.0.1:{hold.port}", "bench"))

            async def take() -> None:
                await state.take("account", 1, 1e6, 1_000_000, 0)

            found = await _rounds(hold, rounds, take, state.recovered)
            await state.close()
    return found


async def _rabbitmq(url: str, rounds: int) -> Cost:
    """Green publishes on a queue of its own."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    async with Hold(lambda: asyncio.open_connection(parts.hostname, parts.port or 5672)) as hold:
        own = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{hold.port}" if user else f"127.0.0.1:{hold.port}"))
        prefix = f"bench-{secrets.token_hex(4)}"
        broker = RabbitBroker(own, prefix)
        await broker.open([QUEUE])

        async def publish() -> None:
            try:
                await broker.publish(QUEUE, b"bench", GREEN_TIMEOUT_S)
            except BrokerDown:
                return

        async def back() -> None:
            await broker.publish(QUEUE, b"bench", BACK_S)

        found = await _rounds(hold, rounds, publish, back)
        await broker.close()
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        for name in (QUEUE, "dead"):
            await channel.queue_delete(f"{prefix}.{name}")
        await channel.exchange_delete(f"{prefix}.dead")
    return found


async def _rounds(
    hold: Hold, rounds: int, call: Callable[[], Awaitable[None]], back: Callable[[], Awaitable[None]]
) -> Cost:
    first, later = [], []
    for _ in range(rounds):
        await call()
        hold.freeze()
        started = time.perf_counter()
        await call()
        gave_up = time.perf_counter()
        for _ in range(LATER):
            await call()
        ended = time.perf_counter()
        first.append((gave_up - started) * 1e3)
        later.append((ended - gave_up) / LATER * 1e6)
        hold.thaw()
        await back()
    return Cost(Spread.of(first), Spread.of(later))
