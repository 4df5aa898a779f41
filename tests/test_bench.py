"""The benches run with tiny sizes and print the figures they document. No figure is judged: the machine is shared."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from gateway.bench.carriers import Carriers
from gateway.bench.fanout import result
from gateway.bench.figures import of_fanout, of_first, of_http
from gateway.bench.first import First
from gateway.bench.frozen import Cost, Frozen
from gateway.bench.http import Compared, Http
from gateway.bench.intake import Intake
from gateway.bench.ledger import Found, Latency, Ledger
from gateway.bench.measure import Round, Spread, quantile
from gateway.bench.page import TITLES, Result, page
from gateway.bench.roster import Brought, Import
from gateway.bench.signed import Signed
from gateway.bench.speakers import Play, Speakers
from gateway.bench.speakers import result as speakers_of

SPREAD = {"median", "low", "high"}
OUT = {"cluster": "set MINGLUO_AMQP_URL"}
FANOUT = result(1_000, {"embedded": [[Round(1_000, 0.5, 0.1, 0.1, 0.2, {"serve": 120.0}, 0.4)]]}, OUT)
FIRST = First(300, 40, 12.0, 16.0, 17.0, 6.0, 9.0)
ONE = Spread(1, 1, 1)
INTAKE = Intake(5.0, 3, 2_000, 853_000, 120, ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE)
SIGNED = Signed(50, 7, ONE, ONE, ONE)
FULL = Found(200, ONE, ONE, 205, Latency(1, 2), 200, Latency(1, 2), 30, 400)
LEDGER = Ledger(2_000, 200, 5, FULL, FULL)
FROZEN = Frozen(5, Cost(ONE, ONE), Cost(ONE, ONE))
BROUGHT = Brought(300, ONE, ONE, ONE, 120.0)
IMPORT = Import(300, 1, BROUGHT, BROUGHT, BROUGHT, BROUGHT, BROUGHT, BROUGHT)
COMPARED = Compared(Spread(90, 80, 95), Spread(100, 90, 110), Spread(0.9, 0.8, 1.0), Spread(1, 1, 1))
HTTP = Http(1_000, 3, {"sms_twilio": COMPARED})

CARRIERS = Carriers(
    recipients=1_000_000, submitted_per_s=60_000, reports_per_s=25_000, submit_cpu_us=18.0, report_cpu_us=23.0,
    unaccounted=0, unmatched=0, pdu_per_s=9_000, rate_kept=0.99, green_first_ms=20.0, green_list_s=1.6,
    green_limit_s=1.67, peer_submit_per_s=6_000,
)  # fmt: skip
SPEAKERS = speakers_of(
    1_000, [(Play(5, 40), Play(1, 20))], 6_000, [(Play(10, 240), Play(1, 100))], 300.0, (20_000, 14_000), (4.0, 1.0),
    (5.0, 0.4, 20),
)  # fmt: skip


def run(*arguments: str) -> dict[str, Any]:
    """Run `mingluo bench`; return its last line."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "bench", *arguments, "--json"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_http_compares_each_channel_with_its_loop() -> None:
    """Both sides send every text to the counterpart; none is refused, or the bench would fail."""
    found = run("http", "--recipients", "60", "--rounds", "2")
    assert (found["bench"], found["recipients"], found["rounds"]) == ("http", 60, 2)
    assert found["channels"].keys() == {"sms_twilio", "sms_http", "web_push"}
    for one in found["channels"].values():
        assert one.keys() == {"channel_s", "loop_s", "ratio", "cpu_ratio"}
        assert all(spread.keys() == SPREAD for spread in one.values())


def test_carriers_account_for_every_message_and_report() -> None:
    """Everybody over three carriers, nobody without a report; the peer is measured or the bench fails."""
    found = run("carriers", "--recipients", "600")
    assert found.keys() == {*CARRIERS.__struct_fields__}
    assert (found["bench"], found["recipients"]) == ("carriers", 600)
    assert (found["unaccounted"], found["unmatched"]) == (0, 0)
    assert min(found[one] for one in ("submitted_per_s", "reports_per_s", "pdu_per_s", "peer_submit_per_s")) > 0


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


def test_speakers_reaches_every_device_and_the_fleet_comes_back() -> None:
    """A device that a play does not reach, or that does not come back after the power cut, fails the bench."""
    found = run("speakers", "--recipients", "60", "--rounds", "2", "--seconds", "0.2")
    assert found.keys() == {*Speakers.__struct_fields__}
    assert (found["bench"], found["devices"], found["small_devices"], found["rounds"]) == ("speakers", 60, 10, 2)
    assert 0 < found["first_ms"] <= found["last_ms"]
    assert min(found[one] for one in ("bare_last_ms", "small_last_ms", "red_ms", "reconnect_s", "storm_red_s")) > 0
    assert found["bytes_per_device"] > 0
    assert found["ranges"].keys() == {"first_ms", "last_ms", "bare_last_ms", "ratio", "small_last_ms"}


def test_speakers_grow_linearly_where_six_times_the_fleet_takes_six_times_as_long() -> None:
    """The figure that says whether a second county may be connected to the same hub."""
    assert (SPEAKERS.growth, SPEAKERS.ratio, SPEAKERS.bare_last_ms) == (1.0, 2.4, 100.0)


