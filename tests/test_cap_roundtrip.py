"""What is written is read back the same, as XML and as JSON; and what is written is always strict CAP 1.2."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cap_schema import faults
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.cap import AlertIn, from_json, read, to_json, write
from gateway.cap.table import CATEGORIES, CERTAINTIES, RESPONSES, URGENCIES
from gateway.model import Alert, Area, Circle, Code, Document, Info, Kind, Level, Point, Reference, Resource, Status

DATA = Path(__file__).parent / "data" / "cap"
START = datetime(2026, 7, 20, 6, 30, tzinfo=UTC)
SEVERITY = {Level.RED: "Extreme", Level.ORANGE: "Severe", Level.YELLOW: "Moderate", Level.BLUE: "Minor"}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30).map(
    lambda text: _CONTROL.sub("", text).strip()
)
lines = texts.filter(bool)
maybe = st.none() | lines
names = st.from_regex(r"[A-Za-z0-9._@-]{1,20}", fullmatch=True)
times = st.integers(-500_000, 500_000).map(lambda seconds: START + timedelta(seconds=seconds))
lats = st.floats(-90, 90, allow_nan=False)
lons = st.floats(-180, 180, allow_nan=False)
points = st.builds(Point, lats, lons)
rings = st.lists(points, min_size=3, max_size=6).map(lambda ring: (*ring, ring[0]))
pairs = st.lists(st.builds(Code, names.map("x".__add__), texts), max_size=3).map(tuple)
words = st.lists(texts.map(lambda text: text.replace('"', "")).map(str.strip).filter(bool), max_size=3).map(tuple)
feet = st.floats(-1000, 10_000)


@st.composite
def areas(draw: st.DrawFn) -> Area:
    altitude = draw(st.none() | feet)
    ceiling = draw(st.none() | feet) if altitude is not None else None
    if altitude is not None and ceiling is not None:
        altitude, ceiling = sorted((altitude, ceiling))
    return Area(
        draw(lines),
        tuple(draw(st.lists(rings, max_size=2))),
        tuple(draw(st.lists(st.builds(Circle, points, st.floats(0, 20_000)), max_size=2))),
        draw(pairs),
        altitude,
        ceiling,
    )


resources = st.builds(
    Resource,
    lines,
    st.just("image/png"),
    st.none() | st.integers(0, 10**12),
    st.sampled_from(
        ["https://mingluo.example/a.png", "cid:a@b", "http://[::1]:8080/%E9%9B%A8?a#b", "http://雨.example", None]
    ),
    st.none() | st.binary(min_size=1, max_size=9).map(lambda content: base64.b64encode(content).decode()),
    st.just("a1" * 20) | st.none(),
)


@st.composite
def infos(draw: st.DrawFn, level: Level, code: str, sent: datetime) -> Info:
    effective = draw(st.none() | times)
    start = effective or sent
    onset = draw(st.none() | st.just(start))
    own = (Code("eventType", code),) if code and draw(st.booleans()) else ()
    word = (Code("ColorCode", level.name),) if level and draw(st.booleans()) else ()
    return Info(
        event=draw(lines),
        language=draw(st.sampled_from(["zh-CN", "en", "zh"])),
        categories=tuple(draw(st.lists(st.sampled_from(CATEGORIES), min_size=1, max_size=2))),
        response_types=tuple(draw(st.lists(st.sampled_from(RESPONSES), max_size=2))),
        urgency=draw(st.sampled_from(URGENCIES)),
        severity=draw(st.sampled_from([SEVERITY[level], "Unknown"])) if level else "Unknown",
        certainty=draw(st.sampled_from(CERTAINTIES)),
        audience=draw(maybe),
        event_codes=own + draw(pairs),
        effective=effective,
        onset=onset,
        expires=draw(st.none() | st.integers(1, 90_000).map(lambda seconds: start + timedelta(seconds=seconds))),
        sender_name=draw(maybe),
        headline=draw(maybe),
        description=draw(maybe),
        instruction=draw(maybe),
        web=draw(st.sampled_from([None, "https://mingluo.example/a?b=1&c=2", "HTTP://a@雨.example:80/~(a)'#"])),
        contact=draw(maybe),
        parameters=word + draw(pairs),
        resources=tuple(draw(st.lists(resources, max_size=1))),
        areas=tuple(draw(st.lists(areas(), max_size=2))),
    )


@st.composite
def alerts(draw: st.DrawFn) -> Alert:
    """Any alert as the readers give it: its own facts agree with its infos, and no policy has touched it yet."""
    kind = draw(st.sampled_from(Kind))
    level = draw(st.sampled_from(Level))
    code = draw(st.sampled_from(["", "11B03", "11A51", "12A00", "00000"]))
    sent = draw(times)
    bare = kind in (Kind.CANCEL, Kind.CORRECTION) and draw(st.booleans())
    parts = () if bare else tuple(draw(st.lists(infos(level, code, sent), min_size=1, max_size=3)))
    derived = next((i.event for i in parts if i.language.startswith("zh")), parts[0].event if parts else "")
    scope = draw(st.sampled_from(["Public", "Restricted", "Private"]))
    earlier = st.builds(Reference, names.map("x".__add__), names, st.just(sent - timedelta(hours=1)))
    return Alert(
        sender=draw(names.map("y".__add__)),
        identifier=draw(names),
        sent=sent,
        status=draw(st.sampled_from(Status)),
        kind=kind,
        document=draw(st.sampled_from(Document)),
        event_code=code,
        event=draw(lines | st.just(derived)) or derived,
        level=level,
        infos=parts,
        references=tuple(draw(st.lists(earlier, min_size=kind is not Kind.ALERT, max_size=2, unique=True))),
        scope=scope,
        source=draw(maybe),
        restriction=draw(lines) if scope == "Restricted" else None,
        addresses=draw(words.filter(bool)) if scope == "Private" else (),
        codes=tuple(draw(st.lists(lines, max_size=2))),
        note=draw(maybe),
        incidents=draw(words),
        effective=min((info.effective or sent for info in parts), default=sent),
        expires=max((info.expires for info in parts if info.expires), default=None),
    )


many = settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow], deadline=None)


@many
@given(alerts())
def test_xml_keeps_every_alert(alert: Alert) -> None:
    """A warning handed on must say exactly what came in, or two counties warn of different things."""
    again, findings = read(write(alert))
    assert [finding for finding in findings if finding.severity == "error"] == []
    assert again == alert


@many
@given(alerts())
def test_what_is_written_is_valid_by_the_official_schema(alert: Alert) -> None:
    """A broadcaster's decoder that checks by the schema would drop our warning without a word."""
    assert faults(write(alert)) == []


