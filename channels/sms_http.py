"""SMS through a provider with an HTTP API, as mainland cloud services and resellers offer it (D10).

One class serves them all: what differs stands in the channel's table, see `_http_table` and docs/sms-platforms.md.
One text to several numbers is one request; where texts differ, each has its own. A request that left without an
answer is ambiguous (rule 2), and so is one whose code the table does not know. A code that says that one number may
have spoilt the others splits the request in halves until the offender stands alone. What a slow provider leaves no time
for within `answer_s` does not leave: its turn comes again, and what was answered keeps its ids.

Reports and replies are posted to `/v1/callbacks/sms_http`, and answered only once they are committed; or fetched by one
process at a time, which holds a lease: from the beginning after it took over and behind the provider's cursor from then
on, for what comes twice changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlencode, urlsplit

import msgspec
from aiohttp import ClientSession, web

from channels._http import Answer, ask, refusal, session
from channels._http_event import events
from channels._http_table import MAINLAND, HttpSettings, Poll, at, code_at, id_at, text_at
from gateway.channel import Channel, Event, Lease, Link, Route
from gateway.errors import Ambiguous, ChannelError, Elsewhere, MingluoError, Permanent, Temporary, Throttled, Unusable
from gateway.model import Message, Receipt, Slice, State

LARGEST = 1 << 20  # bytes of a callback
MARGIN_S = 1.0  # of `answer_s`
ERRORS: Mapping[str, type[ChannelError]] = {
    "temporary": Temporary,
    "permanent": Permanent,
    "number": Permanent,
    "unusable": Unusable,
    "unknown": Ambiguous,
    "elsewhere": Elsewhere,
}


class SmsHttp(Channel):
    """Send, hear and fetch as the table says."""

    name: ClassVar[str] = "sms_http"
    slice: ClassVar[int] = 50
    answer_s: ClassVar[float] = 30.0
    Settings = HttpSettings
    settings: HttpSettings

    def __init__(self, settings: HttpSettings) -> None:
        super().__init__(settings)
        self.takes_replies = settings.replies is not None
        vars(self)["slice"] = max(type(self).slice, settings.numbers)  # a class fact in the contract, a setting here
        self.pool = settings.pool
        self._session: ClientSession | None = None
        self._pollers: list[asyncio.Task[None]] = []

    async def open(self, link: Link) -> None:
        """Make the session, and begin to fetch what is to be fetched."""
        self._session = session(self.settings.timeout_s)
        polls = {"poll_reports": self.settings.poll_reports, "poll_replies": self.settings.poll_replies}
        for name, poll in polls.items():
            if poll is not None:
                self._pollers.append(asyncio.create_task(self._poll(name, poll, link), name=f"{self.name} poller"))

    async def close(self) -> None:
        """End the session."""
        pollers, self._pollers = self._pollers, []
        for task in pollers:
            task.cancel()
        if pollers:
            await asyncio.wait(pollers)
        if self._session is not None:
            await self._session.close()

    def up(self) -> bool:
        """Whether what is sent here is heard of again."""
        return self._session is not None and not any(task.done() for task in self._pollers)

    def endpoints(self) -> Collection[str]:
        """Return the provider's hosts."""
        polls = (self.settings.poll_reports, self.settings.poll_replies)
        urls = [self.settings.url, *(poll.url for poll in polls if poll)]
        return tuple(dict.fromkeys(urlsplit(url).hostname or "" for url in urls))

    # --- out ----------------------------------------------------------------------------------------

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        """Send one request for each run of numbers with one text."""
        receipts: list[Receipt] = [_failed(Permanent("bad_address"))] * len(slice_)
        # Addresses are E.164. Another country keeps its sign: +1 and ten digits look like a number of ours without it.
        numbers = [address.removeprefix("+86") for address in slice_.addresses]
        good = [index for index, number in enumerate(numbers) if MAINLAND.fullmatch(number)]
        work = iter(self._parts(good, numbers, message))
        until = asyncio.get_running_loop().time() + self.answer_s - self.settings.timeout_s - MARGIN_S
        refused: list[ChannelError] = []

        async def worker() -> None:
            for part in work:
                if refused:
                    found = [_failed(refused[0])] * len(part)
                elif datetime.now(UTC) >= message.expires:
                    found = [Receipt(State.EXPIRED)] * len(part)
                else:
                    found = await self._part(slice_, part, numbers, message, until)
                for index, receipt in zip(part, found, strict=True):
                    receipts[index] = receipt
                    if isinstance(receipt.error, Unusable):
                        refused.append(receipt.error)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.pool, len(good))):
                group.create_task(worker())
        return receipts

    def _parts(self, indices: Sequence[int], numbers: Sequence[str], message: Message) -> list[list[int]]:
        """Return indices that may share a request: of one text, and no more than the provider takes."""
        most = self.settings.numbers
        if most == 1:  # nothing is shared
            return [[index] for index in indices]
        requests: dict[tuple[str, int], list[int]] = {}
        seen: Counter[tuple[str, str]] = Counter()
        for index in indices:
            # Of two who share a telephone each is told, and each has a report of their own: never in one request.
            own = message.text_at(index), numbers[index]
            requests.setdefault((own[0], seen[own]), []).append(index)
            seen[own] += 1
        return [run[start : start + most] for run in requests.values() for start in range(0, len(run), most)]

    async def _part(
        self, slice_: Slice, part: Sequence[int], every: Sequence[str], message: Message, until: float
    ) -> list[Receipt]:
        """Send one request; split it where one of its numbers may have spoilt it for the others."""
        if asyncio.get_running_loop().time() >= until:
            return [_failed(Throttled(1.0, "slow"))] * len(part)
        numbers = [every[index] for index in part]
        reference = f"{slice_.batch}-{slice_.positions[part[0]]}-{slice_.attempt}-{len(part)}"
        body, headers = self.settings.request(numbers, message.text_at(part[0]), reference, int(time.time()))
        try:
            if self._session is None:
                raise Temporary("closed")
            answer = await ask(self._session, "POST", self.settings.url, headers, body)
            found, spoilt = self._read(answer, numbers, reference)
        except ChannelError as error:
            return [_failed(error)] * len(part)
        if not spoilt or len(part) == 1:
            return found
        half = len(part) // 2
        first, second = await asyncio.gather(
            self._part(slice_, part[:half], every, message, until),
            self._part(slice_, part[half:], every, message, until),
        )
        return first + second

    def _read(self, answer: Answer, numbers: Sequence[str], reference: str) -> tuple[list[Receipt], bool]:
        """Return a receipt per number, and whether all were refused because of one.

        Raises:
            ChannelError: what is true of all of them.
        """
        if error := refusal(answer):
            raise error
        told, table = _json(answer.body), self.settings.result
        code = code_at(told, table.code, table.codes)
        verdict = table.codes.get(code, "unknown")
        if verdict == "number":
            return [_failed(Permanent(code))] * len(numbers), True
        if verdict != "done":
            raise _error(verdict, code, answer.after_s)
        id_ = reference if self.settings.ids == "ours" else id_at(told, table.id)
        if not table.each:
            return [self._taken(code, id_, number) for number in numbers], False
        each = self._each(at(told, table.each), numbers)
        return [self._one(each.get(number), number, code, id_) for number in numbers], False

    def _each(self, found: Any, numbers: Sequence[str]) -> dict[str, Any]:
        """Return the answer's entries by number."""
        table = self.settings.result
        listed = found if isinstance(found, list) else []
        if table.each_number:
            return {self.settings.national(text_at(one, table.each_number)): one for one in listed}
        return dict(zip(numbers, listed, strict=True)) if len(listed) == len(numbers) else {}

    def _one(self, entry: Any, number: str, code: str, id_: str) -> Receipt:
        """Return the receipt of one number; what the answer does not mention may have been sent."""
        table = self.settings.result
        if entry is None:
            return _failed(Ambiguous("not_mentioned"))
        code = code_at(entry, table.each_code, table.codes) if table.each_code else code
        verdict = table.codes.get(code, "unknown")
        if verdict != "done":
            return _failed(_error(verdict, code, None))
        own = id_at(entry, table.each_id) if table.each_id and self.settings.ids == "number" else id_
        return self._taken(code, own, number)

    def _taken(self, code: str, id_: str, number: str) -> Receipt:
        return Receipt(State.SUBMITTED, code, self.settings.reference(self.name, id_, number) if id_ else "")

    # --- back ---------------------------------------------------------------------------------------

    def routes(self, link: Link) -> Sequence[Route]:
        """Return the callback, if the provider posts to us."""
        callback = self.settings.callback
        if callback is None:
            return ()

        async def take(request: web.Request) -> web.StreamResponse:
            body = await _body(request)
            if not self.settings.came_from_provider(request.headers, body):
                raise web.HTTPForbidden
            try:
                told = _json(body)
            except ChannelError:
                raise web.HTTPBadRequest from None
            try:
                await link.commit(events(self.settings, self.name, told, datetime.now(UTC)))
            except MingluoError:  # it is not durable: the provider comes again
                raise web.HTTPServiceUnavailable(headers={"Retry-After": "5"}) from None
            return web.Response(text=callback.answer, content_type="application/json")

        return (Route("POST", f"/v1/callbacks/{self.name}", take),)

    async def _poll(self, name: str, poll: Poll, link: Link) -> None:
        """Fetch for ever, unless another process does: a second one would only fetch the same once more."""
        while True:
            lease: Lease | None = None
            with contextlib.suppress(MingluoError):  # the store is away
                lease = await link.lease(name, 1)
            if lease is not None:
                try:
                    await self._fetch(poll, link, lease)
                finally:
                    with contextlib.suppress(MingluoError):  # it lapses by itself
                        await lease.release()
            await asyncio.sleep(poll.every_s)

    async def _fetch(self, poll: Poll, link: Link, lease: Lease) -> None:
        """Fetch while the lease is ours. The cursor moves once what it passes is durable; it begins anew here."""
        cursor = poll.first
        while not lease.lost.is_set():
            more = False
            with contextlib.suppress(MingluoError):  # the provider or the store is away: the same once more
                following, found = await self._page(poll, cursor)
                await link.commit(found)
                more, cursor = bool(found) and following != cursor, following
            if not more:
                await asyncio.sleep(poll.every_s)

    async def _page(self, poll: Poll, cursor: str) -> tuple[str, list[Event]]:
        """Return where to go on, and what stands before it.

        Raises:
            ChannelError: the provider told nothing that can be read.
        """
        assert self._session is not None
        mark = "&" if urlsplit(poll.url).query else "?"
        url = f"{poll.url}{mark}{urlencode({poll.cursor: cursor})}"
        answer = await ask(self._session, "GET", url, self.settings.signed())
        if error := refusal(answer):
            raise error
        told = _json(answer.body)
        table = self.settings.result
        code = code_at(told, table.code, table.codes)
        if table.codes.get(code, "done") != "done":
            raise Temporary(code)
        return text_at(told, poll.next) or cursor, events(self.settings, self.name, told, datetime.now(UTC))


def _failed(error: ChannelError) -> Receipt:
    return Receipt(State.FAILED, error.code, error=error)


def _error(verdict: str, code: str, after_s: float | None) -> ChannelError:
    if verdict == "throttled":
        return Throttled(1.0 if after_s is None else after_s, code)
    return ERRORS[verdict](code or "no_code")


def _json(body: bytes) -> Any:
    """Return what a body says.

    Raises:
        Ambiguous: nothing that can be read; of a submit, the texts may have left.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Ambiguous("unreadable") from None


async def _body(request: web.Request) -> bytes:
    """Return a callback's body.

    Raises:
        web.HTTPRequestEntityTooLarge: more than any page of reports.
    """
    try:
        await request.content.readexactly(LARGEST + 1)
    except asyncio.IncompleteReadError as whole:
        return whole.partial
    raise web.HTTPRequestEntityTooLarge(LARGEST, LARGEST + 1)
