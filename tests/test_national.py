"""The national dialect, both ways: nothing is lost in silence, and nothing is guessed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from national_strategy import messages
from test_cap_roundtrip import alerts

from gateway import cap
from gateway.cap.finding import Findings
from gateway.cap.national_form import Number, codes_in
from gateway.cap.national_meaning import CHANGED, from_alert
from gateway.cap.national_reader import read_message
from gateway.cap.national_table import ALERT, Message, Part, Place
from gateway.cap.national_title import read_title
from gateway.cap.national_writer import write_message
from gateway.cap.table import Block
from gateway.model import Alert, Area, Circle, Code, Document, Info, Kind, Level, Point, Reference, Status

LIVE = (Path(__file__).parent / "data" / "national" / "rainstorm_update.xml").read_bytes()
CAP = Path(__file__).parent / "data" / "cap"
UNIT = "41172641600000"
BOUNDED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def codes(data: bytes) -> dict[str, str]:
    """Return code → element of what is found in a message."""
    return {found.code: found.element for found in cap.parse(data)[1]}


def refused(data: bytes) -> dict[str, str]:
    """Return code → element of the errors of a message that must be refused."""
    alert, findings = cap.parse(data)
    assert alert is None
    return {found.code: found.element for found in findings if found.severity == "error"}


def swapped(old: str, new: str) -> bytes:
    """Return the live message with one thing changed."""
    assert old.encode() in LIVE
    return LIVE.replace(old.encode(), new.encode(), 1)


# --- reading ----------------------------------------------------------------------------------------


def test_a_live_message_is_read_as_it_is_meant() -> None:
    """What the platform sends is a warning here without anybody retyping it at night."""
    alert, findings = cap.parse(LIVE)
    assert alert is not None
    assert (alert.identifier, alert.sender, alert.kind) == ("41172641600000_20260720143119", UNIT, Kind.UPDATE)
    assert (alert.event_code, alert.event, alert.level) == ("11B03", "暴雨", Level.RED)
    assert alert.sent == datetime(2026, 7, 20, 6, 25, tzinfo=UTC)
    assert alert.infos[0].sender_name == "泌阳县气象局"
    assert [code.value for code in alert.areas[0].geocodes] == ["411726209000", "411726204000"]
    assert {found.severity for found in findings} == {"warning"}


def test_names_and_numbers_of_persons_are_dropped_and_said_to_be() -> None:
    """The signer's name and the recipients' phones must reach neither texts nor logs; the sender is told which."""
    alert, findings = cap.parse(LIVE)
    assert alert is not None
    said = " ".join(found.message for found in findings)
    assert "样例甲" not in repr(alert) + said
    assert "19900000001" not in repr(alert) + said
    dropped = {found.element: found.line for found in findings if found.code == "not_carried"}
    assert dropped["code/method[2]/audenceprt"] == 21
    assert dropped["info[1]/senderName"] == 36


def test_a_reference_is_the_first_issue_of_the_unit_in_its_number() -> None:
    """An update finds what it changes, though the dialect names neither sender nor time."""
    alert, _ = cap.parse(LIVE)
    assert alert is not None
    first = datetime(2026, 7, 20, 4, 18, 42, tzinfo=UTC)
    assert alert.references == (Reference(UNIT, "41172641600000_20260720121842", first),)


@pytest.mark.parametrize("own", ["41172641600000_20260720143119", "41172641600000_20260720143119_0"])
def test_a_message_that_references_itself_is_no_circle(own: str) -> None:
    """Live feeds do that (T3); the first issue still goes out, and an update without another one is refused."""
    first = swapped("<msgType>Update", "<msgType>Alert").replace(b"41172641600000_20260720121842", own.encode())
    alert, findings = cap.parse(first)
    assert alert is not None
    assert alert.references == ()
    assert "circular_reference" in {found.code for found in findings}
    assert "missing_references" in refused(swapped("41172641600000_20260720121842", own))


@pytest.mark.parametrize(
    ("written", "hour"),
    [("2026-07-20 14:25:00+08:00", 6), ("2026-07-20 14:25:00", 6), ("2026-07-20T14:25:00+08:00", 6),
     ("2026-07-20 14:25:00+00:00", 14)],
)  # fmt: skip
def test_a_time_without_offset_is_chinese(written: str, hour: int) -> None:
    """A warning must not lapse, or begin, eight hours off (T30)."""
    alert, _ = cap.parse(swapped("2026-07-20 14:25:00+08:00", written))
    assert alert is not None
    assert alert.sent == datetime(2026, 7, 20, hour, 25, tzinfo=UTC)


@pytest.mark.parametrize(("word", "level"), [("RED", Level.RED), ("red", Level.RED), ("红色", Level.RED)])
def test_a_colour_is_read_in_any_case(word: str, level: Level) -> None:
    """The standard writes RED, live messages Red."""
    alert, _ = cap.parse(swapped("<severity>Red", f"<severity>{word}"))
    assert alert is not None
    assert alert.level is level


@pytest.mark.parametrize(
    ("old", "new", "code", "element"),
    [
        ("<severity>Red", "<severity>1", "digit_level", "info[1]/severity"),
        ("<severity>Red", "<severity>04", "digit_level", "info[1]/severity"),
        ("<severity>Red", "<severity>Extreme", "unknown_level", "info[1]/severity"),
        ("<severity>Red", "<severity>Blue", "level_disagrees", "info[1]/headline"),
        ("<severity>Red", "<severity>UNKNOWN", "level_disagrees", "info[1]/headline"),
        ("[I级/特别重大]", "[III级/较重]", "level_disagrees", "info[1]/headline"),
        ("[I级/特别重大]", "【Ⅱ级】", "level_disagrees", "info[1]/headline"),
        ("局发布暴雨", "局解除暴雨", "title_disagrees", "info[1]/headline"),
        ("<msgType>Update", "<msgType>Cancel", "title_disagrees", "info[1]/headline"),
        ("<msgType>Update", "<msgType>Ack", "not_an_alert", "msgType"),
        ("<scope>Public", "<scope>Private", "not_public", "scope"),
        ("<secClassification>None", "<secClassification>Inner", "not_public", "secClassification"),
        ("<senderCode>41172641600000", "<senderCode>41172841600000", "identifier_disagrees", "senderCode"),
        ("<eventType>11B03", "<eventType>暴雨", "invalid_value", "info[1]/eventType"),
        ("<geocode>411726209000", "<geocode>贾楼乡", "invalid_value", "info[1]/area[1]/geocode"),
        ("<polygon/>", "<polygon>113.3,32.7 113.4,32.7 113.4,32.8 113.3,32.7</polygon>", "invalid_polygon",
         "info[1]/area[1]/polygon[1]"),
        ("<circle/>", "<circle>32.72,113.33 5</circle>", "invalid_circle", "info[1]/area[1]/circle[1]"),
        ("<sendTime>2026-07-20 14:25:00+08:00", "<sendTime>20日14时25分", "invalid_date", "sendTime"),
        ("<sendTime>2026-07-20 14:25:00+08:00</sendTime>", "<sendTime/>", "missing_required_element", "sendTime"),
        ("<eventType>11B03</eventType>", "", "missing_required_element", "info[1]/eventType"),
        ("<note/>", "<note/><sender>乙</sender>", "duplicate_element", "sender"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_contradicts_itself_is_refused_by_element_and_line(
    old: str, new: str, code: str, element: str
) -> None:
    """A colour, a digit or a title is never guessed: the bureau is told where to mend it (T6, T8)."""
    data = swapped(old, new)
    assert refused(data)[code] == element
    assert all(found.line for found in cap.parse(data)[1])


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("局发布暴雨", "局继续发布暴雨", ""),
        ("发布暴雨红色预警[I级/特别重大]", "升级发布暴雨由橙色升为红色预警", ""),
        ("发布暴雨红色预警[I级/特别重大]", "发布暴雨红色[Ⅰ级/特别重大]预警信号", ""),
        ("泌阳县气象局发布暴雨红色预警[I级/特别重大]", "泌阳县暴雨", "odd_title"),
        ("<note/>", "<note/>立即转移", "not_carried"),
        ("<note/>", "<phone>19900000001</phone><extra>1</extra><note/>", "not_carried"),
        ("<web/>", "<resource><resourceDesc>图</resourceDesc><size>84k</size></resource>", "not_carried"),
        ("<certainty>Unknown", "<certainty>VeryLikely", "not_carried"),
        ("<identifier>41172641600000_20260720143119", "<identifier>BY-1", "national_identifier"),
        ("<headline>", "<Headline>", ""),
        ("<alert>", '<alert xmlns="http://platform.example/amp">', ""),
    ],
)
def test_what_live_messages_do_is_read(old: str, new: str, code: str) -> None:
    """The dialect is known from examples only: what can be understood goes out, and what is odd is named."""
    data = swapped(old, new).replace(b"</headline>", b"</Headline>") if new == "<Headline>" else swapped(old, new)
    alert, findings = cap.parse(data)
    assert alert is not None, findings
    assert not code or code in {found.code for found in findings}
    assert {found.code for found in findings} <= cap.FINDINGS.keys()


def test_a_title_that_changes_something_while_the_message_does_not_is_named() -> None:
    """The feed of live Alerts titled 更新 is taken in, but somebody should know."""
    data = swapped("<msgType>Update", "<msgType>Alert").replace("局发布".encode(), "局继续发布".encode())
    alert, findings = cap.parse(data)
    assert alert is not None
    assert ("odd_title", "warning") in {(found.code, found.severity) for found in findings}


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ("河南省气象局发布大风蓝色预警[IV级/一般]", "大风"),
        ("浙江省水利厅、浙江省气象台发布山洪灾害蓝色预警", "山洪灾害"),
        ("吉安市气象台更新雷电黄色预警信号[III级/较重]", "雷电"),
        ("驻马店市突发事件预警信息发布中心发布暴雨红色预警", "暴雨"),
        ("广东发布气象灾害(台风)二级预警", "气象灾害(台风)二级"),
        ("今天有雨", ""),
        ("发布" * 200_000, ""),
    ],
)
def test_the_title_names_the_event(text: str, event: str) -> None:
    """The dialect has no other place for it."""
    assert read_title(text).event == event


# --- security ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["GB18030", "GBK", "UTF-16"])
def test_the_encodings_of_chinese_systems_are_read(encoding: str) -> None:
    """Old bureaus' systems write GBK."""
    text = LIVE.decode().replace('encoding="UTF-8"', f'encoding="{encoding}"')
    alert, _ = cap.parse(text.encode(encoding))
    assert alert == cap.parse(LIVE)[0]


