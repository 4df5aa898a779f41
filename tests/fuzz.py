"""A fuzzer for anything that reads bytes: damaged seeds, in a child with bounds, the same ones for the same number.

    fuzz("test_cap_fuzz:xml", seeds, rounds=2000)

The child first reads the seeds as they are (an ordinary one first: it sets the scale for memory), then `rounds`
damaged ones. It fails on an exception (the read function
also asserts what it likes), on more than `grow_mib` of memory beyond what it began with, and on more than `cpu_s`
of its own processor time for one input: the kernel's signal ends it even inside a C library. Time spent waiting for a
busy machine does not count, and the bound is some hundred times what an input takes, so it tells a hang from
slowness and nothing finer. What failed is made again from its number and named.

Standalone, for a night: `python -m tests.fuzz test_cap_fuzz:xml FOLDER-OF-SEEDS --rounds 1000000 --first 2000`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

MAX_BYTES = 64 * 1024
"""Of one damaged input. What only size makes slow is a case of its own; give it as a seed, with rounds=0."""
CPU_S = 1.0
GROW_MIB = 200
_TOKENS = (
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\x80", b"\x1a", b"\r",
    b"\n", b"<", b">", b"&", b"&amp;", b"&#0;", b"&#x110000;", b"&x;", b"]]>", b"<![CDATA[", b"<!--", b"-->", b"<?x",
    b"?>", b"<!DOCTYPE a [<!ENTITY x \"y\">]>", b" xmlns=\"\"", b" xmlns:a=\"b\"", b"<a:b/>", b"</", b"/>", b"=", b"\"",
    b"'", b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"{}", b"[]", b"\\u0000", b"\\ud800", b"\\",
    b"nan", b"inf", b"-1", b"0", b"1e999", b"-0.0", b"9" * 30, b"0x1", b"1_0", b"99999999999", b" ", b"\xe3\x80\x80",
    b"2026-02-30T24:00:00+14:00", b"0001-01-01T00:00:00+14:00", b"Z", b"-00:00", b"utf-16", b"gb18030", b"utf-7",
)  # fmt: skip


class Failure(AssertionError):
    """What the child died of, and the input that did it."""


def fuzz(
    target: str, seeds: Sequence[bytes], rounds: int, *, first: int = 0, cpu_s: float = CPU_S, grow_mib: int = GROW_MIB
) -> int:
    """Read seeds and damaged seeds with `target`, "module:function", in a child; return how many it has read.

    Raises:
        Failure: an input crashed it, or took too much memory or time.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, seed in enumerate(seeds):
            (folder / f"{number:06}").write_bytes(seed)
        progress = folder / "progress"
        command = [sys.executable, "-m", "tests.fuzz", target, name, "--rounds", str(rounds), "--first", str(first),
                   "--cpu", str(cpu_s), "--grow", str(grow_mib), "--progress", str(progress)]  # fmt: skip
        here = Path(__file__).parent
        paths = os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": paths}
        done = subprocess.run(command, check=False, cwd=here.parent, env=environment, capture_output=True)
        if done.returncode == 0:
            return int(done.stdout.splitlines()[-1])
        number = int(progress.read_text() or -1) if progress.exists() else -1
        died = {-signal.SIGPROF: f"more than {cpu_s} s of processor time", -signal.SIGSEGV: "a segmentation fault"}
        why = died.get(done.returncode) or done.stderr.decode(errors="replace")[-2000:] or f"code {done.returncode}"
        data = made(seeds, number) if number >= 0 else b""
        raise Failure(f"{target}, input {number} ({len(data)} bytes, {data[:300]!r}): {why}")


def made(seeds: Sequence[bytes], number: int) -> bytes:
    """Return input `number`: the seeds first, then damaged ones."""
    if number < len(seeds):
        return seeds[number]
    chance = random.Random(number)
    data = chance.choice(seeds)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        data = chance.choice(_DAMAGES)(data, chance, seeds)[:MAX_BYTES]
    return data


def _flip(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(chance.choice((1, 1, 2, 6))) + data[at + chance.choice((0, 1, 2)) :]


def _token(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(_TOKENS) + data[at + chance.choice((0, 0, 1, 5)) :]


def _cut(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[end:] if chance.random() < 0.8 else data[:end]


def _repeat(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    start = chance.randrange(len(data) + 1)
    piece = data[start : start + chance.choice((1, 4, 20, 100, 1000))]
    return (
        data[:start] + piece * min(chance.choice((2, 10, 1000, 100_000)), MAX_BYTES // (len(piece) or 1)) + data[start:]
    )


def _move(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    """Move a line: elements and members mostly stand on lines of their own."""
    lines = data.splitlines(keepends=True) or [b""]
    line = lines.pop(chance.randrange(len(lines)))
    lines.insert(chance.randrange(len(lines) + 1), line)
    return b"".join(lines)


def _splice(data: bytes, chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    other = chance.choice(seeds)
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


_DAMAGES = (_flip, _flip, _token, _token, _cut, _repeat, _move, _splice)


def _child(read: Callable[[bytes], object], seeds: Sequence[bytes], options: argparse.Namespace) -> int:
    read(seeds[0])  # what is loaded at first use is no growth
    start_kib = _peak_kib()
    _limit_memory(2 * options.grow)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    first = len(seeds) + options.first
    numbers = [*range(len(seeds)), *range(first, first + options.rounds)]
    with open(options.progress or os.devnull, "w+b", buffering=0) as progress:
        for number in numbers:
            os.pwrite(progress.fileno(), f"{number:<12}".encode(), 0)
            data = made(seeds, number)
            signal.setitimer(signal.ITIMER_PROF, options.cpu)
            read(data)
            signal.setitimer(signal.ITIMER_PROF, 0)
            grown_mib = (_peak_kib() - start_kib) / 1024
            assert grown_mib <= options.grow, f"{grown_mib:.0f} MiB of memory"
    return len(numbers)


def _peak_kib() -> int:
    """Return the most memory this program has held. (`getrusage` would count the parent's, from before exec.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def _limit_memory(mib: int) -> None:
    """Keep a bomb from taking the machine with it; the judgement itself is by what was really used."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + mib * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    """Run as the child, or by hand."""
    parser = argparse.ArgumentParser(description="Fuzz a function that reads bytes.")
    parser.add_argument("target", help="module:function")
    parser.add_argument("seeds", type=Path, help="a folder of files")
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first damaged input")
    parser.add_argument("--cpu", type=float, default=CPU_S, help="seconds of processor time for one input")
    parser.add_argument("--grow", type=int, default=GROW_MIB, help="MiB of memory beyond the start")
    parser.add_argument("--progress", help="a file to hold the number of the input being read")
    options = parser.parse_args()
    module, _, name = options.target.partition(":")
    files = sorted(path for path in options.seeds.iterdir() if path.is_file() and path.name != "progress")
    seeds = [path.read_bytes() for path in files]
    try:
        print(_child(getattr(importlib.import_module(module), name), seeds, options))
    except BaseException:  # also what a test framework raises: the parent tells it as one failure
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
