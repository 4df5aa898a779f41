"""Who is told where an official is away: the deputy of the roster, once, through the ordinary outbox, or nobody."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import blank
import pytest
from manual_clock import ManualClock
from test_pipeline import OFFICIALS, desk
from test_replies import DUTY, Office
from test_right import rights
from test_store import HandClock, alert
from town import FLOWER, FLOWER_1, FLOWER_2, WATER_1, Town, phone, table, town

from gateway.carrier import Carriers
from gateway.directory.export import export
from gateway.directory.importer import How, Imported, Importer
from gateway.directory.table import Roster
from gateway.model import Alert, Batch, Lane, Receipt, Record, State, Status, VillageState
from gateway.ports import Settled
from gateway.receipts import Receipts
from gateway.reply import Meaning
from gateway.report import status
from gateway.road import Roads
from gateway.store import Store
from gateway.store.reply import DEPUTY_ANSWERS, Received

HEADER = ("name", "phone", "village", "role", "deputy")
SUN = 4
"""The number of 孙七, an official of another township: the deputy of 张三."""


async def bring(one: Town, *rows: tuple[str, ...], header: tuple[str, ...] = HEADER) -> Imported:
    """Import officials with their deputies."""
    return await one.importer.read(table(Roster.OFFICIALS, *rows, header=header), Roster.OFFICIALS, How())


@pytest.fixture(params=["sqlite", "postgresql"])
async def office(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Office]:
    """张三 with the deputy 孙七; 李四 and 王五 at one number, each with a deputy of their own."""
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    clock = HandClock()
    async with town(url) as one:
        await one.officials(
            ("张三", phone(1), FLOWER_1, "村支书"), ("张三", phone(1), FLOWER_2, "村支书"),
            ("李四", phone(2), FLOWER_1, "网格员"), ("王五", phone(2), FLOWER_1, "监测员"),
            ("孙七", phone(SUN), WATER_1, "村支书"),
        )  # fmt: skip
        assert (await bring(one, ("张三", phone(1), FLOWER_1, "村支书", phone(SUN)))).errors == ()
        yield Office(one, Store(one.database, clock), clock)


async def messages(office: Office, about: Alert) -> list[tuple[Batch, bytes]]:
    """What was written to deputies, with its states."""
    found = await office.store.ledger.batches(about.id)
    return [(batch, states) for batch, states in found if "deputy" in batch.id]


async def ready(office: Office) -> list[str]:
    """What the sweeper finds to be sent a second later, whoever has died meanwhile."""
    office.clock.advance(2)
    return [one.batch for one in await office.store.outbox.ready([Lane.GREEN], ["noop"], 1.0, 100)]


async def send(office: Office, batch: Batch, state: State = State.SUBMITTED) -> None:
    """Send a message as a worker does."""
    assert (await office.store.outbox.claim(batch.id, 0, "me", 20)).pending == (0,)
    settled = Settled(batch.id, 0, 1, "me", [0], [Receipt(state)], "noop", office.clock.now())
    await office.store.ledger.settle(settled)
    office.clock.advance(60)


async def test_the_deputy_is_told_once_by_the_same_road_and_answers_for_the_village(office: Office) -> None:
    """A village whose official is in town must get somebody to its post without a clerk looking up who."""
    about = await office.tell()
    sun = office.town.person("孙七", SUN)
    assert await office.say("2") == "away:1"
    ((batch, _),) = await messages(office, about)
    assert (batch.persons, batch.addresses, batch.villages) == ((sun,), ("+86" + phone(SUN),), ((FLOWER_1, 1),))
    assert (batch.channel, batch.lane, batch.township, batch.slice) == ("noop", Lane.GREEN, FLOWER, 9)
    assert await ready(office) == [batch.id], "a process that died right after the commit loses nothing"
    await send(office, batch)
    assert await office.say("2") == "away:1"
    assert len(await messages(office, about)) == 1
    ((away),) = await office.store.replies.away(about.id)
    assert (away.person, away.deputy) == (office.zhang, sun)
    assert await office.say("1", SUN) == "confirmed:1"
    found = await office.store.ledger.confirmations(about.id)
    assert [(person, villages) for person, villages, *_ in found] == [(sun, (FLOWER_1,))]
    assert (await office.store.replies.away(about.id), await office.owed()) == ([], [])


async def test_the_duty_room_is_rung_once_the_deputy_has_not_answered(office: Office) -> None:
    """A message to a deputy is no proof that anybody is at post."""
    about = await office.tell()
    now = office.clock.now()
    await office.say("2")
    (owed,) = await office.store.obligations.since(now, unanswered=True)
    assert (owed.kind, owed.due) == ("deputy", now + DEPUTY_ANSWERS)
    assert await office.store.timers.take(10) == []
    office.clock.advance(DEPUTY_ANSWERS.seconds)
    assert await office.store.timers.take(10) == [("obligation", f"{about.id} deputy")]


async def test_one_without_a_deputy_rings_at_once_though_another_was_told(office: Office) -> None:
    """Two officials of one warning share one ring; the second village must not wait for the first one's deputy."""
    about = await office.tell()
    await office.say("2")
    await office.say("2", 2)
    (waits,) = await office.waiting()
    await office.receipts.settle(waits.id, Meaning.AWAY, [office.li], DUTY)
    assert await office.store.timers.take(10) == [("obligation", f"{about.id} deputy")]
    ((batch, _),) = await messages(office, about)
    await send(office, batch)
    await office.say("1", SUN)
    assert await office.owed() == [(about.id, "deputy")], "nobody has been called for the other one"


