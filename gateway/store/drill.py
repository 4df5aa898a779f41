"""Planned drills: one row each, moved on only from the stage it was seen at, with its timer and its audit record.

Whether a drill that has begun still runs is told by its alert: it ends by its time, by a person, or by a real warning.
Self-tests have no alert; they are orders to devices under the drill's id, and over when their time is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from gateway.database import Database
from gateway.model import Document, Group, Level, Record, Target
from gateway.ports import Clock
from gateway.standing import REAL, Standing
from gateway.store import audit, order
from gateway.store.change import note
from gateway.store.obligation import open_
from gateway.store.timer import drop_timer, set_timer
from gateway.transaction import Row, Tx, micros, moment

TIMER = "drill"
NOTHING: Mapping[str, str] = MappingProxyType({})
COLUMNS = (
    "d.id, d.series, d.issuer, d.kind, d.areas, d.audiences, d.starts_at, d.ends_at, d.notice_at, d.document,"
    " d.event_code, d.event, d.level, d.notice, d.rule, d.standing, d.reason, d.planner, d.planner_role, d.approver,"
    " d.approver_role, d.alert, d.announcement, d.made_at, a.standing, a.reason, a.ended_at"
)
FROM = "FROM drill d LEFT JOIN alert a ON a.id = d.alert AND d.alert <> ''"


class Stage(StrEnum):
    """Where a drill stands."""

    PLANNED = "planned"  # nobody has approved it yet
    APPROVED = "approved"
    ANNOUNCED = "announced"  # people have been told, or need not be
    RUNNING = "running"
    OVER = "over"  # it was held to its end
    STOPPED = "stopped"  # a real warning, or a person, broke it off
    REFUSED = "refused"  # the gateway did not begin it; `reason` says why
    CANCELLED = "cancelled"  # a person gave it up before it began


AHEAD = frozenset({Stage.PLANNED, Stage.APPROVED, Stage.ANNOUNCED})
HELD = frozenset({Stage.RUNNING, Stage.OVER, Stage.STOPPED})


@dataclass(frozen=True, slots=True)
class Drill:
    """One drill. `planner` and `approver` are "issuer/name", as in the audit chain."""

    id: str
    series: str
    issuer: str
    kind: str
    areas: tuple[str, ...]
    groups: tuple[Group, ...]
    starts_at: datetime
    ends_at: datetime
    notice_at: datetime
    document: Document
    event_code: str
    event: str
    level: Level
    notice: str
    rule: str
    planner: str
    planner_role: str
    made_at: datetime
    stage: Stage = Stage.PLANNED
    reason: str = ""
    approver: str = ""
    approver_role: str = ""
    alert: str = ""
    announcement: str = ""
    ended_at: datetime | None = None

    def within(self, areas: Sequence[str]) -> bool:
        """Whether it touches a place under one of these codes, or around it."""
        return any(own.startswith(area) or area.startswith(own) for own in self.areas for area in areas)


class Tests(NamedTuple):
    """Devices that are ordered to test themselves by then. `bar` raises where they may not (`store.meeting`)."""

    devices: Sequence[int]
    values: Mapping[str, object]
    until: datetime
    bar: Callable[[Tx], None]


class SqlDrills:
    """The facet for drills."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def plan(self, drill: Drill, record: Record) -> None:
        """Store a new one; its timer rings when people are to be told."""

        def operation(tx: Tx) -> None:
            _add(tx, drill)
            audit.append(tx, [record])

        await self._database.write(operation, decides=True)

    async def move(
        self,
        drill: str,
        seen: Collection[Stage],
        to: Stage,
        record: Record,
        *,
        due: datetime | None = None,
        then: Drill | None = None,
        values: Mapping[str, str] = NOTHING,
        tests: Tests | None = None,
        owed: str = "",
    ) -> bool:
        """Move one on from a stage it was seen at, with further `values`; False if it is elsewhere by now.

        `due` is when its timer rings next. `then` is the next of a series, stored with it. `tests` are orders
        to devices, under the drill's id; what their `bar` raises undoes everything. `owed` is the obligation it opens.
        """
        names = "".join(f", {name} = :{name}" for name in values)

        def operation(tx: Tx) -> bool:
            if tests is not None:
                tests.bar(tx)
            if not tx.run(
                f"UPDATE drill SET standing = :to{names} WHERE id = :id AND standing IN :*seen",
                id=drill, to=to, seen=sorted(seen), **values,
            ):  # fmt: skip
                return False
            if due is not None:
                set_timer(tx, TIMER, drill, due)
            elif to not in AHEAD:
                drop_timer(tx, TIMER, drill)
            if then is not None:
                _add(tx, then)
            if tests is None:
                audit.append(tx, [record])
            else:
                order.add(tx, drill, tests.devices, "self_test", order.body_of(tests.values), tests.until, record)
            if owed:
                open_(tx, drill, {owed: record.at}, record.at)
            if to is Stage.STOPPED:
                _withdraw(tx, drill, "cancelled", micros(record.at))
            note(tx, "drill", "", drill)
            return True

        return await self._database.write(operation, decides=True)

    async def get(self, drill: str) -> Drill | None:
        """One drill."""
        return next(iter(await self._rows("WHERE d.id = :id", id=drill)), None)

    async def all(self, limit: int = 500) -> list[Drill]:
        """Drills, the latest to begin first."""
        return await self._rows("ORDER BY d.starts_at DESC, d.id DESC LIMIT :limit", limit=limit)

    async def held_since(self, since: datetime) -> list[Drill]:
        """Drills that have begun since then."""
        found = await self._rows(
            "WHERE d.starts_at >= :since AND d.standing IN ('running', 'stopped')", since=micros(since)
        )
        return [one for one in found if one.stage in HELD]

    async def tested(self, drill: str) -> list[tuple[str, str, str]]:
        """(village, state, code) of each loudspeaker's self-test that a drill has ordered."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT d.village, o.state, o.code FROM device_order o JOIN device d ON d.id = o.device"
                " WHERE o.id LIKE :id ORDER BY o.device",
                id=f"{drill}.%",
            )
        )
        return [(village, state, code) for village, state, code in rows]

    async def facts(self, alert: str) -> list[tuple[str, int, int, str, datetime]]:
        """(batch, position, state, code, at) of everything the loudspeakers of a drill have told, in order."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT f.batch, f.position, f.state, f.code, f.at FROM fact f JOIN batch b ON b.id = f.batch"
                " WHERE b.alert = :alert AND b.audience = 'loudspeakers' ORDER BY f.batch, f.position, f.at, f.state",
                alert=alert,
            )
        )
        return [(batch, position, state, code, moment(at)) for batch, position, state, code, at in rows]

    async def _rows(self, tail: str, **values: object) -> list[Drill]:
        now = self._clock.now()
        rows = await self._database.read(lambda tx: tx.all(f"SELECT {COLUMNS} {FROM} {tail}", **values))
        return [_drill(row, now) for row in rows]


