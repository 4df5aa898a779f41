"""Put a preview together: prepare as intake does, then count, render, estimate and compare."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from gateway.case import Prepared
from gateway.channel import Sockets
from gateway.core import Core
from gateway.link import Rate
from gateway.model import Group, Plan, Step
from gateway.policy import Policy, Principal
from gateway.preview import audience
from gateway.preview.conflict import conflicts
from gateway.preview.estimate import Job, Span, spans
from gateway.preview.shape import (
    EVERYTHING,
    AudienceCount,
    Deferral,
    Dropped,
    Finding,
    GroupTime,
    Preview,
    StepOut,
    split_reasons,
)
from gateway.preview.words import before, gathered, same_text, texts, unregistered
from gateway.routing import ORDER
from gateway.standing import OWN, ROLES, WRITERS, Event, Standing

COUNTY = len("411726")
NEXT = {Standing.SUPPRESSED: Event.RELEASE, Standing.PARTNER: Event.JOIN, Standing.ACTIVE: Event.COUNTERSIGN}
_DROPPED = re.compile(r"expires: (?P<notice>\w+) to (?P<group>\w+) by (?P<channel>\w+) (?P<why>.+)")


async def preview(core: Core, data: bytes, principal: Principal, now: datetime | None = None) -> Preview:
    """Return what issuing this message would do.

    Raises:
        Refused: as submitting it would.
    """
    now = now or core.clock.now()
    prepared = await core.intake.prepare(data, principal, now)
    alert, plan = prepared.alert, prepared.plan
    counts = await audience.counts(core, plan.steps)
    people = audience.told(counts)
    steps = _steps(core, plan, counts, now)
    words = texts(core, alert, plan, await before(core, alert))
    frame = [*unregistered(core, alert, plan), *await same_text(core, alert, plan, words)]
    beside, more = await conflicts(core, prepared, now)
    deciders = _deciders(core, prepared, principal)
    groups = {group: sum(number for (_, one), number in people.items() if one is group) for group in Group}
    reasons, unmet = split_reasons(plan.reasons)
    gaps = await audience.gaps(core, alert, plan)
    lost = [*audience.unreached(alert, plan, groups), *audience.mute(gaps)]
    own = [*unmet, *lost, *_nobody_decides(prepared, deciders)]
    return Preview(
        alert=alert.id,
        at=now,
        event=alert.event,
        level=alert.level.name.lower(),
        document=alert.document,
        status=alert.status,
        kind=alert.kind,
        issuer=prepared.issuer.name,
        expires=alert.expires,
        route=plan.route,
        reasons=reasons,
        held=list(plan.held),
        would_be_held=prepared.held,
        standing=prepared.standing,
        needs=list(plan.needs),
        deciders=deciders,
        alarms=list(prepared.route.alarms),
        warnings=[*map(Finding.of, prepared.warnings), *own, *_too_late(steps), *more, *gathered(words), *frame],
        halts=await halts(core, plan),
        conflicts=beside,
        targets=audience.townships(core, plan.targets),
        leaving=audience.townships(core, plan.leaving),
        beyond_border=audience.townships(core, prepared.cut),
        townships=await audience.audiences(core, alert, plan, people),
        gaps=gaps,
        counts=counts,
        steps=steps,
        times=list(_times(steps)),
        texts=words,
        deferrals=_deferrals(plan, now),
        dropped=[Dropped(**found.groupdict()) for text in plan.held if (found := _DROPPED.fullmatch(text))],
    )


def _deferrals(plan: Plan, now: datetime) -> list[Deferral]:
    return [
        Deferral(
            step=step.number,
            channel=step.audience.channel,
            group=step.audience.group,
            notice=step.notice,
            start=step.start,
            fallback_of=step.fallback_of,
        )
        for step in plan.steps
        if step.start > now
    ]


async def halts(core: Core, plan: Plan) -> list[str]:
    """Return the halted scopes that concern a plan now: "all", its counties, its channels."""
    return concerning(core.policy, plan, await core.store.outbox.halts())


def concerning(policy: Policy, plan: Plan, scopes: Collection[str]) -> list[str]:
    """Return those of the halted scopes that concern a plan, as people write them."""
    if not scopes:
        return []
    mine = {EVERYTHING} | {target.township[:COUNTY] for target in (*plan.targets, *plan.leaving)}
    mine |= {name for step in plan.steps for name in (step.audience.channel, *policy.roads(step.audience.channel))}
    return [scope_name(scope) for scope in scopes if scope in mine]


def scope_name(scope: str) -> str:
    """Return a halted scope as people write it: the store's "*" is all."""
    return "all" if scope == EVERYTHING else scope


