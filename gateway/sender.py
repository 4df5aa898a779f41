"""Pace, claim, compose, send, settle: what happens to one batch in a worker.

Called by `relay` (for what the broker delivers) and by `sweeper` (for green work picked straight from the
store). Ordering: none between batches; slices of a batch in order. A broker message is acked when every
slice of its batch is settled or provably brought up again by the store (a lease, a retry or a halt has
its time on the batch row), never before.

A slice waits for its account's rate before it is claimed, so that a process that dies while it waits makes
nobody doubtful. One slice per lane waits at a time, and the alerts take turns (see `rotation`). Tokens of a
slice that turned out not to be ours serve the next one of the batch.

What happens on each failure:
- the account's rate is used up for longer than a slice should wait, or the carrier is down (see `breaker`): the
  batch is put off in the store, unclaimed;
- the process dies after the claim: the lease lapses, the next claimant gets the slice as doubtful
  (rule 2): red and evacuation are sent once more with 再次提醒, the rest become UNKNOWN;
- the channel raises: nothing was sent; Throttled waits as asked, Temporary backs off a bounded number of
  times, Permanent and Unusable fail; anything else is a bug, logged with its stack, and Temporary;
- one recipient fails: its receipt carries the error, the others settle; an error nobody foresaw is logged
  with its stack and makes that recipient doubtful;
- a marked repeat fails: UNKNOWN, never FAILED, since the first copy may have arrived;
- the store is away at settle: the receipts wait in memory, the message stays unacked.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import repeat
from operator import attrgetter, is_
from typing import NamedTuple, Protocol, TypeVar

from gateway import log, metrics
from gateway.breaker import Breaker
from gateway.channel import BUG, Channel, Link
from gateway.errors import (
    PACED,
    Ambiguous,
    ChannelError,
    Elsewhere,
    MingluoError,
    Permanent,
    StoreDown,
    Temporary,
    Throttled,
    Unusable,
)
from gateway.gate import Gate
from gateway.model import NEVER_SENT, Batch, ClaimResult, Document, Lane, Level, Message, Receipt, Slice, State
from gateway.ports import AlertRow, Clock, Ledger, Outbox, Settled
from gateway.rotation import Turnstile

ATTEMPTS = 5
BACKOFF_S = (1.0, 3.0, 10.0, 30.0)
LEASE_MARGIN_S = 5.0  # a lease exceeds the longest send by this much
GONE = "gone"  # an address that no longer exists: its person is taken out of later audiences

T = TypeVar("T")
_STATE = attrgetter("state")
_log = log.get("sender")


class Composer(Protocol):
    """Turns a batch into what it says; see `gateway.compose`."""

    async def message(self, batch: Batch, positions: Sequence[int], *, again: bool) -> Message:
        """Render the message for these positions."""

    def know(self, rows: Iterable[AlertRow]) -> None:
        """Take alerts as they have just been read; whoever asks for their batches need not wait for them."""

    async def repeatable(self, batch: Batch) -> bool:
        """Whether doubtful recipients are sent once more: red and evacuation only (rule 2)."""


class Stopping(MingluoError):
    """This process takes no new slices, or none of this channel."""


class Outcome(NamedTuple):
    """Receipts of one slice after the retry decisions, and when the pending ones are due."""

    receipts: list[Receipt]
    retry_at: datetime | None
    count_attempt: bool


class Sender:
    """Works off batches of the channels it is given."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        outbox: Outbox,
        ledger: Ledger,
        composer: Composer,
        links: Mapping[str, Link],
        clock: Clock,
        gone: Callable[[Sequence[int]], Awaitable[None]],
        gate: Gate | None = None,
        elsewhere: Callable[[str, Sequence[int]], Awaitable[None]] | None = None,
    ) -> None:
        self.channels = channels
        self._outbox = outbox
        self._ledger = ledger
        self._composer = composer
        self._links = links
        self._clock = clock
        self._gone = gone
        self._elsewhere = elsewhere
        self._stopping = False
        self._breakers = {name: Breaker(name, clock) for name in channels}
        self._gate = gate or Gate()
        self._turnstiles = {(name, lane): Turnstile() for name in channels for lane in Lane}

    def stop(self) -> None:
        """Claim nothing more: slices under way settle, the rest is left to others."""
        self._stopping = True

    async def unfinished(self, batches: Sequence[Batch]) -> tuple[Batch, ...]:
        """Return those of which anything is left to do; all of them if that cannot be told."""
        try:
            left = await self._outbox.unfinished([batch.id for batch in batches])
        except StoreDown:
            return tuple(batches)
        return tuple(batch for batch in batches if batch.id in left)

    async def send(self, batch: Batch) -> None:
        """Work off every slice that may be worked off now; return when the broker's copy may be acked.

        Raises:
            Stopping: the process ends, or has no connection on which it could send; the copy must not be acked.
        """
        channel, breaker = self.channels[batch.channel], self._breakers[batch.channel]
        self._gate.enter(batch.lane)
        try:
            # Whatever cannot be read is found out before a claim, not under one.
            repeatable = await self._composer.repeatable(batch)
            unused = 0  # units that were waited for and not sent
            for number in range(batch.slices):
                if self._stopping or not channel.up():
                    raise Stopping
                if batch.lane is not Lane.GREEN:
                    await self._gate.step_aside(batch.lane)
                units = min(batch.slice, len(batch) - number * batch.slice)
                until = await self._paced(batch, max(0, units - unused))
                if until is not None and await self._outbox.defer(batch.id, min(until, batch.deadline)):
                    return
                sent = await self._slice(channel, batch, number, repeatable=repeatable)
                unused = max(units, unused) - sent
                if not sent:
                    breaker.untried()
                if breaker.news():
                    await self._outbox.note_outage(batch.channel, breaker.outage)
        finally:
            self._gate.leave(batch.lane)

    async def _paced(self, batch: Batch, units: int) -> datetime | None:
        """Wait until `units` may leave; or return when the batch is to be looked at again, having taken none."""
        if (shut_until := self._breakers[batch.channel].shut_until()) is not None:
            return shut_until
        if units:
            try:
                async with self._turnstiles[batch.channel, batch.lane].turn(batch.alert):
                    if self._stopping:
                        raise Stopping
                    await self._links[batch.channel].pace(batch.channel, units, batch.lane)
            except Throttled as error:
                metrics.retries.labels(batch.channel, PACED).inc(units)
                return self._clock.now() + timedelta(seconds=error.after_s)
        if self._stopping:
            raise Stopping
        return None

    async def _slice(self, channel: Channel, batch: Batch, number: int, *, repeatable: bool) -> int:
        """Claim, send and settle one slice; return how many recipients the channel was asked to send to."""
        owner = secrets.token_hex(8)
        claim = await self._outbox.claim(batch.id, number, owner, channel.answer_s + LEASE_MARGIN_S)
        if claim.result is not ClaimResult.GRANTED:
            return 0
        if claim.doubtful or claim.lost:
            metrics.claims_lapsed.labels(channel.name).inc()
        if channel.idempotent:  # to ask again is how to learn what became of it
            everybody = tuple(sorted(claim.pending + claim.doubtful + claim.lost))
            claim = replace(claim, pending=everybody, doubtful=(), lost=())
        receipts: dict[int, Receipt] = dict.fromkeys(claim.lost, Receipt(State.UNKNOWN, "possible_duplicate"))
        doubtful = claim.doubtful
        if doubtful and not repeatable:
            receipts |= dict.fromkeys(doubtful, Receipt(State.UNKNOWN, "outcome_unknown"))
            doubtful = ()
        parts = [part for part in ((claim.pending, False), (doubtful, True)) if part[0]]
        # Side by side, so that both are over before the lease is.
        outcomes = await asyncio.gather(
            *(
                self._send(channel, batch, number, claim.attempt, positions, again=again, repeatable=repeatable)
                for positions, again in parts
            )
        )
        positions, ordered = _joined(receipts, parts, outcomes)
        await self._settle(channel, batch, number, claim.attempt, owner, positions, ordered, outcomes)
        return sum(len(positions) for positions, _ in parts)

    async def _settle(
        self, channel: Channel, batch: Batch, number: int, attempt: int, owner: str,
        positions: Sequence[int], receipts: Sequence[Receipt], outcomes: Sequence[Outcome],
    ) -> None:  # fmt: skip
        due = [outcome.retry_at for outcome in outcomes if outcome.retry_at is not None]
        counted = any(outcome.count_attempt for outcome in outcomes)
        settled = Settled(
            batch.id, number, attempt, owner, positions, receipts, channel.name, self._clock.now(),
            min(*due, max(batch.deadline, self._clock.now())) if due else None, counted,
        )  # fmt: skip
        kept = await self._ledger.settle(settled)
        if not kept.owned:
            _log.warning("lease_lost", batch=batch.id, slice=number)
        if kept.elsewhere:  # the carrier's report was here before its answer
            await self._refused(channel, [batch.persons[at] for _, at in kept.elsewhere])
        various = distinct(receipts)
        _count(channel.name, receipts, various)
        if any(one.code == GONE for one in various):
            here = zip(positions, receipts, strict=True)
            await self._gone([batch.persons[at] for at, one in here if one.code == GONE])

    async def _send(
        self, channel: Channel, batch: Batch, number: int, attempt: int, positions: Sequence[int],
        *, again: bool, repeatable: bool,
    ) -> Outcome:  # fmt: skip
        """Send some positions of a slice and decide on every error."""
        try:
            message = await self._composer.message(batch, positions, again=again)
        except Exception:
            _log.exception("cannot_compose", batch=batch.id)
            metrics.alarms.labels("cannot_compose").inc()
            receipts = [Receipt(State.FAILED, "cannot_compose", error=Temporary("cannot_compose"))] * len(positions)
        else:
            slice_ = Slice(
                batch.id, number, attempt, positions, _at(batch.persons, positions), _at(batch.addresses, positions)
            )
            receipts = await self._call(channel, slice_, message)
            various = distinct(receipts)
            self._breakers[channel.name].note(various)
            if any(isinstance(one.error, Elsewhere) for one in various):
                await self._learn(channel, slice_, receipts)
            if again:
                sent = sum(receipt.error is None and receipt.state not in NEVER_SENT for receipt in receipts)
                metrics.possible_duplicates.labels(channel.name).inc(sent)
                marked = {id(receipt): _marked(receipt) for receipt in distinct(receipts)}
                receipts = [marked[id(receipt)] for receipt in receipts]
        return self._decide(channel, receipts, attempt, again=again, repeatable=repeatable)

    async def _learn(self, channel: Channel, slice_: Slice, receipts: Sequence[Receipt]) -> None:
        """Have it kept whose number is another carrier's: before it counts as failed, so that it is known by then."""
        both = zip(slice_.persons, receipts, strict=True)
        await self._refused(channel, [person for person, receipt in both if isinstance(receipt.error, Elsewhere)])

    async def _refused(self, channel: Channel, people: Sequence[int]) -> None:
        if self._elsewhere is None:
            return
        try:
            await self._elsewhere(channel.name, people)
        except StoreDown:  # what was sent is settled all the same; the next refusal tells it again
            _log.warning("carrier_not_kept", channel=channel.name, people=len(people))

    async def _call(self, channel: Channel, slice_: Slice, message: Message) -> list[Receipt]:
        if self._clock.now() >= message.expires:  # composing took its time
            return [Receipt(State.EXPIRED)] * len(slice_)
        try:
            async with asyncio.timeout(channel.answer_s):
                receipts = await channel.send(slice_, message, self._links[channel.name])
        except TimeoutError:
            return [Receipt(State.QUEUED, "no_answer", error=Ambiguous("no_answer"))] * len(slice_)
        except ChannelError as error:
            return [Receipt(State.FAILED, error.code, error=error)] * len(slice_)
        except Exception as error:
            _bug(channel.name, slice_.batch, error)
            return [Receipt(State.FAILED, BUG, error=Temporary(BUG))] * len(slice_)
        for bug in dict.fromkeys(map(_unforeseen, distinct(receipts))):
            if bug is not None:
                _bug(channel.name, slice_.batch, bug)
        if len(receipts) != len(slice_):
            _log.error("wrong_number_of_receipts", channel=channel.name, batch=slice_.batch)
            return [Receipt(State.UNKNOWN, "wrong_number_of_receipts")] * len(slice_)
        return receipts

    def _decide(
        self, channel: Channel, receipts: Sequence[Receipt], attempt: int, *, again: bool, repeatable: bool
    ) -> Outcome:
        if all(receipt.error is None for receipt in distinct(receipts)):
            return Outcome(list(receipts), None, False)
        decided: list[Receipt] = []
        waits: list[float] = []
        counted = False
        for receipt in receipts:
            verdict, wait_s = _verdict(receipt, attempt, channel.answer_s, again=again, repeatable=repeatable)
            decided.append(verdict)
            if wait_s is not None:
                waits.append(wait_s)
                counted = counted or not isinstance(receipt.error, Throttled)
                metrics.retries.labels(channel.name, _why(receipt.error)).inc()
        retry_at = self._clock.now() + timedelta(seconds=min(waits)) if waits else None
        return Outcome(decided, retry_at, counted)


