"""What else is in force, or waits, for the same places, and what that means for a new message. Pure but for one query.

Several signals may be in force at once: another hazard for the same people is only mentioned. The same hazard told
twice by one bureau, a lower level after a higher one, a drill under a real warning, or a return notice while there is
danger are what an officer must see before it leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from gateway.case import Prepared
from gateway.core import Core
from gateway.model import Alert, Document, Kind, Level, Target
from gateway.policy import Issuer
from gateway.ports import AlertRow
from gateway.preview.shape import Conflict, Finding, Place
from gateway.standing import Standing
from gateway.store.meeting import meets

LOOKED_AT = 200  # newest alerts in force; a bad night has thirty
NAMED = 3
ENDS = frozenset({Kind.CANCEL, Kind.CORRECTION})
ABOUT_A_HAZARD = frozenset({Document.WARNING, Document.JOINT_RISK, Document.NOWCAST})
DANGER = frozenset({Document.WARNING, Document.JOINT_RISK, Document.EVACUATION})
MOVES_PEOPLE = frozenset({Document.EVACUATION, Document.RETURN})
GRAVITY = {"error": 0, "warning": 1, "info": 2}


async def conflicts(core: Core, prepared: Prepared, now: datetime) -> tuple[list[Conflict], list[Finding]]:
    """Return what stands beside this message, gravest first, and whether there was more than was looked at."""
    rows = await core.store.outbox.in_force(now, LOOKED_AT + 1)
    found = [one for row in rows[:LOOKED_AT] for one in _with(core, prepared, row)]
    more = Finding(
        code="many_in_force", severity="warning",
        message=f"more than {LOOKED_AT} alerts are in force; only the newest {LOOKED_AT} were compared",
    )  # fmt: skip
    return sorted(found, key=lambda one: GRAVITY[one.severity]), [more] if len(rows) > LOOKED_AT else []


def _with(core: Core, prepared: Prepared, row: AlertRow) -> Iterator[Conflict]:
    alert, other, plan = prepared.alert, row.alert, prepared.plan
    issuer = core.policy.issuer(other.sender)
    referenced = {one.alert.id for one in (*prepared.references.told, *prepared.references.live)}
    active = row.standing == Standing.ACTIVE
    if (other.sender, other.identifier) == (alert.sender, alert.identifier):
        shared: tuple[str, ...] = ()
        text = "this identifier is in force already: the same again does nothing, another content needs a new one"
        verdict = ("known", "info", text)
    else:
        if other.id in referenced or other.kind in ENDS:
            return
        shared = overlap((*plan.targets, *plan.leaving), row.plan.targets)
        judged = judge(alert, other, own=issuer == prepared.issuer, active=active) if shared else None
        drilled = alert.actual and not other.actual and meets(alert, plan.targets, (row,))
        if judged and (drilled or other.id in prepared.stops):
            judged = (judged[0], "info", "this message stops it")
        if judged is None:
            return
        verdict = judged
    code, severity, advice = verdict
    yield Conflict(
        code=code,
        severity=severity,
        message=f"{_named(core, row, issuer, shared)}: {advice}",
        alert=other.id,
        issuer=issuer.name if issuer else other.sender,
        event=other.event,
        level=other.level.name.lower(),
        document=other.document,
        standing=row.standing,
        expires=other.expires,
        townships=[Place(code=code, name=core.regions.path_name(code)) for code in shared],
    )


def judge(alert: Alert, other: Alert, *, own: bool, active: bool) -> tuple[str, str, str] | None:
    """Return (code, severity, what to do) for an alert that touches the same places and is not referenced."""
    if alert.actual != other.actual:
        return _drill(alert, other, active=active)
    same = _same_subject(alert, other)
    if alert.kind in ENDS:
        return ("still_in_force", "info", "this message does not end it; it stays in force") if same and own else None
    if alert.document is Document.RETURN and other.document in DANGER and _grave(other):
        return "return_under_warning", "warning", "people would be told to go home under it; end or lower it first"
    if not same:
        return "also_in_force", "info", "another hazard for the same people; both stay in force"
    if not own:
        return "other_issuer", "warning", "the same hazard by another body; agree with it who speaks"
    if alert.level < other.level:
        return "lower_level", "warning", "a lower level after a higher one; issue an Update that references it instead"
    return "same_issuer", "warning", "issue an Update that references it instead, or people hear two warnings"


def _drill(alert: Alert, other: Alert, *, active: bool) -> tuple[str, str, str] | None:
    if not alert.actual and active and _grave(other):
        return "drill_under_warning", "error", "a real warning covers the place; put the drill off"
    if alert.actual and alert.kind not in ENDS:
        return "warning_over_drill", "warning", "a drill of the same place; recall it, so that nobody mixes them up"
    return None


def _grave(alert: Alert) -> bool:
    return alert.level >= Level.ORANGE or alert.document is Document.EVACUATION


def _same_subject(alert: Alert, other: Alert) -> bool:
    """Whether both speak of one thing: the same hazard, or both move the same people."""
    if alert.document in MOVES_PEOPLE:
        return alert.document is other.document
    family = {alert.document, other.document}
    if len(family) > 1 and not ABOUT_A_HAZARD.issuperset(family):
        return False
    code = alert.event_code or other.event_code
    return alert.event_code == other.event_code if code else alert.event == other.event


def overlap(mine: Sequence[Target], theirs: Sequence[Target]) -> tuple[str, ...]:
    """Return the townships both reach, in code order; targets narrowed to villages meet only in those."""
    met = set()
    for one in mine:
        for other in theirs:
            if one.township == other.township and (
                not one.villages or not other.villages or not set(one.villages).isdisjoint(other.villages)
            ):
                met.add(one.township)
    return tuple(sorted(met))


def _named(core: Core, row: AlertRow, issuer: Issuer | None, shared: Sequence[str]) -> str:
    """Say which alert it is, so that nobody has to look it up."""
    alert = row.alert
    level = f" {alert.level.name.lower()}" if alert.level else ""
    drill = "" if alert.actual else f"{alert.status.value.lower()} "
    waits = "in force" if row.standing == Standing.ACTIVE else f"not sent yet ({row.standing})"
    places = "、".join(core.regions.name(code) for code in shared[:NAMED])
    more = f" and {len(shared) - NAMED} townships more" if len(shared) > NAMED else ""
    where = f" in {places}{more}" if shared else ""
    name = issuer.name if issuer else alert.sender
    return f"{drill}{alert.event}{level} ({alert.document}) of {name}, {alert.id}, {waits}{where}"
