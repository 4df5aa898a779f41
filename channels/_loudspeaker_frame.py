"""Frames of the loudspeaker protocol (docs/device-protocol.md): what devices say, what they are told.

Used by `_loudspeaker`. Strict about what comes in, except that unknown fields are ignored.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
import orjson

from gateway.channel import Event, Play
from gateway.model import DeviceEvent, Report, State, Status

LONGEST_FRAME = 4096

# received and playing mean that the device has it; only the end of the last repetition is PLAYED.
STATES = {
    "received": State.DELIVERED,
    "playing": State.DELIVERED,
    "played": State.PLAYED,
    "failed": State.FAILED,
    "busy": State.SUBMITTED,
    "stopped": State.FAILED,
}


class Hello(msgspec.Struct, tag_field="type", tag="hello"):
    """First frame of a connection."""

    firmware: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._+-]{0,32}\Z")] = ""


class Told(msgspec.Struct, tag_field="type", tag="receipt"):
    """What a device says of one command. `heard_s`: seconds of sound it measured."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    batch: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    position: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    state: Literal["received", "playing", "played", "failed", "busy", "stopped"]
    code: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9_]{0,32}\Z")] = ""
    heard_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None


_decoder: msgspec.json.Decoder[Hello | Told] = msgspec.json.Decoder(Hello | Told)


def parse(frame: bytes) -> Hello | Told:
    """Read one frame from a device.

    Raises:
        ValueError: "oversized" or "malformed".
    """
    if len(frame) > LONGEST_FRAME:
        raise ValueError("oversized")
    try:
        return _decoder.decode(frame)
    except (ValueError, RecursionError):  # a thousand nested brackets fit into 4 KiB
        raise ValueError("malformed") from None


def events_of(told: Told, device: int, account: str) -> list[Event]:
    """Return what one receipt says. A failed device is also a fault: a late FAILED never outranks DELIVERED."""
    state, code, now = STATES[told.state], told.code or told.state, datetime.now(UTC)
    if told.state == "played" and told.heard_s == 0:
        state, code = State.FAILED, "not_heard"
    events: list[Event] = [Report(account, "", state, now, code, told.batch, told.position)]
    if state is State.FAILED and told.state != "stopped" and code not in ("expired", "pre_empted"):
        events.append(DeviceEvent(device, "fault", now, code))
    return events


def head(play: Play, text: str, now: datetime, repeat: int) -> bytes:
    """Return the frame of a play up to its position: all that the devices of one batch share."""
    message = play.message
    frame: dict[str, object] = {"type": "stop", "id": message.alert}
    if not play.stop:
        frame = {
            "type": "play",
            "id": message.alert,
            "status": message.status,
            "drill": message.status is not Status.ACTUAL,
            "level": message.level.name.lower(),
            "notice": message.notice,
            "language": message.language,
            "again": message.again,
            "title": message.title,
            "text": text,
            "repeat": repeat,
            "now": now.isoformat(timespec="seconds"),
            "expires": message.expires.astimezone(UTC).isoformat(timespec="seconds"),
        }
    return orjson.dumps(frame | {"batch": play.batch})[:-1] + b',"position":'
