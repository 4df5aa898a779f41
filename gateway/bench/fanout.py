"""A warning to many residents through the no-op channel, beside named peers and the limit of the transport.

Ours is a whole gateway in processes of its own (`gateway.bench.installation`), embedded and, where servers are given,
as a cluster. One alert at a time in the bulk lane: it is posted over HTTP, its audience frozen page by page, and every
batch claimed, rendered, paced, sent through the ordinary no-op channel and settled; the clock stops when no step and no
batch is open. Peers are those of `gateway.bench.peer`, over the same RabbitMQ.

Every round measures everything once, one after the other and each time beginning with another, so that a machine that
drifts hits all; ratios are taken within a round. Processes are started for their turn and ended after it: nobody's
idle processes share the cores with others.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec

from gateway import cap
from gateway.bench import usage
from gateway.bench.installation import Crowd, Installation, Running, inhabited, installation
from gateway.bench.measure import Round, Spread, yellow_rain
from gateway.bench.peer import PEERS, PeerError, install, measure
from gateway.demo.stage import Servers

SIZES = (10_000, 100_000)  # measured besides the one that is asked for, where that is at least twice as large
GROWN_FROM = 100_000
WARM = 200  # residents of the alert that opens connections and loads templates
BOUNDS = (1, 2, 6)  # of the townships: the warm one, those of each size; the largest has all
NO_SERVERS = "set MINGLUO_AMQP_URL, MINGLUO_DATABASE_URL and MINGLUO_REDIS_URL, or run: make bench"
_MOMENTS = "SELECT MIN(submitted_at), MAX(created_at) FROM batch WHERE alert = :alert"

Say = Callable[[str], None]
Turn = Callable[[int], Awaitable[list[Round]]]
"""Measure something once, in a round of that number; one `Round` per size, smallest first."""


class Size(msgspec.Struct, frozen=True):
    """What one number of recipients took, over the rounds."""

    recipients: int
    recipients_per_s: float
    """The median; `low` and `high` are its range."""
    low: float
    high: float
    first_s: Spread
    planned_s: Spread
    """Until the whole audience was frozen; 0 for peers."""
    cpu_s_per_million: Spread
    machine_cpu_s_per_million: Spread
    """Of everything that ran meanwhile: RabbitMQ, PostgreSQL and the bench itself as well."""
    peak_mib: dict[str, float]
    """The largest process of each role, the highest over the rounds."""
    role_cpu_s_per_million: dict[str, float]
    """What the CPU seconds of our processes are made of, medians; none of a peer."""

    @classmethod
    def of(cls, rounds: Sequence[Round]) -> Size:
        """Return the figures of at least one round of one size."""
        number = rounds[0].recipients
        rate = Spread.of(one.rate for one in rounds)
        peaks = {role: max(one.peak_mib[role] for one in rounds) for role in rounds[0].peak_mib}
        return cls(
            number,
            rate.median,
            rate.low,
            rate.high,
            Spread.of(one.first_s for one in rounds),
            Spread.of(one.planned_s for one in rounds),
            Spread.of(one.cpu_s / number * 1e6 for one in rounds),
            Spread.of(one.machine_cpu_s / number * 1e6 for one in rounds),
            {role: round(peak, 1) for role, peak in peaks.items()},
            {
                role: Spread.of(one.role_cpu_s[role] / number * 1e6 for one in rounds).median
                for role in rounds[0].role_cpu_s
            },
        )

    @property
    def rate(self) -> Spread:
        """Recipients per second."""
        return Spread(self.recipients_per_s, self.low, self.high)


class Contender(Size, frozen=True):
    """The figures of the largest size; `growth` has all sizes of ours, and none of a peer."""

    growth: list[Size] = []


class Fanout(msgspec.Struct, frozen=True, kw_only=True):
    """The result, as printed with --json. `ratios`: medians of our cluster to the one named, within one round."""

    recipients: int
    rounds: int
    embedded: Contender
    cluster: Contender | None = None
    raw: Contender | None = None
    celery: Contender | None = None
    celery_confirms: Contender | None = None
    celery_chunks: Contender | None = None
    dramatiq: Contender | None = None
    taskiq: Contender | None = None
    faststream: Contender | None = None
    ratios: dict[str, float]
    """Besides: `embedded_to_cluster`; `…_cpu_growth`: CPU per recipient to that at 100,000."""
    ratio_ranges: dict[str, tuple[float, float]]
    left_out: dict[str, str]
    """What was not measured, and why."""
    bench: str = "fanout"


async def fanout(
    recipients: int = 1_000_000,
    rounds: int = 5,
    *,
    servers: Servers | None = None,
    peers: bool = False,
    say: Say = lambda _: None,
) -> Fanout:
    """Measure with child processes: embedded, and with servers the cluster, the raw limit, and peers if asked for.

    Raises:
        RuntimeError: a process of ours failed, or somebody was not reached.
    """
    sizes = [*(size for size in SIZES if 2 * size <= recipients), recipients]
    left_out = await _left_out(servers, peers=peers)
    async with AsyncExitStack() as stack:
        turns: dict[str, Turn] = {}
        # The cluster first: a server that does not answer shows before anything is written.
        for name, where in [*([("cluster", servers)] if servers else ()), ("embedded", None)]:
            say(f"{name}: writing {recipients:,} residents")
            place = await stack.enter_async_context(installation(where, _crowds(sizes)))
            turns[name] = partial(_ours, place, sizes)
        if servers:
            for peer in PEERS:
                if peer.name not in left_out:
                    turns[peer.name] = partial(_peer, peer.name, servers.amqp, recipients)
        found = await take_turns(turns, rounds, left_out, say)
    return result(recipients, found, left_out)


async def _left_out(servers: Servers | None, *, peers: bool) -> dict[str, str]:
    """Return whom this run cannot or shall not measure, after making what can be made."""
    if servers is None:
        return dict.fromkeys(["cluster", *(peer.name for peer in PEERS)], NO_SERVERS)
    foreign = [peer for peer in PEERS if peer.environment is not None]
    if not peers:
        return {peer.name: "not asked for: --peers" for peer in foreign}
    failed = await install()
    return {peer.name: failed or why for peer in PEERS if (why := peer.missing())}


async def take_turns(
    turns: Mapping[str, Turn], rounds: int, left_out: dict[str, str], say: Say
) -> dict[str, list[list[Round]]]:
    """Return by name what every round found, one list of sizes per round.

    A peer that fails twice running is left out, also of the rounds it was in: its figures would be of fewer rounds than
    others'.
    """
    names = list(turns)
    found: dict[str, list[list[Round]]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if name not in found:
                continue
            try:
                one = await _tried(turns[name], number)
            except PeerError as error:
                left_out[name] = f"failed: {str(error).splitlines()[0]}"
                del found[name]
                say(f"{name} is left out: {error}")
            else:
                found[name].append(one)
                say(f"round {number + 1} of {rounds}: {name} {one[-1].rate:,.0f}/s")
    return found


async def _tried(turn: Turn, number: int) -> list[Round]:
    """Take a turn; where the peer's programs fail, once more, for a broker that others use too has its moments."""
    with suppress(PeerError):
        return await turn(number)
    return await turn(number)


