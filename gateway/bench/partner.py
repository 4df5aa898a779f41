"""A child process that does what it is asked: one line of JSON to it, one back. Both sides.

The measuring process says `await partner.ask("play", devices=6000)`; the child runs `obey` with a function for each
thing it can be asked. One question at a time; closing its input ends it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from gateway.bench.measure import LONGEST_S, process


class Partner:
    """The measuring side."""

    def __init__(self, module: str, child: asyncio.subprocess.Process) -> None:
        self._module = module
        self._child = child

    async def ask(self, what: str, **how: object) -> Any:
        """Ask for one thing and return the answer.

        Raises:
            RuntimeError: the child ended, or took too long; its words are on standard error.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(msgspec.json.encode((what, how)) + b"\n")
        try:
            line = await asyncio.wait_for(self._child.stdout.readline(), LONGEST_S)
        except TimeoutError:
            raise RuntimeError(f"{self._module} did not answer {what} in {LONGEST_S:.0f} s") from None
        if not line:
            raise RuntimeError(f"{self._module} ended while it was asked for {what}")
        return msgspec.json.decode(line)


@asynccontextmanager
async def partner(module: str, *arguments: str) -> AsyncIterator[Partner]:
    """Run a module that obeys; it is ended on the way out."""
    async with process(module, *arguments, stdin=asyncio.subprocess.PIPE) as child:
        yield Partner(module, child)


async def obey(answers: Mapping[str, Callable[..., Awaitable[object]]]) -> None:
    """Answer what is asked, one after the other, until there is nobody to ask: the child's side."""
    questions = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    while line := await questions.readline():
        what, how = msgspec.json.decode(line, type=tuple[str, dict[str, Any]])
        answer = await answers[what](**how)
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()
