"""SMS through the whole embedded gateway, against simulated carriers in processes of their own, judged by their logs.

Whoever was warned twice without a word, or not at all, shows there, whatever the ledger says.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from carrier_desk import free_port
from pydantic import SecretStr
from test_pipeline import Desk, until
from town import FLOWER, FLOWER_1, Cells, phone, table

from gateway import cap
from gateway.app import App
from gateway.bench.carriers import CHANNELS, furnish
from gateway.bench.carriers import table as settings_of
from gateway.bench.installation import HEADERS
from gateway.bench.measure import configuration, red_rain, yellow_rain
from gateway.bench.smsc import LOGIN, SECRET
from gateway.demo.stage import Servers, Stage
from gateway.directory.importer import Importer
from gateway.directory.table import Roster
from gateway.model import Level
from gateway.settings import Settings
from gateway.simulate.carrier import texts
from gateway.simulate.log import read

AGAIN = "再次提醒"
PEOPLE = 5
RESIDENTS: tuple[Cells, ...] = tuple((f"住户{n}", phone(n), FLOWER_1, "opted_in") for n in range(11, 11 + PEOPLE))
NUMBERS = [row[1] for row in RESIDENTS]
RAIN = {Level.RED: red_rain, Level.YELLOW: yellow_rain}
ANSWER_S = 4.0  # of `send`: how long a doubtful submit waits before it is repeated
SECRET_KEY = base64.b64encode(b"tests only, nobody is behind it.").decode()
SERVE = (
    f"import runpy; from channels._carrier import CarrierChannel; CarrierChannel.answer_s = {ANSWER_S};"
    " runpy.run_module('gateway.cli', run_name='__main__')"
)

pytestmark = pytest.mark.timeout(90)


class Smsc:
    """A carrier's process."""

    def __init__(self, protocol: str, log: Path, port: int, listener: str, process: asyncio.subprocess.Process) -> None:
        self.protocol, self.log, self.port, self.listener = protocol, log, port, listener
        self._process = process

    async def order(self, *lines: str) -> None:
        """Tell it something while it runs."""
        assert self._process.stdin is not None
        self._process.stdin.writelines([f"{line}\n".encode() for line in lines])
        await self._process.stdin.drain()

    def entries(self, kind: str) -> list[dict[str, Any]]:
        return read(self.log, kind)

    def heard(self) -> Counter[tuple[str, bool]]:
        """Count the texts each number got, by whether they are marked as a repeat."""
        return Counter({(number, text.startswith(AGAIN)): count for (number, text), count in self._texts().items()})

    def _texts(self) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        for (number, text), count in texts(self.log).items():
            found[number, text.partition("】")[2] if text.startswith("【") else text] += count
        return found


