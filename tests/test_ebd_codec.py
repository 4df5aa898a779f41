"""Packages of the emergency-broadcast platforms: bytes, signatures, and what may never become a real broadcast."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import itertools
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from gmalg import SM2
from gmalg.sm2 import SM2Core
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels import _sm2
from channels._ebd import Ebd, ebd_id, ebm_id, heartbeat_id, pack, unpack
from channels._ebd_broadcast import Broadcast, judged, share_of
from channels._ebd_form import (
    BODIES,
    Auxiliary,
    BasicInfo,
    Body,
    BrdLog,
    Check,
    Content,
    Coverage,
    DataRequest,
    EbdError,
    Ebm,
    LoggedKind,
    LoggedMessage,
    LogItem,
    Period,
    RelatedMessage,
    Response,
    StateRequest,
    StateResponse,
    Terminal,
    TerminalStates,
    at_of,
    moment,
)
from channels._ebd_meaning import HEARD, SEVERITY, msg_type, refusal
from channels._ebd_signature import Pinned, SoftSigner, Trust, is_private, is_public
from gateway.errors import Permanent, Temporary, Unusable
from gateway.model import Level, State, Status

OURS, THEIRS = "44117260000000103010001", "44117260000000101010001"
OLD = "010333112400000001"
NOW = datetime(2026, 7, 20, 6, 30, 15, tzinfo=UTC)
KEY = bytes.fromhex("3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8")
PUBLIC = bytes.fromhex(
    "0409f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
    "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
)
ISSUER, SERIAL = "000000000075", "000000003363"
INFO = BasicInfo(
    "1",
    "泌阳县预警信息发布中心",
    OURS,
    "2026-07-20 14:30:15",
    "11B03",
    "1",
    "2026-07-20 14:30:15",
    "2026-07-20 14:40:15",
)
EBM_ID = ebm_id(OURS, "20260720", 7)
SIGNER = SoftSigner(ISSUER, SERIAL, KEY)


def trust(owner: str = THEIRS, until: timedelta = timedelta(days=1), **changes: Any) -> Trust:
    pin = Pinned(ISSUER, SERIAL, owner, PUBLIC, NOW - timedelta(days=1), NOW + until)
    return Trust([pin._replace(**changes)])


def package(body: Body, number: int = 1, related: str = "", source: str = THEIRS, target: str = OURS) -> Ebd:
    return Ebd(ebd_id(source, "20260720", number), source, target, NOW, body, related)


@dataclass
class Constant:
    """A cipher box whose signatures are always the same."""

    issuer: str = ISSUER
    serial: str = SERIAL

    async def sign(self, data: bytes) -> bytes:
        return b"\x01" * 32 + b"\x02" * 32


def files_of(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {one.name: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]  # files all


def tar_of(files: Mapping[str, bytes] | list[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items() if isinstance(files, Mapping) else files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


# --- the mapping that matters most ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "drill"), list(itertools.product(Status, ("3", "4", "5"))))
def test_only_an_actual_alert_becomes_a_real_broadcast(status: Status, drill: Any) -> None:
    """Every status with every setting: a drill that sounds as a warning sends a county into the night (T1)."""
    expected = {
        Status.ACTUAL: "1", Status.EXERCISE: drill, Status.TEST: "3", Status.SYSTEM: "3", Status.DRAFT: None,
    }[status]  # fmt: skip
    if expected is None:
        with pytest.raises(Permanent, match="draft"):
            msg_type(status, drill)
        return
    kind = msg_type(status, drill)
    assert kind == expected
    assert (kind == "1") == (status is Status.ACTUAL)
    assert kind != "2"  # nobody cancels by broadcasting


@pytest.mark.parametrize("drill", ["1", "2", "0", "", "6"])
def test_no_setting_makes_an_exercise_real(drill: Any) -> None:
    """A mistyped configuration must stop the drill, not start an alarm."""
    with pytest.raises(Permanent):
        msg_type(Status.EXERCISE, drill)


def test_two_of_the_drills_are_heard_by_nobody() -> None:
    """A village counts as played only by what sounds in it."""
    assert {"1", "5"} == HEARD


def test_every_level_has_a_severity_and_evacuations_the_highest() -> None:
    """The platform serves 特别重大 first; an instruction to leave has no colour and may not come last."""
    assert {level: SEVERITY[level] for level in Level} == {
        Level.RED: "1", Level.ORANGE: "2", Level.YELLOW: "3", Level.BLUE: "4", Level.UNKNOWN: "1",
    }  # fmt: skip


def test_every_answer_has_a_decision() -> None:
    """A refused signature pages somebody; what was not processed goes again as the same package."""
    assert refusal("1") is None
    kinds = {code: type(refusal(code)) for code in ("0", "2", "3", "4", "5")}
    assert kinds == {"0": Temporary, "2": Permanent, "3": Permanent, "4": Unusable, "5": Temporary}


# --- bytes ------------------------------------------------------------------------------------------------------------

BODY = """<?xml version='1.0' encoding='utf-8'?>
<EBD><EBDVersion>1.0</EBDVersion><EBDID>104411726000000010301000120260720{number}</EBDID><EBDType>EBM</EBDType>\
<SRC><EBRID>44117260000000103010001</EBRID></SRC><DEST><EBRID>44117260000000101010001</EBRID></DEST>\
<EBDTime>2026-07-20 14:30:15</EBDTime><EBM><EBMVersion>1.0</EBMVersion>\
<EBMID>44117260000000103010001202607200007</EBMID><MsgBasicInfo><MsgType>1</MsgType>\
<SenderName>泌阳县预警信息发布中心</SenderName><SenderCode>44117260000000103010001</SenderCode>\
<SendTime>2026-07-20 14:30:15</SendTime><EventType>11B03</EventType><Severity>1</Severity>\
<StartTime>2026-07-20 14:30:15</StartTime><EndTime>2026-07-20 14:40:15</EndTime></MsgBasicInfo>\
<MsgContent><LanguageCode>zho</LanguageCode><MsgTitle>暴雨红色预警</MsgTitle><MsgDesc>立即转移。</MsgDesc>\
<AreaCode>411726204201,411726204202</AreaCode></MsgContent></EBM></EBD>"""
SIGNED = """<?xml version='1.0' encoding='utf-8'?>
<Signature><Version>1.0</Version><RelatedEBD><EBDID>10441172600000001030100012026072000000003</EBDID></RelatedEBD>\
<SignatureCert><CertType>1</CertType><IssuerID>000000000075</IssuerID><CertSN>000000003363</CertSN></SignatureCert>\
<SignatureTime>6a5dc077</SignatureTime><DigestAlgorithm>SM3</DigestAlgorithm><SignatureAlgorithm>SM2</SignatureAlgorithm>\
<SignatureValue>{value}</SignatureValue></Signature>"""
RESPONSE = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<!-- as another platform may write it -->
<EBD xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <EBDVersion>1.0</EBDVersion>
  <EBDID>10441172600000001010100012026072000000001</EBDID>
  <EBDType>EBDResponse</EBDType>
  <SRC><EBRID>44117260000000101010001</EBRID><URL>http://192.0.2.1/ebd</URL></SRC>
  <DEST>
    <EBRID> 44117260000000103010001 </EBRID>
  </DEST>
  <EBDTime>2026-07-20 14:30:15</EBDTime>
  <RelatedEBD><EBDID>10441172600000001030100012026072000000003</EBDID></RelatedEBD>
  <EBDResponse>
    <ResultCode>1</ResultCode>
    <ResultDesc>执行成功</ResultDesc>
  </EBDResponse>
</EBD>
"""
WARNING = Ebm(
    "1.0", EBM_ID, INFO, msg_content=Content("zho", "暴雨红色预警", "立即转移。", "411726204201,411726204202")
)


