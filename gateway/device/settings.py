"""Settings of one device: a TOML file, and flags above it. The key comes from a file or the environment alone."""

from __future__ import annotations

import os
import shlex
import ssl
import sys
import tomllib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.device.disk import Disk
from gateway.device.mqtt import PORTS, Mqtt
from gateway.device.parts import Parts
from gateway.device.sound import FILE, KEY_VARIABLE, Folder, Output, Speaker, arguments, player
from gateway.device.studio import Studio
from gateway.device.transport import Transport
from gateway.device.trust import Trust
from gateway.device.volume import Policy
from gateway.device.websocket import WebSocket
from gateway.errors import ConfigError

STATE = Path("/var/lib/mingluo-device")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
NO_VOICE = "none"
VOICE = ("espeakng_loader", "pypinyin", "soundfile")
"""What `voice` needs, in a process of its own: loading it here, to ask whether it is there, would take 50 MB."""
PLAIN = frozenset({"ws", "http", "mqtt"})


class DeviceSettings(BaseModel):
    """What an installation says of one device; docs/device.md has the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")
    village: str = Field(pattern=r"^\d{12}$")
    url: str
    pins: list[str] = Field(default_factory=list)
    pins_file: Path | None = None
    key_file: Path | None = None
    ca_file: Path | None = None
    allow_plain: bool = False
    state: Path = STATE
    play_with: str = ""
    speak_with: str = ""
    volume_with: str = ""
    clock_with: str = ""
    sound_to: Path | None = None
    volume: int = Field(80, ge=0, le=100)
    red_floor: int = Field(80, ge=0, le=100)

    @model_validator(mode="after")
    def _reach_the_gateway_safely(self) -> DeviceSettings:
        place = urlsplit(self.url)
        if place.scheme not in {*SCHEMES, *PORTS} or not place.hostname or place.port == 0:
            raise ValueError("url: write wss://HOST or mqtts://HOST, the address its gateway's operator gives you")
        if place.scheme in PLAIN and place.hostname not in LOOPBACK and not self.allow_plain:
            raise ValueError(
                "url: the key would cross the network in the clear; use wss:// or mqtts://, or set allow_plain"
            )
        return self

    def parts(self) -> Parts:
        """Make the device.

        Raises:
            ConfigError: naming the setting and the fix.
        """
        pins = list(self.pins)
        if self.pins_file is not None:
            pins += _pins_of(self.pins_file.read_text(encoding="utf-8"))
        trust = Trust.pinned(pins)
        key = self._key()
        output: Output = (
            Folder(self.sound_to) if self.sound_to else Speaker(self.play_with or player(), self.volume_with)
        )
        clock = arguments(self.clock_with, "{seconds}", "clock_with") if self.clock_with else ()
        disk = Disk(self.state)
        studio = self._studio()
        policy = Policy(self.volume, {"red": self.red_floor})
        firmware = f"mingluo-{version('mingluo')}"
        return Parts(
            self.name, self.village, firmware, trust, disk, self._transport(key), output, studio, policy, clock
        )

    def _voice(self) -> str:
        """Return the command that speaks: the one given, else that of the speech extra, if it is installed."""
        installed = all(map(find_spec, VOICE))
        if self.speak_with == NO_VOICE or not (self.speak_with or installed):
            return ""
        return self.speak_with or shlex.join([sys.executable, "-m", "gateway.device.voice", FILE])

    def _studio(self) -> Studio:
        """Return what makes files; recordings lie at the gateway or elsewhere: what counts is their signed digest."""
        tls = ssl.create_default_context()
        if self.ca_file is not None:
            tls.load_verify_locations(self.ca_file)
        return Studio(self.state / "sound", self._voice(), tls)

    def _transport(self, key: str) -> Transport:
        place = urlsplit(self.url)
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        if place.scheme in PORTS:
            return Mqtt(self.url, self.name, key, context)
        return WebSocket(place._replace(scheme=SCHEMES[place.scheme]).geturl(), self.name, key, context or True)

    def _key(self) -> str:
        """Return the device's key.

        Raises:
            ConfigError: there is none, or anybody may read it.
        """
        if self.key_file is None:
            key = os.environ.get(KEY_VARIABLE, "")
        else:
            if self.key_file.stat().st_mode & 0o007:
                raise ConfigError(f"{self.key_file}: anybody on this machine may read it; chmod 600")
            key = self.key_file.read_text(encoding="utf-8")
        if not key.strip() or not key.strip().isprintable():
            raise ConfigError(
                f"no key: put the device's key into a file and name it as key_file, or into {KEY_VARIABLE}"
            )
        return key.strip()


def load(path: Path | None, given: dict[str, Any]) -> DeviceSettings:
    """Read the file, if any; what is given (and not None) stands above it.

    Raises:
        ConfigError: naming what is wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8")) if path is not None else {}
        return DeviceSettings(**values | {name: value for name, value in given.items() if value is not None})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}; mend that line") from None
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors(include_input=False)]
        raise ConfigError("\n".join(wrong)) from None


def _pins_of(text: str) -> list[str]:
    """Split a file of pins: PEM or JSON as a whole, else one per line."""
    if text.lstrip().startswith(("-----BEGIN", "{")):
        return [text]
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
