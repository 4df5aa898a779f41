"""Requests for places (area requests, D10) and how far each has come: aggregate receipts keyed (batch, source).

A channel writes a request down before it asks the platform, so that whatever becomes of the process another one
finds it, follows it, and stops it once its alert has ended, its time is over, or a person has halted it. Counts and
states only grow: a repeated or late progress is a no-op. Nothing here is a person, and no village is confirmed by it.

What is to be said again goes on in rounds, each a row of its own: `again` ends one and notes the next in one
transaction, so no round is lost or begun twice, and none begins after a stop.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import NamedTuple

from gateway.database import Database
from gateway.model import Batch, Job, JobState, Progress, Rounds
from gateway.ports import Clock
from gateway.store.change import note_all
from gateway.store.claim import lock_alerts
from gateway.store.codec import unpack_batch
from gateway.store.desired import confirmed
from gateway.transaction import Tx, micros, moment

OVER_EACH = timedelta(seconds=1)  # one that must run no longer is looked at this often
LOOK = 200  # requests at once
PATIENCE_S = 5.0


class Reach(NamedTuple):
    """Requests of one channel in one state, and their telephones."""

    channel: str
    state: JobState
    requests: int
    requested: int
    submitted: int
    delivered: int


class SqlProgress:
    """Aggregate receipts."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def commit(self, progress: Sequence[Progress]) -> None:
        """Write progress; return after its commit.

        Raises:
            StoreDown: not committed.
        """
        await self._database.write(lambda tx: _write(tx, progress), PATIENCE_S)

    async def take(self, channel: str, each_s: float) -> list[Job]:
        """Take the requests of a channel that nobody has looked at for `each_s`, or for a second if they are over.

        Raises:
            StoreDown: nothing was taken for sure; what was comes up again.
        """
        now = self._clock.now()
        # Most often there are none: that must cost no write.
        if not await self._database.read(lambda tx: _due(tx, channel, micros(now), each_s)):
            return []
        return await self._database.write(lambda tx: _take(tx, channel, micros(now), each_s), PATIENCE_S)

    async def again(self, job: Job, source: str, positions: Collection[int]) -> bool:
        """End a round and note the next one as `source`, for these positions of its batch.

        False: it must run no more, one of their villages has confirmed meanwhile, or somebody else was first.

        Raises:
            StoreDown: nothing was noted for sure.
        """
        rounds, at = job.rounds, micros(self._clock.now())
        if rounds is None:
            return False
        batch, places = rounds.batch, list(rounds.batch.village_of())
        villages = {places[position] for position in positions}

        def operation(tx: Tx) -> bool:
            lock_alerts(tx, {batch.alert})
            running = tx.one(_RUNNING, batch=batch.id, now=at)
            if running is None or villages & confirmed(tx, batch.alert):
                return False
            if not tx.run(
                "UPDATE progress SET ended = 1 WHERE batch = :batch AND source = :source AND ended = 0",
                batch=batch.id,
                source=job.progress.source,
            ):
                return False
            _write(tx, [Progress(batch.id, source, JobState.ASKED, moment(at))])
            return True

        return await self._database.write(operation, PATIENCE_S)

    async def reach(self, alert: str) -> list[Reach]:
        """How far the requests of an alert have come, by channel and state."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT p.channel, p.state, COUNT(*), SUM(p.requested), SUM(p.submitted), SUM(p.delivered)"
                " FROM progress p JOIN batch b ON b.id = p.batch WHERE b.alert = :alert AND b.audience = 'area'"
                " GROUP BY p.channel, p.state ORDER BY p.channel, p.state",
                alert=alert,
            )
        )
        return [Reach(channel, JobState(state), *map(int, counts)) for channel, state, *counts in rows]


def _write(tx: Tx, progress: Sequence[Progress]) -> None:
    """Upsert each in the order of its key, so that two processes lock the same rows in the same order."""
    moved = []
    for one in sorted(progress, key=lambda one: (one.batch, one.source)):
        batch = tx.one("SELECT alert, channel FROM batch WHERE id = :batch", batch=one.batch)
        if batch is None:
            continue
        changed = tx.run(
            "INSERT INTO progress (batch, source, channel, job, state, requested, submitted, delivered, ended, since,"
            " looked_at, asked_at) VALUES (:batch, :source, :channel, :job, :state, :requested, :submitted, :delivered,"
            " :ended, :at, :at, :at) ON CONFLICT (batch, source) DO UPDATE SET"
            " job = CASE WHEN excluded.job = '' THEN progress.job ELSE excluded.job END,"
            " state = CASE WHEN excluded.state > progress.state THEN excluded.state ELSE progress.state END,"
            " asked_at = CASE WHEN excluded.state = 0 THEN excluded.asked_at ELSE progress.asked_at END,"
            " ended = CASE WHEN excluded.state = 0 THEN 0 WHEN excluded.ended = 1 THEN 1 ELSE progress.ended END,"
            + ", ".join(
                f" {name} = CASE WHEN excluded.{name} > progress.{name} THEN excluded.{name} ELSE progress.{name} END"
                for name in ("requested", "submitted", "delivered", "since")
            )
            + " WHERE excluded.state = 0 OR excluded.state > progress.state OR excluded.requested > progress.requested"
            " OR excluded.submitted > progress.submitted OR excluded.delivered > progress.delivered"
            " OR excluded.ended > progress.ended OR (progress.job = '' AND excluded.job <> '')",
            batch=one.batch,
            source=one.source,
            channel=batch[1],
            job=one.job,
            state=int(one.state),
            requested=one.requested,
            submitted=one.submitted,
            delivered=one.delivered,
            ended=int(one.last),
            at=micros(one.at),
        )
        if changed:
            moved.append(("progress", batch[0], one.batch))
    note_all(tx, moved)


_HALTED = "EXISTS (SELECT 1 FROM halt WHERE scope IN ('*', b.county, b.channel))"
_ENDED = "(a.standing <> 'active' OR b.deadline <= :now)"
_RUNNING = (
    f"SELECT 1 FROM batch b JOIN alert a ON a.id = b.alert WHERE b.id = :batch AND NOT {_ENDED} AND NOT {_HALTED}"
)
_DUE = f"""
SELECT p.batch, p.source, p.job, p.state, p.requested, p.submitted, p.delivered, p.since, p.asked_at,
  CASE WHEN {_ENDED} THEN 1 ELSE 0 END, CASE WHEN {_HALTED} THEN 1 ELSE 0 END
