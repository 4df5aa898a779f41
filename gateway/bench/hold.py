"""A wire that can be held: between a client and its server, over loopback, and it remembers what the client said.

Held, it lets connections stand and carries nothing, as a frozen server or a switch without power does. Used by
`gateway.bench.frozen`, and by tests that have to know what was tried.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CHUNK_BYTES = 64 * 1024


class Hold:
    """`async with Hold(dial) as hold:` listens on `hold.port`; `dial` connects to the server."""

    def __init__(self, dial: Callable[[], Awaitable[Streams]]) -> None:
        self._dial = dial
        self._flows = asyncio.Event()
        self._flows.set()
        self._ends: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self.heard = bytearray()
        """Everything clients have sent, carried or not."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._server.close()
        self.thaw()
        for writer in [writer for ends in self._ends.values() for writer in ends]:
            writer.close()
        if self._ends:
            await asyncio.wait(self._ends)

    def freeze(self) -> None:
        """Carry nothing from now on."""
        self._flows.clear()

    def thaw(self) -> None:
        """Carry again, first what has been waiting."""
        self._flows.set()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = asyncio.current_task()
        assert wire is not None
        ends = self._ends[wire] = [writer]
        wire.add_done_callback(self._ends.pop)
        try:
            far_reader, far_writer = await self._dial()
        except OSError:  # the server is gone: the client sees its connection end
            writer.close()
            return
        ends.append(far_writer)
        await asyncio.gather(self._carry(reader, far_writer, self.heard), self._carry(far_reader, writer, bytearray()))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray) -> None:
        with contextlib.suppress(ConnectionError):  # one side is gone, and so is the wire
            while data := await reader.read(CHUNK_BYTES):
                heard += data
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
