"""The gateway's speech: never waits, makes each announcement once, survives its voice, serves what devices trust."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from links import sample_message
from structlog.testing import capture_logs
from test_pipeline import DEVICES, desk
from town import FLOWER
from typer.testing import CliRunner

from gateway.api import mount
from gateway.app import App
from gateway.cli import app
from gateway.errors import ConfigError
from gateway.metrics import REGISTRY
from gateway.model import Audio, Document, Level, Message, Notice, Status
from gateway.settings import Settings
from gateway.speech.announcement import LONGEST, Order
from gateway.speech.cache import Cache
from gateway.speech.pool import Pool, SpeechFailed
from gateway.speech.recording import COLUMNS, Recordings
from gateway.speech.speech import Speech, SpeechSettings

CONFIG = Path(__file__).parent.parent / "config"
TEXT = "泌阳县贾楼乡。暴雨红色预警。"
ORDER = Order(TEXT, "zh", "red")


class Voice:
    """A speech whose finished work can be waited for."""

    def __init__(self, folder: Path, config: Path = CONFIG, url: str = "http://warn.example:8080/") -> None:
        self.finished = asyncio.Queue[None]()
        self.speech = Speech(config, folder, lambda: url, lambda: self.finished.put_nowait(None))

    async def audio(self, message: Message, text: str = TEXT) -> Audio:
        """Ask, wait, ask again."""
        if (ready := self.speech.audio(message, text)) is None:
            await self.finished.get()
            ready = self.speech.audio(message, text)
        assert ready is not None
        return ready

    async def failed(self, message: Message, text: str = TEXT) -> None:
        """Ask for what cannot be made, and wait until that is known."""
        assert self.speech.audio(message, text) is None
        await asyncio.gather(*self.speech._jobs.values())
        assert self.finished.empty()

    def workers(self) -> list[int]:
        """Process ids of the idle workers."""
        return [process.pid for process in self.speech._pool._idle]


@pytest.fixture
async def voice(tmp_path: Path) -> AsyncIterator[Voice]:
    one = Voice(tmp_path / "speech")
    yield one
    await one.speech.close()


@pytest.fixture
async def client(voice: Voice) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    server = web.Application()
    mount(server, voice.speech.routes())
    async with TestClient(TestServer(server)) as one:
        yield one


def alarms() -> float:
    return REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": "speech"}) or 0.0


def copied(config: Path, folder: Path) -> Path:
    """A configuration of one's own: readings and recordings of this installation."""
    (folder / "recordings").mkdir(parents=True)
    (folder / "pronunciation.csv").write_bytes((config / "pronunciation.csv").read_bytes())
    return folder


# --- asking -----------------------------------------------------------------------------------------


async def test_a_platform_is_handed_the_very_bytes_that_devices_fetch(voice: Voice) -> None:
    """The first broadcast of a red warning waits for its sound, and for no other's; the second has it at once."""
    found = await voice.speech.recording(sample_message(), TEXT)
    audio = voice.speech.audio(sample_message(), TEXT)
    assert found is not None
    assert audio is not None
    assert (sha256(found).hexdigest(), len(found)) == (audio.sha256, audio.size_bytes)
    assert await voice.speech.recording(sample_message(), "长" * (LONGEST + 1)) is None


async def test_a_hub_never_waits_and_is_woken_once_it_is_ready(voice: Voice) -> None:
    """A text that takes a second to speak must not hold up the devices that speak themselves."""
    message = sample_message()
    assert voice.speech.audio(message, TEXT) is None
    await voice.finished.get()
    ready = voice.speech.audio(message, TEXT)
    assert ready is not None
    data = (voice.speech._cache.folder / f"{ready.sha256}.mp3").read_bytes()
    assert (sha256(data).hexdigest(), len(data)) == (ready.sha256, ready.size_bytes)
    assert (ready.url, ready.type) == (f"http://warn.example:8080/v1/audio/{ready.sha256}.mp3", "audio/mpeg")
    samples, rate = soundfile.read(voice.speech._cache.folder / f"{ready.sha256}.mp3")
    assert len(samples) / rate == pytest.approx(ready.duration_s, abs=0.001)


