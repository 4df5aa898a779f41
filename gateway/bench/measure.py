"""What all benches share: spreads over rounds, child processes, and an installation to measure in."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import platform
import re
import shutil
import statistics
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from gateway.model import Alert, Area, Code, Document, Info, Kind, Level, Status
from gateway.settings import data_folder

COUNTY = "411726"
ISSUER = "411726-qxj"
SENDER = "411726-qxj@mingluo.example"
LONGEST_S = 600.0  # a child that takes longer has failed
ENDING_S = 10.0


class Spread(msgspec.Struct, frozen=True):
    """One figure over the rounds of a run."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Spread of at least one value."""
        found = sorted(values)
        return cls(_round(statistics.median(found)), _round(found[0]), _round(found[-1]))

    def __str__(self) -> str:
        return f"{_shown(self.median)} ({_shown(self.low)} to {_shown(self.high)})"


class Round(msgspec.Struct, frozen=True):
    """What it took once to bring something to a number of recipients. Seconds from the order to the last and the first.

    `cpu_s` is that of the processes measured, `machine_cpu_s` that of everything on the machine, servers included;
    `peak_mib` the largest resident size so far of any one process, by role.
    """

    recipients: int
    seconds: float
    first_s: float
    cpu_s: float
    machine_cpu_s: float
    peak_mib: dict[str, float]
    planned_s: float = 0.0
    """Until the whole audience was frozen; 0 where there is no such thing."""
    role_cpu_s: dict[str, float] = {}
    """The parts of `cpu_s`; none of a peer."""

    @property
    def rate(self) -> float:
        """Recipients per second."""
        return self.recipients / self.seconds


def _round(value: float) -> float:
    """Keep four significant digits: more of them would be noise."""
    return float(f"{value:.4g}")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of all do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def machine() -> str:
    """Cores and Python of this machine, without its name."""
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


class SystemClock:
    """The wall clock."""

    def now(self) -> datetime:
        """Aware UTC."""
        return datetime.now(UTC)

    async def sleep(self, wait_s: float) -> None:
        """Sleep."""
        await asyncio.sleep(wait_s)


def configuration(folder: Path) -> Path:
    """Copy the shipped configuration, without quiet hours and with an hourly limit that a bench does not run into.

    Return its folder.
    """
    target = folder / "config"
    shutil.copytree(data_folder("config"), target)
    path = target / "policy" / "defaults.toml"
    text, changed = re.subn(r"(?m)^alerts_per_hour = \d+$", "alerts_per_hour = 1_000_000", path.read_text("utf8"))
    if not changed:
        raise LookupError("policy/defaults.toml has no alerts_per_hour")
    path.write_text(text, "utf8")
    quiet = target / "policy" / "quiet.toml"
    quiet.write_text(quiet.read_text("utf8").partition("[[defer]]")[0], "utf8")
    return target


ORDINALS = str.maketrans("0123456789", "甲乙丙丁戊己庚辛壬癸")


def red_rain(number: str, townships: Sequence[str]) -> Alert:
    """Return a red rainstorm warning of 泌阳县 that takes the green channel; its residents are in the urgent lane."""
    return _rain(number, townships, Level.RED, "Extreme")


def yellow_rain(number: str, townships: Sequence[str]) -> Alert:
    """Return a yellow rainstorm warning of 泌阳县 that takes the green channel; its residents are in the bulk lane."""
    return _rain(number, townships, Level.YELLOW, "Moderate")


def _rain(number: str, townships: Sequence[str], level: Level, severity: str) -> Alert:
    now = datetime.now(UTC).replace(microsecond=0)
    words = f"第{number.translate(ORDINALS)}轮强降雨，未来3小时将有100毫米以上"  # of its own: none is a repetition
    area = Area("泌阳县部分乡镇", geocodes=tuple(Code("township", code) for code in townships))
    info = Info(
        "暴雨", language="zh-CN", urgency="Immediate", severity=severity, certainty="Observed",
        event_codes=(Code("GB/T 35561", "11B03"),), description=words, areas=(area,),
        expires=now + timedelta(hours=3),
    )  # fmt: skip
    return Alert(
        SENDER, f"bench-{now:%Y%m%d%H%M%S}-{number}", now, Status.ACTUAL, Kind.ALERT, Document.WARNING,
        "11B03", "暴雨", level, infos=(info,),
    )  # fmt: skip


def environment() -> dict[str, str]:
    """Return this process's environment without the settings of some other gateway."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MINGLUO_")}


@asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[asyncio.StreamReader]:
    """Run a module as a process of its own and give its output; see `process`."""
    async with process(module, *arguments) as running:
        assert running.stdout is not None
        yield running.stdout


@asynccontextmanager
async def process(
    module: str, *arguments: str, stdin: int = asyncio.subprocess.DEVNULL
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a module as a process of its own; it is ended on the way out.

    Raises:
        RuntimeError: it ended with an error by itself; its own words are on standard error.
    """
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments,
        stdin=stdin, stdout=asyncio.subprocess.PIPE, env=environment(), limit=1 << 24,
    )  # fmt: skip
    try:
        yield running
    finally:
        ended_itself = running.returncode
        if running.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                running.terminate()
            try:
                await asyncio.wait_for(running.wait(), ENDING_S)
            except TimeoutError:
                running.kill()
                await running.wait()
    if ended_itself:
        raise RuntimeError(f"{module} ended with {ended_itself}")


async def answer(module: str, *arguments: str) -> bytes:
    """Run a module to its end; return the last line it wrote.

    Raises:
        RuntimeError: it wrote nothing.
    """
    async with child(module, *arguments) as output:
        lines = (await asyncio.wait_for(output.read(), LONGEST_S)).splitlines()
    if not lines:
        raise RuntimeError(f"{module} ended without a result")
    return lines[-1]
