"""What every request can rely on: repeated it does nothing twice, a list is whole, no limit ever stops a red warning.

Everything runs over loopback HTTP on the real policy, places and SQLite store.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from api_support import (
    ADMIN,
    CITY,
    CLERK,
    COMMAND,
    ISSUER,
    JIALOU,
    NAMES,
    NEIGHBOUR,
    PHONES,
    SIGNER,
    TONGSHAN,
    VIEWER,
    Desk,
    opened,
)
from manual_clock import ManualClock
from signing import certificate, der, key
from structlog.testing import capture_logs
from yarl import URL

from gateway import metrics
from gateway.api import limit
from gateway.api.shape import EXAMPLE
from gateway.database import Database
from gateway.errors import StateDown, StoreDown
from gateway.ports import Accepted, Draft
from gateway.signer import FileSigner, Keys
from gateway.state import LocalState
from gateway.store.answer import KEPT, Answers, Kept, Turn
from gateway.store.listing import Listing
from gateway.store.outbox import SqlOutbox

KEY = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


def kind(problem: Any) -> str:
    """The code at the end of a problem's type."""
    return str(problem["type"]).rsplit("/", 1)[1]


class Pausing(SqlOutbox):
    """Stops whoever stores a message, until told to go on."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        super().__init__(database, clock)
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def accept(self, draft: Draft) -> Accepted:
        self.reached.set()
        await self.go.wait()
        return await super().accept(draft)


class Gone(SqlOutbox):
    """Goes away behind the key."""

    async def accept(self, draft: Draft) -> Accepted:
        raise StoreDown("the database cannot be reached")


class Dying(Answers):
    """The process dies before it has kept the answer."""

    async def keep(self, turn: Turn, answer: Kept) -> None:
        raise StoreDown("no commit in time")


# --- Idempotency-Key ------------------------------------------------------------------------------


async def test_a_repeated_request_gets_the_first_answer_and_does_nothing(desk: Desk) -> None:
    """An all-clear whose answer was lost is asked for again; without the key a second one would wait for approval."""
    alert = (await desk.issue())["id"]
    desk.clock.advance(1)
    path, body = f"/v1/alerts/{alert}/cancel", {"note": "雨已停"}
    first, told = await desk.call("POST", path, ISSUER, body, **{KEY: '"clear-1"'})
    desk.clock.advance(60)
    second, again = await desk.call("POST", path, ISSUER, body, **{KEY: "clear-1"})
    assert (first.status, first.headers.get(REPLAYED)) == (202, None)
    assert (second.status, second.headers[REPLAYED], again) == (202, "true", told)
    _, listed = await desk.call("GET", "/v1/alerts?standing=held", VIEWER)
    assert [one["id"] for one in listed["alerts"]] == [told["id"]]


async def test_one_key_stands_for_one_request(desk: Desk) -> None:
    """A client that reuses a key by mistake must hear of it, not be told that its new warning is out."""
    await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE, **{KEY: "k"})
    response, problem = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE | {"identifier": "b"}, **{KEY: "k"})
    assert (response.status, kind(problem)) == (422, "idempotency_key_reused")
    response, problem = await desk.call("POST", "/v1/halt", ISSUER, {"scope": "411726", "on": True}, **{KEY: "k"})
    assert kind(problem) == "idempotency_key_reused"


async def test_a_key_belongs_to_the_person_who_sent_it(desk: Desk) -> None:
    """Two systems that count 1, 2, 3 must not read each other's answers."""
    halt = {"scope": "411726", "on": True}
    for token in (ISSUER, ADMIN):
        response, _ = await desk.call("POST", "/v1/halt", token, halt, **{KEY: "1"})
        assert (response.status, REPLAYED in response.headers) == (200, False)


