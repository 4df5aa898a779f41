"""What happened: settled slices, reports, confirmations, and the change feed.

Each settled slice is one packed record; later facts are rows keyed (batch, position, attempt, state,
code), so a repeated fact is a no-op. Each batch carries its recipients' folded states, one byte per
position, and their counts: a status sums batch rows and there is no hot counter.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import repeat
from operator import is_
from typing import NamedTuple

from gateway.database import Database
from gateway.errors import Ambiguous
from gateway.model import Batch, Change, Notice, Receipt, Record, Report, State
from gateway.ports import Clock, Kept, Place, Settled
from gateway.store import audit, change, fact, history
from gateway.store.claim import put_off
from gateway.store.codec import pack, pack_outcome, unpack_alert, unpack_batch, unpack_persons
from gateway.store.reply import confirm
from gateway.store.rows import Fold, Locked, Run, person_key
from gateway.transaction import Tx, micros


class Pace(NamedTuple):
    """How long one batch took, in seconds since its step was due (accepted or approved, and started).

    `first`: no batch of its alert, channel and lane was submitted before it. `lane` is the lane's rank.
    """

    channel: str
    lane: int
    submitted_s: float
    settled_s: float
    first: bool


class Confirmation(NamedTuple):
    """Who answered for which villages, by which way, and when (µs)."""

    person: int
    villages: tuple[str, ...]
    how: str
    at: int


Counts = dict[tuple[str, str, str], int]
"""Recipients by (channel, group, state name)."""

TOGETHER = 2_000  # reports in one transaction: more of them gain little and hold up a warning
TOLD = frozenset({State.SUBMITTED, State.UNKNOWN, State.DELIVERED, State.PLAYED, State.CONFIRMED})


OUTCOME = {
    "batch": "text", "slice": "bigint", "attempt": "bigint", "account": "text", "at": "bigint", "record": "bytea",
}  # fmt: skip


class SqlLedger:
    """The `Ledger` facet."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def settle(self, settled: Settled) -> Kept:
        """Write a slice's outcome, references and counts in one transaction.

        Waits for ever for a database that is away: the broker's copy is not acked before. If the lease was lost the
        facts are kept all the same.
        """
        return await self._database.share(settle, settled, order=settled.batch)

    async def commit(self, reports: Sequence[Report]) -> list[Place]:
        """Write later facts; unmatched reports are kept until their submit shows up.

        Reports that come at the same time on
        several connections share their statements; many of one call are several transactions, so that a warning that
        comes meanwhile waits for one of them. Repeated after a failure they change nothing.

        Returns the recipients whose numbers the reports say are another carrier's; see also `settle`.
        """
        elsewhere: list[Place] = []
        for start in range(0, len(reports), TOGETHER):
            arrived = fact.Arrived(reports[start : start + TOGETHER], micros(self._clock.now()))
            elsewhere += await self._database.share(fact.commit, arrived, 5.0)
        return elsewhere

    async def history(
        self,
        person: int,
        places: Sequence[history.Place],
        phone_hash: bytes = b"",
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 1_000,
    ) -> history.Past:
        """What one person was told under these places, past ones too, from `since` on and before `until`."""
        return await self._database.read(lambda tx: history.past(tx, person, places, phone_hash, since, until, limit))

    async def confirm(self, alert: str, person: int, villages: Sequence[str], how: str, record: Record) -> bool:
        """A person answered for this version. False if already known."""
        return await self._database.write(
            lambda tx: confirm(tx, alert, person, villages, how, record, record.at), decides=True
        )

    async def changes(self, after: tuple[int, int], limit: int) -> list[Change]:
        """The change feed behind `after`, in order, without gaps."""
        return await self._database.read(lambda tx: change.read(tx, after, limit))

    async def counts(self, alert: str) -> Counts:
        """Recipients by (channel, group, state name)."""
        return (await self.counts_of([alert]))[alert]

    async def counts_of(self, alerts: Collection[str]) -> dict[str, Counts]:
        """Recipients of each of these alerts, as `counts` gives them."""
        rows = await self._database.read(
            # Most batches of an alert end alike: a thousand of them are a few rows.
            lambda tx: tx.all(
                "SELECT alert, channel, audience, counts, COUNT(*) FROM batch WHERE alert IN :*alerts"
                " GROUP BY alert, channel, audience, counts",
                alerts=sorted(alerts),
            )
        )
        totals: dict[str, Counts] = {alert: {} for alert in alerts}
        for alert, channel, audience, counts, batches in rows:
            total = totals[alert]
            for state, number in json.loads(counts).items():
                key = (channel, audience, state)
                total[key] = total.get(key, 0) + number * int(batches)
        return totals

    async def timings(self, alert: str) -> list[tuple[str, str, int, int, int | None, int | None]]:
        """Per channel and group: (channel, group, batches, unfinished batches, first and last submitted, µs)."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT channel, audience, COUNT(*), SUM(CASE WHEN unfinished > 0 THEN 1 ELSE 0 END),"
                " MIN(submitted_at), MAX(settled_at) FROM batch WHERE alert = :alert GROUP BY channel, audience",
                alert=alert,
            )
        )
        return [(r[0], r[1], int(r[2]), int(r[3] or 0), r[4], r[5]) for r in rows]

    async def batches(
        self, alert: str, group: str = "", after: str = "", limit: int = 100
    ) -> list[tuple[Batch, bytes]]:
        """Frozen batches with their folded states, by id."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT o.body, b.states FROM batch b JOIN outbox o ON o.batch = b.id WHERE b.alert = :alert"
                " AND (:audience = '' OR b.audience = :audience) AND b.id > :after ORDER BY b.id LIMIT :limit",
                alert=alert,
                audience=group,
                after=after,
                limit=limit,
            )
        )
        return [(unpack_batch(body), bytes(states)) for body, states in rows]

    async def frozen(self, batches: Collection[str]) -> list[Batch]:
        """These batches, as far as they are still held."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT body FROM outbox WHERE batch IN :*batches ORDER BY batch", batches=sorted(batches)
            )
        )
        return [unpack_batch(body) for (body,) in rows]

    async def confirmations(self, alert: str) -> list[Confirmation]:
        """Everyone who confirmed this version, the first one first."""
        return (await self.confirmations_of([alert]))[alert]

    async def confirmations_of(self, alerts: Collection[str]) -> dict[str, list[Confirmation]]:
        """Everyone who confirmed each of these alerts, as `confirmations` gives them."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT alert, person, villages, how, at FROM confirmation WHERE alert IN :*alerts ORDER BY at",
                alerts=sorted(alerts),
            )
        )
        found: dict[str, list[Confirmation]] = {alert: [] for alert in alerts}
        for alert, person, villages, how, at in rows:
            found[alert].append(Confirmation(person, tuple(json.loads(villages)), how, at))
        return found

    async def sent_to(
        self,
        person: int,
        places: Sequence[tuple[str, str]],
        since: datetime,
        until: datetime,
        standings: Collection[str] = ("active",),
    ) -> list[str]:
        """Return the alerts of these standings that this official was told of in that time, by id.

        Only what really left for this person counts, and only alerts of the class (actual or not) that was told
        last, be it over by now: an answer to a drill never confirms a real warning. Who was told that the own
        village is out of the area confirms nothing.
        """
        townships = sorted({township for township, _ in places})
        keys = [person_key(village, person) for _, village in places]

        def operation(tx: Tx) -> list[str]:
            rows = tx.all(
                "SELECT b.alert, a.standing, a.body, b.notice, b.states, o.body FROM batch b"
                " JOIN alert a ON a.id = b.alert JOIN outbox o ON o.batch = b.id WHERE a.accepted_at >= :since"
                " AND b.submitted_at <= :until AND b.audience = 'officials' AND b.township IN :*townships"
                " AND b.first_key <= :last AND b.last_key >= :first ORDER BY b.submitted_at DESC, b.id DESC",
                since=micros(since),
                until=micros(until),
                townships=townships,
                first=min(keys),
                last=max(keys),
            )
            told: set[str] = set()
            last: bool | None = None
            for alert, standing, body, notice, states, packed in rows:
                persons = unpack_persons(packed)
                if person not in persons or states[persons.index(person)] not in TOLD:
                    continue
                actual = unpack_alert(body).actual
                last = actual if last is None else last
                if actual is last and standing in standings and notice != Notice.PARTIAL_ALL_CLEAR:
                    told.add(alert)
            return sorted(told)

        return await self._database.read(operation) if places else []

    async def told_in(self, alert: str, person: int, places: Sequence[tuple[str, str]]) -> Batch | None:
        """Return the last batch in which an official with these places was told of an alert."""
        keys = [person_key(village, person) for _, village in places]

        def operation(tx: Tx) -> Batch | None:
            rows = tx.all(
                "SELECT b.states, o.body FROM batch b JOIN outbox o ON o.batch = b.id WHERE b.alert = :alert"
                " AND b.submitted_at IS NOT NULL AND b.audience = 'officials' AND b.township IN :*townships"
                " AND b.notice <> :leaving AND b.first_key <= :last AND b.last_key >= :first"
                " ORDER BY b.submitted_at DESC, b.id DESC",
                alert=alert,
                townships=sorted({township for township, _ in places}),
                leaving=Notice.PARTIAL_ALL_CLEAR.value,
                first=min(keys),
                last=max(keys),
            )
            for states, packed in rows:
                persons = unpack_persons(packed)
                if person in persons and states[persons.index(person)] in TOLD:
                    return unpack_batch(packed)
            return None

        return await self._database.read(operation) if places else None

    async def unsealed(self, limit: int) -> list[tuple[str, bytes, bytes]]:
        """Settled batches without a digest in the audit chain: (id, packed batch, states)."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT b.id, o.body, b.states FROM batch b JOIN outbox o ON o.batch = b.id"
                " WHERE b.sealed = 0 AND b.settled_at IS NOT NULL ORDER BY b.settled_at LIMIT :limit",
                limit=limit,
            )
        )
        return [(batch, bytes(body), bytes(states)) for batch, body, states in rows]

    async def paces(self, batches: Sequence[str]) -> list[Pace]:
        """How long these settled batches took; those never submitted (stopped, expired) are left out."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT b.channel, b.lane, b.submitted_at, b.settled_at, a.accepted_at, s.start, NOT EXISTS"
                " (SELECT 1 FROM batch o WHERE o.alert = b.alert AND o.channel = b.channel AND o.lane = b.lane"
                " AND (o.submitted_at, o.id) < (b.submitted_at, b.id)) FROM batch b JOIN alert a ON a.id = b.alert"
                " JOIN step s ON s.alert = b.alert AND s.number = b.step WHERE b.id IN :*batches"
                " AND b.submitted_at IS NOT NULL AND b.settled_at IS NOT NULL ORDER BY b.id",
                batches=batches,
            )
        )
        due = [max(accepted, start) for *_, accepted, start, _ in rows]
        return [
            Pace(channel, lane, max(0, submitted - since) / 1e6, max(0, settled - since) / 1e6, bool(first))
            for since, (channel, lane, submitted, settled, _, _, first) in zip(due, rows, strict=True)
        ]

    async def seal(self, records: Sequence[Record]) -> None:
        """Write the digests of batches (each record's subject) into the audit chain, each once."""

        def operation(tx: Tx) -> None:
            rows = [{"batch": record.subject} for record in records]
            sealed = tx.counts("UPDATE batch SET sealed = 1 WHERE id = :batch AND sealed = 0", rows)
            audit.append(tx, [record for record, new in zip(records, sealed, strict=True) if new])

        await self._database.write(operation, decides=True)

    async def unmatched(self) -> int:
        """Reports whose submit has not shown up."""
        row = await self._database.read(lambda tx: tx.one("SELECT COUNT(*) FROM provider_ref WHERE batch IS NULL"))
        return int(row[0]) if row else 0


