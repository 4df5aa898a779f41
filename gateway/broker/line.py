"""One AMQP connection that comes back. `RabbitBroker` keeps two: one to publish, one to consume.

Ordering: a session begins after the connection stands and is cancelled as soon as it is lost; only then is
the next connection opened, with a growing, jittered pause. On each failure: refused or unreachable, the
pause grows to three seconds; a broker that accepts but does not speak (frozen) runs into the connect
timeout; one that falls silent later is given up by the heartbeat after about 18 s, or speaks again after a
thaw on the same connection.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import CONNECTION_EXCEPTIONS

from gateway import log

FAILURES = (*CONNECTION_EXCEPTIONS, TimeoutError)
"""What a lost, refusing or silent broker looks like from here."""
CONNECT_S = 5.0
HEARTBEAT_S = 5
HANG_UP_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 3.0
STABLE_S = 10.0  # a session that lasted this long starts again with the first pause

Session = Callable[[AbstractConnection, asyncio.Event], Awaitable[None]]
"""Works on a connection until cancelled; setting the event gives the connection up."""

_log = log.get("broker")


class Line:
    """Keep one connection open and run `session` on each new one."""

    def __init__(self, url: str, role: str, session: Session) -> None:
        self._url = url
        self._role = role
        self._session = session

    async def run(self) -> None:
        """Connect, work, reconnect, until cancelled."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            began = loop.time()
            try:
                connection = await dial(self._url)
            except FAILURES as error:
                _log.warning("broker_unreachable", role=self._role, error=type(error).__name__)
            else:
                await self._work(connection)
                _log.warning("broker_connection_lost", role=self._role)
            if loop.time() - began >= STABLE_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _work(self, connection: AbstractConnection) -> None:
        lost = asyncio.Event()

        def lose(*_: Any) -> None:
            lost.set()

        connection.close_callbacks.add(lose)
        if not connection.connected.is_set():
            lost.set()
        session = asyncio.ensure_future(self._session(connection, lost))
        waiter = asyncio.ensure_future(lost.wait())
        try:
            await asyncio.wait({session, waiter}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.cancel()
            waiter.cancel()
            outcome, _ = await asyncio.gather(session, waiter, return_exceptions=True)
            await hang_up(connection)
        if isinstance(outcome, FAILURES):
            _log.warning("broker_session_failed", role=self._role, error=type(outcome).__name__)
        elif isinstance(outcome, Exception):
            _log.error("broker_session_failed", role=self._role, exc_info=outcome)


@contextmanager
def own_cancel() -> Iterator[None]:
    """Turn a cancellation that is not ours into a `ConnectionError`.

    The library cancels its own futures and tasks when a connection goes; taken for ours, one of them would
    end a task that has to survive.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        raise ConnectionError("connection lost") from error


async def dial(url: str) -> AbstractConnection:
    """Connect.

    Raises:
        AMQPError, OSError, TimeoutError: refused, unreachable or silent.
    """
    with own_cancel():
        async with asyncio.timeout(CONNECT_S):
            return await aio_pika.connect(url, heartbeat=HEARTBEAT_S)


async def hang_up(connection: AbstractConnection) -> None:
    """Close a connection without waiting for a broker that does not answer."""
    try:
        with own_cancel():
            async with asyncio.timeout(HANG_UP_S):
                await connection.close()
    except FAILURES as error:
        _log.debug("broker_hang_up_failed", error=type(error).__name__)
