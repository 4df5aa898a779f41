"""How PostgreSQL reads what the gateway asks for: by its indexes, whatever it believed of the tables when it planned.

A new installation's tables are empty until the first storm, and so they are planned for.
"""

from __future__ import annotations

from typing import Any

import psycopg
from test_store import NOW, HandClock, alert, batch_of, draft_of

from gateway.database import Database
from gateway.model import Receipt, State
from gateway.ports import Settled
from gateway.store import Store
from gateway.transaction import Tx

OFTEN = 12  # PostgreSQL makes a plan once and for all after five that were made for their values
LARGE = ("batch", "outbox", "outcome", "claim", "device_command", "step")


async def one_night(store: Store, number: int) -> None:
    """Let one warning go its way: accepted, asked for, claimed, settled, counted."""
    about = alert(f"night-{number}")
    texts, speakers = batch_of(about), batch_of(about, number=1, slice_=0, channel="loudspeaker_ws")
    await store.outbox.accept(draft_of(about, texts, speakers))
    await store.outbox.work(10)
    await store.commands.open()
    await store.commands.take({speakers.id: range(4)})
    for at in range(texts.slices):
        await store.outbox.claim(texts.id, at, "me", 20)
        receipts = [Receipt(State.SUBMITTED)] * 2
        await store.ledger.settle(Settled(texts.id, at, 1, "me", [0, 1], receipts, "noop", NOW))
    await store.ledger.counts(about.id)


def explained(tx: Tx) -> list[tuple[str, str]]:
    """(statement, plan) of everything this connection has planned once and for all."""
    found = []
    prepared = tx.all("SELECT name, statement, CAST(parameter_types AS TEXT) FROM pg_prepared_statements")
    for name, statement, types in prepared:
        if statement.lstrip().startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
            values = ", ".join(f"NULL::{kind}" for kind in types.strip("{}").replace('"', "").split(",") if kind)
            plan = tx.all(f"EXPLAIN EXECUTE {name}{f' ({values})' if values else ''}")
            found.append((statement, "\n".join(line for (line,) in plan)))
    return found


async def test_what_was_planned_for_empty_tables_does_not_read_them_as_a_whole(database_url: str) -> None:
    """A red warning's loudspeakers waited a hundred milliseconds behind three bulk ones, and longer with each one."""
    database = Database(database_url)
    await database.open()
    try:
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("ANALYZE")  # as after the rosters were brought in: it is certain now that nothing was sent
        store = Store(database, HandClock())
        for number in range(OFTEN):
            await one_night(store, number)
        plans: list[tuple[str, Any]] = await database.write(explained)
        for _ in range(OFTEN):  # whichever readers there are
            plans += await database.read(explained)
    finally:
        await database.close()
    assert any("FROM batch" in statement for statement, _ in plans)
    assert any("UPDATE claim" in statement for statement, _ in plans)
    whole = {statement for statement, plan in plans for table in LARGE if f"Seq Scan on {table} " in f"{plan} "}
    assert whole == set()
