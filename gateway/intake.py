"""From the bytes of a request to a durable alert: parse, authenticate, authorise, resolve, route, plan, store.

Called by the API, the CLI and the demo. Only after `submit` returns may the caller answer 202: alert, audit
record, plan and the green steps' opening batches are then one committed transaction. Fails closed on
authority, signatures and input (`Refused`, nothing stored); what is entitled but cannot be decided is stored and held
loudly (D2). Bodies over 64 KiB are parsed and resolved in a process pool, so that a polygon of 41,000
points never delays a red one.

Whether it may go, and which way, says `case`: it asks `lineage` (what it follows), `policy` (authority, route) and
`routing` (the plan), and `standing` where it begins. The transaction is `store.acceptance`. One warning goes on from
here: `planner` → `relay` → `sender` → `receipts`; where it waits for a person, `alarm` rings, `decision` moves it on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from gateway import cap, log, metrics
from gateway.case import Cases, Prepared
from gateway.errors import Refused
from gateway.lineage import likeness
from gateway.model import Alert, Batch, Decision, Document, Lane, Level, Minute, Plan, Record, Resolution
from gateway.planner import Cursor, Planner
from gateway.policy import Issuer, Policy, Principal
from gateway.policy.table import WRITERS
from gateway.pool import ParsePool
from gateway.ports import AlertRow, Clock, Draft
from gateway.standing import Event, Standing
from gateway.store import Store, seal
from gateway.store.meeting import UNDER_REAL

POOL_BYTES = 64 * 1024
SEALED = "sealed code"
REPEATED = frozenset({409, 422})
"""Refusals that a message may meet only because it, or what it asked for, is here already."""

_log = log.get("intake")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a submission: `result` is accepted, held, draft or duplicate; `standing` says where it stands."""

    result: str
    alert: str
    route: str
    reasons: tuple[str, ...]
    held: tuple[str, ...]
    warnings: tuple[cap.Finding, ...] = ()
    standing: str = Standing.ACTIVE
    needs: tuple[str, ...] = ()
    stored: tuple[Alert, Plan] | None = None
    """What stands in the store now, where the one who took it in still has it at hand."""
    halts: tuple[str, ...] = ()
    """Scopes that were halted then."""


