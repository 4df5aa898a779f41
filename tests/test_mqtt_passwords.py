"""Who may say and hear what at a broker: the shipped rules, on a real Mosquitto and a real RabbitMQ."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiomqtt import Client, MqttError
from mqtt_brokers import Mosquitto, RabbitMqtt
from typer.testing import CliRunner

from gateway.cli import app
from gateway.directory.password import mosquitto_line, rabbitmq_definitions, users
from gateway.errors import Refused

PASSWORDS = {name: f"sample-key-of-{name}" for name in ("gateway", "horn-1", "horn-2")}
SOON_S = 30.0


@pytest.fixture(scope="module", params=["mosquitto", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a broker that knows the gateway and three devices."""
    devices = {name: key for name, key in PASSWORDS.items() if name != "gateway"}
    kinds = {"mosquitto": Mosquitto(PASSWORDS), "rabbitmq": RabbitMqtt(("gateway", PASSWORDS["gateway"]), devices)}
    kept = kinds.pop(request.param)
    for other in kinds.values():
        other.close()
    with kept as server:
        yield server.url


@asynccontextmanager
async def user(broker: str, name: str, password: str | None = None, identifier: str = "") -> AsyncIterator[Client]:
    parts = urlsplit(broker)
    assert parts.hostname is not None
    key = PASSWORDS[name] if password is None else password
    client = Client(parts.hostname, parts.port or 1883, username=name, password=key, identifier=identifier or name)
    await client.__aenter__()
    try:
        yield client
    finally:
        with suppress(MqttError):  # RabbitMQ has ended the connection of one who did what it must not
            await client.__aexit__(None, None, None)


async def next_of(client: Client) -> tuple[str, bytes]:
    async with asyncio.timeout(SOON_S):
        message = await anext(aiter(client.messages))
    assert isinstance(message.payload, bytes)
    return message.topic.value, message.payload


async def allowed(client: Client, doing: Coroutine[object, object, object]) -> bool:
    """Whether the broker lets a client do something: RabbitMQ ends its connection, Mosquitto says nothing."""
    done, cut = asyncio.ensure_future(doing), asyncio.ensure_future(anext(aiter(client.messages)))
    async with asyncio.timeout(SOON_S):
        await asyncio.wait({done, cut}, return_when=asyncio.FIRST_COMPLETED)
    for task in (done, cut):
        task.cancel()
    return not any(isinstance(one, MqttError) for one in await asyncio.gather(done, cut, return_exceptions=True))


@pytest.mark.parametrize(
    ("name", "password"), [("horn-1", "wrong"), ("horn-9", "sample-key-of-horn-9"), ("horn-1", "")]
)
async def test_a_stranger_is_not_let_in(broker: str, name: str, password: str) -> None:
    """Whoever logs in speaks for a village."""
    with pytest.raises(MqttError):
        async with user(broker, name, password):
            pass


async def test_a_device_and_the_gateway_hear_each_other(broker: str) -> None:
    """What the rules must let through: commands and the call down, receipts and presence up."""
    name = "horn-1"
    async with user(broker, "gateway") as gateway, user(broker, name) as device:
        for topic in ("mingluo/call", f"mingluo/d/{name}/command"):
            await device.subscribe(topic, qos=1)
        for topic in ("mingluo/d/+/told", "mingluo/d/+/presence"):
            await gateway.subscribe(topic, qos=1)
        for topic in (f"mingluo/d/{name}/command", "mingluo/call"):
            await gateway.publish(topic, b"down", qos=1)
            assert await next_of(device) == (topic, b"down")
        for topic in (f"mingluo/d/{name}/told", f"mingluo/d/{name}/presence"):
            await device.publish(topic, b"up", qos=1)
            assert await next_of(gateway) == (topic, b"up")


@pytest.mark.parametrize(
    "topic", ["mingluo/d/horn-2/command", "mingluo/d/+/command", "mingluo/d/#", "mingluo/#", "#", "+/+/+/+"]
)
async def test_a_device_does_not_hear_what_another_is_told(broker: str, topic: str) -> None:
    """A key stolen from one pole must not listen to a county."""
    async with user(broker, "gateway") as gateway, user(broker, "horn-2") as meant, user(broker, "horn-1") as other:
        await meant.subscribe("mingluo/d/horn-2/command", qos=1)
        await other.subscribe("mingluo/d/horn-1/command", qos=1)
        listens = await allowed(other, other.subscribe(topic, qos=1))
        await gateway.publish("mingluo/d/horn-2/command", b"for horn-2", qos=1)
        assert await next_of(meant) == ("mingluo/d/horn-2/command", b"for horn-2")
        if listens:
            await gateway.publish("mingluo/d/horn-1/command", b"for horn-1", qos=1)
            assert (await next_of(other))[1] == b"for horn-1", "nothing came before it"


