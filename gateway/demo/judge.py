"""What really happened, by the counterparts' own logs: who got nothing, who got it twice.

The expectation comes from the roster's tables and the alert's area, never from the gateway's ledger. Which version
a text belongs to is read in its own words (the issue time each text bears), never from the moment it arrived: a late
copy of one version cannot stand in for a missing text of the next.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from gateway.model import Group
from gateway.simulate.log import read
from gateway.simulate.speaker import Options

CHINA = timezone(timedelta(hours=8))
EVERYBODY = frozenset(Group)
AGAIN = ("再次提醒", "Reminder: ")
PARTLY_OVER = "不再受"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an alert and whom it is for: its villages, and the groups the plan tells of it.

    `issued` is CAP `sent`; None where there is no other version, so that every text is of this one.
    """

    alert: str
    issued: datetime | None
    villages: frozenset[str]
    groups: frozenset[Group] = EVERYBODY


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counted over all counterparts. `marked` are second copies that carry the mark of rule 2.

    Of `speakers` loudspeakers in the area, `silenced` are switched off or broken on purpose: not expected to sound.
    """

    expected: int
    unaccounted: int
    duplicates: int
    marked: int
    speakers: int = 0
    silenced: int = 0


@dataclass(frozen=True, slots=True)
class Samples:
    """One text an official really received and one a resident did; empty where none did."""

    official: str = ""
    resident: str = ""


@dataclass(frozen=True, slots=True)
class Phase:
    """One version and what became of it. `told` says in a line what it does."""

    name: str
    told: str
    version: Version
    posted_ms: float
    status: dict[str, Any]
    verdict: Verdict
    samples: Samples = Samples()


def _rows(path: Path) -> Iterable[dict[str, str]]:
    if path.exists():
        with path.open(encoding="utf-8-sig") as file:
            yield from csv.DictReader(file)


def e164(phone: str) -> str:
    """Return a roster's number as the carrier sees it."""
    return phone if phone.startswith("+") else f"+86{phone}"


def _people(folder: Path, villages: Collection[str], groups: Collection[Group]) -> set[tuple[str, str]]:
    townships = {village[:9] for village in villages}
    people: set[tuple[str, str]] = set()
    for row in _rows(folder / "officials.csv") if Group.OFFICIALS in groups else ():
        if row["village"] in villages or (not row["village"] and row["township"] in townships):
            people.add((row["phone"], row["name"]))
    for row in _rows(folder / "residents.csv") if Group.RESIDENTS in groups else ():
        if row["village"] in villages:
            people.add((row["phone"], row["name"]))
    return people


def expected_numbers(folder: Path, villages: Collection[str], groups: Collection[Group] = EVERYBODY) -> Counter[str]:
    """Number → persons who are to get one text each: officials of these villages and townships, and residents."""
    return Counter(e164(phone) for phone, _ in _people(folder, villages, groups))


def devices(folder: Path, villages: Collection[str]) -> set[str]:
    """Names of all loudspeakers in these villages."""
    return {row["name"] for row in _rows(folder / "devices.csv") if row["village"] in villages}


def expected_devices(folder: Path, villages: Collection[str], options: Options) -> set[str]:
    """Names of the loudspeakers that are on, whole, and in these villages."""
    return {name for name in devices(folder, villages) if options.character(name) == "sound"}


def expected_subscribers(folder: Path, villages: Collection[str]) -> set[str]:
    """Ids, as the push service names them, of the subscriptions to these villages and to their townships."""
    areas = {*villages, *(village[:9] for village in villages)}
    return {
        json.loads(row["subscription"])["endpoint"].rsplit("/", 1)[1]
        for row in _rows(folder / "subscribers.csv")
        if row["area"] in areas
    }


