"""Signatures on the way in: only what a pinned key signed, whole and unchanged, counts; everything else is refused.

Messages are signed by signxml and xmlsec1. Where a form is refused, the signature itself is good: the holder of the
key signed it so, and it is the form that must not be trusted.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_support import CITY, ISSUER, POLICY, Desk, opened
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from manual_clock import START, ManualClock
from signing import DAY, DSIG, EXCLUSIVE, RED, certificate, der, key, pem, private, resigned, signed, xmlsec1_verifies
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.verifier import SignatureConfiguration, VerifyResult, XMLVerifier

from gateway import cap
from gateway.api.shape import EXAMPLE
from gateway.cap.certificate import Authority, fingerprint
from gateway.cap.table import NAMESPACE
from gateway.errors import ConfigError, Refused
from gateway.model import Alert, Record
from gateway.policy import Policy
from gateway.policy.trust import Pin, TrustFile
from gateway.pool import ParsePool, Places

CONFIG = Path(__file__).parent.parent / "config"
PLACES = Places(Path(__file__).parent.parent / "config" / "regions")
BUREAU = certificate("bureau")
TRUST = cap.Trust("bureau", frozenset({der(BUREAU)}))
GOOD = signed(chain=[BUREAU])
PLAIN = cap.parse(RED)[0]
BY_PROVINCE = cap.Trust("bureau", authorities=(Authority(der(certificate("province", authority=True)), "bureau"),))
VOUCHED = der(certificate("bureau", issuer="province"))
SHA1 = "http://www.w3.org/2000/09/xmldsig#sha1"
DS = {"ds": DSIG, "cap": NAMESPACE}


def take(message: bytes, trust: cap.Trust = TRUST, now: datetime = START) -> cap.Taken:
    return cap.take(message, trust, now)


def refusal(message: bytes, trust: cap.Trust = TRUST, now: datetime = START) -> str:
    """The only finding's code; nothing was read."""
    taken = take(message, trust, now)
    assert (taken.alert, taken.signer, len(taken.findings)) == (None, "", 1)
    assert taken.findings[0].code in cap.FINDINGS
    return taken.findings[0].code


def accepted(message: bytes, trust: cap.Trust = TRUST, now: datetime = START) -> Alert:
    taken = take(message, trust, now)
    assert taken.alert is not None, taken.findings
    assert taken.signer
    return taken.alert


def find(root: etree._Element, path: str) -> etree._Element:
    found = root.find(path, DS)
    assert found is not None
    return found


def changed(change: Callable[[etree._Element], None], message: bytes = GOOD) -> bytes:
    """Change a signed message and leave its signature as it is."""
    root = etree.fromstring(message)
    change(root)
    return etree.tostring(root)


# --- what counts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "method", "digest"),
    [
        ("secp256r1", SignatureMethod.ECDSA_SHA256, DigestAlgorithm.SHA256),
        ("secp384r1", SignatureMethod.ECDSA_SHA384, DigestAlgorithm.SHA384),
        ("secp521r1", SignatureMethod.ECDSA_SHA512, DigestAlgorithm.SHA512),
        ("rsa2048", SignatureMethod.RSA_SHA256, DigestAlgorithm.SHA256),
        ("rsa2048", SignatureMethod.RSA_SHA512, DigestAlgorithm.SHA512),
    ],
)
def test_a_message_signed_with_a_pinned_key_is_read(
    kind: str, method: SignatureMethod, digest: DigestAlgorithm
) -> None:
    """What a body signed reaches the village as it was written, with the name of the key in the record."""
    own = key("bureau", kind)
    pinned = certificate("bureau", own)
    taken = take(
        signed(by=own, chain=[pinned], method=method, digest=digest), cap.Trust("bureau", frozenset({der(pinned)}))
    )
    assert taken == (PLAIN, [], taken.digest, fingerprint(der(pinned)))


def test_what_xmlsec1_signs_is_read() -> None:
    """Bodies sign with other software than ours; this one takes the same message."""
    message = resigned(GOOD, lambda root: None)
    assert message != GOOD
    assert accepted(message) == PLAIN
    assert xmlsec1_verifies(message, BUREAU)


def test_the_form_in_the_documentation_is_filled_in_by_xmlsec1_and_read(tmp_path: Path) -> None:
    """A bureau's engineer copies the block and the command."""
    page = (CONFIG.parent / "docs" / "signatures.md").read_text(encoding="utf-8")
    block = page.partition("```xml\n")[2].partition("```")[0]
    (tmp_path / "warning.xml").write_bytes(RED.replace(b"</alert>", block.encode() + b"</alert>"))
    (tmp_path / "key.pem").write_bytes(private(key("bureau")))
    (tmp_path / "cert.pem").write_text(pem(BUREAU))
    command = "xmlsec1 --sign --privkey-pem key.pem,cert.pem warning.xml"
    assert command in page
    done = subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    assert accepted(done.stdout) == PLAIN
    assert all(f"`{code}`" in page for code in cap.FINDINGS if code.startswith("signature_"))


