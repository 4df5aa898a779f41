"""The SMS carrier of a bench, in a process of its own: `python -m gateway.bench.carrier LOG` prints its address.

It keeps no promise to call back: two callbacks per text would make the carrier, not the sender, what is measured.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import uvloop

from gateway.simulate.log import Log
from gateway.simulate.sms import SmsSimulator


class Quiet(SmsSimulator):
    """Takes texts as the simulator does, and never calls back."""

    async def _call_back(self, sid: str, form: Mapping[str, str], reachable: bool) -> None:
        """Call nobody."""


async def run(path: Path) -> None:
    """Stay until terminated."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    carrier = Quiet(Log(path))
    print(await carrier.start(), flush=True)
    await ended.wait()
    await carrier.stop()


if __name__ == "__main__":
    uvloop.run(run(Path(sys.argv[1])))
