"""`mingluo policy`: check the policy's files, explain a decision, make a token."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.cap import Geometry, Message, load_regions, read_alert
from gateway.cli.frame import NO, AsJson, load_settings, print_json, tell, wrong_use

if TYPE_CHECKING:
    from gateway.policy import Issuer, Policy

TOKEN_BYTES = 32

Folder = Annotated[
    Path | None, typer.Option("--policy", metavar="DIR", help="The policy's folder; default: config/policy.")
]


class Role(StrEnum):
    """What a token's person may do."""

    ISSUER = "issuer"
    REVIEWER = "reviewer"
    SIGNER = "signer"
    CLERK = "clerk"
    VIEWER = "viewer"
    ADMIN = "admin"


def _load(folder: Path | None) -> Policy:
    from gateway.policy import Policy

    return Policy.load(folder or load_settings().config / "policy")


def _issuer(policy: Policy, name: str) -> Issuer:
    issuer = policy.issuer(name)
    if issuer is None:
        wrong_use(f"--issuer {name}: no such issuer; there are {', '.join(one.id for one in policy.issuers)}")
    return issuer


def check(folder: Folder = None, json: AsJson = False) -> None:
    """Check every file of the policy, alone and against the others and the installed channels.

    Each finding names file, key and fix; ends with 1 if there is one.

    Example: mingluo policy check --policy config/policy
    """
    from gateway.app import channel_classes
    from gateway.errors import ConfigError

    where = folder or load_settings().config / "policy"
    try:
        policy = _load(where)
        policy.check_channels(channel_classes())
    except ConfigError as error:
        findings = str(error).splitlines()
        if json:
            print_json({"valid": False, "findings": findings})
        else:
            typer.echo("\n".join(findings))
        raise typer.Exit(NO) from None
    if json:
        print_json({"valid": True, "findings": [], "digest": policy.digest})
    else:
        typer.echo(f"the policy is whole: {len(policy.issuers)} issuers, digest {policy.digest[:12]}")


def explain(
    file: Message,
    issuer: Annotated[str, typer.Option(metavar="ID", help="Id or CAP sender of the issuer.")],
    folder: Folder = None,
    at: Annotated[
        datetime | None, typer.Option(help="As if it were then (UTC); default: now.", formats=["%Y-%m-%dT%H:%M"])
    ] = None,
    geometry: Geometry = None,
    json: AsJson = False,
) -> None:
    """Say whether this issuer may send this message, which way it would leave and why, and who else may send it.

    Knows the files only: an update is judged without the versions before it, so it is never green here.
    Ends with 1 if the message would be refused.

    Example: mingluo policy explain warning.xml --issuer 411726-qxj
    """
    policy = _load(folder)
    body, alert, regions = _issuer(policy, issuer), read_alert(file), load_regions(geometry)
    resolution = regions.resolve(alert.areas, body.areas)
    kept, cut = policy.border(body, resolution.targets)
    refused = policy.authority(body, alert, kept)
    now = at.replace(tzinfo=UTC) if at else datetime.now(UTC)
    lines = policy.explain(alert, body, kept, now).splitlines()
    lines += [f"unresolved: {name}" for name in resolution.unresolved]
    lines += [f"cut at the border: {regions.path_name(target.township)}" for target in cut]
    if json:
        print_json({"allowed": not refused, "refused": refused, "lines": lines})
    else:
        typer.echo("\n".join(lines))
    if refused:
        raise typer.Exit(NO)


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
    body = _issuer(_load(folder), issuer)
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
    group = typer.Typer(help="Check the policy, explain a decision, make a token.", no_args_is_help=True)
    for command in (check, explain, token):
        group.command()(command)
    app.add_typer(group, name="policy", rich_help_panel="Without a gateway")
