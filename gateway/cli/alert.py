"""Alerts through the HTTP API: preview, issue, decide, end, and see which villages are reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import answer as page
from gateway.cli.client import Gateway, Token, Url, alert_path, message
from gateway.cli.frame import AsJson, print_json, wrong_use
from gateway.cli.preview import show_preview

PREFIX = 2  # digits
VILLAGE = 12  # digits
PAGE = 200  # alerts the gateway lists at once

File = Annotated[Path, typer.Argument(metavar="FILE", help="CAP 1.2 XML, its JSON form, or the national dialect.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The alert's id, as issue and list show it.")]
Reason = Annotated[str, typer.Option(help="Why; stands in the life of the alert. No phone numbers.")]


class How(StrEnum):
    """How an official answered."""

    PHONE = "phone"
    VISIT = "visit"
    RADIO = "radio"


class Crowd(StrEnum):
    """A group of recipients."""

    OFFICIALS = "officials"
    LOUDSPEAKERS = "loudspeakers"
    RESIDENTS = "residents"
    SUBSCRIBERS = "subscribers"


def issue(file: File, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Issue a message: it goes out at once, or waits for a second person, and the answer says which and why.

    Sending the same file again changes nothing.

    Example: mingluo issue warning.xml
    """
    _show(_send("/v1/alerts", file, url, token), page.show_outcome, json)


