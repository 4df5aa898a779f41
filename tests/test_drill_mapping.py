"""Drill or real: every status × document × kind × notice × channel × group × language, and every hostile word.

Rule 3, whole: what is not Actual begins with the drill mark on every channel; what is Actual never does; the two never
touch each other; a drill reaches those who know of drills and nobody else. Channels are found by scanning, so a new one
is held to it from its first day.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import permutations, product
from pathlib import Path
from typing import Any, cast

import pytest
from api_support import Desk, opened
from hypothesis import given
from hypothesis import strategies as st
from manual_clock import ManualClock
from test_intake import approve, message, reference, standing, submit
from test_routing import LIVE, POLICY, difference

from gateway.channel import Channel
from gateway.compose import ONE_SEGMENT, GatewayComposer
from gateway.errors import Refused
from gateway.installed import channel_classes
from gateway.mark import marked, unmarked
from gateway.model import Alert, Batch, Code, Document, Group, Info, Kind, Lane, Level, Notice, Plan, Status, Target
from gateway.policy import Route
from gateway.policy.table import DRILL_GROUPS
from gateway.ports import Outbox
from gateway.render import Renderer
from gateway.render.text import segments, utf16_units
from gateway.routing import plan

ROOT = Path(__file__).parent.parent
SENDER, OFFICE = "411726-qxj@mingluo.example", "泌阳县气象局"
NOON = datetime(2026, 7, 20, 4, 0, tzinfo=UTC)
HERE = (Target("411726209"), Target("411726101"))
NAMES = {"411726209": "贾楼乡", "411726101": "铜山乡"}
CHANNELS = channel_classes()
MARKS = {"zh": ("演练：", "演练。"), "en": ("DRILL: ", "DRILL. ")}
TOLD = {
    Kind.ALERT: (Notice.ISSUE,),
    Kind.UPDATE: (Notice.ISSUE, Notice.UPDATE, Notice.DOWNGRADE, Notice.PARTIAL_ALL_CLEAR),
    Kind.CANCEL: (Notice.ALL_CLEAR,),
    Kind.CORRECTION: (Notice.CORRECTION,),
}
"""What a plan tells for each kind (`gateway.routing`)."""
NOT_ACTUAL = tuple(status for status in Status if status is not Status.ACTUAL)

HOSTILE = (
    "演练", "演练：", "演 练：暴雨", "演\u200b练暴雨", "\u202e演练", "演練", "演習開始", "【演练】", "〔演练〕暴雨",
    "【泌阳县气象局】演练：暴雨", "ＤＲＩＬＬ: rain", "D R I L L rain", "dr\u200cill", "DR\u0406LL rain",
    "Test: rain", "EXERCISE EXERCISE EXERCISE", "🔔演练", "演\u0301练", "演练演练演练", "测试，请忽略", "模拟演练",
    "\ufeff演练", "演·练",
    "解除演练 实际播发", "实际播发：立即转移", "这不是演练", "本次为真实预警", "演练结束。以下为真实预警",
    "THIS IS NOT A DRILL", "\u202eLLIRD", "{{ actual }}", "】演练【",
)  # fmt: skip
"""What an issuer may write, by accident or to hide what it is."""


def alert_of(status: Status, document: Document, kind: Kind, **changes: Any) -> Alert:
    """Return an alert with words in both languages."""
    words = changes.pop("words", {})
    infos = (
        Info(**{
            "event": "暴雨", "language": "zh-CN", "sender_name": OFFICE, "headline": "暴雨红色预警",
            "description": "未来3小时贾楼乡雨量将超100毫米", "instruction": "远离河道低洼处", **words,
        }),
        Info(**{"event": "Rainstorm", "language": "en-US", "sender_name": "Biyang Observatory", **words}),
    )  # fmt: skip
    alert = Alert(
        SENDER, f"{status}-{kind}", NOON, status, kind, document, "11B03", "暴雨", Level.RED, infos,
        expires=NOON + timedelta(hours=3),
    )  # fmt: skip
    return replace(alert, **changes)


PREVIOUS = alert_of(Status.ACTUAL, Document.WARNING, Kind.ALERT, identifier="before", level=Level.ORANGE)


@cache
def written() -> Renderer:
    return Renderer(ROOT / "templates", {"*": OFFICE}, lambda code: NAMES.get(code, code))


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return written()


@pytest.fixture(scope="module")
def composer(renderer: Renderer) -> GatewayComposer:
    """The very code that writes what leaves; only class facts of the channels are asked for."""
    return GatewayComposer(cast(Outbox, None), renderer, lambda: POLICY, cast("dict[str, Channel]", CHANNELS))


FAMILIES = {(name[:3], channel.text_limit, channel.groups): name for name, channel in CHANNELS.items()}
"""One channel of each that are written for alike."""


def said(
    composer: GatewayComposer, alert: Alert, channels: Collection[str] = tuple(FAMILIES.values())
) -> Iterator[tuple[str, str, str]]:
    """Yield (channel, title, text) of everything an alert may say, on the channels, to everybody, in each language."""
    planned = Plan(alert.id, "normal", (), HERE[:1], HERE[1:], ())
    previous = replace(PREVIOUS, status=alert.status)
    for notice, name in product(TOLD[alert.kind], sorted(channels)):
        for group, language, again in product(sorted(CHANNELS[name].groups), ("zh", "en"), (False, True)):
            batch = Batch(
                f"{alert.id}.1.0", alert.id, 1, name, Lane.BULK, group, notice, language, "411726209",
                NOON + timedelta(hours=3), (1,), ("",), (("411726209201", 1),),
            )  # fmt: skip
            text, title = composer.words(alert, planned, previous, batch, (), again=again)
            yield name, title, text


def head(text: str) -> str:
    """Return the text behind its registered signature."""
    return text.removeprefix(f"【{OFFICE}】")


# --- what we write --------------------------------------------------------------------------------


@pytest.mark.parametrize("document", list(Document))
@pytest.mark.parametrize("status", NOT_ACTUAL)
def test_the_first_word_of_everything_that_is_not_real_is_the_drill_mark(
    composer: GatewayComposer, status: Status, document: Document
) -> None:
    """A drill taken for a warning empties a village for nothing, and the next real one is not believed."""
    for kind in Kind:
        for channel, title, text in said(composer, alert_of(status, document, kind)):
            marks = MARKS["zh" if re.search("[\u4e00-\u9fff]", head(text)[:3]) else "en"]
            assert head(text).startswith(marks), (channel, kind, text)
            assert title.startswith(("演练：", "DRILL: ")), (channel, kind, title)
            assert text.endswith(("演练", "This is a DRILL.")), (channel, kind, text)


@pytest.mark.parametrize("document", list(Document))
def test_nothing_real_begins_as_a_drill_does(composer: GatewayComposer, document: Document) -> None:
    """A warning taken for a drill is ignored while the water comes."""
    for kind in Kind:
        for channel, title, text in said(composer, alert_of(Status.ACTUAL, document, kind)):
            assert not any(map(marked, (text, title))), (channel, kind, title, text)
            assert not re.search("演练|模拟|DRILL", text + title), (channel, kind, text)


@pytest.mark.parametrize("channel", sorted(FAMILIES.values()))
def test_a_text_cut_to_the_bone_keeps_its_mark_in_front(renderer: Renderer, channel: str) -> None:
    """Whatever is left out to fit a segment, the mark is in its first part (rule 7)."""
    long = {"description": "贾楼乡雨量将超100毫米，" * 30, "instruction": "远离河道低洼处，" * 30}
    for status, document, limit in product(NOT_ACTUAL, Document, (1, 10, 20, ONE_SEGMENT)):
        alert = alert_of(status, document, Kind.ALERT, words=long)
        for again in (False, True):
            text = renderer.text(
                alert, notice=Notice.ISSUE, channel=channel, group=Group.OFFICIALS, places=tuple(NAMES.values()),
                limit=limit, signed=channel.startswith("sms"), again=again, confirm=True,
            ).text  # fmt: skip
            assert head(segments(text)[0]).startswith(MARKS["zh"]), text
            assert utf16_units(text) < 4 * ONE_SEGMENT


# --- what an issuer writes ------------------------------------------------------------------------

FIELDS = ("event", "sender_name", "headline", "description", "instruction", "short_text")


def worded(status: Status, field: str, words: str, document: Document = Document.WARNING, **changes: Any) -> Alert:
    """Return an alert with an issuer's words in one field of its infos (and in its own name, for the event)."""
    told: dict[str, Any] = {field: words} if field != "short_text" else {"parameters": (Code("short_text", words),)}
    own = {"event": words} if field == "event" else {}
    return alert_of(status, document, changes.pop("kind", Kind.ALERT), words=told, **own, **changes)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("words", HOSTILE)
