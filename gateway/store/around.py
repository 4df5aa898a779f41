"""What bears on a message that has just come in, read in one go: every acceptance asks for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from gateway.model import Alert, Document, Level, Status
from gateway.ports import AlertRow
from gateway.standing import LIVE, Standing
from gateway.store.codec import unpack_alert, unpack_plan
from gateway.store.regime import Regime, in_force
from gateway.transaction import Row, Tx, micros, moment

ALERT_COLUMNS = (
    "body, plan, standing, reason, issuer, accepted_at, revision,"
    " (SELECT number FROM national WHERE national.alert = alert.id)"
)
SUCCESSORS = (
    "WHERE id IN (SELECT alert FROM reference WHERE sender = :sender AND identifier = :identifier)"
    " ORDER BY accepted_at DESC, id DESC"
)
ALIKE = 5  # more of the same within minutes say nothing new
# The constants make the partial indexes fit.
_ALIKE = "likeness = :likeness AND likeness <> '' AND accepted_at >= :alike_since AND standing = :active"
_LIVE = ", ".join(f"'{standing}'" for standing in sorted(LIVE))
_DRILLS = f"status <> 'Actual' AND standing IN ({_LIVE})"
_WHETHER = f"""SELECT
 (SELECT COUNT(*) FROM alert WHERE sender = :sender AND accepted_at >= :issued_since),
 EXISTS (SELECT 1 FROM alert WHERE {_ALIKE}),
 EXISTS (SELECT 1 FROM reference WHERE sender = :sender AND identifier = :identifier),
 EXISTS (SELECT 1 FROM regime WHERE ended_at IS NULL)"""


class Around(NamedTuple):
    """`opposite`: for a drill the real ones it may meet."""

    later: list[AlertRow]
    alike: list[AlertRow]
    opposite: list[AlertRow]
    issued: int
    regimes: list[Regime]


def alert_row(row: Row) -> AlertRow:
    """Return a row of `ALERT_COLUMNS` as it is stored."""
    body, plan, standing, reason, issuer, accepted_at, revision, national = row
    alert, planned = unpack_alert(body), unpack_plan(plan)
    return AlertRow(alert, planned, standing, reason, issuer, moment(accepted_at), revision, national)


def alert_rows(tx: Tx, tail: str, **values: object) -> list[AlertRow]:
    """Return alerts by the rest of a SELECT."""
    return ask_alerts(tx, tail, **values)()


def ask_alerts(tx: Tx, tail: str, **values: object) -> Callable[[], list[AlertRow]]:
    """Ask for alerts as `Tx.ask` does."""
    answer = tx.ask(f"SELECT {ALERT_COLUMNS} FROM alert {tail}", **values)
    return lambda: [alert_row(row) for row in answer()]


def around(tx: Tx, alert: Alert, likeness: str, now: datetime, alike_since: datetime, issued_since: datetime) -> Around:
    """Read it; `alike_since` and `issued_since` bound how far back one looks."""
    key = {"sender": alert.sender, "identifier": alert.identifier}
    near = {"likeness": likeness, "alike_since": micros(alike_since), "active": Standing.ACTIVE}
    issued, alike, later, regimes = tx.all(_WHETHER, issued_since=micros(issued_since), **key, **near)[
        0
    ]  # most often there is none of it: one question instead of five
    return Around(
        alert_rows(tx, SUCCESSORS, **key) if later else [],
        alert_rows(tx, f"WHERE {_ALIKE} ORDER BY accepted_at DESC LIMIT {ALIKE}", **near) if alike else [],
        [] if alert.actual else real_ones(tx),
        int(issued),
        in_force(tx, now) if regimes else [],
    )


def ask_opposite(tx: Tx, alert: Alert) -> Callable[[], list[AlertRow]]:
    """Ask for the live drills where the alert is real, and for the real ones where it is none."""
    return ask_alerts(tx, f"WHERE {_DRILLS}") if alert.actual else _ask_real(tx)


def real_ones(tx: Tx) -> list[AlertRow]:
    """Return the real orange, red and evacuations in force, those that end one too."""
    return _ask_real(tx)()


def _ask_real(tx: Tx) -> Callable[[], list[AlertRow]]:
    return ask_alerts(
        tx,
        "WHERE status = :actual AND standing = :active AND (level >= :level OR document = :evacuation)",
        actual=Status.ACTUAL,
        active=Standing.ACTIVE,
        level=int(Level.ORANGE),
        evacuation=Document.EVACUATION,
    )
