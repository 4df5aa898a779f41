"""Look after what a platform has taken and goes on with by itself. Used by `sms_area` and `loudspeaker_ebd`.

Each process takes its share of what is due, what must run no longer first. Nothing that goes wrong with one costs
another its turn: what cannot be learnt or stopped now comes up again, and a bug is reported and passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence

from gateway.channel import Link
from gateway.errors import MingluoError
from gateway.model import Job

LOOK_S = 0.5  # between two looks at what is due
CANCEL_AGAIN_S = 0.5

Look = Callable[[Job, Link], Awaitable[None]]


async def follow(link: Link, each_s: float, look: Look, at_once: int) -> None:
    """Look at what is due, each once in `each_s`, for ever, at most `at_once` at the same time."""
    while True:
        with contextlib.suppress(MingluoError):  # the store is away
            await _round(await link.jobs(each_s), link, look, at_once)
        await asyncio.sleep(LOOK_S)


async def _round(jobs: Sequence[Job], link: Link, look: Look, at_once: int) -> None:
    work = iter(sorted(jobs, key=lambda job: not job.over))

    async def worker() -> None:
        for job in work:
            try:
                await look(job, link)
            except MingluoError:
                continue  # it comes up again
            except Exception as error:  # a bug must be seen, and must not end the rest
                what = {"message": f"request {job.progress.job} cannot be followed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(what)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(at_once, len(jobs))):
            group.create_task(worker())


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """End tasks. A cancellation that meets the timeout of a request is lost, so it is said again."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        running = (await asyncio.wait(running, timeout=CANCEL_AGAIN_S))[1]