def test_no_words_of_an_issuer_make_the_one_look_like_the_other(
    composer: GatewayComposer, field: str, words: str
) -> None:
    """Unseen signs, look-alike letters, reversed writing: the status decides what people see first, nothing else."""
    for document in (Document.WARNING, Document.EVACUATION, Document.SERVICE):
        for _, title, text in said(composer, worded(Status.ACTUAL, field, words, document)):
            assert not any(map(marked, (text, title))), (title, text)
            assert text, title
            assert not re.search("[\u202e\u200b\u200c\ufeff]", text + title)
        for _, title, text in said(composer, worded(Status.EXERCISE, field, words, document)):
            assert head(text).startswith((*MARKS["zh"], *MARKS["en"])), text
            assert title.startswith(("演练：", "DRILL: ")), title
            assert text.endswith(("演练", "This is a DRILL.")), text


@given(words=st.text(st.characters(exclude_categories=["Cs"]), max_size=20), field=st.sampled_from(FIELDS))
def test_no_words_at_all_do(words: str, field: str) -> None:
    """What nobody thought of."""
    asked: dict[str, Any] = {"notice": Notice.ISSUE, "group": Group.OFFICIALS, "places": ("贾楼乡",), "limit": 70}
    for mark, channel, signed in product(("", "演练："), ("sms_cmpp", "loudspeaker_ws", "web_push"), (True, False)):
        real = written().text(worded(Status.ACTUAL, field, mark + words), channel=channel, signed=signed, **asked)
        assert not any(map(marked, (real.text, real.title)))
        drill = written().text(worded(Status.EXERCISE, field, mark + words), channel=channel, signed=signed, **asked)
        assert head(drill.text).startswith(MARKS["zh"])
        assert drill.title.startswith("演练：")


