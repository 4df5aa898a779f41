"""docs/carriers.md says what the code does, and what it tells an operator to type works."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import typer

from channels._carrier import CarrierSettings
from channels._wire import AccountSettings
from channels.sms_cmpp import CmppAccount
from channels.sms_sgip import SgipAccount
from channels.sms_smgp import SmgpAccount
from channels.sms_smpp import SmppAccount
from gateway.cli import app
from gateway.installed import load_channels

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "carriers.md").read_text(encoding="utf8")
TABLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"`(mingluo simulate carrier [^`]*)`", PAGE)


def script() -> ModuleType:
    """`ops/make_carriers_page.py` as a module."""
    spec = importlib.util.spec_from_file_location("make_carriers_page", ROOT / "ops" / "make_carriers_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_page_is_what_the_script_writes() -> None:
    """A code that is not on the page sends whoever is on duty into our sources."""
    module = script()
    assert module.TARGET.read_text(encoding="utf8") == module.text()


@pytest.mark.parametrize("account", [CmppAccount, SgipAccount, SmgpAccount, SmppAccount])
def test_every_field_of_an_account_is_on_the_page(account: type[AccountSettings]) -> None:
    """A setting nobody knows of is one that cannot be set at night."""
    assert [name for name in account.model_fields if f"`{name}`" not in PAGE and f"\n{name} = " not in PAGE] == []


def test_the_tables_are_accepted_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are copied into channels.toml."""
    for name in ("CMPP", "SGIP", "SMGP", "SMPP"):
        monkeypatch.setenv(f"{name}_SECRET", "secret")
    file = tmp_path / "channels.toml"
    file.write_text("\n".join(TABLES), encoding="utf8")
    channels, rates = load_channels(file)
    assert set(channels) == {"sms_cmpp", "sms_sgip", "sms_smgp", "sms_smpp"}
    assert set(rates) == {"sms_cmpp/county"}
    assert all(isinstance(one.settings, CarrierSettings) for one in channels.values())


def test_the_commands_are_understood() -> None:
    """A mistyped option on this page costs an afternoon with the carrier on the telephone."""
    assert len(COMMANDS) == 4
    command = typer.main.get_command(app)
    for line in COMMANDS:
        words = shlex.split(line)[1:]
        group, name, *options = words
        simulate = command.get_command(typer.Context(command), group)  # type: ignore[attr-defined]  # a group
        carrier = simulate.get_command(typer.Context(simulate), name)
        assert carrier.make_context(name, options).params["protocol"]
