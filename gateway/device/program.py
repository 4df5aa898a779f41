"""The loudspeaker as a program: it gives `player` time, sound, a disk and a way to the gateway.

Ordering: what has to fall silent does so at once, in the same turn of the loop as the frame that says so; then the
memory is written; then the receipts leave. A receipt therefore never says more than a power cut leaves behind, and a
kill at any moment ends in one of two states: not yet said, and the gateway asks again, or said and remembered.
On failure: without a network everything goes on and receipts are kept; a disk that cannot be written is reported as a
fault, and the warning sounds all the same; a frame that is not signed by a pinned key is answered and forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import SystemRandom
from typing import Any

import msgspec
import orjson

from gateway.device import box
from gateway.device.command import AnyOrder, Clock, Config, Hush, Play, SelfTest, Stop, Volume
from gateway.device.disk import Disk, Saved
from gateway.device.player import Player
from gateway.device.record import Turn
from gateway.device.sound import Broken, Output, run
from gateway.device.studio import Studio, mark
from gateway.device.tone import DRILL
from gateway.device.transport import Backoff, Connection, Transport, Unreached
from gateway.device.trust import Trust, Untrusted, claimed_id, signed_of
from gateway.device.volume import Policy
from gateway.log import get

PROTOCOL = 2
STEADY_S = 60.0
FORGET_S = 300.0
STATE_S = 300.0
SOUND_FAULTS = frozenset({"amp_fault", "no_speech", "tts_failed", "audio_failed", "bad_audio", "device_fault"})
LONGEST_NAME = 128
AGAIN_S = 1.0
"""A player that failed is tried once more: the sound card may just have been busy."""
VALUES = {"state_s": (10.0, 3600.0)}
"""Settings that the gateway may change, and between what."""

_log = get("device")


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


class Program:
    """One loudspeaker."""

    def __init__(self, parts: Parts) -> None:
        saved, fault = parts.disk.load(parts.trust)
        self._parts = parts
        self.player = Player(parts.name, parts.village, saved.memory, parts.monotonic(), parts.boot)
        self._policy = saved.policy or parts.policy
        self._values = saved.values
        self._faults = {fault} if fault else set()
        self._connection: Connection | None = None
        self._sounding: tuple[Turn, asyncio.Task[None]] | None = None
        self._loudspeaker = asyncio.Lock()
        self._errands: set[asyncio.Task[None]] = set()
        self._unsaved = False
        self._saves = 0
        self._changed = asyncio.Event()
        self._state: dict[str, Any] = {}
        self._state_due = 0.0
        self._forget_due = 0.0

    # -- running -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Stay connected and play, until cancelled; then fall silent, and remember where it was."""
        self._after()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._stay_connected())
                group.create_task(self._keep())
        finally:
            ending = [*self._errands, *([self._sounding[1]] if self._sounding else [])]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)  # what sounds is killed by its task
            self._save_now()

    async def _stay_connected(self) -> None:
        backoff = Backoff(SystemRandom())
        loop = asyncio.get_running_loop()
        while True:
            since, ended = loop.time(), Unreached("closed")
            try:
                async with self._parts.transport.connect() as connection:
                    await connection.send(orjson.dumps(self._hello()))
                    self._welcome(connection)
                    async for frame in connection.frames():
                        backoff.succeeded()
                        self._take_safely(frame)
            except Unreached as error:
                ended = error
            finally:
                self._connection = None
            if loop.time() - since >= STEADY_S:
                backoff.succeeded()
            wait_s = backoff.wait_s(ended)
            _log.info("disconnected", why=ended.why, again_in_s=round(wait_s, 1))
            await asyncio.sleep(wait_s)

    def _hello(self) -> dict[str, object]:
        return {
            "type": "hello",
            "protocol": PROTOCOL,
            "firmware": self._parts.firmware,
            "speech": self._parts.studio.speech,
            "audio": True,
        }

    def _welcome(self, connection: Connection) -> None:
        self._connection = connection
        self.player.owed.connected()
        self._state_due = 0.0
        self._changed.set()
        _log.info("connected")

    async def _keep(self) -> None:
        """Write what is to be remembered, then say what is owed; sleep until something happens."""
        while True:
            self._changed.clear()
            now = self._parts.monotonic()
            self.player.tick(now)
            if now >= self._forget_due:
                self.player.forget(now)
                self._forget_due = now + FORGET_S
            self._follow()
            while self._unsaved:
                self._unsaved = False
                await self._save()
            await self._send_due()
            moments = [self.player.next_at(now), self._forget_due]
            if self._connection is not None:
                moments += [self.player.owed.next_at(), self._state_due]
            wait_s = max(0.0, min(at for at in moments if at is not None) - self._parts.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    async def _send_due(self) -> None:
        connection, now = self._connection, self._parts.monotonic()
        if connection is None:
            return
        try:
            for frame in self.player.owed.due(now):
                await connection.send(orjson.dumps(frame))
            state = self.state()
            if now >= self._state_due or {**state, "clock": ""} != {**self._state, "clock": ""}:
                await connection.send(orjson.dumps(state))
                self._state = state
                self._state_due = now + self._values.get("state_s", STATE_S)
        except Unreached:  # the reader sees the same; everything is owed still
            self.player.owed.connected()
            self._connection = None

    def state(self) -> dict[str, Any]:
        """Return how the device is, as a frame."""
        power = box.power()
        state: dict[str, Any] = {"type": "state", "volume": self._policy.volume, "power": power.source}
        state |= {} if power.battery is None else {"battery": power.battery}
        state |= {"clock": datetime.now(UTC).isoformat(timespec="seconds"), "faults": sorted(self._faults)}
        return state | {"playing": self.player.playing}

    def status(self) -> dict[str, Any]:
        """Return what a person at the device asks for."""
        reached = {"connected": self._connection is not None, "time_known": self.player.reckoning.sure}
        return self.state() | reached | {"owed": len(self.player.owed)}

    # -- disk --------------------------------------------------------------------------------------------------------

    def _snapshot(self) -> tuple[bytes, int]:
        self._saves += 1
        memory = self.player.memory(self._parts.monotonic())
        return msgspec.json.encode(Saved(memory, self._policy, self._values)), self._saves

    async def _save(self) -> None:
        try:
            await asyncio.to_thread(self._parts.disk.save, *self._snapshot())
        except OSError:
            self._faults.add("disk_fault")
            _log.exception("cannot_remember")
        else:
            self._faults.discard("disk_fault")

    def _save_now(self) -> None:
        try:
            self._parts.disk.save(*self._snapshot())
        except OSError:
            _log.exception("cannot_remember")

    def _after(self) -> None:
        """Follow a change of the player's: sound at once, disk and receipts in `_keep`."""
        self._unsaved = True
        self._follow()
        self._changed.set()

    # -- what the gateway says ---------------------------------------------------------------------------------------

    def _take_safely(self, frame: bytes) -> None:
        """Act on one frame. A bug in it must not end the device: the next frame may be a red warning."""
        try:
            self.take(frame)
        except Exception:
            _log.exception("bug_in_device")
            self._faults.add("device_fault")

    def take(self, frame: bytes) -> None:
        """Act on one frame; what is no frame of this protocol is ignored."""
        try:
            found = orjson.loads(frame)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            _log.warning("malformed_frame")
            return
        match found.get("type"):
            case "command":
                self._command(found)
            case "ack":
                self.player.owed.acknowledged(found)
                self._unsaved = True
            case "error":
                self.player.owed.refused(found)
                _log.warning("gateway_error", code=str(found.get("code"))[:32])
        self._changed.set()

    def _command(self, frame: dict[str, Any]) -> None:
        name = frame.get("batch"), frame.get("position")
        if not isinstance(name[0], str) or len(name[0]) > LONGEST_NAME or type(name[1]) is not int:
            _log.warning("malformed_frame")
            return
        signed = None
        try:
            signed = signed_of(frame)
            command = self._parts.trust.open(signed)
        except Untrusted as error:
            _log.warning("bad_signature", why=str(error))
            self._refuse(name, claimed_id(signed) if signed is not None else "")
            return
        except ValueError:
            _log.warning("malformed_command")
            return
        now = self._parts.monotonic()
        if isinstance(command, Play | Stop | Hush):
            self.player.take(command, (name[0], name[1]), now, signed)
            self._prefetch(command)
        elif self.player.ordered(command, now):
            self._errand(self._carry_out(command))
        self._after()

    def _refuse(self, name: tuple[Any, Any], id_: str) -> None:
        """Say once that a signature is wrong. Nothing is kept: whoever sent it may send a thousand more."""
        connection = self._connection
        if connection is None or not id_:
            return
        receipt = {"type": "receipt", "id": id_, "batch": name[0], "position": name[1]}
        self._errand(self._say(connection, receipt | {"state": "failed", "code": "bad_signature"}))

    async def _say(self, connection: Connection, frame: dict[str, Any]) -> None:
        with contextlib.suppress(Unreached):
            await connection.send(orjson.dumps(frame))

    def _prefetch(self, command: Play | Stop | Hush) -> None:
        """Fetch a recording while the line is there, even if something else is to be heard first."""

        async def fetch(play: Play) -> None:
            assert play.audio is not None
            with contextlib.suppress(Broken):  # tried again when its turn comes
                await self._parts.studio.fetch(play.audio)

        if isinstance(command, Play) and command.audio is not None:
            self._errand(fetch(command))

    def _errand(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    # -- orders ------------------------------------------------------------------------------------------------------

    async def _carry_out(self, order: AnyOrder) -> None:
        match order:
            case Volume():
                # What the installation holds to be the least for red stays, unless the order names another.
                self._policy = Policy(order.volume, {**self._parts.policy.floor, **order.floor}, order.night)
                code = ""
            case Config():
                code = self._configure(order.values)
            case SelfTest():
                code = await self._self_test(order)
            case Clock():
                code = await self._set_clock(order)
        self.player.carried_out(order.order, code, self._parts.monotonic())
        self._after()

    def _configure(self, values: dict[str, Any]) -> str:
        """Take settings, all or none."""
        for name, value in values.items():
            if name not in VALUES:
                return "unknown_setting"
            least, most = VALUES[name]
            if type(value) not in (int, float) or not least <= value <= most:
                return "bad_setting"
        self._values |= values
        return ""

    async def _self_test(self, order: SelfTest) -> str:
        """Try whether sound can be made, and with `audible` make the drill's signal."""
        try:
            signal = await self._parts.studio.signal(DRILL)
            if self._parts.studio.speech:
                await self._parts.studio.speak(mark("zh"))
            if order.audible:
                if self.player.turn is not None or self.player.live_speech:
                    return "busy"
                await self._parts.output.play([signal], self._policy.volume, "self_test")
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
                await run(command, "clock_fault", 10.0)
            except Broken as broken:
                return broken.code
        return ""

    # -- what happens in the village ---------------------------------------------------------------------------------

    def alarm(self, id_: str) -> None:
        """Report that the village has sounded its own alarm."""
        # By the device's own clock: the gateway knows how wrong that is.
        at = datetime.now(UTC)
        self.player.alarm(id_, at.isoformat(timespec="seconds"), self._parts.monotonic())
        self._after()
        _log.info("alarm", alarm=id_)

    def speak(self, live: bool) -> None:
        """Give way to the microphone, or go on."""
        self.player.speak(live, self._parts.monotonic())
        self._after()

    # -- sound -------------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Let sound what the player says, and nothing else."""
        turn = self.player.turn
        if self._sounding is not None and self._sounding[0] is turn:
            return
        if self._sounding is not None:
            self._sounding[1].cancel()
            self._errands.add(self._sounding[1])
            self._sounding[1].add_done_callback(self._errands.discard)
            self._sounding = None
        if turn is not None:
            self._sounding = turn, asyncio.create_task(self._sound(turn))

    async def _sound(self, turn: Turn) -> None:
        """Sound one round, once the one before has fallen silent."""
        one, now = turn.announcement, self._parts.monotonic
        try:
            async with self._loudspeaker:
                try:
                    await self._repeat(turn)
                except Broken as broken:
                    _log.warning("tries_again", code=broken.code)
                    await asyncio.sleep(AGAIN_S)
                    await self._repeat(turn)
        except Broken as broken:
            self._faults.add(broken.code)
            self.player.broken(turn, broken.code, now())
        except Exception:  # a full cache, or a bug: this village is silent, and has to say so
            _log.exception("cannot_sound")
            self._faults.add("device_fault")
            self.player.broken(turn, "device_fault", now())
        _log.info("sounded", id=one.play.id, real=one.play.real, state=one.state, code=one.code, heard_s=one.heard_s)
        self._after()

    async def _repeat(self, turn: Turn) -> None:
        play, now = turn.announcement.play, self._parts.monotonic
        round_ = await self._parts.studio.round(play)
        clips, before = [*round_.signals, *round_.mark, round_.words], len(round_.signals) + len(round_.mark)
        while self.player.turn is turn:
            volume = self._policy.loudness(play, self.player.reckoning.at(now()))
            self.player.started(turn, now())
            self._after()
            if self.player.turn is not turn:
                break
            heard_s = await self._parts.output.play(clips, volume, play.id)
            self._faults -= SOUND_FAULTS
            self.player.spoken(turn, sum(heard_s[before:]), now())
            clips, before = [*round_.mark, round_.words], len(round_.mark)
