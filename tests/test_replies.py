"""What replies change, on both databases: who is at post, who is not, who needs help, and what a clerk has to read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import blank
import pytest
from test_store import HandClock, alert, batch_of, draft_of
from town import FLOWER, FLOWER_1, FLOWER_2, Town, phone, town

from gateway import metrics
from gateway.errors import Refused
from gateway.model import Alert, Change, Level, Notice, Receipt, Record, Reply, State, Status, Target, extension_of
from gateway.ports import Settled
from gateway.receipts import Receipts
from gateway.reply import Meaning
from gateway.store import Store, change
from gateway.store.erasure import forget_replies
from gateway.store.reply import Found

ALONE, TWO, HOME = 1, 2, 3  # numbers: one official's; two officials'; a resident's
DUTY = "person:clerk"


class Office:
    """Receipts over a real store and directory: 张三 alone, 李四 and 王五 at one number, 赵六 a resident."""

    def __init__(self, one: Town, store: Store, clock: HandClock) -> None:
        self.town, self.store, self.clock = one, store, clock
        self.receipts = Receipts(store, one.directory, clock)
        self.zhang, self.li, self.wang = one.person("张三", ALONE), one.person("李四", TWO), one.person("王五", TWO)
        self._sent = 0

    async def tell(self, about: Alert | None = None, *people: int) -> Alert:
        """Send a warning for one village to these officials; all, if none is named."""
        about = about or alert()
        persons = tuple(sorted(people or (self.zhang, self.li, self.wang)))
        batch = replace(
            batch_of(about, size=len(persons)), persons=persons, township=FLOWER,
            villages=((FLOWER_1, len(persons)),), notice=Notice.ISSUE, slice=9,
        )  # fmt: skip
        draft = draft_of(about, batch, digest=about.identifier)
        plan = replace(draft.plan, targets=(Target(FLOWER, (FLOWER_1,)),))
        await self.store.outbox.accept(replace(draft, plan=plan, now=self.clock.now()))
        await self.store.outbox.claim(batch.id, 0, "me", 20)
        places, receipts = list(range(len(persons))), [Receipt(State.SUBMITTED)] * len(persons)
        await self.store.ledger.settle(Settled(batch.id, 0, 1, "me", places, receipts, "noop", self.clock.now()))
        self.clock.advance(60)
        return about

    async def say(
        self, text: str, number: int = ALONE, reference: str = "", at: datetime | None = None, extension: str = ""
    ) -> str:
        """Let a text come in; return what became of it."""
        at = at or self.clock.now()
        self._sent += 1
        reply = Reply("noop", "noop", reference or f"r{self._sent}", "+86" + phone(number), text, at, extension)
        await self.receipts.commit("noop", [reply])
        rows = await self.store.database.read(
            lambda tx: tx.all("SELECT outcome FROM reply WHERE reference = :one", one=reply.reference)
        )
        return str(rows[0][0])

    async def confirmed(self, about: Alert) -> dict[int, datetime]:
        """Who confirmed, and when."""
        found = await self.store.ledger.confirmations(about.id)
        return {person: datetime.fromtimestamp(at / 1e6, self.clock.now().tzinfo) for person, _, _, at in found}

    async def owed(self) -> list[tuple[str, str]]:
        """What the duty room owes: (alert or reply, kind)."""
        found = await self.store.obligations.since(self.clock.now(), unanswered=True)
        return [(one.alert, one.kind) for one in found]

    async def changes(self) -> list[str]:
        """Kinds in the change feed, without the acceptance's own.

        PostgreSQL shows a change once every transaction before it has ended, anybody's: so up to a mark made now.
        """
        await self.store.database.write(lambda tx: change.note(tx, "mark", ""))
        found: list[Change] = []
        async with asyncio.timeout(30):
            while not found or found[-1].kind != "mark":
                found = await self.store.ledger.changes((0, 0), 1_000)
        return [one.kind for one in found if one.kind in ("confirmed", "away", "obligation")]

    async def waiting(self) -> list[Found]:
        """What a clerk has to settle."""
        return await self.store.replies.waiting(100)

    async def answered(self, about: str, kind: str, answer: str = "done") -> None:
        """The duty room has answered."""
        record = Record(self.clock.now(), DUTY, f"{kind}:{answer}", about)
        assert await self.store.obligations.answer(about, kind, answer, "", record)


@pytest.fixture(params=["sqlite", "postgresql"])
async def office(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Office]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    clock = HandClock()
    async with town(url) as one:
        await one.officials(
            ("张三", phone(ALONE), FLOWER_1, "村支书"),
            ("张三", phone(ALONE), FLOWER_2, "村支书"),
            ("李四", phone(TWO), FLOWER_1, "网格员"),
            ("王五", phone(TWO), FLOWER_1, "监测员"),
        )
        await one.residents(("赵六", phone(HOME), FLOWER_1))
        yield Office(one, Store(one.database, clock), clock)


async def test_one_confirms_exactly_what_was_told_before_it(office: Office) -> None:
    """Two live warnings are confirmed by one text; a later third is not; a second text changes nothing."""
    first, second = await office.tell(alert("a1")), await office.tell(alert("a2"))
    answered = office.clock.now()
    office.clock.advance(600)
    third = await office.tell(alert("a3"))
    assert await office.say("１。", at=answered) == "confirmed:2"
    assert await office.confirmed(first) == await office.confirmed(second) == {office.zhang: answered}
    assert await office.confirmed(third) == {}
    assert await office.say("收到", at=answered) == "confirmed:2"
    assert await office.changes() == ["confirmed"] * 2


async def test_a_reply_to_an_alerts_own_number_confirms_that_one_alone(office: Office) -> None:
    """A "1" to the rainstorm says nothing of the dam; digits that name no alert of theirs are an ordinary reply."""
    first, second = await office.tell(alert("a1")), await office.tell(alert("a2"))
    own = extension_of(first.id, 3)
    assert own != extension_of(second.id, 3)
    assert await office.say("1", extension=own) == "confirmed:1"
    assert office.zhang in await office.confirmed(first)
    assert await office.confirmed(second) == {}
    none = next(one for one in ("000", "001", "002") if one not in (own, extension_of(second.id, 3)))
    assert await office.say("1", extension=none) == "confirmed:2"
    assert office.zhang in await office.confirmed(second)


async def test_the_same_reply_again_changes_nothing_whatever_came_since(office: Office) -> None:
    """A carrier that repeats an old 1 with a new time must not confirm the warning of an hour later."""
    await office.tell(alert("a1"))
    assert await office.say("1", reference="same") == "confirmed:1"
    later = await office.tell(alert("a2"))
    assert await office.say("1", reference="same") == "confirmed:1"
    reply = Reply("noop", "noop", "twice", "+86" + phone(ALONE), "3 塌方", office.clock.now())
    await office.receipts.commit("noop", [reply, reply])
    await office.receipts.commit("noop", [reply])
    assert len(await office.store.replies.incidents(office.clock.now() - timedelta(days=1), 10)) == 1
    assert len(await office.confirmed(later)) == 1


async def test_a_reply_and_what_it_changes_are_one_transaction(office: Office) -> None:
    """Written without its confirmation, the carrier's repeat would be known and the confirmation lost for ever."""
    about = await office.tell()
    await office.store.database.write(lambda tx: tx.run("ALTER TABLE confirmation RENAME TO gone"))
    with pytest.raises(Exception, match="confirmation"):
        await office.say("1", reference="r")
    await office.store.database.write(lambda tx: tx.run("ALTER TABLE gone RENAME TO confirmation"))
    assert await office.say("1", reference="r") == "confirmed:1"
    assert set(await office.confirmed(about)) == {office.zhang}