@asynccontextmanager
async def smsc(folder: Path, protocol: str, **scenario: Any) -> AsyncIterator[Smsc]:
    """Run a carrier; end it by its id."""
    log, listener = folder / f"{protocol}.jsonl", f"127.0.0.1:{free_port()}" if protocol == "sgip" else ""
    settings = [part for name, value in scenario.items() for part in ("--set", f"{name}={value}")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", "simulate", "carrier", "--protocol", protocol, "--port", "0",
        "--log", str(log), "--account", f"{LOGIN}:{SECRET}", "--connections", "2", "--set", "linger_s=0.05",
        *(["--listener", listener] if listener else []), *settings,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        address = await asyncio.wait_for(process.stdout.readline(), 30)
        yield Smsc(protocol, log, int(address.decode().rpartition(":")[2]), listener, process)
    finally:
        process.terminate()
        await process.wait()


def written(folder: Path, carriers: Sequence[Smsc], **account: object) -> Settings:
    """Write the configuration of a gateway whose residents hear over these carriers."""
    config = configuration(folder)
    furnish(config, [CHANNELS[one.protocol] for one in carriers])
    quick = {"retry_s": 0.05, "answer_s": 0.5} | account
    (folder / "channels.toml").write_text(
        "\n".join(settings_of(one.protocol, one.port, one.listener, **quick) for one in carriers), "utf8"
    )
    return Settings(data=folder / "data", config=config, channels=folder / "channels.toml", port=0)


@asynccontextmanager
async def gateway(folder: Path, *carriers: Smsc, **account: object) -> AsyncIterator[Desk]:
    """Run an embedded gateway with a few residents."""
    async with App(written(folder, carriers, **account)) as app:
        for channel in app.channels.values():
            vars(channel)["answer_s"] = ANSWER_S
        importer = Importer(app.core.store.database, app.core.vault, app.core.regions, app.clock)
        assert (await importer.read(table(Roster.RESIDENTS, *RESIDENTS), Roster.RESIDENTS)).failed == 0
        await until(lambda: all(channel.up() for channel in app.channels.values()))
        yield Desk(app, folder / "none.log")


async def issued(desk: Desk, level: Level = Level.RED) -> str:
    """Issue a rainstorm warning; return its id."""
    outcome = await desk.core.intake.submit(cap.write(RAIN[level]("1", [FLOWER])), desk.who("issuer"))
    assert outcome.result == "accepted"
    return outcome.alert


async def states(desk: Desk, alert: str) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (_, _, state), number in (await desk.core.store.ledger.counts(alert)).items():
        found[state] += number
    return dict(found)


def ended(desk: Desk, alert: str, **wanted: int) -> Callable[[], Any]:
    """Return a question whether an alert's recipients are in these states."""

    async def there() -> bool:
        return await states(desk, alert) == wanted

    return there


@contextmanager
def killable(folder: Path) -> Iterator[Stage]:
    """Give a stage for a gateway's process on the data that `gateway` left."""
    stage = Stage(folder, Servers(), secret_key="")
    try:
        yield stage
    finally:
        stage.stop()


async def started(stage: Stage) -> None:
    """Start the process, whose claims lapse as soon as those of `gateway`."""
    config = {"MINGLUO_CONFIG": str(stage.folder / "config")}
    stage.start("serve", ["-c", SERVE, "serve"], stage.environment("serve") | config)
    await stage.answering()


async def posted(stage: Stage, level: Level) -> None:
    """Issue a rainstorm warning over HTTP."""
    async with ClientSession(stage.api_url, headers=HEADERS) as session:
        answer = await session.post("/v1/alerts", data=cap.write(RAIN[level]("1", [FLOWER])))
        assert answer.status == 202


def told(folder: Path) -> dict[str, int]:
    """Count recipients by state, read beside the gateway."""
    found: Counter[str] = Counter()
    with closing(sqlite3.connect(f"file:{folder / 'data' / 'mingluo.db'}?mode=ro", uri=True)) as connection:
        for (counts,) in connection.execute("SELECT counts FROM batch"):
            found.update(json.loads(counts))
    return dict(found)


async def finished(desk: Desk, alert: str) -> bool:
    """Whether nothing of an alert will be sent any more."""
    sql = "SELECT SUM(unfinished) FROM batch WHERE alert = :alert"
    return await desk.core.store.database.read(lambda tx: tx.one(sql, alert=alert)) == (0,)


async def test_everybody_is_submitted_reported_and_counted_over_three_carriers(tmp_path: Path) -> None:
    """The whole way, with every protocol: one text per carrier in each pocket, and the ledger knows."""
    async with AsyncExitStack() as stack:
        carriers = [await stack.enter_async_context(smsc(tmp_path, protocol)) for protocol in CHANNELS]
        desk = await stack.enter_async_context(gateway(tmp_path, *carriers))
        alert = await issued(desk)
        await until(ended(desk, alert, delivered=PEOPLE * len(carriers)))
        assert await desk.core.store.ledger.unmatched() == 0
        for carrier in carriers:
            assert carrier.heard() == {(number, False): 1 for number in NUMBERS}


@pytest.mark.parametrize("protocol", ["cmpp30", "sgip"])
@pytest.mark.parametrize("level", [Level.RED, Level.YELLOW])
async def test_an_answer_that_comes_too_late_still_brings_the_report_home(
    tmp_path: Path, protocol: str, level: Level
) -> None:
    """Submitted in time, answered too late, delivered: nobody is told again, and nobody is left in doubt (T14)."""
    slow = smsc(tmp_path, protocol, answer_after_s=1.0)
    async with slow as carrier, gateway(tmp_path, carrier, heartbeat_s=0.1) as desk:
        alert = await issued(desk, level)
        await until(ended(desk, alert, delivered=PEOPLE))
        await until(lambda: finished(desk, alert))  # also where a repeat would have been due
        assert carrier.heard() == {(number, False): 1 for number in NUMBERS}
        assert await desk.core.store.ledger.unmatched() == 0


async def test_a_doubtful_submit_is_repeated_once_and_marked_when_the_answer_is_cut(tmp_path: Path) -> None:
    """The line breaks within the answer: a red warning is worth a second text, that says so, and only one."""
    faults = {"faults": '{"cut":1}', "reports": "never"}
    async with smsc(tmp_path, "cmpp30", **faults) as carrier, gateway(tmp_path, carrier) as desk:
        alert = await issued(desk)
        await until(lambda: len(carrier.entries("submit")) == 1)
        await carrier.order("set faults={}", "set reports=after")
        await until(ended(desk, alert, delivered=PEOPLE))
        assert carrier.heard() == {(number, mark): 1 for number in NUMBERS for mark in (False, True)}


@pytest.mark.parametrize("level", [Level.RED, Level.YELLOW])
async def test_a_gateway_killed_between_submit_and_answer_repeats_only_red(tmp_path: Path, level: Level) -> None:
    """Nobody is lost: red is told again, once and marked; the others are on record as unknown, not as told twice."""
    async with smsc(tmp_path, "cmpp30", answer_after_s=1.0, reports="never") as carrier:
        async with gateway(tmp_path, carrier):
            pass  # the roster is there
        with killable(tmp_path) as stage:
            await started(stage)
            await posted(stage, level)
            await until(lambda: carrier.entries("submit"))
            stage.kill("serve")
            await carrier.order("set answer_after_s=0", "set reports=after")
            await started(stage)
            if level is Level.RED:
                await until(lambda: carrier.heard().total() == 2 * PEOPLE)
            wanted = {"delivered" if level is Level.RED else "unknown": PEOPLE}
            await until(lambda: told(tmp_path) == wanted)
        marks = (False, True) if level is Level.RED else (False,)
        assert carrier.heard() == {(number, mark): 1 for number in NUMBERS for mark in marks}


async def test_a_carrier_that_falls_silent_is_used_again_when_it_is_back(tmp_path: Path) -> None:
    """Nobody is lost to a carrier that only read, and nobody gets a text twice."""
    async with smsc(tmp_path, "cmpp30") as carrier, gateway(tmp_path, carrier) as desk:
        await carrier.order("set silent=true")
        alert = await issued(desk)
        await until(lambda: carrier.entries("ignored"))
        await carrier.order("set silent=false")
        await until(ended(desk, alert, delivered=PEOPLE))
        assert {number for number, _ in carrier.heard()} == set(NUMBERS)
        assert set(carrier.heard().values()) == {1}


async def test_a_logout_costs_nobody_a_warning(tmp_path: Path) -> None:
    """Carriers log clients out at night: the next warning goes over a new connection, once."""
    async with smsc(tmp_path, "cmpp30") as carrier, gateway(tmp_path, carrier) as desk:
        await carrier.order("logout")
        await until(lambda: carrier.entries("closed"))
        alert = await issued(desk)
        await until(ended(desk, alert, delivered=PEOPLE))
        assert carrier.heard() == {(number, False): 1 for number in NUMBERS}


async def test_two_processes_never_hold_more_connections_than_the_account_allows(
    tmp_path: Path, amqp_url: str, redis_url: str, database_url: str, namespace: str
) -> None:
    """A carrier locks an account that logs in too often; what one process leaves, the other takes."""
    urls = {"database_url": database_url, "amqp_url": amqp_url, "redis_url": redis_url, "secret_key": SECRET_KEY}
    roles = {"hub", "worker"}
    async with smsc(tmp_path, "cmpp30") as carrier, AsyncExitStack() as stack:
        shared = written(tmp_path, [carrier], connections=2)
        settings = shared.model_copy(
            update={name: SecretStr(value) for name, value in urls.items()} | {"namespace": namespace}
        )
        other = await stack.enter_async_context(App(settings, roles))
        await until(lambda: len(carrier.entries("login")) == 2)
        async with App(settings, roles) as second:
            assert not second.channels["sms_cmpp"].up()
            await stack.aclose()
            assert not other.channels["sms_cmpp"].up()
            await until(lambda: len(carrier.entries("login")) == 4)
            await until(second.channels["sms_cmpp"].up)
        assert {entry["why"] for entry in carrier.entries("login")} == {""}