async def test_a_warning_is_written_byte_by_byte_as_by_hand() -> None:
    """What the platform gets must not depend on a library's whim: its parser was written against such bytes."""
    tar = await pack(package(WARNING, 3, source=OURS, target=THEIRS), Constant())
    id_ = "10441172600000001030100012026072000000003"
    value = bytes.fromhex("6a5dc077" + "000000003363" + "01" * 32 + "02" * 32)
    assert files_of(tar) == {
        f"EBDB_{id_}.xml": BODY.format(number="00000003").encode(),
        f"EBDS_EBDB_{id_}.xml": SIGNED.format(value=base64.b64encode(value).decode()).encode(),
    }
    assert len(tar) % 512 == 0


def raw_of(data: bytes) -> bytes:
    """Sign as another platform does: r and s of 32 bytes each."""
    r, s = SM2(KEY, b"1234567812345678", PUBLIC).sign(data)
    return bytes(r.rjust(32, b"\0") + s.rjust(32, b"\0"))


async def test_an_answer_written_by_hand_is_read() -> None:
    """Another platform has other spaces, comments, prefixes and further elements; what counts is the same."""
    data = RESPONSE.encode()
    id_ = "10441172600000001010100012026072000000001"
    value = base64.b64encode(bytes.fromhex("6a5dc077" + SERIAL) + raw_of(data)).decode()
    signature = SIGNED.replace("10441172600000001030100012026072000000003", id_).format(value=value).encode()
    found = await unpack(tar_of({f"EBDB_{id_}.xml": data, f"EBDS_EBDB_{id_}.xml": signature}), trust(), NOW)
    assert (found.id, found.source, found.target) == (id_, THEIRS, OURS)
    assert found.related == "10441172600000001030100012026072000000003"
    assert found.body == Response("1", "执行成功")
    assert found.at == NOW


