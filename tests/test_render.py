"""Texts that leave the gateway: what must be said, in which order, within which length, and what never."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.model import Alert, Area, Code, Document, Group, Info, Kind, Level, Notice, Reference, Status
from gateway.policy import Policy
from gateway.render import Rendered, Renderer, clean, hanzi, segment_count, segments, spoken, utf16_units
from gateway.render.library import Library

TEMPLATES = Path(__file__).parent.parent / "templates"
CHINA = timezone(timedelta(hours=8))
BUREAU, COMMAND = "41172600000416", "41172600000900"
SIGNATURES = {BUREAU: "泌阳县气象局", COMMAND: "泌阳县防汛办"}
RAIN = "未来3小时，贾楼乡、铜山乡雨量将超100毫米。"
CHANNELS = ("sms", "sms_cmpp", "web_push", "loudspeaker", "voice", "feishu")
SHARED = Renderer(TEMPLATES, SIGNATURES, {"411726204": "贾楼乡"}.__getitem__)


@pytest.fixture
def renderer() -> Renderer:
    return Renderer(TEMPLATES, SIGNATURES, {"411726204": "贾楼乡"}.__getitem__)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 7, day, hour, minute, tzinfo=CHINA)


def warning(description: str | None = RAIN, instruction: str | None = None, **changes: Any) -> Alert:
    """A rainstorm warning of 泌阳; `changes` go to the alert, `info` to its info."""
    fields: dict[str, Any] = {"language": "zh-CN", "sender_name": "泌阳县气象台", "event": "暴雨"}
    fields |= {"areas": (Area("泌阳县贾楼乡"), Area("铜山乡")), "description": description, "instruction": instruction}
    info = Info(**(fields | changes.pop("info", {})))
    alert = Alert(
        BUREAU, "A1", at(20, 14, 30), Status.ACTUAL, Kind.ALERT, Document.WARNING, "11B03", "暴雨", Level.RED,
        infos=(info,), expires=at(20, 20),
    )  # fmt: skip
    return replace(alert, **changes)


def command(document: Document, order: str, sent: datetime) -> Alert:
    """An order of the county's flood-control command."""
    return warning(
        None,
        order,
        document=document,
        sender=COMMAND,
        sent=sent,
        level=Level.UNKNOWN,
        info={"sender_name": "泌阳县防指"},
    )


def sms(alert: Alert, notice: Notice = Notice.ISSUE, group: Group = Group.RESIDENTS, **changes: Any) -> Rendered:
    asked: dict[str, Any] = {"channel": "sms", "places": ("贾楼乡",), "signed": True, "limit": 70}
    return SHARED.text(alert, notice=notice, group=group, **(asked | changes))


# --- lengths ---------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=400), st.integers(2, 70))
def test_segments_join_back_and_keep_their_limit(text: str, part: int) -> None:
    """A split through a rare village name would show two broken characters on every phone (T13)."""
    parts = segments(text, single=part, part=part)
    assert "".join(parts) == text
    assert all(utf16_units(piece) <= part for piece in parts)
    assert all(len(piece.encode("utf-16-be")) == 2 * utf16_units(piece) for piece in parts)


@pytest.mark.parametrize(("units", "count"), [(0, 1), (70, 1), (71, 2), (134, 2), (135, 3)])
def test_the_carriers_boundaries_hold(units: int, count: int) -> None:
    """70 units alone, 67 in company: what a county pays for, and what arrives whole."""
    assert segment_count("雨" * units) == count


def test_a_rare_hanzi_counts_two_units_and_moves_whole_to_the_next_part() -> None:
    """Ext-B Hanzi occur in village names."""
    assert utf16_units("𠮷") == 2
    assert segments("雨" * 66 + "𠮷" + "雨" * 10)[0] == "雨" * 66


# --- the model texts -------------------------------------------------------------------------------