async def test_one_announcement_is_made_once_however_many_ask(voice: Voice) -> None:
    """Six thousand devices ask for the same sentence."""
    for _ in range(50):
        assert voice.speech.audio(sample_message(), TEXT) is None
    await voice.finished.get()
    assert len(voice.workers()) == 1
    assert voice.finished.empty()


async def test_the_same_announcement_is_the_same_file_everywhere(tmp_path: Path, voice: Voice) -> None:
    """Two hubs, or one after a restart: a device that has the file need not fetch it again."""
    await voice.audio(sample_message(), "先说一句别的。")  # what was said before must not be heard
    other = Voice(tmp_path / "other")
    assert (await voice.audio(sample_message())).sha256 == (await other.audio(sample_message())).sha256
    await other.speech.close()
    again = Voice(tmp_path / "other")
    await again.audio(sample_message())
    assert again.workers() == [], "it was found on the disk"
    await again.speech.close()


async def test_whatever_changes_the_sound_changes_the_file(voice: Voice) -> None:
    """A drill, a level, a language, a word: none may be served in another's place."""
    changes: list[dict[str, object]] = [{}, {"status": Status.EXERCISE}, {"level": Level.BLUE}, {"language": "en"}]
    made = [await voice.audio(sample_message(**one)) for one in changes] + [
        await voice.audio(sample_message(), "另一句。")
    ]
    assert len({one.sha256 for one in made}) == 5


@pytest.mark.parametrize("status", [one for one in Status if one is not Status.ACTUAL])
async def test_what_is_not_actual_is_ordered_as_a_drill(voice: Voice, status: Status) -> None:
    """From the status alone, for the text may come from anywhere."""
    order = voice.speech.order(sample_message(status=status), "暴雨红色预警")
    assert order.tone == "drill"
    assert order.text.startswith("演练。")
    assert order.recording is None


# --- failing ----------------------------------------------------------------------------------------


async def test_a_failure_alarms_once_and_the_text_goes_out(voice: Voice) -> None:
    """No sound, no wait, no flood of alarms, and no word of the text in the log."""
    before = alarms()
    with capture_logs() as lines:
        for _ in range(3):
            await voice.failed(sample_message(), "☂☂☂")
        await voice.failed(sample_message(), "雨" * (LONGEST + 1))
    assert alarms() - before == 2
    assert [(line["event"], line["why"]) for line in lines] == [
        ("speech_failed", "ValueError"),
        ("speech_failed", "too_long"),
    ]
    assert "雨" not in str(lines)


async def test_a_disk_that_cannot_be_written_costs_the_sound_only(tmp_path: Path) -> None:
    """Full, or gone: the hub's round goes on, and nothing is tried four times a second."""
    (tmp_path / "speech").write_text("a file where the folder should be")
    own, before = Voice(tmp_path / "speech"), alarms()
    for _ in range(3):
        await own.failed(sample_message())
    assert alarms() - before == 1
    await own.speech.close()


async def test_a_worker_that_is_killed_is_replaced(voice: Voice) -> None:
    """Memory ran out an hour ago; the warning of now is spoken all the same, and nobody is alarmed."""
    before = alarms()
    await voice.audio(sample_message())
    (worker,) = voice.workers()
    os.kill(worker, signal.SIGKILL)
    assert (await voice.audio(sample_message(), "第二句。")).duration_s > 1
    assert worker not in voice.workers()
    assert alarms() == before


async def test_without_a_working_worker_a_text_fails_and_does_not_hang(tmp_path: Path) -> None:
    """Two tries, then the text goes out: here the table of readings broke while the gateway ran."""
    (tmp_path / "pronunciation.csv").write_text("word,pinyin,note\n泌阳,bi4,\n")
    pool = Pool(tmp_path)
    with pytest.raises(SpeechFailed, match="worker_died"):
        await pool.make(ORDER)
    await pool.close()
    assert not pool._all


async def test_a_worker_that_hangs_is_cut_off(tmp_path: Path) -> None:
    """A stopped process answers nothing, for ever."""
    pool = Pool(CONFIG, limit_s=60.0, workers=1)
    await pool.make(ORDER)
    pool._limit_s = 0.2
    os.kill(pool._idle[0].pid, signal.SIGSTOP)
    with pytest.raises(SpeechFailed, match="too_slow"):
        await pool.make(ORDER)
    pool._limit_s = 60.0
    assert await pool.make(ORDER) > 1
    await pool.close()
    assert not pool._all


