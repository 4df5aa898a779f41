"""The contract of `State`, on every implementation, and what happens when Redis breaks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from servers import Redis

from gateway.app import ROLES, App
from gateway.errors import StateDown
from gateway.ports import State
from gateway.settings import Settings
from gateway.state import FallbackState, LocalState, RedisState, Valkey
from gateway.state.redis import ANSWER_S

SOON_S = 5.0
HANGS_S = 30.0  # what takes longer waits for what is frozen


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with Valkey() as running:
        yield running


@pytest.fixture(params=["local", "redis", "valkey", "fallback"])
async def state(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[State]:
    match request.param:
        case "local":
            made: State = LocalState()
        case "redis":
            made = RedisState(request.getfixturevalue("redis_url"), namespace)
        case "valkey":
            made = RedisState(request.getfixturevalue("valkey").url, namespace)
        case _:
            made = FallbackState(RedisState(request.getfixturevalue("redis_url"), namespace))
    yield made
    await made.close()


@asynccontextmanager
async def listening(state: State, topic: str) -> AsyncIterator[AsyncIterator[str]]:
    """A listener of which the first "" has been heard."""
    wakes = cast(AsyncGenerator[str], state.wakes(topic))
    async with asyncio.timeout(SOON_S):
        assert await anext(wakes) == ""
    try:
        yield wakes
    finally:
        await wakes.aclose()


async def heard(wakes: AsyncIterator[str], payload: str) -> list[str]:
    """Wait for a payload; return what came before it, the repeated hints to read again aside."""
    before: list[str] = []
    async with asyncio.timeout(SOON_S):
        async for each in wakes:
            if each == payload:
                return before
            before += [each] if each else []
    raise AssertionError(f"the wakes ended before {payload}")


async def test_a_full_bucket_grants_its_burst_then_says_how_long_to_wait(state: State) -> None:
    """An account's rate is a contract with the carrier: exceed it and the account is cut, mid-warning."""
    assert await state.take("b", 10, 1.0, 10, 0) == 0.0
    wait_s = await state.take("b", 5, 1.0, 10, 0)
    assert 4.0 < wait_s <= 5.0


async def test_a_refused_take_costs_nothing(state: State) -> None:
    """Asking early must not push the turn of others back."""
    await state.take("b", 8, 0.01, 10, 0)
    assert await state.take("b", 5, 0.01, 10, 0) > 0
    assert await state.take("b", 2, 0.01, 10, 0) == 0.0


async def test_the_reserve_is_left_for_green(state: State) -> None:
    """Residents' texts may never use the tokens officials and loudspeakers need (rule 5)."""
    assert await state.take("b", 7, 0.01, 10, 3) == 0.0
    assert await state.take("b", 1, 0.01, 10, 3) > 0
    assert await state.take("b", 3, 0.01, 10, 0) == 0.0


@pytest.mark.parametrize(("units", "reserve"), [(50, 0), (8, 5)])
async def test_more_units_than_ever_fit_pass_once_the_bucket_is_full(state: State, units: int, reserve: int) -> None:
    """A slice larger than the burst must not wait for ever; the debt holds later ones back instead."""
    assert await state.take("b", units, 0.01, 10, reserve) == 0.0
    wait_s = await state.take("b", 10, 0.01, 10, 0)
    assert wait_s == pytest.approx(units / 0.01, rel=0.01)


async def test_tokens_come_back_with_time(state: State) -> None:
    """After the wait it named, a bucket grants."""
    assert await state.take("b", 10, 200.0, 10, 0) == 0.0
    async with asyncio.timeout(SOON_S):
        while (wait_s := await state.take("b", 10, 200.0, 10, 0)) > 0:
            assert wait_s <= 0.05
            await asyncio.sleep(wait_s)


async def test_buckets_are_apart(state: State) -> None:
    """One account's traffic leaves another's untouched."""
    await state.take("a", 10, 0.01, 10, 0)
    assert await state.take("b", 10, 0.01, 10, 0) == 0.0


