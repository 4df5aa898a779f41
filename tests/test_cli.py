"""The command line: what it prints, where, and its exit code (0 done, 1 the answer is no, 2 could not be asked)."""

from __future__ import annotations

import asyncio
import base64
import csv
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, encode_basic_auth, web
from aiohttp.test_utils import TestServer
from typer.main import get_command
from typer.testing import CliRunner, Result

from gateway.cli import answer, app

ROOT = Path(__file__).parent.parent
MESSAGES = ROOT / "tests" / "data" / "cap"
UNSET = ("MINGLUO_URL", "MINGLUO_TOKEN", "MINGLUO_CHANNELS", "MINGLUO_DATABASE_URL", "MINGLUO_AMQP_URL")
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `mingluo` with these arguments in an installation of the test's own; further variables by keyword."""

    def invoke(*arguments: object, **variables: str) -> Result:
        environment: dict[str, str | None] = dict.fromkeys(UNSET)
        environment |= {"MINGLUO_DATA": str(tmp_path / "var")} | variables
        return CliRunner().invoke(app, [str(one) for one in arguments], env=environment)

    return invoke


@contextmanager
def running_gateway(data: Path) -> Iterator[None]:
    """Hold the embedded database as a running gateway does."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / "mingluo.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def commands() -> list[tuple[str, ...]]:
    """Every command and group, as the words that name it."""
    found: list[tuple[str, ...]] = [()]

    def walk(command: Any, words: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            found.append((*words, name))
            walk(inner, (*words, name))

    walk(get_command(app), ())
    return found


# --- all commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_says_what_it_does_with_an_example(run: Run, words: tuple[str, ...]) -> None:
    """Somebody at 02:30 in a flood must not have to guess; groups name their commands instead of an example."""
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert "Example: mingluo" in " ".join(result.output.split()) or "Commands:" in result.output


def parameters() -> list[tuple[str, Any]]:
    """Every option and argument of every command, with the words that name the command."""
    found = []
    for words in commands():
        command: Any = get_command(app)
        for word in words:
            command = command.commands[word]
        found += [(" ".join((*words, one.opts[0])), one) for one in command.params]
    return found


def test_every_option_and_argument_says_what_it_is() -> None:
    """Whoever tries a simulation for the first time cannot know what a share of `broken` breaks."""
    assert [name for name, one in parameters() if not (getattr(one, "help", None) or "").strip()] == []


def test_the_command_line_starts_without_heavy_modules() -> None:
    """`mingluo --help` answers at once; each command imports what it needs when it runs."""
    heavy = ["aiohttp", "pydantic", "sqlalchemy", "shapely", "twilio", "lxml", "cryptography", "numpy"]
    code = f"import sys, gateway.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "[]"


def test_the_version_is_the_distributions(run: Run) -> None:
    """A report of a fault names what runs."""
    result = run("--version")
    assert (result.exit_code, result.output.split()[0]) == (0, "mingluo")


def test_a_wrong_setting_is_one_line_that_names_the_variable(run: Run) -> None:
    """No traceback for what an operator can mend."""
    result = run("policy", "check", MINGLUO_PORT="eighty")
    assert result.exit_code == 2
    assert result.stderr.startswith("mingluo: MINGLUO_PORT:")
    assert "Traceback" not in result.output


# --- cap ------------------------------------------------------------------------------------------


def test_cap_check_prints_exactly_one_json_line_per_file() -> None:
    """Other programs read these lines: the keys are a contract, and warnings are no errors."""
    files = [str(path) for path in sorted(MESSAGES.iterdir())]
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "cap", "check", *files], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["file"] for line in lines] == files
    assert all(line.keys() == {"file", "valid", "errors"} for line in lines)
    assert all(error.keys() == {"code", "element", "line", "message"} for line in lines for error in line["errors"])
    invalid = {Path(line["file"]).name for line in lines if not line["valid"]}
    assert invalid == {"entity_bomb.xml", "external_entity.xml"}
    assert all(bool(line["errors"]) != line["valid"] for line in lines)
    assert (done.returncode, done.stderr) == (1, "")


def test_cap_check_ends_with_zero_when_all_are_valid(run: Run) -> None:
    """A feed's operator runs it before every season."""
    result = run("cap", "check", MESSAGES / "red_rainstorm.xml", MESSAGES / "red_rainstorm.json")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2)


def test_cap_check_goes_on_behind_a_file_it_cannot_read(run: Run, tmp_path: Path) -> None:
    """One missing file must not hide what is wrong with the others."""
    result = run("cap", "check", tmp_path / "missing.xml", MESSAGES / "cancel.xml")
    assert (result.exit_code, len(result.stdout.splitlines())) == (2, 1)
    assert "missing.xml" in result.stderr


