"""One person's history and the fold of late reports, on both databases.

A villager who asks a year later why a warning came, or did not, gets an answer that is whole and true: under every
place they ever had, by every channel, with what the carrier said last, however late it said so.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import blank
import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from test_store import NOW, HandClock, alert, batch_of, draft_of

from gateway import migrations
from gateway.database import Database
from gateway.errors import Temporary
from gateway.model import Alert, Batch, Group, Kind, Level, Notice, Receipt, Record, Reply, Report, State, Status
from gateway.ports import Settled
from gateway.store import Store
from gateway.store.codec import pack_outcome, receipt_at
from gateway.store.history import Past
from gateway.store.reply import Effect, Received

TONGSHAN, JIALOU = "411726204", "411726209"
HERE, THERE = (TONGSHAN, "411726204201"), (JIALOU, "411726209205")
POST = (TONGSHAN, "")


@pytest.fixture
def hand() -> HandClock:
    return HandClock()


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, hand: HandClock) -> AsyncIterator[Store]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    database = Database(url)
    await database.open()
    yield Store(database, hand)
    await database.close()


def seated(one: Alert, number: int, place: tuple[str, str], persons: Sequence[int], **changes: object) -> Batch:
    """A batch of these persons under one place."""
    batch = batch_of(one, size=len(persons), slice_=2, number=number)
    whole = {"township": place[0], "persons": tuple(persons), "villages": ((place[1], len(persons)),)} | changes
    return replace(batch, **whole)  # type: ignore[arg-type]  # fields by name


async def accepted(store: Store, one: Alert, at: datetime, *batches: Batch) -> None:
    draft = replace(draft_of(one, *batches, digest=one.identifier), now=at)
    assert (await store.outbox.accept(draft)).result == "accepted"


async def sent(store: Store, batch: Batch, receipts: Sequence[Receipt], at: datetime, slice_: int = 0) -> None:
    first = slice_ * batch.slice
    owner = f"{batch.id}/{slice_}/{at}"
    attempt = (await store.outbox.claim(batch.id, slice_, owner, 20)).attempt
    positions = range(first, first + len(receipts))
    assert await store.ledger.settle(Settled(batch.id, slice_, attempt, owner, positions, receipts, "noop", at))


def lines(past: Past) -> list[tuple[str, str, str]]:
    return [(told.about.event, told.channel, told.state.name) for told in past.told]


async def test_a_history_tells_what_came_when_by_which_code_and_why(store: Store, hand: HandClock) -> None:
    """Submitted, retried, delivered late: each receipt stands there, and the state is the last truth of them."""
    one = alert()
    batch = seated(one, 0, HERE, (100, 101))
    await accepted(store, one, NOW, batch)
    await sent(store, batch, [Receipt(State.QUEUED, "busy", error=Temporary("busy")), Receipt(State.SUBMITTED)], NOW)
    hand.advance(60)
    owner, again = "again", hand.now()
    claim = await store.outbox.claim(batch.id, 0, owner, 20)
    settled = Settled(
        batch.id, 0, claim.attempt, owner, claim.pending, [Receipt(State.SUBMITTED, "ok", "r")], "a", again
    )
    assert await store.ledger.settle(settled)
    late = again + timedelta(hours=2)
    await store.ledger.commit(
        [Report("a", "r", State.DELIVERED, late, "DELIVRD"), Report("a", "r", State.FAILED, late)]
    )
    (told,) = (await store.ledger.history(100, [HERE])).told
    assert (told.alert, told.step, told.channel, told.group, told.notice) == (one.id, 1, "noop", "officials", "issue")
    assert (told.township, told.village, told.frozen_at) == (*HERE, NOW)
    assert (told.state, told.code, told.at) == (State.DELIVERED, "DELIVRD", late)
    assert [(heard.state, heard.code, heard.at, heard.attempt) for heard in told.receipts] == [
        (State.QUEUED, "busy", NOW, 1), (State.SUBMITTED, "ok", again, 2), (State.FAILED, "", late, 2),
        (State.DELIVERED, "DELIVRD", late, 2),
    ]  # fmt: skip
    about = told.about
    assert (about.event, about.level, about.kind, about.status, about.sent) == (
        "暴雨", Level.RED, Kind.ALERT, Status.ACTUAL, NOW,
    )  # fmt: skip


async def test_who_moved_and_had_several_roles_is_told_all_of_it(store: Store, hand: HandClock) -> None:
    """A past village, a post at the township, another channel: one person, one answer, newest first."""
    first, second, third = alert("a1"), alert("a2"), alert("a3")
    await accepted(store, first, NOW, seated(first, 0, THERE, (7, 8), group=Group.RESIDENTS))
    later = NOW + timedelta(days=40)
    both = [
        seated(second, 0, POST, (8, 9)),
        seated(second, 1, HERE, (6, 8), channel="sms_http", group=Group.RESIDENTS, notice=Notice.ALL_CLEAR),
    ]
    await accepted(store, second, later, *both)
    await accepted(store, third, later, seated(third, 0, HERE, (6, 9)), seated(third, 1, THERE, (8,), slice=0,
                   group=Group.LOUDSPEAKERS, channel="loudspeaker_ws"))  # fmt: skip
    past = await store.ledger.history(8, [HERE, THERE, POST, POST])
    assert [(told.alert, told.channel, told.group, told.village) for told in past.told] == [
        (second.id, "sms_http", "residents", HERE[1]), (second.id, "noop", "officials", ""),
        (first.id, "noop", "residents", THERE[1]),
    ], "neither the neighbours' batch nor a loudspeaker with the same id"  # fmt: skip
    assert len((await store.ledger.history(8, [THERE])).told) == 1, "a county sees what happened at its own places"
    assert (await store.ledger.history(8, [])).told == ()


async def test_every_history_is_what_all_batches_say(store: Store) -> None:
    """Ranges of keys leave nobody out and take nobody in, in villages that begin, end and split batches."""
    dice = random.Random(20260720)
    places = [(township, f"{township}{number}") for township in (TONGSHAN, JIALOU) for number in range(201, 206)]
    wanted: Counter[tuple[int, str, int]] = Counter()
    homes = {person: dice.choice(places) for person in range(1, 120)}
    for number in range(6):
        one = alert(f"a{number}")
        people = sorted((home, person) for person, home in homes.items() if dice.random() < 0.7)
        batches = list[Batch]()
        for township in (TONGSHAN, JIALOU):
            here = [(home[1], person) for home, person in people if home[0] == township]
            while here:
                size = dice.randint(1, 20)
                page, here = here[:size], here[size:]
                runs = Counter(village for village, _ in page)
                persons = tuple(person for _, person in page)
                batch = seated(one, len(batches), (township, ""), persons, villages=tuple(runs.items()))
                batches.append(batch)
                wanted.update((person, batch.id, position) for position, person in enumerate(persons))
        await accepted(store, one, NOW + timedelta(minutes=number), *batches)
        for person in dice.sample(sorted(homes), 30):  # people move between two warnings
            homes[person] = dice.choice(places)
    found: Counter[tuple[int, str, int]] = Counter()
    for person in homes:
        past = await store.ledger.history(person, places)
        found.update((person, told.batch, told.position) for told in past.told)
    assert found == wanted


async def test_what_was_never_sent_says_so_with_its_time(store: Store, hand: HandClock) -> None:
    """Superseded is an answer too: nothing came, because something newer did."""
    one = alert()
    batch = seated(one, 0, HERE, (100, 101))
    await accepted(store, one, NOW, batch)
    (waiting,) = (await store.ledger.history(100, [HERE])).told
    assert (waiting.state, waiting.at, waiting.receipts) == (State.QUEUED, None, ())
    await store.outbox.stop(one.id, "superseded", Record(NOW, "a", "stop", one.id))
    hand.advance(5)
    await store.outbox.claim(batch.id, 0, "me", 20)
    (told,) = (await store.ledger.history(100, [HERE])).told
    assert (told.state, told.code, told.at) == (State.SUPERSEDED, "", hand.now())


async def test_confirmations_and_replies_stand_beside_the_messages(store: Store) -> None:
    """The answer "1" and what became of it; the replies of a number nobody has any more are told to nobody."""
    one, at = alert(), NOW + timedelta(minutes=3)
    await accepted(store, one, NOW, seated(one, 0, HERE, (100, 101)))
    await store.ledger.confirm(one.id, 100, [HERE[1]], "phone", Record(at, "c", "confirm", one.id))
    reply, effect = Reply("sms", "a", "r1", "+8610000000100", "1", at), Effect("reply:sms", at)
    await store.replies.keep([Received("0" * 20, reply, b"hash", b"", "heard", "confirmed:1", (100,), (), effect)], at)
    past = await store.ledger.history(100, [HERE], b"hash")
    assert past.answered == ((one.id, (HERE[1],), "phone", at),)
    assert past.replied == (("sms", "confirmed:1", at),)
    assert (await store.ledger.history(100, [HERE], b"")).replied == ()
    assert (await store.ledger.history(101, [HERE])).answered == ()


async def test_a_long_history_is_read_stretch_by_stretch(store: Store) -> None:
    """Nothing falls between two pages, not even what was frozen in the same instant."""
    for number in range(7):
        one = alert(f"a{number}")
        at = NOW + timedelta(minutes=number // 3)
        await accepted(store, one, at, seated(one, 0, HERE, (100,)))
        await store.ledger.confirm(one.id, 100, [], "phone", Record(at, "c", "confirm", one.id))
    seen, answered, until = [], [], None
    while True:
        past = await store.ledger.history(100, [HERE], until=until, limit=2)
        seen += [told.alert for told in past.told]
        answered += [one.alert for one in past.answered]
        if past.earlier is None:
            break
        assert past.earlier != until
        until = past.earlier
    assert len(seen) == len(set(seen)) == 7
    assert sorted(answered) == sorted(seen)
    recent = await store.ledger.history(100, [HERE], since=NOW + timedelta(minutes=2))
    assert [told.frozen_at for told in recent.told] == [NOW + timedelta(minutes=2)]


@given(st.sets(st.integers(0, 40), min_size=1), st.data())
def test_a_packed_outcome_gives_back_each_receipt(chosen: set[int], data: st.DataObject) -> None:
    """Two positions with a hole between them must not be read as a run: somebody's answer would be another's."""
    positions = sorted(chosen)
    codes = data.draw(st.lists(st.sampled_from("ab"), min_size=len(positions), max_size=len(positions)))
    packed = pack_outcome(positions, [Receipt(State.DELIVERED, code) for code in codes])
    found = {position: receipt_at(packed, position) for position in range(-1, 42)}
    wanted = {position: (State.DELIVERED, code) for position, code in zip(positions, codes, strict=True)}
    assert {position: receipt for position, receipt in found.items() if receipt} == wanted


# --- the fold -------------------------------------------------------------------------------------

REPORTED = st.tuples(st.integers(0, 3), st.sampled_from(State), st.booleans())
"""(position, state, by place rather than by reference)."""


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables, to be copied."""
    path = tmp_path_factory.mktemp("fold") / "empty.db"

    async def make() -> None:
        database = Database(f"sqlite:///{path}")
        await database.open()
        await database.close()

    asyncio.run(make())
    return path


