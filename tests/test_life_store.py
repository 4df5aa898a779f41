"""The store of decisions, obligations, regimes, sealed codes and notes, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import blank
import pytest
from test_store import NOW, HandClock, alert, batch_of, draft_of

from gateway.database import Database
from gateway.lineage import likeness
from gateway.model import Decision, Document, Group, Info, Level, Minute, Record, Reference, Status, Target
from gateway.ports import AlertRow, Draft
from gateway.standing import Event, Standing
from gateway.store import Store
from gateway.store.drill import Drill, Stage
from gateway.store.meeting import RealWarningError, bar
from gateway.store.regime import Regime
from gateway.store.seal import hashed

RECORD = Record(NOW, "411726-qxj/甲", "test", "subject")


@pytest.fixture
def hand() -> HandClock:
    return HandClock()


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, hand: HandClock) -> AsyncIterator[Store]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    database = Database(url)
    await database.open()
    yield Store(database, hand)
    await database.close()


def waiting(identifier: str = "a1") -> Draft:
    """A new alert that waits for a signer."""
    one = alert(identifier)
    draft = replace(draft_of(one), cursors={}, standing=Standing.SIGN, timers={"held": NOW})
    return replace(draft, decision=Decision("", Event.SUBMIT, "411726-qxj/甲", NOW))


async def row_of(store: Store, alert_: str) -> AlertRow:
    row = await store.outbox.alert(alert_)
    assert row is not None
    return row


async def timers(store: Store) -> set[tuple[str, str]]:
    return set(await store.database.read(lambda tx: tx.all("SELECT kind, name FROM timer")))


async def test_of_two_decisions_at_once_one_stands(store: Store) -> None:
    """Two officers press at the same second: one signature counts, the other hears of it."""
    draft = waiting()
    await store.outbox.accept(draft)
    was = await row_of(store, draft.alert.id)
    signed = replace(draft, standing=Standing.ACTIVE, timers={}, decision=Decision("sign", "approve", "b", NOW))
    rejected = replace(signed, standing=Standing.REJECTED, decision=Decision("sign", "reject", "c", NOW))
    results = [(await store.outbox.move(was, one)).result for one in (signed, rejected)]
    assert results == ["accepted", "conflict"]
    now = await row_of(store, draft.alert.id)
    assert (now.standing, now.revision) == ("active", 1)
    assert [one.event for one in await store.outbox.decisions(draft.alert.id)] == ["submit", "approve"]


async def test_what_was_to_end_and_has_ended_this_moment_is_said(store: Store) -> None:
    """Somebody recalls a warning in the second its update arrives: who updates it looks again."""
    first = draft_of(alert("a1"))
    await store.outbox.accept(first)
    await store.outbox.stop(first.alert.id, "recalled", Record(NOW, "a", "recall", first.alert.id))
    update = replace(draft_of(alert("u1")), stops={first.alert.id: "superseded"})
    assert (await store.outbox.accept(update)).result == "overtaken"


def drill_of(name: str, standing: Standing = Standing.SIGN) -> Draft:
    return replace(draft_of(replace(alert(name), status=Status.EXERCISE)), standing=standing, cursors={})


@pytest.mark.parametrize("standing", [Standing.SIGN, Standing.ACTIVE])
async def test_a_real_warning_stops_the_drills_it_meets_in_its_own_transaction(
    store: Store, standing: Standing
) -> None:
    """D19: taken in after the officer had looked, the drill has nevertheless ended when the red one is accepted."""
    drill = drill_of("d1", standing)
    await store.outbox.accept(drill)
    real = draft_of(alert())
    assert (await store.outbox.accept(real)).result == "accepted"
    row = await row_of(store, drill.alert.id)
    assert (row.standing, row.reason) == ("stopped", "real_warning")
    records = [record for _, record, _ in await store.audit.records()]
    assert [(one.subject, one.detail) for one in records if one.action == "drill_stop"] == [
        (drill.alert.id, f"real_warning: {real.alert.id}")
    ]


@pytest.mark.parametrize("standing", [Standing.SIGN, Standing.ACTIVE])
async def test_no_drill_gets_past_a_real_warning_that_came_this_moment(store: Store, standing: Standing) -> None:
    """D19: what the drill's officer saw is over by the commit; of two at once the drill is the one to go."""
    await store.outbox.accept(draft_of(alert()))
    drill = drill_of("d1", standing)
    assert (await store.outbox.accept(drill)).result == "real_warning"
    assert await store.outbox.alert(drill.alert.id) is None