async def test_a_refusal_is_not_kept(desk: Desk) -> None:
    """It has done nothing. Once its cause is mended the same request must go through, not be refused for a day."""
    alert = await desk.held()
    response, _ = await desk.call("POST", f"/v1/alerts/{alert}/approve", ISSUER, **{KEY: "a"})
    assert response.status == 403
    body = EXAMPLE | {"identifier": "later", "sent": "2026-07-20T14:30:00+08:00"}
    for expected in (422, 202):
        response, _ = await desk.call("POST", "/v1/alerts", ISSUER, body, **{KEY: "b"})
        assert (response.status, REPLAYED in response.headers) == (expected, False)
        desk.clock.advance(25 * 60)


async def test_while_the_first_is_answered_the_second_is_told_to_wait(desk: Desk) -> None:
    """Two at once would be two all-clears."""
    alert = (await desk.issue())["id"]
    outbox = desk.core.store.outbox = Pausing(desk.database, desk.clock)
    path, body = f"/v1/alerts/{alert}/correct", {"note": "误发"}
    first = asyncio.create_task(desk.call("POST", path, ISSUER, body, **{KEY: "c"}))
    await outbox.reached.wait()
    response, problem = await desk.call("POST", path, ISSUER, body, **{KEY: "c"})
    assert (response.status, kind(problem)) == (409, "idempotency_in_flight")
    assert response.headers["Retry-After"] == "1"
    outbox.go.set()
    assert (await first)[0].status == 202


async def test_a_crash_between_acceptance_and_its_answer_is_harmless(desk: Desk) -> None:
    """The village is warned once, and the sender learns that it was."""
    answers = desk.core.store.answers

    desk.core.store.answers = Dying(desk.database, desk.clock)
    with capture_logs() as logs:
        response, first = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE, **{KEY: "x"})
    assert response.status == 202
    assert [one["event"] for one in logs if one["log_level"] == "warning"] == ["idempotency_not_kept"]
    desk.core.store.answers = answers  # the next process; the file has only ever one
    for replayed in (None, "true"):
        response, again = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE, **{KEY: "x"})
        assert (response.status, response.headers.get(REPLAYED)) == (200, replayed)
        assert (again["result"], again["id"]) == ("duplicate", first["id"])


async def test_a_store_that_comes_back_takes_the_same_key_at_once(desk: Desk) -> None:
    """The sender repeats after the 503 as it was told to; it must not meet its own shadow."""
    outbox = desk.core.store.outbox
    desk.core.store.outbox = Gone(desk.database, desk.clock)
    response, _ = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE, **{KEY: "s"})
    assert response.status == 503
    desk.core.store.outbox = outbox
    response, _ = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE, **{KEY: "s"})
    assert response.status == 202


@pytest.mark.parametrize("key", ["", " ", '""', "ü", "x" * 256, '"a', "a b", "\t"])
async def test_what_is_no_key_is_refused(desk: Desk, key: str) -> None:
    """A key that is read differently by two versions protects nothing."""
    sent = {KEY: key}
    response, problem = await desk.call("POST", "/v1/halt", ADMIN, {"scope": "all", "on": True}, **sent)
    assert (response.status, kind(problem)) == (400, "invalid_idempotency_key")
    assert await desk.core.store.outbox.halts() == []


async def test_a_preview_stores_no_answer(desk: Desk) -> None:
    """It has to say what would happen now."""
    for _ in range(2):
        response, _ = await desk.call("POST", "/v1/alerts/preview", ISSUER, EXAMPLE, **{KEY: "p"})
        assert (response.status, REPLAYED in response.headers) == (200, False)


