"""The policy: wrong files refused with file, key and fix; authority fails closed; few things only are green."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.model import Alert, Document, Group, Info, Kind, Level, Notice, Reference, Status, Target
from gateway.policy import Issuer, Policy, Succession, explain
from gateway.standing import Standing

SAMPLE = Path(__file__).parent.parent / "config" / "policy"
PLAN = Path(__file__).parent / "data" / "plan.toml"


def copied(to: Path) -> Path:
    """Copy the sample policy with a plan of the tests' own: counties change theirs."""
    shutil.copytree(SAMPLE, to)
    shutil.copy(PLAN, to / "plan.toml")
    return to


with TemporaryDirectory() as scratch:
    POLICY = Policy.load(copied(Path(scratch) / "policy"))
NOON = datetime(2026, 7, 20, 4, 0, tzinfo=UTC)  # 12:00 in China
NIGHT = datetime(2026, 7, 20, 15, 0, tzinfo=UTC)  # 23:00 in China
BIYANG = (Target("411726101"), Target("411726102"))
SUIPING = (Target("411728101"),)


def judged(issuer: Issuer, alert: Alert, targets: tuple[Target, ...], now: datetime = NOON) -> list[str]:
    return list(POLICY.authority(issuer, alert, targets, now).findings)


def body(name: str) -> Issuer:
    found = POLICY.issuer(name)
    assert found is not None
    return found


QXJ, FZB, CITY = body("411726-qxj"), body("411726-fzb"), body("4117-qxt")


