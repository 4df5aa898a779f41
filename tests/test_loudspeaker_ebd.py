"""Villages of the emergency-broadcast platform, judged by what the simulated platform says each of them heard."""

from __future__ import annotations

import asyncio
import io
import shutil
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from aiohttp import ClientSession, web
from links import Case, RecordingLink, sample_message, sample_slice
from pydantic import ValidationError
from test_ebd_codec import files_of, tar_of
from test_pipeline import OFFICIALS, Desk, until
from town import FLOWER, FLOWER_1, FLOWER_2, WATER, WATER_1, table

from channels import _ebd_peer
from channels._ebd import Ebd, ebd_id, pack
from channels._ebd_form import ZONE, Check, Terminal, TerminalStates, moment
from channels._ebd_peer import AGAIN_BELOW
from channels._ebd_signature import SoftSigner
from channels.loudspeaker_ebd import LATE, EbdSettings, LoudspeakerEbd
from gateway.app import App
from gateway.channel import Device
from gateway.directory.importer import Importer
from gateway.directory.table import Roster
from gateway.errors import ChannelError, Permanent, Temporary, Unusable
from gateway.model import (
    Batch,
    DeviceEvent,
    Group,
    Job,
    JobState,
    Kind,
    Lane,
    Level,
    Notice,
    Progress,
    Receipt,
    Record,
    Report,
    Rounds,
    Slice,
    State,
    Status,
    VillageState,
)
from gateway.report import status
from gateway.settings import Settings
from gateway.simulate.ebd import GATEWAY, PLATFORM, EbdPlatform, EbdScenario, Party
from gateway.simulate.log import Log, read

CONFIG = Path(__file__).parent.parent / "config"
EAST, WEST = "411726204201", "411726204202"
PLACES = (EAST, WEST)
LONG, SHORT = EbdScenario(play_s=600), EbdScenario(play_s=0)


@dataclass
class Bench:
    """A platform, a channel that talks to it, and what the channel told the gateway."""

    platform: EbdPlatform
    channel: LoudspeakerEbd
    link: RecordingLink
    url: str

    async def send(self, slice_: Slice | None = None, **changes: Any) -> list[Receipt]:
        return await self.channel.send(slice_ or sample_slice(PLACES), sample_message(**changes), self.link)

    def log(self, kind: str) -> list[dict[str, Any]]:
        return read(self.platform.log.path, kind)

    def heard(self) -> list[tuple[str, bool]]:
        """(village, as a drill) of everything that sounded, in order."""
        return [(one["village"], one["drill"]) for one in self.log("sound")]

    @property
    def progress(self) -> list[Progress]:
        return [event for event in self.link.events if isinstance(event, Progress)]

    @property
    def reports(self) -> dict[str, tuple[State, str]]:
        """The last report of each village, by the end of its code."""
        found = [event for event in self.link.events if isinstance(event, Report)]
        return {one.reference[-6:] or PLACES[one.position][6:]: (one.state, one.code) for one in found}

    @property
    def devices(self) -> list[tuple[int, str, str]]:
        return [(one.device, one.kind, one.code) for one in self.link.events if isinstance(one, DeviceEvent)]

    def look_at(self, over: bool = False, since: datetime | None = None, **known: Any) -> None:
        """Let the channel look at the broadcast of the sample slice."""
        was = replace(self.progress[0], **known)
        self.link.events.clear()
        self.link.due.append(Job(was, over, since or datetime.now(UTC), PLACES))

    async def looked(self) -> Progress:
        await until(lambda: self.progress)
        return self.progress[-1]


def settings_of(platform: EbdPlatform, **changes: Any) -> EbdSettings:
    found = tomllib.loads(platform.settings())["loudspeaker_ebd"]
    return EbdSettings.model_validate(found | {"timeout_s": 3, "terminals_s": 0} | changes)


