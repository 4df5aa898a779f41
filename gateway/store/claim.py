"""The claim: who may send a slice, decided in one transaction. See `outbox` for what rests on it.

`claim` decides on one slice and knows every case. On PostgreSQL `claim_all` first takes, in one statement, those that
are plain: nobody has begun them, and nothing stands in the way. A row that another claimant writes meanwhile makes
that statement skip the slice, and `claim` then finds it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from gateway.model import Claim, ClaimResult, State
from gateway.store.codec import pack, unpack_pending, unpack_references
from gateway.store.rows import fold_states
from gateway.transaction import Tx, micros, moment

HALT_LOOK = timedelta(seconds=2)
UNBEGUN_LOOK_US = 500_000  # when to look at slices nobody has begun
STALE = timedelta(seconds=10)  # how long after a stop its running slices may hold up the version that came instead

LOCK = "SELECT id FROM alert WHERE id = ANY(:alerts::text[]) ORDER BY id FOR SHARE"
PLAIN = """
WITH free AS (
  SELECT w.batch, w.slice, w.owner, w.until, b.size, b.slice_size
  FROM unnest(:batches::text[], :slices::bigint[], :owners::text[], :untils::bigint[]) AS w (batch, slice, owner, until)
  JOIN batch b ON b.id = w.batch JOIN alert a ON a.id = b.alert
  WHERE a.standing = 'active' AND b.deadline > :at
    AND NOT EXISTS (SELECT 1 FROM claim c WHERE c.batch = w.batch AND c.slice = w.slice)
    AND NOT EXISTS (SELECT 1 FROM halt h WHERE h.scope IN ('*', b.county, b.channel))
    AND (b.created_at <= :stale OR NOT EXISTS (SELECT 1 FROM reference r WHERE r.alert = b.alert))),
taken AS (
  INSERT INTO claim (batch, slice, owner, lease_until, attempt, retry_at, done)
  SELECT batch, slice, owner, until, 1, 0, 0 FROM free ORDER BY batch, slice ON CONFLICT DO NOTHING RETURNING owner)
