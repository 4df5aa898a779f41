"""The carriers' channels in what they share, against each protocol's simulated carrier and judged by its log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from carrier_desk import BULK, PORT, PROTOCOLS, Desk, eventually, numbers, references, states
from links import TEXT, sample_message, sample_slice

from gateway.errors import Permanent, Unusable
from gateway.model import Lane, Level, Report, State, extension_of
from gateway.simulate.carrier import revise

LONG = "山洪" * 90  # three parts


in_bulk = pytest.mark.parametrize("desk", BULK, indirect=True)


@pytest.fixture(params=PROTOCOLS)
async def desk(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, request.param)
    yield desk
    await desk.stop()


def faulty(desk: Desk, **changes: Any) -> None:
    """Change what the carrier is like."""
    desk.bench.carrier.scenario = revise(desk.bench.carrier.scenario, changes)


# -- submits, and reports that find them -------------------------------------------------------------------------------


@in_bulk
async def test_a_slice_leaves_as_one_bulk_and_every_report_finds_its_position(desk: Desk) -> None:
    """A report that finds nobody leaves a warned household on the list of gaps."""
    await desk.carrier(shuffled=True, duplicated=0.3)
    await desk.open()
    people = numbers(99)
    receipts = await desk.send(people)
    assert states(receipts) == {"SUBMITTED": 99}
    assert len(set(references(receipts))) == 99
    await desk.matched(receipts)
    assert desk.texts() == {(number, TEXT): 1 for number in people}
    assert len(desk.bench.entries("submit")) == 1


@pytest.mark.parametrize("how", [{"reports": "before"}, {"report_to": "other"}, {"accepted": True}, {"late": 1.0}])
async def test_reports_are_matched_however_they_come(desk: Desk, how: dict[str, Any]) -> None:
    """Before the answer, late, over another connection, after an intermediate one: it is the same delivery."""
    await desk.carrier(connections=2, late_s=0.05, **how)
    channel = await desk.open(desk.account(connections=2))
    receipts = await desk.send(numbers(7))
    if desk.protocol != "sgip":
        await desk.connected(channel, 2)
    await desk.matched(receipts)
    assert not [one for one in desk.link.reports if one.state is not State.DELIVERED]


async def test_texts_that_differ_leave_one_by_one_and_each_reaches_its_own(desk: Desk) -> None:
    """A village that is told another one's shelter goes the wrong way."""
    await desk.carrier()
    await desk.open()
    people = numbers(40)
    own = [f"{TEXT}{number % 20}" for number in range(40)]
    receipts = await desk.send(people, texts=own)
    assert states(receipts) == {"SUBMITTED": 40}
    await desk.matched(receipts)
    assert desk.texts() == dict.fromkeys(zip(people, own, strict=True), 1)
    assert len(desk.bench.entries("submit")) == (20 if desk.protocol in BULK else 40)  # two have the same


async def test_an_account_without_bulk_submits_number_by_number(desk: Desk) -> None:
    """Some contracts allow one number a submit."""
    await desk.carrier()
    await desk.open(desk.account(bulk=False))
    receipts = await desk.send(numbers(30))
    await desk.matched(receipts)
    assert [len(entry["numbers"]) for entry in desk.bench.entries("submit")] == [1] * 30


@in_bulk
async def test_two_people_with_one_number_are_not_in_one_submit(desk: Desk) -> None:
    """Two persons sharing a phone are two confirmations, and a carrier may refuse a bulk that repeats a number."""
    await desk.carrier()
    await desk.open()
    receipts = await desk.send([*numbers(2), *numbers(1)])
    await desk.matched(receipts)
    assert len(set(references(receipts))) == 3
    assert [len(entry["numbers"]) for entry in desk.bench.entries("submit")] == [2, 1]


async def test_a_long_text_keeps_its_parts_together_and_all_are_reported(desk: Desk) -> None:
    """Half a warning is none; a person has it when all parts are there."""
    await desk.carrier(connections=3)
    await desk.open(desk.account(connections=3))
    people = numbers(50)
    receipts = await desk.send(people, text=LONG, lane=Lane.BULK)
    assert states(receipts) == {"SUBMITTED": 50}
    assert {len(receipt.more) for receipt in receipts} == {2}
    await desk.matched(receipts)
    assert desk.texts() == {(number, LONG): 1 for number in people}
    by_text: dict[int, set[int]] = {}
    for entry in desk.bench.entries("submit"):
        by_text.setdefault(entry["part"][0], set()).add(entry["connection"])
    assert all(len(connections) == 1 for connections in by_text.values())


