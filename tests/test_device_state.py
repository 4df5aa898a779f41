"""What is known of loudspeakers, on both databases: who is there, who works, and which villages would hear nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import blank
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from test_store import NOW, HandClock, alert, batch_of, draft_of
from town import FLOWER, FLOWER_1, FLOWER_2, WATER_1, Town, town

from gateway.database import Database
from gateway.directory.table import Roster
from gateway.gauge import show_speakers
from gateway.metrics import REGISTRY
from gateway.migrations import upgrade
from gateway.model import Batch, Condition, DeviceEvent, DeviceState, Report, State, Status
from gateway.policy.table import SpeakerRules
from gateway.receipts import Receipts
from gateway.store import Store
from gateway.store.device import Speaker, SqlDevices
from gateway.transaction import Row, Tx, micros

RULES = SpeakerRules(tolerated_faults=("battery_low",))
T = TypeVar("T")
HEALTHY = DeviceState("2.1.0", 70, "mains", 100, 0.4)


class Fleet:
    """Three loudspeakers in two villages, over a real store."""

    def __init__(self, one: Town, store: Store, clock: HandClock) -> None:
        self.town, self.store, self.clock = one, store, clock
        self.receipts = Receipts(store, one.directory, clock)
        self.ids: list[int] = []

    async def say(
        self, kind: str, device: int = 0, code: str = "", state: DeviceState | None = None, by: Store | None = None
    ) -> None:
        """Let a device say something of itself."""
        event = DeviceEvent(self.ids[device], kind, self.clock.now(), code, state)
        await (by or self.store).devices.fold([event])

    async def all(self) -> list[Speaker]:
        return await self.store.devices.below(["4117"], RULES)

    async def one(self, device: int = 0) -> Speaker:
        return next(one for one in await self.all() if one.id == self.ids[device])

    async def play(self, status: Status, *devices: int, slice_: int = 0) -> Batch:
        """Command some devices of the fleet; with a slice, through a platform that speaks for them."""
        about = replace(alert(f"drill-{status}"), status=status)
        ids = tuple(self.ids[one] for one in devices)
        batch = replace(
            batch_of(about, size=len(ids), slice_=slice_, channel="loudspeaker_ws"), persons=ids, township=FLOWER,
            villages=((FLOWER_1, len(ids)),),
        )  # fmt: skip
        await self.store.outbox.accept(draft_of(about, batch, digest=about.identifier))
        return batch

    async def report(self, batch: Batch, position: int, state: State) -> None:
        one = Report("loudspeaker_ws", "", state, self.clock.now(), state.name.lower(), batch.id, position)
        await self.receipts.commit("loudspeaker_ws", [one])


@pytest.fixture(params=["sqlite", "postgresql"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    clock = HandClock()
    async with town(url) as one:
        rows = [("pole-1", FLOWER_1, "k" * 16), ("pole-2", FLOWER_1, "l" * 16), ("pole-3", FLOWER_2, "m" * 16)]
        assert (await one.bring(Roster.DEVICES, *rows)).errors == ()
        found = Fleet(one, Store(one.database, clock), clock)
        found.ids = [speaker.id for speaker in await found.all()]
        yield found


async def test_what_a_device_told_stays_until_it_tells_something_else(fleet: Fleet) -> None:
    """A device that says nothing of its battery in one report has not lost it; one that tells of no fault has none."""
    await fleet.say("online", code="2.0.0")
    await fleet.say("state", state=replace(HEALTHY, faults=("amplifier",)))
    fleet.clock.advance(300)
    await fleet.say("state", state=DeviceState(volume=40))
    one = await fleet.one()
    assert one.state == replace(HEALTHY, volume=40, faults=())
    assert (one.online, one.since, one.seen_at) == (True, NOW, NOW + timedelta(seconds=300))
    assert one.told_at == NOW + timedelta(seconds=300)


async def test_who_went_from_one_process_and_came_to_another_is_there(fleet: Fleet) -> None:
    """A half-dead connection is found a minute after the device has come back elsewhere; that is no farewell."""
    other = Store(fleet.town.database, fleet.clock)
    await fleet.say("online")
    await fleet.say("online", by=other)
    await fleet.say("offline")
    assert (await fleet.one()).online
    await fleet.say("offline", by=other)
    assert not (await fleet.one()).online


async def test_the_process_a_device_was_taken_from_is_told_once(fleet: Fleet) -> None:
    """Two boxes with one key at two hubs: both would sound, and the village would look as if it had one."""
    other = Store(fleet.town.database, fleet.clock)
    await fleet.say("online")
    assert await fleet.store.devices.taken() == []
    await fleet.say("online", by=other)
    assert await other.devices.taken() == []
    assert await fleet.store.devices.taken() == [fleet.ids[0]]
    assert await fleet.store.devices.taken() == []
    await fleet.say("replaced")
    await fleet.say("state", state=HEALTHY)
    assert await other.devices.taken() == [], "what the older connection still says does not take it back"
    await fleet.say("offline")
    assert (await fleet.one()).online


async def test_the_last_hello_holds_a_device_whichever_hub_commits_first(fleet: Fleet) -> None:
    """Hellos are committed within half a second, in any order; the older line would otherwise win for good."""
    other = Store(fleet.town.database, fleet.clock)
    fleet.clock.advance(0.3)
    await fleet.say("online", by=other)
    fleet.clock.advance(-0.3)
    await fleet.say("online")
    assert await other.devices.taken() == []
    assert await fleet.store.devices.taken() == [fleet.ids[0]]


async def test_a_device_that_has_come_back_is_not_parted_from(fleet: Fleet) -> None:
    """It was at another hub for a moment; its newest connection is the one that counts."""
    other = Store(fleet.town.database, fleet.clock)
    for by in (fleet.store, other, fleet.store):
        await fleet.say("online", by=by)
    assert await fleet.store.devices.taken() == []
    assert await other.devices.taken() == [fleet.ids[0]]
    await fleet.say("offline")
    await fleet.say("online", by=other)
    assert await fleet.store.devices.taken() == [], "it had gone before it came there"


async def test_who_speaks_for_a_dead_process_may_say_that_a_device_went(fleet: Fleet) -> None:
    """The process that held a broker's fleet was killed; whoever has taken over hears the farewells."""
    await fleet.say("online", by=Store(fleet.town.database, fleet.clock))
    fleet.clock.advance(121)
    await fleet.say("offline")
    assert not (await fleet.one()).online


