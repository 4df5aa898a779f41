"""Gauges that are read from the store and the broker, and how long batches took. Called by the scheduler.

Measured in one place, not where the work happens: several workers settle batches of one alert, and only the
store knows which of them was the first. Several schedulers show the same gauges (take the maximum); a batch is
timed by the scheduler that seals it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from gateway import metrics
from gateway.channel import Channel
from gateway.coverage import CoverageBook
from gateway.errors import StoreDown
from gateway.model import Condition, Kind, Lane, VillageState
from gateway.policy.table import SpeakerRules
from gateway.ports import Broker, Clock
from gateway.store import Store
from gateway.store.codec import LANES
from gateway.store.device import better
from gateway.store.stuck import REASONS

LIVE_ALERTS = 200  # more alerts at a time than any city has had
_WARNING = (Kind.ALERT, Kind.UPDATE)  # an all-clear leaves no gap behind


class Gauges:
    """Refreshes the gauges. `queues` are those the broker was opened with, `kind` is "local" or "rabbitmq".

    `channels` are the installed ones.
    """

    def __init__(
        self, store: Store, broker: Broker, coverage: CoverageBook, clock: Clock, queues: Collection[str], kind: str,
        channels: Collection[str],
    ) -> None:  # fmt: skip
        self._store = store
        self._broker = broker
        self._coverage = coverage
        self._clock = clock
        self._queues = frozenset(queues)
        self._kind = kind
        self._channels = channels

    async def work(self) -> None:
        """Show what waits: in the broker, in the outbox, among the reports.

        Raises:
            StoreDown: the database is away; the gauges read from it stand still, `store_up` says so.
        """
        await self._depths()
        now = self._clock.now()
        up = metrics.store_up.labels(self._store.database.dialect)
        try:
            ages = await self._store.outbox.ages()
        except StoreDown:
            up.set(0)
            raise
        up.set(int(not self._store.database.down))  # a full disk still reads
        for rank, lane in enumerate(LANES):
            number, oldest = ages.get(rank, (0, None))
            metrics.outbox_unfinished.labels(lane.value).set(number)
            age_s = (now - oldest).total_seconds() if oldest else 0.0
            metrics.outbox_age_seconds.labels(lane.value).set(max(0.0, age_s))
        waiting = Counter[str]()
        for one in await self._store.stuck.all(self._channels):
            waiting[one.reason] += one.batches
        for reason in REASONS:
            metrics.waiting_batches.labels(reason).set(waiting[reason])
        metrics.unmatched_reports.set(await self._store.ledger.unmatched())

    async def _depths(self) -> None:
        """A broker that is up knows its queues; the depth of one that is down is not known, so not shown."""
        depths = await self._broker.depths()
        up = bool(depths) or not self._queues
        metrics.broker_up.labels(self._kind).set(int(up))
        if not up:
            metrics.queue_depth.clear()
            return
        for lane in Lane:
            waiting = sum(depth for queue, depth in depths.items() if queue.rpartition(".")[2] == lane.value)
            metrics.queue_depth.labels(lane.value).set(waiting)

    async def villages(self) -> None:
        """Show the villages of live, actual warnings by state; a village under two warnings counts twice."""
        totals = dict.fromkeys(VillageState, 0)
        rows = await self._store.outbox.alerts(limit=LIVE_ALERTS, standing="active")
        for coverage in await self._coverage.of_all(
            [row for row in rows if row.alert.actual and row.alert.kind in _WARNING]
        ):
            for state in totals:
                totals[state] += coverage.count(state)
        for state, number in totals.items():
            metrics.villages.labels(state.value).set(number)


async def observe_settled(store: Store, batches: Sequence[str]) -> None:
    """Observe how long settled batches took from the moment their step was due; nothing for what was never sent."""
    for pace in await store.ledger.paces(batches):
        lane = LANES[pace.lane].value
        metrics.all_submitted_seconds.labels(pace.channel, lane).observe(pace.settled_s)
        if pace.first:
            metrics.first_submitted_seconds.labels(pace.channel, lane).observe(pace.submitted_s)


async def show_speakers(store: Store, rules: SpeakerRules, villages: Collection[str]) -> None:
    """Show loudspeakers by condition, and how many of the villages would hear nothing, by why."""
    best = dict.fromkeys(villages, Condition.NONE)
    totals = Counter[Condition]()
    for village, condition in await store.devices.conditions(rules):
        totals[condition] += 1
        if village in best:
            best[village] = better(best[village], condition)
    mute = Counter(best.values())
    for condition in Condition:
        if condition.mute:
            metrics.mute_villages.labels(condition.value).set(mute[condition])
        if condition is not Condition.NONE:
            metrics.speakers.labels(condition.value).set(totals[condition])


def show_certificates(channels: Mapping[str, Channel], now: datetime) -> None:
    """Show how long the first certificate to end of each channel lasts, of those that have any."""
    for name, channel in channels.items():
        if ends := channel.certificates().values():
            metrics.certificate_days.labels(name).set((min(ends) - now) / timedelta(days=1))
