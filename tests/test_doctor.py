"""The doctor: every finding an operator must not miss before a flood, and what to do about it."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

import channels
import gateway
from gateway import doctor
from gateway.channel import Channel, Link
from gateway.channel import Settings as ChannelSettings
from gateway.cli import app
from gateway.device_key import DeviceKeys, create
from gateway.doctor import Facts, Verdict
from gateway.gauge import show_certificates
from gateway.link import Rate
from gateway.metrics import REGISTRY
from gateway.model import ROSTERS, Condition, Message, Receipt, Slice
from gateway.policy import Policy
from gateway.regions import Regions
from gateway.render import Renderer
from gateway.render.library import Library
from gateway.settings import Settings

ROOT = Path(__file__).parent.parent
SCHEMA = max((Path(gateway.__file__).parent / "migrations/versions").glob("r*.py")).name[1:5]
CONFIG = ROOT / "config"
TEMPLATES = ROOT / "templates"
PLANNED = {"sms_twilio", "loudspeaker_ws", "web_push", "noop"}
Run = Callable[..., Result]


class Table(ChannelSettings):
    """A channel's table, as Twilio's has it."""

    mainland_assessment: str | None = None


class Fake(Channel):
    """A channel with hosts of its own."""

    def __init__(self, hosts: Collection[str] = (), assessment: str | None = None, limit: int = 500) -> None:
        super().__init__(Table(mainland_assessment=assessment))
        self._hosts = hosts
        vars(self)["text_limit"] = limit

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        """Send nothing."""
        raise AssertionError("the doctor sends nothing")

    def endpoints(self) -> Collection[str]:
        """Hosts this channel talks to."""
        return self._hosts


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """The sample policy, with a plan of the tests' own: counties change theirs."""
    folder = tmp_path_factory.mktemp("installation") / "policy"
    shutil.copytree(CONFIG / "policy", folder)
    shutil.copy(ROOT / "tests" / "data" / "plan.toml", folder / "plan.toml")
    return Policy.load(folder)


@pytest.fixture(scope="module")
def regions() -> Regions:
    """The sample places."""
    return Regions.load(CONFIG / "regions")


def bad(verdicts: Iterable[Verdict], severity: str = "error") -> list[str]:
    """Texts of that severity; each must say what to do."""
    found = [verdict for verdict in verdicts if verdict.severity == severity]
    assert all(verdict.fix for verdict in found if severity in ("error", "warning"))
    return [verdict.text for verdict in found]


def facts(live: Collection[str] = (), halted: Collection[str] = (), persons: int = 10) -> Facts:
    """Facts of an installation that is in use."""
    sizes = {"officials": 5, "loudspeakers": 3, "residents": persons, "subscribers": 1}
    return Facts(sizes, live=live, halted=halted)


# --- pure checks ----------------------------------------------------------------------------------


def test_a_cluster_without_shared_parts_is_an_error(tmp_path: Path) -> None:
    """Processes that share no key or no database would lose or hide each other's people."""
    settings = Settings(data=tmp_path, amqp_url=SecretStr("amqp://127.0.0.1"))
    texts = " ".join(bad(doctor.settings(settings)))
    assert "MINGLUO_DATABASE_URL" in texts
    assert "MINGLUO_REDIS_URL" in texts
    assert "MINGLUO_SECRET_KEY" in texts


def test_a_key_that_opens_nothing_is_an_error_and_is_not_repeated(tmp_path: Path) -> None:
    """The key never stands in a report somebody mails around."""
    verdicts = list(doctor.settings(Settings(data=tmp_path, secret_key=SecretStr("tooshort"))))
    assert len(bad(verdicts)) == 1
    assert "tooshort" not in str(verdicts)


def test_listening_to_the_world_needs_a_public_address(tmp_path: Path) -> None:
    """Providers could not report back otherwise."""
    assert bad(doctor.settings(Settings(data=tmp_path, host="0.0.0.0")), "warning")
    assert not bad(doctor.settings(Settings(data=tmp_path)), "warning")


def test_an_issuer_without_places_is_an_error(policy: Policy) -> None:
    """Its warnings would reach nobody."""
    elsewhere = Regions([one for one in Regions.load(CONFIG / "regions").places.values() if one.code[:6] == "411726"])
    texts = bad(doctor.policy(policy, elsewhere, PLANNED))
    assert any(text.startswith("411728-qxj: no place has the code 411728") for text in texts)


