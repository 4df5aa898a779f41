"""How intricate a ring is, told before geometry is asked: a hostile polygon must not cost minutes.

Validity tests compare every two sides whose boxes overlap. In a real outline these are a few per side; a comb laid
askew has n² of them. Called by `gateway.regions.shape` and by the rules of `gateway.cap`.
"""

from __future__ import annotations

from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

_PER_SIDE, _SLACK = 64, 20_000  # overlaps allowed: a few milliseconds per thousand sides
_MEMORY = 1_000_000  # overlaps looked at in one piece


def is_dense(ring: BaseGeometry) -> bool:
    """Return whether so many sides lie side by side that no validity test should be started."""
    corners = shapely.get_coordinates(ring)
    count = len(corners) - 1
    allowed = _PER_SIDE * count + _SLACK
    if count * count <= allowed:
        return False
    low, high = corners[:-1].clip(max=corners[1:]), corners[:-1].clip(min=corners[1:])
    if any(_overlaps(low[:, axis], high[:, axis]) <= allowed for axis in (0, 1)):
        return False
    boxes = shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1])
    tree = shapely.STRtree(boxes)
    step = max(1, _MEMORY // count)
    for start in range(0, count, step):
        allowed -= tree.query(boxes[start : start + step]).shape[1] // 2  # each pair is found from both its sides
        if allowed < 0:
            return True
    return False


def _overlaps(low: Any, high: Any) -> int:
    """Return how many pairs of intervals overlap: what begins before an end, less itself and what began earlier."""
    begins = low.copy()
    begins.sort()
    return int(begins.searchsorted(high, side="right").sum()) - len(low) * (len(low) + 1) // 2
