"""The contract of the store, held by SQLite and by PostgreSQL.

A village is only as safe as a claim: what is claimed once must never be claimed by another, what lapsed
must come back as doubtful, and what was stopped must never leave.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import blank
import psycopg
import pytest

from gateway.database import Database
from gateway.errors import Ambiguous, ConfigError, Temporary
from gateway.model import (
    Alert,
    Audience,
    Batch,
    Claim,
    ClaimResult,
    Document,
    Group,
    Kind,
    Lane,
    Level,
    Notice,
    Plan,
    Receipt,
    Record,
    Reference,
    Reply,
    Report,
    State,
    Status,
    Step,
    Target,
)
from gateway.ports import Draft, Settled, StepWork
from gateway.standing import Standing
from gateway.store import Store, fact, reply
from gateway.store.acceptance import accept
from gateway.store.command import STALE_S, Open
from gateway.store.desired import PLAYS
from gateway.store.reply import Effect, Received
from gateway.transaction import Tx, micros

NOW = datetime(2026, 7, 20, 6, 30, tzinfo=UTC)


class HandClock:
    """Time moved by hand."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> datetime:
        return self.time

    async def sleep(self, wait_s: float) -> None:
        self.time += timedelta(seconds=wait_s)

    def advance(self, wait_s: float) -> None:
        self.time += timedelta(seconds=wait_s)


@pytest.fixture
def hand() -> HandClock:
    return HandClock()


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, hand: HandClock) -> AsyncIterator[Store]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    database = Database(url)
    await database.open()
    yield Store(database, hand)
    await database.close()


def alert(identifier: str = "a1") -> Alert:
    return Alert(
        "bypq@mingluo.example", identifier, NOW, Status.ACTUAL, Kind.ALERT, Document.WARNING, "11B03", "暴雨",
        Level.RED, expires=NOW + timedelta(hours=3),
    )  # fmt: skip


def batch_of(one: Alert, size: int = 4, slice_: int = 2, number: int = 0, channel: str = "noop") -> Batch:
    return Batch(
        f"{one.id}.1.{number}", one.id, 1, channel, Lane.GREEN, Group.OFFICIALS, Notice.ISSUE, "zh", "411726204",
        NOW + timedelta(hours=3), tuple(range(100, 100 + size)), tuple(f"+8610000000{n:03d}" for n in range(size)),
        (("411726204201", size),), slice=slice_,
    )  # fmt: skip


def draft_of(one: Alert, *batches: Batch, digest: str = "d", stops: dict[str, str] | None = None) -> Draft:
    audience = Audience((Target("411726204"),), Group.OFFICIALS, "noop")
    step = Step(1, audience, Notice.ISSUE, Lane.GREEN, NOW, NOW + timedelta(hours=3))
    plan = Plan(one.id, "green", ("hazard on the list",), audience.targets, (), (step,))
    record = Record(NOW, "issuer", "accept", one.id)
    return Draft(one, digest, plan, batches, {1: None}, [record], stops or {}, NOW)


async def opened(store: Store, one: Alert | None = None, slice_: int = 2, channel: str = "noop") -> Batch:
    """Accept one alert with one batch."""
    one = one or alert()
    batch = batch_of(one, slice_=slice_, channel=channel)
    assert (await store.outbox.accept(draft_of(one, batch))).result == "accepted"
    return batch


def settled(
    batch: Batch, slice_: int, owner: str, positions: list[int], receipt: Receipt, at: datetime = NOW
) -> Settled:
    return Settled(batch.id, slice_, 1, owner, positions, [receipt] * len(positions), "noop", at)


async def test_what_is_left_of_a_message_s_batches_is_told(store: Store) -> None:
    """A message that comes again is worked off where it was left."""
    about = alert("again")
    done, begun, new = (batch_of(about, number=number) for number in range(3))
    await store.outbox.accept(draft_of(about, done, begun, new))
    for batch, slices in ((done, (0, 1)), (begun, (0,))):
        for at in slices:
            await store.outbox.claim(batch.id, at, "me", 20)
            receipts = [Receipt(State.SUBMITTED)] * 2
            positions = [2 * at, 2 * at + 1]
            await store.ledger.settle(Settled(batch.id, at, 1, "me", positions, receipts, "noop", NOW))
    assert await store.outbox.unfinished([done.id, begun.id, new.id, "none"]) == {begun.id, new.id}


async def test_what_was_accepted_is_there_whole_with_its_plan_and_batches(store: Store) -> None:
    """A 202 means everything needed to warn a village is durable."""
    batch = await opened(store)
    row = await store.outbox.alert(batch.alert)
    assert row is not None
    assert row.alert == alert()
    assert row.standing == "active"
    assert row.plan.steps[0].audience.targets == (Target("411726204"),)
    assert await store.ledger.counts(batch.alert) == {("noop", "officials", "queued"): 4}


async def test_the_same_content_again_is_a_duplicate_and_other_content_a_conflict(store: Store) -> None:
    """A nervous second click must not warn twice, and a changed text must not hide behind an old number."""
    await opened(store)
    assert (await store.outbox.accept(draft_of(alert()))).result == "duplicate"
    assert (await store.outbox.accept(draft_of(alert(), digest="other"))).result == "conflict"


async def test_in_force_is_what_is_active_or_waits_and_has_not_expired(store: Store, hand: HandClock) -> None:
    """A new warning is compared with these: one too many confuses, one too few lets two contradict each other."""
    first, waiting, stopped, written = alert("a1"), alert("a2"), alert("a3"), alert("a4")
    standings = {waiting: "sign", written: "draft"}
    for number, one in enumerate((first, waiting, stopped, written)):
        standing = standings.get(one, "active")
        draft = replace(draft_of(one), now=NOW + timedelta(seconds=number), standing=standing)
        assert (await store.outbox.accept(draft)).result == "accepted"
    await store.outbox.stop(stopped.id, "recalled", Record(NOW, "issuer", "recall", stopped.id))
    assert [row.alert.id for row in await store.outbox.in_force(hand.now(), 10)] == [waiting.id, first.id]
    assert [row.standing for row in await store.outbox.in_force(hand.now(), 1)] == ["sign"]
    assert await store.outbox.in_force(NOW + timedelta(hours=3), 10) == []


async def accepted_at_once(store: Store, *drafts: Draft) -> list[str]:
    """Hand all of them in while the writer is busy, so that it takes them as one group; return what became of each."""
    released = threading.Event()
    busy = asyncio.ensure_future(store.database.write(lambda _tx: released.wait(20)))
    accepting = [asyncio.ensure_future(store.outbox.accept(one)) for one in drafts]
    asyncio.get_running_loop().call_later(0.1, released.set)
    assert await busy
    return [one.result for one in await asyncio.gather(*accepting)]


