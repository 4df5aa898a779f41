"""The loudspeaker's state machine: what sounds, in which order, and what never does."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.device.command import Clock, Hush, Play, SelfTest, Stop, Time, read
from gateway.device.player import Player
from gateway.device.record import Memory, Name, Turn

VILLAGE = "411726001001"
START = datetime(2026, 7, 20, 6, 0, tzinfo=UTC)
LEVELS = ["red", "orange", "yellow", "blue", "unknown"]


@dataclass
class Village:
    """One device whose every repetition lasts ten seconds; `heard` is what really sounded, in order."""

    player: Player = field(default_factory=lambda: Player("horn-1", VILLAGE))
    now: float = 1000.0
    heard: list[tuple[str, bool]] = field(default_factory=list)
    at: datetime = START
    boots: int = 0
    _turn: Turn | None = None
    _left_s: float = 0.0
    _count: int = 0

    def play(
        self, id_: str, to: str = VILLAGE[:9], valid_s: float = 3600.0, name: Name | None = None, **changes: Any
    ) -> Name:
        """Tell it a play under a name of its own."""
        self._count += 1
        name = name or ("batch", self._count)
        values: dict[str, Any] = {"status": "Actual", "drill": False, "level": "red", "text": "涨水", "now": self.at}
        values |= {"expires": self.at + timedelta(seconds=valid_s)}
        self.player.take(Play(id=id_, to=to, **(values | changes)), name, self.now)
        self._follow()
        return name

    def stop(self, id_: str, kind: type[Stop] | type[Hush] = Stop) -> Name:
        """Tell it a stop or a hush."""
        self._count += 1
        name = ("batch", self._count)
        self.player.take(
            kind(id=id_, to=VILLAGE[:6], now=self.at, expires=self.at + timedelta(hours=1)), name, self.now
        )
        self._follow()
        return name

    def speak(self, live: bool) -> None:
        """Take up the microphone, or put it down."""
        self.player.speak(live, self.now)
        self._follow()

    def _follow(self) -> None:
        """Make sound what the player says, at once."""
        if self.player.turn is self._turn:
            return
        self._turn = self.player.turn
        if self._turn is not None:
            self._left_s = 10.0
            self.player.started(self._turn, self.now)
            self.heard.append((self._turn.announcement.play.id, self._turn.announcement.play.real))

    def wait(self, wait_s: float) -> None:
        """Let time pass, in seconds."""
        for _ in range(int(wait_s)):
            self.now += 1
            self.at += timedelta(seconds=1)
            if self._turn is not None:
                self._left_s -= 1
                if self._left_s <= 0:
                    self._left_s = 10.0
                    self.player.spoken(self._turn, 10.0, self.now)
                    self._follow()
            self.player.tick(self.now)
            self._follow()

    def restart(self, *, switched_off_s: float | None = None) -> None:
        """Kill the program; it starts again at once, or the box after a power cut."""
        data = msgspec.json.encode(self.player.memory(self.now))
        if switched_off_s is not None:
            self.boots += 1
            self.at += timedelta(seconds=switched_off_s)
            self.now = 3.0
        memory = msgspec.json.decode(data, type=Memory)
        self.player = Player("horn-1", VILLAGE, memory, self.now, f"boot-{self.boots}")
        self._turn = None
        self.player.tick(self.now)
        self._follow()

    def said(self, name: Name) -> tuple[str, str]:
        """Return the last thing it owes under this name."""
        words = [word.frame for word in self.player.owed.words]
        found = [word for word in words if (word.get("batch"), word.get("position")) == name]
        return (found[-1]["state"], found[-1]["code"]) if found else ("", "")

    def ids(self) -> list[str]:
        """Return what sounded."""
        return [id_ for id_, _ in self.heard]


@pytest.fixture
def village() -> Village:
    village = Village()
    village.player = Player("horn-1", VILLAGE, now=village.now, boot="boot-0")
    return village


# -- drills and real warnings ------------------------------------------------------------------------------------------

ODD: list[Any] = [
    "Actual",
    "actual",
    "ACTUAL",
    " Actual",
    "Actual ",
    "Exercise",
    "System",
    "Test",
    "Draft",
    "",
    None,
    1,
    True,
    [],
    {},
]
DRILLS: list[Any] = [False, True, None, 0, 0.0, 1, "", "false", "False", [], {}]


@pytest.mark.parametrize(("status", "drill"), list(product(ODD, DRILLS)))
def test_only_exactly_actual_and_false_is_real(status: Any, drill: Any) -> None:
    """Rule 3: a drill that sounds real empties villages for nothing, and the next real warning is not believed."""
    payload = {"command": "play", "id": "a", "to": VILLAGE, "now": START, "expires": START + timedelta(hours=1)}
    play = read(msgspec.json.encode(payload | {"status": status, "drill": drill}))
    assert isinstance(play, Play)
    assert play.real is (status == "Actual" and type(status) is str and drill is False)


@pytest.mark.parametrize("missing", ["status", "drill"])
def test_a_play_that_does_not_say_what_it_is_is_a_drill(missing: str) -> None:
    """A field lost on the way must not empty a village."""
    payload = {"command": "play", "id": "a", "to": VILLAGE, "now": START, "expires": START, "status": "Actual"}
    payload |= {"drill": False}
    del payload[missing]
    play = read(msgspec.json.encode(payload))
    assert isinstance(play, Play)
    assert not play.real


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("other", LEVELS)
def test_any_real_warning_interrupts_any_drill_for_good(village: Village, level: str, other: str) -> None:
    """D19: nobody waits for a drill to end while the river rises, and none follows on a real warning."""
    drill = village.play("drill", level=other, status="Exercise", drill=True)
    real = village.play("real", level=level)
    village.wait(60)
    assert village.heard == [("drill", False), ("real", True)]
    assert village.said(drill) == ("failed", "pre_empted")
    assert village.said(real) == ("played", "")


def test_no_drill_interrupts_a_real_warning(village: Village) -> None:
    """Whatever its level."""
    village.play("real", level="blue")
    village.play("drill", level="red", status="Exercise", drill=True)
    assert village.ids() == ["real"]
    village.wait(30)
    assert village.ids() == ["real", "drill"]


def test_a_drill_supersedes_no_real_warning(village: Village) -> None:
    """The words of an exercise must not silence what is true."""
    village.play("real", every_s=600)
    village.play("drill", status="Exercise", drill=True, supersedes=("real", "later"))
    later = village.play("later", level="orange")
    village.wait(700)
    assert village.ids() == ["real", "later", "drill", "real"]
    assert village.said(later) == ("played", "")


# -- order -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), list(product(LEVELS, LEVELS)))
def test_the_higher_level_interrupts_and_the_same_queues(village: Village, first: str, second: str) -> None:
    """A red one must not wait behind a yellow one's repetitions, and the yellow one is not lost."""
    one, two = village.play("one", level=first, repeat=3), village.play("two", level=second)
    if LEVELS.index(second) < LEVELS.index(first):
        assert village.ids() == ["one", "two"]
        assert village.said(one) == ("busy", "pre_empted")
        village.wait(60)
        assert village.ids() == ["one", "two", "one"]
    else:
        village.wait(60)
        assert village.ids() == ["one", "two"]
    assert village.said(one) == village.said(two) == ("played", "")


