"""`mingluo demo` from its first line to its exit status. Called by the command line.

Ctrl-C, SIGTERM and a closed terminal end it alike: every child is stopped, the temporary folder is removed, and the
exit status is 128 and the signal's number.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from gateway.demo.screen import Measured, Screen
from gateway.demo.stage import Servers, Stage
from gateway.demo.story import Story

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Measure = Callable[[], Awaitable[Sequence[Measured]]]


@contextmanager
def ended_by_signals() -> Iterator[list[signal.Signals]]:
    """Cancel the running task at the first signal; the list then holds it. Later ones do not break the clearing up."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    got: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        if not got and task is not None:
            task.cancel()
        got.append(number)

    for number in ENDING:
        loop.add_signal_handler(number, end, number)
    try:
        yield got
    finally:
        for number in ENDING:
            loop.remove_signal_handler(number)


async def run_demo(
    *,
    json_output: bool = False,
    recipients: int = 20_000,
    alert: Path | None = None,
    servers: Servers | None = None,
    keep: Path | None = None,
    measure: Measure | None = None,
) -> int:
    """Run the story; return the exit status: 0 if nobody is unaccounted for and nobody was told twice.

    `keep` is a folder to leave everything in; without it a temporary one is removed. `measure` gives the figures
    shown after the report; with `json_output` nothing is measured.

    Raises:
        OSError: the alert's file cannot be read.
        Refused: the alert is no valid message, is over, or the gateway refuses it.
    """
    screen = Screen(Console(stderr=json_output))
    with ended_by_signals() as got:
        try:
            with tempfile.TemporaryDirectory(prefix="mingluo-demo-", ignore_cleanup_errors=True) as temporary:
                folder = _made(keep or Path(temporary))
                result = await _night(Stage(folder, servers or Servers()), screen, recipients, alert)
            if measure is not None and not json_output:
                await _figures(screen, measure)
        except asyncio.CancelledError:
            if not got:
                raise
            screen.console.print(f"ended by {got[0].name}: every process is stopped")
            return 128 + got[0]
    if json_output:
        sys.stdout.write(orjson.dumps(result).decode() + "\n")
    return int(bool(result["unaccounted"] or result["duplicates"] or not result["expected"]))


def _made(folder: Path) -> Path:
    """Make a folder; absolute, for its path goes into settings that are read against other folders."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


async def _night(stage: Stage, screen: Screen, recipients: int, alert: Path | None) -> dict[str, Any]:
    story = Story(stage, recipients, screen, alert)
    try:
        with screen:
            await story.prepare()
            await story.play()
    finally:
        stage.stop()
    result = story.result()
    screen.report(story.phases, result)
    return result


async def _figures(screen: Screen, measure: Measure) -> None:
    with screen:
        screen.say("测量 measuring: three short benches, some 20 s")
        figures = await measure()
    screen.figures(figures)
