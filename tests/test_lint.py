"""What lint finds in a finished text: a missing part, a forbidden word, a foreign signature; and that it advises."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.model import Alert, Area, Code, Document, Group, Info, Kind, Level, Notice, Status
from gateway.policy import ForbiddenRow, LintFile, Policy
from gateway.render import Finding, Rendered, Renderer
from gateway.render.lint import lint

ROOT = Path(__file__).parent.parent
TEMPLATES, TABLES = ROOT / "templates", ROOT / "config" / "policy"
CHINA = timezone(timedelta(hours=8))
SENDER = "411726-qxj@mingluo.example"
RULES = Policy.load(TABLES).tables.lint
RENDERER = Renderer(TEMPLATES, {SENDER: "泌阳县气象局"}, str)
AT = datetime(2026, 7, 20, 14, 30, tzinfo=CHINA)
SHORT = "泌阳县气象台20日14时30分发布暴雨红色预警：未来3小时贾楼乡雨量将超100毫米。远离河道低洼处。"


def warning(short: str = "", **changes: Any) -> Alert:
    """A red rainstorm warning in both languages; with `short`, the issuer's own words."""
    own = (Code("short_text", short),) if short else ()
    infos = (
        Info(
            "暴雨", "zh-CN", sender_name="泌阳县气象台", description="未来3小时，贾楼乡雨量将超100毫米。",
            instruction="立即转移危险区群众，远离河道。", parameters=own, areas=(Area("泌阳县贾楼乡"),),
        ),
        Info(
            "Rainstorm", "en", sender_name="Biyang Observatory", description="More than 100 mm within the next 3 hours",
            instruction="Move out of danger zones", parameters=own,
        ),
    )  # fmt: skip
    alert = Alert(
        SENDER, "A1", AT, Status.ACTUAL, Kind.ALERT, Document.WARNING, "11B03", "暴雨", Level.RED,
        infos=infos, effective=AT, expires=AT + timedelta(hours=6),
    )  # fmt: skip
    return replace(alert, **changes)


def text(alert: Alert, previous: Alert | None = None, renderer: Renderer = RENDERER, **changes: Any) -> Rendered:
    """Render for the residents of one township by SMS."""
    asked: dict[str, Any] = {"notice": Notice.ISSUE, "channel": "sms", "group": Group.RESIDENTS, "limit": 70}
    asked |= {"places": ("贾楼乡",), "signed": True}
    return renderer.text(alert, previous=previous, **(asked | changes))


def found(alert: Alert, previous: Alert | None = None, *, urgent: bool = False, **changes: Any) -> list[Finding]:
    """What lint finds, the length apart."""
    findings = RENDERER.check(alert, text(alert, previous, **changes), previous, RULES, urgent=urgent)
    return [one for one in findings if one.code != "long"]


def codes(findings: Sequence[Finding]) -> list[str]:
    return [one.code for one in findings]


# --- compulsory parts -----------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["sms", "web_push", "loudspeaker", "voice", "feishu"])
@pytest.mark.parametrize("status", [Status.ACTUAL, Status.EXERCISE])
def test_every_text_of_our_templates_holds_every_part(channel: str, status: Status) -> None:
    """What a template forgets, no officer sees among sixty texts: all are looked through, also those read aloud."""
    texts = 0
    for document, level, notice, group in itertools.product(Document, Level, Notice, Group):
        for language, places in itertools.product(("zh", "en"), (("贾楼乡",), ("贾楼乡", "铜山乡"), ())):
            if channel == "sms" and language == "en":
                continue  # English goes to subscribers only, never as SMS
            kinds = {Notice.ISSUE: Kind.ALERT, Notice.ALL_CLEAR: Kind.CANCEL, Notice.CORRECTION: Kind.CORRECTION}
            before = None if notice is Notice.ISSUE else warning(document=document, level=level, status=status)
            alert = warning(
                document=document, level=level, status=status, kind=kinds.get(notice, Kind.UPDATE), sent=AT,
                identifier="A2",
            )  # fmt: skip
            limit = 70 if channel == "sms" else 500
            assert not found(
                alert, before, notice=notice, channel=channel, group=group, language=language, places=places,
                limit=limit, signed=channel == "sms",
            )  # fmt: skip
            texts += 1
    assert texts >= len(Document) * len(Level) * len(Notice) * len(Group) * 3


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("{{ issuer }}", "issuer"), ("{{ time }}", "time"), ("{{ begin(document) }}{{ name }}", "type"),
        ("{{ measures ~ \"。\" if measures }}", "measures"),
    ],
)  # fmt: skip
def test_a_template_that_forgets_a_part_is_caught(tmp_path: Path, name: str, part: str) -> None:
    """Templates are the operator's: one deleted word would leave a county without it all season."""
    folder = tmp_path / "templates"
    shutil.copytree(TEMPLATES, folder)
    sentence = (folder / "zh" / "sentence.txt").read_text(encoding="utf-8")
    assert name in sentence
    (folder / "zh" / "sentence.txt").write_text(sentence.replace(name, ""), encoding="utf-8")
    renderer = Renderer(folder, {SENDER: "泌阳县气象局"}, str)
    alert = warning()
    findings = renderer.check(alert, text(alert, renderer=renderer, limit=500), None, RULES)
    assert f"missing_{part}" in codes(findings)


