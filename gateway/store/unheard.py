"""Loudspeakers that say nothing of what they were told, and commands whose time is over.

Whoever was commanded and has said nothing for the channel's `report_s` is UNKNOWN, code `silent`: its village is a gap
that shows. The command stays, so that a device that comes back in time still plays, and whatever it says then beats it.
Past its deadline a play is settled, and nobody is told any more; a stop stands for a day longer, for a device that was
cut off with its clock wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial

from gateway import metrics
from gateway.database import Database
from gateway.model import State
from gateway.ports import Clock, Place
from gateway.store import desired
from gateway.store.command import ENDS, OPEN
from gateway.store.fact import Fact, write
from gateway.store.rows import Locked
from gateway.transaction import Tx, micros

SILENT = "silent"
GRACE = timedelta(minutes=1)  # whoever played up to the deadline has its receipt under way
STOPPED = timedelta(days=1)
STEP = 1_000  # devices in one transaction


class Unheard:
    """Ends the waiting for devices. `waits` says for how many seconds each channel's are awaited."""

    def __init__(self, database: Database, clock: Clock, waits: Mapping[str, float]) -> None:
        self._database = database
        self._clock = clock
        self._waits = {channel: timedelta(seconds=wait_s) for channel, wait_s in waits.items()}

    async def work(self) -> None:
        """End what is due, one transaction after the other.

        Raises:
            StoreDown: the rest is done the next time.
        """
        now = self._clock.now()
        for channel, wait in self._waits.items():
            find = partial(_silent, channel=channel, due=micros(now - wait))
            while places := await self._database.read(find):
                await self._database.write(partial(_note_silent, places=places, now=micros(now)), 5.0)
                metrics.silent_recipients.labels(channel).inc(len(places))
        over = partial(_over, plays=micros(now - GRACE), ends=micros(now - STOPPED))
        while places := await self._database.read(over):
            await self._database.write(partial(_settle, places=places, now=micros(now)), 5.0)


# Found by a reader, for thousands may be open: a writer that looked at them would keep the receipts of a red warning.


def _silent(tx: Tx, channel: str, due: int) -> list[Place]:
    """Return the next devices that have said nothing since they were commanded.

    That was when the first of their batch were, or when they came: nobody notes it of each. Who comes and goes all the
    time came when it began to: it was told each time, and had time to answer.
    """
    rows = tx.all(
        "SELECT c.batch, c.position FROM batch b JOIN device_command c ON c.batch = b.id"
        f" LEFT JOIN device_state s ON s.device = c.device WHERE {OPEN} AND b.channel = :channel"
        " AND b.submitted_at <= :due AND COALESCE(s.here_since, 0) <= :due AND c.finished = 0 AND c.want IN :*plays"
        " AND SUBSTR(b.states, CAST(c.position + 1 AS INTEGER), 1) = :submitted"
        " AND NOT EXISTS (SELECT 1 FROM fact f WHERE f.batch = c.batch AND f.position = c.position"
        " AND (f.state <> :state OR f.code <> '')) LIMIT :step",
        plays=desired.PLAYS,
        channel=channel,
        submitted=bytes([State.SUBMITTED]),
        state=int(State.SUBMITTED),
        due=due,
        step=STEP,
    )
    return [(batch, position) for batch, position in rows]


def _note_silent(tx: Tx, places: Sequence[Place], now: int) -> None:
    locked = Locked(tx, {batch for batch, _ in places})
    write(tx, locked, [Fact(batch, position, 1, State.UNKNOWN, SILENT, now) for batch, position in places])
    locked.write(tx)


def _over(tx: Tx, plays: int, ends: int) -> list[Place]:
    """Return the next commands whose time is over: each half has its index, for old commands stay for years."""
    rows = tx.all(
        f"SELECT c.batch, c.position FROM batch b JOIN device_command c ON c.batch = b.id WHERE {OPEN}"
        " AND b.deadline <= :plays AND c.finished = 0 AND c.want IN :*wants"
        f" UNION ALL SELECT c.batch, c.position FROM device_command c WHERE {ENDS} AND c.deadline <= :ends LIMIT :step",
        wants=desired.PLAYS,
        plays=plays,
        ends=ends,
        step=STEP,
    )
    return [(batch, position) for batch, position in rows]


def _settle(tx: Tx, places: Sequence[Place], now: int) -> None:
    """Say of each what became of it, and tell nobody of it any more."""
    positions: defaultdict[str, list[int]] = defaultdict(list)
    for batch, position in places:
        positions[batch].append(position)
    locked = Locked(tx, positions.keys())
    facts = []
    for batch, some in positions.items():
        states = locked.states(batch)
        facts += [Fact(batch, at, 1, State.EXPIRED, "expired", now) for at in some if states[at] == State.QUEUED]
        facts += [Fact(batch, at, 1, State.UNKNOWN, SILENT, now) for at in some if states[at] == State.SUBMITTED]
    write(tx, locked, facts)
    locked.write(tx)
    for batch, some in positions.items():
        desired.finish(tx, batch, some, now)
