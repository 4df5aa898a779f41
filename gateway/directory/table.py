"""What an imported table is: its kinds, columns and words, and how they are read.

Called by the importer and the export. The first row (or one of the next four, below titles) names the columns, in
English or Chinese; a header of two rows with merged cells counts as one. The order of columns is free, and those that
are not named here are left out and reported, so that no label nobody asked for is ever stored. Every sheet of a
workbook is read; one with lines but without a header is an error, so that no village is left out unseen.

| kind | column | also called | holds |
| --- | --- | --- | --- |
| officials, residents | name | 姓名 | required |
| | phone | 手机, 手机号, 手机号码, 电话, 联系电话 | required; mobile number, any writing |
| | village | 村代码, 行政村代码, 区划代码 | 12-digit code; may be empty for an official of a township |
| | carrier | 运营商 | may stay empty; mobile 移动, unicom 联通, telecom 电信, broadcast 广电 |
| officials | township | 乡镇代码 | 9-digit code; may stay empty where the village is given |
| | role | 职务, 角色, 责任 | required; a word of `row.ROLES` |
| | rank | 序位, 排序 | 1 (first called; default) to 99 |
| | deputy | 副手手机, 副手, 副责任人手机 | may stay empty; another official's number, told where this one is away |
| residents | basis | 依据, 登记依据 | required: opted_in 本人登记, village_list 村级名册 |
| | needs_helper | 需帮助, 需要帮助 | yes/no, 是/否, 1/0; default no |
| subscribers | subscription | 订阅 | required; the browser's PushSubscription as JSON |
| | area | 区域, 区划代码 | required; county, township or village code |
| | name, language | 姓名, 语言 | may stay empty; zh 中文 (default) or en 英文 |
| devices | name | 名称, 设备名称 | required; the name it connects with |
| | village | 村代码, 区划代码 | required |
| | key, key_hash | 密钥, 密钥摘要 | one is required: the key (hashed here, never stored), or its SHA-256 in hex |

A role with a rank above 1 is stored as `role:rank`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import BinaryIO, NamedTuple

from gateway.directory.line import BROKEN, Line
from gateway.directory.sheet import open_sheets
from gateway.errors import Refused

TITLES = 5  # the header may stand below a merged title


class Roster(StrEnum):
    """What a table lists."""

    OFFICIALS = "officials"
    RESIDENTS = "residents"
    SUBSCRIBERS = "subscribers"
    DEVICES = "devices"


class RowError(NamedTuple):
    """What is wrong with one row (1 is the first of its sheet; 0: with the whole), never the value itself.

    `sheet` is 1 for the first of a workbook, 0 in a CSV.
    """

    row: int
    column: str
    message: str
    sheet: int = 0


_NAME = ("姓名", "名字")
_PHONE = ("手机", "手机号", "手机号码", "电话", "联系电话")
_CARRIER = ("运营商", "通信运营商")
_VILLAGE = ("村代码", "行政村代码", "区划代码", "code")
COLUMNS: dict[Roster, dict[str, tuple[str, ...]]] = {
    Roster.OFFICIALS: {
        "name": _NAME,
        "phone": _PHONE,
        "township": ("乡镇代码",),
        "village": _VILLAGE,
        "role": ("职务", "角色", "责任"),
        "rank": ("序位", "排序"),
        "deputy": ("副手手机", "副手", "副手手机号", "副责任人手机"),
        "carrier": _CARRIER,
    },
    Roster.RESIDENTS: {
        "name": _NAME,
        "phone": _PHONE,
        "village": _VILLAGE,
        "basis": ("依据", "登记依据"),
        "needs_helper": ("需帮助", "需要帮助"),
        "carrier": _CARRIER,
    },
    Roster.SUBSCRIBERS: {
        "name": _NAME,
        "subscription": ("订阅",),
        "area": ("区域", "区划代码", "area code", "code"),
        "language": ("语言",),
    },
    Roster.DEVICES: {
        "name": ("名称", "设备名称"),
        "village": _VILLAGE,
        "key": ("密钥",),
        "key_hash": ("密钥摘要",),
        "channel": ("通道",),
    },
}
# Each inner tuple: one of these columns must be there.
REQUIRED: dict[Roster, tuple[tuple[str, ...], ...]] = {
    Roster.OFFICIALS: (("name",), ("phone",), ("village", "township"), ("role",)),
    Roster.RESIDENTS: (("name",), ("phone",), ("village",), ("basis",)),
    Roster.SUBSCRIBERS: (("subscription",), ("area",)),
    Roster.DEVICES: (("name",), ("village",), ("key", "key_hash")),
}


class Header(NamedTuple):
    """Where the columns of a sheet are, and the letters of those nobody asked for."""

    columns: Mapping[str, int]
    ignored: tuple[str, ...]


class Table:
    """An open table: its rows, read as they are asked for.

    `ignored` are the letters of columns nobody asked for, complete when the last row is read.
    """

    def __init__(self, kind: Roster, format_: str, share: Callable[[], float]) -> None:
        self.kind = kind
        self.format = format_
        """utf-8, utf-8-sig, gb18030, xlsx or xls."""
        self.share = share
        """How much of the file is read, from 0 to 1."""
        self.ignored: tuple[str, ...] = ()
        self._rows: Iterator[Cells]

    @classmethod
    def open(cls, stream: BinaryIO, kind: Roster) -> Table:
        """Open a seekable stream, which stays the caller's, and find the first header.

        Raises:
            Refused: the file is not such a table; says what is missing, quotes nothing.
        """
        found = open_sheets(stream)
        table = cls(kind, found.format, found.share)
        before: list[Cells] = []
        lacking: tuple[str, ...] = ()
        for sheet, lines in found.sheets:
            header, lacks, some = _header(lines, kind)
            if header is not None:
                table._note(header)
                table._rows = table._all(before, sheet, header, lines, found.sheets)
                return table
            lacking = lacking or lacks
            if some:
                before.append(_headless(sheet, kind, lacks))
        missing = ", ".join(lacking or (" or ".join(names) for names in REQUIRED[kind]))
        raise Refused(422, "import_header", f"no header of {kind}: missing {missing}; a CSV is separated by commas")

    def _note(self, header: Header) -> None:
        self.ignored = tuple(dict.fromkeys((*self.ignored, *header.ignored)))

    def _all(
        self, before: Sequence[Cells], sheet: int, header: Header, lines: Iterator[Line],
        rest: Iterator[tuple[int, Iterator[Line]]],
    ) -> Iterator[Cells]:  # fmt: skip
        yield from before
        yield from _rows(sheet, header, lines)
        for sheet, lines in rest:
            found, lacks, some = _header(lines, self.kind)
            if found is not None:
                self._note(found)
                yield from _rows(sheet, found, lines)
            elif some:
                yield _headless(sheet, self.kind, lacks)

    def __iter__(self) -> Iterator[Cells]:
        """Yield (sheet, row, cleaned cells by column), or what is wrong; empty rows are passed over."""
        return self._rows


Cells = tuple[int, int, dict[str, str] | RowError]
"""Sheet, row, and the cleaned cells by column, or what is wrong with them."""


def _headless(sheet: int, kind: Roster, lacks: Sequence[str]) -> Cells:
    text = f"this sheet has no header of {kind}: missing {', '.join(lacks)}; mend it or delete the sheet"
    return sheet, 0, RowError(0, "", text, sheet)


def _header(lines: Iterator[Line], kind: Roster) -> tuple[Header | None, tuple[str, ...], bool]:
    """Find the header within the first rows; else return what the best row lacks, and whether anything stands there.

    A row that is none may be the lower half of one whose cells were merged downwards: "手机" below "联系方式", beside
    a "姓名" that spans both rows.
    """
    best: tuple[str, ...] = ()
    above: list[str] = []
    some = False
    for row, cells in lines:
        if isinstance(cells, str):
            break
        some = some or any(cells)
        width = max(len(cells), len(above))
        upper, lower = ([*half, *[""] * (width - len(half))] for half in (above, cells))
        for candidate in (cells, [b if b.strip() else a for a, b in zip(upper, lower, strict=True)]):
            columns = _columns(candidate, kind)
            lacks = tuple(" or ".join(names) for names in REQUIRED[kind] if not columns.keys() & set(names))
            if not lacks:
                used = set(columns.values())
                letters = (_letters(at) for at, cell in enumerate(candidate) if cell.strip() and at not in used)
                return Header(columns, tuple(letters)), (), True
            best = lacks if not best or len(lacks) < len(best) else best
        above = list(cells)
        if row >= TITLES:
            break
    return None, best, some


def _rows(sheet: int, header: Header, lines: Iterator[Line]) -> Iterator[Cells]:
    places = tuple(header.columns.items())
    for row, cells in lines:
        if isinstance(cells, str):
            yield sheet, row, RowError(row, "", cells, sheet)
            continue
        width = len(cells)
        found = {name: clean(cells[at]) if at < width else "" for name, at in places}
        values = found.values()
        if BROKEN in values:
            column = next(name for name, value in found.items() if value == BROKEN)
            yield sheet, row, RowError(row, column, "holds the error of a formula, such as #N/A", sheet)
        elif any(values) or any(cell.strip() for cell in cells):
            yield sheet, row, found


def _columns(cells: Sequence[str], kind: Roster) -> dict[str, int]:
    """Return the place of each known column of a header.

    Raises:
        Refused: a column is there twice.
    """
    words = {word: name for name, others in COLUMNS[kind].items() for word in (name, *others)}
    found: dict[str, int] = {}
    for at, cell in enumerate(cells):
        name = words.get(clean(cell).lower())
        if name in found:
            raise Refused(
                422, "import_header", f"the column {name} is there twice: {_letters(found[name])}, {_letters(at)}"
            )
        if name is not None:
            found[name] = at
    return found


def _letters(index: int) -> str:
    """Return a column's letters as spreadsheets show them: 0 is A, 26 is AA."""
    text = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        text = string.ascii_uppercase[digit] + text
    return text


def clean(cell: str) -> str:
    """Return what a cell means: without the marks spreadsheets force text with (="…", a leading apostrophe)."""
    cell = cell.strip()
    if cell[:1] in "='":
        cell = re.sub(r'^="(.*)"$', r"\1", cell.removeprefix("'")).strip()
    return cell
