"""`docs/benchmarks.md` and the tables of the terminal: the same rows from the same results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from gateway.bench.carriers import Carriers
from gateway.bench.fanout import Contender, Fanout
from gateway.bench.first import First
from gateway.bench.frozen import Cost, Frozen
from gateway.bench.http import RATIO as HTTP_RATIO
from gateway.bench.http import Compared, Http
from gateway.bench.intake import Intake
from gateway.bench.isolation import Condition, Isolation, Mode, Ratios
from gateway.bench.ledger import Found, Ledger
from gateway.bench.measure import Spread, machine
from gateway.bench.peer import PEERS
from gateway.bench.roster import Brought, Import
from gateway.bench.signed import Signed
from gateway.bench.speakers import Speakers

Result = Intake | Signed | First | Speakers | Http | Carriers | Fanout | Isolation | Ledger | Import | Frozen
Row = tuple[str, str, str]

HEAD = """# Benchmarks

Each section is written by the command it ends with, the others stay as they were; do not edit by hand.

The machine named there is a shared virtual one: such figures drift by half within an hour and by more between
machines. Compare ratios within one run, and measure on your own hardware before you promise anything.

Where a section names no cluster, it is one embedded gateway on SQLite with every commit synced to the disk;
counterparts are processes of their own on the same cores. Figures are the median of the rounds, the lowest and the
highest in brackets. Where other work shares the cores, latencies are mostly its: the raw figures of the same run say
how busy the machine was.

