"""How a village's standing follows from the states of its officials and loudspeakers (D1)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import blank
import pytest
from test_store import NOW, HandClock, alert, batch_of, draft_of
from town import FLOWER, FLOWER_1, Town, phone, places, town

from gateway.coverage import Coverage, CoverageBook
from gateway.directory.table import Roster
from gateway.model import Alert, Audience, Group, Kind, Lane, Notice, Plan, Receipt, Report, State, Step, Target
from gateway.policy import Policy
from gateway.ports import Settled
from gateway.store import Store

POLICY = Policy.load(Path(__file__).parent.parent / "config" / "policy")
AREA = (Target(FLOWER, (FLOWER_1,)),)
UNTIL = NOW + timedelta(hours=3)


def book_of(one: Town, store: Store) -> CoverageBook:
    return CoverageBook(store, one.directory, places(), lambda: POLICY)


async def sent(one: Town, store: Store, about: Alert, *roads: State) -> None:
    """Tell the village's only official by these roads, with these outcomes."""
    person = one.person("张三", 1)
    batches = [
        replace(batch_of(about, size=1, number=number), persons=(person,), township=FLOWER, villages=((FLOWER_1, 1),))
        for number in range(len(roads))
    ]
    step = Step(1, Audience(AREA, Group.OFFICIALS, "noop"), Notice.ISSUE, Lane.GREEN, NOW, UNTIL)
    plan = Plan(about.id, "green", (), AREA, (), (step,))
    await store.outbox.accept(replace(draft_of(about, *batches), plan=plan))
    for batch, state in zip(batches, roads, strict=True):
        await store.outbox.claim(batch.id, 0, "me", 20)
        if state is not State.QUEUED:
            await store.ledger.settle(Settled(batch.id, 0, 1, "me", [0], [Receipt(state)], "noop", NOW))


async def covered(book: CoverageBook, store: Store, about: Alert) -> Coverage:
    row = await store.outbox.alert(about.id)
    assert row is not None
    return await book.of(row)


@pytest.mark.parametrize(
    ("roads", "state"),
    [
        ((State.SUBMITTED,), "sms_only"),
        ((State.UNKNOWN,), "gap"),
        ((State.FAILED,), "silent"),
        ((State.FAILED, State.DELIVERED), "sms_only"),
        ((State.SUBMITTED, State.FAILED), "sms_only"),
        ((State.FAILED, State.SKIPPED), "silent"),
        ((State.FAILED, State.QUEUED), "gap"),
        ((State.FAILED, State.UNKNOWN), "gap"),
    ],
)
async def test_every_road_to_an_official_counts(tmp_path: Path, roads: tuple[State, ...], state: str) -> None:
    """The duty room calls a village that was reached last: a fallback that arrived must show, and a doubt must not."""
    async with town(blank.sqlite(tmp_path)) as one:
        await one.officials(("张三", phone(1), FLOWER_1, "村支书"))
        store = Store(one.database, HandClock())
        await sent(one, store, alert(), *roads)
        [village] = (await covered(book_of(one, store), store, alert())).villages
        assert (village.code, village.state) == (FLOWER_1, state)


@pytest.mark.parametrize("kind", [Kind.CANCEL, Kind.CORRECTION])
async def test_an_end_has_no_gaps(tmp_path: Path, kind: Kind) -> None:
    """Nobody calls villages at night because an all-clear is unconfirmed."""
    async with town(blank.sqlite(tmp_path)) as one:
        await one.officials(("张三", phone(1), FLOWER_1, "村支书"))
        store = Store(one.database, HandClock())
        book = book_of(one, store)
        await sent(one, store, alert(), State.FAILED)
        end = replace(alert("end"), kind=kind)
        await sent(one, store, end, State.FAILED)
        assert [village.code for village in (await covered(book, store, alert())).gaps] == [FLOWER_1]
        found = await covered(book, store, end)
        assert (found.gaps, found.wanting) == ((), ())


