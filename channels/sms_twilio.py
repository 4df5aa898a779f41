"""SMS through Twilio: the overseas and test road, and the customer's named fallback (D12).

The sender calls `send_one` for each recipient; Twilio answers later with status callbacks and, where the
country allows it, replies. Both are committed before Twilio gets its answer, and 503 makes it come again.
Mainland numbers leave the country this way, so they are refused until the configuration names the assessment.

**Source:** Twilio's public documentation: Messages resource, status callbacks, webhook security, error dictionary.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlencode, urlsplit

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    InvalidURL,
    TCPConnector,
    encode_basic_auth,
    web,
)
from pydantic import ConfigDict, Field, SecretStr, field_validator
from twilio.http import AsyncHttpClient
from twilio.http.response import Response
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from channels._http import is_loopback
from gateway.channel import Event, Link, PerRecipient, Route
from gateway.channel import Settings as ChannelSettings
from gateway.errors import Ambiguous, ChannelError, MingluoError, Permanent, Temporary, Throttled, Unusable
from gateway.model import Message, Receipt, Reply, Report, State

STATES = {
    "accepted": State.SUBMITTED,
    "queued": State.SUBMITTED,
    "sending": State.SUBMITTED,
    "sent": State.SUBMITTED,
    "delivered": State.DELIVERED,
    "read": State.DELIVERED,
    "undelivered": State.FAILED,
    "failed": State.FAILED,
    "canceled": State.FAILED,
}
# 400s that speak of our account or sender number, not of the recipient.
ACCOUNT_CODES = frozenset({"21212", "21603", "21606", "21659", "21660", "30002"})
QUEUE_FULL = "21611"
LONGEST_VALIDITY_S = 36_000
TWIML = '<?xml version="1.0" encoding="UTF-8"?><Response/>'


def e164(address: str, mainland: bool) -> str:
    """Return the number as Twilio wants it; an 11-digit national one is Chinese, and needs `mainland`.

    Raises:
        Permanent: "bad_address", not a telephone number; "mainland_refused" (D12).
    """
    number = f"+86{address}" if re.fullmatch(r"1[0-9]{10}", address) else address
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", number):
        raise Permanent("bad_address")
    if number.startswith("+86") and not mainland:
        raise Permanent("mainland_refused")
    return number


def national(number: str) -> str:
    """Return a Chinese mobile number in its national form, as the roster keeps it; others unchanged."""
    return number.removeprefix("+86") if re.fullmatch(r"\+861[0-9]{10}", number) else number


class TwilioSettings(ChannelSettings):
    """Table `sms_twilio`. `public_url` is where Twilio reaches us; `mainland_assessment` names the document (D12)."""

    model_config = ConfigDict(hide_input_in_errors=True)

    account_sid: str = Field(pattern=r"^AC[0-9a-fA-F]{32}$")
    auth_token: SecretStr
    sender: str = Field(min_length=1)
    public_url: str
    base_url: str = "https://api.twilio.com"
    pool: int = Field(25, ge=25, le=50)
    timeout_s: float = Field(7.0, gt=0, le=7.5)  # two rounds of the pool stay within `answer_s`
    mainland_assessment: str = ""
    takes_replies: bool = False

    @field_validator("public_url", "base_url")
    @classmethod
    def _encrypted(cls, url: str) -> str:
        if not is_loopback(url) and urlsplit(url).scheme != "https":
            raise ValueError("use https:// (plain http only on loopback)")
        return url.rstrip("/")


class _Transport(AsyncHttpClient):  # type: ignore[misc]  # the SDK ships no types
    """The SDK's transport on our own session: keeps the timeout and the response headers, logs nothing."""

    def __init__(self, session: ClientSession) -> None:
        super().__init__(logging.getLogger(__name__), is_async=True)
        self._session = session

    async def request(
        self,
        method: str,
        uri: str,
        params: dict[str, object] | None = None,
        data: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the SDK's signature; the session holds our timeout
        allow_redirects: bool = False,
    ) -> Response:
        """Make one request; never follow a redirect, never repeat."""
        sent = dict(headers or {})
        # Encoded here: aiohttp's general form costs a tenth of the throughput.
        body = urlencode(data or {}).encode()
        if auth is not None:
            sent["Authorization"] = encode_basic_auth(*auth)
        async with self._session.request(method, uri, data=body, headers=sent, allow_redirects=False) as answer:
            return Response(answer.status, await answer.text(), answer.headers)


