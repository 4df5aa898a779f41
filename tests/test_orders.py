"""Orders to loudspeakers that are no warnings, on both databases: carried out once, by whoever holds the device."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import blank
import pytest
from links import RecordingLink
from test_store import NOW, HandClock
from town import FLOWER_1, FLOWER_2, Town, town

from gateway.channel import ChannelSettings, Link, Play, Sockets
from gateway.directory.table import Roster
from gateway.errors import Permanent, Temporary
from gateway.fleet import AGAIN, KEPT, Fleet, values_of
from gateway.model import DeviceEvent, DeviceState, Order, OrderReceipt, Receipt, Record, State
from gateway.order import AT_ONCE, LOOK_S, RESEND_S, Orders
from gateway.policy import Policy
from gateway.policy.table import SpeakerVolume
from gateway.receipts import Receipts
from gateway.store import Store
from gateway.store.order import Ordered

POLICY = Policy.load(Path(__file__).parent.parent / "config" / "policy")
UNTIL = NOW + timedelta(hours=24)


class Wires(Sockets):
    """A channel that keeps the orders it was given."""

    name = "loudspeaker_ws"

    def __init__(self) -> None:
        super().__init__(ChannelSettings())
        self.devices: list[int] = []
        self.given: list[Order] = []
        self.answer = Receipt(State.SUBMITTED)

    def held(self) -> Collection[int]:
        return self.devices

    def arrived(self) -> Collection[int]:
        return ()

    async def command(self, plays: Sequence[Play], link: Link) -> list[Receipt]:
        raise AssertionError("an order is no command")

    async def order(self, orders: Sequence[Order], link: Link) -> list[Receipt]:
        self.given += orders
        return [self.answer] * len(orders)


class Office:
    """Two loudspeakers, the hub that holds them, and the scheduler."""

    def __init__(self, one: Town, store: Store, clock: HandClock, ids: list[int]) -> None:
        self.town, self.store, self.clock, self.ids = one, store, clock, ids
        self.receipts = Receipts(store, one.directory, clock)
        self.wires = Wires()
        self.wires.devices = list(ids)
        self.orders = Orders(self.wires, store, RecordingLink(), clock)
        self.policy = POLICY
        self.fleet = Fleet(store, lambda: self.policy, clock, ["loudspeaker_ws"])

    async def order(self, kind: str, name: str = "a", devices: Sequence[int] = (), **values: object) -> None:
        record = Record(self.clock.now(), "411726-qxj/clerk", f"order:{kind}", name)
        await self.store.orders.add(name, devices or self.ids, kind, values, self.clock.now() + KEPT, record)

    async def round(self) -> list[Order]:
        """Let the hub look a second later; return what it wrote."""
        self.clock.advance(LOOK_S)
        self.wires.given = []
        await self.orders.round()
        return self.wires.given

    async def answer(self, order: Order, *, done: bool, code: str = "", device: int = 0) -> None:
        event = OrderReceipt(order.id, device or order.device, done, self.clock.now(), code)
        await self.receipts.commit("loudspeaker_ws", [event])

    async def all(self, speaker: str = "") -> list[Ordered]:
        return await self.store.orders.recent(["4117"], NOW - timedelta(days=1), 100, speaker)

    async def states(self) -> list[tuple[str, str]]:
        return sorted((one.kind, one.state) for one in await self.all())

    async def say(self, kind: str, state: DeviceState | None = None) -> None:
        events = [DeviceEvent(one, kind, self.clock.now(), "", state) for one in self.ids]
        await self.receipts.commit("loudspeaker_ws", events)


@pytest.fixture(params=["sqlite", "postgresql"])
async def office(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Office]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    clock = HandClock()
    async with town(url) as one:
        rows = [("pole-1", FLOWER_1, "k" * 16), ("pole-2", FLOWER_2, "l" * 16)]
        assert (await one.bring(Roster.DEVICES, *rows)).errors == ()
        found = await one.directory.devices([FLOWER_1, FLOWER_2])
        yield Office(one, Store(one.database, clock), clock, [found[FLOWER_1][0], found[FLOWER_2][0]])


async def test_an_order_is_written_once_and_finished_by_the_device(office: Office) -> None:
    """A self-test that repeated itself every second would be taken for an alarm by the whole village."""
    await office.order("self_test", audible=True)
    first = await office.round()
    assert sorted(one.device for one in first) == sorted(office.ids)
    assert {one.kind for one in first} == {"self_test"}
    assert first[0].values == {"audible": True}
    assert await office.round() == []
    await office.answer(first[0], done=True)
    await office.answer(first[1], done=False, code="amplifier")
    assert sorted((one.state, one.code) for one in await office.all()) == [("done", ""), ("failed", "amplifier")]
    found = {one.id: one.tested_at for one in await office.store.devices.below(["4117"], POLICY.speakers)}
    assert found == {first[0].device: None, first[1].device: None}, "it has never said hello, so nothing is known of it"
    office.clock.advance(RESEND_S)
    assert await office.round() == []


async def test_a_connection_that_lasts_for_years_costs_no_memory(office: Office) -> None:
    """A broken clock is set every hour; its loudspeaker may not hang up before the next winter."""
    for number in range(4):
        await office.order("clock", f"c{number}")
        assert len(await office.round()) == 2
        office.clock.advance(RESEND_S)
    assert [len(known) for known in office.orders._written.values()] == [1, 1]


async def test_a_self_test_that_was_passed_is_remembered(office: Office) -> None:
    """Between two drills it is the only proof that an amplifier works."""
    await office.say("online")
    await office.order("self_test")
    for one in await office.round():
        await office.answer(one, done=one.device == office.ids[0])
    found = {one.id: one.tested_at for one in await office.store.devices.below(["4117"], POLICY.speakers)}
    assert found == {office.ids[0]: office.clock.now(), office.ids[1]: None}


async def test_who_was_away_gets_the_order_on_the_next_connection(office: Office) -> None:
    """A village whose power was cut gets its night volume when the power is back."""
    office.wires.devices = []
    await office.order("volume", volume=70)
    assert await office.round() == []
    office.wires.devices = office.ids[:1]
    office.wires.answer = Receipt(State.FAILED, "offline", error=Temporary("offline"))
    assert len(await office.round()) == 1
    office.wires.answer = Receipt(State.SUBMITTED)
    assert len(await office.round()) == 1
    assert await office.round() == []
    office.orders.forget(office.ids[0])
    assert len(await office.round()) == 1, "a new connection knows nothing of the old one"
    assert await office.states() == [("volume", "open")] * 2


@pytest.mark.parametrize(
    "answer", [Receipt(State.FAILED, "not_supported"), Receipt(State.FAILED, "bad_order", error=Permanent("bad_order"))]
)
async def test_what_cannot_be_asked_at_all_has_failed_at_once(office: Office, answer: Receipt) -> None:
    """Waiting a day for a road that carries no orders would only hide it."""
    await office.order("clock")
    office.wires.answer = answer
    await office.round()
    assert {(one.state, one.code) for one in await office.all()} == {("failed", answer.code)}


async def test_a_newer_order_takes_the_place_of_an_open_one(office: Office) -> None:
    """Two volumes in a row: the last one counts, whatever the order of connections. Settings add up."""
    await office.order("volume", "a", volume=70)
    await office.order("volume", "b", volume=50)
    await office.order("config", "c", led=False)
    await office.order("config", "d", log="debug")
    written = [(one.id.partition(".")[0], one.kind) for one in await office.round()]
    assert written == [("b", "volume")] * 2 + [("c", "config")] * 2 + [("d", "config")] * 2
    assert ("volume", "superseded") in await office.states()


async def test_a_receipt_of_another_device_settles_nothing(office: Office) -> None:
    """One stolen key must not report the work of a whole county as done."""
    await office.order("volume", devices=office.ids[:1], volume=70)
    [order] = await office.round()
    await office.answer(order, done=True, device=office.ids[1])
    assert await office.states() == [("volume", "open")]
    await office.answer(replace(order, id="made-up"), done=True)
    await office.answer(order, done=True)
    await office.answer(order, done=False, code="late")
    assert [(one.state, one.code) for one in await office.all()] == [("done", "")]


async def test_an_order_expires_and_a_late_receipt_still_counts(office: Office) -> None:
    """What was carried out in the dark was carried out."""
    await office.order("self_test")
    [first, _] = await office.round()
    office.clock.advance(KEPT.total_seconds())
    assert await office.store.orders.expire() == 2
    assert await office.round() == []
    await office.answer(first, done=True)
    assert await office.states() == [("self_test", "done"), ("self_test", "expired")]


@pytest.mark.parametrize("scope", ["*", "411726", "loudspeaker_ws"])
async def test_nothing_is_ordered_under_a_halt(office: Office, scope: str) -> None:
    """Whoever halts a county wants silence there, also of a test tone."""
    await office.order("self_test", audible=True)
    await office.store.outbox.halt(scope, True, Record(NOW, "admin", "halt", scope))
    assert await office.round() == []
    await office.store.outbox.halt(scope, False, Record(NOW, "admin", "halt", scope))
    assert len(await office.round()) == 2


async def test_a_retired_device_is_ordered_nothing(office: Office) -> None:
    """It stands in the yard of another village by now."""
    await office.order("self_test")
    assert (await office.town.bring(Roster.DEVICES, ("pole-1", FLOWER_1, "k" * 16), replace=True)).errors == ()
    assert [one.device for one in await office.round()] == office.ids[:1]


async def test_orders_leave_room_for_a_warning(office: Office) -> None:
    """Six thousand volumes at once would keep a red warning waiting behind them."""
    for number in range(AT_ONCE):
        await office.order("config", f"{number:03d}", number=number)
    assert len(await office.round()) == AT_ONCE
    assert len(await office.round()) == AT_ONCE
    assert await office.round() == []


async def test_the_policy_s_volume_is_ordered_once_and_again_when_it_changes(office: Office) -> None:
    """The night is as quiet as the county wants it, and red is as loud as it must be, without anybody's round trip."""
    await office.fleet.work()
    assert await office.all() == [], "nobody is there"
    await office.say("online")
    await office.fleet.work()
    await office.fleet.work()
    [first, _] = await office.round()
    assert first.values == {
        "volume": 70, "floor": {"orange": 80, "red": 90}, "night": {"from": "22:00", "until": "06:00", "volume": 40}
    }  # fmt: skip
    await office.order("volume", "by hand", volume=30)
    await office.fleet.work()
    assert {one.actor for one in await office.all() if one.state == "open"} == {"411726-qxj/clerk"}
    defaults = POLICY.tables.defaults
    louder = defaults.speakers.model_copy(update={"volume": SpeakerVolume(volume=80, floor={"red": 100})})
    tables = POLICY.tables.model_copy(update={"defaults": defaults.model_copy(update={"speakers": louder})})
    office.policy = Policy(tables)
    await office.fleet.work()
    assert {one.values["volume"] for one in await office.all() if one.state == "open"} == {80}
    records = [record.action for _, record, _ in await office.store.audit.records()]
    assert records.count("order:volume") == 3