# --- who decides ----------------------------------------------------------------------------------


def _deciders(core: Core, prepared: Prepared, principal: Principal) -> list[str]:
    """Accounts that may take the next step with what is held of this message."""
    standing = prepared.standing
    if standing is Standing.DRAFT or not (prepared.held or prepared.plan.held):
        return []
    event = NEXT.get(standing, Event.APPROVE)
    partners = core.policy.partners(prepared.alert, prepared.issuer)
    bodies = {one.id for one in (partners if standing is Standing.PARTNER else (prepared.issuer,))}
    return [
        token.name
        for token in core.policy.tables.tokens.token
        if token.issuer in bodies
        and token.role in ROLES.get((standing, event), WRITERS)
        and (event in OWN or (token.issuer, token.name) != (principal.issuer, principal.name))
        and (core.simulation or not token.demo)
    ]


def _nobody_decides(prepared: Prepared, deciders: Sequence[str]) -> list[Finding]:
    if deciders or not prepared.held or prepared.standing is Standing.DRAFT:
        return []
    text = (
        f"nobody of {prepared.issuer.name} may take the next step ({prepared.standing}): add a token (mingluo policy "
        "token), or it waits until it expires"
    )
    return [Finding(code="nobody_decides", severity="warning", message=text)]


# --- when -----------------------------------------------------------------------------------------


def _steps(core: Core, plan: Plan, counts: Sequence[AudienceCount], now: datetime) -> list[StepOut]:
    people: dict[int, int] = {}
    for one in counts:
        people[one.step] = people.get(one.step, 0) + one.recipients
    rates = {name: rate for name, rate in core.rates.items() if not isinstance(core.channels.get(name), Sockets)}
    rates |= _together(core, rates)
    jobs = [
        Job(
            step.number, step.audience.channel, step.lane, max(0.0, (step.start - now).total_seconds()),
            (step.deadline - now).total_seconds(), people.get(step.number, 0),
        )
        for step in plan.steps if step.fallback_of is None
    ]  # fmt: skip
    found = spans(jobs, rates)
    paced = {name: rate.per_s for name, rate in rates.items()}
    return [_step(step, people.get(step.number, 0), found.get(step.number), paced, now) for step in plan.steps]


def _together(core: Core, rates: Mapping[str, Rate]) -> dict[str, Rate]:
    """Return what each pool allows whose roads all have a rate: its roads side by side."""
    pools = {pool: [road for road in roads if road in core.channels] for pool, roads in core.policy.pools.items()}
    return {
        pool: Rate(*map(sum, zip(*(rates[road] for road in roads), strict=True)))
        for pool, roads in pools.items()
        if roads and all(road in rates for road in roads)
    }


def _step(step: Step, people: int, span: Span | None, paced: Mapping[str, float], now: datetime) -> StepOut:
    return StepOut(
        step=step.number,
        group=step.audience.group,
        channel=step.audience.channel,
        language=step.audience.language,
        notice=step.notice,
        lane=step.lane,
        start=step.start,
        deadline=step.deadline,
        fallback_of=step.fallback_of,
        recipients=people,
        per_s=paced.get(step.audience.channel),
        first=now + timedelta(seconds=span.first_s) if span else None,
        last=now + timedelta(seconds=span.last_s) if span else None,
        too_late=span.too_late if span else 0,
    )


def _times(steps: Sequence[StepOut]) -> Iterator[GroupTime]:
    """Yield first and last per group and notice; of several channels the slowest counts."""
    for group in ORDER:
        for notice in dict.fromkeys(step.notice for step in steps):
            mine = [step for step in steps if (step.group, step.notice) == (group, notice)]
            first = [step.first for step in mine if step.first]
            last = [step.last for step in mine if step.last]
            if first and last:
                channels = {step.channel for step in mine if step.fallback_of is None}
                sums = (sum(s.recipients for s in mine if s.channel == one and not s.fallback_of) for one in channels)
                yield GroupTime(group=group, notice=notice, recipients=max(sums), first=min(first), last=max(last))


def _too_late(steps: Sequence[StepOut]) -> list[Finding]:
    return [
        Finding(
            code="too_late", severity="warning",
            message=f"{step.channel} to {step.group}: about {step.too_late} of {step.recipients} would not be told "
            f"before the deadline at {step.per_s:g} a second; add a channel, or have the carrier raise the rate",
        )
        for step in steps if step.too_late
    ]  # fmt: skip
