"""What a hazard's code means: which colours exist for it, and whether a name is the code's own.

Pure; asked by the route and through `Policy`. A code, a colour or a name that does not fit is never mended here:
the route holds it for a person (D2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import NamedTuple

from gateway.model import Level
from gateway.policy.tables import Tables

CHINA = timezone(timedelta(hours=8))
"""One zone, no summer time."""

_HANZI = re.compile(r"[\u4e00-\u9fff]")


class Version(NamedTuple):
    """One version of a table of levels; `colours`: hazard → its colours, mildest first, each with its criteria."""

    table: str
    name: str
    since: date
    colours: Mapping[str, dict[Level, str]]

    def of(self, code: str) -> dict[Level, str]:
        """Return the hazard's colours, mildest first, each with its criteria."""
        return self.colours.get(code, {})


def versions(tables: Tables, table: str) -> list[Version]:
    """Return the versions of a table, oldest first."""
    return [Version(table, name, since, colours) for since, name, colours in tables.level_versions.get(table, ())]


def in_force(tables: Tables, table: str, at: datetime) -> Version | None:
    """Return the version in force on that day in China; None before the first."""
    day = at.astimezone(CHINA).date()
    newest_first = reversed(tables.level_versions.get(table, ()))
    return next((Version(table, name, since, rows) for since, name, rows in newest_first if since <= day), None)


def table_for(tables: Tables, code: str, areas: Sequence[str]) -> str | None:
    """Return the table that counts for a hazard in all of these areas, or None."""
    return tables.level_table(code, tuple(areas))


def colours(tables: Tables, code: str, areas: Sequence[str], at: datetime) -> dict[Level, str] | None:
    """Return the colours (with criteria) that exist for a hazard there and then; None: it is not restricted.

    Only a hazard that no table lists is unrestricted. What another table lists has no colour here.
    """
    if code not in tables.levelled:
        return None
    table = table_for(tables, code, areas)
    version = in_force(tables, table, at) if table else None
    return version.of(code) if version else {}


def colour_finding(tables: Tables, code: str, level: Level, areas: Sequence[str], at: datetime) -> str:
    """Return why this colour does not exist for a known hazard; "" if it does."""
    known = colours(tables, code, areas, at)
    if known is None or level in known or level is Level.UNKNOWN:
        return ""
    hazard, table = tables.hazard_by_code[code], table_for(tables, code, areas)
    version = in_force(tables, table, at) if table else None
    where = f"levels.csv, table {table} {version.name}" if version else "no table in force (defaults.toml, levels)"
    names = ", ".join(one.name.lower() for one in known) or "no colour of it"
    return f"{level.name.lower()} does not exist for {hazard.zh} ({code}); {where} has {names}"


def agrees(tables: Tables, code: str, event: str) -> bool:
    """Whether an event's Chinese name is that of a known code: 暴雨 in 暴雨红色预警, but not 大风 in 雷雨大风.

    The longest name of any hazard that stands in the event is the one it means. A name in other letters is not judged.
    """
    if not _HANZI.search(event):
        return True
    own = tables.hazard_by_code[code].zh
    meant = tables.meant(event)
    return own in event and len(own) == len(meant) if meant else event in own