def test_cap_resolve_names_each_township_and_how_it_matched(run: Run, tmp_path: Path) -> None:
    """A sender sees which villages a message means before it is real, and what it failed to mean."""
    result = run("cap", "resolve", MESSAGES / "update_orange.xml", "--within", "411726", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [(one["township"], one["name"], one["how"]) for one in found["targets"]] == [
        ("411726209", "泌阳县贾楼乡", "code")
    ]
    unknown = tmp_path / "unknown.xml"
    unknown.write_text((MESSAGES / "red_rainstorm.xml").read_text("utf8").replace("411726209", "411726299"), "utf8")
    partly = run("cap", "resolve", unknown)
    assert partly.exit_code == 1
    assert "411726299" in partly.stderr
    assert "泌阳县铜山乡" in partly.stdout


def test_cap_resolve_refuses_a_prefix_that_means_no_place(run: Run) -> None:
    """A mistyped area must not look like an empty one."""
    result = run("cap", "resolve", MESSAGES / "cancel.xml", "--within", "9999")
    assert result.exit_code == 2
    assert "--within 9999" in result.stderr


def test_cap_write_gives_xml_that_is_valid_again(run: Run, tmp_path: Path) -> None:
    """What a small office writes as JSON can go to whoever takes CAP only."""
    result = run("cap", "write", MESSAGES / "red_rainstorm.json")
    (tmp_path / "written.xml").write_text(result.stdout, encoding="utf8")
    assert run("cap", "check", tmp_path / "written.xml").exit_code == 0


def test_cap_sample_is_a_valid_warning_that_holds_now(run: Run, tmp_path: Path) -> None:
    """A newcomer has something to issue that has not expired; it names the townships asked for."""
    (tmp_path / "alert.xml").write_text(run("cap", "sample", "--township", "411726204").stdout, encoding="utf8")
    assert run("cap", "check", tmp_path / "alert.xml").exit_code == 0
    explained = run("policy", "explain", tmp_path / "alert.xml", "--issuer", "411726-qxj")
    assert (explained.exit_code, "route: green" in explained.stdout) == (0, True)
    found = json.loads(run("cap", "resolve", tmp_path / "alert.xml", "--json").stdout)
    assert [one["township"] for one in found["targets"]] == ["411726204"]
    assert "not a township" in run("cap", "sample", "--township", "411728101").stderr


def test_verify_does_not_demand_a_signature_that_the_policy_does_not(run: Run, tmp_path: Path) -> None:
    """An operator must not hold back a warning that the gateway would take."""
    (tmp_path / "alert.xml").write_text(run("cap", "sample").stdout, encoding="utf8")
    found = run("cap", "verify", tmp_path / "alert.xml")
    assert (found.exit_code, "takes it all the same from 411726-qxj" in found.stderr) == (1, True)


def test_cap_sample_writes_what_takes_the_other_ways(run: Run, tmp_path: Path) -> None:
    """Review, signature, telephone and partner can be rehearsed without writing XML by hand."""
    for words, way in (
        (("--hazard", "大风", "--level", "blue"), "review"),
        (("--hazard", "11A51", "--level", "orange", "--document", "joint_risk"), "partner"),
    ):
        (tmp_path / "alert.xml").write_text(run("cap", "sample", *words).stdout, encoding="utf8")
        told = json.loads(run("policy", "explain", tmp_path / "alert.xml", "--json").stdout)
        assert (told["allowed"], told["stages"][0]["stage"]) == (True, way)
    assert "use one of blue" in run("cap", "sample", "--level", "purple").stderr


# --- policy ---------------------------------------------------------------------------------------


def test_policy_explain_says_whether_how_and_why(run: Run, tmp_path: Path) -> None:
    """The duty officer can ask beforehand; a refusal ends with 1 and names what is missing."""
    message = warning(tmp_path)
    allowed = run("policy", "explain", message, "--issuer", "411726-qxj")
    assert allowed.exit_code == 0
    assert "route: green" in allowed.stdout
    refused = run("policy", "explain", message, "--issuer", "411728-qxj", "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["allowed"] is False
    unknown = run("policy", "explain", message, "--issuer", "nobody")
    assert unknown.exit_code == 2
    assert "411726-qxj" in unknown.stderr


def test_policy_explain_answers_without_a_message(run: Run) -> None:
    """Who may send this, and would it be green, is asked before anybody has written a warning."""
    asked = ("--hazard", "11B03", "--level", "red", "--area", "411726209")
    told = run("policy", "explain", "--issuer", "411726-qxj", *asked, "--at", "2026-07-20T23:10")
    assert told.exit_code == 0
    for part in ("route: green", "plan.toml, row 1", "no second person", "after 5 minutes", "levels.csv, henan"):
        assert part in told.stdout
    night = run("policy", "explain", "--issuer", "411726-qxj", "--hazard", "11B09", "--level", "yellow", "--area",
                "411726", "--at", "2026-07-20T23:10", "--json")  # fmt: skip
    legs, stages = (json.loads(night.stdout)[key] for key in ("legs", "stages"))
    assert [stage["stage"] for stage in stages] == ["review", "sign"]
    assert stages[1]["by"] == ["泌阳带班领导 (signer)"]
    assert {leg["start"] for leg in legs if leg["group"] == "residents"} == {"2026-07-21T06:30:00+08:00"}
    who = run("policy", "explain", "--document", "evacuation", "--hazard", "11A51", "--area", "411726209", "--json")
    assert [one["issuer"] for one in json.loads(who.stdout)["senders"]] == ["4117-fzb", "411726-fzb", "411726209-xzf"]
    nobody = run(
        "policy", "explain", "--document", "warning", "--hazard", "11E01", "--level", "red", "--area", "411726"
    )
    assert (nobody.exit_code, "nobody may send it" in nobody.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "name a FILE, or --hazard"),
        (("--hazard", "11B03"), "--area: name a county"),
        (("--hazard", "11B03", "--area", "999"), "--area: no place has the code 999; the codes of all"),
        (("--hazard", "11B03", "--area", "411726", "--level", "4"), "--level 4: use one of unknown, blue"),
        (("--hazard", "11B03", "--area", "411726", "--document", "advice"), "--document advice: use one of warning"),
        (("--hazard", "11B03", "--area", "411726", "--at", "tonight"), "--at tonight: not a time; write it as"),
        ((MESSAGES / "red_rainstorm.xml", "--hazard", "11B03"), "with a file, leave out"),
    ],
)
def test_policy_explain_says_what_is_missing(run: Run, words: tuple[str, ...], told: str) -> None:
    """A half-asked question gets the other half named; a digit is never taken for a colour."""
    result = run("policy", "explain", *words)
    assert result.exit_code == 2
    assert told in result.stderr


def test_policy_hazard_tells_what_is_known(run: Run) -> None:
    """The duty officer looks up by what number a colour is meant and what people will be told."""
    told = run("policy", "hazard", "11b03")
    assert told.exit_code == 0
    for part in ("暴雨, rainstorm", "气象", "on the list", "3小时降雨100毫米以上", "立即到岗", "Keep away from rivers"):
        assert part in told.stdout
    frost = json.loads(run("policy", "hazard", "11B16", "--json").stdout)
    assert list(frost["tables"]["national"]["colours"]) == ["blue", "yellow", "orange"]
    assert {(one["level"], one["group"]) for one in frost["advice"]} >= {("orange", "officials"), ("blue", "residents")}
    assert run("policy", "hazard", "11B77").exit_code == 2
    assert run("policy", "hazard", "大风").stdout == run("policy", "hazard", "gale").stdout
    assert "11B20 雷雨大风" in run("policy", "hazard", "雷雨").stderr
    listed = json.loads(run("policy", "hazards", "--json").stdout)["hazards"]
    assert next(one for one in listed if one["code"] == "11B01")["colours"].keys() == {"national"}
    assert "雷雨大风" in run("policy", "hazards").stdout


def test_policy_check_reads_the_templates_and_the_places_too(run: Run, tmp_path: Path) -> None:
    """A hazard without advice, or a county that is none, is found in spring and not in the flood."""
    policy, templates = tmp_path / "policy", tmp_path / "templates"
    shutil.copytree(ROOT / "config" / "policy", policy)
    shutil.copytree(ROOT / "templates", templates)
    advice = templates / "zh" / "advice.csv"
    lines = [line for line in advice.read_text("utf8").splitlines() if not line.startswith("11B16")]
    advice.write_text("\n".join([*lines, "11B3,*,officials,到岗", "11X,*,officials,到岗"]), encoding="utf8")
    path = policy / "authority.toml"
    path.write_text(path.read_text("utf8").replace('["411728"]', '["411799"]'), encoding="utf8")
    result = run("policy", "check", "--policy", policy, "--templates", templates)
    assert result.exit_code == 1
    assert "templates/zh/advice.csv: no row for 11B16 orange residents; add one" in result.stdout
    assert "templates/zh/advice.csv: no hazard begins with 11X; correct the code" in result.stdout
    assert "authority.toml: issuer 411728-qxj: areas: no place has the code 411799" in result.stdout
    assert "templates/en" not in result.stdout


def test_policy_check_names_file_and_key_of_a_mistake(run: Run, tmp_path: Path) -> None:
    """A misspelt key must not silently loosen the policy."""
    folder = tmp_path / "policy"
    folder.mkdir()
    for path in (ROOT / "config" / "policy").iterdir():
        text = path.read_text(encoding="utf8")
        (folder / path.name).write_text(text.replace("review_within_min", "review_in_min"), encoding="utf8")
    result = run("policy", "check", "--policy", folder)
    assert result.exit_code == 1
    assert "green.toml: review_in_min: unknown key; rename it to review_within_min" in result.stdout
    assert run("policy", "check").exit_code == 0


def test_a_new_token_is_shown_once_and_only_its_hash_reaches_the_file(run: Run) -> None:
    """Standard output goes into tokens.toml, which other people read."""
    result = run("policy", "token", "--issuer", "411726-qxj", "--name", '张"三"', "--role", "issuer")
    row = tomllib.loads(result.stdout)["token"][0]
    token = result.stderr.split("once:")[1].split()[0]
    assert result.exit_code == 0
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert row == {"sha256": digest, "issuer": "411726-qxj", "name": '张"三"', "role": "issuer"}
    assert token not in result.stdout
    assert len(token) >= 22  # 128 bits


# --- rosters --------------------------------------------------------------------------------------


