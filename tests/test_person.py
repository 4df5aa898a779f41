"""Asking for one person's history over HTTP and from a terminal: who may, what is told, and that it leaves a trace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from api_support import ADMIN, CLERK, ISSUER, JIALOU, NAMES, PHONES, SIGNER, VIEWER, Desk, opened
from manual_clock import ManualClock
from typer.testing import CliRunner

from gateway.cli import app
from gateway.model import Reply

ROUTE = "/v1/people/history"


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


async def audited(desk: Desk) -> list[tuple[str, str]]:
    records = await desk.core.store.audit.records()
    return [(record.actor, record.subject) for _, record, _ in records if record.action == "reveal_history"]


async def test_a_clerk_learns_what_somebody_was_told_and_that_stands_in_the_chain(desk: Desk) -> None:
    """The villager at the counter gives a number; the answer gives none back, and who asked is known for ever."""
    alert = (await desk.issue())["id"]
    await desk.delivered(alert)
    person = desk.people[0]
    reply = Reply("sms_twilio", "sms_twilio", "r1", PHONES[0], "1", desk.clock.now())
    await desk.core.receipts.commit("sms_twilio", [reply])
    spaced = f"{PHONES[0][3:6]} {PHONES[0][6:10]} {PHONES[0][10:]}"
    response, found = await desk.call("POST", ROUTE, CLERK, {"phone": spaced})
    assert response.status == 200, found
    assert response.headers["Cache-Control"] == "no-store"
    (one,) = found["people"]
    assert one["person"] == str(person)
    assert sorted(told["channel"] for told in one["told"]) == ["noop", "sms_twilio"]
    told = one["told"][0]
    assert (told["alert"], told["event"], told["level"], told["group"]) == (alert, "暴雨", "red", "officials")
    assert (told["village"][:9], told["state"], told["at"] > told["frozen_at"]) == (JIALOU, "delivered", True)
    assert [heard["state"] for heard in told["receipts"]] == ["delivered"]
    assert [(line["alert"], line["how"]) for line in one["confirmations"]] == [(alert, "reply:sms_twilio")]
    assert [line["outcome"] for line in one["replies"]] == ["confirmed:1"]
    assert not [secret for secret in (*PHONES, *NAMES, PHONES[0][3:]) if secret in json.dumps(found)]
    _, by_id = await desk.call("POST", ROUTE, ADMIN, {"person": str(person)})
    assert by_id == found
    assert [subject for _, subject in await audited(desk)] == [str(person)] * 2
    assert len({who for who, _ in await audited(desk)}) == 2


async def test_only_the_area_s_own_clerks_and_administrators_ask(desk: Desk) -> None:
    """Who was told what is nobody's gossip: not a writer's, not the neighbouring county's, and the try is on record."""
    person = {"person": str(desk.people[0])}
    for token in (ISSUER, SIGNER, VIEWER):
        assert (await desk.call("POST", ROUTE, token, person))[0].status == 403
    assert await audited(desk) == []
    await desk.database.write(lambda tx: tx.run("UPDATE place SET township = '411728100', village = ''"))
    response, problem = await desk.call("POST", ROUTE, CLERK, person)
    assert (response.status, problem["type"].rpartition("/")[2]) == (404, "unknown_person")
    assert [subject for _, subject in await audited(desk)] == ["nobody"]


async def test_of_who_lives_in_two_counties_neither_learns_what_was_replied_in_the_other(desk: Desk) -> None:
    """A reply is to a number, not to a county: told to both, each would learn the other's warnings and their times."""
    await desk.delivered((await desk.issue())["id"])
    reply = Reply("sms_twilio", "sms_twilio", "r1", PHONES[0], "1", desk.clock.now())
    await desk.core.receipts.commit("sms_twilio", [reply])
    insert = (
        "INSERT INTO place (township, audience, village, person, role, since)"
        " VALUES ('411728100', 'officials', '', :person, 'monitor', 1)"
    )
    await desk.database.write(lambda tx: tx.run(insert, person=desk.people[0]))
    _, found = await desk.call("POST", ROUTE, CLERK, {"phone": PHONES[0]})
    (one,) = found["people"]
    assert len(one["told"]) == 2
    assert one["replies"] == []


