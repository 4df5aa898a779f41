"""Turn a routed alert into a plan: who hears what, through which channel, in which lane, from when until when.

Pure. Called by intake when an alert is accepted or approved, and by previews. Order of steps: officials,
loudspeakers, subscribers, residents, places (area requests); within a group first issues before updates before
partial all-clears.
A plan never reaches beyond the alert's targets and those of the versions before it; a drill reaches only the drill
audience, never in the green lane; a draft reaches nobody; what is not public reaches officials only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache

from gateway.model import (
    AREA_APPROVAL,
    Alert,
    Audience,
    Document,
    Group,
    Kind,
    Lane,
    Level,
    Notice,
    Plan,
    Status,
    Step,
    Target,
)
from gateway.policy import PlanRow, Policy, Route
from gateway.policy.route import ENDS

Targets = tuple[Target, ...]
Difference = Callable[[Sequence[Target], Sequence[Target]], Targets]
"""`difference(new, old)`: the targets of `old` that `new` no longer covers."""

ORDER = (Group.OFFICIALS, Group.LOUDSPEAKERS, Group.SUBSCRIBERS, Group.RESIDENTS, Group.AREA)
OF_EARLIER = frozenset({Notice.ALL_CLEAR, Notice.PARTIAL_ALL_CLEAR, Notice.CORRECTION})
"""They go to whomever an earlier version went to; of places, to no others."""
WAITS = "approval: "
"""How every hold of an area request without its number begins."""
FIRST = frozenset({Group.OFFICIALS, Group.LOUDSPEAKERS})


@dataclass(frozen=True, slots=True)
class _Draft:
    """A step before it has a number."""

    audience: Audience
    notice: Notice
    lane: Lane
    start: datetime
    deadline: datetime
    fallback: str | None
    fallback_start: datetime
    every_s: int


def plan(
    alert: Alert,
    route: Route,
    targets: Targets,
    previous: Targets,
    policy: Policy,
    now: datetime,
    enabled: Collection[str],
    region_difference: Difference,
) -> Plan:
    """Return the plan of an alert.

    `previous` are the targets of the live versions it references, () for a first issue. `enabled` names the
    channels this installation runs. A green route above its ceiling yields the part that goes at once; after the
    countersign, plan again with a normal route and join the two with `complete`.
    """
    news = _news(alert, route, targets, previous, region_difference)
    held, reasons = list(route.held), list(route.reasons)
    drafts: list[_Draft] = []
    if alert.status is not Status.DRAFT:
        if not alert.public:
            reasons.append(f"scope: {alert.scope}, so only officials hear it")
        able = frozenset(enabled if alert.actual else set(enabled).intersection(policy.drill.channels))
        maker = _Maker(alert, route, policy, now, able, held, reasons)
        drafts = [draft for group in ORDER for draft in maker.group(group, news)]
        if alert.kind is Kind.CANCEL and not previous:
            held.append("cancel: it references no live version; a person must say whom it ends")
    leaving = next((where for notice, where in news if notice is Notice.PARTIAL_ALL_CLEAR), ())
    steps = tuple(_numbered(drafts, policy.pools))
    return Plan(alert.id, route.kind, tuple(reasons), targets, leaving, steps, tuple(held), before=previous)


def complete(first: Plan, whole: Plan, region_difference: Difference) -> Plan:
    """Return `first` followed by what `whole` adds to it, so that nobody served by `first` is served again."""
    steps = list(first.steps)
    renumbered: dict[int, int] = {}
    for step in whole.steps:
        key = _key(step)
        served = tuple(target for done in first.steps if _key(done) == key for target in done.audience.targets)
        rest = region_difference(served, step.audience.targets) if served else step.audience.targets
        # Where the step it stands in for adds nobody, it would not stand in but tell everybody.
        if rest and (step.fallback_of is None or step.fallback_of in renumbered):
            renumbered[step.number] = len(steps) + 1
            stands_in = renumbered[step.fallback_of] if step.fallback_of is not None else None
            # Who has a place in both parts was told with the first one (rule 6).
            before = tuple(dict.fromkeys((*served, *step.audience.before)))
            audience = replace(step.audience, targets=rest, before=before)
            steps.append(replace(step, number=len(steps) + 1, audience=audience, fallback_of=stands_in))
    return replace(whole, route=first.route, reasons=(*first.reasons, *whole.reasons), steps=tuple(steps))


def _key(step: Step) -> tuple[object, ...]:
    return step.audience.group, step.audience.channel, step.audience.language, step.notice, step.fallback_of is None


def _news(
    alert: Alert, route: Route, targets: Targets, previous: Targets, difference: Difference
) -> list[tuple[Notice, Targets]]:
    """Return who is told what: (notice, targets), most important first, without empty ones."""
    news: list[tuple[Notice, Targets]]
    if alert.kind is Kind.ALERT:
        news = [(Notice.ISSUE, targets)]
    elif alert.kind is Kind.CANCEL:
        news = [(Notice.ALL_CLEAR, previous)]
    elif alert.kind is Kind.CORRECTION:
        # The mistake may already be stopped, so no live version may be left to take the area from.
        news = [(Notice.CORRECTION, previous or targets)]
    else:
        entering = difference(previous, targets) if previous else targets
        remaining = difference(entering, targets) if entering else targets
        changed = Notice.DOWNGRADE if route.downgrade else Notice.UPDATE
        leaving = difference(targets, previous)
        news = [(Notice.ISSUE, entering), (changed, remaining), (Notice.PARTIAL_ALL_CLEAR, leaving)]
    return [(notice, where) for notice, where in news if where]


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the steps of one plan; notes what waits in `held` and what is missing in `reasons`."""

    alert: Alert
    route: Route
    policy: Policy
    now: datetime
    enabled: frozenset[str]
    """Channels that run here, and that such an alert may use."""
    held: list[str]
    reasons: list[str]

    def group(self, group: Group, news: list[tuple[Notice, Targets]]) -> Iterator[_Draft]:
        """Yield the group's steps in order."""
        rows = self.policy.plan_rows(self.alert.document, self.alert.level, group)
        if not self.alert.actual and group not in self.policy.drill.audience(self.alert):
            return
        if not self.alert.public and group is not Group.OFFICIALS:
            return
        if self.route.over_ceiling and group not in FIRST:
            return  # they wait for the countersign; the route says so
        news = [(notice, self._admitted(group, where)) for notice, where in news]
        news = [(notice, where) for notice, where in news if where]
        rows = tuple(row for row in rows if any(self._applies(row, notice) for notice, _ in news))
        if not rows or not news:
            return
        # What the regime alone adds is not missed where no regime is: an end tells those it had told, if anybody.
        due = self.route.kind == "emergency" or any(not row.emergency for row in rows)
        if due and not any(self._channels(row) for row in rows):
            self.reasons.append(f"channel: none of the channels for {group} is enabled")
        for notice, where in news:
            for row in rows:
                if self._applies(row, notice) and not self._unapproved(row, notice):
                    yield from self._steps(row, self._channels(row), notice, where)
            if self.route.kind == "emergency":
                further = self._further(group, rows)
                yield from self._steps(rows[0].model_copy(update={"start_after_s": 0}), further, notice, where)

    def _applies(self, row: PlanRow, notice: Notice) -> bool:
        """Whether a row counts now; what the emergency regime has added is ended without it, too."""
        if row.announces and not self.alert.announces:
            return False
        return not row.emergency or self.route.kind == "emergency" or notice in OF_EARLIER

    def _unapproved(self, row: PlanRow, notice: Notice) -> bool:
        """Hold an area request that lacks its number; one that ends an approved one needs no other."""
        if not row.approval or self.alert.approval or notice in OF_EARLIER or not self._channels(row):
            return False
        what = f"{WAITS}{notice} to the area waits for its approval number, the parameter {AREA_APPROVAL}"
        self.held.append(f"{what}; once it is active, a signer adds it: mingluo area-approval")
        return True

    def _further(self, group: Group, rows: Sequence[PlanRow]) -> tuple[tuple[str, str | None], ...]:
        """Return every other channel that can serve the group: the emergency regime uses them all (D8)."""
        used = {name for row in rows for name in (*row.channels, row.fallback)}
        able = (one.name for one in self.policy.tables.plan.channel if group in one.groups)
        return tuple((name, None) for name in able if name in self.enabled and name not in used)

    def _admitted(self, group: Group, where: Targets) -> Targets:
        """Return the targets this group may be served in now."""
        if not self.alert.actual:
            return tuple(t for t in where if t.township.startswith(self.policy.drill.areas))
        if self.route.over_ceiling:
            over = {target.township for target in self.route.over_ceiling}
            where = tuple(target for target in where if target.township not in over)
        if group is Group.AREA:
            # Whoever is in a place is asked for nothing but the place: it must be the alert's own, and certain.
            return tuple(target for target in where if target.certain and not target.coarse)
        if group is not Group.RESIDENTS or self.policy.coarse_sends or self.route.decided or self.alert.kind in ENDS:
            return where
        coarse = ", ".join(target.township for target in where if target.coarse)
        if coarse:
            self.held.append(f"coarse_area: residents of {coarse} wait for a person")
        return tuple(target for target in where if not target.coarse)

    def _channels(self, row: PlanRow) -> tuple[tuple[str, str | None], ...]:
        return _running(row.channels, row.fallback, self.enabled)

    def _steps(
        self, row: PlanRow, channels: Sequence[tuple[str, str | None]], notice: Notice, where: Targets
    ) -> Iterator[_Draft]:
        for channel, fallback in channels:
            wanted = self.now + timedelta(seconds=row.start_after_s)
            start = self._start(row.group, channel, notice, wanted)
            deadline = self.policy.expires(self.alert)
            if row.deadline_min is not None:
                deadline = min(deadline, start + timedelta(minutes=row.deadline_min))
            if start >= deadline:
                why = "would wait for the morning, when it has expired" if start > wanted else "has expired"
                self.held.append(f"expires: {notice} to {row.group} by {channel} {why}")
                continue
            later = start + timedelta(seconds=row.fallback_after_s)
            later = self._start(row.group, fallback, notice, later) if fallback else later
            for language in row.languages:
                audience = Audience(where, row.group, channel, language, emergency(self.alert))
                every_s = self._every_s(row.group, notice)
                yield _Draft(audience, notice, self._lane(row), start, deadline, fallback, later, every_s)

    def _start(self, group: Group, channel: str, notice: Notice, at: datetime) -> datetime:
        """Return when this goes out, quiet hours considered."""
        return self.policy.deferral(self.alert.document, self.alert.level, group, channel, notice, at) or at

    def _every_s(self, group: Group, notice: Notice) -> int:
        """Return how often loudspeakers say it again; what ends or lowers a warning is said once."""
        repeats = group is Group.LOUDSPEAKERS and notice in (Notice.ISSUE, Notice.UPDATE)
        return self.policy.repeat_every_s(self.alert) if repeats else 0

    def _lane(self, row: PlanRow) -> Lane:
        """Return the row's lane; what is not Actual never competes with what is."""
        if self.alert.actual:
            return row.lane
        return Lane.SERVICE if self.alert.document is Document.SERVICE else Lane.BULK


