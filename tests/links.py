"""Test doubles for channels: a link that records, sample messages and slices, and the case of the channel contract.

Used by the test of every channel. A channel's own test offers `contract_case()`, and the contract suite finds it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.channel import Device, Event, Lease, Number, Settings, Signed
from gateway.device_key import DeviceKey
from gateway.errors import StoreDown
from gateway.model import Audio, Batch, Job, JobState, Lane, Level, Message, Notice, Slice, Status

DEVICE_KEY = DeviceKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), datetime(2026, 1, 1, tzinfo=UTC))
"""Signs what the loudspeakers of tests are told; never a real installation's."""
TEXT = "【样例县气象局】暴雨红色预警:未来3小时贾楼乡有100毫米以上强降雨。立即到岗,按预案转移。收到回1"


@dataclass(eq=False)
class HeldLease:
    """One connection of an account, taken from a `RecordingLink`."""

    slot: int
    held: set[int]
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def release(self) -> None:
        self.held.discard(self.slot)


@dataclass
class RecordingLink:
    """A `Link` that keeps what it was told. While `down`, a commit fails as it does when the store is away.

    Several channels with one link share its leases, as processes with one store do.
    """

    paced: list[tuple[str, int, Lane]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    devices: dict[str, Device] = field(default_factory=dict)
    wakes: int = 0
    due: list[Job] = field(default_factory=list)
    down: bool = False
    failed: int = 0
    sounds: dict[str, Audio] = field(default_factory=dict)
    recordings: dict[str, bytes] = field(default_factory=dict)
    leases: dict[str, list[HeldLease]] = field(default_factory=dict)
    slots: dict[str, set[int]] = field(default_factory=dict)
    taken: Counter[str] = field(default_factory=Counter)
    numbers: dict[str, Number] = field(default_factory=dict)
    goes_on: bool = True
    says: Message | None = None

    async def pace(self, account: str, units: int, lane: Lane) -> None:
        self.paced.append((account, units, lane))

    async def lease(self, account: str, connections: int) -> Lease | None:
        held = self.slots.setdefault(account, set())
        free = set(range(connections)) - held
        if not free:
            return None
        held.add(min(free))
        lease = HeldLease(min(free), held)
        self.leases.setdefault(account, []).append(lease)
        return lease

    async def commit(self, events: Sequence[Event]) -> None:
        if self.down:
            self.failed += 1
            raise StoreDown("no answer in time")
        self.events.extend(events)

    async def device(self, name: str) -> Device | None:
        return self.devices.get(name)

    async def jobs(self, each_s: float) -> Sequence[Job]:
        taken, self.due = self.due, []
        return taken

    async def again(self, job: Job, source: str, positions: Sequence[int]) -> bool:
        """As the store does: this round ends as the next one is noted."""
        await self.commit(
            [replace(job.progress, last=True), replace(job.progress, source=source, state=JobState.ASKED)]
        )
        return self.goes_on

    async def message(self, batch: Batch, positions: Sequence[int]) -> Message:
        return self.says or sample_message()

    async def number(self, sequence: str, key: str = "") -> Number:
        if self.down:
            raise StoreDown("no answer in time")
        found = self.numbers.get(key) or Number(sequence, self.taken[sequence])
        self.taken[sequence] = max(self.taken[sequence], found.value + 1)
        if key:
            self.numbers[key] = found
        return found

    async def wake(self) -> None:
        self.wakes += 1

    def sign(self, payload: bytes) -> Signed:
        return DEVICE_KEY.sign(payload)

    def audio(self, message: Message, text: str) -> Audio | None:
        return self.sounds.get(text)

    async def recording(self, message: Message, text: str) -> bytes | None:
        return self.recordings.get(text)


@dataclass
class Case:
    """What the contract suite needs of one channel: valid settings and recipients who can be reached.

    `refused` are addresses that must become an error receipt, `secrets` must never be shown anywhere, and
    `received` counts what the counterpart really got (None: the channel has none).
    """

    settings: Settings
    addresses: Sequence[str]
    refused: Sequence[str] = ()
    secrets: Sequence[str] = ()
    received: Callable[[], int] | None = None


def sample_message(**changes: Any) -> Message:
    """Return a red warning about heavy rain, with `changes`."""
    values: dict[str, Any] = {
        "alert": "0f" * 10,
        "notice": Notice.ISSUE,
        "status": Status.ACTUAL,
        "level": Level.RED,
        "lane": Lane.GREEN,
        "language": "zh",
        "title": "暴雨红色预警",
        "text": TEXT,
        "expires": datetime(2099, 7, 20, 9, 0, tzinfo=UTC),
        "region": "411726001",
    }
    return Message(**(values | changes))


def sample_slice(addresses: Sequence[str], first: int = 0, attempt: int = 1) -> Slice:
    """Return a slice whose positions start at `first`; person ids are position + 1000."""
    positions = range(first, first + len(addresses))
    return Slice(f"{'0f' * 10}.1.0", 0, attempt, positions, [1000 + p for p in positions], addresses)
