"""Bytes of one connection to a simulated carrier: the stream cut into PDUs, and answers gathered into few writes."""

from __future__ import annotations

import asyncio
import socket
import struct
from abc import ABC, abstractmethod
from typing import ClassVar, cast

LARGEST_PDU = 16_384
LENGTH = struct.Struct("!I")
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing sends RST."""


class MalformedError(ValueError):
    """A PDU that cannot be what its command says."""


class Connection(asyncio.Protocol, ABC):
    """A TCP connection whose PDUs begin with their length in four bytes."""

    HEADER_BYTES: ClassVar[int] = 12

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.is_open = False
        self.is_blocked = False
        """The client does not read what it is sent."""
        self._loop = asyncio.get_running_loop()
        self.heard = self._loop.time()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._out: list[bytes] = []

    @abstractmethod
    def receive(self, pdu: bytes) -> None:
        """Act on one whole PDU.

        Raises:
            MalformedError: it is none; the connection is closed.
        """

    @property
    @abstractmethod
    def silent(self) -> bool:
        """Whether nothing that comes is answered."""

    @abstractmethod
    def write_log(self) -> None:
        """Write what was noted so far."""

    @abstractmethod
    def lost(self) -> None:
        """Clear up after the connection ended."""

    @abstractmethod
    def note(self, kind: str, **fields: object) -> None:
        """Add a line about this connection to the log."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport, self.is_open = cast("asyncio.Transport", transport), True

    def data_received(self, data: bytes) -> None:
        """Cut the stream into PDUs and act on each."""
        self.heard = self._loop.time()
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while size - at >= self.HEADER_BYTES and self.is_open:
            length: int = LENGTH.unpack_from(data, at)[0]
            if not self.HEADER_BYTES <= length <= LARGEST_PDU:
                self.note("garbage", length=length)
                self.close()
                return
            if size - at < length:
                break
            self._take(data[at : at + length])
            at += length
        self._rest = data[at:]

    def _take(self, pdu: bytes) -> None:
        if self.silent:
            self.note("ignored", pdu=pdu[: self.HEADER_BYTES].hex())
            return
        try:
            self.receive(pdu)
        except (MalformedError, struct.error, IndexError) as error:
            self.note("malformed", pdu=pdu[:64].hex(), why=str(error))
            self.close()

    def send(self, data: bytes) -> None:
        """Send after everything noted so far is in the log."""
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(data)

    def flush(self) -> None:
        """Write the log, then what waits to be sent."""
        self.write_log()
        if self._out and self.is_open and self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read."""
        self.is_blocked = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self.is_blocked = False
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """Close once everything is sent."""
        self.flush()
        self.is_open = False
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Cut the connection as a broken line does: what is not sent yet is lost."""
        self._out.clear()
        self.is_open = False
        if self._transport is not None:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        """Clear up."""
        self.is_open, self._transport = False, None
        self.lost()
        self.closed.set()
