"""The log: one JSON line per event, no field that could hold personal data, whenever its logger was made."""

from __future__ import annotations

import json
import subprocess
import sys

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
