"""What the planner adds to the audiences: who departed since the warning, and whom a step before did not reach."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import blank
import pytest
from test_store import NOW, HandClock, alert, batch_of, draft_of

from gateway.broker import LocalBroker
from gateway.database import Database
from gateway.gate import Gate
from gateway.model import (
    Alert,
    Audience,
    Batch,
    Group,
    Kind,
    Lane,
    Notice,
    Plan,
    Receipt,
    Reference,
    Report,
    State,
    Step,
    Target,
)
from gateway.planner import AT_ONCE, LEFT_S, WORK, Planner
from gateway.ports import Draft, Page, Settled
from gateway.relay import LANE_ROOM, Relay
from gateway.road import only
from gateway.store import Store


class Roster:
    """A directory of fixed pages: whoever is `here` is told, in one page."""

    def __init__(self, here: tuple[int, ...]) -> None:
        self.here = here

    async def page(self, audience: Audience, after: tuple[str, str, int] | None, limit: int) -> Page:
        if after is not None or not self.here:
            return Page("411726204")
        people = self.here
        return Page(
            "411726204", people, tuple(f"now-{one}" for one in people), ("411726204201",) * len(people), {},
            ("411726204", "411726204201", people[-1]),
        )  # fmt: skip

    async def pages(self, audience: Audience, after: tuple[str, str, int] | None, limit: int) -> list[Page]:
        page = await self.page(audience, after, limit)
        return [page, Page("")] if page.persons else [page]

    async def present(self, audience: Audience, people: tuple[int, ...]) -> frozenset[int]:
        return frozenset(people) & frozenset(self.here)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    database = Database(blank.sqlite(tmp_path))
    await database.open()
    yield Store(database, HandClock())
    await database.close()


def planner_of(
    store: Store, here: tuple[int, ...], clock: HandClock | None = None, lanes: Mapping[Lane, timedelta] = AT_ONCE
) -> Planner:
    relay = Relay(LocalBroker(), store.outbox)
    return Planner(store, Roster(here), relay, {"noop": 2}, clock or HandClock(), lanes=lanes)  # type: ignore[arg-type]  # three of its methods are asked for


async def told(store: Store, one: Alert, *, step: int) -> dict[int, str]:
    """Person → address of every batch of a step."""
    found: dict[int, str] = {}
    for batch, _ in await store.ledger.batches(one.id):
        if batch.step == step:
            assert not found.keys() & set(batch.persons), "somebody stands in two batches"
            found |= dict(zip(batch.persons, batch.addresses, strict=True))
    return found


async def settle(store: Store, batch: Batch, states: list[State]) -> None:
    """Give every recipient of the batch's slices an outcome."""
    for number in range(batch.slices):
        positions = list(range(number * batch.slice, min(len(batch), (number + 1) * batch.slice)))
        await store.outbox.claim(batch.id, number, "me", 20)
        receipts = [Receipt(states[position]) for position in positions]
        await store.ledger.settle(Settled(batch.id, number, 1, "me", positions, receipts, "noop", NOW))


async def plan_through(planner: Planner) -> None:
    while await planner.round():
        pass


def cancel_of(*ended: Alert) -> tuple[Alert, Draft]:
    references = tuple(Reference(each.sender, each.identifier, each.sent) for each in ended)
    one = replace(alert("c1"), kind=Kind.CANCEL, references=references)
    audience = Audience((Target("411726204"),), Group.OFFICIALS, "noop")
    step = Step(1, audience, Notice.ALL_CLEAR, Lane.GREEN, NOW, batch_of(one).deadline)
    plan = Plan(one.id, "normal", (), audience.targets, (), (step,))
    return one, Draft(one, "c", plan, (), {}, (), {each.id: "cancelled" for each in ended}, NOW)


