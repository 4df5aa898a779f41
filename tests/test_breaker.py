"""The breaker of a channel: when a carrier is left alone, when it is asked again, and where its batches go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import blank
import pytest
from test_planner import fallbacks, plan_through, planner_of, told
from test_store import HandClock, alert

from gateway.breaker import FAILURES, LONGEST_S, PROBE_S, REFUSED_S, SHORTEST_S, Breaker
from gateway.channel import BUG
from gateway.database import Database
from gateway.errors import PACED, Ambiguous, ChannelError, Permanent, Temporary, Throttled, Unusable
from gateway.metrics import REGISTRY
from gateway.model import Receipt, State
from gateway.ports import Outage
from gateway.store import Store
from gateway.store.outage import MOVE_AFTER, RENEWED
from gateway.transaction import micros

SENT = Receipt(State.SUBMITTED)


def failed(error: ChannelError) -> Receipt:
    return Receipt(State.FAILED, error.code, error=error)


AWAY = failed(Temporary("unreachable"))


@pytest.fixture
def hand() -> HandClock:
    return HandClock()


@pytest.fixture
def breaker(hand: HandClock) -> Breaker:
    return Breaker("noop", hand)


def shut(breaker: Breaker) -> None:
    for _ in range(FAILURES):
        breaker.note([AWAY, AWAY])


@pytest.mark.parametrize("error", [Temporary("unreachable"), Ambiguous("no_answer")])
def test_a_carrier_that_serves_nobody_is_left_alone(breaker: Breaker, hand: HandClock, error: ChannelError) -> None:
    """Ten thousand villagers' attempts must not be used up on a carrier that is down."""
    for _ in range(FAILURES):
        assert breaker.shut_until() is None
        breaker.note([failed(error)] * 2)
    assert breaker.shut_until() == hand.now() + timedelta(seconds=SHORTEST_S)
    assert REGISTRY.get_sample_value("mingluo_channel_down", {"channel": "noop"}) == 1


@pytest.mark.parametrize(
    "answer", [SENT, failed(Permanent("no_such_number")), failed(Throttled(1)), failed(Temporary(BUG))]
)
def test_one_served_recipient_a_wrong_number_patience_and_our_own_bug_shut_nothing(
    breaker: Breaker, answer: Receipt
) -> None:
    """A list of dead numbers, or a fault of ours, must not silence a carrier that works."""
    for _ in range(FAILURES + 1):
        breaker.note([answer] if answer.code == BUG else [AWAY, answer])
    assert breaker.shut_until() is None


def test_a_carrier_that_only_asks_for_patience_is_left_after_a_minute(breaker: Breaker, hand: HandClock) -> None:
    """Flow control for ever would keep a village waiting until its warning has expired, and no fallback would know."""
    patience = failed(Throttled(5, "flow_control"))
    for _ in range(6):
        breaker.note([patience])
        assert breaker.shut_until() is None
        hand.advance(10)
    breaker.note([patience])
    assert breaker.outage is not None
    assert breaker.outage.code == "flow_control"
    for _ in range(3):  # it is no better for being asked
        hand.advance(LONGEST_S)
        assert breaker.shut_until() is None
        breaker.note([patience])
        assert breaker.shut_until() is not None
    hand.advance(LONGEST_S)
    assert breaker.shut_until() is None
    breaker.note([SENT, patience])
    assert breaker.outage is None


@pytest.mark.parametrize("between", [SENT, failed(Throttled(1, PACED)), None])
def test_patience_asked_for_now_and_then_shuts_nothing(
    breaker: Breaker, hand: HandClock, between: Receipt | None
) -> None:
    """A carrier that serves in between, our own rate, and a request of yesterday are no outage."""
    for _ in range(20):
        if between is SENT:
            breaker.note([failed(Throttled(5, "flow_control"))])
        if between is not None:
            breaker.note([between])
        else:
            breaker.note([failed(Throttled(5, "flow_control"))])
            hand.advance(3600)
        hand.advance(10)
    assert breaker.outage is None


def test_one_probe_at_a_time_finds_out_whether_it_is_back(breaker: Breaker, hand: HandClock) -> None:
    """Only one slice's people are risked while nobody knows; the first good answer lets all of them go."""
    shut(breaker)
    hand.advance(SHORTEST_S)
    assert breaker.shut_until() is None
    assert breaker.shut_until() == hand.now() + timedelta(seconds=PROBE_S)
    breaker.untried()  # its slice had been settled meanwhile
    assert breaker.shut_until() is None
    breaker.note([SENT])
    assert breaker.shut_until() is None is breaker.shut_until()
    assert REGISTRY.get_sample_value("mingluo_channel_down", {"channel": "noop"}) == 0


