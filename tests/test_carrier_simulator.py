"""The simulated carriers: what the protocols have in common, faults, hostile input, orders and the command."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from carrier_support import ACCOUNTS, CMPP_LOGIN, LOGINS, NUMBER, SUBMITS, Bench, Client, cmpp_submit, pad
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.simulate.carrier import PROTOCOLS, Carrier, Scenario, obey, parts, revise, settings, texts
from gateway.simulate.carrier.text import Assembly, Part, decode, encode, split_header
from gateway.simulate.log import Log, read


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.stop()


# -- what all have in common -------------------------------------------------------------------------------------------

FLOW = {"cmpp30": (20, 24, 8), "cmpp20": (20, 21, 8), "sgip": (20, 21, 11), "smgp": (22, 26, 1), "smpp": (8, 12, 0x58)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_full_window_and_a_spent_rate_are_answered_with_flow_control(bench: Bench, protocol: str) -> None:
    """Each protocol has its code: 8, 11, 1, 0x58."""
    carrier = await bench.start(protocol, window=1, answer_after_s=0.2, reports="never")
    client = await bench.login()
    start, end, code = FLOW[protocol]
    client.writer.write(SUBMITS[protocol]() * 2)
    assert int.from_bytes((await client.pdu())[start:end], "big") == code  # the second, at once
    assert int.from_bytes((await client.pdu())[start:end], "big") == 0
    carrier.scenario = revise(carrier.scenario, {"answer_after_s": 0, "rate": 0.001})
    client.writer.write(SUBMITS[protocol]() * 101)
    codes = [int.from_bytes((await client.pdu())[start:end], "big") for _ in range(101)]
    assert codes == [0] * 100 + [code]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fault", ["unanswered", "drop", "cut", "garbage", "huge", "logout"])
async def test_faults_befall_submits_that_were_taken(bench: Bench, protocol: str, fault: str) -> None:
    """The message is in the log and counts as sent, whatever the client is told."""
    await bench.start(protocol, faults={fault: 1.0}, reports="never")
    client = await bench.login()
    client.writer.write(SUBMITS[protocol]())
    (submit,) = await bench.until("submit")
    assert (submit["numbers"], submit["fault"]) == ([NUMBER], fault)
    if fault == "unanswered":
        bench.carrier.cut()
        assert await client.gone() in (b"", b"reset")
    elif fault == "huge":
        assert await client.reader.readexactly(4) == b"\xff" * 4
    elif fault == "logout":
        await client.pdu()
        assert int.from_bytes((await client.pdu())[4:8], "big") in (2, 6)  # TERMINATE, Unbind; Exit, unbind
    elif fault == "garbage":
        assert len(await client.reader.read(8)) == 8
    else:
        assert len(await client.gone()) < 16


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "noise",
    [
        b"\xff" * 64,
        bytes(64),
        b"\0\0\x40\0" + b"\7" * 16380,
        b"GET / HTTP/1.1\r\nHost: carrier\r\n\r\n",
        b"\0\0\0\x14\0\0\0\4" + b"\1" * 12,
        b"\0\0\0\x20\0\0\0\3" + b"\xff" * 24,
    ],
    ids=["4 GB", "zero", "large", "http", "short", "overrun"],
)
async def test_noise_ends_one_connection_and_no_other(bench: Bench, protocol: str, noise: bytes) -> None:
    """Before and after a login."""
    await bench.start(protocol, reports="never")
    good = await bench.login()
    for logged_in in (False, True):
        client = await (bench.login() if logged_in else bench.connect())
        client.writer.write(noise)
        client.writer.write_eof()
        await client.gone()
        await bench.until("closed", 1 + logged_in)
    assert await good.ask(SUBMITS[protocol]())
    assert len(bench.entries("submit")) == 1


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"socket": socket.socket()})
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True
        self.get_extra_info("socket").close()


# Fields where a lie does most: lengths, counts, commands, parameters; then anything anywhere.
VALUES = st.sampled_from([0, 1, 2, 4, 5, 8, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
LIES = st.lists(st.tuples(st.integers(0, 700), VALUES))


@given(protocol=st.sampled_from(sorted(PROTOCOLS)), lies=LIES, tail=st.binary(max_size=80), told=st.booleans())
def test_no_bytes_break_a_carrier(protocol: str, lies: list[tuple[int, int]], tail: bytes, *, told: bool) -> None:
    """Whatever a client sends is answered, logged or ends its connection; nothing is raised into the loop."""

    async def talk(path: Path) -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        scenario = Scenario(answering=1.0, accepted=True, stats={NUMBER: "UNDELIV" if told else "27"})
        log = Log(path / "log.jsonl")
        carrier = Carrier(PROTOCOLS[protocol], log, ACCOUNTS, scenario)
        await carrier.start()
        session, wire = PROTOCOLS[protocol](carrier), Wire()
        session.connection_made(wire)
        session.data_received(LOGINS[protocol])
        submit = bytearray(SUBMITS[protocol]())
        for at, value in lies:
            submit[4 + at % (len(submit) - 4)] = value
        session.data_received(bytes(submit) + (len(tail) + 4).to_bytes(4, "big") + tail + bytes(submit))
        await asyncio.sleep(0)
        session.connection_lost(None)
        wire.close()
        await carrier.stop()
        log.close()
        assert failures == []
        assert {"login", "closed"} <= {each["kind"] for each in read(log.path)}

    with TemporaryDirectory() as directory:
        asyncio.run(talk(Path(directory)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_pdus_arrive_byte_by_byte_or_many_at_once(bench: Bench, protocol: str) -> None:
    """TCP keeps no boundaries."""
    await bench.start(protocol, reports="never", window=0)
    client = await bench.connect()
    for byte in LOGINS[protocol]:
        client.writer.write(bytes((byte,)))
        await asyncio.sleep(0)
    await client.pdu()
    client.writer.write(SUBMITS[protocol]() * 200)
    for _ in range(200):
        await client.pdu()
    assert len(bench.entries("submit")) == 200


async def test_a_report_may_come_before_its_answer(bench: Bench) -> None:
    """The client knows no id yet."""
    await bench.start("cmpp30", reports="before")
    client = await bench.login()
    first = await client.ask(cmpp_submit([NUMBER]))
    assert first[4:8] == b"\0\0\0\5"
    assert (await client.pdu())[12:20] == first[89:97]


async def test_reports_come_twice_late_or_never(bench: Bench) -> None:
    """By shares of numbers; an intermediate ACCEPTD is no end."""
    carrier = await bench.start("cmpp30", duplicated=1, accepted=True, report_window=0)
    client = await bench.login()
    await client.ask(cmpp_submit([NUMBER]))
    assert [(await client.pdu())[97:104] for _ in range(3)] == [b"ACCEPTD", b"DELIVRD", b"DELIVRD"]
    carrier.scenario = revise(Scenario(), {"late": 1, "late_s": 0.05})
    await client.ask(cmpp_submit([NUMBER], 3))
    assert len(bench.entries("report")) == 3
    await bench.until("report", 4)
    carrier.scenario = revise(Scenario(), {"lost": 1})
    await client.ask(cmpp_submit([NUMBER], 4))
    carrier.scenario = Scenario()
    await client.ask(cmpp_submit([NUMBER], 5, report=0))
    assert len(bench.entries("report")) == 4


async def test_reports_change_their_order(bench: Bench) -> None:
    """Every one still comes once."""
    await bench.start("cmpp30", shuffled=True, report_window=0)
    client = await bench.login()
    numbers = [str(10000000000 + n) for n in range(50)]
    await client.ask(cmpp_submit(numbers))
    came = [(await client.pdu())[54:65].decode() for _ in numbers]
    assert came != numbers
    assert sorted(came) == numbers


async def test_unacknowledged_reports_stop_at_the_window_and_move_to_a_later_connection(bench: Bench) -> None:
    """A client that dies between receipt and commit gets them again, on any connection and after a restart."""
    await bench.start("cmpp30", report_window=2)
    client = await bench.login()
    await client.ask(cmpp_submit([NUMBER, "10000000002", "10000000003"]))
    sent = [await client.pdu() for _ in range(2)]
    assert len(bench.entries("report")) == 2
    client.writer.write(bytes.fromhex("0000001880000005") + sent[0][8:20] + bytes(4))
    await bench.until("report", 3)
    await bench.carrier.stop()
    bench.port = await bench.carrier.start()
    client = await bench.login()
    again = [(await client.pdu())[54:65].decode() for _ in range(2)]
    assert again == ["10000000002", "10000000003"]


@pytest.mark.parametrize("to", ["other", "next"])
async def test_reports_may_come_on_another_connection(bench: Bench, to: str) -> None:
    """Of the same account: one that exists, or one that logs in later."""
    await bench.start("cmpp30", report_to=to)
    client = await bench.login()
    await client.ask(cmpp_submit([NUMBER]))
    other = await bench.login()
    assert (await other.pdu())[4:8] == b"\0\0\0\5"


async def test_a_report_nobody_acknowledges_is_sent_again_and_then_the_connection_closed(bench: Bench) -> None:
    """Three times, as the specification says; the sequence stays the same."""
    await bench.start("cmpp30", patience_s=0.04)
    client = await bench.login()
    await client.ask(cmpp_submit([NUMBER]))
    sent = [await client.pdu() for _ in range(3)]
    assert len({pdu[8:12] for pdu in sent}) == 1
    assert await client.gone() == b""


@pytest.mark.parametrize(
    ("protocol", "answer"),
    [("cmpp30", "0000000d80000008{}00"), ("smgp", "0000000c80000004{}"), ("smpp", "000000108000001500000000{}")],
)
async def test_a_silent_client_is_asked_and_dropped_if_it_stays_silent(
    bench: Bench, protocol: str, answer: str
) -> None:
    """The heartbeat goes both ways."""
    await bench.start(protocol, heartbeat_s=0.05, patience_s=0.05)
    client = await bench.login()
    question = await client.pdu()
    sequence = question[-4:].hex()
    client.writer.write(bytes.fromhex(answer.format(sequence)))
    for _ in range(3):
        await client.pdu()
    assert await client.gone() == b""


@pytest.mark.parametrize(
    ("protocol", "question", "answer"),
    [
        ("cmpp30", "0000000c0000000800000007", "0000000d800000080000000700"),
        ("cmpp30", "0000000c0000000200000007", "0000000c8000000200000007"),
        ("cmpp30", "00000014000000070000000700000000000000ff", "00000010800000070000000700000001"),
        ("smgp", "0000000c0000000400000007", "0000000c8000000400000007"),
        ("smgp", "0000000c0000000600000007", "0000000c8000000600000007"),
        ("sgip", "0000001400000002" + "01" * 12, "0000001480000002" + "01" * 12),
        ("smpp", "00000010000000060000000000000007", "00000010800000060000000000000007"),
    ],
)
async def test_heartbeats_and_farewells_are_answered(bench: Bench, protocol: str, question: str, answer: str) -> None:
    """With the sequence they came with."""
    await bench.start(protocol)
    client = await bench.login()
    assert (await client.ask(bytes.fromhex(question))).hex() == answer


async def test_a_silent_carrier_answers_nothing(bench: Bench) -> None:
    """Not even a login; the client has to give up by itself."""
    carrier = await bench.start("cmpp30", silent=True)
    client = await bench.connect()
    client.writer.write(CMPP_LOGIN)
    await bench.until("ignored")
    carrier.scenario = Scenario()
    assert (await client.ask(CMPP_LOGIN))[15] == 0


async def test_people_reply_to_the_number_that_wrote_to_them(bench: Bench) -> None:
    """A long reply comes in parts, no character cut in two."""
    carrier = await bench.start("cmpp30", reports="never", answering=1.0)
    client = await bench.login()
    await client.ask(cmpp_submit([NUMBER]))
    reply = await client.pdu()
    assert (reply[20:41], reply[54:65], reply[87:90]) == (pad("106590001", 21), NUMBER.encode(), b"\0\x011")
    carrier.reply(NUMBER, "𠮷" * 40, "10659000188")
    pieces = [await client.pdu() for _ in range(2)]
    assert {part[20:31] for part in pieces} == {b"10659000188"}
    assert {each["text"] for each in bench.entries("reply")} == {"1", "𠮷" * 40}
    contents = [part[89 : 89 + part[88]] for part in pieces]
    assert [content[:3] + content[4:6] for content in contents] == [b"\5\0\3\2\1", b"\5\0\3\2\2"]
    assert "".join(content[6:].decode("utf-16-be") for content in contents) == "𠮷" * 40


async def test_the_log_has_each_part_and_the_whole_of_a_long_message(bench: Bench) -> None:
    """Parts come in any order and in bulks; a person is told when all are there."""
    await bench.start("cmpp30", reports="never")
    client = await bench.login()
    text, numbers = "转移" * 40, [NUMBER, "10000000002"]
    raw = text.encode("utf-16-be")
    second = bytes.fromhex("050003410202") + raw[134:]
    first = bytes.fromhex("050003410201") + raw[:134]
    await client.ask(cmpp_submit(numbers, 2, second, 8, 1))
    await client.ask(cmpp_submit(numbers[:1], 3, first, 8, 1))
    assert [(each["numbers"], each["text"]) for each in bench.entries("message")] == [(numbers[:1], text)]
    await client.ask(cmpp_submit(numbers[1:], 4, first, 8, 1))
    assert bench.entries("message")[1]["numbers"] == numbers[1:]
    assert [each["part"] for each in bench.entries("submit")] == [[65, 2, 2], [65, 2, 1], [65, 2, 1]]
    await client.ask(cmpp_submit(numbers[:1], 5, b"single"))
    assert texts(bench.path) == {(NUMBER, text): 1, ("10000000002", text): 1, (NUMBER, "single"): 1}
    assert parts(bench.path)[NUMBER, text[:67], (65, 2, 1)] == 1


async def test_the_last_part_may_fail_alone(bench: Bench) -> None:
    """Delivered means all parts are."""
    carrier = await bench.start("cmpp30", last_part="failed")
    client = await bench.login()
    for number in (1, 2):
        await client.ask(cmpp_submit([NUMBER], number + 1, bytes((5, 0, 3, 9, 2, number)) + b"\x4f\x60", 8, 1))
        stat = (await client.pdu())[97:104]
        assert stat == (b"UNDELIV" if number == 2 else b"DELIVRD")
    assert carrier.received == 2


def test_user_data_headers() -> None:
    """8- and 16-bit references, other elements before them, and headers that lie."""
    assert split_header(bytes.fromhex("050003ff0302") + b"x", udhi=True) == (Part(255, 3, 2), b"x")
    assert split_header(bytes.fromhex("060804ffff0302") + b"x", udhi=True) == (Part(65535, 3, 2), b"x")
    assert split_header(bytes.fromhex("08240101" + "0003070201") + b"x", udhi=True) == (Part(7, 2, 1), b"x")
    for broken in ("05000307", "050003070203", "050003070000", "0500030702", "ff", "0500ff070201"):
        part, _ = split_header(bytes.fromhex(broken), udhi=True)
        assert part is None
    assert split_header(bytes.fromhex("050003ff0302"), udhi=False) == (None, bytes.fromhex("050003ff0302"))
    assert decode("泌阳".encode("gb18030"), 15) == "泌阳"
    assert decode(b"\xd8", 8) == "\ufffd"
    assert [content for _, _, content in encode("ok", 1)] == [b"ok"]


def test_a_part_sent_twice_makes_no_message() -> None:
    """Only all parts do."""
    assembly = Assembly()
    for _ in range(2):
        assert list(assembly.add("1", [NUMBER], Part(1, 2, 1), b"a")) == []
    assert list(assembly.add("1", [NUMBER], Part(1, 2, 2), b"b")) == [(NUMBER, b"ab")]


def test_settings_are_checked() -> None:
    """A misspelt fault would make a test that proves nothing."""
    assert revise(Scenario(), settings(["rate=300", 'bad=["1"]', "shuffled=true"])) == Scenario(
        rate=300.0, bad=frozenset({"1"}), shuffled=True
    )
    for wrong in (["speed=1"], ["rate=fast"], ['faults={"vanish":1}'], ["reports=maybe"]):
        with pytest.raises(ConfigError, match="scenario"):
            revise(Scenario(), settings(wrong))
    for text in ("rate", "bad=[1"):
        with pytest.raises(ConfigError, match="scenario"):
            settings([text])


async def test_a_running_carrier_is_told_by_the_line(bench: Bench) -> None:
    """By an operator who tries an account out, or by a script."""
    carrier = await bench.start("cmpp30")
    client = await bench.login()
    obey(carrier, f"reply {NUMBER} 收到 了")
    assert (await client.pdu())[89:-20].decode("utf-16-be") == "收到 了"
    obey(carrier, "set rate=300")
    assert carrier.scenario.rate == 300
    obey(carrier, "")
    for nonsense in ("reply", "reply x 1", "reply 1", "shout", "set speed=1", "logout now"):
        with pytest.raises(ConfigError):
            obey(carrier, nonsense)
    obey(carrier, "logout")
    assert (await client.pdu())[4:8] == bytes.fromhex("00000002")
    obey(carrier, "cut")
    assert await client.gone() in (b"", b"reset")


async def command(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    run = (sys.executable, "-m", "gateway.cli", "simulate", "carrier", "--port", "0", *arguments)
    return await asyncio.create_subprocess_exec(*run, stdin=pipe, stdout=pipe, stderr=pipe)


async def test_the_command_runs_until_it_is_told(tmp_path: Path) -> None:
    """The whole way of an account can be tried without one."""
    log = tmp_path / "carrier.jsonl"
    options = ("--account", "901234:1234", "--log", str(log), "--set", "reports=never")
    process = await command("--protocol", "cmpp30", *options)
    assert process.stdin is not None
    assert process.stdout is not None
    host, _, port = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip().partition(":")
    client = Client(*await asyncio.open_connection(host, int(port)))
    await client.ask(CMPP_LOGIN)
    await client.ask(cmpp_submit([NUMBER]))
    process.stdin.write(f"reply {NUMBER} 1\n".encode())
    assert (await client.pdu())[20:29] == b"106590001"
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    client.writer.close()
    assert [each["kind"] for each in read(log)] == ["login", "submit", "reply", "closed"]


@pytest.mark.parametrize("wrong", [("--fault", "vanish=1"), ("--listener", "127.0.0.1")])
async def test_the_command_refuses_what_it_cannot_do(tmp_path: Path, wrong: tuple[str, str]) -> None:
    """A misspelt fault would make a trial that proves nothing."""
    process = await command("--protocol", "sgip", *wrong, "--log", str(tmp_path / "log"))
    _, told = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert wrong[1].partition("=")[0].encode() in told
