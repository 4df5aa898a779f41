"""The memory of what was commanded to which loudspeaker: nobody speaks of anything else.

Used by `_loudspeaker`.
"""

from __future__ import annotations

from dataclasses import dataclass

from channels._loudspeaker_command import Span
from channels._loudspeaker_frame import ORDER, Told
from gateway.channel import Play
from gateway.model import Order

REMEMBERED_S = 86_400.0
REMEMBERED = 200_000
ENDS = frozenset({"played", "failed", "stopped", "hushed", "done"})
ANY = Span(0.0, 86_400.0)


@dataclass(slots=True)
class Command:
    """One command as last written. `said`: the state the device reported last of it and that is durable."""

    device: int
    alert: str
    want: str
    at: float
    span: Span
    said: str = ""

    def known(self, told: Told) -> bool:
        """Whether a receipt changes nothing any more: it is a repetition, or the device has reported an end since."""
        return told.state == self.said or (self.said in ENDS and told.state not in ENDS)

    def plausible(self, told: Told) -> bool:
        """Whether "played" can be believed: after a stop or hush nothing is measured."""
        return self.want != "play" or self.span.holds(told.heard_s)


class Commanded:
    """Which command went to which device: bounded, forgotten after a day, by the loop's clock."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Command] = {}

    def add(self, play: Play, now: float, span: Span = ANY) -> None:
        """Remember one command."""
        want = "stop" if play.stop else "hush" if play.hush else "play"
        self._add((play.batch, play.position), Command(play.device, play.message.alert, want, now, span))

    def add_order(self, order: Order, now: float) -> None:
        """Remember one order."""
        self._add((f"{ORDER}:{order.id}", 0), Command(order.device, "", ORDER, now, ANY))

    def _add(self, key: tuple[str, int], command: Command) -> None:
        known = self._known.pop(key, None)  # the newest stand last
        if known is not None and (known.device, known.want) == (command.device, command.want):
            command.said = known.said
        self._known[key] = command

    def forget(self, now: float) -> None:
        """Drop what is too old or too much."""
        while self._known:
            key, command = next(iter(self._known.items()))
            if len(self._known) <= REMEMBERED and command.at >= now - REMEMBERED_S:
                return
            del self._known[key]

    def find(self, told: Told, device: int, now: float) -> Command | None:
        """Return the command a receipt speaks of; None where this device may not speak of it."""
        key = (f"{ORDER}:{told.order}", 0) if told.order else (told.batch, told.position)
        found = self._known.get(key)
        if found is None or (found.device, found.alert) != (device, told.id) or found.at < now - REMEMBERED_S:
            return None
        return None if told.state == "hushed" and found.want != "hush" else found