def test_a_sample_roster_depends_on_its_seed_alone(run: Run, tmp_path: Path) -> None:
    """A load test can be repeated elsewhere, byte by byte."""

    def made(name: str, seed: int) -> dict[str, bytes]:
        arguments = ("--residents", 40, "--seed", seed, "--out", tmp_path / name, "--within", "411726204")
        assert run("sample-roster", *arguments).exit_code == 0
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    first = made("a", 7)
    assert first.keys() == {"officials.csv", "residents.csv", "devices.csv"}
    assert first == made("b", 7)
    assert first != made("c", 8)


def test_wrong_rows_are_named_without_their_values_and_the_others_imported(run: Run, tmp_path: Path) -> None:
    """One typing error must not keep a whole county out, and no telephone number may land on a screen or in a file."""
    table, errors = tmp_path / "officials.csv", tmp_path / "wrong.csv"
    table.write_text(
        "姓名,手机,村代码,职务\n张三,10012345678,411726204200,村支书\n李四,1001234,411726204200,村支书\n",
        encoding="gb18030",
    )
    result = run("import", "officials", table, "--errors", errors)
    assert result.exit_code == 1
    assert "2 rows, 1 failed, 1 added" in result.stdout
    rows = list(csv.reader(errors.read_text(encoding="utf-8-sig").splitlines()))
    assert rows[0] == ["file", "sheet", "row", "column", "kind", "message"]
    assert len(rows) == 2
    assert "1001234" not in result.output + errors.read_text(encoding="utf8")
    again = json.loads(run("import", "officials", table, "--json").stdout)
    assert (again["added"], again["unchanged"]) == (0, 1)
    actions = [json.loads(line)["action"] for line in run("audit", "list", "--json").stdout.splitlines()]
    assert actions == ["import", "import"]


def test_notes_of_an_import_are_counted_and_all_of_them_kept_in_the_file(run: Run, tmp_path: Path) -> None:
    """A screen of the same sentence hides the one row that is wrong; whoever wants each row has the file."""
    table, errors = tmp_path / "officials.csv", tmp_path / "notes.csv"
    rows = [f"样例{n},1001234{n // 2:04d},411726204200,村支书" for n in range(60)]  # each number has two names
    rows.append("样例0,10012340000,411726204201,村支书")
    table.write_text("\n".join(["姓名,手机,村代码,职务", *rows, ""]), encoding="utf8")
    result = run("import", "officials", table, "--errors", errors)
    assert result.exit_code == 0
    shared = [line.split() for line in result.stdout.splitlines() if "another name has this number" in line]
    assert [(line[0], line[-6:]) for line in shared] == [("61", ["2,", "3,", "4,", "5,", "6", "…"])]
    several = [line.split() for line in result.stdout.splitlines() if "several places" in line]
    assert [(line[0], line[-2:]) for line in several] == [("2", ["2,", "62"])]
    assert f"every row by itself: {errors}" in result.stderr
    assert len(errors.read_text(encoding="utf-8-sig").splitlines()) == 1 + 61 + 2
    assert "--errors FILE" in run("import", "officials", table).stderr


def test_neither_the_list_is_overwritten_by_its_errors_nor_half_of_one_left_behind(run: Run, tmp_path: Path) -> None:
    """The clerk's only copy of the list is the list; and half an export brought in again would remove the others."""
    table, out = tmp_path / "officials.csv", tmp_path / "out.csv"
    table.write_text("姓名,手机,村代码,职务\n张三,10012345678,411726204200,村支书\n", encoding="utf8")
    before = table.read_bytes()
    result = run("import", "officials", table, "--errors", table)
    assert (result.exit_code, "--errors" in result.stderr) == (2, True)
    assert table.read_bytes() == before
    assert run("import", "officials", table).exit_code == 0
    other = base64.b64encode(bytes(range(32))).decode()
    exporting = ("roster", "export", "officials", "--within", "411726", "--out", out)
    assert run(*exporting, MINGLUO_SECRET_KEY=other).exit_code == 2
    assert out.read_bytes() == b""
    assert run(*exporting).exit_code == 0
    assert "张三" in out.read_text(encoding="utf8")


def test_a_table_without_the_columns_is_refused_whole(run: Run, tmp_path: Path) -> None:
    """The wrong file is the commonest mistake of an import."""
    table = tmp_path / "other.csv"
    table.write_text("a,b\n1,2\n", encoding="utf8")
    result = run("import", "residents", table)
    assert result.exit_code == 2
    assert result.stderr.startswith("mingluo: ")
    assert "Traceback" not in result.output