async def test_of_those_taken_in_at_once_each_is_answered_for_itself(store: Store) -> None:
    """In a storm fifty counties send in one second: no warning may be lost, or sent twice, for being in a group."""
    one, two = alert(), replace(alert(), identifier="two")
    other = replace(alert(), sent=NOW + timedelta(seconds=1))
    drafts = [draft_of(each, batch_of(each)) for each in (one, one, other, two)]
    drafts[2] = replace(drafts[2], content_digest="other")
    assert await accepted_at_once(store, *drafts) == ["accepted", "duplicate", "conflict", "accepted"]
    stored = [await store.outbox.alert(each.id) for each in (one, two)]
    assert [row.alert if row else None for row in stored] == [one, two]
    for each in (one, two):
        assert await store.ledger.counts(each.id) == {("noop", "officials", "queued"): 4}
    assert await store.audit.verify() == (2, "")


async def test_one_that_fails_in_a_group_takes_nobody_with_it(store: Store) -> None:
    """An update of what has just ended is refused; the warning another county sends in that moment is not."""
    good, bad = alert(), replace(alert(), identifier="late", kind=Kind.UPDATE)
    found = await accepted_at_once(store, draft_of(bad, stops={"unknown": "superseded"}), draft_of(good))
    assert found == ["overtaken", "accepted"]
    assert await store.outbox.alert(bad.id) is None
    assert await store.audit.verify() == (1, "")


@pytest.mark.parametrize(("digest", "result"), [("d", "duplicate"), ("other", "conflict")])
async def test_two_processes_do_not_accept_one_identifier_twice(
    database_url: str, hand: HandClock, digest: str, result: str
) -> None:
    """A sender that asks two gateways at once, with a corrected text even, gets one warning sent, not two."""
    first, second = Database(database_url), Database(database_url)
    await first.open()
    await second.open()
    entered, released = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(tx: Tx) -> str:
        (one,) = accept(tx, [draft_of(alert(), batch_of(alert()))])
        loop.call_soon_threadsafe(entered.set)
        assert released.wait(20)
        return one.result

    writing = asyncio.ensure_future(first.write(slow))
    await entered.wait()
    loop.call_later(0.3, released.set)  # the second waits meanwhile for the first one's row
    later = replace(alert(), sent=NOW + timedelta(seconds=1))
    again = await Store(second, hand).outbox.accept(draft_of(later, batch_of(later), digest=digest))
    assert (await writing, again.result, again.alert) == ("accepted", result, alert().id)
    await first.close()
    await second.close()


async def test_a_claim_that_waited_for_the_store_is_judged_by_the_time_it_runs(hand: HandClock, store: Store) -> None:
    """A warning whose time has passed while the database was away must not go out when it is back."""
    batch = await opened(store)
    entered, released = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def outage(_tx: Tx) -> None:
        loop.call_soon_threadsafe(entered.set)
        assert released.wait(20)

    away = asyncio.ensure_future(store.database.write(outage))
    await entered.wait()
    claiming = asyncio.ensure_future(store.outbox.claim(batch.id, 0, "me", 20))
    await asyncio.sleep(0)
    hand.advance(4 * 3600)
    released.set()
    await away
    assert (await claiming).result is ClaimResult.SETTLED
    assert (await store.ledger.counts(batch.alert))[("noop", "officials", "expired")] == 2


async def test_a_slice_is_granted_to_exactly_one_of_many_claimants(store: Store) -> None:
    """Broker copy, sweeper and direct pick-up race for the same village; one text goes out."""
    batch = await opened(store)
    claims = await asyncio.gather(*(store.outbox.claim(batch.id, 0, f"o{n}", 20) for n in range(20)))
    results = sorted(claim.result for claim in claims)
    assert results.count(ClaimResult.GRANTED) == 1
    assert results.count(ClaimResult.HELD) == 19


async def test_a_repeated_claim_of_the_same_owner_is_the_same_grant(store: Store) -> None:
    """A commit whose answer was lost is repeated; it must not lock itself out."""
    batch = await opened(store)
    first = await store.outbox.claim(batch.id, 0, "me", 20)
    again = await store.outbox.claim(batch.id, 0, "me", 20)
    assert first.result is again.result is ClaimResult.GRANTED
    assert first.pending == again.pending == (0, 1)


async def test_settled_slices_are_never_granted_again_and_finish_the_batch(store: Store) -> None:
    """What was sent is not sent twice."""
    batch = await opened(store)
    for number, positions in ((0, [0, 1]), (1, [2, 3])):
        await store.outbox.claim(batch.id, number, "me", 20)
        assert await store.ledger.settle(settled(batch, number, "me", positions, Receipt(State.SUBMITTED)))
        assert (await store.outbox.claim(batch.id, number, "you", 20)).result is ClaimResult.SETTLED
    assert await store.outbox.ready([Lane.GREEN], ["noop"], 0, 10) == []
    assert await store.ledger.counts(batch.alert) == {("noop", "officials", "submitted"): 4}


async def test_a_lapsed_lease_comes_back_as_doubtful_and_a_second_one_as_lost(store: Store, hand: HandClock) -> None:
    """Rule 2: nobody is knowingly sent the same version twice; the doubt is carried, not forgotten."""
    batch = await opened(store)
    await store.outbox.claim(batch.id, 0, "dead", 20)
    assert (await store.outbox.claim(batch.id, 0, "early", 20)).result is ClaimResult.HELD
    hand.advance(21)
    second = await store.outbox.claim(batch.id, 0, "second", 20)
    assert (second.result, second.pending, second.doubtful) == (ClaimResult.GRANTED, (), (0, 1))
    hand.advance(21)
    third = await store.outbox.claim(batch.id, 0, "third", 20)
    assert (third.pending, third.doubtful, third.lost) == ((), (), (0, 1))


async def test_a_claim_whose_commit_had_no_answer_for_longer_than_its_lease_doubts_nobody(
    store: Store, hand: HandClock
) -> None:
    """The database fails over for a minute: what is repeated then has sent nothing, and a village is not given up."""
    batch = await opened(store)
    for _ in range(2):
        claim = await store.outbox.claim(batch.id, 0, "me", 20)
        assert (claim.attempt, claim.pending, claim.doubtful) == (1, (0, 1), ())
        hand.advance(60)
    dead = await store.outbox.claim(batch.id, 0, "you", 20)
    assert (dead.pending, dead.doubtful) == ((), (0, 1))


async def test_a_settle_after_the_lease_was_lost_keeps_its_facts_but_not_the_slice(
    store: Store, hand: HandClock
) -> None:
    """A worker that woke up late still knows who was reached."""
    batch = await opened(store)
    await store.outbox.claim(batch.id, 0, "slow", 20)
    hand.advance(21)
    await store.outbox.claim(batch.id, 0, "fast", 20)
    assert not await store.ledger.settle(settled(batch, 0, "slow", [0, 1], Receipt(State.DELIVERED)))
    assert (await store.ledger.counts(batch.alert))[("noop", "officials", "delivered")] == 2
    assert (await store.outbox.claim(batch.id, 0, "other", 20)).result is ClaimResult.HELD


