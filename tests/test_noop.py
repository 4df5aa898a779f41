"""The no-op channel: what benches and kill tests rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from links import Case, RecordingLink, sample_message, sample_slice

from channels.noop import Noop, NoopSettings
from gateway.model import State


@asynccontextmanager
async def contract_case() -> AsyncIterator[Case]:
    yield Case(NoopSettings(), ["a", "b", "c"])


async def test_every_position_is_delivered() -> None:
    """A bench counts these receipts as villages reached."""
    receipts = await Noop(NoopSettings()).send(sample_slice(["x"] * 1000), sample_message(), RecordingLink())
    assert [receipt.state for receipt in receipts] == [State.DELIVERED] * 1000


async def test_each_slice_leaves_exactly_one_line_that_outlives_the_channel(tmp_path: Path) -> None:
    """Kill tests count this log against the ledger: a lost or doubled line would hide a lost or doubled village."""
    log = tmp_path / "noop.jsonl"
    for attempt in (1, 2):
        channel = Noop(NoopSettings(log=log))
        await channel.send(sample_slice(["x"] * 3, first=7, attempt=attempt), sample_message(), RecordingLink())
        await channel.close()
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    assert [line["attempt"] for line in lines] == [1, 2]
    assert lines[0] == {
        "alert": "0f" * 10,
        "batch": f"{'0f' * 10}.1.0",
        "slice": 0,
        "attempt": 1,
        "positions": [7, 8, 9],
        "persons": [1007, 1008, 1009],
    }


async def test_the_log_holds_no_address(tmp_path: Path) -> None:
    """The log of a drill must not become a list of villagers' phone numbers."""
    log = tmp_path / "noop.jsonl"
    channel = Noop(NoopSettings(log=log))
    await channel.send(sample_slice(["10000000001"]), sample_message(), RecordingLink())
    await channel.close()
    assert "10000000001" not in log.read_text()
