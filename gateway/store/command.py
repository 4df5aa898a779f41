"""Desired state of devices: what each loudspeaker should be playing or stop playing.

A plan step writes the rows with its batch; a stop turns them; a played or failed report finishes them. What repeats
in rounds is hushed once its village has confirmed; see `desired`.
Hubs read them when woken and whenever a device connects; presence is never asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from gateway.database import Database, Row, Tx, micros
from gateway.model import Batch, State
from gateway.ports import Clock
from gateway.store.codec import unpack_batch
from gateway.store.desired import PLAYS
from gateway.store.rows import fold_states

TAKE_PATIENCE_S = 2.0
CHUNK = 5000  # device ids per query
FEW = 1000  # open commands: below it only their devices are asked about


class Wanted(NamedTuple):
    """One device's unfinished command."""

    device: int
    alert: str
    batch: str
    position: int
    stop: bool
    hush: bool = False


class Open(NamedTuple):
    """Unfinished commands, and the frozen batches they belong to, as far as they were not known."""

    items: list[Wanted]
    batches: dict[str, Batch]


class Commands:
    """Unfinished commands of devices."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def wanted(self, devices: Collection[int], known: Collection[str] = ()) -> Open:
        """Live, unfinished commands of these devices; nothing expired, halted or of an ended alert but its stops.

        Batches that are not `known` come with them: another question would be another wait before the first byte.
        """
        now = micros(self._clock.now())

        def operation(tx: Tx) -> Open:
            # The ordinary hour: thousands of devices cost one look into a small index; so do a few broken ones.
            some = tx.all("SELECT device FROM device_command WHERE finished = 0 LIMIT :few", few=FEW)
            ids = sorted({row[0] for row in some}.intersection(devices) if len(some) < FEW else devices)
            rows: list[Row] = []
            for start in range(0, len(ids), CHUNK):
                rows += tx.all(
                    "SELECT c.device, c.alert, c.batch, c.position, c.want FROM device_command c"
                    " JOIN batch b ON b.id = c.batch JOIN alert a ON a.id = c.alert"
                    " WHERE c.finished = 0 AND c.device IN :*ids AND (c.want = 'stop' OR"
                    " (c.deadline > :now AND a.standing = 'active' AND (c.want = 'hush' OR NOT EXISTS"
                    " (SELECT 1 FROM halt WHERE scope IN ('*', b.county, b.channel)))))",
                    ids=ids[start : start + CHUNK],
                    now=now,
                )
            items = [
                Wanted(device, alert, batch, position, want == "stop", want == "hush")
                for device, alert, batch, position, want in rows
            ]
            new = sorted({item.batch for item in items}.difference(known))
            found = tx.all("SELECT batch, body FROM outbox WHERE batch IN :*new", new=new) if new else []
            return Open(items, {batch: unpack_batch(body) for batch, body in found})

        return await self._database.read(operation)

    async def take(self, items: Sequence[Wanted]) -> frozenset[Wanted]:
        """Claim plays before the first byte; return those that may be written. Stops need no claim.

        Whoever is taken stands as submitted: a stop that comes later turns its command, one that came earlier has
        settled it, and there is no moment between.
        """
        batches: dict[str, dict[int, Wanted]] = {}
        for item in items:
            batches.setdefault(item.batch, {})[item.position] = item

        def operation(tx: Tx) -> frozenset[Wanted]:
            at = micros(self._clock.now())
            return frozenset(item for batch in sorted(batches) for item in _take(tx, batch, batches[batch], at))

        return await self._database.write(operation, TAKE_PATIENCE_S)


def _take(tx: Tx, batch: str, items: Mapping[int, Wanted], at: int) -> list[Wanted]:
    """Take the commands of one batch at these positions; none of a stop or a halt that came first."""
    # A stop locks its alert too: it stands either before this transaction or behind it.
    share = " FOR SHARE OF a" if tx.postgresql else ""
    if not tx.all(
        "SELECT 1 FROM alert a JOIN batch b ON b.alert = a.id WHERE b.id = :batch AND a.standing = 'active'"
        f" AND NOT EXISTS (SELECT 1 FROM halt WHERE scope IN ('*', b.county, b.channel)){share}",
        batch=batch,
    ):
        return []
    rows = tx.all(
        "SELECT position FROM device_command WHERE batch = :batch AND finished = 0 AND want IN :*plays"
        " AND deadline > :at AND position IN :*positions",
        batch=batch,
        plays=PLAYS,
        at=at,
        positions=sorted(items),
    )
    fold_states(tx, batch, [(position, State.SUBMITTED) for (position,) in rows], at)
    return [items[position] for (position,) in rows]
