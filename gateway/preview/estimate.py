"""When the first and the last of each step would be submitted. Pure.

Assumes that nothing else uses the accounts, that a rate holds, and that resolving, rendering and queueing take no
time (measured: milliseconds to the first, see `docs/benchmarks.md`). So the figures are a lower bound: another mass
send, a carrier that slows down or a retry make it later, never earlier. An account without a rate is not limited by
us: all of its step counts as submitted when it starts. Loudspeakers are told at once.

The accounts' buckets are those of `gateway.link`: they start full, refill by `per_s` up to `burst`, and what is not
in the green lane leaves `green` tokens in them. A more urgent lane goes first, then the earlier step (rule 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import inf
from typing import NamedTuple

from gateway.link import Rate
from gateway.model import Lane

RANK = {lane: rank for rank, lane in enumerate(Lane)}


class Job(NamedTuple):
    """One step's work on an account: `units` from `start_s` seconds on, for what it is worth until `end_s`."""

    step: int
    account: str
    lane: Lane
    start_s: float
    end_s: float
    units: int

    @property
    def urgency(self) -> tuple[int, float, int]:
        """What goes first."""
        return RANK[self.lane], self.start_s, self.step


class Span(NamedTuple):
    """Seconds until the first and the last unit, and how many units come after the job's end."""

    first_s: float
    last_s: float
    too_late: int


def spans(jobs: Iterable[Job], rates: Mapping[str, Rate]) -> dict[int, Span]:
    """Return when each job is done, by step; jobs without units are left out."""
    found: dict[int, Span] = {}
    wanted = sorted((job for job in jobs if job.units > 0), key=lambda job: job.account)
    for account, mine in groupby(wanted, key=lambda job: job.account):
        if (rate := rates.get(account)) is None:
            found |= {job.step: Span(job.start_s, job.start_s, 0) for job in mine}
        else:
            found |= _paced(list(mine), rate)
    return found


def _paced(jobs: Sequence[Job], rate: Rate) -> dict[int, Span]:
    """Let one bucket serve the jobs, most urgent first."""
    now, tokens = 0.0, float(rate.burst)
    left = {job: float(job.units) for job in jobs}
    first: dict[int, float] = {}
    late: dict[int, float] = {}
    done: dict[int, Span] = {}
    while left:
        ready = [job for job in left if job.start_s <= now]
        if not ready:
            now, tokens = _wait(now, tokens, min(job.start_s for job in left), rate)
            continue
        job = min(ready, key=lambda one: one.urgency)
        free = tokens - (0 if job.lane is Lane.GREEN else min(rate.green, rate.burst))
        needed = left[job]
        until = min((one.start_s for one in left if one.start_s > now and one.urgency < job.urgency), default=inf)
        spent_s = min(max(0.0, (needed - free) / rate.per_s), until - now)
        sent = min(needed, max(0.0, free + spent_s * rate.per_s))
        if sent >= min(1.0, needed):
            first.setdefault(job.step, now + max(0.0, (min(1.0, needed) - free) / rate.per_s))
        in_time = min(sent, max(0.0, free + (job.end_s - now) * rate.per_s)) if job.end_s > now else 0.0
        late[job.step] = late.get(job.step, 0.0) + sent - in_time
        now, tokens = now + spent_s, min(float(rate.burst), tokens + spent_s * rate.per_s - sent)
        left[job] = needed - sent
        if left[job] < 0.5:  # units are whole; what is less is rounding
            del left[job]
            done[job.step] = Span(first.get(job.step, now), now, round(late[job.step]))
    return done


def _wait(now: float, tokens: float, until: float, rate: Rate) -> tuple[float, float]:
    return until, min(float(rate.burst), tokens + (until - now) * rate.per_s)
