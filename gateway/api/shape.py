"""The shapes of requests and answers. No answer has a field for a name, a number or an address.

Ids of persons are strings: they have 62 bits, more than a number in JavaScript keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from gateway import cap
from gateway import standing as stages
from gateway.intake import Outcome
from gateway.model import Record
from gateway.policy.hazard import CHINA
from gateway.ports import AlertRow
from gateway.preview import EVERYTHING, Finding, Words, split_reasons
from gateway.render import clean
from gateway.render.text import PHONE

EXAMPLE: dict[str, Any] = {
    "sender": "411726-qxj@mingluo.example",
    "identifier": "41172641600000_20260720135800",
    "sent": "2026-07-20T13:58:00+08:00",
    "status": "Actual",
    "kind": "Alert",
    "event_code": "11B03",
    "event": "暴雨",
    "level": "red",
    "headline": "泌阳县气象台发布暴雨红色预警",
    "description": "预计未来3小时，贾楼乡、铜山乡雨量将超过100毫米，山洪和地质灾害风险很高。",
    "instruction": "立即转移危险区群众，远离河道和低洼处。",
    "expires": "2026-07-20T17:00:00+08:00",
    "areas": [{"description": "泌阳县贾楼乡、铜山乡", "geocodes": {"township": ["411726209", "411726204"]}}],
}


def _remark(text: str) -> str:
    """A remark is kept as long as what it belongs to, and no erasure of a person finds it."""
    if PHONE.search(text):
        raise ValueError("holds a phone number; a remark is no place for one, so leave it out")
    return clean(text)


def _aware(at: datetime) -> datetime:
    """A time without offset is China's."""
    return at if at.tzinfo else at.replace(tzinfo=CHINA)


Moment = Annotated[datetime, AfterValidator(_aware)]
Remark = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), AfterValidator(_remark)]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_remark)]


WaitingReason = Literal[
    "halted", "channel_missing", "sending", "channel_down", "retry", "paced", "unpublished", "queued", "planning",
    "fallback",
]  # fmt: skip


