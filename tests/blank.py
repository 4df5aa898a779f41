"""Databases that have the schema and nothing else, copied from one made once: the migrations take half a second."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway.migrations import upgrade


@cache
def _schema() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "blank.db")
        upgrade(f"sqlite:///{path}")
        return path.read_bytes()


def sqlite(folder: Path) -> str:
    """Put one into a folder; return its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mingluo.db"
    with path.open("xb") as file:  # never over one in use
        file.write(_schema())
    return f"sqlite:///{path}"
