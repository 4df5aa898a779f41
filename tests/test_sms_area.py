"""Area requests against a simulated provincial platform, judged by the platform's own log."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from links import Case, RecordingLink, sample_message, sample_slice
from test_pipeline import OFFICIALS, Desk, until
from town import FLOWER, FLOWER_1, OLD, WATER, table

from channels.sms_area import LATE, SmsArea, SmsAreaSettings
from gateway.app import App, SystemClock
from gateway.directory.importer import Importer
from gateway.directory.table import Roster
from gateway.errors import ChannelError, Permanent, Refused, Temporary, Unusable
from gateway.intake import Outcome
from gateway.model import (
    AREA_APPROVAL,
    Alert,
    Code,
    Group,
    Job,
    JobState,
    Kind,
    Progress,
    Receipt,
    Record,
    Slice,
    State,
    Status,
    VillageState,
)
from gateway.report import Status as Report
from gateway.report import printable, status
from gateway.settings import Settings
from gateway.simulate.log import Log, read
from gateway.simulate.sms_area import AreaPlatform, AreaScenario
from gateway.standing import Event
from gateway.store.regime import Regime
from gateway.transaction import Tx

CONFIG = Path(__file__).parent.parent / "config"
PLACES = ["411726101", "411726102"]
RING = "32.700000,113.300000 32.700000,113.400000 32.800000,113.400000 32.700000,113.300000"
SLOW = AreaScenario(rate=1000.0, report_after_s=0.0)
FAST = AreaScenario(rate=1e12, report_after_s=0.0, delivered=1.0)


@dataclass
class Bench:
    """A platform, a channel that talks to it, and what the channel told the gateway."""

    platform: AreaPlatform
    channel: SmsArea
    link: RecordingLink

    async def send(self, slice_: Slice | None = None, **changes: Any) -> list[Receipt]:
        message = sample_message(**{"approval": "2026-1"} | changes)
        return await self.channel.send(slice_ or sample_slice(PLACES), message, self.link)

    def log(self, kind: str) -> list[dict[str, Any]]:
        return read(self.platform.log.path, kind)

    @property
    def progress(self) -> list[Progress]:
        return [event for event in self.link.events if isinstance(event, Progress)]

    def look_at(self, over: bool = False, since: datetime | None = None, **known: Any) -> None:
        """Let the channel look at the request of the sample slice."""
        was = replace(self.progress[0], **known)
        self.link.events.clear()
        self.link.due.append(Job(was, over, since or datetime.now(UTC)))


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Bench]:
    platform, link = AreaPlatform(Log(folder / "area.jsonl")), RecordingLink()
    platform.scenario = SLOW
    url = await platform.start()
    channel = SmsArea(SmsAreaSettings.model_validate({"base_url": url, "token": platform.token, "timeout_s": 2}))
    await channel.open(link)
    try:
        yield Bench(platform, channel, link)
    finally:
        await channel.close()
        await platform.stop()


@asynccontextmanager
async def contract_case() -> AsyncIterator[Case]:
    with TemporaryDirectory() as directory:
        platform = AreaPlatform(Log(Path(directory) / "area.jsonl"))
        values = {"base_url": await platform.start(), "token": platform.token, "approval": "2026-1"}
        asked = lambda: sum(len(job.request.areas) for job in platform.jobs.values())  # noqa: E731  # one line, one use
        yield Case(SmsAreaSettings.model_validate(values), PLACES, secrets=[platform.token], received=asked)
        await platform.stop()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(tmp_path) as started:
        yield started


# --- the channel --------------------------------------------------------------------------------------------------


async def test_a_slice_is_one_job_of_places_a_text_a_level_and_its_approval(bench: Bench) -> None:
    """The platform is told where and what, and nobody's number; it is told once, however many places there are."""
    receipts = await bench.send(text="【泌阳县气象局】暴雨红色预警")
    assert [(one.state, one.error) for one in receipts] == [(State.SUBMITTED, None)] * 2
    (job,) = bench.log("job")
    assert (job["areas"], job["text"], job["level"], job["approval"]) == (
        PLACES, "【泌阳县气象局】暴雨红色预警", "red", "2026-1",
    )  # fmt: skip
    assert job["ref"] == f"{'0f' * 10}.1.0-0"
    asked, told = bench.progress
    assert (asked.state, asked.job, asked.source) == (JobState.ASKED, "", job["ref"])
    assert (told.state, told.job, told.requested) == (JobState.RUNNING, job["id"], 40_000)


