"""Lets work of the lower lanes step aside while something more urgent is under way, here or elsewhere (rule 5).

One per process: `sender` waits at it before each slice, `planner` passes a lane over that may not pass. What is under
way in this process is counted. What is green and about to be written, and what is green or urgent in others, which is
told by their wake-ups (`app`), holds bulk and service work for a moment only, so that a lost word, or a process that
died, costs nothing but that moment. Nobody steps
aside for longer than `AT_MOST_S` at a time: a night of red warnings slows the blue ones down and never stops them.
"""

from __future__ import annotations

import asyncio

from gateway.model import Lane

LOOK_S = 0.02
AT_MOST_S = 2.0
HOLD_S = 0.25
"""How long a word from another process counts: longer than it takes to say the next one."""
URGENT = (Lane.GREEN, Lane.URGENT)

_ABOVE = {lane: tuple(Lane)[:rank] for rank, lane in enumerate(Lane)}


class Gate:
    """What is under way, by lane. `at_most_s`: how long anybody steps aside at a time."""

    def __init__(self, at_most_s: float = AT_MOST_S) -> None:
        self._at_most_s = at_most_s
        self._here = dict.fromkeys(Lane, 0)
        self._held_until = 0.0  # the loop's time, as is
        self._refused_since: dict[Lane, float] = {}

    def enter(self, lane: Lane) -> None:
        """Count a batch of `lane` in."""
        self._here[lane] += 1

    def leave(self, lane: Lane) -> None:
        """Count it out."""
        self._here[lane] -= 1

    def hold(self) -> None:
        """Note that something urgent is under way that is not counted here."""
        self._held_until = asyncio.get_running_loop().time() + HOLD_S

    def urgent(self) -> bool:
        """Whether something is under way here for which bulk work elsewhere should step aside."""
        return any(self._here[lane] for lane in URGENT)

    def passes(self, lane: Lane) -> bool:
        """Whether bulk or service work may go on now; whoever asks in vain for `at_most_s` is let through once."""
        if lane in URGENT or not self._busy_above(lane):
            self._refused_since.pop(lane, None)
            return True
        now = asyncio.get_running_loop().time()
        if now - self._refused_since.setdefault(lane, now) < self._at_most_s:
            return False
        self._refused_since[lane] = now
        return True

    async def step_aside(self, lane: Lane) -> None:
        """Wait, a bounded time, while a more urgent lane is busy."""
        waited_s = 0.0
        while waited_s < self._at_most_s and self._busy_above(lane):
            await asyncio.sleep(LOOK_S)
            waited_s += LOOK_S

    def _busy_above(self, lane: Lane) -> bool:
        held = lane not in URGENT and self._held_until > asyncio.get_running_loop().time()
        return held or any(self._here[above] for above in _ABOVE[lane])