def test_doctypes_size_and_broken_xml_are_refused() -> None:
    """The second door is as strong as the first."""
    with_dtd = LIVE.replace(b"<alert>", b'<!DOCTYPE alert [<!ENTITY a SYSTEM "file:///etc/passwd">]><alert>', 1)
    assert "entity_forbidden" in refused(with_dtd)
    assert "too_large" in refused(LIVE + b" " * cap.MAX_BYTES)
    assert "not_xml" in refused(LIVE[:-10])
    assert "wrong_encoding" in refused(LIVE.replace(b"UTF-8", b"EBCDIC", 1))


def test_who_must_sign_does_not_get_past_it_in_the_dialect() -> None:
    """The dialect has no signature, so a sender whose key is pinned sends signed CAP: no second, open door."""
    now = datetime(2026, 7, 20, 6, 40, tzinfo=UTC)
    taken = cap.take(LIVE, cap.Trust(UNIT, required=True), now)
    assert taken.alert is None
    assert [found.code for found in taken.findings] == ["signature_missing"]
    assert cap.take(LIVE, cap.Trust(UNIT), now).alert == cap.parse(LIVE)[0]


def test_cap_stays_cap() -> None:
    """CAP that speaks of senderCode is not taken for the dialect; CAP that forgot its namespace is told so."""
    for path in CAP.glob("*.xml"):
        assert not cap.is_national(path.read_bytes())
    text = (CAP / "red_rainstorm.xml").read_bytes()
    assert not cap.is_national(text.replace("泌阳县气象台值班室".encode(), b"senderCode"))
    assert "wrong_namespace" in refused(text.replace(b' xmlns="urn:oasis:names:tc:emergency:cap:1.2"', b""))


