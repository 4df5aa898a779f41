"""One rule broken at a time: each mistake is named by its own code, with its place and what to write instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cap import FINDINGS, Finding, finding, form, from_json, read
from gateway.cap.finding import Malformed

DATA = Path(__file__).parent / "data" / "cap"
RED = (DATA / "red_rainstorm.xml").read_text(encoding="utf-8")
CANCEL = (DATA / "cancel.xml").read_text(encoding="utf-8")
JSON = json.loads((DATA / "red_rainstorm.json").read_text(encoding="utf-8"))
SENT = "<sent>2026-07-20T14:30:00+08:00</sent>"
SELF = "bypq@mingluo.example,41172641600000_20260720143000,2026-07-20T14:30:00+08:00"
OTHER = SELF.replace("_20260720143000", "_20260720140000")
HELLO = (("20480", "5"), ("0123456789abcdef0123456789abcdef01234567", "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"))
"""Size and digest of the resource, as those of the five bytes hello."""
RING = "32.70,113.30 32.70,113.45 32.82,113.45 32.82,113.30 32.70,113.30"
SERVICE = "<valueName>document</valueName><value>service</value>"
UPDATE = ("<msgType>Alert", "<msgType>Update")
Change = tuple[str, str]


def parameter(name: str, value: str) -> Change:
    """Replace the colour of the sample by another parameter."""
    old = "<valueName>ColorCode</valueName>\n      <value>RED</value>"
    return old, f"<valueName>{name}</valueName><value>{value}</value>"


def second_info(*changes: Change) -> Change:
    """Repeat the sample's info with changes."""
    info = RED[RED.index("  <info>") : RED.index("</alert>")]
    for old, new in changes:
        assert old in info
        info = info.replace(old, new)
    return "</alert>", f"{info}</alert>"


def after_scope(text: str) -> Change:
    return "</scope>", f"</scope>{text}"


def cut(name: str) -> Change:
    """Drop the sample's only element of that name."""
    return RED[RED.index(f"<{name}>") : RED.index(f"</{name}>") + len(f"</{name}>")], ""


def same_code(value: str) -> Change:
    """Put a foreign event code in front."""
    return "<eventCode>", f"<eventCode><valueName>SAME</valueName><value>{value}</value></eventCode><eventCode>"


EMPTY_PAIR = ("</parameter>", "</parameter><parameter><valueName/><value> </value></parameter>")


def deref(content: str) -> Change:
    """Give the sample's resource its content."""
    return "area.png</uri>", f"area.png</uri><derefUri>{content}</derefUri>"


def references(*each: str) -> Change:
    return after_scope(f"<references>{' '.join(each)}</references>")


def comb(teeth: int) -> str:
    """Return a valid ring that no validity test should be started on: long teeth side by side, laid askew."""
    corners = [(0.0, -1.0), (4.0 * teeth, -1.0)]
    for tooth in reversed(range(teeth)):
        left = 4.0 * tooth
        corners += [(left + 2, 0.0), (left + 2, 4.0 * teeth), (left, 4.0 * teeth), (left, 0.0)]
    corners.append(corners[0])
    return " ".join(f"{32 + (x - y) / 8 / teeth:.6f},{113 + (x + y) / 8 / teeth:.6f}" for x, y in corners)


