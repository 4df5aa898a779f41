"""The loudspeaker program against a gateway that may be wrong, away, or somebody else."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import select
import ssl
import stat
import sys
import wave
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from device_gateway import KEY, NAME, VILLAGE, Gateway, Signer, b64, gateway_of, order, play, time
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.device import box, control, tone
from gateway.device.command import Night, Play, Recording, read
from gateway.device.disk import Disk
from gateway.device.parts import Parts
from gateway.device.program import Program
from gateway.device.settings import load
from gateway.device.sound import Broken, Clip, Folder, Speaker, arguments, player, run
from gateway.device.studio import Studio, mark
from gateway.device.transport import Backoff, Unreached
from gateway.device.trust import Trust, Untrusted, claimed_id, decode, signed_of
from gateway.device.volume import Policy
from gateway.device.websocket import WebSocket, seconds
from gateway.errors import ConfigError

SPEAK = f"{sys.executable} {Path(__file__).parent / 'device_voice.py'} {{file}}"


@dataclass
class Horn:
    """An output that sounds until it is told to end."""

    heard: list[tuple[str, int, list[str]]] = field(default_factory=list)
    silenced: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    broken: str = ""
    once: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    async def play(self, clips: Sequence[Clip], volume: int, what: str) -> Sequence[float]:
        if self.broken:
            code, self.broken = self.broken, "" if self.once else self.broken
            raise Broken(code)
        self.heard.append((what, volume, [f"{clip.file.name.partition('-')[0]}:{content(clip)}" for clip in clips]))
        self.began.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.silenced.append(what)
            raise
        return [0.5] * (len(clips) - 1) + [7.5]

    def ids(self) -> list[str]:
        return [what for what, _, _ in self.heard]


def content(clip: Clip) -> str:
    """Return what the voice of the tests has said into a file, or a signal's name."""
    file = clip.file
    if file.name.startswith("signal"):
        return file.stem.partition("-")[2]
    said = file.read_bytes().rpartition(b"SAID")[2]
    return said.decode()


def parts(gateway: Gateway, folder: Path, horn: Horn, signer: Signer | None = None, **changes: Any) -> Parts:
    values: dict[str, Any] = {
        "name": NAME, "village": VILLAGE, "firmware": "test-1", "trust": Trust.pinned([(signer or gateway.signer).pin]),
        "disk": Disk(folder), "transport": WebSocket(gateway.url, NAME, KEY), "output": horn,
        "studio": Studio(folder / "sound", SPEAK), "boot": "boot-1",
    }  # fmt: skip
    return Parts(**values | changes)


@asynccontextmanager
async def device(gateway: Gateway, folder: Path, horn: Horn, **changes: Any) -> AsyncIterator[Program]:
    """Run a device until the end of the block; it is connected at its beginning."""
    made = parts(gateway, folder, horn, **changes)
    program = Program(made)
    before = gateway.connections
    task = asyncio.create_task(program.run())
    try:
        await gateway.until(lambda: gateway.connections > before)
        yield program
    finally:
        task.cancel()
        await asyncio.wait([task])
        made.disk.close()
    assert task.cancelled()


# -- from frame to sound -----------------------------------------------------------------------------------------------


async def test_a_warning_is_spoken_once_and_reported_from_received_to_played(tmp_path: Path) -> None:
    """The whole way: verified, remembered, a signal, the words, and the receipts."""
    horn = Horn()
    async with gateway_of() as gateway, device(gateway, tmp_path, horn):
        hello = await gateway.hears(type="hello")
        known = {"type": "hello", "protocol": 2, "firmware": "test-1", "speech": True, "audio": True}
        assert hello == known | {"nonce": hello["nonce"]}
        assert len(hello["nonce"]) >= 16
        told = await gateway.tell(play())
        await gateway.say(told)
        played = await gateway.hears(state="played")
        assert (played["id"], played["batch"], played["position"], played["heard_s"]) == ("a", "batch", 1, 7.5)
        await gateway.tell(play(), position=9)
        await gateway.hears(state="played", position=9)
    assert horn.heard == [("a", 80, ["signal:warning", "speech:涨水，快走"])]


STATUSES = ["Actual", "Exercise", "System", "Test", "Draft", "actual", "", None]


@pytest.mark.parametrize(
    ("status", "drill", "audio"), list(product(STATUSES, [False, True, None, 0, "false"], [False, True]))
)
async def test_only_actual_and_no_drill_sounds_real(status: Any, drill: Any, audio: bool, tmp_path: Path) -> None:
    """Rule 3 at the loudspeaker itself, with the device's voice and with the gateway's recording."""
    data = b"SAID" + "录音".encode()
    name = hashlib.sha256(data).hexdigest()
    studio = Studio(tmp_path, SPEAK)
    (tmp_path / f"audio-{name}.wav").write_bytes(data)
    changes: dict[str, Any] = (
        {"audio": {"url": "http://127.0.0.1:9/a", "sha256": name, "size": len(data)}} if audio else {}
    )
    found = read(json.dumps(play(status=status, drill=drill, **changes)).encode())
    assert isinstance(found, Play)
    made = await studio.round(found)
    said = [content(clip) for clip in [*made.signals, *made.mark, made.words]]
    if status == "Actual" and drill is False:
        assert said == (["录音"] if audio else ["warning", "涨水，快走"])
    else:
        assert said == ["drill", "演练。", "录音" if audio else "涨水，快走"]


