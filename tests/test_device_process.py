"""The real device program against a real gateway process: killed, attacked on the line, offline, with a wrong clock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web
from aiohttp.test_utils import TestServer
from device_gateway import KEY, NAME, VILLAGE, Signer, gateway_of, play
from town import FLOWER, FLOWER_1, FLOWER_2, places, table

from gateway import cap
from gateway.database import Database
from gateway.demo.stage import Servers, Stage
from gateway.device import control
from gateway.directory.importer import Importer
from gateway.directory.table import Roster
from gateway.directory.vault import Vault
from gateway.errors import ConfigError
from gateway.model import Alert, Area, Code, Document, Info, Kind, Level, Status
from gateway.simulate.log import read

HERE = Path(__file__).parent
ISSUER, SIGNER = "demo-411726-qxj-issuer", "demo-411726-qxj-signer"
DEVICES = (("lb-1", FLOWER_1, "sample-key-of-lb-1"), ("lb-2", FLOWER_2, "sample-key-of-lb-2"))
HAZARDS = (
    ("11B03", "暴雨"),
    ("11B04", "暴雪"),
    ("11B15", "冰雹"),
)  # all with a green channel; each once, no repetition
PATIENCE_S = 100


class Wall:
    """The wall clock, for the import."""

    def now(self) -> datetime:
        """Aware UTC."""
        return datetime.now(UTC)

    async def sleep(self, wait_s: float) -> None:
        """Sleep."""
        await asyncio.sleep(wait_s)


@dataclass
class Village:
    """A gateway process, and device processes that keep in a folder what they would sound."""

    stage: Stage
    _number: int = 0

    async def begin(self) -> None:
        """Import two devices and start the gateway."""
        data = self.stage.folder / "data"
        data.mkdir()
        (self.stage.folder / "channels.toml").write_text("[loudspeaker_ws]\nrepeat = 1\n", encoding="utf8")
        database = Database(f"sqlite:///{data / 'mingluo.db'}")
        await database.open()
        importer = Importer(database, Vault.of(self.stage.secret_key, self.stage.folder), places(), Wall())
        assert (await importer.read(table(Roster.DEVICES, *DEVICES), Roster.DEVICES)).errors == ()
        await database.close()
        await self.stage.start_gateway()

    def device(self, name: str, *, url: str = "", pin: str = "", skewed: bool = False) -> None:
        """Start one device program."""
        _, village, key = next(row for row in DEVICES if row[0] == name)
        script = [str(HERE / "device_skewed.py")] if skewed else ["-m", "gateway.cli"]
        command = [
            *script, "device", "run", "--name", name, "--village", village, "--url", url or self.stage.hub_url,
            "--pin", pin or self.stage.pin, "--state", str(self.state(name)), "--sound-to", str(self.sound(name)),
            "--speak-with", f"{sys.executable} {HERE / 'device_voice.py'} {{file}}",
        ]  # fmt: skip
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MINGLUO_")}
        self.stage.start(name, command, inherited | {"MINGLUO_DEVICE_KEY": key})

    def state(self, name: str) -> Path:
        """Where a device keeps its memory."""
        return self.stage.folder / name

    def sound(self, name: str) -> Path:
        """Where a device keeps its sound."""
        return self.stage.folder / f"{name}-sound"

    def heard(self, name: str, kind: str, alert: str = "") -> list[str]:
        """Ids of what began to sound ("sound"), or was heard to the end ("end")."""
        return [one["id"] for one in read(self.sound(name) / "sound.jsonl", kind) if alert in ("", one["id"])]

    async def status(self, name: str) -> dict[str, Any]:
        """What a running device says of itself; nothing while it starts."""
        with contextlib.suppress(ConfigError):
            return await asyncio.to_thread(control.press, self.state(name), "status")
        return {}

    async def connected(self, name: str) -> None:
        """Wait until a device is there and has nothing more to say."""

        async def there() -> bool:
            status = await self.status(name)
            return bool(status.get("connected")) and status["owed"] == 0 and status["playing"] is None

        await self.until(there, f"{name} to be connected")

    async def warn(self) -> Alert:
        """Issue a red warning for both villages."""
        code, event = HAZARDS[self._number]
        self._number += 1
        now = datetime.now(UTC).replace(microsecond=0)
        info = Info(
            event, language="zh-CN", urgency="Immediate", severity="Extreme", certainty="Observed",
            event_codes=(Code("GB/T 35561", code),), expires=now + timedelta(hours=3),
            description=f"第{self._number}号", areas=(Area("花园", geocodes=(Code("township", FLOWER),)),),
        )  # fmt: skip
        alert = Alert(
            "411726-qxj@mingluo.example", f"process-{self._number}", now, Status.ACTUAL, Kind.ALERT,
            Document.WARNING, code, event, Level.RED, infos=(info,),
        )  # fmt: skip
        assert await self.post("/v1/alerts", ISSUER, cap.write(alert), "application/cap+xml") == 202
        return alert

    async def recall(self, alert: Alert) -> None:
        """Take it back."""
        reason = orjson.dumps({"reason": "误发"})
        assert await self.post(f"/v1/alerts/{alert.id}/recall", SIGNER, reason, "application/json") == 200

    async def post(self, path: str, token: str, data: bytes, media: str) -> int:
        """Ask the API; return the status."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": media}
        async with (
            ClientSession(headers=headers) as session,
            session.post(self.stage.api_url + path, data=data) as answer,
        ):
            await answer.read()
            return answer.status

    async def played(self, alert: Alert) -> int:
        """How many loudspeakers have played it, as the gateway knows."""
        headers = {"Authorization": f"Bearer {ISSUER}"}
        url = f"{self.stage.api_url}/v1/alerts/{alert.id}/status"
        async with ClientSession(headers=headers) as session, session.get(url) as answer:
            counts = (await answer.json()).get("counts", ())
        rows = [row for row in counts if (row["group"], row["state"]) == ("loudspeakers", "played")]
        return sum(row["recipients"] for row in rows)

    async def until(self, holds: Callable[[], Any], what: str) -> None:
        """Wait until it is so."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    found = holds()
                    if await found if asyncio.iscoroutine(found) else found:
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            outputs = "\n".join(f"== {name}\n{self.stage.output(name)}" for name in self.stage.processes)
            raise AssertionError(f"waited in vain for {what}\n{outputs}") from None


@asynccontextmanager
async def village_of(folder: Path) -> AsyncIterator[Village]:
    """Run a gateway; every process is ended at the end."""
    village = Village(Stage(folder, Servers()))
    try:
        await village.begin()
        yield village
    finally:
        village.stage.stop()


@dataclass
class Middle:
    """Somebody on the line between a device and its gateway, who hears everything and says what he likes."""

    gateway: str
    told: list[dict[str, Any]] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)
    device: web.WebSocketResponse | None = None
    deaf: bool = False
    """Let nothing of the gateway's through."""
    url: str = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Relay one connection."""
        self.device = device = web.WebSocketResponse()
        await device.prepare(request)
        headers = {"Authorization": request.headers["Authorization"]}
        async with ClientSession() as session, session.ws_connect(self.gateway + request.path, headers=headers) as up:
            back = asyncio.create_task(self._back(up, device))
            async for frame in device:
                if frame.type is WSMsgType.TEXT:
                    self.said.append(orjson.loads(frame.data))
                    await up.send_str(frame.data)
            back.cancel()
            await asyncio.wait([back])
        return device

    async def _back(self, up: ClientWebSocketResponse, device: web.WebSocketResponse) -> None:
        async for frame in up:
            self.told.append(orjson.loads(frame.data))
            if not self.deaf:
                await device.send_str(frame.data)
        await device.close()

    def command(self) -> dict[str, Any] | None:
        """The last command the gateway gave."""
        return next((one for one in reversed(self.told) if one["type"] == "command"), None)

    async def say(self, frame: dict[str, Any]) -> None:
        """Say something to the device in the gateway's place."""
        assert self.device is not None
        await self.device.send_str(orjson.dumps(frame).decode())

    def codes(self) -> list[str]:
        """Codes of what the device has refused."""
        return [one["code"] for one in self.said if one["type"] == "receipt" and one["state"] == "failed"]


