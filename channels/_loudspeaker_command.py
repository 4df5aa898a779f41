"""What loudspeakers are told (docs/device-protocol.md): signed commands and orders, and how long a play must sound.

Used by `_loudspeaker`; the AsyncAPI description is made from the same types. A command is signed once for all
devices that share it; which of them it is for, and under which name it reports, stands beside the signature.

**Source:** RFC 7515 §7.2.2 (JWS, flattened JSON serialisation), RFC 8037 (EdDSA); what is signed is our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec

from channels._loudspeaker_frame import ORDER, Moment, Percent
from gateway.channel import Play, Signed
from gateway.errors import Permanent
from gateway.model import Audio, Level, Notice, Order, Status

HANZI_PER_S = 10.0  # faster nobody speaks, and no speech engine that can be understood
LETTERS_PER_S = 30.0
SHORTEST_SHARE = 0.8  # of an audio file that has to be heard
LONGEST_SHARE, LONGEST_MORE_S = 5.0, 120.0  # beyond that a device that says "played" has a broken meter
TIME_HOLDS = timedelta(minutes=1)
LevelName = Literal["red", "orange", "yellow", "blue", "unknown"]
_LEVELS: dict[Level, LevelName] = {
    Level.RED: "red", Level.ORANGE: "orange", Level.YELLOW: "yellow", Level.BLUE: "blue", Level.UNKNOWN: "unknown",
}  # fmt: skip
_ENDS = frozenset({Notice.ALL_CLEAR, Notice.PARTIAL_ALL_CLEAR, Notice.DOWNGRADE, Notice.CORRECTION})

Region = Annotated[str, msgspec.Meta(pattern=r"^(\d{6}|\d{9}|\d{12})?$(?!\n)")]
Version = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Clock = Annotated[str, msgspec.Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$(?!\n)")]


class Sound(msgspec.Struct, frozen=True):
    """A text that was spoken in advance: where to fetch it, and what it must be (SHA-256 in hex)."""

    url: str
    sha256: str
    size: int
    duration_s: float
    type: str


class PlayCommand(msgspec.Struct, tag_field="command", tag="play", frozen=True):
    """Announce a warning."""

    id: Version
    status: Status
    drill: bool
    level: LevelName
    notice: Notice
    language: str
    again: bool
    title: str
    text: str
    repeat: int
    every_s: int
    tone: Literal["warning", "all_clear", "drill"]
    volume: Percent | None
    to: Region
    supersedes: tuple[Version, ...]
    now: Moment
    expires: Moment
    audio: Sound | msgspec.UnsetType = msgspec.UNSET


class StopCommand(msgspec.Struct, tag_field="command", tag="stop", frozen=True):
    """Fall silent, and never play this version again."""

    id: Version
    to: Region
    now: Moment
    expires: Moment


class HushCommand(msgspec.Struct, tag_field="command", tag="hush", frozen=True):
    """Sound no further round of this version; the one that sounds ends normally."""

    id: Version
    to: Region
    now: Moment
    expires: Moment


class Night(msgspec.Struct, frozen=True, rename={"start": "from"}):
    """The hours with a volume of their own, by China's clock."""

    start: Clock
    until: Clock
    volume: Percent


class _Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all orders to one device share. `to` is the device's name."""

    order: str
    to: str
    now: Moment
    expires: Moment


class VolumeOrder(_Order, tag_field="command", tag="volume", frozen=True, kw_only=True):
    """Take this volume, these floors by level, and this night."""

    volume: Percent
    floor: dict[Literal["red", "orange", "yellow", "blue"], Percent] = {}
    night: Night | None = None


class SelfTestOrder(_Order, tag_field="command", tag="self_test", frozen=True, kw_only=True):
    """Try amplifier and loudspeaker, with a short tone if `audible`."""

    audible: bool = False


class ConfigOrder(_Order, tag_field="command", tag="config", frozen=True, kw_only=True):
    """Take these settings; which there are is the maker's to say."""

    values: dict[str, str | int | float | bool]


class ClockOrder(_Order, tag_field="command", tag="clock", frozen=True, kw_only=True):
    """Set the clock to `now`. `nonce`: of the device's hello, so that none can be held back for another day."""

    nonce: str


