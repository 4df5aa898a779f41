"""How alerts, plans and batches are packed for the database and the broker: msgspec MessagePack, typed."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from gateway.model import Alert, Batch, Lane, Plan, Receipt, Reference, State

LANES = tuple(Lane)  # a lane's rank is its index: green first
NAMES = tuple((int(state), state.name.lower()) for state in State)
LANE_RANK = {lane: rank for rank, lane in enumerate(LANES)}

_encoder = msgspec.msgpack.Encoder()
pack = _encoder.encode
unpack_alert = msgspec.msgpack.Decoder(Alert).decode
unpack_plan = msgspec.msgpack.Decoder(Plan).decode
unpack_batch = msgspec.msgpack.Decoder(Batch).decode
_unpack_message = msgspec.msgpack.Decoder(Batch | tuple[Batch, ...]).decode
unpack_pending = msgspec.msgpack.Decoder(tuple[tuple[int, ...], ...]).decode
"""Positions of a slice without an outcome: to send, doubtful, and (under a claim) lost."""


class _Persons(msgspec.Struct):
    """The one part of a packed batch that its digest covers."""

    persons: tuple[int, ...]


class Seats(msgspec.Struct):
    """The parts of a packed batch that say who sat where: persons in order, and runs of (village, count)."""

    persons: tuple[int, ...]
    villages: tuple[tuple[str, int], ...]

    def village(self, position: int) -> str:
        """Return the village under which a recipient was told; "" for a post at the township."""
        for code, count in self.villages:
            if position < count:
                return code
            position -= count
        raise IndexError("no such position")


class _References(msgspec.Struct):
    """The one part of a packed alert that its successors' claims read."""

    references: tuple[Reference, ...] = ()


_references_of = msgspec.msgpack.Decoder(_References).decode
_persons_of = msgspec.msgpack.Decoder(_Persons).decode
unpack_seats = msgspec.msgpack.Decoder(Seats).decode
_outcome_of = msgspec.msgpack.Decoder(tuple[tuple[int, ...], tuple[tuple[int, str, str], ...]]).decode


def pack_message(bodies: Sequence[bytes]) -> bytes:
    """Return the broker's message for packed batches: one is its own message, several are an array of them."""
    return bodies[0] if len(bodies) == 1 else pack([msgspec.Raw(body) for body in bodies])


def unpack_message(body: bytes) -> tuple[Batch, ...]:
    """Return the batches of a message.

    Raises:
        ValueError: it is none.
    """
    found = _unpack_message(body)
    return found if isinstance(found, tuple) else (found,)


def alert_of(batch: str) -> str:
    """Return the alert a batch belongs to, by its id."""
    return batch.partition(".")[0]


def unpack_persons(body: bytes) -> tuple[int, ...]:
    """Return the person ids of a packed batch."""
    return _persons_of(body).persons


def unpack_references(body: bytes) -> tuple[Reference, ...]:
    """Return the references of a packed alert, without its areas."""
    return _references_of(body).references


def pack_outcome(positions: Sequence[int], receipts: Sequence[Receipt]) -> bytes:
    """Pack a slice's receipts: positions, and each one's (state, code, reference), or one for all.

    Positions without a hole are written as (first, last). Two with a hole between them would read alike, so of them
    each keeps its own receipt, even if they are the same.
    """
    record = [(int(receipt.state), receipt.code, receipt.reference) for receipt in receipts]
    first, last = positions[0], positions[-1]
    whole = last - first + 1 == len(positions)
    one = len(set(record)) == 1 and (whole or len(positions) > 2)
    return pack(((first, last) if whole else tuple(positions), record[:1] if one else record))


def receipt_at(packed: bytes, position: int) -> tuple[State, str] | None:
    """Return (state, code) of one position in a packed outcome; None if it has none there."""
    positions, receipts = _outcome_of(packed)
    first, last = positions[0], positions[-1]
    if len(positions) == 2 and len(receipts) in (1, last - first + 1):
        index = position - first if first <= position <= last else -1
    else:
        index = positions.index(position) if position in positions else -1
    if index < 0:
        return None
    state, code, _ = receipts[index if len(receipts) > 1 else 0]
    return State(state), code


def counts_of(states: bytes) -> str:
    """Return the JSON object state name → recipients of a packed state string (one byte per position)."""
    return json.dumps({name: number for value, name in NAMES if (number := states.count(value))})