@pytest.mark.parametrize(
    ("short", "missing"),
    [
        (SHORT, []),
        ("泌阳县气象台20日14:30发布红色暴雨预警，全县未来3小时雨量超100毫米，请远离河道", []),
        ("20日14时30分发布暴雨一级预警：未来3小时贾楼乡雨量超100毫米，远离河道", []),  # in SMS the colour is the level
        ("20日14时30分发布暴雨预警：未来3小时贾楼乡雨量超100毫米，远离河道", ["missing_grade"]),
        ("20日14时30分发布红色预警：未来3小时贾楼乡雨量超100毫米，远离河道", ["missing_type"]),
        ("发布暴雨红色预警：未来3小时贾楼乡雨量超100毫米，远离河道", ["missing_time"]),
        ("20日14时30分发布暴雨红色预警：未来3小时铜山乡雨量超100毫米，远离河道", ["missing_area"]),
        ("20日14时30分发布暴雨红色预警：贾楼乡雨量超100毫米，远离河道", ["missing_period"]),
        ("20日14时30分发布暴雨红色预警：未来3小时贾楼乡雨量超100毫米", ["missing_measures"]),
        ("大雨，快跑", ["missing_time", "missing_type", "missing_grade", "missing_area", "missing_period",
                   "missing_measures"]),
    ],
)  # fmt: skip
def test_an_issuers_own_short_text_is_told_what_it_lacks(short: str, missing: list[str]) -> None:
    """It is relayed unaltered (D26), so the issuer must see it before: the signature in front names who warns."""
    alert = warning(short)
    assert short in text(alert).text
    assert codes(found(alert)) == missing


def test_without_a_signature_the_own_short_text_must_name_the_issuer() -> None:
    """A loudspeaker says no signature: people would not know whose word it is."""
    alert = warning(SHORT.removeprefix("泌阳县气象台"))
    assert codes(found(alert, channel="web_push", signed=False, limit=500)) == ["missing_issuer"]
    assert codes(found(warning(SHORT), channel="voice", signed=False, limit=500)) == []


def test_what_the_message_does_not_give_is_asked_of_the_issuer() -> None:
    """An evacuation that does not say where to go is a crowd in the dark; the template's words only stand in."""
    order = warning(document=Document.EVACUATION, infos=(Info("暴雨", "zh-CN", sender_name="泌阳县防指"),))
    (one,) = found(order, urgent=True)
    assert (one.code, one.severity) == ("missing_order", "warning")
    assert "does not give it" in one.detail


def test_an_end_is_an_end_from_its_first_words() -> None:
    """Read half-way on a small screen, "暴雨红色预警 … 解除" is a new warning."""
    before = warning()
    end = "泌阳县气象台20日20时30分：贾楼乡暴雨红色预警已解除"
    alert = replace(warning(end), kind=Kind.CANCEL, sent=AT + timedelta(hours=6), identifier="A2")
    assert codes(found(alert, before, notice=Notice.ALL_CLEAR)) == ["missing_mark"]
    alert = replace(alert, infos=warning("泌阳县气象台20日20时30分解除贾楼乡暴雨红色预警").infos)
    assert codes(found(alert, before, notice=Notice.ALL_CLEAR)) == []


