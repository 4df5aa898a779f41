"""Importing rosters: what a county office hands over, with all that spreadsheets do to numbers, and what comes of it.

A row that is silently wrong is a family nobody warns; a row that is silently dropped is the same.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import blank
import pytest
from hypothesis import given
from hypothesis import strategies as st
from manual_clock import ManualClock
from town import (
    ABROAD_1,
    FLOWER,
    FLOWER_1,
    FLOWER_2,
    HEADERS,
    OLD_1,
    SECRET,
    WATER,
    WATER_1,
    WATER_2,
    Cells,
    Town,
    audience,
    phone,
    places,
    subscription,
    table,
    town,
    whole,
)

from gateway.directory.importer import CHUNK, ERRORS_KEPT, How, Imported
from gateway.directory.newcomer import Newcomers
from gateway.directory.roster import write_sample
from gateway.directory.row import PersonRow, Reading, Wrong
from gateway.directory.table import Roster, RowError, Table
from gateway.directory.vault import Vault
from gateway.directory.working import CHANGED, People, ask_people
from gateway.errors import Refused
from gateway.model import Group, Record
from gateway.store import Store
from gateway.transaction import Row, Tx

TOWNSHIPS = ("411726001", "411726002", "411726003")
OFFICIALS_ZH = ("姓名", "手机号", "区划代码", "职务", "序位")
GOOD = ("王强", phone(1), FLOWER_1, "monitor")


@pytest.fixture(params=["sqlite", "postgresql"])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Town]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    async with town(url) as one:
        yield one


def errors_of(roster: Roster, *rows: Cells) -> tuple[int, list[RowError]]:
    """How many rows are good, and what is wrong with the others."""
    reading = Reading(roster, places(), Vault(SECRET))
    errors: list[RowError] = []
    good = 0
    for sheet, row, cells in Table.open(table(roster, *rows), roster):
        assert not isinstance(cells, RowError)
        try:
            reading.read(sheet, row, cells)
        except Wrong as wrong:
            errors.append(RowError(row, wrong.column, wrong.message, sheet))
        else:
            good += 1
    return good, errors


async def roles(here: Town) -> list[tuple[str, str, str]]:
    """(township, village, role) of every place that stands."""
    rows = await here.database.read(
        lambda tx: tx.all(
            "SELECT township, village, role FROM place WHERE until IS NULL ORDER BY township, village, role"
        )
    )
    return [(township, village, role) for township, village, role in rows]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk"])
def test_names_arrive_whole_in_every_encoding_offices_save(encoding: str) -> None:
    """D27: Excel saves GBK or UTF-8 with a mark; the one found is reported, so that nobody has to guess."""
    file = table(Roster.OFFICIALS, ("王强", phone(1), FLOWER_1, "村干部"), header=OFFICIALS_ZH, encoding=encoding)
    found = Table.open(file, Roster.OFFICIALS)
    assert found.format == {"gbk": "gb18030"}.get(encoding, encoding)
    ((sheet, row, cells),) = found
    assert (sheet, row) == (0, 2)
    assert cells == {"name": "王强", "phone": phone(1), "village": FLOWER_1, "role": "村干部", "rank": ""}
    del found
    assert not file.closed


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"PK\x03\x04rest of a workbook", ".xlsx cannot be read"),
        (b"\xd0\xcf\x11\xe0rest", ".xls cannot be read"),
        ("姓名,手机".encode("utf-16"), "UTF-16"),
        ("姓名,手机".encode() + b"\xff\xff\n", "neither UTF-8 nor GBK"),
        (b"name,phone,village,role\n" + "王强,1\n李敏敏".encode()[:-1] + b",1\n", "neither UTF-8 nor GBK"),
        (b"", "no header"),
        ("姓名,手机号,区划代码\n王强,10000000001,411726001001\n".encode(), "missing role"),
        ("姓名;手机号;区划代码;职务\n".encode(), "commas"),
        ("姓名,name,手机号,区划代码,职务\n".encode(), "twice: A, B"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused_with_the_fix(head: bytes, told: str) -> None:
    """A clerk learns what to save instead, and nothing of the file is quoted."""
    with pytest.raises(Refused) as refused:
        Table.open(io.BytesIO(head), Roster.OFFICIALS)
    assert told in refused.value.detail
    assert "王强" not in refused.value.detail


async def test_a_merged_title_and_foreign_columns_do_no_harm(here: Town) -> None:
    """D23, D27: lists come with a title row, and with labels of households that must never be stored."""
    text = (
        "泌阳县花园街道名册,,,,\n序号,姓名,手机,村代码,依据,贫困户\n"
        f"1,张　伟,{phone(1)},{FLOWER_1},本人登记,是\n,,,,,\n"
    )
    result = await here.importer.read(io.BytesIO(text.encode()), Roster.RESIDENTS)
    assert (result.rows, result.added, result.ignored) == (1, 1, ("A", "F"))
    assert [one.person for _, one in await here.all(audience(Group.RESIDENTS))] == [here.person("张伟", 1)]


@pytest.mark.parametrize(
    ("cells", "column", "told"),
    [
        (("王强", "1.39E+10", FLOWER_1, "monitor"), "phone", "a number in scientific notation has lost digits"),
        (("王强", "", FLOWER_1, "monitor"), "phone", "is missing"),
        (("王强", "1380000", FLOWER_1, "monitor"), "phone", "not an 11-digit mobile number"),
        (("", phone(1), FLOWER_1, "monitor"), "name", "is missing"),
        (("王" * 61, phone(1), FLOWER_1, "monitor"), "name", "longer than"),
        (("王强\n李敏", phone(1), FLOWER_1, "monitor"), "name", "line break"),
        (("王强", phone(1), "4.11726E+11", "monitor"), "village", "a code in scientific notation has lost digits"),
        (("王强", phone(1), "411726001999", "monitor"), "village", "unknown code"),
        (("王强", phone(1), "411726", "monitor"), "village", "the code of a county"),
        (("王强", phone(1), "花园", "monitor"), "village", "not a code"),
        (("王强", phone(1), "", "monitor"), "village", "is missing"),
        (("王强", phone(1), FLOWER, "village_head"), "village", "answers for one village"),
        (("王强", phone(1), FLOWER_1, "lookout"), "role", "must be one of: village_head 村干部"),
        (("王强", phone(1), FLOWER_1, "monitor", "first"), "rank", "not a number from 1 to 99"),
    ],
)
def test_a_wrong_row_is_named_without_its_value(cells: Cells, column: str, told: str) -> None:
    """T28: the error list is printed and mailed, so it names row and column, never a person."""
    good, (error,) = errors_of(Roster.OFFICIALS, cells, ("李敏", phone(2), FLOWER_2, "monitor"))
    assert good == 1
    assert (error.row, error.column) == (2, column)
    assert told in error.message


async def test_good_rows_come_in_beside_bad_ones(here: Town) -> None:
    """One typing error in a list must not keep a whole county unwarned."""
    result = await here.bring(Roster.OFFICIALS, GOOD, ("李敏", "1.0E+10", FLOWER_2, "monitor"), (*GOOD[:3], "网格员"))
    assert (result.rows, result.added, result.failed) == (3, 1, 1)
    assert [error.row for error in result.errors] == [3]
    assert len(await here.all(audience(Group.OFFICIALS))) == 1


@pytest.mark.parametrize(
    ("roster", "cells", "column", "told"),
    [
        (Roster.RESIDENTS, ("王强", phone(1), FLOWER_1, ""), "basis", "is missing"),
        (Roster.RESIDENTS, ("王强", phone(1), FLOWER_1, "because"), "basis", "opted_in"),
        (Roster.RESIDENTS, ("王强", phone(1), FLOWER, "opted_in"), "village", "the code of a township"),
        (Roster.RESIDENTS, ("王强", phone(1), FLOWER_1, "opted_in", "maybe"), "needs_helper", "must be one of"),
        (Roster.SUBSCRIBERS, ("{}", FLOWER, "zh"), "subscription", "not a PushSubscription"),
        (Roster.SUBSCRIBERS, ("", FLOWER, "zh"), "subscription", "is missing"),
        (Roster.SUBSCRIBERS, (subscription(1).replace("https", "file"), FLOWER, "zh"), "subscription", "https"),
        (Roster.SUBSCRIBERS, (subscription(1), FLOWER, "fr"), "language", "must be one of"),
        (Roster.SUBSCRIBERS, (subscription(1), "411700", "zh"), "area", "the code of a city"),
        (Roster.DEVICES, ("lb 1", FLOWER_1, "k" * 16), "name", "must be 1 to 64"),
        (Roster.DEVICES, ("lb-1", FLOWER_1, "short"), "key", "shorter than 16"),
        (Roster.DEVICES, ("lb-1", FLOWER_1, ""), "key", "both are missing"),
    ],
)
def test_what_a_row_needs_is_asked_for(roster: Roster, cells: Cells, column: str, told: str) -> None:
    """D23: no resident without a recorded basis; nothing that could never be delivered to."""
    good, (error,) = errors_of(roster, cells)
    assert good == 0
    assert (error.row, error.column) == (2, column)
    assert told in error.message


def test_a_township_and_a_village_that_contradict_each_other_are_not_guessed() -> None:
    """One of the two codes is wrong; whichever was taken, a village could lose its official."""
    reading = Reading(Roster.OFFICIALS, places(), Vault(SECRET))
    cells = {"name": "王强", "phone": phone(1), "township": WATER, "village": FLOWER_1, "role": "monitor"}
    with pytest.raises(Wrong, match="does not belong"):
        reading.read(0, 2, cells)


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=5, max_size=5),
    st.sampled_from(Roster),
)
def test_no_error_quotes_a_cell(cells: list[str], roster: Roster) -> None:
    """T28: whatever stands in a row, its error repeats nothing of it that is not a word of ours."""
    reading = Reading(roster, places(), Vault(SECRET))
    secret = [f"{cell}7f3a9" for cell in cells]
    try:
        reading.read(0, 2, dict(zip(HEADERS[roster], secret, strict=False)))
    except Wrong as wrong:
        message = wrong.message
    else:
        message = ""
    assert "7f3a9" not in message


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_refused(body: bytes) -> None:
    """An upload can hold anything; it must end in findings, never in a traceback."""
    header = ",".join(HEADERS[Roster.OFFICIALS]).encode()
    reading = Reading(Roster.OFFICIALS, places(), Vault(SECRET))
    try:
        rows = list(Table.open(io.BytesIO(header + b"\n" + body), Roster.OFFICIALS))
    except Refused:
        return
    for sheet, number, cells in rows:
        if isinstance(cells, RowError):
            continue
        with pytest.raises(Wrong):
            reading.read(sheet, number, cells)


async def test_importing_again_changes_nothing(here: Town, tmp_path: Path) -> None:
    """Offices send the same list every month; a person must keep the id under which the ledger knows them."""
    write_sample(tmp_path / "roster", places(), 300, 3, townships=TOWNSHIPS, push_endpoint=lambda at: f"https://p/{at}")
    added: dict[Roster, int] = {}
    for roster in (*Roster, *Roster):
        with (tmp_path / "roster" / f"{roster}.csv").open("rb") as file:
            result = await here.importer.read(file, roster, How(replace=True))
        assert (result.errors, result.removed, result.moved, result.changed) == ((), 0, 0, 0)
        assert result.added == (0 if roster in added else result.added)
        assert result.unchanged == added.setdefault(roster, result.added) * (result.added == 0)
        assert 0 < added[roster] <= result.rows


async def test_what_differs_is_updated_and_reported(here: Town) -> None:
    """The clerk sees what a new list changed before trusting it."""
    await here.bring(
        Roster.RESIDENTS, ("赵丽", phone(1), FLOWER_1, "village_list"), ("孙军", phone(2), FLOWER_1, "opted_in")
    )
    again = await here.bring(
        Roster.RESIDENTS,
        ("赵丽", phone(1), FLOWER_1, "本人登记", "是"),
        ("孙军", f'="{phone(2)}"', FLOWER_1, "opted_in"),
        ("周勇", phone(3), FLOWER_1, "opted_in"),
    )
    assert (again.added, again.changed, again.moved, again.unchanged) == (1, 1, 0, 1)
    row = await here.database.read(
        lambda tx: tx.one("SELECT basis, needs_helper FROM person WHERE id = :p", p=here.person("赵丽", 1))
    )
    assert row == ("opted_in", 1)


async def test_another_rank_of_the_same_duty_takes_the_place_of_the_first(here: Town) -> None:
    """The order in which officials are called is one per duty and village."""
    await here.officials(GOOD)
    result = await here.bring(Roster.OFFICIALS, (*GOOD, "2"), ("王强", phone(1), FLOWER_1, "网格员"))
    assert (result.added, result.changed, result.moved) == (0, 1, 0)
    assert await roles(here) == [(FLOWER, FLOWER_1, "grid_worker"), (FLOWER, FLOWER_1, "monitor:2")]


async def test_one_number_with_one_name_is_one_person_and_with_two_names_two(here: Town) -> None:
    """T10: several roles in several lists are one message; a household sharing a telephone is not one person."""
    await here.officials(GOOD, ("王强", "+86 " + phone(1), WATER_1, "网格员"), ("李敏", phone(1), FLOWER_1, "monitor"))
    await here.residents(("王强", phone(1), OLD_1))
    assert await here.directory.people_at(phone(1)) == tuple(sorted((here.person("王强", 1), here.person("李敏", 1))))
    several = await here.database.read(lambda tx: tx.all("SELECT id FROM person WHERE several = 1"))
    assert several == [(here.person("王强", 1),)]
    assert await here.directory.sizes() == {"officials": 2, "loudspeakers": 0, "residents": 0, "subscribers": 0}


async def test_a_person_is_one_even_across_chunks_and_lists(here: Town) -> None:
    """The size of our chunks is no business of a village: the last row may be the second post of the first."""
    filling = [(f"张{number}", phone(number), FLOWER_1, "opted_in") for number in range(10, 10 + CHUNK)]
    result = await here.bring(
        Roster.RESIDENTS, ("赵丽", phone(1), FLOWER_1, "opted_in"), *filling, ("赵丽", phone(1), WATER_1, "opted_in")
    )
    assert (result.rows, result.added, result.several) == (CHUNK + 2, CHUNK + 1, 1)
    found = {one.person: one.places for _, one in await here.all(audience(Group.RESIDENTS))}
    assert len(found) == CHUNK + 1
    assert found[here.person("赵丽", 1)] == (FLOWER_1, WATER_1)


async def test_replacing_retires_only_whom_the_list_no_longer_names(here: Town) -> None:
    """A moved family is no longer warned of a river it left; the next county's people are none of this list's."""
    await here.residents(
        ("赵丽", phone(1), FLOWER_1),
        ("孙军", phone(2), FLOWER_1),
        ("周勇", phone(3), ABROAD_1),
        ("赵丽", phone(1), WATER_1),
    )
    await here.officials(GOOD)
    result = await here.bring(Roster.RESIDENTS, ("赵丽", phone(1), FLOWER_1, "opted_in"), replace=True)
    assert (result.moved, result.unchanged, result.removed) == (1, 0, 1)
    here_now = await here.all(audience(Group.RESIDENTS, *whole(*TOWNSHIPS, ABROAD_1[:9])))
    assert [(one.person, one.places) for _, one in here_now] == [
        (here.person("周勇", 3), ()), (here.person("赵丽", 1), ())
    ]  # fmt: skip
    assert await here.directory.people_at(phone(2)) == ()
    assert len(await here.all(audience(Group.OFFICIALS))) == 1


async def test_a_typing_error_retires_nobody(here: Town) -> None:
    """A list with a broken row would otherwise silence the very person whose number was mistyped."""
    await here.residents(("赵丽", phone(1), FLOWER_1), ("孙军", phone(2), FLOWER_1))
    result = await here.bring(
        Roster.RESIDENTS,
        ("赵丽", phone(1), FLOWER_1, "opted_in"),
        ("孙军", "1.0E+10", FLOWER_1, "opted_in"),
        replace=True,
    )
    assert (result.removed, result.moved, result.failed) == (0, 0, 1)
    assert result.errors[-1].row == 0
    assert "nobody was removed" in result.errors[-1].message
    assert len(await here.all(audience(Group.RESIDENTS))) == 2


async def test_whoever_comes_back_is_warned_again_and_keeps_having_opted_out(here: Town) -> None:
    """A season later the same family registers again; what they themselves decided is not undone by a list."""
    row = ("赵丽", phone(1), FLOWER_1, "opted_in")
    other = ("孙军", phone(2), FLOWER_1, "opted_in")
    await here.bring(Roster.RESIDENTS, row, other)

    def opt_out(tx: Tx) -> None:
        tx.run("UPDATE person SET opted_out = 1 WHERE id = :p", p=here.person("赵丽", 1))

    await here.database.write(opt_out)
    await here.bring(Roster.RESIDENTS, other, replace=True)
    assert (await here.directory.sizes())["residents"] == 1
    result = await here.bring(Roster.RESIDENTS, row)
    assert result.added == 1
    assert await here.directory.people_at(phone(1)) == (here.person("赵丽", 1),)
    assert [one.person for _, one in await here.all(audience(Group.RESIDENTS))] == [here.person("孙军", 2)]


async def test_a_key_is_known_by_its_hash_only(here: Town) -> None:
    """Whoever reads the database must not be able to speak as a village's loudspeaker."""
    digest = hashlib.sha256(b"0123456789abcdef").hexdigest()
    await here.bring(Roster.DEVICES, ("lb-1", FLOWER_1, "0123456789abcdef"))
    hashed = table(Roster.DEVICES, ("lb-1", FLOWER_2, digest.upper()), header=("设备名称", "村代码", "密钥摘要"))
    result = await here.importer.read(hashed, Roster.DEVICES)
    assert (result.added, result.moved) == (0, 1)
    one = await here.directory.device("lb-1")
    assert one is not None
    assert (one.village, one.key_hash) == (FLOWER_2, digest)


