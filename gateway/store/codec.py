"""How alerts, plans and batches are packed for the database and the broker: msgspec MessagePack, typed."""

from __future__ import annotations

import json
from collections import Counter

import msgspec

from gateway.model import Alert, Batch, Lane, Plan, State

LANES = tuple(Lane)  # a lane's rank is its index: green first
LANE_RANK = {lane: rank for rank, lane in enumerate(LANES)}

_encoder = msgspec.msgpack.Encoder()
pack = _encoder.encode
unpack_alert = msgspec.msgpack.Decoder(Alert).decode
unpack_plan = msgspec.msgpack.Decoder(Plan).decode
unpack_batch = msgspec.msgpack.Decoder(Batch).decode
unpack_pending = msgspec.msgpack.Decoder(tuple[tuple[int, ...], tuple[int, ...]]).decode


def counts_of(states: bytes) -> str:
    """Return the JSON object state name → recipients of a packed state string (one byte per position)."""
    return json.dumps({State(value).name.lower(): number for value, number in sorted(Counter(states).items())})
