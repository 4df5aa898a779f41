"""What would happen if this message were issued: where it goes, to how many, in which words, when, and what holds it.

Called by the API and the command line. Uses the code of the real run (intake, directory, planner's cut, composer),
so that a preview cannot promise another text than the one that leaves. Nothing is stored and nobody is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from gateway import cap
from gateway.case import Prepared
from gateway.compose import SIGNED
from gateway.core import Core
from gateway.model import Alert, Group, Plan, Status, Step, Target
from gateway.planner import cut
from gateway.policy import Principal
from gateway.ports import Page
from gateway.render import segment_count, utf16_units

EVERYTHING = "*"
COUNTY = len("411726")
UNMET = "channel:"


class Place(BaseModel):
    """A place by code and name."""

    code: str
    name: str


class Finding(BaseModel):
    """One thing found in the message, or in a finished text (then `element` is empty)."""

    code: str
    severity: str
    message: str
    element: str = ""
    line: int | None = None

    @classmethod
    def of(cls, found: cap.Finding) -> Self:
        """Take over a finding on the message."""
        return cls(**asdict(found))


class TargetTownship(BaseModel):
    """An affected township and how it was matched. No villages: all of it."""

    township: Place
    villages: list[Place]
    how: str = Field(description="code, polygon, circle, name, county, touching or no_geometry")
    certain: bool = Field(description="False: only touched, so that no text names it")
    coarse: bool = Field(description="True: only its county was named, so that residents wait for a person")


class AudienceCount(BaseModel):
    """Recipients of one step in one township. `fallback` steps count the same people once more."""

    step: int
    township: str
    group: str
    channel: str
    language: str
    notice: str
    recipients: int
    fallback: bool


class Words(BaseModel):
    """One text as it leaves, for recipients of `township`. `units` are UTF-16 code units."""

    channel: str
    group: str
    notice: str
    language: str
    township: str
    title: str
    text: str
    units: int
    segments: int = Field(description="Parts it takes as SMS")
    findings: list[Finding]


class Deferral(BaseModel):
    """A step that starts later: in the morning after the quiet hours, or in place of a step that failed."""

    step: int
    channel: str
    group: str
    notice: str
    start: datetime
    fallback_of: int | None


class Preview(BaseModel):
    """Everything an approver should see before it is too late."""

    alert: str
    event: str
    level: str
    status: str
    kind: str
    expires: datetime | None
    route: str
    reasons: list[str]
    held: list[str]
    would_be_held: bool = Field(description="Nothing leaves before a second person has decided")
    alarms: list[str]
    warnings: list[Finding] = Field(description="Also reaches_nobody, no_officials and no_channel")
    halts: list[str] = Field(description="Halted scopes that keep it, or a part of it, from leaving")
    targets: list[TargetTownship]
    leaving: list[TargetTownship] = Field(description="Left by an update, or told the all-clear")
    beyond_border: list[TargetTownship] = Field(description="Touched beyond the issuer's area, and left out")
    counts: list[AudienceCount]
    texts: list[Words]
    deferrals: list[Deferral]


async def preview(core: Core, data: bytes, principal: Principal, now: datetime | None = None) -> Preview:
    """Return what issuing this message would do.

    Raises:
        Refused: as submitting it would.
    """
    now = now or core.clock.now()
    prepared = await core.intake.prepare(data, principal, now)
    alert, plan, route = prepared.alert, prepared.plan, prepared.route
    previous = await _before(core, alert)
    counts = [count for step in plan.steps for count in await _counts(core, step)]
    told: dict[str, int] = {}
    for count in counts:
        told[count.group] = told.get(count.group, 0) + count.recipients
    reasons, unmet = split_reasons(plan.reasons)
    return Preview(
        alert=alert.id,
        event=alert.event,
        level=alert.level.name.lower(),
        status=alert.status,
        kind=alert.kind,
        expires=alert.expires,
        route=plan.route,
        reasons=reasons,
        held=list(plan.held),
        would_be_held=prepared.held,
        alarms=list(route.alarms),
        warnings=[*map(Finding.of, prepared.warnings), *unmet, *_unreached(alert, plan, told)],
        halts=await halts(core, plan),
        targets=_townships(core, plan.targets),
        leaving=_townships(core, plan.leaving),
        beyond_border=_townships(core, prepared.cut),
        counts=counts,
        texts=[words for step in _told(plan.steps) for words in _texts(core, prepared, previous, step)],
        deferrals=[
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
        ],
    )


# --- what the first line of an answer must not hide -----------------------------------------------


def split_reasons(reasons: Sequence[str]) -> tuple[list[str], list[Finding]]:
    """Tell why a route was chosen from groups that are left out because no channel of theirs is on."""
    missing = [text for text in reasons if text.startswith(UNMET)]
    findings = [
        Finding(code="no_channel", severity="warning", message=text.removeprefix(UNMET).strip()) for text in missing
    ]
    return [text for text in reasons if text not in missing], findings


async def halts(core: Core, plan: Plan) -> list[str]:
    """Return the halted scopes that concern a plan: "all", its counties, its channels."""
    mine = {EVERYTHING} | {target.township[:COUNTY] for target in (*plan.targets, *plan.leaving)}
    mine |= {step.audience.channel for step in plan.steps}
    return [scope_name(scope) for scope in await core.store.outbox.halts() if scope in mine]


def scope_name(scope: str) -> str:
    """Return a halted scope as people write it: the store's "*" is all."""
    return "all" if scope == EVERYTHING else scope


