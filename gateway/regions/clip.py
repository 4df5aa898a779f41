"""What an issuer's polygons cut out of one township: an area request asks for no more than was drawn (rule 4)."""

from __future__ import annotations

from collections.abc import Iterable

import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

MOST_RINGS = 20
MOST_CORNERS = 500
COARSER_M = (0.0, 20.0, 50.0, 100.0, 200.0)
SLIVER_M2 = 10_000.0  # less than a hectare is how two maps differ


def clip(drawn: Iterable[BaseGeometry], outline: BaseGeometry) -> list[list[tuple[float, float]]]:
    """Return the rings (first = last) of what is drawn within an outline, on the plane; none: all of it, or too much.

    Holes are left in place by asking for nothing where there are any.
    """
    common = shapely.union_all([shapely.intersection(one, outline) for one in drawn])
    if outline.area - common.area < SLIVER_M2:
        return []
    parts = [one for one in shapely.get_parts(common) if isinstance(one, Polygon) and one.area >= SLIVER_M2]
    if not parts or len(parts) > MOST_RINGS or any(part.interiors for part in parts):
        return []
    rings = [_ring(part) for part in parts]
    return rings if all(rings) else []


def _ring(part: Polygon) -> list[tuple[float, float]]:
    """Return a ring of few enough corners that lies within the part; [] if there is none."""
    for by_m in COARSER_M:
        inner = part if not by_m else part.buffer(-by_m).simplify(by_m)
        if isinstance(inner, Polygon) and not inner.is_empty and not inner.interiors:
            corners = [(corner[0], corner[1]) for corner in inner.exterior.coords]
            if len(corners) <= MOST_CORNERS:
                return corners
    return []
