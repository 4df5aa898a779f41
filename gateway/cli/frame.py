"""What all commands share: errors as one clear line, settings, channels, tables, and standard output as data.

Called by every file of the command line. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from gateway.channel import Channel
    from gateway.link import Rate
    from gateway.settings import Settings

NO = 1
CANNOT = 2
WHOLE = frozenset({"id", "alert", "recipient", "code"})
"""Columns that are never folded."""

AsJson = Annotated[bool, typer.Option("--json", help="Print the data as JSON.")]


class Root(TyperGroup):
    """The topmost group: turns errors a person can mend into one line each; a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            typer.Exit: with 2, after the error was said.
        """
        try:
            return super().invoke(ctx)
        except Exception as error:
            text = explain(error)
            if text is None:
                raise
            complain(text)
            raise typer.Exit(CANNOT) from None


def explain(error: Exception) -> str | None:
    """Return what to tell a person, a line per finding; None for a bug."""
    from gateway.errors import MingluoError, Refused, StoreDown

    if isinstance(error, Refused):
        further = (item.get("message", "") for item in error.errors if item.get("message") != error.detail)
        return "\n".join([error.detail, *(f"  {text}" for text in further)])
    if isinstance(error, StoreDown):
        return f"{error}: check MINGLUO_DATABASE_URL, that the database runs, and its disk"
    if isinstance(error, MingluoError):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        reason = error.strerror or str(error) or type(error).__name__
        return f"{error.filename}: {reason}" if error.filename else reason
    if type(error).__module__ == "sqlalchemy.exc" and type(error).__name__ == "OperationalError":
        # The driver's own words may quote the address with its password.
        return "the database cannot be reached: check MINGLUO_DATABASE_URL, that the database runs, and its disk"
    return None


def complain(text: str) -> None:
    """Say what is wrong on standard error."""
    for line in text.splitlines():
        typer.echo(f"mingluo: {line}", err=True)


def wrong_use(text: str) -> NoReturn:
    """Say what is wrong with the command and end with 2."""
    complain(text)
    raise typer.Exit(CANNOT)


def refuse(text: str) -> NoReturn:
    """Say that the answer is no and end with 1."""
    complain(text)
    raise typer.Exit(NO)


def tell(text: str) -> None:
    """Say something to the person on standard error, beside the data."""
    typer.echo(text, err=True)


def print_json(value: object) -> None:
    """Print data as one JSON line, Chinese readable."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table as wide as the terminal, or as wide as it needs where nobody reads it.

    Ids stay on one line, whatever the width: they are there to be copied.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = None if sys.stdout.isatty() else 200
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, show_edge=False, padding=(0, 1, 0, 0)
    )
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in WHOLE)
    for row in rows:
        # Text, not markup: a name in brackets is a name.
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    Console(file=sys.stdout, width=width, highlight=False).print(table)


def load_settings(**given: object) -> Settings:
    """Read the settings from the environment; what is given (and not None) stands above it.

    Raises:
        ConfigError: naming the variable and the fix.
    """
    import logging

    from pydantic import ValidationError
    from pydantic_settings.exceptions import SettingsError

    from gateway.errors import ConfigError
    from gateway.settings import Settings

    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # checked by pydantic
    except ValidationError as error:
        wrong = (f"MINGLUO_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise ConfigError("\n".join(wrong)) from None
    except SettingsError as error:
        raise ConfigError(f"{error}; write lists as JSON, for example MINGLUO_GEOMETRY='[\"a.geojson\"]'") from None
    if settings.log_level.upper() not in logging.getLevelNamesMapping():
        raise ConfigError("MINGLUO_LOG_LEVEL: use debug, info, warning or error")
    return settings


def load_channels(settings: Settings) -> tuple[dict[str, Channel], dict[str, Rate]]:
    """Build the enabled channels of `channels.toml`; none is opened. Return them, and what their accounts allow.

    Raises:
        ConfigError: naming the table, the key and what is wrong.
    """
    import tomllib

    from pydantic import ValidationError

    from gateway.errors import ConfigError
    from gateway.installed import load_channels as load

    path = settings.channels or settings.config / "channels.toml"
    try:
        return load(path)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name}: not valid TOML: {error}; mend that line") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        raise ConfigError(f"{path.name}: [rates] {wrong}") from None


@contextmanager
def owned_elsewhere(advice: str) -> Iterator[None]:
    """Say what to do instead when the embedded database belongs to a running gateway."""
    from gateway.errors import ConfigError

    try:
        yield
    except ConfigError as error:
        if "belongs to another running process" not in str(error):
            raise
        raise ConfigError(f"the database belongs to the running gateway: {advice}") from None
