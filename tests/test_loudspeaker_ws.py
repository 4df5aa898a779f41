"""Loudspeakers over WebSocket: the channel and the simulated fleet, on real sockets."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from links import DEVICE_KEY, RecordingLink, sample_message, sample_slice
from test_pipeline import until

from channels._loudspeaker import Loudspeakers
from channels._loudspeaker_commanded import Commanded
from channels._loudspeaker_frame import Told, events_of, parse
from channels.loudspeaker_ws import LoudspeakerSettings, LoudspeakerWs
from gateway.channel import Device, Event, Play
from gateway.errors import StoreDown, Temporary
from gateway.model import Audio, DeviceEvent, DeviceState, Level, Message, Order, OrderReceipt, Report, State, Status
from gateway.simulate.log import Log, read
from gateway.simulate.speaker import Fleet, Options

BATCH = f"{'0f' * 10}.1.0"
QUICK = Options(play_s=0.0, backoff_s=0.01, backoff_max_s=0.02, resend_s=0.02)
ENDED = (State.PLAYED, State.FAILED)


def key_of(name: str) -> str:
    return f"sample-key-of-{name}"


@dataclass
class Village(RecordingLink):
    """A link with a small hub behind it: on each wake it commands what is wanted of the devices held."""

    channel: Loudspeakers = field(default_factory=lambda: LoudspeakerWs(LoudspeakerSettings()))
    wanted: dict[tuple[str, int], Play] = field(default_factory=dict)
    commits: list[int] = field(default_factory=list)
    refused: int = 0
    directory_down: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def add(self, *names: str) -> None:
        for name in names:
            self.devices[name] = Device(
                1000 + len(self.devices), "411726001001", sha256(key_of(name).encode()).hexdigest()
            )

    async def device(self, name: str) -> Device | None:
        if self.directory_down:
            raise StoreDown("no answer in time")
        return await super().device(name)

    async def commit(self, events: Sequence[Event]) -> None:
        await self.gate.wait()
        try:
            await super().commit(events)
        except StoreDown:
            self.refused += 1
            raise
        else:
            self.commits.append(len(events))
            for event in events:
                if isinstance(event, Report) and event.state in ENDED:
                    self.wanted.pop((event.batch, event.position), None)
        finally:
            self.notify()

    async def wake(self) -> None:
        await super().wake()
        await self.round()
        self.notify()

    async def round(self) -> None:
        """Command what is wanted, as a hub does."""
        held = set(self.channel.held())
        await self.channel.command([play for play in self.wanted.values() if play.device in held], self)

    def want(self, play: Play) -> None:
        self.wanted[play.batch, play.position] = play

    def notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await self._changed.wait()

    def said(self, position: int = 0) -> list[tuple[State, str]]:
        return [(e.state, e.code) for e in self.events if isinstance(e, Report) and e.position == position]

    def presence(self) -> list[tuple[int, str]]:
        return [(event.device, event.kind) for event in self.events if isinstance(event, DeviceEvent)]


@asynccontextmanager
async def serving(*names: str, **settings: Any) -> AsyncIterator[Village]:
    village = Village(channel=LoudspeakerWs(LoudspeakerSettings(**settings)))
    village.add(*names)
    app = web.Application()
    for method, path, handler in village.channel.routes(village):
        app.router.add_route(method, path, handler)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    village.url = str(server.make_url("")).rstrip("/")
    try:
        yield village
    finally:
        village.gate.set()
        await village.channel.close()
        await server.close()


@asynccontextmanager
async def fleet_of(village: Village, tmp_path: Path, options: Options = QUICK) -> AsyncIterator[Fleet]:
    log = Log(tmp_path / "sound.jsonl")
    async with Fleet(
        village.url, [(name, key_of(name)) for name in village.devices], log, options, (DEVICE_KEY.pin,)
    ) as fleet:
        yield fleet
    log.close()


@asynccontextmanager
async def connected(village: Village, name: str, hello: bool = True) -> AsyncIterator[ClientWebSocketResponse]:
    """Yield a bare socket of one device, ready for commands."""
    headers = {"Authorization": f"Bearer {key_of(name)}"}
    async with (
        ClientSession() as session,
        session.ws_connect(f"{village.url}/v1/devices/{name}/ws", headers=headers) as device,
    ):
        if hello:
            wakes = village.wakes
            await device.send_str(hello_of())
            await village.until(lambda: village.wakes > wakes)
        yield device


def hello_of(**changes: object) -> str:
    values = {"type": "hello", "protocol": 2, "firmware": "1.0", "speech": True, "audio": False}
    return orjson.dumps(values | changes).decode()


def opened(frame: dict[str, Any]) -> dict[str, Any]:
    """Return what a command says, after checking as a device must that the pinned key has signed it."""
    assert frame["type"] == "command", frame
    header, payload, signature = (decoded(frame[name]) for name in ("protected", "payload", "signature"))
    DEVICE_KEY.key.public_key().verify(signature, f"{frame['protected']}.{frame['payload']}".encode())
    assert orjson.loads(header) == {"alg": "EdDSA", "kid": DEVICE_KEY.id, "typ": "mingluo+json"}
    told: dict[str, Any] = orjson.loads(payload)
    return told | {name: frame[name] for name in ("batch", "position")}


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def commanded(device: ClientWebSocketResponse) -> dict[str, Any]:
    return opened(await heard(device))


async def heard(device: ClientWebSocketResponse) -> dict[str, Any]:
    frame = await device.receive(timeout=20)
    assert frame.type is WSMsgType.TEXT, frame
    answer: dict[str, Any] = orjson.loads(frame.data)
    return answer


async def closed(device: ClientWebSocketResponse) -> int:
    frame = await device.receive(timeout=20)
    assert frame.type is WSMsgType.CLOSE, frame
    return int(frame.data)


def play(position: int = 0, device: int = 1000, batch: str = BATCH, stop: bool = False, **changes: Any) -> Play:
    return Play(batch, position, device, sample_message(**changes), stop)


def receipt(position: int = 0, state: str = "played", **changes: object) -> str:
    values = {"type": "receipt", "id": "0f" * 10, "batch": BATCH, "position": position, "state": state}
    values |= {"heard_s": 40.0} if state == "played" else {}
    return orjson.dumps(values | changes).decode()


def sounds(tmp_path: Path) -> list[dict[str, Any]]:
    return read(tmp_path / "sound.jsonl", "sound")


# -- who may connect ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "authorization"),
    [
        ("horn-1", None),
        ("horn-1", "Bearer wrong"),
        ("horn-1", f"Bearer {key_of('horn-2')}"),
        ("horn-1", f"Basic {key_of('horn-1')}"),
        ("horn-1", "Bearer "),
        ("horn-1", "Bearer \udcff"),
        ("horn-9", f"Bearer {key_of('horn-1')}"),
        ("horn-9", f"Bearer {key_of('horn-9')}"),
    ],
)
async def test_a_stranger_is_refused_before_the_upgrade_and_not_told_why(name: str, authorization: str | None) -> None:
    """Whoever holds a socket speaks for a village; an answer that tells names from keys helps to guess both."""
    async with serving("horn-1", "horn-2") as village, ClientSession() as session:
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
        headers |= {} if authorization is None else {"Authorization": authorization}
        async with session.get(f"{village.url}/v1/devices/{name}/ws", headers=headers) as answer:
            assert answer.status == 401
            assert await answer.text() == "401: Unauthorized"
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert village.events == []
        assert list(village.channel.held()) == []


async def test_a_device_is_told_to_come_again_while_keys_cannot_be_looked_up() -> None:
    """A store that is away must not teach a village's loudspeaker that its key is wrong."""
    async with serving("horn-1") as village, ClientSession() as session:
        village.directory_down = True
        async with session.get(f"{village.url}/v1/devices/horn-1/ws") as answer:
            assert answer.status == 503
            assert "Retry-After" in answer.headers


