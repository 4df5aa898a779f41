"""The emergency regime among neighbours (D8, D26): whom it adds, and that it adds them once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from api_support import JIALOU, REGIONS, SIGNER, Desk, opened
from manual_clock import ManualClock
from test_decision import COMMAND_SIGNER, HEAT, decide, post

from gateway.api.shape import EXAMPLE
from gateway.model import Notice, Target
from gateway.regions import Regions
from gateway.regions.target import NEIGHBOUR

RED = HEAT | {"level": "red"}  # not on the green list
BESIDE = ["411726208", JIALOU, "411726210"]


class Row(Regions):
    """Places whose townships lie in one row, in the order of their codes."""

    def around(self, targets: Sequence[Target]) -> tuple[Target, ...]:
        codes = [one.code for one in self.under("4117")]
        own = {codes.index(target.township) for target in targets}
        beside = sorted({at + way for at in own for way in (-1, 1)} - own)
        return tuple(Target(codes[at], how=NEIGHBOUR, certain=False) for at in beside)


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock, regions=Row(REGIONS.places.values())) as one:
        await post(one, "/v1/emergency", COMMAND_SIGNER, {"area": "411726", "reason": "特大暴雨"})
        yield one


async def reached(desk: Desk, alert: str) -> list[str]:
    row = await desk.core.store.outbox.alert(alert)
    assert row is not None
    return sorted(target.township for target in row.plan.targets)


async def test_neighbours_across_the_border_are_left_out(desk: Desk) -> None:
    """The next county is warned by its own bureau."""
    first = REGIONS.under("411726")[0].code
    sent = await desk.issue(**RED, areas=[{"description": "街道", "geocodes": {"township": [first]}}])
    assert all(code.startswith("411726") for code in await reached(desk, sent["id"]))


async def test_the_neighbours_grow_no_second_ring(desk: Desk) -> None:
    """A decision on the rest plans it anew: with the same neighbours, not with theirs."""
    areas = [{"description": "贾楼乡", "geocodes": {"township": [JIALOU]}}, {"description": "无名地"}]
    sent = await desk.issue(**RED, areas=areas)
    assert (sent["route"], sent["held"][0].split(":")[0]) == ("emergency", "unresolved")
    assert await reached(desk, sent["id"]) == BESIDE
    await decide(desk, sent["id"], "approve", SIGNER)
    assert await reached(desk, sent["id"]) == BESIDE


async def test_an_update_under_the_regime_gives_no_neighbour_the_all_clear(desk: Desk) -> None:
    """Nobody names the townships beside; they are told again with the others, at once."""
    first = await desk.issue(**RED)
    desk.clock.advance(60)
    reference = {key: EXAMPLE[key] for key in ("sender", "identifier", "sent")}
    sent = desk.clock.now().replace(microsecond=0).isoformat()
    update = await desk.issue(**RED, identifier="u", kind="Update", sent=sent, references=[reference])
    assert (update["route"], update["standing"]) == ("emergency", "active")
    row = await desk.core.store.outbox.alert(update["id"])
    assert row is not None
    assert {step.notice for step in row.plan.steps} == {Notice.UPDATE}
    assert await reached(desk, update["id"]) == await reached(desk, first["id"])


async def test_a_neighbour_that_is_named_later_is_not_kept_back_as_a_repetition(desk: Desk) -> None:
    """It was told that it may be affected; now it is (D4: a newly added village is never suppressed)."""
    await desk.issue(**RED)
    desk.clock.advance(60)
    areas = [{"description": "乡", "geocodes": {"township": BESIDE[:1]}}]
    assert (await desk.issue(**RED, identifier="again", areas=areas))["standing"] == "active"
