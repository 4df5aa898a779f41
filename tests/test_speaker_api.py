"""Loudspeakers over HTTP: who sees and orders which, what the report names, and the alarm a village has sounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from api_support import (
    ADMIN,
    CLERK,
    ISSUER,
    JIALOU,
    NEIGHBOUR,
    POLICY,
    REGIONS,
    TONGSHAN,
    VIEWER,
    Desk,
    install,
    opened,
)
from manual_clock import ManualClock

from gateway import metrics
from gateway.api.shape import EXAMPLE
from gateway.model import DeviceEvent, DeviceState
from gateway.policy import Policy
from gateway.policy.hazard import CHINA
from gateway.policy.table import Token

TOWNSHIP = "the duty room of Jialou"
FIRST, SECOND = "dl-1", "dl-2"


def with_township() -> Policy:
    """The sample policy with a clerk of a township."""
    digest = sha256(TOWNSHIP.encode()).hexdigest()
    own = Token(sha256=digest, issuer="411726209-xzf", name="乡值班员", role="clerk", demo=True)
    tokens = POLICY.tables.tokens.model_copy(update={"token": (*POLICY.tables.tokens.token, own)})
    changed = Policy(POLICY.tables.model_copy(update={"tokens": tokens}))
    return Policy.from_bytes(changed.to_bytes())  # anew: a copy keeps what was looked up in the first


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock, policy=with_township()) as one:
        yield one


async def say(desk: Desk, device: int, kind: str, code: str = "", state: DeviceState | None = None) -> None:
    """Let a loudspeaker say something."""
    event = DeviceEvent(device, kind, desk.clock.now(), code, state)
    await desk.core.receipts.commit("loudspeaker_ws", [event])


async def ask(desk: Desk, path: str, token: str = CLERK) -> Any:
    response, content = await desk.call("GET", path, token)
    assert response.status == 200, content
    return content


async def names(desk: Desk, path: str = "/v1/speakers", token: str = CLERK) -> list[str]:
    return [one["name"] for one in (await ask(desk, path, token))["speakers"]]


async def order(desk: Desk, what: str, token: str = CLERK, **body: Any) -> tuple[int, Any]:
    response, content = await desk.call("POST", f"/v1/speakers/{what}", token, body)
    return response.status, content


async def test_a_speaker_is_shown_as_it_told_of_itself(desk: Desk) -> None:
    """The duty room sees before the storm what a journey to the pole would tell."""
    [device] = await install(desk, FIRST)
    await say(desk, device, "online", "2.1.0")
    await say(desk, device, "state", state=DeviceState("", 70, "solar", 41, -3.2, ("amplifier",)))
    [one] = (await ask(desk, f"/v1/speakers?name={FIRST}"))["speakers"]
    told = ("firmware", "volume", "power", "battery", "clock_skew_s", "faults", "condition", "online")
    assert [one[name] for name in told] == ["2.1.0", 70, "solar", 41, -3.2, ["amplifier"], "faulty", True]
    assert one["village"]["code"] == REGIONS.villages(JIALOU)[0].code
    assert await names(desk, "/v1/speakers?condition=faulty&condition=offline") == [FIRST]
    assert await names(desk, "/v1/speakers?condition=working") == []


async def test_speakers_come_page_by_page(desk: Desk) -> None:
    """Six thousand on one page would be read by nobody."""
    await install(desk, "dl-1", "dl-2", "dl-3")
    first = await ask(desk, "/v1/speakers?limit=2")
    assert [one["name"] for one in first["speakers"]] == ["dl-1", "dl-2"]
    assert await names(desk, f"/v1/speakers?limit=2&after={first['next']}") == ["dl-3"]


@pytest.mark.parametrize("path", ["", "/villages", "/orders"])
async def test_a_code_no_place_has_is_named(desk: Desk, path: str) -> None:
    """An empty list for a mistyped code reads as: no dead loudspeaker there."""
    response, problem = await desk.call("GET", f"/v1/speakers{path}?area=411726999", CLERK)
    assert (response.status, problem["type"].rpartition("/")[2]) == (422, "unknown_area")
    assert "411726999" in problem["detail"]
    assert (await order(desk, "clock", area="411726999"))[0] == 422


async def test_a_township_sees_and_orders_its_own_loudspeakers_only(desk: Desk) -> None:
    """The duty role of a township acts for its own villages (D18), and the county beside it for none of them."""
    await install(desk, FIRST)
    await install(desk, SECOND, township=TONGSHAN)
    assert await names(desk, token=CLERK) == [SECOND, FIRST]
    assert await names(desk, token=TOWNSHIP) == [FIRST]
    assert await names(desk, "/v1/speakers?area=411726", TOWNSHIP) == [FIRST]
    assert await names(desk, f"/v1/speakers?area={TONGSHAN}", TOWNSHIP) == []
    assert await names(desk, f"/v1/speakers?name={SECOND}", TOWNSHIP) == []
    assert await names(desk, token=NEIGHBOUR) == []
    assert (await order(desk, "self-test", TOWNSHIP, speakers=[FIRST]))[0] == 200
    assert (await order(desk, "self-test", TOWNSHIP, speakers=[SECOND]))[0] == 404
    assert (await order(desk, "self-test", TOWNSHIP, area=TONGSHAN))[0] == 404
    status, done = await order(desk, "clock", TOWNSHIP, area="411726")
    assert (status, done["speakers"]) == (200, 1), "of a county it asks for, it gets its own part"
    found = await ask(desk, "/v1/speakers/orders", TOWNSHIP)
    assert {one["speaker"] for one in found["orders"]} == {FIRST}
    assert {one["by"] for one in found["orders"]} == {"411726209-xzf/乡值班员"}
    assert (await ask(desk, "/v1/speakers/orders", NEIGHBOUR))["orders"] == []


@pytest.mark.parametrize(
    ("what", "token", "status"),
    [("volume", VIEWER, 403), ("config", CLERK, 403), ("config", ADMIN, 200), ("volume", ISSUER, 200)],
)
async def test_who_may_order_what(desk: Desk, what: str, token: str, status: int) -> None:
    """Who only looks orders nothing; a maker's settings are the administrator's."""
    await install(desk, FIRST)
    bodies: dict[str, dict[str, Any]] = {"volume": {"volume": 60}, "config": {"values": {"led": False}}}
    body = bodies[what]
    assert (await order(desk, what, token, speakers=[FIRST], **body))[0] == status


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"speakers": [FIRST], "area": "411726"},
        {"speakers": [FIRST], "floor": {"red": 40}},
        {"speakers": [FIRST], "floor": {"purple": 90}},
        {"speakers": [FIRST], "night": {"from": "22:00", "until": "22:00", "volume": 30}},
        {"speakers": ["dl 1'; --"]},
        {"speakers": [FIRST], "volume": 101},
        {"area": "%"},
    ],
)
async def test_a_volume_that_could_not_be_meant_is_refused(desk: Desk, body: dict[str, Any]) -> None:
    """A red warning quieter than the village radio is no policy."""
    await install(desk, FIRST)
    assert (await order(desk, "volume", **({"volume": 60} | body)))[0] == 400
    assert (await ask(desk, "/v1/speakers/orders"))["orders"] == []


async def test_an_order_is_audited_and_shown_with_what_became_of_it(desk: Desk) -> None:
    """Who made a village quiet must be known a year later."""
    await install(desk, FIRST, SECOND)
    night = {"from": "22:00", "until": "06:00", "volume": 30}
    _, done = await order(desk, "volume", area=JIALOU, volume=60, night=night, floor={"red": 90})
    [one, _] = (await ask(desk, f"/v1/speakers/orders?area={JIALOU}"))["orders"]
    assert (one["state"], one["values"]) == ("open", {"volume": 60, "night": night, "floor": {"red": 90}})
    assert one["id"].startswith(done["id"])
    [record] = [r for _, r, _ in await desk.core.store.audit.records() if r.action == "order:volume"]
    assert (record.subject, record.detail) == (done["id"], f"2 loudspeakers; {JIALOU}")
    assert record.actor.startswith("411726-qxj/")


async def test_an_audible_test_is_no_alarm_at_night_and_none_in_a_storm(desk: Desk) -> None:
    """Nobody is to wonder at two in the morning, or under a red warning, what the tone means (D19)."""
    await install(desk, FIRST)
    assert (await order(desk, "self-test", speakers=[FIRST], audible=True))[0] == 200
    desk.clock.advance(timedelta(hours=10).total_seconds())
    assert (await order(desk, "self-test", speakers=[FIRST], audible=True))[1]["type"].endswith("quiet_hours")
    assert (await order(desk, "self-test", speakers=[FIRST]))[0] == 200
    desk.clock.advance(timedelta(hours=14).total_seconds())
    sent, expires = desk.clock.now(), desk.clock.now() + timedelta(hours=2)
    await desk.issue(sent=sent.isoformat(), expires=expires.isoformat())
    assert (await order(desk, "self-test", speakers=[FIRST], audible=True))[1]["type"].endswith("under_warning")


async def test_a_tone_that_was_ordered_by_day_is_not_heard_at_night(desk: Desk) -> None:
    """Who is away gets the order once back: not at three in the morning."""
    await install(desk, FIRST)
    _, done = await order(desk, "self-test", speakers=[FIRST], audible=True)
    until = datetime.combine(desk.clock.now().astimezone(CHINA).date(), POLICY.drill.until, CHINA)
    assert datetime.fromisoformat(done["expires"]) == until


async def test_a_warning_withdraws_the_tones_that_were_ordered_before_it(desk: Desk) -> None:
    """Who comes back in the storm plays the warning, and no tone of a test; a silent test is nobody's fright."""
    await install(desk, FIRST)
    await install(desk, "dl-9", township="411726102")
    for speaker in (FIRST, "dl-9"):
        await order(desk, "self-test", speakers=[speaker], audible=True)
    await order(desk, "clock", speakers=[FIRST])
    sent, expires = desk.clock.now(), desk.clock.now() + timedelta(hours=2)
    await desk.issue(sent=sent.isoformat(), expires=expires.isoformat())
    orders = (await ask(desk, "/v1/speakers/orders"))["orders"]
    assert sorted((one["speaker"], one["kind"], one["state"], one["code"]) for one in orders) == [
        (FIRST, "clock", "open", ""),
        (FIRST, "self_test", "superseded", "real_warning"),
        ("dl-9", "self_test", "open", ""),
    ]


