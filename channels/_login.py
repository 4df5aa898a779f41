"""Login digests and clock texts that CMPP and SMGP share, and the comparison of secrets for all.

A timestamp goes into the digest as a TEXT of ten characters and onto the wire as an integer: in January to September
the text begins with a zero that the integer does not have. Whoever makes the text of the integer fails to log in for
nine months of the year.

Source: CMPP 3.0 section 8.4.1 (AuthenticatorSource, AuthenticatorISMG), SMGP 3.0.3 section 5.2.2.1
(AuthenticatorClient, AuthenticatorServer).
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta, timezone

CHINA = timezone(timedelta(hours=8))
"""The carriers' clocks; China keeps one time, without summer time."""


def stamp(at: datetime) -> str:
    """Return MMDDHHMMSS on the carriers' clock: always ten characters. `at` must be aware."""
    assert at.tzinfo is not None
    return f"{at.astimezone(CHINA):%m%d%H%M%S}"


def validity(until: datetime) -> str:
    """Return the absolute time YYMMDDhhmmsstnnp after which a gateway drops what it could not deliver.

    A phone that is switched on at noon must not receive last night's warning. Tenths of a second and the distance
    from UTC in quarters of an hour end the text (SMPP 3.3, to which CMPP and SMGP refer; SGIP fixes that end).
    """
    assert until.tzinfo is not None
    return f"{until.astimezone(CHINA):%y%m%d%H%M%S}032+"


def minute(text: str) -> datetime | None:
    """Read YYMMDDHHMM of a report, or None: a carrier's odd clock makes no report worthless."""
    if len(text) != 10 or not (text.isascii() and text.isdigit()):
        return None
    year, month, day, hour, minutes = (int(text[at : at + 2]) for at in range(0, 10, 2))
    try:
        return datetime(2000 + year, month, day, hour, minutes, tzinfo=CHINA)
    except ValueError:
        return None


def request_digest(source: str, gap: int, secret: str, timestamp: str) -> bytes:
    """Return MD5(source, `gap` zero octets, secret, timestamp text): proves that we know the secret."""
    return _md5(source.encode(), bytes(gap), secret.encode(), timestamp.encode())


def response_digest(status: int, status_octets: int, request: bytes, secret: str) -> bytes:
    """Return MD5(status, digest of the request, secret): proves that the answer is from whom we logged in to."""
    return _md5(status.to_bytes(status_octets, "big"), request, secret.encode())


def same(one: str | bytes, other: str | bytes) -> bool:
    """Compare secrets in a time that does not tell how much of them agrees."""
    return hmac.compare_digest(_octets(one), _octets(other))


def _octets(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _md5(*parts: bytes) -> bytes:
    # The specifications' own choice; said to be no protection of ours, so that hardened builds of OpenSSL allow it.
    return hashlib.md5(b"".join(parts), usedforsecurity=False).digest()
