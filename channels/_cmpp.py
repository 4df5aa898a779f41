"""CMPP 2.0 and 3.0, China Mobile's protocol between a service provider (SP) and its gateway (ISMG).

Used by the channel `sms_cmpp`. Version 3.0 has longer numbers, types of numbers (real or pseudonym) and LinkID, and
results of four octets instead of one; in a field's annotation `{V2: n}` is its size in 2.0, 0 where 2.0 lacks it.

Source: 中国移动通信互联网短信网关接口协议 CMPP 3.0.0 (QB-GF-028-2003), sections 8.3, 8.4, 8.7 and annex 1; 2.0 as its
revision history (section 11) tells the differences.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, NamedTuple

from channels._field import Content, Fault, Numbers, Octets, Text, Uint, WireError
from channels._login import request_digest, response_digest, same, stamp
from channels._pdu import RESPONSE, Codec, Layout, Pdu

V2, V3 = 0x20, 0x30
BARE = -1  # a form of answers without their body, which some gateways send
PORT = 7890
LONGEST = 4096
"""The longest PDU, a bulk submit of 3.0 with 255 octets of content, has 3,586 octets."""
MOST_NUMBERS = 99

U8 = Annotated[int, Uint(1)]
U32 = Annotated[int, Uint(4)]
U64 = Annotated[int, Uint(8)]
Result = Annotated[int, Uint(4, {V2: 1})]


class Connect(Pdu, frozen=True):
    """CMPP_CONNECT, section 8.4.1.1. `timestamp` is an integer: it has lost its leading zero."""

    command: ClassVar[int] = 0x1

    source_addr: Annotated[str, Text(6)]
    authenticator_source: Annotated[bytes, Octets(16)]
    version: U8
    timestamp: U32


class ConnectResp(Pdu, frozen=True):
    """CMPP_CONNECT_RESP, section 8.4.1.2. Either form is read: the version is not agreed before this answer."""

    command: ClassVar[int] = RESPONSE | 0x1
    forms: ClassVar[tuple[int, ...]] = (V2, V3)

    status: Result
    authenticator_ismg: Annotated[bytes, Octets(16)] = bytes(16)
    version: U8 = V3


class Terminate(Pdu, frozen=True):
    """CMPP_TERMINATE, section 8.4.2.1, from either side."""

    command: ClassVar[int] = 0x2


class TerminateResp(Pdu, frozen=True):
    """CMPP_TERMINATE_RESP, section 8.4.2.2."""

    command: ClassVar[int] = RESPONSE | 0x2


class Submit(Pdu, frozen=True, kw_only=True):
    """CMPP_SUBMIT, section 8.4.3.1. Defaults: the SP pays, a report is wanted, UCS-2, one part."""

    command: ClassVar[int] = 0x4

    msg_id: U64 = 0
    pk_total: U8 = 1
    pk_number: U8 = 1
    registered_delivery: U8 = 1
    msg_level: U8 = 0
    service_id: Annotated[str, Text(10)] = ""
    fee_user_type: U8 = 2
    fee_terminal_id: Annotated[str, Text(32, {V2: 21})] = ""
    fee_terminal_type: Annotated[int, Uint(1, {V2: 0})] = 0
    tp_pid: U8 = 0
    tp_udhi: U8 = 0
    msg_fmt: U8 = 8
    msg_src: Annotated[str, Text(6)]
    fee_type: Annotated[str, Text(2)] = "01"
    fee_code: Annotated[str, Text(6)] = "000000"
    valid_time: Annotated[str, Text(17)] = ""
    at_time: Annotated[str, Text(17)] = ""
    src_id: Annotated[str, Text(21)]
    dest_terminal_ids: Annotated[tuple[str, ...], Numbers(32, {V2: 21}, MOST_NUMBERS)]
    dest_terminal_type: Annotated[int, Uint(1, {V2: 0})] = 0
    msg_content: Annotated[bytes, Content(1)]
    link_id: Annotated[str, Text(20, {V2: 0})] = ""
    reserve: Annotated[str, Text(8, {V3: 0})] = ""


class SubmitResp(Pdu, frozen=True):
    """CMPP_SUBMIT_RESP, section 8.4.3.2. For n numbers `msg_id` is the first of n, see `nth`."""

    command: ClassVar[int] = RESPONSE | 0x4

    msg_id: U64
    result: Result = 0


class Deliver(Pdu, frozen=True, kw_only=True):
    """CMPP_DELIVER, section 8.4.5.1: a reply, or with `registered_delivery` 1 a report (`read_report`)."""

    command: ClassVar[int] = 0x5

    msg_id: U64
    dest_id: Annotated[str, Text(21)]
    service_id: Annotated[str, Text(10)] = ""
    tp_pid: U8 = 0
    tp_udhi: U8 = 0
    msg_fmt: U8 = 8
    src_terminal_id: Annotated[str, Text(32, {V2: 21})]
    src_terminal_type: Annotated[int, Uint(1, {V2: 0})] = 0
    registered_delivery: U8 = 0
    msg_content: Annotated[bytes, Content(1)]
    link_id: Annotated[str, Text(20, {V2: 0})] = ""
    reserve: Annotated[str, Text(8, {V3: 0})] = ""


class DeliverResp(Pdu, frozen=True):
    """CMPP_DELIVER_RESP, section 8.4.5.2: repeats the Msg_Id."""

    command: ClassVar[int] = RESPONSE | 0x5

    msg_id: U64
    result: Result = 0


class Query(Pdu, frozen=True):
    """CMPP_QUERY, section 8.4.4.1. `time` is YYYYMMDD; `query_type` 1 asks for one service, `query_code`."""

    command: ClassVar[int] = 0x6

    time: Annotated[str, Text(8)]
    query_type: U8 = 0
    query_code: Annotated[str, Text(10)] = ""
    reserve: Annotated[str, Text(8)] = ""


class QueryResp(Pdu, frozen=True):
    """CMPP_QUERY_RESP, section 8.4.4.2: messages and users taken; sent, waiting and failed, down (MT) and up (MO)."""

    command: ClassVar[int] = RESPONSE | 0x6

    time: Annotated[str, Text(8)]
    query_type: U8 = 0
    query_code: Annotated[str, Text(10)] = ""
    mt_tlmsg: U32 = 0
    mt_tlusr: U32 = 0
    mt_scs: U32 = 0
    mt_wt: U32 = 0
    mt_fl: U32 = 0
    mo_scs: U32 = 0
    mo_wt: U32 = 0
    mo_fl: U32 = 0


class Cancel(Pdu, frozen=True):
    """CMPP_CANCEL, section 8.4.6.1: delete what was submitted and has not left."""

    command: ClassVar[int] = 0x7

    msg_id: U64


class CancelResp(Pdu, frozen=True):
    """CMPP_CANCEL_RESP, section 8.4.6.2: 0 = deleted, 1 = failed."""

    command: ClassVar[int] = RESPONSE | 0x7

    success_id: Result = 0


class ActiveTest(Pdu, frozen=True):
    """CMPP_ACTIVE_TEST, section 8.4.7.1, from either side."""

    command: ClassVar[int] = 0x8


class ActiveTestResp(Pdu, frozen=True):
    """CMPP_ACTIVE_TEST_RESP, section 8.4.7.2. Read without its reserved octet, too: a heartbeat is a heartbeat."""

    command: ClassVar[int] = RESPONSE | 0x8
    forms: ClassVar[tuple[int, ...]] = (BARE,)

    reserved: Annotated[int, Uint(1, {BARE: 0})] = 0


PDUS: tuple[type[Pdu], ...] = (
    Connect, ConnectResp, Terminate, TerminateResp, Submit, SubmitResp, Deliver, DeliverResp,
    Query, QueryResp, Cancel, CancelResp, ActiveTest, ActiveTestResp,
)  # fmt: skip

CODECS: dict[int, Codec[int]] = {
    form: Codec(name, PDUS, longest=LONGEST, sequence=int, form=form)
    for form, name in ((V2, "CMPP 2.0"), (V3, "CMPP 3.0"))
}
"""By version."""


class ReportContent(Pdu, frozen=True):
    """Msg_Content of a report, section 8.4.5.1. Times are YYMMDDHHMM."""

    msg_id: U64
    stat: Annotated[str, Text(7)]
    submit_time: Annotated[str, Text(10)]
    done_time: Annotated[str, Text(10)]
    dest_terminal_id: Annotated[str, Text(32, {V2: 21})]
    smsc_sequence: U32 = 0


_REPORTS = {layout.size: layout for layout in (Layout(ReportContent, V2), Layout(ReportContent, V3))}


def read_report(content: bytes) -> ReportContent:
    """Read the content of a report: 60 octets (2.0) or 71 (3.0), whichever the gateway sends on this connection.

    Raises:
        WireError: VALUE: another size.
    """
    layout = _REPORTS.get(len(content))
    if layout is None:
        raise WireError(Fault.VALUE, f"a report of {len(content)} octets")
    return layout.decode(content)


def connect(source_addr: str, secret: str, at: datetime, version: int = V3) -> Connect:
    """Return the login of an account at a moment (aware)."""
    text = stamp(at)
    return Connect(source_addr, request_digest(source_addr, 9, secret, text), version, int(text))


def genuine(answer: ConnectResp, request: Connect, secret: str) -> bool:
    """Tell whether an accepted login was answered by who knows the secret.

    The digest covers the status in the size it was sent in, which gateways between two versions mix up: either will
    do, as neither can be made without the secret.
    """
    wide, narrow = (response_digest(answer.status & 0xFF, n, request.authenticator_source, secret) for n in (4, 1))
    found = answer.authenticator_ismg
    return (same(found, wide) | same(found, narrow)) and answer.status <= 0xFF


class MsgId(NamedTuple):
    """What a Msg_Id says, section 8.4.3.2: when and by which gateway it was given, and a sequence of 16 bits."""

    month: int
    day: int
    hour: int
    minute: int
    second: int
    gateway: int
    sequence: int


_MSG_ID_BITS = MsgId(4, 5, 5, 6, 6, 22, 16)


def pack_msg_id(parts: MsgId) -> int:
    """Return the integer.

    Raises:
        WireError: VALUE: a part does not fit its bits.
    """
    number = 0
    for name, part, bits in zip(MsgId._fields, parts, _MSG_ID_BITS, strict=True):
        if not 0 <= part < 1 << bits:
            raise WireError(Fault.VALUE, f"MsgId.{name}")
        number = number << bits | part
    return number


def unpack_msg_id(number: int) -> MsgId:
    """Return its parts, whatever they say: gateways put other numbers there."""
    parts = []
    for bits in reversed(_MSG_ID_BITS):
        parts.append(number & (1 << bits) - 1)
        number >>= bits
    return MsgId(*reversed(parts))


def nth(msg_id: int, index: int) -> int:
    """Return the Msg_Id of number `index` (from 0) of a bulk submit, annex 1: its sequence begins again at 0."""
    return msg_id & ~0xFFFF | msg_id + index & 0xFFFF
