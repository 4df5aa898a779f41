"""What makes sound: the system's audio by a command, or a folder that keeps what would have been heard.

Cancelling `play` silences it at once. A text never stands in the arguments of a command: others can read those.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
from asyncio.subprocess import Process
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import orjson

from gateway.errors import ConfigError, MingluoError

FILE = "{file}"
KEY_VARIABLE = "MINGLUO_DEVICE_KEY"
SOUND_FAULTS = frozenset(
    {"amp_fault", "no_speech", "tts_failed", "audio_failed", "bad_audio", "wrong_format", "device_fault"}
)
"""What is mended once something has sounded."""
PLAYERS = (
    "ffplay -nodisp -autoexit -loglevel quiet {file}", "mpv --no-video --really-quiet {file}", "play -q {file}",
    "aplay -q {file}",
)  # fmt: skip
"""What plays a file and ends with it, the best first."""
WAV_ONLY = frozenset({"aplay"})
"""Players to which any other file is raw samples: a village would hear noise."""
SLACK_S = 20.0
"""How much longer than its file a player may take: one that takes longer hangs."""


class Clip(NamedTuple):
    """A file that sounds, and for how long."""

    file: Path
    length_s: float


class Broken(MingluoError):
    """No sound came, or none can be made; `code` says to the gateway why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Output(Protocol):
    """Where sound goes."""

    async def play(self, clips: Sequence[Clip], volume: int, what: str) -> Sequence[float]:
        """Play clips one after the other; return the seconds that were heard of each. `what`: the version, for a log.

        Raises:
            Broken: not all of it was heard.
        """


class Speaker:
    """The system's audio: a command that ends when the file given for `{file}` has been heard.

    `volume_command` has `{volume}` in it, 0 to 100.
    """

    def __init__(self, command: str, volume_command: str = "") -> None:
        self._command = arguments(command, FILE, "play_with")
        self._volume = arguments(volume_command, "{volume}", "volume_with") if volume_command else []

    async def play(self, clips: Sequence[Clip], volume: int, what: str) -> Sequence[float]:
        """Play the clips by the command, and measure how long it takes."""
        loop = asyncio.get_running_loop()
        if Path(self._command[0]).name in WAV_ONLY and any(clip.file.suffix != ".wav" for clip in clips):
            raise Broken("wrong_format")
        if self._volume:
            # A mixer that does not answer costs loudness, never the warning.
            with contextlib.suppress(Broken):
                await run([part.replace("{volume}", str(volume)) for part in self._volume], "volume_fault", 5.0)
        heard_s = []
        for clip in clips:
            since = loop.time()
            await run(
                [part.replace(FILE, str(clip.file)) for part in self._command], "amp_fault", clip.length_s + SLACK_S
            )
            heard_s.append(loop.time() - since)
        return heard_s


def player() -> str:
    """Return the best player of this machine.

    Raises:
        ConfigError: there is none.
    """
    found = next((one for one in PLAYERS if shutil.which(one.split()[0])), None)
    if found is None:
        names = ", ".join(one.split()[0] for one in PLAYERS)
        raise ConfigError(f"play_with: none of {names} is on this machine; install one, or name another")
    return found


class Folder:
    """A folder in place of a loudspeaker: the files it would have played, and `sound.jsonl` of what and when.

    It takes as long as the sound would.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    async def play(self, clips: Sequence[Clip], volume: int, what: str) -> Sequence[float]:
        """Keep the files, and wait as long as they sound."""
        names = []
        for file, _ in clips:
            names.append(f"{_plain(what)}-{file.name}")
            await asyncio.to_thread(shutil.copyfile, file, self._folder / names[-1])
        self._log("sound", what, files=names, volume=volume)
        how = "silenced"
        try:
            await asyncio.sleep(sum(clip.length_s for clip in clips))
            how = "end"
        finally:
            self._log(how, what)
        return [clip.length_s for clip in clips]

    def _log(self, kind: str, what: str, **fields: object) -> None:
        line = orjson.dumps({"kind": kind, "at": datetime.now(UTC).isoformat(), "id": what, **fields})
        with (self._folder / "sound.jsonl").open("ab") as log:
            log.write(line + b"\n")


def _plain(what: str) -> str:
    """Return a version's id as part of a file's name, whatever is in it."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", what)[:64]


def arguments(command: str, needed: str, setting: str) -> list[str]:
    """Split a command of the settings; nothing in it is a shell's.

    Raises:
        ConfigError: it cannot be split, lacks a part, or its program is not there.
    """
    try:
        parts = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from None
    if not parts or not any(needed in part for part in parts):
        raise ConfigError(f"{setting}: write {needed} where it belongs in the command")
    if shutil.which(parts[0]) is None:
        raise ConfigError(f"{setting}: there is no program {parts[0]} on this machine; install it, or name another")
    return parts


async def run(command: Sequence[str], code: str, limit_s: float, text: str = "") -> None:
    """Run a command to its end, with a text as its input. Cancelled, it is killed with all it has started.

    Raises:
        Broken: with `code`; it could not be started, failed, or took too long.
    """
    started = asyncio.ensure_future(_start(command))
    try:
        async with asyncio.timeout(limit_s):
            process = await asyncio.shield(started)  # cancelled in the middle of it, it would leave its children behind
            await process.communicate(text.encode())
    except (TimeoutError, OSError):
        raise Broken(code) from None
    finally:
        await _end(started)
    if process.returncode:
        raise Broken(code)


async def _start(command: Sequence[str]) -> Process:
    quiet = asyncio.subprocess.DEVNULL
    environment = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    return await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=quiet, stderr=quiet, env=environment, start_new_session=True
    )


async def _end(started: asyncio.Future[Process]) -> None:
    """Kill a process and its group, if it runs; if it is just being started, as soon as it does."""
    with contextlib.suppress(OSError):  # it could not be started: its caller knows
        process = await started
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
