"""The ports: what the core asks of its surroundings. Each has one contract suite that runs on every implementation.

Store is four facets over one database; Broker carries batches; State shares rates and wake-ups;
Directory knows people and devices; Signer signs what we publish; Clock tells the time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple, Protocol

from gateway.channel import Device
from gateway.model import (
    Alert,
    Audience,
    Batch,
    Change,
    Claim,
    Decision,
    Lane,
    Minute,
    Plan,
    Receipt,
    Recipient,
    Record,
    Report,
)


class Clock(Protocol):
    """Time, injected so that no test sleeps."""

    def now(self) -> datetime:
        """Aware UTC."""

    async def sleep(self, wait_s: float) -> None:
        """Sleep by this clock."""


class Signer(Protocol):
    """One key that signs what we publish. It may lie in a hardware box, which it never leaves (D25: SM2 and SM3).

    Algorithms are named by their XML Signature URIs.
    """

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Certificates (DER): the key's own, then those between it and its authority."""

    @property
    def algorithm(self) -> str:
        """How `sign` signs."""

    @property
    def digest_algorithm(self) -> str:
        """What `digest` computes."""

    def digest(self, data: bytes) -> bytes:
        """Return the digest of a message."""

    async def sign(self, data: bytes) -> bytes:
        """Return the value of the signature over the data, as XML Signature writes it (ECDSA: r and s side by side)."""


class Page(NamedTuple):
    """One page of an audience within one township, in (village, person id) order, as parallel columns.

    `places` names all targeted places (codes) of the few persons who have several, by position; `carriers` what is
    known of the carriers of a few (`gateway.carrier.Known`), and the channel of each device.
    `after` continues behind it: (township, village, person id); None when the audience is exhausted.
    """

    township: str
    persons: tuple[int, ...] = ()
    addresses: tuple[str, ...] = ()
    villages: tuple[str, ...] = ()
    places: Mapping[int, tuple[str, ...]] = MappingProxyType({})
    after: tuple[str, str, int] | None = None
    carriers: Mapping[int, str] = MappingProxyType({})

    @property
    def recipients(self) -> Iterator[Recipient]:
        """The same as rows."""
        columns = zip(self.persons, self.addresses, self.villages, strict=True)
        for position, (person, address, village) in enumerate(columns):
            yield Recipient(person, address, village, self.places.get(position, ()))


class Deputy(NamedTuple):
    """Who stands in for an official: the id, the number, and what is known of its carrier (`gateway.carrier.Known`)."""

    person: int
    address: str
    carrier: str


class Directory(Protocol):
    """People, devices and subscribers. Addresses leave it decrypted, and only in pages."""

    async def page(self, audience: Audience, after: tuple[str, str, int] | None, limit: int) -> Page:
        """Return the next page.

        A person is in exactly one page of a plan: under the first of its target townships, never as a
        resident where it is an official (rule 6); `places` names all its targeted places.
        """

    async def pages(self, audience: Audience, after: tuple[str, str, int] | None, limit: int) -> Sequence[Page]:
        """Return the next pages, at least one, until they hold `limit` people or more; each at most `limit`."""

    async def count(self, audience: Audience) -> dict[str, int]:
        """Recipients per township."""

    async def anybody(self, audience: Audience) -> bool:
        """Whether the audience is not empty."""

    async def present(self, audience: Audience, people: Sequence[int]) -> frozenset[int]:
        """Those of the people (or devices) whom the audience would tell now."""

    async def carriers(self, people: Sequence[int]) -> dict[int, str]:
        """What is known of the carriers of those of these people of whom anything is; see `gateway.carrier.Known`."""

    async def refused(self, people: Sequence[int], carriers: Collection[str]) -> None:
        """Note that these carriers said of these people's numbers that they are another one's."""

    async def responsible(self, villages: Collection[str]) -> dict[str, tuple[int, ...]]:
        """Officials answerable for each village."""

    async def people_at(self, address: str) -> tuple[int, ...]:
        """Persons with this phone number (two persons may share one)."""

    async def device(self, name: str) -> Device | None:
        """A loudspeaker by the name it connects with."""

    async def devices(self, villages: Collection[str]) -> dict[str, tuple[int, ...]]:
        """Loudspeakers in service per village."""


