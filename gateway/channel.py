"""The channel interface: one required method.

A channel turns a slice into one receipt per position and nothing else: it never retries, logs,
counts or touches the store. The sender claims before it calls, settles after, and decides on errors.
A new channel is one file in `channels/`, one test, one template; the file's name is the channel's name.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, NamedTuple, Protocol

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from gateway.errors import Ambiguous, ChannelError, Unusable
from gateway.model import (
    Audio,
    Batch,
    DeviceEvent,
    Group,
    Job,
    Lane,
    Message,
    Order,
    OrderReceipt,
    Progress,
    Receipt,
    Reply,
    Report,
    Slice,
    State,
)

Event = Report | Reply | DeviceEvent | OrderReceipt | Progress
BUG = "bug"  # code of a receipt whose error nobody foresaw; the error's cause is what was raised


class Device(NamedTuple):
    """What the gateway knows of a loudspeaker. `key_hash` is SHA-256 hex of its key; it is commanded by `channel`."""

    id: int
    village: str
    key_hash: str
    channel: str = "loudspeaker_ws"


class Signed(NamedTuple):
    """A payload as devices are told it, in base64url: a flattened JWS (RFC 7515 §7.2.2)."""

    payload: str
    protected: str
    signature: str


class Number(NamedTuple):
    """One number of a sequence, from 0."""

    sequence: str
    value: int


class Lease(Protocol):
    """One of an account's connections, this process's until it is released or lost; the gateway renews it."""

    slot: int
    """0 to connections - 1; slot 0 is green's where there are several."""
    lost: asyncio.Event
    """Set once another process holds the slot: close the connection."""

    async def release(self) -> None:
        """Let another process have the slot at once."""


class Link(Protocol):
    """A channel's only door to the gateway."""

    async def pace(self, account: str, units: int, lane: Lane) -> None:
        """Wait until `units` may leave on `account`; green has a reserved share.

        The sender paces every slice on the account named like the channel, before it claims the slice: a channel
        calls this only for further accounts of its own.
        """

    async def commit(self, events: Sequence[Event]) -> None:
        """Return after the events are durable: only then answer the provider."""

    async def lease(self, account: str, connections: int) -> Lease | None:
        """Take one of the `connections` the account allows, however many processes share it.

        None: all are held, or the store cannot be asked now; ask again in a few seconds.
        """

    async def device(self, name: str) -> Device | None:
        """Look up a loudspeaker of this channel by the name it connects with; None if unknown, retired or another's."""

    async def jobs(self, each_s: float) -> Sequence[Job]:
        """Take this channel's requests for places that are to be looked at now; all processes share them.

        Each comes up every `each_s` seconds, and every second once it must run no longer.
        """

    async def again(self, job: Job, source: str, positions: Sequence[int]) -> bool:
        """End a round of a request and note the next one as `source`, for these positions of its batch.

        False: it must run no more, one of their villages has confirmed, or another process was first.

        Raises:
            StoreDown: ask again.
        """

    async def message(self, batch: Batch, positions: Sequence[int]) -> Message:
        """Return what these recipients of a frozen batch are told, as `send` was given it."""

    async def number(self, sequence: str, key: str = "") -> Number:
        """Take the next number of a sequence of this channel, which all processes share.

        What is named by `key` keeps the number, and the sequence, it was given the first time.

        Raises:
            StoreDown: there is none now.
        """

    async def wake(self) -> None:
        """Say that a device this channel holds became ready, so its unfinished commands are looked up."""

    def sign(self, payload: bytes) -> Signed:
        """Sign what devices are told, with the key they have pinned; at once."""

    def audio(self, message: Message, text: str) -> Audio | None:
        """Return the text of a message as sound, if that is ready; else it is made, and `wake` follows.

        None is also the answer where this gateway has no speech: devices that can then speak the text themselves.
        """

    async def recording(self, message: Message, text: str) -> bytes | None:
        """Return the text of a message as MP3, waiting a moment for it; None: it goes out without.

        Only channels whose `spoken` is set are given any.
        """


class Settings(BaseModel):
    """Base of a channel's table in `config/channels.toml`; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True


ChannelSettings = Settings  # the name `Settings` belongs to each channel's own table inside its class


class Route(NamedTuple):
    """One HTTP route a channel wants under the gateway's server."""

    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Play:
    """Desired state of one device: `slice` of one position, its message, and whether to play, stop or hush.

    To hush a version is to sound no further rounds of it: somebody has confirmed.
    """

    batch: str
    position: int
    device: int
    message: Message
    stop: bool = False
    hush: bool = False


class Lines(NamedTuple):
    """Connections of a channel: how many serve, how many its accounts allow, and how many have ended badly, by why.

    `allowed` counts all processes; 0: they are made on demand.
    """

    serving: int
    allowed: int
    broken: Mapping[str, int]


