"""Idempotency-Key: a request that is repeated after a lost answer gets the first one's answer, and does nothing.

Only good answers are kept. A refusal has done nothing, so the same request may be sent again under its key once its
cause is mended. The answer is stored after the handler's own transaction: should the process die between the two, the
repeated request runs again, and the gateway's own rules recognise it (a message by sender and identifier, a decision
by the alert's standing).

**Source:** draft-ietf-httpapi-idempotency-key-header-07; RFC 8941 section 3.3.3 for the quoted form.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable

from gateway import log
from gateway.api.problem import Refusal
from gateway.errors import Refused, StoreDown
from gateway.intake import actor
from gateway.policy import Principal
from gateway.store.answer import LEASE, Answers, Kept, Taken, Turn

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEY = re.compile(r'"([\x20-\x21\x23-\x5b\x5d-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')

_log = log.get("api")


def read_key(fields: list[str]) -> str:
    """Return the key, "" without one.

    Raises:
        Refused: 400 several, or not a key.
    """
    if not fields:
        return ""
    found = KEY.fullmatch(fields[0].strip()) if len(fields) == 1 else None
    if found is None:
        raise Refused(
            400, "invalid_idempotency_key", 'send one Idempotency-Key of 1 to 255 printable ASCII characters, as "…"'
        )
    return found[1] or found[2]


async def once(
    answers: Answers,
    principal: Principal,
    key: str,
    request: tuple[str, str, bytes],
    run: Callable[[], Awaitable[Kept]],
) -> tuple[Kept, bool]:
    """Run a request, or return its first answer: (answer, whether it is a replay). `request`: method, path, body.

    Raises:
        Refused: 409 the first one has no answer yet, 422 the key stands for another request; what `run` raises.
    """
    began = await answers.begin(
        _digest(actor(principal).encode(), principal.role.encode(), key.encode()),
        # With the key, which is stored nowhere: a body may hold a telephone number, and those can all be tried out.
        _digest(key.encode(), request[0].encode(), request[1].encode(), request[2]),
    )
    match began:
        case Kept():
            return began, True
        case Taken.REUSED:
            raise Refused(
                422, "idempotency_key_reused", "this Idempotency-Key stands for another request; use a new one for this"
            )
        case Taken.IN_FLIGHT:
            wait = str(int(LEASE.total_seconds()))
            raise Refusal(
                409, "idempotency_in_flight", "the first request with this Idempotency-Key is still being answered; "
                f"send it again, at the latest in {wait} s", headers={"Retry-After": "1"},
            )  # fmt: skip
        case Turn():
            return await _first(answers, began, run), False


async def _first(answers: Answers, turn: Turn, run: Callable[[], Awaitable[Kept]]) -> Kept:
    try:
        answer = await run()
    except (Exception, asyncio.CancelledError):
        await _quietly(answers.release(turn))
        raise
    await _quietly(answers.keep(turn, answer))
    return answer


async def _quietly(write: Awaitable[None]) -> None:
    """Wait for a write whose failure must not deny what was done: the key then lapses by itself."""
    try:
        await write
    except StoreDown:
        _log.warning("idempotency_not_kept")


def _digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8) + part)
    return found.hexdigest()
