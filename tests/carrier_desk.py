"""What the tests of the carriers' channels share: a channel of each protocol against the simulated carrier."""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carrier_support import Bench
from links import RecordingLink, sample_message, sample_slice

from channels._carrier import CarrierChannel
from gateway.channel import Event
from gateway.model import MEMBER, Receipt, Reply, Report, State
from gateway.simulate.carrier import Account, parts, texts

SECRET = "s3cr-our"  # SMPP knows no longer ones
PORT = "10690001"
PROTOCOLS = ("cmpp30", "cmpp20", "sgip", "smgp", "smpp")
BULK = tuple(one for one in PROTOCOLS if one != "smpp")  # several numbers in one submit
OWN: dict[str, dict[str, Any]] = {
    "cmpp30": {"source_addr": "901234"},
    "cmpp20": {"source_addr": "901234", "version": "2.0"},
    "sgip": {"login_name": "901234", "area_code": "0396", "corp_id": "12345"},
    "smgp": {"client_id": "901234"},
    "smpp": {"system_id": "901234", "international": False},
}
CHANNELS = {"cmpp30": "SmsCmpp", "cmpp20": "SmsCmpp", "sgip": "SmsSgip", "smgp": "SmsSmgp", "smpp": "SmsSmpp"}
QUICK = {"retry_s": 0.02, "connect_s": 1.0}


def references(receipts: Sequence[Receipt]) -> list[str]:
    """Return what each recipient's report is to be called, in their order; "" for none."""
    left = {id(one): iter(one.members) for one in receipts if one.members}
    return [f"{one.reference}{MEMBER}{next(left[id(one)])}" if one.members else one.reference for one in receipts]


def numbers(count: int, first: int = 0) -> list[str]:
    """Return numbers that cannot be dialled."""
    return [f"100{first + n:08d}" for n in range(count)]


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def eventually(met: Callable[[], bool]) -> None:
    """Wait for what sockets and timers of other tasks bring about."""
    for _ in range(1000):
        if met():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


@dataclass
class WatchedLink(RecordingLink):
    """A link that says when it is told something."""

    told: asyncio.Event = field(default_factory=asyncio.Event)
    commits: list[int] = field(default_factory=list)

    async def commit(self, events: Sequence[Event]) -> None:
        self.commits.append(len(events))
        self.told.set()
        await super().commit(events)

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not met():
                self.told.clear()
                await self.told.wait()

    @property
    def reports(self) -> list[Report]:
        return [event for event in self.events if isinstance(event, Report)]

    @property
    def replies(self) -> list[Reply]:
        return [event for event in self.events if isinstance(event, Reply)]


class Desk:
    """A simulated carrier, and channels that log in to it: each is one process with the same settings."""

    def __init__(self, directory: Path, protocol: str) -> None:
        self.protocol = protocol
        self.link = WatchedLink()
        self.channels: list[CarrierChannel] = []
        self.listener = free_port()
        self.bench = Bench(directory)
        self._stack = AsyncExitStack()

    async def carrier(self, connections: int = 1, **scenario: Any) -> None:
        """Start the carrier."""
        account = Account("901234", SECRET, connections, PORT, f"127.0.0.1:{self.listener}")
        await self.bench.start(self.protocol, (account,), **({"linger_s": 0.05} | scenario))
        self._stack.push_async_callback(self.bench.stop)

    def account(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of an account with this carrier."""
        plain = {"name": "one", "host": "127.0.0.1", "port": self.bench.port, "secret": SECRET, "src_id": PORT}
        return plain | QUICK | OWN[self.protocol] | changes

    def settings(self, *accounts: dict[str, Any]) -> Any:
        """Return the channel's table."""
        table: dict[str, Any] = {"account": accounts or (self.account(),)}
        if self.protocol == "sgip":
            table["listener"] = {"host": "127.0.0.1", "port": self.listener, "allow": ["127.0.0.0/8"]}
        return self.kind.Settings.model_validate(table)

    @property
    def kind(self) -> type[CarrierChannel]:
        """The class of the protocol's channel."""
        name = CHANNELS[self.protocol]
        found: type[CarrierChannel] = getattr(importlib.import_module(f"channels.sms_{name[3:].lower()}"), name)
        return found

    async def open(self, *accounts: dict[str, Any]) -> CarrierChannel:
        """Start a process: its channel is open and has what connections it can get."""
        channel = self.kind(self.settings(*accounts))
        self.channels.append(channel)
        self._stack.push_async_callback(channel.close)
        await channel.open(self.link)
        return channel

    async def connected(self, channel: CarrierChannel, sessions: int = 1) -> None:
        """Wait until the channel has so many connections."""
        await eventually(lambda: sum(one.ready for each in channel.accounts for one in each.sessions) >= sessions)

    async def send(
        self, addresses: Sequence[str], channel: CarrierChannel | None = None, **changes: Any
    ) -> list[Receipt]:
        """Send one slice."""
        attempt = changes.pop("attempt", 1)
        used = channel or self.channels[0]
        return await used.send(sample_slice(addresses, attempt=attempt), sample_message(**changes), self.link)

    async def matched(self, receipts: Sequence[Receipt]) -> None:
        """Wait until every reference of these receipts has its delivery report."""
        wanted = {one for one in (*references(receipts), *(part for one in receipts for part in one.more)) if one}
        assert wanted

        def met() -> bool:
            return wanted <= {one.reference for one in self.link.reports if one.state is State.DELIVERED}

        await self.link.until(met)

    def texts(self) -> Counter[tuple[str, str]]:
        """Count the whole texts each number received, by the carrier's own log."""
        self.bench.carrier.flush()
        return texts(self.bench.path)

    def parts(self) -> Counter[tuple[str, str, tuple[int, ...]]]:
        """Count the parts each number received, by the carrier's own log."""
        self.bench.carrier.flush()
        return parts(self.bench.path)

    async def stop(self) -> None:
        """End all."""
        await self._stack.aclose()


def states(receipts: Sequence[Receipt]) -> Counter[str]:
    """Count receipts by state and error."""
    return Counter(type(one.error).__name__ if one.error else one.state.name for one in receipts)
