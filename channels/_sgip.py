"""SGIP 1.2, China Unicom's protocol between a service provider (SP) and its gateway (SMG).

Used by the channel `sms_sgip`, which both connects (submit) and listens: the gateway connects to the SP to hand over
replies and reports. A sequence has three words, so that it is unique over all connections: node id, time, counter;
the report of a submit repeats it.

Source: 中国联合通信公司短消息网关系统接口协议 SGIP 1.2 (2001-10), sections 3.3 (node ids), 3.4 (sequences) and 3.7
(SP and SMG), chapter 4 (messages, error codes); the messages by their names there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, NamedTuple

from channels._field import Content, Fault, Numbers, Octets, Text, Uint, WireError
from channels._login import same, stamp
from channels._pdu import RESPONSE, Codec, Group, Pdu

BARE = -1  # a form of answers without their body
PORT = 8801
LONGEST = 4096
"""The longest sensible PDU, a bulk submit with 160 octets of content, has 2,403 octets."""
MOST_NUMBERS = 100
SP_TO_SMG, SMG_TO_SP = 1, 2
SP_PAYS = "0" * 21
COUNTRY = "86"
"""Compulsory before every user's number; without it the gateway answers 6."""

U8 = Annotated[int, Uint(1)]
Number = Annotated[str, Text(21)]
Reserve = Annotated[str, Text(8)]


class Sequence(NamedTuple):
    """Sequence number, section 3.4: source node, MMDDHHMMSS as an integer, counter from 0."""

    node: int
    at: int
    counter: int

    @property
    def octets(self) -> bytes:
        """The twelve octets that a report and a trace repeat; in hexadecimal, a reference."""
        return b"".join(word.to_bytes(4, "big") for word in self)

    @classmethod
    def of(cls, octets: bytes) -> Sequence:
        """Read the twelve octets."""
        return cls(*(int.from_bytes(octets[at : at + 4], "big") for at in (0, 4, 8)))

    def next(self, at: datetime) -> Sequence:
        """Return the one after this, at a moment (aware). The counter wraps at 32 bits."""
        return Sequence(self.node, int(stamp(at)), self.counter + 1 & 0xFFFF_FFFF)


def node_id(area_code: str, corp_id: str) -> int:
    """Return an SP's node id, section 3.3: 3, four digits of area code (010 is 0100), five of corporation id.

    Raises:
        WireError: VALUE: they are no such digits.
    """
    digits = f"3{area_code:0<4}{corp_id}"
    if len(digits) != 10 or len(corp_id) != 5 or not (digits.isascii() and digits.isdigit()):
        raise WireError(Fault.VALUE, "node id")
    return int(digits)


class Answer(Pdu, frozen=True):
    """All responses but Unbind's and Trace's: a result and eight reserved octets."""

    result: U8 = 0
    reserve: Reserve = ""


class Bind(Pdu, frozen=True):
    """Bind: login with a plain password. `login_type`: who connects to whom."""

    command: ClassVar[int] = 0x1

    login_type: U8
    login_name: Annotated[str, Text(16)]
    login_password: Annotated[str, Text(16)]
    reserve: Reserve = ""


class BindResp(Answer, frozen=True):
    """Bind_Resp."""

    command: ClassVar[int] = RESPONSE | 0x1


class Unbind(Pdu, frozen=True):
    """Unbind, from either side."""

    command: ClassVar[int] = 0x2


class UnbindResp(Pdu, frozen=True):
    """Unbind_Resp: no body; read with a result and reserved octets, too, as gateways send both."""

    command: ClassVar[int] = RESPONSE | 0x2
    forms: ClassVar[tuple[int, ...]] = (BARE,)

    result: Annotated[int, Uint(0, {BARE: 1})] = 0
    reserve: Annotated[str, Text(0, {BARE: 8})] = ""


