"""Decisions on a stored alert: review, sign, return, reject, withdraw, authorise by telephone, join, amend, recall.

An active one may also be given the approval number its area request waits for (`number`).

What is possible says `standing`; who may, too. Every decision is one transaction that changes the row only from the
standing and revision it was taken on, so of two at once one stands and the other hears of it. What goes out here
is checked anew against what is in force by then, and goes on as from `intake`.

**Source:** duty-room rules D3 (telephone), D7 (ends and corrections), D9 (joint warnings).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from gateway import cap
from gateway.case import POSTDATED, Cases, Prepared, check_times, completed, downgrades
from gateway.directory.vault import Vault
from gateway.errors import Refused
from gateway.intake import Intake, Outcome, actor, detail, refuse
from gateway.lineage import References, check_drill, likeness, stops
from gateway.model import Alert, Decision, Group, Kind, Minute, Notice, Partner, Plan, Record, Reference, Status, Target
from gateway.policy import Issuer, Policy, Principal, Route
from gateway.policy.hazard import CHINA
from gateway.ports import AlertRow, Clock
from gateway.regions import Regions
from gateway.regions.target import named
from gateway.routing import WAITS, complete
from gateway.standing import DEPUTISED, WRITERS, Event, Hand, Standing, check_hand, since, step, this_round
from gateway.store import Store
from gateway.telling import SHORT_TEXT

REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class Telephone:
    """Who authorised by telephone (D3): name, post, number, when, and a recording's number or a second witness."""

    name: str
    post: str
    number: str
    at: datetime
    recording: str = ""
    witness: str = ""

    def sealed(self, vault: Vault, now: datetime) -> bytes:
        """Return it encrypted.

        Raises:
            Refused: 422, nothing proves the call, or it has not taken place yet.
        """
        if self.at > now + POSTDATED:
            said = self.at.astimezone(CHINA).isoformat(" ", "minutes")
            raise Refused(422, "postdated", f"the call lies in the future: {said}; give the time it was made")
        if not (self.recording or self.witness):
            raise Refused(422, "no_proof", "give the number of the recording, or the name of a second witness")
        return vault.seal(json.dumps(asdict(self) | {"at": self.at.isoformat()}, ensure_ascii=False).encode())


