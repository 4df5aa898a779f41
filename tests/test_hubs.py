"""A fleet over several hubs behind one address, as real processes: whoever dies, every village hears once what is live.

Judged by what the loudspeakers sounded. Devices reach the hubs through a balancer, as they do in an installation; it
knows of no hub whether it lives, and goes on to the next where nobody answers.
"""

from __future__ import annotations

import asyncio
import csv
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import psycopg
import pytest
from aiohttp import ClientError, ClientSession, ClientWebSocketResponse
from night import Night, NightStage
from servers import RabbitMQ, Redis
from test_loudspeaker_ws import hello_of

from channels._loudspeaker_connection import REPLACED
from gateway.demo.stage import Servers, free_port
from gateway.simulate.log import read
from gateway.simulate.speaker import Options

HUBS = ("hub", "hub 2", "hub 3")
PLAY_S = 3.0  # long enough for a hub to die amid it

pytestmark = pytest.mark.timeout(300)


class Balancer:
    """Passes connections on to hubs, each to the next one that answers."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self._turn = count()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)

    async def stop(self) -> None:
        """Cut everything."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        first = next(self._turn)
        for turn in range(len(self._ports)):
            with suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", self._ports[(first + turn) % len(self._ports)])
                await asyncio.gather(_pass(reader, back), _pass(there, writer))
                return
        writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


class Hubs(NightStage):
    """What loudspeakers need of a cluster: the API, which plans for them, and three hubs behind the port of one."""

    def __init__(self, folder: Path, servers: Servers) -> None:
        super().__init__(folder, servers)
        self.hub_ports = {name: free_port() for name in HUBS}

    @property
    def roles(self) -> tuple[str, ...]:
        """Processes of the gateway."""
        return ("api", "hub")

    def start_role(self, role: str) -> None:
        """Start a process; in place of the hub, all of them."""
        for name in HUBS if role == "hub" else (role,):
            if role == "hub":
                self.start_hub(name)
            else:
                super().start_role(name)

    def start_hub(self, name: str) -> None:
        """Start one hub."""
        port = {"MINGLUO_PORT": str(self.hub_ports[name])}
        self.start(name, ["-m", "gateway.cli", "hub"], self.environment("hub") | port)

    def url(self, name: str) -> str:
        """Where one hub itself listens."""
        return f"http://127.0.0.1:{self.hub_ports[name]}"


class Fleet(Night):
    """A night whose loudspeakers are spread over the hubs."""

    stage: Hubs

    async def held(self) -> dict[str, int]:
        """How many loudspeakers each hub holds; a hub that does not answer holds none."""
        found = {}
        for name in HUBS:
            try:
                found[name] = int(await self.metric(self.stage.url(name), "mingluo_devices_online{"))
            except ClientError:
                found[name] = 0
        return found

    async def _devices_online(self, wanted: int) -> bool:
        held = await self.held()
        return sum(held.values()) == wanted and min(held.values()) > 0

    def ends(self, alert: str) -> Mapping[str, int]:
        """How the announcements of an alert ended, and how often."""
        found: dict[str, int] = {}
        for entry in read(self.folder / "speakers.log", "end"):
            if entry["id"] == alert:
                found[entry["how"]] = found.get(entry["how"], 0) + 1
        return found


@asynccontextmanager
async def hubs(folder: Path, servers: Servers, offline: float = 0.0) -> AsyncIterator[Fleet]:
    """Run a cluster with three hubs, and its loudspeakers."""
    stage = Hubs(folder, servers)
    balancer = Balancer(list(stage.hub_ports.values()))
    await balancer.start(stage.hub_port)
    options = Options(offline=offline, play_s=PLAY_S, resend_s=1, backoff_s=0.2, backoff_max_s=1)
    fleet = Fleet(stage, residents=200, options=options)
    try:
        await fleet.begin()
        yield fleet
    finally:
        await fleet.end()
        await balancer.stop()


@pytest.fixture
def servers(amqp_url: str, redis_url: str, database_url: str) -> Servers:
    return Servers(amqp_url, redis_url, database_url)


async def everybody_once(fleet: Fleet, alert: str, towns: list[str]) -> None:
    """Wait until every loudspeaker has sounded; none a second time."""
    wanted = fleet.devices(towns)
    await fleet.until(lambda: wanted <= fleet.sounded(alert).keys(), 60, "all loudspeakers to sound")
    assert set(fleet.sounded(alert).values()) == {1}


async def played(fleet: Fleet, alert: str, number: int) -> None:
    """Wait until the gateway knows of so many that they have played."""

    async def known() -> bool:
        status = await fleet.status(alert) or {}
        rows = [row for row in status.get("counts", ()) if row["group"] == "loudspeakers" and row["state"] == "played"]
        return bool(sum(row["recipients"] for row in rows) == number)

    await fleet.until(known, 60, "the ledger to know who has played")