def test_a_mistake_in_a_signed_message_is_found_at_the_line_it_was_sent_in() -> None:
    """Whoever mends it looks into the file they signed, not into its canonical form."""
    slip = RED.replace(b"<expires>", b"<expires>at ")
    for old, new in ((b"<scope>", b"<!-- a\nb --><scope\n>"), (b"<scope>", b"\n" * 70_000 + b"<scope>")):
        message = signed(slip.replace(old, new), chain=[BUREAU])
        [plain], [found] = cap.parse(message)[1], take(message).findings
        assert found.code == plain.code == "invalid_date"
        if new.count(b"\n") < 65_535:  # where libxml2 stops counting
            assert found.line == plain.line


@pytest.mark.parametrize("encoding", ["GB18030", "UTF-16", "US-ASCII"])
def test_the_encoding_is_not_part_of_the_signature(encoding: str) -> None:
    """A platform may store a signed message in the encoding of its country."""
    message: Any = etree.tostring(etree.fromstring(GOOD), encoding=encoding, xml_declaration=True)
    assert accepted(message) == PLAIN


def test_prefixed_cap_is_verified_like_any_other() -> None:
    """Several national feeds write cap:alert."""
    text = RED.decode().replace("<", "<c:").replace("<c:/", "</c:").replace("<c:?", "<?").replace("xmlns=", "xmlns:c=")
    assert accepted(signed(text.encode(), chain=[BUREAU])) == PLAIN


def test_comments_say_nothing_whether_signed_or_added_after() -> None:
    """Comments are not signed: a text split by one must be read whole, or a warning would lose its second half."""
    inside = RED.replace("山洪和".encode(), "山洪<!-- x -->和".encode())
    added = GOOD.replace("听从村里".encode(), "听从<!-- stay at home -->村里".encode())
    assert accepted(signed(inside, chain=[BUREAU])) == PLAIN
    assert accepted(added) == PLAIN
    assert added != GOOD


def test_an_authority_vouches_for_the_subject_it_is_pinned_with() -> None:
    """A province may issue its bodies' certificates, also through an authority between."""
    root, between = certificate("province", authority=True), certificate("city", issuer="province", authority=True)
    trust = cap.Trust("bureau", authorities=(Authority(der(root), "bureau"),))
    direct, indirect = certificate("bureau", issuer="province"), certificate("bureau", issuer="city")
    assert accepted(signed(chain=[direct]), trust) == PLAIN
    assert accepted(signed(chain=[indirect, between]), trust) == PLAIN
    assert refusal(signed(chain=[indirect]), trust) == "signature_untrusted"


def test_two_keys_overlap_while_a_body_changes_over() -> None:
    """No warning is lost in the night a key is changed: both count until the old row is deleted."""
    next_key = key("next")
    following = certificate("bureau", next_key)
    both = cap.Trust("bureau", frozenset({der(BUREAU), der(following)}))
    assert accepted(GOOD, both) == accepted(signed(by=next_key, chain=[following]), both) == PLAIN
    assert refusal(GOOD, cap.Trust("bureau", frozenset({der(following)}))) == "signature_untrusted"


def test_a_key_value_beside_the_certificate_is_ignored() -> None:
    """Some signers add it. It is never used, be it right or another's."""
    assert accepted(signed(chain=[BUREAU], always_add_key_value=True)) == PLAIN
    thief = key("thief")
    stolen = signed(by=thief, chain=[BUREAU], always_add_key_value=True)
    assert refusal(stolen) == "signature_invalid"


def test_a_message_signed_again_has_the_same_digest() -> None:
    """A sender that signs anew when it sends again is recognised: ECDSA never signs twice alike."""
    again = signed(chain=[BUREAU])
    assert again != GOOD
    assert take(again).digest == take(GOOD).digest != take(RED).digest


def test_unsigned_messages_pass_unless_they_must_be_signed() -> None:
    """The console and JSON go on working; a body that has said it signs is not spoken for by others."""
    must = replace(TRUST, required=True)
    form = json.dumps(EXAMPLE).encode()
    assert take(RED).alert == PLAIN
    assert take(form).alert is not None
    assert refusal(RED, must) == refusal(form, must) == "signature_missing"
    assert accepted(GOOD, must) == PLAIN


# --- whose key --------------------------------------------------------------------------------------------------------


