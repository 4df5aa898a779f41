"""Whoever looks after what platforms go on with by themselves: nothing ends it but its own end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from links import RecordingLink
from test_pipeline import until

from channels._follower import end, follow
from gateway.channel import Link
from gateway.errors import Temporary
from gateway.model import Job, JobState, Progress

NOW = datetime(2026, 7, 20, 6, 0, tzinfo=UTC)
ONE = Job(Progress("b", "one", JobState.RUNNING, NOW, job="J1"), over=False, since=NOW)


def job(source: str, *, over: bool = False) -> Job:
    return ONE._replace(progress=replace(ONE.progress, source=source), over=over)


async def test_a_cancellation_that_is_lost_is_said_again() -> None:
    """A timeout that ends in the same moment takes it for its own; a gateway that waits for ever is never restarted."""
    losses = 0

    async def loses_the_first() -> None:
        nonlocal losses
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                losses += 1
                if losses > 1:
                    raise

    task = asyncio.create_task(loses_the_first())
    await asyncio.sleep(0)
    await end([task])
    assert (losses, task.cancelled()) == (2, True)


async def test_a_bug_with_one_request_is_reported_and_costs_no_other_its_turn() -> None:
    """The platform goes on broadcasting whatever we think of one of its answers; all others must still be stopped."""
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    link, looked = RecordingLink(due=[job("fails"), job("bug"), job("ends", over=True), job("goes on")]), list[str]()

    async def look(job: Job, _: Link) -> None:
        looked.append(job.progress.source)
        if job.progress.source == "fails":
            raise Temporary("timeout")
        if job.progress.source == "bug":
            raise LookupError("nobody foresaw it")

    task = asyncio.create_task(follow(link, 5.0, look, at_once=1))
    await until(lambda: len(looked) == 4)
    assert looked == ["ends", "fails", "bug", "goes on"]  # what must run no longer comes first
    assert [type(one["exception"]) for one in seen] == [LookupError]
    link.due.append(job("later"))
    await until(lambda: "later" in looked)
    await end([task])
