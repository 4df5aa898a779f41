"""Planned drills: two people, daytime, told beforehand, never beside a real warning, with a ledger of what came."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_support import CITY, ISSUER, JIALOU, NEIGHBOUR, POLICY, REGIONS, SIGNER, Desk, opened
from manual_clock import ManualClock
from test_cli import Run, run

from gateway import doctor
from gateway.api.shape import EXAMPLE
from gateway.cli.drill import _csv
from gateway.drill import DrillKind, Exercise, again, check, parse_rule
from gateway.drill_report import report as drill_report
from gateway.errors import Refused
from gateway.model import Batch, Document, Group, Kind, Lane, Level, Notice, Record, Report, State, Status
from gateway.policy.hazard import CHINA
from gateway.store.drill import Drill, Stage
from gateway.store.rows import add_batches

__all__ = ["run"]  # a fixture

DAY = datetime(2026, 7, 22, 10, 0, tzinfo=CHINA)  # the clock of the tests stands at 2026-07-20 14:00
LAST = DAY.replace(day=30)
HALF = timedelta(minutes=30)


def wanted(**changes: Any) -> Exercise:
    plan: dict[str, Any] = {
        "kind": DrillKind.BROADCAST, "areas": (JIALOU,), "groups": (Group.OFFICIALS, Group.LOUDSPEAKERS),
        "starts_at": DAY, "ends_at": DAY + HALF, "event_code": "11B03", "event": "暴雨", "level": Level.RED,
        "notice": "听到大喇叭请勿惊慌",
    }  # fmt: skip
    return Exercise(**(plan | changes))


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


def person(token: str) -> Any:
    found = POLICY.principal(token, simulation=True)
    assert found is not None
    return found


async def planned(desk: Desk, **changes: Any) -> Drill:
    return await desk.core.drills.plan(wanted(**changes), person(ISSUER))


async def approved(desk: Desk, **changes: Any) -> Drill:
    drill = await planned(desk, **changes)
    return await desk.core.drills.approve(drill.id, person(SIGNER))


async def at(desk: Desk, moment: datetime) -> None:
    """Let the clock come to a moment, and fire what is due then."""
    desk.clock.advance((moment - desk.clock.now()).total_seconds())
    for kind, key in await desk.core.store.timers.take(100):
        if kind == "drill":
            again_ = await desk.core.drills.due(key)
            await desk.core.store.timers.handled([(kind, key, again_)])


async def seen(desk: Desk, drill: Drill) -> Drill:
    found = await desk.core.store.drills.get(drill.id)
    assert found is not None
    return found


async def audit(desk: Desk, drill: Drill) -> list[str]:
    return [one.action for _, one, _ in await desk.core.store.audit.records(0, 1000) if one.subject == drill.id]


async def test_a_drill_is_announced_then_held_and_over_by_itself(desk: Desk) -> None:
    """The whole life of one: planned, approved by another, people told a day before, held, over."""
    drill = await approved(desk)
    assert (drill.stage, drill.approver) == (Stage.APPROVED, "411726-qxj/泌阳带班领导")
    await at(desk, DAY - timedelta(hours=24))
    told = await seen(desk, drill)
    row = await desk.core.store.outbox.alert(told.announcement)
    assert told.stage is Stage.ANNOUNCED
    assert row is not None
    assert (row.standing, row.alert.status, row.alert.document) == ("active", Status.EXERCISE, Document.SERVICE)
    await at(desk, DAY)
    running = await seen(desk, drill)
    row = await desk.core.store.outbox.alert(running.alert)
    assert running.stage is Stage.RUNNING
    assert row is not None
    assert (row.standing, row.alert.status, row.issuer) == ("active", Status.EXERCISE, drill.planner)
    assert [one.actor for one in await desk.core.store.outbox.decisions(running.alert)] == [
        drill.planner, drill.approver
    ]  # fmt: skip
    desk.clock.advance(HALF.total_seconds() + 1)
    assert (await seen(desk, drill)).stage is Stage.OVER
    assert await audit(desk, drill) == ["drill_plan", "drill_approve", "drill_announce", "drill_start"]


async def test_the_announcement_never_sounds_like_a_warning(desk: Desk) -> None:
    """Who half hears it must not run: the mark first, no hazard, no colour, and what to do about it: nothing."""
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    row = await desk.core.store.outbox.alert((await seen(desk, drill)).announcement)
    assert row is not None
    text = desk.core.renderer.text(
        row.alert, notice=row.plan.steps[0].notice, channel="sms", group=Group.RESIDENTS, places=(JIALOU,),
        signed=True, limit=134,
    )  # fmt: skip
    assert text.text == (
        "【泌阳县气象局】演练：泌阳县气象局定于22日10时至22日10时30分在贾楼乡组织预警演练，仅演练，请勿惊慌，无需行动。"
        "听到大喇叭请勿惊慌。演练"
    )
    assert text.title == "演练：预警演练预告"
    assert not [
        one for one in desk.core.renderer.check(row.alert, text, None, POLICY.tables.lint) if one.severity == "error"
    ]


@pytest.mark.parametrize("token", [ISSUER, NEIGHBOUR, CITY])
async def test_nobody_approves_their_own_and_no_other_body_does(desk: Desk, token: str) -> None:
    """A drill by one person alone is how a county is frightened by mistake."""
    drill = await planned(desk)
    with pytest.raises(Refused) as refused:
        await desk.core.drills.approve(drill.id, person(token))
    assert refused.value.status == 403
    assert (await seen(desk, drill)).stage is Stage.PLANNED


async def test_a_drill_names_the_codes_nobody_knows(desk: Desk) -> None:
    """One digit wrong of four: whoever plans it sees which, and where the right ones are, and nothing is planned."""
    with pytest.raises(Refused) as caught:
        await planned(desk, areas=(JIALOU, "411726999", "411726998001"))
    assert caught.value.code == "unknown_area"
    assert "411726999, 411726998001; " in caught.value.detail
    assert "config/regions" in caught.value.detail
    assert JIALOU not in caught.value.detail
    assert await desk.core.store.drills.all(10) == []


async def test_what_nobody_approved_in_time_is_not_held(desk: Desk) -> None:
    """No signature, no drill; and nobody is told of one."""
    drill = await planned(desk)
    await at(desk, drill.notice_at)
    left = await seen(desk, drill)
    assert (left.stage, left.reason, left.announcement) == (Stage.REFUSED, "not_approved", "")


async def test_under_a_real_orange_or_red_nothing_is_planned_approved_announced_or_begun(desk: Desk) -> None:
    """Nobody may wonder whether the siren is an exercise (D19)."""
    first, second, third = await planned(desk), await approved(desk), await approved(desk)
    await at(desk, third.notice_at - timedelta(hours=1))
    assert (await seen(desk, third)).stage is Stage.APPROVED
    now = desk.clock.now()
    real = {"sent": now.isoformat(), "expires": (now + timedelta(hours=30)).isoformat()}
    issued = await desk.issue(identifier="real", **real)
    for attempt in (planned(desk), desk.core.drills.approve(first.id, person(SIGNER))):
        with pytest.raises(Refused) as refused:
            await attempt
        assert refused.value.code in ("real_warning", "too_late")
    await at(desk, third.notice_at)
    left = await seen(desk, second)
    assert (left.stage, left.reason) == (Stage.REFUSED, "real_warning")
    assert issued["result"] == "accepted"
    assert await desk.core.store.outbox.find(wanted_sender(), f"drill-{second.id}-notice") == []


def wanted_sender() -> str:
    return str(EXAMPLE["sender"])


async def test_a_real_warning_on_the_day_keeps_an_announced_drill_from_beginning(desk: Desk) -> None:
    """People were told an hour; by then the real thing is there."""
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    await at(desk, DAY - timedelta(minutes=5))
    now = desk.clock.now()
    await desk.issue(identifier="real", sent=now.isoformat(), expires=(now + timedelta(hours=2)).isoformat())
    await at(desk, DAY)
    left = await seen(desk, drill)
    assert (left.stage, left.reason, left.alert) == (Stage.REFUSED, "real_warning", "")


async def test_a_real_warning_stops_a_drill_that_runs(desk: Desk) -> None:
    """D19: at once, in the very transaction that takes the warning in."""
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    await at(desk, DAY)
    now = desk.clock.now()
    await desk.issue(identifier="real", sent=now.isoformat(), expires=(now + timedelta(hours=2)).isoformat())
    left = await seen(desk, drill)
    assert (left.stage, left.reason) == (Stage.STOPPED, "real_warning")
    row = await desk.core.store.outbox.alert(left.alert)
    assert row is not None
    assert (row.standing, row.reason) == ("stopped", "real_warning")


async def test_a_crash_between_two_steps_holds_no_drill_twice(desk: Desk) -> None:
    """The scheduler dies after the message and before its note: the next one finds it, and goes on."""
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    desk.clock.advance((DAY - desk.clock.now()).total_seconds())
    real_move = desk.core.store.drills.move

    async def killed(*_: Any, **__: Any) -> bool:
        raise RuntimeError("killed")

    desk.core.store.drills.move = killed  # type: ignore[method-assign]  # the process dies here
    with pytest.raises(RuntimeError):
        await desk.core.drills.due(drill.id)
    desk.core.store.drills.move = real_move  # type: ignore[method-assign]
    desk.clock.advance(60)
    await desk.core.drills.due(drill.id)
    left = await seen(desk, drill)
    assert left.stage is Stage.RUNNING
    assert len(await desk.core.store.outbox.find(wanted_sender(), f"drill-{drill.id}")) == 1


async def test_after_a_standstill_a_drill_is_not_begun_late(desk: Desk) -> None:
    """People were told an hour, and have gone home."""
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    await at(desk, DAY + timedelta(minutes=16))
    assert ((await seen(desk, drill)).stage, (await seen(desk, drill)).reason) == (Stage.REFUSED, "late")


async def call_off_of(desk: Desk, drill: Drill) -> list[Any]:
    """The messages that call a drill off."""
    told = await desk.core.store.outbox.alert((await seen(desk, drill)).announcement)
    assert told is not None
    return await desk.core.store.outbox.find(told.alert.sender, f"drill-{drill.id}-off")


async def test_those_who_were_told_of_a_drill_hear_that_it_is_off(desk: Desk) -> None:
    """Half the village stays at home for it; the mark first, no word of an end of any warning."""
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    desk.clock.advance(3600)
    await desk.core.drills.cancel(drill.id, person(ISSUER), "汛情紧张")
    for _ in range(2):  # a crash behind it: the same message once more is none
        await desk.core.drills.due(drill.id)
    [off] = await call_off_of(desk, drill)
    told = await desk.core.store.outbox.alert((await seen(desk, drill)).announcement)
    assert told is not None
    assert (off.standing, off.alert.status, off.alert.kind) == ("active", Status.EXERCISE, Kind.CANCEL)
    assert {one.notice for one in off.plan.steps} == {Notice.ALL_CLEAR}
    assert {one.audience.group for one in off.plan.steps} == {one.audience.group for one in told.plan.steps}
    assert (told.standing, told.reason) == ("stopped", "cancelled")
    text = desk.core.renderer.text(
        off.alert, notice=Notice.ALL_CLEAR, channel="sms", group=Group.RESIDENTS, places=(JIALOU,), signed=True,
        limit=134, previous=told.alert,
    )  # fmt: skip
    assert text.text == (
        "【泌阳县气象局】演练：泌阳县气象局取消原定于22日10时至22日10时30分在贾楼乡的预警演练，仅演练，请勿惊慌，"
        "无需行动。演练"
    )
    assert (await seen(desk, drill)).stage is Stage.CANCELLED
    assert (await audit(desk, drill))[-2:] == ["drill_cancel", "drill_call_off"]


async def test_what_was_never_announced_is_called_off_to_nobody(desk: Desk) -> None:
    """Nobody must wonder which drill that was."""
    drill = await approved(desk)
    await desk.core.drills.cancel(drill.id, person(ISSUER), "x")
    assert await desk.core.drills.due(drill.id) is None
    assert (await seen(desk, drill)).announcement == ""


async def test_a_drill_is_called_off_in_the_morning_where_it_is_cancelled_at_night(desk: Desk) -> None:
    """No exercise wakes anybody, and an end of one does not either; by its hour everybody knows."""
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    await at(desk, DAY.replace(hour=2))
    await desk.core.drills.cancel(drill.id, person(ISSUER), "x")
    await at(desk, DAY.replace(hour=3))
    assert await call_off_of(desk, drill) == []
    await at(desk, DAY - timedelta(minutes=30))
    assert [one.standing for one in await call_off_of(desk, drill)] == ["active"]


async def test_the_approver_of_a_drill_that_came_too_late_is_told_and_so_are_the_people(desk: Desk) -> None:
    """A gateway that stood still at ten must not leave a village waiting, and its approver none the wiser."""
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    await at(desk, DAY + timedelta(minutes=16))
    missed = await seen(desk, drill)
    assert (missed.stage, missed.reason) == (Stage.REFUSED, "late")
    [owed] = await desk.core.store.obligations.of(drill.id)
    assert (owed.kind, owed.answered_at) == ("drill_missed", None)
    with pytest.raises(Refused):
        await desk.core.obligations.answer(drill.id, "drill_missed", person(ISSUER), "noted")
    await desk.core.obligations.answer(drill.id, "drill_missed", person(SIGNER), "noted")
    await desk.core.drills.due(drill.id)
    assert [one.standing for one in await call_off_of(desk, drill)] == ["active"]
    found = await drill_report(desk.core, missed, ("",))
    assert found.reason == "late"
    assert found.explained.startswith("the gateway stood still at its hour")


async def test_beside_a_real_warning_no_drill_is_called_off(desk: Desk) -> None:
    """Half of it is heard in the rain, as the end of the warning; and of the red everybody is told."""
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    await at(desk, DAY - timedelta(minutes=5))
    now = desk.clock.now()
    await desk.issue(identifier="real", sent=now.isoformat(), expires=(now + timedelta(hours=2)).isoformat())
    await at(desk, DAY)
    assert (await seen(desk, drill)).reason == "real_warning"
    await desk.core.drills.due(drill.id)
    assert await call_off_of(desk, drill) == []
    assert await desk.core.store.obligations.of(drill.id) == []


async def running(desk: Desk) -> str:
    """The path of the message of a drill that runs, for a minute already."""
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    await at(desk, DAY)
    desk.clock.advance(60)
    return f"/v1/alerts/{(await seen(desk, drill)).alert}"


async def real(desk: Desk) -> str:
    """Issue a real red for the same township, now."""
    now = desk.clock.now()
    found = await desk.issue(identifier="real", sent=now.isoformat(), expires=(now + HALF).isoformat())
    return str(found["id"])


@pytest.mark.parametrize("action", ["cancel", "correct"])
async def test_beside_a_real_warning_nobody_ends_a_drill_aloud(desk: Desk, action: str) -> None:
    """Half heard in the rain, "issued by mistake" sends people back into the flood; once that is over, it may."""
    drill, warning = await running(desk), await real(desk)
    desk.clock.advance(60)
    response, problem = await desk.call("POST", f"{drill}/{action}", ISSUER, {"note": "x"})
    assert (response.status, problem["type"].rpartition("/")[2]) == (409, "real_warning")
    assert "recall stops a drill in silence" in problem["detail"]
    await desk.call("POST", f"/v1/alerts/{warning}/recall", SIGNER, {"reason": "x"})
    response, _ = await desk.call("POST", f"{drill}/{action}", ISSUER, {"note": "x"})
    assert response.status == 202


@pytest.mark.parametrize("action", ["cancel", "correct"])
async def test_an_end_of_a_drill_that_waits_goes_with_the_drill(desk: Desk, action: str) -> None:
    """Whoever was to sign it does so ten minutes later, in good faith: by then a real red is being told."""
    drill = await running(desk)
    response, waits = await desk.call("POST", f"{drill}/{action}", ISSUER, {"note": "x"})
    assert (response.status, waits["standing"]) == (202, "sign")
    await real(desk)
    response, _ = await desk.call("POST", f"/v1/alerts/{waits['id']}/approve", SIGNER)
    assert response.status == 409
    row = await desk.core.store.outbox.alert(waits["id"])
    assert row is not None
    assert (row.standing, row.reason) == ("stopped", "real_warning")


async def test_a_repeated_drill_plans_the_next_one_whatever_came_of_this(desk: Desk) -> None:
    """Every month on the day, by one approval, until the rule ends."""
    drill = await approved(desk, rule="FREQ=MONTHLY;INTERVAL=1;UNTIL=20260930")
    await at(desk, drill.notice_at)
    await at(desk, DAY)
    coming = [one for one in await desk.core.store.drills.all() if one.id != drill.id]
    assert [(one.stage, one.starts_at, one.series) for one in coming] == [
        (Stage.APPROVED, datetime(2026, 8, 22, 10, 0, tzinfo=CHINA), drill.id)
    ]
    await at(desk, coming[0].notice_at + timedelta(hours=2))
    last = [one for one in await desk.core.store.drills.all() if one.stage is Stage.APPROVED]
    assert [one.starts_at for one in last] == [datetime(2026, 9, 22, 10, 0, tzinfo=CHINA)]
    await desk.core.drills.cancel(last[0].id, person(ISSUER), "汛情紧张")
    await at(desk, DAY + timedelta(days=100))
    assert not [one for one in await desk.core.store.drills.all() if one.stage is Stage.APPROVED]


async def test_a_drill_that_runs_is_cancelled_at_once(desk: Desk) -> None:
    """Somebody has fainted at the meeting point: it ends, and the ledger says that a person ended it."""
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    await at(desk, DAY)
    left = await desk.core.drills.cancel(drill.id, person(SIGNER), "现场有人受伤")
    assert (left.stage, left.reason) == (Stage.STOPPED, "recalled")
    with pytest.raises(Refused) as refused:
        await desk.core.drills.cancel(drill.id, person(SIGNER), "again")
    assert refused.value.code == "over"


async def test_a_call_up_goes_to_officials_alone(desk: Desk) -> None:
    """Who is to answer is called; the village sleeps on."""
    drill = await approved(desk, kind=DrillKind.CALL_UP, groups=(Group.OFFICIALS,))
    await at(desk, drill.notice_at)
    await at(desk, DAY)
    row = await desk.core.store.outbox.alert((await seen(desk, drill)).alert)
    assert row is not None
    assert {step.audience.group for step in row.plan.steps} == {Group.OFFICIALS}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"starts_at": DAY - timedelta(days=1, hours=21)}, "too_soon"),
        ({"starts_at": DAY + timedelta(days=400), "ends_at": DAY + timedelta(days=400) + HALF}, "too_late"),
        ({"ends_at": DAY + timedelta(hours=3)}, "wrong_length"),
        ({"ends_at": DAY}, "wrong_length"),
        ({"starts_at": DAY.replace(hour=7), "ends_at": DAY.replace(hour=8)}, "drill_hours"),
        ({"starts_at": DAY.replace(hour=19, minute=45), "ends_at": DAY.replace(hour=20, minute=1)}, "drill_hours"),
        ({"starts_at": DAY.replace(hour=23), "ends_at": DAY.replace(hour=0) + timedelta(days=1)}, "drill_hours"),
        ({"areas": ()}, "no_area"),
        ({"groups": ()}, "wrong_group"),
        ({"groups": (Group.RESIDENTS,)}, "wrong_group"),
        ({"kind": DrillKind.CALL_UP}, "wrong_group"),
        ({"document": Document.SERVICE}, "wrong_document"),
        ({"rule": "FREQ=DAILY;UNTIL=20260901"}, "wrong_rule"),
        ({"rule": "FREQ=WEEKLY;UNTIL=20260931"}, "wrong_rule"),
        ({"rule": "FREQ=WEEKLY;UNTIL=20300101"}, "wrong_rule"),
        (
            {"rule": "FREQ=MONTHLY;UNTIL=20260901", "starts_at": LAST, "ends_at": LAST + HALF},
            "wrong_rule",
        ),
    ],
)  # fmt: skip
def test_what_may_not_be_planned(changes: dict[str, Any], code: str) -> None:
    """By day, in time, for those who know of drills, by a rule that somebody looks at once a year."""
    with pytest.raises(Refused) as refused:
        check(wanted(**changes), POLICY.drill, datetime(2026, 7, 20, 14, 0, tzinfo=CHINA))
    assert refused.value.code == code


async def test_a_body_drills_only_what_it_may_issue_and_where(desk: Desk) -> None:
    """The county's own authorised sender: no flood drill by the weather bureau, and none next door."""
    for changes in ({"event_code": "11A01", "event": "洪水"}, {"areas": ("411728",)}):
        with pytest.raises(Refused) as refused:
            await planned(desk, **changes)
        assert (refused.value.status, refused.value.code) == (403, "outside_authority")