"""

TITLES = {
    "intake": "Taking warnings in: the whole way from the request to the 202",
    "signed": "Signed warnings against the signature library alone",
    "first": "Last byte of the request read to the first loudspeaker",
    "speakers": "A fleet of loudspeakers on one hub, against a bare loop",
    "isolation": "Red warnings while bulk messages drain",
    "fanout": "Fan-out through the no-op channel, beside others",
    "http": "HTTP channels, each against a bare loop of the same calls",
    "carriers": "SMS through the three carriers' protocols",
    "ledger": "The ledger full of receipts",
    "import": "Bringing a roster in",
    "frozen": "What a frozen neighbour costs",
}
"""In the order of the page."""

NO_SERVERS = "MINGLUO_AMQP_URL, MINGLUO_DATABASE_URL and MINGLUO_REDIS_URL name no servers"
OURS = frozenset({"embedded", "cluster"})
TARGETS = {
    "raw": "≥ 0.4 (goal 0.6)",
    "celery": "≥ 100 (goal 250)",
    "celery_chunks": "≥ 3 (goal 10)",
    "taskiq": "≥ 50",
    "faststream": "≥ 50",
    "embedded_to_cluster": "≥ 0.7",
    "embedded_cpu_growth": "≤ 1.2",
    "cluster_cpu_growth": "≤ 1.2",
}
"""Of the fan-out's ratios."""
NOTES = {
    "carriers": """One embedded gateway, and simulated carriers for CMPP 3.0, SGIP and SMGP in a process of their own,
one connection each, that count instead of writing a log. Every resident hears over all three. Rates begin with the post
of the warning and end with the last submit, or the last report acknowledged: the carriers hold their reports until
everything is submitted, and their windows are lifted. The peer has no store, no roster and no report.
""",
    "fanout": """One yellow warning to all residents in the bulk lane: posted over HTTP, frozen page by page, claimed,
rendered, paced, sent through the ordinary no-op channel and settled; the clock stops when no step and no batch is open.
The residents' pages are made before, as planners do some seconds after an import.
The cluster is one process of each role with RabbitMQ quorum queues, PostgreSQL with `fsync` and `synchronous_commit`
on, and Redis. Person ids lie as scattered as an import makes them.

Rules, the same for all: one machine, one RabbitMQ, durable queues and persistent messages, a sink that does nothing
for a recipient, everybody connected and warm before the clock starts, nobody else's processes running meanwhile; every
round begins with another. A peer has one producer and two worker processes, sends one message per recipient of an id
and an address (less than a real warning needs), reads no directory, renders nothing and keeps no ledger; to how many
is named beside its rate. The raw limit has one producer and one consumer, as ours has one planner and one worker.
What is acknowledged:

| system | queue | publish confirmed | message acked |
| --- | --- | --- | --- |
| ours | quorum | yes, once outbox and cursor are committed | after the outcome is committed |
| raw limit | quorum | yes, 32 at a time | after the sink |
| Celery, and its chunks of 1,000 | classic | no | before the task |
| Celery, publisher confirms, late ack | classic | yes, one by one | after the task |
| Dramatiq | classic | no | after the actor |
| taskiq | quorum | yes, 32 at a time | after the task |
| FastStream | classic | yes, 32 at a time | after the task |

Programs, settings and pinned versions are in `ops/bench/`; `make bench` starts the servers and measures all of it.

The three largest costs of the hot path, and what became of them. Residents found and decrypted row by row cost
planner and database more than all else: a thousand are now one sealed row and one decryption. Of what was left, writing
the outbox was PostgreSQL's largest part and the planner's second one: a batch's people, 25 kB that nothing can
compress, went there as text of hexadecimal digits and were compressed in vain. They go as bytes and stay as they are:
less than half the time at the planner and a fourth of it in PostgreSQL. Next were the transactions themselves, in
worker and PostgreSQL, each with a dozen statements, four answers to wait for and a synced commit: the more claims and
outcomes share one, the less each costs, hence pipelines, statements for a whole group, and sixteen slices at a time,
which halved it against four. What remains, and what the raw limit does not do, is that every batch is written with
its people before it leaves, claimed, written again as an outcome, and its states folded, each with a commit behind it.
The table has what each role takes; the rest of the machine's is PostgreSQL, RabbitMQ and the bench.
""",
    "http": """`sms_twilio` against Twilio's own SDK, `sms_http` against a bare aiohttp POST (one number to a request,
the dearest case), `web_push` against pywebpush; as many requests in flight, counterparts that take and do nothing more.
""",
    "isolation": """Red warnings over HTTP to the officials, loudspeakers and residents of 14 townships: at rest, and
while a yellow one drains to the residents of the others. Only reds count that began and ended while bulk work was open,
each after bulk work had the machine to itself again. Times run from the request's last byte read to the moment the hub
has written to its loudspeakers (an upper bound of the first write), and to a slice's return from the no-op channel.
The cluster has a worker for green and urgent and one for bulk and service, and one process of every other role. The
loudspeakers run at a lower priority: in the field they share no core with the gateway.

One FIFO queue is a plain aio-pika layout on a durable quorum queue, consumed with a prefetch of 50 by a process that
claims, sends and keeps nothing, where a red warning is one message: once with a message per recipient, as task queues
work, behind at most 500,000 of them, and once with a message per thousand. Reds are published evenly over its drain.
""",
    "speakers": """One embedded gateway, a bare aiohttp loop that writes the same frame to as many sockets, and the
devices of both are three processes that stay for the whole run; gateway and loop take turns. A play begins when the hub
has its batches in the store, and ends with the first and the last device that has the frame. Every device says
`received` and `playing` after 50 to 400 ms and `played` a moment later, which are committed, then acknowledged; nobody
answers the bare loop. Memory is the process's own (no mapped file) beyond that without a device, after a play to
all. Heartbeats are a ping each 30 s and a state each 300 s, as configured, once every device has its volume policy
(ordered once in its life, and not measured); their CPU time is that beyond the gateway's own with the same warnings in
force. After the power cut every device comes back as the protocol says; the red warning is posted over HTTP once a
third is back, and its wait runs from the request, or from a device's own connection where that came later.
""",
}
"""What a reader must know before the figures."""


def rows(result: Result) -> list[Row]:
    """Return (figure, measured, target) of one bench."""
    match result:
        case Fanout():
            return _fanout(result)
        case Isolation():
            return _isolation(result)
        case Http():
            head = ("messages per round, rounds", f"{result.recipients:,}, {result.rounds}", "")
            return [head, *(row for name, found in result.channels.items() for row in _http(name, found))]
        case Carriers():
            return _carriers(result)
        case First():
            return [
                ("loudspeakers connected, alerts", f"{result.devices:,}, {result.rounds}", ""),
                ("p50, ms", f"{result.p50_ms:g}", ""),
                ("p95, ms", f"{result.p95_ms:g}", "≤ 100"),
                ("slowest, ms", f"{result.max_ms:g}", ""),
                ("request → 202 at the client, p50 and p95, ms",
                 f"{result.accepted_p50_ms:g}, {result.accepted_p95_ms:g}", ""),
            ]  # fmt: skip
        case Speakers():
            return _speakers(result)
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


def _http(name: str, found: Compared) -> list[Row]:
    return [
        (f"{name}: through the channel, recipients/s", str(found.channel_s), ""),
        (f"{name}: bare loop, recipients/s", str(found.loop_s), ""),
        (f"{name}: channel : loop", str(found.ratio), f"≥ {HTTP_RATIO:g}"),
        (f"{name}: loop : channel, CPU time of the sender", str(found.cpu_ratio), ""),
    ]


