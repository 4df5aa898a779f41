"""A logged-in connection to a carrier: sliding window, answers matched by sequence, heartbeat or idle rule.

Used by `_account`. Submits leave green first; other lanes never take the places kept for green. No PDU is ever sent
again by itself, as the specifications would have it: a lost answer would be a second SMS (rule 2). What has no answer
after `answer_s`, and what is in the window when the connection ends, is doubtful; what was not written is not.

Source: CMPP 3.0 sections 6.2 and 8.1, SGIP 1.2 section 3.8, SMGP 3.0.3 section 4.3: C, T, N and the window.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from random import randrange
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from channels._assembly import Assembly, LongReferences
from channels._conversation import Conversation
from channels._field import WireError
from channels._meaning import Blame, Decision, Meaning
from channels._pdu import Pdu
from channels._sms_text import contents
from channels._wire import DOUBT, Answer, Numbering, Sms, Wire
from gateway.channel import Event, Link
from gateway.errors import ChannelError, Temporary, Unusable
from gateway.model import Lane

S = TypeVar("S")

TRIES = 3  # N: heartbeats without an answer
REFERENCES = 256
MOST_LATE = 1_000
GREEN = (Lane.GREEN,)
OTHERS = tuple(lane for lane in Lane if lane is not Lane.GREEN)
UNFIT = Answer(Meaning(Decision.PERMANENT, Blame.MESSAGE, "does not fit the protocol's fields", "字段不符"), "unfit")


class Work(Protocol):
    """Where a session finds its work, and tells how it went."""

    def take(self, lanes: Sequence[Lane]) -> Sms | None:
        """Return the next SMS of these lanes, if one may leave now."""

    def waits(self) -> bool:
        """Whether the carrier asked for patience."""

    def open_places(self, session: Session[Any]) -> int:
        """Return how much of the window lanes other than green may fill."""

    def served(self, took_s: float) -> None:
        """An answer came."""

    def failed(self) -> None:
        """No answer came, or the connection ended."""

    def throttled(self) -> None:
        """The carrier asked for patience."""

    def untold(self, facts: Sequence[Event]) -> None:
        """Take facts that a connection could not commit before it ended."""


class Flight(NamedTuple):
    """One PDU in the window."""

    sms: Sms
    part: int
    at: float
    content: bytes


class Session(Conversation[S]):
    """A connection we made."""

    def __init__(self, wire: Wire[S], link: Link, assembly: Assembly, work: Work, numbering: Numbering) -> None:
        account = wire.account
        super().__init__(wire, link, assembly, min(1.0, account.answer_s / 4, account.heartbeat_s / 4))
        self.greens = numbering.connections > 1 and numbering.slot == 0
        """Whether it is the green lane's own."""
        self.ready = False
        self._work = work
        self._sequences = wire.sequences(numbering)
        step = min(numbering.connections, REFERENCES)
        ring = Numbering(numbering.slot % step, step).numbers(randrange(REFERENCES), REFERENCES)  # noqa: S311 - no secret
        self._references = LongReferences(ring, REFERENCES // step)
        self._window: dict[S, Flight] = {}
        self._late: dict[S, Flight] = {}
        self._answer = asyncio.Event()
        self._next: dict[bool, deque[tuple[Sms, int, bytes]]] = {True: deque(), False: deque()}
        self._login: tuple[Pdu, asyncio.Future[Answer]] | None = None
        self._asked = 0.0
        self._questions = 0
        self._used = self.loop.time()

    # -- login ---------------------------------------------------------------------------------------------------------

    async def login(self) -> None:
        """Log in.

        Raises:
            Unusable: the account is refused.
            Temporary: not now, or the connection ended.
        """
        request = self.wire.login(datetime.now(UTC))
        answer: asyncio.Future[Answer] = self.loop.create_future()
        self._login = (request, answer)
        self.send(next(self._sequences), request)
        meaning, code, _ = await answer
        if meaning.decision is Decision.UNUSABLE:
            raise Unusable(code)
        if meaning.decision is not Decision.DONE:
            raise Temporary(code)
        self.ready = True

    def may_tell(self) -> bool:
        """Only after the login was answered."""
        return self.ready or (self._login is not None and self._login[1].done())

    def receive(self, sequence: S, pdu: Pdu) -> None:
        """Act on an answer."""
        if isinstance(pdu, self.wire.submit_answer):
            self._answered(sequence, pdu)
        elif isinstance(pdu, self.wire.login_answer) and self._login is not None and not self._login[1].done():
            self._login[1].set_result(self.wire.admitted(self._login[0], pdu))

    def unread(self, error: WireError) -> None:
        """An answer that cannot be read leaves its submit in doubt."""
        sequence = cast("S", error.sequence)
        if (flight := self._window.pop(sequence, None)) is not None:
            self._doubt(sequence, flight, "unreadable")
            self._work.failed()

    # -- submits -------------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Write submits as far as the window, the lanes and the carrier allow."""
        if not self.ready or self.leaving or self._blocked or self._work.waits():
            return
        size, free = self.wire.account.window, self._work.open_places(self)
        now = self.loop.time()
        while len(self._window) < size and (item := self._pick(len(self._window) < free)) is not None:
            sms, part, content = item
            sequence = next(self._sequences)
            try:
                self.write(self.wire.codec.encode(sequence, self.wire.submit(sms, part, content)))
            except WireError:
                sms.answer(part, UNFIT)
                continue
            sms.written[part] = True
            self._window[sequence] = Flight(sms, part, now, content)
            self._used = now

    def _pick(self, others: bool) -> tuple[Sms, int, bytes] | None:
        """Return the next part to write: what has begun goes before what has not."""
        for green, lanes in ((True, GREEN), (False, OTHERS)):
            if not green and not others:
                return None
            waiting = self._next[green]
            while True:
                while waiting:
                    item = waiting.popleft()
                    if item[0].answers[item[1]] is None:
                        return item
                if (sms := self._work.take(lanes)) is None:
                    break
                waiting.extend((sms, part, content) for part, content in enumerate(self._contents(sms)))
        return None

    def _contents(self, sms: Sms) -> list[bytes]:
        if len(sms.contents) == 1:
            return sms.contents
        return contents(sms.text, self._references.take(sms.numbers, self.loop.time()))

    def _answered(self, sequence: S, pdu: Pdu) -> None:
        flight = self._window.pop(sequence, None)
        self._answer.set()
        if flight is None:
            self._answered_late(sequence, pdu)
            return
        sms, part, at, content = flight
        answer = self.wire.answered(sequence, pdu, sms.numbers)
        if answer.meaning.decision is Decision.THROTTLED:
            self._work.throttled()
            sms.written[part] = False
            if self.loop.time() < sms.until:
                self._next[sms.lane is Lane.GREEN].appendleft((sms, part, content))
            else:
                sms.answer(part, answer)
            return
        self._work.served(self.loop.time() - at)
        sms.answer(part, answer)

    def _answered_late(self, sequence: S, pdu: Pdu) -> None:
        """It is doubtful already; its references still lead the report to its recipient."""
        if (flight := self._late.pop(sequence, None)) is not None:
            answer = self.wire.answered(sequence, pdu, flight.sms.numbers)
            self.tell(flight.sms.sheet.late(flight.sms, flight.part, answer))

    def _doubt(self, sequence: S, flight: Flight, code: str) -> None:
        flight.sms.answer(flight.part, Answer(DOUBT, code, self.wire.foreseen(sequence, flight.sms.numbers)))

    def after_read(self) -> None:
        """Fill the places the answers left."""
        self.pump()

    # -- timers and the end --------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Give up on answers, ask whether the carrier is there, or leave."""
        answer_s, silence_s = self.wire.account.answer_s, now - self.heard
        late = 0
        for sequence, flight in list(self._window.items()):
            if now - flight.at < answer_s:
                break
            del self._window[sequence]
            self._late[sequence] = flight
            self._doubt(sequence, flight, "no_answer")
            late += 1
        if late:
            self._work.failed()
            while len(self._late) > MOST_LATE:
                del self._late[next(iter(self._late))]
        if silence_s >= answer_s and (late or self.half_a_frame):
            self.drop("no_answer")
        elif self.ready and not self.leaving:
            if self.wire.on_demand:
                self._leave_idle(now)
            else:
                self._beat(now, silence_s)
            self.pump()

    def _beat(self, now: float, silence_s: float) -> None:
        if silence_s < self.wire.account.heartbeat_s:
            self._questions = 0
        elif now - self._asked >= self.wire.account.answer_s:
            if self._questions == TRIES:
                self.drop("no_heartbeat")
                return
            self._asked, self._questions = now, self._questions + 1
            self.send(next(self._sequences), self.wire.beat)  # type: ignore[arg-type]  # not on demand: it has one

    def _leave_idle(self, now: float) -> None:
        if not self._window and not self._requests and now - max(self._used, self.heard) > self.wire.idle_s:
            self.leaving = True
            self.part()
            self.loop.call_later(1.0, self.drop, "left")

    def untold(self, facts: Sequence[Event]) -> None:
        """Let another connection of the account commit them."""
        self._work.untold(facts)

    def goodbye(self) -> None:
        """Send the request that ends the connection."""
        self.send(next(self._sequences), self.wire.farewell)

    async def answered(self) -> None:
        """Wait until the window is empty."""
        while self._window:
            self._answer.clear()
            await self._answer.wait()

    def lost(self) -> None:
        """What is in the window is doubtful; what was begun and not written is not sent."""
        self.ready = False
        if self._login is not None and not self._login[1].done():
            self._login[1].set_exception(Temporary(self.why))
        if self._window and self.why != "left":
            self._work.failed()
        flights, self._window = self._window, {}
        self._answer.set()
        for sequence, flight in flights.items():
            self._doubt(sequence, flight, self.why)
        gone = Answer(Meaning(Decision.TEMPORARY, Blame.CARRIER, "", ""), self.why)
        for waiting in self._next.values():
            while waiting:
                sms, part, _ = waiting.popleft()
                sms.answer(part, gone)


def refusal(error: ChannelError) -> Answer:
    """Return the answer for what was not even tried."""
    decision = Decision.UNUSABLE if isinstance(error, Unusable) else Decision.TEMPORARY
    return Answer(Meaning(decision, Blame.ACCOUNT, "", ""), error.code)