async def test_what_is_kept_holds_no_person_and_goes_after_a_day(desk: Desk, tmp_path: Path) -> None:
    """Erasure never has to look here, and the table never grows beyond a day."""
    alert = (await desk.issue())["id"]
    await desk.delivered(alert)
    person = str(desk.people[0])
    body = {"person": person, "how": "phone", "note": "到岗"}
    await desk.call("POST", f"/v1/alerts/{alert}/confirmations", CLERK, body, **{KEY: f"call-{person}"})

    def rows() -> list[Any]:
        with sqlite3.connect(tmp_path / "mingluo.db") as connection:
            return connection.execute("SELECT * FROM idempotency").fetchall()

    assert len(rows()) == 1
    assert [secret for secret in (person, *NAMES, "泌阳值班员", "到岗") if secret in str(rows())] == []
    desk.clock.advance(KEPT.total_seconds() + 1)
    response, _ = await desk.call("POST", "/v1/halt", ADMIN, {"scope": "all", "on": True}, **{KEY: "new"})
    assert response.status == 200
    assert len(rows()) == 1


async def test_of_a_number_in_a_body_no_digest_is_kept_that_could_be_tried_out(desk: Desk, tmp_path: Path) -> None:
    """A number has eleven digits: the digest of a body that holds one would name who was erased, within minutes."""
    for given in ("4f1c", "9b07"):
        body = {"phone": PHONES[1], "on": False}
        response, _ = await desk.call("POST", "/v1/people/opt-out", CLERK, body, **{KEY: given})
        assert response.status == 200
    with sqlite3.connect(tmp_path / "mingluo.db") as connection:
        digests = [one for (one,) in connection.execute("SELECT digest FROM idempotency")]
    assert len(set(digests)) == len(digests) == 2


# --- ETag -----------------------------------------------------------------------------------------


async def test_what_has_not_changed_is_not_sent_again(desk: Desk) -> None:
    """Forty screens that poll a status on a bad night must not take the line from the warnings."""
    alert = (await desk.issue())["id"]
    for path in (f"/v1/alerts/{alert}", f"/v1/alerts/{alert}/cap", f"/v1/alerts/{alert}/status", "/openapi.json"):
        response, _ = await desk.call("GET", path, VIEWER)
        tag = response.headers["ETag"]
        assert tag.startswith('"')
        for wanted in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            response, content = await desk.call("GET", path, VIEWER, **{"If-None-Match": wanted})
            assert (response.status, response.headers["ETag"], content) == (304, tag, b"")
    await desk.delivered(alert)
    response, _ = await desk.call("GET", f"/v1/alerts/{alert}/status", VIEWER, **{"If-None-Match": tag})
    assert response.status == 200


async def test_a_signed_message_stays_the_same_bytes(desk: Desk) -> None:
    """A signature made anew with other random numbers would send every reader the whole message every time."""
    own = key("publisher")
    desk.core.keys = Keys([FileSigner(own, (der(certificate("publisher", own)),))])
    path = f"/v1/alerts/{(await desk.issue())['id']}/cap"
    response, first = await desk.call("GET", path, VIEWER)
    assert b"SignatureValue" in first
    desk.clock.advance(60)
    again, content = await desk.call("GET", path, VIEWER, **{"If-None-Match": response.headers["ETag"]})
    assert (again.status, content) == (304, b"")


async def test_a_decision_on_what_has_changed_meanwhile_is_refused(desk: Desk) -> None:
    """The officer decides on what is on the screen; a colleague may have decided since."""
    alert = await desk.held()
    path = f"/v1/alerts/{alert}"
    seen = (await desk.call("GET", path, SIGNER))[0].headers["ETag"]
    reason = {"reason": "区域有误"}
    for stale in ('"another"', f"W/{seen}"):
        response, problem = await desk.call("POST", f"{path}/approve", SIGNER, **{"If-Match": stale})
        assert (response.status, kind(problem)) == (412, "changed_meanwhile")
    response, _ = await desk.call("POST", f"{path}/approve", SIGNER, **{"If-Match": f'"another", {seen}'})
    assert response.status == 200
    for action, body in (("recall", reason), ("reject", reason), ("cancel", {}), ("correct", {})):
        response, problem = await desk.call("POST", f"{path}/{action}", SIGNER, body, **{"If-Match": seen})
        assert (response.status, kind(problem)) == (412, "changed_meanwhile"), action
    response, _ = await desk.call("POST", f"{path}/recall", SIGNER, reason, **{"If-Match": "*"})
    assert response.status == 200


