"""Which national number each public actual alert carries (D22). One row per alert, from the moment it goes out."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from gateway.cap import Number
from gateway.database import Database
from gateway.model import Alert, Record
from gateway.ports import AlertRow
from gateway.store import audit
from gateway.store.around import ALERT_COLUMNS, alert_row
from gateway.store.change import note
from gateway.transaction import Row, Tx, micros, moment

COLUMNS = "n.alert, n.number, n.how, n.since, n.matched_at"


class Numbered(NamedTuple):
    """`number` is "" while pending. `how` it was found: identifier, person, listing or message."""

    alert: str
    number: str
    how: str
    since: datetime
    matched_at: datetime | None

    @property
    def pending(self) -> bool:
        """Whether the platform's number is not known yet."""
        return not self.number


class Match(StrEnum):
    """What became of a number for an alert."""

    MATCHED = "matched"
    KNOWN = "known"  # it has this number already
    OTHER = "other"  # it has another one
    TAKEN = "taken"  # another alert has this one
    NOT_DUE = "not_due"  # it has not gone out, or is not public and actual


def is_due(alert: Alert) -> bool:
    """Whether the platform must know of it: every public actual alert (one unified mouth)."""
    return alert.actual and alert.public


def expect(tx: Tx, alert: Alert, now: datetime) -> None:
    """Note, as it goes out, that an alert needs a number; one that is written as its identifier is its own."""
    if not is_due(alert):
        return
    own = alert.identifier if Number.of(alert.identifier) and not _holder(tx, alert.identifier, alert.id) else ""
    tx.send(
        "INSERT INTO national (alert, number, how, since, matched_at) VALUES (:alert, :number, :how, :now, :matched)"
        " ON CONFLICT DO NOTHING",
        alert=alert.id,
        number=own,
        how="identifier" if own else "",
        now=micros(now),
        matched=micros(now) if own else None,
    )


def _holder(tx: Tx, number: str, but: str) -> str:
    """Return the id of another alert that has this number, with or without its sequence."""
    wanted = Number.of(number)
    assert wanted is not None
    tx.take_turn()
    base = "_".join(number.split("_")[:2])
    rows = tx.all(
        "SELECT alert, number FROM national WHERE number IN :*forms",
        forms=[base, *(f"{base}_{sequence}" for sequence in range(10))],
    )
    same = (row[0] for row in rows if (found := Number.of(row[1])) and found.same(wanted) and row[0] != but)
    return str(next(same, ""))


class SqlNational:
    """The facet for national numbers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, alert: str) -> Numbered | None:
        """The row of one alert; None where no number is due."""
        rows = await self._database.read(
            lambda tx: tx.all(f"SELECT {COLUMNS} FROM national n WHERE n.alert = :alert", alert=alert)
        )
        return _numbered(rows[0]) if rows else None

    async def match(self, alert: str, number: str, how: str, record: Record, *, replace: bool = False) -> Match:
        """Give an alert its number, and note who found it; `replace` puts right what was wrong."""

        def operation(tx: Tx) -> Match:
            tx.take_turn()
            row = tx.one("SELECT number FROM national WHERE alert = :alert", alert=alert)
            if row is None:
                return Match.NOT_DUE
            if row[0] == number:
                return Match.KNOWN
            if _holder(tx, number, alert):
                return Match.TAKEN
            if row[0] and not replace:
                return Match.OTHER
            tx.run(
                "UPDATE national SET number = :number, how = :how, matched_at = :at WHERE alert = :alert",
                number=number,
                how=how,
                at=micros(record.at),
                alert=alert,
            )
            audit.append(tx, [record])
            note(tx, "national", alert)
            return Match.MATCHED

        return await self._database.write(operation, decides=True)

    async def sent_between(self, since: datetime, until: datetime) -> list[tuple[AlertRow, Numbered]]:
        """Public actual alerts that went out, sent from `since` to before `until`, oldest first."""
        rows = await self._database.read(
            lambda tx: tx.all(
                f"SELECT {COLUMNS}, {ALERT_COLUMNS} FROM national n JOIN alert ON alert.id = n.alert"
                " WHERE sent >= :since AND sent < :until ORDER BY sent, id",
                since=micros(since),
                until=micros(until),
            )
        )
        return [(alert_row(row[5:]), _numbered(row[:5])) for row in rows]


def _numbered(row: Row) -> Numbered:
    alert, number, how, since, matched_at = row
    return Numbered(alert, number, how, moment(since), moment(matched_at) if matched_at is not None else None)
