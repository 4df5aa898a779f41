"""The national dialect and the platform from a terminal, against a gateway on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from api_support import CLERK, ISSUER, Desk, opened
from manual_clock import ManualClock
from test_cli import Run, run
from test_national_number import NUMBER, UNIT, issued, national
from typer.testing import Result

from gateway import cap
from gateway.cli.client import Gateway
from gateway.cli.national import submitting
from gateway.watch import Watch

__all__ = ["run"]  # a fixture

DATA = Path(__file__).parent / "data"
LIVE = DATA / "national" / "rainstorm_update.xml"


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


def url(desk: Desk) -> str:
    return str(desk.client.make_url("")).rstrip("/")


async def ask(run: Run, desk: Desk, *arguments: object) -> Result:
    """Run a command against the gateway, beside the loop that serves it."""
    return await asyncio.to_thread(run, *arguments, MINGLUO_URL=url(desk), MINGLUO_TOKEN=CLERK)


def test_every_form_is_translated_into_every_other(run: Run, tmp_path: Path) -> None:
    """A bureau's programmer tries both systems' messages without a gateway; what is lost stands beside it."""
    for form in ("cap", "json", "national"):
        result = run("cap", "convert", LIVE, "--to", form)
        assert result.exit_code == 0, result.output
        assert "not carried as it is: info[1]/senderName" in result.stderr
        written = tmp_path / form
        written.write_text(result.stdout, encoding="utf8")
        alert, _ = cap.parse(written.read_bytes())
        assert alert == cap.parse(LIVE.read_bytes())[0]
        again = run("cap", "convert", written, "--to", "national")
        assert (again.exit_code, again.stderr) == (0, "")


def test_what_has_no_form_in_the_dialect_ends_with_1(run: Run) -> None:
    """An evacuation order must not be passed on as a warning."""
    result = run("cap", "convert", DATA / "cap" / "evacuation_correction.xml", "--to", "national")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "document evacuation" in result.stderr


def test_the_dialect_is_checked_and_resolved_without_a_flag(run: Run) -> None:
    """Nobody has to know which dialect a file is in."""
    assert json.loads(run("cap", "check", LIVE).stdout)["valid"] is True
    assert "贾楼乡" in run("cap", "resolve", LIVE).stdout


async def test_a_number_is_written_down_from_a_terminal(run: Run, desk: Desk) -> None:
    """The clerk reads it from the platform's screen."""
    alert = await issued(desk)
    result = await ask(run, desk, "national", "number", alert, NUMBER)
    assert (result.exit_code, result.stdout.strip()) == (0, f"{alert}: {NUMBER} (matched)")
    assert (await ask(run, desk, "national", "number", alert, "1")).exit_code == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030"])
async def test_a_listing_is_reconciled_from_a_spreadsheet(run: Run, desk: Desk, tmp_path: Path, encoding: str) -> None:
    """What the platform exports is CSV, in whatever the office writes; a difference ends with 1."""
    alert = await issued(desk)
    now = desk.clock.now() + timedelta(hours=8)
    lines = [
        "number,sender,title,sent",
        f"{NUMBER},泌阳县气象局,泌阳县气象局发布暴雨红色预警[I级/特别严重],{now:%Y/%m/%d %H:%M:%S}",
        f"{UNIT}_20260720150000,泌阳县气象局,泌阳县气象局发布大风蓝色预警,{now:%Y-%m-%d %H:%M:%S}",
    ]
    listing = tmp_path / "listing.csv"
    listing.write_text("\r\n".join(lines), encoding=encoding)
    arguments = ("national", "reconcile", listing, "--day", f"{now:%Y-%m-%d}")
    result = await ask(run, desk, *arguments, "--json")
    found = json.loads(result.stdout)
    assert [one["id"] for one in found["matched"]] == [alert]
    assert [one["number"] for one in found["only_there"]] == [f"{UNIT}_20260720150000"]
    assert result.exit_code == 1
    listing.write_text("\n".join(lines[:2]), encoding=encoding)
    assert (await ask(run, desk, *arguments)).exit_code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [("number,sent\n1,", "entry 1: sent is missing"), ("number,sent\n1,gestern", "entry 1: sent"),
     ("[1]", "a list of objects"), ("[{", "not JSON")],
)  # fmt: skip
def test_a_listing_that_is_none_is_told_so(run: Run, tmp_path: Path, text: str, said: str) -> None:
    """One line that names the entry, and nothing is compared."""
    listing = tmp_path / "listing"
    listing.write_text(text)
    result = run("national", "reconcile", listing, "--day", "2026-07-20", MINGLUO_TOKEN="x")
    assert result.exit_code == 2
    assert said in result.stderr


async def test_a_file_of_the_dialect_in_a_watched_folder_warns_the_villages(
    desk: Desk, tmp_path: Path, clock: ManualClock
) -> None:
    """Export, folder, intake, plan: nobody retypes a warning at night."""
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "one.xml").write_bytes(national(desk, "Alert", "00"))
    (folder / "two.xml").write_bytes(b"<alert><senderCode/></alert>")
    with Watch(folder, submitting(Gateway(url(desk), ISSUER)), clock) as watch:
        await watch.round()
        clock.advance(1)
        assert await watch.round() == 2
    said = json.loads((folder / "done" / "one.xml.json").read_text())
    row = await desk.core.store.outbox.alert(said["alert"])
    assert row is not None
    assert (row.standing, row.national_number) == ("active", row.alert.identifier)
    refused = json.loads((folder / "refused" / "two.xml.json").read_text())
    assert refused["code"] == "invalid_alert"
    assert {error["code"] for error in refused["errors"]} == {"missing_required_element"}


async def test_a_watched_folder_waits_for_a_gateway_that_is_away(
    desk: Desk, tmp_path: Path, clock: ManualClock
) -> None:
    """Its restart at night loses no file."""
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "one.xml").write_bytes(national(desk, "Alert", "00"))
    with Watch(folder, submitting(Gateway("http://127.0.0.1:1", ISSUER)), clock) as watch:
        await watch.round()
        clock.advance(1)
        assert await watch.round() == 0
    assert (folder / "one.xml").exists()
