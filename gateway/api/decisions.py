"""Handlers of drafts and decisions: amend, submit, return, withdraw, authorise, join, and the notes with them."""

from __future__ import annotations

import json

from gateway.api.access import sees
from gateway.api.duty_shape import (
    ApprovalIn,
    ConsultationIn,
    DecisionOut,
    Decisions,
    JoinIn,
    MinuteOut,
    Minutes,
    Noted,
    TelephoneIn,
)
from gateway.api.endpoint import Answer, Call
from gateway.api.shape import ReasonIn, Standing
from gateway.api.told import told
from gateway.errors import Refused
from gateway.intake import actor
from gateway.model import Minute, Record
from gateway.report import EVERYWHERE


async def save_draft(call: Call) -> Answer:
    """Keep a message for its writer."""
    return 200, await told(call, await call.core.intake.submit(call.data, call.principal, call.received, draft=True))


async def amend(call: Call) -> Answer:
    """Store another wording."""
    row = await call.row()
    return 200, await told(call, await call.core.decisions.amend(row.alert.id, call.data, call.principal))


async def submit(call: Call) -> Answer:
    """Hand a draft on."""
    row = await call.row()
    return 202, await told(call, await call.core.decisions.submit(row.alert.id, call.principal))


async def release(call: Call) -> Answer:
    """Let a near-duplicate go."""
    row = await call.row()
    return 200, await told(call, await call.core.decisions.release(row.alert.id, call.principal))


async def alone(call: Call) -> Answer:
    """Publish a joint warning under the own name."""
    row = await call.row()
    return 200, await told(call, await call.core.decisions.alone(row.alert.id, call.principal))


async def authorise(call: Call) -> Answer:
    """Write down a telephone authorisation."""
    row, form = await call.row(), call.form(TelephoneIn)
    return 200, await told(call, await call.core.decisions.authorise(row.alert.id, call.principal, form.call()))


async def join(call: Call) -> Answer:
    """Agree to a joint warning."""
    row, form = await call.row(), call.form(JoinIn)
    spoken = form.call.call() if form.call else None
    outcome = await call.core.decisions.join(row.alert.id, call.principal, spoken, form.partner)
    return 200, await told(call, outcome)


async def number(call: Call) -> Answer:
    """Add the approval number an area request waits for."""
    row, form = await call.row(), call.form(ApprovalIn)
    return 200, await told(call, await call.core.decisions.number(row.alert.id, call.principal, form.number))


async def return_(call: Call) -> Answer:
    """Give an alert back to its writer."""
    row = await call.row()
    await call.core.decisions.return_(row.alert.id, call.principal, call.form(ReasonIn).reason)
    return 200, await _standing(call)


async def withdraw(call: Call) -> Answer:
    """Take back what was not sent."""
    row = await call.row()
    await call.core.decisions.withdraw(row.alert.id, call.principal, call.form(ReasonIn).reason)
    return 200, await _standing(call)


async def _standing(call: Call) -> Standing:
    row = await call.row()
    return Standing(id=row.alert.id, standing=row.standing, reason=row.reason)


async def decisions(call: Call) -> Answer:
    """The life of an alert."""
    row = await call.row()
    found = await call.core.store.outbox.decisions(row.alert.id)
    return 200, Decisions(decisions=[DecisionOut.of(one) for one in found])


async def consult(call: Call) -> Answer:
    """Keep a consultation with an alert."""
    row, form, core = await call.row(), call.form(ConsultationIn), call.core
    now = core.clock.now()
    content = {"at": form.at.isoformat(), "participants": form.participants, "conclusion": form.conclusion}
    secret = core.vault.seal(json.dumps(content, ensure_ascii=False).encode())
    record = Record(now, actor(call.principal), "consultation", row.alert.id)
    await core.store.minutes.add(row.alert.id, Minute("consultation", record.actor, now, secret), record)
    return 200, Noted(kind="consultation", at=now)


async def minutes(call: Call) -> Answer:
    """Show notes with names to the issuing body's own people; who looked stands in the audit chain (D23)."""
    row, core = await call.row(), call.core
    if sees(core, call.principal, row) != EVERYWHERE:
        raise Refused(403, "not_entitled", "only the issuing body's own people read whom it telephoned")
    found = await core.store.minutes.of(row.alert.id)
    await core.store.audit.append(Record(core.clock.now(), actor(call.principal), "reveal_minutes", row.alert.id))
    return 200, Minutes(
        minutes=[
            MinuteOut(kind=one.kind, by=one.actor, at=one.at, content=json.loads(core.vault.open(one.secret)))
            for one in found
        ]
    )