def test_a_cluster_is_imported_into_only_with_its_own_key(run: Run, tmp_path: Path) -> None:
    """People sealed with a key made up on the spot could never be called by the gateway."""
    table = tmp_path / "officials.csv"
    table.write_text("name,phone,village,role\n", encoding="utf8")
    result = run("import", "officials", table, MINGLUO_DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert result.exit_code == 2
    assert "MINGLUO_SECRET_KEY" in result.stderr
    assert not (tmp_path / "var").exists()


def test_replace_takes_one_file(run: Run, tmp_path: Path) -> None:
    """A second file would retire the people of the first."""
    assert run("import", "officials", tmp_path / "a.csv", tmp_path / "b.csv", "--replace").exit_code == 2


# --- the installation's database ------------------------------------------------------------------


def test_a_tampered_audit_chain_is_found(run: Run, tmp_path: Path) -> None:
    """Nobody can change afterwards who decided what: verify names the last good record and ends with 1."""
    for person in ("张三", "李四"):
        assert run("live", "noop", "--person", person).exit_code == 0
    whole = run("audit", "verify", "--json")
    assert json.loads(whole.stdout) == {"whole": True, "records": 2, "wrong": ""}
    connection = sqlite3.connect(tmp_path / "var" / "mingluo.db")
    connection.execute("UPDATE audit SET actor = '王五' WHERE seq = 2")
    connection.commit()
    connection.close()
    broken = run("audit", "verify")
    assert broken.exit_code == 1
    assert "broken after record 1" in broken.stderr


def test_live_needs_two_different_persons(run: Run) -> None:
    """One person alone can never make a channel reach real people (rule 11); back to simulation one can."""
    assert "second person" in run("live", "noop", "--person", "张三").stdout
    same = run("live", "noop", "--person", " 张三 ")
    assert same.exit_code == 1
    assert "another person" in same.stderr
    assert "live from the next start" in run("live", "noop", "--person", "李四").stdout
    assert "simulation" in run("live", "noop", "--person", "李四", "--off").stdout
    assert run("live", "carrier_pigeon", "--person", "张三").exit_code == 2


def test_a_halt_names_a_real_scope_and_what_stays_halted(run: Run) -> None:
    """A mistyped county must not look halted, and releasing everything must not hide a county that still is."""
    assert run("halt", "41172").exit_code == 2
    assert run("halt", "999999").exit_code == 2
    assert run("halt", "411726").stdout == "halted: 411726\n"
    assert "Still halted: 411726" in run("halt", "all", "--off").stderr
    assert "Still halted" not in run("halt", "411726", "--off").stderr


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("halt", "all"), "--token"),
        (("audit", "verify"), "--token"),
        (("audit", "list"), "--token"),
        (("live", "noop", "--person", "张三"), "stop it first"),
        (("import", "officials", "TABLE"), "stop it"),
        (("migrate",), "stop it first"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_database_in_use_says_what_to_do_instead(
    run: Run, tmp_path: Path, words: tuple[str, ...], advice: str
) -> None:
    """The embedded database belongs to the running gateway; a halt must not fail with a riddle."""
    table = tmp_path / "officials.csv"
    table.write_text("name,phone,village,role\n", encoding="utf8")
    with running_gateway(tmp_path / "var"):
        result = run(*(str(table) if word == "TABLE" else word for word in words))
    assert result.exit_code == 2
    assert "belongs to the running gateway" in result.stderr
    assert advice in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_worker_of_an_unknown_lane_is_refused_and_the_lanes_are_named(run: Run) -> None:
    """A worker that consumed nothing, for a typing error, would leave officials waiting in silence."""
    result = run("worker", "--lanes", "gren,urgent")
    assert result.exit_code == 2
    assert "green,urgent,bulk,service" in result.stderr


def test_a_role_alone_asks_for_the_clusters_servers(run: Run) -> None:
    """Separate roles on one SQLite file would corrupt each other's work."""
    result = run("worker")
    assert result.exit_code == 2
    assert "MINGLUO_AMQP_URL" in result.stderr


def test_a_checkpoint_kept_elsewhere_proves_the_chain(run: Run, tmp_path: Path) -> None:
    """A chain that was cut and written anew agrees with itself; only what lies outside it can tell."""
    assert run("halt", "all").exit_code == 0
    kept = tmp_path / "kept.json"
    kept.write_text(run("audit", "checkpoint").stdout)
    assert json.loads(kept.read_text()).keys() == {"seq", "hash"}
    assert run("halt", "all", "--off").exit_code == 0
    assert run("audit", "verify", "--checkpoint", kept).exit_code == 0
    kept.write_text(json.dumps({"seq": 1_000, "hash": "0" * 64}))
    broken = run("audit", "verify", "--checkpoint", kept)
    assert (broken.exit_code, "to 1000 are missing at the end" in broken.stderr) == (1, True)
    kept.write_text("[]")
    unread = run("audit", "verify", "--checkpoint", kept)
    assert (unread.exit_code, "not a checkpoint" in unread.stderr) == (2, True)


# --- through the API ------------------------------------------------------------------------------


class Gateway:
    """A gateway that answers as it is told and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, str, bytes]] = []
        self.answer: tuple[int, Any, dict[str, str]] = (200, {}, {})
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Keep the request, give the answer."""
        head = request.headers
        body = await request.read()
        self.asked.append(
            (request.method, request.path_qs, head.get("Authorization", ""), head.get("Content-Type", ""), body)
        )
        status, answer, headers = self.answer
        return web.json_response(answer, status=status, headers=headers)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    """A gateway on loopback."""
    fake, served = Gateway(), web.Application()
    served.router.add_route("*", "/{path:.*}", fake.handle)
    server = TestServer(served)
    await server.start_server()
    fake.url = str(server.make_url("")).rstrip("/")
    yield fake
    await server.close()


async def ask(run: Run, gateway: Gateway, *arguments: object, token: str = "secret-token") -> Result:  # opens nothing
    """Run a command against the gateway, beside the loop that serves it."""
    return await asyncio.to_thread(run, *arguments, MINGLUO_URL=gateway.url, MINGLUO_TOKEN=token)


SPOKEN = (
    "--name", "王某", "--post", "带班领导", "--number", "0396-0000000", "--at", "2026-07-20T14:05", "--witness", "李某",
)  # fmt: skip
HEARD = {
    "name": "王某", "post": "带班领导", "number": "0396-0000000", "at": "2026-07-20T14:05:00+08:00", "recording": "",
    "witness": "李某",
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "method", "path", "body"),
    [
        (("approve", "a1"), "POST", "/v1/alerts/a1/approve", {}),
        (("reject", "a1", "--reason", "wrong"), "POST", "/v1/alerts/a1/reject", {"reason": "wrong"}),
        (("cancel", "a1", "--note", "over"), "POST", "/v1/alerts/a1/cancel", {"note": "over"}),
        (("correct", "a1"), "POST", "/v1/alerts/a1/correct", {"note": ""}),
        (("recall", "a1", "--reason", "wrong"), "POST", "/v1/alerts/a1/recall", {"reason": "wrong"}),
        (("confirm", "a1", "--person", "4611686018427387903"), "POST", "/v1/alerts/a1/confirmations",
         {"person": "4611686018427387903", "how": "phone", "note": ""}),
        (("confirm", "a1", "--village", "411726204200", "--how", "visit"), "POST", "/v1/alerts/a1/confirmations",
         {"village": "411726204200", "how": "visit", "note": ""}),
        (("submit", "a1"), "POST", "/v1/alerts/a1/submit", {}),
        (("return", "a1", "--reason", "wrong"), "POST", "/v1/alerts/a1/return", {"reason": "wrong"}),
        (("withdraw", "a1", "--reason", "wrong"), "POST", "/v1/alerts/a1/withdraw", {"reason": "wrong"}),
        (("release", "a1"), "POST", "/v1/alerts/a1/release", {}),
        (("join", "a1"), "POST", "/v1/alerts/a1/join", {}),
        (("join", "a1", "--partner", "411726-slj", *SPOKEN), "POST", "/v1/alerts/a1/join",
         {"partner": "411726-slj", "call": HEARD}),
        (("alone", "a1"), "POST", "/v1/alerts/a1/alone", {}),
        (("authorise", "a1", *SPOKEN), "POST", "/v1/alerts/a1/authorise", HEARD),
        (("consult", "a1", "--participant", "张某", "--at", "2026-07-20T13:40", "--conclusion", "联合发布"), "POST",
         "/v1/alerts/a1/consultation",
         {"at": "2026-07-20T13:40:00+08:00", "participants": ["张某"], "conclusion": "联合发布"}),
        (("life", "a1"), "GET", "/v1/alerts/a1/decisions", None),
        (("duty",), "GET", "/v1/obligations?hours=24&unanswered=true", None),
        (("answer", "a1", "review", "endorsed"), "POST", "/v1/obligations/a1/review",
         {"answer": "endorsed", "remark": ""}),
        (("emergency", "start", "411726", "--reason", "特大", *SPOKEN), "POST", "/v1/emergency",
         {"area": "411726", "reason": "特大", "call": HEARD}),
        (("emergency", "renew", "e1"), "POST", "/v1/emergency/e1/renew", {}),
        (("emergency", "end", "e1"), "POST", "/v1/emergency/e1/end", {}),
        (("emergency", "list"), "GET", "/v1/emergency", None),
        (("break-glass", "new", "--issuer", "411726-qxj", "--label", "一号"), "POST", "/v1/break-glass/codes",
         {"issuer": "411726-qxj", "label": "一号"}),
        (("break-glass", "list"), "GET", "/v1/break-glass/codes", None),
        (("reply", "list"), "GET", "/v1/replies", None),
        (("reply", "settle", "r1", "heard", "--person", "7", "--person", "8"), "POST", "/v1/replies/r1",
         {"meaning": "heard", "people": ["7", "8"]}),
        (("reply", "settle", "r1", "other"), "POST", "/v1/replies/r1", {"meaning": "other", "people": []}),
        (("incident", "list"), "GET", "/v1/incidents?hours=24&undecided=true", None),
        (("incident", "decide", "i1", "refer", "--reason", "已转应急局"), "POST", "/v1/obligations/i1/incident",
         {"answer": "refer", "remark": "已转应急局"}),
        (("halt", "all"), "POST", "/v1/halt", {"scope": "*", "on": True}),
        (("halt", "411726", "--off"), "POST", "/v1/halt", {"scope": "411726", "on": False}),
        (("stuck",), "GET", "/v1/stuck", None),
        (("status", "../x"), "GET", "/v1/alerts/..%2Fx/status", None),
        (("list", "--standing", "held"), "GET", "/v1/alerts?limit=20&standing=held", None),
        (("list", "--level", "red", "--level", "orange", "--hazard", "11B", "--area", "4117", "--issuer", "x",
          "--status", "Actual", "--document", "warning", "--since", "2026-07-20T14:00", "--until", "2026-07-21"), "GET",
         "/v1/alerts?limit=20&status=Actual&document=warning&level=red&level=orange&hazard=11B&area=4117&issuer=x"
         "&since=2026-07-20T14:00&until=2026-07-21", None),
        (("audit", "verify"), "GET", "/v1/audit/verify", None),
        (("audit", "checkpoint"), "GET", "/v1/audit/checkpoint", None),
        (("audit", "list", "--after", "5"), "GET", "/v1/audit?after=5&limit=100", None),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)  # fmt: skip
async def test_each_command_asks_its_own_route(
    run: Run, gateway: Gateway, words: tuple[str, ...], method: str, path: str, body: object
) -> None:
    """A recall that goes elsewhere stops nothing."""
    result = await ask(run, gateway, *words)
    assert result.exit_code == 0, result.output
    ((asked, where, authorization, media, sent),) = gateway.asked
    assert (asked, where, authorization) == (method, path, "Bearer secret-token")
    if body is not None:
        assert (media, json.loads(sent)) == ("application/json", body)


@pytest.mark.parametrize(
    "words",
    [
        ("authorise", "a1"),
        ("join", "a1", "--partner", "411726-slj"),
        ("emergency", "start", "411726", "--reason", "雨"),
    ],
    ids=" ".join,
)
async def test_whom_one_telephoned_is_asked_for(gateway: Gateway, words: tuple[str, ...]) -> None:
    """Names and numbers given as arguments are seen by every user of the machine, and stay in its history."""
    arguments = [*words, "--at", "2026-07-20T14:05", "--witness", "李某", "--json"]
    typed, environment = "王某\n带班领导\n0396-0000000\n", {"MINGLUO_URL": gateway.url, "MINGLUO_TOKEN": "secret-token"}
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments, input=typed, env=environment)
    assert result.exit_code == 0, result.output
    sent = json.loads(gateway.asked[0][4])
    assert sent.get("call", sent) == HEARD
    assert "number:" in result.stderr  # stdout is the answer's


