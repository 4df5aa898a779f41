"""The Twilio channel against a counterpart written from Twilio's documentation."""

from __future__ import annotations

import asyncio
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from aiohttp import ClientSession, web
from hypothesis import given
from hypothesis import strategies as st
from links import TEXT, Case, RecordingLink, sample_message, sample_slice
from pydantic import ValidationError
from twilio.http.response import Response

from channels.sms_twilio import SmsTwilio, TwilioSettings, e164, national, refusal
from gateway.channel import Event
from gateway.errors import Ambiguous, ChannelError, Permanent, StoreDown, Temporary, Throttled, Unusable
from gateway.model import Receipt, Reply, Report, State, fold
from gateway.simulate.log import Log, read
from gateway.simulate.sms import SmsAccount, SmsFaults, SmsReplies, SmsSimulator, signature

ACCOUNT = SmsAccount("AC" + "5" * 32, "token-of-the-test")
NUMBERS = ["10000000001", "10000000002", "10000000003"]


class FlakyLink(RecordingLink):
    """A link whose first commits fail."""

    failures: int = 0

    async def commit(self, events: Sequence[Event]) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreDown("no answer in time")
        await super().commit(events)


class Bench:
    """A channel, its counterpart, and a gateway's server that receives the callbacks."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "sms.jsonl"
        self.link = FlakyLink()
        self.simulator = SmsSimulator(Log(self.path), ACCOUNT, callback_pause_s=0.001)

    async def start(self, **settings: Any) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.public_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        values: dict[str, Any] = {
            "account_sid": ACCOUNT.sid,
            "auth_token": ACCOUNT.token,
            "sender": "+15005550006",
            "public_url": self.public_url,
            "base_url": await self.simulator.start(),
        }
        self.settings = TwilioSettings.model_validate(values | settings)
        self.channel = SmsTwilio(self.settings)
        await self.channel.open(self.link)
        app = web.Application()
        for route in self.channel.routes(self.link):
            app.router.add_route(route.method, route.path, route.handler)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self.runner.setup()
        await web.SockSite(self.runner, listening).start()

    async def stop(self) -> None:
        await self.simulator.stop()
        await self.channel.close()
        await self.runner.cleanup()
        self.simulator.log.close()

    async def send(self, numbers: Sequence[str] = NUMBERS, attempt: int = 1) -> list[Receipt]:
        return await self.channel.send(sample_slice(numbers, attempt=attempt), sample_message(), self.link)

    def reports(self) -> list[Report]:
        return [event for event in self.link.events if isinstance(event, Report)]

    async def post(self, form: dict[str, str], path: str, signed: str | None = None) -> int:
        url = self.public_url + path
        headers = {"X-Twilio-Signature": signed if signed is not None else signature(ACCOUNT.token, url, form)}
        async with ClientSession() as session, session.post(url, data=form, headers=headers) as answer:
            return answer.status


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
                NUMBERS,
                refused=["not a number", "+8639612345678"],
                secrets=[ACCOUNT.token],
                received=lambda: bench.simulator.received,
            )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(tmp_path) as started:
        yield started


async def test_each_person_gets_the_text_and_the_report_finds_its_position(bench: Bench) -> None:
    """A report that lands on the wrong person would call a village reached that is not."""
    receipts = await bench.send(attempt=2)
    await bench.simulator.settled()
    kept = read(bench.path, "sms")
    assert [receipt.state for receipt in receipts] == [State.SUBMITTED] * 3
    sids = {entry["to"]: entry["sid"] for entry in kept}
    assert [receipt.reference for receipt in receipts] == [sids["+86" + number] for number in NUMBERS]
    assert {entry["body"] for entry in kept} == {TEXT}
    delivered = {report.position: report for report in bench.reports() if report.state is State.DELIVERED}
    assert sorted(delivered) == [0, 1, 2]
    assert {(report.batch, report.attempt) for report in delivered.values()} == {(f"{'0f' * 10}.1.0", 2)}
    assert [delivered[p].reference for p in range(3)] == [receipt.reference for receipt in receipts]


async def test_an_unreachable_phone_is_reported_failed_with_the_carriers_code(bench: Bench) -> None:
    """The ladder turns to the next person only when it learns that this phone is off."""
    bench.simulator.faults = SmsFaults(unreachable=1.0)
    await bench.send()
    await bench.simulator.settled()
    assert [report.code for report in bench.reports() if report.state is State.FAILED] == ["30003"] * 3


async def test_reports_out_of_order_and_twice_fold_to_delivered(bench: Bench) -> None:
    """Twilio promises no order; a late `sent` must not take a delivery back."""
    bench.simulator.faults = SmsFaults(disorder=True)
    await bench.send(NUMBERS[:1])
    await bench.simulator.settled()
    state = State.QUEUED
    for report in bench.reports():
        state = fold(state, report.state)
    assert len(bench.reports()) == 4
    assert state is State.DELIVERED


async def test_a_throttled_text_says_how_long_the_provider_wants_us_to_wait(bench: Bench) -> None:
    """Pressing on against a 429 gets the account blocked in the hour it is needed."""
    bench.simulator.faults = SmsFaults(throttled=1.0, retry_after_s=7)
    errors = [receipt.error for receipt in await bench.send()]
    assert [error.after_s for error in errors if isinstance(error, Throttled)] == [7.0] * 3
    assert bench.simulator.received == 0


async def test_a_server_error_and_a_refused_connection_are_temporary(bench: Bench) -> None:
    """Nothing was sent, so the sender may try again without warning anybody twice."""
    bench.simulator.faults = SmsFaults(broken=1.0)
    assert {type(receipt.error) for receipt in await bench.send()} == {Temporary}
    await bench.simulator.stop()
    assert {(type(receipt.error), receipt.code) for receipt in await bench.send()} == {(Temporary, "unreachable")}


async def test_a_text_taken_without_an_answer_is_ambiguous_and_its_report_still_arrives(bench: Bench) -> None:
    """T14: sending the same text again would be rejected or doubled; the report settles what happened."""
    bench.simulator.faults = SmsFaults(dropped=1.0)
    receipts = await bench.send()
    await bench.simulator.settled()
    assert {type(receipt.error) for receipt in receipts} == {Ambiguous}
    assert bench.simulator.received == 3
    assert sorted(r.position for r in bench.reports() if r.state is State.DELIVERED) == [0, 1, 2]


async def test_no_answer_in_time_is_ambiguous(tmp_path: Path) -> None:
    """The SDK's own client ignores its timeout; a frozen provider must not hold a slice beyond its lease."""
    async with running(tmp_path, timeout_s=0.1) as bench:
        bench.simulator.faults = SmsFaults(latency_s=0.4)
        receipts = await bench.send()
    assert {(type(receipt.error), receipt.code) for receipt in receipts} == {(Ambiguous, "no_answer")}


