"""SM2 signatures over SM3: the curve from `gmalg`, the digest from OpenSSL where it has one. Used by `_ebd_signature`.

The digest matters: in pure Python it costs 6 µs a byte, so that whoever sends four megabytes would hold a processor for
half a minute before anything of it is believed. OpenSSL takes 15 ms.

**Source:** GB/T 32918.2 (SM2), GB/T 32918.5 (its curve), GB/T 32905 (SM3).
"""

from __future__ import annotations

import hashlib

from gmalg import SM2, SM3
from gmalg.ellipticcurve import ECDLP
from gmalg.errors import GMError
from gmalg.sm2 import SM2Core, bytes_to_point

USER = b"1234567812345678"  # the identity the standard gives to whoever has agreed on no other
RAW = 64  # bytes of r and s side by side
ORDER = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
_CURVE = ECDLP(
    0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF,
    0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFC,
    0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93,
    (
        0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7,
        0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0,
    ),
    ORDER,
)


class OpenSslSm3:
    """SM3 as `gmalg` asks for it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._digest = hashlib.new("sm3")

    def update(self, data: bytes) -> None:
        """Add data."""
        self._digest.update(data)

    def value(self) -> bytes:
        """Return the 32 bytes."""
        return self._digest.digest()


def _fast() -> bool:
    """Whether OpenSSL has it: some are built without, and name it all the same."""
    try:
        hashlib.new("sm3")
    except ValueError:
        return False
    return True


FAST = _fast()


def _core() -> SM2Core:
    # One for each signature: it keeps the state of its digest, and two threads would spoil each other's.
    return SM2Core(_CURVE, OpenSslSm3() if FAST else SM3())


def sm3(data: bytes) -> bytes:
    """Return the digest of data."""
    digest = OpenSslSm3() if FAST else SM3()
    digest.update(data)
    return bytes(digest.value())


def public_of(key: bytes) -> bytes:
    """Return the public key, uncompressed."""
    return bytes(SM2(key).generate_pk(key))


def sign(key: bytes, public: bytes, data: bytes) -> bytes:
    """Return r and s side by side."""
    r, s = _core().sign(data, int.from_bytes(key, "big"), USER, bytes_to_point(public))
    return bytes(r.to_bytes(RAW // 2, "big") + s.to_bytes(RAW // 2, "big"))


def verifies(public: bytes, data: bytes, raw: bytes) -> bool:
    """Whether r and s are this key's signature of the data."""
    r, s = int.from_bytes(raw[: RAW // 2], "big"), int.from_bytes(raw[RAW // 2 :], "big")
    try:
        return bool(_core().verify(data, r, s, USER, bytes_to_point(public)))
    except (GMError, ValueError, ArithmeticError):  # r or s is no number of the curve's order
        return False
