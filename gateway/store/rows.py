"""Writes shared by outbox and ledger: batch rows, folded states, stops. All run inside one operation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from gateway.model import Batch, Decision, State
from gateway.standing import OPEN, Standing
from gateway.store import desired
from gateway.store.change import note, note_all
from gateway.store.codec import LANE_RANK, counts_of, pack
from gateway.transaction import Tx, micros

BATCH = {
    "id": "text", "alert": "text", "step": "bigint", "channel": "text", "lane": "bigint", "audience": "text",
    "notice": "text", "township": "text", "county": "text", "size": "bigint", "slice_size": "bigint",
    "first_key": "text", "last_key": "text", "deadline": "bigint", "unfinished": "bigint", "not_before": "bigint",
    "published_at": "bigint", "states": "bytea", "counts": "text", "created_at": "bigint", "awaited": "bigint",
}  # fmt: skip
BODY = {"batch": "text", "body": "bytea"}
COMMAND = {
    "alert": "text", "device": "bigint", "batch": "text", "position": "bigint", "want": "text", "finished": "bigint",
    "deadline": "bigint",
}  # fmt: skip
DECISION = {
    "alert": "text", "number": "bigint", "standing": "text", "event": "text", "actor": "text", "at": "bigint",
    "reason": "text",
}  # fmt: skip
ASKED = 1_000  # keys in one query; databases bound the number of parameters
UNENDED = sorted({Standing.ACTIVE, *OPEN})
_FOLD = {state: bytes(max(old, state) for old in range(256)) for state in State}  # old state → folded with this one


def person_key(village: str, person: int) -> str:
    """Key of a recipient in the frozen order (village, person id); compares as text."""
    return f"{village}/{person:019d}"


def add_batches(tx: Tx, batches: Sequence[Batch], now: datetime) -> None:
    """Write new batches to ledger and outbox, and the desired state of their devices."""
    at = micros(now)
    rows, bodies, commands = [], [], []
    for batch in batches:
        states = bytes(len(batch))
        rows.append(
            (
                batch.id,
                batch.alert,
                batch.step,
                batch.channel,
                LANE_RANK[batch.lane],
                batch.group.value,
                batch.notice.value,
                batch.township,
                batch.township[:6],
                len(batch),
                batch.slice,
                person_key(batch.villages[0][0], batch.persons[0]),
                person_key(batch.villages[-1][0], batch.persons[-1]),
                micros(batch.deadline),
                batch.slices,
                at,
                at,
                states,
                counts_of(states),
                at,
                int(batch.slice > 0),
            )
        )
        bodies.append((batch.id, pack(batch)))
        if not batch.slice:
            commands += [
                (batch.alert, device, batch.id, position, want, 0, micros(batch.deadline))
                for want in ["repeat" if batch.every_s else "play"]
                for position, device in enumerate(batch.persons)
            ]
    tx.insert("batch", BATCH, rows)
    tx.insert("outbox", BODY, bodies)
    tx.insert("device_command", COMMAND, commands)


class Run(NamedTuple):
    """One state for the positions `start` to `stop`, the last one not included: what most slices end with."""

    start: int
    stop: int
    state: State


def _raised(states: bytearray, facts: Run | Iterable[tuple[int, State]]) -> bool:
    """Fold facts into `states` in place; whether a state moved that shows that something was submitted."""
    if isinstance(facts, Run):
        before = states[facts.start : facts.stop]
        states[facts.start : facts.stop] = before.translate(_FOLD[facts.state])
        return _shows_submit(facts.state) and states[facts.start : facts.stop] != before
    submitted = False
    for position, state in facts:
        if state > states[position]:
            states[position] = state
            submitted = submitted or _shows_submit(state)
    return submitted


def _shows_submit(state: State) -> bool:
    return state is State.SUBMITTED or state >= State.FAILED


class Fold(NamedTuple):
    """Facts (position, state) of one batch, when they became known (µs), and how many slices they finish."""

    batch: str
    facts: Run | Iterable[tuple[int, State]]
    at: int
    finished: int = 0


@dataclass(slots=True)
class _Folding:
    """A batch's row while facts are folded into it."""

    states: bytearray
    alert: str
    unfinished: int
    slice_size: int
    finished: int = 0
    submitted_at: int | None = None
    settled_at: int | None = None
    moved: bool = False

    def take(self, fold: Fold) -> None:
        """Fold facts in and count their slices off."""
        before = bytes(self.states)
        if _raised(self.states, fold.facts) and self.submitted_at is None:
            self.submitted_at = fold.at
        self.finished += fold.finished
        if fold.finished and self.finished == self.unfinished:
            self.settled_at = fold.at
        self.moved = self.moved or bool(fold.finished) or self.states != before


def fold_states(
    tx: Tx, batch: str, facts: Run | Iterable[tuple[int, State]], at: int, *, finished: int = 0
) -> bool:  # fmt: skip
    """Fold facts (position, state) into the batch's states; count `finished` slices off. True if anything moved."""
    return bool(fold_all(tx, [Fold(batch, facts, at, finished)]))


def fold_all(tx: Tx, folds: Sequence[Fold]) -> list[str]:
    """Fold the facts of many batches, each in order; return the batches of which anything moved."""
    locked = Locked(tx, {fold.batch for fold in folds})
    for fold in folds:
        locked.fold(fold)
    return locked.write(tx)


