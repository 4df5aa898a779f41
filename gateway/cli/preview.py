"""The page of `mingluo preview`: what a duty officer has to know at 02:30, the most important first.

Called by `alert`. On a terminal in colour and as wide as it is; elsewhere plain. Every field may be missing: a gateway
of another version is still told of as far as it goes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from gateway.cli.answer import CHINA, GROUPS, SHOWN, caveat, reasons, release

if TYPE_CHECKING:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

Answer = Mapping[str, Any]

LEVELS = {"red": "bold white on red", "orange": "black on dark_orange", "yellow": "black on yellow",
          "blue": "white on blue"}  # fmt: skip
WOULD = {
    "draft": "would go to nobody: it is a draft",
    "suppressed": "would be held back: a live alert says the same already",
    "partner": "would be held for its partner",
    "review": "would be held until it is reviewed and signed",
}
GRAVITY = {"error": "bold red", "warning": "yellow", "info": "dim"}
HEAD = 10  # columns of the headings
NAMED = 8  # villages named in one line
SOON_S = 120  # shorter times are told in seconds
ROUNDED = timedelta(seconds=59)  # a clock without seconds must not promise too early

_COUNTY = re.compile(r"^[^县市区乡镇]{1,6}[县市区](?=.)")


def show_preview(answer: Answer) -> None:
    """Print the page."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    # Colour only where somebody sees it, in the width there is; elsewhere wide enough for a text to stay on its line.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200, highlight=False)
    with console.capture() as captured:
        console.print(_verdict(answer), soft_wrap=True)
        for head, lines in _sections(answer):
            for number, line in enumerate(lines):
                if isinstance(line, Table):
                    console.print(Padding(line, (0, 0, 0, 2)))
                else:
                    console.print(_row("" if number else head, line))
            if lines:
                console.print()
    typer.echo("\n".join(line.rstrip() for line in captured.get().rstrip().splitlines()))
    release(answer)


