"""Findings on a finished text: what carriers would block and what an approver should see.

Called by the renderer for the preview and by doctor; nothing here stops a delivery.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.render.text import LINK, PHONE, SINGLE, segment_count, utf16_units

MARKS = {"zh": "演练", "en": "DRILL"}


class Finding(NamedTuple):
    """One finding. `severity` is "error" (will fail or mislead), "warning" or "info"."""

    code: str
    severity: str
    detail: str


def lint(text: str, *, signed: bool = True, actual: bool = True) -> list[Finding]:
    """Return what is wrong or worth knowing; an empty list is a clean text.

    Args:
        text: The text as it leaves.
        signed: Whether it is an SMS that must carry exactly one registered 【signature】, first.
        actual: False for drills and tests, which must carry the mark first.
    """
    found: list[Finding] = []
    if LINK.search(text):
        found.append(Finding("link", "error", "carriers block links: say it in words"))
    if PHONE.search(text):
        found.append(Finding("phone", "error", "carriers block phone numbers: leave it to the signature"))
    signatures = re.findall(r"【[^【】]*】", text)
    if signed and not text.startswith("【"):
        found.append(Finding("signature_missing", "error", "no 【signature】 in front: the carrier will refuse it"))
    if len(signatures) > (1 if signed else 0) or text.count("【") != text.count("】"):
        found.append(Finding("signature_extra", "error", "more signature brackets than the one registered"))
    opening = re.sub(r"^【[^】]*】", "", text)
    marked = opening.startswith(tuple(MARKS.values()))
    if marked and actual:
        found.append(Finding("drill_mark", "error", "an actual warning must not start like a drill"))
    if not marked and not actual:
        found.append(Finding("drill_mark", "error", "a drill or test must start with the drill mark"))
    if signed and (units := utf16_units(text)) > SINGLE:
        found.append(Finding("long", "info", f"{units} units: {segment_count(text)} SMS segments"))
    return found
