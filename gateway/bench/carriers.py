"""SMS through the three carriers: a whole embedded gateway against simulated ones (`gateway.bench.smsc`).

Each part is an installation of its own: the warning is posted over HTTP, frozen, claimed, rendered, paced, submitted,
settled; reports are parsed, matched, committed, then acknowledged. What the carriers counted is what is measured.

- `bulk`: everybody over all three carriers, up to a hundred numbers in a submit; the carriers hold their reports until
  the last submit, so that each way has the machine to itself. Nobody may be left without a report in the ledger.
- `single`: one number in a submit, one connection with its window lifted.
- `rate`: window 16 and 300 messages a second, as carriers have it.
- `green`: the same limits, saturated by a bulk warning; then a red one to officials elsewhere.
- the peer: the client of the `smpp34` package against its own server (`ops/bench/smpp34`).
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from gateway import cap
from gateway.bench import usage
from gateway.bench.installation import Crowd, Running, inhabited, installation
from gateway.bench.measure import child, red_rain, yellow_rain
from gateway.bench.smpp import submit_rate
from gateway.bench.smsc import LOGIN, SECRET, SOURCE, Counts, Task
from gateway.demo.stage import free_port
from gateway.model import Group

CHANNELS = {"cmpp30": "sms_cmpp", "sgip": "sms_sgip", "smgp": "sms_smgp"}
OWN: dict[str, dict[str, object]] = {
    "cmpp30": {"source_addr": LOGIN},
    "sgip": {"login_name": LOGIN, "area_code": "0396", "corp_id": "12345"},
    "smgp": {"client_id": LOGIN},
}
PER_S = 300
WINDOW = 16
BURST, RESERVE = 200, 100
"""The account's bucket, and what is green's of it: a slice of bulk fits in beside it."""
ANSWER_S = 0.02
"""What a carrier takes to answer, where its limits are measured."""
RATE_S = 12
OFFICIALS = 600
WARNED = 3  # townships of the green warning, where nobody else lives
SINGLES = 20_000
WARM = 300  # people of the warning that opens connections and loads templates
LIFTED: dict[str, Any] = {"window": 0, "report_window": 0}
PATIENCE_S = 280.0
POLL_S = 0.02
_OPEN = (
    "SELECT (SELECT COUNT(*) FROM step WHERE alert = :alert AND finished = 0)"
    " + (SELECT COUNT(*) FROM batch WHERE alert = :alert AND unfinished > 0)"
)
_UNMATCHED = "SELECT COUNT(*) FROM provider_ref WHERE batch IS NULL"

Say = Callable[[str], None]


class Carriers(msgspec.Struct, frozen=True):
    """The result, as printed with --json."""

    recipients: int
    """Messages of the bulk part, over the three carriers."""
    submitted_per_s: float
    """From the post to the last submit."""
    reports_per_s: float
    """From the first report to the last acknowledgement."""
    submit_cpu_us: float
    """CPU time of the gateway for each message, planning included."""
    report_cpu_us: float
    unaccounted: int
    """Messages that the ledger does not show delivered."""
    unmatched: int
    """Reports without a submit."""
    pdu_per_s: float
    rate_kept: float
    """Share of the allowed rate."""
    green_first_ms: float
    """From the red warning's acceptance to its first submit, while a bulk one saturates the account."""
    green_list_s: float
    green_limit_s: float
    """What the account's rate allows for the official list, its reserve being free."""
    peer_submit_per_s: float
    bench: str = "carriers"


