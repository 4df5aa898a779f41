"""What a message follows, repeats or collides with: the stored versions that bear on it. Called by `case`, `decision`.

CAP's `references` name the versions a message updates or ends. A feed may name only the first of a chain, or arrive
out of order; a nervous hand may send the same twice; a drill may meet the real thing. Each has one answer here.

**Source:** CAP 1.2 §3.2.1 (references); DESIGN rule 3; duty-room rules D4, D7, D19.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

from gateway.errors import Refused
from gateway.model import Alert, Kind, Target
from gateway.policy.route import ENDS
from gateway.policy.table import COLOURED
from gateway.ports import AlertRow, Outbox
from gateway.regions import Regions
from gateway.regions.target import named
from gateway.standing import LIVE, WAITING, Standing
from gateway.store.around import Around
from gateway.store.meeting import UNDER_REAL, meets

STOP_REASONS = {Kind.UPDATE: "superseded", Kind.CANCEL: "cancelled", Kind.CORRECTION: "corrected"}
LONGEST_CHAIN = 64
_NUMBERS = re.compile(r"[\s0-9０-９零一二三四五六七八九十百千万两.,:：年月日时分秒]+")


class References(NamedTuple):
    """Versions a message refers to, newest first: those whose recipients it concerns, and those that end with it."""

    told: tuple[AlertRow, ...] = ()
    live: tuple[AlertRow, ...] = ()


class Lineage:
    """Asks the store what came before."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def references(self, alert: Alert) -> References:
        """Look up the versions this one refers to, and those that follow them in the same chain.

        Raises:
            Refused: 422 where a drill would touch the real thing, or what is public what is not; 409 where it says what
                was said, or where something sent later is in force already.
        """
        rows: dict[str, AlertRow] = {}
        for reference in alert.references:
            for row in await self._outbox.find(reference.sender, reference.identifier):
                if row.alert.id != alert.id:
                    rows[row.alert.id] = row
        if any(row.alert.status is not alert.status for row in rows.values()):
            raise Refused(422, "status_differs", "a drill never updates or ends a real warning, nor the reverse")
        scopes = {row.alert.scope for row in rows.values()} - {alert.scope}
        if scopes and alert.kind is not Kind.ALERT:
            other = ", ".join(sorted(scopes))
            raise Refused(422, "scope_differs", f"whoever heard the earlier message must hear this one: scope {other}")
        if alert.kind in (Kind.UPDATE, Kind.CANCEL):
            await self._follow(alert, rows)
        newest = sorted(rows.values(), key=lambda row: row.accepted_at, reverse=True)
        told = tuple(row for row in newest if row.standing == Standing.ACTIVE or _mistaken(alert, row))
        if newest and not told and alert.kind in ENDS:
            check_ending(alert.kind, newest)
        return References(told, tuple(row for row in newest if row.standing in LIVE))

    async def _follow(self, alert: Alert, rows: dict[str, AlertRow]) -> None:
        """Add the live successors of the versions referred to: one event has one version in force.

        Raises:
            Refused: 409, one of them was sent after this message.
        """
        open_ = list(rows.values())
        while open_ and len(rows) < LONGEST_CHAIN:
            row = open_.pop()
            for later in await self._outbox.successors(row.alert.sender, row.alert.identifier):
                one = later.alert
                if one.id in rows or one.id == alert.id or one.sender != alert.sender or one.kind is not Kind.UPDATE:
                    continue
                # It came before what it names, when nobody could refuse it.
                if (one.status, one.scope) != (alert.status, alert.scope):
                    continue
                if later.standing not in (Standing.ACTIVE, Standing.STOPPED):
                    continue
                if later.standing == Standing.ACTIVE and one.sent > alert.sent:
                    raise Refused(409, "overtaken", "a later update is in force already; refer to that one")
                rows[one.id] = later
                open_.append(later)


def _mistaken(alert: Alert, row: AlertRow) -> bool:
    """Whether a correction still owes something over a word to those it told."""
    return alert.kind is Kind.CORRECTION and row.standing == Standing.STOPPED and row.reason != "corrected"


