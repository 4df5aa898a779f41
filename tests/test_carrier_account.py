"""Choosing among the accounts with a carrier, how an account loses and regains its share, and leases of connections."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from carrier_desk import PORT, SECRET, Desk, eventually, numbers, states
from carrier_support import Bench
from links import TEXT

from channels._health import FLOOR, Health
from gateway.errors import Throttled
from gateway.model import Lane, Level
from gateway.simulate.carrier import Account, revise, texts

OTHER_PORT = "10690002"


class Pair(Desk):
    """Two gateways of one carrier, an account with each."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "cmpp30")
        (directory / "other").mkdir()
        self.other = Bench(directory / "other")

    async def start(self, *changes: dict[str, Any]) -> None:
        await self.carrier(reports="never")
        first, second = changes or ({}, {})
        theirs = Account("901234", SECRET, 4, second.get("src_id", PORT))
        await self.other.start("cmpp30", (theirs,), reports="never")
        channel = await self.open(self.account() | first, self.account(name="two", port=self.other.port) | second)
        await self.connected(channel, 2)

    def change(self, bench: Bench, **changes: Any) -> None:
        bench.carrier.scenario = revise(bench.carrier.scenario, changes)

    def served(self) -> tuple[int, int]:
        """Return how many numbers each gateway took."""
        return self.bench.carrier.received, self.other.carrier.received

    def all_texts(self) -> Counter[tuple[str, str]]:
        self.other.carrier.flush()
        return self.texts() + texts(self.other.path)

    async def stop(self) -> None:
        await super().stop()
        await self.other.stop()


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    await pair.stop()


# -- whose turn it is --------------------------------------------------------------------------------------------------


async def test_accounts_take_turns_by_weight(pair: Pair) -> None:
    """A contract for 300 a second beside one for 100."""
    await pair.start({"weight": 3.0}, {})
    for first in range(0, 400, 10):
        await pair.send(numbers(10, first), level=Level.BLUE, lane=Lane.BULK)
    assert pair.served() == (300, 100)


@pytest.mark.parametrize("level", [Level.RED, Level.BLUE])
@pytest.mark.parametrize("known", [("two", ""), ("two", OTHER_PORT), ("", OTHER_PORT)])
async def test_a_text_goes_by_the_account_that_knows_its_units_signature(
    pair: Pair, level: Level, known: tuple[str, str]
) -> None:
    """The other one's carrier would take it, and deliver it to nobody, however well the account does (D11)."""
    await pair.start({"weight": 100.0}, {"src_id": OTHER_PORT})
    for first in range(0, 40, 10):
        receipts = await pair.send(numbers(10, first), level=level, accounts=[("one", OTHER_PORT), known])
        assert states(receipts) == {"SUBMITTED": 10}
    assert pair.served() == (0, 40)
    pair.change(pair.other, result=10)
    receipts = await pair.send(numbers(10), level=level, accounts=[known])
    assert states(receipts) == {"Unusable": 10}
    await pair.send(numbers(10), level=level, accounts=[("three", ""), ("one", OTHER_PORT)])
    assert pair.served()[0] == 10, "known nowhere: it is tried all the same, and said loudly"


async def test_an_account_that_is_refused_leaves_its_slice_to_the_other(pair: Pair) -> None:
    """A port that is not registered any more must not cost one warning."""
    await pair.start()
    pair.change(pair.bench, result=10)
    for first in range(0, 60, 10):
        assert states(await pair.send(numbers(10, first), level=Level.BLUE)) == {"SUBMITTED": 10}
    assert pair.served() == (0, 60)
    assert len(pair.bench.entries("refused")) == 1  # it is not asked again for a while


async def test_an_account_that_asks_for_patience_leaves_its_slice_to_the_other(pair: Pair) -> None:
    """A carrier in flow control for ever delays nobody whom another account can serve."""
    await pair.start()
    pair.change(pair.bench, faults={"throttle": 1.0})
    vars(pair.channels[0])["answer_s"] = 22.5
    for first in range(0, 60, 10):
        assert states(await pair.send(numbers(10, first), level=Level.BLUE)) == {"SUBMITTED": 10}
    assert pair.all_texts() == {(number, TEXT): 1 for number in numbers(60)}


