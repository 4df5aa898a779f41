"""Rosters: import officials, residents, subscribers and devices; write a synthetic one."""

from __future__ import annotations

import csv
import getpass
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.frame import NO, AsJson, load_settings, print_json, print_table, tell
from gateway.cli.installation import Now, with_store

if TYPE_CHECKING:
    from gateway.database import Database
    from gateway.directory.importer import Imported, Importer
    from gateway.store import Store

KEY_FILE = "secret.key"  # where an embedded gateway keeps its own
SHOWN = 20  # row errors on the terminal


class Kind(StrEnum):
    """What a table lists."""

    OFFICIALS = "officials"
    RESIDENTS = "residents"
    SUBSCRIBERS = "subscribers"
    DEVICES = "devices"


def import_(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="officials, residents, subscribers or devices.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="CSV tables, UTF-8 or GB18030.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Retire whom the table no longer lists, in the counties it lists.")
    ] = False,
    errors: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all row errors there as CSV.")] = None,
    json: AsJson = False,
) -> None:
    """Import rosters. Rows that are wrong are named and left out, the others are imported; again changes nothing.

    Columns in English or Chinese, in any order. Ends with 1 if a row was wrong. Opens the database itself.

    Example: mingluo import officials officials.csv --errors wrong.csv
    """
    from gateway.directory.importer import Importer
    from gateway.directory.vault import Vault
    from gateway.errors import ConfigError
    from gateway.regions import Regions

    if replace and len(files) > 1:
        raise ConfigError("--replace takes one file: a second one would retire whom the first one lists")
    settings = load_settings()
    sizes = [path.stat().st_size for path in files]  # all can be found, before anything is imported
    regions = Regions.load(settings.config / "regions")
    key = settings.secret_key.get_secret_value()
    if not key and not settings.database().startswith("sqlite") and not (settings.data / KEY_FILE).exists():
        # One made on the spot would seal these people for nobody.
        raise ConfigError("set MINGLUO_SECRET_KEY to the key the gateway of this PostgreSQL database uses")
    vault = Vault.of(key, settings.data)

    async def work(store: Store, database: Database) -> list[Imported]:
        importer = Importer(database, vault, regions, Now())
        return [
            await _one(importer, store, path, size, kind, replace=replace)
            for path, size in zip(files, sizes, strict=True)
        ]

    advice = "stop it, import, and start it again (a cluster's database can be imported into while it runs)"
    results = with_store(settings, advice, work)
    for path, result in zip(files, results, strict=True):
        _show(path, result, as_json=json)
    if errors is not None:
        _write_errors(errors, files, results)
    if any(result.errors for result in results):
        raise typer.Exit(NO)


async def _one(importer: Importer, store: Store, path: Path, size: int, kind: Kind, *, replace: bool) -> Imported:
    """Import one table, with a progress bar where somebody looks, and write the audit record."""
    from rich.console import Console
    from rich.progress import Progress

    from gateway.directory.table import Roster
    from gateway.model import Record

    console = Console(stderr=True)
    with (
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
        path.open("rb") as file,
    ):
        stream = progress.wrap_file(file, total=size, description=path.name)
        result = await importer.read(stream, Roster(kind.value), replace=replace)
    counts = f"{result.added} added, {result.updated} updated, {result.failed} failed, {result.retired} retired"
    actor = f"console/{getpass.getuser()}"
    await store.audit.append(Record(datetime.now(UTC), actor, "import", kind.value, counts))
    return result


def _show(path: Path, result: Imported, *, as_json: bool) -> None:
    numbers = {
        name: getattr(result, name) for name in ("rows", "added", "updated", "unchanged", "failed", "retired", "ended")
    }
    if as_json:
        wrong = [error._asdict() for error in result.errors]
        print_json({"file": str(path), "kind": result.kind.value, "encoding": result.encoding, **numbers}
                   | {"ignored": result.ignored, "errors": wrong})  # fmt: skip
        return
    typer.echo(f"{path} ({result.encoding}): " + ", ".join(f"{number} {name}" for name, number in numbers.items()))
    if result.ignored:
        tell(f"columns left out: {', '.join(result.ignored)}")
    if result.errors:
        print_table(("row", "column", "what to mend"), result.errors[:SHOWN])
        if len(result.errors) > SHOWN:
            tell(f"… and {len(result.errors) - SHOWN} more: --errors FILE writes them all")


def _write_errors(target: Path, files: Sequence[Path], results: Sequence[Imported]) -> None:
    """Write every row error as CSV with a BOM, so that office programs read it."""
    with target.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("file", "row", "column", "message"))
        for path, result in zip(files, results, strict=True):
            writer.writerows((path.name, *error) for error in result.errors)


def sample_roster(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the tables; made if it is not there.")],
    residents: Annotated[int, typer.Option(min=0, max=10_000_000, help="Rows of residents.csv.")] = 1_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 1,
    within: Annotated[str, typer.Option(metavar="PREFIX", help="Only townships whose code begins so.")] = "",
) -> None:
    """Write a synthetic roster (officials, residents, devices). Nobody in it exists and no number can ring.

    For demonstrations and load tests only: the devices' keys follow from the seed.

    Example: mingluo sample-roster --residents 20000 --seed 7 --out roster --within 411726
    """
    from gateway.directory.roster import write_sample
    from gateway.errors import ConfigError
    from gateway.regions import Regions

    regions = Regions.load(load_settings().config / "regions")
    townships = [one.code for one in regions.under(within)]
    if not townships:
        raise ConfigError(f"--within {within}: no township has a code that begins so; use for example 411726")
    sample = write_sample(out, regions, residents, seed, townships=townships)
    for path in sample:
        if path is not None:
            typer.echo(path)


def add(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import", rich_help_panel="This installation")(import_)
    app.command("sample-roster", rich_help_panel="Without a gateway")(sample_roster)
