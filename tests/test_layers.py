"""Who may import whom (DESIGN: a file imports only lower layers), read from the sources.

Every import counts, also one inside a function or under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# Lowest first. A unit is `gateway/<name>.py` or the package `gateway/<name>/`. A unit may import lower rows and
# units of its own row, as long as no circle closes. A new module is added to the lowest row that fits.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "model"),
    ("settings", "metrics", "log", "ports", "channel", "regions", "telling", "rotation", "mark", "naming"),
    ("carrier", "standing", "gate", "reply", "transaction"),
    ("cap", "policy", "routing", "render", "pool", "road", "signer", "device_key", "speech"),
    ("database", "migrations"),
    ("broker", "store", "state", "directory"),
    ("receipts", "portability"),
    ("link", "breaker", "memory"),
    ("sender", "order"),
    ("compose", "relay", "hub", "standin"),
    ("planner",),
    ("lineage", "case", "drill"),
    ("intake", "sweeper", "alarm", "lifecycle", "coverage", "gauge", "confirm", "watch", "session", "fleet"),
    ("decision", "obligation", "regime", "national"),
    ("training",),
    ("core", "preview", "report", "drill_report"),
    ("doctor", "installed"),
    ("api", "console", "simulate", "device"),
    ("app",),
    # The console script has to start somewhere: cli, and the two that run a whole gateway, stand above the wiring.
    ("bench", "demo"),
    ("cli", "__main__"),
)
RANK = {unit: rank for rank, units in enumerate(LAYERS) for unit in units}
STDLIB_ONLY = frozenset({"errors", "model"})
SCANNER = "installed"  # the only gateway unit that imports channels
FOR_CHANNELS = frozenset({"gateway.model", "gateway.errors", "gateway.channel"})


class Import(NamedTuple):
    """One import: dotted names of the file that has it and of what it names."""

    importer: str
    target: str
    where: str


def imports_of(source: str, importer: str, *, package: bool, where: str = "") -> list[Import]:
    """Return what a source imports, in order. `from a import b` counts as `a.b`, relative imports are resolved."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = importer.split(".")
            base = ".".join(parts[: len(parts) + package - node.level]) if node.level else ""
            prefix = ".".join(filter(None, [base, node.module]))
            names = [f"{prefix}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [Import(importer, name, f"{where}:{node.lineno}") for name in names]
    return found


def unit_of(name: str) -> str:
    """`gateway.cap.reader` → `cap`; the package itself → ""."""
    return name.split(".")[1] if "." in name else ""


def upward(imports: Iterable[Import], rank: Mapping[str, int]) -> list[str]:
    """Describe each import of a gateway unit in a higher row."""
    found = []
    for each in imports:
        low, high = unit_of(each.importer), unit_of(each.target)
        inside = each.importer.startswith("gateway.") and each.target.startswith("gateway.")
        # A unit without a row is another test's failure.
        if inside and low in rank and high in rank and rank[high] > rank[low]:
            found.append(f"{each.where}: {low} imports {high}, which is above it")
    return found


def circle(imports: Iterable[Import]) -> list[str]:
    """Return the units of one circle of imports, or nothing."""
    edges: dict[str, set[str]] = {}
    for each in imports:
        if each.importer.startswith("gateway.") and each.target.startswith("gateway."):
            edges.setdefault(unit_of(each.importer), set()).add(unit_of(each.target))
    # Peel off units that import nothing left; what remains imports in circles (or stands above one).
    left = {unit: targets - {unit} for unit, targets in edges.items()}
    while free := [unit for unit, targets in left.items() if not targets & left.keys()]:
        for unit in free:
            del left[unit]
    return sorted(left)


def foreign_to_channels(imports: Iterable[Import], local: frozenset[str]) -> list[str]:
    """Describe each import of a channel that is neither the interface, a codec beside it, nor a library.

    `local` holds the top-level names that are ours.
    """
    found = []
    for each in imports:
        parts = each.target.split(".")
        codec = parts[0] == "channels" and len(parts) > 1 and parts[1].startswith("_")
        contract = ".".join(parts[:2]) in FOR_CHANNELS
        if parts[0] in local and not codec and not contract:
            found.append(f"{each.where}: a channel imports {each.target}")
    return found


def read(folder: str) -> list[Import]:
    """All imports of a package's sources."""
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        where = path.relative_to(ROOT)
        package = path.name == "__init__.py"
        name = ".".join((where.parent if package else where.with_suffix("")).parts)
        found += imports_of(path.read_text(), name, package=package, where=str(where))
    return found


@pytest.fixture(scope="module")
def gateway() -> list[Import]:
    """Imports of the core."""
    return read("gateway")


@pytest.fixture(scope="module")
def channels() -> list[Import]:
    """Imports of the channels and codecs."""
    return read("channels")


def test_every_unit_has_a_layer() -> None:
    """A module outside the table would be free to import anything."""
    paths = [path for path in (ROOT / "gateway").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    unknown = sorted({path.stem for path in paths} - RANK.keys() - {"__init__"})
    assert not unknown, f"give each a row in LAYERS of tests/test_layers.py: {unknown}"


def test_no_import_runs_upward(gateway: list[Import]) -> None:
    """Lower layers stay testable and replaceable without what is built on them."""
    assert upward(gateway, RANK) == []


def test_no_imports_run_in_a_circle(gateway: list[Import]) -> None:
    """Units of one row may use each other in one direction only."""
    assert circle(gateway) == []


def test_the_nouns_need_only_the_standard_library(gateway: list[Import]) -> None:
    """Model and errors load anywhere: in a channel's codec, a process pool, a migration."""
    allowed = sys.stdlib_module_names | {"__future__"}
    foreign = [
        f"{each.where}: {each.target}"
        for each in gateway
        if unit_of(each.importer) in STDLIB_ONLY
        and each.target.split(".")[0] not in allowed
        and unit_of(each.target) not in STDLIB_ONLY
    ]
    assert foreign == []


def test_only_the_wiring_imports_channels(gateway: list[Import]) -> None:
    """A channel is found by its file: nothing in the core, and no counterpart in simulate, knows one by name."""
    known = [each for each in gateway if each.target.split(".")[0] == "channels"]
    assert [each.where for each in known if unit_of(each.importer) != SCANNER] == []


def test_one_file_loads_modules_by_name() -> None:
    """A module loaded by a computed name escapes the rules above, so one file may: it scans for channels."""
    loading = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "gateway").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name | ast.Attribute)
        and (node.id if isinstance(node, ast.Name) else node.attr) in ("import_module", "__import__")
    ]
    assert set(loading) <= {f"gateway/{SCANNER}.py"}


