"""Where SGIP gateways connect to us, to hand over reports and replies.

Used by `sms_sgip`. Only listed addresses are heard, at most `STRANGERS` of them at a time before they log in, and not
for long. Name and password are compared with every account's in constant time. A process that finds the port taken
tries again: beside it, another one listens.

Source: SGIP 1.2 sections 3.7 and 3.8, message Bind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from channels import _sgip as sgip
from channels._assembly import Assembly
from channels._conversation import Conversation
from channels._pdu import Pdu
from channels._wire import Wire
from gateway.channel import Link

STRANGERS = 8
CALLERS = 64
LOGIN_S = 5.0
SILENT_S = 120.0
ILLEGAL, REPEATED = 1, 2


class ListenerSettings(BaseModel):
    """Table `[sms_sgip.listener]`. `allow`: the gateways' addresses or networks; nobody else is heard."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "0.0.0.0"  # noqa: S104  # gateways come from outside; `allow` says which
    port: int = Field(sgip.PORT, ge=0, le=65535)
    allow: tuple[IPv4Network | IPv6Network, ...] = Field(min_length=1)


class Desk(NamedTuple):
    """An account that gateways may call: what they say, who reads it, and where parts of its replies meet."""

    name: str
    password: str
    wire: Wire[sgip.Sequence]
    assembly: Assembly


class Caller(Conversation[sgip.Sequence]):
    """A connection a gateway made."""

    def __init__(self, listener: Listener, link: Link) -> None:
        stranger = listener.desks[0]  # its codec reads the login; nothing else is read before that
        super().__init__(stranger.wire, link, stranger.assembly)
        self._listener = listener
        self._since = self.heard
        self._admitted = False
        self._serving: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hear only whom we know, and not too many."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        if not self._listener.welcomes(str(peer[0]) if peer else ""):
            self.drop("unwelcome")
            return
        self._listener.callers.add(self)

    def may_tell(self) -> bool:
        """Only after its login."""
        return self._admitted

    @property
    def stranger(self) -> bool:
        """Whether it has not logged in."""
        return not self._admitted

    def receive(self, sequence: sgip.Sequence, pdu: Pdu) -> None:
        """Judge a login; anything else is not for us."""
        if not isinstance(pdu, sgip.Bind):
            if not self._admitted:
                self.drop("not_logged_in")
            return
        # Every account is compared, found or not: the time tells nothing.
        known = [desk for desk in self._listener.desks if sgip.admitted(pdu, desk.name, desk.password)]
        if self._admitted or not known:
            self.send(sequence, sgip.BindResp(REPEATED if self._admitted else ILLEGAL))
            self.flush()
            self.drop("left" if not self._admitted else "repeated")
            return
        self.wire, self._assembly = known[0].wire, known[0].assembly
        self._admitted = True
        self.send(sequence, sgip.BindResp())
        self._serving = self.loop.create_task(self.serve())

    def tick(self, now: float) -> None:
        """Wait for no one for ever."""
        limit_s = SILENT_S if self._admitted and not self.half_a_frame else LOGIN_S
        since = self.heard if self._admitted else self._since
        if now - since > limit_s:
            self.drop("silent")

    def lost(self) -> None:
        """Forget it."""
        self._listener.callers.discard(self)

    def goodbye(self) -> None:
        """Unbind; the sequence is its own request's, so any will do."""
        self.send(sgip.Sequence(0, 0, 0), sgip.Unbind())

    async def end(self) -> None:
        """Take leave, and let a commit under way end."""
        await self.leave(0.0)
        if self._serving is not None:
            await self._serving


class Listener:
    """The port gateways connect to. `port` is the one listened on, once it is."""

    def __init__(self, settings: ListenerSettings, desks: Sequence[Desk]) -> None:
        self.desks = desks
        self.callers: set[Caller] = set()
        self.port = 0
        self._settings = settings
        self._server: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None

    def welcomes(self, host: str) -> bool:
        """Tell whether a caller from this address is heard now."""
        strangers = sum(caller.stranger for caller in self.callers)
        if strangers >= STRANGERS or len(self.callers) >= CALLERS:
            return False
        try:
            address = ip_address(host)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._settings.allow)

    async def open(self, link: Link, retry_s: float) -> None:
        """Listen; where the port is taken, try again for as long as it takes."""
        if not await self._listen(link):
            self._opening = asyncio.create_task(self._insist(link, retry_s))

    async def _listen(self, link: Link) -> bool:
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Caller(self, link), self._settings.host, self._settings.port
            )
        except OSError:
            return False
        self.port = int(self._server.sockets[0].getsockname()[1])
        return True

    async def _insist(self, link: Link, retry_s: float) -> None:
        while True:
            await asyncio.sleep(retry_s)
            if await self._listen(link):
                return

    async def close(self) -> None:
        """Stop listening, and take leave of who is connected."""
        if self._opening is not None:
            self._opening.cancel()
            with suppress(asyncio.CancelledError):
                await self._opening
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*(caller.end() for caller in list(self.callers)))
