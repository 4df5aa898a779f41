"""How well an account serves: it loses share at once and regains it slowly, so that traffic does not swing.

Used by `_account`; `_carrier` multiplies weight by health. Seconds are the loop's.
"""

from __future__ import annotations

FLOOR = 0.02
"""A share stays: without any traffic nobody learns that the account is well again."""
FAILURE = 0.5
SLOW = 0.95  # per answer
REGAIN_S = 60.0
"""From the floor to the full share, of answers in good time."""
SLOW_FACTOR = 3.0
LEAST_SLOW_S = 0.5
PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0


class Health:
    """1.0 is well. Latency is judged against the account's own past."""

    def __init__(self, now: float) -> None:
        self.value = 1.0
        self.paused_until = 0.0
        self._pause_s = PAUSE_S
        self._judged = now
        self._recent_s = 0.0
        self._usual_s = 0.0

    def failed(self, now: float) -> None:
        """No answer, a lost connection, a refused login, a fault of the carrier's."""
        self.value = max(FLOOR, self.value * FAILURE)
        self._judged = now

    def served(self, took_s: float, now: float) -> None:
        """An answer came."""
        if not self._usual_s:
            self._recent_s = self._usual_s = took_s
        self._recent_s += (took_s - self._recent_s) * 0.1
        self._usual_s += (took_s - self._usual_s) * 0.002
        if now >= self.paused_until:
            self._pause_s = max(PAUSE_S, self._pause_s * 0.9)
        if self._recent_s > max(LEAST_SLOW_S, SLOW_FACTOR * self._usual_s):
            self.value = max(FLOOR, self.value * SLOW)
        elif self.value < 1.0:
            # Time without answers regains nothing.
            self.value = min(1.0, self.value + min(now - self._judged, 1.0) / REGAIN_S)
        self._judged = now

    def throttled(self, now: float) -> float:
        """Flow control: return how long to wait; the answers to one full window count once."""
        if now >= self.paused_until:
            self.paused_until = now + self._pause_s
            self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
        return self.paused_until - now
