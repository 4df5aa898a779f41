"""`lint.toml`: what every finished text is looked through for. Findings advise; they never stop a delivery."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.policy.table import Table

Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class ForbiddenRow(Table):
    """Words no text should hold, in one language, and why. `severity` counts below red; above, they only warn."""

    language: Literal["zh", "en"]
    words: tuple[Word, ...] = Field(min_length=1)
    why: str = Field(min_length=1)
    severity: Literal["error", "warning"] = "error"


class LintFile(Table):
    """How grave a missing compulsory part is, and the forbidden words."""

    missing_part: Literal["error", "warning"] = "error"
    forbidden: tuple[ForbiddenRow, ...] = ()