def test_ids_hold_who_when_and_the_number() -> None:
    """Both lengths of EBRID are in use; a number that does not fit must not become another one's."""
    assert ebd_id(OURS, "20260720", 12) == "10" + OURS + "2026072000000012"
    assert ebm_id(OLD, "20260720", 12) == OLD + "202607200012"
    assert heartbeat_id(OLD) == "01" + OLD + "0" * 16
    with pytest.raises(EbdError, match="numbers_used_up"):
        ebm_id(OURS, "20260720", 10_000)
    with pytest.raises(EbdError, match="numbers_used_up"):
        ebd_id(OURS, "20260720", 100_000_000)


def test_times_are_those_of_beijing() -> None:
    """Eight hours off, a broadcast ends before it begins."""
    assert moment(NOW) == "2026-07-20 14:30:15"
    assert at_of("2026-07-20 14:30:15") == NOW
    with pytest.raises(EbdError, match="time"):
        at_of("2026-02-30 00:00:00")


# --- round trip -------------------------------------------------------------------------------------------------------

DIGITS = st.text("0123456789", min_size=12, max_size=12)
AREAS = st.lists(DIGITS, min_size=1, max_size=4).map(",".join)
TEXTS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=60)
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2039, 1, 1)).map(
    lambda at: at.strftime("%Y-%m-%d %H:%M:%S")
)  # text only
RATES = st.sampled_from(["0", "0.4", "0.99", "1", "1.0"])
RELATED = st.just(RelatedMessage(EBM_ID))
STATES = st.sampled_from("012345")
COVERAGE = st.lists(st.builds(Coverage, AREAS, RATES, st.just("1,2,3,4")), max_size=3).map(tuple)
TERMINALS = st.builds(Terminal, TIMES, st.just(OURS), st.sampled_from("12345"), TEXTS)
FILES = st.lists(st.builds(Auxiliary, st.just("2"), st.just("a.mp3"), st.integers(0, 100), st.just("ab")), max_size=2)
INFOS = st.builds(
    BasicInfo, st.sampled_from("12345"), TEXTS, st.just(OURS), TIMES, st.just("11B03"), st.sampled_from("1234"), TIMES,
    TIMES,
)  # fmt: skip
LOGGED = st.builds(LoggedMessage, st.just(EBM_ID), st.none() | st.builds(LoggedKind, st.sampled_from("12345")))
BODY_OF: dict[str, st.SearchStrategy[Any]] = {
    "EBM": st.builds(
        Ebm, st.just("1.0"), st.just(EBM_ID), INFOS, st.none() | RELATED,
        st.none() | st.builds(Content, st.just("zho"), TEXTS, TEXTS, AREAS, st.just("1"), FILES.map(tuple)),
    ),
    "EBMStateRequest": st.builds(StateRequest, RELATED),
    "EBMStateResponse": st.builds(StateResponse, TIMES, RELATED, STATES, TEXTS, COVERAGE),
    "EBMBrdLog": st.lists(st.builds(LogItem, LOGGED, STATES, TEXTS, COVERAGE), min_size=1, max_size=3).map(
        lambda items: BrdLog(tuple(items))
    ),
    "EBDResponse": st.builds(Response, STATES, TEXTS),
    "ConnectionCheck": st.builds(Check, TIMES),
    "OMDRequest": st.builds(DataRequest, st.just("EBRDTState"), st.builds(Period, TIMES, TIMES, st.just("Full"))),
    "EBRDTState": st.lists(TERMINALS, min_size=1, max_size=3).map(lambda found: TerminalStates(tuple(found))),
}  # fmt: skip


