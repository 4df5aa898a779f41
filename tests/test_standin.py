"""A step on a pool: cut by road, and whom a road failed served by the next one, each carrier once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import blank
import psycopg
import pytest
from test_store import NOW, HandClock, alert, batch_of

from gateway.broker import LocalBroker
from gateway.carrier import Carriers, Known
from gateway.database import Database
from gateway.model import Audience, Group, Kind, Lane, Notice, Plan, Receipt, Reference, Report, State, Step, Target
from gateway.planner import LOOKED, Planner
from gateway.ports import Draft, Outage, Page, Settled, StepWork
from gateway.relay import Relay
from gateway.road import Roads
from gateway.store import Store

TOWNSHIP, VILLAGE = "411726204", "411726204201"
SERVES = {"sms_cmpp": {"mobile"}, "sms_sgip": {"unicom"}, "sms_smgp": {"telecom"}}
TABLE = Carriers({"139": "mobile", "130": "unicom", "133": "telecom"})
PEOPLE = {
    1: "+8613900000001", 2: "+8613000000002", 3: "+8613900000003", 4: "+8613300000004", 5: "+8525550005",
}  # fmt: skip
AUDIENCE = Audience((Target(TOWNSHIP),), Group.OFFICIALS, "sms")


class Town:
    """A directory of a few numbers, all in one page."""

    def __init__(self, people: Mapping[int, str] = PEOPLE) -> None:
        self.people = dict(people)
        self.known: dict[int, str] = {}

    async def page(self, audience: Audience, after: tuple[str, str, int] | None, limit: int) -> Page:
        if after is not None or not self.people:
            return Page(TOWNSHIP)
        persons = tuple(sorted(self.people))
        carriers = {at: self.known[one] for at, one in enumerate(persons) if one in self.known}
        addresses = tuple(self.people[one] for one in persons)
        return Page(
            TOWNSHIP, persons, addresses, (VILLAGE,) * len(persons), {}, (TOWNSHIP, VILLAGE, persons[-1]), carriers
        )

    async def pages(self, audience: Audience, after: tuple[str, str, int] | None, limit: int) -> list[Page]:
        page = await self.page(audience, after, limit)
        return [page, Page("")] if page.persons else [page]

    async def present(self, audience: Audience, people: Sequence[int]) -> frozenset[int]:
        return frozenset(people) & self.people.keys()

    async def carriers(self, people: Sequence[int]) -> dict[int, str]:
        return {one: self.known[one] for one in people if one in self.known}

    def refuse(self, person: int, carrier: str) -> None:
        self.known[person] = Known.read(self.known.get(person, "")).refuse([carrier]).text


class Night:
    """One alert on a pool, a planner, and what became of everybody."""

    def __init__(
        self, store: Store, clock: HandClock, serves: Mapping[str, set[str]] = SERVES, *, fallback: bool = True
    ) -> None:
        self.store, self.clock, self.town = store, clock, Town()
        self.serves = dict(serves)
        self.alert = alert()
        deadline = batch_of(self.alert).deadline
        base = Step(1, AUDIENCE, Notice.ISSUE, Lane.GREEN, NOW, deadline)
        other = replace(AUDIENCE, channel="noop")
        steps = [base, replace(base, number=2, fallback_of=1), replace(base, number=3, audience=other, fallback_of=1)]
        self.plan = Plan(self.alert.id, "green", (), AUDIENCE.targets, (), tuple(steps[: 2 + fallback]))
        self.planner = self.another()

    def another(self) -> Planner:
        """A planner that knows nothing yet, as after a restart."""
        relay = Relay(LocalBroker(), self.store.outbox)
        slices = dict.fromkeys([*self.serves, "sms", "noop"], 2)
        order = (*SERVES, "sms_http")
        roads = Roads({"sms": order}, self.serves, TABLE)
        return Planner(self.store, self.town, relay, slices, self.clock, roads=roads)  # type: ignore[arg-type]  # four of its methods are asked for

    def delay(self, number: int, by_s: float) -> None:
        """Let a step begin later."""
        later = [
            replace(one, start=one.start + timedelta(seconds=by_s * (one.number == number))) for one in self.plan.steps
        ]
        self.plan = replace(self.plan, steps=tuple(later))

    async def begin(self) -> None:
        """Accept the alert, its first batches with it."""
        batches, cursors = await self.planner.first(self.alert, self.plan)
        await self.store.outbox.accept(Draft(self.alert, "d", self.plan, batches, cursors, (), {}, NOW))
        await self.look()

    async def look(self, planner: Planner | None = None) -> None:
        """Let the planner come round."""
        self.clock.advance(6)
        while await (planner or self.planner).round():
            pass

    async def settle(self, **states: State) -> None:
        """Give everybody without an outcome one: by channel, or by channel and person, "p1"."""
        for batch, known in await self.store.ledger.batches(self.alert.id):
            for number in range(batch.slices):
                positions = list(range(number * 2, min(len(batch), number * 2 + 2)))
                if State(known[positions[0]]) is not State.QUEUED:
                    continue
                await self.store.outbox.claim(batch.id, number, "me", 20)
                usual = State.SKIPPED if batch.channel == "sms" else states.get(batch.channel, State.DELIVERED)
                receipts = [Receipt(states.get(f"p{batch.persons[at]}", usual)) for at in positions]
                settled = Settled(batch.id, number, 1, "me", positions, receipts, batch.channel, self.clock.now())
                await self.store.ledger.settle(settled)

    async def away(self, *, down: bool) -> None:
        """Let the second and third carrier go away, or come back."""
        now = self.clock.now()
        for channel in ("sms_sgip", "sms_smgp"):
            outage = Outage(channel, now, now + timedelta(hours=1), "away") if down else None
            await self.store.outbox.note_outage(channel, outage)

    async def told(self) -> dict[int, list[str]]:
        """Person → "step channel" of every batch they stand in."""
        found: dict[int, list[str]] = {}
        for batch, _ in await self.store.ledger.batches(self.alert.id):
            for person, address in zip(batch.persons, batch.addresses, strict=True):
                assert address == self.town.people[person]
                found.setdefault(person, []).append(f"{batch.step} {batch.channel}")
        return {person: sorted(ways) for person, ways in sorted(found.items())}


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock) -> AsyncIterator[Store]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    database = Database(url)
    await database.open()
    yield Store(database, clock)
    await database.close()


FIRST = {1: ["1 sms_cmpp"], 2: ["1 sms_sgip"], 3: ["1 sms_cmpp"], 4: ["1 sms_smgp"], 5: ["1 sms"]}


async def test_the_opening_batches_are_cut_by_road_too(store: Store, clock: HandClock) -> None:
    """The first fifty officials leave with the acceptance itself, each by the own carrier."""
    night = Night(store, clock)
    await night.begin()
    assert await night.told() == FIRST
    batches = {batch.id for batch, _ in await store.ledger.batches(night.alert.id)}
    assert batches == {f"{night.alert.id}.1.{number}" for number in range(4)}


async def test_whom_no_road_serves_is_seen_and_goes_to_the_fallback(store: Store, clock: HandClock) -> None:
    """A number abroad is never passed over in silence."""
    night = Night(store, clock)
    await night.begin()
    await night.settle()
    await night.look()
    assert await night.told() == {**FIRST, 5: ["1 sms", "3 noop"]}
    assert (await store.ledger.counts(night.alert.id))["sms", "officials", "skipped"] == 1


async def test_a_number_that_moved_is_tried_at_each_carrier_once_then_at_the_fallback(
    store: Store, clock: HandClock
) -> None:
    """A villager's number was carried over: the next carrier has it within seconds, and nobody is told twice."""
    night = Night(store, clock)
    await night.begin()
    for carrier, step, channel in (("mobile", 1, "sms_cmpp"), ("unicom", 2, "sms_sgip"), ("telecom", 2, "sms_smgp")):
        assert (await night.told())[1][-1] == f"{step} {channel}"
        night.town.refuse(1, carrier)
        await night.settle(p1=State.FAILED)
        await night.look(night.another() if carrier == "unicom" else None)  # restarted in between
    everything = ["1 sms_cmpp", "2 sms_sgip", "2 sms_smgp", "3 noop"]
    assert await night.told() == {**FIRST, 1: everything, 5: ["1 sms", "3 noop"]}
    await night.settle()
    await night.look()
    await night.look()
    assert (await night.told())[1] == everything
    assert await store.outbox.work(10) == []


