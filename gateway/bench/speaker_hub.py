"""The hub of `mingluo bench speakers`: a whole embedded gateway in one process, with devices of its own.

Batches for any number of devices are put into the store as a planner does, in one transaction, so that the moment the
hub has them is known; warnings over HTTP take the ordinary way. `python -m gateway.bench.speaker_hub FOLDER DEVICES`.
"""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import sys
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop

from gateway import log
from gateway.app import App, collect_seldom
from gateway.bench.measure import ISSUER, SystemClock, configuration, red_rain
from gateway.bench.partner import obey
from gateway.bench.speaker_fleet import KEY, lift_limit
from gateway.bench.usage import anonymous_bytes
from gateway.database import Database
from gateway.directory.importer import Importer
from gateway.directory.table import Roster
from gateway.directory.vault import Vault
from gateway.model import Audience, Batch, Group, Lane, Notice, Plan, Record, Step, Target
from gateway.planner import BATCH, cut
from gateway.ports import Draft, Page
from gateway.regions import Regions
from gateway.settings import Settings, data_folder

CHANNEL = "loudspeaker_ws"
OPEN = (
    "SELECT (SELECT COUNT(*) FROM device_command WHERE finished = 0)"
    " + (SELECT COUNT(*) FROM device_order WHERE state = 'open')"
    " + (SELECT COUNT(*) FROM device_state WHERE online = 1 AND volume_policy = '')"
)
PATIENCE_S = 120.0
POLL_S = 0.02


async def populate(data: Path, devices: int) -> None:
    """Import that many loudspeakers, spread over the villages of the county."""
    regions = Regions.load(data_folder("config") / "regions")
    villages = [village.code for town in regions.children(ISSUER[:6]) for village in regions.villages(town.code)]
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(("name", "village", "key"))
    rows.writerows((f"horn-{number}", villages[number % len(villages)], KEY) for number in range(devices))
    database = Database(f"sqlite:///{data / 'mingluo.db'}")
    await database.open()
    importer = Importer(database, Vault.of("", data), regions, SystemClock())
    await importer.read(io.BytesIO(table.getvalue().encode()), Roster.DEVICES)
    await database.close()


class Desk:
    """What the hub's process can be asked."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._played = 0
        self._devices: list[tuple[str, int]] = []

    async def port(self) -> int:
        """Where it listens."""
        return self._app.port

    async def play(self, devices: int) -> float:
        """Give the hub a red warning for the first so many devices; return the moment it was woken."""
        draft = await self._draft(devices)
        if (done := await self._app.store.outbox.accept(draft)).result != "accepted":
            raise RuntimeError(f"the warning was not accepted: {done.result}")
        began = time.monotonic()
        for hub in self._app.hubs.values():
            hub.wake()
        return began

    async def _draft(self, devices: int) -> Draft:
        if not self._devices:
            rows = await self._app.store.database.read(lambda tx: tx.all("SELECT name, village, id FROM device"))
            named = sorted((int(name.rpartition("-")[2]), village, one) for name, village, one in rows)
            self._devices = [(village, one) for _, village, one in named]
        towns: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for village, one in sorted(self._devices[:devices]):
            towns[village[:9]].append((village, one))
        self._played += 1
        now, targets = datetime.now(UTC), tuple(Target(town) for town in sorted(towns))
        expires = now + timedelta(hours=3)
        alert = replace(red_rain(f"9{self._played}", sorted(towns)), expires=expires)
        step = Step(1, Audience(targets, Group.LOUDSPEAKERS, CHANNEL), Notice.ISSUE, Lane.GREEN, now, expires)
        batches: list[Batch] = []
        for town, members in towns.items():
            for start in range(0, len(members), BATCH):
                some = members[start : start + BATCH]
                villages, ids = zip(*some, strict=True)
                page = Page(town, ids, ("",) * len(some), villages)
                batches.append(cut(alert.id, step, len(batches), page, 0))
        plan = Plan(alert.id, "green", ("bench",), targets, (), (step,))
        return Draft(
            alert, alert.id, plan, batches, {1: None}, [Record(now, ISSUER, "accept", alert.id)], {}, now, ISSUER
        )

    async def settled(self) -> float:
        """Wait until no device has an unfinished command or order, or is still to be ordered; return the moment."""
        deadline = time.monotonic() + PATIENCE_S
        while (await self._app.store.database.read(lambda tx: tx.all(OPEN)))[0][0]:
            if time.monotonic() > deadline:
                raise RuntimeError("loudspeakers have not reported on what they were told")
            await asyncio.sleep(POLL_S)
        return time.monotonic()

    async def held(self, devices: int) -> float:
        """Wait until the hub holds that many; return the moment."""
        hub = self._app.channels[CHANNEL]
        deadline = time.monotonic() + PATIENCE_S
        while (held := len(hub.held())) != devices:  # type: ignore[attr-defined]  # Sockets
            if time.monotonic() > deadline:
                raise RuntimeError(f"the hub holds {held} of {devices} loudspeakers")
            await asyncio.sleep(POLL_S)
        return time.monotonic()

    async def spent(self, seconds: float) -> float:
        """Return the CPU time of this process over the next so many seconds."""
        began = time.process_time()
        await asyncio.sleep(seconds)
        return time.process_time() - began

    async def memory(self) -> int:
        """Return this process's own memory in bytes."""
        gc.collect()
        return anonymous_bytes()


async def run(folder: Path, devices: int) -> None:
    """Serve until nobody asks any more."""
    data = folder / "data"
    data.mkdir()
    (folder / "channels.toml").write_text(f"[{CHANNEL}]\n", encoding="utf8")
    await populate(data, devices)
    settings = Settings(
        data=data, config=configuration(folder), channels=folder / "channels.toml", port=0, log_level="warning"
    )
    log.configure(settings.log_level)
    async with App(settings) as app:
        collect_seldom()  # as every process of the gateway does
        desk = Desk(app)
        names = ("port", "play", "settled", "held", "spent", "memory")
        await obey({name: getattr(desk, name) for name in names})


if __name__ == "__main__":
    lift_limit()
    uvloop.run(run(Path(sys.argv[1]), int(sys.argv[2])))
