"""An installation to measure in: people, configuration, and the gateway as real processes, embedded or a cluster.

The servers of a cluster are those that `MINGLUO_AMQP_URL`, `MINGLUO_DATABASE_URL` and `MINGLUO_REDIS_URL` name. What
they hold is not touched: the installation makes a database and a namespace of its own and removes both.

    async with installation(given(), [Crowd(1_000_000, townships)]) as place:
        async with place.running() as gateway:
            alert = await gateway.submit(cap.write(yellow_rain("1", townships)))
            await gateway.settled(alert, 1_000_000)
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import psycopg
from aiohttp import ClientSession
from psycopg import sql
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.bench.measure import COUNTY, configuration, environment
from gateway.bench.people import add_people
from gateway.database import Database
from gateway.demo.stage import Servers, Stage
from gateway.directory.sealed import END
from gateway.directory.sealing import LACKING
from gateway.directory.vault import Vault
from gateway.errors import ConfigError
from gateway.model import Group, Lane
from gateway.regions import Regions
from gateway.relay import queue
from gateway.settings import data_folder
from gateway.transaction import Tx

TOKEN = "demo-411726-qxj-issuer"  # noqa: S105  # counts in simulation only
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/cap+xml"}
CHANNELS = "[noop]\n"
WORKERS = {"worker": "green,urgent", "bulk": "bulk,service"}
"""Workers where bulk work has one of its own, and the lanes they take from."""
PATIENCE_S = 300.0
POLL_S = 0.01
SEALING_S = 0.25
ANSWER_S = 5.0
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")
_MAY = "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
_OPEN = (
    "SELECT EXISTS (SELECT 1 FROM step WHERE alert = :alert AND finished = 0)"
    " OR EXISTS (SELECT 1 FROM batch WHERE alert = :alert AND unfinished > 0)"
)


@dataclass(frozen=True)
class Crowd:
    """People spread evenly over the villages of some townships of one county."""

    number: int
    townships: Sequence[str]
    group: Group = Group.RESIDENTS


def given() -> Servers | None:
    """Return the servers that the environment names; None unless all three are there."""
    amqp, redis, database = (os.environ.get(f"MINGLUO_{kind}_URL", "") for kind in ("AMQP", "REDIS", "DATABASE"))
    return Servers(amqp, redis, database) if amqp and redis and database else None


def inhabited(county: str = COUNTY) -> list[str]:
    """Return the townships of a county whose villages are known."""
    regions = Regions.load(data_folder("config") / "regions")
    return [town.code for town in regions.children(county) if regions.villages(town.code)]


@asynccontextmanager
async def installation(servers: Servers | None, crowds: Iterable[Crowd]) -> AsyncIterator[Installation]:
    """Make an installation, embedded where there are no servers, and remove it again.

    Raises:
        ConfigError: the database does not answer, does not sync its commits, or may not be added to.
    """
    with tempfile.TemporaryDirectory(prefix="mingluo-bench-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        configuration(folder)
        (folder / "channels.toml").write_text(CHANNELS, encoding="utf8")
        async with _of_its_own(servers) if servers else _nothing() as own:
            place = Installation(folder, *own)
            await place.populate(crowds)
            yield place


@asynccontextmanager
async def _nothing() -> AsyncIterator[tuple[Servers, str]]:
    yield Servers(), f"bench-{secrets.token_hex(4)}"


@asynccontextmanager
async def _of_its_own(servers: Servers) -> AsyncIterator[tuple[Servers, str]]:
    """Make a database and a namespace, and remove both with what they hold."""
    await _answering(servers)
    namespace = f"bench-{secrets.token_hex(4)}"
    name = sql.Identifier(namespace)
    async with await _administrator(servers.database) as connection:
        await connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(name))
        try:
            url = urlunsplit(urlsplit(servers.database)._replace(path=f"/{namespace}"))
            yield Servers(servers.amqp, servers.redis, url), namespace
        finally:
            await connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
            await _forget(servers, namespace)


async def _answering(servers: Servers) -> None:
    """Find out now what would otherwise show as a cluster that does not come to its end."""
    try:
        async with asyncio.timeout(ANSWER_S), await aio_pika.connect(servers.amqp):
            pass
    except (*aio_pika.exceptions.CONNECTION_EXCEPTIONS, TimeoutError):
        raise ConfigError("MINGLUO_AMQP_URL: RabbitMQ does not answer there, or refuses the user") from None
    try:
        async with asyncio.timeout(ANSWER_S), Redis.from_url(servers.redis) as redis:
            await redis.ping()
    except (RedisError, OSError):
        raise ConfigError("MINGLUO_REDIS_URL: Redis does not answer there, or refuses the user") from None


async def _administrator(url: str) -> psycopg.AsyncConnection[Any]:
    """Connect to a server that syncs its commits, as a user who may make databases."""
    try:
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    except psycopg.OperationalError:
        raise ConfigError("MINGLUO_DATABASE_URL: PostgreSQL does not answer there, or refuses the user") from None
    may = await (await connection.execute(_MAY)).fetchone()
    lax = [one for one in DURABLE if await (await connection.execute(f"SHOW {one}")).fetchone() != ("on",)]
    if may == (True,) and not lax:
        return connection
    await connection.close()
    if lax:
        raise ConfigError(f"PostgreSQL runs with {lax[0]} off: what it settles would not be durable; switch it on")
    raise ConfigError("MINGLUO_DATABASE_URL: the bench makes a database of its own; give a user with CREATEDB")


async def _forget(servers: Servers, namespace: str) -> None:
    """Remove the queues and keys of a namespace."""
    async with await aio_pika.connect(servers.amqp) as connection, connection.channel() as channel:
        for name in (*(queue("noop", lane) for lane in Lane), "dead"):
            await channel.queue_delete(f"{namespace}.{name}")
        await channel.exchange_delete(f"{namespace}.dead")
    async with Redis.from_url(servers.redis) as redis:
        async for key in redis.scan_iter(match=f"{namespace}*"):
            await redis.delete(key)


@dataclass
class Installation:
    """People and configuration; processes come and go with `running`."""

    folder: Path
    servers: Servers
    namespace: str
    secret_key: str = field(default_factory=lambda: Stage(Path(), Servers()).secret_key)

    async def populate(self, crowds: Iterable[Crowd]) -> None:
        """Write the people, and let the database look at what it has been given, as it would by itself in a minute."""
        data = self.folder / "data"
        database = Database(self.servers.database or f"sqlite:///{data / 'mingluo.db'}")
        await database.open()
        try:
            vault = Vault.of(self.secret_key, data)
            for crowd in crowds:
                await add_people(database, vault, crowd.number, crowd.group, crowd.townships)
            await database.write(lambda tx: tx.run("ANALYZE"))
        finally:
            await database.close()

    @asynccontextmanager
    async def running(self, *, lanes: bool = False, log_level: str = "warning") -> AsyncIterator[Running]:
        """Run every process of the gateway; each starts anew. `lanes`: bulk work of a cluster has its own worker."""
        stage = Stage(self.folder, self.servers, self.namespace, secret_key=self.secret_key)
        own = {"MINGLUO_CONFIG": str(self.folder / "config"), "MINGLUO_LOG_LEVEL": log_level}
        stage.device_key()
        commands = {role: [role] for role in stage.roles}
        if lanes and self.servers.cluster:
            commands |= {name: ["worker", "--lanes", taken] for name, taken in WORKERS.items()}
        try:
            for name, command in commands.items():
                stage.start(name, ["-m", "gateway.cli", *command], environment() | stage.environment(name) | own)
            await stage.answering()
            with closing(self._connect()) as connection:
                async with ClientSession(stage.api_url, headers=HEADERS) as session:
                    yield Running(stage, session, connection)
        finally:
            stage.stop()

    def _connect(self) -> Any:
        """Open a connection that reads beside the gateway."""
        if self.servers.database:
            return psycopg.connect(self.servers.database, autocommit=True)
        return sqlite3.connect(f"file:{self.folder / 'data' / 'mingluo.db'}?mode=ro", uri=True)


class Running:
    """The gateway at work: its processes, a client of its API, and an eye on its database."""

    def __init__(self, stage: Stage, session: ClientSession, connection: Any) -> None:
        self.stage = stage
        self.session = session
        self._connection = connection

    @property
    def pids(self) -> dict[str, int]:
        """Process id of every role."""
        return {role: process.pid for role, process in self.stage.processes.items()}

    async def submit(self, data: bytes) -> str:
        """Post a message; return the alert's id.

        Raises:
            RuntimeError: it did not take the green channel at once.
        """
        async with self.session.post("/v1/alerts", data=data) as answer:
            body = await answer.json()
        if answer.status != 202 or body["route"] != "green":
            raise RuntimeError(f"the alert was answered {answer.status}: {body}")
        return str(body["id"])

    def rows(self, text: str, **values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query (`:name` parameters), read beside the gateway."""
        return Tx(self._connection, "postgresql" if self.stage.servers.database else "sqlite").all(text, **values)

    async def sealed(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until the residents' pages are made, as they are some seconds after an import.

        Raises:
            RuntimeError: it took too long.
        """
        deadline = time.monotonic() + patience_s
        while self.rows(LACKING, end=END):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the residents' pages were not made in {patience_s:.0f} s")
            await asyncio.sleep(SEALING_S)

    async def settled(self, alert: str, recipients: int, patience_s: float = PATIENCE_S) -> None:
        """Wait until every recipient of an alert is delivered.

        Raises:
            RuntimeError: it took too long, or somebody's outcome is another.
        """
        deadline = time.monotonic() + patience_s
        while self.rows(_OPEN, alert=alert)[0][0]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"alert {alert} was not settled in {patience_s:.0f} s")
            await asyncio.sleep(POLL_S)
        counts = [json.loads(one) for (one,) in self.rows("SELECT counts FROM batch WHERE alert = :alert", alert=alert)]
        if sum(one.get("delivered", 0) for one in counts) != recipients:
            raise RuntimeError(f"alert {alert}: not all of its {recipients} recipients are delivered")
