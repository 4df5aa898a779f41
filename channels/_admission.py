"""How many devices a process lets in at once, so that a whole city's return after a power cut delays no warning.

Used by `loudspeaker_ws`, before it looks at name and key: whoever is too much costs next to nothing.
"""

from __future__ import annotations

import math
from types import TracebackType

IN_FLIGHT = 1000  # whose name is being looked up; more of them wait for a database that does not answer


class Admission:
    """A rate with a burst of half a second. Used as a context while a name is looked up."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s / 2)
        self._free, self._at = self._burst, 0.0
        self._promised = 0.0
        self._in_flight = 0

    def ask(self, now: float) -> int:
        """Return 0: come in; or after how many seconds to come again.

        Those who are turned away are spread at the same rate over the seconds to come, so that they are not too many
        once more.
        """
        self._free = min(self._burst, self._free + (now - self._at) * self._per_s)
        self._at = now
        if self._free >= 1 and self._in_flight < IN_FLIGHT:
            self._free -= 1
            return 0
        self._promised = max(self._promised, now) + 1 / self._per_s
        return math.ceil(self._promised - now)

    def __enter__(self) -> None:
        """Count one more."""
        self._in_flight += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Count one less."""
        self._in_flight -= 1
