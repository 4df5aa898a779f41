"""Which road of a pool carries a message to whom: one channel per carrier, and some that serve any number.

Pure. A pool is a channel of the plan that stands for several (`roads` in `plan.toml`, in order of preference). The
planner cuts every page of a step on it into batches of the roads that serve its numbers, so that each person has one
message by one road (rule 6). Whom no road serves stands in a batch of the pool itself, whose channel (`Roadless`) sends
nothing and says so: they are seen, and the fallback serves them.

Where a person goes: to the carrier the roster names, else to the one the number begins with. Once that one has said
that the number is another's, to those that have not, each once; where all have, to the one that said so longest ago. A
number that begins like none goes by a road for any number, else it is tried the same way: better a text too many than
a village not told.

A loudspeaker is commanded by exactly one road, the channel its row of the roster names, and by no other if that one is
off: what a platform or a broker does not know of, it cannot play, and two roads would play it twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from gateway.carrier import CARRIERS, HOST, MAINLAND, Carriers, Known
from gateway.channel import Channel, ChannelSettings, Link
from gateway.model import Batch, Group, Message, Receipt, Slice, State
from gateway.ports import Page

T = TypeVar("T")
NO_ROAD = "no_road"  # code of whoever no road serves


class Part(NamedTuple):
    """People of one page whom one channel serves."""

    channel: str
    page: Page


class Roads:
    """The pools of this installation.

    Args:
        pools: roads of each pool, in order of preference; those that are not on here are passed over.
        serves: whom each channel that is on serves (see `served_by`); none: any number.
        carriers: whose number it is.
    """

    def __init__(
        self,
        pools: Mapping[str, Sequence[str]] = MappingProxyType({}),
        serves: Mapping[str, Collection[str]] = MappingProxyType({}),
        carriers: Carriers | None = None,
    ) -> None:
        self._pools = {pool: tuple(road for road in roads if road in serves) for pool, roads in pools.items()}
        self._serves = {road: frozenset(serves[road]) for roads in self._pools.values() for road in roads}
        self._carrier = (carriers or Carriers({})).of
        self._usual = {pool: {one: self._first(pool, (one,)) for one in CARRIERS} for pool in self._pools}
        self._own = {
            pool: {road: road for road in roads if self._serves[road] == {road}} for pool, roads in self._pools.items()
        }

    def of(self, channel: str) -> tuple[str, ...]:
        """Return the roads of a pool that are on; () for any other channel."""
        return self._pools.get(channel, ())

    def same(self, channel: str, other: str) -> bool:
        """Whether a batch of `other` belongs to a step on `channel`."""
        return channel == other or other in self.of(channel)

    def carriers(self, road: str) -> frozenset[str]:
        """Return the carriers of a road; none: it is no road, or serves any number."""
        return self._serves.get(road, frozenset())

    def spare(self, channel: str, down: Collection[str]) -> bool:
        """Whether a pool has a road for those of one that is down."""
        roads, up = self.of(channel), [road for road in self.of(channel) if road not in down]
        lost = [self._serves[road] for road in roads if road in down]
        return any(not self._serves[road] or self._serves[road] & one for road in up for one in lost)

    def parts(self, channel: str, pages: Iterable[Page]) -> Iterator[Part]:
        """Yield each page's people by the road that serves them; a plain channel serves all of them itself."""
        for page in pages:
            if channel not in self._pools:
                yield Part(channel, page)
                continue
            yield from self.sorted(channel, page, self._roads(channel, page))

    def _roads(self, channel: str, page: Page) -> list[str]:
        """Return the road of a pool for each of a page's people."""
        addresses, known = page.addresses, page.carriers
        if len(known) == len(addresses):  # loudspeakers: each names its own
            own = self._own[channel]
            return [own.get(known[at]) or self.road(channel, one, known[at]) for at, one in enumerate(addresses)]
        usual, abroad = self._usual[channel], self._first(channel, ())
        unknown = abroad or self._first(channel, CARRIERS)
        roads = [
            usual[home] if home else unknown if address.startswith(MAINLAND) else abroad
            for home, address in zip(map(self._carrier, addresses), addresses, strict=True)
        ]
        for position, text in known.items():
            roads[position] = self.road(channel, addresses[position], text)
        return roads

    def sorted(self, channel: str, page: Page, roads: Sequence[str]) -> Iterator[Part]:
        """Yield a page's people by their roads, in the pool's order; those without one last, as the pool's own."""
        if page.persons and roads.count(roads[0]) == len(roads):
            yield Part(roads[0] or channel, page)
            return
        for road in (*self.of(channel), ""):
            if kept := [at for at, one in enumerate(roads) if one == road]:
                yield Part(road or channel, picked(page, kept))

    def road(
        self, channel: str, address: str, known: str = "", shut: Collection[str] = (), spent: Collection[str] = ()
    ) -> str:
        """Return the road of a pool that serves a person; "": none does.

        Args:
            channel: the pool.
            address: the number in E.164.
            known: what is known of the person's carrier, see `Known.text`; of a device, its channel.
            shut: roads that are out of the question.
            spent: carriers that are.
        """
        if not address.startswith(MAINLAND) and known not in self._serves.get(known, ()):
            return self._first(channel, (), shut)
        said, home = Known.read(known), self._carrier(address)
        first = self._rides(channel, said.own or home)
        refused = [self._rides(channel, one) for one in said.refused]
        if first in refused or first in spent or not first:
            every = dict.fromkeys(self._rides(channel, one) for one in (said.own, home, *CARRIERS) if one)
            left = [one for one in every if one not in refused] + refused
        else:
            left = [first]
        left = [one for one in left if one not in spent]
        if not first and (road := self._first(channel, (), shut)):
            return road
        return self._first(channel, left, shut)

    def _rides(self, channel: str, carrier: str) -> str:
        """Return whose network a carrier's messages go by here."""
        own = any(carrier in self._serves[road] for road in self.of(channel))
        return carrier if own else HOST.get(carrier, carrier)

    def _first(self, channel: str, carriers: Sequence[str], shut: Collection[str] = ()) -> str:
        """Return the first road for the first of these carriers that has one; for none of them, one for any number."""
        up = [road for road in self.of(channel) if road not in shut]
        for carrier in carriers:
            rides = self._rides(channel, carrier)
            for road in up:
                if not self._serves[road] or rides in self._serves[road]:
                    return road
        return next((road for road in up if not self._serves[road]), "")