async def test_a_loudspeaker_keeps_its_road_until_a_list_names_another(here: Town) -> None:
    """A list without the column must not take a village from the platform that serves it."""
    header = ("名称", "村代码", "密钥", "通道")
    rows = (("lb-1", FLOWER_1, "k" * 16, ""), (FLOWER_2, FLOWER_2, "", "loudspeaker_ebd"))
    result = await here.importer.read(table(Roster.DEVICES, *rows, header=header), Roster.DEVICES)
    assert (result.added, result.failed) == (2, 0)
    assert await here.directory.devices_by_channel() == {"loudspeaker_ebd": 1, "loudspeaker_ws": 1}
    assert (await here.bring(Roster.DEVICES, ("lb-1", FLOWER_1, "k" * 16))).unchanged == 1
    moved = table(Roster.DEVICES, ("lb-1", FLOWER_1, "k" * 16, "loudspeaker_mqtt"), header=header)
    assert (await here.importer.read(moved, Roster.DEVICES)).changed == 1
    assert (await here.bring(Roster.DEVICES, ("lb-1", FLOWER_1, "k" * 16))).unchanged == 1
    one, village = await here.directory.device("lb-1"), await here.directory.device(FLOWER_2)
    assert one is not None
    assert village is not None
    assert (one.channel, village.channel, village.key_hash) == ("loudspeaker_mqtt", "loudspeaker_ebd", "")


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (("lb-1", FLOWER_1, "k" * 16, "horn"), "channel"),
        (("lb-1", FLOWER_1, "", "loudspeaker_ebd"), "name"),
        ((FLOWER_2, FLOWER_1, "", "loudspeaker_ebd"), "name"),
        (("lb-1", FLOWER_1, "", "loudspeaker_mqtt"), "key"),
    ],
)
async def test_a_loudspeaker_nobody_could_command_is_refused(here: Town, row: tuple[str, ...], column: str) -> None:
    """The platform knows villages by their codes alone, and a device without a key could never connect."""
    wrong = table(Roster.DEVICES, row, header=("名称", "村代码", "密钥", "通道"))
    result = await here.importer.read(wrong, Roster.DEVICES)
    assert [error.column for error in result.errors] == [column]


