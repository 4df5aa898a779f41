"""The fan-out bench: ours embedded and as a cluster, the limit of the transport, and the peers' own programs.

Peers run where `ops/bench/setup.sh` has made their environments; nothing here asks for the network.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import aio_pika
import psycopg
import pytest
from aio_pika.exceptions import ChannelClosed

from gateway.bench import usage
from gateway.bench.fanout import Fanout, result, take_turns
from gateway.bench.installation import Crowd, inhabited, installation
from gateway.bench.measure import Round
from gateway.bench.page import rows
from gateway.bench.peer import PEERS, Peer, PeerError, measure
from gateway.demo.stage import Servers
from gateway.errors import ConfigError

CONTENDERS = {
    "embedded", "cluster", "raw", "celery", "celery_confirms", "celery_chunks", "dramatiq", "taskiq", "faststream",
}  # fmt: skip
SIZE = {
    "recipients", "recipients_per_s", "low", "high", "first_s", "planned_s", "cpu_s_per_million",
    "machine_cpu_s_per_million", "peak_mib", "role_cpu_s_per_million",
}  # fmt: skip


def bench(*arguments: str, **environment: str) -> dict[str, Any]:
    """Run `mingluo bench fanout --json`; return its last line."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MINGLUO_")}
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "bench", "fanout", "--json", *arguments],
        capture_output=True, check=False, env=clean | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one(recipients: int, seconds: float, cpu_s: float = 1.0) -> Round:
    """Return a round."""
    return Round(recipients, seconds, 0.1, cpu_s, 2 * cpu_s, {"serve": 100.0 + seconds})


def test_without_servers_the_embedded_part_runs_and_the_rest_is_named(tmp_path: Path) -> None:
    """A county tries the bench on one machine first: it gets its figure, and how to get the others."""
    target = tmp_path / "page.md"
    found = bench("--recipients", "300", "--rounds", "2", "--write", str(target))
    assert found.keys() == CONTENDERS | {"bench", "recipients", "rounds", "ratios", "ratio_ranges", "left_out"}
    assert (found["bench"], found["recipients"], found["rounds"]) == ("fanout", 300, 2)
    assert found["embedded"].keys() == SIZE | {"growth"}
    assert 0 < found["embedded"]["low"] <= found["embedded"]["recipients_per_s"] <= found["embedded"]["high"]
    assert found["left_out"].keys() == CONTENDERS - {"embedded"}
    assert all("MINGLUO_AMQP_URL" in why for why in found["left_out"].values())
    text = target.read_text("utf8")
    assert "mingluo bench fanout --json --recipients 300" in text
    assert "What is acknowledged" in text


def test_a_cluster_is_measured_beside_the_limit_of_its_transport_and_leaves_nothing(
    amqp_url: str, redis_url: str, database_url: str
) -> None:
    """The servers may be somebody's own: database and queues are the bench's, and gone after it."""
    before = databases(database_url)
    found = bench(
        "--recipients", "300", "--rounds", "1", "--no-peers",
        MINGLUO_AMQP_URL=amqp_url, MINGLUO_REDIS_URL=redis_url, MINGLUO_DATABASE_URL=database_url,
    )  # fmt: skip
    assert found["cluster"]["peak_mib"].keys() == {"api", "planner", "worker", "hub", "scheduler"}
    assert found["raw"] is not None, found["left_out"]
    assert found["raw"]["recipients"] == 300
    assert found["ratios"].keys() == {"raw", "embedded_to_cluster"}
    assert found["left_out"].keys() == CONTENDERS - {"embedded", "cluster", "raw"}
    assert databases(database_url) == before


def databases(url: str) -> set[str]:
    """Return the names of a server's databases."""
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'bench%'")}


