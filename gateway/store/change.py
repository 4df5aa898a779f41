"""The change feed: one row per fact, written in the fact's own transaction.

Readers page behind a cursor (xid, seq). On PostgreSQL several writers commit out of sequence, so a
reader only sees rows older than every running transaction; on SQLite there is one writer and xid is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.model import Change
from gateway.transaction import Tx

CHANGE = {"kind": "text", "alert": "text", "subject": "text"}
VISIBLE = " AND xid < (pg_snapshot_xmin(pg_current_snapshot())::text::bigint)"


def note(tx: Tx, kind: str, alert: str, subject: str = "") -> None:
    """Add one change inside an operation."""
    note_all(tx, [(kind, alert, subject)])


def note_all(tx: Tx, changes: Sequence[tuple[str, str, str]]) -> None:
    """Add changes (kind, alert, subject) inside an operation."""
    tx.insert("change", CHANGE, changes)


def read(tx: Tx, after: tuple[int, int], limit: int) -> list[Change]:
    """Changes behind `after`, in order, without gaps."""
    rows = tx.all(
        "SELECT xid, seq, kind, alert, subject FROM change WHERE (xid, seq) > (:xid, :seq)"
        + (VISIBLE if tx.postgresql else "")
        + " ORDER BY xid, seq LIMIT :limit",
        xid=after[0],
        seq=after[1],
        limit=limit,
    )
    return [Change((xid, seq), kind, alert, subject) for xid, seq, kind, alert, subject in rows]
