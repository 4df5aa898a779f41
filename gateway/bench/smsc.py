"""The carriers of `mingluo bench carriers`, in one process of their own: `python -m gateway.bench.smsc TASK`.

They are the simulated carriers without their log, which would make the disk what is measured: what they took is
counted. Their ports, then counts as they change, are lines of JSON on standard output. SIGTERM ends it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from gateway.simulate.carrier import PROTOCOLS, Account, Carrier, Scenario
from gateway.simulate.carrier.session import Session, Submit
from gateway.simulate.log import Log

LOGIN, SECRET, SOURCE = "900001", "bench-secret", "10690001"  # invented
TELL_S = 0.05
AT_ONCE = 20  # submits whose held reports leave before anything else has a turn


class Task(msgspec.Struct, frozen=True):
    """What the process is to do: protocol → where the gateway listens, "" if it does not."""

    listeners: dict[str, str]
    connections: int = 1
    scenario: dict[str, Any] = {}
    held: int = 0
    """Delivery reports wait until so many messages were taken."""
    marked: str = ""
    """Numbers from here on are of the people whose submits are timed."""


class Counts(msgspec.Struct):
    """What came and went so far, in numbers times parts; moments are Unix time, 0 before the first."""

    pdus: int = 0
    taken: int = 0
    refused: int = 0
    acknowledged: int = 0
    sent_at: float = 0.0
    """When the first report left."""
    acknowledged_at: float = 0.0
    marks: int = 0
    marked_at: float = 0.0
    marked_last_at: float = 0.0
    last_at: float = 0.0


class Counting(Carrier):
    """A carrier that counts instead of writing a log, and holds its reports back."""

    def __init__(self, protocol: str, account: Account, task: Task, counts: Counts) -> None:
        scenario = msgspec.convert(task.scenario, Scenario)
        super().__init__(PROTOCOLS[protocol], Log(Path(os.devnull)), [account], scenario)
        self._counts = counts
        self._marked = task.marked
        self._until = task.held
        self._held: deque[tuple[Session, Submit, int, float]] = deque()

    def note(self, kind: str, **fields: object) -> None:
        """Count what is told of."""
        counts = self._counts
        if kind == "submit":
            self._took(fields["numbers"])
        elif kind == "ack":
            counts.acknowledged += 1
            counts.acknowledged_at = time.time()
        elif kind == "refused":
            counts.refused += 1

    def _took(self, numbers: Any) -> None:
        counts, now = self._counts, time.time()
        counts.pdus += 1
        counts.taken += len(numbers)
        counts.last_at = now
        if self._marked and numbers[0][-11:] >= self._marked:
            counts.marks += len(numbers)
            counts.marked_at, counts.marked_last_at = counts.marked_at or now, now

    def report(self, session: Session, submit: Submit, key: int, delay_s: float = 0.0) -> None:
        """Report, or hold it back."""
        if self._counts.taken < self._until or self._held:
            self._held.append((session, submit, key, delay_s))
        else:
            super().report(session, submit, key, delay_s)

    async def release(self) -> None:
        """Let go what is held, a little at a time."""
        self._counts.sent_at = time.time()
        while self._held:
            for _ in range(min(AT_ONCE, len(self._held))):
                super().report(*self._held.popleft())
            await asyncio.sleep(0)


async def run(task: Task) -> None:
    """Stay until terminated."""
    counts, ended = Counts(), asyncio.Event()
    loop = asyncio.get_running_loop()
    carriers = {
        name: Counting(name, Account(LOGIN, SECRET, task.connections, SOURCE, listener), task, counts)
        for name, listener in task.listeners.items()
    }
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    _say({name: await carrier.start() for name, carrier in carriers.items()})
    told = Counts()
    while not ended.is_set():
        if task.held and counts.taken >= task.held and not counts.sent_at:
            await asyncio.gather(*(one.release() for one in carriers.values()))
        if counts != told:
            told = msgspec.structs.replace(counts)
            _say(told)
        await asyncio.sleep(TELL_S)
    for carrier in carriers.values():
        await carrier.stop()


def _say(what: object) -> None:
    print(msgspec.json.encode(what).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Task)))