async def test_each_repetition_of_a_drill_begins_with_the_mark_and_only_words_count_as_heard(tmp_path: Path) -> None:
    """Who opens the window at the second sentence must not take it for real."""
    horn = Horn()
    async with gateway_of() as gateway, device(gateway, tmp_path, horn):
        await gateway.tell(play(status="Exercise", drill=True, repeat=3))
        assert (await gateway.hears(state="played"))["heard_s"] == 22.5
    again = ["speech:演练。", "speech:涨水，快走"]
    assert [files for _, _, files in horn.heard] == [["signal:drill", *again], again, again]


async def test_a_stop_is_heard_within_the_same_frame(tmp_path: Path) -> None:
    """A recalled warning falls silent before anything else is done about it."""
    horn = Horn()
    async with gateway_of() as gateway, device(gateway, tmp_path, horn):
        horn.gate.clear()
        await gateway.tell(play(repeat=3))
        await gateway.hears(state="playing")
        await gateway.tell(order("stop", "a"), position=1)
        await gateway.hears(state="stopped", position=1)
        assert horn.silenced == ["a"]
        horn.gate.set()
        await gateway.tell(play(), position=2)
        await gateway.hears(state="stopped", position=2)
    assert horn.ids() == ["a"]


async def test_an_update_takes_over_and_a_higher_level_goes_first(tmp_path: Path) -> None:
    """One loudspeaker says one thing at a time: what matters most."""
    horn = Horn()
    async with gateway_of() as gateway, device(gateway, tmp_path, horn):
        horn.gate.clear()
        await gateway.tell(play("yellow", level="yellow"), position=1)
        await gateway.hears(state="playing", position=1)
        await gateway.tell(play("red"), position=2)
        await gateway.hears(state="busy", code="pre_empted", position=1)
        await gateway.hears(state="playing", position=2)
        await gateway.tell(play("update", level="orange", supersedes=["red"]), position=3)
        await gateway.hears(state="stopped", position=2)
        await gateway.hears(state="playing", position=3)
        horn.gate.set()
        await gateway.hears(state="played", position=1)
    assert horn.ids() == ["yellow", "red", "update", "yellow"]


async def test_a_failing_amplifier_is_told_and_shown(tmp_path: Path) -> None:
    """A village with a dead loudspeaker must be called by other means, at once."""
    horn = Horn(broken="amp_fault")
    async with gateway_of() as gateway, device(gateway, tmp_path, horn):
        await gateway.tell(play())
        await gateway.hears(state="failed", code="amp_fault")
        await gateway.hears(type="state", faults=["amp_fault"])
    assert gateway.states(1)[-1] == "failed"
    assert horn.heard == []


async def test_a_sound_card_that_was_busy_is_tried_once_more(tmp_path: Path) -> None:
    """One hiccup of a driver must not cost a village its warning."""
    horn = Horn(broken="amp_fault", once=True)
    async with gateway_of() as gateway, device(gateway, tmp_path, horn):
        await gateway.tell(play())
        await gateway.hears(state="played")
    assert horn.ids() == ["a"]


