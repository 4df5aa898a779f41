"""Reports find their recipients: in any order, in parts, twice, in two processes, through every interleaving.

A report that is lost is a villager whom an official calls in vain, or one who was never warned and looks as if.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import blank
import psycopg
import pytest
from test_store import NOW, HandClock, alert, batch_of, draft_of

from gateway.database import Database
from gateway.errors import Ambiguous, Temporary
from gateway.metrics import REGISTRY
from gateway.model import Batch, ClaimResult, Receipt, Report, State
from gateway.ports import Kept, Outage, Settled
from gateway.store import Store, fact, outage
from gateway.store.erasure import SendingError, erase_frozen
from gateway.store.ledger import settle
from gateway.store.silence import KEPT, REPORTS, Silence
from gateway.transaction import Tx, micros

LOCKING = ("provider_", "FOR UPDATE", "COMMIT")  # statements whose order between processes can matter
PARTS = ("p1", "p2", "p3")


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


async def claimed(store: Store, identifier: str = "a1", owner: str = "me") -> Batch:
    """Accept an alert with one batch and claim its first slice."""
    one = alert(identifier)
    batch = batch_of(one)
    await store.outbox.accept(draft_of(one, batch, digest=identifier))
    await store.outbox.claim(batch.id, 0, owner, 20)
    return batch


def sent(batch: Batch, *receipts: Receipt, attempt: int = 1, owner: str = "me") -> Settled:
    return Settled(batch.id, 0, attempt, owner, range(len(receipts)), receipts, "noop", NOW)


def long_text(prefix: str = "") -> Receipt:
    first, *more = (prefix + one for one in PARTS)
    return Receipt(State.SUBMITTED, reference=first, more=tuple(more))


def report(reference: str, state: State = State.DELIVERED, code: str = "DELIVRD", **changes: Any) -> Report:
    return replace(Report("noop", reference, state, NOW, code), **changes)


async def states(store: Store, batch: Batch) -> list[State]:
    row = await store.database.read(lambda tx: tx.one("SELECT states FROM batch WHERE id = :id", id=batch.id))
    assert row is not None
    return [State(one) for one in bytes(row[0])]


async def test_a_long_text_is_delivered_when_all_its_parts_are_in_whatever_order(store: Store) -> None:
    """Half a warning ("the dam at Liuhe will") is no warning."""
    events = ["submit", *PARTS, PARTS[0]]
    for number, order in enumerate(sorted(set(itertools.permutations(events)))):
        batch = await claimed(store, f"a{number}")
        left = {"submit", *PARTS}
        for event in order:
            if event == "submit":
                await store.ledger.settle(sent(batch, long_text(f"{number}-")))
            else:
                await store.ledger.commit([report(f"{number}-{event}")])
            left.discard(event)
            told = State.QUEUED if "submit" in left else State.DELIVERED if not left else State.SUBMITTED
            assert (await states(store, batch))[0] is told, (order, event)


async def test_parts_that_are_reported_together_are_one_delivery(store: Store) -> None:
    """A burst of reports in one read of the socket is the usual case."""
    batch = await claimed(store)
    other = Receipt(State.SUBMITTED, reference="single")
    await store.ledger.settle(sent(batch, long_text(), other))
    await store.ledger.commit([report(one) for one in (*PARTS, "single", *PARTS)])
    assert (await states(store, batch))[:2] == [State.DELIVERED] * 2
    facts = await store.database.read(lambda tx: tx.all("SELECT position, state FROM fact ORDER BY position"))
    assert facts == [(0, State.DELIVERED), (1, State.DELIVERED)]


@pytest.mark.parametrize("early", [False, True])
async def test_one_failed_part_is_a_failed_recipient_until_it_turns_out_otherwise(store: Store, early: bool) -> None:
    """Who got two thirds of a text is called by telephone, unless the carrier delivers the rest after all."""
    batch = await claimed(store)
    steps: list[Callable[[], Any]] = [
        lambda: store.ledger.settle(sent(batch, long_text())),
        lambda: store.ledger.commit([report("p1"), report("p2", State.FAILED, "UNDELIV"), report("p3")]),
    ]
    for step in reversed(steps) if early else steps:
        await step()
    assert (await states(store, batch))[0] is State.FAILED
    await store.ledger.commit([report("p2")])
    assert (await states(store, batch))[0] is State.DELIVERED


async def test_a_repeat_has_parts_of_its_own(store: Store) -> None:
    """Of a text sent again in doubt either copy counts when it is whole; halves of both are no text."""
    batch = await claimed(store)
    await store.ledger.settle(sent(batch, long_text("first-")))
    await store.ledger.settle(sent(batch, long_text("again-"), attempt=2))
    await store.ledger.commit([report("first-p1"), report("again-p2"), report("again-p3")])
    assert (await states(store, batch))[0] is State.SUBMITTED
    await store.ledger.commit([report("again-p1")])
    assert (await states(store, batch))[0] is State.DELIVERED


async def test_a_carrier_that_gives_all_parts_one_reference_is_believed_at_its_first_report(store: Store) -> None:
    """There is one row to report on: waiting for another would be waiting for ever."""
    batch = await claimed(store)
    await store.ledger.settle(sent(batch, Receipt(State.SUBMITTED, reference="x", more=("x", "x"))))
    await store.ledger.commit([report("x")])
    assert (await states(store, batch))[0] is State.DELIVERED


async def test_whose_number_is_another_carriers_is_told_to_whoever_comes_second(store: Store) -> None:
    """The next warning takes the right road at once, whichever of report and submit response was faster."""
    batch = await claimed(store)
    early = report("r0", State.FAILED, "NOT_MINE", elsewhere=True)
    assert await store.ledger.commit([early, report("r1")]) == []
    receipts = [Receipt(State.SUBMITTED, reference=f"r{number}") for number in range(2)]
    assert await store.ledger.settle(sent(batch, *receipts)) == Kept(True, [(batch.id, 0)])
    again = report("r1", State.FAILED, "NOT_MINE", elsewhere=True)
    named = report("", State.FAILED, batch=batch.id, position=3, elsewhere=True)
    assert await store.ledger.commit([early, again, named]) == [(batch.id, 0), (batch.id, 1), (batch.id, 3)]
    assert not await store.ledger.settle(sent(batch, *receipts)), "the lease was given back"


async def test_commits_of_many_connections_at_once_each_hear_of_their_own(store: Store) -> None:
    """Ten connections' reports share a transaction; a bad one fails by itself, and none is acknowledged for another."""
    batch = await claimed(store)
    receipts = [Receipt(State.SUBMITTED, reference=f"r{number}") for number in range(4)]
    await store.ledger.settle(sent(batch, *receipts))
    answers = await asyncio.gather(
        *(store.ledger.commit([report(f"r{number}", elsewhere=number == 2)]) for number in range(4)),
        store.ledger.commit([report("r1"), report("bad", account=None)]),  # as a faulty channel might
        return_exceptions=True,
    )
    assert answers[:4] == [[], [], [(batch.id, 2)], []]
    assert isinstance(answers[4], Exception)
    assert await states(store, batch) == [State.DELIVERED] * 4


