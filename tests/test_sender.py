"""What the sender makes of every error: who is sent once more, who is told it failed, and who is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import blank
import pytest
from links import RecordingLink
from structlog.testing import capture_logs
from test_store import HandClock, alert, batch_of, draft_of

from gateway.breaker import REFUSED_S
from gateway.channel import Channel, ChannelSettings, Link, PerRecipient
from gateway.database import Database
from gateway.errors import Ambiguous, ChannelError, Permanent, Temporary, Throttled, Unusable
from gateway.metrics import REGISTRY
from gateway.model import Batch, ClaimResult, Lane, Level, Message, Notice, Receipt, Record, Slice, State, Status
from gateway.ports import AlertRow
from gateway.sender import ATTEMPTS, LEASE_MARGIN_S, Sender, Stopping
from gateway.store import Store

SENT = Receipt(State.SUBMITTED)
Script = Callable[[Slice, Message], list[Receipt]]


class Scripted(Channel):
    """A channel that does what the test says, and keeps what it was asked to send."""

    name = "noop"
    slice = 2
    answer_s = 0.2

    def __init__(self, script: Script) -> None:
        super().__init__(ChannelSettings())
        self.script = script
        self.calls: list[tuple[tuple[int, ...], bool]] = []

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        self.calls.append((tuple(slice_.positions), message.again))
        return self.script(slice_, message)


class Words:
    """A composer of fixed words; `broken` as often as said."""

    def __init__(self, *, repeatable: bool = True, broken: int = 0) -> None:
        self.red = repeatable
        self.broken = broken

    async def message(self, batch: Batch, positions: Sequence[int], *, again: bool) -> Message:
        if self.broken:
            self.broken -= 1
            raise KeyError("a template")
        return Message(
            batch.alert, Notice.ISSUE, Status.ACTUAL, Level.RED, Lane.GREEN, "zh", "", "words", batch.deadline,
            again=again,
        )  # fmt: skip

    def know(self, rows: Iterable[AlertRow]) -> None:
        """It asks for no alert."""

    async def repeatable(self, batch: Batch) -> bool:
        return self.red


class Desk:
    """A sender over a real store."""

    def __init__(self, store: Store, clock: HandClock) -> None:
        self.store = store
        self.clock = clock
        self.gone: list[int] = []
        self.batch = batch_of(alert())
        self.link: RecordingLink = RecordingLink()

    def sender(self, channel: Channel, words: Words | None = None) -> Sender:
        """The sender of one process."""

        async def gone(people: Sequence[int]) -> None:
            self.gone += people

        return Sender(
            {"noop": channel}, self.store.outbox, self.store.ledger, words or Words(), {"noop": self.link}, self.clock,
            gone,
        )  # fmt: skip

    async def work(self, channel: Channel, words: Words | None = None, sender: Sender | None = None) -> dict[str, int]:
        """One round over the batch; returns recipients by state."""
        await (sender or self.sender(channel, words)).send(self.batch)
        counts = await self.store.ledger.counts(self.batch.alert)
        return {state: number for (_, _, state), number in counts.items()}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = HandClock()
    database = Database(blank.sqlite(tmp_path))
    await database.open()
    one = Desk(Store(database, clock), clock)
    await one.store.outbox.accept(draft_of(alert(), one.batch))
    yield one
    await database.close()


def always(receipt: Receipt) -> Script:
    return lambda slice_, _: [receipt] * len(slice_)


def raising(error: Exception) -> Script:
    def script(slice_: Slice, message: Message) -> list[Receipt]:
        raise error

    return script


def failing(error: Exception) -> Script:
    return always(Receipt(State.FAILED, "code", error=error))


async def test_everybody_is_sent_once(desk: Desk) -> None:
    """The ordinary night: each slice once, and a second look finds nothing left."""
    channel = Scripted(always(SENT))
    assert await desk.work(channel) == {"submitted": 4}
    assert await desk.work(channel) == {"submitted": 4}
    assert channel.calls == [((0, 1), False), ((2, 3), False)]


@pytest.mark.parametrize("script", [raising, failing])
async def test_a_temporary_error_is_tried_a_bounded_number_of_times(
    desk: Desk, script: Callable[[Exception], Script]
) -> None:
    """A busy provider is asked again, later and later, and in the end the failure is said."""
    channel = Scripted(script(Temporary("busy")))
    for _ in range(ATTEMPTS + 3):
        states = await desk.work(channel)
        desk.clock.advance(60)
    assert states == {"failed": 4}
    assert len(channel.calls) == 2 * ATTEMPTS


async def test_being_throttled_is_not_an_attempt(desk: Desk) -> None:
    """A provider that asks for patience gets it; nobody is given up for waiting."""
    channel = Scripted(raising(Throttled(5)))
    for _ in range(ATTEMPTS + 3):
        assert await desk.work(channel) == {"queued": 4}
        desk.clock.advance(6)
    channel.script = always(SENT)
    assert await desk.work(channel) == {"submitted": 4}


async def test_what_will_never_work_fails_at_once(desk: Desk) -> None:
    """The gap must show at once, so that somebody calls instead."""
    channel = Scripted(failing(Permanent("no_such_number")))
    assert await desk.work(channel) == {"failed": 4}
    assert await desk.work(channel) == {"failed": 4}
    assert len(channel.calls) == 2


async def test_one_bad_number_does_not_hold_up_its_neighbours(desk: Desk) -> None:
    """Partial success is ordinary: only the one in trouble is tried again."""
    bad = Receipt(State.FAILED, "busy", error=Temporary("busy"))
    channel = Scripted(lambda slice_, _: [SENT if at else bad for at in slice_.positions])
    assert await desk.work(channel) == {"queued": 1, "submitted": 3}
    desk.clock.advance(60)
    channel.script = always(SENT)
    assert await desk.work(channel) == {"submitted": 4}
    assert channel.calls[-1] == ((0,), False)


@pytest.mark.parametrize("script", [raising, failing])
async def test_a_red_call_without_an_answer_is_repeated_once_and_marked(
    desk: Desk, script: Callable[[Exception], Script]
) -> None:
    """Rule 2: for red a possible second copy is better than silence, once, and it says that it is one."""
    channel = Scripted(script(Ambiguous("no_answer")))
    for _ in range(4):
        states = await desk.work(channel)
        desk.clock.advance(60)
    assert states == {"unknown": 4}
    assert channel.calls == [((0, 1), False), ((2, 3), False), ((0, 1), True), ((2, 3), True)]


async def test_below_red_an_unanswered_call_is_left_to_its_report(desk: Desk) -> None:
    """Orange and below wait for the report; nobody gets a second copy."""
    channel = Scripted(failing(Ambiguous("no_answer")))
    words = Words(repeatable=False)
    assert await desk.work(channel, words) == {"unknown": 4}
    desk.clock.advance(60)
    await desk.work(channel, words)
    assert len(channel.calls) == 2


async def test_a_doubtful_repeat_that_was_throttled_stays_a_repeat(desk: Desk) -> None:
    """What may have been sent once is never again sent as if for the first time."""
    channel = Scripted(failing(Ambiguous("no_answer")))
    await desk.work(channel)
    desk.clock.advance(60)
    channel.script = raising(Throttled(1))
    await desk.work(channel)
    desk.clock.advance(60)
    channel.script = always(SENT)
    assert await desk.work(channel) == {"submitted": 4}
    assert channel.calls[-1] == ((2, 3), True)


async def test_a_send_that_never_returns_is_ambiguous(desk: Desk) -> None:
    """A frozen provider must not hold its slice for ever."""

    class Frozen(Scripted):
        async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
            self.calls.append((tuple(slice_.positions), message.again))
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

    channel = Frozen(always(SENT))
    assert await desk.work(channel, Words(repeatable=False)) == {"unknown": 4}


async def test_a_dead_worker_s_slice_is_repeated_marked_for_red(desk: Desk) -> None:
    """`kill -9` between the claim and the settle: once more with the mark, then never again."""
    channel = Scripted(always(SENT))
    await desk.store.outbox.claim(desk.batch.id, 0, "dead", channel.answer_s + LEASE_MARGIN_S)
    assert await desk.work(channel) == {"queued": 2, "submitted": 2}
    desk.clock.advance(60)
    assert await desk.work(channel) == {"submitted": 4}
    assert channel.calls == [((2, 3), False), ((0, 1), True)]


@pytest.mark.parametrize("wrong", [ValueError("bug"), KeyError("bug")])
async def test_a_bug_in_a_channel_is_treated_as_temporary(desk: Desk, wrong: Exception) -> None:
    """A programming error must not lose a village, nor its slice for ever."""
    channel = Scripted(raising(wrong))
    assert await desk.work(channel) == {"queued": 4}
    desk.clock.advance(60)
    channel.script = always(SENT)
    assert await desk.work(channel) == {"submitted": 4}


async def test_too_few_receipts_leave_the_slice_unknown(desk: Desk) -> None:
    """Nobody may guess which of the slice were sent."""
    assert await desk.work(Scripted(lambda slice_, _: [SENT])) == {"unknown": 4}


async def test_a_text_that_cannot_be_composed_releases_its_claim(desk: Desk) -> None:
    """Nothing was sent, so nobody is doubtful: the mended template sends it as the first copy."""
    channel = Scripted(always(SENT))
    assert await desk.work(channel, Words(broken=2)) == {"queued": 4}
    desk.clock.advance(60)
    assert await desk.work(channel) == {"submitted": 4}
    assert [again for _, again in channel.calls] == [False, False]


async def test_a_subscription_that_is_gone_is_reported_once_settled(desk: Desk) -> None:
    """A dead subscription must not be tried at every warning."""
    channel = Scripted(lambda slice_, _: [
        Receipt(State.FAILED, "gone", error=Permanent("gone")) if at == 1 else SENT for at in slice_.positions
    ])  # fmt: skip
    await desk.work(channel)
    assert desk.gone == [desk.batch.persons[1]]


async def test_a_process_that_ends_claims_nothing_more(desk: Desk) -> None:
    """A plain restart must not leave claims behind that make people doubtful."""

    def script(slice_: Slice, message: Message) -> list[Receipt]:
        sender.stop()
        return [SENT] * len(slice_)

    async def gone(people: Sequence[int]) -> None:
        raise AssertionError("nobody is gone")

    channel = Scripted(script)
    ledger, outbox = desk.store.ledger, desk.store.outbox
    sender = Sender({"noop": channel}, outbox, ledger, Words(), {"noop": RecordingLink()}, desk.clock, gone)
    with pytest.raises(Stopping):
        await sender.send(desk.batch)
    assert channel.calls == [((0, 1), False)]
    assert await desk.work(Scripted(always(SENT))) == {"submitted": 4}


async def test_a_refused_account_is_left_alone_before_it_is_asked_again(desk: Desk) -> None:
    """One wrong answer of a provider must not fail a whole county within seconds: people get time to act."""
    channel = Scripted(failing(Unusable("account_refused")))
    sender = desk.sender(channel)
    assert await desk.work(channel, sender=sender) == {"failed": 2, "queued": 2}
    assert await desk.work(channel, sender=sender) == {"failed": 2, "queued": 2}
    assert await due(desk) == []
    desk.clock.advance(REFUSED_S + 1)
    assert await due(desk) == [desk.batch.id]
    channel.script = always(SENT)
    assert await desk.work(channel, sender=sender) == {"failed": 2, "submitted": 2}
    assert channel.calls == [((0, 1), False), ((2, 3), False)]


async def test_a_refused_account_holds_nobody_beyond_the_deadline(desk: Desk) -> None:
    """What cannot go out in time is said to be expired, not left as queued."""
    desk.clock.advance(3 * 3600 - 5)
    channel = Scripted(failing(Unusable("account_refused")))
    sender = desk.sender(channel)
    await desk.work(channel, sender=sender)
    desk.clock.advance(5)
    assert await due(desk) == [desk.batch.id]
    assert await desk.work(channel, sender=sender) == {"failed": 2, "expired": 2}


async def due(desk: Desk) -> list[str]:
    return [ready.batch for ready in await desk.store.outbox.ready([Lane.GREEN], ["noop"], 0, 10)]


@dataclass
class Tight(RecordingLink):
    """A link whose account has `left` units, and asks for 40 s once they are used up."""

    left: int = 0

    async def pace(self, account: str, units: int, lane: Lane) -> None:
        if units > self.left:
            raise Throttled(40, "paced")
        self.left -= units
        await super().pace(account, units, lane)


async def test_an_account_without_tokens_puts_the_batch_off_unclaimed(desk: Desk) -> None:
    """Who only waited for a token was not sent to: a `kill -9` meanwhile makes nobody doubtful."""
    channel = Scripted(always(SENT))
    desk.link = Tight(left=2)
    assert await desk.work(channel) == {"submitted": 2, "queued": 2}
    assert await due(desk) == []
    desk.clock.advance(41)
    assert await due(desk) == [desk.batch.id]
    claim = await desk.store.outbox.claim(desk.batch.id, 1, "other", 20)
    assert (claim.result, claim.pending, claim.attempt) == (ClaimResult.GRANTED, (2, 3), 1)


async def test_tokens_of_a_slice_that_was_sent_already_serve_the_next_one(desk: Desk) -> None:
    """A batch that comes up again for one slice must not use up the account's rate for all of them."""
    channel = Scripted(always(SENT))
    await desk.store.outbox.claim(desk.batch.id, 0, "other", 20)
    desk.link = Tight(left=2)
    assert await desk.work(channel) == {"queued": 2, "submitted": 2}
    assert desk.link.paced == [("noop", 2, Lane.GREEN)]


