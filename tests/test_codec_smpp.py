"""SMPP 3.4: golden octets written from the specification's tables by hand, receipts, and another implementation."""

from __future__ import annotations

import pytest
import smpp34
from hypothesis import given
from hypothesis import strategies as st
from pdu_strategy import pdus

from channels._field import Fault, WireError
from channels._meaning import Decision
from channels._pdu import Pdu
from channels._smpp import (
    CODEC,
    INTERMEDIATE,
    RECEIPT,
    UDHI,
    BindTransceiver,
    BindTransceiverResp,
    DeliverSm,
    DeliverSmResp,
    EnquireLink,
    EnquireLinkResp,
    GenericNack,
    Receipt,
    SubmitSm,
    SubmitSmResp,
    Tag,
    Unbind,
    UnbindResp,
    is_receipt,
    long_reply,
    read_receipt,
)
from channels._smpp_code import stat_meaning, status_meaning


def framed(length: int, command: int, body: bytes = b"", status: int = 0) -> bytes:
    """Set a header before a body: command_length, command_id, command_status, sequence_number 5."""
    return b"".join(word.to_bytes(4, "big") for word in (length, command, status, 5)) + body


TEXT = b"id:0000004711 sub:001 dlvrd:001 submit date:2611260530 done date:2611260531 stat:DELIVRD err:000 text:"

GOLDEN = [
    (
        BindTransceiver(system_id="SMPP3TEST", password="secret08", system_type="SUBMIT1"),
        framed(
            47, 0x9,  # 16 + 10 + 9 + 8 + 4
            b"SMPP3TEST\0"  # system_id
            b"secret08\0"  # password
            b"SUBMIT1\0"  # system_type
            b"\x34\0\0\0",  # interface_version, addr_ton, addr_npi, address_range
        ),
    ),
    (BindTransceiverResp(0, "SMSC", ((0x0210, b"\x34"),)), framed(26, 0x8000_0009, b"SMSC\0\x02\x10\0\x01\x34")),
    (
        SubmitSm(
            service_type="YJ", source_addr_npi=1, source_addr="10659033", dest_addr_ton=1, dest_addr_npi=1,
            destination_addr="8613900000001", esm_class=UDHI, validity_period="261126053000032+",
            registered_delivery=1, data_coding=8, short_message=b"\x05\0\x03\x2a\x02\x01\x52\x30",
        ),
        framed(
            80, 0x4,  # 16 + 3 + 11 + 16 + 3 + 1 + 17 + 4 + 9
            b"YJ\0"  # service_type
            b"\0\x01" b"10659033\0"  # source_addr_ton, source_addr_npi, source_addr
            b"\x01\x01" b"8613900000001\0"  # dest_addr_ton, dest_addr_npi, destination_addr
            b"\x40\0\0"  # esm_class: UDHI, protocol_id, priority_flag
            b"\0"  # schedule_delivery_time
            b"261126053000032+\0"  # validity_period
            b"\x01\0\x08\0"  # registered_delivery, replace_if_present_flag, data_coding: UCS-2, sm_default_msg_id
            b"\x08" b"\x05\0\x03\x2a\x02\x01\x52\x30",  # sm_length; short_message: part 1 of 2, 到
        ),
    ),
    (SubmitSmResp(0, "12A7"), framed(21, 0x8000_0004, b"12A7\0")),
    (SubmitSmResp(0x58), framed(17, 0x8000_0004, b"\0", 0x58)),
    (
        DeliverSm(
            source_addr_ton=1, source_addr_npi=1, source_addr="8613900000001", dest_addr_npi=1,
            destination_addr="10659033", esm_class=RECEIPT, short_message=TEXT,
            parameters=((Tag.RECEIPTED_MESSAGE_ID, b"12A7\0"), (Tag.MESSAGE_STATE, b"\x02")),
        ),
        framed(
            170, 0x5,  # 16 + 1 + 16 + 11 + 3 + 2 + 5 + 102 + 9 + 5
            b"\0" b"\x01\x01" b"8613900000001\0" b"\0\x01" b"10659033\0"
            b"\x04\0\0" b"\0" b"\0"  # esm_class: receipt, protocol_id, priority_flag, no times
            b"\0\0\0\0"
            b"\x66" + TEXT  # 102
            + b"\x00\x1e\0\x05" b"12A7\0"  # receipted_message_id
            b"\x04\x27\0\x01\x02",  # message_state: DELIVERED
        ),
    ),
    (DeliverSmResp(), framed(17, 0x8000_0005, b"\0")),
    (EnquireLink(), framed(16, 0x15)),
    (EnquireLinkResp(), framed(16, 0x8000_0015)),
    (Unbind(), framed(16, 0x6)),
    (UnbindResp(), framed(16, 0x8000_0006)),
]  # fmt: skip