async def test_a_signature_does_not_start_a_drill_under_a_real_warning(store: Store) -> None:
    """The red one is of this second; the signer's look at the screen is of the one before."""
    elsewhere = replace(drill_of("d1"), plan=replace(draft_of(alert()).plan, targets=(Target("411728100"),)))
    await store.outbox.accept(elsewhere)
    await store.outbox.accept(draft_of(alert()))
    was = await row_of(store, elsewhere.alert.id)
    assert was.standing == Standing.SIGN
    moved = replace(elsewhere, plan=draft_of(alert()).plan, standing=Standing.ACTIVE)
    assert (await store.outbox.move(was, moved)).result == "real_warning"
    assert (await row_of(store, elsewhere.alert.id)).standing == Standing.SIGN


async def test_no_self_test_is_ordered_beside_an_evacuation_without_an_end(store: Store) -> None:
    """It has no colour, and holds until it is ended: a tone beside it would be taken for it, or for the all-clear."""
    order = draft_of(replace(alert(), document=Document.EVACUATION, level=Level.UNKNOWN, expires=None))
    await store.outbox.accept(order)
    until, record = NOW + timedelta(hours=1), replace(RECORD, action="order:self_test")

    async def tone(name: str, where: Target) -> None:
        await store.orders.add(name, [1], "self_test", {"audible": True}, until, record, partial(bar, targets=[where]))

    with pytest.raises(RealWarningError):
        await tone("here", Target("411726204", ("411726204201",)))
    await tone("elsewhere", Target("411728100"))
    ordered = await store.database.read(lambda tx: tx.all("SELECT id FROM device_order"))
    assert ordered == [("elsewhere.0",)]


async def test_a_yellow_warning_and_a_drill_may_meet(store: Store) -> None:
    """Only orange, red and evacuation leave no room for an exercise."""
    yellow = draft_of(replace(alert(), level=Level.YELLOW))
    await store.outbox.accept(yellow)
    drill = drill_of("d1", Standing.ACTIVE)
    assert (await store.outbox.accept(drill)).result == "accepted"
    await store.outbox.accept(draft_of(replace(alert("y2"), level=Level.YELLOW)))
    assert (await row_of(store, drill.alert.id)).standing == Standing.ACTIVE


async def test_the_duty_room_stops_ringing_in_the_very_transaction_of_the_decision(store: Store) -> None:
    """An alarm that goes on after the signature teaches people to ignore alarms."""
    draft = waiting()
    await store.outbox.accept(draft)
    assert ("held", draft.alert.id) in await timers(store)
    was = await row_of(store, draft.alert.id)
    await store.outbox.move(was, replace(draft, standing=Standing.ACTIVE, timers={}))
    assert ("held", draft.alert.id) not in await timers(store)


