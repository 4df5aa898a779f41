"""Rows of an import on their way from the table to the database, in order of person.

Called by the importer. A table comes in its own order, but a database takes a million rows several times faster in
that of their keys, and all rows of one person have to meet. So rows are dealt out by the first bits of the id into
parts of one file, without a name, and each part is sorted when it is read again. It holds nothing in clear and has no
name in the file system: it is gone with the process, however that ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Generic, TypeVar

import msgspec

from gateway.directory.row import DeviceRow, PersonRow
from gateway.directory.vault import ID_BITS

Entry = TypeVar("Entry", PersonRow, DeviceRow)

PART_BITS = 6
IN_MEMORY = 8 << 20  # bytes that need no file
_encode = msgspec.msgpack.Encoder().encode
_of_one = attrgetter("id")
_in_order = attrgetter("id", "sheet", "row")


class Spool(Generic[Entry]):
    """Use as a context manager; add all rows, then read them."""

    def __init__(self, kind: type[Entry]) -> None:
        self._decode = msgspec.msgpack.Decoder(list[kind]).decode  # type: ignore[valid-type]  # a class, at run time
        self._file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  # closed by __exit__
        self._chunks: list[list[tuple[int, int]]] = [[] for _ in range(1 << PART_BITS)]
        self._end = 0

    def __enter__(self) -> Spool[Entry]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, rows: Sequence[Entry]) -> None:
        """Put rows in."""
        parts: dict[int, list[Entry]] = {}
        for row in rows:
            parts.setdefault(row.id >> (ID_BITS - PART_BITS), []).append(row)
        for part, members in parts.items():
            packed = _encode(members)
            self._file.write(packed)
            self._chunks[part].append((self._end, len(packed)))
            self._end += len(packed)

    def people(self) -> Iterator[list[Entry]]:
        """Yield the rows of each person (or device), by id; as often as asked for."""
        for chunks in self._chunks:
            rows: list[Entry] = []
            for start, size in chunks:
                self._file.seek(start)
                rows += self._decode(self._file.read(size))
            rows.sort(key=_in_order)
            for _, members in groupby(rows, _of_one):
                yield list(members)