async def test_who_is_away_confirms_nothing_and_the_duty_room_is_rung_at_once(office: Office) -> None:
    """The village has an official who has heard and nobody at post: its deputy must be called now."""
    about = await office.tell()
    assert await office.say("2") == "away:1"
    assert await office.confirmed(about) == {}
    assert [(one.person, one.villages) for one in await office.store.replies.away(about.id)] == [
        (office.zhang, (FLOWER_1,))
    ]
    assert await office.owed() == [(about.id, "deputy")]
    assert await office.store.timers.take(10) == [("obligation", f"{about.id} deputy")]
    assert await office.changes() == ["away", "obligation"]


async def test_a_further_official_who_is_away_rings_again(office: Office) -> None:
    """The first deputy was called; the second village's was not."""
    about = await office.tell()
    await office.say("2")
    await office.answered(about.id, "deputy")
    assert await office.say("2") == "away:1", "the same person again"
    assert await office.owed() == []
    await office.say("2 外出", TWO)
    (waits,) = await office.waiting()
    await office.receipts.settle(waits.id, Meaning.AWAY, [office.li], DUTY)
    assert await office.owed() == [(about.id, "deputy")]


async def test_who_comes_back_to_the_post_is_away_no_more(office: Office) -> None:
    """Two replies to one warning: the later one says where the person is; nothing that was proven is taken back."""
    about = await office.tell()
    await office.say("2")
    office.clock.advance(600)
    assert await office.say("1") == "confirmed:1"
    assert set(await office.confirmed(about)) == {office.zhang}
    assert await office.store.replies.away(about.id) == []
    assert await office.say("2") == "away:1"
    assert set(await office.confirmed(about)) == {office.zhang}


