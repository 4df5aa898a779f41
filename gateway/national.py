"""One unified mouth (D22): every public actual alert carries its number on the national platform (国突), or "pending".

Called by the API and by the timer `national`. The platform has no interface here: a number comes from the message
itself (its identifier has the national form), from a person, from the platform's own message of the same warning
(kept back as a near-duplicate, D4), or from a listing of the platform's alerts, with which each day is reconciled. An
alert that nobody has matched within the policy's minutes rings, then each hour while it is
in force: the gateway disseminates, and is no second issuer.

**Source:** duty-room rule D22; GB/T 35965.1 for the number. Interoperability unverified.
"""

from __future__ import annotations

from bisect import bisect, bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from typing import NamedTuple

from gateway import log, metrics
from gateway.cap import Number
from gateway.cap.national_title import END, Title, read_title
from gateway.errors import Refused
from gateway.intake import actor
from gateway.lineage import likeness
from gateway.model import Alert, Kind, Record
from gateway.policy import Policy, Principal
from gateway.policy.hazard import CHINA
from gateway.policy.table import WRITERS
from gateway.ports import AlertRow, Clock
from gateway.standing import Standing
from gateway.store import Store
from gateway.store.national import Match, Numbered

REPEAT = timedelta(hours=1)
KEPT_BACK = 100  # near-duplicates looked through
APART = timedelta(minutes=10)
"""How far the platform's time of an alert may lie from ours."""
MAY = WRITERS | {"clerk"}

_log = log.get("national")


class Listed(NamedTuple):
    """One alert as the platform lists it. `sender` is the unit's code or name."""

    number: str
    sender: str
    title: str
    sent: datetime


class Reconciled(NamedTuple):
    """A day here and on the platform: on both sides (of these, `found` now), and on one side only."""

    both: int
    found: list[tuple[AlertRow, str]]
    here: list[tuple[AlertRow, Numbered]]
    there: list[Listed]