@asynccontextmanager
async def middle_of(gateway: str) -> AsyncIterator[Middle]:
    """Get between."""
    middle = Middle(gateway)
    app = web.Application()
    app.router.add_get("/v1/devices/{name}/ws", middle.serve)
    async with TestServer(app, host="127.0.0.1") as server:
        middle.url = str(server.make_url("")).rstrip("/")
        yield middle
        if middle.device is not None:
            await middle.device.close()


@pytest.mark.timeout(400)
async def test_a_killed_device_plays_what_it_had_not_and_nothing_twice(tmp_path: Path) -> None:
    """Killed in mid-sentence, again after the end, and of the gateway: the village hears the whole of it, once.

    Beside it stands a device whose clock is a day wrong: by it, the warning ended yesterday.
    """
    async with village_of(tmp_path) as village:
        village.device("lb-1")
        village.device("lb-2", skewed=True)
        await village.connected("lb-1")
        await village.connected("lb-2")
        red = await village.warn()
        await village.until(lambda: village.heard("lb-1", "sound", red.id), "the red one to sound")
        village.stage.kill("lb-1")
        assert village.heard("lb-1", "end") == []
        village.device("lb-1")
        await village.until(lambda: village.heard("lb-1", "end", red.id), "the red one to be heard to the end")
        await village.connected("lb-1")
        await village.connected("lb-2")
        village.stage.kill("lb-1")
        village.stage.kill("serve")
        village.stage.start_role("serve")
        await village.stage.answering()
        village.device("lb-1")
        await village.until(lambda: _is(village.played(red), 2), "both villages to have heard it")
        await village.connected("lb-1")
        await village.connected("lb-2")
        assert village.heard("lb-1", "sound") == [red.id, red.id]
        assert (
            village.heard("lb-1", "end") == village.heard("lb-2", "end") == village.heard("lb-2", "sound") == [red.id]
        )
        clock = datetime.fromisoformat((await village.status("lb-2"))["clock"])
        assert clock - datetime.now(UTC) > timedelta(hours=23)


