"""Whether a broker lets us in and keeps devices apart. Used by `loudspeaker_mqtt` for `mingluo doctor`."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

from aiomqtt import Client, MqttError
from aiomqtt.exceptions import MqttConnectError

from channels._mqtt import QOS, BrokerSettings
from gateway.errors import ConfigError

ANSWER_S = 5.0
PAGE = "docs/loudspeakers-mqtt.md"


async def prove(settings: BrokerSettings, own: str, foreign: str) -> str:
    """Log in, and show that what is said on `own` comes back, and on `foreign`, which a device may say, does not.

    Raises:
        ConfigError: what is wrong, and what to do.
    """
    try:
        client = settings.client(settings.username)
        await client.__aenter__()
    except MqttConnectError:
        raise ConfigError(f"{settings.host} refuses username or password; see {PAGE}") from None
    except (MqttError, OSError) as error:
        raise ConfigError(f"{settings.host} cannot be reached ({error}); check url and ca, and that it runs") from None
    try:
        await client.subscribe([(own, QOS), (foreign, QOS)])
        if await _echo(client, own) != own:
            raise ConfigError(f"{settings.host} does not let us hear devices; install the rules of {PAGE}")
        if await _echo(client, foreign, own) == foreign:
            raise ConfigError(f"{settings.host} lets anybody speak for a device; install the rules of {PAGE}")
    except MqttError as error:
        raise ConfigError(f"{settings.host} does not let us listen ({error}); install the rules of {PAGE}") from None
    finally:
        with suppress(MqttError):  # RabbitMQ has ended it
            await client.__aexit__(None, None, None)
    return f"{settings.host} lets us in, and nobody speaks for another"


async def _echo(client: Client, *topics: str) -> str:
    """Publish on these topics, and return the first on which it comes back; "" if on none."""
    mark = secrets.token_hex(8).encode()

    async def say() -> None:
        for topic in topics:
            await client.publish(topic, mark, QOS, timeout=ANSWER_S)

    saying = asyncio.create_task(say())
    try:
        async with asyncio.timeout(ANSWER_S):
            async for message in client.messages:
                if message.payload == mark:
                    return message.topic.value
    except (MqttError, TimeoutError):  # who says what it must not is cut by RabbitMQ
        return ""
    finally:
        saying.cancel()
        await asyncio.wait([saying])
    return ""
