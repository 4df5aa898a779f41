"""Later facts: reports on their way to the submits they belong to, and from there into the folded states.

Called by `ledger`. A thousand reports are a handful of statements: a look at what went to many (see `bulk`), one
upsert of the rows that other submits and reports share, which tells what has met, one lock of the batches, one insert
of facts and one write of what was folded. Rows are locked in the order of their keys, those of `bulk` first and batches
last, so that two processes do not wait for each other.

A long text has a row per part, each with the reference of the first one as its `whole`. A part that was delivered
says nothing of its recipient until all are; whatever else became of one became of the text. Reports of two parts may
come to two processes at once: both look at the parts under the lock of their batch, so the second one sees the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from gateway.model import MEMBER, Report, State
from gateway.ports import Place, Settled
from gateway.store import bulk, desired
from gateway.store.rows import ASKED, Fold, Locked
from gateway.transaction import Row, Tx, micros

PLACE = {"batch": "text", "position": "bigint", "attempt": "bigint"}
FACT = PLACE | {"state": "bigint", "code": "text", "at": "bigint"}
KEY = {"account": "text", "reference": "text", "number": "text"}
SUBMITTED = KEY | PLACE | {"kept_at": "bigint"}
PART = SUBMITTED | {"whole": "text"}
REPORTED = KEY | {"state": "bigint", "code": "text", "at": "bigint", "elsewhere": "bigint", "kept_at": "bigint"}
MEETS_REPORT = (
    "(account, reference, number)"
    " DO UPDATE SET batch = excluded.batch, position = excluded.position, attempt = excluded.attempt,"
    " kept_at = excluded.kept_at"
)
MEETS_SUBMIT = "(account, reference, number) DO UPDATE SET " + ", ".join(
    f"{name} = CASE WHEN provider_ref.state >= excluded.state THEN provider_ref.{name} ELSE excluded.{name} END"
    for name in ("state", "code", "at", "elsewhere")
)  # the highest stays, as in the fold; the first report finds no state there


Key = tuple[str, str, str]


class Arrived(NamedTuple):
    """Reports of one commit, and when they came, in µs."""

    reports: Sequence[Report]
    at: int


class Fact(NamedTuple):
    """What became of one recipient, by (batch, position, attempt); `at` in µs."""

    batch: str
    position: int
    attempt: int
    state: State
    code: str
    at: int


class _Referred(NamedTuple):
    """A recipient, by what a report may call it: `more` are the further parts of a long text. `at` in µs."""

    account: str
    reference: str
    more: tuple[str, ...]
    batch: str
    position: int
    attempt: int
    at: int


def _key(account: str, reference: str) -> Key:
    """Return where the row of a reference is: account, what a bulk submit's recipients share, and which of them."""
    name, _, member = reference.partition(MEMBER)
    return account, name, member


class _Met(NamedTuple):
    """A report whose submit is known. `whole` names the long text it is a part of, by account and reference."""

    fact: Fact
    whole: tuple[str, str] | None
    elsewhere: bool


def commit(tx: Tx, many: Sequence[Arrived]) -> list[list[Place]]:
    """Write reports: those whose submit is known become facts, the others wait for it.

    Returns for each commit which recipients' numbers its reports say are another carrier's.
    """
    seats = _seats(tx, many)
    bound = _bind(tx, [(one, at) for reports, at in many for one in reports if one.batch and one.reference])
    known = seats | _match(tx, many, seats)
    met = [[one for report in reports if (one := _met(report, known)) is not None] for reports, _ in many]
    if bound:  # what had come before these answers is told with them
        for part in met:
            places = {(one.fact.batch, one.fact.position) for one in part}
            part += [one for one in bound if (one.fact.batch, one.fact.position) in places]
    _write(tx, [one for part in met for one in part])
    return [_elsewhere(part) for part in met]


def _seats(tx: Tx, many: Sequence[Arrived]) -> dict[Key, Row]:
    """Return where recipients of messages that went to many sit, by what their reports call them."""
    asked: dict[bulk.Name, list[Key]] = {}
    for reports, _ in many:
        for report in reports:
            if not report.batch and MEMBER in report.reference:
                key = _key(report.account, report.reference)
                asked.setdefault(key[:2], []).append(key)
    found = bulk.find(tx, asked)
    missing = {name for name, keys in asked.items() if any(key[2] not in found.get(name, ()) for key in keys)}
    if missing:
        found |= bulk.await_submits(tx, missing, max(at for _, at in many))
    return {
        key: (*seat, None)
        for name, seats in found.items()
        for key in asked[name]
        if (seat := seats.get(key[2])) is not None
    }