async def test_a_renewed_subscription_replaces_the_old_keys(here: Town) -> None:
    """A browser that renewed its keys at the same endpoint could not decrypt what the old ones sealed."""
    await here.bring(Roster.SUBSCRIBERS, (subscription(1), WATER, "zh"))
    renewed = subscription(1).replace("B0", "B9")
    result = await here.bring(Roster.SUBSCRIBERS, (renewed, WATER, "zh"))
    assert (result.added, result.changed) == (0, 1)
    ((_, one),) = await here.all(audience(Group.SUBSCRIBERS))
    assert "B9" in one.address
    assert "expirationTime" not in one.address


async def test_a_list_full_of_errors_reports_the_first_and_counts_all(here: Town) -> None:
    """A wrong column makes every row wrong; the answer must stay readable."""
    rows = [("王强", "x", FLOWER_1, "monitor")] * (ERRORS_KEPT + 50)
    result = await here.bring(Roster.OFFICIALS, *rows)
    assert (result.failed, result.rows, len(result.errors)) == (ERRORS_KEPT + 50, ERRORS_KEPT + 50, ERRORS_KEPT)


def test_a_long_table_is_never_held_in_memory() -> None:
    """A roster of a whole city must not push a small machine into swapping while a warning is due."""
    rows = ((f"张{number}", phone(number), WATER_2, "opted_in") for number in range(20_000))
    file = table(Roster.RESIDENTS, *rows)
    tracemalloc.start()
    try:
        assert sum(1 for _ in Table.open(file, Roster.RESIDENTS)) == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    """A measured run can be repeated, and a demonstration is the same on every machine."""
    for folder, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_sample(
            tmp_path / folder, places(), 500, seed, townships=TOWNSHIPS, push_endpoint=lambda at: f"https://p/{at}"
        )
    for roster in Roster:
        one, same, other = ((tmp_path / folder / f"{roster}.csv").read_bytes() for folder in "abc")
        assert one == same
        assert one != other


