"""Leases: which process holds which connection of a carrier account, so that all of them never hold too many.

A slot is taken in one statement: it is free, or its lease has lapsed. One task per process (`renew`) renews all it
holds; a process that dies is succeeded once its leases have lapsed. While the store cannot be reached nobody takes a
slot, and what is held stays held: a working connection is worth more than a count that nobody can see. The one case
in which an account has a connection too many is a process that alone is cut off from the store for longer than
`LAPSE_S`; it closes the connection as soon as it hears of its successor.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import datetime, timedelta

from gateway import log, metrics
from gateway.database import Database
from gateway.errors import StoreDown
from gateway.ports import Clock
from gateway.transaction import Tx, micros

LAPSE_S = 15.0
RENEW_S = 4.0  # three tries before it lapses
PATIENCE_S = 3.0

_log = log.get("lease")


class SlotLease:
    """One slot of an account, held by this process; see `gateway.channel.Lease`."""

    def __init__(self, leases: Leases, account: str, slot: int, owner: str) -> None:
        self.slot = slot
        self.lost = asyncio.Event()
        self.account = account
        self._leases = leases
        self._owner = owner

    @property
    def row(self) -> dict[str, object]:
        """What names it in the table."""
        return {"account": self.account, "slot": self.slot, "owner": self._owner}

    async def release(self) -> None:
        """Let another process have the slot at once. Repeated, or after a loss, it does nothing."""
        await self._leases.release(self)


class Leases:
    """The leases of this process."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._held: list[SlotLease] = []

    async def take(self, account: str, connections: int) -> SlotLease | None:
        """Take the lowest free slot; None: all are held, or the store cannot be asked."""
        now, owner = self._clock.now(), secrets.token_hex(8)
        row = {"account": account, "owner": owner, "now": micros(now), "until": micros(_lapse(now))}
        try:
            slot = await self._database.write(lambda tx: _take(tx, row, connections), PATIENCE_S)
        except StoreDown:  # whoever asks asks again; what may have been stored lapses
            return None
        if slot is None:
            return None
        self._held.append(lease := SlotLease(self, account, slot, owner))
        return lease

    async def renew(self) -> None:
        """Renew all leases of this process, lapsed ones too; those that another has taken meanwhile are lost.

        Raises:
            StoreDown: nothing is known of them; they stay held.
        """
        if not (held := list(self._held)):
            return
        until = micros(_lapse(self._clock.now()))
        rows = [one.row | {"until": until} for one in held]
        renewed = await self._database.write(
            lambda tx: tx.counts(
                "UPDATE lease SET until = :until WHERE account = :account AND slot = :slot AND owner = :owner", rows
            ),
            PATIENCE_S,
        )
        for lease, mine in zip(held, renewed, strict=True):
            if not mine and lease in self._held:  # not released meanwhile
                self._held.remove(lease)
                metrics.leases_lost.labels(lease.account.partition("/")[0]).inc()
                _log.error("lease_lost", account=lease.account, slot=lease.slot)
                lease.lost.set()

    async def release(self, lease: SlotLease) -> None:
        """Give a slot back; if the store is away, it lapses."""
        if lease not in self._held:
            return
        self._held.remove(lease)
        try:
            await self._database.write(
                lambda tx: tx.run(
                    "DELETE FROM lease WHERE account = :account AND slot = :slot AND owner = :owner", **lease.row
                ),
                PATIENCE_S,
            )
        except StoreDown:
            _log.warning("lease_not_released", account=lease.account, slot=lease.slot)

    async def accounts(self) -> frozenset[str]:
        """Return the accounts on which some process has a connection."""
        now = micros(self._clock.now())
        rows = await self._database.read(lambda tx: tx.all("SELECT account FROM lease WHERE until > :now", now=now))
        return frozenset(account for (account,) in rows)

    async def begin_alone(self) -> None:
        """Free all slots: the database belongs to this process alone, whoever held them is dead."""
        await self._database.write(lambda tx: tx.run("DELETE FROM lease"))


def _lapse(now: datetime) -> datetime:
    return now + timedelta(seconds=LAPSE_S)


def _take(tx: Tx, row: dict[str, object], connections: int) -> int | None:
    # Its own slot it takes once more: an operation may run twice.
    for slot in range(connections):
        if tx.run(
            "INSERT INTO lease (account, slot, owner, until) VALUES (:account, :slot, :owner, :until)"
            " ON CONFLICT (account, slot) DO UPDATE SET owner = excluded.owner, until = excluded.until"
            " WHERE lease.until <= :now OR lease.owner = excluded.owner",
            slot=slot,
            **row,
        ):
            return slot
    return None
