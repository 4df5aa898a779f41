"""Import of rosters: officials, residents, subscribers, devices from CSV, .xlsx or .xls. The columns stand in `table`.

Called by the command line and the demonstration. First the whole table is read, checked and sealed in a thread, in
bounded memory; then one transaction brings it in, in the order of the people's ids. So an import that dies, at
whatever moment, leaves the roster as it was, and one that is only tried (`dry`) or refused does the same work and
takes it back. Importing the same table again changes nothing: ids are derived from number and name. The same number
with the same name is one person with several places; another name with that number is another person.

Without `replace` places are only added. With it the table is the full list of its scope (`within`, or the counties it
lists): whoever it no longer names leaves there, but only if every row could be read, for a typing error must not
silence a village; and more than `removable` of those who stood there never leave unasked, for a file that was cut off
must not silence a county. The audit record, made from `Imported`, which holds no personal data, is written with it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, BinaryIO

from gateway.database import Database
from gateway.directory.flag import Listed, shared
from gateway.directory.newcomer import Newcomers
from gateway.directory.row import DeviceRow, PersonRow, Reading, Wrong
from gateway.directory.sealed import ONE_AT_A_TIME
from gateway.directory.spool import Spool
from gateway.directory.table import Roster, RowError, Table
from gateway.directory.vault import Vault
from gateway.directory.working import (
    ADDED,
    CHANGED,
    MOVED,
    UNCHANGED,
    Asked,
    Scope,
    ask_people,
    devices_below,
    index_aside,
    people_below,
    quiet_numbers,
    retire_devices,
    retire_people,
    write_devices,
    write_people,
    write_places,
)
from gateway.errors import Refused
from gateway.model import Group, Record
from gateway.ports import Clock
from gateway.regions import LISTED, Regions
from gateway.store import audit
from gateway.transaction import Row, Tx, micros

CHUNK = 2_000
CACHE_KIB = 16_384  # of SQLite, where pages of numbers are written again and again
ERRORS_KEPT = 1_000
COUNTY = 6  # digits
REMOVABLE = 0.1
REMOVED_FREELY = 10  # people; a tenth of a village's officials is nobody

Progress = Callable[[str, float, int], None]
"""Told (reading or writing, share from 0 to 1, rows or people so far), from a thread."""
Found = Callable[[str, RowError], None]
"""Told every finding as it is made: (error or note, finding), from a thread."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: `rows` were read, `failed` of them left out; the difference counts people (or devices).

    `added` had no place in this kind before, `moved` have other places than before, `changed` other particulars,
    `removed` are no longer listed; `several` of those listed have several places or roles, in whatever list, and
    `shared` have a number that another name has as well. `errors` and `notes` are the first 1,000; `ignored` the
    letters of columns that were left out. A `dry` one was taken back.
    """

    kind: Roster
    format: str
    rows: int = 0
    failed: int = 0
    added: int = 0
    changed: int = 0
    moved: int = 0
    unchanged: int = 0
    removed: int = 0
    several: int = 0
    shared: int = 0
    errors: tuple[RowError, ...] = ()
    notes: tuple[RowError, ...] = ()
    ignored: tuple[str, ...] = ()
    dry: bool = False


@dataclass(frozen=True, slots=True)
class How:
    """How a table is brought in.

    Args:
        replace: it is the full list of its scope.
        within: code of the county or township it speaks for; rows of other places are errors. "": any.
        removable: share of those who stood in a county of the scope that may leave without being asked about, 0 to 1.
        dry: only say what would change.
        progress: see `Progress`.
        found: see `Found`.
        record: makes the audit record of what was done.
    """

    replace: bool = False
    within: str = ""
    removable: float = REMOVABLE
    dry: bool = False
    progress: Progress = field(default=lambda _stage, _share, _rows: None)
    found: Found = field(default=lambda _kind, _finding: None)
    record: Callable[[Imported], Record] | None = None


class Importer:
    """Brings tables into the directory."""

    def __init__(self, database: Database, vault: Vault, regions: Regions, clock: Clock) -> None:
        self._database = database
        self._vault = vault
        self._regions = regions
        self._clock = clock

    async def read(self, stream: BinaryIO, kind: Roster, how: How | None = None) -> Imported:
        """Import one table. The stream must be seekable and is not closed.

        Raises:
            Refused: the file is no such table, or would remove too many; nothing was changed.
            StoreDown: the database went away; nothing was changed.
        """
        how = how or How()
        if how.within and getattr(self._regions.get(how.within), "kind", "") not in ("county", "township"):
            why = f"a list speaks for a county (6 digits) or a township (9 digits); {how.within} is none; {LISTED}"
            raise Refused(422, "import_scope", why)
        table = await asyncio.to_thread(Table.open, stream, kind)
        run = _Run(table, how, self._vault, Reading(kind, self._regions, self._vault))
        with run.spool:
            await asyncio.to_thread(run.take_in)
            at = micros(self._clock.now())
            result = await self._database.write(lambda tx: run.bring(tx, at))
        if isinstance(result, Refused):
            raise result
        return replace(result, notes=run.notes())


class _Run:
    """One import under way."""

    def __init__(self, table: Table, how: How, vault: Vault, reading: Reading) -> None:
        self._table = table
        self._how = how
        self._vault = vault
        self._reading = reading
        self._devices = table.kind is Roster.DEVICES
        self.spool: Spool[Any] = Spool(DeviceRow) if self._devices else Spool(PersonRow)
        self._rows = self._failed = 0
        self._errors: list[RowError] = []
        self._listed = Listed()
        self._counties: set[str] = set()
        self._several: set[int] = set()
        self._erased: set[int] = set()
        self._sharing: dict[int, int] = {}

    # --- reading ----------------------------------------------------------------------------------

    def take_in(self) -> None:
        """Read the table into the spool."""
        rows = iter(self._table)
        while chunk := list(islice(rows, CHUNK)):
            self._rows += len(chunk)
            good: list[PersonRow | DeviceRow] = []
            for sheet, row, cells in chunk:
                finding = self._read(sheet, row, cells)
                if isinstance(finding, RowError):
                    self._failed += 1
                    self._errors += [finding][: ERRORS_KEPT - len(self._errors)]
                    self._how.found("error", finding)
                else:
                    good.append(finding)
            self.spool.add(good)
            self._how.progress("reading", self._table.share(), self._rows)
        if self._how.replace and self._failed:
            finding = RowError(0, "", "nobody was removed: correct the rows named here and import again")
            self._errors.append(finding)
            self._how.found("error", finding)

    def _read(self, sheet: int, row: int, cells: dict[str, str] | RowError) -> PersonRow | DeviceRow | RowError:
        if isinstance(cells, RowError):
            return cells
        try:
            found = self._reading.read(sheet, row, cells)
        except Wrong as wrong:
            return RowError(row, wrong.column, wrong.message, sheet)
        places = [found.village] if isinstance(found, DeviceRow) else [place.township for place in found.places]
        if not all(place.startswith(self._how.within) for place in places):
            return RowError(row, "area" if self._table.kind is Roster.SUBSCRIBERS else "village",
                            f"lies outside of {self._how.within}, which this list speaks for", sheet)  # fmt: skip
        self._counties.update([place[:COUNTY] for place in places])
        self._listed.note(found.id, sheet, row)
        return found

    # --- writing ----------------------------------------------------------------------------------

    def bring(self, tx: Tx, at: int) -> Imported | Refused:
        """Bring the spool in, inside one transaction; take it back where it is only tried, or removes too many."""
        tx.run("SAVEPOINT import")
        if tx.postgresql:
            # Two imports at once would add the same person twice.
            tx.one("SELECT pg_advisory_xact_lock(:one)", one=ONE_AT_A_TIME)
        else:
            tx.run(f"PRAGMA cache_size = -{CACHE_KIB}")
        result = self._bring(tx, at)
        if self._how.dry or isinstance(result, Refused):
            tx.run("ROLLBACK TO SAVEPOINT import")
        elif self._how.record is not None:
            audit.append(tx, [self._how.record(result)], late=True)
        tx.run("RELEASE SAVEPOINT import")
        return result

    def _bring(self, tx: Tx, at: int) -> Imported | Refused:
        outcome: Counter[str] = Counter()
        self._several, self._erased, self._sharing = set(), set(), {}  # it may run a second time
        scope = Scope(self._codes) if self._replaces else None
        # Counted before anybody is added: a long list of strangers must not hide how many it removes.
        stood = {code: self._below(tx, code) for code in self._codes} if self._replaces else {}
        quiet = frozenset[bytes]() if self._devices else quiet_numbers(tx)
        numbers = "" if self._devices else index_aside(tx, "person_phone", "person", len(self._listed))
        newcomers = Newcomers()
        for chunk, asked in self._looked_up(tx):
            if asked is None:
                outcome += write_devices(tx, [rows[-1] for rows in chunk])
            else:
                written = write_people(
                    tx, self._vault, Group(self._table.kind), chunk, asked, scope, quiet, at, newcomers
                )
                outcome += written.outcome
                self._several |= written.several
                self._erased |= written.erased
            self._how.progress("writing", outcome.total() / max(1, len(self._listed)), outcome.total())
        write_places(tx, newcomers, at)
        if numbers:
            tx.run(numbers)
        removed = {code: self._retire(tx, code, at) for code in stood}
        for code, left in removed.items():  # each county by itself: one wrong code must not silence a small one
            if left > max(REMOVED_FREELY, self._how.removable * stood[code]):
                return Refused(
                    409, "import_removes", f"this list would remove {left} of {stood[code]} {self._table.kind} in "
                    f"{code}; is it cut off? Nothing was changed. If it is meant, allow that share",
                )  # fmt: skip
        if not self._devices:
            self._sharing = shared(tx)
        return Imported(
            self._table.kind, self._table.format, self._rows, self._failed, outcome[ADDED], outcome[CHANGED],
            outcome[MOVED], outcome[UNCHANGED], sum(removed.values()), len(self._several),
            sum(self._listed.holds(list(self._sharing))), tuple(self._errors), (), self._table.ignored, self._how.dry,
        )  # fmt: skip

    def _looked_up(self, tx: Tx) -> Iterator[tuple[list[list[Any]], Asked | None]]:
        """Yield the rows of people (or devices) in chunks, with what was asked of these people.

        The question for the next chunk is sent before a chunk is given out, so that PostgreSQL, which writes meanwhile
        what was sent before, is not waited for.
        """
        listed = self.spool.people()
        before: tuple[list[list[Any]], Asked | None] | None = None
        while chunk := list(islice(listed, CHUNK)):
            asked = None if self._devices else ask_people(tx, [rows[0].id for rows in chunk])
            if before is not None:
                yield before
            before = chunk, asked
        if before is not None:
            yield before

    @property
    def _replaces(self) -> bool:
        return self._how.replace and not self._failed

    @property
    def _codes(self) -> tuple[str, ...]:
        return (self._how.within,) if self._how.within else tuple(sorted(self._counties))

    def _below(self, tx: Tx, code: str) -> int:
        """Return how many stand below a code."""
        return devices_below(tx, code) if self._devices else people_below(tx, Group(self._table.kind), code)

    def _retire(self, tx: Tx, code: str, at: int) -> int:
        """Let go whom the table does not name below a code; return how many left."""
        if self._devices:
            return retire_devices(tx, code, self._listed.holds)
        removed = 0
        after: Row | None = (code, code, "", 0, "")
        while after is not None:
            after, left = retire_people(tx, self._vault, Group(self._table.kind), after, self._listed.holds, at)
            removed += left
        return removed

    def notes(self) -> tuple[RowError, ...]:
        """Tell what a person should look at, row by row; return the first. Called once, after the commit."""
        kept: list[RowError] = []
        for one, sheet, row in self._listed.rows_of({*self._several, *self._erased, *self._sharing}):
            for finding in self._flags(one, sheet, row):
                kept += [finding][: ERRORS_KEPT - len(kept)]
                self._how.found("note", finding)
        return tuple(kept)

    def _flags(self, one: int, sheet: int, row: int) -> Iterator[RowError]:
        if one in self._erased:
            yield RowError(row, "", "was erased on request and is not brought back", sheet)
        if one in self._several:
            yield RowError(row, "", "has several places or roles, in this list or another", sheet)
        if one in self._sharing:
            text = "another name has this number: one person written twice, or do they share it?"
            yield RowError(row, "phone", text, sheet)
