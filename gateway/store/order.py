"""Orders to loudspeakers that are no warnings: volume, self-test, configuration, clock. Desired state, as commands are.

Whoever orders writes a row per device; hubs carry out what is open for the devices they hold (`gateway.order`), and the
device's receipt finishes it. A newer order of a kind takes the place of one that is still open, but for configuration,
whose values may be others. What nobody carried out in its time has expired; a receipt that comes later still counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from gateway.database import Database
from gateway.model import Order, OrderReceipt, Record, Target
from gateway.ports import Clock
from gateway.store import audit
from gateway.store.device import places_below
from gateway.transaction import Row, Tx, micros, moment

PATIENCE_S = 5.0
FEW = 1000  # open orders: below it only their devices are asked about
CHUNK = 5000
ORDERED = {
    "id": "text", "device": "bigint", "kind": "text", "body": "text", "actor": "text", "at": "bigint",
    "expires": "bigint", "state": "text", "code": "text",
}  # fmt: skip
SETTLE = (
    "UPDATE device_order SET state = :state, code = :code, settled_at = :at"
    " WHERE id = :id AND device = :device AND state IN ('open', 'expired')"
)
TESTED = (
    "UPDATE device_state SET tested_at = :at WHERE device = :device AND EXISTS (SELECT 1 FROM device_order o"
    " WHERE o.id = :id AND o.device = :device AND o.kind = 'self_test' AND o.state = 'done')"
)
SHOWN = (
    "SELECT o.id, d.name, d.village, o.kind, o.body, o.actor, o.at, o.expires, o.state, o.code, o.settled_at"
    " FROM device_order o JOIN device d ON d.id = o.device"
)


class Ordered(NamedTuple):
    """An order to one loudspeaker and what became of it: open, done, failed, expired or superseded."""

    id: str
    speaker: str
    village: str
    kind: str
    values: Mapping[str, object]
    actor: str
    at: datetime
    expires: datetime
    state: str
    code: str
    settled_at: datetime | None


class SqlOrders:
    """The facet for orders."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(
        self, request: str, devices: Sequence[int], kind: str, values: Mapping[str, object], expires: datetime,
        record: Record, bar: Callable[[Tx], None] | None = None,
    ) -> None:  # fmt: skip
        """Order the same of these devices, in the name of the record's actor; nothing where `bar` raises."""

        def operation(tx: Tx) -> None:
            if bar is not None:
                bar(tx)
            add(tx, request, devices, kind, body_of(values), expires, record)

        await self._database.write(operation, PATIENCE_S, decides=True)

    async def wanted(self, devices: Collection[int], channel: str) -> list[Order]:
        """Open orders of these devices, oldest first; none where somebody has halted everything, county or channel."""
        now = micros(self._clock.now())

        def operation(tx: Tx) -> list[Row]:
            some = tx.all("SELECT device FROM device_order WHERE state = 'open' LIMIT :few", few=FEW)
            ids = sorted({row[0] for row in some}.intersection(devices) if len(some) < FEW else devices)
            rows: list[Row] = []
            for start in range(0, len(ids), CHUNK):
                rows += tx.all(
                    "SELECT o.at, o.id, o.device, o.kind, o.body, o.expires FROM device_order o"
                    " JOIN device d ON d.id = o.device WHERE o.state = 'open' AND o.expires > :now"
                    " AND o.device IN :*ids AND d.standing = 'service' AND NOT EXISTS"
                    " (SELECT 1 FROM halt WHERE scope IN ('*', d.county, :channel))",
                    ids=ids[start : start + CHUNK],
                    now=now,
                    channel=channel,
                )
            return sorted(rows)

        rows = await self._database.read(operation)
        values = {body: json.loads(body) for body in {row[4] for row in rows}}  # a fleet is ordered the same
        return [Order(id_, device, kind, values[body], moment(expires)) for _, id_, device, kind, body, expires in rows]

    async def settle(self, receipts: Sequence[OrderReceipt]) -> None:
        """Write what devices say of their orders; of another device's order, or one that is settled, nothing."""
        rows = [
            {"id": one.order, "device": one.device, "at": micros(one.at), "code": one.code,
             "state": "done" if one.done else "failed"}
            for one in sorted(receipts, key=lambda one: (one.device, one.order))
        ]  # fmt: skip
        done = [{name: row[name] for name in ("id", "device", "at")} for row in rows if row["state"] == "done"]

        def operation(tx: Tx) -> None:
            tx.many(SETTLE, rows)
            tx.many(TESTED, done)

        await self._database.write(operation, PATIENCE_S)

    async def expire(self) -> int:
        """Settle what nobody carried out in its time; return how many."""
        now = micros(self._clock.now())

        def operation(tx: Tx) -> int:
            # A volume the policy wants is ordered anew once the device is back.
            tx.send(
                "UPDATE device_state SET volume_policy = '' WHERE device IN (SELECT device FROM device_order"
                " WHERE state = 'open' AND expires <= :now AND kind = 'volume' AND actor = 'policy')",
                now=now,
            )
            return tx.run(
                "UPDATE device_order SET state = 'expired', settled_at = :now WHERE state = 'open' AND expires <= :now",
                now=now,
            )

        due = await self._database.read(
            lambda tx: tx.one("SELECT 1 FROM device_order WHERE state = 'open' AND expires <= :now LIMIT 1", now=now)
        )
        return await self._database.write(operation, PATIENCE_S) if due else 0

    async def recent(self, areas: Collection[str], since: datetime, limit: int, speaker: str = "") -> list[Ordered]:
        """Orders since then to loudspeakers below any of these codes (or to the one named), newest first."""
        places, values = places_below(areas)
        rows = await self._database.read(
            lambda tx: tx.all(
                f"{SHOWN} WHERE o.at >= :since AND (:speaker = '' OR d.name = :speaker) AND {places}"
                " ORDER BY o.at DESC, d.village, d.name, o.id LIMIT :limit",
                since=micros(since),
                speaker=speaker,
                limit=limit,
                **values,
            )
        )
        return [_ordered(row) for row in rows]


