"""docs/cap.md says what the code does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from gateway.cap import FINDINGS

ROOT = Path(__file__).parent.parent


def script() -> ModuleType:
    """`ops/make_cap_page.py` as a module."""
    spec = importlib.util.spec_from_file_location("make_cap_page", ROOT / "ops" / "make_cap_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_page_is_what_the_script_writes() -> None:
    """A code that is not on the page sends whoever connects a system into our sources."""
    module = script()
    assert module.TARGET.read_text(encoding="utf8") == module.text()


def test_every_code_has_its_line() -> None:
    """Each finding can be looked up by its code."""
    page = (ROOT / "docs" / "cap.md").read_text(encoding="utf8")
    assert [code for code in FINDINGS if f"| `{code}` |" not in page] == []
