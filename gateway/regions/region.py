"""One place of the administrative tree, its code, and how the table of places is read."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from gateway.errors import ConfigError

HEADER = ["code", "name", "kind", "parent", "from", "to", "aliases"]
_DIGITS = {"city": 6, "county": 6, "township": 9, "village": 12}
_ABOVE = {"county": "city", "township": "county", "village": "township"}

TOWNSHIP = re.compile(r"(街道办事处|街道办|办事处|街道|回族镇|回族乡|镇|乡)$")
VILLAGE = re.compile(r"(村|社区)?(村民委员会|居民委员会|村委员会|村民员委会|村民委会|委员会|村委会|居委会|村|社区)$")


@dataclass(frozen=True, slots=True)
class Region:
    """One place. `kind`: city, county, township or village; `until` is the last day its code was in force."""

    code: str
    name: str
    kind: str
    parent: str
    aliases: tuple[str, ...]
    since: date
    until: date | None

    @property
    def stem(self) -> str:
        """The name without its administrative ending: 贾楼 of 贾楼乡 and of 贾楼村民委员会."""
        ending = VILLAGE if self.kind == "village" else TOWNSHIP
        return stem(self.name, ending) or self.name

    @property
    def spoken(self) -> str:
        """The name as people say it: 贾楼村 rather than 贾楼村民委员会; of other kinds the name itself."""
        if self.kind != "village" or (base := stem(self.name, VILLAGE)) is None:
            return self.name
        return base + ("社区" if "居" in self.name[len(base) :] or "社区" in self.name[len(base) :] else "村")


def stem(name: str, ending: re.Pattern[str]) -> str | None:
    """Return `name` without the ending, or None if it has none or less than two characters would be left."""
    match = ending.search(name)
    if match is None:
        return None
    if match.start() >= 2:  # a one-character rest is no name: 芦村村民委员会 is 芦村
        return name[: match.start()]
    inner = match.end(1) if match.group(1) and match.end(1) < len(name) else -1
    return name[:inner] if inner >= 2 else None  # the same


def plain(code: str) -> str:
    """Return the code without its padding: 411726000000 and 411726000 are 411726, 411700 is 4117."""
    for length, pad in ((12, "000"), (9, "000"), (6, "00"), (4, "00")):
        if len(code) == length and code.endswith(pad):
            code = code[: -len(pad)]
    return code


def read(path: Path, on: date | None) -> Iterator[Region]:
    """Yield the places of one table that are in force on that day (None: those without an end).

    Raises `ConfigError` naming file and row.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream)
            if next(reader, None) != HEADER:
                raise ConfigError(f"{path.name}: row 1: the header must read {','.join(HEADER)}")
            for number, row in enumerate(reader, start=2):
                region = _region(row, f"{path.name}: row {number}")
                if region.until is None if on is None else _in_force(region, on):
                    yield region
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path.name}: cannot be read as UTF-8 CSV ({type(error).__name__})") from error


def _in_force(region: Region, on: date) -> bool:
    return region.since <= on and (region.until is None or on <= region.until)


def _region(row: list[str], where: str) -> Region:
    if len(row) != len(HEADER):
        raise ConfigError(f"{where}: {len(row)} columns instead of {len(HEADER)}")
    code, name, kind, parent, since, until, aliases = row
    digits = _DIGITS.get(kind)
    if digits is None:
        raise ConfigError(f"{where}: kind {kind!r} is none of {', '.join(_DIGITS)}")
    if len(code) != digits or not (code.isascii() and code.isdigit()):
        raise ConfigError(f"{where}: the code of a {kind} has {digits} digits, not {code!r}")
    if not name:
        raise ConfigError(f"{where}: the name is empty")
    if parent and not code.startswith(plain(parent)):
        raise ConfigError(f"{where}: parent {parent!r} is not the beginning of {code!r}")
    try:
        first, last = _day(since), _day(until) if until else None
    except ValueError:
        raise ConfigError(f"{where}: from and to are days written 2023-06-30") from None
    return Region(code, name, kind, parent, tuple(aliases.split("|")) if aliases else (), first, last)


@cache
def _day(text: str) -> date:
    return date.fromisoformat(text)


def check(regions: dict[str, Region], file: str) -> None:
    """Raise `ConfigError` where a place hangs in the air; `regions` by plain code."""
    for region in regions.values():
        above = regions.get(plain(region.parent)) if region.parent else None
        if region.kind != "city" and (above is None or above.kind != _ABOVE[region.kind]):
            raise ConfigError(f"{file}: {region.code}: parent {region.parent!r} is no {_ABOVE[region.kind]} in force")
