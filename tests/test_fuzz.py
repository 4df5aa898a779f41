"""The fuzzer itself: what it must catch, so that its silence means something."""

from __future__ import annotations

import re
import time

import pytest
from fuzz import Failure, fuzz, made

SEEDS = [b"<a>1</a>", b'{"a": [1, 2]}\n']
_kept: list[bytearray] = []


def calm(data: bytes) -> None:
    """Read nothing."""


def touchy(data: bytes) -> None:
    """Crash on a bare ampersand."""
    assert b"&" not in data


def slow(data: bytes) -> None:
    """Never come back from a doubled brace, and never leave C: a signal handler in Python would not run."""
    if b"[[" in data:
        re.match(r"(a+)+$", "a" * 64 + "b")


def greedy(data: bytes) -> None:
    """Keep 20 MiB per input."""
    _kept.append(bytearray(b"x" * (20 << 20)))


def sleepy(data: bytes) -> None:
    """Wait, as on a busy machine, without using the processor."""
    time.sleep(0.02)


def test_the_same_number_is_the_same_input() -> None:
    """A failure found in the night is made again in the morning from its number."""
    assert [made(SEEDS, number) for number in range(200)] == [made(SEEDS, number) for number in range(200)]
    assert len({made(SEEDS, number) for number in range(200)}) > 150


def test_waiting_is_no_hang() -> None:
    """A loaded machine must not turn an honest reader into a failure."""
    assert fuzz("test_fuzz:sleepy", SEEDS, 3, cpu_s=0.01) == len(SEEDS) + 3
    assert fuzz("test_fuzz:calm", SEEDS, 500) == len(SEEDS) + 500


@pytest.mark.parametrize(
    ("target", "rounds", "why"),
    [("touchy", 2000, "AssertionError"), ("slow", 2000, "processor time"), ("greedy", 30, "MiB of memory")],
)
def test_each_kind_of_failure_is_caught_and_named(target: str, rounds: int, why: str) -> None:
    """A crash, a hang in C and a leak each end with the number of the input that did it."""
    with pytest.raises(Failure, match=why) as failure:
        fuzz(f"test_fuzz:{target}", SEEDS, rounds, cpu_s=0.3)
    assert re.search(r"input \d+ \(\d+ bytes", str(failure.value))
