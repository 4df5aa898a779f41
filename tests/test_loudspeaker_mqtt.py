"""Loudspeakers over MQTT: the channel and devices written from the page, on a real Mosquitto (and a real RabbitMQ)."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from pathlib import Path
from socket import SHUT_RDWR, socket
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from aiomqtt import Client, MqttError, ProtocolVersion, Will
from links import DEVICE_KEY, Case
from mqtt_brokers import Mosquitto, RabbitMqtt
from mqtt_speaker import LeasedLink
from pydantic import SecretStr, ValidationError
from servers import free_port
from test_device import SPEAK, Horn
from test_loudspeaker_ws import Village, hello_of, key_of, opened, play, receipt
from test_store import HandClock

from channels._mqtt import BrokerSettings
from channels.loudspeaker_mqtt import LoudspeakerMqtt
from gateway.channel import Device
from gateway.cli.login import logins
from gateway.database import Database
from gateway.device.disk import Disk
from gateway.device.mqtt import Mqtt
from gateway.device.parts import Parts
from gateway.device.program import Program
from gateway.device.studio import Studio
from gateway.device.transport import Unreached
from gateway.device.trust import Trust
from gateway.doctor import Facts
from gateway.errors import ConfigError
from gateway.model import State
from gateway.simulate.log import Log, read
from gateway.simulate.speaker import Character, Fleet, Options
from gateway.store import Store
from gateway.store.lease import LAPSE_S

PASSWORD = "sample-password-of-the-gateway"
NAMES = ("horn-1", "horn-2")
SOON_S = 30.0


@asynccontextmanager
async def contract_case() -> AsyncIterator[Case]:
    """A broker that is not there: the devices of a slice are offline, and nothing of the login is shown."""
    settings = settings_of(f"mqtt://127.0.0.1:{free_port()}")
    yield Case(settings, ["device-1", "device-2", "device-3"], secrets=[PASSWORD])


def settings_of(url: str, **changes: Any) -> BrokerSettings:
    quick: dict[str, Any] = {"retry_s": 0.02, "connect_s": 2.0, "publish_s": 1.0}
    return BrokerSettings(url=url, password=SecretStr(PASSWORD), **quick | changes)


def mosquitto(*names: str) -> Mosquitto:
    return Mosquitto({"gateway": PASSWORD, **{name: key_of(name) for name in names or NAMES}})


@dataclass
class County(Village):
    """A village's small hub, for devices of this channel. `asked`: names looked up in vain."""

    asked: int = 0

    async def device(self, name: str) -> Device | None:
        self.asked += self.directory_down
        self.notify()
        return await super().device(name)

    def add(self, *names: str) -> None:
        for name in names:
            key = sha256(key_of(name).encode()).hexdigest()
            self.devices[name] = Device(1000 + len(self.devices), "411726001001", key, "loudspeaker_mqtt")

    def held(self) -> list[int]:
        return sorted(self.channel.held())


@asynccontextmanager
async def county(url: str, *names: str, link: County | None = None, **settings: Any) -> AsyncIterator[County]:
    """Run the channel against a broker."""
    if link is None:
        link = County()
        link.add(*(names or NAMES))
    link.channel = LoudspeakerMqtt(settings_of(url, **settings))
    await link.channel.open(link)
    try:
        yield link
    finally:
        await link.channel.close()


