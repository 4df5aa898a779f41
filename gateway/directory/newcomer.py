"""New places of an import, kept until all people are written, and then in the order of their keys.

Called by the importer. People come in the order of their ids, in which a million places would each touch a page of the
database of their own. A place waits as twelve bytes: a list names few places, and each of them many times.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

from gateway.transaction import Row

CHUNK = 2_000


class Newcomers:
    """Note all new places, then read them."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str, str, str], int] = {}
        self._which = array("I")
        self._people = array("q")

    def note(self, township: str, audience: str, village: str, role: str, person: int) -> None:
        """Note a place that a person has from now on."""
        self._which.append(self._places.setdefault((township, audience, village, role), len(self._places)))
        self._people.append(person)

    def __len__(self) -> int:
        return len(self._people)

    def rows(self, since: int) -> Iterator[list[Row]]:
        """Yield (township, audience, village, person, role, since) in chunks; the order is that of the key but role."""
        if not self._people:
            return
        places = list(self._places)
        ranks = np.empty(len(places), np.uint32)
        ranks[sorted(range(len(places)), key=places.__getitem__)] = np.arange(len(places), dtype=np.uint32)
        which, people = np.frombuffer(self._which, np.uint32), np.frombuffer(self._people, np.int64)
        order = np.lexsort((people, ranks[which]))
        for start in range(0, len(order), CHUNK):
            chunk = order[start : start + CHUNK]
            yield [
                (*places[place][:3], person, places[place][3], since)
                for place, person in zip(which[chunk].tolist(), people[chunk].tolist(), strict=True)
            ]
