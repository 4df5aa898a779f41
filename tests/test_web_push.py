"""The Web Push channel against a push service written from the RFCs, and its refusal to be led inside (T26)."""

from __future__ import annotations

import base64
import json
import socket
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from links import TEXT, Case, RecordingLink, sample_message, sample_slice
from py_vapid import Vapid
from pydantic import ValidationError

from channels.web_push import WebPush, WebPushSettings, check_address, parse, payload, public, retry_after_s
from gateway.errors import Ambiguous, Permanent, Temporary, Throttled
from gateway.model import Group, Level, Receipt, State, Status
from gateway.simulate import push
from gateway.simulate.log import Log, read
from gateway.simulate.push import PushFaults, PushSimulator, Subscriber, check_vapid


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "===")


KEY = ec.derive_private_key(4117, ec.SECP256R1())  # a fixed key, so that its secret can be looked for
SECRET = b64((4117).to_bytes(32, "big"))


class Bench:
    """A channel in simulation and its push service."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "push.jsonl"
        self.link = RecordingLink()
        self.simulator = PushSimulator(Log(self.path))

    async def start(self, **settings: Any) -> None:
        self.origin = await self.simulator.start()
        values = {"vapid_private_key": SECRET, "vapid_subject": "mailto:duty@example.org", "allow_private": True}
        self.settings = WebPushSettings.model_validate(values | settings)
        self.channel = WebPush(self.settings)
        await self.channel.open(self.link)

    async def stop(self) -> None:
        await self.channel.close()
        await self.simulator.stop()
        self.simulator.log.close()

    async def send(self, *addresses: str, **changes: Any) -> list[Receipt]:
        return await self.channel.send(sample_slice(addresses), sample_message(**changes), self.link)


@asynccontextmanager
async def running(directory: Path, **settings: Any) -> AsyncIterator[Bench]:
    bench = Bench(directory)
    await bench.start(**settings)
    try:
        yield bench
    finally:
        await bench.stop()


@asynccontextmanager
async def contract_case() -> AsyncIterator[Case]:
    with TemporaryDirectory() as directory:
        async with running(Path(directory)) as bench:
            yield Case(
                bench.settings,
                [bench.simulator.subscribe() for _ in range(3)],
                refused=[
                    "not a subscription",
                    subscription("https://203.0.113.9:8443/push/secret-path"),
                    subscription("http:///x"),
                ],
                secrets=[SECRET],
                received=lambda: bench.simulator.received,
            )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(tmp_path) as started:
        yield started


def subscription(endpoint: str) -> str:
    """Return a well-formed subscription for any endpoint."""
    point = b"\x04" + KEY.public_key().public_numbers().x.to_bytes(32, "big")
    point += KEY.public_key().public_numbers().y.to_bytes(32, "big")
    return json.dumps({"endpoint": endpoint, "keys": {"p256dh": b64(point), "auth": b64(bytes(16))}})


async def test_a_subscriber_can_read_exactly_the_warning(bench: Bench) -> None:
    """The browser must be able to decrypt and show it, and nothing claims more than "handed over"."""
    receipts = await bench.send(bench.simulator.subscribe(), bench.simulator.subscribe())
    kept = read(bench.path, "push")
    assert [receipt.state for receipt in receipts] == [State.SUBMITTED] * 2
    assert kept[0]["payload"] == {
        "title": "暴雨红色预警",
        "body": TEXT,
        "level": "red",
        "alert": "0f" * 10,
        "status": "Actual",
    }
    assert (kept[0]["urgency"], kept[0]["topic"]) == ("high", "0f" * 10)


async def test_a_token_is_used_again_until_it_is_an_hour_old(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signing for each of ten thousand browsers would make the last ones wait; a token for ever would be refused."""
    tokens: list[str] = []
    check = push.check_vapid

    def noted(authorization: str, origin: str) -> str:
        tokens.append(authorization)
        return check(authorization, origin)

    monkeypatch.setattr(push, "check_vapid", noted)
    real, ahead_s = time.time, 0.0
    monkeypatch.setattr("channels.web_push.time.time", lambda: real() + ahead_s)
    for ahead_s in (0.0, 3590.0, 3610.0, 0.0):  # noqa: B007  # read by the clock; at last the clock is set back
        assert [one.state for one in await bench.send(bench.simulator.subscribe())] == [State.SUBMITTED]
    assert [tokens.index(one) for one in tokens] == [0, 0, 2, 3]