def _speakers(result: Speakers) -> list[Row]:
    spread = {name: str(Spread(getattr(result, name), *ends)) for name, ends in result.ranges.items()}
    return [
        ("loudspeakers connected, rounds", f"{result.devices:,}, {result.rounds}", "6,000"),
        ("from the hub's batch to the first device, ms", spread["first_ms"], "≤ 20"),
        ("to the last device, ms", spread["last_ms"], "≤ 250"),
        ("bare loop, from its first call to the last device, ms", spread["bare_last_ms"], ""),
        ("hub : bare loop", spread["ratio"], "≤ 2.5"),
        (f"to the last of {result.small_devices:,} devices, ms", spread["small_last_ms"], ""),
        ("how much longer the whole fleet takes, to how much larger it is", f"{result.growth:g}", "≤ 1"),
        ("a red warning over HTTP, from the request to the last device, ms", f"{result.red_ms:g}", ""),
        ("memory for each device, bytes", f"{result.bytes_per_device:,}", "≤ 24,576"),
        ("bare loop: memory for each socket, bytes", f"{result.bare_bytes_per_device:,}", ""),
        ("heartbeats of all, share of a core", f"{result.heartbeat_percent:g} %", "≤ 10 %"),
        ("the gateway without a device", f"{result.idle_percent:g} %", ""),
        ("power cut: until the last device is back, s", f"{result.reconnect_s:g}", "≤ 15"),
        ("a red warning meanwhile, the longest wait of a device, s", f"{result.storm_red_s:g}", "≤ 2"),
        ("devices told to come again a little later", f"{result.refused:,}", ""),
    ]


def _carriers(result: Carriers) -> list[Row]:
    limit_s = result.green_limit_s * 1.1
    return [
        ("messages over three carriers", f"{result.recipients:,}", "1,000,000"),
        ("up to a hundred numbers in a submit: messages/s", f"{result.submitted_per_s:,}", "≥ 50,000"),
        ("delivery reports parsed, matched, committed, acknowledged/s", f"{result.reports_per_s:,}", "≥ 20,000"),
        ("CPU µs of the gateway for a message, for its report",
         f"{result.submit_cpu_us:g}, {result.report_cpu_us:g}", ""),
        ("messages without a report, reports without a message", f"{result.unaccounted}, {result.unmatched}", "0, 0"),
        ("one number in a submit, one account, window lifted: PDUs/s", f"{result.pdu_per_s:,}", "≥ 8,000"),
        ("smpp34's client against its own server: submits/s", f"{result.peer_submit_per_s:,}", ""),
        ("of 300 messages/s with a window of 16, kept", f"{result.rate_kept:.1%}", "≥ 98 %"),
        ("that saturated by bulk: a red warning's first submit, ms", f"{result.green_first_ms:g}", "≤ 100"),
        ("its last official, s", f"{result.green_list_s:g}", f"≤ {limit_s:.2f}"),
    ]  # fmt: skip


def _fanout(result: Fanout) -> list[Row]:
    named = [("embedded", "embedded", result.embedded), ("cluster", "cluster", result.cluster)]
    named += [(peer.name, peer.title, getattr(result, peer.name)) for peer in PEERS]
    found = [("residents, rounds", f"{result.recipients:,}, {result.rounds}", "")]
    found += [(f"{title} ({one.recipients:,}), recipients/s", str(one.rate), "") for _, title, one in named if one]
    for why in dict.fromkeys(result.left_out.values()):
        left = "; ".join(title for name, title, _ in named if result.left_out.get(name) == why)
        found.append((f"left out: {left}", why, ""))
    for name, title, _ in named[2:]:
        found += _ratio(result, name, f"cluster : {title}")
    found += _ratio(result, "embedded_to_cluster", "embedded : cluster")
    for name in ("embedded", "cluster"):
        found += _ratio(result, f"{name}_cpu_growth", f"{name}: CPU per recipient to that at 100,000")
    for name, title, one in named:
        found += _cost_of(title, one, ours=name in OURS) if one else []
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


def _isolation(result: Isolation) -> list[Row]:
    found = [
        ("bulk messages of a drain", f"{result.recipients:,}", ""),
        ("a red warning's officials, residents, loudspeakers",
         f"{result.officials:,}, {result.residents:,}, {result.devices:,}", ""),
    ]  # fmt: skip
    for name, mode in (("embedded", result.embedded), ("cluster", result.cluster)):
        found += _mode(name, mode, result.ratios[name]) if mode else []
    if result.fifo is None:
        found.append(("left out: cluster, one FIFO queue", NO_SERVERS, ""))
        return found
    for title, wait in (("a message per recipient", result.fifo.each), ("per thousand", result.fifo.batches)):
        behind = f"one FIFO queue, {title}: red behind {wait.recipients:,} blue, p50 and p99, ms"
        found.append((behind, f"{wait.p50_ms:,.0f}, {wait.p99_ms:,.0f}", ""))
    return found


