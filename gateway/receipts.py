"""What comes back: reports, replies and device events, on their way into the ledger.

Called by channels through `link.commit`; returns after the commit, so the provider is answered only then.
A reply is matched by the hash of its number to the persons it may come from, and by their frozen
batches to the live alerts they were sent: to one alone, where it was sent to that one's extension. What cannot be
matched to one person is kept for a clerk (D15, D16).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain, compress
from operator import attrgetter
from typing import Protocol

from gateway import log, metrics
from gateway.channel import Event
from gateway.errors import Refused
from gateway.model import (
    Batch,
    DeviceEvent,
    Job,
    OrderReceipt,
    Progress,
    Record,
    Reply,
    Report,
    State,
    Status,
    Target,
    extension_of,
)
from gateway.ports import Clock, Deputy, Directory, Place
from gateway.reply import LONGEST, Meaning, Reading, read
from gateway.road import NO_ROADS, Roads
from gateway.standing import Standing
from gateway.store import Store
from gateway.store.codec import alert_of
from gateway.store.device import played_of
from gateway.store.reply import Answer, Effect, Received

RECENT = timedelta(hours=24)
DRILLS = 1024  # alerts remembered
CLOCKS = timedelta(seconds=5)  # by which a carrier's clock may be behind ours

_BECAME = {Meaning.HEARD: "confirmed", Meaning.AWAY: "away", Meaning.SUPPORT: "incident"}
_STATE = attrgetter("state")
_log = log.get("receipts")


class People(Directory, Protocol):
    """What receipts need to know of people and devices beyond the directory's pages."""

    def phone_hash(self, address: str) -> bytes:
        """Keyed hash of a phone number."""

    async def places_of(self, person: int) -> list[tuple[str, str]]:
        """(township, village) of an official's places; village "" for a township post."""

    async def deputy_of(self, person: int) -> Deputy | None:
        """The official who stands in for this one, if the roster names one."""

    async def ever_of(self, person: int) -> tuple[list[tuple[str, str]], bytes]:
        """(township, village) of every place a person has or had, and the hash of its number."""

    async def opt_out(self, address: str, actor: str) -> int:
        """Opt everybody with this number out, but officials; return how many."""

    def seal(self, plain: bytes) -> bytes:
        """Encrypt what names somebody."""


