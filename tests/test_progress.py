"""Aggregate receipts in the ledger, on SQLite and PostgreSQL: counts that only grow, jobs that are never lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from test_store import NOW, HandClock, alert, batch_of, draft_of, hand, store

from gateway.model import Batch, Change, Group, Job, JobState, Progress, Record, Rounds
from gateway.store import Store
from gateway.store.progress import Reach

__all__ = ["hand", "store"]  # its fixtures

EACH_S = 5.0


async def asked(store: Store) -> tuple[Batch, Progress]:
    """A batch whose request has been written down."""
    one = alert()
    batch = replace(batch_of(one, channel="sms_area"), group=Group.AREA)
    assert (await store.outbox.accept(draft_of(one, batch))).result == "accepted"
    progress = Progress(batch.id, f"{batch.id}-0", JobState.ASKED, NOW)
    await store.progress.commit([progress])
    return batch, progress


async def reach(store: Store, batch: Batch) -> list[Reach]:
    return await store.progress.reach(batch.alert)


async def test_counts_and_states_only_grow_whatever_comes_late(store: Store) -> None:
    """A stale look of a second process must not take back what the duty room has been shown."""
    batch, progress = await asked(store)
    running = replace(progress, state=JobState.RUNNING, requested=100, submitted=60, delivered=20, job="J1")
    for one in (running, running, replace(running, submitted=40, delivered=30), progress):
        await store.progress.commit([one])
    assert await reach(store, batch) == [Reach("sms_area", JobState.RUNNING, 1, 100, 60, 30)]
    await store.progress.commit([replace(running, state=JobState.STOPPED, last=True), running])
    assert await reach(store, batch) == [Reach("sms_area", JobState.STOPPED, 1, 100, 60, 30)]


async def test_it_changes_no_recipient_and_says_so_to_who_listens(store: Store) -> None:
    """Telephones in a place are no persons of the roster; a page that shows them still has to be told."""
    batch, progress = await asked(store)
    before = await store.ledger.counts(batch.alert)
    await store.progress.commit([replace(progress, state=JobState.DONE, requested=9, submitted=9, delivered=9)])
    assert await store.ledger.counts(batch.alert) == before
    changes: list[Change] = []
    while len(changes) < 2:  # PostgreSQL shows a change once every transaction before it has ended, anybody's
        changes = [one for one in await store.ledger.changes((0, 0), 100) if one.kind == "progress"]
    assert [(one.alert, one.subject) for one in changes] == [(batch.alert, batch.id)] * 2


async def test_a_request_comes_up_when_it_is_due_and_for_one_process(store: Store, hand: HandClock) -> None:
    """Several workers share the looking; none asks the platform twice for the same."""
    batch, progress = await asked(store)
    assert await store.progress.take("sms_area", EACH_S) == []
    hand.advance(EACH_S)
    taken = await asyncio.gather(*(store.progress.take("sms_area", EACH_S) for _ in range(5)))
    (job,) = [job for part in taken for job in part]
    assert (job.progress.source, job.over, job.since) == (progress.source, False, NOW)
    assert job.places == batch.addresses
    assert await store.progress.take("sms_other", EACH_S) == []


@pytest.mark.parametrize("way", ["recall", "expiry", "county", "channel", "all"])
async def test_one_that_must_run_no_longer_comes_up_within_a_second(store: Store, hand: HandClock, way: str) -> None:
    """Whatever stops an alert stops what runs at a platform, and again each second until it has stopped."""
    batch, progress = await asked(store)
    hand.advance(1)
    assert await store.progress.take("sms_area", EACH_S) == []
    record = Record(NOW, "t", way, batch.alert)
    if way == "recall":
        assert await store.outbox.stop(batch.alert, "recalled", record)
    elif way == "expiry":
        hand.advance(timedelta(hours=3).total_seconds())
    else:
        scope = {"county": "411726", "channel": "sms_area", "all": "*"}[way]
        await store.outbox.halt(scope, on=True, record=record)
    for _ in range(2):
        assert [job.over for job in await store.progress.take("sms_area", EACH_S)] == [True]
        assert await store.progress.take("sms_area", EACH_S) == []
        hand.advance(1)
    await store.progress.commit([replace(progress, state=JobState.STOPPED, last=True)])
    assert await store.progress.take("sms_area", EACH_S) == []


async def test_one_that_was_given_up_and_is_asked_again_is_looked_after_again(store: Store, hand: HandClock) -> None:
    """A halt is lifted, and the slice is tried once more: its job must not run unseen."""
    _, progress = await asked(store)
    await store.progress.commit([replace(progress, state=JobState.LOST, last=True)])
    hand.advance(EACH_S)
    assert await store.progress.take("sms_area", EACH_S) == []
    await store.progress.commit([replace(progress, at=hand.now())])
    hand.advance(EACH_S)
    found: list[Job] = await store.progress.take("sms_area", EACH_S)
    assert [(job.progress.state, job.since) for job in found] == [(JobState.LOST, NOW + timedelta(seconds=EACH_S))]


async def test_progress_of_no_batch_is_left_out(store: Store) -> None:
    """A platform's mistake must not fill the ledger."""
    _, progress = await asked(store)
    await store.progress.commit([replace(progress, batch="nobody")])
    rows: Any = await store.database.read(lambda tx: tx.one("SELECT COUNT(*) FROM progress"))
    assert rows[0] == 1