@asynccontextmanager
async def running(folder: Path, scenario: EbdScenario = LONG, **changes: Any) -> AsyncIterator[Bench]:
    platform, link = EbdPlatform(Log(folder / "ebd.jsonl"), scenario), RecordingLink()
    await platform.start()
    channel = LoudspeakerEbd(settings_of(platform, **changes))
    app = web.Application()
    for route in channel.routes(link):
        app.router.add_route(route.method, route.path, route.handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/callbacks/loudspeaker_ebd"
    await channel.open(link)
    try:
        yield Bench(platform, channel, link, url)
    finally:
        await channel.close()
        await runner.cleanup()
        await platform.stop()


@asynccontextmanager
async def contract_case() -> AsyncIterator[Case]:
    with TemporaryDirectory() as directory:
        platform = EbdPlatform(Log(Path(directory) / "ebd.jsonl"), LONG)
        await platform.start()
        key = platform.gateway.private.hex()
        received = lambda: sum(len(cast.areas) for cast in platform.casts.values())  # noqa: E731  # one line, one use
        yield Case(settings_of(platform), PLACES, ["village", "+8613900000001"], [key], received)
        await platform.stop()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(tmp_path) as started:
        yield started


# --- a broadcast ------------------------------------------------------------------------------------------------------


async def test_a_slice_is_one_broadcast_to_its_villages(bench: Bench) -> None:
    """The platform is told where, what and how grave; every village hears it, and once."""
    receipts = await bench.send(hazard="11B03", text="立即转移。")
    assert [(one.state, one.code, one.error) for one in receipts] == [(State.SUBMITTED, "taken", None)] * 2
    (cast,) = bench.log("broadcast")
    assert (cast["msg_type"], cast["areas"], cast["severity"], cast["event"]) == ("1", list(PLACES), "1", "11B03")
    assert cast["title"] == "暴雨红色预警"
    assert bench.heard() == [(EAST, False), (WEST, False)]
    assert {one["text"] for one in bench.log("sound")} == {"立即转移。"}
    asked, taken = bench.progress
    assert (asked.state, taken.state, taken.last) == (JobState.ASKED, JobState.RUNNING, False)
    assert len({one.reference for one in receipts}) == 2


async def test_villages_with_other_words_are_other_broadcasts(bench: Bench) -> None:
    """Each village is told its own shelter; a broadcast that is mistaken for another's repeat is never played."""
    texts = ("去东庄小学", "去西庄小学", "去东庄小学")
    await bench.send(sample_slice([EAST, WEST, "411726204203"]), texts=texts)
    assert [cast["areas"] for cast in bench.log("broadcast")] == [[EAST, "411726204203"], [WEST]]
    assert len({cast["ebm"] for cast in bench.log("broadcast")}) == 2
    assert {(one["village"], one["text"]) for one in bench.log("sound")} == {
        (EAST, "去东庄小学"), (WEST, "去西庄小学"), ("411726204203", "去东庄小学"),
    }  # fmt: skip


@pytest.mark.parametrize("drill", ["3", "4", "5"])
@pytest.mark.parametrize("status_", [Status.EXERCISE, Status.TEST, Status.SYSTEM])
async def test_nothing_but_an_actual_alert_is_heard_as_real(tmp_path: Path, status_: Status, drill: Any) -> None:
    """At most a drill sounds, and only where the installation says so; a system's test never leaves the platform."""
    async with running(tmp_path, drill=drill) as bench:
        await bench.send(status=status_, text="演练：仅演练。")
        (cast,) = bench.log("broadcast")
        assert cast["msg_type"] == (drill if status_ is Status.EXERCISE else "3")
        sounds = status_ is Status.EXERCISE and drill == "5"
        assert bench.heard() == ([(EAST, True), (WEST, True)] if sounds else [])
        with pytest.raises(Permanent, match="draft"):
            await bench.send(status=Status.DRAFT)
        assert len(bench.log("broadcast")) == 1


async def test_a_drill_nobody_hears_is_not_called_played(tmp_path: Path) -> None:
    """The training ledger must not say that a loudspeaker works which has not sounded."""
    async with running(tmp_path, SHORT, drill="4") as bench:
        await bench.send(status=Status.EXERCISE)
        bench.look_at()
        assert (await bench.looked()).last
        assert set(bench.reports.values()) == {(State.DELIVERED, "not_heard")}
        assert bench.devices == []


async def test_a_broadcast_brings_its_sound_where_speech_has_made_one(tmp_path: Path) -> None:
    """The platform's own voice reads 泌阳 wrong; where there is no sound in time, the text is said all the same."""
    async with running(tmp_path, recordings=True) as bench:
        bench.link.recordings = {"立即转移。": b"ID3" + bytes(1000), "太长": bytes(4 << 20)}
        await bench.send(text="立即转移。")
        await bench.send(sample_slice([WEST], first=2), text="没有录音")
        await bench.send(sample_slice([WEST], first=3), text="太长")
        assert [cast["recording_bytes"] for cast in bench.log("broadcast")] == [1003, 0, 0]
        assert {one["text"] for one in bench.log("sound")} == {"立即转移。", "没有录音", "太长"}
    async with running(tmp_path) as bench:
        bench.link.recordings = {"立即转移。": b"ID3"}
        assert not bench.channel.spoken
        await bench.send(text="立即转移。")
        assert bench.log("broadcast")[-1]["recording_bytes"] == 0  # only where somebody has tried it


@pytest.mark.parametrize("share", [0, -0.5, 1.5, 50, "viel"])
def test_a_share_that_is_none_is_refused(tmp_path: Path, share: Any) -> None:
    """Half of the terminals is 0.5: with 50 no village would ever count as played, with 0 each dead one would."""
    with pytest.raises(ValidationError, match="played_share"):
        settings_of(EbdPlatform(Log(tmp_path / "ebd.jsonl"), LONG), played_share=share)


async def test_nothing_begins_after_its_end(bench: Bench) -> None:
    """Rule 4: a six-hour-old warning from a platform's queue frightens people for nothing (T22)."""
    receipts = await bench.send(expires=datetime.now(UTC))
    assert [one.state for one in receipts] == [State.EXPIRED] * 2
    assert bench.log("broadcast") == []


async def test_no_broadcast_goes_on_longer_than_its_warning(bench: Bench) -> None:
    """The platform is told when to end, in case nobody can tell it later."""
    await bench.send(expires=datetime.now(UTC) + timedelta(seconds=90))
    await bench.send(sample_slice(PLACES, attempt=1), text="x")
    first, second = bench.platform.casts.values()
    assert first.until < datetime.now(UTC) + timedelta(seconds=91)
    assert second.until < datetime.now(UTC) + timedelta(seconds=301)


@pytest.mark.parametrize("level", list(Level))
async def test_every_level_is_taken(bench: Bench, level: Level) -> None:
    """A level without a severity would be refused at the worst moment."""
    assert (await bench.send(level=level))[0].state is State.SUBMITTED


# --- once, whatever happens -------------------------------------------------------------------------------------------


async def test_a_lost_answer_is_asked_for_again_and_played_once(bench: Bench) -> None:
    """A village must not hear it twice because an answer was lost, and must not go unwarned because of it either."""
    bench.platform.scenario = replace(LONG, silent=True)
    assert all(isinstance(one.error, Temporary) for one in await bench.send())
    bench.platform.scenario = LONG
    assert [one.state for one in await bench.send(sample_slice(PLACES, attempt=2))] == [State.SUBMITTED] * 2
    assert bench.heard() == [(EAST, False), (WEST, False)]
    assert len(bench.log("again")) == 1


async def test_another_process_asks_under_the_same_number(tmp_path: Path, bench: Bench) -> None:
    """`kill -9` between the platform's yes and our note: whoever comes next is known again."""
    await bench.send()
    other = LoudspeakerEbd(bench.channel.settings)
    await other.open(bench.link)
    await other.send(sample_slice(PLACES, attempt=2), sample_message(), bench.link)
    await other.close()
    assert len(bench.log("broadcast")) == len(bench.log("again")) == 1


async def test_what_one_village_has_reported_meanwhile_does_not_make_the_rest_a_new_broadcast(bench: Bench) -> None:
    """The second try is for fewer villages; it is still the same words to the same township."""
    await bench.send()
    part = replace(sample_slice([WEST], first=1, attempt=2))
    assert [one.state for one in await bench.send(part)] == [State.SUBMITTED]
    assert len(bench.log("broadcast")) == 1


async def test_without_a_note_nothing_is_asked(bench: Bench) -> None:
    """Nobody could cancel what nobody knows of."""
    bench.link.down = True
    receipts = await bench.send()
    assert [(type(one.error), one.code) for one in receipts] == [(Temporary, "store_down")] * 2
    assert bench.log("broadcast") == []


# --- refusals and signatures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error"), [("0", Temporary), ("2", Permanent), ("3", Permanent), ("4", Unusable), ("5", Temporary)]
)
async def test_a_refusal_says_what_to_do(bench: Bench, code: str, error: type[ChannelError]) -> None:
    """What the platform will never take is not asked again; a refused signature pages somebody."""
    bench.platform.scenario = replace(LONG, rejects=code)
    receipts = await bench.send()
    assert [(type(one.error), one.code) for one in receipts] == [(error, f"ebd_{code}")] * 2
    assert bench.progress[-1].last is (error is Permanent)


