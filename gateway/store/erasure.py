"""What the store holds of a person beside the opaque id, and how it goes: frozen addresses, unsent slices, replies.

Called by `directory.right`, inside its operation. Ids and states stay, and with them every digest and the chain.
Nobody sends to the person afterwards, whatever copy of a batch a broker still holds: only positions of a claim are
sent to, and the position is taken out of what is left to claim, under the same lock as a stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.model import Batch, State
from gateway.store.codec import pack, unpack_batch, unpack_pending
from gateway.store.rows import fold_states, person_key
from gateway.transaction import Row, Tx


class SendingError(Exception):
    """A slice with this person is being sent right now; ask again when its lease is over."""


def erase_frozen(tx: Tx, person: int, places: Sequence[tuple[str, str]], at: int) -> int:
    """Blank a person's frozen addresses and let nothing more be sent to them; return how many batches had one.

    Args:
        tx: the operation.
        person: the id.
        places: (township, village) of every place the person has or had.
        at: now, in microseconds.

    Raises:
        SendingError: see there; the operation must not commit.
    """
    changed = 0
    for batch, states, unfinished in _frozen(tx, person, places):
        positions = [at_ for at_, one in enumerate(batch.persons) if one == person and batch.addresses[at_]]
        if not positions:
            continue
        addresses = tuple("" if one == person else old for one, old in zip(batch.persons, batch.addresses, strict=True))
        tx.run(
            "UPDATE outbox SET body = :body WHERE batch = :batch",
            body=pack(replace(batch, addresses=addresses)),
            batch=batch.id,
        )
        if unfinished and batch.slice:
            for position in positions:
                _take_out(tx, batch, position, State(states[position]), at)
        changed += 1
    return changed


def _frozen(tx: Tx, person: int, places: Sequence[tuple[str, str]]) -> list[tuple[Batch, bytes, int]]:
    """Return the batches a person stands in, with their alerts locked against claims."""
    keys = [person_key(village, person) for _, village in places]
    if not keys:
        return []
    found: list[Row] = tx.all(
        "SELECT b.id, b.alert FROM batch b WHERE b.audience NOT IN ('loudspeakers', 'area')"
        " AND b.township IN :*townships AND b.first_key <= :last AND b.last_key >= :first ORDER BY b.id",
        townships=sorted({township for township, _ in places}),
        first=min(keys),
        last=max(keys),
    )
    if tx.postgresql and found:
        alerts = sorted({alert for _, alert in found})
        tx.all("SELECT 1 FROM alert WHERE id IN :*alerts ORDER BY id FOR UPDATE", alerts=alerts)
    rows = []
    for batch, _ in found:  # one by one: a thousand addresses each
        row = tx.one(
            "SELECT o.body, b.states, b.unfinished FROM batch b JOIN outbox o ON o.batch = b.id WHERE b.id = :batch",
            batch=batch,
        )
        if row is not None:
            frozen = unpack_batch(row[0])
            if person in frozen.persons:
                rows.append((frozen, bytes(row[1]), int(row[2])))
    return rows


def _take_out(tx: Tx, batch: Batch, position: int, state: State, at: int) -> None:
    """Take a position out of what is left to send of its slice."""
    slice_ = position // batch.slice
    lock = " FOR UPDATE" if tx.postgresql else ""  # a slow worker may settle it, whose lease has lapsed
    row = tx.one(
        f"SELECT lease_until, done, pending FROM claim WHERE batch = :batch AND slice = :slice{lock}",
        batch=batch.id,
        slice=slice_,
    )
    if row is None:
        first = slice_ * batch.slice
        left = [tuple(range(first, min(len(batch), first + batch.slice))), ()]
    elif row[1]:
        return
    elif row[0] > at:
        raise SendingError
    elif row[2] is None:  # claimed whole by a process that died: everything in it is doubtful
        first = slice_ * batch.slice
        left = [tuple(range(first, min(len(batch), first + batch.slice))), ()]
    else:
        left = list(unpack_pending(row[2]))
    if not any(position in part for part in left):
        return
    untouched = row is None or row[0] == 0
    begun = not (untouched and position in left[0])
    left = [tuple(one for one in part if one != position) for part in left]
    finished = not any(left)
    tx.run(
        "INSERT INTO claim (batch, slice, owner, lease_until, attempt, retry_at, done, pending)"
        " VALUES (:batch, :slice, '', 0, 1, 0, :done, :pending) ON CONFLICT (batch, slice)"
        " DO UPDATE SET done = excluded.done, pending = excluded.pending",
        batch=batch.id,
        slice=slice_,
        done=int(finished),
        pending=None if finished else pack(tuple(left)),
    )
    over = State.UNKNOWN if begun else State.SKIPPED
    fold_states(tx, batch.id, [(position, over)] if state is State.QUEUED else [], at, finished=int(finished))


def forget_replies(tx: Tx, phone_hash: bytes) -> None:
    """Blank the replies that came from a number. A clerk has nothing to read any more; an incident stays owed."""
    tx.run(
        "UPDATE reply SET phone_hash = :nothing, text = '', secret = NULL, waiting = 0 WHERE phone_hash = :hash",
        nothing=b"",
        hash=phone_hash,
    )
