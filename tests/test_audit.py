"""The audit chain against somebody who may write to the database: every change is found and named by its sequence.

What was decided in the night is asked about a year later, and then the chain is the only witness. Held by SQLite and by
PostgreSQL.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import blank
import pytest
from api_support import ADMIN, opened
from manual_clock import ManualClock

from gateway.database import Database
from gateway.model import Record
from gateway.store import Store
from gateway.store.audit import GENESIS, Checkpoint
from gateway.transaction import Tx

RECORDS = 7


def chained(previous: str, seq: int, at: int, fields: Sequence[str]) -> str:
    """The hash of a record, from the documentation and not from our code."""
    body = json.dumps([previous, seq, at, *fields], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(body.encode()).hexdigest()


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    """A chain of seven decisions."""
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    database = Database(url)
    await database.open()
    one = Store(database, clock)
    for number in range(RECORDS):
        await one.audit.append(Record(clock.now(), "411726-qxj/post", "accept", f"alert {number}", "green"))
    yield one
    await database.close()


async def change(store: Store, *statements: str) -> None:
    """Do what no part of the gateway does."""

    def operation(tx: Tx) -> None:
        for statement in statements:
            tx.run(statement)

    await store.database.write(operation)


async def test_an_untouched_chain_is_whole(store: Store) -> None:
    """A false alarm would be believed once."""
    assert await store.audit.verify() == (RECORDS, "")
    assert await store.audit.verify(await store.audit.checkpoint()) == (RECORDS, "")
    assert await store.audit.verify(Checkpoint(0, GENESIS)) == (RECORDS, "")


@pytest.mark.parametrize(
    "field", ["at = at + 1", "actor = 'x'", "action = 'reject'", "subject = 'x'", "detail = ''", "hash = '0'"]
)
@pytest.mark.parametrize("seq", [1, 4, RECORDS])
async def test_a_changed_field_is_found(store: Store, field: str, seq: int) -> None:
    """Whoever made the decision look like another's is told by number which record to look at."""
    await change(store, f"UPDATE audit SET {field} WHERE seq = {seq}")
    wrong = f"record {seq} does not match its hash: it was changed, or put in its place"
    assert await store.audit.verify() == (seq - 1, wrong)


@pytest.mark.parametrize(
    ("which", "good", "wrong"),
    [
        ("seq = 1", 0, "record 1 is missing"),
        ("seq = 4", 3, "record 4 is missing"),
        ("seq IN (3, 4, 5)", 2, "records 3 to 5 are missing"),
        (f"seq = {RECORDS}", 6, f"record {RECORDS} is missing at the end"),
        ("seq > 4", 4, f"records 5 to {RECORDS} are missing at the end"),
        ("seq > 0", 0, f"records 1 to {RECORDS} are missing at the end"),
    ],
)
async def test_a_deleted_record_is_found_also_at_the_end(store: Store, which: str, good: int, wrong: str) -> None:
    """The last decision is the one most worth hiding."""
    await change(store, f"DELETE FROM audit WHERE {which}")
    assert await store.audit.verify() == (good, wrong)


async def test_a_cut_end_stays_a_gap_though_decisions_go_on(store: Store, clock: ManualClock) -> None:
    """Else the next decision would close the chain over the hole."""
    await change(store, f"DELETE FROM audit WHERE seq = {RECORDS}")
    await store.audit.append(Record(clock.now(), "a", "b", "c"))
    assert await store.audit.verify() == (RECORDS - 1, f"record {RECORDS} is missing")


def with_hashes(first: int, second: int) -> list[str]:
    """Two records change places, each with its hash."""
    moves = ((first, -1), (second, first), (-1, second))
    return [f"UPDATE audit SET seq = {new} WHERE seq = {old}" for old, new in moves]


def without_hashes(first: int, second: int) -> list[str]:
    """Two records change places, and the hashes stay where they are."""
    keep = (
        f"UPDATE audit SET hash = (SELECT k.hash FROM kept k WHERE k.seq = audit.seq) WHERE seq IN ({first}, {second})"
    )
    return ["CREATE TABLE kept AS SELECT seq, hash FROM audit", *with_hashes(first, second), keep]


@pytest.mark.parametrize("exchange", [with_hashes, without_hashes])
@pytest.mark.parametrize(("first", "second"), [(1, 2), (3, 6), (6, RECORDS)])
async def test_records_that_changed_places_are_named_with_the_place(
    store: Store, exchange: Callable[[int, int], list[str]], first: int, second: int
) -> None:
    """Who decided first is the question of every inquiry."""
    await change(store, *exchange(first, second))
    wrong = f"record {first} has been moved to {second}: the order was changed"
    assert await store.audit.verify() == (first - 1, wrong)


