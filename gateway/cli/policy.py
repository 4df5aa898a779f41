"""`mingluo policy`: check the policy's files, make a token; its other commands stand in files of their own."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.cap import load_regions
from gateway.cli.explain import explain
from gateway.cli.frame import NO, AsJson, load_settings, print_json, tell, wrong_use
from gateway.cli.hazard import hazard, hazards
from gateway.cli.lookup import GROUPS, LANGUAGES, Folder, Templates, find_issuer, load_library, load_policy

if TYPE_CHECKING:
    from gateway.policy import Policy
    from gateway.render.library import Library

TOKEN_BYTES = 32


class Role(StrEnum):
    """What a token's person may do."""

    ISSUER = "issuer"
    REVIEWER = "reviewer"
    SIGNER = "signer"
    CLERK = "clerk"
    VIEWER = "viewer"
    ADMIN = "admin"


def check(folder: Folder = None, templates: Templates = None, json: AsJson = False) -> None:
    """Check every file of the policy, alone and against the others, the places, the advice and the installed channels.

    Each finding names file, key and fix; ends with 1 if there is one.

    Example: mingluo policy check --policy config/policy
    """
    from gateway.errors import ConfigError

    settings = load_settings()
    try:
        policy = load_policy(folder or settings.config / "policy")
        library = load_library(templates or settings.templates)
        findings = [*_against_installation(policy), *_against_templates(policy, library)]
    except ConfigError as error:
        findings = str(error).splitlines()
    if json:
        print_json({"valid": not findings, "findings": findings} | ({} if findings else {"digest": policy.digest}))
    else:
        size = "" if findings else f"{len(policy.issuers)} issuers, {len(policy.tables.hazards)} hazards"
        typer.echo("\n".join(findings) or f"the policy is whole: {size}, digest {policy.digest[:12]}")
    if findings:
        raise typer.Exit(NO)


def _against_installation(policy: Policy) -> Iterator[str]:
    """Yield channels and areas that the policy names and nobody has."""
    from gateway.errors import ConfigError
    from gateway.installed import channel_classes

    try:
        policy.check_channels(channel_classes())
    except ConfigError as error:
        yield str(error)
    regions = load_regions(None)
    named = [(f"authority.toml: issuer {one.id}: areas", one.areas) for one in policy.issuers]
    named += [(f"authority.toml: issuer {one.id}: ceiling", one.ceiling) for one in policy.issuers]
    for one in policy.issuers:
        named += [
            (f"authority.toml: issuer {one.id}, grant {number}: areas", grant.areas or ())
            for number, grant in enumerate(one.grant, 1)
        ]
    for where, areas in [*named, ("defaults.toml: drill.areas", policy.drill.areas)]:
        for area in areas:
            if not regions.get(area) and not regions.under(area):
                yield f"{where}: no place has the code {area}; correct it, or add the place to config/regions"


def _against_templates(policy: Policy, library: Library) -> Iterator[str]:
    """Yield hazards that are signalled without advice or an English name, and advice for codes nobody knows."""
    from gateway.model import Level

    codes = [hazard.code for hazard in policy.tables.hazards]
    for language in LANGUAGES:
        for file, prefixes in (("advice.csv", library.advised(language)), ("hazards.csv", library.named(language))):
            for prefix in sorted(prefixes):
                if not any(code.startswith(prefix) for code in codes):
                    yield f"templates/{language}/{file}: no hazard begins with {prefix}; correct the code"
    signalled = {(row.hazard, row.level) for row in policy.tables.levels}
    signalled |= {(code, level) for code in policy.tables.green.hazards for level in Level if level}
    for code, level in sorted(signalled):
        for language in LANGUAGES:
            for group in GROUPS:
                if library.advice(language, code, level.name.lower(), group).hazard in ("", "*"):
                    yield f"templates/{language}/advice.csv: no row for {code} {level.name.lower()} {group}; add one"
    for code in sorted({code for code, _ in signalled}):
        if not library.hazard("en", code):
            yield f"templates/en/hazards.csv: no name for {code}; add one"


def token(
    issuer: Annotated[str, typer.Option(metavar="ID", help="Id of the issuer the person belongs to.")],
    name: Annotated[str, typer.Option(help="Who holds it; stands in the audit chain.")],
    role: Annotated[Role, typer.Option(help="What the person may do.")] = Role.VIEWER,
    folder: Folder = None,
    json: AsJson = False,
) -> None:
    """Make a new random API token and print its row for tokens.toml, which holds only the hash.

    The token goes to standard error, the row to standard output: >> tokens.toml never stores the token itself.
    It is shown once and kept nowhere: hand it to the person, then restart the gateway.

    Example: mingluo policy token --issuer 411726-qxj --name 值班预报员 --role issuer >> config/policy/tokens.toml
    """
    body = find_issuer(load_policy(folder), issuer)
    text = secrets.token_urlsafe(TOKEN_BYTES)
    values = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "issuer": body.id, "name": name, "role": role.value}
    if not name.strip() or not name.isprintable():
        wrong_use("--name: write the person's name or post in printable characters")
    if json:
        print_json({"token": text, "row": values})
        return
    tell(f"The token, shown this once:\n\n  {text}\n\nThe row for config/policy/tokens.toml:\n")
    typer.echo("\n".join(["[[token]]", *(f"{key} = {_toml(value)}" for key, value in values.items())]))


def _toml(value: str) -> str:
    """Write a TOML basic string of printable characters."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def add(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Check the policy, look a hazard up, explain a decision, make a token.", no_args_is_help=True
    )
    for command in (check, hazards, hazard, explain, token):
        group.command()(command)
    app.add_typer(group, name="policy", rich_help_panel="Without a gateway")