def test_what_was_interrupted_and_has_expired_is_not_resumed(village: Village) -> None:
    """Its time passed while the higher one was heard."""
    one = village.play("one", level="yellow", valid_s=5)
    village.play("two", level="red")
    village.wait(60)
    assert village.ids() == ["one", "two"]
    assert village.said(one) == ("failed", "expired")


def test_a_live_microphone_is_never_cut_off(village: Village) -> None:
    """D13: the village head goes first, whatever comes; the warning follows."""
    village.speak(True)
    name = village.play("red")
    village.wait(60)
    assert village.heard == []
    assert village.said(name) == ("busy", "live_speech")
    village.speak(False)
    village.wait(10)
    assert village.said(name) == ("played", "")


def test_a_microphone_interrupts_what_sounds_which_comes_back(village: Village) -> None:
    """A person at the spot knows more than the announcement."""
    name = village.play("red")
    village.wait(3)
    village.speak(True)
    assert village.said(name) == ("busy", "live_speech")
    village.speak(False)
    village.wait(10)
    assert village.ids() == ["red", "red"]
    assert village.said(name) == ("played", "")


# -- once, and never stale or cancelled --------------------------------------------------------------------------------


def test_a_version_sounds_once_however_often_it_is_commanded(village: Village) -> None:
    """Desired state is repeated until it is fulfilled; the village must hear it once."""
    village.play("a")
    village.wait(10)
    for _ in range(100):
        last = village.play("a")
    village.wait(60)
    assert village.ids() == ["a"]
    assert village.said(last) == ("played", "")