async def test_each_push_service_has_a_token_of_its_own(bench: Bench) -> None:
    """A token names its push service (RFC 8292 §2): another one refuses it."""
    await bench.send(bench.simulator.subscribe())
    other = PushSimulator(Log(bench.path))
    origin = await other.start()
    receipts = await bench.send(other.subscribe(), bench.simulator.subscribe())
    await other.stop()
    assert origin != bench.origin
    assert [one.state for one in receipts] == [State.SUBMITTED] * 2


async def test_a_drill_says_so_in_the_payload(bench: Bench) -> None:
    """Rule 3: the page may dress a drill differently only if it is told."""
    await bench.send(bench.simulator.subscribe(), status=Status.EXERCISE, level=Level.BLUE)
    kept = read(bench.path)[0]
    assert (kept["payload"]["status"], kept["urgency"]) == ("Exercise", "normal")


async def test_a_push_does_not_outlive_its_warning(bench: Bench) -> None:
    """A phone switched on tomorrow must not ring for yesterday's rain (rule 4)."""
    await bench.send(bench.simulator.subscribe(), expires=datetime.now(UTC) + timedelta(hours=1))
    late = await bench.send(bench.simulator.subscribe(), expires=datetime.now(UTC) - timedelta(hours=1))
    lives = [entry["ttl_s"] for entry in read(bench.path)]
    assert [receipt.state for receipt in late] == [State.EXPIRED]
    assert len(lives) == 1
    assert 3500 < lives[0] <= 3600


async def test_an_ended_subscription_is_gone_for_good(bench: Bench) -> None:
    """T26: the sender deletes what is gone, so that the list does not rot; the others are still reached."""
    ended, live = bench.simulator.subscribe(), bench.simulator.subscribe()
    bench.simulator.faults = PushFaults(gone=1.0)
    await bench.send(ended)
    bench.simulator.faults = PushFaults()
    unknown = subscription(f"{bench.origin}/push/never-made")
    receipts = await bench.send(ended, unknown, live)
    assert [(type(receipt.error), receipt.code) for receipt in receipts] == [
        (Permanent, "gone"),
        (Permanent, "gone"),
        (type(None), "201"),
    ]


async def test_faults_of_the_service_have_their_decisions(bench: Bench) -> None:
    """Throttled waits as long as asked, an error is tried again, a lost answer is not."""
    address = bench.simulator.subscribe()
    bench.simulator.faults = PushFaults(throttled=1.0, retry_after_s=9)
    error = (await bench.send(address))[0].error
    assert isinstance(error, Throttled)
    assert error.after_s == 9.0
    outcomes = []
    for faults in (PushFaults(broken=1.0), PushFaults(dropped=1.0)):
        bench.simulator.faults = faults
        outcomes.append(type((await bench.send(address))[0].error))
    await bench.simulator.stop()
    outcomes.append(type((await bench.send(address))[0].error))
    assert outcomes == [Temporary, Ambiguous, Temporary]


async def test_no_answer_in_time_is_ambiguous(tmp_path: Path) -> None:
    """A frozen push service must not hold a slice beyond its lease."""
    async with running(tmp_path, timeout_s=0.1) as bench:
        bench.simulator.faults = PushFaults(latency_s=0.4)
        receipt = (await bench.send(bench.simulator.subscribe()))[0]
    assert (type(receipt.error), receipt.code) == (Ambiguous, "no_answer")


async def test_a_redirect_is_not_followed(bench: Bench) -> None:
    """T26: a redirect would lead the gateway to an address nobody checked."""
    bench.simulator.faults = PushFaults(redirect=f"{bench.origin}/push/elsewhere")
    receipt = (await bench.send(bench.simulator.subscribe()))[0]
    assert (type(receipt.error), receipt.code) == (Permanent, "http_307")


LIVE = {"vapid_private_key": SECRET, "vapid_subject": "mailto:duty@example.org"}


