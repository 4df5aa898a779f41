"""Where requests come in: what aiohttp refuses before there is a request is answered as a problem, too.

Called by `app` in place of aiohttp's own site, whose connections answer a line or header that is no HTTP, or too long,
in plain text with what was sent in it, and write that into the log: a token with a slip in its header would stand
there (rule 9).
"""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway import log
from gateway.api.problem import answer

BACKLOG = 4096

_log = log.get("api")


class Door(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what could not be read as a request; the connection ends, for nobody knows where the next begins."""
        if not isinstance(exc, HttpProcessingError) or request.writer.output_size:
            return super().handle_error(request, status, exc, message)
        _log.info("broken_request", why=type(exc).__name__)
        response = answer(
            400, "broken_request",
            "this is no HTTP/1.1 request: a line or header is wrong or has more than 8,190 bytes, there are more than "
            "128 headers, or it is HTTPS at a port for HTTP; mend it and send it again",
        )  # fmt: skip
        response.force_close()
        return response


async def listen(runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
    """Serve an application that is set up, until the server that is returned is closed; 0 takes a free port."""
    loop, server = asyncio.get_running_loop(), runner.server
    assert server is not None

    def door() -> Door:
        return Door(server, loop=loop, access_log=None)  # type: ignore[arg-type]  # as aiohttp's own runner has it

    return await loop.create_server(door, host, port, backlog=BACKLOG, reuse_address=True)
