"""What people decide on a warning, through the API: the stages, the telephone, the sealed code, the joint warning."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from api_support import ADMIN, CITY, CLERK, ISSUER, JIALOU, NEIGHBOUR, POLICY, SIGNER, TONGSHAN, VIEWER, Desk, opened
from manual_clock import ManualClock

from gateway.api.shape import EXAMPLE
from gateway.decision import Telephone
from gateway.errors import Refused
from gateway.metrics import REGISTRY
from gateway.model import Group, Notice
from gateway.policy import Policy, Principal
from gateway.transaction import moment

REVIEWER = "demo-411726-qxj-reviewer"
WATER, WATER_SIGNER = "demo-411726-slj-issuer", "demo-411726-slj-signer"
COMMAND, COMMAND_SIGNER = "demo-411726-fzb-issuer", "demo-411726-fzb-signer"
CITY_SIGNER = "demo-4117-qxt-signer"
GALE = {"event_code": "11B06", "event": "大风", "level": "blue"}  # not on the green list, so review and sign
HEAT = {"event_code": "11B09", "event": "高温", "level": "orange"}  # one signature
OTHERWISE = {"instruction": "避免外出"}  # another wording
CALL = {
    "name": "王某某", "post": "带班领导", "number": "0396-0000000", "at": "2026-07-20T13:58:00+08:00",
    "recording": "R-20260720-17",
}  # fmt: skip


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


async def post(desk: Desk, path: str, token: str, body: object = None, status: int = 200, **headers: str) -> Any:
    """Send a request that must be answered so; return the content."""
    response, content = await desk.call("POST", path, token, body, **headers)
    assert response.status == status, content
    return content


async def decide(desk: Desk, alert: str, what: str, token: str, body: object = None, status: int = 200) -> Any:
    return await post(desk, f"/v1/alerts/{alert}/{what}", token, body, status)


async def standing(desk: Desk, alert: str) -> str:
    row = await desk.core.store.outbox.alert(alert)
    assert row is not None
    return row.standing


def code(content: Any) -> str:
    """The code a problem names."""
    return str(content["type"].rsplit("/", 1)[1])


# --- review and sign ------------------------------------------------------------------------------


async def test_an_ordinary_warning_is_reviewed_and_signed_by_two_others(desk: Desk) -> None:
    """Written, reviewed, signed: three persons, and nothing leaves before the third."""
    issued = await desk.issue(**GALE)
    assert (issued["standing"], issued["needs"]) == ("review", ["review", "sign"])
    reviewed = await decide(desk, issued["id"], "approve", REVIEWER)
    assert (reviewed["result"], reviewed["standing"]) == ("held", "sign")
    assert await desk.core.store.ledger.counts(issued["id"]) == {}
    signed = await decide(desk, issued["id"], "approve", SIGNER)
    assert (signed["result"], signed["standing"]) == ("accepted", "active")
    _, life = await desk.call("GET", f"/v1/alerts/{issued['id']}/decisions", VIEWER)
    assert [(one["standing"], one["event"], one["by"]) for one in life["decisions"]] == [
        ("", "submit", "411726-qxj/泌阳预报员"),
        ("review", "approve", "411726-qxj/泌阳审核员"),
        ("sign", "approve", "411726-qxj/泌阳带班领导"),
    ]


async def test_who_reviews_does_not_sign_and_a_reviewer_never_signs(desk: Desk) -> None:
    """Two persons beside the writer, each in their own part."""
    issued = await desk.issue(**GALE)
    await decide(desk, issued["id"], "approve", SIGNER)
    assert code(await decide(desk, issued["id"], "approve", SIGNER, status=403)) == "own_review"
    assert code(await decide(desk, issued["id"], "approve", REVIEWER, status=403)) == "not_entitled"
    assert code(await decide(desk, issued["id"], "approve", ISSUER, status=403)) == "own_alert"
    assert await standing(desk, issued["id"]) == "sign"


async def test_what_is_returned_goes_back_with_its_reason_and_comes_again_amended(desk: Desk) -> None:
    """A wrong township is mended by its writer, under the same identifier, and decided anew."""
    issued = await desk.issue(**HEAT)
    answer = await decide(desk, issued["id"], "return", SIGNER, {"reason": "乡镇写错了"})
    assert (answer["standing"], answer["reason"]) == ("returned", "乡镇写错了")
    assert code(await decide(desk, issued["id"], "approve", SIGNER, status=409)) == "not_possible"
    desk.clock.advance(60)
    areas = [{"description": "贾楼乡", "geocodes": {"township": [JIALOU]}}]
    sent = desk.clock.now().replace(microsecond=0).isoformat()
    response, amended = await desk.call(
        "PUT", f"/v1/alerts/{issued['id']}", ISSUER, EXAMPLE | HEAT | {"areas": areas, "sent": sent}
    )
    assert response.status == 200, amended
    assert (amended["result"], amended["standing"]) == ("draft", "draft")
    assert amended["id"] != issued["id"]  # another `sent`, another version
    assert (await desk.call("GET", f"/v1/alerts/{issued['id']}", ISSUER))[0].status == 404
    again = await decide(desk, amended["id"], "submit", ISSUER, status=202)
    assert again["standing"] == "sign"
    assert (await decide(desk, amended["id"], "approve", SIGNER))["result"] == "accepted"
    row = await desk.core.store.outbox.alert(amended["id"])
    assert row is not None
    assert [target.township for target in row.plan.targets] == [JIALOU]
    events = [one.event for one in await desk.core.store.outbox.decisions(amended["id"])]
    assert events == ["submit", "return", "amend", "submit", "approve"]


async def test_a_returned_warning_is_reviewed_again_by_whoever_reviewed_it_before(desk: Desk) -> None:
    """A county has one reviewer at night; a new wording is a new review, and no signature on the old one."""
    issued = await desk.issue(**GALE)
    await decide(desk, issued["id"], "approve", REVIEWER)
    await decide(desk, issued["id"], "return", SIGNER, {"reason": "乡镇写错了"})
    _, amended = await desk.call("PUT", f"/v1/alerts/{issued['id']}", ISSUER, EXAMPLE | GALE | OTHERWISE)
    await decide(desk, amended["id"], "submit", ISSUER, status=202)
    assert (await decide(desk, amended["id"], "approve", REVIEWER))["standing"] == "sign"


async def test_a_deputy_signs_but_hands_on_no_draft_and_recalls_nothing(desk: Desk) -> None:
    """The city stands in for the county's signer, not for its forecaster: what goes out or stops is the county's."""
    draft = await post(desk, "/v1/alerts/draft", ISSUER, EXAMPLE)
    issued = await desk.issue(identifier="out")
    desk.clock.advance(11 * 60)
    assert code(await decide(desk, draft["id"], "submit", CITY_SIGNER, status=404)) == "unknown_alert"
    refused = await decide(desk, issued["id"], "recall", CITY_SIGNER, {"reason": "误发"}, 403)
    assert code(refused) == "not_entitled"
    assert [await standing(desk, one["id"]) for one in (draft, issued)] == ["draft", "active"]


async def test_a_draft_is_checked_and_reaches_nobody_until_handed_on(desk: Desk) -> None:
    """Written in the afternoon, sent when the rain comes."""
    draft = await post(desk, "/v1/alerts/draft", ISSUER, EXAMPLE)
    assert (draft["result"], draft["standing"]) == ("draft", "draft")
    assert await desk.core.store.ledger.counts(draft["id"]) == {}
    assert [timer async for timer in _timers(desk)] == ["expire"]
    sent = await decide(desk, draft["id"], "submit", ISSUER, status=202)
    assert (sent["result"], sent["route"]) == ("accepted", "green")


async def _timers(desk: Desk) -> AsyncIterator[str]:
    for row in await desk.core.store.database.read(lambda tx: tx.all("SELECT kind FROM timer ORDER BY kind")):
        yield row[0]


async def test_a_draft_keeps_its_sender_and_identifier(desk: Desk) -> None:
    """Amending must not become a way to overwrite somebody else's warning."""
    draft = await post(desk, "/v1/alerts/draft", ISSUER, EXAMPLE)
    response, content = await desk.call("PUT", f"/v1/alerts/{draft['id']}", ISSUER, EXAMPLE | {"identifier": "another"})
    assert (response.status, code(content)) == (409, "another_alert")