def test_no_number_of_a_sample_can_ring(tmp_path: Path) -> None:
    """Synthetic people must not be real strangers: 100 is no mobile range."""
    sample = write_sample(tmp_path, places(), 2_000, 1)
    assert sample.subscribers is None
    numbers: dict[str, set[str]] = {}
    for path in (sample.officials, sample.residents):
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                assert row["phone"].startswith("100")
                assert len(row["phone"]) == 11
                numbers.setdefault(row["phone"], set()).add(row["name"])
    assert max(len(names) for names in numbers.values()) == 2


async def test_a_sample_gives_every_village_an_official_and_a_loudspeaker(here: Town, tmp_path: Path) -> None:
    """A demonstration shows gaps only where it makes them, and has the people that make rule 6 matter."""
    sample = write_sample(tmp_path / "roster", places(), 300, 2, townships=TOWNSHIPS)
    for roster, path in zip(("officials", "residents", "devices"), sample, strict=False):
        assert path is not None
        with path.open("rb") as file:
            result = await here.importer.read(file, Roster(roster))
        assert result.errors == ()
        assert result.rows == 300 if roster == "residents" else result.rows >= result.added > 0
    villages = [one.code for township in TOWNSHIPS for one in places().villages(township)]
    assert set(await here.directory.responsible(villages)) == set(villages)
    assert {len(devices) for devices in (await here.directory.devices(villages)).values()} == {2}
    officials = await here.all(audience(Group.OFFICIALS))
    assert any(len(one.places) > 1 for _, one in officials)
    assert {one.village for _, one in officials if not one.village} == {""}
    both = await here.database.read(
        lambda tx: tx.all("SELECT person FROM place GROUP BY person HAVING COUNT(DISTINCT audience) > 1")
    )
    assert both
    numbers = [one.address for _, one in officials]
    assert len(set(numbers)) < len(numbers)


