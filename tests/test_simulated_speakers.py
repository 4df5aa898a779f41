"""The simulated fleet: what each fault looks like from the gateway, and what was really heard."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from device_gateway import KEY, NAME, VILLAGE, Gateway, gateway_of, order, play

from gateway.errors import ConfigError
from gateway.simulate.character import shares
from gateway.simulate.log import Log, read
from gateway.simulate.speaker import Character, Device, Fleet, Options

QUICK = Options(play_s=0.0, backoff_s=0.01, backoff_max_s=0.02, resend_s=60.0)


@asynccontextmanager
async def speaker(gateway: Gateway, tmp_path: Path, **options: Any) -> AsyncIterator[Fleet]:
    """Run one loudspeaker; it has said hello at the beginning of the block."""
    log = Log(tmp_path / "sound.jsonl")
    devices = [Device(NAME, KEY, VILLAGE)]
    async with Fleet(gateway.url, devices, log, replace(QUICK, **options), (gateway.signer.pin,)) as fleet:
        await gateway.hears(type="hello")
        yield fleet
    log.close()


def heard(tmp_path: Path) -> list[str]:
    return [entry["id"] for entry in read(tmp_path / "sound.jsonl", "sound")]


async def test_a_lying_device_says_that_it_played(tmp_path: Path) -> None:
    """The gateway must tell by the seconds that nothing was heard."""
    async with gateway_of() as gateway, speaker(gateway, tmp_path, lying=1.0):
        await gateway.tell(play())
        assert (await gateway.hears(state="played"))["heard_s"] <= 0.1
    assert heard(tmp_path) == []


async def test_a_deaf_device_plays_and_says_nothing(tmp_path: Path) -> None:
    """Its village is a gap on the map, whatever was heard there."""
    async with gateway_of() as gateway, speaker(gateway, tmp_path, deaf=1.0):
        await gateway.tell(play())
        async with asyncio.timeout(20):
            while not read(tmp_path / "sound.jsonl", "end"):  # noqa: ASYNC110  # a file has no event
                await asyncio.sleep(0.01)
        assert gateway.states(1) == []
    assert heard(tmp_path) == ["a"]


async def test_a_stuck_device_does_not_read_and_does_not_go(tmp_path: Path) -> None:
    """A half-open line looks alive until somebody asks."""
    async with gateway_of() as gateway, speaker(gateway, tmp_path, stuck=1.0, stuck_s=0.2):
        await gateway.tell(play())
        await gateway.until(lambda: gateway.connections == 3)
        assert gateway.states(1) == []
    assert heard(tmp_path) == []


async def test_a_slow_reader_hears_everything_late(tmp_path: Path) -> None:
    """It must cost its neighbours nothing, and nothing itself but time."""
    async with gateway_of() as gateway, speaker(gateway, tmp_path, slow=1.0, slow_s=0.01):
        for number in range(5):
            await gateway.tell(play(f"v{number}"))
        await gateway.hears(state="played", id="v4")
    assert heard(tmp_path) == [f"v{number}" for number in range(5)]


async def test_a_device_whose_clock_is_a_day_wrong_plays_what_is_valid_and_nothing_else(tmp_path: Path) -> None:
    """Half the boxes in the field have no battery behind their clock."""
    async with gateway_of() as gateway, speaker(gateway, tmp_path, skewed=1.0):
        state = await gateway.hears(type="state")
        assert datetime.fromisoformat(state["clock"]) - datetime.now(UTC) > timedelta(hours=23)
        await gateway.tell(play("valid", valid_s=60))
        await gateway.hears(state="played")
        await gateway.tell(play("old", at=datetime.now(UTC) - timedelta(hours=2)))
        await gateway.hears(state="failed", code="expired")
    assert heard(tmp_path) == ["valid"]


async def test_a_forging_device_speaks_for_its_neighbour(tmp_path: Path) -> None:
    """A stolen key must not paint other villages green."""
    async with gateway_of() as gateway, speaker(gateway, tmp_path, forging=1.0):
        await gateway.tell(play(), position=7)
        await gateway.hears(state="played", position=8)
    assert heard(tmp_path) == ["a"]


async def test_a_doubled_device_is_there_twice(tmp_path: Path) -> None:
    """Somebody has copied its card."""
    async with gateway_of() as gateway, speaker(gateway, tmp_path, doubled=1.0):
        await gateway.until(lambda: len(gateway.sockets) == 2)
        await gateway.tell(play())
        await gateway.hears(state="played")
        assert gateway.connections == 2
    assert heard(tmp_path) == ["a"]


async def test_an_oversized_frame_is_really_too_long(tmp_path: Path) -> None:
    """Firmware that has gone mad."""
    async with gateway_of() as gateway, speaker(gateway, tmp_path, oversized=1.0):
        await gateway.until(lambda: any(len(str(frame)) > 4096 for frame in gateway.heard))
        await gateway.tell(play())
        await gateway.hears(state="played")
    assert heard(tmp_path) == ["a"]


async def test_what_somebody_on_the_line_says_again_is_not_heard_again(tmp_path: Path) -> None:
    """Each frame twice, under other names, and once more after every reconnection, a cancelled one among them."""
    async with gateway_of() as gateway, speaker(gateway, tmp_path, replayed=1.0):
        await gateway.tell(play("a", every_s=3000))
        await gateway.hears(state="played", id="a")
        await gateway.tell(order("stop", "b"))
        await gateway.tell(play("b"))
        await gateway.hears(state="stopped", id="b")
        await gateway.drop()
        await gateway.until(lambda: gateway.connections == 2)
        await gateway.tell(play("c"))
        await gateway.hears(state="played", id="c")
    assert heard(tmp_path) == ["a", "c"]


async def test_a_voiceless_device_fetches_the_recording(tmp_path: Path) -> None:
    """Without one it says so; with another than was signed it stays silent. It comes in pieces."""
    data = "录音".encode() * 100_000
    async with gateway_of() as gateway, speaker(gateway, tmp_path, voiceless=1.0):
        assert {"speech": False, "audio": True}.items() <= (await gateway.hears(type="hello")).items()
        gateway.files = {"good": data, "bad": data[::-1]}
        digest = hashlib.sha256(data).hexdigest()
        gateway.files["longer"] = data + b"!"
        for name in ("good", "bad", "longer"):
            sound = {"url": f"{gateway.url}/audio/{name}", "sha256": digest, "size": len(data), "duration_s": 12.5}
            await gateway.tell(play(name, audio=sound))
        assert (await gateway.hears(state="played", id="good"))["heard_s"] == 12.5
        await gateway.hears(state="failed", id="bad", code="bad_audio")
        await gateway.hears(state="failed", id="longer", code="bad_audio")
        await gateway.tell(play("text"))
        await gateway.hears(state="failed", id="text", code="no_speech")
    assert heard(tmp_path) == ["good"]


async def test_orders_and_buttons_work_as_on_a_real_one(tmp_path: Path) -> None:
    """A fleet is for rehearsing the duty room's whole night."""
    async with gateway_of() as gateway, speaker(gateway, tmp_path) as fleet:
        await gateway.tell(order("volume", "o1", volume=40), 0, batch="order")
        await gateway.hears(order="o1", state="done")
        await gateway.hears(type="state", volume=40)
        fleet.press(f"alarm {NAME}")
        await gateway.hears(type="alarm")
        fleet.press(f"speak {NAME}")
        await gateway.tell(play())
        await gateway.hears(state="busy", code="live_speech")
        fleet.press(f"quiet {NAME}")
        await gateway.hears(state="played")
        with pytest.raises(ConfigError, match="name of a device"):
            fleet.press("alarm horn-9")
        with pytest.raises(ConfigError, match="alarm, speak or quiet"):
            fleet.press(f"sing {NAME}")