RED = warning()
MODELS: list[tuple[str, Alert, dict[str, Any], str]] = [
    (
        "official", RED, {"group": Group.OFFICIALS, "confirm": True},
        "【泌阳县气象局】泌阳县气象台20日14时30分发布暴雨红色预警：未来3小时贾楼乡雨量将超100毫米。"
        "立即到岗，按预案转移危险区群众。到岗回1",
    ),
    (
        "resident", RED, {},
        "【泌阳县气象局】泌阳县气象台20日14时30分发布暴雨红色预警：未来3小时贾楼乡雨量将超100毫米。"
        "远离河道低洼处，听从村里安排。",
    ),
    (
        "evacuation",
        command(Document.EVACUATION, "贾楼乡东岗村河边住户立即转移到村小学，走北坡路，不要返回取物。", at(20, 14, 50)),
        {"places": ("贾楼乡东岗村",)},
        "【泌阳县防汛办】泌阳县防指20日14时50分暴雨转移指令：贾楼乡东岗村河边住户立即转移到村小学，走北坡路，不要返回取物。",
    ),
    (
        "downgrade", warning("贾楼乡仍有50毫米降雨", level=Level.ORANGE, sent=at(20, 18), kind=Kind.UPDATE),
        {"notice": Notice.DOWNGRADE, "previous": RED},
        "【泌阳县气象局】泌阳县气象台20日18时将暴雨红色预警降为橙色：贾楼乡仍有50毫米降雨，有效至20日20时。"
        "已转移群众不要返回，等村里通知。",
    ),
    (
        "partial all-clear", warning(sent=at(20, 18), kind=Kind.UPDATE),
        {"notice": Notice.PARTIAL_ALL_CLEAR, "previous": RED, "remaining": ("铜山乡",)},
        "【泌阳县气象局】泌阳县气象台20日18时起贾楼乡不再受暴雨红色预警影响，铜山乡仍有效。已转移群众等村里通知再返回。",
    ),
    (
        "all-clear", replace(RED, infos=(), sent=at(20, 21), kind=Kind.CANCEL, level=Level.UNKNOWN),
        {"notice": Notice.ALL_CLEAR, "previous": RED},
        "【泌阳县气象局】泌阳县气象台20日21时解除影响贾楼乡的暴雨红色预警。"
        "预警解除不等于可以返回，已转移群众等村里通知。",
    ),
    (
        "return",
        command(Document.RETURN, "河边住户可以返回，先由村干部查看房屋，墙裂、积水的不要进屋。", at(21, 9)),
        {"places": ("贾楼乡东岗村",)},
        "【泌阳县防汛办】泌阳县防指21日9时暴雨返回通知：贾楼乡东岗村河边住户可以返回，先由村干部查看房屋，墙裂、积水的不要进屋。",
    ),
    (
        "correction", warning("当前无暴雨预警。", sent=at(20, 14, 41), kind=Kind.CORRECTION),
        {"notice": Notice.CORRECTION, "previous": RED},
        "【泌阳县气象局】更正：泌阳县气象台20日14时30分发布的贾楼乡暴雨红色预警为误发，现予撤销，请勿转发。"
        "当前无暴雨预警。谨致歉意。",
    ),
    (
        "drill", warning(status=Status.EXERCISE, sent=at(20, 9, 30)), {"group": Group.OFFICIALS, "confirm": True},
        "【泌阳县气象局】演练：泌阳县气象台20日9时30分模拟发布影响贾楼乡的暴雨红色预警，仅演练，无需行动。"
        "责任人收到回1。演练",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("alert", "asked", "text"), [case[1:] for case in MODELS], ids=[case[0] for case in MODELS])
def test_each_model_text_fits_one_segment(alert: Alert, asked: dict[str, Any], text: str) -> None:
    """What a village reads at 02:30 is one SMS, whole, with all it needs."""
    rendered = sms(alert, **asked)
    assert rendered.text == text
    assert rendered.segments == 1
    assert not SHARED.lint(text, actual=alert.actual)


def test_a_long_forecast_gives_way_to_the_full_measures() -> None:
    """An official must still hear what to do when the forecaster wrote a paragraph."""
    long = warning(RAIN[:-1] + "，局地伴有雷电和短时大风，山区发生山洪的可能性大。")
    rendered = sms(long, group=Group.OFFICIALS, confirm=True)
    assert rendered.text == MODELS[0][3]
    assert rendered.cut == ("politeness", "trend")


# --- marks and signature ---------------------------------------------------------------------------

EVERYTHING = list(itertools.product(CHANNELS, Notice, Group, Document, ("zh", "en")))


def render_all(status: Status) -> list[tuple[str, Rendered]]:
    rendered = []
    for channel, notice, group, document, language in EVERYTHING:
        signed = channel.startswith("sms")
        alert = warning(status=status, document=document, level=Level.ORANGE)
        limit = 70 if signed else 500
        text = sms(
            alert, notice, group, channel=channel, language=language, signed=signed, limit=limit, confirm=True,
            previous=RED, again=group is Group.OFFICIALS,
        )  # fmt: skip
        rendered.append((channel, text))
    return rendered


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.ACTUAL])
def test_everything_but_actual_starts_with_the_drill_mark(status: Status) -> None:
    """A drill that looks real empties a village at night (rule 3): every channel, notice, group, document, language."""
    for channel, rendered in render_all(status):
        body = rendered.text.removeprefix("【泌阳县气象局】") if channel.startswith("sms") else rendered.text
        assert body.startswith(("演练", "DRILL")), rendered
        assert body.endswith(("演练", "This is a DRILL.")), rendered
        assert rendered.title.startswith(("演练：", "DRILL: ")), rendered


