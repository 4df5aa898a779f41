"""A gateway for tests of the device's side: it signs, says what it is told to say, and notes what devices answer.

Written from docs/device-protocol.md, not from the channel.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.device.trust import thumbprint

VILLAGE = "411726001001"
NAME = "horn-1"
KEY = "sample-key-of-horn-1"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@dataclass
class Signer:
    """A key of a gateway."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def pin(self) -> str:
        """The line an operator gives to who installs devices."""
        return f"ed25519:{b64(self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))}"

    def sign(self, payload: dict[str, Any], **header: Any) -> dict[str, str]:
        """Sign; a header's field that is None is left out."""
        head = {"alg": "EdDSA", "kid": thumbprint(self.key.public_key()), "typ": "mingluo+json"} | header
        protected = b64(json.dumps({k: v for k, v in head.items() if v is not None}).encode())
        text = b64(json.dumps(payload, ensure_ascii=False, default=str).encode())
        signature = b64(self.key.sign(f"{protected}.{text}".encode()))
        return {"payload": text, "protected": protected, "signature": signature}


def play(id_: str = "a", valid_s: float = 3600.0, at: datetime | None = None, **changes: Any) -> dict[str, Any]:
    """Return the payload of a play."""
    now = at or datetime.now(UTC)
    payload: dict[str, Any] = {"command": "play", "id": id_, "status": "Actual", "drill": False, "level": "red"}
    payload |= {"notice": "issue", "language": "zh", "again": False, "title": "暴雨红色预警", "text": "涨水，快走"}
    payload |= {"repeat": 1, "every_s": 0, "tone": "warning", "volume": None, "to": VILLAGE[:9], "supersedes": []}
    payload |= {"now": now.isoformat(), "expires": (now + timedelta(seconds=valid_s)).isoformat()}
    return payload | changes


def order(command: str, id_: str, **values: Any) -> dict[str, Any]:
    """Return the payload of an order, or of a stop or hush (with `id`)."""
    now = datetime.now(UTC)
    named = {"id": id_, "to": VILLAGE[:6]} if command in ("stop", "hush") else {"order": id_, "to": NAME}
    moments = {"now": now.isoformat(), "expires": (now + timedelta(hours=1)).isoformat()}
    return {"command": command, **named, **moments, **values}


def time(**values: Any) -> dict[str, Any]:
    """Return the payload of an answer to a hello."""
    now = datetime.now(UTC)
    moments = {"now": now.isoformat(), "expires": (now + timedelta(minutes=1)).isoformat()}
    return {"command": "time", "to": NAME, **moments, **values}


@dataclass
class Gateway:
    """One hub. `heard` is what devices said, in order; `acks` whether receipts are acknowledged."""

    signer: Signer = field(default_factory=Signer)
    heard: list[dict[str, Any]] = field(default_factory=list)
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    acks: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    url: str = ""
    connections: int = 0
    _count: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            raise web.HTTPUnauthorized
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        self.connections += 1
        try:
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    await self._hear(socket, orjson.loads(frame.data))
        finally:
            self.sockets.remove(socket)
            self._notify()
        return socket

    async def _hear(self, socket: web.WebSocketResponse, said: dict[str, Any]) -> None:
        self.heard.append(said)
        self._notify()
        if self.acks and said["type"] in ("receipt", "alarm"):
            names = {name: said[name] for name in ("batch", "position", "order", "alarm", "state") if name in said}
            await socket.send_str(orjson.dumps({"type": "ack", **names}).decode())

    async def _file(self, request: web.Request) -> web.StreamResponse:
        self.fetched.append(request.match_info["name"])
        self._notify()
        if request.match_info["name"] == "elsewhere":
            raise web.HTTPFound(f"{self.url}/audio/a.wav")
        return web.Response(body=self.files[request.match_info["name"]])

    async def tell(self, payload: dict[str, Any], position: int | None = None, **frame: Any) -> dict[str, Any]:
        """Sign a payload and tell every device that is there; return the frame."""
        self._count += 1
        name = {"batch": "batch", "position": self._count if position is None else position}
        told = {"type": "command", **self.signer.sign(payload), **name, **frame}
        await self.say(told)
        return told

    async def say(self, frame: object) -> None:
        """Tell every device this frame, whatever it is."""
        text = frame if isinstance(frame, str) else orjson.dumps(frame).decode()
        for socket in self.sockets:
            await socket.send_str(text)

    async def drop(self) -> None:
        """Cut all lines."""
        for socket in list(self.sockets):
            await socket.close()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until what was heard makes it so."""
        async with asyncio.timeout(30):
            while not holds():
                await self._changed.wait()

    async def hears(self, **wanted: Any) -> dict[str, Any]:
        """Wait for a frame with these fields, and return it."""

        def found() -> list[dict[str, Any]]:
            return [one for one in self.heard if all(one.get(name) == value for name, value in wanted.items())]

        await self.until(lambda: bool(found()))
        return found()[-1]

    def states(self, position: int) -> list[str]:
        """Return what was said of a command, in order."""
        return [one["state"] for one in self.heard if one["type"] == "receipt" and one.get("position") == position]


@asynccontextmanager
async def gateway_of(signer: Signer | None = None) -> AsyncIterator[Gateway]:
    """Run one on loopback."""
    gateway = Gateway(signer or Signer())
    app = web.Application()
    app.router.add_get("/v1/devices/{name}/ws", gateway._serve)
    app.router.add_get("/audio/{name}", gateway._file)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    gateway.url = str(server.make_url("")).rstrip("/")
    try:
        yield gateway
    finally:
        await gateway.drop()
        await server.close()