def warning(**changes: Any) -> Alert:
    alert = Alert(
        sender=QXJ.sender,
        identifier="41172641600000_20260720120000",
        sent=NOON,
        status=Status.ACTUAL,
        kind=Kind.ALERT,
        document=Document.WARNING,
        event_code="11B03",
        event="暴雨",
        level=Level.RED,
    )
    return replace(alert, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied(tmp_path / "policy")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        Policy.load(folder)
    return str(caught.value)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("green.toml", "lowest =", "lowset =", "green.toml: lowset: unknown key; rename it to lowest"),
        ("plan.toml", "lane =", "lain =", "plan.toml: row[0].lain: unknown key; rename it to lane"),
        ("quiet.toml", "from =", "start =", "quiet.toml: from: missing; add the key"),
        ("defaults.toml", "within_min = 5", "within = 5", "confirm[0].within: unknown key; rename it to within_min"),
        ("authority.toml", 'highest = "red"', "highest = 1", "issuer[0].grant[0].highest: not a level; use one of"),
        ("authority.toml", '"11B*"', '"99Z*"', "no hazard matches 99Z*; add it to hazards.csv"),
        ("authority.toml", '"411702"', '"411802"', "ceiling 411802 lies outside its areas"),
        (
            "tokens.toml",
            'issuer = "411726-qxj"',
            'issuer = "411726-xqj"',
            "token.issuer: 411726-xqj is not in authority",
        ),
        ("plan.toml", 'channels = ["sms_twilio"', 'channels = ["sms_twillio"', "sms_twillio is not declared"),
        ("plan.toml", 'channels = ["web_push"]', 'channels = ["loudspeaker"]', "cannot serve subscribers"),
        ("plan.toml", 'group = "officials"', 'group = "residents"', "lane green is reserved for officials"),
        (
            "plan.toml",
            'lane = "green"',
            'lane = "green"\nstart_after_s = 9',
            "officials and loudspeakers start at once",
        ),
        ("plan.toml", '"return"]\ngroup = "officials"', ']\ngroup = "officials"', "return red: no row for officials"),
        ("plan.toml", 'channels = ["web_push"]', 'channels = ["web_push", "web_push"]', "in two rows; keep one"),
        ("plan.toml", '"sms_cmpp", "sms_http"', '"sms_cmpp", "sms_cmpp"', "sms_cmpp is the road of one pool only"),
        (
            "plan.toml",
            '"sms_cmpp", "sms_http"',
            '"sms_twilio"',
            "sms_twilio is the road of one pool only, and no channel",
        ),
        ("plan.toml", '"sms_cmpp", "sms_http"', '"cmpp"', "cmpp: a road of sms is named sms_…; remove it"),
        (
            "lint.toml",
            'missing_part = "error"',
            'signature = [{ unit = "x", account = "sms_cmpp", carrier = "mobile", status = "pending" }]',
            "lint.toml: signature.unit: x is no issuer of authority.toml",
        ),
        (
            "lint.toml",
            'missing_part = "error"',
            'signature = [{ unit = "411726-qxj", account = "sms_cmpp", carrier = "china", status = "pending" }]',
            "signature[0].carrier",
        ),
        ("quiet.toml", '"residents", "loudspeakers"', '"officials"', "officials are never delayed"),
        ("quiet.toml", '"yellow"', '"red"', "red is never delayed, except its all-clear"),
        ("quiet.toml", '"joint_risk"', '"evacuation"', "an evacuation instruction is never delayed"),
        ("quiet.toml", 'from = "22:00"', 'from = "05:00"', "expected until <= resume < from"),
        ("green.toml", '"nowcast"', '"evacuation"', "moves people and never uses the green channel"),
        ("defaults.toml", '"officials", "loudspeakers"', '"residents"', "a drill reaches officials and loudspeakers"),
        ("defaults.toml", "4117-qxt = 20", "4117-xxx = 20", "limits.issuers: 4117-xxx is not in authority.toml"),
        ("defaults.toml", "[[expires]]\nhours = 24\n", "", "end with a row that has hours only"),
        ("hazards.csv", "code,zh", "code,name,zh", "hazards.csv:3: name: unknown column; remove it, or use one of"),
        ("hazards.csv", ",bureaus", ",bureau", "hazards.csv:3: bureau: unknown column; rename it to bureaus"),
        ("hazards.csv", "code,zh", "code", "hazards.csv:3: missing column zh"),
        ("hazards.csv", "11A01,洪水,flood,", "11A01,洪水,", "hazards.csv:6: expected 4 cells"),
        ("hazards.csv", "11A01,", "11-A1,", "hazards.csv:6: code:"),
        ("levels.csv", ",11B01,blue", ",11B01,4", "levels.csv:9: level: not a level; use one of"),
        ("levels.csv", ",11B01,blue", ",11B01,unknown", "unknown is no colour; use blue"),
        ("levels.csv", "2007-06-12", "2007-6-1", "levels.csv:9: since:"),
        ("levels.csv", "2007-06-12", "2007-06-13", "order-16-2007: has several days in since"),
        ("levels.csv", ",11B01,blue", ",11B01,red", "national order-16-2007: 11B01 red is listed twice; keep one row"),
        ("levels.csv", ",11B01,blue", ",11B77,blue", "no hazard matches 11B77; add it to hazards.csv"),
        ("defaults.toml", 'table = "henan"', 'table = "hunan"', "levels.table: hunan is not in levels.csv; use henan"),
        ("defaults.toml", '"11A01"]\ntable', '"11A02"]\ntable', "no row says which table counts for 11A01"),
        ("documents.csv", "evacuation,", "evakuation,", "documents.csv:7: document:"),
        ("documents.csv", "return,", "evacuation,", "documents.csv: evacuation: listed twice; keep one row"),
        ("documents.csv", "return,返回通知,return notice,防汛|乡镇\n", "", "documents.csv: return: missing; add a row"),
        (
            "authority.toml",
            'documents = ["warning", "nowcast"]',
            'documents = ["warning", "evacuation"]',
            "issuer 4117-qxt, grant 1: evacuation is issued by 防汛、乡镇 only, not by 气象",
        ),
        (
            "authority.toml",
            'hazards = ["11B*"]',
            'hazards = ["11*"]',
            "issuer 4117-qxt, grant 1: warning of 11A00 水旱灾害 is issued by 水利、水文、防汛 only, not by 气象",
        ),
        (
            "authority.toml",
            'bureau = "乡镇"\nareas = ["411726204"]',
            'bureau = "乡镇"\nareas = ["411726"]',
            "issuer 411726204-xzf: area 411726 is wider than a township",
        ),
        (
            "authority.toml",
            'highest = "red"',
            'highest = "red"\nareas = ["4128"]',
            "issuer 4117-qxt, grant 1: area 4128 lies outside the issuer's areas",
        ),
        (
            "authority.toml",
            'highest = "red"',
            'highest = "red"\nchannels = ["sms_twillio"]',
            "issuer 4117-qxt, grant 1: channels: sms_twillio is not declared in plan.toml",
        ),
        (
            "procedure.toml",
            '"气象", "水利"',
            '"气像", "水利"',
            "joint.bureaus: no issuer of authority.toml is of bureau 气像",
        ),
        ("procedure.toml", 'hazards = ["11A51"]', 'hazards = ["11A5"]', "joint.hazards: no hazard matches 11A5"),
        ("authority.toml", 'until = "21:00"', 'until = "07:00"', "from and until are the same; leave hours out"),
        ("authority.toml", 'until = "21:00"', 'till = "21:00"', "grant[2].hours.till: unknown key; rename it to until"),
        (
            "authority.toml",
            'bureau = "水利"\nareas',
            'bureau = "水利"\ngreen = true\nareas',
            "green, but no grant covers",
        ),
        ("green.toml", '"11B04", #', '"11B04", "11D02", #', "hazards: 11D02: no issuer with green = true may send it"),
        ("hazards.csv", "11B04,", "11B03,", "hazards.csv: 11B03: listed twice"),
        ("green.toml", "documents = [", "documents = ", "green.toml: not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_file_key_and_fix(folder: Path, file: str, old: str, new: str, told: str) -> None:
    """A typo found at start costs a minute; found on a flood night it costs a village its warning."""
    edit(folder / file, old, new)
    message = refusal(folder)
    assert told in message


def test_a_missing_or_misnamed_file_is_refused(folder: Path) -> None:
    """A misspelt quiet.toml must not silently mean "no quiet hours"."""
    (folder / "quiet.toml").rename(folder / "qiuet.toml")
    message = refusal(folder)
    assert "quiet.toml: file is missing" in message
    assert "qiuet.toml: unknown file" in message


def test_a_refusal_never_prints_a_token_digest(folder: Path) -> None:
    """Errors end in logs and on screens; nothing secret may follow them there."""
    digest = POLICY.tables.tokens.token[0].sha256
    edit(folder / "tokens.toml", digest, f"{digest}0")
    assert digest not in refusal(folder)


def test_the_digest_ignores_order_and_layout(folder: Path) -> None:
    """An alert is judged a year later by its policy's digest: moving rows about must not look like a new policy."""
    for name, rows in (("hazards.csv", "\ncode,"), ("levels.csv", "\ntable,"), ("documents.csv", "\ndocument,")):
        above, head, below = (folder / name).read_text(encoding="utf-8").partition(rows)
        first, *lines = below.splitlines()
        (folder / name).write_text(
            "\n".join([above, "# One more word", head.strip() + first, *reversed(lines)]), "utf-8"
        )
    edit(folder / "defaults.toml", "# Defaults", "# Other words\n# Defaults")
    head, *issuers = (folder / "authority.toml").read_text(encoding="utf-8").split("[[issuer]]")
    text = "[[issuer]]".join([head, *(block + "\n" for block in reversed(issuers))])
    (folder / "authority.toml").write_text(text, encoding="utf-8")
    assert Policy.load(folder).digest == POLICY.digest
    edit(folder / "defaults.toml", "hours = 6", "hours = 5")
    assert Policy.load(folder).digest != POLICY.digest


def test_a_stored_policy_comes_back_the_same() -> None:
    """The digest names exactly these bytes, and they answer every question as the files did."""
    stored = POLICY.to_bytes()
    assert hashlib.sha256(stored).hexdigest() == POLICY.digest
    again = Policy.from_bytes(stored)
    assert again == POLICY
    assert again.to_bytes() == stored


def test_a_damaged_stored_policy_is_refused() -> None:
    """Bytes from the store are checked as files are."""
    content = json.loads(POLICY.to_bytes())
    content["green"]["hazardz"] = []
    for damaged in (b"", b"{}", json.dumps(content).encode()):
        with pytest.raises(ConfigError):
            Policy.from_bytes(damaged)


def test_the_plan_may_only_name_channels_that_exist() -> None:
    """A channel in the plan without a file would be a road that is never taken."""
    POLICY.check_channels({"sms_twilio", "loudspeaker", "web_push", "noop", "other"})
    with pytest.raises(ConfigError, match="no such channel: web_push"):
        POLICY.check_channels({"sms_twilio", "loudspeaker", "noop"})


# --- principals and issuers ------------------------------------------------------------------------------------------


def test_a_demo_token_opens_nothing_outside_simulation() -> None:
    """The demo tokens are printed in the file; a live installation must not know them."""
    token = "demo-411726-qxj-issuer"
    assert POLICY.principal(token) is None
    found = POLICY.principal(token, simulation=True)
    assert found is not None
    assert (found.role, found.issuer, found.demo) == ("issuer", "411726-qxj", True)


@given(st.text(st.characters(), max_size=80))
@example("\udcff")
def test_no_other_text_is_a_principal(token: str) -> None:
    """Only the digest of the whole token counts, whatever characters it holds."""
    known = {row.sha256 for row in POLICY.tables.tokens.token}
    text = token.encode("utf-8", "surrogatepass")
    assert (POLICY.principal(token, simulation=True) is not None) == (hashlib.sha256(text).hexdigest() in known)


def test_an_issuer_is_found_by_id_and_by_cap_sender() -> None:
    """Both the console (id) and a CAP feed (sender) must lead to the same rows."""
    assert POLICY.issuer("411726-qxj@mingluo.example") is POLICY.issuer("411726-qxj") is not None
    assert POLICY.issuer("nobody@mingluo.example") is None
    assert QXJ.signature == "泌阳县气象局"


def test_every_shipped_issuer_has_a_second_person_where_it_has_a_first() -> None:
    """Nobody approves their own: an issuer with one demo person only could never send on the normal road."""
    roles: dict[str, set[str]] = {}
    for row in POLICY.tables.tokens.token:
        roles.setdefault(row.issuer, set()).add(row.role)
    assert all("signer" in held for held in roles.values() if "issuer" in held)


# --- authority -------------------------------------------------------------------------------------------------------


def test_an_entitled_issuer_has_no_findings() -> None:
    """The daily case: the county bureau warns its own townships."""
    assert judged(QXJ, warning(), BIYANG) == []
    order = warning(sender=FZB.sender, document=Document.EVACUATION, event_code="11A51", event="山洪灾害")
    assert judged(FZB, order, BIYANG) == []


@pytest.mark.parametrize(
    ("changes", "targets", "missing"),
    [
        ({"document": Document.EVACUATION}, BIYANG, "document: no row lets 泌阳县气象局 (411726-qxj) issue evacuation"),
        ({"document": Document.RETURN}, BIYANG, "document: no row lets"),
        ({"event_code": "11A01", "event": "洪水"}, BIYANG, "hazard: no row lets"),
        ({"event_code": "00000", "event": "测试"}, BIYANG, "hazard: no row lets"),
        (
            {"document": Document.SERVICE},
            BIYANG,
            "level: 泌阳县气象局 (411726-qxj) may issue service up to unknown, not red",
        ),
        ({}, (*BIYANG, *SUIPING), "area: no row lets 泌阳县气象局 (411726-qxj) issue for 411728101"),
        ({"sender": "411728-qxj@mingluo.example"}, BIYANG, "sender: the message names another sender"),
    ],
)
def test_a_refusal_names_the_missing_row(changes: dict[str, Any], targets: tuple[Target, ...], missing: str) -> None:
    """The officer must see at once whether to ask another bureau or to have a row added."""
    found = judged(QXJ, warning(**changes), targets)
    assert len(found) == 1
    assert found[0].startswith(missing)
    assert "411726-qxj" in found[0]


@pytest.mark.parametrize(("kind", "refused"), [(Kind.UPDATE, True), (Kind.CANCEL, True), (Kind.CORRECTION, False)])
def test_only_the_original_issuer_changes_or_ends_its_warning(kind: Kind, refused: bool) -> None:
    """The city must not end the county's red by mistake; a false alarm, though, anyone entitled may revoke."""
    theirs = Reference(QXJ.sender, "41172641600000_20260720110000", NOON - timedelta(hours=1))
    found = judged(CITY, warning(sender=CITY.sender, kind=kind, references=(theirs,)), BIYANG)
    assert [text.split(":")[0] for text in found] == (["original"] if refused else [])
    own = theirs._replace(sender=CITY.sender)
    assert judged(CITY, warning(sender=CITY.sender, kind=kind, references=(own,)), BIYANG) == []


def test_an_unknown_hazard_code_is_no_refusal_but_other_rows_still_count() -> None:
    """A code nobody knows is held for a person; it opens neither other documents nor other counties."""
    odd = warning(event_code="11B77", event="新灾种")
    assert judged(QXJ, odd, BIYANG) == []
    assert len(judged(QXJ, replace(odd, document=Document.RETURN), SUIPING)) == 2


def test_a_whole_township_is_not_covered_by_a_village_grant() -> None:
    """A township order for one village must not grow into the whole township."""
    narrow = QXJ.model_copy(update={"areas": ("411726101201",)})
    assert judged(narrow, warning(), (Target("411726101"),))
    assert judged(narrow, warning(), (Target("411726101", ("411726101201",)),)) == []


def test_targets_only_touched_beyond_the_border_are_cut_not_refused() -> None:
    """A polygon that brushes the neighbour must neither warn the neighbour nor stop the warning (D26)."""
    touched, named = Target("411728102", certain=False), Target("411728101")
    kept, cut = POLICY.border(QXJ, (*BIYANG, touched, named))
    assert kept == (*BIYANG, named)
    assert cut == (touched,)


# --- routes ----------------------------------------------------------------------------------------------------------


def test_a_red_rainstorm_of_the_county_is_green() -> None:
    """绿色通道: no approval stands between the forecaster and the village."""
    route = POLICY.route(warning(), QXJ, BIYANG, NOON)
    assert (route.kind, route.held, route.over_ceiling, bool(route.needs)) == ("green", (), (), False)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": Kind.CANCEL}, "cancel: an all-clear needs a second person"),
        ({"kind": Kind.UPDATE}, "update: it references no live version"),
        ({"event_code": "11B09", "event": "高温"}, "hazard: 11B09 is not on"),
        ({"document": Document.JOINT_RISK}, "document: joint_risk does not use the green channel"),
        ({"event_code": "11B77", "event": "新灾种"}, "hazard: code '11B77' is not in hazards.csv"),
        ({"event_code": "11B15", "event": "冰雹", "level": Level.BLUE}, "colour: blue does not exist for 冰雹"),
        ({"level": Level.UNKNOWN}, "colour: the warning names no colour"),
        ({"event": "雷暴大风"}, "hazard: the name '雷暴大风' is not that of 11B03"),
        ({"document": Document.NOWCAST, "event": "大风"}, "hazard: the name '大风' is not that of 11B03"),
    ],
)
def test_what_is_not_green_says_why(changes: dict[str, Any], why: str) -> None:
    """Everything else waits for a second person, and the screen says for what."""
    route = POLICY.route(warning(**changes), QXJ, BIYANG, NOON)
    assert route.kind == "normal"
    assert bool(route.needs)
    assert any(reason.startswith(why) for reason in route.reasons)
    assert bool(route.held) == why.startswith(("colour", "hazard: code", "hazard: the name"))