async def test_the_report_names_villages_that_would_hear_nothing(desk: Desk) -> None:
    """Health before the storm: by name, by township, with the reason, and no village is left out of the count."""
    first, second = await install(desk, FIRST, SECOND)
    [other] = await install(desk, "dl-9", township=TONGSHAN)
    await say(desk, first, "state", state=DeviceState(faults=("amplifier",)))
    await say(desk, other, "state", state=DeviceState(volume=70))
    found = await ask(desk, "/v1/speakers/villages")
    by_code = {one["village"]["code"]: one for one in found["mute"]}
    village, fine = REGIONS.villages(JIALOU)[0].code, REGIONS.villages(TONGSHAN)[0].code
    assert (by_code[village]["condition"], by_code[village]["speakers"]) == ("faulty", 2)
    assert by_code[village]["faults"] == ["amplifier"]
    assert by_code[REGIONS.villages(JIALOU)[1].code]["condition"] == "none"
    assert fine not in by_code
    assert [one["village"]["code"] for one in found["untested"]] == [fine]
    townships = {one["township"]["code"]: one["villages"] for one in found["townships"]}
    assert sum(townships[JIALOU].values()) == len(REGIONS.villages(JIALOU))
    assert sum(found["villages"].values()) == sum(
        1 for code in REGIONS.places if len(code) == 12 and code[:6] == "411726"
    )
    assert found["speakers"] == 3
    await say(desk, second, "state", state=DeviceState(volume=70))
    found = await ask(desk, f"/v1/speakers/villages?area={JIALOU}")
    assert village not in {one["village"]["code"] for one in found["mute"]}
    assert [one["township"]["code"] for one in found["townships"]] == [JIALOU]
    assert (await ask(desk, "/v1/speakers/villages", TOWNSHIP))["townships"] == found["townships"]


