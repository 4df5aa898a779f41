"""Turn plan steps into batches: freeze each audience page by page.

One transaction writes some pages' batches and the step's cursor, so a restart continues behind it and
two planners cannot write the same page. While it is written, the next ones are read and decrypted in a
thread. `first` gives intake the opening batches that are stored with the alert itself.

Order: the most urgent lane that comes further is served alone, so that no resident's page is read before the
officials and loudspeakers are on their way, whichever process freezes those, and none of a blue warning while a red
one is frozen. Alerts of one lane take turns of `TURN` recipients: one of 7 townships does not wait for one of 200.

Memory: of `AHEAD` steps the next turn's pages are held, and `relay.ROOM` batches of each alert wait for the
publishers of a lane; an alert that has no room there is passed over. All else lies in the outbox.

In a cluster the process that accepted an alert plans its green steps, at its own priority and at once; the planner
process takes over those that are still open after `LEFT_S`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import NamedTuple

from gateway import log, metrics
from gateway.directory.place import covers
from gateway.errors import StoreDown
from gateway.gate import Gate
from gateway.model import NEVER_SENT, Alert, Batch, Group, Lane, Notice, Plan, State, Step
from gateway.ports import Clock, Directory, Page, StepWork
from gateway.relay import Relay
from gateway.road import NO_ROADS, Part, Roads, known_of, only, page_of
from gateway.standin import MISSED, ON_THE_WAY, StandIn
from gateway.store import Store

BATCH = 1000  # recipients of a full batch
FIRST = 50  # recipients of the opening batch, so that it leaves before the rest is resolved
TURN = 4 * BATCH  # recipients of one turn: frozen in one transaction, while the next ones are read ahead
AT_ONCE: Mapping[Lane, timedelta] = dict.fromkeys(Lane, timedelta())
LEFT_S = timedelta(seconds=1)  # until a green step counts as left by the process that accepted its alert
AHEAD = 8  # steps whose next pages may be held
FRESH = timedelta(seconds=2)  # how long; whoever has opted out or was erased meanwhile must not be told
IDLE_S = 0.25
LOOK_S = 0.02  # while another process freezes the officials and loudspeakers of an alert
ENDS = frozenset({Notice.ALL_CLEAR, Notice.PARTIAL_ALL_CLEAR, Notice.CORRECTION})
WORK = 64  # steps looked at in one go
PLANS = 1024  # plans kept in memory
LOOK = timedelta(seconds=5)  # between two looks at whom a fallback is to serve
LOOKED = "~"  # in place of a township: the cursor of a fallback that goes on looking

ALONE: Mapping[int, int] = {}  # a step that no other step's batches bear on

Cursor = tuple[str, str, int] | None


class Pages(NamedTuple):
    """Pages read in a row, and where the step continues behind them; None: nowhere."""

    pages: list[Page]
    after: Cursor


class _Seen(NamedTuple):
    """How many a pool has failed, by state; which of its roads were down then; and whether it may fail more."""

    missed: tuple[int, ...]
    down: tuple[str, ...]
    waits: bool


class _Ahead(NamedTuple):
    """A read under way: since when, behind which cursor, and what it will return."""

    since: datetime
    behind: Cursor
    reading: asyncio.Task[Pages]


NOTHING = _Seen((0,) * len(MISSED), (), waits=True)

_log = log.get("planner")


def cut(alert: str, step: Step, sequence: int, page: Page, slice_: int, road: str = "") -> Batch:
    """Freeze one page as a batch of the step's channel, or of a road of it."""
    return Batch(
        id=f"{alert}.{step.number}.{sequence}",
        alert=alert,
        step=step.number,
        channel=road or step.audience.channel,
        lane=step.lane,
        group=step.audience.group,
        notice=step.notice,
        language=step.audience.language,
        township=page.township,
        deadline=min(step.deadline, dict(step.lapses).get(page.township, step.deadline)),
        persons=page.persons,
        addresses=page.addresses,
        villages=tuple((village, len(list(run))) for village, run in groupby(page.villages)),
        places=dict(page.places),
        slice=slice_,
        every_s=step.every_s,
    )


def split(page: Page) -> list[Page]:
    """Return the page as pages that fill a batch each, the last one with what is left."""
    return [
        Page(
            page.township,
            page.persons[start : start + BATCH],
            page.addresses[start : start + BATCH],
            page.villages[start : start + BATCH],
            {at - start: codes for at, codes in page.places.items() if start <= at < start + BATCH},
            page.after,
            {at - start: known for at, known in page.carriers.items() if start <= at < start + BATCH},
        )
        for start in range(0, len(page.persons), BATCH)
    ]