async def test_a_provider_nobody_can_connect_to_is_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen DNS or a dead route sends nothing: the fallback may start at once instead of waiting for a report."""
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait(10) and [])
    async with running(tmp_path, timeout_s=0.2, base_url="http://localhost:9") as bench:
        receipts = await bench.send()
        answer.set()
    assert {(type(receipt.error), receipt.code) for receipt in receipts} == {(Temporary, "unreachable")}


async def test_a_refused_account_is_unusable(tmp_path: Path) -> None:
    """A wrong token will not mend itself: the account is switched off and the fallback starts."""
    async with running(tmp_path, auth_token="wrong-token") as bench:
        assert {(type(receipt.error), receipt.code) for receipt in await bench.send()} == {(Unusable, "20003")}


async def test_one_refused_number_does_not_hold_up_the_others(bench: Bench) -> None:
    """One landline in a roster must not cost 49 people their warning."""
    receipts = await bench.send([NUMBERS[0], "+8639612345678", NUMBERS[1]])
    assert [receipt.code for receipt in receipts] == ["201", "21614", "201"]
    assert isinstance(receipts[1].error, Permanent)


async def test_no_error_shows_a_number_a_text_or_the_token(bench: Bench) -> None:
    """Errors end in logs, and the provider's own words quote the number."""
    shown: list[str] = []
    for faults in (SmsFaults(), SmsFaults(dropped=1.0), SmsFaults(broken=1.0), SmsFaults(throttled=1.0)):
        bench.simulator.faults = faults
        for receipt in await bench.send(["+8639612345678", NUMBERS[0], "139 0000"]):
            shown += [repr(receipt), *(traceback.format_exception(receipt.error) if receipt.error else [])]
    shown.append(repr(bench.settings))
    everything = "".join(shown)
    assert not [
        secret for secret in ("39612345678", NUMBERS[0], "139 0000", TEXT, ACCOUNT.token) if secret in everything
    ]


