"""From an announcement to files that can be played: a signal, the drill mark, and its words.

The gateway's recording is fetched and checked against the signed digest; without one, or where it cannot be had, the
device speaks the text by itself, if it can. What is not real always begins with the drill's signal and the spoken
mark, whatever the text or the recording has.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from aiohttp import ClientError, ClientSession, ClientTimeout

from gateway.device import tone
from gateway.device.command import Play, Recording
from gateway.device.sound import FILE, Broken, Clip, arguments, run
from gateway.log import get

LARGEST_BYTES = 32 * 1024 * 1024
KEPT = 200
"""Files of the cache; the oldest go first."""
FETCH_S = 20.0
SPEAK_S = 60.0
MARKS = {"zh": "演练。", "en": "DRILL. "}
SUFFIXES = {"audio/wav": ".wav", "audio/x-wav": ".wav", "audio/mpeg": ".mp3", "audio/ogg": ".ogg"}

_log = get("device")


def mark(language: str) -> str:
    """Return the words every drill begins with."""
    return MARKS.get(language[:2].lower(), MARKS["zh"])


class Round(NamedTuple):
    """What a round consists of: signals once, then as often as it is repeated the drill mark, if any, and the words."""

    signals: list[Clip]
    mark: list[Clip]
    words: Clip


class Studio:
    """Files of one device, in a folder of its own. `speak_with`: a command that reads a text and writes `{file}`."""

    def __init__(self, folder: Path, speak_with: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._command = arguments(speak_with, FILE, "speak_with") if speak_with else []
        self._fetching: dict[str, asyncio.Lock] = {}

    @property
    def speech(self) -> bool:
        """Whether it can speak a text by itself."""
        return bool(self._command)

    async def round(self, play: Play) -> Round:
        """Return what a round consists of, ready to be played.

        Raises:
            Broken: it cannot be made.
        """
        if play.audio is not None:
            try:
                words = await self.fetch(play.audio)
            except Broken as broken:
                if not self.speech:
                    raise
                _log.warning("speaks_itself", code=broken.code)
            else:  # the gateway's recordings begin with a signal of their own
                return Round([], [], words) if play.real else await self._drill(play, words)
        words = await self.speak(play.text)
        if not play.real:
            return await self._drill(play, words)
        return Round([await self.signal(tone.ALL_CLEAR if play.tone == tone.ALL_CLEAR else tone.REAL)], [], words)

    async def _drill(self, play: Play, words: Clip) -> Round:
        """Put the drill's signal and mark in front. A device that cannot speak has but the mark in the recording."""
        said = [await self.speak(mark(play.language))] if self.speech else []
        return Round([await self.signal(tone.DRILL)], said, words)

    async def signal(self, name: str) -> Clip:
        """Return one of the device's own signals."""
        path = self._folder / f"signal-{name}.wav"
        if not path.exists():
            part = path.with_suffix(".part")
            await asyncio.to_thread(tone.write, part, name)
            part.rename(path)
        return _clip(path)

    async def speak(self, text: str) -> Clip:
        """Return a text as sound.

        Raises:
            Broken: "no_speech", or "tts_failed".
        """
        if not self.speech:
            raise Broken("no_speech")
        digest = hashlib.sha256("\0".join((*self._command, text)).encode()).hexdigest()
        path = self._folder / f"speech-{digest[:32]}.wav"
        if path.exists():
            os.utime(path)
            return _clip(path)
        part = path.with_suffix(".part.wav")
        await run([piece.replace(FILE, str(part)) for piece in self._command], "tts_failed", SPEAK_S, text)
        if not part.exists() or not tone.length_s(part):
            raise Broken("tts_failed")
        part.rename(path)
        self._tidy()
        return _clip(path)

    async def fetch(self, recording: Recording) -> Clip:
        """Return the gateway's recording, fetched if it is not here yet.

        Raises:
            Broken: "audio_failed", or "bad_audio": it is not what was signed.
        """
        path = self._folder / f"audio-{recording.sha256}{SUFFIXES.get(recording.type, '.wav')}"
        async with self._fetching.setdefault(recording.sha256, asyncio.Lock()):
            if path.exists():
                os.utime(path)
                return _clip(path, recording.duration_s)
            if recording.size > LARGEST_BYTES:
                raise Broken("bad_audio")
            data = await _get(recording)
            if len(data) != recording.size or hashlib.sha256(data).hexdigest() != recording.sha256:
                raise Broken("bad_audio")
            part = path.with_suffix(".part")
            part.write_bytes(data)
            part.rename(path)
        self._fetching.pop(recording.sha256, None)
        self._tidy()
        return _clip(path, recording.duration_s)

    def _tidy(self) -> None:
        """Remove the files that were not used for longest."""
        files = [file for file in self._folder.iterdir() if not file.name.startswith("signal-")]
        for file in sorted(files, key=lambda one: one.stat().st_mtime, reverse=True)[KEPT:]:
            file.unlink(missing_ok=True)


def _clip(path: Path, length_s: float = 0.0) -> Clip:
    """Measure a file, where it is a WAV file; else believe what is said of it."""
    return Clip(path, tone.length_s(path) or length_s)


async def _get(recording: Recording) -> bytes:
    """Fetch no more than the signed size, from nowhere but the signed address."""
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=FETCH_S)) as session,
            session.get(recording.url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise Broken("audio_failed")
            data = bytearray()
            async for chunk in answer.content.iter_chunked(65_536):
                data += chunk
                if len(data) > recording.size:
                    raise Broken("bad_audio")
            return bytes(data)
    except (ClientError, OSError, TimeoutError):
        raise Broken("audio_failed") from None