class Message(NamedTuple):
    """One delivery of the broker. `ack` may fail after a lost connection; that is normal."""

    body: bytes
    redelivered: bool
    ack: Callable[[], Awaitable[None]]
    reject: Callable[[], Awaitable[None]]
    """Dead-letter it."""


class Broker(Protocol):
    """Carries packed batches. Queue names are `<channel>.<lane>`; at-least-once; the store is the arbiter."""

    async def open(self, queues: Collection[str]) -> None:
        """Connect and declare; a dead queue is found by a confirmed probe and declared anew."""

    async def publish(self, queue: str, body: bytes, timeout_s: float = 5.0, *, patient: bool = True) -> None:
        """Return once confirmed. Where the broker is known to be down, the impatient are told at once.

        Raises:
            BrokerDown: not confirmed in time, refused, or not routable.
        """

    async def consume(self, queue: str, prefetch: int, take: Callable[[Message], None]) -> None:
        """Call `take` for each message; it only starts a task the caller owns. Survives reconnects."""

    def pause(self, queue: str) -> None:
        """Take no more from a queue and give back what is unacked, to be redelivered; to others at once."""

    def resume(self, queue: str) -> None:
        """Consume a paused queue again."""

    async def depths(self) -> dict[str, int]:
        """Messages ready per queue; empty when the broker is down."""

    async def close(self) -> None:
        """Stop consuming and disconnect."""


class State(Protocol):
    """Shared, disposable state: losing it loses no delivery."""

    async def take(self, bucket: str, units: int, rate_per_s: float, burst: int, reserve: int) -> float:
        """Take tokens, leaving at least `reserve`; 0.0 when taken, else seconds until it is worth asking again.

        Raises:
            StateDown: no answer in time.
        """

    async def wake(self, topic: str, payload: str = "") -> None:
        """Tell every listener of `topic`; lost wakes are made good by polling. Never raises."""

    def wakes(self, topic: str) -> AsyncIterator[str]:
        """Yield payloads as they come; survives reconnects; ends with the task."""

    async def close(self) -> None:
        """Disconnect."""


class Settled(NamedTuple):
    """Outcome of one slice attempt; `receipts` run parallel to `positions`.

    Positions whose receipt stays QUEUED remain pending and are tried again at `retry_at`; those with an
    `Ambiguous` error become doubtful.
    """

    batch: str
    slice: int
    attempt: int
    owner: str
    positions: Sequence[int]
    receipts: Sequence[Receipt]
    account: str
    at: datetime
    retry_at: datetime | None = None
    count_attempt: bool = True


Place = tuple[str, int]
"""A recipient as the ledger knows it: (batch, position)."""


class Kept(NamedTuple):
    """Answer to `settle`, true if the lease was still held.

    `elsewhere` are recipients of the slice whose numbers are another carrier's by reports that came before it.
    """

    owned: bool
    elsewhere: Sequence[Place] = ()

    def __bool__(self) -> bool:
        return self.owned


class Accepted(NamedTuple):
    """Answer to `accept`: accepted; duplicate (same content, nothing done); conflict (same id, other content).

    Or overtaken (what it was to end has just ended); or sealed (its code is unknown or used); or real_warning (a drill,
    and one covers its area). `halts` are the scopes that were halted when it was accepted.
    """

    result: str
    alert: str
    halts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """Everything one accept writes in one transaction."""

    alert: Alert
    content_digest: str
    plan: Plan
    batches: Sequence[Batch]
    cursors: dict[int, tuple[str, str, int] | None]
    """Step number → where the planner continues; None: exhausted. Steps not named start at the beginning."""
    records: Sequence[Record]
    stops: dict[str, str]
    """Alert id → reason (superseded, cancelled, corrected): every later claim of these fails."""
    now: datetime
    issuer: str = ""
    standing: str = "active"
    """Where it stands afterwards (`gateway.standing`); no batches and no stops before it is active."""
    reason: str = ""
    decision: Decision | None = None
    timers: Mapping[str, datetime] = field(default_factory=dict)
    """Timer kind → due, under the alert's id."""
    obligations: Mapping[str, datetime] = field(default_factory=dict)
    """Kind → due of what the duty room owes from now on."""
    minute: Minute | None = None
    likeness: str = ""
    """Digest of what near-duplicates have in common (D4)."""
    seal: str = ""
    """Hash of the sealed code that is used up by this acceptance (break-glass, D3)."""


