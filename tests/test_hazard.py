"""Hazards as data: every code, the colours of each table and version, and names that must be the code's own."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.model import Alert, Document, Kind, Level, Status, Target
from gateway.policy import Issuer, Policy
from gateway.policy.hazard import agrees, in_force, versions

SAMPLE = Path(__file__).parent.parent / "config" / "policy"
POLICY = Policy.load(SAMPLE)
NOON = datetime(2026, 7, 20, 4, 0, tzinfo=UTC)
LETTERS = {Level.BLUE: "B", Level.YELLOW: "Y", Level.ORANGE: "O", Level.RED: "R"}
CODES = {
    "11A": "00-05 10 51-55 99",
    "11B": "00-59 61 64 99",
    "11C": "00-02 99",
    "11D": "00-07 99",
    "11E": "00-06 99",
    "11F": "00-12 99",
    "11G": "00-08",
    "11Y": "00",
    "000": "00",
}


def body(name: str, *, areas: tuple[str, ...] = ()) -> Issuer:
    found = POLICY.issuer(name)
    assert found is not None
    return found.model_copy(update={"areas": areas}) if areas else found


HENAN, ELSEWHERE = body("411726-qxj"), body("411726-qxj", areas=("4228",))


def letters(code: str, issuer: Issuer, at: datetime = NOON, policy: Policy = POLICY) -> str:
    found = policy.colours(code, issuer, at)
    assert found is not None
    return "".join(LETTERS[level] for level in found)


def test_every_code_of_the_national_table_is_known() -> None:
    """A code nobody knows is held for a person: a real one must not be, on the night it is first used."""
    wanted = set()
    for prefix, ranges in CODES.items():
        for part in ranges.split():
            first, _, last = part.partition("-")
            wanted |= {f"{prefix}{number:02}" for number in range(int(first), int(last or first) + 1)}
    known = {hazard.code for hazard in POLICY.tables.hazards}
    assert wanted <= known
    assert {f"12{group}00" for group in "ABCDEFGHJKLMNPQRSTUY"} <= known
    # Private inventions of one program, which a feed may carry: nobody's codes.
    assert not {f"11B{number}" for number in range(73, 99)} & known


def test_every_hazard_has_a_chinese_and_an_english_name_and_a_bureau() -> None:
    """A reader of either language hears what it is, and the officer sees whom to ask."""
    for hazard in POLICY.tables.hazards:
        assert re.fullmatch(r"[\u4e00-\u9fff()（）]+", hazard.zh), hazard
        assert re.fullmatch(r"[A-Za-z ,-]+", hazard.en), hazard
        assert hazard.bureaus
    names = [hazard.zh for hazard in POLICY.tables.hazards if hazard.code != "11A10"]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("code", "national", "henan"),
    [
        ("11B01", "BYOR", ""),
        ("11B03", "BYOR", "BYOR"),
        ("11B04", "BYOR", "BYOR"),
        ("11B05", "BYOR", "BYOR"),
        ("11B06", "BYOR", "BYOR"),
        ("11B07", "YOR", "YOR"),
        ("11B09", "YOR", "YOR"),
        ("11B11", "", "BYOR"),
        ("11B14", "YOR", "YOR"),
        ("11B15", "OR", "OR"),
        ("11B16", "BYO", "BYO"),
        ("11B17", "YOR", "YOR"),
        ("11B19", "YO", "YO"),
        ("11B21", "YOR", "YOR"),
        ("11B22", "OR", "OR"),
        ("11B56", "", "BYOR"),
        ("11A01", "BYOR", "BYOR"),
        ("11A51", "BYOR", "BYOR"),
        ("11B37", "BYOR", "BYOR"),
        ("11D02", "BYOR", "BYOR"),
    ],
)
def test_the_colours_are_those_of_the_issuers_own_table(code: str, national: str, henan: str) -> None:
    """Henan has no typhoon signal and two of its own: a county is judged by its province's table, not by another's."""
    assert letters(code, ELSEWHERE) == national
    assert letters(code, HENAN) == henan
    for level, letter in LETTERS.items():
        assert POLICY.colour_exists(code, level, HENAN, NOON) == (letter in henan)


def test_a_hazard_in_no_table_is_not_restricted_and_an_unknown_code_has_no_colour() -> None:
    """Short-time heavy rain has no official colours but is warned of in four; of a strange code nothing is known."""
    assert POLICY.colours("11B64", HENAN, NOON) is None
    assert POLICY.colour_exists("11B64", Level.RED, HENAN, NOON)
    assert not POLICY.colour_exists("11B77", Level.RED, HENAN, NOON)


def test_every_national_level_has_its_criterion() -> None:
    """The forecaster's screen shows by what number a colour is meant."""
    rows = [row for row in POLICY.tables.levels if row.table in ("national", "water", "risk")]
    assert all(row.criteria for row in rows)
    found = POLICY.colours("11B03", ELSEWHERE, NOON)
    assert found is not None
    assert found[Level.RED] == "3小时降雨100毫米以上"