def _marked(receipt: Receipt) -> Receipt:
    """A repeat that left says so in the ledger (rule 2); of one that did not, the first copy may have arrived."""
    if receipt.error is not None:
        return receipt
    if receipt.state in NEVER_SENT:
        return Receipt(State.UNKNOWN, receipt.code or "outcome_unknown")
    return replace(receipt, code="possible_duplicate")


def _unforeseen(receipt: Receipt) -> BaseException | None:
    """Return what a receipt shows of a bug in its channel."""
    error = receipt.error
    if error is None or isinstance(error, ChannelError):
        return error.__cause__ if error is not None and error.code == BUG else None
    return error


def _bug(channel: str, batch: str, error: BaseException) -> None:
    """Say where it happened; its words stay unsaid, for they may quote a number or a text (rule 9)."""
    frames = traceback.extract_tb(error.__traceback__)
    stack = "\n".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    _log.error("bug_in_channel", channel=channel, batch=batch, type=type(error).__name__, stack=stack)
    metrics.alarms.labels("bug").inc()


def _why(error: Exception | None) -> str:
    """Name an error for the metric, from a closed set."""
    if isinstance(error, Throttled):
        return PACED if error.code == PACED else "throttled"
    return "temporary" if isinstance(error, Temporary) else "ambiguous"


