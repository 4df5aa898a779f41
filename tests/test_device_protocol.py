"""docs/device-protocol.md and docs/asyncapi.yaml say what the gateway does: makers build from them alone."""

from __future__ import annotations

import base64
import json
import re
import runpy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from links import DEVICE_KEY, sample_message

from channels._loudspeaker_command import Span, head, order_frame, order_of, payload_of, span_of, time_of
from channels._loudspeaker_frame import NO_FAULT, STATES, Alarm, Condition, Told, events_of, parse, sounded_at, state_of
from gateway.channel import Play
from gateway.errors import Permanent
from gateway.model import Audio, Level, Notice, Order, Report, Status

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "device-protocol.md").read_text(encoding="utf8")
EXAMPLE = re.findall(r"```json\n(.*?)```", PAGE.split("## Worked example")[1], re.DOTALL)
SCRIPT = runpy.run_path(str(ROOT / "ops" / "make_asyncapi.py"))
DOCUMENT: dict[str, Any] = SCRIPT["document"]()
NOW = datetime(2026, 7, 20, 6, 0, tzinfo=UTC)
SOUND = Audio("https://gateway.example/v1/audio/a", "0" * 64, 98_304, 12.5, "audio/ogg")


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def told(frame: dict[str, Any], key: Ed25519PublicKey) -> bytes:
    """Open a command as the page says, with nothing of the gateway's code."""
    key.verify(decoded(frame["signature"]), f"{frame['protected']}.{frame['payload']}".encode("ascii"))
    return decoded(frame["payload"])


