"""What the commands about the policy share: its folder, a time, and words that must be known ones."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.frame import load_settings, wrong_use

if TYPE_CHECKING:
    from gateway.policy import Hazard, Issuer, Policy
    from gateway.render.library import Library

LANGUAGES = ("zh", "en")
GROUPS = ("officials", "residents")
COLOURS = {"blue": "蓝", "yellow": "黄", "orange": "橙", "red": "红"}

Folder = Annotated[
    Path | None, typer.Option("--policy", metavar="DIR", help="The policy's folder; default: config/policy.")
]
Templates = Annotated[
    Path | None, typer.Option("--templates", metavar="DIR", help="The templates' folder; default: templates.")
]
At = Annotated[
    str | None, typer.Option("--at", metavar="TIME", help="As if it were then: 2026-07-20T14:30 (China); default: now.")
]


def load_policy(folder: Path | None) -> Policy:
    """Read the policy of a folder, or of the settings.

    Raises:
        ConfigError: naming file, key and fix.
    """
    from gateway.policy import Policy

    return Policy.load(folder or load_settings().config / "policy")


def load_library(folder: Path | None) -> Library:
    """Read the templates of a folder, or of the settings.

    Raises:
        ConfigError: naming the file.
    """
    from gateway.render.library import Library

    return Library(folder or load_settings().templates)


def find_issuer(policy: Policy, name: str) -> Issuer:
    """Return the issuer of that id or CAP sender; ends with 2 if there is none."""
    issuer = policy.issuer(name)
    if issuer is None:
        wrong_use(f"--issuer {name}: no such issuer; there are {', '.join(one.id for one in policy.issuers)}")
    return issuer


def find_hazard(policy: Policy, text: str, option: str = "") -> Hazard:
    """Return a hazard by code or name; ends with 2 where none, or more than one, is meant, and says which there are."""
    if (found := policy.hazard(text.upper())) is not None:
        return found
    hazards = policy.tables.hazards
    if exact := [one for one in hazards if text.lower() in (one.zh, one.en.lower())]:
        return exact[0]
    like = [f"{one.code} {one.zh}" for one in hazards if text.lower() in f"{one.code} {one.zh} {one.en}".lower()]
    known = f"which of them? {', '.join(like)}" if like else "not in hazards.csv; mingluo policy hazards lists them"
    return wrong_use(f"{option}{text}: {known}")


def moment(text: str | None) -> datetime:
    """Read a time; without an offset it is China's."""
    from gateway.policy.hazard import CHINA

    if text is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        wrong_use(f"--at {text}: not a time; write it as 2026-07-20T14:30")
    return found if found.tzinfo else found.replace(tzinfo=CHINA)


def choice(option: str, word: str, known: type[StrEnum] | dict[str, Any]) -> Any:
    """Return the member a word names."""
    members = known if isinstance(known, dict) else {str(one.value).lower(): one for one in known}
    if word.lower() not in members:
        wrong_use(f"{option} {word}: use one of {', '.join(members)}")
    return members[word.lower()]
