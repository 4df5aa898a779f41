"""Whom a step that stands in for another serves: those it has failed so far, each once.

Pure; the planner shows it the frozen batches of the alert and asks. Two steps may stand in for one on a pool
(`gateway.road`): the first on the same pool serves, by another of its roads, whose carrier has said that the number is
another's, and by any, whose road was down; the second, the fallback, everybody for whom no road is left. Nobody is
served again of whom it is not certain that nothing reached them: a failed text, never one whose outcome is unknown,
goes by another road.

Nobody falls between the two: the first goes on while a road that is down would serve somebody, and once it has ended
the fallback leaves nobody to it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from gateway.carrier import Known
from gateway.model import Batch, State, Step
from gateway.road import Part, Roads, only, page_of

ON_THE_WAY = frozenset({State.QUEUED, State.SUBMITTED})
MISSED = frozenset({State.FAILED, State.UNKNOWN, State.SKIPPED})


class Stop(NamedTuple):
    """Where a person has been: on which channel, and what became of it."""

    channel: str
    state: int


class StandIn:
    """What one step has to make good.

    Args:
        step: the one that stands in.
        steps: all of the plan.
        roads: the pools.
        ended: those of the steps that serve nobody any more.
    """

    def __init__(self, step: Step, steps: Sequence[Step], roads: Roads, ended: Collection[int] = ()) -> None:
        self._step = step
        self._base = next(one for one in steps if one.number == step.fallback_of)
        self._roads = roads
        self._pool = self._base.audience.channel
        family = {one.number: one.audience.channel for one in steps if one.fallback_of == step.fallback_of}
        pooled = bool(roads.of(self._pool))
        self._own = {number for number, channel in family.items() if pooled and channel == self._pool}
        self._others = family.keys() - self._own
        self._goes_on = not self._own <= set(ended)  # whoever has a road left is served by it
        self._missed: list[tuple[Batch, dict[int, int]]] = []
        self._again: dict[int, list[Stop]] = {}
        self._served: set[int] = set()
        self._waiting = False

    def add(self, batch: Batch, states: bytes) -> None:
        """Take a frozen batch of the alert into account."""
        if batch.step == self._base.number:
            self._waiting = self._waiting or any(state in ON_THE_WAY for state in states)
            missed = {one: state for one, state in zip(batch.persons, states, strict=True) if state in MISSED}
            if missed:
                self._missed.append((batch, missed))
        elif batch.step in self._own:
            self._waiting = self._waiting or any(state in ON_THE_WAY for state in states)
            for person, state in zip(batch.persons, states, strict=True):
                self._again.setdefault(person, []).append(Stop(batch.channel, state))
        if batch.step in self._others:
            self._served.update(batch.persons)

    @property
    def on_the_way(self) -> bool:
        """Whether somebody may still be failed; asked after `parts`."""
        return self._waiting

    @property
    def missed(self) -> list[int]:
        """Whom the step has failed, if it matters which carrier they have."""
        if not self._roads.of(self._pool):
            return []
        return [person for _, people in self._missed for person in people if person not in self._served]

    def parts(self, known: Mapping[int, str], down: Collection[str]) -> list[Part]:
        """Return whom the step serves now.

        Args:
            known: what is known of the carriers of `missed`.
            down: channels whose carrier serves nobody.
        """
        return [part for batch, missed in self._missed for part in self._of(batch, missed, known, down)]

    def _of(
        self, batch: Batch, missed: Mapping[int, int], known: Mapping[int, str], down: Collection[str]
    ) -> list[Part]:
        addresses = dict(zip(batch.persons, batch.addresses, strict=True))
        own = self._step.number in self._own
        ways: dict[int, str] = {}
        for person, state in missed.items():
            been = [Stop(batch.channel, state), *self._again.get(person, ())]
            if person in self._served or any(stop.state not in MISSED for stop in been):
                continue
            about = addresses[person], known.get(person, ""), been
            ways[person] = self._road(*about, down)
            # By a road that is left they may be failed, too; one that is down may come back.
            self._waiting = self._waiting or bool(ways[person] or (own and down and self._road(*about, ())))
        if own:
            page = only(page_of(batch), {person for person, road in ways.items() if road})
            return list(self._roads.sorted(self._pool, page, [ways[person] for person in page.persons]))
        # Those for whom a road is left are the pool's own; it has not come to them.
        page = only(page_of(batch), {person for person, road in ways.items() if not road})
        return [Part(self._step.audience.channel, page)]

    def _road(self, address: str, known: str, been: Sequence[Stop], down: Collection[str]) -> str:
        """Return the road that is left for a person; "" if none, or if something may have reached them."""
        if not self._goes_on or not address:
            return ""
        refused = Known.read(known).refused
        shut, spent = set(down), set[str]()
        for stop in been:
            if stop.state == State.SKIPPED:  # nobody has tried that road: it will do if it is up again
                continue
            carriers = self._roads.carriers(stop.channel)
            if stop.state != State.FAILED or carriers.isdisjoint(refused):
                return ""
            shut.add(stop.channel)
            spent |= carriers
        return self._roads.road(self._pool, address, known, shut, spent)
