"""Loudspeakers from a terminal: their state, orders, alarms of villages; and which villages would hear nothing."""

from __future__ import annotations

import csv
import json as form
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import answer as page
from gateway.cli import owed
from gateway.cli.client import Gateway, Token, Url
from gateway.cli.frame import AsJson, print_json, print_table, tell, wrong_use

PANEL = "Loudspeakers, through the API"
CONDITIONS = ("working", "untested", "faulty", "offline", "none")
PAGE = 1000
BOM = "\ufeff"

Name = Annotated[str, typer.Argument(metavar="NAME", help="The loudspeaker's name, as list shows it.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Loudspeakers; or give --area.")]
Area = Annotated[str, typer.Option(metavar="CODE", help="All below this county, township or village.")]
Within = Annotated[int, typer.Option(metavar="MINUTES", min=1, help="Who is not there by then is left out.")]


def list_(
    area: Area = "",
    condition: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Only working, untested, faulty, offline; repeatable.")
    ] = None,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """List loudspeakers of your area and their state.

    Example: mingluo speaker list --area 411726 --condition offline
    """
    found = _all(Gateway(url, token), area, condition or [])
    if json:
        print_json({"speakers": found})
        return
    if not found:
        tell("no such loudspeaker")
        return
    columns = ("name", "village", "condition", "seen", "volume", "power", "faults", "firmware")
    rows = [
        [
            one.get("name"), _where(one), one.get("condition"), page.clock(one.get("seen_at")), one.get("volume"),
            _power(one), " ".join(one.get("faults") or ()), one.get("firmware"),
        ]
        for one in found
    ]  # fmt: skip
    print_table(columns, rows)


def _all(gateway: Gateway, area: str, conditions: list[str]) -> list[dict[str, Any]]:
    query: dict[str, Any] = {"area": area, "condition": conditions, "limit": str(PAGE)}
    query = {name: value for name, value in query.items() if value}
    found: list[dict[str, Any]] = []
    while True:
        answer = gateway.get("/v1/speakers", **query) or {}
        found += answer.get("speakers") or ()
        if not answer.get("next"):
            return found
        query["after"] = answer["next"]