def _one_receipt(settled: Settled) -> Receipt | None:
    """Return the receipt all recipients of the slice share as one object, if they do and stand in a run."""
    positions, first = settled.positions, settled.receipts[0] if settled.receipts else None
    if first is None or not len(settled.receipts) == len(positions) == positions[-1] - positions[0] + 1:
        return None
    return first if all(map(is_, settled.receipts, repeat(first))) else None


class _Outcome:
    """What a settled slice means for its claim and its batch."""

    def __init__(self, settled: Settled) -> None:
        self.settled = settled
        self.at = micros(settled.at)
        shared = _one_receipt(settled)
        self.facts: Run | list[tuple[int, State]]
        queued: list[tuple[int, Receipt]] = []
        if shared is not None and shared.state is not State.QUEUED:
            self.facts = Run(settled.positions[0], settled.positions[-1] + 1, shared.state)
        else:
            pairs = list(zip(settled.positions, settled.receipts, strict=True))
            queued = [(position, receipt) for position, receipt in pairs if receipt.state is State.QUEUED]
            self.facts = [(position, receipt.state) for position, receipt in pairs if receipt.state is not State.QUEUED]
        self.queued = bool(queued)
        doubtful = tuple(position for position, receipt in queued if isinstance(receipt.error, Ambiguous))
        fresh = tuple(position for position, receipt in queued if not isinstance(receipt.error, Ambiguous))
        self.pending = pack((fresh, doubtful)) if queued else None
        self.receipts = [shared] if shared is not None else settled.receipts

    def claim(self) -> dict[str, object]:
        """What its claim becomes."""
        settled = self.settled
        return {
            "done": int(not self.queued),
            "retry_at": micros(settled.retry_at or settled.at),
            "pending": self.pending,
            "counted": int(self.queued and settled.count_attempt),
            "batch": settled.batch,
            "slice": settled.slice,
            "owner": settled.owner,
        }

    def row(self) -> tuple[object, ...]:
        """Its row among the outcomes; see `OUTCOME`."""
        one = self.settled
        packed = pack_outcome(one.positions, self.receipts)
        return one.batch, one.slice, one.attempt, one.account, self.at, packed