class Intake:
    """The way in. `on_accepted` tells the rest of the process (and, by wake-ups, the others).

    `on_green` is called before what goes down the green channel is written: bulk work that steps aside only afterwards
    would keep its commit waiting.
    """

    def __init__(
        self,
        store: Store,
        cases: Cases,
        policy: Callable[[], Policy],
        planner: Planner,
        clock: Clock,
        on_accepted: Callable[[str, Sequence[Batch]], None],
        pool: ParsePool | None = None,
        on_green: Callable[[], None] = lambda: None,
    ) -> None:
        self.cases = cases
        self._store = store
        self._policy = policy
        self._planner = planner
        self._clock = clock
        self._on_accepted = on_accepted
        self._pool = pool
        self._on_green = on_green

    # --- taking in --------------------------------------------------------------------------------

    async def submit(
        self,
        data: bytes,
        principal: Principal,
        received: datetime | None = None,
        *,
        draft: bool = False,
        own: bool = False,
    ) -> Outcome:
        """Take one message in; as a `draft` it is only kept for its writer.

        `own`: this gateway wrote it for the person, so nobody could have signed it.

        Raises:
            Refused: 400 unreadable, 403 outside authority or a signature that does not convince, 409 conflict,
                422 expired or postdated.
            StoreDown: nothing was stored; try again.
        """
        received = received or self._clock.now()
        try:
            outcome = await self._submit(data, principal, received, draft=draft, own=own)
        except Refused as error:
            metrics.alerts.labels("refused").inc()
            _log.info("refused", code=error.code, issuer=principal.issuer)
            raise
        metrics.alerts.labels(outcome.result).inc()
        metrics.accept_seconds.labels(outcome.route).observe((self._clock.now() - received).total_seconds())
        return outcome

    async def _submit(
        self, data: bytes, principal: Principal, received: datetime, *, draft: bool, own: bool
    ) -> Outcome:
        issuer = self.issuer_of(principal)
        try:
            prepared = await self._prepare(data, issuer, received, signer=principal.role == "signer", own=own)
        except Refused as error:
            # What has happened since may have made it late or done; who sends it again after a lost answer is told so.
            if error.status not in REPEATED or (known := await self._known(data, issuer, received)) is None:
                raise
            return known
        if draft:
            prepared = replace(prepared, standing=Standing.DRAFT)
        return await self._store_new(prepared, principal, received)

    async def break_glass(self, data: bytes, code: str, received: datetime | None = None) -> Outcome:
        """Issue one message under a sealed code, past every stage: a locked-out officer's way (D3).

        Authority, area and times are checked as always; unsigned it may be, for the key may be where the officer is
        not. It alarms the leader and is to be countersigned. The same message again, for its answer was lost, is a
        duplicate.

        Raises:
            Refused: 403 the code is unknown, or used for another message; else as `submit`.
        """
        received = received or self._clock.now()
        sealed = await self._store.seals.find(code)
        issuer = self._policy().issuer(sealed.issuer) if sealed else None
        if sealed is None or issuer is None:
            raise self._wrong_code()
        if sealed.used_at is not None:
            known = await self._known(data, issuer, received)
            if known is not None and known.alert == sealed.alert:
                return known
            raise self._wrong_code()
        principal = Principal(f"{SEALED} {sealed.label}", "issuer", issuer.id)
        prepared = await self._prepare(data, issuer, received, sealed=True)
        outcome = await self._store_new(prepared, principal, received, seal.hashed(code))
        if outcome.result == "duplicate" and outcome.standing != Standing.ACTIVE:
            raise Refused(
                409, "conflict",
                f"this message was handed in before and stands at {outcome.standing}; the code is unused: give the "
                "message a new identifier, and use it for that",
            )  # fmt: skip
        if outcome.result != "duplicate":
            metrics.alarms.labels("break_glass").inc()
            _log.critical("break_glass", alert=outcome.alert, issuer=issuer.id, call="duty leader, auditor")
        return outcome

    @staticmethod
    def _wrong_code() -> Refused:
        return Refused(403, "unknown_code", "this sealed code is unknown or used; telephone the duty leader")

    async def _store_new(self, prepared: Prepared, principal: Principal, received: datetime, code: str = "") -> Outcome:
        alert, standing, who = prepared.alert, prepared.standing, actor(principal)
        action = {Standing.ACTIVE: "accept", Standing.DRAFT: "draft"}.get(standing, "hold")
        said = detail(prepared.plan, alert, prepared.signer)
        draft = await self.drafted(
            alert, prepared.plan, standing, received, who,
            stops=prepared.stops if standing is Standing.ACTIVE else {},
            record=Record(received, who, "break_glass" if code else action, alert.id, said),
            decision=Decision("", Event.SUBMIT, who, received), digest=prepared.digest,
        )  # fmt: skip
        if code:
            countersign = received + timedelta(minutes=self._policy().procedure.clock.countersign_within_min)
            draft = replace(draft, seal=code, obligations={**draft.obligations, "countersign": countersign})
        accepted = await self._store.outbox.accept(draft)
        if accepted.result == "duplicate":
            row = await self._store.outbox.alert(accepted.alert)
            if row is not None:
                return _duplicate(row)
            accepted = accepted._replace(result="conflict")  # a draft, and amended this moment
        refuse(accepted.result)
        self._limits(alert.id, prepared.route.alarms)
        if standing is Standing.ACTIVE:
            self._planner.go_on(alert.id, draft.plan, draft.batches, draft.cursors)
            self.announce(alert.id, draft.batches)
        result = {Standing.ACTIVE: "accepted", Standing.DRAFT: "draft"}.get(standing, "held")
        plan = prepared.plan
        return Outcome(
            result,
            alert.id,
            plan.route,
            plan.reasons,
            plan.held,
            prepared.warnings,
            standing,
            plan.needs,
            (alert, plan),
            accepted.halts,
        )

    async def _known(self, data: bytes, issuer: Issuer, now: datetime) -> Outcome | None:
        """Return the outcome of the issuer's own message that stands here already with this very content."""
        taken, _ = await self._read(data, replace(self._policy().trust(issuer), required=False), now, issuer)
        if taken.alert is None:
            return None
        alert = self._policy().adopt(taken.alert)
        if self._policy().issuer(alert.sender) != issuer:
            return None
        known = await self._store.outbox.known(alert.sender, alert.identifier, taken.digest)
        row = await self._store.outbox.alert(known) if known else None
        return _duplicate(row) if row else None

    async def drafted(
        self,
        alert: Alert,
        plan: Plan,
        standing: Standing,
        now: datetime,
        writer: str,
        *,
        stops: Mapping[str, str] = MappingProxyType({}),
        record: Record,
        decision: Decision,
        was: AlertRow | None = None,
        minute: Minute | None = None,
        reason: str = "",
        digest: str = "",
    ) -> Draft:
        """Return everything one transaction writes; opening batches only for what becomes active now."""
        batches: list[Batch] = []
        cursors: dict[int, Cursor] = {}
        if standing is Standing.ACTIVE and (was is None or was.standing != Standing.ACTIVE):
            if any(step.lane is Lane.GREEN for step in plan.steps):
                self._on_green()
            mute, (batches, cursors) = await asyncio.gather(
                self.cases.mute(alert, plan), self._planner.first(alert, plan)
            )
            plan = replace(plan, mute=mute)  # what is known now is gone tomorrow
        elif was is not None:
            plan = replace(plan, mute=was.plan.mute)
        timers, owed = self.cases.duties(alert, plan, standing, now)
        if was is not None and was.standing == standing:
            timers.pop("partner", None)  # one of two partners has agreed: the other is not waited for longer (D9)
        return Draft(
            alert, digest, plan, batches, cursors, [record], dict(stops), now, writer, standing, reason, decision,
            timers, owed, minute, likeness(alert),
        )  # fmt: skip

    def announce(self, alert: str, batches: Sequence[Batch]) -> None:
        """Tell the workers of what has become active, or was stopped."""
        self._on_accepted(alert, batches)

    @staticmethod
    def _limits(alert: str, alarms: Sequence[str]) -> None:
        """Say which usual limits were exceeded. (The alarm for what is held is in the store.)"""
        for text in alarms:
            metrics.alarms.labels("limit").inc()
            _log.warning("limit", alert=alert, why=text)

    # --- reading ----------------------------------------------------------------------------------

    async def prepare(self, data: bytes, principal: Principal, now: datetime, *, own: bool = False) -> Prepared:
        """Do everything but store: also what a preview shows. `own`: see `submit`."""
        return await self._prepare(data, self.issuer_of(principal), now, signer=principal.role == "signer", own=own)

    async def _prepare(
        self,
        data: bytes,
        issuer: Issuer,
        now: datetime,
        *,
        signer: bool = False,
        sealed: bool = False,
        own: bool = False,
    ) -> Prepared:
        trust = self._policy().trust(issuer)
        if trust.required and (sealed or own):
            trust = replace(trust, required=False)
        taken, resolution = await self._read(data, trust, now, issuer)
        alert = self._policy().adopt(sound(taken))
        return await self.cases.check(alert, resolution, issuer, now, taken, signer=signer, sealed=sealed)

    def issuer_of(self, principal: Principal) -> Issuer:
        """Return the body a person writes for.

        Raises:
            Refused: 403.
        """
        issuer = self._policy().issuer(principal.issuer)
        if issuer is None or principal.role not in WRITERS:
            raise Refused(403, "not_an_issuer", f"this token may not issue; use one of: {', '.join(sorted(WRITERS))}")
        return issuer

    async def urgent(self, data: bytes, principal: Principal) -> bool:
        """Whether no rate limit may refuse a message: a real red warning or evacuation, or what updates or ends one.

        One that cannot be read counts too: its sender needs to hear of the mistake, in case it was one of these.

        Raises:
            Refused: 403 this person issues nothing; 413 too large.
        """
        issuer = self.issuer_of(principal)
        (alert, findings, *_), _ = await self._read(data, self._policy().trust(issuer), self._clock.now(), issuer)
        if alert is None or any(finding.severity == "error" for finding in findings) or urgent(alert):
            return True
        for reference in alert.references:
            if any(urgent(row.alert) for row in await self._store.outbox.find(reference.sender, reference.identifier)):
                return True
        return False

    async def _read(self, data: bytes, trust: cap.Trust, now: datetime, issuer: Issuer) -> tuple[cap.Taken, Resolution]:
        if len(data) > cap.MAX_BYTES:
            raise Refused(413, "too_large", f"the message is larger than {cap.MAX_BYTES // 1024} KiB")
        if len(data) > POOL_BYTES and self._pool is not None:
            try:
                return await self._pool.read(data, trust, now, issuer.areas)
            except BrokenExecutor:
                raise Refused(413, "too_hard", "the message could not be parsed; send it smaller") from None
        taken = cap.take(data, trust, now)
        return taken, await self.cases.resolve(taken.alert, issuer) if taken.alert else Resolution(())


