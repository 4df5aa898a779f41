"""Each simulated carrier, byte by byte against the tables of its specification."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from carrier_support import (
    CMPP20_LOGIN,
    CMPP_LOGIN,
    LOGINS,
    NUMBER,
    SGIP_BIND,
    SGIP_SEQUENCE,
    SMGP_LOGIN,
    SMPP_BIND,
    Bench,
    Client,
    cmpp_submit,
    pad,
    sgip_submit,
    smgp_submit,
    smpp_submit,
)

from gateway.simulate.carrier import Account


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.stop()


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


@pytest.mark.parametrize(
    ("protocol", "secret", "full"),
    [("cmpp20", 3, 5), ("cmpp30", 3, 5), ("sgip", 1, 3), ("smgp", 21, 2), ("smpp", 14, 13)],
)
async def test_each_protocol_has_codes_for_a_wrong_secret_and_too_many_connections(
    bench: Bench, protocol: str, secret: int, full: int
) -> None:
    """The operator is told which of the two to mend."""
    await bench.start(protocol, (Account("901234", "4321"), Account("00001234", "4321")))
    end = 12 if protocol == "smpp" else 21 if protocol == "sgip" else 13 if protocol == "cmpp20" else 16
    assert (await (await bench.connect()).ask(LOGINS[protocol]))[end - 1] == secret
    await bench.carrier.stop()
    await bench.start(protocol, (Account("901234", "1234", 1), Account("00001234", "1234", 1)))
    await bench.login()
    assert (await (await bench.connect()).ask(LOGINS[protocol]))[end - 1] == full


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
