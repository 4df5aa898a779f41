"""The lanes end to end, embedded and over RabbitMQ and PostgreSQL: who is served first, who shares, what is held.

Order is read from the noop channel's log; its rate is small, so that what should wait has something to wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import blank
import orjson
import pytest
from test_pipeline import Desk, until
from test_store import NOW, HandClock, alert, batch_of
from town import ABROAD, ABROAD_1, FLOWER, FLOWER_1, OLD_1, WATER_1, Cells, phone, table

from channels.noop import Noop, NoopSettings
from gateway import cap
from gateway.app import App
from gateway.broker import LocalBroker, RabbitBroker
from gateway.database import Database
from gateway.directory.importer import Importer
from gateway.directory.people import SqlDirectory
from gateway.directory.table import Roster
from gateway.intake import Outcome
from gateway.model import Alert, Area, Audience, Batch, Code, Group, Lane, Level, Notice, Plan, Step, Target
from gateway.planner import AHEAD, BATCH, TURN, Planner
from gateway.policy import Principal
from gateway.ports import Broker, Draft, Page
from gateway.relay import LANE_ROOM, PREFETCH, ROOM, Relay, Worker, queue
from gateway.settings import Settings
from gateway.store import Store
from gateway.store.codec import pack, unpack_message

CITY = Principal("test", "issuer", "4117-qxt", True)
SLOW = "noop = { per_s = 5000, burst = 1000 }"
AFTERNOON = datetime(2026, 7, 20, 6, 0, tzinfo=UTC)  # in China: nothing waits for the morning


class DayClock:
    """Real time, counted from an afternoon."""

    def __init__(self) -> None:
        self._offset = AFTERNOON - datetime.now(UTC)

    def now(self) -> datetime:
        """Aware UTC."""
        return datetime.now(UTC) + self._offset

    async def sleep(self, wait_s: float) -> None:
        """Sleep."""
        await asyncio.sleep(wait_s)


@pytest.fixture(params=["embedded", "cluster"])
def where(request: pytest.FixtureRequest, namespace: str) -> dict[str, Any]:
    """Settings of a gateway on SQLite and its own broker, and of one on the real servers."""
    if request.param == "embedded":
        return {}
    urls = {f"{name}_url": request.getfixturevalue(f"{name}_url") for name in ("amqp", "redis", "database")}
    return urls | {"namespace": namespace}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    database = Database(blank.sqlite(tmp_path))
    await database.open()
    yield Store(database, HandClock())
    await database.close()


@asynccontextmanager
async def gateway(
    folder: Path, where: dict[str, Any], *, rate: str = "", officials: Sequence[Cells] = (), residents: Sequence[Cells]
) -> AsyncIterator[Desk]:
    """Run all roles in this process."""
    log, config = folder / "noop.log", folder / "channels.toml"
    config.write_text(f'[noop]\nlog = "{log}"\n[rates]\n{rate}\n', encoding="utf8")
    async with App(Settings(data=folder, channels=config, port=0, **where), clock=DayClock()) as app:
        importer = Importer(app.core.store.database, app.core.vault, app.core.regions, app.clock)
        for roster, rows in ((Roster.OFFICIALS, officials), (Roster.RESIDENTS, residents)):
            if rows:
                assert (await importer.read(table(roster, *rows), roster)).failed == 0
        yield Desk(app, log)


def people(number: int, village: str, first: int) -> tuple[Cells, ...]:
    """Residents of one village."""
    return tuple((f"住户{at}", phone(at), village, "opted_in") for at in range(first, first + number))


def slices(one: Desk) -> list[str]:
    """The alert of every slice that was sent, in order."""
    return [orjson.loads(line)["alert"] for line in one.log.read_bytes().splitlines()] if one.log.exists() else []


def yellow(warning: Alert) -> Alert:
    """The same in yellow: its residents are bulk."""
    return replace(warning, level=Level.YELLOW, infos=(replace(warning.infos[0], severity="Moderate"),))


class Watched:
    """A directory that tells when it is asked for residents."""

    def __init__(self, directory: SqlDirectory, asked: Callable[[], None]) -> None:
        self._directory = directory
        self._asked = asked

    async def page(self, audience: Audience, after: tuple[str, str, int] | None, limit: int) -> Page:
        """As the real one."""
        if audience.group is Group.RESIDENTS:
            self._asked()
        return await self._directory.page(audience, after, limit)

    async def pages(self, audience: Audience, after: tuple[str, str, int] | None, limit: int) -> list[Page]:
        """As the real one."""
        if audience.group is Group.RESIDENTS:
            self._asked()
        return await self._directory.pages(audience, after, limit)


class Noted:
    """A broker that notes what it was given to publish: the queue of each batch."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.queues: list[str] = []

    async def publish(self, name: str, body: bytes, timeout_s: float = 5.0, *, patient: bool = True) -> None:
        """As the real one."""
        self.queues += [name] * len(unpack_message(body))
        await self._broker.publish(name, body, timeout_s, patient=patient)


