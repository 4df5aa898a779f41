"""What came of a drill, village by village: the training ledger (培训台账) of D19. Called by the API.

Loudspeakers: commanded, received, played, played plausibly, failed and why, silent. Officials: told, answered, and how
long it took. Folded from the same receipts as a real warning's coverage; a self-test's from the orders' receipts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel, Field

from gateway.directory.people import SqlDirectory
from gateway.drill import TESTS
from gateway.model import Batch, Group, State
from gateway.ports import AlertRow
from gateway.regions import Regions
from gateway.standing import REAL
from gateway.store import Store
from gateway.store.drill import Drill, Stage
from gateway.transaction import moment

UNHEARD = frozenset({"implausible", "not_heard"})
"""Codes of a broadcast that was reported as played and cannot have been heard."""
REFUSED = {
    "late": "the gateway stood still at its hour and came back too late: people had been told an hour, and go home",
    "not_approved": "nobody approved it before people had to be told",
    REAL: "a real orange, red or evacuation covered its area",
    "person_gone": "who planned or approved it holds that post no more",
    "no_loudspeakers": "no loudspeaker of its area was in service",
}
PAGE = 200


class Sources(Protocol):
    """What a report is made from."""

    store: Store
    directory: SqlDirectory
    regions: Regions


class Line(BaseModel):
    """One village, or a township's sum. Never to be added into one percentage."""

    code: str
    name: str
    commanded: int = Field(0, description="Loudspeakers that were to play, or to test themselves")
    received: int = 0
    played: int = Field(0, description="Said that they finished")
    plausible: int = Field(0, description="Of these, heard for as long as the announcement lasts")
    failed: int = 0
    codes: dict[str, int] = Field(default_factory=dict, description="Why they failed, in the device's own codes")
    silent: int = Field(0, description="Said nothing at all")
    officials: int = Field(0, description="Officials who were told; a township's own are in its sum alone")
    answered: int = 0
    first_answer_s: float | None = Field(None, description="Seconds from the start to the first answer")
    last_answer_s: float | None = None

    def add(self, other: Line) -> None:
        """Add a village's loudspeakers."""
        for name in ("commanded", "received", "played", "plausible", "failed", "silent"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.codes = dict(Counter(self.codes) + Counter(other.codes))


class DrillReport(BaseModel):
    """A drill, its townships and its villages, in code order."""

    drill: str
    kind: str
    stage: str
    reason: str
    explained: str = Field("", description="The reason in words, where the gateway did not begin it")
    starts_at: datetime
    ended_at: datetime | None
    planner: str
    approver: str
    announcement: str = Field(description="Id of the message that told people beforehand")
    alert: str = Field(description="Id of the drill's own message; empty for a self-test")
    total: Line
    townships: list[Line]
    villages: list[Line]


async def report(core: Sources, drill: Drill, within: tuple[str, ...]) -> DrillReport:
    """Return what came of a drill; only villages under the code prefixes `within` are named and counted."""
    lines: dict[str, Line] = {}
    towns: dict[str, Line] = {}
    row = await core.store.outbox.alert(drill.alert) if drill.alert else None
    if drill.kind in TESTS:
        await _tests(core, drill, lines)
    elif row is not None:
        await _broadcast(core, row, lines)
        await _answers(core, row, lines, towns)
    total = Line(code="", name="合计")
    villages = [lines[code] for code in sorted(lines) if code.startswith(within)]
    for village in villages:
        _line(core, towns, village.code[:9]).add(village)
    townships = [towns[code] for code in sorted(towns) if code.startswith(tuple(one[:9] for one in within))]
    for township in townships:
        total.add(township)
        total.officials += township.officials
        total.answered += township.answered
    total.first_answer_s = min(
        (one.first_answer_s for one in townships if one.first_answer_s is not None), default=None
    )
    total.last_answer_s = max((one.last_answer_s for one in townships if one.last_answer_s is not None), default=None)
    return DrillReport(
        drill=drill.id, kind=drill.kind, stage=drill.stage, reason=drill.reason,
        explained=REFUSED.get(drill.reason, "") if drill.stage is Stage.REFUSED else "", starts_at=drill.starts_at,
        ended_at=drill.ended_at, planner=drill.planner, approver=drill.approver, announcement=drill.announcement,
        alert=drill.alert, total=total, townships=townships, villages=villages,
    )  # fmt: skip


def _line(core: Sources, lines: dict[str, Line], code: str) -> Line:
    return lines.setdefault(code, Line(code=code, name=core.regions.path_name(code)))


async def _broadcast(core: Sources, row: AlertRow, lines: dict[str, Line]) -> None:
    told: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for of, position, state, code, _ in await core.store.drills.facts(row.alert.id):
        told.setdefault((of, position), []).append((state, code))
    for batch, states in await _batches(core, row, Group.LOUDSPEAKERS):
        for position, (village, value) in enumerate(zip(batch.village_of(), states, strict=True)):
            _device(_line(core, lines, village or batch.township), State(value), told.get((batch.id, position), []))


async def _batches(core: Sources, row: AlertRow, group: Group) -> list[tuple[Batch, bytes]]:
    found: list[tuple[Batch, bytes]] = []
    after = ""
    while page := await core.store.ledger.batches(row.alert.id, group.value, after, PAGE):
        found += page
        after = page[-1][0].id
    return found


def _device(line: Line, state: State, told: Iterable[tuple[int, str]]) -> None:
    """Count one loudspeaker by where it stands and what it told on the way."""
    facts = list(told)
    line.commanded += 1
    if not facts and state not in (State.FAILED, State.DELIVERED, State.PLAYED):
        line.silent += 1
        return
    heard = state is State.PLAYED
    unheard = [code for _, code in facts if code in UNHEARD]
    line.received += any(one >= State.DELIVERED for one, _ in facts) or heard or bool(unheard)
    line.played += heard or bool(unheard)
    line.plausible += heard
    if state is State.FAILED or (unheard and not heard):
        line.failed += 1
        why = unheard or [code for one, code in facts if one == State.FAILED] or ["failed"]
        line.codes[why[-1]] = line.codes.get(why[-1], 0) + 1


async def _tests(core: Sources, drill: Drill, lines: dict[str, Line]) -> None:
    for village, state, code in await core.store.drills.tested(drill.id):
        line = _line(core, lines, village)
        line.commanded += 1
        answered = state in ("done", "failed")
        line.received += answered
        line.played += state == "done"
        line.plausible += state == "done"
        line.silent += not answered
        if state == "failed":
            line.failed += 1
            line.codes[code or "failed"] = line.codes.get(code or "failed", 0) + 1


async def _answers(core: Sources, row: AlertRow, lines: dict[str, Line], towns: dict[str, Line]) -> None:
    """Count officials: at the villages they answer for, and once in the township they were told in."""
    after_s: dict[int, float] = {}
    for person, _, _, at in await core.store.ledger.confirmations(row.alert.id):
        seconds = (moment(at) - row.alert.sent).total_seconds()
        after_s[person] = min(seconds, after_s.get(person, seconds))
    told: dict[str, set[int]] = {}
    for batch, _ in await _batches(core, row, Group.OFFICIALS):
        told.setdefault(batch.township, set()).update(batch.persons)
    everybody = set().union(*told.values())
    for township, people in told.items():
        _officials(_line(core, towns, township), people, after_s)
    codes = core.regions.expand(row.plan.targets)
    for village, answerable in (await core.directory.responsible(codes)).items():
        if own := everybody.intersection(answerable):
            _officials(_line(core, lines, village), own, after_s)


def _officials(line: Line, people: set[int], after_s: dict[int, float]) -> None:
    times = sorted(after_s[person] for person in people if person in after_s)
    line.officials, line.answered = len(people), len(times)
    if times:
        line.first_answer_s, line.last_answer_s = times[0], times[-1]
