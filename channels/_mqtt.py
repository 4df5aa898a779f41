"""One connection to an MQTT broker, held by one process at a time, as long as the gateway runs.

Used by `loudspeaker_mqtt`. The right to speak is leased; whoever has it connects, subscribes and writes, and gives the
lease back when it cannot, so that another process may try. Each connection has a client of its own: nothing written to
one is ever sent again by the next, for by then it may have been cancelled.

Ordering: frames leave in the order of `write`. Nobody waits for the broker: frames wait in a bounded queue. A broker
that does not confirm within `publish_s` is cut (a frozen one never closes anything).

**Source:** MQTT 3.1.1, which RabbitMQ 3.10 speaks too; PUBACK (section 3.4) confirms each frame.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from aiomqtt import Client, MqttError
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import ConfigDict, Field, SecretStr, field_validator

from channels._loudspeaker import LoudspeakerSettings
from gateway.channel import Lease, Link
from gateway.errors import MingluoError, Temporary

UNDER_WAY = 512  # frames the broker has not confirmed; its confirms stand in line behind what devices say
MOST_WAITING = 50_000
QOS = 1
REFUSED = 0x80  # SUBACK: the broker's rules do not allow it
BAD_LOGIN = frozenset({4, 5, 134, 135})  # CONNACK codes of a wrong name or password, and of one who may not
PORTS = {"mqtt": 1883, "mqtts": 8883}
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
LONGEST_TIMES = 5.0  # of `retry_s`
ACCOUNT = "broker"

_silent = logging.Logger("mqtt", logging.CRITICAL + 1)  # the library quotes what it sends; a channel logs nothing


class BrokerSettings(LoudspeakerSettings):
    """How to reach the broker. `ca`: file of the authority that signed its certificate; none: those of the system.

    `publish_s`: longest wait for a confirm. `retry_s`: first wait before connecting again. `away_s`: so long the broker
    may be away, and a device missing after that, before it is offline and another process may try. `refused_s`: wait
    after a wrong password.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # an address may hold what must not be shown

    url: str
    username: str = Field("gateway", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    password: SecretStr
    ca: Path | None = None
    connect_s: float = Field(5.0, gt=0, le=60)
    publish_s: float = Field(3.0, gt=0, le=30)
    keepalive_s: int = Field(10, ge=1, le=300)
    retry_s: float = Field(1.0, gt=0)
    away_s: float = Field(6.0, gt=0, le=60)
    refused_s: float = Field(30.0, gt=0)

    @field_validator("url")
    @classmethod
    def _safe(cls, url: str) -> str:
        place = urlsplit(url)
        if place.scheme not in PORTS or not place.hostname or place.path not in ("", "/") or place.username:
            raise ValueError("write mqtts://HOST or mqtts://HOST:PORT; name and password have keys of their own")
        if place.scheme == "mqtt" and place.hostname not in LOOPBACK:
            raise ValueError("the password would cross the network in the clear: use mqtts://")
        return url

    @property
    def host(self) -> str:
        """Host of the broker."""
        return urlsplit(self.url).hostname or ""

    def client(self, identifier: str) -> Client:
        """Return a client that has not connected yet.

        Raises:
            OSError: the certificate of the authority cannot be read.
        """
        place = urlsplit(self.url)
        tls = ssl.create_default_context(cafile=self.ca) if place.scheme == "mqtts" else None
        client = Client(
            self.host,
            place.port or PORTS[place.scheme],
            username=self.username,
            password=self.password.get_secret_value(),
            identifier=identifier,
            clean_session=True,
            keepalive=self.keepalive_s,
            timeout=self.connect_s,
            max_inflight_messages=UNDER_WAY,
            tls_context=tls,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],  # a small frame must not wait for an ack
            logger=_silent,
        )
        client.pending_calls_threshold = UNDER_WAY
        return client