async def test_of_two_numbers_at_once_one_stands_and_its_area_is_asked_for_once(store: Store) -> None:
    """A step added twice would ring forty thousand telephones twice; one set back would tell officials anew."""
    one = draft_of(replace(alert(), infos=(Info("暴雨"),)))
    await store.outbox.accept(one)
    was = await row_of(store, one.alert.id)
    area = replace(one.plan.steps[0].audience, group=Group.AREA, channel="sms_area")
    grown = replace(one.plan, steps=(*one.plan.steps, replace(one.plan.steps[0], number=2, audience=area)))

    def numbered(text: str) -> Draft:
        decision = Decision("active", Event.NUMBER, "a", NOW, text)
        return replace(one, alert=one.alert.approved(text), plan=grown, batches=[], cursors={}, decision=decision)

    steps = "SELECT number, finished, sequence FROM step WHERE alert = :alert ORDER BY number"
    before = await store.database.read(lambda tx: tx.all(steps, alert=one.alert.id))
    results = await asyncio.gather(*(store.outbox.move(was, numbered(text)) for text in ("1", "2")))
    assert sorted(one.result for one in results) == ["accepted", "conflict"]
    after = await store.database.read(lambda tx: tx.all(steps, alert=one.alert.id))
    assert after == [*before, (2, 0, 0)]
    row = await row_of(store, one.alert.id)
    life = await store.outbox.decisions(one.alert.id)
    assert [row.alert.approval] == [step.reason for step in life if step.event == Event.NUMBER]


async def test_an_amended_draft_keeps_its_life_under_its_new_id(store: Store) -> None:
    """Who wrote and who returned it is known after its time of sending has changed."""
    draft = replace(waiting(), standing=Standing.DRAFT, timers={"expire": NOW})
    await store.outbox.accept(draft)
    was = await row_of(store, draft.alert.id)
    newer = replace(draft.alert, sent=NOW + timedelta(minutes=5), references=(Reference("s", "earlier", NOW),))
    amended = replace(
        draft, alert=newer, plan=replace(draft.plan, alert=newer.id), timers={"expire": NOW + timedelta(hours=1)},
        decision=Decision("draft", "amend", "a", NOW),
    )  # fmt: skip
    assert (await store.outbox.move(was, amended)).result == "accepted"
    assert await store.outbox.alert(draft.alert.id) is None
    assert [one.event for one in await store.outbox.decisions(newer.id)] == ["submit", "amend"]
    assert [row.alert.id for row in await store.outbox.successors("s", "earlier")] == [newer.id]
    assert await timers(store) == {("expire", newer.id)}


async def test_a_sealed_code_is_used_up_with_the_alert_or_not_at_all(store: Store) -> None:
    """A code that is spent on a message that was not stored would lock the officer out for good."""
    await store.seals.add("ABCD-EFGH", "411726-qxj", "一号", RECORD)
    first = replace(draft_of(alert("a1"), batch_of(alert("a1"))), seal=hashed("abcd efgh"))
    assert (await store.outbox.accept(first)).result == "accepted"
    second = replace(draft_of(alert("a2")), seal=hashed("ABCDEFGH"))
    assert (await store.outbox.accept(second)).result == "sealed"
    assert await store.outbox.alert(alert("a2").id) is None
    sealed = await store.seals.find("ABCD-EFGH")
    assert sealed is not None
    assert (sealed.alert, sealed.used_at) == (first.alert.id, NOW)
    assert (await store.outbox.accept(first)).result == "duplicate"  # a repeated request of the same message


async def test_an_obligation_is_opened_once_and_answered_once(store: Store, hand: HandClock) -> None:
    """It stands in the daily report until a person has answered, and then their answer stands."""
    draft = replace(draft_of(alert()), obligations={"review": NOW + timedelta(minutes=30)})
    await store.outbox.accept(draft)
    name = f"{draft.alert.id} review"
    assert ("obligation", name) in await timers(store)
    [owed] = await store.obligations.since(NOW, unanswered=True)
    assert (owed.kind, owed.due) == ("review", NOW + timedelta(minutes=30))
    assert await store.obligations.answer(draft.alert.id, "review", "endorsed", "及时", RECORD)
    assert not await store.obligations.answer(draft.alert.id, "review", "objected", "", RECORD)
    assert ("obligation", name) not in await timers(store)
    assert await store.obligations.since(NOW, unanswered=True) == []
    [answered] = await store.obligations.since(NOW, unanswered=False)
    assert (answered.answer, answered.actor) == ("endorsed", RECORD.actor)
    assert await store.obligations.since(NOW + timedelta(hours=1), unanswered=False) == []