def running_tests(tx: Tx, now: datetime) -> Callable[[], list[Row]]:
    """Ask for the drills under way that are self-tests, with no message of their own: (id, areas)."""
    return tx.ask(
        "SELECT id, areas FROM drill WHERE standing = 'running' AND alert = '' AND ends_at > :at ORDER BY id",
        at=micros(now),
    )


def stop_tests(tx: Tx, running: Iterable[Row], targets: Sequence[Target], record: Record) -> None:
    """Withdraw the self-tests of a place for which a real warning has just come: drills, and tones somebody ordered."""
    at = micros(record.at)
    order.withdraw_tones(tx, targets, REAL, at)
    codes = [code for target in targets for code in (target.villages or (target.township,))]
    for id_, areas in running:
        if not any(code.startswith(area) or area.startswith(code) for area in json.loads(areas) for code in codes):
            continue
        sql = "UPDATE drill SET standing = 'stopped', reason = :real WHERE id = :id AND standing = 'running'"
        if not tx.run(sql, id=id_, real=REAL):
            continue  # by another one that was accepted with it
        _withdraw(tx, id_, REAL, at)
        audit.append(tx, [replace(record, subject=id_)])
        note(tx, "drill", "", id_)


def _withdraw(tx: Tx, drill: str, code: str, at: int) -> None:
    tx.send(
        "UPDATE device_order SET state = 'superseded', code = :code, settled_at = :at"
        " WHERE id LIKE :orders AND state = 'open'",
        code=code, at=at, orders=f"{drill}.%",
    )  # fmt: skip


def _add(tx: Tx, drill: Drill) -> None:
    tx.run(
        "INSERT INTO drill (id, series, issuer, kind, areas, audiences, starts_at, ends_at, notice_at, document,"
        " event_code, event, level, notice, rule, standing, planner, planner_role, approver, approver_role, made_at)"
        " VALUES (:id, :series, :issuer, :kind, :areas, :groups, :starts, :ends, :notice_at, :document, :event_code,"
        " :event, :level, :notice, :rule, :standing, :planner, :planner_role, :approver, :approver_role, :made)",
        **{
            name: getattr(drill, name)
            for name in (
                "id", "series", "issuer", "kind", "document", "event_code", "event", "notice", "rule", "planner",
                "planner_role", "approver", "approver_role",
            )
        },
        areas=json.dumps(drill.areas),
        groups=json.dumps(drill.groups),
        starts=micros(drill.starts_at),
        ends=micros(drill.ends_at),
        notice_at=micros(drill.notice_at),
        level=int(drill.level),
        standing=drill.stage,
        made=micros(drill.made_at),
    )  # fmt: skip
    set_timer(tx, TIMER, drill.id, drill.notice_at)
    note(tx, "drill", "", drill.id)


def _drill(row: Row, now: datetime) -> Drill:
    (
        id_, series, issuer, kind, areas, groups, starts, ends, notice_at, document, code, event, level, notice, rule,
        standing, reason, planner, planner_role, approver, approver_role, alert, told, made, at, why, ended,
    ) = row  # fmt: skip
    drill = Drill(
        id_, series, issuer, kind, tuple(json.loads(areas)), tuple(map(Group, json.loads(groups))), moment(starts),
        moment(ends), moment(notice_at), Document(document), code, event, Level(level), notice, rule, planner,
        planner_role, moment(made), Stage(standing), reason, approver, approver_role, alert, told,
        moment(ended) if ended is not None else None,
    )  # fmt: skip
    if drill.stage is not Stage.RUNNING:
        return drill
    if at == Standing.STOPPED and why != "expired":
        return replace(drill, stage=Stage.STOPPED, reason=REAL if why == REAL else str(why))
    return replace(drill, stage=Stage.OVER) if at == Standing.STOPPED or drill.ends_at <= now else drill
