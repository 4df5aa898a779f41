"""What a process consumes from RabbitMQ, kept up across lost channels and connections. Used by `RabbitBroker`.

Each subscription has a channel of its own, so its prefetch is its own. The moment of ack and what happens
to a late one are told in `rabbitmq`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from gateway import log
from gateway.broker.gate import Gate
from gateway.broker.line import FAILURES, own_cancel
from gateway.broker.topology import RPC_S
from gateway.ports import Message

PAUSE_S = 0.1  # before subscribing again
ANSWER_S = 2.0

_log = log.get("broker")


@dataclass(eq=False, slots=True)
class _Subscription:
    queue: str
    prefetch: int
    take: Callable[[Message], None]
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set unless it is paused."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its present channel is to be given up."""


class Subscriptions:
    """All `consume` calls of a broker; `session` serves them on one connection."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._all: list[_Subscription] = []
        self._added = asyncio.Event()

    def add(self, queue: str, prefetch: int, take: Callable[[Message], None]) -> None:
        """Begin to consume `queue` (full name)."""
        self._all.append(subscription := _Subscription(queue, prefetch, take))
        subscription.wanted.set()
        self._added.set()

    def pause(self, queue: str) -> None:
        """Close the queue's channel, which gives back what is unacked."""
        for subscription in self._of(queue):
            subscription.wanted.clear()
            subscription.ended.set()

    def resume(self, queue: str) -> None:
        """Consume a paused queue again."""
        for subscription in self._of(queue):
            subscription.wanted.set()

    def _of(self, queue: str) -> list[_Subscription]:
        return [subscription for subscription in self._all if subscription.queue == queue]

    def clear(self) -> None:
        """Forget all; the sessions have ended."""
        self._all.clear()

    async def session(self, connection: AbstractConnection, _lost: asyncio.Event) -> None:
        """Keep every subscription, also those added later."""
        begun = 0
        async with asyncio.TaskGroup() as group:
            while True:
                self._added.clear()
                for subscription in self._all[begun:]:
                    group.create_task(self._keep(connection, subscription))
                begun = len(self._all)
                await self._added.wait()

    async def _keep(self, connection: AbstractConnection, subscription: _Subscription) -> None:
        while True:
            await subscription.wanted.wait()
            # RabbitMQ closes the whole connection when a dead queue is consumed: wait until it confirms.
            await self._gate.opened(subscription.queue)
            try:
                with own_cancel():
                    await self._subscribe(connection, subscription)
            except FAILURES as error:
                _log.warning("consume_failed", queue=subscription.queue, error=type(error).__name__)
            await asyncio.sleep(PAUSE_S)

    async def _subscribe(self, connection: AbstractConnection, subscription: _Subscription) -> None:
        """Consume until the channel closes or the broker cancels, as it does when a queue is replaced."""
        ended = subscription.ended = asyncio.Event()

        def end(*_: Any) -> None:
            ended.set()

        async with connection.channel() as channel:
            channel.close_callbacks.add(end)
            (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(end)
            async with asyncio.timeout(RPC_S):
                await channel.set_qos(prefetch_count=subscription.prefetch)
                queue = await channel.get_queue(subscription.queue, ensure=False)
                await queue.consume(partial(_deliver, subscription.take))
            if subscription.wanted.is_set():  # paused meanwhile otherwise
                await ended.wait()


async def _deliver(take: Callable[[Message], None], incoming: AbstractIncomingMessage) -> None:
    if not incoming.body:  # a probe
        await _answer("ack", incoming.ack)
        return
    ack = partial(_answer, "ack", incoming.ack)
    reject = partial(_answer, "reject", incoming.reject)
    try:
        take(Message(incoming.body, bool(incoming.redelivered), ack, reject))
    except Exception:
        _log.exception("take_failed")
        await reject()


async def _answer(kind: str, answer: Callable[[], Awaitable[None]]) -> None:
    """Ack or reject; on a dead channel the redelivery will do it (see the module's docstring)."""
    try:
        with own_cancel():
            async with asyncio.timeout(ANSWER_S):
                await answer()
    except FAILURES as error:
        _log.debug("answer_lost", kind=kind, error=type(error).__name__)
