"""Findings on a finished text: what carriers would block, what misleads, which compulsory part is missing.

Called by the renderer for the preview, for the answer to whoever issues, and by doctor; nothing here stops a
delivery. On red and on evacuation instructions, faults of the wording are warnings: nobody should stop to mend a
sentence then.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from gateway.mark import marked
from gateway.policy import ForbiddenRow, LintFile
from gateway.render.part import Part, squeezed
from gateway.render.text import IDENTITY, LINK, PHONE, SINGLE, segment_count, utf16_units

MARKS = {"zh": "演练", "en": "DRILL"}

_MISSING = {
    "issuer": "who warns",
    "time": "when it was issued",
    "mark": "in front that it has ended or was a mistake (解除, 不再, 更正)",
    "type": "what it warns of",
    "grade": "its colour or level",
    "area": "the place of those who read it",
    "period": "how long or until when",
    "measures": "what to do",
    "order": "who is to go where",
}


class Finding(NamedTuple):
    """One finding. `severity` is "error" (will fail or mislead), "warning" or "info"."""

    code: str
    severity: str
    detail: str


def lint(
    text: str,
    *,
    signed: bool = True,
    actual: bool = True,
    language: str = "zh",
    signature: str = "",
    parts: Iterable[Part] = (),
    rules: LintFile | None = None,
    urgent: bool = False,
) -> list[Finding]:
    """Return what is wrong or worth knowing; an empty list is a clean text.

    Args:
        text: The text as it leaves.
        signed: Whether it is an SMS that must carry exactly one registered 【signature】, first.
        actual: False for drills and tests, which must carry the mark first.
        language: Whose forbidden words count.
        signature: The one registered for the issuer, without brackets; "" if that is not looked at.
        parts: The compulsory parts; see `gateway.render.part`.
        rules: Forbidden words and how grave findings are; None: no words are forbidden.
        urgent: Red or an evacuation instruction: faults of the wording only warn.
    """
    rules = rules or LintFile()
    found = [*_contacts(text), *_forbidden(text, language, rules), *_missing(text, parts, rules)]
    if signed and (number := segment_count(text)) > rules.most_segments:
        found.append(Finding("too_long", "error", f"{number} SMS segments, {rules.most_segments} at most: shorten it"))
    if urgent:
        found = [one._replace(severity="warning") for one in found]
    found += _frame(text, signed=signed, actual=actual, signature=signature)
    if signed and (units := utf16_units(text)) > SINGLE:
        found.append(Finding("long", "info", f"{units} units: {segment_count(text)} SMS segments"))
    return found


def _contacts(text: str) -> Iterator[Finding]:
    if LINK.search(text):
        yield Finding("link", "error", "carriers block links: say it in words")
    if PHONE.search(text):
        yield Finding("phone", "error", "carriers block phone numbers: leave it to the signature")
    if IDENTITY.search(text):
        yield Finding("identity", "error", "holds what looks like an identity card number: take it out")


def _frame(text: str, *, signed: bool, actual: bool, signature: str) -> Iterator[Finding]:
    """Look at the signature and the drill mark: what the program itself puts around every body."""
    signatures = re.findall(r"【([^【】]*)】", text)
    if signed and not text.startswith("【"):
        yield Finding("signature_missing", "error", "no 【signature】 in front: the carrier will refuse it")
    elif signed and signature and signatures[:1] != [signature]:
        yield Finding("signature_other", "error", f"not signed as 【{signature}】, the one registered for the issuer")
    if len(signatures) > (1 if signed else 0) or text.count("【") != text.count("】"):
        yield Finding("signature_extra", "error", "more signature brackets than the one registered")
    body = re.sub(r"^【[^】]*】", "", text)
    if actual and marked(body):
        yield Finding("drill_mark", "error", "an actual warning must not start like a drill")
    if not actual and not body.startswith(tuple(MARKS.values())):
        yield Finding("drill_mark", "error", "a drill or test must start with the drill mark")


def _missing(text: str, parts: Iterable[Part], rules: LintFile) -> Iterator[Finding]:
    plain = squeezed(text)
    for part in parts:
        if part.found(plain):
            continue
        asked = f"it does not say {_MISSING[part.name]}"
        known = f": {part.said[0]}" if part.said else "; the message does not give it in this language"
        yield Finding(f"missing_{part.name}", rules.missing_part, asked + known)


def _forbidden(text: str, language: str, rules: LintFile) -> Iterator[Finding]:
    plain = _plain(text)
    for row in rules.forbidden:
        if row.language == language and (hits := _pattern(row).findall(plain)):
            words = ", ".join(dict.fromkeys(hits))
            yield Finding("forbidden", row.severity, f"{words}: {row.why}")


def _plain(text: str) -> str:
    """One form for what looks alike, without the gaps and signs that are put into a word to hide it."""
    wide = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"(?<=[^\x00-\x7f])[\s*_.\-·]+(?=[^\x00-\x7f])", "", wide)


@lru_cache(64)
def _pattern(row: ForbiddenRow) -> re.Pattern[str]:
    """Match any of the words; Latin ones as whole words only."""
    words = sorted((_plain(word) for word in row.words), key=len, reverse=True)
    parts = (rf"(?<![a-z0-9]){re.escape(one)}(?![a-z0-9])" if one.isascii() else re.escape(one) for one in words)
    return re.compile("|".join(parts))
