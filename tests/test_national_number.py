"""One unified mouth (D22): every public actual alert carries its national number, or rings until it does."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from api_support import CLERK, ISSUER, NEIGHBOUR, POLICY, SIGNER, VIEWER, Desk, opened
from manual_clock import ManualClock
from test_store import NOW, HandClock, alert, draft_of, hand, store

from gateway import cap, metrics
from gateway.api.shape import EXAMPLE
from gateway.database import Database
from gateway.migrations import upgrade
from gateway.model import Alert, Record, Status
from gateway.national import Listed, Nationals
from gateway.policy import Policy
from gateway.ports import AlertRow
from gateway.store import Store
from gateway.store.national import Match, Numbered

__all__ = ["hand", "store"]  # fixtures: the contract runs on SQLite and on PostgreSQL

UNIT = "41172641600000"
NUMBER = f"{UNIT}_20260720140000"
LIVE = (Path(__file__).parent / "data" / "national" / "rainstorm_update.xml").read_bytes()


# --- the store --------------------------------------------------------------------------------------


async def out(store: Store, one: Alert) -> Alert:
    """Let an alert go out."""
    assert (await store.outbox.accept(draft_of(one))).result == "accepted"
    return one


def record(alert: str) -> Record:
    return Record(NOW, "clerk", "national", alert, "")


async def test_an_alert_is_pending_from_the_moment_it_goes_out(store: Store, hand: HandClock) -> None:
    """No crash between acceptance and the platform's answer leaves an alert that nobody asks about."""
    one = await out(store, alert())
    found = await store.national.of(one.id)
    assert found is not None
    assert (found.pending, found.since) == (True, NOW)
    row = await store.outbox.alert(one.id)
    assert row is not None
    assert row.national_number == "pending"


async def test_an_identifier_of_the_national_form_is_its_own_number(store: Store) -> None:
    """What came from the platform needs nobody to match it."""
    one = await out(store, alert(NUMBER))
    row = await store.outbox.alert(one.id)
    assert row is not None
    assert row.national_number == NUMBER


@pytest.mark.parametrize("changes", [{"status": Status.EXERCISE}, {"scope": "Restricted"}])
async def test_a_drill_and_what_is_not_public_need_no_number(store: Store, changes: dict[str, Any]) -> None:
    """The platform must never hear of a drill as of a warning."""
    one = await out(store, replace(alert(), **changes))
    assert await store.national.of(one.id) is None
    assert await store.national.match(one.id, NUMBER, "person", record(one.id)) is Match.NOT_DUE
    row = await store.outbox.alert(one.id)
    assert row is not None
    assert row.national_number is None


async def test_a_number_is_one_alerts_and_an_alert_has_one(store: Store) -> None:
    """Two alerts under one number, or one under two, would hide a missing one at the reconciliation."""
    first, second = await out(store, alert("a1")), await out(store, alert("a2"))
    match = store.national.match
    assert await match(first.id, NUMBER, "person", record(first.id)) is Match.MATCHED
    assert await match(first.id, NUMBER, "person", record(first.id)) is Match.KNOWN
    assert await match(second.id, f"{NUMBER}_0", "listing", record(second.id)) is Match.TAKEN
    assert await match(first.id, f"{UNIT}_20260720140001", "listing", record(first.id)) is Match.OTHER
    other = f"{UNIT}_20260720140002"
    assert await match(first.id, other, "person", record(first.id), replace=True) is Match.MATCHED
    assert await match(second.id, f"{NUMBER}_0", "listing", record(second.id)) is Match.MATCHED
    records = await store.audit.records()
    assert [one.action for _, one, _ in records].count("national") == 3


