"""Check a message file for the command line: `mingluo check FILE`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.cap.document import from_json
from gateway.cap.finding import Finding
from gateway.cap.reader import MAX_BYTES, read
from gateway.model import Alert


def parse(data: bytes) -> tuple[Alert | None, list[Finding]]:
    """Read a message as JSON if it begins with a brace, else as CAP XML. Never raises on any bytes."""
    return from_json(data) if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else read(data)


def check(path: Path) -> dict[str, Any]:
    """Return {"file", "valid", "errors", "warnings"}; an entry is {"code", "element", "line", "message"}.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        alert, findings = parse(file.read(MAX_BYTES + 1))
    entries = [(found.severity, asdict(found)) for found in findings]
    for _, entry in entries:
        del entry["severity"]
    return {
        "file": str(path),
        "valid": alert is not None,
        "errors": [entry for severity, entry in entries if severity == "error"],
        "warnings": [entry for severity, entry in entries if severity == "warning"],
    }