def test_an_issuer_without_preauthorisation_is_never_green() -> None:
    """The channel is for named bodies, not for whoever holds a token."""
    water = body("411726-slj")
    alert = warning(sender=water.sender)
    assert POLICY.route(alert, water, BIYANG, NOON).kind == "normal"


def test_an_area_that_resolved_to_nothing_is_held_loudly() -> None:
    """An empty area must ring a bell, not vanish as a plan without steps."""
    route = POLICY.route(warning(), QXJ, (), NOON)
    assert route.kind == "normal"
    assert any("no township was recognised" in text for text in route.held)


@pytest.mark.parametrize("document", [Document.EVACUATION, Document.RETURN, Document.SERVICE, Document.RESPONSE])
def test_an_instruction_without_a_hazard_code_rings_no_bell(document: Document) -> None:
    """A false alarm in the duty room for every education text would teach people to ignore the bell."""
    alert = warning(sender=FZB.sender, document=document, event_code="", event="", level=Level.UNKNOWN)
    assert POLICY.route(alert, FZB, BIYANG, NOON).held == ()
    assert POLICY.route(replace(alert, document=Document.WARNING), FZB, BIYANG, NOON).held


@pytest.mark.parametrize(
    ("old", "new", "entering", "leaving", "kind", "downgrade"),
    [
        (Level.ORANGE, Level.RED, (), (), "green", False),
        (Level.RED, Level.RED, BIYANG[1:], (), "green", False),
        (Level.RED, Level.RED, (), (), "normal", False),
        (Level.RED, Level.ORANGE, (), (), "normal", True),
        (Level.RED, Level.ORANGE, BIYANG[1:], (), "normal", True),
        (Level.ORANGE, Level.RED, (), BIYANG[1:], "normal", False),
    ],
)
def test_only_updates_that_raise_or_extend_are_green(
    old: Level, new: Level, entering: tuple[Target, ...], leaving: tuple[Target, ...], kind: str, downgrade: bool
) -> None:
    """Taking protection away needs a second person, whatever else the update brings (D7)."""
    past = Succession((warning(level=old),), entering, leaving)
    route = POLICY.route(warning(kind=Kind.UPDATE, level=new), QXJ, BIYANG, NOON, past)
    assert (route.kind, route.downgrade) == (kind, downgrade)


