"""Parts of long replies, references of long texts, and what a hostile gateway may say in a report or reply."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import _cmpp as cmpp
from channels import _sgip as sgip
from channels import _smgp as smgp
from channels._assembly import HELD_S, MOST_UNFINISHED, WHOLE_WITHIN_S, Assembly, LongReferences, Whole
from channels._sms_text import contents
from channels._wire import Numbering, Spoken, national
from channels.sms_cmpp import Cmpp, CmppAccount
from channels.sms_sgip import Sgip, SgipAccount
from channels.sms_smgp import Smgp, SmgpAccount

TEXT = "3 上坝村水库溢洪道右岸渗水，请派人" * 8


def spoken(octets: bytes, number: str = "10000000001", headed: bool = True) -> Spoken:
    return Spoken("r", number, "1069000107", 8, octets, headed)


def add(
    assembly: Assembly, octets: bytes, answer: object, now: float = 0.0, number: str = "10000000001"
) -> list[Whole]:
    return list(assembly.add(spoken(octets, number), answer, now))


@given(st.permutations(range(3)), st.integers(0, 255))
def test_parts_in_any_order_become_the_text_and_keep_their_answers(order: list[int], reference: int) -> None:
    """The last part acknowledges them all: none is lost if we die before."""
    assembly = Assembly("sms_cmpp", "10690001", 2)
    pieces = contents(TEXT, reference)
    assert len(pieces) == 3
    wholes = [whole for place in order for whole in add(assembly, pieces[place], place)]
    assert [whole.reply.text for whole in wholes] == [TEXT]
    assert sorted(wholes[0].answers) == [0, 1, 2]
    assert wholes[0].reply.extension == "07"
    (plain,) = add(Assembly("sms_cmpp", "10690001"), contents("1", 0)[0], 0)
    assert plain.reply.extension == "", "where none was asked for, digits behind the port are the carrier's own"


def test_what_stays_incomplete_is_handed_on_as_it_is() -> None:
    """What says 3, the dam is, is worth a look by the duty officer."""
    assembly = Assembly("sms_cmpp", "10690001")
    first, _, last = contents(TEXT, 7)
    assert not add(assembly, first, "a") + add(assembly, last, "b")
    assert not list(assembly.due(WHOLE_WITHIN_S - 1))
    (whole,) = assembly.due(WHOLE_WITHIN_S)
    assert whole.reply.text == TEXT[:67] + "…" + TEXT[134:] + "…"
    assert whole.answers == ["a", "b"]
    assert not list(assembly.due(1e9))


def test_unfinished_replies_are_bounded() -> None:
    """A gateway that sends first parts for ever fills no memory."""
    assembly = Assembly("sms_cmpp", "1")
    first = contents(TEXT, 7)[0]
    ended = [whole for n in range(MOST_UNFINISHED + 50) for whole in add(assembly, first, n, number=str(n))]
    assert len(ended) == 50
    repeated = [whole for n in range(5000) for whole in add(assembly, first, n, number="1")]
    assert repeated


def test_a_reference_is_not_given_twice_to_a_number_while_it_is_held() -> None:
    """The parts of two warnings would make one text of nonsense."""
    references = LongReferences(Numbering(1, 4).numbers(250, 256), 64)
    people = tuple(f"1{n}" for n in range(99))
    given_out = [references.take(people, 0.0) for _ in range(64)]
    assert len(set(given_out)) == 64
    assert {one % 4 for one in given_out} == {1}
    assert references.take(people, 1.0) == given_out[0]  # all are held: the oldest
    assert references.take(("2",), 1.0) % 4 == 1
    later = LongReferences(Numbering(0, 1).numbers(0, 4), 4)
    assert [later.take(people, 0.0) for _ in range(4)] == [0, 1, 2, 3]
    assert later.take(people, HELD_S + 1) == 0


@pytest.mark.parametrize(
    ("start", "limit", "connections"), [(0, 256, 3), (255, 256, 5), (2**32 - 1, 2**32, 7), (9, 4, 9)]
)
def test_connections_never_count_alike(start: int, limit: int, connections: int) -> None:
    """Two processes on one account share nothing but their slots."""

    def some(slot: int) -> Iterator[int]:
        numbers = Numbering(slot, connections).numbers(start, limit)
        return (next(numbers) for _ in range(300))

    seen = [set(some(slot)) for slot in range(min(connections, limit))]
    assert all(max(one) < limit for one in seen)
    assert sum(map(len, seen)) == len(set.union(*seen))


@pytest.mark.parametrize(
    "written", ["10000000001", "8610000000001", "+8610000000001", "008610000000001", "+008610000000001"]
)
def test_a_number_is_the_same_however_a_gateway_writes_it(written: str) -> None:
    """A report for 86… belongs to the person the roster knows without."""
    assert national(written) == "10000000001"


def test_another_countrys_number_never_becomes_one_of_ours() -> None:
    """+1 202 555 0123 without its sign is a telephone of somebody in China, who would be told of another's flood."""
    assert national("+12025550123") == "+12025550123"


COMMON = {"name": "one", "host": "127.0.0.1", "secret": "s3cret", "src_id": "1069"}
CMPP = Cmpp("sms_cmpp", CmppAccount.model_validate(COMMON | {"source_addr": "901234", "bulk_ids": "one"}))
SGIP = Sgip(
    "sms_sgip", SgipAccount.model_validate(COMMON | {"login_name": "a", "area_code": "010", "corp_id": "12345"})
)
SMGP = Smgp("sms_smgp", SmgpAccount.model_validate(COMMON | {"client_id": "1"}))
LATIN = st.text(st.characters(max_codepoint=255, exclude_characters="\0"), max_size=21)
OCTET = st.integers(0, 255)


@given(LATIN, LATIN, OCTET, OCTET, OCTET, st.binary(max_size=140))
def test_nothing_a_gateway_says_is_more_than_an_event_or_an_answer(
    number: str, dialled: str, flag: int, form: int, headed: int, octets: bytes
) -> None:
    """One odd report must not end the connection: it would come again, for ever, before all others."""
    requests: tuple[tuple[Any, Any, Any], ...] = (
        (CMPP, 1, cmpp.Deliver(msg_id=flag, dest_id=dialled, src_terminal_id=number, registered_delivery=flag & 1,
                               tp_udhi=headed, msg_fmt=form, msg_content=octets)),
        (SMGP, 1, smgp.Deliver(msg_id=bytes(10), is_report=flag & 1, msg_format=form, src_term_id=number,
                               dest_term_id=dialled, msg_content=octets, parameters=((2, bytes((headed,))),))),
        (SGIP, sgip.Sequence(1, 2, 3), sgip.Deliver(user_number=number, sp_number=dialled, tp_udhi=headed,
                                                    message_coding=form, message_content=octets)),
        (SGIP, sgip.Sequence(1, 2, 3), sgip.Report(bytes(12), 0, number, flag, form)),
    )  # fmt: skip
    for wire, sequence, request in requests:
        heard = wire.hear(sequence, request)
        assert wire.codec.encode(sequence, heard.answer)
        if heard.report is not None:
            assert len(number) < 5 or number not in heard.report.reference + heard.report.code
        if heard.spoken is not None:
            assembly = Assembly("sms_cmpp", "1069")
            assert [*assembly.add(heard.spoken, "a", 0.0), *assembly.due(1e9)]
