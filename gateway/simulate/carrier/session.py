"""One session with a simulated carrier: login, submits, and reports under a window.

What the protocols have in common. Each protocol's file subclasses `Session` with its commands, its codes and its
bytes. Lines of the log are written before the answers they belong to leave, so a message the client was told of
is never missing there.
"""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from random import Random
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol, cast

from gateway.simulate.carrier.connection import LENGTH, Connection, MalformedError
from gateway.simulate.carrier.text import Part, decode

if TYPE_CHECKING:
    from gateway.simulate.carrier.scenario import Account, Fault, Scenario

TRIES = 3
COUNTER = 0xFFFF_FFFF
"""What a log line has of a sequence: of SGIP's three numbers the last."""
NUMBER = re.compile(r"(86)?1[0-9]{10}")

Refusal = Literal["version", "unknown", "secret", "full", "kind", "repeated"]


class Submit(NamedTuple):
    """A submit as it came. `content` has no user data header any more; `code` is what its fields deserve, 0 if none."""

    sequence: int
    source: str
    numbers: list[str]
    coding: int
    part: Part | None
    content: bytes
    wanted: Literal["always", "failure", "never"]
    code: int
    fields: dict[str, object]
    """More for the log."""


class Outgoing(NamedTuple):
    """A report or reply on its way to the client. `id` is the message a report speaks of, as logged."""

    kind: Literal["report", "reply"]
    number: str
    id: str
    told: str
    """A report's status, "" for delivered; a reply's text."""
    command: int
    body: bytes