# --- limits ---------------------------------------------------------------------------------------


class Still(LocalState):
    """Buckets that are never refilled."""

    def __init__(self) -> None:
        super().__init__(now=lambda: 0.0)


async def spend(desk: Desk, token: str = ISSUER) -> None:
    """Use up a token's writes, with yellow warnings of which one is refused in the end."""
    desk.core.state = Still()
    response, number = None, 0
    while response is None or response.status != 429:
        number += 1
        body = EXAMPLE | {"level": "yellow", "identifier": f"y{number}"}
        response, problem = await desk.call("POST", "/v1/alerts/preview", token, body)
    assert kind(problem) == "rate_limited"
    quota = desk.core.settings.writes_per_minute
    assert number == quota // limit.BURST + 1
    wait = response.headers["Retry-After"]
    assert response.headers["RateLimit-Policy"] == f'"writes";q={quota};w=60'
    assert response.headers["RateLimit"] == f'"writes";r=0;t={wait}'
    assert int(wait) >= 1


def alarmed() -> float:
    """How often the alarm about red beyond the limit was raised."""
    return float(metrics.REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": "limit_red"}) or 0)


async def test_beyond_the_limit_everything_waits_but_what_lives_hang_on(desk: Desk) -> None:
    """A loop in some client may cost its owner a minute; it must never cost a village its warning."""
    far = [{"description": "赊湾镇", "geocodes": {"township": ["411726101"]}}]
    drill = await desk.held(identifier="drill", areas=far)
    await spend(desk)
    before = alarmed()
    yellow = EXAMPLE | {"level": "yellow", "identifier": "later"}
    for body in (yellow, EXAMPLE | {"status": "Exercise", "identifier": "drill-2"}):
        response, problem = await desk.call("POST", "/v1/alerts", ISSUER, body)
        assert (response.status, kind(problem)) == (429, "rate_limited")
    response, _ = await desk.call("POST", f"/v1/alerts/{drill}/recall", ISSUER, {"reason": "误发"})
    assert response.status == 429
    assert alarmed() == before
    with capture_logs() as logs:
        alert = (await desk.issue())["id"]
    assert [(one["event"], one["issuer"]) for one in logs if one["event"] == "limit_red"] == [
        ("limit_red", "411726-qxj")
    ]
    assert alarmed() == before + 1
    downgraded = yellow | {
        "kind": "Update", "identifier": "down",
        "references": [{key: EXAMPLE[key] for key in ("sender", "identifier", "sent")}],
    }  # fmt: skip
    response, _ = await desk.call("POST", "/v1/alerts", ISSUER, downgraded)
    assert response.status == 202
    response, _ = await desk.call("POST", f"/v1/alerts/{alert}/recall", ISSUER, {"reason": "误发"})
    assert response.status == 200
    response, _ = await desk.call("POST", "/v1/halt", ISSUER, {"scope": "411726", "on": True})
    assert response.status == 200
    assert alarmed() == before + 3


async def test_beyond_the_limit_an_evacuation_goes_out(desk: Desk) -> None:
    """It has no colour, and it is the last message before the water."""
    await spend(desk, COMMAND)
    sender = "411726-fzb@mingluo.example"
    body = EXAMPLE | {"sender": sender, "document": "evacuation", "level": "unknown", "identifier": "out"}
    response, answer = await desk.call("POST", "/v1/alerts", COMMAND, body)
    assert response.status in (202, 403), answer  # whatever the policy says of it, never 429


async def test_beyond_the_limit_a_message_with_mistakes_is_told_them(desk: Desk) -> None:
    """It may have been a red one: "too many" would hide for a minute what keeps it from going out."""
    await spend(desk)
    response, problem = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE | {"expires": "tomorrow"})
    assert (response.status, kind(problem)) == (400, "invalid_alert")


