"""Replies that wait for a clerk, and incidents (险情), from a terminal."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gateway.cli import answer as page
from gateway.cli import owed
from gateway.cli.client import Gateway, Token, Url
from gateway.cli.frame import AsJson, print_json, print_table, tell

PANEL = "Duty room, through the API"

Id = Annotated[str, typer.Argument(metavar="ID", help="As list shows it.")]


def replies(url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """List replies that wait for a clerk: not plain, from an unknown number, or from a shared one. It is audited.

    Example: mingluo reply list
    """
    found = Gateway(url, token).get("/v1/replies") or {}
    if json:
        print_json(found)
        return
    waiting = found.get("replies") or []
    if not waiting:
        tell("no reply waits")
        return
    rows = [
        [
            one.get("id"), page.clock(one.get("at")), one.get("why"), one.get("meaning"), one.get("number"),
            one.get("text"), " ".join(one.get("people") or ()), _where(one),
        ]
        for one in waiting
    ]  # fmt: skip
    print_table(("id", "when", "why", "read as", "number", "text", "people", "place"), rows)
    tell("Settle one: mingluo reply settle ID heard --person PERSON")


def settle(
    reply: Id,
    meaning: Annotated[str, typer.Argument(metavar="MEANING", help="heard, away, support, or other: nothing follows.")],
    person: Annotated[list[str] | None, typer.Option(metavar="ID", help="Who meant it; may be repeated.")] = None,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Say what a reply means and who wrote it; confirmations get the time of the reply.

    Example: mingluo reply settle 3f6c0a9d21b47e5588aa heard --person 77120931
    """
    found = Gateway(url, token).post(f"/v1/replies/{reply}", {"meaning": meaning, "people": person or []})
    print_json(found) if json else typer.echo(f"{reply}: {meaning}")


def incidents(
    every: Annotated[bool, typer.Option("--all", help="Also those that were decided.")] = False,
    hours: Annotated[int, typer.Option(min=1, max=744, help="Of the last hours.")] = 24,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """List incidents 险情: who at a post needs support or reports danger. It is audited.

    Example: mingluo incident list
    """
    found = Gateway(url, token).get("/v1/incidents", hours=str(hours), undecided=str(not every).lower()) or {}
    if json:
        print_json(found)
        return
    reported = found.get("incidents") or []
    if not reported:
        tell("no incident waits" if not every else "no incidents")
        return
    rows = [
        [
            one.get("id"), page.clock(one.get("at")), _where(one), one.get("text"), one.get("number"),
            owed.standing(one),
        ]
        for one in reported
    ]  # fmt: skip
    print_table(("id", "when", "place", "report", "number", "answers / by"), rows)
    tell("Decide on one: mingluo incident decide ID ANSWER --reason …")


def decide(
    incident: Id,
    decision: Annotated[str, typer.Argument(metavar="ANSWER", help="issue, village_alarm, refer, unfounded.")],
    reason: Annotated[str, typer.Option(help="What is done, or why nothing; no names, no numbers.")],
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Decide on an incident; it rings until somebody has.

    Example: mingluo incident decide 3f6c0a9d21b47e5588aa village_alarm --reason 村级预警已启动
    """
    owed.decide(Gateway(url, token), "incident", incident, decision, reason, json=json)


def _where(one: dict[str, Any]) -> str:
    return " ".join(str(place.get("name")) for place in one.get("places") or ())


def add(app: typer.Typer) -> None:
    """Add the commands."""
    reply = typer.Typer(help="Replies that wait for a clerk.", no_args_is_help=True)
    reply.command("list")(replies)
    reply.command()(settle)
    app.add_typer(reply, name="reply", rich_help_panel=PANEL)
    incident = typer.Typer(help="Incidents 险情 that officials report.", no_args_is_help=True)
    incident.command("list")(incidents)
    incident.command()(decide)
    app.add_typer(incident, name="incident", rich_help_panel=PANEL)
