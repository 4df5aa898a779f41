"""Whose word a loudspeaker takes: Ed25519 public keys pinned at its installation.

**Source:** RFC 7515 §7.2.2 (flattened JWS), RFC 8037 (Ed25519 in JOSE), RFC 7638 (thumbprints).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from gateway.device.command import AnyCommand, read
from gateway.errors import ConfigError, MingluoError

TYPE = "mingluo+json"
PREFIX = "ed25519:"
CACHED = 256
Signed = tuple[str, str, str]
"""Payload, protected header and signature, as they came."""


class Untrusted(MingluoError):
    """The signature is missing, wrong, or of a key that is not pinned."""


class Trust:
    """The pinned keys. What was opened lately is remembered, for fleets that are all told the same."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {thumbprint(key): key for key in keys}
        self._opened: dict[Signed, AnyCommand] = {}

    @classmethod
    def pinned(cls, pins: Iterable[str]) -> Trust:
        """Read pins: each `ed25519:…` as the gateway prints it, or a public key in PEM, or a JWK or set of them.

        Raises:
            ConfigError: one is none of these, or there is none.
        """
        keys = [key for pin in pins for key in keys_of(pin)]
        if not keys:
            raise ConfigError("no key of the gateway is pinned: add `pins`, the line its operator gives you")
        return cls(keys)

    def open(self, signed: Signed) -> AnyCommand:
        """Return the command, if its signature holds.

        Raises:
            Untrusted: it does not.
            ValueError: it holds, and the payload is no command.
        """
        found = self._opened.get(signed)
        if found is None:
            found = self._opened[signed] = read(self._payload(*signed))
            if len(self._opened) > CACHED:
                del self._opened[next(iter(self._opened))]
        return found

    def _payload(self, payload: str, protected: str, signature: str) -> bytes:
        try:
            header = json.loads(decode(protected))
            key = self._keys[header.pop("kid")]
            # Anything more in the header (crit, b64, jwk) would change what the signature means.
            if header != {"alg": "EdDSA", "typ": TYPE}:
                raise Untrusted("the header is not ours")
            key.verify(decode(signature), f"{protected}.{payload}".encode("ascii"))
            return decode(payload)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, InvalidSignature):
            raise Untrusted("no pinned key has signed this") from None


def signed_of(frame: Mapping[str, Any]) -> Signed:
    """Return the signed part of a frame.

    Raises:
        Untrusted: there is none.
    """
    parts = frame.get("payload"), frame.get("protected"), frame.get("signature")
    if not all(isinstance(part, str) for part in parts):
        raise Untrusted("not signed")
    payload, protected, signature = parts
    return str(payload), str(protected), str(signature)


def claimed_id(signed: Signed) -> str:
    """Return the id an untrusted payload claims to be of, to name it in the refusal; "" where it has none."""
    try:
        found = json.loads(decode(signed[0]))["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    # Half a surrogate pair is a text to this reader and to no writer.
    return found[:64] if isinstance(found, str) and found.isprintable() else ""


def decode(text: str) -> bytes:
    """Read base64url without padding, and nothing else.

    Raises:
        ValueError: it is not that.
    """
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if encode(data) != text:
        raise ValueError("not in its shortest form")
    return data


def encode(data: bytes) -> str:
    """Write base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def thumbprint(key: Ed25519PublicKey) -> str:
    """Return the key's RFC 7638 thumbprint, its `kid`."""
    x = encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
    members = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":"))
    return encode(hashlib.sha256(members.encode()).digest())


def keys_of(pin: str) -> list[Ed25519PublicKey]:
    """Read one pin.

    Raises:
        ConfigError: it is none.
    """
    pin = pin.strip()
    try:
        if pin.startswith("-----BEGIN PUBLIC KEY-----"):
            key = load_pem_public_key(pin.encode())
            if not isinstance(key, Ed25519PublicKey):
                raise ValueError("not Ed25519")
            return [key]
        if pin.startswith("{"):
            found = json.loads(pin)
            return [_raw(_x(one)) for one in found.get("keys", [found])]
        if pin.startswith(PREFIX):
            return [_raw(pin.removeprefix(PREFIX))]
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error):
        pass
    raise ConfigError("a pinned key is no Ed25519 public key: write ed25519:… as the gateway prints it, PEM, or a JWK")


def _x(jwk: Mapping[str, Any]) -> str:
    if (jwk["kty"], jwk["crv"]) != ("OKP", "Ed25519") or "d" in jwk:
        raise ValueError("no public Ed25519 key")
    return str(jwk["x"])


def _raw(x: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(decode(x))