async def test_preview_and_status_name_villages_that_are_gaps_from_the_first_second(desk: Desk) -> None:
    """Before a warning is sent, and while it goes out, the duty room knows where only a telephone helps."""
    [dead] = await install(desk, FIRST)
    [well] = await install(desk, SECOND, township=TONGSHAN)
    await say(desk, dead, "state", state=DeviceState(faults=("amplifier",)))
    await say(desk, well, "state", state=DeviceState(volume=70))
    village, other = REGIONS.villages(JIALOU)[0].code, REGIONS.villages(TONGSHAN)[0].code
    _, seen = await desk.call("POST", "/v1/alerts/preview", ISSUER, EXAMPLE)
    gaps = {one["village"]["code"]: one for one in seen["gaps"]}
    assert (gaps[village]["official"], gaps[village]["loudspeaker"]) == (True, False)
    assert gaps[village]["condition"] == "faulty"
    assert other not in gaps
    [finding] = [one["message"] for one in seen["warnings"] if one["code"] == "no_working_loudspeaker"]
    assert finding.startswith("no working loudspeaker in 1 villages (0 offline, 1 faulty)")
    alert = (await desk.issue())["id"]
    status = await ask(desk, f"/v1/alerts/{alert}/status")
    mute = {one["code"]: one["loudspeaker"] for one in status["mute"]}
    assert (mute[village], other in mute) == ("faulty", False)
    assert mute.keys() <= {one["code"] for one in status["gaps"]}
    nowcast = (await desk.issue(document="nowcast", identifier="nowcast"))["id"]
    assert (await ask(desk, f"/v1/alerts/{nowcast}/status"))["mute"] == [], "nowcasts are not for loudspeakers"


