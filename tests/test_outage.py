"""Servers that die or freeze amid 100,000 recipients: everyone once, nobody missing, and green at once all the same.

Judged by what the carrier, the loudspeakers and the noop channel's log really received. No process of the gateway dies
here, so nobody is doubtful and nobody may be told a second time, not even with the mark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from night import Night, night
from servers import PostgreSQL, RabbitMQ, Redis

from gateway.demo.stage import Servers

pytestmark = pytest.mark.timeout(400)
MORE = 2  # slices of noop that show that residents' work goes on


@pytest.fixture
def own() -> Iterator[tuple[RabbitMQ, Redis, PostgreSQL]]:
    """Servers of this test's own, to be broken."""
    with ExitStack() as stack:
        servers = RabbitMQ(), Redis(), PostgreSQL()
        for server in servers:
            stack.callback(server.close)
            server.launch()
        for server in servers:
            server.wait()
        yield servers


async def green(one: Night, alert: str, town: str) -> None:
    """Wait until every official of a township has their text and every loudspeaker that can has sounded."""
    wanted = one.numbers([town], residents=False)
    await one.until(lambda: wanted.keys() <= one.texts().keys(), 20, f"all officials of {town} to get their text")
    await one.until(lambda: one.devices([town]) <= one.sounded(alert).keys(), 20, f"loudspeakers of {town} to sound")


async def going_on(one: Night, alert: str) -> None:
    """Wait until residents of the great warning are told again."""
    await one.lines("noop.log", one.count("noop.log", alert) + MORE, alert)


async def test_servers_that_freeze_and_die_amid_100000_cost_a_village_nothing(
    tmp_path: Path, own: tuple[RabbitMQ, Redis, PostgreSQL]
) -> None:
    """On the worst night each server fails in turn: red goes out at once, residents are told once, all of them."""
    broker, redis, database = own
    servers = Servers(broker.url, redis.url, database.url)
    async with night(tmp_path, servers, pace_per_s=2500) as one:
        *first, second, third, fourth = one.towns
        alerts = {}
        alerts[await one.warn(first)] = first
        (great,) = alerts
        await one.lines("noop.log", MORE, great)

        redis.freeze()
        await going_on(one, great)
        redis.thaw()

        broker.freeze()
        alert = await one.warn([second])
        await green(one, alert, second)  # while it is frozen: officials and loudspeakers wait for no broker
        alerts[alert] = [second]
        broker.thaw()

        database.freeze()
        assert await one.try_to_warn([fourth]) == (503, True)
        database.thaw()
        await going_on(one, great)
        database.kill()
        assert await one.try_to_warn([fourth]) == (503, True)
        database.start()
        await going_on(one, great)

        broker.kill()
        redis.kill()
        alert = await one.warn([third])
        await green(one, alert, third)  # while both are down
        alerts[alert] = [third]
        assert len(one.noop(great)) < len(one.persons(first)), "the faults came too late to prove anything"
        broker.start()
        redis.start()

        for alert, towns in alerts.items():
            await one.rest(alert, {"residents": len(one.persons(towns))})
            await green(one, alert, towns[0])
            assert one.noop(alert) == {person: [1] for person in one.persons(towns)}
            assert max(one.sounded(alert).values()) == 1
        wanted = (one.numbers(towns, residents=False) for towns in alerts.values())  # some answer in two townships
        assert one.texts() == sum(wanted, Counter())
