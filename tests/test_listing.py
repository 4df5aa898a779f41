"""Listing and kept answers, held by SQLite and by PostgreSQL; and what an upgraded database lists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import blank
import pytest
from alembic import command
from alembic.config import Config
from manual_clock import START, ManualClock
from sqlalchemy import create_engine, text

from gateway import migrations
from gateway.database import Database
from gateway.model import Alert, Document, Kind, Level, Plan, Record, Reference, Status, Target
from gateway.ports import Draft
from gateway.store import Store
from gateway.store.answer import LEASE, Answers, Kept, Taken, Turn
from gateway.store.codec import pack
from gateway.store.listing import Key, Listing, Wanted
from gateway.transaction import micros

SENDER = "411726-qxj@mingluo.example"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a row."""
    found = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    return str(found)


@pytest.fixture
async def store(url: str, clock: ManualClock) -> AsyncIterator[Store]:
    database = Database(url)
    await database.open()
    yield Store(database, clock)
    await database.close()


def alert(identifier: str, **changes: object) -> Alert:
    """A red warning, with changes."""
    one = Alert(
        SENDER, identifier, START, Status.ACTUAL, Kind.ALERT, Document.WARNING, "11B03", "暴雨", Level.RED,
        expires=START + timedelta(hours=3),
    )  # fmt: skip
    return replace(one, **changes)  # type: ignore[arg-type]  # fields by name


def plan_of(one: Alert, *townships: str) -> Plan:
    return Plan(one.id, "green", (), tuple(map(Target, townships)), (), ())


async def accept(store: Store, one: Alert, *townships: str, standing: str = "active", after_s: float = 0) -> None:
    """Accept a message about these townships, so long after the beginning."""
    at = START + timedelta(seconds=after_s)
    record = Record(at, "issuer", "accept", one.id)
    draft = Draft(one, one.id, plan_of(one, *townships), (), {}, [record], {}, at, "issuer", standing)
    assert (await store.outbox.accept(draft)).result == "accepted"


async def found(store: Store, **wanted: object) -> list[str]:
    part = await store.listing.part(Wanted(**wanted), None, 100)  # type: ignore[arg-type]  # fields by name
    return [row.alert.identifier for row in part.rows]


async def test_each_filter_narrows_and_an_alert_is_listed_by_what_it_was_accepted_as(store: Store) -> None:
    """The officer's question is answered by the database alone; an error here hides a warning."""
    await accept(store, alert("a"), "411726204", "411728100")
    await accept(store, alert("b", level=Level.ORANGE, event_code="11A01"), "411702001", after_s=1)
    await accept(store, alert("c", status=Status.EXERCISE, sender="city"), "411726209", standing="sign", after_s=2)
    await accept(store, alert("d", document=Document.SERVICE, level=Level.UNKNOWN), after_s=3)
    assert await found(store) == ["d", "c", "b", "a"]
    assert await found(store, level=(Level.RED.value, Level.ORANGE.value)) == ["c", "b", "a"]
    assert await found(store, level=(0,)) == ["d"]
    assert await found(store, hazard="11B", status=("Actual",)) == ["d", "a"]
    assert await found(store, standing=("sign",)) == ["c"]
    assert await found(store, sender="city") == ["c"]
    assert await found(store, area="411726") == ["c", "a"]
    assert await found(store, area="4117") == ["c", "b", "a"]
    assert await found(store, area="411728100201") == ["a"]
    assert await found(store, since=START + timedelta(seconds=1), until=START + timedelta(seconds=3)) == ["c", "b"]
    # What has no known place is left to the caller, whoever asks; what is not theirs is not.
    assert await found(store, within=("411728",)) == ["d", "a"]
    assert await found(store, within=("411728",), own="city") == ["d", "c", "a"]
    assert await found(store, within=()) == ["d"]
    assert await found(store, within=("41",)) == ["d", "c", "b", "a"]


