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
from gateway.api.endpoint import ALERT_MEDIA, JSON, Endpoint
from gateway.api.problem import HEADERS, MEDIA, Problem
from gateway.api.shape import EXAMPLE
from gateway.obligation import RULES

Mode = Literal["validation", "serialization"]
Json = dict[str, Any]
Refs = dict[tuple[type[BaseModel], Mode], Json]
REF = "#/components/schemas/{model}"
SECURITY: dict[str, list[Json]] = {"open": [], "token": [{"token": []}], "loopback": [{}, {"token": []}]}
ABOUT = (
    "Takes a disaster warning from those entitled to issue it, and makes sure every affected village is reached. "
    "Errors are RFC 9457 problems that say what to do. Lists are paged: hand `next` back as `after`."
)
PATH: dict[str, Json] = {
    "id": {"type": "string", "pattern": "^[0-9a-f]{20}$"},
    "kind": {"type": "string", "enum": sorted(RULES)},
}


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
        "security": SECURITY[endpoint.access],
        "parameters": _parameters(endpoint, schemas, refs),
        "responses": _responses(endpoint, refs),
    }
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(endpoint, endpoint.body, refs)}
    return operation


def _who(endpoint: Endpoint) -> str:
    if endpoint.access == "token":
        return f"Roles: {', '.join(sorted(endpoint.roles))}."
    return "Open to everyone." if endpoint.access == "open" else "Open to this machine; else any role."


def _parameters(endpoint: Endpoint, schemas: Json, refs: Refs) -> list[Json]:
    found: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": PATH[name]}
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ]
    if endpoint.query is not None:
        schema = schemas[refs[endpoint.query, "validation"]["$ref"].rsplit("/", 1)[1]]
        found += [
            {"name": name, "in": "query", "required": False, "schema": shape}
            for name, shape in schema["properties"].items()
        ]
    return found


def _content(endpoint: Endpoint, body: type[BaseModel], refs: Refs) -> Json:
    form: Json = {"schema": refs[body, "validation"]}
    if not endpoint.takes_alert:
        return {JSON: form}
    xml = {"schema": {"type": "string", "description": "CAP 1.2 XML, UTF-8"}}
    return {media: form | {"example": EXAMPLE} if media == JSON else xml for media in ALERT_MEDIA}


def _responses(endpoint: Endpoint, refs: Refs) -> Json:
    found: Json = {}
    for status, shape in endpoint.answers.items():
        if isinstance(shape, str):
            content: Json = {shape.split(";")[0]: {"schema": {"type": "object" if shape == JSON else "string"}}}
        else:
            content = {JSON: {"schema": refs[shape, "serialization"]}}
        found[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    problem = {MEDIA: {"schema": refs[Problem, "serialization"]}}
    for status in endpoint.documented_problems:
        found[str(status)] = {"description": HTTPStatus(status).phrase, "content": problem}
        if status in HEADERS:
            headers = {name: {"schema": {"type": "string"}} for name in HEADERS[status]}
            found[str(status)]["headers"] = headers
    found["500"] = {"description": "A fault of ours, logged; nothing of it is told", "content": problem}
    return found
