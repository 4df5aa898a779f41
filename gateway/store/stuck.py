"""What has no outcome yet, and why: every unfinished batch and every step still to be planned has one reason.

Asked by `GET /v1/stuck` (`mingluo stuck`) and, for the gauge, by the scheduler. Loudspeakers are desired state and
have no batches to finish; their standing is the villages'.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from gateway.database import Database
from gateway.ports import Clock
from gateway.store.codec import LANES, unpack_plan
from gateway.store.outage import RENEWED
from gateway.transaction import Tx, micros, moment

REASONS = (
    "halted",  # a person has stopped this county, channel or everything
    "channel_missing",  # this installation does not have the channel
    "sending",  # under a live lease; its worker's, or a dead one's until it lapses
    "channel_down",  # the carrier serves nobody; asked again at `until`
    "retry",  # tried, and to be tried again at `until`
    "paced",  # the account's rate is used up until `until`
    "unpublished",  # RabbitMQ has not confirmed it
    "queued",  # published, and no worker has begun
    "planning",  # the planner has not come to it
    "fallback",  # waits to see whom the step before it does not reach
)

_WHY = """CASE
 WHEN EXISTS (SELECT 1 FROM halt h WHERE h.scope IN ('*', b.county, b.channel)) THEN 'halted'
 WHEN b.channel NOT IN :*channels THEN 'channel_missing'
 WHEN EXISTS (SELECT 1 FROM claim c WHERE c.batch = b.id AND c.done = 0 AND c.lease_until > :now) THEN 'sending'
 WHEN b.not_before > :now AND EXISTS (SELECT 1 FROM outage o WHERE o.channel = b.channel AND o.until > :stale)
  THEN 'channel_down'
 WHEN b.not_before > :now AND EXISTS (SELECT 1 FROM claim c WHERE c.batch = b.id AND c.done = 0) THEN 'retry'
 WHEN b.not_before > :now THEN 'paced'
 WHEN b.published_at IN (0, b.created_at) THEN 'unpublished'
 ELSE 'queued' END"""
_BATCHES = f"""
SELECT alert, channel, lane, county, why, COUNT(*), MIN(created_at),
 MAX(CASE WHEN why = 'sending' THEN lease_until ELSE not_before END)
FROM (SELECT b.alert, b.channel, b.lane, b.county, b.created_at, b.not_before, {_WHY} AS why,
  (SELECT MAX(c.lease_until) FROM claim c WHERE c.batch = b.id AND c.done = 0) AS lease_until
  FROM batch b WHERE b.unfinished > 0) found
GROUP BY alert, channel, lane, county, why ORDER BY lane, alert, channel, county, why
"""
_STEPS = """
SELECT s.alert, s.number, s.lane, s.start, a.plan FROM step s JOIN alert a ON a.id = s.alert
WHERE s.finished = 0 AND s.start <= :now AND a.standing = 'active' ORDER BY s.lane, s.alert, s.number
"""


class Waiting(NamedTuple):
    """So many batches of one alert, channel, lane and county wait for one reason since `since`.

    A step counts as one and has no county. `until`: when this will be looked at again, where that is known.
    """

    alert: str
    channel: str
    lane: str
    county: str
    reason: str
    batches: int
    since: datetime
    until: datetime | None


class Stuck:
    """Answers what waits, for whom this process's channels are the installed ones."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def all(self, channels: Collection[str]) -> list[Waiting]:
        """Everything without an outcome, most urgent lane first."""
        now = self._clock.now()
        return await self._database.read(lambda tx: [*_batches(tx, channels, now), *_steps(tx, channels, now)])


def _batches(tx: Tx, channels: Collection[str], now: datetime) -> list[Waiting]:
    rows = tx.all(_BATCHES, channels=sorted(channels), now=micros(now), stale=micros(now - RENEWED))
    return [
        Waiting(
            alert, channel, LANES[lane].value, county, why, number, moment(since),
            moment(until) if until > micros(now) else None,
        )
        for alert, channel, lane, county, why, number, since, until in rows
    ]  # fmt: skip


def _steps(tx: Tx, channels: Collection[str], now: datetime) -> list[Waiting]:
    found = []
    for alert, number, lane, start, packed in tx.all(_STEPS, now=micros(now)):
        step = next((one for one in unpack_plan(packed).steps if one.number == number), None)
        if step is None:
            continue
        channel = step.audience.channel
        why = "fallback" if step.fallback_of is not None else "planning"
        why = why if channel in channels else "channel_missing"
        found.append(Waiting(alert, channel, LANES[lane].value, "", why, 1, moment(start), None))
    return found
