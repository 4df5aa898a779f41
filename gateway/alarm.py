"""The duty-room alarm: nothing of an Actual alert waits in silence (D2).

A waiting alert alarms at once, each minute until somebody decides; names the duty leader after three, and the
deputies once they may act. One that was returned rings for its writer. A joint warning whose partner stays silent says
so when the limit is over (D9). Here an alarm is a log line at the highest level, a metric with an alert rule, and a row
of the change feed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from gateway import log, metrics
from gateway.policy import Policy
from gateway.ports import AlertRow, Clock
from gateway.standing import RINGS, Standing, since
from gateway.store import Store

REPEAT = timedelta(minutes=1)
LEADER_AFTER = timedelta(minutes=3)

_log = log.get("alarm")


class Alarm:
    """Handlers of the timers `held` and `partner`."""

    def __init__(self, store: Store, policy: Callable[[], Policy], clock: Clock) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock

    async def held(self, alert: str) -> datetime | None:
        """Ring for a waiting alert; return when to ring again, None once it is decided."""
        row = await self._store.outbox.alert(alert)
        if row is None or not (row.standing in RINGS or (row.standing == Standing.ACTIVE and row.plan.held)):
            return None
        now = self._clock.now()
        life = await self._store.outbox.decisions(alert) if row.revision else ()  # not moved since it came
        waits = now - since(row.standing, life, row.accepted_at)
        call = self._call(row, waits)
        metrics.alarms.labels("held_leader" if waits >= LEADER_AFTER else "held").inc()
        # Codes only: an issuer's own words could name a person.
        why = [text.split(":", 1)[0] for text in row.plan.held] or [row.standing]
        _log.critical("alert_held", alert=alert, why=why, call=call)
        return now + REPEAT

    def _call(self, row: AlertRow, waits: timedelta) -> str:
        if row.standing == Standing.RETURNED:
            return "duty leader" if waits >= LEADER_AFTER else "its writer"
        procedure, issuer = self._policy().procedure, self._policy().issuer(row.alert.sender)
        deputies = procedure.deputies(issuer.id) if issuer else ()
        if deputies and waits >= timedelta(minutes=procedure.approval_of(row.alert).escalate_after_min):
            return f"signers of {', '.join(deputies)}"
        return "duty leader" if waits >= LEADER_AFTER else "duty officer"

    async def partner(self, alert: str) -> datetime | None:
        """Say that a partner has been waited for long enough: the issuer may publish under its own name."""
        row = await self._store.outbox.alert(alert)
        if row is not None and row.standing == Standing.PARTNER:
            metrics.alarms.labels("partner").inc()
            _log.critical("partner_silent", alert=alert, call="the partner; then publish alone")
        return None
