"""A directory over the real villages with an importer, for tests: `async with town(url) as one`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from manual_clock import ManualClock

from gateway.database import Database
from gateway.directory.importer import How, Imported, Importer
from gateway.directory.people import SqlDirectory
from gateway.directory.table import Roster
from gateway.directory.vault import Vault
from gateway.model import Audience, Group, Recipient, Target
from gateway.regions import Regions

SECRET = b"tests only, nobody is behind it."
PLACES = Path(__file__).parent.parent / "config" / "regions"

# Three townships of one county in code order, two villages each, and one township of another county.
FLOWER, WATER, OLD, ABROAD = "411726001", "411726002", "411726003", "411702001"
FLOWER_1, FLOWER_2 = "411726001001", "411726001002"
WATER_1, WATER_2 = "411726002001", "411726002002"
OLD_1 = "411726003001"
ABROAD_1 = "411702001001"

HEADERS = {
    Roster.OFFICIALS: ("name", "phone", "village", "role", "rank"),
    Roster.RESIDENTS: ("name", "phone", "village", "basis", "needs_helper"),
    Roster.SUBSCRIBERS: ("subscription", "area", "language"),
    Roster.DEVICES: ("name", "village", "key"),
}
Cells = Sequence[str]


@cache
def places() -> Regions:
    """The villages this installation ships with."""
    return Regions.load(PLACES)


def phone(number: int) -> str:
    """A number nobody can ring."""
    return f"100{number:08d}"


def subscription(number: int) -> str:
    """A PushSubscription as a browser writes it."""
    keys = {"p256dh": f"B{number:086d}", "auth": f"{number:022d}"}
    return json.dumps({"endpoint": f"https://push.example.org/{number}", "expirationTime": None, "keys": keys})


def table(roster: Roster, *rows: Cells, header: Cells = (), encoding: str = "utf-8") -> io.BytesIO:
    """A CSV file of that roster."""
    text = io.StringIO()
    csv.writer(text).writerows([header or HEADERS[roster], *rows])
    return io.BytesIO(text.getvalue().encode(encoding))


@dataclass
class Town:
    """A directory and what fills it."""

    database: Database
    vault: Vault
    directory: SqlDirectory
    importer: Importer

    async def bring(self, roster: Roster, *rows: Cells, replace: bool = False, how: How | None = None) -> Imported:
        """Import rows in the order of `HEADERS`."""
        return await self.importer.read(table(roster, *rows), roster, how or How(replace=replace))

    async def officials(self, *rows: Cells) -> None:
        """Import officials; all rows must be good. Cells left out at the end are empty."""
        assert (await self.bring(Roster.OFFICIALS, *rows)).errors == ()

    async def residents(self, *rows: Cells) -> None:
        """Import residents given as name, phone, village."""
        rows = tuple((*row, "opted_in") for row in rows)
        assert (await self.bring(Roster.RESIDENTS, *rows)).errors == ()

    def person(self, name: str, number: int) -> int:
        """The id of a person."""
        return self.vault.person_id(phone(number), name)

    async def all(self, audience: Audience, limit: int = 1000) -> list[tuple[str, Recipient]]:
        """Every (township, recipient) of an audience, page by page; each page is in order and none is too long."""
        found: list[tuple[str, Recipient]] = []
        after = None
        while True:
            page = await self.directory.page(audience, after, limit)
            keys = [(one.village, one.person) for one in page.recipients]
            assert keys == sorted(keys)
            assert len(keys) <= limit
            found += [(page.township, one) for one in page.recipients]
            after = page.after
            if after is None:
                return found


@asynccontextmanager
async def town(url: str) -> AsyncIterator[Town]:
    """Open an empty directory."""
    database = Database(url)
    await database.open()
    vault, clock = Vault(SECRET), ManualClock()
    try:
        yield Town(database, vault, SqlDirectory(database, vault, clock), Importer(database, vault, places(), clock))
    finally:
        await database.close()


def whole(*townships: str) -> tuple[Target, ...]:
    """Targets of whole townships."""
    return tuple(Target(one) for one in townships)


def audience(group: Group, *targets: Target, before: tuple[Target, ...] = (), language: str = "zh") -> Audience:
    """An audience; without targets, the three townships of the county."""
    return Audience(targets or whole(FLOWER, WATER, OLD), group, "noop", language, before=before)
