"""`trust.toml`: whose signatures count, and who must sign.

Read by `gateway.policy.reading` with the other files, asked through `gateway.policy.Policy`. The certificates stand in
the file itself, so that the policy's digest covers them.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from gateway.cap.certificate import Authority, Trust, from_pem, is_authority, to_der, to_pem, weakness
from gateway.policy.table import Identifier, Table


def _certificate(text: str) -> str:
    """Return the PEM of a certificate that may be pinned, always written the same way."""
    certificate = from_pem(text)
    if weak := weakness(certificate):
        raise ValueError(weak)
    return to_pem(certificate)


class Pin(Table):
    """A certificate that signs for an issuer; with `subject`, an authority that vouches for that common name."""

    issuer: Identifier
    pem: Annotated[str, AfterValidator(_certificate)]
    subject: str = ""

    @model_validator(mode="after")
    def _vouches(self) -> Self:
        if self.subject and not is_authority(from_pem(self.pem)):
            raise ValueError("subject is for an authority (CA:TRUE, keyCertSign); remove it, or pin the authority")
        return self


class TrustFile(Table):
    """All pins, and the issuers whose unsigned messages are refused."""

    required: tuple[Identifier, ...] = ()
    pin: tuple[Pin, ...] = ()

    def of(self, issuer: str) -> Trust:
        """Return what counts for one issuer, by id."""
        rows = [(to_der(from_pem(row.pem)), row.subject) for row in self.pin if row.issuer == issuer]
        return Trust(
            issuer,
            frozenset(der for der, subject in rows if not subject),
            tuple(Authority(der, subject) for der, subject in rows if subject),
            issuer in self.required,
        )