async def test_dead_questions_hide_no_live_one(store: Store) -> None:
    """A season of warnings that were over before they were asked about must not fill the list."""
    old = replace(draft_of(alert("old")), obligations={"lapse": NOW})
    await store.outbox.accept(old)
    await store.outbox.stop(old.alert.id, "recalled", Record(NOW, "a", "recall", old.alert.id))
    live = replace(draft_of(alert("live"), digest="live"), obligations={"review": NOW + timedelta(hours=1)})
    await store.outbox.accept(live)
    assert [one.kind for one in await store.obligations.since(NOW, unanswered=True, limit=1)] == ["review"]
    assert [one.kind for one in await store.obligations.since(NOW, unanswered=False)] == ["lapse", "review"]


def regime(name: str = "r1", area: str = "411726") -> Regime:
    return Regime(name, area, "411726-fzb", "411726-fzb/带班", "特大", NOW, NOW + timedelta(hours=6))


async def test_one_regime_at_a_time_over_an_area(store: Store) -> None:
    """Two regimes over one county would end at two times, and nobody knew which holds."""
    later = NOW + timedelta(hours=7)
    told = Minute("emergency", "a", NOW, b"sealed")
    assert await store.regimes.start(regime(), RECORD, later, told)
    assert not await store.regimes.start(regime("r2"), RECORD, later)
    assert await store.regimes.start(regime("r3", "411728"), RECORD, later)
    assert [one.id for one in await store.regimes.in_force(NOW)] == ["r1", "r3"]
    assert await store.regimes.in_force(later) == []  # over by the clock, noted or not
    assert await store.regimes.renew("r1", later, RECORD)
    assert await store.regimes.end("r1", RECORD)
    assert not await store.regimes.renew("r1", later, RECORD)
    assert not await store.regimes.end("r1", RECORD)
    assert [(one.id, one.renewed) for one in await store.regimes.all() if one.ended_at] == [("r1", 1)]
    assert [one.secret for one in await store.minutes.of("r1")] == [b"sealed"]


async def test_the_clock_ends_no_regime_that_was_just_renewed(store: Store) -> None:
    """The signer renewed it in the very second the clock looked: it goes on."""
    later = NOW + timedelta(hours=7)
    await store.regimes.start(regime(), RECORD, later)
    assert await store.regimes.renew("r1", later, RECORD)
    clock = Record(NOW + timedelta(hours=6), "clock", "emergency_end", "r1")
    assert not await store.regimes.end("r1", clock, lapsed=True)
    assert await store.regimes.end("r1", replace(clock, at=later), lapsed=True)


async def test_what_bears_on_a_message_is_found_in_one_look(store: Store) -> None:
    """Successors, near-duplicates and regimes: a red one waits for one read, not for five."""
    first = replace(draft_of(alert("a1")), likeness=likeness(alert("a1")))
    await store.outbox.accept(first)
    update = replace(alert("u1"), references=(Reference(alert().sender, "a1", NOW),))
    await store.outbox.accept(replace(waiting(), alert=update, plan=replace(first.plan, alert=update.id)))
    await store.regimes.start(regime(), RECORD, NOW)
    within = timedelta(minutes=30)
    found = await store.outbox.around(alert("a1"), likeness(alert("a2")), NOW, within)
    assert [row.alert.id for row in found.later] == [update.id]
    assert [row.alert.id for row in found.alike] == [first.alert.id]
    assert (found.issued, [one.id for one in found.regimes]) == (2, ["r1"])
    of_drill = await store.outbox.around(replace(alert("d2"), status=Status.EXERCISE), "", NOW, within)
    assert {row.alert.id for row in of_drill.opposite} == {first.alert.id}
    assert (await store.outbox.around(alert("a3"), likeness(alert()), NOW + timedelta(hours=1), within)).alike == []