@pytest.mark.parametrize("here", [(100, 101), ()])
async def test_an_all_clear_reaches_those_who_left_the_roster_since(store: Store, here: tuple[int, ...]) -> None:
    """Whoever was woken must hear that it is over, at the address the warning went to, once."""
    first = batch_of(alert())
    await store.outbox.accept(draft_of(alert(), first))
    await settle(store, first, [State.DELIVERED] * 4)
    one, draft = cancel_of(alert())
    await store.outbox.accept(draft)
    await plan_through(planner_of(store, here))
    frozen = dict(zip(first.persons, first.addresses, strict=True))
    assert await told(store, one, step=1) == frozen | {person: f"now-{person}" for person in here}


async def test_an_all_clear_does_not_wake_the_departed_who_were_never_warned(store: Store) -> None:
    """What was superseded before it left needs no end."""
    first = batch_of(alert())
    await store.outbox.accept(draft_of(alert(), first))
    await settle(store, first, [State.DELIVERED, State.SUPERSEDED, State.EXPIRED, State.SKIPPED])
    one, draft = cancel_of(alert())
    await store.outbox.accept(draft)
    await plan_through(planner_of(store, ()))
    assert list(await told(store, one, step=1)) == [100]


async def test_an_end_that_names_two_versions_tells_the_departed_once(store: Store) -> None:
    """CAP chains list every live predecessor; nobody gets a copy for each."""
    for identifier in ("a1", "a2"):
        batch = batch_of(alert(identifier))
        await store.outbox.accept(draft_of(alert(identifier), batch, digest=identifier))
        await settle(store, batch, [State.DELIVERED] * 4)
    one, draft = cancel_of(alert("a1"), alert("a2"))
    await store.outbox.accept(draft)
    await plan_through(planner_of(store, ()))
    assert sorted(await told(store, one, step=1)) == [100, 101, 102, 103]


async def test_a_plan_that_grew_by_a_countersign_is_read_again(store: Store) -> None:
    """The approved rest of a green alert must go out, and must not stop anybody else's."""
    one = alert()
    await store.outbox.accept(replace(draft_of(one), cursors={}))
    planner = planner_of(store, (100,))
    await plan_through(planner)
    row = await store.outbox.alert(one.id)
    assert row is not None
    more = replace(row.plan, steps=(*row.plan.steps, replace(row.plan.steps[0], number=2)))
    moved = await store.outbox.move(row, replace(draft_of(one), plan=more, cursors={}))
    assert moved.result == "accepted"
    await plan_through(planner)
    assert list(await told(store, one, step=2)) == [100]


async def test_a_step_that_fails_holds_up_no_other(store: Store) -> None:
    """One wrong row must not keep a village in silence."""
    first, second = alert("a1"), alert("a2")
    for one in (first, second):
        await store.outbox.accept(replace(draft_of(one, digest=one.identifier), cursors={}))
    planner = planner_of(store, (100,))
    planner._plans[first.id] = replace(draft_of(first).plan, steps=())
    await store.database.write(lambda tx: tx.run("UPDATE alert SET plan = :p WHERE id = :a", p=b"broken", a=first.id))
    for _ in range(3):
        await planner.round()
    assert list(await told(store, second, step=1)) == [100]


async def test_a_lane_without_room_is_passed_over(store: Store) -> None:
    """Green officials are frozen while bulk waits for a broker that does not answer."""
    one, audience = alert(), Audience((Target("411726204"),), Group.OFFICIALS, "noop")
    deadline = batch_of(one).deadline
    steps = tuple(
        Step(at, audience, Notice.ISSUE, lane, NOW, deadline) for at, lane in ((1, Lane.BULK), (2, Lane.GREEN))
    )
    plan = Plan(one.id, "green", (), audience.targets, (), steps)
    await store.outbox.accept(Draft(one, "d", plan, (), {}, (), {}, NOW))
    planner = planner_of(store, (100,))
    for at in range(LANE_ROOM):
        planner._relay.offer_packed("noop", Lane.BULK, f"other.{at}", b"")
    await plan_through(planner)
    assert await told(store, one, step=1) == {}
    assert list(await told(store, one, step=2)) == [100]


