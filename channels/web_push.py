"""Web Push: a notification in the browser of a person who asked for it.

The sender calls `send_one` for each subscription; the push service accepts and never tells more, so a recipient
stays "submitted". A subscription's endpoint is an address a stranger typed in: only known push services are
contacted, and only at public addresses, checked on the very address that is connected to (T26).

**Source:** RFC 8030 (TTL, Urgency, Topic, status codes), RFC 8291 (encryption), RFC 8292 (VAPID).
"""

from __future__ import annotations

import binascii
import socket
import time
from base64 import urlsafe_b64decode
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, ClassVar

import msgspec
import orjson
from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    TCPConnector,
    ThreadedResolver,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from py_vapid import Vapid, VapidException
from pydantic import ConfigDict, Field, SecretStr, field_validator
from pywebpush import WebPushException, webpush_async
from yarl import URL

from gateway.channel import Link, PerRecipient
from gateway.channel import Settings as ChannelSettings
from gateway.errors import Ambiguous, ChannelError, Permanent, Temporary, Throttled
from gateway.model import Group, Level, Message, Receipt, State

LARGEST_PAYLOAD = 3993
LONGEST_TTL_S = 28 * 24 * 3600
TOKEN_S, AGAIN_S = 12 * 3600, 3600
"""A token counts that long, at most a day (RFC 8292 §2), and is used again that long: signing is a fifth of a push."""
NAT64 = IPv6Network("64:ff9b::/96")


class Keys(msgspec.Struct):
    """The browser's public key (65 bytes) and auth secret (16 bytes), base64url."""

    p256dh: str
    auth: str


class Subscription(msgspec.Struct):
    """PushSubscription.toJSON(), as the browser gave it."""

    endpoint: str
    keys: Keys


def public(address: str) -> bool:
    """Tell whether an IP address is one of the open internet, not loopback, private, link-local or multicast."""
    ip = ip_address(address)
    # Addresses that wrap another one could lead inside by a detour; no push service needs them.
    if isinstance(ip, IPv6Address) and (ip.ipv4_mapped or ip.sixtofour or ip.teredo or ip in NAT64):
        return False
    return ip.is_global and not ip.is_multicast


class WebPushSettings(ChannelSettings):
    """Table `web_push`. `services` are the push services' hosts (`*` for one level or more).

    `allow_private` is for simulation: then only loopback and private addresses are contacted, plain http too.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    vapid_private_key: SecretStr
    vapid_subject: str = Field(pattern=r"^(mailto:.+@.+|https://.+)$")
    services: tuple[str, ...] = (
        "fcm.googleapis.com",
        "updates.push.services.mozilla.com",
        "web.push.apple.com",
        "*.notify.windows.com",
    )
    allow_private: bool = False
    pool: int = Field(25, ge=25, le=50)
    timeout_s: float = Field(7.0, gt=0, le=7.5)  # two rounds of the pool stay within `answer_s`

    @field_validator("vapid_private_key")
    @classmethod
    def _usable(cls, key: SecretStr) -> SecretStr:
        try:
            Vapid.from_string(private_key=key.get_secret_value())
        except (ValueError, TypeError, VapidException) as error:
            raise ValueError("not a P-256 private key (base64url of the raw or DER form)") from error
        return key


class _CheckedResolver(AbstractResolver):
    """Resolves a name and refuses it if one address is not allowed; the connector uses the very addresses returned."""

    def __init__(self, allow_private: bool) -> None:
        self._resolver = ThreadedResolver()
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses.

        Raises:
            Permanent: "private_endpoint".
        """
        results = await self._resolver.resolve(host, port, family)
        for result in results:
            check_address(result["host"], self._allow_private)
        return results

    async def close(self) -> None:
        """Nothing to release."""


def check_address(address: str, allow_private: bool) -> None:
    """Let public addresses pass; in simulation, only the others.

    Raises:
        Permanent: "private_endpoint", or in simulation "real_endpoint".
    """
    if public(address.partition("%")[0]) is allow_private:
        raise Permanent("real_endpoint" if allow_private else "private_endpoint")


class _Poster:
    """The session as pywebpush uses it, without redirects: their target would be an unchecked address."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    async def post(self, url: str, **request: Any) -> ClientResponse:
        """Post once; the session's own timeout holds."""
        return await self._session.post(url, data=request["data"], headers=request["headers"], allow_redirects=False)