async def test_a_stopped_batch_needs_no_tokens_to_be_settled(desk: Desk) -> None:
    """A recalled warning is shown as recalled at once, however busy the account is."""
    desk.link = Tight()
    record = Record(desk.clock.now(), "issuer", "recall", desk.batch.alert)
    await desk.store.outbox.stop(desk.batch.alert, "cancelled", record)
    assert await desk.work(Scripted(always(SENT))) == {"superseded": 4}


@pytest.mark.parametrize("error", [Permanent("no_such_number"), Unusable("refused"), Temporary("busy")])
async def test_a_repeat_that_fails_leaves_the_outcome_unknown(desk: Desk, error: ChannelError) -> None:
    """The first copy may have arrived: "failed" would send somebody to a house that knows."""
    channel = Scripted(failing(Ambiguous("no_answer")))
    await desk.work(channel)
    channel.script = failing(error)
    for _ in range(ATTEMPTS + 1):
        desk.clock.advance(60)
        states = await desk.work(channel)
    assert set(states) == {"unknown"} or (isinstance(error, Unusable) and "failed" not in states)


async def test_a_repeat_that_was_not_sent_in_time_is_unknown_and_not_marked(desk: Desk) -> None:
    """Nobody may be shown as told twice, nor as never told, of whom neither is known."""
    channel = Scripted(failing(Ambiguous("no_answer")))
    await desk.work(channel)
    desk.clock.advance(60)
    channel.script = always(Receipt(State.EXPIRED))
    assert await desk.work(channel) == {"unknown": 4}