def test_a_text_too_long_for_its_measures_says_so() -> None:
    """The last thing to be shortened away is what to do; the issuer can write less."""
    long = "未来3小时，" + "贾楼乡东部沟口和西部库区下游及南部山前平原等地雨量将超过100毫米" * 2
    alert = replace(warning(), infos=(Info("暴雨", "zh-CN", description=long, instruction="立即转移"),))
    assert "measures" in text(alert, limit=40).cut
    assert codes(found(alert, limit=40)) == ["missing_measures"]


# --- severity -------------------------------------------------------------------------------------


def test_on_red_and_evacuation_the_wording_only_warns() -> None:
    """Nobody stops to mend a sentence while the water comes; a lost drill mark stays an error."""
    alert = warning("大雨，快跑，加微信领红包 http://example.com", status=Status.EXERCISE)
    mild = lint("【局】" + alert.infos[0].parameters[0].value, actual=False, rules=RULES)
    grave = lint("【局】" + alert.infos[0].parameters[0].value, actual=False, rules=RULES, urgent=True)
    assert {one.severity for one in mild} == {"error"}
    assert {one.code: one.severity for one in grave} == {
        "link": "warning", "forbidden": "warning", "drill_mark": "error",
    }  # fmt: skip


def test_the_policy_says_how_grave_a_missing_part_is() -> None:
    """A bureau that writes all its texts itself may want a hint and no more."""
    alert = warning("大雨，快跑")
    mild = RENDERER.check(alert, text(alert), None, replace_rules(missing_part="warning"))
    assert {one.severity for one in mild} == {"warning"}


def replace_rules(**changes: Any) -> LintFile:
    return RULES.model_copy(update=changes)


# --- forbidden words ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("点击领取红包", "carriers"), ("点 击 领 取", "carriers"), ("抢.购", "marketing"),
        ("ＱＲ ｃｏｄｅ验证码", "carriers"),
        ("大难临头", "panic"), ("五保户张某家", "personal data"), ("退订回T", "unsubscribe"),
    ],
)  # fmt: skip
def test_forbidden_words_are_found_also_where_they_are_pulled_apart(said: str, why: str) -> None:
    """Carriers' filters are not fooled by a dot either."""
    findings = lint(f"【局】{said}", rules=RULES)
    assert any(one.code == "forbidden" and why in one.detail for one in findings)


def test_latin_words_count_as_whole_words_in_their_own_language() -> None:
    """A wholesale market is a place."""
    assert codes(lint("Flood at the wholesale market", signed=False, language="en", rules=RULES)) == []
    assert codes(lint("Umbrella SALE", signed=False, language="en", rules=RULES)) == ["forbidden"]
    assert codes(lint("点击", signed=False, language="en", rules=RULES)) == []


def test_an_identity_number_never_goes_to_many() -> None:
    """A list of whom to carry belongs into no mass text; a CAP identifier is no person."""
    assert codes(lint("【局】转移11010519491231002X")) == ["identity"]
    assert codes(lint("【局】编号41172641600000_20260720143000")) == []


def test_our_own_templates_hold_no_forbidden_word() -> None:
    """The list must not cry over what every text says."""
    for path in (*TEMPLATES.rglob("*.txt"), *TEMPLATES.rglob("*.csv")):
        language = path.parent.name
        assert not [one for one in lint(path.read_text("utf-8"), signed=False, language=language, rules=RULES)
                    if one.code == "forbidden"]  # fmt: skip


