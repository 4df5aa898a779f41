"""Where a drill and the real thing meet (D19): a real orange, red or evacuation stops drills, and lets none begin.

Nor is anything said that ends or corrects a drill: half of it is heard in the rain, as the end of the real one. A
drill is stopped there in silence.

Decided inside the transaction that takes an alert in, once it has its turn at the audit chain: of two at once,
whichever comes second sees the first. Whoever plans a drill is told before (`lineage.check_drill`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from gateway.errors import MingluoError
from gateway.model import Alert, Record, Target
from gateway.policy.route import ENDS
from gateway.ports import AlertRow, Draft
from gateway.regions.target import overlap
from gateway.routing import emergency
from gateway.standing import LIVE, REAL, Event, Standing
from gateway.store import audit
from gateway.store.around import ask_opposite, real_ones
from gateway.store.drill import running_tests, stop_tests
from gateway.store.rows import stop_alert
from gateway.transaction import Tx

UNDER_REAL = (
    "a real orange or red warning or evacuation covers the area; no drill begins beside it, and no end of one is said: "
    "recall stops a drill in silence"
)
STOPPED = "drill_stop"


class RealWarningError(MingluoError):
    """A real warning covers the place of a drill; undoes the whole transaction."""


def meets(alert: Alert, targets: Sequence[Target], others: Iterable[AlertRow]) -> list[AlertRow]:
    """Return those of the `opposite` that an alert stops (it is real), or that keep it from beginning (it is none)."""
    if _concerns_nobody(alert):
        return []
    live = (row for row in others if alert.actual or row.alert.kind not in ENDS)
    return [row for row in live if overlap(row.plan.targets, targets)]


def _concerns_nobody(alert: Alert) -> bool:
    """Whether it is a real one that drills may be held beside."""
    return alert.actual and (alert.kind in ENDS or not emergency(alert))


def ask_apart(tx: Tx, draft: Draft) -> Callable[[], None]:
    """Ask, in the turn, what an alert that is written may meet; return what keeps them apart by the answer.

    That stops the drills which a real alert meets as it becomes active, and refuses the drill that meets a real one: it
    raises `RealWarningError`, and nothing was stored.
    """
    alert, now = draft.alert, draft.now
    begins = draft.standing == Standing.ACTIVE or (not alert.actual and draft.standing in LIVE)
    if not begins or _concerns_nobody(alert):
        return lambda: None
    running = running_tests(tx, now) if alert.actual else list
    others = ask_opposite(tx, alert)

    def keep() -> None:
        record = Record(now, "gateway", STOPPED, alert.id, f"{REAL}: {alert.id}")
        if alert.actual:
            stop_tests(tx, running(), draft.plan.targets, record)
        for row in meets(alert, draft.plan.targets, others()):
            if not alert.actual:
                raise RealWarningError(UNDER_REAL)
            if stop_alert(tx, row.alert.id, REAL, now, Event.REPLACE, "gateway", record.detail):
                audit.append(tx, [replace(record, subject=row.alert.id)])

    return keep


def bar(tx: Tx, targets: Sequence[Target]) -> None:
    """Refuse a self-test that has no message of its own, where a real orange, red or evacuation is in force.

    Takes its turn at the chain: of a self-test and a real warning at once the second one sees the first.

    Raises:
        RealWarningError: nothing was stored.
    """
    tx.take_turn()
    if any(row.alert.kind not in ENDS and overlap(row.plan.targets, targets) for row in real_ones(tx)):
        raise RealWarningError(UNDER_REAL)
