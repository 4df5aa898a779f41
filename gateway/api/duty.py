"""Handlers of the duty room: obligations, the emergency regime, sealed codes."""

from __future__ import annotations

import secrets
from datetime import timedelta

from gateway import log, metrics
from gateway.api import limit
from gateway.api.access import areas_of, sees
from gateway.api.duty_shape import (
    AnswerIn,
    EmergencyIn,
    ObligationOut,
    Obligations,
    ObligationsQuery,
    RegimeOut,
    RegimesOut,
    RenewIn,
    SealIn,
    SealLine,
    SealOut,
    Seals,
)
from gateway.api.endpoint import Answer, Call
from gateway.api.told import taken
from gateway.errors import Refused
from gateway.intake import actor
from gateway.model import Obligation, Record
from gateway.obligation import RULES, SOMEWHERE, happens_within
from gateway.ports import AlertRow
from gateway.standing import Standing
from gateway.store.obligation import ENDS_WITH_ALERT

CODE_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # nothing that is misread by torchlight
CODE_GROUPS, CODE_LETTERS = 7, 4  # 28 letters of 5 bits

_log = log.get("api")


async def obligations(call: Call) -> Answer:
    """List what the duty room owes in the caller's area; unanswered, only what somebody still has to answer."""
    asked, now = call.asked(ObligationsQuery), call.core.clock.now()
    since = now - timedelta(hours=asked.hours)
    mine = []
    for one in await call.core.store.obligations.since(since, unanswered=asked.unanswered):
        row = await call.core.store.outbox.alert(one.alert)
        over = row is not None and one.kind in ENDS_WITH_ALERT and row.standing != Standing.ACTIVE
        if await _mine(call, one, row):
            mine.append(ObligationOut.of(one, RULES[one.kind].answers, now, row, over=over))
    return 200, Obligations(obligations=mine)


async def _mine(call: Call, one: Obligation, row: AlertRow | None) -> bool:
    if row is not None:
        return bool(sees(call.core, call.principal, row))
    areas = areas_of(call.core, call.principal)
    if one.kind in SOMEWHERE:
        return await happens_within(call.core.store, one.alert, one.kind, areas)
    regime = await call.core.store.regimes.get(one.alert)
    return regime is not None and any(regime.area.startswith(area) or area.startswith(regime.area) for area in areas)


async def answer(call: Call) -> Answer:
    """Answer one."""
    form, alert, kind = call.form(AnswerIn), call.params["id"], call.params["kind"]
    await call.core.obligations.answer(alert, kind, call.principal, form.answer, form.remark)
    found = await call.core.store.obligations.get(alert, kind)
    assert found is not None
    row = await call.core.store.outbox.alert(alert)
    return 200, ObligationOut.of(found, RULES[kind].answers, call.core.clock.now(), row)


async def start_emergency(call: Call) -> Answer:
    """Start the emergency regime."""
    form = call.form(EmergencyIn)
    spoken = form.call.call() if form.call else None
    return 200, RegimeOut.of(await call.core.regimes.start(form.area, call.principal, form.reason, spoken))


async def renew_emergency(call: Call) -> Answer:
    """Prolong it."""
    form = call.form(RenewIn)
    spoken = form.call.call() if form.call else None
    return 200, RegimeOut.of(await call.core.regimes.renew(call.params["id"], call.principal, spoken))


async def end_emergency(call: Call) -> Answer:
    """End it."""
    return 200, RegimeOut.of(await call.core.regimes.end(call.params["id"], call.principal))


async def emergencies(call: Call) -> Answer:
    """List emergency regimes."""
    return 200, RegimesOut(regimes=[RegimeOut.of(one) for one in await call.core.store.regimes.all()])


async def break_glass(call: Call) -> Answer:
    """Issue under a sealed code."""
    code = call.headers.get("Break-Glass", "")
    if not code:
        raise Refused(403, "unknown_code", "send the sealed code in the header Break-Glass")
    try:
        return await taken(call, await call.core.intake.break_glass(call.data, code, call.received))
    except Refused as error:
        if error.code == "unknown_code":
            await limit.failed(call.core, call.peer)  # whoever goes on guessing must not ring all night
            metrics.alarms.labels("break_glass").inc()
            _log.critical("break_glass_refused")
        raise


async def new_code(call: Call) -> Answer:
    """Make a sealed code. It is shown this once; only its hash is kept."""
    form, core = call.form(SealIn), call.core
    issuer = core.policy.issuer(form.issuer)
    if issuer is None:
        raise Refused(422, "unknown_issuer", "name an issuer of authority.toml by its id")
    letters = [secrets.choice(CODE_ALPHABET) for _ in range(CODE_GROUPS * CODE_LETTERS)]
    groups = ("".join(letters[at : at + CODE_LETTERS]) for at in range(0, len(letters), CODE_LETTERS))
    code = "-".join(groups)
    record = Record(core.clock.now(), actor(call.principal), "seal_code", issuer.id, form.label)
    await core.store.seals.add(code, issuer.id, form.label, record)
    return 200, SealOut(code=code, issuer=issuer.id, label=form.label)


async def codes(call: Call) -> Answer:
    """List sealed codes, without the codes."""
    return 200, Seals(codes=[SealLine.of(one) for one in await call.core.store.seals.all()])
