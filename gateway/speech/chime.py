"""What is heard before the words: a soft tone that wakes the amplifier, and a chime that tells real from drill.

Called by the worker. All of it is computed from sines with fixed frequencies. A real warning strikes a bell in falling
pairs, more of them the higher its level; a drill plays a rising row of plain, soft notes. Nothing here may be taken for
an alarm that means something else: no 853, 960 or 1050 Hz (EAS attention and weather-radio tones), no 1562.5 and
2083.3 Hz (SAME data), nothing that wails, and nothing long enough for a civil-defence signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from gateway.speech.engine import RATE_HZ, Samples

HIGH_HZ, LOW_HZ = 659.26, 493.88
BELL = ((1.0, 1.0), (2.756, 0.45), (5.404, 0.15))  # partials of a struck bar: ratio, share
PAIRS = {"red": (4, 0.65), "orange": (3, 0.8), "yellow": (2, 1.0), "blue": (1, 1.0)}  # how many, seconds between them
SECOND_S, BELL_DECAY_S, BELL_END_S = 0.28, 0.35, 1.6
DRILL_HZ = (392.0, 493.88, 587.33, 783.99)
NOTE_S, NOTE_GAP_S = 0.3, 0.06
WAKE_HZ, WAKE_LEVEL = 440.0, 0.03
LOUDEST = 0.8
TONES = (*PAIRS, "drill")
"""From most to least urgent."""


class Strike(NamedTuple):
    """One stroke of the bell."""

    at_s: float
    hz: float


def strikes(tone: str) -> Sequence[Strike]:
    """Return the strokes of a real warning's chime."""
    count, apart_s = PAIRS[tone]
    return [
        Strike(pair * apart_s + second * SECOND_S, hz)
        for pair in range(count)
        for second, hz in enumerate((HIGH_HZ, LOW_HZ))
    ]


@cache
def chime(tone: str) -> Samples:
    """Return the chime of a level ("red", "orange", "yellow", "blue") or of "drill"; the same array each time."""
    sound = _drill() if tone == "drill" else _bell(strikes(tone))
    return sound * np.float32(LOUDEST / np.abs(sound).max())


def wake(seconds: float) -> Samples:
    """Return the soft tone that opens amplifiers and noise gates; it swells so that it does not click."""
    at = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    swell = np.clip(np.minimum(at, seconds - at) / 0.1, 0, 1)
    return (WAKE_LEVEL * swell * np.sin(2 * np.pi * WAKE_HZ * at)).astype(np.float32)


def _bell(strokes: Sequence[Strike]) -> Samples:
    sound = np.zeros(round((strokes[-1].at_s + BELL_END_S) * RATE_HZ), np.float32)
    for stroke in strokes:
        tail = sound[round(stroke.at_s * RATE_HZ) :]
        at = np.arange(len(tail)) / RATE_HZ
        attack = np.minimum(at / 0.004, 1)
        for ratio, share in BELL:  # higher partials die away sooner
            tail += share * attack * np.exp(-at * ratio / BELL_DECAY_S) * np.sin(2 * np.pi * stroke.hz * ratio * at)
    fade = min(len(sound), round(0.1 * RATE_HZ))
    sound[-fade:] *= np.linspace(1, 0, fade)
    return sound


def _drill() -> Samples:
    at = np.arange(round(NOTE_S * RATE_HZ)) / RATE_HZ
    shape = np.sin(np.pi * at / NOTE_S)  # no stroke: each note swells and goes
    gap = np.zeros(round(NOTE_GAP_S * RATE_HZ))
    notes = [part for hz in DRILL_HZ for part in (shape * np.sin(2 * np.pi * hz * at), gap)]
    return np.concatenate([*notes, *notes]).astype(np.float32)
