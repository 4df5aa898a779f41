"""Signatures of CAP messages: verified strictly on the way in, made on the way out.

`take` (of `gateway.cap.check`) verifies before anything is read, and what is read afterwards is what was signed: the
tree that signxml rebuilt from the signed octets, never the bytes that came. Exactly one form is accepted, so that
nothing can be signed but the whole message: one Signature, the last child of the alert, with one Reference, URI="",
transformed by enveloped-signature and exclusive C14N without comments. (With comments, libraries differ on whether
URI="" includes them.) Comments and processing instructions are gone before: they say nothing in CAP.

**Source:** W3C XML Signature 1.1 (form, algorithms), Exclusive XML Canonicalization 1.0; OASIS CAP 1.2 section 3.3.2.1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, XMLVerifier

from gateway.cap.certificate import Trust, fingerprint, to_der
from gateway.cap.finding import Malformed

if TYPE_CHECKING:
    from gateway.ports import Signer  # its imports have no place in the process that parses

DSIG = "http://www.w3.org/2000/09/xmldsig#"
ENVELOPED = DSIG + "enveloped-signature"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
METHODS = frozenset({
    SignatureMethod.ECDSA_SHA256, SignatureMethod.ECDSA_SHA384, SignatureMethod.ECDSA_SHA512,
    SignatureMethod.RSA_SHA256, SignatureMethod.RSA_SHA384, SignatureMethod.RSA_SHA512,
})  # fmt: skip
DIGESTS = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})
CHAIN = 4  # certificates a message may bring

_DS = f"{{{DSIG}}}"
_FORM = {
    "Signature": ("SignedInfo", "SignatureValue", "KeyInfo"),
    "SignedInfo": ("CanonicalizationMethod", "SignatureMethod", "Reference"),
    "Reference": ("Transforms", "DigestMethod", "DigestValue"),
    "Transforms": ("Transform", "Transform"),
}
"""Children, in order. What is not named has none: no parameters, no Object, no second Reference."""
_HINTS = frozenset({_DS + "X509Data", _DS + "KeyName", _DS + "KeyValue"})
_ids = etree.XPath('//@*[local-name()="Id" or local-name()="ID" or local-name()="id"]', smart_strings=False)


class _Verifier(XMLVerifier):
    """Takes the tree as the reader has just parsed it; the library copies what it changes."""

    def get_root(self, data: etree._Element) -> etree._Element:
        """Return what was given."""
        return data


class Verified(NamedTuple):
    """What was signed, the SHA-256 hex of its octets, and the fingerprint of the certificate that signed it."""

    root: etree._Element
    digest: str
    signer: str


def verify(root: etree._Element, trust: Trust, now: datetime) -> Verified | None:
    """Return what was signed for this sender, None where the message is unsigned and may be.

    `root` is an alert without comments, processing instructions and entities, as the reader parses it.

    Raises:
        Malformed: the finding's code (signature_…) and what to do.
    """
    signature = _signature(root)
    if signature is None:
        if trust.required:
            raise missing(trust)
        return None
    method, chain = _form(signature)
    ids: Any = _ids(root)
    if len(set(ids)) < len(ids):
        raise Malformed("signature_wrapped", "an Id stands twice in the message; leave all of them out")
    certificate = trust.certificate(chain, now)
    expected = SignatureConfiguration(
        location="./", signature_methods=frozenset({method}), digest_algorithms=DIGESTS, verification_time=now,
        ignore_ambiguous_key_info=True,  # a KeyValue is never used: the pinned certificate is
    )  # fmt: skip
    try:
        # The schema would allow more than `_form` does.
        found = _Verifier().verify(root, x509_cert=certificate, expect_config=expected, validate_schema=False)
    except (SignXMLException, etree.LxmlError, ValueError):
        raise Malformed(
            "signature_invalid",
            "the signature does not match: the message was changed after signing, or signed with another key; sign it "
            "as the last step and send these very bytes",
        ) from None
    assert not isinstance(found, list)
    signed = found.signed_xml
    if signed is None or signed.tag != root.tag or next(signed.iter(_DS + "*"), None) is not None:
        raise Malformed("signature_wrapped", "the signature covers something else than the alert; sign the whole alert")
    digest = hashlib.sha256(found.signed_data).hexdigest()
    return Verified(signed, digest, fingerprint(to_der(certificate)))


def missing(trust: Trust) -> Malformed:
    """Return the refusal of an unsigned message."""
    return Malformed(
        "signature_missing", f"{trust.sender} must sign its messages and this one is unsigned; send signed CAP XML"
    )


def _signature(root: etree._Element) -> etree._Element | None:
    """Return the only signature, at the only place it may stand."""
    first = next(root.iter(_DS + "*"), None)
    if first is None:
        return None
    if first is not root[-1] or first.tag != _DS + "Signature":
        raise Malformed(
            "signature_wrapped", "a part of a signature stands elsewhere than in one Signature, last in the alert; "
            "sign the whole alert once",
        )  # fmt: skip
    return first


def _form(signature: etree._Element) -> tuple[SignatureMethod, list[bytes]]:
    """Hold the signature to the one accepted form; return its method and the certificates it brings."""
    info, value, key_info = _children(signature)
    canonical, method, reference = _children(info)
    transforms, digest, digest_value = _children(reference)
    for leaf in (*_children(transforms), canonical, method, digest, value, digest_value):
        _children(leaf)
    if reference.get("URI") != "" or [each.get("Algorithm") for each in transforms] != [ENVELOPED, EXCLUSIVE]:
        raise Malformed(
            "signature_wrapped", 'the signature must cover the whole alert: one Reference with URI="", transformed by '
            "enveloped-signature and exclusive C14N without comments, nothing else",
        )  # fmt: skip
    if canonical.get("Algorithm") != EXCLUSIVE:
        raise Malformed("signature_invalid", "canonicalise SignedInfo by exclusive C14N without comments")
    found = next((each for each in METHODS if each.value == method.get("Algorithm")), None)
    if found is None or digest.get("Algorithm") not in {each.value for each in DIGESTS}:
        raise Malformed("signature_weak", "sign by ecdsa-sha256 or rsa-sha256 (or 384, 512), with digest sha256 or up")
    for leaf in (value, digest_value):
        _decoded(leaf)
    return found, _chain(key_info)


def _children(element: etree._Element) -> list[etree._Element]:
    """Return the children, which must be those of the form."""
    name = etree.QName(element).localname
    expected = _FORM.get(name, ())
    if [child.tag for child in element] != [_DS + each for each in expected]:
        inside = f"exactly {', '.join(expected)}" if expected else "no elements"
        raise Malformed("signature_invalid", f"{name} must hold {inside}; sign the whole alert in the simplest form")
    return list(element)


def _chain(key_info: etree._Element) -> list[bytes]:
    """Return the certificates (DER), the signer's first. They are hints: what counts is pinned."""
    brought = [each for data in key_info if data.tag == _DS + "X509Data" for each in data.iter(_DS + "X509Certificate")]
    if {child.tag for child in key_info} - _HINTS or not 1 <= len(brought) <= CHAIN:
        raise Malformed(
            "signature_invalid",
            f"KeyInfo must hold X509Data with the signer's X509Certificate first, {CHAIN} at most; add it",
        )
    return [_decoded(each) for each in brought]