def overtaken(alert: Alert, around: Around) -> str:
    """Refuse a first issue that something later already refers to: it would bring stale news after new.

    Where the end of it is here and waits for a decision, return why this must wait for a person, too.

    Raises:
        Refused: 409.
    """
    if alert.kind is not Kind.ALERT:
        return ""
    # A first issue that only mentions this one, perhaps another body's, takes nobody's place.
    # Nor does an exercise that names it: what came before what it names could not be refused then.
    later = [row for row in around.later if row.alert.kind is not Kind.ALERT and row.alert.status is alert.status]
    if any(row.standing in (Standing.ACTIVE, Standing.STOPPED) for row in later):
        raise Refused(
            409, "overtaken", "a later message already updates or ends this one; if it still holds, issue it anew"
        )
    if any(row.standing in WAITING and row.alert.kind in ENDS for row in later):
        return "overtaken: its end arrived before it and waits for a decision; a person must say which holds"
    return ""


def likeness(alert: Alert) -> str:
    """Return the digest of what near-duplicates have in common (D4), "" for what is never grouped.

    Same issuer, scope, document, hazard and level, and the same words but for numbers. Instructions are never grouped,
    nor is what refers to an earlier message.
    """
    if not alert.actual or alert.document not in COLOURED or alert.kind in ENDS:
        return ""
    texts = tuple(f"{info.description}|{info.instruction}|{info.parameter('short_text')}" for info in alert.infos)
    return _digest((alert.sender, alert.scope, alert.document, alert.event_code, alert.event, alert.level.name), texts)


@lru_cache(256)  # asked for when it is checked, and again when it is stored
def _digest(subject: tuple[str, ...], texts: tuple[str, ...]) -> str:
    words = (_NUMBERS.sub("", text) for text in texts)
    return hashlib.sha256("\0".join((*subject, *words)).encode()).hexdigest()[:32]


def repeated(alert: Alert, targets: Sequence[Target], around: Around, regions: Regions, within: timedelta) -> str:
    """Return the id of the live alert of which this one is a near-duplicate (D4), or "".

    No village that is not warned already, and in force about as long: a repetition counts its hours anew. Nor does it
    ask for more: "evacuate" in the same words calls people out of their houses.
    """
    if alert.kind is not Kind.ALERT or alert.references or alert.expires is None:
        return ""
    for row in around.alike:
        ends = row.alert.expires
        lasts = ends is not None and ends >= alert.expires - within
        nobody_new = not regions.difference(named(row.plan.targets), targets)
        if lasts and nobody_new and row.alert.id != alert.id and asked(alert) <= asked(row.alert):
            return row.alert.id
    return ""


def asked(alert: Alert) -> frozenset[str]:
    """Return what an alert asks people to do (CAP `responseType`)."""
    return frozenset(word for info in alert.infos for word in info.response_types)


def check_drill(alert: Alert, targets: Sequence[Target], around: Around) -> None:
    """Refuse a drill where a real orange, red or evacuation is in force (D19).

    The transaction that takes it in looks once more, and stops the drills a real one meets: `gateway.store.meeting`.

    Raises:
        Refused: 409.
    """
    if not alert.actual and meets(alert, targets, around.opposite):
        raise Refused(409, "real_warning", UNDER_REAL)


def stops(kind: Kind, live: Iterable[AlertRow]) -> dict[str, str]:
    """Versions that end when this one starts, and why."""
    reason = STOP_REASONS.get(kind)
    return {row.alert.id: reason for row in live} if reason else {}


def check_ending(kind: Kind, referenced: Sequence[AlertRow]) -> None:
    """Say why there is nobody to tell: it has ended so already, or was never sent. `referenced` is newest first.

    Raises:
        Refused: 409.
    """
    newest = referenced[0]
    if newest.standing not in (Standing.ACTIVE, Standing.STOPPED):
        raise Refused(409, "never_sent", "what it refers to has not been sent; reject it, or withdraw it, instead")
    if newest.standing == Standing.STOPPED and newest.reason == "corrected":
        raise Refused(409, "already_corrected", "a correction has gone out already; nobody is told twice")
    if kind is Kind.CANCEL and newest.standing == Standing.STOPPED and newest.reason == "cancelled":
        raise Refused(409, "already_ended", "the all-clear has gone out already; nobody is told twice")
