"""SMPP 3.4, the protocol of aggregators, between a client (ESME) and a message centre (SMSC).

Used by the channel `sms_smpp`. The header has a status between command and sequence; here it is the first field of
each PDU's table, for only responses give it a meaning. Message ids are text, which the centre may write in one base in
its answers and in another in its receipts.

Source: SMPP Protocol Specification v3.4, sections 3 (header), 4 (PDUs), 5.2.12 and 5.2.28 (esm_class, message_state),
5.3 (optional parameters), appendix B (the text of a receipt).
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum
from typing import Annotated, ClassVar, NamedTuple

from channels._field import Content, CString, Fault, Tlvs, Uint, WireError
from channels._pdu import RESPONSE, Codec, Pdu

V34 = 0x34
PORT = 2775
LONGEST = 70_000
"""A message of 64 KB in an optional parameter, and the rest."""

U8 = Annotated[int, Uint(1)]
Status = Annotated[int, Uint(4)]
Address = Annotated[str, CString(21)]
Time = Annotated[str, CString(17)]
Parameters = Annotated[tuple[tuple[int, bytes], ...], Tlvs()]

INTERNATIONAL, ISDN = 1, 1
UDHI = 0x40
TYPE = 0x3C  # bits of esm_class
RECEIPT, INTERMEDIATE = 0x04, 0x20


class Tag(IntEnum):
    """Tags of the optional parameters that are read, section 5.3.2."""

    RECEIPTED_MESSAGE_ID = 0x001E
    SAR_MSG_REF_NUM = 0x020C
    SAR_TOTAL_SEGMENTS = 0x020E
    SAR_SEGMENT_SEQNUM = 0x020F
    NETWORK_ERROR_CODE = 0x0423
    MESSAGE_PAYLOAD = 0x0424
    MESSAGE_STATE = 0x0427


class BindTransceiver(Pdu, frozen=True, kw_only=True):
    """bind_transceiver, section 4.1.5."""

    command: ClassVar[int] = 0x9

    command_status: Status = 0
    system_id: Annotated[str, CString(16)]
    password: Annotated[str, CString(9)]
    system_type: Annotated[str, CString(13)] = ""
    interface_version: U8 = V34
    addr_ton: U8 = 0
    addr_npi: U8 = 0
    address_range: Annotated[str, CString(41)] = ""


class BindTransceiverResp(Pdu, frozen=True):
    """bind_transceiver_resp."""

    command: ClassVar[int] = RESPONSE | 0x9

    command_status: Status = 0
    system_id: Annotated[str, CString(16)] = ""
    parameters: Parameters = ()


class Message(Pdu, frozen=True, kw_only=True):
    """What submit_sm and deliver_sm have in common, which is everything."""

    command_status: Status = 0
    service_type: Annotated[str, CString(6)] = ""
    source_addr_ton: U8 = 0
    source_addr_npi: U8 = 0
    source_addr: Address = ""
    dest_addr_ton: U8 = 0
    dest_addr_npi: U8 = 0
    destination_addr: Address
    esm_class: U8 = 0
    protocol_id: U8 = 0
    priority_flag: U8 = 0
    schedule_delivery_time: Time = ""
    validity_period: Time = ""
    registered_delivery: U8 = 0
    replace_if_present_flag: U8 = 0
    data_coding: U8 = 0
    sm_default_msg_id: U8 = 0
    short_message: Annotated[bytes, Content(1)] = b""
    parameters: Parameters = ()


class SubmitSm(Message, frozen=True, kw_only=True):
    """submit_sm, section 4.4.1."""

    command: ClassVar[int] = 0x4


class SubmitSmResp(Pdu, frozen=True):
    """submit_sm_resp, section 4.4.2."""

    command: ClassVar[int] = RESPONSE | 0x4

    command_status: Status = 0
    message_id: Annotated[str, CString(65)] = ""
    parameters: Parameters = ()


class GenericNack(SubmitSmResp, frozen=True):
    """generic_nack, section 4.3.1: answers what was not understood; where that is a submit, it is refused."""

    command: ClassVar[int] = RESPONSE


class DeliverSm(Message, frozen=True, kw_only=True):
    """deliver_sm, section 4.6.1: a reply, or a receipt (`read_receipt`)."""

    command: ClassVar[int] = 0x5


class DeliverSmResp(Pdu, frozen=True):
    """deliver_sm_resp: its message id is not used."""

    command: ClassVar[int] = RESPONSE | 0x5

    command_status: Status = 0
    message_id: Annotated[str, CString(65)] = ""


class EnquireLink(Pdu, frozen=True):
    """enquire_link, section 4.11.1, from either side."""

    command: ClassVar[int] = 0x15

    command_status: Status = 0


class EnquireLinkResp(Pdu, frozen=True):
    """enquire_link_resp."""

    command: ClassVar[int] = RESPONSE | 0x15

    command_status: Status = 0


class Unbind(Pdu, frozen=True):
    """Unbind, section 4.2.1, from either side."""

    command: ClassVar[int] = 0x6

    command_status: Status = 0


class UnbindResp(Pdu, frozen=True):
    """unbind_resp."""

    command: ClassVar[int] = RESPONSE | 0x6

    command_status: Status = 0


PDUS: tuple[type[Pdu], ...] = (
    BindTransceiver, BindTransceiverResp, SubmitSm, SubmitSmResp, GenericNack, DeliverSm, DeliverSmResp,
    EnquireLink, EnquireLinkResp, Unbind, UnbindResp,
)  # fmt: skip

_HEADER = struct.Struct(">IIII")  # command_length, command_id, command_status, sequence_number
_STATUS = slice(8, 12)


class SmppCodec(Codec[int]):
    """A codec whose tables begin with the header's status."""

    def _join(self, command: int, sequence: int, body: bytes) -> bytes:
        status = int.from_bytes(body[:4], "big")
        return _HEADER.pack(_HEADER.size - 4 + len(body), command, status, sequence) + body[4:]

    def _split(self, frame: bytes) -> tuple[int, int, bytes]:
        _, command, _, sequence = _HEADER.unpack_from(frame)
        return command, sequence, frame[_STATUS] + frame[_HEADER.size :]


