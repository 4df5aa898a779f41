"""What a text means. Only what can mean nothing else confirms: a misread text leaves a village uncalled."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.reply import LONGEST, Meaning, read

HEARD = (
    "1", "１", "一", "①", "收到", "到岗", "已收到", "已到岗", "1。", "1.", "1！", " 1 ", "\u3000１\u3000", "“1”", "(1)",
    "回复1", "回复：1", "回1", "回复 1。", "1收到", "1 收到", "1，收到，到岗", "收到到岗", "收到1", "收到。", "1\n收到",
    "\u200b1\u200e", "1~", "1…",
)  # fmt: skip
AWAY = ("2", "２", "二", "2。", "回复2", "2 不在岗", "2外出", "2，人不在")
SUPPORT = (
    "3",
    "３",
    "三",
    "3。",
    "回复3",
    "3 桥头塌方",
    "3，需要支援",
    "3.山体滑坡",
    "3 5人被困",
    "3\n塌方\n救命",
    "3 SOS",
)
REPORT = ("3桥头塌方", "3人被困", "３需要支援", "三楼进水", "3号桥垮了", "3塌方\u2028快来")
OPT_OUT = ("TD", "td", "ＴＤ", "T", "退订", "回复TD", "TD。", "TD退订")
OTHER = (
    "", " ", "12", "11", "21", "1或2", "1 2", "1、2", "1/2", "1-2", "1.0", "1:30", "1?", "1？", "收到吗", "收到？",
    "没收到", "未收到", "不在",
    "不收到", "1不", "不1", "-1", "+1", "1号桥", "1点到", "一一", "2点到岗", "2号桥垮了",
    "2 让老王去", "22", "3:30", "3.5", "3,5",
    "3点到", "3 点到", "3月", "32", "3?", "3 1", "3或1", "3 或1", "3到5", "T1", "TDD", "不退订", "你好", "1\x00",
    "收到收到收到", "0", "4",
    "1" + " " * LONGEST + "没有", "收到" + "。" * LONGEST + "才怪", "2" + " " * LONGEST + "小时后到",
)  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "meaning", "confirms"),
    [
        (HEARD, Meaning.HEARD, True),
        (AWAY, Meaning.AWAY, False),
        (SUPPORT, Meaning.SUPPORT, True),
        (REPORT, Meaning.SUPPORT, False),
        (OPT_OUT, Meaning.OPT_OUT, False),
        (OTHER, Meaning.OTHER, False),
    ],
    ids=["heard", "away", "support", "report", "opt_out", "other"],
)
def test_texts_mean_what_people_mean_by_them(texts: tuple[str, ...], meaning: Meaning, *, confirms: bool) -> None:
    """As they are typed at night, on old telephones, with whatever the keyboard puts around a digit."""
    assert {text: read(text) for text in texts if read(text) != (meaning, confirms)} == {}


@given(st.text(max_size=40))
def test_a_text_with_no_answer_in_it_confirms_nothing(text: str) -> None:
    """Whatever is written: without a lone 1 or 3, or the words for it, nobody is at post."""
    plain = unicodedata.normalize("NFKC", text)
    if read(text).confirms:
        assert re.search(r"(?<!\d)[1一3三](?!\d)|收到|到岗", plain)
        assert not re.search("[没未不?]", plain) or read(text).meaning is Meaning.SUPPORT


@given(st.sampled_from(HEARD), st.sampled_from(["没", "不", "?", "？", "2", "或2", "号", "点", "吗", "x"]))
def test_whatever_stands_beside_an_answer_makes_it_one_for_a_person(answer: str, more: str) -> None:
    """A negation, a question or a second digit: no machine decides what was meant."""
    assert read(answer + more).meaning is not Meaning.HEARD
    assert read(more + answer).meaning is not Meaning.HEARD


@given(
    st.text(" \u3000\u200b。.!！“”()", max_size=8), st.sampled_from([*"123"]), st.text(" \u3000。.!！“”)", max_size=8)
)
def test_punctuation_and_blanks_change_nothing(before: str, digit: str, after: str) -> None:
    """Only in front of a digit does a full stop or an exclamation mark ask for a person."""
    expected = {"1": Meaning.HEARD, "2": Meaning.AWAY, "3": Meaning.SUPPORT}[digit]
    assert read(digit + after).meaning is expected
    assert read(before + digit + after).meaning in (expected, Meaning.OTHER)


@given(st.text("13收到岗 \n.。,回复(", max_size=2_000))
def test_hostile_texts_are_read_at_all(text: str) -> None:
    """Anybody can send anything to the number."""
    assert isinstance(read(text).meaning, Meaning)
