"""What `mingluo bench speakers` compares with: a bare aiohttp loop that writes one frame to all its sockets.

It knows no device, asks no store, signs nothing and hears no receipt. `python -m gateway.bench.speaker_bare`.
"""

from __future__ import annotations

import time

import uvloop
from aiohttp import web

from gateway.bench.partner import obey
from gateway.bench.speaker_fleet import lift_limit
from gateway.bench.usage import anonymous_bytes


async def run() -> None:
    """Serve until nobody asks any more."""
    sockets: set[web.WebSocketResponse] = set()

    async def accept(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=30.0, compress=False)
        await socket.prepare(request)
        sockets.add(socket)
        try:
            async for _ in socket:
                pass
        finally:
            sockets.discard(socket)
        return socket

    async def play(frame: str) -> float:
        began = time.monotonic()
        for socket in sockets:
            await socket.send_str(frame)
        return began

    async def port() -> int:
        return int(runner.addresses[0][1])

    async def memory() -> int:
        return anonymous_bytes()

    application = web.Application()
    application.router.add_get("/v1/devices/{name}/ws", accept)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    await obey({"port": port, "play": play, "memory": memory})
    await runner.cleanup()


if __name__ == "__main__":
    lift_limit()
    uvloop.run(run())
