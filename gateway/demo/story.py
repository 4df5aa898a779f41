"""The story of one night: a red rainstorm by the green channel, an update that moves the area, the all-clear.

`mingluo demo` runs it with real processes and counterparts, shows it live, and prints the report; with
`--json` the last line is one JSON object. The same story runs embedded (default) and on a cluster.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import orjson
from aiohttp import ClientSession
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from rich.console import Console

from gateway import cap
from gateway.database import Database
from gateway.demo.judge import Phase, judge
from gateway.demo.screen import Measured, Screen
from gateway.demo.stage import Servers, Stage
from gateway.directory.importer import Importer
from gateway.directory.roster import write_sample
from gateway.directory.table import Roster
from gateway.directory.vault import Vault
from gateway.model import Alert, Area, Code, Document, Info, Level, Reference, Status
from gateway.model import Kind as AlertKind
from gateway.regions import Regions
from gateway.settings import data_folder
from gateway.simulate.log import read
from gateway.simulate.speaker import Options
from gateway.simulate.world import World

COUNTY = "411726"
SENDER = "411726-qxj@mingluo.example"
ISSUER, REVIEWER = "demo-411726-qxj-issuer", "demo-411726-qxj-reviewer"
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


class Story:
    """Plays the night on a stage."""

    def __init__(self, stage: Stage, residents: int, screen: Screen, alert: Path | None = None) -> None:
        self.stage = stage
        self.screen = screen
        self.residents = residents
        self.file = alert
        self.regions = Regions.load(data_folder("config") / "regions")
        towns = [one.code for one in self.regions.under(COUNTY) if len(self.regions.villages(one.code)) >= 12]
        self.towns = towns[:TOWNSHIPS]
        villages = list(accumulate(len(self.regions.villages(town)) for town in towns))
        self.listed = towns[: 1 + next((at for at, sum_ in enumerate(villages) if sum_ >= SPEAKERS), len(towns))]
        self.world: World | None = None
        self.phases: list[Phase] = []

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
            _channels(ready.sms_url, self.stage.api_url, _b64(private)), encoding="utf8"
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
        """Issue, update, cancel."""
        before, after = self.towns[:-ENTERING], self.towns[LEAVING:]
        message = self.file.read_bytes() if self.file else cap.write(_alert("1", AlertKind.ALERT, before, ()))
        first = await self.phase("发布 issue", message, self.villages(message), approve=False)
        issued, _ = cap.parse(message)
        if issued is None or self.file is not None:
            return
        update = _alert("2", AlertKind.UPDATE, after, (Reference(issued.sender, issued.identifier, issued.sent),))
        data = cap.write(update)
        everybody = self._villages_of(before) | self._villages_of(after)
        second = await self.phase("变更 update", data, everybody, approve=True)
        cancel = _alert("3", AlertKind.CANCEL, after, (Reference(update.sender, update.identifier, update.sent),))
        await self.phase("解除 cancel", cap.write(cancel), self._villages_of(after), approve=True)
        assert first.alert != second.alert

    def _villages_of(self, towns: Sequence[str]) -> set[str]:
        return {village.code for town in towns for village in self.regions.villages(town)}

    def villages(self, message: bytes) -> set[str]:
        """Villages an alert's area means."""
        alert, _ = cap.parse(message)
        if alert is None:
            return set()
        return set(self.regions.expand(self.regions.resolve(alert.areas, (COUNTY,)).targets))

    async def phase(self, name: str, message: bytes, villages: set[str], *, approve: bool) -> Phase:
        """Send one version, wait until it is at rest, judge it."""
        self.screen.phase(name)
        since = datetime.now(UTC)
        async with ClientSession(headers={"Content-Type": "application/cap+xml"}) as session:
            started = time.perf_counter()
            answer = await self._post(session, "/v1/alerts", ISSUER, message)
            posted_ms = (time.perf_counter() - started) * 1000
            alert = str(answer["id"])
            if approve:
                self.screen.say(f"复核 {answer['result']}: a second person approves")
                await self._post(session, f"/v1/alerts/{alert}/approve", REVIEWER, b"")
            status = await self._rest(session, alert)
        until = datetime.now(UTC)
        verdict = judge(self.stage.folder, villages, alert, since, until, self._options())
        phase = Phase(name, alert, since, posted_ms, status, verdict)
        self.phases.append(phase)
        return phase

    async def _post(self, session: ClientSession, path: str, token: str, data: bytes) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        async with session.post(f"{self.stage.api_url}{path}", data=data, headers=headers) as answer:
            body = await answer.json(content_type=None)
            if answer.status >= 300:
                raise RuntimeError(f"{path} answered {answer.status}: {body.get('detail')} {body.get('errors', '')}")
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
            "duplicates": sum(phase.verdict.duplicates for phase in self.phases),
            "villages": sum(status["villages"].values()),
            "villages_confirmed": status["villages"]["confirmed"],
            "villages_played": status["villages"]["played"],
            "gaps": [gap["name"] for gap in status["gaps"]],
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


