"""A watched folder: complete files only, never lost, never sent twice, nothing followed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from manual_clock import ManualClock

from gateway import cap
from gateway.cli.national import judged
from gateway.errors import ConfigError
from gateway.watch import Verdict, Watch

GOOD, BAD = Verdict(True, {"result": "accepted", "alert": "a" * 20}), Verdict(False, {"code": "invalid_alert"})


class Gateway:
    """Answers as it is told; remembers what was submitted."""

    def __init__(self) -> None:
        self.answers: dict[bytes, Verdict | None] = {}
        self.submitted: list[bytes] = []

    async def __call__(self, data: bytes) -> Verdict | None:
        self.submitted.append(data)
        return self.answers.get(data, GOOD)


class Desk:
    """A folder, its watcher, the gateway behind it, and time moved by hand."""

    def __init__(self, folder: Path, clock: ManualClock, gateway: Gateway, watch: Watch) -> None:
        self.folder = folder
        self.clock = clock
        self.gateway = gateway
        self.watch = watch

    def put(self, name: str, data: bytes, age_s: int = 0) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        os.utime(path, (1_000_000 - age_s, 1_000_000 - age_s))
        return path

    async def settle(self) -> int:
        """Look until what is there has stopped growing."""
        await self.watch.round()
        self.clock.advance(1)
        return await self.watch.round()

    def names(self, end: str) -> set[str]:
        return set(os.listdir(self.folder / end))


@pytest.fixture
def desk(tmp_path: Path, clock: ManualClock) -> Iterator[Desk]:
    gateway = Gateway()
    with Watch(tmp_path, gateway, clock) as watch:
        yield Desk(tmp_path, clock, gateway, watch)


async def test_a_message_is_issued_and_moved_with_what_became_of_it(desk: Desk) -> None:
    """The platform's export reaches the villages, and whoever dropped it sees so beside the file."""
    desk.put("one.xml", b"<alert/>")
    assert await desk.settle() == 1
    assert desk.names("done") == {"one.xml", "one.xml.json"}
    said = json.loads((desk.folder / "done" / "one.xml.json").read_text())
    assert (said["file"], said["result"], said["alert"]) == ("one.xml", "accepted", "a" * 20)
    assert not (desk.folder / "one.xml").exists()


async def test_a_refused_message_says_why(desk: Desk) -> None:
    """It is mended and dropped again; the first attempt stays to be looked at."""
    desk.gateway.answers[b"x"] = BAD
    desk.put("one.xml", b"x")
    await desk.settle()
    assert json.loads((desk.folder / "refused" / "one.xml.json").read_text())["code"] == "invalid_alert"
    desk.put("one.xml", b"y")
    await desk.settle()
    assert (desk.names("refused"), desk.names("done")) == ({"one.xml", "one.xml.json"}, {"one.xml", "one.xml.json"})


async def test_a_file_that_still_grows_is_left_alone(desk: Desk) -> None:
    """Half a warning is refused, and the whole one then looks like a mistake."""
    path = desk.put("one.xml", b"<al")
    await desk.watch.round()
    desk.clock.advance(1)
    with path.open("ab") as file:
        file.write(b"ert/>")
    assert await desk.watch.round() == 0
    desk.clock.advance(1)
    assert await desk.watch.round() == 1
    assert desk.gateway.submitted == [b"<alert/>"]


@pytest.mark.parametrize("name", [".one.xml", "one.xml.tmp", "one.xml.part", "one.xml~"])
async def test_an_unfinished_name_is_not_a_message_until_it_is_renamed(desk: Desk, name: str) -> None:
    """The sure way for a writer that pauses."""
    desk.put(name, b"<alert/>")
    assert await desk.settle() == 0
    (desk.folder / name).rename(desk.folder / "one.xml")
    assert await desk.settle() == 1


async def test_an_empty_file_is_not_complete(desk: Desk) -> None:
    """Its writer has opened it and not yet written."""
    desk.put("one.xml", b"")
    assert await desk.settle() == 0
    assert desk.gateway.submitted == []