async def test_the_second_connection_of_a_device_wins() -> None:
    """After a power cut the old connection may look alive for minutes; the village must not wait for it to die."""
    async with serving("horn-1") as village, connected(village, "horn-1") as old:
        async with connected(village, "horn-1") as new:
            assert await closed(old) == 4409
            assert [r.state for r in await village.channel.command([play()], village)] == [State.SUBMITTED]
            assert (await commanded(new))["command"] == "play"
        await village.until(lambda: (1000, "offline") in village.presence())
        assert village.presence() == [(1000, "online"), (1000, "replaced"), (1000, "online"), (1000, "offline")]


async def test_a_device_is_held_only_after_its_hello() -> None:
    """A command written into a device that is still starting would be lost in silence."""
    async with serving("horn-1") as village, connected(village, "horn-1", hello=False) as device:
        await device.send_str(receipt())
        assert await heard(device) == {"type": "error", "code": "hello_first"}
        assert list(village.channel.held()) == []
        assert village.wakes == 0
        await device.send_str(hello_of(newer_field=1))
        await village.until(lambda: village.wakes == 1)
        assert list(village.channel.held()) == [1000]


async def test_a_device_that_never_says_hello_is_closed() -> None:
    """A half-open connection must not stand in the way of a working one for ever."""
    async with serving("horn-1", hello_s=0.01) as village, connected(village, "horn-1", hello=False) as device:
        assert await closed(device) == 4408
        assert village.events == []


# -- what is written ---------------------------------------------------------------------------------------------------


async def test_a_play_says_everything_and_only_its_position_differs() -> None:
    """Devices of one batch share all bytes but the position: that is what reaches 3,000 villages at once."""
    async with (
        serving("horn-1", "horn-2") as village,
        connected(village, "horn-1") as one,
        connected(village, "horn-2") as two,
    ):
        message = sample_message()
        receipts = await village.channel.command(
            [Play(BATCH, 7, 1000, message), Play(BATCH, 8, 1001, message)], village
        )
        assert [r.state for r in receipts] == [State.SUBMITTED] * 2
        first, second = [(await device.receive(timeout=20)).data for device in (one, two)]
        assert first.replace('"position":7}', '"position":8}') == second
        frame = opened(orjson.loads(first))
        assert abs(datetime.fromisoformat(frame.pop("now")) - datetime.now(UTC)) < timedelta(minutes=1)
        assert frame == {
            "command": "play",
            "id": message.alert,
            "status": "Actual",
            "drill": False,
            "level": "red",
            "notice": "issue",
            "language": "zh",
            "again": False,
            "title": message.title,
            "text": message.text,
            "repeat": 3,
            "every_s": 0,
            "tone": "warning",
            "volume": None,
            "to": "411726001",
            "supersedes": [],
            "expires": "2099-07-20T09:00:00Z",
            "batch": BATCH,
            "position": 7,
        }