def test_a_certificate_in_the_message_proves_nothing() -> None:
    """Anybody can make one in the bureau's name; that was the hole in the official validator."""
    thief = key("thief")
    forged = certificate("bureau", thief)
    assert refusal(signed(by=thief, chain=[forged])) == "signature_untrusted"
    assert refusal(signed(by=thief, chain=[forged, BUREAU])) == "signature_untrusted"
    assert refusal(signed(by=thief, chain=[BUREAU])) == "signature_invalid"


def test_a_signature_of_somebody_nobody_pinned_is_refused() -> None:
    """Fail closed: to take it as unsigned would make every signature worthless. The refusal says where to pin."""
    taken = take(GOOD, cap.Trust("bureau"))
    assert "mingluo cap pin" in taken.findings[0].message
    assert refusal(GOOD, cap.Trust("bureau")) == "signature_untrusted"


def test_another_bodys_key_does_not_speak_for_this_one() -> None:
    """County A must not warn in county B's name."""
    other = certificate("neighbour")
    assert refusal(signed(by=key("neighbour"), chain=[other])) == "signature_untrusted"
    province = certificate("province", authority=True)
    trust = cap.Trust("bureau", authorities=(Authority(der(province), "bureau"),))
    vouched = certificate("neighbour", issuer="province")
    assert refusal(signed(by=key("neighbour"), chain=[vouched]), trust) == "signature_untrusted"


def test_an_authority_of_the_same_name_is_not_the_authority() -> None:
    """Names are free; keys are not."""
    province = certificate("province", authority=True)
    trust = cap.Trust("bureau", authorities=(Authority(der(province), "bureau"),))
    impostor = certificate("province", key("thief"), authority=True)
    leaf = certificate("bureau", key("thief"))
    assert refusal(signed(by=key("thief"), chain=[leaf, impostor]), trust) == "signature_untrusted"
    no_authority = certificate("bureau", issuer="neighbour")
    vouched = certificate("neighbour", issuer="province")
    assert refusal(signed(chain=[no_authority, vouched]), trust) == "signature_untrusted"


def test_a_certificate_not_made_for_signing_does_not_sign() -> None:
    """An authority's certificate for encryption is not its word for a warning."""
    province = certificate("province", authority=True)
    trust = cap.Trust("bureau", authorities=(Authority(der(province), "bureau"),))
    leaf = certificate("bureau", issuer="province", usage=False)
    assert refusal(signed(chain=[leaf]), trust) == "signature_untrusted"


@pytest.mark.parametrize("issuer", ["", "province"])
def test_a_certificate_counts_only_while_it_is_valid(issuer: str) -> None:
    """An old key may have leaked long ago; one of next year is not yet anybody's."""
    leaf = certificate("bureau", issuer=issuer, begins=START - DAY, ends=START + DAY)
    province = certificate("province", authority=True, begins=START - 9 * DAY, ends=START + 9 * DAY)
    trust = cap.Trust("bureau", frozenset({der(leaf)}))
    if issuer:
        trust = cap.Trust("bureau", authorities=(Authority(der(province), "bureau"),))
    message = signed(chain=[leaf])
    assert accepted(message, trust, START + DAY) == PLAIN
    assert refusal(message, trust, START + DAY + timedelta(seconds=1)) == "signature_expired"
    assert refusal(message, trust, START - DAY - timedelta(seconds=1)) == "signature_expired"


# --- what it covers ---------------------------------------------------------------------------------------------------


def text(path: str, value: str) -> Callable[[etree._Element], None]:
    def change(root: etree._Element) -> None:
        find(root, path).text = value

    return change


def attribute(path: str, name: str, value: str) -> Callable[[etree._Element], None]:
    def change(root: etree._Element) -> None:
        find(root, path).set(name, value)

    return change


def inserted(path: str, fragment: str, index: int = 0) -> Callable[[etree._Element], None]:
    def change(root: etree._Element) -> None:
        find(root, path).insert(index, etree.fromstring(fragment))

    return change


