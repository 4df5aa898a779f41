"""The page about the API names every problem the API can answer, read from the sources, with its status."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.api.problem import HINTS, OTHER
from gateway.cap import FINDINGS

ROOT = Path(__file__).parent.parent
# These refuse on the command line, and never over HTTP.
ELSEWHERE = frozenset({"bench", "cli", "demo", "directory", "simulate"})
ROW = re.compile(r"^\| `(\w+)` \| (\d{3}|other) \| \S.{10,} \|$", re.MULTILINE)


def calls() -> Iterator[tuple[str, str, list[object]]]:
    """(file, function, its constant arguments) of every call by a plain name in what answers over HTTP."""
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        where = path.relative_to(ROOT / "gateway")
        if where.parts[0] in ELSEWHERE:
            continue
        tree = ast.parse(path.read_text())
        named = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            if isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield str(where), node.func.id, [value_of(arg, named) for arg in node.args[:2]]


def value_of(arg: ast.expr, named: Mapping[str, object]) -> object:
    """The value of a constant, also by the name it has in its module; None for anything else."""
    return arg.value if isinstance(arg, ast.Constant) else named.get(arg.id) if isinstance(arg, ast.Name) else None


def said(name: str, values: list[object]) -> tuple[str, str] | None:
    """Code and status of a call that makes a problem; None for any other."""
    match name, *values:
        case (("Refused" | "Refusal" | "answer"), int(status), str(code)):
            return code, str(status)
        case "refused", None, str(code):
            return code, "400"
    return None


def test_every_problem_stands_on_the_page_and_no_other() -> None:
    """An integrator at night looks up the code of the answer; what is not there is a telephone call."""
    page = (ROOT / "docs" / "api.md").read_text()
    made = {said(name, values) for _, name, values in calls()} - {None}
    made |= {(code, str(status)) for status, (code, _) in HINTS.items()} | {(OTHER, "other")}
    made |= {(code, "403") for code in FINDINGS if code.startswith("signature_")}
    assert set(ROW.findall(page)) == made
    rows = [line for line in page.splitlines() if re.match(r"\| `\w+` \| (\d|other)", line)]
    assert rows == sorted(rows)


def test_every_problem_is_made_so_that_it_can_be_read() -> None:
    """A code from a variable would be missing on the page without anybody noticing."""
    made = ("Refused", "Refusal", "refused")
    unread = [where for where, name, values in calls() if name in made and said(name, values) is None]
    # `refused` itself, whose callers are read; and the findings on a signature, which are a list of their own.
    assert unread == ["api/problem.py", "intake.py"]
