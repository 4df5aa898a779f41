"""What a gateway needs dies, freezes or is full amid 100,000 recipients: everyone once, nobody missing, green at once.

Judged by what the carrier, the loudspeakers and the noop channel's log really received. No process of the gateway dies
here, so nobody is doubtful and nobody may be told a second time, not even with the mark.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from aiohttp import ClientSession
from night import HAMLET, Night, night
from servers import PostgreSQL, RabbitMQ, Redis, tree

from gateway.demo.stage import Servers

pytestmark = pytest.mark.timeout(400)
SLICES_AT_ONCE = 12  # of noop in one process: urgent work 8, green besides
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


async def all_residents(one: Night, alert: str, town: str) -> None:
    """Wait until every resident of a township was told."""
    wanted = one.persons([town])
    await one.until(lambda: one.noop(alert).keys() == wanted, 60, f"all residents of {town} to be told")


async def going_on(one: Night, alert: str) -> None:
    """Wait until residents of the great warning are told again."""
    await one.lines("noop.log", one.count("noop.log", alert) + MORE, alert)


async def halted(one: Night) -> bool:
    """Whether all that waits is halted: nobody sends."""
    return (await one.waiting()).keys() <= {"halted", "planning"}


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

        await one.halt(on=True)
        told = one.count("noop.log")
        await one.until(lambda: halted(one), 20, "what was under way to end")
        assert one.count("noop.log") <= told + SLICES_AT_ONCE  # claimed before, and nothing since
        await one.halt(on=False)
        await going_on(one, great)

        redis.freeze()
        await going_on(one, great)
        redis.thaw()

        broker.freeze()
        alert = await one.warn([second])
        await green(one, alert, second)  # while it is frozen: officials and loudspeakers wait for no broker,
        await all_residents(one, alert, second)  # nor, where it is red, does anybody
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
        await all_residents(one, alert, third)
        alerts[alert] = [third]
        assert len(one.noop(great)) < len(one.persons(first)), "the faults came too late to prove anything"
        broker.start()
        redis.start()

        await all_told(one, alerts)


async def test_an_embedded_gateway_outlives_its_state_its_disk_its_carrier_and_a_restore(tmp_path: Path) -> None:
    """One machine in a county office: its disk fills up, its carrier is gone, and nothing is lost or said twice."""
    async with night(tmp_path, pace_per_s=4000, piped=True, fallback="noop") as one:
        *first, second, third = one.towns
        alerts = {await one.warn(first): first}
        (great,) = alerts
        await one.lines("noop.log", MORE, great)
        serve = one.stage.processes["serve"].pid
        valkey = child(serve, "valkey-server")
        os.kill(valkey, signal.SIGSTOP)
        await going_on(one, great)
        os.kill(valkey, signal.SIGKILL)
        await going_on(one, great)

        back_up(one)
        disk(serve, full=True)
        assert await one.try_to_warn([second]) == (503, True)
        await one.until(lambda: store_is_down(one), 20, "the alarm that nothing can be taken in")
        disk(serve, full=False)
        await going_on(one, great)
        alert = await one.warn([third])
        await green(one, alert, third)
        alerts[alert] = [third]
        await all_told(one, alerts)

        before = one.texts()
        await one.carrier_gone()
        order = await one.order([HAMLET])
        await one.approve(order)
        residents, officials = one.persons([HAMLET]), one.numbers([HAMLET], residents=False)
        await one.until(lambda: one.noop(order).keys() == residents, 60, "residents to be told by the fallback")
        assert one.texts() == before
        await one.carrier_back()  # officials have no other channel: the breaker's probe finds out
        await one.until(lambda: one.texts() == before + officials, 60, "officials to get their texts")
        await one.rest(order, {"residents": len(residents)})
        assert one.noop(order) == {person: [1] for person in residents}
        assert one.texts() == before + officials

        told, texts = one.count("noop.log"), one.texts()
        one.stage.kill("serve")
        restore(one)
        one.stage.start_role("serve")
        await one.stage.answering()
        # It has forgotten most of the night, and would send it again; a new warning is taken in, and waits as well.
        await one.warn([second])
        await one.until(lambda: rung(one), 20, "the alarm that everything is held")
        assert await halted(one)
        assert (one.count("noop.log"), one.texts()) == (told, texts)


def test_a_gateway_that_cannot_write_refuses_to_start_and_says_why(tmp_path: Path) -> None:
    """A process that looks alive and can take nothing in would be found out during the next flood."""
    command = f"ulimit -S -f 0; exec {sys.executable} -m gateway.cli serve --port 0"
    environment = {**os.environ, "MINGLUO_DATA": str(tmp_path)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=environment, check=False, timeout=60)
    assert done.returncode == 2
    assert b"make room on its disk" in done.stderr


async def rung(one: Night) -> bool:
    """Whether somebody is told that the database was restored."""
    return await one.metric(one.stage.api_url, 'mingluo_alarms_total{kind="restored"}') > 0


def back_up(one: Night) -> None:
    """Copy the database while the gateway works on it."""
    with (
        closing(sqlite3.connect(one.folder / "data" / "mingluo.db")) as source,
        closing(sqlite3.connect(one.folder / "backup")) as target,
    ):
        source.backup(target)


def restore(one: Night) -> None:
    """Put the copy in the place of the database, and leave everything else as it is."""
    for suffix in ("-wal", "-shm"):
        (one.folder / "data" / f"mingluo.db{suffix}").unlink(missing_ok=True)
    shutil.copyfile(one.folder / "backup", one.folder / "data" / "mingluo.db")


def child(pid: int, program: str) -> int:
    """Id of the process under `pid` that runs this program."""
    (found,) = [one for one in tree(pid) if Path(f"/proc/{one}/comm").read_text().strip() == program]
    return found


async def store_is_down(one: Night) -> bool:
    """Whether the metric that wakes somebody says so, and the health page says why."""
    up = await one.metric(one.stage.api_url, "mingluo_store_up{")
    async with ClientSession() as session, session.get(f"{one.stage.api_url}/v1/health") as answer:
        detail = (await answer.json())["parts"][0]["detail"]
    return up == 0 and answer.status == 503 and "cannot be written" in detail


def disk(pid: int, *, full: bool) -> None:
    """Let a process write into no file any more, as on a full disk; or let it again. Its pipes and sockets work on."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0 if full else resource.RLIM_INFINITY, resource.RLIM_INFINITY))


async def all_told(one: Night, alerts: Mapping[str, Sequence[str]]) -> None:
    """Wait until all is settled: every resident once, every official once per alert, every loudspeaker once."""
    for alert, towns in alerts.items():
        await one.rest(alert, {"residents": len(one.persons(towns))})
        for town in towns:
            await green(one, alert, town)
        assert one.noop(alert) == {person: [1] for person in one.persons(towns)}
        assert max(one.sounded(alert).values()) == 1
    wanted = (one.numbers(towns, residents=False) for towns in alerts.values())  # some answer in two townships
    assert one.texts() == sum(wanted, Counter())
