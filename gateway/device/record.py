"""What a loudspeaker's state machine remembers: announcements, results of orders, and all of it for the disk."""

from __future__ import annotations

import msgspec

from gateway.device.command import Play
from gateway.device.owed import Word

Name = tuple[str, int]
"""Batch and position: under which name a command came."""


class Announcement(msgspec.Struct):
    """One version in one device.

    `state` is what the gateway is told. `due`: from when (the gateway's time) it may sound; None once it is over, or
    has had its last round. `order` counts arrivals. `signed` is its frame as it came, for whoever keeps it on disk.
    """

    play: Play
    order: int
    due: float | None
    state: str = "received"
    code: str = ""
    heard_s: float = 0.0
    names: list[Name] = msgspec.field(default_factory=list)
    hushed: bool = False
    signed: tuple[str, str, str] | None = None

    @property
    def rank(self) -> tuple[int, int, int]:
        """The smallest sounds first."""
        return (*self.play.rank, self.order)

    @property
    def ends(self) -> float:
        """When it expires, in the gateway's time."""
        return self.play.expires.timestamp()


class Turn:
    """What is to sound now: one run through an announcement's repetitions. The caller compares it by identity."""

    __slots__ = ("announcement", "heard_s", "repetition", "since")

    def __init__(self, announcement: Announcement) -> None:
        self.announcement = announcement
        self.repetition = 0
        self.heard_s = 0.0
        self.since: float | None = None
        """When sound began, in the gateway's time; None: it has not."""


class Done(msgspec.Struct, frozen=True):
    """The result of an order that was carried out, or refused."""

    state: str
    code: str


class Memory(msgspec.Struct):
    """Everything worth keeping through a power cut. Times are the gateway's, but for `clock`.

    `boot` names the time since the device was switched on: in it, `at` was the time when the monotonic clock said
    `clock`, and `sure` whether the gateway had said so.
    """

    at: float = 0.0
    clock: float = 0.0
    boot: str = ""
    sure: bool = False
    announcements: list[Announcement] = []
    void: dict[str, float] = {}
    void_drills: dict[str, float] = {}
    hushed: dict[str, float] = {}
    orders: dict[str, Done] = {}
    words: list[Word] = []
    order: int = 0
