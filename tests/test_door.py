"""What is no HTTP at all is refused in the same form as everything else, and none of it is repeated or logged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from api_support import opened
from manual_clock import ManualClock

from gateway.api import listen, make_app

SECRET = b"demo-411726-qxj-issuer"
LONG = b"a" * 9_000
HEAD = b"GET /v1/health HTTP/1.1\r\nHost: gateway\r\n"


@pytest.fixture
async def port(tmp_path: Path, clock: ManualClock) -> AsyncIterator[int]:
    async with opened(tmp_path, clock) as desk:
        runner = web.AppRunner(make_app(desk.core), access_log=None)
        await runner.setup()
        server = await listen(runner, "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        server.close()
        await runner.cleanup()


@asynccontextmanager
async def line(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of one's own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"hello " + SECRET + b"\r\n\r\n", b"GET / HTTP/9.9x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"GET /" + LONG + b" HTTP/1.1\r\n\r\n", HEAD + b"X: " + LONG + b"\r\n\r\n",
        HEAD + b"Authorization Bearer " + SECRET + b"\r\n\r\n", HEAD + b"Content-Length: " + SECRET + b"\r\n\r\n",
        HEAD + b"".join(b"X%d: a\r\n" % one for one in range(200)) + b"\r\n", b"GET / HTTP/1.1\r\n\r\n",
    ],
)  # fmt: skip
async def test_what_is_no_request_is_answered_as_a_problem(
    port: int, sent: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever connects a system to us reads one form of refusal, and a slip in a header puts no token into the log."""
    async with line(port) as (reader, writer):
        writer.write(sent)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert head.split(b" ", 2)[1] == b"400"
    assert b"Content-Type: application/problem+json" in head
    assert (problem["status"], problem["type"].rpartition("/")[2]) == (400, "broken_request")
    printed = capfd.readouterr()
    told = caplog.text + printed.out + printed.err + body.decode()
    assert "Traceback" not in told
    assert SECRET.decode() not in told
    assert "a" * 50 not in told


async def test_a_good_request_is_served_and_a_broken_one_ends_the_line(port: int) -> None:
    """What follows a broken one could be anything, so nothing of it is read, and the client sees the end."""
    async with line(port) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
        writer.write(b"nonsense\r\n\r\n")
        rest = await reader.read()
        assert rest.startswith(b"HTTP/1.0 400")
        assert b"broken_request" in rest
