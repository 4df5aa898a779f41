"""The API against its own description, driven by schemathesis over a real socket: no fault, no undocumented answer.

A client generated from /openapi.json meets every status, header, media type and shape it was told of, and nothing else,
whatever it sends and whoever it is. Bounded and seeded: a failure here comes again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from api_support import ADMIN, CLERK, ISSUER, SIGNER, VIEWER, Desk, opened
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from manual_clock import ManualClock
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.api import ENDPOINTS, Endpoint

TOKENS = {"": "", ISSUER: "issuer", SIGNER: "signer", CLERK: "clerk", VIEWER: "viewer", ADMIN: "admin"}
ELSEWHERE = "411726101"
EXAMPLES = 10  # per operation and kind of data
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


class Live:
    """A gateway on loopback in a thread of its own, and the ids of what it knows."""

    def __init__(self, folder: Path) -> None:
        self.alerts: list[str] = []
        self.url = ""
        self._folder = folder
        self._begun = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Live:
        self._thread.start()
        assert self._begun.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        async with opened(self._folder, ManualClock()) as desk:
            desk.core.settings = desk.core.settings.model_copy(
                update={"reads_per_minute": 1_000_000, "writes_per_minute": 1_000_000}
            )
            await self._fill(desk)
            self.url = str(desk.client.make_url("/"))
            self._begun.set()
            await self._end.wait()

    async def _fill(self, desk: Desk) -> None:
        """One alert under way, one ended, and drills elsewhere that wait."""
        self.alerts.append((await desk.issue())["id"])
        await desk.delivered(self.alerts[0])
        self.alerts.append((await desk.issue(identifier="other", level="orange"))["id"])
        await desk.call("POST", f"/v1/alerts/{self.alerts[1]}/recall", ISSUER, {"reason": "误发"})
        for number in range(3):
            far = [{"description": "泰山庙镇", "geocodes": {"township": [ELSEWHERE]}}]
            self.alerts.append(await desk.held(identifier=f"drill{number}", areas=far))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    load_all_checks()
    with Live(tmp_path_factory.mktemp("live")) as one:
        yield one


@pytest.fixture(scope="module")
def schema(live: Live) -> Any:
    return schemathesis.openapi.from_url(f"{live.url}openapi.json")


CASES = [(endpoint, GenerationMode.POSITIVE) for endpoint in ENDPOINTS] + [
    (endpoint, GenerationMode.NEGATIVE)
    for endpoint in ENDPOINTS
    if endpoint.query or endpoint.body or "{" in endpoint.path  # else there is nothing to get wrong
]


@pytest.mark.parametrize(("endpoint", "mode"), CASES, ids=[f"{one.operation}-{mode.value}" for one, mode in CASES])
def test_whatever_is_sent_is_answered_as_the_description_says(
    live: Live, schema: Any, endpoint: Endpoint, mode: GenerationMode
) -> None:
    """An undocumented answer at night is an exception in somebody's dispatch system, and a warning that stays there."""
    operation = schema[endpoint.path][endpoint.method]
    fitting = [token for token, role in TOKENS.items() if endpoint.access == "open" or role in endpoint.roles]
    statuses: set[int] = set()

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def drive(case: Any, data: st.DataObject) -> None:
        if "id" in (case.path_parameters or {}) and data.draw(st.booleans()):
            case.path_parameters["id"] = data.draw(st.sampled_from(live.alerts))
        token = data.draw(st.sampled_from(list(TOKENS)) | st.sampled_from(fitting))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        response = case.call(headers=headers)
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    drive()
    assert statuses
