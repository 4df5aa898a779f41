"""All files of the policy together; what `Policy` wraps, digests and stores."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import cached_property, lru_cache

from pydantic import Field

from gateway.cap.certificate import Trust
from gateway.model import Document, Group, Level
from gateway.policy.procedure import ProcedureFile
from gateway.policy.table import (
    AuthorityFile,
    DefaultsFile,
    DocumentRow,
    GreenFile,
    Hazard,
    Issuer,
    LevelRow,
    PlanFile,
    PlanRow,
    QuietFile,
    Table,
    Token,
    TokensFile,
)
from gateway.policy.trust import TrustFile
from gateway.policy.wording import LintFile


class Tables(Table):
    """One field per file."""

    hazards: tuple[Hazard, ...] = Field(min_length=1)
    levels: tuple[LevelRow, ...] = Field(min_length=1)
    documents: tuple[DocumentRow, ...] = Field(min_length=1)
    authority: AuthorityFile
    tokens: TokensFile
    green: GreenFile
    plan: PlanFile
    quiet: QuietFile
    defaults: DefaultsFile
    procedure: ProcedureFile
    trust: TrustFile = TrustFile()  # policies stored by earlier versions have none
    lint: LintFile = Field(default_factory=LintFile)  # a policy stored before there was one has none

    @cached_property
    def hazard_by_code(self) -> dict[str, Hazard]:
        """Hazards by GB/T 35561 code."""
        return {hazard.code: hazard for hazard in self.hazards}

    @cached_property
    def meant(self) -> Callable[[str], str]:
        """Return the name an event means: the longest of any hazard that stands in it, or ""."""
        names = sorted((hazard.zh for hazard in self.hazards), key=len, reverse=True)
        return lru_cache(1024)(lambda event: next((name for name in names if name in event), ""))

    @cached_property
    def token_by_digest(self) -> dict[str, Token]:
        """Tokens by their SHA-256, in lower-case hex."""
        return {row.sha256: row for row in self.tokens.token}

    @cached_property
    def document_by_kind(self) -> dict[Document, DocumentRow]:
        """Rows of `documents.csv` by kind."""
        return {row.document: row for row in self.documents}

    @cached_property
    def level_versions(self) -> dict[str, tuple[tuple[date, str, dict[str, dict[Level, str]]], ...]]:
        """Versions of each table of levels, oldest first: (in force since, name, hazard → colour → criteria)."""
        found: dict[str, dict[tuple[date, str], dict[str, dict[Level, str]]]] = {}
        for row in sorted(self.levels, key=lambda row: row.level):
            version = found.setdefault(row.table, {}).setdefault((row.since, row.version), {})
            version.setdefault(row.hazard, {})[row.level] = row.criteria
        return {
            table: tuple((since, name, colours) for (since, name), colours in sorted(versions.items()))
            for table, versions in found.items()
        }

    @cached_property
    def plan_rows(self) -> Callable[[Document, Level, Group], tuple[PlanRow, ...]]:
        """Return the plan's rows for a document, a level and a group, in order."""
        rows = self.plan.row
        return lru_cache(1024)(
            lambda document, level, group: tuple(
                row for row in rows if row.group is group and row.covers(document, level)
            )
        )

    @cached_property
    def level_table(self) -> Callable[[str, tuple[str, ...]], str | None]:
        """Return the table of levels that counts for a hazard in all of these areas, or None."""
        rows = self.defaults.levels
        return lru_cache(1024)(lambda code, areas: next((row.table for row in rows if row.covers(code, areas)), None))

    @cached_property
    def levelled(self) -> frozenset[str]:
        """Hazards that any table of levels lists."""
        return frozenset(row.hazard for row in self.levels)

    @cached_property
    def issuer_by_name(self) -> dict[str, Issuer]:
        """Issuers by id, by CAP sender and by unit code on the national platform."""
        every = self.authority.issuer
        return {key: issuer for issuer in every for key in (issuer.id, issuer.sender, issuer.national) if key}

    @cached_property
    def trust_by_issuer(self) -> dict[str, Trust]:
        """Whose signatures count, by issuer id."""
        return {issuer.id: self.trust.of(issuer.id) for issuer in self.authority.issuer}