async def test_a_database_of_the_foundation_is_brought_up_to_date(tmp_path: Path) -> None:
    """What waited for a second person before the new release waits for its signature after it."""
    import sqlite3

    from alembic import command
    from alembic.config import Config

    from gateway import migrations
    from gateway.store.codec import pack

    url = f"sqlite:///{tmp_path}/old.db"
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    from sqlalchemy import create_engine

    engine = create_engine(url)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.commit()
    engine.dispose()
    one = alert()
    with sqlite3.connect(tmp_path / "old.db") as raw:
        raw.execute(
            "INSERT INTO alert VALUES (?, ?, ?, 0, 'd', ?, ?, 'held', '', 'who', 0, 0, NULL)",
            (one.id, one.sender, one.identifier, pack(one), pack(draft_of(one).plan)),
        )
    database = Database(url)
    await database.open()
    row = await database.read(lambda tx: tx.one("SELECT standing, status, level, event_code, revision FROM alert"))
    await database.close()
    assert row == ("sign", "Actual", 4, "11B03", 0)


def exercise_of(name: str, starts_at: datetime) -> Drill:
    hour = timedelta(hours=1)
    return Drill(
        name, name, "411726-qxj", "broadcast", ("411726209", "411726204"), (Group.OFFICIALS, Group.LOUDSPEAKERS),
        starts_at, starts_at + hour, starts_at - hour, Document.WARNING, "11B03", "暴雨", Level.RED, "请勿惊慌", "",
        "411726-qxj/甲", "issuer", NOW,
    )  # fmt: skip


async def test_a_drill_moves_on_only_from_where_it_was_seen(store: Store, hand: HandClock) -> None:
    """Two schedulers at one timer: one begins the drill; and a series goes on in the same transaction."""
    drill = exercise_of("d1", NOW + timedelta(hours=2))
    await store.drills.plan(drill, RECORD)
    assert await store.drills.get("d1") == drill
    assert ("drill", "d1") in await timers(store)
    then = exercise_of("d2", NOW + timedelta(days=7))
    values = {"alert": "", "approver": "411726-qxj/乙"}
    moved = [
        await store.drills.move("d1", {Stage.PLANNED}, Stage.RUNNING, RECORD, then=then, values=values) for _ in "12"
    ]
    assert moved == [True, False]
    assert await timers(store) == {("drill", "d2")}
    assert [(one.id, one.stage, one.approver) for one in await store.drills.all()] == [
        ("d2", Stage.PLANNED, ""), ("d1", Stage.RUNNING, "411726-qxj/乙"),
    ]  # fmt: skip
    assert [one.id for one in await store.drills.held_since(NOW)] == ["d1"]
    hand.advance(4 * 3600)
    assert [one.stage for one in await store.drills.held_since(NOW)] == [Stage.OVER]


async def test_of_a_drill_and_a_warning_at_once_the_warning_stands_alone(database_url: str, hand: HandClock) -> None:
    """Two processes, the same millisecond: whichever comes second sees the first, and no drill lives on beside it."""
    bases = [Database(database_url) for _ in "ab"]
    for base in bases:
        await base.open()
    one, other = (Store(base, hand) for base in bases)
    for number in range(12):
        drill, real = drill_of(f"d{number}", Standing.ACTIVE), draft_of(alert(f"r{number}"))
        results = await asyncio.gather(one.outbox.accept(drill), other.outbox.accept(real))
        assert results[1].result == "accepted"
        row = await one.outbox.alert(drill.alert.id)
        assert (results[0].result, row and row.standing) in (("real_warning", None), ("accepted", "stopped"))
        await other.outbox.stop(real.alert.id, "recalled", Record(NOW, "a", "recall", real.alert.id))
    for base in bases:
        await base.close()