async def test_references_of_long_texts_do_not_repeat_while_they_are_under_way(desk: Desk) -> None:
    """A phone would put the parts of two warnings together."""
    await desk.carrier(connections=2)
    await desk.open(desk.account(connections=2))
    for _ in range(40):
        await desk.send(numbers(1), text=LONG)
    assert max(desk.parts().values()) == 1
    assert len({entry["part"][0] for entry in desk.bench.entries("submit")}) == 40


# -- refusals ----------------------------------------------------------------------------------------------------------


@in_bulk
async def test_one_bad_number_costs_the_others_nothing_and_few_submits(desk: Desk) -> None:
    """One mistyped number in the roster must not leave 98 people unwarned."""
    people = numbers(99)
    await desk.carrier(bad=frozenset({people[61]}))
    await desk.open()
    receipts = await desk.send(people)
    assert states(receipts) == {"SUBMITTED": 98, "Elsewhere": 1}
    assert isinstance(receipts[61].error, Permanent)
    assert desk.texts() == {(number, TEXT): 1 for number in people if number != people[61]}
    assert len(desk.bench.entries("submit")) + len(desk.bench.entries("refused")) <= 15
    await desk.matched(receipts)


@in_bulk
async def test_bad_numbers_of_a_long_text_are_found_as_well(desk: Desk) -> None:
    """All parts are refused for one number; the others get all parts, once."""
    people = numbers(20)
    await desk.carrier(bad=frozenset({people[0], people[19]}))
    await desk.open()
    receipts = await desk.send(people, text=LONG)
    assert states(receipts) == {"SUBMITTED": 18, "Elsewhere": 2}
    assert desk.texts() == {(number, LONG): 1 for number in people[1:19]}


@in_bulk
async def test_a_refusal_without_a_reason_is_split_only_when_it_repeats(desk: Desk) -> None:
    """A gateway's own code may mean one number, or everybody: 99 submits for each slice would finish off a sick one."""
    await desk.carrier(result=150)
    if desk.protocol in ("cmpp20", "sgip"):
        faulty(desk, result=32 if desk.protocol == "sgip" else 150)
    await desk.open()
    first = await desk.send(numbers(64))
    assert states(first) == {"Temporary": 64}
    assert len(desk.bench.entries("refused")) == 1
    assert states(await desk.send(numbers(64), attempt=2)) == {"Temporary": 64}
    assert len(desk.bench.entries("refused")) < 40


async def test_what_is_no_mobile_number_never_reaches_the_carrier(desk: Desk) -> None:
    """It would lose the bulk it stands in."""
    await desk.carrier()
    await desk.open()
    receipts = await desk.send(["+86" + numbers(1)[0], "03961234567", "", "1000000000x", *numbers(1, 5)])
    assert states(receipts) == {"SUBMITTED": 2, "Permanent": 3}
    assert not desk.bench.entries("refused")


async def test_nothing_leaves_after_it_expired(desk: Desk) -> None:
    """Stale news must not overtake new, not even by the time it waited for a connection."""
    await desk.carrier()
    channel = await desk.open()
    past = sample_message(expires=datetime.now(UTC) - timedelta(seconds=1))
    receipts = await channel.send(sample_slice(numbers(3)), past, desk.link)
    assert states(receipts) == {"EXPIRED": 3}
    assert not desk.bench.entries("submit")


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["drop", "cut", "garbage", "huge"])
async def test_a_connection_that_breaks_makes_exactly_its_window_doubtful(desk: Desk, fault: str) -> None:
    """Who may have been warned is asked about; who was not is sent to, once."""
    await desk.carrier(faults={fault: 1.0}, reports="never")
    channel = await desk.open(desk.account(window=1, bulk=False))
    receipts = await desk.send(numbers(5))
    assert states(receipts) == {"Ambiguous": 1, "Temporary": 4}
    assert channel.lines().broken == {"garbage" if fault in ("garbage", "huge") else "connection_lost": 1}
    assert [number for number, _ in desk.texts()] == numbers(1)
    faulty(desk, faults={})
    await asyncio.sleep(0)
    assert states(await desk.send(numbers(4, 1))) == {"SUBMITTED": 4}


