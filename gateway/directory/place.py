"""The audience of an area request: places, and never people (D10). Whoever is there hears it; nobody here knows who.

A page holds one township. Its recipients are the township itself, the villages it is narrowed to, or the rings the
issuer drew inside it; each one's id stands for the place, and its address is a code, or a ring as CAP writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from gateway.model import Audience, Target
from gateway.ports import Page

RING_IDS = 900  # behind a township's digits: no village has such a number


def pages(audience: Audience, after: tuple[str, str, int] | None) -> Iterator[Page]:
    """Yield the page of every township behind a cursor, in order."""
    done = after[0] if after else ""
    for target in sorted(audience.targets, key=attrgetter("township")):
        if target.township > done:
            yield _page(audience, target)


def count(audience: Audience) -> dict[str, int]:
    """Return places per township."""
    return {page.township: len(page.persons) for page in pages(audience, None)}


def covers(target: Target, place: int) -> bool:
    """Whether a place lies in the target as a whole, so that words for the target hold for all of it."""
    code = str(place)
    return code.startswith(target.township) and (not target.villages or code in target.villages)


def _page(audience: Audience, target: Target) -> Page:
    rings = [ring for township, ring in audience.rings if township == target.township]
    codes = target.villages or (target.township,)
    if rings and not target.villages:
        persons = tuple(int(target.township) * 1000 + RING_IDS + number for number in range(len(rings)))
        return Page(target.township, persons, tuple(rings), ("",) * len(rings), {}, (target.township, "~", 0))
    return Page(target.township, tuple(map(int, codes)), codes, target.villages or ("",), {}, (target.township, "~", 0))
