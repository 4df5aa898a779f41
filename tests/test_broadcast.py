"""What villages hear over the life of a warning, judged by the log of the simulated loudspeakers."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_pipeline import DEVICES, OFFICIALS, Desk, desk, until
from town import FLOWER, FLOWER_1

from gateway.app import App
from gateway.device_key import DeviceKeys
from gateway.model import Kind, Level, State
from gateway.policy.hazard import CHINA
from gateway.settings import Settings, data_folder
from gateway.simulate.log import Log, read
from gateway.simulate.speaker import Fleet, Options

CHANNELS = "[noop]\n[loudspeaker_ws]\nrepeat = 1\n"


def quiet_hours(night: bool, now: datetime) -> str:
    """Return hours of the policy between which `now` lies, or does not."""
    here = now.astimezone(CHINA)
    late = here.time() >= time(20)
    soon, before = (here + timedelta(hours=2)).strftime("%H:%M"), (here - timedelta(hours=1)).strftime("%H:%M")
    if night:
        return f'from = "{before}"\nuntil = "00:30"\nresume = "00:30"' if late else (
            f'from = "23:59"\nuntil = "{soon}"\nresume = "{soon}"'
        )  # fmt: skip
    return 'from = "23:59"\nuntil = "00:01"\nresume = "00:01"'


class Valley:
    """A gateway with two loudspeakers, and what they sound."""

    def __init__(self, one: Desk, log: Path) -> None:
        self.desk = one
        self.core = one.core
        self._log = log

    def heard(self, kind: str, alert: str) -> list[str]:
        """Devices that began (`sound`) or ended (`end`) an alert."""
        return sorted(entry["device"] for entry in read(self._log, kind) if entry["id"] == alert)

    def ends(self, alert: str) -> list[str]:
        """How its announcements ended."""
        return [entry["how"] for entry in read(self._log, "end") if entry["id"] == alert]

    async def commands(self, alert: str) -> list[tuple[str, str, int]]:
        """Its desired state: (device, want, finished)."""
        return await self.core.store.database.read(
            lambda tx: [
                (str(name), str(want), int(finished))
                for name, want, finished in tx.all(
                    "SELECT d.name, c.want, c.finished FROM device_command c JOIN device d ON d.id = c.device"
                    " WHERE c.alert = :alert ORDER BY d.name",
                    alert=alert,
                )
            ]
        )


@asynccontextmanager
async def valley(folder: Path, *, night: bool = False, play_s: float = 3600.0) -> AsyncIterator[Valley]:
    """Run a gateway and two loudspeakers, by day or by night."""
    config = folder / "config"
    shutil.copytree(data_folder("config"), config)
    quiet = config / "policy" / "quiet.toml"

    class Here(App):
        """A gateway with the hours of this test."""

        def __init__(self, settings: Settings, *rest: Any, **more: Any) -> None:
            super().__init__(settings.model_copy(update={"config": config}), *rest, **more)
            text = quiet.read_text("utf8")
            hours = quiet_hours(night, self.clock.now())
            quiet.write_text(
                re.sub(r'^from = .*?^resume = "[^"]*"', hours, text, flags=re.DOTALL | re.MULTILINE), "utf8"
            )

    async with desk(folder, channels=CHANNELS, build=Here) as one:
        log = folder / "speakers.log"
        pins = DeviceKeys.load(one.app.settings.device_keys).pins
        url, options = f"http://127.0.0.1:{one.app.port}", Options(play_s=play_s, backoff_max_s=1)
        async with Fleet(url, [(row[0], row[2]) for row in DEVICES], Log(log), options, pins):
            yield Valley(one, log)


@pytest.mark.parametrize("night", [False, True], ids=["day", "night"])
async def test_a_cancel_silences_a_broadcast_and_the_all_clear_follows_when_the_hour_allows(
    tmp_path: Path, night: bool
) -> None:
    """D13, D14: a warning that has ended must not go on sounding; nobody is woken to hear that it is over."""
    async with valley(tmp_path, night=night) as one:
        issued = await one.desk.issue(one.desk.alert([FLOWER]))
        await until(lambda: len(one.heard("sound", issued.alert)) == 2)
        cancel = await one.core.decisions.cancel(issued.alert, one.desk.who("issuer"), "")
        await one.core.decisions.approve(cancel.alert, one.desk.who("signer"))
        await until(lambda: one.ends(issued.alert) == ["stopped", "stopped"])
        row = await one.core.store.outbox.alert(cancel.alert)
        assert row is not None
        assert row.plan.supersedes == (issued.alert,)
        if night:
            await until(lambda: _all(one, issued.alert, ("stop", 1)))
            assert one.heard("sound", cancel.alert) == []
            assert await one.commands(cancel.alert) == [], "its step waits for the morning"
        else:
            await until(lambda: one.heard("sound", cancel.alert) == ["lb-1", "lb-2"])


async def test_an_update_takes_the_place_of_what_sounds(tmp_path: Path) -> None:
    """T24: a village hears one version at a time, and the newer one at once."""
    async with valley(tmp_path) as one:
        first = one.desk.alert([FLOWER])
        old = await one.desk.issue(first)
        await until(lambda: len(one.heard("sound", old.alert)) == 2)
        new = await one.desk.issue(one.desk.alert([FLOWER], Kind.UPDATE, first))
        if new.result == "held":
            await one.core.decisions.approve(new.alert, one.desk.who("signer"))
        await until(lambda: one.heard("sound", new.alert) == ["lb-1", "lb-2"])
        assert one.ends(old.alert) == ["stopped", "stopped"]
        await until(lambda: _all(one, old.alert, ("stop", 1)))


async def test_a_village_whose_head_has_answered_is_hushed_and_its_neighbour_is_not(tmp_path: Path) -> None:
    """D13: red repeats until a person of the very village answers."""
    async with valley(tmp_path, play_s=0.05) as one:
        issued = await one.desk.issue(one.desk.alert([FLOWER]))
        assert one.desk.alert([FLOWER]).level is Level.RED
        await until(lambda: _played(one, issued.alert))
        person = one.core.vault.person_id(OFFICIALS[0][1], OFFICIALS[0][0])
        assert await one.core.receipts.confirm(issued.alert, person, "phone", "duty")
        await until(lambda: _is(one, issued.alert, [("lb-1", "hush", 1), ("lb-2", "repeat", 1)]))
        assert DEVICES[0][1] == FLOWER_1


async def _all(one: Valley, alert: str, wanted: tuple[str, int]) -> bool:
    return [found[1:] for found in await one.commands(alert)] == [wanted, wanted]


async def _is(one: Valley, alert: str, wanted: list[tuple[str, str, int]]) -> bool:
    return await one.commands(alert) == wanted


async def _played(one: Valley, alert: str) -> bool:
    counts = await one.core.store.ledger.counts(alert)
    return sum(number for (*_, state), number in counts.items() if state == State.PLAYED.name.lower()) == 2