@settings(max_examples=40)
@given(commits=st.lists(st.lists(REPORTED, max_size=8), max_size=5), settle_at=st.integers(0, 5))
def test_reports_fold_to_the_highest_state_in_whatever_order_they_come(
    empty: Path, commits: list[list[tuple[int, State, bool]]], settle_at: int
) -> None:
    """Carriers report twice, late, before their own answer and in any order: the state is the highest ever said."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(empty, Path(folder) / "store.db")
        states, counts, unmatched = asyncio.run(folded(Path(folder) / "store.db", commits, settle_at))
    wanted = [State.SUBMITTED] * 4
    for position, state, _ in (one for commit in commits for one in commit):
        wanted[position] = max(wanted[position], state)
    assert list(states) == wanted
    assert counts == Counter(state.name.lower() for state in wanted)
    assert unmatched == 0


async def folded(
    path: Path, commits: list[list[tuple[int, State, bool]]], settle_at: int
) -> tuple[bytes, dict[str, int], int]:
    """Commit the reports, settle the submit before one of the commits, and return what the ledger says."""
    database = Database(f"sqlite:///{path}")
    await database.open()
    store, one = Store(database, HandClock()), alert()
    batch = batch_of(one, slice_=4)
    await accepted(store, one, NOW, batch)
    for number in range(max(len(commits), settle_at) + 1):
        if number == settle_at:
            await sent(store, batch, [Receipt(State.SUBMITTED, reference=f"r{at}") for at in range(4)], NOW)
        if number < len(commits):
            await store.ledger.commit([
                Report("noop", "", state, NOW, "c", batch.id, position) if placed
                else Report("noop", f"r{position}", state, NOW, "c")
                for position, state, placed in commits[number]
            ])  # fmt: skip
    [(_, states)] = await store.ledger.batches(one.id)
    counts = await store.ledger.counts(one.id)
    unmatched = await store.ledger.unmatched()
    await database.close()
    return states, {state: number for (_, _, state), number in counts.items()}, unmatched


async def test_a_commit_of_thousands_is_whole_on_either_side_of_its_parts(store: Store) -> None:
    """Ten thousand reports are several transactions; all of them are in, whichever batch they belong to."""
    one = alert()
    size = 700
    batches = [
        replace(seated(one, number, HERE, range(number * size, (number + 1) * size)), slice=size,
                addresses=("+861",) * size) for number in range(4)
    ]  # fmt: skip
    await accepted(store, one, NOW, *batches)
    reports = []
    for batch in batches:
        references = [f"{batch.id}/{at}" for at in range(size)]
        await sent(store, batch, [Receipt(State.SUBMITTED, "", name) for name in references], NOW)
        reports += [Report("noop", name, State.DELIVERED, NOW, "ok") for name in references]
    random.Random(1).shuffle(reports)
    await store.ledger.commit([*reports, *reports[:1500], Report("noop", "stray", State.DELIVERED, NOW)])
    assert await store.ledger.counts(one.id) == {("noop", "officials", "delivered"): 4 * size}
    assert await store.ledger.unmatched() == 1
    (told,) = (await store.ledger.history(3 * size, [HERE])).told
    assert (told.position, told.state, told.code) == (0, State.DELIVERED, "ok")


async def test_a_report_of_no_recipient_is_left_out(store: Store) -> None:
    """A batch that is not there, a position beyond its end: neither stops the reports beside it."""
    one = alert()
    batch = batch_of(one)
    await accepted(store, one, NOW, batch)
    where = [(batch.id, 4), (batch.id, -1), ("nowhere.1.0", 0), (batch.id, 3)]
    await store.ledger.commit([Report("noop", "", State.DELIVERED, NOW, "", *place) for place in where])
    counts = await store.ledger.counts(one.id)
    assert counts == {("noop", "officials", "delivered"): 1, ("noop", "officials", "queued"): 3}


async def test_reports_of_bulk_submits_from_before_an_upgrade_still_match(tmp_path: Path, hand: HandClock) -> None:
    """A carrier reports for two days: whoever was sent to just before the update is not left as silent."""
    path, one = tmp_path / "old.db", alert()
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0019")
        insert = text(
            "INSERT INTO provider_ref (account, reference, number, batch, position, attempt)"
            " VALUES (:account, :reference, '', :batch, :position, 1)"
        )
        old = [("sms_cmpp", "one/abcd00010000ffff"), ("sms_smgp", "one/0003961126/aZ-_0000000"), ("noop", "one/x/y")]
        for position, (account, reference) in enumerate(old):
            row = {"account": account, "reference": reference, "batch": f"{one.id}.1.0", "position": position}
            connection.execute(insert, row)
        connection.commit()
    engine.dispose()
    database = Database(f"sqlite:///{path}")
    await database.open()
    store, batch = Store(database, hand), seated(one, 0, HERE, (100, 101, 102))
    await accepted(store, one, NOW, batch)
    new = [("sms_cmpp", "one/abcd00010000ff#ff"), ("sms_smgp", "one/0003961126#aZ-_0000000"), ("noop", "one/x/y")]
    await store.ledger.commit([Report(account, reference, State.DELIVERED, NOW) for account, reference in new])
    rows = await database.read(lambda tx: tx.all("SELECT states FROM batch WHERE id = :id", id=batch.id))
    assert bytes(rows[0][0]) == bytes([State.DELIVERED] * 3)
    assert await store.ledger.unmatched() == 0
    await database.close()


async def test_an_upgraded_database_keeps_its_facts_and_what_still_waits(tmp_path: Path, hand: HandClock) -> None:
    """What carriers reported before the update stays proven, and a submit that comes after it finds its report."""
    path, one = tmp_path / "old.db", alert()
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        fact = "INSERT INTO fact VALUES (:batch, 1, 1, 50, 'before', 7)"
        connection.execute(text(fact), {"batch": f"{one.id}.1.0"})
        report = "INSERT INTO provider_ref VALUES ('noop', 'r0', '', NULL, NULL, NULL, 50, 'early', 8)"
        connection.execute(text(report))
        connection.commit()
    engine.dispose()
    database = Database(f"sqlite:///{path}")
    await database.open()
    store, batch = Store(database, hand), seated(one, 0, HERE, (100, 101))
    await accepted(store, one, NOW, batch)
    assert await store.ledger.unmatched() == 1
    await sent(store, batch, [Receipt(State.SUBMITTED, reference="r0"), Receipt(State.SUBMITTED)], NOW)
    assert await store.ledger.unmatched() == 0
    found = [(await store.ledger.history(person, [HERE])).told[0].receipts for person in (100, 101)]
    assert [[heard.code for heard in receipts if heard.code] for receipts in found] == [["early"], ["before"]]
    await database.close()
