"""What people may ask for: opting out and erasure, from the roster to the last frozen batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import blank
import pytest
from manual_clock import ManualClock
from test_pipeline import OFFICIALS, RESIDENTS, Desk, desk, ticking
from test_store import alert
from town import ABROAD, ABROAD_1, FLOWER, FLOWER_1, WATER_1, Town, audience, phone, town

from gateway.broker import LocalBroker
from gateway.directory.importer import How
from gateway.directory.right import Rights
from gateway.directory.table import Roster
from gateway.errors import Refused
from gateway.model import Alert, ClaimResult, Group, Kind, Lane, Level, Notice, Plan, Receipt, Record, State, Step
from gateway.planner import FRESH, Planner
from gateway.ports import Draft, Settled
from gateway.relay import Relay
from gateway.store import Store

COUNTY = ("411726",)


@pytest.fixture(params=["sqlite", "postgresql"])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Town]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    async with town(url) as one:
        yield one


def rights(here: Town) -> Rights:
    """The counter."""
    return Rights(here.database, here.vault, ManualClock())


async def actions(here: Town) -> list[tuple[str, str, str]]:
    """(actor, action, subject) of the chain."""
    return [
        (one.actor, one.action, one.subject)
        for _, one, _ in await Store(here.database, ManualClock()).audit.records(0, 99)
    ]


async def test_opting_out_is_by_number_recorded_and_taken_back(here: Town) -> None:
    """A call suffices; who wrote it down is known, and nobody's number stands in the chain."""
    await here.residents(("赵丽", phone(1), FLOWER_1), ("孙军", phone(1), FLOWER_1), ("周勇", phone(2), FLOWER_1))
    both = tuple(sorted((here.person("赵丽", 1), here.person("孙军", 1))))
    for _ in range(2):  # a second call changes nothing
        assert await rights(here).opt_out("+86 " + phone(1), "clerk", within=COUNTY) == (both, ())
    assert [one.person for _, one in await here.all(audience(Group.RESIDENTS))] == [here.person("周勇", 2)]
    await here.bring(Roster.RESIDENTS, ("赵丽", phone(1), FLOWER_1, "opted_in"))
    assert len(await here.all(audience(Group.RESIDENTS))) == 1
    await rights(here).opt_out(phone(1), "clerk", on=False, within=COUNTY)
    assert len(await here.all(audience(Group.RESIDENTS))) == 3
    assert await actions(here) == [
        ("clerk", action, f"person:{one}") for action in ("opt_out", "opt_in") for one in both
    ]  # fmt: skip


async def test_officials_cannot_opt_out_and_strangers_are_unknown(here: Town) -> None:
    """D24: an official's duty does not end by a call; and a neighbouring county's clerk finds nobody here."""
    await here.officials(("王强", phone(1), FLOWER_1, "monitor"))
    await here.residents(("王强", phone(1), FLOWER_1), ("赵丽", phone(1), FLOWER_1), ("孙军", phone(2), FLOWER_1))
    answered = await rights(here).opt_out(phone(1), "clerk", within=COUNTY)
    assert answered == ((here.person("赵丽", 1),), (here.person("王强", 1),))
    await here.officials(("李敏", phone(3), FLOWER_1, "monitor"))
    for number, within, code in (
        (3, COUNTY, "official"),
        (2, ("411702",), "unknown_number"),
        (9, COUNTY, "unknown_number"),
    ):
        with pytest.raises(Refused) as refused:
            await rights(here).opt_out(phone(number), "clerk", within=within)
        assert refused.value.code == code
        assert phone(number) not in refused.value.detail


