"""`lint.toml`: what every finished text is looked through for. Findings advise; they never stop a delivery.

**Source:** registration of signatures: 工信管函〔2023〕794号; per unit, account, port and carrier (D11).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.policy.table import Identifier, Table

NETWORKS = ("mobile", "telecom", "unicom")

Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class ForbiddenRow(Table):
    """Words no text should hold, in one language, and why. `severity` counts below red; above, they only warn."""

    language: Literal["zh", "en"]
    words: tuple[Word, ...] = Field(min_length=1)
    why: str = Field(min_length=1)
    severity: Literal["error", "warning"] = "error"


class SignatureRow(Table):
    """A unit's signature with one carrier, for one account (a road, or `road/name` of one of its accounts) and port.

    Only `registered` lets a text through; `pending` and `refused` say why one does not.
    """

    unit: Identifier
    account: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*(/[A-Za-z0-9_-]+)?$")
    port: str = Field(default="", pattern=r"^[0-9]{0,21}$")
    carrier: Literal["mobile", "unicom", "telecom", "broadcast"]
    status: Literal["registered", "pending", "refused"]


class LintFile(Table):
    """What counts as a fault of a text or of its frame."""

    missing_part: Literal["error", "warning"] = "error"
    most_segments: int = Field(default=4, ge=1, le=10)
    same_text_min: int = Field(default=30, ge=0, le=24 * 60)
    forbidden: tuple[ForbiddenRow, ...] = ()
    signature: tuple[SignatureRow, ...] = ()

    def accounts(self, unit: str, road: str) -> tuple[tuple[str, str], ...]:
        """Return the accounts of a road and their ports with which a unit's signature is registered; "": any."""
        rows = [row for row in self.signature if row.unit == unit and row.status == "registered"]
        split = [(*row.account.partition("/"), row.port) for row in rows]
        return tuple(dict.fromkeys((name, port) for own, _, name, port in split if own == road))

    def unregistered(self, unit: str, road: str, carriers: Collection[str]) -> dict[str, str]:
        """Return the carriers of a road with which a unit's signature is not registered, and how it stands there.

        A road for any number needs all three that have networks. Where nothing at all is written down, nothing is
        said: doctor does.
        """
        if not self.signature:
            return {}
        rows = [row for row in self.signature if row.unit == unit and row.account.partition("/")[0] == road]
        stands: dict[str, str] = {}
        for row in rows:
            if stands.get(row.carrier) != "registered":
                stands[row.carrier] = row.status
        wanted = sorted(carriers) or NETWORKS
        return {one: stands.get(one, "missing") for one in wanted if stands.get(one) != "registered"}
