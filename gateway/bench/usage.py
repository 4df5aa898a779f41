"""What a process and its children have used, read from /proc while they run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

TICKS = 100  # of /proc, per second, on every Linux Python runs on


def tree(root: int) -> list[int]:
    """Return the pids of a process and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, ())
    return found


def cpu_s(roots: Iterable[int]) -> float:
    """Return user and system time of some processes and their descendants, also of those that have ended."""
    ticks = 0
    for root in roots:
        for pid in tree(root):
            if fields := _stat(pid):
                ticks += sum(map(int, fields[11:15]))  # of a child that was waited for, its parent has the time
    return ticks / TICKS


def peak_mib(root: int) -> float:
    """Return the largest resident size that any one process of a tree has had so far."""
    return max((_peak_kib(pid) for pid in tree(root)), default=0) / 1024


def machine_cpu_s() -> float:
    """Return what all processes of this machine have used since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, soft = map(int, fields[:7])
    return (user + nice + system + irq + soft) / TICKS


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; none if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _peak_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def anonymous_bytes() -> int:
    """Return this process's own resident memory, without mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024