async def test_takers_at_once_never_get_more_than_the_burst(state: State) -> None:
    """Forty senders ask in the same moment; the carrier sees its limit kept."""
    waits = await asyncio.gather(*(state.take("b", 1, 0.01, 10, 0) for _ in range(40)))
    assert waits.count(0.0) == 10


async def test_a_wake_reaches_every_listener_of_its_topic_only(state: State) -> None:
    """A stop must reach all hubs within milliseconds, not only one of them."""
    async with listening(state, "stops") as one, listening(state, "stops") as two, listening(state, "other") as other:
        await state.wake("stops", "4117")
        assert await heard(one, "4117") == await heard(two, "4117") == []
        await state.wake("other", "mine")
        assert await heard(other, "mine") == []


async def test_wakes_end_with_their_task(state: State) -> None:
    """Shutting down must not hang on a listener."""

    async def listen() -> None:
        async for _ in state.wakes("stops"):
            listens.set()

    listens = asyncio.Event()
    task = asyncio.create_task(listen())
    async with asyncio.timeout(SOON_S):
        await listens.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_processes_share_one_bucket(redis_url: str, namespace: str) -> None:
    """Two workers on one carrier account keep its limit together."""
    one, two = RedisState(redis_url, namespace), RedisState(redis_url, namespace)
    assert await one.take("b", 10, 0.01, 10, 0) == 0.0
    assert await two.take("b", 1, 0.01, 10, 0) > 0
    await one.close()
    await two.close()


async def test_a_server_whose_clock_was_set_back_lets_an_account_go_on(valkey: Valkey, namespace: str) -> None:
    """A bucket written in what is now the future must not be shut until that moment comes again."""
    state = RedisState(valkey.url, namespace)
    await state.take("b", 10, 100.0, 10, 0)
    await state._redis.hset(f"{namespace}:b", "at", "9999999999.0")
    await state._redis.persist(f"{namespace}:b")
    wait_s = await state.take("b", 5, 100.0, 10, 0)
    await asyncio.sleep(wait_s)
    assert 0 < wait_s <= 1
    assert await state.take("b", 5, 100.0, 10, 0) == 0
    await state.close()


async def test_a_local_share_scales_rate_burst_and_reserve() -> None:
    """Processes that cannot see each other must not add up to more than the account allows."""
    moment = 0.0
    state = LocalState(share=0.25, now=lambda: moment)
    assert await state.take("b", 10, 4.0, 40, 0) == 0.0
    assert await state.take("b", 1, 4.0, 40, 0) == pytest.approx(1.0)
    moment = 1.0
    assert await state.take("b", 1, 4.0, 40, 0) == 0.0


async def test_full_buckets_are_forgotten() -> None:
    """Buckets named after callers must not fill the memory."""
    moment = 0.0
    state = LocalState(now=lambda: moment)
    for number in range(10_000):
        moment += 1.0
        await state.take(f"caller:{number}", 1, 1.0, 10, 0)
    assert len(state._buckets) <= 4096


async def test_without_redis_take_says_state_down_while_it_is_frozen(namespace: str) -> None:
    """A frozen Redis may cost a warning a quarter of a second, never five (`mingluo bench frozen` has the figure)."""
    assert ANSWER_S <= 0.25
    with Redis() as server:
        state = RedisState(server.url, namespace)
        await state.take("b", 1, 1.0, 10, 0)
        server.freeze()
        async with asyncio.timeout(HANGS_S):
            with pytest.raises(StateDown):
                await state.take("b", 1, 1.0, 10, 0)
            await state.wake("stops")  # never raises
        await state.close()