def preview(file: File, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Show what issuing a message would do: its route, whom it reaches, with which words and when. Nothing is stored.

    Example: mingluo preview warning.xml
    """
    _show(_send("/v1/alerts/preview", file, url, token), show_preview, json)


def _send(path: str, file: Path, url: str, token: str) -> Any:
    return Gateway(url, token).post(path, message(file))


def _show(answer: Any, show: Callable[[dict[str, Any]], None], as_json: bool) -> None:
    if as_json:
        print_json(answer)
    elif isinstance(answer, dict):
        show(answer)
    else:
        wrong_use("the gateway answered something unexpected: are both of one version?")


def approve(alert: Id, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Let what waits of an alert go out. Nobody approves their own.

    Example: mingluo approve 3f6c0a9d21b47e5588aa
    """
    _show(Gateway(url, token).post(alert_path(alert, "approve")), page.show_outcome, json)


def reject(alert: Id, reason: Reason, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """End a waiting alert without sending it.

    Example: mingluo reject 3f6c0a9d21b47e5588aa --reason "wrong county"
    """
    _show(Gateway(url, token).post(alert_path(alert, "reject"), {"reason": reason}), page.show_standing, json)


def cancel(
    alert: Id,
    note: Annotated[str, typer.Option(help="A sentence that goes with the all-clear.")] = "",
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Issue the all-clear (解除) of an alert.

    Example: mingluo cancel 3f6c0a9d21b47e5588aa --note "the rain has moved away"
    """
    _show(Gateway(url, token).post(alert_path(alert, "cancel"), {"note": note}), page.show_outcome, json)


def correct(
    alert: Id,
    note: Annotated[str, typer.Option(help="A sentence that goes with the correction.")] = "",
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Correct an alert that was a mistake (更正): everybody who got it is told that it does not hold.

    With a signer's token it goes out at once; with another one it waits for a signer (mingluo approve).

    Example: mingluo correct 3f6c0a9d21b47e5588aa
    """
    _show(Gateway(url, token).post(alert_path(alert, "correct"), {"note": note}), page.show_outcome, json)


def recall(alert: Id, reason: Reason, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Stop an alert at once: nothing more leaves. Whoever has it already needs: mingluo correct.

    Example: mingluo recall 3f6c0a9d21b47e5588aa --reason "issued by mistake"
    """
    _show(Gateway(url, token).post(alert_path(alert, "recall"), {"reason": reason}), page.show_standing, json)


def confirm(
    alert: Id,
    person: Annotated[
        int | None, typer.Option(metavar="P", min=0, help="The official: `recipient` of: mingluo deliveries.")
    ] = None,
    village: Annotated[
        str, typer.Option(metavar="CODE", help="Or the village somebody answered for, as: mingluo status ID names it.")
    ] = "",
    how: Annotated[How, typer.Option(help="How the official answered.")] = How.PHONE,
    note: Annotated[str, typer.Option(help="A remark, kept with the confirmation; no names, no numbers.")] = "",
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Note that an official, or somebody answerable for a village, has answered for an alert (叫应).

    A village can be confirmed whatever the channels are: nothing need have been sent to its officials.

    Example: mingluo confirm 3f6c0a9d21b47e5588aa --village 411726204200 --how phone
    """
    if (person is None) == (not village):
        wrong_use("say who answered: --village CODE, as mingluo status names it, or --person P (mingluo deliveries)")
    if village and not (len(village) == VILLAGE and village.isdecimal() and village.isascii()):
        wrong_use(f"--village {village}: write the 12 digits of the village, as mingluo status names it")
    # As text: an id has more bits than a number keeps in JSON.
    who = {"village": village} if village else {"person": str(person)}
    body = {**who, "how": how.value, "note": note}
    _show(Gateway(url, token).post(alert_path(alert, "confirmations"), body), page.show_confirmed, json)


def deliveries(
    alert: Id,
    group: Annotated[Crowd | None, typer.Option(help="Only this group.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many recipients at most.")] = 500,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """List recipients of an alert by id, with township and state; names and numbers are never shown.

    The column recipient is what `mingluo confirm` takes as --person.

    Example: mingluo deliveries 3f6c0a9d21b47e5588aa --group officials
    """
    gateway, after = Gateway(url, token), ""
    found: list[dict[str, Any]] = []
    while len(found) < limit:
        query = {"group": group.value} if group else {}
        answer = gateway.get(alert_path(alert, "deliveries"), **query, **({"after": after} if after else {})) or {}
        found += answer.get("deliveries") or ()
        after = answer.get("next") or ""
        if not after:
            break
    more = bool(after) or len(found) > limit
    _show({"deliveries": found[:limit], "more": more}, page.show_deliveries, json)


def status(
    alert: Id,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again whenever it changes; Ctrl-C ends.")] = False,
    every: Annotated[float, typer.Option(metavar="S", min=0.5, help="Seconds between looks with --watch.")] = 2.0,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Show how far an alert has come: villages by state, recipients by channel, and the gaps by name.

    Example: mingluo status 3f6c0a9d21b47e5588aa --watch
    """
    gateway, shown = Gateway(url, token), None
    while True:
        answer = gateway.get(alert_path(alert, "status"))
        if answer != shown:
            _show(answer, page.show_status, json)
            shown = answer
        if not watch:
            return
        time.sleep(every)


def _words(option: str, given: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """Return the words as the gateway writes them, whatever their case."""
    spelt = {str(word).lower(): str(word) for word in known}
    if wrong := [word for word in given or () if word.lower() not in spelt]:
        wrong_use(f"{option} {wrong[0]}: use one of {', '.join(spelt.values())}")
    return [spelt[word.lower()] for word in given or ()]


def _when(option: str, text: str) -> str:
    """Return a time, or a day, as it was written."""
    try:
        datetime.fromisoformat(text or "2026-07-20")
    except ValueError:
        wrong_use(f"{option} {text}: not a time; write it as 2026-07-20T14:00")
    return text


def list_(
    standing: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Only held, active, stopped, rejected; repeatable.")
    ] = None,
    status: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Only Actual, Exercise, Test …; repeatable.")
    ] = None,
    document: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Only warning, evacuation …; repeatable.")
    ] = None,
    level: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Only red, orange, yellow, blue; repeatable.")
    ] = None,
    hazard: Annotated[str, typer.Option(metavar="CODE", help="Only this GB/T 35561 code, or what begins so.")] = "",
    area: Annotated[str, typer.Option(metavar="CODE", help="Only what touches this place, or what begins so.")] = "",
    issuer: Annotated[str, typer.Option(metavar="ID", help="Only this issuer's, by id or CAP sender.")] = "",
    since: Annotated[str, typer.Option(metavar="TIME", help="Accepted then or later: 2026-07-20T14:00.")] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Accepted before.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """List alerts, newest first. Times without offset are China's.

    Example: mingluo list --standing held --level red --area 411726
    """
    from gateway.model import Document, Level, Status
    from gateway.standing import Standing

    if area and not (area.isdecimal() and area.isascii() and len(area) >= PREFIX):
        wrong_use(f"--area {area}: write the code of a place, or how it begins: 4117, 411726209")
    query: dict[str, str | Sequence[str]] = {
        "standing": _words("--standing", standing, ("held", *Standing)), "status": _words("--status", status, Status),
        "document": _words("--document", document, Document),
        "level": _words("--level", level, [one.name.lower() for one in Level]),
        "hazard": hazard, "area": area, "issuer": issuer, "since": _when("--since", since),
        "until": _when("--until", until),
    }  # fmt: skip
    gateway, after = Gateway(url, token), ""
    query = {name: value for name, value in query.items() if value}
    found: list[dict[str, Any]] = []
    halts: list[str] = []
    while len(found) < limit:
        part = str(min(limit - len(found), PAGE))
        answer = gateway.get("/v1/alerts", limit=part, **query, **({"after": after} if after else {})) or {}
        found += answer.get("alerts") or ()
        after, halts = answer.get("next") or "", answer.get("halts") or []
        if not after:
            break
    _show({"alerts": found, "next": after or None, "halts": halts}, page.show_alerts, json)


def stuck(url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Show what has no outcome yet, and why: halted, or waiting for a carrier, the broker, a worker, a retry.

    Example: mingluo stuck
    """
    _show(Gateway(url, token).get("/v1/stuck"), page.show_stuck, json)


def add(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (preview, issue, approve, reject, cancel, correct, recall, status, stuck, deliveries, confirm):
        app.command(rich_help_panel="Alerts, through the API")(command)
    app.command("list", rich_help_panel="Alerts, through the API")(list_)