def test_rules_repeat_at_the_same_hour_in_china() -> None:
    """Two rules of RFC 5545 are enough for a county."""
    assert parse_rule("FREQ=WEEKLY;UNTIL=20260901", DAY)[:2] == ("WEEKLY", 1)
    assert again("FREQ=WEEKLY;INTERVAL=2;UNTIL=20260901", DAY, DAY) == DAY + timedelta(weeks=2)
    assert again("FREQ=MONTHLY;INTERVAL=6;UNTIL=20270301", DAY, DAY) == datetime(2027, 1, 22, 10, 0, tzinfo=CHINA)
    assert again("FREQ=MONTHLY;UNTIL=20260801", DAY, DAY) is None
    assert again("", DAY, DAY) is None


async def speakers(desk: Desk, number: int = 3) -> None:
    """Register loudspeakers of 贾楼乡's first village."""
    await desk.database.write(lambda tx: [
        tx.run(
            "INSERT INTO device (id, name, county, township, village, key_hash, standing)"
            " VALUES (:id, :name, '411726', :township, :village, 'k', 'service')",
            id=one, name=f"lb-{one}", township=JIALOU, village=REGIONS.villages(JIALOU)[0].code,
        )
        for one in range(1, number + 1)
    ])  # fmt: skip


TEST: dict[str, Any] = {"kind": DrillKind.SELF_TEST, "groups": (Group.LOUDSPEAKERS,)}


