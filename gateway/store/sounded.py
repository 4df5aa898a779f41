"""Alarms that villages have sounded by themselves, from the button at the loudspeaker (D13).

Each is kept once, by device and the device's own number of it, however often it is told. The first one of a device
rings in the duty room until somebody has decided; further ones of the same device meanwhile ring no second bell. While
it rings, what the device sounds within a minute of its last one is the same alarm: counted in the audit chain, no row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from gateway import metrics
from gateway.database import Database
from gateway.model import DeviceEvent, Record
from gateway.ports import Clock
from gateway.store import noted
from gateway.store.device import places_below
from gateway.store.obligation import open_
from gateway.transaction import Row, Tx, micros, moment

KIND = "village_alarm"  # of its obligation
PATIENCE_S = 5.0
SHOWN = (
    "SELECT v.id, d.name, v.village, v.at FROM village_alarm v JOIN device d ON d.id = v.device"
)  # fmt: skip


class Sounded(NamedTuple):
    """A village alarm, and when we heard of it: the village's clock may be wrong."""

    id: str
    speaker: str
    village: str
    at: datetime


class SqlSounded:
    """The facet for village alarms."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def keep(self, events: Sequence[DeviceEvent]) -> int:
        """Write alarms; return how many were new.

        Raises:
            StoreDown: not written; the device tells it again.
        """
        now = self._clock.now()
        new = await self._database.write(
            lambda tx: sum(_keep(tx, one, now) for one in events), PATIENCE_S, decides=True
        )
        metrics.village_alarms.inc(new)
        return new

    async def get(self, id_: str) -> Sounded | None:
        """One alarm."""
        return next(iter(await self._rows("WHERE v.id = :id", id=id_)), None)

    async def recent(self, areas: Collection[str], since: datetime, limit: int) -> list[Sounded]:
        """Those of villages below any of these codes: those since then and, from whenever, what nobody has decided on.

        However often one device rings: what still waits for an answer is not pushed off the page.
        """
        places, values = places_below(areas, "v.village")
        waits = "EXISTS (SELECT 1 FROM obligation o WHERE o.alert = v.id AND o.kind = :kind AND o.answered_at IS NULL)"
        found = await self._rows(
            f"WHERE {places} AND (v.at >= :since OR {waits})"
            f" ORDER BY CASE WHEN {waits} THEN 0 ELSE 1 END, v.at DESC, v.id LIMIT :limit",
            since=micros(since),
            kind=KIND,
            limit=limit,
            **values,
        )
        return sorted(found, key=lambda one: one.at, reverse=True)

    async def _rows(self, tail: str, **values: object) -> list[Sounded]:
        rows = await self._database.read(lambda tx: tx.all(f"{SHOWN} {tail}", **values))
        return [_sounded(row) for row in rows]


def _sounded(row: Row) -> Sounded:
    id_, speaker, village, at = row
    return Sounded(id_, speaker, village, moment(at))


def _again(tx: Tx, event: DeviceEvent, now: datetime) -> bool:
    """Whether the device has sounded another one just before."""
    sql = "SELECT 1 FROM village_alarm WHERE device = :device AND code <> :code AND at > :before AND at <= :now LIMIT 1"
    before = micros(now - noted.MINUTE)
    return tx.one(sql, device=event.device, code=event.code, before=before, now=micros(now)) is not None


def _keep(tx: Tx, event: DeviceEvent, now: datetime) -> int:
    """Write one inside an operation; 0 if it is known, or of no device."""
    record = Record(now, noted.ACTOR, KIND, str(event.device))
    rings = tx.one(
        "SELECT 1 FROM village_alarm v JOIN obligation o ON o.alert = v.id AND o.kind = :kind"
        " WHERE v.device = :device AND o.answered_at IS NULL",
        kind=KIND,
        device=event.device,
    )
    if rings is not None and _again(tx, event, now):
        noted.note(tx, [(event.device, record)])
        return 0
    id_ = hashlib.blake2b(f"{event.device}\0{event.code}".encode(), digest_size=10).hexdigest()
    added = tx.run(
        "INSERT INTO village_alarm (id, device, code, village, at)"
        " SELECT :id, id, :code, village, :at FROM device WHERE id = :device ON CONFLICT DO NOTHING",
        id=id_,
        device=event.device,
        code=event.code,
        at=micros(event.at),
    )
    if added:
        noted.note(tx, [(event.device, replace(record, subject=id_, detail=str(event.device)))])
        if rings is None:
            open_(tx, id_, {KIND: now}, now)
    return added