async def test_the_oldest_goes_first(desk: Desk) -> None:
    """An update must not overtake its alert."""
    desk.put("a-update.xml", b"update", age_s=5)
    desk.put("b-alert.xml", b"alert", age_s=10)
    await desk.settle()
    assert desk.gateway.submitted == [b"alert", b"update"]


async def test_while_the_gateway_is_away_files_stay_and_nothing_overtakes(desk: Desk) -> None:
    """A restart of the gateway loses no warning."""
    desk.gateway.answers[b"alert"] = None
    desk.put("a.xml", b"alert", age_s=10)
    desk.put("b.xml", b"update", age_s=5)
    assert await desk.settle() == 0
    desk.clock.advance(1)
    assert await desk.watch.round() == 0
    assert desk.gateway.submitted == [b"alert"]
    desk.gateway.answers.clear()
    desk.clock.advance(5)
    assert await desk.watch.round() == 2
    assert desk.gateway.submitted == [b"alert", b"alert", b"update"]


async def test_what_the_gateway_cannot_digest_holds_up_nothing_for_ever(desk: Desk) -> None:
    """A red warning behind a file that fails again and again goes out."""
    desk.gateway.answers[b"poison"] = None
    desk.put("a.xml", b"poison", age_s=10)
    desk.put("b.xml", b"red", age_s=5)
    await desk.settle()
    for _ in range(3):
        desk.clock.advance(5)
        await desk.watch.round()
    assert b"red" in desk.gateway.submitted
    assert (desk.folder / "a.xml").exists()


async def test_who_dies_after_the_answer_submits_the_same_bytes_once_more(tmp_path: Path, clock: ManualClock) -> None:
    """For the gateway that is a duplicate; a file is never lost between the two."""
    gateway = Gateway()
    with Watch(tmp_path, gateway, clock) as watch:
        desk = Desk(tmp_path, clock, gateway, watch)
        path = desk.put("one.xml", b"<alert/>")
        await desk.settle()
    (tmp_path / "done" / "one.xml").rename(path)  # as if the move had never happened, its .json written
    with Watch(tmp_path, gateway, clock) as watch:
        desk = Desk(tmp_path, clock, gateway, watch)
        assert await desk.settle() == 1
    assert gateway.submitted == [b"<alert/>"] * 2
    assert desk.names("done") == {"one.xml", "one.xml.json"}


async def test_no_earlier_file_is_overwritten(desk: Desk) -> None:
    """The evidence of the first stays."""
    for data in (b"1", b"2", b"3"):
        desk.put("one.xml", data)
        await desk.settle()
    kept = {(desk.folder / "done" / name).read_bytes() for name in ("one.xml", "one.xml.1", "one.xml.2")}
    assert kept == {b"1", b"2", b"3"}


@pytest.mark.parametrize("in_place", [False, True])
async def test_a_message_that_takes_the_name_of_the_one_being_submitted_is_not_lost(desk: Desk, in_place: bool) -> None:
    """A bureau that always writes warning.xml has the update there before the gateway has answered the alert."""

    async def slow(data: bytes) -> Verdict:
        desk.gateway.submitted.append(data)
        if data == b"alert":
            if not in_place:
                os.unlink(desk.folder / "warning.xml")
            desk.put("warning.xml", b"update", age_s=-1)
        return GOOD

    desk.watch._submit = slow
    desk.put("warning.xml", b"alert")
    assert await desk.settle() == 1
    assert await desk.settle() == 1
    assert desk.gateway.submitted == [b"alert", b"update"]
    assert (desk.folder / "done" / "warning.xml").read_bytes() == b"alert"
    assert (desk.folder / "done" / "warning.xml.1").read_bytes() == b"update"


