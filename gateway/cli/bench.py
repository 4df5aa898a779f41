"""`mingluo bench`: what this machine does, measured over loopback with invented people."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.frame import print_json, print_table, tell

if TYPE_CHECKING:
    from gateway.bench.page import Result


class Name(StrEnum):
    """What is measured."""

    ALL = "all"
    FANOUT = "fanout"
    SMS = "sms"
    FIRST = "first"


ORDER = (Name.FIRST, Name.SMS, Name.FANOUT)


def bench(
    name: Annotated[Name, typer.Argument(metavar="[NAME]", help="fanout, sms, first or all.")] = Name.ALL,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line per bench.")] = False,
    recipients: Annotated[int | None, typer.Option(min=1, help="Residents (fanout), texts per round (sms).")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds; alerts for first.")] = None,
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the page of the figures.")] = None,
) -> None:
    """Measure the fan-out, the SMS channel and the way to the first loudspeaker, each in processes of its own.

    Nothing real is sent and nothing of an installation is touched. Without options: about two minutes on two cores.

    Example: mingluo bench fanout --recipients 100000 --rounds 3 --json
    """
    import uvloop

    names = ORDER if name is Name.ALL else (name,)
    results = [uvloop.run(_measure(one, recipients, rounds)) for one in names]
    _show(results, as_json=as_json)
    if write is not None:
        _write(results, write)


async def _measure(name: Name, recipients: int | None, rounds: int | None) -> Result:
    from gateway.bench.fanout import fanout
    from gateway.bench.first import first
    from gateway.bench.sms import sms

    tell(f"measuring {name.value} …")
    if name is Name.FANOUT:
        return await fanout(recipients or 100_000, rounds or 3)
    if name is Name.SMS:
        return await sms(recipients or 2_000, rounds or 7)
    return await first(rounds or 40)


def _show(results: list[Result], *, as_json: bool) -> None:
    import msgspec

    from gateway.bench.page import TITLES, rows

    for result in results:
        print_table(("figure", "measured", "target"), rows(result), TITLES[result.bench])
    for result in results if as_json else ():
        print_json(msgspec.to_builtins(result))


def _write(results: list[Result], path: Path) -> None:
    import shlex
    from datetime import UTC, datetime

    from gateway.bench.page import page

    command = shlex.join(["mingluo", *sys.argv[1:]])
    path.write_text(page(results, command, datetime.now(UTC).date()), encoding="utf8")
    tell(f"{path} written")


def add(app: typer.Typer) -> None:
    """Put the command where the others are."""
    app.command(rich_help_panel="Try it")(bench)
