"""One account with a carrier, as far as this process has it: its connections, what waits for them, how well it does.

Used by `_carrier`. Each connection is leased from the gateway, for an account allows only so many, whatever the number
of processes; the lease is given back when the connection fails, so that another process may try. Connections are made
again with a wait that doubles, and with jitter. Work waits here, by lane, and whatever connection has room takes it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from channels._assembly import Assembly
from channels._health import Health
from channels._session import OTHERS, Session, refusal
from channels._wire import Numbering, Sms, Wire
from gateway.channel import Event, Lease, Link
from gateway.errors import ChannelError, MingluoError, Temporary, Unusable
from gateway.model import Lane

LONGEST_WAIT_S = 60.0
STEADY_S = 60.0  # a connection that lasted this long was a good one
LEASE_TIMES = 5
REFUSED_S = 30.0
REFUSED_TIMES = 30
CLOSE_S = 5.0
PEACEFUL = ("left", "logged_out")
EXPECTED = ("left", "closing")  # of our own will


class Account:
    """The connections of one account in this process."""

    def __init__(self, channel: str, wire: Wire[Any], changed: Callable[[], None]) -> None:
        self.settings = wire.account
        self.name = wire.account.name
        self.key = f"{channel}/{self.name}"
        self.wire = wire
        self.sessions: list[Session[Any]] = []
        self.assembly = Assembly(channel, wire.account.src_id, wire.account.extension)
        self.credit = 0.0
        """Of the weighted turns; kept by `_carrier`."""
        self.trouble: ChannelError | None = None
        """What the last try to connect ended with; None while there is a connection."""
        self.broken: Counter[str] = Counter()
        """Logins that failed, and connections that ended badly, by why."""
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self.health = Health(self._loop.time())
        self._waiting: dict[Lane, deque[Sms]] = {lane: deque() for lane in Lane}
        self._wanted = asyncio.Event()
        self._leases = 0
        self._entering = 0
        self._refused_until = 0.0
        self._keepers: list[asyncio.Task[None]] = []
        self._closing = False
        self._link: Link | None = None
        self._untold: list[Event] = []

    # -- what `_carrier` asks ------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether an SMS given now would leave: there is a connection, or one can be made."""
        if any(session.ready and not session.leaving for session in self.sessions):
            return True
        return self.wire.on_demand and self._leases > 0 and self.trouble is None and not self._closing

    @property
    def refused(self) -> bool:
        """Whether the carrier has refused the account lately."""
        return self._loop.time() < self._refused_until

    def refuse(self) -> None:
        """Note that the carrier will not have it: another account goes first for a while."""
        self.health.failed(self._loop.time())
        self._refused_until = self._loop.time() + REFUSED_S
        self._changed()

    def put(self, messages: Sequence[Sms]) -> None:
        """Let SMS wait for room."""
        for sms in messages:
            self._waiting[sms.lane].append(sms)
        self._wanted.set()
        self.pump()

    def pump(self) -> None:
        """Let every connection write what it may."""
        for session in self.sessions:
            session.pump()

    # -- what a session asks (`Work`) ----------------------------------------------------------------------------------

    def take(self, lanes: Sequence[Lane]) -> Sms | None:
        """Return the next SMS of these lanes that still waits."""
        now = self._loop.time()
        for lane in lanes:
            waiting = self._waiting[lane]
            while waiting:
                sms = waiting.popleft()
                if not sms.over and now < sms.until:
                    return sms
        return None

    def waits(self) -> bool:
        """Whether the carrier asked for patience."""
        return self._loop.time() < self.health.paused_until

    @property
    def patience_s(self) -> float:
        """How much longer the carrier is left alone."""
        return max(0.0, self.health.paused_until - self._loop.time())

    def open_places(self, session: Session[Any]) -> int:
        """Return how much of a window lanes other than green may fill.

        Slot 0 is green's; in a process that has no other, or none at all, the last quarter of each window is.
        """
        size = self.settings.window
        greens = [one for one in self.sessions if one.ready and one.greens]
        if greens and any(one.ready and not one.greens for one in self.sessions):
            return 0 if session.greens else size
        return max(1, size - (size + 3) // 4)

    def served(self, took_s: float) -> None:
        """An answer came."""
        self.health.served(took_s, self._loop.time())

    def failed(self) -> None:
        """No answer came, or the connection ended."""
        self.health.failed(self._loop.time())

    def throttled(self) -> None:
        """Write nothing for a while."""
        already = self.waits()
        wait_s = self.health.throttled(self._loop.time())
        if not already:
            self._loop.call_later(wait_s, self.pump)

    def untold(self, facts: Sequence[Event]) -> None:
        """Give facts that a connection could not commit before it ended to another one, now or when there is one."""
        self._untold += facts
        self._tell()

    def _tell(self) -> None:
        session = next((one for one in self.sessions if one.ready), None)
        if session is not None and self._untold:
            facts, self._untold = self._untold, []
            session.tell(facts)

    # -- connections ---------------------------------------------------------------------------------------------------

    def open(self, link: Link) -> None:
        """Begin to keep the connections."""
        self._link = link
        self._keepers = [asyncio.create_task(self._keep(link)) for _ in range(self.settings.connections)]

    async def close(self) -> None:
        """Take leave on every connection: what is under way has its answers first."""
        self._closing = True
        within_s = min(CLOSE_S, self.settings.answer_s)
        await asyncio.gather(*(session.leave(within_s) for session in self.sessions))
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._fail_waiting(Temporary("closing"))
        if self._untold and self._link is not None:
            with suppress(MingluoError):  # as if the answers had not come: whom they are about stays doubtful
                await self._link.commit(self._untold)

    async def _keep(self, link: Link) -> None:
        """Keep one connection for ever; waits grow while it does not last."""
        failures = 0
        while not self._closing:
            began = self._loop.time()
            try:
                await self._turn(link)
            except Exception as error:  # a bug must be seen, and must not end the connection for good
                self._loop.call_exception_handler({"message": f"{self.key}: connection ended", "exception": error})
            failures = 0 if self._loop.time() - began > STEADY_S else failures + 1
            retry_s = self.settings.retry_s
            wait_s = min(LONGEST_WAIT_S, retry_s * 2.0 ** min(max(failures - 1, 0), 10))
            if isinstance(self.trouble, Unusable):
                wait_s = max(wait_s, REFUSED_TIMES * retry_s)  # a carrier locks an account that keeps trying
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            self._again()

    async def _turn(self, link: Link) -> None:
        lease = await self._leased(link)
        self._leases += 1
        self._changed()
        try:
            await self._hold(link, lease)
        finally:
            self._leases -= 1
            self._changed()
            await _release(lease)

    def _again(self) -> None:
        """A connection on demand is tried again by the next who wants it."""
        if self.wire.on_demand:
            self.trouble = None

    async def _leased(self, link: Link) -> Lease:
        while True:
            try:
                lease = await link.lease(self.key, self.settings.connections)
            except MingluoError:
                lease = None
            if lease is not None:
                return lease
            await asyncio.sleep(LEASE_TIMES * self.settings.retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    async def _hold(self, link: Link, lease: Lease) -> None:
        """Have a connection while the lease is ours; on demand, one after the other."""
        while not lease.lost.is_set() and not self._closing:
            if self.wire.on_demand:
                await self._demand(lease)
                if lease.lost.is_set():
                    return
            if not await self._converse(link, lease):
                return

    async def _demand(self, lease: Lease) -> None:
        while not any(self._waiting.values()) and not lease.lost.is_set():
            self._wanted.clear()
            waits = [asyncio.create_task(self._wanted.wait()), asyncio.create_task(lease.lost.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    async def _converse(self, link: Link, lease: Lease) -> bool:
        """Connect, log in, and serve until the end; False if it failed or was cut."""
        numbering = Numbering(lease.slot, self.settings.connections)
        session = Session(self.wire, link, self.assembly, self, numbering)
        watch = asyncio.create_task(_when_lost(lease, session))
        try:
            if not await self._entered(session):
                return False
            await session.serve()
        finally:
            watch.cancel()
            session.drop("closing")
            if session in self.sessions:
                self.sessions.remove(session)
                self.broken.update([session.why] if session.why not in EXPECTED else ())
            self._left(session.why)
        return session.why == "left"

    async def _entered(self, session: Session[Any]) -> bool:
        host, port = self.settings.host, self.settings.port
        self._entering += 1
        try:
            async with asyncio.timeout(self.settings.connect_s):
                await self._loop.create_connection(lambda: session, host, port)
                await session.login()
        except (OSError, TimeoutError):
            self._not_entered(Temporary("unreachable"))
        except ChannelError as error:
            self._not_entered(error)
        else:
            self.trouble, self._refused_until = None, 0.0
            self.sessions.append(session)
            self._changed()
            self._tell()
            self.pump()
            return True
        finally:
            self._entering -= 1
        return False

    def _not_entered(self, error: ChannelError) -> None:
        self.trouble = error
        self.broken["login"] += 1
        if isinstance(error, Unusable):
            self.refuse()
        else:
            self.failed()

    def _left(self, why: str) -> None:
        """A connection is gone: without any, what waits may go another way at once.

        On demand, what waits brings about the next one, unless the carrier is in trouble.
        """
        left = self.wire.on_demand and why in PEACEFUL and self.trouble is None
        if not left and not self._entering and not any(session.ready for session in self.sessions):
            trouble = self.trouble or Temporary(why)
            self.trouble = None if self.wire.on_demand and self.trouble is None else trouble
            self._fail_waiting(trouble)
        self._changed()

    def _fail_waiting(self, error: ChannelError) -> None:
        answer = refusal(error)
        for lane in (Lane.GREEN, *OTHERS):
            waiting = list(self._waiting[lane])
            self._waiting[lane].clear()
            for sms in waiting:
                sms.withdraw(answer)


async def _when_lost(lease: Lease, session: Session[Any]) -> None:
    await lease.lost.wait()
    session.drop("lease_lost")


async def _release(lease: Lease) -> None:
    with suppress(MingluoError):  # it lapses by itself
        await lease.release()
