"""Rosters: import officials, residents, subscribers and devices, export them; write a synthetic one."""

from __future__ import annotations

import csv
import getpass
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from gateway.cli.frame import NO, AsJson, load_settings, print_json, print_table, tell
from gateway.cli.installation import Now, vault_of, with_store
from gateway.cli.password import mqtt_passwords
from gateway.cli.person import erase, opt_in, opt_out, readmit

if TYPE_CHECKING:
    from rich.progress import TaskID

    from gateway.database import Database
    from gateway.directory.importer import Found, How, Imported, Importer, Progress
    from gateway.directory.table import RowError
    from gateway.store import Store

SHOWN = 20  # row errors on the terminal
FEW = 5  # rows named of those with the same note
OWNER_ONLY = 0o600
UNAUDITED = frozenset({"unchanged", "several", "shared"})


class Kind(StrEnum):
    """What a table lists."""

    OFFICIALS = "officials"
    RESIDENTS = "residents"
    SUBSCRIBERS = "subscribers"
    DEVICES = "devices"


def import_(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="officials, residents, subscribers or devices.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="CSV (UTF-8 or GB18030), .xlsx or .xls.")],
    full: Annotated[
        bool, typer.Option("--replace", help="It is the full list: whom it no longer names leaves its scope.")
    ] = False,
    within: Annotated[
        str, typer.Option(metavar="CODE", help="Scope: a county or township. Default: the counties it lists.")
    ] = "",
    removing: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", help="Refuse to remove more of those in the scope.")
    ] = 0.1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    errors: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every row error and note there as CSV.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Import rosters. Rows that are wrong are named and left out, the others are imported; again changes nothing.

    Columns in English or Chinese, in any order. A file comes in as a whole or, whatever happens, not at all. Ends
    with 1 if a row was wrong. Opens the database itself.

    Example: mingluo import residents residents.xlsx --replace --within 411726 --errors wrong.csv
    """
    from gateway.directory.importer import How, Importer
    from gateway.errors import ConfigError
    from gateway.regions import Regions

    if full and len(files) > 1:
        raise ConfigError("--replace takes one file: a second one would remove whom the first one lists")
    settings = load_settings()
    for path in files:
        path.stat()  # all can be found, before anything is imported
        if errors is not None and errors.exists() and errors.samefile(path):
            raise ConfigError("--errors names the list itself, which it would overwrite; give another file")
    regions = Regions.load(settings.config / "regions")
    vault = vault_of(settings)

    async def work(_store: Store, database: Database) -> list[tuple[Imported, Counter[str]]]:
        importer = Importer(database, vault, regions, Now())
        with _findings(errors) as note:
            return [
                await _one(importer, path, kind, How(full, within, removing, dry_run, found=note(path)))
                for path in files
            ]

    advice = "stop it, import, and start it again (a cluster's database can be imported into while it runs)"
    results = with_store(settings, advice, work)
    for path, (result, notes) in zip(files, results, strict=True):
        _show(path, result, notes, errors, as_json=json)
    if any(result.errors for result, _ in results):
        raise typer.Exit(NO)


async def _one(importer: Importer, path: Path, kind: Kind, how: How) -> tuple[Imported, Counter[str]]:
    """Import one table, with a progress bar where somebody looks; return also how many rows have each note."""
    from gateway.directory.table import Roster
    from gateway.model import Record

    def record(result: Imported) -> Record:
        counts = ", ".join(f"{number} {name}" for name, number in _numbers(result).items() if name not in UNAUDITED)
        full = f"full list of {how.within or 'the counties it lists'}: " if how.replace else ""
        return Record(datetime.now(UTC), f"console/{getpass.getuser()}", "import", kind.value, full + counts)

    notes: Counter[str] = Counter()

    def found(sort: str, finding: RowError) -> None:
        notes.update([finding.message] if sort == "note" else [])
        how.found(sort, finding)

    with _bar(path.name) as progress, path.open("rb") as file:
        asked = replace(how, progress=progress, record=record, found=found)
        return await importer.read(file, Roster(kind.value), asked), notes


@contextmanager
def _bar(name: str) -> Iterator[Progress]:
    """Show on a terminal how far an import is, rows a second and the time left."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn()
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(stage: str, share: float, rows: int) -> None:
            if stage not in tasks:
                text = escape(f"{name}: {stage}")  # a name in brackets is a name
                tasks[stage] = bars.add_task(text, total=1.0, rate="")
            passed = bars.tasks[tasks[stage]].elapsed or 0.0
            bars.update(tasks[stage], completed=share, rate=f"{rows:,} rows, {rows / max(passed, 0.1):,.0f}/s")

        yield progress