def test_a_longer_validity_extends() -> None:
    """继续发布: the storm lasts, and the village must not hear of the end before it hears of the longer night."""
    past = Succession((warning(expires=NOON + timedelta(hours=3)),))
    longer = warning(kind=Kind.UPDATE, expires=NOON + timedelta(hours=6))
    assert POLICY.route(longer, QXJ, BIYANG, NOON, past).kind == "green"
    shorter = warning(kind=Kind.UPDATE, expires=NOON + timedelta(hours=2))
    assert POLICY.route(shorter, QXJ, BIYANG, NOON, past).kind == "normal"


def test_a_signers_correction_needs_no_second_person_and_is_never_held_or_green() -> None:
    """A false alarm is taken back within minutes by any signer, even if the mistake was its hazard code."""
    mistake = Succession((warning(event_code="11B77"),))
    route = POLICY.route(warning(kind=Kind.CORRECTION, event_code="11B77"), QXJ, BIYANG, NOON, mistake, signer=True)
    assert (route.kind, bool(route.needs), route.held) == ("normal", False, ())


@pytest.mark.parametrize("emergency", [False, True])
def test_anybody_elses_correction_waits_for_a_signer_whatever_else_is_in_force(emergency: bool) -> None:
    """Who may only write must not tell a county that its red warning was never true."""
    mistake = Succession((warning(),))
    route = POLICY.route(warning(kind=Kind.CORRECTION), QXJ, BIYANG, NOON, mistake, emergency=emergency)
    assert (route.kind, route.needs) == ("normal", (Standing.SIGN,))
    assert "telephone authorisation" in route.held[0]


