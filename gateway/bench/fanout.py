"""Recipients per second through the no-op channel: freezing, claim, render, expiry, pacing and settle all run.

The parent writes the residents into a fresh embedded database; the gateway then runs as a process of its own
(`python -m gateway.bench.fanout`), so that CPU time and memory are the gateway's alone. Two figures per round:

- `fanout`: an alert is accepted, its audience is frozen page by page and delivered at the same time;
- `delivery`: the batches were frozen while the channel was halted, so only the delivery pipeline counts.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import uvloop

from gateway import cap, log
from gateway.app import App
from gateway.bench.measure import COUNTY, ISSUER, Spread, answer, configuration, red_rain
from gateway.bench.people import write_people
from gateway.database import micros
from gateway.model import Batch, Record
from gateway.policy import Principal
from gateway.settings import Settings

POLL_S = 0.02
QUIET_S = 0.5  # after a halt: what the broker still had has been refused by then
PATIENCE_S = 300.0
CHANNEL = "noop"


class Task(msgspec.Struct, frozen=True):
    """What the child is to do."""

    folder: str
    recipients: int
    rounds: int
    delivery: bool


class Round(msgspec.Struct, frozen=True):
    """One alert. Seconds from its acceptance; `planned_s` and `first_s` only where planning was measured."""

    settled_s: float
    cpu_s: float
    planned_s: float = 0.0
    first_s: float = 0.0


class Measured(msgspec.Struct, frozen=True):
    """What the child found."""

    fanout: list[Round]
    delivery: list[Round]
    peak_rss_mib: float


class Delivery(msgspec.Struct, frozen=True):
    """The pipeline alone: the batches were frozen before the clock started."""

    recipients_s: Spread
    cpu_s_per_million: Spread


class Fanout(msgspec.Struct, frozen=True):
    """The result, as printed with --json."""

    recipients: int
    rounds: int
    recipients_s: Spread
    planned_s: Spread
    plan_to_settle_s: Spread
    first_s: Spread
    cpu_s_per_million: Spread
    peak_rss_mib: float
    delivery: Delivery | None
    bench: str = "fanout"


async def fanout(recipients: int = 100_000, rounds: int = 3, *, delivery: bool = True) -> Fanout:
    """Measure in child processes.

    Raises:
        RuntimeError: the child failed; its log is on standard error.
    """
    with tempfile.TemporaryDirectory(prefix="mingluo-bench-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        configuration(folder)
        (folder / "channels.toml").write_text(f"[{CHANNEL}]\n", encoding="utf8")
        await write_people(folder / "data", recipients)
        task = Task(temporary, recipients, rounds, delivery)
        found = msgspec.json.decode(
            await answer("gateway.bench.fanout", msgspec.json.encode(task).decode()), type=Measured
        )
    return result(recipients, found)


def result(recipients: int, found: Measured) -> Fanout:
    """Return the figures of a run."""
    whole, pipeline = found.fanout, found.delivery
    million = recipients / 1e6
    return Fanout(
        recipients,
        len(whole),
        Spread.of(recipients / one.settled_s for one in whole),
        Spread.of(one.planned_s for one in whole),
        Spread.of(one.settled_s - one.planned_s for one in whole),
        Spread.of(one.first_s for one in whole),
        Spread.of(one.cpu_s / million for one in whole),
        round(found.peak_rss_mib, 1),
        Delivery(
            Spread.of(recipients / one.settled_s for one in pipeline),
            Spread.of(one.cpu_s / million for one in pipeline),
        )
        if pipeline
        else None,
    )


# --- in the child ---------------------------------------------------------------------------------


async def measure(task: Task) -> Measured:
    """Run the gateway and all rounds."""
    folder = Path(task.folder)
    settings = Settings(
        data=folder / "data", config=folder / "config", channels=folder / "channels.toml", port=0, log_level="warning"
    )
    whole, pipeline = [], []
    async with App(settings) as app:
        bench = _Bench(app, task.recipients)
        for _ in range(task.rounds):
            whole.append(await bench.fanout())
            if task.delivery:
                pipeline.append(await bench.delivery())
    return Measured(whole, pipeline, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


class _Bench:
    """Rounds in a running gateway."""

    def __init__(self, app: App, recipients: int) -> None:
        self._app = app
        self._recipients = recipients
        self._townships = [one.code for one in app.core.regions.children(COUNTY)]
        self._count = 0

    async def fanout(self) -> Round:
        """Accept an alert and wait until everybody is settled."""
        cpu, started, received = time.process_time(), time.perf_counter(), datetime.now(UTC)
        alert = await self._submit()
        await self._settled(alert)
        settled_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
        planned, first = await self._moments(alert)
        return Round(settled_s, cpu_s, (planned - micros(received)) / 1e6, (first - micros(received)) / 1e6)

    async def delivery(self) -> Round:
        """Freeze the audience behind a halt, lift it, and wait until everybody is settled."""
        await self._halt(on=True)
        alert = await self._submit()
        batches = await self._frozen(alert)
        await self._halt(on=False)
        cpu, started = time.process_time(), time.perf_counter()
        self._app.relay.offer(batches)  # from memory, as after the commit of a page
        await self._settled(alert)
        return Round(time.perf_counter() - started, time.process_time() - cpu)

    async def _submit(self) -> str:
        self._count += 1
        data = cap.write(red_rain(str(self._count), self._townships))
        outcome = await self._app.core.intake.submit(data, Principal("bench", "issuer", ISSUER, True))
        if outcome.result != "accepted" or outcome.route != "green":
            raise RuntimeError(f"the alert was {outcome.result} by the route {outcome.route}: {outcome.held}")
        return outcome.alert

    async def _settled(self, alert: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while await self._delivered(alert) < self._recipients:
            if time.monotonic() > deadline:
                raise RuntimeError(f"not settled in {PATIENCE_S:.0f} s")
            await asyncio.sleep(POLL_S)

    async def _delivered(self, alert: str) -> int:
        """Recipients delivered; asked of the ledger's cheap sums until those say that nothing is open."""
        done = await self._app.core.store.database.read(
            lambda tx: tx.one(
                "SELECT COALESCE(SUM(size), 0) FROM batch WHERE alert = :alert AND unfinished = 0", alert=alert
            )
        )
        if done is None or int(done[0]) < self._recipients:
            return 0
        counts = await self._app.core.store.ledger.counts(alert)
        return sum(number for (_, _, state), number in counts.items() if state == "delivered")

    async def _moments(self, alert: str) -> tuple[int, int]:
        """When the last batch was frozen and the first slice settled, in microseconds since the epoch."""
        row = await self._app.core.store.database.read(
            lambda tx: tx.one("SELECT MAX(created_at), MIN(submitted_at) FROM batch WHERE alert = :alert", alert=alert)
        )
        assert row is not None
        return int(row[0]), int(row[1])

    async def _halt(self, *, on: bool) -> None:
        record = Record(datetime.now(UTC), "bench", "halt" if on else "release", CHANNEL)
        await self._app.core.store.outbox.halt(CHANNEL, on, record)

    async def _frozen(self, alert: str) -> list[Batch]:
        """Wait until every step is exhausted and the broker is empty; return the batches."""
        store, deadline = self._app.core.store, time.monotonic() + PATIENCE_S
        while await store.outbox.work(1) or any((await self._app.core.broker.depths()).values()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"not frozen in {PATIENCE_S:.0f} s")
            await asyncio.sleep(POLL_S)
        await asyncio.sleep(QUIET_S)
        batches: list[Batch] = []
        while page := await store.ledger.batches(alert, after=batches[-1].id if batches else ""):
            batches += [batch for batch, _ in page]
        return batches


def main() -> None:
    """Do what the argument says; the result is one line."""
    log.configure("warning")
    task = msgspec.json.decode(sys.argv[1], type=Task)
    sys.stdout.write(msgspec.json.encode(uvloop.run(measure(task))).decode() + "\n")


if __name__ == "__main__":
    main()
