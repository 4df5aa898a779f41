"""Read a message of any form: for intake with its signature (`take`), for the command line without."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lxml import etree

from gateway.cap import signature
from gateway.cap.certificate import Trust
from gateway.cap.document import from_json
from gateway.cap.finding import Finding
from gateway.cap.national_reader import is_national, read_national
from gateway.cap.reader import MAX_BYTES, read
from gateway.model import Alert

Reader = Callable[[bytes], tuple[Alert | None, list[Finding]]]


class Taken(NamedTuple):
    """A message as it counts: what `parse` returns, the SHA-256 hex of what was read, and who signed it.

    Of a signed message only what was signed is read, so that its digest stays the same when it is signed again.
    `signer` is a certificate's fingerprint, "" where the message is unsigned.
    """

    alert: Alert | None
    findings: list[Finding]
    digest: str
    signer: str = ""


def take(data: bytes, trust: Trust, now: datetime) -> Taken:
    """Read a message of this sender; a signature that is there must convince. Never raises on any bytes."""
    verified: list[signature.Verified] = []

    def verify(root: etree._Element) -> etree._Element:
        found = signature.verify(root, trust, now)
        if found is None:
            return root
        verified.append(found)
        return found.root

    bare = _reader_of_bare(data)
    if bare is None:
        alert, findings = read(data, verify)
    elif trust.required:
        refusal = signature.missing(trust)
        alert, findings = None, [Finding(refusal.code, "", None, refusal.message)]
    else:
        alert, findings = bare(data)
    if verified:
        return Taken(alert, findings, verified[0].digest, verified[0].signer)
    return Taken(alert, findings, hashlib.sha256(data).hexdigest())


def parse(data: bytes) -> tuple[Alert | None, list[Finding]]:
    """Read a message: JSON if it begins with a brace, else the national dialect or CAP XML. Never raises on any bytes.

    Signatures are not looked at: intake uses `take`.
    """
    return (_reader_of_bare(data) or read)(data)


def _reader_of_bare(data: bytes) -> Reader | None:
    """Return what reads a form that knows no signature, or None: it is CAP XML."""
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return from_json
    return read_national if is_national(data) else None


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
