"""A counterpart of Twilio's Messages resource on loopback: accepts texts, calls back, and answers for people.

`mingluo simulate` and the tests start it. Numbers in simulations come from a block that can never be dialled
(100 and eight digits; +86100…). Whether a phone can be reached, and whether its owner replies, depends on the
number alone, so a run repeats itself; faults of the service come from a seeded generator.

**Source:** Twilio's public documentation: Messages resource, status callbacks, error dictionary, and
"Webhooks security" for X-Twilio-Signature, computed here by own code.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from random import Random
from urllib.parse import urlencode

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, web
from yarl import URL

from gateway.simulate.log import Log

UNREACHABLE = "30003"
LONGEST_BODY = 1600
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class SmsFaults:
    """What goes wrong; shares are 0 to 1. `dropped` takes the text, then cuts the connection without an answer."""

    unreachable: float = 0.0
    throttled: float = 0.0
    broken: float = 0.0
    dropped: float = 0.0
    latency_s: float = 0.0
    retry_after_s: int = 1
    disorder: bool = False
    """Call back with the final status first, and with each status twice."""


@dataclass(frozen=True)
class SmsReplies:
    """How people answer a text that asks for it (回1)."""

    share: float = 0.0
    after_s: float = 0.0
    text: str = "1"
    url: str = ""
    """The inbound webhook of the gateway."""


@dataclass(frozen=True)
class SmsAccount:
    """The account the simulated carrier knows."""

    sid: str = "AC" + "0" * 32
    token: str = "simulated-token"  # noqa: S105  # opens nothing but the simulator


def signature(token: str, url: str, form: Mapping[str, str]) -> str:
    """Return X-Twilio-Signature: base64 of HMAC-SHA1 over the URL and each name and value, sorted by name."""
    signed = url + "".join(name + form[name] for name in sorted(form))
    return base64.b64encode(hmac.new(token.encode(), signed.encode(), hashlib.sha1).digest()).decode()


def falls_in(share: float, *key: str) -> bool:
    """Tell whether this key belongs to the share; always the same answer for the same key."""
    return int.from_bytes(hashlib.sha256("\0".join(key).encode()).digest()[:6], "big") < share * 2**48


def refusal(form: Mapping[str, str]) -> int:
    """Return Twilio's error code for what is wrong with a submitted form, 0 if nothing is."""
    to, body = form.get("To", ""), form.get("Body", "")
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", to):
        return 21211 if to else 21604
    if to.startswith("+86") and not re.fullmatch(r"\+861[0-9]{10}", to):
        return 21614  # a landline
    if not form.get("From"):
        return 21603
    if not body:
        return 21602
    return 21617 if len(body) > LONGEST_BODY else 0


