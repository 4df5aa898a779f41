"""What the carriers' codecs share: framing, strictness, and that no octets can do more than end a connection."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest
from fuzz import fuzz
from hypothesis import given
from hypothesis import strategies as st
from pdu_strategy import pdus

from channels import _cmpp, _sgip, _smgp, _smpp
from channels._field import Fault, WireError
from channels._pdu import RESPONSE, Codec, Frame, Framer, Pdu, Unknown
from channels._sms_text import decoded, split_header

CODECS: tuple[tuple[Codec[Any], tuple[type[Pdu], ...], Any], ...] = (
    (_cmpp.CODECS[_cmpp.V2], _cmpp.PDUS, 7),
    (_cmpp.CODECS[_cmpp.V3], _cmpp.PDUS, 7),
    (_sgip.CODEC, _sgip.PDUS, _sgip.Sequence(3_039_612_345, 1126053801, 7)),
    (_smgp.CODEC, _smgp.PDUS, 7),
    (_smpp.CODEC, _smpp.PDUS, 7),
)
NAMES = [codec.name for codec, _, _ in CODECS]
TABLE = [pytest.param(codec, pdu, id=f"{codec.name} {pdu.__name__}") for codec, table, _ in CODECS for pdu in table]
EACH = pytest.mark.parametrize(("codec", "sequence"), [(c, s) for c, _, s in CODECS], ids=NAMES)
IN_BULK = pytest.mark.parametrize(
    ("codec", "sequence"), [(c, s) for c, _, s in CODECS if c is not _smpp.CODEC], ids=NAMES[:-1]
)
HEADERS = {_sgip.CODEC.name: 20, _smpp.CODEC.name: 16}
SHORTEST = 12
"""Octets of the shortest header."""
ROUNDS = int(os.environ.get("MINGLUO_FUZZ_ROUNDS", "1000"))


def a_submit(codec: Codec[Any], numbers: tuple[str, ...] = ("13900000001",)) -> Pdu:
    text = "到岗".encode("utf-16-be")
    if codec is _sgip.CODEC:
        return _sgip.Submit(sp_number="1069", user_numbers=numbers, corp_id="12345", message_content=text)
    if codec is _smgp.CODEC:
        return _smgp.Submit(src_term_id="1069", dest_term_ids=numbers, msg_content=text)
    if codec is _smpp.CODEC:
        return _smpp.SubmitSm(source_addr="1069", destination_addr=numbers[0], short_message=text)
    return _cmpp.Submit(msg_src="901234", src_id="1069", dest_terminal_ids=numbers, msg_content=text)


def sequences(codec: Codec[Any]) -> st.SearchStrategy[Any]:
    word = st.integers(0, 0xFFFF_FFFF)
    return st.builds(_sgip.Sequence, word, word, word) if codec is _sgip.CODEC else word


def read_all(framer: Framer[Any]) -> tuple[list[Frame[Any]], list[WireError]]:
    """Read to the end, or to the loss of frames, past bad frames."""
    good: list[Frame[Any]] = []
    bad: list[WireError] = []
    while True:
        try:
            good.extend(framer)
        except WireError as error:
            bad.append(error)
            if error.lost:
                return good, bad
        else:
            return good, bad


@pytest.mark.parametrize(("codec", "pdu"), TABLE)
@given(data=st.data())
def test_what_is_written_is_read_back(codec: Codec[Any], pdu: type[Pdu], data: st.DataObject) -> None:
    """Every field of every PDU in every version: one octet astray and a village's numbers belong to another."""
    body = data.draw(pdus(pdu, codec.form))
    sequence = data.draw(sequences(codec))
    frame = codec.encode(sequence, body)
    assert codec.decode(frame) == (sequence, body)
    assert int.from_bytes(frame[:4], "big") == len(frame) <= codec.longest


