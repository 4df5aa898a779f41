"""A planned drill (演练): what may be planned, when it is held again, and the messages it becomes. Pure.

Called by `training`, which keeps drills and carries them out. A drill is an alert like any other, of status Exercise
from the county's own authorised sender; what a person plans says only where, when, for whom and what is simulated.

**Source:** duty-room rule D19; RFC 5545 §3.3.10 for the rule of repetition: its FREQ, INTERVAL and UNTIL.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum

from gateway.errors import Refused
from gateway.model import DRILL_GROUPS, Alert, Area, Code, Document, Group, Info, Kind, Level, Reference, Status
from gateway.policy import Issuer
from gateway.policy.hazard import CHINA
from gateway.policy.table import Drill as Rules

SOON = timedelta(days=366)
LATE = timedelta(minutes=15)
"""After a standstill a drill begins no later than this: people were told an hour, and go home."""
TOLD_LATE = timedelta(hours=1)
"""And is announced no later than this; else too few would know of it."""
CALLED_OFF = timedelta(hours=1)
"""So long it is tried to tell people that a drill is off, and at least until it would have ended."""
_RULE = re.compile(r"FREQ=(WEEKLY|MONTHLY)(?:;INTERVAL=([1-9]\d?))?;UNTIL=(\d{8})")


class DrillKind(StrEnum):
    """What a drill tries out."""

    BROADCAST = "broadcast"  # 广播演练: loudspeakers and officials hear a simulated warning
    CALL_UP = "call_up"  # 叫应演练: officials alone, who answer
    SELF_TEST = "self_test"  # 静默自检: loudspeakers test themselves, silently
    SELF_TEST_AUDIBLE = "self_test_audible"  # 有声自检: and sound their drill tone


TESTS = frozenset({DrillKind.SELF_TEST, DrillKind.SELF_TEST_AUDIBLE})
GROUPS = {
    DrillKind.BROADCAST: frozenset({Group.OFFICIALS, Group.LOUDSPEAKERS}),
    DrillKind.CALL_UP: frozenset({Group.OFFICIALS}),
    DrillKind.SELF_TEST: frozenset({Group.LOUDSPEAKERS}),
    DrillKind.SELF_TEST_AUDIBLE: frozenset({Group.LOUDSPEAKERS}),
}
UNHEARD = frozenset({DrillKind.SELF_TEST})
"""Nobody hears it, so nobody is told beforehand."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """What a person plans. `areas` are codes of counties, townships or villages; `rule` is "" for a single drill."""

    kind: DrillKind
    areas: tuple[str, ...]
    groups: tuple[Group, ...]
    starts_at: datetime
    ends_at: datetime
    event_code: str
    event: str
    level: Level
    document: Document = Document.WARNING
    notice: str = ""
    rule: str = ""


def check(plan: Exercise, rules: Rules, now: datetime) -> None:
    """Refuse what may not be planned, whoever plans it and whatever is in force.

    Raises:
        Refused: 422.
    """
    lead = timedelta() if plan.kind in UNHEARD else timedelta(hours=rules.notice_h)
    if plan.starts_at < now + lead:
        raise Refused(422, "too_soon", f"people are told {rules.notice_h} hours before; plan it later")
    if plan.starts_at > now + SOON:
        raise Refused(422, "too_late", "plan drills for the next year only")
    if not timedelta() < plan.ends_at - plan.starts_at <= timedelta(minutes=rules.longest_min):
        raise Refused(422, "wrong_length", f"a drill lasts up to {rules.longest_min} minutes")
    first, last = (at.astimezone(CHINA) for at in (plan.starts_at, plan.ends_at))
    if not (rules.start <= first.time() and last.time() <= rules.until and first.date() == last.date()):
        raise Refused(422, "drill_hours", f"drills are held from {rules.start:%H:%M} to {rules.until:%H:%M} only")
    if not plan.areas:
        raise Refused(422, "no_area", "name a county, townships or villages by their codes")
    if outside := set(plan.groups) - GROUPS[plan.kind] or not plan.groups:
        asked = ", ".join(sorted(GROUPS[plan.kind]))
        raise Refused(422, "wrong_group", f"{plan.kind} is for {asked}; leave the others out ({outside})")
    if plan.document is Document.SERVICE:
        raise Refused(422, "wrong_document", "a service message is no drill; it announces one")
    if plan.rule:
        parse_rule(plan.rule, plan.starts_at)


def parse_rule(rule: str, starts_at: datetime) -> tuple[str, int, date]:
    """Return frequency, interval and last day of a rule.

    Raises:
        Refused: 422.
    """
    found = _RULE.fullmatch(rule)
    local = starts_at.astimezone(CHINA)
    if not found:
        raise Refused(422, "wrong_rule", "write FREQ=WEEKLY or FREQ=MONTHLY;INTERVAL=n;UNTIL=yyyymmdd (RFC 5545)")
    try:
        until = date.fromisoformat(found[3])
    except ValueError:
        raise Refused(422, "wrong_rule", f"UNTIL: there is no day {found[3]}") from None
    if until > local.date() + SOON:
        raise Refused(422, "wrong_rule", "UNTIL: a year ahead at most; somebody looks at it again then")
    if found[1] == "MONTHLY" and local.day > 28:
        raise Refused(422, "wrong_rule", "not every month has this day; choose one up to the 28th")
    return found[1], int(found[2] or 1), until


def again(rule: str, starts_at: datetime, now: datetime) -> datetime | None:
    """Return when a repeated drill is held next, at the same hour in China, after `now`; None: never."""
    if not rule:
        return None
    frequency, interval, until = parse_rule(rule, starts_at)
    at = starts_at.astimezone(CHINA)
    while True:
        if frequency == "WEEKLY":
            at += timedelta(weeks=interval)
        else:
            months = at.year * 12 + at.month - 1 + interval
            at = at.replace(year=months // 12, month=months % 12 + 1)
        if at.date() > until:
            return None
        if at > now:
            return at.astimezone(starts_at.tzinfo)


def exercise(id_: str, plan: Exercise, issuer: Issuer, names: Sequence[str]) -> Alert:
    """Return the drill as the message it is. The same plan is the same message, however often it is handed in."""
    info = Info(
        plan.event, "zh-CN", sender_name=issuer.name, severity="Unknown", urgency="Immediate", certainty="Unlikely",
        description="演练：检验预警发布、大喇叭播出和责任人叫应",
        parameters=(Code(DRILL_GROUPS, " ".join(sorted(plan.groups))),), areas=_areas(plan, names),
    )  # fmt: skip
    return Alert(
        issuer.sender, f"drill-{id_}", plan.starts_at, Status.EXERCISE, Kind.ALERT, plan.document, plan.event_code,
        plan.event, plan.level, (info,), note=f"drill {id_}", effective=plan.starts_at, expires=plan.ends_at,
    )  # fmt: skip


def announcement(id_: str, plan: Exercise, issuer: Issuer, names: Sequence[str], sent: datetime) -> Alert:
    """Return what people are told beforehand: an exercise's service message, which names no hazard and no colour."""
    info = Info(
        plan.event, "zh-CN", sender_name=issuer.name, onset=plan.starts_at, severity="Minor", urgency="Future",
        certainty="Observed", headline="预警演练预告", description=plan.notice or None, areas=_areas(plan, names),
    )  # fmt: skip
    return Alert(
        issuer.sender, f"drill-{id_}-notice", sent, Status.EXERCISE, Kind.ALERT, Document.SERVICE, plan.event_code,
        plan.event, Level.UNKNOWN, (info,), note=f"announces drill {id_}", effective=sent, expires=plan.ends_at,
    )  # fmt: skip


def off_name(id_: str) -> str:
    """Return the identifier of the message that calls a drill off."""
    return f"drill-{id_}-off"


def call_off(id_: str, plan: Exercise, issuer: Issuer, names: Sequence[str], told: Alert, sent: datetime) -> Alert:
    """Return what ends an announcement whose drill is not held: those who were told of it hear that it is off."""
    message = announcement(id_, plan, issuer, names, sent)
    return replace(
        message, identifier=off_name(id_), kind=Kind.CANCEL, note=f"calls off drill {id_}",
        references=(Reference(told.sender, told.identifier, told.sent),), expires=max(plan.ends_at, sent + CALLED_OFF),
    )  # fmt: skip


def _areas(plan: Exercise, names: Sequence[str]) -> tuple[Area, ...]:
    return (Area("、".join(names), geocodes=tuple(Code("code", area) for area in plan.areas)),)
