"""Prometheus metrics: `mingluo_<noun>_<unit>`; labels come from closed sets, never ids, numbers or names."""

from __future__ import annotations

from collections.abc import Collection
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.model import Lane, State

REGISTRY = CollectorRegistry()
LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"mingluo_{name}", text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"mingluo_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, *labels: str) -> Histogram:
    return Histogram(f"mingluo_{name}", text, labels, registry=REGISTRY, buckets=LATENCY)


alerts = _counter("alerts_total", "Alerts taken in, by what became of them", "outcome")
accept_seconds = _histogram("accept_seconds", "Last byte of a request read to its durable acceptance", "route")
first_submitted_seconds = _histogram(
    "first_submitted_seconds", "Due (accepted, approved, step's start) to an alert's first submit", "channel", "lane"
)
all_submitted_seconds = _histogram(
    "all_submitted_seconds", "Due to the settling of each batch that was sent; retries included", "channel", "lane"
)
first_socket_seconds = _histogram("first_socket_seconds", "Last byte of a request read to the first device write")
deliveries = _counter("deliveries_total", "Recipients by state reached at settle", "channel", "state")
reports = _counter("reports_total", "Later facts from providers and devices", "channel", "state")
replies = _counter("replies_total", "Texts people sent back, by what they mean", "meaning")
unmatched_reports = _gauge("unmatched_reports", "Reports whose submit has not shown up")
leases_lost = _counter("leases_lost_total", "Carrier connections given up to another process", "channel")
sessions_up = _gauge(
    "sessions_up", "1 while this process has a connection to the channel's carrier or broker", "channel"
)
connections = _gauge("connections", "Connections with the channel's carrier that serve, of this process", "channel")
connections_allowed = _gauge(
    "connections_allowed", "Connections the channel's accounts allow over all processes", "channel"
)
connections_broken = _counter(
    "connections_broken_total", "Logins that failed, and connections that ended not by leave", "channel", "why"
)
silent_recipients = _counter("silent_recipients_total", "Recipients the provider never reported on in time", "channel")
reports_dropped = _counter("reports_dropped_total", "Reports whose submit never showed up", "channel")
retries = _counter("retries_total", "Recipients to be tried again, by why", "channel", "why")
possible_duplicates = _counter("possible_duplicates_total", "Doubtful recipients sent once more", "channel")
elsewhere = _counter("elsewhere_total", "Numbers a carrier said are another one's", "channel")
claims_lapsed = _counter("claims_lapsed_total", "Claims found with a lapsed lease", "channel")
queue_depth = _gauge("queue_depth", "Batches waiting in the broker; absent while it is down", "lane")
outbox_unfinished = _gauge("outbox_unfinished", "Batches without an outcome", "lane")
waiting_batches = _gauge("waiting_batches", "Batches without an outcome and steps to be planned, by why", "reason")
outbox_age_seconds = _gauge("outbox_age_seconds", "Age of the oldest unfinished batch that is due", "lane")
devices_online = _gauge("devices_online", "Loudspeakers connected to this process", "channel")
device_strangers = _counter("device_strangers_total", "Devices that came under a name of no roster", "channel")
villages = _gauge("villages", "Villages of live actual warnings by state", "state")
channel_down = _gauge("channel_down", "1 while a channel's carrier serves nobody of this process", "channel")
certificate_days = _gauge("certificate_days", "Days until a channel's certificate ends; below 0: it has", "channel")
speakers = _gauge("speakers", "Loudspeakers in service by condition", "condition")
mute_villages = _gauge("mute_villages", "Villages without a working loudspeaker, by why", "condition")
speaker_orders = _counter("speaker_orders_total", "Orders to loudspeakers that were settled", "outcome")
village_alarms = _counter("village_alarms_total", "Alarms that villages have sounded by themselves")
drills = _counter("drills_total", "Planned drills by what became of them", "kind", "result")
alarms = _counter("alarms_total", "Duty-room alarms raised", "kind")
broker_up = _gauge("broker_up", "1 while the broker answers for its queues", "broker")
store_up = _gauge("store_up", "1 while the database answers; 0: nothing can be taken in", "store")
log_lines_lost = _counter("log_lines_lost_total", "Log lines that could not be written: the disk is full")
publishes = _counter("publishes_total", "Batches handed to the broker", "lane", "result")

ALARMS = (
    "account_unusable",
    "batch_failed",
    "break_glass",
    "bug",
    "cannot_compose",
    "emergency",
    "held",
    "held_leader",
    "incident",
    "limit",
    "limit_red",
    "national",
    "obligation",
    "partner",
    "restored",
    "signature_unregistered",
    "speech",
    "step_failed",
    "timer_failed",
    "village_alarm",
)
ROUTES = ("drill", "emergency", "green", "normal")
MEANINGS = ("heard", "away", "support", "opt_out", "other")
WHYS = ("ambiguous", "paced", "temporary", "throttled")
BROKEN = (
    "connection_lost",
    "garbage",
    "lease_lost",
    "logged_out",
    "login",
    "no_answer",
    "no_heartbeat",
    "not_committed",
    "other",
)
DRILLS = ("broadcast", "call_up", "self_test", "self_test_audible")
DRILL_RESULTS = ("planned", "approved", "running", "refused", "cancelled")
OUTCOMES = ("accepted", "draft", "held", "duplicate", "refused")


def begin(channels: Collection[str]) -> None:
    """Show what alerts and rates are computed from as 0, so that the first increment of a night is seen as one."""
    for route in ROUTES:
        accept_seconds.labels(route)
    for kind in ALARMS:
        alarms.labels(kind)
    for meaning in MEANINGS:
        replies.labels(meaning)
    for outcome in ("done", "failed", "expired"):
        speaker_orders.labels(outcome)
    for kind, result in product(DRILLS, DRILL_RESULTS):
        drills.labels(kind, result)
    for outcome in OUTCOMES:
        alerts.labels(outcome)
    for lane, result in product(Lane, ("confirmed", "unconfirmed")):
        publishes.labels(lane.value, result)
    for channel in channels:
        _begin(channel)


def _begin(channel: str) -> None:
    channel_down.labels(channel)
    claims_lapsed.labels(channel)
    leases_lost.labels(channel)
    device_strangers.labels(channel)
    silent_recipients.labels(channel)
    reports_dropped.labels(channel)
    possible_duplicates.labels(channel)
    elsewhere.labels(channel)
    for why in WHYS:
        retries.labels(channel, why)
    for why in BROKEN:
        connections_broken.labels(channel, why)
    for lane in Lane:
        first_submitted_seconds.labels(channel, lane.value)
        all_submitted_seconds.labels(channel, lane.value)
    for state in State:
        deliveries.labels(channel, state.name.lower())
        reports.labels(channel, state.name.lower())


def expose() -> bytes:
    """Return all metrics in the text format."""
    return generate_latest(REGISTRY)