async def test_where_texts_differ_each_village_hears_its_own() -> None:
    """A text that slips by one sends a village to its neighbour's shelter."""
    async with (
        serving("horn-1", "horn-2") as village,
        connected(village, "horn-1") as one,
        connected(village, "horn-2") as two,
    ):
        message = sample_message(texts=("去东庄小学", "去西庄小学"))
        await village.channel.command([Play(BATCH, 1, 1001, message), Play(BATCH, 0, 1000, message)], village)
        assert [(await commanded(device))["text"] for device in (one, two)] == ["去东庄小学", "去西庄小学"]
        await village.channel.send(sample_slice(["", ""]), message, village)
        assert [(await commanded(device))["text"] for device in (one, two)] == ["去东庄小学", "去西庄小学"]
        alone = replace(message, texts=("去北庄小学",))
        await village.channel.command([Play(BATCH, 5, 1001, alone)], village)
        assert (await commanded(two))["text"] == "去北庄小学"


async def test_an_unreachable_device_costs_the_others_nothing() -> None:
    """One dead loudspeaker, or one broken command, must not silence the township."""
    async with serving("horn-1") as village, connected(village, "horn-1") as device:
        broken = play(position=9, texts=("a", "b"))
        receipts = await village.channel.command([play(device=4), broken, play()], village)
        assert isinstance(receipts[0].error, Temporary)
        assert receipts[0].code == "offline"
        assert isinstance(receipts[1].error, IndexError)
        assert receipts[2].state is State.SUBMITTED
        assert (await heard(device))["position"] == 0


async def test_a_stuck_reader_is_cut_and_does_not_delay_the_others() -> None:
    """A device with a full buffer must cost its neighbours nothing, not even a wait."""
    async with serving("stuck", "horn-1", buffer_bytes=4096) as village, connected(village, "horn-1") as good:
        reader, writer = await stuck_device(village, "stuck")
        messages = [sample_message(alert=f"{n:020x}", text="涨" * 1000) for n in range(5000)]
        for message in messages:
            receipts = await village.channel.command(
                [Play(BATCH, 0, 1000, message), Play(BATCH, 1, 1001, message)], village
            )
            assert receipts[1].state is State.SUBMITTED
            assert (await commanded(good))["id"] == message.alert
            if receipts[0].error is not None:
                break
        assert receipts[0].code == "slow_device"
        assert isinstance(receipts[0].error, Temporary)
        await village.until(lambda: (1000, "offline") in village.presence())
        assert list(village.channel.held()) == [1001]
        writer.close()
        assert not reader.at_eof()


