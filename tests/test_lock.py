"""The lock files install the same bytes everywhere and name no place to get them from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>.+))?$")
HASH = re.compile(r"^--hash=sha256:[0-9a-f]{64}$")


def normal(name: str) -> str:
    """Return a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse(lock: str) -> dict[str, list[str]]:
    """Return requirement → its hashes, with continued lines joined.

    Raises:
        ValueError: a line that is neither a pinned requirement nor a hash.
    """
    found: dict[str, list[str]] = {}
    for line in lock.replace("\\\n", "").splitlines():
        requirement, *hashes = re.split(r"\s+(?=--hash=)", line.strip())
        match = REQUIREMENT.match(requirement)
        if match is None or not all(HASH.match(each) for each in hashes):
            raise ValueError(f"not a pinned requirement with hashes: {line[:80]!r}")
        found.setdefault(normal(match["name"]), []).extend(hashes)
    return found


PEERS = sorted(path.parent for path in ROOT.glob("ops/bench/*/requirements.lock"))


@pytest.fixture(params=[ROOT, *PEERS], ids=lambda folder: folder.name)
def lock(request: pytest.FixtureRequest) -> str:
    """The text of our lock file, and of each peer's that the fan-out bench compares with."""
    text: str = (request.param / "requirements.lock").read_text()
    return text


def test_the_lock_names_no_registry(lock: str) -> None:
    """A county behind its own mirror installs from it: a host in the lock would send it elsewhere."""
    assert not re.search(r"://|--(?:extra-)?index-url|--find-links|--trusted-host|\s-[ifr]\s| @ ", lock)


def test_every_requirement_is_pinned_with_hashes(lock: str) -> None:
    """A changed byte on a mirror is refused, never installed on a machine that warns villages."""
    assert [name for name, hashes in parse(lock).items() if not hashes] == []


@pytest.mark.parametrize("folder", PEERS, ids=lambda folder: folder.name)
def test_every_peer_is_the_version_that_was_asked_for(folder: Path) -> None:
    """Whoever repeats a comparison compares with the very same releases."""
    lock = (folder / "requirements.lock").read_text()
    wanted = (folder / "requirements.in").read_text().split()
    pinned = [re.sub(r"\[.*\]", "", line) for line in wanted]  # a lock has no extras, but what they need
    assert [line for line in pinned if "==" not in line or f"\n{line} " not in f"\n{lock}"] == []


def test_every_direct_dependency_is_locked() -> None:
    """A dependency added to pyproject.toml without `make lock` would be missing after `make setup`."""
    lock = (ROOT / "requirements.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    names = {normal(re.split(r"[\s\[<>=!~;]", text, maxsplit=1)[0]) for text in wanted}
    assert sorted(names - parse(lock).keys()) == []


@pytest.mark.parametrize("line", ["https://host/x.whl", "pkg @ file:///x", "-i https://host/simple", "pkg>=1", "pkg"])
def test_a_line_that_is_not_pinned_is_refused(line: str) -> None:
    """The checks above see every line: one they cannot read is an error, not skipped."""
    with pytest.raises(ValueError, match="not a pinned requirement"):
        parse(f"good==1.0 --hash=sha256:{'0' * 64}\n{line}\n")