@pytest.mark.parametrize(
    ("endpoint", "code"),
    [
        ("https://127.0.0.1/x", "private_endpoint"),
        ("https://10.1.2.3/x", "private_endpoint"),
        ("https://169.254.169.254/latest", "private_endpoint"),
        ("https://[::1]/x", "private_endpoint"),
        ("https://[::ffff:127.0.0.1]/x", "private_endpoint"),
        ("https://[fe80::1]/x", "private_endpoint"),
        ("https://[64:ff9b::7f00:1]/x", "private_endpoint"),
        ("https://224.0.0.1/x", "private_endpoint"),
        ("https://localhost/x", "private_endpoint"),
        ("https://2130706433/x", "bad_subscription"),
        ("https://127.1/x", "bad_subscription"),
        ("https://8.8.8.8/x", "unknown_service"),
        ("https://push.example.org/x", "unknown_service"),
        ("https://fcm.googleapis.com.example.org/x", "unknown_service"),
        ("https://fcm.googleapis.com@push.example.org/x", "unknown_service"),
        ("http://fcm.googleapis.com/x", "unknown_service"),
        ("file:///etc/passwd", "unknown_service"),
        ("", "unknown_service"),
    ],
)
async def test_a_live_channel_cannot_be_led_inside(endpoint: str, code: str) -> None:
    """T26: an endpoint is typed in by a stranger; it must not make the gateway call its own network."""
    services = ("fcm.googleapis.com", "localhost", "2130706433", "127.1")  # even where a name was allowed by mistake
    channel = WebPush(WebPushSettings.model_validate(LIVE | {"services": services}))
    link = RecordingLink()
    await channel.open(link)
    receipts = await channel.send(sample_slice([subscription(endpoint)]), sample_message(), link)
    await channel.close()
    assert (type(receipts[0].error), receipts[0].code) == (Permanent, code)


def answers(*rounds: list[str]) -> tuple[Callable[..., list[Any]], list[str]]:
    """Return a getaddrinfo that gives other addresses each time, and the list of the hosts it was asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        addresses = rounds[min(len(asked), len(rounds)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return getaddrinfo, asked


async def test_the_connection_goes_to_the_address_that_was_checked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T26: a name that changes its address after the check (DNS rebinding) must find no second look-up."""
    getaddrinfo, asked = answers(["127.0.0.1"], ["8.8.8.8"])
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    port = bench.origin.rpartition(":")[2]
    receipts = await bench.send(subscription(f"http://push.example.org:{port}/push/none"))
    assert receipts[0].code == "gone"  # the counterpart on 127.0.0.1 answered: 404
    assert asked == ["push.example.org"]


