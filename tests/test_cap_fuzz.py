"""Both readers of CAP under fire: damaged, stuffed and oversized messages end in findings, and what passes is sound.

`MINGLUO_FUZZ_ROUNDS` makes more of it; `tests/fuzz.py` says how to run it for a night.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from cap_mutation import broken
from cap_schema import faults
from fuzz import fuzz
from test_cap_findings import comb

from gateway.cap import FINDINGS, MAX_BYTES, Finding, from_json, read, to_json, write
from gateway.cap.reader import MAX_COMMAS
from gateway.model import Alert

DATA = Path(__file__).parent / "data" / "cap"
RED = (DATA / "red_rainstorm.xml").read_text(encoding="utf-8")
RING = "32.70,113.30 32.70,113.45 32.82,113.45 32.82,113.30 32.70,113.30"
RED_JSON = (DATA / "red_rainstorm.json").read_bytes()
ROUNDS = int(os.environ.get("MINGLUO_FUZZ_ROUNDS", "1000"))
HOSTILE_CPU_S = 15.0
"""For 4 MiB that are made to hurt, which take up to 1 s on a free machine: an end to what would go on for ever."""


def xml(data: bytes) -> None:
    """Read as XML; what has no finding is valid by the official schema, and what passes can be handed on."""
    alert, findings = read(data)
    _judge(alert, findings)
    if not findings:
        assert faults(data) == []
    if alert is not None:
        written = write(alert)
        assert faults(written) == []
        again, _ = read(written)
        assert again is not None
        assert write(again) == written


def from_object(data: bytes) -> None:
    """Read as JSON; what passes can be handed on in both forms."""
    alert, findings = from_json(data)
    _judge(alert, findings)
    if alert is not None:
        assert faults(write(alert)) == []
        again, _ = from_json(to_json(alert))
        assert again == alert


def hostile(data: bytes) -> None:
    """Read what is made to cost much."""
    _judge(*(from_json(data) if data.startswith(b"{") else read(data)))


def _judge(alert: Alert | None, findings: Sequence[Finding]) -> None:
    assert (alert is None) == any(finding.severity == "error" for finding in findings)
    assert len(findings) <= 100
    for finding in findings:
        assert finding.code in FINDINGS
        assert 10 < len(finding.message) <= 500


def _stuffed(before: str, filling: str, end: str = "") -> bytes:
    """Fill the red sample up to the limit."""
    room = MAX_BYTES - len(RED.encode()) - len(end.encode())
    return RED.replace(before, filling * (room // len(filling.encode())) + end + before, 1).encode()


def _ring(count: int, waves: int) -> str:
    turns = [2 * math.pi * step / count for step in range(count)]
    points = [(turn, 0.1 + 0.03 * math.sin(waves * turn)) for turn in turns]
    pairs = [f"{32.7 + out * math.sin(turn):.6f},{113.3 + out * math.cos(turn):.6f}" for turn, out in points]
    return " ".join([*pairs, pairs[0]])


HOSTILE = {
    "unknown elements": _stuffed("<info>", "<x/>"),
    "empty elements": _stuffed("<info>", "<code/>"),
    "elements with attributes": _stuffed("<info>", '<code a="b">c</code>'),
    "wrong elements after good ones": _stuffed("<info>", "<code>a</code>", "<code><b/></code>" * 200),
    "empty infos": _stuffed("<info>", "<info/>"),
    "unbalanced quotes": _stuffed("<info>", "<addresses>" + '"a ' * 300 + "</addresses>"),
    "nesting": _stuffed("<info>", "<a>"),
    "stray text": _stuffed("<info>", "a<code>b</code>"),
    "wrong words": _stuffed("<urgency>", "<responseType>Run</responseType>"),
    "empty pairs": _stuffed("<altitude>", "<geocode><valueName/><value/></geocode>"),
    "the same geocode": _stuffed("<altitude>", "<geocode><valueName>a</valueName><value>1</value></geocode>"),
    "levels": _stuffed("<resource>", "<parameter><valueName>level</valueName><value>red</value></parameter>"),
    "digits for levels": _stuffed("<resource>", "<parameter><valueName>level</valueName><value>1</value></parameter>"),
    "triangles": RED.replace("<circle>", "<polygon>0,0 0,1 1,0 0,0</polygon>" * 74_000 + "<circle>").encode(),
    "areas of words": _stuffed("<area>", "<area><areaDesc>a</areaDesc></area>"),
    "a point 290,000 times": RED.replace("<polygon>", "<polygon>" + "1.000000,1.0 " * 290_000).encode(),
    "a ring of 150,000 waves": RED.replace(RING, _ring(190_000, 150_000)).encode(),
    "teeth": RED.replace(RING, comb(40_000)).encode(),
    "markup": RED.replace("<description>", "<description>" + "&lt;" * 900_000).encode(),
    "references": RED.replace(
        "<info>",
        "<references>" + " ".join(f"a,{n},2026-07-20T14:29:00+08:00" for n in range(100_000)) + "</references><info>",
    ).encode(),
    "wrong items": json.dumps(json.loads(RED_JSON) | {"areas": ["wrong"] * 290_000}).encode(),
    "wrong words in JSON": json.dumps(json.loads(RED_JSON) | {"categories": ["wrong"] * 290_000}).encode(),
    "empty infos in JSON": json.dumps(json.loads(RED_JSON) | {"infos": [{}] * 290_000}).encode(),
    "nothing as references": json.dumps(json.loads(RED_JSON) | {"references": [None] * 290_000}).encode(),
    "nesting in JSON": b'{"infos": ' + b"[" * 4_000_000,
}


def test_damaged_xml_never_breaks_the_reader() -> None:
    """Whatever a line or an attacker does to a message, the next warning is still read."""
    seeds = [path.read_bytes() for path in sorted(DATA.glob("*.xml"), reverse=True)]
    seeds += [RED.replace("UTF-8", "GB18030").encode("gb18030"), RED.replace("UTF-8", "UTF-16").encode("utf-16")]
    assert fuzz("test_cap_fuzz:xml", seeds, ROUNDS) == len(seeds) + ROUNDS


def test_two_mistakes_at_once_never_break_the_reader() -> None:
    """Damage on top of every single mistake there is reaches the corners that damage alone does not."""
    seeds = [mistake.data for mistake in broken((DATA / "every_element.xml").read_bytes())]
    assert fuzz("test_cap_fuzz:xml", seeds, ROUNDS) == len(seeds) + ROUNDS


def test_damaged_json_never_breaks_the_reader() -> None:
    """The JSON door stands in the same street."""
    seeds = [RED_JSON, json.dumps(json.loads(RED_JSON), indent=1).encode()]
    for path in sorted(DATA.glob("*.xml")):
        alert, _ = read(path.read_bytes())
        seeds += [to_json(alert).replace(b',"', b',\n"')] if alert else []
    assert fuzz("test_cap_fuzz:from_object", seeds, ROUNDS) == len(seeds) + ROUNDS


@pytest.mark.timeout(300)
def test_four_mebibytes_made_to_hurt_hold_nobody_up_for_ever() -> None:
    """Junk must cost seconds at most, in the process for large messages, while a red one passes beside it."""
    for name, data in HOSTILE.items():
        assert MAX_BYTES // 4 <= len(data) <= MAX_BYTES, name
        assert data.count(b",") <= MAX_COMMAS, name
    inputs = [RED.encode(), *HOSTILE.values()]
    assert fuzz("test_cap_fuzz:hostile", inputs, 0, cpu_s=HOSTILE_CPU_S) == len(inputs)