async def test_officials_are_on_their_way_before_the_first_residents_page_is_read(
    tmp_path: Path, where: dict[str, Any]
) -> None:
    """Who has to lead a village out hears of it before anything is done for the many."""
    many = tuple((f"干部{at}", phone(at), FLOWER_1, "village_head", "1") for at in range(1, 1200))
    async with gateway(tmp_path, where, officials=many, residents=people(1500, FLOWER_1, 5000)) as one:
        broker, first = Noted(one.app.broker), list[int]()
        one.app.relay._broker = broker  # type: ignore[assignment]  # the one of its methods that the relay calls
        asked: Callable[[], None] = lambda: first.append(broker.queues.count(queue("noop", Lane.GREEN)))  # noqa: E731
        one.app.planner._directory = Watched(one.core.directory, asked)  # type: ignore[assignment]  # likewise
        issued = await one.issue(one.alert([FLOWER]))
        await one.settled(issued.alert, len(many) + 1500)
        officials = await one.core.store.ledger.batches(issued.alert, Group.OFFICIALS.value)
        assert first[0] == len(officials) == 3  # the opening fifty, a full one, and the rest


async def test_a_red_warning_goes_ahead_of_the_bulk_that_is_under_way(tmp_path: Path, where: dict[str, Any]) -> None:
    """Whoever must leave home at once does not wait until a whole county has read of some rain."""
    residents = (*people(20_000, OLD_1, 10_000), *people(3000, FLOWER_1, 1000))
    async with gateway(tmp_path, where, rate=SLOW, residents=residents) as one:
        bulk = await one.issue(yellow(one.alert([OLD_1[:9]])))
        assert bulk.result == "accepted"
        await until(lambda: len(slices(one)) >= 2)
        red = await one.issue(one.alert([FLOWER]))
        before = len(slices(one))
        await until(lambda: len(one.told(red.alert)) == 3000)
        behind = slices(one)
        last = len(behind) - behind[::-1].index(red.alert)
        # Under way already: as many as one process takes, and what left while the red one was frozen.
        assert behind[before:last].count(bulk.alert) <= 2 * one.app.channels["noop"].concurrency
        assert behind.count(bulk.alert) < 20


async def test_a_small_urgent_alert_does_not_wait_behind_a_large_one(tmp_path: Path, where: dict[str, Any]) -> None:
    """Two counties under red share what an account can carry: the few of one do not wait for the many of the other."""
    residents = (*people(15_000, OLD_1, 10_000), *people(15_000, WATER_1, 30_000), *people(2000, ABROAD_1, 1000))
    async with gateway(tmp_path, where, rate=SLOW, residents=residents) as one:
        large = await one.issue(one.alert([OLD_1[:9], WATER_1[:9]]))
        await until(lambda: len(slices(one)) >= 2)
        small = await _red_elsewhere(one)
        assert (large.result, small.result) == ("accepted", "accepted"), small.held
        await until(lambda: len(one.told(small.alert)) == 2000)
        assert slices(one).count(large.alert) <= 22  # of 30: it came first, and goes on meanwhile


async def _red_elsewhere(one: Desk) -> Outcome:
    """The city's bureau warns a town of another county."""
    warning = one.alert([ABROAD])
    area = Area("部分乡镇", geocodes=(Code("township", ABROAD),))
    warning = replace(warning, sender="4117-qxt@mingluo.example", infos=(replace(warning.infos[0], areas=(area,)),))
    return await one.core.intake.submit(cap.write(warning), CITY)


# --- what is held ---------------------------------------------------------------------------------------------------


class Endless:
    """A directory whose every audience goes on and on."""

    def __init__(self) -> None:
        self.read = 0

    async def page(self, audience: Audience, after: tuple[str, str, int] | None, limit: int) -> Page:
        """As many as are asked for."""
        first = after[2] + 1 if after else 0
        self.read += limit
        persons = tuple(range(first, first + limit))
        return Page(
            FLOWER, persons, ("",) * limit, (FLOWER_1,) * limit, {}, (FLOWER, FLOWER_1, persons[-1])
        )  # fmt: skip

    async def pages(self, audience: Audience, after: tuple[str, str, int] | None, limit: int) -> list[Page]:
        """One, as large as it may be."""
        return [await self.page(audience, after, limit)]


