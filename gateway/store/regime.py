"""The emergency regime 紧急发布: where it is in force, who started it, until when (D8)."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from gateway.database import Database
from gateway.model import Minute, Record
from gateway.store import audit, minute, obligation
from gateway.store.change import note
from gateway.store.timer import drop_timer, set_timer
from gateway.transaction import Row, Tx, micros, moment

TIMER = "regime"
COLUMNS = "id, area, issuer, actor, reason, started_at, until, renewed, ended_at, ended_by"


class Regime(NamedTuple):
    """One regime over a code prefix."""

    id: str
    area: str
    issuer: str
    actor: str
    reason: str
    started_at: datetime
    until: datetime
    renewed: int = 0
    ended_at: datetime | None = None
    ended_by: str = ""


def in_force(tx: Tx, now: datetime) -> list[Regime]:
    """Those in force now, inside an operation."""
    rows = tx.all(
        f"SELECT {COLUMNS} FROM regime WHERE ended_at IS NULL AND until > :now ORDER BY started_at", now=micros(now)
    )
    return [_regime(row) for row in rows]


class SqlRegimes:
    """The facet for emergency regimes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self, regime: Regime, record: Record, review_due: datetime, told: Minute | None = None) -> bool:
        """Start one, with the review it will owe; False if one is in force over this very area."""

        def operation(tx: Tx) -> bool:
            tx.take_turn()  # two who start it at once: the second one sees the first
            if any(one.area == regime.area for one in in_force(tx, regime.started_at)):
                return False
            tx.run(
                f"INSERT INTO regime ({COLUMNS}) VALUES"
                " (:id, :area, :issuer, :actor, :reason, :started, :until, 0, NULL, '')",
                id=regime.id,
                area=regime.area,
                issuer=regime.issuer,
                actor=regime.actor,
                reason=regime.reason,
                started=micros(regime.started_at),
                until=micros(regime.until),
            )
            set_timer(tx, TIMER, regime.id, regime.until)
            obligation.open_(tx, regime.id, {"emergency_review": review_due}, regime.started_at)
            if told is not None:
                minute.add(tx, regime.id, told)
            audit.append(tx, [record])
            note(tx, "regime", "", regime.id)
            return True

        return await self._database.write(operation)

    async def renew(self, regime: str, until: datetime, record: Record, told: Minute | None = None) -> bool:
        """Prolong one; False if it has ended, by its time or by a person."""

        def operation(tx: Tx) -> bool:
            if not tx.run(
                "UPDATE regime SET until = :until, renewed = renewed + 1"
                " WHERE id = :id AND ended_at IS NULL AND until > :now",
                until=micros(until),
                id=regime,
                now=micros(record.at),
            ):
                return False
            set_timer(tx, TIMER, regime, until)
            if told is not None:
                minute.add(tx, regime, told)
            audit.append(tx, [record])
            note(tx, "regime", "", regime)
            return True

        return await self._database.write(operation)

    async def end(self, regime: str, record: Record, *, lapsed: bool = False) -> bool:
        """End one; False if it has ended. `lapsed`: only if its time is over, for somebody may just have renewed it."""

        def operation(tx: Tx) -> bool:
            if not tx.run(
                "UPDATE regime SET ended_at = :at, ended_by = :actor WHERE id = :id AND ended_at IS NULL"
                + (" AND until <= :at" if lapsed else ""),
                at=micros(record.at),
                actor=record.actor,
                id=regime,
            ):
                return False
            drop_timer(tx, TIMER, regime)
            audit.append(tx, [record])
            note(tx, "regime", "", regime)
            return True

        return await self._database.write(operation)

    async def get(self, regime: str) -> Regime | None:
        """One regime."""
        return next(iter(await self._rows("WHERE id = :id", id=regime)), None)

    async def in_force(self, now: datetime) -> list[Regime]:
        """Those in force now, whether or not their end has been noted."""
        return await self._database.read(lambda tx: in_force(tx, now))

    async def all(self, limit: int = 100) -> list[Regime]:
        """All, newest first."""
        return await self._rows("ORDER BY started_at DESC LIMIT :limit", limit=limit)

    async def _rows(self, tail: str, **values: object) -> list[Regime]:
        rows = await self._database.read(lambda tx: tx.all(f"SELECT {COLUMNS} FROM regime {tail}", **values))
        return [_regime(row) for row in rows]


def _regime(row: Row) -> Regime:
    id_, area, issuer, actor, reason, started, until, renewed, ended, ended_by = row
    over = moment(ended) if ended is not None else None
    return Regime(id_, area, issuer, actor, reason, moment(started), moment(until), renewed, over, ended_by)
