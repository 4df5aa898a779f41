"""Import of rosters from CSV: officials, residents, subscribers, devices. The columns stand in `table`.

Called by the API and the command line. A table is read and sealed in a thread, 1,000 rows at a time, and each such
chunk is one operation of the database, so neither the size of a roster nor a slow disk holds up a warning.
Importing the same table again changes nothing: ids are derived from number and name. The same number with the same
name is one person with several places; another name with that number is another person.

Without `replace` places are only added. With it, whoever the table no longer lists is retired, but only in the
counties the table lists, and only if every row could be read: a typing error must not silence a village.
The caller writes the audit record from `Imported`, which holds no personal data.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from gateway.database import Database, Row, micros
from gateway.directory.row import DeviceRow, PersonRow, Reading, Wrong
from gateway.directory.table import Roster, RowError, Table
from gateway.directory.vault import Vault
from gateway.directory.working import (
    ADDED,
    UNCHANGED,
    UPDATED,
    retire_devices,
    retire_people,
    write_devices,
    write_people,
)
from gateway.model import Group
from gateway.ports import Clock
from gateway.regions import Regions

CHUNK = 1_000
ERRORS_KEPT = 1_000
COUNTY = 6  # digits


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, in rows: `rows` = `added` + `updated` + `unchanged` + `failed`.

    `errors` are the first 1,000; `ignored` the letters of columns that were left out. `retired` counts people (or
    devices) that left this kind, `ended` single places that ended.
    """

    kind: Roster
    encoding: str
    rows: int
    added: int
    updated: int
    unchanged: int
    failed: int
    errors: tuple[RowError, ...]
    ignored: tuple[str, ...] = ()
    retired: int = 0
    ended: int = 0


class Importer:
    """Brings tables into the directory."""

    def __init__(self, database: Database, vault: Vault, regions: Regions, clock: Clock) -> None:
        self._database = database
        self._vault = vault
        self._regions = regions
        self._clock = clock

    async def read(self, stream: BinaryIO, kind: Roster, *, replace: bool = False) -> Imported:
        """Import one table. The stream must be seekable and is not closed.

        Raises:
            Refused: the file is no such table; nothing was imported.
            StoreDown: the database went away; what was imported until then stays, import again.
        """
        table = await asyncio.to_thread(Table.open, stream, kind)
        return await _Run(self._database, self._vault, self._clock, table, replace).run(
            Reading(kind, self._regions, self._vault)
        )


class _Run:
    """One import under way."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, table: Table, replace: bool) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._table = table
        self._replace = replace
        self._outcome: Counter[str] = Counter()
        self._failed = 0
        self._errors: list[RowError] = []
        self._counties: set[str] = set()
        self._listed: set[int] = set()  # hashes of places, ids of devices; filled only to retire the others

    async def run(self, reading: Reading) -> Imported:
        """Import chunk by chunk, then retire."""
        rows = iter(self._table)
        while True:
            people, devices, errors = await asyncio.to_thread(read_chunk, rows, reading)
            if not people and not devices and not errors:
                break
            self._failed += len(errors)
            self._errors += errors[: ERRORS_KEPT - len(self._errors)]
            await self._write(people, devices)
        retired, ended = (0, 0)
        if self._replace and self._failed:
            self._errors.append(RowError(0, "", "nobody was retired: correct the rows named here and import again"))
        elif self._replace:
            retired, ended = await self._retire()
        return Imported(
            self._table.kind,
            self._table.encoding,
            self._outcome.total() + self._failed,
            self._outcome[ADDED],
            self._outcome[UPDATED],
            self._outcome[UNCHANGED],
            self._failed,
            tuple(self._errors),
            self._table.ignored,
            retired,
            ended,
        )

    async def _write(self, people: Sequence[PersonRow], devices: Sequence[DeviceRow]) -> None:
        at = micros(self._clock.now())
        if devices:
            self._outcome += await self._database.write(lambda tx: write_devices(tx, devices))
        if people:
            group = Group(self._table.kind)
            self._outcome += await self._database.write(lambda tx: write_people(tx, self._vault, group, people, at))
        if self._replace:
            self._listed.update(row.id for row in devices)
            self._counties.update(row.village[:COUNTY] for row in devices)
            for row in people:
                for township, village, role, _ in row.places:
                    self._listed.add(hash((row.id, self._table.kind.value, township, village, role)))
                    self._counties.add(township[:COUNTY])

    async def _retire(self) -> tuple[int, int]:
        retired = ended = 0
        for county in sorted(self._counties):
            if self._table.kind is Roster.DEVICES:
                retired += await self._retire_devices(county)
                continue
            after: Row | None = (county, "", "", 0, "")
            while after is not None:
                after, left, places = await self._retire_page(after)
                retired += left
                ended += places
        return retired, ended

    async def _retire_devices(self, county: str) -> int:
        return await self._database.write(lambda tx: retire_devices(tx, county, self._listed.__contains__))

    async def _retire_page(self, after: Row) -> tuple[Row | None, int, int]:
        group, at = Group(self._table.kind), micros(self._clock.now())
        return await self._database.write(
            lambda tx: retire_people(tx, self._vault, group, after, lambda key: hash(key) in self._listed, at)
        )


def read_chunk(
    rows: Iterator[tuple[int, dict[str, str] | RowError]], reading: Reading
) -> tuple[list[PersonRow], list[DeviceRow], list[RowError]]:
    """Read the next `CHUNK` rows; all three are empty at the end."""
    people: list[PersonRow] = []
    devices: list[DeviceRow] = []
    errors: list[RowError] = []
    for number, cells in islice(rows, CHUNK):
        if isinstance(cells, RowError):
            errors.append(cells)
            continue
        try:
            row = reading.read(number, cells)
        except Wrong as wrong:
            errors.append(RowError(number, wrong.column, wrong.message))
            continue
        if isinstance(row, PersonRow):
            people.append(row)
        else:
            devices.append(row)
    return people, devices, errors
