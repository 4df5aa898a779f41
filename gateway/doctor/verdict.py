"""What a check says, and what the database is asked for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from gateway.model import ROSTERS, Condition

Severity = Literal["ok", "note", "warning", "error"]


class Verdict(NamedTuple):
    """One finding: which check, how bad, what was found, what to do (empty where nothing is to be done)."""

    check: str
    severity: Severity
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the database says.

    `sizes` are rows per kind, `bare` the villages with neither an official nor a loudspeaker, `live` the channels
    two people have made live, `halted` the halted scopes, `restored` whether the gateway has halted a restored
    database, `down` the channels whose carrier serves nobody, with its code, `devices` the loudspeakers by channel,
    `speaking` the channels with which some process is logged in just now. `heard` are villages by the condition of
    their best loudspeaker, as of `heard_at`, when any last said anything.
    `drilled` is when each county that knows anybody has held its last drill.
    """

    sizes: Mapping[str, int]
    bare: Collection[str] = ()
    live: Collection[str] = ()
    halted: Collection[str] = ()
    broken_audit: str = ""
    restored: bool = False
    down: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)
    speaking: Collection[str] = ()
    heard: Mapping[Condition, int] = field(default_factory=dict)
    heard_at: datetime | None = None
    drilled: Mapping[str, datetime | None] = field(default_factory=dict)


def nothing() -> Facts:
    """Return the facts of an installation without a database."""
    return Facts(dict.fromkeys((group.value for group in ROSTERS), 0))