# --- the full list, the trial and the crash --------------------------------------------------------------------------


def household(number: int, village: str = FLOWER_1) -> tuple[str, str, str, str]:
    """A resident."""
    return f"住户{number}", phone(100 + number), village, "village_list"


async def standing(here: Town) -> list[tuple[object, ...]]:
    """Every person and place, as they are stored."""
    people = await here.database.read(lambda tx: tx.all("SELECT * FROM person ORDER BY id"))
    found = await here.database.read(lambda tx: tx.all("SELECT * FROM place ORDER BY person, township, village, role"))
    return [*people, *found]


async def test_a_dry_run_tells_everything_and_changes_nothing(here: Town) -> None:
    """A clerk sees what a list would do before it does it, and sees exactly that."""
    await here.bring(Roster.RESIDENTS, *map(household, range(6)))
    before = await standing(here)
    rows = [household(0), household(1, FLOWER_2), (*household(2)[:3], "opted_in"), household(9)]
    told = await here.bring(Roster.RESIDENTS, *rows, how=How(replace=True, dry=True))
    assert (told.added, told.moved, told.changed, told.unchanged, told.removed) == (1, 1, 1, 1, 3)
    assert await standing(here) == before
    done = await here.bring(Roster.RESIDENTS, *rows, how=How(replace=True))
    assert (done.added, done.moved, done.changed, done.unchanged, done.removed) == (1, 1, 1, 1, 3)


