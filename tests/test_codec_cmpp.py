"""CMPP 2.0 and 3.0: golden octets written from the specification's tables by hand, digests, ids, reports, codes."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import _cmpp_code
from channels._cmpp import (
    CODECS,
    V2,
    V3,
    ActiveTest,
    ActiveTestResp,
    Cancel,
    CancelResp,
    Connect,
    ConnectResp,
    Deliver,
    DeliverResp,
    MsgId,
    Query,
    QueryResp,
    ReportContent,
    Submit,
    SubmitResp,
    Terminate,
    TerminateResp,
    connect,
    genuine,
    nth,
    pack_msg_id,
    read_report,
    unpack_msg_id,
)
from channels._cmpp_code import result_meaning, stat_meaning, status_meaning
from channels._field import Fault, WireError
from channels._login import CHINA, minute, validity
from channels._meaning import Blame, Decision
from channels._pdu import Layout, Pdu

REPORTED = datetime(2026, 11, 23, 15, 30, 58, tzinfo=CHINA)

SUBMIT = Submit(
    msg_level=9,
    service_id="YJXX",
    tp_udhi=1,
    msg_src="901234",
    src_id="1069033",
    dest_terminal_ids=("13900000001", "13900000002"),
    msg_content=b"\x52\x30\x5c\x97",
)
SUBMIT_V3 = (
    b"\x00\x00\x00\xe7"  # Total_Length 231 = 12 + 151 + 2 × 32 + 4
    b"\x00\x00\x00\x04"  # Command_Id CMPP_SUBMIT
    b"\x00\x00\x00\x11"  # Sequence_Id 17
    b"\x00\x00\x00\x00\x00\x00\x00\x00"  # Msg_Id: the gateway's to give
    b"\x01"  # Pk_total
    b"\x01"  # Pk_number
    b"\x01"  # Registered_Delivery: report wanted
    b"\x09"  # Msg_level
    b"YJXX\x00\x00\x00\x00\x00\x00"  # Service_Id, 10
    b"\x02"  # Fee_UserType: the SP pays
    + bytes(32)  # Fee_terminal_Id, 32
    + b"\x00"  # Fee_terminal_type
    b"\x00"  # TP_pId
    b"\x01"  # TP_udhi
    b"\x08"  # Msg_Fmt: UCS-2
    b"901234"  # Msg_src, 6
    b"01"  # FeeType, 2
    b"000000"  # FeeCode, 6
    + bytes(17)  # ValId_Time, 17
    + bytes(17)  # At_Time, 17
    + b"1069033" + bytes(14)  # Src_Id, 21
    + b"\x02"  # DestUsr_tl
    b"13900000001" + bytes(21)  # Dest_terminal_Id, 32
    + b"13900000002" + bytes(21)  # and the second
    + b"\x00"  # Dest_terminal_type
    b"\x04"  # Msg_Length
    b"\x52\x30\x5c\x97"  # Msg_Content: 到岗
    + bytes(20)  # LinkID, 20
)  # fmt: skip
SUBMIT_V2 = (
    b"\x00\x00\x00\xb8"  # Total_Length 184 = 12 + 126 + 2 × 21 + 4
    b"\x00\x00\x00\x04\x00\x00\x00\x11"
    b"\x00\x00\x00\x00\x00\x00\x00\x00"  # Msg_Id
    b"\x01\x01\x01\x09"  # Pk_total, Pk_number, Registered_Delivery, Msg_level
    b"YJXX\x00\x00\x00\x00\x00\x00"  # Service_Id
    b"\x02"  # Fee_UserType
    + bytes(21)  # Fee_terminal_Id, 21; no Fee_terminal_type
    + b"\x00\x01\x08"  # TP_pId, TP_udhi, Msg_Fmt
    b"901234"  # Msg_src
    b"01"  # FeeType
    b"000000"  # FeeCode
    + bytes(34)  # ValId_Time, At_Time
    + b"1069033" + bytes(14)  # Src_Id
    + b"\x02"  # DestUsr_tl
    b"13900000001" + bytes(10)  # Dest_terminal_Id, 21
    + b"13900000002" + bytes(10)
    + b"\x04\x52\x30\x5c\x97"  # no Dest_terminal_type; Msg_Length, Msg_Content
    + bytes(8)  # Reserve, 8
)  # fmt: skip

DELIVER = Deliver(
    msg_id=0xB75F_0000_0003_0001,
    dest_id="1069033",
    service_id="YJXX",
    src_terminal_id="13900000001",
    msg_content=b"\x00\x31",
)
DELIVER_V3 = (
    b"\x00\x00\x00\x6f"  # 111 = 12 + 97 + 2
    b"\x00\x00\x00\x05\x00\x00\x00\x12"
    b"\xb7\x5f\x00\x00\x00\x03\x00\x01"  # Msg_Id
    b"1069033" + bytes(14)  # Dest_Id, 21
    + b"YJXX\x00\x00\x00\x00\x00\x00"  # Service_Id
    b"\x00\x00\x08"  # TP_pid, TP_udhi, Msg_Fmt
    b"13900000001" + bytes(21)  # Src_terminal_Id, 32
    + b"\x00"  # Src_terminal_type
    b"\x00"  # Registered_Delivery: not a report
    b"\x02\x00\x31"  # Msg_Length, Msg_Content: 1
    + bytes(20)  # LinkID
)  # fmt: skip
DELIVER_V2 = (
    b"\x00\x00\x00\x57"  # 87 = 12 + 73 + 2
    b"\x00\x00\x00\x05\x00\x00\x00\x12"
    b"\xb7\x5f\x00\x00\x00\x03\x00\x01"
    b"1069033" + bytes(14)
    + b"YJXX\x00\x00\x00\x00\x00\x00"
    b"\x00\x00\x08"
    b"13900000001" + bytes(10)  # Src_terminal_Id, 21; no Src_terminal_type
    + b"\x00\x02\x00\x31"
    + bytes(8)  # Reserved, 8
)  # fmt: skip

QUERY = b"\x00\x00\x00\x27\x00\x00\x00\x06\x00\x00\x00\x0120261126\x01YJXX\0\0\0\0\0\0" + bytes(8)
QUERY_RESP = (
    b"\x00\x00\x00\x3f\x80\x00\x00\x06\x00\x00\x00\x01"  # 63 = 12 + 51
    b"20261126" b"\x01" b"YJXX\0\0\0\0\0\0"  # Time, Query_Type, Query_Code
    b"\x00\x00\x00\x0a\x00\x00\x03\xde"  # MT_TLMsg 10, MT_Tlusr 990
    b"\x00\x00\x03\xd4\x00\x00\x00\x06\x00\x00\x00\x04"  # MT_Scs 980, MT_WT 6, MT_FL 4
    b"\x00\x00\x00\x03\x00\x00\x00\x02\x00\x00\x00\x01"  # MO_Scs 3, MO_WT 2, MO_FL 1
)  # fmt: skip

GOLDEN = [
    (V3, 17, SUBMIT, SUBMIT_V3),
    (V2, 17, SUBMIT, SUBMIT_V2),
    (V3, 18, DELIVER, DELIVER_V3),
    (V2, 18, DELIVER, DELIVER_V2),
    (
        V3, 1, Connect("901234", bytes.fromhex("20dce6adc8bcbc1a0555676f30a95f04"), V3, 1123153058),
        bytes.fromhex("00000027000000010000000139303132333420dce6adc8bcbc1a0555676f30a95f043042f1f4a2"),
    ),
    (V3, 1, ConnectResp(3, bytes(range(16)), V3),
     b"\0\0\0\x21\x80\0\0\x01\0\0\0\x01" b"\0\0\0\x03" + bytes(range(16)) + b"\x30"),
    (V2, 1, ConnectResp(3, bytes(range(16)), V2),
     b"\0\0\0\x1e\x80\0\0\x01\0\0\0\x01" b"\x03" + bytes(range(16)) + b"\x20"),
    (V3, 2, Terminate(), b"\0\0\0\x0c\0\0\0\x02\0\0\0\x02"),
    (V3, 2, TerminateResp(), b"\0\0\0\x0c\x80\0\0\x02\0\0\0\x02"),
    (V3, 17, SubmitResp(0xB75F_0000_0003_FFFE, 8),
     b"\0\0\0\x18\x80\0\0\x04\0\0\0\x11" b"\xb7\x5f\0\0\0\x03\xff\xfe" b"\0\0\0\x08"),
    (V2, 17, SubmitResp(0xB75F_0000_0003_FFFE, 8),
     b"\0\0\0\x15\x80\0\0\x04\0\0\0\x11" b"\xb7\x5f\0\0\0\x03\xff\xfe" b"\x08"),
    (V3, 18, DeliverResp(0xB75F_0000_0003_0001),
     b"\0\0\0\x18\x80\0\0\x05\0\0\0\x12" b"\xb7\x5f\0\0\0\x03\0\x01" b"\0\0\0\0"),
    (V2, 18, DeliverResp(0xB75F_0000_0003_0001),
     b"\0\0\0\x15\x80\0\0\x05\0\0\0\x12" b"\xb7\x5f\0\0\0\x03\0\x01" b"\0"),
    (V3, 1, Query("20261126", 1, "YJXX"), QUERY),
    (V3, 1, QueryResp("20261126", 1, "YJXX", 10, 990, 980, 6, 4, 3, 2, 1), QUERY_RESP),
    (V3, 1, Cancel(0x0102030405060708), b"\0\0\0\x14\0\0\0\x07\0\0\0\x01" b"\x01\x02\x03\x04\x05\x06\x07\x08"),
    (V3, 1, CancelResp(1), b"\0\0\0\x10\x80\0\0\x07\0\0\0\x01" b"\0\0\0\x01"),
    (V2, 1, CancelResp(1), b"\0\0\0\x0d\x80\0\0\x07\0\0\0\x01" b"\x01"),
    (V3, 1, ActiveTest(), b"\0\0\0\x0c\0\0\0\x08\0\0\0\x01"),
    (V3, 1, ActiveTestResp(), b"\0\0\0\x0d\x80\0\0\x08\0\0\0\x01" b"\0"),
]  # fmt: skip


GOLDEN_IDS = [f"{type(pdu).__name__}-{version:x}" for version, _, pdu, _ in GOLDEN]


@pytest.mark.parametrize(("version", "sequence", "pdu", "octets"), GOLDEN, ids=GOLDEN_IDS)
def test_octets_are_what_the_specification_says(version: int, sequence: int, pdu: Pdu, octets: bytes) -> None:
    """Written out by hand from sections 8.3 and 8.4: a real gateway has no other opinion."""
    assert CODECS[version].encode(sequence, pdu) == octets
    assert CODECS[version].decode(octets) == (sequence, pdu)


def test_login_is_the_vector_of_the_formula() -> None:
    """The whole login frame, from account, secret and clock."""
    frame = CODECS[V3].encode(1, connect("901234", "1234", REPORTED))
    assert frame.hex() == "00000027000000010000000139303132333420dce6adc8bcbc1a0555676f30a95f043042f1f4a2"


@pytest.mark.parametrize(
    ("at", "text", "number"),
    [
        (datetime(2026, 1, 1, 0, 0, 0, tzinfo=CHINA), b"0101000000", 101000000),
        (datetime(2026, 3, 1, 0, 0, 0, tzinfo=CHINA), b"0301000000", 301000000),
        (datetime(2026, 9, 30, 23, 59, 59, tzinfo=CHINA), b"0930235959", 930235959),
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=CHINA), b"1231235959", 1231235959),
        # The carrier's new year has begun while UTC is still in the old one.
        (datetime(2026, 12, 31, 16, 0, 5, tzinfo=UTC), b"0101000005", 101000005),
    ],
)
def test_login_keeps_the_leading_zero_in_the_digest_only(at: datetime, text: bytes, number: int) -> None:
    """T17: whoever digests the integer is locked out from January to September, the whole flood season."""
    login = connect("901234", "1234", at)
    assert login.timestamp == number
    assert login.authenticator_source == md5(b"901234" + bytes(9) + b"1234" + text).digest()


def test_an_answer_is_genuine_only_with_the_secret() -> None:
    """Who answers without the secret is not the carrier: reports from it would say "delivered" of a village."""
    login = connect("901234", "1234", REPORTED)
    wide = ConnectResp(0, bytes.fromhex("e165f664bb8576e8ead84a5578787b51"), V3)
    narrow = ConnectResp(0, bytes.fromhex("edccfddaa97217e36fda17373b407e94"), V2)
    assert genuine(wide, login, "1234")
    assert genuine(narrow, login, "1234")
    assert not genuine(wide, login, "1235")
    assert not genuine(ConnectResp(0), login, "1234")
    assert not genuine(ConnectResp(256, wide.authenticator_ismg), login, "1234")
    assert not genuine(ConnectResp(1, wide.authenticator_ismg), login, "1234")


@pytest.mark.parametrize("ours", [V2, V3])
@pytest.mark.parametrize("theirs", [V2, V3])
def test_a_login_answer_of_the_other_version_is_read(ours: int, theirs: int) -> None:
    """A gateway of 2.0 answers a login of 3.0 in its own form: the operator must see "version too high"."""
    answer = ConnectResp(4, bytes(16), theirs)
    assert CODECS[ours].decode(CODECS[theirs].encode(1, answer)).pdu == answer


def test_a_heartbeat_without_its_reserved_octet_is_a_heartbeat() -> None:
    """Some gateways leave it out; the line is alive all the same."""
    assert CODECS[V3].decode(bytes.fromhex("0000000c8000000800000001")).pdu == ActiveTestResp()


def test_what_stands_behind_a_strings_end_is_ignored() -> None:
    """Gateways written in C send what was in the buffer before."""
    careless = DELIVER_V3.replace(b"YJXX\0\0", b"YJXX\0X")
    assert CODECS[V3].decode(careless).pdu == DELIVER


REPORT_V3 = (
    b"\xb7\x5f\x00\x00\x00\x03\x00\x01"  # Msg_Id
    b"DELIVRD"  # Stat, 7
    b"2611260530"  # Submit_time, 10
    b"2611260531"  # Done_time, 10
    b"13900000001" + bytes(21)  # Dest_terminal_Id, 32
    + b"\x00\x00\x00\x2a"  # SMSC_sequence
)  # fmt: skip
REPORT_V2 = REPORT_V3[:35] + b"13900000001" + bytes(10) + b"\x00\x00\x00\x2a"
REPORT = ReportContent(0xB75F_0000_0003_0001, "DELIVRD", "2611260530", "2611260531", "13900000001", 42)


def test_a_report_is_read_in_both_sizes() -> None:
    """71 octets in 3.0, 60 in 2.0; gateways send the other one too, so the size decides."""
    assert (len(REPORT_V3), len(REPORT_V2)) == (71, 60)
    assert read_report(REPORT_V3) == read_report(REPORT_V2) == REPORT
    assert minute(REPORT.done_time) == datetime(2026, 11, 25, 21, 31, tzinfo=UTC)


@pytest.mark.parametrize("size", [0, 59, 61, 70, 72, 140])
def test_a_report_of_another_size_is_refused(size: int) -> None:
    """Half a Msg_Id would mark a stranger as reached."""
    with pytest.raises(WireError) as caught:
        read_report(bytes(size))
    assert caught.value.fault is Fault.VALUE


@pytest.mark.parametrize("text", ["", "2602300000", "26112605", "261126053x", "２６１１２６０５３０", "2613010000"])
def test_an_odd_time_makes_no_report_worthless(text: str) -> None:
    """The gateway uses its own clock then."""
    assert minute(text) is None


def test_validity_ends_on_the_carriers_clock() -> None:
    """A phone switched on at noon must not receive last night's warning (rule 4)."""
    assert validity(datetime(2026, 7, 19, 18, 30, 5, tzinfo=UTC)) == "260720023005032+"


