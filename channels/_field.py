"""Kinds of fields in the carriers' binary protocols, and the one error for octets that break their rules.

The protocols know big-endian unsigned integers, octet strings filled up with zero octets on the right or ended by one,
counts, lengths, and optional parameters. A kind stands in the annotation of a PDU's field; `_pdu` compiles them.

Source: CMPP 3.0 (QB-GF-028-2003) section 8.1, SGIP 1.2 chapter 4, SMGP 3.0.3 sections 5.1 and 5.2, SMPP 3.4
section 3.1.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from gateway.errors import MingluoError


class Fault(StrEnum):
    """Which rule octets broke, or a PDU that cannot become octets."""

    SHORT = "short"  # a length less than the header's: the stream has lost its frames
    OVERSIZED = "oversized"  # a length beyond the protocol's longest PDU: likewise
    CUT = "cut"  # the frame ends inside a field
    TRAILING = "trailing"  # octets are left behind the last field
    COUNT = "count"  # none, or more repeats than the protocol allows
    VALUE = "value"  # does not fit its field, or is not what the field may hold


class WireError(MingluoError):
    """Octets that are no PDU of the protocol. The message names rule and field, never what the field held.

    With `sequence`, one frame is bad and the next is readable: the session may answer it with the protocol's
    "structure" result. Without (`lost`), nothing that follows can be read: close the connection.
    """

    def __init__(self, fault: Fault, where: str = "", command: int = 0, sequence: object = None) -> None:
        super().__init__(f"{fault}: {where}" if where else str(fault))
        self.fault = fault
        self.where = where
        self.command = command
        self.sequence = sequence

    @property
    def lost(self) -> bool:
        """Whether the boundaries of frames are lost."""
        return self.sequence is None


@dataclass(frozen=True)
class Sized:
    """A size in octets; `forms` gives it in versions that differ, 0 = the field is not there."""

    size: int
    forms: Mapping[int, int] = field(default_factory=dict)

    def size_in(self, form: int) -> int:
        """Return the size of the field, or of one repeat of it, in a version."""
        return self.forms.get(form, self.size)


class Fixed(Sized):
    """A field of one size: neighbours are packed by one call."""

    def code(self, size: int) -> str:
        """Return the `struct` code."""
        return f"{size}s"

    def outward(self, value: Any, size: int) -> Any:
        """Return what `struct` packs, or raise ValueError."""
        return value

    def inward(self, value: Any) -> Any:
        """Return what the PDU holds."""
        return value


class Uint(Fixed):
    """Unsigned integer."""

    def code(self, size: int) -> str:
        """Return the `struct` code."""
        return {1: "B", 2: "H", 4: "I", 8: "Q"}[size]


class Text(Fixed):
    """Octet string that ends at the first zero octet; Latin-1, so that a peer's rubbish is kept, not refused."""

    def outward(self, value: Any, size: int) -> bytes:
        """Refuse what would be cut off: half a number is another person's."""
        octets: bytes = value.encode("latin-1")
        if len(octets) > size or 0 in octets:
            raise ValueError
        return octets

    def inward(self, value: Any) -> str:
        """Drop the filling, and whatever a careless peer left behind it."""
        end = value.find(0)
        text: str = (value if end < 0 else value[:end]).decode("latin-1")
        return text


class Octets(Fixed):
    """Octets that are no text: digests, BCD identifiers, sequences. Zeros inside count."""

    def outward(self, value: Any, size: int) -> bytes:
        """Refuse another length."""
        if len(value) != size:
            raise ValueError
        return bytes(value)


class Variable(ABC):
    """A field whose size is told by the octets."""

    @abstractmethod
    def encode(self, value: Any, form: int) -> bytes:
        """Return its octets, or raise ValueError or a WireError without a place."""

    @abstractmethod
    def decode(self, body: bytes, at: int, form: int) -> tuple[Any, int]:
        """Return the value and where the next field begins, or raise a WireError without a place."""


@dataclass(frozen=True)
class Numbers(Sized, Variable):
    """A count of one octet and as many telephone numbers of `size` octets each; at least one, at most `most`."""

    most: int = 100

    def encode(self, value: Sequence[str], form: int) -> bytes:
        """Return count and numbers."""
        if not 1 <= len(value) <= self.most:
            raise WireError(Fault.COUNT)
        size = self.size_in(form)
        if max(map(len, value)) > size or not all(value) or "\0" in "".join(value):
            raise ValueError
        return bytes((len(value),)) + "".join([number.ljust(size, "\0") for number in value]).encode("latin-1")

    def decode(self, body: bytes, at: int, form: int) -> tuple[tuple[str, ...], int]:
        """Read count and numbers."""
        count, at = uint_at(body, at, 1)
        if not 1 <= count <= self.most:
            raise WireError(Fault.COUNT)
        size = self.size_in(form)
        end = at + count * size
        if end > len(body):
            raise WireError(Fault.CUT)
        text = body[at:end].decode("latin-1")
        return tuple([text[start : start + size].partition("\0")[0] for start in range(0, count * size, size)]), end


class Content(Sized, Variable):
    """A length of `size` octets and as many octets of message."""

    def encode(self, value: bytes, form: int) -> bytes:
        """Return length and octets; OverflowError if the length does not fit."""
        return len(value).to_bytes(self.size_in(form), "big") + value

    def decode(self, body: bytes, at: int, form: int) -> tuple[bytes, int]:
        """Read length and octets."""
        length, at = uint_at(body, at, self.size_in(form))
        if length > len(body) - at:
            raise WireError(Fault.CUT)
        return body[at : at + length], at + length


@dataclass(frozen=True)
class CString(Variable):
    """Text that a zero octet ends, `most` octets with it. A body that ends before the field has none: "".

    A refusal's response may lack its body (SMPP 3.4 section 4.4.2).
    """

    most: int

    def encode(self, value: str, form: int) -> bytes:
        """Return text and zero octet."""
        octets = value.encode("latin-1")
        if len(octets) >= self.most or 0 in octets:
            raise ValueError
        return octets + b"\0"

    def decode(self, body: bytes, at: int, form: int) -> tuple[str, int]:
        """Read up to the zero octet."""
        if at == len(body):
            return "", at
        end = body.find(0, at, at + self.most)
        if end < 0:
            raise WireError(Fault.CUT)
        return body[at:end].decode("latin-1"), end + 1


class Tlvs(Variable):
    """Optional parameters up to the end: tag and length of two octets each, value."""

    HEAD: ClassVar[struct.Struct] = struct.Struct(">HH")

    def encode(self, value: Iterable[tuple[int, bytes]], form: int) -> bytes:
        """Return the parameters in the order given."""
        return b"".join([self.HEAD.pack(tag, len(octets)) + octets for tag, octets in value])

    def decode(self, body: bytes, at: int, form: int) -> tuple[tuple[tuple[int, bytes], ...], int]:
        """Read all that follows; what tags mean, and whether they are known, is the reader's matter."""
        found = []
        while at < len(body):
            if at + self.HEAD.size > len(body):
                raise WireError(Fault.CUT)
            tag, length = self.HEAD.unpack_from(body, at)
            at += self.HEAD.size
            if length > len(body) - at:
                raise WireError(Fault.CUT)
            found.append((tag, body[at : at + length]))
            at += length
        return tuple(found), at


def uint_at(body: bytes, at: int, size: int) -> tuple[int, int]:
    """Return an unsigned integer and where it ends."""
    if at + size > len(body):
        raise WireError(Fault.CUT)
    return int.from_bytes(body[at : at + size], "big"), at + size