class StepWork(NamedTuple):
    """A plan step with work left, and where to continue. `sequence` batches stand already."""

    alert: str
    step: int
    after: tuple[str, str, int] | None
    sequence: int
    lane: Lane


class AlertRow(NamedTuple):
    """An alert as stored with its plan and standing (`gateway.standing`). `revision` counts its changes.

    `national` is its number on the national platform, "" while pending, None where none is due (D22).
    """

    alert: Alert
    plan: Plan
    standing: str
    reason: str
    issuer: str
    accepted_at: datetime
    revision: int = 0
    national: str | None = None

    @property
    def national_number(self) -> str | None:
        """As it is shown: the number, "pending", or None."""
        return self.national or (None if self.national is None else "pending")


class Ready(NamedTuple):
    """An unfinished batch due for work."""

    body: bytes
    batch: str
    channel: str
    lane: Lane


class Outage(NamedTuple):
    """A channel whose carrier serves nobody, as a worker has seen it; it asks again at `until`."""

    channel: str
    since: datetime
    until: datetime
    code: str


class Outbox(Protocol):
    """Alerts, plans, batches, claims and stops."""

    async def accept(self, draft: Draft) -> Accepted:
        """Store alert, plan, records, stops and first batches in one transaction; only then may the caller say 202."""

    async def move(self, was: AlertRow, draft: Draft) -> Accepted:
        """Move a stored alert on, as `accept` stores a new one; an active one gets its plan's further steps.

        `conflict`: it is no longer as `was` says.
        """

    async def known(self, sender: str, identifier: str, digest: str) -> str:
        """Id of the alert with this sender, identifier and content, or ""."""

    async def successors(self, sender: str, identifier: str) -> list[AlertRow]:
        """Alerts that refer to this one, newest first."""

    async def alert(self, alert: str) -> AlertRow | None:
        """One alert."""

    async def alerts(self, after: str = "", limit: int = 50, standing: str = "") -> list[AlertRow]:
        """Alerts, newest first, paging by id."""

    async def in_force(self, now: datetime, limit: int) -> list[AlertRow]:
        """Alerts that are active or wait for a person and have not expired, newest first."""

    async def find(self, sender: str, identifier: str) -> list[AlertRow]:
        """Versions with this sender and identifier."""

    async def work(self, limit: int, skip: int = 0, lanes: Collection[Lane] = tuple(Lane)) -> list[StepWork]:
        """Steps of active plans that are due and not exhausted, most urgent lane first."""

    async def sequences(self, alert: str, steps: Collection[int]) -> dict[int, int]:
        """Batches that stand in each of some steps."""

    async def add_page(
        self,
        work: StepWork,
        batches: Sequence[Batch],
        after: tuple[str, str, int] | None,
        beside: Mapping[int, int] = MappingProxyType({}),
    ) -> bool:
        """Write a page's batches and the cursor in one transaction; `after` None: the step is exhausted.

        `beside`: other steps whose batches decided whom the page serves, as `sequences` told before they were looked
        at. False if another planner wrote this page, or more stands beside it by now.
        """

    async def ready(
        self, lanes: Collection[Lane], channels: Collection[str], unpublished_for_s: float, limit: int
    ) -> list[Ready]:
        """Unfinished batches that are due, not under a live lease, and not published for that long."""

    async def unconfirmed(
        self, lanes: Collection[Lane], channels: Collection[str], for_s: float, limit: int
    ) -> list[Ready]:
        """Those that have been due for that long, and the broker has not confirmed them: it is down or cut off."""

    async def in_line(self, channels: Collection[str], unpublished_for_s: float, each: int) -> list[Ready]:
        """Of what is `ready` and urgent the first `each` of every alert, one of each in turn; none of one alone."""

    async def unfinished(self, batches: Sequence[str]) -> frozenset[str]:
        """Return those of these batches that are not settled."""

    async def published(self, batches: Sequence[str]) -> None:
        """Note the publish confirm."""

    async def claim(self, batch: str, slice_: int, owner: str, lease_s: float) -> Claim:
        """Claim one slice before its first byte. The store is the only arbiter. `owner` is new for every call."""

    async def defer(self, batch: str, until: datetime) -> bool:
        """Put a batch off unclaimed until `until`. False where its alert or its time has ended: a claim settles it."""

    async def planned(self, alert: str, step: int) -> bool:
        """Whether a step's audience is frozen to its end."""

    async def outages(self) -> list[Outage]:
        """Carriers that are down now."""

    async def give_up(self, alert: str, step: int) -> int:
        """End some of what a step has left for a carrier that is down, so that its fallback serves it; 0: nothing."""

    async def note_outage(self, channel: str, outage: Outage | None) -> None:
        """Let every process know that a channel's carrier is down, or that it is up again."""

    async def note_sessions(self, up: Collection[str], down: Mapping[str, datetime]) -> None:
        """Let every process know which channels have a session here, and which have had none since when.

        A channel that has none anywhere is an outage.
        """

    async def stop(self, alert: str, reason: str, record: Record, why: str = "") -> bool:
        """Make every later claim of the alert fail, stop its plan and its commands; `why` stands in its life."""

    async def halt(self, scope: str, on: bool, record: Record) -> None:
        """Stop or release all claims of a county code, a channel, or everything ("*")."""