REFERENCE = ".//ds:Reference"
TRANSFORMS = ".//ds:Transforms"
XPATH = (
    f'<Transform xmlns="{DSIG}" Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116">'
    '<XPath>not(ancestor-or-self::*[local-name()="info"])</XPath></Transform>'
)
XSLT = f'<Transform xmlns="{DSIG}" Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"/>'
SECOND = (
    f'<Reference xmlns="{DSIG}" URI=""><Transforms><Transform Algorithm="{DSIG}enveloped-signature"/><Transform '
    f'Algorithm="{EXCLUSIVE}"/></Transforms><DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/>'
    "<DigestValue/></Reference>"
)
FORMS: list[tuple[str, str, Callable[[etree._Element], None]]] = [
    ("an XPath filter", "signature_invalid", inserted(TRANSFORMS, XPATH, 1)),
    ("comments", "signature_wrapped", attribute(".//ds:Transform[2]", "Algorithm", EXCLUSIVE + "WithComments")),
    ("another C14N", "signature_wrapped", attribute(
        ".//ds:Transform[2]", "Algorithm", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
    )),
    ("another C14N of SignedInfo", "signature_invalid", attribute(
        ".//ds:CanonicalizationMethod", "Algorithm", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
    )),
    ("namespaces of its own", "signature_invalid", inserted(
        ".//ds:Transform[2]", f'<InclusiveNamespaces xmlns="{EXCLUSIVE}" PrefixList="c"/>'
    )),
    ("a second reference", "signature_invalid", inserted(".//ds:SignedInfo", SECOND, 3)),
    ("an Object", "signature_invalid", inserted(".//ds:Signature", f'<Object xmlns="{DSIG}"/>', 3)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "code", "change"), FORMS, ids=[form[0] for form in FORMS])
def test_only_the_simplest_form_is_read(name: str, code: str, change: Callable[[etree._Element], None]) -> None:
    """Each of these is well signed, and lets a message say more, or other, than what was signed."""
    message = resigned(GOOD, change)
    assert xmlsec1_verifies(message, BUREAU), name
    assert refusal(message) == code


def by_id(root: etree._Element) -> None:
    """Sign the info by its Id instead of the whole alert."""
    find(root, "cap:info").set("Id", "part")
    find(root, REFERENCE).set("URI", "#part")


@pytest.mark.parametrize(
    "change",
    [
        by_id,
        attribute(REFERENCE, "URI", "#xpointer(/)"),
        attribute(REFERENCE, "URI", "https://mingluo.example/warning.xml"),
        attribute(REFERENCE, "URI", "file:///etc/passwd"),
        lambda root: find(root, REFERENCE).attrib.pop("URI"),
        lambda root: find(root, TRANSFORMS).insert(0, find(root, ".//ds:Transform[2]")),
    ],
)
def test_a_signature_of_a_part_or_of_something_elsewhere_is_refused(change: Callable[[etree._Element], None]) -> None:
    """What it does not cover could be written by anybody; nothing outside the message is ever opened."""
    assert refusal(changed(change)) == "signature_wrapped"


def test_an_xslt_transform_is_never_run() -> None:
    """A stylesheet is a program."""
    assert refusal(changed(inserted(TRANSFORMS, XSLT, 1))) == "signature_invalid"


def below(root: etree._Element) -> None:
    """Move the signature into the last info."""
    find(root, "cap:info").append(root[-1])


def wrapped(root: etree._Element) -> None:
    """Move all that was signed, with its signature, under an element; write a warning of one's own around it."""
    inner = etree.fromstring(GOOD)
    del root[-1]
    find(root, ".//cap:headline").text = "转移到低洼处"
    etree.SubElement(root, "x").append(inner)


def wrapped_in_object(root: etree._Element) -> None:
    """Hide what was signed inside the signature, where the reader does not look."""
    inner = etree.fromstring(GOOD)
    find(root, ".//cap:headline").text = "转移到低洼处"
    etree.SubElement(root[-1], f"{{{DSIG}}}Object").append(inner)


def twice(root: etree._Element) -> None:
    """A second, good, signature."""
    root.append(etree.fromstring(GOOD)[-1])


def first(root: etree._Element) -> None:
    """The signature before all else."""
    root.insert(0, root[-1])


def stray(root: etree._Element) -> None:
    """A piece of a signature elsewhere."""
    etree.SubElement(find(root, "cap:info"), f"{{{DSIG}}}Reference")


def twins(root: etree._Element) -> None:
    """One Id for two elements."""
    find(root, "cap:info").set("Id", "a")
    find(root, ".//cap:area").set("{http://www.w3.org/XML/1998/namespace}id", "a")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (below, "signature_wrapped"),
        (wrapped, "signature_wrapped"),
        (wrapped_in_object, "signature_invalid"),
        (twice, "signature_wrapped"),
        (first, "signature_wrapped"),
        (stray, "signature_wrapped"),
        (twins, "signature_wrapped"),
        (lambda root: setattr(root[-1], "tag", f"{{{DSIG}}}SignedInfo"), "signature_wrapped"),
        (lambda root: root.append(etree.fromstring(f"<note xmlns='{NAMESPACE}'>x</note>")), "signature_wrapped"),
        (lambda root: find(root, ".//ds:KeyInfo").clear(), "signature_invalid"),
        (lambda root: root[-1].remove(find(root, ".//ds:KeyInfo")), "signature_invalid"),
        (lambda root: find(root, ".//ds:KeyInfo").append(etree.Element("x")), "signature_invalid"),
        (lambda root: root[-1].clear(), "signature_invalid"),
        (text(".//ds:SignatureValue", ""), "signature_invalid"),
        (text(".//ds:SignatureValue", "AAAA"), "signature_invalid"),
        (text(".//ds:SignatureValue", "*"), "signature_invalid"),
        (text(".//ds:DigestValue", "é"), "signature_invalid"),
        (text(".//ds:X509Certificate", "AAAA"), "signature_untrusted"),
    ],
)
def test_a_signature_out_of_place_or_shape_is_refused(change: Callable[[etree._Element], None], code: str) -> None:
    """Wrapping: what is verified and what is read must be the same thing, or the second is anybody's."""
    assert refusal(changed(change)) == code


