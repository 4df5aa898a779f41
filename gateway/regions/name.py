"""Places by their Chinese names: exact, by spoken form, by full path; never by substring.

Names are looked up inside a scope of code prefixes, because 古城街道 exists in two counties and
306 village names repeat. Within one township, and for townships within one county, names are unique.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from gateway.regions.region import TOWNSHIP, VILLAGE, Region, plain, stem

_LONGEST = 60  # characters; no path from the province down to a village is longer
_SHORTEST = 2
_DOUBLED = re.compile(r"[街路]街道$")  # 人民街街道 is written 人民街道, 东风路街道 东风街道


class Names:
    """Index of names. `twins` are codes a place is also called by: {"411702": ("411771",)}."""

    def __init__(self, regions: Mapping[str, Region]) -> None:
        self.exact: defaultdict[str, list[Region]] = defaultdict(list)
        self.towns: defaultdict[str, list[Region]] = defaultdict(list)
        self.villages: defaultdict[str, list[Region]] = defaultdict(list)
        self.counties = [one for one in regions.values() if one.kind == "county"]
        twins: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
        for region in regions.values():
            for name in _spellings(region):
                self.exact[name].append(region)
            for alias in region.aliases:
                if alias.isdigit():
                    twins[plain(alias)] += (plain(region.code),)
            if region.kind == "township":
                for base in {stem(name, TOWNSHIP) or name for name in (region.name, *region.aliases)}:
                    self.towns[base].append(region)
            elif region.kind == "village":
                self.villages[region.stem].append(region)
        self.twins: Mapping[str, tuple[str, ...]] = dict(twins)
        self._starts = {name[:_SHORTEST] for names in (self.exact, self.towns, self.villages) for name in names}

    def may_start(self, text: str, at: int) -> bool:
        """Return whether any name could stand here: saves twenty look-ups at nearly every character of a text."""
        return text[at : at + _SHORTEST] in self._starts or text[at] in self._starts

    def scope(self, prefixes: Sequence[str]) -> tuple[str, ...]:
        """Return the prefixes without padding, and with the places also called by their codes."""
        own = tuple(plain(prefix) for prefix in prefixes)
        return own + tuple(twin for prefix in own for twin in self.twins.get(prefix, ()))

    def find(self, name: str, scope: tuple[str, ...]) -> list[Region]:
        """Return the places of that name under the scope, in code order; several mean it is ambiguous."""
        name = "".join(name.split()).removeprefix("河南省")
        return self._walk(name, scope) if len(name) <= _LONGEST else []

    def _walk(self, name: str, scope: tuple[str, ...]) -> list[Region]:
        found = self.whole(name, scope)
        for cut in range(len(name) - _SHORTEST, _SHORTEST - 1, -1):
            if found:
                break
            for above in self.whole(name[:cut], ("",)):
                inner = meet(self.scope([above.code]), scope)
                found = self._walk(name[cut:], inner) if inner and above.kind != "village" else []
                if found:
                    break
        return found

    def whole(self, name: str, scope: tuple[str, ...]) -> list[Region]:
        """Return what the whole name means: official name or alias, else other ending, else without ending.

        Without an ending a township is meant before a village (杨庄 is 杨庄乡 where there is one).
        """
        for found in (self.exact.get(name), self.by_ending(name), self.towns.get(name), self.villages.get(name)):
            inside = sorted((one for one in found or () if one.code.startswith(scope)), key=_code)
            if inside:
                return inside
        return []

    def by_ending(self, name: str) -> list[Region]:
        """Return places called so with another ending of their kind: 贾楼村 for 贾楼村民委员会, 贾楼镇 for 贾楼乡."""
        village, town = stem(name, VILLAGE), stem(name, TOWNSHIP)
        return (self.villages.get(village, []) if village else []) or (self.towns.get(town, []) if town else [])


def meet(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """Return the prefixes of what lies under both."""
    longer = (a if a.startswith(b) else b for a in one for b in other if a.startswith(b) or b.startswith(a))
    return tuple(dict.fromkeys(longer))


def _spellings(region: Region) -> set[str]:
    names = {region.name, region.spoken, *(alias for alias in region.aliases if not alias.isdigit())}
    if region.kind == "township" and _DOUBLED.search(region.name):
        names.add(_DOUBLED.sub("街道", region.name))
    return names


def _code(region: Region) -> str:
    return region.code
