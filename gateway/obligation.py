"""What the duty room owes, and who may answer: one table, one alarm. Called by the API and the timers.

| kind | opened by | answered with |
| --- | --- | --- |
| review | a green alert: its review afterwards | endorsed, objected |
| countersign | a telephone authorisation or a sealed code (D3) | signed, refused |
| calls | an alert under the emergency regime: villages are called by people (D8) | done |
| lapse | 30 minutes before an alert lapses | continue, downgrade, cancel, lapse |
| emergency_review | an emergency regime: its review form (D8) | filed |
| deputy | an official who has heard but is not at post: the deputy is to be called (D15) | done |
| incident | a reply that needs support or reports danger 险情 (D16) | issue, village_alarm, refer, unfounded |
| village_alarm | a village that has sounded its own alarm (D13) | issue, refer, noted, unfounded |
| drill_missed | an approved drill the gateway did not begin (D19): its approver is to know | noted |

From its due time on it rings until somebody has answered, or the alert it belongs to is over. Unanswered ones stand
in the daily report. A further official who is away opens `deputy` again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from gateway import log, metrics
from gateway.errors import Refused
from gateway.intake import actor
from gateway.model import Obligation, Record
from gateway.policy import Policy, Principal
from gateway.policy.table import WRITERS
from gateway.ports import Clock
from gateway.standing import Standing
from gateway.store import Store
from gateway.store.obligation import ENDS_WITH_ALERT

REPEAT = timedelta(minutes=5)
AT_ONCE = timedelta(minutes=1)  # somebody waits for it in the rain
SOMEWHERE = frozenset({"incident", "village_alarm"})
"""Kinds that belong to a place and to no alert."""
OTHERS = frozenset({"review", "countersign"})
"""Kinds that the writer of the alert does not answer."""

_log = log.get("obligation")


class Rule(NamedTuple):
    """Who answers an obligation, and with which words. `remark`: it says nothing without one. `every`: it rings."""

    roles: frozenset[str]
    answers: tuple[str, ...]
    remark: bool = False
    every: timedelta = REPEAT


RULES: Mapping[str, Rule] = {
    "review": Rule(frozenset({"reviewer", "signer"}), ("endorsed", "objected")),
    "countersign": Rule(frozenset({"signer"}), ("signed", "refused")),
    "calls": Rule(WRITERS | {"clerk"}, ("done",)),
    "lapse": Rule(WRITERS, ("continue", "downgrade", "cancel", "lapse")),
    "emergency_review": Rule(frozenset({"signer"}), ("filed",), remark=True),
    "deputy": Rule(WRITERS | {"clerk"}, ("done",), every=AT_ONCE),
    "incident": Rule(WRITERS | {"clerk"}, ("issue", "village_alarm", "refer", "unfounded"), remark=True, every=AT_ONCE),
    "village_alarm": Rule(WRITERS | {"clerk"}, ("issue", "refer", "noted", "unfounded"), remark=True, every=AT_ONCE),
    "drill_missed": Rule(frozenset({"signer"}), ("noted",)),
}


class Obligations:
    """Answers obligations, and rings for those that are due."""

    def __init__(self, store: Store, policy: Callable[[], Policy], clock: Clock) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock

    async def answer(self, alert: str, kind: str, principal: Principal, answer: str, remark: str = "") -> None:
        """Write down a person's answer.

        Raises:
            Refused: 403 not entitled, 404 there is none, 409 answered already, 422 another answer or no remark.
        """
        found = await self._store.obligations.get(alert, kind)
        rule = RULES.get(kind)
        if found is None or rule is None:
            raise Refused(404, "unknown_obligation", "there is no such obligation; GET /v1/obligations lists them")
        if answer not in rule.answers:
            raise Refused(422, "wrong_answer", f"{kind} is answered with one of: {', '.join(rule.answers)}")
        if rule.remark and not remark:
            raise Refused(422, "no_remark", f"{kind} needs a remark: what was done, and what is to change")
        if principal.role not in rule.roles:
            raise Refused(403, "not_entitled", f"{kind} is answered by one of: {', '.join(sorted(rule.roles))}")
        who = actor(principal)
        await self._entitled(alert, kind, principal)
        record = Record(self._clock.now(), who, f"{kind}:{answer}", alert)
        if not await self._store.obligations.answer(alert, kind, answer, remark, record):
            raise Refused(409, "answered", "somebody has answered it already")

    async def _entitled(self, alert: str, kind: str, principal: Principal) -> None:
        """Refuse who may not answer: what happens somewhere, by those of its area, all else by the issuing body."""
        mine = self._policy().issuer(principal.issuer)
        if kind in SOMEWHERE:
            if mine is None or not await happens_within(self._store, alert, kind, mine.areas):
                raise Refused(403, "not_entitled", "only people of the area it happens in decide on it")
            return
        issuer, writer = await self._owner(alert)
        if mine != self._policy().issuer(issuer):
            raise Refused(403, "not_entitled", "only the issuing body's own people answer for it")
        if kind in OTHERS and actor(principal) == writer:
            raise Refused(403, "own_alert", "nobody reviews or signs their own; ask a second person")

    async def _owner(self, alert: str) -> tuple[str, str]:
        """Return the issuing body and the writer of what it belongs to: an alert, a drill or an emergency regime."""
        row = await self._store.outbox.alert(alert)
        if row is not None:
            return row.alert.sender, row.issuer
        if drill := await self._store.drills.get(alert):
            return drill.issuer, drill.planner
        regime = await self._store.regimes.get(alert)
        if regime is None:
            raise Refused(404, "unknown_obligation", "what it belongs to is not here any more")
        return regime.issuer, regime.actor

    async def due(self, name: str) -> datetime | None:
        """Handler of the timer `obligation`: ring; return when to ring again, None once it is over."""
        alert, _, kind = name.partition(" ")
        found = await self._store.obligations.get(alert, kind)
        if found is None or found.answered_at is not None or await self._over(found):
            return None
        now = self._clock.now()
        if found.due > now:
            return found.due
        metrics.alarms.labels({"incident": "incident", "village_alarm": "village_alarm"}.get(kind, "obligation")).inc()
        _log.critical("obligation_due", alert=alert, kind=kind, answers=RULES[kind].answers)
        return now + RULES[kind].every

    async def _over(self, found: Obligation) -> bool:
        if found.kind not in ENDS_WITH_ALERT:
            return False
        row = await self._store.outbox.alert(found.alert)
        return row is None or row.standing != Standing.ACTIVE


async def happens_within(store: Store, name: str, kind: str, areas: Sequence[str]) -> bool:
    """Whether an incident or a village alarm is of a place below one of these codes."""
    if kind == "incident":
        found = await store.replies.get(name)
        return found is not None and found.within(areas)
    sounded = await store.sounded.get(name)
    return sounded is not None and sounded.village.startswith(tuple(areas))