async def test_a_reference_with_quotes_and_backslashes_is_matched_as_it_is(store: Store) -> None:
    """What a carrier sends back is text, whatever is in it."""
    batch = await claimed(store)
    odd = ['"', "\\", '","', "{}", "NULL", '\\"', "", "东"]
    receipts = [Receipt(State.SUBMITTED, reference=f"a{one}") for one in odd[:4]]
    await store.ledger.settle(sent(batch, *receipts))
    await store.ledger.commit([report(f"a{one}", code=one) for one in odd])
    assert await states(store, batch) == [State.DELIVERED] * 4
    assert await store.ledger.unmatched() == 4


async def test_silence_becomes_unknown_in_time_and_a_late_report_still_counts(store: Store, hand: HandClock) -> None:
    """Two days later somebody must see whom the carrier never spoke of; who was reached after all is not called."""
    silence = Silence(store.database, hand, {"noop": 3600.0})
    batch = await claimed(store)
    await store.ledger.settle(sent(batch, *(Receipt(State.SUBMITTED, reference=f"r{number}") for number in range(2))))
    await store.outbox.claim(batch.id, 1, "me", 20)
    submitted = [Receipt(State.SUBMITTED), Receipt(State.FAILED)]
    await store.ledger.settle(Settled(batch.id, 1, 1, "me", [2, 3], submitted, "noop", NOW))
    await store.ledger.commit([report("r0")])
    before = REGISTRY.get_sample_value("mingluo_silent_recipients_total", {"channel": "noop"}) or 0
    hand.advance(3599)
    await silence.work()
    assert (await states(store, batch))[1] is State.SUBMITTED
    hand.advance(1)
    for _ in range(2):
        await silence.work()
    assert await states(store, batch) == [State.DELIVERED, State.UNKNOWN, State.UNKNOWN, State.FAILED]
    assert REGISTRY.get_sample_value("mingluo_silent_recipients_total", {"channel": "noop"}) == before + 2
    await store.ledger.commit([report("r1")])
    assert (await states(store, batch))[1] is State.DELIVERED


