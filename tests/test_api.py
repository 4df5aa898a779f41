"""The API as a duty officer's system meets it: warnings in, decisions, status out; refusals that say what to do.

Everything runs over loopback HTTP on the real policy, places, templates and SQLite store.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
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
from structlog.testing import capture_logs

from gateway import cap
from gateway.api import make_app, mount
from gateway.api.shape import EXAMPLE
from gateway.broker import LocalBroker
from gateway.channel import Route
from gateway.errors import StoreDown
from gateway.memory import ACTOR
from gateway.model import Record
from gateway.ports import Outage
from gateway.report import printable, status

DATA = Path(__file__).parent / "data" / "cap"
PROBLEM = "application/problem+json"


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


def xml(**changes: str) -> bytes:
    """The example as CAP XML, with texts replaced."""
    alert, _ = cap.parse(json.dumps(EXAMPLE).encode())
    assert alert is not None
    text = cap.write(alert).decode()
    for old, new in changes.items():
        text = text.replace(old, new)
    return text.encode()


async def refusal(desk: Desk, expected: int, *request: Any, **more: Any) -> dict[str, Any]:
    """Send a request that must be refused; return the problem, checked for its form."""
    response, problem = await desk.call(*request, **more)
    assert response.status == expected, problem
    assert response.content_type == PROBLEM
    assert problem["status"] == expected
    assert problem["title"]
    assert problem["type"].startswith("https://")
    assert len(problem["detail"]) > 10
    return dict(problem)


# --- taking in ------------------------------------------------------------------------------------


async def test_a_red_warning_of_a_pre_authorised_issuer_goes_out_by_the_green_channel(desk: Desk) -> None:
    """Nobody waits for a second signature while a flash flood is coming; and 202 means it is durable."""
    answer = await desk.issue()
    assert (answer["result"], answer["route"], answer["held"]) == ("accepted", "green", [])
    row = await desk.core.store.outbox.alert(answer["id"])
    assert row is not None
    assert row.standing == "active"
    assert await desk.core.store.ledger.batches(answer["id"], "officials")


async def test_cap_xml_is_taken_as_the_same_warning(desk: Desk) -> None:
    """Bureaus send CAP; the form must not change who is warned."""
    response, answer = await desk.call("POST", "/v1/alerts", ISSUER, xml(), "application/cap+xml")
    assert response.status == 202
    _, shown = await desk.call("GET", answer["links"]["self"], VIEWER)
    assert shown["townships"] == [TONGSHAN, JIALOU]
    response, again = await desk.call("GET", answer["links"]["cap"], VIEWER)
    assert response.content_type == "application/cap+xml"
    read, findings = cap.parse(again)
    assert read is not None
    assert read.id == answer["id"]
    assert [finding for finding in findings if finding.severity == "error"] == []


async def test_the_same_message_again_is_a_duplicate_and_does_nothing(desk: Desk) -> None:
    """A sender that repeats after a lost answer must not warn a village twice."""
    first = await desk.issue()
    response, again = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE)
    assert response.status == 200
    assert (again["result"], again["id"]) == ("duplicate", first["id"])


async def test_another_content_under_a_used_identifier_is_a_conflict(desk: Desk) -> None:
    """Which of the two would be true? A person has to decide."""
    await desk.issue()
    problem = await refusal(desk, 409, "POST", "/v1/alerts", ISSUER, EXAMPLE | {"headline": "另一份"})
    assert problem["type"].endswith("/conflict")


async def test_a_message_with_mistakes_names_each_of_them(desk: Desk) -> None:
    """The forecaster mends all mistakes in one go; minutes count."""
    body = EXAMPLE | {"level": "1", "status": "Real", "expires": "tomorrow"}
    problem = await refusal(desk, 400, "POST", "/v1/alerts", ISSUER, body)
    assert {one["element"] for one in problem["errors"]} >= {"status", "expires"}
    assert all(one["message"] and one["code"] for one in problem["errors"])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ((DATA / "external_entity.xml").read_bytes(), "entity_forbidden"),
        ((DATA / "entity_bomb.xml").read_bytes(), "entity_forbidden"),
        (b'<?xml version="1.0" encoding="UTF-8"?>' + xml().partition(b"?>")[2].replace("暴雨".encode(), b"\xb1\xa9"),
         "wrong_encoding"),
        (b"<alert", "not_xml"),
        (b"", "not_xml"),
    ],
    ids=["external entity", "entity bomb", "wrong encoding", "not xml", "empty"],
)  # fmt: skip
async def test_hostile_and_broken_xml_is_refused_and_opens_nothing(desk: Desk, body: bytes, code: str) -> None:
    """Entities are never resolved: neither a file of ours nor all our memory goes into a warning."""
    problem = await refusal(desk, 400, "POST", "/v1/alerts", ISSUER, body, "application/xml")
    assert [one["code"] for one in problem["errors"]] == [code]


async def test_a_body_over_the_limit_is_refused_whether_or_not_it_says_its_length(desk: Desk) -> None:
    """One sender must not fill the memory that a red warning needs."""
    much = b"<" * (cap.MAX_BYTES + 1)
    await refusal(desk, 413, "POST", "/v1/alerts", ISSUER, much, "application/cap+xml")

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b"<" * (cap.MAX_BYTES // 8)

    headers = {"Authorization": f"Bearer {ISSUER}", "Content-Type": "application/cap+xml"}
    async with desk.client.post("/v1/alerts", data=parts(), headers=headers) as response:
        assert response.status == 413
        assert response.content_type == PROBLEM


async def test_a_compressed_body_is_measured_by_what_comes_out_of_it(desk: Desk) -> None:
    """A few kilobytes must not become gigabytes; and what is not what its header says is no fault of ours."""
    headers = {"Content-Encoding": "gzip"}
    bomb = gzip.compress(b" " * (4 * cap.MAX_BYTES))
    assert len(bomb) < 100_000
    await refusal(desk, 413, "POST", "/v1/alerts", ISSUER, bomb, **headers)
    await refusal(desk, 400, "POST", "/v1/alerts", ISSUER, b"no gzip at all", **headers)


async def test_behind_a_broken_body_the_next_request_is_answered(desk: Desk) -> None:
    """Its connection is over, which is said: else the warning behind it would go into a closed one."""
    broken = {"Content-Encoding": "deflate"}
    response, content = await desk.call("POST", "/v1/alerts", ISSUER, b"no deflate", **broken)
    assert (response.status, response.headers.get("Connection")) == (400, "close")
    assert content["type"].endswith("/broken_body")
    assert (await desk.issue())["result"] == "accepted"


async def test_what_is_over_already_is_refused(desk: Desk) -> None:
    """A warning that sat in a queue must not wake people about yesterday."""
    desk.clock.advance(4 * 3600)
    problem = await refusal(desk, 422, "POST", "/v1/alerts", ISSUER, EXAMPLE)
    assert problem["type"].endswith("/expired")


async def test_received_is_the_moment_the_last_byte_was_read(desk: Desk) -> None:
    """All delays are measured from here, so a slow upload is not counted as ours."""

    async def slow() -> AsyncIterator[bytes]:
        body = json.dumps(EXAMPLE).encode()
        yield body[:10]
        desk.clock.advance(5)
        yield body[10:]

    before = desk.clock.now()
    headers = {"Authorization": f"Bearer {ISSUER}", "Content-Type": "application/json"}
    async with desk.client.post("/v1/alerts", data=slow(), headers=headers) as response:
        answer = await response.json()
    row = await desk.core.store.outbox.alert(answer["id"])
    assert row is not None
    assert row.accepted_at - before == timedelta(seconds=5)


async def test_a_store_that_is_away_answers_503_and_when_to_come_again(desk: Desk) -> None:
    """The sender keeps the warning and repeats it; nothing was half stored."""
    desk.database.away = True
    response, problem = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE)
    assert (response.status, response.headers["Retry-After"]) == (503, "2")
    assert problem["type"].endswith("/store_down")
    desk.database.away = False
    assert (await desk.issue())["result"] == "accepted"


# --- who may --------------------------------------------------------------------------------------


async def test_without_a_known_token_nothing_is_told(desk: Desk) -> None:
    """The API of a warning system is worth attacking."""
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer"}):
        response, _ = await desk.call("GET", "/v1/alerts", **headers)
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    await refusal(desk, 401, "POST", "/v1/alerts", "ünknown", EXAMPLE)


async def test_demo_tokens_open_nothing_once_a_channel_is_live(tmp_path: Path, clock: ManualClock) -> None:
    """Their plain texts are public."""
    async with opened(tmp_path, clock, simulation=False) as live:
        problem = await refusal(live, 401, "POST", "/v1/alerts", ISSUER, EXAMPLE)
        assert problem["type"].endswith("/unknown_token")


async def test_outside_its_authority_an_issuer_is_told_the_missing_row(desk: Desk) -> None:
    """County A must not warn county B; and who really should is told which row to ask for."""
    there = [{"description": "遂平县", "geocodes": {"county": ["411728"]}}]
    problem = await refusal(desk, 403, "POST", "/v1/alerts", ISSUER, EXAMPLE | {"areas": there})
    assert "authority.toml, issuer 411726-qxj" in problem["detail"]
    assert [one["code"] for one in problem["errors"]] == ["area"]


@pytest.mark.parametrize("token", [CLERK, VIEWER, ADMIN])
async def test_only_issuers_and_reviewers_issue(desk: Desk, token: str) -> None:
    """Administrators never issue; clerks confirm, viewers look."""
    problem = await refusal(desk, 403, "POST", "/v1/alerts", token, EXAMPLE)
    assert problem["type"].endswith("/wrong_role")


async def test_another_county_does_not_learn_that_an_alert_exists(desk: Desk) -> None:
    """Every row belongs to one county."""
    alert = (await desk.issue())["id"]
    for part in ("", "/cap", "/status", "/deliveries", "/confirmations"):
        problem = await refusal(desk, 404, "GET", f"/v1/alerts/{alert}{part}", NEIGHBOUR)
        assert problem["type"].endswith("/unknown_alert")
    await refusal(desk, 404, "POST", f"/v1/alerts/{alert}/recall", NEIGHBOUR, {"reason": "not mine"})
    _, listed = await desk.call("GET", "/v1/alerts", NEIGHBOUR)
    assert listed == {"alerts": [], "next": None, "halts": []}
    for token in (CITY, COMMAND):
        _, shown = await desk.call("GET", f"/v1/alerts/{alert}", token)
        assert shown["id"] == alert


async def test_a_warning_whose_area_is_unknown_is_held_and_seen_by_its_own_county_and_the_city(desk: Desk) -> None:
    """Somebody has to choose its area: it must not be invisible to those who help, nor visible to others."""
    nowhere = [{"description": "某地", "geocodes": {"place": ["x"]}}]
    answer = await desk.issue(areas=nowhere)
    assert answer["result"] == "held"
    assert any(why.startswith("unresolved: no known township: 某地; ") for why in answer["held"])
    code = [{"description": "某地", "geocodes": {"township": ["411726999"]}}]
    assert any("411726999" in why for why in (await desk.issue(identifier="code", areas=code))["held"])
    found = [(await desk.call("GET", f"/v1/alerts/{answer['id']}", token))[0].status for token in (COMMAND, CITY)]
    assert found == [200, 200]
    await refusal(desk, 404, "GET", f"/v1/alerts/{answer['id']}", NEIGHBOUR)


async def test_of_a_city_warning_a_county_sees_its_own_villages_and_people_only(desk: Desk) -> None:
    """The county works through its own gaps, and has no business with its neighbour's officials."""
    both = [{"description": "铜山乡和遂平县", "geocodes": {"township": [TONGSHAN], "county": ["411728"]}}]
    sender = "4117-qxt@mingluo.example"
    answer = await desk.issue(CITY, sender=sender, areas=both)
    if answer["result"] == "held":
        await desk.call("POST", f"/v1/alerts/{answer['id']}/approve", "demo-4117-qxt-signer")
    path = f"/v1/alerts/{answer['id']}/status"
    _, whole = await desk.call("GET", path, CITY)
    _, mine = await desk.call("GET", path, VIEWER)
    _, theirs = await desk.call("GET", path, NEIGHBOUR)
    named = [{village["code"][:6] for village in one["gaps"]} for one in (whole, mine, theirs)]
    assert named == [{"411726", "411728"}, {"411726"}, {"411728"}]
    assert sum(mine["villages"].values()) + sum(theirs["villages"].values()) == sum(whole["villages"].values())
    path = f"/v1/alerts/{answer['id']}/deliveries?limit=10"
    seen = [len((await desk.call("GET", path, token))[1]["deliveries"]) for token in (CITY, VIEWER, NEIGHBOUR)]
    assert seen[0] == seen[1] > 0 == seen[2]