def test_a_plan_with_a_channel_nobody_installed_is_an_error(policy: Policy, regions: Regions) -> None:
    """A step of such a channel would wait for ever."""
    assert any("web_push" in text for text in bad(doctor.policy(policy, regions, PLANNED - {"web_push"})))
    assert bad(doctor.policy(policy, regions, PLANNED)) == []


def test_planned_channels_that_are_off_are_named(policy: Policy) -> None:
    """An operator must know that residents hear nothing before they do not."""
    enabled = {"loudspeaker_ws": Fake()}
    verdicts = list(doctor.channels(policy, PLANNED, enabled, facts()))
    assert {text.split()[0] for text in bad(verdicts, "warning") if "is off" in text} == {
        "sms_twilio", "web_push",
    }  # fmt: skip
    assert bad(verdicts) == ["no enabled channel serves officials"]
    assert not [verdict for verdict in verdicts if "noop" in verdict.text + verdict.fix]


def test_what_to_switch_on_are_channels_and_no_pool(policy: Policy) -> None:
    """A pool is no table of channels.toml: whoever wrote [sms] would start nothing."""
    verdicts = doctor.channels(policy, PLANNED | {"sms_cmpp"}, {"loudspeaker_ws": Fake()}, facts())
    (fix,) = (verdict.fix for verdict in verdicts if verdict.text == "no enabled channel serves officials")
    assert fix.startswith("switch on in channels.toml: sms_cmpp or sms_twilio (")


def test_a_pool_says_whose_numbers_have_no_road(policy: Policy) -> None:
    """A county must not learn in a flood that nobody serves its telecom numbers."""

    def said(severity: str, *carriers: str) -> list[str]:
        road = Fake()
        road.carriers = frozenset(carriers)
        verdicts = list(doctor.channels(policy, PLANNED | {"sms_cmpp"}, {"sms_cmpp": road}, facts()))
        return [text for text in bad(verdicts, severity) if text.startswith("sms:")]

    assert said("warning", "mobile") == [
        "sms: no such channel: sms_http; these roads are passed over",
        "sms: no road that is on serves unicom, telecom: their people are left to the fallback",
    ]
    assert said("ok") == ["sms: every number has a road (sms_cmpp)"]
    nobody = bad(doctor.channels(policy, PLANNED, {"sms_twilio": Fake()}, facts()), "note")
    assert "sms: none of its roads is on; its fallback takes its place" in nobody


@pytest.mark.parametrize(
    ("days", "severity"), [(-1, "error"), (0, "error"), (29, "warning"), (31, "ok")]
)  # fmt: skip
def test_a_channel_s_certificate_is_warned_of_before_it_ends(days: int, severity: str) -> None:
    """Once it has ended, the county's platform takes no warning, and nobody would look for why that night."""
    now = datetime(2026, 7, 20, tzinfo=UTC)

    class Signed(Fake):
        def certificates(self) -> Mapping[str, datetime]:
            return {"platform": now + timedelta(days=days)}

    (verdict,) = doctor.channel_certificates({"loudspeaker_ebd": Signed(), "noop": Fake()}, now)
    assert verdict.severity == severity
    assert "loudspeaker_ebd: the platform certificate" in verdict.text
    assert bool(verdict.fix) is (severity != "ok")
    show_certificates({"loudspeaker_ebd": Signed()}, now)
    assert REGISTRY.get_sample_value("mingluo_certificate_days", {"channel": "loudspeaker_ebd"}) == days


@pytest.mark.parametrize(
    ("burst", "green", "said"),
    [(300, 20, "green = 20"), (60, 50, "burst = 60"), (100, 50, ""), (40, 0, "green = 0")],
)  # fmt: skip
def test_a_reserve_that_a_bulk_slice_uses_up_is_named(burst: int, green: int, said: str) -> None:
    """The officials of the next red warning wait for tokens behind residents, and nobody saw it in the table."""
    rates = {"sms_cmpp/county": Rate(300, burst, green), "sms_off/county": Rate(1, 1, 0)}
    verdicts = list(doctor.reserves({"sms_cmpp": Fake()}, rates))
    assert [text.split(" is less")[0] for text in bad(verdicts, "warning")] == (
        [f"sms_cmpp/county: {said}"] if said else []
    )
    for fix in (verdict.fix for verdict in verdicts):
        mended = {name: int(value) for name, value in re.findall(r"(green|burst) = (\d+)", fix)}
        assert not list(doctor.reserves({"sms_cmpp": Fake()}, {"sms_cmpp/county": Rate(300, **mended)}))