async def test_a_new_loudspeaker_counts_at_once(tmp_path: Path) -> None:
    """A roster brought up to date in the middle of a night is what the next look shows; otherwise nothing is redone."""
    async with town(blank.sqlite(tmp_path)) as one:
        await one.officials(("张三", phone(1), FLOWER_1, "村支书"))
        store = Store(one.database, HandClock())
        book = book_of(one, store)
        await sent(one, store, alert(), State.SUBMITTED)
        first = await covered(book, store, alert())
        assert await covered(book, store, alert()) is first
        assert (await one.bring(Roster.DEVICES, ("pole-1", FLOWER_1, "k" * 16))).errors == ()
        assert await covered(book, store, alert()) is not first


async def test_a_loudspeaker_that_plays_twice_does_not_make_up_for_a_silent_one(tmp_path: Path) -> None:
    """A batch more, and the same device plays it again: the other end of the village has still heard nothing."""
    async with town(f"sqlite:///{tmp_path}/town.db") as one:
        names = ("pole-1", "pole-2", "pole-3", "pole-4")
        assert (await one.bring(Roster.DEVICES, *((name, FLOWER_1, "k" * 16) for name in names))).errors == ()
        store = Store(one.database, HandClock())
        devices = (await one.directory.devices([FLOWER_1]))[FLOWER_1]
        about = alert()
        batches = [
            replace(
                batch_of(about, size=4, number=number, slice_=0, channel="loudspeaker_ws"), persons=devices,
                group=Group.LOUDSPEAKERS, township=FLOWER, villages=((FLOWER_1, 4),),
            )
            for number in range(2)
        ]  # fmt: skip
        step = Step(1, Audience(AREA, Group.LOUDSPEAKERS, "loudspeaker_ws"), Notice.ISSUE, Lane.GREEN, NOW, UNTIL)
        plan = Plan(about.id, "green", (), AREA, (), (step,))
        await store.outbox.accept(replace(draft_of(about, *batches), plan=plan))
        for batch in batches:
            await store.ledger.commit([Report("loudspeaker_ws", "", State.PLAYED, NOW, "", batch.id, 0)])
        assert POLICY.played_share == 0.5
        [village] = (await covered(book_of(one, store), store, about)).villages
        assert village.state == "gap"
        await store.ledger.commit([Report("loudspeaker_ws", "", State.PLAYED, NOW, "", batches[1].id, 3)])
        [village] = (await covered(book_of(one, store), store, about)).villages
        assert village.state == "played"


async def test_many_warnings_in_force_share_one_look_at_roster_and_ledger(tmp_path: Path) -> None:
    """It is asked every few seconds of all that are in force: the tenth warning of a night must not slow the next."""
    async with town(blank.sqlite(tmp_path)) as one:
        await one.officials(("张三", phone(1), FLOWER_1, "村支书"))
        store = Store(one.database, HandClock())
        reads = 0
        read = one.database.read

        async def counted(operation: Any, patience_s: float = 10.0) -> Any:
            nonlocal reads
            reads += 1
            return await read(operation, patience_s)

        one.database.read = counted  # type: ignore[method-assign]
        needed = []
        for number in (1, 4):
            for at in range(number):
                await sent(one, store, alert(f"{number}-{at}"), State.SUBMITTED if at % 2 else State.FAILED)
            rows = [row for row in await store.outbox.alerts() if row.alert.identifier.startswith(f"{number}-")]
            book = book_of(one, store)
            found = await book.of_all(rows)
            reads = 0
            assert await book.of_all(rows) == found  # nothing has moved: nothing is folded anew
            needed.append(reads)
            assert found == [await book_of(one, store).of(row) for row in rows]
            assert len(found) == number
        assert needed[0] == needed[1]
        assert {coverage.villages[0].state for coverage in found} == {"sms_only", "silent"}
