"""How the API's answers look on a terminal: what matters first, tables for what is many.

Called by `alert`. Every field may be missing: a gateway of another version is still told of as far as it goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import typer

from gateway.cli.frame import complain, print_table, tell
from gateway.naming import once

CHINA = timezone(timedelta(hours=8))
MOMENTS = frozenset({"accepted_at", "expires", "sent", "start", "at"})
GROUPS = ("officials", "loudspeakers", "residents", "subscribers")
SHOWN = 40  # villages or townships named; --json names all

Answer = Mapping[str, Any]


def show_outcome(answer: Answer) -> None:
    """Show what became of a submission: accepted, held or duplicate."""
    result, but = str(answer.get("result", "")), caveat(answer)
    meaning = {
        "accepted": f"accepted, but {but}" if but else "accepted: it is on its way",
        "held": _waits(answer) + (f"; and {but}" if but else ""),
        "draft": "draft: kept, and sent to nobody",
        "duplicate": "duplicate: this message was known already; nothing was done" + (f"; {but}" if but else ""),
    }
    typer.echo(meaning.get(result, result))
    _warn(answer)
    _fields(answer, ("id", "route"))
    _lines("because", reasons(answer))
    _lines("held", answer.get("held"))
    if alert := answer.get("id"):
        tell(_next(answer, result, str(alert)))
        release(answer)


WAITS = {
    "suppressed": "held back: a live alert says the same already",
    "partner": "held: it waits for its partner",
    "review": "held: nothing leaves before it is reviewed and signed",
    "sign": "held: nothing leaves before it is signed",
}
WHO = {
    "suppressed": ("If it must be said again", "release"), "partner": ("The partner", "join"),
    "review": ("A reviewer", "approve"), "sign": ("A signer", "approve"),
}  # fmt: skip


def reasons(answer: Answer) -> list[str]:
    """Return why it goes this way; what holds it is said as such, and once."""
    held = answer.get("held") or ()
    return [str(reason) for reason in answer.get("reasons") or () if reason not in held]


def _waits(answer: Answer) -> str:
    return WAITS.get(str(answer.get("standing")), "held: nothing leaves before a second person has decided")


def _next(answer: Answer, result: str, alert: str) -> str:
    if result == "draft":
        return f"Hand it on: mingluo submit {alert}"
    if result != "held":
        return f"Next: mingluo status {alert}"
    who, command = WHO.get(str(answer.get("standing")), ("A second person", "approve"))
    return f"{who}: mingluo {command} {alert}"


AFTER = {
    "recalled": "Nothing more leaves. Whoever has it already needs: mingluo correct {id}",
    "returned": "Its writer: mingluo amend {id} FILE, then mingluo submit {id}",
}


def show_standing(answer: Answer) -> None:
    """Show where an alert stands after a decision, and what comes next."""
    alert, standing, reason = (str(answer.get(name) or "") for name in ("id", "standing", "reason"))
    typer.echo(f"{alert}: {standing}" + (f": {reason}" if reason else ""))
    if after := AFTER.get(reason if standing == "stopped" else standing):
        tell(after.format(id=alert))


def show_confirmed(answer: Answer) -> None:
    """Show whether a confirmation was new."""
    known = answer.get("result") == "known"
    typer.echo("confirmed before" if known else "confirmed")


def show_alerts(answer: Answer) -> None:
    """Show a list of alerts."""
    alerts = answer.get("alerts") or []
    if answer.get("halts"):
        typer.echo(_halted(answer))
    if not alerts:
        tell("no alerts")
        return
    rows = [
        [one.get("id"), clock(one.get("sent")), one.get("standing"), about(one), str(one.get("by", "")).split("/")[-1]]
        for one in alerts
    ]
    print_table(("id", "sent", "standing", "what", "by"), rows)
    if answer.get("next"):
        tell("There are more: raise --limit")


def show_status(answer: Answer) -> None:
    """Show how far an alert has come. States stand apart; submitted is not delivered."""
    typer.echo(_headline(answer))
    if answer.get("halts") and answer.get("standing") not in ("stopped", "rejected"):
        typer.echo(_halted(answer))
        release(answer)
    _fields(answer, ("alert", "standing", "reason", "route", "accepted_at", "expires"))
    _lines("held", answer.get("held"))
    villages = answer.get("villages") or {}
    typer.echo(f"villages ({sum(villages.values())}): " + ", ".join(f"{n} {state}" for state, n in villages.items()))
    columns = ("group", "channel", "state", "recipients")
    _table(columns, answer.get("counts") or ())
    _table(("channel", "state", "requests", "requested", "submitted", "delivered"), answer.get("areas") or ())
    timed = ("group", "channel", "first_submitted_s", "last_settled_s", "unfinished", "batches")
    _table(
        timed,
        (
            {**one, **{name: f"{one[name]:.1f}" for name in timed[2:4] if isinstance(one.get(name), float)}}
            for one in answer.get("timings") or ()
        ),
    )
    for step in answer.get("later") or ():
        if ahead(step.get("at")):
            typer.echo(
                f"{step.get('group')} ({step.get('channel')}): {step.get('notice')} waits until {clock(step['at'])}"
            )
    _villages(answer)


WAITS_FOR = {
    "halted": "halted by a person; release: mingluo halt SCOPE --off",
    "channel_missing": "the channel is not installed here, or not live: mingluo doctor",
    "sending": "a worker is at it; if it has died, another goes on then",
    "channel_down": "the carrier serves nobody; it is asked again then",
    "retry": "tried, and tried again then",
    "paced": "the account's rate is used up until then",
    "unpublished": "the broker has not confirmed it; green goes without",
    "queued": "no worker has begun; is one running, and quick enough",
    "planning": "the planner has not come to it; is it running",
    "fallback": "waits to see whom the first channel does not reach",
}  # fmt: skip


def show_stuck(answer: Answer) -> None:
    """Show what waits and why, and what to do where a person has to."""
    found = answer.get("waiting") or ()
    if not found:
        tell("nothing waits")
        return
    columns = ("alert", "channel", "lane", "county", "batches", "reason", "until")
    _table(columns, ({**one, "until": clock(one.get("until"), seconds=True)} for one in found))
    for reason in dict.fromkeys(one.get("reason") for one in found):
        tell(f"{reason}: {WAITS_FOR.get(str(reason), 'unknown to this version')}")


def about(answer: Answer) -> str:
    """Say in a few words which message it is: hazard and level; what is no plain, actual, public alert is named."""
    words = [str(answer.get("event") or ""), str(answer.get("level") or "")]
    words += [str(answer["kind"])] if answer.get("kind") not in (None, "", "Alert") else []
    words += [str(answer["status"]).upper()] if answer.get("status") not in (None, "", "Actual") else []
    words += [str(answer["scope"]).upper()] if answer.get("scope") not in (None, "", "Public") else []
    return " ".join(word for word in words if word)


STANDS = {
    "draft": "DRAFT, sent to nobody", "returned": "RETURNED to its writer, sent to nobody",
    "suppressed": "HELD BACK, a live alert says the same", "partner": "HELD for its partner, nothing has left",
    "review": "HELD for review, nothing has left", "sign": "HELD for a signature, nothing has left",
    "rejected": "rejected, never sent", "stopped": "over",
}  # fmt: skip


def _headline(answer: Answer) -> str:
    """At 02:30 only the first line is read: which warning, does it go, and how many villages are still open."""
    standing, villages = str(answer.get("standing", "")), answer.get("villages") or {}
    said = STANDS.get(standing, standing)
    if standing in ("rejected", "stopped") and answer.get("reason"):
        said += f" ({answer['reason']})"
    if standing == "active" and (total := sum(villages.values())):
        missing = total - villages.get("confirmed", 0) - villages.get("played", 0)
        counts = f"{villages.get('confirmed', 0)} confirmed, {villages.get('played', 0)} played"
        # Nobody confirms an all-clear: whoever has not heard it yet is in no danger by that.
        open_ = "NOT REACHED" if answer.get("confirmation_wanted", True) else "not told yet"
        said += f", {missing} of {total} villages {open_}" if missing else f", all {total} villages reached"
        said += f" ({counts})" + ("; calling goes on" if answer.get("wanting") else "")
        said += "; NO OFFICIAL REACHED: mingluo doctor, mingluo stuck" if _no_official(answer) else ""
    return f"{about(answer) or answer.get('alert', '')}: {said}"


def _no_official(answer: Answer) -> bool:
    """Whether it has failed for all officials; a loudspeaker's success must not hide that."""
    states = {one.get("state") for one in answer.get("counts") or () if one.get("group") == "officials"}
    return bool(states) and states <= {"failed", "skipped", "expired"}