def test_two_shares_that_count_as_played_are_named(policy: Policy) -> None:
    """Two maps of one county would mean different things by the same colour."""

    class Shared(Table):
        played_share: float

    for share, said in ((policy.played_share, 0), (0.9, 1)):
        road = Fake()
        road.settings = Shared(played_share=share)
        verdicts = list(doctor.channels(policy, PLANNED, {"loudspeaker_ebd": road}, facts()))
        assert len([text for text in bad(verdicts, "note") if "counts as played from 90%" in text]) == said


def test_loudspeakers_whose_road_is_off_are_an_error(policy: Policy) -> None:
    """No other road may command them, so they would be silent in the next warning."""
    known = replace(facts(), devices={"loudspeaker_ws": 5, "loudspeaker_ebd": 300})
    enabled = {"loudspeaker_ws": Fake(), "sms_twilio": Fake()}
    verdicts = list(doctor.channels(policy, PLANNED, enabled, known))
    assert bad(verdicts) == ["300 loudspeakers have the road loudspeaker_ebd, which is off: they stay silent"]
    assert not [verdict for verdict in verdicts if verdict.text.startswith("loudspeaker: ")
                and "number" in verdict.text]  # fmt: skip


def test_a_signature_no_carrier_knows_is_an_error(policy: Policy) -> None:
    """Registration takes ten days: it is missed now, or in the first red warning (D11)."""
    road = Fake()
    road.carriers = frozenset({"mobile"})
    assert any(
        "nothing says where" in text
        for text in bad(doctor.channels(policy, PLANNED, {"sms_cmpp": road}, facts()), "warning")
    )
    content = json.loads(policy.to_bytes())
    units = [issuer["id"] for issuer in content["authority"]["issuer"]]
    row = {"account": "sms_cmpp", "port": "", "carrier": "mobile"}
    content["lint"]["signature"] = [row | {"unit": unit, "status": "registered"} for unit in units[1:]]
    content["lint"]["signature"] += [row | {"unit": units[0], "status": "refused"}]
    registered = Policy.from_bytes(json.dumps(content).encode())
    texts = [
        text for text in bad(doctor.channels(registered, PLANNED, {"sms_cmpp": road}, facts())) if "regist" in text
    ]
    assert texts == [f"sms_cmpp: not registered at mobile (refused): {units[0]}; they are refused"]


def test_the_channel_that_reaches_nobody_is_never_silently_on(policy: Policy) -> None:
    """It calls everybody delivered: left on after a bench, a county believes itself warned."""
    texts = bad(doctor.channels(policy, PLANNED, {"noop": Fake()}, facts()), "warning")
    assert "noop is on: it reaches nobody and calls everybody delivered" in texts


def test_a_real_provider_that_is_not_live_is_an_error(policy: Policy) -> None:
    """The gateway refuses to start it (rule 11); silence in a flood is the wrong way to learn that."""
    enabled = {"sms_twilio": Fake(["api.provider.example"]), "loudspeaker_ws": Fake(["127.0.0.1"])}
    texts = bad(doctor.channels(policy, PLANNED, enabled, facts()))
    assert any("sms_twilio would talk to api.provider.example" in text for text in texts)
    live = list(doctor.channels(policy, PLANNED, enabled, facts(live=["sms_twilio"])))
    assert not bad(live)
    assert any(text.startswith("sms_twilio: live") for text in bad(live, "note"))


def test_sending_mainland_numbers_abroad_is_said_aloud(policy: Policy) -> None:
    """A cross-border transfer of personal data rests on an assessment somebody has to know of (D12)."""

    def said(channel: Fake) -> list[Verdict]:
        found = doctor.channels(policy, PLANNED, {"sms_twilio": channel}, facts(live=["sms_twilio"]))
        return [verdict for verdict in found if verdict.check == "cross-border"]

    abroad = ["api.provider.example"]
    assert [verdict.severity for verdict in said(Fake(abroad, assessment="PIA-7"))] == ["warning"]
    assert [verdict.severity for verdict in said(Fake(abroad, assessment=""))] == ["note"]
    assert said(Fake(["127.0.0.1"], assessment="")) == []
    assert "PIA-7" not in str(said(Fake(abroad, assessment="PIA-7")))


def test_demo_tokens_and_live_channels_exclude_each_other(policy: Policy) -> None:
    """Their texts are public: anybody could issue a warning."""
    assert any("demo tokens" in text for text in bad(doctor.safety(policy, facts(live=["noop"]))))
    assert bad(doctor.safety(policy, facts())) == []


