"""The least that is a workbook: .xlsx and .xls files of plain cells, written as a stream, to measure reading them.

**Source:** ECMA-376 part 1, 18 (SpreadsheetML); [MS-XLS] 2.4 (BIFF8 records), [MS-CFB] 2 (the container of an .xls).
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
TYPES = "application/vnd.openxmlformats-officedocument.spreadsheetml"
XLS_ROWS = 65_536  # of a sheet
SECTOR = 4_096
FREE, END, FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
IN_HEADER = 109  # FAT sectors whose places stand in the header


def write_xlsx(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write one sheet; texts are shared strings and digits numbers, as spreadsheet programs save them."""
    texts: dict[str, int] = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as book:
        for name, text in _PARTS.items():
            book.writestr(name, text)
        with book.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as sheet:
            sheet.write(f'<worksheet xmlns="{MAIN}"><sheetData>'.encode())
            for number, row in enumerate(rows, 1):
                cells = (_cell(f"{LETTERS[at]}{number}", value, texts) for at, value in enumerate(row))
                sheet.write(f'<row r="{number}">{"".join(cells)}</row>'.encode())
            sheet.write(b"</sheetData></worksheet>")
        with book.open("xl/sharedStrings.xml", "w") as shared:
            shared.write(f'<sst xmlns="{MAIN}">'.encode())
            for text in texts:
                shared.write(f"<si><t>{escape(text)}</t></si>".encode())
            shared.write(b"</sst>")


def _cell(place: str, value: str, texts: dict[str, int]) -> str:
    if value.isdigit():
        return f'<c r="{place}"><v>{value}</v></c>'
    return f'<c r="{place}" t="s"><v>{texts.setdefault(value, len(texts))}</v></c>'


_RELATION = '<Relationship Id="rId{0}" Type="' + OFFICE + '/{1}" Target="{2}"/>'
_RELATIONS = f'<Relationships xmlns="{PACKAGE}/relationships">'
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types"><Default Extension="rels" ContentType="application/'
    'vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{TYPES}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{TYPES}.worksheet+xml"/>'
    f'<Override PartName="/xl/sharedStrings.xml" ContentType="{TYPES}.sharedStrings+xml"/></Types>',
    "_rels/.rels": _RELATIONS + _RELATION.format(1, "officeDocument", "xl/workbook.xml") + "</Relationships>",
    "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>'
    '<sheet name="1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": _RELATIONS
    + _RELATION.format(1, "worksheet", "worksheets/sheet1.xml")
    + _RELATION.format(2, "sharedStrings", "sharedStrings.xml")
    + "</Relationships>",
}


def write_xls(path: Path, sheets: Sequence[Iterable[Sequence[str]]]) -> None:
    """Write an .xls of BIFF8; digits become numbers, everything else text."""
    bodies = [_sheet(rows) for rows in sheets]
    names = [_text(str(number), 1) for number in range(1, len(bodies) + 1)]
    begin, end = _record(0x0809, struct.pack("<HHHHII", 0x0600, 0x0005, 0, 0, 0, 0)), _record(0x000A, b"")
    at = len(begin) + sum(4 + 6 + len(name) for name in names) + len(end)
    listed = b""
    for name, body in zip(names, bodies, strict=True):
        listed += _record(0x0085, struct.pack("<IBB", at, 0, 0) + name)
        at += len(body)
    path.write_bytes(_container(begin + listed + end + b"".join(bodies)))


def _record(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", kind, len(data)) + data


def _text(text: str, length_bytes: int) -> bytes:
    return len(text).to_bytes(length_bytes, "little") + b"\x01" + text.encode("utf-16-le")


def _sheet(rows: Iterable[Sequence[str]]) -> bytes:
    parts = [_record(0x0809, struct.pack("<HHHHII", 0x0600, 0x0010, 0, 0, 0, 0))]
    for number, row in enumerate(rows):
        for at, value in enumerate(row):
            place = struct.pack("<HHH", number, at, 0)
            if value.isdigit():
                parts.append(_record(0x0203, place + struct.pack("<d", float(value))))
            elif value:
                parts.append(_record(0x0204, place + _text(value, 2)))
    parts.append(_record(0x000A, b""))
    return b"".join(parts)


def _container(stream: bytes) -> bytes:
    """Wrap the stream "Workbook" as a compound file: header, stream, directory, allocation table."""
    stream = stream.ljust(4096, b"\0")  # a shorter one would live in the small-stream table
    data = -(-len(stream) // SECTOR)
    table = 1
    while table * (SECTOR // 4) < data + 1 + table:
        table += 1
    if table > IN_HEADER:
        raise ValueError("longer than this writer's allocation table")
    chain = [*range(1, data), END, END, *[FAT] * table]  # the directory is the one sector behind the stream
    chain += [FREE] * (table * (SECTOR // 4) - len(chain))
    header = struct.pack(
        "<8s16xHHHHH6xIIIIIIIII", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0x3E, 4, 0xFFFE, 12, 6, 1, table, data, 0, 4096,
        END, 0, END, 0,
    )  # fmt: skip
    places = [data + 1 + at for at in range(table)]
    header += struct.pack(f"<{IN_HEADER}I", *places, *[FREE] * (IN_HEADER - table))
    directory = _entry("Root Entry", 5, 1, 0, 0) + _entry("Workbook", 2, FREE, 0, len(stream))
    body = stream.ljust(data * SECTOR, b"\0") + directory.ljust(SECTOR, b"\0")
    return header.ljust(SECTOR, b"\0") + body + struct.pack(f"<{len(chain)}I", *chain)


def _entry(name: str, kind: int, child: int, start: int, size: int) -> bytes:
    packed = (name + "\0").encode("utf-16-le")
    return packed.ljust(64, b"\0") + struct.pack(
        "<HBBIII16xI16xIQ", len(packed), kind, 1, FREE, FREE, child, 0, start, size
    )
