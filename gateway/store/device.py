"""What is known of each loudspeaker: folded from what it says, whoever holds its connection.

A commit of a few hundred events is three statements at most, however many devices they are of: an upsert for those that
have come, one for those that said something else, one update for those that went. Who came last holds a device: a
process that held it before, and still does, is told to part from it (`taken`). A device that went is offline only if
the process it left still counts as its holder, or nothing was heard of it for a while: it may have come back elsewhere
before the old connection was found to be dead, and a process may speak for devices that another one held before it
died. Presence decides nothing that is sent; it decides what a person is told about a village.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from gateway.database import Database
from gateway.model import Condition, DeviceEvent, DeviceState, Record, Report
from gateway.policy.table import SpeakerRules
from gateway.ports import Clock
from gateway.store import noted
from gateway.store.codec import alert_of, unpack_persons
from gateway.transaction import Row, Tx, micros, moment

PATIENCE_S = 5.0
FOUND_DEAD = timedelta(minutes=2)  # a half-open connection is found to be dead sooner
BRIEF = timedelta(minutes=1)  # the longest wait of a device that reconnects: such an absence is none
RANK = {condition: rank for rank, condition in enumerate(Condition)}
NO_FAULTS = "[]"
AUDITED = frozenset({"replaced", "fault"})
STATE = {
    "device": "bigint", "online": "bigint", "holder": "text", "seen_at": "bigint", "since": "bigint",
    "firmware": "text", "volume": "bigint", "power": "text", "battery": "bigint", "skew_ms": "bigint",
    "faults": "text", "told_at": "bigint", "here_since": "bigint",
}  # fmt: skip
_SAID = ", ".join(
    (
        "online = excluded.online, seen_at = excluded.seen_at",
        "since = CASE WHEN device_state.online = 1 THEN device_state.since ELSE excluded.since END",
        "here_since = CASE WHEN device_state.online = 1"
        f" OR device_state.seen_at > excluded.seen_at - {BRIEF // timedelta(microseconds=1)}"
        " THEN COALESCE(device_state.here_since, excluded.here_since) ELSE excluded.here_since END",
        *(f"{name} = COALESCE(NULLIF(excluded.{name}, ''), device_state.{name})" for name in ("firmware", "power")),
        *(
            f"{name} = COALESCE(excluded.{name}, device_state.{name})"
            for name in ("volume", "battery", "skew_ms", "faults", "told_at")
        ),
    )
)
_ELSEWHERE = "device_state.online = 1 AND device_state.holder <> excluded.holder"
_LATER = (
    "device_state.seen_at > excluded.seen_at"  # hubs commit in any order: the last hello counts, not the last commit
)
CAME = (
    f"(device) DO UPDATE SET {_SAID}, holder = CASE WHEN {_ELSEWHERE} AND {_LATER} THEN device_state.holder"
    f" ELSE excluded.holder END, taken_from = CASE WHEN NOT ({_ELSEWHERE}) THEN ''"
    f" WHEN {_LATER} THEN excluded.holder ELSE device_state.holder END"
)
SAID = (
    f"(device) DO UPDATE SET {_SAID},"
    " holder = CASE WHEN device_state.online = 1 THEN device_state.holder ELSE excluded.holder END"
)
PLAYED = {name: STATE[name] for name in ("device", "online", "holder", "seen_at", "since")} | {
    "played_at": "bigint", "drilled_at": "bigint",
}  # fmt: skip
LATER = "(device) DO UPDATE SET " + ", ".join(
    f"{name} = CASE WHEN device_state.{name} IS NULL OR device_state.{name} < excluded.{name} THEN excluded.{name}"
    f" ELSE device_state.{name} END"
    for name in ("seen_at", "played_at", "drilled_at")
)
COLUMNS = (
    "d.id, d.name, d.village, s.online, s.seen_at, s.since, s.firmware, s.volume, s.power, s.battery, s.skew_ms,"
    " s.faults, s.told_at, s.drilled_at, s.tested_at, s.played_at"
)
JUDGED = (
    "SELECT d.village, s.online, s.seen_at, s.faults, s.told_at, s.drilled_at, s.tested_at, s.played_at"
)  # fmt: skip
STANDING = "FROM device d LEFT JOIN device_state s ON s.device = d.id WHERE d.standing = 'service'"


@dataclass(frozen=True, slots=True)
class Speaker:
    """A loudspeaker in service and what is known of it; None: it never said. `seen_at`: it last said anything.

    `drilled_at`, `tested_at` and `played_at` are the last drill, self-test and broadcast of any kind that it finished.
    """

    id: int
    name: str
    village: str
    condition: Condition
    online: bool
    seen_at: datetime | None
    since: datetime | None
    state: DeviceState
    told_at: datetime | None
    drilled_at: datetime | None
    tested_at: datetime | None
    played_at: datetime | None


class Played(NamedTuple):
    """Devices of one batch that finished it, by position, and whether it was a drill."""

    batch: str
    positions: Sequence[int]
    at: datetime
    drill: bool


class SqlDevices:
    """The facet for the state of devices."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._holder = secrets.token_hex(6)  # this process

    async def fold(self, events: Sequence[DeviceEvent]) -> None:
        """Write what devices said of themselves; replacements and faults enter the audit chain, see `noted`.

        Raises:
            StoreDown: not written.
        """
        greeted = frozenset(event.device for event in events if event.kind == "online")
        told = _told(events, self._holder)
        came = [row for row in told if row[0] in greeted]
        said = [row for row in told if row[0] not in greeted]
        gone = _gone(events)
        done = [
            (one.device, Record(one.at, noted.ACTOR, one.kind, str(one.device), one.code))
            for one in events if one.kind in AUDITED
        ]  # fmt: skip

        def operation(tx: Tx) -> None:
            for how, rows in (CAME, came), (SAID, said):
                if rows:
                    tx.upsert("device_state", STATE, rows, how)
            if gone:
                tx.send(
                    "UPDATE device_state SET online = 0, since = :at, seen_at = :at"
                    " WHERE device IN :*gone AND online = 1 AND (holder = :holder OR seen_at < :before)",
                    gone=sorted(gone),
                    at=micros(max(gone.values())),
                    holder=self._holder,
                    before=micros(max(gone.values()) - FOUND_DEAD),
                )
            noted.note(tx, done)

        await self._database.write(operation, PATIENCE_S, decides=bool(done))

    async def tell_more(self) -> None:
        """Let the audit chain know how often devices did again what it had just been told.

        Raises:
            StoreDown: told the next time.
        """
        now = self._clock.now()
        while await self._database.write(lambda tx: noted.tell_more(tx, now), PATIENCE_S) == noted.STEP:
            continue

    async def taken(self) -> list[int]:
        """Devices that have come to another process since this was last asked, though they were held by this one."""

        def look(tx: Tx) -> list[int]:
            text = "SELECT device FROM device_state WHERE taken_from = :me AND taken_from <> ''"
            return [device for (device,) in tx.all(text, me=self._holder)]

        def operation(tx: Tx) -> list[int]:
            found = look(tx)
            tx.run("UPDATE device_state SET taken_from = '' WHERE taken_from = :me", me=self._holder)
            return found

        return await self._database.write(operation, PATIENCE_S) if await self._database.read(look) else []

    async def begin_alone(self) -> None:
        """After the start of the only process there is: nobody is connected yet."""
        await self._database.write(lambda tx: tx.run("UPDATE device_state SET online = 0 WHERE online = 1"))

    async def played(self, found: Sequence[Played]) -> None:
        """Note who has finished a broadcast: it works, and was heard of just now."""
        await self._database.write(lambda tx: _played(tx, found), PATIENCE_S)

    async def villages(
        self, codes: Collection[str], rules: SpeakerRules, at: datetime | None = None
    ) -> dict[str, Condition]:
        """Say how well off each of these villages is now, or would be if it were `at`."""
        found = dict.fromkeys(codes, Condition.NONE)
        townships = sorted({code[:9] for code in codes})
        for village, condition in await self._judged(rules, at, " AND d.township IN :*townships", townships=townships):
            if village in found:
                found[village] = better(found[village], condition)
        return found

    async def conditions(self, rules: SpeakerRules) -> list[tuple[str, Condition]]:
        """Return (village, condition) of every loudspeaker in service."""
        return await self._judged(rules, None)

    async def _judged(
        self, rules: SpeakerRules, at: datetime | None, tail: str = "", **values: Any
    ) -> list[tuple[str, Condition]]:
        """Judge them in the reader's thread, without all that is known of each: asked for every few seconds."""
        judge = _judge(rules, at or self._clock.now())
        return await self._database.read(
            lambda tx: [
                (village, judge(*row)) for village, *row in tx.all(f"{JUDGED} {STANDING}{tail}", **values)
            ]
        )  # fmt: skip

    async def below(
        self, areas: Collection[str], rules: SpeakerRules, after: str = "", limit: int | None = None
    ) -> list[Speaker]:
        """Loudspeakers in service below any of these codes, by village and name, from behind `village/name` on."""
        village, _, name = after.partition("/")
        places, values = places_below(areas)
        behind = f" AND {places} AND (d.village, d.name) > (:village, :name) ORDER BY d.village, d.name"
        if limit is not None:
            behind += " LIMIT :limit"
            values["limit"] = limit
        return await self._read(rules, behind, village=village, name=name, **values)

    async def named(self, names: Collection[str], rules: SpeakerRules) -> list[Speaker]:
        """Those of these loudspeakers that are in service."""
        return await self._read(rules, " AND d.name IN :*names ORDER BY d.village, d.name", names=sorted(names))

    async def heard_at(self) -> datetime | None:
        """When a loudspeaker in service last said anything."""
        row = await self._database.read(lambda tx: tx.one(f"SELECT MAX(s.seen_at) {STANDING}"))
        return moment(row[0]) if row and row[0] is not None else None

    async def _read(self, rules: SpeakerRules, tail: str, **values: Any) -> list[Speaker]:
        """Read and judge them, in the reader's thread: a fleet of six thousand would hold the loop up."""
        now = self._clock.now()
        return await self._database.read(
            lambda tx: list(_speakers(tx.all(f"SELECT {COLUMNS} {STANDING}{tail}", **values), rules, now))
        )