async def test_nobody_calls_a_deputy_once_the_warning_is_over(office: Office) -> None:
    """A bell that rings for what is over is a bell nobody hears the next time."""
    about = await office.tell()
    await office.say("2")
    await office.store.outbox.stop(about.id, "recalled", Record(office.clock.now(), "issuer", "recall", about.id))
    assert await office.owed() == []
    assert [await office.say(text) for text in ("1", "2")] == ["no_live_alert"] * 2
    assert await office.confirmed(about) == {}


async def test_who_needs_support_is_at_post_and_an_incident_rings(office: Office) -> None:
    """D15 and D16: the official is there, and needs more than a tick on the list."""
    about = await office.tell()
    assert await office.say("3 桥头塌方，王大爷被困") == "incident:1"
    (one,) = await office.store.replies.incidents(office.clock.now() - timedelta(hours=1), 10)
    assert (one.people, one.places, one.alerts) == ((office.zhang,), (FLOWER_1, FLOWER_2), (about.id,))
    assert set(await office.confirmed(about)) == {office.zhang}
    assert await office.owed() == [(one.id, "incident")]
    assert ("obligation", f"{one.id} incident") in await office.store.timers.take(10)


async def test_a_report_that_may_be_from_elsewhere_rings_and_confirms_nothing(office: Office) -> None:
    """Words like 3人被困 may mean three people: danger is worth a false alarm, a village is not worth a false tick."""
    about = await office.tell()
    assert await office.say("3人被困") == "incident:1"
    assert await office.confirmed(about) == {}
    assert [kind for _, kind in await office.owed()] == ["incident"]


async def test_danger_is_reported_without_any_warning(office: Office) -> None:
    """The monitor sees the crack before anybody has warned of it; and also after the warning is over."""
    assert await office.say("3 后山裂缝") == "incident:0"
    assert [kind for _, kind in await office.owed()] == ["incident"]


async def test_the_answer_to_a_drill_confirms_the_drill_and_no_real_warning(office: Office) -> None:
    """Nor does danger wait because it was reported in answer to a drill."""
    real = await office.tell(replace(alert("real"), level=Level.YELLOW))  # beside orange and red there is no drill
    drill = await office.tell(replace(alert("drill"), status=Status.EXERCISE))
    assert await office.say("1") == "confirmed:1"
    assert await office.say("2") == "away:1"
    assert await office.say("3 真的塌了") == "incident:1"
    assert set(await office.confirmed(drill)) == {office.zhang}
    assert await office.confirmed(real) == {}
    assert await office.store.replies.away(real.id) == []


