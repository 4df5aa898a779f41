"""A simulated loudspeaker behind an MQTT broker: everything but its way to the gateway is `loudspeaker`'s.

**Source:** docs/device-protocol.md, "Connect by MQTT".
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random

import orjson
from aiohttp import ClientSession, WSMsgType

from gateway.device.mqtt import Mqtt
from gateway.device.transport import Connection, Unreached
from gateway.device.trust import Trust
from gateway.simulate.character import Character, Device, Options
from gateway.simulate.log import Log
from gateway.simulate.loudspeaker import Loudspeaker


class Line:
    """A connection to the broker, written to as to a socket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def send_frame(self, message: bytes, _: WSMsgType) -> None:
        """Write one frame.

        Raises:
            ConnectionError: it is gone.
        """
        try:
            await self._connection.send(message)
        except Unreached:
            raise ConnectionError from None


class BehindBroker(Loudspeaker):
    """One loudspeaker; `broker` is mqtt://host:port."""

    __slots__ = ("_way",)

    def __init__(self, device: Device, options: Options, log: Log, trust: Trust, random: Random, broker: str) -> None:
        super().__init__(device, options, log, trust, random)
        self._way = Mqtt(broker, device.name, device.key)

    async def _connect(self, session: ClientSession, url: str) -> None:
        async with self._way.connect() as connection:
            await connection.send(self._hello())
            if self.character is Character.STUCK:
                await asyncio.sleep(self._options.stuck_s)
                return
            line = Line(connection)
            self._welcome(line, session, url)
            try:
                async for frame in connection.frames():
                    self._backoff.succeeded()
                    self._take(orjson.loads(frame))
                    if self.character is Character.SLOW:
                        await asyncio.sleep(self._options.slow_s)
            finally:
                if self._socket is line:
                    self._socket = None

    async def _second(self, session: ClientSession, url: str) -> None:
        with suppress(Unreached):
            async with self._way.connect() as connection:
                await connection.send(self._hello())
                await asyncio.sleep(self._options.stuck_s)