def test_a_whole_signed_alert_inside_another_is_refused() -> None:
    """The outer one is unsigned but for what it carries."""
    outer = f"<alert xmlns='{NAMESPACE}'>{GOOD.decode().partition('?>')[2]}</alert>"
    assert refusal(outer.encode()) == "signature_wrapped"


@pytest.mark.parametrize(
    "change",
    [
        text("cap:info/cap:headline", "解除警报"),
        text("cap:status", "Exercise"),
        text("cap:info/cap:headline", "泌阳县气象台发布暴雨红色预警 "),
        lambda root: setattr(find(root, "cap:status"), "tail", "\n"),
        lambda root: setattr(root[-1], "tail", " "),
        attribute("cap:info", "lang", "zh"),
        lambda root: root.remove(find(root, "cap:info")),
        inserted(".", f"<code xmlns='{NAMESPACE}'>x</code>", 6),
    ],
)
def test_whatever_is_changed_after_signing_is_noticed(change: Callable[[etree._Element], None]) -> None:
    """One word makes an all-clear of a warning; even a blank is a change."""
    assert refusal(changed(change)) == "signature_invalid"


def test_a_message_signed_in_another_namespace_is_not_cap_afterwards() -> None:
    """The names of elements are signed with their namespace."""
    older = signed(RED.replace(b"cap:1.2", b"cap:1.1"), chain=[BUREAU])
    assert refusal(older) == "older_cap"
    assert refusal(older.replace(b"cap:1.1", b"cap:1.2")) == "signature_invalid"


def test_entities_are_refused_before_anything_is_verified() -> None:
    """A DOCTYPE could make one text of two, or of a file."""
    doctype = b"<!DOCTYPE alert [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"
    assert refusal(GOOD.replace(b"<alert", doctype + b"<alert", 1)) == "entity_forbidden"
    assert refusal(GOOD.replace("红色".encode(), b"&x;", 1)) == "not_xml"


def test_the_signatures_namespace_cannot_be_hidden() -> None:
    """Written with character references it is the same namespace, and its signature still has to convince."""
    hidden = GOOD.replace(DSIG.encode(), DSIG.replace("x", "&#120;").encode())
    assert hidden != GOOD
    assert accepted(hidden) == PLAIN
    assert refusal(hidden.replace("红色".encode(), "蓝色".encode())) == "signature_invalid"


# --- how strong -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        signed(chain=[BUREAU], method=SignatureMethod.ECDSA_SHA1),
        signed(chain=[BUREAU], digest=DigestAlgorithm.SHA1),
        signed(chain=[BUREAU], method=SignatureMethod.ECDSA_SHA224),
        changed(attribute(".//ds:SignatureMethod", "Algorithm", DSIG + "dsa-sha1")),
        changed(attribute(".//ds:SignatureMethod", "Algorithm", "urn:oid:none")),
        changed(attribute(".//ds:DigestMethod", "Algorithm", "http://www.w3.org/2001/04/xmldsig-more#md5")),
    ],
)
def test_what_can_be_forged_is_refused(message: bytes) -> None:
    """SHA-1 collisions cost less than a flood."""
    assert refusal(message) == "signature_weak"


@pytest.mark.parametrize("secret", [pem(BUREAU).encode(), der(BUREAU)])
def test_a_mac_keyed_with_the_public_key_is_refused(secret: bytes) -> None:
    """The old trick: a verifier that lets the message choose takes what everybody knows for a secret."""
    message = signed(by=secret, chain=[BUREAU], method=SignatureMethod.HMAC_SHA256)
    keyed = etree.fromstring(message)
    keyed[-1].append(etree.fromstring(etree.tostring(find(etree.fromstring(GOOD), ".//ds:KeyInfo"))))
    assert refusal(etree.tostring(keyed)) == "signature_weak"


def test_a_short_rsa_key_is_refused_whoever_vouches_for_it() -> None:
    """1024 bits are within reach of a state."""
    own = key("bureau", "rsa1024")
    pinned = certificate("bureau", own)
    message = signed(by=own, chain=[pinned], method=SignatureMethod.RSA_SHA256)
    assert refusal(message, cap.Trust("bureau", frozenset({der(pinned)}))) == "signature_weak"


