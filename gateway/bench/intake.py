"""Taking warnings in: how much CPU, how many a second, how fast while others are at it, and how soon a recall holds.

A whole embedded gateway runs as a process of its own and is posted to over HTTP by `gateway.bench.issuer`. What is
measured is the whole way to the 202: HTTP, token, parsing, checks, places, route, plan, and the commit that is synced
to the disk. Every round has a gateway of its own with an empty ledger, and measures one after the other:

- `raw`: the parser alone, and the disk's own commits;
- `recall`: how long after a recall was asked for the last slice of a bulk send was settled;
- `held`: yellow gales, which wait for a second person: the acceptance, and the alarm it rings, alone;
- `at half that rate`: the same from fifty issuers at moments of their own;
- `green`: red rainstorms, each with the opening batches of its officials. They are sent and settled at the same
  time; the CPU time is everything's;
- `beside polygons`: red rainstorms while two issuers post polygons of 41,000 points as fast as they are answered.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from aiohttp import ClientSession

from gateway import cap
from gateway.bench.issuer import Kind, Post, Posted, Task, cpu_s
from gateway.bench.measure import COUNTY, Spread, answer, quantile
from gateway.bench.office import CROWD_COUNTY, ISSUERS, Office, furnish, opened
from gateway.bench.warning import rain, yellow_gale
from gateway.regions import Regions
from gateway.settings import data_folder

AT_ONCE = 16  # issuers whose requests fill the gateway
RED_S = 50.0
RED_ISSUERS, POLYGON_ISSUERS = 10, 2
CAP = "application/cap+xml"
WARM_S = 0.5
RAW_S = 0.5
SENT = "SELECT MAX(o.at), SUM(b.size) FROM outcome o JOIN batch b ON b.id = o.batch WHERE b.alert = ?"
SIGNER = f"demo-{CROWD_COUNTY}-qxj-signer"
CROWD_SENDER = f"{CROWD_COUNTY}-qxj@mingluo.example"


class Round(msgspec.Struct, frozen=True):
    """What one round found: the figures of `Intake`, in its order."""

    parse_ms: float
    commits_s: float
    held_s: float
    held_cpu_ms: float
    p50_ms: float
    p99_ms: float
    green_s: float
    green_cpu_ms: float
    polygons_s: float
    red_p50_ms: float
    red_p99_ms: float
    recall_ms: float


class Intake(msgspec.Struct, frozen=True):
    """The result, as printed with --json. CPU times are the gateway process's own, per accepted alert."""

    seconds: float
    rounds: int
    message_bytes: int
    polygon_bytes: int
    recipients: int
    """A green alert is sent to, on average."""
    parse_ms: Spread
    """CPU time of the parser for the same message."""
    commits_s: Spread
    """Commits a second of one row each, one after the other."""
    held_s: Spread
    held_cpu_ms: Spread
    p50_ms: Spread
    p99_ms: Spread
    green_s: Spread
    green_cpu_ms: Spread
    polygons_s: Spread
    red_p50_ms: Spread
    red_p99_ms: Spread
    recall_ms: Spread
    bench: str = "intake"


async def intake(seconds: float = 5.0, rounds: int = 3, crowd: int = 100_000) -> Intake:
    """Measure with child processes; each part of a round takes `seconds`, and the recalled alert goes to `crowd`.

    Raises:
        RuntimeError: a child failed, or a warning was answered otherwise than 202.
    """
    with tempfile.TemporaryDirectory(prefix="mingluo-bench-", ignore_cleanup_errors=True) as temporary:
        furnished = Path(temporary)
        await furnish(furnished, crowd)
        found: list[Round] = []
        for number in range(rounds):
            folder = furnished / str(number)
            folder.mkdir()
            async with opened(furnished, folder) as office:
                bench = _Bench(office, seconds, crowd, f"r{number}")
                found.append(await bench.run())
    return result(seconds, bench.sizes, bench.recipients, found)


def result(seconds: float, sizes: tuple[int, int], recipients: int, found: Sequence[Round]) -> Intake:
    """Return the figures of a run; `sizes` are those of a small message and of a polygon."""
    return Intake(
        seconds,
        len(found),
        *sizes,
        recipients,
        Spread.of(one.parse_ms for one in found),
        Spread.of(one.commits_s for one in found),
        Spread.of(one.held_s for one in found),
        Spread.of(one.held_cpu_ms for one in found),
        Spread.of(one.p50_ms for one in found),
        Spread.of(one.p99_ms for one in found),
        Spread.of(one.green_s for one in found),
        Spread.of(one.green_cpu_ms for one in found),
        Spread.of(one.polygons_s for one in found),
        Spread.of(one.red_p50_ms for one in found),
        Spread.of(one.red_p99_ms for one in found),
        Spread.of(one.recall_ms for one in found),
    )


