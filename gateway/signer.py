"""The keys that sign what we publish: `keys/NAME.key` and `keys/NAME.crt` under the data folder.

The certificate's own dates are the schedule. The youngest one signs that has been valid for an hour (receivers' clocks
differ), so a key that was made with a later beginning takes over by itself, and receivers can pin its certificate
before. A retired key is deleted; its certificate stays published, for what it signed is still verified with it.

The API asks `Keys` for every message it shows; `mingluo keys` makes and retires. Files are read once, at start. A
hardware box is another `Signer` among those given to `Keys`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway import cap
from gateway.cap.certificate import load, to_der, to_pem, weakness
from gateway.errors import ConfigError, Refused
from gateway.model import Alert
from gateway.ports import Signer

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
SETTLED = timedelta(hours=1)
SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"
RSA = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
CURVES: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "secp256r1": ("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256", hashes.SHA256()),
    "secp384r1": ("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384", hashes.SHA384()),
    "secp521r1": ("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512", hashes.SHA512()),
}
"""Signature algorithm by curve: the hash is as strong as the curve."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class FileSigner:
    """A key from a file: RSA, or one of the curves."""

    key: PrivateKey
    chain: tuple[bytes, ...]

    digest_algorithm = SHA256

    @property
    def algorithm(self) -> str:
        """XML Signature URI of the method that fits the key."""
        return RSA if isinstance(self.key, rsa.RSAPrivateKey) else CURVES[self.key.curve.name][0]

    def digest(self, data: bytes) -> bytes:
        """SHA-256."""
        return hashlib.sha256(data).digest()

    async def sign(self, data: bytes) -> bytes:
        """Sign at once: it takes a tenth of a millisecond, on P-256."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        # Deterministic (RFC 6979): the same message stays the same bytes, so that a reader's ETag holds.
        method = ec.ECDSA(CURVES[self.key.curve.name][1], deterministic_signing=True)
        r, s = decode_dss_signature(self.key.sign(data, method))
        size_bytes = (self.key.key_size + 7) // 8
        return r.to_bytes(size_bytes, "big") + s.to_bytes(size_bytes, "big")


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of the folder: its certificates, its own first, and its key; None once it was retired."""

    name: str
    certificates: tuple[x509.Certificate, ...]
    key: PrivateKey | None


class Keys:
    """All keys of an installation. `retired` holds certificates (DER) whose keys are gone."""

    def __init__(self, signers: Iterable[Signer] = (), retired: Iterable[bytes] = ()) -> None:
        self.signers = tuple(signers)
        self._retired = tuple(retired)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the folder; it may be missing.

        Raises:
            ConfigError: naming the file and the fix.
        """
        entries = read(folder)
        chains = {entry.name: tuple(map(to_der, entry.certificates)) for entry in entries}
        return cls(
            [FileSigner(entry.key, chains[entry.name]) for entry in entries if entry.key],
            [chains[entry.name][0] for entry in entries if not entry.key],
        )

    def active(self, now: datetime) -> Signer | None:
        """Return what signs now; None where nothing is to be signed yet.

        Raises:
            Refused: 503 every key has expired. What receivers cannot trust is not published as if nothing were wrong.
        """
        dates = [(load(one.chain[0]), one) for one in self.signers]
        begun = [(found, one) for found, one in dates if found.not_valid_before_utc <= now]
        valid = [(found, one) for found, one in begun if now <= found.not_valid_after_utc]
        settled = [pair for pair in valid if pair[0].not_valid_before_utc + SETTLED <= now]
        if begun and not valid:
            raise Refused(503, "no_valid_key", "every signing key has expired; the operator runs: mingluo keys new")
        youngest = max(settled or valid, key=lambda pair: pair[0].not_valid_before_utc, default=None)
        return youngest[1] if youngest else None

    async def publish(self, alert: Alert, now: datetime) -> bytes:
        """Return the alert as CAP XML, signed where there is a key.

        Raises:
            Refused: as `active`.
        """
        signer, message = self.active(now), cap.write(alert)
        return await cap.sign(message, signer) if signer else message

    def certificates(self) -> list[x509.Certificate]:
        """Return what receivers pin: certificates that sign, will sign or have signed, the youngest first."""
        found = map(load, (*(one.chain[0] for one in self.signers), *self._retired))
        return sorted(found, key=lambda one: one.not_valid_before_utc, reverse=True)


# --- files ------------------------------------------------------------------------------------------------------------


def read(folder: Path) -> list[Entry]:
    """Return what is in the folder, by name.

    Raises:
        ConfigError: naming the file and the fix.
    """
    names = sorted({path.stem for path in folder.glob("*") if path.suffix in (".key", ".crt")})
    return [_entry(folder, name) for name in names]


def _entry(folder: Path, name: str) -> Entry:
    path, beside = folder / f"{name}.key", folder / f"{name}.crt"
    try:
        certificates = tuple(x509.load_pem_x509_certificates(beside.read_bytes()))
    except FileNotFoundError:
        raise ConfigError(f"keys/{path.name}: its certificate {beside.name} is missing; put it beside") from None
    except ValueError:
        raise ConfigError(f"keys/{beside.name}: no certificate in PEM; restore it, or retire the key") from None
    if not path.exists():
        return Entry(name, certificates, None)
    if path.stat().st_mode & 0o007:
        raise ConfigError(f"keys/{path.name}: anybody on this machine may read it; chmod 600, or make a new key")
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        raise ConfigError(f"keys/{path.name}: no unencrypted private key in PEM; restore it, or remove it") from None
    if weak := weakness(certificates[0]):
        raise ConfigError(f"keys/{beside.name}: {weak}")
    if not isinstance(key, PrivateKey) or _public(key) != _public(certificates[0]):
        raise ConfigError(f"keys/{beside.name}: is not the certificate of {path.name}; put its own first in the file")
    return Entry(name, certificates, key)


def _public(held: PrivateKey | x509.Certificate) -> bytes:
    return held.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def create(folder: Path, name: str, subject: str, begins: datetime, days: int) -> Entry:
    """Make a P-256 key and a certificate of its own that signs from `begins` on.

    Raises:
        ConfigError: the name is taken, or none.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name}: name a key in small letters, digits and hyphens")
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    usage = dict.fromkeys(
        ("key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - SETTLED)
        .not_valid_after(begins + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, content_commitment=True, **usage), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        _write(folder / f"{name}.crt", to_pem(certificate).encode(), 0o644)
        _write(
            folder / f"{name}.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600
        )  # fmt: skip
    except FileExistsError:
        raise ConfigError(f"{name}: there is such a key already, or was; choose another name") from None
    return Entry(name, (certificate,), key)


def _write(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def retire(folder: Path, name: str) -> None:
    """Delete a key; its certificate stays.

    Raises:
        ConfigError: there is no such key.
    """
    path = folder / f"{name}.key"
    if not NAME.fullmatch(name) or not path.exists():
        raise ConfigError(f"{name}: no such key; see: mingluo keys list")
    path.unlink()
