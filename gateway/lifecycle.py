"""What the clock does to alerts: expiry ends them, and what has ended is closed in the ledger and the chain."""

from __future__ import annotations

import hashlib
from array import array
from datetime import datetime

from gateway.gauge import observe_settled
from gateway.model import Record
from gateway.ports import Clock
from gateway.standing import Event
from gateway.store import Store
from gateway.store.codec import unpack_persons
from gateway.store.rows import UNENDED

SEALED = 50  # digests in one transaction: whoever accepts an alert meanwhile waits for the chain


class Lifecycle:
    """Handler of the timer `expire`, and the appender of batch digests."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def expire(self, alert: str) -> datetime | None:
        """End an alert whose time is over."""
        row = await self._store.outbox.alert(alert)
        now = self._clock.now()
        if row is None or row.standing not in UNENDED:
            return None
        if row.alert.expires is not None and row.alert.expires > now:
            return row.alert.expires
        await self._store.outbox.stop(alert, "expired", Record(now, "clock", Event.EXPIRE, alert))
        return None

    async def seal(self) -> None:
        """Append one digest per newly settled batch, over person ids and states, to the audit chain (rule 9)."""
        now = self._clock.now()
        settled = await self._store.ledger.unsealed(200)
        records = [Record(now, "ledger", "settled", batch, _digest(body, states)) for batch, body, states in settled]
        for start in range(0, len(records), SEALED):
            await self._store.ledger.seal(records[start : start + SEALED])
        if settled:
            await observe_settled(self._store, [batch for batch, _, _ in settled])


def _digest(body: bytes, states: bytes) -> str:
    return hashlib.sha256(array("q", unpack_persons(body)).tobytes() + states).hexdigest()
