"""What the hub writes to loudspeakers: nothing of a stopped warning, everything of all others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import blank
import pytest
from links import RecordingLink
from structlog.testing import capture_logs
from test_store import NOW, HandClock, alert, batch_of, draft_of

from gateway.channel import ChannelSettings, Link, Play, Sockets
from gateway.database import Database
from gateway.errors import Temporary
from gateway.hub import COMPOSE_AGAIN_S, NOTED, RESEND_S, Hub
from gateway.metrics import REGISTRY
from gateway.model import Batch, DeviceEvent, Lane, Level, Message, Notice, Receipt, Record, Report, State, Status
from gateway.ports import AlertRow
from gateway.store import Store


class Poles:
    """A channel of loudspeakers that keeps what was written to them."""

    name = "loudspeaker_ws"

    def __init__(self, devices: Collection[int]) -> None:
        self.devices = devices
        self.came = set(devices)
        self.written: list[tuple[int, bool]] = []
        self.hushed: list[int] = []
        self.frames: list[list[tuple[int, str, bool]]] = []
        self.answer = Receipt(State.SUBMITTED)
        self.displaced: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()


class Wires(Sockets):
    """The channel of some poles."""

    name = "loudspeaker_ws"
    supersedes = True

    def __init__(self, poles: Poles) -> None:
        super().__init__(ChannelSettings())
        self.poles = poles

    def held(self) -> Collection[int]:
        return self.poles.devices

    def arrived(self) -> Collection[int]:
        came, self.poles.came = self.poles.came, set()
        return came

    async def displace(self, devices: Collection[int], link: Link) -> None:
        self.poles.displaced.set_result(list(devices))

    async def command(self, plays: Sequence[Play], link: Link) -> list[Receipt]:
        self.poles.written += [(play.device, play.stop) for play in plays if not play.hush]
        self.poles.hushed += [play.device for play in plays if play.hush]
        self.poles.frames.append([(play.device, play.message.alert, play.stop) for play in plays])
        return [self.poles.answer if not play.stop else Receipt(State.SUBMITTED) for play in plays]


class Words:
    """A composer; recalls `recalled` while it composes, and fails for the batches `broken`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.recalled = ""
        self.broken: set[str] = set()
        self.supersedes: dict[str, tuple[str, ...]] = {}

    async def message(self, batch: Batch, positions: Sequence[int], *, again: bool) -> Message:
        if batch.id in self.broken:
            raise KeyError("a template")
        if self.recalled:
            await self.store.outbox.stop(self.recalled, "recalled", Record(NOW, "issuer", "recall", self.recalled))
        return Message(
            batch.alert, Notice.ISSUE, Status.ACTUAL, Level.RED, Lane.GREEN, "zh", "", "words", batch.deadline,
            supersedes=self.supersedes.get(batch.alert, ()), every_s=batch.every_s,
        )  # fmt: skip

    def know(self, rows: Iterable[AlertRow]) -> None:
        """It asks for no alert."""

    async def repeatable(self, batch: Batch) -> bool:
        return False


class Post:
    """A hub over a real store."""

    def __init__(self, store: Store, clock: HandClock) -> None:
        self.store = store
        self.clock = clock
        self.poles = Poles(range(100, 104))
        self.words = Words(store)
        self.hub = Hub(Wires(self.poles), store, self.words, RecordingLink(), clock)

    async def warn(self, name: str = "a1") -> Batch:
        """Accept an alert for four loudspeakers."""
        one = alert(name)
        batch = batch_of(one, slice_=0, channel="loudspeaker_ws")
        await self.store.outbox.accept(draft_of(one, batch, digest=name))
        return batch

    async def states(self, batch: Batch) -> dict[str, int]:
        """Loudspeakers by state."""
        counts = await self.store.ledger.counts(batch.alert)
        return {state: number for (_, _, state), number in counts.items()}


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    clock = HandClock()
    database = Database(blank.sqlite(tmp_path))
    await database.open()
    yield Post(Store(database, clock), clock)
    await database.close()


def alarms(kind: str) -> float:
    return REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": kind}) or 0.0


async def test_what_was_recalled_while_it_was_composed_is_never_played(post: Post) -> None:
    """The recall commits between the look and the write: nothing stops a play afterwards, so there must be none."""
    batch = await post.warn()
    post.words.recalled = batch.alert
    assert await post.hub.round() == 0
    assert post.poles.written == []
    assert await post.states(batch) == {"superseded": 4}


async def test_what_was_played_before_the_recall_is_stopped(post: Post) -> None:
    """A village must not go on hearing a warning that was a mistake."""
    batch = await post.warn()
    assert await post.hub.round() == 4
    assert await post.states(batch) == {"submitted": 4}
    await post.store.outbox.stop(batch.alert, "recalled", Record(NOW, "issuer", "recall", batch.alert))
    assert await post.hub.round() == 4
    assert sorted(post.poles.written) == [(device, stop) for device in range(100, 104) for stop in (False, True)]


async def test_a_play_whose_write_failed_is_written_again_and_stopped_after_a_recall(post: Post) -> None:
    """Nobody knows how much of it the device heard before its connection broke."""
    batch = await post.warn()
    post.poles.answer = Receipt(State.QUEUED, "offline", error=Temporary("offline"))
    assert await post.hub.round() == await post.hub.round() == 4
    await post.store.outbox.stop(batch.alert, "recalled", Record(NOW, "issuer", "recall", batch.alert))
    post.poles.answer = Receipt(State.SUBMITTED)
    assert await post.hub.round() == 4
    assert post.poles.written[-4:] == [(device, True) for device in range(100, 104)]


