"""The route of one alert: green channel, emergency regime, the normal stages, or a drill. Pure; asked through `Policy`.

Green means fewer approvals, never fewer checks. Whatever is held says why (D2); nothing that ends or reduces a
warning is green (D7); a limit alarms but never blocks red (D5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.mark import marked
from gateway.model import Alert, Document, Kind, Level, Status, Target
from gateway.policy.hazard import CHINA, agrees, colour_finding
from gateway.policy.table import COLOURED, Issuer, area_covers
from gateway.policy.tables import Tables
from gateway.standing import Standing
from gateway.telling import SHORT_TEXT

ENDS = (Kind.CANCEL, Kind.CORRECTION)
NEVER_URGENT = (Document.RETURN, Document.SERVICE)
"""Documents the emergency regime never hurries."""
NAMES_HAZARD = COLOURED | {Document.NOWCAST}
"""Documents that are about a hazard, so that a missing code is a finding."""
_UNSIGNED = (
    "correction: it waits for a signer to approve it, or for a telephone authorisation; a signer's own goes out at once"
)


@dataclass(frozen=True, slots=True)
class Succession:
    """What an update follows: the live versions it references, and how the area changed."""

    previous: tuple[Alert, ...] = ()
    entering: tuple[Target, ...] = ()
    leaving: tuple[Target, ...] = ()

    @property
    def level(self) -> Level:
        """Highest level of the versions before."""
        return max((alert.level for alert in self.previous), default=Level.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Route:
    """How an alert may leave.

    `kind` is "green", "emergency", "normal" or "drill". `reasons` say why. `held` names what a person has to settle
    before anything (or, with `over_ceiling`, before the rest) goes out; `alarms` ring but hold nothing.
    `needs` are the stages of `gateway.standing` it has to pass: none for green, the emergency regime and what a signer
    corrects.
    `downgrade` marks an update to a lower level; `decided` that a person has settled what was held.
    """

    kind: str
    reasons: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    over_ceiling: tuple[Target, ...] = ()
    alarms: tuple[str, ...] = ()
    needs: tuple[Standing, ...] = ()
    downgrade: bool = False
    decided: bool = False


def ceiling(tables: Tables, issuer: Issuer) -> tuple[str, ...]:
    """Return the area prefixes the green channel may serve for this issuer without a countersign."""
    if issuer.ceiling or tables.green.ceiling == "own_area":
        return issuer.ceiling or issuer.areas
    return tuple(prefix for prefix in issuer.areas if len(prefix) >= len("411726"))


def decide(
    tables: Tables,
    alert: Alert,
    issuer: Issuer,
    targets: Sequence[Target],
    now: datetime,
    succession: Succession | None,
    over_limit: str,
    *,
    emergency: bool = False,
    signer: bool = False,
) -> Route:
    """Return the route; `over_limit` is the limit's text when this alert exceeds it, else empty.

    `signer`: a signer hands it in, who may correct a mistake alone (D7).
    """
    past = succession or Succession()
    alarms = (over_limit,) if over_limit else ()
    downgrade = alert.kind is Kind.UPDATE and bool(past.previous) and alert.level < past.level
    if not alert.actual:
        reasons = (f"status: {alert.status} is a drill and needs a second person",)
        held = (*_drill_holds(tables, alert, now), *_holds(tables, alert, issuer, targets))
        return Route("drill", reasons, held, alarms=alarms, needs=(Standing.SIGN,), downgrade=downgrade)
    if alert.kind is Kind.CORRECTION and past.previous:
        # Within minutes: a false alarm waits for no missing code, and for a second person only if no signer sends it.
        if signer:
            return Route("normal", ("correction: a signer sends it alone",), alarms=alarms)
        return Route("normal", (_UNSIGNED,), (_UNSIGNED,), alarms=alarms, needs=(Standing.SIGN,))
    held = (*_holds(tables, alert, issuer, targets), *_late(tables, alert, now))
    if alert.kind is Kind.CORRECTION:
        held = (*held, "correction: nothing it refers to has gone out here; a person must see what it revokes")
    against = _against_green(tables, alert, issuer, past, downgrade=downgrade)
    if over_limit and alert.level is not Level.RED:
        held = (*held, f"{over_limit}; one more tap sends it")
    below = ceiling(tables, issuer)
    over = tuple(target for target in targets if not area_covers(below, target))
    if targets and len(over) == len(targets):
        against.append(f"ceiling: every target lies above the ceiling of {issuer.id}")
    if emergency and not held and not _against_emergency(alert, past, downgrade=downgrade):
        reasons = ("emergency: the emergency regime is in force over its area",)
        return Route("emergency", reasons, alarms=alarms)
    if against or held:
        needs = stages(tables, alert, issuer)
        return Route("normal", (*against, *held), held, alarms=alarms, needs=needs, downgrade=downgrade)
    reasons = (f"green: {issuer.name} is pre-authorised and {alert.event_code} is on the list",)
    if over:
        held = (f"over_ceiling: {len(over)} townships, and all residents, wait for a countersign",)
    return Route("green", reasons, held, over, alarms)


def stages(tables: Tables, alert: Alert, issuer: Issuer) -> tuple[Standing, ...]:
    """Return the stages of the normal route, in order."""
    procedure = tables.procedure
    joint = (Standing.PARTNER,) if procedure.partners(alert, issuer, tables.authority.issuer) else ()
    return (*joint, *map(Standing, procedure.approval_of(alert).stages))


def _late(tables: Tables, alert: Alert, now: datetime) -> tuple[str, ...]:
    """Hold what arrives long after it was sent: a feed replayed, or a line that was down. An end is never too late."""
    minutes = (now - alert.sent) // timedelta(minutes=1)
    if alert.kind in ENDS or minutes <= tables.procedure.clock.late_after_min:
        return ()
    return (f"late: it was sent {minutes} minutes ago; a person must see that it still holds",)


def _against_emergency(alert: Alert, past: Succession, *, downgrade: bool) -> bool:
    """Whether the regime is closed to it: it is for red, and response Ⅱ and Ⅰ, and never ends or reduces (D7, D8).

    A return notice reduces: who was moved goes back on it.
    """
    lowest = Level.ORANGE if alert.document is Document.RESPONSE else Level.RED
    reduces = downgrade or bool(past.leaving) or (alert.kind is Kind.UPDATE and not past.previous)
    return alert.level < lowest or alert.kind in ENDS or alert.document in NEVER_URGENT or reduces


def _drill_holds(tables: Tables, alert: Alert, now: datetime) -> tuple[str, ...]:
    if alert.status is Status.DRAFT:
        return ("draft: a draft is never sent; issue it under another status",)
    closed = drill_hours(tables, alert, now)
    return (f"drill: {closed}",) if closed else ()


def drill_hours(tables: Tables, alert: Alert, now: datetime) -> str:
    """Return why no exercise is held at this hour, or ""."""
    drill, local = tables.defaults.drill, now.astimezone(CHINA).time()
    if alert.status is not Status.EXERCISE or drill.start <= local < drill.until:
        return ""
    return f"drills are held from {drill.start:%H:%M} to {drill.until:%H:%M} only"


def _holds(tables: Tables, alert: Alert, issuer: Issuer, targets: Sequence[Target]) -> tuple[str, ...]:
    """Return what a person has to settle first. An end of a warning is not stopped by a colour or a code."""
    if alert.kind in ENDS:
        return ()
    held = [] if targets else ["area: no township was recognised; a person must choose the area"]
    hazard = tables.hazard_by_code.get(alert.event_code)
    if hazard is None and (alert.event_code or alert.document in NAMES_HAZARD):
        held.append(f"hazard: code {alert.event_code!r} is not in hazards.csv; a person must confirm the hazard")
    elif hazard and alert.document in COLOURED and alert.level is Level.UNKNOWN:
        held.append("colour: the warning names no colour; a person must confirm the level")
    elif hazard and alert.document in NAMES_HAZARD:
        finding = colour_finding(tables, hazard.code, alert.level, issuer.areas, alert.sent)
        held += [f"colour: {finding}; a person must confirm the level"] if finding else []
    if hazard and alert.actual and alert.document in NAMES_HAZARD and not agrees(tables, hazard.code, alert.event):
        held.append(f"hazard: the name {alert.event!r} is not that of {hazard.code} ({hazard.zh}); the name counts")
    if alert.actual and any(map(marked, _heads(alert))):
        held.append("drill_words: its own words begin as a drill does, its status is Actual; a person must say which")
    return tuple(held)


def _heads(alert: Alert) -> Iterator[str | None]:
    """Yield the texts whose first word tells a reader what this is."""
    yield alert.event
    for info in alert.infos:
        yield from (info.event, info.sender_name, info.headline, info.description, info.instruction)
        yield info.parameter(SHORT_TEXT)


def _against_green(tables: Tables, alert: Alert, issuer: Issuer, past: Succession, *, downgrade: bool) -> list[str]:
    """Return every reason why the green channel is closed to this alert."""
    green = tables.green
    against = []
    if not issuer.green:
        against.append(f"issuer: {issuer.name} ({issuer.id}) is not pre-authorised for the green channel")
    if alert.document not in green.documents:
        against.append(f"document: {alert.document} does not use the green channel")
    if alert.event_code not in green.hazards:
        against.append(f"hazard: {alert.event_code} is not on the green channel's list")
    if alert.level < green.lowest:
        against.append(f"level: the green channel starts at {green.lowest.name.lower()}")
    if alert.kind is Kind.CANCEL:
        against.append("cancel: an all-clear needs a second person")
    if alert.kind is Kind.UPDATE:
        against += _against_update(alert, past, downgrade=downgrade)
    return against


def _against_update(alert: Alert, past: Succession, *, downgrade: bool) -> list[str]:
    if not past.previous:
        return ["update: it references no live version, so it cannot be shown to raise or extend one"]
    against = []
    if downgrade:
        against.append("downgrade: lowering a level needs a second person")
    if past.leaving:
        against.append("area: a reduction needs a second person; warn new townships by an alert of their own")
    longer = alert.expires is not None and any(alert.expires > old.expires for old in past.previous if old.expires)
    if not (alert.level > past.level or past.entering or longer or downgrade):
        against.append("update: it neither raises the level nor extends the area or the time")
    return against
