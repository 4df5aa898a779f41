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
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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

    `issued` is CAP `sent`; None where there is no other version, so that every text is of this one. `later` are the
    villages of a group whose message waits for the morning (quiet hours, D14).
    """

    alert: str
    issued: datetime | None
    villages: frozenset[str]
    groups: frozenset[Group] = EVERYBODY
    later: Mapping[Group, frozenset[str]] = field(default_factory=dict)

    def at_once(self, group: Group) -> frozenset[str]:
        """Villages where a group is to be told now."""
        return self.villages - self.later.get(group, frozenset()) if group in self.groups else frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counted over all counterparts. `marked` are second copies that carry the mark of rule 2.

    Of `speakers` loudspeakers that are to sound at once, `silenced` are switched off or broken on purpose: not expected
    to. `later` are persons, subscribers and loudspeakers whose message waits for the morning.
    """

    expected: int
    unaccounted: int
    duplicates: int
    marked: int
    speakers: int = 0
    silenced: int = 0
    later: int = 0


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


def _people(folder: Path, version: Version) -> set[tuple[str, str]]:
    people: set[tuple[str, str]] = set()
    villages = version.at_once(Group.OFFICIALS)
    townships = {village[:9] for village in villages}
    for row in _rows(folder / "officials.csv"):
        if row["village"] in villages or (not row["village"] and row["township"] in townships):
            people.add((row["phone"], row["name"]))
    villages = version.at_once(Group.RESIDENTS)
    people.update((row["phone"], row["name"]) for row in _rows(folder / "residents.csv") if row["village"] in villages)
    return people


def expected_numbers(folder: Path, version: Version) -> Counter[str]:
    """Number → persons who are to get one text each: officials of these villages and townships, and residents."""
    return Counter(e164(phone) for phone, _ in _people(folder, version))


def devices(folder: Path, villages: Collection[str]) -> set[str]:
    """Names of all loudspeakers in these villages."""
    return {row["name"] for row in _rows(folder / "devices.csv") if row["village"] in villages}


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
    roster = folder / "roster"
    people, subscribers, speakers = _expected(roster, version)
    sound = {name for name in speakers if options.character(name) == "sound"}
    compared = (
        (people, *received_numbers(folder / "sms.log", version.issued)),
        (Counter(subscribers), *notified(folder / "push.log", version.alert)),
        (Counter(sound), sounded(folder / "speakers.log", version.alert), Counter[str]()),
    )
    at_once = people.total() + len(subscribers) + len(speakers)
    people, subscribers, every = _expected(roster, replace(version, later={}))
    return Verdict(
        expected=sum(sum(wanted.values()) for wanted, _, _ in compared),
        unaccounted=sum(_missing(*one) for one in compared),
        duplicates=sum(_extra(wanted, first) for wanted, first, _ in compared),
        marked=sum(sum(again.values()) for _, _, again in compared),
        speakers=len(speakers),
        silenced=len(speakers) - len(sound),
        later=people.total() + len(subscribers) + len(every) - at_once,
    )


def _expected(roster: Path, version: Version) -> tuple[Counter[str], set[str], set[str]]:
    """Return numbers, subscribers and loudspeakers that are to be told at once."""
    return (
        expected_numbers(roster, version),
        expected_subscribers(roster, version.at_once(Group.SUBSCRIBERS)),
        devices(roster, version.at_once(Group.LOUDSPEAKERS)),
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