async def reach(core: Core, alert: Alert, plan: Plan) -> list[Finding]:
    """Say so where a plan reaches nobody, or no official.

    Officials are few, so counting them costs an acceptance next to nothing; the others are counted only if there is
    no official.
    """
    told: dict[str, int] = {}
    for step in sorted(plan.steps, key=lambda step: step.audience.group is not Group.OFFICIALS):
        group = step.audience.group
        told[group] = told.get(group, 0) + sum((await core.directory.count(step.audience)).values())
        if told[group] and (group is not Group.OFFICIALS or len(told) == 1):
            break
    return _unreached(alert, plan, told)


def _unreached(alert: Alert, plan: Plan, told: Mapping[str, int]) -> list[Finding]:
    if alert.status is Status.DRAFT or (plan.held and not plan.steps):
        return []  # reaches nobody by its nature, or is not decided yet; both are said elsewhere
    if not any(told.values()):
        text = "no official, loudspeaker or resident of its area is registered on a channel that is on: mingluo doctor"
        return [Finding(code="reaches_nobody", severity="warning", message=text)]
    if not told.get(Group.OFFICIALS):
        text = "no official of its area is registered on a channel that is on: telephone them; then mingluo doctor"
        return [Finding(code="no_officials", severity="warning", message=text)]
    return []


def _townships(core: Core, targets: Sequence[Target]) -> list[TargetTownship]:
    return [
        TargetTownship(
            township=_place(core, target.township),
            villages=[_place(core, village) for village in target.villages],
            how=target.how,
            certain=target.certain,
            coarse=target.coarse,
        )
        for target in targets
    ]


def _place(core: Core, code: str) -> Place:
    return Place(code=code, name=core.regions.path_name(code))


async def _counts(core: Core, step: Step) -> list[AudienceCount]:
    audience = step.audience
    return [
        AudienceCount(
            step=step.number,
            township=township,
            group=audience.group,
            channel=audience.channel,
            language=audience.language,
            notice=step.notice,
            recipients=number,
            fallback=step.fallback_of is not None,
        )
        for township, number in (await core.directory.count(audience)).items()
    ]


def _told(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield one step per channel, group, notice and language: further ones say the same."""
    seen = set()
    for step in steps:
        key = (step.audience.channel, step.audience.group, step.notice, step.audience.language)
        if key not in seen:
            seen.add(key)
            yield step


def _texts(core: Core, prepared: Prepared, previous: Alert | None, step: Step) -> Iterator[Words]:
    """Render for the first township that is named in its text and the first that is not."""
    examples = {target.certain: target for target in reversed(step.audience.targets)}
    for _, target in sorted(examples.items(), reverse=True):
        # Nobody stands in this batch: it is rendered and never sent.
        batch = cut(prepared.alert.id, step, 0, Page(target.township, (0,), ("",), ("",)), 0)
        text, title = core.composer.words(prepared.alert, prepared.plan, previous, batch, (), again=False)
        signed = batch.channel.startswith(SIGNED)
        findings = core.renderer.lint(text, signed=signed, actual=prepared.alert.actual)
        yield Words(
            channel=batch.channel,
            group=batch.group,
            notice=batch.notice,
            language=batch.language,
            township=target.township,
            title=title,
            text=text,
            units=utf16_units(text),
            segments=segment_count(text),
            findings=[Finding(code=one.code, severity=one.severity, message=one.detail) for one in findings],
        )


async def _before(core: Core, alert: Alert) -> Alert | None:
    """The newest version this one names, live or not: a mistake that was stopped is still corrected by name."""
    rows = [row for one in alert.references for row in await core.store.outbox.find(one.sender, one.identifier)]
    newest = max(rows, key=lambda row: row.accepted_at, default=None)
    return newest.alert if newest else None