async def test_a_fleet_that_pins_another_key_obeys_nobody(tmp_path: Path) -> None:
    """As a real one."""
    async with gateway_of() as gateway, Fleet(gateway.url, [(NAME, KEY)], Log(tmp_path / "sound.jsonl"), QUICK):
        await gateway.hears(type="hello")
        await gateway.tell(play())
        await gateway.hears(state="failed", code="bad_signature")
    assert heard(tmp_path) == []


async def test_devices_say_how_they_are_in_turns(tmp_path: Path) -> None:
    """Six thousand at once would be a storm every five minutes."""
    async with gateway_of() as gateway, speaker(gateway, tmp_path, state_s=0.3):
        await gateway.until(lambda: sum(frame["type"] == "state" for frame in gateway.heard) >= 3)
        assert gateway.connections == 1  # none of them was the first word of a new connection


def test_every_fault_has_its_share() -> None:
    """What the command line takes is what the fleet does."""
    for character in Character:
        if character is not Character.SOUND:
            assert Options(**{character.value: 1.0}).character("horn-1") is character  # type: ignore[arg-type]  # names of shares alone
    assert Options().character("horn-1") is Character.SOUND
    assert shares(["lying=0.1", "deaf=0.2"]) == {"lying": 0.1, "deaf": 0.2}


@pytest.mark.parametrize("text", ["", "lying", "lying=x", "lying=2", "lying=-1", "lying=nan", "sound=1", "odd=0.1"])
def test_a_wrong_fault_is_refused(text: str) -> None:
    """A rehearsal without its fault proves nothing."""
    with pytest.raises(ConfigError, match="NAME=SHARE"):
        shares([text])
    with pytest.raises(ConfigError, match="more than all"):
        shares(["lying=0.7", "deaf=0.7"])