async def test_a_recording_is_fetched_checked_and_played(tmp_path: Path) -> None:
    """What sounds is what was signed, to the last byte."""
    horn = Horn()
    data = b"RIFF" + b"SAID" + "录音".encode()
    async with gateway_of() as gateway, device(gateway, tmp_path, horn):
        gateway.files = {"a.wav": data}
        sound = {"url": f"{gateway.url}/audio/a.wav", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        await gateway.tell(play("a", audio=sound))
        await gateway.hears(state="played", id="a")
        await gateway.tell(play("b", audio=sound))
        await gateway.hears(state="played", id="b")
        assert gateway.fetched == ["a.wav"], "kept by its digest"
    assert [files for _, _, files in horn.heard] == [["audio:录音"]] * 2


@pytest.mark.parametrize("fault", ["digest", "longer", "shorter", "missing", "elsewhere", "huge"])
async def test_a_recording_that_is_not_what_was_signed_is_never_played(fault: str, tmp_path: Path) -> None:
    """Whoever holds the web server must not hold the village's loudspeaker; the text is still spoken."""
    data = b"RIFF" + b"SAID" + "录音".encode()
    digest, size, name = hashlib.sha256(data).hexdigest(), len(data), "a.wav"
    horn, mute = Horn(), Horn()
    async with gateway_of() as gateway:
        gateway.files = {"a.wav": data}
        if fault == "digest":
            gateway.files["a.wav"] = data[:-1] + b"!"
        elif fault in ("longer", "shorter"):
            gateway.files["a.wav"] = data + b"!" if fault == "longer" else data[:-1]
        elif fault == "huge":
            size = 10**12
        else:
            name = fault
        sound = {"url": f"{gateway.url}/audio/{name}", "sha256": digest, "size": size}
        async with device(gateway, tmp_path / "a", horn):
            await gateway.tell(play("a", audio=sound))
            await gateway.hears(state="played", id="a")
        async with device(gateway, tmp_path / "b", mute, studio=Studio(tmp_path / "c")):
            await gateway.tell(play("b", audio=sound))
            code = (await gateway.hears(state="failed", id="b"))["code"]
    assert [files for _, _, files in horn.heard] == [["signal:warning", "speech:涨水，快走"]]
    assert mute.heard == []
    assert code in ("bad_audio", "audio_failed")


@pytest.mark.parametrize("left", [b"", b"RIFF", bytes(4096)])
async def test_what_a_power_cut_left_of_a_sound_is_made_again(left: bytes, tmp_path: Path) -> None:
    """A file whose name reached the disk before its bytes would silence the village until somebody climbs up there."""
    horn = Horn()
    data = b"RIFF" + b"SAID" + "录音".encode()
    async with gateway_of() as gateway:
        gateway.files = {"a.wav": data}
        sound = {"url": f"{gateway.url}/audio/a.wav", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        async with device(gateway, tmp_path, horn):
            await gateway.tell(play("a"))
            await gateway.hears(state="played", id="a")
            await gateway.tell(play("b", audio=sound))
            await gateway.hears(state="played", id="b")
        made = {path: path.read_bytes() for path in (tmp_path / "sound").iterdir()}
        assert sorted(path.name.partition("-")[0] for path in made) == ["audio", "signal", "speech"]
        for path in made:
            path.write_bytes(left)
        async with device(gateway, tmp_path, horn):
            await gateway.tell(play("c"))
            await gateway.hears(state="played", id="c")
            await gateway.tell(play("d", audio=sound))
            await gateway.hears(state="played", id="d")
    assert {path: path.read_bytes() for path in (tmp_path / "sound").iterdir()} == made
    assert [files for _, _, files in horn.heard] == [["signal:warning", "speech:涨水，快走"], ["audio:录音"]] * 2


async def test_a_recording_that_was_exchanged_on_the_disk_is_not_played(tmp_path: Path) -> None:
    """Who can write to the disk can make a device forget, and still not make it speak."""
    data = b"RIFF" + b"SAID" + "录音".encode()
    async with gateway_of() as gateway:
        gateway.files = {"a.wav": data}
        digest = hashlib.sha256(data).hexdigest()
        (tmp_path / f"audio-{digest}.wav").write_bytes(data.replace("录".encode(), "假".encode()))
        clip = await Studio(tmp_path).fetch(Recording(f"{gateway.url}/audio/a.wav", digest, len(data)))
    assert content(clip) == "录音"


async def test_two_who_make_the_same_sound_at_once_do_not_spoil_it(tmp_path: Path) -> None:
    """A self-test speaks the mark of drills in the very second in which a drill does."""
    studio = Studio(tmp_path, SPEAK)
    said = [studio.speak("演练。"), studio.speak("演练。"), studio.signal(tone.DRILL), studio.signal(tone.DRILL)]
    clips = await asyncio.gather(*said)
    assert [content(clip) for clip in clips] == ["演练。", "演练。", "drill", "drill"]
    assert [name.partition("-")[0] for name in names(tmp_path)] == ["signal", "speech"]


async def test_what_a_voice_left_unfinished_is_not_taken_for_the_next_text(tmp_path: Path) -> None:
    """A voice that writes nothing, after a power cut: the last village's words must not come out."""
    tone.write(tmp_path / "part-0.wav", tone.DRILL)
    with pytest.raises(Broken, match="tts_failed"):
        await Studio(tmp_path, "true {file}").speak("涨水")
    with pytest.raises(Broken, match="tts_failed"):
        await Studio(tmp_path, "cp /dev/null {file}").speak("涨水")
    assert names(tmp_path) == []


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_recordings_are_fetched_from_a_gateway_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    """A bureau's own authority counts for the sound, too: else a mute box is silent though its connection stands."""
    certificate = own_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    data = b"RIFF" + b"SAID" + "录音".encode()

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=data)

    app = web.Application()
    app.router.add_get("/a.wav", serve)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server(ssl=tls)
    sound = Recording(str(server.make_url("/a.wav")), hashlib.sha256(data).hexdigest(), len(data))
    trusting = load(None, GOOD | {"state": tmp_path / "a", "ca_file": certificate})._studio()
    assert content(await trusting.fetch(sound)) == "录音"
    with pytest.raises(Broken, match="audio_failed"):
        await load(None, GOOD | {"state": tmp_path / "b"})._studio().fetch(sound)
    await server.close()


def own_certificate(folder: Path) -> Path:
    """Return a file with a key and the certificate of 127.0.0.1 that nobody else has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    begins = datetime.now(UTC) - timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begins, begins + timedelta(days=2))
    builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
    file = folder / "gateway.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return file


# -- whom it believes --------------------------------------------------------------------------------------------------


async def test_a_gateway_whose_key_is_not_pinned_is_not_believed(tmp_path: Path) -> None:
    """Whoever takes over the name or the line must not be able to speak to villages."""
    horn = Horn()
    async with gateway_of() as gateway, device(gateway, tmp_path, horn, trust=Trust.pinned([Signer().pin])):
        await gateway.tell(play())
        told = await gateway.hears(type="receipt")
        assert (told["state"], told["code"], told["id"]) == ("failed", "bad_signature", "a")
        await gateway.tell(order("stop", "b"))
        await gateway.hears(position=2, code="bad_signature")
    assert horn.heard == []


def test_every_change_of_a_signed_frame_is_noticed() -> None:
    """Text, level, place and time are all under the signature."""
    signer, other = Signer(), Signer()
    trust = Trust.pinned([signer.pin])
    good = signer.sign(play())
    assert isinstance(trust.open(signed_of(good)), Play)
    kid = json.loads(decode(good["protected"]))["kid"]
    bad: list[dict[str, Any]] = [
        other.sign(play()),
        other.sign(play(), kid=kid),
        signer.sign(play(), alg="none"),
        signer.sign(play(), alg="HS256"),
        signer.sign(play(), typ="JWT"),
        signer.sign(play(), kid=None),
        signer.sign(play(), kid=[]),
        signer.sign(play(), crit=["b64"], b64=False),
        signer.sign(play(), jwk={"kty": "OKP"}),
        good | {"payload": signer.sign(play(level="blue"))["payload"]},
        good | {"protected": b64(b'{"alg":"none"}')},
        good | {"protected": b64(b"[]")},
        good | {"protected": b64(b"[" * 5000)},
        good | {"signature": ""},
        good | {"signature": good["signature"] + "A"},
        good | {"signature": good["signature"] + "=="},
        good | {"signature": good["signature"][:-1] + "\n"},
        good | {"payload": "涨水"},
        {"payload": good["payload"], "protected": good["protected"]},
        good | {"signature": 7},
        {},
    ]
    for frame in bad:
        with pytest.raises(Untrusted):
            trust.open(signed_of(frame))


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_nothing_unsigned_is_ever_opened(payload: str, protected: str, signature: str) -> None:
    """Nor does it bring the device down."""
    with pytest.raises(Untrusted):
        Trust.pinned([Signer().pin]).open((payload, protected, signature))
    assert isinstance(claimed_id((payload, protected, signature)), str)


@pytest.mark.parametrize("id_", ["\\ud800", "\\u0000", "a\\nb"])
def test_a_refusal_names_only_what_can_be_written(id_: str) -> None:
    """What nobody has signed must not reach a log or a frame in a form that breaks them."""
    signed = b64(f'{{"id":"{id_}"}}'.encode()), "", ""
    assert claimed_id(signed) == ""
    assert claimed_id((b64('{"id":"村"}'.encode()), "", "")) == "村"


def test_two_keys_can_be_pinned_in_every_form(tmp_path: Path) -> None:
    """The gateway's next key is pinned before it begins, so that no village is left out on that day."""
    one, two, three = Signer(), Signer(), Signer()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = two.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    jwks = json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": three.pin.removeprefix("ed25519:")}]})
    trust = Trust.pinned([one.pin, pem, jwks])
    for signer in (one, two, three):
        assert isinstance(trust.open(signed_of(signer.sign(play()))), Play)


@pytest.mark.parametrize(
    "pin",
    ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA", "{", '{"kty":"RSA"}', '{"keys":7}', "-----BEGIN PUBLIC KEY-----"],
)
def test_a_pin_that_is_none_is_told_at_start(pin: str) -> None:
    """A device that trusts nobody looks healthy and never speaks."""
    with pytest.raises(ConfigError, match="ed25519:"):
        Trust.pinned([pin])
    with pytest.raises(ConfigError, match="pins"):
        Trust.pinned([])


@pytest.mark.parametrize(
    "frame",
    ["", "{", "[]", "7", "null", '{"type":7}', '{"type":"command"}', '{"type":"command","batch":7,"position":"x"}',
     '{"type":"command","batch":"b","position":true}',
     f'{{"type":"command","batch":"{"b" * 129}","position":1}}', '{"type":"ack"}',
     '{"type":"ack","batch":[],"position":{}}',
     '{"type":"error"}', '{"type":"error","code":[],"batch":{}}', "[" * 5000, '{"type":"from_the_future"}'],
)  # fmt: skip
async def test_no_frame_ends_the_device(frame: str, tmp_path: Path) -> None:
    """Nor the connection: the next frame may be a red warning."""
    horn = Horn()
    async with gateway_of() as gateway, device(gateway, tmp_path, horn):
        await gateway.say(frame)
        await gateway.tell(play())
        await gateway.hears(state="played")
        assert gateway.connections == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
FIELDS = sorted({*play(), "audio", "batch", "position", "state", "type", "order", "alarm", "code"})


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(FIELDS), JSON), max_size=4), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_whatever_a_frame_holds_the_device_goes_on(changes: list[tuple[str, Any]], plain: dict[str, Any]) -> None:
    """A field of another type than the page's, signed or not, is refused or ignored, and the next warning is heard."""

    async def hear() -> None:
        with TemporaryDirectory() as folder:
            horn, signer = Horn(), Signer()
            made = parts(Gateway(signer), Path(folder), horn)
            program = Program(made)
            payload = play("odd") | dict(changes)
            program.take(json.dumps({"type": "command", "batch": "b", "position": 1, **signer.sign(payload)}).encode())
            for kind in ("command", "ack", "error"):
                program.take(json.dumps({**plain, "type": kind}).encode())
            red = play("red", at=datetime.now(UTC) + timedelta(seconds=1))
            program.take(json.dumps({"type": "command", "batch": "b", "position": 2, **signer.sign(red)}).encode())
            turn = program.player.turn
            assert turn is not None
            assert turn.announcement.play.id in ("red", str(payload["id"]))
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            made.disk.close()

    asyncio.run(hear())


