"""What can be wrong with a message: one list of codes, for CAP XML and JSON alike.

`reader` and `document` collect findings; intake turns errors into the problem answer, `mingluo check` prints them.
An error refuses the message; a warning lets it pass. Messages say what is wrong and what to write instead.
`ops/make_cap_page.py` writes the two tables into docs/cap.md.

**Source:** OASIS CAP 1.2 (2010), and what real national feeds get wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

ERRORS: dict[str, str] = {
    # The bytes
    "too_large": "the message exceeds 4 MiB or 300,000 points",
    "wrong_encoding": "the bytes are not in the declared encoding, or the encoding is not one we read",
    "not_xml": "the message is not well-formed XML",
    "not_json": "the message is not JSON",
    "entity_forbidden": "the message has a DOCTYPE, through which entities could be smuggled in",
    "older_cap": "the message is CAP 1.0 or 1.1",
    "wrong_namespace": "the message is not CAP 1.2",
    "not_an_alert": "the message is no alert, update or cancel",
    # Structure
    "missing_required_element": "a required element is absent or empty",
    "duplicate_element": "an element stands twice where one is allowed",
    "duplicate_key": "a key stands twice in one object of the JSON, and readers differ on which one counts",
    "invalid_sequence": "an element stands in the wrong place",
    "unsupported_element": "the element is not known here",
    "stray_text": "text stands between elements, where nobody would read it",
    # Single values
    "invalid_value": "the value has the wrong type",
    "invalid_character": "the text holds a control character",
    "invalid_enum_value": "the word is not one of those allowed",
    "invalid_date": "the time is not written as CAP asks",
    "invalid_identifier": "the identifier holds a blank, a comma, <, & or a character nobody sees, or is too long",
    "invalid_sender": "the sender holds a blank, a comma, <, & or a character nobody sees, or is too long",
    "invalid_references": "a reference is not sender,identifier,sent",
    "invalid_language": "the language is no RFC 3066 code",
    "invalid_web": "the page is no full address that begins with http:// or https://",
    "invalid_uri": "the address of a resource is no URI",
    "relative_uri_missing_deref_uri": "a relative resource URI comes without its content",
    "invalid_deref_uri": "the content of a resource is not base64",
    "invalid_mime_type": "the MIME type is not type/subtype",
    "invalid_resource_size": "the size is no whole number of bytes",
    "invalid_digest": "the digest is no SHA-1 in hexadecimal digits",
    "invalid_polygon": "the polygon is no closed ring of at least four lat,lon pairs",
    "invalid_circle": "the circle is not lat,lon radius",
    "invalid_number": "the number is not a decimal",
    # Values against each other
    "postdated_reference": "the message references one sent later than itself",
    "missing_references": "an update, cancel or correction names no earlier message",
    "restriction_scope_mismatch": "restriction and scope Restricted go together",
    "invalid_area": "a ceiling stands without an altitude",
    "invalid_altitude_ceiling_range": "the ceiling is below the altitude",
    "expires_before_effective": "the message ends before it begins",
    "expires_before_onset": "the message ends before the event begins",
    # What the message means here
    "mixed_infos": "the infos speak of different events, levels or documents",
    "level_disagrees": "level words, or level and severity, contradict each other",
    "unknown_level": "the level is not one of the four colours",
    "digit_level": "the level is a bare digit, which one feed reads as red and another as blue",
    "invalid_parameter": "a parameter of ours has a value we do not know",
    # The signature
    "signature_missing": "this sender must sign its messages, and this one is unsigned",
    "signature_wrapped": "the signature stands elsewhere, or covers something else, than the whole message",
    "signature_invalid": "the signature does not match the message, or is not of the form we read",
    "signature_weak": "the algorithm or the key of the signature can be forged, or is not read",
    "signature_untrusted": "the signing certificate is not pinned for this sender",
    "signature_expired": "the signing certificate is not valid at this time",
    # The national dialect
    "not_public": "the message is not for the public",
    "identifier_disagrees": "the identifier belongs to another unit than the one that sends it",
    "title_disagrees": "the title says that a warning ends, and the message does not, or the reverse",
}
"""What refuses a message: code and its one line of explanation."""

WARNINGS: dict[str, str] = {
    # The bytes
    "encoding_disagrees": "the bytes are in another encoding than declared, and were read as what they are",
    # Structure
    "empty_element": "an optional element is empty and was ignored",
    "unexpected_attribute": "an attribute that CAP does not know was ignored",
    "surrounding_blanks": "blanks around a value that allows none were ignored",
    # Single values
    "national_date": "the time is written with a space, as GB/T 35965 does, and was accepted",
    "unknown_language": "the language is well-formed, but no language has this code",
    "unbalanced_quotes": "a list has an odd number of double quotes, so its items may be cut wrongly",
    "foreign_profile": "a code announces a profile whose own rules are not known here",
    "markup_in_text": "the text holds HTML that people would read as it stands",
    "long_headline": "the headline exceeds 140 characters; many receivers cut it there",
    "invalid_polygon_self_intersection": "the polygon crosses itself; everything inside any of its loops is warned",
    "intricate_polygon": "the polygon has too many sides over each other to be checked; its convex hull is warned",
    # Values against each other
    "circular_reference": "the message references itself; that reference was dropped",
    "simultaneous_reference": "a referenced message has the same time as this one, so each could follow the other",
    "duplicate_reference": "one message is referenced twice",
    "missing_note": "an exercise or an error does not say in a note what it is for",
    "missing_recommended_element": "an element that receivers rely on is absent",
    "area_without_shape": "an area has no geocode, polygon or circle, only words",
    "duplicate_geocode": "an area states the same geocode twice",
    "onset_before_effective": "the event is still to come, and yet begins before the message takes effect",
    "resource_without_content": "a resource has neither an address nor content",
    "size_disagrees": "the stated size of a resource is not that of its content",
    "digest_disagrees": "the stated digest of a resource is not that of its content",
    "language_disagrees": "the text is Chinese, but declared (or taken by default) as English",
    "same_text_different_language": "two languages carry the same text",
    "texts_differ_in_one_language": "infos of one language say different things of one place; the first is told there",
    "categories_differ": "the infos have different categories",
    "event_codes_differ": "the infos have different event codes",
    # What the message means here
    "missing_event_code": "no eventCode is a GB/T 35561 code",
    "missing_level": "the level is not given",
    # The national dialect
    "not_carried": "the element has no place in an alert and was dropped",
    "national_identifier": "the identifier or the unit's code is not written as GB/T 35965.1 asks",
    "odd_title": "the title is not of the platform's form, or speaks of a change where the message is a first issue",
}
"""What lets a message pass and should be mended."""

FINDINGS = ERRORS | WARNINGS
"""Every code. A code is an error or a warning wherever it appears, and keeps its meaning for good."""

MAX_FINDINGS = 100
MAX_WARNINGS = 50
"""Kept per message: a hostile one must not buy memory with mistakes."""

Path = tuple[tuple[str, int], ...]
"""Way from the alert to an element: (CAP name, index among its namesakes from 0)."""

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: `element` is the XML or JSON path, `line` counts from 1 (None where there are no lines)."""

    code: str
    element: str
    line: int | None
    message: str
    severity: Severity = "error"