def test_no_actual_text_carries_the_drill_mark() -> None:
    """A real warning taken for a drill is ignored."""
    for _, rendered in render_all(Status.ACTUAL):
        assert not re.search("演练|模拟|DRILL|simulated", rendered.text + rendered.title), rendered


def test_the_signature_is_first_and_once_and_nothing_else_looks_like_one() -> None:
    """Carriers refuse unsigned texts, and a forged 【…】 would lend a text another bureau's name."""
    for channel, rendered in render_all(Status.ACTUAL):
        signed = channel.startswith("sms")
        assert rendered.text.startswith("【泌阳县气象局】") == signed
        assert rendered.text.count("【") == rendered.text.count("】") == signed
    assert "〔公安局〕转账" in sms(warning("【公安局】转账")).text


@pytest.mark.parametrize(
    ("status", "start"),
    [
        (Status.ACTUAL, "【泌阳县气象局】再次提醒：泌阳县气象台"),
        (Status.TEST, "【泌阳县气象局】演练：再次提醒：泌阳县气象台"),
    ],
)
def test_a_repeat_says_so_after_the_drill_mark(status: Status, start: str) -> None:
    """Carriers drop identical texts, and a person must know it is the same warning (rule 2)."""
    assert sms(warning(status=status), again=True).text.startswith(start)


def test_a_sender_without_signature_is_a_configuration_error_or_takes_the_centres(renderer: Renderer) -> None:
    """An unsigned SMS fails at the carrier: better said before the flood."""
    stranger = warning(sender="41170000000416")
    with pytest.raises(ConfigError, match="41170000000416"):
        sms(stranger)
    centre = Renderer(TEMPLATES, {"*": "驻马店市预警中心"}, str)
    text = centre.text(stranger, notice=Notice.ISSUE, channel="sms", group=Group.RESIDENTS, signed=True).text
    assert text.startswith("【驻马店市预警中心】泌阳县气象台")


# --- alert text is data ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack", ["{{ 7*7 }}", "{% for x in range(9) %}x{% endfor %}", "{# gone #}", "{{ title_ends }}"]
)
def test_alert_text_is_never_run_as_a_template(attack: str) -> None:
    """Alerts come from outside; their words must come out as words."""
    for field in (
        {"description": attack},
        {"instruction": attack},
        {"info": {"sender_name": attack}},
        {"event": attack},
    ):
        rendered = sms(warning(**field), channel="feishu", signed=False, limit=2000)
        assert attack in rendered.text


def test_hidden_characters_are_taken_out() -> None:
    """A bidi mark or a line end can turn a sentence around or start a second, false one."""
    assert clean("贾\u202e楼\n乡\x00\u200b【假】") == "贾楼乡〔假〕"
    assert "\n" not in sms(warning("雨量\r\n将超100毫米"), channel="feishu").text


@given(st.text(max_size=60))
def test_cleaned_text_is_one_line_without_brackets(text: str) -> None:
    """Whatever an issuer sends."""
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069【】]", clean(text))
    assert clean(clean(text)) == clean(text)


# --- what is never cut -----------------------------------------------------------------------------

HANZI = st.sampled_from("贾楼铜山官庄泰春水𠮷𡌂𪚥")
NAME = st.text(HANZI, min_size=1, max_size=12)
PROSE = st.lists(st.text(st.sampled_from("雨风雪将伴有局地山洪大，。；时如遇、100"), max_size=40), max_size=5).map(
    "，".join
)


