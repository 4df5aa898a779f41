"""Handlers of everything under /v1/alerts. Each says what is done; who may, and in which form, says the table."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.api.access import areas_of, sees, touches
from gateway.api.endpoint import Answer, Call
from gateway.api.shape import (
    AlertLine,
    AlertOut,
    AlertsPage,
    AlertsQuery,
    Confirmation,
    ConfirmationIn,
    Confirmations,
    Confirmed,
    DeliveriesPage,
    DeliveriesQuery,
    Delivery,
    NoteIn,
    ReasonIn,
    Standing,
    StuckOut,
    Texts,
    Waiting,
)
from gateway.api.told import taken, told
from gateway.errors import Refused
from gateway.intake import actor
from gateway.model import Batch, Group, Level, State
from gateway.ports import AlertRow
from gateway.preview import gathered, halts, preview, scope_name, texts_of
from gateway.report import EVERYWHERE, status
from gateway.standing import WAITING
from gateway.store.listing import Key, Wanted
from gateway.store.outbox import HELD
from gateway.transaction import moment

PARTS = 5  # of the list, looked through for one page of what the caller may see


async def submit(call: Call) -> Answer:
    """Take a warning in."""
    return await taken(call, await call.core.intake.submit(call.data, call.principal, call.received))


async def show_preview(call: Call) -> Answer:
    """Say what submitting would do."""
    return 200, await preview(call.core, call.data, call.principal, call.received)


async def list_alerts(call: Call) -> Answer:
    """Page through the alerts the caller may see."""
    asked = call.asked(AlertsQuery)
    wanted, after = _wanted(call, asked), _key(asked.after)
    found = list[AlertRow]()
    for _ in range(PARTS):
        rows, after = await call.core.store.listing.part(wanted, after, asked.limit - len(found))
        found += [row for row in rows if sees(call.core, call.principal, row) and touches(row, asked.area)]
        if after is None or len(found) == asked.limit:
            break
    further = f"{after.accepted_at}.{after.id}" if after else None
    shown = [AlertLine.of(row) for row in found]
    return 200, AlertsPage(alerts=shown, next=further, halts=await _halts(call))


async def _halts(call: Call) -> list[str]:
    """Return the halted scopes the caller is concerned by: counties of one's area, channels, all."""
    mine = areas_of(call.core, call.principal)
    return [
        scope_name(scope)
        for scope in await call.core.store.outbox.halts()
        if not scope.isdecimal() or any(scope.startswith(one) or one.startswith(scope) for one in mine)
    ]


def _wanted(call: Call, asked: AlertsQuery) -> Wanted:
    core, mine = call.core, call.core.policy.issuer(call.principal.issuer)
    issuer = core.policy.issuer(asked.issuer)
    return Wanted(
        standing=tuple(one for name in asked.standing for one in (sorted(WAITING) if name == HELD else (name,))),
        status=tuple(asked.status),
        document=tuple(asked.document),
        level=tuple(Level[level.upper()].value for level in asked.level),
        hazard=asked.hazard,
        sender=issuer.sender if issuer else asked.issuer,
        area=asked.area,
        since=asked.since,
        until=asked.until,
        within=areas_of(core, call.principal),
        own=mine.sender if mine else "",
    )


def _key(after: str) -> Key | None:
    at, _, alert = after.partition(".")
    return Key(int(at), alert) if after else None


async def show(call: Call) -> Answer:
    """One alert."""
    return 200, AlertOut.of(await call.row())


async def show_texts(call: Call) -> Answer:
    """The texts of one alert, as they leave or would."""
    row = await call.row()
    found = await texts_of(call.core, row.alert, row.plan)
    return 200, Texts(texts=found, findings=gathered(found))


async def show_cap(call: Call) -> Answer:
    """One alert as CAP XML."""
    return 200, await call.core.keys.publish((await call.row()).alert, call.core.clock.now())


async def stuck(call: Call) -> Answer:
    """What has no outcome yet, and why, as far as the caller may see it."""
    core, seen, found = call.core, dict[str, tuple[str, ...]](), list[Waiting]()
    for one in await core.store.stuck.all(core.channels):
        if one.alert not in seen:
            row = await core.store.outbox.alert(one.alert)
            seen[one.alert] = sees(core, call.principal, row) if row else ()
        if any(one.county.startswith(area) or area.startswith(one.county) for area in seen[one.alert]):
            found.append(Waiting.model_validate(one._asdict()))
    return 200, StuckOut(waiting=found)


async def approve(call: Call) -> Answer:
    """Let what waits go out."""
    row = await call.row()
    return 200, await told(call, await call.core.decisions.approve(row.alert.id, call.principal))


