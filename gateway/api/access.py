"""Who is calling, and what they may see: bearer tokens, and the areas of the caller's issuer.

Whoever issued an alert sees all of it. Others see an alert that touches their area, once it is no draft any more, and
of its villages and recipients only those inside. For everybody else it does not exist (404, not 403: an answer would
tell that it does).
"""

from __future__ import annotations

from ipaddress import ip_address

from aiohttp import web

from gateway.api import limit
from gateway.core import Core
from gateway.errors import Refused
from gateway.policy import Principal
from gateway.ports import AlertRow
from gateway.report import EVERYWHERE
from gateway.standing import Standing

FORWARDED = ("Forwarded", "X-Forwarded-For")


def bearer(request: web.Request) -> str:
    """Return the caller's token.

    Raises:
        Refused: 401 there is none.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refused(401, "no_token", "send the header Authorization: Bearer <token>")
    return token.strip()


async def authenticate(core: Core, request: web.Request, token: str) -> Principal:
    """Return the person behind a bearer token.

    Raises:
        Refused: 401; 429 after too many unknown tokens from the same peer.
    """
    principal = core.policy.principal(token, simulation=core.simulation)
    if principal is None:
        await limit.failed(core, limit.peer(request))
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
    if row.standing == Standing.DRAFT:  # nobody has been asked yet
        return ()
    areas = areas_of(core, principal)
    reached = codes_of(row)
    if not reached:  # its area is still unknown: it belongs to where it came from
        reached = list(sender.areas) if sender else []
    touched = any(code.startswith(area) or area.startswith(code) for code in reached for area in areas)
    return areas if touched else ()


def codes_of(row: AlertRow) -> list[str]:
    """Return the codes of every place an alert tells something."""
    targets = (*row.plan.targets, *row.plan.leaving)
    return [code for one in targets for code in (one.villages or (one.township,))]


def touches(row: AlertRow, area: str) -> bool:
    """Whether an alert tells something to a place under this code, or around it."""
    return not area or any(code.startswith(area) or area.startswith(code) for code in codes_of(row))
