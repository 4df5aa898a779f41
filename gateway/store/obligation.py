"""What the duty room owes: opened with the fact that asks for it, answered by a person. One row per alert and kind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from gateway.database import Database
from gateway.model import Obligation, Record
from gateway.store import audit
from gateway.store.change import note, note_all
from gateway.store.timer import drop_timer, set_timer, set_timers
from gateway.transaction import Row, Tx, micros, moment

TIMER = "obligation"
ENDS_WITH_ALERT = frozenset({"lapse", "calls", "deputy"})
"""Kinds that nobody has to answer once the alert is over."""
OPEN = (
    "answered_at IS NULL AND (kind NOT IN :*ends OR EXISTS"
    " (SELECT 1 FROM alert WHERE alert.id = obligation.alert AND alert.standing = 'active'))"
)
OPENED = {
    "alert": "text", "kind": "text", "due": "bigint", "opened_at": "bigint", "actor": "text", "answer": "text",
    "remark": "text",
}  # fmt: skip
COLUMNS = "alert, kind, due, opened_at, answered_at, actor, answer, remark"


def timer_name(alert: str, kind: str) -> str:
    """Name of the timer that rings for an obligation."""
    return f"{alert} {kind}"


def open_(tx: Tx, alert: str, owed: Mapping[str, datetime], now: datetime) -> None:
    """Open what is owed (kind → due) inside an operation, unless it stands already; it rings from `due` on."""
    rows = [(alert, kind, micros(due), micros(now), "", "", "") for kind, due in owed.items()]
    for (kind,) in tx.upsert("obligation", OPENED, rows, "DO NOTHING", "kind"):
        set_timer(tx, TIMER, timer_name(alert, kind), owed[kind])
        note(tx, "obligation", alert, kind)


def open_new(tx: Tx, alert: str, owed: Mapping[str, datetime], now: datetime) -> None:
    """Open what is owed because of an alert that is new itself, as `open_` does; nobody waits for an answer."""
    rows = [(alert, kind, micros(due), micros(now), "", "", "") for kind, due in owed.items()]
    tx.insert("obligation", OPENED, rows)
    set_timers(tx, [(TIMER, timer_name(alert, kind), due) for kind, due in owed.items()])
    note_all(tx, [("obligation", alert, kind) for kind in owed])


def open_again(tx: Tx, alert: str, kind: str, now: datetime, due: datetime | None = None) -> None:
    """Open one (due now, unless said), though it was answered before: there is more to do.

    The chain keeps who answered. One that is open is due no later than this.
    """
    tx.run(
        "DELETE FROM obligation WHERE alert = :alert AND kind = :kind AND answered_at IS NOT NULL",
        alert=alert,
        kind=kind,
    )
    due = due or now
    if tx.run(
        "UPDATE obligation SET due = :due WHERE alert = :alert AND kind = :kind AND due > :due",
        alert=alert,
        kind=kind,
        due=micros(due),
    ):
        set_timer(tx, TIMER, timer_name(alert, kind), due)
    open_(tx, alert, {kind: due}, now)


def settle(tx: Tx, alert: str, kind: str, record: Record) -> None:
    """Note inside an operation that what is owed has come about by itself; the chain has what did it."""
    if tx.run(
        "UPDATE obligation SET answered_at = :at, actor = :actor, answer = 'done', remark = ''"
        " WHERE alert = :alert AND kind = :kind AND answered_at IS NULL",
        at=micros(record.at),
        actor=record.actor,
        alert=alert,
        kind=kind,
    ):
        drop_timer(tx, TIMER, timer_name(alert, kind))
        note(tx, "obligation", alert, kind)


class SqlObligations:
    """The facet for obligations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def answer(self, alert: str, kind: str, answer: str, remark: str, record: Record) -> bool:
        """A person has answered; False if it is not open."""

        def operation(tx: Tx) -> bool:
            tx.take_turn()  # or `open_again` in another process would not see that it was just answered
            if not tx.run(
                "UPDATE obligation SET answered_at = :at, actor = :actor, answer = :answer, remark = :remark"
                " WHERE alert = :alert AND kind = :kind AND answered_at IS NULL",
                at=micros(record.at),
                actor=record.actor,
                answer=answer,
                remark=remark,
                alert=alert,
                kind=kind,
            ):
                return False
            drop_timer(tx, TIMER, timer_name(alert, kind))
            audit.append(tx, [record])
            note(tx, "obligation", alert, kind)
            return True

        return await self._database.write(operation, decides=True)

    async def get(self, alert: str, kind: str) -> Obligation | None:
        """One obligation."""
        rows = await self._rows("WHERE alert = :alert AND kind = :kind", alert=alert, kind=kind)
        return rows[0] if rows else None

    async def of(self, alert: str) -> list[Obligation]:
        """All of one alert, by due time."""
        return await self._rows("WHERE alert = :alert ORDER BY due, kind", alert=alert)

    async def since(self, opened: datetime, *, unanswered: bool, limit: int = 500) -> list[Obligation]:
        """Those opened since then, by due time; or, from whenever, all that somebody has still to answer."""
        where = OPEN if unanswered else "opened_at >= :opened"
        tail = f"WHERE {where} ORDER BY due, alert, kind LIMIT :limit"
        return await self._rows(tail, opened=micros(opened), limit=limit, ends=sorted(ENDS_WITH_ALERT))

    async def _rows(self, tail: str, **values: object) -> list[Obligation]:
        rows = await self._database.read(lambda tx: tx.all(f"SELECT {COLUMNS} FROM obligation {tail}", **values))
        return [_obligation(row) for row in rows]


def _obligation(row: Row) -> Obligation:
    alert, kind, due, opened_at, answered_at, actor, answer, remark = row
    answered = moment(answered_at) if answered_at is not None else None
    return Obligation(alert, kind, moment(due), moment(opened_at), answered, actor, answer, remark)
