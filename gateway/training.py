"""Drills carried out: planned by one person, approved by another, announced, begun and ended by the clock (D19).

Called by the API; the timer `drill` calls `due`. A drill takes the ordinary way of an alert: handed in by who planned
it, signed by who approved it, with every check of that moment. What may not begin then is refused, never put off: for
people were told an hour. Its approver is told, by an obligation; whoever was told of a drill hears that it is off, also
where a person has cancelled it. A real orange, red or evacuation stops it in its own transaction
(`gateway.store.meeting`), and then nothing else is said.

Each step may be repeated after a crash: the same plan is the same message, and a drill moves on only from the stage it
was seen at.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from gateway import cap, log, metrics
from gateway.decision import REASON_CHARS, Decisions
from gateway.directory.people import SqlDirectory
from gateway.drill import (
    LATE,
    TESTS,
    TOLD_LATE,
    UNHEARD,
    DrillKind,
    Exercise,
    again,
    announcement,
    call_off,
    check,
    exercise,
    off_name,
)
from gateway.errors import Refused
from gateway.intake import Intake, actor
from gateway.model import Alert, Record, Target
from gateway.policy import Issuer, Policy, Principal
from gateway.ports import Clock
from gateway.regions import Regions
from gateway.standing import REAL, Event, Hand, Standing, check_hand
from gateway.store import Store
from gateway.store.drill import AHEAD, Drill, Stage, Tests
from gateway.store.meeting import RealWarningError, bar

CALL_OFF_AGAIN = timedelta(minutes=10)
OFF = frozenset({Stage.CANCELLED, Stage.REFUSED})

_log = log.get("drill")


class Drills:
    """Plans, approves, announces, begins and ends drills."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        decisions: Decisions,
        directory: SqlDirectory,
        regions: Regions,
        policy: Callable[[], Policy],
        clock: Clock,
    ) -> None:
        self._store = store
        self._intake = intake
        self._decisions = decisions
        self._directory = directory
        self._regions = regions
        self._policy = policy
        self._clock = clock

    # --- people -----------------------------------------------------------------------------------

    async def plan(self, wanted: Exercise, principal: Principal) -> Drill:
        """Plan a drill. Everything is checked as if it began now; a second person approves it.

        Raises:
            Refused: 403 outside authority, 409 a real orange, red or evacuation covers the area, 422.
        """
        now, rules = self._clock.now(), self._policy().drill
        check(wanted, rules, now)
        if unknown := self._regions.unknown(wanted.areas):
            raise Refused(422, "unknown_area", unknown)
        issuer = self._intake.issuer_of(principal)
        id_ = secrets.token_hex(10)
        lead = timedelta() if wanted.kind in UNHEARD else timedelta(hours=rules.notice_h)
        drill = Drill(
            id_, id_, issuer.id, wanted.kind, wanted.areas, wanted.groups, wanted.starts_at, wanted.ends_at,
            wanted.starts_at - lead, wanted.document, wanted.event_code, wanted.event, wanted.level, wanted.notice,
            wanted.rule, actor(principal), principal.role, now,
        )  # fmt: skip
        await self._try(drill, principal)
        await self._store.drills.plan(drill, self._record("drill_plan", drill, drill.planner))
        metrics.drills.labels(drill.kind, Stage.PLANNED.value).inc()
        return drill

    async def approve(self, id_: str, principal: Principal) -> Drill:
        """Approve a drill, and all that repeat it. Nobody approves their own; a signer of the same body does.

        Raises:
            Refused: 403 the own drill or not entitled, 404, 409 nothing to approve, or too late; else as `plan`.
        """
        drill = await self._known(id_)
        hand = Hand(actor(principal), principal.role, principal.issuer == drill.issuer)
        check_hand(Standing.SIGN, Event.APPROVE, hand, drill.planner, ())
        if drill.stage is not Stage.PLANNED:
            raise Refused(409, "not_waiting", f"this drill is {drill.stage}; only a planned one is approved")
        if self._clock.now() >= drill.notice_at:
            raise Refused(409, "too_late", "people should have been told by now; cancel it and plan it anew")
        await self._try(drill, self._person(drill.planner, drill.planner_role))
        record = self._record("drill_approve", drill, hand.actor)
        approved = {"approver": hand.actor, "approver_role": principal.role}
        if not await self._store.drills.move(id_, {Stage.PLANNED}, Stage.APPROVED, record, values=approved):
            raise Refused(409, "not_waiting", "somebody else has decided on this drill meanwhile; look again")
        metrics.drills.labels(drill.kind, Stage.APPROVED.value).inc()
        return await self._known(id_)

    async def cancel(self, id_: str, principal: Principal, reason: str) -> Drill:
        """Give up a drill, and those that would repeat it; one that runs stops at once. Any writer of its body may.

        Raises:
            Refused: 403 not entitled, 404, 409 it is over.
        """
        drill = await self._known(id_)
        if principal.issuer != drill.issuer:
            raise Refused(403, "not_entitled", "the body that planned it cancels it")
        if drill.stage is Stage.RUNNING and drill.alert:
            await self._decisions.recall(drill.alert, principal, reason)
            return await self._known(id_)
        record, why = self._record("drill_cancel", drill, actor(principal)), {"reason": reason[:REASON_CHARS]}
        to = Stage.STOPPED if drill.stage is Stage.RUNNING else Stage.CANCELLED
        at = {Stage.RUNNING} if drill.stage is Stage.RUNNING else AHEAD
        told = self._clock.now() if drill.stage is Stage.ANNOUNCED and drill.announcement else None
        if drill.stage not in at or not await self._store.drills.move(id_, at, to, record, due=told, values=why):
            raise Refused(409, "over", f"this drill is {(await self._known(id_)).stage}")
        await self._silence(drill, principal, reason)
        metrics.drills.labels(drill.kind, Stage.CANCELLED.value).inc()
        return await self._known(id_)

    async def _known(self, id_: str) -> Drill:
        drill = await self._store.drills.get(id_)
        if drill is None:
            raise Refused(404, "unknown_drill", "there is no such drill; GET /v1/drills lists them")
        return drill

    # --- the clock --------------------------------------------------------------------------------

    async def due(self, id_: str) -> datetime | None:
        """Handler of the timer `drill`: tell people, then begin. What may not be done now is refused, and why."""
        drill = await self._store.drills.get(id_)
        now = self._clock.now()
        if drill is not None and drill.stage in OFF:
            return await self._call_off(drill, now)
        if drill is None or drill.stage not in AHEAD:
            return None
        due = drill.starts_at if drill.stage is Stage.ANNOUNCED else drill.notice_at
        if due > now:
            return due
        if why := _too_late(drill, due, now):
            return await self._refuse(drill, why)
        try:
            if drill.stage is Stage.APPROVED:
                return await self._announce(drill)
            await self._begin(drill)
        except Refused as error:
            return await self._refuse(drill, error.code)
        except RealWarningError:  # it came while the self-test was made ready
            return await self._refuse(drill, REAL)
        return None

    async def _announce(self, drill: Drill) -> datetime:
        """Tell people that there will be a drill; return when it begins."""
        told = ""
        if drill.kind not in UNHEARD:
            issuer, names = self._body(drill), self._names(drill)
            message = announcement(drill.id, _wanted(drill), issuer, names, drill.notice_at)
            told = await self._issue(drill, message)
        record = self._record("drill_announce", drill, "gateway")
        await self._store.drills.move(
            drill.id, {Stage.APPROVED}, Stage.ANNOUNCED, record, due=drill.starts_at, values={"announcement": told}
        )
        return drill.starts_at

    async def _call_off(self, drill: Drill, now: datetime) -> datetime | None:
        """Tell those who were told of it that it is off; return when to try again where nobody may be told now.

        Where a real warning takes its place nothing is said: "off" is not to be heard beside it.
        """
        row = await self._store.outbox.alert(drill.announcement) if drill.announcement else None
        if row is None or row.standing != Standing.ACTIVE or drill.reason == REAL or now >= drill.ends_at:
            return None
        known = await self._store.outbox.find(row.alert.sender, off_name(drill.id))
        sent = known[0].alert.sent if known else now.replace(microsecond=0)  # said again, it is the same message
        try:
            message = call_off(drill.id, _wanted(drill), self._body(drill), self._names(drill), row.alert, sent)
            if self._policy().drill_hours(message, now):
                return now + CALL_OFF_AGAIN
            await self._issue(drill, message)
        except Refused as error:
            _log.warning("drill_not_called_off", drill=drill.id, why=error.code)
            return now + CALL_OFF_AGAIN
        record = self._record("drill_call_off", drill, "gateway")
        await self._store.audit.append(record)
        return None

    async def _begin(self, drill: Drill) -> None:
        alert, tests = "", None
        if drill.kind in TESTS:
            self._person(drill.approver, drill.approver_role)
            await self._try(drill, self._person(drill.planner, drill.planner_role))
            audible = {"audible": drill.kind == DrillKind.SELF_TEST_AUDIBLE}
            targets = self._regions.resolve_alert(self._message(drill), ()).targets
            tests = Tests(await self._devices(targets), audible, drill.ends_at, partial(bar, targets=targets))
        else:
            alert = await self._issue(drill, self._message(drill))
        record, then = self._record("drill_start", drill, "gateway"), self._next(drill)
        if await self._store.drills.move(
            drill.id, {Stage.ANNOUNCED}, Stage.RUNNING, record, then=then, values={"alert": alert}, tests=tests
        ):
            metrics.drills.labels(drill.kind, Stage.RUNNING.value).inc()
            _log.info("drill_start", drill=drill.id, kind=drill.kind)
        elif alert and (await self._known(drill.id)).stage is Stage.CANCELLED:
            await self._silence(drill, self._person(drill.planner, drill.planner_role), Stage.CANCELLED)

    async def _silence(self, drill: Drill, principal: Principal, reason: str) -> None:
        """Recall the message of a drill that was cancelled in the moment it began."""
        message = self._message(drill)
        for row in await self._store.outbox.find(message.sender, message.identifier):
            if row.standing == Standing.ACTIVE:
                await self._decisions.recall(row.alert.id, principal, reason)

    async def _issue(self, drill: Drill, message: Alert) -> str:
        """Hand a message in as who planned the drill, and sign it as who approved it; return its id.

        Raises:
            Refused: one of them may not any more, or the message may not go out now.
        """
        planner = self._person(drill.planner, drill.planner_role)
        approver = self._person(drill.approver, drill.approver_role)
        outcome = await self._intake.submit(cap.write(message), planner, own=True)
        if outcome.standing in (Standing.ACTIVE, Standing.STOPPED):
            return outcome.alert  # a crash came between this and the note of it
        try:
            await self._decisions.approve(outcome.alert, approver)
        except Refused as error:
            if error.code != "real_warning":  # else it has stopped what waits, too
                await self._decisions.withdraw(outcome.alert, planner, error.code)
            raise
        return outcome.alert

    async def _devices(self, targets: Sequence[Target]) -> list[int]:
        """Return the loudspeakers in service of the area.

        Raises:
            Refused: 409, there is none.
        """
        found = await self._directory.devices(self._regions.expand(targets))
        if not found:
            raise Refused(409, "no_loudspeakers", "no loudspeaker of the area is in service; look at the roster")
        return sorted(device for devices in found.values() for device in devices)

    async def _refuse(self, drill: Drill, code: str) -> datetime | None:
        """Do not begin it, and let its approver know; return when those who were told of it are to hear that it is off.

        Of a real warning nobody needs to be told.
        """
        record = self._record("drill_refuse", drill, "gateway", code)
        then = self._next(drill) if drill.approver else None
        owed = "drill_missed" if drill.approver and code != REAL else ""
        off = self._clock.now() if drill.announcement else None
        if not await self._store.drills.move(
            drill.id, AHEAD, Stage.REFUSED, record, due=off, then=then, values={"reason": code}, owed=owed
        ):
            return None
        metrics.drills.labels(drill.kind, Stage.REFUSED.value).inc()
        _log.warning("drill_refused", drill=drill.id, why=code)
        return off

    def _next(self, drill: Drill) -> Drill | None:
        """Return the next of a series; the approval counts for it too."""
        now = self._clock.now()
        lead, lasts = drill.starts_at - drill.notice_at, drill.ends_at - drill.starts_at
        at = again(drill.rule, drill.starts_at, now + lead)
        if at is None:
            return None
        return replace(
            drill, id=secrets.token_hex(10), starts_at=at, ends_at=at + lasts, notice_at=at - lead, made_at=now,
            stage=Stage.APPROVED, reason="", alert="", announcement="", ended_at=None,
        )  # fmt: skip

    # --- parts ------------------------------------------------------------------------------------

    async def _try(self, drill: Drill, planner: Principal) -> None:
        """Check both messages as if they were handed in now, but for the hour, which is the planned one.

        Raises:
            Refused: as `Intake.submit`; 422 what would be held, or reaches nobody.
        """
        issuer, names, wanted = self._body(drill), self._names(drill), _wanted(drill)
        messages = [(exercise(drill.id, wanted, issuer, names), drill.starts_at)]
        if drill.kind not in UNHEARD:
            messages.append((announcement(drill.id, wanted, issuer, names, drill.notice_at), drill.notice_at))
        for message, at in messages:
            prepared = await self._intake.prepare(cap.write(message), planner, at, own=True)
            if prepared.route.held or prepared.plan.held:
                raise Refused(422, "would_be_held", (prepared.route.held or prepared.plan.held)[0])
            if not prepared.plan.steps and drill.kind not in TESTS:
                raise Refused(422, "reaches_nobody", "; ".join(prepared.plan.reasons) or "nobody would be told")

    def _person(self, who: str, role: str) -> Principal:
        """Return the person, who must still hold the post.

        Raises:
            Refused: 403.
        """
        found = self._policy().person(who, role)
        if found is None:
            raise Refused(403, "person_gone", "who planned or approved it holds this post no more; plan it anew")
        return found

    def _body(self, drill: Drill) -> Issuer:
        issuer = self._policy().issuer(drill.issuer)
        if issuer is None:
            raise Refused(403, "not_an_issuer", "its issuer is no longer in authority.toml")
        return issuer

    def _message(self, drill: Drill) -> Alert:
        return exercise(drill.id, _wanted(drill), self._body(drill), self._names(drill))

    def _names(self, drill: Drill) -> list[str]:
        return [self._regions.path_name(area) for area in drill.areas]

    def _record(self, action: str, drill: Drill, who: str, why: str = "") -> Record:
        detail = "; ".join(filter(None, (drill.kind, " ".join(drill.areas), drill.starts_at.isoformat(), why)))
        return Record(self._clock.now(), who, action, drill.id, detail)


def _too_late(drill: Drill, due: datetime, now: datetime) -> str:
    """Return why it is too late for what is due, or ""."""
    if drill.stage is Stage.PLANNED:
        return "not_approved"
    return "late" if now > due + (LATE if due == drill.starts_at else TOLD_LATE) else ""


def _wanted(drill: Drill) -> Exercise:
    return Exercise(
        DrillKind(drill.kind), drill.areas, drill.groups, drill.starts_at, drill.ends_at, drill.event_code,
        drill.event, drill.level, drill.document, drill.notice, drill.rule,
    )  # fmt: skip