async def test_reads_and_writes_and_persons_are_counted_apart(desk: Desk) -> None:
    """A screen that polls too fast must not keep its owner from deciding, nor others from looking."""
    await spend(desk)
    assert (await desk.call("GET", "/v1/alerts", ISSUER))[0].status == 200
    assert (await desk.call("POST", "/v1/alerts/preview", SIGNER, EXAMPLE))[0].status == 200
    for _ in range(desk.core.settings.reads_per_minute // limit.BURST):
        await desk.call("GET", "/v1/alerts?limit=1", VIEWER)
    response, problem = await desk.call("GET", "/v1/alerts?limit=1", VIEWER)
    assert (response.status, kind(problem)) == (429, "rate_limited")
    assert (await desk.call("GET", "/v1/alerts", CLERK))[0].status == 200


async def test_guessed_tokens_are_slowed_and_valid_ones_never_locked_out(desk: Desk) -> None:
    """Whoever floods the door from the office's own address must not keep the office out."""
    desk.core.state = Still()
    found = [(await desk.call("GET", "/v1/alerts", f"guess{n}"))[0].status for n in range(limit.FAILURES_PER_MINUTE)]
    assert found == [401] * (limit.FAILURES_PER_MINUTE // limit.BURST) + [429] * (
        limit.FAILURES_PER_MINUTE - limit.FAILURES_PER_MINUTE // limit.BURST
    )
    assert (await desk.issue())["result"] == "accepted"


async def test_without_redis_nobody_is_stopped(desk: Desk) -> None:
    """A limit that cannot be counted is no reason to refuse."""

    class Away(LocalState):
        async def take(self, bucket: str, units: int, rate_per_s: float, burst: int, reserve: int) -> float:
            raise StateDown("no answer")

    desk.core.state = Away()
    assert (await desk.issue())["result"] == "accepted"


# --- the list -------------------------------------------------------------------------------------


async def listed(desk: Desk, query: str = "", token: str = VIEWER) -> list[str]:
    """Identifiers of one page."""
    response, page = await desk.call("GET", f"/v1/alerts?{query}", token)
    assert response.status == 200, page
    return [one["identifier"] for one in page["alerts"]]


async def test_the_list_is_filtered_by_everything_an_officer_asks_for(desk: Desk) -> None:
    """On a bad night a hundred alerts are open; the one that matters is found by what is known of it."""
    begin = desk.clock.now()
    await desk.held(identifier="drill")
    await desk.issue(identifier="red")
    desk.clock.advance(60)
    one = [{"description": "贾楼乡", "geocodes": {"township": [JIALOU]}}]
    await desk.issue(identifier="orange", level="orange", areas=one)
    await desk.issue(identifier="wind", level="yellow", event_code="11B06", event="暴雪")
    city = {
        "sender": "4117-qxt@mingluo.example",
        "areas": [{"description": "泌阳县", "geocodes": {"county": ["411726"]}}],
    }
    await desk.issue(CITY, identifier="city", **city)
    everything = ["city", "drill", "wind", "orange", "red"]
    assert sorted(await listed(desk)) == sorted(everything)
    later = quote((begin + timedelta(seconds=30)).isoformat())
    for query, expected in {
        "level=orange&level=yellow": ["orange", "wind"],
        "hazard=11B06": ["wind"],
        "hazard=11B0": everything,
        "hazard=11A": [],
        "status=Exercise": ["drill"],
        "status=Exercise&status=Actual": everything,
        "document=warning": everything,
        "document=evacuation": [],
        "standing=held&standing=active": ["city", "wind", "orange", "red"],
        "standing=stopped": ["drill"],  # a real red ends it
        "standing=rejected": [],
        "issuer=4117-qxt": ["city"],
        "issuer=4117-qxt@mingluo.example": ["city"],
        "issuer=nobody": [],
        f"area={TONGSHAN}": ["city", "drill", "wind", "red"],
        "area=4117": everything,
        f"area={JIALOU}201": everything,
        "area=411728": [],
        f"until={later}": ["drill", "red"],
        f"since={later}": ["city", "wind", "orange"],
        "since=2026-07-20T14:00:30": ["city", "wind", "orange"],
        "level=orange&status=Exercise": [],
    }.items():
        assert sorted(await listed(desk, query)) == sorted(expected), query
    assert await listed(desk, token=NEIGHBOUR) == []


async def test_pages_stay_whole_while_alerts_come_and_end(desk: Desk) -> None:
    """What falls between two pages is the warning nobody calls the villages for."""
    for number in range(5):
        desk.clock.advance(1)
        await desk.issue(identifier=f"n{number}")
    seen: list[str] = []
    path = "/v1/alerts?limit=2&level=red"
    while path:
        response, page = await desk.call("GET", path, VIEWER)
        seen += [one["identifier"] for one in page["alerts"]]
        desk.clock.advance(1)
        await desk.issue(identifier=f"new{len(seen)}")
        links = response.links
        path = URL(links["next"]["url"]).path_qs if "next" in links else ""
        assert ("next" in links) == (page["next"] is not None)
        assert "level=red" in path or not path
    assert seen == ["n4", "n3", "n2", "n1", "n0"]


async def test_a_page_costs_no_more_however_rare_the_thing_is(desk: Desk) -> None:
    """One question about a rare hazard must not read a year of alerts while a red one waits for the database."""
    await desk.issue(identifier="rare", level="orange")
    for number in range(12):
        desk.clock.advance(1)
        await desk.issue(identifier=f"n{number}")
    desk.core.store.listing = Listing(desk.database, scan=2)
    _, page = await desk.call("GET", "/v1/alerts?level=orange", VIEWER)
    assert page["alerts"] == []  # a page looks at five parts of two
    _, page = await desk.call("GET", f"/v1/alerts?level=orange&after={page['next']}", VIEWER)
    assert [one["identifier"] for one in page["alerts"]] == ["rare"]
    assert page["next"] is None


@pytest.mark.parametrize(
    "query",
    ["standing=open", "level=purple", "since=yesterday", "area=x", "hazard=%00", "after=1", "limit=1&limit=2",
     "after=x.00000000000000000000", "issuer=%00", "since=2026-07-20&until=x", "standing="],
)  # fmt: skip
async def test_a_filter_that_cannot_be_meant_is_refused(desk: Desk, query: str) -> None:
    """An ignored filter shows the wrong alerts with the air of the right ones."""
    response, problem = await desk.call("GET", f"/v1/alerts?{query}", VIEWER)
    assert (response.status, kind(problem)) == (400, "invalid_query")


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/v1/alerts/%00", None, 404),
        ("POST", "/v1/obligations/%00/review", {"answer": "endorsed"}, 404),
        ("POST", "/v1/emergency/a%00/renew", {}, 404),
        ("POST", "/v1/break-glass/codes", {"issuer": "411726-qxj", "label": "a\0b"}, 400),
        ("POST", "/v1/halt", {"scope": "noop\0", "on": True}, 400),
        ("GET", "/v1/alerts?issuer=a%00", None, 400),
    ],
)
async def test_what_no_database_can_hold_is_refused_before_it_is_asked(
    desk: Desk, method: str, path: str, body: object, expected: int
) -> None:
    """PostgreSQL takes no NUL: the answer would be a fault of ours, and an alarm at night, for anybody's stray byte."""
    answers = [(await desk.call(method, path, token, body))[0].status for token in (ADMIN, SIGNER)]
    assert expected in answers
    assert set(answers) <= {expected, 403}
