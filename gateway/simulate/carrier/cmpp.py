"""China Mobile's gateway (ISMG): CMPP 3.0 and 2.0.

**Source:** CMPP 3.0 (QB-GF-028-2003) and 2.0, tables of the messages between SP and ISMG.
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

CONNECT, TERMINATE, SUBMIT, DELIVER, QUERY, CANCEL, ACTIVE_TEST = 1, 2, 4, 5, 6, 7, 8
RESPONSE = 0x8000_0000
STRUCTURE, TOO_LONG, WRONG_SOURCE, WRONG_SP = 1, 6, 10, 11
GATEWAY = 1
MOST_NUMBERS = 99

HEADER = struct.Struct("!III")  # Total_Length, Command_Id, Sequence_Id
# Source_Addr, AuthenticatorSource, Version, Timestamp
LOGIN = struct.Struct("!6s16sBI")

WANTED: dict[int, Literal["always", "never"]] = {1: "always"}


class Cmpp30(Session):
    """A connection of CMPP 3.0."""

    FLOW_CONTROL = 8
    BAD_NUMBER = 13
    LOGIN_CODES: ClassVar = {"version": 4, "unknown": 2, "secret": 3, "full": 5, "kind": 5, "repeated": 5}
    COUNTED_IDS = True

    VERSION: ClassVar[int] = 0x30
    NUMBER_BYTES: ClassVar[int] = 32
    TYPE_BYTES: ClassVar[int] = 1  # Dest_terminal_type
    TAIL: ClassVar[bytes] = bytes(20)  # LinkID
    STATUS: ClassVar = struct.Struct("!I")
    # Msg_Id, Pk_total, Pk_number, Registered_Delivery, Msg_level, Service_Id, Fee_UserType, Fee_terminal_Id,
    # Fee_terminal_type, TP_pId, TP_udhi, Msg_Fmt, Msg_src, FeeType, FeeCode, ValId_Time, At_Time, Src_Id, DestUsr_tl
    SUBMIT_HEAD: ClassVar = struct.Struct("!8sBBBB10sB32sxBBB6s2s6s17s17s21sB")
    # Msg_Id, Dest_Id, Service_Id, TP_pid, TP_udhi, Msg_Fmt, Src_terminal_Id, Src_terminal_type, Registered, Length
    DELIVER_HEAD: ClassVar = struct.Struct("!Q21s10sBBB32sxBB")
    # Msg_Id, Stat, Submit_time, Done_time, Dest_terminal_Id, SMSC_sequence
    REPORT: ClassVar = struct.Struct("!Q7s10s10s32sI")

    _ids = Counter(0x1_0000, 1)

    def receive(self, pdu: bytes) -> None:
        """Act on one PDU."""
        _, command, sequence = HEADER.unpack_from(pdu)
        if command == SUBMIT:
            self.need_login()
            self.submitted(self._read_submit(pdu, sequence))
        elif command == DELIVER | RESPONSE:
            self._acknowledged(pdu, sequence)
        elif command == CONNECT:
            self._login(pdu, sequence)
        elif command == ACTIVE_TEST:
            self.need_login()
            self.send(self.frame(ACTIVE_TEST | RESPONSE, sequence, b"\0"))
        elif command in (QUERY, CANCEL):
            self.need_login()
            self._answer_rare(command, sequence, pdu)
        elif command == TERMINATE:
            self.send(self.frame(TERMINATE | RESPONSE, sequence, b""))
            self.close()
        elif command == TERMINATE | RESPONSE:
            self.close()
        elif command != ACTIVE_TEST | RESPONSE:
            self.note("unknown", command=command)

    def _login(self, pdu: bytes, sequence: int) -> None:
        if len(pdu) != HEADER.size + LOGIN.size:
            status = self.STATUS.pack(STRUCTURE)
            self.send(self.frame(CONNECT | RESPONSE, sequence, status + bytes(16) + bytes((self.VERSION,))))
            raise MalformedError("CMPP_CONNECT of the wrong length")
        source, digest, version, at = LOGIN.unpack_from(pdu, HEADER.size)
        name = source.rstrip(b"\0").decode("latin-1")
        account = self.carrier.lines.get(name)
        secret = account.account.secret.encode() if account else b""

        def genuine(own: str) -> bool:
            return bool(digest == _md5(source.rstrip(b"\0"), bytes(9), own.encode(), b"%010d" % at))

        def answer(code: int) -> bytes:
            status = self.STATUS.pack(code)
            body = status + _md5(status, digest, secret) + bytes((self.VERSION,))
            return self.frame(CONNECT | RESPONSE, sequence, body)

        # A client of another version would lay its SUBMITs out differently, so it is not let in at all.
        self.enter(name, genuine, answer, "" if version == self.VERSION else "version")

    def _read_submit(self, pdu: bytes, sequence: int) -> Submit:
        (_, pk_total, pk_number, registered, level, service, _, _, _, udhi, coding, sp, _, _, _, _, source, count) = (
            self.SUBMIT_HEAD.unpack_from(pdu, HEADER.size)
        )
        width, at = self.NUMBER_BYTES, HEADER.size + self.SUBMIT_HEAD.size
        end = at + width * count
        raw = pdu[at:end].decode("latin-1")
        numbers = [raw[n : n + width].rstrip("\0") for n in range(0, len(raw), width)]
        start = end + self.TYPE_BYTES + 1
        size = pdu[start - 1] if start <= len(pdu) else -1
        content = pdu[start : start + size]
        code = 0
        if not 1 <= count <= MOST_NUMBERS or start + size + len(self.TAIL) != len(pdu):
            code = STRUCTURE
        elif size > (159 if coding == 0 else 140):
            code = TOO_LONG
        else:
            code = self._code_of(sp, source) or self.numbers_code(numbers)
        part, rest = split_header(content, udhi=udhi == 1)
        fields = {"pk": [pk_total, pk_number], "udhi": udhi, "level": level, "service": _text(service)}
        wanted = WANTED.get(registered, "never")
        return Submit(sequence, _text(source), numbers, coding, part, rest, wanted, code, fields)

    def _code_of(self, sp: bytes, source: bytes) -> int:
        assert self.account is not None
        if _text(sp) != self.account.name:
            return WRONG_SP
        return 0 if _text(source).startswith(self.account.source) else WRONG_SOURCE

    def submit_answer(self, submit: Submit, code: int, key: int) -> bytes:
        """CMPP_SUBMIT_RESP: Msg_Id, Result."""
        return self.frame(SUBMIT | RESPONSE, submit.sequence, key.to_bytes(8, "big") + self.STATUS.pack(code))

    def _acknowledged(self, pdu: bytes, sequence: int) -> None:
        if len(pdu) != HEADER.size + 8 + self.STATUS.size:
            raise MalformedError("CMPP_DELIVER_RESP of the wrong length")
        self.acknowledged(sequence, self.STATUS.unpack_from(pdu, HEADER.size + 8)[0])

    def _answer_rare(self, command: int, sequence: int, pdu: bytes) -> None:
        """Answer a query with counts of nothing, and a cancel with "too late"."""
        asked = pdu[HEADER.size :]
        self.note("query" if command == QUERY else "cancel", body=asked.hex())
        body = asked[:19].ljust(19, b"\0") + bytes(32) if command == QUERY else self.STATUS.pack(1)
        self.send(self.frame(command | RESPONSE, sequence, body))

    def take_key(self, submit: Submit) -> int:
        """Msg_Id: month 4 bits, day 5, hour 5, minute 6, second 6, gateway 22, sequence 16."""
        return self._take_id(len(submit.numbers))

    def _take_id(self, count: int) -> int:
        seconds, first = self._ids.take(count)
        at = moment(seconds)
        when = (((at.tm_mon << 5 | at.tm_mday) << 5 | at.tm_hour) << 6 | at.tm_min) << 6 | at.tm_sec
        return (when << 22 | GATEWAY) << 16 | first

    def show(self, key: int) -> str:
        """Msg_Id in hex."""
        return f"{key:016x}"

    def report(self, submit: Submit, number: str, key: int, stat: str, at: int) -> tuple[int, bytes]:
        """CMPP_DELIVER with Registered_Delivery 1."""
        times = stamp(at, "%y%m%d%H%M").encode(), stamp(int(time.time()), "%y%m%d%H%M").encode()
        told = (stat or "DELIVRD").encode()
        content = self.REPORT.pack(key, told, *times, number.encode("latin-1"), key & 0xFFFF_FFFF)
        return DELIVER, self._deliver(number, submit.source, 0, content, udhi=False, registered=1)

    def reply(self, number: str, to: str, coding: int, content: bytes, *, udhi: bool) -> tuple[int, bytes]:
        """CMPP_DELIVER with Registered_Delivery 0."""
        return DELIVER, self._deliver(number, to, coding, content, udhi=udhi, registered=0)

    def _deliver(self, number: str, to: str, coding: int, content: bytes, *, udhi: bool, registered: int) -> bytes:
        own, phone, sp = self._take_id(1), number.encode("latin-1"), to.encode("latin-1")
        head = self.DELIVER_HEAD.pack(own, sp, b"", 0, udhi, coding, phone, registered, len(content))
        return head + content + self.TAIL

    def heartbeat(self) -> bytes:
        """CMPP_ACTIVE_TEST."""
        return self.frame(ACTIVE_TEST, self.take_sequence(), b"")

    def farewell(self) -> bytes:
        """CMPP_TERMINATE."""
        return self.frame(TERMINATE, self.take_sequence(), b"")

    def frame(self, command: int, sequence: int, body: bytes) -> bytes:
        """Put the header before a body."""
        return HEADER.pack(HEADER.size + len(body), command, sequence) + body


class Cmpp20(Cmpp30):
    """A connection of CMPP 2.0: numbers of 21 bytes without types, one-byte results, a reserved tail."""

    VERSION = 0x20
    NUMBER_BYTES = 21
    TYPE_BYTES = 0
    TAIL = bytes(8)
    STATUS = struct.Struct("!B")
    SUBMIT_HEAD = struct.Struct("!8sBBBB10sB21sBBB6s2s6s17s17s21sB")
    DELIVER_HEAD = struct.Struct("!Q21s10sBBB21sBB")
    REPORT = struct.Struct("!Q7s10s10s21sI")


def _md5(*parts: bytes) -> bytes:
    return hashlib.md5(b"".join(parts), usedforsecurity=False).digest()


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("latin-1")
