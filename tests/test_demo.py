"""The demonstration's judge, on logs written by hand, and what its screen says of a run.

A judge that lets a missing text pass would let the whole project pass for proven when it is not.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from gateway import cap
from gateway.demo.judge import Phase, Samples, Verdict, Version, judge, samples, strangers
from gateway.demo.message import given, warning
from gateway.demo.run import ended_by_signals
from gateway.demo.screen import Screen, villages, wrapped
from gateway.errors import Refused
from gateway.model import Group, Kind
from gateway.simulate.speaker import Options

VILLAGE, BESIDE, ELSEWHERE = "411726001001", "411726001002", "411726002001"
FIRST_AT = datetime(2026, 7, 20, 6, 30, tzinfo=UTC)  # 14:30 in China
FIRST, SECOND = "20日14时30分发布暴雨红色预警", "20日14时31分继续发布暴雨红色预警"
OFFICIAL, RESIDENT = "10000000001", "10000000002"
FULL = (OFFICIAL, RESIDENT)


def version(number: int = 0, villages: Sequence[str] = (VILLAGE,)) -> Version:
    """Version 0, 1, … of the alert, each issued a minute later."""
    return Version(f"v{number}", FIRST_AT + timedelta(minutes=number), frozenset(villages))


def table(path: Path, header: str, *rows: Sequence[str]) -> None:
    """Write one table of the roster."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])


