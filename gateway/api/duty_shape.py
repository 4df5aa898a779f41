"""The shapes of decisions, obligations, the emergency regime and sealed codes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from gateway.api.shape import Form, Reason, Remark
from gateway.decision import Telephone
from gateway.model import Decision, Obligation
from gateway.ports import AlertRow
from gateway.store.regime import Regime
from gateway.store.seal import Sealed

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Maybe = Annotated[str, StringConstraints(strip_whitespace=True, max_length=100)]


class TelephoneIn(Form):
    """Who authorised by telephone; kept encrypted. Give `recording` or `witness` (电话授权)."""

    name: Line
    post: Line
    number: Line
    at: AwareDatetime = Field(examples=["2026-07-20T14:05:00+08:00"])
    recording: Maybe = Field("", description="Number of the recording")
    witness: Maybe = Field("", description="Name of the second witness")

    def call(self) -> Telephone:
        """Return it as the gateway knows it."""
        return Telephone(self.name, self.post, self.number, self.at, self.recording, self.witness)


class JoinIn(Form):
    """A partner agrees to a joint warning: its own people with an empty form, or the issuer's officer notes a call."""

    partner: Maybe = Field("", description="Id of the partner, where its agreement came by telephone")
    call: TelephoneIn | None = None


class ApprovalIn(Form):
    """The number under which an area request was approved (审批号), as the approving office gave it."""

    number: Annotated[
        str, StringConstraints(strip_whitespace=True, max_length=64, pattern=r"^[\w〔〕（）【】\[\]().\-/ ]+$")
    ]


class ConsultationIn(Form):
    """A consultation 会商: who, when, what was concluded; kept encrypted."""

    at: AwareDatetime = Field(examples=["2026-07-20T13:40:00+08:00"])
    participants: list[Line] = Field(min_length=1, max_length=50)
    conclusion: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


class MinuteOut(BaseModel):
    """A note with names: a telephone authorisation or a consultation. Reading it stands in the audit chain."""

    kind: str
    by: str
    at: datetime
    content: dict[str, object]


class Minutes(BaseModel):
    """All notes of an alert, oldest first."""

    minutes: list[MinuteOut]


class Noted(BaseModel):
    """A note was kept."""

    kind: str
    at: datetime


class DecisionOut(BaseModel):
    """One step in the life of an alert: where it stood, what happened, who did it."""

    standing: str
    event: str
    by: str
    at: datetime
    reason: str

    @classmethod
    def of(cls, one: Decision) -> Self:
        """Show a decision."""
        return cls(standing=one.standing, event=one.event, by=one.actor, at=one.at, reason=one.reason)


class Decisions(BaseModel):
    """The life of an alert, oldest first."""

    decisions: list[DecisionOut]


class ObligationsQuery(Form):
    """Obligations of your area: those unanswered, or all that were opened in the last `hours`."""

    hours: int = Field(24, ge=1, le=24 * 31)
    unanswered: bool = True


class ObligationOut(BaseModel):
    """Something the duty room owes; `answers` are the words it is answered with."""

    alert: str
    event: str = Field(description="Of the alert it belongs to; empty for an emergency regime")
    level: str
    kind: str
    due: datetime
    opened_at: datetime
    overdue: bool
    answers: list[str]
    answered_at: datetime | None
    by: str
    answer: str
    remark: str

    @classmethod
    def of(
        cls, one: Obligation, answers: tuple[str, ...], now: datetime, row: AlertRow | None, *, over: bool = False
    ) -> Self:
        """Show an obligation as it stands now; `over`: nobody has to answer it any more."""
        return cls(
            alert=one.alert, event=row.alert.event if row else "", level=row.alert.level.name.lower() if row else "",
            kind=one.kind, due=one.due, opened_at=one.opened_at,
            overdue=one.answered_at is None and one.due <= now and not over,
            answers=list(answers), answered_at=one.answered_at, by=one.actor, answer=one.answer, remark=one.remark,
        )  # fmt: skip


class Obligations(BaseModel):
    """Obligations by due time."""

    obligations: list[ObligationOut]


class AnswerIn(Form):
    """The answer to an obligation, one of its `answers`."""

    answer: Line
    remark: Remark = ""


class EmergencyIn(Form):
    """Start the emergency regime 紧急发布 over a county (6 digits) or the city (4 digits)."""

    area: str = Field(pattern=r"^(\d{4}|\d{6})$", examples=["411726"])
    reason: Reason
    call: TelephoneIn | None = None


class RenewIn(Form):
    """Prolong the emergency regime; by telephone where no named post is at hand."""

    call: TelephoneIn | None = None


class RegimeOut(BaseModel):
    """One emergency regime."""

    id: str
    area: str
    issuer: str
    by: str
    reason: str
    started_at: datetime
    until: datetime
    renewed: int
    ended_at: datetime | None

    @classmethod
    def of(cls, one: Regime) -> Self:
        """Show a regime."""
        return cls(
            id=one.id, area=one.area, issuer=one.issuer, by=one.actor, reason=one.reason, started_at=one.started_at,
            until=one.until, renewed=one.renewed, ended_at=one.ended_at,
        )  # fmt: skip


class RegimesOut(BaseModel):
    """Emergency regimes, newest first."""

    regimes: list[RegimeOut]


class SealIn(Form):
    """A new sealed code: for which body, and what stands on the envelope."""

    issuer: Line
    label: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]


class SealOut(BaseModel):
    """A sealed code, shown this once: print it, seal it, keep it in the duty room."""

    code: str
    issuer: str
    label: str


class SealLine(BaseModel):
    """A sealed code without the code."""

    issuer: str
    label: str
    made_at: datetime
    used_at: datetime | None
    alert: str

    @classmethod
    def of(cls, one: Sealed) -> Self:
        """Show a sealed code."""
        return cls(issuer=one.issuer, label=one.label, made_at=one.made_at, used_at=one.used_at, alert=one.alert)


class Seals(BaseModel):
    """Sealed codes, newest first."""

    codes: list[SealLine]
