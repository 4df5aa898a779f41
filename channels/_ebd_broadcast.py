"""One broadcast of the emergency-broadcast platform: what is kept of it, and what its state says of a village.

Used by `loudspeaker_ebd`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import NamedTuple, Self

from channels._ebd_form import BrdState, Coverage
from channels._ebd_meaning import CODES, HEARD, STATES
from gateway.model import State


class Broadcast(NamedTuple):
    """What is kept of a broadcast, to follow and to cancel it; `positions` are those of its villages in the batch."""

    ebm: str
    kind: str
    """MsgType."""
    event: str
    severity: str
    positions: tuple[int, ...]
    round: int = 0
    """How often it was said before."""

    @property
    def text(self) -> str:
        """As the source of its progress: "<EBMID>:<MsgType>:<event>:<severity>:0-3.7", and ":<round>" of later ones."""
        runs = [
            [position for _, position in run]
            for _, run in groupby(enumerate(self.positions), lambda pair: pair[1] - pair[0])
        ]
        spans = ".".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
        again = f":{self.round}" if self.round else ""
        return f"{self.ebm}:{self.kind}:{self.event}:{self.severity}:{spans}{again}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `text` wrote."""
        ebm, kind, event, severity, spans, *again = text.split(":")
        ends = [span.partition("-") for span in spans.split(".")]
        positions = [at for first, _, last in ends for at in range(int(first), int(last or first) + 1)]
        return cls(ebm, kind, event, severity, tuple(positions), int(again[0]) if again else 0)

    @property
    def heard(self) -> bool:
        """Whether terminals sound it; two of the drills stay inside the platform."""
        return self.kind in HEARD

    def reference(self, village: str) -> str:
        """What a report calls one of its villages; all of them are of one township."""
        return f"{self.ebm}-{village[6:]}"


def judged(state: BrdState, share: float | None, least: float, *, heard: bool, any_: bool) -> tuple[State, str] | None:
    """Return what a broadcast's state says of a village whose terminals sound to this share; None: nothing yet.

    Args:
        state: of the broadcast.
        share: None where the platform says nothing of the village's area.
        least: the share that makes it played.
        heard: whether a broadcast of its kind sounds at all.
        any_: whether the platform says of any area how far it is covered.
    """
    found, code = STATES[state], CODES[state]
    if found is State.DELIVERED and any_ and not share:
        return None  # it plays elsewhere
    if found is not State.PLAYED:
        return None if found is None else (found, code)
    if not heard:
        return State.DELIVERED, "not_heard"
    if share is None:
        return (State.FAILED, "not_covered") if any_ else (State.DELIVERED, "no_coverage")
    if share >= least:
        return State.PLAYED, code
    return (State.DELIVERED if share else State.FAILED), percent(share)


def percent(share: float) -> str:
    """Return a share as the code of a report."""
    return f"coverage_{share * 100:.0f}"


def share_of(coverage: Iterable[Coverage], village: str) -> float | None:
    """Return the share told of the smallest area a village lies in; None: of none."""
    found: Mapping[str, float] = {
        prefix: float(one.coverage_rate) for one in coverage for prefix in one.prefixes if village.startswith(prefix)
    }
    return found[max(found, key=len)] if found else None


def named(coverage: Iterable[Coverage]) -> list[str]:
    """Return the villages a coverage names."""
    return [prefix for one in coverage for prefix in one.prefixes if len(prefix) == 12]