async def test_of_an_official_of_two_counties_each_sees_its_own_villages(desk: Desk) -> None:
    """Where else somebody serves is the other county's business."""
    both = [{"description": "铜山乡和遂平县", "geocodes": {"township": [TONGSHAN], "county": ["411728"]}}]
    answer = await desk.issue(CITY, sender="4117-qxt@mingluo.example", areas=both)
    ours, theirs = "411726204001", "411728001001"
    record = Record(desk.clock.now(), "clock", "confirm", answer["id"], "phone")
    await desk.core.store.ledger.confirm(answer["id"], desk.people[0], [ours, theirs], "phone", record)
    path = f"/v1/alerts/{answer['id']}/confirmations"
    seen = [(await desk.call("GET", path, token))[1]["confirmations"] for token in (CITY, VIEWER, NEIGHBOUR)]
    assert [[one["villages"] for one in found] for found in seen] == [[[ours, theirs]], [[ours]], [[theirs]]]


# --- a second person, and ends --------------------------------------------------------------------


async def test_an_exercise_waits_for_a_second_person_who_is_not_the_first(desk: Desk) -> None:
    """A drill in error frightens a county; nobody approves their own."""
    alert = await desk.held()
    own = await refusal(desk, 403, "POST", f"/v1/alerts/{alert}/approve", ISSUER)
    assert own["type"].endswith("/own_alert")
    assert not await desk.core.store.ledger.batches(alert)
    response, answer = await desk.call("POST", f"/v1/alerts/{alert}/approve", SIGNER)
    assert (response.status, answer["result"]) == (200, "accepted")
    _, shown = await desk.call("GET", f"/v1/alerts/{alert}", VIEWER)
    assert shown["standing"] == "active"


