"""The duty room, from a terminal: what is owed, the emergency regime, sealed codes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import answer as page
from gateway.cli.client import Gateway, Token, Url, message
from gateway.cli.decision import At, Name, Number, Post, Recording, Witness, telephone
from gateway.cli.frame import AsJson, print_json, print_table, tell, wrong_use

CODE = "MINGLUO_BREAK_GLASS"
PANEL = "Duty room, through the API"

Regime = Annotated[str, typer.Argument(metavar="ID", help="The regime's id, as emergency list shows it.")]


def duty(
    every: Annotated[bool, typer.Option("--all", help="Also those that were answered.")] = False,
    hours: Annotated[int, typer.Option(min=1, help="With --all: opened in the last hours.")] = 24,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """List what the duty room owes: reviews, countersigns, call lists, deputies, incidents. Overdue ones ring.

    Example: mingluo duty
    """
    query = {"hours": str(hours), "unanswered": str(not every).lower()}
    found = Gateway(url, token).get("/v1/obligations", **query) or {}
    if json:
        print_json(found)
        return
    owed = found.get("obligations") or []
    if not owed:
        tell("nothing is owed")
        return
    rows = [
        [
            one.get("alert"), page.about(_message(one)), one.get("kind"),
            page.clock(one.get("due")) + (" OVERDUE" if one.get("overdue") else ""),
            f"{one['answer']}: {one.get('by')}" if one.get("answer") else " | ".join(one.get("answers") or ()),
        ]
        for one in owed
    ]  # fmt: skip
    print_table(("alert", "what", "kind", "due", "answers / by"), rows)
    tell("Answer one: mingluo answer ID KIND ANSWER")


def _message(one: dict[str, Any]) -> dict[str, Any]:
    """Return what an obligation says of its message; its own `kind` is another."""
    return {name: one.get(name) for name in ("event", "level")}


def answer(
    alert: Annotated[str, typer.Argument(metavar="ID", help="The alert or regime it belongs to.")],
    kind: Annotated[str, typer.Argument(metavar="KIND", help="As duty lists it: review, calls, deputy …")],
    text: Annotated[str, typer.Argument(metavar="ANSWER", help="One of the answers that duty lists.")],
    remark: Annotated[str, typer.Option(help="A remark, kept with the answer; no names, no numbers.")] = "",
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Answer what the duty room owes.

    Example: mingluo answer 3f6c0a9d21b47e5588aa review endorsed
    """
    found = Gateway(url, token).post(f"/v1/obligations/{alert}/{kind}", {"answer": text, "remark": remark})
    print_json(found) if json else typer.echo(f"{kind}: {text}")


def start(
    area: Annotated[str, typer.Argument(metavar="AREA", help="6-digit county, or the city's 4 digits.")],
    reason: Annotated[str, typer.Option(help="Why; stands with the regime.")],
    name: Name = "",
    post: Post = "",
    number: Number = "",
    at: At = "",
    recording: Recording = "",
    witness: Witness = "",
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Start the emergency regime (紧急发布): red, and response Ⅱ and Ⅰ, leave at once by every road, for some hours.

    A signer of the bodies named in procedure.toml starts it; anybody on duty may with the call that ordered it.

    Example: mingluo emergency start 411726 --reason 特大暴雨
    """
    body: dict[str, object] = {"area": area, "reason": reason}
    if name or post or number or at:
        body["call"] = telephone(name, post, number, at, recording, witness)
    _regime(Gateway(url, token).post("/v1/emergency", body), json)


def renew(regime: Regime, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Prolong the regime from now.

    Example: mingluo emergency renew 3f6c0a9d21b47e5588aa
    """
    _regime(Gateway(url, token).post(f"/v1/emergency/{regime}/renew"), json)


def end(regime: Regime, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """End the regime before its time.

    Example: mingluo emergency end 3f6c0a9d21b47e5588aa
    """
    _regime(Gateway(url, token).post(f"/v1/emergency/{regime}/end"), json)


def list_(url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """List emergency regimes, newest first.

    Example: mingluo emergency list
    """
    found = Gateway(url, token).get("/v1/emergency") or {}
    if json:
        print_json(found)
        return
    rows = [
        [one.get("id"), one.get("area"), page.clock(one.get("started_at")),
         f"ended {page.clock(one['ended_at'])}" if one.get("ended_at") else f"until {page.clock(one.get('until'))}",
         one.get("reason")]
        for one in found.get("regimes") or ()
    ]  # fmt: skip
    print_table(("id", "area", "started", "state", "reason"), rows)


def _regime(found: Any, json: bool) -> None:
    if json:
        print_json(found)
        return
    state = "ended" if found.get("ended_at") else f"in force until {page.local(found.get('until'))}"
    typer.echo(f"{found.get('id')}: {found.get('area')}: {state}")


def use(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CAP 1.2 XML, its JSON form, or the national dialect.")],
    url: Url = "",
    json: AsJson = False,
) -> None:
    """Issue one message under the sealed code from the envelope, past every stage. It alarms the leader.

    The code is asked for, or taken from MINGLUO_BREAK_GLASS; no token is needed.

    Example: mingluo break-glass use warning.xml
    """
    code = os.environ.get(CODE) or typer.prompt("sealed code", hide_input=True, err=True)
    if not code.isascii():
        wrong_use("a sealed code has letters A–Z and digits only")
    gateway = Gateway(url, "", nameless=True)
    found = gateway.post("/v1/break-glass", message(file), **{"Break-Glass": code})
    print_json(found) if json else page.show_outcome(found or {})


def new(
    issuer: Annotated[str, typer.Option(metavar="ID", help="The body it issues for.")],
    label: Annotated[str, typer.Option(help="What stands on the envelope.")],
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Make a sealed one-time code. It is shown this once: print it, seal it, keep it in the duty room.

    Example: mingluo break-glass new --issuer 411726-qxj --label 值班室一号
    """
    found = Gateway(url, token).post("/v1/break-glass/codes", {"issuer": issuer, "label": label}) or {}
    if json:
        print_json(found)
        return
    tell("Shown this once; the gateway keeps only its hash:")
    typer.echo(found.get("code"))


def codes(url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """List sealed codes, without the codes: which are still sealed, and which alert used the others.

    Example: mingluo break-glass list
    """
    found = Gateway(url, token).get("/v1/break-glass/codes") or {}
    if json:
        print_json(found)
        return
    rows = []
    for one in found.get("codes") or ():
        used = page.clock(one.get("used_at")) or "sealed"
        rows.append([one.get("issuer"), one.get("label"), page.clock(one.get("made_at")), used, one.get("alert")])
    print_table(("issuer", "label", "made", "used", "alert"), rows)


def add(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=PANEL)(duty)
    app.command(rich_help_panel=PANEL)(answer)
    emergency = typer.Typer(help="The emergency regime 紧急发布.", no_args_is_help=True)
    emergency.command()(start)
    emergency.command()(renew)
    emergency.command()(end)
    emergency.command("list")(list_)
    app.add_typer(emergency, name="emergency", rich_help_panel=PANEL)
    glass = typer.Typer(help="Sealed codes for a locked-out officer.", no_args_is_help=True)
    glass.command()(new)
    glass.command()(use)
    glass.command("list")(codes)
    app.add_typer(glass, name="break-glass", rich_help_panel=PANEL)