async def test_no_answer_is_doubtful_after_the_answer_time_and_nothing_is_sent_again(desk: Desk) -> None:
    """The specifications' own repeat would be a second SMS; rule 2 decides, not the protocol."""
    await desk.carrier(faults={"unanswered": 1.0}, reports="never")
    await desk.open(desk.account(answer_s=0.1))
    receipts = await desk.send(numbers(3))
    assert states(receipts) == {"Ambiguous": 3}
    await asyncio.sleep(0.3)
    assert desk.texts() == {(number, TEXT): 1 for number in numbers(3)}


async def test_an_answer_that_comes_too_late_still_names_its_recipient(desk: Desk) -> None:
    """Its report will come under that reference: unknown becomes delivered."""
    await desk.carrier(answer_after_s=0.3, reports="never")
    await desk.open(desk.account(answer_s=0.1, heartbeat_s=0.05))
    receipts = await desk.send(numbers(2))
    assert states(receipts) == {"Ambiguous": 2}
    if not all(receipt.reference for receipt in receipts):
        await desk.link.until(lambda: len(desk.link.reports) == 2)
        assert [(one.position, one.state, bool(one.reference)) for one in desk.link.reports] == [
            (0, State.SUBMITTED, True),
            (1, State.SUBMITTED, True),
        ]


async def test_flow_control_slows_down_and_loses_nobody(desk: Desk) -> None:
    """A carrier that is asked more slowly serves everybody."""
    await desk.carrier(faults={"throttle": 0.3})
    await desk.open(desk.account(bulk=False))
    receipts = await desk.send(numbers(60))
    assert states(receipts) == {"SUBMITTED": 60}
    assert desk.texts() == {(number, TEXT): 1 for number in numbers(60)}


async def test_flow_control_for_ever_is_throttled_not_failed(desk: Desk) -> None:
    """It counts as no attempt: the batch waits, and nobody is given up."""
    await desk.carrier(faults={"throttle": 1.0})
    channel = await desk.open(desk.account(answer_s=20.0))
    vars(channel)["answer_s"] = 22.5  # leaves half a second to get through
    receipts = await desk.send(numbers(10))
    assert states(receipts) == {"Throttled": 10}
    assert not desk.texts()


async def test_what_waits_for_patience_is_taken_back_in_time_and_does_not_leave_later(desk: Desk) -> None:
    """Its batch is tried again from the store: what would leave here besides would be a second SMS."""
    await desk.carrier(faults={"throttle": 1.0})
    channel = await desk.open(desk.account(answer_s=20.0))
    vars(channel)["answer_s"] = 22.5  # leaves half a second to get through
    account = channel.accounts[0]
    sending = asyncio.create_task(desk.send(numbers(10)))
    await eventually(account.waits)
    account.health.paused_until += 3600
    async with asyncio.timeout(5):
        assert states(await sending) == {"Throttled": 10}
    faulty(desk, faults={})
    account.health.paused_until = 0.0
    account.pump()
    assert states(await desk.send(numbers(1, 90))) == {"SUBMITTED": 1}
    assert desk.texts() == {(numbers(1, 90)[0], TEXT): 1}


async def test_a_carrier_that_stops_answering_is_left_and_found_again(desk: Desk) -> None:
    """A line that is only half dead looks alive to TCP for a quarter of an hour."""
    await desk.carrier()
    channel = await desk.open(desk.account(answer_s=0.1, heartbeat_s=0.1))
    await desk.send(numbers(1))
    faulty(desk, silent=True)
    assert states(await desk.send(numbers(1, 1))) == {"Ambiguous": 1}
    await eventually(lambda: not channel.accounts[0].sessions)
    faulty(desk, silent=False)
    await eventually(channel.up)
    assert states(await desk.send(numbers(1, 2))) == {"SUBMITTED": 1}


async def test_a_carrier_that_went_away_fails_fast_and_is_used_when_it_is_back(desk: Desk) -> None:
    """While it is away its people are served by other roads; when it is back, by it."""
    await desk.carrier()
    channel = await desk.open()
    await desk.send(numbers(1))
    await desk.bench.carrier.stop()
    await asyncio.sleep(0.05)
    vars(channel)["answer_s"] = 22.1
    receipts = await desk.send(numbers(3, 1))
    assert states(receipts) == {"Temporary": 3}
    assert not channel.up()
    await desk.bench.carrier.start(desk.bench.port)
    await eventually(channel.up)
    assert states(await desk.send(numbers(3, 1))) == {"SUBMITTED": 3}


