"""Rosters as workbooks: what offices really send, read as a stream, and files made to hurt.

The .xlsx come from openpyxl, so that our reader meets somebody else's idea of the format.
"""

from __future__ import annotations

import contextlib
import io
import tracemalloc
import zipfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from town import FLOWER_1, FLOWER_2, SECRET, places

from gateway.bench.workbook import write_xls, write_xlsx
from gateway.directory import workbook
from gateway.directory.row import PersonRow, Reading, Wrong
from gateway.directory.sheet import open_sheets
from gateway.directory.table import Roster, RowError, Table
from gateway.directory.vault import Vault
from gateway.errors import Refused

HEADER = ("姓名", "手机", "村代码", "依据", "需帮助")
READING = Reading(Roster.RESIDENTS, places(), Vault(SECRET))


def xlsx(*sheets: Sequence[Sequence[Any]], merged: str = "") -> io.BytesIO:
    """A workbook as openpyxl writes it."""
    book = openpyxl.Workbook()
    for at, rows in enumerate(sheets):
        sheet: Any = book.worksheets[0] if at == 0 else book.create_sheet()
        for row in rows:
            sheet.append(row)
        if merged:
            sheet.merge_cells(merged)
    found = io.BytesIO()
    book.save(found)
    return found


def residents(file: Any) -> tuple[list[PersonRow], list[RowError]]:
    """Whom a file lists, and what is wrong."""
    good, wrong = [], []
    for sheet, row, cells in Table.open(file, Roster.RESIDENTS):
        if isinstance(cells, RowError):
            wrong.append(cells)
            continue
        try:
            found = READING.read(sheet, row, cells)
        except Wrong as error:
            wrong.append(RowError(row, error.column, error.message, sheet))
        else:
            assert isinstance(found, PersonRow)
            good.append(found)
    return good, wrong


def identity(found: tuple[list[PersonRow], list[RowError]]) -> tuple[list[PersonRow], list[RowError]]:
    """What was read, without its sealed part, which is another at every reading."""
    return [replace(row, sealed=b"") for row in found[0]], found[1]


def shared(tmp_path: Path) -> bytes:
    """A workbook whose texts stand apart from its cells, as spreadsheet programs save it."""
    write_xlsx(tmp_path / "list.xlsx", [HEADER, ("张伟", "10012345671", FLOWER_1, "本人登记", "0")])
    return (tmp_path / "list.xlsx").read_bytes()


def known(phone: str, name: str) -> int:
    """The id a person has, however the list was saved."""
    return Vault(SECRET).person_id(phone, name)


def test_a_title_and_a_header_of_merged_cells_are_understood() -> None:
    """D27: an office's list has its title over all columns and 联系方式 over two of them; nobody retypes it for us."""
    rows = [
        ("泌阳县花园街道居民名册", None, None, None, None, None),
        ("姓名", "联系方式", None, "村代码", "依据", "贫困户"),
        (None, "手机", "固定电话", None, None, None),
        ("张　伟", "10000000001", "", FLOWER_1, "本人登记", "是"),
    ]
    table = Table.open(xlsx(rows, merged="A1:F1"), Roster.RESIDENTS)
    assert [cells["phone"] for _, _, cells in table if not isinstance(cells, RowError)] == ["10000000001"]
    assert table.ignored == ("C", "F")


def test_numbers_count_only_with_all_their_digits() -> None:
    """D27: a number cell holds every digit of a phone; what was rounded to 1.39E+10 once is a stranger's phone."""
    rows = [
        HEADER,
        ("张伟", 10012345678, int(FLOWER_1), "本人登记", 1),
        ("李敏", 1.0012345679e10, FLOWER_1, "本人登记", True),
        ("王强", 13900000000, FLOWER_1, "本人登记", 0),
        ("赵丽", "1.39E+10", FLOWER_1, "本人登记", 0),
        ("孙军", "'10012345670", FLOWER_2, "本人登记", None),
        ("周勇", "10012345673", '="411726"&"001001"', "本人登记", 0),  # a formula nobody has computed yet
    ]
    good, wrong = residents(xlsx(rows))
    assert [one.id for one in good] == [
        known("10012345678", "张伟"), known("10012345679", "李敏"), known("10012345670", "孙军"),
    ]  # fmt: skip
    assert [one.needs_helper for one in good] == [1, 1, 0]
    assert [(one.row, one.column) for one in wrong] == [(4, "phone"), (5, "phone"), (7, "village")]
    assert "rounded" in wrong[0].message
    assert "scientific notation" in wrong[1].message


