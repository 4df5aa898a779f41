"""How loud an announcement is: the device's policy, a floor by level at every hour, and the night."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec

from gateway.device.command import Night, Percent, Play

CHINA = timezone(timedelta(hours=8))
CLOCK = "%H:%M"


class Policy(msgspec.Struct, frozen=True):
    """Percent. `floor`: a real warning of that level is never quieter, whatever the hour and whoever says otherwise."""

    volume: Percent = 80
    floor: dict[str, Percent] = msgspec.field(default_factory=lambda: {"red": 80})
    night: Night | None = None

    def loudness(self, play: Play, at: float) -> int:
        """Return the volume of an announcement at a time of the gateway (seconds since 1970)."""
        wanted = play.volume
        if wanted is None:
            wanted = self.night.volume if self.night is not None and _within(self.night, at) else self.volume
        return max(wanted, self.floor.get(play.level, 0)) if play.real else wanted


def _within(night: Night, at: float) -> bool:
    """Tell whether it is night in China; a night may reach over midnight."""
    clock = datetime.fromtimestamp(at, UTC).astimezone(CHINA).strftime(CLOCK)
    if night.since <= night.until:
        return night.since <= clock < night.until
    return clock >= night.since or clock < night.until