SELECT owner, slice, size, slice_size FROM free JOIN taken USING (owner)"""


class Wanted(NamedTuple):
    """A slice that somebody wants to claim. `owner` is new for every call."""

    batch: str
    slice: int
    owner: str
    lease_s: float


def claim_all(tx: Tx, wanted: Sequence[Wanted], now: datetime) -> list[Claim]:
    """Claim each slice for its owner, or say why not; see `claim`."""
    untils = {one.owner: now + timedelta(seconds=one.lease_s) for one in wanted}
    taken = _plain(tx, wanted, untils, now) if tx.postgresql else {}
    return [
        taken.get(one.owner) or claim(tx, one.batch, one.slice, one.owner, now, untils[one.owner]) for one in wanted
    ]


def _plain(
    tx: Tx, wanted: Sequence[Wanted], untils: Mapping[str, datetime], now: datetime
) -> dict[str, Claim]:  # fmt: skip
    """Take the slices that nobody has begun and nothing stands in the way of; return their claims by owner."""
    lock_alerts(tx, {one.batch.partition(".")[0] for one in wanted})
    rows = tx.all(
        PLAIN,
        batches=[one.batch for one in wanted],
        slices=[one.slice for one in wanted],
        owners=[one.owner for one in wanted],
        untils=[micros(untils[one.owner]) for one in wanted],
        at=micros(now),
        stale=micros(now - STALE),
    )
    return {
        owner: Claim(ClaimResult.GRANTED, 1, _positions(number, size, slice_size), until=untils[owner])
        for owner, number, size, slice_size in rows
    }


def lock_alerts(tx: Tx, alerts: Collection[str]) -> None:
    """Keep stops and halts off these alerts until the end of the transaction.

    In a statement before the one that looks: a halt or a stop it had to wait for is then seen.
    """
    if tx.postgresql:
        tx.send(LOCK, alerts=sorted(alerts))


def _positions(number: int, size: int, slice_size: int) -> tuple[int, ...]:
    return tuple(range(number * slice_size, min(size, (number + 1) * slice_size)))


def claim(tx: Tx, batch: str, slice_: int, owner: str, now: datetime, until: datetime) -> Claim:
    """Claim one slice for `owner` until `until`, or say why not; settle it where nobody may send it any more."""
    share = " FOR SHARE OF a" if tx.postgresql else ""
    found = tx.one(
        "SELECT b.deadline, b.county, b.channel, b.size, b.slice_size, a.standing, a.reason, b.created_at FROM batch b"
        f" JOIN alert a ON a.id = b.alert WHERE b.id = :batch{share}",
        batch=batch,
    )
    if found is None:
        return Claim(ClaimResult.SETTLED)
    deadline, county, channel, size, slice_size, standing, reason, created_at = found
    positions = _positions(slice_, size, slice_size)
    at = micros(now)
    standing_claim = _undoubted(tx, batch, _standing_claim(tx, batch, slice_, positions, owner, at))
    ended = standing != "active" or deadline <= at
    if standing_claim.result is not ClaimResult.GRANTED and not (
        ended and standing_claim.result is ClaimResult.WAITING
    ):
        if standing_claim.until is not None:
            put_off(tx, batch, at)
        return standing_claim
    if not (standing_claim.pending or standing_claim.doubtful or standing_claim.lost):
        _finish_unsent(tx, batch, slice_, (), at)
        return Claim(ClaimResult.SETTLED)
    if ended:
        over = State.EXPIRED if deadline <= at or reason == "expired" else State.SUPERSEDED
        facts = [(position, over) for position in standing_claim.pending]
        facts += [(position, State.UNKNOWN) for position in (*standing_claim.doubtful, *standing_claim.lost)]
        _finish_unsent(tx, batch, slice_, facts, at)
        return Claim(ClaimResult.SETTLED)
    if tx.one("SELECT 1 FROM halt WHERE scope IN ('*', :county, :channel)", county=county, channel=channel):
        _look_again(tx, batch, micros(now + HALT_LOOK))
        return Claim(ClaimResult.HALTED)
    # The stop stood in the transaction that wrote the first batches: an older batch has no one to wait for.
    if created_at > micros(now - STALE) and (stale := _stale_until(tx, batch, at)):
        _look_again(tx, batch, stale)
        return Claim(ClaimResult.HELD, until=moment(stale))
    if not _take(tx, batch, slice_, owner, standing_claim, micros(until), at):
        put_off(tx, batch, at)
        return Claim(ClaimResult.HELD, until=until)
    return replace(standing_claim, until=until)


def _standing_claim(tx: Tx, batch: str, slice_: int, positions: tuple[int, ...], owner: str, at: int) -> Claim:
    """Return what the slice's row says: GRANTED where it may be taken, else why not."""
    lock = " FOR UPDATE" if tx.postgresql else ""
    row = tx.one(
        "SELECT owner, lease_until, attempt, retry_at, done, pending FROM claim"
        f" WHERE batch = :batch AND slice = :slice{lock}",
        batch=batch,
        slice=slice_,
    )
    if row is None:
        return Claim(ClaimResult.GRANTED, 1, positions)
    holder, lease_until, attempt, retry_at, done, packed = row
    fresh, doubtful, *more = unpack_pending(packed) if packed is not None else (positions, ())
    lost = more[0] if more else ()
    if done:
        return Claim(ClaimResult.SETTLED)
    if lease_until > at and holder != owner:
        return Claim(ClaimResult.HELD, until=moment(lease_until))
    if lease_until == 0 and retry_at > at:
        return Claim(ClaimResult.WAITING, attempt, fresh, doubtful, until=moment(retry_at))
    # Our own is what a commit without an answer has left: we wait for it, and have sent nothing.
    if 0 < lease_until <= at and holder != owner:  # whoever held it may have sent what it had
        return Claim(ClaimResult.GRANTED, attempt + 1, (), fresh, doubtful + lost)
    return Claim(ClaimResult.GRANTED, attempt, fresh, doubtful, lost)


def _undoubted(tx: Tx, batch: str, claim: Claim) -> Claim:
    """Leave out whom a report, or an answer that came late, has been about meanwhile: nobody doubts any more."""
    if not claim.doubtful and not claim.lost:
        return claim
    row = tx.one("SELECT states FROM batch WHERE id = :batch", batch=batch)
    states = row[0] if row is not None else b""
    return replace(
        claim,
        doubtful=tuple(at for at in claim.doubtful if states[at] == State.QUEUED),
        lost=tuple(at for at in claim.lost if states[at] == State.QUEUED),
    )


