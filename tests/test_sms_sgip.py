"""SGIP: connecting on demand, and the listener that gateways call; its case for the channel contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from carrier_desk import SECRET, Desk, eventually, numbers, states
from links import Case
from pydantic import ValidationError
from test_sms_cmpp import case_of

from channels import _sgip as sgip
from channels._listener import STRANGERS
from channels._pdu import Framer, Pdu
from channels.sms_sgip import SmsSgip
from gateway.model import Report, State


@asynccontextmanager
async def contract_case() -> AsyncIterator[Case]:
    async with case_of("sgip") as case:
        yield case


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, "sgip")
    await desk.carrier()
    yield desk
    await desk.stop()


SEQUENCE = sgip.Sequence(1, 2, 3)


class Gateway:
    """A peer of the listener that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._framer = Framer(sgip.CODEC)

    @classmethod
    async def call(cls, desk: Desk) -> Gateway:
        return cls(*await asyncio.open_connection("127.0.0.1", desk.listener))

    def say(self, pdu: Pdu) -> None:
        self.writer.write(sgip.CODEC.encode(SEQUENCE, pdu))

    async def hear(self) -> Pdu | None:
        """Return the next PDU; None at the end."""
        async with asyncio.timeout(5):
            while True:
                for frame in self._framer:
                    return frame.pdu
                try:
                    data = await self.reader.read(4096)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._framer.feed(data)


def bind(name: str = "901234", password: str = SECRET, kind: int = sgip.SMG_TO_SP) -> sgip.Bind:
    return sgip.Bind(kind, name, password)


def report(number: str = "8610000000001") -> sgip.Report:
    return sgip.Report(SEQUENCE.octets, 0, number, 0)


async def test_it_connects_when_there_is_something_to_say_and_leaves_when_idle(desk: Desk) -> None:
    """Gateways close idle connections, and count each that stays against the account."""
    channel = await desk.open(desk.account(idle_s=0.05, heartbeat_s=0.1))
    assert channel.up()
    assert not desk.bench.entries("login")
    await desk.send(numbers(2))
    await desk.bench.until("closed")
    await eventually(lambda: not channel.accounts[0].sessions)
    assert channel.up()
    receipts = await desk.send(numbers(2, 2))
    assert states(receipts) == {"SUBMITTED": 2}
    assert len([entry for entry in desk.bench.entries("login") if not entry["code"]]) == 2
    assert channel.accounts[0].health.value == 1.0


async def test_the_reference_is_known_without_any_answer(desk: Desk) -> None:
    """The sequence is ours: who is doubtful today is delivered when the report comes."""
    desk.bench.carrier.scenario = desk.bench.carrier.scenario.__class__(faults={"unanswered": 1.0}, linger_s=0.05)
    await desk.open(desk.account(answer_s=0.1))
    receipts = await desk.send(numbers(3))
    assert states(receipts) == {"Ambiguous": 3}
    await desk.matched(receipts)


async def test_sequences_never_repeat_over_connections(tmp_path: Path) -> None:
    """A report names nothing but the sequence and the number."""
    desk = Desk(tmp_path, "sgip")
    await desk.carrier(connections=2)
    await desk.open(desk.account(bulk=False, connections=2, idle_s=0.02, heartbeat_s=0.04))
    references = set()
    for first in range(0, 60, 20):
        receipts = await desk.send(numbers(20, first))
        assert states(receipts) == {"SUBMITTED": 20}
        references |= {receipt.reference for receipt in receipts}
        await asyncio.sleep(0.1)
    assert len({reference.split("/")[1] for reference in references}) == 60
    await desk.stop()


@pytest.mark.parametrize(
    "wrong", [bind("901235"), bind(password="s3cret"), bind(password=""), bind(kind=sgip.SP_TO_SMG)]
)
async def test_a_gateway_with_a_wrong_login_is_refused_and_cut(desk: Desk, wrong: sgip.Bind) -> None:
    """Whoever may hand in reports may call a village reached."""
    await desk.open()
    gateway = await Gateway.call(desk)
    gateway.say(wrong)
    assert await gateway.hear() == sgip.BindResp(1)
    assert await gateway.hear() is None


@pytest.mark.parametrize("early", [report(), sgip.Unbind(), sgip.SubmitResp()])
async def test_nothing_is_taken_before_a_login(desk: Desk, early: Pdu) -> None:
    """A report from a stranger is no report."""
    await desk.open()
    gateway = await Gateway.call(desk)
    gateway.say(early)
    answer = await gateway.hear()
    assert answer is None or isinstance(answer, sgip.UnbindResp)
    assert not desk.link.events


