"""Loudspeakers that share one MQTT broker with us: the transport alone (docs/device-protocol.md, "Connect by MQTT").

What is written, and what becomes of what devices say, is in `_loudspeaker`; the connection in `_mqtt`. One process at
a time speaks for all devices. Who may say what is the broker's to decide: the name within a topic is the device that
was let in under it. Frames under a name that is not in the roster, or belongs to another channel, are dropped.

A device is here from its hello until its last will, after which it is asked once whether a newer session of it is there
already. Who begins to speak calls all devices to say hello, for they have said it to another process. What the broker
confirms and a device never answers is not lost: the hub writes it again.

**Source:** MQTT 3.1.1; sessions are clean and commands never retained, so nothing stale waits for a device.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from secrets import token_hex
from typing import ClassVar

import msgspec

from channels._loudspeaker import Loudspeakers
from channels._loudspeaker_connection import Connection
from channels._loudspeaker_frame import LONGEST_FRAME
from channels._mqtt import Broker, BrokerSettings
from channels._mqtt_proof import prove
from gateway.channel import Device, Link
from gateway.errors import MingluoError, Temporary

TOPICS = ("mingluo/d/+/told", "mingluo/d/+/presence")
HELLO_FIRST = b'{"type":"error","code":"hello_first"}'
CALL = ("mingluo/call", HELLO_FIRST)
FAREWELL_S = 1.0  # so long after its last will a device may say that it is here again
LOOK_UPS = 16  # at once
LOOK_UP_AGAIN_S = 2.0
WAITING_PER_NAME = 16


class _Kind(msgspec.Struct):
    """What every frame says."""

    type: str = ""


_kind = msgspec.json.Decoder(_Kind)


def told_by(name: str) -> str:
    """Return the topic a device speaks on."""
    return f"mingluo/d/{name}/told"


def command_of(name: str) -> str:
    """Return the topic a device hears."""
    return f"mingluo/d/{name}/command"


class Voice(Connection):
    """One device behind the broker. `ended`: its session is over, and the next hello begins another."""

    __slots__ = ("_channel", "_topic", "ended", "farewell")

    def __init__(self, device: int, name: str, channel: LoudspeakerMqtt) -> None:
        super().__init__(device, name)
        self.ended = False
        self.farewell: asyncio.TimerHandle | None = None
        self._topic = command_of(name)
        self._channel = channel

    async def write(self, frame: bytes) -> None:
        """Let one frame leave.

        Raises:
            Temporary: the device or the broker is gone.
        """
        if self.gone:
            raise Temporary("offline")
        self._channel.broker.write(self._topic, frame)

    async def part(self, code: int) -> None:
        """Take no more of this connection; only the broker could end it."""
        self._channel.leave(self, self._channel.link)


class LoudspeakerMqtt(Loudspeakers):
    """Speak for all devices behind one broker, while it is this process's turn."""

    name: ClassVar[str] = "loudspeaker_mqtt"
    Settings = BrokerSettings
    settings: BrokerSettings

    def __init__(self, settings: BrokerSettings) -> None:
        super().__init__(settings)
        self.broker = Broker(settings, TOPICS, CALL, self)
        self.link: Link
        self._voices: dict[str, Voice] = {}
        self._unknown: dict[str, deque[bytes]] = {}  # what came while a name is looked up
        self._look_ups: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(LOOK_UPS)
        self._missing: dict[int, Voice] = {}  # held when the connection to the broker broke
        self._searching: asyncio.TimerHandle | None = None

    def endpoints(self) -> Collection[str]:
        """The broker's host."""
        return (self.settings.host,)

    def up(self) -> bool:
        """Whether this process has the connection to the broker; of several hubs, one has."""
        return self.broker.up

    async def prove(self) -> str:
        """Log in, hear ourselves, and try to speak for a device.

        Raises:
            ConfigError: one of these is not as it must be.
        """
        return await prove(self.settings, told_by(self.settings.username), told_by(f"doctor-{token_hex(8)}"))

    async def open(self, link: Link) -> None:
        """Begin to ask for the right to speak."""
        self.link = link
        self.broker.open(link)

    async def close(self) -> None:
        """Say that no device is held any more, then let another process speak."""
        await self.broker.close()
        await super().close()

    def leave(self, connection: Connection, link: Link) -> None:
        """Forget a session."""
        super().leave(connection, link)
        assert isinstance(connection, Voice)
        if connection.farewell is not None:
            connection.farewell.cancel()
        if self._voices.get(connection.name) is connection:
            del self._voices[connection.name]

    # -- what the broker says ----------------------------------------------------------------------------------------

    async def heard(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take one message; what comes while its name is looked up waits for that."""
        _, _, name, kind = topic.split("/")
        waiting = self._unknown.get(name)
        if kind == "presence":
            if waiting is not None and payload == b"offline":
                waiting.clear()  # it has gone again
            self._note(self._voices.get(name), payload, retained=retained)
        elif waiting is None:
            await self._told_by(name, payload)
        elif len(waiting) < WAITING_PER_NAME:
            waiting.append(payload)

    def broke(self) -> None:
        """Hold no device; they are missing until they say hello again."""
        for task in self._look_ups:
            task.cancel()
        for voice in list(self._voices.values()):
            if voice.greeted:
                self._missing[voice.device] = voice
            voice.greeted = False
            self.leave(voice, self.link)
        if self._missing and self._searching is None:
            loop = asyncio.get_running_loop()
            self._searching = loop.call_later(self.settings.away_s, self._miss)

    async def over(self, *, lost: bool) -> None:
        """Tell who is missing, durably; another process that speaks already knows better."""
        if lost:
            self._missing.clear()
        self._miss()
        await self._commits.finish()

    def _miss(self) -> None:
        if self._searching is not None:
            self._searching.cancel()
            self._searching = None
        for voice in self._missing.values():
            self.tell_offline(voice, self.link)
        self._missing.clear()

    def _note(self, voice: Voice | None, payload: bytes, *, retained: bool) -> None:
        """Act on a presence: a session has begun, or ended. One that was remembered for us says nothing new."""
        if voice is None or retained:
            return
        if payload == b"online":
            voice.ended = True  # the session before this one
        elif payload == b"offline" and voice.farewell is None:
            voice.ended = True
            loop = asyncio.get_running_loop()
            voice.farewell = loop.call_later(FAREWELL_S, self.leave, voice, self.link)
            self._ask(voice.name)

    async def _told_by(self, name: str, frame: bytes) -> None:
        voice = self._voices.get(name)
        if voice is not None and not (voice.ended and _is_hello(frame)):
            if not await self.hear(voice, frame, self.link):
                self.leave(voice, self.link)
        elif _is_hello(frame):
            self._begin(name, frame)
        else:
            self._ask(name)

    def _ask(self, name: str) -> None:
        """Have a device say hello, if it is there."""
        with suppress(Temporary):
            self.broker.write(command_of(name), HELLO_FIRST)

    # -- whose name it is --------------------------------------------------------------------------------------------

    def _begin(self, name: str, hello: bytes) -> None:
        """Look the name up, then let a session of it begin."""
        self._unknown[name] = deque([hello])
        task = asyncio.create_task(self._meet(name))
        self._look_ups.add(task)
        task.add_done_callback(self._look_ups.discard)

    async def _meet(self, name: str) -> None:
        try:
            device = await self._device(name)
        finally:
            frames = self._unknown.pop(name, ())
        if device is None or device.channel != self.name:
            self.strangers += 1
            return
        if not frames:
            return
        voice = self._voices[name] = Voice(device.id, name, self)
        self._missing.pop(device.id, None)
        await self.join(voice, self.link)
        for frame in frames:
            await self._told_by(name, frame)

    async def _device(self, name: str) -> Device | None:
        async with self._free:
            while True:
                try:
                    return await self.link.device(name)
                except MingluoError:
                    await asyncio.sleep(LOOK_UP_AGAIN_S)


def _is_hello(frame: bytes) -> bool:
    try:
        return _kind.decode(frame[:LONGEST_FRAME]).type == "hello"
    except (ValueError, RecursionError):
        return False