@lru_cache(1024)  # asked of each row several times per alert, and its answer is in its arguments alone
def _running(
    channels: tuple[str, ...], fallback: str | None, enabled: frozenset[str]
) -> tuple[tuple[str, str | None], ...]:
    """Return (channel, fallback) pairs that run here; a fallback takes the place of a channel that does not."""
    fallback = fallback if fallback in enabled else None
    running = [name for name in channels if name in enabled]
    if not running:
        return ((fallback, None),) if fallback else ()
    # Behind the last one only: behind each, the fallback would serve the same people twice.
    return (*((name, None) for name in running[:-1]), (running[-1], fallback))


def emergency(alert: Alert) -> bool:
    """Whether those who opted out hear it too: orange, red and evacuation rest on the emergency basis (D24)."""
    return alert.level >= Level.ORANGE or alert.document is Document.EVACUATION


def _numbered(drafts: Sequence[_Draft], pools: Collection[str]) -> Iterator[Step]:
    """Yield steps numbered from 1, each with the steps that stand in for it right behind.

    On a pool the first of those is the pool's own: it serves by another road whom one has failed (`gateway.standin`).
    Loudspeakers have none: each has one road.
    Each audience knows whom earlier steps on its channel serve, so that a person with places in several of
    them is told once (rule 6).
    """
    number = 0
    served: dict[tuple[Group, str, str], list[tuple[Notice, Target]]] = {}
    for draft in drafts:
        number += 1
        past = served.setdefault((draft.audience.group, draft.audience.channel, draft.audience.language), [])
        before = tuple(dict.fromkeys(target for notice, target in past if notice is not draft.notice))
        past += [(draft.notice, target) for target in draft.audience.targets]
        own = replace(draft.audience, before=before) if before else draft.audience
        yield Step(number, own, draft.notice, draft.lane, draft.start, draft.deadline, every_s=draft.every_s)
        of = number
        if own.channel in pools and own.group is not Group.LOUDSPEAKERS:
            number += 1
            yield Step(number, own, draft.notice, draft.lane, draft.start, draft.deadline, of)
        if draft.fallback is None or draft.fallback_start >= draft.deadline:
            continue
        audience = replace(own, channel=draft.fallback)
        number += 1
        yield Step(number, audience, draft.notice, draft.lane, draft.fallback_start, draft.deadline, of)
