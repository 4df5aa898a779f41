"""The numbers the duty room looks at come from the store, once, whichever process did the work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import blank
import pytest
from api_support import Desk, opened
from manual_clock import ManualClock
from test_store import NOW, alert, batch_of, draft_of, settled

from gateway import metrics
from gateway.broker import LocalBroker, RabbitBroker
from gateway.database import Database
from gateway.errors import StoreDown
from gateway.gauge import Gauges
from gateway.lifecycle import Lifecycle
from gateway.model import Receipt, State
from gateway.ports import Broker
from gateway.store import Store

QUEUE = "sms_twilio.green"


def value(name: str, **labels: str) -> float | None:
    """One sample of the process's registry."""
    return metrics.REGISTRY.get_sample_value(f"mingluo_{name}", labels)


def timed(name: str) -> float:
    """Observations of a histogram, over all labels."""
    return sum(
        sample.value
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
        if sample.name == f"mingluo_{name}_count"
    )


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as desk:
        yield desk


def gauges(desk: Desk, broker: Broker, queues: tuple[str, ...] = (QUEUE,)) -> Gauges:
    return Gauges(desk.core.store, broker, desk.core.coverage, desk.clock, queues, "local", ("noop",))


async def test_a_settled_batch_is_timed_once_and_the_first_of_its_alert_by_name(desk: Desk) -> None:
    """A red warning that was slow must be seen as slow, and a second seal must not make it look twice as common."""
    await desk.issue()
    await desk.delivered((await desk.core.store.outbox.alerts())[0].alert.id)
    first, settled = timed("first_submitted_seconds"), timed("all_submitted_seconds")
    lifecycle = Lifecycle(desk.core.store, desk.clock)
    await lifecycle.seal()
    await lifecycle.seal()
    lanes = {(batch.channel, batch.lane) for batch, _ in await desk.core.store.ledger.batches(await newest(desk))}
    batches = await desk.core.store.ledger.batches(await newest(desk))
    assert timed("all_submitted_seconds") - settled == len(batches)
    assert timed("first_submitted_seconds") - first == len(lanes)
    assert len(batches) > len(lanes), "else the second assertion shows nothing"


async def test_the_pace_counts_from_acceptance(desk: Desk) -> None:
    """Seconds since the officials' warning was accepted, not since its batch was made."""
    await desk.issue()
    await desk.delivered(await newest(desk))
    batches = [batch.id for batch, _ in await desk.core.store.ledger.batches(await newest(desk))]
    paces = await desk.core.store.ledger.paces(batches)
    assert {(pace.submitted_s, pace.settled_s) for pace in paces} == {(1.0, 1.0)}


async def test_a_batch_that_was_stopped_before_it_was_sent_has_no_pace(desk: Desk) -> None:
    """What was never sent must not make a slow night look fast."""
    await desk.issue()
    alert = await newest(desk)
    while await desk.planner.round():
        pass
    await desk.call("POST", f"/v1/alerts/{alert}/recall", "demo-411726-qxj-issuer", {"reason": "made in error"})
    store = desk.core.store
    batches = [batch.id for batch, _ in await store.ledger.batches(alert)]
    for batch in batches:
        await store.outbox.claim(batch, 0, "worker", 30)
    assert batches
    assert await store.ledger.paces(batches) == []


async def test_the_depth_of_a_broker_that_is_down_is_not_shown_as_nothing_waiting(desk: Desk) -> None:
    """A zero would calm the duty room at the very moment the broker is gone."""
    broker = LocalBroker()
    await broker.open([QUEUE])
    await broker.publish(QUEUE, b"batch")
    await gauges(desk, broker).work()
    assert (value("queue_depth", lane="green"), value("broker_up", broker="local")) == (1.0, 1.0)
    await gauges(desk, LocalBroker()).work()  # it knows no queue, as one that does not answer
    assert (value("queue_depth", lane="green"), value("broker_up", broker="local")) == (None, 0.0)