async def test_a_list_that_was_cut_off_removes_nobody_unless_it_is_meant(here: Town) -> None:
    """A file that lost its second half in an e-mail would otherwise silence half a county."""
    everyone = list(map(household, range(40)))
    await here.bring(Roster.RESIDENTS, *everyone)
    before = await standing(here)
    with pytest.raises(Refused, match="remove 20 of 40 residents in 411726") as refused:
        await here.bring(Roster.RESIDENTS, *everyone[:20], replace=True)
    assert refused.value.code == "import_removes"
    assert await standing(here) == before
    result = await here.bring(Roster.RESIDENTS, *everyone[:20], how=How(replace=True, removable=0.5))
    assert (result.removed, result.unchanged) == (20, 20)


async def test_a_list_and_its_record_come_in_together_or_not_at_all(here: Town) -> None:
    """A list nobody can be asked about must not exist, whenever the process dies; one only tried leaves none."""
    store, at = Store(here.database, ManualClock()), ManualClock().now()
    before = await standing(here)

    def failing(_done: Imported) -> Record:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011  # the very one above
        await here.bring(Roster.RESIDENTS, household(1), how=How(record=failing))
    assert await standing(here) == before

    def record(done: Imported) -> Record:
        return Record(at, "clerk", "import", "residents", f"{done.added} added")

    await here.bring(Roster.RESIDENTS, household(1), how=How(record=record, dry=True))
    await here.bring(Roster.RESIDENTS, household(1), how=How(record=record))
    assert [one.detail for _, one, _ in await store.audit.records()] == ["1 added"]


async def all_indexed(here: Town) -> bool:
    """Whether the database finds a number, and a person's places, without reading everybody."""
    rows = await here.database.read(
        lambda tx: tx.all(
            "SELECT indexdef FROM pg_indexes WHERE indexname IN ('person_phone', 'place_person') ORDER BY indexname"
            if tx.postgresql
            else "SELECT sql FROM sqlite_master WHERE name IN ('person_phone', 'place_person') ORDER BY name"
        )
    )
    return len(rows) == 2 and "phone_hash" in rows[0][0] and "place_person" in rows[1][0]


@pytest.mark.parametrize("how", [How(), How(dry=True), How(replace=True)])
async def test_numbers_are_found_at_once_after_a_first_list_and_a_longer_one(here: Town, how: How) -> None:
    """D19: an opt-out by text asks for the number, and must not read a million people for it."""
    for longer in (range(5), range(60)):
        await here.bring(Roster.RESIDENTS, *map(household, longer), how=how)
        assert await all_indexed(here)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(TOWNSHIPS), st.just("officials"), st.sampled_from(["", FLOWER_1]),
            st.sampled_from(["monitor", "grid_worker:2"]), st.integers(0, (1 << 62) - 1),
        ),
        max_size=30,
    )
)  # fmt: skip
def test_new_places_wait_in_whatever_order_and_all_come_in(noted: list[tuple[str, str, str, str, int]]) -> None:
    """One that was lost on the way is a duty nobody is called for."""
    newcomers = Newcomers()
    for place in noted:
        newcomers.note(*place)
    assert len(newcomers) == len(noted)
    found = [row for rows in newcomers.rows(7) for row in rows]
    wanted = [(place[:3], place[3], place[4]) for place in noted]
    assert [(row[:3], row[4], row[3]) for row in found] == sorted(wanted)
    assert {row[5] for row in found} <= {7}