@pytest.mark.parametrize(("pdu", "octets"), GOLDEN, ids=[type(pdu).__name__ for pdu, _ in GOLDEN])
def test_octets_are_what_the_specification_says(pdu: Pdu, octets: bytes) -> None:
    """Written out by hand from section 4: an aggregator has no other opinion."""
    assert CODEC.encode(5, pdu) == octets
    assert CODEC.decode(octets) == (5, pdu)


@pytest.mark.parametrize(
    ("command", "pdu"),
    [(0x8000_0004, SubmitSmResp(0x58)), (0x8000_0009, BindTransceiverResp(0x0E)), (0x8000_0000, GenericNack(3))],
)
def test_a_refusal_without_a_body_is_read(command: int, pdu: Pdu) -> None:
    """Section 4.4.2 drops the body where the status is not zero: an unread refusal would be a doubt for a minute."""
    status = {SubmitSmResp: 0x58, BindTransceiverResp: 0x0E, GenericNack: 3}[type(pdu)]
    assert CODEC.decode(framed(16, command, b"", status)).pdu == pdu


@pytest.mark.parametrize("body", [b"12A7", b"1" * 70 + b"\0"])
def test_a_string_without_its_end_is_an_error(body: bytes) -> None:
    """Half an id would match another person's report."""
    with pytest.raises(WireError) as caught:
        CODEC.decode(framed(16 + len(body), 0x8000_0004, body))
    assert (caught.value.fault, caught.value.where) == (Fault.CUT, "SMPP 3.4 SubmitSmResp.message_id")


# -- the other implementation ------------------------------------------------------------------------------------------

FIELDS = [name for name in SubmitSm.__struct_fields__ if name not in ("command_status", "parameters")]
ASCII = st.text(st.characters(min_codepoint=1, max_codepoint=0x7F), max_size=20)


@given(pdu=pdus(SubmitSm, 0) | pdus(DeliverSm, 0), address=ASCII, sequence=st.integers(1, 0x7FFF_FFFF))
def test_another_implementation_reads_what_we_write(pdu: SubmitSm | DeliverSm, address: str, sequence: int) -> None:
    """`smpp34` shares nothing with us but the specification: both must see the same number and the same text."""
    plain = {"source_addr": address, "destination_addr": address[::-1], "service_type": "", "command_status": 0}
    times = {"schedule_delivery_time": "", "validity_period": ""}
    ours = type(pdu)(**{name: getattr(pdu, name) for name in pdu.__struct_fields__} | plain | times)
    frame = CODEC.encode(sequence, ours)
    theirs = smpp34.decode(frame)
    assert isinstance(theirs, smpp34.SubmitSm | smpp34.DeliverSm)
    assert {name: getattr(theirs, name) for name in FIELDS} == {name: getattr(ours, name) for name in FIELDS}
    assert tuple((one.tag, one.value) for one in theirs.tlvs) == ours.parameters
    if len(ours.short_message) < 255:
        assert theirs.encode() == frame


# -- receipts ----------------------------------------------------------------------------------------------------------


def receipt(text: bytes = TEXT, *parameters: tuple[int, bytes], esm_class: int = RECEIPT) -> DeliverSm:
    return DeliverSm(destination_addr="1069", esm_class=esm_class, short_message=text, parameters=parameters)


def test_a_receipt_is_read_from_its_text() -> None:
    """Appendix B is all that many aggregators send."""
    assert read_receipt(receipt()) == Receipt("0000004711", False, "DELIVRD", "000", "2611260531")


