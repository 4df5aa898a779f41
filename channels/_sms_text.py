"""Texts on the wire: UCS-2 content, long texts in parts with a concatenation header, and what phones send back.

Used by the carriers' channels. `gateway.render.text` counts and shows segments before anything is sent; here octets
are cut, also where the header of a 16-bit reference leaves one unit less. A test holds the two to the same cuts.

Source: 3GPP TS 23.040 sections 9.2.3.24, 9.2.3.24.1 and 9.2.3.24.8; TS 23.038 section 4; Msg_Fmt of CMPP 3.0
section 8.4.3.1, MessageCoding of SGIP 1.2, MsgFormat of SMGP 3.0.3.
"""

from __future__ import annotations

from typing import NamedTuple

from channels._field import Fault, WireError

WRITE_CARD, BINARY, UCS2, GB = 3, 4, 8, 15
OCTETS = 140
"""Longest content of one SMS, header included."""

MOST_PARTS = 255
CONCATENATION, CONCATENATION_WIDE = 0x00, 0x08


def contents(text: str, reference: int, *, wide: bool = False) -> list[bytes]:
    """Return the UCS-2 content of each SMS the text takes; with more than one, each begins with a header (TP_udhi 1).

    A surrogate pair is never split. `reference` (16 bits if `wide`, else 8) must be in no other long text under way
    to the same person.

    Raises:
        WireError: VALUE: more than 255 parts, a lone surrogate, or a reference out of range.
    """
    try:
        octets = text.encode("utf-16-be")
    except UnicodeEncodeError:
        raise WireError(Fault.VALUE, "text") from None
    if not 0 <= reference < (1 << 16 if wide else 1 << 8):
        raise WireError(Fault.VALUE, "reference")
    if len(octets) <= OCTETS:
        return [octets]
    head = b"\x06\x08\x04" + reference.to_bytes(2, "big") if wide else bytes((5, 0, 3, reference))
    room = (OCTETS - len(head) - 2) // 2 * 2
    pieces = []
    at = 0
    while at < len(octets):
        end = at + room
        if end < len(octets) and 0xD8 <= octets[end - 2] <= 0xDB:
            end -= 2
        pieces.append(octets[at:end])
        at = end
    if len(pieces) > MOST_PARTS:
        raise WireError(Fault.VALUE, "text")
    return [head + bytes((len(pieces), number)) + piece for number, piece in enumerate(pieces, 1)]


class Part(NamedTuple):
    """Place of one SMS in a long text."""

    reference: int
    total: int
    number: int


def split_header(content: bytes) -> tuple[Part | None, bytes]:
    """Return the place and the rest of a content that begins with a user data header (TP_udhi 1).

    A concatenation that contradicts itself is ignored, as the standard says: its text is still read.

    Raises:
        WireError: CUT: an element, or the header, is longer than what there is.
    """
    end = 1 + content[0] if content else 1
    if end > len(content):
        raise WireError(Fault.CUT, "header")
    part = None
    at = 1
    while at < end:
        if at + 2 > end or at + 2 + content[at + 1] > end:
            raise WireError(Fault.CUT, "header element")
        element, length = content[at], content[at + 1]
        data = content[at + 2 : at + 2 + length]
        if (element, length) in ((CONCATENATION, 3), (CONCATENATION_WIDE, 4)):
            *reference, total, number = data
            if 1 <= number <= total:
                part = Part(int.from_bytes(bytes(reference), "big"), total, number)
        at += 2 + length
    return part, content[end:]


def decoded(msg_fmt: int, octets: bytes) -> str:
    """Return the text a person sent; what cannot be read is shown as U+FFFD, binary content as nothing.

    UCS-2 with a message class counts as UCS-2. Some gateways write GB18030 under "ASCII", and an odd format is read
    as one of the two: a reply that says "3, the dam is leaking" is worth a guess.
    """
    general = msg_fmt < 0x40
    if msg_fmt == GB:
        return octets.decode("gb18030", "replace")
    if general and msg_fmt & 0x0C == UCS2:
        return octets.decode("utf-16-be", "replace")
    if msg_fmt == WRITE_CARD or (general and msg_fmt & 0x0C == BINARY):
        return ""
    return octets.decode("ascii" if octets.isascii() else "gb18030", "replace")