async def test_one_wrong_address_among_good_ones_is_enough_to_refuse(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connector tries all addresses of a name, so all must be allowed."""
    monkeypatch.setattr(socket, "getaddrinfo", answers(["127.0.0.1", "8.8.8.8"])[0])
    receipts = await bench.send(subscription("http://push.example.org/push/none"))
    assert receipts[0].code == "real_endpoint"


async def test_a_simulation_reaches_no_real_push_service(bench: Bench) -> None:
    """Rule 11: a copy of the real list in a drill must not ring one real phone."""
    receipts = await bench.send(subscription("https://8.8.8.8/x"))
    assert receipts[0].code == "real_endpoint"
    assert bench.channel.endpoints() == ("127.0.0.1",)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_only_addresses_of_the_open_internet_are_public(address: Any) -> None:
    """Whatever the kind of inner address, a live channel refuses it and a simulation refuses the others."""
    inner = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    assert not (inner and public(str(address)))
    with pytest.raises(Permanent):
        check_address(str(address), allow_private=public(str(address)))


@pytest.mark.parametrize(
    "address",
    [
        "",
        "[]",
        "{}",
        '{"endpoint": 7, "keys": {}}',
        '{"endpoint": "https://[::1", "keys": {"p256dh": "", "auth": ""}}',
        json.dumps({"endpoint": "https://a.example", "keys": {"p256dh": "AAAA", "auth": "AAAA"}}),
        json.dumps({"endpoint": "https://a.example", "keys": {"p256dh": "é", "auth": "AAAA"}}),
    ],
)
def test_what_is_no_subscription_is_refused(address: str) -> None:
    """One damaged row must cost only itself."""
    with pytest.raises(Permanent, match="bad_subscription"):
        parse(address)


@given(st.text())
def test_no_text_breaks_the_reader_of_subscriptions(address: str) -> None:
    """Only the refusal may come out, and it repeats nothing."""
    with pytest.raises(Permanent, match="bad_subscription"):
        parse(address)


async def test_a_key_that_is_no_point_is_refused_for_one_only(bench: Bench) -> None:
    """A forged key must not become a bug of the whole slice."""
    forged = {"p256dh": b64(b"\x04" + bytes(64)), "auth": b64(bytes(16))}
    broken = json.dumps({"endpoint": f"{bench.origin}/push/x", "keys": forged})
    receipts = await bench.send(broken, bench.simulator.subscribe())
    assert [receipt.code for receipt in receipts] == ["bad_subscription", "201"]


async def test_no_error_shows_an_endpoint_or_the_key(bench: Bench) -> None:
    """Who knows an endpoint can address the person; the key signs for the whole gateway."""
    shown = [repr(bench.settings)]
    addresses = [subscription(f"{bench.origin}/push/capability"), subscription("https://8.8.8.8/capability")]
    for faults in (PushFaults(), PushFaults(dropped=1.0), PushFaults(broken=1.0), PushFaults(throttled=1.0)):
        bench.simulator.faults = faults
        for receipt in await bench.send(*addresses):
            shown += [repr(receipt), *(traceback.format_exception(receipt.error) if receipt.error else [])]
    assert not [secret for secret in ("/push/capability", "8.8.8.8", SECRET, TEXT) if secret in "".join(shown)]


def test_a_warning_too_long_is_refused_not_cut() -> None:
    """Rule 7: half an instruction can be worse than none; templates keep far below the limit."""
    assert len(payload(sample_message(), "雨" * 500).encode()) <= 3993
    with pytest.raises(Permanent, match="payload_too_large"):
        payload(sample_message(), "雨" * 1400)


def test_a_wrong_key_is_a_configuration_error_that_does_not_show_it() -> None:
    """`doctor` must find it before the first storm, without printing it."""
    with pytest.raises(ValidationError) as refused:
        WebPushSettings.model_validate(LIVE | {"vapid_private_key": "bm90IGEga2V5"})
    assert "bm90IGEga2V5" not in str(refused.value)


def test_retry_after_is_read_as_seconds_or_date() -> None:
    """RFC 9110 allows both; what cannot be read must not stop the channel."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert retry_after_s("12") == 12.0
    assert 50 < retry_after_s(soon) <= 60
    assert [retry_after_s(value) for value in ("", "soon")] == [1.0, 1.0]


def test_only_people_who_asked_or_live_there_are_addressed() -> None:
    """Officials are called, not notified by a browser."""
    assert WebPush.groups == {Group.SUBSCRIBERS, Group.RESIDENTS}


def test_the_counterpart_reads_the_message_of_rfc_8291() -> None:
    """Both sides use one library for the cipher, so it is held to the RFC's own example (appendix A)."""
    private = int.from_bytes(unb64("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"), "big")
    key = ec.derive_private_key(private, ec.SECP256R1())
    body = unb64(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_"
        "yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )
    subscriber = Subscriber("a", key, unb64("BTBZMqHH6r4Tts7J_aSIgg"))
    assert subscriber.decrypt(body) == b"When I grow up, I want to be a watermelon"
    with pytest.raises(ValueError, match="not decryptable"):
        subscriber.decrypt(body[:-1] + b"\0")


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"aud": "https://other.example"}, "another push service"),
        ({"exp": 1}, "expired"),
        ({"exp": 2**40}, "more than a day"),
    ],
)
def test_the_counterpart_refuses_a_wrong_token(claims: dict[str, Any], problem: str) -> None:
    """A simulator that accepts anything would prove nothing."""
    good = {"aud": "https://push.example", "sub": "mailto:duty@example.org"}
    good_header = Vapid(KEY).sign(good | {"exp": int(datetime.now(UTC).timestamp()) + 60})["Authorization"]
    assert check_vapid(good_header, "https://push.example")
    with pytest.raises(ValueError, match=problem):
        check_vapid(Vapid(KEY).sign(good | {"exp": 60} | claims)["Authorization"], "https://push.example")
    token, _, key = good_header.partition(",")
    with pytest.raises(ValueError, match="signature"):
        check_vapid(token[:-6] + "AAAAAA," + key, "https://push.example")


def test_an_inner_address_in_any_wrapping_is_not_public() -> None:
    """6to4, Teredo, NAT64 and mapped addresses can lead inside by a detour."""
    for text in ("::ffff:8.8.8.8", "2002:7f00:1::", "64:ff9b::808:808", "100.64.0.1", "0.0.0.0", "::"):
        assert not public(str(ip_address(text)))
    assert public("8.8.8.8")
    assert public("2001:4860:4860::8888")
