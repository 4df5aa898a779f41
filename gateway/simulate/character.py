"""What simulated loudspeakers are like: who they are, which of them fail and how, and how long their speech takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import NamedTuple

from aiohttp import ClientError, ClientSession, ClientTimeout

from gateway.device.command import Play
from gateway.device.studio import mark
from gateway.errors import ConfigError

LETTERS_PER_S = 5.0
FETCH_S = 20.0


class Device(NamedTuple):
    """A loudspeaker's name and key; with `village` (12 digits) it refuses what is for another place."""

    name: str
    key: str
    village: str = ""


class Character(StrEnum):
    """How a device behaves; all but `sound` are faults, in the order in which shares are drawn."""

    OFFLINE = "offline"  # never connects
    FAILING = "failing"  # has a broken amplifier, and says so
    SILENT = "silent"  # says that it received, and never plays
    LYING = "lying"  # says that it played, and nothing was heard
    DEAF = "deaf"  # plays, and never says a word
    STUCK = "stuck"  # says hello, and then neither reads nor goes away: a half-open line
    SLOW = "slow"  # reads a frame every now and then
    SKEWED = "skewed"  # its clock is a day ahead
    FORGING = "forging"  # reports also what its neighbour was told
    DOUBLED = "doubled"  # somebody else connects with its name and key
    OVERSIZED = "oversized"  # begins with a frame that is too long
    REPLAYED = "replayed"  # somebody on its line says everything again, also later and under other names
    VOICELESS = "voiceless"  # cannot speak a text, and fetches the gateway's recording
    SOUND = "sound"  # in order


@dataclass(frozen=True, slots=True)
class Options:
    """How a fleet behaves. Shares (0 to 1) are of all devices and do not overlap; times are seconds.

    The first ones are shares by `Character`. `play_s`: how long an announcement sounds in the log, however long its
    words would take. `stuck_s`: until a half-open line, or a double, is gone.
    """

    offline: float = 0.0
    failing: float = 0.0
    silent: float = 0.0
    play_s: float = 5.0
    resend_s: float = 10.0
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    steady_s: float = 60.0
    state_s: float = 300.0
    stuck_s: float = 3600.0
    slow_s: float = 1.0
    seed: int = 0
    lying: float = 0.0
    deaf: float = 0.0
    stuck: float = 0.0
    slow: float = 0.0
    skewed: float = 0.0
    forging: float = 0.0
    doubled: float = 0.0
    oversized: float = 0.0
    replayed: float = 0.0
    voiceless: float = 0.0

    def character(self, name: str) -> Character:
        """Return what this device is like, always the same."""
        draw = Random(f"{self.seed}:{name}").random()  # noqa: S311  # a simulation repeats itself
        for character in Character:
            draw -= getattr(self, character, 1.0)
            if draw < 0:
                break
        return character


def shares(texts: Iterable[str]) -> dict[str, float]:
    """Read faults as `name=share`.

    Raises:
        ConfigError: no such fault, no share, or more than all.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[Character(name).value] = float(value)
        except ValueError:
            found[name] = -1.0
        if name == Character.SOUND or not 0 <= found[name] <= 1:
            names = ", ".join(character for character in Character if character is not Character.SOUND)
            raise ConfigError(f"--fault {text}: write NAME=SHARE, a share from 0 to 1 and one of: {names}")
    if sum(found.values()) > 1:
        raise ConfigError("--fault: the shares are more than all devices; they do not overlap")
    return found


def spoken(play: Play) -> str:
    """Return the words that are heard: whatever is not real begins with the mark of drills."""
    return play.text if play.real else mark(play.language) + play.text


def heard_s(play: Play) -> float:
    """Return how long one repetition would take to say."""
    return sum(letter.isalnum() for letter in play.text) / LETTERS_PER_S


async def recording_of(play: Play) -> tuple[str, float]:
    """Fetch the recording of a play and check it; return a code where it cannot be played, and how long it sounds."""
    if play.audio is None:
        return "no_speech", 0.0
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=FETCH_S)) as session,
            session.get(play.audio.url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                return "audio_failed", 0.0
            data = bytearray()
            async for chunk in answer.content.iter_any():
                data += chunk
                if len(data) > play.audio.size:
                    return "bad_audio", 0.0
    except (ClientError, OSError, TimeoutError):
        return "audio_failed", 0.0
    same = hashlib.sha256(data).hexdigest() == play.audio.sha256
    return ("", play.audio.duration_s) if same else ("bad_audio", 0.0)