async def test_a_fallback_goes_to_those_the_first_channel_did_not_reach(store: Store) -> None:
    """The second road is for the ones in doubt, not a second message for everybody; late failures count, too."""
    one, first = alert(), batch_of(alert())
    audience = Audience((Target("411726204"),), Group.OFFICIALS, "noop")
    steps = (
        Step(1, audience, Notice.ISSUE, Lane.GREEN, NOW, first.deadline),
        Step(2, audience, Notice.ISSUE, Lane.GREEN, NOW, first.deadline, 1),
    )
    plan = Plan(one.id, "green", (), audience.targets, (), steps)
    await store.outbox.accept(Draft(one, "d", plan, (first,), {1: None}, (), {}, NOW))
    await settle(store, first, [State.DELIVERED, State.FAILED, State.UNKNOWN, State.SUBMITTED])
    clock = HandClock()
    planner = planner_of(store, first.persons, clock)
    await plan_through(planner)
    assert sorted(await told(store, one, step=2)) == [101, 102]
    await store.ledger.commit([Report("noop", "", State.FAILED, NOW, "undelivered", first.id, 3)])
    clock.advance(6)
    await plan_through(planner)
    assert sorted(await told(store, one, step=2)) == [101, 102, 103]
    assert await store.outbox.work(10) == []


def fallbacks(one: Alert, *pairs: tuple[int, int]) -> tuple[Draft, list[Batch]]:
    """An alert with a first batch per step, all of it on the way, and a step that stands in for each."""
    audience = Audience((Target("411726204"),), Group.OFFICIALS, "noop")
    batches = [replace(batch_of(one), id=f"{one.id}.{first}.0", step=first) for first, _ in pairs]
    steps = tuple(
        Step(number, audience, Notice.ISSUE, Lane.GREEN, NOW, batches[0].deadline, of)
        for first, second in pairs
        for number, of in ((first, None), (second, first))
    )
    plan = Plan(one.id, "green", (), audience.targets, (), steps)
    return Draft(one, one.identifier, plan, batches, {first: None for first, _ in pairs}, (), {}, NOW), batches


async def test_each_fallback_of_a_warning_is_looked_after(store: Store) -> None:
    """The residents' second road must not wait until the last official's report is in."""
    draft, batches = fallbacks(alert(), (1, 2), (3, 4))
    await store.outbox.accept(draft)
    for batch in batches:
        await settle(store, batch, [State.FAILED, State.SUBMITTED, State.SUBMITTED, State.SUBMITTED])
    await plan_through(planner_of(store, ()))
    for step in (2, 4):
        assert list(await told(store, draft.alert, step=step)) == [100]


async def test_a_fallback_waits_for_the_rest_of_the_step_it_stands_in_for(store: Store) -> None:
    """The first thousand have failed and the others are not even planned: the second road is open for them as well."""
    draft, [batch] = fallbacks(alert(), (1, 2))
    first, second = draft.plan.steps
    elsewhere = replace(first, audience=replace(first.audience, channel="sms"))  # its planner is not this one
    plan = replace(draft.plan, steps=(elsewhere, second))
    await store.outbox.accept(replace(draft, plan=plan, cursors={1: ("411726204", "411726204201", 100)}))
    await settle(store, batch, [State.FAILED] * 4)
    await plan_through(planner_of(store, ()))
    assert list(await told(store, draft.alert, step=2)) == list(batch.persons)
    assert [work.step for work in await store.outbox.work(10)] == [1, 2]