NO_ROADS = Roads()


def served_by(channel: Channel) -> frozenset[str]:
    """Return whom a channel serves as a road: the numbers of its carriers; of loudspeakers, those that name it."""
    return frozenset({channel.name}) if channel.groups == {Group.LOUDSPEAKERS} else channel.carriers


class Roadless(Channel):
    """The channel of a pool itself: takes those whom none of its roads serves, and says so of each."""

    slice = 1000

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        """Return that nobody was sent anything."""
        return [Receipt(State.SKIPPED, NO_ROAD)] * len(slice_)


def with_pools(channels: Mapping[str, Channel], pools: Mapping[str, Sequence[str]]) -> dict[str, Channel]:
    """Return the channels that are on and every pool of which a road is."""
    found = dict(channels)
    for name, roads in pools.items():
        if on := [channels[road] for road in roads if road in channels]:
            found[name] = pool_of(name, on)
    return found


def pool_of(name: str, roads: Sequence[Channel]) -> Channel:
    """Return the channel of a pool: as able as the least able of its roads."""
    facts = {"name": name, "text_limit": min(road.text_limit for road in roads)}
    pool: Channel = type("Pool", (Roadless,), facts)(ChannelSettings())
    pool.takes_replies = all(road.takes_replies for road in roads)
    return pool


def picked(page: Page, kept: Sequence[int]) -> Page:
    """Return the page with the people at these positions, in order, alone."""
    return Page(
        page.township,
        tuple([page.persons[at] for at in kept]),
        tuple([page.addresses[at] for at in kept]),
        tuple([page.villages[at] for at in kept]),
        _moved(page.places, kept),
        page.after,
        _moved(page.carriers, kept),
    )


def _moved(by_position: Mapping[int, T], kept: Sequence[int]) -> dict[int, T]:
    """Return what stands at these positions by their new ones."""
    if not by_position:
        return {}
    return {new: by_position[at] for new, at in enumerate(kept) if at in by_position}


def only(page: Page, people: Collection[int]) -> Page:
    """Return the page with these people alone."""
    return picked(page, [position for position, person in enumerate(page.persons) if person in people])


def page_of(batch: Batch) -> Page:
    """Return a frozen batch as a page of the same people, without those who were erased since."""
    page = Page(batch.township, batch.persons, batch.addresses, tuple(batch.village_of()), batch.places)
    if all(batch.addresses):
        return page
    return picked(page, [position for position, address in enumerate(batch.addresses) if address])


def known_of(page: Page, known: Mapping[int, str]) -> Page:
    """Return the page with what is known of its people's carriers (person → text)."""
    carriers = {at: known[person] for at, person in enumerate(page.persons) if person in known}
    return page._replace(carriers=carriers) if carriers else page
