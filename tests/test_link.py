"""A channel's door to the gateway, and how much of the store's green work one process picks up at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest
from links import DEVICE_KEY
from test_store import alert, batch_of

from channels.noop import Noop, NoopSettings
from gateway.broker.local import LocalBroker
from gateway.channel import Device
from gateway.errors import Throttled
from gateway.link import GatewayLink, Rate
from gateway.model import Batch, Lane
from gateway.ports import State
from gateway.relay import PREFETCH, Worker
from gateway.sender import Sender
from gateway.state.fallback import SHARE, FallbackState
from gateway.state.local import LocalState
from gateway.state.redis import RedisState
from gateway.store.codec import pack


def link_to(channel: str, rates: dict[str, Rate], state: State, directory: Any = None) -> GatewayLink:
    """Return a link that is asked for nothing but its pace, and for devices where there is a directory."""
    unasked = cast(Any, None)
    return GatewayLink(
        channel, rates, state, unasked, unasked, unasked, directory, lambda: None, DEVICE_KEY.sign, None, unasked
    )


class Busy(Sender):
    """A sender whose batches stay under way until they are released."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.released = asyncio.Event()

    async def send(self, batch: Batch) -> None:
        self.begun.append(batch.id)
        await self.released.wait()


async def settle_down() -> None:
    """Let every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_pickup_starts_no_more_than_the_channel_bears() -> None:
    """A sweep that finds 200 batches must not open 200 times the connections a carrier allows; each goes out once."""
    channel, sender = Noop(NoopSettings()), Busy()
    worker = Worker(LocalBroker(), sender, {"noop": channel})
    batches = [batch_of(alert(), number=number) for number in range(200)]
    for _ in range(2):
        for batch in batches:
            worker.direct(pack(replace(batch)))
    await settle_down()
    assert len(sender.begun) == channel.concurrency * PREFETCH[Lane.GREEN]
    sender.released.set()
    await settle_down()
    assert sorted(sender.begun) == sorted(batch.id for batch in batches)


async def test_a_slice_that_must_wait_long_is_throttled_and_green_has_its_reserve() -> None:
    """Rule 5: residents' texts use up all but what the officials' need."""
    state = LocalState(now=lambda: 0.0)
    link = link_to("noop", {"noop": Rate(1.0, 100, 20)}, state)
    await link.pace("noop", 80, Lane.BULK)
    with pytest.raises(Throttled) as throttled:
        await link.pace("noop", 10, Lane.BULK)
    assert throttled.value.after_s == 10
    await link.pace("noop", 20, Lane.GREEN)
    await link.pace("other", 1000, Lane.BULK)


async def granted(link: GatewayLink, account: str, lane: Lane, most: int) -> int:
    """Ask for one message after another until told to wait; return how many may leave."""
    for number in range(most):
        try:
            await link.pace(account, 1, lane)
        except Throttled:
            return number
    return most


async def test_two_hubs_together_keep_to_one_accounts_rate_and_to_its_reserve(redis_url: str, namespace: str) -> None:
    """A carrier that is sent one message a second too many closes the account; officials go before all residents."""
    account = "sms_cmpp/yidong-1"
    rates = {account: Rate(0.001, 40, 10)}  # as good as never refilled: what is counted is the burst
    states = [RedisState(redis_url, namespace) for _ in range(2)]
    hubs = [link_to("sms_cmpp", rates, one) for one in states]
    bulk = await asyncio.gather(*(granted(hub, account, Lane.BULK, 100) for hub in hubs for _ in range(4)))
    assert sum(bulk) == 30
    green = await asyncio.gather(*(granted(hub, account, Lane.GREEN, 100) for hub in hubs))
    assert sum(green) == 10
    assert await granted(hubs[0], "sms_cmpp/yidong-2", Lane.BULK, 100) == 100, "an account without a rate has no limit"
    for one in states:
        await one.close()


async def test_hubs_that_cannot_see_each_other_keep_to_a_share_of_the_rate(namespace: str) -> None:
    """Redis gone, delivery goes on: up to four hubs together stay within what the account allows."""
    account = "sms_cmpp/yidong-1"
    state = FallbackState(RedisState("redis://127.0.0.1:1/0", namespace))
    hub = link_to("sms_cmpp", {account: Rate(0.001, 40, 10)}, state)
    bulk, green = await granted(hub, account, Lane.BULK, 100), await granted(hub, account, Lane.GREEN, 100)
    assert bulk + green == 40 * SHARE
    assert green >= 10 * SHARE
    await state.close()


async def test_a_device_may_connect_by_its_own_channel_only() -> None:
    """A key stolen from a WebSocket device must not open the broker, nor a village of the platform a socket."""

    class Known:
        async def device(self, name: str) -> Device | None:
            return Device(1, "411726001201", "hash", name)

    links = {name: link_to(name, {}, LocalState(), Known()) for name in ("loudspeaker_ws", "loudspeaker_mqtt")}
    assert await links["loudspeaker_ws"].device("loudspeaker_ws") is not None
    assert await links["loudspeaker_mqtt"].device("loudspeaker_ws") is None
    assert await links["loudspeaker_ws"].device("loudspeaker_ebd") is None