async def test_steps_that_wait_hold_up_none_behind_them(store: Store) -> None:
    """A bad night's open fallbacks, more than one look takes in, and behind them the next red one."""
    for at in range(WORK + 1):
        draft, [batch] = fallbacks(alert(f"f{at}"), (1, 2))
        await store.outbox.accept(draft)
        await settle(store, batch, [State.SUBMITTED] * 4)
    red = alert("red")
    await store.outbox.accept(replace(draft_of(red, digest="red"), cursors={}, now=NOW + timedelta(minutes=1)))
    await store.database.write(lambda tx: tx.run("UPDATE step SET lane = 1 WHERE alert = :a", a=red.id))
    await plan_through(planner_of(store, (100,)))
    assert list(await told(store, red, step=1)) == [100]


class Pass(Gate):
    """Under a red warning: one bulk step may go on now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 1

    def passes(self, lane: Lane) -> bool:
        """Whoever asks first."""
        self.left -= 1
        return self.left >= 0


async def test_a_fallback_that_only_looks_takes_no_pass_from_those_behind_it(store: Store) -> None:
    """A night of red slows the blue warnings down; an old one's open fallback must not stop them altogether."""
    draft, [batch] = fallbacks(alert("old"), (1, 2))
    await store.outbox.accept(draft)
    await settle(store, batch, [State.SUBMITTED] * 4)
    new = alert("new")
    await store.outbox.accept(replace(draft_of(new, digest="new"), cursors={}, now=NOW + timedelta(minutes=1)))
    await store.database.write(lambda tx: tx.run("UPDATE step SET lane = 2"))
    await store.database.write(lambda tx: tx.run("UPDATE step SET start = start - 9 WHERE alert <> :new", new=new.id))
    gate = Pass()
    planner = Planner(
        store, Roster((100,)), Relay(LocalBroker(), store.outbox), {"noop": 2}, HandClock(), gate  # type: ignore[arg-type]  # three of its methods are asked for
    )  # fmt: skip
    for alert_id, plan in ((draft.alert.id, draft.plan), (new.id, draft_of(new).plan)):
        planner._plans[alert_id] = replace(plan, steps=tuple(replace(one, lane=Lane.BULK) for one in plan.steps))
    assert await planner.round()
    assert list(await told(store, new, step=1)) == [100]


async def test_plans_of_many_open_alerts_are_read_once(store: Store) -> None:
    """A province's open fallbacks are looked over four times a second: not each time with the shapes of their areas."""
    for at in range(WORK + 9):
        draft, [batch] = fallbacks(alert(f"f{at}"), (1, 2))
        await store.outbox.accept(draft)
        await settle(store, batch, [State.SUBMITTED] * 4)
    planner = planner_of(store, ())
    await planner.round()
    known = dict(planner._plans)
    await planner.round()
    assert len(known) == WORK + 9
    assert all(planner._plans[one] is plan for one, plan in known.items())


async def test_whoever_accepts_plans_green_and_a_planner_takes_over_what_was_left(store: Store) -> None:
    """Officials are planned at once where their warning came in; if that process dies, they wait a second more."""
    await store.outbox.accept(draft_of(alert(), batch_of(alert())))
    one, draft = cancel_of(alert())
    await store.outbox.accept(draft)
    clock = HandClock()
    late = {**AT_ONCE, Lane.GREEN: LEFT_S}
    rest = planner_of(store, (100,), clock, late)
    assert not await rest.round()
    clock.advance(LEFT_S.total_seconds())
    assert await rest.round()
    assert 100 in await told(store, one, step=1)


async def test_residents_wait_until_the_officials_are_planned_wherever_that_is(store: Store) -> None:
    """Who has to lead a village out comes first, also while another process is at it, or has died over it."""
    await store.outbox.accept(draft_of(alert(), batch_of(alert())))
    one, draft = cancel_of(alert())
    (green,) = draft.plan.steps
    many = replace(green, number=2, lane=Lane.BULK)
    await store.outbox.accept(replace(draft, plan=replace(draft.plan, steps=(green, many))))
    rest = planner_of(store, (100,), lanes={**AT_ONCE, Lane.GREEN: LEFT_S})
    assert not await rest.round()
    assert await planner_of(store, (100,), lanes={Lane.GREEN: timedelta()}).round()
    assert (await told(store, one, step=2)) == {}
    assert await rest.round()
    assert 100 in await told(store, one, step=2)


