"""The keys that loudspeakers pin: one wrong file, or one hub with a key of its own, and a county stays silent."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from manual_clock import START
from typer.testing import CliRunner, Result

from gateway.app import App
from gateway.cli import app
from gateway.device.trust import Trust, Untrusted
from gateway.device_key import DeviceKey, DeviceKeys, create, keep
from gateway.errors import ConfigError
from gateway.settings import Settings

Run = Callable[..., Result]
PAYLOAD = b'{"command":"stop","id":"a","to":"411726","now":"2026-07-20T06:00:00Z","expires":"2026-07-20T09:00:00Z"}'


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_the_key_is_known_by_the_names_of_the_standard() -> None:
    """RFC 8037, appendix A: the key, its public half and its thumbprint as any maker's library computes them."""
    key = DeviceKey(Ed25519PrivateKey.from_private_bytes(decoded("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")), START)
    assert key.x == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert key.id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    signed = key.sign(PAYLOAD)
    public = Ed25519PublicKey.from_public_bytes(decoded(key.jwk["x"]))
    public.verify(decoded(signed.signature), f"{signed.protected}.{signed.payload}".encode())
    assert decoded(signed.payload) == PAYLOAD


def test_a_device_obeys_the_keys_it_has_pinned_and_no_other(tmp_path: Path) -> None:
    """What the gateway signs, the device's own program opens; a stranger's signature it does not."""
    ours, strangers = create(tmp_path / "a", START), create(tmp_path / "b", START)
    trust = Trust.pinned([ours.pin])
    trust.open((*ours.sign(PAYLOAD),))
    with pytest.raises(Untrusted):
        trust.open((*strangers.sign(PAYLOAD),))


def test_the_next_key_takes_over_by_itself_at_its_time(tmp_path: Path) -> None:
    """It is pinned in three thousand villages before; nobody has to be at a keyboard on New Year's night."""
    first, second = create(tmp_path, START), create(tmp_path, START + timedelta(days=30))
    keys = DeviceKeys.load(tmp_path)
    assert keys.pins == [second.pin, first.pin]
    assert keys.sign(PAYLOAD, START).protected == first.protected
    assert keys.sign(PAYLOAD, START + timedelta(days=30)).protected == second.protected
    assert keys.sign(PAYLOAD, START - timedelta(days=365)).protected == first.protected, "a clock that was set back"


def test_nothing_is_signed_without_a_key() -> None:
    """An unsigned warning is one that every device refuses; the operator must hear of it before the village does."""
    with pytest.raises(ConfigError, match="mingluo keys device --new"):
        DeviceKeys().sign(PAYLOAD, START)


def test_a_damaged_folder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Half a fleet that obeys and half that does not is worse than a start that fails."""
    key = create(tmp_path, START)
    path = tmp_path / "20260720T060000Z.key"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="such a key already"):
        create(tmp_path, START)
    os.chmod(path, 0o604)
    with pytest.raises(ConfigError, match="chmod 600"):
        DeviceKeys.load(tmp_path)
    os.chmod(path, 0o600)
    (tmp_path / "next.key").write_bytes(path.read_bytes())
    (tmp_path / "next.key").chmod(0o600)
    with pytest.raises(ConfigError, match="from when on it signs"):
        DeviceKeys.load(tmp_path)
    (tmp_path / "next.key").unlink()
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content in (b"no key", other):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="Ed25519") as refused:
            DeviceKeys.load(tmp_path)
        assert "BEGIN" not in str(refused.value)
    assert key.pin.startswith("ed25519:")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `mingluo` in an installation of the test's own."""

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env={"MINGLUO_DATA": str(tmp_path)})

    return invoke


def test_an_operator_makes_shows_and_plans_keys(run: Run, tmp_path: Path) -> None:
    """The line that is printed is the one that is typed into devices."""
    assert "there is no key yet" in run("keys", "device").stderr.lower()
    assert run("keys", "device", "--new").exit_code == 0
    assert run("keys", "device", "--new", "--from", "2099-01-01").exit_code == 0
    later, now = json.loads(run("keys", "device", "--json").stdout)
    assert (later["begins"], later["jwk"]["crv"]) == ("2099-01-01T00:00:00+00:00", "Ed25519")
    keys = DeviceKeys.load(tmp_path / "keys" / "device")
    assert [later["pin"], now["pin"]] == keys.pins
    assert keys.sign(PAYLOAD, datetime.now(UTC)).protected == keys.keys[1].protected
    assert now["pin"] in run("keys", "device").stdout
    assert run("keys", "device", "--from", "2099-01-01").exit_code == 2
    assert run("keys", "list").exit_code == 0, "the keys for publishing stand beside them"


async def test_an_installation_makes_its_first_key_and_keeps_it(tmp_path: Path) -> None:
    """Devices are given the key on the day they are installed, and every restart after that must use it."""
    channels = tmp_path / "channels.toml"
    channels.write_text("[loudspeaker_ws]\n", "utf8")
    pins = []
    for _ in range(2):
        async with App(Settings(data=tmp_path, channels=channels, port=0)) as running:
            pins.append(DeviceKeys.load(running.settings.device_keys).pins)
    assert len(pins[0]) == 1
    assert pins[0] == pins[1]


def test_the_hubs_of_a_cluster_share_their_key_or_do_not_start(tmp_path: Path) -> None:
    """Two hubs that each made a key of their own would be half a fleet that refuses every second warning."""
    with pytest.raises(ConfigError, match="copy the folder to every hub"):
        keep(tmp_path, START, alone=False)
    made = create(tmp_path, START)
    assert keep(tmp_path, START, alone=False).pins == keep(tmp_path, START, alone=True).pins == [made.pin]