@pytest.mark.parametrize("change", [{"language": "en"}, {"again": True}, {"status": "Test"}])
def test_another_language_status_or_repeat_is_a_version_of_its_own(village: Village, change: dict[str, Any]) -> None:
    """Rule 2's one repeat, and English after Chinese, must be heard although the warning is the same."""
    village.play("a")
    village.play("a", **change)
    village.wait(60)
    assert village.ids() == ["a", "a"]


def test_a_stop_silences_at_once_and_for_good(village: Village) -> None:
    """A recalled warning must not come back by a late command."""
    name = village.play("a", repeat=5)
    village.wait(3)
    stop = village.stop("a")
    assert village.player.turn is None
    late = village.play("a", again=True)
    village.wait(60)
    assert village.ids() == ["a"]
    assert village.said(name) == village.said(stop) == village.said(late) == ("stopped", "")


def test_a_stop_that_comes_first_still_holds(village: Village) -> None:
    """T2: order of arrival must not bring a cancelled warning to life."""
    stop = village.stop("a")
    late = village.play("a")
    assert village.said(stop) == village.said(late) == ("stopped", "")
    village.wait(60)
    assert village.heard == []


def test_what_was_played_stays_played_when_it_is_stopped(village: Village) -> None:
    """A recall does not make unheard what the village has heard; only its rounds end."""
    name = village.play("a", every_s=60)
    village.wait(65)
    assert village.ids() == ["a", "a"]
    stop = village.stop("a")
    assert village.player.turn is None
    village.wait(600)
    assert village.ids() == ["a", "a"]
    assert village.said(name) == ("played", "")
    assert village.said(stop) == ("stopped", "")


def test_an_update_takes_over_in_the_same_instant(village: Village) -> None:
    """Two versions of one warning must not be heard against each other, nor the old one after the new."""
    old = village.play("a", level="red", repeat=3, every_s=60)
    waits = village.play("b", level="red")
    village.wait(5)
    village.play("c", level="blue", supersedes=("a", "b", "z"))
    assert village.ids() == ["a", "c"]
    assert village.said(old) == village.said(waits) == ("stopped", "")
    village.play("z")
    village.wait(600)
    assert village.ids() == ["a", "c"]


def test_nothing_sounds_after_it_has_expired(village: Village) -> None:
    """Six hours late, a warning sends people the wrong way."""
    assert village.said(village.play("a", valid_s=0)) == ("failed", "expired")
    village.speak(True)
    waits = village.play("b", valid_s=30)
    village.wait(31)
    village.speak(False)
    assert village.said(waits) == ("failed", "expired")
    part = village.play("c", valid_s=15, repeat=3)
    village.wait(60)
    assert village.said(part) == ("failed", "expired")
    assert village.ids() == ["c"]


def test_what_took_too_long_to_prepare_does_not_begin(village: Village) -> None:
    """A recording that came over a slow line after the end of the warning is a stale warning."""
    village.speak(True)
    name = village.play("a", valid_s=30)
    village.player.speak(False, village.now)
    turn = village.player.turn
    assert turn is not None
    village.player.started(turn, village.now + 31)
    assert village.player.turn is None
    assert village.said(name) == ("failed", "expired")


def test_rounds_go_on_until_somebody_confirms(village: Village) -> None:
    """D13: red repeats every ten minutes; the first round is the receipt."""
    name = village.play("a", every_s=600, valid_s=7200)
    village.wait(1300)
    assert village.ids() == ["a"] * 3
    hush = village.stop("a", Hush)
    village.wait(3000)
    assert village.ids() == ["a"] * 3
    assert village.said(name) == ("played", "")
    assert village.said(hush) == ("hushed", "")


def test_a_hush_lets_the_round_that_sounds_end(village: Village) -> None:
    """Somebody confirmed; the sentence is not broken off, and a first round that waits is still heard."""
    village.play("a", every_s=600)
    village.play("b", every_s=600)
    village.wait(3)
    village.stop("a", Hush)
    village.stop("b", Hush)
    assert village.player.playing == "a"
    village.wait(3000)
    assert village.ids() == ["a", "b"]


def test_a_hush_that_comes_first_leaves_one_round(village: Village) -> None:
    """T2: a village whose line was down is told once what others have confirmed."""
    village.stop("a", Hush)
    village.play("a", every_s=60)
    village.wait(600)
    assert village.ids() == ["a"]