async def test_a_signed_payload_that_is_no_command_is_ignored(tmp_path: Path) -> None:
    """A newer gateway may say more than this device knows."""
    horn = Horn()
    async with gateway_of() as gateway, device(gateway, tmp_path, horn):
        await gateway.tell({"command": "dance", "id": "a", "to": VILLAGE})
        await gateway.tell(play("b", repeat=99))
        await gateway.tell(play("c", now="yesterday"))
        await gateway.tell(play("d"))
        await gateway.hears(state="played")
    assert horn.ids() == ["d"]


# -- over time ---------------------------------------------------------------------------------------------------------


async def test_receipts_of_an_offline_hour_are_sent_when_the_line_is_back(tmp_path: Path) -> None:
    """The village heard it; the county must learn so, and each receipt until it is acknowledged."""
    horn = Horn()
    async with gateway_of() as gateway, device(gateway, tmp_path, horn):
        gateway.acks = False
        horn.gate.clear()
        await gateway.tell(play())
        await gateway.hears(state="playing")
        gateway.heard.clear()
        await gateway.drop()
        horn.gate.set()
        await gateway.hears(state="played")
        gateway.acks = True
        await gateway.drop()
        await gateway.until(lambda: gateway.states(1).count("played") == 2)
    assert horn.ids() == ["a"]


