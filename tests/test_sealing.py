"""Pages made ahead: the first warning after an import finds them, and nothing is made of what still changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import blank
import psycopg
import pytest
from manual_clock import ManualClock
from town import FLOWER, FLOWER_1, FLOWER_2, WATER, WATER_1, Town, audience, phone, town

from gateway.directory import sealed
from gateway.directory.right import Rights
from gateway.directory.sealing import Sealing
from gateway.directory.vault import Vault
from gateway.errors import ConfigError
from gateway.gate import Gate
from gateway.model import Group, Lane


@pytest.fixture(params=["sqlite", "postgresql"])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Town]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    async with town(url) as one:
        await one.residents(
            *(("赵丽", phone(at), village) for at, village in enumerate((FLOWER_1, FLOWER_2, WATER_1), 1))
        )
        yield one


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Townships whose pages were made, by whomever."""
    found: list[str] = []
    make = sealed.make

    def counted(tx: object, vault: object, township: str, audience: str) -> sealed.Made | None:
        found.append(township)
        return make(tx, vault, township, audience)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(sealed, "make", counted)
    return found


async def sealed_ones(here: Town) -> list[str]:
    return [
        one for (one,) in await here.database.read(lambda tx: tx.all("SELECT township FROM sealed_page ORDER BY 1"))
    ]


async def opt_out(here: Town, number: int, *, on: bool) -> None:
    await Rights(here.database, here.vault, ManualClock()).opt_out(phone(number), "clerk", on=on)


async def test_whom_the_first_warning_reads_was_made_ready_before(here: Town, made: list[str]) -> None:
    """A million people decrypted one by one while a dam breaks took ten seconds; nobody is to pay that at night."""
    sealing = Sealing(here.database, here.vault, Gate())
    await sealing.work()
    assert made == []  # an import may still be under way
    await sealing.work()
    assert (sorted(made), await sealed_ones(here)) == ([FLOWER, WATER], [FLOWER, WATER])
    pages = await here.directory.pages(audience(Group.RESIDENTS), None, 10)
    assert sum(len(page.persons) for page in pages) == 3
    await sealing.work()
    await sealing.work()
    assert [made.count(one) for one in (FLOWER, WATER)] == [1, 1]  # they stand


async def test_only_who_has_changed_and_rests_is_made_anew(here: Town, made: list[str]) -> None:
    """A night of replies must not make a county's pages again and again."""
    sealing = Sealing(here.database, here.vault, Gate())
    for _ in range(2):
        await sealing.work()
    made.clear()
    await opt_out(here, 1, on=True)
    await sealing.work()
    await opt_out(here, 1, on=False)
    await sealing.work()
    assert (made, await sealed_ones(here)) == ([], [WATER])
    await sealing.work()
    assert (made, await sealed_ones(here)) == ([FLOWER], [FLOWER, WATER])


async def test_what_has_no_pages_is_not_tried_for_ever(here: Town, made: list[str]) -> None:
    """A place whose person is not there yet has none, nor has a township that everybody has left."""
    await here.database.write(lambda tx: tx.run("DELETE FROM person WHERE id = :id", id=here.person("赵丽", 3)))
    sealing = Sealing(here.database, here.vault, Gate())
    for _ in range(4):
        await sealing.work()
    assert (sorted(made), await sealed_ones(here)) == ([FLOWER, WATER], [FLOWER])


async def test_warnings_go_first(here: Town, made: list[str]) -> None:
    """It is done where warnings are planned, on the same cores: it waits for them, though not for ever."""
    gate = Gate(at_most_s=0.1)
    sealing = Sealing(here.database, here.vault, gate)
    await sealing.work()
    gate.enter(Lane.BULK)
    working = asyncio.create_task(sealing.work())
    await asyncio.sleep(0.05)
    assert made == []
    await working
    assert sorted(made) == [FLOWER, WATER]


async def test_it_leaves_off_while_the_roster_is_being_changed(database_url: str, made: list[str]) -> None:
    """An import of a million rows takes a minute, and whatever is made beside it is made in vain."""
    async with town(database_url) as here:
        await here.residents(("赵丽", phone(1), FLOWER_1), ("赵丽", phone(2), WATER_1))
        sealing = Sealing(here.database, here.vault, Gate())
        await sealing.work()
        with psycopg.connect(database_url) as importing:
            importing.execute("SELECT pg_advisory_xact_lock(%s)", [sealed.ONE_AT_A_TIME])
            await sealing.work()
            assert (len(made), await sealed_ones(here)) == (1, [])
        await sealing.work()
        assert await sealed_ones(here) == [FLOWER, WATER]


async def test_a_township_that_cannot_be_opened_holds_up_no_other(here: Town) -> None:
    """A back-up brought back with the wrong key is said, once, and the rest is made ready."""
    other = Vault(b"x" * 32)
    await here.database.write(
        lambda tx: tx.run(
            "UPDATE person SET secret = :secret WHERE id = :id", secret=other.seal(b"?"), id=here.person("赵丽", 3)
        )
    )
    sealing = Sealing(here.database, here.vault, Gate())
    await sealing.work()
    for _ in range(2):
        with suppress(ConfigError):
            await sealing.work()
    assert await sealed_ones(here) == [FLOWER]
    await sealing.work()  # says nothing more