def test_what_is_halted_is_named(policy: Policy) -> None:
    """A halt that was forgotten silences a county."""
    (text,) = bad(doctor.safety(policy, facts(halted=["*", "411726"])), "warning")
    assert text.startswith("halted: all, 411726")


def test_a_broken_audit_chain_is_an_error(policy: Policy) -> None:
    """It is evidence of tampering."""
    assert "broken" in bad(doctor.safety(policy, Facts({}, broken_audit="the audit chain is broken")))[0]


def test_villages_nobody_would_hear_in_are_counted(regions: Regions) -> None:
    """A village without an official and without a loudspeaker is the gap this system exists for."""
    bare = [one.code for one in regions.villages("411726204")]
    found = Facts(facts().sizes, bare=bare)
    (text,) = bad(doctor.rosters(found, regions), "warning")
    assert text.startswith("18 of 2906 villages have neither")
    assert "泌阳县 18" in text


def test_an_installation_without_officials_is_an_error(regions: Regions) -> None:
    """Nobody could answer for any village; the other groups are warned of."""
    verdicts = list(doctor.rosters(doctor.nothing(), regions))
    assert bad(verdicts) == ["no officials"]
    assert bad(verdicts, "warning") == ["no loudspeakers", "no residents", "no subscribers"]
    assert any("mingluo import devices" in verdict.fix for verdict in verdicts)


def test_villages_whose_loudspeakers_are_dead_are_counted(regions: Regions) -> None:
    """Nobody may learn in the storm that a village has been mute for a month; who never had one is another finding."""
    at = datetime(2026, 7, 20, 6, tzinfo=UTC)
    heard = {Condition.NONE: 5, Condition.OFFLINE: 3, Condition.FAULTY: 1, Condition.UNTESTED: 7, Condition.WORKING: 9}
    verdicts = list(doctor.rosters(replace(facts(), heard=heard, heard_at=at), regions))
    assert bad(verdicts, "warning") == [
        "none works in 4 of 20 villages that have one (3 offline, 1 faulty), as of 2026-07-20 14:00"
    ]
    assert "in 7 villages nobody has heard one for too long" in bad(verdicts, "note")
    well = list(doctor.rosters(replace(facts(), heard={Condition.WORKING: 9}, heard_at=at), regions))
    assert [one.text for one in well if one.check == "loudspeakers"] == [
        "one works in each of 9 villages that have any, as of 2026-07-20 14:00"
    ]


def test_more_than_a_million_persons_names_the_duty_to_register(regions: Regions) -> None:
    """The law asks for it (D23); loudspeakers are no persons."""
    assert bad(doctor.rosters(facts(persons=1_000_000), regions), "warning")
    assert not bad(doctor.rosters(facts(persons=999_994), regions), "warning")


def test_every_text_of_the_plan_renders_within_limits(policy: Policy, regions: Regions) -> None:
    """A template that fails does so here, not at 02:30; a channel without a template of its own is named."""
    enabled, choose = dict.fromkeys(PLANNED, Fake(limit=1000)), Library(TEMPLATES).choose
    renderer = _renderer(policy, regions, TEMPLATES)
    verdicts = list(doctor.templates(renderer, choose, policy, enabled, regions))
    assert bad(verdicts) == []
    assert bad(verdicts, "warning") == ["noop has no template of its own and uses the default"]


def test_a_text_longer_than_its_channel_is_an_error(policy: Policy, regions: Regions) -> None:
    """A carrier would cut it, perhaps before the word that matters."""
    enabled = {"noop": Fake(limit=20)}
    found = doctor.templates(_renderer(policy, regions, TEMPLATES), Library(TEMPLATES).choose, policy, enabled, regions)
    assert any("longer than the channel takes (20)" in text for text in bad(found))


def test_a_template_with_a_wrong_name_is_an_error(policy: Policy, regions: Regions, tmp_path: Path) -> None:
    """A misspelt name in one sentence silences one document."""
    for path in TEMPLATES.rglob("*.*"):
        target = tmp_path / path.relative_to(TEMPLATES)
        target.parent.mkdir(exist_ok=True)
        target.write_text(path.read_text(encoding="utf8"), encoding="utf8")
    (tmp_path / "zh" / "default.txt").write_text("{{ isuer }}", encoding="utf8")
    enabled = {"noop": Fake()}
    found = doctor.templates(_renderer(policy, regions, tmp_path), Library(tmp_path).choose, policy, enabled, regions)
    assert any("isuer" in text for text in bad(found))