async def carriers(recipients: int = 150_000, say: Say = lambda _: None) -> Carriers:
    """Measure with child processes.

    Raises:
        ConfigError: the peer is not installed.
        RuntimeError: a child failed, or a part did not come to its end.
    """
    peer = await submit_rate(min(recipients, SINGLES))
    say(f"the peer: {peer:,.0f} submits/s")
    each = max(1, recipients // len(CHANNELS))
    bulk = await _bulk(each)
    say(f"bulk: {bulk}")
    single = await _single(min(each, SINGLES))
    say(f"one number in a submit: {single:,.0f} PDUs/s")
    kept = await _rate()
    say(f"of the allowed rate: {kept:.1%}")
    green = await _green()
    say(f"green: {green}")
    return Carriers(
        recipients=each * len(CHANNELS), pdu_per_s=round(single), rate_kept=round(kept, 4),
        peer_submit_per_s=round(peer), **bulk, **green,
    )  # fmt: skip


# --- carriers and a gateway that uses them -----------------------------------------------------------


class _Carriers:
    """The carriers' process: what it has counted so far."""

    def __init__(self, ports: Mapping[str, int], output: asyncio.StreamReader) -> None:
        self.ports = ports
        self.counts = Counts()
        self._reading = asyncio.create_task(self._read(output))

    async def _read(self, output: asyncio.StreamReader) -> None:
        while line := await output.readline():
            self.counts = msgspec.json.decode(line, type=Counts)

    async def until(self, there: Callable[[Counts], bool], what: str) -> Counts:
        """Wait for what is counted.

        Raises:
            RuntimeError: it took too long, or the process ended.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not there(self.counts):
            if time.monotonic() > deadline or self._reading.done():
                raise RuntimeError(f"{what} did not happen in {PATIENCE_S:.0f} s: {self.counts}")
            await asyncio.sleep(POLL_S)
        return self.counts

    async def close(self) -> None:
        """Stop reading."""
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading


@asynccontextmanager
async def _ready(
    protocols: Sequence[str], crowds: Sequence[Crowd], task: dict[str, Any], account: dict[str, object], rates: str = ""
) -> AsyncIterator[tuple[Running, _Carriers]]:
    """Run carriers, and a gateway whose plan sends everybody one message over each of them."""
    listeners = {name: f"127.0.0.1:{free_port()}" if name == "sgip" else "" for name in protocols}
    order = msgspec.json.encode(Task(listeners, **task)).decode()
    async with installation(None, crowds) as place, child("gateway.bench.smsc", order) as output:
        ports = msgspec.json.decode(await asyncio.wait_for(output.readline(), 60), type=dict[str, int])
        furnish(place.folder / "config", [CHANNELS[name] for name in protocols])
        tables = [table(name, ports[name], listeners[name], **account) for name in protocols]
        (place.folder / "channels.toml").write_text("\n".join([*tables, rates]), encoding="utf8")
        found = _Carriers(ports, output)
        try:
            async with place.running() as gateway:
                yield gateway, found
        finally:
            await found.close()


def furnish(config: Path, channels: Sequence[str]) -> None:
    """Make officials and residents of a copied configuration hear over each of these channels."""
    path = config / "policy" / "plan.toml"
    text = path.read_text("utf8")
    for name in channels:  # a channel of its own is no road of the pool
        text = text.replace(f'"{name}", ', "", 1)
    text, changed = re.subn(
        r'(?m)^channels = \["sms"\]\n(?:fallback.*\n)*', f"channels = {json.dumps(list(channels))}\n", text
    )
    if not changed:
        raise LookupError("policy/plan.toml has no row of SMS")
    for name in channels:
        if f'name = "{name}"' not in text:
            text += f'\n[[channel]]\nname = "{name}"\ngroups = ["officials", "residents"]\n'
    path.write_text(text, "utf8")


def table(protocol: str, port: int, listener: str = "", **account: object) -> str:
    """Return the table of `channels.toml` for a carrier on this machine."""
    plain = {"name": "one", "host": "127.0.0.1", "port": port, "secret": SECRET, "src_id": SOURCE}
    lines = [f"[{CHANNELS[protocol]}]"]
    if listener:
        host, _, listening = listener.rpartition(":")
        lines.append(f'listener = {{ host = "{host}", port = {listening}, allow = ["127.0.0.0/8"] }}')
    lines.append(f"[[{CHANNELS[protocol]}.account]]")
    lines += [f"{key} = {json.dumps(value)}" for key, value in (plain | OWN[protocol] | account).items()]
    return "\n".join(lines) + "\n"


def _people(number: int) -> list[Crowd]:
    """Return a few to warm up with, and the crowd elsewhere."""
    towns = inhabited()
    return [Crowd(WARM, towns[:1]), Crowd(number, towns[1:])]


def _yellow(number: int, towns: Sequence[str]) -> bytes:
    return cap.write(yellow_rain(str(number), towns))


async def _warm(gateway: Running, found: _Carriers, ways: int) -> Counts:
    """Send a first warning; return what was counted when it was through."""
    alert = await gateway.submit(_yellow(1, inhabited()[:1]))
    await found.until(lambda counts: counts.taken >= WARM * ways, "the first warning")
    await _settled(gateway, alert)
    return found.counts


async def _settled(gateway: Running, alert: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while gateway.rows(_OPEN, alert=alert)[0][0]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"alert {alert} was not settled in {PATIENCE_S:.0f} s")
        await asyncio.sleep(POLL_S)


# --- the parts ---------------------------------------------------------------------------------------


async def _bulk(each: int) -> dict[str, Any]:
    """Send a crowd one message over each carrier, then take every report."""
    ways = len(CHANNELS)
    total, before = each * ways, WARM * ways
    task = {"scenario": LIFTED, "held": total + before}
    async with _ready(list(CHANNELS), _people(each), task, {}) as (gateway, found):
        await _warm(gateway, found, ways)
        pids = gateway.pids.values()
        cpu, posted = usage.cpu_s(pids), time.time()
        alert = await gateway.submit(_yellow(2, inhabited()[1:]))
        submitted = await found.until(lambda counts: counts.sent_at > 0, "the last submit")
        await _settled(gateway, alert)
        submit_cpu, cpu = usage.cpu_s(pids) - cpu, usage.cpu_s(pids)
        # Everybody is to be there; once nothing moves any more, nobody else comes.
        reported = await found.until(lambda counts: counts.acknowledged >= total + before, "the last report")
        report_cpu = usage.cpu_s(pids) - cpu
        rows = gateway.rows("SELECT counts FROM batch WHERE alert = :alert", alert=alert)
        delivered = sum(json.loads(one).get("delivered", 0) for (one,) in rows)
        ((unmatched,),) = gateway.rows(_UNMATCHED)
    return {
        "submitted_per_s": round(total / (submitted.last_at - posted)),
        "reports_per_s": round((total + before) / (reported.acknowledged_at - reported.sent_at)),
        "submit_cpu_us": round(submit_cpu / total * 1e6, 1),
        "report_cpu_us": round(report_cpu / total * 1e6, 1),
        "unaccounted": total - delivered,
        "unmatched": int(unmatched),
    }


async def _single(number: int) -> float:
    """Submit one by one over one connection."""
    task = {"scenario": LIFTED | {"reports": "never"}}
    account: dict[str, object] = {"bulk": False, "window": 10_000}
    async with _ready(["cmpp30"], _people(number), task, account) as (gateway, found):
        before = await _warm(gateway, found, 1)
        posted = time.time()
        await gateway.submit(_yellow(2, inhabited()[1:]))
        counts = await found.until(lambda counts: counts.taken >= number + WARM, "the last submit")
        return (counts.pdus - before.pdus) / (counts.last_at - posted)


def _limits() -> tuple[dict[str, Any], dict[str, object], str]:
    """Return the carrier's limits, the account's, and the rate the gateway is told."""
    scenario = {"window": WINDOW, "rate": PER_S, "answer_after_s": ANSWER_S}
    rates = f'[rates]\n"sms_cmpp/one" = {{ per_s = {PER_S}, burst = {BURST}, green = {RESERVE} }}\n'
    return scenario, {"window": WINDOW}, rates


async def _rate() -> float:
    """Return the share of the allowed rate that is used while there is enough to do."""
    number = RATE_S * PER_S
    scenario, account, rates = _limits()
    async with _ready(["cmpp30"], [Crowd(number, inhabited())], {"scenario": scenario}, account, rates) as (one, found):
        await one.submit(_yellow(1, inhabited()))
        # What the bucket held at first is no rate.
        early = await found.until(lambda counts: counts.taken >= 2 * PER_S, "two seconds of bulk")
        counts = await found.until(lambda counts: counts.taken >= number, "the last submit")
        return (counts.taken - early.taken) / (counts.last_at - early.last_at) / PER_S


async def _green() -> dict[str, Any]:
    """Saturate the account with a bulk warning, then warn the officials of other townships."""
    towns = inhabited()
    crowd = 60 * PER_S
    scenario, account, rates = _limits()
    people = [Crowd(crowd, towns[WARNED:]), Crowd(OFFICIALS, towns[:WARNED], Group.OFFICIALS)]
    task = {"scenario": scenario, "marked": f"100{crowd:08d}"}
    async with _ready(["cmpp30"], people, task, account, rates) as (gateway, found):
        await gateway.submit(_yellow(1, towns[WARNED:]))
        await found.until(lambda counts: counts.taken >= 5 * PER_S, "five seconds of bulk")
        alert = await gateway.submit(cap.write(red_rain("2", towns[:WARNED])))
        counts = await found.until(lambda counts: counts.marks >= OFFICIALS, "the last official")
        if counts.taken >= crowd:
            raise RuntimeError("the bulk warning was through before the officials were")
        ((accepted_us,),) = gateway.rows("SELECT accepted_at FROM alert WHERE id = :alert", alert=alert)
        accepted = accepted_us / 1e6
    return {
        "green_first_ms": round((counts.marked_at - accepted) * 1e3, 1),
        "green_list_s": round(counts.marked_last_at - accepted, 2),
        "green_limit_s": round((OFFICIALS - RESERVE) / PER_S, 2),
    }
