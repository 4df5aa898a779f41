"""Lines of an .xlsx, read as a stream: a million rows in some megabytes of memory.

Called by `sheet`. Only what a roster needs is read: the order of the sheets, the shared strings, and each cell's
stored value (of a formula its last result); number formats are not, so a date is its serial number, which no column
takes. What a hostile file can grow to is bounded: bytes of a part, of one row, and of all strings together.
**Source:** ECMA-376 part 1, 18.2 (workbook), 18.3 (worksheets), 18.4 (shared strings).
"""

from __future__ import annotations

import zipfile
import zlib
from array import array
from collections.abc import Iterator
from typing import IO, Any, BinaryIO

from lxml import etree

from gateway.directory.line import BROKEN, WIDEST, Line, Sheets, number
from gateway.errors import Refused

LARGEST_PART = 2 << 30  # bytes, unpacked; a million residents are 0.3 GB
LARGEST_ROW = 8 << 20
LAST_ROW = 1 << 20
LARGEST_TEXTS = 256 << 20
SMALL_PART = 4 << 20
RELATIONSHIP = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
STRICT_RELATIONSHIP = "{http://purl.oclc.org/ooxml/officeDocument/relationships}id"
DIGITS = "0123456789"
DAMAGED = (
    zipfile.BadZipFile, zlib.error, etree.XMLSyntaxError, EOFError, OSError, LookupError, ValueError, RuntimeError,
)  # fmt: skip
"""What the libraries raise of a file that is cut off, encrypted, or none of ours."""


def open_workbook(stream: BinaryIO) -> Sheets:
    """Open a workbook; hidden sheets are read like the others.

    Raises:
        Refused: it is damaged, or larger than any roster.
    """
    try:
        book = zipfile.ZipFile(stream)
        paths = _paths(book)
        texts = _Texts(book)
        sizes = [book.getinfo(path).file_size for path in paths]
    except DAMAGED:
        raise _damaged() from None
    total, done = sum(sizes) or 1, [0]

    def sheets() -> Iterator[tuple[int, Iterator[Line]]]:
        for at, path in enumerate(paths, 1):
            yield at, _lines(book, path, texts, done)

    return Sheets("xlsx", sheets(), lambda: min(1.0, done[0] / total))


def _damaged() -> Refused:
    return Refused(415, "import_format", "the .xlsx cannot be read; open it, save it anew or as CSV UTF-8")


def _paths(book: zipfile.ZipFile) -> list[str]:
    """Return the parts of the worksheets, in the order of their tabs."""
    targets = {}
    for one in _small(book, "xl/_rels/workbook.xml.rels").iter("{*}Relationship"):
        if str(one.get("Type", "")).endswith("/worksheet"):
            target = str(one.get("Target", ""))
            targets[one.get("Id")] = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
    sheets = _small(book, "xl/workbook.xml").iter("{*}sheet")
    ids = [sheet.get(RELATIONSHIP) or sheet.get(STRICT_RELATIONSHIP) for sheet in sheets]
    return [targets[one] for one in ids if one in targets]


def _small(book: zipfile.ZipFile, path: str) -> Any:
    with _part(book, path) as part:
        data = part.read(SMALL_PART + 1)
    if len(data) > SMALL_PART:
        raise _damaged()
    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False))


def _part(book: zipfile.ZipFile, path: str) -> IO[bytes]:
    if book.getinfo(path).file_size > LARGEST_PART:
        raise Refused(413, "import_size", f"the workbook unpacks to more than {LARGEST_PART >> 30} GiB; save it as CSV")
    return book.open(path)


class _Bounded:
    """A part that refuses to go on when too much was read since the last `passed`."""

    def __init__(self, part: IO[bytes], done: list[int]) -> None:
        self._part = part
        self._since = 0
        self._done = done

    def read(self, size: int) -> bytes:
        """Read."""
        block = self._part.read(size)
        self._done[0] += len(block)
        self._since += len(block)
        if self._since > LARGEST_ROW:
            raise Refused(413, "import_size", f"one row of the workbook holds more than {LARGEST_ROW >> 20} MiB")
        return block

    def passed(self) -> None:
        """Count anew."""
        self._since = 0


