"""Places, their names, and what an alert's areas mean: nobody affected is missed, nobody else is named for sure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.model import Area, Circle, Code, Point, Resolution, Target
from gateway.regions import Regions

FOLDER = Path(__file__).parents[1] / "config" / "regions"
REGIONS = Regions.load(FOLDER, [FOLDER / "demo.geojson"])
COUNTY = "411726"
BARE = {"411726215", "411726400", "411726401"}  # without geometry in the demo
TOWNS = [town.code for town in REGIONS.under("4117")]


def box(west: float, south: float, east: float, north: float) -> tuple[Point, ...]:
    return tuple(
        Point(lat, lon) for lat, lon in ((south, west), (south, east), (north, east), (north, west), (south, west))
    )


def resolve(
    text: str = "", *codes: str, within: Sequence[str] = (COUNTY,), **shapes: tuple[tuple[Point, ...], ...]
) -> Resolution:
    area = Area(text, polygons=shapes.get("polygons", ()), geocodes=tuple(Code("geocode", code) for code in codes))
    return REGIONS.resolve([area], within)


def sure(result: Resolution) -> set[str]:
    return {target.township for target in result.targets if target.certain}


def test_the_tree_is_complete_and_every_township_has_villages() -> None:
    """A township lost in the table is a township nobody warns."""
    assert [len(REGIONS.under("4117", kind)) for kind in ("county", "township", "village")] == [11, 208, 2906]
    assert all(REGIONS.villages(town) for town in TOWNS)
    assert {len(REGIONS.under(pad)) for pad in ("411726", "411726000", "411726000000")} == {24}
    parent = REGIONS.township_of("411726209202")
    assert parent is not None
    assert parent.name == "贾楼乡"
    assert REGIONS.path_name("411726209202") == "泌阳县贾楼乡凤凰台村"


@given(st.sampled_from(sorted(REGIONS.places)))
def test_every_path_name_leads_back_to_its_place(code: str) -> None:
    """What we print about a village must mean exactly that village when it is typed in again."""
    assert REGIONS.find(REGIONS.path_name(code), "4117") == [REGIONS.places[code]]


@pytest.mark.parametrize(
    ("name", "within", "codes"),
    [
        ("古城街道", "4117", ["411702012", "411726003"]),
        ("古城街道", COUNTY, ["411726003"]),
        ("杨庄户", "411729", ["411729209"]),
        ("杨庄", "411721", ["411721209"]),
        ("东和店镇", "411722", []),
        ("泌阳县贾楼乡", "411726000000", ["411726209"]),
        ("河南省驻马店市泌阳县贾楼乡凤凰台村", COUNTY, ["411726209202"]),
        ("贾楼镇", COUNTY, ["411726209"]),
        ("确山县竹沟镇", COUNTY, []),
        ("驿城区金河街道", "4117", ["411771560"]),
        ("嵖岈山镇", "411728", ["411728103"]),
        ("芦村", "411722111", ["411722111215"]),
    ],
)
def test_names_mean_one_place_in_their_county(name: str, within: str, codes: list[str]) -> None:
    """A substring or the same name in another county must never send a warning to the wrong village."""
    assert [region.code for region in REGIONS.find(name, within)] == codes


@pytest.mark.parametrize(
    ("text", "within", "names"),
    [
        ("贾楼乡、铜山乡", COUNTY, ["贾楼乡", "铜山乡"]),
        ("泌阳县贾楼和铜山等地", COUNTY, ["贾楼乡", "铜山乡"]),
        ("东和店镇", "411722", []),
        ("和店镇和杨集镇", "411722", ["和店镇", "杨集镇"]),
        ("老王岗乡", "411727", []),
        ("双庙街乡", COUNTY, ["双庙街乡"]),
        ("方城县杨集镇", "411722", []),
        ("泌阳县除贾楼乡、铜山乡外", COUNTY, []),
    ],
)
def test_descriptions_are_read_by_longest_name(text: str, within: str, names: list[str]) -> None:
    """Free text names townships whole; an excepted one is not named."""
    assert [region.name for region in REGIONS.names_in(text, within)] == names


@given(st.text(st.sampled_from("泌阳县贾楼乡铜山凤凰台村除外等、古城街道杨庄户和店镇全市 "), max_size=30))
def test_no_text_breaks_the_reading(text: str) -> None:
    """Whatever an issuer types gives targets of ours, or is named as unresolved."""
    result = resolve(text)
    assert result.targets or result.unresolved
    assert {target.township for target in result.targets} <= set(TOWNS)


def test_codes_name_townships_and_villages() -> None:
    """A village code narrows its township; an unknown code is said aloud, not dropped."""
    result = resolve("x", "411726209202", "411726204000", "411726999")
    assert result.targets == (Target("411726204"), Target("411726209", ("411726209202",)))
    assert result.unresolved == ("411726999",)


def test_a_county_code_alone_is_coarse_and_adds_nothing_to_finer_ones() -> None:
    """A county-wide code must not wake 24 townships where the same area names one."""
    alone = resolve("泌阳县", "411726000000")
    assert len(alone.targets) == 24
    assert {(target.how, target.coarse, target.certain) for target in alone.targets} == {("county", True, True)}
    assert resolve("", COUNTY, "411726209").targets == (Target("411726209"),)
    assert sure(resolve("泌阳县贾楼乡", COUNTY)) == {"411726209"}
    assert len(sure(resolve("泌阳县贾楼乡等地", COUNTY))) == 24


def test_the_statistical_county_may_be_meant_by_its_neighbours_code() -> None:
    """411702 may mean 411771, too: included as uncertain, only where the issuer has authority."""
    city = resolve("", "411702", within=["4117"])
    assert {target.certain for target in city.targets if target.township.startswith("411771")} == {False}
    assert len(city.targets) == 26
    assert len(resolve("", "411702", within=["411702"]).targets) == 21


def test_villages_named_after_their_township_narrow_it_unless_one_is_unknown() -> None:
    """An unknown village name widens to the township: its people may be the ones meant."""
    named = resolve("泌阳县贾楼乡凤凰台村、菜园村")
    assert named.targets[0].villages == ("411726209202", "411726209203")
    assert resolve("泌阳县贾楼乡凤凰台村、无名村").targets == (Target("411726209", how="name"),)


@pytest.mark.parametrize("text", ["泌阳县贾楼乡、李家镇", "贾楼乡、李家镇", "泌阳县贾楼乡、竹沟镇", "泌阳县除贾楼乡外"])
def test_a_township_that_is_not_known_is_never_dropped_in_silence(text: str) -> None:
    """One wrong character, or a word for all but one, and a person must look: what is known goes out meanwhile (D2)."""
    found = resolve(text)
    assert found.targets
    assert found.unresolved == (text,)


@pytest.mark.parametrize(
    "text", ["泌阳县各乡镇", "泌阳县北部乡镇", "泌阳县城区", "贾楼乡北部", "贾楼乡王麻子村", "贾楼乡乡村道路"]
)
def test_what_is_warned_as_a_whole_anyway_holds_nothing(text: str) -> None:
    """An alarm for every loose word would be switched off by the third night."""
    assert resolve(text).unresolved == ()


@pytest.mark.parametrize("code", ["41172620", "4117262090", "４１１７２６２０９"])
def test_a_code_of_ours_that_lost_a_digit_is_named(code: str) -> None:
    """A township whose code was mistyped beside a good one would hear nothing, and nobody of it."""
    found = REGIONS.resolve([Area("", geocodes=(Code("township", "411726204"), Code("township", code)))], ("411726",))
    assert [one.township for one in found.targets] == ["411726204"]
    assert found.unresolved == (code,)


def test_open_or_unknown_descriptions_are_unresolved() -> None:
    """What nobody understood waits for a person, visibly."""
    assert resolve("火星").unresolved == ("火星",)
    assert resolve("贾楼乡等地").unresolved == ("贾楼乡等地",)
    assert resolve("贾楼乡").unresolved == ()


def test_a_polygon_is_certain_inside_and_uncertain_at_the_border() -> None:
    """Overlapped townships are certain; touched ones and those without a shape are included, flagged."""
    result = resolve(polygons=(box(113.02, 32.84, 113.1, 32.88),))
    how = {target.township: target.how for target in result.targets}
    assert sure(result) == {"411726001"}
    assert how["411726002"] == "touching"
    assert {code for code, word in how.items() if word == "no_geometry"} == BARE
    near = resolve(polygons=(box(113.02, 32.84, 113.095, 32.88),))  # about 470 m from the border
    assert "411726002" in {target.township for target in near.targets}
    far = resolve(polygons=(box(113.02, 32.84, 113.09, 32.88),))  # about 930 m
    assert "411726002" not in {target.township for target in far.targets}


def test_an_area_request_asks_for_what_was_drawn_and_for_no_more() -> None:
    """Where half a township is drawn, the other half sleeps; what is drawn whole, or by code, is named by its code."""
    half = Area("half", polygons=(box(113.02, 32.84, 113.06, 32.88), box(113.03, 32.85, 113.07, 32.87)))
    targets = REGIONS.resolve([half], (COUNTY,)).targets
    ((township, ring),) = REGIONS.clip([half], targets)
    assert township == "411726001"
    corners = [tuple(map(float, corner.split(","))) for corner in ring.split()]
    assert corners[0] == corners[-1]
    assert all(32.83 < lat < 32.89 and 113.01 < lon < 113.071 for lat, lon in corners)
    everything = Area("all", polygons=(box(112.0, 31.0, 115.0, 34.0),))
    assert REGIONS.clip([everything], REGIONS.resolve([everything], (COUNTY,)).targets) == ()
    assert REGIONS.clip([half], [Target("411726001")]) == ()
    ring_of_many = tuple(Point(32.85 + n * 1e-7, 113.03 + n * 1e-7) for n in range(3000))
    assert REGIONS.clip([Area("many", polygons=(ring_of_many,))], targets) == ()


def test_certain_matches_outside_the_authority_are_kept_uncertain_ones_dropped() -> None:
    """Policy must see that a county warns its neighbour; a map offset alone must not make it so."""
    across = resolve(polygons=(box(113.55, 32.84, 113.65, 32.88),))
    assert "411725101" in sure(across)
    beside = resolve(polygons=(box(113.55, 32.84, 113.6, 32.88),))
    assert all(target.township.startswith(COUNTY) for target in beside.targets)


def test_a_circle_reaches_by_its_radius() -> None:
    """CAP gives kilometres: 4 km inside a township stay there, 20 km do not; a zero radius is its centre."""

    def around(radius: float) -> set[str]:
        return sure(REGIONS.resolve([Area("", circles=(Circle(Point(32.86, 113.05), radius),))], [COUNTY]))

    assert around(0) == around(4) == {"411726001"}
    assert {"411726001", "411726002"} < around(20)
    assert around(math.nan) == set()


def test_swapped_latitude_and_longitude_resolve_to_nothing() -> None:
    """A swapped polygon must be seen by a person, not land on other villages."""
    swapped = tuple(Point(point.lon, point.lat) for point in box(113.02, 32.84, 113.08, 32.88))
    assert resolve("swapped", polygons=(swapped,)) == Resolution((), ("swapped",))


def test_a_huge_polygon_resolves() -> None:
    """The 41,000 points of a real warning neither fail nor lose a township."""
    turns = [2 * math.pi * step / 41_000 for step in range(41_000)]
    ring = tuple(Point(32.74 + 0.3 * math.sin(turn), 113.3 + 0.5 * math.cos(turn)) for turn in turns)
    result = resolve(polygons=((*ring, ring[0]),))
    assert sure(result) >= {town.code for town in REGIONS.under(COUNTY)} - BARE


def test_a_bowtie_keeps_both_its_lobes() -> None:
    """A ring that crosses itself warns both sides; a hopeless tangle warns its hull."""
    bow = [Point(32.84, 113.02), Point(32.88, 113.28), Point(32.84, 113.28), Point(32.88, 113.02), Point(32.84, 113.02)]
    assert sure(resolve(polygons=(tuple(bow),))) == {"411726001", "411726002", "411726003"}
    dice = random.Random(7)  # fixed
    tangle = tuple(Point(dice.uniform(32.84, 32.88), dice.uniform(113.02, 113.28)) for _ in range(1000))
    assert sure(resolve(polygons=((*tangle, tangle[0]),))) == {"411726001", "411726002", "411726003"}


COORDINATE = st.sampled_from([113.0, 113.05, 113.1, 32.8, 32.85, 32.9, math.nan, math.inf, 1e308])


@given(st.lists(st.builds(Point, COORDINATE, COORDINATE), max_size=8))
def test_no_ring_raises(ring: list[Point]) -> None:
    """A broken polygon is an answer, never a crash of intake."""
    assert resolve("broken", polygons=(tuple(ring),)) is not None


@st.composite
def targets(draw: st.DrawFn) -> Target:
    town = draw(st.sampled_from(TOWNS[:4]))
    known = [village.code for village in REGIONS.villages(town)]
    villages = tuple(sorted(draw(st.sets(st.sampled_from(known), max_size=4))))
    return Target(
        town, villages, draw(st.sampled_from(["code", "polygon", "touching"])), draw(st.booleans()), draw(st.booleans())
    )


@given(st.lists(targets(), max_size=6), st.lists(targets(), max_size=6))
def test_what_leaves_is_what_was_there_and_is_not_any_more(new: list[Target], old: list[Target]) -> None:
    """Exactly the leaving villages hear the partial all-clear: none that is still warned, none forgotten."""
    leaving = REGIONS.difference(new, old)
    assert set(REGIONS.expand(leaving)) == set(REGIONS.expand(old)) - set(REGIONS.expand(new))
    assert REGIONS.difference(old, old) == ()


@given(st.permutations(["411726209", "411726204201", "411726001", "411702", "411726209202", "411726204202"]))
def test_the_order_of_areas_does_not_matter(codes: list[str]) -> None:
    """The same warning in another order reaches the same villages."""
    areas = [Area(code, geocodes=(Code("", code),)) for code in codes]
    assert REGIONS.resolve(areas, ["4117"]) == REGIONS.resolve(
        sorted(areas, key=lambda area: area.description), ["4117"]
    )


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("411726,泌阳县,shire,411700,2023-06-30,,", "row 3: kind"),
        ("41172,泌阳县,county,411700,2023-06-30,,", "row 3: the code"),
        ("411726,泌阳县,county,411300,2023-06-30,,", "row 3: parent"),
        ("411726,泌阳县,county,411700,30.6.2023,,", "row 3: from and to"),
        ("411726,泌阳县,county", "row 3: 3 columns"),
        ("411726209,贾楼乡,township,411726,2023-06-30,,", "no county in force"),
        ("411700,驻马店市,city,,2023-06-30,,", "in force twice"),
    ],
)
def test_a_wrong_table_is_refused_with_its_row(tmp_path: Path, row: str, says: str) -> None:
    """A maintainer must find the wrong row in minutes, before the flood season and not in it."""
    head = "code,name,kind,parent,from,to,aliases\n411700,驻马店市,city,,2023-06-30,,\n"
    (tmp_path / "table.csv").write_text(head + row + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        Regions.load(tmp_path)


def test_the_demo_geometry_says_it_is_synthetic() -> None:
    """Made-up borders must never be taken for real ones."""
    assert REGIONS.shapes.synthetic


def test_the_townships_around_are_those_whose_shapes_touch() -> None:
    """The emergency regime warns the neighbours, too; where no map is loaded it invents none."""
    drawn = Regions.load(FOLDER, [FOLDER / "demo.geojson"])
    own = drawn.resolve([Area("贾楼乡", geocodes=(Code("township", "411726209"),))], ("411726",)).targets
    around = drawn.around(own)
    assert around
    assert "411726209" not in {target.township for target in around}
    assert {(target.how, target.certain) for target in around} == {("neighbour", False)}
    assert Regions.load(FOLDER).around(own) == ()


def test_a_county_named_over_and_over_counts_once() -> None:
    """A description full of 全县 must not grow with every repetition."""
    once, often = (REGIONS.resolve([Area("泌阳县" + "全县" * times)], ["411726"]) for times in (1, 2000))
    assert once.targets == often.targets != ()


def test_an_endless_description_is_read_to_a_limit_and_held_for_a_person() -> None:
    """Megabytes of names must not stop everything else; what was not read is never taken for nothing."""
    found = REGIONS.resolve([Area("贾楼乡、" + "某地、" * 400_000 + "铜山乡")], ["411726"])
    assert [target.township for target in found.targets] == ["411726209"]
    assert len(found.unresolved) == 1


@pytest.mark.parametrize(
    ("text", "names"),
    [("除贾楼乡外", []), ("除贾楼乡以外，铜山乡", ["铜山乡"]), ("铜山乡，除贾楼乡", ["铜山乡", "贾楼乡"])],
)
def test_an_exception_ends_where_it_says(text: str, names: list[str]) -> None:
    """除…外 takes its places out; without its end it takes out nothing, for too many warned beats too few."""
    assert [one.name for one in REGIONS.names_in(text, "411726")] == names