async def test_a_lost_answer_is_asked_for_again_and_is_one_job(bench: Bench) -> None:
    """A county must not hear twice because an answer was lost, and must not go unwarned because of it either."""
    bench.platform.scenario = replace(SLOW, dropped=True)
    first = await bench.send()
    assert all(isinstance(one.error, Temporary) for one in first)
    bench.platform.scenario = SLOW
    again = await bench.send(sample_slice(PLACES, attempt=2))
    assert [one.state for one in again] == [State.SUBMITTED] * 2
    assert len(bench.log("job")) == len(bench.log("again")) == 1


async def test_a_request_known_in_other_words_stands_as_taken(bench: Bench) -> None:
    """A template changed between two tries: the county has been told, in the words of then."""
    await bench.send(text="暴雨红色预警")
    assert (await bench.send(text="再次提醒 暴雨红色预警"))[0].state is State.SUBMITTED
    assert [job["text"] for job in bench.log("job")] == ["暴雨红色预警"]


async def test_a_ring_the_issuer_drew_is_asked_for_as_a_polygon(bench: Bench) -> None:
    """Where less than the township was drawn, nobody outside is called from bed. CAP writes latitude first."""
    await bench.send(sample_slice([RING, RING]))
    first, second = bench.log("job")
    assert first["polygon"] == [[113.3, 32.7], [113.4, 32.7], [113.4, 32.8], [113.3, 32.7]]
    assert not first["areas"]
    assert first["ref"] != second["ref"]


@pytest.mark.parametrize(
    ("scenario", "error", "code"),
    [
        (replace(SLOW, approvals=frozenset({"other"})), Permanent, "approval"),
        (replace(SLOW, within="4101"), Permanent, "outside"),
        (replace(SLOW, broken=True), Temporary, "http_500"),
    ],
)
async def test_a_refusal_says_why_and_what_to_do(
    bench: Bench, scenario: AreaScenario, error: type[ChannelError], code: str
) -> None:
    """What the platform will never take is not asked again; what it cannot take now is."""
    bench.platform.scenario = scenario
    receipts = await bench.send()
    assert [(type(one.error), one.code) for one in receipts] == [(error, code)] * 2
    assert bench.progress[-1].state is (JobState.REFUSED if error is Permanent else JobState.ASKED)
    assert bench.progress[-1].last is (error is Permanent)
    assert bench.log("job") == []


async def test_a_wrong_token_pages_somebody(bench: Bench) -> None:
    """It is wrong for every county: the account is switched off, not the request."""
    bench.platform.token = "another"
    assert isinstance((await bench.send())[0].error, Unusable)


async def test_without_a_platform_nothing_was_sent(bench: Bench) -> None:
    """No connection: the request is tried again."""
    await bench.platform.stop()
    assert (await bench.send())[0].error is not None
    assert isinstance((await bench.send())[0].error, Temporary)


@pytest.mark.parametrize("what", [Status.EXERCISE, Status.TEST, Status.SYSTEM, Status.DRAFT])
async def test_a_drill_is_never_asked_for(bench: Bench, what: Status) -> None:
    """Whoever is in a place knows of no drill."""
    with pytest.raises(Permanent):
        await bench.send(status=what)
    assert bench.log("job") == []


async def test_what_could_not_be_written_down_is_not_asked(bench: Bench) -> None:
    """A job nobody knows of is a job nobody can stop."""
    bench.link.down = True
    assert isinstance((await bench.send())[0].error, Temporary)
    assert bench.log("job") == []