FROM progress p JOIN batch b ON b.id = p.batch JOIN alert a ON a.id = b.alert
WHERE p.channel = :channel AND p.ended = 0 AND p.looked_at <= :over_each
  AND (p.looked_at <= :each OR {_ENDED} OR {_HALTED})
ORDER BY p.batch, p.source LIMIT :limit"""


class _Found(NamedTuple):
    """A row that is due, when it was asked, and whether only a halt makes it over."""

    job: Job
    asked_at: int
    halted: bool


def _due(tx: Tx, channel: str, now: int, each_s: float, lock: str = "") -> list[_Found]:
    rows = tx.all(
        _DUE + lock,
        channel=channel,
        now=now,
        each=now - round(each_s * 1e6),
        over_each=now - OVER_EACH // timedelta(microseconds=1),
        limit=LOOK,
    )
    found = []
    for batch, source, job, state, asked, sent, got, since, asked_at, ended, halted in rows:
        progress = Progress(batch, source, JobState(state), moment(now), asked, sent, got, job)
        due = Job(progress, bool(ended or halted), moment(since))
        found.append(_Found(due, asked_at, halted=bool(halted and not ended)))
    return found


def _take(tx: Tx, channel: str, now: int, each_s: float) -> list[Job]:
    found = _due(tx, channel, now, each_s, " FOR UPDATE OF p SKIP LOCKED" if tx.postgresql else "")
    ids = sorted({one.job.progress.batch for one in found})
    rows = tx.all("SELECT batch, body FROM outbox WHERE batch IN :*batches", batches=ids) if ids else []
    batches = {batch: unpack_batch(body) for batch, body in rows}
    tx.many(
        "UPDATE progress SET looked_at = :now WHERE batch = :batch AND source = :source",
        [{"now": now, "batch": one.job.progress.batch, "source": one.job.progress.source} for one in found],
    )
    heard: dict[str, set[str]] = {}
    return [_whole(tx, one, batches.get(one.job.progress.batch), heard) for one in found]


def _whole(tx: Tx, found: _Found, batch: Batch | None, heard: dict[str, set[str]]) -> Job:
    """Return a job with its places and its rounds; `heard` keeps the villages that have confirmed, by alert."""
    if batch is None:
        return found.job
    rounds = None
    if batch.every_s:
        if batch.alert not in heard:
            heard[batch.alert] = confirmed(tx, batch.alert)
        wanted = [at for at, village in enumerate(batch.village_of()) if village not in heard[batch.alert]]
        rounds = Rounds(batch, moment(found.asked_at), frozenset(wanted), found.halted)
    return found.job._replace(places=batch.addresses, rounds=rounds)
