"""Reading CAP 1.2: good messages in every dress, and bytes that must never get further."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cap import MAX_BYTES, check, read, write
from gateway.model import Alert, Circle, Code, Document, Kind, Level, Point, Status

DATA = Path(__file__).parent / "data" / "cap"
RED = (DATA / "red_rainstorm.xml").read_text(encoding="utf-8")
RING = "32.70,113.30 32.70,113.45 32.82,113.45 32.82,113.30 32.70,113.30"


def good(data: bytes) -> Alert:
    alert, findings = read(data)
    assert alert is not None, findings
    return alert


def codes(data: bytes) -> list[str]:
    return [finding.code for finding in read(data)[1]]


def sample(name: str) -> bytes:
    return (DATA / name).read_bytes()


def test_a_red_rainstorm_is_read_whole() -> None:
    """Every element of the sample lands in its field, times in UTC: nothing a village needs is lost on the way in."""
    alert, findings = read(sample("red_rainstorm.xml"))
    assert findings == []
    assert alert is not None
    info = alert.infos[0]
    assert (alert.kind, alert.document, alert.event_code, alert.event, alert.level) == (
        Kind.ALERT,
        Document.WARNING,
        "11B03",
        "暴雨",
        Level.RED,
    )
    assert alert.sent == alert.effective == datetime(2026, 7, 20, 6, 30, tzinfo=UTC)
    assert alert.sent.tzinfo is UTC
    assert alert.expires == info.expires == datetime(2026, 7, 20, 9, 30, tzinfo=UTC)
    assert info.response_types == ("Evacuate", "Avoid")
    assert info.resources[0].size_bytes == 20480
    area = alert.areas[0]
    assert area.polygons[0][1] == Point(32.70, 113.45)
    assert area.circles == (Circle(Point(32.72, 113.33), 5.0),)
    assert area.geocodes == (Code("township", "411726204"), Code("township", "411726209"))
    assert (area.altitude_ft, area.ceiling_ft) == (300.0, 1800.5)


def test_an_update_names_what_it_replaces() -> None:
    """The references carry the red one's key, so that its queued batches can be stopped.

    The level follows from the severity where no word says it.
    """
    alert = good(sample("update_orange.xml"))
    assert (alert.kind, alert.level, alert.event_code) == (Kind.UPDATE, Level.ORANGE, "11B03")
    red = good(sample("red_rainstorm.xml"))
    assert alert.references == ((red.sender, red.identifier, red.sent),)


def test_a_cancel_needs_no_info() -> None:
    """A bare cancel ends a warning; hazard and level are left for intake to fill in from the alert it names."""
    alert = good(sample("cancel.xml"))
    assert (alert.kind, alert.level, alert.event, alert.event_code) == (Kind.CANCEL, Level.UNKNOWN, "", "")
    assert len(alert.references) == 2
    assert (alert.effective, alert.expires) == (alert.sent, None)


def test_two_languages_make_one_alert() -> None:
    """One alert, named in Chinese, from the earliest start to the latest end.

    Prefixes, comments, CDATA, an enveloped signature and an English part that comes first change nothing.
    """
    alert = good(sample("two_languages.xml"))
    assert alert.status is Status.EXERCISE
    assert (alert.event, alert.level, alert.event_code) == ("暴雨", Level.YELLOW, "11B03")
    assert [info.event for info in alert.infos] == ["Rainstorm", "暴雨"]
    assert alert.infos[0].description == "Drill: heavy rain & wind near Jialou."
    assert alert.effective == datetime(2026, 7, 21, 1, 0, tzinfo=UTC)
    assert alert.expires == datetime(2026, 7, 21, 4, 0, tzinfo=UTC)


def test_a_correction_is_an_update_that_says_so() -> None:
    """A mistake is revoked by a correction (D7); document and level come from parameters and stay there only once."""
    alert = good(sample("evacuation_correction.xml"))
    assert (alert.kind, alert.document, alert.level) == (Kind.CORRECTION, Document.EVACUATION, Level.RED)
    assert alert.infos[0].parameters == ()
    assert b"<msgType>Update</msgType>" in write(alert)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030", "gbk"])
def test_every_declared_encoding_reads_the_same(encoding: str) -> None:
    """County systems send GBK, national ones UTF-16: the text must be the same, never mojibake on a phone."""
    name = {"utf-8-sig": "UTF-8", "utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE"}.get(encoding, encoding)
    data = RED.replace('encoding="UTF-8"', f'encoding="{name}"').encode(encoding)
    assert good(data) == good(RED.encode())


def test_latin_letters_in_iso_8859_1_are_read() -> None:
    """Foreign services declare ISO-8859-1."""
    text = RED.replace("UTF-8", "ISO-8859-1").replace(
        "<headline>泌阳县气象台发布暴雨红色预警", "<headline>Pluie à l'est"
    )
    data = text.encode("iso-8859-1", errors="xmlcharrefreplace")
    info = good(data).infos[0]
    assert (info.headline, info.event) == ("Pluie à l'est", "暴雨")


@pytest.mark.parametrize("word", ["RED", "red", "红", "红色", "Red"])
@pytest.mark.parametrize("name", ["ColorCode", "colour", "color", "level", "severityColor", "alertLevel"])
def test_a_level_is_read_from_its_word(name: str, word: str) -> None:
    """Each feed names the colour its own way; all of them mean red."""
    text = RED.replace("ColorCode", name).replace("<value>RED<", f"<value>{word}<").replace("Extreme", "Unknown")
    assert good(text.encode()).level is Level.RED


def test_a_national_time_is_taken_with_a_warning() -> None:
    """GB/T 35965 writes a blank for the T; refusing it would silence the national platform."""
    data = RED.replace("2026-07-20T15:00:00+08:00", "2026-07-20 15:00:00+08:00").encode()
    alert, findings = read(data)
    assert alert == good(RED.encode())
    assert [(f.code, f.severity) for f in findings] == [("national_date", "warning")]


def test_a_message_that_references_itself_does_not_loop() -> None:
    """Live national feeds do that; the reference is dropped, the warning goes on."""
    own = "bypq@mingluo.example,41172641600000_20260720143000,2026-07-20T14:30:00+08:00"
    data = RED.replace("</scope>", f"</scope><references>{own}</references>").encode()
    assert good(data).references == ()
    assert codes(data) == ["circular_reference"]


def test_a_huge_polygon_passes() -> None:
    """41,009 points, 860 KB, as a real service sends: it must not be refused, and every point must arrive.

    What it costs is measured by `mingluo bench`; that it costs no more than it may is bounded in `test_cap_fuzz`.
    """
    turns = [2 * math.pi * step / 41008 for step in range(41008)]
    points = [f"{32.7 + 0.1 * math.sin(turn):.6f},{113.3 + 0.1 * math.cos(turn):.6f}" for turn in turns]
    alert, findings = read(RED.replace(RING, " ".join([*points, points[0]])).encode())
    assert findings == []
    assert alert is not None
    ring = alert.areas[0].polygons[0]
    assert (len(ring), ring[0], ring[10252]) == (41009, Point(32.7, 113.4), Point(32.8, 113.3))


def test_fifteen_hundred_areas_pass() -> None:
    """National services send one message for a whole country; none of its areas may be lost."""
    areas = "".join(
        f"<area><areaDesc>area {number}</areaDesc><polygon>{RING}</polygon>"
        f"<geocode><valueName>WARNCELLID</valueName><value>{number}</value></geocode></area>"
        for number in range(1500)
    )
    assert len(good(RED.replace("</info>", f"{areas}</info>").encode()).areas) == 1501


def test_midnight_may_be_written_as_the_end_of_a_day() -> None:
    """XML Schema allows 24:00:00, and forecasters end their warnings at 24时."""
    text = RED.replace("2026-07-20T17:30:00+08:00", "2026-07-20T24:00:00+08:00")
    assert good(text.encode()).expires == datetime(2026, 7, 20, 16, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("utf-16", "utf-8"),  # what .NET declares when it writes UTF-8
        ("GB2312", "utf-8"),
        ("GB18030", "utf-8-sig"),
        ("ISO-8859-1", "utf-8"),
        ("ISO-8859-1", "gb18030"),
        ("UTF-8", "utf-16"),
        ("UTF-16BE", "utf-16-le"),
    ],
)
def test_bytes_are_believed_before_their_declaration(declared: str, encoding: str) -> None:
    """A wrong declaration must neither silence the warning nor send strange characters to 10,000 phones."""
    alert, findings = read(RED.replace('encoding="UTF-8"', f'encoding="{declared}"').encode(encoding))
    assert alert == good(RED.encode())
    assert [(f.code, f.line, f.severity) for f in findings] == [("encoding_disagrees", 1, "warning")]


def test_undeclared_gb18030_is_refused_with_the_cure() -> None:
    """Without a declaration XML is UTF-8; guessing further could be wrong for a rare character of a place name."""
    (finding,) = read(RED.replace(' encoding="UTF-8"', "").encode("gb18030"))[1]
    assert finding.code == "wrong_encoding"
    assert "GB18030" in finding.message


@pytest.mark.parametrize("encoding", ["utf-32", "utf-7", "big5"])
def test_other_encodings_are_refused_by_name(encoding: str) -> None:
    """What we do not read is said, not guessed."""
    data = RED.replace("UTF-8", encoding).encode(encoding, errors="xmlcharrefreplace")
    (finding,) = read(data)[1]
    assert finding.code == "wrong_encoding"
    assert encoding in finding.message


@pytest.mark.parametrize("prefix", ["cap", "a", "_"])
def test_any_prefix_reads_the_same(prefix: str) -> None:
    """Some systems prefix every name; the namespace decides, not the letters before the colon."""
    text = re.sub(r"<(/?)(\w)", rf"<\1{prefix}:\2", RED).replace("xmlns=", f"xmlns:{prefix}=")
    assert good(text.encode()) == good(RED.encode())


@pytest.mark.parametrize(
    ("namespace", "version"),
    [("urn:oasis:names:tc:emergency:cap:1.1", "CAP 1.1"), ("http://www.incident.com/cap/1.0", "CAP 1.0")],
)
def test_older_versions_are_named(namespace: str, version: str) -> None:
    """Whoever connects an old system must read at once that it is the version, not the message, that is wrong."""
    (finding,) = read(RED.replace("urn:oasis:names:tc:emergency:cap:1.2", namespace).encode())[1]
    assert (finding.code, version in finding.message) == ("older_cap", True)


def test_an_envelope_is_named() -> None:
    """A feed fetched instead of the alert behind it is a common slip of whoever connects one."""
    (finding,) = read(b"<feed xmlns='http://www.w3.org/2005/Atom'/>")[1]
    assert finding.code == "not_an_alert"
    assert "Atom feed; send the alert inside" in finding.message


@pytest.mark.parametrize("name", ["external_entity.xml", "entity_bomb.xml"])
def test_a_doctype_is_refused_unread(name: str) -> None:
    """Entities could read our files or eat our memory; no official warning needs one."""
    alert, findings = read(sample(name))
    assert alert is None
    assert [(f.code, f.line) for f in findings] == [("entity_forbidden", 2)]


def test_an_external_entity_opens_no_file(tmp_path: Path) -> None:
    """The file the entity names exists beside the message, and still nothing of it comes back."""
    (tmp_path / "secret.txt").write_text("do not read me", encoding="utf-8")
    message = tmp_path / "message.xml"
    text = (DATA / "external_entity.xml").read_text(encoding="utf-8")
    message.write_text(text.replace("secret.txt", (tmp_path / "secret.txt").as_uri()), encoding="utf-8")
    answer = check(message)
    assert answer["valid"] is False
    assert "do not read me" not in str(answer)


def test_a_doctype_hidden_in_utf_16_is_found() -> None:
    """Wide characters must not carry a DOCTYPE past the check."""
    text = (DATA / "entity_bomb.xml").read_text(encoding="utf-8")
    assert codes(text.encode("utf-16")) == ["entity_forbidden"]


def test_the_size_limit_is_4_mib() -> None:
    """Beyond any real warning, and small enough for memory."""
    assert codes(b" " * (MAX_BYTES + 1)) == ["too_large"]


def test_the_number_of_points_is_limited() -> None:
    """A million points fit into 4 MiB, and would take hundreds of times their memory beside a red one."""
    assert codes(RED.replace(RING, "1,1 " * 300_000).encode()) == ["too_large"]


def test_check_answers_for_the_command_line() -> None:
    """Someone who connects a system sees file, verdict, and per error what to write instead and where."""
    answer = check(DATA / "red_rainstorm.xml")
    assert answer == {"file": str(DATA / "red_rainstorm.xml"), "valid": True, "errors": [], "warnings": []}
    assert check(DATA / "red_rainstorm.json")["valid"] is True
    (error,) = check(DATA / "entity_bomb.xml")["errors"]
    assert set(error) == {"code", "element", "line", "message"}


@given(st.binary(max_size=400))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    """The door stays open whatever is thrown at it: each message ends in an alert or in an error."""
    alert, findings = read(data)
    assert (alert is None) == any(finding.severity == "error" for finding in findings)


@given(st.integers(0, len(RED.encode()) - 1), st.binary(max_size=6), st.integers(0, 40))
def test_a_damaged_message_never_raises(at: int, put: bytes, cut: int) -> None:
    """Bytes lost or changed on the line end in findings, not in a crash."""
    data = RED.encode()
    alert, findings = read(data[:at] + put + data[at + cut :])
    assert (alert is None) == any(finding.severity == "error" for finding in findings)


@given(st.sampled_from(["utf-16", "gb18030", "iso-8859-1", "utf-32", "ascii", "utf-7"]), st.binary(max_size=200))
def test_a_declared_encoding_never_raises(encoding: str, tail: bytes) -> None:
    """A wrong declaration is the sender's mistake, not our crash."""
    assert read(f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + tail)[0] is None
