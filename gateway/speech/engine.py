"""The synthesiser: espeak-ng through its C interface, from pinyin or English to samples.

Imported in the worker only, for the library may crash the process it is loaded into.

**Source:** espeak-ng `speak_lib.h` (`espeak_Initialize`, `espeak_Synth`, `espeak_TextToPhonemes`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

RATE_HZ = 22_050
VOICES = {"zh": "cmn-latn-pinyin", "en": "en"}
_SYNCHRONOUS, _UTF8, _PHONEMES, _SPEED, _CHARACTERS = 2, 1, 0x100, 1, 1
# Syllables the Mandarin voice does not know and would spell in English, as its own phonemes.
_UNKNOWN = {"xiong": "S;j'ong", "qiong": "tS;hj'ong", "jiong": "tS;j'ong"}
_CONTOURS = {"1": "55", "2": "35", "3": "214", "4": "51", "5": "11"}
_ANY_RATE = 140
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Engine:
    """One loaded synthesiser. A process has at most one; its sound depends on what it said before."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
        if rate != RATE_HZ:
            raise RuntimeError(f"espeak-ng speaks at {rate} Hz")
        self._heard: list[bytes] = []
        self._callback = _CALLBACK(self._hear)  # kept: the library holds only its address
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, language: str, words_per_minute: int) -> Samples:
        """Speak; samples lie within -1 and 1. In Chinese the text is the joined tokens of a `Pronunciation`."""
        self._voice(language)
        self._library.espeak_SetParameter(_SPEED, words_per_minute, 0)
        self._heard.clear()
        data = text.encode()
        flags = _UTF8 | (_PHONEMES if language == "zh" else 0)  # never for free text: it could hold [[ ]]
        if self._library.espeak_Synth(data, len(data) + 1, 0, _CHARACTERS, 0, flags, None, None) != 0:
            raise RuntimeError("espeak-ng refused the text")
        return np.frombuffer(b"".join(self._heard), np.int16).astype(np.float32) / np.float32(32768)

    def phonemes(self, text: str, language: str) -> str:
        """Return what would be said, in the library's notation; a pause is "|"."""
        self.speak("a1", language, _ANY_RATE)  # phonemes in a text are understood once something was spoken
        left = ctypes.pointer(ctypes.c_char_p(text.encode()))
        parts = []
        while left.contents.value:
            parts.append((self._library.espeak_TextToPhonemes(left, _UTF8, 0) or b"").decode())
        return " | ".join(parts)

    def _voice(self, language: str) -> None:
        if self._library.espeak_SetVoiceByName(VOICES[language].encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {VOICES[language]}")

    def _hear(self, samples: Any, count: int, _: Any) -> int:
        if count:
            self._heard.append(ctypes.string_at(samples, count * ctypes.sizeof(ctypes.c_short)))
        return 0


def line(tokens: Sequence[str]) -> str:
    """Write the tokens of a `Pronunciation` as the Mandarin voice takes them."""
    return " ".join(_phonetic(token) for token in tokens)


def _phonetic(token: str) -> str:
    known = _UNKNOWN.get(token[:-1])
    return f"[[{known}{_CONTOURS[token[-1]]}_|]]" if known else token
