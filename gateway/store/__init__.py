"""The store: alerts, plans, outbox with claims, ledger, device commands, audit chain and timers over one database."""

from __future__ import annotations

from gateway.database import Database
from gateway.model import Record
from gateway.ports import Clock
from gateway.store import audit
from gateway.store.answer import Answers
from gateway.store.audit import AuditChain
from gateway.store.command import Commands
from gateway.store.device import SqlDevices
from gateway.store.drill import SqlDrills
from gateway.store.lease import Leases
from gateway.store.ledger import SqlLedger
from gateway.store.listing import Listing
from gateway.store.minute import SqlMinutes
from gateway.store.national import SqlNational
from gateway.store.numbering import Numbering
from gateway.store.obligation import SqlObligations
from gateway.store.order import SqlOrders
from gateway.store.outbox import SqlOutbox
from gateway.store.progress import SqlProgress
from gateway.store.regime import SqlRegimes
from gateway.store.reply import SqlReplies
from gateway.store.seal import SqlSeals
from gateway.store.sounded import SqlSounded
from gateway.store.stuck import Stuck
from gateway.store.timer import SqlTimers
from gateway.transaction import Tx, micros

__all__ = ["Store"]


class Store:
    """All facets over one `Database`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.outbox = SqlOutbox(database, clock)
        self.ledger = SqlLedger(database, clock)
        self.replies = SqlReplies(database)
        self.progress = SqlProgress(database, clock)
        self.leases = Leases(database, clock)
        self.numbering = Numbering(database)
        self.commands = Commands(database, clock)
        self.devices = SqlDevices(database, clock)
        self.orders = SqlOrders(database, clock)
        self.sounded = SqlSounded(database, clock)
        self.listing = Listing(database)
        self.answers = Answers(database, clock)
        self.audit = AuditChain(database)
        self.timers = SqlTimers(database, clock)
        self.obligations = SqlObligations(database)
        self.regimes = SqlRegimes(database)
        self.drills = SqlDrills(database, clock)
        self.minutes = SqlMinutes(database)
        self.national = SqlNational(database)
        self.seals = SqlSeals(database)
        self.stuck = Stuck(database, clock)
        self._clock = clock

    async def keep_policy(self, digest: str, body: bytes) -> None:
        """Keep a policy under its digest, so that every alert can say a year later what it was decided by."""
        at = micros(self._clock.now())
        record = Record(self._clock.now(), "installation", "configure", f"policy {digest[:12]}")

        def operation(tx: Tx) -> None:
            if tx.run(
                "INSERT INTO policy (digest, body, at) VALUES (:digest, :body, :at) ON CONFLICT DO NOTHING",
                digest=digest,
                body=body,
                at=at,
            ):
                audit.append(tx, [record])

        await self.database.write(operation, 10.0)

    async def live_channels(self) -> frozenset[str]:
        """Channels that two people have switched to live (rule 11)."""
        rows = await self.database.read(lambda tx: tx.all("SELECT channel FROM live WHERE approved_by <> ''"))
        return frozenset(row[0] for row in rows)

    async def switch_live(self, channel: str, person: str, *, live: bool) -> str:
        """Ask for live, or agree to what another person asked for; or go back to simulation at once.

        Returns "requested", "live", "simulation", or "same_person" (nothing was changed).
        """
        at = self._clock.now()

        def operation(tx: Tx) -> str:
            asked = tx.one("SELECT requested_by, approved_by FROM live WHERE channel = :channel", channel=channel)
            if not live:
                tx.run("DELETE FROM live WHERE channel = :channel", channel=channel)
                result = "simulation"
            elif asked is None:
                tx.run(
                    "INSERT INTO live (channel, requested_by, approved_by, at) VALUES (:channel, :person, '', :at)",
                    channel=channel,
                    person=person,
                    at=micros(at),
                )
                result = "requested"
            elif asked[0] == person and not asked[1]:
                return "same_person"
            else:
                tx.run(
                    "UPDATE live SET approved_by = :person WHERE channel = :channel AND approved_by = ''",
                    channel=channel,
                    person=person,
                )
                result = "live"
            audit.append(tx, [Record(at, person, f"live:{result}", channel)])
            return result

        return await self.database.write(operation)