def test_rounds_end_with_the_warning(village: Village) -> None:
    """A round after the end would be a stale warning."""
    village.play("a", every_s=600, valid_s=1250)
    village.wait(4000)
    assert village.ids() == ["a"] * 3


@pytest.mark.parametrize(
    "to", ["411727", "411726002", "411726001002", "", "4117", "41", "horn-1", VILLAGE + "0", "４１１７２６"]
)
def test_what_is_for_another_place_is_refused_and_does_not_take_the_version(village: Village, to: str) -> None:
    """A signed warning played back to another village must neither sound there nor keep the real one from sounding."""
    assert village.said(village.play("a", to=to)) == ("failed", "not_for_me")
    village.play("a", to=VILLAGE[:6])
    assert village.ids() == ["a"]


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_frame_that_lay_in_a_buffer_is_judged_by_the_gateways_time(village: Village) -> None:
    """Held back for six hours, its own `now` says that it is fresh; what was heard since says otherwise."""
    now = village.at
    village.play("a")
    village.wait(6 * 3600)
    late = village.play("b", now=now, expires=now + timedelta(hours=3))
    assert village.said(late) == ("failed", "expired")
    assert village.ids() == ["a"]


def test_yesterdays_frames_are_refused_even_if_they_hold_for_long(village: Village) -> None:
    """What was known of them has been forgotten by then."""
    now = village.at
    village.play("a")
    village.wait(10)
    village.restart(switched_off_s=25 * 3600)
    village.play("b")
    village.player.forget(village.now)
    assert village.said(village.play("a", now=now, valid_s=1e6)) == ("failed", "replayed")
    assert village.ids() == ["a", "b"]


def test_after_a_restart_it_goes_on_where_it_had_not_played(village: Village) -> None:
    """A crash in mid-sentence costs the village nothing, and what was heard is not heard again."""
    village.play("a")
    village.wait(10)
    village.play("b", repeat=3)
    village.wait(5)
    village.restart()
    village.wait(60)
    assert village.ids() == ["a", "b", "b"]


def test_after_a_power_cut_nothing_sounds_before_the_time_is_known(village: Village) -> None:
    """Nobody knows how long the power was away: a warning from before the cut may be of yesterday."""
    village.play("a", valid_s=3600, repeat=3)
    village.play("b", valid_s=7200, level="yellow")
    village.restart(switched_off_s=5000)
    village.wait(60)
    assert village.ids() == ["a"]
    village.stop("other")
    village.wait(60)
    assert village.ids() == ["a", "b"]


def test_the_answer_to_its_hello_lets_a_device_go_on(village: Village) -> None:
    """Nothing else may come for an hour, and the village would believe that the red warning is over."""
    village.play("a", valid_s=3600, every_s=300)
    village.wait(20)
    village.restart(switched_off_s=600)
    older, nonce = village.player.greet(), village.player.greet()
    told = Time(to="horn-1", nonce=older, now=village.at, expires=village.at + timedelta(minutes=1))
    for wrong in (told, replace(told, to="horn-2", nonce=nonce), replace(told, nonce="")):
        village.player.told_time(wrong, village.now)
        village.wait(60)
    assert village.ids() == ["a"], "what answers another hello may be of yesterday"
    village.player.told_time(replace(told, nonce=nonce), village.now)
    village.wait(60)
    assert village.ids() == ["a", "a"]


def test_stops_outlive_power_cuts(village: Village) -> None:
    """The village must not hear a cancelled warning because its power came back."""
    village.stop("a")
    village.restart(switched_off_s=3600)
    village.play("a")
    village.wait(60)
    assert village.heard == []


def test_what_it_knows_is_forgotten_once_nothing_can_bring_it_up(village: Village) -> None:
    """A box of the size of a hand runs for years."""
    village.play("a")
    village.play("b", valid_s=90_000)
    village.stop("c")
    village.wait(60)
    village.now += 86_500
    village.at += timedelta(seconds=86_500)
    village.player.forget(village.now)
    memory = village.player.memory(village.now)
    assert [one.play.id for one in memory.announcements] == ["b"]
    assert (memory.void, memory.words) == ({}, [])


# -- receipts ----------------------------------------------------------------------------------------------------------


