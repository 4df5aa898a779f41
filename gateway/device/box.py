"""What a Linux box says of itself: its monotonic clock, whether it was switched off since, and its power."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

SUPPLIES = Path("/sys/class/power_supply")


class Power(NamedTuple):
    """What it runs on (mains, battery; "" unknown), and how full the battery is in percent."""

    source: str = ""
    battery: int | None = None


def monotonic() -> float:
    """Return seconds that go on while the box sleeps, and start again when it was switched off."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot() -> str:
    """Return a name of the time since the box was switched on; "" where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def power(folder: Path = SUPPLIES) -> Power:
    """Return what the system knows of its power supplies."""
    source, battery = "", None
    for supply in sorted(folder.glob("*")):
        kind = _read(supply / "type").lower()
        if kind == "battery":
            capacity = _read(supply / "capacity")
            battery = min(int(capacity), 100) if capacity.isdecimal() else battery
            source = source or "battery"
        elif kind in ("mains", "usb") and _read(supply / "online") == "1":
            source = "mains"
    return Power(source, battery)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
