"""From an announcement to files that can be played: a signal, the drill mark, and its words.

The gateway's recording is fetched and checked against the signed digest; without one, or where it cannot be had, the
device speaks the text by itself, if it can. What is not real always begins with the drill's signal and the spoken
mark, whatever the text or the recording has.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
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
    """Files of one device, in a folder of its own. What a power cut has left of one is not taken for it.

    `speak_with`: a command that reads a text and writes `{file}`; `tls`: what recordings are fetched with.
    """

    def __init__(self, folder: Path, speak_with: str = "", tls: ssl.SSLContext | bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._command = arguments(speak_with, FILE, "speak_with") if speak_with else []
        self._tls = tls
        self._fetching: dict[str, asyncio.Lock] = {}
        self._parts = count()

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
        if not _whole(path):
            with self._part(path) as part:
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
        if _whole(path):
            os.utime(path)
            return _clip(path)
        with self._part(path) as part:
            await run([piece.replace(FILE, str(part)) for piece in self._command], "tts_failed", SPEAK_S, text)
            if not _whole(part):
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
            if await asyncio.to_thread(_is_signed, path, recording):
                os.utime(path)
                return _clip(path, recording.duration_s)
            if recording.size > LARGEST_BYTES:
                raise Broken("bad_audio")
            data = await _get(recording, self._tls)
            if len(data) != recording.size or hashlib.sha256(data).hexdigest() != recording.sha256:
                raise Broken("bad_audio")
            try:
                with self._part(path) as part:
                    part.write_bytes(data)
                    part.rename(path)
            except OSError:  # the disk is full: the voice may be heard still
                raise Broken("audio_failed") from None
        self._fetching.pop(recording.sha256, None)
        self._tidy()
        return _clip(path, recording.duration_s)

    @contextmanager
    def _part(self, path: Path) -> Iterator[Path]:
        """Have a file of one's own to write, which is gone unless it was renamed: a self-test may make the same."""
        part = path.with_name(f"part-{next(self._parts)}{path.suffix}")
        part.unlink(missing_ok=True)  # of a run before this one
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Remove the files that were not used for longest."""
        files = [file for file in self._folder.iterdir() if not file.name.startswith("signal-")]
        for file in sorted(files, key=lambda one: one.stat().st_mtime, reverse=True)[KEPT:]:
            file.unlink(missing_ok=True)


def _whole(path: Path) -> bool:
    """Whether it is a WAV file that sounds."""
    return path.exists() and bool(tone.length_s(path))


def _is_signed(path: Path, recording: Recording) -> bool:
    """Whether a file is still what was signed: a power cut, or whoever has the disk, may have left another."""
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == recording.sha256


def _clip(path: Path, length_s: float = 0.0) -> Clip:
    """Measure a file, where it is a WAV file; else believe what is said of it."""
    return Clip(path, tone.length_s(path) or length_s)


async def _get(recording: Recording, tls: ssl.SSLContext | bool) -> bytes:
    """Fetch no more than the signed size, from nowhere but the signed address."""
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=FETCH_S)) as session,
            session.get(recording.url, allow_redirects=False, ssl=tls) as answer,
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
