"""All counterparts of a demonstration or a fault test in one process of their own: phones, push service, loudspeakers.

Run as `python -m gateway.simulate.world FOLDER`; reads `world.json` there (a `World`), writes `ready.json` once
it listens, and logs what really arrived to `sms.log`, `push.log` and `speakers.log`. Its logs, not the gateway's
ledger, decide what a run is judged by.
"""

from __future__ import annotations

import asyncio
import csv
import signal
import sys
from pathlib import Path

import msgspec
import uvloop

from gateway.simulate.log import Log
from gateway.simulate.push import PushFaults, PushSimulator
from gateway.simulate.sms import SmsAccount, SmsFaults, SmsReplies, SmsSimulator
from gateway.simulate.speaker import Device, Fleet, Options


class World(msgspec.Struct, frozen=True):
    """What the counterparts are like. Shares are 0 to 1; `hub_url` is where loudspeakers connect."""

    hub_url: str
    api_url: str
    devices: str
    """CSV with the columns name and key."""
    vapid_public: str = ""
    subscribers: int = 0
    unreachable: float = 0.02
    replies: float = 0.8
    reply_after_s: float = 1.0
    offline: float = 0.05
    failing: float = 0.03
    silent: float = 0.0
    play_s: float = 1.0
    dropped: float = 0.0
    latency_s: float = 0.0
    backoff_max_s: float = 2.0
    """Longest pause of a loudspeaker between two tries: it is switched on before the gateway listens."""
    seed: int = 1
    pins: tuple[str, ...] = ()
    """Public keys of the gateway that the loudspeakers obey."""


class Ready(msgspec.Struct, frozen=True):
    """Where they listen, and the push subscriptions that exist."""

    sms_url: str
    push_url: str
    subscriptions: list[str]


def devices_of(path: Path) -> list[Device]:
    """Return every device of a roster's table."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [Device(row["name"], row["key"], row.get("village") or "") for row in csv.DictReader(file)]


async def run(folder: Path) -> None:
    """Start everything and stay until terminated."""
    world = msgspec.json.decode((folder / "world.json").read_bytes(), type=World)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, ended.set)
    sms = SmsSimulator(
        Log(folder / "sms.log"),
        SmsAccount(),
        SmsFaults(unreachable=world.unreachable, dropped=world.dropped, latency_s=world.latency_s),
        SmsReplies(world.replies, world.reply_after_s, url=f"{world.api_url}/v1/callbacks/sms_twilio"),
        callback_tries=20,
        callback_pause_s=0.5,
        seed=world.seed,
    )
    push = PushSimulator(Log(folder / "push.log"), PushFaults(), world.vapid_public, world.seed)
    ready = Ready(await sms.start(), await push.start(), [push.subscribe() for _ in range(world.subscribers)])
    devices = devices_of(Path(world.devices))
    options = Options(
        offline=world.offline, failing=world.failing, silent=world.silent, play_s=world.play_s,
        backoff_max_s=world.backoff_max_s, seed=world.seed,
    )  # fmt: skip
    async with Fleet(world.hub_url, devices, Log(folder / "speakers.log"), options, world.pins):
        part = folder / "ready.part"
        part.write_bytes(msgspec.json.encode(ready))
        part.rename(folder / "ready.json")
        await ended.wait()
    await sms.stop()
    await push.stop()


if __name__ == "__main__":
    uvloop.run(run(Path(sys.argv[1])))