async def test_no_words_and_no_number_of_a_reply_stand_anywhere_in_clear(office: Office) -> None:
    """What was written in need is read by who helps, and found in no log, chain, feed or stolen file."""
    await office.tell()
    await office.say("3 桥头塌方，王大爷被困", reference="r1")
    await office.say("找我儿子 100", reference="r2")
    held = await office.store.database.read(
        lambda tx: [tx.all(f"SELECT * FROM {table}") for table in ("reply", "audit", "change", "obligation", "timer")]
    )
    everything = repr(held)
    assert not [one for one in ("桥头", "王大爷", "儿子", phone(ALONE)) if one in everything]
    for one in await office.store.replies.incidents(office.clock.now() - timedelta(hours=1), 10):
        opened = json.loads(office.town.vault.open(one.secret or b""))
        assert opened == {"number": "+86" + phone(ALONE), "text": "3 桥头塌方，王大爷被困"}


async def test_two_who_share_a_telephone_are_two_confirmations(office: Office) -> None:
    """Nobody knows whose 1 it was until a clerk has asked; then each counts, at the time of the reply."""
    about = await office.tell()
    said = office.clock.now()
    assert await office.say("1", TWO) == "shared_phone"
    assert await office.confirmed(about) == {}
    (waits,) = await office.waiting()
    assert (waits.people, waits.places, waits.meaning) == (
        tuple(sorted((office.li, office.wang))), (FLOWER_1,), "heard",
    )  # fmt: skip
    office.clock.advance(1_800)
    await office.receipts.settle(waits.id, Meaning.HEARD, [office.li, office.wang], DUTY)
    assert await office.confirmed(about) == {office.li: said, office.wang: said}
    assert await office.waiting() == []
    with pytest.raises(Refused, match="settled this reply already"):
        await office.receipts.settle(waits.id, Meaning.AWAY, [office.li], DUTY)


async def test_danger_from_a_shared_telephone_rings_before_anybody_knows_whose_it_is(office: Office) -> None:
    """The place is known, and that is what help needs."""
    about = await office.tell()
    assert await office.say("3 进水", TWO) == "shared_phone"
    assert [kind for _, kind in await office.owed()] == ["incident"]
    assert await office.confirmed(about) == {}
    (waits,) = await office.waiting()
    await office.receipts.settle(waits.id, Meaning.SUPPORT, [office.wang], DUTY)
    assert set(await office.confirmed(about)) == {office.wang}
    assert len(await office.owed()) == 1, "it rings once"


async def test_a_clerk_s_word_counts_only_for_who_was_told(office: Office) -> None:
    """A slip of the finger must not confirm a warning this person never received."""
    about = await office.tell(None, office.li)
    await office.say("不在", TWO)
    (waits,) = await office.waiting()
    assert waits.outcome == "for_a_person"
    with pytest.raises(Refused, match="told of nothing"):
        await office.receipts.settle(waits.id, Meaning.HEARD, [office.li, office.wang], DUTY)
    assert (await office.confirmed(about), len(await office.waiting())) == ({}, 1)
    with pytest.raises(Refused, match="no such reply"):
        await office.receipts.settle("f" * 20, Meaning.HEARD, [office.li], DUTY)


async def test_a_clerk_settles_what_is_over_with_its_true_time(office: Office) -> None:
    """The proof of the night is written in the morning, too."""
    about = await office.tell()
    said = office.clock.now()
    await office.say("1", TWO)
    office.clock.advance(3_600)
    await office.store.outbox.stop(about.id, "expired", Record(office.clock.now(), "gateway", "expire", about.id))
    (waits,) = await office.waiting()
    await office.receipts.settle(waits.id, Meaning.HEARD, [office.li], DUTY)
    assert await office.confirmed(about) == {office.li: said}