@pytest.mark.parametrize(
    ("fault", "code"), [({"unsigned": True}, "answer_unsigned"), ({"forged": True}, "answer_wrong_signature")]
)
async def test_an_answer_nobody_signed_is_none(bench: Bench, fault: dict[str, bool], code: str) -> None:
    """Whoever sits in between could say "played" of a village that was never told."""
    bench.platform.scenario = replace(LONG, **fault)  # type: ignore[arg-type]  # its flags
    receipts = await bench.send()
    assert [(type(one.error), one.code) for one in receipts] == [(Temporary, code)] * 2
    bench.look_at()
    await until(lambda: not bench.link.due)
    assert bench.reports == {}


async def test_a_gateway_the_platform_does_not_know_plays_nothing(tmp_path: Path) -> None:
    """Fails closed on the other side, too: our key alone sounds a county's loudspeakers."""
    async with running(tmp_path, key="1" * 64) as bench:
        receipts = await bench.send()
        assert isinstance(receipts[0].error, Unusable)
        assert bench.heard() == []
        assert {one["code"] for one in bench.log("refused")} == {"4"}


async def test_a_slow_platform_is_waited_for_no_longer_than_agreed(tmp_path: Path) -> None:
    """A claim must outlive its send."""
    async with running(tmp_path, replace(LONG, slow_s=1), timeout_s=0.2) as bench:
        assert isinstance((await bench.send())[0].error, Temporary)
    assert LoudspeakerEbd.answer_s > 2 * EbdSettings.model_fields["timeout_s"].default


# --- how it goes ------------------------------------------------------------------------------------------------------


async def test_a_broadcast_is_followed_until_it_was_played(bench: Bench) -> None:
    """Playing is no proof, the end of it is."""
    await bench.send()
    bench.look_at()
    assert (await bench.looked()).state is JobState.RUNNING
    assert set(bench.reports.values()) == {(State.DELIVERED, "playing")}
    bench.platform._end(next(iter(bench.platform.casts.values())), "3")
    bench.link.due.append(Job(bench.progress[-1], False, datetime.now(UTC), PLACES))
    bench.link.events.clear()
    done = await bench.looked()
    assert (done.state, done.last) == (JobState.DONE, True)
    assert bench.reports == {"204201": (State.PLAYED, "played"), "204202": (State.PLAYED, "played")}
    assert bench.devices == []


async def test_a_village_whose_terminals_are_dead_is_a_gap_with_a_fault(tmp_path: Path) -> None:
    """40 % of the county sounds well in a report, and not at all in the village by the river."""
    async with running(tmp_path, replace(SHORT, coverage=0.4)) as bench:
        bench.link.devices = {EAST: device(1), WEST: device(2)}
        await bench.send()
        bench.look_at()
        await bench.looked()
        assert set(bench.reports.values()) == {(State.DELIVERED, "coverage_40")}
        assert bench.devices == [(1, "fault", "coverage_40"), (2, "fault", "coverage_40")]
    async with running(tmp_path, replace(SHORT, dead=frozenset({WEST})), played_share=1.0) as bench:
        bench.link.devices = {EAST: device(1), WEST: device(2)}
        await bench.send()
        bench.look_at()
        await bench.looked()
        assert bench.reports == {"204201": (State.PLAYED, "played"), "204202": (State.FAILED, "coverage_0")}
        assert bench.devices == [(2, "fault", "coverage_0")]


async def test_a_broadcast_that_fails_fails_every_village(tmp_path: Path) -> None:
    """Taken and then not played is a gap, at once."""
    async with running(tmp_path, replace(LONG, failing=True)) as bench:
        bench.link.devices = {EAST: device(1)}
        await bench.send()
        bench.look_at()
        assert (await bench.looked()).last
        assert set(bench.reports.values()) == {(State.FAILED, "failed")}
        assert bench.devices == [(1, "fault", "failed")]


async def test_what_must_run_no_longer_is_cancelled_at_the_platform(bench: Bench) -> None:
    """A mistaken alarm goes on by itself for minutes unless the platform is told to stop."""
    await bench.send()
    bench.look_at(over=True)
    over = await bench.looked()
    assert (over.state, over.last) == (JobState.STOPPED, True)
    assert [one["how"] for one in bench.log("end")] == ["cancelled"]
    assert set(bench.reports.values()) == {(State.FAILED, "stopped")}