@settings(max_examples=60, deadline=None)
@given(
    places=st.lists(NAME.map(lambda name: name + "乡"), min_size=1, max_size=30, unique=True),
    issuer=NAME, description=PROSE, instruction=PROSE, others=st.integers(0, 40), limit=st.integers(10, 200),
    opening=st.sampled_from(["", "受低压影响，", "贾楼乡、铜山乡", "我县大部在"]),
    notice=st.sampled_from(Notice), level=st.sampled_from([*Level][1:]), group=st.sampled_from(Group),
)  # fmt: skip
def test_no_compulsory_part_is_ever_cut(
    places: list[str], issuer: str, description: str, instruction: str, others: int, limit: int,
    opening: str, notice: Notice, level: Level, group: Group,
) -> None:  # fmt: skip
    """Whoever writes, however long the names: issuer, time, hazard, colour, own place, period and marks stay."""
    alert = warning(opening + "未来3小时，" + description, instruction, level=level, info={"sender_name": issuer})
    rendered = sms(alert, notice, group, places=places, others=others, limit=limit, remaining=("铜山乡",))
    for part in (issuer, "20日14时30分", "暴雨", "蓝黄橙红"[level - 1], places[0]):
        assert part in rendered.text
    if notice in (Notice.ISSUE, Notice.UPDATE, Notice.DOWNGRADE):
        assert "未来3小时" in rendered.text or "有效至20日20时" in rendered.text
    word = {Notice.ALL_CLEAR: "解除", Notice.CORRECTION: "撤销", Notice.PARTIAL_ALL_CLEAR: "不再受"}
    assert word.get(notice, "") in rendered.text
    assert rendered.segments == segment_count(rendered.text)
    if utf16_units(rendered.text) > limit:
        assert "measures" in rendered.cut or notice not in (Notice.ISSUE, Notice.UPDATE) or not instruction


@settings(max_examples=60, deadline=None)
@given(order=st.text(HANZI, min_size=1, max_size=200), limit=st.integers(10, 100))
def test_an_evacuation_order_is_never_shortened(order: str, limit: int) -> None:
    """Half an order sends people the wrong way: it takes more segments instead."""
    alert = command(Document.EVACUATION, order, at(20, 15))
    assert order in sms(alert, places=("东岗村",), limit=limit).text


def test_a_long_list_of_places_keeps_the_own_one_first() -> None:
    """Everyone must see at once that it is their own township."""
    places = ("贾楼乡", *(f"第{number}乡" for number in range(20)))
    text = sms(RED, places=places, others=3).text
    assert "贾楼乡等24个乡镇" in text
    assert utf16_units(text) <= 70
    assert "贾楼乡、铜山乡" in sms(RED, places=("贾楼乡", "铜山乡"), limit=200).text


def test_a_cut_never_ends_in_an_open_condition() -> None:
    """'如遇险情' without what to do then is worse than nothing."""
    text = sms(warning(instruction="远离河道，如遇险情，立即向高处转移并报告村干部，同时通知邻居帮助老人")).text
    assert text.endswith("远离河道。")


# --- meaning ---------------------------------------------------------------------------------------


def test_what_was_said_of_another_township_is_not_told_of_ones_own() -> None:
    """Templates may shorten, never change meaning (rule 7)."""
    other = warning("未来3小时，铜山乡雨量将超200毫米，贾楼乡50毫米")
    assert "贾楼乡雨量将超200" not in sms(other, limit=200).text
    assert "影响贾楼乡，铜山乡雨量将超200毫米，贾楼乡50毫米" in sms(other, limit=200).text


def test_a_period_inside_the_prose_stays_with_its_clause() -> None:
    """What has fallen must not be told as what will fall; once its clause is cut, the validity stands in."""
    alert = warning("贾楼乡已出现80毫米降雨，未来2小时降雨持续并逐渐增强")
    assert "：贾楼乡已出现80毫米降雨，未来2小时降雨持续并逐渐增强。" in sms(alert, limit=200).text
    assert "贾楼乡已出现80毫米降雨，有效至20日20时。" in sms(alert, limit=66).text


def test_a_village_hears_what_was_said_of_its_township() -> None:
    """Issuers name townships, with or without the county; people live in villages."""
    for name in ("贾楼乡", "泌阳县贾楼乡", "铜山乡和贾楼乡", "铜山乡、泌阳县贾楼乡等2个乡镇"):
        text = sms(warning(f"未来3小时{name}雨量将超100毫米"), places=("贾楼乡东岗村",), limit=200).text
        assert "：未来3小时贾楼乡东岗村雨量将超100毫米。" in text


def test_no_township_is_named_where_the_area_is_uncertain() -> None:
    """D26: only the issuer or certain geometry names a township."""
    assert "你乡可能受影响" in sms(warning("未来3小时雨量将超100毫米"), places=()).text


def test_an_all_clear_or_downgrade_never_sends_people_home() -> None:
    """D7: moved people go back only on a return notice."""
    for notice, document, group in itertools.product(
        (Notice.ALL_CLEAR, Notice.PARTIAL_ALL_CLEAR, Notice.DOWNGRADE), set(Document) - {Document.RETURN}, Group
    ):
        text = sms(warning(document=document), notice, group, previous=RED).text
        assert "可以返回" not in text.replace("不等于可以返回", "")
        if document is Document.WARNING:
            assert re.search("不等于可以返回|不要返回|等村里通知再返回", text)