async def test_a_batch_that_cannot_be_composed_silences_no_other(post: Post) -> None:
    """One missing word in one template; the village across the river still hears its own warning."""
    broken, good = await post.warn("broken"), await post.warn("good")
    post.words.broken = {broken.id}
    before = alarms("cannot_compose")
    with capture_logs() as logs:
        assert await post.hub.round() == 4
        assert await post.hub.round() == 0
    errors = [entry["event"] for entry in logs if entry["log_level"] == "error"]
    assert errors == ["cannot_compose"], "it does not fill the log four times a second"
    assert alarms("cannot_compose") == before + 1
    assert await post.states(good) == {"submitted": 4}
    assert await post.states(broken) == {"queued": 4}, "what was never written is not called submitted"
    post.words.broken = set()
    post.clock.advance(COMPOSE_AGAIN_S)
    assert await post.hub.round() == 4
    assert await post.states(broken) == {"submitted": 4}


async def test_an_error_nobody_foresaw_is_logged_without_its_words(post: Post) -> None:
    """A bug in a channel must show, and must not carry a text into the log."""
    await post.warn()
    post.poles.answer = Receipt(State.FAILED, "", error=KeyError("somebody's text"))
    with capture_logs() as logs:
        await post.hub.round()
    assert [(entry["event"], entry["type"]) for entry in logs] == [("bug_in_channel", "KeyError")]
    assert "text" not in str(logs)


async def test_an_update_is_one_command_and_no_stop_beside_it(post: Post) -> None:
    """A village that is told to stop first hears a silence, and perhaps nothing else if the line breaks then."""
    old = await post.warn("old")
    assert await post.hub.round() == 4
    new = alert("new")
    batch = batch_of(new, size=2, slice_=0, channel="loudspeaker_ws")
    post.words.supersedes = {new.id: (old.alert,)}
    await post.store.outbox.accept(draft_of(new, batch, digest="new", stops={old.alert: "superseded"}))
    assert await post.hub.round() == 4
    assert sorted(post.poles.frames[-2] + post.poles.frames[-1]) == [
        (100, new.id, False), (101, new.id, False), (102, old.alert, True), (103, old.alert, True),
    ], "the stop stands for those whom the update does not address"  # fmt: skip
    assert await post.hub.round() == 0
    post.clock.advance(RESEND_S)
    assert await post.hub.round() == 4
    assert (100, old.alert, True) not in post.poles.frames[-1], "the play ends it, again"
    reports = [Report("loudspeaker_ws", "", State.PLAYED, NOW, "", batch.id, position) for position in (0, 1)]
    await post.store.ledger.commit(reports)
    post.clock.advance(RESEND_S)
    assert await post.hub.round() == 4
    assert (100, old.alert, True) in post.poles.frames[-1], "a device that said nothing of the old one is told to stop"


async def test_a_play_that_cannot_be_written_yet_withholds_no_stop(post: Post) -> None:
    """The audio of the update is still being made; the old warning falls silent at once all the same."""
    old = await post.warn("old")
    assert await post.hub.round() == 4
    new = alert("new")
    post.words.supersedes = {new.id: (old.alert,)}
    batch = batch_of(new, slice_=0, channel="loudspeaker_ws")
    await post.store.outbox.accept(draft_of(new, batch, digest="new", stops={old.alert: "superseded"}))
    post.poles.answer = Receipt(State.FAILED, "audio_is_made", error=Temporary("audio_is_made"))
    await post.hub.round()
    assert sorted(post.poles.frames[-1]) == [(device, old.alert, True) for device in range(100, 104)]


async def test_a_confirmed_village_is_hushed_once(post: Post) -> None:
    """D13: once somebody answers for it, its people are told what to do by that person and no longer by the horn."""
    one = alert("a1")
    batch = replace(batch_of(one, slice_=0, channel="loudspeaker_ws"), every_s=600)
    await post.store.outbox.accept(draft_of(one, batch))
    where = {"village": "411726204201", "township": "411726204", "county": "411726"}
    rows: list[dict[str, object]] = [{"id": device, "name": f"horn-{device}", **where} for device in batch.persons]
    text = (
        "INSERT INTO device (id, name, village, township, county, key_hash, standing)"
        " VALUES (:id, :name, :village, :township, :county, '', 'service')"
    )
    await post.store.database.write(lambda tx: tx.many(text, rows))
    assert await post.hub.round() == 4
    await post.store.ledger.commit([Report("loudspeaker_ws", "", State.PLAYED, NOW, "", batch.id, 0)])
    await post.store.ledger.confirm(one.id, 7, ["411726204201"], "phone", Record(NOW, "duty", "confirm", one.id))
    assert await post.hub.round() == 1
    assert await post.hub.round() == 0
    assert post.poles.hushed == [100], "the others have not heard it yet"


async def test_a_hub_parts_from_a_device_that_has_come_to_another(post: Post) -> None:
    """Two boxes with one key at two hubs would both sound for as long as their lines hold."""
    other = Store(post.store.database, post.clock)
    for store in (post.store, other):
        await store.devices.fold([DeviceEvent(100, "online", NOW)])
    running = asyncio.create_task(post.hub.run())
    try:
        assert await asyncio.wait_for(post.poles.displaced, 20) == [100]
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_connection_that_lasts_for_years_costs_no_memory(post: Post) -> None:
    """Six thousand loudspeakers that never hang up must not fill the process that warns them."""
    for number in range(NOTED + 8):
        batch = await post.warn(f"a{number}")
        await post.hub.round()
        await post.store.ledger.commit(
            [Report("loudspeaker_ws", "", State.PLAYED, NOW, "", batch.id, position) for position in range(4)]
        )
        post.clock.advance(RESEND_S)
    assert max(map(len, post.hub._written.values())) <= NOTED