async def test_what_a_reviewer_rejects_never_leaves(desk: Desk) -> None:
    """That it was rejected stands in the audit chain, and why in its life: words can be erased, the chain cannot."""
    alert = await desk.held()
    _, answer = await desk.call("POST", f"/v1/alerts/{alert}/reject", SIGNER, {"reason": "区域有误"})
    assert answer == {"id": alert, "standing": "rejected", "reason": "区域有误"}
    await refusal(desk, 409, "POST", f"/v1/alerts/{alert}/approve", SIGNER)
    _, chain = await desk.call("GET", "/v1/audit", ADMIN)
    assert [one["subject"] for one in chain["records"] if one["action"] == "reject"] == [alert]
    assert "区域有误" not in str(chain)
    _, life = await desk.call("GET", f"/v1/alerts/{alert}/decisions", VIEWER)
    assert (life["decisions"][-1]["event"], life["decisions"][-1]["reason"]) == ("reject", "区域有误")


async def test_a_recall_stops_the_alert_at_once_and_twice_is_harmless(desk: Desk) -> None:
    """Whoever sees the mistake presses, and presses again."""
    alert = (await desk.issue())["id"]
    for _ in range(2):
        response, answer = await desk.call("POST", f"/v1/alerts/{alert}/recall", SIGNER, {"reason": "误发"})
        assert response.status == 200
        assert answer == {"id": alert, "standing": "stopped", "reason": "recalled"}
    await refusal(desk, 403, "POST", f"/v1/alerts/{alert}/recall", COMMAND, {"reason": "not ours"})


