"""The one loudspeaker of a device: it sounds what the state machine says, and falls silent when it says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.device.parts import Parts
from gateway.device.player import Player
from gateway.device.record import Turn
from gateway.device.setup import Setup
from gateway.device.sound import SOUND_FAULTS, Broken
from gateway.log import get

AGAIN_S = 1.0
"""What failed is tried once more after this: the sound card may just have been busy."""

_log = get("device")


class Horn:
    """Follows `player.turn`. `changed` is called after each step; `faults` are the device's."""

    def __init__(
        self, parts: Parts, player: Player, setup: Setup, faults: set[str], changed: Callable[[], None]
    ) -> None:
        self._parts = parts
        self._player = player
        self._setup = setup
        self._faults = faults
        self._changed = changed
        self._turn: Turn | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._free = asyncio.Lock()

    def follow(self) -> None:
        """Let sound what the player says, and nothing else."""
        if self._turn is self._player.turn:
            return
        self._silence()
        self._turn = self._player.turn
        if self._turn is not None:
            self._task = asyncio.create_task(self._sound(self._turn))

    async def close(self) -> None:
        """Fall silent; return once it is."""
        self._silence()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _silence(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._ending.add(self._task)
            self._task.add_done_callback(self._ending.discard)
            self._task = None

    async def _sound(self, turn: Turn) -> None:
        """Sound one round, once the one before has fallen silent."""
        try:
            async with self._free:
                try:
                    await self._round(turn)
                except Broken as broken:
                    _log.warning("tries_again", code=broken.code)
                    await asyncio.sleep(AGAIN_S)
                    await self._round(turn)
        except Broken as broken:
            self._fail(turn, broken.code)
        except Exception:  # a full cache, or a bug: this village is silent, and has to say so
            _log.exception("cannot_sound")
            self._fail(turn, "device_fault")
        one = turn.announcement
        _log.info("sounded", id=one.play.id, real=one.play.real, state=one.state, code=one.code, heard_s=one.heard_s)
        self._changed()

    async def _round(self, turn: Turn) -> None:
        play, now = turn.announcement.play, self._parts.monotonic
        found = await self._parts.studio.round(play)
        clips, before = [*found.signals, *found.mark, found.words], len(found.signals) + len(found.mark)
        while self._player.turn is turn:
            volume = self._setup.policy.loudness(play, self._player.reckoning.at(now()))
            self._player.started(turn, now())
            self._changed()
            if self._player.turn is not turn:
                break
            heard_s = await self._parts.output.play(clips, volume, play.id)
            self._faults -= SOUND_FAULTS
            self._player.spoken(turn, sum(heard_s[before:]), now())
            clips, before = [*found.mark, found.words], len(found.mark)

    def _fail(self, turn: Turn, code: str) -> None:
        self._faults.add(code)
        self._player.broken(turn, code, self._parts.monotonic())
