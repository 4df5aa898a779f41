"""Rate limits, which slow a runaway client down and never a red warning.

Per token, in two classes: reads (GET) and writes (POST); buckets are shared by all processes through `State`. What is
over the limit is answered 429, except what a village depends on: a real red warning or evacuation, whatever updates,
ends or decides on one, and a stop. Whether a message is one shows only once it is parsed, so over the limit it is
parsed first; one that cannot be read goes on too, for its sender needs to hear of the mistake. Each of these raises
the alarm `limit_red`.

Failed authentications are limited per peer (an IPv6 one by its /64). A valid token is never locked out by them.

**Source:** draft-ietf-httpapi-ratelimit-headers-10, RFC 6585 section 4.
"""

from __future__ import annotations

import hashlib
import math
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from aiohttp import web

from gateway import log, metrics
from gateway.api.problem import Refusal
from gateway.core import Core
from gateway.errors import StateDown

WINDOW_S = 60
BURST = 6  # a bucket holds this part of a window
FAILURES_PER_MINUTE = 30

_log = log.get("api")


class Limit(NamedTuple):
    """So many requests per minute."""

    name: str
    quota: int

    @property
    def policy(self) -> str:
        """The header RateLimit-Policy."""
        return f'"{self.name}";q={self.quota};w={WINDOW_S}'


class Counted(NamedTuple):
    """A request that was counted. `wait_s`: 0.0 within the limit, else seconds until it is worth asking again."""

    limit: Limit
    wait_s: float

    def refusal(self) -> Refusal:
        """Return the 429."""
        name, quota = self.limit
        wait = max(1, math.ceil(self.wait_s))
        return Refusal(
            429,
            "rate_limited",
            f"more than {quota} {name} a minute; send it again in {wait} s",
            headers={
                "Retry-After": str(wait),
                "RateLimit-Policy": self.limit.policy,
                "RateLimit": f'"{name}";r=0;t={wait}',
            },
        )

    def spare(self, issuer: str) -> None:
        """Note what goes on beyond the limit."""
        metrics.alarms.labels("limit_red").inc()
        _log.warning("limit_red", limit=self.limit.name, issuer=issuer)


async def count(core: Core, method: str, token: str) -> Counted:
    """Count a request of a token."""
    read = method == "GET"
    quota = core.settings.reads_per_minute if read else core.settings.writes_per_minute
    return await _take(core, Limit("reads" if read else "writes", quota), token)


async def failed(core: Core, peer: str) -> None:
    """Count a failed authentication, or a sealed code that opens nothing.

    Raises:
        Refused: 429, too many from this peer.
    """
    counted = await _take(core, Limit("failures", FAILURES_PER_MINUTE), peer)
    if counted.wait_s:
        raise counted.refusal()


async def _take(core: Core, limit: Limit, who: str) -> Counted:
    bucket = f"api:{limit.name}:{hashlib.sha256(who.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
    try:
        wait_s = await core.state.take(bucket, 1, limit.quota / WINDOW_S, max(1, limit.quota // BURST), 0)
    except StateDown:
        wait_s = 0.0  # a limit that cannot be counted stops nobody
    return Counted(limit, wait_s)


def peer(request: web.Request) -> str:
    """Return whom failures are counted by."""
    found = request.transport.get_extra_info("peername") if request.transport is not None else None
    if not isinstance(found, tuple):
        return ""
    address = ip_address(str(found[0]).partition("%")[0])
    return str(ip_network((address, 64), strict=False)) if address.version == 6 else str(address)