async def stuck_device(village: Village, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect a device that says hello and then never reads."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.setblocking(False)
    host, _, port = village.url.removeprefix("http://").partition(":")
    await asyncio.get_running_loop().sock_connect(narrow, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=narrow, limit=1024)
    request = [
        f"GET /v1/devices/{name}/ws HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(b'0' * 16).decode()}",
        f"Authorization: Bearer {key_of(name)}",
    ]
    hello = hello_of().encode()
    wakes = village.wakes
    writer.write("\r\n".join([*request, "", ""]).encode() + bytes([0x81, 0x80 | len(hello), 0, 0, 0, 0]) + hello)
    await village.until(lambda: village.wakes > wakes)
    return reader, writer


@pytest.mark.parametrize("status", list(Status))
async def test_only_an_actual_warning_sounds_real(status: Status, tmp_path: Path) -> None:
    """Rule 3: a drill that sounds real empties villages for nothing, and the next real one is not believed."""
    async with serving("horn-1") as village:
        village.want(play(status=status, text="有强降雨"))
        async with fleet_of(village, tmp_path):
            await village.until(lambda: (State.PLAYED, "played") in village.said())
        async with connected(village, "horn-1") as device:
            await village.channel.command([play(status=status)], village)
            frame = await commanded(device)
    assert frame["status"] == status.value
    assert frame["drill"] is (status is not Status.ACTUAL)
    spoken = [sound["spoken"] for sound in sounds(tmp_path)]
    assert spoken == ["有强降雨" if status is Status.ACTUAL else "演练。有强降雨"]


async def test_a_device_that_has_come_to_another_hub_is_parted_from_and_noted() -> None:
    """The second with the right key wins, whichever hub it comes to; a person is told that there were two."""
    async with serving("horn-1") as village, connected(village, "horn-1") as device:
        await village.until(lambda: village.presence() == [(1000, "online")])
        await village.channel.displace([1000, 1001], village)
        assert list(village.channel.held()) == []
        end = await device.receive(timeout=20)
        assert (end.type, end.data) == (WSMsgType.CLOSE, 4409)
        await village.until(lambda: (1000, "replaced") in village.presence())


async def test_a_device_that_came_here_a_moment_ago_is_not_parted_from() -> None:
    """It was at another hub before; that nobody has noted yet where it is now must not cost it a minute."""
    async with serving("horn-1") as village:
        village.gate.clear()
        async with connected(village, "horn-1"):
            await village.channel.displace([1000], village)
            assert list(village.channel.held()) == [1000]


async def test_a_hello_is_answered_with_the_time() -> None:
    """Behind a power cut nothing else may come for hours, and until something does a red warning stays silent."""
    async with serving("horn-1") as village, connected(village, "horn-1", hello=False) as device:
        await device.send_str(hello_of(nonce="q83vEjRWeJCrze8SNFZ4kA"))
        told = await commanded(device)
        assert (told["command"], told["to"], told["nonce"]) == ("time", "horn-1", "q83vEjRWeJCrze8SNFZ4kA")
        assert abs(datetime.fromisoformat(told["now"]) - datetime.now(UTC)) < timedelta(minutes=1)


# -- what comes back ---------------------------------------------------------------------------------------------------


async def test_a_play_is_reported_from_received_to_played(tmp_path: Path) -> None:
    """A village is green on the map only when its loudspeaker really fell silent after the last repetition."""
    async with serving("horn-1") as village, fleet_of(village, tmp_path):
        village.want(play())
        await village.until(lambda: bool(village.said()) and village.said()[-1][0] is State.PLAYED)
        assert village.said() == [(State.DELIVERED, "received"), (State.DELIVERED, "playing"), (State.PLAYED, "played")]
        reports = [event for event in village.events if isinstance(event, Report)]
        assert {(r.account, r.batch, r.position, r.attempt) for r in reports} == {("loudspeaker_ws", BATCH, 0, 1)}
    assert [sound["id"] for sound in sounds(tmp_path)] == ["0f" * 10]


async def test_a_broken_amplifier_fails_and_is_a_fault(tmp_path: Path) -> None:
    """A device that has the text but cannot speak must show, although a later FAILED does not outrank DELIVERED."""
    async with serving("horn-1") as village, fleet_of(village, tmp_path, replace(QUICK, failing=1.0)):
        village.want(play())
        await village.until(lambda: (State.FAILED, "amp_fault") in village.said())
        faults = [event for event in village.events if isinstance(event, DeviceEvent) and event.kind == "fault"]
        assert [(fault.device, fault.code) for fault in faults] == [(1000, "amp_fault")]
    assert sounds(tmp_path) == []


async def test_a_silent_device_is_never_called_played(tmp_path: Path) -> None:
    """Acknowledged is not played (D1)."""
    async with serving("horn-1") as village, fleet_of(village, tmp_path, replace(QUICK, silent=1.0)):
        village.want(play())
        await village.until(lambda: bool(village.said()))
        assert {state for state, _ in village.said()} == {State.DELIVERED}
        assert (BATCH, 0) in village.wanted
    assert sounds(tmp_path) == []


@pytest.mark.parametrize(
    ("state", "code", "heard_s", "expected", "faults"),
    [
        ("received", "", None, (State.DELIVERED, "received"), 0),
        ("playing", "", None, (State.DELIVERED, "playing"), 0),
        ("played", "", 41.5, (State.PLAYED, "played"), 0),
        ("played", "", 0.0, (State.FAILED, "not_heard"), 1),
        ("failed", "no_power", None, (State.FAILED, "no_power"), 1),
        ("failed", "expired", None, (State.FAILED, "expired"), 0),
        ("failed", "", None, (State.FAILED, "failed"), 1),
        ("busy", "live_speech", None, (State.SUBMITTED, "live_speech"), 0),
        ("busy", "", None, (State.SUBMITTED, "busy"), 0),
        ("stopped", "", None, (State.FAILED, "stopped"), 0),
    ],
)
def test_each_state_of_the_protocol_means_one_state_of_the_ledger(
    state: str, code: str, heard_s: float | None, expected: tuple[State, str], faults: int
) -> None:
    """The map's colours rest on this table."""
    told = parse(receipt(state=state, code=code, heard_s=heard_s).encode())
    assert isinstance(told, Told)
    report, *others = events_of(told, 7, "loudspeaker_ws")
    assert isinstance(report, Report)
    assert (report.state, report.code) == expected
    assert len(others) == faults


async def test_a_receipt_is_acknowledged_only_after_its_commit() -> None:
    """An ack makes the device forget: before the commit, a crash would turn a played village into an unknown one."""
    async with serving("horn-1") as village, connected(village, "horn-1") as device:
        message = sample_message()
        await village.channel.command([Play(BATCH, n, 1000, message) for n in range(20)], village)
        for _ in range(20):
            await heard(device)
        await village.until(lambda: bool(village.presence()))
        village.gate.clear()
        before = len(village.commits)
        for n in range(20):
            await device.send_str(receipt(n))
        await device.send_str("no receipt")  # its answer shows that all twenty were read
        assert (await heard(device))["code"] == "malformed"
        village.gate.set()
        acks = [await heard(device) for _ in range(20)]
        assert acks == [{"type": "ack", "batch": BATCH, "position": n, "state": "played"} for n in range(20)]
        assert sum(village.commits[before:]) == 20
        assert len(village.commits) - before <= 2, "what waits shares a commit"


async def test_without_a_commit_the_device_reports_again(tmp_path: Path) -> None:
    """Rule 1: a store that is down for a while costs no receipt."""
    async with serving("horn-1") as village, fleet_of(village, tmp_path):
        await village.until(lambda: village.wakes == 1)
        village.down = True
        village.want(play())
        await village.round()
        await village.until(lambda: village.refused >= 3)
        assert village.said() == []
        village.down = False
        await village.until(lambda: (State.PLAYED, "played") in village.said())
    assert len(sounds(tmp_path)) == 1


async def test_a_store_that_is_down_neither_stops_a_device_nor_hides_that_it_came() -> None:
    """Presence waits for the next commit; the command does not (delivery fails open)."""
    async with serving("horn-1") as village:
        village.down = True
        async with connected(village, "horn-1") as device:
            assert (await village.channel.command([play()], village))[0].state is State.SUBMITTED
            await heard(device)
            village.down = False
            await device.send_str(receipt())
            await heard(device)
            assert village.presence() == [(1000, "online")]


async def test_a_device_speaks_only_of_what_it_was_commanded() -> None:
    """A stolen key must not paint other villages green."""
    async with (
        serving("horn-1", "horn-2") as village,
        connected(village, "horn-1") as one,
        connected(village, "horn-2") as two,
    ):
        await village.channel.command([play(0, 1000)], village)
        await heard(one)
        attempts = [
            (two, receipt(0)),
            (one, receipt(1)),
            (one, receipt(0, batch="other.1.0")),
            (one, receipt(0, id="a")),
        ]
        for device, frame in attempts:
            await device.send_str(frame)
            answer = await heard(device)
            assert (answer["type"], answer["code"]) == ("error", "not_commanded")
        assert not [event for event in village.events if isinstance(event, Report)]
        await village.channel.command([play(1, 1000)], village)
        await heard(one)
        await one.send_str(receipt(1))
        assert (await heard(one))["type"] == "ack"


def test_what_was_commanded_is_forgotten_after_a_day() -> None:
    """The memory is bounded, and yesterday's warning cannot be reported today."""
    commanded = Commanded()
    told = parse(receipt().encode())
    assert isinstance(told, Told)
    commanded.add(play(), 0.0)
    assert commanded.find(told, 1000, 86_400.0)
    commanded.forget(86_400.0)
    assert commanded.find(told, 1000, 86_400.0)
    assert not commanded.find(told, 1000, 86_401.0)
    commanded.forget(86_401.0)
    assert not commanded.find(told, 1000, 0.0)


@pytest.mark.parametrize(
    "bad", ["{", "[]", '{"type":"firmware"}', receipt(state="sung"), receipt(code="电话"), "[" * 4000]
)
async def test_the_third_malformed_frame_closes(bad: str) -> None:
    """A device with broken firmware is told what is wrong, and then stops costing anything."""
    async with serving("horn-1") as village, connected(village, "horn-1") as device:
        for _ in range(3):
            await device.send_str(bad)
            assert await heard(device) == {"type": "error", "code": "malformed"}
        assert await closed(device) == 4400
        await village.until(lambda: (1000, "offline") in village.presence())


async def test_oversized_and_binary_frames_are_refused() -> None:
    """No device needs 4 KiB to say that it played; what it sends must not fill our memory."""
    async with serving("horn-1") as village, connected(village, "horn-1") as device:
        await device.send_str(receipt(code="x" * 5000))
        assert await heard(device) == {"type": "error", "code": "oversized"}
        await device.send_bytes(receipt().encode())
        assert await heard(device) == {"type": "error", "code": "malformed"}
        await device.send_str("x" * 100_000)
        assert await closed(device) == 1009


@given(st.binary(max_size=5000) | st.text().map(str.encode))
def test_no_frame_brings_the_parser_down(frame: bytes) -> None:
    """Anything a device sends is a frame or a refusal; an exception would cut the others' commit."""
    try:
        parse(frame)
    except ValueError as error:
        code = str(error)
    else:
        code = ""
    assert code in ("", "malformed", "oversized")


# -- over time ---------------------------------------------------------------------------------------------------------


async def test_an_offline_device_catches_up_on_what_is_live_and_nothing_else(tmp_path: Path) -> None:
    """T22: a village that comes back after the storm must not hear a warning that has ended."""
    async with serving("horn-1") as village:
        past = datetime.now(UTC) - timedelta(seconds=1)
        village.want(play(0, alert="a" * 20))
        village.want(play(1, alert="b" * 20, expires=past))
        assert [r.code for r in await village.channel.command(list(village.wanted.values()), village)] == [
            "offline"
        ] * 2
        async with fleet_of(village, tmp_path):
            await village.until(lambda: (State.PLAYED, "played") in village.said(0))
            receipts = await village.channel.command([village.wanted[BATCH, 1]], village)
            assert [r.state for r in receipts] == [State.EXPIRED]
    assert [sound["id"] for sound in sounds(tmp_path)] == ["a" * 20]


async def test_a_version_sounds_once_however_often_it_is_commanded(tmp_path: Path) -> None:
    """Desired state is repeated until it is fulfilled; the village must hear it once."""
    async with serving("horn-1") as village, fleet_of(village, tmp_path):
        village.want(play(0))
        await village.until(lambda: (State.PLAYED, "played") in village.said(0))
        village.want(play(3, batch=f"{'0f' * 10}.4.0"))
        await village.round()
        await village.until(lambda: bool(village.said(3)))
        assert village.said(3) == [(State.PLAYED, "played")]
        wakes = village.wakes
        village.want(play(4))
        await village.channel.close()  # a restart of the hub
        await village.until(lambda: village.wakes > wakes)
        await village.until(lambda: (State.PLAYED, "played") in village.said(4))
    assert len(sounds(tmp_path)) == 1


async def test_a_stop_silences_a_play_for_good(tmp_path: Path) -> None:
    """A recalled warning must fall silent at once, and not come back by a late command."""
    async with serving("horn-1") as village, fleet_of(village, tmp_path, replace(QUICK, play_s=3600.0)):
        village.want(play())
        await village.until(lambda: (State.DELIVERED, "playing") in village.said())
        village.want(play(stop=True))
        await village.round()
        await village.until(lambda: (State.FAILED, "stopped") in village.said())
        village.want(play(1))
        await village.round()
        await village.until(lambda: bool(village.said(1)))
        assert village.said(1) == [(State.FAILED, "stopped")]
    assert [entry["how"] for entry in read(tmp_path / "sound.jsonl", "end")] == ["stopped"]
    assert len(sounds(tmp_path)) == 1


async def test_a_stop_that_comes_before_the_play_still_holds(tmp_path: Path) -> None:
    """T2: order of arrival must not bring a cancelled warning to life."""
    async with serving("horn-1") as village, fleet_of(village, tmp_path):
        village.want(play(stop=True))
        await village.until(lambda: (State.FAILED, "stopped") in village.said(0))
        village.want(play(1))
        await village.round()
        await village.until(lambda: (State.FAILED, "stopped") in village.said(1))
    assert sounds(tmp_path) == []


async def test_a_live_microphone_is_waited_for(tmp_path: Path) -> None:
    """D13: the village head at the microphone is never cut off; the warning follows."""
    async with serving("horn-1") as village, fleet_of(village, tmp_path) as fleet:
        fleet.speakers["horn-1"].speak(True)
        village.want(play())
        await village.until(lambda: (State.SUBMITTED, "live_speech") in village.said())
        assert sounds(tmp_path) == []
        fleet.speakers["horn-1"].speak(False)
        await village.until(lambda: (State.PLAYED, "played") in village.said())


async def test_a_real_warning_breaks_off_a_drill(tmp_path: Path) -> None:
    """D19: nobody may wait for a drill to end while the river rises."""
    async with serving("horn-1") as village, fleet_of(village, tmp_path, replace(QUICK, play_s=3600.0)):
        village.want(play(0, alert="d" * 20, status=Status.EXERCISE))
        await village.until(lambda: (State.DELIVERED, "playing") in village.said(0))
        village.want(play(1))
        await village.round()
        await village.until(lambda: (State.DELIVERED, "playing") in village.said(1))
        assert village.said(0)[-1] == (State.FAILED, "pre_empted")
    assert [sound["id"] for sound in sounds(tmp_path)] == ["d" * 20, "0f" * 10]


async def test_a_warning_of_higher_level_breaks_off_a_lower_one_which_follows(tmp_path: Path) -> None:
    """A red one must not wait behind the three repetitions of a yellow one, and the yellow one is not lost."""
    async with serving("horn-1") as village, fleet_of(village, tmp_path, replace(QUICK, play_s=3600.0, resend_s=60.0)):
        village.want(play(0, alert="a" * 20, level=Level.YELLOW))
        await village.until(lambda: (State.DELIVERED, "playing") in village.said(0))
        village.want(play(1))
        await village.round()
        await village.until(lambda: (State.DELIVERED, "playing") in village.said(1))
        assert village.said(0)[-1] == (State.SUBMITTED, "pre_empted")
        village.want(play(1, stop=True))
        await village.round()
        await village.until(lambda: village.said(0)[-1] == (State.DELIVERED, "playing"))
    assert [sound["id"] for sound in sounds(tmp_path)] == ["a" * 20, "0f" * 10, "a" * 20]


async def test_a_repeat_and_another_language_are_versions_of_their_own(tmp_path: Path) -> None:
    """The one repeat of rule 2, and English after Chinese, must be heard although the warning is the same."""
    async with serving("horn-1") as village, fleet_of(village, tmp_path):
        village.want(play(0))
        village.want(play(1, again=True, text="再次提醒。有强降雨"))
        village.want(play(2, language="en", status=Status.TEST, text="Heavy rain"))
        await village.until(lambda: village.wakes > 0 and not village.wanted)
    assert [sound["spoken"] for sound in sounds(tmp_path)][1:] == ["再次提醒。有强降雨", "DRILL. Heavy rain"]


async def test_a_simulated_device_refuses_what_has_expired(tmp_path: Path) -> None:
    """Even a gateway that errs, or a frame that lay in a buffer, must not make a village hear a stale warning."""
    now = datetime.now(UTC)
    told = {"command": "play", "id": "e" * 20, "status": "Actual", "drill": False, "level": "red", "language": "zh"}
    told |= {"text": "旧", "repeat": 1, "every_s": 0, "supersedes": [], "to": ""}
    told |= {"now": now.isoformat(), "expires": (now - timedelta(hours=6)).isoformat()}
    frame = {"type": "command", "batch": BATCH, "position": 0} | DEVICE_KEY.sign(orjson.dumps(told))._asdict()
    said: list[dict[str, Any]] = []
    done = asyncio.Event()

    async def gateway(request: web.Request) -> web.StreamResponse:
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        await stream.receive()
        await stream.send_str(orjson.dumps(frame).decode())
        async for answer in stream:
            said.append(orjson.loads(answer.data))
            if said[-1]["type"] == "receipt":
                done.set()
        return stream

    app = web.Application()
    app.router.add_get("/v1/devices/{name}/ws", gateway)
    log = Log(tmp_path / "sound.jsonl")
    async with (
        TestServer(app) as server,
        Fleet(str(server.make_url("")), [("horn-1", "k")], log, QUICK, (DEVICE_KEY.pin,)),
    ):
        async with asyncio.timeout(20):
            await done.wait()
    assert (said[-1]["state"], said[-1]["code"]) == ("failed", "expired")
    assert sounds(tmp_path) == []


async def test_three_hundred_devices_each_sound_once_and_are_accounted_for(tmp_path: Path) -> None:
    """A county's night in small: every device ends in exactly the state its character says, none is lost."""
    options = replace(QUICK, offline=0.1, failing=0.1, silent=0.1, resend_s=5.0)
    names = [f"horn-{n}" for n in range(300)]
    characters: Counter[str] = Counter(options.character(name) for name in names)
    async with serving(*names) as village, fleet_of(village, tmp_path, options):
        message: Message = sample_message()
        for position, device in enumerate(village.devices.values()):
            village.want(Play(BATCH, position, device.id, message))
        left = characters["silent"] + characters["offline"]
        await village.until(
            lambda: len(village.wanted) == left and len(village.channel.held()) == 300 - characters["offline"]
        )
        ends = {e.position: e.code for e in village.events if isinstance(e, Report) and e.state in ENDED}
    assert Counter(ends.values()) == {"played": characters["sound"], "amp_fault": characters["failing"]}
    assert Counter(sound["device"] for sound in sounds(tmp_path)).most_common(1)[0][1] == 1
    assert len(sounds(tmp_path)) == characters["sound"]
    assert all(characters[character] > 10 for character in ("offline", "failing", "silent", "sound"))


def test_which_devices_fail_depends_on_the_seed_alone() -> None:
    """A drill of the installation that cannot be repeated proves nothing."""
    names = [f"horn-{n}" for n in range(50)]
    first, second, other = Options(failing=0.5), Options(failing=0.5), Options(failing=0.5, seed=1)
    assert [first.character(n) for n in names] == [second.character(n) for n in names]
    assert [first.character(n) for n in names] != [other.character(n) for n in names]


# -- protocol 2: what devices may say, and what they are ordered -------------------------------------------------------


@pytest.mark.parametrize("hello", ['{"type":"hello","firmware":"1.0"}', hello_of(protocol=3)])
async def test_a_device_of_another_protocol_is_told_which_is_spoken_here(hello: str) -> None:
    """A device that takes signed commands for noise would stay silent, and nobody would know why."""
    async with serving("horn-1") as village, connected(village, "horn-1", hello=False) as device:
        await device.send_str(hello)
        assert await heard(device) == {"type": "error", "code": "unsupported_protocol", "protocol": 2}
        assert await closed(device) == 4426
        assert list(village.channel.held()) == []
        assert village.events == []


async def test_a_repeated_receipt_is_acknowledged_and_changes_nothing() -> None:
    """A lost ack is no second fault; a replayed receipt must fill neither the ledger nor the audit."""
    async with serving("horn-1") as village, connected(village, "horn-1") as device:
        await village.channel.command([play()], village)
        await heard(device)
        for _ in range(5):
            await device.send_str(receipt(state="failed", code="amp_fault"))
            assert (await heard(device))["type"] == "ack"
        await device.send_str(receipt(state="playing"))
        assert (await heard(device))["state"] == "playing"
        assert village.said() == [(State.FAILED, "amp_fault")]
        assert [kind for _, kind in village.presence()] == ["online", "fault"]


async def test_played_without_a_believable_duration_is_a_failure_and_a_fault() -> None:
    """A device that acknowledges but never plays must show before the flood, not after it."""
    async with serving("horn-1") as village, connected(village, "horn-1") as device:
        await village.channel.command([play(n) for n in range(3)], village)
        for position, heard_s in enumerate((None, 2.0, 40.0)):
            await heard(device)
            await device.send_str(receipt(position, heard_s=heard_s))
        for _ in range(3):
            assert (await heard(device))["type"] == "ack"
        assert village.said(0) == village.said(1) == [(State.FAILED, "implausible")]
        assert village.said(2) == [(State.PLAYED, "played")]
        assert [kind for _, kind in village.presence()] == ["online", "fault", "fault"]


async def test_a_device_that_was_not_hushed_does_not_say_so() -> None:
    """Whoever could say so unasked would end the repetition of a red warning for its village."""
    async with serving("horn-1") as village, connected(village, "horn-1") as device:
        await village.channel.command([play()], village)
        await heard(device)
        await device.send_str(receipt(state="hushed"))
        assert (await heard(device))["code"] == "not_commanded"
        await village.channel.command([replace(play(), hush=True)], village)
        told = await commanded(device)
        assert (told["command"], told["id"]) == ("hush", "0f" * 10)
        await device.send_str(receipt(state="hushed"))
        assert (await heard(device))["type"] == "ack"
        assert village.said() == [(State.DELIVERED, "hushed")]


async def test_the_state_of_a_device_is_passed_on_with_its_clock_against_ours() -> None:
    """Who sends people out to a village before the storm needs to know which loudspeaker lies there broken."""
    async with serving("horn-1") as village, connected(village, "horn-1") as device:
        ahead = datetime.now(UTC) + timedelta(days=1)
        frame = {"type": "state", "clock": ahead.isoformat(), "volume": 70, "power": "battery", "battery": 9}
        await device.send_bytes(b"no text")
        await heard(device)
        await device.send_str(orjson.dumps(frame | {"faults": ["door_open"], "playing": None}).decode())
        await village.until(lambda: (1000, "state") in village.presence())
        state = next(e.state for e in village.events if isinstance(e, DeviceEvent) and e.kind == "state")
        assert state is not None
        assert state.clock_skew_s == pytest.approx(86_400, abs=60)
        assert replace(state, clock_skew_s=None) == DeviceState("1.0", 70, "battery", 9, None, ("door_open",))


async def test_states_that_come_faster_than_they_are_kept_are_one() -> None:
    """A loose contact that reports itself a hundred times a second must not crowd out the receipts of others."""
    async with serving("horn-1") as village, connected(village, "horn-1") as device:
        village.gate.clear()
        for volume in range(100):
            await device.send_str(orjson.dumps({"type": "state", "volume": volume}).decode())
        await device.send_str("the answer shows that all were read")
        await heard(device)
        village.gate.set()
        await village.until(lambda: any(_volume(event) == 99 for event in village.events))
        assert len([event for event in village.events if _volume(event) is not None]) <= 2


def _volume(event: Event) -> int | None:
    return event.state.volume if isinstance(event, DeviceEvent) and event.state is not None else None


async def test_an_alarm_of_the_village_is_acknowledged_once_it_is_durable() -> None:
    """D13: a village sounds its alarm because something happens there that the county does not know of."""
    async with serving("horn-1") as village, connected(village, "horn-1") as device:
        skewed = datetime.now(UTC) + timedelta(days=1)
        await device.send_str(orjson.dumps({"type": "state", "clock": skewed.isoformat()}).decode())
        village.down = True
        alarm = orjson.dumps({"type": "alarm", "alarm": "3f0e6e0a-9a5c", "at": skewed.isoformat()}).decode()
        await device.send_str(alarm)
        await village.until(lambda: village.refused >= 1)
        village.down = False
        await device.send_str(alarm)
        assert await heard(device) == {"type": "ack", "alarm": "3f0e6e0a-9a5c"}
        alarms = [event for event in village.events if isinstance(event, DeviceEvent) and event.kind == "alarm"]
        assert [(event.device, event.code) for event in alarms] == [(1000, "3f0e6e0a-9a5c")]
        assert abs(alarms[0].at - datetime.now(UTC)) < timedelta(minutes=1), "by the gateway's time, not the device's"


async def test_an_order_reaches_its_one_device_and_only_that_one_answers() -> None:
    """A volume meant for a school must not be taken by the market, nor be reported done by it."""
    order = Order("o-1", 1000, "volume", {"volume": 70, "floor": {"red": 90}}, datetime(2099, 1, 1, tzinfo=UTC))
    async with (
        serving("horn-1", "horn-2") as village,
        connected(village, "horn-1") as one,
        connected(village, "horn-2") as two,
    ):
        receipts = await village.channel.order(
            [order, replace(order, kind="reboot"), replace(order, device=7)], village
        )
        assert [receipt.code for receipt in receipts] == ["", "bad_order", "offline"]
        told = await commanded(one)
        assert (told["command"], told["to"], told["order"], told["batch"]) == ("volume", "horn-1", "o-1", "order")
        done = orjson.dumps({"type": "receipt", "order": "o-1", "state": "done"}).decode()
        await two.send_str(done)
        assert await heard(two) == {"type": "error", "code": "not_commanded", "order": "o-1"}
        await one.send_str(done)
        assert await heard(one) == {"type": "ack", "order": "o-1", "state": "done"}
        found = [event for event in village.events if isinstance(event, OrderReceipt)]
        assert [(event.order, event.device, event.done) for event in found] == [("o-1", 1000, True)]


async def test_a_device_that_cannot_speak_waits_for_its_audio_and_not_for_ever() -> None:
    """It shows the text at least; the ones that can speak do not wait with it."""
    async with (
        serving("mute", "horn-1") as village,
        connected(village, "mute", hello=False) as mute,
        connected(village, "horn-1") as horn,
    ):
        await mute.send_str(hello_of(speech=False, audio=True))
        await village.until(lambda: len(village.channel.held()) == 2)
        message = sample_message()
        plays = [Play(BATCH, 0, 1000, message), Play(BATCH, 1, 1001, message)]
        assert [one.code for one in await village.channel.command(plays, village)] == ["audio_is_made", ""]
        assert "audio" not in await commanded(horn)
        village.sounds[message.text] = Audio("http://127.0.0.1/a", "0" * 64, 5, 12.5, "audio/ogg")
        assert [one.code for one in await village.channel.command(plays, village)] == ["", ""]
        told = await commanded(mute)
        assert told["audio"] == {
            "url": "http://127.0.0.1/a", "sha256": "0" * 64, "size": 5, "duration_s": 12.5, "type": "audio/ogg",
        }  # fmt: skip
        assert told["repeat"] == 1, "the file says its text twice by itself"
        await mute.send_str(receipt(0, heard_s=9.0))
        assert (await heard(mute))["type"] == "ack"
        assert village.said(0) == [(State.FAILED, "implausible")], "12.5 s were to be heard"


async def test_a_simulated_device_obeys_the_pinned_key_alone(tmp_path: Path) -> None:
    """Whoever gets between a village and its gateway must not be able to sound an alarm there."""
    async with serving("horn-1") as village:
        log = Log(tmp_path / "sound.jsonl")
        other = f"ed25519:{'A' * 43}"
        async with Fleet(village.url, [("horn-1", key_of("horn-1"))], log, QUICK, (other,)):
            village.want(play())
            await village.until(lambda: (State.FAILED, "bad_signature") in village.said())
        assert sounds(tmp_path) == []


async def test_an_update_silences_what_it_replaces_in_the_same_frame(tmp_path: Path) -> None:
    """A village must not hear orange after it was told red, nor silence in between."""
    async with serving("horn-1") as village, fleet_of(village, tmp_path, replace(QUICK, play_s=3600.0, resend_s=60.0)):
        village.want(play(0, alert="a" * 20, level=Level.ORANGE))
        await village.until(lambda: (State.DELIVERED, "playing") in village.said(0))
        village.want(play(1, supersedes=("a" * 20,)))
        await village.round()
        await village.until(lambda: (State.DELIVERED, "playing") in village.said(1))
        assert village.said(0)[-1] == (State.FAILED, "stopped")
    assert [sound["id"] for sound in sounds(tmp_path)] == ["a" * 20, "0f" * 10]


async def test_a_red_warning_sounds_again_until_somebody_has_confirmed(tmp_path: Path) -> None:
    """D13: who slept through the first round hears the second, and one round is one receipt."""
    async with serving("horn-1") as village, fleet_of(village, tmp_path, replace(QUICK, resend_s=60.0)):
        village.want(play(every_s=1))
        await village.until(lambda: (State.PLAYED, "played") in village.said())
        await until(lambda: len(sounds(tmp_path)) >= 2)
        await village.channel.command([replace(play(), hush=True)], village)
        await village.until(lambda: (State.DELIVERED, "hushed") in village.said())
    assert [state for state, _ in village.said()].count(State.PLAYED) == 1