@pytest.mark.parametrize("after_s", [99999999999999.0, float("inf"), float("nan"), -5.0])
async def test_a_provider_that_asks_for_nonsense_is_asked_again_within_the_hour(desk: Desk, after_s: float) -> None:
    """A header that nobody checked must not end in an error after the send, nor in silence until expiry."""
    channel = Scripted(failing(Throttled(after_s)))
    assert await desk.work(channel) == {"queued": 4}
    desk.clock.advance(3601)
    channel.script = always(SENT)
    assert await desk.work(channel) == {"submitted": 4}


class OneByOne(PerRecipient):
    """A simple channel; `script` says what becomes of one address."""

    name = "noop"
    slice = 2
    pool = 1

    def __init__(self, script: Callable[[str], Receipt]) -> None:
        super().__init__(ChannelSettings())
        self.script = script
        self.asked: list[tuple[str, bool]] = []

    async def send_one(self, address: str, text: str, message: Message, reference: str) -> Receipt:
        self.asked.append((address, message.again))
        return self.script(address)


class Lasting(Words):
    """Words valid for longer than any wall clock: `PerRecipient` goes by the wall clock, not by ours."""

    async def message(self, batch: Batch, positions: Sequence[int], *, again: bool) -> Message:
        message = await super().message(batch, positions, again=again)
        return replace(message, expires=datetime(2099, 7, 20, tzinfo=UTC))