def test_dates_and_failed_formulas_are_nobodys_name_or_number() -> None:
    """A cell a spreadsheet has turned into a date, or could not compute, is an error a clerk sees and not a guess."""
    rows = [
        HEADER,
        (datetime(2026, 5, 1), "10012345671", FLOWER_1, "本人登记", 0),
        ("#N/A", "10012345672", FLOWER_1, "本人登记", 0),
        ("张伟", datetime(2026, 5, 1), FLOWER_1, "本人登记", 0),
    ]
    good, wrong = residents(xlsx(rows))
    assert good == []
    assert [(one.row, one.column) for one in wrong] == [(2, "name"), (3, "name"), (4, "phone")]
    assert "formula" in wrong[1].message


def test_every_sheet_is_read_and_one_without_a_header_is_an_error() -> None:
    """One sheet a village is common; a village whose sheet was passed over would be missing unseen."""
    first = [HEADER, ("张伟", "10012345671", FLOWER_1, "本人登记", 0)]
    second = [("说明",), (), HEADER, ("李敏", "10012345672", FLOWER_2, "本人登记", 0)]
    stray = [("王强", "10012345673", FLOWER_2, "本人登记", 0)]
    good, wrong = residents(xlsx(first, second, [], stray))
    assert [(one.sheet, one.row) for one in good] == [(1, 2), (2, 4)]
    assert [(one.sheet, one.row) for one in wrong] == [(4, 0)]
    assert "no header" in wrong[0].message
    assert "王强" not in wrong[0].message


def test_an_xls_of_several_sheets_is_read(tmp_path: Path) -> None:
    """Old office programs split a list at 65,536 rows; their files still arrive every season."""
    first = [HEADER, ("张伟", "10012345671", FLOWER_1, "本人登记", "0")]
    write_xls(tmp_path / "list.xls", [first, [HEADER, ("李敏", "10012345672", FLOWER_2, "村级名册", "1")]])
    with (tmp_path / "list.xls").open("rb") as file:
        good, wrong = residents(file)
        assert Table.open(file, Roster.RESIDENTS).format == "xls"
    assert wrong == []
    assert [(one.sheet, one.id, one.basis) for one in good] == [
        (1, known("10012345671", "张伟"), "opted_in"), (2, known("10012345672", "李敏"), "village_list"),
    ]  # fmt: skip