async def test_who_left_is_found_by_number_and_who_was_erased_by_id_alone(desk: Desk) -> None:
    """Moving away ends no duty to answer; erasure ends the link to a number, and breaks nothing that was proven."""
    alert = (await desk.issue())["id"]
    await desk.delivered(alert)
    await desk.database.write(lambda tx: tx.run("UPDATE place SET until = 1"))
    await desk.database.write(lambda tx: tx.run("UPDATE person SET standing = 'left'"))
    _, found = await desk.call("POST", ROUTE, CLERK, {"phone": PHONES[1]})
    assert {told["alert"] for told in found["people"][0]["told"]} == {alert}
    await desk.database.write(lambda tx: tx.run("UPDATE person SET secret = :none, phone_hash = :none", none=b""))
    assert (await desk.call("POST", ROUTE, CLERK, {"phone": PHONES[1]}))[0].status == 404
    _, found = await desk.call("POST", ROUTE, CLERK, {"person": str(desk.people[1])})
    assert {told["alert"] for told in found["people"][0]["told"]} == {alert}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"phone": PHONES[0], "person": "1"},
        {"phone": "0396-0000000"},
        {"phone": ""},
        {"phone": "1.99E+10"},
        {"phone": "\0"},
        {"phone": "9" * 41},
        {"person": "-1"},
        {"person": "9" * 19},
        {"person": "1", "limit": 0},
        {"person": "1", "until": "then"},
    ],
    ids=str,
)
async def test_a_wrong_question_is_refused_without_repeating_it(desk: Desk, body: dict[str, Any]) -> None:
    """A number typed wrongly is still somebody's: it appears in no answer and in no record."""
    response, problem = await desk.call("POST", ROUTE, CLERK, body)
    assert response.status == 400
    assert not [value for value in body.values() if len(str(value)) > 8 and str(value) in json.dumps(problem)]
    assert await audited(desk) == []


async def test_nothing_is_told_while_it_cannot_be_written_down_that_it_was(desk: Desk) -> None:
    """An answer without its record would be the one leak nobody finds."""
    desk.database.away = True
    assert (await desk.call("POST", ROUTE, CLERK, {"person": str(desk.people[0])}))[0].status == 503


async def test_the_terminal_takes_the_number_from_its_input_and_nowhere_else() -> None:
    """An argument is seen by every user of the machine, and stays in the shell's history."""
    asked: list[tuple[str, Any]] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append((str(request.rel_url), await request.json()))
        told = {"alert": "a1", "event": "暴雨", "level": "red", "channel": "sms", "group": "residents",
                "village": "411726204201", "state": "delivered", "code": "ok", "at": None}  # fmt: skip
        confirmed = {"alert": "a1", "how": "phone", "at": "2026-07-20T06:03:00Z"}
        replied = {"channel": "sms", "outcome": "confirmed:1", "at": "2026-07-20T06:02:00Z"}
        one = {"person": "7", "told": [told], "confirmations": [confirmed], "replies": [replied]}
        return web.json_response({"people": [one | {"earlier": "2026-07-20T05:00:00Z"}]})

    server = web.Application()
    server.router.add_post(ROUTE, handler)
    async with TestServer(server) as running:
        environment = {"MINGLUO_URL": str(running.make_url("")), "MINGLUO_TOKEN": "secret-token"}

        async def run(*words: str, typed: str = "") -> Any:
            arguments = ["history", *words]
            return await asyncio.to_thread(CliRunner().invoke, app, arguments, input=typed, env=environment)

        piped = await run(typed="199 0000 0001\n")
        by_id = await run("--person", "7", "--until", "2026-07-20T14:30", "--limit", "5", "--json")
        nothing, endless, argument = await run(typed="\n"), await run(typed="9" * 500), await run("19900000001")
    assert asked == [
        (ROUTE, {"phone": "199 0000 0001", "limit": 200}),
        (ROUTE, {"person": "7", "until": "2026-07-20T14:30", "limit": 5}),
    ]
    assert piped.exit_code == 0, piped.output
    assert all(word in piped.stdout for word in ("person 7", "暴雨 red", "delivered", "confirmed:1", "phone"))
    assert "--until 2026-07-20T05:00:00Z" in piped.stderr
    assert "199" not in piped.output
    assert json.loads(by_id.stdout)["people"][0]["person"] == "7"
    assert [one.exit_code for one in (nothing, endless, argument)] == [2, 2, 2]
