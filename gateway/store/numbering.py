"""Numbers of sequences that all processes share, never the same one twice.

A protocol that counts its messages asks for them by `Link.number`. What has a key keeps its number: a message that is
sent again after a crash, by whatever process, is still the same message to whoever takes it.
"""

from __future__ import annotations

from gateway.channel import Number
from gateway.database import Database
from gateway.transaction import Tx

PATIENCE_S = 5.0


class Numbering:
    """Counts up from 0 in each sequence."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, sequence: str, key: str = "") -> Number:
        """Return the next number of a sequence; what has a key has the number it was first given, whatever sequence.

        Raises:
            StoreDown: none was taken for sure.
        """
        return await self._database.write(lambda tx: _take(tx, sequence, key), PATIENCE_S)


def _take(tx: Tx, sequence: str, key: str) -> Number:
    if key and (known := _known(tx, key)):
        return known
    row = tx.one(
        "INSERT INTO numbering (name, last) VALUES (:name, 0)"
        " ON CONFLICT (name) DO UPDATE SET last = numbering.last + 1 RETURNING last",
        name=sequence,
    )
    number = Number(sequence, int(row[0]) if row else 0)
    if key:
        tx.run(
            "INSERT INTO numbered (key, sequence, number) VALUES (:key, :sequence, :number) ON CONFLICT DO NOTHING",
            key=key,
            sequence=number.sequence,
            number=number.value,
        )
        return _known(tx, key) or number  # another process may have come first
    return number


def _known(tx: Tx, key: str) -> Number | None:
    row = tx.one("SELECT sequence, number FROM numbered WHERE key = :key", key=key)
    return Number(row[0], int(row[1])) if row else None
