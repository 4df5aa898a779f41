"""Why an alert would go which way: the answer to "why is this (not) green, who may send it, and what happens then".

Pure; asked by the command line. Every line that decided names its file and row;
rows count from 1 as they stand in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from gateway.model import Alert, Group, Kind, Lane, Notice, Target
from gateway.policy.authority import Authority
from gateway.policy.hazard import CHINA, in_force, table_for
from gateway.policy.policy import Policy
from gateway.policy.route import Route, Succession
from gateway.policy.table import COLOURED, Grant, Issuer, PlanRow
from gateway.standing import ROLES, Event, Standing

NOTICES = {
    Kind.ALERT: Notice.ISSUE,
    Kind.UPDATE: Notice.UPDATE,
    Kind.CANCEL: Notice.ALL_CLEAR,
    Kind.CORRECTION: Notice.CORRECTION,
}


@dataclass(frozen=True, slots=True)
class Leg:
    """One group by one channel: when, in which lane, and what may delay it or stand in. `start` is None: at once."""

    group: Group
    channel: str
    lane: Lane
    start: datetime | None
    fallback: str | None
    row: str

    def when(self) -> str:
        """Say when it starts, and what stands in."""
        start = f"waits until {self.start.astimezone(CHINA):%m-%d %H:%M}" if self.start else "at once"
        return start + (f", else {self.fallback}" if self.fallback else "")


@dataclass(frozen=True, slots=True)
class Sender:
    """An issuer that may send such an alert, by which grants."""

    issuer: str
    name: str
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage on the way out: who may pass it, and who stands in for them after how many minutes."""

    stage: str
    by: tuple[str, ...]
    deputies: tuple[str, ...] = ()
    after_min: int | None = None

    def __str__(self) -> str:
        later = f"; after {self.after_min} minutes also signers of {', '.join(self.deputies)}" if self.deputies else ""
        return f"{self.stage}: {', '.join(self.by) or 'nobody has a token that may'}{later}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen, and which rows of which file say so.

    `refused` are the findings of authority; the rest tells what would happen if there were none. `stages` are passed
    in order, each by somebody else and none by the writer. `ladder_min` are minutes per rung of call-and-confirm,
    None: nobody is called.
    """

    refused: tuple[str, ...]
    route: str
    stages: tuple[Stage, ...]
    reasons: tuple[str, ...]
    held: tuple[str, ...]
    alarms: tuple[str, ...]
    legs: tuple[Leg, ...]
    left_out: tuple[str, ...]
    ladder_min: int | None
    expires: datetime
    rows: tuple[str, ...]
    senders: tuple[Sender, ...]

    @property
    def allowed(self) -> bool:
        """Whether the issuer may send it at all."""
        return not self.refused

    def __str__(self) -> str:
        legs = (f"to {leg.group} by {leg.channel}: lane {leg.lane}, {leg.when()}" for leg in self.legs)
        return "\n".join([*self.verdict(), *legs, *self.rest()])

    def verdict(self) -> Iterator[str]:
        """Yield whether and which way it goes, and why."""
        yield from (f"refused: {finding}" for finding in self.refused)
        yield f"route: {self.route}"
        yield from (f"because {reason}" for reason in self.reasons if reason not in self.held)
        yield from (f"held: {text}" for text in self.held)
        yield from (f"alarm: {text}" for text in self.alarms)
        yield from (f"needs {stage}" for stage in self.stages)
        if not self.stages:
            yield "needs no second person"

    def rest(self) -> Iterator[str]:
        """Yield what belongs to it beside the channels, who else may send it, and the rows that decided."""
        yield from self.left_out
        called = (
            f"officials answer, next rung after {self.ladder_min} minutes" if self.ladder_min else "nobody is called"
        )
        yield f"call-and-confirm: {called}"
        yield f"ends: {self.expires.astimezone(CHINA):%Y-%m-%d %H:%M} in China"
        yield f"may be sent by: {', '.join(sender.name for sender in self.senders) or 'nobody'}"
        yield from (f"decided by: {row}" for row in self.rows)


def explain(
    policy: Policy,
    alert: Alert,
    issuer: Issuer,
    targets: Sequence[Target],
    now: datetime,
    past: Succession | None = None,
) -> Explanation:
    """Explain whether this may go out, which way and why, through which channels, and who else may send it."""
    standing = policy.authority(issuer, alert, targets, now)
    decided = policy.route(alert, issuer, targets, now, past)
    legs = tuple(_legs(policy, alert, now, decided))
    used = tuple(
        leg if leg.fallback is None or standing.permits(leg.fallback) else replace(leg, fallback=None)
        for leg in legs
        if standing.permits(leg.channel)
    )
    return Explanation(
        refused=standing.findings,
        route=decided.kind,
        stages=tuple(_stages(policy, alert, issuer, decided)),
        reasons=decided.reasons,
        held=decided.held,
        alarms=decided.alarms,
        legs=used,
        left_out=standing.left_out(sorted({leg.channel for leg in legs})),
        ladder_min=policy.confirm_within_min(alert),
        expires=policy.expires(alert),
        rows=tuple(dict.fromkeys(_rows(policy, alert, issuer, standing, used, decided))),
        senders=tuple(Sender(one.id, one.name, found.rows) for one, found in policy.senders(alert, targets, now)),
    )


def describe(grant: Grant) -> str:
    """Return what a grant covers, in a few words."""
    parts = [", ".join(grant.documents), ", ".join(grant.hazards), f"up to {grant.highest.name.lower()}"]
    parts += [f"in {', '.join(grant.areas)}"] if grant.areas else []
    parts += [f"by {', '.join(grant.channels)}"] if grant.channels else []
    parts += [f"from {grant.hours}"] if grant.hours else []
    return "; ".join(parts)


def _stages(policy: Policy, alert: Alert, issuer: Issuer, decided: Route) -> Iterator[Stage]:
    """Yield who may pass each stage; what a green alert holds above its ceiling is countersigned."""
    events = [(stage, Event.APPROVE) for stage in decided.needs]
    events += [(Standing.ACTIVE, Event.COUNTERSIGN)] if decided.over_ceiling else []
    deputies = policy.procedure.deputies(issuer.id)
    for stage, event in events:
        roles = ROLES.get((stage, event), frozenset())
        if stage is Standing.PARTNER:
            yield Stage(stage, tuple(one.name for one in policy.partners(alert, issuer)))
            continue
        tokens = (one for one in policy.tables.tokens.token if one.issuer == issuer.id and one.role in roles)
        by = tuple(f"{one.name} ({one.role})" for one in tokens)
        after = policy.procedure.approval_of(alert).escalate_after_min if deputies else None
        yield Stage(stage if event is Event.APPROVE else event, by, deputies, after)


def _legs(policy: Policy, alert: Alert, now: datetime, decided: Route) -> Iterator[Leg]:
    """Yield the plan's rows for this document and level as they would start now."""
    notice = Notice.DOWNGRADE if decided.downgrade else NOTICES[alert.kind]
    for number, row in enumerate(policy.tables.plan.row, 1):
        if not row.covers(alert.document, alert.level) or not _audience(policy, alert, row):
            continue
        if row.announces and not alert.announces:
            continue
        if row.emergency and decided.kind != "emergency":
            continue
        for channel in row.channels:
            if not alert.actual and channel not in policy.drill.channels:
                continue
            later = policy.deferral(alert.document, alert.level, row.group, channel, notice, now)
            lane = row.lane if alert.actual or row.lane is Lane.SERVICE else Lane.BULK
            yield Leg(row.group, channel, lane, later, row.fallback, f"plan.toml, row {number}")


