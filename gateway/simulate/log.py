"""What a counterpart really received: an append-only file of JSON lines.

Every simulated counterpart writes here, one line per message that truly arrived. Kill tests compare the file
with the ledger, so a line must be whole or absent whatever happens to the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson


class Log:
    """An append-only log. Several processes may write to one file; lines never mix."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, kind: str, **fields: object) -> None:
        """Append one line: `kind`, the time in UTC, then `fields` (anything JSON can hold).

        Raises:
            OSError: the line was not written whole (disk full).
        """
        self.extend([(kind, fields)])

    def extend(self, entries: Iterable[tuple[str, Mapping[str, object]]]) -> None:
        """Append a line for each kind and its fields, in one write; they share the time.

        Raises:
            OSError: not all was written (disk full).
        """
        at = datetime.now(UTC).isoformat()
        lines = b"".join(
            orjson.dumps({"kind": kind, "at": at, **fields}, option=orjson.OPT_APPEND_NEWLINE)
            for kind, fields in entries
        )
        if os.write(self._fd, lines) != len(lines):
            raise OSError(f"{self.path.name}: only part of a line was written")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read(path: Path, kind: str = "") -> list[dict[str, Any]]:
    """Return the entries in order, of one `kind` if given. A missing file is an empty log."""
    if not path.exists():
        return []
    entries = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    return [entry for entry in entries if kind in ("", entry["kind"])]
