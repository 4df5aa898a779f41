"""smpp34: its own client and server, each in a process; the argument is how many messages are submitted.

The client's window is as wide as that of `mingluo bench carriers` where one number is in a submit; a fixed number of
coroutines submit from one iterator, and the server accepts each at once. The last line is answered submits per second.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time

import smpp34

HOST = "127.0.0.1"
WINDOW = 1_000
TEXT = "暴雨红色预警：未来3小时将有100毫米以上强降雨，请立即转移。".encode("utf-16-be")
WARM = 200


async def serve(port: int) -> None:
    """Accept everything for ever."""
    server = smpp34.Server(HOST, port, system_id="peer", inbound_capacity=100_000)
    await server.start()
    print("ready", flush=True)
    numbers = 0
    while True:
        event = await server.next()
        if isinstance(event, smpp34.SubmitSmEvent):
            numbers += 1
            event.accept(str(numbers))


async def submit(smsc: smpp34.Smsc, number: int) -> None:
    """Submit that many, each answered."""
    left = iter(range(number))

    async def work() -> None:
        for one in left:
            answer = await smsc.submit_sm(
                f"100{one:08d}", TEXT, source_addr="10690001", data_coding=8, registered_delivery=1
            )
            if not answer.is_success:
                raise RuntimeError(f"refused with {answer.command_status}")

    await asyncio.gather(*(work() for _ in range(WINDOW)))


async def measure(port: int, number: int) -> float:
    """Bind, warm up, and return submits per second."""
    client = smpp34.Client(HOST, port, "bench", "secret", bind_type="TRX", window_size=WINDOW)
    smsc = await client.connect()
    await submit(smsc, WARM)
    began = time.perf_counter()
    await submit(smsc, number)
    took_s = time.perf_counter() - began
    await smsc.unbind()
    return number / took_s


def main() -> None:
    """Run the server beside the client."""
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
        return
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, "serve", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - our own interpreter and arguments
    try:
        assert server.stdout is not None
        server.stdout.readline()
        print(asyncio.run(measure(port, int(sys.argv[1]))), flush=True)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
