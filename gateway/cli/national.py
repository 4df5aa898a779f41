"""The national platform (国突) from a terminal: numbers, the day's reconciliation, and a folder it exports into."""

from __future__ import annotations

import asyncio
import csv
import io
import json as form
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.client import Gateway, Token, Url, alert_path
from gateway.cli.frame import NO, AsJson, complain, print_json, print_table, tell, wrong_use

if TYPE_CHECKING:
    from gateway.watch import Submit, Verdict

COLUMNS = ("number", "sender", "title", "sent")
MAX_BYTES = 1024 * 1024
TAKEN = (200, 202)
REFUSED = (400, 403, 404, 409, 413, 415, 422)
"""What the gateway has decided; anything else is asked again."""


def number(
    alert: Annotated[str, typer.Argument(metavar="ID", help="The alert's id, as issue and list show it.")],
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="ZZZZZZDDDUUUXX_YYYYMMDDhhmmss, _N may follow.")],
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Write down the number the platform gave to an alert; a wrong one is put right so.

    Example: mingluo national number 3f6c0a9d21b47e5588aa 41172641600000_20260720143000
    """
    answer = Gateway(url, token).post(alert_path(alert, "national-number"), {"number": number})
    if json:
        print_json(answer)
    else:
        typer.echo(f"{answer['id']}: {answer['national_number']} ({answer['result']})")


def reconcile(
    listing: Annotated[Path, typer.Argument(metavar="LISTING", help="The platform's alerts: .json or .csv.")],
    day: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The day, by Chinese time.")],
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Compare a day's alerts with the platform's listing, and show what stands on one side only; ends with 1 if any.

    The listing has number, sender (the unit's code or name), title and sent (Chinese time unless it says its offset):
    a CSV with this header (UTF-8 or GB18030), or a JSON list of objects. What can mean one alert only is matched.

    Example: mingluo national reconcile platform.csv --day 2026-07-20
    """
    alerts = [_entry(row, place) for place, row in enumerate(_rows(listing), 1)]
    found = Gateway(url, token).post("/v1/national/reconcile", {"day": day.date().isoformat(), "alerts": alerts})
    if json:
        print_json(found)
    else:
        _show(found)
    if found["only_here"] or found["only_there"]:
        raise typer.Exit(NO)


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.stat().st_size > MAX_BYTES:
        wrong_use(f"{path}: larger than {MAX_BYTES // 1024} KiB; that is no day's listing")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("gb18030", errors="replace")
    if not text.lstrip().startswith("["):
        return list(csv.DictReader(io.StringIO(text, newline="")))
    try:
        rows = form.loads(text)
    except ValueError as error:
        wrong_use(f"{path}: not JSON: {error}")
    if not all(isinstance(row, dict) for row in rows):
        wrong_use(f"{path}: write a list of objects with {', '.join(COLUMNS)}")
    return list(rows)


def _entry(row: dict[str, Any], place: int) -> dict[str, str]:
    from gateway.cap.finding import Malformed
    from gateway.cap.national_form import read_time

    missing = [name for name in ("number", "sent") if not row.get(name)]
    if missing:
        wrong_use(f"entry {place}: {', '.join(missing)} is missing; the columns are {', '.join(COLUMNS)}")
    try:
        sent = read_time(str(row["sent"]).strip().replace("/", "-"))
    except Malformed as error:
        wrong_use(f"entry {place}: sent: {error.message}")
    return {name: str(row.get(name) or "").strip() for name in COLUMNS} | {"sent": sent.isoformat()}


def _show(found: dict[str, Any]) -> None:
    typer.echo(f"{found['day']}: {found['both']} on both sides, {len(found['matched'])} of them matched now")
    rows = [("matched", one["id"], one["national_number"], one["title"]) for one in found["matched"]]
    rows += [("only here", one["id"], one["national_number"], one["title"]) for one in found["only_here"]]
    rows += [("only there", "", one["number"], one["title"]) for one in found["only_there"]]
    if rows:
        print_table(("", "id", "number", "title"), rows)


def watch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where messages appear; done/ and refused/ in it.")],
    every: Annotated[float, typer.Option(metavar="S", min=0.1, help="Seconds between looks.")] = 0.5,
    url: Url = "",
    token: Token = "",
) -> None:
    """Issue every message that appears in a folder: CAP 1.2 XML, the national dialect or JSON; Ctrl-C ends it.

    A file that has stopped growing is issued in the token's name, oldest first, then moved to done/ or refused/ with
    a .json beside it that says what became of it. While the gateway does not answer, files stay where they are.

    Example: mingluo watch /var/spool/mingluo
    """
    from gateway import log
    from gateway.app import SystemClock
    from gateway.watch import Watch

    log.configure("warning", pretty=sys.stderr.isatty())
    submit = submitting(Gateway(url, token))
    with Watch(folder, submit, SystemClock()) as one, suppress(KeyboardInterrupt):
        tell(f"watching {folder}; Ctrl-C ends it")
        asyncio.run(one.run(every, _say))


def submitting(gateway: Gateway) -> Submit:
    """Return what hands a watched file in."""

    async def submit(data: bytes) -> Verdict | None:
        with suppress(typer.Exit):  # nobody answered; it has been said why
            return judged(*await gateway.send("/v1/alerts", data))
        return None

    return submit


def judged(status: int, answer: Any) -> Verdict | None:
    """Return what the gateway has decided on a message, or None where it could not."""
    from gateway.watch import Verdict

    said = answer if isinstance(answer, dict) else {}
    if status in TAKEN and said.get("id"):
        kept = {name: said.get(name) for name in ("result", "standing", "route", "held", "warnings")}
        return Verdict(True, {"alert": said["id"], **kept})
    if status in REFUSED and said:
        code = str(said.get("type", "")).rpartition("/")[2]
        return Verdict(False, {"code": code, "detail": said.get("detail"), "errors": said.get("errors") or []})
    complain(f"the gateway answered {status}: the file waits; see that the token is good and the gateway well")
    return None


def _say(name: str, verdict: Verdict) -> None:
    shown = name.encode(errors="backslashreplace").decode()
    said = verdict.said
    print_json({"file": shown, "accepted": verdict.accepted, "why": said.get("result") or said.get("code")})


def add(app: typer.Typer) -> None:
    """Add the commands."""
    panel = "Alerts, through the API"
    group = typer.Typer(help="Numbers and reconciliation with the national platform (国突).", no_args_is_help=True)
    for command in (number, reconcile):
        group.command()(command)
    app.add_typer(group, name="national", rich_help_panel=panel)
    app.command(rich_help_panel=panel)(watch)
