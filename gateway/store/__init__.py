"""The store: alerts, plans, outbox with claims, ledger, device commands, audit chain and timers over one database."""

from __future__ import annotations

from gateway.database import Database
from gateway.ports import Clock
from gateway.store.audit import AuditChain
from gateway.store.command import Commands
from gateway.store.ledger import SqlLedger
from gateway.store.outbox import SqlOutbox
from gateway.store.timer import SqlTimers

__all__ = ["Store"]


class Store:
    """All facets over one `Database`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.outbox = SqlOutbox(database, clock)
        self.ledger = SqlLedger(database, clock)
        self.commands = Commands(database, clock)
        self.audit = AuditChain(database)
        self.timers = SqlTimers(database, clock)
