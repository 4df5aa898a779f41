"""CMPP: what only this protocol has, and its case for the channel contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from carrier_desk import PORT, SECRET, Desk, numbers, references, states
from links import Case
from pydantic import ValidationError

from channels._cmpp import Connect, ConnectResp, SubmitResp
from channels.sms_cmpp import Cmpp, SmsCmpp
from gateway.errors import Elsewhere, Unusable
from gateway.model import State
from gateway.simulate.log import read


@asynccontextmanager
async def case_of(protocol: str) -> AsyncIterator[Case]:
    """Yield the contract's case for one of the carriers' channels."""
    with TemporaryDirectory() as directory:
        desk = Desk(Path(directory), protocol)
        await desk.carrier()
        yield Case(
            desk.settings(),
            numbers(3),
            refused=["not a number", "03961234567", "+12025550123"],
            secrets=[SECRET],
            received=lambda: desk.bench.carrier.received,
        )
        await desk.stop()


@asynccontextmanager
async def contract_case() -> AsyncIterator[Case]:
    async with case_of("cmpp30") as case:
        yield case


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, "cmpp30")
    yield desk
    await desk.stop()


async def test_a_gateway_that_repeats_one_id_for_the_bulk_is_told_by_number(desk: Desk) -> None:
    """Counted ids would give every report to the first of the bulk, and none to the other 98."""
    await desk.carrier(bulk_ids="one")
    await desk.open(desk.account(bulk_ids="one"))
    receipts = await desk.send(numbers(99))
    assert len(set(references(receipts))) == 99
    await desk.matched(receipts)


async def test_the_id_of_a_bulk_counts_on_past_sixteen_bits(desk: Desk) -> None:
    """The sequence begins again at 0; a carry into the gateway's number would name another gateway's message."""
    await desk.carrier()
    channel = await desk.open()
    wire = channel.accounts[0].wire
    assert isinstance(wire, Cmpp)
    answer = wire.answered(1, SubmitResp(0xABCD_0001_0000_FFFF), numbers(3))
    assert answer.references == ["one/abcd00010000ff#ff", "one/abcd0001000000#00", "one/abcd0001000000#01"]


async def test_no_reference_holds_a_number_or_the_secret(desk: Desk) -> None:
    """References stand in logs, tables and exports."""
    await desk.carrier(bulk_ids="one")
    await desk.open(desk.account(bulk_ids="one"))
    for reference in references(await desk.send(numbers(5))):
        assert reference.startswith("one/")
        assert not [number for number in numbers(5) if number in reference]
        assert SECRET not in reference


async def test_a_gateway_that_does_not_know_the_secret_is_not_trusted(desk: Desk) -> None:
    """Whoever stands in for the carrier would collect every number in the county."""
    await desk.carrier()
    channel = SmsCmpp(desk.settings())
    wire = channel.wire(channel.settings.account[0])
    request = wire.login(datetime.now(UTC))
    assert isinstance(request, Connect)
    assert wire.admitted(request, ConnectResp(0)).code == "not_genuine"
    careless = channel.wire(channel.settings.account[0].model_copy(update={"check_answer": False}))
    assert careless.admitted(request, ConnectResp(0)).code == "login_0"


async def test_a_version_the_gateway_does_not_speak_is_said_to_a_person(desk: Desk) -> None:
    """Code 4: set another version."""
    await desk.carrier()
    await desk.open(desk.account(version="2.0"))
    receipts = await desk.send(numbers(1))
    assert isinstance(receipts[0].error, Unusable)
    assert receipts[0].error.code == "login_4"


async def test_a_ported_number_is_told_elsewhere(desk: Desk) -> None:
    """The other two carriers are tried once (T20)."""
    people = numbers(2)
    await desk.carrier(stats={people[0]: "UNDELIV", people[1]: "MA:0001"})
    await desk.open()
    await desk.send(people)
    await desk.link.until(lambda: len(desk.link.reports) == 2)
    assert [(one.state, one.code, one.elsewhere) for one in desk.link.reports] == [
        (State.FAILED, "UNDELIV", True),
        (State.FAILED, "MA:0001", False),
    ]
    await desk.bench.until("ack", 2)


async def test_the_gateway_that_does_not_serve_a_number_says_so(desk: Desk) -> None:
    """Result 9 or 13 for one number: it may be another carrier's."""
    await desk.carrier(bad=frozenset(numbers(1)))
    await desk.open()
    (receipt,) = await desk.send(numbers(1))
    assert isinstance(receipt.error, Elsewhere)
    assert receipt.error.code == "13"


async def test_a_wrong_port_is_unusable(desk: Desk) -> None:
    """Result 10, Src_Id: nobody is served by this account until a person has mended it."""
    await desk.carrier()
    channel = await desk.open(desk.account(src_id="999"))
    receipts = await desk.send(numbers(2))
    assert {type(receipt.error) for receipt in receipts} == {Unusable}
    assert channel.accounts[0].refused


async def test_every_submit_has_our_port_a_report_wanted_and_an_end(desk: Desk) -> None:
    """A phone that is switched on at noon must not receive last night's warning."""
    await desk.carrier()
    await desk.open(desk.account(service_id="WARN"))
    receipts = await desk.send(numbers(2))
    (entry,) = read(desk.bench.path, "submit")
    assert (entry["source"], entry["service"], entry["pk"], entry["udhi"]) == (PORT, "WARN", [1, 1], 0)
    assert states(receipts) == {"SUBMITTED": 2}


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    """At the start, with the key's name, and without the secret."""
    desk = Desk(tmp_path, "cmpp30")
    desk.bench.port = 1
    good = desk.account()
    for wrong in (
        {"source_addr": "1234567"},
        {"src_id": "10 69"},
        {"connections": 0},
        {"answer_s": 21},
        {"nonsense": 1},
    ):
        with pytest.raises(ValidationError) as refused:
            desk.settings(good | wrong)
        assert SECRET not in str(refused.value)
    with pytest.raises(ValidationError, match="one name"):
        desk.settings(good, good)
