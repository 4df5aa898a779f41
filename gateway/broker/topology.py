"""The queues of RabbitMQ: names, arguments, declaring, and replacing a dead one. Used by `RabbitBroker`.

Every work queue is a durable quorum queue whose rejected messages go at-least-once through the exchange
`<prefix>.dead` into the quorum queue `<prefix>.dead`. At-least-once dead-lettering needs `reject-publish`
as overflow. A message that was delivered `DELIVERY_LIMIT` times without an answer is dead-lettered too.

**Source:** RabbitMQ documentation, "Quorum Queues" (dead lettering, poison message handling), 3.10 and later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import NamedTuple

from aio_pika import ExchangeType
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import ChannelClosed, ChannelPreconditionFailed
from pamqp.common import FieldTable

from gateway import log

RPC_S = 5.0
SETTLE_S = 1.0
"""Pause before a name is declared again: RabbitMQ 3.10 does not tell the consumers of a deleted quorum queue
that it is gone (0.04–0.24 s later) if the name stands again by then, and they would wait for ever."""
DELIVERY_LIMIT = 20  # every lost connection counts as a delivery, so a restart must not use it up
DEAD_LENGTH = 10_000  # dead letters kept for a person to look at; the outbox holds the work itself

_log = log.get("broker")


class DeadLetter(NamedTuple):
    """A message that was rejected or delivered too often: where from, why, and its body."""

    queue: str
    reason: str
    body: bytes


class Topology:
    """What is declared under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.dead = f"{prefix}.dead"
        self._prefix = prefix

    def name(self, queue: str) -> str:
        """Return the full name of `<channel>.<lane>`."""
        return f"{self._prefix}.{queue}"

    def arguments(self, name: str) -> FieldTable:
        """Return the arguments a queue is declared with."""
        if name == self.dead:
            return {"x-queue-type": "quorum", "x-max-length": DEAD_LENGTH}
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": self.dead,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }

    async def declare(self, connection: AbstractConnection, names: Collection[str]) -> None:
        """Declare queues; one that stands with other arguments is used as it is, and said so.

        Raises:
            AMQPError, TimeoutError: the broker refused or did not answer.
        """
        async with asyncio.timeout(RPC_S), connection.channel() as channel:
            await channel.declare_exchange(self.dead, ExchangeType.FANOUT, durable=True)
        for name in names:
            try:
                await self._declare(connection, name)
            except ChannelPreconditionFailed:
                _log.error("queue_differs", queue=name)

    async def _declare(self, connection: AbstractConnection, name: str) -> None:
        async with asyncio.timeout(RPC_S), connection.channel() as channel:
            queue = await channel.declare_queue(name, durable=True, arguments=self.arguments(name))
            if name == self.dead:
                await queue.bind(self.dead)

    async def delete(self, connection: AbstractConnection, name: str) -> None:
        """Delete a queue with all it holds: the outbox has it.

        Raises:
            AMQPError, TimeoutError: the broker refused or did not answer.
        """
        async with asyncio.timeout(RPC_S), connection.channel() as channel:
            queue = await channel.get_queue(name, ensure=False)
            # Quorum queues refuse conditional deletes by closing the connection.
            await queue.delete(if_unused=False, if_empty=False)

    async def depth(self, connection: AbstractConnection, queue: str) -> int | None:
        """Messages ready in a queue; None if it does not stand.

        Raises:
            AMQPError, TimeoutError: the broker did not answer.
        """
        try:
            async with asyncio.timeout(RPC_S), connection.channel() as channel:
                declared = await channel.declare_queue(self.name(queue), passive=True)
                return declared.declaration_result.message_count or 0
        except ChannelClosed:
            return None

    async def letters(self, connection: AbstractConnection, limit: int) -> list[DeadLetter]:
        """Look at up to `limit` dead letters, oldest first; they stay where they are.

        Raises:
            AMQPError, TimeoutError: the broker did not answer.
        """
        found: list[DeadLetter] = []
        async with asyncio.timeout(RPC_S), connection.channel() as channel:
            queue = await channel.get_queue(self.dead, ensure=False)
            while len(found) < limit and (message := await queue.get(fail=False)) is not None:
                if message.body:
                    found.append(self._letter(message))
        return found  # closing the channel has put them back

    def _letter(self, message: AbstractIncomingMessage) -> DeadLetter:
        headers = message.headers
        queue = str(headers.get("x-first-death-queue", ""))
        return DeadLetter(
            queue.removeprefix(f"{self._prefix}."), str(headers.get("x-first-death-reason", "")), message.body
        )