async def test_a_broadcast_whose_answer_was_lost_is_cancelled_too(bench: Bench) -> None:
    """The process that asked has died; its note alone is enough to silence the villages."""
    bench.platform.scenario = replace(LONG, silent=True)
    await bench.send()
    bench.platform.scenario = LONG
    bench.look_at(over=True)
    assert (await bench.looked()).state is JobState.STOPPED


async def test_one_the_platform_never_took_is_given_up_only_when_none_can_be_under_way(bench: Bench) -> None:
    """A package still on its way could yet become a broadcast, and one that answers nobody might have it."""
    bench.platform.scenario = replace(LONG, rejects="5")
    await bench.send()
    bench.look_at(over=True)
    await until(lambda: bench.log("refused")[-1]["why"] == "unknown broadcast")
    assert bench.progress == []
    asked = replace(await first_note(bench), at=datetime.now(UTC))
    bench.link.due.append(Job(asked, True, datetime.now(UTC) - LATE, PLACES))
    assert (await bench.looked()).state is JobState.LOST


async def first_note(bench: Bench) -> Progress:
    await bench.send()
    found = bench.progress[0]
    bench.link.events.clear()
    return found


async def test_a_broadcast_that_cannot_be_followed_costs_no_other_its_cancel(bench: Bench) -> None:
    """A recall must reach the platform whatever else stands in the notes."""
    await bench.send()
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    bench.link.due.append(Job(replace(bench.progress[0], source="rubbish"), True, datetime.now(UTC), PLACES))
    bench.look_at(over=True)
    assert (await bench.looked()).state is JobState.STOPPED
    assert [type(one["exception"]) for one in seen] == [ValueError]
    assert bench.channel.up()


async def test_the_store_s_absence_ends_no_follower(bench: Bench) -> None:
    """The next broadcast still has to be cancelled."""
    await bench.send()
    bench.look_at()
    asked = await bench.looked()  # the numbers of the next questions are taken with the first
    bench.link.due.append(Job(asked, False, datetime.now(UTC), PLACES))
    bench.link.down = True
    await until(lambda: bench.link.failed)
    bench.link.down = False
    note = await first_note(bench)
    bench.link.due.append(Job(note, True, datetime.now(UTC), PLACES))
    assert (await bench.looked()).state is JobState.STOPPED
    assert bench.channel.up()


# --- said again -------------------------------------------------------------------------------------------------------

AGAIN_S = 60


def rounds(asked_s_ago: float, wanted: set[int] | None = None, *, halted: bool = False) -> Rounds:
    """What the store tells of a batch that is said again every `AGAIN_S`."""
    at = datetime.now(UTC) - timedelta(seconds=asked_s_ago)
    return Rounds(replace(batch_of(), every_s=AGAIN_S), at, frozenset({0, 1} if wanted is None else wanted), halted)


def batch_of() -> Batch:
    slice_ = sample_slice(PLACES)
    return Batch(
        slice_.batch, "0f" * 10, 1, "loudspeaker_ebd", Lane.GREEN, Group.LOUDSPEAKERS, Notice.ISSUE, "zh", EAST[:9],
        datetime(2099, 1, 1, tzinfo=UTC), tuple(slice_.persons), PLACES, ((EAST, 1), (WEST, 1)), slice=100,
    )  # fmt: skip


def due(bench: Bench, known: Progress, said: Rounds, *, over: bool = False) -> None:
    """Let the channel look at a broadcast that is said again."""
    bench.link.events.clear()
    bench.link.due.append(Job(known, over, datetime.now(UTC), PLACES, said))


async def waits(bench: Bench, **changes: Any) -> Progress:
    """Return a broadcast that has ended and waits for its next round."""
    await bench.send(**changes)
    due(bench, bench.progress[-1], rounds(1))
    found = await bench.looked()
    assert (found.state, found.last) == (JobState.DONE, False)
    return found


async def test_a_red_warning_is_said_again_when_it_is_due(tmp_path: Path) -> None:
    """D13: who slept through the first is woken by the second; the platform is asked, for its protocol has no field."""
    async with running(tmp_path, SHORT, sound_s=30) as bench:
        first = await waits(bench, text="立即转移。")
        bench.link.says = sample_message(text="立即转移。")
        due(bench, first, rounds(AGAIN_S - 1))
        await until(lambda: not bench.link.due)
        assert bench.progress == []  # not yet
        due(bench, first, rounds(AGAIN_S))
        await until(lambda: bench.progress and bench.progress[-1].state is JobState.RUNNING)
        one, other = bench.log("broadcast")
        assert one["ebm"] != other["ebm"]
        assert (other["areas"], other["msg_type"]) == (list(PLACES), "1")
        assert bench.heard() == [(EAST, False), (WEST, False)] * 2
        assert {one["text"] for one in bench.log("sound")} == {"立即转移。"}
        ended, noted, asked = bench.progress
        assert (ended.source, ended.last, noted.state) == (first.source, True, JobState.ASKED)
        assert (asked.source, asked.job, asked.last) == (noted.source, other["ebm"], False)


async def test_a_village_that_has_confirmed_hears_no_further_round(tmp_path: Path) -> None:
    """A person of it is at work there; the others are still asleep."""
    async with running(tmp_path, SHORT, sound_s=30) as bench:
        first = await waits(bench)
        due(bench, first, rounds(AGAIN_S, {1}))
        await until(lambda: len(bench.log("broadcast")) == 2)
        assert bench.log("broadcast")[1]["areas"] == [WEST]
        await until(lambda: bench.progress[-1].state is JobState.RUNNING)
        second = bench.progress[-1]
        due(bench, replace(second, state=JobState.DONE), rounds(AGAIN_S, set()))
        assert (await bench.looked()).last
        assert len(bench.log("broadcast")) == 2


