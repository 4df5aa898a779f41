"""Desired state of devices: what each loudspeaker should be playing or stop playing.

A plan step writes the rows with its batch; a stop turns them; a played or failed report finishes them.
Hubs read them when woken and whenever a device connects; presence is never asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from gateway.database import Database, Tx, micros
from gateway.model import Batch, State
from gateway.ports import Clock
from gateway.store.codec import unpack_batch
from gateway.store.rows import fold_states

TAKE_PATIENCE_S = 2.0
CHUNK = 5000  # device ids per query


class Wanted(NamedTuple):
    """One device's unfinished command."""

    device: int
    alert: str
    batch: str
    position: int
    stop: bool


class Commands:
    """Unfinished commands of devices."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def wanted(self, devices: Collection[int]) -> list[Wanted]:
        """Live, unfinished commands of these devices; nothing expired, halted or of an ended alert but its stops."""
        now = micros(self._clock.now())
        ids = sorted(devices)

        def operation(tx: Tx) -> list[Wanted]:
            if tx.one("SELECT 1 FROM device_command WHERE finished = 0 LIMIT 1") is None:
                return []  # the ordinary hour: thousands of devices cost one look
            rows = []
            for start in range(0, len(ids), CHUNK):
                rows += tx.all(
                    "SELECT c.device, c.alert, c.batch, c.position, c.want FROM device_command c"
                    " JOIN batch b ON b.id = c.batch JOIN alert a ON a.id = c.alert"
                    " WHERE c.finished = 0 AND c.device IN :*ids AND (c.want = 'stop' OR"
                    " (c.deadline > :now AND a.standing = 'active' AND NOT EXISTS"
                    " (SELECT 1 FROM halt WHERE scope IN ('*', b.county, b.channel))))",
                    ids=ids[start : start + CHUNK],
                    now=now,
                )
            return [Wanted(row[0], row[1], row[2], row[3], row[4] == "stop") for row in rows]

        return await self._database.read(operation)

    async def take(self, items: Sequence[Wanted]) -> frozenset[Wanted]:
        """Claim plays before the first byte; return those that may be written. Stops need no claim.

        Whoever is taken stands as submitted: a stop that comes later turns its command, one that came earlier has
        settled it, and there is no moment between.
        """
        at = micros(self._clock.now())

        def operation(tx: Tx) -> frozenset[Wanted]:
            share = " FOR SHARE" if tx.postgresql else ""
            taken: list[Wanted] = []
            for batch in sorted({item.batch for item in items}):
                here = {item.position: item for item in items if item.batch == batch}
                alert = next(iter(here.values())).alert
                row = tx.one(f"SELECT standing FROM alert WHERE id = :alert{share}", alert=alert)
                if row is None or row[0] != "active":
                    continue
                rows = tx.all(
                    "SELECT position FROM device_command WHERE batch = :batch AND finished = 0 AND want = 'play'"
                    " AND deadline > :at AND position IN :*positions",
                    batch=batch,
                    at=at,
                    positions=sorted(here),
                )
                fold_states(tx, batch, [(position, State.SUBMITTED) for (position,) in rows], at)
                taken += [here[position] for (position,) in rows]
            return frozenset(taken)

        return await self._database.write(operation, TAKE_PATIENCE_S)

    async def batch(self, batch: str) -> Batch | None:
        """The frozen batch a command belongs to."""
        row = await self._database.read(lambda tx: tx.one("SELECT body FROM outbox WHERE batch = :b", b=batch))
        return unpack_batch(row[0]) if row else None