async def test_a_restart_in_mid_sentence_goes_on_and_says_nothing_twice(tmp_path: Path) -> None:
    """A village hears the whole of it, and what it has heard not again."""
    horn = Horn()
    async with gateway_of() as gateway:
        gateway.acks = False
        async with device(gateway, tmp_path, horn):
            await gateway.tell(play("heard"))
            await gateway.hears(state="played")
            horn.gate.clear()
            await gateway.tell(play("broken-off"))
            await gateway.hears(state="playing", id="broken-off")
        assert horn.silenced == ["broken-off"]
        horn.gate.set()
        gateway.heard.clear()
        async with device(gateway, tmp_path, horn):
            await gateway.hears(state="played", id="broken-off")
            await gateway.hears(state="played", id="heard")
            await gateway.tell(play("heard"))
            await gateway.hears(state="played", position=3)
    assert horn.ids() == ["heard", "broken-off", "broken-off"]


async def test_after_a_power_cut_it_waits_for_the_gateways_time(tmp_path: Path) -> None:
    """Nobody knows how long the power was away; a device's own clock may say 1970."""
    horn = Horn()
    async with gateway_of() as gateway:
        horn.gate.clear()
        async with device(gateway, tmp_path, horn):
            await gateway.tell(play())
            await gateway.hears(state="playing")
        horn.gate.set()
        horn.began.clear()
        async with device(gateway, tmp_path, horn, boot="boot-2") as program:
            assert program.player.turn is None
            assert not program.status()["time_known"]
            await gateway.tell(play("b", level="blue", at=datetime.now(UTC) + timedelta(seconds=1)))
            await gateway.hears(state="played", id="b")
    assert horn.ids() == ["a", "a", "b"]


async def test_after_a_power_cut_a_red_warning_goes_on_once_the_gateway_has_said_the_time(tmp_path: Path) -> None:
    """It was heard already, so nothing else comes of it: without its rounds the village would believe it is over."""
    horn = Horn()
    async with gateway_of() as gateway:
        async with device(gateway, tmp_path, horn):
            await gateway.tell(play(every_s=1))
            await gateway.hears(state="played")
        old = (await gateway.hears(type="hello"))["nonce"]
        gateway.heard.clear()
        heard = len(horn.ids())
        async with device(gateway, tmp_path, horn, boot="boot-2") as program:
            nonce = (await gateway.hears(type="hello"))["nonce"]
            for wrong in ({"nonce": old}, {"nonce": nonce, "to": "another"}, {"nonce": ""}):
                await gateway.tell(time(**wrong), 0, batch="order")
            await gateway.say({"type": "command", **Signer().sign(play("z")), "batch": "z", "position": 0})
            await gateway.hears(code="bad_signature", id="z")
            assert not program.status()["time_known"], "what was said to another connection, or device, is nothing"
            await gateway.tell(time(nonce=nonce), 0, batch="order")
            await gateway.until(lambda: any(one.get("playing") == "a" for one in gateway.heard))
    assert set(horn.ids()[heard:]) == {"a"}


async def test_a_memory_that_was_tampered_with_makes_nothing_sound(tmp_path: Path) -> None:
    """Who holds the card out of the box still does not hold the gateway's key."""
    horn = Horn()
    async with gateway_of() as gateway:
        horn.gate.clear()
        async with device(gateway, tmp_path, horn):
            await gateway.tell(play())
            await gateway.hears(state="playing")
        path = tmp_path / "memory.json"
        path.write_text(path.read_text().replace("涨水，快走", "水退了，回家"))
        horn.gate.set()
        async with device(gateway, tmp_path, horn):
            await gateway.hears(type="state", faults=["memory_forged"])
            await gateway.tell(play("b"))
            await gateway.hears(state="played", id="b")
    assert horn.ids() == ["a", "b"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"memory":{"announcements":7}}', b"\xff" * 100])
async def test_a_broken_memory_is_set_aside_and_told(content: bytes, tmp_path: Path) -> None:
    """A card that lost a sector must not make a village deaf."""
    horn = Horn()
    (tmp_path / "memory.json").write_bytes(content)
    async with gateway_of() as gateway, device(gateway, tmp_path, horn):
        await gateway.hears(type="state", faults=["memory_broken"])
        await gateway.tell(play())
        await gateway.hears(state="played")
    assert (tmp_path / "memory.broken").read_bytes() == content


async def test_a_disk_that_cannot_be_written_is_told_and_the_warning_sounds(tmp_path: Path) -> None:
    """Delivery fails open."""
    horn = Horn()

    class Full(Disk):
        def save(self, data: bytes, number: int) -> None:
            raise OSError(28, "No space left on device")

    async with gateway_of() as gateway, device(gateway, tmp_path, horn, disk=Full(tmp_path / "full")):
        await gateway.hears(type="state", faults=["disk_fault"])
        await gateway.tell(play())
        await gateway.hears(state="played")
    assert horn.ids() == ["a"]


def test_an_older_memory_never_takes_the_place_of_a_newer(tmp_path: Path) -> None:
    """A thread that is late at the end of the program would make it forget what was just heard."""
    disk = Disk(tmp_path)
    disk.save(b"newer", 2)
    disk.save(b"older", 1)
    assert disk.path.read_bytes() == b"newer"
    disk.close()


def test_two_programs_never_share_a_memory(tmp_path: Path) -> None:
    """Each would forget what the other has heard."""
    disk = Disk(tmp_path)
    with pytest.raises(ConfigError, match="another device program"):
        Disk(tmp_path)
    disk.close()
    Disk(tmp_path).close()


