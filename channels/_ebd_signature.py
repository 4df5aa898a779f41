"""Signatures of the emergency-broadcast platforms: SM2 over SM3, of the bytes of the EBDB file.

Used by `_ebd`. A `Signer` may be a cipher box, whose key never leaves it; `SoftSigner` holds the key itself. Whatever
is not signed by a certificate that was pinned by hand, is still valid and belongs to who claims to have sent it, is
refused: a warning that anybody could write is worse than none.

**Source:** GB/T 32918.2 (SM2), GB/T 32905 (SM3); the value's frame is that of a signature written by a platform in use.
Interoperability is unverified.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple, Protocol

from gmalg import SM2

from channels._ebd_form import UNSIGNED, Cert, EbdError, Related, Signature
from channels._sm2 import ORDER, RAW, public_of, sign, verifies


class Signer(Protocol):
    """One key and the names of its certificate (12 hexadecimal digits each)."""

    issuer: str
    serial: str

    async def sign(self, data: bytes) -> bytes:
        """Return r and s side by side, 64 bytes, for SM2 over SM3 of the data."""


class SoftSigner:
    """A key in this process."""

    def __init__(self, issuer: str, serial: str, key: bytes) -> None:
        self.issuer, self.serial = issuer, serial
        self._key, self._public = key, public_of(key)

    async def sign(self, data: bytes) -> bytes:
        """Sign in a thread: it takes some hundredths of a second."""
        return await asyncio.to_thread(sign, self._key, self._public, data)


class Pinned(NamedTuple):
    """A certificate that is believed: whose (EBRID), its public key, and from and until when."""

    issuer: str
    serial: str
    owner: str
    key: bytes
    since: datetime
    until: datetime


class Trust:
    """The certificates that are believed."""

    def __init__(self, pins: Iterable[Pinned]) -> None:
        self._pins = {(one.issuer.lower(), one.serial.lower()): one for one in pins}

    async def check(self, data: bytes, signature: Signature, now: datetime) -> Pinned:
        """Return whose signature of the data it is.

        Raises:
            EbdError: 4; nobody's who is believed.
        """
        cert = signature.signature_cert
        pin = self._pins.get((cert.issuer_id.lower(), cert.cert_sn.lower()))
        if pin is None:
            raise EbdError(UNSIGNED, "unknown_certificate")
        if not pin.since <= now < pin.until:
            raise EbdError(UNSIGNED, "expired_certificate")
        raw = _raw(signature)
        if not await asyncio.to_thread(verifies, pin.key, data, raw):
            raise EbdError(UNSIGNED, "wrong_signature")
        return pin


def _raw(signature: Signature) -> bytes:
    """Return r and s of a value; the time and the serial in front of them must be those beside it."""
    try:
        value = base64.b64decode(signature.signature_value, validate=True)
    except (binascii.Error, ValueError):
        raise EbdError(UNSIGNED, "wrong_signature") from None
    front = bytes.fromhex(signature.signature_time + signature.signature_cert.cert_sn)
    if len(value) == len(front) + RAW and value.startswith(front):
        return value[len(front) :]
    raise EbdError(UNSIGNED, "wrong_signature")


async def signed(data: bytes, ebd_id: str, signer: Signer, at: datetime) -> Signature:
    """Return the signature over an EBDB file."""
    time = f"{int(at.timestamp()):08x}"
    front = bytes.fromhex(time + signer.serial)
    return Signature(
        "1.0",
        Related(ebd_id),
        Cert("1", signer.issuer, signer.serial),
        time,
        "SM3",
        "SM2",
        base64.b64encode(front + await signer.sign(data)).decode(),
    )


def is_private(key: str) -> bool:
    """Whether it is a private key, in hex."""
    return bool(re.fullmatch(r"[0-9A-Fa-f]{64}", key)) and 0 < int(key, 16) < ORDER - 1


def is_public(key: str) -> bool:
    """Whether it is a public key, uncompressed, in hex."""
    return bool(re.fullmatch(r"04[0-9A-Fa-f]{128}", key)) and bool(SM2().verify_pk(bytes.fromhex(key)))