async def test_who_opted_out_hears_red_but_not_blue(tmp_path: Path, clock: ManualClock) -> None:
    """D24, through the whole gateway: a blue bulk warning leaves out who opted out, a red one nobody."""
    async with desk(tmp_path, clock) as one:
        counter = Rights(one.core.store.database, one.core.vault, clock)
        (out,) = (await counter.opt_out(RESIDENTS[0][1], "clerk", within=COUNTY)).people
        assert one.people(RESIDENTS[0]) == {out}
        blue = one.alert([FLOWER])
        info = replace(blue.infos[0], urgency="Expected", severity="Minor")
        outcome = await one.issue(replace(blue, level=Level.BLUE, infos=(info,)))
        while outcome.result == "held" and await _waiting(one, outcome.alert):
            step = one.core.decisions.approve
            who = "reviewer" if (await one.standing(outcome.alert))[0] == "review" else "signer"
            await step(outcome.alert, one.who(who))
        await one.settled(outcome.alert, 2)
        assert set(one.told(outcome.alert)) == one.people(OFFICIALS[0], RESIDENTS[1])
        red = await one.issue(one.alert([FLOWER]))
        await one.settled(red.alert, 3)
        assert set(one.told(red.alert)) == one.people(OFFICIALS[0], *RESIDENTS[:2])
        for batch, _ in await one.core.store.ledger.batches(outcome.alert):
            text = (await one.core.composer.message(batch, range(len(batch)), again=False)).text
            assert "退订" not in text  # D24: no unsubscribe tail


async def _waiting(one: Desk, alert: str) -> bool:
    return (await one.standing(alert))[0] in ("review", "sign")


async def test_an_erased_person_is_not_sent_to_from_a_frozen_batch_and_the_chain_holds(
    tmp_path: Path, clock: ManualClock
) -> None:
    """D23: whatever was frozen before, nothing leaves for them any more; what was proven before still is."""
    async with desk(tmp_path, clock) as one:
        store = one.core.store
        told = await one.issue(one.alert([FLOWER]))
        await one.settled(told.alert, 3)
        await one.reply(RESIDENTS[0][1], "谢谢", "r-1")
        await store.outbox.halt("411726", True, Record(clock.now(), "test", "halt", "411726"))
        waits = await one.issue(one.alert([FLOWER]))
        await ticking(clock, lambda: _frozen(store, waits.alert, 3))
        (gone,) = one.people(RESIDENTS[0])
        erased = await _moving(clock, Rights(store.database, one.core.vault, clock), RESIDENTS[0][1])
        assert erased == (gone, 2)
        await store.outbox.halt("411726", False, Record(clock.now(), "test", "release", "411726"))
        await ticking(clock, lambda: len(one.told(waits.alert)) == 2)
        found = await one.settled(waits.alert, 3)
        assert found["residents", "skipped"] == 1
        assert gone not in one.told(waits.alert)
        clear = await one.issue(one.alert([FLOWER], Kind.CANCEL, (await _alert(store, told.alert))))
        await one.core.decisions.approve(clear.alert, one.who("signer"))
        await one.settled(clear.alert, 2)
        assert gone not in one.told(clear.alert)
        assert await store.audit.verify() == ((await store.audit.checkpoint()).seq, "")
        addresses = [
            address
            for alert in (told.alert, waits.alert)
            for batch, _ in await store.ledger.batches(alert)
            for person, address in zip(batch.persons, batch.addresses, strict=True)
            if person == gone
        ]
        assert addresses == ["", ""]
        rows = await store.database.read(lambda tx: tx.all("SELECT text, phone_hash FROM reply"))
        assert [(text, bytes(hashed)) for text, hashed in rows] == [("", b"")]


async def _frozen(store: Store, alert: str, recipients: int) -> bool:
    return sum(len(batch) for batch, _ in await store.ledger.batches(alert) if batch.slice) == recipients


async def _alert(store: Store, alert: str) -> Alert:
    row = await store.outbox.alert(alert)
    assert row is not None
    return row.alert


async def _moving(clock: ManualClock, counter: Rights, number: str) -> tuple[int, int]:
    """Erase while time moves on."""
    task = asyncio.create_task(counter.erase(number, "", "admin", within=COUNTY))
    await ticking(clock, task.done)
    return await task


