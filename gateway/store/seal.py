"""Sealed one-time codes (break-glass, D3): made by an administrator, kept in an envelope, used up by one alert.

Only the hash is stored; a code has 128 random bits, so no salt is needed.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import NamedTuple

from gateway.database import Database
from gateway.model import Record
from gateway.store import audit
from gateway.transaction import Tx, micros, moment


class Sealed(NamedTuple):
    """One code: which body it issues for, what is written on the envelope, and which alert used it."""

    issuer: str
    label: str
    made_at: datetime
    used_at: datetime | None
    alert: str


def hashed(code: str) -> str:
    """Return what is stored of a code; dashes, blanks and case do not count."""
    plain = "".join(code.split()).replace("-", "").upper()
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def use(tx: Tx, hash_: str, alert: str, now: datetime) -> bool:
    """Use a code up inside an operation; False if it is unknown or used."""
    return bool(
        tx.run(
            "UPDATE sealed_code SET used_at = :now, alert = :alert WHERE hash = :hash AND used_at IS NULL",
            now=micros(now),
            alert=alert,
            hash=hash_,
        )
    )


class SqlSeals:
    """The facet for sealed codes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, code: str, issuer: str, label: str, record: Record) -> None:
        """Keep the hash of a new code."""

        def operation(tx: Tx) -> None:
            added = tx.run(
                "INSERT INTO sealed_code (hash, issuer, label, made_by, made_at, alert)"
                " VALUES (:hash, :issuer, :label, :actor, :at, '') ON CONFLICT DO NOTHING",
                hash=hashed(code),
                issuer=issuer,
                label=label,
                actor=record.actor,
                at=micros(record.at),
            )
            if added:
                audit.append(tx, [record])

        await self._database.write(operation)

    async def find(self, code: str) -> Sealed | None:
        """Return what is known of a code."""
        return next(iter(await self._rows("WHERE hash = :hash", hash=hashed(code))), None)

    async def all(self) -> list[Sealed]:
        """Every code, newest first."""
        return await self._rows("ORDER BY made_at DESC, hash")

    async def _rows(self, tail: str, **values: object) -> list[Sealed]:
        rows = await self._database.read(
            lambda tx: tx.all(f"SELECT issuer, label, made_at, used_at, alert FROM sealed_code {tail}", **values)
        )
        return [
            Sealed(issuer, label, moment(made), moment(used) if used is not None else None, alert)
            for issuer, label, made, used, alert in rows
        ]
