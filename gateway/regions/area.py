"""What one CAP area means: by code, by shape, and by name where these say nothing certain.

Geocodes: any value of 6, 9 or 12 digits (padding allowed) that begins like one of our codes, whatever its
valueName, except under the names of foreign code systems, whose digits mean something else. One
value may list several codes.

**Source:** CAP 1.2 §3.2.4; DOMAIN: whatever is touching or uncertain is included and flagged.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from gateway.model import Area, Code, Target
from gateway.regions.name import Names
from gateway.regions.reading import Reader, Reading
from gateway.regions.region import Region, plain
from gateway.regions.shape import Shapes

FOREIGN = frozenset({"SAME", "FIPS6", "UGC", "WARNCELLID", "EMMA_ID", "NUTS2", "NUTS3", "CAP-CP", "CLC"})
_LENGTHS = (6, 9, 12)
_VILLAGE, _TOWNSHIP = 12, 9
_LIST = re.compile(r"[\s,;，；、|]+")


class Places(Protocol):
    """What an area is held against: the tree of places, their names and shapes."""

    places: dict[str, Region]
    shapes: Shapes

    @property
    def names(self) -> Names:
        """The index of names."""

    @property
    def cities(self) -> tuple[str, ...]:
        """Codes of the cities."""

    def children(self, code: str) -> list[Region]:
        """Return the places directly below."""

    def under(self, prefix: str, kind: str = "township") -> list[Region]:
        """Return the places of a kind whose code begins with the prefix."""


class Meaning(NamedTuple):
    """Targets of one area; codes of ours that are unknown; whether the description means more, or less, than those."""

    targets: list[Target]
    unknown: list[str]
    open: bool


class _Coded(NamedTuple):
    fine: list[Target]
    counties: list[str]  # plain prefixes of counties, cities, the province
    unknown: list[str]


def of_area(regions: Places, area: Area, inside: tuple[str, ...]) -> Meaning:
    """Return what the area means; `inside` are the plain prefixes of the issuer's authority."""
    coded = _by_code(regions, area.geocodes)
    fine = coded.fine + [one for one in _by_shape(regions, area) if one.certain or one.township.startswith(inside)]
    refined = {one.township for one in fine if one.certain}
    named: Reading | None = None
    if not refined:
        named = Reader(regions.names, regions.names.scope(inside) or ("",)).read(area.description)
        fine += named.targets()
        if not named.rest:
            refined |= {one.township for one in named.targets() if one.certain}
    wide = coded.counties or (_alone(named) if named else [])
    coarse = [one for county in wide if not _any_under(county, refined) for one in _county(regions, county)]
    vague = named is not None and (named.open or (named.strange and not coarse))  # what is coarse holds it already
    return Meaning(fine + coarse, coded.unknown, vague and not coded.counties)


def _by_code(regions: Places, geocodes: Iterable[Code]) -> _Coded:
    coded = _Coded([], [], [])
    for value in (part for code in geocodes if code.name not in FOREIGN for part in _LIST.split(code.value)):
        if len(value) not in _LENGTHS or not (value.isascii() and value.isdigit()):
            if value.isdigit() and unicodedata.normalize("NFKC", value).startswith(regions.cities):
                coded.unknown.append(value)  # a digit was lost, or the digits are full-width: nothing is guessed
            continue
        code = plain(value)
        if len(code) < _TOWNSHIP and regions.under(code):
            coded.counties.append(code)
        elif code in regions.places or code[:_TOWNSHIP] in regions.places:
            coded.fine.append(_coded(regions, code))
        elif code.startswith(regions.cities):
            coded.unknown.append(value)
    return coded


def _coded(regions: Places, code: str) -> Target:
    if len(code) != _VILLAGE:
        return Target(code)
    if code in regions.places:
        return Target(code[:_TOWNSHIP], (code,))
    return Target(code[:_TOWNSHIP], certain=False)  # a village younger than our table: its whole township


def _by_shape(regions: Places, area: Area) -> list[Target]:
    """Return townships by polygon and circle, and those nobody has drawn in the counties met."""
    if not area.polygons and not area.circles:
        return []
    hits = regions.shapes.hits(area)
    met = {hit.code for hit in hits}
    found = [Target(hit.code, (), hit.how, hit.how != "touching") for hit in hits if len(hit.code) == _TOWNSHIP]
    for county in sorted({code[:6] for code in met}):
        undrawn = (one.code for one in regions.children(county) if one.code not in regions.shapes.drawn | met)
        found += [Target(code, (), "no_geometry", certain=False) for code in undrawn]
    return found


def _alone(named: Reading) -> list[str]:
    """Return the counties (and cities) named without naming anything below them."""
    finer = {one.township for one in named.targets()} | {plain(one.code) for one in named.counties}
    codes = dict.fromkeys(plain(one.code) for one in named.counties)
    return [code for code in codes if not any(one != code and one.startswith(code) for one in finer)]


def _any_under(prefix: str, townships: Iterable[str]) -> bool:
    return any(one.startswith(prefix) for one in townships)


def _county(regions: Places, prefix: str) -> list[Target]:
    """Return every township under a county, coarse; what is only also called by its code is uncertain."""
    own = [Target(one.code, (), "county", coarse=True) for one in regions.under(prefix)]
    twins = (one for twin in regions.names.twins.get(prefix, ()) for one in regions.under(twin))
    return own + [Target(one.code, (), "county", certain=False, coarse=True) for one in twins]