def add(
    tx: Tx, request: str, devices: Sequence[int], kind: str, body: str, expires: datetime, record: Record
) -> None:  # fmt: skip
    """Write orders inside an operation."""
    at = micros(record.at)
    if kind != "config":
        tx.send(
            "UPDATE device_order SET state = 'superseded', settled_at = :at"
            " WHERE state = 'open' AND kind = :kind AND device IN :*devices",
            at=at,
            kind=kind,
            devices=sorted(devices),
        )
    rows: list[tuple[Any, ...]] = [
        (f"{request}.{number}", device, kind, body, record.actor, at, micros(expires), "open", "")
        for number, device in enumerate(sorted(devices))
    ]
    tx.insert("device_order", ORDERED, rows)
    audit.append(tx, [record])


def withdraw_tones(tx: Tx, targets: Sequence[Target], code: str, at: int) -> None:
    """Withdraw open self-tests that would be heard in a place; who is away would sound its tone under a warning."""
    tx.send(
        "UPDATE device_order SET state = 'superseded', code = :code, settled_at = :at WHERE state = 'open'"
        " AND kind = 'self_test' AND body = :audible AND device IN (SELECT id FROM device"
        " WHERE township IN :*whole OR village IN :*villages)",
        code=code,
        at=at,
        audible=body_of({"audible": True}),
        whole=sorted({one.township for one in targets if not one.villages}),
        villages=sorted({village for one in targets for village in one.villages}),
    )


def body_of(values: Mapping[str, object]) -> str:
    """Return what is ordered, always written the same way."""
    return json.dumps(values, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _ordered(row: Row) -> Ordered:
    id_, speaker, village, kind, body, actor, at, expires, state, code, settled = row
    return Ordered(
        id_, speaker, village, kind, json.loads(body), actor, moment(at), moment(expires), state, code,
        None if settled is None else moment(settled),
    )  # fmt: skip