async def test_pending_positions_wait_for_their_retry_and_only_they_are_granted(store: Store, hand: HandClock) -> None:
    """Partial success is ordinary: the ones reached are left in peace."""
    batch = await opened(store)
    await store.outbox.claim(batch.id, 0, "me", 20)
    receipts = [Receipt(State.SUBMITTED), Receipt(State.QUEUED, error=Temporary("busy"))]
    retry = NOW + timedelta(seconds=5)
    await store.ledger.settle(Settled(batch.id, 0, 1, "me", [0, 1], receipts, "noop", NOW, retry))
    early = await store.outbox.claim(batch.id, 0, "you", 20)
    assert (early.result, early.until) == (ClaimResult.WAITING, retry)
    hand.advance(6)
    assert [ready.batch for ready in await store.outbox.ready([Lane.GREEN], ["noop"], 2, 10)] == [batch.id]
    due = await store.outbox.claim(batch.id, 0, "you", 20)
    assert (due.result, due.pending, due.attempt) == (ClaimResult.GRANTED, (1,), 2)


async def test_an_unanswered_call_stays_doubtful_through_its_retry(store: Store, hand: HandClock) -> None:
    """The repeat must know that it is one, to say 再次提醒."""
    batch = await opened(store)
    await store.outbox.claim(batch.id, 0, "me", 20)
    receipts = [Receipt(State.QUEUED, error=Ambiguous()), Receipt(State.QUEUED, error=Temporary())]
    await store.ledger.settle(Settled(batch.id, 0, 1, "me", [0, 1], receipts, "noop", NOW, NOW))
    claim = await store.outbox.claim(batch.id, 0, "you", 20)
    assert (claim.pending, claim.doubtful) == ((1,), (0,))


async def test_after_a_stop_every_claim_fails_and_the_rest_is_superseded(store: Store) -> None:
    """A recalled warning must not go on waking people."""
    batch = await opened(store)
    await store.outbox.claim(batch.id, 0, "me", 20)
    assert await store.outbox.stop(batch.alert, "cancelled", Record(NOW, "issuer", "recall", batch.alert))
    assert (await store.outbox.claim(batch.id, 1, "me", 20)).result is ClaimResult.SETTLED
    await store.ledger.settle(settled(batch, 0, "me", [0, 1], Receipt(State.SUBMITTED)))
    assert await store.ledger.counts(batch.alert) == {
        ("noop", "officials", "submitted"): 2,
        ("noop", "officials", "superseded"): 2,
    }
    assert not await store.outbox.stop(batch.alert, "cancelled", Record(NOW, "issuer", "recall", batch.alert))


async def test_a_stop_of_a_doubtful_slice_leaves_it_unknown(store: Store, hand: HandClock) -> None:
    """Nobody may claim "not sent" of what may have been."""
    batch = await opened(store)
    await store.outbox.claim(batch.id, 0, "dead", 20)
    await store.outbox.stop(batch.alert, "cancelled", Record(NOW, "issuer", "recall", batch.alert))
    hand.advance(21)
    assert (await store.outbox.claim(batch.id, 0, "you", 20)).result is ClaimResult.SETTLED
    assert (await store.ledger.counts(batch.alert))[("noop", "officials", "unknown")] == 2


async def test_nothing_is_granted_after_the_deadline(store: Store, hand: HandClock) -> None:
    """A six-hour-old warning sends people into the wrong night."""
    batch = await opened(store)
    hand.advance(3 * 3600)
    assert (await store.outbox.claim(batch.id, 0, "me", 20)).result is ClaimResult.SETTLED
    assert (await store.ledger.counts(batch.alert))[("noop", "officials", "expired")] == 2


@pytest.mark.parametrize("scope", ["*", "411726", "noop"])
async def test_a_halt_stops_claims_and_its_end_releases_them(store: Store, hand: HandClock, scope: str) -> None:
    """One command silences a county, a channel, or everything; nothing is lost by it."""
    batch = await opened(store)
    await store.outbox.halt(scope, True, Record(NOW, "leader", "halt", scope))
    assert (await store.outbox.claim(batch.id, 0, "me", 20)).result is ClaimResult.HALTED
    await store.outbox.halt(scope, False, Record(NOW, "leader", "release", scope))
    hand.advance(3)
    assert len(await store.outbox.ready([Lane.GREEN], ["noop"], 2, 10)) == 1
    assert (await store.outbox.claim(batch.id, 0, "me", 20)).result is ClaimResult.GRANTED


@pytest.mark.parametrize("what", ["slice", "loudspeakers"])
async def test_a_claim_that_waits_sees_the_halt_that_came_meanwhile(
    database_url: str, hand: HandClock, what: str
) -> None:
    """Whoever halts a county and is told so hears of no text or play that was claimed a moment later."""
    ours, theirs = Database(database_url), Database(database_url)
    await ours.open()
    await theirs.open()
    store, other = Store(ours, hand), Store(theirs, hand)
    batch = await opened(store, slice_=2 if what == "slice" else 0)
    claim: Coroutine[Any, Any, Claim | dict[str, list[int]]] = (
        store.outbox.claim(batch.id, 0, "me", 20) if what == "slice" else store.commands.take({batch.id: [0, 1]})
    )
    with psycopg.connect(database_url, autocommit=True) as locker:
        locker.execute("BEGIN")
        locker.execute("SELECT 1 FROM alert FOR UPDATE")
        claiming = asyncio.create_task(claim)
        waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted"
        while locker.execute(waiting).fetchone() == (0,):  # noqa: ASYNC110 - another connection's lock has no event
            await asyncio.sleep(0.01)
        await other.outbox.halt("*", True, Record(NOW, "leader", "halt", "*"))
        locker.execute("COMMIT")
    claimed = await claiming
    assert (claimed.result is ClaimResult.HALTED) if isinstance(claimed, Claim) else claimed == {batch.id: []}
    await ours.close()
    await theirs.close()


async def test_what_the_broker_does_not_confirm_is_found_and_what_it_has_is_not(store: Store, hand: HandClock) -> None:
    """A red alert's residents go straight from the store while RabbitMQ is down, and only then."""
    batch = await opened(store)
    assert await store.outbox.unconfirmed([Lane.GREEN], ["noop"], 3, 10) == []
    hand.advance(3)
    assert [one.batch for one in await store.outbox.unconfirmed([Lane.GREEN], ["noop"], 3, 10)] == [batch.id]
    await store.outbox.published([batch.id])
    hand.advance(60)
    assert await store.outbox.unconfirmed([Lane.GREEN], ["noop"], 3, 10) == []