def test_a_receipt_is_owed_until_it_is_acknowledged(village: Village) -> None:
    """A village is shown as reached only by what its device said, however often the network failed."""
    batch, position = village.play("a")
    owed = village.player.owed
    assert [frame["state"] for frame in owed.due(0)] == ["playing"]
    owed.acknowledged({"type": "ack", "batch": batch, "position": position, "state": "received"})
    assert len(owed) == 1
    village.wait(10)
    (played,) = owed.due(0)
    assert (played["state"], played["heard_s"]) == ("played", 10.0)
    assert owed.due(9.9) == []
    assert owed.due(10) == [played]
    owed.connected()
    assert owed.due(10) == [played]
    owed.refused({"code": "not_commanded", "batch": batch, "position": position})
    assert owed.due(1000) == []
    village.play("a", name=(batch, position))
    assert owed.due(1000) == [played]
    owed.acknowledged({"type": "ack", "batch": batch, "position": position, "state": "played"})
    assert (len(owed), owed.next_at()) == (0, None)


def test_an_alarm_is_owed_until_it_is_acknowledged(village: Village) -> None:
    """The village beats its gong; the county must hear of it although the line was down."""
    village.player.alarm("u-1", "2026-07-20T06:00:00+00:00", village.now)
    assert village.player.owed.due(0) == [{"type": "alarm", "alarm": "u-1", "at": "2026-07-20T06:00:00+00:00"}]
    village.player.owed.acknowledged({"type": "ack", "alarm": "u-1"})
    assert len(village.player.owed) == 0


def test_a_failure_is_told_and_a_later_round_may_still_be_heard(village: Village) -> None:
    """An amplifier that comes back must not stay silent for the rest of the storm."""
    name = village.play("a", every_s=600)
    assert village.player.turn is not None
    village.player.broken(village.player.turn, "amp_fault", village.now)
    assert village.said(name) == ("failed", "amp_fault")
    village._follow()
    village.wait(620)
    assert village.said(name) == ("played", "")


# -- orders ------------------------------------------------------------------------------------------------------------


def order(village: Village, id_: str, to: str = "horn-1", valid_s: float = 600.0, **changes: Any) -> SelfTest:
    values = {"now": village.at, "expires": village.at + timedelta(seconds=valid_s)} | changes
    return SelfTest(order=id_, to=to, **values)


def test_an_order_is_carried_out_once_and_answered_again(village: Village) -> None:
    """A self-test that somebody plays back must not be heard every night."""
    assert village.player.ordered(order(village, "o1"), village.now)
    village.player.carried_out("o1", "no_sound", village.now)
    (first,) = village.player.owed.due(0)
    village.player.owed.acknowledged({"type": "ack", "order": "o1"})
    village.restart()
    assert not village.player.ordered(order(village, "o1"), village.now)
    assert village.player.owed.due(0) == [first]
    assert first == {"type": "receipt", "order": "o1", "state": "failed", "code": "no_sound"}


def test_an_order_that_is_being_carried_out_is_not_begun_again(village: Village) -> None:
    """The gateway asks again after a reconnection; a village hears one test."""
    assert village.player.ordered(order(village, "o1"), village.now)
    assert not village.player.ordered(order(village, "o1"), village.now)
    assert len(village.player.owed) == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"to": "horn-2"}, "not_for_me"), ({"to": VILLAGE}, "not_for_me"), ({"valid_s": 0}, "expired"),
     ({"now": START - timedelta(hours=25)}, "replayed")],
)  # fmt: skip
def test_an_order_for_others_or_too_late_is_refused(village: Village, changes: dict[str, Any], code: str) -> None:
    """A volume meant for one village, or for yesterday, must not make another one quiet."""
    village.play("a")
    assert not village.player.ordered(order(village, "o1", **changes), village.now)
    assert [w.frame["code"] for w in village.player.owed.words if "order" in w.frame] == [code]


def test_a_clock_order_is_the_way_back_from_a_gateway_that_was_ahead(village: Village) -> None:
    """A hub whose clock was a day ahead for a minute must not leave a village without warnings for a day."""
    village.play("ahead", now=village.at + timedelta(days=2), valid_s=3e5)
    late = village.play("a")
    assert village.said(late) == ("failed", "replayed")
    clock = Clock(order="c1", to="horn-1", now=village.at, expires=village.at + timedelta(minutes=5))
    assert village.player.ordered(clock, village.now)
    village.player.carried_out("c1", "", village.now)
    assert village.said(village.play("b")) != ("failed", "replayed")
    assert not village.player.ordered(clock, village.now), "the same order must not set it back again"


