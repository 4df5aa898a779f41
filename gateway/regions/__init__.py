"""The administrative tree and what an alert's areas mean in it: township targets, down to villages.

Called by intake (resolve), policy (authority prefixes), planner (expand, difference), render and console (names).
`Regions` is the whole surface; the modules beside it are its parts.

**Source:** codes of the National Bureau of Statistics as of 2023-06-30 (see `config/regions/README.md`);
CAP 1.2 for area, polygon, circle and geocode.
"""

from gateway.regions.region import Region
from gateway.regions.tree import LISTED, Regions

__all__ = ["LISTED", "Region", "Regions"]
