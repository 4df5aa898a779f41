"""The voice of the speech extra, as a command: `python -m gateway.device.voice FILE` reads a text and writes it as WAV.

`studio` runs it like any other such command, so that the synthesiser, which may crash, has a process of its own.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from gateway.render import spoken
from gateway.settings import data_folder
from gateway.speech.announcement import encode
from gateway.speech.engine import Engine, line
from gateway.speech.pronunciation import Pronunciation

RATE = 140
LOUDEST = 0.89
HANZI = re.compile("[\u4e00-\u9fff]")


def say(text: str) -> bytes:
    """Return a text as sound; Chinese if there is any in it. No signal and no repetition: those are the device's."""
    language = "zh" if HANZI.search(text) else "en"
    words = spoken(text, language)
    if language == "zh":
        words = line(Pronunciation.load(data_folder("config")).read(words))
    samples = Engine().speak(words, language, RATE)
    peak = float(np.abs(samples).max()) if len(samples) else 0.0
    return encode(samples * np.float32(LOUDEST / peak) if peak else samples, "wav")


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(say(sys.stdin.read()))