async def test_a_silent_self_test_tells_nobody_and_orders_every_loudspeaker(desk: Desk) -> None:
    """Before the storm, and without a sound: is there a village whose loudspeaker is dead?"""
    await speakers(desk)
    drill = await approved(desk, **TEST)
    await at(desk, DAY)
    assert (await seen(desk, drill)).stage is Stage.ANNOUNCED
    await at(desk, DAY)
    running = await seen(desk, drill)
    assert (running.stage, running.announcement, running.alert) == (Stage.RUNNING, "", "")
    assert [one[1] for one in await desk.core.store.drills.tested(drill.id)] == ["open"] * 3
    assert (await audit(desk, drill))[-1] == "drill_start"


async def test_a_real_warning_withdraws_the_self_tests_that_are_still_open(desk: Desk) -> None:
    """A device that comes back in the storm plays the warning, and sounds no drill tone before it."""
    await speakers(desk)
    drill = await approved(desk, **TEST | {"kind": DrillKind.SELF_TEST_AUDIBLE})
    await at(desk, drill.notice_at)
    await at(desk, DAY)
    now = desk.clock.now()
    await desk.issue(identifier="real", sent=now.isoformat(), expires=(now + timedelta(hours=2)).isoformat())
    left = await seen(desk, drill)
    assert (left.stage, left.reason) == (Stage.STOPPED, "real_warning")
    assert {one[1:] for one in await desk.core.store.drills.tested(drill.id)} == {("superseded", "real_warning")}
    assert (await audit(desk, drill))[-1] == "drill_stop"


