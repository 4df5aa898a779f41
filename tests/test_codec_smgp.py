"""SMGP 3.0.3: golden octets written from the specification's tables by hand, digests, optional parameters, reports."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels._field import Fault, WireError
from channels._login import CHINA
from channels._meaning import Decision
from channels._pdu import Pdu
from channels._smgp import (
    CODEC,
    ActiveTest,
    ActiveTestResp,
    Deliver,
    DeliverResp,
    Exit,
    ExitResp,
    Login,
    LoginResp,
    Query,
    QueryResp,
    ReportContent,
    Submit,
    SubmitResp,
    Tag,
    genuine,
    has_header,
    login,
    long_text,
    read_report,
    reference,
)
from channels._smgp_code import report_meaning, result_meaning

MSG_ID = bytes.fromhex("90010111260538000042")  # gateway 900101, 11-26 05:38, sequence 000042
DIGEST = bytes.fromhex("39e22adb6444b5c059b24a07a2b8e3ab")


def framed(length: int, request: int, body: bytes = b"") -> bytes:
    """Set a header before a body: PacketLength, RequestID, SequenceID 5."""
    return length.to_bytes(4, "big") + request.to_bytes(4, "big") + b"\x00\x00\x00\x05" + body


SUBMIT = Submit(
    priority=3,
    service_id="YJXX",
    src_term_id="10659033",
    dest_term_ids=("18900000001", "18900000002"),
    msg_content=b"\x05\x00\x03\x2a\x02\x01\x52\x30",
    parameters=long_text(2, 1),
)
SUBMIT_BODY = (
    b"\x06"  # MsgType: MT
    b"\x01"  # NeedReport
    b"\x03"  # Priority
    b"YJXX\x00\x00\x00\x00\x00\x00"  # ServiceID, 10
    b"00"  # FeeType, 2
    b"000000"  # FeeCode, 6
    b"000000"  # FixedFee, 6
    b"\x08"  # MsgFormat: UCS-2
    + bytes(17)  # ValidTime, 17
    + bytes(17)  # AtTime, 17
    + b"10659033" + bytes(13)  # SrcTermID, 21
    + bytes(21)  # ChargeTermID, 21
    + b"\x02"  # DestTermIDCount
    b"18900000001" + bytes(10)  # DestTermID, 21
    + b"18900000002" + bytes(10)
    + b"\x08"  # MsgLength
    b"\x05\x00\x03\x2a\x02\x01\x52\x30"  # MsgContent: header 05 00 03, reference 42, part 1 of 2; 到
    + bytes(8)  # Reserve, 8
    + b"\x00\x02\x00\x01\x01"  # TP_udhi = 1
    b"\x00\x09\x00\x01\x02"  # PkTotal = 2
    b"\x00\x0a\x00\x01\x01"  # PkNumber = 1
)  # fmt: skip

GOLDEN = [
    (
        Login("00001234", DIGEST, 2, 1123153058),
        # 42 = 12 + 30: ClientID 8, AuthenticatorClient 16, LoginMode 1, TimeStamp 4, ClientVersion 1
        framed(42, 0x1, b"00001234" + DIGEST + b"\x02" b"\x42\xf1\xf4\xa2" b"\x30"),
    ),
    (LoginResp(21), framed(33, 0x8000_0001, b"\x00\x00\x00\x15" + bytes(16) + b"\x30")),
    (SUBMIT, framed(191, 0x2, SUBMIT_BODY)),  # 126 + 2 × 21 + 8 + 3 × 5
    (SubmitResp(MSG_ID, 1), framed(26, 0x8000_0002, MSG_ID + b"\x00\x00\x00\x01")),
    (
        Deliver(msg_id=MSG_ID, recv_time="20261126053859", src_term_id="18900000001", dest_term_id="10659033",
                msg_content=b"\x00\x31", parameters=((Tag.LINK_ID, b"L" * 20),)),
        framed(
            115, 0x3,  # 12 + 77 + 2 + 24
            MSG_ID  # MsgID, 10
            + b"\x00"  # IsReport
            b"\x08"  # MsgFormat
            b"20261126053859"  # RecvTime, 14
            b"18900000001" + bytes(10)  # SrcTermID, 21
            + b"10659033" + bytes(13)  # DestTermID, 21
            + b"\x02\x00\x31"  # MsgLength, MsgContent: 1
            + bytes(8)  # Reserve
            + b"\x00\x03\x00\x14" + b"L" * 20,  # LinkID
        ),
    ),
    (DeliverResp(MSG_ID), framed(26, 0x8000_0003, MSG_ID + b"\x00\x00\x00\x00")),
    (ActiveTest(), framed(12, 0x4)),
    (ActiveTestResp(), framed(12, 0x8000_0004)),
    (Exit(), framed(12, 0x6)),
    (ExitResp(), framed(12, 0x8000_0006)),
    (Query("20261126", 1, "YJXX"), framed(31, 0x7, b"20261126" b"\x01" b"YJXX" + bytes(6))),
    (
        QueryResp("20261126", 1, "YJXX", 10, 1000, 980, 16, 4, 3, 2, 1),
        framed(
            71, 0x8000_0007,  # 12 + 19 + 8 × 4 + 8
            b"20261126" b"\x01" b"YJXX" + bytes(6)  # QueryTime, QueryType, QueryCode
            + bytes.fromhex("0000000a 000003e8 000003d4 00000010 00000004 00000003 00000002 00000001")
            + bytes(8),  # Reserve
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("pdu", "octets"), GOLDEN, ids=[type(pdu).__name__ for pdu, _ in GOLDEN])
def test_octets_are_what_the_specification_says(pdu: Pdu, octets: bytes) -> None:
    """Written out by hand from section 5.2: a real gateway has no other opinion."""
    assert CODEC.encode(5, pdu) == octets
    assert CODEC.decode(octets) == (5, pdu)


@pytest.mark.parametrize(
    ("at", "text", "number"),
    [
        (datetime(2026, 11, 23, 15, 30, 58, tzinfo=CHINA), b"1123153058", 1123153058),
        (datetime(2026, 7, 20, 2, 30, 0, tzinfo=CHINA), b"0720023000", 720023000),
        (datetime(2026, 12, 31, 16, 0, 0, tzinfo=UTC), b"0101000000", 101000000),
    ],
)
def test_login_keeps_the_leading_zero_in_the_digest_only(at: datetime, text: bytes, number: int) -> None:
    """T17: whoever digests the integer is locked out from January to September, the whole flood season."""
    request = login("00001234", "1234", at)
    assert request.time_stamp == number
    assert request.authenticator_client == md5(b"00001234" + bytes(7) + b"1234" + text).digest()


def test_login_is_the_measured_vector() -> None:
    """The digest a real implementation makes."""
    request = login("00001234", "1234", datetime(2026, 11, 23, 15, 30, 58, tzinfo=CHINA))
    assert request.authenticator_client == DIGEST


def test_an_answer_is_genuine_only_with_the_secret() -> None:
    """Who answers without the secret is not the carrier."""
    request = Login("00001234", DIGEST, 2, 1123153058)
    right = md5(bytes(4) + DIGEST + b"1234").digest()
    assert genuine(LoginResp(0, right), request, "1234")
    assert not genuine(LoginResp(0, right), request, "4321")
    assert not genuine(LoginResp(1, right), request, "1234")
    assert not genuine(LoginResp(0), request, "1234")


@pytest.mark.parametrize("tail", [b"\x00", b"\x00\x02\x00", b"\x00\x02\x00\x02\x01", b"\x00\x02\xff\xff"])
def test_a_parameter_longer_than_the_frame_is_an_error(tail: bytes) -> None:
    """Its octets would be another frame's."""
    frame = CODEC.encode(5, SUBMIT) + tail
    with pytest.raises(WireError) as caught:
        CODEC.decode(len(frame).to_bytes(4, "big") + frame[4:])
    assert (caught.value.fault, caught.value.sequence) == (Fault.CUT, 5)