async def test_what_leads_reports_to_recipients_is_kept_three_days_and_no_longer(store: Store, hand: HandClock) -> None:
    """Neither another system's messages nor our own old ones may fill the disk; what became of them stays."""
    silence = Silence(store.database, hand, {"noop": 3600.0})
    batch = await claimed(store)
    shared = Receipt(State.SUBMITTED, reference="many", members=("m0", "m1"))
    settled = sent(batch, Receipt(State.SUBMITTED, reference="ours"), long_text(), shared, shared)
    await store.ledger.settle(settled)
    theirs = [report(f"theirs-{number}") for number in range(REPORTS)]
    await store.ledger.commit([report("ours"), report("many#m0"), *theirs, report("many#m9")])
    labels = {"channel": "noop"}
    before = REGISTRY.get_sample_value("mingluo_reports_dropped_total", labels) or 0
    hand.advance(KEPT.total_seconds() - 1)
    await silence.work()
    assert await store.ledger.unmatched() == REPORTS + 1
    await store.ledger.commit([report("many#m1")])
    told = await states(store, batch)
    hand.advance(1)
    await silence.work()
    left = "SELECT reference FROM provider_ref UNION ALL SELECT reference FROM provider_bulk"
    assert await store.database.read(lambda tx: tx.all(left)) == []
    assert (REGISTRY.get_sample_value("mingluo_reports_dropped_total", labels) or 0) == before + REPORTS + 1
    assert await states(store, batch) == told == [State.DELIVERED, State.SUBMITTED, State.DELIVERED, State.DELIVERED]


# --- messages that went to many ---------------------------------------------------------------------


def to_many(reference: str, *members: str) -> list[Receipt]:
    return [Receipt(State.SUBMITTED, "0", reference, members=members)] * len(members)


async def test_each_recipient_of_a_bulk_submit_has_a_report_of_its_own_early_late_and_twice(store: Store) -> None:
    """Of a hundred in one submit, nobody is taken for another and nobody is left out, whoever is told first."""
    for number, order in enumerate(itertools.permutations(["submit", "a", "b", "b"])):
        batch = await claimed(store, f"a{number}")
        receipts = [*to_many(f"x{number}", "a"), Receipt(State.FAILED), *to_many(f"y{number}", "a", "b")]
        for event in order:
            if event == "submit":
                await store.ledger.settle(sent(batch, *receipts))
            else:
                failed = event == "a"
                await store.ledger.commit([
                    report(f"y{number}#{event}", State.FAILED if failed else State.DELIVERED, elsewhere=failed),
                    report(f"x{number}#{event}"),
                ])  # fmt: skip
        assert await states(store, batch) == [State.DELIVERED, State.FAILED, State.FAILED, State.DELIVERED]
    assert await store.ledger.unmatched() == number + 1, "of x, nobody is called b"


async def test_a_bulk_submit_with_holes_and_a_message_of_two_submits_are_told_apart(store: Store) -> None:
    """A carrier's ids count on from one submit to the next: their reports come under what the ids have in common."""
    batch = await claimed(store)
    first = Settled(batch.id, 0, 1, "me", [0, 2], to_many("run", "fd", "fe"), "noop", NOW)
    second = Settled(batch.id, 1, 3, "me", [1, 3], [*to_many("run", "ff"), *to_many("next", "00")], "noop", NOW)
    await store.ledger.settle(first)
    await store.outbox.claim(batch.id, 1, "me", 20)
    early = report("run#ff", State.FAILED, "NOT_MINE", elsewhere=True)
    assert await store.ledger.commit([early]) == []
    assert await store.ledger.settle(second) == Kept(True, [(batch.id, 1)])
    assert await store.ledger.commit([early, report("next#00"), report("run#fe"), report("run#fd")]) == [(batch.id, 1)]
    assert await states(store, batch) == [State.DELIVERED, State.FAILED, State.DELIVERED, State.DELIVERED]
    attempts = await store.database.read(lambda tx: tx.all("SELECT position, attempt FROM fact ORDER BY position"))
    assert attempts == [(0, 1), (1, 3), (2, 1), (3, 3)]
    assert await store.ledger.unmatched() == 0


