"""A channel's only door to the gateway: pace, commit, leases, device keys, signatures, wake."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from gateway.channel import Device, Event, Number, Signed
from gateway.errors import PACED, StateDown, Throttled
from gateway.model import Audio, Batch, Job, Lane, Message
from gateway.ports import Directory, State
from gateway.receipts import Receipts
from gateway.store.lease import Leases, SlotLease
from gateway.store.numbering import Numbering

LONGEST_WAIT_S = 2.0  # a slice that must wait longer goes back to the outbox and does not hold its lease


class Rate(NamedTuple):
    """What an account allows: units per second, burst, and the units kept for the green lane."""

    per_s: float
    burst: int
    green: int


class Voice(Protocol):
    """What makes sound of texts, where this process has speech."""

    def audio(self, message: Message, text: str) -> Audio | None:
        """Return the text as sound, if that is ready; else begin it."""

    async def recording(self, message: Message, text: str) -> bytes | None:
        """Return the text as MP3, waiting a moment for it."""


class GatewayLink:
    """The `Link` of one channel in one process."""

    def __init__(
        self,
        channel: str,
        rates: Mapping[str, Rate],
        state: State,
        receipts: Receipts,
        leases: Leases,
        numbering: Numbering,
        directory: Directory,
        wake: Callable[[], None],
        sign: Callable[[bytes], Signed],
        voice: Voice | None,
        compose: Callable[[Batch, Sequence[int]], Awaitable[Message]],
    ) -> None:
        self._channel = channel
        self._rates = rates
        self._state = state
        self._receipts = receipts
        self._leases = leases
        self._numbering = numbering
        self._directory = directory
        self._wake = wake
        self._sign = sign
        self._voice = voice
        self._compose = compose

    async def pace(self, account: str, units: int, lane: Lane) -> None:
        """Wait until `units` may leave on `account`; an account without a rate is not limited.

        Raises:
            Throttled: it would take longer than a slice should wait.
        """
        rate = self._rates.get(account)
        if rate is None:
            return
        reserve = 0 if lane is Lane.GREEN else rate.green
        waited = 0.0
        while True:
            try:
                wait_s = await self._state.take(f"rate:{account}", units, rate.per_s, rate.burst, reserve)
            except StateDown:
                wait_s = units / rate.per_s  # alone and unsure: never faster than the account's own rate
                if waited:
                    return
            if wait_s <= 0:
                return
            if waited + wait_s > LONGEST_WAIT_S:
                raise Throttled(wait_s, PACED)
            await asyncio.sleep(wait_s)
            waited += wait_s

    async def commit(self, events: Sequence[Event]) -> None:
        """Return after the events are durable: only then answer the provider."""
        await self._receipts.commit(self._channel, events)

    async def lease(self, account: str, connections: int) -> SlotLease | None:
        """Take one of the account's connections; None: ask again in a few seconds."""
        return await self._leases.take(f"{self._channel}/{account}", connections)

    async def device(self, name: str) -> Device | None:
        """Look up a loudspeaker of this channel by the name it connects with; None if unknown, retired or another's."""
        found = await self._directory.device(name)
        return found if found is not None and found.channel == self._channel else None

    async def jobs(self, each_s: float) -> Sequence[Job]:
        """Take this channel's requests for places that are to be looked at now; all processes share them."""
        return await self._receipts.jobs(self._channel, each_s)

    async def again(self, job: Job, source: str, positions: Sequence[int]) -> bool:
        """End a round of a request and note the next one; False where it must not go on."""
        return await self._receipts.again(job, source, positions)

    async def message(self, batch: Batch, positions: Sequence[int]) -> Message:
        """Return what these recipients of a frozen batch are told, as `send` was given it."""
        return await self._compose(batch, positions)

    async def number(self, sequence: str, key: str = "") -> Number:
        """Take the next number of a sequence of this channel, which all processes share."""
        own = f"{self._channel}/"
        found = await self._numbering.take(own + sequence, key and own + key)
        return found._replace(sequence=found.sequence.removeprefix(own))

    async def wake(self) -> None:
        """Say that a device this channel holds became ready, so its unfinished commands are looked up."""
        self._wake()

    def sign(self, payload: bytes) -> Signed:
        """Sign what devices are told, with the key they have pinned; at once.

        Raises:
            ConfigError: there is no key.
        """
        return self._sign(payload)

    def audio(self, message: Message, text: str) -> Audio | None:
        """Return the text as sound if it is ready; None where this gateway has no speech, too."""
        return self._voice.audio(message, text) if self._voice else None

    async def recording(self, message: Message, text: str) -> bytes | None:
        """Return the text as MP3, waiting a moment for it; None: there is none."""
        return await self._voice.recording(message, text) if self._voice else None