async def test_a_self_test_does_not_begin_beside_a_warning_of_this_moment(desk: Desk) -> None:
    """The red one is accepted between the look and the orders: no drill tone follows it into the village."""
    await speakers(desk)
    drill = await approved(desk, **TEST | {"kind": DrillKind.SELF_TEST_AUDIBLE})
    await at(desk, drill.notice_at)
    find = desk.core.drills._devices

    async def warned(*of: Any) -> list[int]:
        now = desk.clock.now()
        await desk.issue(identifier="real", sent=now.isoformat(), expires=(now + timedelta(hours=2)).isoformat())
        return await find(*of)

    desk.core.drills._devices = warned  # type: ignore[method-assign, assignment]  # the warning comes here
    await at(desk, DAY)
    left = await seen(desk, drill)
    assert (left.stage, left.reason) == (Stage.REFUSED, "real_warning")
    assert await desk.core.store.drills.tested(drill.id) == []


async def test_a_drill_that_is_cancelled_while_it_begins_falls_silent(desk: Desk) -> None:
    """The officer has read "cancelled"; the loudspeakers must not say otherwise."""
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    move = desk.core.store.drills.move

    async def beaten(*of: Any, **with_: Any) -> bool:
        desk.core.store.drills.move = move  # type: ignore[method-assign]
        await desk.core.drills.cancel(drill.id, person(ISSUER), "汛情紧张")
        return await move(*of, **with_)

    desk.core.store.drills.move = beaten  # type: ignore[method-assign]  # somebody cancels it here
    await at(desk, DAY)
    assert (await seen(desk, drill)).stage is Stage.CANCELLED
    [row] = await desk.core.store.outbox.find(wanted_sender(), f"drill-{drill.id}")
    assert (row.standing, row.reason) == ("stopped", "recalled")