async def test_an_all_clear_waits_for_a_second_person_and_a_signers_correction_does_not(desk: Desk) -> None:
    """Ending a warning too early kills; leaving a false one standing too long does harm every minute."""
    alert = (await desk.issue())["id"]
    _, clear = await desk.call("POST", f"/v1/alerts/{alert}/cancel", ISSUER, {"note": "雨已停"})
    assert clear["result"] == "held"
    _, correction = await desk.call("POST", f"/v1/alerts/{alert}/correct", SIGNER, {"note": "误发"})
    assert correction["result"] == "accepted"
    _, shown = await desk.call("GET", f"/v1/alerts/{alert}", VIEWER)
    assert (shown["standing"], shown["reason"]) == ("stopped", "corrected")


async def test_a_remark_with_a_phone_number_is_refused(desk: Desk) -> None:
    """The audit chain keeps it for ever, and no erasure reaches it."""
    alert = (await desk.issue())["id"]
    problem = await refusal(
        desk, 400, "POST", f"/v1/alerts/{alert}/recall", ISSUER, {"reason": "村长13800000000说没有雨"}
    )
    assert "13800000000" not in json.dumps(problem)


# --- preview --------------------------------------------------------------------------------------


async def test_a_preview_shows_everything_and_stores_nothing(desk: Desk) -> None:
    """The approver sees who is woken, in which words, before it is too late."""
    response, found = await desk.call("POST", "/v1/alerts/preview", ISSUER, EXAMPLE)
    assert response.status == 200
    assert (found["route"], found["would_be_held"], found["held"]) == ("green", False, [])
    assert [(one["township"]["code"], one["how"]) for one in found["targets"]] == [(TONGSHAN, "code"), (JIALOU, "code")]
    assert found["targets"][1]["township"]["name"] == "泌阳县贾楼乡"
    counted = {(one["township"], one["group"], one["channel"]): one["recipients"] for one in found["counts"]}
    assert counted[JIALOU, "officials", "sms_twilio"] == counted[TONGSHAN, "residents", "noop"] == 2
    text = next(one for one in found["texts"] if (one["channel"], one["group"]) == ("sms_twilio", "officials"))
    assert text["text"].startswith("【泌阳县气象局】")
    assert (text["units"], text["segments"], text["findings"]) == (len(text["text"]), 1, [])
    assert await desk.core.store.outbox.alerts() == []
    assert await desk.core.store.audit.records() == []


async def test_a_preview_says_the_words_that_then_leave(desk: Desk) -> None:
    """Another text than the approved one would be nobody's text."""
    _, found = await desk.call("POST", "/v1/alerts/preview", ISSUER, EXAMPLE)
    alert = (await desk.issue())["id"]
    previewed = {(one["channel"], one["group"], one["township"]): one["text"] for one in found["texts"]}
    batches = await desk.core.store.ledger.batches(alert)
    compared = 0
    for batch, _ in batches:
        key = (batch.channel, batch.group.value, batch.township)
        if key in previewed:
            compared += 1
            assert (await desk.core.composer.message(batch, [0], again=False)).text == previewed[key]
    assert compared


async def test_a_preview_of_the_night_names_what_waits_for_the_morning(desk: Desk) -> None:
    """A yellow warning does not wake residents at 23:00; the issuer must know that it does not."""
    desk.clock.advance(9 * 3600)
    late = {"sent": "2026-07-20T22:58:00+08:00", "expires": "2026-07-21T12:00:00+08:00", "level": "yellow"}
    _, found = await desk.call("POST", "/v1/alerts/preview", ISSUER, EXAMPLE | late)
    assert {(one["group"], one["start"]) for one in found["deferrals"]} == {("residents", "2026-07-20T22:30:00Z")}


async def test_template_syntax_in_a_warning_comes_out_as_it_was_written(desk: Desk) -> None:
    """Text is data: no sender can compute in our templates or read our settings."""
    inject = "{{ 7*7 }}{% for x in ().__class__.__mro__ %}"
    _, found = await desk.call("POST", "/v1/alerts/preview", ISSUER, EXAMPLE | {"description": inject})
    texts = [one["text"] for one in found["texts"] if one["channel"] == "noop"]
    assert texts
    assert all("{{ 7*7 }}" in text and "49" not in text for text in texts)


