"""Later facts: reports on their way to the submits they belong to, and from there into the folded states.

Called by `ledger`. A thousand reports are a handful of statements: one upsert of the rows that submit and report
share, which tells what has met, one insert of facts, and one fold per batch. Rows are written in the order of their
keys, so that two processes lock them in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from gateway.database import Tx, micros
from gateway.model import Report, State
from gateway.store.rows import finish_commands, fold_states

ASKED = 1_000  # keys in one query; databases bound the number of parameters
PLACE = {"batch": "text", "position": "bigint", "attempt": "bigint"}
FACT = PLACE | {"state": "bigint", "code": "text", "at": "bigint"}
SHARED = {"account": "text", "reference": "text", "number": "text", "state": "bigint", "code": "text", "at": "bigint"}
HIGHER = ", ".join(
    f"{name} = CASE WHEN provider_ref.state >= excluded.state THEN provider_ref.{name} ELSE excluded.{name} END"
    for name in ("state", "code", "at")
)  # as in the fold; the first report finds no state there


class Fact(NamedTuple):
    """What became of one recipient, by (batch, position, attempt); `at` in µs."""

    batch: str
    position: int
    attempt: int
    state: State
    code: str
    at: int


def commit(tx: Tx, reports: Sequence[Report]) -> None:
    """Write reports: those whose submit is known become facts, the others wait for it."""
    known = [
        Fact(one.batch, one.position, one.attempt, one.state, one.code, micros(one.at)) for one in reports if one.batch
    ]
    write(tx, known + _match(tx, [one for one in reports if not one.batch]))


def _match(tx: Tx, reports: Sequence[Report]) -> list[Fact]:
    """Upsert the shared rows from the reports' side; the facts of those whose submit came first."""
    # One row per key in one statement: of several reports the highest state stays, as in the fold, and the first of it.
    highest: dict[tuple[str, str], Report] = {}
    for report in reports:
        key = (report.account, report.reference)
        if key not in highest or report.state > highest[key].state:
            highest[key] = report
    shared = tx.upsert(
        "provider_ref",
        SHARED,
        [(*key, "", int(one.state), one.code, micros(one.at)) for key, one in sorted(highest.items())],
        f"(account, reference, number) DO UPDATE SET {HIGHER}",
        "account, reference, batch, position, attempt",
    )
    known = {row[:2]: row[2:] for row in shared if row[2] is not None}
    return [
        Fact(batch, position, attempt, report.state, report.code, micros(report.at))
        for report in reports
        if (key := (report.account, report.reference)) in known
        for batch, position, attempt in (known[key],)
    ]


def write(tx: Tx, facts: Iterable[Fact]) -> None:
    """Write facts and fold them, batch by batch. One already known is a no-op; one of no recipient is left out."""
    by_batch = {batch: list(group) for batch, group in groupby(sorted(facts), key=lambda fact: fact.batch)}
    sizes = _sizes(tx, list(by_batch))
    placed = {
        batch: kept
        for batch, group in by_batch.items()
        if batch in sizes and (kept := [fact for fact in group if 0 <= fact.position < sizes[batch][0]])
    }
    tx.upsert("fact", FACT, [fact for group in placed.values() for fact in group], "DO NOTHING")
    for batch, group in placed.items():
        last = max(fact.at for fact in group)
        fold_states(tx, batch, [(fact.position, fact.state) for fact in group], last)
        ended = sorted({fact.position for fact in group if fact.state in (State.PLAYED, State.FAILED)})
        if not sizes[batch][1] and ended:
            finish_commands(tx, batch, ended, last)


def _sizes(tx: Tx, batches: Sequence[str]) -> dict[str, tuple[int, int]]:
    """(recipients, recipients per slice) of those that exist."""
    found: dict[str, tuple[int, int]] = {}
    for start in range(0, len(batches), ASKED):
        for batch, size, slice_size in tx.all(
            "SELECT id, size, slice_size FROM batch WHERE id IN :*batches", batches=batches[start : start + ASKED]
        ):
            found[batch] = (size, slice_size)
    return found
