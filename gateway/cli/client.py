"""The HTTP API as the command line uses it: one request, its answer, and problems told in full.

Called by `alert` and `installation`. The token goes into one header and nowhere else; redirects are not followed,
for they would carry it to another host.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import typer

from gateway.cli.frame import refuse, wrong_use

DEFAULT_URL = "http://127.0.0.1:8080"
ANSWER_S = 30.0
LONGEST_DETAIL = 2_000
UNAUTHORISED = 401
UNKNOWN = 404
REDIRECTS = range(300, 400)
ERRORS = 400
MAX_BYTES = 4 * 1024 * 1024
BROKEN = 500

Query = Mapping[str, str | Sequence[str]]
Url = Annotated[
    str, typer.Option("--url", envvar="MINGLUO_URL", metavar="URL", help=f"The gateway; default {DEFAULT_URL}.")
]
Token = Annotated[
    str,
    typer.Option(
        "--token", envvar="MINGLUO_TOKEN", metavar="TOKEN", show_default=False,
        help="Your API token; better in MINGLUO_TOKEN, for other users of this machine see arguments.",
    ),
]  # fmt: skip


class Gateway:
    """The gateway behind a URL, asked in one person's name; `nameless` needs no token (a sealed code does not)."""

    def __init__(self, url: str, token: str, *, nameless: bool = False) -> None:
        self._base = (url or DEFAULT_URL).rstrip("/")
        parts = urlsplit(self._base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            wrong_use(f"--url: not an http:// or https:// address; for example {DEFAULT_URL}")
        if parts.username or parts.password or parts.query:
            wrong_use("--url: give only scheme, host and port; the token goes into MINGLUO_TOKEN")
        if not token and not nameless:
            wrong_use(
                "no token: in simulation export MINGLUO_TOKEN=demo-411726-qxj-issuer (others: "
                "demo-411726-qxj-reviewer, demo-411726-qxj-signer, demo-411726-qxj-clerk); otherwise make one: "
                "mingluo policy token"
            )
        if not token.isascii() or not token.isprintable():
            wrong_use("MINGLUO_TOKEN: not a token; it has characters no token has")
        self._token = token

    def get(self, path: str, **query: str | Sequence[str]) -> Any:
        """Ask; a sequence repeats its parameter; see `request`."""
        return self.request("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, object] | bytes | None = None, **headers: str) -> Any:
        """Send an object as JSON, or bytes as they are; see `request`."""
        data = body if isinstance(body, bytes) else json.dumps(body or {}, ensure_ascii=False).encode()
        return self.request("POST", path, data, headers=headers)

    def request(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Make one request and return the answer's JSON (None if it has none).

        Raises:
            typer.Exit: 1 the gateway refused, 2 it could not be asked; the reason has been said.
        """
        status, location, body = asyncio.run(self._exchange(method, path, data, query or {}, headers or {}))
        answer = _decoded(body)
        if status in REDIRECTS:
            wrong_use(f"{self._base} redirects to {location or 'another address'}: give that address with --url")
        if status == UNAUTHORISED:
            wrong_use("the gateway does not know this token: check MINGLUO_TOKEN (demo tokens open a simulation only)")
        if status >= BROKEN:
            wrong_use(problem(status, answer))
        if status >= ERRORS:
            refuse(problem(status, answer) + (_lists(path) if status == UNKNOWN else ""))
        if body and answer is None:
            wrong_use(f"{self._base} answered something else than JSON: is it a Mingluo gateway?")
        return answer

    async def send(self, path: str, data: bytes) -> tuple[int, Any]:
        """Send bytes once, inside a running loop; return the status and the answer's JSON, whatever they are.

        Raises:
            typer.Exit: nobody answers; the reason has been said.
        """
        status, _, body = await self._exchange("POST", path, data, {}, {})
        return status, _decoded(body)

    async def _exchange(
        self, method: str, path: str, data: bytes | None, query: Query, further: Mapping[str, str]
    ) -> tuple[int, str, bytes]:
        from aiohttp import ClientError, ClientSession, ClientTimeout, InvalidURL

        headers = {"Accept": "application/json", **further}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if data is not None:
            headers["Content-Type"] = media_type(data)
        url = self._base + path
        try:
            async with (
                ClientSession(timeout=ClientTimeout(total=ANSWER_S)) as session,
                session.request(method, url, data=data, params=query, headers=headers, allow_redirects=False) as answer,
            ):
                return answer.status, answer.headers.get("Location", ""), await answer.read()
        except InvalidURL:
            wrong_use(f"--url: not an address; for example {DEFAULT_URL}")
        except (ClientError, OSError, TimeoutError) as error:
            wrong_use(f"{self._base} does not answer ({type(error).__name__}): start it with mingluo serve, or --url")


def message(file: Path) -> bytes:
    """Return a message's bytes as they are; ends with 2 where the file can be none."""
    size = file.stat().st_size
    if size > MAX_BYTES:
        wrong_use(f"{file}: larger than {MAX_BYTES // 1024} KiB; that is no message")
    data = file.read_bytes()
    if not data.strip():
        wrong_use(f"{file}: empty; the command that was to write it has failed")
    return data


def alert_path(alert: str, action: str = "") -> str:
    """Return the path of an alert, or of something to do with it."""
    return f"/v1/alerts/{quote(alert, safe='')}" + (f"/{action}" if action else "")


def media_type(data: bytes) -> str:
    """Tell JSON from CAP XML, as the gateway does."""
    json_form = data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))
    return "application/json" if json_form else "application/cap+xml"


def problem(status: int, answer: Any) -> str:
    """Return what a problem+json answer says: its detail, then each finding."""
    if not isinstance(answer, dict):
        return f"the gateway answered {status} without saying why"
    lines = [str(answer.get("detail") or answer.get("title") or f"the gateway answered {status}")[:LONGEST_DETAIL]]
    for item in answer.get("errors") or ():
        if not isinstance(item, dict):
            lines.append(f"  {item}")
            continue
        if item.get("message") == lines[0]:
            continue  # the only finding, or the first, is the detail itself
        line = f"line {item['line']}" if item.get("line") else ""
        code, said = str(item.get("code") or ""), str(item.get("message") or "")
        parts = (item.get("element"), line, "" if said.startswith(f"{code}:") else code, said)
        lines.append("  " + ": ".join(str(part) for part in parts if part))
    return "\n".join(lines)


LISTS = {"/alerts/": "alerts: mingluo list", "/obligations/": "what is owed: mingluo duty",
         "/emergency/": "regimes: mingluo emergency list", "/replies/": "replies: mingluo reply list",
         "/drills/": "drills: mingluo drill list"}  # fmt: skip


def _lists(path: str) -> str:
    """Name the command that lists what was not found."""
    return next((f"\n  the ids of {text}" for part, text in LISTS.items() if part in path), "")


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None
