"""What the gateway orders of loudspeakers by itself, as the policy says; and what became of orders that are too old.

Called by the scheduler. The volume policy goes once to every device that is there, and again when it changes; a clock
that is wrong is set, at most once an hour. In steps of `STEP`: a fleet that is ordered something must not keep the hubs
from a warning.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from datetime import timedelta

from gateway import metrics
from gateway.model import Record
from gateway.policy import Policy
from gateway.policy.table import SpeakerVolume
from gateway.ports import Clock
from gateway.store import Store
from gateway.store.order import PATIENCE_S, add, body_of
from gateway.transaction import Tx, micros

EVERY_S = 2.5
STEP = 500  # as many as a hub writes meanwhile
KEPT = timedelta(days=1)  # an order of the policy's
AGAIN = timedelta(hours=1)
POLICY = "policy"  # the actor
_PRESENT = (
    "SELECT s.device FROM device_state s JOIN device d ON d.id = s.device WHERE d.standing = 'service' AND s.online = 1"
    " AND d.channel IN :*channels"
)
_WRONG_CLOCK = (
    "(s.skew_ms > :limit OR s.skew_ms < -:limit) AND NOT EXISTS"
    " (SELECT 1 FROM device_order o WHERE o.device = s.device AND o.kind = 'clock' AND o.at > :since)"
)


class Fleet:
    """Orders what the policy wants of every loudspeaker of these channels: a county's platform takes no orders."""

    def __init__(self, store: Store, policy: Callable[[], Policy], clock: Clock, channels: Collection[str]) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock
        self._channels = sorted(channels)

    async def work(self) -> None:
        """One step.

        Raises:
            StoreDown: the rest is done the next time.
        """
        metrics.speaker_orders.labels("expired").inc(await self._store.orders.expire())
        await self._store.devices.tell_more()
        rules, now = self._policy().speakers, self._clock.now()
        if rules.clock_skew_s:
            limit, since = rules.clock_skew_s * 1000, micros(now - AGAIN)
            await self._order("clock", body_of({}), _WRONG_CLOCK, limit=limit, since=since)
        if rules.volume is not None:
            body = body_of(values_of(rules.volume))
            await self._order("volume", body, "s.volume_policy <> :wanted", wanted=body)

    async def _order(self, kind: str, body: str, due: str, **values: object) -> None:
        """Order it of the next devices that are there and due; in the ordinary hour that is one look."""
        now, request = self._clock.now(), secrets.token_hex(10)
        found = f"{_PRESENT} AND {due} LIMIT :step"
        values["channels"] = self._channels

        def operation(tx: Tx) -> None:
            tx.take_turn()  # or two schedulers would order the same twice
            devices = sorted(device for (device,) in tx.all(found, step=STEP, **values))
            if not devices:
                return
            record = Record(now, POLICY, f"order:{kind}", request, f"{len(devices)} loudspeakers")
            add(tx, request, devices, kind, body, now + KEPT, record)
            if kind == "volume":
                tx.send(
                    "UPDATE device_state SET volume_policy = :body WHERE device IN :*devices",
                    body=body,
                    devices=devices,
                )

        database = self._store.database
        if await database.read(lambda tx: tx.one(found, step=1, **values)):
            await database.write(operation, PATIENCE_S, decides=True)


def values_of(volume: SpeakerVolume) -> dict[str, object]:
    """Return a volume policy as devices are told it."""
    values: dict[str, object] = {"volume": volume.volume, "floor": dict(volume.floor)}
    if volume.night is not None:
        night = volume.night
        values["night"] = {"from": f"{night.start:%H:%M}", "until": f"{night.until:%H:%M}", "volume": night.volume}
    return values
