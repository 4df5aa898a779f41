"""The peer of `mingluo bench carriers`: the client of the `smpp34` package against its own server.

Its program stands in `ops/bench/smpp34`, with a virtual environment of its own made by `ops/bench/setup.sh`. Client
and server are two processes there, as gateway and carriers are here. Nothing here imports it.
"""

from __future__ import annotations

import asyncio

from gateway.bench.measure import environment
from gateway.bench.peer import FOLDER, Peer
from gateway.errors import ConfigError

PEER = Peer("smpp34", "smpp34", "smpp34", (), 0)
LONGEST_S = 120.0


async def submit_rate(number: int) -> float:
    """Return how many submits a second the client has answered.

    Raises:
        ConfigError: it is not installed, or failed; the text says what to do.
    """
    if PEER.missing():
        script = FOLDER / "setup.sh"
        if script.exists():
            process = await asyncio.create_subprocess_exec(
                script, PEER.folder, stdin=asyncio.subprocess.DEVNULL, env=environment()
            )
            await process.wait()
    if why := PEER.missing():
        raise ConfigError(f"the peer smpp34 cannot be measured: {why}")
    own = PEER.environment
    assert own is not None
    process = await asyncio.create_subprocess_exec(
        own / "bin" / "python", "peer.py", str(number), cwd=FOLDER / PEER.folder, env=environment(),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), LONGEST_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise ConfigError(f"ops/bench/smpp34/peer.py ended with {process.returncode}: its words are above")
    return float(output.splitlines()[-1])
