"""What an MQTT broker must know of its users, made from the keys of devices when they are issued.

The directory holds only digests of keys, from which nothing here could be made: `mingluo mqtt-passwords` reads the
table that was imported, and prints a password file for Mosquitto or definitions for RabbitMQ.

**Source:** mosquitto_passwd(1), Mosquitto 2.0: `name:$7$iterations$salt$hash`, PBKDF2 with HMAC-SHA-512;
RabbitMQ 3.10, "Credentials and Passwords" and "Topic Authorisation".
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable

from gateway.errors import Refused

# A key is random and too long to be tried out, so few rounds do: 6,000 devices that come back after a power cut cost
# the broker's one thread half a second. Mosquitto's own default.
ROUNDS = 101
MOSQUITTO_SALT, RABBITMQ_SALT = 12, 4  # bytes; both are fixed
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")  # a colon would end the name in Mosquitto's file


def users(gateway: tuple[str, str], devices: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return (name, password) of all users of a broker, the gateway first.

    Raises:
        Refused: a name that a broker cannot hold, or that two of them have.
    """
    found: dict[str, str] = {}
    for name, password in (gateway, *devices):
        if not NAME.fullmatch(name):
            raise Refused(422, "mqtt_name", f"user {len(found)}: a name for a broker is 1 to 64 of: A-Z a-z 0-9 . _ -")
        if name in found:
            what = "a device is called like the gateway" if name == gateway[0] else "two devices have the same name"
            raise Refused(422, "mqtt_name", f"user {len(found)}: {what}, and would speak for it")
        found[name] = password
    return list(found.items())


def mosquitto_line(name: str, password: str) -> str:
    """Return one line of Mosquitto's password file."""
    salt = secrets.token_bytes(MOSQUITTO_SALT)
    hashed = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ROUNDS)
    return f"{name}:$7${ROUNDS}${_text(salt)}${_text(hashed)}"


def rabbitmq_definitions(gateway: tuple[str, str], devices: Iterable[tuple[str, str]]) -> dict[str, object]:
    """Return what `rabbitmqctl import_definitions` takes: users, and what each may say and hear.

    Raises:
        Refused: a name with a dot, which RabbitMQ cannot tell from the slash of a topic.
    """
    people = [gateway, *devices]
    heard = r"mingluo\.d\.[^.]+\.(told|presence)"
    said = rf"mingluo\.(call|d\.[^.]+\.command|d\.{re.escape(gateway[0])}\.told)"
    if any("." in name for name, _ in people):
        raise Refused(422, "mqtt_name", "a name has a dot, which RabbitMQ cannot tell from the slash of a topic")
    topics = [_topics(gateway[0], said, heard)]
    for name, _ in people[1:]:
        key = re.escape(name)
        topics.append(_topics(name, rf"mingluo\.d\.{key}\.(told|presence)", rf"mingluo\.(call|d\.{key}\.command)"))
    return {
        "users": [
            {"name": name, "password_hash": _rabbitmq(password), "hashing_algorithm": "rabbit_password_hashing_sha256",
             "tags": ""}
            for name, password in people
        ],
        "vhosts": [{"name": "/"}],
        "permissions": [_queues(name) for name, _ in people],
        "topic_permissions": topics,
    }  # fmt: skip


def _queues(name: str) -> dict[str, str]:
    """What a user may do with queues: only with those of a client that bears its own name."""
    queue = rf"mqtt-subscription-{re.escape(name)}qos[01]"
    used = rf"^(amq\.topic|{queue})$"
    return {"user": name, "vhost": "/", "configure": f"^{queue}$", "write": used, "read": used}


def _topics(name: str, write: str, read: str) -> dict[str, str]:
    return {"user": name, "vhost": "/", "exchange": "amq.topic", "write": f"^{write}$", "read": f"^{read}$"}


def _rabbitmq(password: str) -> str:
    salt = secrets.token_bytes(RABBITMQ_SALT)
    return _text(salt + hashlib.sha256(salt + password.encode()).digest())


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