def settle(tx: Tx, many: Sequence[Settled]) -> list[Kept]:
    """Settle slices; rows that reports share come before batches, as in `fact`."""
    outcomes = [_Outcome(settled) for settled in many]
    owned = tx.counts(
        "UPDATE claim SET done = :done, lease_until = 0, retry_at = :retry_at, pending = :pending,"
        " attempt = attempt + :counted WHERE batch = :batch AND slice = :slice AND owner = :owner AND done = 0"
        " AND lease_until > 0",
        [one.claim() for one in outcomes],
    )
    # A lost lease undoes no submit: the provider will report under this reference all the same.
    facts, elsewhere = fact.submit(tx, many)
    locked = Locked(tx, {one.batch for one in many})
    for one, own in zip(outcomes, owned, strict=True):
        locked.fold(Fold(one.settled.batch, one.facts, one.at, int(bool(own) and not one.queued)))
    fact.write(tx, locked, facts)
    locked.write(tx)
    tx.upsert("outcome", OUTCOME, [one.row() for one, own in zip(outcomes, owned, strict=True) if own], "DO NOTHING")
    for one, own in zip(outcomes, owned, strict=True):
        if own and one.queued:
            put_off(tx, one.settled.batch, one.at)
    return [Kept(bool(own), places) for own, places in zip(owned, elsewhere, strict=True)]
