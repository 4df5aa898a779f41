"""`docs/benchmarks.md` and the tables of the terminal: the same rows from the same results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from gateway.bench.fanout import Fanout
from gateway.bench.first import First
from gateway.bench.frozen import Cost, Frozen
from gateway.bench.intake import Intake
from gateway.bench.ledger import Found, Ledger
from gateway.bench.measure import machine
from gateway.bench.roster import Brought, Import
from gateway.bench.signed import Signed
from gateway.bench.sms import Sms

Result = Intake | Signed | First | Sms | Fanout | Ledger | Frozen | Import
Row = tuple[str, str, str]

HEAD = """# Benchmarks

Written by `{command}` on {day}; do not edit by hand.

Machine: {machine}. It is a shared virtual machine: such figures drift by half within an hour and by more between
machines. Compare ratios within one run, and measure on your own hardware before you promise anything.

Everything is one embedded gateway on SQLite with every commit synced to the disk; counterparts are processes of
their own on the same cores. Figures are the median of the rounds, the lowest and the highest in brackets. Where other
work shares the cores, latencies are mostly its: the raw figures of the same run say how busy the machine was.

"""

TITLES = {
    "fanout": "Fan-out through the no-op channel",
    "ledger": "The ledger full of receipts",
    "sms": "HTTP SMS channel against a bare loop of the same SDK call",
    "frozen": "What a frozen neighbour costs",
    "signed": "Signed warnings against the signature library alone",
    "intake": "Taking warnings in: the whole way from the request to the 202",
    "import": "Bringing a roster in",
    "first": "Last byte of the request read to the first loudspeaker",
}


def rows(result: Result) -> list[Row]:
    """Return (figure, measured, target) of one bench."""
    match result:
        case Fanout():
            return _fanout(result)
        case Sms():
            return [
                ("texts per round, rounds", f"{result.recipients:,}, {result.rounds}", ""),
                ("through the channel, recipients/s", str(result.channel_s), ""),
                ("bare loop, recipients/s", str(result.loop_s), ""),
                ("channel : loop", str(result.ratio), "≥ 0.8"),
                ("loop : channel, CPU time of the sender", str(result.cpu_ratio), ""),
            ]
        case First():
            return [
                ("loudspeakers connected, alerts", f"{result.devices:,}, {result.rounds}", ""),
                ("p50, ms", f"{result.p50_ms:g}", ""),
                ("p95, ms", f"{result.p95_ms:g}", "≤ 100"),
                ("slowest, ms", f"{result.max_ms:g}", ""),
                ("request → 202 at the client, p50 and p95, ms",
                 f"{result.accepted_p50_ms:g}, {result.accepted_p95_ms:g}", ""),
            ]  # fmt: skip
        case Intake():
            return _intake(result)
        case Signed():
            return [
                ("messages per round, rounds", f"{result.messages:,}, {result.rounds}", ""),
                ("verified and read, messages/s of CPU", str(result.taken_s), ""),
                ("signxml's own verification of the same bytes, messages/s of CPU", str(result.library_s), ""),
                ("verified and read : verified", str(result.ratio), "≥ 0.8"),
            ]
        case Ledger():
            databases = [("SQLite", result.sqlite), ("PostgreSQL", result.postgresql)]
            head = ("receipts, alerts, rounds", f"{result.receipts:,}, {result.alerts}, {result.rounds}", "")
            return [head, *(row for name, found in databases if found for row in _ledger(name, found))]
        case Import():
            return [("rows (an .xls holds fewer), rounds", f"{result.rows:,}, {result.rounds}", ""), *_import(result)]
        case Frozen():
            costs = [("Redis", result.redis), ("RabbitMQ (of MINGLUO_AMQP_URL), green publish", result.rabbitmq)]
            return [row for name, cost in costs if cost for row in _cost(name, cost)]


def _fanout(result: Fanout) -> list[Row]:
    found = [
        ("recipients, rounds", f"{result.recipients:,}, {result.rounds}", ""),
        ("accepted to all settled, recipients/s", str(result.recipients_s), "≥ 100,000"),
        ("accepted to audience frozen, s", str(result.planned_s), ""),
        ("audience frozen to all settled, s", str(result.plan_to_settle_s), ""),
        ("accepted to first settled, s", str(result.first_s), ""),
        ("CPU seconds per million", str(result.cpu_s_per_million), ""),
        ("peak memory of the gateway, MiB", f"{result.peak_rss_mib:,.0f}", ""),
    ]
    if result.delivery is not None:
        found += [
            ("delivery of frozen batches alone, recipients/s", str(result.delivery.recipients_s), ""),
            ("its CPU seconds per million", str(result.delivery.cpu_s_per_million), ""),
        ]
    return found


def _import(result: Import) -> list[Row]:
    forms: list[tuple[str, Brought | None]] = [
        ("CSV in UTF-8", result.utf_8), ("CSV in GBK", result.gbk), (".xlsx", result.xlsx), (".xls", result.xls),
        ("the same CSV again, as the full list", result.again), ("CSV in UTF-8, PostgreSQL", result.postgresql),
        ("the same again, PostgreSQL", result.postgresql_again),
    ]  # fmt: skip
    found: list[Row] = []
    for name, one in forms:
        if one is not None:
            rows = f" ({one.rows:,} rows)" if one.rows != result.rows else ""
            found.append((f"{name}{rows}: rows/s", str(one.rows_s), "≥ 16,667"))
            found.append((f"{name}: seconds, of these CPU", f"{one.seconds}, {one.cpu_s}", "≤ 60 for a million"))
            found.append((f"{name}: peak memory, MiB", f"{one.peak_rss_mib:,.0f}", "≤ 300"))
    return found


def _intake(result: Intake) -> list[Row]:
    return [
        ("seconds of each part, rounds", f"{result.seconds:g}, {result.rounds}", ""),
        ("bytes of a warning, of one with 41,000 points", f"{result.message_bytes:,}, {result.polygon_bytes:,}", ""),
        ("the parser alone, CPU ms a warning", str(result.parse_ms), ""),
        ("the disk alone, synced commits/s", str(result.commits_s), ""),
        ("held for a second person: accepted/s", str(result.held_s), "≥ 400"),
        ("CPU ms of the gateway for each", str(result.held_cpu_ms), "≤ 1.5"),
        ("fifty issuers at half that rate: p50, ms to 202", str(result.p50_ms), ""),
        ("p99, ms to 202", str(result.p99_ms), "≤ 50"),
        (f"green, each to {result.recipients:,} recipients meanwhile: accepted/s", str(result.green_s), ""),
        ("CPU ms of the gateway for each, until all are settled", str(result.green_cpu_ms), ""),
        ("warnings with 41,000 points as fast as they are taken/s", str(result.polygons_s), ""),
        ("red ones beside them: p50, ms to 202", str(result.red_p50_ms), ""),
        ("p99, ms to 202", str(result.red_p99_ms), "≤ 100"),
        ("bulk send recalled: until the last slice that left was settled, ms", str(result.recall_ms), "≤ 1,000"),
    ]


def _ledger(name: str, found: Found) -> list[Row]:
    return [
        (f"{name}: slices settled, packed records/s", str(found.settle_s), ""),
        (f"{name}: late delivery reports folded, ten thousand in one commit: reports/s", str(found.fold_s), ""),
        (f"{name}: from a number to its history of {found.lines} messages, p50 and p99, ms",
         f"{found.history.p50_ms:g}, {found.history.p99_ms:g}", "p50 ≤ 50"),
        (f"{name}: status of an alert to {found.status_recipients:,} that moves, p50 and p99, ms",
         f"{found.status.p50_ms:g}, {found.status.p99_ms:g}", "p50 ≤ 50"),
        (f"{name}: a million receipts on the disk, MiB", f"{found.settled_mib:,.0f}", ""),
        (f"{name}: with a carrier's reference and a late report each, MiB", f"{found.reported_mib:,.0f}", ""),
    ]  # fmt: skip


def _cost(name: str, cost: Cost) -> list[Row]:
    return [
        (f"{name}: the first call gives up, ms", str(cost.first_ms), "≤ 250"),
        (f"{name}: each later one, µs", str(cost.later_us), ""),
    ]


def page(results: Sequence[Result], command: str, day: date) -> str:
    """Return the page of a run."""
    parts = [HEAD.format(command=command, day=day.isoformat(), machine=machine())]
    for result in results:
        table = ["| figure | measured | target |", "| --- | --- | --- |"]
        table += [f"| {' | '.join(row)} |" for row in rows(result)]
        again = f"Again: `mingluo bench {result.bench}`."
        parts.append(f"## {TITLES[result.bench]}\n\n" + "\n".join(table) + f"\n\n{again}\n\n")
    return "".join(parts).rstrip("\n") + "\n"
