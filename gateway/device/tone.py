"""The device's own signals, for announcements that come as text alone.

Three rising notes for what is real, one falling pair for a drill, two soft notes for an all-clear: none is part of any
public alarm (no 853+960 Hz, no 1,050 Hz, no sweep like a siren's), and a drill's can be told from a real one's by
anybody. Some silence comes first: amplifiers take a moment to wake up, and swallow what comes in it.
"""

from __future__ import annotations

import math
import wave
from array import array
from pathlib import Path

RATE = 22_050
WAKE_S = 0.6
NOTE_S = 0.45
GAP_S = 0.08
FADE_S = 0.02
LOUD = 0.6
REAL, DRILL, ALL_CLEAR = "warning", "drill", "all_clear"
NOTES = {REAL: (523.25, 659.25, 783.99) * 2, DRILL: (392.0, 293.66), ALL_CLEAR: (659.25, 523.25, 523.25)}
"""Hertz: triads of C, well away from the frequencies of alarms."""


def write(path: Path, name: str, note_s: float = NOTE_S) -> None:
    """Write a signal as WAV: mono, 16 bits."""
    samples = array("h", bytes(2 * int(RATE * WAKE_S)))
    for hertz in NOTES[name]:
        count = int(RATE * note_s)
        for n in range(count):
            fade = min(1.0, n / (RATE * FADE_S), (count - n) / (RATE * FADE_S))
            samples.append(int(32_767 * LOUD * fade * math.sin(2 * math.pi * hertz * n / RATE)))
        samples.extend(bytes(int(RATE * GAP_S)))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def length_s(path: Path) -> float | None:
    """Return how long a WAV file sounds; None where it is none."""
    try:
        with wave.open(str(path), "rb") as file:
            return file.getnframes() / file.getframerate()
    except (wave.Error, EOFError, ZeroDivisionError):
        return None