class Receipts:
    """Takes the events of all channels.

    Args:
        store: where they go.
        people: whose they are.
        clock: now.
        elsewhere: learns which places (batch, position) have another carrier.
        roads: the pools, by which a deputy's message goes.
        offer: publishes messages to deputies; what it is not given, the sweeper finds.
    """

    def __init__(
        self,
        store: Store,
        people: People,
        clock: Clock,
        elsewhere: Callable[[Sequence[Place]], Awaitable[None]] | None = None,
        roads: Roads = NO_ROADS,
        offer: Callable[[Sequence[Batch]], None] = lambda batches: None,
    ) -> None:
        self._store = store
        self._people = people
        self._clock = clock
        self._elsewhere = elsewhere
        self._roads = roads
        self._offer = offer
        self._drills: dict[str, bool] = {}  # alert → whether it is an exercise

    async def commit(self, channel: str, events: Sequence[Event]) -> None:
        """Write events; return after their commit.

        Raises:
            StoreDown: not committed; the provider is to send again.
        """
        reports = [event for event in events if isinstance(event, Report)]
        replies = [event for event in events if isinstance(event, Reply)]
        devices = [event for event in events if isinstance(event, DeviceEvent)]
        if reports:
            elsewhere = await self._store.ledger.commit(reports)
            if elsewhere and self._elsewhere is not None:
                await self._elsewhere(elsewhere)
        if replies:
            await self._replied(replies)
        if progress := [event for event in events if isinstance(event, Progress)]:
            await self._store.progress.commit(progress)
        for state, number in Counter(map(_STATE, reports)).items():
            metrics.reports.labels(channel, state.name.lower()).inc(number)
        if played := [one for one in reports if one.state is State.PLAYED and one.batch]:
            await self._played(played)
        await self._devices(devices)
        if orders := [event for event in events if isinstance(event, OrderReceipt)]:
            await self._store.orders.settle(orders)
            for one in orders:
                metrics.speaker_orders.labels("done" if one.done else "failed").inc()

    async def _replied(self, replies: Sequence[Reply]) -> None:
        """Read replies and write them with what they change; one that is known changes nothing, whatever came since."""
        known = await self._store.replies.known(replies)
        kept = [await self._kept(one) for one in replies if (one.account, one.reference) not in known]
        new = await self._store.replies.keep(kept, self._clock.now()) if kept else []
        for one in compress(kept, new):
            metrics.replies.labels(one.meaning).inc()
        await self._publish([one.effect for one in compress(kept, new)])

    async def _publish(self, effects: Sequence[Effect]) -> None:
        """Publish the messages to deputies that were written: not those of an alert that had ended by then."""
        if meant := [one.message.id for effect in effects for one in effect.away if one.message is not None]:
            self._offer(await self._store.ledger.frozen(meant))

    async def jobs(self, channel: str, each_s: float) -> list[Job]:
        """Take the requests for places of a channel that are to be looked at now.

        Raises:
            StoreDown: it is away; they come up again.
        """
        return await self._store.progress.take(channel, each_s)

    async def again(self, job: Job, source: str, positions: Sequence[int]) -> bool:
        """Begin the next round of a request; see `store.progress`."""
        return await self._store.progress.again(job, source, positions)

    async def _devices(self, events: Sequence[DeviceEvent]) -> None:
        if not events:
            return
        await self._store.devices.fold(events)
        if alarms := [event for event in events if event.kind == "alarm"]:
            await self._store.sounded.keep(alarms)

    async def _played(self, reports: Sequence[Report]) -> None:
        """Note that loudspeakers work, and which of them were heard in a drill."""
        alerts = {alert_of(one.batch) for one in reports}
        await self._store.devices.played(played_of(reports, {one: await self._is_drill(one) for one in alerts}))

    async def _is_drill(self, alert: str) -> bool:
        if alert not in self._drills:
            row = await self._store.outbox.alert(alert)
            if len(self._drills) >= DRILLS:
                self._drills.clear()
            self._drills[alert] = row is not None and row.alert.status is Status.EXERCISE
        return self._drills[alert]

    async def _kept(self, reply: Reply) -> Received:
        """Read a reply: what it means, whose it may be, and what it changes. A clerk settles what is not plain."""
        reading, people = read(reply.text), await self._people.people_at(reply.address)
        places = {one: await self._people.places_of(one) for one in people}
        officials = [one for one in people if places[one]]
        at = min(reply.at, self._clock.now())
        effect = Effect(f"reply:{reply.channel}", at)
        told: tuple[str, ...] = ()
        waiting = False
        if reading.meaning is Meaning.OTHER or not people:
            outcome, waiting = "for_a_person" if people else "unknown_number", True
        elif reading.meaning is Meaning.OPT_OUT:
            outcome, waiting = await self._opted_out(reply, officials)
        elif not officials:  # a resident: nobody asked, and nobody is called off a ladder by it
            outcome, waiting = "not_an_official", reading.meaning is Meaning.SUPPORT
        elif len(people) > 1:
            # Nobody knows which of them it was, and danger does not wait until somebody does.
            outcome, waiting = "shared_phone", True
            effect = replace(effect, incident=reading.meaning is Meaning.SUPPORT)
        else:
            told = _meant(await self._told(people[0], places[people[0]], at), reply.extension)
            effect = await self._effect(reading, [(people[0], told)], effect)
            outcome = f"{_BECAME[reading.meaning]}:{len(told)}" if told or effect.incident else "no_live_alert"
        return Received(
            _id(reply), reply, self._people.phone_hash(reply.address), self._sealed(reply), reading.meaning, outcome,
            people, await self._codes(people, places), effect, told, waiting,
        )  # fmt: skip

    async def _opted_out(self, reply: Reply, officials: Sequence[int]) -> tuple[str, bool]:
        """Opt a number out (D24); an official's wish is a clerk's to talk about, and changes nothing."""
        if officials:
            return "official", True
        try:
            gone = await self._people.opt_out(reply.address, f"reply:{reply.channel}")
        except Refused:  # they left, or became officials, a moment ago
            return "for_a_person", True
        return f"opted_out:{gone}", False

    async def _codes(self, people: Sequence[int], places: Mapping[int, Sequence[tuple[str, str]]]) -> tuple[str, ...]:
        """Return the codes of the places people answer for, or of a resident's: whose clerk looks at it."""
        codes = {village or township for one in people for township, village in places[one]}
        if not codes:
            lived = [(await self._people.ever_of(one))[0] for one in people]
            codes = {village or township for places_ in lived for township, village in places_}
        return tuple(sorted(codes))

    def _sealed(self, reply: Reply) -> bytes:
        kept = {"number": reply.address, "text": reply.text[:LONGEST]}
        return self._people.seal(json.dumps(kept, ensure_ascii=True).encode())

    async def _told(
        self,
        person: int,
        places: Sequence[tuple[str, str]],
        at: datetime,
        standings: Collection[str] = (Standing.ACTIVE,),
    ) -> list[str]:
        """Return the alerts this official was told of in the day before the answer, also in another's stead."""
        stead = [(one.township, one.village) for one in await self._store.replies.in_stead(person)]
        return await self._store.ledger.sent_to(person, [*places, *stead], at - RECENT, at + CLOCKS, standings)

    async def _effect(self, reading: Reading, told: Sequence[tuple[int, Sequence[str]]], effect: Effect) -> Effect:
        """Return what a reading changes for people and the alerts each was told of."""
        answers = tuple(
            [Answer(alert, one, await self._villages(alert, one)) for one, alerts in told for alert in alerts]
        )
        return replace(
            effect,
            confirmed=answers if reading.confirms else (),
            away=await self._with_deputies(answers) if reading.meaning is Meaning.AWAY else (),
            incident=reading.meaning is Meaning.SUPPORT,
        )

    async def _with_deputies(self, answers: Sequence[Answer]) -> tuple[Answer, ...]:
        return tuple([one._replace(message=await self._to_deputy(one)) for one in answers])

    async def _to_deputy(self, answer: Answer) -> Batch | None:
        """Return what the deputy of somebody who is away is told: the same message, by the same road.

        None where nobody is known, it was said before, or the plan tells the deputy itself: an official of the area
        (rule 6).
        """
        if await self._store.replies.is_away(answer.alert, answer.person):
            return None
        deputy, row = await self._people.deputy_of(answer.person), await self._store.outbox.alert(answer.alert)
        if deputy is None or row is None or not row.alert.actual:
            return None
        own = await self._people.places_of(deputy.person)
        if any(_covers(row.plan.targets, *place) for place in own):
            return None
        told = await self._store.ledger.told_in(
            answer.alert, answer.person, await self._people.places_of(answer.person)
        )
        if told is None:
            return None
        at = told.persons.index(answer.person)
        village = list(told.village_of())[at]
        pool = next((one.audience.channel for one in row.plan.steps if one.number == told.step), told.channel)
        pooled = self._roads.of(pool)
        return replace(
            told,
            id=f"{told.alert}.{told.step}.deputy-{answer.person}",
            channel=(self._roads.road(pool, deputy.address, deputy.carrier) or pool) if pooled else told.channel,
            persons=(deputy.person,),
            addresses=(deputy.address,),
            villages=((village, 1),),
            places={0: told.places[at]} if at in told.places else {},
        )

    async def settle(self, id_: str, meaning: Meaning, people: Sequence[int], actor: str) -> None:
        """Write what a clerk made of a reply that waits: these people meant this, at the time of the reply.

        Two people who share a telephone are two confirmations. `OTHER`: it was read, and nothing follows.

        Raises:
            Refused: it is settled already, or somebody named was told of nothing it could answer.
        """
        found = await self._store.replies.get(id_)
        if found is None:
            raise Refused(404, "unknown_reply", "there is no such reply in your area; GET /v1/replies lists them")
        told = []
        for one in dict.fromkeys(people):
            places = await self._people.places_of(one)
            alerts = await self._told(one, places, found.at, (Standing.ACTIVE, Standing.STOPPED))
            if not alerts and meaning is not Meaning.SUPPORT:
                detail = f"person {one} was told of nothing in the day before this reply; settle it as other"
                raise Refused(409, "told_nothing", detail)
            told.append((one, alerts))
        reading = Reading(meaning, confirms=meaning in (Meaning.HEARD, Meaning.SUPPORT))
        effect = await self._effect(reading, told, Effect(f"reply:{found.channel}", found.at))
        record = Record(self._clock.now(), actor, f"settle:{meaning}", id_)
        named = list(dict.fromkeys(people)) or found.people
        if not await self._store.replies.settle(id_, f"settled:{meaning}", effect, named, record):
            raise Refused(409, "settled", "somebody has settled this reply already")
        await self._publish([effect])

    async def confirm(self, alert: str, person: int, how: str, actor: str) -> bool:
        """Write one confirmation, for this version: for its villages the official answers for now. False if known."""
        villages = await self._villages(alert, person)
        # The way alone: what a clerk notes beside it could name a person, and nothing is erased from the chain.
        record = Record(self._clock.now(), actor, "confirm", alert, how.split(": ", 1)[0])
        return await self._store.ledger.confirm(alert, person, villages, how, record)

    async def confirm_village(self, alert: str, village: str, how: str, actor: str) -> bool:
        """Write that somebody answerable for a village answered a clerk, on the roster or not. False if known.

        Who it was is not asked at night: the clerk's name stands for it, and the village's code stands in the person's
        place, negative as no person's id is.
        """
        record = Record(self._clock.now(), actor, "confirm", alert, f"{how.split(': ', 1)[0]} {village}")
        return await self._store.ledger.confirm(alert, -int(village), (village,), how, record)

    async def _villages(self, alert: str, person: int) -> tuple[str, ...]:
        """Return the villages of an alert's plan that a person answers for now, also as somebody's deputy."""
        row = await self._store.outbox.alert(alert)
        targets = row.plan.targets if row is not None else ()
        places = await self._people.places_of(person)
        own = [village for township, village in places if village and _lies(targets, township, village)]
        stead = [one.villages for one in await self._store.replies.in_stead(person) if one.alert == alert]
        return tuple(dict.fromkeys([*own, *chain.from_iterable(stead)]))


def _id(reply: Reply) -> str:
    """Return the name of a reply, which says nothing of its number."""
    return hashlib.blake2b(f"{reply.account}\0{reply.reference}".encode(errors="replace"), digest_size=10).hexdigest()


def _meant(told: Sequence[str], extension: str) -> tuple[str, ...]:
    """Return the alerts whose number a reply was sent to; all, where it names none of them (D15)."""
    named = [one for one in told if extension and extension == extension_of(one, len(extension))]
    return tuple(named or told)


def _covers(targets: Sequence[Target], township: str, village: str) -> bool:
    """Whether a plan tells an official of a place: of the village, or of the township any of it lies in."""
    return _lies(targets, township, village) if village else any(one.township == township for one in targets)


def _lies(targets: Sequence[Target], township: str, village: str) -> bool:
    """Whether a village lies in the area of a plan; a target without villages is its whole township."""
    return any(one.township == township and (not one.villages or village in one.villages) for one in targets)
