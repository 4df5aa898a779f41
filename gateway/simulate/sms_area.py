"""A carrier's provincial platform for area messages (小区短信) on loopback: it is told a place, and never a number.

`mingluo simulate sms-area` and the tests start it. A job names area codes or a polygon, a text, a level and the
number it was approved under; the platform sends to every phone in the place, at its own rate, and tells counts.
The API itself is ours: provinces differ.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import msgspec
from aiohttp import web

from gateway.simulate.log import Log

LONGEST_TEXT = 500
MOST_POINTS = 1000
SQUARE_DEGREE_KM2 = 10_000
"""Near enough at 33° north: the platform only guesses how many phones a polygon holds."""


class Request(msgspec.Struct, frozen=True):
    """A job as posted. `polygon` is a ring of (lon, lat), first = last; `ref` makes a repeated request harmless."""

    ref: str
    text: str
    level: Literal["red", "orange", "yellow", "blue"]
    approval: str
    areas: list[str] = []
    polygon: list[tuple[float, float]] = []


@dataclass(frozen=True)
class AreaScenario:
    """What the platform is like."""

    within: str = "4117"
    """Area codes it serves begin with this."""
    approvals: frozenset[str] = frozenset()
    """Approval numbers it knows; none registered takes any that is not empty."""
    phones_per_area: int = 20_000
    phones_per_km2: int = 100
    rate: float = 5_000.0
    """Phones a second."""
    delivered: float = 0.93
    """Share of phones that confirm."""
    report_after_s: float = 2.0
    broken: bool = False
    """Answer 500."""
    dropped: bool = False
    """Take a job and never answer."""
    latency_s: float = 0.0


@dataclass
class Job:
    """An accepted job; `ended` is when it was stopped."""

    id: str
    request: Request
    phones: int
    began: float
    ended: float | None = None


class AreaPlatform:
    """The server. `scenario` may be replaced while it runs."""

    def __init__(self, log: Log, token: str = "simulated-token") -> None:  # noqa: S107  # opens nothing else
        self.log = log
        self.scenario = AreaScenario()
        self.jobs: dict[str, Job] = {}
        self.token = token
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> str:
        """Listen on loopback and return the base URL; port 0 takes a free one."""
        app = web.Application(middlewares=[self._admit])
        app.router.add_post("/v1/jobs", self._create)
        app.router.add_get("/v1/jobs", self._find)
        app.router.add_get("/v1/jobs/{id}", self._show)
        app.router.add_post("/v1/jobs/{id}/stop", self._stop)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self.url

    async def stop(self) -> None:
        """Stop listening. Jobs are kept for a later `start`."""
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _admit(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.scenario.latency_s:
            await asyncio.sleep(self.scenario.latency_s)
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(errors="surrogateescape"), f"Bearer {self.token}".encode()):
            return _refuse(401, "token")
        if self.scenario.broken:
            return web.Response(status=500)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _create(self, request: web.Request) -> web.StreamResponse:
        try:
            wanted = msgspec.json.decode(await request.read(), type=Request)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _refuse(400, "request")
        for job in self.jobs.values():
            if job.request.ref == wanted.ref:
                if job.request != wanted:
                    self.log.write("refused", code="ref", ref=wanted.ref)
                    return _refuse(409, "ref")
                self.log.write("again", id=job.id, ref=wanted.ref)
                return self._told(job)
        if code := self._refusal(wanted):
            self.log.write("refused", code=code, ref=wanted.ref)
            return _refuse(422, code)
        job = Job(f"J{len(self.jobs) + 1:08d}", wanted, self._phones(wanted), asyncio.get_running_loop().time())
        self.jobs[job.id] = job
        self.log.write("job", id=job.id, phones=job.phones, **msgspec.to_builtins(wanted))
        if self.scenario.dropped and request.transport is not None:
            request.transport.abort()
        return self._told(job, 201)

    def _refusal(self, wanted: Request) -> str:
        """Return what is wrong with a job, "" if nothing is."""
        scenario, ring = self.scenario, wanted.polygon
        if not wanted.ref or not wanted.text or len(wanted.text) > LONGEST_TEXT:
            return "text" if wanted.ref else "ref"
        if not wanted.approval or (scenario.approvals and wanted.approval not in scenario.approvals):
            return "approval"
        if bool(wanted.areas) == bool(ring):
            return "place"
        if not all(re.fullmatch(r"[0-9]{6}|[0-9]{9}|[0-9]{12}", code) for code in wanted.areas):
            return "area"
        if not all(code.startswith(scenario.within) for code in wanted.areas):
            return "outside"
        if ring and (not 4 <= len(ring) <= MOST_POINTS or ring[0] != ring[-1]):
            return "polygon"
        return "" if all(abs(lon) <= 180 and abs(lat) <= 90 for lon, lat in ring) else "polygon"

    def _phones(self, wanted: Request) -> int:
        if wanted.areas:
            return self.scenario.phones_per_area * len(set(wanted.areas))
        ring = wanted.polygon
        twice = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring))
        return int(abs(twice) / 2 * SQUARE_DEGREE_KM2 * self.scenario.phones_per_km2)

    async def _find(self, request: web.Request) -> web.StreamResponse:
        """Show the job of a `ref`, for who has lost the answer."""
        found = (job for job in self.jobs.values() if job.request.ref == request.query.get("ref"))
        return self._told(job) if (job := next(found, None)) else _refuse(404, "job")

    async def _show(self, request: web.Request) -> web.StreamResponse:
        job = self.jobs.get(request.match_info["id"])
        return self._told(job) if job else _refuse(404, "job")

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return _refuse(404, "job")
        if job.ended is None and self._sent(job) < job.phones:
            job.ended = asyncio.get_running_loop().time()
            self.log.write("stop", id=job.id, submitted=self._sent(job))
        return self._told(job)

    def _sent(self, job: Job, ago_s: float = 0.0) -> int:
        """Count the phones sent to until so many seconds ago; a stopped job sends to no more."""
        until = asyncio.get_running_loop().time() - ago_s
        until = until if job.ended is None else min(until, job.ended)
        return max(0, min(job.phones, int((until - job.began) * self.scenario.rate)))

    def _told(self, job: Job, status: int = 200) -> web.Response:
        submitted = self._sent(job)
        state = "stopped" if job.ended is not None else "done" if submitted == job.phones else "running"
        delivered = int(self._sent(job, self.scenario.report_after_s) * self.scenario.delivered)
        counts = {"requested": job.phones, "submitted": submitted, "delivered": delivered}
        return web.json_response({"job": job.id, "ref": job.request.ref, "state": state, **counts}, status=status)


def _refuse(status: int, code: str) -> web.Response:
    return web.json_response({"code": code}, status=status)