@pytest.mark.parametrize("emergency", [False, True])
def test_a_correction_of_nothing_that_went_out_waits_for_a_signer(emergency: bool) -> None:
    """A word that opens every level at every hour must not carry a text that no warning came before."""
    route = POLICY.route(warning(kind=Kind.CORRECTION), QXJ, BIYANG, NOON, emergency=emergency)
    assert (route.kind, route.needs[-1]) == ("normal", Standing.SIGN)
    assert route.held[0].startswith("correction:")


def test_the_emergency_regime_sends_nobody_home() -> None:
    """Moved people go back on a signed return notice only, whatever is in force (D7, D8)."""
    command = body("411726-fzb")
    notice = warning(document=Document.RETURN, sender=command.sender, level=Level.RED)
    assert POLICY.route(notice, command, BIYANG, NOON, emergency=True).needs == (Standing.SIGN,)
    order = warning(document=Document.EVACUATION, sender=command.sender, level=Level.RED)
    assert POLICY.route(order, command, BIYANG, NOON, emergency=True).kind == "emergency"


@given(
    status=st.sampled_from([s for s in Status if s is not Status.ACTUAL]),
    kind=st.sampled_from(Kind),
    level=st.sampled_from(Level),
)
def test_what_is_not_actual_is_always_a_drill_with_a_second_person(status: Status, kind: Kind, level: Level) -> None:
    """The worst mistake of all is a test that leaves as a real warning (rule 3)."""
    route = POLICY.route(warning(status=status, kind=kind, level=level), QXJ, BIYANG, NOON)
    assert (route.kind, bool(route.needs)) == ("drill", True)
    assert (status is Status.DRAFT) == any(text.startswith("draft:") for text in route.held)


