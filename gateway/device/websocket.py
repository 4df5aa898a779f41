"""The way to the gateway over a WebSocket.

**Source:** RFC 6455; docs/device-protocol.md for the answers and close codes.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import (
    ClientError,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    ClientWSTimeout,
    WSMsgType,
    WSServerHandshakeError,
)

from gateway.device.transport import LONGEST_FRAME, Unreached

PATIENT = frozenset({4400, 4409, 4426})
"""Close codes after which trying again soon would not help: bad frames, replaced, another protocol."""
HEARTBEAT_S = 45.0
"""After so long a silence the device asks whether the gateway is there: a half-open line looks alive for ever."""
CONNECT_S = 30.0


class WebSocket:
    """The gateway at `url` (http or https), for the device of that name. `verify`: False or a context of its own CA."""

    def __init__(self, url: str, name: str, key: str, tls: ssl.SSLContext | bool = True) -> None:
        self._url = f"{url.rstrip('/')}/v1/devices/{name}/ws"
        self._key = key
        self._tls = tls

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[_Connection]:
        """Connect.

        Raises:
            Unreached: refused, or nobody there.
        """
        async with ClientSession(timeout=ClientTimeout(total=None, sock_connect=CONNECT_S)) as session:
            try:
                socket = await session.ws_connect(
                    self._url,
                    headers={"Authorization": f"Bearer {self._key}"},
                    ssl=self._tls,
                    compress=0,
                    heartbeat=HEARTBEAT_S,
                    max_msg_size=LONGEST_FRAME,
                    timeout=ClientWSTimeout(ws_close=2.0),
                )
            except WSServerHandshakeError as refused:
                asked = refused.headers.get("Retry-After") if refused.headers is not None else None
                raise Unreached(
                    f"refused_{refused.status}", patient=refused.status == 401, after_s=seconds(asked)
                ) from None
            except (ClientError, OSError, TimeoutError) as error:
                raise Unreached(type(error).__name__) from None
            try:
                yield _Connection(socket)
            finally:
                await socket.close()


class _Connection:
    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the text frames."""
        while True:
            frame = await self._socket.receive()
            if frame.type is WSMsgType.TEXT:
                yield frame.data.encode()
            elif frame.type is not WSMsgType.BINARY:
                code = frame.data if frame.type is WSMsgType.CLOSE else self._socket.close_code
                raise Unreached(f"closed_{code}", patient=code in PATIENT)

    async def send(self, frame: bytes) -> None:
        """Write a text frame."""
        try:
            await self._socket.send_frame(frame, WSMsgType.TEXT)
        except (ConnectionError, RuntimeError, ClientError):
            raise Unreached("closed") from None


def seconds(header: str | None) -> float:
    """Return the seconds of a Retry-After; 0 where it has none."""
    return float(header) if header is not None and header.isdecimal() and len(header) < 6 else 0.0
