"""The rows of `device_command`: what each loudspeaker is to do, and what a report or a confirmation makes of it.

`want` is one of five: `play`; `repeat` (a play that goes on in rounds, once the first has ended); `once` (such a play
that is hushed as soon as its first round has ended); `hush`; `stop`. A row is finished when the device has nothing more
to do, except that a `repeat` counts as finished after its first round: its device goes on by itself until the row is
wanted otherwise, also where that round failed. One that is never told, or that the device refuses, becomes a `play`.

Called by `rows` and `fact` inside their transactions, and by whoever writes a confirmation; hubs read through
`command`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

from gateway.model import State
from gateway.transaction import Tx

PLAYS = ("play", "repeat", "once")
NO_ROUNDS = "want = CASE want WHEN 'repeat' THEN 'play' ELSE want END"
HUSHED = "hushed"
"""Code of the report by which a device says that it sounds no further rounds."""
SILENT = frozenset({"stopped", "expired", "bad_signature", "not_for_me", "replayed"})
"""Codes of failures behind which nothing sounds. Behind any other the next round may."""


def finish(tx: Tx, batch: str, positions: Sequence[int], at: int) -> None:
    """Finish the commands of these positions, whatever they want; none goes on in rounds."""
    tx.send(
        f"UPDATE device_command SET finished = 1, {NO_ROUNDS} WHERE batch = :batch AND position IN :*positions",
        batch=batch,
        positions=positions,
    )
    _settle(tx, batch, at)


def reported(tx: Tx, batch: str, reports: Iterable[tuple[int, State, str]], at: int) -> None:
    """Let reports (position, state, code) finish what they end.

    How the first round went ends neither a stop nor a hush: it may have been said before either arrived, and the next
    round would sound. A play that was to be heard once more becomes the hush it was waiting for.
    """
    found = list(reports)
    silent = sorted({position for position, state, code in found if state is State.FAILED and code in SILENT})
    ended = sorted({position for position, state, _ in found if state in (State.PLAYED, State.FAILED)})
    hushed = sorted({position for position, _, code in found if code == HUSHED})
    for positions, wants in ((silent, (*PLAYS, "stop")), (hushed, ("hush",))):
        if positions:
            tx.send(
                f"UPDATE device_command SET finished = 1, {NO_ROUNDS}"
                " WHERE batch = :batch AND position IN :*positions AND want IN :*wants AND finished = 0",
                batch=batch,
                positions=positions,
                wants=wants,
            )
    if ended:
        tx.send(
            "UPDATE device_command SET finished = CASE want WHEN 'once' THEN 0 ELSE 1 END,"
            " want = CASE want WHEN 'once' THEN 'hush' ELSE want END"
            " WHERE batch = :batch AND position IN :*ended AND finished = 0 AND want IN :*plays",
            batch=batch,
            ended=ended,
            plays=PLAYS,
        )
        _settle(tx, batch, at)


def hush(tx: Tx, alert: str, villages: Collection[str]) -> None:
    """End the rounds of an alert in villages that have confirmed it; whoever has not heard it yet hears it once."""
    if villages:
        tx.send(
            "UPDATE device_command SET want = CASE finished WHEN 1 THEN 'hush' ELSE 'once' END, finished = 0"
            " WHERE alert = :alert AND want = 'repeat' AND device IN"
            " (SELECT id FROM device WHERE township IN :*townships AND village IN :*villages)",
            alert=alert,
            townships=sorted({village[:9] for village in villages}),
            villages=sorted(set(villages)),
        )


def hush_confirmed(tx: Tx, alert: str) -> None:
    """Let new commands of an alert take note of the villages that have confirmed it already.

    Whoever confirms has its turn at the chain, too: one of both sees what the other has written.
    """
    tx.take_turn()
    hush(tx, alert, confirmed(tx, alert))


def confirmed(tx: Tx, alert: str) -> set[str]:
    """Return the villages that have confirmed an alert."""
    rows = tx.all("SELECT villages FROM confirmation WHERE alert = :alert", alert=alert)
    return {village for (villages,) in rows for village in json.loads(villages)}


def stop(tx: Tx, batch: str, *, rounds: bool) -> None:
    """Turn what is unfinished of a batch into stops, and with `rounds` what goes on in them."""
    tx.send(
        "UPDATE device_command SET want = 'stop', finished = 0 WHERE batch = :batch AND (finished = 0 OR want = :also)",
        batch=batch,
        also="repeat" if rounds else "",
    )


def _settle(tx: Tx, batch: str, at: int) -> None:
    """Settle the batch with its last play or stop; a hush changes nothing of what became of it."""
    tx.send(
        "UPDATE batch SET settled_at = :at WHERE id = :batch AND settled_at IS NULL AND NOT EXISTS"
        " (SELECT 1 FROM device_command c WHERE c.batch = :batch AND c.finished = 0 AND c.want <> 'hush')",
        at=at,
        batch=batch,
    )
