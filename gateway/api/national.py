"""What has to do with the national platform (国突): numbers, translation, reconciliation. Shapes, handlers, routes."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from gateway import cap
from gateway.api.endpoint import Answer, Call, Endpoint
from gateway.api.shape import Form
from gateway.errors import Refused
from gateway.national import MAY, Listed, Reconciled
from gateway.ports import AlertRow

LISTING_BYTES = 1024 * 1024
MOST = 2_000
Short = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)]


class NumberIn(Form):
    """The number the platform gave to an alert."""

    number: str = Field(max_length=31, examples=["41172641600000_20260720143000"])


class NumberOut(BaseModel):
    """An alert's number; `result` is matched, or known where it had this one already."""

    id: str
    national_number: str
    result: str


class LossOut(BaseModel):
    """Something the dialect does not carry, and what became of it."""

    element: str
    message: str


class Translated(BaseModel):
    """An alert in the national dialect. Interoperability unverified."""

    message: str = Field(description="XML in UTF-8")
    losses: list[LossOut]


class ListedIn(Form):
    """One alert of the platform's listing: its number, the unit's code or name, its title, and when it was sent."""

    number: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
    sender: Short = ""
    title: Short = ""
    sent: AwareDatetime


class ListingIn(Form):
    """The platform's alerts of one day, by Chinese time."""

    day: date = Field(ge=date(1970, 1, 1), lt=date(2200, 1, 1))
    alerts: list[ListedIn] = Field(max_length=MOST)


class HereOut(BaseModel):
    """An alert of ours that the platform does not list, or that it listed and that is matched now."""

    id: str
    national_number: str
    sender: str
    identifier: str
    title: str
    sent: datetime

    @classmethod
    def of(cls, row: AlertRow, number: str) -> Self:
        """Show one."""
        info, alert = row.alert.info("zh"), row.alert
        title = (info and info.headline) or alert.event
        return cls(
            id=alert.id, national_number=number or "pending", sender=alert.sender, identifier=alert.identifier,
            title=title, sent=alert.sent,
        )  # fmt: skip


class ReconciledOut(BaseModel):
    """A day on both sides; `matched` got their numbers by this listing."""

    day: date
    both: int
    matched: list[HereOut]
    only_here: list[HereOut]
    only_there: list[ListedIn]

    @classmethod
    def of(cls, day: date, found: Reconciled) -> Self:
        """Show the outcome."""
        return cls(
            day=day,
            both=found.both,
            matched=[HereOut.of(row, number) for row, number in found.found],
            only_here=[HereOut.of(row, one.number) for row, one in found.here],
            only_there=[ListedIn.model_construct(**one._asdict()) for one in found.there],
        )


async def number(call: Call) -> Answer:
    """Write down an alert's number."""
    row, given = await call.row(), call.form(NumberIn).number
    result = await call.core.national.number(row, call.principal, given)
    return 200, NumberOut(id=row.alert.id, national_number=given, result=result)


async def translate(call: Call) -> Answer:
    """One alert in the national dialect."""
    row = await call.row()
    try:
        message, losses = cap.write_national(call.core.national.outward(row))
    except cap.Unwritable as error:
        raise Refused(422, "not_national", f"this alert has no form in the national dialect: {error}") from None
    return 200, Translated(message=message.decode(), losses=[LossOut(**loss._asdict()) for loss in losses])


async def reconcile(call: Call) -> Answer:
    """Compare a day with the platform's listing."""
    form = call.form(ListingIn)
    listed = [Listed(one.number, one.sender, one.title, one.sent) for one in form.alerts]
    return 200, ReconciledOut.of(form.day, await call.core.national.reconcile(call.principal, form.day, listed))


NATIONAL: tuple[Endpoint, ...] = (
    Endpoint(
        "POST", "/v1/alerts/{id}/national-number", "matchNationalNumber",
        "Write down the number of the national platform (国突) that an alert got; a wrong one is put right so.",
        number, {200: NumberOut}, (404, 409, 422), roles=MAY, body=NumberIn,
    ),
    Endpoint(
        "GET", "/v1/alerts/{id}/national", "getAlertNational",
        "One alert in the national dialect, and what it could not carry. Interoperability unverified.",
        translate, {200: Translated}, (404, 422),
    ),
    Endpoint(
        "POST", "/v1/national/reconcile", "reconcileNational",
        "Compare a day's alerts with the national platform's listing: what stands on one side only, and what was "
        "matched.",
        reconcile, {200: ReconciledOut}, roles=MAY, body=ListingIn,
        form_bytes=LISTING_BYTES,
    ),
)  # fmt: skip