async def test_an_address_that_is_not_listed_is_not_heard(tmp_path: Path, desk: Desk) -> None:
    """The port is open to the network; passwords of SGIP are plain text."""
    settings = desk.settings().model_dump()
    settings["listener"]["allow"] = ["10.0.0.0/8"]
    channel = SmsSgip(SmsSgip.Settings.model_validate(settings))
    await channel.open(desk.link)
    gateway = await Gateway.call(desk)
    assert await gateway.hear() is None
    await channel.close()


async def test_strangers_cannot_keep_the_gateway_out(desk: Desk) -> None:
    """A scanner that opens a thousand connections must cost nothing but its own."""
    await desk.open()
    strangers = [await Gateway.call(desk) for _ in range(STRANGERS + 2)]
    assert await strangers[-1].hear() is None
    for stranger in strangers:
        stranger.writer.close()
    channel = desk.channels[0]
    assert isinstance(channel, SmsSgip)
    assert channel.listener is not None
    callers = channel.listener.callers
    await eventually(lambda: not callers)
    gateway = await Gateway.call(desk)
    gateway.say(bind())
    assert await gateway.hear() == sgip.BindResp(0)


async def test_garbage_and_lengths_of_four_gigabytes_end_the_call(desk: Desk) -> None:
    """No memory is set aside for what a stranger says will come."""
    await desk.open()
    for octets in (b"\xff\xff\xff\xff" + bytes(16), b"\0\0\0\x01" + bytes(16), b"GET / HTTP/1.1\r\n\r\n"):
        gateway = await Gateway.call(desk)
        gateway.writer.write(octets)
        assert await gateway.hear() is None


async def test_reports_are_answered_after_the_commit_and_by_the_accounts_own_key(desk: Desk) -> None:
    """Two accounts of one county must not take each other's reports."""
    channel = await desk.open(desk.account(), desk.account(name="two", called_name="other", called_secret="another"))
    gateway = await Gateway.call(desk)
    gateway.say(bind("other", "another"))
    assert await gateway.hear() == sgip.BindResp(0)
    gateway.say(report())
    assert await gateway.hear() == sgip.ReportResp(0)
    (event,) = desk.link.events
    assert isinstance(event, Report)
    assert event.reference == channel.accounts[1].wire.tagged(SEQUENCE.octets.hex(), "10000000001")
    assert event.state is State.DELIVERED
    desk.link.down = True
    gateway.say(report())
    assert await gateway.hear() is None


async def test_what_gateways_may_also_say_is_answered(desk: Desk) -> None:
    """An unanswered request fills the gateway's window, and reports stop."""
    await desk.open()
    gateway = await Gateway.call(desk)
    gateway.say(bind())
    await gateway.hear()
    gateway.say(sgip.UserRpt("10690001", "8610000000001", 1))
    assert await gateway.hear() == sgip.UserRptResp(0)
    body = sgip.CODEC.encode(SEQUENCE, report())
    gateway.writer.write((len(body) - 1).to_bytes(4, "big") + body[4:-1])
    assert await gateway.hear() == sgip.ReportResp(5)
    gateway.say(bind())
    assert await gateway.hear() == sgip.BindResp(2)


async def test_a_process_that_finds_the_port_taken_listens_when_it_is_free(desk: Desk) -> None:
    """Two hubs on one machine: one listens, the other takes over."""
    first, second = await desk.open(), await desk.open()
    await first.close()
    assert isinstance(second, SmsSgip)
    listener = second.listener
    assert listener is not None
    await eventually(lambda: bool(listener.port))
    await desk.matched(await desk.send(numbers(3), channel=second))


def test_two_accounts_called_by_one_name_are_refused(tmp_path: Path) -> None:
    """Nobody could tell whose reports come."""
    desk = Desk(tmp_path, "sgip")
    desk.bench.port = 1
    with pytest.raises(ValidationError, match="called_name"):
        desk.settings(desk.account(), desk.account(name="two"))


async def test_an_empty_allow_list_is_refused(desk: Desk) -> None:
    """Nobody is allowed by forgetting."""
    table = desk.settings().model_dump()
    table["listener"]["allow"] = []
    with pytest.raises(ValidationError):
        SmsSgip.Settings.model_validate(table)
