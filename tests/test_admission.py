"""The return of a whole city's loudspeakers after a power cut: let in at a rate, looked up together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import blank
import pytest
from aiohttp import ClientSession
from test_loudspeaker_ws import connected, key_of, serving

from channels._admission import IN_FLIGHT, Admission
from gateway.database import Database
from gateway.directory.lookup import Lookup
from gateway.errors import StoreDown
from gateway.transaction import Tx


def test_a_fleet_that_comes_at_once_is_let_in_at_the_rate() -> None:
    """Six thousand at once must not keep the process from the warning that goes out meanwhile."""
    door = Admission(600.0)
    answers = [door.ask(100.0) for _ in range(6_000)]
    assert answers.count(0) == 300, "half a second's worth at once"
    later = Counter(answer for answer in answers if answer)
    assert max(later) == 10
    assert max(later.values()) <= 601, "nobody is sent away to come again with everybody else"


def test_those_who_come_again_as_they_were_told_are_let_in() -> None:
    """The whole fleet is back within the time its rate allows, and a few are turned away twice at most."""
    door = Admission(600.0)
    coming: dict[int, int] = {0: 6_000}
    inside, second = 0, 0
    while coming:
        for place in range(number := coming.pop(second, 0)):  # spread over a second, as their own jitter does
            wait_s = door.ask(1000.0 + second + place / number)
            inside += not wait_s
            if wait_s:
                coming[second + wait_s] = coming.get(second + wait_s, 0) + 1
        second += 1
    assert inside == 6_000
    assert second <= 12


def test_nobody_gathers_before_a_database_that_does_not_answer() -> None:
    """What waits costs memory, and all of it would come in at once when the database is back."""
    door = Admission(1e9)
    for _ in range(IN_FLIGHT):
        assert door.ask(1.0) == 0
        door.__enter__()
    assert door.ask(1.0) == 1
    door.__exit__(None, None, None)
    assert door.ask(1.0) == 0


async def test_a_device_too_many_is_told_when_to_come_again() -> None:
    """503 with a time, before its key is looked at: a stranger learns nothing, and the directory is not asked."""
    async with serving("horn-1", connects_per_s=0.001) as village, connected(village, "horn-1"):
        village.directory_down = True
        async with ClientSession() as session:
            headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Authorization": f"Bearer {key_of('horn-1')}"}
            async with session.get(f"{village.url}/v1/devices/horn-1/ws", headers=headers) as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (503, "1000")


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    found = Database(url)
    await found.open()
    rows = [{"id": one, "name": f"horn-{one}"} for one in range(1200)]
    text = (
        "INSERT INTO device (id, name, village, township, county, key_hash, standing)"
        " VALUES (:id, :name, '411726204201', '411726204', '411726', 'hash', 'service')"
    )
    await found.write(lambda tx: tx.many(text, rows))
    yield found
    await found.close()


async def test_all_who_connect_at_once_share_a_few_queries(database: Database) -> None:
    """A query for each of them would keep the database from everything else for seconds."""
    asked = 0
    look = database.look

    async def counted(operation: Callable[[Tx], Any], patience_s: float = 10.0) -> Any:
        nonlocal asked
        asked += 1
        return await look(operation, patience_s)

    database.look = counted  # type: ignore[method-assign]  # counts, and passes on
    lookup = Lookup(database)
    found = await asyncio.gather(*(lookup.find(f"horn-{one}") for one in range(1201)))
    assert [one.id if one else None for one in found] == [*range(1200), None]
    assert asked <= 4


async def test_whoever_stops_waiting_takes_no_answer_from_the_others(database: Database) -> None:
    """A device that hangs up amid the look-up must not turn away its neighbour who asked with it."""
    lookup = Lookup(database)
    impatient, patient = asyncio.create_task(lookup.find("horn-1")), asyncio.create_task(lookup.find("horn-1"))
    await asyncio.sleep(0)
    impatient.cancel()
    found = await patient
    assert found is not None
    assert found.id == 1


async def test_a_look_up_that_fails_fails_for_those_who_asked_and_for_nobody_later(database: Database) -> None:
    """The database was away for a moment; the fleet comes in afterwards."""
    look, lookup = database.look, Lookup(database)

    async def down(*_: object) -> Any:
        raise StoreDown("no answer in time")

    database.look = down  # type: ignore[method-assign,assignment]  # as while it is away
    with pytest.raises(StoreDown):
        await lookup.find("horn-1")
    database.look = look  # type: ignore[method-assign]
    assert await lookup.find("horn-1") is not None
