"""One simulated loudspeaker: the state machine of a real device, with a log in place of sound and no disk.

`gateway.simulate.speaker` runs a fleet of them. An idle one costs its connection and the task that reads it.

**Source:** docs/device-protocol.md, version 2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Protocol

import orjson
from aiohttp import ClientError, ClientSession, WSMsgType, WSServerHandshakeError

from gateway.device.command import AnyOrder, Hush, Play, Stop, Time, Volume
from gateway.device.player import Player
from gateway.device.record import Turn
from gateway.device.transport import LONGEST_FRAME, Backoff, Unreached
from gateway.device.trust import Trust, Untrusted, claimed_id, signed_of
from gateway.device.websocket import PATIENT, seconds
from gateway.simulate.character import Character, Device, Options, heard_s, recording_of, spoken
from gateway.simulate.log import Log

FIRMWARE = "simulated-2"
ANOTHER_TIME = timedelta(days=1)
REPLAYED = 20
"""Frames that somebody on the line keeps, to say them again."""


class Writable(Protocol):
    """What frames are written to: a WebSocket, or what looks like one."""

    async def send_frame(self, message: bytes, opcode: WSMsgType, /) -> None:
        """Write one frame."""


class Loudspeaker:
    """One loudspeaker. `random` is the fleet's."""

    __slots__ = (
        "_backoff", "_key", "_log", "_options", "_replays", "_socket", "_sounding", "_tasks", "_timer", "_trust",
        "_volume", "_writing", "character", "name", "player",
    )  # fmt: skip

    def __init__(self, device: Device, options: Options, log: Log, trust: Trust, random: Random) -> None:
        self.name = device.name
        self.character = options.character(device.name)
        self.player = Player(device.name, device.village, resend_s=options.resend_s)
        self._key = device.key
        self._options = options
        self._log = log
        self._trust = trust
        self._backoff = Backoff(random, options.backoff_s, options.backoff_max_s)
        self._socket: Writable | None = None
        self._sounding: tuple[Turn, asyncio.Handle | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writing: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] | None = None
        self._replays: list[dict[str, Any]] | None = None
        self._volume = 80

    # -- connection --------------------------------------------------------------------------------------------------

    async def run(self, session: ClientSession, base_url: str) -> None:
        """Stay connected for ever, unless this device is one of the offline ones."""
        if self.character is Character.OFFLINE:
            return
        loop, url = asyncio.get_running_loop(), f"{base_url}/v1/devices/{self.name}/ws"
        while True:
            since, ended = loop.time(), Unreached("closed")
            try:
                await self._connect(session, url)
            except Unreached as error:
                ended = error
            except WSServerHandshakeError as refused:
                asked = refused.headers.get("Retry-After") if refused.headers is not None else None
                ended = Unreached("refused", patient=refused.status == 401, after_s=seconds(asked))
            except (ClientError, OSError, TimeoutError):
                pass
            if loop.time() - since >= self._options.steady_s:
                self._backoff.succeeded()
            await asyncio.sleep(self._backoff.wait_s(ended))

    async def _connect(self, session: ClientSession, url: str) -> None:
        """Hold one connection to its end."""
        headers = {"Authorization": f"Bearer {self._key}"}
        async with session.ws_connect(url, headers=headers, compress=0, max_msg_size=LONGEST_FRAME) as socket:
            await socket.send_frame(self._hello(), WSMsgType.TEXT)
            if self.character is Character.STUCK:
                await asyncio.sleep(self._options.stuck_s)
                return
            self._welcome(socket, session, url)
            try:
                while (frame := await socket.receive()).type is WSMsgType.TEXT:
                    self._backoff.succeeded()
                    self._take(orjson.loads(frame.data))
                    if self.character is Character.SLOW:
                        await asyncio.sleep(self._options.slow_s)
            finally:
                if self._socket is socket:
                    self._socket = None
        code = frame.data if frame.type is WSMsgType.CLOSE else None
        raise Unreached(f"closed_{code}", patient=code in PATIENT)

    def _hello(self) -> bytes:
        voiceless = self.character is Character.VOICELESS
        return orjson.dumps(
            {
                "type": "hello", "protocol": 2, "firmware": FIRMWARE, "speech": not voiceless, "audio": voiceless,
                "nonce": self.player.greet(),
            }
        )  # fmt: skip

    def _welcome(self, socket: Writable, session: ClientSession, url: str) -> None:
        self._socket = socket
        self.player.owed.connected()
        self.say_state()
        if self.character is Character.OVERSIZED:
            self._say({"type": "state", "power": "x" * 5000})
        if self.character is Character.DOUBLED and self._replays is None:
            self._replays = []
            self._start(self._second(session, url))
        for frame in list(self._replays or ()):
            self._take(frame)
        self._after()

    async def _second(self, session: ClientSession, url: str) -> None:
        """Be somebody else with this device's name and key, who hears and plays nothing, for a while."""
        headers = {"Authorization": f"Bearer {self._key}"}
        with suppress(ClientError, OSError, TimeoutError):
            async with session.ws_connect(url, headers=headers, compress=0) as socket:
                await socket.send_frame(self._hello(), WSMsgType.TEXT)
                await asyncio.sleep(self._options.stuck_s)

    def close(self) -> None:
        """Switch the device off."""
        for handle in (self._timer, self._sounding[1] if self._sounding is not None else None):
            if handle is not None:
                handle.cancel()
        for task in self._tasks or ():
            task.cancel()

    # -- what it is told ---------------------------------------------------------------------------------------------

    def _take(self, frame: dict[str, Any]) -> None:
        match frame.get("type"):
            case "command":
                self._obey(frame)
                if self.character is Character.REPLAYED:
                    self._replay(frame)
            case "ack":
                self.player.owed.acknowledged(frame)
            case "error":
                self.player.owed.refused(frame)
        self._after()

    def _replay(self, frame: dict[str, Any]) -> None:
        """Hear everything again from somebody on the line: as it was, and under another name."""
        self._obey(frame)
        self._obey({**frame, "position": frame["position"] + 1})
        self._replays = [*(self._replays or [])[1 - REPLAYED :], frame]

    def _obey(self, frame: dict[str, Any]) -> None:
        now, name = asyncio.get_running_loop().time(), (frame["batch"], frame["position"])
        signed = signed_of(frame)
        try:
            command = self._trust.open(signed)
        except Untrusted:
            receipt = {"type": "receipt", "id": claimed_id(signed), "batch": name[0], "position": name[1]}
            self._say(receipt | {"state": "failed", "code": "bad_signature"})
            return
        except ValueError:  # a newer gateway may say more than this device knows
            return
        if isinstance(command, Time):
            self.player.told_time(command, now)
        elif not isinstance(command, Play | Stop | Hush):
            if self.player.ordered(command, now):
                self.player.carried_out(command.order, self._carry_out(command), now)
        else:
            self.player.take(command, name, now)

    def _carry_out(self, order: AnyOrder) -> str:
        if self.character is Character.FAILING:
            return "amp_fault"
        if isinstance(order, Volume):
            self._volume = order.volume
            self.say_state()
        return ""

    def speak(self, live: bool) -> None:
        """Let somebody take up the village's microphone, or put it down."""
        self.player.speak(live, asyncio.get_running_loop().time())
        self._after()

    def alarm(self, id_: str) -> None:
        """Let the village sound its own alarm."""
        self.player.alarm(id_, self._clock(), asyncio.get_running_loop().time())
        self._after()

    # -- after every change ------------------------------------------------------------------------------------------

    def _after(self) -> None:
        """Say what is owed, let sound what is to sound, and come back when time alone changes something."""
        loop = asyncio.get_running_loop()
        self._say_owed(loop.time())
        while self._sounding is None or self._sounding[0] is not self.player.turn:
            if self._sounding is not None:
                self._silence(self._sounding[0])
            turn = self.player.turn
            if turn is None:
                break
            self._sounding = turn, None
            self._begin(turn)
        self._say_owed(loop.time())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        moments = [self.player.next_at(loop.time()), self.player.owed.next_at() if self._socket is not None else None]
        first = min((at for at in moments if at is not None), default=None)
        if first is not None:
            self._timer = loop.call_at(first, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.player.tick(asyncio.get_running_loop().time())
        self._after()

    # -- sound -------------------------------------------------------------------------------------------------------

    def _begin(self, turn: Turn) -> None:
        now, play = asyncio.get_running_loop().time(), turn.announcement.play
        match self.character:
            case Character.FAILING:
                self.player.broken(turn, "amp_fault", now)
            case Character.SILENT:
                pass
            case Character.VOICELESS:
                self._start(self._fetch(turn))
            case _:
                self._sound(turn, heard_s(play))

    def _sound(self, turn: Turn, length_s: float) -> None:
        """Sound an announcement; a lying device only says so."""
        if turn is not self.player.turn:
            return
        one = turn.announcement
        lies = self.character is Character.LYING
        if not lies:
            name = dict(zip(("batch", "position"), one.names[-1], strict=True))
            identity = {"id": one.play.id, "status": one.play.status, "language": one.play.language, **name}
            self._log.write("sound", device=self.name, **identity, spoken=spoken(one.play))
        self.player.started(turn, asyncio.get_running_loop().time())
        self._repeat(turn, 0.1 if lies else length_s)

    def _repeat(self, turn: Turn, length_s: float) -> None:
        wait_s = self._options.play_s / turn.announcement.play.repeat
        handle = asyncio.get_running_loop().call_later(wait_s, self._repeated, turn, length_s)
        self._sounding = turn, handle

    def _repeated(self, turn: Turn, length_s: float) -> None:
        self.player.spoken(turn, length_s, asyncio.get_running_loop().time())
        if self.player.turn is turn:
            self._repeat(turn, length_s)
        self._after()

    def _silence(self, turn: Turn) -> None:
        """Fall silent, because it was all said or for another reason."""
        assert self._sounding is not None
        handle, self._sounding = self._sounding[1], None
        if handle is not None:
            handle.cancel()
        if turn.since is not None and self.character is not Character.LYING:
            one = turn.announcement
            self._log.write("end", device=self.name, id=one.play.id, how=one.code or one.state)

    async def _fetch(self, turn: Turn) -> None:
        """Get the gateway's recording, as a device must that cannot speak."""
        code, length_s = await recording_of(turn.announcement.play)
        if code:
            self.player.broken(turn, code, asyncio.get_running_loop().time())
        else:
            self._sound(turn, length_s)
        self._after()

    # -- what it says ------------------------------------------------------------------------------------------------

    def _say_owed(self, now: float) -> None:
        if self._socket is None:
            return
        for frame in self.player.owed.due(now):
            if self.character is Character.DEAF:
                continue
            self._say(frame)
            if self.character is Character.FORGING and "position" in frame:
                self._say({**frame, "position": frame["position"] + 1, "state": "played", "code": "", "heard_s": 30.0})

    def say_state(self) -> None:
        """Say how it is: after its hello, on every change, and every few minutes."""
        if self._socket is None:
            return
        self.player.forget(asyncio.get_running_loop().time())
        state: dict[str, Any] = {"type": "state", "volume": self._volume, "power": "mains", "clock": self._clock()}
        self._say(state | {"faults": ["amp_fault"] if self.character is Character.FAILING else []})

    def _clock(self) -> str:
        now = datetime.now(UTC)
        return (now + ANOTHER_TIME if self.character is Character.SKEWED else now).isoformat(timespec="seconds")

    def _say(self, frame: dict[str, Any]) -> None:
        """Write one frame, behind those that wait."""
        self._writing.append(orjson.dumps(frame))
        if len(self._writing) == 1:
            self._start(self._write())

    async def _write(self) -> None:
        while self._writing:
            if self._socket is not None:
                with suppress(ClientError, ConnectionError, RuntimeError):  # what is owed is said again
                    await self._socket.send_frame(self._writing[0], WSMsgType.TEXT)
            del self._writing[0]

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        if self._tasks is None:
            self._tasks = set()
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
