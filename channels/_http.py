"""HTTP as the platform channels speak it: one session, one request, and the errors that end it.

Nothing is followed or repeated. A provider's own words may quote numbers and texts, so none of them leaves here but
through the fields a channel reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    InvalidURL,
    TCPConnector,
)
from pydantic import AfterValidator

from gateway.errors import Ambiguous, ChannelError, Permanent, Temporary, Throttled, Unusable

LARGEST = 4 << 20  # bytes of an answer; a page of reports is far below


class Answer(NamedTuple):
    """What came back. `after_s` is what Retry-After asks for; None: it asks for nothing."""

    status: int
    body: bytes
    after_s: float | None = None


def _encrypted(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(url)):
        raise ValueError("use https:// (plain http only on loopback)")
    if parts.username or parts.password:
        raise ValueError("put no name or password into an address: it ends up in logs")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_encrypted)]
"""An address to talk to: encrypted, or on this machine."""


def is_loopback(url: str) -> bool:
    """Tell whether the URL's host is this machine: a simulation, never a real provider."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def session(timeout_s: float) -> ClientSession:
    """Return a session whose requests end after `timeout_s`."""
    return ClientSession(
        connector=TCPConnector(limit=0),  # the channel bounds it; a wait for a connection would spend the timeout
        cookie_jar=DummyCookieJar(),
        # Without a connection nothing was sent: that must end as Temporary, well before the ambiguous total.
        timeout=ClientTimeout(total=timeout_s, connect=timeout_s / 2),
    )


async def ask(
    session_: ClientSession, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
) -> Answer:
    """Make one request and return the answer, whatever its status.

    Raises:
        Temporary: no connection, so nothing left.
        Ambiguous: the request left and no whole answer came.
    """
    # `from None`: the library's errors show the URL and would end in a traceback.
    try:
        async with session_.request(method, url, data=body, headers=headers, allow_redirects=False) as answer:
            after = answer.headers.get("Retry-After", "")
            parts, size = [], 0
            while part := await answer.content.readany():
                parts.append(part)
                size += len(part)
                if size > LARGEST:
                    raise Ambiguous("answer_too_large")
            return Answer(answer.status, b"".join(parts), float(after) if after.isdecimal() else None)
    except (ClientConnectorError, ConnectionTimeoutError, InvalidURL):
        raise Temporary("unreachable") from None
    except TimeoutError:
        raise Ambiguous("no_answer") from None
    except ClientError:
        raise Ambiguous("connection_lost") from None


def refusal(answer: Answer, code: str = "") -> ChannelError | None:
    """Return the error an HTTP status means, under the provider's own code if it has one; None for a 2xx."""
    status = answer.status
    if 200 <= status < 300:
        return None
    code = code or f"http_{status}"
    if status == 429 or (status == 503 and answer.after_s is not None):
        return Throttled(answer.after_s if answer.after_s is not None else 1.0, code)
    if status in (401, 403, 404, 405) or 300 <= status < 400:
        return Unusable(code)  # it is our address or key that is wrong, and wrong for everybody
    if status in (502, 504):
        return Ambiguous(code)  # a gateway gave up waiting for what stands behind it, which may have the text
    return Temporary(code) if status >= 500 else Permanent(code)