async def test_two_processes_do_not_give_one_number_to_two_alerts(database_url: str, hand: HandClock) -> None:
    """Two clerks read the same line of the platform's page; one of them is told."""
    here, there = Database(database_url), Database(database_url)
    await here.open()
    await there.open()
    stores = [Store(one, hand) for one in (here, there)]
    alerts = [await out(stores[0], alert(f"a{n}")) for n in range(2)]
    for second in range(30):
        numbers = (f"{UNIT}_20260720140{second:03d}", f"{UNIT}_20260720140{second:03d}_0")
        given = [
            store.national.match(one.id, number, "person", record(one.id), replace=True)
            for store, one, number in zip(stores, alerts, numbers, strict=True)
        ]
        assert sorted(await asyncio.gather(*given)) == [Match.MATCHED, Match.TAKEN]
    await here.close()
    await there.close()


async def test_two_alerts_that_claim_one_number_are_not_both_believed(store: Store) -> None:
    """The second is taken in all the same, and pending."""
    await out(store, alert(NUMBER))
    second = await out(store, replace(alert(f"{NUMBER}_0"), sender="other@mingluo.example"))
    found = await store.national.of(second.id)
    assert found is not None
    assert found.pending


async def test_a_days_alerts_are_those_sent_on_it(store: Store) -> None:
    """The listing is by Chinese day, whenever the alert came in."""
    one = await out(store, alert("a1"))
    await out(store, replace(alert("a2"), sent=NOW + timedelta(days=1), expires=NOW + timedelta(days=2)))
    rows = await store.national.sent_between(NOW, NOW + timedelta(days=1))
    assert [row.alert.id for row, _ in rows] == [one.id]


async def test_alerts_from_before_get_a_row_without_ringing(tmp_path: Path, hand: HandClock) -> None:
    """An installation that is brought up to date shows last night's alerts as pending, and wakes nobody for them."""
    database = Database(f"sqlite:///{tmp_path}/new.db")
    await database.open()
    store = Store(database, hand)
    for one in (replace(alert("a3"), status=Status.TEST), alert("a1"), alert(NUMBER)):
        await out(store, one)
    await database.close()
    url = f"sqlite:///{tmp_path}/old.db"
    upgrade(url, "0003")
    with closing(sqlite3.connect(tmp_path / "old.db")) as old:
        old.execute("ATTACH ? AS new", (f"{tmp_path}/new.db",))
        names = ", ".join(name for _, name, *_ in old.execute("PRAGMA main.table_info(alert)"))
        old.execute(f"INSERT INTO alert ({names}) SELECT {names} FROM new.alert")
        old.commit()
    database = Database(url)
    await database.open()
    rows = await Store(database, hand).outbox.alerts()
    assert {row.alert.identifier: row.national_number for row in rows} == {"a1": "pending", NUMBER: NUMBER, "a3": None}
    await database.close()


# --- the gateway ------------------------------------------------------------------------------------


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


async def issued(desk: Desk, identifier: str = "demo-1", **changes: Any) -> str:
    """Issue the example, pre-authorised: it goes out at once."""
    sent = desk.clock.now().replace(microsecond=0).isoformat()
    content = await desk.issue(identifier=identifier, sent=sent, **changes)
    assert content["result"] == "accepted", content
    return str(content["id"])


def kind(problem: Any) -> str:
    """What a problem is, in one word."""
    return str(problem["type"].rpartition("/")[2])


async def fire(desk: Desk) -> None:
    """Fire the timer `national` as the scheduler does."""
    for name, key in await desk.core.store.timers.take(100):
        if name == "national":
            again = await desk.core.national.due(key)
            timers = desk.core.store.timers
            await (timers.done(name, key) if again is None else timers.set(name, key, again))


def rung() -> float:
    return metrics.REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": "national"}) or 0.0