class Submit(Pdu, frozen=True, kw_only=True):
    """Submit. Defaults: the SP pays, a report in every case, UCS-2, not asked for by the user."""

    command: ClassVar[int] = 0x3

    sp_number: Number
    charge_number: Number = SP_PAYS
    user_numbers: Annotated[tuple[str, ...], Numbers(21, most=MOST_NUMBERS)]
    corp_id: Annotated[str, Text(5)]
    service_type: Annotated[str, Text(10)] = ""
    fee_type: U8 = 1
    fee_value: Annotated[str, Text(6)] = "0"
    given_value: Annotated[str, Text(6)] = "0"
    agent_flag: U8 = 0
    morelate_to_mt_flag: U8 = 2
    priority: U8 = 0
    expire_time: Annotated[str, Text(16)] = ""
    schedule_time: Annotated[str, Text(16)] = ""
    report_flag: U8 = 1
    tp_pid: U8 = 0
    tp_udhi: U8 = 0
    message_coding: U8 = 8
    message_type: U8 = 0
    message_content: Annotated[bytes, Content(4)]
    reserve: Reserve = ""


class SubmitResp(Answer, frozen=True):
    """Submit_Resp."""

    command: ClassVar[int] = RESPONSE | 0x3


class Deliver(Pdu, frozen=True, kw_only=True):
    """Deliver: a reply."""

    command: ClassVar[int] = 0x4

    user_number: Number
    sp_number: Number
    tp_pid: U8 = 0
    tp_udhi: U8 = 0
    message_coding: U8 = 8
    message_content: Annotated[bytes, Content(4)]
    reserve: Reserve = ""


class DeliverResp(Answer, frozen=True):
    """Deliver_Resp."""

    command: ClassVar[int] = RESPONSE | 0x4


class Report(Pdu, frozen=True):
    """Report. A bulk submit has one sequence: only sequence and number name a person."""

    command: ClassVar[int] = 0x5

    submit_sequence: Annotated[bytes, Octets(12)]
    report_type: U8
    user_number: Number
    state: U8
    error_code: U8 = 0
    reserve: Reserve = ""


class ReportResp(Answer, frozen=True):
    """Report_Resp."""

    command: ClassVar[int] = RESPONSE | 0x5


class UserRpt(Pdu, frozen=True):
    """UserRpt: the gateway tells that a user's state has changed, as closed or out of credit."""

    command: ClassVar[int] = 0x11

    sp_number: Number
    user_number: Number
    user_condition: U8
    reserve: Reserve = ""


class UserRptResp(Answer, frozen=True):
    """UserRpt_Resp."""

    command: ClassVar[int] = RESPONSE | 0x11


class Trace(Pdu, frozen=True):
    """Trace: where is the message of this submit and user?"""

    command: ClassVar[int] = 0x1000

    submit_sequence: Annotated[bytes, Octets(12)]
    user_number: Number
    reserve: Reserve = ""


class TraceNode(Pdu, frozen=True):
    """One node a traced message passed: 0 = delivered, 1 = waiting, other = an error code; when it came and went."""

    result: U8
    node_id: Annotated[str, Text(6)]
    receive_time: Annotated[str, Text(16)] = ""
    send_time: Annotated[str, Text(16)] = ""
    reserve: Reserve = ""


class TraceResp(Pdu, frozen=True):
    """Trace_Resp: the nodes in order."""

    command: ClassVar[int] = RESPONSE | 0x1000

    nodes: Annotated[tuple[TraceNode, ...], Group(TraceNode)] = ()


PDUS: tuple[type[Pdu], ...] = (
    Bind, BindResp, Unbind, UnbindResp, Submit, SubmitResp, Deliver, DeliverResp, Report, ReportResp,
    UserRpt, UserRptResp, Trace, TraceResp,
)  # fmt: skip

CODEC: Codec[Sequence] = Codec("SGIP 1.2", PDUS, longest=LONGEST, sequence=Sequence, words=3)


def admitted(bind: Bind, name: str, password: str) -> bool:
    """Tell whether a gateway that connects to us says the agreed name and password; both are always compared."""
    known = same(bind.login_name, name) & same(bind.login_password, password)
    return known and bind.login_type == SMG_TO_SP
