"""Loudspeakers that say nothing of what they were told, and commands whose time is over.

Whoever was commanded and has said nothing for the channel's `report_s` is UNKNOWN, code `silent`: its village is a gap
that shows. The command stays, so that a device that comes back in time still plays, and whatever it says then beats it.
Past its deadline a play is settled, and nobody is told any more; a stop stands for a day longer, for a device that was
cut off with its clock wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from functools import partial

from gateway import metrics
from gateway.database import Database, Tx, micros
from gateway.model import State
from gateway.ports import Clock
from gateway.store import desired
from gateway.store.fact import Fact, write
from gateway.store.rows import Locked

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
            silent = partial(_silent, channel=channel, due=micros(now - wait), now=micros(now))
            number = STEP
            while number == STEP:
                number = await self._database.write(silent, 5.0)
                metrics.silent_recipients.labels(channel).inc(number)
        over = partial(_over, plays=micros(now - GRACE), ends=micros(now - STOPPED), now=micros(now))
        while await self._database.write(over, 5.0) == STEP:
            continue


def _silent(tx: Tx, channel: str, due: int, now: int) -> int:
    """Take the next devices that have said nothing since they were commanded; return how many."""
    rows = tx.all(
        "SELECT c.batch, c.position FROM device_command c JOIN batch b ON b.id = c.batch"
        " JOIN fact f ON f.batch = c.batch AND f.position = c.position"
        " WHERE c.finished = 0 AND c.want NOT IN :*ends AND b.channel = :channel GROUP BY c.batch, c.position"
        " HAVING MAX(f.state) = :submitted AND MAX(f.code) = '' AND MIN(f.at) <= :due LIMIT :step",
        plays=desired.PLAYS,
        channel=channel,
        submitted=int(State.SUBMITTED),
        due=due,
        step=STEP,
    )
    if rows:
        locked = Locked(tx, {batch for batch, _ in rows})
        write(tx, locked, [Fact(batch, position, 1, State.UNKNOWN, SILENT, now) for batch, position in rows])
        locked.write(tx)
    return len(rows)


def _over(tx: Tx, plays: int, ends: int, now: int) -> int:
    """Settle the next commands whose time is over; return how many."""
    rows = tx.all(
        "SELECT batch, position FROM device_command WHERE finished = 0"
        " AND (deadline <= :last OR (deadline <= :plays AND want NOT IN :*ends)) LIMIT :step",
        wants=desired.PLAYS,
        plays=plays,
        last=ends,
        step=STEP,
    )
    positions: defaultdict[str, list[int]] = defaultdict(list)
    for batch, position in rows:
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
    return len(rows)
