"""Authority: issuer × document × hazard × level × hours × area × channels (明确预警信息发布权限).

Pure; asked through `Policy`. Fails closed: what no grant covers is refused, and every refusal says which row was
missing and where it belongs. One grant must cover document, hazard, level and hour; each target must lie in the area
of such a grant. Two things are left to the route, which holds them loudly instead: a hazard code nobody knows, and
an area that resolved to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from typing import NamedTuple

from gateway.model import Alert, Kind, Target
from gateway.policy.hazard import CHINA
from gateway.policy.table import BY_HAZARD, Grant, Issuer, area_covers, hazard_matches
from gateway.policy.tables import Tables

TEST_HAZARD = "00000"
"""测试专用: never a real warning."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Whether an issuer may send an alert. `findings` say why not: none, it may.

    `channels` are those every target may be served through; None: all. `rows` name the grants that decided.
    """

    findings: tuple[str, ...] = ()
    channels: frozenset[str] | None = None
    rows: tuple[str, ...] = ()

    def permits(self, channel: str) -> bool:
        """Whether this channel may be used."""
        return self.channels is None or channel in self.channels

    def left_out(self, channels: Sequence[str]) -> tuple[str, ...]:
        """Return the reason for each of these channels that the grants leave out."""
        where = "; ".join(self.rows)
        return tuple(
            f"channel: {name} is left out, for {where} does not list it in channels"
            for name in channels
            if not self.permits(name)
        )


class _Row(NamedTuple):
    """A grant and its number in the file, from 1."""

    number: int
    grant: Grant


_Dimension = tuple[Callable[[Grant], bool], Callable[[Sequence[_Row]], str]]
"""Whether a grant covers it, and what is told when none of these grants does."""


def judge(tables: Tables, issuer: Issuer, alert: Alert, targets: Sequence[Target], now: datetime) -> Authority:
    """Judge an alert under the issuer's own name."""
    found = _judge(tables, issuer, alert, targets, now)
    against, own = [], {issuer.sender, issuer.id, issuer.national}
    if alert.sender not in own:
        against.append(f"sender: the message names another sender than {issuer.id}; send it under {issuer.sender}")
    # Only the original issuer changes or ends its warning (D7); a mistake may be revoked by whoever is entitled.
    others = {reference.sender for reference in alert.references} - own
    if others and alert.kind in (Kind.UPDATE, Kind.CANCEL):
        against.append(
            f"original: {issuer.name} ({issuer.id}) may not change or end what {', '.join(sorted(others))} issued; "
            "ask the original issuer, or issue an alert of your own"
        )
    return Authority((*against, *found.findings), found.channels, found.rows) if against else found


def entitled(tables: Tables, alert: Alert, targets: Sequence[Target], now: datetime) -> list[tuple[Issuer, Authority]]:
    """Return the issuers that may send such an alert there and then, whoever sent it."""
    judged = [(issuer, _judge(tables, issuer, alert, targets, now)) for issuer in tables.authority.issuer]
    return [(issuer, found) for issuer, found in judged if not found.findings]


def _judge(tables: Tables, issuer: Issuer, alert: Alert, targets: Sequence[Target], now: datetime) -> Authority:
    rows, missing = _covering(tables, issuer, alert, now)
    per_target = [[row for row in rows if area_covers(_areas(issuer, row), target)] for target in targets]
    if not rows:
        # What lies beyond the issuer's whole area is said at once, not on the next attempt.
        outside = [target for target in targets if not area_covers(issuer.areas, target)]
    else:
        outside = [target for target, own in zip(targets, per_target, strict=True) if not own]
    findings = [*missing, *_area_finding(issuer, rows, outside)]
    if findings:
        return Authority(tuple(findings))
    differing = list({tuple(row.number for row in own): own for own in per_target}.values()) or [rows]
    names = tuple(_where(issuer, [row]) for row in rows if any(row in own for own in differing))
    return Authority((), _channels(differing), names)


def _covering(tables: Tables, issuer: Issuer, alert: Alert, now: datetime) -> tuple[list[_Row], list[str]]:
    """Return the grants that cover document, hazard, level and hour, or the first of these that none does."""
    rows = [_Row(number, grant) for number, grant in enumerate(issuer.grant, 1)]
    for covers, refusal in _dimensions(tables, issuer, alert, now.astimezone(CHINA).time()):
        left = [row for row in rows if covers(row.grant)]
        if not left:
            return [], [refusal(rows)]
        rows = left
    return rows, []


