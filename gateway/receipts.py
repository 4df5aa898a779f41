"""What comes back: reports, replies and device events, on their way into the ledger.

Called by channels through `link.commit`; returns after the commit, so the provider is answered only then.
A reply is matched by the hash of its number to the persons it may come from, and by their frozen
batches to the live alerts they were sent; what cannot be matched to one person is kept for a clerk.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Protocol

from gateway import log, metrics
from gateway.channel import Event
from gateway.model import DeviceEvent, Job, Progress, Record, Reply, Report, Target
from gateway.ports import Clock, Directory, Place
from gateway.store import Store

HEARD = frozenset({"1", "１", "一", "收到", "到岗"})
RECENT = timedelta(hours=24)
CLOCKS = timedelta(seconds=5)  # by which a carrier's clock may be behind ours

_log = log.get("receipts")


class People(Directory, Protocol):
    """What receipts need to know of people and devices beyond the directory's pages."""

    def phone_hash(self, address: str) -> bytes:
        """Keyed hash of a phone number."""

    async def places_of(self, person: int) -> list[tuple[str, str]]:
        """(township, village) of an official's places; village "" for a township post."""

    async def seen(self, devices: Sequence[tuple[int, bool]]) -> None:
        """Note devices that came or went."""


class Receipts:
    """Takes the events of all channels. `elsewhere` learns which places (batch, position) have another carrier."""

    def __init__(
        self,
        store: Store,
        people: People,
        clock: Clock,
        on_device: Callable[[DeviceEvent], None],
        elsewhere: Callable[[Sequence[Place]], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._people = people
        self._clock = clock
        self._on_device = on_device
        self._elsewhere = elsewhere

    async def commit(self, channel: str, events: Sequence[Event]) -> None:
        """Write events; return after their commit.

        Raises:
            StoreDown: not committed; the provider is to send again.
        """
        reports = [event for event in events if isinstance(event, Report)]
        replies = [event for event in events if isinstance(event, Reply)]
        devices = [event for event in events if isinstance(event, DeviceEvent)]
        kept = [(reply, self._people.phone_hash(reply.address), await self._answer(reply)) for reply in replies]
        if reports or kept:
            elsewhere = await self._store.ledger.commit(reports, kept)
            if elsewhere and self._elsewhere is not None:
                await self._elsewhere(elsewhere)
        if progress := [event for event in events if isinstance(event, Progress)]:
            await self._store.progress.commit(progress)
        for report in reports:
            metrics.reports.labels(channel, report.state.name.lower()).inc()
        await self._devices(devices)

    async def jobs(self, channel: str, each_s: float) -> list[Job]:
        """Take the requests for places of a channel that are to be looked at now.

        Raises:
            StoreDown: it is away; they come up again.
        """
        return await self._store.progress.take(channel, each_s)

    async def _devices(self, events: Sequence[DeviceEvent]) -> None:
        if not events:
            return
        await self._people.seen([(event.device, event.kind != "offline") for event in events])
        for event in events:
            self._on_device(event)
            if event.kind not in ("online", "offline"):
                await self._store.audit.append(Record(event.at, "device", event.kind, str(event.device), event.code))

    async def _answer(self, reply: Reply) -> str:
        """Confirm what a reply confirms; return what became of it."""
        if reply.text.strip().rstrip("。.!！") not in HEARD:
            return "for_a_person"
        people = await self._people.people_at(reply.address)
        if len(people) != 1:
            return "shared_phone" if people else "unknown_number"
        number = await self._confirm_all(people[0], reply)
        return f"confirmed:{number}" if number else "no_live_alert"

    async def _confirm_all(self, person: int, reply: Reply) -> int:
        """Confirm every live alert this official was told of before answering; return how many."""
        places = await self._people.places_of(person)
        until = min(reply.at, self._clock.now()) + CLOCKS
        told = await self._store.ledger.sent_to(person, places, self._clock.now() - RECENT, until)
        for alert in told:
            await self.confirm(alert, person, f"reply:{reply.channel}", f"person:{person}")
        return len(told)

    async def confirm(self, alert: str, person: int, how: str, actor: str) -> bool:
        """Write one confirmation, for this version: for its villages the official answers for now. False if known."""
        row = await self._store.outbox.alert(alert)
        targets = row.plan.targets if row is not None else ()
        places = await self._people.places_of(person)
        villages = [village for township, village in places if village and _meant(targets, township, village)]
        # The way alone: what a clerk notes beside it could name a person, and nothing is erased from the chain.
        record = Record(self._clock.now(), actor, "confirm", alert, how.split(": ", 1)[0])
        return await self._store.ledger.confirm(alert, person, villages, how, record)


def _meant(targets: Sequence[Target], township: str, village: str) -> bool:
    """Whether a village lies in the area of a plan; a target without villages is its whole township."""
    return any(one.township == township and (not one.villages or village in one.villages) for one in targets)
