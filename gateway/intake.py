"""From the bytes of a request to a durable alert: parse, authenticate, authorise, resolve, route, plan, store.

Called by the API, the CLI and the demo. Only after `submit` returns may the caller answer 202: alert, audit
record, plan and the green steps' opening batches are then one committed transaction. Fails closed on
authority and input (`Refused`, nothing stored); what is entitled but cannot be decided is stored and held
loudly (D2). Bodies over 64 KiB are parsed and resolved in a process pool, so that a polygon of 41,000
points never delays a red one.

One warning goes on from here: `planner` → `relay` → `sender` → `receipts`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from gateway import cap, log, metrics
from gateway.errors import Refused
from gateway.model import Alert, Batch, Info, Kind, Plan, Record, Reference, Resolution, Status, Target
from gateway.planner import Cursor, Planner
from gateway.policy import Issuer, Policy, Principal, Route, Succession
from gateway.pool import ParsePool
from gateway.ports import AlertRow, Clock, Draft
from gateway.regions import Regions
from gateway.routing import complete, plan
from gateway.store import Store

POOL_BYTES = 64 * 1024
POSTDATED = timedelta(minutes=10)
STOP_REASONS = {Kind.UPDATE: "superseded", Kind.CANCEL: "cancelled", Kind.CORRECTION: "corrected"}

_log = log.get("intake")


class References(NamedTuple):
    """Versions a message refers to, newest first: those whose recipients it concerns, and those that end with it."""

    told: tuple[AlertRow, ...] = ()
    live: tuple[AlertRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """An alert checked, routed and planned, but not stored: what a preview shows and `submit` stores."""

    alert: Alert
    issuer: Issuer
    route: Route
    plan: Plan
    references: References
    cut: tuple[Target, ...]
    warnings: tuple[cap.Finding, ...] = ()

    @property
    def held(self) -> bool:
        """Whether nothing may leave before a second person has settled what is held."""
        if self.route.kind == "green":
            return False
        return self.route.second_person or bool(self.plan.held and not self.plan.steps)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a submission: `result` is accepted, held or duplicate."""

    result: str
    alert: str
    route: str
    reasons: tuple[str, ...]
    held: tuple[str, ...]
    warnings: tuple[cap.Finding, ...] = ()