def show_deliveries(answer: Answer) -> None:
    """Show recipients by id."""
    found = answer.get("deliveries") or ()
    if not found:
        tell("no recipients: nothing was planned yet for this group, or nobody is registered there (mingluo doctor)")
    _table(("recipient", "township", "village", "group", "channel", "state"), found)
    if answer.get("more"):
        tell("There are more: raise --limit")


# --- parts ----------------------------------------------------------------------------------------


def _warn(answer: Answer) -> None:
    for item in answer.get("warnings") or ():
        complain(f"{item.get('severity') or 'warning'}: {item.get('code', '')}: {item.get('message', '')}")


def caveat(answer: Answer) -> str:
    """Say what the first line must not hide: a halt, and that nobody, or no official, hears of it."""
    codes = {item.get("code") for item in answer.get("warnings") or ()}
    found = [_halted(answer)] if answer.get("halts") else []
    found += ["it reaches NOBODY"] if "reaches_nobody" in codes else []
    found += ["it reaches NO OFFICIALS"] if "no_officials" in codes else []
    return "; ".join(found)


def _halted(answer: Answer) -> str:
    scopes = answer.get("halts") or ()
    where = "" if "all" in scopes else " there"
    return f"HALTED ({', '.join(scopes)}): nothing leaves{where} until released"