async def test_one_of_a_bulk_whose_answer_never_came_is_found_by_what_was_foreseen(store: Store) -> None:
    """Where we make the id the report matches without an answer, be the text long or not; a late answer adds to it."""
    batch = await claimed(store)
    doubtful = [Receipt(State.UNKNOWN, "no_answer", f"own#{one}") for one in "ab"]
    whole = Receipt(State.SUBMITTED, reference="p1#a", more=("p2#a",))
    await store.ledger.settle(sent(batch, *doubtful, whole))
    await store.ledger.commit([report("own#b"), report("p1#a"), late(batch, "own#a"), report("own#a")])
    assert await states(store, batch) == [State.DELIVERED, State.DELIVERED, State.SUBMITTED, State.QUEUED]
    await store.ledger.commit([report("p2#a")])
    assert (await states(store, batch))[2] is State.DELIVERED


# --- answers that come when nobody waits for them any more -----------------------------------------


def late(batch: Batch, reference: str, *more: str, position: int = 0) -> Report:
    return Report("noop", reference, State.SUBMITTED, NOW, "0", batch.id, position, more=more)


@pytest.mark.parametrize("early", [True, False])
async def test_a_late_answer_leads_the_report_to_its_recipient(store: Store, early: bool) -> None:
    """The carrier had it all along: whoever was told is not left as unknown, whichever of the two comes first."""
    batch = await claimed(store)
    await store.ledger.settle(sent(batch, *[Receipt(State.UNKNOWN, "no_answer")] * 4))
    events = [report("r0", elsewhere=True, state=State.FAILED), late(batch, "r0")]
    heard = [place for event in events[:: 1 if early else -1] for place in await store.ledger.commit([event])]
    assert heard == [(batch.id, 0)]
    assert await store.ledger.commit([late(batch, "r1", position=1), report("r1")]) == []
    assert await states(store, batch) == [State.FAILED, State.DELIVERED, State.UNKNOWN, State.UNKNOWN]
    assert await store.ledger.unmatched() == 0


async def test_a_long_text_whose_last_answer_was_late_is_delivered_when_it_is_whole(store: Store) -> None:
    """What was known in time does not make a whole by itself, nor does it after the answer came."""
    batch = await claimed(store)
    doubtful = Receipt(State.UNKNOWN, "no_answer", "p1", more=("p1/-",))
    await store.ledger.settle(sent(batch, doubtful))
    await store.ledger.commit([report("p1")])
    assert (await states(store, batch))[0] is State.UNKNOWN
    await store.ledger.commit([late(batch, "p2", "p1")])
    assert (await states(store, batch))[0] is State.UNKNOWN
    await store.ledger.commit([report("p2")])
    assert (await states(store, batch))[0] is State.DELIVERED


@pytest.mark.parametrize("told", ["report", "answer"])
async def test_whoever_turned_out_to_be_told_is_not_told_again(store: Store, told: str) -> None:
    """No answer, and a report or a late answer meanwhile: a second text would only frighten and cost (T14)."""
    batch = await claimed(store)
    doubt = Receipt(State.QUEUED, "no_answer", "r0", Ambiguous("no_answer"))
    other = replace(doubt, reference="r1")
    await store.ledger.settle(sent(batch, doubt, other)._replace(retry_at=NOW))
    await store.ledger.commit([report("r0") if told == "report" else late(batch, "r0")])
    claim = await store.outbox.claim(batch.id, 0, "other", 20)
    assert (claim.result, claim.pending, claim.doubtful) == (ClaimResult.GRANTED, (), (1,))
    await store.ledger.settle(sent(batch, other, owner="other")._replace(positions=[1], retry_at=NOW))
    await store.ledger.commit([report("r1")])
    assert (await store.outbox.claim(batch.id, 0, "third", 20)).result is ClaimResult.SETTLED


# --- two processes, every interleaving ------------------------------------------------------------


