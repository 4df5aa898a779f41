"""Each rule of the table, broken alone at each place there is: it fires, and nothing else does."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest
from cap_mutation import NOT_EMPTIED, WRONG, broken
from cap_schema import faults

from gateway.cap import read
from gateway.cap.finding import ERRORS
from gateway.cap.table import ALERT, CODE, Block

VALID = (Path(__file__).parent / "data" / "cap" / "every_element.xml").read_bytes()
MISTAKES = {
    code: list(each) for code, each in groupby(sorted(broken(VALID), key=lambda one: one.code), lambda one: one.code)
}
STRICTER = frozenset({
    "invalid_identifier", "invalid_sender", "invalid_references", "invalid_web", "invalid_uri", "invalid_deref_uri",
    "invalid_mime_type", "invalid_resource_size", "invalid_digest", "invalid_polygon", "invalid_circle",
    "invalid_date",  # a year before 1970
    "missing_required_element", "empty_element",  # an empty string is a string
    "surrounding_blanks",  # around identifier and sender
    "invalid_sequence",  # an info behind the signature, which the validator overlooks
})  # fmt: skip
"""Codes of what OASIS writes only in words, or no sender means: the schema lets it pass."""


def names(block: Block) -> set[str]:
    """Every element there is, but the halves of a pair."""
    own = {rule.name for rule in block.rules}
    return own.union(*(names(rule.block) for rule in block.rules if rule.block and rule.block is not CODE))


def test_the_valid_message_has_every_element_and_no_finding() -> None:
    """What is missing here is never broken below."""
    alert, findings = read(VALID)
    assert alert is not None
    assert findings == []
    assert faults(VALID) == []
    assert {name for name in names(ALERT) if f"<{name}>".encode() not in VALID} == set()


@pytest.mark.parametrize("code", MISTAKES)
def test_each_mistake_fires_its_own_code_at_its_own_place_alone(code: str) -> None:
    """A finding that drags others behind it sends whoever has to mend the message to the wrong line first."""
    for mistake in MISTAKES[code]:
        alert, findings = read(mistake.data)
        assert [(f.code, f.element) for f in findings] == [(code, mistake.element)], mistake.what
        assert findings[0].line is not None, mistake.what
        assert (alert is None) == (code in ERRORS), mistake.what


def test_every_kind_of_mistake_is_made_at_every_element() -> None:
    """The generator itself must not lose an element without anybody noticing."""
    whats = {mistake.what for each in MISTAKES.values() for mistake in each}
    for name in names(ALERT):
        assert any(f"{name} an attribute" in what or f"{name}[1] an attribute" in what for what in whats), name
    assert set(WRONG) | set(NOT_EMPTIED) <= names(ALERT)
    assert sum(len(each) for each in MISTAKES.values()) > 850


def test_we_are_stricter_than_the_schema_only_where_the_words_of_the_standard_are() -> None:
    """Refusing what the official schema allows needs a reason; the list of reasons is short and known."""
    passed = {code for code, each in MISTAKES.items() if any(not faults(mistake.data) for mistake in each)}
    assert passed == STRICTER
