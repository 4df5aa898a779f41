"""A watched folder: files that appear in it are submitted, and end in `done/` or `refused/` with a .json that says why.

Run by `mingluo watch`, which submits through the API in one person's name. One watcher per folder (a lock says so).

- **Complete only.** A file is taken when size and time have not changed for a second. Writers that pause longer write
  under a name with a dot in front, or ending in .tmp or .part, and rename. An empty file is not complete.
- **Order.** Oldest first, so that an update follows its alert. Where the gateway cannot be asked, the round ends there,
  and begins with the same file again: nothing overtakes. One that has failed three times goes behind the others: what
  the gateway cannot digest must not hold up a red warning.
- **Never lost, never sent twice.** The .json is written, then the file moved, after the gateway has answered. Who dies
  between submits once more at the next start: for the gateway the same bytes are a duplicate.
- **The name may be used again at once.** Only the file that was submitted is moved; one that came under its name
  meanwhile stays, and is submitted in its turn.
- **Nothing is followed.** Symbolic links, folders and pipes are left where they are; every path is opened below the
  folder's own descriptor.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from gateway import log
from gateway.cap import MAX_BYTES
from gateway.errors import ConfigError
from gateway.ports import Clock

DONE, REFUSED = "done", "refused"
LOCK = ".mingluo-watch"
UNFINISHED = (".tmp", ".part", ".swp", "~")
SETTLED = timedelta(seconds=1)
RETRY = timedelta(seconds=5)
PER_ROUND = 100
PATIENCE = 3
LONGEST_NAME = 200
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK

_log = log.get("watch")


class Verdict(NamedTuple):
    """What the gateway said of a file; `said` goes into the .json beside it."""

    accepted: bool
    said: dict[str, object]


Submit = Callable[[bytes], Awaitable[Verdict | None]]
"""Hands a message in; None: nobody could be asked, try again."""


class _Seen(NamedTuple):
    """How a file looked, and since when."""

    look: tuple[int, int, int]  # inode, size, time of change
    since: datetime


class Watch:
    """Watches one folder. `with Watch(...) as one: await one.run()`."""

    def __init__(self, folder: Path, submit: Submit, clock: Clock) -> None:
        self._path = folder
        self._submit = submit
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._later: datetime | None = None
        self._failed: dict[str, int] = {}
        self._open: list[int] = []

    def __enter__(self) -> Self:
        try:
            self._folder = self._opened(self._path, None)
            for name in (DONE, REFUSED):
                with suppress(FileExistsError):
                    os.mkdir(name, 0o750, dir_fd=self._folder)
            self._ends = {name: self._opened(Path(name), self._folder) for name in (DONE, REFUSED)}
            lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=self._folder)
            self._open.append(lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            raise ConfigError(f"{self._path}: another process watches this folder; end it first") from None
        except OSError as error:
            self._close()
            raise ConfigError(f"{self._path}: {error.strerror}; name a folder this process may write in") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._close()

    def _opened(self, path: Path, below: int | None) -> int:
        found = os.open(path, _FOLDER | os.O_CLOEXEC, dir_fd=below)
        self._open.append(found)
        return found

    def _close(self) -> None:
        while self._open:
            os.close(self._open.pop())

    async def run(self, every_s: float, told: Callable[[str, Verdict], None]) -> None:
        """Look again and again; `told` hears of each file that is settled."""
        while True:
            await self.round(told)
            await self._clock.sleep(every_s)

    async def round(self, told: Callable[[str, Verdict], None] = lambda name, verdict: None) -> int:
        """Look once; return how many files were settled."""
        now = self._clock.now()
        if self._later is not None and now < self._later:
            return 0
        self._later = None
        settled = 0
        for name in self._complete(now)[:PER_ROUND]:
            data = self._read(name)
            if data is None:
                continue
            verdict = self._too_large() if len(data) > MAX_BYTES else await self._submit(data)
            if verdict is None:
                self._failed[name] = self._failed.get(name, 0) + 1
                self._later = self._clock.now() + RETRY
                break
            self._settle(name, data, verdict)
            told(name, verdict)
            settled += 1
        return settled

    def _complete(self, now: datetime) -> list[str]:
        """Return the files that have stopped growing, oldest first."""
        found: dict[str, _Seen] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower().endswith(UNFINISHED):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(status.st_mode) or not status.st_size:
                    continue
                look = _look(status)
                before = self._seen.get(entry.name)
                found[entry.name] = before if before and before.look == look else _Seen(look, now)
        self._seen = found
        self._failed = {name: times for name, times in self._failed.items() if name in found}
        ready = (name for name, seen in found.items() if now - seen.since >= SETTLED)
        return sorted(ready, key=lambda name: (self._failed.get(name, 0) >= PATIENCE, found[name].look[2], name))

    def _read(self, name: str) -> bytes | None:
        """Return the file as it was seen, up to a byte more than is taken; None if it is another one by now."""
        try:
            file = os.open(name, _FILE | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError as error:
            _log.warning("cannot_read", why=error.strerror)
            return None
        with os.fdopen(file, "rb") as opened:
            data = opened.read(MAX_BYTES + 1)
            status = os.fstat(opened.fileno())
        same = _look(status) == self._seen[name].look
        return data if same and stat.S_ISREG(status.st_mode) else None

    @staticmethod
    def _too_large() -> Verdict:
        detail = f"the message is larger than {MAX_BYTES // 1024} KiB"
        return Verdict(False, {"code": "too_large", "detail": detail})

    def _settle(self, name: str, data: bytes, verdict: Verdict) -> None:
        """Write why, then move the file; in this order, so that no moved file is without its reason."""
        end = self._ends[DONE if verdict.accepted else REFUSED]
        target = self._free(name, end)
        said = {
            "file": os.fsencode(name).decode(errors="backslashreplace"),
            "at": self._clock.now().isoformat(),
            "sha256": hashlib.sha256(data).hexdigest(),
            **verdict.said,
        }
        self._write(f"{target}.json", json.dumps(said, ensure_ascii=False, indent=2).encode(errors="replace"), end)
        if not self._move(name, target, end):
            self._write(target, data, end)
        os.fsync(end)
        os.fsync(self._folder)
        _log.info("settled", accepted=verdict.accepted, alert=verdict.said.get("alert", ""))

    def _move(self, name: str, target: str, end: int) -> bool:
        """Move the file that was submitted; False if it is gone, or another has taken its name (which stays)."""
        try:
            os.rename(name, target, src_dir_fd=self._folder, dst_dir_fd=end)
        except FileNotFoundError:
            return False
        if _look(os.stat(target, dir_fd=end, follow_symlinks=False)) == self._seen[name].look:
            return True
        os.rename(target, self._free(name, self._folder), src_dir_fd=end, dst_dir_fd=self._folder)
        return False

    @staticmethod
    def _free(name: str, end: int) -> str:
        """Return a name that no earlier file has there, and whose .json would overwrite none."""
        base = name if len(os.fsencode(name)) <= LONGEST_NAME else hashlib.sha256(os.fsencode(name)).hexdigest()
        taken, number = set(os.listdir(end)), 0
        target = base
        # A .json that has none of its own is what a crash left of this very file.
        while target in taken or {f"{target}.json", f"{target}.json.json"} <= taken:
            number += 1
            target = f"{base}.{number}"
        return target

    @staticmethod
    def _write(name: str, data: bytes, end: int) -> None:
        """Write a file as a whole, or not at all."""
        partial = f".{name}.tmp"
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=end)
        with os.fdopen(file, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        os.rename(partial, name, src_dir_fd=end, dst_dir_fd=end)


def _look(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns
