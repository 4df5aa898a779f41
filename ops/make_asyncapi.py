"""Write docs/asyncapi.yaml, the loudspeaker protocol for machines. Run: .venv/bin/python ops/make_asyncapi.py.

The frames are described from the types that read and write them; what carries them, over WebSocket and over MQTT,
stands below. A test checks that the committed file is what this script writes, and that real frames fit it.

**Source:** AsyncAPI 3.0.0; ws binding 0.1.0, mqtt binding 0.2.0; docs/device-protocol.md says what it all means.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from channels._loudspeaker_command import (
    ClockOrder,
    ConfigOrder,
    HushCommand,
    PlayCommand,
    SelfTestOrder,
    StopCommand,
    TimeCommand,
    VolumeOrder,
)
from channels._loudspeaker_frame import PROTOCOL, Alarm, Condition, Hello, Told

TARGET = Path(__file__).parent.parent / "docs" / "asyncapi.yaml"
HEAD = "# Written by ops/make_asyncapi.py; change that script or the types it reads, not this file.\n"
Base64Url = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+$")]


class Command(msgspec.Struct, tag_field="type", tag="command"):
    """A flattened JWS, and beside it the name of this delivery."""

    payload: Base64Url
    protected: Base64Url
    signature: Base64Url
    batch: str
    position: int


class Ack(msgspec.Struct, tag_field="type", tag="ack", omit_defaults=True):
    """What the device said is durable: it may forget it."""

    batch: str = ""
    position: int = 0
    order: str = ""
    alarm: str = ""
    state: str = ""


class Error(msgspec.Struct, tag_field="type", tag="error", omit_defaults=True):
    """What the device said was not taken."""

    code: Literal[
        "malformed", "oversized", "hello_first", "unsupported_protocol", "not_commanded", "too_many"
    ]  # fmt: skip
    protocol: int = PROTOCOL
    batch: str = ""
    position: int = 0
    order: str = ""
    alarm: str = ""
    state: str = ""


SIGNED = (PlayCommand, StopCommand, HushCommand, TimeCommand, VolumeOrder, SelfTestOrder, ConfigOrder, ClockOrder)
TO_DEVICE = (Command, Ack, Error)
FROM_DEVICE = (Hello, Told, Condition, Alarm)
NAMES = {"Told": "Receipt", "Condition": "State"}
MQTT = {"qos": 1, "retain": False, "bindingVersion": "0.2.0"}


def name_of(kind: type[msgspec.Struct]) -> str:
    """Return the name of a type on the page."""
    return NAMES.get(kind.__name__, kind.__name__)


def messages() -> dict[str, Any]:
    """Describe each frame by the schema of its type."""
    found: dict[str, Any] = {
        name_of(kind): {
            "name": name_of(kind),
            "contentType": "application/json",
            "summary": (kind.__doc__ or "").split("\n", 1)[0],
            "payload": ref("schemas", kind.__name__),
        }
        for kind in (*TO_DEVICE, *FROM_DEVICE)
    }
    found["Presence"] = {"name": "Presence", "contentType": "text/plain", "payload": ref("schemas", "Presence")}
    return found


def schemas() -> dict[str, Any]:
    """Describe every type, those that travel signed too."""
    _, found = msgspec.json.schema_components(
        (*TO_DEVICE, *FROM_DEVICE, *SIGNED), ref_template="#/components/schemas/{name}"
    )
    payload = found["Command"]["properties"]["payload"]
    payload |= {"contentEncoding": "base64url", "contentMediaType": "application/json"}
    payload["x-contentSchema"] = {"oneOf": [ref("schemas", kind.__name__) for kind in SIGNED]}
    found["Presence"] = {"type": "string", "enum": ["online", "offline"]}
    return found


def ref(section: str, name: str) -> dict[str, str]:
    """Point to a component."""
    return {"$ref": f"#/components/{section}/{name}"}


def channel(address: str, server: str, kinds: list[str], **more: Any) -> dict[str, Any]:
    """Describe one address of one server."""
    return {
        "address": address,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "parameters": {"name": {"description": "the device's name, given at installation"}},
        "messages": {kind: ref("messages", kind) for kind in kinds},
        **more,
    }


def operation(action: str, where: str, kinds: list[str], **more: Any) -> dict[str, Any]:
    """Describe what the device does at one address."""
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{where}"},
        "messages": [{"$ref": f"#/channels/{where}/messages/{kind}"} for kind in kinds],
        **more,
    }


def servers() -> dict[str, Any]:
    """Describe whom a device connects to: the gateway, or a broker in its place."""
    last_will = {"topic": "mingluo/d/{name}/presence", "qos": 1, "message": "offline", "retain": True}
    session = {"clientId": "the device's name", "cleanSession": True, "lastWill": last_will, "bindingVersion": "0.2.0"}
    return {
        "gateway": {"host": "gateway.example", "protocol": "wss", "security": [ref("securitySchemes", "deviceKey")]},
        "broker": {
            "host": "broker.example:8883",
            "protocol": "secure-mqtt",
            "security": [ref("securitySchemes", "nameAndKey")],
            "bindings": {"mqtt": session},
        },
    }


def channels(down: list[str], up: list[str]) -> dict[str, Any]:
    """Describe the addresses: one socket for both directions, or a topic for each."""
    header = {"type": "object", "required": ["Authorization"], "properties": {"Authorization": {"type": "string"}}}
    return {
        "socket": channel(
            "/v1/devices/{name}/ws", "gateway", [*down, *up],
            bindings={"ws": {"method": "GET", "headers": header, "bindingVersion": "0.1.0"}},
        ),
        "mqttCommand": channel("mingluo/d/{name}/command", "broker", down),
        "mqttTold": channel("mingluo/d/{name}/told", "broker", up),
        "mqttPresence": channel("mingluo/d/{name}/presence", "broker", ["Presence"]),
        "mqttCall": {
            "address": "mingluo/call",
            "servers": [{"$ref": "#/servers/broker"}],
            "messages": {"Error": ref("messages", "Error")},
        },
    }  # fmt: skip


def operations(down: list[str], up: list[str]) -> dict[str, Any]:
    """Describe what a device does at each address."""
    mqtt, retained = {"bindings": {"mqtt": MQTT}}, {"bindings": {"mqtt": MQTT | {"retain": True}}}
    return {
        "hear": operation("receive", "socket", down),
        "tell": operation("send", "socket", up),
        "hearByMqtt": operation("receive", "mqttCommand", down, **mqtt),
        "tellByMqtt": operation("send", "mqttTold", up, **mqtt),
        "beCalledByMqtt": operation("receive", "mqttCall", ["Error"], **mqtt),
        "bePresentByMqtt": operation("send", "mqttPresence", ["Presence"], **retained),
    }


def document() -> dict[str, Any]:
    """Return the whole description."""
    down, up = [name_of(kind) for kind in TO_DEVICE], [name_of(kind) for kind in FROM_DEVICE]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Mingluo loudspeaker protocol",
            "version": f"{PROTOCOL}.0.0",
            "description": "As seen from a loudspeaker. What the frames mean, and the rules a device keeps, "
            "is in device-protocol.md.",
        },
        "defaultContentType": "application/json",
        "servers": servers(),
        "channels": channels(down, up),
        "operations": operations(down, up),
        "components": {
            "messages": messages(),
            "schemas": schemas(),
            "securitySchemes": {
                "deviceKey": {"type": "http", "scheme": "bearer"},
                "nameAndKey": {"type": "userPassword"},
            },
        },
    }


def lines(value: Any, indent: int = 0) -> Iterator[str]:
    """Write YAML: mappings and lists as blocks, everything else as JSON writes it, which YAML reads alike."""
    space, mapping = "  " * indent, isinstance(value, dict)
    for key, one in value.items() if mapping else (("", one) for one in value):
        start = f"{_key(key)}:" if mapping else "-"
        if isinstance(one, dict | list) and one:
            yield f"{space}{start}"
            yield from lines(one, indent + 1)
        else:
            yield f"{space}{start} {json.dumps(one, ensure_ascii=False)}"


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() and key[0].isalpha() else json.dumps(key)


def text() -> str:
    """Return the file's content."""
    return HEAD + "\n".join(lines(document())) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf8")