# --- both ways --------------------------------------------------------------------------------------


@BOUNDED
@given(messages())
def test_national_to_alert_to_national_is_the_same(message: Message) -> None:
    """A warning relayed upward says what the platform said."""
    data = write_message(message)
    findings = Findings()
    assert read_message(data, findings) == message, findings.found
    alert, found = cap.parse(data)
    assert alert is not None, found
    again, losses = cap.write_national(alert)
    assert again == data
    assert losses == []


@BOUNDED
@given(alerts())
def test_alert_to_national_to_alert_differs_only_where_it_is_said(alert: Alert) -> None:
    """Whoever translates is told every loss; what is not named has not changed."""
    assume(alert.identifier not in {reference.identifier for reference in alert.references})
    document = Document.JOINT_RISK if alert.document in list(Document)[::2] else Document.WARNING
    code = alert.event_code or "11B03"
    alert = replace(alert, scope="Public", restriction=None, document=document, event_code=code)
    data, losses = cap.write_national(alert)
    again, findings = cap.parse(data)
    assert again is not None, findings
    named = {loss.element for loss in losses}
    assert differences(alert, again) <= named, named


def differences(one: Alert, other: Alert) -> set[str]:
    """Return the elements in which two alerts differ; infos that are gone count as one."""
    header = ("sender", "identifier", "sent", "status", "kind", "document", "event_code", "event", "level",
              "references", "scope", "source", "restriction", "addresses", "codes", "note", "incidents")  # fmt: skip
    found = {name for name in header if getattr(one, name) != getattr(other, name)}
    left = list(other.infos)
    for number, info in enumerate(one.infos, 1):
        if one.infos != other.infos and not info.language.startswith("zh") and len(other.infos) < len(one.infos):
            found.add(f"info[{number}]")
            continue
        found |= {f"info[{number}]/{name}" for name in unlike(info, left.pop(0))}
    return found | ({"info[1]"} if not one.infos else set())


