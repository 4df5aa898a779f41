"""`mingluo roster mqtt-passwords`: what a broker must know of the devices, from the table of their keys."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.frame import NO, print_json, tell

CHANNEL = "loudspeaker_mqtt"


class Broker(StrEnum):
    """Whose form it has."""

    MOSQUITTO = "mosquitto"
    RABBITMQ = "rabbitmq"


def mqtt_passwords(
    devices: Annotated[Path, typer.Argument(metavar="FILE", help="devices.csv with the keys that were issued.")],
    broker: Annotated[Broker, typer.Option(help="A password file, or definitions to import.")] = Broker.MOSQUITTO,
    gateway: Annotated[str, typer.Option(metavar="NAME", help="The gateway's own user name.")] = "gateway",
) -> None:
    """Print the users of an MQTT broker: the gateway and every device of loudspeaker_mqtt. Keys leave only as hashes.

    The gateway's own password is read from MQTT_PASSWORD. Ends with 1 and prints nothing if a row is wrong.

    Example: mingluo roster mqtt-passwords devices.csv > /etc/mosquitto/passwords
    """
    from gateway.directory.password import mosquitto_line, rabbitmq_definitions, users
    from gateway.directory.row import KEY_LENGTH
    from gateway.directory.table import Roster, RowError, Table
    from gateway.errors import ConfigError

    password = os.environ.get("MQTT_PASSWORD", "")
    if len(password) < KEY_LENGTH:
        raise ConfigError(f"MQTT_PASSWORD: give the gateway's own password, {KEY_LENGTH} characters or more")
    found, wrong = [], []
    with devices.open("rb") as file:
        for _, row, cells in Table.open(file, Roster.DEVICES):
            if isinstance(cells, RowError):
                wrong.append(f"row {row}: {cells.message}")
            elif cells.get("channel", CHANNEL) == CHANNEL:  # a table without the column is theirs as a whole
                key = cells.get("key", "")
                if len(key) < KEY_LENGTH:
                    what = f"is shorter than {KEY_LENGTH} characters" if key else "is missing; a hash is not enough"
                    wrong.append(f"row {row}: the key {what}")
                found.append((cells["name"], key))
    for line in wrong:
        tell(line)
    if wrong:
        raise typer.Exit(NO)
    everybody = users((gateway, password), found)
    if broker is Broker.RABBITMQ:
        print_json(rabbitmq_definitions(everybody[0], everybody[1:]))
    else:
        for name, secret in everybody:
            typer.echo(mosquitto_line(name, secret))
