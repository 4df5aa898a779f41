"""What the gateway may tell a loudspeaker: the signed payloads of docs/device-protocol.md.

Read strictly, except that unknown fields are ignored, and that whatever is odd about `status` and `drill` makes a
drill of it: a payload in doubt must never sound real.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

Id = Annotated[str, Meta(min_length=1, max_length=128)]
Aware = Annotated[datetime, Meta(tz=True)]
Percent = Annotated[int, Meta(ge=0, le=100)]
LEVELS = {"red": 4, "orange": 3, "yellow": 2, "blue": 1}
"""Rank by level; whatever else a frame names ranks below blue."""

Key = tuple[str, str, str, bool]
"""What makes a version of its own in a device: id, status, language, again."""


class Recording(msgspec.Struct, frozen=True):
    """The text as sound, to be fetched. `sha256` is hex, `size` bytes."""

    url: Annotated[str, Meta(pattern=r"\Ahttps?://", max_length=2048)]
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    size: Annotated[int, Meta(gt=0)]
    duration_s: Annotated[float, Meta(ge=0)] = 0.0
    type: Annotated[str, Meta(max_length=64)] = ""


class Command(msgspec.Struct, frozen=True, tag_field="command", kw_only=True):
    """What every payload says: whom it is for, when it was said, and until when it holds."""

    to: str
    now: Aware
    expires: Aware


class Play(Command, frozen=True, tag="play", kw_only=True):
    """Sound an announcement."""

    id: Id
    status: Any = None
    drill: Any = None
    level: str = "unknown"
    notice: str = "issue"
    language: str = "zh"
    again: bool = False
    title: str = ""
    text: Annotated[str, Meta(max_length=4096)] = ""
    repeat: Annotated[int, Meta(ge=1, le=10)] = 1
    every_s: Annotated[float, Meta(ge=0)] = 0.0
    tone: str | None = None
    volume: Percent | None = None
    audio: Recording | None = None
    supersedes: tuple[Id, ...] = ()

    @property
    def real(self) -> bool:
        """Whether it may sound like a real warning: both fields must say so, in exactly these words."""
        return self.status == "Actual" and self.drill is False

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.id, str(self.status), self.language, self.again

    @property
    def rank(self) -> tuple[int, int]:
        """Its standing among others: the smallest sounds first."""
        return (0 if self.real else 1), -LEVELS.get(self.level, 0)


class Stop(Command, frozen=True, tag="stop", kw_only=True):
    """Fall silent, drop what waits, never sound this id again."""

    id: Id


class Hush(Command, frozen=True, tag="hush", kw_only=True):
    """Somebody confirmed: no further rounds."""

    id: Id


class Order(Command, frozen=True, kw_only=True):
    """Something for one device that is no warning; `to` is its name."""

    order: Id


class Night(msgspec.Struct, frozen=True):
    """Hours (China's) in which the village sleeps, and how loud what is no red warning may be in them."""

    since: Annotated[str, Meta(pattern=r"\A([01]\d|2[0-3]):[0-5]\d\Z")] = msgspec.field(name="from")
    until: Annotated[str, Meta(pattern=r"\A([01]\d|2[0-3]):[0-5]\d\Z")]
    volume: Percent


class Volume(Order, frozen=True, tag="volume", kw_only=True):
    """How loud from now on. `floor`: by level, never quieter than this at any hour."""

    volume: Percent
    floor: dict[str, Percent] = {}
    night: Night | None = None


class SelfTest(Order, frozen=True, tag="self_test", kw_only=True):
    """Try the way to the loudspeaker; silently unless `audible`."""

    audible: bool = False


class Config(Order, frozen=True, tag="config", kw_only=True):
    """Change settings."""

    values: dict[str, Any] = {}


class Clock(Order, frozen=True, tag="clock", kw_only=True):
    """Set the clock to `now`. `nonce`: of this device's last hello."""

    nonce: str = ""


class Time(Command, frozen=True, tag="time", kw_only=True):
    """It is `now`: the answer to the hello with this `nonce`; `to` is the device's name."""

    nonce: str


AnyOrder = Volume | SelfTest | Config | Clock
AnyCommand = Play | Stop | Hush | Time | AnyOrder
_decoder: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)


def read(payload: bytes) -> AnyCommand:
    """Read a payload whose signature holds.

    Raises:
        ValueError: it is none of these.
    """
    try:
        return _decoder.decode(payload)
    except RecursionError:
        raise ValueError("nested too deeply") from None
