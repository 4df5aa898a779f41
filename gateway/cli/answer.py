"""How the API's answers look on a terminal: what matters first, tables for what is many.

Called by `alert`. Every field may be missing: a gateway of another version is still told of as far as it goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

from gateway.cli.frame import complain, print_table, tell

SHOWN = 40  # villages or townships named; --json names all

Answer = Mapping[str, Any]


def show_outcome(answer: Answer) -> None:
    """Show what became of a submission: accepted, held or duplicate."""
    _warn(answer)
    result = str(answer.get("result", ""))
    meaning = {
        "accepted": "accepted: it is on its way",
        "held": "held: nothing leaves before a second person has decided",
        "duplicate": "duplicate: this message was known already; nothing was done",
    }
    typer.echo(meaning.get(result, result))
    _fields(answer, ("id", "route"))
    _lines("because", answer.get("reasons"))
    _lines("held", answer.get("held"))
    if alert := answer.get("id"):
        tell(f"A second person: mingluo approve {alert}" if result == "held" else f"Next: mingluo status {alert}")


def show_standing(answer: Answer) -> None:
    """Show where an alert stands after a decision."""
    typer.echo(f"{answer.get('id', '')}: {answer.get('standing', '')} {answer.get('reason', '')}".rstrip())


def show_confirmed(answer: Answer) -> None:
    """Show whether a confirmation was new."""
    known = answer.get("result") == "known"
    typer.echo("this person had confirmed before" if known else "confirmed")


def show_alerts(answer: Answer) -> None:
    """Show a list of alerts."""
    alerts = answer.get("alerts") or []
    if not alerts:
        tell("no alerts")
        return
    columns = ("id", "sent", "status", "kind", "event", "level", "standing", "by")
    print_table(columns, [[row.get(name, "") for name in columns] for row in alerts])
    if answer.get("next"):
        tell("There are more: raise --limit")


def show_status(answer: Answer) -> None:
    """Show how far an alert has come. States stand apart; submitted is not delivered."""
    typer.echo(f"{answer.get('alert', '')}: {answer.get('standing', '')} {answer.get('reason', '')}".rstrip())
    _fields(answer, ("route", "accepted_at", "expires"))
    _lines("held", answer.get("held"))
    villages = answer.get("villages") or {}
    typer.echo(f"villages ({sum(villages.values())}): " + ", ".join(f"{n} {state}" for state, n in villages.items()))
    columns = ("group", "channel", "state", "recipients")
    _table(columns, answer.get("counts") or ())
    timed = ("group", "channel", "first_submitted_s", "last_settled_s", "unfinished", "batches")
    _table(timed, answer.get("timings") or ())
    _places("gaps: nobody has confirmed, no loudspeaker has played", answer.get("gaps") or ())
    gaps = [place.get("code") for place in answer.get("gaps") or ()]
    wanting = [place for place in answer.get("wanting") or () if place.get("code") not in gaps]
    _places("played, but nobody has confirmed: calling goes on", wanting)


def show_preview(answer: Answer) -> None:
    """Show what issuing would do: the decision, the places, the numbers, the words."""
    _warn(answer)
    waits = answer.get("would_be_held")
    typer.echo("would be held for a second person" if waits else "would go out at once")
    _fields(answer, ("event", "level", "status", "kind", "expires", "route"))
    _lines("because", answer.get("reasons"))
    _lines("held", answer.get("held"))
    _lines("alarm", answer.get("alarms"))
    for name in ("targets", "leaving", "beyond_border"):
        _townships(name.replace("_", " "), answer.get(name) or ())
    _table(("step", "group", "channel", "language", "notice", "recipients"), _summed(answer.get("counts") or ()))
    _table(("step", "group", "channel", "notice", "start"), answer.get("deferrals") or (), "deferred")
    for text in answer.get("texts") or ():
        head = " ".join(str(text.get(name, "")) for name in ("channel", "group", "notice", "language"))
        typer.echo(f"\n{head} ({text.get('units')} units, {text.get('segments')} SMS segments)\n  {text.get('text')}")
        for finding in text.get("findings") or ():
            complain(f"{finding.get('severity')}: {finding.get('code')}: {finding.get('message')}")


# --- parts ----------------------------------------------------------------------------------------


def _warn(answer: Answer) -> None:
    for item in answer.get("warnings") or ():
        complain(f"warning: {item.get('code', '')}: {item.get('message', '')}")


def _fields(answer: Answer, names: Sequence[str]) -> None:
    for name in names:
        if answer.get(name) not in (None, ""):
            typer.echo(f"{name.replace('_', ' ')}: {answer[name]}")


def _lines(head: str, texts: Iterable[str] | None) -> None:
    for text in texts or ():
        typer.echo(f"{head}: {text}")


def _table(columns: Sequence[str], rows: Iterable[Answer], title: str | None = None) -> None:
    if listed := list(rows):
        cells = [[row.get(name, "") for name in columns] for row in listed]
        print_table([name.replace("_", " ") for name in columns], cells, title)


def _places(title: str, places: Sequence[Answer]) -> None:
    if not places:
        return
    typer.echo(f"{title} ({len(places)}):")
    for place in places[:SHOWN]:
        typer.echo(f"  {place.get('code', '')} {place.get('name', '')} ({place.get('state', '')})")
    if len(places) > SHOWN:
        typer.echo(f"  … and {len(places) - SHOWN} more; --json names all")


def _townships(title: str, targets: Sequence[Answer]) -> None:
    rows = []
    for target in targets[:SHOWN]:
        place, villages = target.get("township") or {}, target.get("villages") or ()
        named = "、".join(str(village.get("name", "")) for village in villages) or "all of it"
        rows.append((place.get("code", ""), place.get("name", ""), named, target.get("how", "")))
    if rows:
        more = f" (the first {SHOWN} of {len(targets)})" if len(targets) > SHOWN else ""
        print_table(("township", "name", "villages", "matched by"), rows, title + more)


def _summed(counts: Iterable[Answer]) -> list[dict[str, Any]]:
    """Add up the townships of each step."""
    steps: dict[tuple[Any, ...], dict[str, Any]] = {}
    for count in counts:
        key = tuple(count.get(name) for name in ("step", "group", "channel", "language", "notice"))
        row = steps.setdefault(key, {**count, "recipients": 0})
        row["recipients"] += count.get("recipients", 0)
    return list(steps.values())
