"""The hash chain of decisions: each record's hash covers the one before it.

One appender: every append runs inside the writer's group, which has its turn before it locks any row (see `database`),
so the chain has no forks, costs no fsync of its own, and nobody waits in a circle for it.

A chain alone does not show that its last records were cut off. So `audit_head` says where it stands, written in the
same transaction, and the next record follows the head, not the last record found: a cut stays a gap for ever. Whoever
can rewrite the whole database can also compute a new chain and its head; against that a `Checkpoint`, a pair of
sequence and hash, is kept where the database's administrators cannot write, and `verify` holds the chain against it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from gateway.database import Database
from gateway.model import Record
from gateway.transaction import Row, Tx, micros, moment

GENESIS = "0" * 64
PAGE = 5000
HEAD, ASKED = "audit head", "audit head asked for"
# What was never text is not of the gateway's writing: it has a hash, but not that of the chain.
_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=repr).encode
AUDIT = {
    "seq": "bigint", "at": "bigint", "actor": "text", "action": "text", "subject": "text", "detail": "text",
    "hash": "text",
}  # fmt: skip


class Checkpoint(NamedTuple):
    """Where the chain stood: the sequence of its last record, and that record's hash."""

    seq: int
    hash: str


def _hash(previous: str, seq: int, at: int, record: Sequence[str]) -> str:
    return hashlib.sha256(_encoded([previous, seq, at, *record]).encode()).hexdigest()


def append(tx: Tx, records: Sequence[Record], *, late: bool = False) -> None:
    """Append records inside an operation; `late` as in `Tx.take_turn`."""
    if not records:
        return
    tx.take_turn(late=late)
    if HEAD not in tx.known:  # else this transaction has moved it, and nobody else does
        ask_head(tx)
        rows = tx.known[ASKED]()
        tx.known[HEAD] = Checkpoint(*rows[0]) if rows else _last(tx)
    seq, previous = tx.known[HEAD]
    appended: list[tuple[object, ...]] = []
    for record in records:
        seq += 1
        fields = (record.actor, record.action, record.subject, record.detail)
        previous = _hash(previous, seq, micros(record.at), fields)
        appended.append((seq, micros(record.at), *fields, previous))
    tx.insert("audit", AUDIT, appended)
    tx.send("UPDATE audit_head SET seq = :seq, hash = :hash", seq=seq, hash=previous)
    tx.known[HEAD] = Checkpoint(seq, previous)


def ask_head(tx: Tx) -> None:
    """Take the turn and ask where the chain stands: who asks early need not wait for it when something is appended."""
    tx.take_turn()
    if ASKED not in tx.known:
        tx.known[ASKED] = tx.ask("SELECT seq, hash FROM audit_head")


def head(tx: Tx) -> Checkpoint:
    """Where the chain stands."""
    return _head(tx) or _last(tx)


def _head(tx: Tx) -> Checkpoint | None:
    row = tx.one("SELECT seq, hash FROM audit_head")
    return Checkpoint(*row) if row else None


def _last(tx: Tx) -> Checkpoint:
    """Return the last record found: somebody has deleted the head, which `verify` says; decisions go on."""
    row = tx.one("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
    return Checkpoint(*row) if row else Checkpoint(0, GENESIS)


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

    async def checkpoint(self) -> Checkpoint:
        """Where the chain stands now. Kept elsewhere, it proves later that nothing up to here was rewritten."""
        return await self._database.read(head)

    async def verify(self, checkpoint: Checkpoint | None = None) -> tuple[int, str]:
        """Walk the chain: (records, "") if whole, else (last good sequence, what is wrong).

        With a checkpoint the chain must also still hold that record, with that hash.
        """
        # The head is read first: what is appended while we walk lies behind it.
        head = await self._database.read(_head)
        last = Checkpoint(0, GENESIS)
        while rows := await self._rows(last.seq):
            for row in rows:
                if wrong := await self._wrong(last, row):
                    return last.seq, wrong
                last = Checkpoint(row[0], row[6])
                for known in (head, checkpoint):
                    if known and known.seq == last.seq and known.hash != last.hash:
                        what = "the head" if known is head else "the checkpoint"
                        return last.seq - 1, f"record {last.seq} is not the one of {what}: the chain was written anew"
        return await self._end(last, head, checkpoint)

    async def _wrong(self, last: Checkpoint, row: Row) -> str:
        seq, found = row[0], row[6]
        expected = last.seq + 1
        if seq > expected:
            return missing(expected, seq - 1)
        if _hash(last.hash, seq, row[1], row[2:6]) == found:
            return ""
        moved = await self._place_of(last, found)
        if moved:
            return f"record {seq} has been moved to {moved}: the order was changed"
        return f"record {seq} does not match its hash: it was changed, or put in its place"

    async def _place_of(self, last: Checkpoint, found: str) -> int:
        """Find where the record that belongs behind `last` stands now; 0: nowhere, so it was changed."""
        after = seq = last.seq + 1
        while rows := await self._rows(after):
            for row in rows:
                # Exchanged with its hash, or only its content and the hash left behind.
                if _hash(last.hash, seq, row[1], row[2:6]) in (row[6], found):
                    return int(row[0])
            after = rows[-1][0]
        return 0

    async def _rows(self, after: int) -> list[Row]:
        return await self._database.read(lambda tx: _page(tx, after, PAGE))

    async def _end(self, last: Checkpoint, head: Checkpoint | None, checkpoint: Checkpoint | None) -> tuple[int, str]:
        """Say whether the walk ended where the chain stands."""
        known = max((one.seq for one in (head, checkpoint) if one), default=0)
        if known > last.seq:
            return last.seq, missing(last.seq + 1, known) + " at the end"
        now = await self._database.read(_head)
        if head is None or now is None:
            return last.seq, "the head of the chain was deleted, so records may be missing at the end"
        if await self._database.read(lambda tx: tx.one("SELECT seq FROM audit WHERE seq < 1")):
            return 0, "a record stands before the first one, and was not written by the gateway"
        if last.seq > now.seq:
            return now.seq, f"record {now.seq + 1} and what follows were not written by the gateway"
        return last.seq, ""


def missing(first: int, last: int) -> str:
    """Name what is missing."""
    return f"record {first} is missing" if first == last else f"records {first} to {last} are missing"


def _page(tx: Tx, after: int, limit: int) -> list[Row]:
    return tx.all(
        "SELECT seq, at, actor, action, subject, detail, hash FROM audit WHERE seq > :after ORDER BY seq LIMIT :limit",
        after=after,
        limit=limit,
    )
