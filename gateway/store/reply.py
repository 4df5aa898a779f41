"""What people answered: replies, what each of them changed, and officials who have heard but are not at post.

A reply and all it changes are one transaction, and a reply that is known changes nothing: carriers repeat. An incident
(险情) is a reply with an obligation of its own, under the reply's id. Number and text are sealed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from gateway.database import Database
from gateway.model import Batch, Record, Reply
from gateway.store import audit, change, desired
from gateway.store.obligation import open_, open_again, settle
from gateway.store.rows import add_batches
from gateway.transaction import Row, Tx, micros, moment

COLUMNS = "id, channel, at, meaning, outcome, secret, people, places, alerts, waiting, incident"


DEPUTY_ANSWERS = timedelta(minutes=5)  # then the duty room calls the deputy
AWAY = (
    "SELECT a.person, a.villages, a.deputy FROM away a WHERE a.alert = :alert AND NOT EXISTS (SELECT 1 FROM"
    " confirmation c WHERE c.alert = a.alert AND c.person IN (a.person, a.deputy)) ORDER BY a.at, a.person"
)


class Answer(NamedTuple):
    """A person's answer to one alert, for the villages of its plan that the person answers for.

    `message`: of somebody away, what the deputy is to be told.
    """

    alert: str
    person: int
    villages: tuple[str, ...]
    message: Batch | None = None


class Away(NamedTuple):
    """An official who is not at post, and the deputy who was told in their stead (0: nobody)."""

    person: int
    villages: tuple[str, ...]
    deputy: int


class Stead(NamedTuple):
    """What a deputy was told in somebody's stead: of which alert, under which place, and for which villages."""

    alert: str
    township: str
    village: str
    villages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a reply changes: who is at post, who is not, and whether it reports danger. `how` holds no words of it."""

    how: str
    at: datetime
    confirmed: tuple[Answer, ...] = ()
    away: tuple[Answer, ...] = ()
    incident: bool = False

    @property
    def alerts(self) -> list[str]:
        """The alerts it answers."""
        return sorted({one.alert for one in (*self.confirmed, *self.away)})


@dataclass(frozen=True, slots=True)
class Received:
    """A reply to be written: what it means, who may have written it, and what it changes.

    `secret` is the sealed number and text; `waiting`: a clerk has to settle it.
    """

    id: str
    reply: Reply
    phone_hash: bytes
    secret: bytes
    meaning: str
    outcome: str
    people: tuple[int, ...]
    places: tuple[str, ...]
    effect: Effect
    alerts: tuple[str, ...] = ()
    waiting: bool = False


class Found(NamedTuple):
    """A reply as it is held; `secret` is None once it was erased."""

    id: str
    channel: str
    at: datetime
    meaning: str
    outcome: str
    secret: bytes | None
    people: tuple[int, ...]
    places: tuple[str, ...]
    alerts: tuple[str, ...]
    waiting: bool
    incident: bool

    def within(self, areas: Sequence[str]) -> bool:
        """Whether it came from a place below one of these codes, or around it."""
        return any(place.startswith(area) or area.startswith(place) for place in self.places for area in areas)


class SqlReplies:
    """The facet for replies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known(self, replies: Sequence[Reply]) -> frozenset[tuple[str, str]]:
        """Return those that were written before, by (account, reference)."""
        references = sorted({one.reference for one in replies})
        rows = await self._database.read(
            lambda tx: tx.all("SELECT account, reference FROM reply WHERE reference IN :*references AND account IN"
                              " :*accounts", references=references, accounts=sorted({one.account for one in replies}))
        )  # fmt: skip
        return frozenset((account, reference) for account, reference in rows)

    async def keep(self, kept: Sequence[Received], now: datetime) -> list[bool]:
        """Write replies with all they change; False for one that is known, which changes nothing."""
        return await self._database.write(lambda tx: [_keep(tx, one, now) for one in kept], 5.0, decides=True)

    async def settle(self, reply: str, outcome: str, effect: Effect, people: Sequence[int], record: Record) -> bool:
        """Write what a clerk made of a reply; False if it does not wait any more."""

        def operation(tx: Tx) -> bool:
            if not tx.run(
                "UPDATE reply SET waiting = 0, outcome = :outcome, people = :people, alerts = :alerts,"
                " incident = CASE WHEN :incident = 1 THEN 1 ELSE incident END WHERE id = :id AND waiting = 1",
                outcome=outcome,
                people=json.dumps(list(people)),
                alerts=json.dumps(effect.alerts),
                incident=int(effect.incident),
                id=reply,
            ):
                return False
            audit.append(tx, [record])
            _carry_out(tx, reply, effect, record.actor, record.at)
            return True

        return await self._database.write(operation, decides=True)

    async def get(self, reply: str) -> Found | None:
        """One reply."""
        return next(iter(await self._rows("WHERE id = :id", id=reply)), None)

    async def waiting(self, limit: int) -> list[Found]:
        """Those a clerk has to settle, newest first."""
        return await self._rows("WHERE waiting = 1 ORDER BY at DESC, id LIMIT :limit", limit=limit)

    async def incidents(self, since: datetime, limit: int) -> list[Found]:
        """Incidents since then and, from whenever, those nobody has decided on, newest first."""
        tail = (
            "WHERE incident = 1 AND (at >= :since OR EXISTS (SELECT 1 FROM obligation o WHERE o.alert = reply.id"
            " AND o.kind = 'incident' AND o.answered_at IS NULL)) ORDER BY at DESC, id LIMIT :limit"
        )
        return await self._rows(tail, since=micros(since), limit=limit)

    async def away(self, alert: str) -> list[Away]:
        """Officials who have heard of an alert but are not at post; neither they nor their deputy has confirmed it."""
        rows = await self._database.read(lambda tx: tx.all(AWAY, alert=alert))
        return [Away(person, tuple(json.loads(villages)), deputy) for person, villages, deputy in rows]

    async def is_away(self, alert: str, person: int) -> bool:
        """Whether an official has said of an alert, sometime, not to be at post."""
        sql = "SELECT 1 FROM away WHERE alert = :alert AND person = :person"
        return await self._database.read(lambda tx: tx.one(sql, alert=alert, person=person)) is not None

    async def in_stead(self, deputy: int) -> list[Stead]:
        """What an official was told as somebody's deputy."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT alert, township, village, villages FROM away WHERE deputy = :deputy ORDER BY alert",
                deputy=deputy,
            )
        )
        return [Stead(alert, township, village, tuple(json.loads(own))) for alert, township, village, own in rows]

    async def _rows(self, tail: str, **values: object) -> list[Found]:
        rows = await self._database.read(lambda tx: tx.all(f"SELECT {COLUMNS} FROM reply {tail}", **values))
        return [_found(row) for row in rows]


def _found(row: Row) -> Found:
    id_, channel, at, meaning, outcome, secret, people, places, alerts, waiting, incident = row
    return Found(
        id_, channel, moment(at), meaning, outcome, bytes(secret) if secret is not None else None,
        tuple(json.loads(people)), tuple(json.loads(places)), tuple(json.loads(alerts)), bool(waiting), bool(incident),
    )  # fmt: skip


def _keep(tx: Tx, one: Received, now: datetime) -> bool:
    reply = one.reply
    added = tx.run(
        "INSERT INTO reply (account, reference, channel, phone_hash, text, at, outcome, id, meaning, secret, people,"
        " places, alerts, waiting, incident) VALUES (:account, :reference, :channel, :phone_hash, '', :at, :outcome,"
        " :id, :meaning, :secret, :people, :places, :alerts, :waiting, :incident) ON CONFLICT DO NOTHING",
        account=reply.account,
        reference=reply.reference,
        channel=reply.channel,
        phone_hash=one.phone_hash,
        at=micros(one.effect.at),
        outcome=one.outcome,
        id=one.id,
        meaning=one.meaning,
        secret=one.secret,
        people=json.dumps(one.people),
        places=json.dumps(one.places),
        alerts=json.dumps(one.alerts),
        waiting=int(one.waiting),
        incident=int(one.effect.incident),
    )
    if added:
        actor = f"person:{one.people[0]}" if len(one.people) == 1 else f"reply:{reply.channel}"
        _carry_out(tx, one.id, one.effect, actor, now)
    return bool(added)


def _carry_out(tx: Tx, reply: str, effect: Effect, actor: str, now: datetime) -> None:
    """Write what a reply changes."""
    for one in effect.confirmed:
        record = Record(now, actor, "confirm", one.alert, effect.how)
        confirm(tx, one.alert, one.person, one.villages, effect.how, record, effect.at)
    for one in effect.away:
        _away(tx, one, effect, actor, now)
    if effect.incident:
        open_(tx, reply, {"incident": now}, now)
        audit.append(tx, [Record(now, actor, "incident", reply, effect.how)])


def confirm(tx: Tx, alert: str, person: int, villages: Sequence[str], how: str, record: Record, at: datetime) -> bool:
    """Write inside an operation that a person answered for this version at that time; False if already known."""
    added = tx.run(
        "INSERT INTO confirmation (alert, person, at, how, villages) VALUES (:alert, :person, :at, :how, :villages)"
        " ON CONFLICT DO NOTHING",
        alert=alert,
        person=person,
        at=micros(at),
        how=how,
        villages=json.dumps(list(villages)),
    )
    if added:
        audit.append(tx, [record])
        change.note(tx, "confirmed", alert, str(person))
        desired.hush(tx, alert, villages)  # its loudspeakers repeat a red warning no longer (D13)
        stood_in = tx.one("SELECT 1 FROM away WHERE alert = :alert AND deputy = :person", alert=alert, person=person)
        if stood_in and not tx.all(AWAY, alert=alert):
            settle(tx, alert, "deputy", record)
    return bool(added)


def _away(tx: Tx, one: Answer, effect: Effect, actor: str, now: datetime) -> None:
    """Note who is not at post, tell the deputy, and let it ring until somebody has called that one.

    It rings at once where no deputy is told. No village is confirmed by it.
    """
    if tx.run(
        "INSERT INTO away (alert, person, at, villages, how) VALUES (:alert, :person, :at, :villages, :how)"
        " ON CONFLICT DO NOTHING",
        alert=one.alert,
        person=one.person,
        at=micros(effect.at),
        villages=json.dumps(one.villages),
        how=effect.how,
    ):
        audit.append(tx, [Record(now, actor, "away", one.alert, effect.how)])
        change.note(tx, "away", one.alert, str(one.person))
        told = one.message is not None and _told(tx, one, one.message, actor, now)
        open_again(tx, one.alert, "deputy", now, now + DEPUTY_ANSWERS if told else now)


def _told(tx: Tx, one: Answer, message: Batch, actor: str, now: datetime) -> bool:
    """Write the deputy's message; False where the alert is over or the deputy has it in another's stead (rule 6)."""
    (deputy,) = message.persons
    live = tx.one("SELECT 1 FROM alert WHERE id = :alert AND standing = 'active'", alert=one.alert)
    if not live or tx.one("SELECT 1 FROM away WHERE alert = :alert AND deputy = :one", alert=one.alert, one=deputy):
        return False
    tx.run(
        "UPDATE away SET deputy = :deputy, township = :township, village = :village"
        " WHERE alert = :alert AND person = :person",
        deputy=deputy,
        township=message.township,
        village=message.villages[0][0],
        alert=one.alert,
        person=one.person,
    )
    add_batches(tx, [message], now)
    audit.append(tx, [Record(now, actor, "deputy", one.alert, f"person:{deputy}")])
    return True