def better(one: Condition, other: Condition) -> Condition:
    """Return the better of two conditions."""
    return one if RANK[one] > RANK[other] else other


def _told(events: Sequence[DeviceEvent], holder: str) -> list[tuple[Any, ...]]:
    """One row per device that said anything, by id, so that two processes lock them in the same order."""
    rows: dict[int, list[Any]] = {}
    for event in events:
        if event.kind == "offline":
            continue
        at = micros(event.at)
        row = rows.setdefault(event.device, [1, holder, at, at, "", None, "", None, None, None, None, at])
        row[2] = at
        if event.kind == "online":
            row[4] = event.code or row[4]
        if event.state is not None:
            for place, value in enumerate(_condition_told(event.state), 4):
                row[place] = row[place] if value in ("", None) else value
            row[10] = at
    return [(device, *rows[device]) for device in sorted(rows)]


def _condition_told(state: DeviceState) -> tuple[Any, ...]:
    skew = None if state.clock_skew_s is None else round(state.clock_skew_s * 1000)
    return state.firmware, state.volume, state.power, state.battery, skew, json.dumps(sorted(state.faults))


def _gone(events: Iterable[DeviceEvent]) -> dict[int, datetime]:
    """Devices whose last word is that they went, and when."""
    gone: dict[int, datetime] = {}
    for event in events:
        if event.kind == "offline":
            gone[event.device] = event.at
        else:
            gone.pop(event.device, None)
    return gone