async def test_a_wrong_key_waits_longest_and_a_silent_gateway_is_asked_again(tmp_path: Path) -> None:
    """A fleet with a mistake in it must not beat at the gateway's door."""
    async with gateway_of() as gateway:
        with pytest.raises(Unreached) as refused:
            async with WebSocket(gateway.url, NAME, "wrong").connect():
                pass
        assert (refused.value.why, refused.value.patient) == ("refused_401", True)
        async with WebSocket(gateway.url, NAME, KEY).connect() as connection:
            await gateway.until(lambda: bool(gateway.sockets))
            await gateway.sockets[0].close(code=4409)
            with pytest.raises(Unreached) as ended:
                async for _ in connection.frames():
                    pass
        assert (ended.value.why, ended.value.patient) == ("closed_4409", True)
    with pytest.raises(Unreached) as gone:
        async with WebSocket(gateway.url, NAME, KEY).connect():
            pass
    assert not gone.value.patient


def test_waits_are_random_and_grow() -> None:
    """After a power cut six thousand devices come back at once; they must not keep step."""
    backoff = Backoff(Random(1), 1.0, 60.0)
    waits = [backoff.wait_s() for _ in range(200)]
    assert waits[0] <= 1.0
    assert all(wait <= 60.0 for wait in waits)
    assert max(waits[6:]) > 50.0
    assert min(waits[6:]) < 10.0
    backoff.succeeded()
    assert backoff.wait_s() <= 1.0
    assert backoff.wait_s(Unreached("x", patient=True)) == 60.0
    assert 20.0 <= backoff.wait_s(Unreached("x", after_s=20.0)) <= 40.0
    assert (seconds("5"), seconds(None), seconds("soon"), seconds("-1"), seconds("9" * 30)) == (5.0, 0.0, 0.0, 0.0, 0.0)


# -- orders, buttons, volume -------------------------------------------------------------------------------------------


async def test_orders_are_carried_out_once_and_survive_restarts(tmp_path: Path) -> None:
    """A volume is set for the season, not until the next power cut."""
    horn = Horn()
    async with gateway_of() as gateway:
        async with device(gateway, tmp_path, horn):
            here, hour = datetime.now(timezone(timedelta(hours=8))), timedelta(hours=1)
            night = {"from": f"{here - hour:%H:%M}", "until": f"{here + hour:%H:%M}", "volume": 30}
            volume = {"volume": 60, "floor": {"orange": 70}, "night": night}
            await gateway.tell(order("volume", "o1", **volume), 0, batch="order")
            assert await gateway.hears(order="o1") == {"type": "receipt", "order": "o1", "state": "done", "code": ""}
            told = await gateway.tell(order("self_test", "o2", audible=True), 0, batch="order")
            await gateway.hears(order="o2", state="done")
            await gateway.say(told)
            await gateway.until(lambda: sum(one.get("order") == "o2" for one in gateway.heard) == 2)
            await gateway.tell(order("config", "o3", values={"state_s": 60}), 0, batch="order")
            await gateway.hears(order="o3", state="done")
            await gateway.tell(order("config", "o4", values={"key": "x"}), 0, batch="order")
            await gateway.hears(order="o4", state="failed", code="unknown_setting")
            await gateway.tell(order("config", "o5", values={"state_s": True}), 0, batch="order")
            await gateway.hears(order="o5", state="failed", code="bad_setting")
            nonce = (await gateway.hears(type="hello"))["nonce"]
            await gateway.tell(order("clock", "o6", nonce=nonce), 0, batch="order")
            await gateway.hears(order="o6", state="done")
            await gateway.tell(order("clock", "o7", nonce="of another connection"), 0, batch="order")
            await gateway.hears(order="o7", state="failed", code="replayed")
        async with device(gateway, tmp_path, horn):
            await gateway.say(told)
            await gateway.until(lambda: sum(one.get("order") == "o2" for one in gateway.heard) == 3)
            await gateway.tell(play("red"))
            await gateway.tell(play("blue", level="blue"))
            await gateway.hears(state="played", id="blue")
    assert [(what, volume) for what, volume, _ in horn.heard] == [("self_test", 60), ("red", 80), ("blue", 30)], (
        "the red floor of the installation holds"
    )


async def test_an_order_that_cannot_be_carried_out_is_answered(tmp_path: Path) -> None:
    """A self-test that only raises would be waited for until somebody restarts the box."""

    class Full(Studio):
        async def signal(self, name: str) -> Clip:
            raise OSError(28, "No space left on device")

    horn = Horn()
    async with gateway_of() as gateway, device(gateway, tmp_path, horn, studio=Full(tmp_path / "full")):
        await gateway.tell(order("self_test", "t1"))
        await gateway.hears(order="t1", state="failed", code="device_fault")
        await gateway.hears(type="state", faults=["device_fault"])
    assert horn.heard == []


async def test_the_buttons_reach_the_gateway(tmp_path: Path) -> None:
    """A village beats its gong, and the county hears of it; its head takes the microphone, and nothing cuts in."""
    horn = Horn()
    async with gateway_of() as gateway, device(gateway, tmp_path, horn) as program:
        gateway.acks = False
        program.alarm("4d2b6f1e-0000-4000-8000-000000000000")
        alarm = await gateway.hears(type="alarm")
        assert alarm["alarm"].startswith("4d2b6f1e")
        assert datetime.fromisoformat(alarm["at"]).tzinfo is not None
        program.speak(True)
        await gateway.tell(play())
        await gateway.hears(state="busy", code="live_speech")
        assert horn.heard == []
        program.speak(False)
        await gateway.hears(state="played")
        gateway.acks = True
        await gateway.drop()
        await gateway.until(lambda: sum(one["type"] == "alarm" for one in gateway.heard) == 2)