async def test_a_volume_nobody_took_in_its_time_is_ordered_anew(office: Office) -> None:
    """A village that was cut off for two days comes back with the volume of two days ago."""
    await office.say("online")
    await office.fleet.work()
    office.clock.advance(KEPT.total_seconds())
    await office.fleet.work()
    assert sorted(state for _, state in await office.states()) == ["expired", "expired", "open", "open"]


@pytest.mark.parametrize(("skew_s", "ordered"), [(86_400.0, True), (-61.0, True), (59.0, False), (None, False)])
async def test_a_clock_that_is_wrong_is_set_at_most_once_an_hour(
    office: Office, skew_s: float | None, ordered: bool
) -> None:
    """A device that is a day late plays nothing, for all it is told has expired; one that cannot be set is no storm."""
    await office.say("online")
    await office.say("state", DeviceState(clock_skew_s=skew_s))
    for _ in range(2):
        await office.fleet.work()
    clocks = [one for one in await office.all() if one.kind == "clock"]
    assert len(clocks) == (2 if ordered else 0)
    platform = Fleet(office.store, lambda: office.policy, office.clock, ["loudspeaker_mqtt"])
    office.clock.advance(AGAIN.total_seconds() + 1)
    await platform.work()
    assert len([one for one in await office.all() if one.kind == "clock"]) == len(clocks), "not of its channels"
    await office.fleet.work()
    assert len([one for one in await office.all() if one.kind == "clock"]) == 2 * len(clocks)


def test_a_policy_without_a_night_names_none() -> None:
    """A device would take an empty night for midnight."""
    assert values_of(SpeakerVolume(volume=70, floor={"red": 90})) == {"volume": 70, "floor": {"red": 90}}
