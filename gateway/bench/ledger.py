"""The ledger full of receipts: settling slices, folding late reports, one person's history, a large alert's status.

A county's year: two hundred alerts to the same residents, ten million receipts, all written by the gateway's own way
(accept, claim, settle) without a planner, a broker or a sender between. Residents are real rows of the directory and
their batches its pages, so that a history goes the whole way from the telephone number; the large alert beside them
has made-up recipients. In the embedded database, and on PostgreSQL in a database of its own that is dropped again, if
`MINGLUO_DATABASE_URL` names a server and a user who may create one.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import msgspec
import psycopg
from psycopg import sql

from gateway.bench.measure import COUNTY, Spread, SystemClock, quantile, red_rain
from gateway.bench.people import add_people
from gateway.coverage import CoverageBook
from gateway.database import Database
from gateway.directory.people import SqlDirectory
from gateway.directory.vault import Vault
from gateway.model import Audience, Batch, Group, Lane, Notice, Plan, Receipt, Record, Report, State, Step, Target
from gateway.planner import cut
from gateway.policy import Policy
from gateway.ports import Draft, Page, Settled
from gateway.receipts import Receipts
from gateway.regions import Regions
from gateway.report import status
from gateway.settings import data_folder
from gateway.store import Store
from gateway.transaction import Tx

ALERTS = 200  # of a county's year, all to the same residents
OFFICIALS = 2_000
PAGE = 1_000  # recipients of a batch
REPORTS = 10_000  # late reports in one commit
HTTP_SLICE = 50  # as an HTTP channel sends
ASKED = 200  # histories read
LOOKS = 50  # at the status
TOGETHER = 10  # alerts accepted before their slices are claimed, then settled
MADE_UP = 1 << 62  # ids as wide as real ones, and nobody's
NOBODY = "+8610000000000"
LEASE_S = 600.0
CHANNEL, REPORTING = "noop", "sms_http"


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Quantiles of at least one."""
        return cls(*(round(quantile(seconds, share) * 1e3, 2) for share in (0.5, 0.99)))


class Found(msgspec.Struct, frozen=True):
    """What one database did. `_mib` are of a million recipients: settled alone, and with a reference and a report each.

    `settle_s` counts packed records (slices), `fold_s` late reports.
    """

    batches: int
    settle_s: Spread
    fold_s: Spread
    lines: int
    history: Latency
    status_recipients: int
    status: Latency
    settled_mib: float
    reported_mib: float


class Ledger(msgspec.Struct, frozen=True):
    """The result, as printed with --json."""

    receipts: int
    alerts: int
    rounds: int
    sqlite: Found
    postgresql: Found | None
    bench: str = "ledger"


