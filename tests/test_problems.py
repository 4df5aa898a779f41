"""The page about the API names every problem the API can answer, read from the sources, with its status."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from gateway.api.problem import HINTS, OTHER

ROOT = Path(__file__).parent.parent
# These refuse on the command line, and never over HTTP.
ELSEWHERE = frozenset({"bench", "cli", "demo", "directory", "simulate"})
ROW = re.compile(r"^\| `(\w+)` \| (\d{3}|other) \| \S.{10,} \|$", re.MULTILINE)


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """(file, call, name) of every call by a plain name in what answers over HTTP."""
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        where = path.relative_to(ROOT / "gateway")
        if where.parts[0] in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield str(where), node, node.func.id


def said(node: ast.Call, name: str) -> tuple[str, str] | None:
    """Code and status of a call that makes a problem; None for any other."""
    values = [arg.value if isinstance(arg, ast.Constant) else None for arg in node.args[:2]]
    match name, *values:
        case (("Refused" | "Refusal" | "answer"), int(status), str(code)):
            return code, str(status)
        case "refused", None, str(code):
            return code, "400"
    return None


def test_every_problem_stands_on_the_page_and_no_other() -> None:
    """An integrator at night looks up the code of the answer; what is not there is a telephone call."""
    page = (ROOT / "docs" / "api.md").read_text()
    made = {said(node, name) for _, node, name in calls()} - {None}
    made |= {(code, str(status)) for status, (code, _) in HINTS.items()} | {(OTHER, "other")}
    assert set(ROW.findall(page)) == made
    rows = [line for line in page.splitlines() if re.match(r"\| `\w+` \| (\d|other)", line)]
    assert rows == sorted(rows)


def test_every_problem_is_made_so_that_it_can_be_read() -> None:
    """A code from a variable would be missing on the page without anybody noticing."""
    made = ("Refused", "Refusal", "refused")
    unread = [where for where, node, name in calls() if name in made and said(node, name) is None]
    assert unread == ["api/problem.py"]  # `refused` itself, whose callers are read