ERRORS: list[tuple[str, str, list[Change]]] = [
    ("not_xml", "", [("</alert>", "")]),
    ("not_xml", "", [("落区图", "&nbsp;")]),
    ("not_xml", "", [("落区图", "\x01")]),
    ("older_cap", "alert", [("cap:1.2", "cap:1.1")]),
    ("older_cap", "alert", [("urn:oasis:names:tc:emergency:cap:1.2", "http://www.incident.com/cap/1.0")]),
    ("wrong_namespace", "alert", [("cap:1.2", "cap:1.3")]),
    ("wrong_namespace", "alert", [(' xmlns="urn:oasis:names:tc:emergency:cap:1.2"', "")]),
    ("wrong_encoding", "", [("UTF-8", "EBCDIC-CP-US")]),
    ("wrong_encoding", "", [("UTF-8", "ASCII")]),
    ("wrong_encoding", "", [("UTF-8", "UTF" + "-" * 900)]),
    ("wrong_encoding", "", [("UTF-8", "US-ASCII")]),
    ("entity_forbidden", "", [("<alert", "<!DOCTYPE alert><alert")]),
    ("not_an_alert", "feed", [("<alert", "<feed"), ("</alert", "</feed")]),
    ("not_an_alert", "msgType", [("<msgType>Alert", "<msgType>Ack")]),
    ("not_an_alert", "msgType", [("<msgType>Alert", "<msgType>Error"), after_scope("<note>no such file</note>")]),
    ("missing_required_element", "sent", [(SENT, "")]),
    ("missing_required_element", "sender", [("<sender>bypq@mingluo.example", "<sender> ")]),
    ("missing_required_element", "info[1]/urgency", [("<urgency>Immediate</urgency>", "")]),
    ("missing_required_element", "info[1]/category", [("<category>Met</category>", "")]),
    ("missing_required_element", "info[1]/area[1]/areaDesc", [("<areaDesc>泌阳县贾楼乡、铜山乡</areaDesc>", "")]),
    ("missing_required_element", "addresses", [("<scope>Public", "<scope>Private")]),
    ("missing_required_element", "info[1]", [(RED[RED.index("<info>") : RED.index("</alert>")], "")]),
    ("duplicate_element", "sent", [(SENT, SENT + SENT)]),
    ("duplicate_element", "info[1]/event", [("<event>", "<event>大风</event><event>")]),
    ("invalid_sequence", "sender", [(SENT, ""), ("<sender>", f"{SENT}<sender>")]),
    ("unsupported_element", "info[1]/colour", [("<web>", "<colour>red</colour><web>")]),
    ("unsupported_element", "hurry", [("<status>", '<hurry xmlns="urn:other"/><status>')]),
    ("unsupported_element", "info[1]/event/b", [("<event>暴雨", "<event><b>暴雨</b>")]),
    ("invalid_enum_value", "status", [("<status>Actual", "<status>actual")]),
    ("invalid_enum_value", "info[1]/severity", [("Extreme", "RED")]),
    ("invalid_enum_value", "info[1]/responseType[2]", [("<responseType>Avoid", "<responseType>Run")]),
    ("invalid_date", "sent", [("14:30:00+08:00</sent>", "14:30:00Z</sent>")]),
    ("invalid_date", "sent", [("14:30:00+08:00</sent>", "14:30:00</sent>")]),
    ("invalid_date", "sent", [("14:30:00+08:00</sent>", "14:30:00.5+08:00</sent>")]),
    ("invalid_date", "sent", [("14:30:00+08:00</sent>", "14:30:00,08:00</sent>")]),
    ("invalid_date", "sent", [("2026-07-20T14:30:00+08:00</sent>", "2026-02-30T14:30:00+08:00</sent>")]),
    ("invalid_date", "sent", [("2026-07-20T14:30:00+08:00</sent>", "0001-01-01T00:00:00+08:00</sent>")]),
    ("invalid_date", "sent", [("2026-07-20T14:30:00+08:00</sent>", "20260720143000</sent>")]),
    ("invalid_identifier", "identifier", [("<identifier>41172641600000_", "<identifier>41172641600000,")]),
    ("invalid_identifier", "identifier", [("<identifier>", f"<identifier>{'4' * 255}")]),
    ("invalid_sender", "sender", [("<sender>bypq", "<sender>by pq")]),
    ("invalid_references", "references", [UPDATE, after_scope("<references>only-an-id</references>")]),
    ("invalid_references", "references", [UPDATE, after_scope("<references>a,b,yesterday</references>")]),
    ("invalid_language", "info[1]/language", [("zh-CN", "中文")]),
    ("invalid_web", "info[1]/web", [("https://mingluo.example/warnings", "javascript:alert(1)")]),
    ("stray_text", "info[1]", [("</eventCode>", "</eventCode>立即转移")]),
    ("invalid_deref_uri", "info[1]/resource[1]/derefUri", [deref("not base64!")]),
    ("invalid_uri", "info[1]/resource[1]/uri", [("https://mingluo.example/area.png", "area map.png")]),
    ("relative_uri_missing_deref_uri", "info[1]/resource[1]/uri", [("https://mingluo.example/area.png", "area.png")]),
    ("invalid_mime_type", "info[1]/resource[1]/mimeType", [("image/png", "picture")]),
    ("invalid_resource_size", "info[1]/resource[1]/size", [("20480", "20 KB")]),
    ("invalid_resource_size", "info[1]/resource[1]/size", [("20480", "-1")]),
    ("invalid_digest", "info[1]/resource[1]/digest", [("0123456789abcdef0123", "0123456789abcdef012")]),
    ("invalid_polygon", "info[1]/area[1]/polygon[1]", [(RING, RING.rsplit(" ", 1)[0])]),
    ("invalid_polygon", "info[1]/area[1]/polygon[1]", [(RING, "32.7,113.3 32.7,113.4 32.7,113.3")]),
    ("invalid_polygon", "info[1]/area[1]/polygon[1]", [(RING, RING.replace("32.82,113.45", "113.45,32.82"))]),
    ("invalid_polygon", "info[1]/area[1]/polygon[1]", [(RING, RING.replace("32.82,113.45", "32.82,nan"))]),
    ("invalid_polygon", "info[1]/area[1]/polygon[1]", [(RING, RING.replace("32.82,113.45", "32.82,113.45,0"))]),
    ("invalid_circle", "info[1]/area[1]/circle[1]", [("32.72,113.33 5", "32.72,113.33")]),
    ("invalid_circle", "info[1]/area[1]/circle[1]", [("32.72,113.33 5", "32.72,113.33 99999")]),
    ("invalid_circle", "info[1]/area[1]/circle[1]", [("32.72,113.33 5", "113.33,32.72 5")]),
    ("invalid_number", "info[1]/area[1]/altitude", [("<altitude>300", "<altitude>300 m")]),
    (
        "postdated_reference",
        "references",
        [UPDATE, after_scope(f"<references>{OTHER.replace('T14:30', 'T14:31')}</references>")],
    ),
    ("missing_references", "references", [UPDATE]),
    ("restriction_scope_mismatch", "restriction", [("<scope>Public", "<scope>Restricted")]),
    ("restriction_scope_mismatch", "restriction", [after_scope("<restriction>officials</restriction>")]),
    ("invalid_area", "info[1]/area[1]/ceiling", [("<altitude>300</altitude>", "")]),
    ("invalid_altitude_ceiling_range", "info[1]/area[1]/ceiling", [("1800.5", "200")]),
    ("expires_before_effective", "info[1]/expires", [("<effective>2026-07-20T14:30", "<effective>2026-07-20T17:30")]),
    ("expires_before_onset", "info[1]/expires", [("<onset>2026-07-20T15", "<onset>2026-07-20T18")]),
    ("digit_level", "info[1]/parameter[1]", [("<value>RED", "<value>1")]),
    ("digit_level", "info[1]/parameter[1]", [("<value>RED", "<value>04")]),
    ("unknown_level", "info[1]/parameter[1]", [("<value>RED", "<value>PURPLE")]),
    ("level_disagrees", "info[1]/severity", [("<value>RED", "<value>BLUE")]),
    ("mixed_infos", "info[1]/severity", [second_info(("Extreme", "Severe"), ("RED", "ORANGE"))]),
    ("mixed_infos", "info[1]/eventCode[1]", [second_info(("11B03", "11B06"))]),
    (
        "mixed_infos",
        "info[1]/parameter[1]",
        [parameter("document", "nowcast"), second_info(parameter("document", "response"))],
    ),
    (
        "mixed_infos",
        "info[1]/parameter[1]",
        [parameter("document", "warning"), ("</parameter>", f"</parameter><parameter>{SERVICE}</parameter>")],
    ),
    ("invalid_parameter", "info[1]/parameter[1]", [parameter("document", "gossip")]),
    ("invalid_parameter", "info[1]/parameter[1]", [parameter("correction", "true")]),
]

