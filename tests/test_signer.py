"""What we publish is signed so that any receiver can tell: keys that take over by themselves, certificates to pin.

The outside judge is xmlsec1. Every signer, also one in a box, is held to the same: what it signs is taken by it and us.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import stat
import subprocess
import tomllib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from api_support import CITY, ISSUER, Desk, opened
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from manual_clock import START, ManualClock
from signing import DAY, RED, certificate, der, key, pem, private, signed, xmlsec1_verifies
from typer.testing import CliRunner, Result

from gateway import cap, doctor
from gateway.cap.certificate import fingerprint
from gateway.cli import app
from gateway.errors import ConfigError, Refused
from gateway.model import Alert
from gateway.policy.trust import Pin, TrustFile
from gateway.ports import Signer
from gateway.signer import FileSigner, Keys, create, read, retire

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data" / "cap"
HOUR = timedelta(hours=1)
Run = Callable[..., Result]


def alert(name: str = "red_rainstorm.xml") -> Alert:
    found, _ = cap.parse((DATA / name).read_bytes())
    assert found is not None
    return found


class Box:
    """Stands for a hardware box: another algorithm, an answer that takes its time, and a key nobody gets to see."""

    algorithm = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
    digest_algorithm = "http://www.w3.org/2001/04/xmldsig-more#sha384"

    def __init__(self) -> None:
        own = key("box", "secp384r1")
        assert isinstance(own, ec.EllipticCurvePrivateKey)
        self.chain: tuple[bytes, ...] = (der(certificate("box", own)),)
        self._key = own

    def digest(self, data: bytes) -> bytes:
        return hashlib.sha384(data).digest()

    async def sign(self, data: bytes) -> bytes:
        await asyncio.sleep(0)
        r, s = decode_dss_signature(self._key.sign(data, ec.ECDSA(hashes.SHA384())))
        return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def from_file(kind: str) -> Signer:
    own = key("publisher", kind)
    return FileSigner(own, (der(certificate("publisher", own)),))


SIGNERS: list[Callable[[], Signer]] = [
    lambda: from_file("secp256r1"),
    lambda: from_file("secp384r1"),
    lambda: from_file("secp521r1"),
    lambda: from_file("rsa2048"),
    Box,
]


@pytest.mark.parametrize("make", SIGNERS, ids=["p256", "p384", "p521", "rsa", "box"])
@pytest.mark.parametrize("name", ["red_rainstorm.xml", "two_languages.xml", "cancel.xml"])
async def test_what_a_signer_signs_any_receiver_can_verify(make: Callable[[], Signer], name: str) -> None:
    """The contract of the port: xmlsec1 and our own strict reader take it, unchanged, and notice a changed word."""
    signer, message = make(), alert(name)
    published = await Keys([signer]).publish(message, START)
    own = x509.load_der_x509_certificate(signer.chain[0])
    assert xmlsec1_verifies(published, own)
    taken = cap.take(published, cap.Trust("publisher", frozenset({signer.chain[0]})), START)
    assert (taken.alert, taken.signer) == (message, fingerprint(signer.chain[0]))
    assert not xmlsec1_verifies(published.replace(b"<status>", b"<status> ", 1), own)


async def test_without_a_key_what_is_published_is_plain() -> None:
    """An installation begins without one."""
    assert await Keys().publish(alert(), START) == cap.write(alert())


# --- which key --------------------------------------------------------------------------------------------------------


def signing(folder: Path, at: datetime) -> str:
    """Common name of the key that signs."""
    signer = Keys.load(folder).active(at)
    assert signer is not None
    found = x509.load_der_x509_certificate(signer.chain[0])
    return str(found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


def test_the_next_key_takes_over_at_its_time(tmp_path: Path) -> None:
    """Rotation is a date that was set weeks before, not a restart in the night."""
    create(tmp_path, "2026", "old", START, 365)
    create(tmp_path, "2027", "new", START + 30 * DAY, 365)
    moments = (START, START + 30 * DAY - timedelta(seconds=1), START + 30 * DAY, START + 370 * DAY)
    assert [signing(tmp_path, at) for at in moments] == ["old", "old", "new", "new"]


def test_a_new_keys_certificate_is_valid_for_clocks_that_are_behind(tmp_path: Path) -> None:
    """A receiver whose clock is an hour late must not refuse the first red warning of the new key."""
    create(tmp_path, "2026", "only", START, 365)
    own = read(tmp_path)[0].certificates[0]
    assert own.not_valid_before_utc == START - HOUR
    assert signing(tmp_path, START - HOUR) == "only"


def test_nothing_is_published_as_if_signed_once_every_key_has_expired(tmp_path: Path) -> None:
    """A receiver that pins would refuse it; the operator hears of it instead."""
    create(tmp_path, "2026", "only", START, 1)
    with pytest.raises(Refused) as caught:
        Keys.load(tmp_path).active(START + 2 * DAY)
    assert (caught.value.status, caught.value.code) == (503, "no_valid_key")


def test_before_the_first_key_begins_messages_are_plain(tmp_path: Path) -> None:
    """A key that was made for next month is not yet used."""
    create(tmp_path, "2027", "later", START + 30 * DAY, 365)
    assert Keys.load(tmp_path).active(START) is None


def test_a_retired_key_is_gone_and_its_certificate_stays(tmp_path: Path) -> None:
    """What it signed is still verified; nobody can sign with it any more."""
    create(tmp_path, "2026", "old", START, 365)
    create(tmp_path, "2027", "new", START + DAY, 365)
    published = Keys.load(tmp_path).certificates()
    retire(tmp_path, "2026")
    assert not list(tmp_path.glob("2026.key"))
    assert Keys.load(tmp_path).certificates() == published
    assert Keys.load(tmp_path).active(START) is None
    with pytest.raises(ConfigError, match="no such key"):
        retire(tmp_path, "2026")
    with pytest.raises(ConfigError, match="choose another name"):
        create(tmp_path, "2026", "again", START, 365)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """Whoever reads it warns in our name."""
    create(tmp_path / "keys", "2026", "x", START, 365)
    assert stat.S_IMODE((tmp_path / "keys" / "2026.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_certificate_of_an_authority_may_stand_beside_a_key(tmp_path: Path) -> None:
    """The operator has the key certified and puts the chain into the file, the key's own first."""
    own, between = certificate("publisher", issuer="city"), certificate("city", issuer="province", authority=True)
    (tmp_path / "2026.key").write_bytes(private(key("publisher")))
    (tmp_path / "2026.key").chmod(0o640)
    (tmp_path / "2026.crt").write_text(pem(own) + pem(between))
    signer = Keys.load(tmp_path).active(START)
    assert signer is not None
    assert signer.chain == (der(own), der(between))


