"""What the sender makes of every error: who is sent once more, who is told it failed, and who is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from links import RecordingLink
from test_store import HandClock, alert, batch_of, draft_of

from gateway.channel import Channel, ChannelSettings, Link
from gateway.database import Database
from gateway.errors import Ambiguous, ChannelError, Permanent, Temporary, Throttled, Unusable
from gateway.model import Batch, Lane, Level, Message, Notice, Receipt, Slice, State, Status
from gateway.sender import ATTEMPTS, LEASE_MARGIN_S, Gate, Sender, Stopping
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

    async def repeatable(self, batch: Batch) -> bool:
        return self.red


class Desk:
    """A sender over a real store."""

    def __init__(self, store: Store, clock: HandClock) -> None:
        self.store = store
        self.clock = clock
        self.gone: list[int] = []
        self.batch = batch_of(alert())

    async def work(self, channel: Scripted, words: Words | None = None) -> dict[str, int]:
        """One round over the batch; returns recipients by state."""

        async def gone(people: Sequence[int]) -> None:
            self.gone += people

        sender = Sender(
            {"noop": channel}, self.store.outbox, self.store.ledger, words or Words(), {"noop": RecordingLink()},
            self.clock, gone,
        )  # fmt: skip
        await sender.send(self.batch)
        counts = await self.store.ledger.counts(self.batch.alert)
        return {state: number for (_, _, state), number in counts.items()}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = HandClock()
    database = Database(f"sqlite:///{tmp_path}/sender.db")
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


@pytest.mark.parametrize("error", [Permanent("no_such_number"), Unusable("account_refused")])
async def test_what_will_never_work_fails_at_once(desk: Desk, error: ChannelError) -> None:
    """The gap must show at once, so that somebody calls instead."""
    channel = Scripted(failing(error))
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


async def test_bulk_steps_aside_while_green_is_under_way() -> None:
    """Rule 5: a blue notice waits while a red one is on its way, and not for ever."""
    gate = Gate()
    gate.enter(Lane.GREEN)
    bulk = asyncio.create_task(gate.step_aside(Lane.BULK))
    green = asyncio.create_task(gate.step_aside(Lane.GREEN))
    await asyncio.wait([green])
    assert not bulk.done()
    gate.leave(Lane.GREEN)
    await asyncio.wait_for(bulk, 1)
