"""The peers of `mingluo bench fanout`: what they are, how they run, and one round of each. Nothing here imports them.

Their programs stand in `ops/bench/`, one folder each; a library among them has a virtual environment there, made by
`ops/bench/setup.sh`. A worker and a producer run as processes of their own; a few recipients pass first, so that
everybody is connected and warm before the clock starts. Whoever took a recipient counts it in shared memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aio_pika

from gateway.bench import usage
from gateway.bench.measure import ENDING_S, Round, environment

FOLDER = Path(__file__).parents[2] / "ops" / "bench"
WARM = 200  # recipients before the clock starts
START_S = 60.0
PATIENCE_S = 300.0
POLL_S = 0.005
PRODUCER = ("python", "peer.py")


class PeerError(Exception):
    """A peer did not start, ended, or did not get done; holds the end of what it wrote."""


@dataclass(frozen=True)
class Peer:
    """One way to send: its name in the result and in tables, its folder, its worker's command, to how many it sends.

    `queues` are the names it declares and `exchanges` those it makes, both behind the run's own prefix.
    """

    name: str
    title: str
    folder: str
    worker: tuple[str, ...]
    recipients: int
    mode: str = ""
    queues: tuple[str, ...] = ("",)
    exchanges: tuple[str, ...] = ()

    @property
    def environment(self) -> Path | None:
        """Where its own virtual environment is; None for a program that runs in ours."""
        home = FOLDER / self.folder
        return home / ".venv" if (home / "requirements.lock").exists() else None

    def missing(self) -> str:
        """Return why it cannot run here, or nothing."""
        if not (FOLDER / self.folder / "peer.py").exists():
            return "ops/bench is only in a checkout"
        own = self.environment
        return "" if own is None or (own / ".setup-stamp").exists() else "not installed: run ops/bench/setup.sh"


_CELERY = (
    "celery", "-A", "peer", "worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "WARNING",
    "--without-gossip", "--without-mingle", "--without-heartbeat",
)  # fmt: skip
PEERS = (
    Peer("raw", "raw limit: the same batches, no ledger", "raw", ("python", "peer.py", "consume"), 1_000_000),
    Peer("celery", "Celery, prefork, 2 workers", "celery", _CELERY, 20_000, exchanges=("",)),
    Peer("celery_confirms", "Celery, publisher confirms, late ack", "celery", _CELERY, 5_000, "confirms",
         exchanges=("",)),
    Peer("celery_chunks", "Celery, chunks of 1,000", "celery", _CELERY, 200_000, "chunks", exchanges=("",)),
    Peer("dramatiq", "Dramatiq, 2 processes", "dramatiq",
         ("dramatiq", "peer", "--processes", "2", "--threads", "4"), 20_000, queues=("", ".DQ", ".XQ")),
    Peer("taskiq", "taskiq, taskiq-aio-pika, 2 workers", "taskiq",
         ("taskiq", "worker", "peer:broker", "--workers", "2", "--log-level", "WARNING"), 20_000,
         queues=("", ".dead_letter"), exchanges=("",)),
    Peer("faststream", "FastStream, RabbitMQ, 2 workers", "faststream",
         ("faststream", "run", "peer:app", "--workers", "2", "--log-level", "warning"), 20_000),
)  # fmt: skip
"""In the order of a round. Where each recipient is a message of its own, fewer are sent: the rate is what counts."""


async def install() -> str:
    """Make the virtual environments that are missing; return why that failed, or nothing."""
    script = FOLDER / "setup.sh"
    if not script.exists():
        return "ops/bench is only in a checkout"
    process = await asyncio.create_subprocess_exec(script, stdin=asyncio.subprocess.DEVNULL, env=environment())
    return "" if await process.wait() == 0 else f"ops/bench/setup.sh ended with {process.returncode}"


async def measure(peer: Peer, amqp: str, most: int, queue: str = "") -> Round:
    """Run a peer once over the broker at `amqp`, to at most `most` recipients; its names begin with `queue`.

    Raises:
        PeerError: a process ended or took too long.
    """
    number = min(peer.recipients, most)
    with tempfile.TemporaryDirectory(prefix="mingluo-bench-", ignore_cleanup_errors=True) as temporary:
        run = _Run(peer, amqp, queue or f"bench-{secrets.token_hex(4)}", Path(temporary))
        try:
            async with run.process(peer.worker), run.process(PRODUCER) as producer:
                return await run.measure(producer, number)
        finally:
            await run.forget()


class _Run:
    """Worker and producer of one round."""

    def __init__(self, peer: Peer, amqp: str, queue: str, folder: Path) -> None:
        self._peer = peer
        self._amqp = amqp
        self._folder = folder
        self._queue = queue
        self._processes: list[asyncio.subprocess.Process] = []
        (folder / "counts").mkdir()

    @asynccontextmanager
    async def process(self, command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run one program of the peer in its environment and end it with its children."""
        home, own = FOLDER / self._peer.folder, self._peer.environment
        program = own / "bin" / command[0] if own else Path(sys.executable)
        variables = environment() | {
            "PYTHONPATH": os.pathsep.join([str(home), str(FOLDER), *([] if own else [str(FOLDER.parents[1])])]),
            "BENCH_AMQP_URL": self._amqp,
            "BENCH_QUEUE": self._queue,
            "BENCH_MODE": self._peer.mode,
            "BENCH_COUNTS": str(self._folder / "counts"),
        }
        with (self._folder / "output").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                program, *command[1:], cwd=home, env=variables,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE if command is PRODUCER else output,
                stderr=output, start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        try:
            yield process
        finally:
            await _ended(process)

    async def measure(self, producer: asyncio.subprocess.Process, number: int) -> Round:
        """Warm up, send, and wait until everybody was taken."""
        assert producer.stdin is not None
        assert producer.stdout is not None
        ready = b""
        with contextlib.suppress(TimeoutError):
            ready = await asyncio.wait_for(producer.stdout.readline(), START_S)
        if ready != b"ready\n":
            raise PeerError(f"{self._peer.name} did not start\n{self._said()}")
        await self._send(producer.stdin, WARM)
        await self._until(WARM, START_S)
        pids = [process.pid for process in self._processes]
        cpu, machine, started = usage.cpu_s(pids), usage.machine_cpu_s(), time.perf_counter()
        await self._send(producer.stdin, number)
        await self._until(WARM + 1, PATIENCE_S)
        first_s = time.perf_counter() - started
        await self._until(WARM + number, PATIENCE_S)
        return Round(
            number, time.perf_counter() - started, first_s, usage.cpu_s(pids) - cpu, usage.machine_cpu_s() - machine,
            {name: usage.peak_mib(pid) for name, pid in zip(("worker", "producer"), pids, strict=True)},
        )  # fmt: skip

    async def _send(self, to: asyncio.StreamWriter, number: int) -> None:
        to.write(f"{number}\n".encode())
        await to.drain()

    async def _until(self, number: int, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while (taken := self._taken()) < number:
            if any(process.returncode is not None for process in self._processes):
                raise PeerError(f"a process of {self._peer.name} ended\n{self._said()}")
            if time.monotonic() > deadline:
                raise PeerError(f"{self._peer.name} took {taken} of {number} in {patience_s:.0f} s\n{self._said()}")
            await asyncio.sleep(POLL_S)

    def _taken(self) -> int:
        return sum(int.from_bytes(path.read_bytes(), sys.byteorder) for path in (self._folder / "counts").iterdir())

    def _said(self) -> str:
        return "\n".join((self._folder / "output").read_text(errors="replace").splitlines()[-15:])

    async def forget(self) -> None:
        """Remove what the peer declared."""
        async with await aio_pika.connect(self._amqp) as connection, connection.channel() as channel:
            for suffix in self._peer.queues:
                await channel.queue_delete(f"{self._queue}{suffix}")
            for suffix in self._peer.exchanges:
                await channel.exchange_delete(f"{self._queue}{suffix}")


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End a process politely, then whatever is left of its group."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), ENDING_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
