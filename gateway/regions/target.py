"""How targets are joined: whatever the order of areas, the result is the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from gateway.model import Target

NEIGHBOUR = "neighbour"
"""How a township was matched that nobody named: it lies beside one that was, under the emergency regime (D8)."""
STRENGTH = ("code", "polygon", "circle", "name", "county", "touching", "no_geometry")


def merge(targets: Iterable[Target]) -> tuple[Target, ...]:
    """Return one target per township, in code order.

    The whole township beats villages. One certain match makes it certain, and then only certain ones
    decide how it was matched and whether it is coarse: a finer certain match lifts a county-only one.
    """
    found: defaultdict[str, list[Target]] = defaultdict(list)
    for target in targets:
        found[target.township].append(target)
    return tuple(_join(township, found[township]) for township in sorted(found))


def named(targets: Iterable[Target]) -> tuple[Target, ...]:
    """Return the targets without those that only lie beside them."""
    return tuple(target for target in targets if target.how != NEIGHBOUR)


def overlap(one: Sequence[Target], other: Sequence[Target]) -> bool:
    """Whether two sets of targets share a village."""
    by_township: dict[str, list[Target]] = {}
    for target in one:
        by_township.setdefault(target.township, []).append(target)
    return any(
        not mine.villages or not yours.villages or not set(mine.villages).isdisjoint(yours.villages)
        for mine in other
        for yours in by_township.get(mine.township, ())
    )


def _join(township: str, parts: list[Target]) -> Target:
    if len(parts) == 1 and len(parts[0].villages) < 2:
        return parts[0]
    certain = [part for part in parts if part.certain]
    deciding = certain or parts
    whole = any(not part.villages for part in parts)
    villages = () if whole else tuple(sorted({village for part in parts for village in part.villages}))
    how = min((part.how for part in deciding), key=_rank)
    return Target(township, villages, how, bool(certain), all(part.coarse for part in deciding))


def _rank(how: str) -> tuple[int, str]:
    return (STRENGTH.index(how) if how in STRENGTH else len(STRENGTH), how)