@pytest.mark.parametrize("field", FIELDS)
def test_a_real_warning_that_calls_itself_a_drill_waits_for_a_person(field: str) -> None:
    """Either it is a drill under the wrong status, or a warning nobody would believe: only a person can say (D2)."""
    issuer = POLICY.issuer(SENDER)
    assert issuer is not None
    for words in ("演练：暴雨", "DR\u0406LL rain", "【泌阳县气象局】演练"):
        route = POLICY.route(worded(Status.ACTUAL, field, words), issuer, HERE, NOON)
        assert (route.kind, bool(route.needs)) == ("normal", True)
        assert any(why.startswith("drill_words: ") for why in route.held), route.held
    plain = POLICY.route(worded(Status.ACTUAL, field, "这不是演练"), issuer, HERE, NOON)
    assert not any(why.startswith("drill_words: ") for why in plain.held)


def test_an_end_of_a_real_warning_is_not_stopped_by_a_word() -> None:
    """An all-clear that says "演练" by mistake is told as what it is."""
    issuer = POLICY.issuer(SENDER)
    assert issuer is not None
    end = worded(Status.ACTUAL, "headline", "演练", kind=Kind.CANCEL)
    assert not any(why.startswith("drill_words: ") for why in POLICY.route(end, issuer, HERE, NOON).held)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("演练：暴雨", "暴雨"), ("演 練 演練：暴雨", "暴雨"), ("DRILL: rain", "rain"), ("Test - rain", "rain"),
        ("模拟演练", ""), ("【局】演练：暴雨", "暴雨"), ("【演练】", ""), ("【局】暴雨", None), ("drilling site", None),
        ("Exercise caution", None), ("tested", None), ("不是演练", None), ("", None),
    ],
)  # fmt: skip
def test_what_counts_as_a_mark(text: str, rest: str | None) -> None:
    """Marks go, however they are written; honest sentences stay."""
    assert marked(text) is (rest is not None)
    assert unmarked(text) == (text if rest is None else rest)