async def test_only_the_last_word_of_a_commit_counts(fleet: Fleet) -> None:
    """After a cut a device comes, goes and comes again within the second; all of it may share one commit."""
    first, second = fleet.ids[:2]
    at = [NOW + timedelta(seconds=one) for one in range(3)]
    await fleet.store.devices.fold(
        [
            DeviceEvent(first, "online", at[0], "2.1.0"),
            DeviceEvent(second, "online", at[0]),
            DeviceEvent(first, "offline", at[1]),
            DeviceEvent(second, "offline", at[1]),
            DeviceEvent(second, "online", at[2]),
        ]
    )
    assert ((await fleet.one(0)).online, (await fleet.one(1)).online) == (False, True)
    assert (await fleet.one(0)).seen_at == at[1]
    assert (await fleet.one(0)).state.firmware == "2.1.0"


async def test_after_a_start_alone_nobody_is_there_yet(fleet: Fleet) -> None:
    """A gateway that was switched off must not show six thousand loudspeakers as connected."""
    await fleet.say("online")
    await fleet.store.devices.begin_alone()
    assert not (await fleet.one()).online


@pytest.mark.parametrize(
    ("state", "silent_min", "condition"),
    [
        (HEALTHY, 1, Condition.WORKING),
        (HEALTHY, 16, Condition.OFFLINE),
        (replace(HEALTHY, faults=("amplifier",)), 1, Condition.FAULTY),
        (replace(HEALTHY, faults=("battery_low",)), 1, Condition.WORKING),
        (replace(HEALTHY, faults=("amplifier",)), 16, Condition.OFFLINE),
    ],
)
async def test_a_device_is_dead_when_it_is_silent_or_says_so(
    fleet: Fleet, state: DeviceState, silent_min: int, condition: Condition
) -> None:
    """Nobody may learn in the storm that the village's only loudspeaker has been mute for a month."""
    batch = await fleet.play(Status.EXERCISE, 0)
    await fleet.report(batch, 0, State.PLAYED)
    await fleet.say("online")
    await fleet.say("state", state=state)
    fleet.clock.advance(60 * silent_min)
    assert (await fleet.one()).condition is condition