class Intake:
    """The way in. `on_accepted` tells the rest of the process (and, by wake-ups, the others)."""

    def __init__(
        self,
        store: Store,
        regions: Regions,
        policy: Callable[[], Policy],
        planner: Planner,
        enabled: Collection[str],
        clock: Clock,
        on_accepted: Callable[[str, Sequence[Batch]], None],
        pool: ParsePool | None = None,
    ) -> None:
        self._store = store
        self._regions = regions
        self._policy = policy
        self._planner = planner
        self._enabled = frozenset(enabled)
        self._clock = clock
        self._on_accepted = on_accepted
        self._pool = pool

    # --- taking in --------------------------------------------------------------------------------

    async def submit(self, data: bytes, principal: Principal, received: datetime | None = None) -> Outcome:
        """Take one message in.

        Raises:
            Refused: 400 unreadable, 403 outside authority, 409 conflict, 422 expired or postdated.
            StoreDown: nothing was stored; try again.
        """
        received = received or self._clock.now()
        try:
            prepared = await self.prepare(data, principal, received)
            outcome = await self._store_new(prepared, data, principal, received)
        except Refused as error:
            metrics.alerts.labels("refused").inc()
            _log.info("refused", code=error.code, issuer=principal.issuer)
            raise
        metrics.alerts.labels(outcome.result).inc()
        metrics.accept_seconds.labels(outcome.route).observe((self._clock.now() - received).total_seconds())
        return outcome

    async def _store_new(self, prepared: Prepared, data: bytes, principal: Principal, received: datetime) -> Outcome:
        alert, held = prepared.alert, prepared.held
        batches: list[Batch] = []
        cursors: dict[int, Cursor] = {}
        if not held:
            batches, cursors = await self._planner.first(alert, prepared.plan)
        record = Record(received, actor(principal), "hold" if held else "accept", alert.id, self._detail(prepared))
        draft = Draft(
            alert, hashlib.sha256(data).hexdigest(), prepared.plan, batches, cursors, [record],
            {} if held else stops(alert.kind, prepared.references.live), received, actor(principal), held,
        )  # fmt: skip
        accepted = await self._store.outbox.accept(draft)
        if accepted.result == "overtaken":
            raise Refused(409, "overtaken", "something else has just ended what this refers to; look and decide anew")
        if accepted.result == "conflict":
            raise Refused(
                409, "conflict",
                "this sender has already used this identifier for another content; give the message a new identifier",
            )  # fmt: skip
        if accepted.result == "duplicate":
            row = await self._store.outbox.alert(accepted.alert)
            standing = row.plan if row else prepared.plan
            return Outcome("duplicate", accepted.alert, standing.route, standing.reasons, standing.held)
        self._announce(alert.id, batches, prepared)
        result = "held" if held else "accepted"
        return Outcome(
            result, alert.id, prepared.plan.route, prepared.plan.reasons, prepared.plan.held, prepared.warnings
        )

    def _announce(self, alert: str, batches: Sequence[Batch], prepared: Prepared) -> None:
        """Tell the workers; say which usual limits were exceeded. (The alarm for what is held is in the store.)"""
        self._on_accepted(alert, batches)
        for text in prepared.route.alarms:
            metrics.alarms.labels("limit").inc()
            _log.warning("limit", alert=alert, why=text)

    def _detail(self, prepared: Prepared) -> str:
        """Return what the chain keeps: codes only, for an issuer's own words could name a person."""
        parts = (prepared.plan.route, *map(code_of, (*prepared.plan.reasons, *prepared.plan.held)))
        return f"policy {prepared.alert.policy_digest[:12]}; " + "; ".join(dict.fromkeys(parts))

    # --- checking, routing, planning --------------------------------------------------------------

    async def prepare(self, data: bytes, principal: Principal, now: datetime) -> Prepared:
        """Do everything but store: also what a preview shows."""
        issuer = self._issuer(principal)
        alert, resolution, warnings = await self._read(data, issuer)
        return await self.check(alert, resolution, issuer, now, tuple(warnings))

    def _issuer(self, principal: Principal) -> Issuer:
        issuer = self._policy().issuer(principal.issuer)
        if issuer is None or principal.role not in ("issuer", "reviewer"):
            raise Refused(403, "not_an_issuer", "this token may not issue; use one bound to an issuer or reviewer")
        return issuer

    async def _read(self, data: bytes, issuer: Issuer) -> tuple[Alert, Resolution, list[cap.Finding]]:
        if len(data) > cap.MAX_BYTES:
            raise Refused(413, "too_large", f"the message is larger than {cap.MAX_BYTES // 1024} KiB")
        if len(data) > POOL_BYTES and self._pool is not None:
            try:
                alert, findings = await self._pool.parse(data)
            except BrokenExecutor:
                raise Refused(413, "too_hard", "the message could not be parsed; send it smaller") from None
            resolution = await asyncio.to_thread(self._resolve, alert, issuer)
        else:
            alert, findings = cap.parse(data)
            resolution = self._resolve(alert, issuer)
        errors = [finding for finding in findings if finding.severity == "error"]
        if alert is None or errors:
            raise Refused(
                400, "invalid_alert", f"{len(errors)} errors in the message; mend them and send it again",
                tuple({"code": e.code, "element": e.element, "line": e.line, "message": e.message} for e in errors),
            )  # fmt: skip
        return alert, resolution, findings

    def _resolve(self, alert: Alert | None, issuer: Issuer) -> Resolution:
        return self._regions.resolve(alert.areas, issuer.areas) if alert else Resolution(())

    async def check(
        self,
        alert: Alert,
        resolution: Resolution,
        issuer: Issuer,
        now: datetime,
        warnings: tuple[cap.Finding, ...] = (),
    ) -> Prepared:
        """Authorise, route and plan a message that has been read.

        Raises:
            Refused: 403 outside authority, 422 expired or postdated.
        """
        policy = self._policy()
        await self._overtaken(alert)
        references = await self._referenced(alert)
        previous = references.told
        alert = inherit(alert, previous)
        alert = replace(alert, policy_digest=policy.digest)
        alert = replace(alert, effective=alert.effective or alert.sent, expires=policy.expires(alert))
        check_times(alert, now)
        before = tuple(target for row in previous for target in row.plan.targets)
        if alert.kind in (Kind.CANCEL, Kind.CORRECTION) and before:
            resolution = Resolution(merged(self._regions, before))
        targets, cut = policy.border(issuer, resolution.targets)
        if findings := policy.authority(issuer, alert, targets):
            raise Refused(
                403, "outside_authority", findings[0],
                tuple({"code": finding.split(":", 1)[0], "message": finding} for finding in findings),
            )  # fmt: skip
        hour_ago = now - timedelta(hours=1)
        route = policy.route(
            alert, issuer, targets, now, self._succession(previous, targets, before),
            await self._store.outbox.issued_since(alert.sender, hour_ago),
        )  # fmt: skip
        route = hold_unresolved(route, resolution, targets, alert)
        planned = plan(alert, route, targets, before, policy, now, self._enabled, self._regions.difference)
        return Prepared(alert, issuer, route, planned, references, cut, warnings)

    async def _overtaken(self, alert: Alert) -> None:
        """Refuse a first issue that something later already refers to: it would bring stale news after new."""
        outbox = self._store.outbox
        if alert.kind is not Kind.ALERT or await outbox.find(alert.sender, alert.identifier):
            return  # known: `accept` says duplicate or conflict
        if await outbox.referred_to(alert.sender, alert.identifier):
            raise Refused(
                409, "overtaken", "a later message already updates or ends this one; if it still holds, issue it anew"
            )

    async def _referenced(self, alert: Alert) -> References:
        """Look up the versions this one refers to.

        Raises:
            Refused: 422 where a drill and the real thing would touch each other; 409 where it says what was said.
        """
        rows: dict[str, AlertRow] = {}
        for reference in alert.references:
            for row in await self._store.outbox.find(reference.sender, reference.identifier):
                if row.alert.id != alert.id:
                    rows[row.alert.id] = row
        if any(row.alert.actual != alert.actual for row in rows.values()):
            raise Refused(422, "status_differs", "a drill never updates or ends a real warning, nor the reverse")
        newest = sorted(rows.values(), key=lambda row: row.accepted_at, reverse=True)
        if newest and alert.kind in (Kind.CANCEL, Kind.CORRECTION):
            check_ending(alert.kind, newest)
        told = ("active", "stopped") if alert.kind is Kind.CORRECTION else ("active",)
        return References(
            tuple(row for row in newest if row.standing in told),
            tuple(row for row in newest if row.standing in ("active", "held")),
        )

    def _succession(
        self, previous: Sequence[AlertRow], targets: Sequence[Target], before: Sequence[Target]
    ) -> Succession | None:
        if not previous:
            return None
        difference = self._regions.difference
        return Succession(
            tuple(row.alert for row in previous), difference(before, targets), difference(targets, before)
        )

    # --- a second person --------------------------------------------------------------------------

    async def approve(self, alert: str, principal: Principal) -> Outcome:
        """Let what waits go out: a held alert, or the part of a green one above its ceiling.

        Raises:
            Refused: 403 the own alert or not entitled, 404, 409 nothing waits, 422 expired meanwhile.
        """
        row = await self._waiting(alert, principal)
        now = self._clock.now()
        check_times(row.alert, now)
        references = await self._referenced(row.alert)
        previous = references.told
        before = tuple(target for one in previous for target in one.plan.targets)
        downgrade = (
            bool(previous)
            and row.alert.kind is Kind.UPDATE
            and row.alert.level < max(one.alert.level for one in previous)
        )
        route = Route(row.plan.route, (f"approved: by a second person, {principal.role}",), downgrade=downgrade)
        policy = self._policy()
        whole = plan(row.alert, route, row.plan.targets, before, policy, now, self._enabled, self._regions.difference)
        if not whole.steps:
            raise Refused(
                409, "reaches_nobody", "; ".join(whole.held) or "its area names no known place; issue it anew"
            )
        active = row.standing == "active"
        planned = complete(row.plan, whole, self._regions.difference) if active else whole
        planned = replace(planned, reasons=(*row.plan.reasons, *route.reasons), held=())
        batches, cursors = ([], {}) if active else await self._planner.first(row.alert, planned)
        record = Record(now, actor(principal), "approve", alert, planned.route)
        ended = stops(row.alert.kind, references.live)
        draft = Draft(row.alert, "", planned, batches, cursors, [record], ended, now, row.issuer, held=not active)
        if (await self._store.outbox.approve(draft)).result != "accepted":
            raise Refused(409, "not_waiting", "somebody else has decided on this alert meanwhile")
        await self._store.timers.done("held", alert)
        self._on_accepted(alert, batches)
        return Outcome("accepted", alert, planned.route, planned.reasons, ())

    async def reject(self, alert: str, principal: Principal, reason: str) -> None:
        """End a held alert without sending it.

        Raises:
            Refused: 403, 404 or 409 as `approve`.
        """
        await self._waiting(alert, principal)
        record = Record(self._clock.now(), actor(principal), "reject", alert, reason[:200])
        if not await self._store.outbox.reject(alert, reason[:200], record):
            raise Refused(409, "not_waiting", "nothing of this alert waits for a decision")
        await self._store.timers.done("held", alert)

    async def _waiting(self, alert: str, principal: Principal) -> AlertRow:
        row = await self._known(alert)
        if row.standing not in ("held", "active") or (row.standing == "active" and not row.plan.held):
            raise Refused(409, "not_waiting", "nothing of this alert waits for a decision")
        if principal.role not in ("issuer", "reviewer") or self._policy().issuer(principal.issuer) is None:
            raise Refused(403, "not_entitled", "only an issuer or reviewer may decide on an alert")
        if self._policy().issuer(principal.issuer) != self._policy().issuer(row.alert.sender):
            raise Refused(403, "not_entitled", "only the issuing body's own second person may decide on it")
        if row.issuer == actor(principal):
            raise Refused(403, "own_alert", "nobody approves their own alert; ask a second person")
        return row

    async def recall(self, alert: str, principal: Principal, reason: str) -> bool:
        """Stop an alert at once: nothing more leaves. What has left needs a correction.

        Raises:
            Refused: 403 not entitled, 404 unknown.
        """
        row = await self._known(alert)
        if principal.role not in ("issuer", "reviewer") or self._policy().issuer(
            principal.issuer
        ) != self._policy().issuer(row.alert.sender):
            raise Refused(403, "not_entitled", "only the issuing body may recall its alert")
        record = Record(self._clock.now(), actor(principal), "recall", alert, reason[:200])
        stopped = await self._store.outbox.stop(alert, "recalled", record)
        await self._store.timers.done("held", alert)
        self._on_accepted(alert, ())
        return stopped

    async def cancel(self, alert: str, principal: Principal, note: str, *, correction: bool = False) -> Outcome:
        """Submit the all-clear (or the correction) of an alert in its issuer's name.

        Raises:
            Refused: as `submit`; 404 unknown.
        """
        row = await self._known(alert)
        now = self._clock.now().replace(microsecond=0)
        kind = Kind.CORRECTION if correction else Kind.CANCEL
        message = ending(row.alert, kind, now, note)
        return await self.submit(cap.write(message), principal)

    async def _known(self, alert: str) -> AlertRow:
        row = await self._store.outbox.alert(alert)
        if row is None:
            raise Refused(404, "unknown_alert", "there is no such alert")
        return row


