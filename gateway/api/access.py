"""Who is calling, and what they may see: bearer tokens, and the areas of the caller's issuer.

Whoever issued an alert sees all of it. Others see an alert that touches their area, and of its villages and
recipients only those inside. For everybody else it does not exist (404, not 403: an answer would tell that it does).
"""

from __future__ import annotations

from ipaddress import ip_address

from aiohttp import web

from gateway.core import Core
from gateway.errors import Refused
from gateway.policy import Principal
from gateway.ports import AlertRow
from gateway.report import EVERYWHERE

FORWARDED = ("Forwarded", "X-Forwarded-For")


def authenticate(core: Core, request: web.Request) -> Principal:
    """Return the person behind the bearer token.

    Raises:
        Refused: 401.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refused(401, "no_token", "send the header Authorization: Bearer <token>")
    principal = core.policy.principal(token.strip(), simulation=core.simulation)
    if principal is None:
        raise Refused(401, "unknown_token", "this token is not known here; ask the administrator for a new one")
    return principal


def on_this_machine(request: web.Request) -> bool:
    """Whether the caller itself is on loopback, and not behind a proxy that is."""
    if request.transport is None or any(name in request.headers for name in FORWARDED):
        return False
    peer = request.transport.get_extra_info("peername")
    return isinstance(peer, tuple) and ip_address(str(peer[0]).partition("%")[0]).is_loopback


def areas_of(core: Core, principal: Principal) -> tuple[str, ...]:
    """Code prefixes the caller's issuer is responsible for."""
    issuer = core.policy.issuer(principal.issuer)
    return issuer.areas if issuer else ()


def sees(core: Core, principal: Principal, row: AlertRow) -> tuple[str, ...]:
    """Return the code prefixes of what the caller may see of an alert; empty: it may not see the alert."""
    sender = core.policy.issuer(row.alert.sender)
    if sender is not None and sender == core.policy.issuer(principal.issuer):
        return EVERYWHERE
    areas = areas_of(core, principal)
    targets = (*row.plan.targets, *row.plan.leaving)
    reached = [code for one in targets for code in (one.villages or (one.township,))]
    if not targets:  # its area is still unknown: it belongs to where it came from
        reached = list(sender.areas) if sender else []
    touched = any(code.startswith(area) or area.startswith(code) for code in reached for area in areas)
    return areas if touched else ()