async def test_nobody_puts_their_own_words_into_a_colleagues_draft_and_signs_them(desk: Desk) -> None:
    """Else one signer alone could send anything: amend, hand on and approve what stands under another's name."""
    draft = await post(desk, "/v1/alerts/draft", ISSUER, EXAMPLE | HEAT)
    path = f"/v1/alerts/{draft['id']}"
    response, content = await desk.call("PUT", path, SIGNER, EXAMPLE | HEAT | {"description": "另一段话"})
    assert (response.status, code(content)) == (403, "not_its_writer")
    assert code(await decide(desk, draft["id"], "submit", SIGNER, status=403)) == "not_its_writer"
    assert await standing(desk, draft["id"]) == "draft"


async def test_a_review_counts_for_the_wording_that_was_reviewed(desk: Desk) -> None:
    """The signer sends it back, the writer mends it: the one reviewer on duty looks at the new words, too."""
    issued = await desk.issue(**GALE)
    await decide(desk, issued["id"], "approve", REVIEWER)
    await decide(desk, issued["id"], "return", SIGNER, {"reason": "时间写错了"})
    path, mended = f"/v1/alerts/{issued['id']}", EXAMPLE | GALE | {"description": "大风将至，注意防范。"}
    assert (await desk.call("PUT", path, ISSUER, mended))[0].status == 200
    assert (await decide(desk, issued["id"], "submit", ISSUER, status=202))["standing"] == "review"
    assert (await decide(desk, issued["id"], "approve", REVIEWER))["standing"] == "sign"
    assert (await decide(desk, issued["id"], "approve", SIGNER))["result"] == "accepted"


async def test_a_draft_is_its_own_bodys_until_it_is_handed_on(desk: Desk) -> None:
    """Nobody acts on words that are still being written, and may never be sent."""
    draft = await post(desk, "/v1/alerts/draft", ISSUER, EXAMPLE | HEAT)
    path = f"/v1/alerts/{draft['id']}"
    assert [(await desk.call("GET", path, token))[0].status for token in (VIEWER, CITY, WATER)] == [200, 404, 404]
    assert (await desk.call("GET", "/v1/alerts?standing=draft", CITY))[1]["alerts"] == []
    await decide(desk, draft["id"], "submit", ISSUER, status=202)
    assert (await desk.call("GET", path, CITY))[0].status == 200


async def test_a_message_of_cap_status_draft_is_never_handed_on(desk: Desk) -> None:
    """CAP says that a draft is not actionable; it is amended to Actual first."""
    draft = await post(desk, "/v1/alerts", ISSUER, EXAMPLE | {"status": "Draft"}, status=202)
    assert draft["standing"] == "draft"
    assert code(await decide(desk, draft["id"], "submit", ISSUER, status=409)) == "draft_status"


async def test_only_the_writer_withdraws(desk: Desk) -> None:
    """A colleague rejects, with a reason; taking back is the writer's."""
    issued = await desk.issue(**HEAT)
    assert code(await decide(desk, issued["id"], "withdraw", SIGNER, {"reason": "误"}, 403)) == "not_its_writer"
    assert (await decide(desk, issued["id"], "withdraw", ISSUER, {"reason": "重写"}))["standing"] == "rejected"
    assert code(await decide(desk, issued["id"], "approve", SIGNER, status=409)) == "not_possible"


async def test_an_absent_signers_deputy_may_sign_in_time_and_not_before(desk: Desk) -> None:
    """The county's leader does not wake up; the city's signs after the policy's minutes."""
    issued = await desk.issue(**HEAT)
    assert code(await decide(desk, issued["id"], "approve", CITY_SIGNER, status=403)) == "not_entitled"
    desk.clock.advance(3 * 60)
    assert code(await decide(desk, issued["id"], "approve", CITY, status=403)) == "not_entitled"  # no signer
    assert (await decide(desk, issued["id"], "approve", CITY_SIGNER))["result"] == "accepted"


# --- by telephone, by sealed code -------------------------------------------------------------------


async def test_a_telephone_authorisation_sends_and_is_countersigned(desk: Desk) -> None:
    """At 2 a.m. the leader is at home: the duty officer calls, writes down, and the warning goes (D3)."""
    issued = await desk.issue(**HEAT)
    sent = await decide(desk, issued["id"], "authorise", CLERK, CALL)
    assert (sent["result"], sent["standing"]) == ("accepted", "active")
    _, owed = await desk.call("GET", "/v1/obligations", SIGNER)
    [countersign] = [one for one in owed["obligations"] if one["kind"] == "countersign"]
    due = datetime.fromisoformat(countersign["due"]) - desk.clock.now()
    assert (countersign["alert"], due) == (issued["id"], timedelta(hours=2))
    path = f"/v1/obligations/{issued['id']}/countersign"
    assert code(await post(desk, path, ISSUER, {"answer": "signed"}, 403)) == "not_entitled"
    assert (await post(desk, path, SIGNER, {"answer": "signed"}))["by"] == "411726-qxj/泌阳带班领导"
    assert code(await post(desk, path, SIGNER, {"answer": "signed"}, 409)) == "answered"