async def test_a_drill_shows_its_mark_first_and_the_second_person(desk: Desk) -> None:
    """A drill never looks like the real thing."""
    _, found = await desk.call("POST", "/v1/alerts/preview", ISSUER, EXAMPLE | {"status": "Exercise"})
    assert found["would_be_held"]
    assert {one["group"] for one in found["counts"]} == {"officials"}
    assert all(one["text"].removeprefix("【泌阳县气象局】").startswith("演练") for one in found["texts"])


# --- what became of it ----------------------------------------------------------------------------


async def test_status_tells_counts_times_and_the_gaps_by_name(desk: Desk) -> None:
    """The officer at 02:30 needs the names of the villages to call, not a percentage."""
    alert = (await desk.issue())["id"]
    await desk.delivered(alert)
    _, found = await desk.call("GET", f"/v1/alerts/{alert}/status", VIEWER)
    assert {"channel": "noop", "group": "officials", "state": "delivered", "recipients": 4} in found["counts"]
    times = {(one["channel"], one["group"]): one for one in found["timings"]}
    assert {(one["first_submitted_s"], one["last_settled_s"], one["unfinished"]) for one in times.values()} == {
        (1.0, 1.0, 0)
    }
    assert set(times) == {(c, g) for c in ("noop", "sms_twilio") for g in ("officials", "residents")}
    gaps = [one["name"] for one in found["gaps"] if one["state"] == "gap"]
    assert all(name.startswith("泌阳县") for name in gaps)
    assert len(found["wanting"]) == sum(found["villages"].values()) == len(gaps) + found["villages"]["sms_only"]


async def test_a_clerk_confirms_a_village_once_and_stands_in_the_chain(desk: Desk) -> None:
    """A village is reached when someone answerable answered, and it is known who says so."""
    alert = (await desk.issue())["id"]
    path = f"/v1/alerts/{alert}/confirmations"
    body = {"person": str(desk.people[0]), "how": "phone", "note": "已到岗"}
    results = [(await desk.call("POST", path, CLERK, body))[1]["result"] for _ in range(2)]
    assert results == ["confirmed", "known"]
    _, found = await desk.call("GET", f"/v1/alerts/{alert}/status", VIEWER)
    assert found["villages"]["confirmed"] == 1
    _, listed = await desk.call("GET", path, VIEWER)
    [one] = listed["confirmations"]
    assert (one["person"], one["how"]) == (body["person"], "phone: 已到岗")
    _, chain = await desk.call("GET", "/v1/audit", ADMIN)
    [record] = [one for one in chain["records"] if one["action"] == "confirm"]
    assert record["actor"] == "411726-qxj/泌阳值班员"
    await refusal(desk, 403, "POST", path, VIEWER, body)


async def test_a_village_without_any_channel_is_confirmed_by_telephone(desk: Desk) -> None:
    """No carrier serves the county yet, or nobody of it is on a list: the duty officer called, and it heard."""
    alert = (await desk.issue(areas=ELSEWHERE))["id"]
    _, sent = await desk.call("GET", f"/v1/alerts/{alert}/deliveries?group=officials", CLERK)
    assert sent["deliveries"] == []
    village = desk.core.regions.villages("411726001")[0].code
    path, body = f"/v1/alerts/{alert}/confirmations", {"village": village, "how": "phone", "note": "已到岗"}
    results = [(await desk.call("POST", path, CLERK, body))[1]["result"] for _ in range(2)]
    assert results == ["confirmed", "known"]
    _, found = await desk.call("GET", f"/v1/alerts/{alert}/status", VIEWER)
    assert found["villages"]["confirmed"] == 1
    assert village not in [one["code"] for one in found["gaps"] + found["wanting"]]
    _, listed = await desk.call("GET", path, VIEWER)
    assert [(one["person"], one["villages"], one["how"]) for one in listed["confirmations"]] == [
        ("", [village], "phone: 已到岗")
    ]
    _, chain = await desk.call("GET", "/v1/audit", ADMIN)
    assert [one["detail"] for one in chain["records"] if one["action"] == "confirm"] == [f"phone {village}"]


async def test_only_a_village_of_the_alert_is_confirmed(desk: Desk) -> None:
    """A digit mistyped at night must not take another village off the list, nor one of a neighbour's."""
    alert = (await desk.issue(areas=ELSEWHERE))["id"]
    path = f"/v1/alerts/{alert}/confirmations"
    for code in ("411726209200", "999999999999"):
        problem = await refusal(desk, 422, "POST", path, CLERK, {"village": code, "how": "phone"})
        assert code in problem["detail"]
    both = {"person": str(desk.people[0]), "village": "411726001001", "how": "phone"}
    nobody = ({"how": "phone"}, {"person": "", "village": "", "how": "phone"}, {"person": None, "how": "phone"})
    for body in (both, *nobody, {"village": "411726001", "how": "phone"}):
        await refusal(desk, 400, "POST", path, CLERK, body)


