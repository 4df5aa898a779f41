"""One process of an installation that speaks to an MQTT broker, for tests that kill it.

`python mqtt_speaker.py DATABASE BROKER PASSWORD NAME…` takes the lease, and prints how many devices it holds.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field

from links import RecordingLink
from pydantic import SecretStr

from channels._mqtt import BrokerSettings
from channels.loudspeaker_mqtt import LoudspeakerMqtt
from gateway.app import SystemClock
from gateway.channel import Device, Lease
from gateway.database import Database
from gateway.store import Store
from gateway.store.lease import Leases


@dataclass
class LeasedLink(RecordingLink):
    """A link whose leases are those of the installation's database."""

    store: Leases | None = None
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, *names: str) -> None:
        """Put devices of the channel into the roster."""
        for number, name in enumerate(names, 1000):
            self.devices[name] = Device(number, "411726001001", "", LoudspeakerMqtt.name)

    async def lease(self, account: str, connections: int) -> Lease | None:
        assert self.store is not None
        return await self.store.take(f"{LoudspeakerMqtt.name}/{account}", connections)

    async def wake(self) -> None:
        self.woken.set()


async def speak(url: str, broker: str, password: str, *names: str) -> None:
    """Hold the devices until killed."""
    database = Database(url)
    await database.open()
    link = LeasedLink(store=Store(database, SystemClock()).leases)
    link.add(*names)
    channel = LoudspeakerMqtt(BrokerSettings(url=broker, password=SecretStr(password), retry_s=0.05))
    await channel.open(link)
    while True:
        await link.woken.wait()
        link.woken.clear()
        print(len(channel.held()), flush=True)


if __name__ == "__main__":
    asyncio.run(speak(*sys.argv[1:]))
