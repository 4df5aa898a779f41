"""How intricate a ring may be before geometry is asked: real outlines pass, what would take minutes does not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import shapely
from test_cap_findings import comb

from gateway.cap.form import read_polygon
from gateway.model import Area, Point
from gateway.regions import Regions
from gateway.regions.ring import is_dense

CONFIG = Path(__file__).parent.parent / "config" / "regions"


def coast(points: int, waves: int) -> list[tuple[float, float]]:
    turns = [2 * math.pi * step / points for step in range(points)]
    out = [0.2 + 0.004 * math.sin(waves * turn) + 0.02 * math.sin(17 * turn) for turn in turns]
    ring = [(113.3 + r * math.cos(turn), 32.7 + r * math.sin(turn)) for r, turn in zip(out, turns, strict=True)]
    return [*ring, ring[0]]


@pytest.mark.parametrize(("points", "waves"), [(5, 0), (500, 50), (41_008, 0), (41_008, 3000)])
def test_a_real_outline_is_judged(points: int, waves: int) -> None:
    """Taking the hull of an honest coast would wake villages behind every bay."""
    assert not is_dense(shapely.polygons(coast(points, waves)))


def test_a_comb_is_not_judged() -> None:
    """A validity test compares every tooth with every other: 41,000 points took 5 s, 4 MiB would take minutes."""
    assert is_dense(shapely.polygons(read_polygon(comb(600))))
    assert is_dense(shapely.polygons(read_polygon(comb(40_000))))


def test_a_small_comb_is_judged_however_it_lies() -> None:
    """What is small costs nothing, whatever its shape."""
    assert not is_dense(shapely.polygons(read_polygon(comb(30))))


def test_a_comb_warns_everything_under_its_hull() -> None:
    """What cannot be told apart in time must not be left out: whoever lies between the teeth is warned, too."""
    regions = Regions.load(CONFIG, [CONFIG / "demo.geojson"])
    teeth = tuple(Point(lat + 0.7, lon - 0.2) for lat, lon in read_polygon(comb(600)))
    hull = tuple(Point(*pair) for pair in shapely.get_coordinates(shapely.polygons(teeth).convex_hull).tolist())
    found = [regions.resolve([Area("", (ring,))], ["4117"]).targets for ring in (teeth, hull)]
    assert found[0] == found[1] != ()
