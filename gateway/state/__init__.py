"""State shared by processes and cheap to lose: rates and wake-ups."""

from __future__ import annotations

from gateway.state.fallback import FallbackState
from gateway.state.local import LocalState
from gateway.state.redis import RedisState
from gateway.state.valkey import Valkey

__all__ = ["FallbackState", "LocalState", "RedisState", "Valkey"]