async def test_whose_authorisation_it_was_is_kept_encrypted_and_who_looks_is_noted(desk: Desk) -> None:
    """Names and numbers stand in no log, no chain and no answer but the one that asks for them (D23)."""
    issued = await desk.issue(**HEAT)
    await decide(desk, issued["id"], "authorise", CLERK, CALL)
    _, found = await desk.call("GET", f"/v1/alerts/{issued['id']}/minutes", SIGNER)
    assert found["minutes"][0]["content"]["name"] == CALL["name"]
    chain = [record for _, record, _ in await desk.core.store.audit.records()]
    assert chain[-1].action == "reveal_minutes"
    assert not any(CALL["name"] in str(record) or CALL["number"] in str(record) for record in chain)
    stored = await desk.database.read(lambda tx: tx.all("SELECT secret FROM minute"))
    assert not any("王某某".encode() in bytes(row[0]) for row in stored)


async def test_whom_a_body_telephoned_is_for_its_own_people(desk: Desk) -> None:
    """The names and numbers of a county's leaders are not every bureau's that the warning touches (D23)."""
    issued = await desk.issue(**HEAT)
    await decide(desk, issued["id"], "authorise", CLERK, CALL)
    for token in (WATER_SIGNER, COMMAND, CITY):
        response, content = await desk.call("GET", f"/v1/alerts/{issued['id']}/minutes", token)
        assert (response.status, code(content)) == (403, "not_entitled")
    chain = [record.action for _, record, _ in await desk.core.store.audit.records()]
    assert "reveal_minutes" not in chain


async def test_a_call_that_nothing_proves_authorises_nothing(desk: Desk) -> None:
    """A recording, or a second witness; a claim alone is no signature."""
    issued = await desk.issue(**HEAT)
    call = CALL | {"recording": ""}
    assert code(await decide(desk, issued["id"], "authorise", CLERK, call, 422)) == "no_proof"
    assert (await decide(desk, issued["id"], "authorise", CLERK, call | {"witness": "李某"}))["result"] == "accepted"


async def test_a_call_that_has_not_taken_place_authorises_nothing(desk: Desk) -> None:
    """A slip of the month is found while the leader is still on the line."""
    issued = await desk.issue(**HEAT)
    later = CALL | {"at": (desk.clock.now() + timedelta(days=30)).isoformat()}
    assert code(await decide(desk, issued["id"], "authorise", CLERK, later, 422)) == "postdated"


async def test_a_sealed_code_issues_one_warning_past_every_stage(desk: Desk) -> None:
    """Locked out, alone, the rain falling: the envelope in the duty room is opened (D3)."""
    made = await post(desk, "/v1/break-glass/codes", ADMIN, {"issuer": "411726-qxj", "label": "值班室一号"})
    headers = {"Break-Glass": made["code"].lower().replace("-", " ")}
    sent = await post(desk, "/v1/break-glass", "", EXAMPLE | HEAT, 202, **headers)
    assert (sent["result"], sent["needs"]) == ("accepted", [])
    repeated = await post(desk, "/v1/break-glass", "", EXAMPLE | HEAT, 200, **headers)  # its answer was lost
    assert (repeated["result"], repeated["id"]) == ("duplicate", sent["id"])
    again = EXAMPLE | HEAT | {"identifier": "another"}
    assert code(await post(desk, "/v1/break-glass", "", again, 403, **headers)) == "unknown_code"
    _, listed = await desk.call("GET", "/v1/break-glass/codes", ADMIN)
    assert (listed["codes"][0]["alert"], listed["codes"][0]["label"]) == (sent["id"], "值班室一号")
    _, owed = await desk.call("GET", "/v1/obligations", SIGNER)
    assert "countersign" in {one["kind"] for one in owed["obligations"]}
    actions = [record.action for _, record, _ in await desk.core.store.audit.records()]
    assert "break_glass" in actions


async def test_a_sealed_code_is_not_said_to_have_issued_what_waits(desk: Desk) -> None:
    """The officer handed it in, nobody signs, the envelope is opened: "duplicate" would read as if it had gone out."""
    waiting = await desk.issue(**HEAT)
    made = await post(desk, "/v1/break-glass/codes", ADMIN, {"issuer": "411726-qxj", "label": "一号"})
    headers = {"Break-Glass": made["code"]}
    refused = await post(desk, "/v1/break-glass", "", EXAMPLE | HEAT, 409, **headers)
    assert (code(refused), await standing(desk, waiting["id"])) == ("conflict", "sign")
    sent = await post(desk, "/v1/break-glass", "", EXAMPLE | HEAT | {"identifier": "anew"}, 202, **headers)
    assert sent["standing"] == "active"


async def test_a_sealed_code_sent_again_says_what_became_of_the_warning(desk: Desk) -> None:
    """The answer was lost: alone at night, nobody must be told that the code was unknown when all phones ring."""
    made = await post(desk, "/v1/break-glass/codes", ADMIN, {"issuer": "411726-qxj", "label": "一号"})
    headers = {"Break-Glass": made["code"]}
    sent = await post(desk, "/v1/break-glass", "", EXAMPLE | HEAT, 202, **headers)
    again = await post(desk, "/v1/break-glass", "", EXAMPLE | HEAT, 200, **headers)
    assert (again["result"], again["id"]) == ("duplicate", sent["id"])


async def test_a_sealed_code_breaks_no_authority(desk: Desk) -> None:
    """It passes the stages, not the border: the neighbour's county stays the neighbour's; the code stays unused."""
    made = await post(desk, "/v1/break-glass/codes", ADMIN, {"issuer": "411728-qxj", "label": "一号"})
    refused = await post(desk, "/v1/break-glass", "", EXAMPLE, 403, **{"Break-Glass": made["code"]})
    assert code(refused) == "outside_authority"
    _, listed = await desk.call("GET", "/v1/break-glass/codes", ADMIN)
    assert listed["codes"][0]["used_at"] is None


@pytest.mark.parametrize("tried", ["", "AAAA-BBBB", "x" * 5000, "码"])
async def test_a_wrong_code_opens_nothing(desk: Desk, tried: str) -> None:
    """Guessing is refused and rings."""
    headers = {"Break-Glass": tried.encode().decode("latin-1")} if tried else {}
    assert code(await post(desk, "/v1/break-glass", "", EXAMPLE, 403, **headers)) == "unknown_code"


