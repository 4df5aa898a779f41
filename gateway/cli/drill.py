"""Drills (演练) and self-tests of loudspeakers, through the API of a running gateway."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from gateway.cli import answer as page
from gateway.cli.client import Gateway, Token, Url
from gateway.cli.frame import AsJson, print_json, print_table, tell

PANEL = "Drills, through the API"
BOM = "\ufeff"
COLUMNS = (
    "区划代码", "地点", "下发", "收到", "播出", "有效播出", "失败", "失败原因", "无回执", "责任人",
    "已应答", "首答秒", "末答秒",
)  # fmt: skip

SHOWN = (
    "kind", "areas", "groups", "starts_at", "ends_at", "notice_at", "notice", "rule", "planner", "approver",
    "announcement", "alert",
)  # fmt: skip

Id = Annotated[str, typer.Argument(metavar="ID", help="The drill's id, as drill list shows it.")]


def plan(
    area: Annotated[list[str], typer.Argument(metavar="AREA…", help="Codes: county 6, township 9, village 12 digits.")],
    at: Annotated[str, typer.Option(metavar="TIME", help="When it begins, with its zone: 2026-07-25T10:00:00+08:00.")],
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="broadcast, call_up, self_test (silent) or self_test_audible.")
    ] = "broadcast",
    lasts: Annotated[int, typer.Option(min=1, metavar="MINUTES", help="How long it runs at most.")] = 30,
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="officials or loudspeakers; repeatable. Default: the kind's."),
    ] = None,
    hazard: Annotated[str, typer.Option(metavar="CODE", help="The hazard that is simulated.")] = "11B03",
    level: Annotated[str, typer.Option(metavar="LEVEL", help="red, orange, yellow, blue or unknown.")] = "red",
    document: Annotated[str, typer.Option(metavar="WORD", help="warning, evacuation, response …")] = "warning",
    notice: Annotated[str, typer.Option(help="What people are told beforehand, beside when and where.")] = "",
    rule: Annotated[str, typer.Option(metavar="RULE", help="FREQ=MONTHLY;INTERVAL=1;UNTIL=20261231 (RFC 5545).")] = "",
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Plan a drill or a self-test. A signer approves it; people are told a day before; a real warning stops it.

    Example: mingluo drill plan 411726209 --at 2026-07-25T10:00:00+08:00 --notice 听到大喇叭请勿惊慌

    Example: mingluo drill plan 411726 --kind self_test --at TIME --rule 'FREQ=MONTHLY;UNTIL=20261231'
    """
    body: dict[str, object] = {
        "kind": kind, "areas": area, "starts_at": at, "lasts_min": lasts, "hazard": hazard, "level": level,
        "document": document, "notice": notice, "rule": rule,
    }  # fmt: skip
    if group:
        body["groups"] = group
    found = Gateway(url, token).post("/v1/drills", body) or {}
    _show(found, json)
    if not json:
        tell(f"A signer approves it: mingluo drill approve {found.get('id')}")


def approve(drill: Id, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Approve a drill, and those that repeat it. Nobody approves their own.

    Example: mingluo drill approve 3f6c0a9d21b47e5588aa
    """
    _show(Gateway(url, token).post(f"/v1/drills/{drill}/approve") or {}, json)


def cancel(
    drill: Id,
    reason: Annotated[str, typer.Option(help="Why; stands with the drill.")],
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Give up a drill, and those that would repeat it; one that runs stops at once.

    Example: mingluo drill cancel 3f6c0a9d21b47e5588aa --reason 汛情紧张
    """
    _show(Gateway(url, token).post(f"/v1/drills/{drill}/cancel", {"reason": reason}) or {}, json)


def list_(url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """List the drills of your area, the latest to begin first.

    Example: mingluo drill list
    """
    found = Gateway(url, token).get("/v1/drills") or {}
    if json:
        print_json(found)
        return
    rows = [
        [one.get("id"), page.local(one.get("starts_at")), one.get("kind"), " ".join(one.get("areas") or ()),
         _stage(one), one.get("planner"), one.get("approver")]
        for one in found.get("drills") or ()
    ]  # fmt: skip
    print_table(("id", "begins", "kind", "areas", "stage", "planned by", "approved by"), rows)


def show(drill: Id, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Show one drill: what, where, when, by whom, and where it stands.

    Example: mingluo drill show 3f6c0a9d21b47e5588aa
    """
    _show(Gateway(url, token).get(f"/v1/drills/{drill}") or {}, json)


def report(
    drill: Id,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="The ledger as CSV with a BOM, for the office's spreadsheet.")
    ] = False,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Print what came of a drill (演练台账), by village and township: loudspeakers and officials.

    Example: mingluo drill report 3f6c0a9d21b47e5588aa

    Example: mingluo drill report 3f6c0a9d21b47e5588aa --csv > 台账.csv
    """
    found = Gateway(url, token).get(f"/v1/drills/{drill}/report") or {}
    if json:
        print_json(found)
    elif as_csv:
        sys.stdout.write(BOM + _csv(found))
    else:
        begun = page.local(found.get("starts_at"))
        typer.echo(f"演练 {found.get('drill')}  {found.get('kind')}  {_stage(found)}  开始 {begun}")
        typer.echo(f"制定 {found.get('planner')}  批准 {found.get('approver')}")
        print_table(COLUMNS, _lines(found))


def _csv(found: dict[str, Any]) -> str:
    """Return the ledger as CSV; a cell that a spreadsheet would take for a formula is quoted as text."""
    from gateway.directory.export import neutral

    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    rows.writerows([neutral(str(cell)) for cell in line] for line in _lines(found))
    return text.getvalue()


def _lines(found: dict[str, Any]) -> Iterator[list[object]]:
    """Yield each township with its villages behind it, then the sum."""
    villages = found.get("villages") or []
    for township in found.get("townships") or ():
        yield _cells(township)
        yield from (_cells(one) for one in villages if str(one.get("code")).startswith(str(township.get("code"))))
    yield _cells(found.get("total") or {})


def _cells(line: dict[str, Any]) -> list[object]:
    codes = " ".join(f"{code}×{number}" for code, number in sorted((line.get("codes") or {}).items()))
    ahead = ("code", "name", "commanded", "received", "played", "plausible", "failed")
    times = ("" if line.get(at) is None else round(line[at]) for at in ("first_answer_s", "last_answer_s"))
    behind = ("silent", "officials", "answered")
    return [*(line.get(one, "") for one in ahead), codes, *(line.get(one, "") for one in behind), *times]


def _stage(one: dict[str, Any]) -> str:
    return f"{one.get('stage')}: {one['reason']}" if one.get("reason") else str(one.get("stage"))


def _show(found: dict[str, Any], json: bool) -> None:
    if json:
        print_json(found)
        return
    typer.echo(f"{found.get('id')}: {_stage(found)}")
    for name in SHOWN:
        value = found.get(name)
        if value:
            shown = page.local(value) if name.endswith("_at") else " ".join(value) if isinstance(value, list) else value
            typer.echo(f"  {name}: {shown}")


def add(app: typer.Typer) -> None:
    """Add the commands."""
    drill = typer.Typer(help="Drills 演练 and self-tests of loudspeakers.", no_args_is_help=True)
    drill.command()(plan)
    drill.command()(approve)
    drill.command("list")(list_)
    drill.command()(show)
    drill.command()(cancel)
    drill.command()(report)
    app.add_typer(drill, name="drill", rich_help_panel=PANEL)
