"""What the gateway holds of speech: texts of messages to files that devices fetch.

`audio` is asked by a link from within a hub's round, so it never waits: what is ready is returned, what is not is
begun, once per announcement, and `ready` is called when it can be asked for again. A failure is logged and alarmed
once; the text still goes out. The same announcement is the same file on every process, byte for byte.

A process serves what it has made: devices are told this process's own address (`MINGLUO_PUBLIC_URL`).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import tomllib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import msgspec
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway import log, metrics
from gateway.channel import Route
from gateway.errors import ConfigError
from gateway.model import Audio, Message, Status
from gateway.speech.announcement import LONGEST, TYPES, VERSION, Order, Recording, tone_of, words_of
from gateway.speech.cache import NAME, Cache, Kept, discard
from gateway.speech.engine import VOICES
from gateway.speech.pool import INSTALL, LIBRARIES, Pool, SpeechFailed, missing
from gateway.speech.pronunciation import Pronunciation
from gateway.speech.recording import Recordings

FILE = "speech.toml"
KEPT = 10_000  # announcements known without a look at the disk
WAITING = 1_000  # announcements being made; beyond them a text waits until it is asked for again
MOMENT_S = 2.0  # a warning waits no longer for its own sound
AGAIN_S = 60.0  # what failed is tried again no sooner
USED_S = 600.0  # how exactly the disk knows when a file was last used
FOREVER = "public, max-age=31536000, immutable"

_log = log.get("speech")


class SpeechSettings(BaseModel):
    """`config/speech.toml`; every field has a default. `rate` is in words per minute."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: Literal["mp3", "wav"] = "mp3"
    rate: int = Field(140, ge=80, le=240)
    wake_s: float = Field(1.5, ge=0.5, le=10)
    pause_s: float = Field(1.2, ge=0.3, le=10)
    cache_mb: int = Field(512, ge=16)

    @classmethod
    def load(cls, config: Path) -> SpeechSettings:
        """Read the file; without one the defaults hold.

        Raises:
            ConfigError: the key that is wrong.
        """
        path = config / FILE
        try:
            return cls(**tomllib.loads(path.read_text(encoding="utf8"))) if path.exists() else cls()
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{FILE}: not valid TOML: {error}") from None
        except ValidationError as error:
            wrong = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors(include_input=False))
            raise ConfigError(f"{FILE}: {wrong}") from None

    def order(self, words: str, language: str, tone: str, recording: Recording | None = None, form: str = "") -> Order:
        """Return what is to be made of words."""
        return Order(words, language, tone, self.rate, self.wake_s, self.pause_s, form or self.form, recording)