async def test_what_nobody_matches_within_ten_minutes_rings_and_rings_each_hour(desk: Desk) -> None:
    """A warning the platform does not know of is one that the county issues behind its back (D22)."""
    before, alert = rung(), await issued(desk)
    desk.clock.advance(599)
    await fire(desk)
    assert rung() == before
    desk.clock.advance(2)
    await fire(desk)
    await fire(desk)
    assert rung() == before + 1
    desk.clock.advance(3600)
    await fire(desk)
    assert rung() == before + 2
    response, _ = await desk.call("POST", f"/v1/alerts/{alert}/national-number", CLERK, {"number": NUMBER})
    assert response.status == 200
    desk.clock.advance(3600)
    await fire(desk)
    assert rung() == before + 2


async def test_the_platforms_own_message_of_a_warning_brings_its_number_and_warns_nobody_again(desk: Desk) -> None:
    """Issued here first, then exported by the platform: one warning, told once, matched without a person."""
    told = cap.parse(LIVE)[0]
    assert told is not None
    alert = await issued(desk, description=told.infos[0].description, instruction=None, expires=None)
    desk.clock.advance(60)
    echo = national(desk, "Alert", "00")
    response, content = await desk.call("POST", "/v1/alerts", ISSUER, echo, "application/xml")
    assert (response.status, content["result"]) == (202, "held")
    before = rung()
    desk.clock.advance(600)
    await fire(desk)
    assert rung() == before
    _, shown = await desk.call("GET", f"/v1/alerts/{alert}", CLERK)
    _, kept = await desk.call("GET", f"/v1/alerts/{content['id']}", CLERK)
    assert kept["standing"] == "suppressed"
    assert shown["national_number"] == kept["identifier"]


async def test_what_has_ended_or_has_its_number_rings_no_more(desk: Desk) -> None:
    """The reconciliation of the day has the rest."""
    before, alert = rung(), await issued(desk)
    await issued(desk, NUMBER, event_code="11B04", event="暴雪")
    await desk.call("POST", f"/v1/alerts/{alert}/recall", SIGNER, {"reason": "mistake"})
    desk.clock.advance(700)
    await fire(desk)
    assert rung() == before


async def test_the_number_is_shown_wherever_the_alert_is(desk: Desk) -> None:
    """Nobody has to look it up."""
    alert = await issued(desk)
    for path in (f"/v1/alerts/{alert}", f"/v1/alerts/{alert}/status"):
        _, content = await desk.call("GET", path, CLERK)
        assert content["national_number"] == "pending"
    _, answer = await desk.call("POST", f"/v1/alerts/{alert}/national-number", SIGNER, {"number": NUMBER})
    assert answer == {"id": alert, "national_number": NUMBER, "result": "matched"}
    _, listed = await desk.call("GET", "/v1/alerts", CLERK)
    assert [one["national_number"] for one in listed["alerts"]] == [NUMBER]


async def test_what_has_not_gone_out_has_no_number_yet(desk: Desk) -> None:
    """Waiting is another matter, with an alarm of its own."""
    sent = desk.clock.now().replace(microsecond=0).isoformat()
    held = await desk.issue(identifier="heat", sent=sent, event_code="11B09", event="高温", level="orange")
    _, content = await desk.call("GET", f"/v1/alerts/{held['id']}", CLERK)
    assert content["national_number"] is None
    await desk.call("POST", f"/v1/alerts/{held['id']}/approve", SIGNER)
    _, content = await desk.call("GET", f"/v1/alerts/{held['id']}", CLERK)
    assert content["national_number"] == "pending"


@pytest.mark.parametrize(
    ("token", "number", "status", "code"),
    [(VIEWER, NUMBER, 403, "wrong_role"), (NEIGHBOUR, NUMBER, 404, "unknown_alert"),
     ("demo-411726-fzb-issuer", NUMBER, 403, "not_entitled"), (CLERK, "12", 422, "no_number"),
     (CLERK, f"{UNIT}_20261320140000", 422, "no_number")],
)  # fmt: skip
async def test_only_its_issuers_people_write_a_number_and_only_a_number(
    desk: Desk, token: str, number: str, status: int, code: str
) -> None:
    """A wrong number would silence the alarm for an alert the platform does not know."""
    alert = await issued(desk)
    response, problem = await desk.call("POST", f"/v1/alerts/{alert}/national-number", token, {"number": number})
    assert (response.status, kind(problem)) == (status, code)


