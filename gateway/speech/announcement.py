"""One whole announcement: what is asked of the worker, and how its sound is put together.

    soft tone · chime · words · pause · the same words

`Order` is made in the gateway from a message, `compose` and `encode` run in the worker. A drill is a drill for whatever
is not exactly Actual: its chime is the drill's, its first word the drill mark, and no recording is ever used (rule 3).
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from gateway.model import Document, Level, Message, Notice, Status
from gateway.render import spoken
from gateway.speech.chime import chime, wake
from gateway.speech.engine import RATE_HZ, Engine, Samples, line
from gateway.speech.pronunciation import Pronunciation

VERSION = 1
"""Counts up whenever the same order makes another sound."""
LONGEST = 3000
"""Characters of one text, far more than a channel takes: twice this is half an hour."""
TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav"}
MARKS = {"zh": "演练。", "en": "DRILL. "}

_AFTER_CHIME_S, _END_S = 0.4, 0.3
_LOUDEST = 0.89  # -1 dBFS: room for what an encoder adds
_ENDS = frozenset({Notice.ALL_CLEAR, Notice.PARTIAL_ALL_CLEAR, Notice.CORRECTION})
_CALM = frozenset({Document.RETURN, Document.SERVICE})
_QUALITY = {"bitrate_mode": "VARIABLE", "compression_level": 0.6}  # about 46 kbit/s; the header tells the exact length


class Recording(msgspec.Struct, frozen=True):
    """A recorded voice: its file, the digest of its content, and whether it stands before or instead of the words."""

    path: str
    digest: str
    place: Literal["before", "instead"]


class Order(msgspec.Struct, frozen=True):
    """One announcement to be made. `tone` is a chime's name; `rate` is in words per minute."""

    text: str
    language: str
    tone: str
    rate: int = 140
    wake_s: float = 1.5
    pause_s: float = 1.2
    form: str = "mp3"
    recording: Recording | None = None


class Job(msgspec.Struct, frozen=True):
    """An order and the file its sound goes into; no file: it is made and thrown away."""

    order: Order
    out: str = ""


class Made(msgspec.Struct, frozen=True):
    """What became of an order: a duration in seconds, or the kind of error; never words of the text."""

    duration_s: float = 0.0
    error: str = ""


def tone_of(message: Message) -> str:
    """Return the chime of a message: "drill" for whatever is not Actual, else by urgency.

    What ends or corrects a warning is heard without its alarm. An evacuation instruction has no colour, and is urgent.
    """
    if message.status is not Status.ACTUAL:
        return "drill"
    if message.notice in _ENDS or message.document in _CALM:
        return "blue"
    if message.document is Document.EVACUATION:
        return "red"
    return "yellow" if message.level is Level.UNKNOWN else Level(message.level).name.lower()


def words_of(text: str, language: str, *, drill: bool) -> str:
    """Return what is said: fit for reading aloud, and a drill's first word is its mark, whoever wrote the text."""
    said = spoken(text, language)
    mark = MARKS[language]
    return said if not drill or said.startswith(mark.rstrip(" ")) else mark + said


def compose(order: Order, engine: Engine, pronunciation: Pronunciation) -> Samples:
    """Return the samples of a whole announcement.

    Raises:
        ValueError: nothing could be said, or the recording is not the one that was meant.
        OSError: the recording is gone.
    """
    pause = _silence(order.pause_s)
    start = [wake(order.wake_s), chime(order.tone), _silence(_AFTER_CHIME_S)]
    recording = order.recording
    if recording and recording.place == "instead":
        said = _recorded(recording)
    else:
        said = _said(order, engine, pronunciation)
        start += [_recorded(recording), pause] if recording else []
    return np.concatenate([*start, said, pause, said, _silence(_END_S)])


def encode(samples: Samples, form: str) -> bytes:
    """Encode as one of `TYPES`, one channel; the same samples always give the same bytes."""
    import soundfile

    whole = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    more = _QUALITY if form == "mp3" else {}
    subtype = {"mp3": "MPEG_LAYER_III", "wav": "PCM_16"}[form]
    buffer = io.BytesIO()
    soundfile.write(buffer, whole, RATE_HZ, format=form.upper(), subtype=subtype, **more)
    return buffer.getvalue()


def read(data: bytes) -> Samples:
    """Read a recording of any rate and number of channels as ours, as loud as our voice."""
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return _loud(resampled(samples.mean(axis=1), rate))


def resampled(samples: Samples, rate: int) -> Samples:
    """Bring samples of another rate to ours, by their spectrum."""
    if rate == RATE_HZ or not len(samples):
        return samples
    count = max(1, round(len(samples) * RATE_HZ / rate))
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    return (np.fft.irfft(spectrum, count) * (count / len(samples))).astype(np.float32)


def _recorded(recording: Recording) -> Samples:
    data = Path(recording.path).read_bytes()
    if hashlib.sha256(data).hexdigest() != recording.digest:
        raise ValueError("another recording")  # replaced while the gateway runs: what it says was not checked
    return read(data)


def _said(order: Order, engine: Engine, pronunciation: Pronunciation) -> Samples:
    text = order.text
    if order.language == "zh":
        tokens = pronunciation.read(text)
        if not any(token[-1].isdigit() for token in tokens):
            raise ValueError("no words")
        text = line(tokens)
    sound = engine.speak(text, order.language, order.rate)
    if not len(sound) or not np.abs(sound).max():
        raise ValueError("no sound")
    return _loud(sound)


def _loud(sound: Samples) -> Samples:
    peak = float(np.abs(sound).max()) if len(sound) else 0.0
    return sound * np.float32(_LOUDEST / peak) if peak else sound


def _silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE_HZ), np.float32)