@pytest.mark.parametrize(
    ("name", "content", "mode", "expected"),
    [
        ("a.crt", None, 0o600, "its certificate a.crt is missing"),
        ("a.crt", b"x", 0o600, "keys/a.crt: no certificate in PEM"),
        ("a.crt", pem(certificate("neighbour")).encode(), 0o600, "is not the certificate of a.key"),
        ("a.crt", pem(certificate("a", key("short", "rsa1024"))).encode(), 0o600, "the RSA key has 1024 bits"),
        ("a.key", b"x", 0o600, "keys/a.key: no unencrypted private key in PEM"),
        ("a.key", private(key("neighbour")), 0o600, "is not the certificate of a.key"),
        ("a.key", None, 0o644, "anybody on this machine may read it; chmod 600"),
    ],
)
def test_a_wrong_file_stops_the_start_and_is_named(
    tmp_path: Path, name: str, content: bytes | None, mode: int, expected: str
) -> None:
    """A gateway that cannot sign says so when it starts."""
    create(tmp_path, "a", "x", START, 365)
    (tmp_path / "a.key").chmod(mode)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    elif mode == 0o600:
        (tmp_path / name).unlink()
    with pytest.raises(ConfigError) as caught:
        Keys.load(tmp_path)
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["", "../x", "A", "a/b", "x" * 60])
def test_the_name_of_a_key_is_no_path(tmp_path: Path, name: str) -> None:
    """A name becomes a file."""
    with pytest.raises(ConfigError):
        create(tmp_path, name, "x", START, 1)
    with pytest.raises(ConfigError):
        retire(tmp_path, name)