class Nationals:
    """Matches numbers, rings for what has none, and reconciles days."""

    def __init__(self, store: Store, policy: Callable[[], Policy], clock: Clock) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock

    async def number(self, row: AlertRow, principal: Principal, number: str) -> str:
        """Write down which number a person found for an alert; a wrong one is put right so.

        Raises:
            Refused: 403 not its issuer's people, 409 another alert has it, or none is due, 422 no number.
        """
        policy, alert = self._policy(), row.alert
        if principal.role not in MAY or policy.issuer(principal.issuer) != policy.issuer(alert.sender):
            raise Refused(403, "not_entitled", "only the issuing body's own people may write down its number")
        if Number.of(number) is None:
            raise Refused(422, "no_number", "write the number as ZZZZZZDDDUUUXX_YYYYMMDDhhmmss, or with _N behind it")
        record = Record(self._clock.now(), actor(principal), "national", alert.id, number)
        match await self._store.national.match(alert.id, number, "person", record, replace=True):
            case Match.TAKEN:
                raise Refused(409, "number_taken", "another alert has this number; look at both before you decide")
            case Match.NOT_DUE:
                raise Refused(
                    409, "no_number_due", "it has not gone out, or is not public and actual: it has no number"
                )
            case found:
                await self._store.timers.done("national", alert.id)
                return str(found)

    async def due(self, alert: str) -> datetime | None:
        """Handler of the timer `national`: ring while the number is missing and the alert in force."""
        found = await self._store.national.of(alert)
        row = await self._store.outbox.alert(alert)
        if found is None or row is None or not found.pending or row.standing != Standing.ACTIVE:
            return None
        now = self._clock.now()
        if number := await self._echo(row):
            record = Record(now, "clock", "national", alert, number)
            if await self._store.national.match(alert, number, "message", record) is Match.MATCHED:
                return None
        metrics.alarms.labels("national").inc()
        waits_min = (now - found.since) // timedelta(minutes=1)
        _log.critical("no_national_number", alert=alert, waits_min=waits_min, call="the platform's duty desk")
        return now + REPEAT

    async def _echo(self, row: AlertRow) -> str:
        """Return the number of the one message of the platform that was kept back because it says the same, or ""."""
        like = likeness(row.alert)
        kept = await self._store.outbox.alerts(limit=KEPT_BACK, standing=Standing.SUPPRESSED) if like else []
        numbers = [
            one.alert.identifier
            for one in kept
            if one.alert.sender == row.alert.sender
            and Number.of(one.alert.identifier) is not None
            and likeness(one.alert) == like
        ]
        return numbers[0] if len(numbers) == 1 else ""

    def outward(self, row: AlertRow) -> Alert:
        """Return the alert as the platform knows its issuer and number, for writing in the national dialect."""
        issuer = self._policy().issuer(row.alert.sender)
        unit = issuer.national if issuer and issuer.national else row.alert.sender
        references = tuple(
            one._replace(sender=unit) if one.sender == row.alert.sender else one for one in row.alert.references
        )
        return replace(row.alert, sender=unit, identifier=row.national or row.alert.identifier, references=references)

    # --- reconciliation ---------------------------------------------------------------------------

    async def reconcile(self, principal: Principal, day: date, listed: Sequence[Listed]) -> Reconciled:
        """Compare a day's alerts with the platform's listing; what is named beyond doubt gets its number.

        Ours are the alerts of every issuer within the caller's area. The audit chain keeps that it was done.

        Raises:
            Refused: 403.
        """
        issuer = self._policy().issuer(principal.issuer)
        if issuer is None or principal.role not in MAY:
            raise Refused(403, "not_entitled", f"only people of an issuing body reconcile: {', '.join(sorted(MAY))}")
        begin = datetime.combine(day, time(), CHINA)
        every = await self._store.national.sent_between(begin - APART, begin + timedelta(days=1) + APART)
        ours = [one for one in every if self._within(one[0].alert, issuer.areas)]
        who, now = actor(principal), self._clock.now()
        found = [
            (row, entry.number)
            for row, entry in self._named(ours, listed)
            if await self._store.national.match(
                row.alert.id, entry.number, "listing", Record(now, who, "national", row.alert.id, entry.number)
            )
            is Match.MATCHED
        ]
        numbers = {row.alert.id: number for row, number in found}
        ours = [(row, one._replace(number=numbers.get(row.alert.id, one.number))) for row, one in ours]
        result = compared(ours, listed, begin)._replace(found=found)
        told = f"{day}: {result.both} on both sides, {len(result.here)} only here, {len(result.there)} only there"
        await self._store.audit.append(Record(now, who, "reconcile", issuer.id, told))
        return result

    def _within(self, alert: Alert, areas: Sequence[str]) -> bool:
        body = self._policy().issuer(alert.sender)
        return body is not None and all(area.startswith(tuple(areas)) for area in body.areas)

    def _named(
        self, ours: Sequence[tuple[AlertRow, Numbered]], listed: Sequence[Listed]
    ) -> Iterator[tuple[AlertRow, Listed]]:
        """Yield pending alerts with the one entry that means them, where no other could be meant on either side."""
        known = _Numbers(one.number for _, one in ours)
        pending = [row for row, one in ours if one.pending]
        earliest = [row.alert.sent - APART for row in pending]  # in order, as `ours` is
        latest = [row.alert.sent + APART for row in pending]
        meant = []
        for entry in listed:
            number = Number.of(entry.number)
            if number is None or number in known:
                continue
            title, near = read_title(entry.title), slice(bisect_left(latest, entry.sent), bisect(earliest, entry.sent))
            rows = [row for row in pending[near] if self._means(entry, number, title, row.alert)]
            meant.append((entry, rows))
        claims = Counter(row.alert.id for _, rows in meant for row in rows)
        for entry, rows in meant:
            if len(rows) == 1 and claims[rows[0].alert.id] == 1:
                yield rows[0], entry

    def _means(self, entry: Listed, number: Number, title: Title, alert: Alert) -> bool:
        """Whether an entry of about that time says what an alert says: unit, end or not, event and level."""
        body = self._policy().issuer(alert.sender)
        if body is None:
            return False
        unit = number.unit == body.national or (entry.sender and entry.sender in (body.name, body.signature))
        ends = (title.verb == END) is (alert.kind in (Kind.CANCEL, Kind.CORRECTION))
        return bool(unit) and ends and title.colours == {alert.level} and title.event == alert.event


class _Numbers:
    """National numbers, asked for with or without their sequences; what is no number is none of them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._sequences: dict[tuple[str, datetime], set[str]] = {}
        for number in filter(None, map(Number.of, texts)):
            self._sequences.setdefault((number.unit, number.entered), set()).add(number.sequence)

    def __contains__(self, number: Number) -> bool:
        found = self._sequences.get((number.unit, number.entered), ())
        return bool(found) and (not number.sequence or "" in found or number.sequence in found)


def compared(ours: Sequence[tuple[AlertRow, Numbered]], listed: Sequence[Listed], begin: datetime) -> Reconciled:
    """Return what stands on both sides and on one only; of ours, what was sent on the day that `begin` begins."""
    end = begin + timedelta(days=1)
    theirs, mine = _Numbers(entry.number for entry in listed), _Numbers(one.number for _, one in ours)

    def among(text: str, others: _Numbers) -> bool:
        number = Number.of(text)
        return number is not None and number in others

    there = [entry for entry in listed if not among(entry.number, mine)]
    here = [(row, one) for row, one in ours if begin <= row.alert.sent < end and not among(one.number, theirs)]
    return Reconciled(len(listed) - len(there), [], here, there)
