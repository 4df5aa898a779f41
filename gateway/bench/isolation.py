"""Red warnings while a million bulk messages drain, and the same reds at rest: what the lanes keep apart.

Each red one goes over HTTP to the officials, loudspeakers and residents of some townships; the bulk is a yellow one to
a crowd in the other townships of the county, through the no-op channel. Idle and drain take turns within a run, each
red one ends before the next is posted, and only those count that began and ended while bulk work was open. Times are
the gateway's own, from `accepted_at` (the request's last byte was read) to

- the moment the hub had written to the loudspeakers it held, an upper bound of the first socket write;
- the moment the last official's, and the first and the last resident's, slice came back from the channel.

A cluster is measured on the servers it is given, and so is what one queue for everything costs
(`gateway.bench.fifo`).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway import cap
from gateway.bench.fifo import Fifo, fifo
from gateway.bench.first import connected, first_writes
from gateway.bench.installation import Crowd, Installation, Running, inhabited, installation
from gateway.bench.measure import Spread, SystemClock, quantile, red_rain, yellow_rain
from gateway.database import Database
from gateway.demo.stage import Servers
from gateway.directory.importer import Importer
from gateway.directory.roster import write_sample
from gateway.directory.table import Roster
from gateway.directory.vault import Vault
from gateway.model import Group
from gateway.regions import Regions
from gateway.settings import data_folder
from gateway.simulate.world import World

WARNED = 14
"""Townships of the red warnings; the crowd lives in the others."""
OFFICIALS = 2_000
RESIDENTS_SHARE = 50  # a red warning goes to this part of the crowd's number
PER_VILLAGE = 2  # loudspeakers
CHANNELS = "[noop]\n[loudspeaker_ws]\nrepeat = 1\n"
LONGEST_S = 300.0  # of one way to run: on a slow machine fewer reds than wanted must do
PAUSE_S = (0.5, 0.9)
"""Between two reds: bulk work steps aside for each (`gateway.gate`) and is at full speed again before the next."""
QUIET_S = 1.0
DRAINS = 5  # without a single red that counts
PATIENCE_S = 120.0
POLL_S = 0.05
ELSEWHERE = 10  # niceness of the loudspeakers: they are other machines, and share no core with the gateway
OPEN = (
    "SELECT (SELECT COUNT(*) FROM step WHERE alert = :alert AND finished = 0)"
    " + (SELECT COUNT(*) FROM batch WHERE alert = :alert AND unfinished > 0)"
    " + (SELECT COUNT(*) FROM device_command WHERE alert = :alert AND finished = 0)"
)
SETTLED = "SELECT COUNT(*) FROM batch WHERE alert = :alert AND settled_at IS NOT NULL"
TIMES = (
    "SELECT a.accepted_at, MIN(b.submitted_at), MAX(b.settled_at), COALESCE(SUM(b.size), 0) FROM alert a"
    " LEFT JOIN batch b ON b.alert = a.id AND b.audience = :audience WHERE a.id = :alert GROUP BY a.accepted_at"
)


Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How many there are of each."""

    crowd: int
    officials: int
    residents: int


class Red(msgspec.Struct, frozen=True):
    """One red warning, in milliseconds from its last byte read; residents per second until the last of them."""

    first_ms: float
    officials_ms: float
    residents_first_ms: float
    residents_s: float


class Condition(msgspec.Struct, frozen=True):
    """The reds of one condition."""

    alerts: int
    first_p50_ms: float
    first_p99_ms: float
    officials_p50_ms: float
    """To the last official."""
    officials_p99_ms: float
    residents_first_p50_ms: float
    residents_first_p99_ms: float
    residents_s: Spread


class Mode(msgspec.Struct, frozen=True):
    """One way to run: reds at rest, reds during the drain, and how fast the blue work drained beside them."""

    idle: Condition
    drain: Condition
    drain_s: Spread


class Ratios(msgspec.Struct, frozen=True):
    """Of one mode, drain to idle; and one FIFO queue to the mode's first device."""

    first: float
    officials: float
    residents_rate: float
    fifo: float | None = None


