"""`kill -9` of each process amid 100,000 recipients: everyone once, but for what rule 2 marks, and nobody missing.

Judged by what the carrier, the loudspeakers and the noop channel's log really received, not by the ledger.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest
from night import EVACUATED, HAMLET, WARNED, Night, night

from gateway.demo.stage import Servers

SLICES_AT_ONCE = 12  # of noop or SMS in one process: urgent work 8 and 4, green besides
SMS_SLICE = 50

pytestmark = pytest.mark.timeout(400)


async def heard(night: Night, alert: str, towns: Sequence[str]) -> None:
    """Wait until every loudspeaker that can has sounded; each sounds a version once, however often hubs die."""
    wanted = night.devices(towns)
    await night.until(lambda: wanted <= night.sounded(alert).keys(), 60, "all loudspeakers to sound")
    assert max(night.sounded(alert).values()) == 1


def judge_noop(night: Night, alert: str, towns: Sequence[str]) -> int:
    """Nobody missing, nobody told a second time but as attempt 2, never a third; return the number of repeats."""
    wanted, got = night.persons(towns), night.noop(alert)
    assert got.keys() == wanted
    told = Counter(tuple(attempts) for attempts in got.values())
    assert told.keys() <= {(1,), (2,), (1, 2)}, told
    return told[2,] + told[1, 2]


def judge_sms(wanted: Counter[str], night: Night, signature: str) -> int:
    """Nobody missing, nobody told twice unmarked or marked twice; return the number of marked texts."""
    first, again = night.sms(signature)
    assert (first | again).keys() == wanted.keys()
    assert not [to for to, number in wanted.items() if first[to] + again[to] < number], "somebody got nothing"
    assert not first - wanted, "somebody was told twice without the mark"
    assert not again - wanted, "somebody got the repeat twice"
    return again.total()


async def at_full_speed(night: Night, alert: str) -> None:
    """Wait until as many slices have come as are sent at once; print how long after the restart (`pytest -rP`)."""
    began = time.monotonic()
    await night.lines("noop.log", night.count("noop.log", alert) + SLICES_AT_ONCE, alert)
    print(f"{SLICES_AT_ONCE} slices {time.monotonic() - began:.1f} s after everything answers again")


async def both(night: Night, warning: str, order: str) -> tuple[int, int]:
    """Wait until a warning of the townships and an evacuation of the hamlet are settled, and judge them.

    Return the repeats of the warning, and the marked texts of both.
    """
    ordered = [HAMLET]
    await night.rest(warning, {"residents": len(night.persons(night.towns))})
    await night.rest(order, {"residents": len(night.persons(ordered))})
    await heard(night, warning, night.towns)
    await heard(night, order, ordered)
    repeated = judge_noop(night, warning, night.towns)
    marked = judge_sms(night.numbers(night.towns, residents=False), night, WARNED)
    marked += judge_sms(night.numbers(ordered, residents=True), night, EVACUATED)
    return repeated, marked


async def test_an_embedded_gateway_killed_after_202_and_amid_100000_tells_everyone(tmp_path: Path) -> None:
    """Whoever pulls the plug, at whatever moment: every resident is told, and a repeat says that it is one."""
    async with night(tmp_path, callback_tries=1) as one:
        warning = await one.warn(one.towns)
        await one.again("serve")  # rule 1: it was acknowledged, so it goes out
        await at_full_speed(one, warning)
        order = await one.order([HAMLET])
        await one.approve(order)
        await one.lines("sms.log", 300, EVACUATED)
        await one.again("serve")
        repeated, marked = await both(one, warning, order)
        assert repeated <= SLICES_AT_ONCE * 1000  # a slice of noop is under way for moments only, so it may be none
        assert 0 < marked <= SLICES_AT_ONCE * SMS_SLICE  # the kill did hit slices under way, or it proved nothing


async def test_each_process_of_a_cluster_killed_amid_100000_tells_everyone(
    tmp_path: Path, amqp_url: str, redis_url: str, database_url: str
) -> None:
    """A cluster loses its processes one after the other during one alert; no village notices."""
    servers = Servers(amqp_url, redis_url, database_url)

    def planned() -> bool:
        with psycopg.connect(database_url) as connection:
            row = connection.execute("SELECT COUNT(*) FROM batch WHERE audience = 'residents'").fetchone()
            return row is not None and row[0] > 0

    async with night(tmp_path, servers, callback_tries=1) as one:
        warning = await one.warn(one.towns)
        one.stage.kill("api")  # rule 1: it was acknowledged, so it goes out
        await one.until(planned, 60, "the planner to begin with the residents")
        one.stage.kill("planner")
        await one.lines("speakers.log", 20, '"sound"')
        one.stage.kill("hub")
        for role in ("api", "planner", "hub"):
            one.stage.start_role(role)
        await one.stage.answering()
        await at_full_speed(one, warning)
        order = await one.order([HAMLET])
        await one.approve(order)
        await one.lines("sms.log", 300, EVACUATED)
        one.stage.kill("scheduler")
        await one.again("worker")
        one.stage.start_role("scheduler")
        repeated, marked = await both(one, warning, order)
        assert repeated <= SLICES_AT_ONCE * 1000
        assert marked <= SLICES_AT_ONCE * SMS_SLICE  # none, where the carrier's reports found an API meanwhile
        await one.until(lambda: sealed(database_url), 30, "the scheduler to close every batch in the audit chain")
        await nothing_stale(one)


async def nothing_stale(night: Night) -> None:
    """An order recalled while the hub was dead is never played when its loudspeakers are back; the next one is."""
    night.stage.kill("hub")
    stale = await night.order([HAMLET])
    await night.approve(stale)
    await night.recall(stale)
    night.stage.start_role("hub")
    await night.stage.answering()
    await night.approve(fresh := await night.order([HAMLET]))
    assert night.devices([HAMLET])
    await heard(night, fresh, [HAMLET])
    assert not night.sounded(stale)


def sealed(url: str) -> bool:
    """Whether every settled batch has its digest in the audit chain."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT COUNT(*) FROM batch WHERE sealed = 0 AND settled_at IS NOT NULL").fetchone()
        return row is not None and row[0] == 0
