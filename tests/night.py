"""A night of faults: real gateway processes and real servers, judged by the logs of their counterparts.

The counterparts (carrier, loudspeakers) run in the test's own process and are never killed.

Officials are told by SMS. Residents are told of a warning through `noop`, whose log has a line per slice, so that
100,000 of them stay quick; of an evacuation by SMS, where a request may have left without its answer (rule 2).
Moments are chosen by what a counterpart has logged, never by a stretch of time.
"""

from __future__ import annotations

import asyncio
import csv
import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson
from aiohttp import ClientError, ClientSession

from gateway import cap
from gateway.database import Database
from gateway.demo.judge import Version, devices, e164, expected_numbers, sounded
from gateway.demo.stage import Servers, Stage
from gateway.directory.importer import Importer
from gateway.directory.roster import write_sample
from gateway.directory.table import Roster
from gateway.directory.vault import Vault
from gateway.model import Alert, Area, Code, Document, Info, Kind, Level, Status
from gateway.regions import Regions
from gateway.settings import data_folder
from gateway.simulate.log import Log, read
from gateway.simulate.sms import SmsFaults, SmsSimulator
from gateway.simulate.speaker import Fleet, Options
from gateway.simulate.world import devices_of

COUNTY = "411726"
ISSUER = "demo-411726-qxj-issuer"
COMMAND, COMMAND_SIGNER = "demo-411726-fzb-issuer", "demo-411726-fzb-signer"
ADMIN = "demo-4117-yjj-admin"
CAP, JSON = "application/cap+xml", "application/json"
WARNED, EVACUATED = "【泌阳县气象局】", "【泌阳县防汛办】"  # the signatures tell whose text it is
AGAIN = "再次提醒"
TOWNSHIPS = 8
HAMLET = "411726400"  # a township of one village: its residents fit into a night of SMS
SEED = 4118
POLL_S = 0.05
NUMBERS = count(1)  # two orders within a second are two


class Sms(NamedTuple):
    """Numbers and how often each got a text: for the first time, and marked as a repeat."""

    first: Counter[str]
    again: Counter[str]


class Clock:
    """The wall clock, for the import."""

    def now(self) -> datetime:
        """Aware UTC."""
        return datetime.now(UTC)

    async def sleep(self, wait_s: float) -> None:
        """Sleep."""
        await asyncio.sleep(wait_s)


class NightStage(Stage):
    """A stage with a policy of its own."""

    def environment(self, role: str) -> dict[str, str]:
        """Return the settings of one process."""
        return super().environment(role) | {"MINGLUO_CONFIG": str(self.folder / "config")}


