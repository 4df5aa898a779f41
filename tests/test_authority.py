"""Authority, one dimension at a time: what a grant leaves out is refused by name, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Alert, Document, Kind, Level, Status, Target
from gateway.policy import Authority, Issuer, Policy

POLICY = Policy.load(Path(__file__).parent.parent / "config" / "policy")
NOON = datetime(2026, 7, 20, 4, 0, tzinfo=UTC)
NIGHT = datetime(2026, 7, 20, 15, 0, tzinfo=UTC)  # 23:00 in China
JIALOU, TONGSHAN, SUIPING = Target("411726209"), Target("411726204"), Target("411728101")


def body(name: str) -> Issuer:
    found = POLICY.issuer(name)
    assert found is not None
    return found


def granted(*grants: dict[str, Any]) -> Issuer:
    """The county's weather bureau with these grants instead of its own."""
    content = body("411726-qxj").model_dump(mode="json", by_alias=True)
    whole: dict[str, Any] = {"documents": ["warning"], "hazards": ["11B*"], "highest": "red"}
    return Issuer.model_validate(content | {"grant": [whole | grant for grant in grants]})


def warning(issuer: Issuer, **changes: Any) -> Alert:
    alert = Alert(issuer.sender, "1", NOON, Status.ACTUAL, Kind.ALERT, Document.WARNING, "11B03", "暴雨", Level.RED)
    return replace(alert, **changes)


def judge(issuer: Issuer, *targets: Target, at: datetime = NOON, **changes: Any) -> Authority:
    return POLICY.authority(issuer, warning(issuer, **changes), targets or (JIALOU,), at)


ROW = "authority.toml, issuer 411726-qxj"
NARROWER: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("document", {"documents": ["nowcast"]}, {}, f"add a grant with it to {ROW}"),
    ("hazard", {"hazards": ["11B15"]}, {}, f"add the code to hazards of {ROW}, grant 1"),
    ("level", {"highest": "orange"}, {}, f"up to orange, not red; raise highest in {ROW}, grant 1"),
    ("hours", {"hours": {"from": "08:00", "until": "12:00"}}, {}, f"12:00; wait, or change hours in {ROW}, grant 1"),
    ("area", {"areas": ["411726204"]}, {}, f"leave them out, or add the area to areas of {ROW}, grant 1"),
]  # fmt: skip


@pytest.mark.parametrize(("dimension", "grant", "changes", "told"), NARROWER, ids=[row[0] for row in NARROWER])
def test_each_dimension_alone_refuses_and_names_its_row(
    dimension: str, grant: dict[str, Any], changes: dict[str, Any], told: str
) -> None:
    """One key of one grant decides: the officer reads which, and whom to ask, without opening the file."""
    assert judge(granted({})).findings == ()
    found = judge(granted(grant), **changes).findings
    assert [text.split(":")[0] for text in found] == [dimension]
    assert "泌阳县气象局 (411726-qxj)" in found[0]
    assert told in found[0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"document": Document.EVACUATION}, "documents.csv leaves it to 防汛、乡镇; ask one of them"),
        ({"event_code": "11A01", "event": "洪水"}, "hazards.csv leaves it to 水利、水文、防汛; ask one of them"),
    ],
)
def test_a_refusal_never_advises_a_grant_that_could_not_be_written(changes: dict[str, Any], told: str) -> None:
    """At two in the morning the officer telephones the command, and does not edit a file that is then refused."""
    [found] = judge(body("411726-qxj"), **changes).findings
    assert told in found
    assert "add" not in found


def test_channels_outside_the_grant_are_left_out_and_said_so() -> None:
    """A grant for pushes only still warns, by what it may use; the plan says what is missing and which row says so."""
    found = judge(granted({"channels": ["web_push", "noop"]}))
    assert found.findings == ()
    assert [found.permits(name) for name in ("web_push", "noop", "sms_twilio")] == [True, True, False]
    assert found.left_out(["noop", "sms_twilio"]) == (
        f"channel: sms_twilio is left out, for {ROW}, grant 1 does not list it in channels",
    )
    assert judge(granted({})).left_out(["sms_twilio"]) == ()


def test_one_grant_must_cover_document_hazard_level_and_hour_together() -> None:
    """Half of one row and half of another make no authority: red hail at night is in neither."""
    issuer = granted(
        {"hazards": ["11B15"], "highest": "orange"},
        {"hazards": ["11B15"], "hours": {"from": "06:00", "until": "22:00"}},
    )
    assert judge(issuer, event_code="11B15").findings == ()
    assert judge(issuer, event_code="11B15", at=NIGHT).findings[0].startswith("hours: ")
    assert judge(issuer, event_code="11B15", level=Level.ORANGE, at=NIGHT).findings == ()
    assert judge(issuer).findings[0].startswith("hazard: ")
    assert f"{ROW}, grant 1, 2" in judge(issuer).findings[0]


def test_each_target_must_lie_in_the_area_of_a_grant_that_covers_the_rest() -> None:
    """Two townships under two grants are one alert; the channels are those both may use."""
    issuer = granted(
        {"areas": ["411726209"], "channels": ["sms_twilio", "web_push"]},
        {"areas": ["411726204"], "channels": ["web_push", "noop"], "highest": "orange"},
    )
    both = judge(issuer, JIALOU, TONGSHAN, level=Level.ORANGE)
    assert both.findings == ()
    assert both.channels == frozenset({"web_push"})
    assert both.rows == (f"{ROW}, grant 1", f"{ROW}, grant 2")
    assert judge(issuer, JIALOU).rows == (f"{ROW}, grant 1",)
    red = judge(issuer, JIALOU, TONGSHAN).findings
    assert len(red) == 1
    assert red[0].startswith("area: no row lets 泌阳县气象局 (411726-qxj) issue for 411726204;")