async def test_a_cancellation_that_comes_before_the_message_leaves_none_in_force(desk: Desk) -> None:
    """As above, with the message accepted a moment after the cancellation."""
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    submit = desk.core.drills._issue

    async def late(*of: Any) -> str:
        await desk.core.drills.cancel(drill.id, person(ISSUER), "汛情紧张")
        return await submit(*of)

    desk.core.drills._issue = late  # type: ignore[method-assign, assignment]  # somebody cancels it here
    await at(desk, DAY)
    [row] = await desk.core.store.outbox.find(wanted_sender(), f"drill-{drill.id}")
    assert (row.standing, row.reason) == ("stopped", "recalled")


async def test_a_self_test_that_runs_is_cancelled_with_its_orders(desk: Desk) -> None:
    """A school writes an examination: what has not been tested yet stays silent."""
    await speakers(desk)
    drill = await approved(desk, **TEST)
    await at(desk, DAY)
    await at(desk, DAY)
    left = await desk.core.drills.cancel(drill.id, person(ISSUER), "高考")
    assert (left.stage, left.reason) == (Stage.STOPPED, "高考")
    assert {one[1:] for one in await desk.core.store.drills.tested(drill.id)} == {("superseded", "cancelled")}
    with pytest.raises(Refused):
        await desk.core.drills.cancel(drill.id, person(ISSUER), "again")


