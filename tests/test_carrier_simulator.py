"""The simulated carriers, spoken to in bytes built here by hand from the specifications' tables.

Neither the simulators' nor the channels' code makes a request: what both read alike and wrong would not be noticed.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.simulate.carrier import PROTOCOLS, Account, Carrier, Scenario, revise, settings
from gateway.simulate.carrier.text import Assembly, Part, decode, encode, split_header
from gateway.simulate.log import Log, read

ACCOUNTS = (Account("901234", "1234", 2), Account("00001234", "1234", 2))
NUMBER = "10000000001"
# Source_Addr "901234", secret "1234", timestamp 1123153058: MD5 worked out from the formula.
CMPP_LOGIN = bytes.fromhex("0000002700000001000000013930313233" + "3420dce6adc8bcbc1a0555676f30a95f043042f1f4a2")
CMPP20_LOGIN = CMPP_LOGIN[:34] + b"\x20" + CMPP_LOGIN[35:]
SMGP_LOGIN = bytes.fromhex(
    "0000002a0000000100000001" + b"00001234".hex() + "39e22adb6444b5c059b24a07a2b8e3ab" + "02" + "42f1f4a2" + "30"
)
SGIP_SEQUENCE = bytes.fromhex("b52cacd9" + "42f1f4a2" + "00000000")
SGIP_BIND = bytes.fromhex("0000003d00000001") + SGIP_SEQUENCE + b"\1" + b"901234".ljust(16, b"\0")
SGIP_BIND += b"1234".ljust(16, b"\0") + bytes(8)
SMPP_BIND = (
    bytes.fromhex("0000002300000009" + "00000000" + "00000001") + b"901234\0" + b"1234\0\0" + b"\x34\0\0\0\0\0\0"
)
SMPP_BIND = (len(SMPP_BIND)).to_bytes(4, "big") + SMPP_BIND[4:]
LOGINS = {"cmpp30": CMPP_LOGIN, "cmpp20": CMPP20_LOGIN, "sgip": SGIP_BIND, "smgp": SMGP_LOGIN, "smpp": SMPP_BIND}


class Client:
    """A socket that sends bytes and reads whole PDUs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def pdu(self) -> bytes:
        length = await asyncio.wait_for(self.reader.readexactly(4), 5)
        return length + await asyncio.wait_for(self.reader.readexactly(int.from_bytes(length, "big") - 4), 5)

    async def ask(self, request: bytes) -> bytes:
        self.writer.write(request)
        return await self.pdu()

    async def gone(self) -> bytes:
        """Return what comes until the connection ends."""
        try:
            return await asyncio.wait_for(self.reader.read(), 5)
        except ConnectionError:
            return b"reset"


