"""Whether a warning is on its way: then receipts and newcomers wait, and database and loop work for it alone.

Used by `_loudspeaker`, which hurries; by its commits and by `loudspeaker_ws`, which wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LONGEST_S = 1.0
"""Nobody waits longer: a store that hangs, or warnings without end, must not keep devices out."""


class Hurry:
    """Entered while a warning is on its way; several may be at once."""

    def __init__(self) -> None:
        self._on_their_way = 0
        self._over = asyncio.Event()
        self._over.set()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let the others wait meanwhile."""
        self._on_their_way += 1
        self._over.clear()
        try:
            yield
        finally:
            self._on_their_way -= 1
            if not self._on_their_way:
                self._over.set()

    async def over(self) -> None:
        """Wait until nothing is on its way, for `LONGEST_S` at most."""
        if not self._over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_S):
                    await self._over.wait()