async def test_what_the_planner_holds_is_bounded_however_many_there_are(store: Store) -> None:
    """A broker that has stopped taking must not let a county's worth of people fill the memory."""
    directory, relay = Endless(), Relay(LocalBroker(), store.outbox)
    planner = Planner(store, directory, relay, {"noop": BATCH}, HandClock())  # type: ignore[arg-type]  # one method
    audience = Audience((Target(FLOWER),), Group.RESIDENTS, "noop")
    for at in range(AHEAD + 2):
        one = alert(f"a{at}")
        step = Step(1, audience, Notice.ISSUE, Lane.URGENT, NOW, NOW + timedelta(hours=1))
        await store.outbox.accept(
            Draft(one, one.identifier, Plan(one.id, "green", (), (), (), (step,)), (), {}, (), {}, NOW)
        )
    while await planner.round():
        assert len(planner._ahead) <= AHEAD
    waiting = relay._waiting[Lane.URGENT]
    turn = TURN // BATCH
    assert LANE_ROOM <= len(waiting) < LANE_ROOM + turn
    assert all(waiting.of(alert(f"a{at}").id) < ROOM + turn for at in range(AHEAD + 2))
    frozen = await store.database.read(lambda tx: tx.one("SELECT SUM(size) FROM batch"))
    assert frozen is not None
    assert directory.read <= int(frozen[0]) + (AHEAD + 2) * TURN  # nothing is read that is not written or held


async def test_what_was_read_ahead_is_read_again_when_it_had_to_wait(store: Store) -> None:
    """Who has opted out while a page waited for room must not be told from that page."""
    directory, clock = Endless(), HandClock()
    planner = Planner(store, directory, Relay(LocalBroker(), store.outbox), {"noop": BATCH}, clock)  # type: ignore[arg-type]  # one method
    one, audience = alert(), Audience((Target(FLOWER),), Group.RESIDENTS, "noop")
    step = Step(1, audience, Notice.ISSUE, Lane.URGENT, NOW, NOW + timedelta(hours=1))
    await store.outbox.accept(Draft(one, "d", Plan(one.id, "green", (), (), (), (step,)), (), {}, (), {}, NOW))
    for turn in (1, 2):
        await planner.round()
        await until(lambda turn=turn: directory.read == (turn + 1) * TURN)  # type: ignore[misc]
    clock.advance(3)
    await planner.round()
    await until(lambda: directory.read >= 5 * TURN)
    assert directory.read == 5 * TURN


async def test_a_lane_hands_out_one_batch_of_each_alert_in_turn(store: Store) -> None:
    """Ten batches of one alert and one of another: the one goes second, not eleventh."""
    relay = Relay(LocalBroker(), store.outbox)
    for name in (*(f"large.1.{at}" for at in range(10)), "small.1.0"):
        relay.offer_packed("noop", Lane.URGENT, name, b"")
    waiting = relay._waiting[Lane.URGENT]
    assert [waiting.take().batch for _ in range(3)] == ["large.1.0", "small.1.0", "large.1.1"]
    assert len(waiting) == 8


class Stuck:
    """A sender that never comes to an end."""

    def __init__(self) -> None:
        self.held: list[str] = []

    async def send(self, batch: Batch) -> None:
        """Wait for ever."""
        self.held.append(batch.id)
        await asyncio.Event().wait()

    def stop(self) -> None:
        """Nothing new comes anyway."""


@pytest.mark.parametrize("kind", ["local", "rabbitmq"])
async def test_a_worker_holds_no_more_than_its_prefetch(
    kind: str, request: pytest.FixtureRequest, namespace: str
) -> None:
    """What a slow carrier cannot take waits in the broker, where another worker finds it."""
    broker: Broker = LocalBroker()
    if kind == "rabbitmq":
        broker = RabbitBroker(request.getfixturevalue("amqp_url"), namespace)
    noop, frozen, sender = Noop(NoopSettings()), batch_of(alert()), Stuck()
    wanted = {lane: noop.concurrency * PREFETCH[lane] for lane in Lane}
    worker = Worker(broker, sender, {"noop": noop})  # type: ignore[arg-type]  # what a worker asks of a sender
    await broker.open([queue("noop", lane) for lane in Lane])
    await worker.start()
    for lane in Lane:
        for at in range(wanted[lane] + 8):
            await broker.publish(queue("noop", lane), pack(replace(frozen, id=f"{lane}.1.{at}", lane=lane)))
    await until(lambda: len(sender.held) >= sum(wanted.values()))
    await asyncio.sleep(0.1)  # long enough for one more to come
    assert {lane: sum(one.startswith(f"{lane}.") for one in sender.held) for lane in Lane} == wanted
    for task in worker._tasks:
        task.cancel()
    await broker.close()