@given(st.builds(ReportContent, st.integers(0, 2**64 - 1), st.just("UNDELIV"), st.just("2611260530"),
                 st.just(""), st.text("0123456789", max_size=21), st.integers(0, 2**32 - 1)))  # fmt: skip
def test_reports_come_back(report: ReportContent) -> None:
    """The content is a table of its own, in both versions."""
    for version in (V2, V3):
        assert read_report(Layout(ReportContent, version).encode(report)) == report


def test_a_message_id_says_when_where_and_which() -> None:
    """Section 8.4.3.2, bits counted by hand: 1011 10111 01111 011110 111010, gateway 001001, sequence 65534."""
    parts = MsgId(11, 23, 15, 30, 58, 1001, 0xFFFE)
    bits = "1011101110111101111011101000000000000011111010011111111111111110"
    assert pack_msg_id(parts) == int(bits, 2)
    assert unpack_msg_id(int(bits, 2)) == parts
    with pytest.raises(WireError, match="gateway"):
        pack_msg_id(parts._replace(gateway=1 << 22))


@given(st.integers(0, 2**64 - 1), st.integers(0, 98))
def test_bulk_ids_count_on_in_the_sequence_only(msg_id: int, index: int) -> None:
    """Annex 1: the n-th number's report carries Msg_Id + n, and the sequence begins again at 0 (T15)."""
    found, first = unpack_msg_id(nth(msg_id, index)), unpack_msg_id(msg_id)
    assert found[:-1] == first[:-1]
    assert found.sequence == (first.sequence + index) % 65536
    assert pack_msg_id(first) == msg_id


