"""Sequences whose numbers all processes share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import blank
import pytest

from gateway.channel import Number
from gateway.database import Database
from gateway.store.numbering import Numbering


@pytest.fixture(params=["sqlite", "postgresql"])
async def databases(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Database]]:
    """One database, opened by as many processes as may share it."""
    sqlite = request.param == "sqlite"
    url = blank.sqlite(tmp_path) if sqlite else request.getfixturevalue("database_url")
    opened = [Database(url) for _ in range(1 if sqlite else 3)]
    for one in opened:
        await one.open()
    yield opened
    for one in opened:
        await one.close()


async def test_no_number_is_given_twice_whoever_asks(databases: list[Database]) -> None:
    """Two broadcasts under one number would be one to the platform: a township would not be warned."""
    asked = [Numbering(databases[at % len(databases)]).take("ebm-20260720") for at in range(60)]
    assert sorted(one.value for one in await asyncio.gather(*asked)) == list(range(60))
    assert await Numbering(databases[0]).take("ebm-20260721") == Number("ebm-20260721", 0)


async def test_what_has_a_key_keeps_its_number_and_its_day(databases: list[Database]) -> None:
    """After a crash, past midnight and in another process, a broadcast that is sent again is still the same one."""
    first = await Numbering(databases[0]).take("ebm-20260720", "a.1.0-0")
    assert await Numbering(databases[-1]).take("ebm-20260721", "a.1.0-0") == first
    many = [Numbering(one).take("ebm-20260720", "b.1.0-0") for one in databases for _ in range(5)]
    assert len(set(await asyncio.gather(*many))) == 1