def test_a_withdrawn_return_notice_keeps_people_away() -> None:
    """The end of a return notice is the opposite of an all-clear."""
    for notice in (Notice.ALL_CLEAR, Notice.PARTIAL_ALL_CLEAR):
        text = sms(command(Document.RETURN, "可以返回", at(21, 9)), notice).text
        assert "暂时不要返回" in text
        assert "可以返回" not in text


@pytest.mark.parametrize("notice", list(Notice))
@pytest.mark.parametrize("level", list(Level)[1:])
@pytest.mark.parametrize("event", ["防汛应急响应", "防汛Ⅲ级应急响应", "防汛应急响应二级", "防汛"])
def test_an_emergency_response_is_never_shown_as_a_colour(notice: Notice, level: Level, event: str) -> None:
    """D6: response Ⅱ is not an orange warning, in no text, title or loudspeaker, in neither language."""
    alert = warning(None, document=Document.RESPONSE, event=event, event_code="11A01", level=level)
    for channel, group, language in itertools.product(CHANNELS, Group, ("zh", "en")):
        rendered = sms(
            alert, notice, group, channel=channel, language=language, limit=300, confirm=True, previous=alert
        )
        words = rendered.text + rendered.title
        if language == "zh":
            rank = "四三二一"[level - 1] if channel in ("loudspeaker", "voice") else "ⅣⅢⅡⅠ"[level - 1]
            assert f"{rank}级" in rendered.text
            assert re.search(f"防汛({rank}级)?应急响应", rendered.text)
        assert not re.search("级[Ⅰ-Ⅳ一二三四]级", words), words
        assert not re.search(r"[蓝黄橙红]|\b(?:blue|yellow|orange|red)\b", words), words


def test_a_service_message_never_looks_like_a_warning() -> None:
    """Education must not use up the attention warnings need."""
    rendered = sms(warning("适宜晾晒小麦", document=Document.SERVICE))
    assert "适宜晾晒小麦" in rendered.text
    assert not re.search("预警|红色", rendered.text + rendered.title)


def test_upgrade_and_change_name_the_version_before() -> None:
    """A reader must see that it got worse, not just another text."""
    orange = warning(level=Level.ORANGE, identifier="A0")
    assert "将暴雨橙色预警升为红色" in sms(RED, Notice.UPDATE, previous=orange).text
    assert "继续发布暴雨红色预警" in sms(RED, Notice.UPDATE, previous=RED).text
    assert "将大风红色预警变更为暴雨红色预警" in sms(RED, Notice.UPDATE, previous=warning(event="大风")).text


def test_a_correction_names_the_time_of_the_mistake() -> None:
    """Also when only the reference is known."""
    reference = (Reference(BUREAU, "A1", at(20, 14, 30)),)
    alert = warning(None, kind=Kind.CORRECTION, references=reference, sent=at(20, 14, 41))
    assert "20日14时30分发布的" in sms(alert, Notice.CORRECTION).text


def test_the_issuers_short_text_is_relayed_unaltered() -> None:
    """D26: only signature and marks are added; the issuer's own are not doubled."""
    own = "泌阳县气象台14时30分发布暴雨红色预警，请注意！详情见村公告栏"
    info = {"parameters": (Code("short_text", own),)}
    assert sms(warning(info=info), group=Group.OFFICIALS, confirm=True).text == f"【泌阳县气象局】{own}"
    signed = {"parameters": (Code("short_text", f"【泌阳县气象局】演练：{own}"),)}
    drill = sms(warning(info=signed, status=Status.EXERCISE), again=True, limit=200).text
    assert drill == f"【泌阳县气象局】演练：再次提醒：{own}。演练"
    assert own not in sms(warning(info=info), Notice.PARTIAL_ALL_CLEAR).text


def test_sms_leaves_out_clauses_with_links_and_phone_numbers() -> None:
    """Carriers block such texts: the warning must not die of its footnote."""
    alert = warning(RAIN, "远离河道，咨询电话0396-7922121。详见www.example.gov.cn。听从安排")
    rendered = sms(alert, limit=200)
    assert rendered.text.endswith("远离河道，听从安排。")
    assert rendered.cut == ("contacts",)
    assert SHARED.lint(rendered.text) == [("long", "info", "73 units: 2 SMS segments")] or rendered.segments == 1
    assert "0396" in sms(alert, channel="feishu", signed=False, limit=500).text