async def test_of_several_urgent_alerts_each_has_its_first_batches_in_line(store: Store, hand: HandClock) -> None:
    """Seven townships do not wait behind two hundred; whoever is alone needs no place of its own."""
    large = [replace(batch_of(alert("large"), number=number), lane=Lane.URGENT) for number in range(5)]
    small = replace(batch_of(alert("small")), lane=Lane.URGENT)
    bulk = replace(batch_of(alert("bulk")), lane=Lane.BULK)
    await store.outbox.accept(draft_of(alert("large"), *large, digest="l"))
    await store.outbox.accept(draft_of(alert("bulk"), bulk, digest="b"))
    hand.advance(2)
    assert await store.outbox.in_line(["noop"], 1, 2) == []
    await store.outbox.accept(draft_of(alert("small"), small, digest="s"))
    found = [one.batch for one in await store.outbox.in_line(["noop"], 1, 2)]
    assert found == [*sorted((large[0].id, small.id)), large[1].id]
    await store.outbox.claim(small.id, 0, "me", 20)
    assert await store.outbox.in_line(["noop"], 1, 2) == []


async def due(store: Store) -> list[str]:
    return [ready.batch for ready in await store.outbox.ready([Lane.GREEN], ["noop"], 2, 10)]


async def retry(store: Store, batch: Batch, slice_: int, after_s: float, now: datetime) -> None:
    """Claim a slice and settle it as to be tried again."""
    await store.outbox.claim(batch.id, slice_, "me", 20)
    waiting = [Receipt(State.QUEUED, error=Temporary("busy"))] * 2
    positions = [2 * slice_, 2 * slice_ + 1]
    again = now + timedelta(seconds=after_s)
    await store.ledger.settle(Settled(batch.id, slice_, 1, "me", positions, waiting, "noop", now, again))


@pytest.mark.parametrize("waits", [(1, 300), (300, 1)])
async def test_a_retry_is_not_postponed_by_another_slice_s_longer_one(
    store: Store, hand: HandClock, waits: tuple[int, int]
) -> None:
    """Fifty people due in a second must not wait five minutes for fifty others."""
    batch = await opened(store)
    for number, after_s in enumerate(waits):
        await retry(store, batch, number, after_s, hand.now())
    assert await due(store) == []
    hand.advance(1.1)
    assert await due(store) == [batch.id]
    long = waits.index(300)
    assert (await store.outbox.claim(batch.id, long, "you", 20)).result is ClaimResult.WAITING
    assert await due(store) == [batch.id]
    await store.outbox.claim(batch.id, 1 - long, "you", 20)
    done = [2 * (1 - long), 2 * (1 - long) + 1]
    await store.ledger.settle(settled(batch, 1 - long, "you", done, Receipt(State.SUBMITTED), hand.now()))
    assert (await store.outbox.claim(batch.id, long, "you", 20)).result is ClaimResult.WAITING
    assert await due(store) == []
    hand.advance(299)
    assert await due(store) == [batch.id]


async def test_slices_nobody_began_are_brought_up_before_another_s_retry(store: Store, hand: HandClock) -> None:
    """A worker that throttles and stops must not take the rest of its batch with it."""
    batch = await opened(store)
    await retry(store, batch, 0, 300, hand.now())
    hand.advance(1)
    assert await due(store) == [batch.id]


async def test_a_batch_put_off_unclaimed_is_due_then_and_no_sooner(store: Store, hand: HandClock) -> None:
    """Waiting for an account's rate leaves no claim behind, and is not asked about four times a second."""
    batch = await opened(store)
    hand.advance(5)
    assert await store.outbox.defer(batch.id, hand.now() + timedelta(seconds=40))
    assert await due(store) == []
    hand.advance(41)
    assert await due(store) == [batch.id]
    assert (await store.outbox.claim(batch.id, 0, "me", 20)).attempt == 1


@pytest.mark.parametrize("end", ["stop", "deadline"])
async def test_what_has_ended_is_not_put_off(store: Store, hand: HandClock, end: str) -> None:
    """Its next claim settles it, and nobody is left standing as queued."""
    batch = await opened(store)
    hand.advance(5)
    if end == "stop":
        await store.outbox.stop(batch.alert, "cancelled", Record(NOW, "issuer", "recall", batch.alert))
    else:
        hand.advance(3 * 3600)
    assert not await store.outbox.defer(batch.id, hand.now() + timedelta(seconds=40))
    assert await due(store) == [batch.id]


def successor(old: Alert) -> Alert:
    """An update of `old`."""
    return replace(
        old, identifier="a2", kind=Kind.UPDATE, references=(Reference(old.sender, old.identifier, old.sent),)
    )


async def replaced(store: Store, hand: HandClock, township: str = "411726204", channel: str = "noop") -> Batch:
    """Accept an update while slice 0 of its predecessor is under way; return the update's batch."""
    old = await opened(store)
    await store.outbox.claim(old.id, 0, "slow", 20)
    hand.advance(1)
    new = successor(alert())
    batch = replace(batch_of(new, channel=channel), township=township)
    draft = replace(draft_of(new, batch, stops={old.alert: "superseded"}), now=hand.now())
    assert (await store.outbox.accept(draft)).result == "accepted"
    return batch


async def test_an_update_waits_for_what_it_ended_to_be_settled(store: Store, hand: HandClock) -> None:
    """Stale news never overtakes new: the old red must not arrive behind its all-clear."""
    batch = await replaced(store, hand)
    held = await store.outbox.claim(batch.id, 0, "me", 20)
    assert (held.result, held.until) == (ClaimResult.HELD, NOW + timedelta(seconds=11))
    old = batch_of(alert())
    await store.ledger.settle(settled(old, 0, "slow", [0, 1], Receipt(State.SUBMITTED), hand.now()))
    assert (await store.outbox.claim(batch.id, 0, "me", 20)).result is ClaimResult.GRANTED


async def test_an_update_waits_ten_seconds_at_most(store: Store, hand: HandClock) -> None:
    """A dead worker of the old version must not keep the new one from a village."""
    batch = await replaced(store, hand)
    assert (await store.outbox.claim(batch.id, 0, "me", 20)).result is ClaimResult.HELD
    assert await due(store) == []
    hand.advance(10)
    assert batch.id in await due(store)
    assert (await store.outbox.claim(batch.id, 0, "me", 20)).result is ClaimResult.GRANTED


@pytest.mark.parametrize(("township", "channel"), [("411726205", "noop"), ("411726204", "other")])
async def test_an_update_waits_for_nobody_elsewhere(store: Store, hand: HandClock, township: str, channel: str) -> None:
    """Only the same people on the same channel could be told in the wrong order."""
    batch = await replaced(store, hand, township, channel)
    assert (await store.outbox.claim(batch.id, 0, "me", 20)).result is ClaimResult.GRANTED


async def test_a_page_is_written_once_whoever_plans(store: Store) -> None:
    """Two planners, one village: one batch."""
    one = alert()
    await store.outbox.accept(replace(draft_of(one), cursors={}))
    work = (await store.outbox.work(10))[0]
    assert work == StepWork(one.id, 1, None, 0, Lane.GREEN)
    after = ("411726204", "411726204201", 103)
    assert await store.outbox.add_page(work, [batch_of(one)], after)
    assert not await store.outbox.add_page(work, [batch_of(one)], after)
    assert await store.outbox.work(10) == [StepWork(one.id, 1, after, 1, Lane.GREEN)]
    assert await store.outbox.add_page(StepWork(one.id, 1, after, 1, Lane.GREEN), [], None)
    assert await store.outbox.work(10) == []


