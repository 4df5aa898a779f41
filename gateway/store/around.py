"""What bears on a message that has just come in, read in one go: every acceptance asks for it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from gateway.database import Row, Tx, micros, moment
from gateway.model import Alert, Level, Status
from gateway.ports import AlertRow
from gateway.standing import LIVE, Standing
from gateway.store.codec import unpack_alert, unpack_plan
from gateway.store.regime import Regime, in_force

ALERT_COLUMNS = "body, plan, standing, reason, issuer, accepted_at, revision"
SUCCESSORS = (
    "WHERE id IN (SELECT alert FROM reference WHERE sender = :sender AND identifier = :identifier)"
    " ORDER BY accepted_at DESC, id DESC"
)
ALIKE = 5  # more of the same within minutes say nothing new


class Around(NamedTuple):
    """`opposite`: for a real warning the drills it would meet, for a drill the real oranges and reds in force."""

    known: bool
    later: list[AlertRow]
    alike: list[AlertRow]
    opposite: list[AlertRow]
    issued: int
    regimes: list[Regime]


def alert_row(row: Row) -> AlertRow:
    """Return a row of `ALERT_COLUMNS` as it is stored."""
    body, plan, standing, reason, issuer, accepted_at, revision = row
    return AlertRow(unpack_alert(body), unpack_plan(plan), standing, reason, issuer, moment(accepted_at), revision)


def alert_rows(tx: Tx, tail: str, **values: object) -> list[AlertRow]:
    """Return alerts by the rest of a SELECT."""
    return [alert_row(row) for row in tx.all(f"SELECT {ALERT_COLUMNS} FROM alert {tail}", **values)]


def around(tx: Tx, alert: Alert, likeness: str, now: datetime, alike_since: datetime, issued_since: datetime) -> Around:
    """Read it; `alike_since` and `issued_since` bound how far back one looks."""
    key = {"sender": alert.sender, "identifier": alert.identifier}
    known = tx.one("SELECT 1 FROM alert WHERE sender = :sender AND identifier = :identifier", **key)
    issued = tx.one(
        "SELECT COUNT(*) FROM alert WHERE sender = :sender AND accepted_at >= :since",
        sender=alert.sender,
        since=micros(issued_since),
    )
    alike = likeness and alert_rows(
        tx,
        "WHERE likeness = :likeness AND accepted_at >= :since AND standing = :active"
        f" ORDER BY accepted_at DESC LIMIT {ALIKE}",
        likeness=likeness,
        since=micros(alike_since),
        active=Standing.ACTIVE,
    )
    if alert.actual:
        opposite = alert_rows(
            tx, "WHERE status <> :actual AND standing IN :*live", actual=Status.ACTUAL, live=sorted(LIVE)
        )
    else:
        opposite = alert_rows(
            tx,
            "WHERE status = :actual AND standing = :active AND level >= :level",
            actual=Status.ACTUAL,
            active=Standing.ACTIVE,
            level=int(Level.ORANGE),
        )
    later = alert_rows(tx, SUCCESSORS, **key)
    return Around(known is not None, later, alike or [], opposite, int(issued[0]) if issued else 0, in_force(tx, now))