def test_every_type_is_put_to_the_proof() -> None:
    """A body nobody tried is one that fails on the night."""
    assert BODY_OF.keys() == BODIES.keys()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.one_of(*BODY_OF.values()), number=st.integers(0, 99_999_999))
async def test_whatever_is_written_is_read_back(body: Any, number: int) -> None:
    """Both sides read the same tables: a field that is lost on the way is a village that is not named."""
    sent = package(body, number, related=ebd_id(OURS, "20260720", 1))
    assert await unpack(await pack(sent, SIGNER), trust(), NOW) == sent


async def test_a_recording_comes_with_it() -> None:
    """A dialect speaker's warning is worth more than a machine's."""
    sent = package(WARNING)._replace(recording=("411726.mp3", b"ID3" + b"\0" * 100))
    assert await unpack(await pack(sent, SIGNER), trust(), NOW) == sent
    with pytest.raises(EbdError, match="too_large"):
        await pack(sent._replace(recording=("a.mp3", bytes(4 << 20))), SIGNER)


async def test_a_text_xml_cannot_hold_is_refused() -> None:
    """Nothing is dropped or guessed in silence."""
    content = Content("zho", "题", "响\x0b铃", "411726204201")
    with pytest.raises(EbdError, match="text"):
        await pack(package(Ebm("1.0", EBM_ID, INFO, msg_content=content)), SIGNER)


# --- signatures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
def test_sm2_is_that_of_the_standard(monkeypatch: pytest.MonkeyPatch, *, fast: bool) -> None:
    """The example of GB/T 32918.5: a library with another curve or digest would agree with itself alone."""
    monkeypatch.setattr(_sm2, "FAST", fast)
    r = bytes.fromhex("f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3")
    s = bytes.fromhex("b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa")
    assert _sm2.verifies(PUBLIC, b"message digest", r + s)
    assert not _sm2.verifies(PUBLIC, b"message digests", r + s)
    assert SM2(None, b"1234567812345678", PUBLIC).verify(b"x", *_halves(_sm2.sign(KEY, PUBLIC, b"x")))
    assert _sm2.public_of(KEY) == PUBLIC


def _halves(raw: bytes) -> tuple[bytes, bytes]:
    return raw[:32], raw[32:]


def test_a_large_package_costs_a_stranger_more_than_us() -> None:
    """Four megabytes took half a minute of a processor that has warnings to send, before anything was believed."""
    assert _sm2.FAST is ("sm3" in hashlib.algorithms_available)
    digest = _sm2.OpenSslSm3()
    for data, value in (  # GB/T 32905, appendix A
        (b"abc", "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"),
        (b"abcd" * 16, "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732"),
    ):
        digest.reset()
        digest.update(data)
        assert digest.value().hex() == value


def test_a_signature_has_its_leading_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out, one warning in 128 would be refused, and nobody would find out why."""
    monkeypatch.setattr(SM2Core, "sign", lambda *_: (0x01, 0x0203))
    assert _sm2.sign(KEY, PUBLIC, b"x") == bytes(31) + b"\x01" + bytes(30) + b"\x02\x03"


@pytest.mark.parametrize("key", ["", "zz", "0" * 64, "f" * 64, "12" * 31, " " * 64])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    """Found at the start, not at the first red warning."""
    assert not is_private(key)
    assert not is_public("04" + key + key)
    assert is_private(KEY.hex())
    assert is_public(PUBLIC.hex())


async def broken(files: dict[str, bytes], by: Trust | None = None, now: datetime = NOW) -> tuple[str, str]:
    """Return the ResultCode and reason a package is refused with."""
    with pytest.raises(EbdError) as refused:
        await unpack(tar_of(files), by or trust(), now)
    return refused.value.result, refused.value.why


async def test_nothing_unsigned_is_believed() -> None:
    """Software in the field takes a tar without a signature in silence (T21): anybody could sound a county's alarm."""
    files = files_of(await pack(package(WARNING), SIGNER))
    body, signature = sorted(files)
    assert await broken({body: files[body]}) == ("4", "unsigned")
    assert await broken({body: files[body], signature: b""}) == ("4", "xml")
    other = files[body].replace("立即转移".encode(), "平安无事".encode())
    assert await broken({body: other, signature: files[signature]}) == ("4", "wrong_signature")
    assert await broken({body: files[body] + b" ", signature: files[signature]}) == ("4", "wrong_signature")