class _Bench:
    """The parts of one round."""

    def __init__(self, office: Office, seconds: float, crowd: int, label: str) -> None:
        self._office = office
        self._seconds = seconds
        self._crowd = crowd
        self._label = label
        regions = Regions.load(data_folder("config") / "regions")
        self._towns = _with_villages(regions, COUNTY)
        self._crowd_towns = _with_villages(regions, CROWD_COUNTY)
        self._parts = 0
        self.sizes = (0, 0)
        self.recipients = 0

    async def run(self) -> Round:
        """Do everything once; the first requests only load templates and start the parser of large messages."""
        await self._post(WARM_S, self._all("gale", 4), self._all("rain", 4), self._all("polygon", 1))
        await self._office.settled()
        parse_ms, commits_s = _parse_ms(), _commits_s()
        recall_ms = await self._recall()
        held = await self._post(self._seconds, self._all("gale", AT_ONCE))
        held_s = _count(held) / held.seconds
        calm = await self._post(self._seconds, self._all("gale", len(ISSUERS), held_s / 2))
        green_s, green_cpu_ms = await self._green()
        mixed = await self._post(
            self._seconds, self._all("rain", RED_ISSUERS, RED_S), self._all("polygon", POLYGON_ISSUERS)
        )
        self.sizes = (held.answers[0].bytes, mixed.answers[1].bytes)
        return Round(
            parse_ms, commits_s,
            held_s, held.cpu_s / _count(held) * 1000,
            quantile(calm.answers[0].ms, 0.5), quantile(calm.answers[0].ms, 0.99),
            green_s, green_cpu_ms,
            len(mixed.answers[1].ms) / mixed.seconds,
            quantile(mixed.answers[0].ms, 0.5), quantile(mixed.answers[0].ms, 0.99),
            recall_ms,
        )  # fmt: skip

    def _all(self, kind: Kind, issuers: int, rate: float = 0.0) -> Post:
        towns = self._towns[:1] if kind == "polygon" else self._towns
        chosen = ISSUERS[-issuers:] if kind == "polygon" else ISSUERS[:issuers]
        return Post(kind, chosen, towns, rate)

    async def _post(self, seconds: float, *posts: Post) -> Posted:
        self._parts += 1
        task = Task(self._office.port, self._office.pid, f"{self._label}-{self._parts}-", seconds, posts)
        line = await answer("gateway.bench.issuer", msgspec.json.encode(task).decode())
        return msgspec.json.decode(line, type=Posted)

    async def _green(self) -> tuple[float, float]:
        """Return (accepted per second, CPU ms each until the last one is settled)."""
        spent = cpu_s(self._office.pid)
        posted = await self._post(self._seconds, self._all("rain", AT_ONCE))
        await self._office.settled()
        spent = cpu_s(self._office.pid) - spent
        row = self._office.ask("SELECT SUM(size) / COUNT(DISTINCT alert) FROM batch WHERE county = ?", COUNTY)
        self.recipients = row[0] or 0
        return _count(posted) / posted.seconds, spent / _count(posted) * 1000

    async def _recall(self) -> float:
        """Return the milliseconds from the recall's request to the settling of the last slice that still left."""
        headers = {"Authorization": f"Bearer {SIGNER}"}
        async with ClientSession(f"http://127.0.0.1:{self._office.port}", headers=headers) as session:
            data = cap.write(rain(CROWD_SENDER, f"{self._label}-recalled", self._crowd_towns))
            async with session.post("/v1/alerts", data=data, headers={"Content-Type": CAP}) as answered:
                alert = (await answered.json())["id"]
            await self._office.until(lambda: self._office.ask(SENT, alert)[0] is not None)
            asked = time.time()
            async with session.post(f"/v1/alerts/{alert}/recall", json={"reason": "bench"}) as answered:
                if answered.status != 200:
                    raise RuntimeError(f"the recall was answered {answered.status}")
        await self._office.settled()
        last, sent = self._office.ask(SENT, alert)
        if last is None or sent is None or sent >= self._crowd:
            raise RuntimeError(f"{sent} of {self._crowd} had left before the recall; nothing was measured")
        return max(0.0, last / 1000 - asked * 1000)


def _with_villages(regions: Regions, county: str) -> tuple[str, ...]:
    return tuple(town.code for town in regions.children(county) if regions.villages(town.code))


def _count(posted: Posted) -> int:
    return sum(len(answers.ms) for answers in posted.answers)


def _parse_ms() -> float:
    data = cap.write(yellow_gale(*ISSUERS[0][:1], "raw", [COUNTY]))
    times, spent = 0, time.process_time()
    while time.process_time() - spent < RAW_S:
        cap.parse(data)
        times += 1
    return (time.process_time() - spent) / times * 1000


def _commits_s() -> float:
    """Return how often this disk syncs one row of the size of an alert."""
    with (
        tempfile.TemporaryDirectory(prefix="mingluo-bench-") as folder,
        closing(sqlite3.connect(Path(folder) / "raw.db", isolation_level=None)) as connection,
    ):
        connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE row (body BLOB)")
        times, started = 0, time.perf_counter()
        while time.perf_counter() - started < RAW_S:
            connection.execute("INSERT INTO row VALUES (?)", (bytes(2048),))
            times += 1
        return times / (time.perf_counter() - started)
