"""The broker of a cluster: RabbitMQ. Called by `relay` (publish, consume), `sweeper` and `doctor` (depths).

Ordering: none is promised; within a queue mostly first in, first out, until something is redelivered.

The moment of ack: `take` gets the message and starts a task its caller owns; the caller acks after it has
settled the batch. aio-pika cancels its own callbacks when a connection drops, hence nothing is awaited here.
An ack or reject on a channel that has died meanwhile is logged at debug and swallowed, by design: RabbitMQ
redelivers the message, and the redelivery meets the claim in the store and is acked there.

What happens on each failure:

- not confirmed in time (frozen, cut, overloaded): `BrokerDown`, and the breaker shuts every queue; hasty
  publishes (green) then fail at once, patient ones wait within their timeout. A background probe, an empty
  confirmed message, opens each queue again; consumers ack and ignore empty messages.
- refused or not routable: `BrokerDown`, that queue is shut, declared again if it has vanished, and probed.
- connection lost: everything is shut, the line reconnects, declares and probes; consumers subscribe again
  to queues that confirm. What was unacked comes again with `redelivered`.
- a queue that never confirms while the broker answers otherwise (RabbitMQ 3.10.8: a quorum queue declared
  just before a kill) is deleted and declared anew after `dead_after_s`. The outbox holds its work.
- broker down at start: `open` gives up waiting after `OPEN_S`; the rest happens in the background.

A publish that timed out may still arrive: the outbox offers it again, and the claim makes that harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from aio_pika import DeliveryMode
from aio_pika import Message as Outgoing
from aio_pika.abc import AbstractConnection, AbstractExchange
from aio_pika.exceptions import DeliveryError, PublishError

from gateway import log
from gateway.broker.gate import Gate
from gateway.broker.line import FAILURES, Line, dial, hang_up, own_cancel
from gateway.broker.subscription import Subscriptions
from gateway.broker.topology import RPC_S, SETTLE_S, DeadLetter, Topology
from gateway.errors import BrokerDown
from gateway.ports import Message

OPEN_S = 15.0
PROBE_S = 1.0
PAUSE_S = 0.1  # between probe rounds
DEAD_AFTER_S = 6.0
DEAD_PROBE_S = 1  # probes of the dead-letter queue expire: nobody consumes it

_log = log.get("broker")


class RabbitBroker:
    """`Broker` on RabbitMQ: `<prefix>.<channel>.<lane>`, and `<prefix>.dead` for what was rejected."""

    def __init__(self, url: str, prefix: str = "mingluo", dead_after_s: float = DEAD_AFTER_S) -> None:
        self._url = url
        self._topology = Topology(prefix)
        self._dead_after_s = dead_after_s
        self._publish_line = Line(url, "publish", self._publishing)
        self._gate = Gate()
        self._subscriptions = Subscriptions(self._gate)
        self._consume_line = Line(url, "consume", self._subscriptions.session)
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None
        self._undeclared: set[str] = set()
        self._returned: set[str] = set()
        self._suspect_since: dict[str, float] = {}
        self._queues: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def open(self, queues: Collection[str]) -> None:
        """Connect, declare and probe `queues`; a dead queue is declared anew. Goes on in the background if down."""
        self._queues += [queue for queue in queues if queue not in self._queues]
        names = [self._topology.dead, *map(self._topology.name, queues)]
        self._undeclared.update(names)
        self._gate.add(names)
        self._gate.shut(names)
        self._start("publish", self._publish_line)
        try:
            async with asyncio.timeout(OPEN_S):
                for name in names:
                    await self._gate.opened(name)
        except TimeoutError:
            _log.error("broker_not_ready", shut=len(self._gate.shut_queues()))

    async def publish(self, queue: str, body: bytes, timeout_s: float = 5.0, *, patient: bool = True) -> None:
        """Return once confirmed. While the breaker is open, the patient wait for it within their time.

        Raises:
            BrokerDown: not confirmed within `timeout_s`, refused, not routable, or the breaker is open.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        name = self._topology.name(queue)
        await self._gate.enter(name, timeout_s, patient=patient)
        try:
            async with asyncio.timeout_at(deadline):
                await self._send(name, body)
        except DeliveryError as error:
            self._refused(name, error)
            self._gate.shut([name])
            raise BrokerDown("refused or not routable") from error
        except FAILURES as error:
            self._gate.shut()
            raise BrokerDown("not confirmed") from error

    async def consume(self, queue: str, prefetch: int, take: Callable[[Message], None]) -> None:
        """Call `take` for each message, at most `prefetch` unacked; survives reconnects.

        `take` must only start a task; a message whose `take` raises is dead-lettered.

        Raises:
            BrokerDown: the queue was never opened.
        """
        if queue not in self._queues:
            raise BrokerDown("queue not declared")
        self._subscriptions.add(self._topology.name(queue), prefetch, take)
        self._start("consume", self._consume_line)

    def pause(self, queue: str) -> None:
        """Take no more from a queue and give back what is unacked, by closing its channel; to others at once."""
        self._subscriptions.pause(self._topology.name(queue))

    def resume(self, queue: str) -> None:
        """Consume a paused queue again."""
        self._subscriptions.resume(self._topology.name(queue))

    async def depths(self) -> dict[str, int]:
        """Messages ready per queue; empty when the broker is down."""
        if (connection := self._connection) is None:
            return {}
        depths = {}
        try:
            async with asyncio.timeout(RPC_S):
                for queue in tuple(self._queues):
                    if (depth := await self._topology.depth(connection, queue)) is not None:
                        depths[queue] = depth
        except FAILURES:
            return {}
        return depths

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        """Look at dead letters, oldest first; they stay where they are.

        Raises:
            BrokerDown: the broker did not answer.
        """
        if (connection := self._connection) is None:
            raise BrokerDown("not connected")
        try:
            return await self._topology.letters(connection, limit)
        except FAILURES as error:
            raise BrokerDown("no answer") from error

    async def close(self) -> None:
        """Stop consuming and disconnect; what is unacked goes back to its queue."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._subscriptions.clear()
        self._gate.shut()

    def _start(self, role: str, line: Line) -> None:
        if role not in self._tasks:
            self._tasks[role] = asyncio.create_task(line.run(), name=f"broker-{role}")

    async def _publishing(self, connection: AbstractConnection, lost: asyncio.Event) -> None:
        """Hold the channel that publishes, and mend what is shut, until the connection is lost."""

        def lose(*_: Any) -> None:
            lost.set()

        async with asyncio.timeout(RPC_S):
            channel = await connection.channel(on_return_raises=True)
        channel.close_callbacks.add(lose)
        self._undeclared = {self._topology.dead, *map(self._topology.name, self._queues)}
        self._suspect_since.clear()
        self._connection, self._exchange = connection, channel.default_exchange
        try:
            while True:
                await self._gate.trouble.wait()
                await self._mend(connection)
        finally:
            self._connection = self._exchange = None
            self._gate.shut()

    async def _send(self, name: str, body: bytes) -> None:
        if (exchange := self._exchange) is None:
            raise ConnectionError("not connected")
        expiration = DEAD_PROBE_S if name == self._topology.dead else None
        message = Outgoing(body, delivery_mode=DeliveryMode.PERSISTENT, expiration=expiration)
        with own_cancel():
            await exchange.publish(message, name, mandatory=True)

    async def _mend(self, connection: AbstractConnection) -> None:
        """One round: declare, probe, open what confirms, replace what never does."""
        shut = self._gate.shut_queues()
        if self._returned.intersection(shut):
            await asyncio.sleep(SETTLE_S)
        if undeclared := [name for name in shut if name in self._undeclared | self._returned]:
            await self._topology.declare(connection, undeclared)
            self._undeclared.difference_update(undeclared)
            self._returned.difference_update(undeclared)
        confirmed = await asyncio.gather(*map(self._probe, shut))
        if silent := [name for name, ok in zip(shut, confirmed, strict=True) if not ok]:
            await self._examine(connection, silent)
            await asyncio.sleep(PAUSE_S)

    async def _probe(self, name: str) -> bool:
        try:
            async with asyncio.timeout(PROBE_S):
                await self._send(name, b"")
        except DeliveryError as error:
            self._refused(name, error)
            return False
        except FAILURES:
            return False
        self._suspect_since.pop(name, None)
        self._gate.open(name)  # at once: the others of the round may be slow
        return True

    def _refused(self, name: str, error: DeliveryError) -> None:
        if isinstance(error, PublishError):  # returned: nothing of this name stands
            self._returned.add(name)

    async def _examine(self, connection: AbstractConnection, silent: Collection[str]) -> None:
        """Tell a dead queue from a broker that is silent altogether, and replace it after a while."""
        try:
            async with asyncio.timeout(PROBE_S), connection.channel():
                now = asyncio.get_running_loop().time()
        except FAILURES:
            self._suspect_since.clear()
            return
        dead = [name for name in silent if now - self._suspect_since.setdefault(name, now) >= self._dead_after_s]
        if dead:
            await asyncio.gather(*map(self._bury, dead))
            await asyncio.sleep(SETTLE_S)
            self._undeclared.update(dead)

    async def _bury(self, name: str) -> None:
        """Delete a dead queue on a connection of its own: RabbitMQ may answer that by closing it."""
        _log.error("queue_dead", queue=name)
        self._suspect_since.pop(name, None)
        try:
            connection = await dial(self._url)
            try:
                await self._topology.delete(connection, name)
            finally:
                await hang_up(connection)
        except FAILURES as error:
            _log.warning("delete_failed", queue=name, error=type(error).__name__)