def subscription(name: str) -> str:
    """Return a subscription as the roster holds it."""
    return json.dumps({"endpoint": f"http://127.0.0.1:1/push/{name}"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One official, one resident, two subscribers and one loudspeaker in the village; others elsewhere."""
    roster = tmp_path / "roster"
    roster.mkdir()
    table(roster / "officials.csv", "name,phone,township,village", ("王一", OFFICIAL, VILLAGE[:9], VILLAGE))
    table(roster / "residents.csv", "name,phone,village", ("李二", RESIDENT, VILLAGE), ("张三", "1", ELSEWHERE))
    table(roster / "devices.csv", "name,village", ("lb-1", VILLAGE), ("lb-2", ELSEWHERE))
    table(
        roster / "subscribers.csv", "subscription,area",
        (subscription("a"), VILLAGE), (subscription("b"), VILLAGE[:9]), (subscription("c"), ELSEWHERE),
    )  # fmt: skip
    return tmp_path


def log(
    folder: Path,
    texts: Sequence[tuple[str, str]],
    pushes: Sequence[tuple[str, str, str]] = (("a", "v0", ""), ("b", "v0", "")),
    sounds: Sequence[tuple[str, str]] = (("lb-1", "v0"),),
) -> None:
    """Write what the counterparts received: (number, words), (subscriber, alert, words), (device, alert)."""
    at = "2026-07-20T06:32:00+00:00"
    files: dict[str, list[dict[str, Any]]] = {
        "sms": [{"kind": "sms", "at": at, "to": f"+86{to}", "body": f"【局】局{body}"} for to, body in texts],
        "push": [
            {"kind": "push", "at": at, "subscriber": to, "payload": {"alert": alert, "body": body}}
            for to, alert, body in pushes
        ],
        "speakers": [{"kind": "sound", "at": at, "device": device, "id": alert} for device, alert in sounds],
    }
    for name, entries in files.items():
        lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        (folder / f"{name}.log").write_text("".join(lines), encoding="utf8")


def test_a_whole_night_is_whole(folder: Path) -> None:
    """Two persons, two subscriptions and one loudspeaker of the village, each told once: nothing to complain of."""
    log(folder, [(to, FIRST) for to in FULL])
    assert judge(folder, version(), Options()) == Verdict(5, 0, 0, 0, speakers=1, silenced=0)


@pytest.mark.parametrize("missing", ["text", "push", "sound"])
def test_whoever_got_nothing_is_missed(folder: Path, missing: str) -> None:
    """One phone, browser or loudspeaker that stayed silent is one person or village left out."""
    texts = [(to, FIRST) for to in FULL[: 1 if missing == "text" else 2]]
    pushes = [(to, "v0", "") for to in "ab"[: 1 if missing == "push" else 2]]
    log(folder, texts, pushes, () if missing == "sound" else (("lb-1", "v0"),))
    verdict = judge(folder, version(), Options())
    assert (verdict.unaccounted, verdict.duplicates) == (1, 0)


@pytest.mark.parametrize("twice", ["text", "push", "sound"])
def test_whoever_was_told_twice_is_counted(folder: Path, twice: str) -> None:
    """People who are told everything twice stop listening; so every second copy counts, on every way."""
    log(
        folder,
        [(to, FIRST) for to in (*FULL, *FULL[: twice == "text"])],
        [(to, "v0", "") for to in "ab" + "a" * (twice == "push")],
        [("lb-1", "v0")] * (2 if twice == "sound" else 1),
    )
    verdict = judge(folder, version(), Options())
    assert (verdict.unaccounted, verdict.duplicates) == (0, 1)


def test_somebody_outside_the_area_who_is_told_counts(folder: Path) -> None:
    """A village that is not meant must not be frightened, whichever way."""
    log(
        folder,
        [*((to, FIRST) for to in FULL), ("1", FIRST)],
        [(to, "v0", "") for to in "abc"],
        [("lb-1", "v0"), ("lb-2", "v0")],
    )
    assert judge(folder, version(), Options()).duplicates == 3


def test_a_marked_repeat_is_no_duplicate(folder: Path) -> None:
    """Rule 2: where it is not known whether a text left, it is repeated once, and says so."""
    log(folder, [*((to, FIRST) for to in FULL), (OFFICIAL, f"再次提醒：{FIRST}")])
    verdict = judge(folder, version(), Options())
    assert (verdict.unaccounted, verdict.duplicates, verdict.marked) == (0, 0, 1)


def test_a_late_copy_of_one_version_does_not_hide_a_missing_text_of_the_next(folder: Path) -> None:
    """The resident got the first version twice and never heard of the second: both must be seen."""
    texts = [(OFFICIAL, FIRST), (RESIDENT, FIRST), (OFFICIAL, SECOND), (RESIDENT, FIRST)]
    log(folder, texts, [(to, f"v{at}", "") for to in "ab" for at in (0, 1)], [("lb-1", "v0"), ("lb-1", "v1")])
    first, second = (judge(folder, version(at), Options()) for at in (0, 1))
    assert (first.unaccounted, first.duplicates) == (0, 1)
    assert (second.unaccounted, second.duplicates) == (1, 0)


def test_a_full_hour_is_not_taken_for_another_minute(folder: Path) -> None:
    """A full hour is written 15时; a text of 15时1分 is of another version, one of 5时 too."""
    log(folder, [(OFFICIAL, "20日15时发布"), (RESIDENT, "20日15时1分发布"), (RESIDENT, "20日5时发布")])
    verdict = judge(folder, version(30), Options())
    assert (verdict.unaccounted, verdict.duplicates) == (1 + 2 + 1, 0)


def test_a_text_of_no_version_is_a_stranger(folder: Path) -> None:
    """A text that belongs to nothing that was issued should not have been sent."""
    log(folder, [(OFFICIAL, FIRST), (OFFICIAL, SECOND), (OFFICIAL, "19日8时解除")])
    assert strangers(folder / "sms.log", [version(0), version(1)]) == 1
    assert strangers(folder / "sms.log", [Version("v", None, frozenset())]) == 0


def test_a_loudspeaker_that_is_off_on_purpose_is_not_expected_and_is_named_as_such(folder: Path) -> None:
    """The number shown must add up: of one loudspeaker, one is off."""
    log(folder, [(to, FIRST) for to in FULL], sounds=())
    assert judge(folder, version(), Options(offline=1.0)) == Verdict(4, 0, 0, 0, speakers=1, silenced=1)


def test_only_the_groups_of_the_plan_are_expected(folder: Path) -> None:
    """A nowcast is for officials alone; residents who hear nothing of it are not left out."""
    log(folder, [(OFFICIAL, FIRST)], (), ())
    one = Version("v0", FIRST_AT, frozenset({VILLAGE}), frozenset({Group.OFFICIALS}))
    assert judge(folder, one, Options()) == Verdict(1, 0, 0, 0)


def test_who_is_told_in_the_morning_is_counted_and_not_missed_and_too_early_is_wrong(folder: Path) -> None:
    """At night the all-clear leaves the loudspeakers asleep (D14); one that sounds all the same wakes a village."""
    night = Version("v0", FIRST_AT, frozenset({VILLAGE}), later={Group.LOUDSPEAKERS: frozenset({VILLAGE})})
    log(folder, [(to, FIRST) for to in FULL], sounds=())
    assert judge(folder, night, Options()) == Verdict(4, 0, 0, 0, later=1)
    log(folder, [(to, FIRST) for to in FULL])
    assert judge(folder, night, Options()).duplicates == 1


def test_an_area_without_anybody_expects_nobody(folder: Path) -> None:
    """What proves nothing has to say so: zero is shown as zero."""
    log(folder, [], (), ())
    assert judge(folder, version(villages=("411700000000",)), Options()).expected == 0


def test_samples_are_texts_really_received(folder: Path) -> None:
    """One official's and one resident's; the partial all-clear, where a resident got one."""
    partial = "20日14时31分起花园街道不再受暴雨红色预警影响"
    log(folder, [(OFFICIAL, FIRST), (OFFICIAL, SECOND), (RESIDENT, SECOND), (RESIDENT, partial)])
    assert samples(folder, version(1)) == Samples(f"【局】局{SECOND}", f"【局】局{partial}")


# --- messages -------------------------------------------------------------------------------------------------------


def test_a_message_that_is_over_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """Somebody who tries last year's file must read why, in one line."""
    path = tmp_path / "old.xml"
    path.write_bytes(cap.write(warning(Kind.ALERT, FIRST_AT - timedelta(days=900), ["411726001"])))
    with pytest.raises(Refused, match=r"old\.xml expired at 2024-"):
        given(path)


def test_a_message_that_is_none_is_refused_with_its_finding(tmp_path: Path) -> None:
    """The finding names what to mend."""
    path = tmp_path / "no.xml"
    path.write_text("<alert/>")
    with pytest.raises(Refused, match=r"no\.xml is no valid message: .*: \w+: "):
        given(path)


# --- the screen -----------------------------------------------------------------------------------------------------


def phase(verdict: Verdict, status: dict[str, Any] | None = None) -> Phase:
    """One version with a canned status."""
    canned: dict[str, Any] = {
        "route": "green",
        "standing": "active",
        "counts": [
            {"group": group, "channel": channel, "state": state, "recipients": 1234}
            for group, channel in (
                ("officials", "sms_twilio"), ("loudspeakers", "loudspeaker_ws"),
                ("subscribers", "web_push"), ("residents", "sms_twilio"),
            )
            for state in ("queued", "submitted", "delivered", "played", "failed", "unknown", "superseded", "expired")
        ],
        "villages": {"confirmed": 84, "played": 12, "sms_only": 1, "silent": 0, "gap": 0},
        "gaps": [{"name": "花园街道张庄社区", "state": "sms_only"}],
    }  # fmt: skip
    texts = Samples("【局】局20日14时30分发布暴雨红色预警：未来3小时花园街道将有100毫米以上强降雨。", "")
    return Phase("发布 issue", "a red warning", version(), 1.0, status or canned, verdict, texts)


def reported(verdict: Verdict, width: int = 80) -> str:
    """Return what the screen prints for one version."""
    result = {
        "accepted_ms": 24.5, "first_loudspeaker_ms": 105.7, "first_official_ms": None, "all_submitted_ms": 2352.2,
        "unaccounted": verdict.unaccounted, "duplicates": verdict.duplicates,
        "villages": 97, "villages_confirmed": 84, "villages_played": 12, "gaps": ["花园街道张庄社区"],
    }  # fmt: skip
    output = io.StringIO()
    Screen(Console(file=output, width=width)).report([phase(verdict)], result)
    return output.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_report_is_whole_at_common_widths(width: int) -> None:
    """Nothing is cut: every state and channel stands in full, no line is wider than the window."""
    text = reported(Verdict(947, 0, 0, 0, 97, 6), width)
    assert "…" not in text
    assert max(cell_len(line) for line in text.splitlines()) <= width
    for word in ("loudspeaker_ws", "superseded", "sms_twilio", "1,234", "100毫米"):
        assert word in text


def test_the_report_does_not_contradict_itself() -> None:
    """Villages nobody confirmed from are counted once and by their state; times and what is left out are plain."""
    text = " ".join(reported(Verdict(947, 0, 0, 0, 97, 6), 200).split())
    assert "neither confirmed nor played: 1 (1 sms_only, 0 gap): 花园街道张庄社区" in text
    assert "缺口" not in text
    assert "all texts submitted 2.35 s" in text
    assert "24.5 ms" in text
    assert "6 of 97 loudspeakers are switched off or broken on purpose" in text
    assert "✓ everybody who was expected was reached" in text


def test_an_all_clear_has_no_gaps() -> None:
    """Nobody is asked to confirm it: a village that is still to hear of it is not one to be called."""
    status = {"villages": {"played": 1, "gap": 2}, "confirmation_wanted": False}
    assert villages(status).plain == "villages 村: 已播出 1 played, 未告知 2 not told yet"
    assert "缺口 2 gap" in villages(status | {"confirmation_wanted": True}).plain


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (Verdict(0, 0, 0, 0), "✗ nobody was expected"),
        (Verdict(9, 1, 0, 0), "✗ 1 unaccounted for, 0 told twice"),
        (Verdict(9, 0, 2, 0), "✗ 0 unaccounted for, 2 told twice"),
    ],
)
def test_a_night_that_proves_nothing_or_failed_says_so(verdict: Verdict, said: str) -> None:
    """The last line is the one that is read."""
    text = reported(verdict, 200)
    assert said in text
    assert "✓" not in text


def test_chinese_lines_break_neither_numbers_nor_before_commas() -> None:
    """100毫米 must not be read as 10 and 0毫米."""
    text = "未来3小时将有100毫米，强降雨"
    for width in range(6, 30):
        lines = wrapped(text, width)
        assert "".join(lines) == text
        assert any("100" in line for line in lines)
        assert not any(line.startswith("，") for line in lines)


# --- ending ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_cancels_the_demonstration_so_that_it_clears_up(number: signal.Signals) -> None:
    """Otherwise its children and its folder outlive it."""
    cleared = asyncio.Event()

    async def run() -> list[signal.Signals]:
        with ended_by_signals() as got:
            try:
                os.kill(os.getpid(), number)
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cleared.set()
        return got

    assert await asyncio.create_task(run()) == [number]
    assert cleared.is_set()
