"""Whoever decides takes its turn before it locks a row, in whatever order it asks: nobody waits in a circle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import psycopg
import pytest
from test_store import NOW, HandClock, alert, batch_of, draft_of

from gateway.database import Database
from gateway.model import Batch, Group, Record
from gateway.store import Store, audit
from gateway.transaction import TURN, Tx

NEVER = "options=-c%20deadlock_timeout%3D600s"  # a circle then hangs, and is not solved behind our back


@pytest.fixture
async def two(database_url: str) -> AsyncIterator[tuple[Store, Store]]:
    """Two processes with one database."""
    joint = "&" if "?" in database_url else "?"
    async with AsyncExitStack() as stack:
        stores = []
        for _ in range(2):
            database = Database(f"{database_url}{joint}{NEVER}")
            await database.open()
            stack.push_async_callback(database.close)
            stores.append(Store(database, HandClock()))
        yield stores[0], stores[1]


class Held:
    """The turn in somebody else's hand."""

    def __init__(self, watch: psycopg.AsyncConnection) -> None:
        self._watch = watch

    async def wait_for(self, number: int) -> None:
        """Return once so many transactions wait for the turn."""
        sql = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
        async with asyncio.timeout(20):
            while True:
                row = await (await self._watch.execute(sql, [TURN])).fetchone()
                if row is not None and row[0] == number:
                    return
                await asyncio.sleep(0.01)


@asynccontextmanager
async def turn_held(url: str) -> AsyncIterator[Held]:
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True) as holder,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as watch,
    ):
        await holder.execute("SELECT pg_advisory_lock(%s)", [TURN])
        yield Held(watch)


async def commanded(store: Store) -> Batch:
    """A warning whose loudspeakers say it again."""
    one = alert()
    batch = replace(batch_of(one, channel="loudspeaker_ws"), group=Group.LOUDSPEAKERS, every_s=600, slice=0)
    assert (await store.outbox.accept(draft_of(one, batch))).result == "accepted"
    await store.database.write(
        lambda tx: tx.run(
            "INSERT INTO device (id, name, village, township, county, key_hash, channel, standing)"
            " SELECT device, 'd' || device, :village, :township, :county, '', 'loudspeaker_ws', 'service'"
            " FROM device_command",
            village=next(batch.village_of()), township=batch.township, county=batch.township[:6],
        )
    )  # fmt: skip
    return batch


async def test_a_recall_and_a_confirmation_at_once_never_wait_for_each_other(
    two: tuple[Store, Store], database_url: str
) -> None:
    """One locks the commands and then appends, the other appends and then hushes them: a second of a red night."""
    batch = await commanded(two[0])
    record = Record(NOW, "t", "x", batch.alert)
    async with turn_held(database_url) as held:
        confirming = asyncio.create_task(
            two[0].ledger.confirm(batch.alert, 7, [next(batch.village_of())], "sms", record)
        )
        await held.wait_for(1)
        stopping = asyncio.create_task(two[1].outbox.stop(batch.alert, "recalled", record))
        await held.wait_for(2)
    async with asyncio.timeout(20):
        assert (await confirming, await stopping) == (True, True)
    assert (await two[0].audit.verify())[1] == ""


def locks_then_decides(runs: list[str], name: str, *, late: bool = False) -> Callable[[Tx], None]:
    def operation(tx: Tx) -> None:
        runs.append(name)
        tx.run("UPDATE installation SET restored_at = restored_at")
        audit.append(tx, [Record(NOW, "t", name, "x")], late=late)

    return operation


async def test_what_asks_for_the_turn_too_late_begins_anew_with_all_its_group(two: tuple[Store, Store]) -> None:
    """Nobody has to remember it: an operation that forgets to say so costs a repeat, and no circle."""
    runs: list[str] = []
    database = two[0].database
    await database.write(locks_then_decides(runs, "unsaid"))
    await database.write(locks_then_decides(runs, "said"), decides=True)
    await database.write(locks_then_decides(runs, "import", late=True))
    assert runs == ["unsaid", "unsaid", "said", "import"]

    def looks_then_decides(tx: Tx) -> None:
        runs.append("looks")
        tx.all("SELECT seq FROM audit")
        audit.append(tx, [Record(NOW, "t", "looks", "x")])

    await database.write(looks_then_decides)  # who only reads holds nobody up
    assert runs[4:] == ["looks"]
    assert (await two[0].audit.verify())[1] == ""
