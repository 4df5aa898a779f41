"""Private MQTT brokers for tests: Mosquitto under the rules of `ops/mosquitto`, RabbitMQ with its MQTT plugin.

A test owns its broker and who may log in there:

    with Mosquitto({"gateway": "secret", "horn-1": "key"}) as broker:
        broker.kill()
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from servers import RabbitMQ, Server, _ask, _find, free_port

from gateway.directory.password import mosquitto_line, rabbitmq_definitions

RULES = Path(__file__).parent.parent / "ops" / "mosquitto"
PLACES = ("listener", "cafile", "certfile", "keyfile", "password_file", "acl_file")  # of a real installation
# CONNECT (3.1.1, clean session, no user), which a broker that lets nobody in without a password refuses.
CONNECT = bytes.fromhex("101000044d51545404020005000474657374")
REFUSED = bytes.fromhex("200200")  # and why: 4 (RabbitMQ) or 5 (Mosquitto)


class Mosquitto(Server):
    """Mosquitto with the shipped configuration, on loopback: a listener without TLS, and one with a private CA's."""

    name = "mosquitto"
    variable = ""

    def __init__(self, users: Mapping[str, str], acl: str = "") -> None:
        super().__init__()
        self._users = users
        self._acl = acl or (RULES / "acl").read_text()
        self.tls_port = free_port()

    @property
    def tls_url(self) -> str:
        """URL of the listener with TLS; its certificate is of `ca` and names 127.0.0.1."""
        return f"mqtts://127.0.0.1:{self.tls_port}"

    @property
    def ca(self) -> Path:
        """The authority's certificate, of this broker alone."""
        return self.folder / "ca.crt"

    @property
    def url(self) -> str:
        """URL of the listener."""
        return f"mqtt://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Write password file and configuration."""
        lines = [mosquitto_line(name, password) for name, password in self._users.items()]
        (self.folder / "passwords").write_text("\n".join([*lines, ""]))
        (self.folder / "acl").write_text(self._acl)
        rules = (RULES / "mosquitto.conf").read_text().splitlines()
        _certify(self.folder)
        own = [
            f"listener {self.tls_port} 127.0.0.1", "cafile ca.crt", "certfile server.crt", "keyfile server.key",
            f"listener {self.port} 127.0.0.1", "password_file passwords", "acl_file acl",
        ]  # fmt: skip
        kept = [line for line in rules if line.partition(" ")[0] not in PLACES]
        (self.folder / "mosquitto.conf").write_text("\n".join([*own, *kept, ""]))
        return [_find("mosquitto"), "-c", "mosquitto.conf"]

    def answers(self) -> bool:
        """Whether it refuses a client without a name."""
        return _ask(self.port, CONNECT, REFUSED)


def _certify(folder: Path) -> None:
    """Write a certificate for 127.0.0.1, which is its own authority."""
    if (folder / "ca.crt").exists():
        return
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker of a test")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )  # fmt: skip
    (folder / "server.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for file in ("server.crt", "ca.crt"):
        (folder / file).write_bytes(made.public_bytes(Encoding.PEM))


class RabbitMqtt(RabbitMQ):
    """RabbitMQ as an MQTT broker, with the users and topic permissions that `mingluo mqtt-passwords` writes."""

    variable: ClassVar[str] = ""

    def __init__(self, gateway: tuple[str, str], devices: Mapping[str, str]) -> None:
        super().__init__()
        self.mqtt_port = free_port()
        self._gateway = gateway
        self._definitions = rabbitmq_definitions(gateway, devices.items())

    @property
    def url(self) -> str:
        """URL of the MQTT listener."""
        return f"mqtt://127.0.0.1:{self.mqtt_port}"

    def command(self) -> list[str]:
        """Add the plugin and the users."""
        command = super().command()
        definitions = self.folder / "definitions.json"
        definitions.write_text(json.dumps(self._definitions))
        (self.folder / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
        with (self.folder / "rabbitmq.conf").open("a") as file:
            file.write(
                f"load_definitions = {definitions}\n"
                f"mqtt.listeners.tcp.default = 127.0.0.1:{self.mqtt_port}\n"
                "mqtt.allow_anonymous = false\n"
            )
        return command

    def answers(self) -> bool:
        """Whether the gateway can log in: the plugin listens before the users are there."""
        words = [word.encode() for word in ("MQTT", "probe", *self._gateway)]
        name, *login = (len(word).to_bytes(2, "big") + word for word in words)
        body = name + bytes([4, 0xC2, 0, 5]) + b"".join(login)
        return _ask(self.mqtt_port, bytes([0x10, len(body)]) + body, bytes.fromhex("20020000"))