async def ledger(receipts: int = 10_000_000, rounds: int = 5) -> Ledger:
    """Measure in this process, whose own the databases are."""
    server = os.environ.get("MINGLUO_DATABASE_URL", "")
    alerts = min(ALERTS, receipts)
    with tempfile.TemporaryDirectory(prefix="mingluo-bench-", ignore_cleanup_errors=True) as folder:
        embedded = await _measure(f"sqlite:///{folder}/mingluo.db", receipts, alerts, rounds)
    other = None
    if server.startswith("postgres"):
        async with _scratch(server) as url:
            other = await _measure(url, receipts, alerts, rounds)
    return Ledger(receipts // alerts * alerts, alerts, rounds, embedded, other)


@asynccontextmanager
async def _scratch(server: str) -> AsyncIterator[str]:
    """Create a database beside the one the URL names, and drop it."""
    name = f"mingluo_bench_{secrets.token_hex(4)}"
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        finally:
            await connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


async def _measure(url: str, receipts: int, alerts: int, rounds: int) -> Found:
    database = Database(url)
    await database.open()
    try:
        vault = Vault(secrets.token_bytes(32))
        bench = _Bench(database, vault, rounds)
        await bench.populate(receipts // alerts)
        return await bench.run(alerts, receipts // 10)
    finally:
        await database.close()


class _Sources(NamedTuple):
    """What a status is read from."""

    store: Store
    coverage: CoverageBook


class _Bench:
    """One database, filled and measured."""

    def __init__(self, database: Database, vault: Vault, rounds: int) -> None:
        clock = SystemClock()
        self._database = database
        self._vault = vault
        self._rounds = rounds
        self._store = Store(database, clock)
        self._directory = SqlDirectory(database, vault, clock)
        self._receipts = Receipts(self._store, self._directory, clock)
        self._regions = Regions.load(data_folder("config") / "regions")
        self._policy = Policy.load(data_folder("config") / "policy")
        self._targets = tuple(Target(town.code) for town in self._regions.children(COUNTY))
        self._count = 0

    async def populate(self, residents: int) -> None:
        """Residents, and the officials of the large alert."""
        townships = [target.township for target in self._targets]
        await add_people(self._database, self._vault, residents, Group.RESIDENTS, townships)
        await add_people(self._database, self._vault, min(OFFICIALS, residents), Group.OFFICIALS, townships)

    async def run(self, alerts: int, large: int) -> Found:
        """Fill and measure; `large` recipients has the alert whose status is asked."""
        pages = await self._pages(Group.RESIDENTS)
        people = [one for page in pages for one in zip(page.persons, page.addresses, strict=True)]
        empty = await self._bytes()
        rates, settled = await self._settle(pages, alerts)
        filled = await self._bytes()
        folds, reported = await self._folds(pages)
        after = await self._bytes()
        gc.collect()
        gc.freeze()  # as a gateway's process does: what is looked at now is not the bench's own garbage
        lines, history = await self._histories(people)
        return Found(
            batches=settled,
            settle_s=Spread.of(rates),
            fold_s=Spread.of(folds),
            lines=lines,
            history=history,
            status_recipients=large,
            status=await self._status(large, await self._pages(Group.OFFICIALS)),
            settled_mib=_mib_per_million(filled - empty, alerts * len(people)),
            reported_mib=_mib_per_million(after - filled, reported),
        )

    async def _pages(self, group: Group) -> list[Page]:
        pages, after = [], None
        while (page := await self._directory.page(Audience(self._targets, group, CHANNEL), after, PAGE)).persons:
            pages.append(page)
            after = page.after
        return pages

    async def _accept(
        self, pages: Sequence[tuple[Group, Page]], channel: str = CHANNEL, slice_: int = PAGE
    ) -> list[Batch]:
        """Accept one alert with its batches, as after the planner."""
        self._count += 1
        alert = red_rain(str(self._count), [target.township for target in self._targets])
        now = datetime.now(UTC)
        until = now + timedelta(hours=3)
        steps = [
            Step(number, Audience(self._targets, group, channel), Notice.ISSUE, Lane.URGENT, now, until)
            for number, group in enumerate(dict.fromkeys(group for group, _ in pages), 1)
        ]
        of = {step.audience.group: step for step in steps}
        batches = [cut(alert.id, of[group], at, page, slice_) for at, (group, page) in enumerate(pages)]
        plan = Plan(alert.id, "green", ("bench",), self._targets, (), tuple(steps))
        cursors = dict.fromkeys((step.number for step in steps), None)
        record = Record(now, "bench", "accept", alert.id)
        expiring = replace(alert, expires=until)
        await self._store.outbox.accept(Draft(expiring, alert.id, plan, batches, cursors, [record], {}, now))
        return batches

    async def _claim(self, batches: Sequence[Batch]) -> list[tuple[Batch, int]]:
        slices = [(batch, number) for batch in batches for number in range(batch.slices)]
        await asyncio.gather(
            *(self._store.outbox.claim(batch.id, at, f"{batch.id}/{at}", LEASE_S) for batch, at in slices)
        )
        return slices

    async def _settle(self, pages: Sequence[Page], alerts: int) -> tuple[list[float], int]:
        """Fill the ledger; (packed records per second in each part, how many in all)."""
        seconds, records = [0.0] * self._rounds, [0] * self._rounds
        for part, begin in enumerate(range(0, alerts, TOGETHER)):
            batches = [
                batch
                for _ in range(begin, min(alerts, begin + TOGETHER))
                for batch in await self._accept([(Group.RESIDENTS, page) for page in pages])
            ]
            slices = await self._claim(batches)
            receipt, now = Receipt(State.DELIVERED), datetime.now(UTC)
            outcomes = [
                Settled(batch.id, at, 1, f"{batch.id}/{at}", range(len(batch)), [receipt] * len(batch), CHANNEL, now)
                for batch, at in slices
            ]
            started = time.perf_counter()
            await asyncio.gather(*map(self._store.ledger.settle, outcomes))
            seconds[part % self._rounds] += time.perf_counter() - started
            records[part % self._rounds] += len(outcomes)
        return [count / spent for count, spent in zip(records, seconds, strict=True) if spent], sum(records)

    async def _folds(self, pages: Sequence[Page]) -> tuple[list[float], int]:
        """Late reports per second, in no order, thousands in one commit; and how many in all."""
        few, rates, total = list[Page](), list[float](), 0
        for page in pages:
            if sum(len(one.persons) for one in few) < REPORTS:
                few.append(page)
        for _ in range(self._rounds):
            batches = await self._accept([(Group.RESIDENTS, page) for page in few], REPORTING, HTTP_SLICE)
            now, reports = datetime.now(UTC), list[Report]()
            outcomes = []
            for batch, at in await self._claim(batches):
                positions = range(at * HTTP_SLICE, min(len(batch), (at + 1) * HTTP_SLICE))
                references = [secrets.token_hex(16) for _ in positions]  # as carriers name them
                sent = [Receipt(State.SUBMITTED, "queued", reference) for reference in references]
                outcomes.append(Settled(batch.id, at, 1, f"{batch.id}/{at}", positions, sent, REPORTING, now))
                reports += [Report(REPORTING, one, State.DELIVERED, now, "delivered") for one in references]
            await asyncio.gather(*map(self._store.ledger.settle, outcomes))
            reports = sorted(reports, key=lambda one: one.reference)[:REPORTS]  # in no order
            started = time.perf_counter()
            await self._receipts.commit(REPORTING, reports)
            rates.append(len(reports) / (time.perf_counter() - started))
            total += len(reports)
        return rates, total

    async def _histories(self, people: Sequence[tuple[int, str]]) -> tuple[int, Latency]:
        """The most lines one person has, and how long it takes from the number to all of them."""
        spent, lines = [], 0
        for person, address in people[:: max(1, len(people) // ASKED)]:
            started = time.perf_counter()
            (found,) = await self._directory.ever_at(address)
            places, phone_hash = await self._directory.ever_of(found)
            past = await self._store.ledger.history(found, places, phone_hash)
            spent.append(time.perf_counter() - started)
            lines = max(lines, len(past.told))
            if found != person or len(past.told) < self._count - self._rounds:
                raise RuntimeError("a history lacks an alert")
        return lines, Latency.of(spent)

    async def _status(self, recipients: int, officials: Sequence[Page]) -> Latency:
        """How long the status of a large alert takes while it moves: nothing of an earlier look is of use."""
        crowd, first = list[tuple[Group, Page]](), 0
        while first < recipients:
            size = min(PAGE, recipients - first)
            town = self._targets[first // PAGE % len(self._targets)].township
            village = self._regions.villages(town)[0].code
            persons = tuple(range(MADE_UP + first, MADE_UP + first + size))
            page = Page(town, persons, (NOBODY,) * size, (village,) * size)
            crowd.append((Group.RESIDENTS, page))
            first += size
        batches = await self._accept([*((Group.OFFICIALS, page) for page in officials), *crowd])
        receipt, now = Receipt(State.DELIVERED), datetime.now(UTC)
        outcomes = [
            Settled(batch.id, at, 1, f"{batch.id}/{at}", range(len(batch)), [receipt] * len(batch), CHANNEL, now)
            for batch, at in await self._claim(batches)
        ]
        await asyncio.gather(*map(self._store.ledger.settle, outcomes))
        row = await self._store.outbox.alert(batches[0].alert)
        assert row is not None
        book = CoverageBook(self._store, self._directory, self._regions, lambda: self._policy)
        await status(_Sources(self._store, book), row)
        answering = [person for page in officials for person in page.persons][:LOOKS]
        spent = []
        for person in answering:  # each answer moves the alert, so that what is kept of the last look is of no use
            record = Record(datetime.now(UTC), "bench", "confirm", row.alert.id, "phone")
            await self._store.ledger.confirm(row.alert.id, person, [], "phone", record)
            started = time.perf_counter()
            found = await status(_Sources(self._store, book), row)
            spent.append(time.perf_counter() - started)
            if sum(count.recipients for count in found.counts if count.group == Group.RESIDENTS) != recipients:
                raise RuntimeError("the status lacks recipients")
        return Latency.of(spent)

    async def _bytes(self) -> int:
        """Size of the database, its log not counted."""

        def size(tx: Tx) -> int:
            words = "pg_database_size(current_database())"
            pages = "page_count * page_size FROM pragma_page_count(), pragma_page_size()"
            return int(tx.all(f"SELECT {words if tx.postgresql else pages}")[0][0])

        return await self._database.read(size, 60.0)


def _mib_per_million(size: int, recipients: int) -> float:
    return round(size / 2**20 / recipients * 1e6, 1)