# --- the API ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    create(tmp_path / "keys", "2026", "publisher", START, 30)
    async with opened(tmp_path, clock, keys=Keys.load(tmp_path / "keys")) as one:
        yield one


async def test_the_api_publishes_signed_cap_and_its_certificate(desk: Desk) -> None:
    """Other platforms relay what they can prove; they fetch the certificate here and compare it by phone."""
    issued = await desk.issue()
    response, published = await desk.call("GET", f"/v1/alerts/{issued['id']}/cap", CITY)
    assert response.content_type == "application/cap+xml"
    response, offered = await desk.call("GET", "/v1/certificates")
    assert response.content_type == "application/pem-certificate-chain"
    own = x509.load_pem_x509_certificate(offered)
    assert xmlsec1_verifies(published, own)


async def test_an_expired_key_is_a_problem_with_a_fix(desk: Desk) -> None:
    """Rather none than one that every receiver refuses without our knowing."""
    issued = await desk.issue()
    desk.clock.advance(timedelta(days=31).total_seconds())
    response, content = await desk.call("GET", f"/v1/alerts/{issued['id']}/cap", ISSUER)
    assert (response.status, content["type"].rpartition("/")[2]) == (503, "no_valid_key")


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `mingluo` in an installation of the test's own."""
    shutil.copytree(ROOT / "config", tmp_path / "config")

    def invoke(*arguments: object) -> Result:
        environment = {"MINGLUO_DATA": str(tmp_path / "var"), "MINGLUO_CONFIG": str(tmp_path / "config")}
        return CliRunner().invoke(app, [str(one) for one in arguments], env=environment)

    return invoke


def test_a_message_is_signed_pinned_and_verified_from_the_command_line(run: Run, tmp_path: Path) -> None:
    """The whole way two installations go to trust each other."""
    made = run("keys", "new", "2026", "--subject", "驻马店市预警发布中心")
    (tmp_path / "ours.pem").write_text(made.stdout)
    (tmp_path / "message.xml").write_text(run("cap", "sign", DATA / "red_rainstorm.xml").stdout)
    message, issuer = tmp_path / "message.xml", "411726-qxj"
    assert run("cap", "verify", message, "--cert", tmp_path / "ours.pem").exit_code == 0
    refused = run("cap", "verify", message, "--issuer", issuer)
    assert (refused.exit_code, "signature_untrusted" in refused.stderr) == (1, True)
    pinned = run("cap", "pin", tmp_path / "ours.pem", "--issuer", issuer)
    with (tmp_path / "config" / "policy" / "trust.toml").open("a") as file:
        file.write(pinned.stdout)
    verified = run("cap", "verify", message, "--issuer", issuer, "--json")
    found = x509.load_pem_x509_certificate(made.stdout.encode())
    assert json.loads(verified.stdout) | {"file": ""} == {
        "file": "", "valid": True, "signer": fingerprint(der(found)), "errors": [],
    }  # fmt: skip
    assert fingerprint(der(found)) in made.stderr
    assert fingerprint(der(found)) in pinned.stderr
    assert run("policy", "check").exit_code == 0
    unsigned = run("cap", "verify", DATA / "red_rainstorm.xml", "--issuer", issuer)
    assert (unsigned.exit_code, "signature_missing" in unsigned.stderr) == (1, True)


def test_verify_looks_at_another_day_where_it_is_told(run: Run, tmp_path: Path) -> None:
    """A message of last year is proven with the certificate of last year."""
    (tmp_path / "message.xml").write_bytes(signed(chain=[certificate("bureau")]))
    (tmp_path / "then.pem").write_text(pem(certificate("bureau", begins=START - DAY, ends=START)))
    (tmp_path / "message.xml").write_bytes(
        signed(RED, chain=[x509.load_pem_x509_certificate((tmp_path / "then.pem").read_bytes())])
    )
    asked = ("cap", "verify", tmp_path / "message.xml", "--cert", tmp_path / "then.pem")
    assert "signature_expired" in run(*asked).stderr
    assert run(*asked, "--at", "2026-07-20T05:00").exit_code == 0


