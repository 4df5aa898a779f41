"""Loudspeakers that were told and say nothing, on both databases: their village is a gap, and may still be heard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import blank
import pytest
from test_coverage import POLICY
from test_store import NOW, HandClock, alert, batch_of, draft_of
from town import FLOWER, FLOWER_1, FLOWER_2, Town, phone, places, town

from gateway import metrics
from gateway.coverage import Coverage, CoverageBook
from gateway.directory.table import Roster
from gateway.model import Batch, Condition, DeviceEvent, DeviceState, Group, Record, Report, State, Target
from gateway.receipts import Receipts
from gateway.store import Store
from gateway.store.unheard import GRACE, SILENT, STOPPED, Unheard

WAIT_S = 120.0
AREA = (Target(FLOWER, (FLOWER_1, FLOWER_2)),)


class Night:
    """A warning to two loudspeakers in two villages; officials answer for both."""

    def __init__(self, one: Town, store: Store, clock: HandClock, batch: Batch) -> None:
        self.town, self.store, self.clock, self.batch = one, store, clock, batch
        self.receipts = Receipts(store, one.directory, clock)
        self.unheard = Unheard(one.database, clock, {"loudspeaker_ws": WAIT_S})
        self.book = CoverageBook(store, one.directory, places(), lambda: POLICY)

    async def take(self, *positions: int) -> None:
        """Write to these loudspeakers as the hub does."""
        assert await self.store.commands.take({self.batch.id: positions}) == {self.batch.id: list(positions)}

    async def report(self, position: int, state: State, code: str = "") -> None:
        one = Report("loudspeaker_ws", "", state, self.clock.now(), code, self.batch.id, position)
        await self.receipts.commit("loudspeaker_ws", [one])

    async def say(self, device: int, kind: str, state: DeviceState | None = None) -> None:
        event = DeviceEvent(self.batch.persons[device], kind, self.clock.now(), "", state)
        await self.receipts.commit("loudspeaker_ws", [event])

    async def states(self) -> list[State]:
        [(_, states)] = await self.store.ledger.batches(self.batch.alert, "loudspeakers")
        return [State(one) for one in states]

    async def covered(self) -> Coverage:
        row = await self.store.outbox.alert(self.batch.alert)
        assert row is not None
        return await self.book.of(row)

    async def open(self) -> list[tuple[int, str]]:
        rows = await self.store.database.read(
            lambda tx: tx.all("SELECT position, want FROM device_command WHERE finished = 0 ORDER BY position")
        )
        return [(position, want) for position, want in rows]


@pytest.fixture(params=["sqlite", "postgresql"])
async def night(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Night]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    clock = HandClock()
    async with town(url) as one:
        rows = [("pole-1", FLOWER_1, "k" * 16), ("pole-2", FLOWER_2, "l" * 16)]
        assert (await one.bring(Roster.DEVICES, *rows)).errors == ()
        await one.officials(("张三", phone(1), FLOWER_1, "村支书"), ("李四", phone(2), FLOWER_2, "村支书"))
        store = Store(one.database, clock)
        found = await one.directory.devices([FLOWER_1, FLOWER_2])
        about = alert()
        batch = replace(
            batch_of(about, size=2, slice_=0, channel="loudspeaker_ws"), group=Group.LOUDSPEAKERS, township=FLOWER,
            persons=(found[FLOWER_1][0], found[FLOWER_2][0]), villages=((FLOWER_1, 1), (FLOWER_2, 1)),
        )  # fmt: skip
        draft = draft_of(about, batch)
        await store.outbox.accept(replace(draft, plan=replace(draft.plan, targets=AREA)))
        yield Night(one, store, clock, batch)


async def test_who_was_told_and_says_nothing_is_silent_and_may_still_play(night: Night) -> None:
    """A pole that took the warning and hung itself must not look as if it were about to play."""
    before = metrics.silent_recipients.labels("loudspeaker_ws")._value.get()
    await night.take(0, 1)
    await night.report(1, State.DELIVERED, "received")
    night.clock.advance(WAIT_S - 1)
    await night.unheard.work()
    assert await night.states() == [State.SUBMITTED, State.DELIVERED]
    night.clock.advance(1)
    await night.unheard.work()
    await night.unheard.work()
    assert await night.states() == [State.UNKNOWN, State.DELIVERED]
    rows = await night.store.database.read(lambda tx: tx.all("SELECT code FROM fact WHERE state = 20"))
    assert rows == [(SILENT,)]
    assert metrics.silent_recipients.labels("loudspeaker_ws")._value.get() == before + 1
    assert [village.code for village in (await night.covered()).gaps] == [FLOWER_1, FLOWER_2]
    assert [position for position, _ in await night.open()] == [0, 1], "it plays if it comes back in time"
    await night.report(0, State.PLAYED)
    assert await night.states() == [State.PLAYED, State.DELIVERED]
    assert [village.code for village in (await night.covered()).gaps] == [FLOWER_2]


async def test_who_was_never_told_is_not_silent(night: Night) -> None:
    """A device without a connection has been asked nothing yet; its command waits for it."""
    night.clock.advance(WAIT_S * 10)
    await night.unheard.work()
    assert await night.states() == [State.QUEUED, State.QUEUED]


async def test_who_comes_late_has_its_own_time(night: Night) -> None:
    """Back after an hour and commanded a second ago: nobody calls that pole dead yet."""
    await night.take(1)
    night.clock.advance(3600)
    await night.say(0, "online")
    await night.take(0)
    night.clock.advance(WAIT_S - 1)
    await night.unheard.work()
    assert await night.states() == [State.SUBMITTED, State.UNKNOWN]
    night.clock.advance(1)
    await night.unheard.work()
    assert await night.states() == [State.UNKNOWN, State.UNKNOWN]


async def test_who_comes_and_goes_all_the_time_is_silent_all_the_same(night: Night) -> None:
    """A loose plug would keep its village without a verdict for as long as it is loose."""
    await night.take(0, 1)
    for _ in range(int(WAIT_S / 10) + 1):
        await night.say(0, "online")
        night.clock.advance(5)
        await night.say(0, "offline")
        night.clock.advance(5)
    await night.unheard.work()
    assert (await night.states())[0] == State.UNKNOWN


async def test_who_is_busy_has_answered(night: Night) -> None:
    """A live speech of the village committee may last an hour; the loudspeaker works."""
    await night.take(0)
    await night.report(0, State.SUBMITTED, "busy")
    night.clock.advance(WAIT_S * 10)
    await night.unheard.work()
    assert await night.states() == [State.SUBMITTED, State.QUEUED]


async def test_past_its_deadline_every_command_is_settled(night: Night) -> None:
    """What nobody played in time is said so, and no device is told of it when it comes back in the morning."""
    await night.take(0)
    night.clock.advance((night.batch.deadline - NOW).total_seconds())
    await night.unheard.work()
    assert len(await night.open()) == 2, "whoever played up to the last second has its receipt under way"
    night.clock.advance(GRACE.total_seconds())
    await night.unheard.work()
    assert await night.states() == [State.UNKNOWN, State.EXPIRED]
    assert await night.open() == []
    assert [one for one, _, _ in await night.store.ledger.unsealed(10)] == [night.batch.id]


async def test_a_stop_stands_a_day_longer_than_its_warning(night: Night) -> None:
    """A device that was cut off with a wrong clock still holds the recalled warning for a valid one."""
    await night.take(0)
    await night.store.outbox.stop(night.batch.alert, "recalled", Record(NOW, "issuer", "recall", night.batch.alert))
    late = night.batch.deadline - NOW + STOPPED
    night.clock.advance((late - timedelta(minutes=1)).total_seconds())
    await night.unheard.work()
    assert await night.open() == [(0, "stop")]
    night.clock.advance(60)
    await night.unheard.work()
    assert await night.open() == []


async def test_a_village_without_a_working_loudspeaker_is_named_from_the_first_second(night: Night) -> None:
    """Nobody waits for a pole that has been dead for a week: its village is called first, and may yet be heard."""
    await night.say(0, "state", DeviceState(volume=70))
    await night.say(1, "state", DeviceState(faults=("amplifier",)))
    first = await night.covered()
    assert [(village.code, village.speaker) for village in first.mute] == [(FLOWER_2, Condition.FAULTY)]
    assert [village.code for village in first.gaps] == [FLOWER_1, FLOWER_2]
    assert await night.covered() is first
    night.clock.advance(POLICY.speakers.offline.total_seconds() + 1)
    assert [village.speaker for village in (await night.covered()).mute] == [Condition.OFFLINE] * 2
    await night.say(1, "state", DeviceState(volume=70))
    await night.take(1)
    await night.report(1, State.PLAYED)
    assert [village.code for village in (await night.covered()).mute] == [FLOWER_1]
