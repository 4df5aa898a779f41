"""Answers kept under an Idempotency-Key, so that a repeated request gets the first one's answer.

Called by the API around a handler: `begin` before it, then `keep` its answer, or `release` the key when nothing was
done. A process that dies in between leaves the key taken: another process takes it over after `LEASE`, and at once
where there is only one (SQLite). The handler may then run a second time, which what it calls must bear: the store's
own rules (sender and identifier, standing) see to that.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from enum import Enum, auto
from typing import NamedTuple

from gateway.database import Database
from gateway.ports import Clock
from gateway.transaction import Tx, micros

KEPT = timedelta(hours=24)
LEASE = timedelta(seconds=15)  # no handler takes nearly so long
PATIENCE_S = 2.0
CLEARED = 50  # lapsed keys removed by each new one, so that the table never grows beyond a day


class Taken(Enum):
    """Why a key cannot be used now: for another request, or by one that has no answer yet."""

    REUSED = auto()
    IN_FLIGHT = auto()


class Kept(NamedTuple):
    """The first answer."""

    status: int
    body: bytes


class Turn(NamedTuple):
    """The right to run the handler and to keep its answer."""

    key: str
    owner: str


class Answers:
    """The table `idempotency`. Keys are digests over the caller and what it sent: nothing of either is stored."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._process = secrets.token_hex(8)
        self._running: set[str] = set()  # owners whose handler runs in this process

    async def begin(self, key: str, digest: str) -> Turn | Kept | Taken:
        """Take a key for the request with this digest, or say why it cannot run.

        Raises:
            StoreDown: no commit in time.
        """
        now = self._clock.now()
        turn = Turn(key, f"{self._process}.{secrets.token_hex(8)}")
        at, old, lapsed = micros(now), micros(now - KEPT), micros(now - LEASE)

        def operation(tx: Tx) -> Turn | Kept | Taken:
            _clear(tx, old)
            values = {"key": key, "digest": digest, "owner": turn.owner, "at": at}
            if tx.run(
                "INSERT INTO idempotency (key, digest, owner, at) VALUES (:key, :digest, :owner, :at)"
                " ON CONFLICT DO NOTHING",
                **values,
            ):
                return turn
            lock = " FOR UPDATE" if tx.postgresql else ""
            row = tx.one(f"SELECT digest, owner, at, status, body FROM idempotency WHERE key = :key{lock}", key=key)
            if row is None or row[1] == turn.owner:  # cleared meanwhile; or this operation runs a second time
                return turn if row else Taken.IN_FLIGHT
            known, owner, since, status, body = row
            if since >= old:
                if known != digest:
                    return Taken.REUSED
                if status is not None:
                    return Kept(int(status), bytes(body))
                elsewhere = tx.postgresql and not owner.startswith(self._process)
                if owner in self._running or (elsewhere and since > lapsed):
                    return Taken.IN_FLIGHT
            tx.run(
                "UPDATE idempotency SET digest = :digest, owner = :owner, at = :at, status = NULL, body = NULL"
                " WHERE key = :key",
                **values,
            )
            return turn

        self._running.add(turn.owner)
        found: Turn | Kept | Taken | None = None
        try:
            found = await self._database.write(operation, PATIENCE_S)
        finally:
            if found != turn:
                self._running.discard(turn.owner)
        return found

    async def keep(self, turn: Turn, answer: Kept) -> None:
        """Keep the answer, unless the key has lapsed and been taken anew."""
        self._running.discard(turn.owner)
        await self._database.write(
            lambda tx: tx.run(
                "UPDATE idempotency SET status = :status, body = :body WHERE key = :key AND owner = :owner",
                status=answer.status,
                body=answer.body,
                **turn._asdict(),
            ),
            PATIENCE_S,
        )

    async def release(self, turn: Turn) -> None:
        """Forget a key under which nothing was done."""
        self._running.discard(turn.owner)
        await self._database.write(
            lambda tx: tx.run("DELETE FROM idempotency WHERE key = :key AND owner = :owner", **turn._asdict()),
            PATIENCE_S,
        )


def _clear(tx: Tx, old: int) -> None:
    tx.run(
        "DELETE FROM idempotency WHERE key IN"
        f" (SELECT key FROM idempotency WHERE at < :old ORDER BY at LIMIT {CLEARED})",
        old=old,
    )