async def test_a_self_test_of_no_loudspeaker_is_refused(desk: Desk) -> None:
    """A green tick for a county without a device would be believed."""
    drill = await approved(desk, **TEST)
    await at(desk, DAY)
    await at(desk, DAY)
    left = await seen(desk, drill)
    assert (left.stage, left.reason) == (Stage.REFUSED, "no_loudspeakers")


# --- what came of it, and the surfaces ------------------------------------------------------------


async def held(desk: Desk) -> Drill:
    """Hold a broadcast with three loudspeakers and the officials of 贾楼乡."""
    await speakers(desk)
    drill = await approved(desk)
    await at(desk, drill.notice_at)
    await at(desk, DAY)
    while await desk.planner.round():
        pass
    drill = await seen(desk, drill)
    # This installation has no loudspeaker channel; what one would be told is written here.
    village = REGIONS.villages(JIALOU)[0].code
    batch = Batch(
        f"{drill.alert}.9.0", drill.alert, 9, "loudspeaker_ws", Lane.BULK, Group.LOUDSPEAKERS, Notice.ISSUE, "zh",
        JIALOU, drill.ends_at, (1, 2, 3), ("", "", ""), ((village, 3),),
    )  # fmt: skip
    await desk.database.write(lambda tx: add_batches(tx, [batch], desk.clock.now()))
    return drill