async def test_a_round_that_was_noted_and_not_asked_is_asked_under_its_number(tmp_path: Path) -> None:
    """`kill -9` between the note and the platform: the village hears this round, and hears it once."""
    async with running(tmp_path, SHORT, sound_s=30) as bench:
        first = await waits(bench)
        bench.platform.scenario = replace(SHORT, silent=True)  # it plays, and its answer is lost
        due(bench, first, rounds(AGAIN_S))
        await until(lambda: len(bench.log("broadcast")) == 2)
        noted = bench.progress[-1]
        assert noted.state is JobState.ASKED
        bench.platform.scenario = SHORT
        due(bench, noted, rounds(1))
        assert (await bench.looked()).state is JobState.RUNNING
        assert (len(bench.log("broadcast")), len(bench.log("again"))) == (2, 1)


async def test_a_platform_that_has_forgotten_the_last_round_is_asked_for_the_next(tmp_path: Path) -> None:
    """It was restarted in the night; the river still rises."""
    async with running(tmp_path, SHORT, sound_s=30) as bench:
        await bench.send()
        bench.platform.casts.clear()
        due(bench, bench.progress[-1], rounds(AGAIN_S))
        await until(lambda: len(bench.log("broadcast")) > 1)
        assert len(bench.log("broadcast")) == 2


@pytest.mark.parametrize("goes_on", [True, False])
async def test_nothing_is_said_again_where_the_store_says_no(tmp_path: Path, *, goes_on: bool) -> None:
    """A recall that comes between the look and the round wins; what the sender has not handed over has no second."""
    async with running(tmp_path, SHORT, sound_s=30) as bench:
        first = await waits(bench)
        bench.link.goes_on = goes_on
        due(bench, replace(first, state=JobState.ASKED) if goes_on else first, rounds(AGAIN_S))
        await until(lambda: not bench.link.due)
        await asyncio.sleep(0)
        assert len(bench.log("broadcast")) == 1


@pytest.mark.parametrize("halted", [True, False])
async def test_what_ends_between_two_rounds_is_not_cancelled_at_the_platform(tmp_path: Path, *, halted: bool) -> None:
    """Nothing sounds there; and a halt that is lifted lets the warning go on, for it still holds."""
    async with running(tmp_path, SHORT, sound_s=30) as bench:
        first = await waits(bench)
        due(bench, first, rounds(AGAIN_S, halted=halted), over=True)
        await until(lambda: not bench.link.due)
        if halted:
            assert bench.progress == []
        else:
            assert (await bench.looked()).last
        assert [one["how"] for one in bench.log("end")] == ["played"]


async def test_a_halt_silences_a_round_and_the_next_one_comes_after_it(bench: Bench) -> None:
    """Whoever lifts the halt must not have to issue the warning anew."""
    await bench.send()
    due(bench, bench.progress[-1], rounds(1, halted=True), over=True)
    stopped = await bench.looked()
    assert (stopped.state, stopped.last) == (JobState.STOPPED, False)
    assert [one["how"] for one in bench.log("end")] == ["cancelled"]
    due(bench, stopped, rounds(bench.channel.settings.sound_s))
    await until(lambda: len(bench.log("broadcast")) == 2)


async def test_repeats_leave_numbers_for_new_warnings(tmp_path: Path) -> None:
    """The protocol has ten thousand a day; the tenth hour of one red must not leave none for the next."""
    async with running(tmp_path, SHORT, sound_s=30) as bench:
        first = await waits(bench)
        day = f"{datetime.now(UTC).astimezone(ZONE):%Y%m%d}"
        bench.link.taken[f"ebm-{day}"] = AGAIN_BELOW
        due(bench, first, rounds(AGAIN_S))
        await until(lambda: not bench.link.due)
        assert (await bench.send(sample_slice(["411726204203"], first=2), text="x"))[0].state is State.SUBMITTED
        assert len(bench.log("broadcast")) == 2


# --- what the platform sends ------------------------------------------------------------------------------------------


async def test_a_pushed_log_is_committed_before_it_is_answered(tmp_path: Path) -> None:
    """Answered first, a crash would lose the only proof that the village was told."""
    async with running(tmp_path, SHORT) as bench:
        bench.platform.push = bench.url
        bench.link.down = False
        await bench.send()
        await until(lambda: bench.log("pushed"))
        assert [one["answer"] for one in bench.log("pushed")] == ["1"]
        assert set(bench.reports.values()) == {(State.PLAYED, "played")}


async def test_a_log_that_cannot_be_kept_is_not_answered(tmp_path: Path) -> None:
    """The platform sends it again."""
    async with running(tmp_path, SHORT) as bench:
        bench.platform.push = bench.url
        await bench.send()
        await until(lambda: bench.log("pushed"))
        bench.link.events.clear()
        bench.link.down = True
        cast = next(iter(bench.platform.casts.values()))
        await bench.platform._push(cast)
        assert bench.log("pushed")[-1]["answer"] == ""
        assert bench.link.events == []


async def test_a_pushed_state_without_its_kind_waits_for_the_next_look(tmp_path: Path) -> None:
    """Of a drill that nobody hears it says "played", too."""
    async with running(tmp_path, SHORT) as bench:
        bench.platform.push = bench.url
        await bench.send()
        await until(lambda: bench.log("end"))
        await until(lambda: bench.log("pushed"))
        bench.link.events.clear()
        ebm = next(iter(bench.platform.casts))
        assert await bench.platform.send(bench.platform._state(ebm)) == "1"
        assert set(bench.reports.values()) == {(State.DELIVERED, "not_heard")}


