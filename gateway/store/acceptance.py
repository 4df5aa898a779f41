"""The transaction that takes an alert in or moves it on: body, plan, decision, references, stops, batches, timers.

Everything a crash may not tear apart is written here together; only after its commit may anybody be told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.errors import MingluoError
from gateway.model import Alert
from gateway.ports import Accepted, AlertRow, Draft
from gateway.standing import Event, Standing
from gateway.store import audit, minute, national, obligation, seal
from gateway.store.change import note_all
from gateway.store.codec import LANE_RANK, pack
from gateway.store.desired import hush_confirmed
from gateway.store.listing import place_alerts
from gateway.store.meeting import ask_apart
from gateway.store.rows import DECISION, add_batches, stop_alert
from gateway.store.timer import drop_timer, set_timers
from gateway.transaction import Tx, micros

OVER = (Standing.REJECTED, Standing.STOPPED)
ALERT = {
    "id": "text", "sender": "text", "identifier": "text", "sent": "bigint", "content_digest": "text", "body": "bytea",
    "plan": "bytea", "standing": "text", "reason": "text", "issuer": "text", "accepted_at": "bigint",
    "expires": "bigint", "status": "text", "document": "text", "level": "bigint", "event_code": "text",
    "likeness": "text",
}  # fmt: skip


class OvertakenError(MingluoError):
    """Something else has ended what this message was to end; undoes the whole transaction."""


class SealError(MingluoError):
    """The sealed code is unknown or used; undoes the whole transaction."""


def accept(tx: Tx, drafts: Sequence[Draft]) -> list[Accepted]:
    """Store new alerts, or say of each that it is known; all of a group in a few statements.

    Raises:
        OvertakenError, RealWarningError, SealError: nothing was stored.
    """
    written = tx.ask_upsert("alert", ALERT, list(map(_row, drafts)), "DO NOTHING", "id")
    # Whatever else is to be known is asked before the first answer is looked at: one wait for all of it.
    halts = tx.ask("SELECT scope FROM halt ORDER BY scope")
    audit.ask_head(tx)
    apart = [ask_apart(tx, draft) for draft in drafts]
    added = {id_ for (id_,) in written()}
    new: dict[str, Draft] = {}
    keep = []
    for draft, kept in zip(drafts, apart, strict=True):
        if draft.alert.id in added and new.setdefault(draft.alert.id, draft) is draft:
            keep.append(kept)
    for alert, draft in new.items():
        if draft.seal and not seal.use(tx, draft.seal, alert, draft.now):
            raise SealError(alert)
        _refer(tx, draft.alert)
    place_alerts(tx, [(alert, draft.plan) for alert, draft in new.items()])
    _written(tx, list(new.values()), keep)
    scopes = tuple(scope for (scope,) in halts())
    return [
        Accepted("accepted", draft.alert.id, scopes) if new.get(draft.alert.id) is draft else _known(tx, draft)
        for draft in drafts
    ]


def _row(draft: Draft) -> tuple[object, ...]:
    """Return the values of `ALERT`."""
    alert = draft.alert
    found = {
        "id": alert.id,
        "sender": alert.sender,
        "identifier": alert.identifier,
        "sent": micros(alert.sent),
        "content_digest": draft.content_digest,
        "body": pack(alert),
        "plan": pack(draft.plan),
        "standing": draft.standing,
        "reason": draft.reason,
        "issuer": draft.issuer,
        "accepted_at": micros(draft.now),
        "expires": micros(alert.expires or draft.now),
        **_listed(draft),
    }
    return tuple(found[name] for name in ALERT)


def move(tx: Tx, was: AlertRow, draft: Draft) -> Accepted:
    """Move a stored alert on; `conflict` where somebody else has moved it since.

    Raises:
        OvertakenError, RealWarningError: nothing was stored.
    """
    alert = draft.alert
    if not tx.run(
        "UPDATE alert SET id = :id, sent = :sent, standing = :standing, reason = :reason, body = :body, plan = :plan,"
        " expires = :expires, revision = :revision, ended_at = :ended, status = :status, document = :document,"
        " level = :level, event_code = :event_code, likeness = :likeness,"
        " content_digest = CASE WHEN :digest = '' THEN content_digest ELSE :digest END"
        " WHERE id = :was AND standing = :standing_was AND revision = :revision_was",
        id=alert.id,
        sent=micros(alert.sent),
        standing=draft.standing,
        reason=draft.reason,
        body=pack(alert),
        plan=pack(draft.plan),
        expires=micros(alert.expires or draft.now),
        revision=was.revision + 1,
        ended=micros(draft.now) if draft.standing in OVER else None,
        digest=draft.content_digest,
        was=was.alert.id,
        standing_was=was.standing,
        revision_was=was.revision,
        **_listed(draft),
    ):
        return Accepted("conflict", alert.id)
    if was.alert != alert:
        _renamed(tx, was.alert.id, alert)
    tx.send("DELETE FROM alert_county WHERE alert = :was", was=was.alert.id)
    if "held" not in draft.timers:
        drop_timer(tx, "held", alert.id)
    place_alerts(tx, [(alert.id, draft.plan)])
    _written(tx, [draft], [ask_apart(tx, draft)], was.revision + 1)
    if any(batch.every_s for batch in draft.batches):
        hush_confirmed(tx, alert.id)
    return Accepted("accepted", alert.id)


def _listed(draft: Draft) -> dict[str, object]:
    """What alerts are looked up by."""
    alert = draft.alert
    found: dict[str, object] = {name: getattr(alert, name) for name in ("status", "document", "event_code")}
    return found | {"level": int(alert.level), "likeness": draft.likeness}


def _known(tx: Tx, draft: Draft) -> Accepted:
    """Say what this sender has used this identifier for before: the same content or another."""
    row = tx.one(
        "SELECT id, content_digest FROM alert WHERE sender = :sender AND identifier = :identifier",
        sender=draft.alert.sender,
        identifier=draft.alert.identifier,
    )
    if row is None:  # the id itself is taken: a draft was written anew under it
        return Accepted("conflict", draft.alert.id)
    return Accepted("duplicate" if row[1] == draft.content_digest else "conflict", row[0])


def _refer(tx: Tx, alert: Alert) -> None:
    for reference in alert.references:
        tx.send(
            "INSERT INTO reference (sender, identifier, alert) VALUES (:sender, :identifier, :alert)"
            " ON CONFLICT DO NOTHING",
            sender=reference.sender,
            identifier=reference.identifier,
            alert=alert.id,
        )


def _renamed(tx: Tx, was: str, alert: Alert) -> None:
    """Give a draft that was written anew its new references, and what belongs to it its new id."""
    tx.send("DELETE FROM reference WHERE alert = :was", was=was)
    _refer(tx, alert)
    if alert.id == was:
        return
    for table in ("decision", "minute", "obligation"):
        tx.send(f"UPDATE {table} SET alert = :id WHERE alert = :was", id=alert.id, was=was)
    for kind in ("held", "expire", "partner"):
        drop_timer(tx, kind, was)


def _written(tx: Tx, drafts: Sequence[Draft], apart: Sequence[Callable[[], None]], revision: int = 0) -> None:
    """Write what goes with a new standing; `revision` is the alert's own, which numbers what has moved it.

    `apart` keeps each from the drills or the real ones it meets, see `ask_apart`.
    """
    for draft in drafts:
        if draft.standing == Standing.ACTIVE:
            _activate(tx, draft)
        if draft.minute is not None:
            minute.add(tx, draft.alert.id, draft.minute)
    decided = [(draft.alert.id, draft.decision) for draft in drafts if draft.decision is not None]
    tx.insert(
        "decision",
        DECISION,
        [(alert, revision, one.standing, one.event, one.actor, micros(one.at), one.reason) for alert, one in decided],
    )
    # Here, so that no crash behind the answer leaves anything waiting in silence.
    set_timers(tx, [(kind, draft.alert.id, due) for draft in drafts for kind, due in draft.timers.items()])
    for draft in drafts:
        open_ = obligation.open_ if revision else obligation.open_new
        open_(tx, draft.alert.id, draft.obligations, draft.now)
    audit.append(tx, [record for draft in drafts for record in draft.records])
    for keep in apart:
        keep()
    note_all(
        tx,
        [("accepted" if draft.standing == Standing.ACTIVE else draft.standing, draft.alert.id, "") for draft in drafts],
    )


def _activate(tx: Tx, draft: Draft) -> None:
    alert = draft.alert
    for stopped, reason in draft.stops.items():
        if not stop_alert(tx, stopped, reason, draft.now, Event.REPLACE, "gateway", f"{reason}: {alert.id}"):
            raise OvertakenError(stopped)
    planned: dict[int, int] = {}
    for batch in draft.batches:
        planned[batch.step] = planned.get(batch.step, 0) + 1
    for step in draft.plan.steps:
        cursor = draft.cursors.get(step.number, ("", "", 0))
        township, village, person = cursor or ("", "", 0)
        tx.send(
            "INSERT INTO step (alert, number, lane, start, finished, sequence, township, village, person) VALUES"
            " (:alert, :number, :lane, :start, :finished, :sequence, :township, :village, :person)"
            " ON CONFLICT DO NOTHING",
            alert=alert.id,
            number=step.number,
            lane=LANE_RANK[step.lane],
            start=micros(step.start),
            finished=int(cursor is None),
            sequence=planned.get(step.number, 0),
            township=township,
            village=village,
            person=person,
        )
    add_batches(tx, draft.batches, draft.now)
    national.expect(tx, alert, draft.now)
