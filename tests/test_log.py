"""The log: one JSON line per event, no field that could hold personal data, whenever its logger was made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from gateway import log
part = log.get("desk")
log.configure("warning")
part.info("below the level")
part.warning("held", alert="a1", phone="+8610000000000")
"""


def test_a_module_s_logger_obeys_what_is_configured_later() -> None:
    """Every module makes its logger on import; one that kept the defaults would print names with a traceback."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    assert done.stdout == b""
    (line,) = done.stderr.splitlines()
    found = json.loads(line)
    assert (found["part"], found["event"], found["alert"], found["phone"]) == ("desk", "held", "a1", "[redacted]")


FULL = """
import resource
from gateway import log, metrics
log.configure("warning")
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
log.get("desk").error("store_down", code="SQLITE_FULL")
print(metrics.log_lines_lost._value.get() > 0)
"""


def test_a_log_on_a_full_disk_ends_nobody(tmp_path: Path) -> None:
    """The database's writer reports that the disk is full; the report must not end the writer."""
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run([sys.executable, "-c", FULL], stdout=subprocess.PIPE, stderr=log, check=True)
    assert done.stdout == b"True\n"
