"""What broken, stolen and frozen loudspeakers cost the others: nothing. On real sockets, and with a frozen process."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from links import DEVICE_KEY, sample_message
from test_loudspeaker_ws import BATCH, Village, connected, heard, hello_of, key_of, play, receipt, serving, sounds

from channels._loudspeaker_connection import Connection
from gateway.channel import Play
from gateway.model import Report, State

FORGED = 2_000
# A device in a process of its own: an address, a name, a key, the gateway's public key, a log.
DEVICE = """
import asyncio, sys
from pathlib import Path
from gateway.simulate.log import Log
from gateway.simulate.speaker import Fleet, Options
url, name, key, pin, log = sys.argv[1:]
async def run():
    options = Options(play_s=0.0, backoff_s=0.01, backoff_max_s=0.02)
    async with Fleet(url, [(name, key)], Log(Path(log)), options, (pin,)):
        await asyncio.Event().wait()
asyncio.run(run())
"""


class Device(Connection):
    """A device without a socket, which is written to when the test says."""

    def __init__(self, device: int, village: Village) -> None:
        super().__init__(device, f"horn-{device}")
        self.village = village
        self.writing = asyncio.Event()
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def write(self, frame: bytes) -> None:
        self.writing.set()
        await self.may_write.wait()

    async def part(self, code: int) -> None:
        self.village.channel.leave(self, self.village)


async def test_a_device_that_freezes_is_noticed_and_hears_what_is_live_once_it_thaws(tmp_path: Path) -> None:
    """Half-open: its kernel still takes every byte. Shown as there, it would keep a person from telephoning."""
    async with serving("horn-1", heartbeat_s=0.2) as village:
        device = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            DEVICE,
            village.url,
            "horn-1",
            key_of("horn-1"),
            DEVICE_KEY.pin,
            tmp_path / "sound.jsonl",
        )
        try:
            await village.until(lambda: len(village.channel.held()) == 1)
            device.send_signal(signal.SIGSTOP)
            village.want(play(0, 1000))
            await village.round()
            await village.until(lambda: (1000, "offline") in village.presence())
            assert not village.channel.held()
            assert village.said() == [], "it was written to a socket, and nobody claims more"
            device.send_signal(signal.SIGCONT)
            await village.until(lambda: not village.wanted)
        finally:
            device.kill()
            await device.wait()
    assert village.said()[-1] == (State.PLAYED, "played")
    assert [one["device"] for one in sounds(tmp_path)] == ["horn-1"], "once, though it was commanded twice"


async def test_forged_receipts_by_the_thousand_paint_no_village_green_and_keep_nobody_waiting() -> None:
    """A stolen key: it speaks of every position there is, while its neighbour reports what it really played."""
    async with (
        serving("thief", "horn-1") as village,
        connected(village, "thief") as thief,
        connected(village, "horn-1") as horn,
    ):
        await village.channel.command([play(7, 1001)], village)
        await heard(horn)
        for position in range(FORGED):
            await thief.send_str(receipt(position))
        await horn.send_str(receipt(7, "playing"))
        assert (await heard(horn))["state"] == "playing"
        refused = [await heard(thief) for _ in range(FORGED)]
        assert {answer["code"] for answer in refused} == {"not_commanded"}
        reports = [event for event in village.events if isinstance(event, Report)]
        assert [(one.position, one.state) for one in reports] == [(7, State.DELIVERED)]


async def held(village: Village, *devices: Device) -> None:
    """Let devices join and say hello."""
    for device in devices:
        await village.channel.join(device, village)
        await village.channel.hear(device, hello_of().encode(), village)
    await village.until(lambda: len(village.channel.held()) == len(devices))


async def test_no_receipt_is_committed_amid_a_broadcast_and_all_are_behind_it() -> None:
    """The last village's warning goes before the first one's receipt."""
    async with serving("horn-1", "horn-2") as village:
        quick, slow = Device(1000, village), Device(1001, village)
        await held(village, quick, slow)
        slow.may_write.clear()
        plays = [Play(BATCH, position, 1000 + position, sample_message()) for position in range(2)]
        broadcast = asyncio.create_task(village.channel.command(plays, village))
        await slow.writing.wait()
        commits = len(village.commits)
        await village.channel.hear(quick, receipt(0, "playing").encode(), village)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(village.commits) == commits
        slow.may_write.set()
        await broadcast
        await village.until(lambda: len(village.commits) > commits)
        assert village.said() == [(State.DELIVERED, "playing")]
        await village.channel.close()


async def test_a_fleet_that_comes_at_once_is_noted_in_groups() -> None:
    """A commit for each of six thousand devices would be the slowest thing in the hour the warning is needed."""
    names = [f"horn-{number}" for number in range(200)]
    async with serving(*names) as village:
        await held(village, *(Device(1000 + number, village) for number in range(len(names))))
        await village.until(lambda: len(village.presence()) == len(names))
        assert (len(village.commits), village.wakes) == (1, 1)
        await village.channel.close()