def _duplicate(row: AlertRow) -> Outcome:
    plan = row.plan
    return Outcome("duplicate", row.alert.id, plan.route, plan.reasons, plan.held, (), row.standing, plan.needs)


def refuse(result: str) -> None:
    """Turn what the store would not write into a refusal.

    Raises:
        Refused: 403 or 409.
    """
    if result == "overtaken":
        raise Refused(409, "overtaken", "something else has just ended what this refers to; look and decide anew")
    if result == "real_warning":
        raise Refused(409, "real_warning", UNDER_REAL)
    if result == "sealed":
        raise Refused(403, "unknown_code", "this sealed code is unknown or used; telephone the duty leader")
    if result == "conflict":
        raise Refused(
            409, "conflict",
            "this sender has already used this identifier for another content; give the message a new identifier",
        )  # fmt: skip


def sound(taken: cap.Taken) -> Alert:
    """Return the message that was taken, where it has no errors.

    Raises:
        Refused: 400; 403 where its signature does not convince.
    """
    errors = [finding for finding in taken.findings if finding.severity == "error"]
    if taken.alert is not None and not errors:
        return taken.alert
    told: tuple[dict[str, object], ...] = tuple(
        {"code": e.code, "element": e.element, "line": e.line, "message": e.message} for e in errors
    )
    if errors and errors[0].code.startswith("signature_"):
        raise Refused(403, errors[0].code, errors[0].message, told)
    many = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    raise Refused(400, "invalid_alert", f"{many} in the message; mend and send it again", told)


def detail(plan: Plan, alert: Alert, signer: str = "") -> str:
    """Return what the chain keeps: codes only, for an issuer's own words could name a person."""
    parts = (plan.route, *(reason.split(":", 1)[0] for reason in (*plan.reasons, *plan.held)))
    signed = f"signed by {signer[:16]}; " if signer else ""
    return f"policy {alert.policy_digest[:12]}; {signed}" + "; ".join(dict.fromkeys(parts))


def actor(principal: Principal) -> str:
    """Who stands in the audit chain: issuer and account name."""
    return f"{principal.issuer}/{principal.name}"


def urgent(alert: Alert) -> bool:
    """Whether lives hang on it at once: a real red warning or evacuation."""
    return alert.actual and (alert.level is Level.RED or alert.document is Document.EVACUATION)