async def test_a_later_fact_only_moves_a_delivery_forward(store: Store) -> None:
    """A late "delivered" beats "failed"; a late "submitted" beats nothing."""
    batch = await opened(store)
    await store.outbox.claim(batch.id, 0, "me", 20)
    await store.ledger.settle(settled(batch, 0, "me", [0, 1], Receipt(State.SUBMITTED)))
    for state in (State.FAILED, State.DELIVERED, State.FAILED, State.SUBMITTED, State.DELIVERED):
        await store.ledger.commit([Report("noop", "", state, NOW, "c", batch.id, 0)])
    counts = await store.ledger.counts(batch.alert)
    assert counts[("noop", "officials", "delivered")] == 1
    assert counts[("noop", "officials", "submitted")] == 1


@pytest.mark.parametrize("state", [State.SUBMITTED, State.DELIVERED, State.FAILED, State.SKIPPED])
async def test_a_slice_settled_as_one_ends_as_one_settled_one_by_one(store: Store, state: State) -> None:
    """The short way for a uniform outcome folds as the long way does: a fact that came before is not undone."""
    found = []
    for name, receipts in (("a1", [Receipt(state)] * 2), ("a2", [Receipt(state), Receipt(state)])):
        batch = await opened(store, alert(name))
        await store.outbox.claim(batch.id, 0, name, 30)
        await store.ledger.commit([Report("noop", "", State.UNKNOWN, NOW, "", batch.id, 1)])
        outcome = Settled(batch.id, 0, 1, name, [0, 1], receipts, "noop", NOW)
        assert await store.ledger.settle(outcome)
        [(_, states)] = await store.ledger.batches(batch.alert)
        timing = [timing[2:] for timing in await store.ledger.timings(batch.alert)]
        found.append((states, await store.ledger.counts(batch.alert), timing))
    assert found[0] == found[1]


@pytest.mark.parametrize("report_first", [True, False])
async def test_a_report_meets_its_submit_in_either_order(store: Store, report_first: bool) -> None:
    """Carriers report before they answer; no order of arrival may lose a report."""
    batch = await opened(store)
    await store.outbox.claim(batch.id, 0, "me", 20)
    report = Report("noop", "ref-0", State.DELIVERED, NOW, "DELIVRD")
    submit = Settled(
        batch.id, 0, 1, "me", [0, 1],
        [Receipt(State.SUBMITTED, reference="ref-0"), Receipt(State.SUBMITTED, reference="ref-1")], "noop", NOW,
    )  # fmt: skip
    if report_first:
        await store.ledger.commit([report])
        assert await store.ledger.unmatched() == 1
        await store.ledger.settle(submit)
    else:
        await store.ledger.settle(submit)
        await store.ledger.commit([report])
    assert (await store.ledger.counts(batch.alert))[("noop", "officials", "delivered")] == 1
    assert await store.ledger.unmatched() == 0


async def test_a_report_finds_its_submit_though_the_lease_was_lost(store: Store, hand: HandClock) -> None:
    """A slow account answers after another process took over: its texts had left, and their reports count."""
    batch = await opened(store)
    await store.outbox.claim(batch.id, 0, "slow", 20)
    hand.advance(30)
    await store.outbox.claim(batch.id, 0, "other", 20)
    receipts = [Receipt(State.SUBMITTED, reference="ref-0"), Receipt(State.SUBMITTED, reference="ref-1")]
    assert not await store.ledger.settle(Settled(batch.id, 0, 1, "slow", [0, 1], receipts, "noop", hand.now()))
    await store.ledger.commit([Report("noop", "ref-1", State.DELIVERED, hand.now(), "DELIVRD")])
    assert await store.ledger.unmatched() == 0
    assert (await store.ledger.counts(batch.alert))[("noop", "officials", "delivered")] == 1


@pytest.mark.parametrize("state", [State.FAILED, State.SKIPPED, State.EXPIRED, State.SUPERSEDED])
async def test_a_reply_confirms_nothing_that_never_arrived(store: Store, state: State) -> None:
    """A village whose official was not told must stay open, whatever that official answers."""
    batch = await opened(store)
    await store.outbox.claim(batch.id, 0, "me", 20)
    outcome = [Receipt(state), Receipt(State.SUBMITTED)]
    await store.ledger.settle(Settled(batch.id, 0, 1, "me", [0, 1], outcome, "noop", NOW))
    places = [("411726204", "411726204201")]
    span = (NOW - timedelta(hours=1), NOW)
    assert await store.ledger.sent_to(100, places, *span) == []
    assert await store.ledger.sent_to(101, places, *span) == [batch.alert]


async def test_an_answer_to_a_drill_that_is_over_confirms_no_real_warning(store: Store, hand: HandClock) -> None:
    """A late answer belongs to what was told last, though that has ended."""
    places = [("411726204", "411726204201")]
    drill = replace(alert("drill"), status=Status.EXERCISE)
    for one in (replace(alert("real"), level=Level.YELLOW), drill):
        batch = batch_of(one)
        await store.outbox.accept(draft_of(one, batch, digest=one.identifier))
        await store.outbox.claim(batch.id, 0, "me", 20)
        await store.ledger.settle(settled(batch, 0, "me", [0, 1], Receipt(State.SUBMITTED), hand.now()))
        hand.advance(60)
    await store.outbox.stop(drill.id, "cancelled", Record(NOW, "issuer", "stop", drill.id))
    assert await store.ledger.sent_to(100, places, NOW - timedelta(hours=1), hand.now()) == []


async def test_the_change_feed_is_read_without_gaps_or_repeats(store: Store) -> None:
    """Coverage, the console and webhooks all live on this feed."""
    batch = await opened(store)
    for position in range(4):  # one after the other: what comes together is one change of the batch
        await store.ledger.commit([Report("noop", "", State.DELIVERED, NOW, "", batch.id, position)])
    seen: list[tuple[int, int]] = []
    cursor = (0, 0)
    async with asyncio.timeout(30):
        while len(seen) < 5:  # on a busy server a row shows once every older transaction, anybody's, has ended
            page = await store.ledger.changes(cursor, 2)
            seen += [change.cursor for change in page]
            cursor = page[-1].cursor if page else cursor
    assert await store.ledger.changes(cursor, 2) == []
    assert len(seen) == len(set(seen)) == 5
    assert seen == sorted(seen)


async def test_confirming_twice_is_one_confirmation(store: Store) -> None:
    """A person who presses 1 three times is still one person."""
    batch = await opened(store)
    record = Record(NOW, "person:100", "confirm", batch.alert, "reply")
    assert await store.ledger.confirm(batch.alert, 100, ["411726204201"], "reply", record)
    assert not await store.ledger.confirm(batch.alert, 100, ["411726204201"], "reply", record)
    assert [row[0] for row in await store.ledger.confirmations(batch.alert)] == [100]