def release(answer: Answer) -> None:
    """Say how what is halted is released."""
    for scope in answer.get("halts") or ():
        tell(f"To release: mingluo halt {scope} --off")


def _fields(answer: Answer, names: Sequence[str]) -> None:
    for name in names:
        if answer.get(name) not in (None, ""):
            typer.echo(f"{name.replace('_', ' ')}: {local(answer[name]) if name in MOMENTS else answer[name]}")


def local(value: Any) -> str:
    """Return a moment as the clock on the wall in China shows it; anything else as it is."""
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        return "" if value is None else str(value)
    return at.astimezone(CHINA).isoformat(" ", "seconds") if at.tzinfo else str(value)


def ahead(value: Any) -> bool:
    """Whether a moment is still to come."""
    return datetime.fromisoformat(str(value)) > datetime.now(CHINA)


def clock(value: Any, *, seconds: bool = False) -> str:
    """Return a moment for a table: month, day and time in China, the year only where it is another one."""
    try:
        at = datetime.fromisoformat(str(value)).astimezone(CHINA)
    except ValueError:
        return "" if value is None else str(value)
    year = "" if at.year == datetime.now(CHINA).year else "%Y-"
    return at.strftime(f"{year}%m-%d %H:%M" + (":%S" if seconds else ""))


def _lines(head: str, texts: Iterable[str] | None) -> None:
    for text in texts or ():
        typer.echo(f"{head}: {text}")


def _table(columns: Sequence[str], rows: Iterable[Answer], title: str | None = None) -> None:
    if listed := list(rows):
        cells = [[local(row.get(name)) if name in MOMENTS else row.get(name, "") for name in columns]
                 for row in listed]  # fmt: skip
        print_table([name.replace("_", " ") for name in columns], cells, title)


LISTS = {
    "gaps": "gaps: nobody has confirmed, no loudspeaker has played",
    "wanting": "played, but nobody has confirmed: calling goes on",
    "deputised": "heard, but not at post: the deputy was told",
    "away": "heard, but not at post: call the deputy",
    "mute_planned": "had no working loudspeaker as it began",
}
MARKS = {
    "mute": "no working loudspeaker: call first", "mute_planned": "no working loudspeaker as it began",
    "deputised": "not at post, the deputy was told", "away": "not at post: call the deputy",
}  # fmt: skip


def _villages(answer: Answer) -> None:
    """Name each village once, with what is known of it."""
    listed = {name: answer.get(name) or () for name in {**LISTS, **MARKS}}
    places = {str(one.get("code", "")): one for some in listed.values() for one in some}
    for name, villages in once({name: [str(one.get("code", "")) for one in some] for name, some in listed.items()}):
        typer.echo(f"{LISTS[name]} ({len(villages)}):")
        for code, marks in villages[:SHOWN]:
            said = "; ".join([str(places[code].get("state", "")), *map(MARKS.__getitem__, marks)])
            typer.echo(f"  {code} {places[code].get('name', '')} ({said})")
        if len(villages) > SHOWN:
            typer.echo(f"  … and {len(villages) - SHOWN} more; --json names all")
