"""Connections of a carrier account: never more than it allows, whatever the number of processes and however they end.

A carrier that counts one login too many refuses them all, and a county is without text messages.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import blank
import pytest
from test_store import HandClock

from gateway.app import SystemClock
from gateway.database import Database
from gateway.store import Store
from gateway.store.lease import LAPSE_S, SlotLease

ACCOUNT = "sms_cmpp/yidong-1"
HOLDER = """
import asyncio, sys
from gateway.app import SystemClock
from gateway.app import SystemClock
from gateway.database import Database
from gateway.store import Store

async def hold() -> None:
    database = Database(sys.argv[1])
    await database.open()
    lease = await Store(database, SystemClock()).leases.take(sys.argv[2], 1)
    print(lease and lease.slot, flush=True)
    await asyncio.Event().wait()

asyncio.run(hold())
"""


@pytest.fixture
def hand() -> HandClock:
    return HandClock()


@pytest.fixture(params=["sqlite", "postgresql"])
async def processes(request: pytest.FixtureRequest, tmp_path: Path, hand: HandClock) -> AsyncIterator[list[Store]]:
    """Return stores of three processes on one database; on SQLite, which has one process, three parts of it."""
    postgresql = request.param == "postgresql"
    url = request.getfixturevalue("database_url") if postgresql else blank.sqlite(tmp_path)
    async with AsyncExitStack() as stack:
        databases = [Database(url) for _ in range(3 if postgresql else 1)]
        for database in databases:
            await database.open()
            stack.push_async_callback(database.close)
        yield [Store(databases[number % len(databases)], hand) for number in range(3)]


async def test_of_all_who_ask_at_once_as_many_get_a_slot_as_the_account_has(processes: list[Store]) -> None:
    """Three hubs start in the same second on an account with two connections."""
    leases = await asyncio.gather(*(one.leases.take(ACCOUNT, 2) for one in processes for _ in range(4)))
    assert sorted(lease.slot for lease in leases if lease is not None) == [0, 1]
    other = await processes[0].leases.take("sms_cmpp/yidong-2", 2)
    assert other is not None
    assert other.slot == 0


async def test_a_released_slot_is_anothers_at_once(processes: list[Store]) -> None:
    """An orderly restart leaves no county without its connection for the length of a lease."""
    first, second, _ = processes
    lease = await first.leases.take(ACCOUNT, 1)
    assert lease is not None
    assert await second.leases.take(ACCOUNT, 1) is None
    await lease.release()
    successor = await second.leases.take(ACCOUNT, 1)
    assert successor is not None
    await lease.release()  # by then it is none of ours
    assert await first.leases.take(ACCOUNT, 1) is None
    assert not successor.lost.is_set()


async def test_a_renewed_lease_is_kept_and_one_of_a_dead_process_lapses(
    processes: list[Store], hand: HandClock
) -> None:
    """A hub that was killed leaves its connection to another within seconds; one that lives never does."""
    first, second, third = processes
    kept, dead = await first.leases.take(ACCOUNT, 2), await second.leases.take(ACCOUNT, 2)
    assert kept is not None
    assert dead is not None
    for _ in range(5):
        hand.advance(LAPSE_S / 3)
        await first.leases.renew()
    taken = await third.leases.take(ACCOUNT, 2)
    assert taken is not None
    assert taken.slot == dead.slot
    assert await third.leases.take(ACCOUNT, 2) is None
    assert not kept.lost.is_set()


async def test_a_holder_that_comes_back_hears_of_its_successor(processes: list[Store], hand: HandClock) -> None:
    """A process that was frozen for a minute must close a connection that another has opened meanwhile."""
    first, second, _ = processes
    lease = await first.leases.take(ACCOUNT, 1)
    assert lease is not None
    hand.advance(LAPSE_S)
    successor = await second.leases.take(ACCOUNT, 1)
    await first.leases.renew()
    assert lease.lost.is_set()
    await second.leases.renew()
    assert successor is not None
    assert not successor.lost.is_set()
    await lease.release()
    assert await first.leases.take(ACCOUNT, 1) is None, "a lost lease releases nothing"


async def test_a_lapsed_lease_nobody_took_is_held_on(processes: list[Store], hand: HandClock) -> None:
    """An hour without the store is no reason to hang up on the carrier; nobody could have taken the slot."""
    first, second, _ = processes
    lease = await first.leases.take(ACCOUNT, 1)
    hand.advance(3600)
    await first.leases.renew()
    assert lease is not None
    assert not lease.lost.is_set()
    assert await second.leases.take(ACCOUNT, 1) is None


async def test_while_the_store_is_away_a_lease_stays_and_none_is_given(tmp_path: Path, hand: HandClock) -> None:
    """A database fail-over must not cut the carriers off, and must not let two processes count for themselves."""
    database = Database(blank.sqlite(tmp_path))
    await database.open()
    leases = Store(database, hand).leases
    lease = await leases.take(ACCOUNT, 2)
    assert isinstance(lease, SlotLease)
    await database.close()
    assert await leases.take(ACCOUNT, 2) is None
    await lease.release()  # raises nothing: it lapses
    assert not lease.lost.is_set()


async def test_an_embedded_gateway_that_starts_again_waits_for_nobody(tmp_path: Path, hand: HandClock) -> None:
    """After a power cut the village's only process needs its connection now, not when its own old lease lapses."""
    url = blank.sqlite(tmp_path)
    for _ in range(2):
        database = Database(url)
        await database.open()
        leases = Store(database, hand).leases
        await leases.begin_alone()
        assert await leases.take(ACCOUNT, 1) is not None
        await database.close()


async def test_what_a_killed_process_held_is_anothers_when_it_has_lapsed(database_url: str, hand: HandClock) -> None:
    """A kill -9 at any moment: the account is neither lost for ever nor used twice."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, database_url, ACCOUNT, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"0\n"
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    database = Database(database_url)
    await database.open()
    leases = Store(database, hand).leases
    hand.time = SystemClock().now()
    assert await leases.take(ACCOUNT, 1) is None
    hand.advance(LAPSE_S)
    assert await leases.take(ACCOUNT, 1) is not None
    await database.close()