@EACH
@given(data=st.data())
def test_frames_survive_any_cut_of_the_stream(codec: Codec[Any], sequence: Any, data: st.DataObject) -> None:
    """TCP cuts where it likes: reports arrive by halves and by dozens."""
    sent = [a_submit(codec, tuple(f"139{n:08}" for n in range(1, count + 1))) for count in (1, 9, 2)]
    stream = b"".join(codec.encode(sequence, pdu) for pdu in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    framer = Framer(codec)
    found: list[Frame[Any]] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found.extend(framer.feed(stream[start:end]))
    assert found == [(sequence, pdu) for pdu in sent]
    assert framer.pending == 0


@EACH
def test_one_octet_at_a_time_is_enough(codec: Codec[Any], sequence: Any) -> None:
    """The slowest line still delivers."""
    stream = codec.encode(sequence, a_submit(codec)) * 2
    framer = Framer(codec)
    found = [frame for at in range(len(stream)) for frame in framer.feed(stream[at : at + 1])]
    assert found == [(sequence, a_submit(codec))] * 2


@EACH
@pytest.mark.parametrize(
    ("length", "fault"), [(0xFFFF_FFFF, Fault.OVERSIZED), (0, Fault.SHORT), (11, Fault.SHORT), (-1, Fault.OVERSIZED)]
)
def test_a_hostile_length_loses_the_stream_at_once(codec: Codec[Any], sequence: Any, length: int, fault: Fault) -> None:
    """Four octets are enough to know: nobody waits for 4 GB, and nothing is kept for them."""
    length = codec.longest + 1 if length < 0 else length
    framer = Framer(codec)
    good = codec.encode(sequence, a_submit(codec))
    framer.feed(good + length.to_bytes(4, "big"))
    assert next(framer) == (sequence, a_submit(codec))
    for _ in range(2):
        with pytest.raises(WireError) as caught:
            next(framer)
        assert caught.value.fault is fault
        assert caught.value.lost
    assert framer.pending == 4


@EACH
def test_a_bad_frame_does_not_cost_the_next(codec: Codec[Any], sequence: Any) -> None:
    """A gateway's one broken PDU is answered; the reports behind it still arrive."""
    good = codec.encode(sequence, a_submit(codec))
    header = HEADERS.get(codec.name, SHORTEST)
    login = 9 if codec is _smpp.CODEC else 1
    # A login whose body is one octet.
    broken = (header + 1).to_bytes(4, "big") + login.to_bytes(4, "big") + good[8:header] + b"\0"
    framer = Framer(codec).feed(good + broken + good)
    found, errors = read_all(framer)
    assert found == [(sequence, a_submit(codec))] * 2
    assert [(error.fault, error.lost, error.command) for error in errors] == [(Fault.CUT, False, login)]
    assert errors[0].sequence == sequence


@EACH
@pytest.mark.parametrize("command", [0x7777, RESPONSE | 0x7777, 0xFFFF_FFFF])
def test_an_unknown_command_is_read_as_such(codec: Codec[Any], sequence: Any, command: int) -> None:
    """What a gateway's next release adds must not end the session."""
    good = codec.encode(sequence, a_submit(codec))
    strange = good[:4] + command.to_bytes(4, "big") + good[8:]
    _, found = codec.decode(strange)
    assert isinstance(found, Unknown)
    assert found.code == command
    assert found.body.endswith(good[HEADERS.get(codec.name, SHORTEST) :])
    assert codec.encode(sequence, found) == strange


@EACH
def test_octets_behind_the_last_field_are_an_error(codec: Codec[Any], sequence: Any) -> None:
    """Left-over octets mean that both sides read different tables: whose numbers were they?"""
    pdu: Pdu = {
        "SGIP 1.2": _sgip.Bind(1, "a", "b"),
        "SMGP 3.0.3": _smgp.SubmitResp(bytes(10)),
        "SMPP 3.4": _smpp.Unbind(),
    }.get(codec.name, _cmpp.DeliverResp(1))
    frame = codec.encode(sequence, pdu) + b"\0"
    with pytest.raises(WireError) as caught:
        codec.decode(len(frame).to_bytes(4, "big") + frame[4:])
    assert caught.value.fault is Fault.TRAILING
    with pytest.raises(WireError, match="trailing"):
        codec.decode(frame)


@EACH
def test_every_cut_body_is_an_error(codec: Codec[Any], sequence: Any) -> None:
    """A frame that says less than its fields hold is refused wherever it was cut."""
    frame = codec.encode(sequence, a_submit(codec, ("13900000001", "13900000002")))
    for end in range(HEADERS.get(codec.name, SHORTEST), len(frame)):
        with pytest.raises(WireError) as caught:
            codec.decode(end.to_bytes(4, "big") + frame[4:end])
        assert caught.value.fault is Fault.CUT
        assert "Submit" in caught.value.where
    with pytest.raises(WireError, match="cut"):
        codec.decode(frame[:-1])
    with pytest.raises(WireError, match="cut"):
        codec.decode(b"\0\0")


@IN_BULK
@pytest.mark.parametrize("count", [0, 101, 255])
def test_a_wrong_count_is_an_error(codec: Codec[Any], sequence: Any, count: int) -> None:
    """The count decides where the text begins."""
    with pytest.raises(WireError) as caught:
        codec.encode(sequence, a_submit(codec, ("13900000001",) * count))
    assert caught.value.fault is Fault.COUNT
    frame = bytearray(codec.encode(sequence, a_submit(codec)))
    frame[frame.index(b"\x0113900000001")] = count
    with pytest.raises(WireError) as caught:
        codec.decode(bytes(frame))
    assert caught.value.fault is Fault.COUNT


@IN_BULK
def test_a_count_beyond_the_frame_is_an_error(codec: Codec[Any], sequence: Any) -> None:
    """Two numbers announced, one sent: the text must not be read as a number."""
    frame = bytearray(codec.encode(sequence, a_submit(codec)))
    frame[frame.index(b"\x0113900000001")] = 90
    with pytest.raises(WireError) as caught:
        codec.decode(bytes(frame))
    assert caught.value.fault is Fault.CUT


@IN_BULK
@pytest.mark.parametrize("number", ["1" * 33, "", "139\0", "１３９00000001"], ids=["long", "empty", "zero", "wide"])
def test_a_number_that_does_not_fit_is_refused_not_cut(codec: Codec[Any], sequence: Any, number: str) -> None:
    """A number cut to size is somebody else's telephone; the error does not name it."""
    with pytest.raises(WireError) as caught:
        codec.encode(sequence, a_submit(codec, ("13900000001", number)))
    assert caught.value.fault is Fault.VALUE
    assert "139" not in str(caught.value)


@pytest.mark.parametrize(
    ("pdu", "where"),
    [
        (_cmpp.Connect("9012345", bytes(16), 0x30, 1), "Connect.source_addr"),
        (_cmpp.Connect("901234", bytes(15), 0x30, 1), "Connect.authenticator_source"),
        (_cmpp.Connect("901234", bytes(16), 0x30, 1 << 32), "Connect.timestamp"),
        (_cmpp.SubmitResp(-1), "SubmitResp.msg_id"),
        (_cmpp.Deliver(msg_id=1, dest_id="1", src_terminal_id="2", msg_content=bytes(256)), "Deliver.msg_content"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_its_field_is_named(pdu: Pdu, where: str) -> None:
    """The operator learns which setting to mend, not what secret it held."""
    with pytest.raises(WireError) as caught:
        _cmpp.CODECS[_cmpp.V3].encode(1, pdu)
    assert (caught.value.fault, caught.value.where) == (Fault.VALUE, where)


def test_a_frame_that_no_peer_would_take_is_not_written() -> None:
    """SGIP's length of content has four octets: the limit is the frame's."""
    pdu = _sgip.Deliver(user_number="8613900000001", sp_number="1069", message_content=bytes(5000))
    with pytest.raises(WireError) as caught:
        _sgip.CODEC.encode(_sgip.Sequence(1, 2, 3), pdu)
    assert caught.value.fault is Fault.OVERSIZED
    with pytest.raises(WireError, match="header"):
        _cmpp.CODECS[_cmpp.V3].encode(1 << 32, _cmpp.ActiveTest())


@EACH
def test_the_largest_bulk_submit_fits(codec: Codec[Any], sequence: Any) -> None:
    """The limit keeps out attackers, not alerts."""
    most = 99 if codec.name.startswith("CMPP") else 100
    pdu = a_submit(codec, tuple(f"86139{n:08}" for n in range(most)))
    assert codec.decode(codec.encode(sequence, pdu)).pdu == pdu


def test_a_pdu_does_not_show_what_it_holds() -> None:
    """Passwords, numbers and texts do not reach a log by way of a PDU in a message."""
    bind = _sgip.Bind(2, "smg", "sample-secret")
    assert repr(bind) == "<Bind>"
    assert "secret" not in repr(Frame(1, bind))
    assert bind.__rich_repr__() == []


def test_another_protocols_pdu_is_not_written() -> None:
    """Both have a command 2: a submit must never leave as a goodbye."""
    with pytest.raises(KeyError):
        _cmpp.CODECS[_cmpp.V3].encode(1, a_submit(_smgp.CODEC))


def hostile(data: bytes) -> int:
    """Read octets in every way a peer can offer them: PDUs or WireErrors, nothing else. Return the most PDUs found."""
    most = 0
    for codec, _, _ in CODECS:
        for pieces in ([data], [data[:7], data[7:]]):
            framer = Framer(codec)
            frames = [frame for piece in pieces for frame in read_all(framer.feed(piece))[0]]
            for frame in frames:
                _contents(frame.pdu)
            most = max(most, len(frames))
    _texts(data[:300])
    return most


def _contents(pdu: Pdu) -> None:
    for name in ("msg_content", "message_content"):
        if isinstance(content := getattr(pdu, name, None), bytes):
            _texts(content)
    if isinstance(pdu, _smpp.DeliverSm):
        _smpp.is_receipt(pdu)
        _smpp.long_reply(pdu)
        with suppress(WireError):
            _smpp.read_receipt(pdu)


def _texts(content: bytes) -> None:
    readers: tuple[Callable[[bytes], object], ...] = (_cmpp.read_report, _smgp.read_report, split_header)
    for read in readers:
        with suppress(WireError):
            read(content)
    for fmt in (0, 3, 4, 8, 15, 0x18, 0xF1):
        decoded(fmt, content).encode("utf-8")


@given(st.binary(max_size=400))
def test_any_octets_end_in_pdus_or_one_kind_of_error(data: bytes) -> None:
    """An attacker on the line can end the connection, never the process."""
    assert hostile(data) <= len(data) // SHORTEST  # none is made up


def seeds() -> Iterable[bytes]:
    for codec, _, sequence in CODECS:
        submits = [a_submit(codec), a_submit(codec, tuple(f"139{n:08}" for n in range(99)))]
        yield b"".join(codec.encode(sequence, pdu) for pdu in submits)
    yield _cmpp.CODECS[_cmpp.V3].encode(1, _cmpp.ConnectResp(0)) + _cmpp.CODECS[_cmpp.V3].encode(2, _cmpp.ActiveTest())
    nodes = (_sgip.TraceNode(0, "1"),) * 3
    yield _sgip.CODEC.encode(_sgip.Sequence(1, 2, 3), _sgip.TraceResp(nodes))
    receipt = b"id:42 sub:001 dlvrd:001 submit date:2611260530 done date:2611260531 stat:DELIVRD err:000 text:"
    parameters = ((0x001E, b"42\0"), (0x0427, b"\x02"), (0x020C, b"\0\1"), (0x020E, b"\2"), (0x020F, b"\1"))
    yield _smpp.CODEC.encode(
        1, _smpp.DeliverSm(destination_addr="1069", esm_class=4, short_message=receipt, parameters=parameters)
    )
    report = b"id:" + bytes(range(10)) + b" sub:001 dlvrd:001 submit date:2611260530 done date:2611260531 "
    report += b"stat:DELIVRD err:000 text:"
    yield _smgp.CODEC.encode(
        1, _smgp.Deliver(msg_id=bytes(10), is_report=1, src_term_id="1", dest_term_id="2", msg_content=report,
                         parameters=((1, b"\0"), (2, b"\1")))
    )  # fmt: skip


def test_damaged_frames_cost_no_memory_and_no_time() -> None:
    """Near misses go deeper than noise: lengths, counts and parameters one octet off, within bounds of a child."""
    inputs = list(seeds())
    assert fuzz("test_codec_frame:hostile", inputs, ROUNDS) == len(inputs) + ROUNDS
