"""Alerts by what a person looks for, newest first, page by page, at a bounded cost.

Called by the API. One part looks at no more than `SCAN` entries of one covering index, whatever the filters, and
unpacks no more messages than it returns. The order is (accepted_at, id), which never changes, and the cursor is that
key itself: alerts that come or end between two pages neither shift nor repeat the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from gateway.database import Database
from gateway.model import Plan
from gateway.ports import AlertRow
from gateway.store.around import alert_rows
from gateway.transaction import Tx, micros

SCAN = 2_000
COUNTY = 6  # digits
PLACED = {"alert": "text", "county": "text"}
NEWEST = (2**62, "")


class Key(NamedTuple):
    """Where an alert stands in the list."""

    accepted_at: int
    id: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a list is asked for; what is empty does not narrow it. `until` is exclusive.

    `area` is a code prefix, judged by county here: a longer one leaves the rest to the caller. `within` and `own` say
    what the reader may see: alerts that touch these code prefixes (or no known place), and those of that sender.
    """

    standing: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    document: tuple[str, ...] = ()
    level: tuple[int, ...] = ()
    hazard: str = ""
    sender: str = ""
    area: str = ""
    since: datetime | None = None
    until: datetime | None = None
    within: tuple[str, ...] = ("",)
    own: str = ""


class Listed(NamedTuple):
    """Part of a list; `further` is where it goes on, None at its end. Empty parts are possible before the end."""

    rows: list[AlertRow]
    further: Key | None


class Listing:
    """Reads lists of alerts; `scan` entries at most are looked at for one part."""

    def __init__(self, database: Database, scan: int = SCAN) -> None:
        self._database = database
        self._scan = scan

    async def part(self, wanted: Wanted, after: Key | None, limit: int) -> Listed:
        """Return up to `limit` alerts behind `after`."""
        return await self._database.read(lambda tx: _part(tx, wanted, after, limit, self._scan))


def place_alerts(tx: Tx, plans: Iterable[tuple[str, Plan]]) -> None:
    """Note the counties the plan of each alert touches; "" while no place is known."""
    rows = [(alert, county) for alert, plan in plans for county in _counties(plan)]
    tx.upsert("alert_county", PLACED, rows, "DO NOTHING")


def _counties(plan: Plan) -> list[str]:
    return sorted({target.township[:COUNTY] for target in (*plan.targets, *plan.leaving)}) or [""]


def _part(tx: Tx, wanted: Wanted, after: Key | None, limit: int, scan: int) -> Listed:
    where, values = _conditions(wanted)
    looked = _looked(wanted, after, scan)
    keys = tx.all(
        f"SELECT l.accepted_at, l.id FROM ({looked.sql}) AS l WHERE {where}"
        " ORDER BY l.accepted_at DESC, l.id DESC LIMIT :limit",
        limit=limit,
        **values,
        **looked.values,
    )
    rows = alert_rows(tx, "WHERE id IN :*ids ORDER BY accepted_at DESC, id DESC", ids=[key[1] for key in keys])
    if len(keys) == limit:
        return Listed(rows, Key(*keys[-1]))
    last = tx.one(f"SELECT accepted_at, id FROM ({looked.sql}) AS l LIMIT 1 OFFSET {scan - 1}", **looked.values)
    return Listed(rows, Key(*last) if last else None)


class _Sql(NamedTuple):
    sql: str
    values: dict[str, Any]


def _looked(wanted: Wanted, after: Key | None, scan: int) -> _Sql:
    """The entries of the index that this part looks at."""
    at, key = after or NEWEST
    where, values = ["(accepted_at, id) < (:at, :key)"], {"at": at, "key": key}
    if wanted.since is not None:
        where.append("accepted_at >= :since")
        values["since"] = micros(wanted.since)
    if wanted.until is not None:
        where.append("accepted_at < :until")
        values["until"] = micros(wanted.until)
    columns = "accepted_at, id, standing, status, document, level, event_code, sender"
    order = "ORDER BY accepted_at DESC, id DESC"
    return _Sql(f"SELECT {columns} FROM alert WHERE {' AND '.join(where)} {order} LIMIT {scan}", values)


def _conditions(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """Return the filters over one entry `l`."""
    where: list[str] = []
    values: dict[str, Any] = {}
    for name in ("standing", "status", "document", "level"):
        if members := getattr(wanted, name):
            where.append(f"l.{name} IN :*{name}")
            values[name] = members
    if wanted.hazard:
        where.append(f"substr(l.event_code, 1, {len(wanted.hazard)}) = :hazard")
        values["hazard"] = wanted.hazard
    if wanted.sender:
        where.append("l.sender = :sender")
        values["sender"] = wanted.sender
    if wanted.area:
        where.append(_touches((wanted.area,), "area"))
        values["area"] = [wanted.area[:COUNTY]]
    # An alert of no known place belongs to where it came from, which only the policy knows: the caller judges it.
    where.append(f"(l.sender = :own OR {_touches(wanted.within, 'within', nowhere=True)})")
    values |= {"own": wanted.own, "within": [prefix[:COUNTY] for prefix in wanted.within]}
    return " AND ".join(where), values


def _touches(prefixes: Sequence[str], name: str, *, nowhere: bool = False) -> str:
    """Say that a county of the entry `l` lies under one of the prefixes, or that it has none and that counts too."""
    lengths = sorted({min(len(prefix), COUNTY) for prefix in prefixes})
    under = [f"substr(c.county, 1, {length}) IN :*{name}" for length in lengths]
    counts = " OR ".join([*under, "c.county = ''"] if nowhere else under)
    # With an OFFSET PostgreSQL asks the index per entry; else it would hash the whole table for one page.
    return f"EXISTS (SELECT 1 FROM alert_county c WHERE c.alert = l.id AND ({counts}) LIMIT 1 OFFSET 0)"
