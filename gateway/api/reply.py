"""Replies a clerk has to settle, and incidents (险情): shapes, handlers, routes.

Their words are sealed and read here alone; that somebody read them stands in the audit chain (D23). Numbers are masked.
An incident is decided by answering its obligation, `POST /v1/obligations/{id}/incident`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from gateway.api.access import areas_of
from gateway.api.endpoint import Answer, Call, Endpoint
from gateway.api.shape import Form
from gateway.core import Core
from gateway.errors import Refused
from gateway.intake import actor
from gateway.model import Obligation, Record
from gateway.obligation import RULES
from gateway.policy.table import WRITERS
from gateway.reply import Meaning
from gateway.store.reply import Found

ROLES = WRITERS | {"clerk"}
LIMIT = 500
SHORT = 7  # of so few characters no part can be shown

PersonId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}$|^[0-8][0-9]{18}$")]


class PlaceOut(BaseModel):
    """A township or village by code and full name."""

    code: str
    name: str


class ReplyOut(BaseModel):
    """A reply that waits for a clerk. `people` may have written it; nobody is known by an unknown number."""

    id: str
    at: datetime
    channel: str
    meaning: Meaning
    why: str = Field(description="Why it waits: for_a_person, shared_phone, unknown_number, official, not_an_official")
    number: str = Field(description="Masked; empty once erased")
    text: str
    people: list[str]
    places: list[PlaceOut]


class RepliesOut(BaseModel):
    """Replies that wait, newest first."""

    replies: list[ReplyOut]


class SettleIn(Form):
    """What a clerk made of a reply, having asked: these people meant this, at the time of the reply."""

    meaning: Literal["heard", "away", "support", "other"] = Field(
        description="heard, support: at post, confirmed; away: the deputy is to be called; other: nothing follows"
    )
    people: list[PersonId] = Field([], max_length=10, description="Each counts by itself; none for other")

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if bool(self.people) == (self.meaning == "other"):
            raise ValueError("say which people meant it; for other, none")
        return self


class Settled(BaseModel):
    """A reply waits no more."""

    id: str
    meaning: str


class IncidentsQuery(Form):
    """Incidents of your area in the last `hours` and those, from whenever, that nobody decided on; or these alone."""

    hours: int = Field(24, ge=1, le=24 * 31)
    undecided: bool = False


class IncidentOut(BaseModel):
    """Somebody at a post needs support or reports danger (险情). `alerts` are those it answered."""

    id: str
    at: datetime
    channel: str
    number: str = Field(description="Masked; empty once erased")
    text: str
    people: list[str]
    places: list[PlaceOut]
    alerts: list[str]
    drill: bool = Field(description="It answered drills alone. It may be real all the same")
    answers: list[str] = Field(description="What can be decided")
    decided_at: datetime | None
    by: str
    decision: str
    reason: str


class IncidentsOut(BaseModel):
    """Incidents, newest first."""

    incidents: list[IncidentOut]


def masked(number: str) -> str:
    """Return a number as it is shown: who has called knows it again, nobody else learns it."""
    plain = number.removeprefix("+86")
    return f"{plain[:3]}****{plain[-4:]}" if len(plain) > SHORT else "****"


def _opened(core: Core, found: Found) -> tuple[str, str]:
    """Return the masked number and the text."""
    if not found.secret:
        return "", ""
    kept = json.loads(core.vault.open(found.secret))
    return masked(kept["number"]), "".join(one if one.isprintable() else " " for one in kept["text"])


def _places(core: Core, codes: Sequence[str]) -> list[PlaceOut]:
    return [PlaceOut(code=code, name=core.regions.path_name(code)) for code in codes]


async def _revealed(call: Call, action: str, found: Sequence[Found]) -> None:
    """Write down who reads whose words, before they are told."""
    if found:
        subject = ",".join(one.id for one in found)
        await call.core.store.audit.append(Record(call.core.clock.now(), actor(call.principal), action, subject))


async def replies(call: Call) -> Answer:
    """List what waits in the caller's area; what comes from an unknown number belongs to everybody."""
    core, areas = call.core, areas_of(call.core, call.principal)
    mine = [one for one in await core.store.replies.waiting(LIMIT) if one.within(areas) or (areas and not one.places)]
    await _revealed(call, "reveal_replies", mine)
    shown = []
    for one in mine:
        number, text = _opened(core, one)
        shown.append(
            ReplyOut(id=one.id, at=one.at, channel=one.channel, meaning=Meaning(one.meaning), why=one.outcome,
                     number=number, text=text, people=[str(person) for person in one.people],
                     places=_places(core, one.places))
        )  # fmt: skip
    return 200, RepliesOut(replies=shown)


