"""Whose a number is: the table of prefixes, and what is known of a person beyond it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.carrier import CARRIERS, Carriers, Known
from gateway.errors import ConfigError

ROOT = Path(__file__).parent.parent
TABLE = Carriers.load(ROOT / "config" / "carriers.csv")


@pytest.mark.parametrize(
    ("number", "carrier"),
    [
        ("13900000001", "mobile"), ("13490000001", "telecom"), ("13480000001", "mobile"), ("13000000001", "unicom"),
        ("18900000001", "telecom"), ("19200000001", "broadcast"), ("16200000001", "telecom"),
        ("16500000001", "mobile"), ("16700000001", "unicom"), ("17000000001", "telecom"), ("17030000001", "mobile"),
        ("17090000001", "unicom"), ("17100000001", "unicom"), ("19700000001", "mobile"), ("10000000001", ""),
    ],
)  # fmt: skip
def test_the_longest_prefix_names_the_carrier(number: str, carrier: str) -> None:
    """A text handed to the wrong network is refused, and its villager has lost a minute."""
    assert TABLE.of("+86" + number) == carrier


@pytest.mark.parametrize("address", ["", "+86", "+8525551234", "13900000001", '{"endpoint": "https://x"}'])
def test_what_is_no_mainland_mobile_has_no_carrier(address: str) -> None:
    """Only a road that takes any number may have it."""
    assert TABLE.of(address) == ""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "carriers.csv:1: the first line must be prefix,carrier"),
        ("prefix,carrier\n", "carriers.csv: no rows"),
        ("prefix,carrier\n# note\n139,china\n", "carriers.csv:3: unknown carrier; use one of mobile"),
        ("prefix,carrier\n13,mobile\n", "carriers.csv:2: prefix must be 3 to 7 digits"),
        ("prefix,carrier\n139,mobile\n139,unicom\n", "carriers.csv:3: 139 is there twice"),
        ("prefix,carrier\n139\n", "carriers.csv:2: expected 2 cells, found 1"),
        ("prefix,carrier\n１３９,mobile\n", "carriers.csv:2: prefix must be"),
    ],
)
def test_a_wrong_table_is_refused_by_line(tmp_path: Path, body: str, said: str) -> None:
    """A table an operator has mended in a hurry must not send a county's texts to the wrong carrier."""
    path = tmp_path / "carriers.csv"
    path.write_text(body, "utf8")
    with pytest.raises(ConfigError) as error:
        Carriers.load(path)
    assert said in str(error.value)


def test_a_missing_table_says_what_to_do(tmp_path: Path) -> None:
    """Whoever upgraded with an old configuration learns which file to copy."""
    with pytest.raises(ConfigError, match="copy it from the sample"):
        Carriers.load(tmp_path / "carriers.csv")


@given(st.sampled_from(["", *CARRIERS]), st.lists(st.sampled_from(CARRIERS), unique=True))
def test_what_is_known_reads_as_it_was_written(own: str, refused: list[str]) -> None:
    """It is kept as one word with the person."""
    known = Known(own, tuple(refused))
    assert Known.read(known.text) == known
    assert known.refuse({"mobile"}).refused == (*(one for one in refused if one != "mobile"), "mobile")