def test_an_authority_is_pinned_with_the_name_it_vouches_for(run: Run, tmp_path: Path) -> None:
    """Without the name every body of the province could warn for this one."""
    (tmp_path / "ca.pem").write_text(pem(certificate("province", authority=True)))
    (tmp_path / "leaf.pem").write_text(pem(certificate("bureau")))
    printed = run("cap", "pin", tmp_path / "ca.pem", "--issuer", "411726-qxj", "--subject", '局"一')
    assert tomllib.loads(printed.stdout)["pin"][0]["subject"] == '局"一'
    refused = run("cap", "pin", tmp_path / "leaf.pem", "--issuer", "411726-qxj", "--subject", "x")
    assert (refused.exit_code, "subject is for an authority" in refused.stderr) == (2, True)


def test_keys_list_says_which_one_signs(run: Run) -> None:
    """Before a change-over somebody looks."""
    later = (datetime.now(UTC) + 60 * DAY).strftime("%Y-%m-%d")
    run("keys", "new", "a", "--subject", "x")
    run("keys", "new", "b", "--subject", "x")
    run("keys", "retire", "a")
    run("keys", "new", "c", "--subject", "x", "--from", later)
    rows = json.loads(run("keys", "list", "--json").stdout)
    assert [(row["name"], row["standing"]) for row in rows] == [("a", "retired"), ("b", "signs"), ("c", "waits")]
    assert (run("keys", "new", "b", "--subject", "x").exit_code, run("cap", "sign", "none.xml").exit_code) == (2, 2)


def test_the_certificate_verifies_as_openssl_reads_it(run: Run, tmp_path: Path) -> None:
    """Receivers compare the fingerprint with the tool they have."""
    (tmp_path / "ours.pem").write_text(run("keys", "new", "a", "--subject", "预警发布中心").stdout)
    command = ["openssl", "x509", "-in", str(tmp_path / "ours.pem"), "-noout", "-fingerprint", "-sha256"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    listed = json.loads(run("keys", "list", "--json").stdout)[0]["fingerprint"]
    assert shown.strip().rpartition("=")[2].replace(":", "").lower() == listed


# --- the doctor -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "required", "severity", "said"),
    [
        ((START + 60 * DAY,), (), "ok", "signatures of 1 issuers count"),
        ((START + 29 * DAY,), (), "warning", "expires on 2026-08-18"),
        ((START - DAY / 2,), (), "warning", "expired; what it signs is refused"),
        ((START - DAY / 2,), ("411726-qxj",), "error", "expired; what it signs is refused"),
        ((START - DAY / 2, START + 60 * DAY), (), "note", "one has expired"),
    ],
)
def test_the_doctor_sees_certificates_that_end(
    ends: tuple[datetime, ...], required: tuple[str, ...], severity: str, said: str
) -> None:
    """An expired certificate is found in the dry season, not in the flood."""
    pins = tuple(Pin(issuer="411726-qxj", pem=pem(certificate("bureau", ends=end))) for end in ends)
    verdicts = list(doctor.certificates(TrustFile(pin=pins, required=required), Keys(), START))
    assert any((one.severity, said in one.text) == (severity, True) for one in verdicts)
    assert severity == "ok" or all(one.fix for one in verdicts if one.severity == severity)


@pytest.mark.parametrize(
    ("days", "severity"), [((), "note"), ((60,), "ok"), ((20,), "warning"), ((20, 60), "ok"), ((-1,), "error")]
)
def test_the_doctor_sees_keys_that_end(days: tuple[int, ...], severity: str) -> None:
    """What we publish would one day be refused by everybody."""
    own = [certificate("publisher", begins=START - 9 * DAY, ends=START + day * DAY) for day in days]
    keys = Keys([FileSigner(key("publisher"), (der(each),)) for each in own])
    verdict = list(doctor.certificates(TrustFile(), keys, START))[-1]
    assert (verdict.check, verdict.severity) == ("keys", severity)