async def settle(call: Call) -> Answer:
    """Settle one."""
    form, core, id_ = call.form(SettleIn), call.core, call.params["id"]
    areas, people = areas_of(core, call.principal), [int(one) for one in form.people]
    found = await core.store.replies.get(id_)
    if found is None or not (found.within(areas) or (areas and not found.places)):
        raise Refused(404, "unknown_reply", "there is no such reply in your area; GET /v1/replies lists them")
    for person in people:
        places = await core.directory.places_of(person)
        if not any((village or township).startswith(areas) for township, village in places):
            raise Refused(422, "not_answerable", "this person answers for no place in your area")
    await core.receipts.settle(id_, Meaning(form.meaning), people, actor(call.principal))
    return 200, Settled(id=id_, meaning=form.meaning)


async def incidents(call: Call) -> Answer:
    """List incidents of the caller's area."""
    asked, core = call.asked(IncidentsQuery), call.core
    areas, since = areas_of(core, call.principal), core.clock.now() - timedelta(hours=asked.hours)
    mine: list[tuple[Found, Obligation]] = []
    for one in await core.store.replies.incidents(since, LIMIT):
        owed = await core.store.obligations.get(one.id, "incident")
        if owed is not None and one.within(areas) and not (asked.undecided and owed.answered_at):
            mine.append((one, owed))
    await _revealed(call, "reveal_incidents", [one for one, _ in mine])
    return 200, IncidentsOut(incidents=[await _incident(core, *one) for one in mine])


async def _incident(core: Core, one: Found, owed: Obligation) -> IncidentOut:
    number, text = _opened(core, one)
    rows = [await core.store.outbox.alert(alert) for alert in one.alerts]
    return IncidentOut(
        id=one.id, at=one.at, channel=one.channel, number=number, text=text,
        people=[str(person) for person in one.people], places=_places(core, one.places), alerts=list(one.alerts),
        drill=bool(rows) and not any(row is None or row.alert.actual for row in rows),
        answers=list(RULES["incident"].answers), decided_at=owed.answered_at, by=owed.actor, decision=owed.answer,
        reason=owed.remark,
    )  # fmt: skip


REPLIES: tuple[Endpoint, ...] = (
    Endpoint(
        "GET", "/v1/replies", "listReplies",
        "Replies of your area that wait for a clerk: not plain, from an unknown number, or from one that several "
        "share. That you read them stands in the audit chain.",
        replies, {200: RepliesOut}, roles=ROLES,
    ),
    Endpoint(
        "POST", "/v1/replies/{id}", "settleReply",
        "Say what a reply means and who wrote it. Confirmations get the time of the reply.",
        settle, {200: Settled}, (404, 409, 422), roles=ROLES, body=SettleIn,
    ),
    Endpoint(
        "GET", "/v1/incidents", "listIncidents",
        "Who at a post needs support or reports danger (险情), newest first. Decide with "
        "POST /v1/obligations/{id}/incident. That you read them stands in the audit chain.",
        incidents, {200: IncidentsOut}, roles=ROLES, query=IncidentsQuery,
    ),
)  # fmt: skip
