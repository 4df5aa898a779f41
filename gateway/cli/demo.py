"""`mingluo demo`: the main job on this machine, with counterparts, ending by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line on standard output.")] = False,
    recipients: Annotated[int, typer.Option(min=1, help="Residents of the synthetic roster.")] = 20_000,
    alert: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="CAP file to issue instead.")] = None,
    amqp: Annotated[str, typer.Option(help="RabbitMQ URL: run as a cluster.")] = "",
    redis: Annotated[str, typer.Option(help="Redis URL of the cluster.")] = "",
    database: Annotated[str, typer.Option(help="PostgreSQL URL of the cluster (an empty database).")] = "",
    keep: Annotated[Path | None, typer.Option(help="Folder to leave logs and data in.")] = None,
) -> None:
    """Issue a red rainstorm for townships of 泌阳县 to simulated phones and loudspeakers, update it, cancel it.

    Example: mingluo demo --json --recipients 2000
    """
    import uvloop

    from gateway.bench.figures import figures
    from gateway.demo import run_demo
    from gateway.demo.stage import Servers

    if bool(amqp) != bool(database) or bool(amqp) != bool(redis):
        raise typer.BadParameter("a cluster needs --amqp, --redis and --database together")
    status = uvloop.run(
        run_demo(
            json_output=as_json,
            recipients=recipients,
            alert=alert,
            servers=Servers(amqp, redis, database),
            keep=keep,
            measure=lambda: figures(quick=True),
        )
    )
    raise typer.Exit(status)


def add(app: typer.Typer) -> None:
    """Put the command where the others are."""
    app.command(rich_help_panel="Try it")(demo)
