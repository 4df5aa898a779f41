"""The table-driven HTTP provider against a simulated one, judged by the provider's own log."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import ClientSession, web
from hypothesis import given
from hypothesis import strategies as st
from links import TEXT, Case, RecordingLink, sample_message, sample_slice
from pydantic import ValidationError
from test_pipeline import until

from channels._http_table import HttpSettings, code_at, digest
from channels.sms_http import SmsHttp
from gateway.directory.vault import normal_phone
from gateway.errors import Ambiguous, ChannelError, Elsewhere, Permanent, Temporary, Throttled, Unusable
from gateway.model import Receipt, Reply, Report, State
from gateway.simulate.log import Log, read
from gateway.simulate.sms_http import HttpProvider, HttpScenario

NUMBERS = [f"100000000{number:02d}" for number in range(1, 9)]
SECRET, HOOK = "simulated-token", "callback-secret"
BODY = {"numbers": "{numbers}", "text": "{text}", "sender": "1069", "ref": "{reference}"}
CODES = {
    "0": "done", "1001": "unusable", "1002": "throttled", "1003": "permanent", "1004": "permanent",
    "1005": "permanent", "2001": "number", "2002": "elsewhere",
}  # fmt: skip
EACH = {"code": "code", "codes": CODES, "id": "id", "each": "results", "each_number": "number", "each_code": "code",
        "each_id": "id"}  # fmt: skip
REPORTS = {
    "entries": "reports", "id": "id", "number": "number", "status": "status",
    "states": {"DELIVRD": "delivered", "UNDELIV": "failed", "MA:0001": "elsewhere"},
}  # fmt: skip
REPLIES = {"entries": "replies", "number": "number", "text": "text", "at": "at"}


def table(url: str = "http://127.0.0.1:1", **changes: Any) -> HttpSettings:
    """The simulated provider's table, with `changes`."""
    values = {"url": f"{url}/v1/messages", "secret": SECRET, "body": BODY, "numbers": 100, "result": EACH,
              "reports": REPORTS, "replies": REPLIES, "timeout_s": 2.0}  # fmt: skip
    return HttpSettings.model_validate(values | changes)


@dataclass
class Bench:
    """A provider, a channel that talks to it, and what the channel told the gateway."""

    provider: HttpProvider
    channel: SmsHttp
    link: RecordingLink
    hook: str

    def given(self, **changes: Any) -> None:
        """Change what the provider is like."""
        self.provider.scenario = replace(self.provider.scenario, **changes)

    async def send(self, numbers: list[str] = NUMBERS, attempt: int = 1, **changes: Any) -> list[Receipt]:
        return await self.channel.send(sample_slice(numbers, attempt=attempt), sample_message(**changes), self.link)

    def log(self, kind: str) -> list[dict[str, Any]]:
        return read(self.provider.log.path, kind)

    @property
    def reports(self) -> list[Report]:
        return [event for event in self.link.events if isinstance(event, Report)]

    @property
    def replies(self) -> list[Reply]:
        return [event for event in self.link.events if isinstance(event, Reply)]