class Line:
    """What the carrier holds of one account: its connections, and what waits for one."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.sessions: list[Session] = []
        self.parked: deque[Outgoing] = deque()
        self.source = account.source
        """The number it last sent from: where replies go."""
        self.call: asyncio.Task[None] | None = None

    def incoming(self) -> int:
        """Count the connections the client made."""
        return sum(session.caller is None for session in self.sessions)

    def receivers(self) -> list[Session]:
        """Return the connections that take reports."""
        return [session for session in self.sessions if session.receives]


class Operator(Protocol):
    """What a session asks of the carrier it belongs to."""

    scenario: Scenario
    random: Random
    lines: dict[str, Line]
    connected: set[Session]

    def note(self, kind: str, **fields: object) -> None:
        """Add a line to the log."""

    def flush(self) -> None:
        """Write the lines noted so far."""

    def next_connection(self) -> int:
        """Return the number of a new connection."""

    def next_sequence(self) -> int:
        """Return a sequence number for a request of the carrier."""

    def draw_fault(self) -> Fault | None:
        """Draw what befalls a submit."""

    def draw_delay(self) -> float:
        """Draw how many seconds an answer takes."""

    def entered(self, session: Session) -> None:
        """Take a connection that logged in."""

    def left(self, session: Session, items: list[Outgoing]) -> None:
        """Forget a connection, and route what it left."""

    def take(self, session: Session, submit: Submit, delay_s: float) -> None:
        """Count a submit; let people reply."""

    def report(self, session: Session, submit: Submit, key: int, delay_s: float = 0.0) -> None:
        """Send the delivery reports of a submit after a while."""


class Session(Connection):
    """A connection with its login, window and timers. Subclasses say what the bytes mean."""

    FLOW_CONTROL: ClassVar[int]
    BAD_NUMBER: ClassVar[int]
    LOGIN_CODES: ClassVar[dict[Refusal, int]]
    FAILING: ClassVar[str] = "UNDELIV"
    COUNTED_IDS: ClassVar[bool] = False
    """Whether the reports of a bulk have the answered id + n."""
    DIALS: ClassVar[bool] = False
    """Whether reports and replies travel on connections the carrier makes."""

    def __init__(self, carrier: Operator, caller: Account | None = None) -> None:
        super().__init__()
        self.carrier = carrier
        self.caller = caller
        """The account the carrier calls on this connection; None where the client connected."""
        self.account: Account | None = None
        self.receives = True
        self.sends = True
        self.queue: deque[Outgoing] = deque()
        self.in_flight: dict[int, tuple[Outgoing, float, int]] = {}
        self.name = carrier.next_connection()
        self._unanswered = 0
        self._asked = self._filled = self.heard
        self._tokens = -1.0
        self._questions = 0
        self._timer: asyncio.TimerHandle | None = None

    # -- what a protocol says ----------------------------------------------------------------------------------------

    @abstractmethod
    def frame(self, command: int, sequence: int, body: bytes) -> bytes:
        """Return a request of the carrier."""

    def take_sequence(self) -> int:
        """Return a sequence number for a request of the carrier."""
        return self.carrier.next_sequence()

    @abstractmethod
    def submit_answer(self, submit: Submit, code: int, key: int) -> bytes:
        """Return the response to a submit; `key` is the first id, 0 if refused."""

    @abstractmethod
    def take_key(self, submit: Submit) -> int:
        """Return a new id as a number; the n-th number of a bulk may have this + n."""

    @abstractmethod
    def show(self, key: int) -> str:
        """Return an id as the log has it."""

    @abstractmethod
    def report(self, submit: Submit, number: str, key: int, stat: str, at: int) -> tuple[int, bytes]:
        """Return command and body of a delivery report; `stat` is "" for delivered, `at` the submit's Unix time."""

    @abstractmethod
    def reply(self, number: str, to: str, coding: int, content: bytes, *, udhi: bool) -> tuple[int, bytes]:
        """Return command and body of one part of what a person sent."""

    def heartbeat(self) -> bytes:
        """Return a question whether the client is there; b"" if the protocol has none."""
        return b""

    @abstractmethod
    def farewell(self) -> bytes:
        """Return the request that ends the connection."""

    # -- the connection ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timers."""
        super().connection_made(transport)
        self.carrier.connected.add(self)
        self._tick()

    def data_received(self, data: bytes) -> None:
        """Whatever comes is a sign of life."""
        self._questions = 0
        super().data_received(data)

    def resume_writing(self) -> None:
        """Go on with what waits."""
        super().resume_writing()
        self.pump()

    def lost(self) -> None:
        """Hand what the client did not acknowledge to another connection."""
        if self._timer is not None:
            self._timer.cancel()
        left = [item for item, _, _ in self.in_flight.values()] + list(self.queue)
        self.in_flight.clear()
        self.queue.clear()
        self.note("closed", unacknowledged=len(left))
        self.carrier.left(self, left)

    @property
    def silent(self) -> bool:
        """Whether the scenario lets nothing be answered."""
        return self.carrier.scenario.silent

    def write_log(self) -> None:
        """Write what was noted so far."""
        self.carrier.flush()

    def note(self, kind: str, **fields: object) -> None:
        """Add a line about this connection to the log."""
        self.carrier.note(kind, connection=self.name, account=self.account.name if self.account else "", **fields)

    # -- login -------------------------------------------------------------------------------------------------------

    def enter(self, name: str, genuine: Callable[[str], bool], answer: Callable[[int], bytes], why: str = "") -> None:
        """Decide on a login and answer it: `genuine` judges the secret, `why` refuses for the protocol's reasons."""
        line = self.carrier.lines.get(name)
        if self.account is not None:
            why = "repeated"
        elif not why and line is None:
            why = "unknown"
        elif not why and line is not None and not genuine(line.account.secret):
            why = "secret"
        elif not why and line is not None and line.incoming() >= line.account.connections:
            why = "full"
        code = self.carrier.scenario.login or (self.LOGIN_CODES[cast("Refusal", why)] if why else 0)
        self.note("login", name=name, code=code, why=why)
        self.send(answer(code))
        if code or line is None:
            self.close()
        else:
            self.account = line.account
            self.carrier.entered(self)

    def need_login(self) -> None:
        """Refuse anything before a login.

        Raises:
            MalformedError: nobody logged in.
        """
        if self.account is None:
            raise MalformedError("not logged in")

    # -- submits -----------------------------------------------------------------------------------------------------

    def submitted(self, submit: Submit) -> None:
        """Take or refuse a submit, answer it, and let its reports and replies follow."""
        carrier, scenario = self.carrier, self.carrier.scenario
        fault = carrier.draw_fault()
        code = submit.code or self._flow_code(len(submit.numbers), fault) or scenario.result
        if not code and not scenario.bad.isdisjoint(submit.numbers):
            code = self.BAD_NUMBER
        facts: dict[str, object] = {
            "numbers": submit.numbers, "source": submit.source, "part": list(submit.part or ()),
            "coding": submit.coding, "text": decode(submit.content, submit.coding), **submit.fields,
        }  # fmt: skip
        if code:
            self.note("refused", code=code, **facts)
            self.send(self.submit_answer(submit, code, 0))
            return
        key = self.take_key(submit)
        self.note("submit", id=self.show(key), fault=fault, **facts)
        if scenario.reports == "before":
            carrier.report(self, submit, key)
        delay = self._answer(self.submit_answer(submit, 0, key), fault)
        carrier.take(self, submit, delay)
        if scenario.reports == "after":
            carrier.report(self, submit, key, delay + scenario.report_after_s)

    def numbers_code(self, numbers: list[str]) -> int:
        """Return the code for numbers that cannot be a mobile phone's, 0 if all can."""
        return 0 if all(map(NUMBER.fullmatch, numbers)) else self.BAD_NUMBER

    def _flow_code(self, messages: int, fault: Fault | None) -> int:
        scenario = self.carrier.scenario
        if fault == "throttle" or 0 < scenario.window <= self._unanswered:
            return self.FLOW_CONTROL
        if not scenario.rate:
            return 0
        now, depth = self._loop.time(), max(scenario.rate, 100.0)
        held = depth if self._tokens < 0 else min(depth, self._tokens + (now - self._filled) * scenario.rate)
        self._filled, self._tokens = now, held
        if held < messages:
            return self.FLOW_CONTROL
        self._tokens -= messages
        return 0

    def _answer(self, answer: bytes, fault: Fault | None) -> float:
        """Answer now or later; return the delay."""
        delay = self.carrier.draw_delay()
        if delay:
            self._unanswered += 1
            self._loop.call_later(delay, self._answer_late, answer, fault)
        else:
            self._give(answer, fault)
        return delay

    def _answer_late(self, answer: bytes, fault: Fault | None) -> None:
        self._unanswered -= 1
        self._give(answer, fault)

    def _give(self, answer: bytes, fault: Fault | None) -> None:
        if fault == "drop":
            self.reset()
        elif fault == "cut":
            self.send(answer[: len(answer) // 2])
            self.flush()
            self.reset()
        elif fault == "garbage":
            self.send(self.carrier.random.randbytes(len(answer)))
        elif fault == "huge":
            self.send(LENGTH.pack(0xFFFF_FFFF) + answer[4:])
        elif fault != "unanswered":
            self.send(answer)
            if fault == "logout":
                self.leave()

    # -- reports and replies -----------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Send reports and replies as far as the window allows."""
        limit, now = self.carrier.scenario.report_window, self._loop.time()
        if not self.is_open or self.account is None:
            return
        while self.queue and not self.is_blocked and not 0 < limit <= len(self.in_flight):
            item = self.queue.popleft()
            sequence = self.take_sequence()
            self.in_flight[sequence] = (item, now, 1)
            self.send(self.frame(item.command, sequence, item.body))
            told = {"stat" if item.kind == "report" else "text": item.told}
            self.note(item.kind, number=item.number, id=item.id, sequence=sequence & COUNTER, **told)

    def acknowledged(self, sequence: int, code: int) -> None:
        """Note that the client took a report or reply."""
        item, _, _ = self.in_flight.pop(sequence, (None, 0.0, 0))
        if item is None:
            self.note("stray", sequence=sequence & COUNTER)
        else:
            self.note("ack", of=item.kind, number=item.number, id=item.id, sequence=sequence & COUNTER, code=code)
        self.pump()

    def leave(self) -> None:
        """Ask the client to go; the connection closes with its answer."""
        self.note("logout")
        self.send(self.farewell())

    # -- timers ------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if not self.is_open:
            return
        scenario = self.carrier.scenario
        self.look(self._loop.time())
        waits = [s for s in (scenario.heartbeat_s, scenario.patience_s, scenario.idle_s, scenario.linger_s) if s]
        self._timer = self._loop.call_later(max(0.01, min(1.0, min(waits) / 4)), self._tick)

    def look(self, now: float) -> None:
        """Do what is due: close what never logged in, ask whether the client is there, send again."""
        scenario = self.carrier.scenario
        if self.account is None:
            if now - self.heard > scenario.patience_s:
                self.close()
            return
        if scenario.heartbeat_s and now - self.heard > scenario.heartbeat_s and now - self._asked > scenario.patience_s:
            self._ask(now)
        # In the order they were sent, so the first that is not due ends the search.
        due = list(takewhile(lambda each: now - each[1][1] > scenario.patience_s, self.in_flight.items()))
        for sequence, (item, _, tries) in due:
            if tries >= TRIES:
                self.close()
                return
            del self.in_flight[sequence]
            self.in_flight[sequence] = (item, now, tries + 1)
            self.note("again", of=item.kind, number=item.number, id=item.id, sequence=sequence & COUNTER)
            self.send(self.frame(item.command, sequence, item.body))

    def _ask(self, now: float) -> None:
        question = self.heartbeat()
        if not question or self.carrier.scenario.silent:
            return
        if self._questions >= TRIES:
            self.close()
            return
        self._asked, self._questions = now, self._questions + 1
        self.send(question)