def test_a_reply_in_parts_is_known_by_its_parameter() -> None:
    """Otherwise the header would be read as the first characters of what a village reports."""
    reply = Deliver(msg_id=MSG_ID, src_term_id="1", dest_term_id="2", msg_content=b"")
    marked = Deliver(msg_id=MSG_ID, src_term_id="1", dest_term_id="2", msg_content=b"", parameters=((2, b"\x01"),))
    assert not has_header(reply)
    assert has_header(marked)


def report(msg_id: bytes, text: bytes = b"") -> bytes:
    return (
        b"id:" + msg_id + b" sub:001 dlvrd:001 submit date:2611260530 done date:2611260531 stat:UNDELIV err:004 text:"
        + text
    )  # fmt: skip


@given(st.binary(min_size=10, max_size=10), st.binary(max_size=20))
def test_the_id_of_a_report_is_raw(msg_id: bytes, text: bytes) -> None:
    """T18: ten octets that may hold spaces, colons, zeros, even " sub:"; read as text, no report would match."""
    found = read_report(report(msg_id, text))
    assert found == ReportContent(msg_id, "001", "001", "2611260530", "2611260531", "UNDELIV", "004", text)


@pytest.mark.parametrize("msg_id", [b"id: sub:00", b" sub:001 d", bytes(10), b"\x20" * 10, b"\xff\x3a\x0a" * 3 + b":"])
def test_ids_that_look_like_labels(msg_id: bytes) -> None:
    """The nastiest of them, by name."""
    assert read_report(report(msg_id)).msg_id == msg_id


