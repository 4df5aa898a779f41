"""What an operator may tell a running carrier, a line at a time."""

from __future__ import annotations

from gateway.errors import ConfigError
from gateway.simulate.carrier.scenario import revise, settings
from gateway.simulate.carrier.server import Carrier


def obey(carrier: Carrier, line: str) -> None:
    """Carry out `reply NUMBER TEXT`, `set NAME=VALUE`, `logout` or `cut`; an empty line is nothing.

    Raises:
        ConfigError: none of these.
    """
    word, _, rest = line.partition(" ")
    number, _, text = rest.strip().partition(" ")
    if word == "reply" and number.isdecimal() and text:
        carrier.reply(number, text)
    elif word == "set":
        carrier.scenario = revise(carrier.scenario, settings([rest]))
    elif line == "logout":
        carrier.logout()
    elif line == "cut":
        carrier.cut()
    elif line:
        raise ConfigError(f"{word!r} is no order; say reply NUMBER TEXT, set NAME=VALUE, logout or cut")