async def test_only_a_number_that_is_elsewhere_goes_by_another_road(store: Store, clock: HandClock) -> None:
    """A refused or uncertain text is the fallback's: by another carrier it might arrive a second time."""
    night = Night(store, clock)
    await night.begin()
    night.town.refuse(3, "mobile")
    await night.settle(p1=State.FAILED, p2=State.UNKNOWN, p3=State.UNKNOWN)
    await night.look()
    told = await night.told()
    assert {one: told[one] for one in (1, 2, 3)} == {
        1: ["1 sms_cmpp", "3 noop"], 2: ["1 sms_sgip", "3 noop"], 3: ["1 sms_cmpp", "3 noop"],
    }  # fmt: skip


async def test_a_report_that_comes_late_still_opens_the_next_road(store: Store, clock: HandClock) -> None:
    """Carriers say it by report, minutes later; what they say of the number is kept a moment after the failure."""
    night = Night(store, clock, fallback=False)
    await night.begin()
    await night.settle(sms_cmpp=State.SUBMITTED)
    await night.look()
    await night.look()
    batch = next(one for one, _ in await store.ledger.batches(night.alert.id) if one.channel == "sms_cmpp")
    report = Report("sms_cmpp", "", State.FAILED, NOW, "elsewhere", batch.id, 0, elsewhere=True)
    assert await store.ledger.commit([report]) == [(batch.id, 0)]
    await night.look()
    assert (await night.told())[1] == ["1 sms_cmpp"]
    night.town.refuse(1, "mobile")
    await night.look()
    assert await night.told() == {**FIRST, 1: ["1 sms_cmpp", "2 sms_sgip"]}