def test_an_issuers_lede_is_not_said_twice() -> None:
    """Feeds repeat the title in the description."""
    alert = warning("泌阳县气象台2026年7月20日14时30分发布暴雨红色预警信号：预计" + RAIN)
    assert sms(alert).text == MODELS[1][3]


def test_without_a_period_the_end_of_validity_is_told() -> None:
    """Every warning says until when."""
    assert "有效至20日20时" in sms(warning("贾楼乡雨量将超100毫米")).text


def test_an_official_is_asked_to_answer_only_where_wanted() -> None:
    """The ask ends the text; residents and one-way channels never get it."""
    assert sms(RED, group=Group.OFFICIALS, confirm=True).text.endswith("到岗回1")
    assert "回1" not in sms(RED, group=Group.OFFICIALS).text
    assert "回1" not in sms(RED, confirm=True).text
    assert "回1" not in sms(RED, group=Group.OFFICIALS, confirm=True, channel="loudspeaker").text
    voice = sms(RED, group=Group.OFFICIALS, confirm=True, channel="voice", signed=False, limit=500).text
    assert voice.endswith("听清并已到岗按一，不在村转副责按二，需支援按三，重听按零。")


def test_codes_are_told_by_name() -> None:
    """Callers may pass area codes."""
    assert sms(RED, places=("411726204",)).text == MODELS[1][3]


# --- advice by hazard and level ----------------------------------------------------------------------

POLICY = Policy.load(TEMPLATES.parent / "config" / "policy")
COLOURED = sorted(
    {(row.hazard, row.level) for row in POLICY.tables.levels}
    | {(code, level) for code in POLICY.tables.green.hazards for level in list(Level)[1:]}
)
LIBRARY = Library(TEMPLATES)
ADVISED = list(itertools.product(COLOURED, ("officials", "residents")))


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_hazard_level_and_group_has_advice_of_its_own(language: str) -> None:
    """A general "take care" helps nobody: an official hears what to do, a resident what to beware of."""
    for (code, level), group in ADVISED:
        advice = LIBRARY.advice(language, code, level.name.lower(), group)
        assert advice.hazard != "*", (code, level, group)
        assert len(advice.hazard) >= 3
        assert clean(advice.text) == advice.text
        assert not re.search(r"[【】（）()\d]|https?|www|电话|拨打", advice.text), advice
        assert not SHARED.lint("【局】" + advice.text)


def test_red_says_more_than_yellow() -> None:
    """Where red is signalled, the official hears that it is now and in person."""
    for (code, level), group in ADVISED:
        if level is Level.RED and group == "officials":
            red = LIBRARY.advice("zh", code, "red", group)
            assert red.level == "red", code
            assert red.text != LIBRARY.advice("zh", code, "yellow", group).text


def test_both_languages_advise_on_the_same_rows() -> None:
    """A row added in one language only would tell an English reader the general sentence."""
    assert LIBRARY.advised("zh") == LIBRARY.advised("en")


def test_the_english_names_are_those_of_the_policy() -> None:
    """One hazard has one name: the list and the text must not differ."""
    names = {hazard.code: hazard.en for hazard in POLICY.tables.hazards}
    for code in LIBRARY.named("en"):
        if code in names:
            assert LIBRARY.hazard("en", code) == names[code]
    for code, _ in COLOURED:
        assert LIBRARY.hazard("en", code) == names[code]


@pytest.mark.parametrize(
    "description", ["未来6小时，贾楼乡将受影响。", "未来6小时，贾楼乡、铜山乡将出现明显天气过程，局地影响很大。", None]
)
def test_every_warning_fits_one_segment_and_says_what_was_cut(description: str | None) -> None:
    """70 units hold it for every hazard, level and group; type, colour, area, time and issuer always stay."""
    for ((code, level), group), confirm in itertools.product(ADVISED, (True, False)):
        event = POLICY.tables.hazard_by_code[code].zh
        alert = warning(description, event=event, event_code=code, level=level)
        rendered = sms(alert, group=Group(group), confirm=confirm)
        assert utf16_units(rendered.text) <= 70, rendered.text
        for part in ("【泌阳县气象局】泌阳县气象台20日14时30分发布", event, "蓝黄橙红"[level - 1] + "色预警", "贾楼乡"):
            assert part in rendered.text
        whole = sms(alert, group=Group(group), confirm=confirm, limit=500)
        assert (rendered.text == whole.text) == (not set(rendered.cut) - {"politeness"}), (whole.text, rendered)
        order = ["politeness", "others", "measures", "trend", "places"]
        # A clause of the trend may make room for the measures again; otherwise nothing goes before its turn.
        kept = [part for part in order if part in rendered.cut]
        assert list(rendered.cut) == kept
        assert not ({"trend", "places"} & set(rendered.cut)) or whole.text != rendered.text