async def test_whoever_guesses_codes_is_slowed_down_and_no_officer_is_locked_out(desk: Desk) -> None:
    """An alarm that anybody can ring all night is switched off; the sealed code opens all the same."""
    made = await post(desk, "/v1/break-glass/codes", ADMIN, {"issuer": "411726-qxj", "label": "一号"})
    rung = partial(REGISTRY.get_sample_value, "mingluo_alarms_total", {"kind": "break_glass"})
    before = rung() or 0.0
    guessed = {"Break-Glass": "AAAA-BBBB"}
    answers = [(await desk.call("POST", "/v1/break-glass", "", EXAMPLE, **guessed))[0].status for _ in range(40)]
    assert answers.count(429) > 20
    assert (rung() or 0.0) - before == answers.count(403) == 40 - answers.count(429) > 0
    await post(desk, "/v1/break-glass", "", EXAMPLE | HEAT, 202, **{"Break-Glass": made["code"]})


# --- joint warnings ---------------------------------------------------------------------------------

JOINT = {"document": "joint_risk", "event_code": "11A51", "event": "山洪灾害", "level": "orange"}


async def test_a_joint_warning_waits_for_its_partner_and_then_for_its_signer(desk: Desk) -> None:
    """Weather and water speak with one mouth (D9)."""
    issued = await desk.issue(**JOINT)
    assert issued["needs"] == ["partner", "sign"]
    assert code(await decide(desk, issued["id"], "join", NEIGHBOUR, {}, 404)) == "unknown_alert"
    assert code(await decide(desk, issued["id"], "join", COMMAND, {}, 403)) == "not_entitled"
    joined = await decide(desk, issued["id"], "join", WATER, {})
    assert joined["standing"] == "sign"
    assert "joint: with 泌阳县水利局" in joined["reasons"]
    assert (await decide(desk, issued["id"], "approve", SIGNER))["result"] == "accepted"
    await desk.planner.round()
    [(batch, _), *_] = await desk.core.store.ledger.batches(issued["id"])
    message = await desk.core.composer.message(batch, (0,), again=False)
    assert "泌阳县气象局、泌阳县水利局" in message.text


async def test_the_partners_word_by_telephone_is_written_down(desk: Desk) -> None:
    """The water bureau has no computer at hand, but a telephone."""
    issued = await desk.issue(**JOINT)
    assert code(await decide(desk, issued["id"], "join", CLERK, {"partner": "411726-slj"}, 403)) == "not_entitled"
    joined = await decide(desk, issued["id"], "join", CLERK, {"partner": "411726-slj", "call": CALL})
    assert joined["standing"] == "sign"
    [minute] = await desk.core.store.minutes.of(issued["id"])
    assert minute.kind == "join"


async def test_alone_only_after_the_partner_was_waited_for(desk: Desk) -> None:
    """Ten minutes, five for red; then the own name is better than silence."""
    issued = await desk.issue(**JOINT)
    assert code(await decide(desk, issued["id"], "alone", SIGNER, status=409)) == "too_early"
    desk.clock.advance(10 * 60)
    assert (await decide(desk, issued["id"], "alone", SIGNER))["standing"] == "sign"
    assert (await decide(desk, issued["id"], "approve", SIGNER))["result"] == "accepted"


async def test_a_clerk_agrees_for_nobody_without_a_call(desk: Desk) -> None:
    """The partner's word is a writer's or a recorded call's; whoever minds its telephone cannot give it."""
    issued = await desk.issue(**JOINT)
    clerk = Principal("泌阳水利值班员", "clerk", "411726-slj")
    with pytest.raises(Refused, match="notes a call"):
        await desk.core.decisions.join(issued["id"], clerk)
    call = Telephone("王某某", "带班领导", "0396-0000000", desk.clock.now(), recording="R-1")
    assert (await desk.core.decisions.join(issued["id"], clerk, call)).standing == "sign"


async def test_one_of_two_partners_makes_nobody_wait_longer_for_the_other(tmp_path: Path, clock: ManualClock) -> None:
    """At most ten minutes, however many are asked (D9); and who agreed to an older wording is asked again."""
    bureaus = ("气象", "水利", "自然资源")
    rows = tuple(row.model_copy(update={"bureaus": bureaus}) for row in POLICY.tables.procedure.joint)
    procedure = POLICY.tables.procedure.model_copy(update={"joint": rows})
    policy = Policy(POLICY.tables.model_copy(update={"procedure": procedure}))
    async with opened(tmp_path, clock, policy=policy) as desk:
        issued = await desk.issue(**JOINT)
        desk.clock.advance(9 * 60)
        assert (await decide(desk, issued["id"], "join", WATER, {}))["standing"] == "partner"
        due = await desk.database.read(lambda tx: tx.one("SELECT due FROM timer WHERE kind = 'partner'"))
        assert due is not None
        assert moment(due[0]) == desk.clock.now() + timedelta(minutes=1)
        desk.clock.advance(60)
        await decide(desk, issued["id"], "return", SIGNER, {"reason": "乡镇写错了"})
        _, amended = await desk.call("PUT", f"/v1/alerts/{issued['id']}", ISSUER, EXAMPLE | JOINT | OTHERWISE)
        await decide(desk, amended["id"], "submit", ISSUER, status=202)
        land = Principal("泌阳地灾员", "issuer", "411726-zrzyj")
        assert (await desk.core.decisions.join(amended["id"], land)).standing == "partner"
        desk.clock.advance(10 * 60)
        assert (await decide(desk, amended["id"], "alone", SIGNER))["standing"] == "sign"


async def test_a_consultation_is_kept_with_the_alert(desk: Desk) -> None:
    """Who sat together and what they concluded is asked for a year later."""
    issued = await desk.issue(**JOINT)
    body = {"at": CALL["at"], "participants": ["张某", "李某"], "conclusion": "山洪风险高，联合发布"}
    await decide(desk, issued["id"], "consultation", ISSUER, body)
    _, found = await desk.call("GET", f"/v1/alerts/{issued['id']}/minutes", SIGNER)
    assert found["minutes"][0]["content"]["participants"] == ["张某", "李某"]


# --- near-duplicates --------------------------------------------------------------------------------


async def test_the_same_again_is_kept_back_shown_and_can_be_let_go(desk: Desk) -> None:
    """A nervous second press disturbs nobody, but is never lost (D4)."""
    first = await desk.issue()
    desk.clock.advance(60)
    second = await desk.issue(identifier="again", description=EXAMPLE["description"].replace("3", "2"))
    assert (second["result"], second["standing"]) == ("held", "suppressed")
    assert any(first["id"] in reason for reason in second["reasons"])
    _, listed = await desk.call("GET", "/v1/alerts?standing=suppressed", VIEWER)
    assert [one["id"] for one in listed["alerts"]] == [second["id"]]
    released = await decide(desk, second["id"], "release", ISSUER)
    assert (released["result"], released["route"]) == ("accepted", "green")