class Form(BaseModel):
    """Closed: a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: object) -> object:
        """Refuse what PostgreSQL cannot hold in a text."""
        if isinstance(value, str) and "\0" in value:
            raise ValueError("holds a NUL character; remove it")
        return value


# --- asked ----------------------------------------------------------------------------------------


class AlertsQuery(Form):
    """Alerts, newest first; `after` is the `next` of the page before. Several values of one filter mean either."""

    after: str = Field("", pattern=r"^([0-9]{1,16}\.[0-9a-f]{20})?$")
    limit: int = Field(50, ge=1, le=200)
    standing: list[
        Literal["held", "draft", "suppressed", "partner", "review", "sign", "returned", "rejected", "active", "stopped"]
    ] = Field([], max_length=10, description="held: all that wait for a person")
    status: list[Literal["Actual", "Exercise", "System", "Test", "Draft"]] = Field([], max_length=5)
    document: list[Literal["warning", "joint_risk", "response", "evacuation", "return", "nowcast", "service"]] = Field(
        [], max_length=7
    )
    level: list[Literal["red", "orange", "yellow", "blue", "unknown"]] = Field([], max_length=5)
    hazard: str = Field("", pattern=r"^[0-9A-Z]{0,10}$", description="GB/T 35561 code, or how it begins: 11B")
    area: str = Field("", pattern=r"^([0-9]{2,12})?$", description="Code of a place, or how it begins: 4117")
    issuer: str = Field("", pattern=r"^[!-~]{0,200}$", description="Id of an issuer, or a CAP sender")
    since: Moment | SkipJsonSchema[None] = Field(None, description="Accepted then or later")
    until: Moment | SkipJsonSchema[None] = Field(None, description="Accepted before")


class DeliveriesQuery(Form):
    """Deliveries, by batch; `limit` counts batches of up to 1,000 recipients each."""

    after: str = Field("", pattern=r"^([0-9a-f]{20}\.[0-9]{1,6}\.[0-9]{1,9})?$")
    limit: int = Field(1, ge=1, le=10)
    group: Literal["", "officials", "loudspeakers", "residents", "subscribers"] = ""


class AuditQuery(Form):
    """Records of the audit chain behind sequence `after`."""

    after: int = Field(0, ge=0, lt=2**63)
    limit: int = Field(100, ge=1, le=1000)


class VerifyQuery(Form):
    """A checkpoint the chain is held against: what GET /v1/audit/checkpoint said at the time. Both or none."""

    seq: int | SkipJsonSchema[None] = Field(None, ge=0, lt=2**63)
    hash: str | SkipJsonSchema[None] = Field(None, pattern="^[0-9a-f]{64}$")


class ReasonIn(Form):
    """Why; it stands in the life of the alert."""

    reason: Reason


class NoteIn(Form):
    """A note for the message that ends or corrects an alert."""

    note: Remark = ""


class ConfirmationIn(Form):
    """Somebody answered a clerk: an official by id, or, whoever it was, a person answerable for a village."""

    person: str = Field(
        "", pattern=r"^[0-9]{0,18}$|^[0-8][0-9]{18}$", description="`recipient` of a delivery to officials"
    )
    village: str = Field(
        "", pattern=r"^([0-9]{12})?$", description="Instead of `person`: the code of the village; see the status"
    )
    how: Literal["phone", "visit", "radio"]
    note: Remark = ""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.person) == bool(self.village):
            raise ValueError("say who answered: either person, or the village somebody answered for")
        return self


class HaltIn(Form):
    """Stop (`on`) or release all sending of a county (6-digit code), of a channel, or of everything (all)."""

    scope: Annotated[str, AfterValidator(lambda scope: EVERYTHING if scope == "all" else scope)] = Field(
        min_length=1, max_length=40
    )
    on: bool


# --- answered -------------------------------------------------------------------------------------


def links_of(alert: str) -> dict[str, str]:
    """Where more is to be had of an alert."""
    base = f"/v1/alerts/{alert}"
    parts = ("cap", "status", "deliveries", "confirmations", "decisions")
    return {"self": base} | {part: f"{base}/{part}" for part in parts}


class Accepted(BaseModel):
    """What became of a message: accepted, held (a person decides), draft, or duplicate (it was known already)."""

    id: str
    result: str
    standing: str = Field(description="Where it stands: active, or the stage it waits at")
    needs: list[str] = Field(description="Stages it has still to pass, the present one first")
    route: str
    reasons: list[str]
    held: list[str]
    warnings: list[Finding] = Field(description="Also on whom it reaches, and on its texts")
    halts: list[str] = Field(description="Halted scopes that keep it, or a part of it, from leaving")
    links: dict[str, str]

    @classmethod
    def of(cls, outcome: Outcome, halts: Sequence[str], further: Sequence[Finding]) -> Self:
        """Show an outcome; `further` warnings are the gateway's own, on whom it reaches.

        Of what waits, whoever decides is told which channels are missing, when it leaves.
        """
        reasons, unmet = split_reasons(outcome.reasons)
        unmet = unmet if outcome.standing == stages.Standing.ACTIVE else []
        return cls(
            id=outcome.alert,
            result=outcome.result,
            standing=outcome.standing,
            needs=list(outcome.needs),
            route=outcome.route,
            reasons=reasons,
            held=list(outcome.held),
            warnings=[*map(Finding.of, outcome.warnings), *unmet, *further],
            halts=list(halts),
            links=links_of(outcome.alert),
        )


class AlertLine(BaseModel):
    """One alert in a list. `by` is the issuer and the account that sent it in.

    `national_number` is "pending" until it is known, and null where none is due: not public and actual, or not out.
    """

    id: str
    sender: str
    identifier: str
    sent: datetime
    status: str
    scope: str = Field(description="CAP scope: Public, Restricted (officials alone hear it) or Private")
    kind: str
    document: str
    event: str
    level: str
    expires: datetime | None
    standing: str
    reason: str
    by: str
    national_number: str | None
    accepted_at: datetime
    links: dict[str, str]

    @classmethod
    def fields_of(cls, row: AlertRow) -> dict[str, Any]:
        """Return the values of a line."""
        alert = row.alert
        same = ("id", "sender", "identifier", "sent", "status", "scope", "kind", "document", "event", "expires")
        return {name: getattr(alert, name) for name in same} | {
            "level": alert.level.name.lower(),
            "standing": row.standing,
            "reason": row.reason,
            "by": row.issuer,
            "national_number": row.national_number,
            "accepted_at": row.accepted_at,
            "links": links_of(alert.id),
        }

    @classmethod
    def of(cls, row: AlertRow) -> Self:
        """Show a stored alert in a line."""
        return cls(**cls.fields_of(row))


class AlertOut(AlertLine):
    """One alert: how it was decided, and the message itself as in `AlertIn`."""

    route: str
    reasons: list[str]
    held: list[str]
    needs: list[str] = Field(description="Stages it has still to pass, the present one first")
    policy_digest: str
    townships: list[str]
    alert: dict[str, Any] = Field(description="The message, in the form of the schema AlertIn")

    @classmethod
    def of(cls, row: AlertRow) -> Self:
        """Show a stored alert."""
        return cls(
            **cls.fields_of(row),
            route=row.plan.route,
            reasons=list(row.plan.reasons),
            held=list(row.plan.held),
            needs=list(row.plan.needs),
            policy_digest=row.alert.policy_digest,
            townships=[target.township for target in row.plan.targets],
            alert=orjson.loads(cap.to_json(row.alert)),
        )


class Texts(BaseModel):
    """The texts of an alert as they leave, and what lint finds in them: what a signer reads before signing."""

    texts: list[Words]
    findings: list[Finding]


class AlertsPage(BaseModel):
    """A page; `next` continues it, and is null at the end."""

    alerts: list[AlertLine]
    next: str | None
    halts: list[str] = Field(description="Halted scopes: a county of one's area, a channel, or all")


class Standing(BaseModel):
    """Where an alert stands now, and why."""

    id: str
    standing: str
    reason: str


class Delivery(BaseModel):
    """Where one recipient stands. `recipient` is the opaque id of a person, or of a loudspeaker."""

    batch: str
    position: int
    recipient: str
    township: str
    village: str
    channel: str
    group: str
    state: str


class DeliveriesPage(BaseModel):
    """Deliveries of a few batches; `next` continues, and is null at the end. A page may be empty and not the last."""

    deliveries: list[Delivery]
    next: str | None


class Confirmation(BaseModel):
    """A person who answered for this version, and for which villages."""

    person: str = Field(description="Empty where a clerk confirmed the village itself")
    villages: list[str]
    how: str
    at: datetime


class Confirmations(BaseModel):
    """Everyone who confirmed, oldest first."""

    confirmations: list[Confirmation]


class Confirmed(BaseModel):
    """Result of a confirmation: confirmed, or known (this person or village had been confirmed before)."""

    result: Literal["confirmed", "known"]


class Halts(BaseModel):
    """Scopes that are halted now."""

    halted: list[str]


class Waiting(BaseModel):
    """Batches of one alert that wait for one reason; a step that is still to be planned counts as one."""

    alert: str
    channel: str
    lane: str
    county: str = Field(description="Empty for a step that is still to be planned")
    reason: WaitingReason
    batches: int
    since: datetime
    until: datetime | None = Field(description="When it is looked at again, where that is known")


class StuckOut(BaseModel):
    """What has no outcome yet, most urgent lane first."""

    waiting: list[Waiting]


class AuditRecord(BaseModel):
    """One decision; `hash` covers it and the record before."""

    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: str
    hash: str

    @classmethod
    def of(cls, seq: int, record: Record, hash_: str) -> Self:
        """Show a record of the chain."""
        return cls(
            seq=seq, at=record.at, actor=record.actor, action=record.action, subject=record.subject,
            detail=record.detail, hash=hash_,
        )  # fmt: skip


class AuditPage(BaseModel):
    """Records in order; `next` continues, and is null at the end."""

    records: list[AuditRecord]
    next: int | None


class AuditVerdict(BaseModel):
    """Whether the chain is whole; if not, the last good sequence and what is wrong behind it."""

    whole: bool
    records: int
    wrong: str


class CheckpointOut(BaseModel):
    """Where the chain stands. Keep it where nobody who administers the database can change it."""

    seq: int
    hash: str


class Part(BaseModel):
    """One part of the gateway."""

    name: str
    ready: bool
    detail: str


class Health(BaseModel):
    """ok; degraded (something is broken or halted, warnings are taken in and go out); down (none are taken in)."""

    status: Literal["ok", "degraded", "down"]
    simulation: bool
    policy: str
    parts: list[Part]
