"""The talk with an emergency-broadcast platform: what is sent, numbered and signed, and what of it is believed.

Used by `loudspeaker_ebd`. A package goes out as the one file of a form, and its answer is a package too; what cannot be
believed is no answer. Numbers are the store's: no process and no restart gives one twice.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated

from aiohttp import BodyPartReader, ClientSession, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from channels._ebd import Ebd, ebd_id, ebm_id, heartbeat_id, pack, unpack
from channels._ebd_form import LARGEST, UNREADABLE, ZONE, Body, Check, EbdError, Response, Result, moment
from channels._ebd_meaning import refusal as refused
from channels._ebd_signature import Pinned, SoftSigner, Trust, is_private, is_public
from channels._http import Url, ask, refusal, session
from gateway.channel import Link
from gateway.channel import Settings as ChannelSettings
from gateway.errors import Permanent, Temporary, Throttled

PATIENCE_S = 20.0  # for the whole of a package that comes
TAKEN_AT_ONCE = 16  # packages that come
RETRY_S = 5.0
FRESH = timedelta(days=1)  # what comes by itself is no older; an answer names what it answers
AGAIN_BELOW = 8_000  # of the ten thousand broadcasts of a day
BLOCK = 100  # packages without a key whose numbers are taken at once
BLOCKS_FROM = 10_000_000  # below it stand the packages that have a key: a broadcast, a cancel
SAYS = {
    "0": "not processed", "1": "taken", "2": "cannot be read", "3": "something is missing", "4": "signature refused",
    "5": "refused",
}  # fmt: skip

Ebrid = Annotated[str, StringConstraints(pattern=r"^([0-9]{18}|[0-9]{23})$")]
Hex12 = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{12}$")]


def _private(key: SecretStr) -> SecretStr:
    if not is_private(key.get_secret_value()):
        raise ValueError("must be a private key of SM2: 64 hexadecimal digits")
    return key


def _public(key: str) -> str:
    if not is_public(key):
        raise ValueError("must be a public key of SM2: 130 hexadecimal digits that begin with 04")
    return key


class Certificate(BaseModel):
    """A certificate of the platform, pinned by hand."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: Hex12
    serial: Hex12
    public_key: Annotated[str, AfterValidator(_public)]
    since: AwareDatetime
    until: AwareDatetime