def _played(tx: Tx, found: Sequence[Played]) -> None:
    """Write it also for a device that never said anything of itself: a platform speaks for its own."""
    frozen = {
        batch: unpack_persons(body)
        for batch, body in tx.all(
            "SELECT batch, body FROM outbox WHERE batch IN :*batches", batches=sorted({one.batch for one in found})
        )
    }
    rows: dict[int, list[Any]] = {}
    for one in found:
        at, devices = micros(one.at), frozen.get(one.batch, ())
        for position in one.positions:
            if 0 <= position < len(devices):
                row = rows.setdefault(devices[position], [0, "", 0, 0, 0, None])
                row[2:5] = [max(row[2], at)] * 3
                row[5] = max(row[5] or 0, at) if one.drill else row[5]
    tx.upsert("device_state", PLAYED, [(device, *rows[device]) for device in sorted(rows)], LATER)


def played_of(reports: Iterable[Report], drills: Mapping[str, bool]) -> list[Played]:
    """Gather reports by batch; `drills` says of each alert whether it is one."""
    batches: dict[str, list[Report]] = {}
    for report in reports:
        batches.setdefault(report.batch, []).append(report)
    return [
        Played(batch, [one.position for one in some], max(one.at for one in some), drills[alert_of(batch)])
        for batch, some in sorted(batches.items())
    ]


def _speakers(rows: Iterable[Row], rules: SpeakerRules, now: datetime) -> Iterable[Speaker]:
    judge = _judge(rules, now)
    for row in rows:
        device, name, village, online, seen, since, firmware, volume, power, battery, skew, faults, *times = row
        state = DeviceState(
            firmware or "", volume, power or "", battery, None if skew is None else skew / 1000,
            tuple(json.loads(faults)) if faults else (),
        )  # fmt: skip
        seen_at, since_at, *further = (None if at is None else moment(at) for at in (seen, since, *times))
        condition = judge(online, seen, faults, *times)
        yield Speaker(device, name, village, condition, bool(online), seen_at, since_at, state, *further)


def _judge(rules: SpeakerRules, now: datetime) -> Callable[..., Condition]:
    """Return what judges a device by its row: whether online, when seen, faults, when told, drilled, tested, played."""
    silent, untested = micros(now - rules.offline), micros(now - rules.untested)
    tolerated = frozenset(rules.tolerated_faults)

    def judge(
        online: int | None, seen: int | None, faults: str | None, told: int | None, *heard: int | None
    ) -> Condition:
        if seen is None or (seen < silent and not (online and told is None)):
            return Condition.OFFLINE
        if faults and faults != NO_FAULTS and not tolerated.issuperset(json.loads(faults)):
            return Condition.FAULTY
        if rules.untested_days and max((at for at in heard if at is not None), default=0) < untested:
            return Condition.UNTESTED
        return Condition.WORKING

    return judge


def places_below(areas: Collection[str], column: str = "d.village") -> tuple[str, dict[str, Any]]:
    """Return the condition that a village, a device's own by default, lies below one of these codes, and its values."""
    names = [f"area_{_letter(at)}" for at in range(len(areas))]
    places = " OR ".join(f"{column} LIKE :{name}" for name in names) or "1 = 0"
    return f"({places})", {name: f"{area}%" for name, area in zip(names, areas, strict=True)}


def _letter(at: int) -> str:
    return chr(ord("a") + at // 26) + chr(ord("a") + at % 26)