async def test_a_long_list_is_followed_over_its_pages(run: Run, gateway: Gateway) -> None:
    """Whoever asks for 250 must not read 200 and believe that is all; a short page is not the end."""
    gateway.answer = (200, {"alerts": [{"id": "a1"}] * 100, "next": "1.a"}, {})
    result = await ask(run, gateway, "list", "--limit", "250", "--json")
    assert json.loads(result.stdout)["next"] == "1.a"
    assert [asked[1] for asked in gateway.asked] == [
        "/v1/alerts?limit=200", "/v1/alerts?limit=150&after=1.a", "/v1/alerts?limit=50&after=1.a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "media"), [("red_rainstorm.xml", "application/cap+xml"), ("red_rainstorm.json", "application/json")]
)
async def test_a_message_is_sent_byte_by_byte_under_its_own_type(
    run: Run, gateway: Gateway, name: str, media: str
) -> None:
    """A signature inside a message survives only if nobody rewrites it."""
    gateway.answer = (202, {"id": "a1", "result": "held", "route": "normal", "held": ["unresolved: 某乡"]}, {})
    result = await ask(run, gateway, "issue", MESSAGES / name)
    assert gateway.asked[0][3:] == (media, (MESSAGES / name).read_bytes())
    assert "held: unresolved: 某乡" in result.stdout
    assert "mingluo approve a1" in result.stderr


@pytest.mark.parametrize(
    ("more", "first"),
    [
        ({}, "accepted: it is on its way"),
        ({"halts": ["all"]}, "accepted, but HALTED (all): nothing leaves until released"),
        ({"halts": ["411726"]}, "accepted, but HALTED (411726): nothing leaves there until released"),
        ({"warnings": [{"code": "reaches_nobody"}]}, "accepted, but it reaches NOBODY"),
        ({"warnings": [{"code": "no_officials"}]}, "accepted, but it reaches NO OFFICIALS"),
    ],
)
async def test_the_first_line_never_hides_that_nothing_leaves(
    run: Run, gateway: Gateway, more: dict[str, object], first: str
) -> None:
    """At 02:30 only the first line is read."""
    gateway.answer = (202, {"id": "a1", "result": "accepted", "route": "green"} | more, {})
    for words in (("issue", MESSAGES / "red_rainstorm.xml"), ("approve", "a1")):
        result = await ask(run, gateway, *words)
        assert result.stdout.splitlines()[0] == first


async def test_what_is_stuck_is_told_with_what_to_do(run: Run, gateway: Gateway) -> None:
    """A reason alone helps nobody at night; once the list is empty, that is said, too."""
    one = {"alert": "a1", "channel": "sms_twilio", "lane": "urgent", "county": "411726", "batches": 3}
    one |= {"reason": "channel_down", "since": "2026-07-20T09:00:00Z", "until": "2026-07-20T09:00:30Z"}
    gateway.answer = (200, {"waiting": [one]}, {})
    result = await ask(run, gateway, "stuck")
    assert "17:00:30" in result.stdout
    assert "the carrier serves nobody" in result.stderr
    gateway.answer = (200, {"waiting": []}, {})
    assert "nothing waits" in (await ask(run, gateway, "stuck")).stderr


async def test_status_shows_a_halt_and_the_time_in_china(run: Run, gateway: Gateway) -> None:
    """Eight hours of difference to the clock on the wall are a wrong end of a warning."""
    gateway.answer = (
        200, {"alert": "a1", "standing": "active", "halts": ["all"], "expires": "2026-07-20T09:00:00Z"}, {},
    )  # fmt: skip
    result = await ask(run, gateway, "status", "a1")
    assert "HALTED (all): nothing leaves until released" in result.stdout
    assert "expires: 2026-07-20 17:00:00+08:00" in result.stdout
    assert "mingluo halt all --off" in result.stderr


@pytest.mark.parametrize(
    ("standing", "villages", "first"),
    [
        ("sign", {"gap": 2}, "HELD for a signature, nothing has left"),
        ("active", {"confirmed": 1, "sms_only": 2}, "active, 2 of 3 villages NOT REACHED (1 confirmed, 0 played)"),
        ("active", {"confirmed": 1, "played": 2}, "active, all 3 villages reached (1 confirmed, 2 played)"),
        ("active", {"played": 2}, "active, all 2 villages reached (0 confirmed, 2 played); calling goes on"),
        ("stopped", {"gap": 2}, "over (recalled)"),
    ],
)  # fmt: skip
async def test_status_says_first_which_warning_and_how_many_villages_are_open(
    run: Run, gateway: Gateway, standing: str, villages: dict[str, int], first: str
) -> None:
    """At 02:30 nobody knows a warning by its id, and a list of villages scrolls the rest away."""
    gateway.answer = (200, {
        "alert": "a1", "event": "大风", "level": "orange", "kind": "Alert", "status": "Actual", "standing": standing,
        "reason": "recalled" if standing == "stopped" else "", "villages": villages,
        "wanting": [] if "confirmed" in villages else [{"code": "4", "state": "played"}],
    }, {})  # fmt: skip
    assert (await ask(run, gateway, "status", "a1")).stdout.splitlines()[0] == f"大风 orange: {first}"


async def test_status_does_not_hide_behind_loudspeakers_that_no_official_was_reached(
    run: Run, gateway: Gateway
) -> None:
    """Every village has played, and the forty who are to lead people out know nothing: that is the first line."""
    failed = {"group": "officials", "channel": "sms_http", "state": "failed", "recipients": 38}
    told = {"alert": "a1", "event": "暴雨", "level": "red", "standing": "active", "villages": {"played": 2}}
    gateway.answer = (200, told | {"counts": [failed]}, {})
    assert "NO OFFICIAL REACHED" in (await ask(run, gateway, "status", "a1")).stdout.splitlines()[0]
    gateway.answer = (200, told | {"counts": [failed, failed | {"state": "submitted", "recipients": 1}]}, {})
    assert "NO OFFICIAL" not in (await ask(run, gateway, "status", "a1")).stdout


