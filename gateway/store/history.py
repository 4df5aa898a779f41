"""What the ledger holds of one person: every message, its receipts, the answers. "Why did I get this?", years later.

There is no row per recipient and no index over persons. A batch is frozen in the order (village, person id) and keeps
its first and last key; a person's places, past ones too, are in the directory. So per place one range of an index
over batches names the few whose keys enclose the person's, and those are opened. Called through `SqlLedger`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from gateway.model import Level, State
from gateway.store.codec import receipt_at, unpack_seats
from gateway.store.rows import person_key
from gateway.transaction import Row, Tx, micros, moment

Place = tuple[str, str]
"""(township, village); village "" for a post at the township."""
SQLITE = (
    "WITH asked AS (SELECT value ->> 0 AS batch, value ->> 1 AS position, value ->> 2 AS slice FROM json_each(:rows))"
)
POSTGRESQL = (
    "WITH asked AS (SELECT value ->> 0 AS batch, (value ->> 1)::bigint AS position, (value ->> 2)::bigint AS slice"
    " FROM json_array_elements(:rows::json))"
)
NEVER = 2**62  # later than any time


class Heard(NamedTuple):
    """One receipt: a fact with its time and the provider's own code. `attempt` counts from 1."""

    state: State
    code: str
    at: datetime
    attempt: int


class About(NamedTuple):
    """What an alert was, as far as a line of a history says it."""

    event: str
    level: Level
    kind: str
    status: str
    sent: datetime


class Told(NamedTuple):
    """One message to one person, frozen for it at `frozen_at`: under which place, why (step of the plan), how far.

    `at` and `code` are those of `state`: of the receipt that first said so, or of the settling where nothing was sent.
    `receipts` are all there are, oldest first; a reminder or a retry has attempts of its own.
    """

    alert: str
    about: About
    batch: str
    position: int
    step: int
    channel: str
    group: str
    notice: str
    township: str
    village: str
    frozen_at: datetime
    state: State
    code: str
    at: datetime | None
    receipts: tuple[Heard, ...]


class Answered(NamedTuple):
    """A confirmation of one alert by the person, for its villages."""

    alert: str
    villages: tuple[str, ...]
    how: str
    at: datetime


class Replied(NamedTuple):
    """A reply from the person's number, and what became of it. Its text is not told here."""

    channel: str
    outcome: str
    at: datetime


class Past(NamedTuple):
    """A stretch of a person's history, newest first in each list.

    `earlier`: there is more before that time; it is the `until` to ask with next. None: nothing further.
    """

    told: tuple[Told, ...]
    answered: tuple[Answered, ...]
    replied: tuple[Replied, ...]
    earlier: datetime | None


class _Event(msgspec.Struct):
    """The parts of a packed alert that the table's columns do not hold."""

    event: str
    kind: str


_event_of = msgspec.msgpack.Decoder(_Event).decode
_confirmed_for = msgspec.json.Decoder(tuple[str, ...]).decode