@dataclass
class Pole:
    """One device, from the page. `frames` is what it heard; `hello` what it says of itself."""

    name: str
    client: Client
    frames: list[dict[str, Any]] = field(default_factory=list)
    hello: str = field(default_factory=hello_of)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def say(self, frame: str | bytes, kind: str = "told", **options: Any) -> None:
        await self.client.publish(f"mingluo/d/{self.name}/{kind}", frame, qos=1, **options)

    async def listen(self) -> None:
        with suppress(MqttError):
            async for message in self.client.messages:
                assert not message.retain, "a command was retained"
                assert isinstance(message.payload, bytes)
                frame = orjson.loads(message.payload)
                if frame.get("code") == "hello_first" and self.hello:
                    await self.say(self.hello)
                if message.topic.value != "mingluo/call":
                    self.frames.append(frame)
                    self._changed.set()
                    self._changed = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON_S):
            while not holds():
                await self._changed.wait()

    async def hears(self, kind: str, **wanted: Any) -> dict[str, Any]:
        """Wait for a frame with these fields, and return it."""

        def found() -> list[dict[str, Any]]:
            known = {"type": kind, **wanted}
            return [one for one in self.frames if all(one.get(name) == value for name, value in known.items())]

        await self.until(lambda: bool(found()))
        return found()[-1]

    def commands(self) -> list[tuple[str, str]]:
        """What it was told to do, in order: command and id."""
        told = [opened(frame) for frame in self.frames if frame["type"] == "command"]
        return [(one["command"], one["id"]) for one in told]


@asynccontextmanager
async def pole(
    url: str, name: str = "horn-1", hello: bool = True, key: str = "", version: ProtocolVersion = ProtocolVersion.V311
) -> AsyncIterator[Pole]:
    """Connect one device; at the end its line breaks, and the broker speaks its last will."""
    place = urlsplit(url)
    assert place.hostname is not None
    presence = f"mingluo/d/{name}/presence"
    client = Client(
        place.hostname, place.port or 1883, username=name, password=key or key_of(name), identifier=name,
        clean_session=None if version is ProtocolVersion.V5 else True, protocol=version, timeout=2.0,
        will=Will(presence, b"offline", 1, retain=True),
    )  # fmt: skip
    await client.__aenter__()
    device = Pole(name, client, hello=hello_of() if hello else "")
    listening = asyncio.create_task(device.listen())
    try:
        await client.subscribe([(f"mingluo/d/{name}/command", 1), ("mingluo/call", 1)])
        if hello:
            await device.say(b"online", "presence", retain=True)
            await device.say(device.hello)
        yield device
    finally:
        line = client._client.socket()  # the library has no way to break a line
        if isinstance(line, socket):
            line.shutdown(SHUT_RDWR)  # a power cut: nothing is said
        await asyncio.wait([listening])


async def held(link: County, *devices: int) -> None:
    """Wait until exactly these devices are held."""
    await soon(lambda: link.held() == sorted(devices))


