"""China Unicom's gateway (SMG): SGIP 1.2. It connects to the SP's listener to hand over reports and replies.

**Source:** SGIP 1.2 (October 2001), tables of the messages between SP and SMG.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import ClassVar, Literal

from gateway.simulate.carrier.clock import moment
from gateway.simulate.carrier.connection import MalformedError
from gateway.simulate.carrier.session import Session, Submit
from gateway.simulate.carrier.text import split_header

BIND, UNBIND, SUBMIT, DELIVER, REPORT = 1, 2, 3, 4, 5
RESPONSE = 0x8000_0000
SP_TO_SMG, SMG_TO_SP = 1, 2
PARAMETER, WRONG_ID, LENGTH, SYSTEM = 5, 7, 8, 32
NODE = 1_0396_0
MOST_NUMBERS, NUMBER_BYTES, MOST_BYTES = 100, 21, 160

HEADER = struct.Struct("!II12s")  # length, command, sequence (node, MMDDHHMMSS, counter)
# Login Type, Login Name, Login Password, Reserve
LOGIN = struct.Struct("!B16s16s8x")
RESULT = struct.Struct("!B8x")  # Result, Reserve
# SPNumber, ChargeNumber, UserCount
SUBMIT_HEAD = struct.Struct("!21s21sB")
# CorpId, ServiceType, FeeType, FeeValue, GivenValue, AgentFlag, MorelatetoMTFlag, Priority, ExpireTime, ScheduleTime,
# ReportFlag, TP_pid, TP_udhi, MessageCoding, MessageType, MessageLength
SUBMIT_TAIL = struct.Struct("!5s10sB6s6sBBB16s16sBBBBBI")
# UserNumber, SPNumber, TP_pid, TP_udhi, MessageCoding, MessageLength
DELIVER_HEAD = struct.Struct("!21s21sBBBI")
# SubmitSequence, ReportType, UserNumber, State, ErrorCode, Reserve
REPORT_BODY = struct.Struct("!12sB21sBB8x")
WANTED: dict[int, Literal["always", "failure", "never"]] = {0: "failure", 1: "always"}


class Sgip(Session):
    """A connection of SGIP 1.2, made by the SP (submits) or by the carrier (reports and replies)."""

    HEADER_BYTES = 20
    FLOW_CONTROL = 11
    BAD_NUMBER = 6
    LOGIN_CODES: ClassVar = {"version": 1, "unknown": 1, "secret": 1, "repeated": 2, "full": 3, "kind": 4}
    FAILING = "27"
    DIALS = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Log in where the carrier calls."""
        super().connection_made(transport)
        self.receives = self.caller is not None
        if self.caller is not None:
            body = LOGIN.pack(SMG_TO_SP, self.caller.name.encode(), self.caller.secret.encode())
            self.send(self.frame(BIND, self.take_sequence(), body))

    def receive(self, pdu: bytes) -> None:
        """Act on one message."""
        _, command, raw = HEADER.unpack_from(pdu)
        sequence = int.from_bytes(raw, "big")
        if command == SUBMIT:
            self.need_login()
            self.submitted(self._read_submit(pdu, sequence))
        elif command in (DELIVER | RESPONSE, REPORT | RESPONSE):
            self.acknowledged(sequence, self._result(pdu))
        elif command == BIND:
            self._login(pdu, sequence)
        elif command == BIND | RESPONSE:
            self._logged_in(self._result(pdu))
        elif command == UNBIND:
            self.send(self.frame(UNBIND | RESPONSE, sequence, b""))
            self.close()
        elif command == UNBIND | RESPONSE:
            self.close()
        else:
            self.note("unknown", command=command)

    def _result(self, pdu: bytes) -> int:
        if len(pdu) != HEADER.size + RESULT.size:
            raise MalformedError("response of the wrong length")
        return pdu[HEADER.size]

    def _login(self, pdu: bytes, sequence: int) -> None:
        if len(pdu) != HEADER.size + LOGIN.size or self.caller is not None:
            self.send(self.frame(BIND | RESPONSE, sequence, RESULT.pack(PARAMETER)))
            raise MalformedError("Bind of the wrong length, or on the wrong connection")
        kind, name, password = LOGIN.unpack_from(pdu, HEADER.size)

        def answer(code: int) -> bytes:
            return self.frame(BIND | RESPONSE, sequence, RESULT.pack(code))

        self.enter(
            _text(name), lambda secret: _text(password) == secret, answer, "" if kind == SP_TO_SMG else "kind"
        )  # fmt: skip

    def _logged_in(self, code: int) -> None:
        if self.caller is None or self.account is not None:
            raise MalformedError("Bind_Resp to no Bind")
        self.note("called", name=self.caller.name, code=code)
        if code:
            self.close()
        else:
            self.account = self.caller
            self.carrier.entered(self)

    def _read_submit(self, pdu: bytes, sequence: int) -> Submit:
        source, _, count = SUBMIT_HEAD.unpack_from(pdu, HEADER.size)
        at = HEADER.size + SUBMIT_HEAD.size
        end = at + NUMBER_BYTES * count
        raw = pdu[at:end].decode("latin-1")
        numbers = [raw[n : n + NUMBER_BYTES].rstrip("\0") for n in range(0, len(raw), NUMBER_BYTES)]
        (corp, service, _, _, _, _, more, priority, _, _, flag, _, udhi, coding, _, size) = SUBMIT_TAIL.unpack_from(
            pdu, end
        )
        start = end + SUBMIT_TAIL.size
        content = pdu[start : start + size]
        code = 0
        if not 1 <= count <= MOST_NUMBERS or flag > 3:
            code = PARAMETER
        elif size > MOST_BYTES or start + size + 8 != len(pdu):
            code = LENGTH
        else:
            code = self._code_of(source) or self.numbers_code(numbers)
        if not code:
            numbers = [number[2:] for number in numbers]
        part, text = split_header(content, udhi=udhi == 1)
        fields = {"udhi": udhi, "priority": priority, "more": more, "corp": _text(corp), "service": _text(service)}
        wanted = WANTED.get(flag, "never")
        return Submit(sequence, _text(source), numbers, coding, part, text, wanted, code, fields)

    def _code_of(self, source: bytes) -> int:
        assert self.account is not None
        return 0 if _text(source).startswith(self.account.source) else WRONG_ID

    def numbers_code(self, numbers: list[str]) -> int:
        """Numbers without 86 are wrong."""
        return super().numbers_code(numbers) if all(n[:2] == "86" for n in numbers) else self.BAD_NUMBER

    def submit_answer(self, submit: Submit, code: int, key: int) -> bytes:
        """Submit_Resp: Result."""
        return self.frame(SUBMIT | RESPONSE, submit.sequence, RESULT.pack(code))

    def take_key(self, submit: Submit) -> int:
        """A submit's own sequence is its id."""
        return submit.sequence

    def show(self, key: int) -> str:
        """The 12 bytes of the sequence in hex."""
        return f"{key:024x}"

    def report(self, submit: Submit, number: str, key: int, stat: str, at: int) -> tuple[int, bytes]:
        """Report: State 0 delivered, 1 waiting, 2 failed with an error code."""
        state, error = {"": (0, 0), "ACCEPTD": (1, 0)}.get(stat) or (2, int(stat) if stat.isdecimal() else SYSTEM)
        return REPORT, REPORT_BODY.pack(key.to_bytes(12, "big"), 0, b"86" + number.encode(), state, error)

    def reply(self, number: str, to: str, coding: int, content: bytes, *, udhi: bool) -> tuple[int, bytes]:
        """Deliver."""
        phone, sp = b"86" + number.encode("latin-1"), to.encode("latin-1")
        return DELIVER, DELIVER_HEAD.pack(phone, sp, 0, udhi, coding, len(content)) + content + bytes(8)

    def farewell(self) -> bytes:
        """Unbind."""
        self.receives = False
        return self.frame(UNBIND, self.take_sequence(), b"")

    def take_sequence(self) -> int:
        """Node, MMDDHHMMSS as a decimal number, counter."""
        at = moment(int(time.time()))
        when = (((at.tm_mon * 100 + at.tm_mday) * 100 + at.tm_hour) * 100 + at.tm_min) * 100 + at.tm_sec
        return (NODE << 32 | when) << 32 | self.carrier.next_sequence()

    def frame(self, command: int, sequence: int, body: bytes) -> bytes:
        """Put the header before a body."""
        return HEADER.pack(HEADER.size + len(body), command, sequence.to_bytes(12, "big")) + body

    def look(self, now: float) -> None:
        """Close what is idle; take leave of a listener once everything is acknowledged."""
        super().look(now)
        scenario, silence = self.carrier.scenario, now - self.heard
        if self.caller is None:
            if scenario.idle_s and silence > scenario.idle_s:
                self.close()
        elif self.account is not None and self.receives and not self.queue and not self.in_flight:
            if silence > scenario.linger_s:
                self.leave()
        elif not self.receives and silence > scenario.patience_s:
            self.close()


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("latin-1")