def test_a_template_that_sells_or_forgets_is_an_error(policy: Policy, regions: Regions, tmp_path: Path) -> None:
    """A whole season's texts are looked through at once: every part there, no word a carrier blocks."""
    shutil.copytree(TEMPLATES, tmp_path / "t")
    (tmp_path / "t" / "zh" / "default.txt").write_text("{{ issuer }}{{ time }}优惠", encoding="utf8")
    renderer = _renderer(policy, regions, tmp_path / "t")
    found = bad(doctor.templates(renderer, Library(tmp_path / "t").choose, policy, {"noop": Fake()}, regions))
    assert any("优惠: marketing" in text for text in found)
    assert any("warning issue officials: it does not say what to do" in text for text in found)


def test_an_issuer_without_a_registered_signature_is_an_error(policy: Policy, regions: Regions) -> None:
    """The carriers would refuse every SMS of it, red ones too (D11)."""
    content = json.loads(policy.to_bytes())
    content["authority"]["issuer"][0]["signature"] = ""
    unsigned = Policy.from_bytes(json.dumps(content).encode())
    (text,) = bad(doctor.policy(unsigned, regions, PLANNED))
    assert text == f"no signature is registered for {unsigned.issuers[0].id}: no SMS of theirs leaves"
    assert not any(check == "signatures" for check, severity, *_ in doctor.policy(policy, regions, PLANNED)
                   if severity == "error")  # fmt: skip


def _renderer(policy: Policy, regions: Regions, folder: Path) -> Renderer:
    return Renderer(folder, {issuer.sender: issuer.signature for issuer in policy.issuers}, regions.name)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `mingluo` in an installation of the test's own."""

    def invoke(*arguments: str, **variables: str) -> Result:
        channels = tmp_path / "channels.toml"
        if not channels.exists():
            channels.write_text("[noop]\n[loudspeaker_ws]\n", encoding="utf8")
        environment = {"MINGLUO_DATA": str(tmp_path / "var"), "MINGLUO_CHANNELS": str(channels)} | variables
        return CliRunner().invoke(app, list(arguments), env=environment)

    return invoke


def verdicts_of(result: Result) -> dict[str, list[tuple[str, str]]]:
    """Check → (severity, text) of what `--json` printed."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in json.loads(result.stdout):
        found.setdefault(one["check"], []).append((one["severity"], one["text"]))
    return found


def test_an_empty_installation_is_told_what_to_do_and_left_as_it_was(run: Run, tmp_path: Path) -> None:
    """The first command of a new operator: it names the next ones, and makes no file."""
    result = run("doctor")
    assert result.exit_code == 1
    assert "no officials — import them: mingluo import officials FILE" in result.stdout
    assert "no database" in result.stdout
    assert not (tmp_path / "var").exists()


def test_a_filled_installation_has_no_errors(run: Run, tmp_path: Path) -> None:
    """Then it ends with 0, so that a nightly job can call it."""
    run("sample-roster", "--residents", "20", "--out", str(tmp_path / "r"), "--within", "411726204")
    for kind in ("officials", "residents", "devices"):
        assert run("import", kind, str(tmp_path / "r" / f"{kind}.csv")).exit_code == 0
    result = run("doctor", "--json")
    found = verdicts_of(result)
    assert result.exit_code == 0, result.stdout
    assert found["database"] == [("ok", f"sqlite, schema {SCHEMA}")]
    assert any("2888 of 2906 villages" in text for severity, text in found["rosters"] if severity == "warning")
    assert ("ok", "38 officials") in found["rosters"]


def test_loudspeakers_without_a_voice_are_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text still goes out; who cannot speak it is silent, and somebody has to know before the storm."""
    spoken = [one for one in json.loads(run("doctor", "--json").stdout) if one["check"] == "speech"]
    assert [one["severity"] for one in spoken] == ["ok"]
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    found = [one for one in json.loads(run("doctor", "--json").stdout) if one["check"] == "speech"]
    assert [(one["severity"], one["fix"]) for one in found] == [("warning", "pip install 'mingluo[speech]'")]
    assert "texts still go out" in found[0]["text"]