def _channels(sms_url: str, api_url: str, vapid: str) -> str:
    return f"""
[sms_twilio]
account_sid = "AC{"0" * 32}"
auth_token = "simulated-token"
sender = "+8610000000000"
public_url = "{api_url}"
base_url = "{sms_url}"
takes_replies = true
pool = 50

[web_push]
vapid_private_key = "{vapid}"
vapid_subject = "mailto:duty@mingluo.example"
services = ["127.0.0.1"]
allow_private = true

[loudspeaker_ws]
repeat = 1
"""


def _alert(number: str, kind: AlertKind, towns: Sequence[str], references: tuple[Reference, ...]) -> Alert:
    """Return one version of tonight's warning."""
    now = datetime.now(UTC).replace(microsecond=0)
    words = {
        AlertKind.ALERT: "未来3小时将有100毫米以上强降雨",
        AlertKind.UPDATE: "强降雨带南移，未来3小时仍有100毫米以上强降雨",
        AlertKind.CANCEL: "强降雨已经结束",
    }
    area = Area("泌阳县部分乡镇", geocodes=tuple(Code("township", town) for town in towns))
    info = Info(
        "暴雨", language="zh-CN", urgency="Immediate", severity="Extreme", certainty="Observed",
        event_codes=(Code("GB/T 35561", "11B03"),), description=words[kind], areas=(area,),
        expires=now + timedelta(hours=3),
    )  # fmt: skip
    return Alert(
        SENDER, f"41172641600000_{now:%Y%m%d%H%M%S}_{number}", now, Status.ACTUAL, kind, Document.WARNING,
        "11B03", "暴雨", Level.RED, infos=(info,), references=references,
    )  # fmt: skip


async def run_demo(
    *,
    json_output: bool = False,
    recipients: int = 20_000,
    alert: Path | None = None,
    servers: Servers | None = None,
    keep: Path | None = None,
    measure: Callable[[], Awaitable[Sequence[Measured]]] | None = None,
) -> int:
    """Run the story; return the exit status: 0 if nobody is unaccounted for and nobody was told twice.

    `keep` is a folder to leave everything in; without it a temporary one is removed. `measure` gives the figures
    shown after the report; with `json_output` nothing is measured.
    """
    console = Console(stderr=json_output)
    screen = Screen(console)
    with tempfile.TemporaryDirectory(prefix="mingluo-demo-", ignore_cleanup_errors=True) as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        stage = Stage(folder, servers or Servers())
        story = Story(stage, recipients, screen, alert)
        try:
            with screen:
                await story.prepare()
                await story.play()
        finally:
            stage.stop()
        result = story.result()
        screen.report(story.phases, result)
    if measure is not None and not json_output:
        with screen:
            screen.say("测量 measuring")
            figures = await measure()
        screen.figures(figures)
    if json_output:
        sys.stdout.write(orjson.dumps(result).decode() + "\n")
    return int(bool(result["unaccounted"] or result["duplicates"]))