class Isolation(msgspec.Struct, frozen=True):
    """The result, as printed with --json."""

    recipients: int
    """Of the bulk."""
    officials: int
    residents: int
    devices: int
    embedded: Mode
    cluster: Mode | None
    fifo: Fifo | None
    ratios: dict[str, Ratios]
    bench: str = "isolation"


async def isolation(
    recipients: int = 1_000_000, alerts: int = 50, servers: Servers | None = None, say: Say = lambda _: None
) -> Isolation:
    """Measure with child processes, at least `alerts` red ones in each condition; embedded alone without servers.

    One way to run takes `LONGEST_S` and a drain at most, and ends then with the reds it has.

    Raises:
        RuntimeError: a child failed, or a warning did not reach everybody.
    """
    size = Size(recipients, min(OFFICIALS, recipients), max(1, recipients // RESIDENTS_SHARE))
    embedded, devices = await _mode(None, size, alerts, lambda text: say(f"embedded: {text}"))
    cluster = line = None
    if servers:
        cluster, _ = await _mode(servers, size, alerts, lambda text: say(f"cluster: {text}"))
        say(f"one FIFO queue: {alerts} reds behind {recipients:,} messages, one by one and by the thousand")
        line = await fifo(servers.amqp, recipients, alerts)
    ratios = {name: _ratios(mode, line) for name, mode in (("embedded", embedded), ("cluster", cluster)) if mode}
    return Isolation(recipients, size.officials, size.residents, devices, embedded, cluster, line, ratios)


def _ratios(mode: Mode, line: Fifo | None) -> Ratios:
    idle, drain = mode.idle, mode.drain
    return Ratios(
        _share(drain.first_p50_ms, idle.first_p50_ms),
        _share(drain.officials_p50_ms, idle.officials_p50_ms),
        _share(drain.residents_s.median, idle.residents_s.median),
        _share(line.each.p50_ms, drain.first_p50_ms) if line else None,
    )


def _share(one: float, other: float) -> float:
    return float(f"{one / other:.3g}")


async def _mode(servers: Servers | None, size: Size, alerts: int, say: Say) -> tuple[Mode, int]:
    """Measure one way to run; return also the number of loudspeakers."""
    towns = inhabited()
    warned, others = towns[:WARNED], towns[WARNED:]
    crowds = [
        Crowd(size.crowd, others), Crowd(size.residents, warned), Crowd(size.officials, warned, Group.OFFICIALS)
    ]  # fmt: skip
    say(f"writing {size.crowd + size.residents:,} residents")
    async with installation(servers, crowds) as place:
        devices, number = await _loudspeakers(place, warned)
        async with place.running(lanes=True, log_level="info") as gateway:
            stage = gateway.stage
            await stage.start_world(
                World(stage.hub_url, stage.api_url, str(devices), offline=0.0, failing=0.0, play_s=0.05)
            )
            os.setpriority(os.PRIO_PROCESS, stage.processes["world"].pid, ELSEWHERE)
            await connected(stage, number)
            return await _Bench(gateway, size, warned, others, say).run(alerts), number


async def _loudspeakers(place: Installation, townships: Sequence[str]) -> tuple[Path, int]:
    """Give the villages their loudspeakers; return the table of their names and keys, and how many there are."""
    regions = Regions.load(data_folder("config") / "regions")
    (place.folder / "channels.toml").write_text(CHANNELS, encoding="utf8")
    roster = place.folder / "roster"
    sample = write_sample(roster, regions, 0, 1, devices_per_village=PER_VILLAGE, townships=townships)
    database = Database(place.servers.database or f"sqlite:///{place.folder / 'data' / 'mingluo.db'}")
    await database.open()
    try:
        importer = Importer(database, Vault.of(place.secret_key, place.folder / "data"), regions, SystemClock())
        with sample.devices.open("rb") as stream:
            return sample.devices, (await importer.read(stream, Roster.DEVICES)).added
    finally:
        await database.close()


class _Bench:
    """Idle and drain, in turns, in one running installation."""

    def __init__(
        self, gateway: Running, size: Size, warned: Sequence[str], others: Sequence[str], say: Say
    ) -> None:  # fmt: skip
        self._gateway = gateway
        self._size = size
        self._warned = warned
        self._others = others
        self._say = say
        self._posted = 0
        self._chance = random.Random(1)  # noqa: S311  # a bench repeats itself

    async def run(self, alerts: int) -> Mode:
        """Measure until both conditions have as many reds as wanted, or `LONGEST_S` is over."""
        await self._gateway.sealed()
        await self._idle()  # loads templates and opens connections
        idle: list[str] = []
        drain: list[str] = []
        rates: list[float] = []
        over = time.monotonic() + LONGEST_S
        while len(drain) < alerts and time.monotonic() < over:
            found, rate = await self._drain()
            drain += found
            rates.append(rate)
            while len(idle) < max(1, len(drain)):
                idle.append(await self._idle())
            self._say(f"{len(drain)} of {alerts} reds beside bulk work, which was {rate:,.0f}/s")
            if not drain and len(rates) == DRAINS:
                break
        if not drain:
            raise RuntimeError(f"{self._size.crowd} messages are through before a red one is: ask for more")
        writes = first_writes(self._gateway.stage)
        return Mode(self._condition(idle, writes), self._condition(drain, writes), Spread.of(rates))

    async def _drain(self) -> tuple[list[str], float]:
        """Post the bulk, and reds until it is through; return the reds, and the bulk messages per second."""
        reds: list[str] = []
        bulk = await self._gateway.submit(cap.write(yellow_rain(self._number(), self._others)))
        await self._until(lambda: self._one(SETTLED, alert=bulk)[0] > 0)
        while True:
            red = await self._red()
            if self._one(OPEN, alert=bulk)[0] == 0:
                break  # it may have ended before this one
            reds.append(red)
            await self._rest()
        accepted, _, settled, number = self._one(TIMES, alert=bulk, audience=Group.RESIDENTS.value)
        if number != self._size.crowd:
            raise RuntimeError(f"the bulk went to {number} of {self._size.crowd}")
        await asyncio.sleep(QUIET_S)
        return reds, self._size.crowd / (settled - accepted) * 1e6

    async def _red(self) -> str:
        """Post one and wait until everybody is served and every loudspeaker has played."""
        alert = await self._gateway.submit(cap.write(red_rain(self._number(), self._warned)))
        await self._until(lambda: self._one(OPEN, alert=alert)[0] == 0)
        return alert

    async def _idle(self) -> str:
        """Post one at rest, and rest."""
        alert = await self._red()
        await self._rest()
        return alert

    async def _rest(self) -> None:
        await asyncio.sleep(self._chance.uniform(*PAUSE_S))

    def _number(self) -> str:
        self._posted += 1
        return str(self._posted)

    def _one(self, statement: str, **values: object) -> tuple[Any, ...]:
        return self._gateway.rows(statement, **values)[0]

    async def _until(self, there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not there():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the gateway did not get there in {PATIENCE_S:.0f} s")
            await asyncio.sleep(POLL_S)

    def _condition(self, alerts: Sequence[str], writes: Mapping[str, float]) -> Condition:
        reds = [self._times(alert, writes[alert]) for alert in alerts]
        first = [red.first_ms for red in reds]
        officials = [red.officials_ms for red in reds]
        residents = [red.residents_first_ms for red in reds]
        return Condition(
            len(reds),
            quantile(first, 0.5), quantile(first, 0.99),
            quantile(officials, 0.5), quantile(officials, 0.99),
            quantile(residents, 0.5), quantile(residents, 0.99),
            Spread.of(red.residents_s for red in reds),
        )  # fmt: skip

    def _times(self, alert: str, first_ms: float) -> Red:
        """Read one from the ledger.

        Raises:
            RuntimeError: it did not go to everybody.
        """
        accepted, _, officials, number = self._one(TIMES, alert=alert, audience=Group.OFFICIALS.value)
        _, begun, ended, residents = self._one(TIMES, alert=alert, audience=Group.RESIDENTS.value)
        if (number, residents) != (self._size.officials, self._size.residents):
            raise RuntimeError(f"a red warning went to {number} officials and {residents} residents")
        return Red(
            first_ms,
            round((officials - accepted) / 1e3, 1),
            round((begun - accepted) / 1e3, 1),
            self._size.residents / (ended - accepted) * 1e6,
        )
