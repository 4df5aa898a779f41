"""From the last byte of a request to the first device: small red alerts, one after the other, at rest in between.

A whole embedded gateway and a fleet of simulated loudspeakers run as processes of their own; the alerts come over
HTTP. The time is the hub's, as it logs it: from `accepted_at` (the request's last byte was read) to the moment it had
written the alert to the sockets of its first devices, an upper bound of the first write.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import ClientSession

from gateway import cap
from gateway.bench.measure import COUNTY, SystemClock, configuration, environment, quantile, red_rain
from gateway.database import Database
from gateway.demo.stage import Servers, Stage
from gateway.directory.importer import Importer
from gateway.directory.roster import write_sample
from gateway.directory.table import Roster
from gateway.directory.vault import Vault
from gateway.regions import Regions
from gateway.settings import data_folder
from gateway.simulate.world import World

TOKEN = "demo-411726-qxj-issuer"  # noqa: S105  # counts in simulation only
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/cap+xml"}
PER_VILLAGE = 2
PATIENCE_S = 60.0
POLL_S = 0.05


class First(msgspec.Struct, frozen=True):
    """The result, as printed with --json. Milliseconds from the last byte read to the first device."""

    devices: int
    rounds: int
    p50_ms: float
    p95_ms: float
    max_ms: float
    accepted_p50_ms: float
    """The whole request as its client sees it, until 202."""
    accepted_p95_ms: float
    bench: str = "first"


async def first(rounds: int = 40, devices: int = 300) -> First:
    """Measure with child processes.

    Raises:
        RuntimeError: a child failed, or an alert did not reach a device in time.
    """
    with tempfile.TemporaryDirectory(prefix="mingluo-bench-", ignore_cleanup_errors=True) as temporary:
        stage = Stage(Path(temporary), Servers())
        regions = Regions.load(data_folder("config") / "regions")
        townships = _townships(regions, devices)
        try:
            online = await _start(stage, regions, townships)
            times = await _rounds(stage, townships, rounds)
        finally:
            stage.stop()
    written, accepted = zip(*times, strict=True)
    return First(
        online, len(times), quantile(written, 0.5), quantile(written, 0.95), max(written),
        quantile(accepted, 0.5), quantile(accepted, 0.95),
    )  # fmt: skip


def _townships(regions: Regions, devices: int) -> list[str]:
    """Townships of the county that together have at least that many loudspeakers."""
    chosen, found = [], 0
    for town in regions.children(COUNTY):
        villages = len(regions.villages(town.code))
        if villages and found < devices:
            chosen.append(town.code)
            found += PER_VILLAGE * villages
    return chosen


async def _start(stage: Stage, regions: Regions, townships: Sequence[str]) -> int:
    """Start fleet and gateway; return the number of devices once all are connected."""
    folder = stage.folder
    sample = write_sample(folder / "roster", regions, 0, 1, devices_per_village=PER_VILLAGE, townships=townships)
    world = World(
        stage.hub_url, stage.api_url, str(sample.devices), offline=0.0, failing=0.0, play_s=0.05
    )  # fmt: skip
    await stage.start_world(world)
    (folder / "channels.toml").write_text("[loudspeaker_ws]\nrepeat = 1\n", encoding="utf8")
    database = Database(f"sqlite:///{folder / 'data' / 'mingluo.db'}")
    await database.open()
    importer = Importer(database, Vault.of(stage.secret_key, folder), regions, SystemClock())
    with sample.devices.open("rb") as stream:
        imported = await importer.read(stream, Roster.DEVICES)
    await database.close()
    own = {"MINGLUO_CONFIG": str(configuration(folder)), "MINGLUO_LOG_LEVEL": "info"}
    stage.start("serve", ["-m", "gateway.cli", "serve"], environment() | stage.environment("serve") | own)
    await stage.answering()
    await connected(stage, imported.added)
    return imported.added


async def connected(stage: Stage, wanted: int) -> None:
    """Wait until that many loudspeakers are connected.

    Raises:
        RuntimeError: it took too long.
    """
    deadline = time.monotonic() + PATIENCE_S
    async with ClientSession() as session:
        while True:
            async with session.get(f"{stage.hub_url}/metrics") as answer:
                lines = (await answer.text()).splitlines()
            online = sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("mingluo_devices_online{"))
            if online >= wanted:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{online:.0f} of {wanted} loudspeakers connected\n{stage.output('world')}")
            await asyncio.sleep(0.1)


async def _rounds(stage: Stage, townships: Sequence[str], rounds: int) -> list[tuple[float, float]]:
    """Return (last byte read → first device, request → 202) of every alert, in ms; the first one is not counted."""
    times = []
    async with ClientSession(stage.api_url, headers=HEADERS) as session:
        for number in range(rounds + 1):
            data = cap.write(red_rain(str(number), [townships[number % len(townships)]]))
            started = time.perf_counter()
            async with session.post("/v1/alerts", data=data) as answer:
                body = await answer.json()
            accepted_ms = (time.perf_counter() - started) * 1000
            if answer.status != 202 or body["route"] != "green":
                raise RuntimeError(f"the alert was answered {answer.status}: {body}")
            await _played(session, body["id"])
            if number:  # the first one also loads templates and opens connections
                times.append((body["id"], round(accepted_ms, 1)))
    writes = first_writes(stage)
    return [(writes[alert], accepted_ms) for alert, accepted_ms in times]


def first_writes(stage: Stage) -> dict[str, float]:
    """Return what the hub has logged: alert → milliseconds from its last byte read to its first device write."""
    found = {}
    log = stage.folder / f"{'hub' if stage.servers.cluster else 'serve'}.out"
    for line in log.read_text("utf8").splitlines():
        if line.startswith("{") and (event := json.loads(line))["event"] == "first_write":
            found[str(event["alert"])] = round(float(event["took_ms"]), 1)
    return found


async def _played(session: ClientSession, alert: str) -> None:
    """Wait until every device has played, so that rounds do not disturb each other."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        async with session.get(f"/v1/alerts/{alert}/status") as answer:
            status: dict[str, Any] = await answer.json()
        waiting = sum(count["recipients"] for count in status["counts"] if count["state"] != "played")
        if status["counts"] and not waiting:
            return
        await asyncio.sleep(POLL_S)
    raise RuntimeError(f"not every loudspeaker played within {PATIENCE_S:.0f} s")