async def test_parts_go_on_behind_a_key_that_needs_no_row(store: Store) -> None:
    """Retention may remove the alert a cursor stands on; the walk goes on all the same."""
    for number in range(5):
        await accept(store, alert(f"n{number}"), "411726204", after_s=number // 2)
    listing = Listing(store.database, scan=2)
    walked, key = [], None
    while True:
        rows, key = await listing.part(Wanted(), key, 2)
        walked += [row.alert.identifier for row in rows]
        if key is None:
            break
        await store.database.write(lambda tx, gone=key.id: tx.run("DELETE FROM alert WHERE id = :id", id=gone))  # type: ignore[misc]  # a bound default
    assert sorted(walked) == [f"n{number}" for number in range(5)]
    assert (await listing.part(Wanted(), Key(0, ""), 2)).rows == []


async def test_the_filters_read_the_index_and_not_the_messages(tmp_path: Path) -> None:
    """A polygon of 41,000 points in each of a thousand messages must not be read to see which are red."""
    database = Database(blank.sqlite(tmp_path))
    await database.open()
    rows = await database.read(
        lambda tx: tx.all(
            "EXPLAIN QUERY PLAN SELECT accepted_at, id, standing, status, document, level, event_code, sender"
            " FROM alert WHERE (accepted_at, id) < (:at, :id) ORDER BY accepted_at DESC, id DESC LIMIT 2000",
            at=2**62,
            id="",
        )
    )
    await database.close()
    assert ["COVERING INDEX alert_listing" in row[3] for row in rows] == [True]


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_an_upgraded_database_lists_its_old_alerts(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest, clock: ManualClock
) -> None:
    """What was issued before the update must not fall out of the list, nor out of the audit chain."""
    url = f"sqlite:///{tmp_path}/old.db" if dialect == "sqlite" else request.getfixturevalue("empty_database_url")
    old, away = alert("old", references=(Reference("s", "i", START),)), alert("away", level=Level.BLUE)
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for one, townships in ((old, ("411726204",)), (away, ())):
            connection.execute(
                text(
                    "INSERT INTO alert (id, sender, identifier, sent, content_digest, body, plan, standing, reason,"
                    " issuer, accepted_at, expires) VALUES (:id, :sender, :identifier, 0, '', :body, :plan, 'active',"
                    " '', '', :at, 0)"
                ),
                {"id": one.id, "sender": one.sender, "identifier": one.identifier, "body": pack(one),
                 "plan": pack(plan_of(one, *townships)), "at": micros(START)},
            )  # fmt: skip
        connection.commit()
    engine.dispose()
    database = Database(url)
    await database.open()
    store = Store(database, clock)
    assert sorted(await found(store, document=("warning",), status=("Actual",), hazard="11B03")) == ["away", "old"]
    assert await found(store, level=(Level.RED.value,), area="411726") == ["old"]
    await store.audit.append(Record(START, "a", "b", "c"))
    assert await store.audit.verify() == (1, "")
    await database.close()


# --- kept answers ---------------------------------------------------------------------------------


async def test_a_key_is_taken_once_by_all_processes_together(store: Store, clock: ManualClock) -> None:
    """Two processes behind a proxy get the same request twice; one of them runs it."""
    here, there = store.answers, Answers(store.database, clock)
    began = await asyncio.gather(*(one.begin("k", "d") for one in (here, here, here)))
    [turn] = [one for one in began if isinstance(one, Turn)]
    assert [one for one in began if one is not turn] == [Taken.IN_FLIGHT] * 2
    assert await here.begin("k", "other") is Taken.REUSED
    await here.keep(turn, Kept(202, b"{}"))
    assert await there.begin("k", "d") == Kept(202, b"{}")
    assert await there.begin("k", "other") is Taken.REUSED


async def test_a_key_of_a_process_that_died_is_taken_over(store: Store, clock: ManualClock) -> None:
    """At once where there is only one process, and after its lease where there are several."""
    dead = Answers(store.database, clock)
    late = await dead.begin("k", "d")
    assert isinstance(late, Turn)
    if store.database.dialect == "postgresql":
        assert await store.answers.begin("k", "d") is Taken.IN_FLIGHT
        clock.advance(LEASE.total_seconds())
    turn = await store.answers.begin("k", "d")
    assert isinstance(turn, Turn)
    await dead.keep(late, Kept(500, b"late"))
    await dead.release(late)
    await store.answers.keep(turn, Kept(200, b"{}"))
    assert await dead.begin("k", "d") == Kept(200, b"{}")


async def test_a_released_key_is_free(store: Store) -> None:
    """Nothing was done under it."""
    turn = await store.answers.begin("k", "d")
    assert isinstance(turn, Turn)
    await store.answers.release(turn)
    assert isinstance(await store.answers.begin("k", "another"), Turn)