async def test_a_reply_is_found_for_the_alerts_a_person_was_sent(store: Store) -> None:
    """The reply "1" confirms exactly what was sent to that official."""
    batch = await opened(store)
    places = [("411726204", "411726204201")]
    span = (NOW - timedelta(hours=1), NOW)
    assert await store.ledger.sent_to(101, places, *span) == [], "nothing has left for anybody yet"
    await store.outbox.claim(batch.id, 0, "me", 20)
    await store.ledger.settle(settled(batch, 0, "me", [0, 1], Receipt(State.SUBMITTED)))
    assert await store.ledger.sent_to(101, places, *span) == [batch.alert]
    assert await store.ledger.sent_to(102, places, *span) == [], "its slice has not left"
    assert await store.ledger.sent_to(999, places, *span) == []


async def test_an_answer_to_a_drill_confirms_no_real_warning(store: Store, hand: HandClock) -> None:
    """And the reverse: the class told last is the one that was answered."""
    places = [("411726204", "411726204201")]
    real = replace(alert("real"), level=Level.YELLOW)  # beside an orange or red one there is no drill
    drill = replace(alert("drill"), status=Status.EXERCISE)
    for one in (real, drill):
        batch = batch_of(one)
        await store.outbox.accept(draft_of(one, batch, digest=one.identifier))
        await store.outbox.claim(batch.id, 0, "me", 20)
        await store.ledger.settle(settled(batch, 0, "me", [0, 1], Receipt(State.SUBMITTED), hand.now()))
        hand.advance(60)
    told = await store.ledger.sent_to(100, places, NOW - timedelta(hours=1), hand.now())
    assert told == [drill.id]


async def test_a_recall_stops_what_was_taken_and_settles_what_was_not(store: Store) -> None:
    """There is no moment in which a recalled warning is written to a loudspeaker and never stopped."""
    batch = await opened(store, slice_=0, channel="loudspeaker_ws")
    assert await store.commands.take({batch.id: [0, 1]}) == {batch.id: [0, 1]}
    await store.outbox.stop(batch.alert, "recalled", Record(NOW, "issuer", "recall", batch.alert))
    assert await store.commands.take({batch.id: [2, 3]}) == {batch.id: []}
    left = await store.commands.open()
    assert left.plays == []
    assert [(item.device, item.want) for item in left.ends] == [(device, "stop") for device in batch.persons[:2]]


async def test_a_halt_that_came_first_keeps_loudspeakers_silent(store: Store) -> None:
    """What was asked for a moment before the halt is not written a moment after it."""
    batch = await opened(store, slice_=0, channel="loudspeaker_ws")
    everybody = {batch.id: [0, 1, 2, 3]}
    await store.outbox.halt("loudspeaker_ws", True, Record(NOW, "duty", "halt", "loudspeaker_ws"))
    assert (await store.commands.open()).plays == []
    assert await store.commands.take(everybody) == {batch.id: []}
    await store.outbox.halt("loudspeaker_ws", False, Record(NOW, "duty", "release", "loudspeaker_ws"))
    assert (await store.commands.open()).plays == [batch.id]
    assert await store.commands.take(everybody) == everybody


async def test_what_is_open_costs_one_row_for_each_batch_however_large_the_fleet(store: Store) -> None:
    """Hubs ask four times a second; a batch comes along once, and its stops only while devices may still need them."""
    batch = await opened(store, slice_=0, channel="loudspeaker_ws")
    found = await store.commands.open()
    assert (found.plays, found.ends, found.batches) == ([batch.id], [], {batch.id: batch})
    assert await store.commands.open({batch.id}) == Open([batch.id], [], {}, [])


async def test_nobody_is_told_for_ever_to_stop_what_has_long_expired(store: Store, hand: HandClock) -> None:
    """A device that is gone for good must not cost every hub a row four times a second for years."""
    batch = await opened(store, slice_=0, channel="loudspeaker_ws")
    await store.commands.take({batch.id: [0]})
    await store.outbox.stop(batch.alert, "expired", Record(NOW, "sweeper", "expire", batch.alert))
    hand.advance(3 * 3600 + STALE_S - 1)
    assert len((await store.commands.open()).ends) == 1
    hand.advance(1)
    assert (await store.commands.open()).ends == []


async def test_the_same_reply_twice_is_kept_once(store: Store) -> None:
    """Carriers deliver a text again when they saw no answer."""
    reply = Reply("noop", "noop", "r1", "+8610000000001", "1", NOW)
    kept = Received("0" * 20, reply, b"hash", b"sealed", "heard", "confirmed:1", (1,), (), Effect("reply:noop", NOW))
    assert await store.replies.keep([kept, kept], NOW) == [True, False]
    rows = await store.database.read(lambda tx: tx.all("SELECT outcome FROM reply"))
    assert [row[0] for row in rows] == ["confirmed:1"]


async def test_device_commands_are_desired_state_until_reported_or_stopped(store: Store) -> None:
    """A loudspeaker that comes back after a power cut hears what is live, and nothing else."""
    batch = await opened(store, slice_=0, channel="loudspeaker_ws")
    devices = list(batch.persons)
    assert (await store.commands.open()).plays == [batch.id]
    await store.ledger.commit([Report("loudspeaker_ws", "", State.PLAYED, NOW, "", batch.id, 0)])
    await store.ledger.commit([Report("loudspeaker_ws", "", State.DELIVERED, NOW, "playing", batch.id, 1)])
    await store.outbox.stop(batch.alert, "cancelled", Record(NOW, "issuer", "recall", batch.alert))
    left = (await store.commands.open()).ends
    assert [(item.device, item.want) for item in left] == [(devices[1], "stop")]
    assert await store.ledger.unsealed(10) == []
    await store.ledger.commit([Report("loudspeaker_ws", "", State.FAILED, NOW, "stopped", batch.id, 1)])
    assert [found[0] for found in await store.ledger.unsealed(10)] == [batch.id], "its digest is due in the chain"
    counts = await store.ledger.counts(batch.alert)
    assert counts[("loudspeaker_ws", "officials", "superseded")] == 2


async def repeating(store: Store, village: str = "411726204201") -> Batch:
    """Accept a warning that four loudspeakers of a village say again and again."""
    one = alert()
    batch = replace(batch_of(one, slice_=0, channel="loudspeaker_ws"), every_s=600)
    where = {"village": village, "township": village[:9], "county": village[:6]}
    rows: list[dict[str, object]] = [{"id": one, "name": f"horn-{one}", **where} for one in batch.persons]
    text = (
        "INSERT INTO device (id, name, village, township, county, key_hash, standing)"
        " VALUES (:id, :name, :village, :township, :county, '', 'service')"
    )
    await store.database.write(lambda tx: tx.many(text, rows))
    assert (await store.outbox.accept(draft_of(one, batch))).result == "accepted"
    return batch


async def commanded(store: Store, batch: Batch) -> list[tuple[int, str]]:
    """What each loudspeaker of a batch is wanted to do: (position, play, hush or stop)."""
    found = await store.commands.open()
    rows = await store.database.read(
        lambda tx: tx.all("SELECT position FROM device_command WHERE finished = 0 AND want IN :*plays", plays=PLAYS)
    )
    plays = [(position, "play") for (position,) in rows] if batch.id in found.plays else []
    return sorted([*plays, *((one.position, one.want) for one in found.ends)])


