"""A push service on loopback: takes what a browser's push service takes, and reads it as the browser would.

`mingluo simulate` and the tests start it. It makes the subscriptions itself, so it holds their private keys: it
checks the sender's VAPID token and decrypts every message before it logs it.

**Source:** RFC 8030 (push protocol: TTL, Urgency, Topic, 201/404/410/413/429), RFC 8188 and 8291 (aes128gcm
for Web Push), RFC 8292 (VAPID).
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import http_ece
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.simulate.log import Log

LARGEST_BODY = 4096
LONGEST_TOKEN_S = 24 * 3600


@dataclass(frozen=True)
class PushFaults:
    """What goes wrong; shares are 0 to 1. `gone` forgets the subscription, `dropped` takes it and never answers."""

    gone: float = 0.0
    throttled: float = 0.0
    broken: float = 0.0
    dropped: float = 0.0
    latency_s: float = 0.0
    retry_after_s: int = 1
    redirect: str = ""
    """Answer every message with a redirect to this address."""


@dataclass(frozen=True)
class Subscriber:
    """A browser that subscribed: its id in the endpoint, private key, and 16-byte auth secret."""

    id: str
    key: ec.EllipticCurvePrivateKey
    auth: bytes

    def decrypt(self, body: bytes) -> bytes:
        """Return the plaintext of an aes128gcm message.

        Raises:
            ValueError: not meant for this subscriber, or damaged.
        """
        try:
            plain: bytes = http_ece.decrypt(body, private_key=self.key, auth_secret=self.auth, version="aes128gcm")
        except http_ece.ECEException as error:
            raise ValueError("not decryptable") from error
        return plain


class PushSimulator:
    """The server. `faults` may be replaced while it runs; `received` counts messages decrypted and kept."""

    def __init__(self, log: Log, faults: PushFaults | None = None, public_key: str = "", seed: int = 0) -> None:
        self.log = log
        self.faults = faults or PushFaults()
        self.received = 0
        self._public_key = public_key
        self._random = Random(seed)  # noqa: S311  # chooses faults, guards nothing
        self._subscribers: dict[str, Subscriber] = {}
        self._gone: set[str] = set()
        self._runner: web.AppRunner | None = None
        self._origin = ""

    async def start(self, port: int = 0) -> str:
        """Listen on loopback and return the origin; port 0 takes a free one."""
        app = web.Application()
        app.router.add_post("/push/{id}", self._push)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self._origin = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self._origin

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def subscribe(self) -> str:
        """Return a new subscription as a browser's PushSubscription.toJSON() would."""
        key = ec.generate_private_key(ec.SECP256R1())
        subscriber = Subscriber(secrets.token_urlsafe(16), key, secrets.token_bytes(16))
        self._subscribers[subscriber.id] = subscriber
        public = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        keys = {"p256dh": _encode(public), "auth": _encode(subscriber.auth)}
        return json.dumps({"endpoint": f"{self._origin}/push/{subscriber.id}", "expirationTime": None, "keys": keys})

    async def _push(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.faults.latency_s:
            await asyncio.sleep(self.faults.latency_s)
        if fault := self._fault():
            return fault
        name = request.match_info["id"]
        subscriber = self._subscribers.get(name)
        if subscriber is None:
            return web.Response(status=410 if name in self._gone else 404)
        if self._random.random() < self.faults.gone:
            self._gone.add(name)
            del self._subscribers[name]
            return web.Response(status=410)
        if status := self._refusal(request, body):
            return web.Response(status=status)
        try:
            self._keep(subscriber, request.headers, body)
        except ValueError:
            return web.Response(status=400)
        if self._random.random() < self.faults.dropped and request.transport is not None:
            request.transport.abort()
        return web.Response(status=201, headers={"Location": f"{self._origin}/message/{secrets.token_urlsafe(16)}"})

    def _fault(self) -> web.Response | None:
        if self.faults.redirect:
            return web.Response(status=307, headers={"Location": self.faults.redirect})
        if self._random.random() < self.faults.throttled:
            return web.Response(status=429, headers={"Retry-After": str(self.faults.retry_after_s)})
        return web.Response(status=500) if self._random.random() < self.faults.broken else None

    def _refusal(self, request: web.Request, body: bytes) -> int:
        """Return the status a request is refused with, 0 if it is in order."""
        headers = request.headers
        if len(body) > LARGEST_BODY:
            return 413
        if not headers.get("TTL", "").isdecimal() or headers.get("Content-Encoding") != "aes128gcm":
            return 400
        if headers.get("Urgency", "normal") not in ("very-low", "low", "normal", "high"):
            return 400
        if not re.fullmatch(r"[A-Za-z0-9_-]{0,32}", headers.get("Topic", "")):
            return 400
        try:
            key = check_vapid(headers.get("Authorization", ""), self._origin)
        except ValueError:
            return 401
        return 403 if self._public_key and key != self._public_key else 0

    def _keep(self, subscriber: Subscriber, headers: Mapping[str, str], body: bytes) -> None:
        payload = json.loads(subscriber.decrypt(body))
        self.received += 1
        self.log.write(
            "push",
            subscriber=subscriber.id,
            payload=payload,
            ttl_s=int(headers["TTL"]),
            urgency=headers.get("Urgency", "normal"),
            topic=headers.get("Topic", ""),
        )


def check_vapid(authorization: str, origin: str) -> str:
    """Check `vapid t=…,k=…`: ES256 signature, audience, expiry within 24 hours, contact. Return the public key `k`.

    Raises:
        ValueError: what is wrong.
    """
    found = re.fullmatch(r"vapid\s+t=([\w-]+)\.([\w-]+)\.([\w-]+)\s*,\s*k=([\w-]+)", authorization, re.IGNORECASE)
    if found is None:
        raise ValueError("no VAPID token")
    header, claims, signed, key = found.groups()
    if json.loads(_decode(header)).get("alg") != "ES256":
        raise ValueError("not ES256")
    raw = _decode(signed)
    if len(raw) != 64:
        raise ValueError("signature of the wrong length")
    signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _decode(key))
    try:
        public.verify(signature, f"{header}.{claims}".encode(), ec.ECDSA(SHA256()))
    except InvalidSignature as error:
        raise ValueError("wrong signature") from error
    _check_claims(json.loads(_decode(claims)), origin)
    return str(key)


def _check_claims(claims: dict[str, Any], origin: str) -> None:
    if claims.get("aud") != origin:
        raise ValueError("made for another push service")
    if not 0 < int(claims.get("exp", 0)) - time.time() <= LONGEST_TOKEN_S:
        raise ValueError("expired, or valid for more than a day")
    if not str(claims.get("sub", "")).startswith(("mailto:", "https:")):
        raise ValueError("no contact")


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
