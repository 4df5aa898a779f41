"""A simulated carrier: the port it listens on, its accounts, and what it sends them by itself.

`mingluo simulate carrier` and the tests start it. It outlives its connections: reports nobody acknowledged wait
for the next connection of the account, also across `stop` and `start`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from random import Random

from gateway.simulate.carrier.scenario import Account, Fault, Scenario, falls_in
from gateway.simulate.carrier.session import Line, Outgoing, Session, Submit
from gateway.simulate.carrier.text import Assembly, decode, encode
from gateway.simulate.log import Log


class Carrier:
    """The server of one protocol. `scenario` may be replaced while it runs; `received` counts numbers times parts."""

    def __init__(
        self, protocol: type[Session], log: Log, accounts: Sequence[Account], scenario: Scenario | None = None,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.protocol = protocol
        self.log = log
        self.lines = {account.name: Line(account) for account in accounts}
        self.scenario = scenario or Scenario()
        self.random = Random(seed)  # noqa: S311  # chooses faults, guards nothing
        self.received = 0
        self.connected: set[Session] = set()
        self._assembly = Assembly()
        self._connections = itertools.count(1)
        self._sequences = itertools.count(1)
        self._references = itertools.count(1)
        self._turn = itertools.count()
        self._entries: list[tuple[str, dict[str, object]]] = []
        self._server: asyncio.Server | None = None
        self._codec: Session | None = None

    async def start(self, port: int = 0) -> int:
        """Listen on loopback and return the port; 0 takes a free one."""
        loop = asyncio.get_running_loop()
        self._codec = self.protocol(self)
        self._server = await loop.create_server(lambda: self.protocol(self), "127.0.0.1", port)
        for line in self.lines.values():
            if line.parked:
                self._dial(line)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and cut every connection. What was not acknowledged is kept for a later `start`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        calls = [line.call for line in self.lines.values() if line.call is not None]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        self.cut()
        await asyncio.gather(*(session.closed.wait() for session in self.connected))
        self.flush()

    # -- the log and numbers -----------------------------------------------------------------------------------------

    def note(self, kind: str, **fields: object) -> None:
        """Add a line to the log; it is written before anything that is sent after it."""
        if not self._entries:
            asyncio.get_running_loop().call_soon(self.flush)
        self._entries.append((kind, fields))

    def flush(self) -> None:
        """Write the lines noted so far."""
        if self._entries:
            entries, self._entries = self._entries, []
            self.log.extend(entries)

    def next_connection(self) -> int:
        """Return the number of a new connection."""
        return next(self._connections)

    def next_sequence(self) -> int:
        """Return a sequence number for a request of the carrier; never 0."""
        return next(self._sequences) & 0x7FFF_FFFF or self.next_sequence()

    def draw_fault(self) -> Fault | None:
        """Draw what befalls a submit."""
        if not self.scenario.faults:
            return None
        drawn = self.random.random()
        for fault, share in self.scenario.faults.items():
            if drawn < share:
                return fault
            drawn -= share
        return None

    def draw_delay(self) -> float:
        """Draw how long an answer takes."""
        scenario = self.scenario
        spread = scenario.answer_spread_s * self.random.random() if scenario.answer_spread_s else 0.0
        return scenario.answer_after_s + spread

    # -- sessions come and go ----------------------------------------------------------------------------------------

    def entered(self, session: Session) -> None:
        """Take a connection that logged in, and give it what waits."""
        assert session.account is not None
        line = self.lines[session.account.name]
        line.sessions.append(session)
        if session.receives:
            session.queue.extend(line.parked)
            line.parked.clear()
            session.pump()

    def left(self, session: Session, items: list[Outgoing]) -> None:
        """Forget a connection, and route what it left."""
        self.connected.discard(session)
        if session.account is not None:
            line = self.lines[session.account.name]
            if session in line.sessions:
                line.sessions.remove(session)
            if items:
                self._route(line, items, session)

    def _route(self, line: Line, items: list[Outgoing], origin: Session | None) -> None:
        scenario = self.scenario
        able = line.receivers() if self._server is not None else []
        if scenario.report_to == "same" and origin in able:
            able = [each for each in able if each is origin]
        elif scenario.report_to in ("other", "next") and not self.protocol.DIALS:
            able = [each for each in able if each is not origin and scenario.report_to == "other"]
        if not able:
            line.parked.extend(items)
            self._dial(line)
            return
        chosen = able[next(self._turn) % len(able)]
        for item in items:
            if scenario.shuffled and self.random.random() < 0.5:
                chosen.queue.appendleft(item)
            else:
                chosen.queue.append(item)
        chosen.pump()

    def _dial(self, line: Line) -> None:
        """Connect to the SP's listener where the protocol asks for it."""
        if self.protocol.DIALS and line.account.listener and self._server is not None and line.call is None:
            line.call = asyncio.get_running_loop().create_task(self._call(line))

    async def _call(self, line: Line) -> None:
        host, _, port = line.account.listener.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            while line.parked:
                if not any(each.caller is line.account for each in self.connected):
                    try:
                        await loop.create_connection(lambda: self.protocol(self, line.account), host, int(port))
                    except OSError as error:
                        self.note("unreachable", account=line.account.name, why=type(error).__name__)
                await asyncio.sleep(self.scenario.linger_s)
        finally:
            line.call = None

    # -- what the carrier does with messages -------------------------------------------------------------------------

    def take(self, session: Session, submit: Submit, delay_s: float) -> None:
        """Count a submit; put long messages together; let people reply, `delay_s` being its answer's."""
        assert session.account is not None
        line = self.lines[session.account.name]
        line.source = submit.source
        self.received += len(submit.numbers)
        answered: Sequence[str] = submit.numbers
        if submit.part is not None:
            whole = list(self._assembly.add(submit.source, submit.numbers, submit.part, submit.content))
            answered = [number for number, _ in whole]
            for content in {content for _, content in whole}:
                numbers = [number for number, each in whole if each == content]
                self.note("message", numbers=numbers, source=submit.source, text=decode(content, submit.coding))
        if self.scenario.answering:
            share, text = self.scenario.answering, self.scenario.answer_text
            for number in answered:
                if falls_in(share, "reply", number):
                    self._later(
                        delay_s + self.scenario.answering_after_s, self.reply, number, text, submit.source, line
                    )

    def report(self, session: Session, submit: Submit, key: int, delay_s: float = 0.0) -> None:
        """Send the delivery reports of a submit after a while, each as the scenario has it."""
        scenario, at = self.scenario, int(time.time())
        last = submit.part is not None and submit.part.number == submit.part.total
        if submit.wanted == "never" or (last and scenario.last_part == "lost"):
            return
        in_time: list[tuple[int, str]] = []
        late: list[tuple[int, str]] = []
        share = 1.0 if last and scenario.last_part == "late" else scenario.late
        for each in enumerate(submit.numbers):
            if not falls_in(scenario.lost, "lost", each[1]):
                (late if falls_in(share, "late", each[1]) else in_time).append(each)
        for numbered, wait_s in ((in_time, delay_s), (late, delay_s + scenario.late_s)):
            if numbered:
                self._later(wait_s, self._report, session, submit, key, at, numbered)

    def _report(self, session: Session, submit: Submit, key: int, at: int, numbered: list[tuple[int, str]]) -> None:
        assert session.account is not None
        scenario = self.scenario
        counted = scenario.bulk_ids == "counted" or (not scenario.bulk_ids and session.COUNTED_IDS)
        items: list[Outgoing] = []
        for position, number in numbered:
            stat = self._stat(session, submit, number)
            own = key + position if counted else key
            if not stat and submit.wanted == "failure":
                continue
            if scenario.accepted and submit.wanted == "always":
                command, body = session.report(submit, number, own, "ACCEPTD", at)
                items.append(Outgoing("report", number, session.show(own), "ACCEPTD", command, body))
            command, body = session.report(submit, number, own, stat, at)
            item = Outgoing("report", number, session.show(own), stat, command, body)
            items += [item, item] if falls_in(scenario.duplicated, "twice", number) else [item]
        if scenario.shuffled:
            self.random.shuffle(items)
        if items:
            self._route(self.lines[session.account.name], items, session)

    def _stat(self, session: Session, submit: Submit, number: str) -> str:
        """Return the status a number's report has, "" for delivered."""
        scenario, part = self.scenario, submit.part
        if number in scenario.stats:
            return scenario.stats[number]
        failed = part is not None and part.number == part.total and scenario.last_part == "failed"
        failed = failed or falls_in(scenario.failing, "failing", number)
        return (scenario.failing_stat or session.FAILING) if failed else ""

    def reply(self, number: str, text: str, to: str = "", line: Line | None = None) -> None:
        """Let a person send `text` to an account: by default the first one, at the number it last sent from."""
        line = line or next(iter(self.lines.values()))
        assert self._codec is not None  # never connected; it knows the bytes
        for coding, udhi, content in encode(text, next(self._references)):
            command, body = self._codec.reply(number, to or line.source, coding, content, udhi=udhi)
            self._route(line, [Outgoing("reply", number, "", text, command, body)], None)

    def logout(self) -> None:
        """Ask every client to go (TERMINATE, UNBIND, Exit)."""
        for session in list(self.connected):
            session.leave()

    def cut(self) -> None:
        """Reset every connection."""
        for session in list(self.connected):
            session.reset()

    def spill(self, data: bytes) -> None:
        """Send bytes that are no PDU on every connection."""
        for session in list(self.connected):
            session.send(data)

    @staticmethod
    def _later(delay_s: float, call: Callable[..., None], *args: object) -> None:
        """Call after a while; at once if there is none."""
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, call, *args)
        else:
            call(*args)