class SmsTwilio(PerRecipient):
    """Send SMS by Twilio's Messages resource, one request per recipient."""

    name: ClassVar[str] = "sms_twilio"
    Settings = TwilioSettings
    settings: TwilioSettings

    def __init__(self, settings: TwilioSettings) -> None:
        super().__init__(settings)
        self.takes_replies = settings.takes_replies
        vars(self)["pool"] = settings.pool  # a class fact in the contract, a setting here
        self._validator = RequestValidator(settings.auth_token.get_secret_value())
        self._mainland = bool(settings.mainland_assessment) or is_loopback(settings.base_url)
        self._url = f"{settings.base_url}/2010-04-01/Accounts/{settings.account_sid}/Messages.json"
        self._callback = f"{settings.public_url}/v1/callbacks/{self.name}"
        self._session: ClientSession | None = None
        self._client: Any = None

    async def open(self, link: Link) -> None:
        """Make the session in the running loop."""
        self._session = ClientSession(
            connector=TCPConnector(limit=0),  # the pools bound it; a wait for a connection would spend the timeout
            cookie_jar=DummyCookieJar(),
            # Without a connection nothing was sent: that must end as Temporary, well before the ambiguous total.
            timeout=ClientTimeout(total=self.settings.timeout_s, connect=self.settings.timeout_s / 2),
        )
        token = self.settings.auth_token.get_secret_value()
        # An environment without edge and region: the process's own could send texts to another host than declared.
        environment = {"TWILIO_EDGE": "", "TWILIO_REGION": ""}
        transport = _Transport(self._session)
        self._client = Client(self.settings.account_sid, token, http_client=transport, environment=environment)

    async def close(self) -> None:
        """End the session."""
        if self._session is not None:
            await self._session.close()

    def endpoints(self) -> Collection[str]:
        """Return the API's host."""
        return (urlsplit(self.settings.base_url).hostname or "",)

    async def send_one(self, address: str, text: str, message: Message, reference: str) -> Receipt:
        """Submit one text; it is not valid beyond the alert's expiry.

        Raises:
            ChannelError: as `refusal` maps it; Ambiguous where the request left and no answer came.
        """
        number = e164(address, self._mainland)
        validity_s = int((message.expires - datetime.now(UTC)).total_seconds())
        answer = await self._post(
            {
                "To": number,
                "From": self.settings.sender,
                "Body": text,
                "StatusCallback": f"{self._callback}/{reference}",
                "ValidityPeriod": max(1, min(validity_s, LONGEST_VALIDITY_S)),
            }
        )
        if not 200 <= answer.status_code < 300:
            raise refusal(answer)
        return Receipt(State.SUBMITTED, str(answer.status_code), _sid(answer.text))

    async def _post(self, form: dict[str, object]) -> Response:
        # `from None`: the library's errors show the URL and would end in a traceback.
        try:
            # Not `messages.create_async`: the record it builds costs a fifth of the throughput and hides the headers.
            return await self._client.request_async("POST", self._url, data=form)
        except (ClientConnectorError, ConnectionTimeoutError, InvalidURL):
            raise Temporary("unreachable") from None
        except TimeoutError:
            raise Ambiguous("no_answer") from None
        except ClientError:
            raise Ambiguous("connection_lost") from None

    def routes(self, link: Link) -> Sequence[Route]:
        """Return the status callback and the inbound message."""

        async def status(request: web.Request) -> web.StreamResponse:
            form = await self._signed(request)
            await _commit(link, _report(self.name, form, request.match_info["reference"]))
            return web.Response(status=204)

        async def inbound(request: web.Request) -> web.StreamResponse:
            form = await self._signed(request)
            sid, sender, text = (str(form.get(key, "")) for key in ("MessageSid", "From", "Body"))
            reply = Reply(self.name, self.name, sid, national(sender), text, datetime.now(UTC))
            await _commit(link, [reply] if sender else [])
            return web.Response(text=TWIML, content_type="text/xml")

        path = f"/v1/callbacks/{self.name}"
        return (Route("POST", path + "/{reference}", status), Route("POST", path, inbound))

    async def _signed(self, request: web.Request) -> Any:
        """Return the form of a request Twilio signed.

        Raises:
            web.HTTPForbidden: it did not.
        """
        if request.content_type != "application/x-www-form-urlencoded":
            raise web.HTTPForbidden
        form = await request.post()
        # What Twilio signed is the address it was given, not what a proxy made of it.
        url = self.settings.public_url + request.raw_path
        if not self._validator.validate(url, form, request.headers.get("X-Twilio-Signature", "")):
            raise web.HTTPForbidden
        return form


def refusal(answer: Response) -> ChannelError:
    """Return the error for an answer that is no success. Twilio's own words may quote the number: only codes stay."""
    status, code = answer.status_code, _code(answer.text) or f"http_{answer.status_code}"
    after = str((answer.headers or {}).get("Retry-After", ""))
    if status == 429 or code == QUEUE_FULL or (status == 503 and after.isdecimal()):
        return Throttled(float(after) if after.isdecimal() else 1.0, code)
    if status in (401, 403, 404) or code in ACCOUNT_CODES:
        return Unusable(code)
    if status in (502, 504):
        return Ambiguous(code)  # a gateway gave up waiting for what stands behind it, which may have the text
    return Temporary(code) if status >= 500 or status < 400 else Permanent(code)


def _code(body: str) -> str:
    try:
        code = json.loads(body)["code"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(code) if isinstance(code, int) else ""


def _sid(body: str) -> str:
    """Return the message's SID; "" if the answer cannot be read: the text left, and its callback names the rest."""
    try:
        sid = json.loads(body)["sid"]
    except (ValueError, KeyError, TypeError):
        return ""
    return sid if isinstance(sid, str) else ""


def _report(account: str, form: Any, reference: str) -> list[Event]:
    """Return the report of one callback; none for a status Twilio adds later."""
    state = STATES.get(str(form.get("MessageStatus", "")))
    if state is None:
        return []
    code = str(form.get("ErrorCode", ""))
    code = code if re.fullmatch(r"[0-9]{1,6}", code) else ""
    found = re.fullmatch(r"(.+)-([0-9]{1,6})-([0-9]{1,6})", reference)
    batch, position, attempt = (found[1], int(found[2]), int(found[3])) if found else ("", -1, 1)
    sid = str(form.get("MessageSid", ""))
    return [Report(account, sid, state, datetime.now(UTC), code, batch, position, attempt)]


async def _commit(link: Link, events: Sequence[Event]) -> None:
    """Commit, or make Twilio come again.

    Raises:
        web.HTTPServiceUnavailable: not durable.
    """
    try:
        await link.commit(events)
    except MingluoError:
        raise web.HTTPServiceUnavailable(headers={"Retry-After": "5"}) from None