async def test_status_names_each_village_once_with_all_that_is_known_of_it(run: Run, gateway: Gateway) -> None:
    """Whoever reads the list down the telephone calls nobody twice, and those no loudspeaker reaches first."""
    one, two, three = ({"code": f"41172620420{n}", "name": f"村{n}", "state": "gap"} for n in (1, 2, 3))
    four = {"code": "411726204204", "name": "村4", "state": "played"}
    gateway.answer = (200, {
        "alert": "a1", "standing": "active", "villages": {"gap": 3, "played": 1}, "gaps": [one, two, three],
        "mute": [two], "mute_planned": [two, three, four], "wanting": [one, two, three, four], "away": [one, two],
        "deputised": [one],
    }, {})  # fmt: skip
    lines = (await ask(run, gateway, "status", "a1")).stdout.splitlines()
    assert [line for line in lines if line.startswith("  4117") or line.endswith("):")] == [
        "gaps: nobody has confirmed, no loudspeaker has played (3):",
        "  411726204202 村2 (gap; no working loudspeaker: call first; not at post: call the deputy)",
        "  411726204201 村1 (gap; not at post, the deputy was told)",
        "  411726204203 村3 (gap; no working loudspeaker as it began)",
        "played, but nobody has confirmed: calling goes on (1):",
        "  411726204204 村4 (played; no working loudspeaker as it began)",
    ]


async def test_status_says_what_waits_for_the_morning_and_calls_no_all_clear_a_failure(
    run: Run, gateway: Gateway
) -> None:
    """At night the all-clear leaves loudspeakers asleep (D14); a duty officer must not read that villages were lost."""
    morning = datetime.now(UTC) + timedelta(hours=4)
    step = {"group": "loudspeakers", "channel": "loudspeaker", "notice": "all_clear", "at": morning.isoformat()}
    past = step | {"group": "residents", "at": "2026-07-20T06:00:00Z"}
    gateway.answer = (200, {
        "alert": "a1", "event": "暴雨", "level": "red", "kind": "Cancel", "standing": "active", "villages": {"gap": 2},
        "confirmation_wanted": False, "later": [step, past],
    }, {})  # fmt: skip
    lines = (await ask(run, gateway, "status", "a1")).stdout.splitlines()
    assert "2 of 2 villages not told yet" in lines[0]
    assert [line for line in lines if "waits until" in line] == [
        f"loudspeakers (loudspeaker): all_clear waits until {answer.clock(morning.isoformat())}"
    ]


@pytest.mark.parametrize(
    ("standing", "first", "next_"),
    [("review", "reviewed and signed", "A reviewer"), ("sign", "signed", "A signer")],
)  # fmt: skip
async def test_what_is_held_names_whom_it_waits_for(
    run: Run, gateway: Gateway, standing: str, first: str, next_: str
) -> None:
    """The reviewer who has just approved must not read that a second person is to decide."""
    gateway.answer = (202, {"id": "a1", "result": "held", "standing": standing}, {})
    result = await ask(run, gateway, "approve", "a1")
    assert result.stdout.splitlines()[0] == f"held: nothing leaves before it is {first}"
    assert f"{next_}: mingluo approve a1" in result.stderr


@pytest.mark.parametrize("command", ["correct", "preview"])
async def test_what_holds_a_warning_is_said_once(run: Run, gateway: Gateway, command: str) -> None:
    """The same sentence as a reason and as a hold reads as two things to be dealt with."""
    hold, other = "correction: it waits for a signer", "issuer: not pre-authorised"
    gateway.answer = (200, PREVIEW | {"result": "held", "reasons": [other, hold], "held": [hold]}, {})
    shown = (await ask(run, gateway, command, MESSAGES / "red_rainstorm.xml" if command == "preview" else "a1")).stdout
    assert (shown.count(hold), shown.count(other)) == (1, 1)
    assert f"held: {hold}" in shown


def test_an_id_is_never_folded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is there to be copied into the next command, on a terminal of 80 columns as well."""
    alert = {
        "id": "3f6c0a9d21b47e5588aa", "sent": "2026-07-20T05:58:00Z", "status": "Exercise", "kind": "Correction",
        "event": "雷雨大风", "level": "orange", "standing": "suppressed", "by": "411726-qxj/泌阳带班领导",
    }  # fmt: skip
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    answer.show_alerts({"alerts": [alert]})
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "3f6c0a9d21b47e5588aa" in line]
    assert "07-20 13:58" in row


@pytest.mark.parametrize(
    ("status", "scope", "what"),
    [("Actual", "Public", "暴雨 red"), ("Exercise", "Public", "暴雨 red EXERCISE"), ("Test", "", "暴雨 red TEST"),
     ("Actual", "Restricted", "暴雨 red RESTRICTED"), ("Actual", "Private", "暴雨 red PRIVATE")],
)  # fmt: skip
def test_a_list_tells_what_is_not_for_everybody_or_not_real(
    capsys: pytest.CaptureFixture[str], status: str, scope: str, what: str
) -> None:
    """Who reads a red one off the list and telephones it on must see that it is a drill, or for officials alone."""
    answer.show_alerts({"alerts": [{"id": "a1", "event": "暴雨", "level": "red", "status": status, "scope": scope}]})
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("a1")]
    assert row.strip().endswith(what)


def test_a_list_says_first_what_is_halted(capsys: pytest.CaptureFixture[str]) -> None:
    """A list of active warnings looks as if they were on their way."""
    answer.show_alerts({"alerts": [], "halts": ["411726"]})
    assert capsys.readouterr().out.startswith("HALTED (411726): nothing leaves there")


async def test_a_preview_marks_townships_nobody_hears_in(run: Run, gateway: Gateway) -> None:
    """A zero in a long table is overlooked; and speech has no SMS segments."""
    gateway.answer = (200, {
        "townships": [{"township": {"code": "411726204", "name": "泌阳县铜山乡"}, "villages": 18, "officials": 7}],
        "texts": [{"channel": "loudspeaker_ws", "units": 9, "segments": 2, "text": "…"}],
    }, {})  # fmt: skip
    result = await ask(run, gateway, "preview", MESSAGES / "red_rainstorm.xml")
    (row,) = [line.split() for line in result.stdout.splitlines() if line.strip().startswith("411726204")]
    assert row == ["411726204", "铜山乡", "18", "7", *["0", "!"] * 3]
    assert "segments" not in result.stdout


PREVIEW: dict[str, Any] = {
    "at": "2026-07-20T06:30:00Z", "event": "暴雨", "level": "yellow", "status": "Actual", "would_be_held": True,
    "deciders": ["带班领导"], "held": ["limit: many"], "issuer": "泌阳县气象局",
    "times": [
        {"group": "officials", "notice": "issue", "recipients": 76, "first": "2026-07-20T06:30:00Z",
         "last": "2026-07-20T06:30:02Z"},
        {"group": "residents", "notice": "issue", "recipients": 40000, "first": "2026-07-20T06:30:02Z",
         "last": "2026-07-20T06:40:31Z"},
    ],
    "steps": [{"step": 2, "group": "residents", "channel": "sms_twilio", "per_s": 64.0}],
    "texts": [{"channel": "sms_twilio", "group": "residents", "notice": "issue", "units": 73, "segments": 2,
               "text": "【[red]局】长", "cut": ["trend"]}],
    "warnings": [{"code": "long", "severity": "info", "message": "i"},
                 {"code": "missing_time", "severity": "error", "message": "e"}],
    "conflicts": [{"code": "same_issuer", "severity": "warning", "message": "issue an Update"}],
    "dropped": [{"group": "residents", "channel": "x", "notice": "issue", "why": "has expired"}],
    "gaps": [{"village": {"code": "4", "name": "泌阳县铜山乡甲村"}, "official": False, "loudspeaker": False}],
}  # fmt: skip


async def test_a_preview_is_read_from_the_top(run: Run, gateway: Gateway) -> None:
    """At 02:30: does it go, who decides, whom it reaches, the words, what is wrong, and when the last one hears."""
    gateway.answer = (200, PREVIEW, {})
    shown = (await ask(run, gateway, "preview", MESSAGES / "red_rainstorm.xml")).stdout
    order = [
        "would be held for a second person", "decides: 带班领导",
        "with neither an official nor a working loudspeaker: 铜山乡甲村",
        "73 units, 2 SMS segments, shortened: trend", "【[red]局】长", "error: missing_time: e", "note: long: i",
        "warning: same_issuer: issue an Update", "officials 76: within 2 s",
        "residents 40,000: from now on, the last by 14:41 (sms_twilio takes 64 a second)",
        "never sent: residents by x, issue: has expired",
    ]  # fmt: skip
    places = [shown.index(text) for text in order]
    assert places == sorted(places)


async def test_a_preview_of_a_drill_says_that_it_is_none(run: Run, gateway: Gateway) -> None:
    """The officer who previews a drill must not take it for the night's warning, nor the reverse."""
    gateway.answer = (200, PREVIEW | {"status": "Exercise"}, {})
    shown = (await ask(run, gateway, "preview", MESSAGES / "red_rainstorm.xml")).stdout
    assert "not a real warning" in shown


