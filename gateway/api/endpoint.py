"""One row of the route table, and how it is served.

An `Endpoint` declares everything that is said of a route twice elsewhere: the router is built from it, and so is the
OpenAPI document. `serve` does what all routes have in common, in this order: who is calling, whether the role may, how
often, the query, the body (bounded, and timed once its last byte was read), the Idempotency-Key, If-Match, the
handler, the answer and its ETag.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar, get_origin

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from gateway import cap
from gateway.api import condition, limit, repeat
from gateway.api.access import authenticate, bearer, on_this_machine, sees
from gateway.api.limit import Counted
from gateway.api.problem import refused
from gateway.api.shape import AlertOut
from gateway.core import Core
from gateway.errors import Refused
from gateway.intake import urgent
from gateway.policy import Principal
from gateway.ports import AlertRow
from gateway.store.answer import Kept

M = TypeVar("M", bound=BaseModel)
Access = Literal["token", "open", "loopback"]
EVERYONE = frozenset({"issuer", "reviewer", "signer", "clerk", "viewer", "admin"})
JSON = "application/json"
ALERT_MEDIA = ("application/cap+xml", "application/xml", JSON)
FORM_BYTES = 16 * 1024
ID = re.compile("[0-9a-f]{20}")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked. `received` is the moment its last byte was read; `peer` is whom failures are counted by."""

    core: Core
    principal: Principal
    params: Mapping[str, str]
    query: BaseModel | None
    body: BaseModel | None
    data: bytes
    received: datetime
    headers: Mapping[str, str]
    peer: str

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
        known = ID.fullmatch(self.params["id"])
        row = await self.core.store.outbox.alert(known[0]) if known else None
        if row is None or not sees(self.core, self.principal, row):
            raise Refused(404, "unknown_alert", "there is no such alert in your area; GET /v1/alerts lists them")
        return row


Answer = tuple[int, BaseModel | bytes]
Handle = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route.

    `answers` maps each good status to a model, or to the media type of bytes; `problems` are the statuses a refusal
    can have beside 500. `body` is a model for a JSON form of at most `form_bytes`, or `cap.AlertIn`: then XML is
    taken as well, and the handler gets the bytes. `access` "loopback" asks callers of other machines for a token.
    `tagged`: a good answer has an ETag. `conditional`: it decides on an alert, and If-Match names what was seen of it.
    `limited` False: no rate limit stops it. `kept` False: it changes nothing, or its answer is a secret: no
    Idempotency-Key.
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
    form_bytes: int = FORM_BYTES
    tagged: bool = False
    conditional: bool = False
    limited: bool = True
    kept: bool = True

    @property
    def keyed(self) -> bool:
        """Whether it takes an Idempotency-Key: it changes something, in somebody's name."""
        return self.kept and self.method != "GET" and self.access == "token"

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
        found |= {400, 409, 422} if self.keyed else set()
        found |= {412} if self.conditional else set()
        found |= {429} if self.access != "open" else set()
        return tuple(sorted(found))