def _bind(tx: Tx, answers: Iterable[tuple[Report, int]]) -> list[_Met]:
    """Upsert the shared rows of answers that came when the slice was settled; return whose report came first."""
    return _refer(tx, [_Referred(one.account, one.reference, one.more, *_place(one), at) for one, at in answers])[0]


def _place(report: Report) -> tuple[str, int, int]:
    return report.batch, report.position, report.attempt


def _match(tx: Tx, many: Sequence[Arrived], seats: Collection[Key]) -> dict[Key, Row]:
    """Upsert the shared rows of the other reports, from their side; return those whose submit came first, by key."""
    # One row per key in one statement: of several reports the highest state stays, as in the fold, and the first of it.
    highest: dict[Key, tuple[Report, int]] = {}
    for reports, came in many:
        for report in reports:
            key = _key(report.account, report.reference)
            if not report.batch and key not in seats and (key not in highest or report.state > highest[key][0].state):
                highest[key] = report, came
    shared = tx.upsert(
        "provider_ref",
        REPORTED,
        [
            (*key, int(one.state), one.code, micros(one.at), int(one.elsewhere), came)
            for key, (one, came) in sorted(highest.items())
        ],
        MEETS_SUBMIT,
        "account, reference, number, batch, position, attempt, whole",
    )
    return {row[:3]: row[3:] for row in shared if row[3] is not None}


def _met(report: Report, known: Mapping[Key, Row]) -> _Met | None:
    if report.batch:
        place: Row = (*_place(report), None)
    elif (found := known.get(_key(report.account, report.reference))) is not None:
        place = found
    else:
        return None
    batch, position, attempt, whole = place
    fact = Fact(batch, position, attempt, report.state, report.code, micros(report.at))
    return _Met(fact, None if whole is None else (report.account, whole), report.elsewhere)


def _elsewhere(met: Iterable[_Met]) -> list[Place]:
    return list(dict.fromkeys((one.fact.batch, one.fact.position) for one in met if one.elsewhere))


def _write(tx: Tx, met: Sequence[_Met]) -> None:
    if not met:
        return
    locked = Locked(tx, {one.fact.batch for one in met})
    partly = {one.whole for one in met if one.whole is not None and one.fact.state >= State.DELIVERED}
    write(tx, locked, _told(met, partly - _complete(tx, partly)))
    locked.write(tx)


def _told(met: Iterable[_Met], incomplete: Collection[tuple[str, str]]) -> list[Fact]:
    """Facts about recipients: not that a part was delivered of a text that has not arrived whole."""
    return [one.fact for one in met if one.whole not in incomplete or one.fact.state < State.DELIVERED]