async def test_progress_is_followed_until_every_telephone_has_reported(bench: Bench) -> None:
    """The duty room sees counts grow; when nothing more can come, nobody asks any more."""
    bench.platform.scenario = FAST
    await bench.send()
    bench.look_at()
    await until(lambda: bench.progress)
    (done,) = bench.progress
    assert (done.state, done.requested, done.submitted, done.delivered, done.last) == (
        JobState.DONE, 40_000, 40_000, 40_000, True,
    )  # fmt: skip


async def test_a_job_that_falls_silent_after_its_end_is_given_up(bench: Bench) -> None:
    """A telephone that is switched off never reports; ten minutes later nobody waits for it."""
    bench.platform.scenario = replace(FAST, delivered=0.9)
    await bench.send()
    counts: dict[str, Any] = {"state": JobState.DONE, "submitted": 40_000, "delivered": 36_000}
    for since, last in ((timedelta(minutes=5), False), (timedelta(minutes=11), True)):
        bench.link.events.append(Progress("b.1.0", f"{'0f' * 10}.1.0-0", JobState.ASKED, datetime.now(UTC)))
        bench.link.events[:] = bench.link.events[-1:]
        bench.look_at(since=datetime.now(UTC) - since, **counts)
        await until(lambda: bench.progress)
        assert bench.progress[0].last is last


async def test_what_must_run_no_longer_is_stopped_at_the_platform(bench: Bench) -> None:
    """A mistaken county-wide message goes on by itself for minutes unless the platform is told to stop."""
    await bench.send()
    bench.look_at(over=True)
    await until(lambda: bench.progress)
    assert bench.progress[0].state is JobState.STOPPED
    (stop,) = bench.log("stop")
    assert stop["submitted"] == bench.progress[0].submitted < 40_000


async def test_a_job_whose_answer_was_lost_is_stopped_too(bench: Bench) -> None:
    """A process that died between the platform's yes and its own note leaves a job nobody seems to know."""
    bench.platform.scenario = replace(SLOW, dropped=True)
    await bench.send()
    bench.look_at(over=True)
    await until(lambda: bench.progress)
    assert (bench.progress[0].state, bench.progress[0].job) == (JobState.STOPPED, bench.log("job")[0]["id"])


async def test_one_the_platform_never_saw_is_given_up_once_none_can_be_under_way(bench: Bench) -> None:
    """Nothing to stop: but a request still on its way could yet become a job, so it is looked for a while longer."""
    bench.platform.scenario = replace(SLOW, broken=True)
    await bench.send()
    bench.platform.scenario = SLOW
    asked = bench.progress[0]
    bench.link.events.clear()
    bench.link.due.append(Job(asked, True, datetime.now(UTC)))
    bench.link.due.append(Job(replace(asked, source="old"), True, datetime.now(UTC) - LATE))
    await until(lambda: bench.progress)
    assert [(one.source, one.state, one.last) for one in bench.progress] == [("old", JobState.LOST, True)]


async def test_a_platform_that_answers_nonsense_ends_nobody(bench: Bench) -> None:
    """The follower lives on: the next job still has to be stopped."""
    await bench.send()
    bench.platform.scenario = replace(SLOW, broken=True)
    bench.look_at(over=True)
    await until(lambda: not bench.link.due)
    await asyncio.sleep(0)
    assert bench.channel.up()
    bench.platform.scenario = SLOW
    bench.link.due.append(
        Job(Progress("b", f"{'0f' * 10}.1.0-0", JobState.ASKED, datetime.now(UTC)), True, datetime.now(UTC))
    )
    await until(lambda: bench.log("stop"))


async def test_the_store_s_absence_ends_no_follower(bench: Bench) -> None:
    """News that cannot be kept comes again; the next job still has to be stopped."""
    await bench.send()
    note = bench.progress[0]
    bench.link.due.append(Job(note, False, datetime.now(UTC)))
    bench.link.down = True
    await until(lambda: bench.link.failed)
    bench.link.down = False
    bench.link.due.append(Job(note, True, datetime.now(UTC)))
    await until(lambda: bench.log("stop"))
    assert bench.channel.up()