@contextmanager
def _findings(target: Path | None) -> Iterator[Callable[[Path], Found]]:
    """Write findings as they come, as CSV with a BOM, so that office programs read it."""
    from gateway.directory.export import neutral

    if target is None:
        yield lambda _path: lambda _kind, _finding: None
        return
    with target.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("file", "sheet", "row", "column", "kind", "message"))

        def of(path: Path) -> Found:
            def write(kind: str, found: RowError) -> None:
                writer.writerow((neutral(path.name), found.sheet or "", found.row, found.column, kind, found.message))

            return write

        yield of


def _numbers(result: Imported) -> dict[str, int]:
    names = ("rows", "failed", "added", "changed", "moved", "removed", "unchanged", "several", "shared")
    return {name: getattr(result, name) for name in names}


def _show(path: Path, result: Imported, notes: Counter[str], errors: Path | None, *, as_json: bool) -> None:
    numbers = _numbers(result)
    if as_json:
        found = {name: [one._asdict() for one in getattr(result, name)] for name in ("errors", "notes")}
        print_json({"file": str(path), "kind": result.kind.value, "format": result.format, "dry_run": result.dry}
                   | numbers | {"ignored": result.ignored, **found})  # fmt: skip
        return
    typer.echo(f"{path} ({result.format}): " + ", ".join(f"{number} {name}" for name, number in numbers.items()))
    if result.dry:
        tell("a dry run: nothing was changed")
    if result.ignored:
        tell(f"columns left out: {', '.join(result.ignored)}")
    if result.errors:
        shown = [(one.sheet or "", one.row, one.column, one.message) for one in result.errors[:SHOWN]]
        print_table(("sheet", "row", "column", "what to mend"), shown)
    if notes:
        rows = [(number, message, _first(result.notes, message)) for message, number in notes.most_common()]
        print_table(("rows", "what to look at", "the first of them"), rows)
    if notes or len(result.errors) > SHOWN:
        tell(f"every row by itself: {errors}" if errors else "every row by itself: --errors FILE writes them there")


def _first(notes: Sequence[RowError], message: str) -> str:
    """Name the first rows with a note."""
    found = [f"{one.row}" + (f" (sheet {one.sheet})" if one.sheet else "") for one in notes if one.message == message]
    return ", ".join(found[:FEW]) + (" …" if len(found) > FEW else "")


def export(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="officials, residents, subscribers or devices.")],
    within: Annotated[str, typer.Option(metavar="CODE", help="The county or township whose list it is.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The CSV; only its owner may read it.")],
) -> None:
    """Write a county's roster as CSV with a BOM, names and numbers in clear. The audit chain keeps who did it.

    It can be mended and imported again as it is. Opens the database itself.

    Example: mingluo roster export residents --within 411726 --out residents.csv
    """
    from gateway.directory.export import export as write
    from gateway.directory.table import Roster
    from gateway.errors import ConfigError
    from gateway.model import Record
    from gateway.regions import LISTED, Regions

    settings = load_settings()
    region = Regions.load(settings.config / "regions").get(within)
    if region is None or region.kind not in ("county", "township"):
        raise ConfigError(f"--within {within}: no county (6 digits) or township (9) has this code; {LISTED}")
    vault = vault_of(settings)

    async def work(store: Store, database: Database) -> int:
        actor = f"console/{getpass.getuser()}"
        # Before the first row: what was begun counts as seen.
        await store.audit.append(Record(datetime.now(UTC), actor, "export", kind.value, within))
        with _created(out) as file:
            return await write(database, vault, Roster(kind.value), within, file)

    number = with_store(settings, "stop it, export, and start it again", work)
    typer.echo(f"{out}: {number} rows; delete it when it has served")


@contextmanager
def _created(path: Path) -> Iterator[TextIO]:
    """Write a file that only its owner may read, also where it was there before; half of a list is not left there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY)
    os.fchmod(descriptor, OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="utf8", newline="") as file:
        try:
            yield file
        except BaseException:  # an interrupt as well
            if file.seekable():
                file.truncate(file.seek(0))
            raise


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
    from gateway.regions import LISTED, Regions

    regions = Regions.load(load_settings().config / "regions")
    townships = [one.code for one in regions.under(within)]
    if not townships:
        raise ConfigError(f"--within {within}: no township has a code that begins so; {LISTED}")
    sample = write_sample(out, regions, residents, seed, townships=townships)
    for path in sample:
        if path is not None:
            typer.echo(path)


def add(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import", rich_help_panel="This installation")(import_)
    group = typer.Typer(help="Rosters, and what the people in them may ask for.", no_args_is_help=True)
    for name, command in (("export", export), ("opt-out", opt_out), ("opt-in", opt_in), ("erase", erase),
                          ("readmit", readmit), ("mqtt-passwords", mqtt_passwords)):  # fmt: skip
        group.command(name)(command)
    app.add_typer(group, name="roster", rich_help_panel="This installation")
    app.command("sample-roster", rich_help_panel="Without a gateway")(sample_roster)
