"""The gateway's time, reckoned by a device whose own clock may be wrong.

Every signed payload says the gateway's `now`. The device adds what its monotonic clock has counted since: no payload
says a later time than it is, so the latest reckoning is the best one, and a frame that lay in a buffer for hours, or
is played back by somebody, makes nothing young again. Times are seconds since 1970; `now` is the monotonic clock.
"""

from __future__ import annotations

DAY_S = 86_400.0


class Reckoning:
    """What time it is at the gateway. `sure` once a signed payload said so since the device was switched on."""

    __slots__ = ("_offset", "sure")

    def __init__(self, at_least: float = 0.0, now: float = 0.0) -> None:
        """Begin with a time that has certainly passed."""
        self._offset = at_least - now
        self.sure = False

    def at(self, now: float) -> float:
        """Return the gateway's time; a time it has passed already, while not `sure`."""
        return now + self._offset

    def stale(self, said: float, now: float) -> bool:
        """Tell whether a payload is more than a day old."""
        return said < self.at(now) - DAY_S

    def learn(self, said: float, now: float, *, new: bool) -> None:
        """Take in what a signed payload says. One that is not `new` proves nothing if it says what has passed."""
        self.sure = self.sure or new or said > self.at(now)
        self._offset = max(self._offset, said - now)

    def set(self, said: float, now: float) -> None:
        """Take this time even if it is an earlier one: the way back after a gateway whose clock was ahead."""
        self._offset = said - now
        self.sure = True
