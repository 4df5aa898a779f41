"""The shapes of loudspeakers, of what they are ordered to do, and of the alarms villages sound by themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from gateway.api.reply import PlaceOut
from gateway.api.shape import Form
from gateway.model import Condition
from gateway.policy.table import NightVolume, Percent, SpeakerVolume

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
Code = Annotated[str, StringConstraints(pattern=r"^([0-9]{4}|[0-9]{6}|[0-9]{9}|[0-9]{12})?$")]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Value = bool | Annotated[int, Field(ge=-(2**53), le=2**53)] | Annotated[str, Field(max_length=500)]
WEEK_MIN = 7 * 24 * 60


class SpeakersQuery(Form):
    """Loudspeakers by village and name; `after` is the `next` of the page before."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{0,64}$")] = ""
    area: Code = Field("", description="Code of a county, township or village")
    condition: list[Condition] = Field([], max_length=5, description="Several mean either")
    after: str = Field("", pattern=r"^([0-9]{12}/[A-Za-z0-9._:-]{1,64})?$")
    limit: int = Field(100, ge=1, le=1000)


class SpeakerOut(BaseModel):
    """A loudspeaker in service. What it never said is null or empty; times are ours.

    `seen_at`: it last said anything. `since`: it came or went. `told_at`: it last told its condition.
    """

    name: str
    village: PlaceOut
    condition: Condition = Field(
        description="working; untested: no drill, self-test or broadcast finished for too long; faulty; offline: not "
        "heard of for too long"
    )
    online: bool
    seen_at: datetime | None
    since: datetime | None
    firmware: str
    volume: int | None
    power: str = Field(description="mains, battery or solar")
    battery: int | None = Field(description="Percent")
    clock_skew_s: float | None = Field(description="Its clock minus ours")
    faults: list[str]
    told_at: datetime | None
    drilled_at: datetime | None
    tested_at: datetime | None
    played_at: datetime | None


class SpeakersPage(BaseModel):
    """Loudspeakers; `next` continues behind them. A short page need not be the last."""

    speakers: list[SpeakerOut]
    next: str | None


class OrdersQuery(Form):
    """Orders of the last hours, newest first."""

    speaker: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{0,64}$")] = ""
    area: Code = ""
    hours: int = Field(24, ge=1, le=31 * 24)
    limit: int = Field(100, ge=1, le=1000)


class OrderOut(BaseModel):
    """An order to one loudspeaker, and what became of it. `code` is the device's own."""

    id: str
    speaker: str
    village: PlaceOut
    kind: Literal["volume", "self_test", "config", "clock"]
    values: dict[str, object]
    by: str
    at: datetime
    expires: datetime
    state: Literal["open", "done", "failed", "expired", "superseded"]
    code: str
    settled_at: datetime | None


class OrdersOut(BaseModel):
    """Orders, newest first."""

    orders: list[OrderOut]


class OrderIn(Form):
    """Whom an order is for: these loudspeakers, or all below a code. Give one of both."""

    speakers: list[Name] = Field([], max_length=500)
    area: Code = Field("", description="Code of a county, township or village")
    expires_min: int = Field(24 * 60, ge=1, le=WEEK_MIN, description="Minutes; who is not there by then is left out")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.speakers) == bool(self.area):
            raise ValueError("give either speakers or area")
        return self


class VolumeIn(OrderIn):
    """How loud: by day, by night, and never below the floor of a level. Until the policy's volume changes."""

    volume: Percent
    night: NightVolume | None = None
    floor: dict[Literal["red", "orange", "yellow", "blue"], Percent] = Field(
        {"red": 100}, description="red at least as high as volume"
    )

    @model_validator(mode="after")
    def _red_is_heard(self) -> Self:
        if self.floor.get("red", 0) < self.volume:
            raise ValueError("red is never quieter than the rest: give floor.red, at least as high as volume")
        return self

    def wanted(self) -> SpeakerVolume:
        """Return it as the policy writes it."""
        return SpeakerVolume(volume=self.volume, night=self.night, floor=self.floor)


class SelfTestIn(OrderIn):
    """Try amplifier and loudspeaker; `audible` with a short tone, by day only and under no orange or red."""

    audible: bool = False


class ConfigIn(OrderIn):
    """Settings of the device's maker."""

    values: dict[Key, Value] = Field(min_length=1, max_length=50)


class ClockIn(OrderIn):
    """Set the clock to ours."""


class OrderedOut(BaseModel):
    """What was ordered, of how many loudspeakers. Each order's id is this one and a number."""

    id: str
    kind: str
    speakers: int
    expires: datetime


class MuteQuery(Form):
    """Villages of an area; default: all of yours."""

    area: Code = ""


class MuteVillage(BaseModel):
    """A village whose loudspeakers are in no good condition; `condition` is that of its best one."""

    village: PlaceOut
    condition: Condition
    speakers: int
    seen_at: datetime | None = Field(description="When one of them last said anything")
    faults: list[str]


class MuteTownship(BaseModel):
    """How many villages of a township are in each condition; all of them, whatever theirs."""

    township: PlaceOut
    villages: dict[Condition, int]


class MuteOut(BaseModel):
    """Health before the storm: villages without a working loudspeaker, and those where none was heard for too long."""

    at: datetime
    offline_min: int
    untested_days: int
    speakers: int
    villages: dict[Condition, int]
    townships: list[MuteTownship]
    mute: list[MuteVillage] = Field(description="none in service, all offline, or all faulty")
    untested: list[MuteVillage]


class VillageAlarmsQuery(Form):
    """Village alarms of the last hours, and all that nobody has decided on."""

    hours: int = Field(24, ge=1, le=31 * 24)
    undecided: bool = False


class VillageAlarmOut(BaseModel):
    """An alarm a village has sounded by itself. No answers: it was decided, or another one of its rings."""

    id: str
    at: datetime
    speaker: str
    village: PlaceOut
    answers: list[str]
    decided_at: datetime | None
    by: str
    decision: str
    reason: str


class VillageAlarmsOut(BaseModel):
    """Village alarms, newest first."""

    alarms: list[VillageAlarmOut]
