"""Encryption of names and addresses, and the keyed hash by which a number is found.

AES-256-GCM with a fresh 96-bit nonce per row; the hash is HMAC-SHA256 cut to 16 bytes. Both keys come from
one secret by HKDF, so a back-up of the database without the secret names nobody.
**Source:** NIST SP 800-38D (GCM), RFC 5869 (HKDF).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.errors import ConfigError

MOBILE = re.compile(r"1[0-9]{10}")
NORMAL = re.compile(r"\+861[0-9]{10}")
FULL_WIDTH = str.maketrans("０１２３４５６７８９＋－（）", "0123456789+-()")
# Address books and chat programs wrap copied numbers in invisible direction marks.
FILLING = re.compile(r"[\s()\-–—\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
BLOCK = 64  # bytes of SHA-256
ID_BITS = 62  # fits a signed 64-bit column and leaves room for a sign


class Secret(msgspec.Struct, array_like=True):
    """What is sealed of a person: name and address (E.164 number, or a push subscription as JSON)."""

    name: str
    address: str


decode_secret = msgspec.msgpack.Decoder(Secret).decode
encode_secret = msgspec.msgpack.Encoder().encode


def normal_phone(text: str) -> str:
    """Return a number in E.164.

    Raises:
        ValueError: not a mobile number: what it is instead, without the number.
    """
    if NORMAL.fullmatch(text):
        return text
    if MOBILE.fullmatch(text):
        return "+86" + text
    digits = FILLING.sub("", text.translate(FULL_WIDTH)).removeprefix("'")
    if re.search(r"[eE]\+?[0-9]+$", digits):
        raise ValueError("a number in scientific notation has lost digits; format the column as text")
    if digits.startswith("+") and not digits.startswith("+86"):
        if not re.fullmatch(r"\+[0-9]{7,15}", digits):
            raise ValueError("not a telephone number")
        return digits
    digits = re.sub(r"^(\+86|0086|86(?=1[0-9]{10}$))", "", digits)
    if not MOBILE.fullmatch(digits):
        raise ValueError(f"not an 11-digit mobile number ({len(digits)} characters)")
    return "+86" + digits


def normal_name(text: str) -> str:
    """Return a name as it is compared: composed, without the spaces that pad 张　伟 to three characters."""
    parts = unicodedata.normalize("NFC", text).split()
    return ("" if all(ord(part[0]) >= 0x2E80 for part in parts) else " ").join(parts)


class Vault:
    """Seals and opens secrets; hashes numbers. `secret` is 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise ConfigError("MINGLUO_SECRET_KEY must be base64 of exactly 32 bytes")
        self._cipher = AESGCM(_derive(secret, b"mingluo person"))
        # HMAC as RFC 2104 writes it, both halves copied for each hash: to set a key up costs more than a short message.
        key = _derive(secret, b"mingluo phone hash").ljust(BLOCK, b"\0")
        self._inner, self._outer = (hashlib.sha256(bytes(byte ^ pad for byte in key)) for pad in (0x36, 0x5C))

    @classmethod
    def of(cls, text: str, folder: Path) -> Vault:
        """Use the configured base64 secret, or the one kept in `folder` (made on first use, mode 600).

        Raises:
            ConfigError: not base64 of 32 bytes.
        """
        if text:
            return cls(_decoded(text))
        path = folder / "secret.key"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64encode(secrets.token_bytes(32)))
        return cls(_decoded(path.read_text("ascii", "replace").strip()))

    def seal(self, plain: bytes) -> bytes:
        """Encrypt."""
        nonce = secrets.token_bytes(12)
        return nonce + self._cipher.encrypt(nonce, plain, None)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt.

        Raises:
            ConfigError: sealed with another secret.
        """
        return self.open_all((sealed,))[0]

    def open_all(self, sealed: Iterable[bytes]) -> list[bytes]:
        """Decrypt many, in order.

        Raises:
            ConfigError: sealed with another secret.
        """
        decrypt = self._cipher.decrypt
        try:
            return [decrypt(one[:12], one[12:], None) for one in sealed]
        except InvalidTag:
            raise ConfigError("a directory row was encrypted with another MINGLUO_SECRET_KEY") from None

    def phone_hash(self, address: str) -> bytes:
        """Keyed hash of a number, equal for every way of writing it."""
        try:
            address = normal_phone(address)
        except ValueError:
            address = address.strip()
        return self._digest(address.encode(errors="surrogatepass"))[:16]

    def _digest(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()

    def person_id(self, address: str, name: str) -> int:
        """Return the id of the person with this address and name: 62 bits, the same at every import.

        It is keyed: from the id, even beside the stored hash of the number, nobody can try out names or numbers.
        """
        return self.identity(self.phone_hash(address), normal_name(name))

    def identity(self, phone_hash: bytes, name: str) -> int:
        """Return the id of the person with this normal name whose address has this hash; see `person_id`."""
        digest = self._digest(b"id\0" + phone_hash + name.encode())
        return int.from_bytes(digest[:8], "big") >> (64 - ID_BITS)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("MINGLUO_SECRET_KEY is not base64") from None


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=purpose).derive(secret)
