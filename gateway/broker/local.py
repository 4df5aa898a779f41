"""The broker of the embedded gateway: queues in this process, fed from the outbox. Called by `relay`.

Ordering: first in, first out per queue; what a closed consumer left unacked comes first, with `redelivered`.

The moment of ack: the caller acks after it has settled; until then the message counts against the
consumer's prefetch. An ack after `close` changes nothing: the message was put back and the claim in the
store makes its redelivery harmless.

What happens on each failure: the process dies, and every message with it: the outbox offers the work again
at the next start. Nobody consumes: a queue takes `ROOM` messages, then `publish` waits, then `BrokerDown`.
A `take` that raises, or a reject: the message goes to the dead letters, of which the last are kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import count

from gateway import log
from gateway.broker.topology import DeadLetter
from gateway.errors import BrokerDown
from gateway.ports import Message

ROOM = 64  # messages waiting per queue before a publisher must wait
DEAD_LENGTH = 1_000

_log = log.get("broker")


@dataclass(eq=False, slots=True)
class _Consumer:
    prefetch: int
    take: Callable[[Message], None]
    unacked: dict[int, bytes] = field(default_factory=dict)
    """Delivery number → body, in order of delivery."""


@dataclass(eq=False, slots=True)
class _Queue:
    name: str
    waiting: deque[tuple[bytes, bool]] = field(default_factory=deque)
    """(body, redelivered)"""
    publishers: deque[asyncio.Future[None]] = field(default_factory=deque)
    """Publishers waiting for room, in order."""
    consumers: list[_Consumer] = field(default_factory=list)
    paused: bool = False

    def take_back(self) -> None:
        """Put what is unacked back to the front."""
        for consumer in reversed(self.consumers):
            self.waiting.extendleft((body, True) for body in reversed(consumer.unacked.values()))
            consumer.unacked.clear()


class LocalBroker:
    """`Broker` in one process."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._queues: dict[str, _Queue] = {}
        self._dead: deque[DeadLetter] = deque(maxlen=DEAD_LENGTH)
        self._numbers = count(1)

    async def open(self, queues: Collection[str]) -> None:
        """Make the queues that do not exist yet."""
        for queue in queues:
            self._queues.setdefault(queue, _Queue(queue))

    async def publish(self, queue: str, body: bytes, timeout_s: float = 5.0, *, patient: bool = True) -> None:
        """Return once the queue holds the message; waits while it is full, which is no breaker's business.

        Raises:
            BrokerDown: no such queue, or no room in time.
        """
        if (target := self._queues.get(queue)) is None:
            raise BrokerDown("queue not declared")
        if target.paused and len(target.waiting) >= self._room:
            raise BrokerDown("queue full")  # to wait for it would hold up the publishers of other channels
        if len(target.waiting) >= self._room or target.publishers:
            await self._wait_for_room(target, timeout_s)
        target.waiting.append((body, False))
        self._pump(target)

    async def consume(self, queue: str, prefetch: int, take: Callable[[Message], None]) -> None:
        """Call `take` for each message, at most `prefetch` unacked. It must only start a task.

        Raises:
            BrokerDown: no such queue.
        """
        if (target := self._queues.get(queue)) is None:
            raise BrokerDown("queue not declared")
        target.consumers.append(_Consumer(prefetch, take))
        self._pump(target)

    def pause(self, queue: str) -> None:
        """Take no more from a queue and put back what is unacked."""
        if (target := self._queues.get(queue)) is not None:
            target.paused = True
            target.take_back()

    def resume(self, queue: str) -> None:
        """Consume a paused queue again."""
        if (target := self._queues.get(queue)) is not None:
            target.paused = False
            self._pump(target)

    async def depths(self) -> dict[str, int]:
        """Messages ready per queue."""
        return {name: len(queue.waiting) for name, queue in self._queues.items()}

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        """Look at dead letters, oldest first."""
        return list(self._dead)[:limit]

    async def close(self) -> None:
        """Stop consuming; what is unacked goes back to the front of its queue."""
        for queue in self._queues.values():
            queue.take_back()
            queue.consumers.clear()

    async def _wait_for_room(self, queue: _Queue, timeout_s: float) -> None:
        turn = asyncio.get_running_loop().create_future()
        queue.publishers.append(turn)
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn in queue.publishers:
                queue.publishers.remove(turn)
            self._admit(queue)  # a place won too late goes to the next in line
            if isinstance(error, TimeoutError):
                raise BrokerDown("queue full") from error
            raise

    def _pump(self, queue: _Queue) -> None:
        """Hand waiting messages to consumers with room, the least busy first, then let publishers go on."""
        while queue.waiting and not queue.paused:
            free = [consumer for consumer in queue.consumers if len(consumer.unacked) < consumer.prefetch]
            if not free:
                break
            body, redelivered = queue.waiting.popleft()
            self._hand(queue, min(free, key=lambda consumer: len(consumer.unacked)), body, redelivered)
        self._admit(queue)

    def _admit(self, queue: _Queue) -> None:
        room = self._room - len(queue.waiting)
        for turn in list(queue.publishers):
            if room <= 0:
                break
            queue.publishers.remove(turn)
            if not turn.done():
                turn.set_result(None)
                room -= 1

    def _hand(self, queue: _Queue, consumer: _Consumer, body: bytes, redelivered: bool) -> None:
        number = next(self._numbers)
        consumer.unacked[number] = body

        async def ack() -> None:
            if consumer.unacked.pop(number, None) is not None:
                self._pump(queue)

        async def reject() -> None:
            if consumer.unacked.pop(number, None) is not None:
                self._dead.append(DeadLetter(queue.name, "rejected", body))
                self._pump(queue)

        try:
            consumer.take(Message(body, redelivered, ack, reject))
        except Exception:
            _log.exception("take_failed")
            del consumer.unacked[number]
            self._dead.append(DeadLetter(queue.name, "rejected", body))
