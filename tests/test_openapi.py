"""The description of the API and the API are one thing: same routes, same statuses, and the example works."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
import schemathesis
from aiohttp import web
from api_support import ADMIN, CLERK, ISSUER, PHONES, SIGNER, VIEWER, Desk, install, opened  # fmt: skip
from manual_clock import ManualClock
from pydantic import BaseModel

from gateway import cap
from gateway.api import ENDPOINTS, Endpoint, make_app, repeat
from gateway.api.example import EXAMPLES
from gateway.api.openapi import document
from gateway.api.shape import EXAMPLE
from gateway.database import Database
from gateway.model import Document, Level, Reply, Status
from gateway.state import LocalState
from gateway.store.answer import Answers, Taken

DOCUMENT: dict[str, Any] = json.loads(document(ENDPOINTS))
DESCRIBED = schemathesis.openapi.from_dict(DOCUMENT)
BY_OPERATION = {endpoint.operation: endpoint for endpoint in ENDPOINTS}
EXPIRED = EXAMPLE | {"expires": "2026-07-20T13:59:00+08:00", "identifier": "expired"}
NOBODY = "0" * 20
NUMBER = "41172641600000_20260720140000"
PARTNER, COMMAND_SIGNER = "demo-411726-slj-issuer", "demo-411726-fzb-signer"
CALL = {
    "name": "王某",
    "post": "带班领导",
    "number": "0396-0000000",
    "at": "2026-07-20T13:58:00+08:00",
    "witness": "李某",
}
UNPROVEN = CALL | {"witness": ""}
CONSULTATION = {"at": "2026-07-20T13:40:00+08:00", "participants": ["张某"], "conclusion": "联合发布"}
EMERGENCY = {"area": "411726", "reason": "特大暴雨"}
DRILL = {"areas": ["411726209"], "starts_at": "2026-07-25T10:00:00+08:00", "lasts_min": 30}
JOINT = {"document": "joint_risk", "event_code": "11A51", "event": "山洪灾害", "level": "orange"}


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of the document."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def test_every_reference_resolves() -> None:
    """A client generated from the document must not stumble over a hole."""
    references = [node["$ref"] for node in walk(DOCUMENT) if isinstance(node.get("$ref"), str)]
    schemas = DOCUMENT["components"]["schemas"]
    assert references
    assert {one for one in references if one.removeprefix("#/components/schemas/") not in schemas} == set()
    assert [name for name in schemas if not re.fullmatch(r"[A-Za-z0-9]+", name)] == []


async def test_the_router_and_the_document_name_the_same_routes(desk: Desk) -> None:
    """No route is secret, and none is only promised."""
    app = make_app(desk.core)
    served = {
        (route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None
    }  # fmt: skip
    described = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert served == described
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_each_operation_is_described_once_and_whole() -> None:
    """Parameters of the path, a summary, who may, and what can go wrong stand with every operation."""
    operations = [
        (path, operation) for path, item in DOCUMENT["paths"].items() for operation in item.values()
    ]  # fmt: skip
    names = [operation["operationId"] for _, operation in operations]
    assert len(names) == len(set(names)) == len(ENDPOINTS)
    for path, operation in operations:
        inside = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert inside == set(re.findall(r"{(\w+)}", path))
        assert operation["summary"]
        assert operation["responses"]["500"]["content"].keys() == {"application/problem+json"}
        if "token" in str(operation["security"]):
            assert "WWW-Authenticate" in operation["responses"]["401"]["headers"]


async def test_the_documented_example_is_accepted_as_it_stands(desk: Desk) -> None:
    """Who copies the example from the documentation gets a warning out at the first attempt."""
    content = DOCUMENT["paths"]["/v1/alerts"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/cap+xml", "application/xml", "application/json"}
    response, answer = await desk.call("POST", "/v1/alerts", ISSUER, content["application/json"]["example"])
    assert response.status == 202
    assert answer["result"] == "accepted"
    xml = content["application/cap+xml"]["example"].encode()
    _, seen = await desk.call("POST", "/v1/alerts/preview", ISSUER, xml, "application/cap+xml")
    assert seen["alert"] == answer["id"]


@pytest.mark.parametrize("model", EXAMPLES, ids=lambda model: model.__name__)
def test_an_example_is_what_its_model_says(model: type[BaseModel]) -> None:
    """Integrators copy examples; one with a field that does not exist costs them an afternoon."""
    model.model_validate(EXAMPLES[model])
    assert set(EXAMPLES[model]) <= set(model.model_fields)


def test_every_request_and_answer_has_an_example() -> None:
    """What a field looks like is quicker seen than read."""
    models = {endpoint.body for endpoint in ENDPOINTS if endpoint.body}
    models |= {one for endpoint in ENDPOINTS for one in endpoint.answers.values() if not isinstance(one, str)}
    assert {model.__name__ for model in models - EXAMPLES.keys()} == set()


def test_the_filters_of_the_list_know_every_value_there_is() -> None:
    """A kind of document that cannot be filtered for is one that is overlooked."""
    asked = {one["name"]: one["schema"] for one in DOCUMENT["paths"]["/v1/alerts"]["get"]["parameters"]}
    for name, enum in (("status", Status), ("document", Document)):
        assert set(asked[name]["items"]["enum"]) == {one.value for one in enum}
    assert set(asked["level"]["items"]["enum"]) == {level.name.lower() for level in Level}


def test_every_operation_stands_in_a_chapter() -> None:
    """A generated client groups by it; a chapter of its own per route is no chapter."""
    chapters = {one["name"] for one in DOCUMENT["tags"]}
    used = [operation["tags"] for item in DOCUMENT["paths"].values() for operation in item.values()]
    assert {tag for tags in used for tag in tags} == chapters
    assert {len(tags) for tags in used} == {1}


# --- every documented status ----------------------------------------------------------------------


class Ask(NamedTuple):
    """A request that works: token, body, whether its alert is held, or what else it needs."""

    token: str = VIEWER
    body: Any = None
    held: bool = False
    needs: str = ""


def good(operation: str, desk: Desk) -> Ask:
    """Return a request of this operation that is answered well."""
    return {
        "submitAlert": Ask(ISSUER, EXAMPLE | {"identifier": "fresh"}),
        "previewAlert": Ask(ISSUER, EXAMPLE),
        "approveAlert": Ask(SIGNER, held=True),
        "rejectAlert": Ask(SIGNER, {"reason": "wrong area"}, held=True),
        "recallAlert": Ask(ISSUER, {"reason": "a test run"}),
        "cancelAlert": Ask(ISSUER, {"note": "rain has passed"}),
        "correctAlert": Ask(ISSUER, {"note": "sent by mistake"}),
        "confirmAlert": Ask(CLERK, {"person": str(desk.people[0]), "how": "phone"}),
        "saveDraft": Ask(ISSUER, EXAMPLE | {"identifier": "fresh"}),
        "amendDraft": Ask(ISSUER, EXAMPLE, needs="draft"),
        "submitDraft": Ask(ISSUER, needs="draft"),
        "returnAlert": Ask(SIGNER, {"reason": "wrong area"}, held=True),
        "withdrawAlert": Ask(ISSUER, {"reason": "wrong area"}, held=True),
        "releaseAlert": Ask(ISSUER, needs="repetition"),
        "authoriseAlert": Ask(CLERK, CALL, held=True),
        "joinAlert": Ask(PARTNER, {}, needs="joint"),
        "publishAlone": Ask(SIGNER, needs="joint"),
        "addAreaApproval": Ask(SIGNER, {"number": "2026-1"}, needs="numbered"),
        "noteConsultation": Ask(ISSUER, CONSULTATION),
        "listMinutes": Ask(SIGNER),
        "answerObligation": Ask(SIGNER, {"answer": "endorsed"}),
        "listReplies": Ask(CLERK),
        "settleReply": Ask(CLERK, {"meaning": "heard", "people": [str(desk.people[0])]}, needs="reply"),
        "listIncidents": Ask(CLERK),
        "startEmergency": Ask(COMMAND_SIGNER, EMERGENCY),
        "renewEmergency": Ask(COMMAND_SIGNER, {}, needs="regime"),
        "endEmergency": Ask(COMMAND_SIGNER, needs="regime"),
        "breakGlass": Ask("", EXAMPLE, needs="code"),
        "listSealedCodes": Ask(ADMIN),
        "sealCode": Ask(ADMIN, {"issuer": "411726-qxj", "label": "duty room"}),
        "halt": Ask(ADMIN, {"scope": "411726", "on": True}),
        "matchNationalNumber": Ask(CLERK, {"number": NUMBER}),
        "reconcileNational": Ask(CLERK, {"day": "2026-07-20", "alerts": []}),
        "orderVolume": Ask(CLERK, {"speakers": ["dl-1"], "volume": 70}, needs="speaker"),
        "orderSelfTest": Ask(CLERK, {"speakers": ["dl-1"]}, needs="speaker"),
        "orderClock": Ask(CLERK, {"speakers": ["dl-1"]}, needs="speaker"),
        "orderConfig": Ask(ADMIN, {"speakers": ["dl-1"], "values": {"led": False}}, needs="speaker"),
        "planDrill": Ask(ISSUER, DRILL),
        "approveDrill": Ask(SIGNER, needs="drill"),
        "cancelDrill": Ask(ISSUER, {"reason": "the river rises"}, needs="drill"),
        "getDrill": Ask(needs="drill"),
        "getDrillReport": Ask(needs="drill"),
        "getHistory": Ask(CLERK, {"person": str(desk.people[0])}),
        "optOut": Ask(CLERK, {"phone": PHONES[1]}),
        "erasePerson": Ask(ADMIN, {"phone": PHONES[1]}),
        "listAudit": Ask(ADMIN),
        "verifyAudit": Ask(ADMIN),
        "getAuditCheckpoint": Ask(ADMIN),
        "health": Ask(""),
        "metrics": Ask(""),
        "openapi": Ask(""),
    }.get(operation, Ask())


async def send(desk: Desk, endpoint: Endpoint, alert: str = NOBODY, **changes: Any) -> int:
    """Send the good request of an endpoint with changes; hold the answer against the document; return the status."""
    ask = good(endpoint.operation, desk)
    request = {"token": ask.token, "body": ask.body} | changes
    path = endpoint.path.replace("{id}", alert).replace("{kind}", "review") + request.pop("query", "")
    if ask.needs == "code" and "Break-Glass" not in request:
        request["Break-Glass"] = await sealed(desk)
    response, content = await desk.call(endpoint.method, path, **request)
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    fields = {name: response.headers.getall(name) for name in response.headers}
    asked = requests.Request(endpoint.method, str(response.url)).prepare()
    answered = schemathesis.Response(response.status, fields, data, asked, 0.0, verify=False)
    DESCRIBED[endpoint.path][endpoint.method].validate_response(answered)
    return response.status


async def sealed(desk: Desk) -> str:
    """A sealed code that nobody has used."""
    if desk.database.away:
        return "any"
    body = {"issuer": "411726-qxj", "label": "duty room"}
    _, content = await desk.call("POST", "/v1/break-glass/codes", ADMIN, body)
    return str(content["code"])


async def draft(desk: Desk) -> str:
    _, content = await desk.call("POST", "/v1/alerts/draft", ISSUER, EXAMPLE)
    return str(content["id"])


async def repetition(desk: Desk) -> str:
    await desk.issue()
    desk.clock.advance(60)
    return str((await desk.issue(identifier="again"))["id"])


async def joint(desk: Desk) -> str:
    alert = str((await desk.issue(**JOINT))["id"])
    desk.clock.advance(10 * 60)
    return alert


async def numbered(desk: Desk) -> str:
    return str((await desk.issue(parameters={"area_approval": ["2026-1"]}))["id"])


async def regime(desk: Desk) -> str:
    _, content = await desk.call("POST", "/v1/emergency", COMMAND_SIGNER, EMERGENCY)
    return str(content["id"])


async def reply(desk: Desk) -> str:
    await desk.delivered((await desk.issue())["id"])
    text = Reply("sms_twilio", "sms_twilio", "r1", PHONES[0], "12", desk.clock.now())
    await desk.core.receipts.commit("sms_twilio", [text])
    return (await desk.core.store.replies.waiting(1))[0].id


async def drill(desk: Desk) -> str:
    _, content = await desk.call("POST", "/v1/drills", ISSUER, DRILL)
    return str(content["id"])


async def ready(desk: Desk, endpoint: Endpoint) -> str:
    """Return an alert (or regime, or drill) on which the good request works."""
    if good(endpoint.operation, desk).needs == "speaker":
        await install(desk, "dl-1")
    if "{id}" not in endpoint.path:
        return NOBODY
    makers = {
        "draft": draft, "repetition": repetition, "joint": joint, "numbered": numbered, "regime": regime,
        "reply": reply, "drill": drill,
    }  # fmt: skip
    if make := makers.get(good(endpoint.operation, desk).needs):
        return await make(desk)
    return await desk.held() if good(endpoint.operation, desk).held else str((await desk.issue())["id"])


async def repeated(desk: Desk, endpoint: Endpoint) -> int:
    alert = await ready(desk, endpoint)
    await send(desk, endpoint, alert)
    return await send(desk, endpoint, alert)


async def other_note(desk: Desk, endpoint: Endpoint) -> int:
    alert = await ready(desk, endpoint)
    await send(desk, endpoint, alert)
    return await send(desk, endpoint, alert, body={"note": "for another reason"})


async def other_content(desk: Desk, endpoint: Endpoint) -> int:
    await send(desk, endpoint)
    return await send(desk, endpoint, body=EXAMPLE | {"identifier": "fresh", "headline": "另一份"})


async def expired(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, body=EXPIRED)


async def expired_meanwhile(desk: Desk, endpoint: Endpoint) -> int:
    alert = await desk.held()
    desk.clock.advance(4 * 3600)
    return await send(desk, endpoint, alert)


async def nothing_waits(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, (await desk.issue())["id"])


async def not_issued(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, await desk.held())


async def a_resident(desk: Desk, endpoint: Endpoint) -> int:
    alert = await ready(desk, endpoint)
    return await send(desk, endpoint, alert, body={"person": str(desk.people[1]), "how": "visit"})


async def a_resident_s_reply(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, await reply(desk), body={"meaning": "heard", "people": [str(desk.people[1])]})


async def draft_over(desk: Desk, endpoint: Endpoint) -> int:
    alert = await draft(desk)
    desk.clock.advance(4 * 3600)
    return await send(desk, endpoint, alert)


async def draft_expired(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, await draft(desk), body=EXPIRED)


async def unproven(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, await desk.held(), body=UNPROVEN)


async def unproven_join(desk: Desk, endpoint: Endpoint) -> int:
    alert = str((await desk.issue(**JOINT))["id"])
    return await send(desk, endpoint, alert, token=CLERK, body={"partner": "411726-slj", "call": UNPROVEN})


async def unproven_renewal(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, await regime(desk), body={"call": UNPROVEN})


async def too_early(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, str((await desk.issue(**JOINT))["id"]))


async def numbered_too_late(desk: Desk, endpoint: Endpoint) -> int:
    alert = await numbered(desk)
    desk.clock.advance(4 * 3600)
    return await send(desk, endpoint, alert)


async def wrong_answer(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, await ready(desk, endpoint), body={"answer": "perhaps"})


async def no_such_place(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, "", query="?area=411726999")


async def no_such_area(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, body=EMERGENCY | {"area": "411799"})


async def no_such_issuer(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, body={"issuer": "nobody", "label": "one"})


async def ended(desk: Desk, endpoint: Endpoint) -> int:
    one = await regime(desk)
    await desk.call("POST", f"/v1/emergency/{one}/end", COMMAND_SIGNER)
    return await send(desk, endpoint, one)


async def other_content_sealed(desk: Desk, endpoint: Endpoint) -> int:
    await send(desk, endpoint)
    return await send(desk, endpoint, body=EXAMPLE | {"headline": "另一份"})


async def no_such_code(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, **{"Break-Glass": "AAAA-BBBB"})


async def no_such_scope(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, body={"scope": "everything", "on": True})


async def no_number(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, await ready(desk, endpoint), body={"number": "1"})


async def nobodys_phone(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, body={"phone": "10099999999"})


async def an_officials_phone(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, body={"phone": PHONES[0]})


async def without_code(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, (await desk.issue(event_code=""))["id"])


async def guessed(desk: Desk, endpoint: Endpoint) -> int:
    desk.core.state = Spent()
    return await send(desk, endpoint, **{"Break-Glass": "AAAA-BBBB"})


async def nobody(desk: Desk, endpoint: Endpoint) -> int:
    return await send(desk, endpoint, body={"person": "1"})


SPECIAL: dict[tuple[str, int], Callable[[Desk, Endpoint], Awaitable[int]]] = {
    ("submitAlert", 200): repeated,
    ("submitAlert", 409): other_content,
    ("submitAlert", 422): expired,
    ("previewAlert", 422): expired,
    ("approveAlert", 409): nothing_waits,
    ("approveAlert", 422): expired_meanwhile,
    ("rejectAlert", 409): nothing_waits,
    ("cancelAlert", 200): repeated,
    ("cancelAlert", 409): other_note,
    ("correctAlert", 200): repeated,
    ("correctAlert", 409): other_note,
    ("confirmAlert", 409): not_issued,
    ("confirmAlert", 422): a_resident,
    ("matchNationalNumber", 409): not_issued,
    ("matchNationalNumber", 422): no_number,
    ("getAlertNational", 422): without_code,
    ("getHistory", 404): nobody,
    ("halt", 422): no_such_scope,
    ("optOut", 404): nobodys_phone,
    ("optOut", 409): an_officials_phone,
    ("erasePerson", 404): nobodys_phone,
    ("erasePerson", 409): an_officials_phone,
    ("saveDraft", 409): other_content,
    ("saveDraft", 422): expired,
    ("amendDraft", 409): nothing_waits,
    ("amendDraft", 422): draft_expired,
    ("submitDraft", 409): nothing_waits,
    ("submitDraft", 422): draft_over,
    ("returnAlert", 409): nothing_waits,
    ("withdrawAlert", 409): nothing_waits,
    ("releaseAlert", 409): nothing_waits,
    ("authoriseAlert", 409): nothing_waits,
    ("authoriseAlert", 422): unproven,
    ("joinAlert", 409): repeated,
    ("joinAlert", 422): unproven_join,
    ("publishAlone", 409): too_early,
    ("addAreaApproval", 409): nothing_waits,
    ("addAreaApproval", 422): numbered_too_late,
    ("answerObligation", 409): repeated,
    ("answerObligation", 422): wrong_answer,
    ("settleReply", 409): repeated,
    ("settleReply", 422): a_resident_s_reply,
    ("listSpeakers", 422): no_such_place,
    ("listMuteVillages", 422): no_such_place,
    ("listOrders", 422): no_such_place,
    ("startEmergency", 409): repeated,
    ("startEmergency", 422): no_such_area,
    ("renewEmergency", 409): ended,
    ("renewEmergency", 422): unproven_renewal,
    ("endEmergency", 409): ended,
    ("breakGlass", 200): repeated,
    ("breakGlass", 403): no_such_code,
    ("breakGlass", 409): other_content_sealed,
    ("breakGlass", 422): expired,
    ("breakGlass", 429): guessed,
    ("sealCode", 422): no_such_issuer,
}


async def produce(desk: Desk, endpoint: Endpoint, status: int) -> int:
    """Bring the status about, or whatever comes instead."""
    if special := SPECIAL.get((endpoint.operation, status)):
        return await special(desk, endpoint)
    if endpoint.keyed and status in (409, 422):
        desk.core.store.answers = Occupied(desk.database, Taken.IN_FLIGHT if status == 409 else Taken.REUSED)
    alert = NOBODY if status == 404 else await ready(desk, endpoint)
    if status == 429:
        desk.core.state = Spent()
    desk.database.away = status == 503
    too_much = cap.MAX_BYTES if endpoint.takes_alert else endpoint.form_bytes
    changes: dict[int, dict[str, Any]] = {
        304: {"If-None-Match": "*"},
        400: {"query": "?nonsense=0"} if endpoint.query else {"body": {"nonsense": True}, repeat.HEADER: ""},
        401: {"token": "", "X-Forwarded-For": "192.0.2.1"},
        403: {"token": VIEWER},
        409: {repeat.HEADER: "taken"},
        412: {"If-Match": '"another"'},
        422: {repeat.HEADER: "taken"},
        413: {"body": b" " * (too_much + 1)},
        415: {"media": "text/plain"},
        429: {"token": "guessed", "X-Forwarded-For": "192.0.2.1"},
    }
    return await send(desk, endpoint, alert, **changes.get(status, {}))


class Occupied(Answers):
    """Every key is taken."""

    def __init__(self, database: Database, why: Taken) -> None:
        super().__init__(database, ManualClock())
        self._why = why

    async def begin(self, key: str, digest: str) -> Taken:
        return self._why


class Spent(LocalState):
    """Every bucket is empty."""

    async def take(self, bucket: str, units: int, rate_per_s: float, burst: int, reserve: int) -> float:
        return 5.0


PROMISED = [
    (operation["operationId"], int(status))
    for item in DOCUMENT["paths"].values()
    for operation in item.values()
    for status in operation["responses"]
    if status != "500"
]


@pytest.mark.parametrize(("operation", "status"), PROMISED)
async def test_every_documented_status_can_be_produced(desk: Desk, operation: str, status: int) -> None:
    """Integrators write code for what is documented; a status that never comes is a lie."""
    assert await produce(desk, BY_OPERATION[operation], status) == status


async def test_the_document_is_served_to_everyone(desk: Desk) -> None:
    """The description is found without a token, before anyone has one."""
    response, answer = await desk.call("GET", "/openapi.json")
    assert response.status == web.HTTPOk.status_code
    assert answer == DOCUMENT
