"""Planned drills (演练): shapes, handlers, routes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from gateway.api.access import areas_of
from gateway.api.endpoint import ID, Answer, Call, Endpoint
from gateway.api.shape import Form, ReasonIn
from gateway.drill import GROUPS, DrillKind, Exercise
from gateway.drill_report import DrillReport, report
from gateway.errors import Refused
from gateway.model import Document, Group, Level
from gateway.policy.table import WRITERS
from gateway.report import EVERYWHERE
from gateway.store.drill import Drill

Code = Annotated[str, StringConstraints(pattern=r"^(\d{6}|\d{9}|\d{12})$")]
HazardCode = Annotated[str, StringConstraints(pattern=r"^1[1-4][A-Z][0-9]{2}$")]
LISTED = 500


class DrillIn(Form):
    """What is to be held. People are told some time before (policy); a second person approves it."""

    kind: DrillKind = DrillKind.BROADCAST
    areas: list[Code] = Field(min_length=1, max_length=400, examples=[["411726209"]])
    groups: list[Literal["officials", "loudspeakers"]] | None = Field(None, description="Default: all of the kind's")
    starts_at: AwareDatetime = Field(examples=["2026-07-25T10:00:00+08:00"])
    lasts_min: int = Field(30, ge=1, le=720)
    document: Literal["warning", "joint_risk", "response", "evacuation", "return", "nowcast"] = "warning"
    hazard: HazardCode = Field("11B03", description="The hazard that is simulated: a code of hazards.csv")
    level: Literal["unknown", "blue", "yellow", "orange", "red"] = "red"
    notice: Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)] = Field(
        "", description="What people are told beside when and where", examples=["听到大喇叭请勿惊慌。"]
    )
    rule: Annotated[str, StringConstraints(max_length=60)] = Field(
        "", description="RFC 5545: FREQ=WEEKLY or MONTHLY;INTERVAL=n;UNTIL=yyyymmdd",
        examples=["FREQ=MONTHLY;UNTIL=20261231"],
    )  # fmt: skip

    def exercise(self, names: dict[str, str]) -> Exercise:
        """Return it as it is planned; `names` of the hazards by code.

        Raises:
            Refused: 422 no such hazard.
        """
        if self.hazard not in names:
            raise Refused(422, "unknown_hazard", "name a hazard by its code in hazards.csv")
        groups = tuple(map(Group, self.groups)) if self.groups is not None else tuple(sorted(GROUPS[self.kind]))
        return Exercise(
            self.kind, tuple(dict.fromkeys(self.areas)), groups, self.starts_at,
            self.starts_at + timedelta(minutes=self.lasts_min), self.hazard, names[self.hazard],
            Level[self.level.upper()], Document(self.document), self.notice, self.rule,
        )  # fmt: skip


class DrillOut(BaseModel):
    """One drill and where it stands."""

    id: str
    series: str = Field(description="The first of those that repeat")
    kind: DrillKind
    stage: str = Field(description="planned, approved, announced, running, over, stopped, refused or cancelled")
    reason: str = Field(description="Why it was refused, stopped or cancelled")
    issuer: str
    areas: list[str]
    groups: list[Group]
    starts_at: datetime
    ends_at: datetime
    notice_at: datetime = Field(description="When people are told")
    document: str
    hazard: str
    event: str
    level: str
    notice: str
    rule: str
    planner: str
    approver: str
    announcement: str
    alert: str

    @classmethod
    def of(cls, drill: Drill) -> Self:
        """As it is shown."""
        names = cls.model_fields.keys() - {"hazard", "level"}
        values = {name: getattr(drill, name) for name in names}
        return cls.model_validate(values | {"hazard": drill.event_code, "level": drill.level.name.lower()})


class DrillsOut(BaseModel):
    """Drills, the latest to begin first."""

    drills: list[DrillOut]


async def plan(call: Call) -> Answer:
    """Plan one."""
    core = call.core
    names = {code: hazard.zh for code, hazard in core.policy.tables.hazard_by_code.items()}
    return 201, DrillOut.of(await core.drills.plan(call.form(DrillIn).exercise(names), call.principal))


async def approve(call: Call) -> Answer:
    """Approve one."""
    return 200, DrillOut.of(await call.core.drills.approve((await _seen(call)).id, call.principal))


async def cancel(call: Call) -> Answer:
    """Give one up."""
    reason = call.form(ReasonIn).reason
    return 200, DrillOut.of(await call.core.drills.cancel((await _seen(call)).id, call.principal, reason))


async def drills(call: Call) -> Answer:
    """List those of the caller's area."""
    areas = areas_of(call.core, call.principal)
    found = await call.core.store.drills.all(LISTED)
    return 200, DrillsOut(drills=[DrillOut.of(one) for one in found if one.within(areas)])


async def show(call: Call) -> Answer:
    """One drill."""
    return 200, DrillOut.of(await _seen(call))


async def show_report(call: Call) -> Answer:
    """What came of one."""
    drill = await _seen(call)
    own = call.principal.issuer == drill.issuer
    return 200, await report(call.core, drill, EVERYWHERE if own else areas_of(call.core, call.principal))


async def _seen(call: Call) -> Drill:
    """Return the drill the path names.

    Raises:
        Refused: 404 there is none, or the caller may not know of it.
    """
    known = ID.fullmatch(call.params["id"])
    drill = await call.core.store.drills.get(known[0]) if known else None
    if drill is None or not drill.within(areas_of(call.core, call.principal)):
        raise Refused(404, "unknown_drill", "there is no such drill in your area; GET /v1/drills lists them")
    return drill


DRILLS: tuple[Endpoint, ...] = (
    Endpoint(
        "GET", "/v1/drills", "listDrills", "Drills of your area, the latest to begin first.", drills, {200: DrillsOut},
    ),
    Endpoint(
        "POST", "/v1/drills", "planDrill",
        "Plan a drill or a self-test of loudspeakers: by day, for those who know of drills, never beside a real orange "
        "or red. A second person approves it; people are told beforehand.",
        plan, {201: DrillOut}, (409, 422), roles=WRITERS, body=DrillIn,
    ),
    Endpoint(
        "GET", "/v1/drills/{id}", "getDrill", "One drill and where it stands.", show, {200: DrillOut}, (404,),
    ),
    Endpoint(
        "POST", "/v1/drills/{id}/approve", "approveDrill",
        "Approve a drill, and those that repeat it. Nobody approves their own.",
        approve, {200: DrillOut}, (404, 409, 422), roles=frozenset({"signer"}),
    ),
    Endpoint(
        "POST", "/v1/drills/{id}/cancel", "cancelDrill",
        "Give up a drill, and those that would repeat it; one that runs stops at once.",
        cancel, {200: DrillOut}, (404, 409), roles=WRITERS, body=ReasonIn,
    ),
    Endpoint(
        "GET", "/v1/drills/{id}/report", "getDrillReport",
        "What came of a drill (台账): loudspeakers and officials, by village and township.",
        show_report, {200: DrillReport}, (404,),
    ),
)  # fmt: skip