async def test_the_most_urgent_is_spoken_next_whatever_came_before(tmp_path: Path) -> None:
    """A county's drill asks for two hundred texts; the red warning in the midst of it waits for the one under way."""
    pool, done = Pool(CONFIG, workers=1), list[str]()

    async def make(tone: str) -> None:
        await pool.make(Order(TEXT, "zh", tone))
        done.append(tone)

    waiting = [asyncio.create_task(make(tone)) for tone in ("drill", "drill", "blue", "drill", "orange")]
    await asyncio.sleep(0)
    waiting[1].cancel()  # nobody waits for it any more: its turn is not lost
    await asyncio.gather(*waiting, make("red"), return_exceptions=True)
    assert done == ["drill", "red", "orange", "blue", "drill"]
    await pool.close()


async def test_a_worker_gets_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """It loads code the gateway does not trust with its address space; so not with its keys."""
    monkeypatch.setenv("MINGLUO_SECRET_KEY", "hush")
    pool = Pool(CONFIG)
    await pool.make(ORDER)
    environment = await asyncio.to_thread(Path(f"/proc/{pool._idle[0].pid}/environ").read_bytes)
    await pool.close()
    assert b"PATH" in environment
    assert b"hush" not in environment


# --- keeping ----------------------------------------------------------------------------------------


def kept(cache: Cache, number: int, size: int = 400_000) -> str:
    """Keep a file; return its name."""
    key = f"{number:064x}"
    draft = cache.draft(key)
    draft.write_bytes(number.to_bytes(4, "big") * (size // 4))
    return cache.keep(key, draft, "mp3", 1.0).name


def test_the_cache_is_bounded_and_the_longest_unused_go_first(tmp_path: Path) -> None:
    """A season of warnings must not fill the disk that the database needs."""
    cache = Cache(tmp_path / "speech", 1_000_000)
    first, second = kept(cache, 1), kept(cache, 2)
    for age_s, name in ((100, first), (200, second)):
        path = cache.folder / name
        os.utime(path, ns=(path.stat().st_atime_ns - age_s * 10**9, path.stat().st_mtime_ns))
    assert cache.find(f"{1:064x}") is not None
    third = kept(cache, 3)
    assert {path.name for path in cache.folder.glob("*.mp3")} == {first, third}
    assert cache.find(f"{2:064x}") is None
    assert sorted(path.name for path in (cache.folder / "orders").iterdir()) == [f"{1:064x}", f"{3:064x}"]
    assert not list(cache.folder.rglob("*.part"))


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"")])
async def test_a_lost_or_torn_file_is_made_again(voice: Voice, harm: Callable[[Path], object]) -> None:
    """Somebody tidied up, or the power failed: the next device still gets its sound."""
    ready = await voice.audio(sample_message())
    harm(voice.speech._cache.folder / f"{ready.sha256}.mp3")
    after = Voice(voice.speech._cache.folder)
    assert await after.audio(sample_message()) == ready
    await after.speech.close()


async def test_a_file_evicted_meanwhile_is_noticed(voice: Voice) -> None:
    """What is not there any more is not promised to a device."""
    ready = await voice.audio(sample_message())
    (voice.speech._cache.folder / f"{ready.sha256}.mp3").unlink()
    voice.speech._used.clear()  # as after ten minutes
    assert voice.speech.audio(sample_message(), TEXT) is None
    await voice.finished.get()
    assert voice.speech.audio(sample_message(), TEXT) == ready


# --- serving ----------------------------------------------------------------------------------------


async def test_a_device_fetches_the_file_it_was_promised(
    voice: Voice, client: TestClient[web.Request, web.Application]
) -> None:
    """Whole, by its digest, kept for ever by any cache on the way; asked again, it need not be sent."""
    ready = await voice.audio(sample_message())
    path = f"/v1/audio/{ready.sha256}.mp3"
    got = await client.get(path)
    body = await got.read()
    assert (got.status, sha256(body).hexdigest(), len(body)) == (200, ready.sha256, ready.size_bytes)
    assert got.headers["Content-Type"] == "audio/mpeg"
    assert "immutable" in got.headers["Cache-Control"]
    again = await client.get(path, headers={"If-None-Match": got.headers["ETag"]})
    assert (again.status, await again.read()) == (304, b"")
    head = await client.head(path)
    assert (head.status, head.headers["Content-Length"], await head.read()) == (200, str(ready.size_bytes), b"")