async def test_a_signature_of_something_else_is_none() -> None:
    """Yesterday's signature under today's name, or the platform's own under another's, opens nothing."""
    files = files_of(await pack(package(WARNING), SIGNER))
    later = files_of(await pack(package(WARNING, 2), SIGNER))
    body, signature = sorted(files)
    assert await broken({body: files[body], signature: later[sorted(later)[1]]}) == ("4", "signs_another")
    named = files[signature].replace(package(WARNING).id.encode(), package(WARNING, 2).id.encode())
    assert await broken({body: files[body], signature: named}) == ("4", "signs_another")
    moved = {name.replace(package(WARNING).id, package(WARNING, 2).id): data for name, data in files.items()}
    moved = {name: data.replace(b"<RelatedEBD><EBDID>" + package(WARNING).id.encode(),
                                b"<RelatedEBD><EBDID>" + package(WARNING, 2).id.encode())
             for name, data in moved.items()}  # fmt: skip
    assert await broken(moved) == ("4", "signs_another")
    assert await broken(files, trust(owner=OLD)) == ("4", "signs_another")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"SM3", b"MD5", "value"), (b">SM2<", b">RSA<", "value"), (b"3363", b"3364", "unknown_certificate"),
        (b"0075", b"0076", "unknown_certificate"), (b"<Version>1.0</Version>", b"", "missing"),
        (b"</RelatedEBD>", b"</RelatedEBD><RelatedEBD><EBDID>1</EBDID></RelatedEBD>", "value"),
    ],
)  # fmt: skip
async def test_a_weaker_or_foreign_signature_is_refused(old: bytes, new: bytes, why: str) -> None:
    """Nobody may choose the algorithm, or a certificate that was not pinned."""
    files = files_of(await pack(package(WARNING), SIGNER))
    body, signature = sorted(files)
    assert await broken({body: files[body], signature: files[signature].replace(old, new)}) == ("4", why)


@pytest.mark.parametrize("value", ["", "AAAA", "A" * 100, base64.b64encode(bytes(74)).decode()])
async def test_a_value_that_is_no_signature_is_refused(value: str) -> None:
    """Zeros, rubbish and a time other than the one beside it."""
    files = files_of(await pack(package(WARNING), SIGNER))
    body, signature = sorted(files)
    head, _, rest = files[signature].partition(b"<SignatureValue>")
    tail = rest.partition(b"</SignatureValue>")[2]
    wrong = head + b"<SignatureValue>" + value.encode() + b"</SignatureValue>" + tail
    result, _ = await broken({body: files[body], signature: wrong})
    assert result == "4"


async def test_a_certificate_counts_from_its_first_day_to_its_last() -> None:
    """A key of last season may be in anybody's hands."""
    files = files_of(await pack(package(WARNING), SIGNER))
    assert await broken(files, now=NOW + timedelta(days=1)) == ("4", "expired_certificate")
    assert await broken(files, now=NOW - timedelta(days=2)) == ("4", "expired_certificate")
    assert await broken(files, Trust([])) == ("4", "unknown_certificate")


# --- hostile packages -------------------------------------------------------------------------------------------------


async def test_only_the_files_of_a_package_may_be_in_it() -> None:
    """Paths, links, devices, doubles and crowds: nothing of such a tar is opened (T21)."""
    files = files_of(await pack(package(WARNING), SIGNER))
    body, _ = sorted(files)
    bad = ["../etc/passwd", "/EBDB_1.xml", f"a/{body}", "EBDR_../x.mp3", "x.xml", body.upper(), f"./{body}"]
    for name in bad:
        assert await broken({**files, name: b"x"}) == ("2", "member")
    with pytest.raises(EbdError, match="member"):
        await unpack(tar_of([*files.items(), (body, files[body])]), trust(), NOW)
    with pytest.raises(EbdError, match="member"):
        await unpack(tar_of({**files, "EBDR_a.mp3": b"", "EBDR_b.mp3": b""}), trust(), NOW)
    assert await broken({name: data for name, data in files.items() if name != body}) == ("2", "body")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
