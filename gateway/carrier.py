"""Whose a mobile number is: by its prefix, and by what is known of the person beyond it.

Pure. `config/carriers.csv` says where a number begins; since numbers move between carriers, what a roster says of a
person and what carriers answered counts more (`Known`). `gateway.road` makes a road of it.

**Source:** the Ministry of Industry's number plan as carriers publish it: prefixes and virtual operators' hosts.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from gateway.errors import ConfigError

CARRIERS = ("mobile", "unicom", "telecom", "broadcast")
HOST: Mapping[str, str] = {"broadcast": "mobile"}
"""Whose network carries the messages of a carrier that has no road of its own."""
MAINLAND = "+86"
HEADER = ["prefix", "carrier"]
_START = len(MAINLAND)


class Known(NamedTuple):
    """What is known of a person's carrier beyond the number: what the roster says, and who has refused it.

    `refused` are carriers that said the number is another one's, the last one last.
    """

    own: str = ""
    refused: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `text` wrote; "" where nothing is known."""
        own, _, refused = text.partition(":")
        return cls(own, tuple(refused.split(",")) if refused else ())

    @property
    def text(self) -> str:
        """As it is kept with the person: "unicom", ":mobile,telecom", or ""."""
        return f"{self.own}:{','.join(self.refused)}" if self.refused else self.own

    def refuse(self, carriers: Iterable[str]) -> Self:
        """Return this with one more answer that the number belongs to none of these."""
        said = sorted(carriers)
        return self._replace(refused=(*(one for one in self.refused if one not in said), *said))


class Carriers:
    """The table of prefixes (digits → carrier)."""

    def __init__(self, prefixes: Mapping[str, str]) -> None:
        self._ends = sorted({_START + len(prefix) for prefix in prefixes}, reverse=True)
        self._found = {MAINLAND + prefix: carrier for prefix, carrier in prefixes.items()}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the table; lines that begin with # are comments.

        Raises:
            ConfigError: naming the file, each wrong line and the fix.
        """
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            raise ConfigError(f"{path.name}: file is missing; copy it from the sample configuration") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path.name}: not UTF-8; save the file as UTF-8") from None
        prefixes: dict[str, str] = {}
        findings = []
        rows = [(at, line) for at, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
        for at, line in rows[1:]:
            cells = [cell.strip() for cell in next(csv.reader([line]))]
            if wrong := _wrong(cells, prefixes):
                findings.append(f"{path.name}:{at}: {wrong}")
            else:
                prefixes[cells[0]] = cells[1]
        if not rows or [cell.strip() for cell in rows[0][1].split(",")] != HEADER:
            findings.insert(0, f"{path.name}:{rows[0][0] if rows else 1}: the first line must be {','.join(HEADER)}")
        elif len(rows) == 1:
            findings.append(f"{path.name}: no rows; copy the file from the sample configuration")
        if findings:
            raise ConfigError("\n".join(findings))
        return cls(prefixes)

    def of(self, address: str) -> str:
        """Return the carrier of a number in E.164; "" if no prefix fits."""
        for end in self._ends:
            if carrier := self._found.get(address[:end]):
                return carrier
        return ""


def _wrong(cells: list[str], known: Mapping[str, str]) -> str:
    """Return what is wrong with a row and how to mend it, or ""."""
    if len(cells) != len(HEADER):
        return f"expected {len(HEADER)} cells, found {len(cells)}; write prefix,carrier"
    prefix, carrier = cells
    if not re.fullmatch(r"1[0-9]{2,6}", prefix):
        return "prefix must be 3 to 7 digits that begin with 1"
    if carrier not in CARRIERS:
        return f"unknown carrier; use one of {', '.join(CARRIERS)}"
    if prefix in known:
        return f"{prefix} is there twice; keep one row"
    return ""