async def test_the_report_keeps_whose_loudspeakers_did_not_work_as_the_warning_began(desk: Desk) -> None:
    """A year later somebody asks why this village was called first: its loudspeaker has been mended since."""
    [dead] = await install(desk, FIRST)
    [well] = await install(desk, SECOND, township=TONGSHAN)
    await say(desk, dead, "state", state=DeviceState(faults=("amplifier",)))
    await say(desk, well, "state", state=DeviceState(volume=70))
    village, other = REGIONS.villages(JIALOU)[0].code, REGIONS.villages(TONGSHAN)[0].code
    alert = (await desk.issue())["id"]

    async def planned() -> dict[str, str]:
        status = await ask(desk, f"/v1/alerts/{alert}/status")
        return {one["code"]: one["loudspeaker"] for one in status["mute_planned"]}

    first = await planned()
    assert (first[village], other in first) == ("faulty", False)
    await say(desk, dead, "state", state=DeviceState())
    await say(desk, well, "state", state=DeviceState(faults=("amplifier",)))
    status = await ask(desk, f"/v1/alerts/{alert}/status")
    assert {village, other} & {one["code"] for one in status["mute"]} == {other}  # as it is now
    assert await planned() == first
    nowcast = (await desk.issue(document="nowcast", identifier="nowcast"))["id"]
    assert (await ask(desk, f"/v1/alerts/{nowcast}/status"))["mute_planned"] == []


