"""The safety net: what is due in the store and on nobody's mind.

Every 250 ms: green batches unclaimed for a second are worked off directly by processes that have their
channel, and so are urgent ones that a broker of its own has not confirmed for three seconds, and a share of
each urgent alert where several wait: a broker's queue serves first who came first, and seven townships must not
wait for two hundred. Whatever else is due (never confirmed, a retry, a lapsed lease, an ended halt) is offered to
the broker again; due timers fire. Claims make every double offer harmless.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime

from gateway import log, metrics
from gateway.errors import StoreDown
from gateway.model import Lane
from gateway.ports import Clock, Outbox, Timers
from gateway.relay import Relay, Worker

POLL_S = 0.25
DIRECT_AFTER_S = 1.0
URGENT_AFTER_S = 3.0
REPUBLISH_AFTER_S = {Lane.GREEN: 2.0, Lane.URGENT: 30.0, Lane.BULK: 120.0, Lane.SERVICE: 120.0}
LIMIT = 200
EACH = 4  # urgent batches of one alert picked up at a time

_log = log.get("sweeper")


async def forever(work: Callable[[], Awaitable[None]], every_s: float, clock: Clock) -> None:
    """Repeat `work`; a store that is away is said once per round and tried again."""
    while True:
        try:
            await work()
        except StoreDown:
            _log.warning("store_down")
        except Exception:
            _log.exception("sweep_failed")
        await clock.sleep(every_s)


class Pickup:
    """In every worker: green work straight from the store, each urgent alert's share, and all while the broker is down.

    Embedded there is no broker that could be down: `urgent` is False.
    """

    def __init__(self, outbox: Outbox, worker: Worker, channels: Collection[str], *, urgent: bool) -> None:
        self._outbox = outbox
        self._worker = worker
        self._channels = frozenset(channels)
        self._urgent = urgent

    async def sweep(self) -> None:
        """One round; what this process cannot send now is left to those that can."""
        channels = [name for name in self._worker.able() if name in self._channels]
        found = await self._outbox.ready([Lane.GREEN], channels, DIRECT_AFTER_S, LIMIT)
        if self._urgent:
            found += await self._outbox.unconfirmed([Lane.URGENT], channels, URGENT_AFTER_S, LIMIT)
        for ready in found:
            self._worker.direct(ready.body)
        for ready in await self._outbox.in_line(channels, DIRECT_AFTER_S, EACH):
            self._worker.direct(ready.body)


class Sweeper:
    """In planner (embedded: the one process): offers what is due again and fires timers."""

    def __init__(
        self,
        outbox: Outbox,
        timers: Timers,
        relay: Relay,
        channels: Collection[str],
        fire: Mapping[str, Callable[[str], Awaitable[datetime | None]]],
    ) -> None:
        self._outbox = outbox
        self._timers = timers
        self._relay = relay
        self._channels = channels
        self._fire = fire

    async def sweep(self) -> None:
        """One round of offering."""
        for lane, after_s in REPUBLISH_AFTER_S.items():
            for ready in await self._outbox.ready([lane], self._channels, after_s, LIMIT):
                self._relay.offer_packed(ready.channel, ready.lane, ready.batch, ready.body)

    async def timers(self) -> None:
        """One round of timers. A handler returns when it wants to be called again, or None.

        What was handled is noted at the round's end, in few commits; after a crash before that it is handled again.
        """
        handled: list[tuple[str, str, datetime | None]] = []
        for kind, key in await self._timers.take(LIMIT):
            handler = self._fire.get(kind)
            if handler is None:
                _log.error("unknown_timer", kind=kind)
                continue
            try:
                again = await handler(key)
            except Exception:
                _log.exception("timer_failed", kind=kind, timer=key)
                metrics.alarms.labels("timer_failed").inc()
                continue  # due again when its handling time is over
            handled.append((kind, key, again))
        await self._timers.handled(handled)