class Decisions:
    """What people decide. Built beside `Intake`, whose transaction it shares."""

    def __init__(
        self,
        intake: Intake,
        cases: Cases,
        store: Store,
        regions: Regions,
        policy: Callable[[], Policy],
        vault: Vault,
        clock: Clock,
    ) -> None:
        self._intake = intake
        self._cases = cases
        self._store = store
        self._regions = regions
        self._policy = policy
        self._vault = vault
        self._clock = clock

    # --- a second person --------------------------------------------------------------------------

    async def approve(self, alert: str, principal: Principal) -> Outcome:
        """Review or sign what waits, or countersign what waits of an active alert.

        Raises:
            Refused: 403 the own alert or not entitled, 404, 409 nothing waits, 422 expired meanwhile.
        """
        row = await self._known(alert)
        event = self._approving(row)
        await self._check(row, event, principal)
        return await self._onward(row, event, principal, f"approved: {principal.role}")

    async def authorise(self, alert: str, principal: Principal, call: Telephone) -> Outcome:
        """Write down a telephone authorisation: it counts as the second person, and the alert goes out (D3).

        A signer countersigns within the policy's time, or it stands in the daily report.

        Raises:
            Refused: as `approve`; 422 nothing proves the call, or it lies in the future.
        """
        row = await self._known(alert)
        self._approving(row)
        minute = self._minute("authorise", principal, call)
        await self._check(row, Event.AUTHORISE, principal)
        return await self._onward(row, Event.AUTHORISE, principal, "telephone: authorised by telephone", minute)

    def _minute(self, kind: str, principal: Principal, call: Telephone) -> Minute:
        now = self._clock.now()
        return Minute(kind, actor(principal), now, call.sealed(self._vault, now))

    def _approving(self, row: AlertRow) -> Event:
        if row.standing != Standing.ACTIVE:
            return Event.APPROVE
        if not row.plan.held:
            raise Refused(409, "not_waiting", "nothing of this alert waits for a decision")
        return Event.COUNTERSIGN

    async def release(self, alert: str, principal: Principal) -> Outcome:
        """Let a near-duplicate go out all the same (D4).

        Raises:
            Refused: as `approve`.
        """
        row = await self._known(alert)
        await self._check(row, Event.RELEASE, principal)
        return await self._anew(row, Event.RELEASE, principal)

    async def join(self, alert: str, principal: Principal, call: Telephone | None = None, partner: str = "") -> Outcome:
        """Agree to a joint warning as its partner, or write down that `partner` did so by telephone (D9).

        Raises:
            Refused: 403 no partner of it; else as `approve`.
        """
        row = await self._known(alert)
        body = self._policy().issuer(partner or principal.issuer)
        waited = self._policy().partners(row.alert, self._body(row))
        if body is None or body not in waited:
            names = ", ".join(one.id for one in waited) or "nobody"
            raise Refused(403, "not_entitled", f"this alert waits for: {names}")
        own = principal.issuer == body.id and (call is not None or principal.role in WRITERS)
        if not own and (call is None or principal.issuer != self._body(row).id):
            raise Refused(403, "not_entitled", "the partner's own writers agree, or a duty officer notes a call")
        step(Standing(row.standing), Event.JOIN, [])
        minute = None
        if call is not None:
            minute = self._minute("join", principal, call)
        life = this_round(await self._store.outbox.decisions(row.alert.id))
        done = {one.reason for one in life if one.event == Event.JOIN}
        reason = f"joint: with {body.name}"
        agreed = row._replace(alert=joined(row.alert, body))
        if {one.id for one in waited} - done - {body.id}:
            return await self._stay(agreed, Event.JOIN, principal, body.id, reason, minute)
        return await self._onward(agreed, Event.JOIN, principal, reason, minute, note=body.id)

    async def alone(self, alert: str, principal: Principal) -> Outcome:
        """Publish a joint warning under the own name, once the partner has been waited for (D9).

        Raises:
            Refused: 409 too early; else as `approve`.
        """
        row = await self._known(alert)
        await self._check(row, Event.ALONE, principal)
        life = await self._store.outbox.decisions(row.alert.id)
        ready = since(row.standing, life, row.accepted_at) + self._policy().procedure.partner_wait(row.alert)
        if self._clock.now() < ready:
            raise Refused(
                409, "too_early", f"the partner has until {ready.astimezone(CHINA):%H:%M}; telephone it meanwhile"
            )
        return await self._onward(row, Event.ALONE, principal, "alone: published under the own name")

    async def number(self, alert: str, principal: Principal, number: str) -> Outcome:
        """Add the approval number (审批号) an active alert's area request waits for; that request alone goes out.

        The same number again answers the same.

        Raises:
            Refused: 403 no signer of the issuing body or outside authority, 404, 409 not active, another number, or
                nothing waits for one, 422 expired.
        """
        row = await self._known(alert)
        await self._check(row, Event.NUMBER, principal)
        check_times(row.alert, self._clock.now())
        plan = row.plan
        if not row.alert.approval:
            approved = row.alert.approved(number)
            plan = await self._with_areas(row, approved)
            await self._move(row, approved, plan, Standing.ACTIVE, Event.NUMBER, principal, note=number, said=number)
        elif row.alert.approval != number:
            raise Refused(409, "another_number", "it has another approval number; issue an update to change it")
        return Outcome("accepted", alert, plan.route, plan.reasons, plan.held, (), Standing.ACTIVE, plan.needs)

    async def _with_areas(self, row: AlertRow, alert: Alert) -> Plan:
        """Return the plan with the area requests that waited, as authority, regime and channels are now."""
        now, policy, was = self._clock.now(), self._policy(), row.plan
        if not any(text.startswith(WAITS) for text in (*was.held, *was.reasons)):
            raise Refused(409, "not_waiting", "no area request of this alert waits for an approval number")
        _, before, lowered = await self._followed(row)
        within = timedelta(minutes=policy.procedure.duplicate.within_min)
        around = await self._store.outbox.around(alert, "", now, within)
        kind = was.route
        if kind == "emergency" and not self._cases.emergency(around, named(was.targets)):
            kind = "normal"  # the regime is over, and with it the rows that count under it alone
        route = Route(kind, (), downgrade=lowered, decided=True)
        whole = self._cases.plan(alert, route, was.targets, before, self._body(row), now, was.parts)
        areas = tuple(one for one in whole.steps if one.audience.group is Group.AREA)
        grown = complete(was, replace(whole, steps=areas), self._regions.difference).steps
        if len(grown) == len(was.steps):
            over = "the emergency regime is over" if kind != was.route else ""
            why = "; ".join(
                filter(None, (over, *(text for text in (*whole.held, *whole.reasons) if Group.AREA in text)))
            )
            raise Refused(409, "reaches_nobody", why or "no row of plan.toml lets an area request out now")
        reasons = (*_without(was.reasons), "area_approval: the number has come, and the area is asked for as well")
        return replace(was, steps=grown, held=_without(was.held), reasons=reasons)

    # --- back -------------------------------------------------------------------------------------

    async def return_(self, alert: str, principal: Principal, reason: str) -> None:
        """Give a waiting alert back to its writer.

        Raises:
            Refused: as `approve`.
        """
        await self._end(alert, Event.RETURN, principal, reason)

    async def reject(self, alert: str, principal: Principal, reason: str) -> None:
        """End a waiting alert without sending it.

        Raises:
            Refused: as `approve`.
        """
        await self._end(alert, Event.REJECT, principal, reason)

    async def withdraw(self, alert: str, principal: Principal, reason: str) -> None:
        """Take back what one has written and nobody has sent.

        Raises:
            Refused: 403 not its writer; else as `approve`.
        """
        row = await self._known(alert)
        if row.issuer != actor(principal):
            raise Refused(403, "not_its_writer", "only its writer withdraws it; a second person rejects it")
        await self._end(alert, Event.WITHDRAW, principal, reason)

    async def _end(self, alert: str, event: Event, principal: Principal, reason: str) -> None:
        row = await self._known(alert)
        await self._check(row, event, principal)
        to, _ = step(Standing(row.standing), event, [])
        await self._move(row, row.alert, row.plan, to, event, principal, reason=reason[:REASON_CHARS])

    # --- drafts -----------------------------------------------------------------------------------

    async def amend(self, alert: str, data: bytes, principal: Principal) -> Outcome:
        """Store another wording of a draft, or of what was returned; it is a draft then.

        Raises:
            Refused: 403 not its writer, 409 another sender or identifier, or no draft; else as `Intake.submit`.
        """
        row = await self._written(alert, Event.AMEND, principal)
        prepared = await self._intake.prepare(data, principal, self._clock.now())
        new = prepared.alert
        if (new.sender, new.identifier) != (row.alert.sender, row.alert.identifier):
            raise Refused(409, "another_alert", f"a draft keeps its sender and identifier: {row.alert.identifier}")
        await self._move(row, new, prepared.plan, Standing.DRAFT, Event.AMEND, principal, digest=prepared.digest)
        return self._outcome(prepared, Standing.DRAFT)

    async def submit(self, alert: str, principal: Principal) -> Outcome:
        """Hand a draft on: it takes the way its route says now.

        Raises:
            Refused: 403 not its writer, 409 no draft, or one by its status; else as `Intake.submit`.
        """
        row = await self._written(alert, Event.SUBMIT, principal)
        if row.alert.status is Status.DRAFT:
            raise Refused(409, "draft_status", "its CAP status is Draft, which is never sent; amend it first")
        return await self._anew(row, Event.SUBMIT, principal)

    async def _written(self, alert: str, event: Event, principal: Principal) -> AlertRow:
        """Return a draft to its writer only: who wrote a word of it could else approve their own."""
        row = await self._known(alert)
        await self._check(row, event, principal)
        if row.issuer != actor(principal):
            raise Refused(403, "not_its_writer", "only its writer amends it and hands it on; save it as your own draft")
        return row

    async def _anew(self, row: AlertRow, event: Event, principal: Principal) -> Outcome:
        """Route it as if it came in now: nobody has decided on it yet."""
        issuer, again, signer = self._body(row), event is Event.RELEASE, principal.role == "signer"
        found = await self._cases.resolve(row.alert, issuer)
        prepared = await self._cases.check(row.alert, found, issuer, self._clock.now(), signer=signer, again=again)
        await self._move(row, prepared.alert, prepared.plan, prepared.standing, event, principal, stops_=prepared.stops)
        return self._outcome(prepared, prepared.standing)

    @staticmethod
    def _outcome(prepared: Prepared, standing: Standing) -> Outcome:
        result = {Standing.ACTIVE: "accepted", Standing.DRAFT: "draft"}.get(standing, "held")
        plan = prepared.plan
        return Outcome(
            result, prepared.alert.id, plan.route, plan.reasons, plan.held, prepared.warnings, standing, plan.needs
        )

    # --- out ----------------------------------------------------------------------------------------

    async def recall(self, alert: str, principal: Principal, reason: str) -> bool:
        """Stop an alert at once: nothing more leaves. What has left needs a correction. False: it was over already.

        Raises:
            Refused: 403 not entitled, 404 unknown.
        """
        row = await self._known(alert)
        hand = await self._hand(row, Event.RECALL, principal, ())
        check_hand(Standing.ACTIVE, Event.RECALL, hand, row.issuer, ())
        record = Record(self._clock.now(), hand.actor, Event.RECALL, alert)
        stopped = await self._store.outbox.stop(alert, "recalled", record, reason[:REASON_CHARS])
        self._intake.announce(alert, ())
        return stopped

    async def cancel(self, alert: str, principal: Principal, note: str, *, correction: bool = False) -> Outcome:
        """Submit the all-clear (or the correction) of an alert in its issuer's name.

        Raises:
            Refused: as `Intake.submit`; 404 unknown.
        """
        row = await self._known(alert)
        now = self._clock.now().replace(microsecond=0)
        kind = Kind.CORRECTION if correction else Kind.CANCEL
        message = ending(row.alert, kind, now, note)
        return await self._intake.submit(cap.write(message), principal, own=True)

    # --- parts ------------------------------------------------------------------------------------

    async def _known(self, alert: str) -> AlertRow:
        row = await self._store.outbox.alert(alert)
        if row is None:
            raise Refused(404, "unknown_alert", "there is no such alert")
        return row

    def _body(self, row: AlertRow) -> Issuer:
        issuer = self._policy().issuer(row.alert.sender)
        if issuer is None:
            raise Refused(403, "not_an_issuer", "its issuer is no longer in authority.toml")
        return issuer

    async def _hand(self, row: AlertRow, event: Event, principal: Principal, life: Sequence[Decision]) -> Hand:
        """Return the person; the deputy of an absent signer stands in once the policy's time is over."""
        issuer, procedure = self._body(row), self._policy().procedure
        entitled = principal.issuer == issuer.id
        if not entitled and event in DEPUTISED and principal.issuer in procedure.deputies(issuer.id):
            patience = timedelta(minutes=procedure.approval_of(row.alert).escalate_after_min)
            waits = self._clock.now() - since(row.standing, life, row.accepted_at)
            entitled = principal.role == "signer" and waits >= patience
        return Hand(actor(principal), principal.role, entitled)

    async def _check(self, row: AlertRow, event: Event, principal: Principal) -> None:
        """Refuse what is not possible here, and whoever may not."""
        standing = Standing(row.standing)
        step(standing, event, [])
        life = await self._store.outbox.decisions(row.alert.id)
        before = {one.actor for one in this_round(life) if one.event == Event.APPROVE}
        check_hand(standing, event, await self._hand(row, event, principal, life), row.issuer, before)

    async def _stay(
        self, row: AlertRow, event: Event, principal: Principal, note: str, reason: str, minute: Minute | None
    ) -> Outcome:
        planned = replace(row.plan, reasons=(*row.plan.reasons, reason))
        standing = Standing(row.standing)
        await self._move(row, row.alert, planned, standing, event, principal, minute=minute, note=note)
        return Outcome("held", row.alert.id, planned.route, planned.reasons, planned.held, (), standing, planned.needs)

    async def _onward(
        self,
        row: AlertRow,
        event: Event,
        principal: Principal,
        reason: str,
        minute: Minute | None = None,
        note: str = "",
    ) -> Outcome:
        """Move it to its next stage, or out."""
        needs = tuple(map(Standing, row.plan.needs))
        to, left = step(Standing(row.standing), event, needs)
        alert, plan = row.alert, replace(row.plan, needs=left, reasons=(*row.plan.reasons, reason))
        ended: dict[str, str] = {}
        if to is Standing.ACTIVE:
            alert, plan, ended = await self._launch(row, plan)
        await self._move(row, alert, plan, to, event, principal, stops_=ended, minute=minute, note=note)
        result = "accepted" if to is Standing.ACTIVE else "held"
        return Outcome(result, row.alert.id, plan.route, plan.reasons, plan.held, (), to, left)

    async def _launch(self, row: AlertRow, standing_plan: Plan) -> tuple[Alert, Plan, dict[str, str]]:
        """Plan it anew by what is in force now; an active one is completed by what was missing."""
        alert, now, policy = row.alert, self._clock.now(), self._policy()
        check_times(alert, now)
        active = row.standing == Standing.ACTIVE
        references, before, lowered = await self._followed(row)
        within = timedelta(minutes=policy.procedure.duplicate.within_min)
        around = await self._store.outbox.around(alert, "", now, within)
        targets = row.plan.targets
        check_drill(alert, targets, around)
        if closed := policy.drill_hours(alert, now):
            raise Refused(409, "drill_hours", closed)
        route = Route(row.plan.route, standing_plan.reasons, downgrade=lowered, decided=True)
        whole = self._cases.plan(alert, route, targets, before, self._body(row), now, row.plan.parts)
        waits = tuple(text for text in whole.held if text.startswith(WAITS))
        # One that was held already is acknowledged now: it rings no longer, and the number may still come.
        known = tuple(text for text in waits if active and text in row.plan.held)
        if not whole.steps:
            raise Refused(
                409, "reaches_nobody", "; ".join(whole.held) or "its area names no known place; issue it anew"
            )
        plan = complete(row.plan, whole, self._regions.difference) if active else whole
        ended = stops(alert.kind, references.live)
        earlier = row.plan.supersedes if active else ()
        plan = replace(
            plan,
            reasons=(*standing_plan.reasons, *known),
            held=tuple(text for text in waits if text not in known),
            needs=(),
            supersedes=(*earlier, *sorted(ended)),
        )
        return completed(alert, policy), plan, ended

    async def _followed(self, row: AlertRow) -> tuple[References, tuple[Target, ...], bool]:
        """Return what it follows, where that was in force, and whether it lowers its level.

        An active one has ended its predecessors already: what changed for whom stands in its own plan.
        """
        if row.standing == Standing.ACTIVE:
            return References(), row.plan.before, any(one.notice is Notice.DOWNGRADE for one in row.plan.steps)
        found = await self._cases.lineage.references(row.alert)
        before = tuple(target for one in found.told for target in one.plan.targets)
        return found, before, downgrades(row.alert, found.told)

    async def _move(
        self,
        row: AlertRow,
        alert: Alert,
        plan: Plan,
        to: Standing,
        event: Event,
        principal: Principal,
        *,
        stops_: dict[str, str] | None = None,
        minute: Minute | None = None,
        reason: str = "",
        note: str = "",
        said: str = "",
        digest: str = "",
    ) -> None:
        """Store where it stands now; `said` goes into the audit chain, `note` and `reason` only into its life."""
        now, who = self._clock.now(), actor(principal)
        kept = detail(plan, alert) + (f"; {said}" if said else "")
        draft = await self._intake.drafted(
            alert, plan, to, now, row.issuer,
            stops=stops_ or {}, record=Record(now, who, event, alert.id, kept),
            decision=Decision(row.standing, event, who, now, reason or note), was=row, minute=minute, reason=reason,
        )  # fmt: skip
        if minute is not None and minute.kind == "authorise":
            due = now + timedelta(minutes=self._policy().procedure.clock.countersign_within_min)
            draft = replace(draft, obligations={**draft.obligations, "countersign": due})
        draft = replace(draft, content_digest=digest, likeness=likeness(alert))
        moved = await self._store.outbox.move(row, draft)
        if moved.result == "conflict":
            raise Refused(409, "not_waiting", "somebody else has decided on this alert meanwhile; look again")
        refuse(moved.result)
        if to is Standing.ACTIVE:
            self._intake.announce(alert.id, draft.batches)