def test_a_bulk_id_wraps() -> None:
    """A carry into the gateway's code would look for the last persons of a bulk at another gateway."""
    assert nth(0xB75F_0000_0003_FFFE, 0) == 0xB75F_0000_0003_FFFE
    assert nth(0xB75F_0000_0003_FFFE, 2) == 0xB75F_0000_0003_0000


def test_results_say_what_to_do() -> None:
    """One bad number is split off, flow control slows down, a wrong account is switched off."""
    assert result_meaning(8).decision is Decision.THROTTLED
    assert (result_meaning(13).decision, result_meaning(13).blame) == (Decision.PERMANENT, Blame.NUMBER)
    assert result_meaning(13).elsewhere
    assert result_meaning(10).decision is Decision.UNUSABLE
    assert result_meaning(150).decision is Decision.TEMPORARY
    assert status_meaning(3).decision is Decision.UNUSABLE
    assert status_meaning(77).decision is Decision.TEMPORARY
    assert [code for code in range(14) if code not in _cmpp_code.RESULTS] == []


def test_states_say_what_became_of_a_person() -> None:
    """Only DELIVRD is delivered; what no station answered is unknown, never failed and never sent blindly again."""
    assert stat_meaning("DELIVRD").decision is Decision.DONE
    assert stat_meaning("ACCEPTD").decision is Decision.WAIT
    assert stat_meaning("MA:0088").decision is Decision.UNKNOWN
    assert stat_meaning("IB:0012")[2:4] == ("next gateway refused it", "下一级网关返回错误响应")
    assert stat_meaning("MC:0000").decision is Decision.UNKNOWN
    assert stat_meaning("MA:0001").decision is Decision.PERMANENT
    assert stat_meaning("00138").decision is Decision.UNUSABLE
    for odd in ("", "X", "ZZZZZZZ", "MX:0001", "MB0001", "delivrd"):
        assert stat_meaning(odd).decision is Decision.UNKNOWN