async def test_nothing_of_an_erased_person_is_left_and_no_list_brings_them_back(here: Town) -> None:
    """A village list arrives again next month with the same row; the wish of the person stands above it."""
    row, other = ("赵丽", phone(1), FLOWER_1, "opted_in"), ("孙军", phone(2), FLOWER_1, "opted_in")
    await here.bring(Roster.RESIDENTS, row, other)
    person = here.person("赵丽", 1)
    assert await rights(here).erase(phone(1), "", "admin", within=COUNTY) == (person, 0)
    stored = await here.database.read(
        lambda tx: tx.one("SELECT secret, phone_hash, standing FROM person WHERE id = :p", p=person)
    )
    assert stored is not None
    assert (bytes(stored[0]), bytes(stored[1]), stored[2]) == (b"", b"", "erased")
    again = await here.bring(Roster.RESIDENTS, row, other, how=How(replace=True))
    assert (again.added, again.unchanged, again.removed) == (0, 1, 0)
    assert ["erased" in one.message for one in again.notes] == [True]
    assert len(await here.all(audience(Group.RESIDENTS))) == 1
    with pytest.raises(Refused, match="registered"):
        await rights(here).erase(phone(1), "", "admin", within=COUNTY)
    with pytest.raises(Refused, match="registered"):
        await rights(here).erase(phone(1), "赵丽", "admin", within=("411702",))
    # What was cut short is taken up again by number and name.
    assert await rights(here).erase(phone(1), "赵丽", "admin", within=COUNTY) == (person, 0)
    assert await rights(here).readmit(phone(1), "赵丽", "admin") == person
    assert (await here.bring(Roster.RESIDENTS, row)).added == 1
    assert [action for _, action, _ in await actions(here)] == ["erase", "readmit"]


async def test_of_a_shared_number_the_name_says_who_is_erased_and_officials_are_not(here: Town) -> None:
    """The wrong one of a household must not vanish, and a village not lose its official by a call."""
    await here.residents(("赵丽", phone(1), FLOWER_1), ("孙军", phone(1), FLOWER_1))
    await here.officials(("王强", phone(2), WATER_1, "monitor"))
    with pytest.raises(Refused) as refused:
        await rights(here).erase(phone(1), "", "admin", within=COUNTY)
    assert refused.value.code == "shared_number"
    assert (await rights(here).erase(phone(1), "孙军", "admin", within=COUNTY)).person == here.person("孙军", 1)
    assert await here.directory.people_at(phone(1)) == (here.person("赵丽", 1),)
    with pytest.raises(Refused, match="duty"):
        await rights(here).erase(phone(2), "", "admin", within=COUNTY)


async def test_who_has_left_every_list_is_still_held_and_can_be_erased(here: Town) -> None:
    """An official leaves the list first, as the refusal says, and is erased then; the neighbours erase nobody of us."""
    other = ("孙军", phone(2), FLOWER_1, "monitor")
    await here.officials(("王强", phone(1), WATER_1, "monitor"), other)
    await here.bring(Roster.OFFICIALS, other, replace=True)
    await here.residents(("周勇", phone(3), ABROAD_1), ("周勇", phone(3), FLOWER_1))
    await here.bring(
        Roster.RESIDENTS, ("赵丽", phone(4), FLOWER_1, "opted_in"), how=How(replace=True, within=COUNTY[0])
    )
    for number, within in ((1, (ABROAD,)), (3, COUNTY)):  # the second one lives there now
        with pytest.raises(Refused) as refused:
            await rights(here).erase(phone(number), "", "admin", within=within)
        assert refused.value.code == "unknown_number"
    assert (await rights(here).erase(phone(1), "", "admin", within=COUNTY)).person == here.person("王强", 1)
    assert await here.directory.ever_at(phone(1)) == ()


