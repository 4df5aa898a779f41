"""Field types, header and framing of the carriers' binary protocols: the one place where octets become PDUs.

`_cmpp`, `_sgip` and `_smgp` declare each PDU as a class whose annotations are the field table of its specification;
this module reads the tables once, at import. The three protocols share the rest: big-endian unsigned integers, octet
strings filled up with zero octets on the right, a header of total length, command and sequence, and a response that
has the request's command with the highest bit set and its sequence.

Sessions use `Codec.encode` to write and a `Framer` to read. Whatever the octets, reading ends in PDUs, in `Unknown`,
or in a `WireError` that says which rule they broke; nothing is allocated for a length that has not arrived.

Source: CMPP 3.0 (QB-GF-028-2003) section 8, SGIP 1.2 chapter 4, SMGP 3.0.3 section 5.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, get_type_hints

import msgspec

from gateway.errors import MingluoError

RESPONSE = 0x8000_0000
"""Set in the command of every response."""


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


class Pdu(msgspec.Struct, frozen=True, gc=False):
    """Base of all bodies. A field's annotation carries its kind, in the order of the specification's table."""

    command: ClassVar[int] = 0
    forms: ClassVar[tuple[int, ...]] = ()
    """Versions a peer may use here whatever was agreed; which one it was is read from the size."""

    def __repr__(self) -> str:
        """Return the name only: passwords, numbers and texts stay out of logs and tracebacks."""
        return f"<{type(self).__name__}>"


class Unknown(Pdu, frozen=True):
    """A frame whose command the protocol does not give to a service provider: to be answered or ignored."""

    code: int
    body: bytes


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
        count, at = _uint(body, at, 1)
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
        length, at = _uint(body, at, self.size_in(form))
        if length > len(body) - at:
            raise WireError(Fault.CUT)
        return body[at : at + length], at + length


class Group(Variable):
    """A count of one octet and as many bodies of `member`, each of one size."""

    def __init__(self, member: type[Pdu]) -> None:
        self.member = member
        self._layout = Layout(member)
        assert self._layout.size
        self._size: int = self._layout.size

    def encode(self, value: Sequence[Pdu], form: int) -> bytes:
        """Return count and bodies."""
        return bytes((len(value),)) + b"".join(map(self._layout.encode, value))

    def decode(self, body: bytes, at: int, form: int) -> tuple[tuple[Pdu, ...], int]:
        """Read count and bodies."""
        count, at = _uint(body, at, 1)
        end = at + count * self._size
        if end > len(body):
            raise WireError(Fault.CUT)
        return tuple([self._layout.decode(body[one : one + self._size]) for one in range(at, end, self._size)]), end


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


def _uint(body: bytes, at: int, size: int) -> tuple[int, int]:
    if at + size > len(body):
        raise WireError(Fault.CUT)
    return int.from_bytes(body[at : at + size], "big"), at + size


_UNFIT = (struct.error, ValueError, OverflowError)


class _Run:
    """Neighbouring fields of one size each."""

    def __init__(self, fields: Sequence[tuple[str, Fixed, int]]) -> None:
        self._fields = fields
        self._names = [name for name, _, _ in fields]
        self._struct = struct.Struct(">" + "".join(kind.code(size) for _, kind, size in fields))
        # Integers pass as they are; the others are few.
        self._converted = [(n, kind, size) for n, (_, kind, size) in enumerate(fields) if not isinstance(kind, Uint)]
        self._get: Callable[[Pdu], Iterable[Any]] = attrgetter(*self._names)
        if len(fields) == 1:
            self._get = lambda pdu: (getattr(pdu, self._names[0]),)
        self.size: int | None = self._struct.size

    def encode(self, pdu: Pdu) -> bytes:
        values = list(self._get(pdu))
        try:
            for index, kind, size in self._converted:
                values[index] = kind.outward(values[index], size)
            return self._struct.pack(*values)
        except _UNFIT:
            raise WireError(Fault.VALUE, self._culprit(pdu)) from None

    def decode(self, body: bytes, at: int, into: dict[str, Any]) -> int:
        end = at + self._struct.size
        if end > len(body):
            raise WireError(Fault.CUT, self._cut(len(body) - at))
        values = list(self._struct.unpack_from(body, at))
        for index, kind, _ in self._converted:
            values[index] = kind.inward(values[index])
        into.update(zip(self._names, values, strict=True))
        return end

    def _culprit(self, pdu: Pdu) -> str:
        for name, kind, size in self._fields:
            try:
                struct.pack(">" + kind.code(size), kind.outward(getattr(pdu, name), size))
            except _UNFIT:
                return name
        return ""

    def _cut(self, left: int) -> str:
        for name, _, size in self._fields:
            left -= size
            if left < 0:
                return name
        return ""


class _Single:
    """One field whose size is told by the octets."""

    size: int | None = None

    def __init__(self, name: str, kind: Variable, form: int) -> None:
        self._name, self._kind, self._form = name, kind, form

    def encode(self, pdu: Pdu) -> bytes:
        try:
            return self._kind.encode(getattr(pdu, self._name), self._form)
        except WireError as error:
            raise WireError(error.fault, self._name) from None
        except _UNFIT:
            raise WireError(Fault.VALUE, self._name) from None

    def decode(self, body: bytes, at: int, into: dict[str, Any]) -> int:
        try:
            into[self._name], end = self._kind.decode(body, at, self._form)
        except WireError as error:
            raise WireError(error.fault, self._name) from None
        return end


P = TypeVar("P", bound=Pdu)


class Layout(Generic[P]):
    """The field table of one PDU in one version, compiled once. A field that version lacks keeps its default."""

    def __init__(self, pdu: type[P], form: int = 0) -> None:
        self.pdu = pdu
        self._steps: list[_Run | _Single] = []
        run: list[tuple[str, Fixed, int]] = []
        hints = get_type_hints(pdu, include_extras=True)
        for name in pdu.__struct_fields__:
            kind = hints[name].__metadata__[0]
            if isinstance(kind, Fixed):
                if size := kind.size_in(form):
                    run.append((name, kind, size))
                continue
            if run:
                self._steps.append(_Run(run))
                run = []
            self._steps.append(_Single(name, kind, form))
        if run:
            self._steps.append(_Run(run))
        sizes = [step.size for step in self._steps]
        self.size = None if None in sizes else sum(size for size in sizes if size is not None)
        """In octets, if it is always the same."""

    def encode(self, pdu: P) -> bytes:
        """Return the body.

        Raises:
            WireError: COUNT or VALUE, with the field.
        """
        try:
            return b"".join([step.encode(pdu) for step in self._steps])
        except WireError as error:
            raise WireError(error.fault, f"{self.pdu.__name__}.{error.where}") from None

    def decode(self, body: bytes) -> P:
        """Read a body, all of it.

        Raises:
            WireError: CUT, TRAILING or COUNT, with the field.
        """
        values: dict[str, Any] = {}
        at = 0
        try:
            for step in self._steps:
                at = step.decode(body, at, values)
        except WireError as error:
            raise WireError(error.fault, f"{self.pdu.__name__}.{error.where}") from None
        if at != len(body):
            raise WireError(Fault.TRAILING, self.pdu.__name__)
        return self.pdu(**values)


S = TypeVar("S")


class Frame(NamedTuple, Generic[S]):
    """One PDU with the sequence that pairs request and response."""

    sequence: S
    pdu: Pdu


class Codec(Generic[S]):
    """One protocol in one version: its header, its PDUs, the longest frame it allows.

    `sequence` makes a sequence of `words` integers of 32 bits: `int`, or a NamedTuple.
    """

    def __init__(
        self,
        name: str,
        pdus: Iterable[type[Pdu]],
        *,
        longest: int,
        sequence: Callable[..., S],
        words: int = 1,
        form: int = 0,
    ) -> None:
        self.name = name
        self.longest = longest
        self.form = form
        self._header = struct.Struct(">II" + "I" * words)
        self._sequence = sequence
        layouts = {pdu: [Layout(pdu, each) for each in (form, *pdu.forms)] for pdu in pdus}
        # By class, for one protocol's Submit has the command of another's Unbind.
        self._write = {pdu: ours for pdu, (ours, *_) in layouts.items()}
        self._read = {pdu.command: each for pdu, each in layouts.items()}

    def encode(self, sequence: S, pdu: Pdu) -> bytes:
        """Return a whole frame.

        Raises:
            WireError: COUNT or VALUE: a field cannot hold what it was given. OVERSIZED: the frame cannot.
        """
        body = self._write[type(pdu)].encode(pdu)
        length = self._header.size + len(body)
        if length > self.longest:
            raise WireError(Fault.OVERSIZED, type(pdu).__name__)
        words = sequence if isinstance(sequence, tuple) else (sequence,)
        try:
            return self._header.pack(length, pdu.command, *words) + body
        except struct.error:
            raise WireError(Fault.VALUE, "sequence") from None

    def length(self, buffer: bytes, at: int = 0) -> int | None:
        """Return the length of the frame that begins at `at`, once the octets tell it.

        Raises:
            WireError: SHORT or OVERSIZED; frames are lost.
        """
        if at + 4 > len(buffer):
            return None
        length = int.from_bytes(buffer[at : at + 4], "big")
        if length < self._header.size:
            raise WireError(Fault.SHORT, f"{self.name}: a frame of {length} octets, less than its header")
        if length > self.longest:
            raise WireError(Fault.OVERSIZED, f"{self.name}: a frame of {length} octets, more than {self.longest}")
        return length

    def decode(self, frame: bytes) -> Frame[S]:
        """Read one whole frame.

        Raises:
            WireError: it is none, or the body is not what the command says.
        """
        length = self.length(frame)
        if length is None or length > len(frame):
            raise WireError(Fault.CUT, self.name)
        if length < len(frame):
            raise WireError(Fault.TRAILING, self.name)
        _, command, *words = self._header.unpack_from(frame)
        sequence = self._sequence(*words)
        body = frame[self._header.size :]
        try:
            return Frame(sequence, self._body(command, body))
        except WireError as error:
            raise WireError(error.fault, f"{self.name} {error.where}", command, sequence) from None

    def _body(self, command: int, body: bytes) -> Pdu:
        layouts = self._read.get(command)
        if layouts is None:
            return Unknown(command, body)
        for layout in layouts:
            if layout.size == len(body):
                return layout.decode(body)
        return layouts[0].decode(body)


class Framer(Generic[S]):
    """Cuts a stream into frames, however it was cut on the way.

        for frame in framer.feed(data): ...

    Frames ahead of a bad one come first. A bad frame raises in its turn and is consumed: iterate again for those
    behind it, unless the error is `lost`; then it is raised for ever.
    """

    def __init__(self, codec: Codec[S]) -> None:
        self._codec = codec
        self._buffer = b""
        self._at = 0

    @property
    def pending(self) -> int:
        """Octets of a frame that has begun: a peer may not take for ever to end it."""
        return len(self._buffer) - self._at

    def feed(self, data: bytes) -> Framer[S]:
        """Add what was read; returns itself."""
        self._buffer = self._buffer[self._at :] + data
        self._at = 0
        return self

    def __iter__(self) -> Iterator[Frame[S]]:
        return self

    def __next__(self) -> Frame[S]:
        length = self._codec.length(self._buffer, self._at)
        if length is None or length > self.pending:
            raise StopIteration
        start, self._at = self._at, self._at + length
        return self._codec.decode(self._buffer[start : self._at])
