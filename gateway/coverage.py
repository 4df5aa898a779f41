"""Is every village reached? Officials' confirmations, loudspeakers' receipts and SMS states folded per village (D1).

Computed from the ledger on demand and kept until ledger or roster move. A person answerable for a
village confirms it; a township's post does not stand for its villages. *Played* needs the policy's share of
the loudspeakers in service; a gap where none of them works is told apart from the first second. *Silent* means
everybody was refused or unreachable and every device offline: not the same as unanswered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple, TypeVar

from gateway.directory.people import SqlDirectory
from gateway.model import Batch, Condition, Group, Kind, Notice, State, VillageState
from gateway.policy import Policy
from gateway.ports import AlertRow
from gateway.regions import Regions
from gateway.store import Store
from gateway.store.ledger import Confirmation, Counts

SMS = (State.SUBMITTED, State.DELIVERED, State.CONFIRMED)
UNREACHED = (State.FAILED, State.SKIPPED)


@dataclass(frozen=True, slots=True)
class Village:
    """One village's standing. `wanting` is set where calling goes on although something was heard."""

    code: str
    name: str
    state: VillageState
    wanting: bool
    speaker: Condition = Condition.WORKING
    """Of its best loudspeaker now, where the warning is for loudspeakers at all."""


@dataclass(slots=True)
class _Tally:
    """What is known of one village."""

    officials: int = 0
    reached: int = 0
    unreachable: int = 0
    devices: frozenset[int] = frozenset()  # in service
    played: set[int] = field(default_factory=set)  # of these, each once: an update may be a batch of its own
    answered: bool = False  # whether a device said anything at all


@dataclass(frozen=True, slots=True)
class Coverage:
    """All villages of an alert, in code order."""

    villages: tuple[Village, ...]
    confirmation_wanted: bool
    ends: bool = False
    """Whether it ends a warning: nobody is called because of it, so it has no gaps."""

    def count(self, state: VillageState) -> int:
        """Villages in a state."""
        return sum(village.state is state for village in self.villages)

    @property
    def gaps(self) -> tuple[Village, ...]:
        """Villages nobody has confirmed and no loudspeaker has played in: by name, to be called."""
        if self.ends:
            return ()
        open_states = (VillageState.GAP, VillageState.SILENT, VillageState.SMS_ONLY)
        return tuple(village for village in self.villages if village.state in open_states)

    @property
    def mute(self) -> tuple[Village, ...]:
        """Gaps that no loudspeaker will close, as far as is known: gaps from the first second."""
        return tuple(village for village in self.gaps if village.speaker.mute)

    @property
    def wanting(self) -> tuple[Village, ...]:
        """Villages where the ladder goes on: not confirmed though confirmation is wanted."""
        return tuple(village for village in self.villages if village.wanting)


T = TypeVar("T")

KEPT = 256  # coverages: more than warnings are ever in force at a time


class _Version(NamedTuple):
    """All a coverage depends on that can move: it is recomputed when any of this did."""

    counts: Counts
    confirmations: list[Confirmation]
    devices: dict[str, tuple[int, ...]]
    answerable: dict[str, tuple[int, ...]]
    speakers: dict[str, Condition]


