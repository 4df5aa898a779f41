"""Large messages are parsed and resolved beside the loop, in a process of their own, and never delay a small one.

The child yields to the gateway where cores are scarce. An alert comes back packed: pickled point by point, a
polygon of 41,000 would hold the loop up for longer than its parse took.
"""

from __future__ import annotations

import asyncio
import copyreg
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway import cap, log
from gateway.model import Alert, Resolution
from gateway.regions import Regions

NICE = 10

_log = log.get("pool")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Alert).decode


def _unpack(packed: bytes) -> Alert:
    return _decode(packed)


def _pack(alert: Alert) -> tuple[Callable[[bytes], Alert], tuple[bytes]]:
    return _unpack, (_encode(alert),)


class Places(NamedTuple):
    """Where the child finds what an area means: the folder of tables, and GeoJSON files."""

    folder: Path
    geometry: tuple[Path, ...] = ()


_regions: list[Regions] = []  # of the child


def _begin(places: Places) -> None:
    """Prepare the child."""
    os.nice(NICE)
    copyreg.pickle(Alert, _pack)
    _regions.append(Regions.load(*places))


def _read(data: bytes, trust: cap.Trust, now: datetime, within: tuple[str, ...]) -> tuple[cap.Taken, Resolution]:
    taken = cap.take(data, trust, now)
    return taken, _regions[0].resolve_alert(taken.alert, within) if taken.alert else Resolution(())


class ParsePool:
    """One child process, started when first needed and again after it died (memory, a hostile message)."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._executor: ProcessPoolExecutor | None = None

    async def read(
        self, data: bytes, trust: cap.Trust, now: datetime, within: tuple[str, ...]
    ) -> tuple[cap.Taken, Resolution]:
        """Verify and parse one message, and resolve its areas; see `gateway.cap.take` and `Regions.resolve_alert`.

        Raises:
            BrokenExecutor: the child died of this message twice.
        """
        for last in (False, True):
            if self._executor is None:
                # Spawned, not forked: this process has threads that hold locks.
                self._executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (self._places,))
            executor = self._executor
            try:
                return await asyncio.get_running_loop().run_in_executor(executor, _read, data, trust, now, within)
            except BrokenExecutor:
                _log.error("parser_died")
                executor.shutdown(wait=False)
                self._executor = None if self._executor is executor else self._executor
                if last:
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the child."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
