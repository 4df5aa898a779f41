"""The hash chain of decisions: each record's hash covers the one before it.

One appender: every append runs inside the writer's group (an advisory lock serialises the processes
on PostgreSQL), so the chain has no forks and costs no fsync of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from gateway.database import Database, Row, Tx, micros, moment
from gateway.model import Record

GENESIS = "0" * 64
LOCK = 4_117_001


def _hash(previous: str, seq: int, at: int, record: Sequence[str]) -> str:
    body = json.dumps([previous, seq, at, *record], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(body.encode()).hexdigest()


def append(tx: Tx, records: Sequence[Record]) -> None:
    """Append records inside an operation."""
    if not records:
        return
    if tx.postgresql:
        tx.one(f"SELECT pg_advisory_xact_lock({LOCK})")
    last = tx.one("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
    seq, previous = (int(last[0]), str(last[1])) if last else (0, GENESIS)
    for record in records:
        seq += 1
        fields = (record.actor, record.action, record.subject, record.detail)
        previous = _hash(previous, seq, micros(record.at), fields)
        tx.run(
            "INSERT INTO audit (seq, at, actor, action, subject, detail, hash)"
            " VALUES (:seq, :at, :actor, :action, :subject, :detail, :hash)",
            seq=seq,
            at=micros(record.at),
            actor=record.actor,
            action=record.action,
            subject=record.subject,
            detail=record.detail,
            hash=previous,
        )


class AuditChain:
    """The `Audit` facet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, record: Record) -> None:
        """Append one record; returns after commit."""
        await self._database.write(lambda tx: append(tx, [record]))

    async def records(self, after: int = 0, limit: int = 100) -> list[tuple[int, Record, str]]:
        """Records behind sequence `after`: (sequence, record, hash)."""
        rows = await self._database.read(lambda tx: _page(tx, after, limit))
        return [(row[0], Record(moment(row[1]), *row[2:6]), row[6]) for row in rows]

    async def verify(self) -> tuple[int, str]:
        """Walk the chain: (records, "") if whole, else (last good sequence, what is wrong)."""
        good, previous = 0, GENESIS
        while rows := await self._database.read(lambda tx, after=good: _page(tx, after, 5000)):  # type: ignore[misc]  # a bound default
            for seq, at, actor, action, subject, detail, found in rows:
                if seq != good + 1:
                    return good, f"record {good + 1} is missing"
                previous = _hash(previous, seq, at, (actor, action, subject, detail))
                if previous != found:
                    return good, f"record {seq} does not match its hash"
                good = seq
        return good, ""


def _page(tx: Tx, after: int, limit: int) -> list[Row]:
    return tx.all(
        "SELECT seq, at, actor, action, subject, detail, hash FROM audit WHERE seq > :after ORDER BY seq LIMIT :limit",
        after=after,
        limit=limit,
    )
