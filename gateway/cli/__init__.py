"""The command line `mingluo`: processes of a gateway, checks without one, and the HTTP API from a terminal.

Exit codes: 0 done, 1 the answer is no (an invalid message, a refusal, a broken chain), 2 it could not be asked
(wrong use, wrong settings, nobody answers). Data goes to standard output, everything else to standard error.
Commands import what they need when they run, so that `mingluo --help` costs little.
"""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli import (
    alert,
    bench,
    cap,
    decision,
    demo,
    device,
    doctor,
    drill,
    duty,
    history,
    installation,
    key,
    national,
    policy,
    process,
    reply,
    roster,
    simulate,
    speaker,
    speech,
)
from gateway.cli.frame import Root

app = typer.Typer(
    name="mingluo",
    cls=Root,
    help="Mingluo (鸣锣): from an official warning to every affected village, reached and proven.",
    epilog="Begin with: mingluo doctor, then mingluo serve. Every command has --help with an example.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its help pages cost three times the start of everything else
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mingluo {version('mingluo')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Say what all commands have in common."""


for part in (
    process,
    doctor,
    alert,
    decision,
    drill,
    duty,
    history,
    reply,
    national,
    speaker,
    installation,
    key,
    roster,
    cap,
    policy,
    simulate,
    device,
    speech,
    demo,
    bench,
):
    part.add(app)


def main() -> None:
    """Run the command line; the console script `mingluo`."""
    app()