def _row(head: str, line: str | Padding | Text) -> Table:
    """One line with its heading in front; what is longer goes on under itself."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=HEAD, style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(head, line)
    return grid


def _sections(answer: Answer) -> Iterator[tuple[str, list[Any]]]:
    yield "what", list(_what(answer))
    yield "route", list(_route(answer))
    yield "reaches", list(_reaches(answer))
    yield "gaps", list(_gaps(answer))
    yield "texts", list(_texts(answer.get("texts") or ()))
    yield "findings", list(_findings(answer.get("warnings") or ()))
    yield "beside it", list(_findings(answer.get("conflicts") or ()))
    yield "when", list(_when(answer))


def _styled(*parts: str | tuple[str, str]) -> Text:
    from rich.text import Text

    # Text, not markup: a name in brackets is a name.
    return Text.assemble(*parts)


# --- the decision ---------------------------------------------------------------------------------


def _verdict(answer: Answer) -> Text:
    """Say whether it goes, and what that must not hide."""
    waits, hidden = answer.get("would_be_held"), caveat(answer)
    if waits:
        would, style = WOULD.get(str(answer.get("standing")), "would be held for a second person"), "bold yellow"
    else:
        would, style = ("would be accepted" if hidden else "would go out at once"), "bold green"
    grave = (f", but {hidden}", "bold red") if hidden else ""
    return _styled((would, style), grave)


def _what(answer: Answer) -> Iterator[Any]:
    level = str(answer.get("level") or "")
    named = (f" {level} ", LEVELS[level]) if level in LEVELS else ""
    rest = " · ".join(str(answer[name]) for name in ("document", "status", "kind", "issuer") if answer.get(name))
    yield _styled((f"{answer.get('event', '')} ", "bold"), named, f"  {rest}")
    if answer.get("status") not in (None, "Actual"):
        yield _styled(("not a real warning: every text begins with the drill mark", "bold magenta"))
    if until := _moment(answer.get("expires")):
        yield f"valid until {_clock(until, answer)}"


def _route(answer: Answer) -> Iterator[Any]:
    yield _styled((str(answer.get("route", "")), "bold"))
    yield from (f"because {reason}" for reason in reasons(answer))
    yield from (_styled(("held: ", "bold yellow"), str(text)) for text in answer.get("held") or ())
    if names := answer.get("deciders"):
        yield _styled(("decides: ", "bold"), "、".join(names), "; nobody approves their own")
    yield from (_styled(("alarm: ", "bold yellow"), str(text)) for text in answer.get("alarms") or ())


# --- whom it reaches ------------------------------------------------------------------------------


def _reaches(answer: Answer) -> Iterator[Any]:
    rows = answer.get("townships") or ()
    villages = sum(row.get("villages", 0) for row in rows)
    yield _styled((f"{_number(len(rows), 'township')}, {_number(villages, 'village')}", "bold"), ": ", *_sum(rows))
    for name, meaning in (("opted_out", "residents opted out and do not hear of it"),
                          ("no_channel", "people are registered, but no channel of theirs is on")):  # fmt: skip
        if number := sum(row.get(name, 0) for row in rows):
            yield _styled((f"{number:,} {meaning}", "yellow"))
    if rows:
        yield _townships(answer, rows[:SHOWN])
    if len(rows) > SHOWN:
        yield f"… and {len(rows) - SHOWN} townships more; --json names all"
    uncertain = [one for one in answer.get("targets") or () if not one.get("certain", True)]
    if uncertain:
        yield f"only touched, so not named in the texts: {_names(one.get('township') for one in uncertain)}"
    for name, meaning in (("leaving", "told that it does not hold any more"), ("beyond_border", "outside, left out")):
        if listed := answer.get(name):
            yield f"{meaning}: {_names(one.get('township') for one in listed)}"


def _sum(rows: Sequence[Answer]) -> Iterator[str | tuple[str, str]]:
    for number, group in enumerate(GROUPS):
        people = sum(row.get(group, 0) for row in rows)
        yield ", " if number else ""
        yield (f"{people:,} {group}", "bold red" if not people and group == "officials" else "")


def _townships(answer: Answer, rows: Sequence[Answer]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    matched = {(one.get("township") or {}).get("code"): one for one in answer.get("targets") or ()}
    names = _short([str((row.get("township") or {}).get("name", "")) for row in rows])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("code", "township"):
        table.add_column(name, overflow="fold")
    for name in ("villages", "officials", "speakers", "residents", "subscribers"):
        table.add_column(name, justify="right")
    for row, name in zip(rows, names, strict=True):
        code = (row.get("township") or {}).get("code", "")
        target = matched.get(code) or {}
        how = "" if target.get("how", "code") in ("code", "name") else f" ({target['how']})"
        numbers = [row.get(group, 0) for group in GROUPS]
        table.add_row(
            str(code), Text(f"{name}{' (part)' if target.get('villages') else ''}{how}"), str(row.get("villages", "")),
            *(Text(f"{number:,}") if number else Text("0 !", "bold red") for number in numbers),
        )  # fmt: skip
    return table


def _gaps(answer: Answer) -> Iterator[Any]:
    """Name the villages that nobody answers for first: those are to be telephoned or visited."""
    gaps = answer.get("gaps") or ()
    kinds = (
        (
            "neither an official nor a working loudspeaker",
            [g for g in gaps if not g.get("official") and not g.get("loudspeaker")],
        ),
        ("no official", [g for g in gaps if not g.get("official") and g.get("loudspeaker")]),
        ("no working loudspeaker", [g for g in gaps if g.get("official") and not g.get("loudspeaker")]),
    )
    for number, (what, listed) in enumerate(kinds):
        if listed:
            names = _names(one.get("village") for one in listed)
            yield _styled(
                (f"{_number(len(listed), 'village')} with {what}: ", "yellow" if number else "bold red"), names
            )


# --- the words ------------------------------------------------------------------------------------


def _texts(texts: Sequence[Answer]) -> Iterator[Any]:
    """Show each wording once, with whom it goes to; findings stand together further down."""
    from rich.padding import Padding

    same: dict[tuple[str, str], list[Answer]] = {}
    for one in texts:
        same.setdefault((str(one.get("text")), str(one.get("notice", ""))), []).append(one)
    for (text, notice), mine in same.items():
        groups, channels = (", ".join(dict.fromkeys(str(one.get(name, "")) for one in mine))
                            for name in ("group", "channel"))  # fmt: skip
        size = f"{mine[0].get('units', 0)} units"
        sms = [one for one in mine if str(one.get("channel", "")).startswith("sms")]
        if sms:
            size += f", {_number(sms[0].get('segments', 0), 'SMS segment')}"
        if info := mine[0].get("info"):
            size += f", info {info}"
        if cut := mine[0].get("cut"):
            size += f", shortened: {', '.join(cut)}"
        yield _styled((f"{groups} ", "bold"), f"by {channels}, {notice}", (f"  {size}", "dim"))
        yield Padding(_styled(text or ("cannot be rendered: see findings", "bold red")), (0, 0, 0, 2))


def _findings(found: Sequence[Answer]) -> Iterator[Any]:
    for grave, style in GRAVITY.items():
        for one in found:
            if (one.get("severity") or "warning") == grave:
                head = f"{'note' if grave == 'info' else grave}: "
                yield _styled((head, style), f"{one.get('code', '')}: {one.get('message', '')}")


# --- the time -------------------------------------------------------------------------------------


def _when(answer: Answer) -> Iterator[Any]:
    times = answer.get("times") or ()
    if times and answer.get("would_be_held"):
        yield "if it were decided now:"
    several = len({one.get("notice") for one in times}) > 1
    for one in times:
        what = f" ({one.get('notice')})" if several else ""
        yield _styled((f"{one.get('group', '')}{what} ", "bold"), _span(one, answer))
    fallbacks = [step for step in answer.get("steps") or () if step.get("fallback_of")]
    for step in fallbacks:
        start = _moment(step.get("start"))
        missed = f"whom step {step['fallback_of']} has missed"
        yield f"{step.get('group')} by {step.get('channel')} from {_clock(start, answer) if start else '?'}: {missed}"
    for step in answer.get("deferrals") or ():
        start = _moment(step.get("start"))
        if start and not step.get("fallback_of"):
            who = f"{step.get('group')} by {step.get('channel')}, {step.get('notice')}"
            yield _styled(("waits: ", "bold yellow"), f"{who}: until {_clock(start, answer)}")
    for one in answer.get("dropped") or ():
        who = f"{one.get('group')} by {one.get('channel')}, {one.get('notice')}"
        yield _styled(("never sent: ", "bold red"), f"{who}: {one.get('why')}")


def _span(one: Answer, answer: Answer) -> str:
    first, last, at = (_moment(value) for value in (one.get("first"), one.get("last"), answer.get("at")))
    if not (first and last and at):
        return ""
    soon = (last - at).total_seconds()
    people = f"{one.get('recipients', 0):,}"
    if soon < 1:
        return f"{people}: at once"
    if soon <= SOON_S:
        return f"{people}: within {soon:.0f} s"
    begin = "from now on" if (first - at).total_seconds() < SOON_S else f"from {_clock(first, answer)}"
    paced = {f"{step['channel']} takes {step['per_s']:g} a second" for step in answer.get("steps") or ()
             if step.get("group") == one.get("group") and step.get("per_s")}  # fmt: skip
    why = f" ({', '.join(sorted(paced))})" if paced else ""
    return f"{people}: {begin}, the last by {_clock(last + ROUNDED, answer)}{why}"


# --- parts ----------------------------------------------------------------------------------------


def _moment(value: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return at.astimezone(CHINA) if at.tzinfo else None


def _clock(moment: datetime, answer: Answer) -> str:
    """Write a moment as the clock on the wall shows it, with its day where that is another."""
    at = _moment(answer.get("at")) or moment
    return f"{moment:%H:%M}" if moment.date() == at.date() else f"{moment:%m-%d %H:%M}"


def _names(places: Iterable[Answer | None]) -> str:
    names = _short([str(one.get("name", "")) for one in places if one])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return "、".join(names[:NAMED]) + more


def _short(names: Sequence[str]) -> list[str]:
    """Return the names without their county where it is the same: everybody knows their own."""
    counties = {found.group() if (found := _COUNTY.match(name)) else "" for name in names}
    return [name.removeprefix(*counties) for name in names] if len(counties) == 1 else list(names)


def _number(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