class Locked:
    """Batches whose rows are locked, in the order of their ids, while facts are folded into them."""

    def __init__(self, tx: Tx, batches: Collection[str]) -> None:
        lock = " FOR UPDATE" if tx.postgresql else ""
        self._rows: dict[str, _Folding] = {}
        ids = sorted(batches)
        for start in range(0, len(ids), ASKED):
            for batch, states, *rest in tx.all(
                f"SELECT id, states, alert, unfinished, slice_size FROM batch WHERE id IN :*batches ORDER BY id{lock}",
                batches=ids[start : start + ASKED],
            ):
                self._rows[batch] = _Folding(bytearray(states), *rest)

    def size(self, batch: str) -> int:
        """How many recipients a batch has; 0 if there is none of this id."""
        return len(self._rows[batch].states) if batch in self._rows else 0

    def states(self, batch: str) -> bytes:
        """Return a batch's folded states, one per position; none if there is no such batch."""
        return bytes(self._rows[batch].states) if batch in self._rows else b""

    def has_commands(self, batch: str) -> bool:
        """Whether the batch is desired state of devices."""
        return batch in self._rows and not self._rows[batch].slice_size

    def fold(self, fold: Fold) -> None:
        """Fold facts in; those of an unknown batch are left out."""
        if fold.batch in self._rows:
            self._rows[fold.batch].take(fold)

    def write(self, tx: Tx) -> list[str]:
        """Write what moved, and note it; return the batches."""
        moved = {batch: row for batch, row in self._rows.items() if row.moved}
        tx.many(
            "UPDATE batch SET states = :states, counts = :counts, unfinished = unfinished - :finished,"
            " submitted_at = COALESCE(submitted_at, :submitted_at), settled_at = COALESCE(settled_at, :settled_at)"
            " WHERE id = :batch",
            [_columns(batch, row) for batch, row in moved.items()],
        )
        note_all(tx, [("settled" if row.finished else "moved", row.alert, batch) for batch, row in moved.items()])
        return list(moved)


def _columns(batch: str, row: _Folding) -> dict[str, object]:
    states = bytes(row.states)
    return {
        "batch": batch,
        "states": states,
        "counts": counts_of(states),
        "finished": row.finished,
        "submitted_at": row.submitted_at,
        "settled_at": row.settled_at,
    }


def decide(tx: Tx, alert: str, decision: Decision) -> None:
    """Add to the life of an alert what has just moved it, inside the same operation; its revision numbers it."""
    tx.send(
        "INSERT INTO decision (alert, number, standing, event, actor, at, reason)"
        " SELECT id, revision, :standing, :event, :actor, :at, :reason FROM alert WHERE id = :alert",
        alert=alert,
        standing=decision.standing,
        event=decision.event,
        actor=decision.actor,
        at=micros(decision.at),
        reason=decision.reason,
    )


def stop_alert(tx: Tx, alert: str, reason: str, now: datetime, event: str, actor: str, why: str = "") -> bool:
    """Make every later claim of the alert fail; end its plan; turn written plays into stops. False if it had ended.

    Its life keeps the event, who caused it and why.
    """
    at = micros(now)
    was = tx.one("SELECT standing FROM alert WHERE id = :alert", alert=alert)
    changed = tx.run(
        "UPDATE alert SET standing = 'stopped', reason = :reason, ended_at = :at, revision = revision + 1"
        " WHERE id = :alert AND standing IN :*unended",
        reason=reason,
        at=at,
        alert=alert,
        unended=UNENDED,
    )
    if not changed:
        return False
    decide(tx, alert, Decision(was[0] if was else "", event, actor, now, why))
    tx.send("UPDATE step SET finished = 1 WHERE alert = :alert", alert=alert)
    # What waits for a retry is brought up now, so that its claim can settle it as never sent.
    tx.send(
        "UPDATE batch SET not_before = :at, published_at = 0"
        " WHERE alert = :alert AND unfinished > 0 AND slice_size > 0 AND not_before > :at",
        alert=alert,
        at=at,
    )
    expired = reason == "expired"
    # What goes on in rounds ends by itself when it expires, and is to be stopped before.
    open_commands = tx.all(
        "SELECT batch, position FROM device_command WHERE alert = :alert AND (finished = 0 OR want = :also)"
        " ORDER BY batch, position",
        alert=alert,
        also="" if expired else "repeat",
    )
    by_batch: dict[str, list[int]] = {}
    for batch, position in open_commands:
        by_batch.setdefault(batch, []).append(position)
    for batch, positions in by_batch.items():
        _stop_commands(tx, batch, positions, at, expired=expired)
    note(tx, "stopped", alert)
    return True


def _stop_commands(tx: Tx, batch: str, positions: Sequence[int], at: int, *, expired: bool) -> None:
    """Devices never written to are settled; the others are to stop playing, also those in the pause between rounds."""
    row = tx.one("SELECT states FROM batch WHERE id = :batch", batch=batch)
    states = bytes(row[0]) if row else b""
    never = [position for position in positions if states[position] == State.QUEUED]
    if never:
        state = State.EXPIRED if expired else State.SUPERSEDED
        fold_states(tx, batch, [(position, state) for position in never], at)
        desired.finish(tx, batch, never, at)
    desired.stop(tx, batch, rounds=not expired)