def clumsy(address: str) -> Receipt:
    """Fail in an unforeseen way at the first address, after its text has left."""
    if address.endswith("000"):
        raise KeyError(address)
    return SENT


async def test_a_bug_after_one_text_left_makes_its_recipient_doubtful(desk: Desk) -> None:
    """Rule 2: five unmarked copies of one warning teach a village not to believe the sixth."""
    channel = OneByOne(clumsy)
    for _ in range(4):
        states = await desk.work(channel, Lasting())
        desk.clock.advance(60)
    first = desk.batch.addresses[0]
    assert [again for address, again in channel.asked if address == first] == [False, True]
    assert states == {"unknown": 1, "submitted": 3}


async def test_a_bug_is_logged_with_its_stack_and_without_its_words(desk: Desk) -> None:
    """Rule 9: an error may quote a number. It is told where it happened, and rings."""
    channel = OneByOne(clumsy)
    before = alarms("bug")
    with capture_logs() as logs:
        await desk.work(channel, Lasting())
    bug = next(entry for entry in logs if entry["event"] == "bug_in_channel")
    assert bug["type"] == "KeyError"
    assert bug["stack"].endswith(" clumsy")
    assert not any(address in repr(logs) for address in desk.batch.addresses)
    assert alarms("bug") == before + 1


