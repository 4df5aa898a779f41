"""What really happened, by the counterparts' own logs: who got nothing, who got it twice.

The expectation comes from the roster's tables and the alert's area, never from the gateway's ledger.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.simulate.log import read
from gateway.simulate.speaker import Options


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counted over all counterparts. `marked` are second copies that carry the mark of rule 2."""

    expected: int
    unaccounted: int
    duplicates: int
    marked: int


@dataclass(frozen=True, slots=True)
class Phase:
    """One version and what became of it."""

    name: str
    alert: str
    since: datetime
    posted_ms: float
    status: dict[str, Any]
    verdict: Verdict


def _rows(path: Path) -> Iterable[dict[str, str]]:
    with path.open(encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


def e164(phone: str) -> str:
    """Return a roster's number as the carrier sees it."""
    return phone if phone.startswith("+") else f"+86{phone}"


def expected_numbers(folder: Path, villages: Collection[str]) -> Counter[str]:
    """Number → persons who are to get one text each: officials of these villages and townships, and residents."""
    townships = {village[:9] for village in villages}
    people: set[tuple[str, str]] = set()
    for row in _rows(folder / "officials.csv"):
        if row["village"] in villages or (not row["village"] and row["township"] in townships):
            people.add((row["phone"], row["name"]))
    for row in _rows(folder / "residents.csv"):
        if row["village"] in villages:
            people.add((row["phone"], row["name"]))
    return Counter(e164(phone) for phone, _ in people)


def expected_devices(folder: Path, villages: Collection[str], options: Options) -> set[str]:
    """Names of the loudspeakers that are on, whole, and in these villages."""
    return {
        row["name"]
        for row in _rows(folder / "devices.csv")
        if row["village"] in villages and options.character(row["name"]) == "sound"
    }


def received_numbers(log: Path, since: datetime, until: datetime) -> tuple[Counter[str], Counter[str]]:
    """Number → texts received in a stretch of time: (first copies, copies that start with 再次提醒)."""
    first: Counter[str] = Counter()
    again: Counter[str] = Counter()
    for entry in read(log, "sms"):
        if since <= datetime.fromisoformat(entry["at"]) < until:
            (again if "再次提醒" in entry["body"] else first)[entry["to"]] += 1
    return first, again


def sounded(log: Path, alert: str) -> Counter[str]:
    """Device → how often this version sounded in it."""
    return Counter(entry["device"] for entry in read(log, "sound") if entry["id"] == alert)


def judge(
    folder: Path, villages: Collection[str], alert: str, since: datetime, until: datetime, options: Options
) -> Verdict:
    """Compare what was to be received of one version with what was."""
    roster = folder / "roster"
    wanted = expected_numbers(roster, villages)
    first, again = received_numbers(folder / "sms.log", since, until)
    missing = sum(max(0, number - first[to] - again[to]) for to, number in wanted.items())
    extra = sum(max(0, number - wanted[to]) for to, number in first.items())
    devices = expected_devices(roster, villages, options)
    heard = sounded(folder / "speakers.log", alert)
    missing += len(devices - heard.keys())
    extra += sum(number - 1 for number in heard.values())
    return Verdict(sum(wanted.values()) + len(devices), missing, extra, sum(again.values()))
