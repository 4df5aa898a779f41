"""An aggregator's SMSC: SMPP 3.4.

**Source:** SMPP Protocol Specification v3.4, sections 4 (PDUs) and 5 (parameters).
"""

from __future__ import annotations

import itertools
import struct
import time
from typing import ClassVar, Literal

from gateway.simulate.carrier.clock import stamp
from gateway.simulate.carrier.connection import MalformedError
from gateway.simulate.carrier.session import Session, Submit
from gateway.simulate.carrier.text import Part, split_header

GENERIC_NACK, BIND_RECEIVER, BIND_TRANSMITTER, SUBMIT_SM, DELIVER_SM, UNBIND = 0x8000_0000, 1, 2, 4, 5, 6
BIND_TRANSCEIVER, ENQUIRE_LINK = 9, 0x15
RESPONSE = 0x8000_0000
BINDS = {BIND_RECEIVER, BIND_TRANSMITTER, BIND_TRANSCEIVER}
WRONG_LENGTH, WRONG_COMMAND, NOT_BOUND, WRONG_SOURCE = 0x01, 0x03, 0x04, 0x0A
UDHI, RECEIPT = 0x40, 0x04
SAR_REF, SAR_TOTAL, SAR_NUMBER, MESSAGE_PAYLOAD = 0x020C, 0x020E, 0x020F, 0x0424
WANTED: dict[int, Literal["always", "failure", "never"]] = {1: "always", 2: "failure"}
VERSION_TAG = struct.pack("!HHB", 0x0210, 1, 0x34)

HEADER = struct.Struct("!IIII")  # command_length, command_id, command_status, sequence_number
PARAMETER = struct.Struct("!HH")


