"""What is over and proves nothing any more leaves the database, in slices of bounded work. Called by the scheduler.

| what | is kept |
| --- | --- |
| finished commands of loudspeakers | a week after their warning's end; the ledger has what became of them |
| orders the policy gave by itself | 90 days after they were settled |
| orders of a person, self-tests of drills, village alarms somebody has answered | three years: they are proof (D23) |
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from gateway.database import Database
from gateway.ports import Clock
from gateway.store.sounded import KIND
from gateway.transaction import Tx, micros

EVERY_S = 600.0
COMMANDS = timedelta(days=7)  # a device that was cut off is told to stop for a day; see `command.STALE_S`
ROUTINE = timedelta(days=90)
PROOF = timedelta(days=3 * 365)
STEP = 1_000  # rows in one transaction
_PARTIAL = "DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {where} LIMIT :step)"
_ORDERS = _PARTIAL.format(
    table="device_order", key="id",
    where="settled_at <= :before AND state <> 'open' AND (:all = 1 OR actor = 'policy')",
)  # fmt: skip
_ALARMS = _PARTIAL.format(
    table="village_alarm", key="id",
    where="at <= :before AND NOT EXISTS"
    " (SELECT 1 FROM obligation o WHERE o.alert = village_alarm.id AND o.kind = :kind AND o.answered_at IS NULL)",
)  # fmt: skip
_ENDED = (
    "SELECT a.id FROM alert a WHERE a.standing = 'stopped' AND a.expires <= :before AND a.ended_at <= :before AND"
    " EXISTS (SELECT 1 FROM device_command c WHERE c.alert = a.id AND c.finished = 1) ORDER BY a.id LIMIT 1"
)
_COMMANDS = (
    "DELETE FROM device_command WHERE (device, alert, batch) IN (SELECT device, alert, batch FROM device_command"
    " WHERE alert = :alert AND finished = 1 LIMIT :step)"
)


class Retention:
    """Removes what is old and settled."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def work(self) -> None:
        """Remove what is due, one transaction after the other.

        Raises:
            StoreDown: the rest is removed the next time.
        """
        now = self._clock.now()
        for step in (
            partial(_commands, before=micros(now - COMMANDS)),
            partial(_orders, before=micros(now - ROUTINE), everybody=False),
            partial(_orders, before=micros(now - PROOF), everybody=True),
            partial(_alarms, before=micros(now - PROOF)),
        ):
            await self._all(step)

    async def _all(self, step: Callable[[Tx], int]) -> None:
        while await self._database.write(step, 5.0):
            continue


def _commands(tx: Tx, before: int) -> int:
    row = tx.one(_ENDED, before=before)
    return tx.run(_COMMANDS, alert=row[0], step=STEP) if row else 0


def _orders(tx: Tx, before: int, *, everybody: bool) -> int:
    return tx.run(_ORDERS, before=before, all=int(everybody), step=STEP)


def _alarms(tx: Tx, before: int) -> int:
    return tx.run(_ALARMS, before=before, kind=KIND, step=STEP)
