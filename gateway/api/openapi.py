"""The OpenAPI document, generated from the table of routes and the pydantic models.

**Source:** OpenAPI Specification 3.1.1; its schemas are JSON Schema 2020-12, as pydantic writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Literal, cast

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import gateway
from gateway import cap
from gateway.api.endpoint import ALERT_MEDIA, ID, JSON, Endpoint
from gateway.api.example import ALERT, EXAMPLES
from gateway.api.problem import MEDIA, Problem
from gateway.api.shape import EXAMPLE
from gateway.obligation import RULES

Mode = Literal["validation", "serialization"]
Json = dict[str, Any]
Refs = dict[tuple[type[BaseModel], Mode], Json]
REF = "#/components/schemas/{model}"
SECURITY: dict[str, list[Json]] = {"open": [], "token": [{"token": []}], "loopback": [{}, {"token": []}]}
ABOUT = (
    "Takes a disaster warning from those entitled to issue it, and makes sure every affected village is reached. "
    "Errors are RFC 9457 problems that say what to do. Lists are paged: follow the header `Link`, or hand `next` back "
    "as `after`. docs/api.md tells the rest: tokens, Idempotency-Key, ETag, limits, and every kind of problem."
)
PATH: dict[str, Json] = {
    "id": {"type": "string", "pattern": f"^{ID.pattern}$", "example": ALERT},
    "kind": {"type": "string", "enum": sorted(RULES)},
}
TAGS = {
    "alerts": "Warnings: issue them, and see what became of them",
    "decisions": "Drafts, and what people decide on an alert",
    "duty": "What the duty room owes, replies and incidents, the emergency regime, and sealed codes",
    "people": "What the people in the rosters ask for",
    "speakers": "Loudspeakers: their state, orders to them, and villages that would hear nothing",
    "national": "The national platform (国突): the day's reconciliation",
    "audit": "The hash chain of decisions",
    "gateway": "The gateway itself",
}
ASKED = {
    "Break-Glass": "The sealed code",
    "Idempotency-Key": "Yours for this request, 1 to 255 characters. Repeated within 24 h it gets the first answer",
    "If-Match": "ETag of the alert as you saw it; 412 when it has changed since",
    "If-None-Match": "ETag you have; 304 when nothing has changed",
}
TOLD = {
    "ETag": "Strong entity tag of this answer",
    "Idempotency-Replayed": "true: this is the first answer to this Idempotency-Key, nothing was done now",
    "Link": 'The next page, rel="next"; absent at the end',
    "RateLimit": "What is left of the limit, and seconds until more",
    "RateLimit-Policy": "Requests (q) per window in seconds (w) for this token",
    "Retry-After": "Seconds until it is worth sending again",
    "WWW-Authenticate": "How to authenticate",
}
SURE = {401: ("WWW-Authenticate",), 429: ("Retry-After", "RateLimit", "RateLimit-Policy"), 503: ("Retry-After",)}


def document(endpoints: Sequence[Endpoint]) -> bytes:
    """Return the OpenAPI 3.1 document of these routes as JSON."""
    schemas, refs = _schemas(endpoints)
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas, refs)
    return orjson.dumps(
        {
            "openapi": "3.1.1",
            "info": {
                "title": "Mingluo 鸣锣",
                "version": gateway.__version__,
                "description": ABOUT,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {
                    "token": {"type": "http", "scheme": "bearer", "description": "A token of config/policy/tokens.toml"}
                },
            },
        }
    )


def _schemas(endpoints: Iterable[Endpoint]) -> tuple[Json, Refs]:
    """Return all component schemas, and the reference of each model the routes name."""
    wanted: dict[tuple[type[BaseModel], Mode], None] = {(Problem, "serialization"): None}
    for endpoint in endpoints:
        asked = (model for model in (endpoint.body, endpoint.query) if model is not None)
        wanted |= dict.fromkeys((model, "validation") for model in asked)
        answered = (model for model in endpoint.answers.values() if not isinstance(model, str))
        wanted |= dict.fromkeys((model, "serialization") for model in answered)
    found, definitions = models_json_schema(list(wanted), ref_template=REF)
    # Only models went in; the annotation of pydantic also allows its dataclasses.
    return definitions["$defs"], cast(Refs, found)


def _operation(endpoint: Endpoint, schemas: Json, refs: Refs) -> Json:
    operation: Json = {
        "operationId": endpoint.operation,
        "summary": endpoint.summary.split(". ", 1)[0].rstrip("."),
        "description": f"{endpoint.summary} {_who(endpoint)}",
        "tags": [tag_of(endpoint)],
        "security": SECURITY[endpoint.access],
        "parameters": _parameters(endpoint, schemas, refs),
        "responses": _responses(endpoint, refs),
    }
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(endpoint, endpoint.body, refs)}
    return operation


def tag_of(endpoint: Endpoint) -> str:
    """Return the chapter an endpoint stands in."""
    part = endpoint.path.removeprefix("/v1/").split("/", 1)[0]
    if part == "alerts":
        return "decisions" if endpoint.method != "GET" and "{" in endpoint.path else "alerts"
    duty = part in ("obligations", "emergency", "break-glass", "replies", "incidents")
    return "duty" if duty else part if part in TAGS else "gateway"


def _who(endpoint: Endpoint) -> str:
    if endpoint.access == "token":
        return f"Roles: {', '.join(sorted(endpoint.roles))}."
    return "Open to everyone." if endpoint.access == "open" else "Open to this machine; else any role."


def _parameters(endpoint: Endpoint, schemas: Json, refs: Refs) -> list[Json]:
    found: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": PATH[name]}
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ]
    asked = {
        "Break-Glass": endpoint.operation == "breakGlass",
        "Idempotency-Key": endpoint.keyed,
        "If-Match": endpoint.conditional,
        "If-None-Match": endpoint.tagged,
    }
    found += [
        {"name": name, "in": "header", "required": False, "description": ASKED[name], "schema": {"type": "string"}}
        for name, taken in asked.items()
        if taken
    ]
    if endpoint.query is not None:
        schema = schemas[refs[endpoint.query, "validation"]["$ref"].rsplit("/", 1)[1]]
        found += [
            {"name": name, "in": "query", "required": False, "schema": shape}
            for name, shape in schema["properties"].items()
        ]
    return found


def _content(endpoint: Endpoint, body: type[BaseModel], refs: Refs) -> Json:
    form: Json = {"schema": refs[body, "validation"], "example": EXAMPLES.get(body)}
    if not endpoint.takes_alert:
        return {JSON: form}
    xml = {"schema": {"type": "string", "description": "CAP 1.2 XML, UTF-8"}, "example": _cap_example()}
    return {media: form if media == JSON else xml for media in ALERT_MEDIA}


def _cap_example() -> str:
    alert, _ = cap.parse(orjson.dumps(EXAMPLE))
    assert alert is not None
    return cap.write(alert).decode()


def _responses(endpoint: Endpoint, refs: Refs) -> Json:
    found: Json = {}
    told = _told(endpoint)
    for status, shape in endpoint.answers.items():
        found[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "headers": _headers(told),
            "content": _answer(shape, refs),
        }
    if endpoint.tagged:
        found["304"] = {"description": HTTPStatus(304).phrase, "headers": _headers(["ETag"])}
    problem = {MEDIA: {"schema": refs[Problem, "serialization"], "example": EXAMPLES[Problem]}}
    for code in endpoint.documented_problems:
        found[str(code)] = {"description": HTTPStatus(code).phrase, "content": problem}
        if code in SURE:
            found[str(code)]["headers"] = _headers(SURE[code], required=True)
    if endpoint.keyed:
        found["409"]["headers"] = _headers(["Retry-After"])
    found["500"] = {"description": "A fault of ours, logged; nothing of it is told", "content": problem}
    return found


def _answer(shape: type[BaseModel] | str, refs: Refs) -> Json:
    if not isinstance(shape, str):
        return {JSON: {"schema": refs[shape, "serialization"], "example": EXAMPLES.get(shape)}}
    content: Json = {"schema": {"type": "object" if shape == JSON else "string"}}
    if shape == ALERT_MEDIA[0]:
        content["example"] = _cap_example()
    return {shape.split(";")[0]: content}


def _told(endpoint: Endpoint) -> list[str]:
    """Headers of a good answer."""
    paged = any(not isinstance(shape, str) and "next" in shape.model_fields for shape in endpoint.answers.values())
    told = {
        "ETag": endpoint.tagged,
        "Idempotency-Replayed": endpoint.keyed,
        "Link": paged,
        "RateLimit-Policy": endpoint.limited and endpoint.access != "open",
    }
    return [name for name, given in told.items() if given]


def _headers(names: Iterable[str], *, required: bool = False) -> Json:
    return {name: {"description": TOLD[name], "required": required, "schema": {"type": "string"}} for name in names}