async def test_a_number_that_another_alert_has_is_refused(desk: Desk) -> None:
    """The clerk mistook one for the other."""
    first = await issued(desk)
    second = await issued(desk, "demo-2", event_code="11B04", event="暴雪")
    await desk.call("POST", f"/v1/alerts/{first}/national-number", CLERK, {"number": NUMBER})
    response, problem = await desk.call("POST", f"/v1/alerts/{second}/national-number", CLERK, {"number": NUMBER})
    assert (response.status, kind(problem)) == (409, "number_taken")


# --- the dialect through the API --------------------------------------------------------------------


def national(desk: Desk, kind: str, tail: str, references: str = "", **changes: str) -> bytes:
    """Return the live message as one of now."""
    now = desk.clock.now() + timedelta(hours=8)
    text = LIVE.decode().replace("41172641600000_20260720143119", f"{UNIT}_{now:%Y%m%d%H%M}{tail}")
    text = text.replace("41172641600000_20260720121842", references).replace("<msgType>Update", f"<msgType>{kind}")
    text = text.replace("2026-07-20 14:25:00", f"{now:%Y-%m-%d %H:%M:%S}")
    text = text.replace("2026-07-20 14:33:42", f"{now:%Y-%m-%d %H:%M:%S}")
    for old, new in changes.items():
        text = text.replace(old, new)
    return text.encode()


async def test_the_dialect_is_taken_in_as_its_units_own_alert(desk: Desk) -> None:
    """The platform's message warns the villages, under the sender the policy knows, and is its own number."""
    data = national(desk, "Alert", "00")
    response, content = await desk.call("POST", "/v1/alerts", ISSUER, data, "application/xml")
    assert response.status == 202, content
    assert (content["result"], content["route"]) == ("accepted", "green")
    _, shown = await desk.call("GET", f"/v1/alerts/{content['id']}", ISSUER)
    assert shown["sender"] == EXAMPLE["sender"]
    assert shown["national_number"] == shown["identifier"]
    assert shown["townships"] == ["411726204", "411726209"]
    again, _ = await desk.call("POST", "/v1/alerts", ISSUER, data, "application/xml")
    assert again.status == 200


async def test_a_unit_speaks_for_itself_only(desk: Desk) -> None:
    """A token of one county's bureau sends nothing under another's code (T7)."""
    data = national(desk, "Alert", "00").replace(b"41172641600000", b"41172841600000")
    response, problem = await desk.call("POST", "/v1/alerts", ISSUER, data, "application/xml")
    assert (response.status, kind(problem)) == (403, "outside_authority")


async def test_an_end_that_names_the_first_issue_ends_the_update(desk: Desk) -> None:
    """The dialect always names the first issue; the village must not stay warned by the update (T2)."""
    first = f"{UNIT}_{desk.clock.now() + timedelta(hours=8):%Y%m%d%H%M}00"
    await desk.call("POST", "/v1/alerts", ISSUER, national(desk, "Alert", "00"), "application/xml")
    desk.clock.advance(60)
    _, update = await desk.call("POST", "/v1/alerts", ISSUER, national(desk, "Update", "01", first), "application/xml")
    await desk.call("POST", f"/v1/alerts/{update['id']}/approve", SIGNER)
    desk.clock.advance(60)
    end = national(desk, "Cancel", "02", first, 局发布="局解除")
    _, cancel = await desk.call("POST", "/v1/alerts", ISSUER, end, "application/xml")
    await desk.call("POST", f"/v1/alerts/{cancel['id']}/approve", SIGNER)
    _, shown = await desk.call("GET", f"/v1/alerts/{update['id']}", ISSUER)
    assert (shown["standing"], shown["reason"]) == ("stopped", "cancelled")


