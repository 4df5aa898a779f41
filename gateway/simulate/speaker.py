"""A fleet of simulated loudspeakers in one process: they connect, speak into a log, and fail on request.

`mingluo simulate` and the tests start it against a gateway. Written from docs/device-protocol.md, the page device
makers get. Which device fails depends on the seed and its name alone, so that a run repeats itself. The log holds
what each device really sounded: `sound` when its speaker starts, `end` when it falls silent.

**Source:** docs/device-protocol.md, version 2; RFC 7515 and RFC 8037 for the signature.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

import orjson
from aiohttp import (
    ClientError,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    DummyCookieJar,
    TCPConnector,
    WSMsgType,
    WSServerHandshakeError,
)
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.simulate.log import Log

DRILL_MARK = {"zh": "演练。", "en": "DRILL. "}
RANKS = {"red": 4, "orange": 3, "yellow": 2, "blue": 1}
WAIT_LONG = frozenset({4400, 4409, 4426})
HELLO = '{"type":"hello","protocol":2,"firmware":"simulated-2","speech":true,"audio":false}'
LETTERS_PER_S = 5.0  # how fast it speaks; the log's time runs as fast as `play_s` says
PIN = "ed25519:"


def _opened(frame: Mapping[str, Any], pins: Collection[str]) -> dict[str, Any]:
    """Return what is signed of a frame.

    Raises:
        ValueError: it is not signed by a pinned key.
    """
    signed = f"{frame['protected']}.{frame['payload']}".encode()
    for pin in pins:
        with suppress(InvalidSignature):
            Ed25519PublicKey.from_public_bytes(_decoded(pin.removeprefix(PIN))).verify(
                _decoded(frame["signature"]), signed
            )
            payload: dict[str, Any] = orjson.loads(_decoded(frame["payload"]))
            return payload
    raise ValueError("bad_signature")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True, slots=True)
class Options:
    """How a fleet behaves. Shares are of all devices and do not overlap; times are seconds.

    `offline` never connect, `failing` have a broken amplifier, `silent` take commands and never play.
    """

    offline: float = 0.0
    failing: float = 0.0
    silent: float = 0.0
    play_s: float = 5.0
    resend_s: float = 10.0
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    steady_s: float = 60.0
    seed: int = 0

    def character(self, name: str) -> str:
        """Return "offline", "failing", "silent" or "sound" for this device, always the same."""
        draw = Random(f"{self.seed}:{name}").random()  # noqa: S311  # a simulation repeats itself
        for character in ("offline", "failing", "silent"):
            draw -= getattr(self, character)
            if draw < 0:
                return character
        return "sound"


@dataclass(order=True)
class _Sounding:
    """One version in one device: its standing and the commands (batch, position) it is known under."""

    rank: tuple[int, int, int]  # smallest plays first
    frame: Mapping[str, Any] = field(compare=False)
    ends: float = field(compare=False)
    state: str = field(default="received", compare=False)
    code: str = field(default="", compare=False)
    heard_s: float = field(default=0.0, compare=False)
    commands: dict[tuple[str, int], None] = field(default_factory=dict, compare=False)
    rounds: bool = field(default=False, compare=False)

    @property
    def real(self) -> bool:
        """Whether it may sound like a real warning: both fields must say so."""
        return self.frame.get("status") == "Actual" and self.frame.get("drill") is False

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("played", "failed", "stopped")


class Speaker:
    """One loudspeaker. Its memory (versions, stops, unacknowledged receipts) outlives its connections."""

    def __init__(self, name: str, key: str, options: Options, log: Log, pins: Collection[str]) -> None:
        self.name = name
        self._pins = pins
        self.character = options.character(name)
        self.quiet = asyncio.Event()  # nobody is speaking into the village's microphone
        self.quiet.set()
        self._key = key
        self._options = options
        self._log = log
        self._random = Random(f"{options.seed}:{name}:wait")  # noqa: S311  # a simulation repeats itself
        self._versions: dict[tuple[object, ...], _Sounding] = {}
        self._stopped: set[str] = set()
        self._hushed: set[str] = set()
        self._rounds: dict[int, asyncio.TimerHandle] = {}
        self._queue: list[_Sounding] = []
        self._current: _Sounding | None = None
        self._player: asyncio.Task[None] | None = None
        self._unacked: dict[tuple[str, int, str], dict[str, object]] = {}
        self._resend: asyncio.TimerHandle | None = None
        self._writes: set[asyncio.Task[None]] = set()
        self._socket: ClientWebSocketResponse | None = None
        self._count = 0

    # -- connection --------------------------------------------------------------------------------------------------

    async def run(self, session: ClientSession, base_url: str) -> None:
        """Stay connected for ever, unless this device is one of the offline ones."""
        if self.character == "offline":
            return
        options, failures = self._options, 0
        while True:
            started, code, heard = asyncio.get_running_loop().time(), None, False
            with suppress(ClientError, OSError, TimeoutError):
                try:
                    code, heard = await self._session(session, f"{base_url}/v1/devices/{self.name}/ws")
                except WSServerHandshakeError as refused:
                    code = 4400 if refused.status == 401 else None
            if heard or asyncio.get_running_loop().time() - started >= options.steady_s:
                failures = 0
            ceiling = min(options.backoff_max_s, options.backoff_s * 2 ** min(failures, 16))
            failures += 1
            wait_s = options.backoff_max_s if code in WAIT_LONG else self._random.uniform(0, ceiling)
            await asyncio.sleep(wait_s)

    async def _session(self, session: ClientSession, url: str) -> tuple[int | None, bool]:
        """Hold one connection; return its close code and whether the gateway said anything."""
        headers, heard = {"Authorization": f"Bearer {self._key}"}, False
        async with session.ws_connect(url, headers=headers, compress=0, max_msg_size=65_536) as socket:
            await socket.send_str(HELLO)
            self._socket = socket
            try:
                while (frame := await socket.receive()).type is WSMsgType.TEXT:
                    heard = True
                    self._take(orjson.loads(frame.data))
            finally:
                self._socket = None
        return (frame.data if frame.type is WSMsgType.CLOSE else None), heard

    def close(self) -> None:
        """Switch the device off."""
        if self._player is not None:
            self._player.cancel()
        for timer in (self._resend, *self._rounds.values()):
            if timer is not None:
                timer.cancel()

    def _take(self, frame: dict[str, Any]) -> None:
        match frame.get("type"):
            case "command":
                self._obey(frame)
            case "ack" if "batch" in frame:
                self._unacked.pop((frame["batch"], frame["position"], frame["state"]), None)

    def _obey(self, frame: dict[str, Any]) -> None:
        name = {"batch": frame["batch"], "position": frame["position"]}
        try:
            told = _opened(frame, self._pins) | name
        except ValueError as wrong:
            claimed = orjson.loads(_decoded(frame["payload"]))
            refused = _Sounding((0, 0, 0), {"id": claimed.get("id", "")} | name, 0.0)
            refused.commands[frame["batch"], frame["position"]] = None
            self._set(refused, "failed", str(wrong))
            return
        match told["command"]:
            case "play":
                for old in told["supersedes"]:
                    self._end(old)
                self._play(told)
            case "stop":
                self._stop(told)
            case "hush":
                self._hush(told)

    # -- commands ----------------------------------------------------------------------------------------------------

    def _play(self, frame: dict[str, Any]) -> None:
        key = (frame["id"], frame["status"], frame["language"], frame.get("again", False))
        command = (frame["batch"], frame["position"])
        if (known := self._versions.get(key)) is not None:
            known.commands[command] = None
            self._tell(known, [command])
            return
        valid_s = (datetime.fromisoformat(frame["expires"]) - datetime.fromisoformat(frame["now"])).total_seconds()
        self._count += 1
        sounding = _Sounding((0, 0, self._count), frame, asyncio.get_running_loop().time() + valid_s)
        sounding.rank = (0 if sounding.real else 1, -RANKS.get(frame["level"], 0), self._count)
        sounding.commands[command] = None
        sounding.rounds = frame["every_s"] > 0 and frame["id"] not in self._hushed
        self._versions[key] = sounding
        if frame["id"] in self._stopped:
            self._set(sounding, "stopped")
        elif valid_s <= 0:
            self._set(sounding, "failed", "expired")
        else:
            self._set(sounding, "received")
            self._begin(sounding)

    def _begin(self, sounding: _Sounding) -> None:
        if self.character == "failing":
            self._set(sounding, "failed", "amp_fault")
        elif self.character != "silent":
            heapq.heappush(self._queue, sounding)
            if self._current is not None and sounding.rank[:2] < self._current.rank[:2]:
                self._pre_empt(self._current, by=sounding)
            if self._player is None or self._player.done():
                self._player = asyncio.create_task(self._run_player())

    def _pre_empt(self, current: _Sounding, by: _Sounding) -> None:
        """Break off what sounds; a drill does not come back after a real warning."""
        self._cancel_player("pre_empted")
        if by.real and not current.real:
            self._set(current, "failed", "pre_empted")
        else:
            self._set(current, "busy", "pre_empted")
            heapq.heappush(self._queue, current)

    def _stop(self, frame: dict[str, Any]) -> None:
        command = (frame["batch"], frame["position"])
        self._end(frame["id"])
        answer = _Sounding((0, 0, 0), frame, 0.0, state="stopped")
        self._tell(answer, [command])

    def _end(self, alert: str) -> None:
        """Fall silent for every version of this id, for good."""
        self._stopped.add(alert)
        found = [sounding for key, sounding in self._versions.items() if key[0] == alert]
        if self._current in found:
            self._cancel_player("stopped")
        self._queue = [waiting for waiting in self._queue if waiting not in found]
        heapq.heapify(self._queue)
        for sounding in found:
            sounding.rounds = False
            if not sounding.over:
                self._set(sounding, "stopped")
        if self._queue and self._player is None:
            self._player = asyncio.create_task(self._run_player())

    def _hush(self, frame: dict[str, Any]) -> None:
        """Sound no further round of this id."""
        self._hushed.add(frame["id"])
        for key, sounding in self._versions.items():
            if key[0] == frame["id"]:
                sounding.rounds = False
        self._queue = [waiting for waiting in self._queue if waiting.rounds or not waiting.over]
        heapq.heapify(self._queue)
        self._tell(_Sounding((0, 0, 0), frame, 0.0, state="hushed"), [(frame["batch"], frame["position"])])

    # -- sound -------------------------------------------------------------------------------------------------------

    def _cancel_player(self, how: str) -> None:
        if self._player is not None:
            self._player.cancel()
        self._player = None
        if self._current is not None and self._current.state == "playing":
            self._log.write("end", device=self.name, id=self._current.frame["id"], how=how)
        self._current = None

    async def _run_player(self) -> None:
        """Play what waits, highest rank first."""
        while self._queue:
            self._current = heapq.heappop(self._queue)
            await self._sound(self._current)
            self._current = None

    async def _sound(self, sounding: _Sounding) -> None:
        """Sound one version, unless it goes stale before or between the repetitions."""
        if not self.quiet.is_set():
            if not sounding.over:
                self._set(sounding, "busy", "live_speech")
            await self.quiet.wait()
        loop, frame = asyncio.get_running_loop(), sounding.frame
        mark = "" if sounding.real else DRILL_MARK.get(frame["language"][:2], DRILL_MARK["zh"])
        started = False
        for _ in range(frame["repeat"]):
            if loop.time() >= sounding.ends:
                if not sounding.over:
                    self._set(sounding, "failed", "expired")
                break
            if not started:
                started = True
                identity = {name: frame[name] for name in ("id", "status", "language", "batch", "position")}
                self._log.write("sound", device=self.name, **identity, spoken=mark + frame["text"])
                if not sounding.over:
                    self._set(sounding, "playing")
            await asyncio.sleep(self._options.play_s / frame["repeat"])
        else:
            letters = sum(one.isalnum() for one in mark + frame["text"])
            sounding.heard_s = frame["repeat"] * letters / LETTERS_PER_S
            if not sounding.over:
                self._set(sounding, "played")
            if sounding.rounds:
                self._rounds[id(sounding)] = loop.call_later(frame["every_s"], self._sound_again, sounding)
        if started:
            self._log.write("end", device=self.name, id=frame["id"], how=sounding.state)

    def _sound_again(self, sounding: _Sounding) -> None:
        """Begin the next round, if nobody has confirmed, cancelled or updated meanwhile."""
        del self._rounds[id(sounding)]
        if sounding.rounds and asyncio.get_running_loop().time() < sounding.ends:
            self._begin(sounding)

    # -- receipts ----------------------------------------------------------------------------------------------------

    def _set(self, sounding: _Sounding, state: str, code: str = "") -> None:
        sounding.state, sounding.code = state, code
        self._tell(sounding, list(sounding.commands))

    def _tell(self, sounding: _Sounding, commands: Sequence[tuple[str, int]]) -> None:
        """Report the present state under these commands, and keep the receipts until acknowledged."""
        for batch, position in commands:
            receipt: dict[str, object] = {"type": "receipt", "id": sounding.frame["id"], "batch": batch}
            receipt |= {"position": position, "state": sounding.state, "code": sounding.code}
            if sounding.state == "played":
                receipt["heard_s"] = sounding.heard_s
            self._unacked[batch, position, sounding.state] = receipt
            self._start(self._write(receipt))
        if self._resend is None:
            self._resend = asyncio.get_running_loop().call_later(self._options.resend_s, self._send_again)

    def _send_again(self) -> None:
        self._resend = None
        if not self._unacked:
            return
        if self._socket is not None:
            for receipt in self._unacked.values():
                self._start(self._write(receipt))
        self._resend = asyncio.get_running_loop().call_later(self._options.resend_s, self._send_again)

    async def _write(self, receipt: dict[str, object]) -> None:
        if self._socket is not None:
            with suppress(ClientError, ConnectionError):  # kept, and sent again
                await self._socket.send_str(orjson.dumps(receipt).decode())

    def _start(self, write: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(write)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)


class Fleet:
    """Many loudspeakers on one session. Use as an async context manager; `base_url` is http://host:port.

    `pins` are the public keys of the gateway whose commands they obey, as `mingluo keys device` shows them.
    """

    def __init__(
        self,
        base_url: str,
        devices: Sequence[tuple[str, str]],
        log: Log,
        options: Options | None = None,
        pins: Collection[str] = (),
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self.speakers = {name: Speaker(name, key, options or Options(), log, pins) for name, key in devices}
        self._session: ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Fleet:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Switch all devices on; returns before they are connected."""
        self._session = ClientSession(
            connector=TCPConnector(limit=0),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None, sock_connect=30),
        )
        self._tasks = [asyncio.create_task(s.run(self._session, self._base_url)) for s in self.speakers.values()]

    async def close(self) -> None:
        """Switch all devices off, without a farewell."""
        for speaker in self.speakers.values():
            speaker.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._session is not None:
            await self._session.close()
        for task in self._tasks:
            if not task.cancelled():
                task.result()  # a device that died of a bug must not look like one that was silent