@pytest.mark.parametrize(
    "changes",
    [
        {"level": "orange"},
        {"event_code": "11B64", "event": "短时强降水"},
        {"description": "贾楼乡水库告急，雨量将超过100毫米。"},
        {"expires": "2026-07-20T20:00:00+08:00"},
        {"areas": [{"description": "花园街道", "geocodes": {"township": ["411726001"]}}]},
        {"response_types": ["Evacuate"]},
    ],
    ids=["level", "hazard", "words", "longer", "new village", "asks for more"],
)
async def test_what_says_something_new_is_never_kept_back(desk: Desk, changes: dict[str, Any]) -> None:
    """A higher level, another hazard, a new village or other words always go out (D4)."""
    await desk.issue()
    desk.clock.advance(60)
    assert (await desk.issue(identifier="again", **changes))["standing"] == "active"


# --- the emergency regime ---------------------------------------------------------------------------


async def test_under_the_emergency_regime_red_leaves_at_once_and_its_use_is_reviewed(desk: Desk) -> None:
    """Named posts start it; what the green channel does not know goes out all the same (D8)."""
    red = HEAT | {"level": "red"}
    assert (await desk.issue(**red))["standing"] == "sign"
    assert code(await post(desk, "/v1/emergency", SIGNER, {"area": "411726", "reason": "特大"}, 403)) == "not_entitled"
    regime = await post(desk, "/v1/emergency", COMMAND_SIGNER, {"area": "411726", "reason": "特大暴雨"})
    again = await post(desk, "/v1/emergency", COMMAND_SIGNER, {"area": "411726", "reason": "再"}, 409)
    assert code(again) == "in_force"
    sent = await desk.issue(identifier="b", **red)
    assert (sent["standing"], sent["route"]) == ("active", "emergency")
    assert (await desk.issue(identifier="c", **HEAT))["standing"] == "sign"  # orange is not its business
    _, owed = await desk.call("GET", "/v1/obligations?unanswered=true", COMMAND_SIGNER)
    kinds = {(one["alert"], one["kind"]) for one in owed["obligations"]}
    assert {(regime["id"], "emergency_review"), (sent["id"], "calls")} <= kinds
    form = f"/v1/obligations/{regime['id']}/emergency_review"
    assert code(await post(desk, form, COMMAND_SIGNER, {"answer": "filed"}, 422)) == "no_remark"
    assert (await post(desk, form, COMMAND_SIGNER, {"answer": "filed", "remark": "启用得当"}))["answer"] == "filed"


@pytest.mark.parametrize("area", ["4117", "411700"])
async def test_a_regime_over_the_city_holds_in_its_counties(desk: Desk, area: str) -> None:
    """The night it is needed everywhere it must not be refused, nor be in force over nothing."""
    regime = await post(desk, "/v1/emergency", CITY, {"area": area, "reason": "特大暴雨", "call": CALL})
    assert regime["area"] == "4117"
    assert (await desk.issue(**HEAT | {"level": "red"}))["route"] == "emergency"


async def test_a_regime_whose_time_is_over_is_started_anew_and_not_renewed(desk: Desk) -> None:
    """Nobody was asked for the hours between, whether or not the clock has noted the end."""
    regime = await post(desk, "/v1/emergency", COMMAND_SIGNER, {"area": "411726", "reason": "特大暴雨"})
    desk.clock.advance(7 * 3600)
    assert code(await post(desk, f"/v1/emergency/{regime['id']}/renew", COMMAND_SIGNER, {}, 409)) == "ended"
    await post(desk, "/v1/emergency", COMMAND_SIGNER, {"area": "411726", "reason": "特大暴雨"})


async def test_the_emergency_regime_ends_by_itself_unless_renewed(desk: Desk) -> None:
    """What is forgotten must not stay in force for a season."""
    regime = await post(desk, "/v1/emergency", COMMAND_SIGNER, {"area": "411726", "reason": "特大暴雨"})
    desk.clock.advance(5 * 3600)
    renewed = await post(desk, f"/v1/emergency/{regime['id']}/renew", COMMAND_SIGNER, {})
    assert datetime.fromisoformat(renewed["until"]) == desk.clock.now() + timedelta(hours=6)
    assert await desk.core.regimes.expire(regime["id"]) == desk.clock.now() + timedelta(hours=6)
    desk.clock.advance(6 * 3600)
    assert await desk.core.regimes.expire(regime["id"]) is None
    [over] = (await desk.call("GET", "/v1/emergency", VIEWER))[1]["regimes"]
    assert over["ended_at"] is not None
    assert code(await post(desk, f"/v1/emergency/{regime['id']}/end", COMMAND_SIGNER, status=409)) == "ended"


async def test_the_regime_is_started_by_telephone_where_no_named_post_is_at_hand(desk: Desk) -> None:
    """The duty officer writes down who ordered it."""
    body = {"area": "411726", "reason": "特大暴雨", "call": CALL}
    regime = await post(desk, "/v1/emergency", CLERK, body)
    [minute] = await desk.core.store.minutes.of(regime["id"])
    assert minute.kind == "emergency"


async def test_the_regime_uses_every_channel_that_can_serve(desk: Desk) -> None:
    """All roads, each person once on each (D8, rule 6)."""
    await post(desk, "/v1/emergency", COMMAND_SIGNER, {"area": "411726", "reason": "特大暴雨"})
    sent = await desk.issue(**HEAT | {"level": "red"})
    row = await desk.core.store.outbox.alert(sent["id"])
    assert row is not None
    used = {(step.audience.group, step.audience.channel, step.audience.language) for step in row.plan.steps}
    for group in (Group.OFFICIALS, Group.RESIDENTS):
        assert {channel for one, channel, _ in used if one is group} == {"sms_twilio", "noop"}
    assert len(used) == len(row.plan.steps)


# --- obligations --------------------------------------------------------------------------------------


async def test_a_green_warning_owes_its_review_and_rings_until_it_is_answered(desk: Desk) -> None:
    """Fewer approvals before, one afterwards (R7)."""
    sent = await desk.issue()
    name = f"{sent['id']} review"
    assert await desk.core.obligations.due(name) == desk.clock.now() + timedelta(minutes=30)
    desk.clock.advance(30 * 60)
    assert await desk.core.obligations.due(name) == desk.clock.now() + timedelta(minutes=5)
    path = f"/v1/obligations/{sent['id']}/review"
    assert code(await post(desk, path, REVIEWER, {"answer": "fine"}, 422)) == "wrong_answer"
    await post(desk, path, REVIEWER, {"answer": "endorsed", "remark": "及时"})
    assert await desk.core.obligations.due(name) is None


