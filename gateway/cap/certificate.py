"""Certificates: whose signature counts for one sender, and which keys are too weak to count.

A certificate inside a message proves nothing: anybody can make one in any name. What counts stands in the policy
(`trust.toml`): the sender's own certificate, or an authority together with the one subject it may vouch for. Several
may stand side by side, so that a new key and the old one overlap.

**Source:** RFC 5280 (certificates and chains).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import (
    ClientVerifier,
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from gateway.cap.finding import Malformed

CURVES = ("secp256r1", "secp384r1", "secp521r1")
RSA_BITS = 2048


class Authority(NamedTuple):
    """An authority (DER), and the common name it may vouch for: others of its certificates are other bodies'."""

    certificate: bytes
    subject: str


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count for one sender. `pinned` holds certificates (DER); `required`: unsigned is refused."""

    sender: str
    pinned: frozenset[bytes] = frozenset()
    authorities: tuple[Authority, ...] = ()
    required: bool = False

    def certificate(self, chain: Sequence[bytes], now: datetime) -> x509.Certificate:
        """Return the certificate that signs for this sender. `chain` comes with the message, its first is the signer's.

        Raises:
            Malformed: signature_untrusted, signature_expired or signature_weak.
        """
        if not self.pinned and not self.authorities:
            raise Malformed(
                "signature_untrusted",
                f"no certificate is pinned for {self.sender}; the operator adds it to trust.toml: mingluo cap pin",
            )
        found = load(chain[0]) if chain[0] in self.pinned else self._vouched(chain, now)
        if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
            raise _expired(found)
        if weak := weakness(found):
            raise Malformed("signature_weak", weak)
        return found

    def _vouched(self, chain: Sequence[bytes], now: datetime) -> x509.Certificate:
        """Return the first certificate of the chain where an authority vouches for it, as this sender's."""
        refused = Malformed(
            "signature_untrusted",
            f"the certificate {fingerprint(chain[0])[:16]} is not pinned for {self.sender}; sign with the one that is, "
            "or have the operator add it to trust.toml: mingluo cap pin",
        )
        try:
            found, *between = map(x509.load_der_x509_certificate, chain)
            named = [authority for authority in self.authorities if authority.subject == common_name(found)]
        except ValueError:
            raise refused from None
        for authority in named:
            try:
                _verifier(authority.certificate, now).verify(found, between)
            except (VerificationError, ValueError, UnsupportedAlgorithm):
                continue
            return found
        if named and not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
            raise _expired(found)
        raise refused


def _expired(found: x509.Certificate) -> Malformed:
    begins, ends = found.not_valid_before_utc.isoformat(), found.not_valid_after_utc.isoformat()
    return Malformed(
        "signature_expired", f"the signing certificate is valid from {begins} to {ends}; sign with the present one"
    )


def _may_sign(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.digital_signature:
        raise ValueError("the certificate is not made for signatures")


def _verifier(authority: bytes, now: datetime) -> ClientVerifier:
    signers = ExtensionPolicy.permit_all().may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)
    builder = PolicyBuilder().store(Store([load(authority)])).time(now)
    return builder.extension_policies(
        ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=signers
    ).build_client_verifier()


@lru_cache(maxsize=1024)
def load(der: bytes) -> x509.Certificate:
    """Return a certificate of ours: of the policy, or of a key. Kept, so that no message pays for reading it again.

    Raises:
        ValueError: not a certificate.
    """
    return x509.load_der_x509_certificate(der)


def from_pem(text: str) -> x509.Certificate:
    """Return the one certificate of a PEM text.

    Raises:
        ValueError: not exactly one certificate.
    """
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        found = []
    if len(found) != 1:
        raise ValueError("not one certificate in PEM; paste it from BEGIN CERTIFICATE to END CERTIFICATE")
    return found[0]


def to_pem(certificate: x509.Certificate) -> str:
    """Write a certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM).decode()


def to_der(certificate: x509.Certificate) -> bytes:
    """Return the certificate's own bytes."""
    return certificate.public_bytes(Encoding.DER)


def fingerprint(der: bytes) -> str:
    """SHA-256 hex of a certificate, as `openssl x509 -fingerprint -sha256` shows it without colons."""
    return hashlib.sha256(der).hexdigest()


def common_name(certificate: x509.Certificate) -> str:
    """Return the subject's common name, "" where it has none or several."""
    found = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def weakness(certificate: x509.Certificate) -> str:
    """Return why the certificate's key does not count, with the fix; "" where it does."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, rsa.RSAPublicKey):
        return "" if key.key_size >= RSA_BITS else f"the RSA key has {key.key_size} bits; use {RSA_BITS} or more"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
        return ""
    return f"the certificate's key is of a kind that is not read; use RSA or one of the curves {', '.join(CURVES)}"


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether the certificate may vouch for others (basic constraints and key usage say so)."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return constraints.ca and usage.key_cert_sign
