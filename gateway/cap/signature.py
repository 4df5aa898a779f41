"""Signatures of CAP messages: verified strictly on the way in, made on the way out.

`take` (of `gateway.cap.check`) verifies before anything is read, and what is read afterwards is what was signed: the
tree rebuilt from the signed octets, never the bytes that came. Exactly one form is accepted, so that
nothing can be signed but the whole message: one Signature, the last child of the alert, with one Reference, URI="",
transformed by enveloped-signature and exclusive C14N without comments. (With comments, libraries differ on whether
URI="" includes them.) Comments and processing instructions are gone before: they say nothing in CAP.

**Source:** W3C XML Signature 1.1 (form, algorithms), Exclusive XML Canonicalization 1.0; OASIS CAP 1.2 section 3.3.2.1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from lxml import etree

from gateway.cap.certificate import Trust, fingerprint, to_der
from gateway.cap.finding import Malformed

if TYPE_CHECKING:
    from gateway.ports import Signer  # its imports have no place in the process that parses

DSIG = "http://www.w3.org/2000/09/xmldsig#"
ENVELOPED = DSIG + "enveloped-signature"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
_MORE, _ENC = "http://www.w3.org/2001/04/xmldsig-more#", "http://www.w3.org/2001/04/xmlenc#"
METHODS: dict[str, tuple[type, hashes.HashAlgorithm]] = {
    _MORE + f"{name}-sha{hash_.digest_size * 8}": (kind, hash_)
    for name, kind in (("ecdsa", ec.EllipticCurvePublicKey), ("rsa", rsa.RSAPublicKey))
    for hash_ in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
}
"""Algorithm → (kind of key, hash) of the signatures that are read."""
DIGESTS = {_ENC + "sha256": "sha256", _MORE + "sha384": "sha384", _ENC + "sha512": "sha512"}
CHAIN = 4  # certificates a message may bring
LINES = 65_535  # as far as libxml2 can be told to count
ATTRIBUTES = 64
"""Of one element. CAP has none; canonicalising many takes the square of their number."""

_DS = f"{{{DSIG}}}"
_SHAPE = {
    "Signature": ("SignedInfo", "SignatureValue", "KeyInfo"),
    "SignedInfo": ("CanonicalizationMethod", "SignatureMethod", "Reference"),
    "Reference": ("Transforms", "DigestMethod", "DigestValue"),
    "Transforms": ("Transform", "Transform"),
}
"""Children, in order. What is not named has none: no parameters, no Object, no second Reference."""
_HINTS = frozenset({_DS + "X509Data", _DS + "KeyName", _DS + "KeyValue"})
# For octets we have written ourselves, of a message that was parsed before: nothing outside is ever opened.
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
_crowded = etree.XPath(f"boolean(//*[count(@*) > {ATTRIBUTES}])")
_ids = etree.XPath('//@*[local-name()="Id" or local-name()="ID" or local-name()="id"]', smart_strings=False)


class _Form(NamedTuple):
    """A signature of the one accepted form: algorithms, digest, value, and the certificates it brings (DER)."""

    method: str
    digest: str
    digest_value: bytes
    value: bytes
    chain: list[bytes]


class Verified(NamedTuple):
    """What was signed, the SHA-256 hex of its octets, and the fingerprint of the certificate that signed it."""

    root: etree._Element
    digest: str
    signer: str


def verify(root: etree._Element, trust: Trust, now: datetime) -> Verified | None:
    """Return what was signed for this sender, None where the message is unsigned and may be.

    `root` is an alert without comments, processing instructions and entities, as the reader parses it; it is used up.

    Raises:
        Malformed: the finding's code (signature_…) and what to do.
    """
    signature = _signature(root)
    if signature is None:
        if trust.required:
            raise missing(trust)
        return None
    form = _form(signature)
    ids: Any = _ids(root)
    if len(set(ids)) < len(ids):
        raise Malformed("signature_wrapped", "an Id stands twice in the message; leave all of them out")
    if _crowded(root):
        raise Malformed("signature_invalid", f"an element has more than {ATTRIBUTES} attributes; leave them out")
    certificate = trust.certificate(form.chain, now)
    octets = _octets(root, signature)
    digest = hashlib.new(DIGESTS[form.digest], octets, usedforsecurity=True).digest()
    whole = hmac.compare_digest(digest, form.digest_value)
    # SignedInfo alone, as its own document: what was signed is its canonical form, whatever stood around it.
    info = etree.fromstring(etree.tostring(signature[0], with_tail=False))
    if not (_fits(certificate, form, _canonical(info)) and whole):
        raise Malformed(
            "signature_invalid",
            "the signature does not match: the message was changed after signing, or signed with another key; sign it "
            "as the last step and send these very bytes",
        )
    signed = etree.fromstring(octets, _PARSER)
    if signed.tag != root.tag or next(signed.iter(_DS + "*"), None) is not None:
        raise Malformed("signature_wrapped", "the signature covers something else than the alert; sign the whole alert")
    _lines_of(root, signed)
    return Verified(signed, hashlib.sha256(octets).hexdigest(), fingerprint(to_der(certificate)))


def _octets(root: etree._Element, signature: etree._Element) -> bytes:
    """Take the signature out of the message (the enveloped transform); return the rest, canonical.

    The text behind the signature belongs to the alert and stays.
    """
    rest, before = signature.tail or "", signature.getprevious()
    root.remove(signature)
    if rest and before is not None:
        before.tail = (before.tail or "") + rest
    elif rest:
        root.text = (root.text or "") + rest
    return _canonical(root)


def _lines_of(came: etree._Element, signed: etree._Element) -> None:
    """Number the lines of what was signed as in what came: canonicalising joins some, and findings name them."""
    for element, original in zip(signed.iter("*"), came.iter("*"), strict=True):
        line: Any = original.sourceline  # the stubs call it an ellipsis
        element.sourceline = min(line or 0, LINES)  # type: ignore[assignment]  # as above


def _fits(certificate: x509.Certificate, form: _Form, signed_info: bytes) -> bool:
    """Whether the certificate's key made the signature."""
    key, (kind, hash_) = certificate.public_key(), METHODS[form.method]
    if not isinstance(key, kind):
        return False
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            size = (key.curve.key_size + 7) // 8
            if len(form.value) != 2 * size:  # r and s, each as long as the curve (XML Signature 1.1 section 6.4.3)
                return False
            r, s = (int.from_bytes(half, "big") for half in (form.value[:size], form.value[size:]))
            key.verify(encode_dss_signature(r, s), signed_info, ec.ECDSA(hash_))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(form.value, signed_info, padding.PKCS1v15(), hash_)
        else:
            return False
    except InvalidSignature:
        return False
    return True


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