async def test_a_village_alarm_is_kept_once_rings_and_is_decided(desk: Desk) -> None:
    """A village that sounds its own gong at night must be heard in the county, by name, until somebody has decided."""
    [device] = await install(desk, FIRST)
    before = metrics.REGISTRY.get_sample_value("mingluo_village_alarms_total") or 0.0
    for _ in range(3):  # told again until it is acknowledged
        await say(desk, device, "alarm", "6e2f")
    assert metrics.REGISTRY.get_sample_value("mingluo_village_alarms_total") == before + 1
    [one] = (await ask(desk, "/v1/speakers/alarms?undecided=true", TOWNSHIP))["alarms"]
    assert (one["speaker"], one["village"]["code"][:9]) == (FIRST, JIALOU)
    assert (await ask(desk, "/v1/speakers/alarms", NEIGHBOUR))["alarms"] == []
    _, owed = await desk.call("GET", "/v1/obligations", CLERK)
    assert ("village_alarm", one["id"]) in {(line["kind"], line["alert"]) for line in owed["obligations"]}
    rung = metrics.REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": "village_alarm"}) or 0.0
    again = await desk.core.obligations.due(f"{one['id']} village_alarm")
    assert again == desk.clock.now() + timedelta(minutes=1)
    assert metrics.REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": "village_alarm"}) == rung + 1
    path, decided = f"/v1/obligations/{one['id']}/village_alarm", {"answer": "issue", "remark": "山洪，已发布预警"}
    assert (await desk.call("POST", path, NEIGHBOUR, decided))[0].status == 403
    assert (await desk.call("POST", path, CLERK, decided | {"remark": ""}))[0].status == 422
    assert (await desk.call("POST", path, CLERK, decided))[0].status == 200
    assert (await ask(desk, "/v1/speakers/alarms?undecided=true"))["alarms"] == []
    [one] = (await ask(desk, "/v1/speakers/alarms"))["alarms"]
    assert (one["decision"], one["reason"]) == ("issue", "山洪，已发布预警")
    assert await desk.core.obligations.due(f"{one['id']} village_alarm") is None
    records = [record.action for _, record, _ in await desk.core.store.audit.records()]
    assert records.count("village_alarm") == 1


async def test_a_broken_button_rings_one_bell(desk: Desk) -> None:
    """A short circuit that sounds an alarm each second must not drown the one of the next village."""
    [device] = await install(desk, FIRST)
    for number in range(5):
        await say(desk, device, "alarm", f"n{number}")
    [ringing] = (await ask(desk, "/v1/speakers/alarms"))["alarms"]
    assert ringing["answers"]
    decided = {"answer": "unfounded", "remark": "按钮故障，已派人"}
    path = f"/v1/obligations/{ringing['id']}/village_alarm"
    assert (await desk.call("POST", path, CLERK, decided))[0].status == 200
    await say(desk, device, "alarm", "a real one")
    [ringing] = (await ask(desk, "/v1/speakers/alarms?undecided=true"))["alarms"]
    assert ringing["decision"] == ""


async def test_a_button_that_sticks_hides_no_other_village_s_alarm(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One broken button rings all night, in another township too; the gong of this village stays on the page."""
    monkeypatch.setattr("gateway.api.speaker.LIMIT", 2)
    [device] = await install(desk, FIRST)
    [stuck, _] = await install(desk, SECOND, "dl-3")
    [afar] = await install(desk, "dl-9", township=TONGSHAN)
    await say(desk, device, "alarm", "first")
    for number in range(3):
        desk.clock.advance(60)
        await say(desk, stuck, "alarm", f"again-{number}")
        await say(desk, afar, "alarm", f"again-{number}")
    shown = [one["speaker"] for one in (await ask(desk, "/v1/speakers/alarms", TOWNSHIP))["alarms"]]
    assert shown == [SECOND, FIRST], "both wait for an answer; the repetitions ring no second bell"


async def test_an_alarm_of_an_unknown_device_is_nobody_s(desk: Desk) -> None:
    """A retired row must not break the commit of all others."""
    await say(desk, 4711, "alarm", "6e2f")
    assert (await ask(desk, "/v1/speakers/alarms"))["alarms"] == []
