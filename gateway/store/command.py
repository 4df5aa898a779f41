"""Desired state of devices: what each loudspeaker should be playing or stop playing.

A plan step writes the rows with its batch; a stop turns them; a played or failed report finishes them. What repeats
in rounds is hushed once its village has confirmed; see `desired`.
Hubs read them when woken and whenever a device connects; presence is never asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from typing import NamedTuple

from gateway.database import Database
from gateway.model import Batch, State
from gateway.ports import AlertRow, Clock
from gateway.store.around import ask_alerts
from gateway.store.claim import lock_alerts
from gateway.store.codec import alert_of, unpack_batch
from gateway.store.desired import PLAYS
from gateway.store.rows import ASKED, Fold, Locked
from gateway.transaction import Tx, micros

TAKE_PATIENCE_S = 2.0
FEW = 100  # positions that are named in the query; of more, all of their batches are read
STOP, HUSH = "stop", "hush"
FRESH_S = 1.0  # batches written since then come with the first answer; it may be longer ago by another clock
STALE_S = 86_400.0  # so long after a command's deadline a device is still told to stop, and says what it has done
# As in the conditions of two partial indexes: few batches are open, and few stops wait for a device.
OPEN = "b.slice_size = 0 AND b.settled_at IS NULL"
ENDS = "c.finished = 0 AND c.want IN ('hush', 'stop')"
# What these indexes find is looked at first, whatever the planner believes of the tables: it plans once, when they are
# empty perhaps, and would go through all batches of every alert in force.
FEW_BATCHES = f"WITH b AS MATERIALIZED (SELECT * FROM batch b WHERE {OPEN})"
FEW_ENDS = f"WITH c AS MATERIALIZED (SELECT * FROM device_command c WHERE {ENDS} AND c.deadline > :stale)"
RUNNING = "a.standing = 'active' AND b.deadline > :now"
HALTED = "EXISTS (SELECT 1 FROM halt WHERE scope IN ('*', b.county, b.channel))"
# A body for each row, and no join: whatever the planner believes of the tables, there are few rows.
FRESH = (
    "SELECT b.id, (SELECT o.body FROM outbox o WHERE o.batch = b.id) FROM batch b"
    f" WHERE {OPEN} AND b.created_at >= :fresh"
)
TAKEN = (
    "SELECT c.batch, c.position FROM device_command c JOIN batch b ON b.id = c.batch JOIN alert a ON a.id = c.alert"
    " WHERE c.batch IN :*batches AND c.finished = 0 AND c.want IN :*plays AND c.deadline > :at"
    f" AND a.standing = 'active' AND NOT {HALTED}"
)


class Wanted(NamedTuple):
    """One device's unfinished command to fall silent: `STOP` or `HUSH`."""

    device: int
    alert: str
    batch: str
    position: int
    want: str


class Open(NamedTuple):
    """Batches with plays that may still be wanted, unfinished stops and hushes; of those not yet known, all of it."""

    plays: list[str]
    ends: list[Wanted]
    batches: dict[str, Batch]
    alerts: list[AlertRow]


def _completed(
    tx: Tx, new: Set[str], batches: dict[str, Batch], alerts: list[AlertRow]
) -> tuple[dict[str, Batch], list[AlertRow]]:
    """Return the new batches and the alerts they are of; what is lacking is asked for."""
    lacking = sorted(new - batches.keys())
    unknown = {alert_of(batch) for batch in new} - {row.alert.id for row in alerts}
    if not unknown and not lacking:
        return batches, alerts
    parts = [lacking[start : start + ASKED] for start in range(0, len(lacking), ASKED)]
    with tx.together():
        bodies = [tx.ask("SELECT batch, body FROM outbox WHERE batch IN :*part", part=part) for part in parts]
        older = ask_alerts(tx, "WHERE id IN :*alerts", alerts=sorted(unknown))
    found = {batch: unpack_batch(body) for answer in bodies for batch, body in answer()}
    return batches | found, alerts + older()


class Commands:
    """Unfinished commands of devices."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def open(self, known: Collection[str] = ()) -> Open:
        """What is live and unfinished; nothing expired, halted or of an ended alert but its stops.

        Batches that are not `known` come with their alerts: more questions would be more waits before the first byte.
        """
        now, known = micros(self._clock.now()), frozenset(known)

        def operation(tx: Tx) -> Open:
            with tx.together():
                open_ = tx.ask(
                    f"{FEW_BATCHES} SELECT b.id FROM b JOIN alert a ON a.id = b.alert"
                    f" WHERE {RUNNING} AND NOT {HALTED} ORDER BY b.created_at, b.id",
                    now=now,
                )
                ending = tx.ask(
                    f"{FEW_ENDS} SELECT c.device, c.alert, c.batch, c.position, c.want FROM c"
                    " JOIN batch b ON b.id = c.batch JOIN alert a ON a.id = c.alert"
                    f" WHERE c.want = '{STOP}' OR ({RUNNING})",
                    now=now,
                    stale=now - round(STALE_S * 1e6),
                )
                fresh = now - round(FRESH_S * 1e6)
                bodies = tx.ask(FRESH, fresh=fresh)
                alerts = ask_alerts(tx, "WHERE standing = 'active' AND accepted_at >= :fresh", fresh=fresh)
            plays = [batch for (batch,) in open_()]
            ends = [Wanted(*row) for row in ending()]
            new = {*plays, *(one.batch for one in ends)}.difference(known)
            batches = {batch: unpack_batch(body) for batch, body in bodies() if batch in new}
            told = {alert_of(batch) for batch in new}
            rows = [row for row in alerts() if row.alert.id in told] if batches else []
            return Open(plays, ends, *_completed(tx, new, batches, rows))

        return await self._database.read(operation)

    async def take(self, wanted: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """Claim plays (batch → positions) before the first byte; return those that may be written.

        Whoever is taken stands as submitted: a stop that comes later turns its command, one that came earlier has
        settled it, and there is no moment between.
        """
        asked = {batch: frozenset(positions) for batch, positions in wanted.items()}
        every = sorted(frozenset().union(*asked.values()))
        few = len(every) < FEW

        def operation(tx: Tx) -> dict[str, list[int]]:
            at = micros(self._clock.now())
            lock_alerts(tx, {alert_of(batch) for batch in wanted})
            taken: dict[str, list[int]] = {batch: [] for batch in wanted}
            sql = f"{TAKEN} AND c.position IN :*positions" if few else TAKEN
            places = {"batches": sorted(wanted), "plays": PLAYS} | ({"positions": every} if few else {})
            found = tx.ask(f"{sql} ORDER BY c.batch, c.position", at=at, **places)
            locked = Locked(tx, wanted)
            for batch, position in found():
                if position in asked[batch]:
                    taken[batch].append(position)
            for batch, positions in taken.items():
                locked.fold(Fold(batch, [(position, State.SUBMITTED) for position in positions], at))
            locked.write(tx)
            return taken

        return await self._database.write(operation, TAKE_PATIENCE_S)