async def test_the_environment_cannot_move_texts_to_another_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 11 checks the declared host; the SDK would let TWILIO_REGION replace it."""
    monkeypatch.setenv("TWILIO_REGION", "ie1")
    async with running(tmp_path) as bench:
        assert {receipt.state for receipt in await bench.send()} == {State.SUBMITTED}


async def test_a_callback_nobody_signed_is_refused_and_changes_nothing(bench: Bench) -> None:
    """Anybody could otherwise report a whole county as reached."""
    form = {"MessageSid": "SM1", "MessageStatus": "delivered"}
    path = "/v1/callbacks/sms_twilio/b-0-1"
    elsewhere = signature(ACCOUNT.token, bench.public_url + "/v1/callbacks/sms_twilio/b-1-1", form)
    statuses = [await bench.post(form, path, signed) for signed in ("", "AAAA", "é", elsewhere)]
    assert statuses == [403] * 4
    altered = signature(ACCOUNT.token, bench.public_url + path, form)
    assert await bench.post(form | {"MessageStatus": "failed"}, path, altered) == 403
    assert await bench.post({"From": NUMBERS[0], "Body": "1"}, "/v1/callbacks/sms_twilio", "") == 403
    assert bench.link.events == []


async def test_a_form_of_another_kind_is_refused(bench: Bench) -> None:
    """Twilio signs urlencoded forms only; a file part must not reach the validator."""
    async with ClientSession() as session:
        url = bench.public_url + "/v1/callbacks/sms_twilio/b-0-1"
        async with session.post(url, json={"MessageStatus": "delivered"}) as answer:
            assert answer.status == 403


async def test_the_provider_is_answered_only_after_the_commit(bench: Bench) -> None:
    """Rule 1: a report acknowledged while the store is away would be lost; 503 makes Twilio come again."""
    bench.link.failures = 2
    await bench.send(NUMBERS[:1])
    await bench.simulator.settled()
    assert bench.simulator.callbacks_refused == 2
    assert [report.state for report in bench.reports()] == [State.SUBMITTED, State.DELIVERED]


async def test_a_commit_that_fails_is_answered_503(bench: Bench) -> None:
    """Both webhooks keep the fact with the provider until it is durable here."""
    bench.link.down = True
    form = {"MessageSid": "SM1", "MessageStatus": "delivered", "From": "+8610000000001", "Body": "1"}
    assert await bench.post(form, "/v1/callbacks/sms_twilio/b-0-1") == 503
    assert await bench.post(form, "/v1/callbacks/sms_twilio") == 503


async def test_a_status_twilio_adds_later_is_acknowledged_without_an_event(bench: Bench) -> None:
    """An unknown word must neither fail for ever nor be taken for a delivery."""
    form = {"MessageSid": "SM1", "MessageStatus": "teleported"}
    assert await bench.post(form, "/v1/callbacks/sms_twilio/b-0-1") == 204
    assert bench.link.events == []


async def test_a_callback_with_a_foreign_reference_is_kept_by_its_sid(bench: Bench) -> None:
    """A fact signed by the provider is never thrown away, whatever stands in the path."""
    form = {"MessageSid": "SM1", "MessageStatus": "failed", "ErrorCode": "30005<script>"}
    assert await bench.post(form, "/v1/callbacks/sms_twilio/whatever") == 204
    report = bench.reports()[0]
    assert (report.reference, report.batch, report.position, report.code) == ("SM1", "", -1, "")


async def test_officials_reply_only_to_a_text_that_asks(bench: Bench) -> None:
    """The reply closes 叫应: it must arrive under the roster's form of the number."""
    bench.simulator.replies = SmsReplies(share=1.0, url=bench.public_url + "/v1/callbacks/sms_twilio")
    await bench.send()
    await bench.channel.send(sample_slice(["10000000009"]), sample_message(text="解除"), bench.link)
    await bench.simulator.settled()
    replies = [event for event in bench.link.events if isinstance(event, Reply)]
    assert sorted(reply.address for reply in replies) == NUMBERS
    assert {(reply.channel, reply.text) for reply in replies} == {("sms_twilio", "1")}