async def test_reasons_and_remarks_stand_beside_the_chain_and_not_in_it(desk: Desk) -> None:
    """Officers write names; nothing is ever erased from the chain (rule 9, D23)."""
    words = {"reason": "王小明报错了"}
    held = await desk.issue(**HEAT)
    await decide(desk, held["id"], "return", SIGNER, words)
    sent = await desk.issue(identifier="sent")
    await post(desk, f"/v1/obligations/{sent['id']}/review", REVIEWER, {"answer": "endorsed", "remark": "王小明及时"})
    person = str(desk.people[0])
    await decide(desk, sent["id"], "confirmations", CLERK, {"person": person, "how": "phone", "note": "王小明已到岗"})
    await decide(desk, sent["id"], "recall", ISSUER, words)
    await post(desk, "/v1/emergency", COMMAND_SIGNER, words | {"area": "411726"})
    chain = [record for _, record, _ in await desk.core.store.audit.records()]
    assert {"return", "review:endorsed", "confirm", "recall", "emergency_start"} <= {one.action for one in chain}
    assert not [one for one in chain if "王小明" in str(one)]
    _, life = await desk.call("GET", f"/v1/alerts/{sent['id']}/decisions", VIEWER)
    recall = life["decisions"][-1]
    assert (recall["standing"], recall["event"], recall["reason"]) == ("active", "recall", words["reason"])


async def test_thirty_minutes_before_it_lapses_somebody_is_asked(desk: Desk) -> None:
    """Continue, downgrade or cancel: nobody may wonder next morning why the warning was gone (D18)."""
    sent = await desk.issue()
    row = await desk.core.store.outbox.alert(sent["id"])
    assert row is not None
    assert row.alert.expires is not None
    found = await desk.core.store.obligations.get(sent["id"], "lapse")
    assert found is not None
    assert found.due == row.alert.expires - timedelta(minutes=30)
    await decide(desk, sent["id"], "recall", ISSUER, {"reason": "误发"})
    desk.clock.advance(6 * 3600)
    assert await desk.core.obligations.due(f"{sent['id']} lapse") is None  # it is over: nothing is asked any more
    _, owed = await desk.call("GET", "/v1/obligations", ISSUER)
    assert [(one["kind"], one["event"], one["overdue"]) for one in owed["obligations"]] == [("review", "暴雨", True)]
    _, every = await desk.call("GET", "/v1/obligations?unanswered=false", ISSUER)
    assert ("lapse", False) in {(one["kind"], one["overdue"]) for one in every["obligations"]}


async def test_what_goes_out_in_its_last_half_hour_asks_at_once(desk: Desk) -> None:
    """A warning that waited for its signature lapses as silently as any other."""
    sent = await desk.issue(event_code="11B09", event="高温", level="orange", expires="2026-07-20T14:50:00+08:00")
    desk.clock.advance(25 * 60)
    await decide(desk, sent["id"], "approve", SIGNER)
    found = await desk.core.store.obligations.get(sent["id"], "lapse")
    assert found is not None
    assert found.due == desk.clock.now()
    short = await desk.issue(identifier="short", expires="2026-07-20T14:26:00+08:00")
    assert await desk.core.store.obligations.get(short["id"], "lapse") is None


async def test_the_life_of_an_alert_ends_with_what_ended_it(desk: Desk) -> None:
    """Who recalled it, why, and by which message it was replaced stand where everybody looks."""
    recalled, ended = await desk.issue(), await desk.issue(identifier="b", **HEAT)
    await decide(desk, recalled["id"], "recall", ISSUER, {"reason": "误发"})
    await decide(desk, ended["id"], "approve", SIGNER)
    clear = await decide(desk, ended["id"], "cancel", ISSUER, {"note": ""}, 202)
    await decide(desk, clear["id"], "approve", SIGNER)
    lives = [(await desk.call("GET", f"/v1/alerts/{one['id']}/decisions", ISSUER))[1] for one in (recalled, ended)]
    last = [life["decisions"][-1] for life in lives]
    assert [(one["standing"], one["event"], one["by"], one["reason"]) for one in last] == [
        ("active", "recall", "411726-qxj/泌阳预报员", "误发"),
        ("active", "replace", "gateway", f"cancelled: {clear['id']}"),
    ]


# --- the order of things ------------------------------------------------------------------------------


async def test_what_nobody_has_to_answer_any_more_fills_no_list(desk: Desk) -> None:
    """A list has an end: a season's questions about warnings long over would push tonight's countersign off it."""
    issued = await desk.issue()
    assert await _owed(desk) == ["review", "lapse"]
    await decide(desk, issued["id"], "recall", ISSUER, {"reason": "误发"})
    assert await _owed(desk) == ["review"]


async def _owed(desk: Desk) -> list[str]:
    return [one.kind for one in await desk.core.store.obligations.since(desk.clock.now(), unanswered=True)]


async def test_a_drill_is_refused_under_a_real_orange_or_red_and_stopped_by_one(desk: Desk) -> None:
    """Nobody may wonder whether the siren is an exercise (D19)."""
    drill = await desk.held(identifier="drill")
    assert (await decide(desk, drill, "approve", SIGNER))["result"] == "accepted"
    waiting = await desk.held(identifier="later")
    await desk.issue(identifier="real")
    assert [await standing(desk, one) for one in (drill, waiting)] == ["stopped", "stopped"]
    refused = await post(desk, "/v1/alerts", ISSUER, EXAMPLE | {"identifier": "n", "status": "Exercise"}, 409)
    assert code(refused) == "real_warning"


async def test_an_evacuation_has_no_colour_and_stops_a_drill_all_the_same(desk: Desk) -> None:
    """People who are told to leave must not hear an exercise beside it (D19)."""
    drill = await desk.held(identifier="drill")
    order = {"sender": "411726-fzb@mingluo.example", "document": "evacuation", "level": "unknown"}
    issued = await post(desk, "/v1/alerts", COMMAND, EXAMPLE | order | {"identifier": "order"}, 202)
    await decide(desk, issued["id"], "approve", COMMAND_SIGNER)
    assert await standing(desk, drill) == "stopped"
    refused = await post(desk, "/v1/alerts", ISSUER, EXAMPLE | {"identifier": "n", "status": "Exercise"}, 409)
    assert code(refused) == "real_warning"