def test_a_key_of_another_kind_than_the_method_does_not_verify() -> None:
    """An ECDSA method over an RSA key, and the reverse."""
    assert refusal(changed(attribute(".//ds:SignatureMethod", "Algorithm", SignatureMethod.RSA_SHA256.value))) == (
        "signature_invalid"
    )
    own = key("bureau", "rsa2048")
    pinned = certificate("bureau", own)
    message = signed(by=own, chain=[pinned], method=SignatureMethod.RSA_SHA256)
    mixed = changed(attribute(".//ds:SignatureMethod", "Algorithm", SignatureMethod.ECDSA_SHA256.value), message)
    assert refusal(mixed, cap.Trust("bureau", frozenset({der(pinned)}))) == "signature_invalid"


# --- hostile bytes ----------------------------------------------------------------------------------------------------


def test_a_thousand_signatures_cost_one_look() -> None:
    """A bomb is refused at its first fuse: no signature is computed, so none of them may be good."""
    root = etree.fromstring(GOOD)
    copy = etree.tostring(root[-1])
    for _ in range(1000):
        root.append(etree.fromstring(copy))
    assert refusal(etree.tostring(root)) == "signature_wrapped"


def test_a_message_without_a_canonical_form_is_refused() -> None:
    """Whoever copies a pinned certificate, which is public, must not get a fault of ours for it."""
    for name in (b"<alert ", b"<ds:SignedInfo"):
        message = GOOD.replace(name, name + b' xmlns:x="relative" x:y="" ', 1)
        assert message != GOOD
        assert refusal(message) == "signature_invalid"


def test_a_crowd_of_attributes_is_not_canonicalised() -> None:
    """Their order takes the square of their number: 4 MiB of them held every other large message up for minutes."""
    for number in (64, 65):
        crowd = " ".join(f'a{each}=""' for each in range(number)).encode()
        message = GOOD.replace(b"<info>", b"<info " + crowd + b">", 1)
        assert refusal(message) == "signature_invalid"
        assert ("64 attributes" in take(message).findings[0].message) == (number > 64)


def test_a_thousand_certificates_are_not_looked_at() -> None:
    """Each could ask for a chain of its own."""
    root = etree.fromstring(GOOD)
    data, one = find(root, ".//ds:X509Data"), etree.tostring(find(root, ".//ds:X509Certificate"))
    for _ in range(1000):
        data.append(etree.fromstring(one))
    assert refusal(etree.tostring(root)) == "signature_invalid"


@given(st.data())
def test_no_change_of_the_bytes_makes_another_warning(data: st.DataObject) -> None:
    """The property behind all of the above: whatever is accepted as signed says what was signed."""
    at = data.draw(st.integers(0, len(GOOD) - 1))
    until = data.draw(st.integers(at, min(at + 40, len(GOOD))))
    put = data.draw(st.one_of(st.binary(max_size=8), st.sampled_from([GOOD[at:until] * 2, b"<!---->", b"&#32;"])))
    taken = take(GOOD[:at] + put + GOOD[until:], replace(TRUST, required=True))
    assert taken.alert in (None, PLAIN)


@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)), st.integers(0, len(GOOD)))
def test_no_moving_of_parts_makes_another_warning(low: int, high: int, to: int) -> None:
    """Wrapping is moving: any stretch of the message to any place."""
    low, high = sorted((low, high))
    rest = GOOD[:low] + GOOD[high:]
    taken = take(rest[:to] + GOOD[low:high] + rest[to:], replace(TRUST, required=True))
    assert taken.alert in (None, PLAIN)


@given(st.data())
def test_no_certificate_breaks_the_reader(data: st.DataObject) -> None:
    """A certificate that nobody pinned is parsed where an authority might vouch for it: whatever it holds."""
    at = data.draw(st.integers(0, len(VOUCHED) - 1))
    put = data.draw(st.binary(max_size=8))
    broken = base64.b64encode(VOUCHED[:at] + put + VOUCHED[at + len(put) + data.draw(st.integers(0, 3)) :]).decode()
    taken = take(changed(text(".//ds:X509Certificate", broken or "AAAA")), BY_PROVINCE)
    assert taken.alert in (None, PLAIN)


# --- policy -----------------------------------------------------------------------------------------------------------

QXJ = "411726-qxj"


def policy(*pins: Pin, required: tuple[str, ...] = ()) -> Policy:
    trust = TrustFile(pin=pins, required=required).model_dump(mode="json")
    return Policy.from_bytes(json.dumps(json.loads(POLICY.to_bytes()) | {"trust": trust}).encode())