async def test_a_fetch_that_broke_off_goes_on(voice: Voice, client: TestClient[web.Request, web.Application]) -> None:
    """4G in the hills: the rest is fetched by range, and use in between does not change the ETag."""
    ready = await voice.audio(sample_message())
    path = f"/v1/audio/{ready.sha256}.mp3"
    first = await client.get(path, headers={"Range": "bytes=0-999"})
    voice.speech._used.clear()
    voice.speech.audio(sample_message(), TEXT)  # touches the file
    rest = await client.get(path, headers={"Range": "bytes=1000-", "If-Range": first.headers["ETag"]})
    assert (first.status, rest.status) == (206, 206)
    assert rest.headers["Content-Range"] == f"bytes 1000-{ready.size_bytes - 1}/{ready.size_bytes}"
    assert sha256(await first.read() + await rest.read()).hexdigest() == ready.sha256
    beyond = await client.get(path, headers={"Range": f"bytes={ready.size_bytes}-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{ready.size_bytes}")


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/orders", "/..%2F..%2Fmingluo.db", "/%2e%2e/mingluo.db", "/" + "0" * 64 + ".mp3", "/" + "0" * 64,
        "/" + "0" * 64 + ".mp3.part", "/orders%2F" + "0" * 64,
    ],
)  # fmt: skip
async def test_nothing_else_is_served(
    voice: Voice, client: TestClient[web.Request, web.Application], path: str
) -> None:
    """No list of what was announced, no other file of the data folder."""
    await voice.audio(sample_message())
    (voice.speech._cache.folder.parent / "mingluo.db").write_text("rows")
    assert (await client.get(f"/v1/audio{path}")).status == 404


# --- settings and recordings ------------------------------------------------------------------------


def test_wrong_settings_name_the_key(tmp_path: Path) -> None:
    """A typing error must not silently mean the default."""
    (tmp_path / "speech.toml").write_text('form = "ogg"\nraet = 100\n')
    with pytest.raises(ConfigError, match=r"form.*raet"):
        SpeechSettings.load(tmp_path)
    assert SpeechSettings.load(CONFIG) == SpeechSettings()


