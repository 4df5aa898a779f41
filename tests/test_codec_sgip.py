"""SGIP 1.2: golden octets written from the specification's tables by hand, node ids, sequences, the inbound login."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels._field import WireError
from channels._meaning import Decision
from channels._pdu import Pdu
from channels._sgip import (
    CODEC,
    SMG_TO_SP,
    SP_TO_SMG,
    Bind,
    BindResp,
    Deliver,
    DeliverResp,
    Report,
    ReportResp,
    Sequence,
    Submit,
    SubmitResp,
    Trace,
    TraceNode,
    TraceResp,
    Unbind,
    UnbindResp,
    UserRpt,
    UserRptResp,
    admitted,
    node_id,
)
from channels._sgip_code import report_meaning, result_meaning

SEQUENCE = Sequence(3039612345, 301053801, 7)
# 3039612345 = 0xB52CCDB9; 0301053801, 1 March, is the integer 301053801 = 0x11F1B769.
WORDS = b"\xb5\x2c\xcd\xb9\x11\xf1\xb7\x69\x00\x00\x00\x07"


def framed(length: int, command: int, body: bytes) -> bytes:
    """Set a header before a body: Message Length, Command ID, Sequence Number of three words."""
    return length.to_bytes(4, "big") + command.to_bytes(4, "big") + WORDS + body


SUBMIT = Submit(
    sp_number="10655033",
    user_numbers=("8613100000001", "8613100000002"),
    corp_id="12345",
    service_type="YJXX",
    priority=9,
    message_content=b"\x52\x30\x5c\x97",
)
SUBMIT_BODY = (
    b"10655033" + bytes(13)  # SPNumber, 21
    + b"000000000000000000000"  # ChargeNumber, 21: the SP pays
    b"\x02"  # UserCount
    b"8613100000001" + bytes(8)  # UserNumber, 21
    + b"8613100000002" + bytes(8)
    + b"12345"  # CorpId, 5
    b"YJXX\x00\x00\x00\x00\x00\x00"  # ServiceType, 10
    b"\x01"  # FeeType: free
    b"0\x00\x00\x00\x00\x00"  # FeeValue, 6
    b"0\x00\x00\x00\x00\x00"  # GivenValue, 6
    b"\x00"  # AgentFlag
    b"\x02"  # MorelatetoMTFlag: the user did not ask
    b"\x09"  # Priority
    + bytes(16)  # ExpireTime, 16
    + bytes(16)  # ScheduleTime, 16
    + b"\x01"  # ReportFlag: always
    b"\x00"  # TP_pid
    b"\x00"  # TP_udhi
    b"\x08"  # MessageCoding: UCS-2
    b"\x00"  # MessageType
    b"\x00\x00\x00\x04"  # MessageLength, 4
    b"\x52\x30\x5c\x97"  # MessageContent: 到岗
    + bytes(8)  # Reserve, 8
)  # fmt: skip
ANSWER = b"\x06" + bytes(8)  # Result, Reserve

GOLDEN = [
    (
        Bind(SP_TO_SMG, "county", "sample"),
        # 61 = 20 + 41: Login Type 1, Login Name 16, Login Password 16, Reserve 8
        framed(61, 0x1, b"\x01" b"county" + bytes(10) + b"sample" + bytes(10) + bytes(8)),
    ),
    (BindResp(6), framed(29, 0x8000_0001, ANSWER)),
    (Unbind(), framed(20, 0x2, b"")),
    (UnbindResp(), framed(20, 0x8000_0002, b"")),
    (SUBMIT, framed(189, 0x3, SUBMIT_BODY)),  # 143 + 2 × 21 + 4
    (SubmitResp(6), framed(29, 0x8000_0003, ANSWER)),
    (
        Deliver(user_number="8613100000001", sp_number="10655033", message_content=b"\x00\x31"),
        framed(
            79, 0x4,  # 20 + 57 + 2
            b"8613100000001" + bytes(8)  # UserNumber, 21
            + b"10655033" + bytes(13)  # SPNumber, 21
            + b"\x00\x00\x08"  # TP_pid, TP_udhi, MessageCoding
            b"\x00\x00\x00\x02\x00\x31"  # MessageLength, MessageContent: 1
            + bytes(8),  # Reserve
        ),
    ),
    (DeliverResp(6), framed(29, 0x8000_0004, ANSWER)),
    (
        Report(SEQUENCE.octets, 0, "8613100000001", 2, 25),
        framed(
            64, 0x5,  # 20 + 44
            WORDS  # SubmitSequenceNumber, 12
            + b"\x00"  # ReportType: of a submit
            b"8613100000001" + bytes(8)  # UserNumber, 21
            + b"\x02"  # State: failed
            b"\x19"  # ErrorCode 25
            + bytes(8),  # Reserve
        ),
    ),
    (ReportResp(6), framed(29, 0x8000_0005, ANSWER)),
    (
        UserRpt("10655033", "8613100000001", 1),
        framed(71, 0x11, b"10655033" + bytes(13) + b"8613100000001" + bytes(8) + b"\x01" + bytes(8)),
    ),
    (UserRptResp(6), framed(29, 0x8000_0011, ANSWER)),
    (Trace(SEQUENCE.octets, "8613100000001"), framed(61, 0x1000, WORDS + b"8613100000001" + bytes(8) + bytes(8))),
    (
        TraceResp((TraceNode(0, "100001", "261126053000032+", "261126053001032+"), TraceNode(11, "100002"))),
        framed(
            115, 0x8000_1000,  # 20 + 1 + 2 × 47
            b"\x02"  # Count
            b"\x00" b"100001" b"261126053000032+" b"261126053001032+" + bytes(8)  # Result, NodeId, times, Reserve
            + b"\x0b" b"100002" + bytes(16 + 16 + 8),
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("pdu", "octets"), GOLDEN, ids=[type(pdu).__name__ for pdu, _ in GOLDEN])
def test_octets_are_what_the_specification_says(pdu: Pdu, octets: bytes) -> None:
    """Written out by hand from chapter 4: a real gateway has no other opinion."""
    assert CODEC.encode(SEQUENCE, pdu) == octets
    assert CODEC.decode(octets) == (SEQUENCE, pdu)


def test_a_goodbye_is_read_with_and_without_a_body() -> None:
    """Gateways send both; a session that ends in an error would raise a false alarm every idle minute."""
    assert CODEC.decode(framed(29, 0x8000_0002, b"\x00" + bytes(8))).pdu == UnbindResp()


def test_a_node_id_is_built_from_area_and_corporation() -> None:
    """The carrier refuses every submit under another node's id."""
    assert node_id("0396", "12345") == 3039612345
    assert node_id("010", "00001") == 3010000001
    for area, corp in (("0396", "1234"), ("03961", "12345"), ("0396", "1234５"), ("-396", "12345")):
        with pytest.raises(WireError):
            node_id(area, corp)