class Stepped(threading.Thread):
    """One process's transaction, which runs one statement whenever it is told to; those behind its locks with it."""

    def __init__(self, url: str, operation: Callable[[Tx], object], stops: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self._stops = stops
        self._connection = psycopg.connect(url, autocommit=True)
        self.pid = self._connection.info.backend_pid
        self._operation = operation
        self._go = threading.Semaphore(0)
        self.stands = threading.Event()  # before a statement, or at the end
        self.ended = False
        self.error: Exception | None = None
        self.start()
        self.stands.wait()

    def execute(self, sql: str, *args: Any, **kwargs: Any) -> Any:
        """Stand in for a connection's method: run when it is our turn."""
        if any(stop in sql for stop in self._stops):
            self.stands.set()
            self._go.acquire()
        return self._connection.execute(sql, *args, **kwargs)

    def run(self) -> None:
        try:
            self._connection.execute("BEGIN")
            self._operation(Tx(self, "postgresql"))
            self.execute("COMMIT")
        except Exception as error:
            self.error = error
        self._connection.close()
        self.ended = True
        self.stands.set()

    def step(self) -> None:
        """Begin the next statement."""
        self.stands.clear()
        self._go.release()


def run_through(
    url: str, operations: Sequence[Callable[[Tx], object]], path: Sequence[int], stops: Sequence[str]
) -> list[list[int]]:
    """Step transactions along `path`, then in their order; return who could have gone at each step, the choice first.

    One that waits for another's lock is not asked again before it stands.
    """
    with psycopg.connect(url, autocommit=True) as watcher:

        def standing(stepped: int) -> list[int]:
            """Wait until each has run its statement or waits for a lock; return who can go."""
            # The one that was stepped comes first: its commit may let another go.
            for one in (processes[stepped], *processes):
                while not one.stands.wait(0.002):
                    blocked = watcher.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [one.pid]).fetchone()
                    if blocked == (True,):
                        break
            return [number for number, one in enumerate(processes) if one.stands.is_set() and not one.ended]

        processes = [Stepped(url, operation, stops) for operation in operations]
        taken: list[list[int]] = []
        choice = 0
        while able := standing(choice):
            choice = path[len(taken)] if len(taken) < len(path) else able[0]
            taken.append([choice, *(one for one in able if one != choice)])
            processes[choice].step()
    assert [one.error for one in processes] == [None] * len(processes)
    assert all(one.ended for one in processes)
    return taken


async def every_interleaving(
    store: Store, given: Callable[[int], Any], told: Callable[[Batch], Any], stops: Sequence[str] = ("",)
) -> int:
    """Run what `given` makes (a batch and its transactions) in every order of its statements; return how many.

    Transactions are stepped at statements that have one of `stops` in them.
    """
    ways, number = [list[int]()], 0
    while ways:
        path = ways.pop()
        batch, operations = await given(number)
        taken = await asyncio.to_thread(run_through, store.database.url, operations, path, stops)
        await told(batch)
        number += 1
        for at in range(len(path), len(taken)):
            ways += [[*(step[0] for step in taken[:at]), other] for other in taken[at][1:]]
    return number


@pytest.fixture
async def cluster(database_url: str) -> AsyncIterator[Store]:
    database = Database(database_url)
    await database.open()
    yield Store(database, HandClock())
    await database.close()


def reported(reference: str, **changes: Any) -> Callable[[Tx], object]:
    return lambda tx: fact.commit(tx, [fact.Arrived([report(reference, **changes)], 0)])


async def delivered_once(store: Store, batch: Batch) -> None:
    assert (await states(store, batch))[0] is State.DELIVERED
    facts = await store.database.read(lambda tx: tx.all("SELECT state FROM fact WHERE batch = :id", id=batch.id))
    assert facts == [(State.DELIVERED,)]
    assert await store.ledger.unmatched() == 0


@pytest.mark.parametrize("members", [(), ("m",)])
async def test_no_interleaving_of_a_report_and_its_submit_response_loses_the_report(
    cluster: Store, members: tuple[str, ...]
) -> None:
    """One process settles while another is told: whichever statement comes first, the villager counts as reached."""

    async def given(number: int) -> tuple[Batch, list[Callable[[Tx], object]]]:
        batch = await claimed(cluster, f"a{number}")
        receipt = Receipt(State.SUBMITTED, reference=f"r{number}", members=members)
        return batch, [lambda tx: settle(tx, [sent(batch, receipt)]), reported("#".join((f"r{number}", *members)))]

    assert await every_interleaving(cluster, given, lambda batch: delivered_once(cluster, batch)) > 10