class WatchedLog(Log):
    """A log that says when it grows."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.grown = asyncio.Event()

    def extend(self, entries: Iterable[tuple[str, Mapping[str, object]]]) -> None:
        super().extend(entries)
        self.grown.set()


class Bench:
    """A carrier, its log, and clients."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "carrier.jsonl"
        self.clients: list[Client] = []
        self.carrier: Carrier

    async def start(self, protocol: str, accounts: tuple[Account, ...] = ACCOUNTS, **scenario: Any) -> Carrier:
        self.protocol = protocol
        self.log = WatchedLog(self.path)
        self.carrier = Carrier(PROTOCOLS[protocol], self.log, accounts, revise(Scenario(), scenario))
        self.port = await self.carrier.start()
        return self.carrier

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def login(self) -> Client:
        client = await self.connect()
        await client.ask(LOGINS[self.protocol])
        return client

    def entries(self, kind: str = "") -> list[dict[str, Any]]:
        self.carrier.flush()
        return read(self.path, kind)

    async def until(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        async with asyncio.timeout(5):
            while len(self.entries(kind)) < count:
                self.log.grown.clear()
                await self.log.grown.wait()
        return self.entries(kind)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for client in bench.clients:
        client.writer.close()
    await bench.carrier.stop()


def pad(text: str, size: int) -> bytes:
    return text.encode().ljust(size, b"\0")


def cmpp_submit(
    numbers: list[str], sequence: int = 2, content: bytes = b"test", coding: int = 0, udhi: int = 0, report: int = 1,
    width: int = 32, sp: str = "901234",
) -> bytes:  # fmt: skip
    v3 = width == 32
    body = bytes(8) + b"\1\1" + bytes((report,)) + b"\0" + pad("WARN", 10) + b"\0" + bytes(width)
    body += (b"\0" if v3 else b"") + b"\0" + bytes((udhi, coding)) + pad(sp, 6) + b"01" + pad("0", 6) + bytes(34)
    body += pad("106590001", 21) + bytes((len(numbers),)) + b"".join(pad(number, width) for number in numbers)
    body += (b"\0" if v3 else b"") + bytes((len(content),)) + content + bytes(20 if v3 else 8)
    return (12 + len(body)).to_bytes(4, "big") + bytes.fromhex("00000004") + sequence.to_bytes(4, "big") + body


def sgip_submit(numbers: list[str], flag: int = 1, content: bytes = b"test") -> bytes:
    body = pad("106550001", 21) + b"0" * 21 + bytes((len(numbers),)) + b"".join(pad(n, 21) for n in numbers)
    body += pad("12345", 5) + pad("WARN", 10) + b"\1" + pad("0", 6) + pad("0", 6) + b"\0\2\0" + bytes(32)
    body += bytes((flag, 0, 0, 0, 0)) + len(content).to_bytes(4, "big") + content + bytes(8)
    return (20 + len(body)).to_bytes(4, "big") + bytes.fromhex("00000003") + SGIP_SEQUENCE + body


def smgp_submit(numbers: list[str], parameters: bytes = b"", content: bytes = b"test", coding: int = 0) -> bytes:
    body = b"\6\1\0" + pad("WARN", 10) + b"00" + pad("0", 6) + pad("0", 6) + bytes((coding,)) + bytes(34)
    body += pad("106590001", 21) + bytes(21) + bytes((len(numbers),)) + b"".join(pad(n, 21) for n in numbers)
    body += bytes((len(content),)) + content + bytes(8) + parameters
    return (12 + len(body)).to_bytes(4, "big") + bytes.fromhex("0000000200000002") + body


def smpp_submit(number: str, content: bytes = b"test", esm_class: int = 0, parameters: bytes = b"") -> bytes:
    body = b"\0\0\x01" + b"106590001\0" + b"\1\1" + number.encode() + b"\0" + bytes((esm_class, 0, 0, 0, 0, 1, 0, 0, 0))
    body += bytes((len(content),)) + content + parameters
    return (16 + len(body)).to_bytes(4, "big") + bytes.fromhex("000000040000000000000002") + body


SUBMITS: dict[str, Callable[[], bytes]] = {
    "cmpp30": lambda: cmpp_submit([NUMBER]),
    "cmpp20": lambda: cmpp_submit([NUMBER], width=21),
    "sgip": lambda: sgip_submit(["86" + NUMBER]),
    "smgp": lambda: smgp_submit([NUMBER]),
    "smpp": lambda: smpp_submit(NUMBER),
}


# -- CMPP --------------------------------------------------------------------------------------------------------------


async def test_cmpp_answers_a_right_login_with_its_own_digest(bench: Bench) -> None:
    """Status 0 and MD5 of status, the client's digest and the secret, so the client knows it reached the carrier."""
    await bench.start("cmpp30")
    client = await bench.connect()
    expected = "0000002180000001000000010000" + "0000" + "e165f664bb8576e8ead84a5578787b51" + "30"
    assert (await client.ask(CMPP_LOGIN)).hex() == expected


async def test_cmpp_2_has_a_status_of_one_byte(bench: Bench) -> None:
    """A client that reads four would take the digest's first bytes for a refusal."""
    await bench.start("cmpp20")
    client = await bench.connect()
    assert (await client.ask(CMPP20_LOGIN)).hex() == "0000001e800000010000000100edccfddaa97217e36fda17373b407e9420"


async def test_cmpp_a_digest_without_the_leading_zero_is_refused(bench: Bench) -> None:
    """The classic bug of January to September: the digest covers the ten characters, the field is an integer."""
    await bench.start("cmpp30")
    for text, status in ((b"0301000000", 0), (b"301000000", 3)):
        digest = hashlib.md5(b"901234" + bytes(9) + b"1234" + text).digest()
        login = CMPP_LOGIN[:18] + digest + b"\x30" + (301000000).to_bytes(4, "big")
        answer = await (await bench.connect()).ask(login)
        assert int.from_bytes(answer[12:16], "big") == status


@pytest.mark.parametrize(
    ("login", "status"),
    [
        (CMPP_LOGIN[:12] + b"999999" + CMPP_LOGIN[18:], 2),
        (CMPP_LOGIN[:20] + b"\0" + CMPP_LOGIN[21:], 3),
        (CMPP20_LOGIN, 4),
        (b"\0\0\0\x26" + CMPP_LOGIN[4:-1], 1),
    ],
    ids=["unknown", "wrong secret", "wrong version", "too short"],
)
async def test_cmpp_a_refused_login_ends_the_connection(bench: Bench, login: bytes, status: int) -> None:
    """Each reason has its code, and nobody stays connected without a login."""
    await bench.start("cmpp30")
    client = await bench.connect()
    assert int.from_bytes((await client.ask(login))[12:16], "big") == status
    assert await client.gone() == b""


async def test_an_account_has_so_many_connections(bench: Bench) -> None:
    """Carriers count them: two processes that both take all of them would lock each other out."""
    await bench.start("cmpp30")
    await bench.login()
    second = await bench.login()
    third = await bench.connect()
    assert (await third.ask(CMPP_LOGIN))[12:16] == b"\0\0\0\5"
    second.writer.close()
    await bench.until("closed", 2)
    assert (await (await bench.connect()).ask(CMPP_LOGIN))[12:16] == bytes(4)


async def test_cmpp_takes_a_bulk_and_reports_each_number_under_an_id_of_its_own(bench: Bench) -> None:
    """Only the first Msg_Id is ever answered; the reports of the others carry it + n, in 71 bytes each."""
    await bench.start("cmpp30")
    client = await bench.login()
    numbers = [f"1000000000{n}" for n in range(3)]
    answer = await client.ask(cmpp_submit(numbers, content="预警".encode("utf-16-be"), coding=8))
    assert answer[:12].hex() == "000000188000000400000002"
    assert answer[20:] == bytes(4)
    first = int.from_bytes(answer[12:20], "big")
    for n, number in enumerate(numbers):
        deliver = await client.pdu()
        assert deliver[:8].hex() == "000000b400000005"
        assert deliver[20:41] == pad("106590001", 21)  # Dest_Id: the SP's number
        assert deliver[54:86] == pad(number, 32)  # Src_terminal_Id
        assert deliver[87:89] == b"\1\x47"  # Registered_Delivery, Msg_Length
        content = deliver[89:160]
        assert content[:8] == (first + n).to_bytes(8, "big")
        assert content[8:15] == b"DELIVRD"
        assert re.fullmatch(rb"\d{20}", content[15:35])
        assert content[35:67] == pad(number, 32)
        assert deliver[160:] == bytes(20)
        client.writer.write(bytes.fromhex("0000001880000005") + deliver[8:20] + bytes(4))
    acks = await bench.until("ack", 3)
    assert [each["number"] for each in acks] == numbers
    (submit,) = bench.entries("submit")
    assert (submit["numbers"], submit["text"], submit["id"]) == (numbers, "预警", f"{first:016x}")


async def test_cmpp_2_lays_out_its_report_in_60_bytes(bench: Bench) -> None:
    """Numbers have 21 bytes there and no type."""
    await bench.start("cmpp20")
    client = await bench.login()
    answer = await client.ask(cmpp_submit([NUMBER], width=21))
    assert (len(answer), answer[20:]) == (21, b"\0")
    deliver = await client.pdu()
    assert len(deliver) == 12 + 8 + 21 + 10 + 3 + 21 + 2 + 60 + 8
    content = deliver[77:137]
    assert content[:8] == answer[12:20]
    assert content[35:56] == pad(NUMBER, 21)
    client.writer.write(bytes.fromhex("0000001580000005") + deliver[8:20] + b"\0")
    assert (await bench.until("ack"))[0]["id"] == answer[12:20].hex()


async def test_cmpp_one_bad_number_loses_the_whole_bulk(bench: Bench) -> None:
    """So does a number the carrier does not serve: the client has to find the offender itself."""
    await bench.start("cmpp30", bad=["10000000009"])
    client = await bench.login()
    for offender in ("12345", "10000000009", "0396-1234567"):
        answer = await client.ask(cmpp_submit([NUMBER, offender]))
        assert int.from_bytes(answer[20:24], "big") == 13
    assert bench.entries("submit") == []
    assert [each["code"] for each in bench.entries("refused")] == [13, 13, 13]


@pytest.mark.parametrize(
    ("submit", "code"),
    [
        (cmpp_submit([]), 1),
        (cmpp_submit([NUMBER] * 100), 1),
        (cmpp_submit([NUMBER], content=bytes(141), coding=8), 6),
        (cmpp_submit([NUMBER], sp="777777"), 11),
    ],
    ids=["no number", "100 numbers", "141 bytes", "another SP"],
)
async def test_cmpp_refuses_what_the_tables_forbid(bench: Bench, submit: bytes, code: int) -> None:
    """A client bug must show against the simulator, not on the night it matters."""
    await bench.start("cmpp30")
    client = await bench.login()
    assert int.from_bytes((await client.ask(submit))[20:24], "big") == code


async def test_bulk_reports_may_repeat_one_id(bench: Bench) -> None:
    """Some gateways give every report of a bulk the one id they answered."""
    await bench.start("cmpp30", bulk_ids="one")
    client = await bench.login()
    answer = await client.ask(cmpp_submit([NUMBER, "10000000002"]))
    assert {(await client.pdu())[89:97] for _ in range(2)} == {answer[12:20]}


# -- SGIP --------------------------------------------------------------------------------------------------------------


async def test_sgip_checks_the_login(bench: Bench) -> None:
    """Plain password, login type, and no second Bind on a connection."""
    await bench.start("sgip")
    wrong = SGIP_BIND[:37] + b"4321" + SGIP_BIND[41:]
    for bind, code in ((wrong, 1), (SGIP_BIND[:20] + b"\2" + SGIP_BIND[21:], 4)):
        answer = await (await bench.connect()).ask(bind)
        assert answer == bytes.fromhex("0000001d80000001") + SGIP_SEQUENCE + bytes((code,)) + bytes(8)
    client = await bench.connect()
    assert (await client.ask(SGIP_BIND))[20] == 0
    assert (await client.ask(SGIP_BIND))[20] == 2


class Listener:
    """The SP's end that the carrier connects to."""

    def __init__(self) -> None:
        self.pdus: asyncio.Queue[bytes] = asyncio.Queue()
        self._server: asyncio.Server | None = None

    async def open(self, port: int = 0) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(reader, writer)
        try:
            while True:
                pdu = await client.pdu()
                await self.pdus.put(pdu)
                size = 20 if pdu[4:8] == b"\0\0\0\2" else 29
                writer.write(size.to_bytes(4, "big") + b"\x80" + pdu[5:20] + bytes(size - 20))
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            writer.close()


async def test_sgip_connects_back_with_reports_and_replies_and_takes_leave(bench: Bench) -> None:
    """Reports never come on the SP's own connection: the carrier calls, Bind type 2, and unbinds when all is told."""
    listener = Listener()
    account = Account("901234", "1234", 2, listener=f"127.0.0.1:{await listener.open()}")
    carrier = await bench.start("sgip", (account,), linger_s=0.05, stats={"10000000002": "27"})
    client = await bench.login()
    answer = await client.ask(sgip_submit(["86" + NUMBER, "8610000000002"]))
    assert answer == bytes.fromhex("0000001d80000003") + SGIP_SEQUENCE + bytes(9)
    bind = await listener.pdus.get()
    assert bind[:8].hex() == "0000003d00000001"
    assert bind[20:] == b"\2" + pad("901234", 16) + pad("1234", 16) + bytes(8)
    for number, end in ((NUMBER, b"\0\0"), ("10000000002", b"\2\x1b")):
        report = await listener.pdus.get()
        assert report[:8].hex() == "0000004000000005"
        assert report[20:32] == SGIP_SEQUENCE
        assert report[32:] == b"\0" + pad("86" + number, 21) + end + bytes(8)
    carrier.reply(NUMBER, "收到")
    reply = await listener.pdus.get()
    assert reply[4:8] == b"\0\0\0\4"
    text = "收到".encode("utf-16-be")
    assert reply[20:] == pad("86" + NUMBER, 21) + pad("106550001", 21) + b"\0\0\x08\0\0\0\4" + text + bytes(8)
    assert (await listener.pdus.get())[4:8] == b"\0\0\0\2"  # Unbind
    await bench.until("closed")
    assert len(await bench.until("ack", 3)) == 3
    await listener.close()


async def test_sgip_keeps_reports_until_the_listener_is_there(bench: Bench) -> None:
    """A gateway that restarts has missed nothing."""
    probe = socket.create_server(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    await bench.start("sgip", (Account("901234", "1234", listener=f"127.0.0.1:{port}"),), linger_s=0.02)
    client = await bench.login()
    await client.ask(sgip_submit(["86" + NUMBER]))
    await bench.until("unreachable")
    listener = Listener()
    await listener.open(port)
    assert (await bench.until("ack"))[0]["number"] == NUMBER
    await listener.close()


async def test_sgip_wants_86_before_a_number_and_heeds_the_report_flag(bench: Bench) -> None:
    """Error 6 without it; flag 0 asks for failures only, flag 2 for nothing."""
    await bench.start("sgip", stats={"10000000002": "25"})
    client = await bench.login()
    assert (await client.ask(sgip_submit([NUMBER])))[20] == 6
    await client.ask(sgip_submit(["86" + NUMBER, "8610000000002"], flag=0))
    await client.ask(sgip_submit(["86" + NUMBER], flag=2))
    (line,) = [each for each in bench.carrier.lines.values() if each.parked]
    assert [item.number for item in line.parked] == ["10000000002"]


async def test_sgip_closes_an_idle_connection(bench: Bench) -> None:
    """There is no heartbeat: the client connects when it has something to send."""
    await bench.start("sgip", idle_s=0.05)
    client = await bench.login()
    assert await client.gone() == b""


# -- SMGP --------------------------------------------------------------------------------------------------------------


async def test_smgp_login_submit_and_report_byte_by_byte(bench: Bench) -> None:
    """The report is a text with a binary id in it: 122 bytes of fixed offsets."""
    await bench.start("smgp", stats={"10000000002": "EXPIRED/001"})
    client = await bench.connect()
    answer = await client.ask(SMGP_LOGIN)
    digest = hashlib.md5(bytes(4) + SMGP_LOGIN[20:36] + b"1234").digest()
    assert answer == bytes.fromhex("0000002180000001" + "00000001" + "00000000") + digest + b"\x30"
    answer = await client.ask(smgp_submit([NUMBER, "10000000002"]))
    assert answer[:12].hex() == "0000001a8000000200000002"
    assert answer[22:] == bytes(4)
    message = answer[12:22]
    assert re.fullmatch(r"000396\d{14}", message.hex())
    for number, stat, told in ((NUMBER, b"DELIVRD err:000", b"001"), ("10000000002", b"EXPIRED err:001", b"000")):
        deliver = await client.pdu()
        assert deliver[4:8] == b"\0\0\0\3"
        assert deliver[22:24] == b"\1\0"  # IsReport, MsgFormat
        assert deliver[38:80] == pad(number, 21) + pad("106590001", 21)
        assert (deliver[80], len(deliver)) == (122, 12 + 69 + 122 + 8)
        content = deliver[81:203]
        assert content[:14] == b"id:" + message + b" "
        assert content[14:31] == b"sub:001 dlvrd:" + told
        assert re.fullmatch(rb" Submit date:\d{10} done date:\d{10} stat:", content[31:81])
        assert content[81:] == stat + b" text:" + pad("test", 20)
        client.writer.write(bytes.fromhex("0000001a80000003") + deliver[8:22] + bytes(4))
    assert {each["id"] for each in await bench.until("ack", 2)} == {message.hex()}


async def test_smgp_a_connection_that_only_sends_gets_no_reports(bench: Bench) -> None:
    """LoginMode 0 sends, 1 receives: reports wait for a connection that does."""
    await bench.start("smgp")
    sending = await bench.connect()
    await sending.ask(SMGP_LOGIN[:36] + b"\0" + SMGP_LOGIN[37:])
    await sending.ask(smgp_submit([NUMBER]))
    receiving = await bench.connect()
    await receiving.ask(SMGP_LOGIN[:36] + b"\1" + SMGP_LOGIN[37:])
    assert (await receiving.pdu())[4:8] == b"\0\0\0\3"
    assert (await receiving.ask(smgp_submit([NUMBER])))[22:] == b"\0\0\0\x0a"


async def test_smgp_reads_its_optional_parameters(bench: Bench) -> None:
    """TP_udhi stands among them; a list that overruns the packet is a broken structure."""
    await bench.start("smgp")
    client = await bench.login()
    parameters = bytes.fromhex("0002000101" + "0009000102" + "000a000101")
    content = bytes.fromhex("050003070201") + "前".encode("utf-16-be")
    await client.ask(smgp_submit([NUMBER], parameters, content, 8))
    (submit,) = bench.entries("submit")
    assert (submit["part"], submit["pk"], submit["text"]) == ([7, 2, 1], [2, 1], "前")
    client = await bench.login()
    assert (await client.ask(smgp_submit([NUMBER], b"\0\2\xff\xff\1")))[22:] == b"\0\0\0\x0a"


# -- SMPP --------------------------------------------------------------------------------------------------------------


async def test_smpp_bind_submit_and_receipt(bench: Bench) -> None:
    """Receipts come as deliver_sm with esm_class 4 and the text of appendix B."""
    await bench.start("smpp", stats={"10000000002": "UNDELIV/007"})
    client = await bench.connect()
    answer = await client.ask(SMPP_BIND)
    assert answer[4:16].hex() == "800000090000000000000001"
    for number, stat in ((NUMBER, "DELIVRD err:000"), ("10000000002", "UNDELIV err:007")):
        answer = await client.ask(smpp_submit(number))
        assert answer[4:16].hex() == "800000040000000000000002"
        message = answer[16:-1].decode()
        receipt = await client.pdu()
        assert receipt[4:12].hex() == "0000000500000000"
        head = b"\0\1\1" + number.encode() + b"\0\0\1" + b"106590001\0" + bytes.fromhex("040000000000000000")
        assert receipt[16 : 16 + len(head)] == head
        text = receipt[16 + len(head) + 1 :].decode()
        told = "001" if stat.startswith("D") else "000"
        form = rf"id:{message} sub:001 dlvrd:{told} submit date:\d{{10}} done date:\d{{10}} stat:{stat} text:"
        assert re.fullmatch(form, text)
    assert (await client.ask(bytes.fromhex("00000010000000150000000000000009"))).hex() == (
        "00000010800000150000000000000009"
    )


async def test_smpp_says_why_a_bind_or_submit_is_refused(bench: Bench) -> None:
    """Password 0x0E, system id 0x0F, not bound 4, bad address 0x0B, unknown command generic_nack 3."""
    await bench.start("smpp")
    for bind, status in (
        (SMPP_BIND.replace(b"1234\0\0", b"9999\0\0"), 0x0E),
        (SMPP_BIND.replace(b"9012", b"9013"), 15),
    ):
        assert (await (await bench.connect()).ask(bind))[8:12] == status.to_bytes(4, "big")
    client = await bench.connect()
    assert (await client.ask(smpp_submit(NUMBER)))[8:12] == b"\0\0\0\4"
    await client.ask(SMPP_BIND)
    assert (await client.ask(smpp_submit("123")))[8:12] == b"\0\0\0\x0b"
    assert (await client.ask(bytes.fromhex("00000010000000210000000000000005"))).hex() == (
        "00000010800000000000000300000005"
    )


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
    parts = [await client.pdu() for _ in range(2)]
    assert {part[20:31] for part in parts} == {b"10659000188"}
    contents = [part[89 : 89 + part[88]] for part in parts]
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