class Side(Protocol):
    """Who speaks through the connection."""

    async def heard(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take one message. `retained`: the broker remembered it, nobody says it now."""

    def broke(self) -> None:
        """The connection has ended; it is made again."""

    async def over(self, *, lost: bool) -> None:
        """Speak no more; once this returns, another process may. `lost`: one does already."""


class Broker:
    """The connection, made again for ever.

    `topics` are subscribed to; `first`, a topic and a frame, is written as soon as the connection stands.
    """

    def __init__(self, settings: BrokerSettings, topics: Sequence[str], first: tuple[str, bytes], side: Side) -> None:
        self._settings = settings
        self._topics = topics
        self._first = first
        self._side = side
        self._up = False
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._more = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def open(self, link: Link) -> None:
        """Begin."""
        self._keeper = asyncio.create_task(self._keep(link))

    async def close(self) -> None:
        """Disconnect, and let another process have the right to speak."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper

    def write(self, topic: str, frame: bytes) -> None:
        """Let a frame leave; never waits.

        Raises:
            Temporary: there is no connection, or the broker takes too little.
        """
        if not self._up:
            raise Temporary("offline")
        if len(self._waiting) >= MOST_WAITING:
            raise Temporary("slow_broker")
        self._waiting.append((topic, frame))
        self._more.set()

    # -- keeping it --------------------------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether there is a connection."""
        return self._up

    async def _keep(self, link: Link) -> None:
        while True:
            try:
                await self._turn(await self._leased(link))
            except Exception as error:  # a bug must be seen, and must not end the connection for good
                handler = asyncio.get_running_loop().call_exception_handler
                handler({"message": "broker: connection ended", "exception": error})
            await asyncio.sleep(self._wait_s(LONGEST_TIMES))

    async def _turn(self, lease: Lease) -> None:
        """Speak as long as it is our turn and the broker is there."""
        try:
            await self._hold(lease)
        finally:
            await self._side.over(lost=lease.lost.is_set())
            with suppress(MingluoError):  # it lapses by itself
                await lease.release()

    async def _hold(self, lease: Lease) -> None:
        """Connect again and again while it is our turn; give up when the broker is away for `away_s`."""
        loop, tries = asyncio.get_running_loop(), 0
        until = loop.time() + self._settings.away_s
        while not lease.lost.is_set() and loop.time() < until:
            tries += 1
            try:
                await self._connect(lease)
                tries, until = 1, loop.time() + self._settings.away_s
            except MqttConnectError as error:
                if _number(error.rc) in BAD_LOGIN:  # a broker may lock an account that keeps trying
                    await asyncio.sleep(self._settings.refused_s)
                    return
            except (MqttError, OSError):
                pass  # nobody is there
            await asyncio.sleep(self._wait_s(min(LONGEST_TIMES, 2.0 ** (tries - 1))))

    def _wait_s(self, times: float) -> float:
        return self._settings.retry_s * times * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    async def _leased(self, link: Link) -> Lease:
        while True:
            with suppress(MingluoError):
                lease = await link.lease(ACCOUNT, 1)
                if lease is not None:
                    return lease
            await asyncio.sleep(self._wait_s(LONGEST_TIMES))

    async def _connect(self, lease: Lease) -> None:
        """Have a connection until it ends.

        Raises:
            MqttError, OSError: there was none.
        """
        # The client id is the user's name: of two processes that believe it is their turn the broker keeps one.
        client = self._settings.client(self._settings.username)
        await client.__aenter__()
        try:
            granted = await client.subscribe([(topic, QOS) for topic in self._topics])
            if any(_number(code) >= REFUSED for code in granted):
                raise MqttError("the broker's rules forbid our topics")
            await self._converse(client, lease)
        finally:
            self._up = False
            self._waiting.clear()
            self._side.broke()
            with suppress(MqttError):  # it has ended already
                await client.__aexit__(None, None, None)

    async def _converse(self, client: Client, lease: Lease) -> None:
        """Write and read until the connection ends, the broker confirms too late, or it is another's turn."""
        try:
            async with asyncio.TaskGroup() as group:
                self._up = True
                self.write(*self._first)
                group.create_task(self._read(client))
                group.create_task(_until_lost(lease))
                await self._pump(client, group)
        except* (MqttError, OSError, _Over):
            pass  # made again by `_keep`

    async def _pump(self, client: Client, group: asyncio.TaskGroup) -> None:
        room = asyncio.Semaphore(UNDER_WAY)
        while True:
            while self._waiting:
                await room.acquire()
                topic, frame = self._waiting.popleft()
                group.create_task(self._publish(client, topic, frame, room))
            self._more.clear()
            await self._more.wait()

    async def _publish(self, client: Client, topic: str, frame: bytes, room: asyncio.Semaphore) -> None:
        try:
            await client.publish(topic, frame, qos=QOS, timeout=self._settings.publish_s)
        finally:
            room.release()

    async def _read(self, client: Client) -> None:
        async for message in client.messages:
            if isinstance(message.payload, bytes):
                await self._side.heard(message.topic.value, message.payload, retained=message.retain)


def _number(code: int | ReasonCode | None) -> int:
    return code.value if isinstance(code, ReasonCode) else code or 0


class _Over(Exception):
    """Another process has the right to speak."""


async def _until_lost(lease: Lease) -> None:
    await lease.lost.wait()
    raise _Over