def test_gateways_spell_their_labels_differently() -> None:
    """Case, underscores and "txt" differ between makers; widths do not."""
    content = b"ID:" + MSG_ID + b" Sub:001 Dlvrd:000 Submit_Date:2611260530 Done_Date:2611260531 Stat:EXPIRED Err:001"
    assert read_report(content) == ReportContent(
        MSG_ID, "001", "000", "2611260530", "2611260531", "EXPIRED", "001", b""
    )  # fmt: skip
    assert read_report(content + b" Txt:abc").text == b"abc"
    assert reference(MSG_ID) == "90010111260538000042"


@pytest.mark.parametrize(
    "content",
    [b"", b"id:", b"id:" + MSG_ID, report(MSG_ID)[3:], report(MSG_ID)[:-20], b"it:" + report(MSG_ID)[3:],
     report(MSG_ID[:9])],
)  # fmt: skip
def test_a_report_without_its_labels_is_refused(content: bytes) -> None:
    """Nothing is guessed: it is kept for a person instead of marking the wrong one as reached."""
    with pytest.raises(WireError) as caught:
        read_report(content)
    assert caught.value.fault is Fault.VALUE


def test_codes_say_what_to_do() -> None:
    """Busy slows down, a wrong address switches off; the state says whether, the error why."""
    assert result_meaning(0).decision is Decision.DONE
    assert result_meaning(1).decision is Decision.THROTTLED
    assert result_meaning(20).decision is Decision.UNUSABLE
    assert result_meaning(47).elsewhere
    assert result_meaning(999).decision is Decision.TEMPORARY
    assert report_meaning("DELIVRD", "000").decision is Decision.DONE
    assert report_meaning("DELIVRD", "001").decision is Decision.DONE
    assert report_meaning("ACCEPTD", "000").decision is Decision.WAIT
    assert report_meaning("EXPIRED", "007").english == "handset memory full"
    assert report_meaning("UNDELIV", "000").decision is Decision.PERMANENT
    assert report_meaning("UNDELIV", "123").decision is Decision.PERMANENT
    assert report_meaning("ODD", "").decision is Decision.UNKNOWN