def test_a_colour_that_does_not_exist_is_held_and_names_the_table() -> None:
    """A red frost is a mistake somewhere: a person looks, and knows in which table."""
    for code, event, level, table in (
        ("11B16", "霜冻", Level.RED, "henan order-128-2010"),
        ("11B15", "冰雹", Level.BLUE, "henan order-128-2010"),
        ("11B01", "台风", Level.RED, "henan order-128-2010"),
    ):
        alert = Alert(HENAN.sender, "1", NOON, Status.ACTUAL, Kind.ALERT, Document.WARNING, code, event, level)
        route = POLICY.route(alert, HENAN, (Target("411726101"),), NOON)
        assert route.kind == "normal"
        assert any(text.startswith("colour: ") and f"levels.csv, table {table}" in text for text in route.held)


# --- versions ------------------------------------------------------------------------------------------------------


@pytest.fixture
def revised(tmp_path: Path) -> Policy:
    """The sample with a second version of Henan's table from 1 August 2026, which knows a red haze and nothing else."""
    folder = shutil.copytree(SAMPLE, tmp_path / "policy")
    with (folder / "levels.csv").open("a", encoding="utf-8") as file:
        file.write("henan,order-200-2026,2026-08-01,11B19,red,能见度小于1000米的霾\n")
    return Policy.load(folder)


@pytest.mark.parametrize(
    ("at", "colours"), [("2026-07-31T15:59", "YO"), ("2026-07-31T16:00", "R"), ("2010-01-31T15:59", "")]
)
def test_a_version_counts_from_its_day_in_china(revised: Policy, at: str, colours: str) -> None:
    """An alert is judged by the table of its own day, also a year later; before the first there is no colour."""
    moment = datetime.fromisoformat(f"{at}:00+00:00")
    assert letters("11B19", HENAN, moment, revised) == colours


def test_a_new_version_is_a_whole_table(revised: Policy) -> None:
    """What a new order leaves out exists no longer; nothing lingers from the old one."""
    later = datetime(2026, 9, 1, tzinfo=UTC)
    assert letters("11B03", HENAN, later, revised) == ""
    assert [one.name for one in versions(revised.tables, "henan")] == ["order-128-2010", "order-200-2026"]
    assert in_force(revised.tables, "henan", datetime(2000, 1, 1, tzinfo=UTC)) is None


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "event", "same"),
    [
        ("11B03", "暴雨", True),
        ("11B03", "暴雨红色预警信号", True),
        ("11B03", "暴雨事件", True),
        ("11B03", "rainstorm", True),
        ("11B03", "", True),
        ("11B03", "台风暴雨", False),
        ("11B03", "雷暴大风", False),
        ("11B06", "雷雨大风", False),
        ("11B20", "大风", False),
        ("11B20", "雷雨大风黄色预警", True),
        ("11B38", "降雨", True),
        ("11A51", "山洪灾害气象风险预警", True),
        ("11A51", "山洪", True),
        ("11D00", "地质灾害气象风险", False),
        ("11B37", "地质灾害气象风险", True),
        ("11B56", "低温雨雪冰冻", False),
        ("11A05", "凌汛灾害", True),
        ("11B03", "不知名的事", False),
    ],
)
def test_the_longest_known_name_is_the_one_meant(code: str, event: str, same: bool) -> None:
    """大风 inside 雷雨大风 is another hazard, with another route: where code and name disagree a person decides."""
    assert agrees(POLICY.tables, code, event) == same


# --- documents -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "bureaus"),
    [
        (Document.WARNING, {"气象", "水利", "自然资源", "应急", "防汛"}),
        (Document.JOINT_RISK, {"气象", "水利", "自然资源"}),
        (Document.RESPONSE, {"应急", "防汛"}),
        (Document.EVACUATION, {"防汛", "乡镇"}),
        (Document.RETURN, {"防汛", "乡镇"}),
        (Document.NOWCAST, {"气象", "水利"}),
        (Document.SERVICE, {"气象", "水利"}),
    ],
)
def test_each_document_has_its_own_issuers(document: Document, bureaus: set[str]) -> None:
    """D6: a weather bureau orders no evacuation, a township warns of nothing; each kind has two names."""
    found = {one.bureau for one in POLICY.issuers for grant in one.grant if document in grant.documents}
    assert found == bureaus
    row = POLICY.tables.document_by_kind[document]
    assert row.zh
    assert row.en


def test_only_command_water_or_hydrology_bodies_warn_of_water() -> None:
    """D22: hydrological warnings come from nobody else, whatever a grant would say."""
    for hazard in POLICY.tables.hazards:
        if hazard.code.startswith("11A") and hazard.code not in ("11A02", "11A53"):
            assert set(hazard.bureaus) == {"水利", "水文", "防汛"}