def result(recipients: int, found: Mapping[str, list[list[Round]]], left_out: Mapping[str, str]) -> Fanout:
    """Return the figures of a run."""
    contenders: dict[str, Any] = {name: _contender(rounds) for name, rounds in found.items()}
    ratios = _ratios(found)
    return Fanout(
        recipients=recipients,
        rounds=len(found["embedded"]),
        **contenders,
        ratios={name: ratio.median for name, ratio in ratios.items()},
        ratio_ranges={name: (ratio.low, ratio.high) for name, ratio in ratios.items()},
        left_out=dict(left_out),
    )


def _contender(rounds: Sequence[Sequence[Round]]) -> Contender:
    sizes = [Size.of(same) for same in zip(*rounds, strict=True)]
    return Contender(**msgspec.structs.asdict(sizes[-1]), growth=sizes if len(sizes) > 1 else [])


def _ratios(found: Mapping[str, list[list[Round]]]) -> dict[str, Spread]:
    rates = {name: [one[-1].rate for one in rounds] for name, rounds in found.items()}
    ratios: dict[str, Spread] = {}
    if cluster := rates.get("cluster"):
        for name in found.keys() - {"cluster", "embedded"}:
            ratios[name] = _ratio(cluster, rates[name])
        ratios["embedded_to_cluster"] = _ratio(rates["embedded"], cluster)
    for name in found.keys() & {"cluster", "embedded"}:
        pairs = [{one.recipients: one.cpu_s / one.recipients for one in rounds} for rounds in found[name]]
        largest = found[name][0][-1].recipients
        if GROWN_FROM in pairs[0] and largest > GROWN_FROM:
            ratios[f"{name}_cpu_growth"] = _ratio([one[largest] for one in pairs], [one[GROWN_FROM] for one in pairs])
    return dict(sorted(ratios.items()))