@asynccontextmanager
async def running(folder: Path, *, poll: bool = False, **changes: Any) -> AsyncIterator[Bench]:
    """Run provider, channel and the gateway's server for its callbacks."""
    provider, link = HttpProvider(Log(folder / "http.jsonl")), RecordingLink()
    url = await provider.start()
    if poll:
        fetch = {"every_s": 0.2, "cursor": "after", "next": "next"}
        changes |= {f"poll_{kind}": {"url": f"{url}/v1/{kind}", **fetch} for kind in ("reports", "replies")}
    else:
        callback = {"kind": "shared", "prefix": "Bearer "}
        changes = {"callback": callback, "callback_secret": SECRET} | changes
    channel = SmsHttp(table(url, **changes))
    app = web.Application()
    for route in channel.routes(link):
        app.router.add_route(route.method, route.path, route.handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/callbacks/sms_http"
    provider.scenario = HttpScenario(callback_url="" if poll else hook, callback_tries=100, callback_pause_s=0.01)
    await channel.open(link)
    try:
        yield Bench(provider, channel, link, hook)
    finally:
        await channel.close()
        await provider.stop()
        await runner.cleanup()


@asynccontextmanager
async def contract_case() -> AsyncIterator[Case]:
    with TemporaryDirectory() as directory:
        async with running(Path(directory)) as bench:
            yield Case(
                bench.channel.settings, NUMBERS, refused=["not a number", "+12025550123"], secrets=[SECRET],
                received=lambda: bench.provider.received,
            )  # fmt: skip


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(tmp_path) as started:
        yield started


# --- out ------------------------------------------------------------------------------------------------------------


async def test_one_text_to_many_is_one_request_and_every_report_finds_its_person(bench: Bench) -> None:
    """Four thousand villagers are forty requests, and each of them has a report of their own."""
    receipts = await bench.send()
    assert {(one.state, one.error) for one in receipts} == {(State.SUBMITTED, None)}
    await until(lambda: len(bench.reports) == len(NUMBERS))
    assert {one.reference for one in bench.reports} == {one.reference for one in receipts}
    assert len({one.reference for one in receipts}) == len(NUMBERS)
    assert len({entry["ref"] for entry in bench.log("submit")}) == 1
    assert [entry["text"] for entry in bench.log("submit")] == [TEXT] * len(NUMBERS)


async def test_a_number_as_the_roster_keeps_it_is_sent_as_the_provider_knows_it(bench: Bench) -> None:
    """The roster keeps E.164: refused as no number, a whole county would hear nothing."""
    receipts = await bench.send([normal_phone(number) for number in NUMBERS])
    assert {(one.state, one.error) for one in receipts} == {(State.SUBMITTED, None)}
    assert sorted(entry["numbers"][0] for entry in bench.log("submit")) == NUMBERS
    await until(lambda: len(bench.reports) == len(NUMBERS))
    assert {one.reference for one in bench.reports} == {one.reference for one in receipts}


async def test_where_texts_differ_each_text_has_its_request(bench: Bench) -> None:
    """A person with places in two townships hears of both; nobody gets another one's words."""
    texts = ["甲", "乙", "甲", "乙", "甲", "甲", "丙", "甲"]
    await bench.send(texts=texts)
    assert {(entry["numbers"][0], entry["text"]) for entry in bench.log("submit")} == set(
        zip(NUMBERS, texts, strict=True)
    )
    assert len({entry["ref"] for entry in bench.log("submit")}) == 3


async def test_two_who_share_a_telephone_are_two_submits(bench: Bench) -> None:
    """Mother and son are both on the list; the report of one must not stand for the other."""
    receipts = await bench.send([NUMBERS[0], NUMBERS[0], NUMBERS[1]])
    assert len({one.reference for one in receipts}) == 3


async def test_a_request_takes_no_more_numbers_than_the_provider(tmp_path: Path) -> None:
    """One number too many, and the provider refuses all of them."""
    async with running(tmp_path, numbers=3) as bench:
        await bench.send()
        assert sorted(Counter(entry["ref"] for entry in bench.log("submit")).values()) == [2, 3, 3]


async def test_one_number_refused_is_that_person_s_alone(bench: Bench) -> None:
    """The others of the request have been told."""
    bench.given(bad=frozenset(NUMBERS[2:3]), ported=frozenset(NUMBERS[4:5]))
    receipts = await bench.send()
    assert [type(one.error) for one in receipts] == [
        type(None), type(None), Permanent, type(None), Elsewhere, type(None), type(None), type(None),
    ]  # fmt: skip
    assert bench.provider.received == len(NUMBERS) - 2


async def test_a_number_that_spoils_a_request_is_found_and_costs_nobody_else_the_warning(tmp_path: Path) -> None:
    """A provider refuses a hundred for one and does not say which: log n requests find it, and no one is told twice."""
    many = [f"1000001{number:04d}" for number in range(100)]
    async with running(tmp_path) as bench:
        bench.given(spoiling=True, bad=frozenset(many[37:38]))
        receipts = await bench.send(many)
        assert [index for index, one in enumerate(receipts) if one.error] == [37]
        assert isinstance(receipts[37].error, Permanent)
        told = Counter(entry["numbers"][0] for entry in bench.log("submit"))
        assert set(told.values()) == {1}
        assert len(told) == 99
        assert len(bench.log("refused")) <= 8


@pytest.mark.parametrize(
    ("scenario", "error", "code"),
    [
        ({"throttled": 1.0}, Throttled, "1002"),
        ({"broken": 1.0}, Temporary, "http_500"),
        ({"dropped": 1.0}, Ambiguous, "connection_lost"),
        ({"latency_s": 3.0}, Ambiguous, "no_answer"),
        ({"signatures": frozenset({"【别处】"})}, Permanent, "1004"),
    ],
)
async def test_what_went_wrong_decides_what_is_done(
    bench: Bench, scenario: dict[str, Any], error: type[ChannelError], code: str
) -> None:
    """Too fast waits, a doubt is never blindly repeated, and what is wrong for good goes another way."""
    bench.given(**scenario)
    assert {(type(one.error), one.code) for one in await bench.send()} == {(error, code)}


async def test_a_refused_key_is_tried_once_and_pages_somebody(tmp_path: Path) -> None:
    """A thousand requests with a wrong key get the account locked."""
    async with running(tmp_path, numbers=1, pool=1) as bench:
        bench.provider.token = "another"
        bench.given(latency_s=0.01)
        assert {type(one.error) for one in await bench.send()} == {Unusable}


async def test_without_a_connection_nothing_was_sent(bench: Bench) -> None:
    """It is tried again, and is no doubt."""
    await bench.provider.stop()
    assert {type(one.error) for one in await bench.send()} == {Temporary}


async def test_whoever_the_answer_does_not_mention_is_in_doubt(bench: Bench) -> None:
    """They may have been told: red is repeated once with its mark, others wait for the report."""
    bench.given(silent_on=frozenset(NUMBERS[:1]))
    assert [type(one.error) for one in await bench.send()] == [Ambiguous] + [type(None)] * 7


async def test_a_code_nobody_has_written_down_is_a_doubt(tmp_path: Path) -> None:
    """A provider adds a second word for yes: five repetitions of a warning would be the thanks."""
    unknown = EACH | {"codes": {"1001": "unusable"}}
    async with running(tmp_path, result=unknown) as bench:
        assert {(type(one.error), one.code) for one in await bench.send()} == {(Ambiguous, "0")}


async def test_nothing_leaves_after_the_end(bench: Bench) -> None:
    """Rule 4."""
    receipts = await bench.send(expires=datetime(2020, 1, 1, tzinfo=UTC))
    assert {one.state for one in receipts} == {State.EXPIRED}
    assert bench.provider.received == 0


# --- back -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", ["batch", "ours"])
async def test_one_id_for_many_is_told_apart_and_shows_no_number(tmp_path: Path, ids: str) -> None:
    """The ledger matches by reference alone; a number in it would stand in every log and back-up."""
    reports = REPORTS | ({"id": "ref"} if ids == "ours" else {})
    async with running(tmp_path, ids=ids, reports=reports) as bench:
        bench.given(one_id=True)
        receipts = await bench.send()
        await until(lambda: len(bench.reports) == len(NUMBERS))
        assert {one.reference for one in bench.reports} == {one.reference for one in receipts}
        assert len({one.reference for one in receipts}) == len(NUMBERS)
        assert not [number for number in NUMBERS for one in receipts if number in one.reference]


async def test_an_id_of_another_secret_is_another_reference() -> None:
    """Without the account's secret nobody can try all numbers until a reference fits."""
    one, other = (table(ids="batch", secret=secret) for secret in (SECRET, "another-token"))
    assert one.reference("sms_http", "M1", NUMBERS[0]) == one.reference("sms_http", "M1", NUMBERS[0])
    assert one.reference("sms_http", "M1", NUMBERS[0]) != other.reference("sms_http", "M1", NUMBERS[0])
    assert one.reference("sms_http", "M1", f"+86{NUMBERS[0]}") == one.reference("sms_http", "M1", NUMBERS[0])


async def test_the_provider_hears_yes_only_once_the_report_is_durable(bench: Bench) -> None:
    """An answer before the commit loses the report for good when the store is away."""
    bench.link.down = True
    await bench.send(NUMBERS[:1])
    await asyncio.sleep(0.1)
    assert bench.log("ack") == []
    bench.link.down = False
    await until(lambda: bench.log("ack"))
    assert [one.state for one in bench.reports] == [State.DELIVERED]


async def test_a_reply_keeps_the_time_at_which_it_was_written(bench: Bench) -> None:
    """An answer to yesterday's warning must not confirm today's."""
    bench.provider.reply(NUMBERS[0], "1", "1069")
    await until(lambda: bench.replies)
    (reply,) = bench.replies
    assert (reply.address, reply.text, reply.channel) == (NUMBERS[0], "1", "sms_http")
    assert reply.at <= datetime.now(UTC)
    old = {"replies": [{"number": f"+86{NUMBERS[1]}", "text": "1", "at": "2026-07-20 14:30:00"}]}
    await posted(bench, old)
    assert bench.replies[1].at == datetime(2026, 7, 20, 6, 30, tzinfo=UTC)
    assert bench.replies[1].address == NUMBERS[1]


async def test_a_report_of_another_carrier_s_number_says_so(bench: Bench) -> None:
    """So that another road is tried, and the next warning goes there at once."""
    await posted(bench, {"reports": [{"id": "M1", "number": NUMBERS[0], "status": "MA:0001"}]})
    assert [(one.state, one.elsewhere, one.code) for one in bench.reports] == [(State.FAILED, True, "MA:0001")]


async def posted(bench: Bench, body: Any, headers: dict[str, str] | None = None) -> int:
    """Post to the callback; return the status."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with ClientSession() as session:
        given = {"Authorization": f"Bearer {SECRET}"} if headers is None else headers
        async with session.post(bench.hook, data=data, headers=given) as answer:
            return answer.status


REPORT = {"reports": [{"id": "M1", "number": NUMBERS[0], "status": "DELIVRD"}]}


@pytest.mark.parametrize("headers", [{}, {"Authorization": SECRET}, {"Authorization": "Bearer simulated-tokem"}])
async def test_a_callback_of_a_stranger_is_refused(bench: Bench, headers: dict[str, str]) -> None:
    """Whoever could forge a reply could call a village warned."""
    assert await posted(bench, REPORT, headers) == 403
    assert bench.link.events == []


async def test_a_signed_callback_is_taken_only_as_it_was_signed(tmp_path: Path) -> None:
    """A changed byte is another message."""
    signed: dict[str, Any] = {"callback": {"kind": "hmac", "header": "X-Signature"}, "callback_secret": HOOK}
    async with running(tmp_path, **signed) as bench:
        body = json.dumps(REPORT).encode()
        assert await posted(bench, body, {"X-Signature": digest(HOOK, body)}) == 200
        assert await posted(bench, body + b" ", {"X-Signature": digest(HOOK, body)}) == 403
        assert await posted(bench, body, {"X-Signature": digest("other-secret", body)}) == 403
        assert len(bench.reports) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"\xff", 400), (b"[" * 100_000, 400), (b"x" * ((1 << 20) + 1), 413), (b"null", 200), (b"[]", 200),
     (b'{"reports": 7}', 200), (b'{"reports": [null, {"id": {}, "status": []}, {"id": true}]}', 200),
     (b'{"replies": [{"number": "\\u4e00", "text": 1}]}', 200)],
)  # fmt: skip
async def test_a_hostile_callback_breaks_nothing(bench: Bench, body: bytes, status: int) -> None:
    """Even one that knows the secret."""
    assert await posted(bench, body) == status
    assert bench.link.events == []


async def test_a_status_that_quotes_a_number_or_a_text_is_not_kept(bench: Bench) -> None:
    """Codes end in logs and on screens."""
    for status in (f"failed for {NUMBERS[0]}", f"E{NUMBERS[0]}", "空号"):
        await posted(bench, {"reports": [{"id": "M1", "number": NUMBERS[0], "status": status}]})
    assert [one.code for one in bench.reports] == ["other"] * 3


async def test_reports_and_replies_are_fetched_and_none_is_lost_at_a_restart(tmp_path: Path) -> None:
    """What was fetched and not committed is fetched again; what comes twice has the same name."""
    async with running(tmp_path, poll=True) as bench:
        bench.link.down = True
        receipts = await bench.send()
        bench.provider.reply(NUMBERS[0], "1")
        await asyncio.sleep(0.3)
        bench.link.down = False
        await until(lambda: len(bench.reports) == len(NUMBERS) and bench.replies)
        assert {one.reference for one in bench.reports} == {one.reference for one in receipts}
        first = bench.replies[0]
        again = SmsHttp(bench.channel.settings)
        bench.link.events.clear()
        await again.open(bench.link)
        await bench.channel.close()
        await until(lambda: len(bench.reports) == len(NUMBERS) and bench.replies)
        await again.close()
        assert bench.replies[0] == first


async def test_one_process_fetches_and_another_takes_over_from_it(tmp_path: Path) -> None:
    """Ten workers that all fetch the same are ten times a provider's limit; one that died must not be the last."""
    async with running(tmp_path, poll=True) as bench:
        await until(lambda: all(bench.link.leases.get(name) for name in ("poll_reports", "poll_replies")))
        again = SmsHttp(bench.channel.settings)
        await again.open(bench.link)
        await bench.send()
        await until(lambda: len(bench.reports) == len(NUMBERS))
        assert {name: len(held) for name, held in bench.link.leases.items()} == {"poll_reports": 1, "poll_replies": 1}
        assert bench.channel.up()
        assert again.up()
        bench.link.events.clear()
        for (held,) in list(bench.link.leases.values()):
            held.lost.set()
        await until(lambda: len(bench.reports) == len(NUMBERS))
        await again.close()


async def test_a_provider_that_is_away_is_fetched_from_again(tmp_path: Path) -> None:
    """The poller lives on through refusals and nonsense."""
    async with running(tmp_path, poll=True) as bench:
        await bench.send()
        await until(lambda: len(bench.reports) == len(NUMBERS))
        bench.provider.token, right = "another", bench.provider.token
        await asyncio.sleep(0.3)
        bench.provider.token = right
        assert bench.channel.up()
        bench.link.events.clear()
        await bench.send(attempt=2)
        await until(lambda: len(bench.reports) == len(NUMBERS))


# --- the table ------------------------------------------------------------------------------------------------------


@given(st.text(min_size=1), st.lists(st.from_regex(r"1[0-9]{10}", fullmatch=True), min_size=1, max_size=5))
def test_no_text_can_break_out_of_its_place(text: str, numbers: list[str]) -> None:
    """Quotes, braces and ampersands in a warning are part of the warning, in JSON and in forms."""
    text = text.encode("utf-8", "ignore").decode()
    body, _ = table().request(numbers, text, "r", 0)
    assert json.loads(body) == {"numbers": numbers, "text": text, "sender": "1069", "ref": "r"}
    form = {"mobile": "{numbers}", "content": "{text}", "extra": "{secret}"}
    body, _ = table(format="form", body=form, separator=";", prefix="86").request(numbers, text, "r", 0)
    told = parse_qs(body.decode(), keep_blank_values=True)
    assert told["mobile"] == [";".join(f"86{number}" for number in numbers)]
    assert (told["content"], told["extra"]) == ([text], [SECRET]) if text else "content" in told


def test_a_template_is_filled_wherever_a_placeholder_stands() -> None:
    """Providers nest what they want to hear; and nothing of one villager's request is left for the next one's."""
    body = {
        "to": [{"mobile": "{number}", "all": "{numbers}"}], "say": {"content": "{text}", "{text}": 1},
        "sign": "{account}/{time}/{numbers}", "kind": 7,
    }  # fmt: skip
    write = table(body=body, account="u", prefix="86").request
    for numbers, text, at in ((NUMBERS[:2], TEXT, 5), (NUMBERS[2:3], "{number}", 6)):
        listed = [f"86{number}" for number in numbers]
        assert json.loads(write(numbers, text, "r", at)[0]) == {
            "to": [{"mobile": listed[0], "all": listed}], "say": {"content": text, "{text}": 1},
            "sign": f"u/{at}/{','.join(listed)}", "kind": 7,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ("0", "0"), (7, "7"), (True, ""), ("", ""), ("E.1:x-2", "E.1:x-2"), ("13800000000", "other"),
        ("to 1", "other"), ("x" * 41, "other"), ("1\n", "other"), ("11000000001", "11000000001"),
    ],
)  # fmt: skip
def test_a_code_shows_no_number_unless_the_table_lists_it(told: object, code: str) -> None:
    """A code ends in logs and metrics; what could be somebody's number must not, and what we wrote down is none."""
    assert code_at({"answer": {"code": told}}, ("answer", "code"), {"0", "11000000001"}) == code
    assert code_at({"answer": [told]}, ("answer", "code"), {"0"}) == ""


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"auth": "bearer"}, "Authorization", f"Bearer {SECRET}"),
        ({"auth": "basic", "account": "u"}, "Authorization", "Basic dTpzaW11bGF0ZWQtdG9rZW4="),
        ({"auth": "header", "auth_header": "X-Api-Key"}, "X-Api-Key", SECRET),
    ],
)
def test_the_provider_knows_us_by_header(auth: dict[str, str], header: str, value: str) -> None:
    """Four ways cover the services there are."""
    assert table(**auth).request(NUMBERS, TEXT, "r", 0)[1][header] == value