@given(
    status=st.sampled_from(Status),
    kind=st.sampled_from(Kind),
    document=st.sampled_from(Document),
    code=st.sampled_from([*POLICY.tables.hazard_by_code, "11B77", ""]),
    level=st.sampled_from(Level),
    issuer=st.sampled_from(POLICY.issuers),
    before=st.none() | st.sampled_from(Level),
    reduced=st.booleans(),
    issued=st.integers(0, 100),
)
def test_green_is_never_wider_than_its_table(
    status: Status,
    kind: Kind,
    document: Document,
    code: str,
    level: Level,
    issuer: Issuer,
    before: Level | None,
    reduced: bool,
    issued: int,
) -> None:
    """Whatever is combined: green only for what the table lists, and no count of alerts changes the way of red."""
    alert = warning(sender=issuer.sender, status=status, kind=kind, document=document, event_code=code, level=level)
    past = None if before is None else Succession((warning(level=before),), (), BIYANG[1:] if reduced else ())
    route = POLICY.route(alert, issuer, BIYANG, NOON, past, issued)
    if route.kind == "green":
        assert alert.actual
        assert kind is Kind.ALERT or (kind is Kind.UPDATE and before is not None and level > before and not reduced)
        assert issuer.green
        assert code in POLICY.tables.green.hazards
        assert document is not Document.WARNING or POLICY.colour_exists(code, level, issuer, NOON)
    if level is Level.RED:
        unhurried = POLICY.route(alert, issuer, BIYANG, NOON, past)
        assert (route.kind, route.held) == (unhurried.kind, unhurried.held)


def test_an_exercise_at_night_is_held() -> None:
    """A drill that wakes a county at 23:00 teaches people to ignore the next one (D19)."""
    drill = warning(status=Status.EXERCISE)
    assert POLICY.route(drill, QXJ, BIYANG, NOON).held == ()
    assert "08:00 to 20:00" in POLICY.route(drill, QXJ, BIYANG, NIGHT).held[0]


def test_above_the_ceiling_part_goes_and_the_rest_is_named() -> None:
    """The city's own districts are served at once; the other counties wait for a countersign (D5)."""
    inside, outside = Target("411702101"), Target("411726101", certain=False)
    alert = warning(sender=CITY.sender)
    route = POLICY.route(alert, CITY, (inside, outside), NOON)
    assert (route.kind, route.over_ceiling, route.needs) == ("green", (outside,), ())
    assert route.held[0].startswith("over_ceiling: 1 township")
    assert POLICY.route(alert, CITY, (outside,), NOON).kind == "normal"


def test_a_limit_alarms_but_never_blocks_red() -> None:
    """On a bad night the thirtieth red is as urgent as the first (D5)."""
    red = POLICY.route(warning(), QXJ, BIYANG, NOON, issued_last_hour=10_000)
    assert (red.kind, red.held, red.needs) == ("green", (), ())
    assert red.alarms
    orange = POLICY.route(warning(level=Level.ORANGE), QXJ, BIYANG, NOON, issued_last_hour=10)
    assert orange.kind == "normal"
    assert "one more tap" in orange.held[0]
    assert POLICY.route(warning(level=Level.ORANGE), QXJ, BIYANG, NOON, issued_last_hour=9).alarms == ()


def test_an_explanation_says_why_and_who() -> None:
    """The preview answers the officer's two questions before anything is sent."""
    told = explain(POLICY, warning(), QXJ, BIYANG, NOON)
    assert told.allowed
    text = str(told)
    assert "route: green" in text
    assert "needs no second person" in text
    assert "authority.toml, issuer 411726-qxj, grant 1 (warning, nowcast; 11B*; up to red)" in text
    assert "hazards.csv, 11B03 暴雨 rainstorm (气象)" in text
    assert "levels.csv, henan order-128-2010, 11B03 red" in text
    assert "to officials by sms_twilio: lane green, at once" in text
    assert "call-and-confirm: officials answer, next rung after 5 minutes" in text
    order = explain(POLICY, warning(document=Document.EVACUATION), QXJ, BIYANG, NOON)
    assert not order.allowed
    assert "refused: document:" in str(order)
    assert "may be sent by: 驻马店市防汛抗旱指挥部, 泌阳县防汛抗旱指挥部" in str(order)