def _dimensions(tables: Tables, issuer: Issuer, alert: Alert, hour: time) -> list[_Dimension]:
    """Return what a grant must cover, in the order in which a refusal is told."""
    document, code, level = alert.document, alert.event_code, alert.level
    who, lets = f"{issuer.name} ({issuer.id})", f"no row lets {issuer.name} ({issuer.id}) issue {document}"
    # An unknown code is held by the route; the test code is nobody's hazard.
    any_hazard = code not in tables.hazard_by_code or (code == TEST_HAZARD and not alert.actual)
    others = _others(tables, issuer, alert)
    # A correction revokes what was never true, within minutes: the mistake's own level, at any hour.
    always = alert.kind is Kind.CORRECTION

    def too_high(rows: Sequence[_Row]) -> str:
        limit = max(row.grant.highest for row in rows).name.lower()
        return f"{who} may issue {document} up to {limit}, not {level.name.lower()}; raise highest in"

    def too_late(rows: Sequence[_Row]) -> str:
        hours = " and ".join(str(row.grant.hours) for row in rows)
        return f"{who} may issue {document} from {hours} only, and it is {hour:%H:%M}; wait, or change hours in"

    return [
        (
            lambda grant: document in grant.documents,
            lambda _: f"document: {lets}; {others or f'add a grant with it to {_where(issuer)}'}",
        ),
        (
            lambda grant: any_hazard or hazard_matches(code, grant.hazards),
            lambda rows: f"hazard: {lets} for {code}; {others or f'add the code to hazards of {_where(issuer, rows)}'}",
        ),
        (
            lambda grant: always or level <= grant.highest,
            lambda rows: f"level: {too_high(rows)} {_where(issuer, rows)}",
        ),
        (
            lambda grant: always or grant.hours is None or grant.hours.cover(hour),
            lambda rows: f"hours: {too_late(rows)} {_where(issuer, rows)}",
        ),
    ]


def _others(tables: Tables, issuer: Issuer, alert: Alert) -> str:
    """Return whom to ask where no grant could be written for this body; "" where one could."""
    bureaus, file = tables.document_by_kind[alert.document].bureaus, "documents.csv"
    if BY_HAZARD in bureaus and (hazard := tables.hazard_by_code.get(alert.event_code)):
        bureaus, file = (*hazard.bureaus, *(one for one in bureaus if one != BY_HAZARD)), "hazards.csv"
    if issuer.bureau in bureaus or BY_HAZARD in bureaus:
        return ""
    return f"no grant of {_where(issuer)} can, for {file} leaves it to {'、'.join(bureaus)}; ask one of them"


def _areas(issuer: Issuer, row: _Row) -> tuple[str, ...]:
    """A grant is narrower than its issuer, never wider."""
    return issuer.areas if row.grant.areas is None else row.grant.areas


def _area_finding(issuer: Issuer, rows: Sequence[_Row], outside: Sequence[Target]) -> list[str]:
    if not outside:
        return []
    named = ", ".join(target.township for target in outside[:5])
    named += f" and {len(outside) - 5} more" if len(outside) > 5 else ""
    where = _where(issuer, [row for row in rows if row.grant.areas is not None])
    return [
        f"area: no row lets {issuer.name} ({issuer.id}) issue for {named}; "
        f"leave them out, or add the area to areas of {where}"
    ]


def _where(issuer: Issuer, rows: Sequence[_Row] = ()) -> str:
    """Name the grants in their file, or the issuer where there is none to name."""
    numbers = ", ".join(str(row.number) for row in rows)
    return f"authority.toml, issuer {issuer.id}" + (f", grant {numbers}" if numbers else "")


def _channels(served: Sequence[Sequence[_Row]]) -> frozenset[str] | None:
    """Return the channels that some grant of every target allows; None: all. `served`: the grants of each target."""
    allowed: frozenset[str] | None = None
    for rows in served:
        grants = [row.grant.channels for row in rows]
        if any(channels is None for channels in grants):
            continue
        own = frozenset(name for channels in grants for name in channels or ())
        allowed = own if allowed is None else allowed & own
    return allowed
