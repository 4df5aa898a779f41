"""What loudspeakers say (docs/device-protocol.md), and what it means for the gateway.

Used by `_loudspeaker`; the AsyncAPI description is made from the same types. Strict about what comes in, except that
unknown fields are ignored.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec

from gateway.channel import Event
from gateway.model import DeviceEvent, DeviceState, Report, State

PROTOCOL = 2
LONGEST_FRAME = 4096
ORDER = "order"  # in place of a batch, where a frame names an order

# received, playing and hushed mean that the device has it; only the end of the first announcement is PLAYED.
STATES = {
    "received": State.DELIVERED,
    "playing": State.DELIVERED,
    "played": State.PLAYED,
    "failed": State.FAILED,
    "busy": State.SUBMITTED,
    "stopped": State.FAILED,
    "hushed": State.DELIVERED,
}
OLDEST = timedelta(days=30)  # alarm a device may still tell of; what lies outside was said by a clock that is no clock
LONGEST_SKEW_S = 1e9
ANSWERS = frozenset({"stopped", "hushed"})
NO_FAULT = frozenset({"expired", "pre_empted", "not_for_me", "replayed"})
"""Codes of `failed` that say nothing against the device."""

Code = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{0,32}$(?!\n)")]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class Hello(msgspec.Struct, tag_field="type", tag="hello"):
    """First frame of a connection. `speech`: it can speak a text by itself; `audio`: it can fetch and play a file.

    `nonce`: random, of this hello alone; a device that names none is not told the time.
    """

    firmware: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._+-]{0,32}$(?!\n)")] = ""
    protocol: int = 1
    speech: bool = False
    audio: bool = False
    nonce: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9_-]{16,64})?$(?!\n)")] = ""


class Told(msgspec.Struct, tag_field="type", tag="receipt"):
    """What a device says of one command, or of one order.

    `heard_s`: seconds of sound it measured; `expected_s`: how long it reckons the announcement to be.
    """

    state: Literal["received", "playing", "played", "failed", "busy", "stopped", "hushed", "done"]
    id: Annotated[str, msgspec.Meta(max_length=64)] = ""
    batch: Annotated[str, msgspec.Meta(max_length=128)] = ""
    position: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    order: Annotated[str, msgspec.Meta(max_length=64)] = ""
    code: Code = ""
    heard_s: Seconds | None = None
    expected_s: Seconds | None = None

    def __post_init__(self) -> None:
        """Refuse what names neither a command nor an order."""
        if self.order:
            if self.state not in ("done", "failed"):
                raise ValueError("an order is done or failed")
        elif not self.id or not self.batch or self.state == "done":
            raise ValueError("a receipt names id and batch")


class Condition(msgspec.Struct, tag_field="type", tag="state"):
    """How a device is: after its hello, on every change, and every five minutes. `clock` is its own time."""

    clock: Moment | None = None
    volume: Percent | None = None
    power: Literal["", "mains", "battery", "solar"] = ""
    battery: Percent | None = None
    faults: Annotated[tuple[Code, ...], msgspec.Meta(max_length=16)] = ()
    playing: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class Alarm(msgspec.Struct, tag_field="type", tag="alarm"):
    """The village sounded its own alarm. `alarm` is the device's id of it; `at` by the device's clock."""

    alarm: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{8,64}$(?!\n)")]
    at: Moment


Frame = Hello | Told | Condition | Alarm
_decoder: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(Frame)


def parse(frame: bytes) -> Frame:
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


def events_of(told: Told, device: int, account: str, *, plausible: bool = True) -> list[Event]:
    """Return what one receipt says. A failed device is also a fault: a late FAILED never outranks DELIVERED."""
    state, code, now = STATES[told.state], told.code or told.state, datetime.now(UTC)
    if told.state in ANSWERS or code in ANSWERS:
        code = told.state  # the ledger goes by these words: they are said by the state alone
    if told.state == "played" and told.heard_s == 0:
        state, code = State.FAILED, "not_heard"
    elif told.state == "played" and not plausible:
        state, code = State.FAILED, "implausible"
    events: list[Event] = [Report(account, "", state, now, code, told.batch, told.position)]
    if state is State.FAILED and told.state != "stopped" and code not in NO_FAULT:
        events.append(DeviceEvent(device, "fault", now, code))
    return events


def state_of(told: Condition, firmware: str, now: datetime) -> DeviceState:
    """Return what a device says of its condition."""
    skew_s = None
    if told.clock is not None:
        skew_s = round(max(-LONGEST_SKEW_S, min((told.clock - now).total_seconds(), LONGEST_SKEW_S)), 1)
    return DeviceState(firmware, told.volume, told.power, told.battery, skew_s, told.faults)


def sounded_at(told: Alarm, clock_skew_s: float, now: datetime) -> datetime:
    """Return when an alarm was sounded, by our clock; now, where the device's says nothing that can be."""
    ago_s = (now - told.at).total_seconds() + clock_skew_s
    return now - timedelta(seconds=ago_s) if 0 <= ago_s <= OLDEST.total_seconds() else now
