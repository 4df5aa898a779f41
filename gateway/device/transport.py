"""How a device reaches the gateway: the frames are the same whichever way they go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Protocol

from gateway.errors import MingluoError

LONGEST_FRAME = 65_536


class Unreached(MingluoError):
    """The gateway is not there, or has ended the connection.

    `patient`: trying again soon would not help (a wrong key, another device with this one's name, our own fault);
    `after_s`: the gateway asks to be left alone that long.
    """

    def __init__(self, why: str, *, patient: bool = False, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.why = why
        self.patient = patient
        self.after_s = after_s


class Connection(Protocol):
    """One connection, ready for frames both ways."""

    def frames(self) -> AsyncIterator[bytes]:
        """Yield what the gateway says, until it ends.

        Raises:
            Unreached: how it ended, if it says so.
        """

    async def send(self, frame: bytes) -> None:
        """Write one frame.

        Raises:
            Unreached: the connection is gone.
        """


class Transport(Protocol):
    """A way to the gateway."""

    def connect(self) -> AbstractAsyncContextManager[Connection]:
        """Connect, and disconnect at the end.

        Raises:
            Unreached: on entering.
        """


class Backoff:
    """How long to wait before the next try: random, up to a bound that doubles; a fleet must not come all at once."""

    def __init__(self, random: Random, first_s: float = 1.0, longest_s: float = 60.0) -> None:
        self._random = random
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0

    def succeeded(self) -> None:
        """Begin anew."""
        self._failures = 0

    def wait_s(self, ended: Unreached | None = None) -> float:
        """Return the wait after one more failure."""
        if ended is not None and ended.after_s:  # the gateway has given everybody a time of its own
            return min(ended.after_s, self._longest_s) + self._random.uniform(0.0, 1.0)
        bound_s = min(self._longest_s, self._first_s * 2 ** min(self._failures, 16))
        self._failures += 1
        if ended is not None and ended.patient:
            return self._longest_s
        return self._random.uniform(0.0, bound_s)