class CoverageBook:
    """Coverage of alerts, recomputed when their ledger or the roster has moved."""

    def __init__(self, store: Store, directory: SqlDirectory, regions: Regions, policy: Callable[[], Policy]) -> None:
        self._store = store
        self._directory = directory
        self._regions = regions
        self._policy = policy
        self._name = cache(regions.path_name)
        self._kept: dict[str, tuple[_Version, Coverage]] = {}

    async def of(self, row: AlertRow) -> Coverage:
        """Return the coverage of one alert as the ledger has it now."""
        return (await self.of_all([row]))[0]

    async def of_all(self, rows: Sequence[AlertRow]) -> list[Coverage]:
        """Return the coverage of each alert; what they share, the roster above all, is read once for all."""
        alerts = [row.alert.id for row in rows]
        codes = {row.alert.id: self._codes(row) for row in rows}
        every = sorted(set[str]().union(*codes.values()))
        counts = await self._store.ledger.counts_of(alerts)
        confirmations = await self._store.ledger.confirmations_of(alerts)
        devices = await self._directory.devices(every)
        answerable = await self._directory.responsible(every)
        speakers = await self._store.devices.villages(every, self._policy().speakers)
        found = []
        for row in rows:
            own = codes[alert := row.alert.id]
            version = _Version(
                counts[alert],
                confirmations[alert],
                _of(devices, own),
                _of(answerable, own),
                _of(speakers, own) if self._speaks(row) else {},
            )
            found.append(await self._folded(row, own, version))
            await asyncio.sleep(0)  # a hundred of them in one go would hold up a red one
        return found

    async def _folded(self, row: AlertRow, codes: Sequence[str], version: _Version) -> Coverage:
        """Return what was folded from this very version before, or fold it."""
        kept = self._kept.get(row.alert.id)
        if kept and kept[0] == version:
            return kept[1]
        coverage = await self._fold(row, codes, version)
        if len(self._kept) >= KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[row.alert.id] = (version, coverage)
        return coverage

    def _codes(self, row: AlertRow) -> list[str]:
        """Return the villages that are to be reached; a drill without a step reaches nobody."""
        return self._regions.expand(row.plan.targets) if row.alert.actual or row.plan.steps else []

    def _speaks(self, row: AlertRow) -> bool:
        """Whether such an alert is for loudspeakers."""
        return bool(self._policy().plan_rows(row.alert.document, row.alert.level, Group.LOUDSPEAKERS))

    async def _fold(self, row: AlertRow, codes: Sequence[str], version: _Version) -> Coverage:
        tallies = {code: _Tally(devices=frozenset(version.devices.get(code, ()))) for code in codes}
        roads: dict[int, list[int]] = {}  # to an official, the states of all of them: a fallback's success counts
        async for batch, states in self._batches(row.alert.id):
            if batch.group is Group.OFFICIALS and batch.notice is not Notice.PARTIAL_ALL_CLEAR:
                for person, value in zip(batch.persons, states, strict=True):
                    roads.setdefault(person, []).append(value)
            elif batch.group is Group.LOUDSPEAKERS:
                _devices(tallies, batch, states)
        _officials(tallies, roads, version.answerable)
        confirmed = {village for _, villages, _, _ in version.confirmations for village in villages}
        wanted = self._policy().needs_confirmation(row.alert)
        share = self._policy().played_share
        villages = []
        for code, tally in tallies.items():
            state = VillageState.CONFIRMED if code in confirmed else _state(tally, share)
            wanting = wanted and state is not VillageState.CONFIRMED
            speaker = version.speakers.get(code, Condition.WORKING)
            villages.append(Village(code, self._name(code), state, wanting, speaker))
        return Coverage(tuple(villages), wanted, ends=row.alert.kind in (Kind.CANCEL, Kind.CORRECTION))

    async def _batches(self, alert: str) -> AsyncIterator[tuple[Batch, bytes]]:
        for group in (Group.OFFICIALS, Group.LOUDSPEAKERS):
            after = ""
            while page := await self._store.ledger.batches(alert, group.value, after, 200):
                for item in page:
                    yield item
                after = page[-1][0].id


def _of(found: Mapping[str, T], villages: Sequence[str]) -> dict[str, T]:
    return {village: found[village] for village in villages if village in found}


def _officials(tallies: dict[str, _Tally], roads: dict[int, list[int]], answerable: dict[str, tuple[int, ...]]) -> None:
    """Count an official for each of the villages it answers for: reached by any road, unreachable by every one."""
    for village, people in answerable.items():
        tally = tallies.get(village)
        if tally is None:
            continue
        found = [roads[person] for person in people if person in roads]
        tally.officials = len(found)
        tally.reached = sum(any(state in SMS for state in states) for states in found)
        tally.unreachable = sum(all(state in UNREACHED for state in states) for states in found)


def _devices(tallies: dict[str, _Tally], batch: Batch, states: bytes) -> None:
    for village, device, state in zip(batch.village_of(), batch.persons, states, strict=True):
        tally = tallies.get(village)
        if tally is None:
            continue
        if state == State.PLAYED and device in tally.devices:
            tally.played.add(device)
        tally.answered |= state in (State.DELIVERED, State.PLAYED, State.FAILED, State.SUBMITTED)


def _state(tally: _Tally, share: float) -> VillageState:
    if tally.devices and len(tally.played) >= max(1.0, share * len(tally.devices)):
        return VillageState.PLAYED
    if tally.reached:
        return VillageState.SMS_ONLY
    if _silent(tally):
        return VillageState.SILENT
    return VillageState.GAP


def _silent(tally: _Tally) -> bool:
    """Whether everybody is unreachable and no device has said anything."""
    return bool(tally.officials) and tally.unreachable == tally.officials and not tally.answered
