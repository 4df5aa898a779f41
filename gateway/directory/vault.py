"""Encryption of names and addresses, and the keyed hash by which a number is found.

AES-256-GCM with a fresh 96-bit nonce per row; the hash is HMAC-SHA256 cut to 16 bytes. Both keys come from
one secret by HKDF, so a back-up of the database without the secret names nobody.
**Source:** NIST SP 800-38D (GCM), RFC 5869 (HKDF).
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.errors import ConfigError

MOBILE = re.compile(r"1\d{10}")
FULL_WIDTH = str.maketrans("０１２３４５６７８９＋", "0123456789+")


def normal_phone(text: str) -> str:
    """Return a number in E.164.

    Raises:
        ValueError: not a mobile number: what it is instead, without the number.
    """
    digits = re.sub(r"[\s()\-–—]", "", text.translate(FULL_WIDTH)).removeprefix("'")
    if re.search(r"[eE]\+?\d+$", digits):
        raise ValueError("a number in scientific notation has lost digits; format the column as text")
    if digits.startswith("+") and not digits.startswith("+86"):
        if not re.fullmatch(r"\+\d{7,15}", digits):
            raise ValueError("not a telephone number")
        return digits
    digits = re.sub(r"^(\+86|0086|86(?=1\d{10}$))", "", digits)
    if not MOBILE.fullmatch(digits):
        raise ValueError(f"not an 11-digit mobile number ({len(digits)} characters)")
    return "+86" + digits


class Vault:
    """Seals and opens secrets; hashes numbers. `secret` is 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise ConfigError("MINGLUO_SECRET_KEY must be base64 of exactly 32 bytes")
        self._cipher = AESGCM(_derive(secret, b"mingluo person"))
        self._hash_key = _derive(secret, b"mingluo phone hash")

    @classmethod
    def of(cls, text: str, folder: Path) -> Vault:
        """Use the configured base64 secret, or the one kept in `folder` (made on first use, mode 600)."""
        if text:
            return cls(base64.b64decode(text))
        path = folder / "secret.key"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64encode(secrets.token_bytes(32)))
        return cls(base64.b64decode(path.read_bytes()))

    def seal(self, plain: bytes) -> bytes:
        """Encrypt."""
        nonce = secrets.token_bytes(12)
        return nonce + self._cipher.encrypt(nonce, plain, None)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt.

        Raises:
            ConfigError: sealed with another secret.
        """
        try:
            return self._cipher.decrypt(sealed[:12], sealed[12:], None)
        except InvalidTag:
            raise ConfigError("a directory row was encrypted with another MINGLUO_SECRET_KEY") from None

    def phone_hash(self, address: str) -> bytes:
        """Keyed hash of a number, equal for every way of writing it."""
        try:
            address = normal_phone(address)
        except ValueError:
            address = address.strip()
        return hmac.digest(self._hash_key, address.encode(), "sha256")[:16]


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=purpose).derive(secret)
