"""`mingluo policy hazards` and `hazard`: what the policy and the templates know of a hazard."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.frame import AsJson, print_json, print_table
from gateway.cli.lookup import (
    COLOURS,
    GROUPS,
    LANGUAGES,
    At,
    Folder,
    Templates,
    find_hazard,
    load_library,
    load_policy,
    moment,
)

if TYPE_CHECKING:
    from gateway.model import Level
    from gateway.policy import Hazard, Policy
    from gateway.render.library import Library

WIDE = 120  # columns


def hazards(at: At = None, folder: Folder = None, json: AsJson = False) -> None:
    """List all hazards: names (English on a wide terminal), bureaus, colours by table, green or not.

    Example: mingluo policy hazards
    """
    policy, then = load_policy(folder), moment(at)
    tables = sorted({row.table for row in policy.tables.levels})
    rows: list[dict[str, Any]] = []
    for one in policy.tables.hazards:
        found = _tables_of(policy, one, then)
        colours = {table: list(found[table]["colours"]) for table in tables if table in found}
        rows.append({
            "code": one.code, "zh": one.zh, "en": one.en, "bureaus": list(one.bureaus),
            "colours": colours, "green": one.code in policy.tables.green.hazards,
        })  # fmt: skip
    if json:
        print_json({"hazards": rows})
        return
    shown, wide = [], not sys.stdout.isatty() or shutil.get_terminal_size().columns >= WIDE
    for row in rows:
        letters = ("".join(COLOURS[colour] for colour in row["colours"].get(table, ())) for table in tables)
        english = [row["en"]] if wide else []
        shown.append((row["code"], row["zh"], *english, "、".join(row["bureaus"]), *letters, "green" * row["green"]))
    print_table(("code", "name", *(["English"] if wide else []), "bureaus", *tables, ""), shown)


def hazard(
    code: Annotated[str, typer.Argument(metavar="CODE", help="GB/T 35561 code or name: 11B03, 暴雨, rainstorm.")],
    at: At = None,
    folder: Folder = None,
    templates: Templates = None,
    json: AsJson = False,
) -> None:
    """Print what is known of a hazard: names, bureaus, colours with criteria, green or not, advice.

    Example: mingluo policy hazard 11B03
    """
    policy, library, then = load_policy(folder), load_library(templates), moment(at)
    found = find_hazard(policy, code)
    tables = _tables_of(policy, found, then)
    levels = sorted({level for row in policy.tables.levels if row.hazard == found.code for level in (row.level,)})
    advice = list(_advice(library, found.code, levels))
    if json:
        print_json(found.model_dump() | {
            "green": found.code in policy.tables.green.hazards, "tables": tables, "advice": advice,
        })  # fmt: skip
        return
    typer.echo(f"{found.code} {found.zh}, {found.en}; may be warned of by {'、'.join(found.bureaus)}")
    typer.echo(f"green channel: {'on the list' if found.code in policy.tables.green.hazards else 'not on the list'}")
    rows = (
        (f"{table} {one['version']}", colour, criteria or "not recorded; read the order")
        for table, one in tables.items()
        for colour, criteria in one["colours"].items()
    )
    if tables:
        print_table(("table in force", "colour", "from"), rows)
    else:
        typer.echo("colours: no table lists it, so every colour may be used")
    print_table(
        ("level", "for", "Chinese", "English"), ((one["level"], one["group"], one["zh"], one["en"]) for one in advice)
    )


def _tables_of(policy: Policy, hazard: Hazard, at: datetime) -> dict[str, Any]:
    """Return the tables in force that list the hazard: version, first day and colours with criteria."""
    from gateway.policy.hazard import in_force

    found = {}
    for table in sorted({row.table for row in policy.tables.levels}):
        version = in_force(policy.tables, table, at)
        if version and (colours := version.of(hazard.code)):
            named = {level.name.lower(): criteria for level, criteria in colours.items()}
            found[table] = {"version": version.name, "since": version.since.isoformat(), "colours": named}
    return found


def _advice(library: Library, code: str, levels: list[Level]) -> Iterator[dict[str, str]]:
    for level in [level.name.lower() for level in levels] or ["*"]:
        for group in GROUPS:
            texts = {language: library.advice(language, code, level, group).text for language in LANGUAGES}
            yield {"level": level, "group": group, **texts}
