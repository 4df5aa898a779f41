"""Packages of the emergency-broadcast platforms (应急广播): a tar with a body, its signature, perhaps a recording.

Used by `loudspeaker_ebd`. `EBDT_<EBDID>.tar` holds `EBDB_<EBDID>.xml`, `EBDS_EBDB_<EBDID>.xml` and, where a recording
comes with it, `EBDR_<name>.mp3`. Read strictly: other members, links, folders, a second one of a name, more than 4 MiB
or anything unsigned are refused as a whole, with the ResultCode that says why.

**Source:** as `_ebd_form`; interoperability is unverified.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from channels._ebd_form import (
    BODIES,
    INCOMPLETE,
    LARGEST,
    OTHER,
    UNREADABLE,
    UNSIGNED,
    Body,
    EbdError,
    Head,
    Related,
    Resource,
    Signature,
    at_of,
    convert,
    moment,
    read,
    type_of,
    write,
)
from channels._ebd_signature import Signer, Trust, signed

VERSION = "1.0"
_MEMBER = re.compile(r"(EBDB_(?P<body>[0-9]{36,41})\.xml|EBDS_EBDB_[0-9]{36,41}\.xml|EBDR_[A-Za-z0-9_.-]{1,80}\.mp3)")
_MEMBERS = 3
_LARGEST_SIGNATURE = 16 << 10  # bytes; one is below 1 KiB


class Ebd(NamedTuple):
    """One package: from and to whom (EBRID), what it answers ("" for nothing), when, and its body."""

    id: str
    source: str
    target: str
    at: datetime
    body: Body
    related: str = ""
    recording: tuple[str, bytes] | None = None
    """Name (without EBDR_) and bytes of an mp3."""


def ebd_id(ebrid: str, day: str, number: int) -> str:
    """Return the id of a package: the `number`th (from 0) of a day, YYYYMMDD.

    Raises:
        EbdError: there are no more than a hundred million.
    """
    return f"10{ebrid}{day}{_digits(number, 8)}"


def ebm_id(ebrid: str, day: str, number: int) -> str:
    """Return the id of a broadcast: the `number`th (from 0) of a day.

    Raises:
        EbdError: there are no more than ten thousand.
    """
    return f"{ebrid}{day}{_digits(number, 4)}"


def heartbeat_id(ebrid: str) -> str:
    """Return the id of every heartbeat."""
    return f"01{ebrid}{'0' * 16}"


def _digits(number: int, places: int) -> str:
    if number >= 10**places:
        raise EbdError(OTHER, "numbers_used_up")
    return f"{number:0{places}d}"


async def pack(ebd: Ebd, signer: Signer) -> bytes:
    """Return a package as a tar, signed.

    Raises:
        EbdError: a text holds what XML cannot, or it becomes too large.
    """
    name = type_of(ebd.body)
    head = Head(
        VERSION, ebd.id, name, Resource(ebd.source), Resource(ebd.target), moment(ebd.at),
        Related(ebd.related) if ebd.related else None,
    )  # fmt: skip
    body = write("EBD", ("", head), (name, ebd.body))
    signature = write("Signature", ("", await signed(body, ebd.id, signer, ebd.at)))
    members = {f"EBDB_{ebd.id}.xml": body, f"EBDS_EBDB_{ebd.id}.xml": signature}
    if ebd.recording:
        members[f"EBDR_{ebd.recording[0]}"] = ebd.recording[1]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size, info.mtime, info.mode = len(data), int(ebd.at.timestamp()), 0o644
            tar.addfile(info, io.BytesIO(data))
    if packed.tell() > LARGEST:
        raise EbdError(OTHER, "too_large")
    return packed.getvalue()


async def unpack(data: bytes, trust: Trust, now: datetime) -> Ebd:
    """Return what a tar holds, once its signature is believed.

    Raises:
        EbdError: with the ResultCode it is to be answered with; nothing of it may be used.
    """
    members = _members(data)
    names = [found["body"] for name in members if (found := _MEMBER.fullmatch(name)) and found["body"]]
    if len(names) != 1:
        raise EbdError(UNREADABLE, "body")
    try:
        return await _believed(members, names[0], trust, now)
    except EbdError as error:
        raise EbdError(error.result, error.why, names[0]) from None


async def _believed(members: Mapping[str, bytes], id_: str, trust: Trust, now: datetime) -> Ebd:
    body, signature = members[f"EBDB_{id_}.xml"], members.get(f"EBDS_EBDB_{id_}.xml")
    if signature is None:
        raise EbdError(UNSIGNED, "unsigned")
    signs = _signature(signature)
    if signs.related_ebd.ebd_id != id_:
        raise EbdError(UNSIGNED, "signs_another")
    pin = await trust.check(body, signs, now)
    recordings = [(name.removeprefix("EBDR_"), one) for name, one in members.items() if name.startswith("EBDR_")]
    ebd = _ebd(body, recordings[0] if recordings else None)
    if ebd.id != id_ or ebd.source != pin.owner:
        raise EbdError(UNSIGNED, "signs_another")
    return ebd


def _signature(data: bytes) -> Signature:
    """Read an EBDS file; whatever is wrong with it, the package is unsigned."""
    if len(data) > _LARGEST_SIGNATURE:  # it is read before anything is believed
        raise EbdError(UNSIGNED, "too_large")
    try:
        return convert(read(data, "Signature"), Signature)
    except EbdError as error:
        raise EbdError(UNSIGNED, error.why) from None


def _ebd(data: bytes, recording: tuple[str, bytes] | None) -> Ebd:
    found = read(data, "EBD")
    head = convert(found, Head)
    form = BODIES.get(head.ebd_type)
    if form is None:
        raise EbdError(OTHER, "type")
    if head.ebd_type not in found:
        raise EbdError(INCOMPLETE, "body")
    if len(BODIES.keys() & found.keys()) != 1:
        raise EbdError(UNREADABLE, "body")
    return Ebd(
        head.ebd_id, head.src.ebr_id, head.dest.ebr_id, at_of(head.ebd_time), convert(found[head.ebd_type], form),
        head.related_ebd.ebd_id if head.related_ebd else "", recording,
    )  # fmt: skip


def _members(data: bytes) -> dict[str, bytes]:
    """Return the files of a tar by name."""
    if len(data) > LARGEST:
        raise EbdError(UNREADABLE, "too_large")
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                if len(found) == _MEMBERS or not member.isreg() or member.issparse() or member.name in found:
                    raise EbdError(UNREADABLE, "member")
                if not _MEMBER.fullmatch(member.name) or member.size > LARGEST:
                    raise EbdError(UNREADABLE, "member")
                file = tar.extractfile(member)
                content = file.read() if file else b""
                if len(content) != member.size:
                    raise EbdError(UNREADABLE, "tar")
                found[member.name] = content
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, LookupError, RecursionError):
        # The last two: a sparse file that is cut off, and headers that are each about the next one.
        raise EbdError(UNREADABLE, "tar") from None
    return found
