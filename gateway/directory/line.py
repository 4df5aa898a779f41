"""What the readers of all formats give: lines of cells, as text. Used by `sheet`, `workbook` and `xls`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

BROKEN = "\x00formula"  # in place of a cell that shows #N/A and the like
WIDEST = 256  # columns looked at
EXACT = 1 << 53  # a spreadsheet's number has all its digits up to here
ERRORS = frozenset({"#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#GETTING_DATA", "#DATA!"})

Line = tuple[int, list[str] | str]
"""Row (1 is the first) and its cells, or why it cannot be read."""


class Sheets(NamedTuple):
    """An open file: what it is, its sheets with lines in them (0: the only one of a CSV), and how far it was read."""

    format: str
    sheets: Iterator[tuple[int, Iterator[Line]]]
    share: Callable[[], float]


def number(text: str) -> str:
    """Return the digits of a stored number where it has them all: 1.3912345678E10 is 13912345678; else the text."""
    if text.isdigit():
        return text
    try:
        value = float(text)
    except ValueError:
        return text
    return str(int(value)) if value.is_integer() and abs(value) < EXACT else text