def _elements(part: _Bounded, *tags: str) -> Iterator[Any]:
    """Yield elements as they end, and forget them."""
    for _, element in etree.iterparse(
        part, events=("end",), tag=tags, resolve_entities=False, no_network=True, huge_tree=False,
        remove_comments=True, remove_pis=True,
    ):  # fmt: skip
        part.passed()
        yield element
        element.clear()
        parent = element.getparent()
        while parent is not None and element.getprevious() is not None:
            del parent[0]


class _Texts:
    """The shared strings, end to end: a list of a million would take ten times the memory."""

    def __init__(self, book: zipfile.ZipFile) -> None:
        self._bytes = bytearray()
        self._ends = array("Q", [0])
        if "xl/sharedStrings.xml" not in book.namelist():
            return
        with _part(book, "xl/sharedStrings.xml") as part:
            for item in _elements(_Bounded(part, [0]), "{*}si"):
                self._bytes += _words(item).encode()
                self._ends.append(len(self._bytes))
                if len(self._bytes) > LARGEST_TEXTS:
                    raise Refused(413, "import_size", f"the texts exceed {LARGEST_TEXTS >> 20} MiB; save it as CSV")

    def __getitem__(self, at: int) -> str:
        return self._bytes[self._ends[at] : self._ends[at + 1]].decode()


def _words(item: Any) -> str:
    """Return the text of a string item, without the reading aids of phonetic runs."""
    if len(item) == 1 and item[0].text and not len(item[0]):
        return str(item[0].text)
    found = []
    for child in item:
        name = etree.QName(child).localname
        if name == "t":
            found.append(child.text or "")
        elif name == "r":
            found += [part.text or "" for part in child.iterchildren("{*}t")]
    return "".join(found)


def _lines(book: zipfile.ZipFile, path: str, texts: _Texts, done: list[int]) -> Iterator[Line]:
    """Yield the rows of a sheet that stand in it; empty ones mostly do not."""
    columns: dict[str, int] = {}
    row = 0
    try:
        with _part(book, path) as part:
            for element in _elements(_Bounded(part, done), "{*}row", "{*}sheetData"):
                if not element.tag.endswith("}row"):
                    return  # what follows the rows (merged cells, pictures) is of no use here
                row = int(element.get("r") or row + 1)
                if not 0 < row <= LAST_ROW:
                    raise _damaged()
                yield row, _cells(element, texts, columns)
    except DAMAGED:
        raise _damaged() from None


def _cells(row: Any, texts: _Texts, columns: dict[str, int]) -> list[str]:
    cells: list[str] = []
    for cell in row:
        reference = cell.get("r")
        if reference is not None:
            letters = reference.rstrip(DIGITS)
            at = columns.get(letters, -1)
            if at < 0:
                at = columns[letters] = _index(letters)
            if at >= WIDEST:
                break
            if at < len(cells):
                raise _damaged()  # taken as they come, they would stand under other columns
            cells += [""] * (at - len(cells))
        kind = cell.get("t")
        text = cell[0].text if len(cell) == 1 else None
        if text is None:
            cells.append(_value(cell, kind, texts))
        elif kind == "s":
            cells.append(texts[int(text)])
        elif kind is None and text.isdigit():
            cells.append(text)
        else:
            cells.append(_value(cell, kind, texts))
    return cells[:WIDEST]


def _index(letters: str) -> int:
    """Return the place of a column: A is 0, AA is 26."""
    at = 0
    for letter in letters[:4]:
        at = at * 26 + ord(letter) - 64
    return at - 1


def _value(cell: Any, kind: str | None, texts: _Texts) -> str:
    """Return what a cell shows: of a formula its stored result, which may be missing."""
    text = ""
    for child in cell:
        name = etree.QName(child).localname
        if name == "v":
            text = child.text or ""
        elif name == "is":
            return _words(child)
    if kind == "s":
        return texts[int(text)] if text else ""
    if kind is None or kind == "n":
        return number(text)
    if kind == "e":
        return BROKEN
    if kind == "b":
        return "TRUE" if text == "1" else "FALSE"
    return text