# --- the whole way ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def desk(
    folder: Path, platform: AreaPlatform, clock: Later, *, edit: Callable[[str], str] = lambda plan: plan
) -> AsyncIterator[Desk]:
    """Run an embedded gateway whose plan asks for areas on red, without the emergency regime unless `edit` says so."""
    config = folder / "config"
    if not config.exists():
        shutil.copytree(CONFIG / "policy", config / "policy")
        (config / "regions").symlink_to(CONFIG / "regions")
        plan = config / "policy" / "plan.toml"
        plan.write_text(edit(plan.read_text(encoding="utf8").replace("emergency = true\n", "")), encoding="utf8")
    url = platform.url or await platform.start()
    channels = folder / "channels.toml"
    channels.write_text(
        f'[noop]\nlog = "{folder / "noop.log"}"\n[sms_area]\nbase_url = "{url}"\ntoken = "{platform.token}"\n',
        encoding="utf8",
    )
    async with App(Settings(data=folder, config=config, channels=channels, port=0), clock=clock) as app:
        importer = Importer(app.core.store.database, app.core.vault, app.core.regions, app.clock)
        assert (await importer.read(table(Roster.OFFICIALS, *OFFICIALS), Roster.OFFICIALS)).failed == 0
        yield Desk(app, folder / "noop.log")


