"""Loudspeakers from a terminal, against a gateway on loopback: what the duty room types, prints and tables."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api_support import ADMIN, CLERK, JIALOU, REGIONS, Desk, install, opened
from manual_clock import ManualClock
from test_cli import Run, run
from typer.testing import Result

from gateway.model import DeviceEvent, DeviceState

__all__ = ["run"]  # a fixture
VILLAGE = REGIONS.villages(JIALOU)[0].code


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        first, _ = await install(one, "dl-1", "dl-2")
        state = DeviceState("2.1.0", 70, "solar", 41, -3.2, ("=amplifier",))
        events = [DeviceEvent(first, "state", clock.now(), "", state), DeviceEvent(first, "alarm", clock.now(), "n1")]
        await one.core.receipts.commit("loudspeaker_ws", events)
        yield one


async def ask(run: Run, desk: Desk, *arguments: object, token: str = CLERK) -> Result:
    """Run a command against the gateway, beside the loop that serves it."""
    url = str(desk.client.make_url("")).rstrip("/")
    return await asyncio.to_thread(run, *arguments, MINGLUO_URL=url, MINGLUO_TOKEN=token)


async def test_speakers_are_listed_and_shown(run: Run, desk: Desk) -> None:
    """One line per loudspeaker with what is wrong with it; all of it on request."""
    listed = await ask(run, desk, "speaker", "list", "--area", JIALOU, "--condition", "faulty")
    assert "dl-1" in listed.stdout
    assert "dl-2" not in listed.stdout
    assert "solar 41 %" in listed.stdout
    shown = json.loads((await ask(run, desk, "speaker", "show", "dl-1", "--json")).stdout)
    assert (shown["firmware"], shown["clock_skew_s"], shown["orders"]) == ("2.1.0", -3.2, [])
    assert "clock_skew_s: -3.2" in (await ask(run, desk, "speaker", "show", "dl-1")).stdout
    nobody = await ask(run, desk, "speaker", "show", "dl-9")
    assert (nobody.exit_code, "mingluo speaker list" in nobody.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "token", "kind", "values"),
    [
        (
            ("volume", "60", "dl-1", "--night", "22:00-06:00=30", "--red", "95"), CLERK, "volume",
            {"volume": 60, "floor": {"red": 95}, "night": {"from": "22:00", "until": "06:00", "volume": 30}},
        ),
        (("self-test", "--area", JIALOU), CLERK, "self_test", {"audible": False}),
        (("self-test", "dl-1", "--audible"), CLERK, "self_test", {"audible": True}),
        (
            ("config", "dl-1", "--set", "led=false", "--set", "n=5", "--set", "log=debug"), ADMIN, "config",
            {"led": False, "n": 5, "log": "debug"},
        ),
        (("clock", "dl-1", "dl-2"), CLERK, "clock", {}),
    ],
)  # fmt: skip
async def test_what_is_typed_is_what_is_ordered(
    run: Run, desk: Desk, arguments: tuple[str, ...], token: str, kind: str, values: dict[str, object]
) -> None:
    """A volume that became another one on its way to the pole would be noticed in the storm."""
    result = await ask(run, desk, "speaker", *arguments, token=token)
    assert result.exit_code == 0, result.output
    found = json.loads((await ask(run, desk, "speaker", "orders", "--json")).stdout)["orders"]
    assert {(one["kind"], one["state"]) for one in found} == {(kind, "open")}
    assert found[0]["values"] == values
    assert "open" in (await ask(run, desk, "speaker", "orders")).stdout


@pytest.mark.parametrize(
    "arguments",
    [("clock",), ("clock", "dl-1", "--area", JIALOU), ("volume", "60", "dl-1", "--night", "22-6"),
     ("config", "dl-1", "--set", "led")],
)  # fmt: skip
async def test_an_order_that_is_not_clear_is_not_sent(run: Run, desk: Desk, arguments: tuple[str, ...]) -> None:
    """Whoever forgets the name must not order it of the whole county."""
    result = await ask(run, desk, "speaker", *arguments)
    assert result.exit_code == 2
    assert json.loads((await ask(run, desk, "speaker", "orders", "--json")).stdout) == {"orders": []}


async def test_a_village_alarm_is_seen_and_decided(run: Run, desk: Desk) -> None:
    """From the bell to the decision with two commands."""
    seen = json.loads((await ask(run, desk, "speaker", "alarms", "--json")).stdout)["alarms"]
    assert "dl-1" in (await ask(run, desk, "speaker", "alarms")).stdout
    decided = await ask(run, desk, "speaker", "decide", seen[0]["id"], "noted", "--reason", "村里已转移")
    assert decided.exit_code == 0, decided.output
    assert "no village alarm waits" in (await ask(run, desk, "speaker", "alarms")).stderr
    assert "noted" in (await ask(run, desk, "speaker", "alarms", "--all")).stdout


async def test_the_report_prints_and_opens_as_a_table(run: Run, desk: Desk, tmp_path: Path) -> None:
    """Before the storm somebody drives to these villages: on paper, and as the list the office works through."""
    printed = (await ask(run, desk, "report", "devices", "--area", JIALOU)).stdout
    number = len(REGIONS.villages(JIALOU))
    assert f"{number} of {number} villages have no working loudspeaker" in printed
    assert VILLAGE in printed
    table = tmp_path / "villages.csv"
    assert (await ask(run, desk, "report", "devices", "--area", JIALOU, "--csv", table)).exit_code == 0
    text = table.read_bytes().decode("utf-8")
    assert text.startswith("\ufeff村代码")
    rows = list(csv.reader(io.StringIO(text[1:])))
    assert len(rows) == number + 1
    mine = next(row for row in rows if row[0] == f"{VILLAGE}\t")
    assert (mine[2], mine[5]) == ("faulty", "'=amplifier"), "a fault must not become a formula"
    assert (await ask(run, desk, "report", "devices", "--area", JIALOU, "--csv", "-")).stdout.split() == text.split()
    found = json.loads((await ask(run, desk, "report", "devices", "--json")).stdout)
    assert found["villages"]["faulty"] == 1
