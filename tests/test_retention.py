"""What devices leave behind, on SQLite and PostgreSQL: counted where it comes too often, removed where it is over."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from test_store import NOW, HandClock, commanded, hand, repeating, reported, store

from gateway.model import DeviceEvent, OrderReceipt, Record, State
from gateway.store import Store, retention
from gateway.store.retention import COMMANDS, PROOF, ROUTINE, Retention

__all__ = ["hand", "store"]  # its fixtures


async def rows(store: Store, table: str) -> int:
    (found,) = await store.database.read(lambda tx: tx.all(f"SELECT COUNT(*) FROM {table}"))
    return int(found[0])


async def removed(store: Store, hand: HandClock, after: timedelta) -> None:
    """Let so much time pass, and remove what is over by then."""
    hand.advance(after.total_seconds())
    await Retention(store.database, hand).work()


async def test_finished_commands_go_a_week_after_their_warning_and_open_ones_stay(
    store: Store, hand: HandClock
) -> None:
    """Six thousand rows a warning, for ever, would slow the one that counts; a device that was away must still stop."""
    batch = await repeating(store)
    await store.commands.take({batch.id: [0, 1, 2, 3]})
    await reported(store, batch, 0, State.PLAYED)
    assert await store.outbox.stop(batch.alert, "recalled", Record(NOW, "t", "recall", batch.alert))
    await reported(store, batch, 1, State.FAILED, "stopped")
    await removed(store, hand, COMMANDS)
    assert await rows(store, "device_command") == 4  # the warning itself would have ended three hours later
    await removed(store, hand, timedelta(hours=4))
    assert await commanded(store, batch) == []  # too late to be told, and still open: whoever settles it ends it
    assert await rows(store, "device_command") == 3
    assert (await store.ledger.counts(batch.alert))[("loudspeaker_ws", "officials", "played")] == 1


async def test_a_live_warning_keeps_its_commands_however_long_it_lasts(store: Store, hand: HandClock) -> None:
    """A drought warning stands for a month, and is to fall silent when it is called off."""
    await repeating(store)
    await removed(store, hand, timedelta(days=30))
    assert await rows(store, "device_command") == 4


@pytest.mark.parametrize("step", [1, 1000])
async def test_orders_go_by_who_gave_them(
    store: Store, hand: HandClock, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """What the policy does every hour is routine; who tested a village's loudspeaker, and what came of it, is proof."""
    monkeypatch.setattr(retention, "STEP", step)
    later = NOW + timedelta(days=4000)
    for request, actor in (("p", "policy"), ("h", "bureau/duty"), ("o", "policy")):
        await store.orders.add(request, [1, 2], "clock", {}, later, Record(NOW, actor, "order:clock", request))
        if request != "o":
            await store.orders.settle([OrderReceipt(f"{request}.{at}", at + 1, done=True, at=NOW) for at in (0, 1)])
    await removed(store, hand, ROUTINE)
    assert await rows(store, "device_order") == 4  # the bureau's, and what is still open
    await removed(store, hand, PROOF)
    assert await rows(store, "device_order") == 2


async def test_an_alarm_stays_until_somebody_has_decided_and_then_for_three_years(
    store: Store, hand: HandClock
) -> None:
    """A village that rang and was not heard must not be tidied away."""
    await repeating(store)
    for device in (100, 101):
        assert await store.sounded.keep([DeviceEvent(device, "alarm", NOW, "a1")]) == 1
    first, _ = await store.sounded.recent(["411726"], NOW - timedelta(days=1), 10)
    record = Record(NOW, "duty", "answer", first.id)
    assert await store.obligations.answer(first.id, "village_alarm", "refer", "", record)
    await removed(store, hand, PROOF - timedelta(days=1))
    assert await rows(store, "village_alarm") == 2
    await removed(store, hand, timedelta(days=2))
    assert await rows(store, "village_alarm") == 1


# --- counted ----------------------------------------------------------------------------------------------------------


async def lines(store: Store, kind: str) -> list[str]:
    return [one.detail for _, one, _ in await store.audit.records(limit=1000) if one.action == kind]


def replaced(device: int, at: datetime, code: str = "10.0.0.7") -> DeviceEvent:
    return DeviceEvent(device, "replaced", at, code)


async def test_a_device_that_flaps_has_one_line_a_minute_and_a_number(store: Store, hand: HandClock) -> None:
    """Two devices of one name push each other out a hundred times a second; the chain keeps every line for ever."""
    for _ in range(50):
        await store.devices.fold([replaced(1, hand.now()), replaced(2, hand.now(), "10.0.0.8")])
        hand.advance(1)
    assert await lines(store, "replaced") == ["10.0.0.7", "10.0.0.8"]
    await store.devices.tell_more()
    assert len(await lines(store, "replaced")) == 2  # its minute is not over
    hand.advance(10)
    await store.devices.tell_more()
    await store.devices.tell_more()
    assert await lines(store, "replaced") == [
        "10.0.0.7",
        "10.0.0.8",
        "49 more within a minute",
        "49 more within a minute",
    ]
    await store.devices.fold([replaced(1, hand.now())])
    assert (await lines(store, "replaced"))[4:] == ["10.0.0.7"]
    assert (await store.audit.verify())[1] == ""


async def test_what_was_counted_is_told_with_the_next_line(store: Store, hand: HandClock) -> None:
    """Also in one commit of many: nothing a device did is lost, whoever looks first."""
    await store.devices.fold([replaced(1, NOW + timedelta(seconds=at)) for at in range(0, 150, 10)])
    assert await lines(store, "replaced") == [
        "10.0.0.7", "5 more within a minute", "10.0.0.7", "5 more within a minute", "10.0.0.7",
    ]  # fmt: skip
    await store.devices.fold([DeviceEvent(1, "fault", NOW, "amplifier")])
    assert await lines(store, "fault") == ["amplifier"]  # of another kind, so at once


async def test_a_button_that_is_pressed_on_and_on_is_one_alarm_a_minute(store: Store, hand: HandClock) -> None:
    """A device in wrong hands must not fill the page, the chain and the disk; each village still rings."""
    await repeating(store)
    for number in range(30):
        await store.sounded.keep([DeviceEvent(100, "alarm", hand.now(), f"a{number}")])
        hand.advance(1)
    assert await store.sounded.keep([DeviceEvent(101, "alarm", hand.now(), "b1")]) == 1
    hand.advance(40)
    assert await store.sounded.keep([DeviceEvent(100, "alarm", hand.now(), "later")]) == 1
    assert await rows(store, "village_alarm") == 3
    assert await lines(store, "village_alarm") == ["100", "101", "29 more within a minute", "100"]