async def test_a_township_post_confirms_no_village_and_is_told_what_does(desk: Desk) -> None:
    """The township hall answered, so the clerk still has every village to call: the refusal says how to go on."""
    alert, person = (await desk.issue())["id"], 7
    row = (JIALOU, "officials", "", person, "township_duty", 0, None)
    columns = ("township", "audience", "village", "person", "role", "since", "until")
    await desk.database.write(lambda tx: tx.copy("place", columns, [row]))
    path = f"/v1/alerts/{alert}/confirmations"
    problem = await refusal(desk, 422, "POST", path, CLERK, {"person": str(person), "how": "phone"})
    assert f"a post of the township {JIALOU}" in problem["detail"]
    assert "confirm the village itself by its code" in problem["detail"]
    stranger = await refusal(desk, 422, "POST", path, CLERK, {"person": "8", "how": "phone"})
    assert "township" not in stranger["detail"]


async def test_deliveries_page_by_batch_and_meet_each_recipient_once(desk: Desk) -> None:
    """A page that skips or repeats people would hide who was not reached."""
    alert = (await desk.issue())["id"]
    await desk.delivered(alert)
    seen: list[tuple[str, int]] = []
    after: str | None = ""
    while after is not None:
        path = f"/v1/alerts/{alert}/deliveries?group=officials&limit=1&after={after}"
        _, page = await desk.call("GET", path, VIEWER)
        seen += [(one["batch"], one["position"]) for one in page["deliveries"]]
        assert {one["state"] for one in page["deliveries"]} <= {"delivered"}
        after = page["next"]
    whole = [
        (batch.id, position)
        for batch, _ in await desk.core.store.ledger.batches(alert, "officials")
        for position in range(len(batch))
    ]
    assert seen == whole
    assert len(whole) == 8


ELSEWHERE = [{"description": "泌阳县花园街道", "geocodes": {"township": ["411726001"]}}]
"""No drill is held where a real red is in force."""


