"""Finished announcements on disk, by what was asked for and by content.

A file's name is the SHA-256 of its bytes, so whoever has fetched it can check it, and it never changes. Beside it, in
`orders/`, a record per order names its file. Writes are atomic; beyond the limit the files used longest ago go first.
Called by `speech.Speech`, in threads. Several processes may share a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

NAME = re.compile(r"[0-9a-f]{64}\.(mp3|wav)")
_KEY = re.compile(r"[0-9a-f]{64}")
_LEFT_SHARE = 0.9
_PART_S = 3600


class Kept(msgspec.Struct, frozen=True):
    """One finished announcement. `name` is its file's, digest and form."""

    name: str
    size_bytes: int
    duration_s: float

    @property
    def sha256(self) -> str:
        """Digest of the content, hex."""
        return self.name.partition(".")[0]


class Cache:
    """The files under one folder."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder.absolute()
        self._orders = self.folder / "orders"
        self._limit_bytes = limit_bytes

    def find(self, key: str) -> Kept | None:
        """Return what an order was made into, whole and still there; it counts as used."""
        try:
            kept = msgspec.json.decode((self._orders / key).read_bytes(), type=Kept)
            # The digest protects the device; here the length is enough: files appear whole or not at all.
            if not NAME.fullmatch(kept.name) or (self.folder / kept.name).stat().st_size != kept.size_bytes:
                return None
        except (OSError, msgspec.MsgspecError):
            return None
        return kept if self.touch(kept) else None

    def touch(self, kept: Kept) -> bool:
        """Count a file as used now; False if it cannot be. Its content's time stays, for it is in the ETag."""
        path = self.folder / kept.name
        try:
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        except OSError:
            return False
        return True

    def draft(self, key: str) -> Path:
        """Return where a worker may write the sound of an order."""
        self._orders.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{key}.{os.getpid()}.part"

    def keep(self, key: str, draft: Path, form: str, duration_s: float) -> Kept:
        """Take a finished draft in; make room."""
        data = draft.read_bytes()
        kept = Kept(f"{hashlib.sha256(data).hexdigest()}.{form}", len(data), duration_s)
        _durable(draft)
        draft.replace(self.folder / kept.name)
        record = self._orders / f"{key}.{os.getpid()}.part"
        record.write_bytes(msgspec.json.encode(kept))
        record.replace(self._orders / key)
        self._make_room()
        return kept

    def _make_room(self) -> None:
        """Remove the files used longest ago while there are too many bytes, and the records of what is gone."""
        there = dict(self._stats())
        for path, stat in there.items():
            if path.suffix == ".part" and time.time() - stat.st_mtime > _PART_S:  # of a process that was killed
                discard(path)
        files = {path: stat for path, stat in there.items() if NAME.fullmatch(path.name)}
        total = sum(stat.st_size for stat in files.values())
        if total <= self._limit_bytes:
            return
        for path in sorted(files, key=lambda one: files[one].st_atime_ns):
            if total <= self._limit_bytes * _LEFT_SHARE:
                break
            path.unlink(missing_ok=True)
            total -= files[path].st_size
        left = {path.name for path, _ in self._stats()}
        for record in self._orders.iterdir():
            if _KEY.fullmatch(record.name) and _named(record) not in left:
                record.unlink(missing_ok=True)

    def _stats(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process makes room, too
                yield path, path.stat()


def _named(record: Path) -> str:
    try:
        return msgspec.json.decode(record.read_bytes(), type=Kept).name
    except (FileNotFoundError, msgspec.MsgspecError):
        return ""


def _durable(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def discard(path: Path) -> None:
    """Remove a draft nobody finished."""
    with contextlib.suppress(OSError):  # it is overwritten by the next try, or lies there, small
        path.unlink(missing_ok=True)