def show(name: Name, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Show all that is known of one loudspeaker, and what it was ordered to do in the last month.

    Example: mingluo speaker show dl-411726204201-1
    """
    gateway = Gateway(url, token)
    found = (gateway.get("/v1/speakers", name=name) or {}).get("speakers") or []
    ordered = (gateway.get("/v1/speakers/orders", speaker=name, hours=str(31 * 24)) or {}).get("orders") or []
    if not found:
        wrong_use(f"no loudspeaker of your area is called {name}: mingluo speaker list")
    if json:
        print_json({**found[0], "orders": ordered})
        return
    for key, value in found[0].items():
        text = _where(found[0]) if key == "village" else " ".join(value) if isinstance(value, list) else value
        typer.echo(f"{key}: {page.clock(value) if key.endswith('_at') or key == 'since' else _said(text)}")
    if ordered:
        _orders(ordered)


def orders(
    area: Area = "",
    hours: Annotated[int, typer.Option(min=1, max=744, help="Of the last hours.")] = 24,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """List what loudspeakers were ordered to do, by whom, and what became of it.

    Example: mingluo speaker orders --hours 48
    """
    query = {"hours": str(hours), "limit": str(PAGE)} | ({"area": area} if area else {})
    found = Gateway(url, token).get("/v1/speakers/orders", **query) or {}
    if json:
        print_json(found)
    elif found.get("orders"):
        _orders(found["orders"])
    else:
        tell("nothing was ordered")


def _orders(found: list[dict[str, Any]]) -> None:
    rows = [
        [
            page.clock(one.get("at")), one.get("speaker"), one.get("kind"),
            form.dumps(one.get("values"), ensure_ascii=False), one.get("by"),
            f"{one.get('state')} {one.get('code') or ''}".strip(),
        ]
        for one in found
    ]  # fmt: skip
    print_table(("ordered", "name", "what", "values", "by", "state"), rows)


def volume(
    volume: Annotated[int, typer.Argument(metavar="VOLUME", min=0, max=100, help="By day, 0 to 100.")],
    names: Names = None,
    area: Area = "",
    night: Annotated[
        str, typer.Option(metavar="FROM-UNTIL=VOLUME", help="The night's, China time: 22:00-06:00=40.")
    ] = "",
    red: Annotated[int, typer.Option(min=0, max=100, help="No quieter than this for a red warning.")] = 100,
    within: Within = 1440,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Order a volume; it stays until the policy's own changes. Who is not there gets it once back.

    Example: mingluo speaker volume 60 dl-411726204201-1 --night 22:00-06:00=30
    """
    body: dict[str, Any] = {"volume": volume, "floor": {"red": red}}
    if night:
        hours, _, quiet = night.partition("=")
        start, _, until = hours.partition("-")
        if not (start and until and quiet.isdecimal()):
            wrong_use("--night: write it as 22:00-06:00=40")
        body["night"] = {"from": start, "until": until, "volume": int(quiet)}
    _order(Gateway(url, token), "volume", body, names, area, within, json=json)


def self_test(
    names: Names = None,
    area: Area = "",
    audible: Annotated[
        bool, typer.Option("--audible", help="With a short tone: by day only, under no orange or red.")
    ] = False,
    within: Within = 1440,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Order a self-test of amplifier and loudspeaker.

    Example: mingluo speaker self-test --area 411726204
    """
    _order(Gateway(url, token), "self-test", {"audible": audible}, names, area, within, json=json)


def config(
    values: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="A setting; repeatable.")],
    names: Names = None,
    area: Area = "",
    within: Within = 1440,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Order settings of the device's maker. Values are read as JSON where they are: true, 5, "text".

    Example: mingluo speaker config dl-411726204201-1 --set led=false
    """
    body: dict[str, Any] = {}
    for one in values:
        key, equals, text = one.partition("=")
        if not equals:
            wrong_use(f"--set {one}: write it as KEY=VALUE")
        body[key] = _value(text)
    _order(Gateway(url, token), "config", {"values": body}, names, area, within, json=json)


def clock(
    names: Names = None, area: Area = "", within: Within = 1440, url: Url = "", token: Token = "", json: AsJson = False
) -> None:
    """Order the clock to be set; one that is wrong by more than the policy allows is set by itself.

    Example: mingluo speaker clock dl-411726204201-1
    """
    _order(Gateway(url, token), "clock", {}, names, area, within, json=json)


def _value(text: str) -> object:
    try:
        found = form.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, bool | int) else text


def _order(
    gateway: Gateway, what: str, body: dict[str, Any], names: list[str] | None, area: str, within: int, *, json: bool
) -> None:
    if bool(names) == bool(area):
        wrong_use("say for which loudspeakers: names, or --area CODE")
    whom: dict[str, Any] = {"speakers": names} if names else {"area": area}
    found = gateway.post(f"/v1/speakers/{what}", {**body, **whom, "expires_min": within}) or {}
    if json:
        print_json(found)
        return
    typer.echo(f"{found.get('id')}: {what} ordered of {found.get('speakers')} loudspeakers")
    tell("What became of it: mingluo speaker orders")


def alarms(
    every: Annotated[bool, typer.Option("--all", help="Also those that were decided.")] = False,
    hours: Annotated[int, typer.Option(min=1, max=744, help="Of the last hours.")] = 24,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """List alarms that villages have sounded by themselves 村级报警.

    Example: mingluo speaker alarms
    """
    found = Gateway(url, token).get("/v1/speakers/alarms", hours=str(hours), undecided=str(not every).lower()) or {}
    if json:
        print_json(found)
        return
    if not found.get("alarms"):
        tell("no village alarm" + ("" if every else " waits"))
        return
    rows = [
        [
            one.get("id"), page.clock(one.get("at"), seconds=True), _where(one), one.get("speaker"),
            owed.standing(one),
        ]
        for one in found["alarms"]
    ]  # fmt: skip
    print_table(("id", "when", "village", "name", "answers / by"), rows)
    tell("Decide on one: mingluo speaker decide ID ANSWER --reason …")


def decide(
    alarm: Annotated[str, typer.Argument(metavar="ID", help="As alarms shows it.")],
    decision: Annotated[str, typer.Argument(metavar="ANSWER", help="issue, refer, noted, unfounded.")],
    reason: Annotated[str, typer.Option(help="What is done, or why nothing; no names, no numbers.")],
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Decide on a village alarm; it rings until somebody has.

    Example: mingluo speaker decide 2c9d4e6f21c87a5530fd issue --reason 山洪，已发布预警
    """
    owed.decide(Gateway(url, token), "village_alarm", alarm, decision, reason, json=json)


def devices(
    area: Area = "",
    untested: Annotated[bool, typer.Option("--untested", help="Also where none was heard for too long.")] = False,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the villages as CSV, - for standard output.")
    ] = None,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Say which villages have no working loudspeaker, by township: none, all offline, all faulty. To print as it is.

    Example: mingluo report devices --area 411726 --csv villages.csv
    """
    found = Gateway(url, token).get("/v1/speakers/villages", **({"area": area} if area else {})) or {}
    villages = [*(found.get("mute") or ()), *((found.get("untested") or ()) if untested else ())]
    if json:
        print_json(found)
    elif table is not None:
        _write(table, villages)
    else:
        _report(found, villages)


def _report(found: dict[str, Any], villages: list[dict[str, Any]]) -> None:
    counts = found.get("villages") or {}
    mute = sum(counts.get(one, 0) for one in ("none", "offline", "faulty"))
    typer.echo(f"{page.local(found.get('at'))}: {mute} of {sum(counts.values())} villages have no working loudspeaker")
    words = {
        "none": "none in service", "offline": f"all offline for more than {found.get('offline_min')} min",
        "faulty": "all faulty", "untested": f"none heard for more than {found.get('untested_days')} days",
        "working": "working",
    }  # fmt: skip
    print_table(("villages", ""), [[counts.get(one, 0), text] for one, text in words.items()])
    rows = [
        [(one.get("township") or {}).get("name"), *(one.get("villages", {}).get(word, 0) for word in words)]
        for one in found.get("townships") or ()
    ]
    print_table(("township", *words), rows)
    if villages:
        print_table(("code", "village", "why", "loudspeakers", "last heard of", "faults"), map(_line, villages))


def _line(one: dict[str, Any]) -> list[object]:
    return [
        (one.get("village") or {}).get("code"), _where(one), one.get("condition"), one.get("speakers"),
        page.clock(one.get("seen_at")), " ".join(one.get("faults") or ()),
    ]  # fmt: skip


def _write(table: Path, villages: list[dict[str, Any]]) -> None:
    """Write a CSV that offices open by a double click: with a BOM, and codes that stay text."""
    from gateway.directory.export import code, neutral

    with nullcontext(sys.stdout) if str(table) == "-" else table.open("w", encoding="utf-8", newline="") as out:
        out.write(BOM)
        writer = csv.writer(out)
        writer.writerow(("村代码", "村", "原因", "喇叭数", "最后联系", "故障"))
        for one in villages:
            first, *rest = _line(one)
            writer.writerow((code(str(first)), *(neutral("" if cell is None else str(cell)) for cell in rest)))


def _where(one: dict[str, Any]) -> str:
    return str((one.get("village") or {}).get("name") or "")


def _power(one: dict[str, Any]) -> str:
    battery = one.get("battery")
    return f"{one.get('power') or ''} {'' if battery is None else f'{battery} %'}".strip()


def _said(value: object) -> str:
    return "—" if value in (None, "") else str(value)


def add(app: typer.Typer) -> None:
    """Add the commands."""
    speaker = typer.Typer(help="Loudspeakers: state, orders, and alarms of villages.", no_args_is_help=True)
    speaker.command("list")(list_)
    speaker.command()(show)
    speaker.command()(orders)
    speaker.command()(volume)
    speaker.command("self-test")(self_test)
    speaker.command()(config)
    speaker.command()(clock)
    speaker.command()(alarms)
    speaker.command()(decide)
    app.add_typer(speaker, name="speaker", rich_help_panel=PANEL)
    report = typer.Typer(help="Reports to print.", no_args_is_help=True)
    report.command()(devices)
    app.add_typer(report, name="report", rich_help_panel=PANEL)