async def test_a_record_before_the_first_is_found(store: Store) -> None:
    """Lists begin behind it, so that only a copy of the database would show it, as if it were ours."""
    fields = "at, actor, action, subject, detail, hash"
    await change(store, f"INSERT INTO audit (seq, {fields}) SELECT 0, {fields} FROM audit WHERE seq = 4")
    assert await store.audit.verify() == (0, "a record stands before the first one, and was not written by the gateway")


async def test_what_is_no_text_is_named_and_breaks_no_walk(tmp_path: Path, clock: ManualClock) -> None:
    """SQLite keeps any bytes in any column; a walk that fails would hide what it was to find."""
    database = Database(blank.sqlite(tmp_path))
    await database.open()
    one = Store(database, clock)
    await one.audit.append(Record(clock.now(), "411726-qxj/post", "accept", "alert", "green"))
    await change(one, "UPDATE audit SET detail = X'ff'")
    assert await one.audit.verify() == (0, "record 1 does not match its hash: it was changed, or put in its place")
    await database.close()


async def test_a_record_the_gateway_did_not_write_is_found(store: Store) -> None:
    """A decision added afterwards, with a right hash, in front of nothing."""
    last = await store.audit.checkpoint()
    at = 1_784_527_200_000_000
    forged = chained(last.hash, RECORDS + 1, at, ("x", "approve", "alert", ""))
    await change(
        store,
        "INSERT INTO audit (seq, at, actor, action, subject, detail, hash)"
        f" VALUES ({RECORDS + 1}, {at}, 'x', 'approve', 'alert', '', '{forged}')",
    )
    wrong = f"record {RECORDS + 1} and what follows were not written by the gateway"
    assert await store.audit.verify() == (RECORDS, wrong)
    await change(store, "DELETE FROM audit_head")
    assert "the head of the chain was deleted" in (await store.audit.verify())[1]


async def rewrite(store: Store, upto: int) -> None:
    """Compute a new chain of fewer, other records, and its head: what an administrator of the database can do."""

    def operation(tx: Tx) -> None:
        tx.run("DELETE FROM audit WHERE seq > :upto", upto=upto)
        previous = GENESIS
        rows = tx.all("SELECT seq, at, actor, action, subject, detail FROM audit ORDER BY seq")
        for seq, at, _, *rest in rows:
            previous = chained(previous, seq, at, ("somebody else", *rest))
            tx.run("UPDATE audit SET actor = 'somebody else', hash = :hash WHERE seq = :seq", hash=previous, seq=seq)
        tx.run("UPDATE audit_head SET seq = :seq, hash = :hash", seq=upto, hash=previous)

    await store.database.write(operation)


async def test_a_chain_written_anew_is_found_by_a_checkpoint_kept_elsewhere(store: Store, clock: ManualClock) -> None:
    """Inside the database everything agrees then; only what lies outside it can tell."""
    kept = await store.audit.checkpoint()
    await store.audit.append(Record(clock.now(), "a", "b", "c"))
    assert await store.audit.verify(kept) == (RECORDS + 1, "")
    await rewrite(store, RECORDS + 1)
    assert await store.audit.verify() == (RECORDS + 1, "")
    wrong = f"record {RECORDS} is not the one of the checkpoint: the chain was written anew"
    assert await store.audit.verify(kept) == (RECORDS - 1, wrong)
    await rewrite(store, 3)
    assert await store.audit.verify() == (3, "")
    assert await store.audit.verify(kept) == (3, f"records 4 to {RECORDS} are missing at the end")


async def test_what_is_decided_while_the_chain_is_walked_is_no_finding(store: Store, clock: ManualClock) -> None:
    """On a busy night the check would else cry wolf, and be switched off."""

    async def decide() -> None:
        for _ in range(30):
            await store.audit.append(Record(clock.now(), "a", "b", "c"))

    deciding = asyncio.create_task(decide())
    while not deciding.done():
        assert (await store.audit.verify())[1] == ""
    await deciding
    assert await store.audit.verify() == (RECORDS + 30, "")


async def test_the_api_gives_a_checkpoint_and_takes_it(tmp_path: Path, clock: ManualClock) -> None:
    """The auditor's own machine keeps it; half of one is not taken for a whole."""
    async with opened(tmp_path, clock) as desk:
        await desk.issue()
        _, kept = await desk.call("GET", "/v1/audit/checkpoint", ADMIN)
        path = f"/v1/audit/verify?seq={kept['seq']}&hash={kept['hash']}"
        assert (await desk.call("GET", path, ADMIN))[1] == {"whole": True, "records": 1, "wrong": ""}
        other = f"/v1/audit/verify?seq={kept['seq']}&hash={GENESIS}"
        _, verdict = await desk.call("GET", other, ADMIN)
        assert (verdict["whole"], verdict["wrong"][:8]) == (False, "record 1")
        response, _ = await desk.call("GET", "/v1/audit/verify?seq=1", ADMIN)
        assert response.status == 400
