"""What an answer confirms: the warning the person was told of, for the villages of its plan that person answers for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import blank
import pytest
from test_store import HandClock, alert, batch_of, draft_of
from town import FLOWER, FLOWER_1, FLOWER_2, WATER_1, Town, phone, town

from gateway.model import Alert, Batch, Level, Notice, Receipt, Reply, State, Status, Target
from gateway.ports import Settled
from gateway.receipts import Receipts
from gateway.store import Store


class Office:
    """Receipts over a real store and directory, with one official of three villages in two townships."""

    def __init__(self, one: Town, store: Store, clock: HandClock) -> None:
        self.store = store
        self.clock = clock
        self.person = one.person("张三", 1)
        self.receipts = Receipts(store, one.directory, clock)

    async def tell(
        self, about: Alert, *, state: State = State.SUBMITTED, notice: Notice = Notice.ISSUE, villages: str = FLOWER_1
    ) -> Batch:
        """Send the official a warning for one village, with this outcome."""
        batch = replace(
            batch_of(about, size=1), persons=(self.person,), township=FLOWER, villages=((FLOWER_1, 1),), notice=notice
        )
        draft = draft_of(about, batch, digest=about.identifier)
        plan = replace(draft.plan, targets=(Target(FLOWER, (villages,)),))
        await self.store.outbox.accept(replace(draft, plan=plan, now=self.clock.now()))
        await self.store.outbox.claim(batch.id, 0, "me", 20)
        await self.store.ledger.settle(
            Settled(batch.id, 0, 1, "me", [0], [Receipt(state)], "noop", self.clock.now())
        )  # fmt: skip
        self.clock.advance(60)
        return batch

    async def answer(self) -> str:
        """Reply 1; return what became of it."""
        at = self.clock.now()
        await self.receipts.commit("noop", [Reply("noop", "noop", at.isoformat(), "+86" + phone(1), "1", at)])
        rows = await self.store.database.read(lambda tx: tx.all("SELECT outcome FROM reply ORDER BY at DESC"))
        return str(rows[0][0])

    async def confirmed(self, about: Alert) -> list[tuple[str, ...]]:
        """Villages of each confirmation."""
        return [villages for _, villages, _, _ in await self.store.ledger.confirmations(about.id)]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    clock = HandClock()
    async with town(blank.sqlite(tmp_path)) as one:
        await one.officials(*(("张三", phone(1), village, "村支书") for village in (FLOWER_1, FLOWER_2, WATER_1)))
        yield Office(one, Store(one.database, clock), clock)


async def test_an_answer_confirms_only_villages_of_the_warning(office: Office) -> None:
    """Who answers for three villages has heard of one: the other two were not meant."""
    await office.tell(alert())
    assert await office.answer() == "confirmed:1"
    assert await office.confirmed(alert()) == [(FLOWER_1,)]


async def test_a_clerk_confirms_only_villages_of_the_warning(office: Office) -> None:
    """A call answered is worth as much as a text answered, and no more."""
    await office.tell(alert(), state=State.FAILED)
    assert await office.receipts.confirm(alert().id, office.person, "phone", "person:clerk")
    assert not await office.receipts.confirm(alert().id, office.person, "phone", "person:clerk")
    assert await office.confirmed(alert()) == [(FLOWER_1,)]


@pytest.mark.parametrize("state", [State.FAILED, State.SKIPPED, State.EXPIRED, State.SUPERSEDED])
async def test_an_answer_confirms_nothing_the_person_never_received(office: Office, state: State) -> None:
    """A stray 1 must not turn a village green on the map."""
    await office.tell(alert(), state=state)
    assert await office.answer() == "no_live_alert"
    assert await office.confirmed(alert()) == []


@pytest.mark.parametrize("drill_last", [True, False])
async def test_an_answer_confirms_the_class_told_last(office: Office, *, drill_last: bool) -> None:
    """A drill in the middle of a real night: its answer says nothing about the flood, nor the reverse."""
    real = replace(alert("real"), level=Level.YELLOW)  # beside an orange or red one there is no drill
    drill = replace(alert("drill"), status=Status.EXERCISE)
    for one in (real, drill) if drill_last else (drill, real):
        await office.tell(one)
    assert await office.answer() == "confirmed:1"
    assert len(await office.confirmed(drill)) == drill_last
    assert len(await office.confirmed(real)) == (not drill_last)


async def test_an_answer_to_out_of_the_area_confirms_no_warning(office: Office) -> None:
    """The village that left the area answered; the warned ones have not."""
    await office.tell(alert(), notice=Notice.PARTIAL_ALL_CLEAR, villages=FLOWER_2)
    assert await office.answer() == "no_live_alert"
