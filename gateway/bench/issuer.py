"""Issuers who post warnings over HTTP, in a process of their own: `python -m gateway.bench.issuer TASK`.

Called by `gateway.bench.intake`. The client shares the cores with the gateway it measures, so it speaks HTTP/1.1
itself, over one kept connection per issuer, and bodies differ only in an identifier put into a finished text.

Without a rate every issuer posts as fast as it is answered. With one, each posts at moments drawn by chance
(Poisson, the same in every run) and a latency counts from that moment, so that a slow answer does not thin out the load
that would have shown it slow (coordinated omission).
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from pathlib import Path
from typing import Literal

import msgspec
import uvloop

from gateway import cap
from gateway.bench.measure import ORDINALS
from gateway.bench.warning import polygon_gale, rain, yellow_gale

MARK = "IDENTIFIER"
CLOCK_TICKS = 100  # of /proc, per second, on every Linux Python runs on
Kind = Literal["gale", "rain", "polygon"]
WRITERS = {"gale": yellow_gale, "rain": rain, "polygon": polygon_gale}


class Post(msgspec.Struct, frozen=True):
    """What some issuers post, all at once. `rate` is theirs together, per second; 0: as fast as they are answered."""

    kind: Kind
    issuers: tuple[tuple[str, str], ...]
    """CAP sender and token."""
    townships: tuple[str, ...]
    rate: float = 0.0


class Task(msgspec.Struct, frozen=True):
    """What this process is to do, for how long. `label` makes its identifiers distinct from all others."""

    port: int
    pid: int
    label: str
    seconds: float
    posts: tuple[Post, ...]


class Answers(msgspec.Struct, frozen=True):
    """What one `Post` was answered: milliseconds each, every one of them 202."""

    ms: list[float]
    bytes: int
    """Of one message."""


class Posted(msgspec.Struct, frozen=True):
    """What became of the task. `cpu_s`: the gateway process's own CPU time within `seconds`."""

    seconds: float
    cpu_s: float
    answers: list[Answers]


def cpu_s(pid: int) -> float:
    """Return user and system time of a process, all threads, without its children; to a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


async def run(task: Task) -> Posted:
    """Post until the time is over.

    Raises:
        RuntimeError: something was answered otherwise than 202.
    """
    crews = [
        [_Issuer(task, f"{task.label}{crew}", post, *issuer) for issuer in post.issuers]
        for crew, post in enumerate(task.posts)
    ]
    everybody = [issuer for crew in crews for issuer in crew]
    for issuer in everybody:
        await issuer.connect()
    cpu, started = cpu_s(task.pid), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for issuer in everybody:
            group.create_task(issuer.run(started, started + task.seconds))
    ended = time.perf_counter()
    spent = cpu_s(task.pid) - cpu
    answers = [Answers([ms for one in crew for ms in one.ms], crew[0].size) for crew in crews]
    return Posted(ended - started, spent, answers)


class _Issuer:
    """One issuer: one connection, one message after the other."""

    def __init__(self, task: Task, label: str, post: Post, sender: str, token: str) -> None:
        self._port = task.port
        self._rate = post.rate / len(post.issuers)
        self._chance = random.Random(f"{label} {sender}")  # noqa: S311  # nothing here is secret
        texts = [cap.write(WRITERS[post.kind](sender, f"{label}-{MARK}", [town])) for town in post.townships]
        self._texts = [text.split(MARK.encode()) for text in texts]
        self.size = len(texts[0])
        self._head = (
            f"POST /v1/alerts HTTP/1.1\r\nHost: 127.0.0.1:{task.port}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/cap+xml\r\nContent-Length: "
        ).encode()
        self.ms: list[float] = []

    async def connect(self) -> None:
        """Open the connection."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)

    async def run(self, started: float, until: float) -> None:
        """Post until the time is over."""
        due = started
        for number in itertools.count():
            if self._rate:
                due += self._chance.expovariate(self._rate)
                await asyncio.sleep(due - time.perf_counter())
            else:
                due = time.perf_counter()
            if due >= until:
                break
            await self._post(number)
            self.ms.append(round((time.perf_counter() - due) * 1000, 2))
        self._writer.close()

    async def _post(self, number: int) -> None:
        body = f"{number:06d}".translate(ORDINALS).encode().join(self._texts[number % len(self._texts)])
        self._writer.write(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        answer = await self._reader.readexactly(int(length))
        if not head.startswith(b"HTTP/1.1 202 "):
            raise RuntimeError(f"a warning was answered {head[9:12].decode()}: {answer[:500].decode()}")


def main() -> None:
    """Do what the argument says; the result is one line."""
    task = msgspec.json.decode(sys.argv[1], type=Task)
    sys.stdout.write(msgspec.json.encode(uvloop.run(run(task))).decode() + "\n")


if __name__ == "__main__":
    main()