async def reported(store: Store, batch: Batch, position: int, state: State, code: str = "") -> None:
    await store.ledger.commit([Report("loudspeaker_ws", "", state, NOW, code, batch.id, position)])


async def confirmed(store: Store, batch: Batch, village: str = "411726204201") -> None:
    await store.ledger.confirm(batch.alert, 7, [village], "phone", Record(NOW, "duty", "confirm", batch.alert))


async def test_a_confirmed_village_is_hushed_and_whoever_has_not_heard_hears_once(store: Store) -> None:
    """D13: red repeats until somebody answers for the village; that one has heard does not mean that all have."""
    batch = await repeating(store)
    await store.commands.take({batch.id: [0, 1, 2]})
    await reported(store, batch, 0, State.PLAYED)
    assert await commanded(store, batch) == [(1, "play"), (2, "play"), (3, "play")]
    await confirmed(store, batch, "411726204999")
    assert (0, "hush") not in await commanded(store, batch), "another village's answer changes nothing here"
    await store.ledger.confirm(batch.alert, 8, ["411726204201"], "phone", Record(NOW, "duty", "confirm", batch.alert))
    assert await commanded(store, batch) == [(0, "hush"), (1, "play"), (2, "play"), (3, "play")]
    await reported(store, batch, 0, State.PLAYED)
    assert (0, "hush") in await commanded(store, batch), "a receipt that was said before the hush does not end it"
    await reported(store, batch, 0, State.DELIVERED, "hushed")
    await reported(store, batch, 1, State.PLAYED)
    await reported(store, batch, 2, State.FAILED, "amp_fault")
    assert await commanded(store, batch) == [(1, "hush"), (2, "hush"), (3, "play")]
    assert await store.commands.take({batch.id: [0, 1, 2, 3]}) == {batch.id: [3]}
    await reported(store, batch, 3, State.PLAYED)
    assert [found[0] for found in await store.ledger.unsealed(10)] == [batch.id], "a hush holds up no digest"
    assert (await store.ledger.counts(batch.alert))["loudspeaker_ws", "officials", "played"] == 3


async def test_a_stop_reaches_those_in_the_pause_between_two_rounds(store: Store) -> None:
    """A cancelled warning must not sound again ten minutes later in the villages that had heard it out."""
    batch = await repeating(store)
    await store.commands.take({batch.id: [0, 1, 2, 3]})
    await reported(store, batch, 0, State.PLAYED)
    await reported(store, batch, 1, State.FAILED, "amp_fault")
    await store.outbox.stop(batch.alert, "cancelled", Record(NOW, "issuer", "cancel", batch.alert))
    assert await commanded(store, batch) == [(position, "stop") for position in range(4)], "its next round may sound"
    await reported(store, batch, 0, State.PLAYED)
    await reported(store, batch, 2, State.FAILED, "no_power")
    assert len(await commanded(store, batch)) == 4, "a late receipt of the first round does not end the stop"
    for position in range(4):
        await reported(store, batch, position, State.FAILED, "stopped")
    assert await commanded(store, batch) == []
    assert (await store.ledger.counts(batch.alert))["loudspeaker_ws", "officials", "played"] == 1


@pytest.mark.parametrize("code", ["not_heard", "implausible"])
async def test_a_stop_reaches_a_loudspeaker_whose_played_was_not_believed(store: Store, code: str) -> None:
    """Its meter is broken, not its horn: it goes on in rounds, and a recalled warning would sound for hours."""
    batch = await repeating(store)
    await store.commands.take({batch.id: [0, 1, 2, 3]})
    await reported(store, batch, 0, State.FAILED, code)
    await store.outbox.stop(batch.alert, "recalled", Record(NOW, "issuer", "recall", batch.alert))
    await reported(store, batch, 1, State.FAILED, code)
    assert await commanded(store, batch) == [(position, "stop") for position in range(4)], "nor does that end a stop"


async def test_a_confirmation_hushes_a_loudspeaker_whose_played_was_not_believed(store: Store) -> None:
    """The village has answered; its loudspeaker with the broken meter has sounded once and is to sound no more."""
    batch = await repeating(store)
    await store.commands.take({batch.id: [0, 1, 2, 3]})
    await confirmed(store, batch, "411726204201")
    await reported(store, batch, 0, State.FAILED, "not_heard")
    assert (0, "hush") in await commanded(store, batch)


async def test_nobody_hushes_or_stops_what_was_refused(store: Store) -> None:
    """It sounds in no rounds: a hush such a device never answers would be asked for until the warning ends."""
    batch = await repeating(store)
    await store.commands.take({batch.id: [0, 1, 2, 3]})
    await reported(store, batch, 0, State.FAILED, "not_for_me")
    await confirmed(store, batch)
    assert 0 not in [position for position, _ in await commanded(store, batch)]
    await store.outbox.stop(batch.alert, "recalled", Record(NOW, "issuer", "recall", batch.alert))
    assert await commanded(store, batch) == [(position, "stop") for position in (1, 2, 3)]


async def test_a_stop_reaches_who_says_played_in_that_moment(database_url: str, hand: HandClock) -> None:
    """The recall has read "submitted" when "played" is committed elsewhere: the next round must not sound."""
    hearing, stopping = Database(database_url), Database(database_url)
    await hearing.open()
    await stopping.open()
    store = Store(stopping, hand)
    batch = await repeating(store)
    await store.commands.take({batch.id: [0, 1, 2, 3]})
    begun, end = threading.Event(), threading.Event()

    def played(tx: Tx) -> None:
        report = Report("loudspeaker_ws", "", State.PLAYED, NOW, "", batch.id, 0)
        fact.commit(tx, [fact.Arrived([report], micros(NOW))])
        tx.one("SELECT 1")
        begun.set()
        end.wait(10)

    heard = asyncio.create_task(hearing.write(played))
    await asyncio.to_thread(begun.wait, 10)
    record = Record(NOW, "issuer", "recall", batch.alert)
    stopped = asyncio.create_task(store.outbox.stop(batch.alert, "recalled", record))
    await asyncio.wait([stopped], timeout=0.5)
    end.set()
    await asyncio.gather(heard, stopped)
    found = await commanded(store, batch)
    await hearing.close()
    await stopping.close()
    assert found == [(position, "stop") for position in range(4)]


async def test_what_expires_ends_by_itself_between_two_rounds(store: Store) -> None:
    """Every device knows until when a warning holds; six thousand stops for nothing would delay the next one."""
    batch = await repeating(store)
    await store.commands.take({batch.id: [0, 1, 2, 3]})
    await reported(store, batch, 0, State.PLAYED)
    await store.outbox.stop(batch.alert, "expired", Record(NOW, "gateway", "expire", batch.alert))
    assert await commanded(store, batch) == [(1, "stop"), (2, "stop"), (3, "stop")]