def test_parameters_go_before_the_text() -> None:
    """The parameter has the id as it was answered; the text may have it in another base."""
    told = read_receipt(receipt(TEXT, (Tag.RECEIPTED_MESSAGE_ID, b"12A7\0"), (Tag.MESSAGE_STATE, b"\x05")))
    assert told == Receipt("12A7", True, "UNDELIV", "000", "2611260531")
    network = (Tag.NETWORK_ERROR_CODE, b"\x03\x00\x22")
    alone = read_receipt(receipt(b"", (Tag.RECEIPTED_MESSAGE_ID, b"12A7"), (Tag.MESSAGE_STATE, b"\x02"), network))
    assert alone == Receipt("12A7", True, "DELIVRD", "34", "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"ID:7f Stat:undeliv Err:1 Done_Date:261126053142 Txt:x", ("7f", "UNDELIV", "1", "261126053142")),
        (b"id:7f stat:MK:0010 done date:2611260531", ("7f", "MK:0010", "", "2611260531")),
        (b"id:7f sub: err: stat:EXPIRED", ("7f", "EXPIRED", "", "")),
        (b"id:7f sub:001 text: stat:DELIVRD", ("7f", "", "", "")),
    ],
)
def test_makers_spell_their_labels_differently(text: bytes, told: tuple[str, str, str, str]) -> None:
    """Labels are known by name; what a person wrote behind "text:" is none."""
    found = read_receipt(receipt(text))
    assert (found.message_id, found.stat, found.err, found.done) == told


@pytest.mark.parametrize("text", [b"", b"stat:DELIVRD", b"id: sub:001 stat:DELIVRD", b"text:id:7", b"\xffid:7"])
def test_a_receipt_without_an_id_is_refused(text: bytes) -> None:
    """Nothing is guessed: a wrong match calls somebody warned who is not."""
    with pytest.raises(WireError) as caught:
        read_receipt(receipt(text))
    assert caught.value.fault is Fault.VALUE


def test_receipts_are_told_from_what_people_write() -> None:
    """A reply "id:1" is a person's; a receipt without its type has the id in a parameter."""
    assert is_receipt(receipt())
    assert is_receipt(receipt(esm_class=INTERMEDIATE))
    assert is_receipt(receipt(b"", (Tag.RECEIPTED_MESSAGE_ID, b"1\0"), esm_class=0))
    assert not is_receipt(receipt(b"id:1", esm_class=0))
    assert not is_receipt(receipt(esm_class=UDHI))


@pytest.mark.parametrize(
    ("place", "headed"),
    [
        ((b"\0\x07", b"\x02", b"\x01"), b"\x06\x08\x04\0\x07\x02\x01ab"),
        ((b"\0\x07", b"\x02", b"\x03"), None),
        ((b"\0\x07", b"", b""), None),
        ((b"\x01\0\x07", b"\x02", b"\x01"), None),
    ],
)
def test_parts_by_parameters_are_parts_by_header(place: tuple[bytes, ...], headed: bytes | None) -> None:
    """Some aggregators take the header off and put it into parameters: the parts still belong together."""
    tags = (Tag.SAR_MSG_REF_NUM, Tag.SAR_TOTAL_SEGMENTS, Tag.SAR_SEGMENT_SEQNUM)
    assert long_reply(receipt(b"ab", *zip(tags, place, strict=True), esm_class=0)) == headed


def test_codes_say_what_to_do() -> None:
    """Throttled slows down, a wrong password switches off; an aggregator's number is nowhere else."""
    assert status_meaning(0).decision is Decision.DONE
    assert status_meaning(0x58).decision is status_meaning(0x14).decision is Decision.THROTTLED
    assert status_meaning(0x0E).decision is Decision.UNUSABLE
    assert status_meaning(0x0B).decision is Decision.PERMANENT
    assert status_meaning(0x400).decision is Decision.TEMPORARY
    assert stat_meaning("DELIVRD").decision is Decision.DONE
    assert stat_meaning("ENROUTE").decision is Decision.WAIT
    assert stat_meaning("MA:0001").decision is Decision.PERMANENT
    assert stat_meaning("").decision is Decision.UNKNOWN
    assert not stat_meaning("UNDELIV").elsewhere