def unlike(one: Info, other: Info) -> set[str]:
    """Return the fields in which two infos differ, those of their areas with their places."""
    names = set(Info.__dataclass_fields__) - {"areas"}
    found = {name for name in names if getattr(one, name) != getattr(other, name)}
    for number, (area, place) in enumerate(zip(one.areas, other.areas, strict=True), 1):
        fields = Area.__dataclass_fields__
        found |= {f"area[{number}]/{name}" for name in fields if getattr(area, name) != getattr(place, name)}
    return found


def test_every_loss_in_words_is_of_a_field_there_is() -> None:
    """A misspelt field would be explained by the general word."""
    assert set(CHANGED) <= {name for model in (Alert, Info, Area) for name in model.__dataclass_fields__}


def rules(block: Block) -> set[str]:
    """Return the fields of all rows of a table."""
    found = {rule.field for rule in block.rules if rule.field}
    return found.union(*(rules(rule.block) for rule in block.rules if rule.block))


def test_one_table_drives_both_directions() -> None:
    """A field without a row would be read or written by nobody."""
    fields = {name for model in (Message, Part, Place) for name in model.__dataclass_fields__}
    assert fields <= rules(ALERT)


def warning(**changes: object) -> Alert:
    """Return a small CAP warning with changes."""
    sent = datetime(2026, 7, 20, 6, 30, tzinfo=UTC)
    info = Info("暴雨", "zh-CN", severity="Extreme", areas=(Area("贾楼乡", geocodes=(Code("township", "411726209"),)),))
    made = Alert(
        "411726-qxj@mingluo.example", f"{UNIT}_20260720143000", sent, Status.ACTUAL, Kind.ALERT, Document.WARNING,
        "11B03", "暴雨", Level.RED, (info,),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]  # any field of the alert


def test_a_warning_without_title_gets_the_platforms() -> None:
    """The platform asks for a title of a fixed form, and it is the only place that names the event."""
    message, losses = from_alert(warning())
    assert message.parts[0].headline == f"{UNIT}发布暴雨红色预警[I级/特别严重]"
    assert message.parts[0].areas[0].geocodes == ("411726209000",)
    assert {"sender", "info[1]/headline", "info[1]/area[1]/geocodes"} <= {loss.element for loss in losses}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"document": Document.EVACUATION}, "document evacuation"),
        ({"scope": "Private", "addresses": ("a@b",)}, "scope Private"),
        ({"event_code": ""}, "eventType"),
    ],
)
def test_what_would_change_its_meaning_is_not_written(changes: dict[str, object], why: str) -> None:
    """An evacuation order is no warning, and what is private must not become public (rule 7)."""
    with pytest.raises(cap.Unwritable, match=why):
        cap.write_national(warning(**changes))