async def page(store: Store, batch: Batch) -> None:
    """Plan one batch more."""
    work = StepWork(batch.alert, batch.step, None, 1, Lane.GREEN)
    open_ = "UPDATE step SET finished = 0, sequence = 1, township = '', village = '', person = 0 WHERE number = :step"
    await store.database.write(lambda tx: tx.run(open_, step=batch.step))
    assert await store.outbox.add_page(work, [batch], None)


async def test_a_confirmation_beside_the_page_of_devices_hushes_them(database_url: str, hand: HandClock) -> None:
    """Two processes, one moment: neither sees the other's rows, and the red warning would repeat for hours."""
    confirming, planning = Database(database_url), Database(database_url)
    await confirming.open()
    await planning.open()
    first = await repeating(Store(planning, hand))
    second = replace(first, id=f"{first.alert}.1.1")
    begun, end = threading.Event(), threading.Event()

    def confirmation(tx: Tx) -> None:
        record = Record(NOW, "duty", "confirm", first.alert)
        reply.confirm(tx, first.alert, 7, ["411726204201"], "phone", record, NOW)
        tx.one("SELECT 1")
        begun.set()
        end.wait(10)

    await planning.write(lambda tx: tx.run("DELETE FROM device_command"))
    answered = asyncio.create_task(confirming.write(confirmation))
    await asyncio.to_thread(begun.wait, 10)
    planned = asyncio.create_task(page(Store(planning, hand), second))
    await asyncio.wait([planned], timeout=0.5)
    end.set()
    await asyncio.gather(answered, planned)
    wants = await planning.read(lambda tx: tx.all("SELECT DISTINCT want FROM device_command"))
    await confirming.close()
    await planning.close()
    assert wants == [("once",)]


async def test_a_village_that_confirmed_before_its_loudspeakers_were_planned_hears_one_round(store: Store) -> None:
    """The call may be quicker than the page of devices; nobody is there to hush them afterwards."""
    first = await repeating(store)
    await confirmed(store, first)
    second = replace(first, id=f"{first.alert}.1.1")
    await page(store, second)
    await store.commands.take({second.id: [0, 1, 2, 3]})
    await reported(store, second, 0, State.PLAYED)
    hushed = [one.position for one in (await store.commands.open()).ends if one.batch == second.id]
    assert hushed == [0]


async def test_the_audit_chain_shows_tampering_deletion_and_reordering(store: Store) -> None:
    """Who decided what must be provable a year later."""
    for number in range(5):
        await store.audit.append(Record(NOW, "a", "b", str(number)))
    assert await store.audit.verify() == (5, "")
    await store.database.write(lambda tx: tx.run("UPDATE audit SET actor = 'x' WHERE seq = 3"))
    assert (await store.audit.verify())[0] == 2
    await store.database.write(lambda tx: tx.run("UPDATE audit SET actor = 'a' WHERE seq = 3"))
    await store.database.write(lambda tx: tx.run("DELETE FROM audit WHERE seq = 4"))
    assert await store.audit.verify() == (3, "record 4 is missing")
    await store.database.write(lambda tx: tx.run("UPDATE audit SET seq = 4 WHERE seq = 5"))
    assert (await store.audit.verify())[0] == 3


async def test_a_timer_goes_to_one_caller_and_comes_back_if_not_done(store: Store, hand: HandClock) -> None:
    """A scheduler that dies while handling an expiry must not lose it."""
    await store.timers.set("expire", "a", NOW)
    taken = await asyncio.gather(*(store.timers.take(10) for _ in range(5)))
    assert sorted(taken, key=len)[-1] == [("expire", "a")]
    assert sum(len(page) for page in taken) == 1
    hand.advance(31)
    assert await store.timers.take(10) == [("expire", "a")]
    await store.timers.done("expire", "a")
    hand.advance(31)
    assert await store.timers.take(10) == []


async def test_a_second_process_is_refused_the_sqlite_file(tmp_path: Path) -> None:
    """Two processes on one SQLite file end in "database is locked" at the worst moment."""
    first, second = Database(f"sqlite:///{tmp_path}/one.db"), Database(f"sqlite:///{tmp_path}/one.db")
    await first.open()
    with pytest.raises(ConfigError, match="postgresql"):
        await second.open()
    await first.close()


async def test_one_failing_operation_does_not_fail_its_group(store: Store) -> None:
    """Group commit must not let one bad row take sixty-three good ones with it."""
    good = [store.timers.set("k", str(n), NOW) for n in range(10)]
    bad = store.database.write(lambda tx: tx.run("INSERT INTO nowhere VALUES (1)"))
    results = await asyncio.gather(*good[:5], bad, *good[5:], return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [False] * 5 + [True] + [False] * 5
    assert len(await store.timers.take(20)) == 10


async def test_a_hub_is_told_of_no_alert_but_those_it_plays(store: Store, hand: HandClock) -> None:
    """A draft is written anew under its id: whoever had read it once would speak its first wording."""
    draft, spoken = alert("draft"), alert("spoken")
    await store.outbox.accept(replace(draft_of(draft, digest="d"), standing=Standing.DRAFT, cursors={}, batches=[]))
    await store.outbox.accept(draft_of(alert("without"), digest="w"))
    batch = batch_of(spoken, slice_=0, channel="loudspeaker_ws")
    await store.outbox.accept(draft_of(spoken, batch))
    found = await store.commands.open()
    assert (found.plays, [row.alert.id for row in found.alerts]) == ([batch.id], [spoken.id])
    hand.advance(60)
    later = await store.commands.open()
    assert (later.batches, [row.alert.id for row in later.alerts]) == (found.batches, [spoken.id])
    known = await store.commands.open({batch.id})
    assert (known.plays, known.batches, known.alerts) == ([batch.id], {}, [])


async def test_two_reds_of_one_commit_stop_a_self_test_once(store: Store) -> None:
    """The chain holds what was decided, and that was one thing."""
    columns = "id, series, issuer, kind, areas, audiences, starts_at, ends_at, notice_at, document, event_code, event,"
    columns += " level, notice, rule, standing, planner, planner_role, approver, approver_role, made_at"
    await store.database.write(
        lambda tx: tx.run(
            f"INSERT INTO drill ({columns}) VALUES ('dr', '', 'i', 'self_test', '[\"411726204\"]', '[]', 0, :ends, 0,"
            " 'warning', '', '', 0, '', '', 'running', '', '', '', '', 0)",
            ends=micros(NOW + timedelta(hours=1)),
        )
    )
    reds = [draft_of(alert("r1"), digest="1"), draft_of(alert("r2"), digest="2")]
    found = await asyncio.gather(*(store.outbox.accept(red) for red in reds))
    assert [one.result for one in found] == ["accepted", "accepted"]
    stopped = [record for _, record, _ in await store.audit.records() if record.action == "drill_stop"]
    assert [record.subject for record in stopped] == ["dr"]
    assert (await store.audit.verify())[1] == ""