@pytest.mark.parametrize("fault", [{"unsigned": True}, {"forged": True}])
async def test_a_log_nobody_signed_changes_nothing(tmp_path: Path, fault: dict[str, bool]) -> None:
    """The route is open to whoever finds it; a forged "played" would call off the search for a silent village."""
    async with running(tmp_path, LONG) as bench:
        bench.platform.push = bench.url
        await bench.send()
        bench.link.events.clear()
        bench.platform.scenario = replace(LONG, **fault)  # type: ignore[arg-type]  # its flags
        await bench.platform._push(next(iter(bench.platform.casts.values())))
        assert bench.log("pushed")[-1]["answer"] == "4"
        assert bench.link.events == []


async def test_what_is_not_for_us_or_no_package_is_refused(bench: Bench) -> None:
    """Another county's log, a bare file and rubbish get an answer and nothing else."""
    bench.platform.push = bench.url
    stranger = replace(bench.platform.gateway, ebrid="44117020000000103010001")
    bench.platform.gateway, known = stranger, bench.platform.gateway
    data = bench.platform._write(check())
    bench.platform.gateway = known
    async with ClientSession() as session:
        for body, code in ((data, "5"), (b"", "2"), (b"x" * 2000, "2"), (bytes((4 << 20) + 1), "2")):
            async with session.post(bench.url, data={"file": body}) as answer:
                assert f"<ResultCode>{code}" in b"".join(files_of(await answer.read()).values()).decode()
        async with session.post(bench.url, data=b"no form") as answer:
            assert b"<ResultCode>2" in b"".join(files_of(await answer.read()).values())
        async with session.post(bench.url, data=b"x", headers={"Content-Type": "multipart/form-data"}) as answer:
            assert b"<ResultCode>2" in b"".join(files_of(await answer.read()).values())
        form = {"Content-Type": "multipart/form-data; boundary=B"}
        for part in (b"no header\r\n", b"A: " + b"a" * 9000 + b"\r\n", b"A: b\r\n" * 1000):
            async with session.post(bench.url, data=b"--B\r\n" + part + b"\r\nx\r\n--B--\r\n", headers=form) as answer:
                assert b"<ResultCode>2" in b"".join(files_of(await answer.read()).values())
    assert bench.link.events == []


