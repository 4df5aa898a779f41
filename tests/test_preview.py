"""A preview is the real run without its last step: same people, same words, same times; and what stands beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from api_support import CITY, COMMAND, ISSUER, JIALOU, POLICY, SIGNER, TONGSHAN, Desk, opened
from hypothesis import given
from hypothesis import strategies as st
from manual_clock import START, ManualClock
from test_pipeline import until
from town import FLOWER, FLOWER_1, FLOWER_2, OLD, WATER, WATER_1, phone, table

from gateway import cap, preview
from gateway.api.shape import EXAMPLE
from gateway.app import App
from gateway.device_key import DeviceKeys
from gateway.directory.importer import Importer
from gateway.directory.table import Roster
from gateway.link import Rate
from gateway.model import Alert, Area, Code, Document, Info, Kind, Lane, Level, Status, Target
from gateway.policy import Policy, Principal
from gateway.preview.conflict import LOOKED_AT, judge, overlap
from gateway.preview.estimate import Job, spans
from gateway.render import Renderer
from gateway.settings import Settings
from gateway.simulate.log import Log, read
from gateway.simulate.sms import SmsSimulator
from gateway.simulate.speaker import Fleet, Options
from gateway.state import LocalState

OFFICIALS = (("甲", phone(1), FLOWER_1, "village_head", "1"), ("乙", phone(2), WATER_1, "village_head", "1"))
RESIDENTS = tuple((f"住户{n}", phone(10 + n), FLOWER_1 if n % 2 else WATER_1, "opted_in") for n in range(12))
DEVICES = (("lb-1", FLOWER_1, "1" * 32), ("lb-2", FLOWER_2, "2" * 32))


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


async def look(desk: Desk, token: str = ISSUER, **changes: Any) -> Any:
    """Preview the example with changes."""
    response, found = await desk.call("POST", "/v1/alerts/preview", token, EXAMPLE | changes)
    assert response.status == 200, found
    return found


def within(*townships: str) -> Any:
    return {"areas": [{"description": "泌阳县部分乡镇", "geocodes": {"township": list(townships)}}]}


# --- the same code as the real run ----------------------------------------------------------------


@asynccontextmanager
async def running(folder: Path, carrier: SmsSimulator) -> AsyncIterator[App]:
    """Run an embedded gateway with SMS to a simulated carrier, and loudspeakers."""
    config = folder / "channels.toml"
    config.write_text(
        f'[loudspeaker_ws]\nrepeat = 1\n[sms_twilio]\naccount_sid = "{carrier.account.sid}"\n'
        f'auth_token = "{carrier.account.token}"\nsender = "+8610000000000"\npublic_url = "http://127.0.0.1"\n'
        f'base_url = "{await carrier.start()}"\n',
        encoding="utf8",
    )
    async with App(Settings(data=folder, channels=config, port=0)) as app:
        importer = Importer(app.core.store.database, app.core.vault, app.core.regions, app.clock)
        for roster, rows in ((Roster.OFFICIALS, OFFICIALS), (Roster.RESIDENTS, RESIDENTS), (Roster.DEVICES, DEVICES)):
            assert (await importer.read(table(roster, *rows), roster)).failed == 0
        yield app
    await carrier.stop()


def warning(app: App, hazard: str, event: str, *townships: str) -> bytes:
    """A red warning, as CAP."""
    now = app.clock.now().replace(microsecond=0)
    area = Area("泌阳县部分乡镇", geocodes=tuple(Code("township", one) for one in townships))
    info = Info(
        event, language="zh-CN", urgency="Immediate", severity="Extreme", certainty="Observed", areas=(area,),
        event_codes=(Code("GB/T 35561", hazard),), expires=now + timedelta(hours=3), sender_name="泌阳县气象台",
        description="未来3小时，部分乡镇雨量将超过100毫米。", instruction="立即转移危险区群众。",
    )  # fmt: skip
    alert = Alert(
        "411726-qxj@mingluo.example", "seen", now, Status.ACTUAL, Kind.ALERT, Document.WARNING, hazard, event,
        Level.RED, infos=(info,),
    )  # fmt: skip
    return cap.write(alert)


def who(app: App, role: str) -> Principal:
    found = app.core.policy.principal(f"demo-411726-qxj-{role}", simulation=True)
    assert found is not None
    return found


@pytest.mark.parametrize("held", [False, True], ids=["green", "approved"])
async def test_what_leaves_is_what_was_previewed(tmp_path: Path, held: bool) -> None:
    """The officer signs what the preview shows: steps, numbers and every byte of the texts, for people and speakers."""
    carrier = SmsSimulator(Log(tmp_path / "sms.log"))
    async with running(tmp_path, carrier) as app:
        data = warning(app, *(("11B09", "高温") if held else ("11B03", "暴雨")), FLOWER, WATER)
        seen = await preview.preview(app.core, data, who(app, "issuer"))
        assert seen.would_be_held == held
        fleet = Fleet(
            f"http://127.0.0.1:{app.port}", [(row[0], row[2]) for row in DEVICES], Log(tmp_path / "speakers.log"),
            Options(play_s=0.1, backoff_max_s=1), DeviceKeys.load(app.settings.device_keys).pins,
        )  # fmt: skip
        async with fleet:
            outcome = await app.core.intake.submit(data, who(app, "issuer"))
            if held:
                await app.core.decisions.approve(outcome.alert, who(app, "signer"))
            await until(lambda: len(read(tmp_path / "sms.log", "sms")) == len(OFFICIALS) + len(RESIDENTS))
            await until(lambda: len(read(tmp_path / "speakers.log", "sound")) == len(DEVICES))
            await _compare(app, seen, outcome.alert)
        sms = {entry["to"]: entry["body"] for entry in read(tmp_path / "sms.log", "sms")}
        texts = {(one.channel, one.group, one.township): one.text for one in seen.texts}
        for group, rows in (("officials", OFFICIALS), ("residents", RESIDENTS)):
            mine = {sms["+86" + row[1]] for row in rows if row[2] == FLOWER_1}
            assert mine == {texts["sms_twilio", group, FLOWER]}
        spoken = {entry["spoken"] for entry in read(tmp_path / "speakers.log", "sound")}
        assert spoken == {texts["loudspeaker", "loudspeakers", FLOWER]}


async def _compare(app: App, seen: preview.Preview, alert: str) -> None:
    """Steps and numbers of a preview against the stored plan and the frozen batches."""
    row = await app.core.store.outbox.alert(alert)
    assert row is not None
    assert [(s.step, s.group, s.channel, s.notice, s.lane, s.fallback_of) for s in seen.steps] == [
        (s.number, s.audience.group, s.audience.channel, s.notice, s.lane, s.fallback_of) for s in row.plan.steps
    ]
    assert [one.township.code for one in seen.targets] == [target.township for target in row.plan.targets]
    sent: Counter[tuple[int, str]] = Counter()
    for batch, _ in await app.core.store.ledger.batches(alert):
        sent[batch.step, batch.township] += len(batch)
    assert {(one.step, one.township): one.recipients for one in seen.counts if one.recipients} == dict(sent)


async def test_a_preview_leaves_nothing_behind(desk: Desk) -> None:
    """A look is no decision."""
    before = await desk.database.read(
        lambda tx: tx.all("SELECT COUNT(*) FROM change UNION ALL SELECT COUNT(*) FROM audit")
    )
    await look(desk)
    after = await desk.database.read(
        lambda tx: tx.all("SELECT COUNT(*) FROM change UNION ALL SELECT COUNT(*) FROM audit")
    )
    assert before == after
    assert await desk.core.store.outbox.alerts() == []


# --- whom -----------------------------------------------------------------------------------------


async def test_each_township_is_shown_with_its_people_and_its_gaps(desk: Desk) -> None:
    """Whom nobody will call, and where no loudspeaker stands, is known before the water comes."""
    found = await look(desk)
    rows = {one["township"]["code"]: one for one in found["townships"]}
    assert list(rows) == [TONGSHAN, JIALOU]
    assert {rows[JIALOU][group] for group in ("officials", "residents")} == {2}
    assert (rows[JIALOU]["loudspeakers"], rows[JIALOU]["subscribers"]) == (0, 0)
    villages = {one["village"]["code"]: one for one in found["gaps"]}
    assert len(villages) == sum(row["villages"] for row in rows.values())  # no village has a loudspeaker
    answered = [code for code, one in villages.items() if one["official"]]
    assert sorted(code[:9] for code in answered) == [TONGSHAN, JIALOU]


async def test_who_opted_out_is_counted_where_it_matters(desk: Desk) -> None:
    """Yellow does not reach them, red does (D24); the officer sees by how many the two differ."""
    await desk.database.write(
        lambda tx: tx.run("UPDATE person SET opted_out = 1 WHERE id = :id", id=desk.people[1])
    )  # fmt: skip
    yellow, red = await look(desk, level="yellow"), await look(desk)
    shown = [
        {one["township"]["code"]: (one["residents"], one["opted_out"]) for one in found["townships"]}
        for found in (yellow, red)
    ]
    assert shown == [{TONGSHAN: (2, 0), JIALOU: (1, 1)}, {TONGSHAN: (2, 0), JIALOU: (2, 0)}]


async def test_people_whose_channel_is_off_are_counted(desk: Desk) -> None:
    """They are registered and believe that they will be warned."""
    await desk.database.write(lambda tx: tx.run(
        "INSERT INTO device (id, name, county, township, village, key_hash, standing)"
        " VALUES (1, 'lb', '411726', :township, :village, 'k', 'service')",
        township=JIALOU, village=f"{JIALOU}001",
    ))  # fmt: skip
    found = await look(desk)  # this installation has no loudspeaker channel
    assert {one["township"]["code"]: one["no_channel"] for one in found["townships"]} == {TONGSHAN: 0, JIALOU: 1}


async def test_who_may_decide_is_named_and_never_the_one_who_asks(desk: Desk) -> None:
    """At 02:30 the officer needs a name to call."""
    assert (await look(desk))["deciders"] == []
    drill = await look(desk, status="Exercise")
    assert (drill["standing"], drill["needs"]) == ("sign", ["sign"])
    (signer,) = drill["deciders"]
    assert POLICY.principal(SIGNER, simulation=True) == Principal(signer, "signer", "411726-qxj", demo=True)
    alone = await look(desk, SIGNER, status="Exercise")
    assert alone["deciders"] == []
    assert "nobody_decides" in {one["code"] for one in alone["warnings"]}


# --- when -----------------------------------------------------------------------------------------


async def test_the_night_names_what_waits_and_what_is_never_sent(desk: Desk) -> None:
    """A yellow one that lapses at 05:00 would reach no resident at all; one until noon reaches them at 06:30."""
    desk.clock.advance(9 * 3600)
    late: Any = {"sent": "2026-07-20T22:58:00+08:00", "level": "yellow"}
    noon = await look(desk, **late, expires="2026-07-21T12:00:00+08:00")
    assert noon["dropped"] == []
    waiting = [(one["group"], one["notice"], one["start"]) for one in noon["deferrals"]]
    assert set(waiting) == {("residents", "issue", "2026-07-20T22:30:00Z")}
    dawn = await look(desk, **late, expires="2026-07-21T05:00:00+08:00")
    assert dawn["deferrals"] == []
    assert {(one["group"], one["notice"]) for one in dawn["dropped"]} == {("residents", "issue")}
    assert all("would wait for the morning" in one["why"] for one in dawn["dropped"])


async def test_times_follow_the_accounts_rate_and_its_deadline(desk: Desk) -> None:
    """The last by 14:41, or too late: that decides whether somebody is sent out with a gong."""
    desk.core.rates = {"sms_twilio": Rate(0.001, 1, 0)}
    found = await look(desk)
    officials, residents = (
        next(one for one in found["steps"] if (one["channel"], one["group"]) == ("sms_twilio", group))
        for group in ("officials", "residents")
    )
    assert officials["first"] == found["at"]
    assert (officials["recipients"], officials["too_late"]) == (4, 0)
    assert officials["last"] == "2026-07-20T06:50:00Z"  # three more at 1000 s each
    assert residents["too_late"] == 0
    assert residents["last"] == "2026-07-20T07:56:40Z"
    assert [(one["group"], one["recipients"]) for one in found["times"]] == [("officials", 4), ("residents", 4)]
    desk.core.rates = {"sms_twilio": Rate(0.0005, 1, 0)}
    (late,) = [one for one in (await look(desk))["warnings"] if one["code"] == "too_late"]
    assert late["message"].startswith("sms_twilio to residents: about 2 of 4 would not be told")


RATE = Rate(per_s=10, burst=20, green=5)


def job(step: int, lane: Lane, units: int, start_s: float = 0, end_s: float = 1e9) -> Job:
    return Job(step, "sms", lane, start_s, end_s, units)


def test_the_reserve_is_officials_own_and_bulk_waits() -> None:
    """Officials find their tokens there however many residents wait (rule 5)."""
    found = spans([job(1, Lane.GREEN, 15), job(2, Lane.URGENT, 100), job(3, Lane.BULK, 50)], {"sms": RATE})
    assert (found[1].first_s, found[1].last_s) == (0, 0)
    assert found[2].first_s == pytest.approx(0.1)
    assert found[2].last_s == pytest.approx(10)
    assert found[3].first_s == pytest.approx(10.1)
    assert found[3].last_s == pytest.approx(15)


def test_what_starts_later_and_is_more_urgent_cuts_in() -> None:
    """A fallback of the officials comes five minutes later, into the middle of the residents."""
    found = spans([job(1, Lane.BULK, 1000), job(2, Lane.GREEN, 30, start_s=10)], {"sms": RATE})
    assert found[2].last_s == pytest.approx(12.5)  # the reserve of 5 at once, 25 at ten a second
    assert found[1].last_s == pytest.approx(101.5)


def test_without_a_rate_nothing_waits_and_without_people_there_is_no_time() -> None:
    """An unlimited account is not a slow one; nobody is told "at 14:00" that nobody is there."""
    found = spans([job(1, Lane.BULK, 10**6, start_s=5), job(2, Lane.BULK, 0)], {})
    assert found == {1: (5, 5, 0)}


@given(
    st.lists(st.tuples(st.sampled_from(Lane), st.integers(1, 400), st.integers(0, 60)), min_size=1, max_size=5),
    st.integers(1, 50), st.integers(1, 60), st.integers(0, 20),
)  # fmt: skip
def test_an_estimate_is_never_faster_than_the_bucket(
    jobs: list[tuple[Lane, int, int]], per_s: int, burst: int, green: int
) -> None:
    """A promise the account cannot keep is worse than none."""
    rate = Rate(per_s, burst, green)
    asked = [job(step, lane, units, start) for step, (lane, units, start) in enumerate(jobs)]
    found = spans(asked, {"sms": rate})
    assert set(found) == {one.step for one in asked}
    for one in asked:
        span = found[one.step]
        assert one.start_s <= span.first_s <= span.last_s + 1e-6
        # All of this step alone, from a full bucket, would take at least so long.
        assert span.last_s >= one.start_s + (one.units - burst) / per_s - 1e-6
    everything = sum(one.units for one in asked)
    first = min(one.start_s for one in asked)
    assert max(span.last_s for span in found.values()) >= first + (everything - burst) / per_s - 1 / per_s


async def test_the_estimate_is_the_buckets_own_arithmetic() -> None:
    """The estimate and what really paces the sender must be one thing."""
    now, rate = 0.0, Rate(per_s=7, burst=12, green=4)
    bucket = LocalState(now=lambda: now)
    asked = [(Lane.GREEN, 20), (Lane.URGENT, 40)]
    done = []
    for lane, units in asked:
        for _ in range(units):
            while wait_s := await bucket.take("a", 1, rate.per_s, rate.burst, 0 if lane is Lane.GREEN else rate.green):
                now += wait_s + 1e-9  # a clock that stands still for rounding would wait for ever
        done.append(now)
    found = spans([job(step, lane, units) for step, (lane, units) in enumerate(asked)], {"sms": rate})
    assert [found[step].last_s for step in range(2)] == [pytest.approx(at, abs=0.01) for at in done]


# --- in which words -------------------------------------------------------------------------------

OWN: Any = {
    "parameters": {"short_text": ["泌阳县气象台20日13时58分发布红色预警：未来3小时大部地区雨量超100毫米，点击领红包"]}
}


async def test_whoever_issues_hears_what_is_wrong_with_the_words_and_is_not_held_up(desk: Desk) -> None:
    """The words advise: a red one leaves at once, and its issuer is told in the same answer."""
    seen = await look(desk, **OWN)
    answer = await desk.issue(**OWN)
    assert (answer["result"], answer["route"]) == ("accepted", "green")
    told = {one["code"]: one for one in answer["warnings"]}
    assert {"missing_type", "forbidden", "missing_area"} <= set(told)
    assert {one["severity"] for one in told.values()} == {"warning"}  # red is never more than warned of
    assert "sms_twilio to officials, " in told["missing_type"]["message"]
    assert set(told) == {one["code"] for one in seen["warnings"]}


async def test_who_decides_on_what_waits_sees_what_is_wrong_with_its_words(desk: Desk) -> None:
    """The signer reads the texts as they will leave, and what lint finds in them."""
    issued = await desk.issue(**OWN, event_code="11B09", event="高温", level="orange")
    assert issued["standing"] == "sign"
    _, shown = await desk.call("GET", f"/v1/alerts/{issued['id']}/texts", SIGNER)
    assert {"forbidden", "missing_area"} <= {one["code"] for one in shown["findings"]}
    assert any("红色预警" in text["text"] for text in shown["texts"])


async def test_below_red_they_are_errors_and_still_hold_nothing(desk: Desk) -> None:
    """Advice in this version: a second person decides on rules of the policy, not on words."""
    answer = await desk.issue(**OWN, level="orange")
    assert answer["result"] == "accepted"
    assert {one["severity"] for one in answer["warnings"] if one["code"] == "forbidden"} == {"error"}


async def test_a_fault_while_looking_never_denies_an_accepted_warning(desk: Desk) -> None:
    """It is stored and on its way: a 500 would make the sender send it again, or give up."""

    class Broken(Renderer):
        def check(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("a bug")

    desk.core.renderer = Broken(desk.core.settings.templates, POLICY.signatures, desk.core.regions.name)
    answer = await desk.issue()
    assert answer["result"] == "accepted"
    assert "not_looked" in {one["code"] for one in answer["warnings"]}


async def test_an_issuer_without_a_registered_signature_sees_that_no_sms_leaves(desk: Desk) -> None:
    """Registration takes ten days; until then the loudspeakers must do, and somebody must know (D11)."""
    content = json.loads(POLICY.to_bytes())
    for issuer in content["authority"]["issuer"]:
        issuer["signature"] = ""
    desk.core.policy = Policy.from_bytes(json.dumps(content).encode())
    bare = Renderer(desk.core.settings.templates, {}, desk.core.regions.name)
    desk.core.renderer = desk.core.composer._renderer = bare
    found = await look(desk)
    (one,) = [one for one in found["warnings"] if one["code"] == "signature_unregistered"]
    assert (one["severity"], one["message"].split(":")[0]) == (
        "error",
        "sms_twilio to officials, sms_twilio to residents",
    )
    assert {one["channel"]: bool(one["text"]) for one in found["texts"]} == {"sms_twilio": False, "noop": True}


async def test_a_sender_named_by_its_id_signs_too(desk: Desk) -> None:
    """Authority takes the id for the sender, so the carrier must get the signature all the same."""
    found = await look(desk, sender="411726-qxj")
    texts = [one["text"] for one in found["texts"] if one["channel"] == "sms_twilio"]
    assert texts
    assert all(text.startswith("【泌阳县气象局】") for text in texts)


# --- what stands beside it ------------------------------------------------------------------------


def beside(found: Any) -> dict[str, tuple[str, str]]:
    return {one["code"]: (one["severity"], one["alert"]) for one in found["conflicts"]}


async def test_the_same_hazard_again_is_an_update(desk: Desk) -> None:
    """Two warnings of one rain, and nobody knows which one holds."""
    first = await desk.issue()
    found = await look(desk, identifier="second", **within(JIALOU))
    assert beside(found) == {"same_issuer": ("warning", first["id"])}
    (one,) = found["conflicts"]
    assert [place["name"] for place in one["townships"]] == ["泌阳县贾楼乡"]
    assert "issue an Update that references it instead" in one["message"]
    assert first["id"] in one["message"]
    lower = await look(desk, identifier="second", level="orange")
    assert beside(lower) == {"lower_level": ("warning", first["id"])}
    reference = {key: EXAMPLE[key] for key in ("sender", "identifier", "sent")}
    update = await look(desk, identifier="second", kind="Update", references=[reference])
    assert update["conflicts"] == []


async def test_several_signals_for_the_same_people_are_only_mentioned(desk: Desk) -> None:
    """Rain and hail at once is weather, not a mistake."""
    first = await desk.issue()
    found = await look(desk, identifier="hail", event_code="11B15", event="冰雹")
    assert beside(found) == {"also_in_force": ("info", first["id"])}


async def test_another_body_that_warns_of_the_same_is_named(desk: Desk) -> None:
    """County and city agree before the village hears two levels."""
    first = await desk.issue()
    found = await look(desk, CITY, sender="4117-qxt@mingluo.example", identifier="city")
    assert beside(found) == {"other_issuer": ("warning", first["id"])}
    assert "泌阳县气象局" in found["conflicts"][0]["message"]


async def test_elsewhere_ended_or_expired_is_no_conflict(desk: Desk) -> None:
    """A list of what does not matter hides what does."""
    first = await desk.issue(**within(TONGSHAN))
    assert (await look(desk, identifier="b", **within(JIALOU)))["conflicts"] == []
    await desk.call("POST", f"/v1/alerts/{first['id']}/recall", ISSUER, {"reason": "误发"})
    assert (await look(desk, identifier="b", **within(TONGSHAN)))["conflicts"] == []
    await desk.issue(identifier="c", **within(TONGSHAN))
    desk.clock.advance(4 * 3600)
    later: Any = {"sent": "2026-07-20T18:00:00+08:00", "expires": "2026-07-20T20:00:00+08:00"}
    assert (await look(desk, identifier="d", **within(TONGSHAN), **later))["conflicts"] == []


async def test_what_waits_for_a_second_person_counts_too(desk: Desk) -> None:
    """Two officers of one room write the same warning."""
    heat: Any = {"event_code": "11B09", "event": "高温", "level": "orange"}
    first = await desk.issue(**heat)
    assert first["result"] == "held"
    (one,) = (await look(desk, identifier="again", **heat))["conflicts"]
    assert (one["code"], one["standing"]) == ("same_issuer", "sign")
    assert "not sent yet (sign)" in one["message"]


async def test_a_drill_and_a_real_warning_never_meet_unseen(desk: Desk) -> None:
    """D19: under a red one a drill is refused, as issuing it would be; a red one says which drill it stops."""
    drill = await desk.issue(identifier="drill", status="Exercise")
    assert beside(await look(desk)) == {"warning_over_drill": ("info", drill["id"])}
    await desk.issue()
    response, problem = await desk.call(
        "POST", "/v1/alerts/preview", ISSUER, EXAMPLE | {"identifier": "late", "status": "Exercise"}
    )
    told = "a real orange or red warning or evacuation covers the area"
    assert (response.status, problem["detail"].split(";")[0]) == (409, told)


async def test_nobody_is_sent_home_under_a_red_warning(desk: Desk) -> None:
    """D7: an all-clear never implies return, and a return notice never overlooks a warning."""
    first = await desk.issue()
    home: Any = {
        "sender": "411726-fzb@mingluo.example", "identifier": "home", "document": "return", "level": "unknown",
        "instruction": "可以返回",
    }  # fmt: skip
    assert beside(await look(desk, COMMAND, **home)) == {"return_under_warning": ("warning", first["id"])}


async def test_a_message_seen_before_is_known(desk: Desk) -> None:
    """The answer to "has it gone out?" is not a second warning."""
    first = await desk.issue()
    assert beside(await look(desk)) == {"known": ("info", first["id"])}


async def test_a_flood_of_alerts_bounds_the_look_and_says_so(desk: Desk) -> None:
    """Sooner an incomplete list that says so than a preview that does not answer."""
    first = (await desk.issue())["id"]
    copies = [{"id": f"{n:020x}", "name": f"copy-{n}", "at": n} for n in range(LOOKED_AT + 1)]
    sql = (
        "INSERT INTO alert (id, sender, identifier, sent, content_digest, body, plan, standing, reason, issuer,"
        " accepted_at, expires) SELECT :id, 'other', :name, sent, '', body, plan, standing, '', issuer, accepted_at"
        " + 1 + :at, expires FROM alert WHERE id = :first"
    )
    await desk.database.write(lambda tx: tx.many(sql, [{**copy, "first": first} for copy in copies]))
    found = await look(desk, identifier="b")
    assert "many_in_force" in {one["code"] for one in found["warnings"]}


def version(**changes: Any) -> Alert:
    alert = Alert(
        "a", "1", START, Status.ACTUAL, Kind.ALERT, Document.WARNING, "11B03", "暴雨", Level.ORANGE
    )  # fmt: skip
    return replace(alert, **changes)


CASES: Sequence[tuple[dict[str, Any], dict[str, Any], bool, str]] = (
    ({}, {}, True, "same_issuer"),
    ({}, {}, False, "other_issuer"),
    ({}, {"document": Document.NOWCAST}, True, "same_issuer"),
    ({}, {"document": Document.RESPONSE}, True, "also_in_force"),
    ({"level": Level.YELLOW}, {}, True, "lower_level"),
    ({"level": Level.YELLOW}, {}, False, "other_issuer"),
    ({"event_code": ""}, {"event_code": ""}, True, "same_issuer"),
    ({"event_code": "", "event": "大风"}, {"event_code": ""}, True, "also_in_force"),
    ({"document": Document.EVACUATION}, {"document": Document.EVACUATION, "event_code": "11A51"}, True, "same_issuer"),
    ({"document": Document.SERVICE}, {}, True, "also_in_force"),
    ({"kind": Kind.CANCEL}, {}, True, "still_in_force"),
    ({"kind": Kind.CANCEL}, {}, False, ""),
    ({"status": Status.EXERCISE}, {"level": Level.YELLOW}, True, ""),
    ({"status": Status.EXERCISE}, {"document": Document.EVACUATION, "level": Level.UNKNOWN}, True,
     "drill_under_warning"),
    ({}, {"status": Status.EXERCISE}, True, "warning_over_drill"),
    ({"kind": Kind.CANCEL}, {"status": Status.EXERCISE}, True, ""),
    ({"document": Document.RETURN}, {"level": Level.YELLOW}, True, "also_in_force"),
)  # fmt: skip


@pytest.mark.parametrize(("mine", "other", "own", "code"), CASES)
def test_what_two_alerts_are_to_each_other(mine: dict[str, Any], other: dict[str, Any], own: bool, code: str) -> None:
    """One row per thing an officer would ask about."""
    judged = judge(version(**mine), version(**{"identifier": "2"} | other), own=own, active=True)
    assert (judged[0] if judged else "") == code


def test_targets_meet_only_where_their_villages_do() -> None:
    """Two evacuations of one township's two banks are no conflict."""
    left, right = Target(FLOWER, (FLOWER_1,)), Target(FLOWER, (FLOWER_2,))
    assert overlap([left], [right]) == ()
    assert overlap([left], [Target(FLOWER), Target(WATER)]) == (FLOWER,)
    assert overlap([Target(WATER), Target(OLD)], [Target(OLD), Target(WATER)]) == (WATER, OLD)


async def test_the_very_same_sms_to_the_same_people_is_a_finding_while_it_is_fresh(desk: Desk) -> None:
    """Carriers block it, and the village would not hear what the issuer believes it has said again."""
    await desk.issue()
    found = await look(desk, identifier="second")
    (one,) = [one for one in found["warnings"] if one["code"] == "same_text"]
    assert (one["severity"], one["message"].startswith("sms_twilio: ")) == ("warning", True)
    desk.core.policy = Policy.from_bytes(POLICY.to_bytes().replace(b'"same_text_min":30', b'"same_text_min":0'))
    assert "same_text" not in {one["code"] for one in (await look(desk, identifier="third"))["warnings"]}
