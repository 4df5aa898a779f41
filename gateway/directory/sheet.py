"""The lines of a table, whatever program wrote it: CSV in UTF-8 or GB18030, .xlsx, .xls.

Called by `table`. Lines come one by one, so that a list of a million takes no more memory than one of a hundred.
Cells are text as they stand: a number stored with all its digits is those digits, and whatever cannot be told for
certain is left for the columns to refuse.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from gateway.directory.line import Line, Sheets
from gateway.directory.workbook import open_workbook
from gateway.directory.xls import open_xls
from gateway.errors import Refused

BLOCK = 1 << 16
HAN = re.compile("[\u4e00-\u9fff]")
LARGEST_ROW = 1 << 20  # characters of a CSV's row, over however many lines

OTHER_FORMATS = {b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text"}
XLSX, XLS = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"


def open_sheets(stream: BinaryIO) -> Sheets:
    """Open a file, which must be seekable and stays the caller's.

    Raises:
        Refused: it is none of the formats; says what to save instead.
    """
    stream.seek(0)
    head = stream.read(4)
    if head == XLSX:
        return open_workbook(stream)
    if head == XLS:
        return open_xls(stream)
    encoding = encoding_of(stream, head)
    size = stream.seek(0, io.SEEK_END) or 1
    stream.seek(0)
    return Sheets(encoding, iter([(0, _csv_lines(stream, encoding))]), lambda: stream.tell() / size)


def encoding_of(stream: BinaryIO, head: bytes) -> str:
    """Return the encoding every byte of the stream agrees with: utf-8-sig, utf-8 or gb18030 (which includes GBK).

    Raises:
        Refused: none of them, not a text at all, or UTF-8 with a few bytes damaged.
    """
    for magic, what in OTHER_FORMATS.items():
        if head.startswith(magic):
            raise Refused(415, "import_format", f"the file is {what}; save it as CSV UTF-8 and import that")
    candidates = ("utf-8-sig",) if head.startswith(codecs.BOM_UTF8) else ("utf-8", "gb18030")
    for encoding in candidates:
        whole, han = _decodes(stream, encoding)
        if whole:
            return encoding
        if han and encoding == "utf-8":  # as GBK its names would be other names, and nobody would be told
            break
    raise Refused(415, "import_encoding", "the file is neither UTF-8 nor GBK/GB18030; save it as CSV UTF-8")


def _decodes(stream: BinaryIO, encoding: str) -> tuple[bool, bool]:
    """Tell whether all of a stream is in an encoding, and whether Chinese stood before what is not."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    stream.seek(0)
    han = False
    try:
        while block := stream.read(BLOCK):
            han = bool(HAN.search(decoder.decode(block))) or han
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return False, han or bool(HAN.search(error.object[: error.start].decode(encoding)))
    return True, han


def _csv_lines(stream: BinaryIO, encoding: str) -> Iterator[Line]:
    text = io.TextIOWrapper(io.BufferedReader(_Kept(stream), BLOCK), encoding=encoding, newline="")
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        while line := text.readline(LARGEST_ROW):
            taken += len(line)
            if taken >= LARGEST_ROW:
                raise Refused(413, "import_size", f"one row holds more than {LARGEST_ROW >> 20} MiB; is it a CSV?")
            yield line

    reader = csv.reader(lines())
    row = 0
    while True:
        row, taken = row + 1, 0
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield row, "cannot be read as CSV; is a quotation mark left open?"
            continue
        yield row, cells


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