async def test_a_list_that_fails_amid_its_writing_leaves_the_roster_as_it_was(here: Town) -> None:
    """What was sent ahead of its turn, and an index that was put aside, must be as if nothing had been."""
    await here.bring(Roster.RESIDENTS, *map(household, range(5)))
    before = await standing(here)

    def failing(stage: str, _share: float, _rows: int) -> None:
        if stage == "writing":
            raise OSError

    everyone = list(map(household, range(2 * CHUNK + 1)))
    with pytest.raises(OSError):  # noqa: PT011  # the very one above
        await here.bring(Roster.RESIDENTS, *everyone, how=How(progress=failing))
    assert await standing(here) == before
    assert await all_indexed(here)
    result = await here.bring(Roster.RESIDENTS, *everyone)
    assert (result.added, result.unchanged) == (2 * CHUNK - 4, 5)


async def test_a_longer_list_of_other_people_removes_nobody_unasked(here: Town) -> None:
    """The neighbour's file under the own name is longer than the own one: what it would add excuses nothing."""
    await here.bring(Roster.RESIDENTS, *map(household, range(20)))
    before = await standing(here)
    with pytest.raises(Refused, match="remove 20 of 20 residents in 411726"):
        await here.bring(Roster.RESIDENTS, *map(household, range(1000, 1300)), replace=True)
    devices = [(f"lb-{number}", FLOWER_1, "k" * 16) for number in range(20)]
    await here.bring(Roster.DEVICES, *devices)
    others = [(f"new-{number}", FLOWER_1, "k" * 16) for number in range(300)]
    with pytest.raises(Refused, match="remove 20 of 20 devices in 411726"):
        await here.bring(Roster.DEVICES, *others, replace=True)
    assert await standing(here) == before


async def test_a_wrong_code_does_not_make_the_list_speak_for_a_small_county(here: Town) -> None:
    """One mistyped village among thousands names the neighbouring county; its few people must not pay for it."""
    large = list(map(household, range(300)))
    small = [household(number, ABROAD_1) for number in range(1000, 1015)]
    await here.bring(Roster.RESIDENTS, *large, *small)
    with pytest.raises(Refused, match=f"remove 15 of 15 residents in {ABROAD_1[:6]}"):
        await here.bring(Roster.RESIDENTS, *large, household(2000, ABROAD_1), replace=True)


async def test_the_share_that_may_leave_is_of_people_not_of_their_roles(here: Town) -> None:
    """Officials with three duties each are not three times as many, so that three tenths could leave unasked."""
    duties = ("monitor", "grid_worker", "flood_warden")
    people = [[(*household(number)[:3], duty) for duty in duties] for number in range(60)]
    await here.officials(*(row for rows in people for row in rows))
    kept = [row for rows in people[:48] for row in rows]
    with pytest.raises(Refused, match="remove 12 of 60 officials"):
        await here.bring(Roster.OFFICIALS, *kept, replace=True)


async def test_an_opt_out_is_the_telephones_however_a_list_writes_the_name(here: Town) -> None:
    """A clerk mends a misspelt name in the full list: another person by id, and the same wish on the same number."""
    await here.bring(Roster.RESIDENTS, ("赵莉", phone(1), FLOWER_1, "opted_in"), household(1))
    await here.database.write(
        lambda tx: tx.run("UPDATE person SET opted_out = 1 WHERE id = :id", id=here.person("赵莉", 1))
    )
    await here.bring(Roster.RESIDENTS, ("赵丽", phone(1), FLOWER_1, "opted_in"), household(1), replace=True)
    assert [one.person for _, one in await here.all(audience(Group.RESIDENTS))] == [here.person("住户1", 101)]


def test_a_row_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    """A file of no lines at all, or with endless quoted cells, would otherwise be read whole."""
    head = ",".join(HEADERS[Roster.RESIDENTS]).encode() + b"\n"
    for body in (b"a" * (3 << 20), b'"a\n",' * (1 << 19)):
        with pytest.raises(Refused, match="one row holds"):
            list(Table.open(io.BytesIO(head + body), Roster.RESIDENTS))


async def test_the_list_of_one_township_speaks_for_it_alone(here: Town) -> None:
    """A township clerk replaces the own list; the neighbours keep theirs, and a row of theirs is an error."""
    await here.residents(("赵丽", phone(1), FLOWER_1), ("孙军", phone(2), FLOWER_1), ("周勇", phone(3), WATER_1))
    how = How(replace=True, within=FLOWER)
    strange = ("吴超", phone(4), WATER_1, "opted_in")
    wrong = await here.bring(Roster.RESIDENTS, ("赵丽", phone(1), FLOWER_1, "opted_in"), strange, how=how)
    assert [(one.row, one.column) for one in wrong.errors] == [(3, "village"), (0, "")]
    result = await here.bring(Roster.RESIDENTS, ("赵丽", phone(1), FLOWER_1, "opted_in"), how=how)
    assert (result.unchanged, result.removed) == (1, 1)
    names = {one.person for _, one in await here.all(audience(Group.RESIDENTS))}
    assert names == {here.person("赵丽", 1), here.person("周勇", 3)}
    with pytest.raises(Refused, match="county"):
        await here.bring(Roster.RESIDENTS, how=How(within=FLOWER_1))


