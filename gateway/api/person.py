"""One person's history: its shapes, its handler and its route. "Why did I get this, and what was I told?"

The number comes in the body of a POST, for an address ends up in logs. The answer holds no name, number or text, only
opaque ids; whoever asks sees what happened at places of the own area, and that they asked stands in the audit chain
(D23). Someone erased is found by id alone: the ledger's ids remain, the number they belonged to does not.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from gateway.api.access import areas_of
from gateway.api.endpoint import Answer, Call, Endpoint
from gateway.api.shape import Form, Moment
from gateway.directory.vault import normal_phone
from gateway.errors import Refused
from gateway.intake import actor
from gateway.model import Record
from gateway.store.history import Past, Told

ROLES = frozenset({"clerk", "admin"})
LIMIT = 1_000


class HistoryIn(Form):
    """Whose history: the number, or the opaque id (`recipient` of a delivery). `until` continues behind a page."""

    phone: Annotated[str, AfterValidator(normal_phone)] | SkipJsonSchema[None] = Field(
        None, max_length=40, description="A mobile number, as people write it"
    )
    person: str | SkipJsonSchema[None] = Field(None, pattern=r"^[0-9]{1,18}$|^[0-8][0-9]{18}$")
    since: Moment | SkipJsonSchema[None] = Field(None, description="What was written for the person then or later")
    until: Moment | SkipJsonSchema[None] = Field(None, description="Before; `earlier` of the page before")
    limit: int = Field(200, ge=1, le=LIMIT, description="Messages at most")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.phone is None) == (self.person is None):
            raise ValueError("give either phone or person")
        return self


class HeardOut(BaseModel):
    """One receipt: a fact, its time, and the provider's own code."""

    state: str
    code: str
    at: datetime
    attempt: int


class ToldOut(BaseModel):
    """One message to the person. Why: it was in this group at this place when that step of the plan was carried out.

    `village` is empty for a post at the township. `at` and `code` are those of `state`; submitted is not delivered.
    """

    alert: str
    event: str
    level: str
    kind: str
    status: str
    sent: datetime
    channel: str
    group: str
    notice: str
    step: int
    township: str
    village: str
    state: str
    code: str
    at: datetime | None
    frozen_at: datetime
    receipts: list[HeardOut]

    @classmethod
    def of(cls, told: Told) -> Self:
        """Show a line of the ledger."""
        same = ("alert", "channel", "group", "notice", "step", "township", "village", "code", "at", "frozen_at")
        about = told.about
        return cls(
            **{name: getattr(told, name) for name in same},
            event=about.event, level=about.level.name.lower(), kind=about.kind, status=about.status, sent=about.sent,
            state=told.state.name.lower(),
            receipts=[
                HeardOut(state=one.state.name.lower(), code=one.code, at=one.at, attempt=one.attempt)
                for one in told.receipts
            ],
        )  # fmt: skip


class AnsweredOut(BaseModel):
    """The person confirmed an alert, for these villages."""

    alert: str
    villages: list[str]
    how: str
    at: datetime


class RepliedOut(BaseModel):
    """A reply from the person's number, which others may share, and what became of it."""

    channel: str
    outcome: str
    at: datetime


class PersonHistory(BaseModel):
    """What happened to one person, newest first in each list; `earlier`: there is more before, ask with it as until."""

    person: str
    told: list[ToldOut]
    confirmations: list[AnsweredOut]
    replies: list[RepliedOut]
    earlier: datetime | None

    @classmethod
    def of(cls, person: int, past: Past, within: tuple[str, ...]) -> Self:
        """Show a stretch of a history; of confirmed villages only those `within`."""
        answered = [
            AnsweredOut(alert=one.alert, villages=villages, how=one.how, at=one.at)
            for one in past.answered
            if (villages := [village for village in one.villages if village.startswith(within)])
        ]
        return cls(
            person=str(person),
            told=[ToldOut.of(one) for one in past.told],
            confirmations=answered,
            replies=[RepliedOut(channel=one.channel, outcome=one.outcome, at=one.at) for one in past.replied],
            earlier=past.earlier,
        )


class Histories(BaseModel):
    """One history per person: several may share a number."""

    people: list[PersonHistory]


async def history(call: Call) -> Answer:
    """Tell what one person was told; that somebody asked is written down first, whatever is found."""
    form, core = call.form(HistoryIn), call.core
    people = await core.directory.ever_at(form.phone) if form.phone else (int(form.person or 0),)
    within, found = areas_of(core, call.principal), []
    for person in people:
        places, phone_hash = await core.directory.ever_of(person)
        mine = [place for place in places if (place[1] or place[0]).startswith(within)]
        if within and mine:
            # A reply stands at no place: it is told only where none of the person's lies in another area.
            known = phone_hash if len(mine) == len(places) else b""
            past = await core.store.ledger.history(person, mine, known, form.since, form.until, form.limit)
            found.append(PersonHistory.of(person, past, within))
    subject = ",".join(one.person for one in found) or "nobody"
    await core.store.audit.append(Record(core.clock.now(), actor(call.principal), "reveal_history", subject))
    if not found:
        raise Refused(
            404, "unknown_person", "nobody in your area is or was registered so; people erased have an id only"
        )
    return 200, Histories(people=found)


HISTORY = (
    Endpoint(
        "POST", "/v1/people/history", "getHistory",
        "What one person was told, by which channel, why, and what came back, newest first. The number stands in the "
        "body, never in an address; that you asked stands in the audit chain.",
        history, {200: Histories}, (404,), roles=ROLES, body=HistoryIn, kept=False,
    ),
)  # fmt: skip
