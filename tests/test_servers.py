"""The private servers of the fault tests: a break must be a real one, and its data must be there after."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psycopg
import pytest
from aio_pika import DeliveryMode, Message, connect
from redis import Redis as Client
from redis.exceptions import TimeoutError as NoAnswer
from servers import PostgreSQL, RabbitMQ, Redis, ServerError

SOON_S = 30.0


async def test_rabbitmq_keeps_confirmed_messages_through_a_kill() -> None:
    """Fault tests count on what the broker confirmed; only then is a loss ours."""
    with RabbitMQ() as broker:
        folder = broker.folder
        async with await connect(broker.url) as connection, connection.channel() as channel:
            await channel.declare_queue("kept", durable=True)
        broker.stop()  # in order: RabbitMQ 3.10 may lose a queue that is killed in its first seconds
        broker.start()
        async with await connect(broker.url) as connection, connection.channel(on_return_raises=True) as channel:
            message = Message(b"red", delivery_mode=DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, "kept")
        broker.kill()
        assert not broker.answers()
        broker.start()
        async with await connect(broker.url) as connection, connection.channel() as channel:
            queue = await channel.declare_queue("kept", passive=True)  # it is there, and not anew
            async with asyncio.timeout(SOON_S), queue.iterator(no_ack=True) as messages:
                assert (await anext(messages)).body == b"red"
    assert not folder.exists()


def test_postgresql_keeps_commits_through_a_kill_and_leaves_no_memory_in_the_kernel() -> None:
    """A claim that was committed must be there after a power cut."""
    with PostgreSQL() as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
        server.kill()
        server.start()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT value FROM kept").fetchone() == (7,)
        server.stop()
        server.start()
        server.kill()
        segment = (server.folder / "data" / "postmaster.pid").read_text().splitlines()[6].split()[1]
    segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    assert segment not in [line.split()[1] for line in segments if int(line.split()[7]) in (os.getuid(), 65534)]


def test_a_frozen_redis_holds_the_connection_and_answers_after_the_thaw() -> None:
    """Frozen is the break that raises nothing: code without a time limit hangs on it."""
    with Redis() as server, Client.from_url(server.url, socket_timeout=0.2, retry=None) as client:
        client.set("kept", "7")
        server.freeze()
        with pytest.raises(NoAnswer):
            client.get("kept")
        server.thaw()
        assert server.answers()
        server.freeze()
    assert not server.folder.exists()
    with pytest.raises(ServerError, match="not running"):
        server.kill()


def test_the_fixtures_reach_the_shared_servers(amqp_url: str, redis_url: str, empty_database_url: str) -> None:
    """Each test has a database of its own; broker and Redis are shared under a prefix."""
    assert amqp_url.startswith("amqp")
    assert Client.from_url(redis_url).ping()
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