async def soon(holds: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    async with asyncio.timeout(SOON_S):
        for _ in count():
            if holds():
                return
            await asyncio.sleep(0.005)


@asynccontextmanager
async def program_of(folder: Path, transport: Mqtt) -> AsyncIterator[tuple[Horn, Program]]:
    """Run the device program with that way to the gateway."""
    horn, disk = Horn(), Disk(folder)
    parts = Parts(
        "horn-1", "411726001001", "test-1", Trust.pinned([DEVICE_KEY.pin]), disk, transport, horn,
        Studio(folder / "sound", SPEAK), boot="boot-1",
    )  # fmt: skip
    program = Program(parts)
    task = asyncio.create_task(program.run())
    try:
        yield horn, program
    finally:
        task.cancel()
        await asyncio.wait([task])
        disk.close()


# -- the way of a command ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ProtocolVersion.V311, ProtocolVersion.V5])
async def test_a_warning_goes_out_and_its_receipts_come_back(version: ProtocolVersion) -> None:
    """The whole way: hello, a signed command, a receipt that is durable before it is acknowledged; by either MQTT."""
    with mosquitto() as broker:
        async with county(broker.url) as link, pole(broker.url, version=version) as device:
            await held(link, 1000)
            receipts = await link.channel.command([play()], link)
            assert [one.state for one in receipts] == [State.SUBMITTED]
            told = opened(await device.hears("command"))
            assert (told["command"], told["text"]) == ("play", play().message.text)
            for state in ("received", "playing", "played"):
                await device.say(receipt(state=state))
                await device.hears("ack", state=state)
            assert link.said() == [
                (State.DELIVERED, "received"),
                (State.DELIVERED, "playing"),
                (State.PLAYED, "played"),
            ]
        await held(link)


async def test_devices_and_the_gateway_find_each_other_in_any_order() -> None:
    """After a power cut nobody knows what comes back first: broker, gateway or loudspeaker."""
    with mosquitto() as broker:
        async with pole(broker.url, "horn-1"):
            async with county(broker.url) as link:
                await held(link, 1000)
                async with pole(broker.url, "horn-2"):
                    await held(link, 1000, 1001)
                await held(link, 1000)
            assert link.presence()[:2] == [(1000, "online"), (1001, "online")]
            assert sorted(link.presence()[2:]) == [(1000, "offline"), (1001, "offline")]


async def test_what_was_cancelled_while_a_device_was_away_is_never_heard() -> None:
    """Nothing waits for a device at the broker: it would sound hours later, when the road is dry again."""
    with mosquitto() as broker:
        async with county(broker.url) as link:
            async with pole(broker.url):
                await held(link, 1000)
            # Its line has broken; nobody knows that yet.
            receipts = await link.channel.command([play(alert="a" * 20), play(1, 1001, alert="a" * 20)], link)
            assert [one.code for one in receipts][1:] == ["offline"]
            await held(link)
            link.want(play(alert="a" * 20, stop=True))
            link.want(play(2, alert="b" * 20))
            async with pole(broker.url) as device:
                await device.hears("command", position=2)
                assert sorted(device.commands()) == [("play", "b" * 20), ("stop", "a" * 20)]


async def test_a_command_that_nobody_heard_stays_nowhere() -> None:
    """A retained warning would be read to every device that subscribes, for years."""
    with mosquitto() as broker:
        async with county(broker.url) as link, pole(broker.url) as device:
            await held(link, 1000)
            await link.channel.command([play()], link)
            await device.hears("command")
        async with pole(broker.url) as device:
            await device.say(b"offline", "presence", retain=True)
            await device.client.subscribe("mingluo/d/horn-1/command", qos=1)
            await device.client.subscribe("mingluo/call", qos=1)
            assert device.frames == [], "a subscription hands out what is retained before it is confirmed"


# -- who is there ------------------------------------------------------------------------------------------------------


async def test_the_second_session_of_a_device_wins_and_that_is_told() -> None:
    """Two devices with one key: somebody has copied it, or a line has broken unseen. Either way a person must know."""
    with mosquitto() as broker:
        async with county(broker.url) as link, pole(broker.url):
            await held(link, 1000)
            async with pole(broker.url) as second:
                await link.until(lambda: (1000, "replaced") in link.presence())
                await held(link, 1000)
                await link.channel.command([play()], link)
                await second.hears("command")
            await held(link)
        assert link.presence() == [(1000, "online"), (1000, "replaced"), (1000, "online"), (1000, "offline")]


async def test_a_name_that_is_not_in_the_roster_or_not_of_this_channel_is_dropped() -> None:
    """A retired device, or one that is commanded another way, must not report that a village was warned."""
    with mosquitto("horn-1", "gone", "socket") as broker:
        async with county(broker.url, "horn-1", "socket") as link:
            channel = link.channel
            assert isinstance(channel, LoudspeakerMqtt)
            link.devices["socket"] = link.devices["socket"]._replace(channel="loudspeaker_ws")
            async with pole(broker.url, "gone") as gone, pole(broker.url, "socket") as other, pole(broker.url):
                await held(link, 1000)
                for stranger in (gone, other):
                    await stranger.say(receipt())
                    await stranger.hears("error", code="hello_first")
            assert channel.strangers >= 2
            await soon(lambda: bool(link.presence()))
            assert {device for device, _ in link.presence()} == {1000}
            assert link.said() == []


async def test_a_device_says_nothing_of_what_it_was_not_commanded() -> None:
    """A device that makes up receipts would call a deaf village warned."""
    with mosquitto() as broker:
        async with county(broker.url) as link, pole(broker.url) as one, pole(broker.url, "horn-2") as two:
            await held(link, 1000, 1001)
            await link.channel.command([play()], link)
            await one.hears("command")
            await two.say(receipt())
            await two.hears("error", code="not_commanded")
            assert link.said() == []


@pytest.mark.parametrize("frame", [b"", b"{", b"[" * 5000, b"\xff\xfe", b'{"type":"hello"}' + b" " * 5000, b"null"])
async def test_no_frame_ends_the_channel(frame: bytes) -> None:
    """One broken device must not silence six thousand."""
    with mosquitto() as broker:
        async with county(broker.url) as link, pole(broker.url) as one, pole(broker.url, "horn-2", hello=False) as two:
            await held(link, 1000)
            for kind in ("told", "presence"):
                for device in (one, two):
                    await device.say(frame, kind)
            await two.say(hello_of())
            await held(link, 1000, 1001)
            await link.channel.command([play(), play(1, 1001)], link)
            await one.hears("command")
            await two.hears("command")
            assert link.held() == [1000, 1001]
            assert link.said() == []


async def test_a_device_with_too_many_bad_frames_is_not_heard_until_it_begins_anew() -> None:
    """Only the broker could cut it; the gateway takes no more of this connection."""
    with mosquitto() as broker:
        async with county(broker.url) as link, pole(broker.url) as device:
            await held(link, 1000)
            device.hello = "{"  # it does not know how to begin anew
            for _ in range(3):
                await device.say(b"{")
            await held(link)
            assert link.said() == []
            device.hello = hello_of()
            await device.say(device.hello)
            await held(link, 1000)


async def test_devices_are_looked_up_again_once_the_store_answers() -> None:
    """A database that restarts must not make a county's loudspeakers strangers."""
    with mosquitto() as broker:
        link = County()
        link.add(*NAMES)
        link.directory_down = True
        async with county(broker.url, link=link), pole(broker.url) as device:
            await device.say(receipt())  # comes after its hello, and waits for the same answer
            await link.until(lambda: link.asked > 0)
            assert link.held() == []
            link.directory_down = False
            await held(link, 1000)
            await device.hears("error", code="not_commanded")


# -- the broker breaks -------------------------------------------------------------------------------------------------


async def test_a_broker_killed_in_mid_broadcast_loses_no_command_and_doubles_none() -> None:
    """Half the county has heard it; the other half must, and the first half not once more as something new."""
    names = [f"horn-{number}" for number in range(40)]
    with mosquitto(*names) as broker:
        async with county(broker.url, *names) as link, AsyncExitStack() as stack:
            before = [await stack.enter_async_context(pole(broker.url, name)) for name in names]
            await held(link, *range(1000, 1040))
            for position in range(40):
                link.want(play(position, 1000 + position))
            command = asyncio.create_task(link.round())
            await before[0].hears("command")
            assert link.channel.up()
            broker.kill()
            await command
            await held(link)
            assert not link.channel.up(), "an alert rings when no process has the broker"
            broker.start()
            after = [await stack.enter_async_context(pole(broker.url, name)) for name in names]
            for position, device in enumerate(after):
                await device.hears("command", position=position)
                await device.say(receipt(position))
                await device.hears("ack", position=position)
            assert link.wanted == {}
            assert all(set(device.commands()) == {("play", "0f" * 10)} for device in after)


async def test_a_frozen_broker_holds_nobody_up_and_what_was_stopped_meanwhile_stays_stopped() -> None:
    """Frozen is the break that raises nothing. Whoever waits for its confirms neither warns nor recalls."""
    with mosquitto() as broker:
        async with county(broker.url, publish_s=0.3, connect_s=0.5) as link, pole(broker.url) as device:
            await held(link, 1000)
            link.want(play(alert="a" * 20))
            await link.round()
            await device.hears("command")
            broker.freeze()
            receipts = await link.channel.command([play(1, alert="b" * 20)], link)
            assert [one.state for one in receipts] == [State.SUBMITTED], "nobody waits for the broker"
            await held(link)
            assert [one.code for one in await link.channel.command([play(alert="a" * 20)], link)] == ["offline"]
            link.wanted.clear()
            link.want(play(alert="a" * 20, stop=True))
            link.want(play(1, alert="b" * 20, stop=True))
            broker.thaw()
            await device.until(lambda: {("stop", "a" * 20), ("stop", "b" * 20)} <= set(device.commands()))
            told = device.commands()
            assert told.count(("play", "b" * 20)) <= 1, "the one that lay in the frozen broker's buffer"


async def test_a_wrong_password_is_tried_patiently() -> None:
    """A broker that locks accounts must not lock ours for the night."""
    tries = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await reader.read(1024)
        writer.write(bytes([0x20, 2, 0, 5]))  # CONNACK: not authorised
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, county(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"):
        await soon(lambda: tries > 0)
        for _ in range(20):
            await asyncio.sleep(0.01)  # many times `retry_s`
        assert tries == 1


# -- one speaks for all ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def second(link: County, url: str) -> AsyncIterator[tuple[County, LoudspeakerMqtt]]:
    """Run another process of the same installation: its leases and its events are the first one's."""
    other = County(devices=link.devices, slots=link.slots, leases=link.leases, events=link.events)
    other.channel = LoudspeakerMqtt(settings_of(url))
    await other.channel.open(other)
    try:
        yield other, other.channel
    finally:
        await other.channel.close()


async def test_one_process_speaks_and_another_takes_over_when_it_stops() -> None:
    """Two that speak at once would command every device twice."""
    with mosquitto() as broker:
        async with AsyncExitStack() as stack, pole(broker.url) as device:
            first = await stack.enter_async_context(county(broker.url))
            await held(first, 1000)
            async with second(first, broker.url) as (other, _):
                assert other.held() == []
                await stack.aclose()
                await held(other, 1000)
                # In this order.
                await soon(lambda: first.presence() == [(1000, "online"), (1000, "offline"), (1000, "online")])
                await other.channel.command([play()], other)
                await device.hears("command")


async def test_a_process_that_was_frozen_gives_way_and_takes_back_nothing() -> None:
    """It wakes and believes that it is its turn still: what it says of the devices is no longer true."""
    with mosquitto() as broker:
        async with county(broker.url) as first, pole(broker.url) as device:
            await held(first, 1000)
            first.slots["broker"].clear()  # its lease has lapsed
            async with second(first, broker.url) as (other, _):
                await held(other, 1000)
                first.leases["broker"][0].lost.set()
                await soon(lambda: not first.held())
                await held(other, 1000)  # it may have been pushed aside once before the first one knew
                await soon(lambda: bool(first.presence()))
                assert {kind for _, kind in first.presence()} == {"online"}
                await other.channel.command([play()], other)
                await device.hears("command")


async def test_when_the_process_that_speaks_is_killed_another_finds_all_devices(database_url: str) -> None:
    """Kill -9 in mid-broadcast: the devices stay connected to the broker, and their commands come from elsewhere."""
    database, clock = Database(database_url), HandClock()
    await database.open()
    with mosquitto() as broker:
        async with pole(broker.url) as one, pole(broker.url, "horn-2") as two:
            program = [str(Path(__file__).parent / "mqtt_speaker.py"), database_url, broker.url, PASSWORD, *NAMES]
            first = await asyncio.create_subprocess_exec(sys.executable, *program, stdout=asyncio.subprocess.PIPE)
            assert first.stdout is not None
            while await asyncio.wait_for(first.stdout.readline(), SOON_S) != b"2\n":
                pass
            clock.time = datetime.now(UTC)
            link = LeasedLink(store=Store(database, clock).leases)
            link.add(*NAMES)
            channel = LoudspeakerMqtt(settings_of(broker.url))
            await channel.open(link)
            first.kill()
            await first.wait()
            for _ in range(10):
                await asyncio.sleep(0.01)
                assert list(channel.held()) == []
            clock.advance(LAPSE_S + 5)  # nobody renews it any more
            await soon(lambda: len(channel.held()) == 2)
            await channel.command([play(), play(1, 1001)], link)
            for device in (one, two):
                await device.hears("command")
            await channel.close()
    await database.close()


# -- other brokers, other devices --------------------------------------------------------------------------------------


async def test_behind_rabbitmq_a_gateway_that_takes_over_finds_every_device() -> None:
    """RabbitMQ hands out nothing retained for a wildcard: without the call they would be found minutes later."""
    with RabbitMqtt(("gateway", PASSWORD), {name: key_of(name) for name in NAMES}) as broker:
        async with pole(broker.url) as one, pole(broker.url, "horn-2") as two:
            for _ in range(2):
                async with county(broker.url) as link:
                    await held(link, 1000, 1001)
                    await link.channel.command([play(), play(1, 1001)], link)
                    for position, device in enumerate((one, two)):
                        await device.hears("command")
                        await device.say(receipt(position))
                        await device.hears("ack", position=position)
                        device.frames.clear()
            async with county(broker.url) as link:
                await held(link, 1000, 1001)
                async with pole(broker.url):
                    await link.until(lambda: (1000, "replaced") in link.presence())
                    await held(link, 1000, 1001)
                assert (1001, "replaced") not in link.presence()


async def test_the_device_program_plays_what_comes_by_mqtt(tmp_path: Path) -> None:
    """The whole way with the real program, through a broker that breaks and a gateway that is replaced."""
    with mosquitto() as broker:
        async with AsyncExitStack() as stack:
            link = await stack.enter_async_context(county(broker.url, repeat=1))
            transport = Mqtt(broker.url, "horn-1", key_of("horn-1"))
            horn, program = await stack.enter_async_context(program_of(tmp_path, transport))
            await held(link, 1000)
            first, second = (play(n, alert=id_ * 20, text="涨水，快走") for n, id_ in enumerate("ab"))
            link.want(first)
            await link.round()
            await link.until(lambda: (State.PLAYED, "played") in link.said(0))
            broker.kill()
            broker.start()
            await soon(lambda: program.status()["connected"])
            await held(link, 1000)
            link.want(second)
            link.want(replace(first, position=2))  # once more, under another name
            await link.round()
            await link.until(lambda: all((State.PLAYED, "played") in link.said(n) for n in (1, 2)))
            assert horn.ids() == ["a" * 20, "b" * 20]


async def test_gateway_and_device_reach_a_broker_by_tls_and_only_the_one_they_trust(tmp_path: Path) -> None:
    """Names, keys and warnings cross the county's network: unread, and to nobody who merely answers at the address."""
    with mosquitto() as broker:
        async with AsyncExitStack() as stack:
            link = await stack.enter_async_context(county(broker.tls_url, ca=str(broker.ca), repeat=1))
            stranger = await stack.enter_async_context(county(broker.tls_url))
            tls = ssl.create_default_context(cafile=broker.ca)
            transport = Mqtt(broker.tls_url, "horn-1", key_of("horn-1"), tls)
            horn, _ = await stack.enter_async_context(program_of(tmp_path, transport))
            await held(link, 1000)
            link.want(play(text="涨水，快走"))
            await link.round()
            await link.until(lambda: (State.PLAYED, "played") in link.said(0))
            assert horn.ids() == [play().message.alert]
            assert not stranger.channel.up()
        with pytest.raises(Unreached):
            async with Mqtt(broker.tls_url, "horn-1", key_of("horn-1")).connect():
                pass


async def test_the_simulated_fleet_lives_behind_a_broker_too(tmp_path: Path) -> None:
    """An installation with a broker is proven before the first real loudspeaker hangs on its pole."""
    names = [f"horn-{number}" for number in range(40)]
    options = Options(play_s=0.0, backoff_s=0.01, backoff_max_s=0.1, resend_s=0.1, offline=0.2, failing=0.2)
    kinds = {name: options.character(name) for name in names}
    there = [number for number, name in enumerate(names) if kinds[name] is not Character.OFFLINE]
    log = Log(tmp_path / "sound.jsonl")
    with mosquitto(*names) as broker:
        fleet = Fleet(broker.url, [(name, key_of(name)) for name in names], log, options, (DEVICE_KEY.pin,))
        async with county(broker.url, *names, repeat=1) as link, fleet:
            await held(link, *(1000 + number for number in there))
            for number in range(40):
                link.want(play(number, 1000 + number))
            await link.round()
            await link.until(lambda: len(link.wanted) == 40 - len(there))
    log.close()
    heard = [one["device"] for one in read(tmp_path / "sound.jsonl", "sound")]
    assert sorted(heard) == sorted(name for name in names if kinds[name] is Character.SOUND)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("mqtt://broker.example.cn", "use mqtts"),
        ("https://broker.example.cn", "mqtts://HOST"),
        ("mqtts://", "mqtts://HOST"),
        ("mqtts://gateway:secret@broker.example.cn", "keys of their own"),
        ("mqtts://broker.example.cn/path", "mqtts://HOST"),
    ],
)
def test_an_address_that_would_show_the_password_is_refused(url: str, wrong: str) -> None:
    """Who reads the gateway's password commands every loudspeaker's broker."""
    with pytest.raises(ValidationError, match=wrong) as refused:
        settings_of(url)
    assert "secret" not in str(refused.value)