class Later(SystemClock):
    """The wall's clock, `ahead` of it: the platform and the channel have no other."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


@pytest.fixture
def clock() -> Later:
    return Later()


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[AreaPlatform]:
    platform = AreaPlatform(Log(tmp_path / "area.jsonl"))
    platform.scenario = SLOW
    yield platform
    await platform.stop()


def approved(alert: Alert, number: str = "2026-1") -> Alert:
    """The alert with an approval number for area requests."""
    info = alert.infos[0]
    return replace(alert, infos=(replace(info, parameters=(*info.parameters, Code(AREA_APPROVAL, number))),))


async def shown(one: Desk, alert: str) -> Report:
    row = await one.core.store.outbox.alert(alert)
    assert row is not None
    return await status(one.core, row)


def jobs(platform: AreaPlatform) -> list[dict[str, Any]]:
    return read(platform.log.path, "job")


async def test_an_area_is_told_and_counted_apart_from_persons(
    tmp_path: Path, platform: AreaPlatform, clock: Later
) -> None:
    """Forty thousand telephones somewhere in a township are no forty thousand residents, and confirm no village."""
    platform.scenario = FAST
    async with desk(tmp_path, platform, clock) as one:
        issued = await one.issue(approved(one.alert([FLOWER, WATER])))
        await until(lambda: len(jobs(platform)) == 2)
        assert sorted(job["areas"] for job in jobs(platform)) == [[FLOWER], [WATER]]
        assert all(job["approval"] == "2026-1" and job["text"].startswith("【") for job in jobs(platform))

        async def counted() -> bool:
            return sum(area.delivered for area in (await shown(one, issued.alert)).areas) == 40_000

        await until(counted)
        found = await shown(one, issued.alert)
        assert [(area.channel, area.requested, area.submitted) for area in found.areas] == [
            ("sms_area", 40_000, 40_000)
        ]
        assert {count.group for count in found.counts} == {"officials"}
        assert not found.villages[VillageState.CONFIRMED]
        assert "区域短信  sms_area" in printable(found)


@pytest.mark.parametrize("way", ["recall", "update", "cancel", "halt", "expiry"])
async def test_a_stop_reaches_the_running_job(tmp_path: Path, platform: AreaPlatform, clock: Later, way: str) -> None:
    """What was mistaken, is over or was replaced goes on at the platform by itself unless it is stopped there."""
    async with desk(tmp_path, platform, clock) as one:
        first = approved(one.alert([FLOWER]))
        issued = await one.issue(first)
        await until(lambda: len(jobs(platform)) == 1)
        if way == "recall":
            assert await one.core.decisions.recall(issued.alert, one.who("issuer"), "mistaken")
        elif way == "update":
            await one.issue(approved(one.alert([FLOWER, WATER], Kind.UPDATE, first)))
        elif way == "cancel":
            cancel = await one.core.decisions.cancel(issued.alert, one.who("issuer"), "")
            await one.core.decisions.approve(cancel.alert, one.who("signer"))
        elif way == "halt":
            await one.core.store.outbox.halt("411726", True, Record(clock.now(), "t", "halt", "411726"))
        else:
            clock.ahead = timedelta(hours=3)
        stops: Callable[[], list[dict[str, Any]]] = lambda: read(platform.log.path, "stop")  # noqa: E731  # one use
        await until(stops)
        # Whatever came instead is not what was stopped.
        assert [stop["id"] for stop in stops()] == [jobs(platform)[0]["id"]]


async def test_a_gateway_that_starts_again_stops_what_the_last_one_asked_for(
    tmp_path: Path, platform: AreaPlatform, clock: Later
) -> None:
    """The jobs are known from the ledger, not from memory."""
    async with desk(tmp_path, platform, clock) as one:
        issued = await one.issue(approved(one.alert([FLOWER])))
        await until(lambda: len(jobs(platform)) == 1)
    assert read(platform.log.path, "stop") == []
    async with desk(tmp_path, platform, clock) as one:
        assert await one.core.decisions.recall(issued.alert, one.who("issuer"), "mistaken")
        await until(lambda: read(platform.log.path, "stop"))


async def test_without_its_approval_number_it_is_held_and_the_rest_goes_out(
    tmp_path: Path, platform: AreaPlatform, clock: Later
) -> None:
    """The carrier would refuse it; a person has to get the number, and the officials do not wait for that."""
    async with desk(tmp_path, platform, clock) as one:
        issued = await one.issue(one.alert([FLOWER]))
        await one.settled(issued.alert, 1)
        found = await shown(one, issued.alert)
        assert any(text.startswith("approval: ") and AREA_APPROVAL in text for text in found.held)
        assert jobs(platform) == []


async def number(one: Desk, alert: str, text: str = "2026-1", who: str = "signer") -> Outcome:
    """Add an approval number to an alert."""
    return await one.core.decisions.number(alert, one.who(who), text)


async def test_a_number_that_comes_later_lets_the_area_request_out_alone(
    tmp_path: Path, platform: AreaPlatform, clock: Later
) -> None:
    """It is given by telephone minutes later: nobody is told twice for it, and the carrier asks for it by name."""
    async with desk(tmp_path, platform, clock) as one:
        issued = await one.issue(one.alert([FLOWER]))
        await one.settled(issued.alert, 1)
        before = await shown(one, issued.alert)
        assert any("area-approval" in text for text in before.held)
        found = await number(one, issued.alert)
        assert (found.result, found.held) == ("accepted", ())
        await until(lambda: len(jobs(platform)) == 1)
        assert [(job["areas"], job["approval"]) for job in jobs(platform)] == [([FLOWER], "2026-1")]
        row = await one.core.store.outbox.alert(issued.alert)
        assert row is not None
        assert sum(step.audience.group is Group.AREA for step in row.plan.steps) == 1
        again = await number(one, issued.alert)
        assert again == found
        with pytest.raises(Refused) as refused:
            await number(one, issued.alert, "2026-2")
        assert (refused.value.status, refused.value.code) == (409, "another_number")
        await until(lambda: one.core.store.outbox.planned(issued.alert, len(row.plan.steps)))
        assert len(jobs(platform)) == 1
        told = [count for count in (await shown(one, issued.alert)).counts if count.group == "officials"]
        assert told == [count for count in before.counts if count.group == "officials"]
        chain = [record for _, record, _ in await one.core.store.audit.records(0, 500)]
        (record,) = [record for record in chain if record.action == Event.NUMBER]
        assert record.detail.endswith("; 2026-1")
        life = await one.core.store.outbox.decisions(issued.alert)
        assert [(step.event, step.reason) for step in life if step.event == Event.NUMBER] == [(Event.NUMBER, "2026-1")]


async def test_only_its_own_signers_add_a_number_and_only_while_it_is_in_force(
    tmp_path: Path, platform: AreaPlatform, clock: Later
) -> None:
    """Forty thousand telephones ring for a number: not on a colleague's word, and not for a warning that is over."""
    async with desk(tmp_path, platform, clock) as one:
        issued = await one.issue(one.alert([FLOWER]))
        for who in ("issuer", "reviewer"):
            with pytest.raises(Refused, match="takes one of: signer"):
                await number(one, issued.alert, who=who)
        with pytest.raises(Refused, match="issuing body"):
            await one.core.decisions.number(issued.alert, one.who("signer", "411726-fzb"), "2026-1")
        clock.ahead = timedelta(days=2)
        with pytest.raises(Refused) as refused:
            await number(one, issued.alert)
        assert refused.value.code in ("expired", "not_possible")
        clock.ahead = timedelta()
        other = await one.issue(one.alert([WATER]))
        assert await one.core.decisions.recall(other.alert, one.who("issuer"), "mistaken")
        with pytest.raises(Refused) as refused:
            await number(one, other.alert)
        assert (refused.value.status, refused.value.code) == (409, "not_possible")
        assert jobs(platform) == []


