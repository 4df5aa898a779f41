"""Handlers about the gateway itself: halt, audit, health, metrics."""

from __future__ import annotations

from dataclasses import replace

from gateway import metrics
from gateway.api.access import areas_of
from gateway.api.endpoint import Answer, Call
from gateway.api.shape import (
    AuditPage,
    AuditQuery,
    AuditRecord,
    AuditVerdict,
    CheckpointOut,
    HaltIn,
    Halts,
    Health,
    Part,
    VerifyQuery,
)
from gateway.cap.certificate import to_pem
from gateway.core import Core
from gateway.database import FULL
from gateway.errors import Refused, StoreDown
from gateway.intake import actor
from gateway.memory import restored
from gateway.model import Record
from gateway.preview import EVERYTHING, scope_name
from gateway.store.audit import Checkpoint

PROBE_S = 1.0


async def halt(call: Call) -> Answer:
    """Stop or release sending. An issuer does so for counties of its own, an administrator for anything."""
    form, core = call.form(HaltIn), call.core
    place = core.regions.get(form.scope)
    county = place is not None and place.code == form.scope and len(form.scope) == len("411726")
    channel = form.scope in core.channels or form.scope in core.policy.pools
    if not (county or form.scope == EVERYTHING or channel):
        raise Refused(422, "unknown_scope", "name a county by its 6-digit code, a channel, or all")
    if call.principal.role != "admin" and not (county and form.scope.startswith(areas_of(core, call.principal))):
        raise Refused(403, "outside_authority", "an issuer may halt counties of its own area; ask an administrator")
    record = Record(core.clock.now(), actor(call.principal), "halt" if form.on else "release", form.scope)
    for scope in (form.scope, *core.policy.pools.get(form.scope, ())):  # a pool with all its roads
        await core.store.outbox.halt(scope, form.on, replace(record, subject=scope))
    return 200, Halts(halted=[*map(scope_name, await core.store.outbox.halts())])


async def audit(call: Call) -> Answer:
    """Page through the audit chain."""
    asked = call.asked(AuditQuery)
    found = await call.core.store.audit.records(asked.after, asked.limit)
    further = found[-1][0] if len(found) == asked.limit else None
    return 200, AuditPage(records=[AuditRecord.of(*one) for one in found], next=further)


async def verify(call: Call) -> Answer:
    """Walk the whole audit chain."""
    asked = call.asked(VerifyQuery)
    if (asked.seq is None) != (asked.hash is None):
        raise Refused(400, "half_checkpoint", "give seq and hash of the checkpoint, or neither")
    known = None if asked.seq is None or asked.hash is None else Checkpoint(asked.seq, asked.hash)
    records, wrong = await call.core.store.audit.verify(known)
    return 200, AuditVerdict(whole=not wrong, records=records, wrong=wrong)


async def certificates(call: Call) -> Answer:
    """Show the certificates that sign, will sign or have signed."""
    return 200, "".join(map(to_pem, call.core.keys.certificates())).encode()


async def checkpoint(call: Call) -> Answer:
    """Say where the audit chain stands."""
    found = await call.core.store.audit.checkpoint()
    return 200, CheckpointOut(seq=found.seq, hash=found.hash)


async def health(call: Call) -> Answer:
    """Say what works. 503 only while no warning can be taken in."""
    core = call.core
    store, broker = await _store(core), await _broker(core)
    halts = Part(name="halts", ready=True, detail="")
    if store.ready:
        halted = await core.store.outbox.halts()
        why = " (the database was restored)" if await core.store.database.look(restored) else ""
        halts = Part(name="halts", ready=not halted, detail=", ".join(map(scope_name, halted)) + why)
    channels = await _channels(core, store.ready)
    parts = [store, broker, channels, halts]
    state = "down" if not store.ready else "ok" if all(part.ready for part in parts) else "degraded"
    found = Health.model_validate({
        "status": state, "simulation": core.simulation, "policy": core.policy.digest[:12], "parts": parts,
    })  # fmt: skip
    return 200 if store.ready else 503, found


async def _channels(core: Core, store_ready: bool) -> Part:
    """Installed channels; one whose carrier serves nobody is named with the carrier's own code."""
    down = {one.channel: f" down: {one.code}" for one in await core.store.outbox.outages()} if store_ready else {}
    named = [f"{name}{down.get(name, '')}" for name in sorted(core.channels)]
    return Part(name="channels", ready=bool(named) and not down, detail=", ".join(named))


async def _store(core: Core) -> Part:
    try:
        await core.store.database.read(lambda tx: tx.one("SELECT 1"), PROBE_S)
    except StoreDown:
        return Part(name="store", ready=False, detail="no answer; alerts are refused with 503")
    if code := core.store.database.down:
        why = "no space is left on its disk" if code in FULL else f"it cannot be written ({code})"
        return Part(name="store", ready=False, detail=f"{why}; alerts are refused with 503")
    return Part(name="store", ready=True, detail=core.store.database.dialect)


async def _broker(core: Core) -> Part:
    """A broker that is up knows its queues."""
    up = bool(await core.broker.depths())
    return Part(name="broker", ready=up, detail="" if up else "no answer; work goes on from the store")


async def expose(_call: Call) -> Answer:
    """Metrics for Prometheus."""
    return 200, metrics.expose()