@pytest.mark.timeout(400)
async def test_whoever_is_on_the_line_makes_a_village_hear_nothing(tmp_path: Path) -> None:
    """Played back, altered, under other names, held back until it was recalled, or signed by a gateway of his own."""
    async with AsyncExitStack() as ends:
        village = await ends.enter_async_context(village_of(tmp_path))
        middle = await ends.enter_async_context(middle_of(village.stage.hub_url))
        village.device("lb-1", url=middle.url)
        await village.connected("lb-1")
        red = await village.warn()
        await village.until(lambda: village.heard("lb-1", "end", red.id), "the red one to be heard")
        await village.connected("lb-1")
        frame = middle.command()
        assert frame is not None
        for position in range(5):
            await middle.say({**frame, "position": position})
        await middle.say({**frame, "payload": Signer().sign(play("forged"))["payload"]})
        stranger = Signer()
        await middle.say({"type": "command", **stranger.sign(play("own", to=FLOWER)), "batch": "b", "position": 1})
        await village.until(lambda: middle.codes() == ["bad_signature"] * 2, "both forgeries to be refused")

        middle.deaf = True
        held = await village.warn()
        await village.until(lambda: middle.command() not in (None, frame), "the second one to be held back")
        late = middle.command()
        assert late is not None
        await village.recall(held)
        await village.until(lambda: (middle.command() or late) is not late, "its stop to be held back")
        stop = middle.command()
        assert stop is not None
        for one in (stop, late, late):
            await middle.say(one)
        middle.deaf = False
        third = await village.warn()
        await village.until(lambda: village.heard("lb-1", "end", third.id), "the third one to be heard")
        assert village.heard("lb-1", "sound", red.id) == [red.id]
        assert village.heard("lb-1", "sound", held.id) == []
        assert {"forged", "own"}.isdisjoint(village.heard("lb-1", "sound"))


