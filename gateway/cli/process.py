"""Processes of a gateway: `serve` (everything in one), the roles of a cluster, and `migrate`."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.frame import load_channels, load_settings, owned_elsewhere, tell
from gateway.model import Lane

if TYPE_CHECKING:
    from gateway.app import App
    from gateway.settings import Settings

DEMO_TOKEN = "demo-411726-qxj-issuer"  # noqa: S105 - public; opens simulations only
BULK_NICE = 15  # bulk work gives way to whatever is urgent on the same machine
ALL_LANES = ",".join(Lane)

Host = Annotated[str | None, typer.Option(help="Address to listen on; default MINGLUO_HOST or 127.0.0.1.")]
Port = Annotated[int | None, typer.Option(help="TCP port of its own; default MINGLUO_PORT or 8080; 0: a free one.")]
Lanes = Annotated[str, typer.Option(metavar="LANES", help="Lanes it takes from, comma between; default: all four.")]


def run(
    settings: Settings, roles: Collection[str], announce: Callable[[App], None], lanes: Collection[Lane] = tuple(Lane)
) -> None:
    """Run roles until SIGTERM or SIGINT, then end in order; a second signal ends at once.

    `announce` is called once everything has started; a worker takes from `lanes` only.
    """
    import uvloop

    from gateway import log
    from gateway.app import App, collect_seldom
    from gateway.errors import ConfigError

    async def work() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def end() -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        with suppress(asyncio.CancelledError):
            async with App(settings, roles, lanes=lanes) as app:
                collect_seldom()
                announce(app)
                await app.serve()

    load_channels(settings)  # its mistakes are told before anything is opened
    log.configure(settings.log_level, pretty=sys.stderr.isatty())
    with (
        owned_elsewhere("stop it first, or give this one another MINGLUO_DATA"),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        try:
            runner.run(work())
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            where = f"{settings.host}:{settings.port}"
            raise ConfigError(f"{where}: another process listens there; end it, or choose another --port") from None


def serve(host: Host = None, port: Port = None) -> None:
    """Run the whole gateway in one process, with SQLite and its own Valkey below MINGLUO_DATA (default: var).

    An installation starts in simulation: nothing but this machine is talked to before two people have made a
    channel live. Ends in order on Ctrl-C or SIGTERM.

    Example: mingluo serve --port 8080
    """
    from gateway.app import ROLES

    settings = load_settings(host=host, port=port)

    run(settings, ROLES, _announce)


def _announce(app: App) -> None:
    url = f"http://{app.settings.host}:{app.port}"
    demo = app.core.simulation and app.core.policy.principal(DEMO_TOKEN, simulation=True) is not None
    second = "   # others end in -reviewer, -signer, -clerk" if demo else ""
    typer.echo(f"Mingluo listens on {url} (Ctrl-C ends it); its API: {url}/openapi.json")
    typer.echo(f"Channels: {', '.join(sorted(app.channels)) or 'none'}. What is still missing: mingluo doctor")
    typer.echo("Next, in another terminal:")
    typer.echo(f"  export MINGLUO_URL={url} MINGLUO_TOKEN={DEMO_TOKEN if demo else '…'}{second}")
    typer.echo("  mingluo cap sample > alert.xml && mingluo preview alert.xml && mingluo issue alert.xml")
    typer.echo("Rosters are imported while it is stopped: mingluo import officials FILE")


def _role(role: str, settings: Settings, lanes: Collection[Lane] = tuple(Lane)) -> None:
    if settings.embedded:
        from gateway.errors import ConfigError

        raise ConfigError(
            f"{role} is one process of a cluster: set MINGLUO_AMQP_URL, MINGLUO_DATABASE_URL and MINGLUO_REDIS_URL, "
            "or run everything in one process with: mingluo serve"
        )
    run(settings, [role], lambda app: tell(f"{role} runs on {settings.host}:{app.port}"), lanes)


def _give_way() -> None:
    with suppress(PermissionError):  # already nicer than we may ask for
        os.nice(BULK_NICE - os.nice(0))


def api(host: Host = None, port: Port = None) -> None:
    """Run the HTTP API of a cluster (/openapi.json describes it); any number of them.

    Example: mingluo api --host 0.0.0.0 --port 8080
    """
    _role("api", load_settings(host=host, port=port))


def planner(host: Host = None, port: Port = None) -> None:
    """Run a planner of a cluster: resolves audiences and publishes batches, at nice 15.

    Example: mingluo planner --port 8082
    """
    settings = load_settings(host=host, port=port)
    _give_way()
    _role("planner", settings)


def worker(host: Host = None, port: Port = None, lanes: Lanes = ALL_LANES) -> None:
    """Run a worker of a cluster: claims batches and sends them through the HTTP channels.

    Run one for green,urgent and one for bulk,service, so that a red warning never waits for the processor behind a
    million blue ones; a worker without green and urgent runs at nice 15.

    Example: mingluo worker --port 8083 --lanes green,urgent
    """
    taken = _lanes(lanes)
    settings = load_settings(host=host, port=port)
    if taken.isdisjoint({Lane.GREEN, Lane.URGENT}):
        _give_way()
    _role("worker", settings, taken)


def _lanes(text: str) -> frozenset[Lane]:
    from gateway.errors import ConfigError

    try:
        return frozenset(Lane(name.strip()) for name in text.split(","))
    except ValueError:
        raise ConfigError(f"--lanes {text}: name one or more of {ALL_LANES}, comma between") from None


def hub(host: Host = None, port: Port = None) -> None:
    """Run a hub of a cluster: holds the sockets of loudspeakers and carriers.

    Example: mingluo hub --port 8081
    """
    _role("hub", load_settings(host=host, port=port))


def scheduler(host: Host = None, port: Port = None) -> None:
    """Run a scheduler of a cluster: expiry, review clock, ladder, sealing.

    Example: mingluo scheduler --port 8084
    """
    _role("scheduler", load_settings(host=host, port=port))


def migrate() -> None:
    """Bring the database to this version's schema; does nothing where it already is.

    Processes do so at their start as well; run it by hand to see whether it works.

    Example: mingluo migrate
    """
    from gateway.database import Database

    database = Database(load_settings().database())

    async def work() -> None:
        await database.open()
        await database.close()

    with owned_elsewhere("it brought the schema up to date when it started; stop it first to do it by hand"):
        asyncio.run(work())
    typer.echo("the database has this version's schema")


def add(app: typer.Typer) -> None:
    """Add the commands."""
    panel = "Processes"
    for command in (serve, api, planner, worker, hub, scheduler, migrate):
        app.command(rich_help_panel=panel)(command)