async def test_a_carrier_that_logs_us_out_is_logged_in_to_again(desk: Desk) -> None:
    """What it had taken before is not in doubt."""
    await desk.carrier(faults={"logout": 1.0})
    channel = await desk.open()
    assert states(await desk.send(numbers(3))) == {"SUBMITTED": 3}
    await desk.bench.until("closed")
    faulty(desk, faults={})
    await eventually(channel.up)
    receipts = await desk.send(numbers(3, 3))
    assert states(receipts) == {"SUBMITTED": 3}
    await desk.matched(receipts)


async def test_a_refused_login_is_a_matter_for_a_person(desk: Desk) -> None:
    """A wrong secret is not mended by trying again."""
    await desk.carrier()
    channel = await desk.open(desk.account(secret="wrong"))
    receipts = await desk.send(numbers(2))
    assert [type(receipt.error) for receipt in receipts] == [Unusable] * 2
    assert not channel.up()
    assert "wrong" not in repr(receipts)


@pytest.mark.parametrize("desk", [one for one in PROTOCOLS if one != "sgip"], indirect=True)  # it needs no answer
async def test_an_answer_that_came_too_late_outlives_an_outage_of_the_store(desk: Desk) -> None:
    """The carrier does not answer a submit twice: without it the report finds nobody."""
    await desk.carrier(answer_after_s=0.3, reports="never")
    await desk.open(desk.account(answer_s=0.1, heartbeat_s=0.05))
    desk.link.down = True
    await desk.send(numbers(2))
    await desk.link.until(lambda: desk.link.failed > 1)
    desk.link.down = False
    await desk.link.until(lambda: len(desk.link.reports) == 2)
    assert desk.link.failed > 1
    assert {one.position for one in desk.link.reports} == {0, 1}


@pytest.mark.parametrize("ends", ["drop", "close"])
async def test_an_answer_that_came_too_late_outlives_its_connection(desk: Desk, ends: str) -> None:
    """The carrier answers what it owes and hangs up: what it said is committed by whoever connects next, or leaves."""
    await desk.carrier()
    channel = await desk.open()
    await desk.send(numbers(1))
    await desk.connected(channel)
    (session,) = channel.accounts[0].sessions
    late = Report(channel.name, "one/late", State.SUBMITTED, datetime.now(UTC), batch="b", position=1, attempt=1)
    session.tell([late])
    session.drop("connection_lost")
    if ends == "close":
        await channel.close()
    else:
        await eventually(lambda: session not in channel.accounts[0].sessions)
        await desk.send(numbers(1, 1))  # SGIP connects when there is something to say
    await desk.link.until(lambda: late in desk.link.events)
    assert desk.link.events.count(late) == 1


# -- commit before the acknowledgement ---------------------------------------------------------------------------------


async def test_what_is_not_committed_is_not_acknowledged_and_comes_again(desk: Desk) -> None:
    """A report acknowledged and lost is a household nobody knows about."""
    await desk.carrier(report_after_s=0.05)
    await desk.open()
    desk.link.down = True
    receipts = await desk.send(numbers(5))
    await desk.link.until(lambda: bool(desk.link.commits))
    await asyncio.sleep(0.05)
    assert not desk.bench.entries("ack")
    desk.link.down = False
    await desk.matched(receipts)
    await desk.bench.until("ack", 5)


async def test_reports_of_one_read_share_a_commit(desk: Desk) -> None:
    """Twenty thousand reports a second cannot each have a transaction of their own."""
    await desk.carrier(report_window=0)
    await desk.open()
    await desk.matched(await desk.send(numbers(99)))
    assert len(desk.link.commits) < 20


# -- lanes and connections ---------------------------------------------------------------------------------------------


async def test_green_finds_room_in_a_window_full_of_bulk(desk: Desk) -> None:
    """While a million residents are told, an official must hear at once."""
    await desk.carrier(answer_after_s=0.1, window=16, reports="never")
    await desk.open(desk.account(window=16, bulk=False))
    bulk = asyncio.create_task(desk.send(numbers(90), lane=Lane.BULK, level=Level.BLUE))
    await desk.bench.until("submit", 12)
    assert len(desk.bench.entries("submit")) == 12  # a quarter is kept
    assert states(await desk.send(numbers(3, 500))) == {"SUBMITTED": 3}
    place = [entry["numbers"][0] for entry in desk.bench.entries("submit")].index(numbers(1, 500)[0])
    assert place == 12
    assert not bulk.done()
    assert states(await bulk) == {"SUBMITTED": 90}
    assert not desk.bench.entries("refused")


