"""Desired state of devices: what each loudspeaker should be playing or stop playing.

A plan step writes the rows with its batch; a stop turns them; a played or failed report finishes them. What repeats
in rounds is hushed once its village has confirmed; see `desired`.
Hubs read them when woken and whenever a device connects; presence is never asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from gateway.database import Database, Tx, micros
from gateway.model import Batch, State
from gateway.ports import Clock
from gateway.store.codec import unpack_batch
from gateway.store.desired import PLAYS
from gateway.store.rows import ASKED, fold_states

TAKE_PATIENCE_S = 2.0
FEW = 100  # positions that are named in the query; of more, all of the batch are read
STOP, HUSH = "stop", "hush"
STALE_S = 86_400.0  # so long after a command's deadline a device is still told to stop, and says what it has done
# As in the conditions of two partial indexes: few batches are open, and few stops wait for a device.
OPEN = "b.slice_size = 0 AND b.settled_at IS NULL"
ENDS = "c.finished = 0 AND c.want IN ('hush', 'stop')"
RUNNING = "a.standing = 'active' AND b.deadline > :now"
HALTED = "EXISTS (SELECT 1 FROM halt WHERE scope IN ('*', b.county, b.channel))"


class Wanted(NamedTuple):
    """One device's unfinished command to fall silent: `STOP` or `HUSH`."""

    device: int
    alert: str
    batch: str
    position: int
    want: str


class Open(NamedTuple):
    """Batches with plays that may still be wanted, unfinished stops and hushes, and those batches not yet known."""

    plays: list[str]
    ends: list[Wanted]
    batches: dict[str, Batch]


class Commands:
    """Unfinished commands of devices."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def open(self, known: Collection[str] = ()) -> Open:
        """What is live and unfinished; nothing expired, halted or of an ended alert but its stops.

        Batches that are not `known` come with them: another question would be another wait before the first byte.
        """
        now, known = micros(self._clock.now()), frozenset(known)

        def operation(tx: Tx) -> Open:
            rows = tx.all(
                f"SELECT b.id FROM batch b JOIN alert a ON a.id = b.alert WHERE {OPEN} AND {RUNNING} AND NOT {HALTED}"
                " ORDER BY b.created_at, b.id",
                now=now,
            )
            plays = [batch for (batch,) in rows]
            ends = [
                Wanted(*row)
                for row in tx.all(
                    "SELECT c.device, c.alert, c.batch, c.position, c.want FROM device_command c"
                    f" JOIN batch b ON b.id = c.batch JOIN alert a ON a.id = c.alert WHERE {ENDS}"
                    f" AND c.deadline > :stale AND (c.want = '{STOP}' OR ({RUNNING}))",
                    now=now,
                    stale=now - round(STALE_S * 1e6),
                )
            ]
            new = sorted({*plays, *(one.batch for one in ends)}.difference(known))
            found = [
                row
                for start in range(0, len(new), ASKED)
                for row in tx.all("SELECT batch, body FROM outbox WHERE batch IN :*new", new=new[start : start + ASKED])
            ]
            return Open(plays, ends, {batch: unpack_batch(body) for batch, body in found})

        return await self._database.read(operation)

    async def take(self, wanted: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """Claim plays (batch → positions) before the first byte; return those that may be written.

        Whoever is taken stands as submitted: a stop that comes later turns its command, one that came earlier has
        settled it, and there is no moment between.
        """

        def operation(tx: Tx) -> dict[str, list[int]]:
            at = micros(self._clock.now())
            return {batch: _take(tx, batch, wanted[batch], at) for batch in sorted(wanted)}

        return await self._database.write(operation, TAKE_PATIENCE_S)


def _take(tx: Tx, batch: str, positions: Sequence[int], at: int) -> list[int]:
    """Take the commands of one batch at these positions; none of a stop or a halt that came first."""
    # A stop locks its alert too: it stands either before this transaction or behind it.
    share = " FOR SHARE OF a" if tx.postgresql else ""
    if not tx.all(
        f"SELECT 1 FROM alert a JOIN batch b ON b.alert = a.id WHERE b.id = :batch AND a.standing = 'active'"
        f" AND NOT {HALTED}{share}",
        batch=batch,
    ):
        return []
    few = " AND position IN :*positions" if len(positions) < FEW else ""
    rows = tx.all(
        "SELECT position FROM device_command WHERE batch = :batch AND finished = 0 AND want IN :*plays"
        f" AND deadline > :at{few} ORDER BY position",
        batch=batch,
        plays=PLAYS,
        at=at,
        **({"positions": positions} if few else {}),
    )
    asked = frozenset(positions)
    taken = [position for (position,) in rows if position in asked]
    fold_states(tx, batch, [(position, State.SUBMITTED) for position in taken], at)
    return taken
