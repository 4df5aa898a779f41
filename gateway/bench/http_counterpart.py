"""The other side of an HTTP channel's bench, in a process of its own: `… CHANNEL ADDRESSES LOG` prints `Ready`.

What it does beyond taking a message is left out, for it shares the machine with the sender that is measured: no
callback, no report, and a push service that neither checks nor decrypts.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import uvloop
from aiohttp import web

from gateway.simulate.log import Log
from gateway.simulate.push import PushSimulator, Subscriber
from gateway.simulate.sms import SmsSimulator
from gateway.simulate.sms_http import HttpProvider, HttpScenario


class Ready(msgspec.Struct, frozen=True):
    """Where it listens, and whom it knows."""

    url: str
    addresses: list[str]


class _Sms(SmsSimulator):
    """Takes texts as the simulator does, and never calls back."""

    async def _call_back(self, sid: str, form: Mapping[str, str], reachable: bool) -> None:
        """Call nobody."""


class _Push(PushSimulator):
    """Takes a message as it is."""

    def _refusal(self, request: web.Request, body: bytes) -> int:
        """Refuse nothing."""
        return 0

    def _keep(self, subscriber: Subscriber, headers: Mapping[str, str], body: bytes) -> None:
        """Count."""
        self.received += 1


async def run(channel: str, addresses: int, log: Log) -> None:
    """Stay until terminated."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    known = [f"+86100{number:08d}" for number in range(addresses)]
    server: SmsSimulator | HttpProvider | PushSimulator
    if channel == "web_push":
        server = _Push(log)
        url = await server.start()
        known = [server.subscribe() for _ in known]
    elif channel == "sms_http":
        server = HttpProvider(log)
        server.scenario = HttpScenario(lost=1.0)
        url = await server.start()
        known = [f"139{number:08d}" for number in range(addresses)]
    else:
        server = _Sms(log)
        url = await server.start()
    print(msgspec.json.encode(Ready(url, known)).decode(), flush=True)
    await ended.wait()
    await server.stop()


if __name__ == "__main__":
    uvloop.run(run(sys.argv[1], int(sys.argv[2]), Log(Path(sys.argv[3]))))