async def test_what_is_not_plain_waits_for_a_clerk(office: Office) -> None:
    """Read by nobody, "12" from a village in the dark would be silence."""
    about = await office.tell()
    assert await office.say("12") == "for_a_person"
    assert await office.say("1", 77) == "unknown_number"
    assert await office.say("TD") == "official"
    assert {one.outcome for one in await office.waiting()} == {"official", "unknown_number", "for_a_person"}
    for one in await office.waiting():
        await office.receipts.settle(one.id, Meaning.OTHER, [], DUTY)
    assert (await office.waiting(), await office.confirmed(about), await office.owed()) == ([], {}, [])


async def test_a_resident_opts_out_and_an_official_does_not(office: Office) -> None:
    """D24: TD ends service messages, blue and yellow; nobody is taken off a list of officials by a text."""
    assert await office.say("TD", HOME) == "opted_out:1"
    assert await office.say("退订", ALONE) == "official"
    rows = await office.store.database.read(lambda tx: tx.all("SELECT id, opted_out FROM person ORDER BY id"))
    assert {one for one, out in rows if out} == {office.town.person("赵六", HOME)}
    assert await office.say("1", HOME) == "not_an_official"
    assert await office.say("3 进水了", HOME) == "not_an_official"
    assert {one.meaning for one in await office.waiting()} == {"support", "opt_out"}


async def test_a_repeated_td_does_not_undo_a_later_wish(office: Office) -> None:
    """Who opted in again at the counter is not opted out by a carrier's repeat."""
    await office.say("TD", HOME, "same")
    await office.store.database.write(lambda tx: tx.run("UPDATE person SET opted_out = 0"))
    await office.say("TD", HOME, "same")
    rows = await office.store.database.read(lambda tx: tx.all("SELECT id FROM person WHERE opted_out = 1"))
    assert rows == []


async def test_erasure_leaves_nothing_to_read(office: Office) -> None:
    """Who is erased has no words here, and no clerk is left with an empty line."""
    await office.say("你好", HOME)
    known = office.town.vault.phone_hash("+86" + phone(HOME))
    await office.store.database.write(lambda tx: forget_replies(tx, known))
    assert await office.waiting() == []
    rows = await office.store.database.read(lambda tx: tx.all("SELECT text, secret, phone_hash FROM reply"))
    assert [(text, secret, bytes(hash_)) for text, secret, hash_ in rows] == [("", None, b"")]


async def test_hostile_replies_are_kept_and_break_nothing(office: Office) -> None:
    """A carrier that cannot deliver one text repeats it for ever, and with it everything behind it."""
    for number, text in enumerate(("", "\0", "\ud800", "3" * 10_000, "1\0", "'; DROP TABLE reply", "\U0001f600")):
        assert await office.say(text, reference=f"h{number}") == "for_a_person"
    senders = ("", "10086", "+1", "\ud800", "x" * 500)
    odd = [Reply("noop", "noop", f"o{at}", one, "1", office.clock.now()) for at, one in enumerate(senders)]
    await office.receipts.commit("noop", odd)
    assert len(await office.waiting()) == 12


async def test_replies_are_counted_by_what_they_mean_once_each(office: Office) -> None:
    """A night with many "other" tells that people were asked something they could not answer."""

    def counted() -> dict[str, float]:
        name = "mingluo_replies_total"
        return {one: metrics.REGISTRY.get_sample_value(name, {"meaning": one}) or 0.0 for one in metrics.MEANINGS}

    before = counted()
    for reference, text in (("a", "1"), ("b", "2"), ("c", "3"), ("d", "TD"), ("e", "?"), ("a", "1")):
        await office.say(text, reference=reference)
    assert {one: number - before[one] for one, number in counted().items()} == dict.fromkeys(Meaning, 1.0)