def recorded(config: Path, *rows: str, **sounds: np.ndarray) -> Recordings:
    """Recordings of a configuration: index rows, and sounds by file name without ending."""
    folder = config / "recordings"
    folder.mkdir(parents=True, exist_ok=True)
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, 16_000)
    (folder / "index.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    return Recordings.load(config)


def tone(seconds: float = 2.0, level: float = 0.3) -> np.ndarray:
    return level * np.sin(np.arange(round(seconds * 16_000)) / 8)


def test_the_recording_that_says_most_of_a_warning_is_chosen(tmp_path: Path) -> None:
    """A county's own voice before the general one; another county's never."""
    found = recorded(
        tmp_path,
        ",,,,zh,before,any.wav", "11B03,red,,,zh,before,rain.wav", "11B03,,411726,,zh,instead,biyang.wav",
        ",,411721,,zh,instead,xiping.wav", ",,411726,all_clear,zh,instead,clear.wav",
        any=tone(), rain=tone(), biyang=tone(), xiping=tone(), clear=tone(),
    )  # fmt: skip

    def chosen(**changes: object) -> str:
        values = {"hazard": "11B03", "region": "411726201"} | changes
        recording = found.choose(sample_message(**values))
        return Path(recording.path).stem if recording else ""

    assert chosen() == "biyang"
    assert chosen(region="411727201") == "rain"
    assert chosen(region="411721201") == "xiping"
    assert chosen(hazard="11D02") == "any"
    assert chosen(hazard="11D02", notice=Notice.ALL_CLEAR) == "clear"
    assert chosen(language="en") == ""


@pytest.mark.parametrize("status", [one for one in Status if one is not Status.ACTUAL])
def test_a_drill_never_uses_a_recording(tmp_path: Path, status: Status) -> None:
    """A recording has no drill mark before its first word."""
    found = recorded(tmp_path, ",,,,zh,instead,any.wav", any=tone())
    assert found.choose(sample_message(status=status)) is None
    assert found.choose(sample_message()) is not None


@pytest.mark.parametrize(
    ("name", "sound", "fault"),
    [
        ("quiet", tone(level=0.01), "dBFS"),
        ("shrill", np.sign(tone(level=1.0)), "dBFS"),
        ("short", tone(0.3), "lasts 0.3 s"),
        ("long", tone(90.0), "lasts 90.0 s"),
        ("late", np.concatenate([np.zeros(32_000), tone(5.0, 0.5)]), "silence"),
        ("good", tone(), ""),
    ],
)
def test_what_a_listener_would_complain_of_is_found_before(
    tmp_path: Path, name: str, sound: np.ndarray, fault: str
) -> None:
    """Nobody records again in the night of the flood."""
    faults = list(recorded(tmp_path, f",,,,zh,before,{name}.wav", **{name: sound}).faults())
    assert [fault in one for one in faults] == [True] * bool(fault)


def test_a_file_that_is_no_sound_is_found(tmp_path: Path) -> None:
    """Renamed is not converted."""
    recorded(tmp_path, ",,,,zh,before,any.wav", any=tone())
    (tmp_path / "recordings" / "any.wav").write_text("RIFF, or so")
    assert ["is not a sound file" in one for one in Recordings.load(tmp_path).faults()] == [True]


@pytest.mark.parametrize(
    "row",
    [
        ",,,,zh,before,none.wav", ",,,,zh,after,any.wav", ",crimson,,,zh,before,any.wav", ",,4117,,zh,before,any.wav",
        ",,,,fr,before,any.wav", ",,,,zh,before,../any.wav", ",,,,zh,before,any.exe", ",,,stop,zh,before,any.wav",
    ],
)  # fmt: skip
def test_a_wrong_row_of_the_index_is_named(tmp_path: Path, row: str) -> None:
    """The line, so that it can be mended."""
    with pytest.raises(ConfigError, match="line 3"):
        recorded(tmp_path, ",,,,zh,before,any.wav", row, any=tone())


async def test_a_recording_is_heard_and_changes_the_file(tmp_path: Path, voice: Voice) -> None:
    """Replacing the file makes new announcements, not the old ones again."""
    config = copied(CONFIG, tmp_path / "config")
    digests = [(await voice.audio(sample_message())).sha256]
    for level in (0.2, 0.4):
        recorded(config, ",,,,zh,before,any.wav", any=np.concatenate([tone(1, level), tone(1, 0.1)]))
        own = Voice(tmp_path / "speech", config)
        digests.append((await own.audio(sample_message(document=Document.WARNING))).sha256)
        await own.speech.close()
    assert len(set(digests)) == 3


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"RIFF")])
async def test_a_recording_lost_on_the_way_gives_way_to_the_voice(
    tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    """Deleted, or replaced by one nobody checked, while the gateway runs: the text is spoken, and it is said aloud."""
    config = copied(CONFIG, tmp_path / "config")
    recorded(config, ",,,,zh,instead,any.wav", any=tone())
    own, before = Voice(tmp_path / "speech", config), alarms()
    harm(config / "recordings" / "any.wav")
    heard = await own.audio(sample_message())
    own.speech._recordings = Recordings(config, (), ())
    assert heard == await own.audio(sample_message())
    assert alarms() - before == 1
    await own.speech.close()


# --- without the extra ------------------------------------------------------------------------------

BLOCKED = """
import sys
for name in ("espeakng_loader", "pypinyin", "soundfile"):
    sys.modules[name] = None
from pathlib import Path
import gateway.app
from gateway.speech.speech import Speech
print(Speech.open(Path(sys.argv[1]), Path("nowhere"), str, print))
"""


def test_without_the_extra_the_gateway_starts_and_says_what_to_install() -> None:
    """Speech is for devices that cannot speak; the others must not depend on it."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(CONFIG)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "None"
    assert "pip install 'mingluo[speech]'" in done.stdout + done.stderr


# --- the command line and the whole gateway ---------------------------------------------------------


def test_an_operator_hears_what_a_text_becomes(tmp_path: Path) -> None:
    """How it is read, in pinyin, and how long it lasts; a drill starts with its mark here, too."""
    runner, out = CliRunner(), tmp_path / "drill.wav"
    done = runner.invoke(app, ["speech", "say", "泌阳县30%", "--drill", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "yan3 lian4 。 bi4 yang2 xian4 bai3 fen1 zhi1 san1 shi2" in done.stderr
    assert f"{soundfile.info(out).duration:.1f} s" in done.stderr
    assert runner.invoke(app, ["speech", "say", "雨", "--out", str(tmp_path / "rain.ogg")]).exit_code == 2
    assert runner.invoke(app, ["speech", "say", "☂", "--out", str(tmp_path / "rain.mp3")]).exit_code == 1


def test_the_check_names_what_would_be_read_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error, a township without a row, a recording that is not there: before the storm."""
    config = copied(CONFIG, tmp_path / "config")
    (config / "regions").mkdir()
    (config / "regions" / "4117.csv").write_bytes((CONFIG / "regions" / "4117.csv").read_bytes())
    rows = (config / "pronunciation.csv").read_text().replace("泌水街道,bi4 ", "泌水街道,bo4 ")
    rows = "".join(row for row in rows.splitlines(keepends=True) if not row.startswith("蔡都街道,"))
    (config / "pronunciation.csv").write_text(rows)
    monkeypatch.setenv("MINGLUO_CONFIG", str(config))
    found = CliRunner().invoke(app, ["speech", "check"])
    assert (found.exit_code, found.output.count("warning")) == (0, 2)
    assert "蔡都街道" in found.output
    assert "泌水街道" in found.output
    (config / "recordings" / "index.csv").write_text(",".join(COLUMNS) + "\n,,,,zh,before,gone.wav\n")
    found = CliRunner().invoke(app, ["speech", "check"])
    assert found.exit_code == 1
    assert "gone.wav" in found.output


async def test_a_lost_recording_keeps_no_gateway_from_starting(tmp_path: Path) -> None:
    """Texts go out without it; the log and the doctor say why there is no sound."""
    config = copied(CONFIG, tmp_path / "config")
    (config / "recordings" / "index.csv").write_text(",".join(COLUMNS) + "\n,,,,zh,before,gone.wav\n")
    before = alarms()
    with capture_logs() as lines:
        assert Speech.open(config, tmp_path / "speech", str, lambda: None) is None
    assert alarms() - before == 1
    assert "gone.wav" in lines[0]["why"]


async def test_the_gateway_speaks_for_its_loudspeakers_and_serves_the_file(tmp_path: Path) -> None:
    """Wired from a channel's link to the address in the command."""
    (tmp_path / "channels.toml").write_text("[loudspeaker_ws]\n")
    settings = Settings(data=tmp_path / "data", channels=tmp_path / "channels.toml", port=0)
    async with App(settings) as gateway, ClientSession() as session:
        link = gateway.core.links["loudspeaker_ws"]
        assert link.audio(sample_message(), TEXT) is None
        assert gateway.speech is not None
        await asyncio.gather(*gateway.speech._jobs.values())
        assert gateway.speech._ready == gateway._wake_hubs, "the hub looks again at once"
        ready = link.audio(sample_message(), TEXT)
        assert ready is not None
        async with session.get(ready.url) as got:
            assert sha256(await got.read()).hexdigest() == ready.sha256


async def test_a_mute_loudspeaker_of_a_warned_village_gets_the_sound_of_its_own_text(tmp_path: Path) -> None:
    """The whole way: a red warning comes in, is spoken, is signed with its digest, and is fetched and whole."""
    async with (
        desk(tmp_path, channels=f'[noop]\nlog = "{tmp_path / "noop.log"}"\n[loudspeaker_ws]\n') as one,
        ClientSession(f"http://127.0.0.1:{one.app.port}") as session,
        session.ws_connect(
            f"/v1/devices/{DEVICES[0][0]}/ws", headers={"Authorization": f"Bearer {DEVICES[0][2]}"}
        ) as device,
    ):
        await device.send_json({"type": "hello", "protocol": 2, "firmware": "1", "speech": False, "audio": True})
        await one.issue(one.alert([FLOWER]))
        payload = (await device.receive_json(timeout=60))["payload"]
        told = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert "花园街道" in told["text"]
        async with session.get(told["audio"]["url"]) as got:
            data = await got.read()
        assert (sha256(data).hexdigest(), len(data)) == (told["audio"]["sha256"], told["audio"]["size"])
        samples, rate = soundfile.read(BytesIO(data))
        assert len(samples) / rate == pytest.approx(told["audio"]["duration_s"], abs=0.001)