def test_a_database_in_use_is_left_alone(run: Run, tmp_path: Path) -> None:
    """Looking must not disturb the running gateway; what was not looked at is said."""
    assert run("migrate").exit_code == 0
    with (tmp_path / "var" / "mingluo.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ((severity, text),) = verdicts_of(run("doctor", "--json"))["database"]
    assert severity == "note"
    assert "belongs to the running gateway" in text


def test_an_old_schema_is_an_error_and_stays_as_it_is(run: Run, tmp_path: Path) -> None:
    """The doctor does not migrate: that is a decision."""
    (tmp_path / "var").mkdir()
    sqlite3.connect(tmp_path / "var" / "mingluo.db").close()
    ((severity, text),) = verdicts_of(run("doctor", "--json"))["database"]
    assert (severity, text.startswith("the schema is missing")) == ("error", True)


def test_a_broken_channel_file_does_not_hide_the_rest(run: Run, tmp_path: Path) -> None:
    """All is reported in one go."""
    (tmp_path / "channels.toml").write_text("[noop\n", encoding="utf8")
    found = verdicts_of(run("doctor", "--json"))
    assert any(severity == "error" and "not valid TOML" in text for severity, text in found["channels"])
    assert found["rosters"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("class Broken(\n", "channels/broken_road.py line 1: SyntaxError"),
        ("import os\nimport nowhere_at_all\n", "channels/broken_road.py line 2: ModuleNotFoundError"),
    ],
)
def test_a_broken_channel_is_one_line_with_its_place(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    """Whoever adds a channel sees where it is wrong, and the rest of the installation is still examined."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "broken_road.py").write_text(text, encoding="utf8")
    monkeypatch.setattr(channels, "__path__", [*channels.__path__, str(tmp_path / "more")])
    found = verdicts_of(run("doctor", "--json"))
    assert next(text for severity, text in found["channels"] if severity == "error").startswith(told)
    assert found["rosters"]
    served = run("serve", "--port", "0")
    assert (served.exit_code, len(served.stderr.splitlines())) == (2, 1)
    assert told in served.stderr


def test_servers_that_do_not_answer_are_errors_without_their_passwords(run: Run) -> None:
    """The report goes into tickets."""
    nobody = {
        "MINGLUO_AMQP_URL": "amqp://u:hunter2@127.0.0.1:1/",
        "MINGLUO_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0",
        "MINGLUO_DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/x",
    }
    result = run("doctor", "--json", **nobody)
    found = verdicts_of(result)
    assert [found[name][0][0] for name in ("database", "redis", "rabbitmq")] == ["error"] * 3
    assert "hunter2" not in result.output


def test_the_clusters_servers_are_proven(
    run: Run, amqp_url: str, redis_url: str, empty_database_url: str, namespace: str
) -> None:
    """Queues nobody has declared yet are a warning, a database without the schema an error, until `migrate`."""
    cluster = {
        "MINGLUO_AMQP_URL": amqp_url,
        "MINGLUO_REDIS_URL": redis_url,
        "MINGLUO_DATABASE_URL": empty_database_url,
        "MINGLUO_NAMESPACE": namespace,
    }
    found = verdicts_of(run("doctor", "--json", **cluster))
    assert found["redis"] == [("ok", "answers")]
    assert found["rabbitmq"][0][0] == "warning"
    assert found["database"][0][0] == "error"
    assert run("migrate", **cluster).exit_code == 0
    assert verdicts_of(run("doctor", "--json", **cluster))["database"] == [("ok", f"postgresql, schema {SCHEMA}")]


def test_groups_are_the_models(policy: Policy) -> None:
    """A group added to the model is asked for here as well."""
    assert set(doctor.nothing().sizes) == {group.value for group in ROSTERS}


def test_the_doctor_says_whether_loudspeakers_would_obey(tmp_path: Path) -> None:
    """A hub without the key is noticed by nobody before the first warning; a third key by no device that has two."""
    now = datetime(2026, 7, 20, tzinfo=UTC)

    def judged(*, alone: bool = False) -> tuple[str, str]:
        (found,) = doctor.device_keys(DeviceKeys.load(tmp_path), now, alone=alone)
        return found.severity, found.text

    assert [judged(alone=alone)[0] for alone in (False, True)] == ["error", "note"]
    create(tmp_path, now - timedelta(days=1))
    assert judged() == ("ok", "what loudspeakers are told is signed; one signs")
    create(tmp_path, now + timedelta(days=30))
    assert judged() == (
        "ok", "what loudspeakers are told is signed; the next begins on 2026-08-19; it must be pinned by then",
    )  # fmt: skip
    create(tmp_path, now + timedelta(days=60))
    assert judged()[0] == "warning"