def checked(name: str) -> Callable[[object], None]:
    """Return a check against one schema of the description."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema)
    return validator.validate


def play(**changes: Any) -> Play:
    return Play("a.2.0", 12, 1, sample_message(**changes))


def order(kind: str, **values: object) -> Order:
    return Order("order-1", 1, kind, values, NOW + timedelta(hours=1))


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_worked_example_holds_and_is_what_the_gateway_writes() -> None:
    """A maker checks the own code against it: one wrong byte there and no device of theirs ever plays."""
    jwk, payload, frame = EXAMPLE[0], EXAMPLE[1].strip().encode(), orjson.loads(EXAMPLE[2])
    key = Ed25519PublicKey.from_public_bytes(decoded(json.loads(jwk)["x"]))
    assert told(frame, key) == payload
    assert orjson.loads(decoded(frame["protected"])) == {
        "alg": "EdDSA", "kid": json.loads(jwk)["kid"], "typ": "mingluo+json",
    }  # fmt: skip
    assert json.loads(jwk) == DEVICE_KEY.jwk
    assert f"`{DEVICE_KEY.pin}`" in PAGE
    assert bytes(range(32)).hex() in PAGE
    said = orjson.loads(payload)
    message = sample_message(
        alert=said["id"], notice=Notice.UPDATE, title=said["title"], text=said["text"], every_s=600,
        region="411726209", supersedes=said["supersedes"], expires=NOW + timedelta(hours=3),
    )  # fmt: skip
    mine = payload_of(Play(frame["batch"], 12, 1, message), message.text, None, NOW, 3)
    assert mine == payload
    assert head(DEVICE_KEY.sign(mine), frame["batch"]) + b"12}" == EXAMPLE[2].strip().encode()
    for receipt in EXAMPLE[3].strip().splitlines():
        checked("Told")(orjson.loads(receipt))
    with pytest.raises(InvalidSignature):
        told(frame | {"payload": frame["payload"][:-1] + "A"}, key)


def test_every_state_code_and_command_is_on_the_page() -> None:
    """What is not on the page, no device does."""
    commands = [schema["properties"]["command"]["enum"][0] for schema in signed().values()]
    codes = DOCUMENT["components"]["schemas"]["Error"]["properties"]["code"]["enum"]
    for word in (*STATES, *codes, *NO_FAULT, "done", "implausible", "not_heard"):
        assert f"`{word}`" in PAGE, word
    for word in commands:
        assert f'"command":"{word}"' in PAGE or f"### `{word}`" in PAGE, word
    for field in DOCUMENT["components"]["schemas"]["PlayCommand"]["properties"]:
        assert f"`{field}`" in PAGE or field == "to", field


# -- the description for machines --------------------------------------------------------------------------------------


def signed() -> dict[str, Any]:
    """Schemas of what travels signed."""
    one_of = DOCUMENT["components"]["schemas"]["Command"]["properties"]["payload"]["x-contentSchema"]["oneOf"]
    names = [one["$ref"].rsplit("/", 1)[1] for one in one_of]
    return {name: DOCUMENT["components"]["schemas"][name] for name in names}


def test_the_committed_description_is_what_the_script_writes() -> None:
    """Code generated from a stale description reads frames that nobody sends."""
    committed = (ROOT / "docs" / "asyncapi.yaml").read_text(encoding="utf8")
    assert committed == SCRIPT["text"](), "run: .venv/bin/python ops/make_asyncapi.py"


def test_every_pointer_leads_somewhere_and_both_roads_carry_the_same_frames() -> None:
    """A description with a loose end is refused by every tool that reads it."""

    def pointers(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [one for child in value.values() for one in pointers(child)]
        return [one for child in value for one in pointers(child)] if isinstance(value, list) else []

    for pointer in pointers(DOCUMENT):
        found: Any = DOCUMENT
        for part in pointer.removeprefix("#/").split("/"):
            found = found[part]
    assert DOCUMENT["asyncapi"] == "3.0.0"
    channels = DOCUMENT["channels"]
    assert channels["socket"]["bindings"]["ws"]["method"] == "GET"
    both = {*channels["mqttCommand"]["messages"], *channels["mqttTold"]["messages"]}
    assert set(channels["socket"]["messages"]) == both
    mqtt = [one["bindings"]["mqtt"] for one in DOCUMENT["operations"].values() if "bindings" in one]
    assert [(one["qos"], one["retain"]) for one in mqtt] == [(1, False), (1, False), (1, False), (1, True)]


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("PlayCommand", payload_of(play(), "有强降雨", None, NOW, 3)),
        ("PlayCommand", payload_of(play(status=Status.EXERCISE, level=Level.UNKNOWN), "Rain", SOUND, NOW, 1)),
        ("PlayCommand", payload_of(play(every_s=600, supersedes=("a" * 20,)), "", None, NOW, 10)),
        ("StopCommand", payload_of(Play("a", 1, 1, sample_message(), stop=True), "", None, NOW, 3)),
        ("HushCommand", payload_of(Play("a", 1, 1, sample_message(), hush=True), "", None, NOW, 3)),
        ("VolumeOrder", order_of(order("volume", volume=70), "horn-1", NOW)),
        (
            "VolumeOrder",
            order_of(
                order("volume", volume=70, floor={"red": 90}, night={"from": "22:00", "until": "06:00", "volume": 40}),
                "horn-1",
                NOW,
            ),
        ),
        ("SelfTestOrder", order_of(order("self_test", audible=True), "horn-1", NOW)),
        ("ConfigOrder", order_of(order("config", gain=3, name="东庄"), "horn-1", NOW)),
        ("ClockOrder", order_of(order("clock"), "horn-1", NOW, "n" * 22)),
        ("TimeCommand", time_of("horn-1", "n" * 22, NOW)),
    ],
)
def test_what_is_signed_fits_its_description(name: str, payload: bytes) -> None:
    """Both the maker's parser and ours are made from it."""
    checked(name)(orjson.loads(payload))
    frame = orjson.loads(order_frame(DEVICE_KEY.sign(payload)))
    checked("Command")(frame)
    assert told(frame, DEVICE_KEY.key.public_key()) == payload
    assert frame["batch"] == "order"


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "hello", "protocol": 2, "firmware": "2.1.0", "speech": True, "audio": False},
        {"type": "hello", "protocol": 2, "speech": True, "nonce": "q83vEjRWeJCrze8SNFZ4kA"},
        {"type": "receipt", "id": "a", "batch": "a.1.0", "position": 1, "state": "played", "code": "", "heard_s": 41.5},
        {"type": "receipt", "order": "order-1", "state": "done", "code": ""},
        {
            "type": "state",
            "clock": "2026-07-20T06:00:03Z",
            "volume": 70,
            "power": "mains",
            "faults": [],
            "playing": None,
        },
        {"type": "alarm", "alarm": "3f0e6e0a-9a5c-4a59-8f0c-2a6f5d3f1b7e", "at": "2026-07-20T14:00:03+08:00"},
    ],
)
def test_the_frames_of_the_page_are_read_and_fit_their_description(frame: dict[str, Any]) -> None:
    """The examples on the page are what makers send first."""
    name = type(parse(orjson.dumps(frame))).__name__
    checked(name)(frame)
    with pytest.raises(jsonschema_rs.ValidationError):
        checked(name)(frame | {"type": "nonsense"})


FIELDS = [
    "id", "batch", "position", "order", "state", "code", "heard_s", "clock", "volume", "alarm", "at", "faults",
    "protocol", "firmware", "speech",
]  # fmt: skip
ANYTHING = st.none() | st.booleans() | st.integers(-5, 2**31) | st.floats() | st.text(max_size=70) | st.lists(st.text())
FRAMES = st.fixed_dictionaries(
    {"type": st.sampled_from(["hello", "receipt", "state", "alarm"])}, optional=dict.fromkeys(FIELDS, ANYTHING)
)


@given(FRAMES)
def test_what_is_read_fits_the_description(frame: dict[str, Any]) -> None:
    """A frame the gateway takes must not be one the description calls wrong."""
    data = orjson.dumps(frame)
    try:
        read = parse(data)
    except ValueError:
        return
    assert read.__struct_config__.tag == frame["type"]
    checked(type(read).__name__)(orjson.loads(data))


