"""The simulated HTTP provider and area platform, asked over plain HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, web

from gateway.simulate.log import Log, read
from gateway.simulate.sms_area import AreaPlatform, AreaScenario
from gateway.simulate.sms_http import HttpProvider, HttpScenario

NUMBER, OTHER = "10000000001", "10000000002"
TOKEN = {"Authorization": "Bearer simulated-token"}
JOB = {"ref": "a1", "text": "暴雨红色预警", "level": "red", "approval": "2026-1", "areas": ["411726", "411726100"]}


class Site:
    """A server's address and a client."""

    def __init__(self, url: str, session: ClientSession) -> None:
        self.url, self.session = url, session

    async def ask(self, path: str, body: object = None, token: dict[str, str] = TOKEN) -> tuple[int, Any]:
        method = "GET" if body is None else "POST"
        async with self.session.request(method, self.url + path, json=body, headers=token) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[HttpProvider]:
    provider = HttpProvider(Log(tmp_path / "http.jsonl"))
    yield provider
    await provider.stop()


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[AreaPlatform]:
    platform = AreaPlatform(Log(tmp_path / "area.jsonl"))
    yield platform
    await platform.stop()


async def test_the_provider_takes_each_number_by_itself(provider: HttpProvider, session: ClientSession) -> None:
    """HTTP says 200 to everything: success is in the codes, one for the batch and one for each number."""
    site = Site(await provider.start(), session)
    status, answer = await site.ask("/v1/messages", {"numbers": [NUMBER, "0396-1"], "text": "预警", "ref": "b7"})
    assert (status, answer["code"], [each["code"] for each in answer["results"]]) == (200, "0", ["0", "2001"])
    (taken,) = read(provider.log.path, "submit")
    assert (taken["numbers"], taken["text"], taken["ref"]) == ([NUMBER], "预警", "b7")
    assert provider.received == 1


async def test_the_provider_says_what_it_refuses(provider: HttpProvider, session: ClientSession) -> None:
    """Token, form, size, signature and speed have codes of their own; nothing is taken."""
    provider.scenario = HttpScenario(signatures=frozenset({"【泌阳县气象局】"}))
    site, good = Site(await provider.start(), session), {"numbers": [NUMBER], "text": "【泌阳县气象局】预警"}
    assert (await site.ask("/v1/messages", good, {}))[1]["code"] == "1001"
    for body, code in (
        ({"numbers": [NUMBER] * 501, "text": "【泌阳县气象局】"}, "1003"),
        ({"numbers": [NUMBER], "text": "预警"}, "1004"),
        ({"numbers": [], "text": "【泌阳县气象局】"}, "1005"),
        ({"numbers": NUMBER, "text": 1}, "1005"),
        ([], "1005"),
    ):
        assert (await site.ask("/v1/messages", body))[1]["code"] == code
    provider.scenario = replace(provider.scenario, throttled=1.0)
    assert (await site.ask("/v1/messages", good))[1]["code"] == "1002"
    provider.scenario = HttpScenario(broken=1.0)
    assert (await site.ask("/v1/messages", good))[0] == 500
    assert provider.received == 0


async def test_the_provider_keeps_reports_and_replies_to_be_polled(
    provider: HttpProvider, session: ClientSession
) -> None:
    """A lost answer loses none: the cursor moves when the client says so."""
    provider.scenario = HttpScenario(answering=1.0, duplicated=1.0)
    site = Site(await provider.start(), session)
    await site.ask("/v1/messages", {"numbers": [NUMBER], "text": "预警", "sender": "1069"})
    for _ in range(2):
        _, polled = await site.ask("/v1/reports?after=0")
        assert [(each["number"], each["status"]) for each in polled["reports"]] == [(NUMBER, "DELIVRD")] * 2
    assert (await site.ask(f"/v1/reports?after={polled['next']}"))[1]["reports"] == []
    (reply,) = (await site.ask("/v1/replies"))[1]["replies"]
    assert (reply["number"], reply["text"], reply["to"]) == (NUMBER, "1", "1069")
    assert (await site.ask("/v1/reports?after=-1"))[1]["code"] == "1005"