class Speech:
    """The announcements of one process.

    Args:
        config: folder with `speech.toml`, `pronunciation.csv` and `recordings/`.
        folder: where finished files are kept.
        url: by which address devices reach this process.
        ready: called when something that was asked for can be asked for again.

    Raises:
        ConfigError: a file of the configuration is wrong.
    """

    def __init__(self, config: Path, folder: Path, url: Callable[[], str], ready: Callable[[], None]) -> None:
        self.settings = SpeechSettings.load(config)
        self._recordings = Recordings.load(config)
        self._edition = edition(config)
        self._cache = Cache(folder, self.settings.cache_mb * 1_000_000)
        self._pool = Pool(config)
        self._url = url
        self._ready = ready
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._used: dict[str, float] = {}
        self._failed: dict[str, float] = {}
        self._jobs: dict[str, asyncio.Task[None]] = {}

    @classmethod
    def open(cls, config: Path, folder: Path, url: Callable[[], str], ready: Callable[[], None]) -> Speech | None:
        """Return the speech of this process; None, said in the log, where there is none: the texts still go out."""
        if lacking := missing():
            _log.warning("no_speech", missing=lacking, install=INSTALL)
            return None
        try:
            return cls(config, folder, url, ready)
        except ConfigError as error:  # a recording that was lost must not keep a gateway from starting
            metrics.alarms.labels("speech").inc()
            _log.error("no_speech", why=str(error), hint="mend it and restart; see: mingluo speech check")
            return None

    def audio(self, message: Message, text: str) -> Audio | None:
        """Return the announcement of a text if it is finished; else begin it, unless it failed a moment ago."""
        order = self.order(message, text)
        key = self.key(order)
        if (kept := self._kept.get(key)) is not None and self._still(key, kept):
            name, url = kept.name, self._url().rstrip("/")
            return Audio(
                f"{url}/v1/audio/{name}", kept.sha256, kept.size_bytes, kept.duration_s, TYPES[self.settings.form]
            )
        waits = time.monotonic() - self._failed.get(key, -AGAIN_S) < AGAIN_S
        if key not in self._jobs and not waits and len(self._jobs) < WAITING:
            self._jobs[key] = asyncio.create_task(self._make(key, order))
        return None

    async def recording(self, message: Message, text: str) -> bytes | None:
        """Return the announcement of a text as MP3, waiting a moment for it; None: the text goes out without."""
        if self.settings.form != "mp3":
            return None
        key = self.key(self.order(message, text))
        audio = self.audio(message, text)
        if audio is None and (job := self._jobs.get(key)) is not None:
            await asyncio.wait([job], timeout=MOMENT_S)
            audio = self.audio(message, text)
        if audio is None:
            return None
        try:
            return await asyncio.to_thread((self._cache.folder / audio.url.rpartition("/")[2]).read_bytes)
        except OSError:  # room was made for others just now
            return None

    def order(self, message: Message, text: str) -> Order:
        """Return what is to be made of a message."""
        language = message.language if message.language in VOICES else "zh"
        words = words_of(text, language, drill=message.status is not Status.ACTUAL)
        return self.settings.order(words, language, tone_of(message), self._recordings.choose(message))

    def key(self, order: Order) -> str:
        """Return the digest of everything the sound depends on."""
        return hashlib.sha256(self._edition + msgspec.json.encode(order)).hexdigest()

    def routes(self) -> Sequence[Route]:
        """Return the route that serves finished files: no list, no other file."""

        async def fetch(request: web.Request) -> web.StreamResponse:
            name = request.match_info["name"]
            path = self._cache.folder / name
            if not NAME.fullmatch(name) or not await asyncio.to_thread(path.is_file):
                raise web.HTTPNotFound
            kind = TYPES[path.suffix.removeprefix(".")]
            return web.FileResponse(path, headers={"Content-Type": kind, "Cache-Control": FOREVER})

        # FileResponse answers ranges and conditions. HEAD is a route of its own to aiohttp.
        return [Route(method, "/v1/audio/{name}", fetch) for method in ("GET", "HEAD")]

    async def close(self) -> None:
        """Give up what is being made; end the workers."""
        for task in list(self._jobs.values()):
            task.cancel()
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)
        await self._pool.close()

    def _still(self, key: str, kept: Kept) -> bool:
        """Whether a finished file is there; from time to time the disk is told that it is used."""
        now = time.monotonic()
        if now - self._used.get(key, -USED_S) >= USED_S:
            if not self._cache.touch(kept):
                self._kept.pop(key)
                self._used.pop(key, None)
                return False
            self._used[key] = now
        self._kept.move_to_end(key)
        return True

    async def _make(self, key: str, order: Order) -> None:
        """Find it on the disk or make it; a recording that cannot be used gives way to the voice."""
        try:
            kept = await self._found(key, order)
            if kept is None and order.recording:
                plain = msgspec.structs.replace(order, recording=None)
                kept = await self._found(self.key(plain), plain)
        except Exception as error:  # a bug, too, must neither raise in a hub nor be tried four times a second
            self._fail(key, type(error).__name__)  # its words stay unsaid: they may quote the text (rule 9)
            return
        finally:
            del self._jobs[key]
        if kept is not None:
            self._kept[key] = kept
            self._failed.pop(key, None)
            if len(self._kept) > KEPT:
                self._used.pop(self._kept.popitem(last=False)[0], None)
            self._ready()

    async def _found(self, key: str, order: Order) -> Kept | None:
        """Return what an order was made into, now or before; None, and it is said, where it could not be made."""
        try:
            return await asyncio.to_thread(self._cache.find, key) or await self._made(key, order)
        except SpeechFailed as error:
            self._fail(key, error.code)
            return None

    def _fail(self, key: str, why: str) -> None:
        """Alarm once for each announcement; it is tried again in a while."""
        if key not in self._failed:
            metrics.alarms.labels("speech").inc()
            _log.error("speech_failed", why=why, hint="the text goes out without this sound; run: mingluo speech check")
        self._failed[key] = time.monotonic()
        if len(self._failed) > KEPT:
            self._failed.pop(next(iter(self._failed)))

    async def _made(self, key: str, order: Order) -> Kept:
        if len(order.text) > LONGEST:
            raise SpeechFailed("too_long")  # never cut: what is missing could be the place
        draft = await asyncio.to_thread(self._cache.draft, key)
        try:
            duration_s = await self._pool.make(order, draft)
            return await asyncio.to_thread(self._cache.keep, key, draft, order.form, duration_s)
        finally:
            await asyncio.to_thread(discard, draft)


def edition(config: Path) -> bytes:
    """Return what every announcement here depends on: our composition, the libraries, the table of readings."""
    libraries = [f"{name}={version(name)}" for name in LIBRARIES]
    return "\n".join([f"composition={VERSION}", *libraries, Pronunciation.load(config).digest, ""]).encode()
