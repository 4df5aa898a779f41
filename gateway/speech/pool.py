"""The gateway's side of the workers that make sound: few of them, each job with a time limit, the dead replaced.

Called by `speech.Speech`, doctor and the command line. A worker is started with its first job and kept, for loading
takes most of a second. One that is too slow is killed with all it started, and its job fails; the job of one that
has died is given once more to a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from heapq import heappop, heappush
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import msgspec

from gateway.errors import MingluoError
from gateway.speech.announcement import Job, Made, Order
from gateway.speech.chime import TONES

WORKERS = 2
LIMIT_S = 60.0
LIBRARIES = ("espeakng_loader", "pypinyin", "soundfile")
INSTALL = "pip install 'mingluo[speech]'"


class SpeechFailed(MingluoError):
    """No sound was made; `code` says why, and holds no word of the text."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def missing() -> list[str]:
    """Return the libraries of the extra that are not installed; with any missing there is no speech."""
    return [name for name in LIBRARIES if not _installed(name)]


class Pool:
    """Workers that read with the tables of one configuration folder."""

    def __init__(self, config: Path, limit_s: float = LIMIT_S, workers: int = WORKERS) -> None:
        self._config = config
        self._limit_s = limit_s
        self._turns = _Turns(workers)
        self._idle: list[asyncio.subprocess.Process] = []
        self._all: set[asyncio.subprocess.Process] = set()

    async def make(self, order: Order, out: Path | None = None) -> float:
        """Make one announcement, into a file (absolute path) if one is given; return its duration in seconds.

        Raises:
            SpeechFailed: it could not be made.
        """
        job = msgspec.json.encode(Job(order, str(out) if out else ""))
        await self._turns.take(TONES.index(order.tone))
        try:
            answer = await self._answer(job) or await self._answer(job)
        finally:
            self._turns.give()
        if answer is None:
            raise SpeechFailed("worker_died")
        if answer.error:
            raise SpeechFailed(answer.error)
        return answer.duration_s

    async def close(self) -> None:
        """End all workers."""
        self._idle.clear()
        for process in list(self._all):
            await self._end(process)

    async def _answer(self, job: bytes) -> Made | None:
        """Return a worker's answer; None: it has died, which is no fault of a job that runs in a fork of it."""
        process = self._idle.pop() if self._idle else await self._start()
        try:
            answer = await self._ask(process, job)
        except BaseException:  # also where the caller was cancelled: the worker is in the midst of something
            await self._end(process)
            raise
        if answer is None:
            await self._end(process)
        else:
            self._idle.append(process)
        return answer

    async def _ask(self, process: asyncio.subprocess.Process, job: bytes) -> Made | None:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._limit_s):
                process.stdin.write(job + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError:
            raise SpeechFailed("too_slow") from None
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        return msgspec.json.decode(line, type=Made) if line.endswith(b"\n") else None

    async def _start(self) -> asyncio.subprocess.Process:
        # The worker needs no secret of ours, and one thread.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MINGLUO_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.speech.worker", str(self._config.absolute()),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env=environment | {"OPENBLAS_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip
        self._all.add(process)
        return process

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Kill a worker and its fork; wait until its pipes are closed."""
        self._all.discard(process)
        with contextlib.suppress(ProcessLookupError):  # it has died by itself
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


class _Turns:
    """So many at a time, the most urgent next: a red warning waits for no drill and no blue one that has not begun."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = count()

    async def take(self, rank: int) -> None:
        """Wait for a turn; a lower rank goes first, equal ones as they came."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (rank, next(self._count), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came at the same moment
                self.give()
            raise

    def give(self) -> None:
        """Let the next one have the turn."""
        while self._waiting:
            turn = heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # set to None in sys.modules: blocked
        return False