def alarms(kind: str) -> float:
    return REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": kind}) or 0.0


async def test_a_receipt_with_an_unforeseen_error_is_doubtful(desk: Desk) -> None:
    """It was written after the call: nobody knows whether the text had left."""
    assert await desk.work(Scripted(failing(ValueError("bug"))), Words(repeatable=False)) == {"unknown": 4}


async def test_a_slice_begins_nothing_more_once_its_message_has_expired(desk: Desk) -> None:
    """Rule 4: the end of a long slice must not leave after the warning ended."""
    receipts = await OneByOne(clumsy).send(
        Slice("b", 0, 1, (0, 1), (1, 2), ("a", "b")), await Words().message(replace(
            desk.batch, deadline=datetime(2020, 7, 20, tzinfo=UTC)), (0, 1), again=False), desk.link,
    )  # fmt: skip
    assert receipts == [Receipt(State.EXPIRED)] * 2


async def test_a_slice_asks_a_refused_account_no_further(desk: Desk) -> None:
    """Fifty more requests with a wrong password end in a blocked account."""

    def refuse(address: str) -> Receipt:
        raise Unusable("account_refused")

    channel = OneByOne(refuse)
    assert await desk.work(channel, Lasting()) == {"failed": 2, "queued": 2}
    assert len(channel.asked) == 1


async def test_nothing_is_begun_after_the_deadline_though_it_was_claimed_before(desk: Desk) -> None:
    """Rule 4: composing took its time; an expired warning sends people into the wrong night."""

    class Slow(Words):
        async def message(self, batch: Batch, positions: Sequence[int], *, again: bool) -> Message:
            desk.clock.advance(3 * 3600)
            return await super().message(batch, positions, again=again)

    channel = Scripted(always(SENT))
    assert await desk.work(channel, Slow()) == {"expired": 4}
    assert channel.calls == []