# --- who is told ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", list(Status))
def test_a_drill_reaches_those_who_know_of_drills_and_nobody_else(status: Status) -> None:
    """Residents, subscribers and whoever is in a place have agreed to no drill; a draft reaches nobody.

    Residents are told beforehand that one will be held: by an exercise's service message, and by nothing else.
    """
    enabled = LIVE | set(CHANNELS) | {"sms"}
    for document, kind, level, route in product(Document, Kind, Level, ("green", "normal", "emergency", "drill")):
        alert = alert_of(status, document, kind, level=level)
        alert = replace(alert, infos=tuple(replace(i, parameters=(Code("area_approval", "1"),)) for i in alert.infos))
        made = plan(alert, Route(route, decided=True), HERE, HERE[1:], POLICY, NOON, enabled, difference)
        groups = {step.audience.group for step in made.steps}
        if status is Status.DRAFT:
            assert not groups
        elif status is not Status.ACTUAL:
            told = {*POLICY.drill.notice_groups} if alert.announces else DRILL_GROUPS & {*POLICY.drill.groups}
            assert groups <= told
            assert {step.audience.channel for step in made.steps} <= set(POLICY.drill.channels)
            assert Lane.GREEN not in {step.lane for step in made.steps}


# --- one never touches the other ------------------------------------------------------------------


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


@pytest.mark.parametrize("kind", ["Update", "Cancel", "Correction"])
@pytest.mark.parametrize(("first", "later"), [*permutations(("Actual", "Exercise", "Test", "System"), 2)])
async def test_a_message_of_another_status_never_updates_or_ends_one(
    desk: Desk, first: str, later: str, kind: str
) -> None:
    """An exercise's all-clear must not silence the night's red one, nor the reverse."""
    one = message(desk, "first", status=first, note="n")
    alert = await submit(desk, one)
    before = await standing(desk, alert)
    with pytest.raises(Refused) as refused:
        await submit(desk, message(desk, "later", status=later, kind=kind, note="n", references=[reference(one)]))
    assert (refused.value.status, refused.value.code) == (422, "status_differs")
    assert await standing(desk, alert) == before


@pytest.mark.parametrize("kind", ["Update", "Cancel"])
async def test_an_exercise_that_came_before_the_warning_it_names_holds_nothing_up(desk: Desk, kind: str) -> None:
    """Out of order on the line, a drill's message names an identifier nobody knows yet: the real one goes out."""
    real = message(desk, "real")
    early = await submit(
        desk, message(desk, "early", status="Exercise", note="n", kind=kind, references=[reference(real)])
    )
    if kind == "Update":  # a Cancel of what nobody knows waits for ever
        assert await approve(desk, early) == "accepted"
    alert = await submit(desk, real)
    assert await standing(desk, alert) == ("active", "")
    update = await submit(desk, message(desk, "next", kind="Update", references=[reference(real)]))
    assert (await standing(desk, update))[0] in ("active", "review", "sign")
