"""Rosters going out: what is written can be read by an office, and comes in again as it was."""

from __future__ import annotations

import asyncio
import csv
import io
from pathlib import Path

import blank
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from town import ABROAD_1, FLOWER, FLOWER_1, SECRET, WATER_1, Town, phone, places, subscription, table, town

from gateway.directory.export import FORMULA, export, neutral
from gateway.directory.importer import How
from gateway.directory.roster import write_sample
from gateway.directory.row import Reading, Wrong
from gateway.directory.table import Roster
from gateway.directory.vault import Vault

COUNTY = "411726"
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


async def written(here: Town, kind: Roster, within: str = COUNTY) -> str:
    """A county's list."""
    out = io.StringIO()
    await export(here.database, here.vault, kind, within, out)
    return out.getvalue()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    postgresql: bool = request.param == "postgresql"
    return request.getfixturevalue("database_url") if postgresql else blank.sqlite(tmp_path)


async def test_an_exported_county_is_unchanged_when_it_is_imported_again(url: str, tmp_path: Path) -> None:
    """Exporting, mending a row and importing is how offices work; nothing else may change on the way."""
    write_sample(
        tmp_path / "roster",
        places(),
        300,
        3,
        townships=(FLOWER, WATER_1[:9]),
        push_endpoint=lambda at: f"https://p/{at}",
    )
    async with town(url) as here, town(f"sqlite:///{tmp_path}/fresh.db") as fresh:
        for kind in Roster:
            with (tmp_path / "roster" / f"{kind}.csv").open("rb") as file:
                brought = await here.importer.read(file, kind)
            text = await written(here, kind)
            assert text.startswith("\ufeff")
            again = await here.importer.read(io.BytesIO(text.encode()), kind, How(replace=True))
            assert (again.failed, again.removed, again.unchanged) == (0, 0, brought.added)
            assert again.changed + again.moved + again.added == 0
            assert (await fresh.importer.read(io.BytesIO(text.encode()), kind)).failed == 0
            assert await written(fresh, kind) == text


async def test_only_the_places_of_the_county_are_exported(url: str) -> None:
    """A county's list is nobody else's business, and it may not carry the neighbours' numbers."""
    async with town(url) as here:
        await here.residents(("赵丽", phone(1), FLOWER_1), ("赵丽", phone(1), ABROAD_1), ("孙军", phone(2), ABROAD_1))
        rows = list(csv.reader((await written(here, Roster.RESIDENTS)).splitlines()))
        assert rows[1:] == [["赵丽", phone(1), FLOWER_1 + "\t", "本人登记", "否", ""]]
        assert len((await written(here, Roster.RESIDENTS, "4117")).splitlines()) == 4


async def test_what_a_spreadsheet_would_run_is_text_and_comes_back_whole(url: str) -> None:
    """A name typed into a public form must not become a command on the machine of whoever opens the list."""
    names = ("=HYPERLINK(A1)", "@SUM(a)", "+a", "-b", "'c")
    async with town(url) as here:
        rows = [("x" + name, phone(at), FLOWER_1, "opted_in") for at, name in enumerate(names, 1)]
        for row in rows:  # as text in a workbook they come in as they are; a CSV marks them
            row_in = (neutral(row[0][1:]), *row[1:])
            assert (await here.importer.read(table(Roster.RESIDENTS, row_in), Roster.RESIDENTS)).added == 1
        await here.bring(Roster.SUBSCRIBERS, (subscription(1), FLOWER, "zh"))
        text = await written(here, Roster.RESIDENTS)
        for cells in csv.reader(text.splitlines()):
            assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
        again = await here.importer.read(io.BytesIO(text.encode()), Roster.RESIDENTS)
        assert (again.unchanged, again.failed) == (len(names), 0)


@settings(max_examples=25, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=8))
def test_any_name_survives_the_way_out_and_in(names: list[str]) -> None:
    """The id of a person hangs on the name: one letter lost would make two people of one."""
    reading = Reading(Roster.RESIDENTS, places(), Vault(SECRET))

    async def round_trip() -> None:
        async with town(blank.sqlite(Path(folder))) as here:
            rows = [(neutral(name), phone(at), FLOWER_1, "opted_in") for at, name in enumerate(names, 1)]
            brought = await here.importer.read(table(Roster.RESIDENTS, *rows), Roster.RESIDENTS)
            text = await written(here, Roster.RESIDENTS)
            again = await here.importer.read(io.BytesIO(text.encode()), Roster.RESIDENTS)
            assert (again.failed, again.unchanged, again.added) == (0, brought.added, 0)
            assert brought.added == sum(map(readable, enumerate(names, 1)))

    def readable(item: tuple[int, str]) -> bool:
        cells = {"name": item[1].strip(), "phone": phone(item[0]), "village": FLOWER_1, "basis": "opted_in"}
        try:
            reading.read(0, 1, cells)
        except Wrong:
            return False
        return True

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(round_trip())


@given(st.text(max_size=10))
def test_a_neutral_cell_begins_with_nothing_a_spreadsheet_computes(cell: str) -> None:
    """Whatever stands in the cell."""
    assert not neutral(cell).startswith(tuple(set(FORMULA) - {"'"}))