async def test_what_is_learned_and_what_the_roster_says_holds_for_the_first_batches(
    store: Store, clock: HandClock
) -> None:
    """The next warning goes to the right carrier at once."""
    night = Night(store, clock)
    night.town.known = {1: ":mobile", 3: "telecom"}
    await night.begin()
    assert await night.told() == {**FIRST, 1: ["1 sms_sgip"], 3: ["1 sms_smgp"]}


async def test_what_waits_for_a_road_that_is_down_goes_by_one_for_any_number(store: Store, clock: HandClock) -> None:
    """A dead line to one carrier costs its people seconds, not the warning; what was sent is not sent again."""
    night = Night(store, clock, {**SERVES, "sms_http": set()}, fallback=False)
    await night.begin()
    since = clock.now()
    for _ in range(3):
        await store.outbox.note_outage("sms_cmpp", Outage("sms_cmpp", since, clock.now(), "unusable"))
        await night.look()
    told = await night.told()
    assert told[1] == told[3] == ["1 sms_cmpp", "2 sms_http"]
    assert told[5] == ["1 sms_http"]


@pytest.mark.parametrize("late", [2, 3])
async def test_of_two_planners_that_see_an_outage_begin_or_end_one_serves_a_person(
    store: Store, clock: HandClock, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    """The one thinks the next road is up and takes it, the other thinks it is down, too, and takes the fallback."""
    night = Night(store, clock, {**SERVES, "sms_http": set()})
    await night.begin()
    since = clock.now()
    clock.advance(60)
    outage = Outage("sms_cmpp", since, clock.now() + timedelta(minutes=1), "unusable")
    await store.outbox.note_outage("sms_cmpp", outage)
    while await store.outbox.give_up(night.alert.id, 1):
        continue
    add_page, views = store.outbox.add_page, {2: [outage], 3: [outage, outage._replace(channel="sms_http")]}
    seen: list[int] = []

    async def outages() -> list[Outage]:
        return views[seen[-1]]

    async def overtaken(work: StepWork, *page: Any) -> bool:
        """The other step's planner looks, writes and is done between this one's look and its write."""
        seen.append(5 - late)
        monkeypatch.setattr(store.outbox, "add_page", add_page)
        await turn(5 - late)
        return await add_page(work, *page)

    async def turn(number: int) -> None:
        planner = night.another()
        found = next(one for one in await store.outbox.work(10) if one.step == number)
        assert await planner._turn(found)

    monkeypatch.setattr(store.outbox, "outages", outages)
    monkeypatch.setattr(store.outbox, "add_page", overtaken)
    seen.append(late)
    await turn(late)
    assert seen == [late, 5 - late]
    again = {2: "2 sms_http", 3: "3 noop"}[5 - late]
    told = await night.told()
    assert told[1] == told[3] == ["1 sms_cmpp", again]


async def test_two_steps_that_stand_in_for_one_are_written_one_after_the_other(
    database_url: str, clock: HandClock
) -> None:
    """Two processes whose writes meet: each has looked before the other wrote, and only the first is taken."""
    async with AsyncExitStack() as stack:
        stores = []
        for _ in range(2):
            database = Database(database_url)
            await database.open()
            stack.push_async_callback(database.close)
            stores.append(Store(database, clock))
        night = Night(stores[0], clock)
        await night.begin()
        work = {one.step: one for one in await stores[0].outbox.work(10)}
        pages = {step: replace(batch_of(night.alert), id=f"{night.alert.id}.{step}.0", step=step) for step in (2, 3)}
        holder = await stack.enter_async_context(await psycopg.AsyncConnection.connect(database_url))
        watch = await stack.enter_async_context(await psycopg.AsyncConnection.connect(database_url, autocommit=True))
        await holder.execute("SELECT 1 FROM step WHERE alert = %s FOR UPDATE", [night.alert.id])
        writes = [
            asyncio.create_task(store.outbox.add_page(work[step], [pages[step]], (LOOKED, "", 0), {5 - step: 0}))
            for store, step in zip(stores, (2, 3), strict=True)
        ]
        async with asyncio.timeout(20):
            await until_waiting(watch, 2)
        await holder.rollback()
        assert sorted(await asyncio.gather(*writes)) == [False, True]
        assert len([batch for batch, _ in await stores[0].ledger.batches(night.alert.id) if batch.step > 1]) == 1


async def until_waiting(watch: psycopg.AsyncConnection, number: int) -> None:
    """Return once so many connections wait for a row."""
    sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while True:
        row = await (await watch.execute(sql)).fetchone()
        if row is not None and row[0] == number:
            return
        await asyncio.sleep(0.01)


async def test_an_end_goes_to_who_has_left_by_the_road_of_the_number(store: Store, clock: HandClock) -> None:
    """Whoever was warned and then taken off the roster still hears that it is over, by a carrier that has them."""
    night = Night(store, clock)
    await night.begin()
    await night.settle()
    night.town.refuse(1, "mobile")
    one = replace(
        alert("c1"), kind=Kind.CANCEL,
        references=(Reference(night.alert.sender, night.alert.identifier, night.alert.sent),),
    )  # fmt: skip
    step = replace(night.plan.steps[0], notice=Notice.ALL_CLEAR)
    plan = Plan(one.id, "normal", (), AUDIENCE.targets, (), (step,))
    stops = {night.alert.id: "cancelled"}
    await store.outbox.accept(Draft(one, "c", plan, (), {}, (), stops, NOW))
    people, night.town.people = night.town.people, {}
    await night.look()
    night.town.people, night.alert = people, one
    assert await night.told() == {1: ["1 sms_sgip"], 2: ["1 sms_sgip"], 3: ["1 sms_cmpp"], 4: ["1 sms_smgp"]}


async def test_devices_are_commanded_each_by_its_own_road(store: Store, clock: HandClock) -> None:
    """One village's platform and another's sockets hear of the warning in the same transaction as its acceptance."""
    night = Speakers(store, clock)
    await night.begin()
    assert await night.told() == {1: ["1 loudspeaker_ebd"], 2: ["1 loudspeaker_ws"], 3: ["1 loudspeaker"]}
    batches = {batch.channel: batch.slice for batch, _ in await store.ledger.batches(night.alert.id)}
    assert batches == {"loudspeaker_ebd": 2, "loudspeaker_ws": 0, "loudspeaker": 2}
    found = await store.commands.open()
    assert [batch.persons for batch in found.batches.values()] == [(2,)]


async def test_an_end_goes_to_a_village_that_left_the_roster_by_the_road_it_had(store: Store, clock: HandClock) -> None:
    """The platform that has played a warning must play its end, whatever the roster says since."""
    night = Speakers(store, clock)
    await night.begin()
    await night.settle(loudspeaker=State.SKIPPED)
    one = replace(
        alert("c1"), kind=Kind.CANCEL,
        references=(Reference(night.alert.sender, night.alert.identifier, night.alert.sent),),
    )  # fmt: skip
    step = replace(night.plan.steps[0], notice=Notice.ALL_CLEAR)
    plan = Plan(one.id, "normal", (), AUDIENCE.targets, (), (step,))
    stops = {night.alert.id: "cancelled"}
    await store.outbox.accept(Draft(one, "c", plan, (), {}, (), stops, NOW))
    people, night.town.people = night.town.people, {}
    await night.look()
    night.town.people, night.alert = people, one
    assert await night.told() == {1: ["1 loudspeaker_ebd"]}


class Speakers(Night):
    """The same of a pool of loudspeakers."""

    def __init__(self, store: Store, clock: HandClock) -> None:
        super().__init__(store, clock, {"loudspeaker_ebd": {"loudspeaker_ebd"}, "loudspeaker_ws": {"loudspeaker_ws"}})
        self.town = Town({1: VILLAGE, 2: "lb-2", 3: "lb-3"})
        self.town.known = {1: "loudspeaker_ebd", 2: "loudspeaker_ws", 3: "loudspeaker_mqtt"}
        audience = Audience((Target(TOWNSHIP),), Group.LOUDSPEAKERS, "loudspeaker")
        base = replace(self.plan.steps[0], audience=audience)
        self.plan = replace(self.plan, steps=(base,))
        roads = Roads({"loudspeaker": ("loudspeaker_ebd", "loudspeaker_mqtt", "loudspeaker_ws")}, self.serves)
        slices = {"loudspeaker": 2, "loudspeaker_ebd": 2, "loudspeaker_ws": 0}
        relay = Relay(LocalBroker(), store.outbox)
        self.planner = Planner(store, self.town, relay, slices, clock, roads=roads)  # type: ignore[arg-type]  # four of its methods are asked for


async def test_whom_no_road_was_left_for_is_served_though_one_comes_back_later(store: Store, clock: HandClock) -> None:
    """Their carriers were away, and came back before the fallback's turn: somebody must still tell them."""
    night = Night(store, clock)
    night.delay(3, 300)
    await night.begin()
    night.town.refuse(1, "mobile")
    await night.away(down=True)
    await night.settle(p1=State.FAILED)
    for _ in range(3):
        await night.look()
    await night.away(down=False)
    clock.advance(300)
    for _ in range(3):
        await night.look()
        await night.settle()
    assert len((await night.told())[1]) == 2


async def test_whom_no_road_is_left_for_waits_for_one_where_there_is_no_fallback(
    store: Store, clock: HandClock
) -> None:
    """A number was carried over to a carrier that is away for a minute: its person is told when it is back."""
    night = Night(store, clock, fallback=False)
    await night.begin()
    night.town.refuse(1, "mobile")
    await night.away(down=True)
    await night.settle(p1=State.FAILED)
    for _ in range(3):
        await night.look()
    await night.away(down=False)
    await night.look()
    assert (await night.told())[1] == ["1 sms_cmpp", "2 sms_sgip"]


async def test_what_was_given_up_is_sent_though_its_road_is_back(store: Store, clock: HandClock) -> None:
    """The planner died after it had given up, and the line is up again: nobody else sends what was given up."""
    night = Night(store, clock, {**SERVES, "sms_http": set()}, fallback=False)
    await night.begin()
    since = clock.now()
    clock.advance(60)
    await store.outbox.note_outage("sms_cmpp", Outage("sms_cmpp", since, clock.now(), "unusable"))
    while await store.outbox.give_up(night.alert.id, 1):
        continue
    await store.outbox.note_outage("sms_cmpp", None)
    await night.look(night.another())
    told = await night.told()
    assert told[1] == told[3] == ["1 sms_cmpp", "2 sms_cmpp"]


async def test_what_waits_on_the_next_road_goes_on_when_that_one_is_down(store: Store, clock: HandClock) -> None:
    """A number was carried over to a carrier that is away: its person is not left to wait for it alone."""
    night = Night(store, clock)
    await night.begin()
    night.town.refuse(1, "mobile")
    await night.settle(p1=State.FAILED)
    await night.look()
    assert (await night.told())[1] == ["1 sms_cmpp", "2 sms_sgip"]
    since = clock.now()
    for _ in range(4):
        for channel in ("sms_sgip", "sms_smgp"):
            await store.outbox.note_outage(channel, Outage(channel, since, clock.now() + timedelta(hours=1), "away"))
        await night.look()
    assert (await night.told())[1] == ["1 sms_cmpp", "2 sms_sgip", "3 noop"]


async def test_the_fallback_leaves_nobody_to_a_step_that_has_ended(store: Store, clock: HandClock) -> None:
    """That a number is elsewhere was learned late, from another warning: then the fallback is all that is left."""
    night = Night(store, clock)
    night.delay(3, 300)
    await night.begin()
    await night.settle(p1=State.FAILED)
    for _ in range(3):
        await night.look()
    assert [work.step for work in await store.outbox.work(10)] == []
    night.town.refuse(1, "mobile")
    clock.advance(300)
    await night.look()
    assert (await night.told())[1] == ["1 sms_cmpp", "3 noop"]
