"""Polygons and circles of an alert against the shapes of townships and counties.

Everything is measured in metres on a plane laid through the middle of the loaded shapes, so that the
600 m of the Chinese map offset are 600 m. Within one prefecture the plane is wrong by less than 1 %.

**Source:** CAP 1.2 §3.2.4 (polygon: "lat,lon" pairs, WGS84; circle: centre and kilometres); RFC 7946 (lon, lat).
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Container, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Point as Spot
from shapely.geometry import Polygon, shape
from shapely.geometry.base import BaseGeometry

from gateway.errors import ConfigError
from gateway.model import Area, Circle, Point
from gateway.regions.clip import clip
from gateway.regions.ring import is_dense

OFFSET_M = 600.0  # maps drawn in GCJ-02 lie up to this far from WGS84 (火星坐标)
_DEGREE_M = 111_195.0  # metres per degree of latitude on the mean sphere
_CROSSINGS, _SLACK = 8, 1000  # per side; each side meets itself and its two neighbours in any ring
_CHUNK = 64  # sides counted at once: bounds the memory of a hostile ring


Flat = NDArray[np.float64]
"""Metres on the plane: one row (east, north) per point."""


class Hit(NamedTuple):
    """One shape that was met. `how` is polygon, circle or touching; only the first two are certain."""

    code: str
    how: str


class Shapes:
    """Shapes by code (6-digit outlines of counties, 9-digit townships), searchable."""

    def __init__(self, pairs: Sequence[tuple[str, BaseGeometry]], synthetic: bool = False) -> None:
        self.synthetic = synthetic
        self.codes = tuple(code for code, _ in pairs)
        self.drawn = frozenset(code for code, one in pairs if one.area)  # the ones with a surface
        west, south, east, north = shapely.total_bounds([one for _, one in pairs]) if pairs else (0.0,) * 4
        self._middle = ((west + east) / 2, (south + north) / 2)
        self._scale = _DEGREE_M * math.cos(math.radians(self._middle[1]))
        self._shapes = [
            shapely.transform(one, lambda at: (at - self._middle) * (self._scale, _DEGREE_M)) for _, one in pairs
        ]
        self._tree = shapely.STRtree(self._shapes)

    def hits(self, area: Area) -> set[Hit]:
        """Return every shape the area's polygons and circles overlap, touch, or miss by less than 600 m."""
        found: set[Hit] = set()
        if self.codes:
            for ring in area.polygons:
                found |= self._polygon(ring)
            for circle in area.circles:
                found |= self._circle(circle)
        return found

    def around(self, codes: Collection[str]) -> set[str]:
        """Return the shapes that touch those of the codes, or miss them by less than 600 m."""
        own = [one for code, one in zip(self.codes, self._shapes, strict=True) if code in codes]
        if not own:
            return set()
        near = self._tree.query(own, predicate="dwithin", distance=OFFSET_M)[1]
        return {self.codes[at] for at in near}

    def clip(self, areas: Iterable[Area], codes: Collection[str]) -> list[tuple[str, str]]:
        """Return (code, ring) for what the areas' polygons cut out of each shape, as CAP writes rings (lat,lon).

        A shape that is drawn whole, or of which no few and simple rings are left, has none.
        """
        drawn = [one for area in areas for ring in area.polygons if (one := _surface(self._flat(ring))) is not None]
        outlines = ((code, one) for code, one in zip(self.codes, self._shapes, strict=True) if code in codes)
        return [(code, self._written(ring)) for code, outline in outlines for ring in clip(drawn, outline)]

    def _written(self, ring: Sequence[tuple[float, float]]) -> str:
        degrees = np.array(ring) / (self._scale, _DEGREE_M) + self._middle
        return " ".join(f"{lat:.6f},{lon:.6f}" for lon, lat in degrees)

    def _polygon(self, ring: Sequence[Point]) -> set[Hit]:
        surface = _surface(self._flat(ring))
        if surface is None:
            return set()
        shapely.prepare(surface)
        near = self._tree.query(surface, predicate="dwithin", distance=OFFSET_M)
        return {self._hit(int(at), "polygon", self._overlaps(surface, self._shapes[at])) for at in near}

    def _circle(self, circle: Circle) -> set[Hit]:
        radius = circle.radius_km * 1000
        flat = self._flat([circle.centre])
        if not len(flat) or not 0 <= radius < math.inf:
            return set()
        centre = Spot(flat[0])
        near = self._tree.query(centre, predicate="dwithin", distance=radius + OFFSET_M)
        return {self._hit(int(at), "circle", _reaches(centre, radius, self._shapes[at])) for at in near}

    def _hit(self, at: int, how: str, certain: bool) -> Hit:
        return Hit(self.codes[at], how if certain else "touching")

    @staticmethod
    def _overlaps(surface: BaseGeometry, one: BaseGeometry) -> bool:
        # A line or point left of a broken polygon covers no ground: it can only touch.
        return bool(surface.area) and surface.intersects(one) and not surface.touches(one)

    def _flat(self, points: Sequence[Point]) -> Flat:
        """Return the points that are on earth (degrees; nan is not), in one go: a ring can have tens of thousands."""
        degrees = np.fromiter(chain.from_iterable(points), np.float64, 2 * len(points)).reshape(-1, 2)
        degrees = degrees[(np.abs(degrees) <= (90, 180)).all(axis=1)]
        flat: Flat = (degrees[:, ::-1] - self._middle) * (self._scale, _DEGREE_M)
        return flat


