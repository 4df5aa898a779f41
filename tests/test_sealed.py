"""Sealed pages: the very people that stand in the roster now, read as a few rows.

Held on SQLite and on PostgreSQL against the way without them, whatever changed in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import blank
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manual_clock import ManualClock
from sqlalchemy import create_engine, text
from town import FLOWER, FLOWER_1, FLOWER_2, OLD, OLD_1, WATER, WATER_1, WATER_2, Town, audience, phone, town, whole

from gateway.database import Database
from gateway.directory import people, sealed
from gateway.directory.importer import How
from gateway.directory.right import Rights
from gateway.directory.sealing import LACKING, Sealing
from gateway.directory.table import Roster
from gateway.directory.vault import Vault
from gateway.errors import ConfigError, Refused
from gateway.gate import Gate
from gateway.migrations import upgrade
from gateway.model import Audience, Group, Recipient, Target
from gateway.ports import Page
from gateway.transaction import Row, Tx

VILLAGES = (FLOWER_1, FLOWER_2, WATER_1, WATER_2, OLD_1)
NAMES = ("赵丽", "孙军")
Change = tuple[str, int, str]


@pytest.fixture(params=["sqlite", "postgresql"])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Town]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    async with town(url) as one:
        yield one


@pytest.fixture
async def apart(database_url: str) -> AsyncIterator[Town]:
    """On PostgreSQL alone: what two processes do to each other."""
    async with town(database_url) as one:
        yield one


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three people fill a page, so that a few make several; and two townships a question."""
    monkeypatch.setattr(sealed, "SIZE", 3)
    monkeypatch.setattr(people, "AT_ONCE", 2)


async def together(here: Town, asked: Audience, limit: int, after: Any = None) -> list[tuple[str, Recipient]]:
    """Every (township, recipient) behind a cursor as the planner asks, which makes pages where there are none."""
    found: list[Page] = []
    while not found or found[-1].after is not None:
        more = await here.directory.pages(asked, found[-1].after if found else after, limit)
        assert all(len(page.persons) <= limit for page in more)
        for page in more:  # what is known of carriers is always the newest
            known = {page.persons[at]: text for at, text in page.carriers.items()}
            assert known == await here.directory.carriers(page.persons)
        found += more
    return [(page.township, one) for page in found for one in page.recipients]


async def stored(here: Town) -> list[Row]:
    """(township, village, person) of the pages there are."""
    return await here.database.read(
        lambda tx: tx.all("SELECT township, village, person FROM sealed_page ORDER BY township, village, person")
    )


async def forgotten(here: Town) -> None:
    """Leave no pages."""
    await here.database.write(lambda tx: tx.run("DELETE FROM sealed_page"))


async def made_ahead(here: Town) -> None:
    """Let a planner make what pages there are to be made."""
    sealing = Sealing(here.database, here.vault, Gate())
    for _ in range(2):
        await sealing.work()


async def peopled(here: Town, *villages: str) -> None:
    """One resident per village named, numbered from 1."""
    await here.residents(*(("赵丽", phone(at), village) for at, village in enumerate(villages, 1)))


async def change(here: Town, what: str, number: int, village: str) -> None:
    """Let one thing happen to a person or a list."""
    name, rights = NAMES[number % 2], Rights(here.database, here.vault, ManualClock())
    resident, official = (name, phone(number), village, "opted_in"), (name, phone(number), village, "monitor")
    try:
        match what:
            case "resident":
                await here.bring(Roster.RESIDENTS, resident)
            case "official":
                await here.bring(Roster.OFFICIALS, official)
            case "list":
                how = How(replace=True, within=village[:9], removable=1.0)
                await here.bring(Roster.RESIDENTS, resident, (NAMES[0], phone(2), village, "opted_in"), how=how)
            case "tried":
                await here.bring(Roster.RESIDENTS, resident, how=How(dry=True))
            case "out" | "in":
                await rights.opt_out(phone(number), "clerk", on=what == "out")
            case "erase":
                await rights.erase(phone(number), name, "clerk")
            case "readmit":
                await rights.readmit(phone(number), name, "clerk")
            case "moved":
                await here.directory.refused([here.person(name, number)], ["mobile"])
            case "gone":
                await here.directory.retire([here.person(name, number)])
    except Refused:
        return  # nobody is there, or an official: nothing happens