def _mode(name: str, mode: Mode, ratios: Ratios) -> list[Row]:
    limits = {"cluster": ("≤ 25, 100 (goal 10, 50)", "≤ 60 (p50)"), "embedded": ("≤ 150 (p99)", "")}
    found = []
    for when, one, (first, last) in (("idle", mode.idle, ("", "")), ("drain", mode.drain, limits[name])):
        found += _condition(f"{name}, {when}", one, first, last)
    return [
        *found,
        (f"{name}, drain : idle, p50 to the first loudspeaker, to the last official",
         f"{ratios.first:g}, {ratios.officials:g}", "≤ 2"),
        (f"{name}, drain : idle, rate of the residents", f"{ratios.residents_rate:g}", "≥ 0.9"),
        (f"{name}, bulk messages/s beside the reds", str(mode.drain_s), ""),
        *([(f"one FIFO queue with a message per recipient : {name}, p50 to the first", f"{ratios.fifo:,.0f}", "≥ 200")]
          if ratios.fifo is not None else []),
    ]  # fmt: skip


def _condition(title: str, one: Condition, first: str, last: str) -> list[Row]:
    return [
        (f"{title}: {one.alerts} reds, first loudspeaker, p50 and p99, ms",
         f"{one.first_p50_ms:.1f}, {one.first_p99_ms:.1f}", first),
        (f"{title}: last official", f"{one.officials_p50_ms:.1f}, {one.officials_p99_ms:.1f}", last),
        (f"{title}: first resident", f"{one.residents_first_p50_ms:.1f}, {one.residents_first_p99_ms:.1f}",
         "≤ 1,000" if first else ""),
        (f"{title}: residents/s from acceptance to the last", str(one.residents_s), ""),
    ]  # fmt: skip


def _ratio(result: Fanout, name: str, title: str) -> list[Row]:
    if name not in result.ratios:
        return []
    low, high = result.ratio_ranges[name]
    return [(title, str(Spread(result.ratios[name], low, high)), TARGETS.get(name, ""))]


def _cost_of(title: str, one: Contender, *, ours: bool) -> list[Row]:
    found = []
    for size in one.growth or [one]:
        at = f"{title}, {size.recipients:,}"
        if ours:
            found.append((f"{at}: recipients/s", str(size.rate), ""))
            found.append((f"{at}: accepted to first settled, s", str(size.first_s), ""))
            found.append((f"{at}: accepted to audience frozen, s", str(size.planned_s), ""))
        found.append((f"{at}: CPU s per million, and of the whole machine",
                      f"{size.cpu_s_per_million}, {size.machine_cpu_s_per_million}", ""))  # fmt: skip
    if one.role_cpu_s_per_million:
        parts = sorted(one.role_cpu_s_per_million.items(), key=lambda part: -part[1])
        found.append((f"{title}: CPU s per million of each role", ", ".join(f"{role} {s:g}" for role, s in parts), ""))
    peaks = ", ".join(f"{role} {peak:,.0f}" for role, peak in one.peak_mib.items())
    return [*found, (f"{title}: largest process, MiB", peaks, "≤ 300" if ours else "")]


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


def page(results: Sequence[Result], command: str, day: date, before: str = "") -> str:
    """Return the page after a run: its sections anew, the others of the page `before` as they were."""
    parts = dict(map(_titled, before.split("\n## ")[1:]))
    measured = f"Measured on {day.isoformat()} ({machine()}) by `{command}`."
    for result in results:
        table = ["| figure | measured | target |", "| --- | --- | --- |"]
        table += [f"| {' | '.join(row)} |" for row in rows(result)]
        note = f"{NOTES[result.bench]}\n" if result.bench in NOTES else ""
        table.append(f"\n{measured}\nAgain: `mingluo bench {result.bench}`.\n")
        parts[TITLES[result.bench]] = note + "\n".join(table)
    known = [title for title in TITLES.values() if title in parts]
    return HEAD + "\n".join(f"## {title}\n\n{parts[title]}" for title in known)


def _titled(section: str) -> tuple[str, str]:
    title, _, text = section.partition("\n\n")
    return title, text.rstrip("\n") + "\n"
