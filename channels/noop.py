"""A channel that reaches nobody: for benches, drills of the installation, and kill tests.

Every recipient counts as delivered at once. With `log` set, each `send` leaves one line, so that a test can
compare what the gateway believes with what really went out, even when the process was killed in between.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import orjson

from gateway.channel import Channel, Link
from gateway.channel import Settings as ChannelSettings
from gateway.model import Group, Message, Receipt, Slice, State

DELIVERED = Receipt(State.DELIVERED)


class NoopSettings(ChannelSettings):
    """Table `noop`. `log` is the file one JSON line per slice is appended to; None keeps nothing."""

    log: Path | None = None


class Noop(Channel):
    """Deliver to nobody, as fast as the gateway can call."""

    name: ClassVar[str] = "noop"
    slice: ClassVar[int] = 1000
    concurrency: ClassVar[int] = 16
    groups: ClassVar[frozenset[Group]] = frozenset(Group)
    Settings = NoopSettings
    settings: NoopSettings

    def __init__(self, settings: NoopSettings) -> None:
        super().__init__(settings)
        self._fd: int | None = None

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        """Log the slice, if asked to, and call all of it delivered."""
        if self.settings.log is not None:
            self._append(slice_, message, self.settings.log)
        return [DELIVERED] * len(slice_)

    async def close(self) -> None:
        """Close the log."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _append(self, slice_: Slice, message: Message, log: Path) -> None:
        if self._fd is None:
            self._fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        line = orjson.dumps(
            {
                "alert": message.alert,
                "batch": slice_.batch,
                "slice": slice_.number,
                "attempt": slice_.attempt,
                "positions": list(slice_.positions),
                "persons": list(slice_.persons),
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        # One write to an O_APPEND descriptor: a kill leaves the whole line or none, and processes never mix lines.
        if os.write(self._fd, line) != len(line):
            raise OSError("the log took only part of a line")