async def test_a_device_that_never_tells_its_condition_counts_while_it_is_connected(fleet: Fleet) -> None:
    """An older device keeps its connection alive and reports nothing: it is there all the same."""
    await fleet.say("online")
    fleet.clock.advance(24 * 3600)
    assert (await fleet.one()).condition is Condition.UNTESTED
    await fleet.say("offline")
    assert (await fleet.one()).condition is Condition.UNTESTED, "it may be back in a moment"
    fleet.clock.advance(16 * 60)
    assert (await fleet.one()).condition is Condition.OFFLINE


@pytest.mark.parametrize(("status", "drilled"), [(Status.EXERCISE, True), (Status.ACTUAL, False), (Status.TEST, False)])
async def test_who_played_a_drill_has_passed_it(fleet: Fleet, status: Status, drilled: bool) -> None:
    """A drill is the proof that a village hears; a real warning that was played proves it too, but is no drill."""
    batch = await fleet.play(status, 0, 1)
    await fleet.report(batch, 0, State.PLAYED)
    await fleet.report(batch, 1, State.FAILED)
    good, bad = await fleet.one(0), await fleet.one(1)
    assert (good.played_at, good.drilled_at) == (NOW, NOW if drilled else None)
    assert good.condition is Condition.WORKING
    assert (bad.played_at, bad.condition) == (None, Condition.OFFLINE)
    fleet.clock.advance(91 * 24 * 3600)
    await fleet.say("state", state=HEALTHY)
    assert (await fleet.one(0)).condition is Condition.UNTESTED


async def test_a_platform_speaks_for_the_loudspeakers_of_its_own(fleet: Fleet) -> None:
    """The county's broadcast platform reports what it has played; its loudspeakers never say a word to us."""
    batch = await fleet.play(Status.EXERCISE, 0, 1, slice_=50)
    await fleet.report(batch, 1, State.PLAYED)
    await fleet.report(batch, 7, State.PLAYED)
    assert [(one.drilled_at, one.condition) for one in await fleet.all()] == [
        (None, Condition.OFFLINE), (NOW, Condition.WORKING), (None, Condition.OFFLINE)
    ]  # fmt: skip


async def test_a_village_is_as_well_off_as_its_best_loudspeaker(fleet: Fleet) -> None:
    """Two poles, one of them broken: the village hears. None in service: it does not, whatever was there before."""
    await fleet.say("state", 0, state=replace(HEALTHY, faults=("amplifier",)))
    villages = [FLOWER_1, FLOWER_2, WATER_1]
    found = await fleet.store.devices.villages(villages, RULES)
    assert found == {FLOWER_1: Condition.FAULTY, FLOWER_2: Condition.OFFLINE, WATER_1: Condition.NONE}
    await fleet.say("state", 1, state=HEALTHY)
    found = await fleet.store.devices.villages(villages, RULES)
    assert found[FLOWER_1] is Condition.UNTESTED
    assert [one for one, condition in found.items() if condition.mute] == [FLOWER_2, WATER_1]


async def test_faults_and_replacements_enter_the_chain_and_reports_do_not(fleet: Fleet) -> None:
    """A second device with the same name is a matter for a person; six thousand volumes every five minutes are not."""
    events = [
        DeviceEvent(fleet.ids[0], kind, NOW, code, state)
        for kind, code, state in (
            ("online", "2.1.0", None), ("state", "", HEALTHY), ("fault", "amplifier", None), ("replaced", "", None)
        )
    ]  # fmt: skip
    await fleet.receipts.commit("loudspeaker_ws", events)
    found = [(record.action, record.detail) for _, record, _ in await fleet.store.audit.records()]
    assert found == [("fault", "amplifier"), ("replaced", "")]


async def test_speakers_are_listed_page_by_page_within_an_area(fleet: Fleet) -> None:
    """A township sees its own."""
    first = await fleet.store.devices.below([FLOWER], RULES, limit=2)
    assert [one.name for one in first] == ["pole-1", "pole-2"]
    rest = await fleet.store.devices.below([FLOWER], RULES, f"{first[-1].village}/{first[-1].name}", 2)
    assert [one.name for one in rest] == ["pole-3"]
    assert await fleet.store.devices.below([FLOWER_1, FLOWER_2], RULES) == [*first, *rest]
    assert await fleet.store.devices.below([WATER_1], RULES) == []
    assert await fleet.store.devices.below([], RULES) == []
    assert [one.name for one in await fleet.store.devices.named(["pole-3", "nobody's"], RULES)] == ["pole-3"]