async def test_the_control_socket_is_the_owners_alone(tmp_path: Path) -> None:
    """A visitor's login on the box is no alarm button."""
    async with control.listening(tmp_path, lambda word: {"said": word}):
        assert stat.S_IMODE((tmp_path / control.NAME).stat().st_mode) == 0o600
        assert await asyncio.to_thread(control.press, tmp_path, "alarm") == {"said": "alarm"}
    with pytest.raises(ConfigError, match="no device answers"):
        control.press(tmp_path, "alarm")
    with pytest.raises(ConfigError, match="too long"):
        control.press(tmp_path / ("x" * 120), "alarm")


def test_red_is_never_below_its_floor_and_the_night_is_chinas() -> None:
    """A red warning at two in the morning must wake; a blue one must not."""
    policy = Policy(70, {"red": 90}, Night(since="22:00", until="06:00", volume=40))
    night = datetime(2026, 7, 20, 18, 0, tzinfo=UTC).timestamp()  # two in the morning in China
    day = datetime(2026, 7, 20, 6, 0, tzinfo=UTC).timestamp()

    def loud(at: float, **changes: Any) -> int:
        found = read(json.dumps(play(**changes)).encode())
        assert isinstance(found, Play)
        return policy.loudness(found, at)

    assert [loud(night), loud(night, level="blue"), loud(day, level="blue"), loud(day)] == [90, 40, 70, 90]
    assert [loud(night, volume=10), loud(night, volume=10, level="blue")] == [90, 10]
    assert loud(night, status="Exercise", drill=True) == 40, "a drill has no claim to wake anybody"
    noon = Policy(70, {}, Night(since="12:00", until="14:30", volume=20))
    found = read(json.dumps(play(level="blue")).encode())
    assert isinstance(found, Play)
    assert [noon.loudness(found, day), noon.loudness(found, night)] == [20, 70]


def test_power_is_what_the_system_says(tmp_path: Path) -> None:
    """A device on battery in the first hour of a storm is one to call in the second."""
    for name, files in {
        "BAT0": {"type": "Battery", "capacity": "71"}, "AC": {"type": "Mains", "online": "0"}, "odd": {}
    }.items():  # fmt: skip
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text + "\n")
    assert box.power(tmp_path) == ("battery", 71)
    (tmp_path / "AC" / "online").write_text("1\n")
    assert box.power(tmp_path) == ("mains", 71)
    assert box.power(tmp_path / "none") == ("", None)


# -- sound and settings ------------------------------------------------------------------------------------------------


def first_line(path: Path) -> str:
    with path.open() as file:
        return file.readline()


def ended(process: int) -> bool:
    """Wait for the end of a process that is not our child."""
    return bool(select.select([process], [], [], 20)[0])


async def test_the_systems_audio_is_measured_and_killed_with_all_it_started(tmp_path: Path) -> None:
    """A stop that leaves a child of the player running is no stop."""
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    script = tmp_path / "player.sh"
    script.write_text(f"#!/bin/sh\nsleep 600 &\necho $$ $! > {pids}\nwait\n")
    script.chmod(0o755)
    task = asyncio.create_task(Speaker(f"{script} {{file}}").play([Clip(tmp_path / "a.wav", 1.0)], 50, "a"))
    started = [os.pidfd_open(int(pid)) for pid in (await asyncio.to_thread(first_line, pids)).split()]
    task.cancel()
    await asyncio.wait([task])
    assert [ended(process) for process in started] == [True, True]
    for process in started:
        os.close(process)


async def test_a_command_is_not_given_the_devices_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A voice or player from anywhere has no business with it."""
    monkeypatch.setenv("MINGLUO_DEVICE_KEY", "secret")
    await run(["sh", "-c", 'env > "$0"', str(tmp_path / "seen")], "x", 10.0)
    seen = (tmp_path / "seen").read_text()
    assert "secret" not in seen
    assert "PATH=" in seen


async def test_a_player_that_fails_or_is_not_there_is_an_amplifier_fault(tmp_path: Path) -> None:
    """Exit codes are the only ears a box has."""
    clip = Clip(tmp_path / "a", 1.0)
    assert len(await Speaker("true {file}").play([clip, clip], 50, "a")) == 2
    with pytest.raises(Broken, match="amp_fault"):
        await Speaker("false {file}").play([clip], 50, "a")
    await Speaker("true {file}", "false {volume}").play([clip], 50, "a")
    with pytest.raises(Broken, match="x"):
        await run(["sleep", "600"], "x", 0.01)
    with pytest.raises(ConfigError, match="no program"):
        Speaker("no-such-program {file}")
    with pytest.raises(ConfigError, match=r"\{file\}"):
        Speaker("aplay")
    with pytest.raises(ConfigError, match="play_with"):
        arguments('"', "{file}", "play_with")


async def test_a_recording_the_player_cannot_read_is_refused_before_a_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Aplay takes an MP3 for raw samples: the village would hear noise at full volume, and we that it was told."""
    played = tmp_path / "played"
    player_ = tmp_path / "aplay"
    player_.write_text(f'#!/bin/sh\necho "$2" >> {played}\n')
    player_.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    signal, words = Clip(tmp_path / "a.wav", 0.1), Clip(tmp_path / "b.mp3", 0.1)
    with pytest.raises(Broken, match="wrong_format"):
        await Speaker("aplay -q {file}").play([signal, words], 50, "a")
    assert not played.exists()
    await Speaker("aplay -q {file}").play([signal], 50, "a")
    assert played.read_text().split() == [str(signal.file)]


