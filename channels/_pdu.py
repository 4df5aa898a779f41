"""Tables, header and framing of the carriers' binary protocols: the one place where octets become PDUs.

`_cmpp`, `_sgip`, `_smgp` and `_smpp` declare each PDU as a class whose annotations are the field table of its
specification; this module compiles the tables once, at import. The header is total length, command and sequence
(SMPP's has a status between them); a response has the request's command with the highest bit set, and its sequence.

Sessions use `Codec.encode` to write and a `Framer` to read. Whatever the octets, reading ends in PDUs, in `Unknown`,
or in a `WireError` that says which rule they broke; nothing is allocated for a length that has not arrived.

Source: CMPP 3.0 (QB-GF-028-2003) section 8, SGIP 1.2 chapter 4, SMGP 3.0.3 section 5.2, SMPP 3.4 section 3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, get_type_hints

import msgspec

from channels._field import Fault, Fixed, Uint, Variable, WireError, uint_at

RESPONSE = 0x8000_0000
"""Set in the command of every response."""


class Pdu(msgspec.Struct, frozen=True, gc=False):
    """Base of all bodies. A field's annotation carries its kind, in the order of the specification's table."""

    command: ClassVar[int] = 0
    forms: ClassVar[tuple[int, ...]] = ()
    """Versions a peer may use here whatever was agreed; which one it was is read from the size."""

    def __repr__(self) -> str:
        """Return the name only: passwords, numbers and texts stay out of logs and tracebacks."""
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Tell rich's tracebacks no more."""
        return []


class Unknown(Pdu, frozen=True):
    """A frame whose command the protocol does not give to a service provider: to be answered or ignored."""

    code: int
    body: bytes


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
        """Write the fields of a PDU; raises `WireError` that names the one that does not fit."""
        values = list(self._get(pdu))
        try:
            for index, kind, size in self._converted:
                values[index] = kind.outward(values[index], size)
            return self._struct.pack(*values)
        except _UNFIT:
            raise WireError(Fault.VALUE, self._culprit(pdu)) from None

    def decode(self, body: bytes, at: int, into: dict[str, Any]) -> int:
        """Read the fields from octet `at` into a table by name, and return where they end."""
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
        """Write the field of a PDU; raises `WireError` that names it."""
        try:
            return self._kind.encode(getattr(pdu, self._name), self._form)
        except WireError as error:
            raise WireError(error.fault, self._name) from None
        except _UNFIT:
            raise WireError(Fault.VALUE, self._name) from None

    def decode(self, body: bytes, at: int, into: dict[str, Any]) -> int:
        """Read the field from octet `at` into a table by name, and return where it ends."""
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
        count, at = uint_at(body, at, 1)
        end = at + count * self._size
        if end > len(body):
            raise WireError(Fault.CUT)
        return tuple([self._layout.decode(body[one : one + self._size]) for one in range(at, end, self._size)]), end


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
        if isinstance(pdu, Unknown):
            command, body = pdu.code, pdu.body
        else:
            command, body = pdu.command, self._write[type(pdu)].encode(pdu)
        try:
            frame = self._join(command, sequence, body)
        except struct.error:
            raise WireError(Fault.VALUE, "header") from None
        if len(frame) > self.longest:
            raise WireError(Fault.OVERSIZED, type(pdu).__name__)
        return frame

    def _join(self, command: int, sequence: S, body: bytes) -> bytes:
        words = sequence if isinstance(sequence, tuple) else (sequence,)
        return self._header.pack(self._header.size + len(body), command, *words) + body

    def _split(self, frame: bytes) -> tuple[int, S, bytes]:
        _, command, *words = self._header.unpack_from(frame)
        return command, self._sequence(*words), frame[self._header.size :]

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
        command, sequence, body = self._split(frame)
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
