"""Look loudspeakers up by name, those that ask at the same time in one query.

Called by the directory for each device that connects: after a power cut that is a whole city's fleet within seconds,
and a query each would keep the database from the warning that goes out meanwhile.
"""

from __future__ import annotations

import asyncio
from functools import partial

from gateway.channel import Device
from gateway.database import Database
from gateway.transaction import Row, Tx

MANY = 500  # names in one query
GATHER_S = 0.01


class Lookup:
    """Shares a query among those who wait: whoever asks within `GATHER_S`, or while one is under way."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[str, asyncio.Future[Device | None]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def find(self, name: str) -> Device | None:
        """Return the loudspeaker in service of this name.

        Raises:
            StoreDown: no answer in time.
        """
        future: asyncio.Future[Device | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((name, future))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await future

    async def _ask(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_S)
            some, self._waiting = self._waiting[:MANY], self._waiting[MANY:]
            names = sorted({name for name, _ in some})
            try:
                rows = await self._database.look(partial(_found, names=names))
            except Exception as error:
                _answer(some, error)
                continue
            _answer(some, {row[0]: Device(*row[1:]) for row in rows})


def _found(tx: Tx, *, names: list[str]) -> list[Row]:
    return tx.all(
        "SELECT name, id, village, key_hash, channel FROM device WHERE name IN :*names AND standing = 'service'",
        names=names,
    )


def _answer(waiting: list[tuple[str, asyncio.Future[Device | None]]], found: dict[str, Device] | Exception) -> None:
    for name, future in waiting:
        if future.done():  # nobody waits any more
            continue
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(found.get(name))
