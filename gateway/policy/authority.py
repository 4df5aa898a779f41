"""Authority: issuer × document × hazard × level × area (明确预警信息发布权限). Pure; asked through `Policy`.

Fails closed: what no row grants is refused, and every refusal says which row was missing. Two things are left to
the route, which holds them loudly instead: a hazard code nobody knows, and an area that resolved to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.model import Alert, Kind, Target
from gateway.policy.table import Grant, Issuer, area_covers, hazard_matches
from gateway.policy.tables import Tables

TEST_HAZARD = "00000"
"""测试专用: never a real warning."""


def findings(tables: Tables, issuer: Issuer, alert: Alert, targets: Sequence[Target]) -> list[str]:
    """Return why this issuer may not send this alert to these targets; empty when it may."""
    found = [*_grant_finding(tables, issuer, alert), *_area_findings(issuer, targets)]
    if alert.sender not in (issuer.sender, issuer.id):
        found.insert(0, f"sender: the message names another sender than {issuer.id}; send it under {issuer.sender}")
    # Only the original issuer changes or ends its warning (D7); a mistake may be revoked by whoever is entitled.
    others = {reference.sender for reference in alert.references} - {issuer.sender, issuer.id}
    if others and alert.kind in (Kind.UPDATE, Kind.CANCEL):
        found.append(
            f"original: {issuer.name} ({issuer.id}) may not change or end what {', '.join(sorted(others))} issued; "
            "ask the original issuer, or issue an alert of your own"
        )
    return found


def entitled(tables: Tables, alert: Alert, targets: Sequence[Target]) -> list[Issuer]:
    """Return the issuers that may send such an alert there, whoever sent it."""
    return [
        issuer
        for issuer in tables.authority.issuer
        if not [*_grant_finding(tables, issuer, alert), *_area_findings(issuer, targets)]
    ]


def _grant_finding(tables: Tables, issuer: Issuer, alert: Alert) -> list[str]:
    """Return the first of document, hazard, level that no grant covers."""
    who, row = f"{issuer.name} ({issuer.id})", f"authority.toml, issuer {issuer.id}"
    grants = [grant for grant in issuer.grant if alert.document in grant.documents]
    if not grants:
        return [f"document: no row lets {who} issue {alert.document}; add a grant to {row}"]
    if alert.event_code in tables.hazard_by_code and not (alert.event_code == TEST_HAZARD and not alert.actual):
        grants = [grant for grant in grants if hazard_matches(alert.event_code, grant.hazards)]
        if not grants:
            return [f"hazard: no row lets {who} issue {alert.document} for {alert.event_code}; add the code to {row}"]
    return _level_finding(alert, grants, who, row)


def _level_finding(alert: Alert, grants: list[Grant], who: str, row: str) -> list[str]:
    highest = max(grant.highest for grant in grants)
    # A correction revokes what was never true; its level is the mistake's own.
    if alert.kind is Kind.CORRECTION or alert.level <= highest:
        return []
    asked, limit = alert.level.name.lower(), highest.name.lower()
    return [f"level: {who} may issue {alert.document} up to {limit}, not {asked}; raise highest in {row}"]


def _area_findings(issuer: Issuer, targets: Sequence[Target]) -> list[str]:
    outside = [target.township for target in targets if not area_covers(issuer.areas, target)]
    if not outside:
        return []
    named = ", ".join(outside[:5]) + (f" and {len(outside) - 5} more" if len(outside) > 5 else "")
    return [
        f"area: no row lets {issuer.name} ({issuer.id}) issue for {named}; "
        f"leave them out, or add the area to authority.toml, issuer {issuer.id}"
    ]
