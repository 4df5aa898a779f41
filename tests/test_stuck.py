"""What waits is found and has one reason, whatever it waits for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import get_args

import blank
import pytest
from test_planner import fallbacks
from test_store import NOW, HandClock, alert, batch_of, draft_of

from gateway.api.shape import WaitingReason
from gateway.cli.answer import WAITS_FOR
from gateway.database import Database
from gateway.errors import Temporary
from gateway.model import Batch, Receipt, Record, State
from gateway.ports import Outage, Settled
from gateway.store import Store
from gateway.store.stuck import REASONS

WARNING = alert()
BATCH = batch_of(WARNING)
Happening = Callable[[Store, HandClock], Awaitable[None]]


async def halted(store: Store, hand: HandClock) -> None:
    await store.outbox.halt("411726", True, Record(hand.now(), "admin/张三", "halt", "411726"))


async def sending(store: Store, hand: HandClock) -> None:
    await store.outbox.published([BATCH.id])
    await store.outbox.claim(BATCH.id, 0, "worker", 20)


async def channel_down(store: Store, hand: HandClock) -> None:
    until = hand.now() + timedelta(seconds=5)
    await store.outbox.note_outage("noop", Outage("noop", hand.now(), until, "unreachable"))
    await store.outbox.defer(BATCH.id, until)


async def retry(store: Store, hand: HandClock) -> None:
    for number in (0, 1):
        claim = await store.outbox.claim(BATCH.id, number, "worker", 20)
        again = [Receipt(State.QUEUED, "busy", error=Temporary("busy"))] * len(claim.pending)
        due = hand.now() + timedelta(seconds=10)
        await store.ledger.settle(Settled(BATCH.id, number, 1, "worker", claim.pending, again, "noop", hand.now(), due))


async def paced(store: Store, hand: HandClock) -> None:
    await store.outbox.defer(BATCH.id, hand.now() + timedelta(seconds=30))


async def unpublished(store: Store, hand: HandClock) -> None:
    pass


async def queued(store: Store, hand: HandClock) -> None:
    hand.advance(1)
    await store.outbox.published([BATCH.id])


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    url = blank.sqlite(tmp_path)
    if request.param == "postgresql":
        url = request.getfixturevalue("database_url")
    database = Database(url)
    await database.open()
    yield Store(database, HandClock())
    await database.close()


@pytest.mark.parametrize("happen", [halted, sending, channel_down, retry, paced, unpublished, queued])
async def test_an_unfinished_batch_says_what_it_waits_for(store: Store, happen: Happening) -> None:
    """At two in the morning somebody has to know whom to call: the carrier, the administrator, or nobody."""
    hand = store._clock
    assert isinstance(hand, HandClock)
    await store.outbox.accept(draft_of(WARNING, BATCH))
    await happen(store, hand)
    (found,) = [one for one in await store.stuck.all(["noop"]) if one.county]
    assert (found.alert, found.channel, found.county, found.batches) == (WARNING.id, "noop", "411726", 1)
    assert found.reason == happen.__name__
    assert (found.until is not None) == (happen in (sending, channel_down, retry, paced))


async def test_a_channel_that_was_taken_away_is_named(store: Store) -> None:
    """A batch for a channel that nobody runs any more waits until its deadline; somebody has to see it."""
    await store.outbox.accept(draft_of(WARNING, BATCH))
    for left in (["sms_twilio"], []):
        assert {one.reason for one in await store.stuck.all(left)} == {"channel_missing"}


async def test_steps_that_are_still_to_be_planned_are_named(store: Store) -> None:
    """A planner that does not run leaves no batch behind that could be seen."""
    draft, _ = fallbacks(WARNING, (1, 2))
    await store.outbox.accept(replace(draft, batches=(), cursors={}))
    assert [one.reason for one in await store.stuck.all(["noop"])] == ["planning", "fallback"]


async def test_what_is_finished_waits_for_nothing(store: Store) -> None:
    """An empty list means that all is said."""
    batch: Batch = replace(BATCH, slice=4)
    await store.outbox.accept(replace(draft_of(WARNING, batch), cursors={1: None}))
    claim = await store.outbox.claim(batch.id, 0, "worker", 20)
    sent = [Receipt(State.DELIVERED)] * len(claim.pending)
    await store.ledger.settle(Settled(batch.id, 0, 1, "worker", claim.pending, sent, "noop", NOW))
    assert await store.stuck.all(["noop"]) == []


def test_every_reason_is_described_and_explained() -> None:
    """The list, its description and the words on the terminal know the same reasons."""
    assert set(REASONS) == set(get_args(WaitingReason)) == WAITS_FOR.keys()
