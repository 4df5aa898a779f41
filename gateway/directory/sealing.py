"""Makes sealed pages ahead, so that no warning is the one that waits for them: the first after an import.

Run by planners, which make what is missing all the same. A township's pages are made once its people rest, and one
township at a time, for the cores have better things to do; whatever is more urgent goes first.
"""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial

from gateway.database import Database
from gateway.directory import sealed
from gateway.directory.vault import Vault
from gateway.errors import ConfigError
from gateway.gate import Gate
from gateway.model import Group, Lane
from gateway.transaction import Row, Tx

PATIENCE_S = 30.0
# A page counts by its version, and all of a township's are written together: the last one tells of them all.
LACKING = (
    "SELECT township, audience, version FROM (SELECT township, audience, CAST(SUM(changes) AS BIGINT) AS version"
    " FROM roster_change GROUP BY township, audience) AS known WHERE NOT EXISTS (SELECT 1 FROM sealed_page p"
    " WHERE p.township = known.township AND p.audience = known.audience AND p.version = known.version"
    " AND p.village = :end)"
)
Whose = tuple[str, str]  # township, audience


class Sealing:
    """Call `work` every few seconds."""

    def __init__(self, database: Database, vault: Vault, gate: Gate) -> None:
        self._database = database
        self._vault = vault
        self._gate = gate
        self._seen: dict[Whose, int] = {}  # versions of those without pages, at the last look
        self._void: dict[Whose, int] = {}  # versions of which there are no pages to be made

    async def work(self) -> None:
        """Make the pages of every township whose people have not changed since the last look.

        Raises:
            ConfigError: one cannot be made with this key; the next call goes on behind it.
            StoreDown: some are still to be made.
        """
        lacking = await self._lacking()
        resting = [one for one, version in lacking.items() if self._seen.get(one) == version != self._void.get(one)]
        self._seen = lacking
        random.shuffle(resting)  # of two planners each begins with others
        resting.sort(key=lambda whose: whose[1] != Group.OFFICIALS.value)
        for whose in resting:
            await self._gate.step_aside(Lane.SERVICE)
            begun = time.monotonic()
            if not await self._make(whose, lacking[whose]):
                return  # the roster is being changed
            await asyncio.sleep(time.monotonic() - begun)

    async def _lacking(self) -> dict[Whose, int]:
        rows = await self._database.read(lambda tx: tx.all(LACKING, end=sealed.END), PATIENCE_S)
        return {(township, audience): version for township, audience, version in rows}

    async def _make(self, whose: Whose, version: int) -> bool:
        """Make the pages of a township's roster; False if they could not be written."""
        try:
            rows = await self._database.read(partial(self._made, whose=whose), PATIENCE_S)
        except ConfigError:  # somebody was sealed with another key: said once, and no hindrance to other townships
            self._void[whose] = version
            raise
        if not rows:
            self._void[whose] = version
            return True
        await self._gate.step_aside(Lane.SERVICE)
        return await self._database.write(partial(sealed.write, rows=rows), PATIENCE_S)

    def _made(self, tx: Tx, whose: Whose) -> list[Row]:
        made = sealed.make(tx, self._vault, *whose)
        return sealed.seal(self._vault, made) if made else []
