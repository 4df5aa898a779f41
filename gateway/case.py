"""One message as a case: checked against everything that bears on it, routed and planned, but not stored.

Used by `intake` for what comes in, by `decision` for what is decided, by `preview` for what would be. Fails closed
on authority (`Refused`); what is entitled but cannot be decided is held loudly (D2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from gateway import cap
from gateway.errors import Refused
from gateway.lineage import Lineage, References, check_drill, likeness, overtaken, repeated, stops
from gateway.model import Alert, Document, Group, Info, Kind, Mute, Notice, Plan, Resolution, Status, Step, Target
from gateway.policy import Authority, Issuer, Policy, Route, Succession
from gateway.policy.route import ENDS
from gateway.policy.table import area_covers
from gateway.ports import AlertRow, Clock
from gateway.regions import LISTED, Regions
from gateway.regions.target import named, overlap
from gateway.routing import OF_EARLIER, plan
from gateway.standing import RINGS, Standing, first
from gateway.store import Store
from gateway.store.around import Around
from gateway.telling import Parts, divided, lapses, primary

POSTDATED = timedelta(minutes=10)
CALLED_WITHIN = timedelta(minutes=5)
AT_ONCE = 2_000  # characters and corners, which take some ten milliseconds at worst
SHARED = "texts_differ_in_one_language"
NEVER_LAPSE = frozenset({Document.SERVICE, Document.RETURN})


@dataclass(frozen=True, slots=True)
class Prepared:
    """A case as it would be stored now. `stops` are the versions that end when it goes out: id → reason."""

    alert: Alert
    issuer: Issuer
    route: Route
    plan: Plan
    references: References
    cut: tuple[Target, ...]
    standing: Standing
    stops: dict[str, str]
    warnings: tuple[cap.Finding, ...] = ()
    digest: str = ""
    """SHA-256 hex of what was read."""
    signer: str = ""
    """Fingerprint of the certificate that signed it."""

    @property
    def held(self) -> bool:
        """Whether nothing leaves before a person has decided."""
        return self.standing is not Standing.ACTIVE


class Cases:
    """Makes cases. One per process."""

    def __init__(
        self, store: Store, regions: Regions, policy: Callable[[], Policy], enabled: Collection[str], clock: Clock
    ) -> None:
        self.lineage = Lineage(store.outbox)
        self._store = store
        self._regions = regions
        self._policy = policy
        self._enabled = frozenset(enabled)
        self._clock = clock

    async def check(
        self,
        alert: Alert,
        resolution: Resolution,
        issuer: Issuer,
        now: datetime,
        taken: cap.Taken | None = None,
        *,
        signer: bool = False,
        sealed: bool = False,
        again: bool = False,
    ) -> Prepared:
        """Authorise, route and plan a message that has been read; `taken` is how it was read.

        `signer`: a signer hands it in, who corrects a mistake alone (D7). `sealed`: under a sealed code (D3).
        `again`: a person wants it said although a live alert says the same (D4).

        Raises:
            Refused: 403 outside authority, 409 overtaken or against the order of things, 422 expired, postdated or
                private.
        """
        policy, within = self._policy(), timedelta(minutes=self._policy().procedure.duplicate.within_min)
        around = await self._store.outbox.around(alert, likeness(alert), now, within)
        waits = overtaken(alert, around)
        references = await self.lineage.references(alert)
        alert = completed(inherit(alert, references.told), policy)
        parts = divided(alert, resolution.parts)
        check_times(alert, now)
        check_scope(alert)
        before = tuple(target for row in references.told for target in row.plan.targets)
        if alert.kind in ENDS and before:
            resolution = Resolution(merged(self._regions, before))
        targets, cut = policy.border(issuer, resolution.targets)
        authority = authorised(policy, issuer, alert, targets, now)
        check_drill(alert, targets, around)
        emergency = self.emergency(around, targets)
        # Under the regime those beside it are told again: they have not left because nobody names them.
        past = self._succession(references.told, targets, named(before) if emergency else before)
        alone = signer or sealed
        route = policy.route(alert, issuer, targets, now, past, around.issued, emergency=emergency, signer=alone)
        route = hold_unresolved(route, resolution, targets, alert)
        same = "" if again else repeated(alert, targets, around, self._regions, within)
        route = held_back(route, alert, waits, same)
        if sealed:
            route = unsealed(route, alert, targets)
        planned = self.plan(alert, route, targets, before, issuer, now, parts, authority)
        standing, needs = begin(alert, route, planned)
        ended = stops(alert.kind, references.live)
        warnings = tuple(taken.findings) if taken else ()
        if parts and not any(finding.code == SHARED for finding in warnings):
            warnings += lost(alert, parts, self._regions.name)
        planned = replace(planned, needs=needs, supersedes=tuple(sorted(ended)))
        digest, who = (taken.digest, taken.signer) if taken else ("", "")
        return Prepared(alert, issuer, route, planned, references, cut, standing, ended, warnings, digest, who)

    def plan(
        self,
        alert: Alert,
        route: Route,
        targets: tuple[Target, ...],
        before: tuple[Target, ...],
        issuer: Issuer,
        now: datetime,
        parts: Parts,
        authority: Authority | None = None,
    ) -> Plan:
        """Plan a routed alert, through the channels its issuer's grants allow. `parts`: see `gateway.telling`.

        The emergency regime adds the townships around it, never across the border (D8, D26). `authority` is what was
        judged this moment; without it, it is judged again: a grant may have been taken away, or its hours have ended,
        while the alert waited.

        Raises:
            Refused: 403 outside authority.
        """
        policy = self._policy()
        authority = authority or authorised(policy, issuer, alert, targets, now)
        here = self._enabled.difference(*policy.pools.values())  # a plan names the pool, never one of its roads
        enabled = frozenset(filter(authority.permits, here))
        if left_out := authority.left_out(sorted(here - enabled)):
            route = replace(route, reasons=(*route.reasons, *left_out))
        if route.kind == "emergency":
            targets = named(targets)  # planned a second time, it must not grow by a second ring
            around = self._regions.around(targets)
            targets += tuple(one for one in around if not policy.authority(issuer, alert, (one,), now).findings)
        made = plan(alert, route, targets, before, policy, now, enabled, self._regions.difference)
        if any(step.audience.group is Group.AREA for step in made.steps):
            made = replace(made, steps=tuple(self._drawn(alert, step) for step in made.steps))
        if not parts:
            return made
        steps = tuple(
            step
            if step.notice is Notice.PARTIAL_ALL_CLEAR
            else replace(step, lapses=lapses(alert, parts, step.audience.language))
            for step in made.steps
        )
        return replace(made, steps=steps, parts=parts)

    def _drawn(self, alert: Alert, step: Step) -> Step:
        """Return the step; an area request asks for no more of a township than the issuer drew."""
        if step.audience.group is not Group.AREA or step.notice in OF_EARLIER:
            return step
        return replace(
            step, audience=replace(step.audience, rings=self._regions.clip(alert.areas, step.audience.targets))
        )

    async def mute(self, alert: Alert, plan_: Plan) -> tuple[Mute, ...]:
        """Return the villages that are to hear it by loudspeaker, and have none that works now."""
        policy = self._policy()
        if alert.kind in ENDS or not policy.plan_rows(alert.document, alert.level, Group.LOUDSPEAKERS):
            return ()
        found = await self._store.devices.villages(self._regions.expand(plan_.targets), policy.speakers)
        return tuple(Mute(village, condition) for village, condition in sorted(found.items()) if condition.mute)

    async def resolve(self, alert: Alert, issuer: Issuer) -> Resolution:
        """Return the townships a message means; many names or corners are read beside the loop, to delay nobody."""
        size = sum(len(area.description) + sum(map(len, area.polygons)) for area in alert.areas)
        if size <= AT_ONCE:
            return self._regions.resolve_alert(alert, issuer.areas)
        return await asyncio.to_thread(self._regions.resolve_alert, alert, issuer.areas)

    def duties(self, alert: Alert, plan_: Plan, standing: str, now: datetime) -> tuple[dict[str, datetime], ...]:
        """Return what rings, and what the duty room owes, once the alert stands there: (timers, obligations)."""
        policy, clock = self._policy(), self._policy().procedure.clock
        timers: dict[str, datetime] = {}
        owed: dict[str, datetime] = {}
        if alert.expires is not None:
            timers["expire"] = alert.expires
        if alert.actual and (standing in RINGS or (standing == Standing.ACTIVE and plan_.held)):
            timers["held"] = now
        if standing == Standing.PARTNER:
            timers["partner"] = now + policy.procedure.partner_wait(alert)
        if standing != Standing.ACTIVE or not alert.actual:
            return timers, owed
        timers["national"] = now + timedelta(minutes=clock.national_number_min)
        if plan_.route == "green":
            owed["review"] = now + timedelta(minutes=policy.review_within_min)
        if plan_.route == "emergency":
            owed["calls"] = now + CALLED_WITHIN
        lapses = alert.kind not in ENDS and alert.document not in NEVER_LAPSE
        asked = alert.expires - timedelta(minutes=clock.lapse_question_min) if alert.expires else alert.sent
        if lapses and asked > alert.sent:  # what was never meant to last longer asks nobody
            owed["lapse"] = max(asked, now)
        return timers, owed

    def _succession(
        self, previous: Sequence[AlertRow], targets: Sequence[Target], before: Sequence[Target]
    ) -> Succession | None:
        if not previous:
            return None
        difference = self._regions.difference
        return Succession(
            tuple(row.alert for row in previous), difference(before, targets), difference(targets, before)
        )

    @staticmethod
    def emergency(around: Around, targets: Sequence[Target]) -> bool:
        """Whether the emergency regime is in force over all of it."""
        areas = tuple(regime.area for regime in around.regimes)
        return bool(areas and targets) and all(area_covers(areas, target) for target in targets)


def authorised(policy: Policy, issuer: Issuer, alert: Alert, targets: Sequence[Target], now: datetime) -> Authority:
    """Return by which grants an issuer may send this now.

    Raises:
        Refused: 403 outside authority, naming each missing row.
    """
    found = policy.authority(issuer, alert, targets, now)
    if found.findings:
        raise Refused(
            403, "outside_authority", found.findings[0],
            tuple({"code": finding.split(":", 1)[0], "message": finding} for finding in found.findings),
        )  # fmt: skip
    return found


def begin(alert: Alert, route: Route, planned: Plan) -> tuple[Standing, tuple[Standing, ...]]:
    """Return where a new alert begins, and the stages it needs."""
    if alert.status is Status.DRAFT:
        return Standing.DRAFT, route.needs
    needs = route.needs
    if planned.held and not planned.steps and route.kind != "green" and not needs:
        needs = (Standing.SIGN,)  # a person has to choose before anything can leave
    return first(needs)


def completed(alert: Alert, policy: Policy) -> Alert:
    """Return the alert with what the policy adds: its digest, and a beginning and end."""
    effective = alert.effective or alert.sent
    return replace(alert, policy_digest=policy.digest, effective=effective, expires=policy.expires(alert))


def check_times(alert: Alert, now: datetime) -> None:
    """Refuse what is over or not yet written.

    Raises:
        Refused: 422.
    """
    if alert.expires is not None and alert.expires <= now:
        raise Refused(422, "expired", f"the message expired at {alert.expires.isoformat()}; issue a new one")
    if alert.sent > now + POSTDATED:
        raise Refused(422, "postdated", f"sent lies in the future: {alert.sent.isoformat()}; check the sender's clock")


def check_scope(alert: Alert) -> None:
    """Refuse what is meant for named addresses, which are not those of any roster.

    Raises:
        Refused: 422.
    """
    if alert.scope == "Private":
        raise Refused(
            422, "not_public",
            "scope Private is for its addresses alone, and is not delivered from here; write Public, or Restricted for "
            "officials only",
        )  # fmt: skip


def inherit(alert: Alert, previous: Sequence[AlertRow]) -> Alert:
    """Fill a Cancel or correction that carries no info with what it ends (CAP allows it)."""
    if alert.kind not in ENDS or alert.infos or not previous:
        return alert
    ended = previous[0].alert
    infos = tuple(Info(info.event, language=info.language, areas=info.areas) for info in ended.infos)
    return replace(
        alert, document=ended.document, event_code=ended.event_code, event=ended.event, level=ended.level, infos=infos
    )


def lost(alert: Alert, parts: Parts, name: Callable[[str], str]) -> tuple[cap.Finding, ...]:
    """Say which words nobody will hear: where two infos of one language name the same place, the first one is told."""
    told: dict[tuple[str, str], list[Target]] = {}
    for number, part in enumerate(parts):
        language = primary(alert.infos[number].language)
        twice: list[Target] = []
        for target in part:
            earlier = told.setdefault((language, target.township), [])
            if target.certain:
                (twice if overlap((target,), earlier) else earlier).append(target)
        if twice:
            places = "、".join(name(target.township) for target in twice[:5])
            text = f"info {number + 1} speaks of {places}, too, where an earlier one in {language} is told; part them"
            return (cap.Finding(SHARED, "", None, text, "warning"),)
    return ()


def merged(regions: Regions, targets: Sequence[Target]) -> tuple[Target, ...]:
    """Union of targets of several versions, in township order."""
    return regions.difference((), targets)


def hold_unresolved(route: Route, resolution: Resolution, targets: Sequence[Target], alert: Alert) -> Route:
    """Hold loudly what names no known place (D2): all of it, or, beside resolved parts, only the rest."""
    if alert.status is Status.DRAFT:
        return route
    names = "、".join(resolution.unresolved[:5]) or "no area at all"
    if not targets:
        text = f"unresolved: no known township: {names}; name its townships by code or name; {LISTED}"
        kind = "normal" if route.kind in ("green", "emergency") else route.kind
        return replace(route, kind=kind, held=(*route.held, text), needs=route.needs or (Standing.SIGN,))
    if resolution.unresolved:
        return replace(route, held=(*route.held, f"unresolved: {names}; the rest of the area goes out"))
    return route


def held_back(route: Route, alert: Alert, waits: str, same: str) -> Route:
    """Hold what its own end has overtaken, and keep back what says what a live alert says already (D4)."""
    if waits:
        route = replace(route, kind="normal", held=(*route.held, waits), needs=route.needs or (Standing.SIGN,))
    if same and alert.status is not Status.DRAFT:
        text = f"duplicate: it says what {same} says, to nobody new; let it go if it must be said again"
        route = replace(route, reasons=(*route.reasons, text), needs=(Standing.SUPPRESSED, *route.needs))
    return route


def unsealed(route: Route, alert: Alert, targets: Sequence[Target]) -> Route:
    """Let a message under a sealed code pass every stage and hold, whole; it cannot choose a place for it.

    Raises:
        Refused: 422.
    """
    if not alert.actual:
        raise Refused(422, "not_actual", f"a sealed code is for real warnings; {alert.status} waits for a signer")
    if not targets:
        raise Refused(422, "unresolved", "the area names no known township; name its townships by code or name")
    reasons = (*route.reasons, "break_glass: issued under a sealed code; it is to be countersigned")
    return replace(route, reasons=reasons, held=(), over_ceiling=(), needs=(), decided=True)


def downgrades(alert: Alert, previous: Sequence[AlertRow]) -> bool:
    """Whether it lowers the level of the versions it updates."""
    return bool(previous) and alert.kind is Kind.UPDATE and alert.level < max(one.alert.level for one in previous)
