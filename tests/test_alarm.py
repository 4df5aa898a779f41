"""Nothing waits in silence: whom the duty-room alarm calls, and when (D2, D9)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from api_support import ISSUER, POLICY, SIGNER, Desk, opened
from manual_clock import ManualClock
from structlog.testing import capture_logs

from gateway import metrics
from gateway.alarm import REPEAT, Alarm
from gateway.api.shape import EXAMPLE
from gateway.lifecycle import Lifecycle
from gateway.policy import Policy

HEAT = {"event_code": "11B09", "event": "高温", "level": "orange"}
JOINT = {"document": "joint_risk", "event_code": "11A51", "event": "山洪灾害", "level": "orange"}


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


def alarm_of(desk: Desk) -> Alarm:
    return Alarm(desk.core.store, lambda: POLICY, desk.clock)


def rung(kind: str) -> float:
    return metrics.REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": kind}) or 0.0


async def called(desk: Desk, alert: str) -> str:
    """Ring once; return whom the alarm names."""
    with capture_logs() as logs:
        assert await alarm_of(desk).held(alert) == desk.clock.now() + REPEAT
    [line] = [line for line in logs if line["event"] == "alert_held"]
    assert line["log_level"] == "critical"
    return str(line["call"])


async def test_the_officer_is_called_then_the_leader_then_the_deputies(desk: Desk) -> None:
    """Three minutes of nobody, and somebody else must know."""
    alert = (await desk.issue(**HEAT))["id"]
    assert await called(desk, alert) == "duty officer"
    desk.clock.advance(3 * 60)
    assert await called(desk, alert) == "signers of 4117-qxt"


async def test_without_deputies_it_is_the_leader_who_is_called(desk: Desk) -> None:
    """Who has nobody above goes on calling the own leader."""
    alert = (await desk.issue(**HEAT))["id"]
    lonely = POLICY.tables.procedure.model_copy(update={"deputy": ()})
    policy = Policy(POLICY.tables.model_copy(update={"procedure": lonely}))
    desk.clock.advance(3 * 60)
    with capture_logs() as logs:
        await Alarm(desk.core.store, lambda: policy, desk.clock).held(alert)
    assert logs[-1]["call"] == "duty leader"


async def test_a_new_stage_starts_its_own_patience(desk: Desk) -> None:
    """The signer is not late because the reviewer was."""
    gale = {"event_code": "11B06", "event": "大风", "level": "blue"}
    alert = (await desk.issue(**gale))["id"]
    desk.clock.advance(9 * 60)
    assert await called(desk, alert) == "duty leader"
    await desk.call("POST", f"/v1/alerts/{alert}/approve", "demo-411726-qxj-reviewer")
    assert await called(desk, alert) == "duty officer"
    await desk.call("POST", f"/v1/alerts/{alert}/approve", SIGNER)
    assert await alarm_of(desk).held(alert) is None


async def test_a_returned_warning_rings_for_its_writer_until_it_is_amended(desk: Desk) -> None:
    """Sent back at two in the morning to somebody who has left the desk, it must not lie there in silence."""
    alert = (await desk.issue(**HEAT))["id"]
    await desk.call("POST", f"/v1/alerts/{alert}/return", SIGNER, {"reason": "乡镇写错了"})
    assert ("held", alert) in await desk.core.store.timers.take(10)
    assert await called(desk, alert) == "its writer"
    desk.clock.advance(3 * 60)
    assert await called(desk, alert) == "duty leader"
    _, amended = await desk.call("PUT", f"/v1/alerts/{alert}", ISSUER, EXAMPLE | HEAT | {"instruction": "避免外出"})
    assert await alarm_of(desk).held(amended["id"]) is None
    assert await desk.core.store.timers.take(10) == []


async def test_a_silent_partner_is_named_once_its_time_is_over(desk: Desk) -> None:
    """The joint warning does not die waiting (D9)."""
    alert = (await desk.issue(**JOINT))["id"]
    rows = await desk.database.read(lambda tx: tx.all("SELECT kind, due FROM timer"))
    timers: dict[str, int] = dict(rows)
    before = rung("partner")
    assert timers["partner"] - timers["held"] == timedelta(minutes=10) // timedelta(microseconds=1)
    assert await alarm_of(desk).partner(alert) is None
    assert rung("partner") == before + 1


async def test_what_nobody_decided_expires_unsent(desk: Desk) -> None:
    """A warning of yesterday that was never signed must not be signed today."""
    alert = (await desk.issue(**HEAT))["id"]
    desk.clock.advance(4 * 3600)
    assert await Lifecycle(desk.core.store, desk.clock).expire(alert) is None
    row = await desk.core.store.outbox.alert(alert)
    assert row is not None
    assert (row.standing, row.reason) == ("stopped", "expired")
    assert await alarm_of(desk).held(alert) is None
