"""What a device is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.device import box
from gateway.device.disk import Disk
from gateway.device.sound import Output
from gateway.device.studio import Studio
from gateway.device.transport import Transport
from gateway.device.trust import Trust
from gateway.device.volume import Policy


@dataclass
class Parts:
    """What a device is made of. `clock_with`: a command that sets the system's clock, split, with `{seconds}`."""

    name: str
    village: str
    firmware: str
    trust: Trust
    disk: Disk
    transport: Transport
    output: Output
    studio: Studio
    policy: Policy = field(default_factory=Policy)
    clock_with: Sequence[str] = ()
    monotonic: Callable[[], float] = box.monotonic
    boot: str = field(default_factory=box.boot)