async def test_a_user_who_may_not_make_databases_is_told_so(amqp_url: str, redis_url: str, database_url: str) -> None:
    """The administrator reads which variable and which right, not a traceback of the driver."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        role = database_url.rpartition("/")[2]
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'least'")
        try:
            least = re.sub(r"//[^@]+@", f"//{role}:least@", database_url)
            with pytest.raises(ConfigError, match=r"MINGLUO_DATABASE_URL: .*CREATEDB"):
                async with installation(Servers(amqp_url, redis_url, least), [Crowd(1, inhabited())]):
                    raise AssertionError
        finally:
            connection.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("wrong", ["amqp", "redis", "database"])
async def test_a_server_that_is_not_there_is_named(
    amqp_url: str, redis_url: str, database_url: str, wrong: str
) -> None:
    """Without it the cluster would wait for the end of its patience, and nobody knew for what."""
    dead = {"amqp": "amqp://127.0.0.1:9/", "redis": "redis://127.0.0.1:9", "database": "postgresql://127.0.0.1:9/x"}
    urls = {"amqp": amqp_url, "redis": redis_url, "database": database_url} | {wrong: dead[wrong]}
    with pytest.raises(ConfigError, match=f"MINGLUO_{wrong.upper()}_URL"):
        async with installation(Servers(**urls), [Crowd(1, inhabited())]):
            raise AssertionError


@pytest.mark.parametrize("peer", [peer for peer in PEERS if not peer.missing()], ids=lambda peer: peer.name)
async def test_a_peer_takes_everybody_over_the_real_broker_and_leaves_nothing(
    amqp_url: str, namespace: str, peer: Peer
) -> None:
    """A peer that lost some would look fast; and a thousand rounds leave the broker as it was."""
    found = await measure(peer, amqp_url, 1_500, queue=namespace)
    assert found.recipients == 1_500
    assert 0 < found.first_s <= found.seconds
    assert found.peak_mib.keys() == {"worker", "producer"}
    async with await aio_pika.connect(amqp_url) as connection:
        for suffix in peer.queues:
            with pytest.raises(ChannelClosed):
                await (await connection.channel()).declare_queue(f"{namespace}{suffix}", passive=True)


async def test_a_peer_that_ends_is_said_with_its_own_words(amqp_url: str) -> None:
    """A bench that waits for a dead worker would tell nobody why."""
    broken = Peer("raw", "", "raw", ("python", "-c", "raise SystemExit('no such broker')"), 10)
    with pytest.raises(PeerError, match="a process of raw ended\nno such broker"):
        await measure(broken, amqp_url, 10)


async def test_a_peer_that_fails_twice_is_left_out_and_the_others_go_on() -> None:
    """Twenty minutes of figures must not be lost because one library does not get along with this RabbitMQ."""
    order: list[str] = []

    async def ours(_: int) -> list[Round]:
        order.append("cluster")
        return [one(1_000, 1.0)]

    async def peer(number: int) -> list[Round]:
        order.append("celery")
        if number == 2 or (number == 0 and order.count("celery") == 1):
            raise PeerError("a process of celery ended\nsecrets of its log")
        return [one(1_000, 2.0)]

    left_out: dict[str, str] = {}
    found = await take_turns({"cluster": ours, "celery": peer}, 4, left_out, lambda _: None)
    assert order == ["cluster", "celery", "celery", "celery", "cluster", "cluster", "celery", "celery", "cluster"]
    assert {name: len(rounds) for name, rounds in found.items()} == {"cluster": 4}
    assert left_out == {"celery": "failed: a process of celery ended"}


def test_ratios_are_of_one_round_each_and_growth_is_per_recipient() -> None:
    """A machine that is twice as slow in one round slows both sides: the ratio does not see it."""
    ours = [[one(100_000, 1.0, 1.0), one(1_000_000, 10.0, 11.0)], [one(100_000, 2.0, 1.0), one(1_000_000, 20.0, 11.0)]]
    peer = [[one(20_000, 20.0)], [one(20_000, 40.0)]]
    found = result(1_000_000, {"embedded": ours, "cluster": ours, "celery": peer}, {"raw": "no broker"})
    assert found.ratios == {"celery": 100, "cluster_cpu_growth": 1.1, "embedded_cpu_growth": 1.1,
                            "embedded_to_cluster": 1}  # fmt: skip
    assert found.ratio_ranges["celery"] == (100, 100)
    assert found.cluster is not None
    assert (found.cluster.low, found.cluster.recipients_per_s, found.cluster.high) == (50_000, 75_000, 100_000)
    assert [size.recipients for size in found.cluster.growth] == [100_000, 1_000_000]
    assert found.cluster.peak_mib == {"serve": 120.0}
    shown(found)


def test_growth_needs_a_hundred_thousand_to_compare_with() -> None:
    """A run to fewer than twice as many measures no second size near it."""
    found = result(150_000, {"embedded": [[one(10_000, 1.0), one(150_000, 10.0)]]}, {})
    assert found.ratios == {}
    assert [size.recipients for size in found.embedded.growth] == [10_000, 150_000]


def shown(found: Fanout) -> None:
    """Every contender, ratio and reason has its row."""
    table = {figure: (measured, target) for figure, measured, target in rows(found)}
    assert table["cluster : Celery, prefork, 2 workers"] == ("100 (100 to 100)", "≥ 100 (goal 250)")
    assert table["cluster: CPU per recipient to that at 100,000"] == ("1.1 (1.1 to 1.1)", "≤ 1.2")
    assert table["left out: raw limit: the same batches, no ledger"] == ("no broker", "")


def test_memory_and_time_are_of_a_process_and_its_children() -> None:
    """The workers of a peer are children of its master: without them a peer would cost nothing."""
    child = "x = bytearray(b'x' * (64 << 20)); print(flush=True); input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        root, worker = usage.tree(process.pid)
        assert root == process.pid
        assert usage.peak_mib(root) == usage.peak_mib(worker) > 64
        process.communicate("\n")
    assert usage.tree(root) == [root]
    assert (usage.cpu_s([root]), usage.peak_mib(root)) == (0, 0)