WARNINGS: list[tuple[str, str, list[Change]]] = [
    ("encoding_disagrees", "", [("UTF-8", "GB2312")]),
    ("encoding_disagrees", "", [("UTF-8", "ISO-8859-1")]),
    ("encoding_disagrees", "", [("UTF-8", "utf-16")]),
    ("empty_element", "note", [after_scope("<note/>")]),
    ("empty_element", "info[1]/parameter[2]", [EMPTY_PAIR]),
    ("unexpected_attribute", "", [("<alert", "<alert Id='a1'")]),
    ("surrounding_blanks", "status", [("<status>Actual", "<status> Actual")]),
    ("surrounding_blanks", "info[1]/language", [("zh-CN", "zh-CN\u3000")]),
    ("national_date", "sent", [(SENT, SENT.replace("T", " "))]),
    ("unknown_language", "info[1]/language", [("zh-CN", "cn")]),
    ("unknown_language", "info[1]/language", [("zh-CN", "chinese")]),
    ("unknown_language", "info[1]/language", [("zh-CN", "xx-CN")]),
    ("unknown_language", "info[1]/language", [("zh-CN", "zh-UK")]),
    ("unbalanced_quotes", "addresses", [after_scope('<addresses>"duty desk</addresses>')]),
    ("unbalanced_quotes", "incidents", [after_scope('<incidents>"flood" 2026"</incidents>')]),
    ("foreign_profile", "code[1]", [after_scope("<code>IPAWSv1.0</code>")]),
    ("foreign_profile", "code[2]", [after_scope("<code>a</code><code>profile:CAP-CP:0.4</code>")]),
    ("foreign_profile", "code[1]", [
        after_scope("<code>urn:oasis:names:tc:emergency:cap:1.2:profile:CAP-AU:1.0</code>")]),
    ("markup_in_text", "info[1]/headline", [("<headline>", "<headline>&lt;b&gt;")]),
    ("markup_in_text", "info[1]/instruction", [("<instruction>", "<instruction>&amp;nbsp;")]),
    ("markup_in_text", "info[1]/senderName", [("<senderName>", "<senderName>&lt;p/&gt;")]),
    ("long_headline", "info[1]/headline", [("<headline>", f"<headline>{'雨' * 140}")]),
    ("invalid_polygon_self_intersection", "info[1]/area[1]/polygon[1]", [(RING, "32,113 33,114 33,113 32,114 32,113")]),
    ("invalid_polygon_self_intersection", "info[1]/area[1]/polygon[1]", [(RING, "32,113 33,114 32,113 32,113")]),
    ("intricate_polygon", "info[1]/area[1]/polygon[1]", [(RING, comb(600))]),
    ("circular_reference", "references", [references(SELF)]),
    ("circular_reference", "references", [references(SELF.replace("T14:30", "T13:30"))]),
    ("circular_reference", "references", [UPDATE, references(SELF, OTHER.replace("T14:30", "T14:00"))]),
    ("simultaneous_reference", "references", [UPDATE, references(OTHER)]),
    ("duplicate_reference", "references", [
        UPDATE, references(OTHER.replace("T14:30", "T14:00"), OTHER.replace("T14:30", "T14:01"))]),
    ("missing_note", "note", [("<status>Actual", "<status>Exercise")]),
    ("missing_recommended_element", "info[1]/expires", [("<expires>2026-07-20T17:30:00+08:00</expires>", "")]),
    ("missing_recommended_element", "info[1]/description", [cut("description")]),
    ("missing_recommended_element", "info[1]/area[1]", [cut("area")]),
    ("area_without_shape", "info[1]/area[2]", [("</area>", "</area><area><areaDesc>贾楼乡</areaDesc></area>")]),
    ("duplicate_geocode", "info[1]/area[1]/geocode[2]", [("<value>411726209", "<value>411726204")]),
    ("onset_before_effective", "info[1]/onset", [
        ("Immediate", "Expected"), ("<onset>2026-07-20T15", "<onset>2026-07-20T13")]),
    ("resource_without_content", "info[1]/resource[1]", [("<uri>https://mingluo.example/area.png</uri>", "")]),
    ("size_disagrees", "info[1]/resource[1]/size", [deref("aGVsbG8="), HELLO[1]]),
    ("digest_disagrees", "info[1]/resource[1]/digest", [deref("aGVsbG8="), HELLO[0]]),
    ("language_disagrees", "info[1]/language", [("zh-CN", "en")]),
    ("language_disagrees", "info[1]/language", [("<language>zh-CN</language>", "")]),
    ("same_text_different_language", "info[2]/headline", [second_info(("zh-CN", "ja"))]),
    ("texts_differ_in_one_language", "info[2]", [second_info(("立即", "尽快"))]),
    ("texts_differ_in_one_language", "info[2]", [second_info(("zh-CN", "zh"), ("T17:30", "T18:30"))]),
    ("categories_differ", "info[2]/category[1]", [second_info(("<category>Met", "<category>Geo"))]),
    ("event_codes_differ", "info[2]/eventCode[1]", [same_code("TOE"), second_info(same_code("FFW"))]),
    ("missing_event_code", "info[1]/eventCode[1]", [("<value>11B03", "<value>RWS")]),
    ("missing_level", "info[1]/severity", [parameter("x", "y"), ("Extreme", "Unknown")]),
]  # fmt: skip


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda message: message.update(values)


