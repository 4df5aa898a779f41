"""Turn plan steps into batches: freeze each audience page by page.

One transaction writes a page's batches and the step's cursor, so a restart continues behind it and
two planners cannot write the same page. Officials and loudspeakers come first (lane order); alerts of
one lane take turns. `first` gives intake the opening batches that are stored with the alert itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import groupby

from gateway import log
from gateway.errors import StoreDown
from gateway.model import Alert, Batch, Lane, Plan, Step
from gateway.ports import Clock, Directory, Outbox, Page, StepWork
from gateway.relay import Relay

BATCH = 1000  # recipients of a full batch
FIRST = 50  # recipients of the opening batch, so that it leaves before the rest is resolved
PAGES = 4  # pages written in one transaction
IDLE_S = 0.25

Cursor = tuple[str, str, int] | None
_log = log.get("planner")


def cut(alert: str, step: Step, sequence: int, page: Page, slice_: int) -> Batch:
    """Freeze one page as a batch."""
    return Batch(
        id=f"{alert}.{step.number}.{sequence}",
        alert=alert,
        step=step.number,
        channel=step.audience.channel,
        lane=step.lane,
        group=step.audience.group,
        notice=step.notice,
        language=step.audience.language,
        township=page.township,
        deadline=step.deadline,
        persons=page.persons,
        addresses=page.addresses,
        villages=tuple((village, len(list(run))) for village, run in groupby(page.villages)),
        places=dict(page.places),
        slice=slice_,
    )


class Planner:
    """Works through the steps of active plans."""

    def __init__(
        self, outbox: Outbox, directory: Directory, relay: Relay, slices: Mapping[str, int], clock: Clock
    ) -> None:
        self._outbox = outbox
        self._directory = directory
        self._relay = relay
        self._slices = slices
        self._clock = clock
        self._woken = asyncio.Event()
        self._plans: dict[str, Plan] = {}

    def wake(self) -> None:
        """Look for work now."""
        self._woken.set()

    async def first(self, alert: Alert, plan: Plan) -> tuple[list[Batch], dict[int, Cursor]]:
        """Opening batches of the steps that start at once in the green lane, and where each step continues."""
        now = self._clock.now()
        due = [step for step in plan.steps if step.lane is Lane.GREEN and step.start <= now]
        pages = await asyncio.gather(*(self._page(step, None, first=True) for step in due))
        batches = [
            cut(alert.id, step, 0, page, self._slices[step.audience.channel])
            for step, page in zip(due, pages, strict=True)
            if page.persons
        ]
        return batches, {step.number: page.after for step, page in zip(due, pages, strict=True)}

    async def _page(self, step: Step, after: Cursor, *, first: bool = False) -> Page:
        small = first and self._slices[step.audience.channel] > 0
        return await self._directory.page(step.audience, after, FIRST if small else BATCH)

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
                    await asyncio.wait_for(self._woken.wait(), IDLE_S)
                except TimeoutError:
                    continue

    async def round(self) -> bool:
        """Give every due step one turn; False if there was nothing to do."""
        work = await self._outbox.work(limit=16)
        for item in work:
            await self._turn(item)
        return bool(work)

    async def _turn(self, work: StepWork) -> None:
        plan = await self._plan(work.alert)
        step = next(step for step in plan.steps if step.number == work.step)
        await self._relay.room(step.lane)
        batches: list[Batch] = []
        after = work.after
        for _ in range(PAGES):
            page = await self._page(step, after)
            if page.persons:
                sequence = work.sequence + len(batches)
                batches.append(cut(work.alert, step, sequence, page, self._slices[step.audience.channel]))
            after = page.after
            if after is None:
                break
        if await self._outbox.add_page(work, batches, after):
            self._relay.offer(batches)

    async def _plan(self, alert: str) -> Plan:
        if alert not in self._plans:
            row = await self._outbox.alert(alert)
            if row is None:
                raise LookupError(f"no alert {alert}")
            if len(self._plans) > 64:
                self._plans.clear()
            self._plans[alert] = row.plan
        return self._plans[alert]