def _ratio(ours: Iterable[float], theirs: Iterable[float]) -> Spread:
    return Spread.of(one / other for one, other in zip(ours, theirs, strict=True))


# --- one round -------------------------------------------------------------------------------------


async def _peer(name: str, amqp: str, most: int, _: int) -> list[Round]:
    peer = next(peer for peer in PEERS if peer.name == name)
    return [await measure(peer, amqp, most)]


def _crowds(sizes: Sequence[int]) -> list[Crowd]:
    """Return the people: each size is that of the one before and some more, in townships of their own."""
    towns = inhabited()
    bounds = [*BOUNDS[: len(sizes)], len(towns)]
    more = [size - before for size, before in zip(sizes, [0, *sizes], strict=False)]
    parts = [towns[low:high] for low, high in pairwise(bounds)]
    return [Crowd(WARM, towns[:1]), *map(Crowd, more, parts)]


async def _ours(place: Installation, sizes: Sequence[int], number: int) -> list[Round]:
    """Start the gateway, warm it, and send one alert to each size."""
    crowds = _crowds(sizes)
    found: list[Round] = []
    reached: list[str] = []
    async with place.running() as gateway:
        await gateway.sealed()
        await gateway.settled(await gateway.submit(_alert(f"{number}", crowds[0].townships)), WARM)
        for size, crowd in zip(sizes, crowds[1:], strict=True):
            reached += crowd.townships
            found.append(await _alert_to(gateway, _alert(f"{number}0{len(found)}", reached), size))
    return found


def _alert(number: str, townships: Sequence[str]) -> bytes:
    return cap.write(yellow_rain(number, townships))


async def _alert_to(gateway: Running, data: bytes, recipients: int) -> Round:
    """Send one alert, and wait until everybody is settled."""
    pids = gateway.pids
    cpu, machine = _cpu_s(pids), usage.machine_cpu_s()
    posted, started = time.time(), time.perf_counter()
    alert = await gateway.submit(data)
    await gateway.settled(alert, recipients)
    seconds = time.perf_counter() - started
    used, machine = {role: now - cpu[role] for role, now in _cpu_s(pids).items()}, usage.machine_cpu_s() - machine
    ((first, planned),) = gateway.rows(_MOMENTS, alert=alert)
    return Round(
        recipients, seconds, first / 1e6 - posted, sum(used.values()), machine,
        {role: usage.peak_mib(pid) for role, pid in pids.items()}, planned / 1e6 - posted, used,
    )  # fmt: skip


def _cpu_s(pids: Mapping[str, int]) -> dict[str, float]:
    return {role: usage.cpu_s([pid]) for role, pid in pids.items()}
