"""The stage of a demonstration or fault test: gateway processes and counterparts as real child processes.

Everything lives in one folder, listens on loopback, and is ended by the id of the process that was started.
A process can be killed with SIGKILL and started again, which is what the fault tests do.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec
from aiohttp import ClientError, ClientSession

from gateway.device_key import DeviceKey, DeviceKeys, create
from gateway.simulate.world import Ready, World

CLUSTER = ("api", "planner", "worker", "hub", "scheduler")
START_S = 60.0
STOP_S = 10.0


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Servers:
    """Three URLs make a cluster; without them the gateway is embedded."""

    amqp: str = ""
    redis: str = ""
    database: str = ""

    @property
    def cluster(self) -> bool:
        """Whether roles run as processes of their own."""
        return bool(self.amqp)


@dataclass
class Stage:
    """Owns the child processes. `channels` is the text of `channels.toml`, written once the counterparts listen."""

    folder: Path
    servers: Servers
    namespace: str = field(default_factory=lambda: f"mingluo-{secrets.token_hex(4)}")
    api_port: int = field(default_factory=free_port)
    hub_port: int = field(default_factory=free_port)
    ports: dict[str, int] = field(default_factory=dict)
    secret_key: str = field(default_factory=lambda: base64.b64encode(secrets.token_bytes(32)).decode())
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _logs: list[IO[bytes]] = field(default_factory=list)

    @property
    def roles(self) -> tuple[str, ...]:
        """Processes of the gateway."""
        return CLUSTER if self.servers.cluster else ("serve",)

    @property
    def api_url(self) -> str:
        """Where the API listens."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def hub_url(self) -> str:
        """Where loudspeakers connect."""
        return f"http://127.0.0.1:{self.hub_port if self.servers.cluster else self.api_port}"

    def device_key(self) -> DeviceKey:
        """Return the key that signs for loudspeakers; made before any process starts, for the hubs share it."""
        folder = self.folder / "data" / "keys" / "device"
        return (DeviceKeys.load(folder).keys or [create(folder, datetime.now(UTC))])[0]

    @property
    def pin(self) -> str:
        """The public key loudspeakers pin."""
        return self.device_key().pin

    def port_of(self, role: str) -> int:
        """Every process serves its metrics; the API and the hub serve more."""
        fixed = {"serve": self.api_port, "api": self.api_port, "hub": self.hub_port}
        return fixed.get(role) or self.ports.setdefault(role, free_port())

    def environment(self, role: str) -> dict[str, str]:
        """Return the settings of one gateway process."""
        own = {
            "DATA": str(self.folder / "data"),
            "CHANNELS": str(self.folder / "channels.toml"),
            "DATABASE_URL": self.servers.database,
            "AMQP_URL": self.servers.amqp,
            "REDIS_URL": self.servers.redis,
            "SECRET_KEY": self.secret_key,
            "NAMESPACE": self.namespace,
            "HOST": "127.0.0.1",
            "PORT": str(self.port_of(role)),
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MINGLUO_")}
        return inherited | {f"MINGLUO_{key}": value for key, value in own.items() if value}

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start one child; its output goes to a file of its name."""
        output = (self.folder / f"{name}.out").open("ab")
        self._logs.append(output)
        self.processes[name] = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
            [sys.executable, *command], stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment
        )

    async def start_world(self, world: World) -> Ready:
        """Start the counterparts and wait until they listen."""
        world = msgspec.structs.replace(world, pins=(self.pin,))
        (self.folder / "world.json").write_bytes(msgspec.json.encode(world))
        self.start("world", ["-m", "gateway.simulate.world", str(self.folder)])
        ready = self.folder / "ready.json"
        await self._until("world", ready.exists)
        return msgspec.json.decode(ready.read_bytes(), type=Ready)

    def start_role(self, role: str) -> None:
        """Start one process of the gateway."""
        self.device_key()
        self.start(role, ["-m", "gateway.cli", role], self.environment(role))

    async def start_gateway(self) -> None:
        """Start all processes of the gateway and wait until they answer."""
        for role in self.roles:
            self.start_role(role)
        await self.answering()

    async def answering(self) -> None:
        """Wait until every process of the gateway that was started answers.

        Raises:
            RuntimeError: a process ended or took too long, with the end of its output.
        """
        waiting = [role for role in self.roles if role in self.processes]
        deadline = time.monotonic() + START_S
        async with ClientSession() as session:
            while waiting:
                for role in self.roles:
                    self._alive(role)
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{waiting[0]} did not answer within {START_S:.0f} s\n{self.output(waiting[0])}")
                with contextlib.suppress(ClientError, TimeoutError):
                    async with session.get(f"http://127.0.0.1:{self.port_of(waiting[0])}/v1/health") as answer:
                        if answer.status == 200:
                            waiting.pop(0)
                            continue
                await asyncio.sleep(0.1)

    async def _until(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not ready():
            self._alive(name)
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} was not ready within {START_S:.0f} s\n{self.output(name)}")
            await asyncio.sleep(0.05)

    def _alive(self, name: str) -> None:
        process = self.processes.get(name)
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{name} ended with {process.returncode}\n{self.output(name)}")

    def output(self, name: str) -> str:
        """Return the last lines a child wrote."""
        path = self.folder / f"{name}.out"
        return "\n".join(path.read_text(errors="replace").splitlines()[-15:]) if path.exists() else ""

    def kill(self, name: str) -> None:
        """`kill -9` one child."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End every child: politely, then not."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + STOP_S
        for process in self.processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        for file in self._logs:
            file.close()
        self._logs.clear()