class Counting(Tx):
    """A transaction that counts what it sends."""

    sent = 0

    def send(self, sql: str, **values: Any) -> None:
        Counting.sent += 1
        super().send(sql, **values)

    def upsert(
        self, table: str, types: Mapping[str, str], rows: Sequence[Sequence[Any]], conflict: str, returning: str = ""
    ) -> list[Row]:
        Counting.sent += 1
        return super().upsert(table, types, rows, conflict, returning)


class Counted(Database):
    """A database whose writers count."""

    async def write(
        self, operation: Callable[[Tx], T], patience_s: float | None = None, order: str = "", *, decides: bool = False
    ) -> T:
        counted = lambda tx: operation(Counting(tx._connection, tx.dialect))  # noqa: E731  # one line, one use
        return await super().write(counted, patience_s, order, decides=decides)


@pytest.mark.parametrize("kinds", [("online",), ("state",), ("online", "offline")])
async def test_a_commit_is_two_statements_however_many_devices_it_is_of(tmp_path: Path, kinds: Sequence[str]) -> None:
    """After a power cut six thousand devices come at once while a red warning goes out."""
    database = Counted(blank.sqlite(tmp_path))
    await database.open()
    events = [DeviceEvent(device, kind, NOW, "", HEALTHY) for device in range(1, 257) for kind in kinds]
    Counting.sent = 0
    await SqlDevices(database, HandClock()).fold(events)
    await database.close()
    assert 1 <= Counting.sent <= 2


async def test_the_gauges_count_every_loudspeaker_and_every_village(fleet: Fleet) -> None:
    """The wall in the duty room shows before the storm how many villages would hear nothing, and why."""
    await fleet.say("state", 0, state=HEALTHY)
    await fleet.say("state", 2, state=replace(HEALTHY, faults=("amplifier",)))
    await show_speakers(fleet.store, RULES, [FLOWER_1, FLOWER_2, WATER_1])
    speakers = {one: REGISTRY.get_sample_value("mingluo_speakers", {"condition": one}) for one in Condition}
    assert speakers == {"none": None, "offline": 1, "faulty": 1, "untested": 1, "working": 0}
    mute = {one: REGISTRY.get_sample_value("mingluo_mute_villages", {"condition": one}) for one in Condition}
    assert mute == {"none": 1, "offline": 0, "faulty": 1, "untested": None, "working": None}


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_a_database_in_service_keeps_what_it_knew_of_its_loudspeakers(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """An update of the gateway must not forget who was heard of when, nor a stop that still waits for its device."""
    url = f"sqlite:///{tmp_path}/old.db" if dialect == "sqlite" else request.getfixturevalue("empty_database_url")
    upgrade(url, "0013")
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    with engine.begin() as connection:
        for device, seen_at in ((1, "1000000"), (2, "NULL")):
            connection.execute(text(
                "INSERT INTO device (id, name, village, township, county, key_hash, standing, online, seen_at)"
                f" VALUES ({device}, 'pole-{device}', '{FLOWER_1}', '{FLOWER}', '411726', 'k', 'service', 1, {seen_at})"
            ))  # fmt: skip
        connection.execute(text(f"INSERT INTO device_command VALUES ('a', 1, 'a.1.0', 0, 'stop', 0, {micros(NOW)})"))
    engine.dispose()
    database = Database(url)
    await database.open()
    rows = await database.read(lambda tx: tx.all("SELECT d.name, d.channel FROM device d ORDER BY d.id"))
    state = await database.read(lambda tx: tx.all("SELECT device, online, seen_at, faults FROM device_state"))
    commands = await database.read(lambda tx: tx.all("SELECT device, want, finished FROM device_command"))
    await database.close()
    assert rows == [("pole-1", "loudspeaker_ws"), ("pole-2", "loudspeaker_ws")]
    assert state == [(1, 0, 1000000, None)], "nobody is connected after an update; the second was never heard of"
    assert commands == [(1, "stop", 0)]
