"""State shared by all processes: token buckets and wakes on Redis or Valkey, through redis-py.

Everything here may be lost at any moment without losing a delivery; nothing here waits long. A bucket is one
hash read and written by one Lua script by the server's clock, so processes need not agree on the time; it
expires when it would be full again. Its arithmetic is the one of `LocalState`.

redis-py's own defaults (five seconds, ten retries) are far too patient for a hot path: commands get
`ANSWER_S` in all, one immediate retry for a connection the server closed meanwhile. Listeners wait without
a timeout and notice a silent server by their own pings.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway import log
from gateway.errors import StateDown

ANSWER_S = 0.24  # with the loop's own time a quarter of a second
CONNECTIONS = 16
PING_S = 5.0  # a listener that heard nothing asks whether the server is still there
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0

_FAILURES = (RedisError, OSError, TimeoutError)

# tokens and time of the last change; a bucket that is not there is full, and one from the future (the server's clock
# was set back) counts from now
_TAKE = """
local units, rate, burst, reserve = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = burst
if held[1] then
  tokens = math.min(burst, tonumber(held[1]) + math.max(0, now - tonumber(held[2])) * rate)
  if now < tonumber(held[2]) then
    redis.call('HSET', KEYS[1], 'at', string.format('%.6f', now))
  end
end
local needed = math.min(units + reserve, burst)
if tokens < needed then
  return string.format('%.6f', (needed - tokens) / rate)
end
tokens = tokens - units
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((burst - tokens) / rate * 1000) + 1000)
return '0'
"""

_log = log.get("state")


class RedisState:
    """`State` on Redis or Valkey; keys and topics begin with `prefix`."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url = url
        self._prefix = prefix
        self._redis = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=ANSWER_S,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=ANSWER_S,
                retry=Retry(NoBackoff(), 1),
                decode_responses=True,
            )
        )
        self._take = self._redis.register_script(_TAKE)

    async def take(self, bucket: str, units: int, rate_per_s: float, burst: int, reserve: int) -> float:
        """Take tokens, leaving at least `reserve`; 0.0 when taken, else seconds until it is worth asking again.

        More units than ever fit are taken from a full bucket, which then owes the rest.

        Raises:
            StateDown: no answer in time.
        """
        key = f"{self._prefix}:{bucket}"
        return float(await self._ask(self._take(keys=[key], args=[units, rate_per_s, burst, reserve])))

    async def wake(self, topic: str, payload: str = "") -> None:
        """Tell every listener of `topic`; lost wakes are made good by polling. Never raises."""
        try:
            await self.publish(topic, payload)
        except StateDown:
            _log.debug("wake_lost")

    async def publish(self, topic: str, payload: str) -> None:
        """Tell every listener of `topic`.

        Raises:
            StateDown: no answer in time.
        """
        await self._ask(self._redis.publish(f"{self._prefix}:{topic}", payload))

    async def ping(self) -> None:
        """Return if the server answers.

        Raises:
            StateDown: no answer in time.
        """
        await self._ask(self._redis.ping())

    async def wakes(self, topic: str) -> AsyncIterator[str]:
        """Yield payloads as they come, and "" after every (re)connect: what came before it may be lost."""
        pause_s = FIRST_PAUSE_S
        while True:
            # A listener may wait for ever, hence no socket timeout; `_next` watches the server instead.
            redis = Redis.from_url(
                self._url, socket_timeout=None, socket_connect_timeout=PING_S, retry=None, decode_responses=True
            )
            pubsub = redis.pubsub()
            try:
                async with asyncio.timeout(PING_S):
                    await pubsub.subscribe(f"{self._prefix}:{topic}")
                    await pubsub.get_message(timeout=PING_S)  # the server's word that we are subscribed
                yield ""
                pause_s = FIRST_PAUSE_S
                while True:
                    yield await _next(pubsub)
            except _FAILURES as error:
                _log.debug("listener_lost", error=type(error).__name__)
            finally:
                await _drop(pubsub, redis)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def close(self) -> None:
        """Disconnect. Listeners end with their tasks."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._redis.aclose()
        except _FAILURES as error:
            _log.debug("close_failed", error=type(error).__name__)

    async def _ask(self, command: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await command
        except _FAILURES as error:
            raise StateDown(type(error).__name__) from error


async def _next(pubsub: PubSub) -> str:
    """Return the next payload.

    Raises:
        ConnectionError: the server is silent.
    """
    asked = False
    while True:
        message = await pubsub.get_message(timeout=PING_S)
        if message is None:
            if asked:
                raise ConnectionError("silent")
            await pubsub.ping()
            asked = True
        elif message["type"] == "message":
            return str(message["data"])
        else:
            asked = False


async def _drop(pubsub: PubSub, redis: Redis) -> None:
    try:
        async with asyncio.timeout(ANSWER_S):
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            await redis.aclose()
    except _FAILURES as error:
        _log.debug("close_failed", error=type(error).__name__)
