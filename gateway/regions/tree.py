"""`Regions`: the tree of places, names, shapes, and what an alert's areas mean in it."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from functools import cached_property
from pathlib import Path

from gateway.errors import ConfigError
from gateway.model import Alert, Area, Resolution, Target
from gateway.regions import region as table
from gateway.regions import shape
from gateway.regions.area import of_area
from gateway.regions.name import Names
from gateway.regions.reading import Reader
from gateway.regions.region import Region, plain
from gateway.regions.target import NEIGHBOUR, merge

LISTED = "the codes of all places stand with their names in config/regions/*.csv"
"""Where whoever gave a code that does not exist finds those that do."""
MOST_DRAWN = 2_000  # corners; beyond them townships are asked for as a whole, for cutting them would delay others


class Regions:
    """All places in force. Codes may be padded (411726000000 and 411726000 are 411726)."""

    def __init__(self, regions: Iterable[Region], shapes: shape.Shapes | None = None) -> None:
        self.places = {plain(one.code): one for one in regions}
        self.shapes = shapes or shape.Shapes(())
        self._codes = sorted(self.places)
        self._children: defaultdict[str, list[Region]] = defaultdict(list)
        for code in self._codes:
            self._children[plain(self.places[code].parent)].append(self.places[code])

    @classmethod
    def load(cls, folder: Path, geometry: Sequence[Path] = (), on: date | None = None) -> Regions:
        """Read every table of the folder, and shapes from GeoJSON files.

        `on` chooses the codes in force on that day; None those without an end. Raises `ConfigError`
        naming the file, the row and the fix.
        """
        places: dict[str, Region] = {}
        for path in sorted(folder.glob("*.csv")):
            for one in table.read(path, on):
                if places.setdefault(plain(one.code), one) is not one:
                    raise ConfigError(f"{path.name}: {one.code} is in force twice")
        if not places:
            raise ConfigError(f"{folder.name}: holds no table of places (*.csv)")
        table.check(places, folder.name)
        return cls(places.values(), shape.load(geometry, places))

    @cached_property
    def cities(self) -> tuple[str, ...]:
        """The codes of the cities: what our own codes begin with."""
        return tuple(code for code, one in self.places.items() if one.kind == "city")

    @cached_property
    def names(self) -> Names:
        """The index of names, built when first needed."""
        return Names(self.places)

    def get(self, code: str) -> Region | None:
        """Return the place of that code, None if there is none."""
        return self.places.get(plain(code))

    def unknown(self, codes: Iterable[str]) -> str:
        """Say which of the codes no place has, and where codes are found; "" where all are known."""
        unknown = [code for code in codes if self.get(code) is None]
        return f"no place has the code {', '.join(unknown)}; {LISTED}" if unknown else ""

    def children(self, code: str) -> list[Region]:
        """Return the places directly below, in code order; none for an unknown code."""
        return list(self._children.get(plain(code), ()))

    def under(self, prefix: str, kind: str = "township") -> list[Region]:
        """Return the places of `kind` whose code begins with the prefix (2 to 12 digits), in code order."""
        wanted = plain(prefix)
        found = []
        for code in self._codes[bisect_left(self._codes, wanted) :]:
            if not code.startswith(wanted):
                break
            if self.places[code].kind == kind:
                found.append(self.places[code])
        return found

    def villages(self, township: str) -> list[Region]:
        """Return the villages of a township, in code order."""
        return [one for one in self.children(township) if one.kind == "village"]

    def township_of(self, village: str) -> Region | None:
        """Return the township a village belongs to, None if the village is unknown."""
        one = self.get(village)
        return self.get(one.parent) if one and one.kind == "village" else None

    def name(self, code: str) -> str:
        """Return what people call the place; the code itself if unknown, so that no text waits for a name."""
        one = self.get(code)
        return one.spoken if one else code

    def path_name(self, code: str) -> str:
        """Return the name from the county down: 泌阳县贾楼乡凤凰台村. The code itself if unknown."""
        names: list[str] = []
        one = self.get(code)
        while one and (one.kind != "city" or not names):
            names.append(one.spoken)
            one = self.get(one.parent) if one.parent else None
        return "".join(reversed(names)) or code

    def find(self, name: str, within: str) -> list[Region]:
        """Return the places of that name under `within`, in code order; several mean it is ambiguous.

        Understands full paths (驻马店市泌阳县贾楼乡凤凰台村), spoken forms (凤凰台村) and bare names (凤凰台); an
        official name wins over a spoken form, that over a bare name, there a township over a village.
        """
        return self.names.find(name, self.names.scope([within]))

    def names_in(self, text: str, within: str) -> list[Region]:
        """Return the townships under `within` that a free description names, in the text's order."""
        scope = self.names.scope([within])
        towns = Reader(self.names, scope).read(text).towns
        return [town for town in towns if town.code.startswith(scope)]

    def resolve(self, areas: Sequence[Area], within: Sequence[str]) -> Resolution:
        """Return the townships the areas mean; `within` are code prefixes of the issuer's authority area.

        Certain matches outside `within` are kept (policy must see them), uncertain ones there dropped.
        `unresolved` names each area that gave nothing, each of our codes that is unknown, and descriptions
        that say they are incomplete (等地).
        """
        inside = tuple(plain(prefix) for prefix in within)
        found: list[Target] = []
        unresolved: list[str] = []
        for area in areas:
            meaning = of_area(self, area, inside)
            kept = [one for one in meaning.targets if one.certain or one.township.startswith(inside)]
            found += kept
            unresolved += meaning.unknown
            if not kept or meaning.open:
                unresolved.append(area.description or " ".join(code.value for code in area.geocodes) or "?")
        return Resolution(merge(found), tuple(dict.fromkeys(unresolved)))

    def resolve_alert(self, alert: Alert, within: Sequence[str]) -> Resolution:
        """Return what the areas of all infos mean, and those of each where they differ; see `resolve`.

        An info without an area speaks of all of them.
        """
        first = alert.infos[0].areas if alert.infos else ()
        if all(info.areas == first for info in alert.infos):
            return self.resolve(first, within)
        alone = {area: self.resolve((area,), within) for area in alert.areas}
        targets = merge(target for one in alone.values() for target in one.targets)
        unresolved = tuple(dict.fromkeys(name for one in alone.values() for name in one.unresolved))
        parts = (
            merge(target for area in info.areas for target in alone[area].targets) if info.areas else targets
            for info in alert.infos
        )
        return Resolution(targets, unresolved, tuple(parts))

    def around(self, targets: Sequence[Target]) -> tuple[Target, ...]:
        """Return the townships whose shapes touch those of the targets, as uncertain targets; none without geometry."""
        own = {target.township for target in targets}
        return tuple(
            Target(code, how=NEIGHBOUR, certain=False)
            for code in sorted(self.shapes.around(own) - own)
            if (place := self.get(code)) and place.kind == "township"
        )

    def clip(self, areas: Sequence[Area], targets: Iterable[Target]) -> tuple[tuple[str, str], ...]:
        """Return (township, ring) of what the areas' polygons cut out of those targets that only polygons name."""
        if sum(len(ring) for area in areas for ring in area.polygons) > MOST_DRAWN:
            return ()
        return tuple(self.shapes.clip(areas, {one.township for one in targets if one.how == "polygon"}))

    def expand(self, targets: Iterable[Target]) -> list[str]:
        """Return the codes of all villages of the targets, each once, in order."""
        return sorted({village for target in targets for village in self._villages(target)})

    def difference(self, new: Sequence[Target], old: Sequence[Target]) -> tuple[Target, ...]:
        """Return what is in `old` and no more in `new`: the townships and villages that are leaving.

        A township that leaves as a whole stays whole; only where part of it remains are villages listed.
        """
        remaining = {target.township: target for target in merge(new)}
        leaving = []
        for target in merge(old):
            now = remaining.get(target.township)
            if now is None:
                leaving.append(target)
            elif now.villages:
                villages = tuple(sorted(set(self._villages(target)) - set(now.villages)))
                leaving += [replace(target, villages=villages)] if villages else []
        return tuple(leaving)

    def _villages(self, target: Target) -> Sequence[str]:
        return target.villages or [one.code for one in self.villages(target.township)]