@pytest.mark.parametrize(
    "topic",
    ["mingluo/d/horn-2/told", "mingluo/d/horn-2/presence", "mingluo/d/horn-2/command", "mingluo/d/horn-1/command",
     "mingluo/call"],
)  # fmt: skip
async def test_a_device_speaks_for_nobody_else(broker: str, topic: str) -> None:
    """One stolen key must not report that all villages were warned, nor make them sound."""
    async with user(broker, "gateway") as gateway, user(broker, "horn-2") as device:
        for mine in ("mingluo/d/+/told", "mingluo/d/+/presence"):
            await gateway.subscribe(mine, qos=1)
        for mine in ("mingluo/call", "mingluo/d/horn-2/command"):
            await device.subscribe(mine, qos=1)
        async with user(broker, "horn-1") as other:
            await allowed(other, other.publish(topic, b"forged", qos=1))
        await device.publish("mingluo/d/horn-2/told", b"true", qos=1)
        assert (await next_of(gateway))[1] == b"true", "nothing came before it"
        await gateway.publish("mingluo/d/horn-2/command", b"true", qos=1)
        assert (await next_of(device))[1] == b"true", "nothing came before it"


async def test_with_mosquitto_nobody_takes_anothers_place_by_its_client_id() -> None:
    """One stolen key must not cut every other loudspeaker off."""
    with Mosquitto(PASSWORDS) as server:
        async with user(server.url, "gateway") as gateway, user(server.url, "horn-2") as device:
            await device.subscribe("mingluo/d/horn-2/command", qos=1)
            async with user(server.url, "horn-1", identifier="horn-2"):
                await gateway.publish("mingluo/d/horn-2/command", b"still there", qos=1)
                assert (await next_of(device))[1] == b"still there"


def test_a_name_that_speaks_for_somebody_else_is_refused() -> None:
    """A device called like the gateway would command all others."""
    key = "0123456789abcdef"
    for names, what in (
        (["gateway"], "like the gateway"), (["a", "b", "a"], "same name"), (["a:b"], "1 to 64"), (["+"], "1 to 64")
    ):  # fmt: skip
        with pytest.raises(Refused, match=what):
            users(("gateway", key), [(name, key) for name in names])
    with pytest.raises(Refused, match="a name has a dot"):
        rabbitmq_definitions(("gateway", key), [("horn.1", key)])
    assert mosquitto_line("a", key) != mosquitto_line("a", key), "each line has its own salt"


def test_the_command_prints_users_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file goes to another machine: a key in it would be known there."""
    table = tmp_path / "devices.csv"
    table.write_text("name,village,key\nhorn-1,411726001001,0123456789abcdefX\nhorn-2,411726001002,0123456789abcdefY\n")
    run = CliRunner()
    monkeypatch.delenv("MQTT_PASSWORD", raising=False)
    assert run.invoke(app, ["roster", "mqtt-passwords", str(table)]).exit_code != 0
    monkeypatch.setenv("MQTT_PASSWORD", "of-the-gateway-itself")
    lines = run.invoke(app, ["roster", "mqtt-passwords", str(table)]).stdout.splitlines()
    assert [line.partition(":$7$101$")[0] for line in lines] == ["gateway", "horn-1", "horn-2"]
    printed = run.invoke(app, ["roster", "mqtt-passwords", str(table), "--broker", "rabbitmq"]).stdout
    assert [one["name"] for one in json.loads(printed)["users"]] == ["gateway", "horn-1", "horn-2"]
    assert "0123456789abcdef" not in "".join([*lines, printed])
    table.write_text(f"name,village,key_hash\nhorn-1,411726001001,{'0' * 64}\n")
    refused = run.invoke(app, ["roster", "mqtt-passwords", str(table)])
    assert refused.exit_code == 1
    assert refused.stdout == ""
    assert "a hash is not enough" in refused.stderr
