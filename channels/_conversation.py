"""One connection with a carrier: PDUs in and out, and what the carrier tells us committed before it is acknowledged.

`_session` logs in over one and submits; `_listener` is called by the carrier. All PDUs of one turn of the loop leave
in one write. What was told meanwhile shares the next commit. On failure to commit: nothing is acknowledged, and the
connection ends, so that the carrier tells it again, to whoever connects. Facts that no carrier would tell again (an
answer that came late) are kept, and outlive the connection. Octets that are no frames end it, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar, cast

from channels._assembly import Assembly, Whole
from channels._field import WireError
from channels._pdu import RESPONSE, Framer, Pdu
from channels._wire import Wire
from gateway.channel import Event, Link
from gateway.errors import MingluoError

S = TypeVar("S")

TICK_S = 1.0
COMMIT = 500  # requests in one commit: reading them holds the loop up for no more than some 15 ms
MOST_TOLD = 4_096  # not yet committed: beyond it we stop reading
FAREWELL_S = 2.0


class Told(NamedTuple):
    """What acknowledges one request, on the connection it came by."""

    conversation: Conversation[Any]
    sequence: Any
    answer: Pdu

    def acknowledge(self) -> None:
        """Write it, if the connection is still there."""
        self.conversation.send(self.sequence, self.answer)


class Conversation(asyncio.Protocol, Generic[S]):
    """A connection. `ended` is set once it is gone, `why` says what ended it."""

    def __init__(self, wire: Wire[S], link: Link, assembly: Assembly, tick_s: float = TICK_S) -> None:
        self.wire = wire
        self.link = link
        self.why = ""
        self.ended = asyncio.Event()
        self.leaving = False
        self.loop = asyncio.get_running_loop()
        self.heard = self.loop.time()
        self._assembly = assembly
        self._framer = Framer(wire.codec)
        self._transport: asyncio.Transport | None = None
        self._blocked = False
        self._out: list[bytes] = []
        self._requests: list[tuple[S, Pdu]] = []
        self._wholes: list[Whole] = []
        self._facts: list[Event] = []
        self._news = asyncio.Event()
        self._tick_s = tick_s
        self._timer: asyncio.TimerHandle | None = None

    # -- what the two kinds of connection do with what comes -----------------------------------------------------------

    def receive(self, sequence: S, pdu: Pdu) -> None:
        """Act on a PDU this class has no use for."""

    def unread(self, error: WireError) -> None:
        """Act on a response that is not what its command says."""

    def tick(self, now: float) -> None:
        """Do what is due."""

    def lost(self) -> None:
        """Clear up: nothing more comes or goes."""

    # -- the transport -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer."""
        self._transport = cast("asyncio.Transport", transport)
        self._timer = self.loop.call_later(self._tick_s, self._tick)

    def data_received(self, data: bytes) -> None:
        """Act on every whole frame."""
        self.heard = self.loop.time()
        self._framer.feed(data)
        while not self.ended.is_set():
            try:
                for sequence, pdu in self._framer:
                    self._receive(sequence, pdu)
            except WireError as error:
                if error.lost:
                    self.drop("garbage")
                else:
                    self._unreadable(error)
            else:
                break
        self.after_read()

    def after_read(self) -> None:
        """Go on with what the answers made room for."""

    def _receive(self, sequence: S, pdu: Pdu) -> None:
        kind, wire = type(pdu), self.wire
        if kind in wire.requests:
            if not self.may_tell():
                self.drop("not_logged_in")
                return
            self._requests.append((sequence, pdu))
            self._news.set()
            if len(self._requests) == MOST_TOLD and self._transport is not None:
                self._transport.pause_reading()
        elif wire.beat is not None and kind is type(wire.beat):
            self.send(sequence, cast("Pdu", wire.beat_answer))
        elif kind is type(wire.farewell):
            self.leaving = True
            self.send(sequence, wire.farewell_answer)
            self.loop.call_later(FAREWELL_S, self.drop, "logged_out")
        elif kind is type(wire.farewell_answer):
            self.drop("left" if self._parting else "logged_out")
        else:
            self.receive(sequence, pdu)

    def may_tell(self) -> bool:
        """Whether reports and replies are taken from the peer: it has logged in, or we have."""
        return True

    def _unreadable(self, error: WireError) -> None:
        if error.command & RESPONSE:
            self.unread(error)
        elif (answer := self.wire.unreadable(error.command)) is not None:
            self.send(cast("S", error.sequence), answer)

    def pause_writing(self) -> None:
        """Submit nothing to a carrier that does not read."""
        self._blocked = True

    def resume_writing(self) -> None:
        """Go on."""
        self._blocked = False
        self.after_read()

    def connection_lost(self, _: Exception | None) -> None:
        """Clear up."""
        self._end("logged_out" if self.leaving else "connection_lost")

    def _end(self, why: str) -> None:
        if self.ended.is_set():
            return
        self.why = self.why or why
        self.ended.set()
        self._news.set()
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self.lost()
        self._keep([])

    def send(self, sequence: S, pdu: Pdu) -> None:
        """Write a PDU at the end of this turn of the loop."""
        self.write(self.wire.codec.encode(sequence, pdu))

    def write(self, frame: bytes) -> None:
        """Write a frame at the end of this turn of the loop."""
        if not self._out:
            self.loop.call_soon(self.flush)
        self._out.append(frame)

    def flush(self) -> None:
        """Write what waits."""
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def drop(self, why: str) -> None:
        """End the connection now."""
        transport = self._transport
        if transport is None:
            self._end(why)  # it was never made
            return
        self.flush()
        self.why = self.why or why
        transport.close() if why == "left" else transport.abort()
        self._end(why)

    def _tick(self) -> None:
        self._timer = self.loop.call_later(self._tick_s, self._tick)
        now = self.loop.time()
        self._wholes.extend(self._assembly.due(now))
        if self._wholes or self._facts:
            self._news.set()
        self.tick(now)

    @property
    def half_a_frame(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._framer.pending > 0

    # -- what the carrier tells ----------------------------------------------------------------------------------------

    def tell(self, facts: Sequence[Event]) -> None:
        """Let the next commit take facts nobody waits for."""
        self._facts.extend(facts)
        self._news.set()

    def untold(self, facts: Sequence[Event]) -> None:
        """Take facts that could not be committed here."""

    def _keep(self, facts: list[Event]) -> None:
        """Commit facts once more, or hand them on if the connection is gone."""
        self._facts = facts + self._facts
        if self.ended.is_set() and self._facts:
            kept, self._facts = self._facts, []
            self.untold(kept)

    async def serve(self) -> None:
        """Commit what is told, then acknowledge it, until the connection ends."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                if self.ended.is_set():
                    return
                await self._commit()
        finally:
            self.drop("not_served")  # nothing is acknowledged any more: the carrier must know

    async def _commit(self) -> None:
        requests, self._requests = self._requests[:COMMIT], self._requests[COMMIT:]
        if self._requests:
            self._news.set()
        wholes, self._wholes = self._wholes, []
        now = self.loop.time()
        facts, self._facts = self._facts, []
        events = list(facts)
        told: list[Told] = []
        for sequence, request in requests:
            answer, report, spoken = self.wire.hear(sequence, request)
            item = Told(self, sequence, answer)
            if spoken is not None:
                wholes.extend(self._assembly.add(spoken, item, now))
                continue
            told.append(item)
            if report is not None:
                events.append(report)
        for whole in wholes:
            events.append(whole.reply)
            told.extend(whole.answers)
        if events:
            try:
                await self.link.commit(events)
            except asyncio.CancelledError:
                self._keep(facts)
                raise
            except MingluoError:
                self._keep(facts)
                for one in told:
                    one.conversation.drop("not_committed")
                return
        for one in told:
            one.acknowledge()
        transport = self._transport
        if transport is not None and len(self._requests) < MOST_TOLD // 2 and not transport.is_reading():
            transport.resume_reading()

    # -- the end -------------------------------------------------------------------------------------------------------

    async def leave(self, within_s: float) -> None:
        """Take leave once what we asked is answered, or time is up; then wait for the end."""
        self.leaving = True
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.answered()
        if not self.ended.is_set():
            self.part()
            try:
                async with asyncio.timeout(FAREWELL_S):
                    await self.ended.wait()
            except TimeoutError:
                self.drop("left")

    async def answered(self) -> None:
        """Wait until what we asked is answered."""

    def part(self) -> None:
        """Ask for the end of the connection."""
        self._parting = True
        self.goodbye()

    def goodbye(self) -> None:
        """Send the request that ends the connection."""
