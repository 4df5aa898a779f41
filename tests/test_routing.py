"""Routing: officials first, nobody outside the area, no drill that looks real, nothing held in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import (
    AREA_APPROVAL,
    Alert,
    Code,
    Document,
    Group,
    Info,
    Kind,
    Lane,
    Level,
    Notice,
    Plan,
    Status,
    Step,
    Target,
)
from gateway.policy import Policy, Route
from gateway.policy.tables import Tables
from gateway.routing import ORDER, complete, plan

SAMPLE = Path(__file__).parent.parent / "config" / "policy"
POLICY = Policy.load(SAMPLE)
NOON = datetime(2026, 7, 20, 4, 0, tzinfo=UTC)  # 12:00 in China
NIGHT = datetime(2026, 7, 20, 15, 0, tzinfo=UTC)  # 23:00 in China
LIVE = frozenset({"sms_twilio", "loudspeaker", "web_push"})
GREEN, NORMAL = Route("green"), Route("normal")
A, B, C = (Target(f"41172610{n}") for n in (1, 2, 3))


def difference(new: Sequence[Target], old: Sequence[Target]) -> tuple[Target, ...]:
    """Whole townships only: what the tests need of `Regions.difference`."""
    covered = {target.township for target in new}
    return tuple(target for target in old if target.township not in covered)


def warning(**changes: Any) -> Alert:
    alert = Alert(
        sender="411726-qxj@mingluo.example",
        identifier="41172641600000_20260720120000",
        sent=NOON,
        status=Status.ACTUAL,
        kind=Kind.ALERT,
        document=Document.WARNING,
        event_code="11B03",
        event="暴雨",
        level=Level.RED,
    )
    return replace(alert, **changes)


def made(
    alert: Alert,
    route: Route = NORMAL,
    targets: tuple[Target, ...] = (A,),
    previous: tuple[Target, ...] = (),
    now: datetime = NOON,
    enabled: frozenset[str] = LIVE,
    policy: Policy = POLICY,
) -> Plan:
    return plan(alert, route, targets, previous, policy, now, enabled, difference)


def of(plan_: Plan, group: Group) -> list[Step]:
    return [step for step in plan_.steps if step.audience.group is group]


def told(plan_: Plan, group: Group = Group.OFFICIALS) -> dict[Notice, set[str]]:
    return {step.notice: {t.township for t in step.audience.targets} for step in of(plan_, group)}


def with_file(**changes: Any) -> Policy:
    """The sample policy with another file; a copy would keep what was derived from the old one."""
    return Policy(Tables(**{name: getattr(POLICY.tables, name) for name in Tables.model_fields} | changes))


def with_rows(**changes: Any) -> Policy:
    """The sample policy with its first plan row (officials) changed."""
    first, *rest = POLICY.tables.plan.row
    file = POLICY.tables.plan.model_copy(update={"row": (first.model_copy(update=changes), *rest)})
    return with_file(plan=file)


def test_a_red_warning_goes_to_officials_then_loudspeakers_then_everybody() -> None:
    """Those who carry the gong must hear it first; the loudspeaker never waits for a mass SMS."""
    made_plan = made(warning(), GREEN)
    assert [(s.audience.group, s.audience.channel, s.audience.language, s.lane) for s in made_plan.steps] == [
        (Group.OFFICIALS, "sms_twilio", "zh", Lane.GREEN),
        (Group.LOUDSPEAKERS, "loudspeaker", "zh", Lane.GREEN),
        (Group.SUBSCRIBERS, "web_push", "zh", Lane.URGENT),
        (Group.SUBSCRIBERS, "web_push", "en", Lane.URGENT),
        (Group.RESIDENTS, "sms_twilio", "zh", Lane.URGENT),
    ]
    assert all(s.start == NOON and s.deadline == NOON + timedelta(hours=6) for s in made_plan.steps)
    assert made_plan.route == "green"
    assert made_plan.held == ()


def test_loudspeakers_alone_say_red_again_and_only_while_it_holds() -> None:
    """D13: nobody gets an SMS every ten minutes, and an all-clear is said once."""
    issue = {step.audience.group: step.every_s for step in made(warning(), GREEN).steps}
    assert issue.pop(Group.LOUDSPEAKERS) == 600
    assert set(issue.values()) == {0}
    assert {step.every_s for step in made(warning(kind=Kind.CANCEL), previous=(A,)).steps} == {0}
    update = made(warning(kind=Kind.UPDATE), targets=(A,), previous=(A, B))
    assert {step.notice: step.every_s for step in of(update, Group.LOUDSPEAKERS)} == {
        Notice.UPDATE: 600, Notice.PARTIAL_ALL_CLEAR: 0,
    }  # fmt: skip


def test_yellow_residents_use_the_bulk_lane() -> None:
    """A hundred thousand yellow texts must not stand before one red one (rule 5)."""
    lanes = {step.audience.group: step.lane for step in made(warning(level=Level.YELLOW)).steps}
    assert lanes[Group.OFFICIALS] is Lane.GREEN
    assert lanes[Group.RESIDENTS] is Lane.BULK


def test_service_messages_stay_in_their_own_lane() -> None:
    """Education must never outrank a warning."""
    service = made(warning(document=Document.SERVICE, level=Level.UNKNOWN))
    assert {step.lane for step in service.steps} == {Lane.SERVICE}
    assert of(service, Group.LOUDSPEAKERS) == of(service, Group.RESIDENTS) == []


def test_an_update_tells_each_village_what_changed_for_it() -> None:
    """Entering: first issue. Remaining: update. Leaving: an all-clear naming their own place (D7)."""
    update = made(warning(kind=Kind.UPDATE), targets=(A, B), previous=(B, C))
    expected = {Notice.ISSUE: {A.township}, Notice.UPDATE: {B.township}, Notice.PARTIAL_ALL_CLEAR: {C.township}}
    assert told(update) == told(update, Group.RESIDENTS) == expected
    assert update.leaving == (C,)


def test_a_downgrade_says_so_to_those_who_stay() -> None:
    """A lower level is told as one; a village new to the area still gets a first issue."""
    update = made(warning(kind=Kind.UPDATE), replace(NORMAL, downgrade=True), targets=(A, B), previous=(B,))
    assert told(update) == {Notice.ISSUE: {A.township}, Notice.DOWNGRADE: {B.township}}


def test_an_update_before_its_alert_is_a_first_issue() -> None:
    """Feeds deliver out of order; to the village it is news all the same."""
    assert told(made(warning(kind=Kind.UPDATE), targets=(A,))) == {Notice.ISSUE: {A.township}}


def test_an_all_clear_goes_to_the_targets_of_the_original() -> None:
    """Whoever was warned is told of the end, even if the cancel names fewer places."""
    assert told(made(warning(kind=Kind.CANCEL), targets=(A,), previous=(A, B))) == {
        Notice.ALL_CLEAR: {A.township, B.township}
    }


def test_a_cancel_of_nothing_reaches_nobody_and_is_held() -> None:
    """An all-clear for a warning nobody heard only confuses; a person must look at it."""
    cancel = made(warning(kind=Kind.CANCEL), targets=(A,))
    assert cancel.steps == ()
    assert cancel.held[0].startswith("cancel:")


@pytest.mark.parametrize("previous", [(A,), ()])
def test_a_correction_reaches_those_who_were_misled(previous: tuple[Target, ...]) -> None:
    """Also when the mistake was already stopped and no live version is left."""
    correction = made(warning(kind=Kind.CORRECTION), targets=(A,), previous=previous)
    assert told(correction) == told(correction, Group.RESIDENTS) == {Notice.CORRECTION: {A.township}}


def test_residents_of_a_coarse_match_wait_for_a_person() -> None:
    """A county-only warning must not text every household, and the wait must be said (D2)."""
    coarse = Target(B.township, coarse=True)
    made_plan = made(warning(), targets=(A, coarse))
    assert told(made_plan)[Notice.ISSUE] == {A.township, B.township}
    assert told(made_plan, Group.RESIDENTS)[Notice.ISSUE] == {A.township}
    assert made_plan.held == (f"coarse_area: residents of {B.township} wait for a person",)


def test_a_policy_may_let_coarse_matches_go() -> None:
    """The county decides which mistake it prefers."""
    defaults = POLICY.tables.defaults.model_copy(update={"coarse_area": "send"})
    policy = with_file(defaults=defaults)
    made_plan = made(warning(), targets=(Target(B.township, coarse=True),), policy=policy)
    assert of(made_plan, Group.RESIDENTS)
    assert made_plan.held == ()


def test_above_the_ceiling_officials_inside_are_served_and_the_rest_follows_the_countersign() -> None:
    """Nobody waits who need not, and nobody is told twice when the countersign comes (D5)."""
    route = replace(GREEN, over_ceiling=(B,), held=("over_ceiling: ...",))
    first = made(warning(), route, targets=(A, B))
    assert {step.audience.group for step in first.steps} == {Group.OFFICIALS, Group.LOUDSPEAKERS}
    assert {target for step in first.steps for target in step.audience.targets} == {A}
    assert first.held == ("over_ceiling: ...",)
    whole = made(warning(), NORMAL, targets=(A, B))
    joined = complete(first, whole, difference)
    assert joined.steps[: len(first.steps)] == first.steps
    assert [step.number for step in joined.steps] == list(range(1, len(joined.steps) + 1))
    served = [(s.audience.group, s.audience.language, t) for s in joined.steps for t in s.audience.targets]
    wanted = [(s.audience.group, s.audience.language, t) for s in whole.steps for t in s.audience.targets]
    assert len(served) == len(wanted)
    assert set(served) == set(wanted)
    assert joined.held == ()


def test_quiet_hours_defer_the_start_but_not_the_officials() -> None:
    """Yellow at 23:00: officials now, residents at 06:30 China time."""
    yellow = made(warning(level=Level.YELLOW, sent=NIGHT), now=NIGHT)
    morning = datetime(2026, 7, 20, 22, 30, tzinfo=UTC)
    starts = {step.audience.group: step.start for step in yellow.steps}
    assert starts[Group.OFFICIALS] == NIGHT
    assert starts[Group.RESIDENTS] == starts[Group.LOUDSPEAKERS] == morning
    assert {step.start for step in made(warning(sent=NIGHT), now=NIGHT).steps} == {NIGHT}


def test_what_would_expire_before_the_morning_is_named_not_dropped_in_silence() -> None:
    """A yellow that ends at 05:00 never reaches the residents; the preview must show it."""
    yellow = made(warning(level=Level.YELLOW, expires=NIGHT + timedelta(hours=6)), now=NIGHT)
    assert of(yellow, Group.RESIDENTS) == []
    assert any("residents by sms_twilio would wait for the morning" in text for text in yellow.held)


def test_an_expired_alert_reaches_nobody() -> None:
    """Nothing goes out after expiry (rule 4)."""
    late = made(warning(expires=NOON), now=NOON)
    assert late.steps == ()
    assert "expires: issue to officials by sms_twilio has expired" in late.held


def test_a_channel_that_is_not_enabled_is_not_planned_and_the_gap_is_said() -> None:
    """A plan must not promise loudspeakers a county does not have."""
    made_plan = made(warning(), enabled=frozenset({"noop"}))
    assert {step.audience.channel for step in made_plan.steps} == {"noop"}
    assert "channel: none of the channels for loudspeakers is enabled" in made_plan.reasons


def test_a_fallback_stands_right_behind_the_last_channel_and_within_the_deadline() -> None:
    """Each person is given to the fallback once, whatever the number of channels before it."""
    two = ("sms_twilio", "noop")
    policy = with_rows(channels=two, fallback="web_push", fallback_after_s=120, deadline_min=10)
    steps = of(made(warning(), policy=policy, enabled=LIVE | {"noop"}), Group.OFFICIALS)[:3]  # noop has a row, too
    assert [(s.number, s.audience.channel, s.fallback_of) for s in steps] == [
        (1, "sms_twilio", None),
        (2, "noop", None),
        (3, "web_push", 2),
    ]
    assert steps[2].start == NOON + timedelta(minutes=2)
    assert {s.deadline for s in steps} == {NOON + timedelta(minutes=10)}
    late = with_rows(fallback="web_push", fallback_after_s=600, deadline_min=10)
    assert all(step.fallback_of is None for step in made(warning(), policy=late).steps)


def test_a_fallback_takes_the_place_of_a_channel_that_does_not_run() -> None:
    """Then it is the road itself, and nobody waits for it."""
    steps = of(made(warning(), policy=with_rows(fallback="web_push"), enabled=frozenset({"web_push"})), Group.OFFICIALS)
    assert [(s.audience.channel, s.fallback_of, s.start) for s in steps] == [("web_push", None, NOON)]


def test_a_pool_stands_in_for_itself_before_its_fallback_does() -> None:
    """A number that moved goes to the next carrier at once; the road abroad waits until none is left."""
    steps = of(made(warning(), GREEN, enabled=LIVE | {"sms"}), Group.OFFICIALS)
    assert [(s.number, s.audience.channel, s.fallback_of, s.start - NOON) for s in steps] == [
        (1, "sms", None, timedelta(0)),
        (2, "sms", 1, timedelta(0)),
        (3, "sms_twilio", 1, timedelta(minutes=5)),
    ]
    assert {step.lane for step in steps} == {Lane.GREEN}


def test_what_a_countersign_adds_to_a_pool_stands_in_for_its_own_part() -> None:
    """The rest of a county is served by the same roads, and looked after as the first part is."""
    first = made(warning(), Route("green", over_ceiling=(B,)), targets=(A, B), enabled=frozenset({"sms"}))
    whole = made(warning(), Route("normal"), targets=(A, B), enabled=frozenset({"sms"}))
    both = complete(first, whole, lambda new, old: tuple(one for one in old if one not in new))
    added = [step for step in both.steps[len(first.steps) :] if step.audience.group is Group.OFFICIALS]
    assert [(step.audience.targets, step.fallback_of) for step in added] == [((B,), None), ((B,), added[0].number)]


def test_a_fallback_that_runs_only_since_the_first_part_left_tells_nobody_of_it_again() -> None:
    """The countersign comes after a channel was switched on: it stands in for what is new, and is no second warning."""
    first = made(warning(), GREEN, enabled=frozenset({"sms"}))
    whole = made(warning(), NORMAL, enabled=frozenset({"sms", "sms_twilio"}))
    assert any(step.audience.channel == "sms_twilio" for step in whole.steps)
    assert complete(first, whole, difference).steps == first.steps


def test_a_draft_reaches_nobody() -> None:
    """A draft is paper."""
    assert made(warning(status=Status.DRAFT), Route("drill", held=("draft: ...",))).steps == ()


def test_a_drill_stays_inside_the_drill_audience() -> None:
    """Officials and loudspeakers of enrolled areas only, behind all real work."""
    outside = Target("410100001")
    drill = made(warning(status=Status.EXERCISE), Route("drill"), targets=(A, outside))
    assert {step.audience.group for step in drill.steps} == {Group.OFFICIALS, Group.LOUDSPEAKERS}
    assert {step.lane for step in drill.steps} == {Lane.BULK}
    assert {target for step in drill.steps for target in step.audience.targets} == {A}


TARGETS = st.lists(
    st.builds(
        Target,
        township=st.sampled_from([f"4117{n}101" for n in (26, 27, 28, 29)]),
        certain=st.booleans(),
        coarse=st.booleans(),
    ),
    max_size=4,
    unique_by=lambda target: target.township,
).map(tuple)


@given(
    status=st.sampled_from(Status),
    kind=st.sampled_from(Kind),
    document=st.sampled_from(Document),
    level=st.sampled_from(Level),
    targets=TARGETS,
    previous=TARGETS,
    over=TARGETS,
    route=st.sampled_from(["green", "normal", "drill"]),
    downgrade=st.booleans(),
    hour=st.integers(0, 23),
    enabled=st.frozensets(st.sampled_from(["sms", "sms_twilio", "loudspeaker", "web_push", "noop"])),
)
def test_no_plan_ever_leaves_its_bounds(
    status: Status,
    kind: Kind,
    document: Document,
    level: Level,
    targets: tuple[Target, ...],
    previous: tuple[Target, ...],
    over: tuple[Target, ...],
    route: str,
    downgrade: bool,
    hour: int,
    enabled: frozenset[str],
) -> None:
    """Whatever comes in: never outside the area, never a real-looking drill, never residents before officials."""
    now = NOON + timedelta(hours=hour)
    alert = warning(status=status, kind=kind, document=document, level=level, sent=now)
    made_plan = made(alert, Route(route, over_ceiling=over, downgrade=downgrade), targets, previous, now, enabled)
    steps = made_plan.steps
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert {t for step in steps for t in step.audience.targets} <= {*targets, *previous}
    assert {step.audience.channel for step in steps} <= enabled
    assert all(step.audience.targets and now <= step.start < step.deadline for step in steps)
    groups = [ORDER.index(step.audience.group) for step in steps]
    assert groups == sorted(groups)
    officials = [step.start for step in steps if step.audience.group is Group.OFFICIALS and step.fallback_of is None]
    assert all(step.start >= start for step in steps for start in officials)
    green = [step for step in steps if step.lane is Lane.GREEN]
    assert all(step.audience.group in (Group.OFFICIALS, Group.LOUDSPEAKERS) for step in green)
    assert status is Status.ACTUAL or not green
    assert status is Status.ACTUAL or {step.lane for step in steps} <= {Lane.BULK, Lane.SERVICE}
    assert all((step.lane is Lane.SERVICE) == (document is Document.SERVICE) for step in steps)
    assert all(step.audience.language == "zh" or step.audience.group is Group.SUBSCRIBERS for step in steps)
    served = [
        (s.audience.group, s.audience.channel, s.audience.language, t.township)
        for s in steps
        for t in s.audience.targets
        if s.fallback_of is None  # what stands in tells only whom the first one missed
    ]
    assert len(served) == len(set(served)), "one message per person, channel and version (rule 6)"


def area_policy(**changes: Any) -> Policy:
    """The sample policy with its area rows changed."""
    rows = tuple(row.model_copy(update=changes) if row.group is Group.AREA else row for row in POLICY.tables.plan.row)
    return with_file(plan=POLICY.tables.plan.model_copy(update={"row": rows}))


WITH_AREA = LIVE | {"sms_area"}
APPROVED = (Info("暴雨", parameters=(Code(AREA_APPROVAL, "2026-1"),)),)


def test_an_area_is_asked_for_under_the_emergency_regime_alone() -> None:
    """Everybody in a place, by one request: as shipped it takes the regime, red or an evacuation, and its number."""
    alert = warning(infos=APPROVED)
    assert of(made(alert, enabled=WITH_AREA), Group.AREA) == []
    (step,) = of(made(alert, Route("emergency"), enabled=WITH_AREA), Group.AREA)
    assert (step.audience.channel, step.lane) == ("sms_area", Lane.URGENT)
    orange = replace(alert, level=Level.ORANGE)
    assert of(made(orange, Route("emergency"), enabled=WITH_AREA), Group.AREA) == []
    assert of(made(alert, Route("emergency")), Group.AREA) == []  # the channel is not on, or no grant lists it


def test_an_area_request_without_its_number_is_held_loudly_and_alone() -> None:
    """The carrier would refuse it in silence; the officials do not wait for it."""
    held = made(warning(), Route("emergency"), enabled=WITH_AREA)
    assert of(held, Group.AREA) == []
    assert of(held, Group.OFFICIALS)
    assert any(text.startswith("approval: issue to the area") for text in held.held)
    free = made(warning(), Route("emergency"), enabled=WITH_AREA, policy=area_policy(approval=False))
    assert len(of(free, Group.AREA)) == 1


def test_an_area_request_never_reaches_beyond_what_is_certain() -> None:
    """Neighbours, townships only touched, and a county named as a whole are told by name, and never as a place."""
    beside, coarse = replace(B, how="neighbour", certain=False), replace(C, how="county", coarse=True)
    for route in (Route("emergency"), Route("emergency", decided=True)):
        (step,) = of(made(warning(infos=APPROVED), route, (A, beside, coarse), enabled=WITH_AREA), Group.AREA)
        assert step.audience.targets == (A,)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.ACTUAL])
def test_no_drill_is_ever_asked_for(status: Status) -> None:
    """Those in a place know of no drill, whatever the policy's drill channels say."""
    drill = POLICY.drill.model_copy(update={"channels": (*POLICY.drill.channels, "sms_area"), "areas": ("4117",)})
    policy = with_file(defaults=POLICY.tables.defaults.model_copy(update={"drill": drill}))
    for route in (Route("drill"), Route("emergency")):
        assert (
            of(made(warning(status=status, infos=APPROVED), route, enabled=WITH_AREA, policy=policy), Group.AREA) == []
        )


def test_what_the_regime_asked_for_is_ended_without_it() -> None:
    """The all-clear needs neither the regime nor a new number; the planner sends it where the warning went."""
    (step,) = of(made(warning(kind=Kind.CANCEL), targets=(), previous=(A,), enabled=WITH_AREA), Group.AREA)
    assert step.notice is Notice.ALL_CLEAR


@pytest.mark.parametrize("kind", [Kind.CANCEL, Kind.CORRECTION])
def test_an_end_misses_no_area_request_where_none_could_be_made(kind: Kind) -> None:
    """A warning about a channel that was never wanted teaches the duty room to read over the one that counts."""
    missing = "channel: none of the channels for area is enabled"
    assert missing not in made(warning(kind=kind), targets=(), previous=(A,)).reasons
    assert missing in made(warning(infos=APPROVED), Route("emergency")).reasons
