"""Bulk work steps aside for what is more urgent, here and in other processes, and never for ever."""

from __future__ import annotations

import asyncio

from gateway.gate import Gate
from gateway.model import Lane

PATIENCE_S = 10.0


async def test_what_is_urgent_elsewhere_holds_bulk_alone_and_is_forgotten() -> None:
    """A red alert's residents do not wait for its officials; and the process that gave the word may have died since."""
    gate = Gate()
    gate.hold()
    bulk = asyncio.create_task(gate.step_aside(Lane.BULK))
    service = asyncio.create_task(gate.step_aside(Lane.SERVICE))
    await asyncio.wait([asyncio.create_task(gate.step_aside(lane)) for lane in (Lane.GREEN, Lane.URGENT)])
    assert not bulk.done()
    assert not service.done()
    await asyncio.wait_for(asyncio.gather(bulk, service), PATIENCE_S)


async def test_bulk_steps_aside_while_green_is_under_way() -> None:
    """Rule 5: a blue notice waits while a red one is on its way."""
    gate = Gate()
    gate.enter(Lane.GREEN)
    bulk = asyncio.create_task(gate.step_aside(Lane.BULK))
    await gate.step_aside(Lane.GREEN)
    await asyncio.sleep(0)
    assert not bulk.done()
    gate.leave(Lane.GREEN)
    await asyncio.wait_for(bulk, PATIENCE_S)


async def test_nobody_steps_aside_for_ever() -> None:
    """A night of red warnings slows the blue ones down; it must not silence them."""
    gate = Gate(at_most_s=0.05)
    gate.enter(Lane.GREEN)
    await asyncio.wait_for(gate.step_aside(Lane.BULK), PATIENCE_S)
    assert gate.urgent()  # what it stepped aside for is still under way


async def test_what_may_not_pass_is_let_through_once_in_a_while() -> None:
    """A planner does not wait for bulk work's turn, for a red one may come next; and bulk work is not starved."""
    gate = Gate(at_most_s=0.0)
    patient = Gate(at_most_s=PATIENCE_S)
    for one in (gate, patient):
        assert one.passes(Lane.BULK)
        one.enter(Lane.GREEN)
        assert one.passes(Lane.URGENT)
    assert not patient.passes(Lane.BULK)
    assert not patient.passes(Lane.BULK)
    assert gate.passes(Lane.BULK)
    patient.leave(Lane.GREEN)
    assert patient.passes(Lane.BULK)


def test_only_what_is_urgent_is_told_to_others() -> None:
    """Bulk work that held up the bulk work of other processes would bring all of it to a halt."""
    gate = Gate()
    gate.enter(Lane.BULK)
    assert not gate.urgent()
    gate.enter(Lane.URGENT)
    assert gate.urgent()
    gate.leave(Lane.URGENT)
    assert not gate.urgent()
