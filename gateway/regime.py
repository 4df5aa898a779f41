"""The emergency regime 紧急发布 (D8): started by named posts or by telephone, over an area, for some hours.

While it is in force, red warnings and responses Ⅱ and Ⅰ from inside the area go out at once through every channel,
to the townships around as well, and people are called by people. It ends by itself unless renewed; every use
owes a review. Called by the API; the timer `regime` ends it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from gateway import log, metrics
from gateway.decision import Telephone
from gateway.directory.vault import Vault
from gateway.errors import Refused
from gateway.intake import actor
from gateway.model import Minute, Record
from gateway.policy import Issuer, Policy, Principal
from gateway.ports import Clock
from gateway.regions import LISTED, Regions
from gateway.regions.region import plain
from gateway.store import Store
from gateway.store.regime import Regime

CALLERS = frozenset({"issuer", "reviewer", "signer", "clerk"})

_log = log.get("regime")


class Regimes:
    """Starts, renews and ends the regime."""

    def __init__(
        self, store: Store, regions: Regions, policy: Callable[[], Policy], vault: Vault, clock: Clock
    ) -> None:
        self._store = store
        self._regions = regions
        self._policy = policy
        self._vault = vault
        self._clock = clock

    async def start(self, area: str, principal: Principal, reason: str, call: Telephone | None = None) -> Regime:
        """Start it over a county (6 digits) or the city (4) for the policy's hours.

        Raises:
            Refused: 403 no named post and no telephone authorisation, 409 it is in force there, 422 no such area.
        """
        issuer = self._entitled(principal, call)
        place, area = self._regions.get(area), plain(area)  # 411700 is 4117: what its places' codes begin with
        if place is None or plain(place.code) != area or place.kind not in ("county", "city"):
            why = f"{area} is none: name the county by its 6-digit code, or the city by its 4 digits; {LISTED}"
            raise Refused(422, "unknown_area", why)
        if not area.startswith(issuer.areas):
            raise Refused(403, "outside_authority", f"{issuer.name} may start it inside {', '.join(issuer.areas)}")
        now, emergency = self._clock.now(), self._policy().procedure.emergency
        until = now + timedelta(hours=emergency.hours)
        regime = Regime(secrets.token_hex(10), area, issuer.id, actor(principal), reason, now, until)
        record = Record(now, regime.actor, "emergency_start", regime.id, area)
        minute = self._minute(regime.actor, now, call)
        review = now + timedelta(hours=emergency.review_within_h)
        if not await self._store.regimes.start(regime, record, review, minute):
            raise Refused(409, "in_force", "the emergency regime is in force there already; renew it instead")
        metrics.alarms.labels("emergency").inc()
        _log.critical("emergency_start", regime=regime.id, area=area)
        return regime

    async def renew(self, regime: str, principal: Principal, call: Telephone | None = None) -> Regime:
        """Prolong it by the policy's hours from now.

        Raises:
            Refused: 403, 404, 409 it has ended.
        """
        self._entitled(principal, call)
        found = await self._mine(regime, principal)
        now = self._clock.now()
        until = now + timedelta(hours=self._policy().procedure.emergency.hours)
        record = Record(now, actor(principal), "emergency_renew", regime, found.area)
        if not await self._store.regimes.renew(regime, until, record, self._minute(record.actor, now, call)):
            raise Refused(409, "ended", "it has ended; start it anew")
        return found._replace(until=until, renewed=found.renewed + 1)

    async def end(self, regime: str, principal: Principal) -> Regime:
        """End it before its time. Any signer of its body may.

        Raises:
            Refused: 403, 404, 409 it has ended.
        """
        found = await self._mine(regime, principal)
        if principal.role != "signer":
            raise Refused(403, "not_entitled", "a signer ends it")
        now = self._clock.now()
        record = Record(now, actor(principal), "emergency_end", regime, found.area)
        if not await self._store.regimes.end(regime, record):
            raise Refused(409, "ended", "it has ended already")
        return found._replace(ended_at=now, ended_by=actor(principal))

    async def expire(self, regime: str) -> datetime | None:
        """Handler of the timer `regime`: end what nobody has renewed."""
        found = await self._store.regimes.get(regime)
        now = self._clock.now()
        if found is None or found.ended_at is not None:
            return None
        if found.until > now:
            return found.until
        record = Record(now, "clock", "emergency_end", regime, found.area)
        if await self._store.regimes.end(regime, record, lapsed=True):
            _log.warning("emergency_over", regime=regime)
        return None

    def _minute(self, who: str, now: datetime, call: Telephone | None) -> Minute | None:
        return Minute("emergency", who, now, call.sealed(self._vault, now)) if call else None

    def _entitled(self, principal: Principal, call: Telephone | None) -> Issuer:
        issuer = self._policy().issuer(principal.issuer)
        starters = self._policy().procedure.emergency.starters
        named = principal.role == "signer" and issuer is not None and issuer.id in starters
        if issuer is None or not (named or (call is not None and principal.role in CALLERS)):
            names = ", ".join(starters)
            raise Refused(
                403,
                "not_entitled",
                f"a signer of {names} starts it; others give the call that ordered it: who, post, number, when",
            )
        return issuer

    async def _mine(self, regime: str, principal: Principal) -> Regime:
        found = await self._store.regimes.get(regime)
        if found is None:
            raise Refused(404, "unknown_regime", "there is no such emergency regime; GET /v1/emergency lists them")
        if found.issuer != principal.issuer:
            raise Refused(403, "not_entitled", "the body that started it renews and ends it")
        return found
