"""The memory of what was commanded to which loudspeaker: nobody speaks of anything else.

Used by `_loudspeaker`.
"""

from __future__ import annotations

from channels._loudspeaker_frame import Told
from gateway.channel import Play

REMEMBERED_S = 86_400.0
REMEMBERED = 200_000


class Commanded:
    """Which command went to which device: bounded, forgotten after a day, by the loop's clock."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[int, str, float]] = {}

    def add(self, play: Play, now: float) -> None:
        """Remember one command."""
        key = (play.batch, play.position)
        self._known.pop(key, None)  # the newest stand last
        self._known[key] = (play.device, play.message.alert, now)

    def forget(self, now: float) -> None:
        """Drop what is too old or too much."""
        while self._known:
            key, (_, _, at) = next(iter(self._known.items()))
            if len(self._known) <= REMEMBERED and at >= now - REMEMBERED_S:
                return
            del self._known[key]

    def allows(self, told: Told, device: int, now: float) -> bool:
        """Tell whether this device may speak of this command."""
        found = self._known.get((told.batch, told.position))
        return found is not None and found[:2] == (device, told.id) and found[2] >= now - REMEMBERED_S