def test_an_explanation_names_who_may_pass_each_stage() -> None:
    """At 02:30 the officer must see whom to wake: the signer, the deputy after a while, the partner of a joint one."""
    heat = explain(POLICY, warning(event_code="11B09", event="高温"), QXJ, BIYANG, NOON)
    assert [str(stage) for stage in heat.stages] == [
        "sign: 泌阳带班领导 (signer); after 3 minutes also signers of 4117-qxt"
    ]
    assert "procedure.toml, approval row 1" in heat.rows
    joint = warning(document=Document.JOINT_RISK, event_code="11B37", event="地质灾害气象风险")
    first = explain(POLICY, joint, QXJ, BIYANG, NOON).stages[0]
    assert (first.stage, first.by) == ("partner", ("泌阳县自然资源局",))
    above = explain(POLICY, warning(sender=CITY.sender), CITY, (Target("411702101"), *BIYANG), NOON)
    assert [stage.stage for stage in above.stages] == ["countersign"]
    assert above.stages[0].by == ("市台首席 (signer)",)


def test_an_explanation_says_why_it_is_not_green_and_what_waits_for_the_morning() -> None:
    """Before a yellow at night, the officer sees that residents and loudspeakers hear of it at 06:30."""
    told = explain(POLICY, warning(event_code="11B09", event="高温", level=Level.YELLOW), QXJ, BIYANG, NIGHT)
    assert told.route == "normal"
    assert any("11B09 is not on the green channel's list" in reason for reason in told.reasons)
    assert "green.toml, hazards does not list 11B09; authority.toml, issuer 411726-qxj, green = true" in told.rows
    waits = {leg.group: leg.start is not None for leg in told.legs}
    assert waits == {"officials": False, "loudspeakers": True, "subscribers": False, "residents": True}
    assert "waits until 07-21 06:30" in str(told)
    assert "quiet.toml, 22:00 to 06:00" in told.rows
    assert "call-and-confirm: nobody is called" in str(told)


def test_an_explanation_says_once_what_holds_it() -> None:
    """The same sentence as a reason and as a hold reads as two things to be mended."""
    told = explain(POLICY, warning(level=Level.UNKNOWN), QXJ, BIYANG, NOON)
    (hold,) = told.held
    assert hold in told.reasons
    assert str(told).count(hold) == 1
    assert f"held: {hold}" in str(told)


def test_an_explanation_of_a_drill_names_the_drills_audience_only() -> None:
    """Nobody must learn from a wrong preview that a drill reaches residents."""
    told = explain(POLICY, warning(status=Status.EXERCISE), QXJ, BIYANG, NOON)
    assert told.route == "drill"
    assert {leg.group for leg in told.legs} == {Group.OFFICIALS, Group.LOUDSPEAKERS}
    assert {leg.lane for leg in told.legs} == {"bulk"}


# --- times and confirmation ------------------------------------------------------------------------------------------


def test_a_message_without_expiry_gets_the_default_of_its_level() -> None:
    """Old warnings must end by themselves, and an explicit end always counts."""
    assert POLICY.expires(warning()) == NOON + timedelta(hours=6)
    assert POLICY.expires(warning(level=Level.BLUE)) == NOON + timedelta(hours=24)
    assert POLICY.expires(warning(kind=Kind.CANCEL)) == NOON + timedelta(hours=12)
    assert POLICY.expires(warning(expires=NOON + timedelta(hours=1))) == NOON + timedelta(hours=1)
    assert POLICY.expires(warning(effective=NOON + timedelta(hours=2))) == NOON + timedelta(hours=8)


def defer(level: Level, group: Group, notice: Notice, at: datetime) -> datetime | None:
    return POLICY.deferral(Document.WARNING, level, group, "any", notice, at)


def test_yellow_waits_for_the_morning() -> None:
    """A village that is woken for every yellow stops listening (D14). 06:30 in China is 22:30 UTC the day before."""
    morning = datetime(2026, 7, 20, 22, 30, tzinfo=UTC)
    assert defer(Level.YELLOW, Group.RESIDENTS, Notice.ISSUE, NIGHT) == morning
    assert defer(Level.YELLOW, Group.RESIDENTS, Notice.ISSUE, datetime(2026, 7, 20, 20, 0, tzinfo=UTC)) == morning
    assert defer(Level.YELLOW, Group.RESIDENTS, Notice.ISSUE, NOON) is None


@pytest.mark.parametrize(
    ("at", "quiet"), [("13:59", False), ("14:00", True), ("21:59", True), ("22:00", False), ("22:10", False)]
)
def test_quiet_hours_begin_and_end_on_the_minute(at: str, quiet: bool) -> None:
    """22:00 to 06:00 in China is 14:00 to 22:00 UTC."""
    moment = datetime.fromisoformat(f"2026-07-20T{at}:00+00:00")
    assert (defer(Level.BLUE, Group.LOUDSPEAKERS, Notice.ISSUE, moment) is not None) == quiet