async def test_errors_of_the_dialect_name_element_line_and_fix(desk: Desk) -> None:
    """The sender's programmer mends it without asking."""
    data = national(desk, "Alert", "00", **{"<severity>Red": "<severity>1"})
    response, problem = await desk.call("POST", "/v1/alerts", ISSUER, data, "application/xml")
    assert response.status == 400
    error = next(one for one in problem["errors"] if one["code"] == "digit_level")
    assert (error["element"], error["line"]) == ("info[1]/severity", 31)


async def test_an_alert_is_had_in_the_dialect_under_its_unit_and_number(desk: Desk) -> None:
    """What is entered on the platform by hand is copied, not retyped."""
    alert = await issued(desk)
    await desk.call("POST", f"/v1/alerts/{alert}/national-number", CLERK, {"number": NUMBER})
    response, content = await desk.call("GET", f"/v1/alerts/{alert}/national", CLERK)
    assert response.status == 200
    read, _ = cap.parse(content["message"].encode())
    assert read is not None
    assert (read.sender, read.identifier, read.level.name) == (UNIT, NUMBER, "RED")
    assert "info[1]/effective" in {loss["element"] for loss in content["losses"]}


async def test_an_instruction_is_not_had_in_the_dialect(desk: Desk) -> None:
    """It would become a warning there."""
    body = EXAMPLE | {"sender": "411726-fzb@mingluo.example", "identifier": "ev-1", "document": "evacuation",
                      "event_code": "11A51", "event": "山洪灾害", "level": "unknown",
                      "sent": desk.clock.now().replace(microsecond=0).isoformat()}  # fmt: skip
    response, content = await desk.call("POST", "/v1/alerts", "demo-411726-fzb-issuer", body)
    assert response.status == 202, content
    response, problem = await desk.call("GET", f"/v1/alerts/{content['id']}/national", "demo-411726-fzb-issuer")
    assert (response.status, kind(problem)) == (422, "not_national")


# --- reconciliation ---------------------------------------------------------------------------------


def entry(
    desk: Desk, number: str, title: str = "泌阳县气象局发布暴雨红色预警", sender: str = UNIT, minutes: int = 0
) -> Any:
    """One line of the platform's listing."""
    sent = (desk.clock.now() + timedelta(minutes=minutes)).replace(microsecond=0)
    return {"number": number, "sender": sender, "title": title, "sent": sent.isoformat()}


async def reconcile(desk: Desk, *alerts: Any, token: str = CLERK) -> Any:
    day = (desk.clock.now() + timedelta(hours=8)).date().isoformat()
    response, content = await desk.call("POST", "/v1/national/reconcile", token, {"day": day, "alerts": list(alerts)})
    assert response.status == 200, content
    return content


async def test_a_day_on_both_sides_is_in_order(desk: Desk) -> None:
    """Nothing to do, and the chain says that somebody looked."""
    await issued(desk, NUMBER)
    found = await reconcile(desk, entry(desk, f"{NUMBER}_0"))
    assert (found["both"], found["matched"], found["only_here"], found["only_there"]) == (1, [], [], [])
    records = await desk.core.store.audit.records(limit=1000)
    assert records[-1][1].action == "reconcile"
    assert "1 on both sides, 0 only here, 0 only there" in records[-1][1].detail


async def test_what_stands_on_one_side_only_is_listed(desk: Desk) -> None:
    """An alert the platform never got, and one that never reached the villages: both are somebody's morning."""
    alert = await issued(desk)
    missing = entry(desk, f"{UNIT}_20260720150000", "泌阳县气象局发布大风蓝色预警")
    found = await reconcile(desk, missing)
    assert [one["id"] for one in found["only_here"]] == [alert]
    assert [one["number"] for one in found["only_there"]] == [missing["number"]]