async def test_what_is_no_plain_file_is_refused(kind: bytes) -> None:
    """A link to our own key would be sent back in the next error."""
    files = files_of(await pack(package(WARNING), SIGNER))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number, (name, data) in enumerate(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data) if number else 0
            info.type, info.linkname = (tarfile.REGTYPE if number else kind), "/etc/passwd"
            archive.addfile(info, io.BytesIO(data) if number else None)
    with pytest.raises(EbdError, match="member"):
        await unpack(packed.getvalue(), trust(), NOW)


def header(kind: bytes, size: int = 0, extended: int = 0) -> bytes:
    """A block before a member, or before what is said of the next one."""
    info = tarfile.TarInfo("EBDR_a.mp3")
    info.type, info.size = kind, size
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[482] = extended
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "tar",
    [
        (header(tarfile.GNUTYPE_LONGNAME, 1) + b"a".ljust(512, b"\0")) * 3000,
        (header(tarfile.XHDTYPE, 11) + b"11 path=ab\n".ljust(512, b"\0")) * 3000,
        header(tarfile.GNUTYPE_SPARSE, extended=1),
    ],
    ids=["names of names", "headers of headers", "sparse and cut off"],
)
async def test_a_tar_that_upsets_the_library_is_refused(tar: bytes) -> None:
    """One such answer of the platform would end the task that follows and cancels all broadcasts, for good."""
    with pytest.raises(EbdError, match="tar"):
        await unpack(tar, trust(), NOW)


async def test_a_signature_is_small_before_it_is_read() -> None:
    """A million elements take a second of the loop that sends warnings, and nobody has signed them."""
    files = files_of(await pack(package(WARNING), SIGNER))
    name = next(one for one in files if one.startswith("EBDS_"))
    files[name] = files[name].replace(b"</Signature>", b"<x/>" * 10_000 + b"</Signature>")
    assert await broken(files) == ("4", "too_large")


async def test_a_package_is_bounded() -> None:
    """4 MiB, also where a header promises more than comes, or less."""
    with pytest.raises(EbdError, match="too_large"):
        await unpack(bytes((4 << 20) + 1), trust(), NOW)
    tar = bytearray(await pack(package(WARNING), SIGNER))
    for size in (b"77777777777\0", b"00000000001\0", b"\x80\0\0\0\0\0\0\xff\xff\xff\xff\xff", b"-0000000001\0"):
        cut = bytearray(tar)
        cut[124:136] = size
        total = sum(cut[:148]) + sum(cut[156:512]) + 8 * 32
        cut[148:156] = b"%06o\0 " % total
        with pytest.raises(EbdError) as refused:
            await unpack(bytes(cut), trust(), NOW)
        assert refused.value.result in ("2", "4")


BOMB = b"""<!DOCTYPE EBD [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>
<EBD><EBDVersion>&b;&c;</EBDVersion></EBD>"""


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (BOMB, "2"), (b"", "2"), (b"<EBD/>", "3"), (b"<ebd></ebd>", "2"), (b"<EBD>" * 400 + b"</EBD>" * 400, "2"),
        (b"<EBD><EBDVersion>&x;</EBDVersion></EBD>", "2"), (b"\xff\xfe<EBD/>", "2"),
    ],
)  # fmt: skip
async def test_a_body_that_is_none_is_refused_even_when_it_is_signed(data: bytes, result: str) -> None:
    """Entities are never followed, depth is bounded; the platform itself may be in a stranger's hands."""
    id_ = package(WARNING).id
    value = base64.b64encode(bytes.fromhex("6a5dc077" + SERIAL) + raw_of(data)).decode()
    signature = SIGNED.replace("10441172600000001030100012026072000000003", id_).format(value=value).encode()
    assert (await broken({f"EBDB_{id_}.xml": data, f"EBDS_EBDB_{id_}.xml": signature}))[0] == result


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        ("<MsgType>1<", "<MsgType>6<", "2"), ("<MsgType>1</MsgType>", "", "3"),
        ("<MsgType>1</MsgType>", "<MsgType>3</MsgType><MsgType>1</MsgType>", "2"),
        ("<EBDType>EBM<", "<EBDType>EBMNew<", "5"), ("<EBDType>EBM<", "<EBDType>ConnectionCheck<", "3"),
        ("</EBM>", "</EBM><EBDResponse><ResultCode>1</ResultCode><ResultDesc>x</ResultDesc></EBDResponse>", "2"),
        ("411726204201,", "411726204201，", "2"), ("411726204201,", "../../,", "2"),
        ("2026-07-20 14:30:15", "now", "2"),
        ("<Severity>1<", "<Severity>0<", "2"), ("zho", "eng", "2"),
    ],
)  # fmt: skip
async def test_a_value_no_table_has_is_refused(old: str, new: str, result: str) -> None:
    """Two types in one message are none: a reader that takes the first one would play a drill, or an alarm."""
    data = BODY.format(number="00000003").replace(old, new).encode()
    id_ = "10441172600000001030100012026072000000003"
    value = base64.b64encode(bytes.fromhex("6a5dc077" + SERIAL) + raw_of(data)).decode()
    files = {f"EBDB_{id_}.xml": data, f"EBDS_EBDB_{id_}.xml": SIGNED.format(value=value).encode()}
    assert (await broken(files, trust(owner=OURS)))[0] == result