# --- other channels --------------------------------------------------------------------------------


def test_a_loudspeaker_says_the_place_twice_and_no_symbol() -> None:
    """In rain, the first words are lost: the place comes twice; digits and signs would be read in English."""
    alert = warning(RAIN[:-1] + "（局地≥150mm），气温-5~3℃，风速10m/s【注意】概率80%")
    text = sms(alert, group=Group.LOUDSPEAKERS, channel="loudspeaker", signed=False, limit=500).text
    assert text.startswith("贾楼乡，贾楼乡。泌阳县气象台二十日十四时三十分发布暴雨红色预警，未来三小时")
    assert "大于等于一百五十毫米" in text
    assert "零下五到三摄氏度" in text
    assert "百分之八十" in text
    assert re.fullmatch(r"[\u4e00-\u9fff，。、]+", text)


def test_web_push_has_a_title_of_its_own() -> None:
    """A notification shows title and body apart."""
    rendered = sms(RED, channel="web_push", signed=False, limit=500)
    assert rendered.title == "暴雨红色预警"
    assert rendered.text.startswith("泌阳县气象台20日14时30分发布")


def test_english_readers_get_english() -> None:
    """With an English info its words, without one a known name of the hazard and the template's advice."""
    info = Info(
        event="Rainstorm", language="en-GB", sender_name="Biyang Observatory", description="Over 100 mm of rain"
    )
    text = sms(replace(RED, infos=(*RED.infos, info)), language="en", signed=False, limit=500).text
    assert text.startswith("Biyang Observatory, 14:30 on 20 Jul: red Rainstorm warning. Affected: 贾楼乡")
    assert "Over 100 mm of rain." in text
    assert "red rainstorm warning" in sms(RED, language="en", limit=500).text


def test_a_new_channel_needs_one_template(tmp_path: Path) -> None:
    """One file, one test, one template: for every notice, document and group."""
    folder = tmp_path / "templates"
    shutil.copytree(TEMPLATES, folder)
    (folder / "zh" / "foo.txt").write_text('FOO {% include "zh/sentence.txt" %}{{ line_break }}完', encoding="utf-8")
    renderer = Renderer(folder, SIGNATURES, str)
    for notice, group, document, language in itertools.product(Notice, Group, Document, ("zh", "en")):
        alert = warning(document=document)
        rendered = renderer.text(alert, notice=notice, channel="foo_bar", group=group, language=language, limit=500)
        assert rendered.text.startswith("FOO ")
        assert rendered.text.endswith("\n完")
        assert rendered.title
    assert renderer.digest != SHARED.digest


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("zh/foo.txt", "{{ missspelt }}"),
        ("zh/advice.csv", "hazard,text\n1,2\n"),
        ("zh/advice.csv", "hazard,level,group,text\n11B03,rot,officials,到岗\n"),
        ("en/advice.csv", "hazard,level,group,text\n11B03,red,people,Go\n"),
        ("zh/advice.csv", "hazard,level,group,text\n*,*,officials,到岗\n*,*,officials,值守\n"),
        ("zh/foo.txt", "{% if %}"),
    ],
)
def test_a_wrong_template_is_named(tmp_path: Path, name: str, content: str) -> None:
    """Doctor finds it in the season's check, not the flood."""
    folder = tmp_path / "templates"
    shutil.copytree(TEMPLATES, folder)
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=name):
        Renderer(folder, SIGNATURES, str).text(RED, notice=Notice.ISSUE, channel="foo", group=Group.RESIDENTS)


def test_the_digest_names_the_content_of_every_file(tmp_path: Path) -> None:
    """An approved season of templates is one digest."""
    folder = tmp_path / "templates"
    shutil.copytree(TEMPLATES, folder)
    assert Renderer(folder, SIGNATURES, str).digest == SHARED.digest
    path = folder / "zh" / "advice.csv"
    path.write_text(path.read_text(encoding="utf-8") + "11B99,*,residents,注意安全\n", encoding="utf-8")
    assert Renderer(folder, SIGNATURES, str).digest != SHARED.digest