def test_a_signature_covers_the_body_as_it_leaves() -> None:
    """HMAC-SHA256, checked with a value of RFC 4231 (test case 2 has a short key: the table asks for eight letters)."""
    assert digest("Jefe", b"what do ya want for nothing?") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    body, headers = table(auth="hmac", auth_header="X-Sign").request(NUMBERS, TEXT, "r", 0)
    assert headers["X-Sign"] == digest(SECRET, body)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"url": "http://sms.example.cn/send"}, "https"),
        ({"url": "https://user:secret@sms.example.cn/send"}, "name or password"),
        ({"body": {"to": "{number}"}}, "{text}"),
        ({"body": {"to": "{number}", "text": "{text}"}}, "{numbers}"),
        ({"ids": "ours", "body": {"to": "{numbers}", "text": "{text}"}}, "{reference}"),
        ({"ids": "batch", "reports": {k: v for k, v in REPORTS.items() if k != "number"}}, "reports.number"),
        ({"format": "form", "body": {"to": ["{numbers}"], "text": "{text}"}}, "form"),
        ({"callback": {}}, "both or neither"),
        ({"poll_reports": {"url": "https://sms.example.cn"}, "reports": None}, "needs reports"),
        ({"poll_replies": {"url": "https://sms.example.cn"}, "replies": REPLIES | {"at": ""}}, "replies.at"),
        ({"result": EACH | {"codes": {"0": "fine"}}}, "done"),
        ({"result": EACH | {"id": 5}}, "result.id"),
    ],
)
def test_a_wrong_table_is_refused_with_what_is_missing(changes: dict[str, Any], says: str) -> None:
    """It stops the start, not the warning; and shows no secret."""
    with pytest.raises(ValidationError) as refused:
        table(**changes)
    assert says in str(refused.value)
    assert SECRET not in str(refused.value)


async def test_what_a_slow_provider_leaves_no_time_for_comes_again_and_the_others_keep_their_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A send that takes longer than the sender waits loses every answer: nobody knows whom to tell again."""
    monkeypatch.setattr(SmsHttp, "answer_s", 2.4)
    async with running(tmp_path, pool=1, numbers=1, timeout_s=1.0) as bench:
        bench.given(latency_s=0.15)
        receipts = await bench.send()
        taken = [receipt for receipt in receipts if receipt.state is State.SUBMITTED and receipt.reference]
        late = [receipt for receipt in receipts if isinstance(receipt.error, Throttled)]
        assert 0 < len(taken) == len(bench.log("submit"))
        assert len(taken) + len(late) == len(receipts)
        assert late