async def test_with_redis_killed_local_rates_and_wakes_go_on_and_redis_is_taken_up_again(namespace: str) -> None:
    """Losing Redis must cost no delivery (degradation ladder), and its return needs no restart."""
    with Redis() as server:
        state = FallbackState(RedisState(server.url, namespace), LocalState(share=0.5))
        async with listening(state, "stops") as wakes:
            await state.take("b", 1, 1.0, 10, 0)
            server.kill()
            assert await state.take("b", 5, 0.01, 10, 0) == 0.0
            assert await state.take("b", 1, 0.01, 10, 0) > 0  # half of the burst is all a lone process may use
            assert state.down
            await state.wake("stops", "inside")
            await heard(wakes, "inside")
            server.start()
            async with asyncio.timeout(SOON_S):
                await state.recovered()
            await heard(wakes, "")  # the listener is back on Redis and reads what it may have missed
            other = RedisState(server.url, namespace)
            await other.wake("stops", "outside")
            await heard(wakes, "outside")
            await other.close()
        await state.close()


class Counting(RedisState):
    """Counts how often Redis was asked."""

    asked = 0

    async def take(self, bucket: str, units: int, rate_per_s: float, burst: int, reserve: int) -> float:
        self.asked += 1
        return await super().take(bucket, units, rate_per_s, burst, reserve)

    async def publish(self, topic: str, payload: str) -> None:
        self.asked += 1
        await super().publish(topic, payload)


async def test_with_redis_frozen_only_the_first_call_asks_it(namespace: str) -> None:
    """A hundred slices must not each pay the timeout."""
    with Redis() as server:
        redis = Counting(server.url, namespace)
        state = FallbackState(redis)
        await state.take("b", 1, 1.0, 10, 0)
        server.freeze()
        asked = redis.asked
        async with asyncio.timeout(HANGS_S):
            for _ in range(100):
                await state.take("b", 1, 1.0, 1000, 0)
                await state.wake("stops")
        assert redis.asked == asked + 1
        server.thaw()
        async with asyncio.timeout(SOON_S):
            await state.recovered()
        await state.close()


def test_valkey_stops_and_leaves_nothing_behind() -> None:
    """An embedded gateway that is stopped leaves no server and no socket."""
    valkey = Valkey()
    valkey.start()
    path = valkey.socket
    assert path.exists()
    valkey.stop()
    valkey.stop()
    assert not path.parent.exists()
    with pytest.raises(RuntimeError, match="not started"):
        _ = valkey.url


def test_valkey_refuses_to_start_from_another_thread() -> None:
    """The child would die with that thread, in the middle of a warning."""
    refused: list[str] = []

    def start() -> None:
        try:
            Valkey().start()
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert refused == ["start Valkey from the main thread"]


def test_valkey_dies_with_a_killed_gateway() -> None:
    """After `kill -9` the next start must not meet the orphan of the last."""
    program = "from gateway.state import Valkey\nv = Valkey()\nv.start()\nprint(v.socket, flush=True)\ninput()\n"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        path = Path(parent.stdout.readline().strip())
        assert path.exists()
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + SOON_S
    while path.exists() and time.monotonic() < deadline:  # a Valkey that is told to end removes its socket
        os.sched_yield()
    assert not path.exists()
    path.parent.rmdir()


async def test_without_redis_one_of_several_processes_keeps_to_a_share_and_one_alone_to_the_rate(
    tmp_path: Path,
) -> None:
    """The carrier must not be asked for more than it allows by processes that cannot see each other (DESIGN 6)."""
    gone = "redis://127.0.0.1:1/0"
    urls: dict[str, Any] = {"amqp_url": "amqp://127.0.0.1:1/", "database_url": "postgresql://127.0.0.1:1/x"}
    for settings, whole in ((Settings(data=tmp_path, redis_url=gone), True), (Settings(redis_url=gone, **urls), False)):
        state = await App(settings, ROLES if whole else ["worker"])._state()
        assert await state.take("rate:noop", 25, 0.001, 100, 0) == 0.0
        assert (await state.take("rate:noop", 25, 0.001, 100, 0) == 0.0) is whole
        await state.close()