def code_of(reason: str) -> str:
    """Return the code a reason begins with."""
    return reason.split(":", 1)[0]


def actor(principal: Principal) -> str:
    """Who stands in the audit chain: issuer and account name."""
    return f"{principal.issuer}/{principal.name}"


def stops(kind: Kind, live: Sequence[AlertRow]) -> dict[str, str]:
    """Versions that end when this one starts, and why."""
    reason = STOP_REASONS.get(kind)
    return {row.alert.id: reason for row in live} if reason else {}


def check_ending(kind: Kind, referenced: Sequence[AlertRow]) -> None:
    """Refuse an end of what has ended so already, or was never sent.

    Raises:
        Refused: 409.
    """
    newest = referenced[0]
    if newest.standing == "held":
        raise Refused(409, "never_sent", "what it refers to has not been sent; reject it instead")
    if newest.standing == "stopped" and newest.reason == "corrected":
        raise Refused(409, "already_corrected", "a correction has gone out already; nobody is told twice")
    if kind is Kind.CANCEL and newest.standing == "stopped" and newest.reason == "cancelled":
        raise Refused(409, "already_ended", "the all-clear has gone out already; nobody is told twice")


def check_times(alert: Alert, now: datetime) -> None:
    """Refuse what is over or not yet written.

    Raises:
        Refused: 422.
    """
    if alert.expires is not None and alert.expires <= now:
        raise Refused(422, "expired", f"the message expired at {alert.expires.isoformat()}; issue a new one")
    if alert.sent > now + POSTDATED:
        raise Refused(422, "postdated", f"sent lies in the future: {alert.sent.isoformat()}; check the sender's clock")