def _reaches(centre: Spot, radius: float, one: BaseGeometry) -> bool:
    return one.distance(centre) < radius if radius else one.contains(centre)


def _surface(points: Flat) -> BaseGeometry | None:
    """Return the ground a ring covers; a broken ring covers everything any reading of it would.

    A ring crossing itself keeps all its lobes, and holes in it are filled: CAP rings have none.
    """
    moved = (np.diff(points, axis=0) != 0).any(axis=1)
    points = points[np.concatenate(([True], moved))] if len(points) else points  # rounding repeats points
    others = points[(points != points[:1]).any(axis=1)]
    if not (others != others[:1]).any():  # fewer than three corners
        return shapely.MultiPoint(points).convex_hull if len(points) else None
    ring = Polygon(points)
    if is_dense(ring):
        return ring.convex_hull
    if ring.is_valid:
        return ring
    if _tangled(points):
        return ring.convex_hull
    mended = shapely.get_parts(shapely.make_valid(ring, method="structure"))
    filled = shapely.union_all([Polygon(part.exterior) for part in mended if isinstance(part, Polygon)])
    return ring.convex_hull if filled.is_empty else filled


def _tangled(points: Flat) -> bool:
    """Return whether a ring crosses itself so often that mending it could take minutes."""
    sides = shapely.linestrings(np.stack((points[:-1], points[1:]), axis=1).tolist())
    tree = shapely.STRtree(sides)
    allowed = _CROSSINGS * len(sides) + _SLACK
    for start in range(0, len(sides), _CHUNK):
        allowed -= tree.query(sides[start : start + _CHUNK], predicate="intersects").shape[1]
        if allowed < 0:
            return True
    return False


def load(paths: Iterable[Path], known: Container[str]) -> Shapes:
    """Read GeoJSON feature collections; each feature's `code` property names its county or township.

    A feature without geometry is passed over. Raises `ConfigError` naming file and feature.
    """
    pairs: list[tuple[str, BaseGeometry]] = []
    synthetic = False
    for path in paths:
        try:
            collection = json.loads(path.read_bytes())
            features = list(collection["features"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path.name}: is no GeoJSON feature collection ({type(error).__name__})") from error
        for number, feature in enumerate(features, start=1):
            pair = _feature(feature, known, f"{path.name}: feature {number}")
            synthetic |= bool(feature["properties"].get("synthetic"))
            pairs += [pair] if pair else []
    return Shapes(pairs, synthetic)


def _feature(feature: Any, known: Container[str], where: str) -> tuple[str, BaseGeometry] | None:
    try:
        code = str(feature["properties"]["code"])
        one = shape(feature["geometry"]) if feature["geometry"] else None
    except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        raise ConfigError(f"{where}: needs a `code` property and a valid geometry ({type(error).__name__})") from error
    if code not in known:
        raise ConfigError(f"{where}: {code!r} is no county or township of the table")
    if one is None or one.is_empty:
        return None
    west, south, east, north = one.bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):  # degrees
        raise ConfigError(f"{where}: {code}: coordinates are not degrees; GeoJSON writes longitude first")
    return code, one if one.is_valid else shapely.make_valid(one)
