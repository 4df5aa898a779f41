"""How a device is set up, and the orders that change or try it: volume, settings, self-test, clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.device.command import AnyOrder, Clock, Config, SelfTest, Volume
from gateway.device.disk import Saved
from gateway.device.parts import Parts
from gateway.device.sound import SOUND_FAULTS, Broken, run
from gateway.device.studio import mark
from gateway.device.tone import DRILL
from gateway.device.volume import Policy

STATE_S = 300.0
VALUES = {"state_s": (10.0, 3600.0)}
"""Settings that the gateway may change, and between what."""
CLOCK_S = 10.0


class Setup:
    """The volume policy and the settings; `faults` are the device's."""

    def __init__(self, parts: Parts, saved: Saved, faults: set[str]) -> None:
        self.policy = saved.policy or parts.policy
        self.values: dict[str, Any] = saved.values
        self._parts = parts
        self._faults = faults

    @property
    def state_s(self) -> float:
        """How often the device says how it is."""
        return float(self.values.get("state_s", STATE_S))

    async def carry_out(self, order: AnyOrder, *, busy: bool) -> str:
        """Do what is ordered; return why not, or nothing. `busy`: something sounds, or somebody speaks."""
        match order:
            case Volume():
                # What the installation holds to be the least for red stays, unless the order names another.
                self.policy = Policy(order.volume, {**self._parts.policy.floor, **order.floor}, order.night)
                return ""
            case Config():
                return self._configure(order.values)
            case SelfTest():
                return "busy" if busy and order.audible else await self._self_test(audible=order.audible)
            case Clock():
                return await self._set_clock(order)

    def _configure(self, values: Mapping[str, Any]) -> str:
        """Take settings, all or none."""
        for name, value in values.items():
            if name not in VALUES:
                return "unknown_setting"
            least, most = VALUES[name]
            if type(value) not in (int, float) or not least <= value <= most:
                return "bad_setting"
        self.values |= values
        return ""

    async def _self_test(self, *, audible: bool) -> str:
        """Try whether sound can be made, and aloud with the drill's signal whether it comes out."""
        try:
            signal = await self._parts.studio.signal(DRILL)
            if self._parts.studio.speech:
                await self._parts.studio.speak(mark("zh"))
            if audible:
                await self._parts.output.play([signal], self.policy.volume, "self_test")
        except Broken as broken:
            self._faults.add(broken.code)
            return broken.code
        self._faults -= SOUND_FAULTS
        return ""

    async def _set_clock(self, order: Clock) -> str:
        """Set the system's clock, where the installation says how; the gateway's time is kept in any case."""
        seconds = str(int(order.now.timestamp()))
        command = [part.replace("{seconds}", seconds) for part in self._parts.clock_with]
        if command:
            try:
                await run(command, "clock_fault", CLOCK_S)
            except Broken as broken:
                return broken.code
        return ""