async def test_two_processes_never_have_more_connections_than_the_account(desk: Desk) -> None:
    """A carrier that refuses the third connection may lock the account."""
    await desk.carrier(connections=2)
    first = await desk.open(desk.account(connections=2))
    await desk.send(numbers(1))
    second = await desk.open(desk.account(connections=2))
    assert states(await desk.send(numbers(1, 1), channel=first)) == {"SUBMITTED": 1}
    assert not second.up()
    await first.close()
    await eventually(second.up)
    assert states(await desk.send(numbers(1, 2), channel=second)) == {"SUBMITTED": 1}
    assert {entry["code"] for entry in desk.bench.entries("login")} == {0}


async def test_what_serves_of_an_account_in_all_processes_is_seen(desk: Desk) -> None:
    """A county whose account has lost three of four lines would find out in the middle of a warning."""
    await desk.carrier(connections=2)
    first = await desk.open(desk.account(connections=3))
    second = await desk.open(desk.account(connections=3))
    lines = [channel.lines() for channel in (first, second)]
    assert {one.allowed for one in lines} == {0 if desk.protocol == "sgip" else 3}
    if desk.protocol != "sgip":  # which connects when there is something to say
        await eventually(lambda: first.lines().serving + second.lines().serving == 2)
        await eventually(lambda: first.lines().broken["login"] + second.lines().broken["login"] > 0)


async def test_a_lost_lease_closes_the_connection(desk: Desk) -> None:
    """Another process has it now: two would be one too many."""
    await desk.carrier()
    channel = await desk.open()
    await desk.send(numbers(1))
    (lease,) = next(iter(desk.link.leases.values()))
    lease.lost.set()
    await desk.bench.until("closed")
    await eventually(lambda: len(desk.link.leases[channel.accounts[0].key]) == 2)
    await eventually(channel.up)
    assert states(await desk.send(numbers(1, 1))) == {"SUBMITTED": 1}  # it came back by a lease of its own


async def test_closing_waits_for_the_answers_under_way(desk: Desk) -> None:
    """A restart in the middle of a warning must not make hundreds of people doubtful."""
    await desk.carrier(answer_after_s=0.2)
    channel = await desk.open()
    sending = asyncio.create_task(desk.send(numbers(10)))
    await desk.bench.until("submit")
    await channel.close()
    assert states(await sending) == {"SUBMITTED": 10}


async def test_the_rate_is_asked_for_by_account_before_anything_leaves(desk: Desk) -> None:
    """Numbers times parts: that is what carriers count."""
    await desk.carrier()
    channel = await desk.open()
    await desk.send(numbers(10), text=LONG)
    assert desk.link.paced == [(f"{channel.name}/one", 30, Lane.GREEN)]


# -- replies -----------------------------------------------------------------------------------------------------------


async def test_a_reply_is_committed_with_its_number_and_extension(desk: Desk) -> None:
    """1 is "heard and at post": it stops the ladder."""
    await desk.carrier()
    await desk.open(desk.account(extension=2))
    await desk.send(numbers(1), alert="a1")
    (source,) = {entry["source"] for entry in desk.bench.entries("submit")}
    assert source == PORT + extension_of("a1", 2)
    desk.bench.carrier.reply(numbers(1)[0], "1 收到", source)
    await desk.link.until(lambda: bool(desk.link.replies))
    (reply,) = desk.link.replies
    assert (reply.address, reply.text, reply.extension) == (numbers(1)[0], "1 收到", extension_of("a1", 2))
    assert reply.reference
    await desk.bench.until("ack", 2)


async def test_a_long_reply_is_whole_before_it_is_acknowledged(desk: Desk) -> None:
    """The 3 and where the dam leaks must not come apart."""
    await desk.carrier(report_window=1)
    await desk.open()
    await desk.send(numbers(1))
    text = "3 上坝村水库溢洪道右岸渗水" * 9
    faulty(desk, report_window=16)
    desk.bench.carrier.reply(numbers(1)[0], text)
    await desk.link.until(lambda: bool(desk.link.replies))
    assert [reply.text for reply in desk.link.replies] == [text]