async def test_what_arrives_long_after_it_was_sent_waits_for_a_person(desk: Desk) -> None:
    """A feed replayed after a cut must not sound yesterday's alarm through the green channel (T9)."""
    desk.clock.advance(45 * 60)
    late = await desk.issue()
    assert late["standing"] == "sign"
    assert late["held"][0].startswith("late:")


async def test_an_end_that_overtook_its_warning_makes_it_wait(desk: Desk) -> None:
    """Its all-clear is here and waits: a person must say which holds (T2)."""
    reference = {key: EXAMPLE[key] for key in ("sender", "identifier", "sent")}
    end = await desk.issue(identifier="end", kind="Cancel", references=[reference])
    assert end["standing"] == "sign"
    first = await desk.issue()
    assert (first["standing"], first["held"][0].split(":")[0]) == ("sign", "overtaken")


async def test_an_update_of_the_first_version_ends_the_whole_chain(desk: Desk) -> None:
    """A feed that always refers to the first message leaves one version in force, not three."""
    first = await desk.issue()
    reference = {key: EXAMPLE[key] for key in ("sender", "identifier", "sent")}
    ids = []
    for number in (1, 2):
        desk.clock.advance(60)
        sent = desk.clock.now().replace(microsecond=0).isoformat()
        expires = f"2026-07-20T{17 + number}:00:00+08:00"
        update = await desk.issue(
            identifier=f"u{number}", kind="Update", sent=sent, references=[reference], expires=expires
        )
        ids.append(update["id"])
        assert update["standing"] == "active", update
    assert [await standing(desk, one) for one in (first["id"], *ids)] == ["stopped", "stopped", "active"]


async def test_an_older_update_never_replaces_a_newer_one(desk: Desk) -> None:
    """Stale news arriving late must not lower the level in force (DESIGN 3.9)."""
    await desk.issue()
    reference = {key: EXAMPLE[key] for key in ("sender", "identifier", "sent")}
    desk.clock.advance(120)
    times = [(desk.clock.now() - timedelta(seconds=back)).replace(microsecond=0).isoformat() for back in (0, 60)]
    extended = "2026-07-20T18:00:00+08:00"
    await desk.issue(identifier="newer", kind="Update", sent=times[0], references=[reference], expires=extended)
    older = EXAMPLE | {"identifier": "older", "kind": "Update", "sent": times[1], "references": [reference]}
    assert code(await post(desk, "/v1/alerts", ISSUER, older, 409)) == "overtaken"


async def test_a_county_only_area_reaches_its_residents_once_a_person_has_decided(desk: Desk) -> None:
    """Officials and loudspeakers at once, residents after a second look, and then really (D2)."""
    county = [{"description": "泌阳县", "geocodes": {"county": ["411726"]}}]
    sent = await desk.issue(areas=county)
    row = await desk.core.store.outbox.alert(sent["id"])
    assert row is not None
    assert (sent["standing"], row.plan.held[0].split(":")[0]) == ("active", "coarse_area")
    assert {step.audience.group for step in row.plan.steps} == {Group.OFFICIALS}
    await decide(desk, sent["id"], "approve", SIGNER)
    row = await desk.core.store.outbox.alert(sent["id"])
    assert row is not None
    assert {step.audience.group for step in row.plan.steps} == {Group.OFFICIALS, Group.RESIDENTS}
    assert row.plan.held == ()
    assert TONGSHAN in {target.township for target in row.plan.targets}


async def test_a_countersigned_update_tells_nobody_twice(desk: Desk) -> None:
    """Whom the green part of an update told is not told again when the rest may hear it, nor of a first issue."""
    areas = [{"description": "驿城区、泌阳县", "geocodes": {"township": ["411702001", JIALOU]}}]
    city = {"sender": "4117-qxt@mingluo.example", "areas": areas}
    await desk.issue(CITY, **city, level="orange")
    desk.clock.advance(60)
    reference = {key: EXAMPLE[key] for key in ("identifier", "sent")} | {"sender": city["sender"]}
    sent = desk.clock.now().replace(microsecond=0).isoformat()
    update = await desk.issue(CITY, **city, identifier="u", kind="Update", sent=sent, references=[reference])
    assert (update["standing"], update["held"][0].split(":")[0]) == ("active", "over_ceiling")
    await decide(desk, update["id"], "approve", CITY_SIGNER)
    row = await desk.core.store.outbox.alert(update["id"])
    assert row is not None
    audiences = [step.audience for step in row.plan.steps]
    told = [(one.group, one.channel, target.township) for one in audiences for target in one.targets]
    assert len(told) == len(set(told))
    assert {(one, "sms_twilio", "411702001") for one in (Group.OFFICIALS, Group.RESIDENTS)} <= set(told)
    assert {step.notice for step in row.plan.steps} == {Notice.UPDATE}
    later = next(one for one in audiences if one.group is Group.OFFICIALS and one.targets[0].township == JIALOU)
    assert [target.township for target in later.before] == ["411702001"]  # who has a place in both is told once


async def correction_of(desk: Desk, alert: str) -> dict[str, Any]:
    """A correction of the example, as a client of its own would write it."""
    row = await desk.core.store.outbox.alert(alert)
    assert row is not None
    said = {"sender": row.alert.sender, "identifier": row.alert.identifier, "sent": row.alert.sent.isoformat()}
    sent = desk.clock.now().replace(microsecond=0).isoformat()
    return EXAMPLE | {"identifier": "withdrawn", "kind": "Correction", "sent": sent, "references": [said]}


@pytest.mark.parametrize("way", ["ordered", "written", "draft"])
@pytest.mark.parametrize(("token", "alone"), [(ISSUER, False), (REVIEWER, False), (SIGNER, True)])
async def test_only_a_signer_corrects_alone(desk: Desk, token: str, alone: bool, way: str) -> None:
    """D7: whichever way it comes in, and the preview says beforehand what will become of it."""
    sent = await desk.issue()
    desk.clock.advance(1)
    body = await correction_of(desk, sent["id"])
    shown = await post(desk, "/v1/alerts/preview", token, body, 200)
    if way == "ordered":
        made = await post(desk, f"/v1/alerts/{sent['id']}/correct", token, {"note": "误发"}, 202)
    elif way == "written":
        made = await post(desk, "/v1/alerts", token, body, 202)
    else:
        await post(desk, "/v1/alerts/draft", token, body)
        made = await decide(desk, shown["alert"], "submit", token, status=202)
    assert made["standing"] == shown["standing"] == ("active" if alone else "sign")
    assert [text.split(":")[0] for text in made["held"]] == ([] if alone else ["correction"])
    was = await desk.core.store.outbox.alert(sent["id"])
    assert was is not None
    assert was.standing == ("stopped" if alone else "active")
    assert (("held", made["id"]) in await desk.core.store.timers.take(99)) is not alone


