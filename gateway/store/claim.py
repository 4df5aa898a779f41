"""The claim: who may send a slice, decided in one transaction. See `outbox` for what rests on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from gateway.database import Tx, micros, moment
from gateway.model import Claim, ClaimResult, State
from gateway.store.codec import pack, unpack_pending
from gateway.store.rows import fold_states

HALT_LOOK = timedelta(seconds=2)


def claim(tx: Tx, batch: str, slice_: int, owner: str, now: datetime, until: datetime) -> Claim:
    """Claim one slice for `owner` until `until`, or say why not; settle it where nobody may send it any more."""
    share = " FOR SHARE OF a" if tx.postgresql else ""
    found = tx.one(
        "SELECT b.deadline, b.county, b.channel, b.size, b.slice_size, a.standing, a.reason FROM batch b"
        f" JOIN alert a ON a.id = b.alert WHERE b.id = :batch{share}",
        batch=batch,
    )
    if found is None:
        return Claim(ClaimResult.SETTLED)
    deadline, county, channel, size, slice_size, standing, reason = found
    positions = tuple(range(slice_ * slice_size, min(size, (slice_ + 1) * slice_size)))
    at = micros(now)
    standing_claim = _standing_claim(tx, batch, slice_, positions, owner, at)
    ended = standing != "active" or deadline <= at
    if standing_claim.result is not ClaimResult.GRANTED and not (
        ended and standing_claim.result is ClaimResult.WAITING
    ):
        if standing_claim.until is not None:
            _look_again(tx, batch, standing_claim.until)
        return standing_claim
    if ended:
        over = State.EXPIRED if deadline <= at or reason == "expired" else State.SUPERSEDED
        facts = [(position, over) for position in standing_claim.pending]
        facts += [(position, State.UNKNOWN) for position in (*standing_claim.doubtful, *standing_claim.lost)]
        _finish_unsent(tx, batch, slice_, facts, at)
        return Claim(ClaimResult.SETTLED)
    if tx.one("SELECT 1 FROM halt WHERE scope IN ('*', :county, :channel)", county=county, channel=channel):
        _look_again(tx, batch, now + HALT_LOOK)
        return Claim(ClaimResult.HALTED)
    if not _take(tx, batch, slice_, owner, standing_claim, micros(until), at):
        _look_again(tx, batch, until)
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
    if 0 < lease_until <= at:  # whoever held it may have sent what it had
        return Claim(ClaimResult.GRANTED, attempt + 1, (), fresh, doubtful + lost)
    return Claim(ClaimResult.GRANTED, attempt, fresh, doubtful, lost)


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


def _look_again(tx: Tx, batch: str, at: datetime) -> None:
    """Let the sweeper bring the batch up again at `at`, whatever the broker does with its copy."""
    tx.run(
        "UPDATE batch SET not_before = :at, published_at = 0 WHERE id = :batch AND unfinished > 0",
        at=micros(at),
        batch=batch,
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
