"""Carry out orders to the loudspeakers one channel holds in this process. Called by the hub, beside its commands.

An order is written once per connection and again after `RESEND_S` without a receipt; a device recognises what it has
carried out by the order's id. What a device cannot be asked at all is settled as failed at once.
"""

from __future__ import annotations

from collections import defaultdict

from gateway import metrics
from gateway.channel import Link, Sockets
from gateway.errors import Temporary, Throttled
from gateway.model import OrderReceipt, State
from gateway.ports import Clock
from gateway.store import Store

LOOK_S = 1.0
RESEND_S = 60.0
AT_ONCE = 200  # a warning that comes meanwhile waits for no more than these
AGAIN = (Temporary, Throttled)


class Orders:
    """What the devices of one channel are to do that is no warning."""

    def __init__(self, channel: Sockets, store: Store, link: Link, clock: Clock) -> None:
        self._channel = channel
        self._store = store
        self._link = link
        self._clock = clock
        self._written: defaultdict[int, dict[str, float]] = defaultdict(dict)
        self._looked = 0.0

    def forget(self, device: int) -> None:
        """Forget what was written to a device: it is on a new connection."""
        self._written.pop(device, None)

    async def round(self) -> int:
        """Write what is open and not yet written, `AT_ONCE` of it; return how many orders were written."""
        held, now = self._channel.held(), self._clock.now()
        at = now.timestamp()
        if not held or at - self._looked < LOOK_S:
            return 0
        self._looked = at
        found = await self._store.orders.wanted(held, self._channel.name)
        due = [one for one in found if at - self._written[one.device].get(one.id, 0.0) >= RESEND_S][:AT_ONCE]
        if not due:
            return 0
        failed = []
        for order, receipt in zip(due, await self._channel.order(due, self._link), strict=True):
            if isinstance(receipt.error, AGAIN):
                continue  # its next connection brings the order up again
            if receipt.error is not None or receipt.state is State.FAILED:
                failed.append(OrderReceipt(order.id, order.device, False, now, receipt.code))
            else:
                known = self._written[order.device]  # a connection may last for years: what is due again is forgotten
                self._written[order.device] = {id_: since for id_, since in known.items() if at - since < RESEND_S}
                self._written[order.device][order.id] = at
        if failed:
            await self._store.orders.settle(failed)
            metrics.speaker_orders.labels("failed").inc(len(failed))
        return len(due) - len(failed)