def _bears(body: str, issued: datetime | None) -> bool:
    """Whether a text bears this issue time, as in 24日8时22分; a full hour is written without minutes."""
    if issued is None:
        return True
    local = issued.astimezone(CHINA)
    minute = f"{local.minute}分" if local.minute else "(?![0-9])"
    return re.search(f"(?<![0-9]){local.day}日{local.hour}时{minute}", body) is not None


def received_numbers(log: Path, issued: datetime | None) -> tuple[Counter[str], Counter[str]]:
    """Number → texts received of one version: (first copies, copies that carry 再次提醒)."""
    first: Counter[str] = Counter()
    again: Counter[str] = Counter()
    for entry in read(log, "sms"):
        if _bears(entry["body"], issued):
            (again if any(mark in entry["body"] for mark in AGAIN) else first)[entry["to"]] += 1
    return first, again


def strangers(log: Path, versions: Sequence[Version]) -> int:
    """Count the texts that belong to none of these versions; there should be none."""
    return sum(not any(_bears(entry["body"], one.issued) for one in versions) for entry in read(log, "sms"))


def notified(log: Path, alert: str) -> tuple[Counter[str], Counter[str]]:
    """Subscriber → messages of this version that a browser could read: (first copies, marked copies)."""
    first: Counter[str] = Counter()
    again: Counter[str] = Counter()
    for entry in read(log, "push"):
        payload = entry["payload"]
        if payload.get("alert") == alert:
            marked = any(mark in str(payload.get(part, "")) for mark in AGAIN for part in ("title", "body"))
            (again if marked else first)[entry["subscriber"]] += 1
    return first, again


def sounded(log: Path, alert: str) -> Counter[str]:
    """Device → how often this version sounded in it."""
    return Counter(entry["device"] for entry in read(log, "sound") if entry["id"] == alert)


def _missing(wanted: Counter[str], first: Counter[str], again: Counter[str]) -> int:
    return sum(max(0, number - first[to] - again[to]) for to, number in wanted.items())


def _extra(wanted: Counter[str], first: Counter[str]) -> int:
    return sum(max(0, number - wanted[to]) for to, number in first.items())


def judge(folder: Path, version: Version, options: Options) -> Verdict:
    """Compare what was to be received of one version with what was, by text, push and loudspeaker."""
    roster, villages, groups = folder / "roster", version.villages, version.groups
    speakers = devices(roster, villages) if Group.LOUDSPEAKERS in groups else set()
    sound = expected_devices(roster, villages, options) if speakers else set()
    subscribers = expected_subscribers(roster, villages) if Group.SUBSCRIBERS in groups else set()
    compared = (
        (expected_numbers(roster, villages, groups), *received_numbers(folder / "sms.log", version.issued)),
        (Counter(subscribers), *notified(folder / "push.log", version.alert)),
        (Counter(sound), sounded(folder / "speakers.log", version.alert), Counter[str]()),
    )
    return Verdict(
        expected=sum(sum(wanted.values()) for wanted, _, _ in compared),
        unaccounted=sum(_missing(*one) for one in compared),
        duplicates=sum(_extra(wanted, first) for wanted, first, _ in compared),
        marked=sum(sum(again.values()) for _, _, again in compared),
        speakers=len(speakers),
        silenced=len(speakers) - len(sound),
    )


def samples(folder: Path, version: Version) -> Samples:
    """Pick one text of an official and one of a resident; the resident's is a partial all-clear where there is one."""
    roster = folder / "roster"
    officials = {e164(row["phone"]) for row in _rows(roster / "officials.csv")}
    residents = {e164(row["phone"]) for row in _rows(roster / "residents.csv")} - officials
    bodies = [(entry["to"], entry["body"]) for entry in read(folder / "sms.log", "sms")]
    of_version = [(to, body) for to, body in bodies if _bears(body, version.issued)]
    official = next((body for to, body in of_version if to in officials and PARTLY_OVER not in body), "")
    told = [body for to, body in of_version if to in residents]
    return Samples(official, next((body for body in told if PARTLY_OVER in body), told[0] if told else ""))