class SmsSimulator:
    """The server. `faults` and `replies` may be replaced while it runs; `callbacks_refused` counts answers not 2xx."""

    def __init__(
        self,
        log: Log,
        account: SmsAccount | None = None,
        faults: SmsFaults | None = None,
        replies: SmsReplies | None = None,
        callback_tries: int = 3,
        callback_pause_s: float = 0.05,
        seed: int = 0,
    ) -> None:
        self.log = log
        self.account = account or SmsAccount()
        self.faults = faults or SmsFaults()
        self.replies = replies or SmsReplies()
        self.callbacks_refused = 0
        self.received = 0
        self._tries, self._pause_s = callback_tries, callback_pause_s
        self._random = Random(seed)  # noqa: S311  # chooses faults, guards nothing
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._session: ClientSession | None = None

    async def start(self, port: int = 0) -> str:
        """Listen on loopback and return the base URL; port 0 takes a free one."""
        app = web.Application()
        app.router.add_post("/2010-04-01/Accounts/{sid}/Messages.json", self._create)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self._session = ClientSession(cookie_jar=DummyCookieJar(), timeout=ClientTimeout(total=15))
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def settled(self) -> None:
        """Wait until every callback and reply so far has been given or given up."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        """Stop listening and drop what was not called back yet."""
        if self._runner is not None:
            await self._runner.cleanup()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _create(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if self.faults.latency_s:
            await asyncio.sleep(self.faults.latency_s)
        if not self._known(request):
            return _problem(401, 20003, "Authenticate")
        if self._random.random() < self.faults.throttled:
            return _problem(429, 20429, "Too Many Requests", {"Retry-After": str(self.faults.retry_after_s)})
        if self._random.random() < self.faults.broken:
            return _problem(500, 20500, "Internal Server Error")
        if code := refusal(form):
            # The real service quotes the number in its message, so ours does: clients must not repeat it.
            return _problem(400, code, f"The request for {form.get('To', '')} cannot be accepted")
        sid = self._take(form)
        if self._random.random() < self.faults.dropped and request.transport is not None:
            request.transport.abort()
        return web.json_response(self._resource(sid, form), status=201)

    def _known(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "")
        owed = base64.b64encode(f"{self.account.sid}:{self.account.token}".encode()).decode()
        return hmac.compare_digest(given.encode(), f"Basic {owed}".encode()) and (
            request.match_info["sid"] == self.account.sid
        )

    def _take(self, form: Mapping[str, str]) -> str:
        self.received += 1
        sid = f"SM{self._random.getrandbits(128):032x}"
        digest = hashlib.sha256(form["Body"].encode()).hexdigest()
        self.log.write("sms", sid=sid, to=form["To"], sender=form["From"], body=form["Body"], digest=digest)
        reachable = not falls_in(self.faults.unreachable, "unreachable", form["To"])
        if form.get("StatusCallback"):
            self._spawn(self._call_back(sid, form, reachable))
        if reachable and self._answers(form):
            self._spawn(self._reply(form))
        return sid

    def _answers(self, form: Mapping[str, str]) -> bool:
        asked = "回1" in form["Body"] and bool(self.replies.url)
        return asked and falls_in(self.replies.share, "reply", form["To"])

    def _resource(self, sid: str, form: Mapping[str, str]) -> dict[str, object]:
        uri = f"/2010-04-01/Accounts/{self.account.sid}/Messages/{sid}.json"
        return {
            "account_sid": self.account.sid,
            "api_version": "2010-04-01",
            "body": form["Body"],
            "date_created": format_datetime(datetime.now(UTC)),
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": form["From"],
            "sid": sid,
            "status": "queued",
            "to": form["To"],
            "uri": uri,
        }

    async def _call_back(self, sid: str, form: Mapping[str, str], reachable: bool) -> None:
        statuses = ["sent", "delivered" if reachable else "undelivered"]
        if self.faults.disorder:
            statuses = [*reversed(statuses), *statuses]
        for status in statuses:
            fields = {"MessageSid": sid, "SmsSid": sid, "MessageStatus": status, "SmsStatus": status}
            fields |= {"AccountSid": self.account.sid, "ApiVersion": "2010-04-01", "To": form["To"]}
            fields["From"] = form["From"]
            if status == "undelivered":
                fields["ErrorCode"] = UNREACHABLE
            await self._post(form["StatusCallback"], fields)

    async def _reply(self, form: Mapping[str, str]) -> None:
        await asyncio.sleep(self.replies.after_s)
        sid = f"SM{self._random.getrandbits(128):032x}"
        fields = {"MessageSid": sid, "SmsSid": sid, "AccountSid": self.account.sid, "ApiVersion": "2010-04-01"}
        fields |= {"From": form["To"], "To": form["From"], "Body": self.replies.text, "NumMedia": "0"}
        await self._post(self.replies.url, fields)

    async def _post(self, url: str, fields: Mapping[str, str]) -> None:
        """Call a webhook; come again, a few times, where it fails or answers 5xx."""
        assert self._session is not None
        headers = {"X-Twilio-Signature": signature(self.account.token, url, fields), "Content-Type": FORM}
        body = urlencode(fields).encode()  # by hand: aiohttp's general form costs a quarter of the simulator's time
        for attempt in range(self._tries):
            if attempt:
                await asyncio.sleep(self._pause_s * 2**attempt)
            try:
                # The signature covers the address as given, so it must not be encoded again.
                async with self._session.post(URL(url, encoded=True), data=body, headers=headers) as answer:
                    status = answer.status
            except (ClientError, TimeoutError):
                status = 599
            if status < 300:
                return
            self.callbacks_refused += 1
            if status < 500:
                return

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _problem(status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    body = {"code": code, "message": message, "more_info": more_info, "status": status}
    return web.json_response(body, status=status, headers=headers)