async def reject(call: Call) -> Answer:
    """End a held alert without sending it."""
    row = await call.row()
    await call.core.decisions.reject(row.alert.id, call.principal, call.form(ReasonIn).reason)
    return 200, _standing(await call.row())


async def recall(call: Call) -> Answer:
    """Stop an alert at once."""
    row = await call.row()
    await call.core.decisions.recall(row.alert.id, call.principal, call.form(ReasonIn).reason)
    return 200, _standing(await call.row())


def _standing(row: AlertRow) -> Standing:
    return Standing(id=row.alert.id, standing=row.standing, reason=row.reason)


async def cancel(call: Call) -> Answer:
    """Send the all-clear in the issuer's name."""
    row = await call.row()
    return await taken(call, await call.core.decisions.cancel(row.alert.id, call.principal, call.form(NoteIn).note))


async def correct(call: Call) -> Answer:
    """Revoke a mistake in the issuer's name."""
    row = await call.row()
    note = call.form(NoteIn).note
    return await taken(call, await call.core.decisions.cancel(row.alert.id, call.principal, note, correction=True))


async def show_status(call: Call) -> Answer:
    """What was sent, and which villages are reached."""
    row = await call.row()
    found = await status(call.core, row, sees(call.core, call.principal, row))
    return 200, found.model_copy(update={"halts": await halts(call.core, row.plan)})


async def deliveries(call: Call) -> Answer:
    """Where each recipient stands, without addresses."""
    row, asked = await call.row(), call.asked(DeliveriesQuery)
    within = sees(call.core, call.principal, row)
    pages = await call.core.store.ledger.batches(row.alert.id, asked.group, asked.after, asked.limit)
    people = [one for one in pages if one[0].group is not Group.AREA]
    shown = [one for batch, states in people for one in _deliveries(batch, states, within)]
    return 200, DeliveriesPage(deliveries=shown, next=pages[-1][0].id if len(pages) == asked.limit else None)


def _deliveries(batch: Batch, states: bytes, within: tuple[str, ...]) -> list[Delivery]:
    return [
        Delivery(
            batch=batch.id,
            position=position,
            recipient=str(person),
            township=batch.township,
            village=village,
            channel=batch.channel,
            group=batch.group,
            state=State(state).name.lower(),
        )
        for position, (person, village, state) in enumerate(zip(batch.persons, batch.village_of(), states, strict=True))
        if (village or batch.township).startswith(within)
    ]


async def confirmations(call: Call) -> Answer:
    """Who answered, for which villages."""
    row = await call.row()
    within = sees(call.core, call.principal, row)
    found = await call.core.store.ledger.confirmations(row.alert.id)
    shown = [
        Confirmation(person="" if person < 0 else str(person), how=how, at=moment(at),
                     villages=[one for one in villages if one.startswith(within)])
        for person, villages, how, at in found
    ]  # fmt: skip
    return 200, Confirmations(confirmations=[one for one in shown if one.villages or within == EVERYWHERE])


async def confirm(call: Call) -> Answer:
    """Write down that an official, or somebody answerable for a village, answered a clerk."""
    row, form, receipts = await call.row(), call.form(ConfirmationIn), call.core.receipts
    if row.standing not in ("active", "stopped"):
        raise Refused(409, "not_issued", "this alert has not been issued, so nobody can confirm it")
    within = sees(call.core, call.principal, row)
    concerned = {one for one in call.core.regions.expand(row.plan.targets) if one.startswith(within)}
    how, by = f"{form.how}: {form.note}" if form.note else form.how, actor(call.principal)
    if form.village:
        if form.village not in concerned:
            raise Refused(422, "not_answerable", f"{form.village} is no village of the alert in your area")
        new = await receipts.confirm_village(row.alert.id, form.village, how, by)
    else:
        person = int(form.person)
        places = await call.core.directory.places_of(person)
        if concerned.isdisjoint(village for _, village in places):
            raise Refused(422, "not_answerable", _why_not(places, row, within))
        new = await receipts.confirm(row.alert.id, person, how, by)
    return 200, Confirmed(result="confirmed" if new else "known")


def _why_not(places: Sequence[tuple[str, str]], row: AlertRow, within: tuple[str, ...]) -> str:
    """Say why a person confirms no village of an alert, and what does."""
    townships = {target.township for target in row.plan.targets}
    posts = [one for one, village in places if not village and one in townships and one.startswith(within)]
    if posts:
        return (
            f"this official has a post of the township {posts[0]} and answers for none of its villages: a township's "
            "post does not stand for them. Call each village, and confirm the village itself by its code"
        )
    return (
        "this person answers for no village of the alert in your area: give the recipient of a delivery to officials, "
        "or confirm the village itself by its code"
    )
