"""One row of the route table, and how it is served.

An `Endpoint` declares everything that is said of a route twice elsewhere: the router is built from it, and so is the
OpenAPI document. `serve` does what all routes have in common, in this order: who is calling, whether the role may,
the query, the body (bounded, and timed once its last byte was read), the handler, the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from gateway import cap
from gateway.api.access import authenticate, on_this_machine, sees
from gateway.api.problem import refused
from gateway.core import Core
from gateway.errors import Refused
from gateway.policy import Principal
from gateway.ports import AlertRow

M = TypeVar("M", bound=BaseModel)
Access = Literal["token", "open", "loopback"]
EVERYONE = frozenset({"issuer", "reviewer", "signer", "clerk", "viewer", "admin"})
JSON = "application/json"
ALERT_MEDIA = ("application/cap+xml", "application/xml", JSON)
FORM_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked. `received` is the moment its last byte was read."""

    core: Core
    principal: Principal
    params: Mapping[str, str]
    query: BaseModel | None
    body: BaseModel | None
    data: bytes
    received: datetime
    headers: Mapping[str, str]

    def asked(self, model: type[M]) -> M:
        """Return the query as the model the table declares."""
        assert isinstance(self.query, model)
        return self.query

    def form(self, model: type[M]) -> M:
        """Return the body as the model the table declares."""
        assert isinstance(self.body, model)
        return self.body

    async def row(self) -> AlertRow:
        """Return the alert the path names.

        Raises:
            Refused: 404 there is none, or the caller may not know of it.
        """
        row = await self.core.store.outbox.alert(self.params["id"])
        if row is None or not sees(self.core, self.principal, row):
            raise Refused(404, "unknown_alert", "there is no such alert in your area; GET /v1/alerts lists them")
        return row


Answer = tuple[int, BaseModel | bytes]
Handle = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route.

    `answers` maps each good status to a model, or to the media type of bytes; `problems` are the statuses a refusal
    can have beside 500. `body` is a model for a small JSON form, or `cap.AlertIn`: then CAP XML is taken as well, and
    the handler gets the bytes. `access` "loopback" asks callers of other machines for a token.
    """

    method: str
    path: str
    operation: str
    summary: str
    handle: Handle
    answers: Mapping[int, type[BaseModel] | str]
    problems: tuple[int, ...] = ()
    access: Access = "token"
    roles: frozenset[str] = EVERYONE
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None

    @property
    def takes_alert(self) -> bool:
        """Whether the body is a warning, in any of its forms."""
        return self.body is cap.AlertIn

    @property
    def documented_problems(self) -> tuple[int, ...]:
        """Every status a refusal can have: the handler's own, and those of the steps before it."""
        found = {*self.problems}
        found |= {401} if self.access != "open" else set()
        found |= {503} if self.access == "token" else set()
        found |= {403} if self.roles != EVERYONE else set()
        found |= {400} if self.query or self.body else set()
        found |= {413, 415} if self.body else set()
        return tuple(sorted(found))


def serve(core: Core, endpoint: Endpoint) -> Handler:
    """Return the aiohttp handler of an endpoint."""

    async def handler(request: web.Request) -> web.StreamResponse:
        principal = _principal(core, endpoint, request)
        query = _query(endpoint, request)
        data = await _data(endpoint, request)
        received = core.clock.now()
        body = _form(endpoint, data)
        call = Call(core, principal, request.match_info, query, body, data, received, request.headers)
        status, content = await endpoint.handle(call)
        return _response(endpoint, status, content)

    return handler


def _principal(core: Core, endpoint: Endpoint, request: web.Request) -> Principal:
    if endpoint.access == "open" or (endpoint.access == "loopback" and on_this_machine(request)):
        return Principal("", "viewer", "")
    principal = authenticate(core, request)
    if principal.role not in endpoint.roles:
        allowed = ", ".join(sorted(endpoint.roles))
        raise Refused(403, "wrong_role", f"a token of role {principal.role} may not do this; use one of: {allowed}")
    return principal


def _query(endpoint: Endpoint, request: web.Request) -> BaseModel | None:
    if endpoint.query is None:
        return None
    try:
        return endpoint.query.model_validate(dict(request.query))
    except ValidationError as error:
        raise refused(error, "invalid_query", "query") from None


async def _data(endpoint: Endpoint, request: web.Request) -> bytes:
    """Read the body, at most to its limit."""
    if endpoint.body is None:
        return b""
    accepted = ALERT_MEDIA if endpoint.takes_alert else (JSON,)
    if request.content_type not in accepted:
        raise Refused(415, "wrong_media_type", f"send the body as one of: {', '.join(accepted)}")
    limit = cap.MAX_BYTES if endpoint.takes_alert else FORM_BYTES
    data = bytearray()
    if (request.content_length or 0) <= limit:
        async for chunk in request.content.iter_any():
            data += chunk
            if len(data) > limit:
                break
        else:
            return bytes(data)
    raise Refused(413, "too_large", f"the body is larger than {limit // 1024} KiB")


def _form(endpoint: Endpoint, data: bytes) -> BaseModel | None:
    if endpoint.body is None or endpoint.takes_alert:
        return None
    try:
        return endpoint.body.model_validate_json(data)
    except ValidationError as error:
        raise refused(error, "invalid_body", "body") from None


def _response(endpoint: Endpoint, status: int, content: BaseModel | bytes) -> web.Response:
    shape: Any = endpoint.answers[status]
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if isinstance(content, bytes):
        headers["Content-Type"] = shape
        return web.Response(status=status, body=content, headers=headers)
    headers["Content-Type"] = JSON
    return web.Response(status=status, body=content.model_dump_json().encode(), headers=headers)