def _without(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the texts that speak of no approval number."""
    return tuple(text for text in texts if not text.startswith(WAITS))


def joined(alert: Alert, body: Issuer) -> Alert:
    """Return the alert with one more partner."""
    partner = Partner(body.name, body.name_en)
    return alert if partner in alert.partners else replace(alert, partners=(*alert.partners, partner))


def ending(ended: Alert, kind: Kind, now: datetime, note: str) -> Alert:
    """Return the message that ends or corrects an alert, about the same hazard and area, in none of its words."""
    word = "correction" if kind is Kind.CORRECTION else "cancel"
    name = f"{ended.identifier}-{word}-{now:%Y%m%d%H%M%S}"
    infos = tuple(
        replace(
            info, headline=None, description=None, instruction=None, effective=None, onset=None, expires=None,
            parameters=tuple(one for one in info.parameters if one.name != SHORT_TEXT),
        )
        for info in ended.infos
    )  # fmt: skip
    return replace(
        ended,
        identifier=name if len(name) <= cap.NAME_CHARS else f"{ended.id}-{word}-{now:%Y%m%d%H%M%S}",
        sent=now,
        kind=kind,
        note=note or None,
        infos=infos,
        references=(Reference(ended.sender, ended.identifier, ended.sent),),
        effective=None,
        expires=None,
        policy_digest="",
    )