async def test_who_has_several_places_or_shares_a_number_is_flagged_by_row(here: Town) -> None:
    """D15: one name written in two ways is one person called twice; a clerk can only mend what is pointed out."""
    await here.officials(("王强", phone(1), FLOWER_1, "monitor"), ("李敏", phone(5), FLOWER_1, "monitor"))
    found: list[tuple[str, RowError]] = []
    how = How(found=lambda kind, one: found.append((kind, one)))
    result = await here.bring(
        Roster.RESIDENTS,
        ("王强", phone(1), FLOWER_1, "opted_in"),
        ("赵丽", phone(2), FLOWER_1, "opted_in"),
        ("赵莉", phone(2), FLOWER_1, "opted_in"),
        ("李敏儿", phone(5), FLOWER_1, "opted_in"),
        ("孙军", phone(3), FLOWER_1, "opted_in"),
        ("孙军", phone(3), WATER_1, "opted_in"),
        ("周勇", "x", WATER_1, "opted_in"),
        how=how,
    )
    assert (result.several, result.shared) == (2, 3)
    assert [(one.row, one.column) for one in result.notes] == [
        (2, ""), (3, "phone"), (4, "phone"), (5, "phone"), (6, ""), (7, ""),
    ]  # fmt: skip
    assert found == [("error", result.errors[0]), *(("note", one) for one in result.notes)]


BROUGHT = """
import asyncio, sys
from pathlib import Path
from town import SECRET, places
from manual_clock import ManualClock
from gateway.database import Database
from gateway.directory.importer import How, Importer
from gateway.directory.table import Roster
from gateway.directory.vault import Vault

def progress(stage, share, people):
    print(stage, people, flush=True)

async def main():
    database = Database(sys.argv[1])
    await database.open()
    importer = Importer(database, Vault(SECRET), places(), ManualClock())
    with open(sys.argv[2], "rb") as file:
        await importer.read(file, Roster.RESIDENTS, How(replace=True, removable=1, progress=progress))
    await database.close()

asyncio.run(main())
"""


def killed(url: str, path: Path) -> str:
    """Import in a process of its own and kill it after 10,000 people; return what it had said before the last word."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", BROUGHT, url, str(path)], stdout=subprocess.PIPE, env=environment
    ) as child:
        assert child.stdout is not None
        said = list(iter(child.stdout.readline, b"writing 10000\n"))
        child.kill()
    assert child.returncode == -signal.SIGKILL
    return said[-1].decode().strip()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_an_import_killed_half_way_leaves_the_old_roster_whole(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """Whoever pulls the plug while a list comes in: the county is warned by the old one, all of it, and can go on."""
    url = blank.sqlite(tmp_path) if kind == "sqlite" else request.getfixturevalue("database_url")
    async with town(url) as here:
        await here.bring(Roster.RESIDENTS, *map(household, range(30)))
        before = await standing(here)
    new = table(Roster.RESIDENTS, *(household(number, WATER_1) for number in range(20, 20_000))).getvalue()
    (tmp_path / "new.csv").write_bytes(new)
    assert killed(url, tmp_path / "new.csv") == "writing 8000"
    async with town(url) as here:
        assert await standing(here) == before
        again = await here.importer.read(io.BytesIO(new), Roster.RESIDENTS, How(replace=True, removable=1))
        assert (again.added, again.moved, again.removed) == (19_970, 10, 20)


async def test_what_others_write_beside_a_list_stays(here: Town) -> None:
    """A reply tells a number's new carrier while a list of a million is written: the list knows nothing of it."""
    await here.residents(("赵丽", phone(1), FLOWER_1))
    one = here.person("赵丽", 1)
    cells = {"name": "赵丽", "phone": phone(1), "village": FLOWER_1, "basis": "opted_in", "needs_helper": "1"}
    row = Reading(Roster.RESIDENTS, places(), here.vault).read(0, 2, cells)
    assert isinstance(row, PersonRow)

    def operation(tx: Tx) -> list[Row]:
        people = People(tx, here.vault, Group.RESIDENTS, ask_people(tx, [one]))
        tx.run("UPDATE person SET carrier = '!mobile', standing = 'gone' WHERE id = :id", id=one)  # another process
        assert people.take([row], None) == CHANGED
        people.save(1, Newcomers())
        return tx.all("SELECT carrier, standing, needs_helper FROM person WHERE id = :id", id=one)

    assert await here.database.write(operation) == [("!mobile", "gone", 1)]