@pytest.mark.parametrize("at", [512, 4_100, 4_130, 9_000])
def test_a_damaged_xls_is_refused_and_ends_nothing_but_its_reader(tmp_path: Path, at: int) -> None:
    """The library that reads it may ask for all memory there is and die of it; the import may not die with it."""
    write_xls(tmp_path / "list.xls", [[HEADER, ("张伟", "10012345671", FLOWER_1, "本人登记", "0")] * 20])
    data = bytearray((tmp_path / "list.xls").read_bytes())
    data[at : at + 40] = b"\xff" * 40
    with contextlib.suppress(Refused):
        residents(io.BytesIO(bytes(data)))
    with pytest.raises(Refused, match="cannot be read"):
        residents(io.BytesIO(bytes(data[: at // 2])))


@given(st.lists(st.lists(st.text("ab张=<&\"' 12", max_size=8), min_size=1, max_size=6), max_size=6))
def test_texts_arrive_as_they_were_saved(rows: list[list[str]]) -> None:
    """Whatever stands in a cell, the name that is called out at night is the one in the list."""
    rows = [["head"], *rows]
    book = openpyxl.Workbook()
    sheet: Any = book.worksheets[0]
    for at, row in enumerate(rows, 1):
        for column, text in enumerate(row, 1):
            sheet.cell(at, column, text).data_type = "s"
    file = io.BytesIO()
    book.save(file)
    ((_, lines),) = open_sheets(file).sheets
    found: dict[int, list[str]] = {}
    for number, cells in lines:
        assert not isinstance(cells, str)
        found[number] = cells
    for at, row in enumerate(rows, 1):
        width = len(row)
        assert (found.get(at, []) + [""] * width)[:width] == row


@given(st.binary(max_size=200), st.integers(0, 5_000))
def test_a_damaged_workbook_is_refused_and_never_a_traceback(noise: bytes, at: int) -> None:
    """A file cut off on its way, or made by somebody hostile, ends in one sentence, or is read as it was meant."""
    whole = xlsx([HEADER, ("张伟", "10012345671", FLOWER_1, "本人登记", 0)]).getvalue()
    data = bytearray(whole)
    at %= len(data)
    data[at : at + len(noise)] = noise
    try:
        found = residents(io.BytesIO(bytes(data)))
    except Refused:
        return
    assert identity(found) == identity(residents(io.BytesIO(whole)))


@pytest.mark.parametrize(
    ("old", "new", "whole"),
    [
        (b'<c r="A2"', b'<!-- a remark --><?by hand?><c r="A2"', True),  # no cell: what follows keeps its column
        (b'r="B2"', b'r="A2"', False),
        (b'r="C2"', b'r="B2"', False),
        (b'<row r="2"', b'<row r="-2"', False),
        (b'<row r="2"', b'<row r="99999999999999999999999"', False),
    ],
)
def test_a_cell_stands_in_its_own_column_or_the_file_is_refused(
    tmp_path: Path, old: bytes, new: bytes, whole: bool
) -> None:
    """A number read under another column's name would be a family nobody reaches, without a word about it."""
    strange = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(shared(tmp_path))) as was, zipfile.ZipFile(strange, "w") as now:
        for name in was.namelist():
            text = was.read(name)
            if name == "xl/worksheets/sheet1.xml":
                assert old in text
                text = text.replace(old, new)
            now.writestr(name, text)
    if whole:
        assert [one.id for one in residents(strange)[0]] == [known("10012345671", "张伟")]
        return
    with pytest.raises(Refused, match="cannot be read"):
        residents(strange)


@pytest.mark.parametrize("part", ["xl/worksheets/sheet1.xml", "xl/sharedStrings.xml"])
def test_a_bomb_ends_early_and_small(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes that unpack to gigabytes must not push the machine into swapping while a warning is due."""
    monkeypatch.setattr(workbook, "LARGEST_ROW", 1 << 20)
    bomb = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(shared(tmp_path))) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            text = old.read(name)
            if name == part:
                tag, inner = (b"<row", b"<c/>") if b"<row" in text else (b"<si>", b"<r/>")
                start = text.index(tag)
                start = text.index(b">", start) + 1
                text = text[:start] + inner * (8 << 20) + text[start:]
            new.writestr(name, text)
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match="holds more than"):
            residents(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(bomb.getvalue()) < 200_000
    assert peak < 32 << 20


def test_entities_of_a_workbook_are_never_expanded(tmp_path: Path) -> None:
    """A thousand laughs and a file of this machine are the oldest tricks of XML."""
    hostile = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(shared(tmp_path))) as old, zipfile.ZipFile(hostile, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == "xl/sharedStrings.xml":
                start = text.index(b"<sst")
                evil = b'<!DOCTYPE sst [<!ENTITY who SYSTEM "file:///etc/hostname">]>'
                text = text[:start] + evil + text[start:].replace("张伟".encode(), b"&who;")
            new.writestr(name, text)
    good, wrong = residents(hostile)
    assert good == []
    assert [one.column for one in wrong] == ["name"]


def test_a_long_workbook_is_never_held_in_memory(tmp_path: Path) -> None:
    """A roster of a whole city must not push a small machine into swapping while a warning is due."""
    rows = ((f"张{number}", f"{10000000001 + number}", FLOWER_1, "opted_in", "0") for number in range(20_000))
    write_xlsx(tmp_path / "list.xlsx", [HEADER, *rows])
    with (tmp_path / "list.xlsx").open("rb") as file:
        tracemalloc.start()
        try:
            assert sum(1 for _ in Table.open(file, Roster.RESIDENTS)) == 20_000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 3_000_000