def past(
    tx: Tx,
    person: int,
    places: Sequence[Place],
    phone_hash: bytes,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> Past:
    """Read what happened from `since` on and before `until`: `limit` messages at most, and what lies beside them."""
    low, high = micros(since) if since else 0, micros(until) if until else NEVER
    found = _enclosing(tx, person, places, low, high)
    earlier = None
    if len(found) > limit:
        # The page ends between two moments, so that a time is all the next one needs.
        beyond = found[limit][0]
        kept = [one for one in found[:limit] if one[0] > beyond] or [one for one in found if one[0] == beyond]
        found, low = kept, kept[-1][0]
        earlier = moment(low)
    told = _told(tx, person, [batch for _, batch in found])
    return Past(told, _answered(tx, person, low, high), _replied(tx, phone_hash, low, high), earlier)


def _enclosing(tx: Tx, person: int, places: Sequence[Place], low: int, high: int) -> list[tuple[int, str]]:
    """(frozen at, id) of the batches that may hold the person, newest first; loudspeakers are no persons."""
    found: set[tuple[int, str]] = set()
    for township, village in set(places):
        rows = tx.all(
            "SELECT created_at, id FROM batch WHERE township = :township AND first_key <= :key AND last_key >= :key"
            " AND audience NOT IN ('loudspeakers', 'area') AND created_at >= :low AND created_at < :high",
            township=township,
            key=person_key(village, person),
            low=low,
            high=high,
        )
        found.update((at, batch) for at, batch in rows)
    return sorted(found, reverse=True)


def _told(tx: Tx, person: int, batches: Sequence[str]) -> tuple[Told, ...]:
    rows = tx.all(
        "SELECT o.body, b.states, b.id, b.alert, b.step, b.channel, b.audience, b.notice, b.township, b.slice_size,"
        " b.created_at, b.submitted_at, b.settled_at FROM batch b JOIN outbox o ON o.batch = b.id"
        " WHERE b.id IN :*batches ORDER BY b.created_at DESC, b.id DESC",
        batches=batches,
    )
    seated = [(row, *seat) for row in rows if (seat := _seat(row[0], person)) is not None]
    heard = _receipts(tx, [(row[2], position, row[9]) for row, position, _ in seated])
    about = _about(tx, sorted({row[3] for row, _, _ in seated}))
    return tuple(
        _line(row, position, village, about[row[3]], heard.get((row[2], position), []))
        for row, position, village in seated
    )


def _seat(body: bytes, person: int) -> tuple[int, str] | None:
    """(position, village) of a person in a packed batch, if it is there: keys enclose others too."""
    seats = unpack_seats(body)
    if person not in seats.persons:
        return None
    position = seats.persons.index(person)
    return position, seats.village(position)


def _line(row: Row, position: int, village: str, about: About, heard: list[Heard]) -> Told:
    _, states, batch, alert, step, channel, group, notice, township, _, created, submitted, settled = row
    state = State(states[position])
    receipts = sorted(heard, key=lambda one: (one.at, one.attempt, one.state))
    first = next((one for one in receipts if one.state is state), None)
    over = settled or submitted
    at = first.at if first else moment(over) if over and state is not State.QUEUED else None
    return Told(
        alert, about, batch, position, step, channel, group, notice, township, village, moment(created), state,
        first.code if first else "", at, tuple(receipts),
    )  # fmt: skip


def _receipts(tx: Tx, asked: Sequence[tuple[str, int, int]]) -> dict[tuple[str, int], list[Heard]]:
    """What was heard of these (batch, position, slice size), from the slices' packed records and the later facts."""
    found: dict[tuple[str, int], list[Heard]] = {}
    if not asked:
        return found
    # One parameter however many they are, and one look into a primary key for each.
    rows = json.dumps([(batch, position, position // size if size else 0) for batch, position, size in asked])
    table = POSTGRESQL if tx.postgresql else SQLITE
    settled = tx.all(
        f"{table} SELECT a.batch, a.position, o.attempt, o.at, o.record FROM asked a"
        " JOIN outcome o ON o.batch = a.batch AND o.slice = a.slice",
        rows=rows,
    )
    for batch, position, attempt, at, record in settled:
        if (receipt := receipt_at(record, position)) is not None:
            found.setdefault((batch, position), []).append(Heard(*receipt, moment(at), attempt))
    later = tx.all(
        f"{table} SELECT a.batch, a.position, f.attempt, f.at, f.state, f.code FROM asked a"
        " JOIN fact f ON f.batch = a.batch AND f.position = a.position",
        rows=rows,
    )
    for batch, position, attempt, at, state, code in later:
        found.setdefault((batch, position), []).append(Heard(State(state), code, moment(at), attempt))
    return found


def _about(tx: Tx, alerts: Sequence[str]) -> dict[str, About]:
    rows = tx.all("SELECT id, body, level, status, sent FROM alert WHERE id IN :*alerts", alerts=alerts)
    found = {}
    for alert, body, level, status, sent in rows:
        event = _event_of(body)
        found[alert] = About(event.event, Level(level), event.kind, status, moment(sent))
    return found


def _answered(tx: Tx, person: int, low: int, high: int) -> tuple[Answered, ...]:
    rows = tx.all(
        "SELECT alert, villages, how, at FROM confirmation WHERE person = :person AND at >= :low AND at < :high"
        " ORDER BY at DESC, alert",
        person=person,
        low=low,
        high=high,
    )
    return tuple(Answered(alert, _confirmed_for(villages), how, moment(at)) for alert, villages, how, at in rows)


def _replied(tx: Tx, phone_hash: bytes, low: int, high: int) -> tuple[Replied, ...]:
    if not phone_hash:  # erased, so that nobody can say any more which were this person's; or not for who asks
        return ()
    rows = tx.all(
        "SELECT channel, outcome, at FROM reply WHERE phone_hash = :hash AND at >= :low AND at < :high"
        " ORDER BY at DESC, reference",
        hash=phone_hash,
        low=low,
        high=high,
    )
    return tuple(Replied(channel, outcome, moment(at)) for channel, outcome, at in rows)
