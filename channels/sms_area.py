"""Area requests to a carrier's provincial platform (区域短信): a place, a text, and never a number (D10).

The platform sends to whoever is there, at its own pace, and tells counts. Three things follow:

- A request is written down before it is asked. Whatever becomes of the answer, or of this process, it is found again.
- Its `ref` makes it idempotent: asked once more it is the same job. So an answer that never came is asked for again,
  and is no doubt as it would be with a telephone (rule 2).
- What is taken goes on by itself, so somebody has to look after it. Each process takes its share of the requests that
  are due, commits how far they have come, and stops at the platform what must run no longer: its alert was updated,
  cancelled or recalled, has expired, or was halted by a person.

The interface is that of `mingluo simulate sms-area`; provinces differ, and each needs a rewrite of `_asked`, `_find`
and `_stop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec
from aiohttp import ClientSession
from pydantic import ConfigDict, Field, SecretStr

from channels._follower import end, follow
from channels._http import Answer, Url, ask, refusal, session
from gateway.channel import Channel, Link
from gateway.channel import Settings as ChannelSettings
from gateway.errors import Ambiguous, ChannelError, MingluoError, Permanent, Temporary
from gateway.model import Group, Job, JobState, Level, Message, Progress, Receipt, Slice, State, Status

LATE = timedelta(seconds=30)  # after being asked; then no request can be on its way to the platform any more
AT_ONCE = 8  # requests about jobs
MOST = 1 << 40  # telephones; more is no count
ENDED = frozenset({JobState.DONE, JobState.STOPPED})


class _Told(msgspec.Struct, frozen=True):
    """A job as the platform tells it."""

    job: str
    state: Literal["running", "done", "stopped"]
    requested: int
    submitted: int
    delivered: int


class _Request(NamedTuple):
    """What is asked at once, and for which recipients of the slice (indices)."""

    ref: str
    place: dict[str, Any]
    indices: Sequence[int]


class SmsAreaSettings(ChannelSettings):
    """Table `sms_area`. `approval` is a standing number (审批号) for alerts that bring none of their own."""

    model_config = ConfigDict(hide_input_in_errors=True)

    base_url: Url
    token: SecretStr
    approval: str = ""
    poll_s: float = Field(5.0, ge=1, le=300)
    reports_s: float = Field(600.0, ge=0)
    """How long after its end, without news, a job is still asked about."""
    timeout_s: float = Field(7.0, gt=0, le=7.0)


class SmsArea(Channel):
    """Ask for places, follow the jobs, stop them."""

    name: ClassVar[str] = "sms_area"
    slice: ClassVar[int] = 100
    groups: ClassVar[frozenset[Group]] = frozenset({Group.AREA})
    same_text: ClassVar[bool] = True
    idempotent: ClassVar[bool] = True
    Settings = SmsAreaSettings
    settings: SmsAreaSettings

    def __init__(self, settings: SmsAreaSettings) -> None:
        super().__init__(settings)
        self._headers = {
            "Authorization": f"Bearer {settings.token.get_secret_value()}",
            "Content-Type": "application/json",
        }
        self._session: ClientSession | None = None
        self._follower: asyncio.Task[None] | None = None

    async def open(self, link: Link) -> None:
        """Begin to look after the jobs of this channel, those of another process, too."""
        self._session = session(self.settings.timeout_s)
        self._follower = asyncio.create_task(
            follow(link, self.settings.poll_s, self._attend, AT_ONCE), name=f"{self.name} follower"
        )

    async def close(self) -> None:
        """Leave the jobs to whoever looks next."""
        if self._follower is not None:
            await end([self._follower])
            self._follower = None
        if self._session is not None:
            await self._session.close()

    def up(self) -> bool:
        """Whether somebody looks after what is asked here."""
        return self._follower is not None and not self._follower.done()

    def endpoints(self) -> Collection[str]:
        """Return the platform's host."""
        return (urlsplit(self.settings.base_url).hostname or "",)

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        """Ask for the places of a slice; one request for all codes, and one for each ring."""
        if message.status is not Status.ACTUAL:
            raise Permanent("not_actual")  # whoever is there knows of no drill (rule 3)
        requests = _requests(slice_)
        receipts = [Receipt(State.EXPIRED)] * len(slice_)
        for request in requests:
            if datetime.now(UTC) >= message.expires:
                break
            receipt = await self._submit(slice_.batch, request, message, link)
            for index in request.indices:
                receipts[index] = receipt
        return receipts

    async def _submit(self, batch: str, request: _Request, message: Message, link: Link) -> Receipt:
        asked = Progress(batch, request.ref, JobState.ASKED, datetime.now(UTC))
        try:
            await link.commit([asked])
        except MingluoError:  # without the note nobody could stop it
            return Receipt(State.FAILED, "store_down", error=Temporary("store_down"))
        try:
            answer = await self._asked(request, message)
        except Ambiguous as error:  # the same request again finds out, and sends nothing twice
            return Receipt(State.FAILED, error.code, error=Temporary(error.code))
        except ChannelError as error:
            return Receipt(State.FAILED, error.code, error=error)
        code = _code(answer)
        if answer.status == 409 and code == "ref":
            return Receipt(State.SUBMITTED, "known")  # taken before, in the words of then
        against = refusal(answer, code)
        if against is None or isinstance(against, Permanent):
            with contextlib.suppress(MingluoError):  # the next look tells it, too
                refused = replace(asked, state=JobState.REFUSED, last=True)
                await link.commit([refused if against else _progress(asked, answer)])
        if against is None:
            return Receipt(State.SUBMITTED, str(answer.status))
        if isinstance(against, Ambiguous):
            against = Temporary(against.code)
        return Receipt(State.FAILED, against.code, error=against)

    async def _asked(self, request: _Request, message: Message) -> Answer:
        body = {
            "ref": request.ref,
            "text": message.text,
            # Documents without a colour move people: the platform serves the highest first.
            "level": (message.level or Level.RED).name.lower(),
            "approval": message.approval or self.settings.approval,
            **request.place,
        }
        return await self._call("POST", "/v1/jobs", msgspec.json.encode(body))

    async def _call(self, method: str, path: str, body: bytes | None = None) -> Answer:
        if self._session is None:
            raise Temporary("closed")
        return await ask(self._session, method, self.settings.base_url + path, self._headers, body)

    # --- what was taken -----------------------------------------------------------------------------

    async def _attend(self, job: Job, link: Link) -> None:
        if (news := await self._look(job)) is not None:
            await link.commit([news])

    async def _look(self, job: Job) -> Progress | None:
        """Return how far a job has come, stopped if it is over; None: nothing is known yet."""
        now, known = datetime.now(UTC), job.progress
        answer = await self._call("GET", f"/v1/jobs?ref={quote(known.source, safe='')}")
        if answer.status == 404:
            lost = job.over and now - job.since >= LATE
            return replace(known, state=JobState.LOST, at=now, last=True) if lost else None
        news = self._read(known, answer, now)
        if job.over and news.state is JobState.RUNNING:
            stop = f"/v1/jobs/{quote(news.job, safe='')}/stop"
            news = self._read(known, await self._call("POST", stop, b"{}"), now)
        grown = (news.submitted, news.delivered) > (known.submitted, known.delivered) or news.state > known.state
        quiet = not grown and now - job.since >= timedelta(seconds=self.settings.reports_s)
        return replace(news, last=news.state in ENDED and (news.delivered >= news.submitted or quiet))

    def _read(self, known: Progress, answer: Answer, now: datetime) -> Progress:
        """Return what an answer tells of a job.

        Raises:
            ChannelError: it tells nothing.
        """
        if error := refusal(answer, _code(answer)):
            raise error
        return _progress(replace(known, at=now), answer)