def _stale_until(tx: Tx, batch: str, at: int) -> int:
    """Return until when a slice of a version this one ended may still be on its way there, or 0 (DESIGN 3.9)."""
    row = tx.one(
        "SELECT a.id, a.body, b.channel, b.township FROM batch b JOIN alert a ON a.id = b.alert WHERE b.id = :batch",
        batch=batch,
    )
    if row is None:
        return 0
    own, body, channel, township = row
    latest = 0
    for sender, identifier in {(one.sender, one.identifier) for one in unpack_references(body)}:
        found = tx.one(
            "SELECT MAX(CASE WHEN c.lease_until < a.ended_at + :stale THEN c.lease_until ELSE a.ended_at + :stale END)"
            " FROM alert a JOIN batch b ON b.alert = a.id AND b.township = :township AND b.channel = :channel"
            " JOIN claim c ON c.batch = b.id AND c.done = 0 AND c.lease_until > :at"
            " WHERE a.sender = :sender AND a.identifier = :identifier AND a.id <> :own AND a.standing = 'stopped'"
            " AND a.reason IN ('superseded', 'cancelled', 'corrected') AND a.ended_at + :stale > :at",
            stale=STALE // timedelta(microseconds=1),
            township=township,
            channel=channel,
            at=at,
            sender=sender,
            identifier=identifier,
            own=own,
        )
        latest = max(latest, (found[0] if found else 0) or 0)
    return latest


def _take(tx: Tx, batch: str, slice_: int, owner: str, claim: Claim, until: int, at: int) -> bool:
    return bool(
        tx.run(
            "INSERT INTO claim (batch, slice, owner, lease_until, attempt, retry_at, done, pending)"
            " VALUES (:batch, :slice, :owner, :until, :attempt, 0, 0, NULL) ON CONFLICT (batch, slice) DO UPDATE SET"
            " owner = excluded.owner, lease_until = excluded.lease_until, attempt = excluded.attempt,"
            " pending = :pending WHERE claim.done = 0 AND (claim.lease_until <= :at OR claim.owner = excluded.owner)",
            batch=batch,
            slice=slice_,
            owner=owner,
            until=until,
            attempt=claim.attempt,
            pending=pack((claim.pending, claim.doubtful, claim.lost)),
            at=at,
        )
    )


def defer(tx: Tx, batch: str, now: datetime, until: datetime) -> bool:
    """Put a batch off unclaimed until `until`. False where its alert or its time has ended: a claim settles it."""
    ended = tx.one(
        "SELECT 1 FROM batch b JOIN alert a ON a.id = b.alert"
        " WHERE b.id = :batch AND (a.standing <> 'active' OR b.deadline <= :at)",
        batch=batch,
        at=micros(now),
    )
    if ended is None:
        _look_again(tx, batch, micros(until))
    return ended is None


def put_off(tx: Tx, batch: str, at: int) -> None:
    """Let the sweeper bring the batch up again when the first of its unfinished slices may be claimed."""
    known, first = tx.all(
        "SELECT COUNT(*), MIN(CASE WHEN done = 1 THEN NULL WHEN lease_until > 0 THEN lease_until ELSE retry_at END)"
        " FROM claim WHERE batch = :batch",
        batch=batch,
    )[0]
    row = tx.one("SELECT size, slice_size FROM batch WHERE id = :batch", batch=batch)
    if row is not None and known * row[1] < row[0]:
        # Whoever has the batch now goes on to these; a moment later than now, so that the confirm of the copy
        # under way (see `published`) does not hide the batch from the sweeper.
        unbegun = at + UNBEGUN_LOOK_US
        first = unbegun if first is None else min(first, unbegun)
    _look_again(tx, batch, at if first is None else first)


def _look_again(tx: Tx, batch: str, at: int) -> None:
    """Let the sweeper bring the batch up again at `at`, whatever the broker does with its copy."""
    tx.send(
        "UPDATE batch SET not_before = :at, published_at = 0 WHERE id = :batch AND unfinished > 0", at=at, batch=batch
    )


def _finish_unsent(tx: Tx, batch: str, slice_: int, facts: Sequence[tuple[int, State]], at: int) -> None:
    """Settle a slice nobody may send any more."""
    taken = tx.run(
        "INSERT INTO claim (batch, slice, owner, lease_until, attempt, retry_at, done)"
        " VALUES (:batch, :slice, '', 0, 1, 0, 1) ON CONFLICT (batch, slice) DO UPDATE SET done = 1"
        " WHERE claim.done = 0",
        batch=batch,
        slice=slice_,
    )
    if taken:
        fold_states(tx, batch, facts, at, finished=1)