def test_intake_takes_every_warning_it_posts_and_recalls_a_bulk_send() -> None:
    """Every answer is a 202 and the recall left something unsent, or the bench would fail."""
    found = run("intake", "--rounds", "1", "--seconds", "0.5", "--recipients", "40000")
    figures = {
        "parse_ms", "commits_s", "held_s", "held_cpu_ms", "p50_ms", "p99_ms", "green_s", "green_cpu_ms", "polygons_s",
        "red_p50_ms", "red_p99_ms", "recall_ms",
    }  # fmt: skip
    assert found.keys() == {
        "bench", "seconds", "rounds", "message_bytes", "polygon_bytes", "recipients", *figures,
    }  # fmt: skip
    assert (found["bench"], found["seconds"], found["rounds"]) == ("intake", 0.5, 1)
    assert all(found[key].keys() == SPREAD for key in figures)
    assert all(found[key]["low"] > 0 for key in figures - {"recall_ms"})
    assert 1_900 < found["message_bytes"] < 2_100
    assert found["polygon_bytes"] > 800_000
    assert found["recipients"] > 100


def test_signed_compares_the_whole_way_and_the_library() -> None:
    """Every message we sign is taken, or the bench would fail."""
    found = run("signed", "--rounds", "1")
    assert found.keys() == {"bench", "messages", "rounds", "taken_s", "library_s", "ratio"}
    assert (found["bench"], found["rounds"]) == ("signed", 1)
    assert all(found[key].keys() == SPREAD for key in ("taken_s", "library_s", "ratio"))


def test_frozen_neighbours_are_given_up_and_taken_up_again() -> None:
    """Each round begins with a neighbour that answers, or its first call would not be the one that waits."""
    found = run("frozen", "--rounds", "2")
    assert found.keys() == {"bench", "rounds", "redis", "rabbitmq"}
    assert (found["bench"], found["rounds"], found["rabbitmq"]) == ("frozen", 2, None)
    assert found["redis"]["first_ms"]["low"] > found["redis"]["later_us"]["high"] / 1000 > 0


def test_ledger_finds_every_message_of_everybody_it_asks_for(tmp_path: Path) -> None:
    """A history or a status that lacks something fails the bench; without a server it is the embedded one alone."""
    found = run("ledger", "--recipients", "2000", "--rounds", "2", "--write", str(tmp_path / "page.md"))
    assert found.keys() == {"bench", "receipts", "alerts", "rounds", "sqlite", "postgresql"}
    assert (found["bench"], found["receipts"], found["alerts"], found["rounds"]) == ("ledger", 2_000, 200, 2)
    embedded = found["sqlite"]
    assert embedded.keys() == {
        "batches", "settle_s", "fold_s", "lines", "history", "status_recipients", "status", "settled_mib",
        "reported_mib",
    }  # fmt: skip
    assert embedded["settle_s"].keys() == embedded["fold_s"].keys() == SPREAD
    assert embedded["history"].keys() == embedded["status"].keys() == {"p50_ms", "p99_ms"}
    assert (embedded["lines"], embedded["status_recipients"]) == (202, 200)
    assert min(embedded["settled_mib"], embedded["reported_mib"]) > 0
    assert found["postgresql"] is None
    assert "history of 202 messages" in (tmp_path / "page.md").read_text("utf8")


def test_import_brings_every_form_of_a_list_in() -> None:
    """Nobody is refused and nobody is lost, or the bench would fail; the second time is measured as well."""
    found = run("import", "--recipients", "300", "--rounds", "1")
    forms = {"utf_8", "gbk", "xlsx", "xls", "again"}
    assert found.keys() == {"bench", "rows", "rounds", "postgresql", "postgresql_again", *forms}
    assert (found["bench"], found["rows"], found["rounds"]) == ("import", 300, 1)
    for form in forms:
        assert found[form].keys() == {"rows", "seconds", "cpu_s", "rows_s", "peak_rss_mib"}
        assert (found[form]["rows"], found[form]["rows_s"].keys()) == (300, SPREAD)


def test_an_unknown_bench_is_wrong_use() -> None:
    """A bench that does not exist is not measured as something else."""
    done = subprocess.run([sys.executable, "-m", "gateway.cli", "bench", "weather"], capture_output=True, check=False)
    assert done.returncode == 2


def test_a_figure_says_whether_its_target_was_met() -> None:
    """The report shows a missed target as missed: 100 ms, nine tenths of the loop, 100,000 a second."""
    assert of_first(FIRST).met
    assert of_http(HTTP).met
    assert not of_fanout(FANOUT).met


def test_the_page_names_machine_and_commands() -> None:
    """A number in the docs without its machine and its command proves nothing."""
    results: list[Result] = [INTAKE, SIGNED, FIRST, SPEAKERS, HTTP, CARRIERS, FANOUT, LEDGER, FROZEN, IMPORT]
    text = page(results, "mingluo bench all --write docs/benchmarks.md", date(2026, 7, 1))
    assert "mingluo bench all --write docs/benchmarks.md" in text
    assert "2026-07-01" in text
    assert "Python 3" in text
    assert all(f"`mingluo bench {one.bench}`" in text for one in results)


def test_a_run_writes_its_own_sections_and_leaves_the_others() -> None:
    """Measuring one thing again must not throw away, or date anew, what was measured of the rest."""
    before = page([INTAKE, HTTP], "mingluo bench all", date(2026, 7, 1))
    after = page([HTTP, FROZEN], "mingluo bench http", date(2026, 8, 1), before)
    kept, new = before.split("\n## ")[1], page([FROZEN], "mingluo bench http", date(2026, 8, 1)).split("\n## ")[1]
    assert [part.splitlines()[0] for part in after.split("\n## ")[1:]] == [
        TITLES[one] for one in ("intake", "http", "frozen")
    ]
    assert kept.strip() in after
    assert new.strip() in after
    assert after.count("2026-07-01") == 1


def test_a_quantile_is_one_of_the_values() -> None:
    """The slowest of ten answers is their p99: it may not be averaged away."""
    assert quantile([float(value) for value in range(1, 11)], 0.99) == 10.0
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0


def test_a_spread_is_median_and_extremes() -> None:
    """One lucky round must not become the figure."""
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)
