"""What an HTTP channel is compared with: the same request to the same server, and nothing around it.

Each caller knows its channel's settings for the counterpart, and makes one bare call to one address.
"""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from aiohttp import ClientSession, DummyCookieJar, TCPConnector
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid
from pywebpush import webpush_async
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.rest import Client

from gateway.simulate.sms import SmsAccount

TITLE = "暴雨红色预警"
TEXT = "【泌阳县气象台】暴雨红色预警：未来3小时将有100毫米以上强降雨，请立即停止户外活动，低洼处人员马上转移。"
SENDER = "+8610000000000"
CALLBACK = "http://127.0.0.1:9/v1/callbacks/sms_twilio"
VALIDITY_S = 10_000
SECRET = "simulated-token"  # noqa: S105  # opens the counterpart only
SUBJECT = "mailto:bench@example.org"


class Caller(ABC):
    """The bare loop's call for one channel."""

    channel: ClassVar[str]

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the channel's table for this counterpart."""

    @abstractmethod
    async def call(self, address: str, position: int) -> None:
        """Send one text.

        Raises:
            RuntimeError: it was not taken.
        """

    @abstractmethod
    async def close(self) -> None:
        """End the session."""


class Twilio(Caller):
    """Twilio's SDK: `messages.create_async`."""

    channel = "sms_twilio"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._account = SmsAccount()
        self._client = Client(self._account.sid, self._account.token, http_client=AsyncTwilioHttpClient())
        self._client.api.base_url = url

    def settings(self) -> dict[str, Any]:
        """Return the simulated account."""
        return {
            "account_sid": self._account.sid, "auth_token": self._account.token, "sender": SENDER,
            "public_url": "http://127.0.0.1:9", "base_url": self.url,
        }  # fmt: skip

    async def call(self, address: str, position: int) -> None:
        """Create one message; the SDK raises on a refusal."""
        await self._client.messages.create_async(
            to=address, from_=SENDER, body=TEXT, status_callback=f"{CALLBACK}/bench.1.0-{position}-1",
            validity_period=VALIDITY_S,
        )  # fmt: skip

    async def close(self) -> None:
        """End the SDK's session."""
        await self._client.http_client.session.close()


def _bare_session() -> ClientSession:
    return ClientSession(connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar())


class Provider(Caller):
    """A provider with a JSON API: one POST for one number, the answer read."""

    channel = "sms_http"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._session = _bare_session()

    def settings(self) -> dict[str, Any]:
        """Return the table of docs/sms-platforms.md, with one number to a request: the dearest case."""
        return {
            "url": f"{self.url}/v1/messages", "auth": "bearer", "secret": SECRET, "numbers": 1, "ids": "number",
            "body": {"numbers": "{numbers}", "text": "{text}", "sender": "1069", "ref": "{reference}"},
            "result": {
                "code": "code", "codes": {"0": "done", "2001": "number"}, "each": "results", "each_number": "number",
                "each_code": "code", "each_id": "id",
            },
        }  # fmt: skip

    async def call(self, address: str, position: int) -> None:
        """Post one text."""
        body = {"numbers": [address], "text": TEXT, "sender": "1069", "ref": f"b-{position}-1-1"}
        headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
        url = f"{self.url}/v1/messages"
        async with self._session.post(url, data=json.dumps(body).encode(), headers=headers) as answer:
            if (await answer.json(content_type=None))["code"] != "0":
                raise RuntimeError("the provider refused a text")

    async def close(self) -> None:
        """End the session."""
        await self._session.close()


class Push(Caller):
    """pywebpush: encrypt, sign the token, post."""

    channel = "web_push"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        secret = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value.to_bytes(32, "big")
        self._key = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
        self._vapid = Vapid.from_string(private_key=self._key)
        self._session = _bare_session()
        self._data = json.dumps({"title": TITLE, "body": TEXT, "level": "red", "alert": "bench", "status": "Actual"})

    def settings(self) -> dict[str, Any]:
        """Return a table for this machine's push service."""
        return {"vapid_private_key": self._key, "vapid_subject": SUBJECT, "allow_private": True}

    async def call(self, address: str, position: int) -> None:
        """Push one message."""
        answer = await webpush_async(
            json.loads(address), data=self._data, vapid_private_key=self._vapid, vapid_claims={"sub": SUBJECT},
            ttl=VALIDITY_S, headers={"Urgency": "high", "Topic": "bench"}, aiohttp_session=self._session,
        )  # fmt: skip
        if getattr(answer, "status", 0) != 201:
            raise RuntimeError("the push service refused a message")

    async def close(self) -> None:
        """End the session."""
        await self._session.close()


CALLERS: dict[str, type[Caller]] = {one.channel: one for one in (Twilio, Provider, Push)}
