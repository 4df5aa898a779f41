"""What the gateway orders of loudspeakers by itself, as the policy says; and what became of orders that are too old.

Called by the scheduler. The volume policy goes once to every device that is there, and again when it changes; a clock
that is wrong is set, at most once an hour. In steps of `STEP`: a fleet that is ordered something must not keep the hubs
from a warning.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from gateway import metrics
from gateway.database import Tx, micros
from gateway.model import Record
from gateway.policy import Policy
from gateway.policy.table import SpeakerVolume
from gateway.ports import Clock
from gateway.store import Store
from gateway.store.order import add, body_of

EVERY_S = 10.0
STEP = 500
KEPT = timedelta(days=1)  # an order of the policy's
AGAIN = timedelta(hours=1)
POLICY = "policy"  # the actor
_PRESENT = "FROM device_state s JOIN device d ON d.id = s.device WHERE d.standing = 'service' AND s.online = 1"


class Fleet:
    """Orders what the policy wants of every loudspeaker."""

    def __init__(self, store: Store, policy: Callable[[], Policy], clock: Clock) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock

    async def work(self) -> None:
        """One step.

        Raises:
            StoreDown: the rest is done the next time.
        """
        metrics.speaker_orders.labels("expired").inc(await self._store.orders.expire())
        rules = self._policy().speakers
        if rules.clock_skew_s:
            await self._store.database.write(partial(self._clocks, limit_ms=rules.clock_skew_s * 1000), 5.0)
        if rules.volume is not None:
            await self._store.database.write(partial(self._volumes, body=body_of(values_of(rules.volume))), 5.0)

    def _clocks(self, tx: Tx, limit_ms: int) -> None:
        now = self._clock.now()
        rows = tx.all(
            f"SELECT s.device {_PRESENT} AND (s.skew_ms > :limit OR s.skew_ms < -:limit) AND NOT EXISTS (SELECT 1 FROM"
            " device_order o WHERE o.device = s.device AND o.kind = 'clock' AND o.at > :since) LIMIT :step",
            limit=limit_ms,
            since=micros(now - AGAIN),
            step=STEP,
        )
        self._order(tx, [device for (device,) in rows], "clock", body_of({}))

    def _volumes(self, tx: Tx, body: str) -> None:
        rows = tx.all(f"SELECT s.device {_PRESENT} AND s.volume_policy <> :body LIMIT :step", body=body, step=STEP)
        devices = sorted(device for (device,) in rows)
        if not devices:
            return
        self._order(tx, devices, "volume", body)
        tx.send("UPDATE device_state SET volume_policy = :body WHERE device IN :*devices", body=body, devices=devices)

    def _order(self, tx: Tx, devices: list[int], kind: str, body: str) -> None:
        if devices:
            now, request = self._clock.now(), secrets.token_hex(10)
            record = Record(now, POLICY, f"order:{kind}", request, f"{len(devices)} loudspeakers")
            add(tx, request, devices, kind, body, now + KEPT, record)


def values_of(volume: SpeakerVolume) -> dict[str, object]:
    """Return a volume policy as devices are told it."""
    values: dict[str, object] = {"volume": volume.volume, "floor": dict(volume.floor)}
    if volume.night is not None:
        night = volume.night
        values["night"] = {"from": f"{night.start:%H:%M}", "until": f"{night.until:%H:%M}", "volume": night.volume}
    return values
