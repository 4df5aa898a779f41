"""What people answered: replies, what each of them changed, and officials who have heard but are not at post.

A reply and all it changes are one transaction, and a reply that is known changes nothing: carriers repeat. An incident
(险情) is a reply with an obligation of its own, under the reply's id. Number and text are sealed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from gateway.database import Database, Row, Tx, micros, moment
from gateway.model import Record, Reply
from gateway.store import audit, change, desired
from gateway.store.obligation import open_, open_again

COLUMNS = "id, channel, at, meaning, outcome, secret, people, places, alerts, waiting, incident"


class Answer(NamedTuple):
    """A person's answer to one alert, for the villages of its plan that the person answers for."""

    alert: str
    person: int
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

    async def away(self, alert: str) -> list[Answer]:
        """Officials who have heard of an alert but are not at post, and have not confirmed it either."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT a.person, a.villages FROM away a WHERE a.alert = :alert AND NOT EXISTS (SELECT 1 FROM"
                " confirmation c WHERE c.alert = a.alert AND c.person = a.person) ORDER BY a.at, a.person",
                alert=alert,
            )
        )
        return [Answer(alert, person, tuple(json.loads(villages))) for person, villages in rows]

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
    return bool(added)


def _away(tx: Tx, one: Answer, effect: Effect, actor: str, now: datetime) -> None:
    """Note who is not at post, and let it ring until somebody has called the deputy. No village is confirmed by it."""
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
        open_again(tx, one.alert, "deputy", now)
