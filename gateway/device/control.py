"""The device's own buttons: a socket in its folder that `mingluo device alarm` and the like write to.

One word per connection, one JSON line back. Who may open the socket (its owner) may press the buttons.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson

from gateway.errors import ConfigError

NAME = "control.sock"
LONGEST_PATH = 107
LONGEST_WORD = 64
ANSWER_S = 10.0


@contextlib.asynccontextmanager
async def listening(folder: Path, press: Callable[[str], dict[str, Any]]) -> AsyncIterator[None]:
    """Answer each word with what `press` makes of it.

    Raises:
        ConfigError: the folder's path is too long for a socket.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(TimeoutError, ConnectionError, ValueError):
            async with asyncio.timeout(ANSWER_S):
                word = (await reader.readline()).decode("ascii", "replace").strip()
                writer.write(orjson.dumps(press(word), option=orjson.OPT_APPEND_NEWLINE))
                await writer.drain()

    path = _path(folder)
    path.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(serve, path, limit=LONGEST_WORD)
    finally:
        os.umask(mask)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


def press(folder: Path, word: str) -> dict[str, Any]:
    """Press a button of the device that runs with this folder; return its answer.

    Raises:
        ConfigError: no device runs there, or it does not answer.
    """
    with socket.socket(socket.AF_UNIX) as button:
        button.settimeout(ANSWER_S)
        try:
            button.connect(str(_path(folder)))
            button.sendall(word.encode() + b"\n")
            with button.makefile("rb") as answer:
                found = orjson.loads(answer.readline())
        except (OSError, ValueError):
            raise ConfigError(f"{folder}: no device answers here; start it, or name its folder with --state") from None
    return found if isinstance(found, dict) else {}


def _path(folder: Path) -> Path:
    path = folder / NAME
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ConfigError(f"{folder}: this path is too long for a socket; choose a shorter one")
    return path
