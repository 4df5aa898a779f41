"""The reader of the national dialect under fire: it ends in findings, and what it lets pass can be handed on.

`MINGLUO_FUZZ_ROUNDS` makes more of it; `tests/fuzz.py` says how to run it for a night (`test_national_fuzz:dialect`).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import fuzz
from test_cap_fuzz import HOSTILE_CPU_S, ROUNDS

from gateway import cap

LIVE = (Path(__file__).parent / "data" / "national" / "rainstorm_update.xml").read_bytes()
ROOM = cap.MAX_BYTES - len(LIVE) - 100


def dialect(data: bytes) -> None:
    """Read as the dialect, and as whatever it is taken for; what passes is written so that it is read as the same."""
    alert, findings = cap.read_national(data)
    assert (alert is None) == any(found.severity == "error" for found in findings)
    assert len(findings) <= 100
    assert {found.code for found in findings} <= cap.FINDINGS.keys()
    cap.parse(data)
    if alert is None:
        return
    written, _ = cap.write_national(alert)
    again, further = cap.read_national(written)
    assert again is not None, further
    assert cap.write_national(again)[0] == written


def hostile(data: bytes) -> None:
    """Read what is made to cost much, the way intake does."""
    cap.parse(data)


def stuffed(before: str, filling: str, room: int = ROOM) -> bytes:
    """Fill the live message up to the limit."""
    one = filling.encode()
    return LIVE.replace(before.encode(), one * (room // len(one)) + before.encode(), 1)


HOSTILE = {
    "unknown elements": stuffed("<senderCode>", "<x/>"),
    "unknown elements inside": stuffed("<eventType>", "<x/>"),
    "nesting": stuffed("<eventType>", "<a>"),
    "empty infos": stuffed("<info>", "<info/>"),
    "methods": stuffed("<method>", "<method><methodName>SMS</methodName></method>"),
    "persons": stuffed("<audenceprt>", "<audencePrt>1</audencePrt>"),
    "a title of verbs": stuffed("泌阳县气象局发布", "发布"),
    "a title of brackets": stuffed("泌阳县气象局发布", "[I级/"),
    "geocodes": stuffed("411726209000", "411726204000 "),
    "references": stuffed("41172641600000_20260720121842", "a b c "),
    "a radius": stuffed("<circle/>", "<circle>1,1 " + "9" * 100 + "</circle>"),
    "points": LIVE.replace(b"<polygon/>", b"<polygon>" + b"0.1,0.100000 " * 190_000 + b"</polygon>"),
    "areas": stuffed("<area>", "<area><areaDesc>a</areaDesc></area>"),
}


def test_damaged_messages_never_break_the_reader() -> None:
    """Whatever a line or an attacker does to a message of the platform, the next warning is still read."""
    seeds = [LIVE, LIVE.replace(b"UTF-8", b"GB18030").decode().encode("gb18030")]
    for path in sorted((Path(__file__).parent / "data" / "cap").glob("*.xml")):
        alert, _ = cap.read(path.read_bytes())
        try:
            seeds += [cap.write_national(alert)[0]] if alert else []
        except cap.Unwritable:
            continue
    assert fuzz("test_national_fuzz:dialect", seeds, ROUNDS) == len(seeds) + ROUNDS


@pytest.mark.timeout(300)
def test_four_mebibytes_made_to_hurt_hold_nobody_up_for_ever() -> None:
    """The second door is no way to stall the first."""
    assert max(map(len, HOSTILE.values())) <= cap.MAX_BYTES
    inputs = [LIVE, *HOSTILE.values()]
    assert fuzz("test_national_fuzz:hostile", inputs, 0, cpu_s=HOSTILE_CPU_S) == len(inputs)