def test_hours_may_cross_midnight() -> None:
    """A night duty is one row: from 20:00 until 08:00, in China's time."""
    issuer = granted({"hours": {"from": "20:00", "until": "08:00"}})
    for hour, allowed in ((23, True), (0, False), (11, False), (12, True)):  # UTC; in China 07, 08, 19 and 20 o'clock
        assert (judge(issuer, at=datetime(2026, 7, 20, hour, tzinfo=UTC)).findings == ()) == allowed


def test_a_correction_is_bound_to_no_hour_and_no_level() -> None:
    """A false alarm is taken back within minutes, also by an office that may not warn at night (D7)."""
    issuer = granted({"hours": {"from": "08:00", "until": "20:00"}, "highest": "yellow"})
    assert judge(issuer, kind=Kind.CORRECTION, at=NIGHT).findings == ()
    assert judge(issuer, at=NIGHT).findings
    assert judge(issuer, SUIPING, kind=Kind.CORRECTION, at=NIGHT).findings[0].startswith("area: ")


# --- the sample's own rules (D6, D22) --------------------------------------------------------------------------------


def order(issuer: Issuer, document: Document, *targets: Target) -> tuple[str, ...]:
    alert = warning(issuer, document=document, event_code="11A51", event="山洪灾害", level=Level.UNKNOWN)
    return POLICY.authority(issuer, alert, targets, NOON).findings


def test_a_township_orders_evacuation_and_return_for_its_own_villages_only() -> None:
    """The township knows its bridge is gone; it moves its own people, not its neighbour's, and warns of nothing."""
    own = body("411726209-xzf")
    village = Target("411726209", ("411726209201",))
    for document in (Document.EVACUATION, Document.RETURN):
        assert order(own, document, JIALOU) == order(own, document, village) == ()
        assert order(own, document, JIALOU, TONGSHAN)[0].startswith("area: no row lets 泌阳县贾楼乡人民政府")
    for document in set(Document) - {Document.EVACUATION, Document.RETURN}:
        assert order(own, document, JIALOU)[0].startswith("document: ")


def test_evacuation_is_ordered_by_the_command_and_never_by_a_bureau() -> None:
    """D6: one voice moves people."""
    may = {issuer.id for issuer, _ in POLICY.senders(_evacuation(), (JIALOU,), NOON)}
    assert may == {"4117-fzb", "411726-fzb", "411726209-xzf"}
    for name in ("411726-qxj", "411726-slj", "411726-zrzyj", "411726-yjj"):
        assert order(body(name), Document.EVACUATION, JIALOU)[0].startswith("document: ")


def _evacuation() -> Alert:
    return warning(body("411726-fzb"), document=Document.EVACUATION, event_code="11A51", level=Level.UNKNOWN)


def test_service_texts_keep_to_the_day() -> None:
    """Nobody is taught about haymaking at midnight; a warning of the same bureau goes out at any hour."""
    bureau = body("411726-qxj")
    service: dict[str, Any] = {"document": Document.SERVICE, "level": Level.UNKNOWN}
    assert judge(bureau, **service).findings == ()
    assert "from 07:00 to 21:00 only" in judge(bureau, at=NIGHT, **service).findings[0]
    assert judge(bureau, at=NIGHT).findings == ()


# --- always ----------------------------------------------------------------------------------------------------------

PICK: Callable[..., Any] = st.sampled_from
HOURS = st.tuples(st.integers(0, 23), st.integers(0, 23)).filter(lambda pair: pair[0] != pair[1])


@given(
    documents=st.sets(PICK(Document), min_size=1),
    globs=st.sets(PICK(["11B03", "11B*", "11A*", "11*"]), min_size=1),
    highest=PICK(Level),
    hours=st.none() | HOURS,
    areas=st.none() | st.sets(PICK(["411726204", "411726209", "411726"]), min_size=1),
    document=PICK(Document),
    code=PICK(["11B03", "11B15", "11A01"]),
    level=PICK(Level),
    hour=st.integers(0, 23),
    targets=st.sets(PICK(["411726204", "411726209", "411726101", "411728101"]), min_size=1),
)
def test_nothing_is_allowed_that_one_grant_does_not_say(
    documents: set[Document],
    globs: set[str],
    highest: Level,
    hours: tuple[int, int] | None,
    areas: set[str] | None,
    document: Document,
    code: str,
    level: Level,
    hour: int,
    targets: set[str],
) -> None:
    """Authority fails closed, whatever is combined: judged here a second time, by hand."""
    grant: dict[str, Any] = {"documents": sorted(documents), "hazards": sorted(globs), "highest": highest.name.lower()}
    grant |= {"hours": {"from": f"{hours[0]:02}:00", "until": f"{hours[1]:02}:00"}} if hours else {}
    grant |= {"areas": sorted(areas)} if areas else {}
    issuer = granted(grant)
    now = datetime(2026, 7, 20, hour, 30, tzinfo=UTC)
    found = judge(issuer, *map(Target, targets), at=now, document=document, event_code=code, level=level)
    local = (hour + 8) % 24
    open_now = hours is None or local in [h % 24 for h in range(hours[0], hours[1] + 24 * (hours[1] < hours[0]))]
    said = document in documents and level <= highest and open_now
    said = said and any(code.startswith(glob.rstrip("*")) for glob in globs)
    said = said and all(target.startswith(tuple(areas or {"411726"})) for target in targets)
    assert (not found.findings) == said
    assert all("authority.toml, issuer 411726-qxj" in text for text in found.findings)
