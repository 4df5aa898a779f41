"""The clock of the tests: what other tests say about deadlines rests on it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from manual_clock import START, ManualClock


async def test_a_sleeper_wakes_when_its_time_has_come_and_not_before(clock: ManualClock) -> None:
    """A review clock that ran out early would send what nobody approved."""
    woken: list[float] = []

    async def wait(wait_s: float) -> None:
        await clock.sleep(wait_s)
        woken.append(wait_s)

    tasks = [asyncio.create_task(wait(wait_s)) for wait_s in (20.0, 10.0, 30.0)]
    await clock.sleeping(3)
    clock.advance(9.999)
    await clock.sleep(0)
    assert woken == []
    clock.advance(10.001)
    await asyncio.gather(*tasks[:2])
    assert woken == [10.0, 20.0]
    clock.set(START.replace(year=2027))
    await tasks[2]
    assert clock.now().year == 2027


async def test_a_cancelled_sleeper_is_forgotten(clock: ManualClock) -> None:
    """Tests wait for the number of sleepers: a stopped loop must not count."""
    task = asyncio.create_task(clock.sleep(1))
    await clock.sleeping()
    task.cancel()
    await asyncio.wait([task])
    other = asyncio.create_task(clock.sleep(1))
    await clock.sleeping()
    clock.advance(1)
    await other
    assert task.cancelled()
    assert clock.now() == START + timedelta(seconds=1)
