"""A process without a connection to its carrier: it leaves work to others; all together see an outage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import blank
import pytest
from test_link import Busy
from test_store import HandClock, alert, batch_of

from channels.noop import Noop, NoopSettings
from gateway.broker.local import ROOM, LocalBroker
from gateway.channel import Lines
from gateway.database import Database
from gateway.errors import BrokerDown
from gateway.metrics import REGISTRY
from gateway.model import Batch
from gateway.relay import Worker, queue
from gateway.sender import Stopping
from gateway.session import PATIENCE, Sessions
from gateway.store import Store
from gateway.store.codec import pack
from gateway.store.outage import NO_SESSION, SEEN

GREEN = "noop.green"


class Line(Noop):
    """A channel with sessions whose connection comes and goes by hand."""

    sessions = True
    connected = True
    told: Lines | None = None

    def up(self) -> bool:
        """As it was set."""
        return self.connected

    def lines(self) -> Lines | None:
        """One of two."""
        return self.told


class Reluctant(Busy):
    """A sender that takes nothing while its channel is down."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.line = line
        self.released.set()

    async def send(self, batch: Batch) -> None:
        if not self.line.up():
            raise Stopping
        await super().send(batch)


class Hub:
    """One process with one channel, over a broker and a store."""

    def __init__(self, broker: LocalBroker, store: Store, hand: HandClock) -> None:
        self.line = Line(NoopSettings())
        self.sender = Reluctant(self.line)
        self.worker = Worker(broker, self.sender, {"noop": self.line})
        self.sessions = Sessions({"noop": self.line}, self.worker, store.outbox, hand)


@pytest.fixture
def hand() -> HandClock:
    return HandClock()


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, hand: HandClock) -> AsyncIterator[Store]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    database = Database(url)
    await database.open()
    yield Store(database, hand)
    await database.close()


async def opened(store: Store, hand: HandClock, hubs: int = 1) -> tuple[LocalBroker, list[Hub]]:
    broker = LocalBroker()
    line = Line(NoopSettings())
    await broker.open([queue("noop", lane) for lane in type(batch_of(alert()).lane)])
    assert line.sessions
    made = [Hub(broker, store, hand) for _ in range(hubs)]
    for hub in made:
        await hub.worker.start(())
    return broker, made


async def settle_down() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_work_waits_for_the_connection_and_flows_once_it_is_back(store: Store, hand: HandClock) -> None:
    """No attempt is used up on a carrier that is not there, and no official waits once it is."""
    broker, (hub,) = await opened(store, hand)
    hub.line.connected = False
    hub.sessions.check()
    batch = batch_of(alert())
    await broker.publish(GREEN, pack(batch))
    await settle_down()
    assert hub.sender.begun == []
    assert hub.worker.able() == []
    hub.line.connected = True
    hub.sessions.check()
    await settle_down()
    assert hub.sender.begun == [batch.id]
    assert hub.worker.able() == ["noop"]
    assert (await broker.depths())[GREEN] == 0


async def test_what_was_taken_when_the_connection_broke_comes_again(store: Store, hand: HandClock) -> None:
    """A connection that was away for less than a look must not leave a batch in nobody's hands."""
    broker, (hub,) = await opened(store, hand)
    hub.line.connected = False
    batch = batch_of(alert())
    await broker.publish(GREEN, pack(batch))
    await settle_down()
    hub.line.connected = True
    for _ in range(2):
        hub.sessions.check()
        await settle_down()
    assert hub.sender.begun == [batch.id]


async def test_a_full_queue_of_a_paused_channel_holds_up_no_publisher(store: Store, hand: HandClock) -> None:
    """Publishers serve all channels: one without its carrier must not make the others' warnings wait."""
    broker, (hub,) = await opened(store, hand)
    hub.line.connected = False
    hub.sessions.check()
    for _ in range(ROOM):
        await broker.publish(GREEN, b"x")
    with pytest.raises(BrokerDown):
        await broker.publish(GREEN, b"x", timeout_s=3600)


async def test_connections_and_what_broke_them_are_shown(store: Store, hand: HandClock) -> None:
    """A line that breaks every minute, and comes back, is one that breaks in the middle of a warning."""
    _, (hub,) = await opened(store, hand)

    def shown(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"mingluo_connections{name}", {"channel": "noop", **labels}) or 0.0

    garbage, other = shown("_broken_total", why="garbage"), shown("_broken_total", why="other")
    for broken in ({"garbage": 1}, {"garbage": 3, "a new one": 1}, {"garbage": 3, "a new one": 1}):
        hub.line.told = Lines(1, 2, broken)
        hub.sessions.check()
    assert (shown(""), shown("_allowed")) == (1, 2)
    assert shown("_broken_total", why="garbage") - garbage == 3
    assert shown("_broken_total", why="other") - other == 1
    hub.line.told = Lines(0, 0, {})
    hub.sessions.check()
    assert (shown(""), shown("_allowed")) == (1, 2)


async def test_only_a_channel_that_is_up_in_no_process_is_an_outage(store: Store, hand: HandClock) -> None:
    """Fallbacks take over when nobody can send, not when one of two hubs restarts; and they end with the outage."""
    _, (first, second) = await opened(store, hand, hubs=2)
    first.line.connected = False

    async def later() -> list[str]:
        for hub in (first, second):
            hub.sessions.check()
            await hub.sessions.note()
        hand.advance((PATIENCE + SEEN + timedelta(seconds=1)).total_seconds())
        for hub in (second, first):
            hub.sessions.check()
            await hub.sessions.note()
        return [outage.code for outage in await store.outbox.outages()]

    assert await later() == []
    second.line.connected = False
    assert await later() == [NO_SESSION]
    assert REGISTRY.get_sample_value("mingluo_sessions_up", {"channel": "noop"}) == 0
    first.line.connected = True
    assert await later() == []
