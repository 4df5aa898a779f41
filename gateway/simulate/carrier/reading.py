"""What a carrier's log says, as tests and load runs ask it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from gateway.simulate.log import read


def texts(path: Path) -> Counter[tuple[str, str]]:
    """Count the whole texts each number received: (number, text) → times. A long text counts when its parts are in."""
    found: Counter[tuple[str, str]] = Counter()
    for entry in read(path):
        if entry["kind"] == "message" or (entry["kind"] == "submit" and not entry["part"]):
            found.update((number, entry["text"]) for number in entry["numbers"])
    return found


def parts(path: Path) -> Counter[tuple[str, str, tuple[int, ...]]]:
    """Count what was taken by number, text and part (reference, total, number; empty for a single one)."""
    found: Counter[tuple[str, str, tuple[int, ...]]] = Counter()
    for entry in read(path, "submit"):
        found.update((number, entry["text"], tuple(entry["part"])) for number in entry["numbers"])
    return found
