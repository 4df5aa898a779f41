"""`procedure.toml`: stages of approval, deputies, joint warnings, the emergency regime, near-duplicates and clocks.

Read by `gateway.policy.reading` with the other files, asked through `gateway.policy.Policy`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.model import Alert, Document, Kind, Level
from gateway.policy.table import HazardGlob, Identifier, Issuer, LevelName, Minutes, Table, hazard_matches


class ApprovalRow(Table):
    """Stages of the normal route. A key left out matches everything."""

    documents: tuple[Document, ...] = tuple(Document)
    levels: tuple[LevelName, ...] = tuple(Level)
    kinds: tuple[Kind, ...] = tuple(Kind)
    stages: tuple[Literal["review", "sign"], ...] = Field(min_length=1)
    escalate_after_min: Minutes

    @model_validator(mode="after")
    def _somebody_signs(self) -> Self:
        if self.stages not in (("sign",), ("review", "sign")):
            raise ValueError('stages are ["sign"] or ["review", "sign"]: nothing leaves unsigned')
        return self

    def covers(self, alert: Alert) -> bool:
        """Whether the row speaks of this alert."""
        return alert.document in self.documents and alert.level in self.levels and alert.kind in self.kinds


class DeputyRow(Table):
    """Bodies whose signers stand in for an absent one."""

    issuer: Identifier
    by: tuple[Identifier, ...] = Field(min_length=1)


class JointRow(Table):
    """Bureaus that issue joint risk warnings together, and how long one waits for the other."""

    hazards: tuple[HazardGlob, ...] = Field(min_length=1)
    bureaus: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=2)
    wait_min: Annotated[int, Field(gt=0, le=10)]
    wait_red_min: Annotated[int, Field(gt=0, le=5)]


class Emergency(Table):
    """The emergency regime: who starts it, and how long it lasts."""

    starters: tuple[Identifier, ...] = Field(min_length=1)
    hours: int = Field(gt=0, le=6)
    review_within_h: int = Field(gt=0, le=30 * 24)


class Duplicate(Table):
    """When a message that says the same again is kept back."""

    within_min: Minutes


class Clocks(Table):
    """What is waited for, in minutes."""

    countersign_within_min: Minutes
    lapse_question_min: Minutes
    late_after_min: Minutes
    national_number_min: Minutes = 10


class ProcedureFile(Table):
    """`procedure.toml`."""

    approval: tuple[ApprovalRow, ...] = Field(min_length=1)
    deputy: tuple[DeputyRow, ...] = ()
    joint: tuple[JointRow, ...] = ()
    emergency: Emergency
    duplicate: Duplicate
    clock: Clocks

    @model_validator(mode="after")
    def _whole(self) -> Self:
        last = self.approval[-1]
        if last != ApprovalRow(stages=last.stages, escalate_after_min=last.escalate_after_min):
            raise ValueError("approval: the last row must match everything; end with a row that has stages only")
        return self

    def approval_of(self, alert: Alert) -> ApprovalRow:
        """Return the row that names an alert's stages."""
        return next(row for row in self.approval if row.covers(alert))

    def deputies(self, issuer: str) -> tuple[str, ...]:
        """Return the bodies that stand in for an issuer's absent signer."""
        return tuple(by for row in self.deputy if row.issuer == issuer for by in row.by)

    def partners(self, alert: Alert, issuer: Issuer, everybody: tuple[Issuer, ...]) -> tuple[Issuer, ...]:
        """Return the bodies a joint risk warning waits for: the other bureaus of the row, for the very same area."""
        row = self._joint(alert)
        if row is None or issuer.bureau not in row.bureaus:
            return ()
        others = [one for one in everybody if one.areas == issuer.areas and one.bureau != issuer.bureau]
        return tuple(one for bureau in row.bureaus for one in others if one.bureau == bureau)

    def partner_wait(self, alert: Alert) -> timedelta:
        """Return how long the partner is waited for."""
        row = self._joint(alert)
        if row is None:
            return timedelta(0)
        return timedelta(minutes=row.wait_red_min if alert.level is Level.RED else row.wait_min)

    def _joint(self, alert: Alert) -> JointRow | None:
        if alert.document is not Document.JOINT_RISK:
            return None
        return next((row for row in self.joint if hazard_matches(alert.event_code, row.hazards)), None)