def test_the_package_itself_imports_nothing_of_ours(gateway: list[Import]) -> None:
    """`import gateway` would otherwise drag a layer below every module."""
    ours = ("gateway", "channels")
    assert [each.where for each in gateway if each.importer == "gateway" and each.target.split(".")[0] in ours] == []


def test_channels_know_only_the_interface(channels: list[Import]) -> None:
    """A channel is one file that can be read, tested and removed alone."""
    assert foreign_to_channels(channels, frozenset({"gateway", "channels", "tests"})) == []


def test_the_rules_catch_what_they_forbid() -> None:
    """Each rule fails on a source that breaks it: by attribute, from a function, relatively, in a circle."""
    lazy = imports_of("def f():\n    from gateway import app", "gateway.sender", package=False)
    relative = imports_of("from ..relay import Relay", "gateway.store.outbox", package=False)
    beside = imports_of("from . import codec\nfrom .rows import x", "gateway.store", package=True)
    assert len(upward(lazy + relative + beside, RANK)) == 2
    assert [each.target for each in beside] == ["gateway.store.codec", "gateway.store.rows.x"]
    there = imports_of("import gateway.policy", "gateway.cap.reader", package=False)
    back = imports_of("from gateway.cap import read", "gateway.policy", package=True)
    assert circle(there) == []
    assert circle(there + back) == ["cap", "policy"]
    channel = "import gateway.store\nimport channels.noop\nfrom channels._smpp import x\nimport aiohttp\n"
    channel += "from gateway.model import State\nfrom gateway import errors"
    caught = foreign_to_channels(imports_of(channel, "channels.new", package=False), frozenset({"gateway", "channels"}))
    assert len(caught) == 2