async def test_a_file_that_is_taken_away_while_it_is_submitted_leaves_its_evidence(desk: Desk) -> None:
    """The gateway has taken it: what was sent is kept, and the watcher goes on."""

    async def slow(data: bytes) -> Verdict:
        os.unlink(desk.folder / "one.xml")
        return GOOD

    desk.watch._submit = slow
    desk.put("one.xml", b"<alert/>")
    assert await desk.settle() == 1
    assert (desk.folder / "done" / "one.xml").read_bytes() == b"<alert/>"


async def test_the_reason_of_one_file_overwrites_no_other_file(desk: Desk) -> None:
    """A message may be called one.xml.json, too."""
    desk.put("one.xml.json", b"first")
    await desk.settle()
    desk.put("one.xml", b"second")
    await desk.settle()
    assert (desk.folder / "done" / "one.xml.json").read_bytes() == b"first"


async def test_links_folders_and_pipes_are_not_followed(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever may drop files must not make the gateway read others, or wait for ever."""
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.write_bytes(b"secret")
    (desk.folder / "link.xml").symlink_to(secret)
    (desk.folder / "folder.xml").mkdir()
    os.mkfifo(desk.folder / "pipe.xml")
    assert await desk.settle() == 0
    assert desk.gateway.submitted == []


async def test_a_file_swapped_for_a_link_is_not_read(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Between the look and the reading nobody slips another file in."""
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.write_bytes(b"secret!!")
    path = desk.put("one.xml", b"<alert/>")
    await desk.watch.round()
    desk.clock.advance(1)
    ready = desk.watch._complete(desk.clock.now())
    path.unlink()
    path.symlink_to(secret)
    assert [desk.watch._read(name) for name in ready] == [None]
    path.unlink()
    desk.put("one.xml", b"another.", age_s=1)
    assert [desk.watch._read(name) for name in ready] == [None]


async def test_a_link_in_place_of_done_is_refused_at_the_start(tmp_path: Path, clock: ManualClock) -> None:
    """Files are not moved to where somebody else wants them."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "done").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="name a folder"), Watch(tmp_path / "in", Gateway(), clock):
        pass


async def test_one_watcher_per_folder(desk: Desk, clock: ManualClock) -> None:
    """Two would submit twice and quarrel about the moving."""
    with pytest.raises(ConfigError, match="another process watches"), Watch(desk.folder, Gateway(), clock):
        pass


async def test_too_large_a_file_is_refused_without_reading_it_whole(desk: Desk) -> None:
    """A disk image in the wrong folder must not fill the memory."""
    with desk.put("image.xml", b"x").open("r+b") as file:
        file.truncate(cap.MAX_BYTES * 1000)
    await desk.settle()
    assert desk.gateway.submitted == []
    assert json.loads((desk.folder / "refused" / "image.xml.json").read_text())["code"] == "too_large"


@pytest.mark.parametrize("name", ["预警.xml", "x" * 255, "a b\nc.xml", os.fsdecode(b"\xff\xfe.xml"), "one.json"])
async def test_any_name_is_moved(desk: Desk, name: str) -> None:
    """A name that cannot be moved would be submitted for ever."""
    desk.put(name, b"<alert/>")
    assert await desk.settle() == 1
    assert len(desk.names("done")) == 2
    assert await desk.settle() == 0


@pytest.mark.parametrize(
    ("status", "answer", "accepted"),
    [(202, {"id": "a", "result": "accepted"}, True), (200, {"id": "a", "result": "duplicate"}, True),
     (400, {"type": "https://mingluo.example/problems/invalid_alert", "detail": "x"}, False),
     (403, {"type": "x/outside_authority", "detail": "x"}, False), (409, {"type": "x/conflict"}, False),
     (401, {"type": "x/unknown_token"}, None), (429, {"type": "x"}, None), (500, {}, None), (503, {"type": "x"}, None),
     (200, None, None), (202, [], None), (302, None, None)],
)  # fmt: skip
def test_only_a_decision_of_the_gateway_settles_a_file(status: int, answer: object, accepted: bool | None) -> None:
    """A wrong token or a proxy's page is not the message's fault."""
    verdict = judged(status, answer)
    assert (verdict.accepted if verdict else None) is accepted