def _complete(tx: Tx, wholes: Collection[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    """Those long texts of which every part was delivered."""
    found: list[tuple[str, str]] = []
    for account, group in groupby(sorted(wholes), key=lambda whole: whole[0]):
        names = [name for _, name in group]
        for start in range(0, len(names), ASKED):
            rows = tx.all(
                "SELECT whole FROM provider_ref WHERE account = :account AND whole IN :*wholes"
                " GROUP BY whole HAVING MIN(COALESCE(state, 0)) >= :delivered",
                account=account,
                wholes=names[start : start + ASKED],
                delivered=int(State.DELIVERED),
            )
            found += [(account, name) for (name,) in rows]
    return frozenset(found)


def submit(tx: Tx, many: Sequence[Settled]) -> tuple[list[Fact], list[list[Place]]]:
    """Upsert the shared rows from the submits' side; return the facts of reports that came first, yet to be written.

    And for each slice which recipients' numbers those reports say are another carrier's.
    """
    met = _to_many(tx, [sent for one in many for sent in bulk.sent(one)], max(micros(one.at) for one in many))
    parts, left = _refer(tx, [referred for one in many for referred in _referred(one)])
    met += parts
    left.subtract(one.whole for one in met if one.whole is not None and one.fact.state >= State.DELIVERED)
    moved = frozenset(_elsewhere(met))
    return _told(met, {whole for whole, number in left.items() if number}), [
        [place for position in one.positions if (place := (one.batch, position)) in moved] if moved else []
        for one in many
    ]


def _to_many(tx: Tx, sent: Sequence[bulk.Sent], at: int) -> list[_Met]:
    """Write rows for messages that went to many; return whose report came first, which waits no longer."""
    bulk.keep(tx, sent, at)
    waiting = _waiting(tx, {one.name for one in sent})
    if not waiting:
        return []
    met, rows = [], []
    for one in sent:
        for member, (batch, position, attempt) in one.seats():
            if (found := waiting.get((*one.name, member))) is not None:
                state, code, came, elsewhere = found
                met.append(_Met(Fact(batch, position, attempt, State(state), code, came), None, bool(elsewhere)))
                rows.append(dict(zip(KEY, (*one.name, member), strict=True)))
    tx.many(
        "DELETE FROM provider_ref WHERE account = :account AND reference = :reference AND number = :number", rows
    )  # fmt: skip
    return met


def _waiting(tx: Tx, names: Collection[bulk.Name]) -> dict[Key, Row]:
    """Return the reports under these references that wait for their submit."""
    found: dict[Key, Row] = {}
    for account, group in groupby(sorted(names), key=lambda name: name[0]):
        references = [reference for _, reference in group]
        for start in range(0, len(references), ASKED):
            rows = tx.all(
                "SELECT reference, number, state, code, at, elsewhere FROM provider_ref"
                " WHERE account = :account AND reference IN :*references AND batch IS NULL",
                account=account,
                references=references[start : start + ASKED],
            )
            found |= {(account, *row[:2]): row[2:] for row in rows}
    return found


def _referred(settled: Settled) -> Iterable[_Referred]:
    """Recipients whom a report names by a reference of their own."""
    account, batch, attempt, at = settled.account, settled.batch, settled.attempt, micros(settled.at)
    if not any(one.reference and not one.members for one in {id(one): one for one in settled.receipts}.values()):
        return ()
    return [
        _Referred(account, one.reference, one.more, batch, position, attempt, at)
        for position, one in zip(settled.positions, settled.receipts, strict=True)
        if one.reference and not one.members
    ]


def _refer(tx: Tx, referred: Iterable[_Referred]) -> tuple[list[_Met], Counter[tuple[str, str]]]:
    """Upsert shared rows from the submits' side; return whose report came first, and the parts of each long text."""
    single: dict[Key, tuple[Any, ...]] = {}
    parts: dict[Key, tuple[Any, ...]] = {}
    for account, reference, more, batch, position, attempt, at in referred:
        if more:
            keys = {_key(account, one) for one in (reference, *more)}
            parts |= {key: (*key, batch, position, attempt, at, reference) for key in keys}
        else:
            key = _key(account, reference)
            single[key] = (*key, batch, position, attempt, at)
    met = _reported(tx, SUBMITTED, single, MEETS_REPORT)
    met += _reported(tx, PART, parts, f"{MEETS_REPORT}, whole = excluded.whole")
    return met, Counter((row[0], row[-1]) for row in parts.values())


def _reported(tx: Tx, types: Mapping[str, str], rows: Mapping[Key, tuple[Any, ...]], conflict: str) -> list[_Met]:
    """Upsert submits by their keys; return those whose report came first."""
    returned = tx.upsert(
        "provider_ref", types, [rows[key] for key in sorted(rows)], conflict,
        "account, reference, number, state, code, at, elsewhere",
    )  # fmt: skip
    met: list[_Met] = []
    for account, reference, number, state, code, at, elsewhere in returned:
        if state is not None:
            _, _, _, batch, position, attempt, _, *whole = rows[account, reference, number]
            fact = Fact(batch, position, attempt, State(state), code, at)
            met.append(_Met(fact, (account, whole[0]) if whole else None, bool(elsewhere)))
    return met


def write(tx: Tx, locked: Locked, facts: Sequence[Fact]) -> None:
    """Write facts and fold them into their batches. One already known is a no-op; one of no recipient is left out."""
    placed = [fact for fact in facts if 0 <= fact.position < locked.size(fact.batch)]
    tx.upsert("fact", FACT, sorted(placed), "DO NOTHING")
    by_batch: dict[str, list[Fact]] = {}
    for fact in placed:
        by_batch.setdefault(fact.batch, []).append(fact)
    for batch, group in by_batch.items():
        last = max(fact.at for fact in group)
        locked.fold(Fold(batch, [(fact.position, fact.state) for fact in group], last))
        if locked.has_commands(batch):
            desired.reported(tx, batch, [(fact.position, fact.state, fact.code) for fact in group], last)