class Smpp(Session):
    """A connection of SMPP 3.4."""

    HEADER_BYTES = 16
    FLOW_CONTROL = 0x58
    BAD_NUMBER = 0x0B
    LOGIN_CODES: ClassVar = {
        "version": 0x0D, "unknown": 0x0F, "secret": 0x0E, "full": 0x0D, "kind": 0x0D, "repeated": 0x05,
    }  # fmt: skip
    FAILING = "UNDELIV/001"

    _ids = itertools.count(int(time.time()) * 1_000_000)

    def receive(self, pdu: bytes) -> None:
        """Act on one PDU."""
        _, command, status, sequence = HEADER.unpack_from(pdu)
        if command == SUBMIT_SM:
            if self.account is None or not self.sends:
                self.send(self._response(command, sequence, NOT_BOUND))
            else:
                self.submitted(self._read_submit(pdu, sequence))
        elif command == DELIVER_SM | RESPONSE:
            self.acknowledged(sequence, status)
        elif command in BINDS:
            self._login(command, pdu, sequence)
        elif command == ENQUIRE_LINK:
            self.send(self._response(command, sequence, 0))
        elif command == UNBIND:
            self.send(self._response(command, sequence, 0))
            self.close()
        elif command == UNBIND | RESPONSE:
            self.close()
        elif command == GENERIC_NACK:
            self.note("nack", sequence=sequence, code=status)
        elif command != ENQUIRE_LINK | RESPONSE:
            self.note("unknown", command=command)
            self.send(HEADER.pack(HEADER.size, GENERIC_NACK, WRONG_COMMAND, sequence))

    def _login(self, command: int, pdu: bytes, sequence: int) -> None:
        name, at = _string(pdu, HEADER.size, 16)
        password, at = _string(pdu, at, 9)
        _, at = _string(pdu, at, 13)
        version = pdu[at]
        _, at = _string(pdu, at + 3, 41)
        own = b"mingluo\0" + VERSION_TAG

        def answer(code: int) -> bytes:
            return self._response(command, sequence, code, b"" if code else own)

        if self.account is None:
            self.sends, self.receives = command != BIND_RECEIVER, command != BIND_TRANSMITTER
        self.enter(name, lambda secret: password == secret, answer, "" if version <= 0x34 else "version")

    def _read_submit(self, pdu: bytes, sequence: int) -> Submit:
        service, at = _string(pdu, HEADER.size, 6)
        source, at = _string(pdu, at + 2, 21)
        number, at = _string(pdu, at + 2, 21)
        esm_class, priority = pdu[at], pdu[at + 2]
        _, at = _string(pdu, at + 3, 17)
        _, at = _string(pdu, at, 17)
        registered, coding, size = pdu[at], pdu[at + 2], pdu[at + 4]
        content, parameters = pdu[at + 5 : at + 5 + size], _parameters(pdu[at + 5 + size :])
        code = 0
        if parameters is None or len(content) != size or size == 255:
            code = WRONG_LENGTH
        else:
            code = self._code_of(source) or self.numbers_code([number.removeprefix("+")])
        parameters = parameters or {}
        content = parameters.get(MESSAGE_PAYLOAD, content)
        part, text = split_header(content, udhi=bool(esm_class & UDHI))
        if part is None and {SAR_REF, SAR_TOTAL, SAR_NUMBER} <= parameters.keys():
            sar = [int.from_bytes(parameters[tag][:2], "big") for tag in (SAR_REF, SAR_TOTAL, SAR_NUMBER)]
            part = Part(*sar) if 1 <= sar[2] <= sar[1] else None
        fields = {"esm_class": esm_class, "priority": priority, "service": service}
        wanted = WANTED.get(registered & 3, "never")
        return Submit(sequence, source, [number], coding, part, text, wanted, code, fields)

    def _code_of(self, source: str) -> int:
        assert self.account is not None
        return 0 if source.startswith(self.account.source) else WRONG_SOURCE

    def submit_answer(self, submit: Submit, code: int, key: int) -> bytes:
        """submit_sm_resp: message_id; no body where it is refused."""
        return self._response(SUBMIT_SM, submit.sequence, code, b"" if code else b"%d\0" % key)

    def take_key(self, submit: Submit) -> int:
        """A number that no run of the carrier repeats."""
        return next(self._ids)

    def show(self, key: int) -> str:
        """The number in decimal."""
        return str(key)

    def report(self, submit: Submit, number: str, key: int, stat: str, at: int) -> tuple[int, bytes]:
        """deliver_sm with esm_class 4 and the receipt's text of appendix B."""
        told, _, error = (stat or "DELIVRD/000").partition("/")
        times = stamp(at, "%y%m%d%H%M"), stamp(int(time.time()), "%y%m%d%H%M")
        text = f"id:{key} sub:001 dlvrd:{not stat:03d} submit date:{times[0]} done date:{times[1]}"
        content = f"{text} stat:{told} err:{error or '999'} text:".encode()
        return DELIVER_SM, _deliver(number, submit.source, RECEIPT, 0, content)

    def reply(self, number: str, to: str, coding: int, content: bytes, *, udhi: bool) -> tuple[int, bytes]:
        """deliver_sm of what a person sent."""
        return DELIVER_SM, _deliver(number, to, UDHI if udhi else 0, coding, content)

    def heartbeat(self) -> bytes:
        """enquire_link."""
        return self.frame(ENQUIRE_LINK, self.take_sequence(), b"")

    def farewell(self) -> bytes:
        """Unbind."""
        return self.frame(UNBIND, self.take_sequence(), b"")

    def frame(self, command: int, sequence: int, body: bytes) -> bytes:
        """Put the header before a body."""
        return HEADER.pack(HEADER.size + len(body), command, 0, sequence) + body

    def _response(self, command: int, sequence: int, code: int, body: bytes = b"") -> bytes:
        return HEADER.pack(HEADER.size + len(body), command | RESPONSE, code, sequence) + body


def _deliver(number: str, to: str, esm_class: int, coding: int, content: bytes) -> bytes:
    addresses = b"\0\1\1%b\0\0\1%b\0" % (number.encode("latin-1"), to.encode("latin-1"))
    # esm_class, protocol_id, priority, schedule, validity, registered, replace, coding, default message, length
    return addresses + bytes((esm_class, 0, 0, 0, 0, 0, 0, coding, 0, len(content))) + content


def _string(pdu: bytes, at: int, most: int) -> tuple[str, int]:
    """Return a C string of at most so many bytes and where it ends.

    Raises:
        MalformedError: it does not end.
    """
    end = pdu.find(b"\0", at, at + most)
    if end < 0:
        raise MalformedError("a string does not end")
    return pdu[at:end].decode("latin-1"), end + 1


def _parameters(raw: bytes) -> dict[int, bytes] | None:
    """Read optional parameters (tag, length, value); None if they do not fill the rest exactly."""
    found, at = {}, 0
    while at + PARAMETER.size <= len(raw):
        tag, size = PARAMETER.unpack_from(raw, at)
        at += PARAMETER.size + size
        found[tag] = raw[at - size : at]
    return found if at == len(raw) else None