def _requests(slice_: Slice) -> list[_Request]:
    """Return what to ask for. A reference names the same places whenever the slice is tried."""
    codes = [index for index, place in enumerate(slice_.addresses) if "," not in place]
    rings = [index for index, place in enumerate(slice_.addresses) if "," in place]
    first = f"{slice_.batch}-{slice_.number}"
    found = [_Request(first, {"areas": [slice_.addresses[index] for index in codes]}, codes)] if codes else []
    for index in rings:
        corners = [corner.split(",") for corner in slice_.addresses[index].split()]
        ring = [[float(lon), float(lat)] for lat, lon in corners]
        found.append(_Request(f"{first}-{slice_.positions[index]}", {"polygon": ring}, [index]))
    return found


def _progress(known: Progress, answer: Answer) -> Progress:
    """Return what an answer tells of a job.

    Raises:
        Temporary: it is not written as agreed.
    """
    try:
        told = msgspec.json.decode(answer.body, type=_Told)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Temporary("unreadable") from None
    requested, submitted, delivered = told.requested, told.submitted, told.delivered
    sound = all(0 <= count < MOST for count in (requested, submitted, delivered))
    if not sound or not re.fullmatch(r"[!-~]{1,64}", told.job):
        raise Temporary("unreadable")
    state = JobState[told.state.upper()]
    return replace(known, state=state, job=told.job, requested=requested, submitted=submitted, delivered=delivered)


def _code(answer: Answer) -> str:
    """Return the platform's own code of a refusal; "" if there is none."""
    try:
        code = msgspec.json.decode(answer.body, type=dict[str, Any]).get("code", "")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return code if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,32}", code) else ""