def test_the_brokers_host_is_declared() -> None:
    """Rule 11: until two people make the channel live, no broker beyond this machine is talked to."""
    channel = LoudspeakerMqtt(settings_of("mqtts://broker.example.cn:8884"))
    assert list(channel.endpoints()) == ["broker.example.cn"]


# -- the doctor --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mosquitto", "rabbitmq"])
async def test_the_doctor_proves_the_login_and_the_rules(kind: str) -> None:
    """Rules that were never installed are seen by nobody, until somebody speaks for a village that is not theirs."""
    devices = {"horn-1": key_of("horn-1")}
    with mosquitto() if kind == "mosquitto" else RabbitMqtt(("gateway", PASSWORD), devices) as broker:
        proven = await LoudspeakerMqtt(settings_of(broker.url)).prove()
        assert proven == "127.0.0.1 lets us in, and nobody speaks for another"
        with pytest.raises(ConfigError, match="refuses username or password"):
            await LoudspeakerMqtt(settings_of(broker.url, username="horn-1")).prove()


@pytest.mark.parametrize(
    ("acl", "wrong"),
    [
        ("topic readwrite #\nuser gateway\ntopic readwrite #\n", "lets anybody speak for a device"),
        ("user gateway\ntopic write mingluo/d/+/command\n", "does not let us hear devices"),
    ],
)
async def test_the_doctor_names_rules_that_are_missing(acl: str, wrong: str) -> None:
    """A broker as it comes from the package lets everybody say everything."""
    with Mosquitto({"gateway": PASSWORD}, acl) as broker, pytest.raises(ConfigError, match=wrong):
        await LoudspeakerMqtt(settings_of(broker.url)).prove()