@given(st.text(max_size=120), st.lists(st.text(min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=4))
def test_any_text_and_any_list_of_words_can_be_looked_through(said: str, words: list[str]) -> None:
    """Words are words, not patterns; whatever an operator or an issuer writes, the preview answers."""
    rules = LintFile(forbidden=(ForbiddenRow(language="zh", words=tuple(words), why="why"),))
    lint(said, rules=rules)
    assert "forbidden" in codes(lint(rules.forbidden[0].words[0], rules=rules))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("mising_part = 'error'", "lint.toml: mising_part: unknown key; rename it to missing_part"),
        ("missing_part = 'fatal'", "lint.toml: missing_part"),
        ("[[forbidden]]\nlanguage = 'zh'\nwords = ['a']", "lint.toml: forbidden[0].why: missing; add the key"),
        ("[[forbidden]]\nlanguage = 'fr'\nwords = ['a']\nwhy = 'w'", "lint.toml: forbidden[0].language"),
        ("[[forbidden]]\nlanguage = 'zh'\nwords = [' ']\nwhy = 'w'", "lint.toml: forbidden[0].words[0]"),
        ("[[forbidden]]\nlanguage = 'zh'\nwords = ['a', 'a']\nwhy = 'w'", "lint.toml: forbidden: a (zh) stands in two"),
    ],
)
def test_a_wrong_list_is_refused_with_its_fix(tmp_path: Path, body: str, says: str) -> None:
    """A misspelt key would switch the check off without a word."""
    folder = tmp_path / "policy"
    shutil.copytree(TABLES, folder)
    (folder / "lint.toml").write_text(body, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        Policy.load(folder)
    assert says in str(refused.value)


def test_a_policy_stored_before_there_was_a_list_is_still_read() -> None:
    """A year later an old alert's policy must still explain it."""
    content = json.loads(Policy.load(TABLES).to_bytes())
    del content["lint"]
    assert Policy.from_bytes(json.dumps(content).encode()).tables.lint == LintFile()


# --- signatures -----------------------------------------------------------------------------------


def test_the_signature_is_the_registered_one_of_the_issuer() -> None:
    """Another unit's registered signature passes the carrier, and the village believes the wrong office (D11)."""
    assert codes(lint("【遂平县气象局】雨", signature="泌阳县气象局")) == ["signature_other"]
    assert codes(lint("雨", signature="泌阳县气象局")) == ["signature_missing"]
    assert codes(lint("【泌阳县气象局】雨", signature="泌阳县气象局")) == []


def test_only_a_rendered_text_can_be_held_against_its_facts() -> None:
    """A text from elsewhere has no facts; the mistake is ours and must not pass as clean."""
    with pytest.raises(ValueError, match="only a text of this renderer"):
        RENDERER.check(warning(), Rendered("x", "y", 1), None, RULES)


def test_a_text_of_more_segments_than_the_policy_allows_is_too_long() -> None:
    """A phone on a weak network puts long texts together late or never; red is said all the same."""
    rules = LintFile(most_segments=2)
    long = "【泌阳县气象局】" + "雨" * 140
    assert ("too_long", "error") in [(one.code, one.severity) for one in lint(long, rules=rules)]
    assert ("too_long", "warning") in [(one.code, one.severity) for one in lint(long, rules=rules, urgent=True)]
    assert "too_long" not in {one.code for one in lint(long[:130], rules=rules)}
    assert "too_long" not in {one.code for one in lint(long, rules=rules, signed=False)}


def test_a_signature_counts_only_where_it_is_registered() -> None:
    """Per unit, account and carrier (D11): what is pending with one carrier is refused there."""

    def row(account: str, carrier: str, status: str, port: str = "") -> dict[str, str]:
        return {"unit": "qxj", "account": account, "carrier": carrier, "status": status, "port": port}

    rules = LintFile.model_validate(
        {
            "signature": [
                row("sms_cmpp", "mobile", "pending"), row("sms_cmpp/second", "mobile", "registered", "10657300"),
                row("sms_http", "mobile", "registered"), row("sms_http", "unicom", "refused"),
            ]
        }
    )  # fmt: skip
    assert rules.unregistered("qxj", "sms_cmpp", {"mobile"}) == {}
    assert rules.unregistered("qxj", "sms_http", ()) == {"telecom": "missing", "unicom": "refused"}
    assert rules.unregistered("slj", "sms_cmpp", {"mobile"}) == {"mobile": "missing"}
    assert LintFile().unregistered("slj", "sms_cmpp", {"mobile"}) == {}
    assert rules.accounts("qxj", "sms_cmpp") == (("second", "10657300"),)
    assert rules.accounts("qxj", "sms_http") == (("", ""),)
    assert rules.accounts("slj", "sms_cmpp") == LintFile().accounts("qxj", "sms_cmpp") == ()
