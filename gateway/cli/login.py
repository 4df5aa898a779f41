"""For `mingluo doctor`: log in where channels would, as far as they can prove anything by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.channel import Channel
    from gateway.doctor import Facts, Verdict


async def logins(enabled: Mapping[str, Channel], facts: Facts | None) -> list[Verdict]:
    """Try each channel that can prove its login. A running gateway is left alone: a second login would push it out."""
    from gateway.channel import Channel
    from gateway.doctor import Verdict
    from gateway.errors import ConfigError
    from gateway.settings import on_loopback

    found = []
    for name, channel in enabled.items():
        if type(channel).prove is Channel.prove:
            continue
        if facts is None or name in facts.speaking:
            text = f"{name}: the login was not tried, for a running gateway may use it"
            found.append(Verdict("logins", "note", text, "stop the gateway and run this again, or look at its devices"))
        elif name in facts.live or all(on_loopback(host) for host in channel.endpoints()):
            try:
                found.append(Verdict("logins", "ok", f"{name}: {await channel.prove()}"))
            except ConfigError as error:
                what, _, fix = str(error).rpartition("; ")
                found.append(Verdict("logins", "error", f"{name}: {what}", fix))
    return found