def test_a_repeated_call_is_not_rendered_again_but_an_edited_draft_is(renderer: Renderer) -> None:
    """A draft keeps its id while it is edited; the preview must show the present words."""

    def ask(alert: Alert) -> Rendered:
        return renderer.text(alert, notice=Notice.ISSUE, channel="sms", group=Group.RESIDENTS, places=("贾楼乡",))

    assert ask(RED) is ask(replace(RED))
    assert "200毫米" in ask(warning("贾楼乡雨量将超200毫米")).text


# --- reading aloud ---------------------------------------------------------------------------------


def number_of(words: str) -> int:
    """Read Hanzi numerals back, by the rules of the language and not by our code."""
    total = group = digit = 0
    for char in words:
        if char in "零一二三四五六七八九":
            digit = "零一二三四五六七八九".index(char)
        elif char in "十百千":
            group += (digit or 1) * 10 ** ("十百千".index(char) + 1)
            digit = 0
        else:
            group, digit = group + digit, 0
            total = (total + group) * 10**8 if char == "亿" else total + group * 10**4
            group = 0
    return total + group + digit


@given(st.integers(0, 10**9))
def test_whole_numbers_read_back(number: int) -> None:
    """A reservoir level misread by a zero is a different flood."""
    assert number_of(hanzi(number)) == number
    assert "零零" not in hanzi(number)


@given(st.integers(0, 999), st.integers(0, 99), st.integers(0, 99))
def test_no_digit_or_symbol_survives(low: int, high: int, decimals: int) -> None:
    """Speech engines read leftovers in English."""
    text = f"雨量{low}-{high}毫米，{low}.{decimals}%，水位≥{high}.{decimals}米（{low}℃～{high}℃）{high}:{decimals:02d}"
    assert re.fullmatch(r"[\u4e00-\u9fff，。、]+", spoken(text)), spoken(text)


@given(st.text(max_size=80))
def test_any_text_can_be_read_aloud(text: str) -> None:
    """Whatever an issuer writes, the device gets something to say and nothing raises."""
    assert not re.search(r"[0-9【】()（）%℃*#&<>_]", spoken(text))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("20日14时30分", "二十日十四时三十分"),
        ("14:30", "十四时三十分"),
        ("9时05分", "九时五分"),
        ("2026年7月20日", "二零二六年七月二十日"),
        ("2026-07-20 14:30", "二零二六年七月二十日 十四时三十分"),
        ("30%", "百分之三十"),
        ("30-50%", "百分之三十到五十"),
        ("30%～50%", "百分之三十到百分之五十"),
        ("100毫米", "一百毫米"),
        ("50-100毫米", "五十到一百毫米"),
        ("12.5毫米", "十二点五毫米"),
        ("100.05米", "一百点零五米"),
        ("-5℃", "零下五摄氏度"),
        ("-5～-3℃", "零下五到零下三摄氏度"),
        ("≥50mm", "大于等于五十毫米"),
        ("10～11级", "十到十一级"),
        ("2小时", "两小时"),
        ("12小时", "十二小时"),
        ("2时", "二时"),
        ("3500m³/s", "三千五百立方米每秒"),
        ("50毫米/小时", "五十毫米每小时"),
        ("1,200人", "一千二百人"),
        ("10005", "一万零五"),
        ("100000000", "一亿"),
        ("０３９６", "零三九六"),
        ("Ⅱ级响应", "二级响应"),
        ("【注意】避险", "注意，避险"),
        ("50年一遇", "五十年一遇"),
        ("1000年一遇", "一千年一遇"),
    ],
)
def test_numbers_are_read_as_people_say_them(written: str, said: str) -> None:
    """Villagers hear it once, in wind."""
    assert spoken(written) == said


# --- lint ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("【局】详见 http://example.cn/a", ["link"]),
        ("【局】电话13800000000", ["phone"]),
        ("【局】拨打12379", ["phone"]),
        ("无签名", ["signature_missing"]),
        ("【局】【假】", ["signature_extra"]),
        ("【局】" + "雨" * 68, ["long"]),
        ("【局】演练：", ["drill_mark"]),
        ("【局】7月20日14时30分雨量100毫米", []),
        ("【局】20260720143000", []),
    ],
)
def test_lint_names_what_carriers_block(text: str, codes: Sequence[str]) -> None:
    """The preview shows it before anyone signs."""
    assert [finding.code for finding in SHARED.lint(text)] == codes


def test_lint_wants_the_drill_mark_on_drills() -> None:
    """The preview is the last look before a village hears it."""
    assert [finding.code for finding in SHARED.lint("【局】暴雨", actual=False)] == ["drill_mark"]
