"""Channels as installed and configured: the files of `channels/`, `channels.toml`, and the plan's pools over them.

The only file of the gateway that imports channels.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import tomllib
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import channels as channel_folder
from gateway.carrier import Carriers
from gateway.channel import Channel
from gateway.errors import ConfigError
from gateway.link import Rate
from gateway.policy import Policy
from gateway.road import NO_ROADS, Roads, served_by


class RateTable(BaseModel):
    """One row of `[rates]`."""

    model_config = ConfigDict(extra="forbid")

    per_s: float = Field(gt=0, allow_inf_nan=False)
    burst: int = Field(ge=1)
    green: int = Field(default=0, ge=0)


def channel_classes() -> dict[str, type[Channel]]:
    """Find every channel: one class per file of `channels/`; files starting with `_` are codecs.

    Raises:
        ConfigError: a file that cannot be read, or without exactly one channel of its own.
    """
    found: dict[str, type[Channel]] = {}
    for module in pkgutil.iter_modules(channel_folder.__path__):
        if module.name.startswith("_"):
            continue
        loaded = _loaded(module.name)
        own = [
            value for value in vars(loaded).values()
            if isinstance(value, type) and issubclass(value, Channel) and value.__module__ == loaded.__name__
        ]  # fmt: skip
        if len(own) != 1:
            raise ConfigError(f"channels/{module.name}.py must define exactly one channel, it defines {len(own)}")
        own[0].name = module.name
        found[module.name] = own[0]
    return found


def _loaded(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"{channel_folder.__name__}.{name}")
    except Exception as error:
        # Whatever a file does wrong while it is read is a fault of that file: name its line, not our stack.
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(f"{name}.py")
        ]
        line = error.lineno if isinstance(error, SyntaxError) else next(reversed(lines), None)
        where = f"channels/{name}.py" + (f" line {line}" if line else "")
        what = error.msg if isinstance(error, SyntaxError) else error
        raise ConfigError(f"{where}: {type(error).__name__}: {what}") from error


def load_channels(path: Path) -> tuple[dict[str, Channel], dict[str, Rate]]:
    """Read `channels.toml`: the enabled channels, and the rates of their accounts.

    Raises:
        ConfigError: file, table and key that are wrong.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf8"))
        rates = {name: Rate(**RateTable(**row).model_dump()) for name, row in table.pop("rates", {}).items()}
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name}: not valid TOML: {error}") from None
    except (ValidationError, TypeError):
        raise ConfigError(f"{path.name}: [rates]: write NAME = {{ per_s = 100, burst = 100, green = 20 }}") from None
    classes = channel_classes()
    built: dict[str, Channel] = {}
    for name, row in table.items():
        if name not in classes:
            raise ConfigError(f"{path.name}: no channel {name}; there are {', '.join(sorted(classes))}")
        try:
            settings = classes[name].Settings(**{key: _secret(value) for key, value in row.items()})
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
            raise ConfigError(f"{path.name}: [{name}] {wrong}") from None
        if settings.enabled:
            built[name] = classes[name](settings)
    return built, rates


def roads_of(config: Path, policy: Policy, channels: Mapping[str, Channel]) -> Roads:
    """Return the pools of the plan over the channels that are on.

    Raises:
        ConfigError: the table of prefixes is missing or wrong.
    """
    if not any(road in channels for roads in policy.pools.values() for road in roads):
        return NO_ROADS
    return Roads(
        policy.pools, {name: served_by(one) for name, one in channels.items()}, Carriers.load(config / "carriers.csv")
    )


def _secret(value: object) -> object:
    """Read "env:NAME" from the environment, in tables and lists within, too."""
    if isinstance(value, dict):
        return {key: _secret(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_secret(one) for one in value]
    if isinstance(value, str) and value.startswith("env:"):
        name = value.removeprefix("env:")
        if name not in os.environ:
            raise ConfigError(f"channels.toml: the environment has no {name}")
        return os.environ[name]
    return value