class Channel(ABC):
    """Base of all channels. Class facts say what it can do; `name` is set from the file's name."""

    name: ClassVar[str] = ""
    slice: ClassVar[int] = 50
    """Recipients per `send` call."""
    concurrency: ClassVar[int] = 2
    """Slices one process works on at once, per lane."""
    groups: ClassVar[frozenset[Group]] = frozenset({Group.OFFICIALS, Group.RESIDENTS})
    same_text: ClassVar[bool] = False
    """True: one text for the whole slice (bulk submit); the sender splits slices where texts differ."""
    answer_s: ClassVar[float] = 15.0
    """Longest time one `send` call takes before its outcome is ambiguous; leases exceed it."""
    text_limit: ClassVar[int] = 500
    """Longest text in UTF-16 units."""
    report_s: ClassVar[float] = 48 * 3600.0
    """After this time a recipient on whom the provider has not reported is unknown; 0: it never reports."""
    sessions: ClassVar[bool] = False
    """True: keeps a limited number of connections to a carrier; runs in hubs, which consume all its lanes."""
    idempotent: ClassVar[bool] = False
    """True: the provider knows a repeated slice again and sends nothing twice: a doubtful one is simply sent again."""
    Settings: ClassVar[type[ChannelSettings]] = ChannelSettings

    carriers: frozenset[str] = frozenset()
    """Carriers whose numbers it serves (`config/carriers.csv`); empty: any number."""
    spoken: bool = False
    """Whether it hands over recordings; only then is speech made in its processes."""
    takes_replies: bool = False
    """Whether a person can answer on this channel; only then is an answer asked for."""

    def __init__(self, settings: ChannelSettings) -> None:
        self.settings = settings

    @abstractmethod
    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        """Send one slice; return one receipt per position, in order.

        Raises:
            ChannelError: nothing of the slice was sent.
        """

    async def open(self, link: Link) -> None:
        """Start sessions. Called once in the running loop before the first send."""

    async def close(self) -> None:
        """End sessions."""

    def up(self) -> bool:
        """Whether this process can send now; while it cannot, it leaves the channel's batches to others."""
        return True

    def lines(self) -> Lines | None:
        """Tell how its connections do, where it keeps some with a carrier."""
        return None

    def routes(self, link: Link) -> Sequence[Route]:
        """HTTP routes for callbacks or inbound sockets."""
        return ()

    async def prove(self) -> str:
        """Log in where sends would go, say nothing to anybody, and return what is proven; "" where nothing can be.

        Called by `mingluo doctor` while no process of the installation is logged in.

        Raises:
            ConfigError: what is wrong, and what to do.
        """
        return ""

    def endpoints(self) -> Collection[str]:
        """Hosts this channel talks to; anything not on loopback is refused until the channel is live (rule 11)."""
        return ()

    def certificates(self) -> Mapping[str, datetime]:
        """When the last certificate of each party ends, where signatures rest on some; afterwards nothing goes."""
        return {}


class Sockets(Channel):
    """A channel whose recipients hold connections to us; its commands are desired state, not queue work.

    The hub asks which devices this process holds, and calls `command` for what is live and unfinished.
    """

    supersedes: ClassVar[bool] = False
    """True: a play ends the versions it supersedes in the device, so that the hub need not stop them there."""
    report_s: ClassVar[float] = 120.0
    """A device that was commanded and says nothing for so long is unknown; its command stays, and it may still play."""

    strangers: int = 0
    """How often a device came in this process under a name that is not this channel's."""

    @abstractmethod
    def held(self) -> Collection[int]:
        """Ids of the devices connected to this process and ready: a live view."""

    @abstractmethod
    def arrived(self) -> Collection[int]:
        """Ids of the devices that became ready on a new connection since this was last asked."""

    async def displace(self, devices: Collection[int], link: Link) -> None:
        """Part from devices that have come to another process since: the last one counts."""

    def hurry(self) -> AbstractContextManager[None]:
        """While this is entered, a warning is on its way to many: whatever else these devices need waits."""
        return nullcontext()

    async def order(self, orders: Sequence[Order], link: Link) -> list[Receipt]:
        """Write orders to held devices: one receipt per order; never waits for a slow device."""
        return [Receipt(State.FAILED, "not_supported")] * len(orders)

    @abstractmethod
    async def command(self, plays: Sequence[Play], link: Link) -> list[Receipt]:
        """Write play or stop commands to held devices: one receipt per play; never waits for a slow device."""

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        """Write one slice as plays of the same message."""
        return await self.command(
            [Play(slice_.batch, p, d, message) for p, d in zip(slice_.positions, slice_.persons, strict=True)], link
        )


class PerRecipient(Channel):
    """For simple HTTP channels: write `send_one`; a fixed pool of workers runs it over the slice."""

    pool: ClassVar[int] = 25

    @abstractmethod
    async def send_one(self, address: str, text: str, message: Message, reference: str) -> Receipt:
        """Send one text. `reference` is opaque, unique per (batch, position, attempt), safe in a URL."""

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        """Run `send_one` for every position. An error of one becomes that one's receipt.

        Nothing is begun after `message.expires` (rule 4), nor after an answer that the account is unusable.
        """
        receipts: list[Receipt] = [Receipt(State.QUEUED)] * len(slice_)
        work = iter(range(len(slice_)))
        refused: list[Receipt] = []

        async def worker() -> None:
            for index in work:
                if refused:
                    receipts[index] = refused[0]
                elif datetime.now(UTC) >= message.expires:
                    receipts[index] = Receipt(State.EXPIRED)
                else:
                    receipts[index] = await self._one(slice_, index, message)
                    if isinstance(receipts[index].error, Unusable):
                        refused.append(receipts[index])

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.pool, len(slice_))):
                group.create_task(worker())
        return receipts

    async def _one(self, slice_: Slice, index: int, message: Message) -> Receipt:
        reference = f"{slice_.batch}-{slice_.positions[index]}-{slice_.attempt}"
        try:
            return await self.send_one(slice_.addresses[index], message.text_at(index), message, reference)
        except ChannelError as error:
            return Receipt(State.FAILED, error.code, error=error)
        except Exception as error:
            # Nobody foresaw it, so nobody knows whether the text had left (rule 2). The sender logs the cause.
            doubt = Ambiguous(BUG)
            doubt.__cause__ = error
            return Receipt(State.QUEUED, BUG, error=doubt)