async def told(desk: Desk, drill: Drill) -> None:
    """The first loudspeaker has played, the second says that it has and cannot, the third is silent; one answers."""
    store, now = desk.core.store, desk.clock.now()
    for batch, _ in await store.ledger.batches(drill.alert, "loudspeakers"):
        reports = [(0, State.DELIVERED, "received"), (0, State.PLAYED, "played"), (1, State.DELIVERED, "playing"),
                   (1, State.FAILED, "implausible")]  # fmt: skip
        await store.ledger.commit([
            Report("loudspeaker_ws", "", state, now, code, batch.id, place) for place, state, code in reports
        ])  # fmt: skip
    village = REGIONS.villages(JIALOU)[0].code
    answer = Record(now + timedelta(seconds=90), "reply", "confirm", drill.alert)
    await store.ledger.confirm(drill.alert, desk.people[0], (village,), "sms", answer)


async def test_the_ledger_says_of_each_village_what_came(desk: Desk) -> None:
    """Commanded, received, played and heard are four things; one percentage would hide the dead loudspeaker."""
    drill = await held(desk)
    await told(desk, drill)
    response, found = await desk.call("GET", f"/v1/drills/{drill.id}/report", ISSUER)
    assert response.status == 200, found
    (village,) = [one for one in found["villages"] if one["commanded"]]
    numbers = {name: village[name] for name in ("commanded", "received", "played", "plausible", "failed", "silent")}
    assert numbers == {"commanded": 3, "received": 2, "played": 2, "plausible": 1, "failed": 1, "silent": 1}
    assert village["codes"] == {"implausible": 1}
    assert (village["officials"], village["answered"], village["first_answer_s"]) == (2, 1, 90.0)
    assert {name: found["total"][name] for name in numbers} == numbers
    assert (found["total"]["officials"], found["total"]["answered"]) == (2, 1)
    assert (await desk.call("GET", f"/v1/drills/{drill.id}/report", NEIGHBOUR))[0].status == 404


