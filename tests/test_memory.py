"""A database restored from a back-up is noticed before anything leaves; restarts, kills and fail-overs hold nothing.

With real back-ups: SQLite's own, and `pg_dump` with `pg_restore`.
"""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from servers import PostgreSQL
from test_store import HandClock, alert, batch_of, draft_of

from gateway.app import App
from gateway.database import Database
from gateway.memory import Guard, restored
from gateway.metrics import REGISTRY
from gateway.model import ClaimResult, Receipt, Record, State
from gateway.ports import Settled
from gateway.settings import Settings
from gateway.store import Store

WARNING = alert()
BATCH = batch_of(WARNING)
START_S = 30


@pytest.fixture
def hand() -> HandClock:
    return HandClock()


class Machine:
    """A gateway's store with the memory beside it; `open` is one life of the process."""

    def __init__(self, url: str, folder: Path, hand: HandClock) -> None:
        self.url = url
        self.folder = folder
        self.hand = hand

    @asynccontextmanager
    async def open(self, *, remembers: bool = True) -> AsyncIterator[tuple[Store, Guard]]:
        """Run the process; one that is killed does not remember its last moments."""
        database = Database(self.url)
        guard = Guard(database, self.folder, self.hand)
        await database.open()
        try:
            yield Store(database, self.hand), guard
            if remembers:
                await guard.keep()
        finally:
            await database.close()
        self.hand.advance(60)

    async def warn(self) -> None:
        """A warning is accepted; nothing of it has left."""
        async with self.open() as (store, _):
            await store.outbox.accept(draft_of(WARNING, BATCH))

    async def send(self, *, remembers: bool = True) -> None:
        """Its first slice leaves and is closed in the chain."""
        async with self.open(remembers=remembers) as (store, _):
            claim = await store.outbox.claim(BATCH.id, 0, "worker", 20)
            assert claim.result is ClaimResult.GRANTED
            receipts = [Receipt(State.DELIVERED)] * len(claim.pending)
            await store.ledger.settle(
                Settled(BATCH.id, 0, 1, "worker", claim.pending, receipts, "noop", self.hand.now())
            )
            await store.audit.append(Record(self.hand.now(), "ledger", "settled", BATCH.id))

    async def holds(self) -> bool:
        """Whether a worker of the next life finds its claims halted."""
        async with self.open() as (store, _):
            return (await store.outbox.claim(BATCH.id, 1, "next", 20)).result is ClaimResult.HALTED

    async def why(self) -> str:
        """What the chain says of the last restore; "" if there was none."""
        async with self.open() as (store, _):
            found = [one.detail for _, one, _ in await store.audit.records(0, 1000) if one.action == "restored"]
        return found[-1] if found else ""

    async def release(self) -> None:
        """A person has looked, and lets it go on."""
        async with self.open() as (store, _):
            await store.outbox.halt("*", False, Record(self.hand.now(), "console/张三", "release", "all"))


class Backup:
    """One back-up of a SQLite database."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.file = machine.folder.parent / "backup"

    def take(self) -> None:
        """Copy it while it is open."""
        with closing(sqlite3.connect(self._path)) as source, closing(sqlite3.connect(self.file)) as target:
            source.backup(target)

    def restore(self) -> None:
        """Put it in the database's place."""
        for path in self._path.parent.glob(f"{self._path.name}-*"):
            path.unlink()
        shutil.copyfile(self.file, self._path)

    @property
    def _path(self) -> Path:
        return Path(urlsplit(self.machine.url).path)


class Dump(Backup):
    """One back-up of a PostgreSQL database, restored into the same database, as an operator in a hurry does."""

    def take(self) -> None:
        """Dump it."""
        self._run("pg_dump", "--format=custom", f"--file={self.file}", self.machine.url)

    def restore(self) -> None:
        """Put its tables in the place of those that are there."""
        self._run("pg_restore", "--clean", "--if-exists", "--no-owner", f"--dbname={self.machine.url}", str(self.file))

    @staticmethod
    def _run(name: str, *arguments: str) -> None:
        binary = max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
        subprocess.run([binary, *arguments], check=True, capture_output=True, timeout=START_S)