@dataclass
class Night:
    """One installation and its counterparts; `until` waits for what a log shows."""

    stage: Stage
    residents: int = 100_000
    pace_per_s: int = 8000
    latency_s: float = 0.2
    callback_tries: int = 8
    """How often a carrier reports to an API that is gone; once, and whom it spoke of stays in doubt (rule 2)."""
    fallback: str = ""
    """Channel that stands in for the residents' SMS of an evacuation."""
    regions: Regions = field(default_factory=lambda: Regions.load(data_folder("config") / "regions"))
    piped: bool = False
    """Whether noop logs through a pipe, so that a disk full for the gateway is not full for its log."""
    carrier: SmsSimulator = field(init=False)
    options: Options = field(
        default_factory=lambda: Options(offline=0.05, failing=0.03, play_s=0.5, resend_s=2, backoff_max_s=2, seed=SEED)
    )
    _ends: AsyncExitStack = field(default_factory=AsyncExitStack)
    _carrier_port: int = 0

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return self.stage.folder

    @property
    def roster(self) -> Path:
        """Folder of the roster's tables."""
        return self.folder / "roster"

    @property
    def towns(self) -> list[str]:
        """Townships of the night, those with many villages."""
        found = [one.code for one in self.regions.under(COUNTY) if len(self.regions.villages(one.code)) >= 12]
        return found[:TOWNSHIPS]

    def villages(self, towns: Collection[str]) -> set[str]:
        """Villages of these townships."""
        return {village.code for town in towns for village in self.regions.villages(town)}

    async def begin(self) -> None:
        """Write policy and roster, import, start the carrier, the gateway and the loudspeakers."""
        self._write_policy()
        places = [*self.towns, HAMLET]
        write_sample(self.roster, self.regions, self.residents, SEED, townships=places, devices_per_village=1)
        await self._import()
        # A status call-back finds the API gone for some seconds: the carrier comes again, and nobody is in doubt.
        self.carrier = SmsSimulator(
            Log(self.folder / "sms.log"), faults=SmsFaults(latency_s=self.latency_s),
            callback_tries=self.callback_tries, callback_pause_s=0.2, seed=SEED,
        )  # fmt: skip
        self._ends.push_async_callback(self.carrier.stop)
        url = await self.carrier.start()
        self._carrier_port = urlsplit(url).port or 0
        (self.folder / "channels.toml").write_text(self._channels(url), encoding="utf8")
        await self.stage.start_gateway()
        devices = devices_of(self.roster / "devices.csv")
        log = Log(self.folder / "speakers.log")
        await self._ends.enter_async_context(Fleet(self.stage.hub_url, devices, log, self.options, (self.stage.pin,)))
        wanted = sum(self.options.character(one.name) != "offline" for one in devices)
        await self.until(lambda: self._devices_online(wanted), 60, "the loudspeakers to connect")

    async def end(self) -> None:
        """End every process and counterpart."""
        self.stage.stop()
        await self._ends.aclose()

    def _write_policy(self) -> None:
        """Residents hear of a warning through noop alone, of an evacuation by SMS first; officials by SMS alone."""
        shutil.copytree(data_folder("config"), self.folder / "config")
        path = self.folder / "config" / "policy" / "plan.toml"
        head, *rows = path.read_text("utf8").split("[[row]]")
        rows = [row for row in rows if 'channels = ["noop"]' not in row]
        for index, row in enumerate(rows):
            noop = 'group = "residents"' in row and "warning" in row
            row = row.replace('["sms"]\nfallback = "sms_twilio"', '["noop"]' if noop else '["sms_twilio"]')
            if self.fallback and 'group = "residents"' in row and "evacuation" in row:
                row += f'fallback = "{self.fallback}"\nfallback_after_s = 0\n\n'
            rows[index] = row
        path.write_text("[[row]]".join((head, *rows)), "utf8")

    def _channels(self, sms_url: str) -> str:
        return f"""
[sms_twilio]
account_sid = "AC{"0" * 32}"
auth_token = "simulated-token"
sender = "+8610000000000"
public_url = "{self.stage.api_url}"
base_url = "{sms_url}"

[noop]
log = "{self._noop_pipe() if self.piped else self.folder / "noop.log"}"

[loudspeaker_ws]
repeat = 1

[rates]
noop = {{ per_s = {self.pace_per_s}, burst = 1000 }}
"""

    def _noop_pipe(self) -> Path:
        """Make the pipe noop logs into, and read it. Lines are longer than a pipe keeps whole: for one writer only."""
        pipe = self.folder / "noop.pipe"
        os.mkfifo(pipe)
        end = os.open(pipe, os.O_RDWR)  # reading and writing: it never sees an end while processes come and go
        log = (self.folder / "noop.log").open("wb")
        loop = asyncio.get_running_loop()

        def take() -> None:
            log.write(os.read(end, 1 << 20))
            log.flush()

        loop.add_reader(end, take)
        self._ends.callback(log.close)
        self._ends.callback(os.close, end)
        self._ends.callback(loop.remove_reader, end)
        return pipe

    async def _import(self) -> None:
        url = self.stage.servers.database or f"sqlite:///{self.folder / 'data' / 'mingluo.db'}"
        database = Database(url)
        await database.open()
        importer = Importer(database, Vault.of(self.stage.secret_key, self.folder), self.regions, Clock())
        for kind in (Roster.OFFICIALS, Roster.RESIDENTS, Roster.DEVICES):
            with (self.roster / f"{kind.value}.csv").open("rb") as stream:
                assert (await importer.read(stream, kind)).failed == 0
        await database.close()

    async def _devices_online(self, wanted: int) -> bool:
        try:
            return await self.metric(self.stage.hub_url, "mingluo_devices_online{") >= wanted
        except ClientError:  # the hub does not listen yet
            return False

    # --- what is done -----------------------------------------------------------------------------

    async def warn(self, towns: Sequence[str]) -> str:
        """Issue a red rainstorm by the green channel; return its id once it is acknowledged."""
        return await self._post("/v1/alerts", ISSUER, _message(Document.WARNING, "411726-qxj", towns), 202)

    async def order(self, towns: Sequence[str]) -> str:
        """Order an evacuation; it waits for a second person."""
        return await self._post("/v1/alerts", COMMAND, _message(Document.EVACUATION, "411726-fzb", towns), 202)

    async def approve(self, alert: str) -> None:
        """The second person agrees."""
        await self._post(f"/v1/alerts/{alert}/approve", COMMAND_SIGNER, b"", None)

    async def recall(self, alert: str) -> None:
        """The second person takes an evacuation back."""
        reason = orjson.dumps({"reason": "误发"})
        status, _, body = await self._ask(f"/v1/alerts/{alert}/recall", COMMAND_SIGNER, reason, JSON)
        assert status == 200, body

    async def try_to_warn(self, towns: Sequence[str]) -> tuple[int, bool]:
        """Issue as `warn` while something is broken; return the status, and whether it says when to come again."""
        status, headers, _ = await self._ask("/v1/alerts", ISSUER, _message(Document.WARNING, "411726-qxj", towns))
        return status, "Retry-After" in headers

    async def halt(self, *, on: bool) -> None:
        """Stop everything, or let it go on."""
        status, _, body = await self._ask("/v1/halt", ADMIN, orjson.dumps({"scope": "all", "on": on}), JSON)
        assert status == 200, body

    async def waiting(self) -> Counter[str]:
        """Why batches wait, and how many."""
        found: Counter[str] = Counter()
        async with (
            ClientSession(headers={"Authorization": f"Bearer {ISSUER}"}) as session,
            session.get(f"{self.stage.api_url}/v1/stuck") as answer,
        ):
            for one in (await answer.json())["waiting"]:
                found[one["reason"]] += one["batches"]
        return found

    async def _post(self, path: str, token: str, data: bytes, wanted: int | None) -> str:
        status, _, body = await self._ask(path, token, data)
        assert status == wanted or (wanted is None and status < 300), body
        return str(body["id"])

    async def _ask(
        self, path: str, token: str, data: bytes, media: str = CAP
    ) -> tuple[int, Mapping[str, str], dict[str, Any]]:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": media}
        async with (
            ClientSession(headers=headers) as session,
            session.post(self.stage.api_url + path, data=data) as answer,
        ):
            return answer.status, answer.headers, await answer.json(content_type=None)

    async def carrier_gone(self) -> None:
        """Let the carrier refuse connections; what it owes of call-backs it gives first."""
        await self.carrier.settled()
        await self.carrier.stop()

    async def carrier_back(self) -> None:
        """Let the carrier listen again where it did."""
        await self.carrier.start(self._carrier_port)

    async def again(self, role: str) -> None:
        """Kill one process with SIGKILL and start it anew; return once the API answers."""
        self.stage.kill(role)
        self.stage.start_role(role)
        await self.stage.answering()

    # --- what is waited for -----------------------------------------------------------------------

    async def until(self, ready: Callable[[], Any], within_s: float, what: str) -> None:
        """Poll until `ready` (plain or asynchronous) says so."""
        deadline = time.monotonic() + within_s
        while True:
            found = ready()
            if await found if asyncio.iscoroutine(found) else found:
                return
            if time.monotonic() > deadline:
                outputs = "\n".join(f"== {role}\n{self.stage.output(role)}" for role in self.stage.roles)
                raise AssertionError(f"waited {within_s:.0f} s in vain for {what}\n{outputs}")
            await asyncio.sleep(POLL_S)

    async def lines(self, log: str, number: int, needle: str = "") -> None:
        """Wait until a counterpart has logged that many lines with `needle`."""
        await self.until(lambda: self.count(log, needle) >= number, 60, f"{number} lines of {log}")

    def count(self, log: str, needle: str = "") -> int:
        """Return the lines of a log so far that hold `needle`."""
        path = self.folder / log
        if not path.exists():
            return 0
        return sum(needle.encode() in line for line in path.read_bytes().splitlines())

    async def rest(self, alert: str, recipients: Mapping[str, int]) -> dict[str, Any]:
        """Wait until every batch of an alert is settled and its groups have as many recipients as they should."""
        found: dict[str, Any] = {}

        async def settled() -> bool:
            nonlocal found
            found = await self.status(alert) or found
            have: Counter[str] = Counter()
            for row in found.get("counts", ()):
                have[row["group"]] += row["recipients"]
            unfinished = sum(timing["unfinished"] for timing in found.get("timings", ()))
            return not unfinished and all(have[group] >= number for group, number in recipients.items())

        await self.until(settled, 120, f"everything to settle; it stands at {found}")
        return found

    async def status(self, alert: str) -> dict[str, Any] | None:
        """Return an alert's status; None while the API is away."""
        headers = {"Authorization": f"Bearer {ISSUER}"}
        try:
            async with (
                ClientSession(headers=headers) as session,
                session.get(f"{self.stage.api_url}/v1/alerts/{alert}/status") as answer,
            ):
                return dict(await answer.json()) if answer.status == 200 else None
        except ClientError:
            return None

    async def metric(self, url: str, start: str) -> float:
        """Sum a process's metrics whose line starts so."""
        async with ClientSession() as session, session.get(f"{url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    # --- what was to be, and what was -------------------------------------------------------------

    def numbers(self, towns: Collection[str], *, residents: bool) -> Counter[str]:
        """Number → persons who are to get one SMS each."""
        villages = self.villages(towns)
        everybody = expected_numbers(self.roster, Version("", None, frozenset(villages)))
        if residents:
            return everybody
        officials = self._officials(set(towns))
        return Counter({e164(phone): sum(one[0] == phone for one in officials) for phone, _ in officials})

    def persons(self, towns: Collection[str]) -> set[int]:
        """Ids of the residents of these townships; who is an official there hears of it as one (rule 6)."""
        vault, villages = Vault.of(self.stage.secret_key, self.folder), self.villages(towns)
        rows = {
            (row["phone"], row["name"]) for row in _rows(self.roster / "residents.csv") if row["village"] in villages
        }
        return {vault.person_id(e164(phone), name) for phone, name in rows - self._officials(set(towns))}

    def _officials(self, towns: set[str]) -> set[tuple[str, str]]:
        return {(row["phone"], row["name"]) for row in _rows(self.roster / "officials.csv") if row["township"] in towns}

    def devices(self, towns: Collection[str]) -> set[str]:
        """Loudspeakers that are to sound."""
        return {one for one in devices(self.roster, self.villages(towns)) if self.options.character(one) == "sound"}

    def sms(self, signature: str) -> Sms:
        """Texts received that carry this signature."""
        first: Counter[str] = Counter()
        again: Counter[str] = Counter()
        for entry in read(self.folder / "sms.log", "sms"):
            body = entry["body"]
            if body.startswith(signature):
                (again if body.removeprefix(signature).startswith(AGAIN) else first)[entry["to"]] += 1
        return Sms(first, again)

    def texts(self) -> Counter[str]:
        """Number → texts received, whatever they say."""
        return Counter(entry["to"] for entry in read(self.folder / "sms.log", "sms"))

    def noop(self, alert: str) -> dict[int, list[int]]:
        """Person → the attempts under which noop was given it."""
        found: dict[int, list[int]] = {}
        written = (self.folder / "noop.log").read_bytes()
        for line in written[: written.rfind(b"\n") + 1].splitlines():  # the last one may be half written
            entry = orjson.loads(line)
            for person in entry["persons"] if entry["alert"] == alert else ():
                found.setdefault(person, []).append(entry["attempt"])
        return found

    def sounded(self, alert: str) -> Counter[str]:
        """Device → how often it sounded this alert."""
        return sounded(self.folder / "speakers.log", alert)


@asynccontextmanager
async def night(folder: Path, servers: Servers | None = None, **options: Any) -> AsyncIterator[Night]:
    """Open an installation in `folder` with options of `Night`; every process is ended at the end."""
    found = Night(NightStage(folder, servers or Servers()), **options)
    try:
        await found.begin()
        yield found
    finally:
        await found.end()


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _message(document: Document, issuer: str, towns: Sequence[str]) -> bytes:
    now = datetime.now(UTC).replace(microsecond=0)
    area = Area("泌阳县部分乡镇", geocodes=tuple(Code("township", town) for town in towns))
    info = Info(
        "暴雨", language="zh-CN", urgency="Immediate", severity="Extreme", certainty="Observed",
        event_codes=(Code("GB/T 35561", "11B03"),), description="未来3小时将有100毫米以上强降雨", areas=(area,),
        instruction="请立即转移到安置点", expires=now + timedelta(hours=3),
    )  # fmt: skip
    identifier = f"41172641600000_{now:%Y%m%d%H%M%S}_{document.value}_{next(NUMBERS)}"
    sender = f"{issuer}@mingluo.example"
    alert = Alert(
        sender, identifier, now, Status.ACTUAL, Kind.ALERT, document, "11B03", "暴雨", Level.RED, infos=(info,)
    )
    return cap.write(alert)