async def test_a_hold_that_was_acknowledged_still_takes_its_number(
    tmp_path: Path, platform: AreaPlatform, clock: Later
) -> None:
    """The duty room silences the alarm while the office looks for its stamp."""
    async with desk(tmp_path, platform, clock) as one:
        issued = await one.issue(one.alert([FLOWER]))
        seen = await one.core.decisions.approve(issued.alert, one.who("signer"))
        assert seen.held == ()
        await number(one, issued.alert)
        await until(lambda: len(jobs(platform)) == 1)


async def test_a_number_nobody_waits_for_sends_nothing(tmp_path: Path, platform: AreaPlatform, clock: Later) -> None:
    """As shipped the row counts under the emergency regime alone, and a number does not start one."""

    def shipped(_: str) -> str:
        return (CONFIG / "policy" / "plan.toml").read_text(encoding="utf8")

    async with desk(tmp_path, platform, clock, edit=shipped) as one:
        issued = await one.issue(one.alert([FLOWER]))
        with pytest.raises(Refused) as refused:
            await number(one, issued.alert)
        assert (refused.value.status, refused.value.code) == (409, "not_waiting")
        assert jobs(platform) == []


@pytest.mark.parametrize("over", [False, True])
async def test_under_the_emergency_regime_a_number_counts_while_it_lasts(
    tmp_path: Path, platform: AreaPlatform, clock: Later, over: bool
) -> None:
    """D8 is checked anew: what the regime allowed at noon is not allowed by a number that comes after its end."""

    def shipped(_: str) -> str:
        return (CONFIG / "policy" / "plan.toml").read_text(encoding="utf8")

    async with desk(tmp_path, platform, clock, edit=shipped) as one:
        regime = Regime("r1", "411726", "411726-fzb", "a", "b", clock.now(), clock.now() + timedelta(hours=1))
        started = Record(clock.now(), "a", "emergency_start", "411726")
        assert await one.core.store.regimes.start(regime, started, regime.until)
        issued = await one.issue(one.alert([FLOWER]))
        assert issued.route == "emergency"
        if over:
            clock.ahead = timedelta(hours=1, minutes=1)
            with pytest.raises(Refused) as refused:
                await number(one, issued.alert)
            assert refused.value.code == "reaches_nobody"
            assert "regime is over" in refused.value.detail
            assert jobs(platform) == []
        else:
            await number(one, issued.alert)
            await until(lambda: [job["areas"] for job in jobs(platform)] == [[FLOWER]])