def _decoded(element: etree._Element) -> bytes:
    try:
        found = base64.b64decode("".join((element.text or "").split()), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        raise Malformed("signature_invalid", f"{etree.QName(element).localname} is not base64; sign the message again")
    return found


# --- signing ----------------------------------------------------------------------------------------------------------


async def sign(message: bytes, signer: Signer) -> bytes:
    """Return a message of `gateway.cap.write` with an enveloped signature, as UTF-8 XML."""
    root = etree.fromstring(message)
    reference = _ds(
        "Reference",
        _ds("Transforms", _ds("Transform", Algorithm=ENVELOPED), _ds("Transform", Algorithm=EXCLUSIVE)),
        _ds("DigestMethod", Algorithm=signer.digest_algorithm),
        _ds("DigestValue", signer.digest(_canonical(root))),
        URI="",
    )
    info = _ds(
        "SignedInfo",
        _ds("CanonicalizationMethod", Algorithm=EXCLUSIVE),
        _ds("SignatureMethod", Algorithm=signer.algorithm),
        reference,
    )
    value = await signer.sign(_canonical(info))
    data = _ds("X509Data", *(_ds("X509Certificate", each) for each in signer.chain))
    root.append(_ds("Signature", info, _ds("SignatureValue", value), _ds("KeyInfo", data)))
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True)


def _canonical(element: etree._Element) -> bytes:
    return etree.tostring(element, method="c14n", exclusive=True, with_comments=False)


def _ds(name: str, *content: etree._Element | bytes, **attributes: str) -> etree._Element:
    """Return an element of XML Signature; bytes become its base64 text."""
    element = etree.Element(_DS + name, attributes, nsmap={"ds": DSIG})
    for each in content:
        if isinstance(each, bytes):
            element.text = base64.b64encode(each).decode()
        else:
            element.append(each)
    return element