async def test_a_hub_that_dies_amid_a_broadcast_leaves_no_village_out_and_tells_none_twice(
    tmp_path: Path, servers: Servers
) -> None:
    """Its loudspeakers come back at another hub, which commands what is unfinished; a device knows what it plays."""
    async with hubs(tmp_path, servers) as fleet:
        towns, before = fleet.towns, await fleet.held()
        alert = await fleet.warn(towns)
        await fleet.until(lambda: fleet.count("speakers.log", '"sound"') > 20, 30, "the first loudspeakers to sound")
        fleet.stage.kill("hub 2")
        await everybody_once(fleet, alert, towns)
        await played(fleet, alert, len(fleet.devices(towns)))
        held = await fleet.held()
        assert (held["hub 2"], sum(held.values())) == (0, sum(before.values()))
        # A recall while they sound reaches those that moved, too; and nobody who comes back later hears it.
        stale = await fleet.order(towns)
        await fleet.approve(stale)
        await everybody_once(fleet, stale, towns)
        await fleet.recall(stale)
        await fleet.until(lambda: fleet.ends(stale).get("stopped", 0) > 0, 10, "what sounds to fall silent")
        fleet.stage.kill("hub 3")
        wanted = sum(before.values())
        await fleet.until(lambda: moved(fleet, wanted), 30, "all to come back at the last hub")
        assert set(fleet.sounded(stale).values()) == {1}
        assert fleet.ends(stale).keys() <= {"stopped", "played"}


async def moved(fleet: Fleet, wanted: int) -> bool:
    """Whether the last hub holds everybody."""
    return (await fleet.held())["hub"] == wanted


async def test_a_hub_that_freezes_delays_its_own_loudspeakers_and_nobody_elses(
    tmp_path: Path, servers: Servers
) -> None:
    """Half-open: it answers nobody, its sockets stay, and nothing tells its devices to go elsewhere yet."""
    async with hubs(tmp_path, servers) as fleet:
        before = await fleet.held()
        frozen = fleet.stage.processes["hub 3"]
        frozen.send_signal(signal.SIGSTOP)
        try:
            alert = await fleet.warn(fleet.towns)
            elsewhere = len(fleet.devices(fleet.towns)) - before["hub 3"]
            await fleet.until(lambda: len(fleet.sounded(alert)) >= elsewhere, 30, "those of the other hubs to sound")
            assert len(fleet.sounded(alert)) < len(fleet.devices(fleet.towns))  # its own wait for it
        finally:
            frozen.send_signal(signal.SIGCONT)
        await everybody_once(fleet, alert, fleet.towns)
        await played(fleet, alert, len(fleet.devices(fleet.towns)))


async def test_a_device_that_comes_at_a_second_hub_is_that_ones_alone_and_the_audit_knows(
    tmp_path: Path, servers: Servers
) -> None:
    """A copied key, or a line that died unseen: the last one with the right key speaks for the village."""
    async with hubs(tmp_path, servers, offline=0.1) as fleet, ClientSession() as session:
        rows = csv.DictReader((fleet.roster / "devices.csv").read_text("utf-8-sig").splitlines())
        row = next(row for row in rows if fleet.options.character(row["name"]) == "offline")
        headers = {"Authorization": f"Bearer {row['key']}"}

        async def come(hub: str) -> ClientWebSocketResponse:
            socket = await session.ws_connect(
                f"{fleet.stage.url(hub)}/v1/devices/{row['name']}/ws", headers=headers, autoping=True
            )
            await socket.send_str(hello_of())
            return socket

        before = await fleet.held()
        first = await come("hub")
        await fleet.until(lambda: holds(fleet, "hub", before["hub"] + 1), 10, "the first hub to hold it")
        second = await come("hub 2")
        async with asyncio.timeout(10):
            while not first.closed:
                await first.receive()
        assert first.close_code == REPLACED
        await fleet.until(lambda: holds(fleet, "hub 2", before["hub 2"] + 1), 10, "the second hub to hold it")
        await fleet.until(lambda: holds(fleet, "hub", before["hub"]), 10, "the first hub to let go")
        await fleet.warn([row["village"][:9]])
        async with asyncio.timeout(20):
            while (await second.receive_json()).get("type") != "command":
                pass
        await fleet.until(lambda: audited(servers.database) == [row["name"]], 10, "the audit to know, once")


def audited(database_url: str) -> list[str]:
    """Names of the devices that were replaced, once for each time."""
    replaced = "SELECT d.name FROM audit a JOIN device d ON CAST(d.id AS TEXT) = a.subject WHERE a.action = 'replaced'"
    with psycopg.connect(database_url) as database:
        return [str(name) for (name,) in database.execute(replaced)]


async def holds(fleet: Fleet, hub: str, number: int) -> bool:
    """Whether a hub holds so many."""
    return (await fleet.held())[hub] == number


async def test_loudspeakers_of_all_hubs_play_while_redis_and_rabbitmq_are_away(
    tmp_path: Path, database_url: str
) -> None:
    """They need the store alone: where nothing wakes a hub, it looks by itself."""
    with RabbitMQ() as broker, Redis() as redis:
        async with hubs(tmp_path, Servers(broker.url, redis.url, database_url)) as fleet:
            held = await fleet.held()
            broker.kill()
            redis.kill()
            alert = await fleet.warn(fleet.towns)
            await everybody_once(fleet, alert, fleet.towns)
            await played(fleet, alert, len(fleet.devices(fleet.towns)))
            assert await fleet.held() == held  # nobody had to look for another hub