async def test_the_doctor_says_that_no_broker_answers() -> None:
    """Then nothing at all would reach the loudspeakers behind it."""
    with pytest.raises(ConfigError, match="cannot be reached"):
        await LoudspeakerMqtt(settings_of(f"mqtt://127.0.0.1:{free_port()}")).prove()
    with pytest.raises(ConfigError, match="cannot be reached"):
        await LoudspeakerMqtt(settings_of("mqtts://127.0.0.1:1", ca="/nowhere/ca.crt")).prove()


async def test_the_doctor_leaves_a_running_gateway_and_brokers_that_are_not_live_alone() -> None:
    """A second login would push the gateway out; and before two people say so nothing beyond this machine is asked."""
    with mosquitto() as broker:
        local = {"loudspeaker_mqtt": LoudspeakerMqtt(settings_of(broker.url))}
        distant = {"loudspeaker_mqtt": LoudspeakerMqtt(settings_of("mqtts://broker.example.cn"))}
        ready, busy = Facts({}), Facts({}, speaking=["loudspeaker_mqtt"])
        assert [one.severity for one in await logins(local, ready)] == ["ok"]
        for facts in (busy, None):
            (verdict,) = await logins(local, facts)
            assert (verdict.severity, "running gateway" in verdict.text) == ("note", True)
        assert await logins(distant, ready) == []
        broker.kill()
        (verdict,) = await logins(local, ready)
        assert (verdict.severity, verdict.fix) == ("error", "check url and ca, and that it runs")
