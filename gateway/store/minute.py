"""Encrypted notes with names in them: telephone authorisations and consultations. Opened only through the vault."""

from __future__ import annotations

from gateway.database import Database
from gateway.model import Minute, Record
from gateway.store import audit
from gateway.transaction import Tx, micros, moment


def add(tx: Tx, alert: str, minute: Minute) -> None:
    """Add one note inside an operation."""
    row = tx.one("SELECT COALESCE(MAX(number), 0) FROM minute WHERE alert = :alert", alert=alert)
    tx.run(
        "INSERT INTO minute (alert, number, kind, actor, at, secret)"
        " VALUES (:alert, :number, :kind, :actor, :at, :secret)",
        alert=alert,
        number=int(row[0]) + 1 if row else 1,
        kind=minute.kind,
        actor=minute.actor,
        at=micros(minute.at),
        secret=minute.secret,
    )


class SqlMinutes:
    """The facet for notes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, alert: str, minute: Minute, record: Record) -> None:
        """Add one note, and the record that it was made."""

        def operation(tx: Tx) -> None:
            add(tx, alert, minute)
            audit.append(tx, [record])

        await self._database.write(operation)

    async def of(self, alert: str) -> list[Minute]:
        """Notes on one alert (or emergency regime), oldest first."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT kind, actor, at, secret FROM minute WHERE alert = :alert ORDER BY number", alert=alert
            )
        )
        return [Minute(kind, actor, moment(at), bytes(secret)) for kind, actor, at, secret in rows]
