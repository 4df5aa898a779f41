"""SMGP: what only this protocol has, and its case for the channel contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from carrier_desk import Desk, numbers, references
from links import Case
from test_sms_cmpp import case_of

from channels import _smgp as smgp
from gateway.model import State


@asynccontextmanager
async def contract_case() -> AsyncIterator[Case]:
    async with case_of("smgp") as case:
        yield case


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, "smgp")
    yield desk
    await desk.stop()


async def test_one_id_for_the_whole_bulk_still_names_each_person(desk: Desk) -> None:
    """Otherwise one delivered phone would call a hundred warned."""
    await desk.carrier(shuffled=True)
    await desk.open()
    receipts = await desk.send(numbers(100))
    assert len({receipt.reference for receipt in receipts}) == 1
    assert len(set(references(receipts))) == 100
    await desk.matched(receipts)


async def test_why_a_phone_was_not_reached_is_in_the_code(desk: Desk) -> None:
    """Powered off and "no such user" lead to different next steps."""
    people = numbers(3)
    await desk.carrier(stats={people[0]: "UNDELIV/004", people[1]: "EXPIRED/001", people[2]: "UNKNOWN/999"})
    await desk.open()
    await desk.send(people)
    await desk.link.until(lambda: len(desk.link.reports) == 3)
    assert [(one.state, one.code, one.elsewhere) for one in desk.link.reports] == [
        (State.FAILED, "UNDELIV/004", True),
        (State.FAILED, "EXPIRED/001", False),
        (State.UNKNOWN, "UNKNOWN/999", False),
    ]


async def test_a_report_whose_id_looks_like_text_is_read(desk: Desk) -> None:
    """The id is raw: any of its octets may look like a space or the next label (T18)."""
    await desk.carrier()
    channel = await desk.open()
    await desk.send(numbers(1))
    raw = b" sub:001 \0"
    content = (
        b"id:" + raw + b" sub:001 dlvrd:001 Submit date:2611260800 done date:2611260801 stat:DELIVRD err:000 text:"
    )
    deliver = smgp.Deliver(
        msg_id=bytes(10), is_report=1, src_term_id="86" + numbers(1)[0], dest_term_id="1069", msg_content=content
    )
    heard = channel.accounts[0].wire.hear(1, deliver)
    assert heard.report is not None
    assert heard.report.reference == channel.accounts[0].wire.tagged(raw.hex(), numbers(1)[0])


async def test_a_report_that_cannot_be_read_is_answered_and_is_no_event(desk: Desk) -> None:
    """A gateway that repeats one broken report for ever must not block the good ones behind it."""
    await desk.carrier()
    channel = await desk.open()
    deliver = smgp.Deliver(msg_id=bytes(10), is_report=1, src_term_id="1", dest_term_id="2", msg_content=b"id:?")
    heard = channel.accounts[0].wire.hear(1, deliver)
    assert (heard.report, heard.answer) == (None, smgp.DeliverResp(bytes(10), 10))
