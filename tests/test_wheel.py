"""What is handed to a county: the wheel, installed beside nothing of this checkout, does the main job.

Built without network, installed without dependencies into a virtual environment of its own. That one sees the
libraries of the tests' environment through a path file; path files in there (the editable install) are not
followed, so that a file forgotten in the wheel is missing here too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "tests" / "data" / "cap" / "red_rainstorm.xml"
WHERE = """
import importlib.metadata, json, channels, gateway, gateway.installed, gateway.settings as settings
print(json.dumps({
    "files": [gateway.__file__, channels.__file__, str(importlib.metadata.distribution("mingluo").locate_file(""))],
    "data": [str(settings.data_folder(name)) for name in ("config", "templates")],
    "channels": sorted(gateway.installed.channel_classes()),
}))
"""


class Built(NamedTuple):
    """The files to hand out."""

    wheel: Path
    sdist: Path

    def in_wheel(self) -> set[str]:
        """Names in the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    def in_sdist(self) -> set[str]:
        """Names in the source distribution, without its folder."""
        with tarfile.open(self.sdist) as archive:
            return {member.name.partition("/")[2] for member in archive if member.isfile()}


class Installed(NamedTuple):
    """A virtual environment with the wheel, and an empty folder to work in."""

    folder: Path
    empty: Path

    def run(self, program: str, *arguments: str, timeout_s: float = 60.0) -> str:
        """Run a program of the environment; return its standard output."""
        kept = {"PATH": os.environ["PATH"], "HOME": str(self.empty), "LANG": "C.UTF-8"}
        command = [str(self.folder / "bin" / program), *arguments]
        done = subprocess.run(
            command, cwd=self.empty, env=kept, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"{program} {' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Wheel and source distribution of this checkout."""
    target = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(target)], cwd=ROOT, check=True, timeout=60)
    (wheel,) = target.glob("*.whl")
    (sdist,) = target.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment that has its libraries and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("installation")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(built.wheel)], check=True, timeout=60)
    (packages,) = (folder / "lib").glob("python3*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(folder, tmp_path_factory.mktemp("empty"))


def test_the_installation_sees_nothing_of_the_checkout(installed: Installed) -> None:
    """Else the tests below would prove the checkout, which no county has."""
    seen = json.loads(installed.run("python", "-c", WHERE))
    for path in (*seen["files"], *seen["data"]):
        assert Path(path).is_relative_to(installed.folder), path
    assert {"loudspeaker_ws", "noop", "sms_twilio", "web_push"} <= set(seen["channels"])
    for folder in seen["data"]:
        assert Path(folder).parent.name == "_data"
        assert any(Path(folder).rglob("*"))


def test_the_version_is_the_wheels(built: Built, installed: Installed) -> None:
    """Whoever reports a fault at night must be able to say which version they run."""
    assert installed.run("mingluo", "--version").split() == ["mingluo", built.wheel.name.split("-")[1]]


def test_a_message_can_be_checked_by_a_fresh_installation(installed: Installed) -> None:
    """Schemas, dialect and places come with the wheel."""
    sample = installed.empty / "warning.xml"
    sample.write_bytes(SAMPLE.read_bytes())
    assert json.loads(installed.run("mingluo", "cap", "check", "warning.xml"))["valid"]
    assert "the policy is whole" in installed.run("mingluo", "policy", "check")


@pytest.mark.timeout(300)
def test_the_demo_night_reaches_everybody_once_from_the_wheel_alone(installed: Installed) -> None:
    """The first thing a county tries; a template or table missing in the wheel would show here."""
    output = installed.run("mingluo", "demo", "--json", "--recipients", "300", timeout_s=280)
    night = json.loads(output.splitlines()[-1])
    assert night["recipients"] >= 300
    assert (night["unaccounted"], night["duplicates"]) == (0, 0)
    assert night["villages"] > 0


def test_the_wheel_holds_the_gateway_its_channels_and_its_data_and_nothing_else(built: Built) -> None:
    """Tests have sample keys and counterparts' secrets; they have no business on a gateway."""
    names = built.in_wheel()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"gateway", "channels"}
    assert not [name for name in names if name.endswith((".pyc", ".db", ".key")) or "test_" in name]
    for folder, inside in (("templates", "gateway/_data/templates"), ("config", "gateway/_data/config")):
        missing = {path for path in tracked(folder) if f"{inside}/{path.removeprefix(folder + '/')}" not in names}
        assert not missing
    assert not {path for path in tracked("gateway", "channels") if path not in names}


def test_the_source_distribution_holds_sources_data_and_tests(built: Built) -> None:
    """A distributor who has only this file builds the same wheel and can read how it was tested."""
    names = built.in_sdist()
    missing = set(tracked("gateway", "channels", "templates", "config", "ops", "tests")) - names
    assert not missing
    assert {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO"} <= names
    assert not [name for name in names if name.startswith((".venv", ".git/", "var/"))]


def test_no_path_of_the_building_machine_is_in_the_wheel(built: Built) -> None:
    """A path of the machine that built it tells a stranger about that machine, and works on no other."""
    with zipfile.ZipFile(built.wheel) as archive:
        found = [name for name in archive.namelist() if str(ROOT).encode() in archive.read(name)]
    assert found == []


def tracked(*folders: str) -> list[str]:
    """Files of these folders as a clone has them: without caches and environments."""
    return [
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and not {"__pycache__", ".venv"} & {*path.parts} and not path.name.startswith(".")
    ]
