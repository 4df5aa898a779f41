"""What a counterpart really received: an append-only file of JSON lines.

Every simulated counterpart writes here, one line per message that truly arrived. Kill tests compare the file
with the ledger, so a line must be whole or absent whatever happens to the process.
"""

from __future__ import annotations

import os
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
        entry = {"kind": kind, "at": datetime.now(UTC).isoformat(), **fields}
        line = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
        if os.write(self._fd, line) != len(line):
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