@pytest.mark.timeout(400)
async def test_what_was_recalled_while_a_device_was_away_is_never_heard(tmp_path: Path) -> None:
    """T22: the power comes back after the storm; and a gateway that is not the pinned one makes no sound at all."""
    async with village_of(tmp_path) as village:
        village.device("lb-2", pin=Signer().pin)
        await village.connected("lb-2")
        red = await village.warn()
        await village.recall(red)
        village.device("lb-1")
        await village.connected("lb-1")
        second = await village.warn()
        await village.until(lambda: village.heard("lb-1", "end", second.id), "the second one to be heard")
        assert village.heard("lb-1", "sound", red.id) == []
        assert village.heard("lb-2", "sound") == []
        assert "bad_signature" in village.stage.output("lb-2")


async def cli(*words: object) -> tuple[int, str, str]:
    """Run `mingluo device …`; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", "device", *map(str, words),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_device_ends_in_order_and_its_buttons_work_from_a_terminal(tmp_path: Path) -> None:
    """SIGTERM in mid-sentence: silent at once, nothing lost, and the sentence comes whole after the start."""
    async with gateway_of() as gateway:
        stage = Stage(tmp_path, Servers())
        config, key, state = tmp_path / "device.toml", tmp_path / "device.key", tmp_path / "state"
        key.touch(0o600)
        key.write_text(KEY)
        config.write_text(
            f'name = "{NAME}"\nvillage = "{VILLAGE}"\nurl = "{gateway.url}"\npins = ["{gateway.signer.pin}"]\n'
            f'key_file = "{key}"\nstate = "{state}"\nsound_to = "{tmp_path / "sound"}"\n'
            f"speak_with = '{sys.executable} {HERE / 'device_voice.py'} {{file}}'\n"
        )
        command = ["-m", "gateway.cli", "device", "run", "--config", str(config)]
        try:
            stage.start(NAME, command)
            await gateway.hears(type="state")
            assert (await cli("alarm", "--state", state))[0] == 0
            await gateway.hears(type="alarm")
            stage.processes[NAME].send_signal(signal.SIGUSR1)
            await gateway.until(lambda: sum(one["type"] == "alarm" for one in gateway.heard) == 2)
            assert (await cli("microphone", "on", "--state", state))[0] == 0
            await gateway.tell(play("a"))
            await gateway.hears(state="busy", code="live_speech")
            assert (await cli("microphone", "off", "--state", state))[0] == 0
            await gateway.hears(state="playing")
            status = orjson.loads((await cli("status", "--state", state))[1])
            assert (status["playing"], status["connected"], status["time_known"]) == ("a", True, True)
            stage.processes[NAME].terminate()
            assert await asyncio.to_thread(stage.processes[NAME].wait, 20) == 0
            assert [one["kind"] for one in read(tmp_path / "sound" / "sound.jsonl")] == ["sound", "silenced"]
            code, _, complaint = await cli("status", "--state", state)
            assert code == 2
            assert "no device answers here" in complaint
            stage.start(NAME, command)
            await gateway.hears(state="played")
        finally:
            stage.stop()
        kinds = [one["kind"] for one in read(tmp_path / "sound" / "sound.jsonl")]
        assert kinds == ["sound", "silenced", "sound", "end"]
        assert KEY not in stage.output(NAME)


async def _is(found: Any, wanted: int) -> bool:
    return bool(await found == wanted)