GOOD = tar_of({"EBDB_" + "1" * 36 + ".xml": b"<EBD/>", "EBDS_EBDB_" + "1" * 36 + ".xml": b"<Signature/>"})


@settings(deadline=None, max_examples=100)
@given(
    st.one_of(st.binary(max_size=2000), st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=40)))
)
async def test_no_bytes_do_more_than_be_refused(data: bytes | tuple[int, bytes]) -> None:
    """The route is open to whoever finds it; an exception would be a way in, or a way to stop it."""
    if isinstance(data, tuple):
        at, patch = data
        data = GOOD[:at] + patch + GOOD[at + len(patch) :]
    with pytest.raises(EbdError):
        await unpack(data, trust(), NOW)


# --- what a state says of a village -----------------------------------------------------------------------------------


def test_a_village_is_judged_by_the_smallest_area_it_lies_in() -> None:
    """A township's average hides the one village whose loudspeaker is dead."""
    told = (
        Coverage("411726204000", "0.9"),
        Coverage("411726204201,411726204202", "0.2"),
        Coverage("411726000000", "1"),
    )
    assert share_of(told, "411726204201") == 0.2
    assert share_of(told, "411726204209") == 0.9
    assert share_of(told, "411726205201") == 1.0
    assert share_of(told, "411702001001") is None
    assert share_of((), "411726204201") is None


@pytest.mark.parametrize(
    ("state", "share", "any_", "heard", "expected"),
    [
        ("0", 1.0, True, True, None),
        ("1", 1.0, True, True, None),
        ("2", 1.0, True, True, (State.DELIVERED, "playing")),
        ("2", 0.0, True, True, None),
        ("2", None, True, True, None),
        ("2", None, False, True, (State.DELIVERED, "playing")),
        ("3", 0.5, True, True, (State.PLAYED, "played")),
        ("3", 0.49, True, True, (State.DELIVERED, "coverage_49")),
        ("3", 0.0, True, True, (State.FAILED, "coverage_0")),
        ("3", None, True, True, (State.FAILED, "not_covered")),
        ("3", None, False, True, (State.DELIVERED, "no_coverage")),
        ("3", 1.0, True, False, (State.DELIVERED, "not_heard")),
        ("4", 1.0, True, True, (State.FAILED, "failed")),
        ("5", None, False, True, (State.FAILED, "stopped")),
    ],
)
def test_a_village_is_played_only_where_enough_of_it_sounded(
    state: Any, share: float | None, any_: bool, heard: bool, expected: tuple[State, str] | None
) -> None:
    """D1: a gap that is called played is a village nobody drives to."""
    assert judged(state, share, 0.5, heard=heard, any_=any_) == expected


@given(st.sets(st.integers(0, 999), min_size=1), st.sampled_from("1345"))
def test_what_is_kept_of_a_broadcast_is_read_back(positions: set[int], kind: str) -> None:
    """Another process cancels by these words alone."""
    one = Broadcast(EBM_ID, kind, "11B03", "1", tuple(sorted(positions)))
    assert Broadcast.read(one.text) == one


async def test_signatures_made_side_by_side_do_not_spoil_each_other() -> None:
    """A heartbeat at the moment of a warning must not cost the warning its signature."""
    packed = await asyncio.gather(*(pack(package(WARNING, number), SIGNER) for number in range(12)))
    found = await asyncio.gather(*(unpack(one, trust(), NOW) for one in packed))
    assert [one.id for one in found] == [package(WARNING, number).id for number in range(12)]
