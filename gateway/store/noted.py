"""What devices did, in the audit chain: the first of a minute at once, of what follows only the number.

A device that flaps, or is in wrong hands, says the same thing a hundred times a second; the chain keeps every line for
ever. So each device has one line a minute of each kind, and one more that says how often it came besides. Called by
`device` and `sounded` inside their operations, which have their turn; `tell_more` by the scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from gateway.model import Record
from gateway.store import audit
from gateway.transaction import Tx, micros

MINUTE = timedelta(minutes=1)
ACTOR = "device"
STEP = 500
NOTED = {"device": "text", "kind": "text", "at": "bigint", "more": "bigint"}
LATEST = "(device, kind) DO UPDATE SET at = excluded.at, more = excluded.more"


def note(tx: Tx, done: Sequence[tuple[int, Record]]) -> None:
    """Append what devices (by id) did, a record's action being its kind; count what came within a minute of the last.

    Those that were counted before are told with the next line of their kind.
    """
    if not done:
        return
    names = sorted({str(device) for device, _ in done})
    rows = tx.all("SELECT device, kind, at, more FROM device_noted WHERE device IN :*names", names=names)
    known = {(device, kind): (at, more) for device, kind, at, more in rows}
    moved: dict[tuple[str, str], tuple[int, int]] = {}
    lines: list[Record] = []
    for device, record in done:
        key, at = (str(device), record.action), micros(record.at)
        since, more = known.get(key, (0, 0))
        if since and at < since + MINUTE // timedelta(microseconds=1):
            known[key] = moved[key] = (since, more + 1)
            continue
        lines += [_more(record.at, *key, more)] if more else []
        lines.append(record)
        known[key] = moved[key] = (at, 0)
    tx.upsert("device_noted", NOTED, [(*key, *moved[key]) for key in sorted(moved)], LATEST)
    audit.append(tx, lines)


def tell_more(tx: Tx, now: datetime) -> int:
    """Append how often what was only counted came, once its minute is over; return how many lines there may be yet."""
    before = micros(now - MINUTE)
    due = "FROM device_noted WHERE more > 0 AND at <= :before"
    if not tx.one(f"SELECT 1 {due} LIMIT 1", before=before):
        return 0
    tx.take_turn()  # or two schedulers would tell the same
    rows = tx.all(f"SELECT device, kind, more {due} ORDER BY device, kind LIMIT :step", before=before, step=STEP)
    tx.many(
        "UPDATE device_noted SET more = 0 WHERE device = :device AND kind = :kind",
        [{"device": device, "kind": kind} for device, kind, _ in rows],
    )
    audit.append(tx, [_more(now, *row) for row in rows])
    return len(rows)


def _more(at: datetime, device: str, kind: str, more: int) -> Record:
    return Record(at, ACTOR, kind, device, f"{more} more within a minute")
