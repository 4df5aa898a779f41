"""Whom a table listed, and which of them a person should look at: several places, a shared number, the same row twice.

Called by the importer. A million ids and row numbers are two arrays of 8 MB; as a set of Python numbers they would be
ten times that.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from gateway.transaction import Tx

ROW_BITS = 40
SHARED_LOOKED_AT = 20_000  # people whose number somebody else has as well; beyond it the list itself is wrong


class Listed:
    """The people (or devices) of a table, by id, with the rows that name them."""

    def __init__(self) -> None:
        self._ids = array("q")
        self._rows = array("Q")
        self._sorted: npt.NDArray[np.int64] | None = None

    def note(self, one: int, sheet: int, row: int) -> None:
        """Note a row."""
        self._ids.append(one)
        self._rows.append(sheet << ROW_BITS | row)

    def __len__(self) -> int:
        return len(self._ids)

    def holds(self, ids: Sequence[int]) -> list[bool]:
        """Tell for each id whether a row named it. Asked only when all rows are noted."""
        if self._sorted is None:
            self._sorted = np.sort(np.frombuffer(self._ids, np.int64)) if self._ids else np.zeros(1, np.int64) - 1
        wanted = np.asarray(ids, np.int64)
        at = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        found: list[bool] = (self._sorted[at] == wanted).tolist()
        return found

    def rows_of(self, ids: Collection[int]) -> Iterator[tuple[int, int, int]]:
        """Yield (id, sheet, row) of every row that names one of these, in the order of the table."""
        if not self._ids or not ids:
            return
        all_ids, rows = np.frombuffer(self._ids, np.int64), np.frombuffer(self._rows, np.uint64)
        for at in np.flatnonzero(np.isin(all_ids, np.fromiter(ids, np.int64, len(ids)))).tolist():
            packed = int(rows[at])
            yield int(all_ids[at]), packed >> ROW_BITS, packed & ((1 << ROW_BITS) - 1)


def shared(tx: Tx) -> dict[int, int]:
    """Return people whose number other names have as well, with how many names it has."""
    with tx.whole_tables():
        rows = tx.all(
            "SELECT phone_hash, id FROM person WHERE standing = 'active' AND phone_hash IN"
            " (SELECT phone_hash FROM person WHERE kind <> 'subscribers' GROUP BY phone_hash HAVING COUNT(*) > 1)"
            " ORDER BY phone_hash LIMIT :limit",
            limit=SHARED_LOOKED_AT,
        )
    groups: dict[bytes, list[int]] = {}
    for phone_hash, one in rows:
        if phone_hash:  # of an erased person nothing is left to compare
            groups.setdefault(bytes(phone_hash), []).append(one)
    return {one: len(group) for group in groups.values() if len(group) > 1 for one in group}