def serve(core: Core, endpoint: Endpoint) -> Handler:
    """Return the aiohttp handler of an endpoint."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if "\0" in request.path:  # no database can be asked for it
            raise web.HTTPNotFound
        principal, counted = await _principal(core, endpoint, request)
        query = _query(endpoint, request)
        data = await _data(endpoint, request)
        received = core.clock.now()
        body = _form(endpoint, data)
        peer = limit.peer(request)
        call = Call(core, principal, request.match_info, query, body, data, received, request.headers, peer)
        if counted is not None and counted.wait_s:
            await _spare(endpoint, call, counted)
        headers = {} if counted is None else {"RateLimit-Policy": counted.limit.policy}
        key = repeat.read_key(request.headers.getall(repeat.HEADER, [])) if endpoint.keyed else ""
        answer: Callable[[], Awaitable[Kept]] = partial(_answer, endpoint, call, request, headers)
        if not key:
            return _response(endpoint, request, await answer(), headers)
        asked = (request.method, request.path_qs, data)
        kept, replayed = await repeat.once(core.store.answers, principal, key, asked, answer)
        if replayed:
            headers[repeat.REPLAYED] = "true"
        return _response(endpoint, request, kept, headers)

    return handler


async def _answer(endpoint: Endpoint, call: Call, request: web.Request, headers: dict[str, str]) -> Kept:
    """Do it: the handler, and what is said of its answer in headers."""
    if endpoint.conditional and (wanted := request.headers.getall("If-Match", [])):
        now = condition.tag_of(_encoded(AlertOut.of(await call.row())))
        if not condition.same(wanted, now):
            raise Refused(
                412, "changed_meanwhile", "the alert is no longer what you saw; get it again, then decide anew"
            )
    status, content = await endpoint.handle(call)
    if further := getattr(content, "next", None):
        headers["Link"] = f'<{request.rel_url.update_query(after=str(further))}>; rel="next"'
    return Kept(status, _encoded(content))


def _encoded(content: BaseModel | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.model_dump_json().encode()


async def _principal(core: Core, endpoint: Endpoint, request: web.Request) -> tuple[Principal, Counted | None]:
    """Return who is calling, and how often: None where nobody counts."""
    if endpoint.access == "open" or (endpoint.access == "loopback" and on_this_machine(request)):
        return Principal("", "viewer", ""), None
    token = bearer(request)
    principal = await authenticate(core, request, token)
    if principal.role not in endpoint.roles:
        allowed = ", ".join(sorted(endpoint.roles))
        raise Refused(403, "wrong_role", f"a token of role {principal.role} may not do this; use one of: {allowed}")
    if not endpoint.limited:
        return principal, None
    counted = await limit.count(core, endpoint.method, token)
    if counted.wait_s and endpoint.method == "GET":
        raise counted.refusal()
    return principal, counted


async def _spare(endpoint: Endpoint, call: Call, counted: Counted) -> None:
    """Let a request beyond the limit go on where lives hang on it.

    Raises:
        Refused: 429 they do not; 404 as the handler would.
    """
    if endpoint.takes_alert:
        vital = endpoint.keyed and await call.core.intake.urgent(call.data, call.principal)
    else:
        vital = endpoint.path.startswith("/v1/alerts/{id}") and urgent((await call.row()).alert)
    if not vital:
        raise counted.refusal()
    counted.spare(call.principal.issuer)


def _query(endpoint: Endpoint, request: web.Request) -> BaseModel | None:
    if endpoint.query is None:
        return None
    fields = endpoint.query.model_fields
    several = {name for name, field in fields.items() if get_origin(field.annotation) is list}
    given: dict[str, object] = {}
    for name in request.query:
        values = request.query.getall(name)
        if len(values) > 1 and name in fields and name not in several:
            raise Refused(400, "invalid_query", f"{name} is given more than once; it takes one value")
        given[name] = values if name in several else values[0]
    try:
        return endpoint.query.model_validate(given)
    except ValidationError as error:
        raise refused(error, "invalid_query", "query") from None


async def _data(endpoint: Endpoint, request: web.Request) -> bytes:
    """Read the body, at most to its limit."""
    if endpoint.body is None:
        return b""
    accepted = ALERT_MEDIA if endpoint.takes_alert else (JSON,)
    if request.content_type not in accepted:
        raise Refused(415, "wrong_media_type", f"send the body as one of: {', '.join(accepted)}")
    limit = cap.MAX_BYTES if endpoint.takes_alert else endpoint.form_bytes
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


def _response(endpoint: Endpoint, request: web.Request, answer: Kept, headers: dict[str, str]) -> web.Response:
    shape: Any = endpoint.answers[answer.status]
    headers |= {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if endpoint.tagged:
        tag = condition.tag_of(answer.body)
        headers |= {"Cache-Control": "private, no-cache", "ETag": tag}
        if condition.same(request.headers.getall("If-None-Match", []), tag, weak=True):
            return web.Response(status=304, headers=headers)
    headers["Content-Type"] = shape if isinstance(shape, str) else JSON
    return web.Response(status=answer.status, body=answer.body, headers=headers)
