"""Signed warnings against the signature library alone: how much the whole way to an `Alert` adds to its verification.

(a) `cap.take`: parse, hold the signature to the one accepted form, choose the pinned certificate, verify, read what
was signed; (b) signxml's own `XMLVerifier().verify` of the same bytes with the same certificate. One process, one
thread, so CPU time is all there is; rounds alternate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway import cap
from gateway.bench.measure import COUNTY, SENDER, Spread, red_rain
from gateway.cap.certificate import to_der
from gateway.cap.signature import sign
from gateway.errors import ConfigError
from gateway.signer import FileSigner

MESSAGES = 50
VALID = timedelta(days=1)


class Signed(msgspec.Struct, frozen=True):
    """The result, as printed with --json. Rates are messages per second of CPU time."""

    messages: int
    rounds: int
    taken_s: Spread
    library_s: Spread
    ratio: Spread
    """Ours to the library's, within one round."""
    bench: str = "signed"


async def signed(messages: int = MESSAGES, rounds: int = 7) -> Signed:
    """Measure in this process.

    Raises:
        RuntimeError: a message we signed was not taken.
        ConfigError: the library is not installed.
    """
    try:  # a development dependency: the gateway itself does without
        from signxml.verifier import SignatureConfiguration, XMLVerifier
    except ImportError:
        raise ConfigError("signxml is missing, with which we compare: pip install 'mingluo[dev]'") from None
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(key, now)
    signer = FileSigner(key, (to_der(certificate),))
    data = [await sign(cap.write(red_rain(str(number), [f"{COUNTY}204"])), signer) for number in range(messages)]
    trust = cap.Trust(SENDER, frozenset({to_der(certificate)}), required=True)
    expected = SignatureConfiguration(location="./")

    def take(message: bytes) -> None:
        if cap.take(message, trust, now).alert is None:
            raise RuntimeError("a signed message was not taken")

    def verify(message: bytes) -> None:
        XMLVerifier().verify(message, x509_cert=certificate, expect_config=expected)

    _cpu_s(take, data), _cpu_s(verify, data)  # what is loaded once is not measured
    times = []
    for number in range(rounds):
        ways = (take, verify) if number % 2 else (verify, take)
        found = {way: _cpu_s(way, data) for way in ways}
        times.append((found[take], found[verify]))
    return Signed(
        messages,
        rounds,
        Spread.of(messages / ours for ours, _ in times),
        Spread.of(messages / library for _, library in times),
        Spread.of(library / ours for ours, library in times),
    )


def _cpu_s(way: Callable[[bytes], None], data: Sequence[bytes]) -> float:
    started = time.process_time()
    for message in data:
        way(message)
    return time.process_time() - started


def _certificate(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SENDER)])
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now - VALID, now + VALID
    )
    return builder.sign(key, hashes.SHA256())