def test_pauses_grow_with_the_outage_up_to_a_bound(breaker: Breaker, hand: HandClock) -> None:
    """A carrier that is away for an hour is asked twice a minute, not ten times a second."""
    shut(breaker)
    pauses = []
    for _ in range(8):
        until = breaker.shut_until()
        assert until is not None
        pauses.append((until - hand.now()).total_seconds())
        hand.advance(pauses[-1])
        assert breaker.shut_until() is None
        breaker.note([AWAY])
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (SHORTEST_S, LONGEST_S)


def test_a_refused_account_shuts_at_once_and_pages_somebody(breaker: Breaker, hand: HandClock) -> None:
    """One wrong password must not fail a county within seconds."""
    before = REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": "account_unusable"}) or 0
    breaker.note([failed(Unusable("20003"))])
    assert breaker.shut_until() == hand.now() + timedelta(seconds=REFUSED_S)
    assert REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": "account_unusable"}) == before + 1


def test_others_are_told_when_an_outage_begins_and_ends(breaker: Breaker) -> None:
    """The planner moves batches by what the workers say."""
    assert not breaker.news()
    shut(breaker)
    assert breaker.news()
    assert not breaker.news()
    breaker.note([SENT])
    assert breaker.news()
    assert breaker.outage is None


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, hand: HandClock) -> AsyncIterator[Store]:
    url = blank.sqlite(tmp_path)
    if request.param == "postgresql":
        url = request.getfixturevalue("database_url")
    database = Database(url)
    await database.open()
    yield Store(database, hand)
    await database.close()


async def down(store: Store, hand: HandClock) -> None:
    """A worker has said that the carrier is down, and says so again after the time a batch waits for it."""
    began = hand.now()
    hand.advance(MOVE_AFTER.total_seconds() + 1)
    until = hand.now() + timedelta(seconds=SHORTEST_S)
    await store.outbox.note_outage("noop", Outage("noop", began, until, "unreachable"))


async def test_what_waits_for_a_carrier_that_is_down_moves_to_the_fallback(store: Store, hand: HandClock) -> None:
    """A village hears by the second road within seconds, not after the first one's deadline; and only once."""
    draft, [batch] = fallbacks(alert(), (1, 2))
    await store.outbox.accept(draft)
    held = await store.outbox.claim(batch.id, 0, "worker", 60)  # two of four are under way
    assert held.pending == (0, 1)
    await down(store, hand)
    await plan_through(planner_of(store, (), hand))
    assert sorted(await told(store, draft.alert, step=2)) == list(batch.persons[2:])
    assert (await store.outbox.claim(batch.id, 1, "other", 60)).result == "settled"  # the first road is closed to them
    counts = await store.ledger.counts(draft.alert.id)
    assert sum(number for (_, _, state), number in counts.items() if state == "skipped") == 2


async def test_what_a_dead_worker_may_have_sent_moves_as_unknown(store: Store, hand: HandClock) -> None:
    """Its people are in doubt, and there is another road for them; nothing waits for a carrier that may not return."""
    draft, [batch] = fallbacks(alert(), (1, 2))
    await store.outbox.accept(draft)
    await store.outbox.claim(batch.id, 0, "dead", 1)
    await down(store, hand)
    await plan_through(planner_of(store, (), hand))
    assert sorted(await told(store, draft.alert, step=2)) == list(batch.persons)
    counts = await store.ledger.counts(draft.alert.id)
    assert counts["noop", "officials", "unknown"] == counts["noop", "officials", "skipped"] == 2


async def test_nothing_moves_while_another_worker_still_gets_through(store: Store, hand: HandClock) -> None:
    """One machine without a network must not divert everybody's texts."""
    draft, _ = fallbacks(alert(), (1, 2))
    await store.outbox.accept(draft)
    await down(store, hand)
    await store.database.write(lambda tx: tx.run("UPDATE batch SET submitted_at = :at", at=micros(hand.now())))
    assert await store.outbox.give_up(draft.alert.id, 1) == 0


async def test_an_outage_nobody_renews_counts_for_nothing(store: Store, hand: HandClock) -> None:
    """What a dead worker last believed must not close a channel for ever."""
    await down(store, hand)
    assert [one.channel for one in await store.outbox.outages()] == ["noop"]
    hand.advance(SHORTEST_S + RENEWED.total_seconds())
    assert await store.outbox.outages() == []


async def test_a_stopped_alert_moves_nowhere(store: Store, hand: HandClock) -> None:
    """What was recalled is settled as recalled, and no second road is opened for it."""
    draft, _ = fallbacks(alert(), (1, 2))
    await store.outbox.accept(draft)
    await down(store, hand)
    await store.database.write(lambda tx: tx.run("UPDATE alert SET standing = 'stopped'"))
    assert await store.outbox.give_up(draft.alert.id, 1) == 0
