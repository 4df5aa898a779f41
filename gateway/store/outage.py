"""Carriers that are down, for every process to know, and the batches that leave them for a fallback.

A worker writes what its breaker has learnt (see `gateway.breaker`) and takes it back; a row nobody has renewed for a
while is a dead worker's and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from itertools import chain

from gateway.model import State
from gateway.ports import Outage
from gateway.store.codec import unpack_pending
from gateway.store.rows import fold_states
from gateway.transaction import Tx, micros, moment

MOVE_AFTER = timedelta(seconds=10)  # a carrier that is away for moments keeps its batches
AT_ONCE = 100  # batches
NO_SESSION = "no_session"  # code of an outage seen by no send: no process has a connection
SEEN = timedelta(seconds=6)  # a session was seen by a process less than this ago
RENEWED = timedelta(seconds=30)  # a probe comes at its time, or when there is something to send again


def note_outage(tx: Tx, channel: str, outage: Outage | None) -> None:
    """Write, renew or take back that a channel's carrier is down."""
    if outage is None:
        tx.run("DELETE FROM outage WHERE channel = :channel", channel=channel)
        return
    tx.run(  # all workers notice an outage at once
        "INSERT INTO outage (channel, since, until, code) VALUES (:channel, :since, :until, :code)"
        " ON CONFLICT (channel) DO UPDATE SET since = excluded.since, until = excluded.until, code = excluded.code",
        channel=channel,
        since=micros(outage.since),
        until=micros(outage.until),
        code=outage.code,
    )


def note_sessions(tx: Tx, up: Collection[str], down: Mapping[str, datetime], now: datetime) -> None:
    """Note channels that have a session in this process; and, as outages, those that have none in any."""
    for channel in up:
        tx.run(
            "INSERT INTO session (channel, until) VALUES (:channel, :until)"
            " ON CONFLICT (channel) DO UPDATE SET until = excluded.until",
            channel=channel,
            until=micros(now + SEEN),
        )
        tx.run("DELETE FROM outage WHERE channel = :channel AND code = :code", channel=channel, code=NO_SESSION)
    for channel, since in down.items():
        tx.run(
            "INSERT INTO outage (channel, since, until, code) SELECT :channel, :since, :until, :code WHERE NOT EXISTS"
            " (SELECT 1 FROM session WHERE channel = :channel AND until > :now)"
            " ON CONFLICT (channel) DO UPDATE SET until = excluded.until WHERE outage.code = excluded.code",
            channel=channel,
            since=micros(since),
            until=micros(now + SEEN),
            code=NO_SESSION,
            now=micros(now),
        )


def outages(tx: Tx, now: datetime) -> list[Outage]:
    """Carriers that are down now, by channel."""
    rows = tx.all(
        "SELECT channel, since, until, code FROM outage WHERE until > :stale ORDER BY channel",
        stale=micros(now - RENEWED),
    )
    return [Outage(channel, moment(since), moment(until), code) for channel, since, until, code in rows]


def give_up(tx: Tx, alert: str, step: int, now: datetime) -> int:
    """End batches of a step whose carrier is down as not sent, so that its fallback serves them; return how many.

    Nothing is given up while another worker still gets something through, nor what a live lease may be sending. One
    call ends `AT_ONCE` batches at most, for claims of the alert wait meanwhile.
    """
    # Claims share this lock: each stands either before this, and keeps its slice, or behind it, and finds it settled.
    lock = " FOR UPDATE" if tx.postgresql else ""
    if tx.one(f"SELECT 1 FROM alert WHERE id = :alert AND standing = 'active'{lock}", alert=alert) is None:
        return 0
    down = {one.channel: one.since for one in outages(tx, now)}
    lost = [
        channel
        for channel, submitted_at in tx.all(
            "SELECT channel, MAX(submitted_at) FROM batch WHERE alert = :alert AND step = :step GROUP BY channel",
            alert=alert,
            step=step,
        )  # a step on a pool has batches of several
        if (since := down.get(channel)) and since <= now - MOVE_AFTER and (submitted_at or 0) <= micros(since)
    ]
    ended = 0
    for batch, size, slice_size in (
        tx.all(
            "SELECT id, size, slice_size FROM batch WHERE alert = :alert AND step = :step AND channel IN :*channels"
            " AND unfinished > 0 ORDER BY id",
            alert=alert,
            step=step,
            channels=lost,
        )
        if lost
        else ()
    ):
        ended += _end(tx, batch, size, slice_size, micros(now))
        if ended == AT_ONCE:
            break
    return ended


def _end(tx: Tx, batch: str, size: int, slice_size: int, at: int) -> bool:
    """End the slices of a batch nobody is at; True if there were any.

    A slow worker may settle one meanwhile, whose lease has lapsed: then that stands.
    """
    rows = tx.all("SELECT slice, lease_until, done, pending FROM claim WHERE batch = :batch", batch=batch)
    claims = {number: rest for number, *rest in rows}
    found = list[tuple[int, int, list[tuple[int, State]]]]()  # slice, lease, what becomes of it
    for number in range(-(-size // slice_size)):
        lease_until, done, packed = claims.get(number, (0, 0, None))
        if done or lease_until > at:
            continue
        positions = tuple(range(number * slice_size, min(size, (number + 1) * slice_size)))
        fresh, *unsure = unpack_pending(packed) if packed is not None else (positions,)
        # Whoever held a lease that lapsed may have sent what it had.
        facts = [(position, State.UNKNOWN if lease_until else State.SKIPPED) for position in fresh]
        facts += [(position, State.UNKNOWN) for part in unsure for position in part]
        found.append((number, lease_until, facts))
    taken = tx.counts(
        "INSERT INTO claim (batch, slice, owner, lease_until, attempt, retry_at, done)"
        " VALUES (:batch, :slice, '', 0, 1, 0, 1) ON CONFLICT (batch, slice) DO UPDATE SET done = 1"
        " WHERE claim.done = 0 AND claim.lease_until = :lease",
        [{"batch": batch, "slice": number, "lease": lease_until} for number, lease_until, _ in found],
    )
    ended = [facts for (_, _, facts), own in zip(found, taken, strict=True) if own]
    if ended:
        fold_states(tx, batch, list(chain.from_iterable(ended)), at, finished=len(ended))
    return bool(ended)