async def test_the_list_pages_newest_first_and_filters_by_standing(desk: Desk) -> None:
    """On a bad night thirty alerts are open; none may fall between two pages."""
    made = []
    for number in range(3):
        desk.clock.advance(1)
        made.append((await desk.issue(identifier=f"n{number}", description="雨" * (number + 1)))["id"])
    held = await desk.held(identifier="drill", areas=ELSEWHERE)
    seen, after = [], ""
    while True:
        _, page = await desk.call("GET", f"/v1/alerts?limit=1&standing=active&after={after}", VIEWER)
        seen += [one["id"] for one in page["alerts"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == made[::-1]
    _, waiting = await desk.call("GET", "/v1/alerts?standing=held", VIEWER)
    assert [one["id"] for one in waiting["alerts"]] == [held]


async def test_the_list_and_the_status_say_whom_a_warning_is_for(desk: Desk) -> None:
    """A restricted one is not read out to everybody: the list shows it as the message itself does."""
    public = (await desk.issue())["id"]
    own = (await desk.issue(identifier="r", scope="Restricted", restriction="责任人", areas=ELSEWHERE))["id"]
    _, page = await desk.call("GET", "/v1/alerts", VIEWER)
    assert {one["id"]: one["scope"] for one in page["alerts"]} == {public: "Public", own: "Restricted"}
    _, found = await desk.call("GET", f"/v1/alerts/{own}/status", VIEWER)
    assert found["scope"] == "Restricted"


async def test_no_answer_holds_an_address_or_a_name_of_a_recipient(desk: Desk) -> None:
    """What never leaves cannot leak: neither numbers nor names of villagers are in any answer."""
    alert = (await desk.issue())["id"]
    await desk.delivered(alert)
    person = str(desk.people[0])
    await desk.call("POST", f"/v1/alerts/{alert}/confirmations", CLERK, {"person": person, "how": "visit"})
    parts = ("", "/cap", "/status", "/deliveries?limit=10", "/confirmations")
    answers = [(await desk.call("GET", f"/v1/alerts/{alert}{part}", VIEWER))[1] for part in parts]
    answers.append((await desk.call("GET", "/v1/alerts", VIEWER))[1])
    answers += [(await desk.call("GET", path, ADMIN))[1] for path in ("/v1/audit", "/v1/health", "/metrics")]
    answers.append((await desk.call("POST", "/v1/alerts/preview", ISSUER, EXAMPLE))[1])
    told = " ".join(map(str, answers))
    assert person in told
    assert [secret for secret in (*PHONES, *NAMES) if secret in told or secret.removeprefix("+86") in told] == []


async def test_the_printed_report_names_gaps_and_gives_the_denominator(desk: Desk) -> None:
    """It is read on paper by people who have no screen."""
    alert = (await desk.issue())["id"]
    await desk.delivered(alert)
    row = await desk.core.store.outbox.alert(alert)
    assert row is not None
    found = await status(desk.core, row)
    page = printable(found)
    assert f"行政村共 {sum(found.villages.values())} 个: 叫应 0，已播出 0，仅短信 2" in page
    assert page.count("泌阳县贾楼乡凤凰台村") == 1
    assert "  泌阳县贾楼乡凤凰台村 (缺口；无可用喇叭，先打电话)" in page.splitlines()
    assert "首条 1.00 秒" in page
    assert "%" not in page


# --- the gateway itself ---------------------------------------------------------------------------


async def test_halt_stops_a_county_and_only_those_entitled_may(desk: Desk) -> None:
    """The one button that must work, and must not work for a neighbour."""
    on, off = ({"scope": "411726", "on": value} for value in (True, False))
    await refusal(desk, 403, "POST", "/v1/halt", NEIGHBOUR, on)
    await refusal(desk, 403, "POST", "/v1/halt", ISSUER, {"scope": "*", "on": True})
    await refusal(desk, 403, "POST", "/v1/halt", CLERK, on)
    assert (await desk.call("POST", "/v1/halt", ISSUER, on))[1] == {"halted": ["411726"]}
    _, health = await desk.call("GET", "/v1/health")
    assert health["status"] == "degraded"
    assert (await desk.call("POST", "/v1/halt", ADMIN, off))[1] == {"halted": []}
    assert (await desk.call("POST", "/v1/halt", ADMIN, {"scope": "noop", "on": True}))[1] == {"halted": ["noop"]}
    assert (await desk.call("POST", "/v1/halt", ADMIN, {"scope": "all", "on": True}))[1]["halted"] == ["all", "noop"]


async def test_what_is_stuck_is_shown_to_those_who_may_see_it(desk: Desk) -> None:
    """The duty officer finds out why nothing leaves; a neighbouring county learns nothing of it."""
    await desk.call("POST", "/v1/halt", ADMIN, {"scope": "all", "on": True})
    _, issued = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE)
    _, found = await desk.call("GET", "/v1/stuck", ISSUER)
    assert {(one["alert"], one["reason"]) for one in found["waiting"]} >= {(issued["id"], "halted")}
    assert (await desk.call("GET", "/v1/stuck", NEIGHBOUR))[1] == {"waiting": []}


async def test_a_restored_database_and_a_carrier_that_is_down_stand_in_health(desk: Desk) -> None:
    """Whoever is woken looks here first."""
    store, now = desk.core.store, desk.core.clock.now()
    await store.outbox.note_outage("noop", Outage("noop", now, now + timedelta(seconds=5), "unreachable"))
    await store.outbox.halt("*", True, Record(now, ACTOR, "restored", "*"))
    _, found = await desk.call("GET", "/v1/health")
    details = {part["name"]: part["detail"] for part in found["parts"]}
    assert details["halts"] == "all (the database was restored)"
    assert "noop down: unreachable" in details["channels"]


async def test_a_halt_stands_in_the_answer_to_whoever_issues(desk: Desk) -> None:
    """A duty officer who reads "accepted" must not go home while nothing leaves; a neighbour's halt is not theirs."""
    for scope in ("411728", "411726", "*"):
        await desk.call("POST", "/v1/halt", ADMIN, {"scope": scope, "on": True})
    _, seen = await desk.call("POST", "/v1/alerts/preview", ISSUER, EXAMPLE)
    _, answer = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE)
    _, found = await desk.call("GET", f"/v1/alerts/{answer['id']}/status", ISSUER)
    _, listed = await desk.call("GET", "/v1/alerts", ISSUER)
    assert seen["halts"] == answer["halts"] == found["halts"] == listed["halts"] == ["all", "411726"]


async def test_what_no_channel_serves_is_said_once_to_whoever_lets_it_go(desk: Desk) -> None:
    """The same remark at every stage is one that nobody reads at the last."""
    heat = {"event_code": "11B09", "event": "高温", "level": "orange"}
    held = await desk.issue(**heat)
    _, sent = await desk.call("POST", f"/v1/alerts/{held['id']}/approve", SIGNER)
    codes = [[one["code"] for one in answer["warnings"]].count("no_channel") for answer in (held, sent)]
    assert codes[0] == 0 < codes[1]


async def test_a_warning_that_reaches_nobody_says_so(desk: Desk) -> None:
    """Nobody else would notice before the water comes: neither people nor loudspeakers are registered."""
    _, full = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE)
    assert not {"reaches_nobody", "no_officials"} & {one["code"] for one in full["warnings"]}
    await desk.database.write(lambda tx: tx.run("DELETE FROM place WHERE audience = 'officials'"))
    desk.clock.advance(10)  # what was found a moment ago is believed
    _, few = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE | {"identifier": "few"})
    assert "no_officials" in {one["code"] for one in few["warnings"]}
    await desk.database.write(lambda tx: tx.run("DELETE FROM place"))
    await desk.database.write(lambda tx: tx.run("DELETE FROM device"))
    desk.clock.advance(10)
    _, seen = await desk.call("POST", "/v1/alerts/preview", ISSUER, EXAMPLE)
    _, none = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE | {"identifier": "none"})
    for answer in (seen, none):
        assert "reaches_nobody" in {one["code"] for one in answer["warnings"]}
        assert not any(reason.startswith("channel:") for reason in answer["reasons"])


