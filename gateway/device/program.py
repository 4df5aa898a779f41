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
from datetime import UTC, datetime
from random import SystemRandom
from typing import Any

import msgspec
import orjson

from gateway.device import box
from gateway.device.command import AnyOrder, Hush, Play, Stop, Time
from gateway.device.disk import Saved
from gateway.device.horn import Horn
from gateway.device.parts import Parts
from gateway.device.player import Player
from gateway.device.setup import Setup
from gateway.device.sound import Broken
from gateway.device.transport import Backoff, Connection, Unreached
from gateway.device.trust import Untrusted, claimed_id, signed_of
from gateway.log import get

PROTOCOL = 2
STEADY_S = 60.0
FORGET_S = 300.0
LONGEST_NAME = 128

_log = get("device")


class Program:
    """One loudspeaker."""

    def __init__(self, parts: Parts) -> None:
        saved, fault = parts.disk.load(parts.trust)
        self._parts = parts
        self.player = Player(parts.name, parts.village, saved.memory, parts.monotonic(), parts.boot)
        self._faults = {fault} if fault else set()
        self._setup = Setup(parts, saved, self._faults)
        self._horn = Horn(parts, self.player, self._setup, self._faults, self._after)
        self._connection: Connection | None = None
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
            await self._horn.close()
            for task in self._errands:
                task.cancel()
            await asyncio.gather(*self._errands, return_exceptions=True)
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
            "nonce": self.player.greet(),
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
            self._horn.follow()
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
                self._state_due = now + self._setup.state_s
        except Unreached:  # the reader sees the same; everything is owed still
            self.player.owed.connected()
            self._connection = None

    def state(self) -> dict[str, Any]:
        """Return how the device is, as a frame."""
        power = box.power()
        state: dict[str, Any] = {"type": "state", "volume": self._setup.policy.volume, "power": power.source}
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
        return msgspec.json.encode(Saved(memory, self._setup.policy, self._setup.values)), self._saves

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
        self._horn.follow()
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
        elif isinstance(command, Time):
            self.player.told_time(command, now)
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

    async def _carry_out(self, order: AnyOrder) -> None:
        busy = self.player.turn is not None or self.player.live_speech
        try:
            code = await self._setup.carry_out(order, busy=busy)
        except Exception:  # a full disk, or a bug: asked again, it would not even answer
            _log.exception("cannot_carry_out")
            code = "device_fault"
            self._faults.add(code)
        self.player.carried_out(order.order, code, self._parts.monotonic())
        self._after()

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