async def test_whoever_accepts_goes_on_with_what_it_knows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last official hears sooner by the two questions whose answers were stored a moment ago."""
    one = alert()
    audience = Audience((Target("411726204"),), Group.OFFICIALS, "noop")
    step = Step(1, audience, Notice.ISSUE, Lane.GREEN, NOW, batch_of(one).deadline)
    plan = Plan(one.id, "green", (), audience.targets, (), (step,))
    planner = planner_of(store, (100, 101, 102))
    batches, cursors = await planner.first(one, plan)
    draft = Draft(one, "d", plan, batches, cursors, (), {}, NOW)
    await store.outbox.accept(draft)
    planner.go_on(one.id, plan, batches, cursors)

    async def asked(*_: object) -> None:
        raise AssertionError("it knows")

    with monkeypatch.context() as alone:
        alone.setattr(store.outbox, "work", asked)
        alone.setattr(store.outbox, "alert", asked)
        assert await planner.round()
    assert await store.outbox.planned(one.id, 1)
    assert await told(store, one, step=1) == {100: "now-100", 101: "now-101", 102: "now-102"}
    assert not await planner.round()
    # What another planner has written meanwhile is not written again.
    planner.go_on(one.id, plan, batches, cursors)
    await planner.round()
    assert len(await store.ledger.batches(one.id)) == len(batches)


async def test_new_warnings_without_end_hold_up_no_older_one(store: Store) -> None:
    """In a storm one comes with every look; a red that a person has just released is behind none of them for long."""
    audience = Audience((Target("411726204"),), Group.OFFICIALS, "noop")
    planner = planner_of(store, (100, 101, 102))

    async def accepted(one: Alert) -> tuple[Plan, list[Batch], dict[int, tuple[str, str, int] | None]]:
        step = Step(1, audience, Notice.ISSUE, Lane.GREEN, NOW, batch_of(one).deadline)
        plan = Plan(one.id, "green", (), audience.targets, (), (step,))
        batches, cursors = await planner.first(one, plan)
        await store.outbox.accept(Draft(one, "d", plan, batches, cursors, (), {}, NOW))
        return plan, batches, cursors

    released = alert("released")
    await accepted(released)
    for at in range(3):
        planner.go_on(alert(f"new-{at}").id, *await accepted(alert(f"new-{at}")))
        assert await planner.round()
        assert await store.outbox.planned(alert(f"new-{at}").id, 1)
    assert await store.outbox.planned(released.id, 1)


async def test_a_planner_of_green_alone_leaves_residents_to_the_others(store: Store) -> None:
    """The process that takes warnings in must not be busy with a million residents when the next one comes."""
    await store.outbox.accept(draft_of(alert(), batch_of(alert())))
    one, draft = cancel_of(alert())
    bulk = replace(draft.plan.steps[0], lane=Lane.BULK)
    await store.outbox.accept(replace(draft, plan=replace(draft.plan, steps=(bulk,))))
    assert not await planner_of(store, (100,), lanes={Lane.GREEN: timedelta()}).round()
    assert await told(store, one, step=1) == {}
    assert await planner_of(store, (100,)).round()


def test_a_page_cut_down_keeps_its_columns_together() -> None:
    """An address must never slip to the neighbour."""
    page = Page("t", (1, 2, 3), ("a", "b", "c"), ("v", "v", "w"), {1: ("x", "y")}, ("t", "w", 3))
    assert only(page, {2, 3}) == Page("t", (2, 3), ("b", "c"), ("v", "w"), {0: ("x", "y")}, ("t", "w", 3))
