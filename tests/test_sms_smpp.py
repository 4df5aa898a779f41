"""SMPP: what only this protocol has, and its case for the channel contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from carrier_desk import SECRET, Desk, numbers
from links import Case
from pydantic import ValidationError
from test_sms_cmpp import case_of

from channels import _smpp as smpp
from channels._meaning import Decision
from channels.sms_smpp import Smpp, SmppAccount
from gateway.model import State


def wired(**changes: Any) -> Smpp:
    """The protocol of an account, without a connection."""
    plain = {"name": "one", "host": "127.0.0.1", "secret": SECRET, "src_id": "1069", "system_id": "mingluo"}
    return Smpp("sms_smpp", SmppAccount.model_validate(plain | changes))


@asynccontextmanager
async def contract_case() -> AsyncIterator[Case]:
    async with case_of("smpp") as case:
        yield case


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, "smpp")
    yield desk
    await desk.stop()


async def test_numbers_leave_as_the_account_wants_them(desk: Desk) -> None:
    """An aggregator that serves the world sends a bare number to another country."""
    await desk.carrier()
    await desk.open(desk.account(international=True))
    receipts = await desk.send(numbers(2))
    await desk.matched(receipts)
    assert [entry["numbers"] for entry in desk.bench.entries("submit")] == [["86" + one] for one in numbers(2)]
    desk.bench.carrier.reply("86" + numbers(1)[0], "1")
    await desk.link.until(lambda: bool(desk.link.replies))
    assert desk.link.replies[0].address == numbers(1)[0]


@pytest.mark.parametrize(
    ("ids", "answered", "reported"),
    [
        ("same", "12a7-B", "12a7-B"),
        ("hex_decimal", "000012A7", "4775"),
        ("decimal_hex", "0004775", "12a7"),
        ("hex_decimal", "not-hex", "not-hex"),
    ],
)
def test_an_id_is_the_same_in_whatever_base(ids: str, answered: str, reported: str) -> None:
    """Otherwise no report of this aggregator would ever find its household."""
    wire = wired(ids=ids)
    taken = wire.answered(1, smpp.SubmitSmResp(0, answered), ["10000000001"])
    text = f"id:{reported} sub:001 dlvrd:001 stat:DELIVRD err:000 text:".encode()
    heard = wire.hear(1, smpp.DeliverSm(destination_addr="1069", esm_class=smpp.RECEIPT, short_message=text))
    assert heard.report is not None
    assert [heard.report.reference] == taken.references
    # The parameter repeats what was answered, whatever the text does.
    named = ((smpp.Tag.RECEIPTED_MESSAGE_ID, answered.encode() + b"\0"),)
    heard = wire.hear(
        1, smpp.DeliverSm(destination_addr="1069", esm_class=smpp.RECEIPT, short_message=text, parameters=named)
    )
    assert heard.report is not None
    assert [heard.report.reference] == taken.references


def test_a_submit_taken_without_an_id_shares_no_reference() -> None:
    """A hundred people under one empty reference would all be delivered by one report."""
    assert wired().answered(1, smpp.SubmitSmResp(0, ""), ["10000000001"]).references == [""]


def test_what_was_not_understood_was_not_sent() -> None:
    """generic_nack answers a submit as well: it may be sent again."""
    answer = wired().answered(1, smpp.GenericNack(3), ["10000000001"])
    assert (answer.meaning.decision, answer.code, answer.sent) == (Decision.UNUSABLE, "0x03", ())
    assert wired().answered(1, smpp.GenericNack(0), ["10000000001"]).meaning.decision is Decision.TEMPORARY


def test_each_reply_is_a_new_one() -> None:
    """SMPP gives replies no id: two people's "1" after two reconnections must not be one."""
    reply = smpp.DeliverSm(source_addr="8610000000001", destination_addr="1069", data_coding=3, short_message=b"1")
    spoken = [wired().hear(1, reply).spoken for _ in range(2)]
    assert len({one.reference for one in spoken if one}) == 2
    assert {(one.msg_fmt, one.headed) for one in spoken if one} == {(0, False)}


def test_an_intermediate_notification_is_answered_and_nothing_else() -> None:
    """Tried once, phone off: that is no failure yet."""
    text = b"id:1 stat:UNDELIV err:001"
    note = smpp.DeliverSm(destination_addr="1069", esm_class=smpp.INTERMEDIATE, short_message=text)
    assert wired().hear(1, note) == (smpp.DeliverSmResp(), None, None)


def test_a_receipt_that_cannot_be_read_is_answered_and_is_no_event() -> None:
    """An aggregator that repeats one broken receipt for ever must not block the good ones behind it."""
    broken = smpp.DeliverSm(destination_addr="1069", esm_class=smpp.RECEIPT, short_message=b"stat:DELIVRD")
    assert wired().hear(1, broken) == (smpp.DeliverSmResp(8), None, None)


async def test_an_aggregator_that_gives_a_reason_is_believed(desk: Desk) -> None:
    """The carriers' own codes pass through an aggregator; a number is not sent to another carrier for them."""
    people = numbers(3)
    stats = {people[0]: "UNDELIV/001", people[1]: "MA:0001/000", people[2]: "EXPIRED/000"}
    await desk.carrier(stats=stats)
    await desk.open()
    await desk.send(people)
    await desk.link.until(lambda: len(desk.link.reports) == 3)
    told = {one.code: (one.state, one.elsewhere) for one in desk.link.reports}
    assert told == dict.fromkeys(stats.values(), (State.FAILED, False))


@pytest.mark.parametrize("secret", ["", "ninechars", "密码"])
def test_a_password_the_protocol_cannot_hold_is_refused_at_the_start(secret: str) -> None:
    """Found when the warning is due, it is found too late."""
    with pytest.raises(ValidationError) as refused:
        wired(secret=secret)
    assert not secret or secret not in str(refused.value)
