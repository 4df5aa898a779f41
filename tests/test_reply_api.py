"""Replies and incidents over HTTP: who sees, settles and decides; reading leaves a trace, and words stay inside."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_support import CLERK, ISSUER, NAMES, NEIGHBOUR, PHONES, VIEWER, Desk, opened
from manual_clock import ManualClock

from gateway import metrics
from gateway.api.reply import masked
from gateway.model import Reply

WORDS = "3 桥头塌方，王大爷被困"


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


async def say(desk: Desk, text: str, number: str = PHONES[0], reference: str = "r1") -> None:
    """Let a text come in."""
    reply = Reply("sms_twilio", "sms_twilio", reference, number, text, desk.clock.now())
    await desk.core.receipts.commit("sms_twilio", [reply])


async def ask(desk: Desk, path: str, token: str = CLERK) -> list[dict[str, Any]]:
    """The one list a route answers with."""
    response, content = await desk.call("GET", path, token)
    assert response.status == 200, content
    (found,) = content.values()
    return list(found)


async def actions(desk: Desk) -> list[str]:
    return [record.action for _, record, _ in await desk.core.store.audit.records()]


async def test_an_incident_is_shown_decided_and_proven_without_its_words(desk: Desk) -> None:
    """From the text in the rain to the decision: place and words to the duty room alone, the chain says who decided."""
    alert = (await desk.issue())["id"]
    await desk.delivered(alert)
    await say(desk, WORDS)
    (one,) = await ask(desk, "/v1/incidents?undecided=true")
    assert (one["text"], one["number"], one["alerts"], one["drill"]) == (WORDS, masked(PHONES[0]), [alert], False)
    assert (one["people"], [place["code"][:9] for place in one["places"]]) == ([str(desk.people[0])], ["411726209"])
    assert "泌阳县" in one["places"][0]["name"]
    _, owed = await desk.call("GET", "/v1/obligations", CLERK)
    assert ("incident", one["id"]) in {(line["kind"], line["alert"]) for line in owed["obligations"]}
    path, decided = f"/v1/obligations/{one['id']}/incident", {"answer": "village_alarm", "remark": "村级预警已启动"}
    assert (await desk.call("POST", path, CLERK, {"answer": "village_alarm"}))[0].status == 422
    assert (await desk.call("POST", path, NEIGHBOUR, decided))[0].status == 403
    assert (await desk.call("POST", path, CLERK, decided))[0].status == 200
    assert (await desk.call("POST", path, ISSUER, decided))[0].status == 409
    assert await ask(desk, "/v1/incidents?undecided=true") == []
    (one,) = await ask(desk, "/v1/incidents")
    assert (one["decision"], one["reason"], one["by"].split("/")[0]) == (
        "village_alarm",
        "村级预警已启动",
        "411726-qxj",
    )
    records = await desk.core.store.audit.records()
    assert {"incident", "reveal_incidents", "incident:village_alarm"} <= {record.action for _, record, _ in records}
    assert not [secret for secret in ("桥头", "王大爷", "村级预警", *PHONES, *NAMES) if secret in repr(records)]


async def test_an_undecided_incident_rings_each_minute_and_a_decided_one_no_more(desk: Desk) -> None:
    """One bell that nobody heard is no bell."""
    await say(desk, WORDS)
    (one,) = await ask(desk, "/v1/incidents")
    name = f"{one['id']} incident"
    desk.clock.advance(3 * 24 * 3600)
    now = desk.clock.now()
    assert [line["id"] for line in await ask(desk, "/v1/incidents")] == [one["id"]], "owed, however old"
    before = metrics.REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": "incident"}) or 0.0
    due = await desk.core.obligations.due(name)
    assert due is not None
    assert (due - now).total_seconds() == 60
    assert metrics.REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": "incident"}) == before + 1
    body = {"answer": "unfounded", "remark": "误发"}
    await desk.call("POST", f"/v1/obligations/{one['id']}/incident", CLERK, body)
    assert await desk.core.obligations.due(name) is None


async def test_the_neighbouring_county_and_viewers_read_no_words(desk: Desk) -> None:
    """Who cannot help has nothing to read; a reply from nobody's number is everybody's, so that somebody reads it."""
    await say(desk, WORDS)
    await say(desk, "12", reference="r2")
    await say(desk, "救命", "+8619999999999", "r3")
    assert await ask(desk, "/v1/incidents", NEIGHBOUR) == []
    assert [one["text"] for one in await ask(desk, "/v1/replies", NEIGHBOUR)] == ["救命"]
    assert {one["text"] for one in await ask(desk, "/v1/replies")} == {"12", "救命"}
    for path in ("/v1/replies", "/v1/incidents"):
        assert (await desk.call("GET", path, VIEWER))[0].status == 403
    (mine,) = [one for one in await ask(desk, "/v1/replies") if one["text"] == "12"]
    body = {"meaning": "other"}
    assert (await desk.call("POST", f"/v1/replies/{mine['id']}", NEIGHBOUR, body))[0].status == 404


async def test_reading_replies_is_written_down_first(desk: Desk) -> None:
    """Without its record nothing is told; and a list with nothing in it is no reading."""
    assert await ask(desk, "/v1/replies") == []
    assert "reveal_replies" not in await actions(desk)
    await say(desk, "12")
    (one,) = await ask(desk, "/v1/replies")
    assert (one["number"], one["why"], one["meaning"]) == (masked(PHONES[0]), "for_a_person", "other")
    assert PHONES[0][3:] not in json.dumps(one)
    assert (await actions(desk))[-1] == "reveal_replies"


async def test_a_clerk_settles_a_reply_at_its_true_time(desk: Desk) -> None:
    """The clerk asked who it was; the proof says when it was said, and who wrote it down."""
    alert = (await desk.issue())["id"]
    await desk.delivered(alert)
    said = desk.clock.now()
    await say(desk, "我在呢")
    desk.clock.advance(900)
    (one,) = await ask(desk, "/v1/replies")
    path, body = f"/v1/replies/{one['id']}", {"meaning": "heard", "people": [str(desk.people[0])]}
    assert (await desk.call("POST", path, CLERK, {"meaning": "heard"}))[0].status == 400
    assert (await desk.call("POST", path, CLERK, body | {"people": [str(desk.people[1])]}))[0].status == 422
    assert (await desk.call("POST", path, CLERK, body))[0].status == 200
    _, found = await desk.call("GET", f"/v1/alerts/{alert}/confirmations", CLERK)
    assert [(line["person"], line["how"], line["at"]) for line in found["confirmations"]] == [
        (str(desk.people[0]), "reply:sms_twilio", said.isoformat().replace("+00:00", "Z"))
    ]
    assert await ask(desk, "/v1/replies") == []


async def test_a_status_names_the_village_whose_official_is_away(desk: Desk) -> None:
    """Heard is not reached: the village stands there by name until somebody is at post."""
    alert = (await desk.issue())["id"]
    await desk.delivered(alert)
    await say(desk, "2")
    _, status = await desk.call("GET", f"/v1/alerts/{alert}/status", CLERK)
    assert [place["code"][:9] for place in status["away"]] == ["411726209"]
    assert status["villages"]["confirmed"] == 0
    await say(desk, "1", reference="r2")
    _, status = await desk.call("GET", f"/v1/alerts/{alert}/status", CLERK)
    assert (status["away"], status["villages"]["confirmed"]) == ([], 1)


async def test_an_incident_in_answer_to_a_drill_says_so(desk: Desk) -> None:
    """Whoever decides knows what it answered; and that it may be real all the same, for it rings."""
    alert = await desk.held()
    assert (await desk.call("POST", f"/v1/alerts/{alert}/approve", "demo-411726-qxj-signer"))[0].status == 200
    await desk.delivered(alert)
    await say(desk, WORDS)
    (one,) = await ask(desk, "/v1/incidents")
    assert (one["alerts"], one["drill"]) == ([alert], True)


@pytest.mark.parametrize(
    ("number", "shown"),
    [("+8610012345678", "100****5678"), ("10086", "****"), ("", "****"), ("+447700900123", "+44****0123")],
)
def test_a_number_is_shown_to_who_knows_it_already(number: str, shown: str) -> None:
    """The middle of a number is what makes it one."""
    assert masked(number) == shown