def test_the_digest_of_the_policy_covers_the_certificates() -> None:
    """A year later the record says which keys counted when a warning was accepted."""
    pin = Pin(issuer=QXJ, pem=pem(BUREAU))
    ours, theirs = policy(pin), policy(Pin(issuer=QXJ, pem=pem(certificate("bureau"))))
    assert len({POLICY.digest, ours.digest, theirs.digest, policy(pin, required=(QXJ,)).digest}) == 4
    assert ours.digest == policy(Pin(issuer=QXJ, pem="\n" + pem(BUREAU).replace("\n", "\r\n"))).digest
    assert Policy.from_bytes(ours.to_bytes()).trust(ours.issuers[0]) == ours.trust(ours.issuers[0])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("require = []", "trust.toml: require: unknown key; rename it to required"),
        (f'[[pin]]\nissuer = "{QXJ}"', "trust.toml: pin[0].pem: missing; add the key"),
        (f'[[pin]]\nissuer = "{QXJ}"\npem = "x"', "trust.toml: pin[0].pem: not one certificate in PEM; paste it"),
        (f'[[pin]]\nissuer = "{QXJ}"\npem = """{pem(BUREAU) * 2}"""', "pin[0].pem: not one certificate in PEM"),
        (f'[[pin]]\nissuer = "nobody"\npem = """{pem(BUREAU)}"""', "pin.issuer: nobody is not in authority.toml"),
        (f'required = ["{QXJ}"]', f"trust.toml: required: {QXJ} must sign, but no certificate is pinned for it"),
        (
            f'[[pin]]\nissuer = "{QXJ}"\nsubject = "bureau"\npem = """{pem(BUREAU)}"""',
            "trust.toml: pin[0]: subject is for an authority",
        ),
        (
            f'[[pin]]\nissuer = "{QXJ}"\npem = """{pem(certificate("bureau", key("short", "rsa1024")))}"""',
            "trust.toml: pin[0].pem: the RSA key has 1024 bits; use 2048 or more",
        ),
        (
            f'[[pin]]\nissuer = "{QXJ}"\npem = """{pem(certificate("bureau", key("odd", "secp256k1")))}"""',
            "trust.toml: pin[0].pem: the certificate's key is of a kind that is not read",
        ),
    ],
)
def test_a_wrong_pin_is_refused_with_file_key_and_fix(tmp_path: Path, content: str, expected: str) -> None:
    """Before the start, not at the first warning of the night."""
    folder = Path(shutil.copytree(CONFIG / "policy", tmp_path / "policy"))
    (folder / "trust.toml").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        Policy.load(folder)
    assert expected in str(caught.value)


def test_a_policy_stored_before_there_were_signatures_can_still_be_read() -> None:
    """Old records stay explainable."""
    stored = json.loads(POLICY.to_bytes())
    del stored["trust"]
    assert Policy.from_bytes(json.dumps(stored).encode()).tables.trust == TrustFile()


# --- the way in -------------------------------------------------------------------------------------------------------


def message(**changes: Any) -> bytes:
    """The API's example as the bureau signs it."""
    alert, _ = cap.parse(json.dumps(EXAMPLE | changes, ensure_ascii=False).encode())
    assert alert is not None
    return signed(cap.write(alert), chain=[BUREAU])


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock, policy=policy(Pin(issuer=QXJ, pem=pem(BUREAU)))) as one:
        yield one