class WebPush(PerRecipient):
    """Send encrypted notifications to browsers."""

    name: ClassVar[str] = "web_push"
    report_s: ClassVar[float] = 0.0
    groups: ClassVar[frozenset[Group]] = frozenset({Group.SUBSCRIBERS, Group.RESIDENTS})
    Settings = WebPushSettings
    settings: WebPushSettings

    def __init__(self, settings: WebPushSettings) -> None:
        super().__init__(settings)
        vars(self)["pool"] = settings.pool  # a class fact in the contract, a setting here
        self._vapid = Vapid.from_string(private_key=settings.vapid_private_key.get_secret_value())
        self._tokens: dict[str, tuple[float, str]] = {}
        self._session: ClientSession | None = None

    async def open(self, link: Link) -> None:
        """Make the session in the running loop."""
        resolver = _CheckedResolver(self.settings.allow_private)
        self._session = ClientSession(
            connector=TCPConnector(limit=0, resolver=resolver),
            cookie_jar=DummyCookieJar(),
            # Without a connection nothing was sent: that must end as Temporary, well before the ambiguous total.
            timeout=ClientTimeout(total=self.settings.timeout_s, connect=self.settings.timeout_s / 2),
        )

    async def close(self) -> None:
        """End the session."""
        if self._session is not None:
            await self._session.close()

    def endpoints(self) -> Collection[str]:
        """Return the push services; in simulation nothing but this machine and its network is contacted."""
        return ("127.0.0.1",) if self.settings.allow_private else self.settings.services

    async def send_one(self, address: str, text: str, message: Message, reference: str) -> Receipt:
        """Encrypt and hand over one notification. `address` is the subscription's JSON.

        Raises:
            ChannelError: as `refusal` maps it; Permanent("gone") where the subscription has ended.
        """
        subscription = parse(address)
        self._check(URL(subscription.endpoint))
        ttl_s = int((message.expires - datetime.now(UTC)).total_seconds())
        headers = {"Urgency": "high" if message.level >= Level.ORANGE else "normal", "Topic": message.alert[:32]}
        answer = await self._push(subscription, payload(message, text), max(0, min(ttl_s, LONGEST_TTL_S)), headers)
        return Receipt(State.SUBMITTED, str(answer))

    def _check(self, endpoint: URL) -> None:
        """Refuse what is no push service, before anything is resolved."""
        host, simulated = endpoint.raw_host or "", self.settings.allow_private
        with suppress(ValueError):  # a name: the resolver checks what it stands for
            check_address(host, simulated)  # a literal address: the connector would not resolve it
        known = simulated or any(fnmatchcase(host, service) for service in self.settings.services)
        if not known or endpoint.scheme not in (("https", "http") if simulated else ("https",)):
            raise Permanent("unknown_service")

    def _token(self, origin: str) -> str:
        """Return who we are to a push service (RFC 8292 §2, §3)."""
        now = time.time()
        signed, token = self._tokens.get(origin, (0.0, ""))
        if not signed <= now < signed + AGAIN_S:  # also after the clock was set back
            claims = {"aud": origin, "exp": int(now) + TOKEN_S, "sub": self.settings.vapid_subject}
            token = self._vapid.sign(claims)["Authorization"]
            self._tokens = {name: one for name, one in self._tokens.items() if now < one[0] + AGAIN_S}
            self._tokens[origin] = (now, token)
        return token

    async def _push(self, subscription: Subscription, data: str, ttl_s: int, headers: dict[str, str]) -> int:
        """Return the status of an accepted push."""
        assert self._session is not None
        # `from None`: the library's errors hold the endpoint, which is as good as an address.
        try:
            answer: Any = await webpush_async(
                msgspec.to_builtins(subscription),
                data=data,
                ttl=ttl_s,
                headers=headers | {"Authorization": self._token(str(URL(subscription.endpoint).origin()))},
                aiohttp_session=_Poster(self._session),  # it needs only `post`
            )
        except WebPushException as error:
            raise refusal(error.response) from None
        except (ClientConnectorError, ConnectionTimeoutError):
            raise Temporary("unreachable") from None
        except (ValueError, VapidException):  # a point off the curve, a URL nobody can call; some are ClientErrors too
            raise Permanent("bad_subscription") from None
        except TimeoutError:
            raise Ambiguous("no_answer") from None
        except ClientError:
            raise Ambiguous("connection_lost") from None
        return int(answer.status)


def parse(address: str) -> Subscription:
    """Read a subscription.

    Raises:
        Permanent: "bad_subscription".
    """
    try:
        subscription = msgspec.json.decode(address, type=Subscription)
        sizes = [len(urlsafe_b64decode(key + "===")) for key in (subscription.keys.p256dh, subscription.keys.auth)]
        URL(subscription.endpoint)
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise Permanent("bad_subscription") from None
    if sizes != [65, 16]:
        raise Permanent("bad_subscription")
    return subscription


def payload(message: Message, text: str) -> str:
    """Return what the service worker shows, as JSON.

    Raises:
        Permanent: "payload_too_large"; nothing of a warning is ever cut here (rule 7).
    """
    body = orjson.dumps(
        {
            "title": message.title,
            "body": text,
            "level": message.level.name.lower(),
            "alert": message.alert,
            "status": message.status.value,
        }
    )
    if len(body) > LARGEST_PAYLOAD:
        raise Permanent("payload_too_large")
    return body.decode()


def refusal(answer: Any) -> ChannelError:
    """Return the error for a push service's refusal.

    401 and 403 stay with the recipient: the services differ, and one of them must not switch off the others.
    """
    if answer is None:
        return Permanent("bad_subscription")
    status, after = int(answer.status), answer.headers.get("Retry-After")
    if status in (404, 410):
        return Permanent("gone")
    if status == 413:
        return Permanent("payload_too_large")
    if status == 429 or (status == 503 and after):
        return Throttled(retry_after_s(after or ""), f"http_{status}")
    return Temporary(f"http_{status}") if status >= 500 else Permanent(f"http_{status}")


def retry_after_s(value: str) -> float:
    """Return the seconds of a Retry-After header, which may hold a date; 1 second where it cannot be read."""
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 1.0
