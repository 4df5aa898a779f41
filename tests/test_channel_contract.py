"""The contract every channel keeps, run on each file in `channels/`.

A new channel is one file, one test, one template. Its test, `test_<name>.py`, offers `contract_case()`, an async
context manager that yields a `Case` whose counterpart runs on loopback; a channel whose settings all have defaults
and whose recipients connect to us needs none.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import re
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from links import TEXT, Case, RecordingLink, sample_message, sample_slice
from pydantic import SecretStr, ValidationError

import channels
from gateway.channel import Channel, PerRecipient, Settings, Sockets
from gateway.errors import ChannelError
from gateway.model import Group, Receipt, State

NAMES = sorted(path.stem for path in Path(channels.__path__[0]).glob("*.py") if not path.stem.startswith("_"))
NOTHING_SENT = (State.QUEUED, State.SKIPPED, State.SUPERSEDED, State.EXPIRED, State.FAILED)


def load(name: str) -> type[Channel]:
    """Return the one channel class of a file, named after the file."""
    module = importlib.import_module(f"channels.{name}")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Channel)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
    assert len(found) == 1, f"channels/{name}.py must hold exactly one channel"
    found[0].name = found[0].name or name
    return found[0]


@asynccontextmanager
async def case_of(name: str) -> AsyncIterator[Case]:
    """Yield the case the channel's own test offers, or a plain one."""
    if importlib.util.find_spec(f"test_{name}") is not None:
        offer = getattr(importlib.import_module(f"test_{name}"), "contract_case", None)
        if offer is not None:
            async with offer() as case:
                yield case
            return
    assert issubclass(load(name), Sockets), f"tests/test_{name}.py must offer contract_case()"
    yield Case(load(name).Settings(), ["device-1", "device-2", "device-3"])


@asynccontextmanager
async def opened(name: str, case: Case, link: RecordingLink) -> AsyncIterator[Channel]:
    channel = load(name)(case.settings)
    await channel.open(link)
    try:
        yield channel
    finally:
        await channel.close()


def shown(receipts: list[Receipt]) -> str:
    """Return everything a log could get to see of receipts."""
    parts = [repr(receipt) for receipt in receipts]
    for receipt in receipts:
        parts += traceback.format_exception(receipt.error) if receipt.error else []
    return "".join(parts)


@pytest.mark.parametrize("name", NAMES)
def test_the_class_says_what_it_can_do(name: str) -> None:
    """The sender plans leases, slices and pools from these facts; a wild one floods a carrier or stalls a lane."""
    channel = load(name)
    assert channel.name == name
    assert re.fullmatch(r"[a-z][a-z0-9_]{1,31}", name)
    assert 1 <= channel.slice <= 1000
    assert 1 <= channel.concurrency <= 64
    assert 0 < channel.answer_s <= 60
    assert channel.text_limit > 0
    assert channel.groups
    assert channel.groups <= frozenset(Group)
    assert issubclass(channel.Settings, Settings)
    assert not issubclass(channel, PerRecipient) or 1 <= channel.pool <= 100


@pytest.mark.parametrize("name", NAMES)
async def test_receipts_come_one_per_position_in_order(name: str) -> None:
    """A receipt that slips by one calls the wrong household warned."""
    link = RecordingLink()
    async with case_of(name) as case, opened(name, case, link) as channel:
        before = case.received() if case.received else 0
        good = list(case.addresses)
        addresses = [good[0], *case.refused, *good[1:]]
        receipts = await channel.send(sample_slice(addresses, first=5), sample_message(), link)
        assert len(receipts) == len(addresses)
        refused = receipts[1 : 1 + len(case.refused)]
        assert all(isinstance(receipt.error, ChannelError) for receipt in refused)
        if case.received is not None:
            reached = [receipt for receipt in receipts if receipt.state not in NOTHING_SENT]
            assert len(reached) == len(good)
            assert case.received() - before == len(good)
        assert await channel.send(sample_slice([]), sample_message(), link) == []
        # The sender paced them before the claim: a second time would halve the account's rate.
        assert not [account for account, _, _ in link.paced if account == name]


@pytest.mark.parametrize("name", NAMES)
async def test_nothing_private_is_ever_shown(name: str) -> None:
    """Codes, errors and tracebacks end in logs and on screens: no number, no text, no secret (rule 9)."""
    link = RecordingLink()
    async with case_of(name) as case, opened(name, case, link) as channel:
        addresses = [*case.addresses, *case.refused]
        visible = shown(await channel.send(sample_slice(addresses), sample_message(), link))
        visible += repr(case.settings) + str(case.settings) + repr(channel)
        private = [*addresses, *case.secrets, TEXT]
        assert not [secret for secret in private if len(secret) > 1 and secret in visible]


@pytest.mark.parametrize("name", NAMES)
async def test_an_unknown_setting_is_refused_without_showing_the_others(name: str) -> None:
    """A misspelt key must stop the start, not the warning; and the message must not print the token beside it."""
    settings = load(name).Settings
    async with case_of(name) as case:
        values: dict[str, Any] = {
            key: value.get_secret_value() if isinstance(value, SecretStr) else value
            for key, value in case.settings.model_dump().items()
        }
        assert settings.model_validate(values) == case.settings
        attempts = [values | {"nonsense": 1}]
        attempts += [
            {key: value for key, value in values.items() if key != missing}
            for missing, info in settings.model_fields.items()
            if info.is_required()
        ]
        for attempt in attempts:
            with pytest.raises(ValidationError) as refused:
                settings.model_validate(attempt)
            assert not [secret for secret in case.secrets if secret in str(refused.value)]


@pytest.mark.parametrize("name", NAMES)
async def test_every_host_is_declared_and_a_simulation_stays_on_loopback(name: str) -> None:
    """Rule 11: what is not declared cannot be refused before the channel is live."""
    async with case_of(name) as case:
        hosts = list(load(name)(case.settings).endpoints())
        assert all(host == "localhost" or ip_address(host).is_loopback for host in hosts)
        assert hosts or case.received is None


@pytest.mark.parametrize("name", NAMES)
async def test_routes_are_distinct_and_under_v1(name: str) -> None:
    """Two channels share one server; a route outside its own corner would shadow another's callbacks."""
    async with case_of(name) as case:
        routes = load(name)(case.settings).routes(RecordingLink())
        pairs = [(route.method, route.path) for route in routes]
        assert len(set(pairs)) == len(pairs)
        assert all(method.isupper() and path.startswith("/v1/") for method, path in pairs)


@pytest.mark.parametrize("name", NAMES)
async def test_closing_is_always_safe(name: str) -> None:
    """A stop during a failed start must end cleanly, or the next start finds a port taken."""
    async with case_of(name) as case:
        before = asyncio.all_tasks()
        channel = load(name)(case.settings)
        await channel.close()
        await channel.open(RecordingLink())
        await channel.close()
        await channel.close()
        assert asyncio.all_tasks() <= before