def test_the_best_player_that_is_there_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that reads every recording before one that does not; none is said at the start, not in the storm."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="ffplay, mpv, play, aplay"):
        player()
    for name in ("aplay", "play"):
        (tmp_path / name).touch(0o755)
        assert player().startswith(f"{name} ")


async def test_a_voice_that_says_nothing_is_a_fault(tmp_path: Path) -> None:
    """An empty file would be played, and reported as heard."""
    for command in ("true {file}", "false {file}", f"cp {os.devnull} {{file}}"):
        with pytest.raises(Broken, match="tts_failed"):
            await Studio(tmp_path, command).speak("涨水")
    found = read(json.dumps(play()).encode())
    assert isinstance(found, Play)
    with pytest.raises(Broken, match="no_speech"):
        await Studio(tmp_path).round(found)


async def test_a_folder_keeps_what_would_have_been_heard(tmp_path: Path) -> None:
    """An installation is proven without waking the village."""
    tone.write(tmp_path / "a.wav", tone.DRILL, note_s=0.01)
    for odd in ("../../v1", "v/1", "\0", "水" * 128):  # a version's id may hold anything
        await Folder(tmp_path / "odd" / "out").play([Clip(tmp_path / "a.wav", 0.0)], 50, odd)
    assert [path.name for path in (tmp_path / "odd").iterdir()] == ["out"]
    (heard_s,) = await Folder(tmp_path / "out").play([Clip(tmp_path / "a.wav", 0.05)], 50, "v1")
    assert heard_s == 0.05
    assert (tmp_path / "out" / "v1-a.wav").exists()
    lines = [json.loads(line) for line in (tmp_path / "out" / "sound.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["id"]) for line in lines] == [("sound", "v1"), ("end", "v1")]


@pytest.mark.parametrize("name", [tone.REAL, tone.DRILL, tone.ALL_CLEAR])
def test_a_signal_begins_with_silence_and_is_none_of_the_public_alarms(name: str, tmp_path: Path) -> None:
    """Amplifiers swallow the first moment; and 853, 960 and 1,050 Hz switch on other people's receivers."""
    tone.write(tmp_path / "a.wav", name)
    with wave.open(str(tmp_path / "a.wav"), "rb") as file:
        assert not any(file.readframes(int(tone.RATE * 0.5)))
        assert any(file.readframes(tone.RATE))
    assert all(abs(hertz - alarm) > 40 for hertz in tone.NOTES[name] for alarm in (853, 960, 1050))
    assert tone.NOTES[tone.REAL][:2] != tone.NOTES[tone.DRILL][:2]


async def test_the_extras_voice_says_chinese_and_english_as_sound(tmp_path: Path) -> None:
    """A box without a voice of its own still speaks, once the extra is installed; numbers are written out."""
    studio = Studio(tmp_path, load(None, GOOD | {"state": tmp_path})._voice())
    numbers = await studio.speak("泌阳县20日14时30分")
    assert numbers.length_s > 3.0
    assert (await studio.speak("Heavy rain.")).length_s > 0.5
    assert not Studio(tmp_path, load(None, GOOD | {"state": tmp_path, "speak_with": "none"})._voice()).speech


GOOD = {"name": "lb-1", "village": VILLAGE, "url": "wss://warn.example.org", "pins": [Signer().pin]}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"url": "ws://warn.example.org"}, "in the clear"),
        ({"url": "ftp://warn.example.org"}, "wss://"),
        ({"url": "wss:"}, "wss://"),
        ({"village": "411726"}, "village"),
        ({"name": ""}, "name"),
        ({"name": "+"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "a?b"}, "name"),
        ({"url": "mqtts://warn.example.org:99999"}, "url|Port"),
        ({"url": "wss://warn.example.org:x"}, "url|Port"),
        ({"valume": 7}, "valume"),
        ({"volume": 101}, "volume"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    """Who installs a device on a roof has no second look."""
    with pytest.raises(ConfigError, match=complaint):
        load(None, GOOD | {"state": tmp_path} | changes)


def test_the_key_comes_from_a_file_of_its_owner_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments are everybody's to read."""
    config = tmp_path / "device.toml"
    config.write_text(f'name = "lb-1"\nvillage = "{VILLAGE}"\nurl = "ws://127.0.0.1:1"\nplay_with = "true {{file}}"\n')
    pins = tmp_path / "gateway.pin"
    pins.write_text(f"# the gateway's keys\n{Signer().pin}\n{Signer().pin}\n")
    given = {"state": tmp_path / "state", "pins_file": pins, "url": None}
    monkeypatch.delenv("MINGLUO_DEVICE_KEY", raising=False)
    with pytest.raises(ConfigError, match="MINGLUO_DEVICE_KEY"):
        load(config, given).parts()
    monkeypatch.setenv("MINGLUO_DEVICE_KEY", "k")
    load(config, given).parts().disk.close()
    key = tmp_path / "device.key"
    key.write_text("secret\n")
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600") as error:
        load(config, given | {"key_file": key}).parts()
    assert "secret" not in str(error.value)
    key.chmod(0o600)
    load(config, given | {"key_file": key}).parts().disk.close()
    config.write_text("name = ")
    with pytest.raises(ConfigError, match="TOML"):
        load(config, {})


def test_the_mark_of_a_drill_is_there_in_every_language() -> None:
    """Rule 3 knows no language without a mark."""
    assert (mark("zh"), mark("zh-CN"), mark("en-US"), mark("xx"), mark("")) == (
        "演练。", "演练。", "DRILL. ", "演练。", "演练。",
    )  # fmt: skip
