"""The receipts of one send call, where answers come late, in part, never, or when nobody waits any more."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from carrier_desk import numbers
from links import sample_message, sample_slice

from channels._meaning import Blame, Decision, Meaning
from channels._sheet import NEVER, Sheet
from channels._wire import DOUBT, Answer, Sent, Sms
from gateway.errors import Ambiguous
from gateway.model import Lane, State

SPOILT = Answer(Meaning(Decision.PERMANENT, Blame.NUMBER, "a bad number", "号码错误"), "9")
TAKEN = Meaning(Decision.DONE, Blame.CARRIER, "taken", "已接收")


def opened() -> tuple[Sheet, Sms]:
    """A sheet with one long text of two parts to one number."""
    sheet = Sheet("sms_cmpp", sample_slice(numbers(1)), sample_message(), asyncio.get_running_loop().time() + 60)
    return sheet, Sms(sheet, "text", [b"one", b"two"], tuple(numbers(1)), [0], Lane.GREEN, "1069", "", 0.0)


async def test_a_part_without_an_answer_keeps_the_others_from_making_a_whole() -> None:
    """Half a warning that is reported would count as one that arrived."""
    sheet, sms = opened()
    sms.answer(0, Answer(TAKEN, "0", [Sent("one/a")]))
    sms.answer(1, Answer(DOUBT, "no_answer"))
    (receipt,) = sheet.receipts()
    assert isinstance(receipt.error, Ambiguous)
    assert (receipt.reference, receipt.more) == ("one/a", (f"one/a/{NEVER}",))


async def test_late_answers_speak_for_a_long_text_only_when_each_part_has_one() -> None:
    """The report of the first part alone must not make a household look warned."""
    sheet, sms = opened()
    for part in range(2):
        sms.answer(part, Answer(DOUBT, "no_answer"))
    assert sheet.late(sms, 1, Answer(TAKEN, "0", [Sent("one/b")])) == []
    (told,) = sheet.late(sms, 0, Answer(TAKEN, "0", [Sent("one/a")]))
    assert (told.state, {told.reference, *told.more}) == (State.SUBMITTED, {"one/a", "one/b"})


async def test_an_abandoned_send_is_not_split() -> None:
    """The refusal comes when nobody waits any more: its halves are the next try's, and here a second SMS."""
    put: list[Sms] = []
    settings = SimpleNamespace(bulk=True, src_id="1069", extension=0)
    account = cast(Any, SimpleNamespace(wire=SimpleNamespace(most=99), settings=settings, put=put.extend))
    loop = asyncio.get_running_loop()
    sheet = Sheet("sms_cmpp", sample_slice(numbers(20)), sample_message(), loop.time() + 60)
    sending = asyncio.create_task(sheet.through(account, sheet.pieces(), alone=True))
    await asyncio.sleep(0)
    (bulk,) = put
    bulk.written[0] = True
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    bulk.answer(0, SPOILT)
    assert put == [bulk]
