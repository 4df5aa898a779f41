"""What a person may ask for at the counter or by telephone: opting out, erasure. Shapes, handlers, routes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from gateway.api.access import areas_of
from gateway.api.endpoint import Answer, Call, Endpoint
from gateway.api.shape import Form
from gateway.directory.right import Rights
from gateway.intake import actor

Phone = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]


class OptOutIn(Form):
    """Whose wish it is, by number, in any writing."""

    phone: Phone = Field(examples=["10012345678"])
    on: bool = Field(default=True, description="False takes it back")


class OptOutOut(BaseModel):
    """Whom it concerns, by opaque id."""

    people: list[int]
    officials: list[int] = Field(description="They have this number as well, and cannot opt out")


class EraseIn(Form):
    """Who is to be erased; the name only where several people have the number."""

    phone: Phone = Field(examples=["10012345678"])
    name: Annotated[str, StringConstraints(strip_whitespace=True, max_length=60)] = ""


class EraseOut(BaseModel):
    """The id that stays in ledger and audit, and how many frozen batches held an address."""

    person: int
    batches: int


def _rights(call: Call) -> Rights:
    return Rights(call.core.store.database, call.core.vault, call.core.clock)


async def opt_out(call: Call) -> Answer:
    """Write an opt-out down, or take it back."""
    form, within = call.form(OptOutIn), areas_of(call.core, call.principal)
    found = await _rights(call).opt_out(form.phone, actor(call.principal), on=form.on, within=within)
    return 200, OptOutOut(people=list(found.people), officials=list(found.officials))


async def erase(call: Call) -> Answer:
    """Erase a person."""
    form, within = call.form(EraseIn), areas_of(call.core, call.principal)
    found = await _rights(call).erase(form.phone, form.name, actor(call.principal), within=within)
    return 200, EraseOut(**found._asdict())


RIGHTS: tuple[Endpoint, ...] = (
    Endpoint(
        "POST", "/v1/people/opt-out", "optOut",
        "Let a resident of your area opt out of service messages, blue and yellow warnings, or in again. Orange, red "
        "and evacuation come all the same; officials cannot opt out.",
        opt_out, {200: OptOutOut}, (404, 409), roles=frozenset({"clerk", "admin"}), body=OptOutIn,
    ),
    Endpoint(
        "POST", "/v1/people/erase", "erasePerson",
        "Erase a person of your area: name, number, frozen addresses, replies. What was sent stays under an id that "
        "names nobody. It cannot be undone and takes some seconds.",
        erase, {200: EraseOut}, (404, 409, 503), roles=frozenset({"admin"}), body=EraseIn,
    ),
)  # fmt: skip
