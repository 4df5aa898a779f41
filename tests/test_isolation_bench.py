"""The isolation bench with a small crowd: reds at rest and during a drain, embedded, as a cluster, and in one queue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.bench.fifo import Fifo, Wait
from gateway.bench.isolation import Condition, Isolation, Mode, Ratios
from gateway.bench.measure import Spread
from gateway.bench.page import rows

SPREAD = {"median", "low", "high"}
LATENCIES = ("first", "officials", "residents_first")
CONDITION = {"alerts", "residents_s", *(f"{name}_{share}_ms" for name in LATENCIES for share in ("p50", "p99"))}
ONE = Spread(1, 1, 1)
MODE = Mode(Condition(50, 9, 18, 30, 50, 40, 60, ONE), Condition(52, 14, 45, 50, 80, 60, 90, ONE), ONE)


def bench(*arguments: str, **environment: str) -> dict[str, Any]:
    """Run `mingluo bench isolation --json`; return its last line."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MINGLUO_")}
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "bench", "isolation", "--json", *arguments],
        capture_output=True, check=False, env=clean | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def complete(mode: dict[str, Any], alerts: int) -> None:
    """Every red of both conditions is timed, and each group's last is no sooner than the first."""
    assert mode.keys() == {"idle", "drain", "drain_s"}
    assert mode["drain_s"].keys() == SPREAD
    for condition in (mode["idle"], mode["drain"]):
        assert condition.keys() == CONDITION
        assert condition["alerts"] >= alerts
        assert all(0 < condition[f"{name}_p50_ms"] <= condition[f"{name}_p99_ms"] for name in LATENCIES)


@pytest.mark.timeout(300)
def test_without_servers_the_embedded_gateway_is_measured_and_the_rest_is_named(tmp_path: Path) -> None:
    """Every red one reaches its officials, residents and loudspeakers during the drain, or the bench would fail."""
    target = tmp_path / "page.md"
    found = bench("--recipients", "60000", "--rounds", "2", "--write", str(target))
    assert (found["bench"], found["recipients"], found["officials"], found["residents"]) == (
        "isolation", 60_000, 2_000, 1_200,
    )  # fmt: skip
    assert found["devices"] > 300
    complete(found["embedded"], 2)
    assert (found["cluster"], found["fifo"]) == (None, None)
    assert found["ratios"].keys() == {"embedded"}
    text = target.read_text("utf8")
    assert "left out: cluster, one FIFO queue" in text
    assert "One FIFO queue is a plain aio-pika layout" in text


@pytest.mark.timeout(400)
def test_a_cluster_keeps_reds_apart_from_the_drain_and_one_queue_does_not(
    amqp_url: str, redis_url: str, database_url: str
) -> None:
    """A worker for bulk alone, a worker for the urgent: both at work, or no drain would end and no red arrive."""
    found = bench(
        "--recipients", "80000", "--rounds", "1",
        MINGLUO_AMQP_URL=amqp_url, MINGLUO_REDIS_URL=redis_url, MINGLUO_DATABASE_URL=database_url,
    )  # fmt: skip
    complete(found["cluster"], 1)
    assert found["fifo"]["each"].keys() == {"messages", "recipients", "p50_ms", "p99_ms"}
    assert (found["fifo"]["each"]["messages"], found["fifo"]["batches"]["messages"]) == (10_000, 80)
    assert found["fifo"]["batches"]["recipients"] == 80_000
    assert found["ratios"]["cluster"].keys() == {"first", "officials", "residents_rate", "fifo"}


def test_the_table_shows_both_conditions_and_what_one_queue_costs() -> None:
    """A latency during the drain says nothing without the one at rest beside it."""
    line = Fifo(Wait(100_000, 100_000, 10_000, 20_000), Wait(1_000, 1_000_000, 400, 900))
    ratios = Ratios(1.56, 1.67, 0.95, 714)
    found = rows(Isolation(1_000_000, 2_000, 20_000, 476, MODE, MODE, line, {"embedded": ratios, "cluster": ratios}))
    table = {title: (measured, target) for title, measured, target in found}
    assert table["cluster, drain: 52 reds, first loudspeaker, p50 and p99, ms"] == (
        "14.0, 45.0", "≤ 25, 100 (goal 10, 50)",
    )  # fmt: skip
    assert table["cluster, idle: 50 reds, first loudspeaker, p50 and p99, ms"] == ("9.0, 18.0", "")
    assert table["embedded, drain: 52 reds, first loudspeaker, p50 and p99, ms"][1] == "≤ 150 (p99)"
    assert table["one FIFO queue with a message per recipient : cluster, p50 to the first"] == ("714", "≥ 200")
