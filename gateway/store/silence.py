"""Reports that never come, and reports of what was never sent: both end here, in slices of bounded work.

A recipient whose provider has not reported by the channel's `report_s` is UNKNOWN, not for ever SUBMITTED; a late
report still beats that. It is decided by batch, from its packed states: a million recipients are a thousand rows. A
report whose submit has not shown up for `KEPT` is another system's, and is dropped. What leads a report to its
recipient goes after that time, too: no carrier reports later, and what became of everybody is in the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import NamedTuple

from gateway import metrics
from gateway.database import Database
from gateway.model import State
from gateway.ports import Clock
from gateway.store.rows import Fold, fold_all
from gateway.transaction import Tx, micros

KEPT = timedelta(hours=72)
BATCHES = 50  # in one transaction
REPORTS = 1_000
EVERY_S = 5.0


class Silence:
    """Ends the waiting for reports. `waits` says for how many seconds each channel's are awaited."""

    def __init__(self, database: Database, clock: Clock, waits: Mapping[str, float]) -> None:
        self._database = database
        self._clock = clock
        self._waits = {channel: timedelta(seconds=wait_s) for channel, wait_s in waits.items()}

    async def work(self) -> None:
        """End what is due; what is more than a slice of it comes one transaction after the other.

        Raises:
            StoreDown: the rest is done the next time.
        """
        now = self._clock.now()
        for channel, wait in self._waits.items():
            operation = partial(_end, channel=channel, due=micros(now - wait), now=micros(now))
            more = True
            while more:
                more, silent = await self._database.write(operation, 5.0)
                metrics.silent_recipients.labels(channel).inc(silent)
        before = micros(now - KEPT)
        more = True
        while more:
            dropped = await self._database.write(lambda tx: _drop(tx, before), 5.0)
            for account, number in dropped.unmatched.items():  # an account is a channel's name
                metrics.reports_dropped.labels(account).inc(number)
            more = dropped.more


def _end(tx: Tx, channel: str, due: int, now: int) -> tuple[bool, int]:
    """Take the next settled batches; return whether there may be more, and how many recipients were silent."""
    batches = [
        str(batch)
        for (batch,) in tx.all(
            "SELECT id FROM batch WHERE awaited = 1 AND channel = :channel AND settled_at <= :due"
            " ORDER BY settled_at LIMIT :limit",
            channel=channel,
            due=due,
            limit=BATCHES,
        )
    ]
    lock = " FOR UPDATE" if tx.postgresql else ""
    rows = tx.all(f"SELECT id, states FROM batch WHERE id IN :*batches ORDER BY id{lock}", batches=batches)
    silent = {
        batch: [position for position, state in enumerate(bytes(states)) if state == State.SUBMITTED]
        for batch, states in rows
    }
    fold_all(tx, [Fold(one, [(at, State.UNKNOWN) for at in found], now) for one, found in silent.items() if found])
    tx.run("UPDATE batch SET awaited = 0 WHERE id IN :*batches", batches=batches)
    return len(batches) == BATCHES, sum(map(len, silent.values()))


class _Dropped(NamedTuple):
    """What went: reports that were never matched, by account, and whether there may be more of anything."""

    unmatched: Counter[str]
    more: bool


def _drop(tx: Tx, before: int) -> _Dropped:
    """Drop the next references, and reports on unknown ones, that were last written before then."""
    rows = tx.all(
        "DELETE FROM provider_ref WHERE (account, reference, number) IN"
        " (SELECT account, reference, number FROM provider_ref WHERE kept_at <= :before"
        " ORDER BY kept_at LIMIT :limit) RETURNING account, batch",
        before=before,
        limit=REPORTS,
    )
    bulks = tx.run(
        "DELETE FROM provider_bulk WHERE (account, reference) IN"
        " (SELECT account, reference FROM provider_bulk WHERE kept_at <= :before ORDER BY kept_at LIMIT :limit)",
        before=before,
        limit=REPORTS,
    )
    return _Dropped(Counter(account for account, batch in rows if batch is None), REPORTS in (len(rows), bulks))