async def test_callbacks_survive_a_path_behind_a_proxy(tmp_path: Path) -> None:
    """The signature covers the public address, not the one behind the proxy."""
    async with running(tmp_path, public_url="https://alerts.example.org/gw") as bench:
        form = {"MessageSid": "SM1", "MessageStatus": "delivered"}
        path = "/v1/callbacks/sms_twilio/b-0-1?x=1"
        signed = signature(ACCOUNT.token, "https://alerts.example.org/gw" + path, form)
        assert await bench.post(form, path, signed) == 204


def test_the_counterparts_signature_is_the_documented_one() -> None:
    """Both sides are held to the example in Twilio's documentation, not to each other."""
    form = {"CallSid": "CA1234567890ABCDE", "Caller": "+14158675309", "Digits": "1234", "From": "+14158675309"}
    form["To"] = "+18005551212"
    assert signature("12345", "https://mycompany.com/myapp.php?foo=1&bar=2", form) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


@pytest.mark.parametrize("address", ["13900000000", "+8613900000000", "+8639612345678", "+8610012345678"])
def test_mainland_numbers_stay_in_the_country_unless_the_assessment_is_named(address: str) -> None:
    """D12: sending them to Twilio is a cross-border transfer of personal data."""
    with pytest.raises(Permanent, match="mainland_refused"):
        e164(address, mainland=False)
    assert e164(address, mainland=True).startswith("+86")


async def test_a_real_endpoint_without_an_assessment_sends_no_mainland_number() -> None:
    """The refusal comes before any connection, so the channel needs not even be open."""
    settings = {"account_sid": ACCOUNT.sid, "auth_token": "x", "sender": "+15005550006"}
    channel = SmsTwilio(TwilioSettings.model_validate(settings | {"public_url": "https://alerts.example.org"}))
    receipts = await channel.send(sample_slice(["13900000000"]), sample_message(), RecordingLink())
    assert [receipt.code for receipt in receipts] == ["mainland_refused"]


@given(st.text())
def test_an_address_becomes_a_number_or_a_silent_refusal(address: str) -> None:
    """Rosters hold anything; nothing of it may end in an error text."""
    try:
        number = e164(address, mainland=True)
    except Permanent as error:
        number, shown = "", str(error)
        assert shown == "bad_address"  # most texts are refused, a few are not
    assert not number or e164(national(number), mainland=True) == number


@pytest.mark.parametrize(
    ("status", "body", "headers", "error"),
    [
        (429, '{"code": 20429}', {}, Throttled),
        (429, "busy", {"Retry-After": "soon"}, Throttled),
        (503, "", {"Retry-After": "3"}, Throttled),
        (400, '{"code": 21611}', {}, Throttled),
        (503, "", {}, Temporary),
        (302, "", {}, Temporary),
        (504, "", {}, Ambiguous),
        (400, '{"code": 21211, "message": "+8610000000001"}', {}, Permanent),
        (400, '{"code": 21610}', {}, Permanent),
        (400, "[]", {}, Permanent),
        (400, '{"code": 21606}', {}, Unusable),
        (401, '{"code": "x"}', {}, Unusable),
        (403, "", {}, Unusable),
    ],
)
def test_every_answer_has_its_decision(
    status: int, body: str, headers: dict[str, str], error: type[ChannelError]
) -> None:
    """The decision on a retry is made from the class; a wrong one floods a carrier or leaves a village out."""
    result = refusal(Response(status, body, headers))
    assert type(result) is error
    assert "+86" not in str(result)


@pytest.mark.parametrize("url", ["http://api.twilio.com", "ftp://127.0.0.2.example.org"])
def test_a_real_endpoint_must_be_encrypted(url: str) -> None:
    """Tokens and numbers never travel in the clear; the refusal does not repeat the token."""
    values = {"account_sid": ACCOUNT.sid, "auth_token": "sekret", "sender": "+1", "base_url": url}
    with pytest.raises(ValidationError) as refused:
        TwilioSettings.model_validate(values | {"public_url": "https://alerts.example.org"})
    assert "sekret" not in str(refused.value)


async def test_a_full_slice_arrives_once_each(bench: Bench) -> None:
    """Fifty people, fifty texts: nobody left out, nobody twice."""
    numbers = [f"100{index:08d}" for index in range(50)]
    receipts = await asyncio.wait_for(bench.send(numbers), 30)
    assert [receipt.error for receipt in receipts] == [None] * 50
    assert sorted(entry["to"] for entry in read(bench.path)) == ["+86" + number for number in numbers]