async def test_the_provider_calls_back_until_it_is_heard(provider: HttpProvider, session: ClientSession) -> None:
    """A gateway that could not commit answers 503 and gets the report again."""
    came: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    statuses = [503, 200]

    async def take(request: web.Request) -> web.Response:
        await came.put(await request.json())
        return web.Response(status=statuses.pop(0))

    app = web.Application()
    app.router.add_post("/callback", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/callback"
    provider.scenario = HttpScenario(callback_url=url, callback_pause_s=0.001, failing=1.0)
    site = Site(await provider.start(), session)
    await site.ask("/v1/messages", {"numbers": [NUMBER], "text": "预警"})
    async with asyncio.timeout(5):
        first, second = await came.get(), await came.get()
    assert first == second
    assert first["reports"][0]["status"] == "UNDELIV"
    await runner.cleanup()


async def test_the_provider_may_take_a_text_and_never_answer(provider: HttpProvider, session: ClientSession) -> None:
    """The client must not send it again blindly."""
    provider.scenario = HttpScenario(dropped=1.0)
    site = Site(await provider.start(), session)
    with pytest.raises(ClientError):
        await site.ask("/v1/messages", {"numbers": [NUMBER], "text": "预警"})
    assert provider.received == 1


async def test_an_area_job_grows_and_can_be_stopped(platform: AreaPlatform, session: ClientSession) -> None:
    """Counts only, no numbers of people; what is sent stays sent."""
    platform.scenario = AreaScenario(rate=100.0, report_after_s=0.0, delivered=1.0)
    site = Site(await platform.start(), session)
    status, job = await site.ask("/v1/jobs", JOB)
    assert (status, job["state"], job["requested"]) == (201, "running", 40_000)
    async with asyncio.timeout(5):
        while (shown := (await site.ask(f"/v1/jobs/{job['job']}"))[1])["delivered"] == 0:
            pass
    assert 0 < shown["delivered"] <= shown["submitted"] < 40_000
    _, stopped = await site.ask(f"/v1/jobs/{job['job']}/stop", {})
    assert stopped["state"] == "stopped"
    assert (await site.ask(f"/v1/jobs/{job['job']}"))[1] == stopped
    (logged,) = read(platform.log.path, "job")
    assert (logged["areas"], logged["text"], logged["approval"]) == (JOB["areas"], JOB["text"], "2026-1")


async def test_an_area_job_ends_by_itself(platform: AreaPlatform, session: ClientSession) -> None:
    """A stop that comes too late changes nothing."""
    platform.scenario = AreaScenario(rate=1e12, report_after_s=0.0)
    site = Site(await platform.start(), session)
    ring = [[113.3, 32.7], [113.4, 32.7], [113.4, 32.8], [113.3, 32.8], [113.3, 32.7]]
    _, job = await site.ask("/v1/jobs", JOB | {"areas": [], "polygon": ring})
    _, stopped = await site.ask(f"/v1/jobs/{job['job']}/stop", {})
    assert stopped["state"] == "done"
    assert stopped["submitted"] == stopped["requested"] == pytest.approx(10_000, abs=5)
    assert stopped["delivered"] == int(stopped["requested"] * 0.93)


async def test_a_request_repeated_is_one_job(platform: AreaPlatform, session: ClientSession) -> None:
    """A lost answer must not send to a county twice."""
    site = Site(await platform.start(), session)
    _, first = await site.ask("/v1/jobs", JOB)
    status, again = await site.ask("/v1/jobs", JOB)
    assert (status, again["job"]) == (200, first["job"])
    assert (await site.ask("/v1/jobs", JOB | {"text": "other"}))[0] == 409
    assert len(platform.jobs) == 1


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"approval": ""}, 422, "approval"),
        ({"approval": "2026-2"}, 422, "approval"),
        ({"areas": []}, 422, "place"),
        ({"areas": ["4117"]}, 422, "area"),
        ({"areas": ["411726", "421300"]}, 422, "outside"),
        ({"areas": [], "polygon": [[113, 32], [114, 32], [113, 32]]}, 422, "polygon"),
        ({"areas": [], "polygon": [[113, 32], [114, 32], [114, 99], [113, 32]]}, 422, "polygon"),
        ({"text": ""}, 422, "text"),
        ({"ref": ""}, 422, "ref"),
        ({"level": "purple"}, 400, "request"),
    ],
)
async def test_the_platform_says_what_it_refuses(
    platform: AreaPlatform, session: ClientSession, change: dict[str, Any], status: int, code: str
) -> None:
    """Nothing goes to the wrong county, or without a number of approval."""
    platform.scenario = AreaScenario(approvals=frozenset({"2026-1"}))
    site = Site(await platform.start(), session)
    assert await site.ask("/v1/jobs", JOB | change) == (status, {"code": code})
    assert (await site.ask("/v1/jobs/J1"))[0] == 404
    assert (await site.ask("/v1/jobs", JOB, {}))[0] == 401
    platform.scenario = AreaScenario(broken=True)
    assert (await site.ask("/v1/jobs", JOB))[0] == 500
    assert platform.jobs == {}
