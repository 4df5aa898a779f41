"""What the codes of emergency-broadcast platforms mean here, and ours there. Used by `loudspeaker_ebd`.

One table matters more than all others: only an Actual alert becomes a real broadcast (MsgType 1), and nothing else ever
does. A drill that sounds as a warning sends a county into the night.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from channels._ebd_form import BrdState, MsgType, Result
from gateway.errors import ChannelError, Permanent, Temporary, Unusable
from gateway.model import JobState, Level, State, Status

Drill = Literal["3", "4", "5"]
"""How far an exercise goes: 3 inside the platform, 4 to the front end, 5 until it sounds from the terminals."""

REAL: MsgType = "1"
CANCEL: MsgType = "2"
SILENT_DRILL: Drill = "3"
HEARD = frozenset({"1", "5"})
"""Kinds of broadcast that sound in a village."""
SEVERITY: Mapping[Level, Literal["1", "2", "3", "4"]] = MappingProxyType(
    # Documents without a colour move people: the platform serves the highest first.
    {Level.RED: "1", Level.ORANGE: "2", Level.YELLOW: "3", Level.BLUE: "4", Level.UNKNOWN: "1"}
)
STATES: Mapping[BrdState, State | None] = MappingProxyType(
    {"0": None, "1": None, "2": State.DELIVERED, "3": State.PLAYED, "4": State.FAILED, "5": State.FAILED}
)
CODES: Mapping[BrdState, str] = MappingProxyType(
    {"0": "unprocessed", "1": "waiting", "2": "playing", "3": "played", "4": "failed", "5": "stopped"}
)
ENDS: Mapping[BrdState, JobState] = MappingProxyType({"3": JobState.DONE, "4": JobState.DONE, "5": JobState.STOPPED})
"""The states after which nothing more is told of a broadcast."""


def msg_type(status: Status, drill: Drill) -> MsgType:
    """Return the MsgType of a broadcast; tests of systems never go further than the platform.

    Raises:
        Permanent: a draft is broadcast in no way.
    """
    if status is Status.ACTUAL:
        return REAL
    if status is Status.EXERCISE and drill in ("3", "4", "5"):
        return drill
    if status in (Status.TEST, Status.SYSTEM):
        return SILENT_DRILL
    raise Permanent("draft")


def refusal(result: Result) -> ChannelError | None:
    """Return the error a ResultCode means; None: taken.

    What was not processed or failed for the moment is sent again as the same package, which the platform knows again.
    """
    if result == "1":
        return None
    if result == "4":
        return Unusable("ebd_4")  # our signature, whatever it says
    return Permanent(f"ebd_{result}") if result in ("2", "3") else Temporary(f"ebd_{result}")
