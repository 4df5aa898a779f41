"""What an imported table is: its kinds, columns, encodings and words, and how they are read.

Called by the importer only. The first row (or one of the next four, below a title) names the columns, in English or
Chinese; their order is free and columns that are not named here are left out and reported, so that no label
nobody asked for is ever stored.

| kind | column | also called | holds |
| --- | --- | --- | --- |
| officials, residents | name | 姓名 | required |
| | phone | 手机, 手机号, 手机号码, 电话, 联系电话 | required; mobile number, any writing |
| | village | 村代码, 行政村代码, 区划代码 | 12-digit code; may be empty for an official of a township |
| officials | township | 乡镇代码 | 9-digit code; may stay empty where the village is given |
| | role | 职务, 角色, 责任 | required; a word of `row.ROLES` |
| | rank | 序位, 排序 | 1 (first called; default) to 99 |
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

import codecs
import csv
import io
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, NamedTuple

from gateway.errors import Refused

BLOCK = 1 << 16
TITLES = 5  # the header may stand below a merged title


class Roster(StrEnum):
    """What a table lists."""

    OFFICIALS = "officials"
    RESIDENTS = "residents"
    SUBSCRIBERS = "subscribers"
    DEVICES = "devices"


class RowError(NamedTuple):
    """What is wrong with one row (1 is the first of the file; 0: with the whole), never the value itself."""

    row: int
    column: str
    message: str


_NAME = ("姓名", "名字")
_PHONE = ("手机", "手机号", "手机号码", "电话", "联系电话")
_VILLAGE = ("村代码", "行政村代码", "区划代码", "code")
COLUMNS: dict[Roster, dict[str, tuple[str, ...]]] = {
    Roster.OFFICIALS: {
        "name": _NAME,
        "phone": _PHONE,
        "township": ("乡镇代码",),
        "village": _VILLAGE,
        "role": ("职务", "角色", "责任"),
        "rank": ("序位", "排序"),
    },
    Roster.RESIDENTS: {
        "name": _NAME,
        "phone": _PHONE,
        "village": _VILLAGE,
        "basis": ("依据", "登记依据"),
        "needs_helper": ("需帮助", "需要帮助"),
    },
    Roster.SUBSCRIBERS: {
        "name": _NAME,
        "subscription": ("订阅",),
        "area": ("区域", "区划代码", "area code", "code"),
        "language": ("语言",),
    },
    Roster.DEVICES: {"name": ("名称", "设备名称"), "village": _VILLAGE, "key": ("密钥",), "key_hash": ("密钥摘要",)},
}
# Each inner tuple: one of these columns must be there.
REQUIRED: dict[Roster, tuple[tuple[str, ...], ...]] = {
    Roster.OFFICIALS: (("name",), ("phone",), ("village", "township"), ("role",)),
    Roster.RESIDENTS: (("name",), ("phone",), ("village",), ("basis",)),
    Roster.SUBSCRIBERS: (("subscription",), ("area",)),
    Roster.DEVICES: (("name",), ("village",), ("key", "key_hash")),
}
OTHER_FORMATS = {
    b"PK\x03\x04": "an .xlsx workbook",
    b"\xd0\xcf\x11\xe0": "an .xls workbook",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


def encoding_of(stream: BinaryIO) -> str:
    """Return the encoding every byte of the stream agrees with: utf-8-sig, utf-8 or gb18030 (which includes GBK).

    Raises:
        Refused: none of them, or not a text at all.
    """
    stream.seek(0)
    head = stream.read(4)
    for magic, what in OTHER_FORMATS.items():
        if head.startswith(magic):
            raise Refused(415, "import_format", f"the file is {what}; save it as CSV UTF-8 and import that")
    candidates = ("utf-8-sig",) if head.startswith(codecs.BOM_UTF8) else ("utf-8", "gb18030")
    for encoding in candidates:
        if _decodes(stream, encoding):
            return encoding
    raise Refused(415, "import_encoding", "the file is neither UTF-8 nor GBK/GB18030; save it as CSV UTF-8")


def _decodes(stream: BinaryIO, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    stream.seek(0)
    try:
        while block := stream.read(BLOCK):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


@dataclass
class Table:
    """An open table: where its columns are, then its rows, read as they are asked for.

    `ignored` are the letters of columns nobody asked for.
    """

    kind: Roster
    encoding: str
    ignored: tuple[str, ...]
    columns: Mapping[str, int]
    _reader: Iterator[list[str]]
    _row: int

    @classmethod
    def open(cls, stream: BinaryIO, kind: Roster) -> Table:
        """Find the encoding and the header.

        Raises:
            Refused: the file is not such a table; says what is missing, quotes nothing.
        """
        encoding = encoding_of(stream)
        stream.seek(0)
        reader = csv.reader(io.TextIOWrapper(io.BufferedReader(_Kept(stream), BLOCK), encoding=encoding, newline=""))
        best: tuple[str, ...] | None = None
        for row in range(1, TITLES + 1):
            try:
                cells = next(reader)
            except (StopIteration, csv.Error):
                break
            columns = _columns(cells, kind)
            lacking = tuple(" or ".join(names) for names in REQUIRED[kind] if not columns.keys() & set(names))
            if not lacking:
                used = set(columns.values())
                ignored = tuple(_letters(at) for at, cell in enumerate(cells) if cell.strip() and at not in used)
                return cls(kind, encoding, ignored, columns, reader, row)
            best = lacking if best is None or len(lacking) < len(best) else best
        raise Refused(
            422,
            "import_header",
            f"no header of {kind}: missing {', '.join(best or ())}; columns are separated by commas",
        )

    def __iter__(self) -> Iterator[tuple[int, dict[str, str] | RowError]]:
        """Yield (row, cleaned cells by column), or what is wrong; empty rows are passed over."""
        while True:
            self._row += 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error:
                yield self._row, RowError(self._row, "", "cannot be read as CSV; is a quotation mark left open?")
                continue
            if any(cell.strip() for cell in cells):
                width = len(cells)
                yield self._row, {name: clean(cells[at]) if at < width else "" for name, at in self.columns.items()}


class _Kept(io.RawIOBase):
    """A stream that stays the caller's, open, when the layers above it go."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer has no len before 3.12
        """Read into a buffer."""
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


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