@pytest.mark.parametrize("name", [path.name for path in sorted(DATA.glob("*.xml")) if "entity" not in path.name])
def test_the_samples_are_valid_by_the_official_schema(name: str) -> None:
    """What our tests call good is good by the schema, too, as sent and as handed on."""
    data = (DATA / name).read_bytes()
    alert, _ = read(data)
    assert alert is not None
    assert faults(data) == faults(write(alert)) == []


@many
@given(alerts())
def test_json_keeps_every_alert(alert: Alert) -> None:
    """What the API shows can be sent back unchanged."""
    again, findings = from_json(to_json(alert))
    assert [finding for finding in findings if finding.severity == "error"] == []
    assert again == alert


@pytest.mark.parametrize("name", [path.name for path in sorted(DATA.iterdir()) if "entity" not in path.name])
def test_the_samples_survive_both_forms(name: str) -> None:
    """XML to JSON and back is the same alert, with the same id."""
    data = (DATA / name).read_bytes()
    alert, _ = from_json(data) if name.endswith("json") else read(data)
    assert alert is not None
    through, _ = from_json(to_json(alert))
    assert through is not None
    back, _ = read(write(through))
    assert back == alert
    assert back.id == alert.id


@given(st.text(max_size=60))
def test_odd_text_still_makes_a_valid_message(text: str) -> None:
    """Control characters and half emoji in a typed text must not make a feed that nobody can read."""
    info = Info(event=text, headline=text, description=text, parameters=(Code(text, text),), areas=(Area(text),))
    alert = Alert("a@b", "1", START, Status.ACTUAL, Kind.ALERT, Document.WARNING, "11B03", text, Level.RED, (info,))
    assert faults(write(alert)) == []
    to_json(alert)


def test_written_times_follow_the_strict_pattern() -> None:
    """CAP allows neither Z nor a fraction; strict receivers would drop the warning."""
    info = Info(event="暴雨", effective=START, expires=START + timedelta(hours=3, microseconds=5))
    alert = Alert("a@b", "1", START, Status.ACTUAL, Kind.ALERT, Document.WARNING, "11B03", "暴雨", Level.RED, (info,))
    found = re.findall(rb"<(?:sent|effective|expires)>([^<]+)<", write(alert))
    assert found == [b"2026-07-20T14:30:00+08:00", b"2026-07-20T14:30:00+08:00", b"2026-07-20T17:30:00+08:00"]
    with pytest.raises(ValueError, match="offset"):
        write(replace(alert, sent=datetime(2026, 7, 20)))


def test_an_expiry_set_by_policy_is_published() -> None:
    """Whoever reads our feed must know when the warning lapses, even if its issuer did not say."""
    alert, _ = read((DATA / "evacuation_correction.xml").read_bytes())
    assert alert is not None
    timed = replace(alert, expires=START + timedelta(hours=6), policy_digest="abc")
    again, _ = read(write(timed))
    assert again is not None
    assert again.infos[0].expires == timed.expires
    assert b"abc" not in write(timed) + to_json(timed)


def test_a_minimal_json_alert_is_enough() -> None:
    """A small bureau's script states ten facts and the village is warned; the severity follows from the colour."""
    alert, findings = from_json((DATA / "red_rainstorm.json").read_bytes())
    assert findings == []
    assert alert is not None
    assert (alert.level, alert.event_code, alert.event, alert.document) == (
        Level.RED,
        "11B03",
        "暴雨",
        Document.WARNING,
    )
    assert (alert.infos[0].severity, alert.infos[0].language) == ("Extreme", "zh-CN")
    assert alert.expires == datetime(2026, 7, 20, 9, 30, tzinfo=UTC)


def test_the_json_schema_describes_the_form() -> None:
    """The OpenAPI description is made of it: closed, with the required keys and the words allowed."""
    schema: dict[str, Any] = AlertIn.model_json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"sender", "identifier", "sent", "status", "kind"}
    assert schema["properties"]["status"]["enum"] == list(Status)


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_arbitrary_bytes_are_never_a_json_alert(data: bytes) -> None:
    """The JSON door stays open whatever is thrown at it."""
    alert, findings = from_json(data)
    assert alert is None
    assert findings


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(sorted(AlertIn.model_fields)),
)
def test_any_value_in_any_field_never_raises(value: object, name: str) -> None:
    """A field of the wrong shape is a finding at its path."""
    message = json.loads((DATA / "red_rainstorm.json").read_bytes()) | {name: value}
    alert, findings = from_json(json.dumps(message).encode())
    assert (alert is None) == any(finding.severity == "error" for finding in findings)