async def test_an_account_without_a_connection_is_not_asked(pair: Pair) -> None:
    """The other serves at once, not after a timeout."""
    await pair.start()
    await pair.bench.carrier.stop()
    await eventually(lambda: not pair.channels[0].accounts[0].sessions)
    for first in range(0, 60, 10):
        assert states(await pair.send(numbers(10, first))) == {"SUBMITTED": 10}
    assert pair.served() == (0, 60)


async def test_a_spent_rate_moves_on_to_the_next_account_and_is_throttled_when_all_are(pair: Pair) -> None:
    """What another account may still send does not wait."""
    await pair.start()
    pace = pair.link.pace
    spent = {"sms_cmpp/one"}

    async def paced(account: str, units: int, lane: Lane) -> None:
        if account in spent:
            raise Throttled(3.0, "paced")
        await pace(account, units, lane)

    pair.link.pace = paced  # type: ignore[method-assign]  # a link of its own for this test
    for first in range(0, 40, 10):
        assert states(await pair.send(numbers(10, first), level=Level.BLUE)) == {"SUBMITTED": 10}
    assert pair.served() == (0, 40)
    spent.add("sms_cmpp/two")
    receipts = await pair.send(numbers(5))
    assert states(receipts) == {"Throttled": 5}
    assert isinstance(receipts[0].error, Throttled)
    assert receipts[0].error.after_s == 3.0


async def test_red_goes_to_the_healthiest_and_the_sick_one_keeps_little(pair: Pair) -> None:
    """The warning that matters most takes no chances; the rest finds out when the account is well again."""
    await pair.start({"answer_s": 0.05}, {})
    pair.change(pair.bench, faults={"unanswered": 1.0})
    sick, well = pair.channels[0].accounts
    for _ in range(200):
        await pair.send(numbers(1), level=Level.BLUE)
        await asyncio.sleep(0.005)
        if sick.health.value < 0.2 and sick.ready:
            break
    assert sick.health.value < 0.2
    assert well.health.value == 1.0
    pair.change(pair.bench, faults={})
    before = pair.served()
    for first in range(0, 100, 10):
        await pair.send(numbers(10, first), level=Level.RED)
    assert pair.served() == (before[0], before[1] + 100)
    for first in range(0, 400, 10):
        await pair.send(numbers(10, first), level=Level.BLUE)
    asked = pair.served()[0] - before[0]
    assert asked < 200


# -- health ------------------------------------------------------------------------------------------------------------


def test_share_is_lost_at_once_and_regained_slowly() -> None:
    """Traffic that swings back too soon finds the carrier still sick."""
    health = Health(0.0)
    for _ in range(10):
        health.failed(0.0)
    assert health.value == FLOOR
    for second in range(1, 30):
        health.served(0.05, float(second))
    assert 0.4 < health.value < 0.6
    for second in range(30, 61):
        health.served(0.05, float(second))
    assert health.value == 1.0


def test_silence_regains_nothing() -> None:
    """An hour without traffic says nothing about the carrier."""
    health = Health(0.0)
    health.failed(0.0)
    health.served(0.05, 3600.0)
    assert health.value < 0.55


def test_latency_is_judged_against_the_accounts_own_past() -> None:
    """A slow carrier is not a sick one; one that becomes slow is."""
    slow, worse = Health(0.0), Health(0.0)
    for step in range(200):
        slow.served(2.0, step / 10)
        worse.served(0.1, step / 10)
    assert slow.value == worse.value == 1.0
    for step in range(200, 300):
        slow.served(2.0, step / 10)
        worse.served(2.0, step / 10)
    assert slow.value == 1.0
    assert worse.value < 0.5


def test_patience_grows_and_one_full_window_counts_once() -> None:
    """Sixteen answers to one burst are one request for patience."""
    health = Health(0.0)
    assert [health.throttled(0.0) for _ in range(16)] == [0.1] * 16
    waits = [health.throttled(now) for now in (1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 40.0)]
    assert waits == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    for step in range(100):
        health.served(0.05, 50.0 + step)
    assert health.throttled(200.0) == pytest.approx(0.1)


# -- connections -------------------------------------------------------------------------------------------------------


