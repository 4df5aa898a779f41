"""SMGP 3.0.3, China Telecom's protocol between a service provider (SP) and its gateway (SMGW).

Used by the channel `sms_smgp`. Message ids are ten octets of BCD, never text: in a report they stand raw between
ASCII labels, and any of them may look like a space, a colon or the end of a string.

Source: 中国电信短消息网关协议 SMGP 3.0.3, sections 5.2.1 (header), 5.2.2 (messages), 6.2 (compulsory parameters and
their codes), 6.3 (optional parameters).
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import IntEnum
from typing import Annotated, ClassVar, NamedTuple

from channels._field import Content, Fault, Numbers, Octets, Text, Tlvs, Uint, WireError
from channels._login import request_digest, response_digest, same, stamp
from channels._pdu import RESPONSE, Codec, Pdu

V3 = 0x30
PORT = 8890
LONGEST = 8192
"""The longest sensible PDU, a bulk submit with 100 pseudonyms in its optional parameters, has about 5,700 octets."""
MOST_NUMBERS = 100
SEND, RECEIVE, BOTH = 0, 1, 2

U8 = Annotated[int, Uint(1)]
U32 = Annotated[int, Uint(4)]
Number = Annotated[str, Text(21)]
MsgIdOctets = Annotated[bytes, Octets(10)]
Parameters = Annotated[tuple[tuple[int, bytes], ...], Tlvs()]


class Tag(IntEnum):
    """Tags of optional parameters, section 6.3."""

    TP_PID = 0x0001
    TP_UDHI = 0x0002
    LINK_ID = 0x0003
    CHARGE_USER_TYPE = 0x0004
    CHARGE_TERM_TYPE = 0x0005
    CHARGE_TERM_PSEUDO = 0x0006
    DEST_TERM_TYPE = 0x0007
    DEST_TERM_PSEUDO = 0x0008
    PK_TOTAL = 0x0009
    PK_NUMBER = 0x000A
    SUBMIT_MSG_TYPE = 0x000B
    SP_DEAL_RESULT = 0x000C
    SRC_TERM_TYPE = 0x000D
    SRC_TERM_PSEUDO = 0x000E
    NODES_COUNT = 0x000F
    MSG_SRC = 0x0010
    SRC_TYPE = 0x0011
    M_SERVICE_ID = 0x0012


class Login(Pdu, frozen=True):
    """Login, section 5.2.2.1. `time_stamp` is an integer: it has lost its leading zero."""

    command: ClassVar[int] = 0x1

    client_id: Annotated[str, Text(8)]
    authenticator_client: Annotated[bytes, Octets(16)]
    login_mode: U8
    time_stamp: U32
    client_version: U8 = V3


class LoginResp(Pdu, frozen=True):
    """Login_Resp."""

    command: ClassVar[int] = RESPONSE | 0x1

    status: U32
    authenticator_server: Annotated[bytes, Octets(16)] = bytes(16)
    server_version: U8 = V3


class Submit(Pdu, frozen=True, kw_only=True):
    """Submit, section 5.2.2.2. Defaults: from SP to user, the SP pays, a report is wanted, UCS-2."""

    command: ClassVar[int] = 0x2

    msg_type: U8 = 6
    need_report: U8 = 1
    priority: U8 = 0
    service_id: Annotated[str, Text(10)] = ""
    fee_type: Annotated[str, Text(2)] = "00"
    fee_code: Annotated[str, Text(6)] = "000000"
    fixed_fee: Annotated[str, Text(6)] = "000000"
    msg_format: U8 = 8
    valid_time: Annotated[str, Text(17)] = ""
    at_time: Annotated[str, Text(17)] = ""
    src_term_id: Number
    charge_term_id: Number = ""
    dest_term_ids: Annotated[tuple[str, ...], Numbers(21, most=MOST_NUMBERS)]
    msg_content: Annotated[bytes, Content(1)]
    reserve: Annotated[str, Text(8)] = ""
    parameters: Parameters = ()


class SubmitResp(Pdu, frozen=True):
    """Submit_Resp. One `msg_id` for all numbers: only id and number name a person."""

    command: ClassVar[int] = RESPONSE | 0x2

    msg_id: MsgIdOctets
    status: U32 = 0


class Deliver(Pdu, frozen=True, kw_only=True):
    """Deliver, section 5.2.2: a reply, or with `is_report` 1 a report (`read_report`). `recv_time`: YYYYMMDDHHMMSS."""

    command: ClassVar[int] = 0x3

    msg_id: MsgIdOctets
    is_report: U8 = 0
    msg_format: U8 = 8
    recv_time: Annotated[str, Text(14)] = ""
    src_term_id: Number
    dest_term_id: Number
    msg_content: Annotated[bytes, Content(1)]
    reserve: Annotated[str, Text(8)] = ""
    parameters: Parameters = ()


class DeliverResp(Pdu, frozen=True):
    """Deliver_Resp: repeats the MsgID."""

    command: ClassVar[int] = RESPONSE | 0x3

    msg_id: MsgIdOctets
    status: U32 = 0


class ActiveTest(Pdu, frozen=True):
    """Active_Test, from either side."""

    command: ClassVar[int] = 0x4


class ActiveTestResp(Pdu, frozen=True):
    """Active_Test_Resp."""

    command: ClassVar[int] = RESPONSE | 0x4


class Exit(Pdu, frozen=True):
    """Exit, from either side."""

    command: ClassVar[int] = 0x6


class ExitResp(Pdu, frozen=True):
    """Exit_Resp."""

    command: ClassVar[int] = RESPONSE | 0x6


class Query(Pdu, frozen=True):
    """Query: the statistics of a day, YYYYMMDD; `query_type` 1 asks for one service, `query_code`."""

    command: ClassVar[int] = 0x7

    query_time: Annotated[str, Text(8)]
    query_type: U8 = 0
    query_code: Annotated[str, Text(10)] = ""


class QueryResp(Pdu, frozen=True):
    """Query_Resp: messages and users taken; sent, waiting and failed, down (MT) and up (MO)."""

    command: ClassVar[int] = RESPONSE | 0x7

    query_time: Annotated[str, Text(8)]
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
    reserve: Annotated[str, Text(8)] = ""


PDUS: tuple[type[Pdu], ...] = (
    Login, LoginResp, Submit, SubmitResp, Deliver, DeliverResp, ActiveTest, ActiveTestResp, Exit, ExitResp,
    Query, QueryResp,
)  # fmt: skip

CODEC: Codec[int] = Codec("SMGP 3.0.3", PDUS, longest=LONGEST, sequence=int)


def login(client_id: str, secret: str, at: datetime, mode: int = BOTH) -> Login:
    """Return the login of an account at a moment (aware)."""
    text = stamp(at)
    return Login(client_id, request_digest(client_id, 7, secret, text), mode, int(text))


def genuine(answer: LoginResp, request: Login, secret: str) -> bool:
    """Tell whether an accepted login was answered by who knows the secret."""
    wanted = response_digest(answer.status, 4, request.authenticator_client, secret)
    return same(answer.authenticator_server, wanted)


def long_text(total: int, number: int) -> tuple[tuple[int, bytes], ...]:
    """Return the optional parameters of one part of a long text, whose content begins with a header."""
    return ((Tag.TP_UDHI, b"\x01"), (Tag.PK_TOTAL, bytes((total,))), (Tag.PK_NUMBER, bytes((number,))))


def has_header(deliver: Deliver) -> bool:
    """Tell whether the content of a reply begins with a user data header (TP_udhi)."""
    value = dict(deliver.parameters).get(Tag.TP_UDHI, b"")
    return value[-1:] == b"\x01"


def reference(msg_id: bytes) -> str:
    """Return a MsgID as its twenty BCD digits (letters where a gateway puts other octets there)."""
    return msg_id.hex()


class ReportContent(NamedTuple):
    """MsgContent of a report, section 6.2. Times are YYMMDDHHMM; `err` three digits."""

    msg_id: bytes
    sub: str
    dlvrd: str
    submit_date: str
    done_date: str
    stat: str
    err: str
    text: bytes


_ID = b"id:"
_ID_END = len(_ID) + 10
# Behind the raw id all is ASCII. Gateways differ in case, "submit date" or "submit_date", and "text" or "txt".
_LABELS = re.compile(
    rb"[ ]sub:(.{3})[ ]dlvrd:(.{3})[ ]submit[ _]date:(.{10})[ ]done[ _]date:(.{10})"
    rb"[ ]stat:(.{7})[ ]err:(.{3})(?:[ ]te?xt:(.*))?",
    re.IGNORECASE | re.DOTALL,
)


def read_report(content: bytes) -> ReportContent:
    """Read the content of a report: the id by its place, the rest by labels and widths.

    Raises:
        WireError: VALUE: it does not begin with an id and those labels.
    """
    match = _LABELS.match(content, _ID_END)
    if match is None or content[: len(_ID)].lower() != _ID:
        raise WireError(Fault.VALUE, "a report without its labels")
    sub, dlvrd, submit, done, stat, err = (one.decode("latin-1").strip("\0 ") for one in match.groups()[:6])
    return ReportContent(content[len(_ID) : _ID_END], sub, dlvrd, submit, done, stat, err, match[7] or b"")
