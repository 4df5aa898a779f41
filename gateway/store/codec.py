"""How alerts, plans and batches are packed for the database and the broker: msgspec MessagePack, typed."""

from __future__ import annotations

import json

import msgspec

from gateway.model import Alert, Batch, Lane, Plan, Reference, State

LANES = tuple(Lane)  # a lane's rank is its index: green first
NAMES = tuple((int(state), state.name.lower()) for state in State)
LANE_RANK = {lane: rank for rank, lane in enumerate(LANES)}

_encoder = msgspec.msgpack.Encoder()
pack = _encoder.encode
unpack_alert = msgspec.msgpack.Decoder(Alert).decode
unpack_plan = msgspec.msgpack.Decoder(Plan).decode
unpack_batch = msgspec.msgpack.Decoder(Batch).decode
unpack_pending = msgspec.msgpack.Decoder(tuple[tuple[int, ...], ...]).decode
"""Positions of a slice without an outcome: to send, doubtful, and (under a claim) lost."""


class _Persons(msgspec.Struct):
    """The one part of a packed batch that its digest covers."""

    persons: tuple[int, ...]


class _References(msgspec.Struct):
    """The one part of a packed alert that its successors' claims read."""

    references: tuple[Reference, ...] = ()


_references_of = msgspec.msgpack.Decoder(_References).decode
_persons_of = msgspec.msgpack.Decoder(_Persons).decode


def unpack_persons(body: bytes) -> tuple[int, ...]:
    """Return the person ids of a packed batch."""
    return _persons_of(body).persons


def unpack_references(body: bytes) -> tuple[Reference, ...]:
    """Return the references of a packed alert, without its areas."""
    return _references_of(body).references


def counts_of(states: bytes) -> str:
    """Return the JSON object state name → recipients of a packed state string (one byte per position)."""
    return json.dumps({name: number for value, name in NAMES if (number := states.count(value))})
