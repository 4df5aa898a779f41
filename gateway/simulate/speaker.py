"""A fleet of simulated loudspeakers in one process: they connect, speak into a log, and fail on request.

`mingluo simulate` and the tests start it against a gateway. Which device fails depends on the seed and its name
alone, so that a run repeats itself. The log holds what each device really sounded: `sound` when its speaker starts,
`end` when it falls silent, with the reason.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection, Sequence
from random import Random
from urllib.parse import urlsplit

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from gateway.device.mqtt import PORTS
from gateway.device.trust import Trust
from gateway.errors import ConfigError
from gateway.simulate.behind_broker import BehindBroker
from gateway.simulate.character import Character, Device, Options
from gateway.simulate.log import Log
from gateway.simulate.loudspeaker import Loudspeaker

__all__ = ["Character", "Device", "Fleet", "Options"]

TURNS = 300
"""In how many turns the devices say how they are, so that they do not all do so at once."""


class Fleet:
    """Many loudspeakers on one session. Use as an async context manager; `base_url` is http://host:port.

    Or it is the broker's, mqtt://host:port.

    `devices` are names and keys, and the villages' codes where that matters; `pins` the public keys of the gateway
    whose commands they obey, as `mingluo keys device` shows them.
    """

    def __init__(
        self,
        base_url: str,
        devices: Sequence[tuple[str, str] | Device],
        log: Log,
        options: Options | None = None,
        pins: Collection[str] = (),
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._options = options or Options()
        trust = Trust.pinned(pins) if pins else Trust(())
        random = Random(self._options.seed)  # noqa: S311  # spreads waits, no secret
        each = (Device(*device) for device in devices)
        self.speakers = {one.name: self._made(one, log, trust, random) for one in each}
        self._session: ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def _made(self, device: Device, log: Log, trust: Trust, random: Random) -> Loudspeaker:
        if urlsplit(self._base_url).scheme in PORTS:
            return BehindBroker(device, self._options, log, trust, random, self._base_url)
        return Loudspeaker(device, self._options, log, trust, random)

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
        self._tasks.append(asyncio.create_task(self._say_states()))

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

    def press(self, line: str) -> None:
        """Do something at a device: `alarm NAME`, `speak NAME` (somebody takes the microphone), `quiet NAME`.

        Raises:
            ConfigError: no such word or device.
        """
        word, _, name = line.partition(" ")
        speaker = self.speakers.get(name.strip())
        if speaker is None or word not in ("alarm", "speak", "quiet"):
            raise ConfigError(f"{line!r}: write alarm, speak or quiet, and the name of a device")
        if word == "alarm":
            speaker.alarm(str(uuid.uuid4()))
        else:
            speaker.speak(word == "speak")

    async def _say_states(self) -> None:
        """Let every device say how it is once in `state_s`."""
        speakers = list(self.speakers.values())
        turn = 0
        while True:
            await asyncio.sleep(self._options.state_s / TURNS)
            for speaker in speakers[turn::TURNS]:
                speaker.say_state()
            turn = (turn + 1) % TURNS