@pytest.mark.parametrize("deputy", ["", phone(9), phone(2), phone(5)])
async def test_nobody_is_told_who_is_unknown_shared_or_told_already(office: Office, deputy: str) -> None:
    """Nobody, a number of no official, one of two people, and an official of the area: the duty room calls, at once."""
    await office.town.officials(("周八", phone(5), FLOWER_1, "网格员"))
    await bring(office.town, ("张三", phone(1), FLOWER_1, "村支书", deputy))
    about = await office.tell()
    await office.say("2")
    assert await messages(office, about) == []
    assert await office.store.timers.take(10) == [("obligation", f"{about.id} deputy")]


async def test_a_deputy_of_two_is_told_once(office: Office) -> None:
    """Rule 6: one message of a warning to a person; for the second village the duty room calls."""
    await office.town.officials(("周八", phone(5), FLOWER_1, "网格员"))
    await bring(office.town, ("周八", phone(5), FLOWER_1, "网格员", phone(SUN)))
    about = await office.tell(None, office.zhang, office.town.person("周八", 5))
    await office.say("2")
    await office.say("2", 5)
    assert len(await messages(office, about)) == 1
    assert await office.store.timers.take(10) == [("obligation", f"{about.id} deputy")]


async def test_nobody_is_told_of_what_is_over_or_a_drill(office: Office) -> None:
    """A warning recalled before the answer tells nobody; one recalled after it, nobody any more."""
    about = await office.tell()
    await office.say("2")
    ((batch, _),) = await messages(office, about)
    await office.store.outbox.stop(about.id, "recalled", Record(office.clock.now(), "a", "stop", about.id))
    assert (await office.store.outbox.claim(batch.id, 0, "me", 20)).pending == ()
    drill = await office.tell(replace(alert("drill"), status=Status.EXERCISE))
    await office.say("2")
    assert await messages(office, drill) == []
    assert len(await office.store.replies.away(drill.id)) == 1