async def test_a_name_is_found_however_it_is_padded(here: Town) -> None:
    """The list writes 张　伟 with the space of the form; who is asked for at the counter is 张 伟, or 张伟."""
    await here.residents(("张　伟", phone(1), FLOWER_1), ("孙军", phone(1), FLOWER_1))
    assert (await rights(here).erase(phone(1), "张 伟", "admin", within=COUNTY)).person == here.person("张伟", 1)
    assert await rights(here).readmit(phone(1), " 张　伟", "admin") == here.person("张伟", 1)


async def test_a_slice_under_way_is_waited_for_and_a_retry_leaves_the_person_out(
    tmp_path: Path, clock: ManualClock
) -> None:
    """Whoever is in the middle of being sent to is erased a moment later; nothing is sent a second time."""
    async with desk(tmp_path, clock) as one:
        store = one.core.store
        await store.outbox.halt("411726", True, Record(clock.now(), "test", "halt", "411726"))
        waits = await one.issue(one.alert([FLOWER]))
        await ticking(clock, lambda: _frozen(store, waits.alert, 3))
        (batch,) = [batch for batch, _ in await store.ledger.batches(waits.alert, "residents")]
        at = batch.persons.index(next(iter(one.people(RESIDENTS[0]))))
        await store.database.write(lambda tx: tx.run("DELETE FROM halt"))
        claim = await store.outbox.claim(batch.id, 0, "w", 20)
        assert claim.result is ClaimResult.GRANTED
        counter = Rights(store.database, one.core.vault, clock)
        erasing = asyncio.create_task(counter.erase(RESIDENTS[0][1], "", "admin", within=COUNTY))
        await clock.sleeping()
        assert not erasing.done()
        receipts = [Receipt(State.QUEUED), Receipt(State.QUEUED)]
        settled = Settled(batch.id, 0, 1, "w", [0, 1], receipts, "noop", clock.now(), clock.now(), True)
        assert await store.ledger.settle(settled)
        await ticking(clock, erasing.done)
        await ticking(clock, lambda: len(one.told(waits.alert)) == 2)
        assert (await one.settled(waits.alert, 3))["residents", "skipped"] == 1
        assert batch.persons[at] not in one.told(waits.alert)


async def test_a_page_that_was_read_before_an_erasure_is_looked_at_once_it_is_written(
    tmp_path: Path, clock: ManualClock
) -> None:
    """A planner holds what it has read for moments; nobody erased meanwhile may be left in a batch for good."""
    async with town(blank.sqlite(tmp_path)) as here:
        await here.residents(("赵丽", phone(1), FLOWER_1), ("周勇", phone(2), FLOWER_1))
        store, gone = Store(here.database, clock), here.person("赵丽", 1)
        warning, planned = alert(), audience(Group.RESIDENTS)
        step = Step(1, planned, Notice.ISSUE, Lane.URGENT, clock.now(), clock.now() + timedelta(hours=1))
        plan = Plan(warning.id, "green", (), (), (), (step,))
        await store.outbox.accept(Draft(warning, "d", plan, (), {}, (), {}, clock.now()))
        planner = Planner(store, here.directory, Relay(LocalBroker(), store.outbox), {planned.channel: 50}, clock)
        (work,) = await store.outbox.work(1)
        planner._read_ahead(work, step, None)
        await planner._ahead[work.alert, work.step].reading
        erasing = asyncio.create_task(Rights(here.database, here.vault, clock).erase(phone(1), "", "x", within=COUNTY))
        await clock.sleeping()
        clock.advance(FRESH.total_seconds())  # the oldest page that is still written
        assert await planner.round()
        clock.advance(10)
        assert (await erasing).batches == 1
        ((batch, _),) = await store.ledger.batches(warning.id)
        assert dict(zip(batch.persons, batch.addresses, strict=True))[gone] == ""
