"""Numbers that left their carrier: what a carrier says of a number is kept with the person, for every later message.

Called by the sender for what a carrier answers at once, before the failure is settled, and by receipts for what it
reports later; both may say it twice. Where the person goes next says `gateway.road`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from gateway import metrics
from gateway.ports import Directory, Place
from gateway.road import Roads
from gateway.store import Store


class Portability:
    """Learns which carriers have refused whose number."""

    def __init__(self, store: Store, directory: Directory, roads: Roads) -> None:
        self._ledger = store.ledger
        self._directory = directory
        self._roads = roads

    async def refused(self, channel: str, people: Sequence[int]) -> None:
        """Note that a channel's carriers say of these people's numbers that they are another one's."""
        await self._directory.refused(people, self._roads.carriers(channel))
        metrics.elsewhere.labels(channel).inc(len(people))

    async def reported(self, places: Sequence[Place]) -> None:
        """Note the same of the people at these places, (batch, position)."""
        if not places:
            return
        frozen = {batch.id: batch for batch in await self._ledger.frozen({batch for batch, _ in places})}
        found = sorted((frozen[one].channel, frozen[one].persons[at]) for one, at in places if one in frozen)
        for channel, run in groupby(found, lambda one: one[0]):
            await self.refused(channel, [person for _, person in run])