async def test_a_preview_of_another_version_is_told_as_far_as_it_goes(run: Run, gateway: Gateway) -> None:
    """Gateway and command line are not always updated in the same minute."""
    for key in (*PREVIEW, ""):
        gateway.answer = (200, {name: value for name, value in PREVIEW.items() if name != key and key}, {})
        assert (await ask(run, gateway, "preview", MESSAGES / "red_rainstorm.xml")).exit_code == 0


async def test_a_refusal_shows_every_finding(run: Run, gateway: Gateway) -> None:
    """The sender mends the message in one go, and a script sees the no."""
    findings = [{"code": "invalid_date", "element": "sent", "line": 4, "message": "write a zone"}]
    answer = {"title": "Bad Request", "status": 400, "detail": "1 error in the message; mend it", "errors": findings}
    gateway.answer = (400, answer, {})
    result = await ask(run, gateway, "preview", MESSAGES / "cancel.xml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "mingluo: 1 error in the message; mend it",
        "mingluo:   sent: line 4: invalid_date: write a zone",
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, {}, {}), "does not know this token"),
        ((302, {}, {"Location": "http://elsewhere.example/"}), "redirects to http://elsewhere.example/"),
        ((503, {"detail": "the database does not answer"}, {}), "the database does not answer"),
    ],
)
async def test_what_cannot_be_asked_ends_with_two_and_never_shows_the_token(
    run: Run, gateway: Gateway, answer: tuple[int, Any, dict[str, str]], words: str
) -> None:
    """A token on a screen or sent to another host is a stolen token; a script tells a no from a broken line."""
    gateway.answer = answer
    result = await ask(run, gateway, "list")
    assert result.exit_code == 2
    assert words in result.stderr
    assert "secret-token" not in result.output
    assert len(gateway.asked) == 1


def test_without_token_or_gateway_the_command_says_so(run: Run) -> None:
    """The two commonest mistakes with the API."""
    assert "MINGLUO_TOKEN" in run("list").stderr
    nobody = run("list", MINGLUO_URL="http://127.0.0.1:1", MINGLUO_TOKEN="t")
    assert (nobody.exit_code, len(nobody.stderr.splitlines())) == (2, 1)
    assert "does not answer" in nobody.stderr


def test_without_a_token_the_demo_tokens_are_named(run: Run) -> None:
    """A newcomer needs three people: one who issues, one who approves, one who notes confirmations."""
    said = run("list").stderr
    assert all(f"demo-411726-qxj-{role}" in said for role in ("issuer", "signer", "clerk"))


async def test_an_unknown_alert_names_the_command_that_lists_them(run: Run, gateway: Gateway) -> None:
    """Ids have 20 characters; nobody knows one by heart."""
    gateway.answer = (404, {"detail": "there is no such alert in your area"}, {})
    assert "mingluo list" in (await ask(run, gateway, "status", "a1")).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--level", "purple"), "use one of unknown, blue, yellow, orange, red"),
        (("--standing", "waiting"), "use one of held, draft"),
        (("--since", "yesterday"), "write it as 2026-07-20T14:00"),
        (("--area", "泌阳"), "write the code of a place"),
    ],
)
def test_a_wrong_filter_says_what_it_takes(run: Run, words: tuple[str, str], said: str) -> None:
    """No schema has to be read to list the night's warnings."""
    result = run("list", *words, MINGLUO_TOKEN="t")
    assert (result.exit_code, said in result.stderr) == (2, True)


async def test_words_of_a_filter_are_taken_in_any_case(run: Run, gateway: Gateway) -> None:
    """The gateway writes Exercise and red."""
    gateway.answer = (200, {"alerts": [], "next": None}, {})
    await ask(run, gateway, "list", "--status", "exercise", "--level", "RED")
    assert gateway.asked[0][1] == "/v1/alerts?limit=20&status=Exercise&level=red"


def test_an_empty_file_is_no_message(run: Run, tmp_path: Path) -> None:
    """It is what a failed command before it has left behind."""
    (tmp_path / "alert.xml").touch()
    for words in (("issue",), ("preview",), ("draft",), ("amend", "a1")):
        assert "alert.xml: empty" in run(*words, tmp_path / "alert.xml", MINGLUO_TOKEN="t").stderr


async def test_a_refusal_with_one_finding_is_said_once(run: Run, gateway: Gateway) -> None:
    """The same sentence twice reads like two faults."""
    text = "area: 遂平县 lies outside"
    gateway.answer = (403, {"detail": text, "errors": [{"code": "area", "message": text}]}, {})
    assert (await ask(run, gateway, "approve", "a1")).stderr.splitlines() == [f"mingluo: {text}"]


@pytest.mark.parametrize("who", [(), ("--person", "7", "--village", "411726204200")])
def test_a_confirmation_names_a_person_or_a_village(run: Run, who: tuple[str, ...]) -> None:
    """Of neither nothing would be known, and of both nobody could say which of them the clerk meant."""
    result = run("confirm", "a1", *who, MINGLUO_TOKEN="t")
    assert result.exit_code == 2
    assert "--village CODE" in result.stderr


def test_a_township_is_no_village(run: Run) -> None:
    """Nine digits are a township, which nobody answers for as a whole: said before anything is sent."""
    result = run("confirm", "a1", "--village", "411726204", MINGLUO_TOKEN="t")
    assert (result.exit_code, "12 digits" in result.stderr) == (2, True)


async def test_deliveries_show_the_ids_confirm_takes(run: Run, gateway: Gateway) -> None:
    """A clerk on the telephone finds the official's id without knowing the API; no further page is left out."""
    row = {"recipient": "77120931", "township": "411726204", "village": "411726204200", "state": "submitted"}
    gateway.answer = (200, {"deliveries": [row], "next": None}, {})
    result = await ask(run, gateway, "deliveries", "a1", "--group", "officials")
    assert "77120931" in result.stdout
    assert gateway.asked[0][1] == "/v1/alerts/a1/deliveries?group=officials"


