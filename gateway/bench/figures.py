"""What was measured against what was promised: short versions of the benches, for the demonstration's report."""

from __future__ import annotations

import msgspec

from gateway.bench.fanout import Fanout, fanout
from gateway.bench.first import First, first
from gateway.bench.http import RATIO, Http, http

FIRST_MS = 100.0
FANOUT_S = 100_000.0
SMS = "sms_twilio"


class Figure(msgspec.Struct, frozen=True):
    """One figure, its target, and whether this run met it."""

    name: str
    measured: float
    unit: str
    target: str
    met: bool


def of_first(found: First) -> Figure:
    """Judge the way to the first device."""
    name = f"last byte read → first device write, p95 of {found.rounds}"
    return Figure(name, found.p95_ms, "ms", f"≤ {FIRST_MS:.0f}", found.p95_ms <= FIRST_MS)


def of_http(found: Http) -> Figure:
    """Judge the SMS channel."""
    share = round(found.channels[SMS].ratio.median * 100, 1)
    return Figure("HTTP SMS channel : bare loop", share, "%", f"≥ {RATIO * 100:.0f}", share >= RATIO * 100)


def of_fanout(found: Fanout) -> Figure:
    """Judge the no-op channel: acceptance to all settled."""
    rate = found.embedded.recipients_per_s
    return Figure("no-op channel, accepted → settled", rate, "recipients/s", f"≥ {FANOUT_S:,.0f}", rate >= FANOUT_S)


async def figures(quick: bool) -> list[Figure]:
    """Run the three benches one after the other; `quick` takes about 20 s on two cores, less sure of its figures."""
    if quick:
        return [
            of_first(await first(rounds=12)),
            of_http(await http(1_000, 3, [SMS])),
            of_fanout(await fanout(recipients=50_000, rounds=1)),
        ]
    return [
        of_first(await first()),
        of_http(await http(channels=[SMS])),
        of_fanout(await fanout(recipients=100_000, rounds=3)),
    ]