def _audience(policy: Policy, alert: Alert, row: PlanRow) -> bool:
    return alert.actual or row.group in policy.drill.audience(alert)


def _rows(
    policy: Policy, alert: Alert, issuer: Issuer, standing: Authority, legs: Sequence[Leg], decided: Route
) -> Iterator[str]:
    """Yield the rows that decided: authority, hazard, colours, green channel, plan, quiet hours, ladder."""
    numbered = {f"authority.toml, issuer {issuer.id}, grant {n}": grant for n, grant in enumerate(issuer.grant, 1)}
    yield from (f"{row} ({describe(numbered[row])})" for row in standing.rows)
    tables, code = policy.tables, alert.event_code
    if found := policy.hazard(code):
        yield f"hazards.csv, {code} {found.zh} {found.en} ({', '.join(found.bureaus)})"
    table = table_for(tables, code, issuer.areas)
    version = in_force(tables, table, alert.sent) if table else None
    if alert.document in COLOURED and version and alert.level in version.of(code):
        criteria = version.of(code)[alert.level] or "criteria not recorded"
        yield f"levels.csv, {version.table} {version.name}, {code} {alert.level.name.lower()} ({criteria})"
    green = tables.green
    listed = "lists" if code in green.hazards else "does not list"
    yield f"green.toml, hazards {listed} {code or 'no code'}; authority.toml, issuer {issuer.id}, " + (
        "green = true" if issuer.green else "not green"
    )
    yield from (leg.row for leg in legs)
    yield from (f"quiet.toml, {tables.quiet.start:%H:%M} to {tables.quiet.until:%H:%M}" for leg in legs if leg.start)
    if decided.kind == "normal" and decided.needs:
        number = next(n for n, row in enumerate(tables.procedure.approval, 1) if row.covers(alert))
        yield f"procedure.toml, approval row {number}"
    ladder = tables.defaults.ladder(alert)
    if policy.needs_confirmation(alert) and ladder is not None:
        yield f"defaults.toml, confirm row {ladder + 1}"
    if alert.expires is None:
        number = next(n for n, row in enumerate(tables.defaults.expires, 1) if row.covers(alert))
        yield f"defaults.toml, expires row {number}"