async def test_a_heartbeat_without_an_answer_ends_the_connection(tmp_path: Path) -> None:
    """A quiet night must not end with a line that looks open and is not."""
    desk = Desk(tmp_path, "cmpp30")
    await desk.carrier()
    channel = await desk.open(desk.account(answer_s=0.05, heartbeat_s=0.05))
    await desk.connected(channel)
    session = channel.accounts[0].sessions[0]
    await asyncio.sleep(0.3)
    assert session.ready  # heartbeats are answered
    desk.bench.carrier.scenario = revise(desk.bench.carrier.scenario, {"silent": True})
    await eventually(session.ended.is_set)
    assert session.why == "no_heartbeat"
    await desk.stop()


async def test_the_carriers_heartbeat_is_answered(tmp_path: Path) -> None:
    """Or it closes the connection in the middle of the night."""
    desk = Desk(tmp_path, "cmpp30")
    await desk.carrier(heartbeat_s=0.05, patience_s=0.05)
    channel = await desk.open()
    await desk.connected(channel)
    session = channel.accounts[0].sessions[0]
    await asyncio.sleep(0.5)
    assert session.ready
    await desk.stop()


async def test_slot_0_is_greens_where_there_is_another(tmp_path: Path) -> None:
    """Bulk fills every other connection, never that one; alone in its process, it serves all but its last quarter."""
    desk = Desk(tmp_path, "cmpp30")
    await desk.carrier(connections=2, reports="never", answer_after_s=0.05)
    channel = await desk.open(desk.account(connections=2, bulk=False))
    await desk.connected(channel, 2)
    await desk.send(numbers(60), lane=Lane.BULK)
    assert len({entry["connection"] for entry in desk.bench.entries("submit")}) == 1
    account = channel.accounts[0]
    greens = next(session for session in account.sessions if session.greens)
    assert account.open_places(greens) == 0
    for session in [one for one in account.sessions if not one.greens]:
        account.sessions.remove(session)
        assert account.open_places(greens) == 12
        account.sessions.append(session)
    await desk.stop()


async def test_an_abandoned_send_sends_nothing_later(tmp_path: Path) -> None:
    """Whoever stopped waiting has already said that nobody knows: a later submit would be a second SMS."""
    desk = Desk(tmp_path, "cmpp30")
    await desk.carrier(answer_after_s=0.05, reports="never")
    channel = await desk.open(desk.account(window=1, bulk=False))
    await desk.connected(channel)
    sending = asyncio.create_task(desk.send(numbers(30)))
    await desk.bench.until("submit")
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await asyncio.sleep(0.2)
    assert desk.texts() == {(numbers(1)[0], TEXT): 1}
    await desk.stop()


async def test_a_bug_in_the_gateway_ends_one_connection_and_is_seen(tmp_path: Path) -> None:
    """Nothing is acknowledged, and the connection is made again."""
    desk = Desk(tmp_path, "cmpp30")
    await desk.carrier()
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    commit, calls = desk.link.commit, []

    async def broken(events: Any) -> None:
        calls.append(events)
        if len(calls) == 1:
            raise ZeroDivisionError
        await commit(events)

    desk.link.commit = broken  # type: ignore[method-assign]  # a link of its own for this test
    await desk.open()
    receipts = await desk.send(numbers(3))
    await desk.matched(receipts)
    assert [type(one["exception"]) for one in seen] == [ZeroDivisionError]
    await desk.stop()


async def test_a_carrier_that_bids_farewell_unasked_is_not_called_again_at_once(tmp_path: Path) -> None:
    """A carrier locks an account that logs in a thousand times a second."""
    logins: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readexactly(39)  # CMPP_CONNECT
        logins.append(request)
        writer.write(struct.pack("!IIII17s", 33, 0x80000001, 1, 0, b"") + struct.pack("!III", 12, 0x80000002, 7))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    desk = Desk(tmp_path, "cmpp30")
    await desk.carrier()
    port = server.sockets[0].getsockname()[1]
    await desk.open(desk.account(port=port, check_answer=False, retry_s=5.0))
    await eventually(lambda: bool(logins))
    await asyncio.sleep(0.3)
    assert len(logins) == 1
    await desk.stop()
    server.close()
