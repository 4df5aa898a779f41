"""Texts of the carriers' codecs: octets of each part, headers of inbound parts, what phones send back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels._field import Fault, WireError
from channels._sms_text import Part, contents, decoded, split_header
from gateway.render import segments

RARE = "\U00020bb7"  # 𠮷, two UTF-16 units
TEXTS = st.text(st.sampled_from("雨水a，" + RARE), max_size=400)


def text_of(content: bytes, *, parts: int) -> str:
    return (split_header(content)[1] if parts > 1 else content).decode("utf-16-be")


def test_one_part_needs_no_header() -> None:
    """T13: 70 units are one SMS, charged once, shown at once."""
    assert contents("雨" * 70, 1) == [b"\x96\xe8" * 70]
    assert contents("", 1) == [b""]


def test_long_texts_begin_with_the_header_of_the_standard() -> None:
    """TS 23.040 9.2.3.24.1 and .8, by hand: 71 units are 67 and 4, or 66 and 5 with a 16-bit reference."""
    narrow, narrow_rest = contents("雨" * 71, 0x2A)
    assert narrow == b"\x05\x00\x03\x2a\x02\x01" + b"\x96\xe8" * 67
    assert narrow_rest == b"\x05\x00\x03\x2a\x02\x02" + b"\x96\xe8" * 4
    wide, wide_rest = contents("雨" * 71, 0x012A, wide=True)
    assert wide == b"\x06\x08\x04\x01\x2a\x02\x01" + b"\x96\xe8" * 66
    assert wide_rest == b"\x06\x08\x04\x01\x2a\x02\x02" + b"\x96\xe8" * 5


@pytest.mark.parametrize(("units", "count"), [(70, 1), (71, 2), (134, 2), (135, 3), (201, 3), (202, 4)])
def test_the_boundaries(units: int, count: int) -> None:
    """T13: one unit more is one SMS more for every person of a county."""
    assert len(contents("雨" * units, 0)) == count


def test_a_rare_character_is_never_cut_in_two() -> None:
    """Village names hold Hanzi of two units; half of one is a box on the phone, in the name of the place."""
    first, second = contents("雨" * 66 + RARE + "雨" * 10, 1)
    assert text_of(first, parts=2) == "雨" * 66
    assert text_of(second, parts=2) == RARE + "雨" * 10


@given(TEXTS, st.booleans())
def test_parts_join_to_the_text_and_fit(text: str, wide: bool) -> None:
    """Whatever the text: whole characters, 140 octets at most, numbered in order."""
    found = contents(text, 9, wide=wide)
    assert "".join(text_of(content, parts=len(found)) for content in found) == text
    assert max(map(len, found)) <= 140
    if len(found) > 1:
        assert [split_header(content)[0] for content in found] == [
            Part(9, len(found), number) for number in range(1, len(found) + 1)
        ]


@given(TEXTS)
def test_what_is_sent_is_what_the_preview_counted(text: str) -> None:
    """The office is shown segments before it sends; the carrier must be given, and charge, the same."""
    found = contents(text, 0)
    assert [text_of(content, parts=len(found)) for content in found] == segments(text)


def test_what_cannot_be_sent_is_said() -> None:
    """A lone surrogate, a reference out of range, more than 255 parts."""
    for text, reference, wide in (("\ud800", 0, False), ("雨", 256, False), ("雨", 65536, True), ("雨", -1, True)):
        with pytest.raises(WireError) as caught:
            contents(text, reference, wide=wide)
        assert caught.value.fault is Fault.VALUE
    assert len(contents("雨" * 67 * 255, 0)) == 255
    with pytest.raises(WireError):
        contents("雨" * (67 * 255 + 1), 0)


@pytest.mark.parametrize(
    ("content", "part", "rest"),
    [
        (b"\x05\x00\x03\x2a\x03\x02\x00\x31", Part(0x2A, 3, 2), b"\x00\x31"),
        (b"\x06\x08\x04\x01\x2a\x03\x02\x00\x31", Part(0x012A, 3, 2), b"\x00\x31"),
        # Ports before the concatenation, an unknown element after it.
        (b"\x0f\x05\x04\x0b\x84\x23\xf0\x00\x03\x07\x02\x01\x70\x02\xaa\xbbX", Part(7, 2, 1), b"X"),
        (b"\x00\x00\x31", None, b"\x00\x31"),
        # A concatenation that contradicts itself is ignored.
        (b"\x05\x00\x03\x2a\x02\x03\x00\x31", None, b"\x00\x31"),
        (b"\x05\x00\x03\x2a\x00\x00\x00\x31", None, b"\x00\x31"),
        (b"\x05\x00\x03\x2a\x02\x00\x00\x31", None, b"\x00\x31"),
        (b"\x04\x00\x02\x2a\x02\x00\x31", None, b"\x00\x31"),
    ],
)
def test_headers_of_inbound_parts(content: bytes, part: Part | None, rest: bytes) -> None:
    """What a village reports in two SMS is read as one text, and its header never as characters."""
    assert split_header(content) == (part, rest)


@pytest.mark.parametrize(
    "content", [b"", b"\x05", b"\x05\x00\x03\x2a\x02", b"\x03\x00\x03\x2a", b"\x01\x00", b"\xff" * 140]
)
def test_a_header_beyond_its_end_is_refused(content: bytes) -> None:
    """Its length is a stranger's word."""
    with pytest.raises(WireError) as caught:
        split_header(content)
    assert caught.value.fault is Fault.CUT


@pytest.mark.parametrize(
    ("fmt", "octets", "text"),
    [
        (0, b"1", "1"),
        (0, b"\xca\xd5\xb5\xbd", "收到"),  # GBK under "ASCII"
        (8, b"\xff\x11\x65\x36\x52\x30", "１收到"),
        (8, b"\xd8\x42\xdf\xb7", RARE),
        (0x18, b"\x00\x31", "1"),  # UCS-2 with a message class
        (8, b"\x00\x31\x00", "1\N{REPLACEMENT CHARACTER}"),
        (8, b"\xd8\x42", "\N{REPLACEMENT CHARACTER}"),
        (15, b"\xb5\xbd\xb8\xda", "到岗"),
        (15, b"\x95\x33\xa2\x31", "\U00020627"),  # four octets of GB18030
        (15, b"\xff", "\N{REPLACEMENT CHARACTER}"),
        (0xF1, b"3", "3"),
        (3, b"\xa0\xa4", ""),
        (4, b"\x00\x01", ""),
        (0x14, b"\x00\x01", ""),
    ],
)
def test_replies_are_read_in_every_coding(fmt: int, octets: bytes, text: str) -> None:
    """An official's 收到 counts, in whatever coding the phone and the gateway chose."""
    assert decoded(fmt, octets) == text