def _area(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda message: message["areas"][0].update(values)


JSON_ERRORS: list[tuple[str, str, Callable[[dict[str, Any]], Any]]] = [
    ("missing_required_element", "sender", lambda message: message.pop("sender")),
    ("missing_required_element", "event", lambda message: message.pop("event")),
    ("missing_required_element", "areas[0].description", _area(description="")),
    ("unsupported_element", "colour", _set(colour="red")),
    ("unsupported_element", "areas", _set(infos=[{"event": "暴雨"}], headline=None)),
    ("invalid_value", "headline", _set(headline=7)),
    ("invalid_value", "areas[0].geocodes", _area(geocodes={"township": "411726204"})),
    ("invalid_character", "instruction", _set(instruction="转移\u0000")),
    ("invalid_enum_value", "status", _set(status="Real")),
    ("invalid_enum_value", "document", _set(document="gossip")),
    ("invalid_date", "sent", _set(sent="2026-07-20T14:30:00")),
    ("invalid_sender", "sender", _set(sender="a b")),
    ("invalid_identifier", "identifier", _set(identifier="a,b")),
    ("invalid_identifier", "identifier", _set(identifier="a\u0001b")),
    ("invalid_identifier", "identifier", _set(identifier="a\ufffeb")),
    ("invalid_identifier", "identifier", _set(identifier="a" * 256)),
    ("invalid_identifier", "identifier", _set(identifier="a\ufeff")),
    ("invalid_sender", "sender", _set(sender="bypq\u2066@mingluo.example")),
    ("invalid_sender", "references[0].sender", _set(
        kind="Update", references=[{"sender": "a\u200d", "identifier": "b", "sent": "2026-07-20T06:00:00Z"}])),
    ("invalid_sender", "references[0].sender", _set(
        kind="Update", references=[{"sender": "a\uffff", "identifier": "b", "sent": "2026-07-20T06:00:00Z"}])),
    ("invalid_web", "web", _set(web="https://mingluo.example/\u0001")),
    ("invalid_web", "web", _set(web="https://mingluo.example/\uffff")),
    ("invalid_mime_type", "resources[0].mime_type", _set(
        resources=[{"description": "图", "mime_type": "image/png; a=\ufffe"}])),
    ("invalid_number", "areas[0].altitude_ft", _area(altitude_ft=1e30)),
    ("invalid_polygon", "areas[0].polygons[0]", _area(polygons=["113.3,32.7 113.4,32.7 113.4,32.8 113.3,32.7"])),
    ("invalid_circle", "areas[0].circles[0]", _area(circles=["32.7,113.3"])),
    ("invalid_area", "areas[0].ceiling_ft", _area(ceiling_ft=900)),
    ("invalid_resource_size", "resources[0].size_bytes", _set(
        resources=[{"description": "图", "mime_type": "image/png", "size_bytes": -1}])),
    ("missing_references", "references", _set(kind="Update")),
    ("missing_references", "references", _set(kind="Correction")),
    ("digit_level", "level", _set(level="1")),
    ("digit_level", "level", _set(level=4)),
    ("unknown_level", "level", _set(level="purple")),
    ("level_disagrees", "severity", _set(severity="Minor")),
    ("mixed_infos", "event_codes[0]", _set(event_codes={"eventType": ["11B06"]})),
    ("invalid_parameter", "event_code", _set(event_code="rain")),
    ("expires_before_effective", "expires", _set(expires="2026-07-20T06:30:00Z")),
]  # fmt: skip


def broken(changes: list[Change]) -> bytes:
    text = RED
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text.encode()


def _ids(cases: list[Any]) -> list[str]:
    return [f"{case[0]}-{number}" for number, case in enumerate(cases)]


@pytest.mark.parametrize(("code", "element", "changes"), ERRORS, ids=_ids(ERRORS))
def test_one_mistake_is_refused_by_its_own_code(code: str, element: str, changes: list[Change]) -> None:
    """A refused warning must be mended in minutes: one mistake gives one error, at its place, with advice."""
    alert, findings = read(broken(changes))
    assert alert is None
    assert [(f.code, f.element, f.severity) for f in findings] == [(code, element, "error")]
    assert len(findings[0].message) > 20
    if element not in ("", "alert"):
        assert findings[0].line is not None


@pytest.mark.parametrize(("code", "element", "changes"), WARNINGS, ids=_ids(WARNINGS))
def test_what_only_looks_wrong_passes_with_a_warning(code: str, element: str, changes: list[Change]) -> None:
    """A slip that endangers nobody must not stop a warning."""
    alert, findings = read(broken(changes))
    assert alert is not None
    assert [(f.code, f.element, f.severity) for f in findings] == [(code, element, "warning")]


@pytest.mark.parametrize(("code", "element", "change"), JSON_ERRORS, ids=_ids(JSON_ERRORS))
def test_one_mistake_in_json_is_refused_by_the_same_code(
    code: str, element: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    """JSON obeys the rules of XML under the same codes, so one table of explanations serves both."""
    message = json.loads(json.dumps(JSON))
    change(message)
    alert, findings = from_json(json.dumps(message).encode())
    assert alert is None
    errors = [(f.code, f.element, f.line) for f in findings if f.severity == "error"]
    assert errors == [(code, element, None)]


@pytest.mark.parametrize(
    ("old", "new", "element"),
    [
        ('"level": "red"', '"level": "blue", "level": "red"', "level"),
        ('"level": "red"', '"level": "red", "lev\\u0065l": "red"', "level"),
        ('[{"description": "', '[{"description": "全市", "description": "', "areas[0].description"),
        ('"level": "red"', '"level": "red", "parameters": {"a": ["1"], "a": ["2"]}', "parameters.a"),
        ('"level": "red"', '"level": "red", "infos": [{"event": "a", "event": "b"}], "infos": []', "event infos"),
    ],
)
def test_a_key_that_stands_twice_is_refused(old: str, new: str, element: str) -> None:
    """One reader warns of blue and another of red: which one was meant only its sender can say."""
    text = json.dumps(JSON, ensure_ascii=False)
    assert old in text
    alert, findings = from_json(text.replace(old, new, 1).encode())
    assert alert is None
    found = [(f.code, f.element) for f in findings if f.severity == "error"]
    assert found == [("duplicate_key", one) for one in element.split()]


def test_bytes_that_are_no_json_are_named() -> None:
    """A cut-off body is the commonest mistake of all."""
    assert [f.code for f in from_json(b'{"sender": "by')[1]] == ["not_json"]


def test_an_update_that_only_references_itself_is_refused() -> None:
    """Dropping the self-reference leaves nothing to update: the earlier warning would go on unnoticed."""
    alert, findings = read(broken([UPDATE, after_scope(f"<references>{SELF}</references>")]))
    assert alert is None
    assert [f.code for f in findings] == ["circular_reference", "missing_references"]


def test_a_flood_of_mistakes_is_bounded() -> None:
    """A hostile message must not buy memory and log space with its mistakes."""
    alert, findings = read(broken([("<status>", "<x/>" * 5000 + "<status>")]))
    assert alert is None
    assert len(findings) == 100


def test_a_finding_names_the_line() -> None:
    """Whoever wrote the message finds the place in the editor."""
    finding = read(broken([("<value>RED", "<value>1")]))[1][0]
    assert finding == Finding(
        "digit_level",
        "info[1]/parameter[1]",
        RED[: RED.index("<parameter>")].count("\n") + 1,
        "'1' is a digit, which stands for red in one feed and blue in another; write red, orange, yellow or blue",
    )


def test_every_code_is_listed_and_every_listed_code_fires_alone() -> None:
    """FINDINGS is the single list: the documentation shows it, and no code in it is dead."""
    fired = {case[0] for case in [*ERRORS, *WARNINGS, *JSON_ERRORS]}
    left = {code for code in FINDINGS if not code.startswith("signature_")}  # test_signature has those
    national = {"not_public", "identifier_disagrees", "title_disagrees"}
    national |= {"not_carried", "national_identifier", "odd_title"}
    assert (
        left - fired == {"too_large", "not_json", "duplicate_key"} | national
    )  # tested on their own, and in test_national
    assert fired <= set(FINDINGS)


def test_a_code_is_always_an_error_or_always_a_warning() -> None:
    """Whoever connects a system decides by the code whether to stop; a code that is both decides nothing."""
    assert {case[0] for case in [*ERRORS, *JSON_ERRORS]} <= set(finding.ERRORS)
    assert {case[0] for case in WARNINGS} <= set(finding.WARNINGS)
    assert not set(finding.ERRORS) & set(finding.WARNINGS)


def test_warnings_never_crowd_out_the_error_that_refuses() -> None:
    """A refusal without a reason cannot be mended, however much else there is to remark on."""
    alert, findings = read(broken([after_scope("<code/>" * 200), ("<value>RED", "<value>1")]))
    assert alert is None
    assert findings[-1].code == "digit_level"
    assert len(findings) == 51


@pytest.mark.parametrize("code", [0x7F, 0x9B, 0xAD, 0x061C, 0x200B, 0x200F, 0x202E, 0x2060, 0x2069, 0xFEFF, 0xE0041])
@pytest.mark.parametrize("read", [form.read_identifier, form.read_sender, form.read_references])
def test_no_name_holds_a_character_nobody_sees(read: Callable[[str], object], code: int) -> None:
    """Two warnings that look the same on the screen and are two: who cancels the one leaves the other in force."""
    hidden = f"4117{chr(code)}26"
    text = f"bypq@mingluo.example,{hidden},2026-07-20T14:30:00+08:00" if read is form.read_references else hidden
    with pytest.raises(Malformed) as caught:
        read(text)
    assert f"U+{code:04X}" in caught.value.message
    assert chr(code) not in caught.value.message