async def test_a_broken_chain_behind_the_api_ends_with_one(run: Run, gateway: Gateway) -> None:
    """A nightly job that verifies the chain notices."""
    gateway.answer = (200, {"whole": False, "records": 41, "wrong": "record 42 is missing"}, {})
    result = await ask(run, gateway, "audit", "verify")
    assert result.exit_code == 1
    assert "broken after record 41: record 42 is missing" in result.stderr


# --- a whole gateway ------------------------------------------------------------------------------


def warning(folder: Path) -> Path:
    """Write a red warning of 泌阳县气象局 for 铜山乡, sent now."""
    now = datetime.now(UTC).replace(microsecond=0)
    message = json.loads((MESSAGES / "red_rainstorm.json").read_bytes()) | {
        "sender": "411726-qxj@mingluo.example", "sent": now.isoformat(),
        "expires": (now + timedelta(hours=3)).isoformat(),
        "areas": [{"description": "泌阳县铜山乡", "geocodes": {"township": ["411726204"]}}],
    }  # fmt: skip
    path = folder / "warning.json"
    path.write_text(json.dumps(message, ensure_ascii=False), encoding="utf8")
    return path


@contextmanager
def environment(**variables: str) -> Iterator[dict[str, str]]:
    """Yield a child's environment: ours without our settings, and these."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MINGLUO_")}
    yield ours | variables


async def started(*arguments: str, **variables: str) -> tuple[asyncio.subprocess.Process, str]:
    """Start `mingluo` as a process of its own; return it and its first line of output, on either stream."""
    with environment(**variables) as inherited:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.cli", *arguments, cwd=ROOT, env=inherited,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
    assert process.stdout is not None
    return process, (await asyncio.wait_for(process.stdout.readline(), 60)).decode()


async def ended(process: asyncio.subprocess.Process) -> int:
    """Ask a process to end; return its exit code."""
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode


async def test_serve_takes_a_warning_and_ends_in_order(run: Run, tmp_path: Path) -> None:
    """The way an office tries it: serve, preview, issue, status, Ctrl-C; and SIGTERM ends without an error."""
    channels = tmp_path / "channels.toml"
    channels.write_text("[noop]\n[loudspeaker_ws]\n", encoding="utf8")
    process, first = await started(
        "serve", "--port", "0", MINGLUO_DATA=str(tmp_path / "var"), MINGLUO_CHANNELS=str(channels)
    )
    try:
        url = next(word for word in first.split() if word.startswith("http://"))
        tokens = {"MINGLUO_URL": url, "MINGLUO_TOKEN": "demo-411726-qxj-issuer"}
        message = warning(tmp_path)
        seen = await asyncio.to_thread(run, "preview", message, **tokens)
        assert "would be accepted, but it reaches NOBODY" in seen.stdout, seen.output
        issued = await asyncio.to_thread(run, "issue", message, "--json", **tokens)
        alert = json.loads(issued.stdout)["id"]
        shown = await asyncio.to_thread(run, "status", alert, **tokens)
        assert "villages (18): 0 confirmed" in shown.stdout
        listed = await asyncio.to_thread(run, "list", **tokens)
        assert alert in listed.stdout
        own = await asyncio.to_thread(run, "approve", alert, **tokens)
        assert own.exit_code == 1
        second = await asyncio.to_thread(run, "halt", "all")
        assert "belongs to the running gateway" in second.stderr
    finally:
        code = await ended(process)
    assert code == 0


async def test_serve_says_that_its_port_is_taken(gateway: Gateway, tmp_path: Path) -> None:
    """The commonest reason why a gateway does not start."""
    port = gateway.url.rsplit(":", 1)[1]
    process, first = await started("serve", "--port", port, MINGLUO_DATA=str(tmp_path / "var"))
    rest, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert f":{port}: another process listens there" in first + rest.decode()
    assert "Traceback" not in first + rest.decode()


def test_a_broken_channel_file_stops_the_start_with_one_line(run: Run, tmp_path: Path) -> None:
    """Nothing was opened yet, so nothing has to be cleaned up."""
    (tmp_path / "channels.toml").write_text("[noop\n", encoding="utf8")
    result = run("serve", "--port", "0", MINGLUO_CHANNELS=str(tmp_path / "channels.toml"))
    assert result.exit_code == 2
    assert result.stderr.startswith("mingluo: channels.toml: not valid TOML")
    assert not (tmp_path / "var").exists()


async def test_a_planner_of_a_cluster_gives_way_to_urgent_work(
    amqp_url: str, redis_url: str, database_url: str, namespace: str, tmp_path: Path
) -> None:
    """Planning a million must not delay a red warning on the same machine: nice 15, and an end in order."""
    cluster = {
        "MINGLUO_AMQP_URL": amqp_url,
        "MINGLUO_REDIS_URL": redis_url,
        "MINGLUO_DATABASE_URL": database_url,
        "MINGLUO_NAMESPACE": namespace,
        "MINGLUO_SECRET_KEY": base64.b64encode(bytes(32)).decode(),
        "MINGLUO_DATA": str(tmp_path / "var"),
    }
    process, first = await started("planner", "--port", "0", **cluster)
    try:
        assert first.startswith("planner runs on 127.0.0.1:")
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 15
    finally:
        code = await ended(process)
    assert code == 0


# --- counterparts ---------------------------------------------------------------------------------


async def test_a_simulated_carrier_runs_until_it_is_told(tmp_path: Path) -> None:
    """An installation is proven without one real message; what arrived stands in the log."""
    log = tmp_path / "sms.jsonl"
    process, first = await started("simulate", "sms", "--port", "0", "--log", str(log))
    try:
        url = tomllib.loads(first)["base_url"]
        async with ClientSession() as session:
            account = "AC" + "0" * 32
            async with session.post(
                f"{url}/2010-04-01/Accounts/{account}/Messages.json",
                headers={"Authorization": encode_basic_auth(account, "simulated-token")},
                data={"To": "+8610012345678", "From": "+15005550006", "Body": "演练"},
            ) as answer:
                assert answer.status == 201
    finally:
        code = await ended(process)
    assert code == 0
    assert json.loads(log.read_text(encoding="utf8"))["body"] == "演练"


async def test_a_simulated_push_service_writes_subscriptions_that_can_be_imported(run: Run, tmp_path: Path) -> None:
    """Its browsers become subscribers of the installation."""
    table = tmp_path / "subscribers.csv"
    process, _ = await started(
        "simulate", "push", "--port", "0", "--log", str(tmp_path / "push.jsonl"), "--subscriptions", "3",
        "--out", str(table),
    )  # fmt: skip
    assert await ended(process) == 0
    imported = await asyncio.to_thread(run, "import", "subscribers", table)
    assert "3 rows, 0 failed, 3 added" in imported.stdout, imported.output


def test_simulated_loudspeakers_need_a_table_of_devices(run: Run, tmp_path: Path) -> None:
    """The wrong table would be a fleet that never connects."""
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf8")
    result = run("simulate", "speakers", tmp_path / "other.csv", "--log", tmp_path / "log")
    assert result.exit_code == 2
    assert "no devices with columns name and key" in result.stderr
    (tmp_path / "devices.csv").write_text("name,village,key\nlb-1,411726001001,k\n", encoding="utf8")
    for words, complaint in (
        (("--count", "2"), "lower --count"),
        (("--fault", "sleepy=0.1"), "one of: offline"),
        (("--pin", "rsa:x"), "ed25519:"),
    ):
        pin = () if "--pin" in words else ("--pin", f"ed25519:{'A' * 43}")
        result = run("simulate", "speakers", tmp_path / "devices.csv", "--log", tmp_path / "log", *words, *pin)
        assert result.exit_code == 2
        assert complaint in result.stderr