# -- whatever comes ----------------------------------------------------------------------------------------------------

IDS = st.sampled_from(["a", "b", "c"])
STEPS = st.one_of(
    st.tuples(
        st.just("play"), IDS, st.sampled_from(LEVELS), st.booleans(), st.sampled_from([5.0, 45.0, 4000.0]),
        st.sampled_from([0.0, 60.0]), st.lists(IDS, max_size=1), st.integers(1, 2),
    ),
    st.tuples(st.sampled_from(["stop", "hush"]), IDS),
    st.tuples(st.just("wait"), st.integers(1, 70)),
    st.tuples(st.just("speak"), st.booleans()),
    st.tuples(st.just("restart"), st.sampled_from([None, 5.0, 1000.0])),
    st.tuples(st.just("again"), st.integers(0, 20)),
)  # fmt: skip


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=25))
def test_whatever_comes_nothing_stale_cancelled_or_twice_is_heard_and_nothing_real_is_lost(steps: list[Any]) -> None:
    """The promises of the protocol page, for any order of commands, crashes and power cuts."""
    village = Judge()
    village.player = Player("horn-1", VILLAGE, now=village.now, boot="boot-0")
    for kind, *values in steps:
        getattr(village, f"do_{kind}")(*values)
    village.speak(False)
    village.stop("-")  # the time is known again
    village.wait(400)
    assert village.owing() <= set(village.completed)


@dataclass
class Judge(Village):
    """A village that knows by itself what may be heard, and what has to."""

    cancelled: dict[str, datetime] = field(default_factory=dict)
    first: dict[tuple[str, str], Play] = field(default_factory=dict)
    completed: list[tuple[str, str]] = field(default_factory=list)
    told: list[Play] = field(default_factory=list)

    def do_play(
        self, id_: str, level: str, real: bool, valid_s: float, every_s: float, supersedes: list[str], repeat: int
    ) -> None:
        play = Play(
            id=id_, to=VILLAGE[:6], status="Actual" if real else "Exercise", drill=not real, level=level, text="…",
            every_s=every_s, repeat=repeat, supersedes=tuple(supersedes), now=self.at,
            expires=self.at + timedelta(seconds=valid_s),
        )  # fmt: skip
        key = (id_, str(play.status))
        new = key not in self.first
        if new:
            self.first[key] = play
            for other in set(supersedes) - {id_} if real else set():
                self.cancelled.setdefault(other, self.at)
        self._count += 1
        self.told.append(play)
        self.player.take(play, ("batch", self._count), self.now)
        self._follow()

    def do_again(self, index: int) -> None:
        """Somebody plays a frame back, as it was."""
        if self.told:
            self.player.take(self.told[index % len(self.told)], ("evil", index), self.now)
            self._follow()

    def do_stop(self, id_: str) -> None:
        self.cancelled.setdefault(id_, self.at)
        self.stop(id_)

    def do_hush(self, id_: str) -> None:
        self.stop(id_, Hush)

    def do_wait(self, wait_s: int) -> None:
        self.wait(wait_s)

    def do_speak(self, live: bool) -> None:
        self.speak(live)

    def do_restart(self, switched_off_s: float | None) -> None:
        live = self.player.live_speech
        self.restart(switched_off_s=switched_off_s)
        self.speak(live)

    def _follow(self) -> None:
        before = self._turn
        super()._follow()
        turn = self._turn
        if turn is None or turn is before:
            return
        play = turn.announcement.play
        key = (play.id, str(play.status))
        assert play.expires > self.at, "stale"
        assert play.id not in self.cancelled, "cancelled"
        assert not self.player.live_speech, "the microphone was cut off"
        assert play.every_s or key not in self.completed, "twice"

    def wait(self, wait_s: float) -> None:
        for _ in range(int(wait_s)):
            before = self._turn
            super().wait(1)
            if before is not None and before.repetition >= before.announcement.play.repeat:
                play = before.announcement.play
                self.completed.append((play.id, str(play.status)))
                assert play.id not in self.cancelled

    def owing(self) -> set[tuple[str, str]]:
        """What has to have been heard to the end: whatever is real, valid and not cancelled."""
        return {
            key
            for key, play in self.first.items()
            if play.status == "Actual" and play.expires > self.at and play.id not in self.cancelled
        }
