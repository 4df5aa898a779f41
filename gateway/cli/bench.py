"""`mingluo bench`: what this machine does, measured over loopback with invented people."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.frame import print_json, print_table, tell

if TYPE_CHECKING:
    from gateway.bench.page import Result


class Name(StrEnum):
    """What is measured."""

    ALL = "all"
    FANOUT = "fanout"
    HTTP = "http"
    CARRIERS = "carriers"
    FIRST = "first"
    INTAKE = "intake"
    SIGNED = "signed"
    FROZEN = "frozen"
    LEDGER = "ledger"
    ISOLATION = "isolation"
    IMPORT = "import"
    SPEAKERS = "speakers"


ORDER = (
    Name.INTAKE, Name.SIGNED, Name.FIRST, Name.SPEAKERS, Name.HTTP, Name.CARRIERS, Name.FANOUT, Name.ISOLATION,
    Name.LEDGER, Name.IMPORT, Name.FROZEN,
)  # fmt: skip


def bench(
    name: Annotated[Name, typer.Argument(metavar="[NAME]", help=f"{', '.join(Name)}.")] = Name.ALL,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line per bench.")] = False,
    recipients: Annotated[
        int | None,
        typer.Option(min=1, help="Residents (fanout, isolation, import, intake), texts, receipts, loudspeakers."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds; alerts for first and isolation.")] = None,
    peers: Annotated[
        bool, typer.Option(help="Also Celery, Dramatiq, taskiq, FastStream (fanout), in environments of their own.")
    ] = True,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Of each part (intake), of silence (speakers).")
    ] = None,
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write these sections of a page.")] = None,
) -> None:
    """Measure intake, loudspeakers, HTTP channels, carriers, fan-out and what it costs others, ledger, import, peers.

    Nothing real is sent and nothing of an installation is touched. Without options: about fifteen minutes on two cores.
    The clusters of fanout and isolation, and peers, need MINGLUO_AMQP_URL, MINGLUO_DATABASE_URL and MINGLUO_REDIS_URL;
    ledger and import are also measured on that PostgreSQL, a frozen neighbour on that RabbitMQ. Databases, queues, keys
    are the bench's own and removed. `make bench` starts private servers.

    Example: mingluo bench fanout --recipients 100000 --rounds 3 --json
    """
    import uvloop

    names = ORDER if name is Name.ALL else (name,)
    results = [uvloop.run(_whole(_measure(one, recipients, rounds, seconds, peers=peers))) for one in names]
    _show(results, as_json=as_json)
    if write is not None:
        _write(results, write)


async def _whole(measured: Coroutine[Any, Any, Result]) -> Result:
    """Await a bench; a signal ends it in order, for its child processes would outlive this one."""
    from gateway.demo.run import ended_by_signals

    with ended_by_signals() as got:
        try:
            return await measured
        except asyncio.CancelledError:
            if not got:
                raise
            tell(f"ended by {got[0].name}: every process is stopped")
            raise typer.Exit(128 + got[0]) from None


async def _measure(
    name: Name, recipients: int | None, rounds: int | None, seconds: float | None, *, peers: bool
) -> Result:
    from gateway.bench.carriers import carriers
    from gateway.bench.fanout import fanout
    from gateway.bench.first import first
    from gateway.bench.frozen import frozen
    from gateway.bench.http import http
    from gateway.bench.installation import given
    from gateway.bench.intake import intake
    from gateway.bench.isolation import isolation
    from gateway.bench.ledger import ledger
    from gateway.bench.roster import roster
    from gateway.bench.signed import signed
    from gateway.bench.speakers import speakers

    tell(f"measuring {name.value} …")
    if name is Name.INTAKE:
        return await intake(seconds or 5.0, rounds or 3, recipients or 100_000)
    if name is Name.SIGNED:
        return await signed(rounds=rounds or 7)
    if name is Name.LEDGER:
        return await ledger(recipients or 10_000_000, rounds or 5)
    if name is Name.FROZEN:
        return await frozen(rounds or 5)
    if name is Name.IMPORT:
        return await roster(recipients or 50_000, rounds or 1)
    if name is Name.FANOUT:
        return await fanout(recipients or 1_000_000, rounds or 5, servers=given(), peers=peers, say=tell)
    if name is Name.ISOLATION:
        return await isolation(recipients or 1_000_000, rounds or 50, given(), tell)
    if name is Name.SPEAKERS:
        return await speakers(recipients or 6_000, rounds or 7, seconds or 60.0, tell)
    if name is Name.CARRIERS:
        return await carriers(recipients or 150_000, tell)
    if name is Name.HTTP:
        return await http(recipients or 2_000, rounds or 7)
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
    before = path.read_text("utf8") if path.exists() else ""
    path.write_text(page(results, command, datetime.now(UTC).date(), before), encoding="utf8")
    tell(f"{path} written")


def add(app: typer.Typer) -> None:
    """Put the command where the others are."""
    app.command(rich_help_panel="Try it")(bench)