def _verdict(
    receipt: Receipt, attempt: int, answer_s: float, *, again: bool, repeatable: bool
) -> tuple[Receipt, float | None]:
    """Turn an error into a final receipt, or into a pending one and the seconds until its next try."""
    error = receipt.error
    if error is None:
        return receipt, None
    if not isinstance(error, ChannelError):
        error = Ambiguous(BUG)  # a receipt was written after the call: nobody knows whether the text had left
    # The first copy of a repeat may have arrived, whatever becomes of the second.
    final = State.UNKNOWN if again else State.FAILED
    if isinstance(error, Ambiguous):  # a reference that is known already leads a report to its recipient
        if again or not repeatable:
            return replace(receipt, state=State.UNKNOWN, code=error.code or "outcome_unknown", error=None), None
        return replace(receipt, state=State.QUEUED, code=error.code, error=error), answer_s
    if isinstance(error, Permanent | Unusable):
        return Receipt(final, error.code or "refused"), None
    # What was doubtful before stays doubtful: it is never again sent as if for the first time.
    pending = Ambiguous(receipt.code) if again else error
    if isinstance(error, Throttled):
        return Receipt(State.QUEUED, error.code, error=pending), error.after_s
    if attempt >= ATTEMPTS:
        return Receipt(final, receipt.code or "attempts_used_up"), None
    backoff_s = BACKOFF_S[min(attempt, len(BACKOFF_S)) - 1]
    return Receipt(State.QUEUED, receipt.code, error=pending), backoff_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter


def _at(values: Sequence[T], positions: Sequence[int]) -> Sequence[T]:
    """Pick positions; a whole run is one slice of the tuple."""
    first, last = positions[0], positions[-1]
    if last - first + 1 == len(positions):
        return values[first : last + 1]
    return [values[position] for position in positions]


def _joined(
    settled: Mapping[int, Receipt], parts: Sequence[tuple[Sequence[int], bool]], outcomes: Sequence[Outcome]
) -> tuple[Sequence[int], Sequence[Receipt]]:
    """Return all positions of a slice in order, and the receipt of each."""
    if len(parts) == 1 and not settled:  # nearly always, and in order as they are
        return parts[0][0], outcomes[0].receipts
    receipts = dict(settled)
    for (positions, _), outcome in zip(parts, outcomes, strict=True):
        receipts |= dict(zip(positions, outcome.receipts, strict=True))
    ordered = sorted(receipts)
    return ordered, [receipts[position] for position in ordered]


def distinct(receipts: Sequence[Receipt]) -> Collection[Receipt]:
    """Return each object once: most slices end with one receipt for all, and a thousand of it need no look each."""
    if receipts and all(map(is_, receipts, repeat(receipts[0]))):
        return receipts[:1]
    return {id(receipt): receipt for receipt in receipts}.values()


def _count(channel: str, receipts: Sequence[Receipt], various: Collection[Receipt]) -> None:
    states = Counter(map(_STATE, receipts)) if len(various) > 1 else {one.state: len(receipts) for one in various}
    for state, number in states.items():
        metrics.deliveries.labels(channel, state.name.lower()).inc(number)


def repeats(document: Document, level: Level) -> bool:
    """Rule 2: only red and evacuation instructions are worth a possible duplicate."""
    return level is Level.RED or document is Document.EVACUATION
