"""China Telecom's gateway: SMGP 3.0.3.

**Source:** SMGP 3.0.3, tables of the messages between SP and gateway, and its optional parameters.
"""

from __future__ import annotations

import hashlib
import struct
import time
from typing import ClassVar, Literal

from gateway.simulate.carrier.clock import Counter, moment, stamp
from gateway.simulate.carrier.connection import MalformedError
from gateway.simulate.carrier.session import Session, Submit
from gateway.simulate.carrier.text import split_header

LOGIN, SUBMIT, DELIVER, ACTIVE_TEST, EXIT, QUERY = 1, 2, 3, 4, 6, 7
RESPONSE = 0x8000_0000
STRUCTURE, WRONG_TYPE, TOO_LONG, WRONG_SOURCE = 10, 30, 36, 46
VERSION = 0x30
GATEWAY = 396
MOST_NUMBERS, NUMBER_BYTES = 100, 21
MT = 6
TP_UDHI, PK_TOTAL, PK_NUMBER = 0x0002, 0x0009, 0x000A

HEADER = struct.Struct("!III")  # PacketLength, RequestID, SequenceID
# ClientID, AuthenticatorClient, LoginMode, TimeStamp, ClientVersion
LOGIN_BODY = struct.Struct("!8s16sBIB")
# MsgType, NeedReport, Priority, ServiceID, FeeType, FeeCode, FixedFee, MsgFormat, ValidTime, AtTime, SrcTermID,
# ChargeTermID, DestTermIDCount
SUBMIT_HEAD = struct.Struct("!BBB10s2s6s6sB17s17s21s21sB")
# MsgID, IsReport, MsgFormat, RecvTime, SrcTermID, DestTermID, MsgLength
DELIVER_HEAD = struct.Struct("!10sBB14s21s21sB")
PARAMETER = struct.Struct("!HH")
STATUS = struct.Struct("!I")
WANTED: dict[int, Literal["always", "never"]] = {1: "always"}


