"""The duty-room alarm: nothing of an Actual alert is held in silence (D2).

A held alert alarms at once, each minute until somebody decides, and names the duty leader after three.
Here an alarm is a log line at the highest level, a metric with an alert rule, and a row of the change feed.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway import log, metrics
from gateway.ports import Clock
from gateway.store import Store

REPEAT = timedelta(minutes=1)
LEADER_AFTER = timedelta(minutes=3)

_log = log.get("alarm")


class Alarm:
    """Handlers of the timers `held` and `expire`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def held(self, alert: str) -> datetime | None:
        """Ring for a held alert; return when to ring again, None once it is decided."""
        row = await self._store.outbox.alert(alert)
        if row is None or row.standing not in ("held", "active") or not (row.plan.held or row.standing == "held"):
            return None
        now = self._clock.now()
        leader = now - row.accepted_at >= LEADER_AFTER
        metrics.alarms.labels("held_leader" if leader else "held").inc()
        # Codes only: an issuer's own words could name a person.
        why = [text.split(":", 1)[0] for text in row.plan.held] or ["second_person"]
        _log.critical("alert_held", alert=alert, why=why, call="duty leader" if leader else "duty officer")
        return now + REPEAT
