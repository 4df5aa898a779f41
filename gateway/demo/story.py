"""The story of one night: a red rainstorm by the green channel, an update that moves the area, the all-clear.

`mingluo demo` runs it with real processes and counterparts, shows it live, and prints the report; with
`--json` the last line is one JSON object. The same story runs embedded (default) and on a cluster.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway import cap
from gateway.database import Database
from gateway.demo.judge import Phase, Version, judge, samples, strangers
from gateway.demo.message import channels, given, warning
from gateway.demo.screen import Screen
from gateway.demo.stage import Stage
from gateway.directory.importer import Importer
from gateway.directory.roster import write_sample
from gateway.directory.table import Roster
from gateway.directory.vault import Vault
from gateway.errors import Refused
from gateway.model import Alert, Group, Kind, Notice
from gateway.policy import Policy
from gateway.regions import Regions
from gateway.settings import data_folder
from gateway.simulate.log import read
from gateway.simulate.speaker import Options
from gateway.simulate.world import World

COUNTY = "411726"
ISSUER, SIGNER = "demo-411726-qxj-issuer", "demo-411726-qxj-signer"
SPEAKERS = 300  # one a village: the roster takes townships of 泌阳县 until it has them
TOWNSHIPS = 6  # of those, how many the warning and its update are about
LEAVING, ENTERING = 2, 1  # how many of them the update removes and adds
SEED = 4117
SETTLE_S = 90.0  # longest wait for a phase to come to rest
REST_S = 2.0  # nothing moves for this long: at rest


class SystemClock:
    """The wall clock, for the import."""

    def now(self) -> datetime:
        """Aware UTC."""
        return datetime.now(UTC)

    async def sleep(self, wait_s: float) -> None:
        """Sleep."""
        await asyncio.sleep(wait_s)


@dataclass(frozen=True, slots=True)
class Played:
    """One version that has come to rest and is not judged yet."""

    name: str
    told: str
    version: Version
    posted_ms: float
    status: dict[str, Any]


class Story:
    """Plays the night on a stage.

    Raises:
        OSError: the file cannot be read.
        Refused: the file is no valid message, or over.
    """

    def __init__(self, stage: Stage, residents: int, screen: Screen, alert: Path | None = None) -> None:
        self.stage = stage
        self.screen = screen
        self.residents = residents
        self.file = alert
        self.regions = Regions.load(data_folder("config") / "regions")
        self.policy = Policy.load(data_folder("config") / "policy")
        self.given = given(alert) if alert else None
        towns = [one.code for one in self.regions.under(COUNTY) if len(self.regions.villages(one.code)) >= 12]
        self.towns = towns[:TOWNSHIPS]
        self.listed = self._listed(sorted({village[:9] for village in self.villages(self.given)}), towns)
        self.world: World | None = None
        self.phases: list[Phase] = []
        self.strangers = 0
        self._played: list[Played] = []

    def _listed(self, own: Sequence[str], towns: Sequence[str]) -> list[str]:
        """Townships of the roster: those of the given alert, then others until there are loudspeakers enough."""
        near = [one.code for town in own[:1] for one in self.regions.under(town[:6])] or towns
        every = list(dict.fromkeys((*own, *near)))
        sums = list(accumulate(len(self.regions.villages(town)) for town in every))
        enough = 1 + next((at for at, sum_ in enumerate(sums) if sum_ >= SPEAKERS), len(every))
        return every[: max(enough, len(own))]

    @property
    def roster(self) -> Path:
        """Folder of the roster's tables."""
        return self.stage.folder / "roster"

    # --- the stage is set -------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Write the roster, start counterparts, import, start the gateway, wait for the loudspeakers."""
        self.screen.say("写名册 writing a synthetic roster")
        self._write_roster(None)
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        private = key.private_numbers().private_value.to_bytes(32, "big")
        self.world = World(
            self.stage.hub_url, self.stage.api_url, str(self.roster / "devices.csv"),
            vapid_public=_b64(public), subscribers=100, seed=SEED,
        )  # fmt: skip
        self.screen.say("起对端 starting the counterparts")
        ready = await self.stage.start_world(self.world)
        self._write_roster(ready.subscriptions)
        (self.stage.folder / "channels.toml").write_text(
            channels(ready.sms_url, self.stage.api_url, _b64(private)), encoding="utf8"
        )
        self.screen.say(f"导入名册 importing {self.residents:,} residents")
        await self._import()
        self.screen.say("起网关 starting the gateway: " + ", ".join(self.stage.roles))
        await self.stage.start_gateway()
        await self._devices_online()

    def _write_roster(self, subscriptions: Sequence[str] | None) -> None:
        write_sample(
            self.roster, self.regions, self.residents, SEED, townships=self.listed, devices_per_village=1,
            subscribers=len(subscriptions or ()),
            push_endpoint=subscriptions.__getitem__ if subscriptions else None,
        )  # fmt: skip

    async def _import(self) -> None:
        settings = self.stage.environment(self.stage.roles[0])
        url = settings.get("MINGLUO_DATABASE_URL") or f"sqlite:///{self.stage.folder / 'data' / 'mingluo.db'}"
        database = Database(url)
        await database.open()
        vault = Vault.of(self.stage.secret_key, self.stage.folder)
        importer = Importer(database, vault, self.regions, SystemClock())
        for kind in Roster:
            path = self.roster / f"{kind.value}.csv"
            if path.exists():
                with path.open("rb") as stream:
                    done = await importer.read(stream, kind)
                if done.failed:
                    raise RuntimeError(f"{kind.value}: {done.failed} rows were refused: {done.errors[:3]}")
        await database.close()

    async def _devices_online(self) -> None:
        """Wait until the loudspeakers that are switched on have connected."""
        options = self._options()
        names = [line.split(",", 1)[0] for line in (self.roster / "devices.csv").read_text().splitlines()[1:]]
        wanted = sum(options.character(name) != "offline" for name in names)
        self.screen.say(f"等喇叭上线 waiting for {wanted} of {len(names)} loudspeakers")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if await self._gauge("mingluo_devices_online") >= wanted:
                return
            await asyncio.sleep(0.2)
        raise RuntimeError("the loudspeakers did not connect\n" + self.stage.output("world"))

    async def _gauge(self, name: str) -> float:
        async with ClientSession() as session, session.get(f"{self.stage.hub_url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))

    def _options(self) -> Options:
        assert self.world is not None
        w = self.world
        return Options(offline=w.offline, failing=w.failing, silent=w.silent, play_s=w.play_s, seed=w.seed)

    # --- the night --------------------------------------------------------------------------------

    async def play(self) -> None:
        """Issue, update, cancel; then judge.

        Raises:
            Refused: the gateway refuses the message.
        """
        if self.file is not None and self.given is not None:
            told = f"{self.file.name} is issued"
            await self.phase("发布 issue", told, self.file.read_bytes(), self._version(self.given, {}, alone=True))
        else:
            await self._night()
        folder, options = self.stage.folder, self._options()
        for one in self._played:
            verdict = judge(folder, one.version, options)
            picked = samples(folder, one.version)
            self.phases.append(Phase(one.name, one.told, one.version, one.posted_ms, one.status, verdict, picked))
        self.strangers = strangers(folder / "sms.log", [one.version for one in self._played])

    async def _night(self) -> None:
        before, after = self.towns[:-ENTERING], self.towns[LEAVING:]
        now = datetime.now(UTC).replace(microsecond=0)
        first = warning(Kind.ALERT, now - timedelta(minutes=2), before)
        told = (
            f"泌阳县气象局 issues a red rainstorm warning for {len(before)} townships; the green channel "
            "sends it at once, without a second person"
        )
        await self.phase("发布 issue", told, cap.write(first), self._version(first, {}))
        second = warning(Kind.UPDATE, now - timedelta(minutes=1), after, first)
        told = (
            f"the rain moves south: {ENTERING} township enters, {LEAVING} leave and are told the partial "
            "all-clear; a second person approves it first"
        )
        version = self._version(second, {Notice.PARTIAL_ALL_CLEAR: self._villages_of(before[:LEAVING])})
        await self.phase("变更 update", told, cap.write(second), version)
        third = warning(Kind.CANCEL, now, after, second)
        told = f"the all-clear for the {len(after)} townships that are left; a second person approves it first"
        version = self._version(third, {Notice.ALL_CLEAR: self._villages_of(after)})
        await self.phase("解除 cancel", told, cap.write(third), version)

    def _villages_of(self, towns: Sequence[str]) -> set[str]:
        return {village.code for town in towns for village in self.regions.villages(town)}

    def villages(self, alert: Alert | None) -> set[str]:
        """Villages an alert's area means."""
        areas = alert.areas if alert else ()
        return set(self.regions.expand(self.regions.resolve(areas, (COUNTY,)).targets))

    def _version(self, alert: Alert, over: Mapping[Notice, Set[str]], *, alone: bool = False) -> Version:
        """Return who is to be told of a version; its id is known once the gateway has it.

        `over` are villages it is over for, by what they are told; all others of its area hear the warning itself.
        """
        ended = frozenset[str]().union(*over.values())
        told = {**over, Notice.ISSUE: self.villages(alert) - ended}
        rows = [(group, row) for group in Group for row in self.policy.plan_rows(alert.document, alert.level, group)]
        later: dict[Group, frozenset[str]] = {}
        for group, row in rows:
            for notice, villages in told.items():
                if self._waits(alert, group, row.channels[0], notice):
                    later[group] = later.get(group, frozenset()) | villages
        groups = frozenset(group for group, _ in rows)
        return Version("", None if alone else alert.sent, frozenset().union(*told.values()), groups, later)

    def _waits(self, alert: Alert, group: Group, channel: str, notice: Notice) -> bool:
        """Whether it is an hour at which a group hears this in the morning only."""
        now = datetime.now(UTC)
        return self.policy.deferral(alert.document, alert.level, group, channel, notice, now) is not None

    async def phase(self, name: str, told: str, message: bytes, version: Version) -> None:
        """Send one version; where it is held, approve it as a second person; wait until it is at rest."""
        self.screen.phase(name, told)
        async with ClientSession(headers={"Content-Type": "application/cap+xml"}) as session:
            started = time.perf_counter()
            answer = await self._post(session, "/v1/alerts", ISSUER, message)
            posted_ms = (time.perf_counter() - started) * 1000
            alert = str(answer["id"])
            if answer["result"] == "held":
                self.screen.say("复核 held: a second person approves")
                await self._post(session, f"/v1/alerts/{alert}/approve", SIGNER, b"")
            self.screen.say("")
            status = await self._rest(session, alert)
        self._played.append(Played(name, told, replace(version, alert=alert), posted_ms, status))

    async def _post(self, session: ClientSession, path: str, token: str, data: bytes) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        async with session.post(f"{self.stage.api_url}{path}", data=data, headers=headers) as answer:
            body = await answer.json(content_type=None)
            if answer.status >= 300:
                said = str(body.get("detail") or body.get("title") or "")
                found = (str(one.get("message", "")) for one in body.get("errors") or ())
                every = "; ".join([said, *(one for one in found if one not in said)])
                raise Refused(answer.status, "refused", f"the gateway refuses the message: {every}")
            return dict(body)

    async def _rest(self, session: ClientSession, alert: str) -> dict[str, Any]:
        """Poll the status until everything is settled and nothing moves any more."""
        deadline = time.monotonic() + SETTLE_S
        seen: object = None
        still_since = time.monotonic()
        while True:
            headers = {"Authorization": f"Bearer {ISSUER}"}
            async with session.get(f"{self.stage.api_url}/v1/alerts/{alert}/status", headers=headers) as answer:
                status: dict[str, Any] = await answer.json()
            self.screen.status(status)
            now = time.monotonic()
            mark = (status["counts"], status["villages"])
            if mark != seen:
                seen, still_since = mark, now
            unfinished = sum(timing["unfinished"] for timing in status["timings"])
            if (not unfinished and status["counts"] and now - still_since >= REST_S) or now > deadline:
                return status
            await asyncio.sleep(0.25)

    # --- the report -------------------------------------------------------------------------------

    def result(self) -> dict[str, Any]:
        """Return the JSON line: the first version's figures; unaccounted and duplicates over all versions."""
        first = self.phases[0]
        status = first.status
        states: dict[str, int] = {}
        for count in status["counts"]:
            states[count["state"]] = states.get(count["state"], 0) + count["recipients"]
        accepted = datetime.fromisoformat(status["accepted_at"])
        submitted = [timing["last_settled_s"] for timing in status["timings"] if timing["last_settled_s"] is not None]
        return {
            "route": status["route"],
            "accepted_ms": round(first.posted_ms, 1),
            "first_loudspeaker_ms": _first_ms(status, "loudspeakers"),
            "first_official_ms": self._first_text_ms(accepted),
            "all_submitted_ms": round(max(submitted) * 1000, 1) if submitted else None,
            "recipients": sum(states.values()),
            "states": states,
            "unaccounted": sum(phase.verdict.unaccounted for phase in self.phases),
            "duplicates": sum(phase.verdict.duplicates for phase in self.phases) + self.strangers,
            "villages": sum(status["villages"].values()),
            "villages_confirmed": status["villages"]["confirmed"],
            "villages_played": status["villages"]["played"],
            "gaps": [gap["name"] for gap in status["gaps"]],
            "expected": first.verdict.expected,
            "marked": sum(phase.verdict.marked for phase in self.phases),
        }

    def _first_text_ms(self, accepted: datetime) -> float | None:
        """Milliseconds from acceptance to the first text a carrier really received."""
        times = (datetime.fromisoformat(entry["at"]) for entry in read(self.stage.folder / "sms.log", "sms"))
        first = min((at for at in times if at >= accepted), default=None)
        return round((first - accepted).total_seconds() * 1000, 1) if first else None


def _first_ms(status: dict[str, Any], group: str) -> float | None:
    found = [t["first_submitted_s"] for t in status["timings"] if t["group"] == group and t["first_submitted_s"]]
    return round(min(found) * 1000, 1) if found else None


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