def test_a_sequence_carries_the_carriers_clock_as_an_integer() -> None:
    """T17: 1 March 05:38:01 is 301053801, without the zero its text would have."""
    first = Sequence(3039612345, 0, 6)
    assert first.next(datetime(2026, 2, 28, 21, 38, 1, tzinfo=UTC)) == SEQUENCE
    assert SEQUENCE.octets == WORDS
    assert first._replace(counter=0xFFFF_FFFF).next(datetime(2026, 12, 31, tzinfo=UTC)).counter == 0


@given(st.binary(min_size=12, max_size=12))
def test_the_sequence_of_a_report_is_the_submits(octets: bytes) -> None:
    """The twelve octets are the key to the person: nothing may be lost on the way."""
    assert Sequence.of(octets).octets == octets


def test_only_the_gateway_may_connect_to_us() -> None:
    """T19: whoever reaches our port could otherwise report whole townships as delivered."""
    assert admitted(Bind(SMG_TO_SP, "smg", "sample"), "smg", "sample")
    for bind in (
        Bind(SP_TO_SMG, "smg", "sample"),
        Bind(SMG_TO_SP, "smg", "sampl"),
        Bind(SMG_TO_SP, "smg", ""),
        Bind(SMG_TO_SP, "Smg", "sample"),
        Bind(SMG_TO_SP, "smg", "sämple"),
    ):
        assert not admitted(bind, "smg", "sample")


def test_codes_say_what_to_do() -> None:
    """A full queue slows down, an unknown user may be another carrier's, an unlisted failure is a failure."""
    assert result_meaning(0).decision is Decision.DONE
    assert result_meaning(1).decision is Decision.UNUSABLE
    assert result_meaning(11).decision is Decision.THROTTLED
    assert result_meaning(200).decision is Decision.TEMPORARY
    assert report_meaning(0, 0).decision is Decision.DONE
    assert report_meaning(1, 0).decision is Decision.WAIT
    assert report_meaning(2, 25).decision is Decision.TEMPORARY
    assert report_meaning(2, 29).elsewhere
    assert report_meaning(2, 0).decision is Decision.TEMPORARY
    assert report_meaning(9, 0).decision is Decision.UNKNOWN