async def test_an_all_clear_goes_where_the_warning_went_and_nowhere_else(
    tmp_path: Path, platform: AreaPlatform, clock: Later
) -> None:
    """Whoever left home because of us hears that it is over; a place that was never asked for hears of nothing."""
    platform.scenario = replace(FAST, rate=1e12)
    async with desk(tmp_path, platform, clock) as one:
        first = one.alert([FLOWER])
        await one.issue(first)
        told = approved(one.alert([FLOWER, WATER], Kind.UPDATE, first))
        second = await one.issue(told)
        await until(lambda: len(jobs(platform)) == 2)
        cancel = await one.core.decisions.cancel(second.alert, one.who("issuer"), "")
        await one.core.decisions.approve(cancel.alert, one.who("signer"))
        await until(lambda: len(jobs(platform)) == 4)
        assert sorted(job["areas"][0] for job in jobs(platform)[2:]) == [FLOWER, WATER]
        assert all("解除" in job["text"] and job["approval"] == "2026-1" for job in jobs(platform)[2:])
        silent = one.alert([OLD])
        await one.issue(silent)
        ended = await one.core.decisions.cancel(silent.id, one.who("issuer"), "")
        await one.core.decisions.approve(ended.alert, one.who("signer"))
        await one.settled(ended.alert, 1)
        await until(lambda: one.core.store.outbox.planned(ended.alert, 2))
        assert len(jobs(platform)) == 4


async def test_only_its_own_row_lets_an_area_request_out(tmp_path: Path, platform: AreaPlatform, clock: Later) -> None:
    """As shipped, the row counts under the emergency regime alone; an ordinary red warning asks for no area."""

    def shipped(_: str) -> str:
        return (CONFIG / "policy" / "plan.toml").read_text(encoding="utf8")

    async with desk(tmp_path, platform, clock, edit=shipped) as one:
        issued = await one.issue(approved(one.alert([FLOWER])))
        await one.settled(issued.alert, 1)
        row = await one.core.store.outbox.alert(issued.alert)
        assert row is not None
        assert Group.AREA not in {step.audience.group for step in row.plan.steps}
        assert not any("approval" in text for text in row.plan.held)


async def test_a_village_is_asked_for_as_a_village(tmp_path: Path, platform: AreaPlatform, clock: Later) -> None:
    """A landslide over one village must not empty the township."""
    async with desk(tmp_path, platform, clock) as one:
        await one.issue(approved(one.alert([FLOWER_1])))
        await until(lambda: jobs(platform))
        assert [job["areas"] for job in jobs(platform)] == [[FLOWER_1]]


async def test_a_slice_whose_worker_died_is_asked_for_again_and_is_one_job(
    tmp_path: Path, platform: AreaPlatform, clock: Later
) -> None:
    """Killed between the platform's yes and the note of it: the same request again is no second message."""
    async with desk(tmp_path, platform, clock) as one:
        issued = await one.issue(approved(one.alert([FLOWER])))
        await until(lambda: jobs(platform))
        ((batch, _),) = await one.core.store.ledger.batches(issued.alert, "area")

        async def settled() -> bool:
            return (await one.core.store.ledger.counts(issued.alert)).get(("sms_area", "area", "submitted")) == 1

        await until(settled)
        await one.core.store.database.write(lambda tx: _forget(tx, batch.id))
    async with desk(tmp_path, platform, clock):
        await until(lambda: read(platform.log.path, "again"))
        (job,) = jobs(platform)
        assert not job["text"].startswith("再次提醒")


def _forget(tx: Tx, batch: str) -> None:
    """Leave the batch as a worker leaves it that dies after the platform's answer."""
    tx.run("UPDATE claim SET done = 0, lease_until = 1, pending = NULL WHERE batch = :batch", batch=batch)
    tx.run(
        "UPDATE batch SET unfinished = 1, not_before = 0, published_at = 0, states = :queued WHERE id = :batch",
        queued=bytes(1),
        batch=batch,
    )