@pytest.mark.parametrize(
    ("changes", "element"),
    [
        ({"status": Status.SYSTEM}, "status"),
        ({"kind": Kind.CORRECTION, "references": (Reference("a", "1", datetime(2026, 7, 20, tzinfo=UTC)),)}, "kind"),
        ({"document": Document.JOINT_RISK}, "document"),
        ({"identifier": "demo-1"}, "identifier"),
        ({"source": "x"}, "source"),
        ({"infos": ()}, "info[1]"),
    ],
)
def test_what_the_dialect_lacks_is_named(changes: dict[str, object], element: str) -> None:
    """System must never look like Actual (T1), and a correction never like an all-clear without a word."""
    kind = {"kind": Kind.CANCEL, "references": (Reference("a", "1", datetime(2026, 7, 20, tzinfo=UTC)),)}
    made = warning(**(kind if element == "info[1]" else {}) | changes)
    data, losses = cap.write_national(made)
    assert element in {loss.element for loss in losses}
    again, _ = cap.parse(data)
    assert again is not None
    assert again.actual is made.actual


def test_only_chinese_infos_are_written_and_the_others_are_named() -> None:
    """The platform speaks Chinese."""
    chinese = warning().infos[0]
    made = warning(infos=(replace(chinese, language="en", event="rainstorm"), chinese))
    data, losses = cap.write_national(made)
    assert data.count(b"<info>") == 1
    assert "info[1]" in {loss.element for loss in losses}


def test_several_references_become_the_first_issue() -> None:
    """The platform names the first issue of an event, CAP every live one."""
    at = datetime(2026, 7, 20, tzinfo=UTC)
    later = Reference("a", "later", at + timedelta(hours=1))
    message, losses = from_alert(warning(kind=Kind.UPDATE, references=(later, Reference("a", "first", at))))
    assert message.references == ("first",)
    assert "references" in {loss.element for loss in losses}


def test_a_radius_is_kilometres_in_cap_and_metres_in_the_dialect() -> None:
    """Read the wrong way, five kilometres of warning become five metres."""
    area = Area("河边", circles=(Circle(Point(32.72, 113.33), 5.5), Circle(Point(32.7, 113.3), 0.02)))
    info = replace(warning().infos[0], areas=(area,))
    data, losses = cap.write_national(warning(infos=(info,)))
    assert b"<circle>32.72,113.33 5500</circle>" in data
    assert b"<circle>32.7,113.3 100</circle>" in data
    assert "info[1]/area[1]/circles" in {loss.element for loss in losses}
    again, _ = cap.parse(data)
    assert again is not None
    assert [circle.radius_km for circle in again.areas[0].circles] == [5.5, 0.1]


# --- numbers ----------------------------------------------------------------------------------------


def test_a_number_is_known_with_and_without_its_sequence() -> None:
    """The standard writes _N, live feeds leave it out."""
    plain, first, second = (Number.of(f"{UNIT}_20260720143000{tail}") for tail in ("", "_0", "_1"))
    assert plain is not None
    assert first is not None
    assert second is not None
    assert plain.entered == datetime(2026, 7, 20, 6, 30, tzinfo=UTC)
    assert plain.same(first)
    assert not first.same(second)


@pytest.mark.parametrize("text", ["", "demo-1", f"{UNIT}_20261320143000", f"{UNIT}_20260720143000_10", f"{UNIT}_0"])
def test_what_is_no_number_is_none(text: str) -> None:
    """A date that is none cannot have been given by the platform."""
    assert Number.of(text) is None


def test_geocodes_are_padded_to_the_platforms_length() -> None:
    """A county is 411726 here and 411726000000 there."""
    assert codes_in("411726,411726204;x 411726204201") == ("411726000000", "411726204000", "411726204201")


@given(st.text(max_size=60))
def test_any_text_is_a_title_or_not(text: str) -> None:
    """Titles come from typing; none may stop a warning with a traceback."""
    assume(text)
    assert isinstance(read_title(text).event, str)