CHANGES = st.tuples(
    st.sampled_from(
        [
            "resident",
            "resident",
            "resident",
            "official",
            "list",
            "tried",
            "out",
            "in",
            "erase",
            "readmit",
            "gone",
            "moved",
        ]
    ),
    st.integers(1, 12),
    st.sampled_from(VILLAGES),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rounds=st.lists(st.lists(CHANGES, min_size=1, max_size=8), min_size=1, max_size=4),
    limit=st.integers(1, 8),
    start=st.integers(0, 12),
)
def test_pages_hold_whom_the_roster_holds_whatever_happened_in_between(
    database: str, rounds: Sequence[Sequence[Change]], limit: int, start: int
) -> None:
    """Nobody who opted out, moved or was erased may hear from an old page, and nobody may be missing from it."""
    assert asyncio.run(compare(database, rounds, limit, start)) == len(rounds)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL alone: the examples share it."""
    if request.param == "sqlite":
        return blank.sqlite(tmp_path)
    return str(request.getfixturevalue("database_url"))


async def compare(database: str, rounds: Sequence[Sequence[Change]], limit: int, start: int) -> int:
    """Read every audience with and without pages, after each round of changes; return how many rounds agreed."""
    agreed = 0
    residents = partial(audience, Group.RESIDENTS)
    narrowed = Target(WATER, (WATER_2,))
    asked = [residents(), residents(before=whole(FLOWER)), residents(before=(narrowed,)), residents(narrowed)]
    asked += [Audience(one.targets, one.group, one.channel, opted_out=True, before=one.before) for one in asked]
    officials = partial(audience, Group.OFFICIALS)
    asked += [officials(), officials(before=whole(FLOWER)), officials(narrowed), officials(Target(FLOWER), narrowed)]
    async with town(database) as here:
        for table in ("place", "person", "sealed_page"):
            await here.database.write(partial(_empty, table=table))
        for changes in rounds:
            for happened in changes:
                await change(here, *happened)
            without = [await together(here, one, limit) for one in asked]
            await made_ahead(here)
            with_pages = [await together(here, one, limit) for one in asked]
            singly = [await here.all(one, limit) for one in asked]
            for one, pages in zip(asked, singly, strict=True):
                if len(pages) > start:  # behind anybody: a planner may have stopped there
                    township, person = pages[start]
                    cursor = (township, person.village, person.person)
                    assert await together(here, one, limit, cursor) == pages[start + 1 :]
            await forgotten(here)
            plain = [await here.all(one, limit) for one in asked]
            assert singly == plain
            assert (without, with_pages) == (plain, plain)
            await made_ahead(here)  # the next changes find pages
            agreed += 1
    return agreed


def _columns(tx: Tx) -> list[Row]:
    if tx.postgresql:
        return tx.all(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'person' ORDER BY ordinal_position"
        )
    return tx.all("SELECT name FROM pragma_table_info('person') ORDER BY cid")


def _empty(tx: Tx, table: str) -> None:
    tx.run(f"DELETE FROM {table}")


async def test_a_township_is_sealed_when_it_is_first_wanted_and_read_from_there(here: Town) -> None:
    """The second warning of a night reads a thousand people as one row; who is told does not differ."""
    await peopled(here, *[FLOWER_1] * 4, *[FLOWER_2] * 3, WATER_1)
    first = await together(here, audience(Group.RESIDENTS), 5)
    assert [row[0] for row in await stored(here)] == [FLOWER] * 3 + [WATER]
    assert (await stored(here))[2][1:] == ("~", 0)
    assert await together(here, audience(Group.RESIDENTS), 5) == first
    await here.database.write(lambda tx: tx.run("UPDATE sealed_page SET body = :body", body=Vault(b"x" * 32).seal(b"")))
    with pytest.raises(ConfigError, match="MINGLUO_SECRET_KEY"):
        await together(here, audience(Group.RESIDENTS), 5)


async def test_pages_are_full_though_some_opted_out(here: Town) -> None:
    """A batch that is cut short costs a claim and a settle like a full one."""
    await peopled(here, *[FLOWER_1] * 9)
    await Rights(here.database, here.vault, ManualClock()).opt_out(phone(4), "clerk")
    for _ in range(2):
        (page, *_rest) = await here.directory.pages(audience(Group.RESIDENTS), None, 6)
        assert len(page.persons) == 6


async def test_no_page_is_kept_of_what_changed_since_it_was_read(here: Town) -> None:
    """The planner reads, a person opts out, the planner writes: the old page must not be there afterwards."""
    await peopled(here, FLOWER_1, FLOWER_2)
    made = await here.database.read(lambda tx: sealed.make(tx, here.vault, FLOWER, "residents"))
    assert made is not None
    rows = sealed.seal(here.vault, made)
    await Rights(here.database, here.vault, ManualClock()).opt_out(phone(1), "clerk")
    assert not await here.database.write(partial(sealed.write, rows=rows))
    assert await stored(here) == []


@pytest.mark.parametrize("way", ["insert", "copy", "upsert", "plain"])
async def test_every_new_place_ends_the_page_however_it_is_written(here: Town, way: str) -> None:
    """A way of writing that is not counted leaves somebody out of an old page, the first and the last of a township."""
    types = {"township": "text", "audience": "text", "village": "text", "person": "bigint", "role": "text",
             "since": "bigint"}  # fmt: skip

    def write(tx: Tx, person: int, audience: str) -> dict[str, int]:
        row = (FLOWER, audience, FLOWER_1, person, "", 1)
        if way == "insert":
            tx.insert("place", types, [row])
        elif way == "copy":
            tx.copy("place", list(types), [row])
        elif way == "upsert":
            tx.upsert("place", types, [row], "DO NOTHING")
        else:
            values = dict(zip(types, row, strict=True))
            tx.run(f"INSERT INTO place ({', '.join(types)}) VALUES (:{', :'.join(types)})", **values)
        counted = "SELECT audience, SUM(changes) FROM roster_change WHERE township = :township GROUP BY audience"
        return {audience: int(number) for audience, number in tx.all(counted, township=FLOWER)}

    pages = [(town, roster, "~", 0, 0, b"") for town in (FLOWER, WATER) for roster in ("officials", "residents")]
    versions = [{"officials": 0, "residents": 0}]
    for person in range(1, 4):
        for changed, other_one in (("officials", "residents"), ("residents", "officials")):
            await forgotten(here)
            await here.database.write(lambda tx: tx.copy("sealed_page", sealed.COLUMNS, pages))
            was = versions[-1]
            now = was | await here.database.write(partial(write, person=person, audience=changed))
            left = await here.database.read(
                lambda tx: tx.all("SELECT township, audience FROM sealed_page ORDER BY 1, 2")
            )
            assert left == [(FLOWER, other_one), (WATER, "officials"), (WATER, "residents")]
            assert (now[changed] > was[changed], now[other_one]) == (True, was[other_one])
            versions.append(now)


async def test_officials_are_read_from_pages_that_were_made_ahead(here: Town) -> None:
    """Two thousand found and decrypted row by row keep the last one waiting; who opens another's page hears of it."""
    rows = [
        ("周强", phone(at), village, "monitor") for at, village in enumerate((FLOWER_1, FLOWER_2, WATER_1, OLD_1), 1)
    ]
    await here.officials(*rows)
    first = await together(here, audience(Group.OFFICIALS), 5)
    assert (len(first), await stored(here)) == (4, [])  # a warning waits for no page to be made
    await made_ahead(here)
    assert [row[0] for row in await stored(here)] == [FLOWER, WATER, OLD]
    assert await together(here, audience(Group.OFFICIALS), 5) == first
    await here.database.write(lambda tx: tx.run("UPDATE sealed_page SET body = :body", body=Vault(b"x" * 32).seal(b"")))
    with pytest.raises(ConfigError, match="MINGLUO_SECRET_KEY"):
        await together(here, audience(Group.OFFICIALS), 5)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_after_an_update_every_roster_that_was_there_gets_its_pages(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Whoever makes pages ahead knows a township by its version, which the update begins anew."""
    url = f"sqlite:///{tmp_path / 'old.db'}" if kind == "sqlite" else request.getfixturevalue("empty_database_url")
    upgrade(url, "0025")
    places = [(FLOWER, "residents"), (FLOWER, "officials"), (FLOWER, "subscribers"), (WATER, "officials")]
    insert = "INSERT INTO place (township, audience, village, person, role, since) VALUES ('{}', '{}', '', {}, '', 1)"
    with create_engine(url.replace("postgresql:", "postgresql+psycopg:")).begin() as connection:
        for person, place in enumerate(places):
            connection.execute(text(insert.format(*place, person)))
    database = Database(url)
    await database.open()
    lacking = await database.read(lambda tx: tx.all(LACKING, end=sealed.END))
    await database.close()
    assert sorted(row[:2] for row in lacking) == [(FLOWER, "officials"), (FLOWER, "residents"), (WATER, "officials")]


async def test_an_erasure_leaves_no_page_with_the_address(here: Town) -> None:
    """D23: what was erased stands nowhere, however well it is sealed; other townships keep their pages."""
    await peopled(here, FLOWER_1, FLOWER_2, WATER_1)
    await together(here, audience(Group.RESIDENTS), 5)
    await Rights(here.database, here.vault, ManualClock()).erase(phone(1), "赵丽", "clerk")
    assert [row[0] for row in await stored(here)] == [WATER]


async def test_no_page_is_made_while_a_place_has_no_person(here: Town) -> None:
    """Nothing would tell when the person comes, who then would never be warned."""
    await peopled(here, FLOWER_1, FLOWER_2)
    rows = await here.database.read(lambda tx: tx.all("SELECT * FROM person WHERE id = :p", p=here.person("赵丽", 2)))
    await here.database.write(lambda tx: tx.run("DELETE FROM person WHERE id = :p", p=here.person("赵丽", 2)))
    assert len(await together(here, audience(Group.RESIDENTS), 5)) == 1
    assert await stored(here) == []
    columns = [name for (name,) in await here.database.read(_columns)]
    await here.database.write(lambda tx: tx.copy("person", columns, rows))
    assert len(await together(here, audience(Group.RESIDENTS), 5)) == 2


async def test_pages_are_sealed_with_the_vault(here: Town) -> None:
    """A copy of the database names nobody without the secret."""
    await peopled(here, FLOWER_1)
    await together(here, audience(Group.RESIDENTS), 5)
    ((body,),) = await here.database.read(lambda tx: tx.all("SELECT body FROM sealed_page"))
    assert phone(1).encode() not in bytes(body)
    assert phone(1).encode() in here.vault.open(bytes(body))


async def test_a_change_that_commits_after_the_page_ends_it(apart: Town) -> None:
    """Neither of two processes sees the other's work before its commit; the page must not outlive the change."""
    await peopled(apart, FLOWER_1, FLOWER_2)
    with other(apart) as opting_out:
        opting_out.execute("UPDATE person SET opted_out = 1 WHERE id = %s", [apart.person("赵丽", 1)])
        await together(apart, audience(Group.RESIDENTS), 5)
        assert len(await stored(apart)) == 1  # sealed beside it, with both
        opting_out.execute("COMMIT")
    assert [one.person for _, one in await apart.all(audience(Group.RESIDENTS))] == [apart.person("赵丽", 2)]
    found = await together(apart, audience(Group.RESIDENTS), 5)
    assert [one.person for _, one in found] == [apart.person("赵丽", 2)]


@pytest.mark.parametrize("ended", ["COMMIT", "ROLLBACK"])
async def test_no_page_is_written_while_an_import_or_an_erasure_holds_the_roster(apart: Town, ended: str) -> None:
    """An erasure deletes the pages it sees: one that is written beside it would keep the address."""
    await peopled(apart, FLOWER_1, FLOWER_2)
    with other(apart) as erasing:
        erasing.execute("SELECT pg_advisory_xact_lock(%s)", [sealed.ONE_AT_A_TIME])
        assert len(await together(apart, audience(Group.RESIDENTS), 5)) == 2
        assert await stored(apart) == []
        erasing.execute(ended)
    assert len(await together(apart, audience(Group.RESIDENTS), 5)) == 2
    assert len(await stored(apart)) == 1


async def test_an_opt_out_does_not_wait_for_an_import_of_the_same_township(apart: Town) -> None:
    """The writer that would wait is the one that stores warnings; an import may take minutes."""
    await peopled(apart, FLOWER_1, FLOWER_2)
    await together(apart, audience(Group.RESIDENTS), 5)
    with other(apart) as importing:
        importing.execute("UPDATE place SET since = 1 WHERE person = %s", [apart.person("赵丽", 2)])
        await Rights(apart.database, apart.vault, ManualClock()).opt_out(phone(1), "clerk")
        assert len(await apart.all(audience(Group.RESIDENTS))) == 1
        importing.execute("ROLLBACK")
    assert len(await together(apart, audience(Group.RESIDENTS), 5)) == 1


async def test_changes_are_counted_in_one_row_once_a_township_is_sealed(apart: Town) -> None:
    """Every transaction counts in a row of its own; years of them must not slow the reading."""
    await peopled(apart, FLOWER_1, FLOWER_2)
    for on in (True, False, True):
        await Rights(apart.database, apart.vault, ManualClock()).opt_out(phone(1), "clerk", on=on)
    await together(apart, audience(Group.RESIDENTS), 5)
    rows = await apart.database.read(lambda tx: tx.all("SELECT township, xid FROM roster_change"))
    assert rows == [(FLOWER, 0)]
    assert len(await together(apart, audience(Group.RESIDENTS), 5)) == 1
    assert len(await stored(apart)) == 1


@contextmanager
def other(here: Town) -> Iterator[psycopg.Connection[Any]]:
    """Another process's transaction."""
    with psycopg.connect(here.database.url, autocommit=True) as connection:
        connection.execute("BEGIN")
        yield connection
