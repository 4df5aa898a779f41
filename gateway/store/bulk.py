"""One row for a message of the provider's that went to many, and which of them a report is about.

Called by `fact`. A carrier's bulk submit has an id, or a run of them, and up to a hundred recipients. A row for each of
them would be most of what a large alert writes. So `provider_bulk` keeps by (account, reference) a line for each submit
with what tells its recipients apart (`Receipt.members`) and where they stand. What became of them is in the facts.

A report whose submit is not there yet waits in `provider_ref`. On PostgreSQL the row here is the one that both sides
lock, made by whoever comes first: whoever comes second finds what the other one wrote.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from gateway.ports import Settled
from gateway.store.rows import ASKED
from gateway.transaction import Tx

BULK = {"account": "text", "reference": "text", "submits": "text", "kept_at": "bigint"}
NO_ROW = "(account, reference) DO NOTHING"
ADD = (
    "(account, reference) DO UPDATE SET submits = provider_bulk.submits || excluded.submits, kept_at = excluded.kept_at"
)

Name = tuple[str, str]
"""Account and reference."""
Seat = tuple[str, int, int]
"""Batch, position, attempt."""


class Sent(NamedTuple):
    """Some positions of a settled slice to whom one message went, parallel to `members`."""

    name: Name
    batch: str
    attempt: int
    positions: Sequence[int]
    members: tuple[str, ...]

    def line(self) -> str:
        """Return what the row keeps of it; neighbours are told by the first."""
        first, last = self.positions[0], self.positions[-1]
        whole = last - first + 1 == len(self.positions)
        places = f"{first}-" if whole else ",".join(map(str, self.positions))
        return f"{self.batch} {self.attempt} {places} {','.join(self.members)}\n"

    def seats(self) -> Iterator[tuple[str, Seat]]:
        """Yield each member with its seat."""
        for member, position in zip(self.members, self.positions, strict=True):
            yield member, (self.batch, position, self.attempt)


def sent(settled: Settled) -> list[Sent]:
    """Return what a settled slice says of messages that went to many."""
    receipts, positions = settled.receipts, settled.positions
    shared = {id(one): one for one in receipts}
    bulks = {key: one for key, one in shared.items() if one.members}
    places: dict[int, list[int]] = {key: [] for key in bulks}
    for key in bulks if len(shared) == 1 else ():
        places[key] = list(positions)
    if len(shared) > 1 and bulks:
        for one, position in zip(receipts, positions, strict=True):
            if one.members:
                places[id(one)].append(position)
    return [
        Sent((settled.account, one.reference), settled.batch, settled.attempt, places[key], one.members)
        for key, one in bulks.items()
        if len(places[key]) == len(one.members)  # else a fault of the channel: it must not spoil others' row
    ]


def keep(tx: Tx, many: Sequence[Sent], at: int) -> None:
    """Write what was sent, and lock its rows until the end of the transaction."""
    lines: dict[Name, str] = {}
    for one in many:
        lines[one.name] = lines.get(one.name, "") + one.line()
    tx.upsert("provider_bulk", BULK, [(*name, lines[name], at) for name in sorted(lines)], ADD)


def find(tx: Tx, names: Collection[Name]) -> dict[Name, dict[str, Seat]]:
    """Return who sits where, by member, for what was sent under these references."""
    return {name: _seats(submits) for name, submits in _read(tx, names, "")}


def await_submits(tx: Tx, names: Collection[Name], at: int) -> dict[Name, dict[str, Seat]]:
    """Look once more for what was not found, and let no submit be settled under these references meanwhile."""
    if not tx.postgresql or not names:  # SQLite has one writer
        return {}
    tx.upsert("provider_bulk", BULK, [(*name, "", at) for name in sorted(names)], NO_ROW)
    return {name: _seats(submits) for name, submits in _read(tx, names, " FOR UPDATE") if submits}


def _read(tx: Tx, names: Collection[Name], lock: str) -> Iterator[tuple[Name, str]]:
    for account, group in groupby(sorted(names), key=lambda name: name[0]):
        references = [reference for _, reference in group]
        for start in range(0, len(references), ASKED):
            for reference, submits in tx.all(
                "SELECT reference, submits FROM provider_bulk WHERE account = :account AND reference IN :*references"
                f" ORDER BY reference{lock}",
                account=account,
                references=references[start : start + ASKED],
            ):
                yield (account, reference), submits


def _seats(submits: str) -> dict[str, Seat]:
    """Read a row; of two submits that claim the same, the later one holds."""
    found: dict[str, Seat] = {}
    for line in submits.splitlines():
        batch, attempt, places, members = line.split(" ")
        names, tried = members.split(","), int(attempt)
        if places.endswith("-"):
            first = int(places[:-1])
            found |= {name: (batch, position, tried) for position, name in enumerate(names, first)}
        else:
            pairs = zip(names, map(int, places.split(",")), strict=True)
            found |= {name: (batch, position, tried) for name, position in pairs}
    return found
