"""Keys, certificates and signed messages of foreign bodies, made by signxml and xmlsec1: never by our own signing.

Ask `signed` for a message as a body would send it, `certificate` for what it would hand over, `xmlsec1_verifies` for
what a receiver would say.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from lxml import etree
from manual_clock import START
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.signer import XMLSigner

RED = (Path(__file__).parent / "data" / "cap" / "red_rainstorm.xml").read_bytes()
DSIG = "http://www.w3.org/2000/09/xmldsig#"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
DAY = timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@cache
def key(name: str, kind: str = "secp256r1") -> Key:
    """Return a key of a body: a curve, or "rsa1024", "rsa2048"."""
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))
    return ec.generate_private_key(getattr(ec, kind.upper())())


def certificate(
    name: str,
    own: Key | None = None,
    *,
    issuer: str = "",
    begins: datetime = START - DAY,
    ends: datetime = START + 30 * DAY,
    usage: bool = True,
    authority: bool = False,
) -> x509.Certificate:
    """Return a certificate in a body's name: signed by itself, or by the authority `issuer`."""
    own = own or key(name)
    by = key(issuer or name) if issuer else own
    flags = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only", "crl_sign"), False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer or name))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=usage, key_cert_sign=authority, **flags), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    return builder.sign(by, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def der(found: x509.Certificate) -> bytes:
    return found.public_bytes(Encoding.DER)


def pem(found: x509.Certificate) -> str:
    return found.public_bytes(Encoding.PEM).decode()


def private(found: Key) -> bytes:
    return found.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Old(XMLSigner):
    """A signer that still knows SHA-1."""

    def check_deprecated_methods(self) -> None:
        """Allow everything."""


def signed(
    message: bytes = RED,
    by: Key | bytes | None = None,
    chain: list[x509.Certificate] | None = None,
    *,
    method: SignatureMethod = SignatureMethod.ECDSA_SHA256,
    digest: DigestAlgorithm = DigestAlgorithm.SHA256,
    c14n: str = EXCLUSIVE,
    **further: Any,
) -> bytes:
    """Return a message with an enveloped signature, by default of the body "bureau"."""
    own = by if by is not None else key("bureau")
    brought = chain if chain is not None else [certificate("bureau")]
    signer = Old(signature_algorithm=method, digest_algorithm=digest, c14n_algorithm=c14n)
    root = signer.sign(etree.fromstring(message), key=own, cert=brought or None, **further)
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True)


def resigned(message: bytes, change: Callable[[etree._Element], None], by: Key | None = None) -> bytes:
    """Change a signed message, then compute digest and signature anew, as the holder of the key could."""
    root = etree.fromstring(message)
    change(root)
    with TemporaryDirectory() as folder:
        (Path(folder) / "key.pem").write_bytes(private(by or key("bureau")))
        (Path(folder) / "message.xml").write_bytes(etree.tostring(root))
        command = ["xmlsec1", "--sign", "--privkey-pem", f"{folder}/key.pem", f"{folder}/message.xml"]
        return subprocess.run(command, check=True, capture_output=True).stdout


def xmlsec1_verifies(message: bytes, trusted: x509.Certificate, at: datetime = START) -> bool:
    """Whether a receiver's xmlsec1 that trusts this certificate takes the message."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "trusted.pem").write_text(pem(trusted))
        (Path(folder) / "message.xml").write_bytes(message)
        command = ["xmlsec1", "--verify", "--trusted-pem", f"{folder}/trusted.pem"]
        command += ["--verification-gmt-time", f"{at:%Y-%m-%d %H:%M:%S}", f"{folder}/message.xml"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