async def test_the_depth_of_rabbitmq_is_what_waits_there(desk: Desk, amqp_url: str, namespace: str) -> None:
    """The cluster's duty room sees a queue nobody works off while it can still be mended."""
    broker = RabbitBroker(amqp_url, namespace)
    await broker.open([QUEUE])
    await broker.publish(QUEUE, b"batch")
    await gauges(desk, broker).work()
    before = value("queue_depth", lane="green")  # the broker's own probe may wait there too
    await broker.publish(QUEUE, b"batch")
    await gauges(desk, broker).work()
    shown = value("queue_depth", lane="green"), value("broker_up", broker="local")
    await broker.close()
    assert before is not None
    assert shown == (before + 1, 1.0)
    await gauges(desk, broker).work()
    assert (value("queue_depth", lane="green"), value("broker_up", broker="local")) == (None, 0.0)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_the_first_of_an_alert_is_the_first_submitted_whichever_settled_first(
    kind: str, tmp_path: Path, clock: ManualClock, request: pytest.FixtureRequest
) -> None:
    """Two workers share an alert; the one that seals first must not call its own batch the first."""
    url = blank.sqlite(tmp_path) if kind == "sqlite" else request.getfixturevalue("database_url")
    database = Database(url)
    await database.open()
    clock.set(NOW)
    store = Store(database, clock)
    early, late = batch_of(alert(), slice_=4), batch_of(alert(), slice_=4, number=1)
    await store.outbox.accept(draft_of(alert(), early, late))
    for batch, seconds in ((late, 7), (early, 3)):
        await store.outbox.claim(batch.id, 0, "worker", 30)
        at = NOW + timedelta(seconds=seconds)
        await store.ledger.settle(settled(batch, 0, "worker", [0, 1, 2, 3], Receipt(State.SUBMITTED), at))
    paces = await store.ledger.paces([early.id, late.id])
    assert [(pace.first, pace.submitted_s, pace.settled_s) for pace in paces] == [(True, 3.0, 3.0), (False, 7.0, 7.0)]
    await database.close()


async def test_a_database_that_is_away_is_seen_before_the_next_warning_is_refused(desk: Desk) -> None:
    """It is the one part whose loss stops acceptance; the duty room must know before the forecaster does."""
    shown = gauges(desk, LocalBroker())
    await shown.work()
    assert value("store_up", store="sqlite") == 1.0
    desk.database.away = True
    with pytest.raises(StoreDown):
        await shown.work()
    assert value("store_up", store="sqlite") == 0.0


async def test_a_broker_without_queues_is_not_called_down(desk: Desk) -> None:
    """An installation with loudspeakers only has no queues; its duty room must not be woken for that."""
    await gauges(desk, LocalBroker(), ()).work()
    assert value("broker_up", broker="local") == 1.0


async def test_villages_of_all_live_warnings_are_counted_and_those_that_ended_are_not(desk: Desk) -> None:
    """A gap in one county must not vanish from the screen because another county's page was opened."""
    shown = gauges(desk, LocalBroker())
    await desk.issue()
    await shown.villages()
    states = ("confirmed", "played", "sms_only", "silent", "gap")
    one = sum(value("villages", state=state) or 0.0 for state in states)
    assert one > 0
    await desk.issue(identifier="another-one", description="又一场雨")
    await shown.villages()
    assert sum(value("villages", state=state) or 0.0 for state in states) == 2 * one
    await desk.call(
        "POST", f"/v1/alerts/{await newest(desk)}/recall", "demo-411726-qxj-issuer", {"reason": "made in error"}
    )
    await shown.villages()
    assert sum(value("villages", state=state) or 0.0 for state in states) == one


async def newest(desk: Desk) -> str:
    """Id of the alert taken in last."""
    return (await desk.core.store.outbox.alerts())[0].alert.id


def test_counters_that_wake_people_stand_at_zero_from_the_start() -> None:
    """A series that first appears as 1 has not increased for Prometheus: the first alarm of a night would be missed."""
    metrics.begin(["sms_new"])
    assert value("alarms_total", kind="held") is not None
    assert value("claims_lapsed_total", channel="sms_new") == 0.0
    assert value("deliveries_total", channel="sms_new", state="failed") == 0.0