async def test_the_audit_chain_pages_and_a_forged_record_is_found(desk: Desk) -> None:
    """What was decided can be proven a year later."""
    await desk.issue()
    await desk.held(identifier="drill", areas=ELSEWHERE)
    _, first = await desk.call("GET", "/v1/audit?limit=1", ADMIN)
    _, second = await desk.call("GET", f"/v1/audit?limit=1&after={first['next']}", ADMIN)
    assert [page["records"][0]["action"] for page in (first, second)] == ["accept", "hold"]
    assert (await desk.call("GET", "/v1/audit/verify", ADMIN))[1] == {"whole": True, "records": 2, "wrong": ""}
    await desk.database.write(lambda tx: tx.run("UPDATE audit SET detail = 'forged' WHERE seq = 1"))
    _, verdict = await desk.call("GET", "/v1/audit/verify", ADMIN)
    assert not verdict["whole"]
    await refusal(desk, 403, "GET", "/v1/audit", ISSUER)


async def test_health_tells_parts_and_stays_good_without_a_broker(desk: Desk) -> None:
    """Without its broker the gateway still takes warnings in; without its store it does not."""
    _, found = await desk.call("GET", "/v1/health")
    assert found["status"] == "ok"
    desk.core.broker = LocalBroker()
    response, found = await desk.call("GET", "/v1/health")
    assert (response.status, found["status"]) == (200, "degraded")
    desk.database.away = True
    response, found = await desk.call("GET", "/v1/health")
    assert (response.status, found["status"]) == (503, "down")
    assert [part["name"] for part in found["parts"] if not part["ready"]] == ["store", "broker"]


async def test_metrics_are_open_on_this_machine_only(desk: Desk) -> None:
    """Prometheus beside the gateway needs no token; a caller through a proxy does."""
    response, text = await desk.call("GET", "/metrics")
    assert response.status == 200
    assert b"mingluo_alerts_total" in text
    through = {"X-Forwarded-For": "192.0.2.7"}
    await refusal(desk, 401, "GET", "/metrics", **through)
    response, _ = await desk.call("GET", "/metrics", VIEWER, **through)
    assert response.status == 200


class BrokenBroker(LocalBroker):
    """A part with a bug."""

    async def depths(self) -> dict[str, int]:
        raise RuntimeError("secret internals")


async def test_a_fault_of_ours_tells_nothing_of_it_and_is_logged(desk: Desk) -> None:
    """A caller learns that it is our fault; the traceback is for us."""
    desk.core.broker = BrokenBroker()
    with capture_logs() as logs:
        problem = await refusal(desk, 500, "GET", "/v1/health")
    assert "secret internals" not in json.dumps(problem)
    [entry] = [one for one in logs if one["event"] == "unexpected"]
    assert (entry["log_level"], entry["exc_info"], entry["route"]) == ("error", True, "/v1/health")


async def test_unknown_addresses_and_methods_are_problems_too(desk: Desk) -> None:
    """A client has one way to read errors."""
    await refusal(desk, 404, "GET", "/v2/alerts", ISSUER)
    response, _ = await desk.call("DELETE", "/v1/alerts", ISSUER)
    assert response.headers["Allow"] == "GET,POST"
    await refusal(desk, 405, "DELETE", "/v1/alerts", ISSUER)
    await refusal(desk, 400, "GET", "/v1/alerts?limit=1000", ISSUER)
    await refusal(desk, 400, "GET", "/v1/alerts?colour=red", ISSUER)


async def test_what_a_client_expects_stops_no_warning(desk: Desk) -> None:
    """A header that nobody here knows is no reason to refuse red; who waits for leave to send a body gets it."""
    response, _ = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE, Expect="200-ok")
    assert response.status == 202
    response, _ = await desk.call("POST", "/v1/alerts", ISSUER, EXAMPLE, Expect="100-continue")
    assert response.status == 200


async def test_whatever_is_taken_in_can_be_shown_as_cap_and_ended(desk: Desk) -> None:
    """A warning that could not be written as CAP could neither be passed on nor be revoked."""
    for identifier in ("a\ufffeb", "a" * 256):
        await refusal(desk, 400, "POST", "/v1/alerts", ISSUER, EXAMPLE | {"identifier": identifier})
    found = await desk.issue(identifier="a" * 255)
    await desk.call("GET", found["links"]["cap"], VIEWER)
    response, ended = await desk.call("POST", f"/v1/alerts/{found['id']}/correct", SIGNER, {"note": "误发"})
    assert response.status == 202, ended


async def test_a_channels_own_route_is_served_and_its_refusals_are_problems(desk: Desk) -> None:
    """A provider whose report could not be committed is told to send it again."""

    async def callback(request: web.Request) -> web.StreamResponse:
        if request.query:
            raise StoreDown("no commit in time")
        return web.Response(text="taken")

    app = make_app(desk.core)
    mount(app, [Route("POST", "/channels/sample/report", callback)])
    async with TestClient(TestServer(app)) as client:
        async with client.post("/channels/sample/report") as response:
            assert await response.text() == "taken"
        async with client.post("/channels/sample/report?again") as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "2")