class Planner:
    """Works through the steps of active plans.

    Args:
        store: plans, cursors and batches.
        directory: people and devices.
        relay: takes what has been frozen.
        slices: recipients of a slice by channel; 0 where hubs carry out what is written.
        clock: now.
        gate: what is more urgent and under way.
        on_commands: called once commands for devices have been written.
        lanes: those it plans, and how long after its start it leaves a step to others.
        roads: the pools among the channels, whose pages are cut by road.
    """

    def __init__(
        self,
        store: Store,
        directory: Directory,
        relay: Relay,
        slices: Mapping[str, int],
        clock: Clock,
        gate: Gate | None = None,
        on_commands: Callable[[], None] = lambda: None,
        lanes: Mapping[Lane, timedelta] = AT_ONCE,
        roads: Roads = NO_ROADS,
    ) -> None:
        self._outbox = store.outbox
        self._ledger = store.ledger
        self._directory = directory
        self._relay = relay
        self._slices = slices
        self._clock = clock
        self._gate = gate or Gate()
        self._on_commands = on_commands
        self._lanes = lanes
        self._roads = roads
        self._woken = asyncio.Event()
        self._plans: dict[str, Plan] = {}
        self._look: dict[tuple[str, int], datetime] = {}
        self._seen: dict[tuple[str, int], tuple[_Seen, _Seen]] = {}  # at the last two looks
        self._ahead: dict[tuple[str, int], _Ahead] = {}
        self._begun: list[StepWork] = []  # what is to come behind opening batches that were just written
        self._ahead_of_others = False  # whether the last round was theirs alone
        self._left: set[str] = set()  # alerts whose green steps are under way where they were accepted
        relay.when_room(self.wake)

    def wake(self) -> None:
        """Look for work now."""
        self._woken.set()

    async def first(self, alert: Alert, plan: Plan) -> tuple[list[Batch], dict[int, Cursor]]:
        """Opening batches of the steps that start at once in the green lane, and where each step continues."""
        now = self._clock.now()
        due = [one for one in plan.steps if one.lane is Lane.GREEN and one.start <= now and one.fallback_of is None]
        pages = await asyncio.gather(*(self._opening(step) for step in due))
        batches = [
            batch
            for step, page in zip(due, pages, strict=True)
            if page.persons
            for batch in self._cut(alert.id, step, 0, self._roads.parts(step.audience.channel, [page]))
        ]
        cursors = {step.number: page.after for step, page in zip(due, pages, strict=True)}
        # An end that finds nobody present still has those who have left: the planner looks for them.
        nobody = {step.number for step in due if step.notice in ENDS and cursors[step.number] is None}
        return batches, {number: after for number, after in cursors.items() if number not in nobody}

    def go_on(self, alert: str, plan: Plan, batches: Sequence[Batch], cursors: Mapping[int, Cursor]) -> None:
        """Go on, once woken, behind opening batches as they have just been stored: the store need not be asked."""
        self._know(alert, plan)
        written = Counter(batch.step for batch in batches)
        self._begun += [
            StepWork(alert, step.number, after, written[step.number], step.lane)
            for step in plan.steps
            if (after := cursors.get(step.number)) is not None
        ]
        del self._begun[:-WORK]  # a process that plans nothing leaves them to the others

    async def _opening(self, step: Step) -> Page:
        small = step.audience.group is not Group.LOUDSPEAKERS  # these are commanded all at once
        return await self._directory.page(step.audience, None, FIRST if small else BATCH)

    async def run(self) -> None:
        """Work for ever."""
        while True:
            try:
                busy = await self.round()
            except StoreDown:
                busy = False
                _log.warning("store_down")
            if not busy:
                self._woken.clear()
                try:
                    async with asyncio.timeout(LOOK_S if self._left else IDLE_S):
                        await self._woken.wait()
                except TimeoutError:
                    continue

    async def round(self) -> bool:
        """Give every due step of the most urgent lane that comes further one turn; False if no step comes further.

        A step that fails holds up no other; one whose publishers are behind is passed over, and so are steps that
        wait, however many: behind them may stand a red one.
        """
        await asyncio.sleep(0)  # whoever was offered a batch publishes it before the next page is read
        skip, busy = 0, False
        self._left.clear()
        begun, self._begun = self._begun, []
        served = any([await self._served(item) for item in begun])
        self._ahead_of_others = served and not self._ahead_of_others
        if self._ahead_of_others:
            return True  # but never twice in a row: however many are accepted, those before them take their turns
        while not busy and (found := await self._outbox.work(WORK, skip, self._lanes)):
            busy = await self._turns(found)
            skip += len(found)
        return busy

    async def _turns(self, found: Collection[StepWork]) -> bool:
        due = {(item.alert, item.step) for item in found}
        for ended in self._ahead.keys() - due:
            self._ahead.pop(ended).reading.cancel()
        busy: Lane | None = None
        for item in found:
            if busy is not None and item.lane is not busy:
                break
            if item.alert in self._left:
                continue
            if await self._served(item):
                busy = item.lane
        return busy is not None

    async def _served(self, item: StepWork) -> bool:
        """Give a step one turn; whether it came further."""
        try:
            return await self._turn(item)
        except StoreDown:
            raise
        except Exception:
            _log.exception("step_failed", alert=item.alert, step=item.step)
            metrics.alarms.labels("step_failed").inc()
            return False

    async def _turn(self, work: StepWork) -> bool:
        step = await self._step(work)
        if step.audience.channel not in self._slices:
            _log.error("channel_missing", channel=step.audience.channel, alert=work.alert)
            return False  # it stays open until the channel is back or the alert is over
        if step.start + self._lanes[step.lane] > self._clock.now():
            self._left.add(work.alert)
            return False
        if not self._relay.has_room(step.lane, work.alert):
            return False
        if step.fallback_of is not None:  # looks seldom; the gate's rare passes are for those that have something
            return await self._stand_in(work, step)
        if not self._gate.passes(step.lane):
            return False
        pages, after = await self._next(work, step)
        if after is None:
            pages += await self._departed(work.alert, step)
        else:
            self._read_ahead(work, step, after)
        await self._write(work, step, self._roads.parts(step.audience.channel, pages), after)
        return True

    async def _next(self, work: StepWork, step: Step) -> Pages:
        """Return the step's next pages: those read ahead, unless too old or not what comes next."""
        ahead = self._ahead.pop((work.alert, work.step), None)
        if ahead is not None:
            if ahead.behind == work.after and self._clock.now() - ahead.since <= FRESH:
                return await ahead.reading
            ahead.reading.cancel()
        return await self._pages(step, work.after)

    def _read_ahead(self, work: StepWork, step: Step, after: Cursor) -> None:
        if len(self._ahead) >= AHEAD:
            return  # it is read when its turn comes
        reading = asyncio.create_task(self._pages(step, after))
        reading.add_done_callback(lambda task: task.cancelled() or task.exception())  # told to whoever asks, if anybody
        self._ahead[work.alert, work.step] = _Ahead(self._clock.now(), after, reading)

    async def _pages(self, step: Step, after: Cursor) -> Pages:
        if step.audience.group is Group.AREA and step.notice in ENDS:
            return Pages([], None)  # it goes where the warning went, as it went: see `_departed`
        pages = await self._directory.pages(step.audience, after, TURN)
        return Pages([part for page in pages for part in split(page)], pages[-1].after)

    def _cut(self, alert: str, step: Step, sequence: int, parts: Iterable[Part]) -> list[Batch]:
        filled = [part for part in parts if part.page.persons]
        return [
            cut(alert, step, at, page, self._slices[channel], channel)
            for at, (channel, page) in enumerate(filled, sequence)
        ]

    async def _write(
        self, work: StepWork, step: Step, parts: Iterable[Part], after: Cursor, beside: Mapping[int, int] = ALONE
    ) -> bool:
        batches = self._cut(work.alert, step, work.sequence, parts)
        written = await self._outbox.add_page(work, batches, after, beside)
        if written:
            self._relay.offer(batches)
            if not all(batch.slice for batch in batches):
                self._on_commands()
        return written

    async def _stand_in(self, work: StepWork, step: Step) -> bool:
        """Serve whom the step this one stands in for has failed to reach so far; look again until nothing can change.

        Failures come late, by report: the step stays open while anybody of the first one is still on the way, or not
        even planned. What waits there for a carrier that is down is given up and served here. What another step that
        stands in for it has served since this one looked, by another planner or not, makes it look again.
        """
        now = self._clock.now()
        own = work.alert, work.step
        if self._look.get(own, now) > now and step.deadline > now:
            return False
        self._look[own] = now + LOOK
        steps = self._plans[work.alert].steps
        family = [one for one in steps if one.fallback_of == step.fallback_of and one is not step]
        # Before anything is looked at: what more stands there since is told by `add_page`; what has ended stays so.
        beside = await self._outbox.sequences(work.alert, [one.number for one in family]) if family else ALONE
        ended = [one.number for one in family if await self._outbox.planned(work.alert, one.number)]
        base = next(one for one in steps if one.number == step.fallback_of)
        pool = base.audience.channel
        down = frozenset(outage.channel for outage in await self._outbox.outages())
        same = pool == step.audience.channel and bool(self._roads.of(pool))
        if down and (not same or self._roads.spare(pool, down)):
            await self._give_up(work.alert, [one for one in (base, step, *family) if one.audience.channel == pool])
        planned = await self._outbox.planned(work.alert, base.number)
        seen = await self._failed(work.alert, step, down, planned=planned) if same else NOTHING
        last = self._seen.get(own, (NOTHING, NOTHING))
        if same and last == (seen, seen) and step.deadline > now:
            return False
        found = StandIn(step, steps, self._roads, ended)
        async for batch, states in self._frozen(work.alert, step.audience.group):
            found.add(batch, states)
        parts = found.parts(await self._known(found.missed), down)
        over = step.deadline <= now or (planned and not found.on_the_way)
        serves = any(part.page.persons for part in parts)
        if over or serves:
            written = await self._write(work, step, parts, None if over else (LOOKED, "", work.sequence), beside)
            if over or not written:
                self._look.pop(own, None)
                self._seen.pop(own, None)
                return True
        self._seen[own] = seen, last[0]
        return serves

    async def _give_up(self, alert: str, steps: Iterable[Step]) -> None:
        """Leave nobody to a carrier that is down, neither of a step nor of those that stand in for it."""
        for step in steps:
            while await self._outbox.give_up(alert, step.number):
                continue  # in parts, so that claims come in between

    async def _failed(self, alert: str, step: Step, down: Collection[str], *, planned: bool) -> _Seen:
        """Return what decides whom a step serves on its own pool: where it has not changed for two looks, none is due.

        Two, for what a carrier said of a number is known a moment after the failure itself.
        """
        states = Counter[State]()
        for (channel, group, state), number in (await self._ledger.counts(alert)).items():
            if group == step.audience.group.value and self._roads.same(step.audience.channel, channel):
                states[State[state.upper()]] += number
        missed = tuple(states[state] for state in sorted(MISSED))
        roads = self._roads.of(step.audience.channel) if any(missed) else ()
        return _Seen(
            missed, tuple(road for road in roads if road in down), not planned or any(map(states.get, ON_THE_WAY))
        )

    async def _known(self, people: Collection[int]) -> dict[int, str]:
        return await self._directory.carriers(sorted(people)) if people else {}

    async def _departed(self, alert: str, step: Step) -> list[Page]:
        """Return those who were told of an earlier version and have left the roster since, at their old addresses.

        An all-clear or correction goes to everybody the warning went to, once, whatever the roster says now.
        """
        if step.notice not in ENDS:
            return []
        row = await self._outbox.alert(alert)
        references = row.alert.references if row else ()
        audience = step.audience
        areas = {target.township for target in audience.targets}
        told: set[int] = set()
        pages: list[Page] = []
        for reference in references:
            for earlier in await self._outbox.find(reference.sender, reference.identifier):
                async for batch, states in self._frozen(earlier.alert.id, audience.group):
                    road = self._roads.same(audience.channel, batch.channel) and batch.language == audience.language
                    if not road or batch.township not in areas:
                        continue
                    here = {p for p, s in zip(batch.persons, states, strict=True) if s not in NEVER_SENT} - told
                    here -= await self._directory.present(audience, tuple(here))
                    if audience.group is Group.AREA:
                        here = {one for one in here if any(covers(target, one) for target in audience.targets)}
                    told |= here
                    known = await self._known(here if self._roads.of(audience.channel) else ())
                    if audience.group is Group.LOUDSPEAKERS:  # a device that is gone cannot say by which road
                        known = dict.fromkeys(here, batch.channel)
                    pages.append(known_of(only(page_of(batch), here), known))
        return pages

    async def _frozen(self, alert: str, group: Group) -> AsyncIterator[tuple[Batch, bytes]]:
        after = ""
        while found := await self._ledger.batches(alert, group.value, after, 50):
            for item in found:
                yield item
            after = found[-1][0].id

    async def _step(self, work: StepWork) -> Step:
        """Return the plan's step; a plan that has grown since (by a countersign) is read again."""
        for fresh in (False, True):
            if fresh or work.alert not in self._plans:
                row = await self._outbox.alert(work.alert)
                if row is None:
                    raise LookupError(f"no alert {work.alert}")
                self._know(work.alert, row.plan)
            for step in self._plans[work.alert].steps:
                if step.number == work.step:
                    return step
        raise LookupError(f"alert {work.alert} has no step {work.step}")

    def _know(self, alert: str, plan: Plan) -> None:
        if len(self._plans) >= PLANS:
            self._plans.clear()
        self._plans[alert] = plan