async def test_no_interleaving_of_two_parts_reports_leaves_a_whole_text_untold(cluster: Store) -> None:
    """Each process has one part's report and sees the other's only if it waits for it."""

    async def given(number: int) -> tuple[Batch, list[Callable[[Tx], object]]]:
        batch = await claimed(cluster, f"a{number}")
        await cluster.ledger.settle(
            sent(batch, Receipt(State.SUBMITTED, reference=f"{number}-1", more=(f"{number}-2",)))
        )
        return batch, [reported(f"{number}-1"), reported(f"{number}-2")]

    assert await every_interleaving(cluster, given, lambda batch: delivered_once(cluster, batch)) > 10


async def test_no_interleaving_of_both_parts_and_their_submit_response_loses_one(cluster: Store) -> None:
    """Three processes at once: the submit response, and a report of each part."""

    async def given(number: int) -> tuple[Batch, list[Callable[[Tx], object]]]:
        batch = await claimed(cluster, f"a{number}")
        receipt = Receipt(State.SUBMITTED, reference=f"{number}-1", more=(f"{number}-2",))
        return batch, [
            lambda tx: settle(tx, [sent(batch, receipt)]), reported(f"{number}-1"), reported(f"{number}-2")
        ]  # fmt: skip

    assert await every_interleaving(cluster, given, lambda batch: delivered_once(cluster, batch), LOCKING) > 100


LATER = NOW + timedelta(seconds=30)  # the lease of `claimed` has lapsed


def give_up(batch: Batch) -> Callable[[Tx], object]:
    """End what waits for a carrier that is down."""
    return lambda tx: outage.give_up(tx, batch.alert, 1, LATER)


def erase(batch: Batch) -> Callable[[Tx], object]:
    """Erase the first person of a batch; where it is being sent, nothing is committed."""

    def operation(tx: Tx) -> None:
        try:
            erase_frozen(tx, batch.persons[0], [(batch.township, batch.villages[0][0])], micros(LATER))
        except SendingError:
            tx.rollback()

    return operation


async def settled_or_ended(store: Store, batch: Batch, *, erased: bool) -> None:
    """Each slice counts off once, and what a worker has settled stands, but of who was erased before."""
    unfinished, done, owned = (
        await store.database.read(
            lambda tx: tx.all(
                "SELECT unfinished, (SELECT COUNT(*) FROM claim WHERE batch = id AND done = 1),"
                " (SELECT COUNT(*) FROM outcome WHERE batch = id) FROM batch WHERE id = :id",
                id=batch.id,
            )
        )
    )[0]
    assert unfinished == batch.slices - done
    first, second, *others = await states(store, batch)
    if owned:
        assert first is State.SUBMITTED or (erased and first is State.UNKNOWN)
    if done == batch.slices:
        assert State.QUEUED not in (first, second, *others)


@pytest.mark.parametrize("ends", [give_up, erase])
@pytest.mark.parametrize("partly", [False, True])
async def test_no_interleaving_of_a_slow_workers_settle_ends_its_slice_twice(
    cluster: Store, ends: Callable[[Batch], Callable[[Tx], object]], partly: bool
) -> None:
    """A worker wakes up as its batch is given up, or somebody in it erased: a slice too few is left to nobody."""

    async def given(number: int) -> tuple[Batch, list[Callable[[Tx], object]]]:
        one = alert(f"a{number}")
        batch = replace(batch_of(one), township=f"{411726000 + number}")  # nobody else's, to be erased
        await cluster.outbox.accept(draft_of(one, batch, digest=one.identifier))
        await cluster.outbox.claim(batch.id, 0, "me", 20)
        second = Receipt(State.QUEUED, error=Temporary("busy")) if partly else Receipt(State.SUBMITTED)
        return batch, [lambda tx: settle(tx, [sent(batch, Receipt(State.SUBMITTED), second)]), ends(batch)]

    await cluster.outbox.note_outage("noop", Outage("noop", NOW, NOW + timedelta(hours=1), "away"))
    told = partial(settled_or_ended, cluster, erased=ends is erase)
    assert await every_interleaving(cluster, given, told, (" claim ", "COMMIT")) > 3