class TimeCommand(msgspec.Struct, tag_field="command", tag="time", frozen=True):
    """It is `now`. `nonce` is that of the hello it answers; `to` the device's name."""

    to: str
    nonce: str
    now: Moment
    expires: Moment


AnOrder = VolumeOrder | SelfTestOrder | ConfigOrder | ClockOrder
Payload = PlayCommand | StopCommand | HushCommand | TimeCommand | AnOrder
_encode = msgspec.json.Encoder().encode


def payload_of(play: Play, text: str, audio: Audio | None, now: datetime, repeat: int) -> bytes:
    """Return what is signed of a command: all that the devices of one batch and text share."""
    message = play.message
    if play.stop or play.hush:
        kind = StopCommand if play.stop else HushCommand
        return _encode(kind(message.alert, message.region, _moment(now), _moment(message.expires)))
    real = message.status is Status.ACTUAL
    sound = audio and Sound(audio.url, audio.sha256, audio.size_bytes, audio.duration_s, audio.type)
    return _encode(
        PlayCommand(
            id=message.alert,
            status=message.status,
            drill=not real,
            level=_LEVELS[message.level],
            notice=message.notice,
            language=message.language,
            again=message.again,
            title=message.title,
            text=text,
            repeat=repeat,
            every_s=message.every_s,
            tone="drill" if not real else "all_clear" if message.notice in _ENDS else "warning",
            volume=None,
            to=message.region,
            supersedes=tuple(message.supersedes),
            now=_moment(now),
            expires=_moment(message.expires),
            audio=sound or msgspec.UNSET,
        )
    )


def order_of(order: Order, name: str, now: datetime, nonce: str = "") -> bytes:
    """Return what is signed of an order to the device of that name, whose last hello had this nonce.

    Raises:
        Permanent: "bad_order", no device could carry it out.
    """
    own: Mapping[str, object] = {"values": dict(order.values)} if order.kind == "config" else order.values
    shared = {"command": order.kind, "order": order.id, "to": name, "now": _moment(now)}
    if order.kind == "clock":
        shared["nonce"] = nonce
    try:
        found = msgspec.convert({**own, **shared, "expires": _moment(order.expires)}, AnOrder)
    except msgspec.ValidationError:
        raise Permanent("bad_order") from None
    return _encode(found)


def time_of(name: str, nonce: str, now: datetime) -> bytes:
    """Return what is signed of the time, for the device of that name that has just said hello."""
    return _encode(TimeCommand(name, nonce, _moment(now), _moment(now + TIME_HOLDS)))


def head(signed: Signed, batch: str) -> bytes:
    """Return the frame of a command up to its position: all that the devices of one batch and text share."""
    parts = f'"payload":"{signed.payload}","protected":"{signed.protected}","signature":"{signed.signature}"'
    return b'{"type":"command",%b,"batch":%b,"position":' % (parts.encode(), _encode(batch))


def order_frame(signed: Signed) -> bytes:
    """Return the frame of an order, or of the time."""
    return head(signed, ORDER) + b"0}"


class Span(msgspec.Struct, frozen=True):
    """Seconds of sound between which "played" can be believed."""

    shortest_s: float
    longest_s: float

    def holds(self, heard_s: float | None) -> bool:
        """Whether a device can have played what it says it has; it must say how long it sounded."""
        return heard_s is not None and self.shortest_s <= heard_s <= self.longest_s


def span_of(text: str, audio: Audio | None, repeat: int) -> Span:
    """Return how long an announcement sounds: its file `repeat` times, or as fast as its text could be spoken."""
    if audio is not None:
        shortest_s, usual_s = SHORTEST_SHARE * audio.duration_s * repeat, audio.duration_s * repeat
    else:
        letters = sum(one.isalnum() for one in text)
        latin = sum(one.isascii() and one.isalnum() for one in text)
        shortest_s = ((letters - latin) / HANZI_PER_S + latin / LETTERS_PER_S) * repeat
        usual_s = shortest_s * 3
    return Span(shortest_s, usual_s * LONGEST_SHARE + LONGEST_MORE_S)


def _moment(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(microsecond=0)