class Malformed(ValueError):
    """One value breaks its format; carries the finding's code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class Findings:
    """Collects findings. `locate` turns a path into (element, line) of the form being read."""

    locate: Callable[[Path], tuple[str, int | None]] = lambda path: ("", None)
    found: list[Finding] = field(default_factory=list)
    errors: int = 0
    warnings: int = 0

    @property
    def full(self) -> bool:
        """Whether more errors would only be counted; finding their places costs a hostile message nothing, but us."""
        return len(self.found) >= MAX_FINDINGS

    @property
    def tired(self) -> bool:
        """Whether no more warnings are kept: they must never crowd out the error that refuses the message."""
        return self.warnings >= MAX_WARNINGS or self.full

    def put(self, code: str, place: tuple[str, int | None], message: str, severity: Severity = "error") -> None:
        """Add a finding at a known place."""
        if severity == "error":
            self.errors += 1
            kept = not self.full
        else:
            kept = not self.tired
            self.warnings += 1
        if kept:
            element, line = place
            self.found.append(Finding(code, element[:200], line, message[:500], severity))

    def error(self, code: str, path: Path, message: str) -> None:
        """Add what refuses the message."""
        self.put(code, ("", None) if self.full else self.locate(path), message)

    def warn(self, code: str, path: Path, message: str) -> None:
        """Add what the sender should mend, but nobody needs to wait for."""
        if not self.tired:
            self.put(code, self.locate(path), message, "warning")