async def test_an_entry_that_can_mean_one_alert_only_gives_it_its_number(desk: Desk) -> None:
    """The clerk does not copy what the listing says beyond doubt."""
    alert = await issued(desk)
    found = await reconcile(desk, entry(desk, NUMBER, minutes=5))
    assert [(one["id"], one["national_number"]) for one in found["matched"]] == [(alert, NUMBER)]
    assert (found["both"], found["only_here"], found["only_there"]) == (1, [], [])
    _, shown = await desk.call("GET", f"/v1/alerts/{alert}", CLERK)
    assert shown["national_number"] == NUMBER


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "泌阳县气象局发布暴雨橙色预警"},
        {"title": "泌阳县气象局解除暴雨红色预警"},
        {"title": "泌阳县气象局发布暴雪红色预警"},
        {"title": "红色"},
        {"minutes": 11},
        {"sender": "别的单位", "number": "41172841600000_20260720140000"},
    ],
)
async def test_what_may_mean_another_alert_is_left_to_a_person(desk: Desk, changes: dict[str, Any]) -> None:
    """A number given to the wrong alert silences the right one's alarm."""
    await issued(desk)
    found = await reconcile(desk, entry(desk, **{"number": NUMBER} | changes))
    assert found["matched"] == []
    assert (len(found["only_here"]), len(found["only_there"])) == (1, 1)


async def test_two_entries_for_one_alert_match_nothing(desk: Desk) -> None:
    """Two hazards of one minute look alike in a listing."""
    await issued(desk)
    found = await reconcile(desk, entry(desk, NUMBER), entry(desk, f"{UNIT}_20260720140059"))
    assert found["matched"] == []
    assert len(found["only_there"]) == 2


async def test_a_neighbours_alerts_are_not_missed_here(desk: Desk) -> None:
    """A county's listing holds that county's units; it is no news that it lacks another's."""
    await issued(desk)
    found = await reconcile(desk, token=NEIGHBOUR)
    assert (found["both"], found["only_here"]) == (0, [])


async def test_a_long_listing_is_read_and_an_endless_one_refused(desk: Desk) -> None:
    """A province's day fits; a mistake does not hold the gateway up."""
    many = [entry(desk, f"{UNIT}_2026072014{n // 60:02d}{n % 60:02d}", "今天") for n in range(2000)]
    found = await reconcile(desk, *many)
    assert len(found["only_there"]) == 2000
    day = "2026-07-20"
    body = {"day": day, "alerts": [*many, many[0]]}
    response, _ = await desk.call("POST", "/v1/national/reconcile", CLERK, body)
    assert response.status == 400
    response, _ = await desk.call("POST", "/v1/national/reconcile", CLERK, json.dumps(body).encode() + b" " * 2**20)
    assert response.status == 413


def test_an_entry_is_held_against_the_alerts_of_its_time_only(store: Store) -> None:
    """A county's listing against a night of 200 alerts kept every other warning waiting for seconds."""
    asked = 0

    def policy() -> Policy:
        nonlocal asked
        asked += 1
        return POLICY

    stands, sent = draft_of(alert()), [NOW + timedelta(minutes=minute) for minute in range(0, 1440, 30)]
    rows = [AlertRow(replace(alert(), sent=at), stands.plan, "active", "", "", NOW) for at in sent]
    ours = [(row, Numbered(row.alert.id, "", "", NOW, None)) for row in rows]
    listed = [Listed(f"{UNIT}_20260720{at:%H%M%S}", UNIT, "", at) for at in sent]
    assert list(Nationals(store, policy, HandClock())._named(ours, listed)) == []
    assert asked == len(ours)


@pytest.mark.parametrize("day", ["0001-01-01", "1969-12-31", "2200-01-01", "9999-12-31"])
async def test_a_day_that_no_clock_shows_is_refused(desk: Desk, day: str) -> None:
    """A slip of the key is told as one, not as a fault of ours."""
    response, content = await desk.call("POST", "/v1/national/reconcile", CLERK, {"day": day, "alerts": []})
    assert (response.status, kind(content)) == (400, "invalid_body")
