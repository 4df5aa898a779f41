"""The HTTP API under /v1. Called by `app`, which serves it and mounts the channels' own routes beside it."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import HttpVersion11, web

from gateway.api.door import listen
from gateway.api.endpoint import Endpoint, serve
from gateway.api.problem import problems
from gateway.api.table import ENDPOINTS
from gateway.channel import Route
from gateway.core import Core

__all__ = ["ENDPOINTS", "Endpoint", "listen", "make_app", "mount"]


def make_app(core: Core) -> web.Application:
    """Return the API as an aiohttp application. It starts nothing and owns nothing of `core`."""
    app = web.Application(middlewares=[problems])
    for endpoint in ENDPOINTS:
        app.router.add_route(endpoint.method, endpoint.path, serve(core, endpoint), expect_handler=_expected)
    return app


async def _expected(request: web.Request) -> None:
    """Let a client go on that waits to be told so; what else it expects is no reason to refuse a warning.

    **Source:** RFC 9110 section 10.1.1.
    """
    if request.version == HttpVersion11 and request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun


def mount(app: web.Application, routes: Iterable[Route]) -> None:
    """Serve routes that channels want under the gateway's server: callbacks and inbound sockets."""
    for route in routes:
        app.router.add_route(route.method, route.path, route.handler)
