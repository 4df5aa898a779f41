"""What a loudspeaker keeps on its disk: one file, replaced as a whole, so that a power cut leaves the old or the new.

The announcements in it are as the gateway signed them, and are verified again when they are read: who can write to
the disk can make a device forget, and still not make it speak.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import msgspec

from gateway.device.record import Memory
from gateway.device.trust import Trust, Untrusted
from gateway.device.volume import Policy
from gateway.errors import ConfigError


class Saved(msgspec.Struct):
    """The file."""

    memory: Memory = msgspec.field(default_factory=Memory)
    policy: Policy | None = None
    values: dict[str, Any] = {}
    """Settings the gateway has changed."""


class Disk:
    """The folder of one device. Only one process at a time may have it.

    Raises:
        ConfigError: another process has it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / "memory.json"
        self._writing = threading.Lock()
        self._newest = 0
        self._lock = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ConfigError(f"{folder}: another device program has this folder; stop it, or choose another") from None

    def load(self, trust: Trust) -> tuple[Saved, str]:
        """Read the file; return also the fault in it, if any: a broken file is set aside, never a reason not to run."""
        try:
            saved = msgspec.json.decode(self.path.read_bytes(), type=Saved)
        except FileNotFoundError:
            return Saved(), ""
        except (ValueError, RecursionError):
            self.path.rename(self.path.with_suffix(".broken"))
            return Saved(), "memory_broken"
        kept = [one for one in saved.memory.announcements if one.due is None or _genuine(one.signed, one.play, trust)]
        fault = "" if len(kept) == len(saved.memory.announcements) else "memory_forged"
        saved.memory.announcements = kept
        return saved, fault

    def save(self, data: bytes, number: int) -> None:
        """Replace the file; returns once it is on the disk. Numbers count up: what is older is not written.

        Raises:
            OSError: it is not.
        """
        with self._writing:
            if number > self._newest:
                self._replace(data)
                self._newest = number

    def _replace(self, data: bytes) -> None:
        part = self.path.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self.path)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Let another process have the folder."""
        os.close(self._lock)


def _genuine(signed: tuple[str, str, str] | None, play: object, trust: Trust) -> bool:
    try:
        return signed is not None and trust.open(signed) == play
    except (Untrusted, ValueError):
        return False
