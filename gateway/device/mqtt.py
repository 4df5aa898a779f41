"""The way to the gateway over an MQTT broker.

The hello is said again whenever the gateway asks this device, or calls all: another process of it may speak now.
Sessions are clean: what was said while the device was away is said again by the gateway, if it still holds, and by
nobody else.

**Source:** docs/device-protocol.md, "Connect by MQTT"; MQTT 3.1.1.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import SystemRandom
from urllib.parse import urlsplit

import orjson
from aiomqtt import Client, MqttError, Will
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.reasoncodes import ReasonCode

from gateway.device.transport import LONGEST_FRAME, Unreached

PORTS = {"mqtt": 1883, "mqtts": 8883}
CALL = "mingluo/call"
CALLED_S = 2.0
"""Longest wait before the hello that a call asks for: a fleet must not answer all at once."""
KEEPALIVE_S = 30
CONNECT_S = 10.0
END_S = 1.0
BAD_LOGIN = frozenset({4, 5, 134, 135})
QOS = 1

_silent = logging.Logger("mqtt", logging.CRITICAL + 1)  # the library quotes what is said


class Mqtt:
    """The broker at `url` (mqtt or mqtts), for the device of that name."""

    def __init__(self, url: str, name: str, key: str, tls: ssl.SSLContext | None = None) -> None:
        place = urlsplit(url)
        self._host = place.hostname or ""
        self._port = place.port or PORTS[place.scheme]
        self._tls = (tls or ssl.create_default_context()) if place.scheme == "mqtts" else None
        self._name = name
        self._key = key

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[_Connection]:
        """Connect.

        Raises:
            Unreached: refused, or nobody there.
        """
        connection = _Connection(self._name)
        client = Client(
            self._host,
            self._port,
            username=self._name,
            password=self._key,
            identifier=self._name,
            clean_session=True,
            keepalive=KEEPALIVE_S,
            timeout=CONNECT_S,
            will=Will(connection.presence, b"offline", QOS, retain=True),
            tls_context=self._tls,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            logger=_silent,
        )
        try:
            await client.__aenter__()
        except MqttConnectError as error:
            code = error.rc.value if isinstance(error.rc, ReasonCode) else error.rc
            raise Unreached(f"refused_{code}", patient=code in BAD_LOGIN) from None
        except (MqttError, OSError) as error:
            raise Unreached(type(error).__name__) from None
        try:
            await connection.begin(client)
            yield connection
        finally:
            await connection.end()
            with suppress(MqttError):  # it has ended already
                await client.__aexit__(None, None, None)


class _Connection:
    """One session."""

    def __init__(self, name: str) -> None:
        self.presence = f"mingluo/d/{name}/presence"
        self._told = f"mingluo/d/{name}/told"
        self._command = f"mingluo/d/{name}/command"
        self._hello = b""
        self._random = SystemRandom()
        self._answering: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._over = False
        self._client: Client

    async def begin(self, client: Client) -> None:
        """Listen, and be there."""
        self._client = client
        try:
            await client.subscribe([(self._command, QOS), (CALL, QOS)])
            await client.publish(self.presence, b"online", QOS, retain=True)
        except MqttError:
            raise Unreached("not_subscribed") from None

    async def end(self) -> None:
        """Go off in order, if anybody listens still."""
        self._over = True
        for task in (*self._sending, *([self._answering] if self._answering else [])):
            task.cancel()
        with suppress(MqttError):
            await self._client.publish(self.presence, b"offline", QOS, retain=True, timeout=END_S)

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield what is said to this device; what is said to all is answered here. Nothing retained is a command."""
        try:
            async for message in self._client.messages:
                frame = message.payload
                if message.retain or not isinstance(frame, bytes) or len(frame) > LONGEST_FRAME:
                    continue
                called = message.topic.value == CALL
                if _asks_for_hello(frame):
                    self._answer(self._random.uniform(0.0, CALLED_S) if called else 0.0)
                if not called:
                    yield frame
        except MqttError:
            self._over = True
            raise Unreached("closed") from None

    async def send(self, frame: bytes) -> None:
        """Write one frame; the first of a connection is the hello. Nobody waits for the broker's confirm."""
        if self._over:
            raise Unreached("closed")
        self._hello = self._hello or frame
        task = asyncio.create_task(self._publish(frame))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _publish(self, frame: bytes) -> None:
        with suppress(MqttError):  # what is owed is said again; `frames` tells that the connection is gone
            await self._client.publish(self._told, frame, QOS)

    def _answer(self, after_s: float) -> None:
        """Say hello again."""

        async def say() -> None:
            await asyncio.sleep(after_s)
            with suppress(Unreached):  # `frames` says so
                await self.send(self._hello)

        if self._hello and (self._answering is None or self._answering.done()):
            self._answering = asyncio.create_task(say())


def _asks_for_hello(frame: bytes) -> bool:
    if b"hello_first" not in frame:
        return False
    try:
        said = orjson.loads(frame)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("type") == "error" and said.get("code") == "hello_first"