async def test_the_api_plans_approves_lists_and_cancels(desk: Desk) -> None:
    """All a duty room does with a drill, in the names of two people."""
    body = {"areas": [JIALOU], "starts_at": DAY.isoformat(), "notice": "请勿惊慌"}
    response, made = await desk.call("POST", "/v1/drills", ISSUER, body)
    assert (response.status, made["stage"], made["groups"]) == (201, "planned", ["loudspeakers", "officials"])
    response, wrong = await desk.call("POST", f"/v1/drills/{made['id']}/approve", ISSUER, {})
    assert response.status == 403, wrong
    _, done = await desk.call("POST", f"/v1/drills/{made['id']}/approve", SIGNER)
    assert (done["stage"], done["approver"]) == ("approved", "411726-qxj/泌阳带班领导")
    _, listed = await desk.call("GET", "/v1/drills", CITY)
    assert [one["id"] for one in listed["drills"]] == [made["id"]]
    assert (await desk.call("GET", "/v1/drills", NEIGHBOUR))[1]["drills"] == []
    _, gone = await desk.call("POST", f"/v1/drills/{made['id']}/cancel", ISSUER, {"reason": "汛情紧张"})
    assert (gone["stage"], gone["reason"]) == ("cancelled", "汛情紧张")
    for bad, status in (({"areas": ["41"]}, 400), ({"hazard": "11Z99"}, 422), ({"groups": ["residents"]}, 400)):
        response, said = await desk.call("POST", "/v1/drills", ISSUER, body | bad)
        assert response.status == status, said


async def test_the_command_line_does_it_all(desk: Desk, run: Run) -> None:
    """Each command in words, as JSON, and the ledger as a spreadsheet of a Chinese office opens it."""
    url = str(desk.client.make_url("")).rstrip("/")

    async def ask(token: str, *words: str) -> str:
        result = await asyncio.to_thread(run, "drill", *words, MINGLUO_URL=url, MINGLUO_TOKEN=token)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    made = json.loads(await ask(ISSUER, "plan", JIALOU, "--at", DAY.isoformat(), "--json"))
    assert "approved" in await ask(SIGNER, "approve", made["id"])
    assert made["id"] in await ask(ISSUER, "list")
    assert "11B03" in json.dumps(json.loads(await ask(ISSUER, "show", made["id"], "--json")))
    assert "cancelled" in await ask(ISSUER, "cancel", made["id"], "--reason", "汛情紧张")
    drill = await held(desk)
    await told(desk, drill)
    assert "合计" in await ask(ISSUER, "report", drill.id)
    table = await ask(ISSUER, "report", drill.id, "--csv")
    assert table.startswith("\ufeff区划代码,地点,下发")
    rows = list(csv.reader(table.lstrip("\ufeff").splitlines()))
    assert rows[-1][1:10] == ["合计", "3", "2", "2", "1", "1", "implausible×1", "1", "2"]


def test_a_place_named_like_a_formula_stays_a_name() -> None:
    """What is opened in a spreadsheet runs nothing."""
    line = {"code": "411726", "name": "=cmd()", "codes": {"-x": 1}}
    (row,) = list(csv.reader(_csv({"total": line}).splitlines()))[1:]
    assert (row[1], row[7]) == ("'=cmd()", "'-x×1")
    assert row[2:4] == ["", ""], "an empty cell stays empty"


def test_doctor_names_the_counties_that_do_not_drill() -> None:
    """A county that never tried its loudspeakers tries them in the flood."""
    now = datetime(2026, 7, 20, tzinfo=CHINA)
    facts = doctor.Facts({}, drilled={"411726": None, "411728": now - timedelta(days=200), "411727": now})
    (said,) = doctor.drills(POLICY, facts, REGIONS, now)
    assert said.severity == "warning"
    assert "泌阳县" in said.text
    assert "遂平县" in said.text
    assert "汝南县" not in said.text