def _form(signature: etree._Element) -> _Form:
    """Hold the signature to the one accepted form; return what it says."""
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
    algorithm, digested = str(method.get("Algorithm")), str(digest.get("Algorithm"))
    if algorithm not in METHODS or digested not in DIGESTS:
        raise Malformed("signature_weak", "sign by ecdsa-sha256 or rsa-sha256 (or 384, 512), with digest sha256 or up")
    return _Form(algorithm, digested, _decoded(digest_value), _decoded(value), _chain(key_info))


def _children(element: etree._Element) -> list[etree._Element]:
    """Return the children, which must be those of the form."""
    name = etree.QName(element).localname
    expected = _SHAPE.get(name, ())
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
    try:
        return etree.tostring(element, method="c14n", exclusive=True, with_comments=False)
    except etree.C14NError:
        raise Malformed(
            "signature_invalid", "a namespace is no full address, so there is no canonical form; correct it, then sign"
        ) from None


def _ds(name: str, *content: etree._Element | bytes, **attributes: str) -> etree._Element:
    """Return an element of XML Signature; bytes become its base64 text."""
    element = etree.Element(_DS + name, attributes, nsmap={"ds": DSIG})
    for each in content:
        if isinstance(each, bytes):
            element.text = base64.b64encode(each).decode()
        else:
            element.append(each)
    return element