@pytest.fixture
async def strict(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    """A gateway whose bureau must sign."""
    async with opened(tmp_path, clock, policy=policy(Pin(issuer=QXJ, pem=pem(BUREAU)), required=(QXJ,))) as one:
        yield one


async def post(desk: Desk, body: bytes, token: str = ISSUER) -> tuple[int, Any]:
    response, content = await desk.call("POST", "/v1/alerts", token, body, "application/cap+xml")
    return response.status, content


async def test_a_signed_warning_is_taken_in_and_the_record_names_the_key(desk: Desk) -> None:
    """Who signed is part of who decided."""
    assert (await post(desk, message()))[0] == 202
    records = await desk.core.store.audit.records()
    assert any(f"signed by {fingerprint(der(BUREAU))[:16]}" in record.detail for _, record, _ in records)


async def test_a_warning_signed_again_is_the_same_warning(desk: Desk) -> None:
    """A repeated request is harmless, also where the sender signs at every attempt."""
    assert [(await post(desk, message()))[0] for _ in range(2)] == [202, 200]
    assert (await post(desk, message(headline="别的话")))[0] == 409


@pytest.mark.parametrize("path", ["/v1/alerts", "/v1/alerts/preview"])
async def test_a_signature_that_does_not_convince_is_a_problem_with_its_code(desk: Desk, path: str) -> None:
    """The sender's engineer sees what to mend; nothing is stored."""
    body = message().replace("红色".encode(), "蓝色".encode())
    response, content = await desk.call("POST", path, ISSUER, body, "application/cap+xml")
    assert (response.status, content["type"].rpartition("/")[2]) == (403, "signature_invalid")
    assert content["errors"][0]["code"] == "signature_invalid"
    assert (await desk.call("GET", "/v1/alerts", ISSUER))[1]["alerts"] == []


async def test_a_token_of_another_body_gains_nothing_from_a_signed_message(desk: Desk) -> None:
    """Token and key must speak for the same body."""
    status, content = await post(desk, message(), CITY)
    assert (status, content["type"].rpartition("/")[2]) == (403, "signature_untrusted")


async def test_a_body_that_must_sign_is_not_spoken_for_without(strict: Desk) -> None:
    """A stolen token alone issues nothing; the holder of the key is heard."""
    unsigned = json.dumps(EXAMPLE, ensure_ascii=False).encode()
    response, content = await strict.call("POST", "/v1/alerts", ISSUER, unsigned)
    assert (response.status, content["type"].rpartition("/")[2]) == (403, "signature_missing")
    assert (await post(strict, message()))[0] == 202


async def test_an_all_clear_ordered_here_needs_no_signature(strict: Desk) -> None:
    """The gateway writes it for the person; it can only end what the body itself has issued."""
    alert = (await post(strict, message()))[1]["id"]
    response, _ = await strict.call("POST", f"/v1/alerts/{alert}/correct", ISSUER, {"note": "误发"})
    assert response.status == 202


async def test_a_sealed_code_opens_the_way_without_the_key(strict: Desk) -> None:
    """The officer is locked out, perhaps of the very room where the key is (D3). A forged signature still fails."""
    record = Record(strict.clock.now(), "console/chief", "seal", QXJ)
    await strict.core.store.seals.add("one-time", QXJ, "envelope 1", record)
    forged = message().replace("红色".encode(), "蓝色".encode())
    with pytest.raises(Refused, match="does not match"):
        await strict.core.intake.break_glass(forged, "one-time")
    unsigned = json.dumps(EXAMPLE, ensure_ascii=False).encode()
    assert (await strict.core.intake.break_glass(unsigned, "one-time")).result == "accepted"


async def test_a_large_signed_message_is_verified_beside_the_loop(clock: ManualClock) -> None:
    """Its polygon, and its canonical form, never delay a red warning."""
    ring = " ".join(f"32.{n:05d},113.{n:05d}" for n in range(20_000)) + " 32.00000,113.00000"
    polygon = f"</areaDesc><polygon>{ring}</polygon>".encode()
    large = signed(RED.replace(b"</areaDesc>", polygon, 1), chain=[BUREAU])
    pool = ParsePool(PLACES)
    try:
        taken, _ = await pool.read(large, TRUST, clock.now(), ("411726",))
        assert taken.alert is not None
        assert taken.signer == fingerprint(der(BUREAU))
        blue = large.replace("红色".encode(), "蓝色".encode())
        forged, _ = await pool.read(blue, TRUST, clock.now(), ("411726",))
        assert [each.code for each in forged.findings] == ["signature_invalid"]
    finally:
        pool.close()


@given(st.data())
def test_what_is_read_the_library_finds_good_too(data: st.DataObject) -> None:
    """Two verifiers that agree on what is good: whatever ours takes, signxml verifies with the same certificate."""
    message = bytearray(GOOD)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(message) - 1))
        kind = data.draw(st.sampled_from(["flip", "drop", "double", "blank"]))
        if kind == "flip":
            message[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "drop":
            del message[at]
        elif kind == "double":
            message.insert(at, message[at])
        else:
            message.insert(at, 0x20)
    if take(bytes(message)).alert is not None:
        expected = SignatureConfiguration(location="./", verification_time=START)
        verified = XMLVerifier().verify(bytes(message), x509_cert=BUREAU, expect_config=expected)
        assert isinstance(verified, VerifyResult)
        assert etree.QName(verified.signed_xml).localname == "alert"


def test_a_signature_of_another_length_is_none() -> None:
    """R and s are each as long as the curve: padded or cut they are refused before any arithmetic."""
    value = base64.b64decode(find(etree.fromstring(GOOD), ".//ds:SignatureValue").text or "")
    for other in (value[:-1], value + b"\0", b"\0" + value, value[:32] + b"\0" + value[32:], b"\0" * 64):

        def put(root: etree._Element, other: bytes = other) -> None:
            find(root, ".//ds:SignatureValue").text = base64.b64encode(other).decode()

        assert refusal(changed(put)) == "signature_invalid"