def test_an_all_clear_by_loudspeaker_waits_but_officials_hear_at_once() -> None:
    """Nobody has to get up to hear that nothing will happen; those on duty do want to know."""
    assert defer(Level.RED, Group.LOUDSPEAKERS, Notice.ALL_CLEAR, NIGHT) is not None
    assert defer(Level.RED, Group.OFFICIALS, Notice.ALL_CLEAR, NIGHT) is None


@given(
    document=st.sampled_from(Document),
    level=st.sampled_from(Level),
    group=st.sampled_from(Group),
    notice=st.sampled_from(Notice),
    at=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
)
def test_red_evacuation_and_officials_are_never_delayed(
    document: Document, level: Level, group: Group, notice: Notice, at: datetime
) -> None:
    """Night mutes nothing that moves people; what is deferred goes out at 06:30, within nine hours."""
    later = POLICY.deferral(document, level, group, "any", notice, at)
    ends = notice in (Notice.ALL_CLEAR, Notice.PARTIAL_ALL_CLEAR)
    if document is Document.EVACUATION or group is Group.OFFICIALS or (level is Level.RED and not ends):
        assert later is None
    if later is not None:
        assert (later.hour, later.minute) == (22, 30)
        assert timedelta(0) < later - at <= timedelta(hours=8, minutes=30)


@pytest.mark.parametrize(
    ("changes", "minutes"),
    [
        ({}, 5),
        ({"level": Level.ORANGE}, 15),
        ({"level": Level.ORANGE, "event_code": "11B64"}, 5),
        ({"level": Level.ORANGE, "event_code": "11D02"}, 5),
        ({"level": Level.YELLOW}, None),
        ({"document": Document.EVACUATION, "level": Level.UNKNOWN}, 5),
        ({"document": Document.SERVICE, "level": Level.UNKNOWN}, None),
        ({"document": Document.RETURN, "level": Level.UNKNOWN}, 30),
        ({"document": Document.RESPONSE}, 5),
        ({"document": Document.RESPONSE, "level": Level.ORANGE}, 15),
        ({"document": Document.RESPONSE, "level": Level.YELLOW}, None),
        ({"document": Document.NOWCAST}, 5),
        ({"document": Document.NOWCAST, "level": Level.ORANGE}, None),
        ({"document": Document.JOINT_RISK, "level": Level.ORANGE, "event_code": "11B37"}, 5),
        ({"kind": Kind.CANCEL}, None),
        ({"kind": Kind.CORRECTION}, None),
        ({"status": Status.EXERCISE}, 5),
        ({"status": Status.TEST}, None),
    ],
)
def test_who_is_called_and_how_soon(changes: dict[str, Any], minutes: int | None) -> None:
    """叫应: red, evacuation, and the orange that kills in an hour get five minutes per rung (D6)."""
    alert = warning(**changes)
    assert POLICY.confirm_within_min(alert) == minutes
    assert POLICY.needs_confirmation(alert) == (minutes is not None)


def test_a_ladder_row_may_ask_for_a_response_type(folder: Path) -> None:
    """立即转移 in a yellow flash-flood message still needs a person's answer, where the county wants it so."""
    yellow = warning(level=Level.YELLOW)
    move = replace(yellow, infos=(Info(event="暴雨", response_types=("Evacuate",)),))
    assert [POLICY.confirm_within_min(alert) for alert in (yellow, move)] == [None, 5]
    edit(folder / "defaults.toml", 'response_types = ["Evacuate"]', 'response_types = ["Shelter"]')
    assert Policy.load(folder).confirm_within_min(move) is None


@pytest.mark.parametrize(
    ("changes", "every_s"),
    [
        ({}, 600),
        ({"kind": Kind.UPDATE}, 600),
        ({"document": Document.EVACUATION}, 600),
        ({"level": Level.ORANGE}, 0),
        ({"document": Document.RETURN}, 0),
        ({"kind": Kind.CANCEL}, 0),
        ({"kind": Kind.CORRECTION}, 0),
        ({"status": Status.EXERCISE}, 0),
        ({"status": Status.TEST}, 0),
    ],
)
def test_only_what_is_red_and_real_sounds_again_and_again(changes: dict[str, Any], every_s: int) -> None:
    """D13: red repeats until somebody has confirmed; a drill that goes on all morning teaches not to listen."""
    assert POLICY.repeat_every_s(warning(**changes)) == every_s


def test_how_often_red_repeats_is_a_row_of_the_policy(folder: Path) -> None:
    """A county with sirens of its own says it once, and one in the hills every five minutes."""
    edit(folder / "defaults.toml", "every_s = 600", "every_s = 300")
    assert Policy.load(folder).repeat_every_s(warning()) == 300
    edit(folder / "defaults.toml", "every_s = 300", "every_s = 5")
    with pytest.raises(ConfigError, match="every_s"):
        Policy.load(folder)