@pytest.fixture(params=["sqlite", "postgresql"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, hand: HandClock) -> Machine:
    """One machine on either database."""
    url = f"sqlite:///{tmp_path}/mingluo.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("database_url")
    return Machine(url, tmp_path / "data", hand)


def backup_of(machine: Machine) -> Backup:
    return Backup(machine) if machine.url.startswith("sqlite") else Dump(machine)


async def test_a_restored_database_sends_nothing_until_a_person_releases_it(machine: Machine) -> None:
    """It has forgotten who was told since the back-up, and would tell all of them again."""
    await machine.warn()
    backup = backup_of(machine)
    backup.take()
    await machine.send()
    backup.restore()
    assert await machine.holds()
    assert await machine.holds()  # a restart does not release it
    assert await machine.why() in ("older", "moved")
    await machine.release()
    assert not await machine.holds()  # noticed once, released once
    async with machine.open() as (store, _):
        assert (await store.audit.verify())[1] == ""


async def test_each_restore_is_noticed_anew(machine: Machine) -> None:
    """The second attempt at restoring, an hour later, is as dangerous as the first."""
    await machine.warn()
    backup = backup_of(machine)
    backup.take()
    for _ in range(2):
        await machine.send()
        backup.restore()
        assert await machine.holds()
        await machine.release()


async def test_restarts_and_kills_hold_nothing(machine: Machine) -> None:
    """A gateway that stops sending after every power cut would be switched off within a week."""
    await machine.warn()
    await machine.send(remembers=False)  # killed: the memory is behind the database
    assert not await machine.holds()
    assert await machine.why() == ""


async def test_a_first_start_that_failed_is_no_restore_to_the_next(tmp_path: Path, hand: HandClock) -> None:
    """An upgrade finds old warnings, and its first start finds its port taken: the second one holds nothing."""
    machine = Machine(f"sqlite:///{tmp_path}/mingluo.db", tmp_path, hand)
    await machine.warn()
    with closing(sqlite3.connect(tmp_path / "mingluo.db")) as before, before:
        before.execute("DELETE FROM installation")
    machine.folder = tmp_path / "data"  # where nothing is remembered yet
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(data=machine.folder, database_url=SecretStr(machine.url), port=taken.getsockname()[1])
        with pytest.raises(OSError, match="address already in use"):
            await App(settings, clock=hand).__aenter__()
    assert not await machine.holds()


async def test_a_machine_that_remembers_what_was_given_up_holds_nothing_more(
    database_url: str, tmp_path: Path, hand: HandClock
) -> None:
    """Of ten machines that come back after a restore one by one, the last must not undo the release."""
    machine, late = Machine(database_url, tmp_path / "data", hand), Machine(database_url, tmp_path / "late", hand)
    await machine.warn()
    backup = Dump(machine)
    backup.take()
    await machine.send()
    shutil.copytree(machine.folder, late.folder)
    backup.restore()
    assert await machine.holds()
    await machine.release()
    assert not await late.holds()


async def test_the_duty_room_is_told_each_minute(machine: Machine) -> None:
    """Nothing is held in silence (D2)."""
    await machine.warn()
    backup = backup_of(machine)
    backup.take()
    await machine.send()
    backup.restore()
    before = REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": "restored"}) or 0

    def rung() -> float:
        return (REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": "restored"}) or 0) - before

    async with machine.open() as (store, guard):
        await store.audit.append(Record(machine.hand.now(), "x", "y", "z"))
        for wait_s, wanted in ((0, 1), (30, 1), (31, 2)):
            machine.hand.advance(wait_s)
            await guard.ring()
            assert rung() == wanted
        await store.outbox.halt("*", False, Record(machine.hand.now(), "console/张三", "release", "all"))
        machine.hand.advance(120)
        await guard.ring()
        assert rung() == 2
        assert await store.database.read(restored) is None


async def test_a_data_folder_brought_back_whole_is_noticed(tmp_path: Path, hand: HandClock) -> None:
    """Database and memory of one back-up agree with each other: only the file itself shows that it is a copy."""
    machine = Machine(f"sqlite:///{tmp_path}/data/mingluo.db", tmp_path / "data", hand)
    await machine.warn()
    shutil.copytree(machine.folder, tmp_path / "backup")
    await machine.send()
    shutil.rmtree(machine.folder)
    shutil.copytree(tmp_path / "backup", machine.folder)
    assert await machine.holds()
    assert await machine.why() == "copied"
    await machine.release()
    assert not await machine.holds()


async def test_a_database_on_a_machine_that_knows_nothing_of_it_is_held(tmp_path: Path, hand: HandClock) -> None:
    """The old machine has burnt: only the database came out of the back-up."""
    machine = Machine(f"sqlite:///{tmp_path}/mingluo.db", tmp_path / "data", hand)
    await machine.warn()
    assert not await Machine(f"sqlite:///{tmp_path}/new.db", tmp_path / "new", hand).why()
    machine.folder = tmp_path / "new machine"
    assert await machine.holds()
    assert await machine.why() == "forgotten"


async def test_a_dump_in_another_database_is_held_though_nobody_remembers(
    database_url: str, tmp_path: Path, hand: HandClock
) -> None:
    """A new server, new machines, and a dump of last night: PostgreSQL itself says that it is another."""
    machine = Machine(database_url, tmp_path / "data", hand)
    await machine.warn()
    backup = Dump(machine)
    backup.take()
    parts = urlsplit(database_url)
    name = f"{parts.path[1:]}_new"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            new = Machine(urlunsplit(parts._replace(path=f"/{name}")), tmp_path / "new", hand)
            backup.machine = new
            backup.restore()
            assert await new.holds()
            assert await new.why() == "moved"
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


class Archived(PostgreSQL):
    """A server whose log can be replayed."""

    settings: ClassVar[Mapping[str, str]] = {**PostgreSQL.settings, "wal_level": "replica", "hot_standby": "off"}

    def fail_over(self) -> None:
        """Go on in a new timeline, with nothing lost: what a promoted standby does."""
        self.stop()
        data = self.folder / "data"
        (data / "recovery.signal").touch()
        (data / "postgresql.auto.conf").write_text("restore_command = '/bin/false'\n")
        self.start()


async def test_a_fail_over_that_lost_nothing_goes_on(tmp_path: Path, hand: HandClock) -> None:
    """A standby takes over amid a red alert: nobody has to be woken for the texts to go on."""
    with Archived() as server:
        machine = Machine(server.url, tmp_path / "data", hand)
        await machine.warn()
        await machine.send()
        server.fail_over()
        assert not await machine.holds()
        assert await machine.why() == ""
        server.fail_over()
        assert await Machine(server.url, tmp_path / "new", hand).holds()  # nobody can say that nothing is missing


async def test_any_database_user_can_be_asked_which_database_it_is(database_url: str, hand: HandClock) -> None:
    """The gateway's user owns its tables and nothing else; a guard it may not run would stop everything."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE plain")
        connection.execute("SET ROLE plain")
        try:
            assert connection.execute("SELECT timeline_id FROM pg_control_checkpoint(), pg_control_system()").fetchone()
        finally:
            connection.execute("RESET ROLE")
            connection.execute("DROP ROLE plain")


async def test_a_new_database_on_a_machine_that_served_another_is_not_held(
    machine: Machine, tmp_path: Path, hand: HandClock
) -> None:
    """From one process to a cluster is three URLs, and a fresh database is not an old one."""
    before = Machine(f"sqlite:///{tmp_path}/before.db", machine.folder, hand)
    await before.warn()
    await before.send()
    await machine.warn()
    assert not await machine.holds()


async def test_a_memory_that_cannot_be_read_is_none(tmp_path: Path, hand: HandClock) -> None:
    """A file somebody has edited proves nothing; the database is held as if there were none."""
    machine = Machine(f"sqlite:///{tmp_path}/mingluo.db", tmp_path / "data", hand)
    await machine.warn()
    for memory in machine.folder.glob("memory-*"):
        memory.write_text("{}")
    assert await machine.holds()


async def test_tables_exchanged_under_a_running_gateway_are_noticed(
    database_url: str, tmp_path: Path, hand: HandClock
) -> None:
    """Somebody restores without stopping the gateway: its connections live on, and so would its sending."""
    machine = Machine(database_url, tmp_path / "data", hand)
    await machine.warn()
    backup = Dump(machine)
    backup.take()
    async with machine.open() as (store, guard):
        await guard.keep()
        backup.restore()
        await guard.keep()
        assert await store.outbox.halts() == ["*"]
