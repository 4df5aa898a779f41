"""Who would hear of it, township by township, and which villages nobody answers for or no loudspeaker stands in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gateway.core import Core
from gateway.model import ROSTERS, Alert, Audience, Condition, Group, Plan, Status, Step, Target
from gateway.preview.shape import AudienceCount, Finding, Place, TargetTownship, TownshipAudience, VillageGap

Told = dict[tuple[str, Group], int]
"""Persons (or loudspeakers) by township and group, each once however many channels tell them."""


def place(core: Core, code: str) -> Place:
    """Return a place by code and full name."""
    return Place(code=code, name=core.regions.path_name(code))


def townships(core: Core, targets: Sequence[Target]) -> list[TargetTownship]:
    """Show targets by name."""
    return [
        TargetTownship(
            township=place(core, target.township),
            villages=[place(core, village) for village in target.villages],
            how=target.how,
            certain=target.certain,
            coarse=target.coarse,
        )
        for target in targets
    ]


async def counts(core: Core, steps: Sequence[Step]) -> list[AudienceCount]:
    """Count the recipients of each step per township, as the planner's pages would give them."""
    known: dict[Audience, Mapping[str, int]] = {}
    found = []
    for step in steps:
        audience = step.audience
        people = replace(audience, channel="")  # the same people whichever channel tells them
        if people not in known:
            known[people] = await core.directory.count(audience)
        found += [
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
            for township, number in known[people].items()
        ]
    return found


def told(found: Sequence[AudienceCount]) -> Told:
    """Add up notices and languages (other people each); of several channels (the same people) take the largest."""
    channels: dict[tuple[str, Group, str], int] = {}
    for one in found:
        if not one.fallback:
            key = one.township, Group(one.group), one.channel
            channels[key] = channels.get(key, 0) + one.recipients
    people: Told = {}
    for (township, group, _), number in channels.items():
        people[township, group] = max(people.get((township, group), 0), number)
    return people


async def audiences(core: Core, alert: Alert, plan: Plan, people: Told) -> list[TownshipAudience]:
    """Show every township of a plan, also one nobody hears in."""
    targets = core.regions.difference((), (*plan.targets, *plan.leaving))
    served = [step for step in plan.steps if step.audience.group is Group.RESIDENTS]
    opted_out = {}
    if served and not any(step.audience.opted_out for step in served):
        opted_out = await core.directory.opted_out(targets)
    mute: dict[str, int] = {}
    for group in _unserved(core, alert):
        language = "" if group is Group.SUBSCRIBERS else "zh"
        audience = Audience(targets, group, "", language, opted_out=True)
        for township, number in (await core.directory.count(audience)).items():
            mute[township] = mute.get(township, 0) + number
    return [
        TownshipAudience(
            township=place(core, target.township),
            **{group.value: people.get((target.township, group), 0) for group in ROSTERS},
            opted_out=opted_out.get(target.township, 0),
            no_channel=mute.get(target.township, 0),
            villages=len(target.villages) or len(core.regions.villages(target.township)),
        )
        for target in targets
    ]


def _unserved(core: Core, alert: Alert) -> list[Group]:
    """Groups that should hear of it and for whom none of their channels is on."""
    running = set(core.channels) if alert.actual else set(core.channels).intersection(core.policy.drill.channels)
    wanted = ROSTERS if alert.actual else core.policy.drill.audience(alert)
    rows = {group: core.policy.plan_rows(alert.document, alert.level, group) for group in wanted}
    return [
        group for group, mine in rows.items()
        if mine and not any(name in running for row in mine for name in (*row.channels, row.fallback))
    ]  # fmt: skip


async def gaps(core: Core, alert: Alert, plan: Plan) -> list[VillageGap]:
    """Return the villages that will be gaps whatever is sent: without an official, or without a working loudspeaker.

    Only where the plan of such an alert speaks to officials, or to loudspeakers, at all.
    """
    villages = core.regions.expand((*plan.targets, *plan.leaving))
    groups = set(ROSTERS) if alert.actual else core.policy.drill.audience(alert)
    asked = {group for group in groups if core.policy.plan_rows(alert.document, alert.level, group)}
    answered = await core.directory.responsible(villages) if Group.OFFICIALS in asked else dict.fromkeys(villages)
    heard = dict.fromkeys(villages, Condition.WORKING)
    if Group.LOUDSPEAKERS in asked:
        heard = await core.store.devices.villages(villages, core.policy.speakers)
    return [
        VillageGap(
            village=place(core, code), official=code in answered, loudspeaker=not heard[code].mute,
            condition=heard[code],
        )
        for code in villages
        if code not in answered or heard[code].mute
    ]  # fmt: skip


def mute(found: Sequence[VillageGap]) -> list[Finding]:
    """Say how many villages have loudspeakers of which none works: who has none at all is no news."""
    dead = [gap for gap in found if gap.condition in (Condition.OFFLINE, Condition.FAULTY)]
    if not dead:
        return []
    faulty = sum(gap.condition is Condition.FAULTY for gap in dead)
    text = (
        f"no working loudspeaker in {len(dead)} villages ({len(dead) - faulty} offline, {faulty} faulty): they are "
        "gaps from the first second; call them, and see mingluo report devices"
    )
    return [Finding(code="no_working_loudspeaker", severity="warning", message=text)]


async def reach(core: Core, alert: Alert, plan: Plan) -> list[Finding]:
    """Say so where a plan reaches nobody, or no official; others are looked for only if there is no official."""
    found: dict[Group, int] = {}
    for step in sorted(plan.steps, key=lambda step: step.audience.group is not Group.OFFICIALS):
        group = step.audience.group
        if not found.get(group):
            found[group] = int(await core.directory.anybody(step.audience))
        if any(found.values()):
            break
    return unreached(alert, plan, found)


def unreached(alert: Alert, plan: Plan, people: Mapping[Group, int]) -> list[Finding]:
    """Say so where nobody, or no official, is among the people counted by group."""
    if alert.status is Status.DRAFT or (plan.held and not plan.steps):
        return []  # reaches nobody by its nature, or is not decided yet; both are said elsewhere
    if not any(people.values()):
        text = "no official, loudspeaker or resident of its area is registered on a channel that is on: mingluo doctor"
        return [Finding(code="reaches_nobody", severity="warning", message=text)]
    if not people.get(Group.OFFICIALS):
        text = "no official of its area is registered on a channel that is on: telephone them; then mingluo doctor"
        return [Finding(code="no_officials", severity="warning", message=text)]
    return []