class PeerSettings(ChannelSettings):
    """Who talks with whom. `ebrid` is ours, `platform` the platform's; `key` and the names of its certificate ours."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: Url
    ebrid: Ebrid
    platform: Ebrid
    key: Annotated[SecretStr, AfterValidator(_private)]
    issuer: Hex12
    serial: Hex12
    until: AwareDatetime | None = None
    """When our certificate ends, where the platform has said so."""
    trusted: tuple[Certificate, ...] = Field(min_length=1)
    timeout_s: float = Field(6.0, gt=0, le=6.0)


class Peer:
    """The platform, as this process talks with it. Open before use."""

    def __init__(self, settings: PeerSettings) -> None:
        self._settings = settings
        self._signer = SoftSigner(settings.issuer, settings.serial, bytes.fromhex(settings.key.get_secret_value()))
        self._trust = Trust(
            Pinned(one.issuer, one.serial, settings.platform, bytes.fromhex(one.public_key), one.since, one.until)
            for one in settings.trusted
        )
        self._reading = asyncio.Semaphore(1)  # a check is work for a processor that has warnings to send
        self._taking = 0
        self._session: ClientSession | None = None
        self._block: tuple[str, int] = ("", 0)

    def open(self) -> None:
        """Begin."""
        self._session = session(self._settings.timeout_s)

    async def close(self) -> None:
        """End."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def broadcast_id(self, link: Link, key: str) -> str:
        """Return the EBMID of what has this key, the same whenever it is asked.

        Raises:
            EbdError: the numbers of the day are used up.
            MingluoError: the store is away.
        """
        return await self._broadcast_id(link, key, _day(datetime.now(UTC)), 10_000)

    async def again_id(self, link: Link, ebm: str) -> str:
        """Return the EBMID under which a broadcast is said once more.

        Raises:
            EbdError: what is left of the day's numbers is kept for what is new.
            MingluoError: the store is away.
        """
        day = _day(datetime.now(UTC))
        return await self._broadcast_id(link, f"{ebm}-{day}", day, AGAIN_BELOW)

    async def _broadcast_id(self, link: Link, key: str, day: str, below: int) -> str:
        number = await link.number(f"ebm-{day}", f"ebm-{key}")
        if number.value >= below:
            raise EbdError("5", "numbers_used_up")
        return ebm_id(self._settings.ebrid, number.sequence.removeprefix("ebm-"), number.value)

    async def package(
        self, link: Link, body: Body, key: str = "", related: str = "", recording: tuple[str, bytes] | None = None
    ) -> Ebd:
        """Return a package to the platform; what has a key has the same id whenever it is asked.

        Raises:
            EbdError: the numbers of the day are used up.
            MingluoError: the store is away.
        """
        now = datetime.now(UTC)
        if key:
            number = await link.number(f"ebd-{_day(now)}", f"ebd-{key}")
            day, value = number.sequence.removeprefix("ebd-"), number.value
            if value >= BLOCKS_FROM:
                raise EbdError("5", "numbers_used_up")
        else:
            day, value = await self._next(link, _day(now))
        id_ = ebd_id(self._settings.ebrid, day, value)
        return Ebd(id_, self._settings.ebrid, self._settings.platform, now, body, related, recording)

    async def _next(self, link: Link, day: str) -> tuple[str, int]:
        if self._block[0] != day or self._block[1] % BLOCK == 0:
            block = (await link.number(f"block-{day}")).value
            self._block = (day, BLOCKS_FROM + block * BLOCK)
        day, value = self._block
        self._block = (day, value + 1)
        return day, value

    def heartbeat(self) -> Ebd:
        """Return a heartbeat, whose id is always the same."""
        now = datetime.now(UTC)
        check = Check(moment(now))
        return Ebd(heartbeat_id(self._settings.ebrid), self._settings.ebrid, self._settings.platform, now, check)

    async def ask(self, ebd: Ebd) -> Body:
        """Send a package and return what the platform answers, once it is believed to be its own, and about this one.

        Raises:
            Ambiguous: it left, and no whole answer came.
            Temporary: no connection, or an answer nobody needs to believe.
            ChannelError: the platform refuses it.
        """
        if self._session is None:
            raise Temporary("closed")
        try:
            packed = await pack(ebd, self._signer)
        except EbdError as error:
            raise Permanent(error.why) from None
        boundary = f"EBD{ebd.id}"
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        answer = await ask(self._session, "POST", self._settings.url, headers, _form(boundary, ebd.id, packed))
        if against := refusal(answer):
            raise against
        try:
            told = await unpack(answer.body, self._trust, datetime.now(UTC))
        except EbdError as error:
            raise Temporary(f"answer_{error.why}") from None
        if told.target != self._settings.ebrid or told.related != ebd.id:
            raise Temporary("answer_to_another")
        if isinstance(told.body, Response) and (against := refused(told.body.result_code)):
            raise against
        return told.body

    async def take(self, request: web.Request) -> Ebd:
        """Return what the platform has sent to us.

        Raises:
            EbdError: with the ResultCode to answer; nothing of it may be used.
            Throttled: as many are in hand as this process takes; nothing of it was read.
        """
        if self._taking >= TAKEN_AT_ONCE:  # the route is open to whoever finds it, and each may hold four megabytes
            raise Throttled(RETRY_S, "busy")
        self._taking += 1
        try:
            return await self._take(request)
        finally:
            self._taking -= 1

    async def _take(self, request: web.Request) -> Ebd:
        data = await _file(request)
        async with self._reading:
            now = datetime.now(UTC)
            told = await unpack(data, self._trust, now)
        if told.target != self._settings.ebrid:
            raise EbdError("5", "target", told.id)
        if abs(now - told.at) > FRESH:  # last month's terminals, played back by whoever has kept them
            raise EbdError("5", "stale", told.id)
        return told

    async def answer(self, link: Link, result: Result, related: str) -> web.Response:
        """Return the answer to what the platform has sent.

        Raises:
            MingluoError: the store is away.
        """
        ebd = await self.package(link, Response(result, SAYS[result]), related=related)
        return web.Response(body=await pack(ebd, self._signer), content_type="application/x-tar")


def _day(at: datetime) -> str:
    return at.astimezone(ZONE).strftime("%Y%m%d")


def _form(boundary: str, id_: str, packed: bytes) -> bytes:
    """Return a form with one file."""
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="EBDT_{id_}.tar"\r\n'
        "Content-Type: application/x-tar\r\n\r\n"
    )
    return head.encode() + packed + f"\r\n--{boundary}--\r\n".encode()


async def _file(request: web.Request) -> bytes:
    """Return the one file of a form.

    Raises:
        EbdError: there is none, or more than 4 MiB come.
    """
    if not request.content_type.startswith("multipart/"):
        raise EbdError(UNREADABLE, "form")
    try:
        async with asyncio.timeout(PATIENCE_S):
            part = await (await request.multipart()).next()
            if not isinstance(part, BodyPartReader):
                raise EbdError(UNREADABLE, "form")
            data = bytearray()
            while chunk := await part.read_chunk(65_536):
                data += chunk
                if len(data) > LARGEST:
                    raise EbdError(UNREADABLE, "too_large")
    except TimeoutError:
        raise EbdError(UNREADABLE, "too_slow") from None
    except (ValueError, HttpProcessingError):  # the library's words for a form that is none
        raise EbdError(UNREADABLE, "form") from None
    return bytes(data)