CODEC = SmppCodec("SMPP 3.4", PDUS, longest=LONGEST, sequence=int, words=2)


class Receipt(NamedTuple):
    """What a receipt says. `literal`: the id is as it was answered; in the text it may be in another base.

    `stat` is "" where it says nothing, `done` YYMMDDhhmm or longer.
    """

    message_id: str
    literal: bool
    stat: str
    err: str
    done: str


STATES = ("", "ENROUTE", "DELIVRD", "EXPIRED", "DELETED", "UNDELIV", "ACCEPTD", "UNKNOWN", "REJECTD")
"""Texts of message_state, section 5.2.28."""

# Labels differ in case and in "submit date" or "submit_date"; makers add their own, and leave some out.
_LABEL = re.compile(rb"(?:^|[ ])(id|stat|err|done[ _]date):([!-~]*)", re.IGNORECASE)
_TEXT = re.compile(rb"[ ]te?xt:", re.IGNORECASE)


def is_receipt(deliver: DeliverSm) -> bool:
    """Tell a receipt from what a person sent: by its type, or because it names a message of ours."""
    kind = deliver.esm_class & TYPE
    return kind in (RECEIPT, INTERMEDIATE) or any(tag == Tag.RECEIPTED_MESSAGE_ID for tag, _ in deliver.parameters)


def content(deliver: DeliverSm) -> bytes:
    """Return the message: the field, or the parameter for what is longer than the field."""
    return deliver.short_message or dict(deliver.parameters).get(Tag.MESSAGE_PAYLOAD, b"")


def read_receipt(deliver: DeliverSm) -> Receipt:
    """Read a receipt: parameters where it has them, else the labels of its text.

    Raises:
        WireError: VALUE: it names no message.
    """
    parameters = dict(deliver.parameters)
    head = _TEXT.split(content(deliver), maxsplit=1)[0]
    labels: dict[str, str] = {}
    for label, value in _LABEL.findall(head):
        labels.setdefault(label.decode().lower().replace("_", " "), value.decode())
    literal = _text(parameters.get(Tag.RECEIPTED_MESSAGE_ID, b""))
    message_id = literal or labels.get("id", "")
    if not message_id:
        raise WireError(Fault.VALUE, "a receipt without an id")
    state = int.from_bytes(parameters.get(Tag.MESSAGE_STATE, b""), "big")
    stat = STATES[state] if state < len(STATES) else ""
    network = parameters.get(Tag.NETWORK_ERROR_CODE, b"")
    err = labels.get("err", "") or (str(int.from_bytes(network[1:], "big")) if len(network) == 3 else "")
    return Receipt(message_id, bool(literal), stat or labels.get("stat", "").upper(), err, labels.get("done date", ""))


def long_reply(deliver: DeliverSm) -> bytes | None:
    """Return the content with a user data header, if it has one or parameters say that it is a part; else None."""
    octets = content(deliver)
    if deliver.esm_class & UDHI:
        return octets
    parameters = dict(deliver.parameters)
    place = [
        int.from_bytes(parameters.get(tag, b""), "big")
        for tag in (Tag.SAR_MSG_REF_NUM, Tag.SAR_TOTAL_SEGMENTS, Tag.SAR_SEGMENT_SEQNUM)
    ]
    reference, total, number = place
    if reference > 0xFFFF or not 1 <= number <= total <= 0xFF:
        return None
    return b"\x06\x08\x04" + reference.to_bytes(2, "big") + bytes((total, number)) + octets


def _text(value: bytes) -> str:
    """Return a C string in a parameter, whose zero octet some forget."""
    return value.partition(b"\0")[0].decode("latin-1")
