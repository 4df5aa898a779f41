"""The benches run with tiny sizes and print the figures they document. No figure is judged: the machine is shared."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from gateway.bench.fanout import Measured, Round, result
from gateway.bench.figures import of_fanout, of_first, of_sms
from gateway.bench.first import First
from gateway.bench.measure import Spread
from gateway.bench.page import page
from gateway.bench.sms import Sms

SPREAD = {"median", "low", "high"}
FANOUT = result(1_000, Measured([Round(0.5, 0.1, 0.4, 0.1)], [Round(0.25, 0.05)], 120.0))
FIRST = First(300, 40, 12.0, 16.0, 17.0, 6.0, 9.0)
SMS = Sms(1_000, 3, Spread(90, 80, 95), Spread(100, 90, 110), Spread(0.9, 0.8, 1.0), Spread(1, 1, 1))


def run(*arguments: str) -> dict[str, Any]:
    """Run `mingluo bench`; return its last line."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "bench", *arguments, "--json"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_fanout_prints_its_figures(tmp_path: Path) -> None:
    """Everybody is settled in every round, and an operator can compare the keys of two runs."""
    target = tmp_path / "page.md"
    found = run("fanout", "--recipients", "300", "--rounds", "2", "--write", str(target))
    assert found.keys() == {
        "bench", "recipients", "rounds", "recipients_s", "planned_s", "plan_to_settle_s", "first_s",
        "cpu_s_per_million", "peak_rss_mib", "delivery",
    }  # fmt: skip
    assert (found["bench"], found["recipients"], found["rounds"]) == ("fanout", 300, 2)
    assert found["recipients_s"].keys() == SPREAD
    assert found["delivery"].keys() == {"recipients_s", "cpu_s_per_million"}
    assert "mingluo bench fanout --recipients 300" in target.read_text("utf8")


def test_sms_compares_channel_and_loop() -> None:
    """Both sides send every text to the simulated carrier; none is refused, or the bench would fail."""
    found = run("sms", "--recipients", "60", "--rounds", "2")
    assert found.keys() == {"bench", "recipients", "rounds", "channel_s", "loop_s", "ratio", "cpu_ratio"}
    assert (found["bench"], found["recipients"], found["rounds"]) == ("sms", 60, 2)
    assert all(found[key].keys() == SPREAD for key in ("channel_s", "loop_s", "ratio", "cpu_ratio"))


def test_first_times_every_alert_at_a_device() -> None:
    """Alerts come over HTTP and each is timed in the ledger, at devices that really are connected."""
    found = run("first", "--rounds", "2")
    assert found.keys() == {
        "bench", "devices", "rounds", "p50_ms", "p95_ms", "max_ms", "accepted_p50_ms", "accepted_p95_ms",
    }  # fmt: skip
    assert found["bench"] == "first"
    assert found["devices"] >= 300
    assert found["rounds"] == 2
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["max_ms"]


def test_an_unknown_bench_is_wrong_use() -> None:
    """A bench that does not exist is not measured as something else."""
    done = subprocess.run([sys.executable, "-m", "gateway.cli", "bench", "carriers"], capture_output=True, check=False)
    assert done.returncode == 2


def test_the_part_after_planning_is_what_remains_of_the_whole() -> None:
    """Freezing and settling are told apart by the same clock: their seconds add up to the whole."""
    assert FANOUT.recipients_s.median == 2_000
    assert FANOUT.plan_to_settle_s.median == 0.1
    assert FANOUT.cpu_s_per_million.median == 100
    assert FANOUT.delivery is not None
    assert FANOUT.delivery.recipients_s.median == 4_000


def test_a_figure_says_whether_its_target_was_met() -> None:
    """The report shows a missed target as missed: 100 ms, four fifths of the loop, 100,000 a second."""
    assert of_first(FIRST).met
    assert of_sms(SMS).met
    assert not of_fanout(FANOUT).met


def test_the_page_names_machine_and_commands() -> None:
    """A number in the docs without its machine and its command proves nothing."""
    text = page([FANOUT, SMS, FIRST], "mingluo bench all --write docs/benchmarks.md", date(2026, 7, 1))
    assert "mingluo bench all --write docs/benchmarks.md" in text
    assert "2026-07-01" in text
    assert "Python 3" in text
    assert all(f"`mingluo bench {name}`" in text for name in ("fanout", "sms", "first"))


def test_a_spread_is_median_and_extremes() -> None:
    """One lucky round must not become the figure."""
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)
