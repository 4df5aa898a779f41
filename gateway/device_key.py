"""The keys that sign what loudspeakers are told: `keys/device/BEGINNING.key` under the data folder, Ed25519.

A file's name says from when on it signs (UTC): the youngest that has begun does. Devices pin the public key when they
are installed, and up to two of them, so that the next key is pinned everywhere before it begins. Every hub of a
cluster needs the same folder. `mingluo keys device` makes and shows them; an embedded gateway makes its first one.

**Source:** RFC 7515 (JWS), RFC 8037 (Ed25519 in JOSE), RFC 7638 (thumbprints).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.channel import Signed
from gateway.errors import ConfigError

NAME = "%Y%m%dT%H%M%SZ"
TYPE = "mingluo+json"
PINS = 2  # a loudspeaker keeps at most so many
FIX = "make one with: mingluo keys device --new"


@dataclass(frozen=True)
class DeviceKey:
    """One key, and from when on it signs."""

    key: Ed25519PrivateKey
    begins: datetime

    @cached_property
    def x(self) -> str:
        """The public key's 32 bytes in base64url."""
        return encode(self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as JWK."""
        return {"kty": "OKP", "crv": "Ed25519", "x": self.x, "kid": self.id, "alg": "EdDSA", "use": "sig"}

    @property
    def pin(self) -> str:
        """The public key in one line, to be typed or scanned into a device."""
        return f"ed25519:{self.x}"

    @cached_property
    def id(self) -> str:
        """Thumbprint of the public key."""
        members = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": self.x}, separators=(",", ":"))
        return encode(hashlib.sha256(members.encode()).digest())

    @cached_property
    def protected(self) -> str:
        """The header of everything it signs, in base64url."""
        return encode(json.dumps({"alg": "EdDSA", "kid": self.id, "typ": TYPE}, separators=(",", ":")).encode())

    def sign(self, payload: bytes) -> Signed:
        """Sign at once: it takes less than a tenth of a millisecond."""
        text = encode(payload)
        return Signed(text, self.protected, encode(self.key.sign(f"{self.protected}.{text}".encode())))


class DeviceKeys:
    """All keys of an installation, the youngest first."""

    def __init__(self, keys: Sequence[DeviceKey] = ()) -> None:
        self.keys = sorted(keys, key=lambda one: one.begins, reverse=True)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the folder; it may be missing.

        Raises:
            ConfigError: naming the file and the fix.
        """
        return cls([_read(path) for path in sorted(folder.glob("*.key"))])

    @property
    def pins(self) -> list[str]:
        """The public keys, each in one line."""
        return [one.pin for one in self.keys]

    def sign(self, payload: bytes, now: datetime) -> Signed:
        """Sign with the youngest key that has begun; where a clock was set back and none has, with the oldest.

        Raises:
            ConfigError: there is none; devices would refuse whatever they are told.
        """
        if not self.keys:
            raise ConfigError(f"keys/device: no key signs what loudspeakers are told; {FIX}")
        return next((one for one in self.keys if one.begins <= now), self.keys[-1]).sign(payload)


def keep(folder: Path, now: datetime, *, alone: bool) -> DeviceKeys:
    """Read the keys of a process that speaks to loudspeakers; one that is `alone` makes the first by itself.

    Raises:
        ConfigError: as `load`; or there is none, and the hubs of a cluster share theirs.
    """
    keys = DeviceKeys.load(folder)
    if keys.keys:
        return keys
    if not alone:
        raise ConfigError(f"keys/device: the hubs have no key to sign with; {FIX}; copy the folder to every hub")
    return DeviceKeys([create(folder, now)])


def create(folder: Path, begins: datetime) -> DeviceKey:
    """Make a key that signs from `begins` on.

    Raises:
        ConfigError: one begins at that very second.
    """
    made = DeviceKey(Ed25519PrivateKey.generate(), begins.astimezone(UTC).replace(microsecond=0))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{made.begins:{NAME}}.key"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"keys/device/{path.name}: there is such a key already; let the next begin later") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    return made


def encode(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _read(path: Path) -> DeviceKey:
    name = f"keys/device/{path.name}"
    try:
        begins = datetime.strptime(path.stem, NAME).replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(f"{name}: its name must say from when on it signs, as in 20270110T000000Z.key") from None
    if path.stat().st_mode & 0o007:
        raise ConfigError(f"{name}: anybody on this machine may read it; chmod 600, or make a new key")
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{name}: no unencrypted Ed25519 key in PEM; restore it, or remove it")
    return DeviceKey(key, begins)