async def repeated(store: Store, hand: HandClock) -> tuple[Batch, Job]:
    """A batch that is said again each ten minutes, and its first round as it comes up."""
    one = alert()
    batch = replace(batch_of(one, channel="loudspeaker_ebd"), group=Group.LOUDSPEAKERS, every_s=600)
    assert (await store.outbox.accept(draft_of(one, batch))).result == "accepted"
    await store.progress.commit([Progress(batch.id, "first", JobState.ASKED, NOW)])
    hand.advance(EACH_S)
    (job,) = await store.progress.take("loudspeaker_ebd", EACH_S)
    return batch, job


def village_of(batch: Batch, position: int) -> str:
    return list(batch.village_of())[position]


async def confirmed(store: Store, batch: Batch, village: str) -> None:
    record = Record(NOW, "t", "confirm", batch.alert)
    assert await store.ledger.confirm(batch.alert, 77, [village], "sms", record)


async def test_what_is_said_again_knows_when_and_where(store: Store, hand: HandClock) -> None:
    """Whoever looks next, after whatever restart, goes on where the last one was: the store alone says it."""
    batch, job = await repeated(store, hand)
    assert job.rounds == Rounds(batch, NOW, frozenset(range(len(batch))))
    village = village_of(batch, 0)
    await confirmed(store, batch, village)
    hand.advance(EACH_S)
    (job,) = await store.progress.take("loudspeaker_ebd", EACH_S)
    assert job.rounds is not None
    assert job.rounds.wanted == {at for at, one in enumerate(batch.village_of()) if one != village}


async def test_a_round_is_begun_once_by_whoever_comes_first(store: Store, hand: HandClock) -> None:
    """Two processes that find it due are one broadcast, not a county that hears everything twice."""
    _batch, job = await repeated(store, hand)
    begun = await asyncio.gather(*(store.progress.again(job, f"second{one}", [0]) for one in range(4)))
    assert sorted(begun) == [False, False, False, True]
    hand.advance(EACH_S)
    (following,) = await store.progress.take("loudspeaker_ebd", EACH_S)
    assert following.progress.source.startswith("second")
    assert following.rounds is not None
    assert following.rounds.asked_at == NOW + timedelta(seconds=EACH_S)


@pytest.mark.parametrize("way", ["recall", "expiry", "county", "channel", "all", "confirmed"])
async def test_no_round_begins_after_its_end(store: Store, hand: HandClock, way: str) -> None:
    """What was called off a moment before must not be heard once more, whatever was looked at before that."""
    batch, job = await repeated(store, hand)
    record = Record(NOW, "t", way, batch.alert)
    if way == "recall":
        assert await store.outbox.stop(batch.alert, "recalled", record)
    elif way == "expiry":
        hand.advance(timedelta(hours=3).total_seconds())
    elif way == "confirmed":
        await confirmed(store, batch, village_of(batch, 0))
    else:
        scope = {"county": "411726", "channel": "loudspeaker_ebd", "all": "*"}[way]
        await store.outbox.halt(scope, on=True, record=record)
    assert not await store.progress.again(job, "second", [0])
    hand.advance(EACH_S)
    (job,) = await store.progress.take("loudspeaker_ebd", EACH_S)
    assert (job.progress.source, job.over) == ("first", way != "confirmed")
    assert job.rounds is not None
    assert job.rounds.halted is (way in ("county", "channel", "all"))