def inherit(alert: Alert, previous: Sequence[AlertRow]) -> Alert:
    """Fill a Cancel or correction that carries no info with what it ends (CAP allows it)."""
    if alert.kind not in (Kind.CANCEL, Kind.CORRECTION) or alert.infos or not previous:
        return alert
    ended = previous[0].alert
    infos = tuple(Info(info.event, language=info.language, areas=info.areas) for info in ended.infos)
    return replace(
        alert, document=ended.document, event_code=ended.event_code, event=ended.event, level=ended.level, infos=infos
    )


def ending(ended: Alert, kind: Kind, now: datetime, note: str) -> Alert:
    """Return the message that ends or corrects an alert, about the same hazard and area."""
    word = "correction" if kind is Kind.CORRECTION else "cancel"
    infos = tuple(
        replace(info, headline=None, description=None, instruction=None, effective=None, onset=None, expires=None)
        for info in ended.infos
    )
    return replace(
        ended,
        identifier=f"{ended.identifier}-{word}-{now:%Y%m%d%H%M%S}",
        sent=now,
        kind=kind,
        note=note or None,
        infos=infos,
        references=(Reference(ended.sender, ended.identifier, ended.sent),),
        effective=None,
        expires=None,
        policy_digest="",
    )


def merged(regions: Regions, targets: Sequence[Target]) -> tuple[Target, ...]:
    """Union of targets of several versions, in township order."""
    return regions.difference((), targets)


def hold_unresolved(route: Route, resolution: Resolution, targets: Sequence[Target], alert: Alert) -> Route:
    """Hold loudly what names no known place (D2): all of it, or, beside resolved parts, only the rest."""
    if alert.status is Status.DRAFT:
        return route
    if not targets:
        text = "unresolved: the area names no known township; name its townships by code or name"
        return replace(route, kind="normal" if route.kind == "green" else route.kind, held=(*route.held, text))
    if resolution.unresolved:
        names = "、".join(resolution.unresolved[:5])
        return replace(route, held=(*route.held, f"unresolved: {names}; the rest of the area goes out"))
    return route