class Smgp(Session):
    """A connection of SMGP 3.0.3."""

    FLOW_CONTROL = 1
    BAD_NUMBER = 47
    LOGIN_CODES: ClassVar = {"version": 22, "unknown": 21, "secret": 21, "full": 2, "kind": 10, "repeated": 11}
    FAILING = "UNDELIV/001"

    _ids = Counter(1_000_000, 60)

    def receive(self, pdu: bytes) -> None:
        """Act on one packet."""
        _, command, sequence = HEADER.unpack_from(pdu)
        if command == SUBMIT:
            self.need_login()
            self.submitted(self._read_submit(pdu, sequence))
        elif command == DELIVER | RESPONSE:
            if len(pdu) != HEADER.size + 10 + STATUS.size:
                raise MalformedError("Deliver_Resp of the wrong length")
            self.acknowledged(sequence, STATUS.unpack_from(pdu, HEADER.size + 10)[0])
        elif command == LOGIN:
            self._login(pdu, sequence)
        elif command == ACTIVE_TEST:
            self.need_login()
            self.send(self.frame(ACTIVE_TEST | RESPONSE, sequence, b""))
        elif command == EXIT:
            self.send(self.frame(EXIT | RESPONSE, sequence, b""))
            self.close()
        elif command == EXIT | RESPONSE:
            self.close()
        elif command != ACTIVE_TEST | RESPONSE:
            self.note("unknown", command=command)

    def _login(self, pdu: bytes, sequence: int) -> None:
        if len(pdu) != HEADER.size + LOGIN_BODY.size:
            body = STATUS.pack(STRUCTURE) + bytes(16) + bytes((VERSION,))
            self.send(self.frame(LOGIN | RESPONSE, sequence, body))
            raise MalformedError("Login of the wrong length")
        client, digest, mode, at, version = LOGIN_BODY.unpack_from(pdu, HEADER.size)
        name = _text(client)
        line = self.carrier.lines.get(name)
        secret = line.account.secret.encode() if line else b""

        def genuine(own: str) -> bool:
            return bool(digest == _md5(client.rstrip(b"\0"), bytes(7), own.encode(), b"%010d" % at))

        def answer(code: int) -> bytes:
            status = STATUS.pack(code)
            return self.frame(LOGIN | RESPONSE, sequence, status + _md5(status, digest, secret) + bytes((VERSION,)))

        why = "version" if version > VERSION else "kind" if mode > 2 else ""
        if self.account is None:
            self.sends, self.receives = mode != 1, mode != 0
        self.enter(name, genuine, answer, why)

    def _read_submit(self, pdu: bytes, sequence: int) -> Submit:
        (kind, report, priority, service, _, _, _, coding, _, _, source, _, count) = SUBMIT_HEAD.unpack_from(
            pdu, HEADER.size
        )
        at = HEADER.size + SUBMIT_HEAD.size
        end = at + NUMBER_BYTES * count
        raw = pdu[at:end].decode("latin-1")
        numbers = [raw[n : n + NUMBER_BYTES].rstrip("\0") for n in range(0, len(raw), NUMBER_BYTES)]
        size = pdu[end] if end < len(pdu) else -1
        content, rest = pdu[end + 1 : end + 1 + size], pdu[end + 1 + size :]
        parameters = _parameters(rest[8:]) if size >= 0 and len(rest) >= 8 else None
        code = 0
        if not 1 <= count <= MOST_NUMBERS or parameters is None or not self.sends:
            code = STRUCTURE
        elif kind != MT:
            code = WRONG_TYPE
        elif size > (159 if coding == 0 else 140):
            code = TOO_LONG
        else:
            code = self._code_of(source) or self.numbers_code(numbers)
        parameters = parameters or {}
        udhi = parameters.get(TP_UDHI, b"") == b"\1"
        part, text = split_header(content, udhi=udhi)
        pk = [int.from_bytes(parameters.get(tag, b"")[:1], "big") for tag in (PK_TOTAL, PK_NUMBER)]
        fields = {"pk": pk, "udhi": int(udhi), "priority": priority, "service": _text(service)}
        return Submit(sequence, _text(source), numbers, coding, part, text, WANTED.get(report, "never"), code, fields)

    def _code_of(self, source: bytes) -> int:
        assert self.account is not None
        return 0 if _text(source).startswith(self.account.source) else WRONG_SOURCE

    def submit_answer(self, submit: Submit, code: int, key: int) -> bytes:
        """Submit_Resp: MsgID, Status."""
        return self.frame(SUBMIT | RESPONSE, submit.sequence, _bcd(key) + STATUS.pack(code))

    def take_key(self, submit: Submit) -> int:
        """MsgID as the number its 20 decimal digits make."""
        return self._take_id(len(submit.numbers) if self.carrier.scenario.bulk_ids == "counted" else 1)

    def _take_id(self, count: int) -> int:
        """MsgID: gateway 6 digits, MMDDHHMM, sequence 6 digits."""
        seconds, first = self._ids.take(count)
        at = moment(seconds)
        when = ((at.tm_mon * 100 + at.tm_mday) * 100 + at.tm_hour) * 100 + at.tm_min
        return (GATEWAY * 100_000_000 + when) * 1_000_000 + first

    def show(self, key: int) -> str:
        """MsgID, its 20 digits."""
        return f"{key:020d}"

    def report(self, submit: Submit, number: str, key: int, stat: str, at: int) -> tuple[int, bytes]:
        """Deliver with IsReport 1: fields of fixed length, of which the id is binary."""
        told, _, error = (stat or "DELIVRD/000").partition("/")
        content = b"id:%b sub:001 dlvrd:%03d Submit date:%b done date:%b stat:%b err:%b text:%b" % (
            _bcd(key),
            not stat,
            stamp(at, "%y%m%d%H%M").encode(),
            stamp(int(time.time()), "%y%m%d%H%M").encode(),
            told.encode().ljust(7)[:7],
            (error or "999").encode()[:3],
            submit.content[:20].ljust(20, b"\0"),
        )
        return DELIVER, self._deliver(number, submit.source, 0, content, report=1)

    def reply(self, number: str, to: str, coding: int, content: bytes, *, udhi: bool) -> tuple[int, bytes]:
        """Deliver with IsReport 0."""
        parameters = PARAMETER.pack(TP_UDHI, 1) + b"\1" if udhi else b""
        return DELIVER, self._deliver(number, to, coding, content, report=0) + parameters

    def _deliver(self, number: str, to: str, coding: int, content: bytes, *, report: int) -> bytes:
        at = stamp(int(time.time()), "%Y%m%d%H%M%S").encode()
        phone, sp = number.encode("latin-1"), to.encode("latin-1")
        head = DELIVER_HEAD.pack(_bcd(self._take_id(1)), report, coding, at, phone, sp, len(content))
        return head + content + bytes(8)

    def heartbeat(self) -> bytes:
        """Active_Test."""
        return self.frame(ACTIVE_TEST, self.take_sequence(), b"")

    def farewell(self) -> bytes:
        """Exit."""
        return self.frame(EXIT, self.take_sequence(), b"")

    def frame(self, command: int, sequence: int, body: bytes) -> bytes:
        """Put the header before a body."""
        return HEADER.pack(HEADER.size + len(body), command, sequence) + body


def _parameters(raw: bytes) -> dict[int, bytes] | None:
    """Read optional parameters (tag, length, value); None if they do not fill the rest exactly."""
    found, at = {}, 0
    while at + PARAMETER.size <= len(raw):
        tag, size = PARAMETER.unpack_from(raw, at)
        at += PARAMETER.size + size
        found[tag] = raw[at - size : at]
    return found if at == len(raw) else None


def _bcd(key: int) -> bytes:
    return bytes.fromhex(f"{key:020d}")


def _md5(*parts: bytes) -> bytes:
    return hashlib.md5(b"".join(parts), usedforsecurity=False).digest()


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("latin-1")
