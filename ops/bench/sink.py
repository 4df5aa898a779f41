"""What every peer's program shares: the sink, the recipients, and how it is told to send. Standard library only.

Environment, set by `mingluo bench fanout`:

- `BENCH_AMQP_URL`: the broker, the same for everybody; `BENCH_QUEUE`: a queue name of this run's own;
- `BENCH_COUNTS`: a folder where each worker thread keeps the number of recipients it took, as eight bytes that the
  bench reads from outside. No result is stored and nothing is sent back, which would cost the peers more.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

URL = os.environ["BENCH_AMQP_URL"]
QUEUE = os.environ["BENCH_QUEUE"]
BYTES = 8

_mine = threading.local()


def deliver(person: int, address: str) -> None:
    """Take one recipient: nothing is done with it, and one more is counted."""
    try:
        _mine.count[0] += 1
    except AttributeError:
        _mine.count = _opened()
        _mine.count[0] += 1


def _opened() -> memoryview:
    """Make this thread's count. Called at its first recipient, so after every fork."""
    path = Path(os.environ["BENCH_COUNTS"]) / f"{os.getpid()}-{threading.get_ident()}"
    path.write_bytes(bytes(BYTES))
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), BYTES)).cast("Q")


def recipients(number: int) -> Iterator[tuple[int, str]]:
    """Yield person ids and addresses as long as a real one."""
    for person in range(number):
        yield person, f"+86100{person:08d}"


def orders() -> Iterator[int]:
    """Yield how many recipients to send to, whenever the bench asks; the first line says that we are ready."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        yield int(line)


def obey(send: Callable[[int], None]) -> None:
    """Send as often as the bench asks."""
    for number in orders():
        send(number)
