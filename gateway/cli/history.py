"""One person's history, from a terminal: "why did I get this, and what was I told?"."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from gateway.cli import answer as page
from gateway.cli.client import Gateway, Token, Url
from gateway.cli.frame import AsJson, print_json, print_table, tell, wrong_use

LONGEST = 40  # of a typed number


def history(
    person: Annotated[
        str, typer.Option(metavar="ID", help="By opaque id instead of by number, as deliveries show it.")
    ] = "",
    since: Annotated[str, typer.Option(metavar="TIME", help="From then on: 2026-07-20T14:30 (China).")] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Before then.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Messages at most, the newest.")] = 200,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Tell what one person was told, by which channel and why, and what came back. That you asked is audited.

    The number is asked for, or read from standard input: as an argument every user of the machine would see it.

    Example: mingluo history --since 2026-07-20
    """
    gateway = Gateway(url, token)
    whose = {"person": person} if person else {"phone": _number()}
    given = {"since": since, "until": until}
    form = whose | {name: text for name, text in given.items() if text} | {"limit": limit}
    found = gateway.post("/v1/people/history", form)
    if json:
        print_json(found)
        return
    for one in (found or {}).get("people") or ():
        _show(one)


def _number() -> str:
    """Ask for the number at a terminal, or read one line."""
    text = typer.prompt("number", err=True) if sys.stdin.isatty() else sys.stdin.readline(LONGEST + 1)
    number = str(text).strip()
    if not number:
        wrong_use("no number: type it when asked, or pipe it in; --person takes an id")
    if len(number) > LONGEST:
        wrong_use("that is no number: more than 40 characters")
    return number


def _show(one: dict[str, Any]) -> None:
    typer.echo(f"person {one.get('person')}")
    told = one.get("told") or []
    print_table(
        ("alert", "what", "channel", "as", "place", "state", "code", "when"),
        [
            [
                line.get("alert"), page.about(line), line.get("channel"), line.get("group"),
                line.get("village") or line.get("township"), line.get("state"), line.get("code"),
                page.clock(line.get("at") or line.get("frozen_at")),
            ]
            for line in told
        ],
    )  # fmt: skip
    for line in one.get("confirmations") or ():
        typer.echo(f"confirmed {line.get('alert')}  {line.get('how')}  {page.clock(line.get('at'))}")
    for line in one.get("replies") or ():
        typer.echo(f"replied by {line.get('channel')}: {line.get('outcome')}  {page.clock(line.get('at'))}")
    if earlier := one.get("earlier"):
        tell(f"There is more: --until {earlier}")


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Duty room, through the API")(history)
