"""An SMS provider with a JSON API on loopback, as the carriers' cloud services and resellers offer it.

`mingluo simulate sms-http` and the tests start it. Every answer is HTTP 200 with a `code` of its own, as most such
services answer; reports and replies are called back, or kept to be polled with a cursor so that a lost answer
loses none. The API itself is ours: each provider has its own, and the channel is configured for it by a table.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, web

from gateway.simulate.log import Log
from gateway.simulate.sms import falls_in

OK, WRONG_TOKEN, THROTTLED, TOO_MANY, UNREGISTERED, BAD_REQUEST, BAD_NUMBER, PORTED = (
    "0", "1001", "1002", "1003", "1004", "1005", "2001", "2002",
)  # fmt: skip
MOST_NUMBERS = 500
PAGE = 500


class Submit(msgspec.Struct, frozen=True):
    """What is posted: one text to many numbers. `ref` comes back with reports."""

    numbers: list[str]
    text: str
    sender: str = ""
    ref: str = ""


@dataclass(frozen=True)
class HttpScenario:
    """What the provider is like; shares are 0 to 1. `dropped` takes the texts and never answers."""

    signatures: frozenset[str] = frozenset()
    """【…】 a text must begin with; none registered takes any."""
    callback_url: str = ""
    """Where reports and replies are posted; "" keeps them to be polled."""
    throttled: float = 0.0
    broken: float = 0.0
    dropped: float = 0.0
    latency_s: float = 0.0
    report_after_s: float = 0.0
    failing: float = 0.0
    lost: float = 0.0
    duplicated: float = 0.0
    answering: float = 0.0
    answer_text: str = "1"
    bad: frozenset[str] = frozenset()
    """Numbers that are refused though they look like numbers."""
    spoiling: bool = False
    """One refused number loses the whole request, and which one is not said."""
    ported: frozenset[str] = frozenset()
    """Numbers another carrier has."""
    one_id: bool = False
    """All numbers of a request share its id."""
    silent_on: frozenset[str] = frozenset()
    """Numbers that are taken and not mentioned in the answer."""
    callback_tries: int = 3
    callback_pause_s: float = 0.05


class HttpProvider:
    """The server. `scenario` may be replaced while it runs; `received` counts numbers taken."""

    def __init__(self, log: Log, token: str = "simulated-token", seed: int = 0) -> None:  # noqa: S107  # opens nothing else
        self.log = log
        self.scenario = HttpScenario()
        self.received = 0
        self.token = token
        self._random = Random(seed)  # noqa: S311  # chooses faults, guards nothing
        self._ids = 0
        self._kept: dict[str, list[dict[str, str]]] = {"reports": [], "replies": []}
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._session: ClientSession | None = None

    async def start(self, port: int = 0) -> str:
        """Listen on loopback and return the base URL; port 0 takes a free one."""
        app = web.Application()
        app.router.add_post("/v1/messages", self._submit)
        app.router.add_get("/v1/{kind:reports|replies}", self._poll)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self._session = ClientSession(cookie_jar=DummyCookieJar(), timeout=ClientTimeout(total=15))
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening; what was not called back yet is dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def reply(self, number: str, text: str, to: str = "") -> None:
        """Let a person send a text to the number they were written from."""
        self.log.write("reply", number=number, text=text, to=to)
        self._tell("replies", {"number": number, "text": text, "to": to, "at": _now()})

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.scenario.latency_s:
            await asyncio.sleep(self.scenario.latency_s)
        if not self._known(request):
            return _answer(WRONG_TOKEN, "token")
        if self._random.random() < self.scenario.throttled:
            return _answer(THROTTLED, "too fast")
        if self._random.random() < self.scenario.broken:
            return web.Response(status=500)
        try:
            submit = msgspec.json.decode(body, type=Submit)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _answer(BAD_REQUEST, "request")
        if code := self._refusal(submit):
            self.log.write("refused", code=code, numbers=submit.numbers, text=submit.text)
            return _answer(code, "refused")
        if self.scenario.spoiling and not all(map(self._good, submit.numbers)):
            self.log.write("refused", code=BAD_NUMBER, numbers=submit.numbers, text=submit.text)
            return _answer(BAD_NUMBER, "a number")
        self._ids += self.scenario.one_id
        results = [self._take(submit, number) for number in submit.numbers]
        told = [one for one in results if one["number"] not in self.scenario.silent_on]
        if self._random.random() < self.scenario.dropped and request.transport is not None:
            request.transport.abort()
        return _answer(OK, "ok", id=f"M{self._ids:012d}", results=told)

    def _known(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(errors="surrogateescape"), f"Bearer {self.token}".encode())

    def _refusal(self, submit: Submit) -> str:
        if not submit.numbers or not submit.text:
            return BAD_REQUEST
        if len(submit.numbers) > MOST_NUMBERS:
            return TOO_MANY
        signatures = self.scenario.signatures
        return UNREGISTERED if signatures and not submit.text.startswith(tuple(signatures)) else ""

    def _good(self, number: str) -> bool:
        return bool(re.fullmatch(r"1[0-9]{10}", number)) and number not in self.scenario.bad

    def _take(self, submit: Submit, number: str) -> dict[str, str]:
        """Take a text for one number, and let its report and its owner's reply follow."""
        if not self._good(number) or number in self.scenario.ported:
            code = PORTED if number in self.scenario.ported else BAD_NUMBER
            self.log.write("refused", code=code, numbers=[number], text=submit.text)
            return {"number": number, "code": code, "id": ""}
        self._ids += not self.scenario.one_id
        self.received += 1
        key, scenario = f"M{self._ids:012d}", self.scenario
        self.log.write("submit", id=key, numbers=[number], text=submit.text, source=submit.sender, ref=submit.ref)
        loop = asyncio.get_running_loop()
        if not falls_in(scenario.lost, "lost", number):
            status = "UNDELIV" if falls_in(scenario.failing, "failing", number) else "DELIVRD"
            report = {"id": key, "ref": submit.ref, "number": number, "status": status}
            for _ in range(1 + falls_in(scenario.duplicated, "twice", number)):
                loop.call_later(scenario.report_after_s, self._report, report)
        if falls_in(scenario.answering, "reply", number):
            loop.call_later(scenario.report_after_s, self.reply, number, scenario.answer_text, submit.sender)
        return {"number": number, "code": OK, "id": key}

    def _report(self, report: dict[str, str]) -> None:
        self.log.write("report", **report)
        self._tell("reports", {**report, "at": _now()})

    def _tell(self, kind: str, entry: dict[str, str]) -> None:
        if not self.scenario.callback_url:
            self._kept[kind].append(entry)
            return
        task = asyncio.get_running_loop().create_task(self._call_back(kind, entry))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call_back(self, kind: str, entry: dict[str, str]) -> None:
        """Post until it is taken; then, or after the last try, note it."""
        assert self._session is not None
        headers = {"Authorization": f"Bearer {self.token}"}
        for _ in range(self.scenario.callback_tries):
            try:
                async with self._session.post(
                    self.scenario.callback_url, json={kind: [entry]}, headers=headers
                ) as answer:
                    if answer.ok:
                        self.log.write("ack", of=kind, number=entry["number"], id=entry.get("id", ""))
                        return
            except (ClientError, TimeoutError):
                pass  # as a refusal: it is tried again
            await asyncio.sleep(self.scenario.callback_pause_s)
        self.log.write("untold", of=kind, number=entry["number"], id=entry.get("id", ""))

    async def _poll(self, request: web.Request) -> web.StreamResponse:
        if not self._known(request):
            return _answer(WRONG_TOKEN, "token")
        after = request.query.get("after", "0")
        if not re.fullmatch(r"[0-9]{1,12}", after):
            return _answer(BAD_REQUEST, "after")
        kind = request.match_info["kind"]
        page = self._kept[kind][int(after) : int(after) + PAGE]
        return _answer(OK, "ok", **{kind: page, "next": str(int(after) + len(page))})


def _answer(code: str, message: str, **fields: Any) -> web.Response:
    return web.json_response({"code": code, "message": message, **fields})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
