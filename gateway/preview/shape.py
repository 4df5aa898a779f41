"""The shapes of a preview. No field holds a name, a number or an address of a recipient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from gateway import cap, render
from gateway.model import Condition

EVERYTHING = "*"
UNMET = "channel:"


class Place(BaseModel):
    """A place by code and name."""

    code: str
    name: str


class Finding(BaseModel):
    """One thing found in the message, in a finished text, or in what would become of it."""

    code: str
    severity: str = Field(description="error (will fail or mislead), warning or info")
    message: str
    element: str = ""
    line: int | None = None

    @classmethod
    def of(cls, found: cap.Finding) -> Self:
        """Take over a finding on the message."""
        return cls(**asdict(found))

    @classmethod
    def on_text(cls, found: render.Finding) -> Self:
        """Take over a finding on a text."""
        return cls(code=found.code, severity=found.severity, message=found.detail)


def split_reasons(reasons: Sequence[str]) -> tuple[list[str], list[Finding]]:
    """Tell why a route was chosen from groups that are left out because no channel of theirs is on."""
    missing = [text for text in reasons if text.startswith(UNMET)]
    findings = [
        Finding(code="no_channel", severity="warning", message=text.removeprefix(UNMET).strip()) for text in missing
    ]
    return [text for text in reasons if text not in missing], findings


class TargetTownship(BaseModel):
    """An affected township and how it was matched. No villages: all of it."""

    township: Place
    villages: list[Place]
    how: str = Field(description="code, polygon, circle, name, county, touching or no_geometry")
    certain: bool = Field(description="False: only touched, so that no text names it")
    coarse: bool = Field(description="True: only its county was named, so that residents wait for a person")


class AudienceCount(BaseModel):
    """Recipients of one step in one township. `fallback` steps count the same people once more."""

    step: int
    township: str
    group: str
    channel: str
    language: str
    notice: str
    recipients: int
    fallback: bool


class TownshipAudience(BaseModel):
    """Who hears of it in one township, each person once however many channels tell them."""

    township: Place
    officials: int
    loudspeakers: int
    residents: int
    subscribers: int
    opted_out: int = Field(description="Residents who opted out and therefore do not hear of it")
    no_channel: int = Field(description="Registered, but no channel for their group is on")
    villages: int


class VillageGap(BaseModel):
    """A village where something is missing before anything was sent."""

    village: Place
    official: bool = Field(description="Whether a person answers for it")
    loudspeaker: bool = Field(description="Whether a loudspeaker works there, as far as is known now")
    condition: Condition = Field(Condition.WORKING, description="Of its best loudspeaker")


class StepOut(BaseModel):
    """One step of the plan, and when it would run if it were decided now.

    `first` and `last` are estimates of the first and last submit, from the account's rate; without one, the moment
    it starts. Both are null where nobody is to be told, and for a fallback, which serves only whom the step it stands
    in for has missed.
    """

    step: int
    group: str
    channel: str
    language: str
    notice: str
    lane: str
    start: datetime
    deadline: datetime
    fallback_of: int | None
    recipients: int
    per_s: float | None = Field(description="The account's rate; null: not limited")
    first: datetime | None
    last: datetime | None
    too_late: int = Field(description="Recipients whose turn would come after the deadline")


class GroupTime(BaseModel):
    """When one group would hear: the first and the last of its steps that are no fallback."""

    group: str
    notice: str
    recipients: int
    first: datetime
    last: datetime


class Words(BaseModel):
    """One text as it leaves, for recipients of `township` (or of `village` in it). `units` are UTF-16 code units."""

    channel: str
    group: str
    notice: str
    language: str
    township: str
    village: str = Field(description="Where infos share the township; else empty")
    info: int = Field(description="Which info is told, from 1, where several of one language differ by area; else 0")
    title: str
    text: str
    units: int
    segments: int = Field(description="Parts it takes as SMS")
    cut: list[str] = Field(description="What was shortened to fit: politeness, others, measures, trend, places …")
    findings: list[Finding]


class Conflict(BaseModel):
    """Another alert in force, or waiting, for some of the same places."""

    code: str = Field(
        description="known, same_issuer, lower_level, other_issuer, drill_under_warning, warning_over_drill, "
        "return_under_warning, still_in_force or also_in_force"
    )
    severity: str
    message: str
    alert: str
    issuer: str
    event: str
    level: str
    document: str
    standing: str = Field(description="active, or the stage it waits at")
    expires: datetime | None
    townships: list[Place] = Field(description="Townships both cover")


class Deferral(BaseModel):
    """A step that starts later: in the morning after the quiet hours, or in place of a step that failed."""

    step: int
    channel: str
    group: str
    notice: str
    start: datetime
    fallback_of: int | None


class Dropped(BaseModel):
    """What would wait for the morning, or has expired, so that it is never sent."""

    group: str
    channel: str
    notice: str
    why: str


class Preview(BaseModel):
    """Everything an approver should see before it is too late."""

    alert: str
    at: datetime = Field(description="When this was looked at; times are estimates from here on")
    event: str
    level: str
    document: str
    status: str
    kind: str
    issuer: str
    expires: datetime | None
    route: str
    reasons: list[str]
    held: list[str]
    would_be_held: bool = Field(description="Nothing leaves before a person has decided")
    standing: str = Field(description="Where it would stand: active, or the stage it would wait at")
    needs: list[str] = Field(description="Stages it would have to pass, in order")
    deciders: list[str] = Field(description="Accounts that may take the next step; nobody approves their own")
    alarms: list[str]
    warnings: list[Finding] = Field(description="Also reaches_nobody, no_officials, no_channel, too_late …")
    halts: list[str] = Field(description="Halted scopes that keep it, or a part of it, from leaving")
    conflicts: list[Conflict]
    targets: list[TargetTownship]
    leaving: list[TargetTownship] = Field(description="Left by an update, or told the all-clear")
    beyond_border: list[TargetTownship] = Field(description="Touched beyond the issuer's area, and left out")
    townships: list[TownshipAudience]
    gaps: list[VillageGap] = Field(description="Villages without an official or without a loudspeaker")
    counts: list[AudienceCount]
    steps: list[StepOut]
    times: list[GroupTime]
    texts: list[Words]
    deferrals: list[Deferral]
    dropped: list[Dropped]
