"""One table of what is due: expiry, review clock, gaps, lapse questions. Schedulers take rows; each row goes to one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from gateway.database import Database
from gateway.ports import Clock
from gateway.transaction import Tx, micros

TIMER = {"kind": "text", "name": "text", "due": "bigint"}
DROP = "DELETE FROM timer WHERE kind = :kind AND name = :name"
HANDLING = timedelta(seconds=30)


def set_timer(tx: Tx, kind: str, name: str, due: datetime) -> None:
    """Set or move a timer inside an operation."""
    set_timers(tx, [(kind, name, due)])


def set_timers(tx: Tx, timers: Iterable[tuple[str, str, datetime]]) -> None:
    """Set or move timers (kind, name, due) inside an operation; no two of one kind and name."""
    rows = [(kind, name, micros(due)) for kind, name, due in timers]
    tx.upsert("timer", TIMER, rows, "(kind, name) DO UPDATE SET due = excluded.due")


def drop_timer(tx: Tx, kind: str, name: str) -> None:
    """Forget a timer inside an operation."""
    tx.send(DROP, kind=kind, name=name)


class SqlTimers:
    """The `Timers` facet."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def set(self, kind: str, key: str, due: datetime) -> None:
        """Set or move a timer."""
        await self._database.write(lambda tx: set_timer(tx, kind, key, due))

    async def take(self, limit: int) -> list[tuple[str, str]]:
        """Take up to `limit` due timers; each goes to one caller, who has 30 s before another may take it."""
        now = self._clock.now()

        def operation(tx: Tx) -> list[tuple[str, str]]:
            skip = " FOR UPDATE SKIP LOCKED" if tx.postgresql else ""
            due = tx.all(
                "UPDATE timer SET due = :later WHERE (kind, name) IN"
                f" (SELECT kind, name FROM timer WHERE due <= :now ORDER BY due LIMIT :limit{skip})"
                " RETURNING kind, name",
                now=micros(now),
                later=micros(now + HANDLING),
                limit=limit,
            )
            return [(kind, name) for kind, name in due]

        return await self._database.write(operation)

    async def handled(self, timers: Sequence[tuple[str, str, datetime | None]]) -> None:
        """Note of each (kind, key) when it is due again; None: it is forgotten."""
        done = [{"kind": kind, "name": key} for kind, key, again in timers if again is None]
        again = [(kind, key, due) for kind, key, due in timers if due is not None]

        def operation(tx: Tx) -> None:
            tx.many(DROP, done)
            set_timers(tx, again)

        if timers:
            await self._database.write(operation)

    async def done(self, kind: str, key: str) -> None:
        """Forget a timer that was handled."""
        await self._database.write(lambda tx: drop_timer(tx, kind, key))