async def test_a_recall_between_the_reading_and_the_writing_of_a_reply_tells_nobody(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message was made from a warning in force; the transaction that writes it sees that it is over."""
    about = await office.tell()
    keep = office.store.replies.keep

    async def recalled(kept: Sequence[Received], now: datetime) -> list[bool]:
        await office.store.outbox.stop(about.id, "recalled", Record(office.clock.now(), "a", "stop", about.id))
        return await keep(kept, now)

    monkeypatch.setattr(office.store.replies, "keep", recalled)
    await office.say("2")
    assert await messages(office, about) == []


async def test_a_halted_county_or_a_passed_deadline_keeps_it_back(office: Office) -> None:
    """A deputy's message is an ordinary one: what stops the others stops it."""
    about = await office.tell()
    await office.say("2")
    ((batch, _),) = await messages(office, about)
    record = Record(office.clock.now(), "a", "halt", "411726")
    await office.store.outbox.halt("411726", True, record)
    assert (await office.store.outbox.claim(batch.id, 0, "me", 20)).pending == ()
    await office.store.outbox.halt("411726", False, record)
    office.clock.advance(timedelta(hours=4).seconds)
    assert (await office.store.outbox.claim(batch.id, 0, "me", 20)).pending == ()


async def test_it_is_published_at_once_and_goes_by_the_road_of_the_deputys_carrier(office: Office) -> None:
    """The official has one carrier and the deputy another; the process that took the reply publishes it itself."""
    offered: list[Batch] = []
    roads = Roads({"noop": ("a", "b")}, {"a": ("mobile",), "b": ("unicom",)}, Carriers({}))
    await bring(office.town, ("孙七", phone(SUN), WATER_1, "村支书", "联通"),
                header=("name", "phone", "village", "role", "carrier"))  # fmt: skip
    office.receipts = Receipts(office.store, office.town.directory, office.clock, None, roads, offered.extend)
    about = await office.tell()
    await office.say("2")
    assert [(one.id, one.channel) for one in offered] == [(f"{about.id}.1.deputy-{office.zhang}", "b")]
    await office.say("2")
    assert len(offered) == 1


async def test_an_erased_deputy_leaves_no_number_anywhere(office: Office) -> None:
    """The message stands under another village than the deputy's own; it is found and blanked all the same."""
    about = await office.tell()
    await office.say("2")
    sun = office.town.person("孙七", SUN)
    people, places = office.town.directory, office.store.ledger
    township_and_village, phone_hash = await people.ever_of(sun)
    past = await places.history(sun, township_and_village, phone_hash)
    assert [one.alert for one in past.told] == [about.id]
    await office.store.database.write(lambda tx: tx.run("UPDATE place SET until = 1 WHERE person = :one", one=sun))
    assert await rights(office.town).erase(phone(SUN), "", "admin", within=("411726",)) == (sun, 1)
    ((batch, states),) = await messages(office, about)
    assert (batch.addresses, list(states)) == (("",), [State.SKIPPED])
    rows = await office.store.database.read(lambda tx: tx.all("SELECT id FROM person WHERE deputy IS NOT NULL"))
    assert rows == []


async def test_lists_change_keep_and_give_back_a_deputy(office: Office) -> None:
    """Changed is counted; a table without the column changes nothing; an empty cell ends it; no number is in clear."""
    row = ("张三", phone(1), FLOWER_1, "村支书")
    one = office.town
    assert (await bring(one, (*row, phone(SUN)))).unchanged == 1
    assert (await bring(one, row, header=HEADER[:4])).unchanged == 1
    out = io.StringIO()
    await export(one.database, one.vault, Roster.OFFICIALS, "411726", out)
    lines = [line.split(",") for line in out.getvalue().splitlines()]
    at = lines[0].index("副手手机")
    assert [line[at] for line in lines[1:] if "张三" in line] == [phone(SUN)] * 2
    again = await one.importer.read(io.BytesIO(out.getvalue().encode()), Roster.OFFICIALS, How())
    assert (again.errors, again.changed, again.added) == ((), 0, 0)
    stored = await one.database.read(lambda tx: tx.all("SELECT * FROM person"))
    assert phone(SUN) not in str(stored)
    assert (await bring(one, (*row, ""))).changed == 1
    assert await one.directory.deputy_of(one.person("张三", 1)) is None


@pytest.mark.parametrize("cell", [phone(1), "1.39E+10", "8", "13900000000", "孙七"])
async def test_a_deputy_that_cannot_be_one_is_an_error_of_the_row(office: Office, cell: str) -> None:
    """Found on the flood night, it is found too late; the message never quotes the number."""
    (error,) = (await bring(office.town, ("张三", phone(1), FLOWER_1, "村支书", cell))).errors
    assert (error.column, cell in error.message) == ("deputy", False)


async def test_the_deputy_hears_the_officials_words_at_once_and_the_end_of_the_warning(
    tmp_path: Path, clock: ManualClock
) -> None:
    """Through the whole gateway: the same text leaves, and who was sent to a village is told it is over."""
    async with desk(tmp_path, clock, residents=()) as one:
        away, deputy = OFFICIALS[0], OFFICIALS[1]
        header = ("name", "phone", "village", "role", "deputy")
        rows = table(Roster.OFFICIALS, (*away[:4], deputy[1]), header=header)
        importer = Importer(one.core.store.database, one.core.vault, one.core.regions, clock)
        assert (await importer.read(rows, Roster.OFFICIALS)).failed == 0
        issued = await one.issue(one.alert([FLOWER]))
        await one.settled(issued.alert, 1)
        assert await one.reply(away[1], "2", "r-1") == "away:1"
        await one.settled(issued.alert, 2)
        assert set(one.told(issued.alert)) == one.people(away, deputy)
        texts = {
            (await one.core.composer.message(batch, [0], again=False)).text
            for batch, _ in await one.core.store.ledger.batches(issued.alert)
        }
        assert len(texts) == 1
        row = await one.core.store.outbox.alert(issued.alert)
        assert row is not None
        assert [place.code for place in (await status(one.core, row)).deputised] == [away[2]]
        assert await one.reply(deputy[1], "1", "r-2") == "confirmed:1"
        told = await status(one.core, row)
        assert (told.villages[VillageState.CONFIRMED], told.away, told.deputised) == (1, [], [])
        cancel = await one.core.decisions.cancel(issued.alert, one.who("issuer"), "")
        await one.core.decisions.approve(cancel.alert, one.who("signer"))
        await one.settled(cancel.alert, 2)
        assert set(one.told(cancel.alert)) == one.people(away, deputy)