@pytest.mark.parametrize(
    ("token", "status", "why"),
    [
        (CLERK, 403, "wrong_role"),
        (VIEWER, 403, "wrong_role"),
        (ADMIN, 403, "wrong_role"),
        (NEIGHBOUR, 404, "unknown_alert"),
        (COMMAND_SIGNER, 403, "outside_authority"),
    ],
)
async def test_who_writes_nothing_for_the_body_corrects_nothing(desk: Desk, token: str, status: int, why: str) -> None:
    """Another body's signer is as little entitled as a clerk; another county does not even see the alert."""
    sent = await desk.issue()
    assert code(await post(desk, f"/v1/alerts/{sent['id']}/correct", token, {"note": "误发"}, status)) == why
    assert await standing(desk, sent["id"]) == "active"


@pytest.mark.parametrize("way_out", ["approve", "authorise", "correct"])
async def test_a_waiting_correction_goes_out_by_each_way_out(desk: Desk, way_out: str) -> None:
    """A false alarm stands for minutes, not until a certain person is back."""
    sent = await desk.issue()
    held = await post(desk, f"/v1/alerts/{sent['id']}/correct", ISSUER, {"note": "误发"}, 202)
    desk.clock.advance(1)
    if way_out == "approve":
        made = await decide(desk, held["id"], "approve", SIGNER)
    elif way_out == "authorise":
        made = await post(desk, f"/v1/alerts/{held['id']}/authorise", CLERK, CALL, 200)
    else:
        made = await post(desk, f"/v1/alerts/{sent['id']}/correct", SIGNER, {"note": "误发"}, 202)
    assert made["standing"] == "active"
    was = await desk.core.store.outbox.alert(sent["id"])
    assert was is not None
    assert (was.standing, was.reason) == ("stopped", "corrected")


async def test_an_end_ordered_here_never_repeats_the_warnings_own_short_text(desk: Desk) -> None:
    """Who hears "red, run" a second time runs, and does not read on that it was a mistake."""
    sent = await desk.issue(parameters={"short_text": ["暴雨红色，立即转移"]})
    made = await post(desk, f"/v1/alerts/{sent['id']}/correct", SIGNER, {"note": "误发"}, 202)
    while await desk.planner.round():
        pass
    batches = await desk.core.store.ledger.batches(made["id"])
    assert batches
    for batch, _ in batches:
        text = (await desk.core.composer.message(batch, (0,), again=False)).text
        assert "立即转移" not in text
        assert "更正" in text


async def test_a_sealed_code_corrects_alone(desk: Desk) -> None:
    """Behind the locked door there is no signer to ask (D3)."""
    sent = await desk.issue()
    desk.clock.advance(1)
    made = await post(desk, "/v1/break-glass/codes", ADMIN, {"issuer": "411726-qxj", "label": "一号"})
    body = await correction_of(desk, sent["id"])
    done = await post(desk, "/v1/break-glass", "", body, 202, **{"Break-Glass": made["code"]})
    assert (done["standing"], done["held"]) == ("active", [])


async def test_the_correction_of_a_drill_needs_a_second_person_as_the_drill_did(desk: Desk) -> None:
    """Nothing of a drill is urgent, and a signer's slip in one reaches real phones."""
    drill = await desk.held()
    await decide(desk, drill, "approve", SIGNER)
    made = await post(desk, f"/v1/alerts/{drill}/correct", SIGNER, {"note": "误发"}, 202)
    assert made["standing"] == "sign"


async def test_the_correction_of_a_county_only_warning_reaches_its_residents_at_once(desk: Desk) -> None:
    """Whoever was told hears that it was wrong; a correction held in part could not be released either."""
    county = [{"description": "泌阳县", "geocodes": {"county": ["411726"]}}]
    sent = await desk.issue(areas=county)
    await decide(desk, sent["id"], "approve", SIGNER)
    correction = await post(desk, f"/v1/alerts/{sent['id']}/correct", SIGNER, {"note": "误发"}, 202)
    assert (correction["standing"], correction["held"]) == ("active", [])
    row = await desk.core.store.outbox.alert(correction["id"])
    assert row is not None
    assert {step.audience.group for step in row.plan.steps} == {Group.OFFICIALS, Group.RESIDENTS}


async def test_a_sealed_code_reaches_the_residents_of_a_county_only_area_too(desk: Desk) -> None:
    """Alone behind a locked door there is nobody who could let the second half go."""
    made = await post(desk, "/v1/break-glass/codes", ADMIN, {"issuer": "411726-qxj", "label": "一号"})
    county = {"areas": [{"description": "泌阳县", "geocodes": {"county": ["411726"]}}]}
    sent = await post(desk, "/v1/break-glass", "", EXAMPLE | county, 202, **{"Break-Glass": made["code"]})
    row = await desk.core.store.outbox.alert(sent["id"])
    assert row is not None
    assert (row.plan.held, {step.audience.group for step in row.plan.steps}) == ((), {Group.OFFICIALS, Group.RESIDENTS})


async def test_an_exercise_is_not_approved_by_night(desk: Desk) -> None:
    """Nobody is woken by a drill (D19)."""
    drill = await desk.held(expires="2026-07-21T06:00:00+08:00")
    desk.clock.advance(8 * 3600)  # 22:00 in China
    assert code(await decide(desk, drill, "approve", SIGNER, status=409)) == "drill_hours"


async def test_a_sealed_code_is_not_spent_on_a_drill(desk: Desk) -> None:
    """The envelope is for the night it is real."""
    made = await post(desk, "/v1/break-glass/codes", ADMIN, {"issuer": "411726-qxj", "label": "一号"})
    drill = EXAMPLE | {"status": "Exercise"}
    assert code(await post(desk, "/v1/break-glass", "", drill, 422, **{"Break-Glass": made["code"]})) == "not_actual"


async def test_what_is_let_go_still_waits_above_the_ceiling(desk: Desk) -> None:
    """Letting a repetition go is no countersign: the city's other counties wait for one as before (D5)."""
    areas = [{"description": "驿城区、泌阳县", "geocodes": {"township": ["411702001", JIALOU]}}]
    city = {"sender": "4117-qxt@mingluo.example", "areas": areas}
    first = await desk.issue(CITY, **city)
    assert first["held"][0].startswith("over_ceiling")
    desk.clock.advance(60)
    again = await desk.issue(CITY, **city, identifier="again")
    assert again["standing"] == "suppressed"
    released = await decide(desk, again["id"], "release", CITY)
    assert released["held"][0].startswith("over_ceiling")
