"""What became of an alert: its status as data, and as a page to print.

Called by the API, the command line and the demo. States are counted apart and never added into one percentage
(D1); villages nobody has reached stand there by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal, Protocol, Self

from pydantic import BaseModel, Field

from gateway.coverage import CoverageBook, Village
from gateway.model import Condition, Group, VillageState
from gateway.naming import once
from gateway.policy.hazard import CHINA
from gateway.ports import AlertRow
from gateway.store import Store
from gateway.store.progress import Reach
from gateway.transaction import moment

EVERYWHERE = ("",)

_VILLAGES = {"confirmed": "叫应", "played": "已播出", "sms_only": "仅短信", "silent": "失联", "gap": "缺口"}
_LISTS = {
    "gaps": "缺口", "wanting": "已播出仍未叫应", "mute_planned": "发布时无可用喇叭",
    "deputised": "责任人不在岗，已通知副手", "away": "责任人不在岗，待叫副手",
}  # fmt: skip
_MARKS = {
    "mute": "无可用喇叭，先打电话", "mute_planned": "发布时无可用喇叭",
    "deputised": "不在岗，已通知副手", "away": "不在岗，待叫副手",
}  # fmt: skip
_GROUPS = {
    "officials": "责任人", "loudspeakers": "大喇叭", "residents": "居民", "subscribers": "订阅者", "area": "区域",
}  # fmt: skip
_JOBS = {
    "asked": "已申请", "running": "发送中", "done": "已完成", "stopped": "已停止", "refused": "被拒",
    "lost": "无此任务",
}  # fmt: skip
_STATES = {
    "queued": "待发", "submitted": "已提交", "unknown": "未知", "skipped": "未发", "superseded": "被取代",
    "expired": "过期", "failed": "失败", "delivered": "已送达", "played": "已播出", "confirmed": "已确认",
}  # fmt: skip


class Sources(Protocol):
    """What a status is read from."""

    @property
    def store(self) -> Store:
        """Counts and times of its ledger."""

    @property
    def coverage(self) -> CoverageBook:
        """What is known of each village."""


class Count(BaseModel):
    """Recipients of one channel and group that stand in one state. Submitted is not delivered."""

    channel: str
    group: str
    state: str
    recipients: int


class AreaReach(BaseModel):
    """Area requests of one channel in one state, and how many telephones their platform counts.

    Aggregate: nobody here knows whose they are, and no village is confirmed by them.
    """

    channel: str
    state: Literal["asked", "running", "done", "stopped", "refused", "lost"]
    requests: int
    requested: int = Field(description="Telephones the platform means to send to")
    submitted: int
    delivered: int

    @classmethod
    def of(cls, reach: Reach) -> Self:
        """As it is shown."""
        return cls.model_validate({**reach._asdict(), "state": reach.state.name.lower()})


class Timing(BaseModel):
    """How fast one channel served one group. `_s` values count seconds from acceptance.

    The last settled batch is the last submitted one once `unfinished` is 0; devices settle one by one, so theirs
    stays empty.
    """

    channel: str
    group: str
    batches: int
    unfinished: int
    first_submitted_at: datetime | None = None
    first_submitted_s: float | None = None
    last_settled_at: datetime | None = None
    last_settled_s: float | None = None


class VillageStanding(BaseModel):
    """A village by code and full name."""

    code: str
    name: str
    state: VillageState
    loudspeaker: Condition = Field(Condition.WORKING, description="Of its best one; none, offline and faulty are mute")


class Later(BaseModel):
    """What a group hears later than the others: after officials, or in the morning after the quiet hours."""

    group: str
    channel: str
    notice: str
    at: datetime


class Status(BaseModel):
    """Where an alert stands: what was sent, and which villages are reached."""

    alert: str
    event: str
    level: str
    kind: str
    status: str
    scope: str = Field("Public", description="CAP scope: Public, or Restricted: officials alone hear it")
    standing: str = Field(description="active, stopped, rejected, or the stage it waits at")
    reason: str = Field(description="Why it was stopped or rejected")
    route: str
    national_number: str | None = Field(
        description="On the national platform: pending until known, null if none is due"
    )
    held: list[str] = Field(description="What waits for a person, and why")
    halts: list[str] = Field([], description="Halted scopes that keep it, or a part of it, from leaving")
    accepted_at: datetime
    expires: datetime | None
    counts: list[Count]
    timings: list[Timing]
    later: list[Later] = Field([], description="Steps of the plan that begin after its acceptance, also those past")
    areas: list[AreaReach] = Field([], description="Area requests; their telephones are never added to recipients")
    villages: dict[VillageState, int] = Field(description="Villages by state; never to be added into one percentage")
    confirmation_wanted: bool
    gaps: list[VillageStanding] = Field(description="Nobody confirmed and no loudspeaker played")
    mute: list[VillageStanding] = Field(
        [],
        description="Gaps without a working loudspeaker: none in service, all offline, or all faulty; call them first",
    )
    mute_planned: list[VillageStanding] = Field(
        [],
        description="Villages whose loudspeakers did not work as it began, in the condition they were in then: nobody "
        "waited for them",
    )
    wanting: list[VillageStanding] = Field(description="Not confirmed though confirmation is wanted: calling goes on")
    away: list[VillageStanding] = Field(
        [], description="Not confirmed; an official has heard but is not at post: the deputy is to be called"
    )
    deputised: list[VillageStanding] = Field([], description="Of `away`, those whose deputy was sent the warning")


async def status(core: Sources, row: AlertRow, within: tuple[str, ...] = EVERYWHERE) -> Status:
    """Return the status of one alert; only villages under the code prefixes `within` are named and counted."""
    alert, ledger = row.alert.id, core.store.ledger
    coverage = await core.coverage.of(row)
    villages = [village for village in coverage.villages if village.code.startswith(within)]
    counts = await ledger.counts(alert)
    planned = dict(row.plan.mute)
    absent = await core.store.replies.away(alert)
    away = {village for one in absent for village in one.villages}
    deputised = {village for one in absent if one.deputy for village in one.villages}
    unconfirmed = [one for one in villages if one.state is not VillageState.CONFIRMED]
    return Status(
        alert=alert,
        event=row.alert.event,
        level=row.alert.level.name.lower(),
        kind=row.alert.kind,
        status=row.alert.status,
        scope=row.alert.scope,
        standing=row.standing,
        reason=row.reason,
        route=row.plan.route,
        national_number=row.national_number,
        held=list(row.plan.held),
        accepted_at=row.accepted_at,
        expires=row.alert.expires,
        counts=[
            Count(channel=channel, group=group, state=state.lower(), recipients=number)
            for (channel, group, state), number in sorted(counts.items())
            if group != Group.AREA
        ],
        timings=[_timing(row, *found) for found in sorted(await ledger.timings(alert), key=lambda one: one[:2])],
        later=[
            Later(group=step.audience.group, channel=step.audience.channel, notice=step.notice, at=step.start)
            for step in row.plan.steps
            if step.fallback_of is None and step.start > row.accepted_at
        ],
        areas=[AreaReach.of(one) for one in await core.store.progress.reach(alert)],
        villages={state: sum(village.state is state for village in villages) for state in VillageState},
        confirmation_wanted=coverage.confirmation_wanted,
        gaps=[_place(village) for village in coverage.gaps if village.code.startswith(within)],
        mute=[_place(village) for village in coverage.mute if village.code.startswith(within)],
        mute_planned=[_place(village, planned[village.code]) for village in villages if village.code in planned],
        wanting=[_place(village) for village in coverage.wanting if village.code.startswith(within)],
        away=[_place(one) for one in unconfirmed if one.code in away],
        deputised=[_place(one) for one in unconfirmed if one.code in deputised],
    )


def _place(village: Village, loudspeaker: Condition | None = None) -> VillageStanding:
    found = village.speaker if loudspeaker is None else loudspeaker
    return VillageStanding(code=village.code, name=village.name, state=village.state, loudspeaker=found)


def _timing(
    row: AlertRow, channel: str, group: str, batches: int, unfinished: int, first: int | None, last: int | None
) -> Timing:
    def after_s(at: datetime | None) -> float | None:
        return (at - row.accepted_at).total_seconds() if at else None

    first_at, last_at = (moment(at) if at is not None else None for at in (first, last))
    return Timing(
        channel=channel,
        group=group,
        batches=batches,
        unfinished=unfinished,
        first_submitted_at=first_at,
        first_submitted_s=after_s(first_at),
        last_settled_at=last_at,
        last_settled_s=after_s(last_at),
    )


def printable(status_: Status) -> str:
    """Return the status as a page of Chinese text, times of day in China."""
    return "\n".join(_lines(status_)) + "\n"


def _lines(found: Status) -> Iterator[str]:
    total = sum(found.villages.values())
    yield f"预警 {found.alert}  {found.event} {found.level} {found.kind} {found.status} {found.scope}"
    yield f"状态 {found.standing} {found.reason}".rstrip()
    if found.national_number is not None:
        yield f"国突编号  {'待匹配' if found.national_number == 'pending' else found.national_number}"
    yield f"受理 {_clock(found.accepted_at)}  有效至 {_clock(found.expires)}  通道 {found.route}"
    yield from (f"待人处理  {text}" for text in found.held)
    for step in found.later:
        yield f"{_GROUPS.get(step.group, step.group)}  {step.channel}  {step.notice}  自 {_clock(step.at)} 起"
    yield f"行政村共 {total} 个: " + "，".join(
        f"{_VILLAGES[state]} {number}" for state, number in found.villages.items()
    )
    yield from _named(found)
    for count in found.counts:
        yield (
            f"{_GROUPS.get(count.group, count.group)}  {count.channel}  "
            f"{_STATES.get(count.state, count.state)} {count.recipients}"
        )
    for area in found.areas:
        yield (
            f"区域短信  {area.channel}  {_JOBS[area.state]} {area.requests} 个请求  "
            f"目标 {area.requested} 部  已提交 {area.submitted} 部  已送达 {area.delivered} 部"
        )
    for timing in found.timings:
        yield (
            f"{_GROUPS.get(timing.group, timing.group)}  {timing.channel}  首条 {_seconds(timing.first_submitted_s)}"
            f"  末批 {_seconds(timing.last_settled_s)}  未完成批次 {timing.unfinished}/{timing.batches}"
        )


def _named(found: Status) -> Iterator[str]:
    """Yield each village once, with what is known of it."""
    listed: dict[str, list[VillageStanding]] = {name: getattr(found, name) for name in {**_LISTS, **_MARKS}}
    places = {one.code: one for some in listed.values() for one in some}
    for name, villages in once({name: [one.code for one in some] for name, some in listed.items()}):
        yield f"{_LISTS[name]} {len(villages)} 个村:"
        for code, marks in villages:
            said = "；".join([_VILLAGES[places[code].state], *map(_MARKS.__getitem__, marks)])
            yield f"  {places[code].name} ({said})"


def _clock(at: datetime | None) -> str:
    return at.astimezone(CHINA).strftime("%Y-%m-%d %H:%M:%S") if at else "—"


def _seconds(value: float | None) -> str:
    return "—" if value is None else f"{value:.2f} 秒"