# -- orders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        order("reboot"),
        order("volume"),
        order("volume", volume=101),
        order("volume", volume=70, floor={"purple": 1}),
        order("volume", volume=70, night={"from": "25:00", "until": "06:00", "volume": 1}),
        order("volume", volume=70, to="horn-2x", other=1),
        order("config", gain={"deep": 1}),
        order("clock", text="说"),
    ],
)
def test_an_order_no_device_could_carry_out_is_not_signed(bad: Order) -> None:
    """Whatever is signed is believed by every device it is shown to."""
    with pytest.raises(Permanent, match="bad_order"):
        order_of(bad, "horn-1", NOW)


def test_an_order_cannot_change_whom_it_is_for() -> None:
    """Values come from a form; the name and the id are the gateway's own."""
    found = orjson.loads(
        order_of(order("volume", volume=70, to="horn-2", order="other", command="clock"), "horn-1", NOW)
    )
    assert (found["to"], found["order"], found["command"]) == ("horn-1", "order-1", "volume")


# -- what "played" must have sounded like ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "audio", "repeat", "heard_s", "plausible"),
    [
        ("涨" * 100, None, 3, None, False),
        ("涨" * 100, None, 3, 29.9, False),
        ("涨" * 100, None, 3, 30.0, True),
        ("涨" * 100, None, 3, 75.0, True),
        ("涨" * 100, None, 3, 3600.0, False),
        ("，。、！", None, 3, 0.5, True),
        ("a" * 300, None, 1, 9.9, False),
        ("a" * 300, None, 1, 10.0, True),
        ("涨" * 100, SOUND, 2, 19.9, False),
        ("涨" * 100, SOUND, 2, 20.0, True),
        ("涨" * 100, SOUND, 2, 26.0, True),
    ],
)
def test_played_counts_only_if_it_sounded_long_enough(
    text: str, audio: Audio | None, repeat: int, heard_s: float | None, plausible: bool
) -> None:
    """A device that acknowledges and never plays, or breaks off, must not paint its village as reached."""
    assert span_of(text, audio, repeat).holds(heard_s) is plausible


@given(st.text(max_size=1000), st.integers(1, 10), st.floats(0.2, 0.5))
def test_speech_at_any_human_pace_is_plausible(text: str, repeat: int, second_per_letter: float) -> None:
    """A check that calls honest devices liars would send people out to mend what works."""
    span: Span = span_of(text, None, repeat)
    assert span.holds(sum(one.isalnum() for one in text) * repeat * second_per_letter)


# -- what no honest device says ----------------------------------------------------------------------------------------


@given(
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))])),
    st.datetimes(timezones=st.just(UTC)),
)
def test_no_clock_is_too_wrong_to_be_read(at: datetime, clock: datetime) -> None:
    """One device's broken clock must not break off the commit that carries its neighbours' receipts."""
    state = parse(orjson.dumps({"type": "state", "clock": clock}))
    alarm = parse(orjson.dumps({"type": "alarm", "alarm": "3f0e6e0a", "at": at}))
    assert isinstance(state, Condition)
    assert isinstance(alarm, Alarm)
    skew_s = state_of(state, "", NOW).clock_skew_s
    assert skew_s is not None
    assert timedelta() <= NOW - sounded_at(alarm, skew_s, NOW) <= timedelta(days=30)


@pytest.mark.parametrize(
    ("state", "code", "kept"),
    [
        ("hushed", "", "hushed"), ("hushed", "other", "hushed"), ("playing", "hushed", "playing"),
        ("failed", "hushed", "failed"), ("stopped", "other", "stopped"), ("failed", "stopped", "failed"),
        ("busy", "live_speech", "live_speech"),
    ],
)  # fmt: skip
def test_only_the_state_says_that_a_device_is_hushed_or_stopped(state: str, code: str, kept: str) -> None:
    """The ledger ends the hush by this word; a free text beside another state must not pass for it."""
    told = parse(
        orjson.dumps({"type": "receipt", "id": "a", "batch": "b", "position": 0, "state": state, "code": code})
    )
    assert isinstance(told, Told)
    (report, *_) = events_of(told, 7, "loudspeaker_ws")
    assert isinstance(report, Report)
    assert report.code == kept


@pytest.mark.parametrize(
    "frame",
    [
        b'{"type":"hello","protocol":2.5}',
        b'{"type":"receipt","id":"a","batch":"b","position":-1,"state":"played"}',
        b'{"type":"receipt","id":"a","batch":"b","position":0,"state":"done"}',
        b'{"type":"receipt","order":"a","state":"played"}',
        b'{"type":"receipt","id":"a","batch":"b","position":0,"state":"played","heard_s":1e999}',
        b'{"type":"receipt","id":"a","batch":"b","position":0,"state":"played","code":"ok\\n"}',
        b'{"type":"state","volume":101}',
        b'{"type":"state","clock":"2026-07-20T06:00:03"}',
        b'{"type":"alarm","alarm":"3f0e6e0a","at":"now"}',
        b'{"type":"alarm","alarm":"a","at":"2026-07-20T06:00:03Z"}',
        b"\xff\xfe",
        b"",
    ],
)
def test_what_cannot_be_meant_is_malformed(frame: bytes) -> None:
    """Half-understood receipts are how a map turns green by mistake."""
    with pytest.raises(ValueError, match="malformed"):
        parse(frame)