async def test_a_form_that_never_comes_to_its_file_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each stranger who drips lines before the first boundary keeps a connection for ever."""
    monkeypatch.setattr(_ebd_peer, "PATIENCE_S", 0.05)

    async def lines() -> AsyncIterator[bytes]:
        yield b"not yet\r\n"
        await asyncio.Event().wait()

    form = {"Content-Type": "multipart/form-data; boundary=B"}
    async with ClientSession() as session, session.post(bench.url, data=lines(), headers=form) as answer:
        assert b"<ResultCode>2" in b"".join(files_of(await answer.read()).values())


async def test_more_packages_than_can_be_held_are_told_to_come_again(bench: Bench) -> None:
    """Each may hold four megabytes, and the route is open to whoever finds it: a flood must not end the gateway."""
    end = asyncio.Event()

    async def drip() -> AsyncIterator[bytes]:
        yield b"--B\r\n"
        await end.wait()

    form = {"Content-Type": "multipart/form-data; boundary=B"}

    async def post(session: ClientSession, data: Any) -> tuple[int, str]:
        async with session.post(bench.url, data=data, headers=form) as answer:
            await answer.read()
            return answer.status, answer.headers.get("Retry-After", "")

    async with ClientSession() as session:
        held = [asyncio.create_task(post(session, drip())) for _ in range(_ebd_peer.TAKEN_AT_ONCE)]
        await until(lambda: bench.channel._peer._taking == _ebd_peer.TAKEN_AT_ONCE)
        assert await post(session, b"x") == (503, "5")
        end.set()
        assert {status for status, _ in await asyncio.gather(*held)} == {200}
        assert (await post(session, b"x"))[0] == 200  # read, and refused with a signed answer


async def test_a_package_of_a_type_we_do_not_take_is_refused(bench: Bench) -> None:
    """A platform that sends us broadcasts takes us for another platform: it must hear that it is wrong."""
    bench.platform.push = bench.url
    found = ET.Element("EBRPSInfo")
    ET.SubElement(found, "Name").text = "平台"
    assert await bench.platform.send(found) == "5"
    assert await bench.platform.send(check()) == "1"


def check() -> ET.Element:
    found = ET.Element("ConnectionCheck")
    ET.SubElement(found, "RptTime").text = "2026-07-20 14:30:15"
    return found


# --- heartbeat and terminals ------------------------------------------------------------------------------------------


async def test_one_of_all_processes_sends_heartbeats(bench: Bench) -> None:
    """A platform that sees two of us may refuse both."""
    other = LoudspeakerEbd(bench.channel.settings.model_copy(update={"heartbeat_s": 1.0}))
    await other.open(bench.link)
    await until(lambda: bench.log("heartbeat"))
    assert {one["ebd"] for one in bench.log("heartbeat")} == {"01" + GATEWAY + "0" * 16}
    assert len(bench.link.leases["heartbeat"]) == 1
    await other.close()


async def test_the_terminals_say_which_villages_can_be_reached_before_the_storm(tmp_path: Path) -> None:
    """A village without a working terminal is named while there is still time to drive there."""
    async with running(tmp_path, replace(LONG, dead=frozenset({WEST})), terminals_s=0) as quiet:
        await until(lambda: quiet.log("heartbeat"))
        quiet.platform.villages |= {EAST, WEST, "411726204203"}
        quiet.link.devices = {EAST: device(1), WEST: device(2)}
        await quiet.channel._ask_terminals(quiet.link)
        assert quiet.devices == [(1, "online", ""), (2, "offline", "")]


async def test_the_platform_says_nothing_of_loudspeakers_on_other_roads(tmp_path: Path) -> None:
    """A device of ours that is called after its village is here when it is connected to us, and only then."""
    async with running(tmp_path, replace(SHORT, dead=frozenset({EAST})), terminals_s=0) as bench:
        await until(lambda: bench.log("heartbeat"))
        bench.link.devices = {EAST: device(1)._replace(channel="loudspeaker_ws"), WEST: device(2)}
        await bench.send()
        await bench.channel._ask_terminals(bench.link)
        assert bench.devices == [(2, "online", "")]
        bench.look_at()
        await bench.looked()
        assert bench.devices == []


async def test_what_was_pushed_once_cannot_be_played_back_weeks_later(tmp_path: Path) -> None:
    """An old list of terminals is signed for ever: it would make a dead village look alive on the day of the flood."""
    async with running(tmp_path) as bench:
        bench.platform.push = bench.url
        bench.link.devices = {EAST: device(1)}
        me = bench.platform.me
        for days, code in ((-30, "5"), (-2, "5"), (2, "5"), (0, "1")):
            at = datetime.now(UTC) + timedelta(days=days)
            terminals = TerminalStates((Terminal(moment(at), f"6{EAST}0401010001", "1"),))
            told = Ebd(ebd_id(PLATFORM, at.strftime("%Y%m%d"), 1), PLATFORM, GATEWAY, at, terminals)
            tar = await pack(told, SoftSigner(me.issuer, me.serial, me.private))
            async with ClientSession() as session, session.post(bench.url, data={"file": io.BytesIO(tar)}) as answer:
                assert f"<ResultCode>{code}" in b"".join(files_of(await answer.read()).values()).decode()
            assert bench.devices == ([(1, "online", "")] if code == "1" else [])


def device(id_: int) -> Device:
    return Device(id_, EAST, "", "loudspeaker_ebd")


# --- the simulator ----------------------------------------------------------------------------------------------------


async def test_the_platform_takes_what_was_written_by_hand_and_nothing_unsigned(tmp_path: Path) -> None:
    """It is our only judge: it must not be kinder than a real one."""
    platform = EbdPlatform(Log(tmp_path / "ebd.jsonl"))
    url = await platform.start()
    gateway = platform.gateway
    id_ = "01" + GATEWAY + "0" * 16
    body = (
        f'<?xml version="1.0" encoding="utf-8"?>\n<EBD><EBDVersion>1.0</EBDVersion><EBDID>{id_}</EBDID>'
        f"<EBDType>ConnectionCheck</EBDType><SRC><EBRID>{GATEWAY}</EBRID></SRC><DEST><EBRID>{PLATFORM}</EBRID></DEST>"
        "<EBDTime>2026-07-20 14:30:15</EBDTime><ConnectionCheck><RptTime>2026-07-20 14:30:15</RptTime>"
        "</ConnectionCheck></EBD>"
    ).encode()
    signer = SoftSigner(gateway.issuer, gateway.serial, gateway.private)
    at = datetime(2026, 7, 20, 6, 30, 15, tzinfo=UTC)
    ours = files_of(await pack(Ebd(id_, GATEWAY, PLATFORM, at, Check("2026-07-20 14:30:15")), signer))
    assert ours[f"EBDB_{id_}.xml"].split(b"\n", 1)[1] == body.split(b"\n", 1)[1]
    stranger = Party.simulated("another", gateway.serial)
    forged = files_of(
        await pack(
            Ebd(id_, GATEWAY, PLATFORM, at, Check("2026-07-20 14:30:15")),
            SoftSigner(stranger.issuer, stranger.serial, stranger.private),
        )
    )
    signed = ours[f"EBDS_EBDB_{id_}.xml"]
    async with ClientSession() as session:
        for files, code in (
            (ours, "1"), ({f"EBDB_{id_}.xml": body}, "4"), (forged, "4"),
            ({f"EBDB_{id_}.xml": body + b" ", f"EBDS_EBDB_{id_}.xml": signed}, "4"),
            ({f"EBDB_{id_}.xml": body, f"EBDS_EBDB_{id_}.xml": b"<Signature/>"}, "4"), ({}, "2"),
        ):  # fmt: skip
            async with session.post(url, data={"file": tar_of(files)}) as answer:
                assert f"<ResultCode>{code}" in b"".join(files_of(await answer.read()).values()).decode()
    assert len(read(tmp_path / "ebd.jsonl", "heartbeat")) == 1
    await platform.stop()


async def test_a_platform_that_does_not_know_a_repeat_is_seen_to_play_twice(tmp_path: Path) -> None:
    """What we ask platforms for is worth asking for: here is what one without it does."""
    async with running(tmp_path, replace(LONG, silent=True, repeats=True)) as bench:
        await bench.send()
        bench.platform.scenario = replace(LONG, repeats=True)
        await bench.send(sample_slice(PLACES, attempt=2))
        assert len(bench.heard()) == 4


# --- the whole way ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def desk(folder: Path, platform: EbdPlatform) -> AsyncIterator[Desk]:
    """Run an embedded gateway with three villages of the platform and one that has lost its road."""
    config = folder / "config"
    if not config.exists():
        shutil.copytree(CONFIG / "policy", config / "policy")
        for name in ("regions", "carriers.csv"):
            (config / name).symlink_to(CONFIG / name)
    await platform.start()
    channels = folder / "channels.toml"
    fast = "poll_s = 1\n[[loudspeaker_ebd.trusted]]"
    channels.write_text(
        f'[noop]\nlog = "{folder / "noop.log"}"\n' + platform.settings().replace("[[loudspeaker_ebd.trusted]]", fast),
        encoding="utf8",
    )
    async with App(Settings(data=folder, config=config, channels=channels, port=0)) as app:
        importer = Importer(app.core.store.database, app.core.vault, app.core.regions, app.clock)
        assert (await importer.read(table(Roster.OFFICIALS, *OFFICIALS), Roster.OFFICIALS)).failed == 0
        rows = [(one, one, "", "loudspeaker_ebd") for one in (FLOWER_1, FLOWER_2, WATER_1)]
        header = ("name", "village", "key", "channel")
        lost = ("lb-1", FLOWER_1, "k" * 16, "loudspeaker_ws")
        brought = await importer.read(table(Roster.DEVICES, *rows, lost, header=header), Roster.DEVICES)
        assert (brought.added, brought.failed) == (4, 0)
        yield Desk(app, folder / "noop.log")


async def villages(one: Desk, alert: str) -> dict[str, VillageState]:
    row = await one.core.store.outbox.alert(alert)
    assert row is not None
    return {village.code: village.state for village in (await one.core.coverage.of(row)).villages}


async def states(one: Desk, alert: str) -> dict[str, int]:
    counts = await one.core.store.ledger.counts(alert)
    return {f"{channel} {state}": number for (channel, group, state), number in counts.items()
            if group == "loudspeakers"}  # fmt: skip


async def test_a_red_warning_sounds_in_the_platform_s_villages_and_they_are_played(tmp_path: Path) -> None:
    """From the forecaster to the village and back: one broadcast per township, and a proof per village."""
    platform = EbdPlatform(Log(tmp_path / "ebd.jsonl"), EbdScenario(play_s=0.2, dead=frozenset({FLOWER_2})))
    async with desk(tmp_path, platform) as one:
        sent = await one.issue(one.alert([FLOWER, WATER]))

        async def done() -> bool:
            return (await states(one, sent.alert)).get("loudspeaker_ebd played") == 2

        await until(done)
        assert await states(one, sent.alert) == {
            "loudspeaker_ebd played": 2, "loudspeaker_ebd failed": 1, "loudspeaker skipped": 1,
        }  # fmt: skip
        assert {entry["village"] for entry in read(platform.log.path, "sound")} == {FLOWER_1, WATER_1}
        assert {entry["msg_type"] for entry in read(platform.log.path, "broadcast")} == {"1"}
        found = await villages(one, sent.alert)
        assert found[WATER_1] is VillageState.PLAYED
        assert found[FLOWER_2] is not VillageState.PLAYED
        row = await one.core.store.outbox.alert(sent.alert)
        assert row is not None
        assert (await status(one.core, row)).areas == []  # villages are no telephones
    await platform.stop()


async def test_a_recall_silences_the_platform(tmp_path: Path) -> None:
    """The mistaken alarm stops in the villages, not only on the screen; its correction is spoken."""
    platform = EbdPlatform(Log(tmp_path / "ebd.jsonl"), LONG)
    async with desk(tmp_path, platform) as one:
        alert = one.alert([FLOWER])
        await one.issue(alert)
        await until(lambda: len(read(platform.log.path, "sound")) == 2)
        await one.core.decisions.recall(alert.id, one.who("signer"), "误发")
        await until(lambda: read(platform.log.path, "end"))
        assert read(platform.log.path, "end")[0]["how"] == "cancelled"
    await platform.stop()


async def test_an_update_takes_the_place_of_what_is_playing(tmp_path: Path) -> None:
    """Two versions at once in one village are none."""
    platform = EbdPlatform(Log(tmp_path / "ebd.jsonl"), LONG)
    async with desk(tmp_path, platform) as one:
        first = one.alert([FLOWER])
        await one.issue(first)
        await until(lambda: len(read(platform.log.path, "sound")) == 2)
        await one.issue(one.alert([FLOWER, WATER], Kind.UPDATE, first))
        await until(lambda: len(read(platform.log.path, "sound")) == 5)
        await until(lambda: read(platform.log.path, "end"))
        (ended,) = read(platform.log.path, "end")
        assert ended["ebm"] == read(platform.log.path, "broadcast")[0]["ebm"]
    await platform.stop()


async def test_a_red_warning_is_said_again_until_a_person_of_the_village_confirms(tmp_path: Path) -> None:
    """From the policy's ten minutes to the platform: the store alone says when, so a restart forgets no round."""
    platform = EbdPlatform(Log(tmp_path / "ebd.jsonl"), SHORT)

    def heard() -> Counter[str]:
        return Counter(entry["village"] for entry in read(platform.log.path, "sound"))

    async def ten_minutes_pass(one: Desk, state: JobState = JobState.DONE) -> None:
        back = 600_000_000
        sql = "UPDATE progress SET asked_at = asked_at - :back WHERE ended = 0 AND state = :state"

        async def passed() -> bool:
            return bool(await one.core.store.database.write(lambda tx: tx.run(sql, back=back, state=int(state))))

        await until(passed)

    async with desk(tmp_path, platform) as one:
        sent = await one.issue(one.alert([FLOWER]))
        await until(lambda: heard() == {FLOWER_1: 1, FLOWER_2: 1})
        await ten_minutes_pass(one)
        await until(lambda: heard() == {FLOWER_1: 2, FLOWER_2: 2})
        record = Record(one.core.clock.now(), "t", "confirm", sent.alert)
        assert await one.core.store.ledger.confirm(sent.alert, 77, [FLOWER_1], "sms", record)
        await ten_minutes_pass(one)
        await until(lambda: heard() == {FLOWER_1: 2, FLOWER_2: 3})
        await one.core.decisions.recall(sent.alert, one.who("signer"), "误发")

        async def over() -> bool:
            rows = await one.core.store.database.read(
                lambda tx: tx.all("SELECT 1 FROM progress WHERE ended = 0 AND source LIKE '%:_'")
            )
            return not rows

        await until(over)
    await platform.stop()