class Ledger(Protocol):
    """What happened: settled slices, reports, confirmations, and the change feed."""

    async def settle(self, settled: Settled) -> Kept:
        """Write a slice's outcome, references and counts in one transaction; tell whether the lease was still held."""

    async def commit(self, reports: Sequence[Report]) -> list[Place]:
        """Write later facts; unmatched reports are kept until their submit shows up.

        Returns the recipients whose numbers the reports say are another carrier's.
        """

    async def confirm(self, alert: str, person: int, villages: Sequence[str], how: str, record: Record) -> bool:
        """A person answered for this version. False if already known."""

    async def changes(self, after: tuple[int, int], limit: int) -> list[Change]:
        """The change feed behind `after`, in order, without gaps."""

    async def batches(
        self, alert: str, group: str = "", after: str = "", limit: int = 100
    ) -> list[tuple[Batch, bytes]]:
        """Frozen batches with their folded states, by id."""

    async def counts(self, alert: str) -> dict[tuple[str, str, str], int]:
        """Recipients by (channel, group, state name)."""


class Audit(Protocol):
    """The hash chain of decisions; one appender."""

    async def append(self, record: Record) -> None:
        """Append one record; returns after commit."""

    async def verify(self) -> tuple[int, str]:
        """Walk the chain: (records, "") if whole, else (last good sequence, what is wrong)."""


class Timers(Protocol):
    """One table of what is due."""

    async def set(self, kind: str, key: str, due: datetime) -> None:
        """Set or move a timer."""

    async def take(self, limit: int) -> list[tuple[str, str]]:
        """Take due timers; each goes to one caller, who has 30 s before another may take it."""

    async def done(self, kind: str, key: str) -> None:
        """Forget a timer that was handled."""

    async def handled(self, timers: Sequence[tuple[str, str, datetime | None]]) -> None:
        """Note of each (kind, key) when it is due again; None: it is forgotten."""
