"""Errors as RFC 9457 problem details: every refusal says what is wrong and what to do about it.

One middleware turns what handlers raise into answers; nothing internal leaves, and what nobody foresaw is logged with
its traceback. Redirects of other surfaces pass through.

**Source:** RFC 9457 (problem details), RFC 6750 section 3 (the challenge of a 401).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, Field, ValidationError

from gateway import log
from gateway.errors import Refused, StoreDown

MEDIA = "application/problem+json"
TYPES = "https://mingluo.example/problems/"
HEADERS = {401: {"WWW-Authenticate": 'Bearer realm="mingluo"'}, 503: {"Retry-After": "2"}}
HINTS = {
    404: ("unknown_route", "there is no such address here; see /openapi.json"),
    405: ("wrong_method", "this address does not take that method; see the Allow header and /openapi.json"),
    413: ("too_large", "the body is too large"),
}
BROKEN_BODY = "broken_body"
OTHER = "http_error"  # whatever else the HTTP server itself refuses

_log = log.get("api")


class Refusal(Refused):
    """A refusal whose answer carries headers: when to come again."""

    def __init__(self, status: int, code: str, detail: str, *, headers: Mapping[str, str]) -> None:
        super().__init__(status, code, detail)
        self.headers = headers


class Problem(BaseModel):
    """What went wrong. `type` names the kind of problem and never changes; `detail` says what to do."""

    type: str = Field(examples=[TYPES + "outside_authority"])
    title: str
    status: int
    detail: str
    errors: list[dict[str, object]] | None = Field(None, description="The single findings")


def answer(
    status: int,
    code: str,
    detail: str,
    errors: Sequence[dict[str, object]] = (),
    headers: Mapping[str, str] = MappingProxyType({}),
) -> web.Response:
    """Return a problem as a response."""
    problem = Problem.model_validate(
        {
            "type": TYPES + code,
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "errors": list(errors) or None,
        }
    )
    response = web.Response(
        status=status,
        body=problem.model_dump_json(exclude_none=True).encode(),
        headers=HEADERS.get(status, {}) | dict(headers),
    )
    response.content_type = MEDIA
    response.headers["Cache-Control"] = "no-store"
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or code == BROKEN_BODY:
        response.force_close()  # the rest of the body is not worth reading, or cannot be
    return response


def refused(error: ValidationError, code: str, what: str) -> Refused:
    """Turn findings of pydantic on `what` into a refusal; it never repeats what was sent."""
    found: tuple[dict[str, object], ...] = tuple(
        {"code": item["type"], "element": ".".join(map(str, item["loc"])), "message": item["msg"]}
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    )
    many = "1 error" if len(found) == 1 else f"{len(found)} errors"
    return Refused(400, code, f"{many} in the {what}; correct it as /openapi.json says", found)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error as a problem."""
    try:
        return await handler(request)
    except Refused as error:
        headers = error.headers if isinstance(error, Refusal) else {}
        return answer(error.status, error.code, error.detail, error.errors, headers)
    except StoreDown:
        return answer(
            503, "store_down", "the database does not answer; send it again: what is known already is recognised"
        )
    except web.RequestPayloadError:
        return answer(400, BROKEN_BODY, "the body ended early or is not encoded as its headers say; send it again")
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        response = answer(error.status, *HINTS.get(error.status, (OTHER, error.reason)))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception:
        # Nobody is there any more, or an answer (of a socket, say) has begun: it cannot be answered again.
        if request.transport is None or request.transport.is_closing() or request.writer.output_size:
            raise
        resource = request.match_info.route.resource
        _log.exception("unexpected", method=request.method, route=resource.canonical if resource else "")
        return answer(500, "unexpected", "something failed here; it was logged, tell the administrator if it stays")
