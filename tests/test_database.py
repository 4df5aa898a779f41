"""What the database promises its callers when it is slow, full, away or asked for something it cannot do.

The hour of a cloudburst is the hour of power cuts and full disks: who was told "not stored" must not be contradicted
by a loudspeaker later, and one bad row must not silence a county.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from gateway.database import Database
from gateway.errors import StoreDown
from gateway.migrations import upgrade
from gateway.transaction import Tx


def keep(name: str) -> Callable[[Tx], None]:
    """An operation that leaves a trace."""

    def operation(tx: Tx) -> None:
        tx.run("INSERT INTO halt (scope, at, actor) VALUES (:name, 0, '') ON CONFLICT DO NOTHING", name=name)

    return operation


def kept(tx: Tx) -> list[str]:
    """What left a trace."""
    return [row[0] for row in tx.all("SELECT scope FROM halt ORDER BY scope")]


class Blocker:
    """An operation that keeps the writer busy until it is released."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._released = threading.Event()

    def __call__(self, tx: Tx) -> None:
        keep("blocker")(tx)
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self._released.wait(20)

    def release(self, after_s: float = 0.0) -> None:
        self._loop.call_later(after_s, self._released.set)


@asynccontextmanager
async def busy(database: Database) -> AsyncIterator[Blocker]:
    """Keep the writer busy; on leaving, let it go and wait until it has worked off its queue."""
    blocker = Blocker()
    blocked = asyncio.ensure_future(database.write(blocker))
    await blocker.begun.wait()
    yield blocker
    blocker.release()
    await blocked
    await database.write(keep("last"))


@contextmanager
def refusing(url: str) -> Iterator[None]:
    """PostgreSQL is there but takes nobody into this database, and has thrown out who was in."""
    parts = urlsplit(url)
    name = parts.path[1:]
    with psycopg.connect(urlunsplit(parts._replace(path="/postgres")), autocommit=True) as server:
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Database]:
    """On SQLite."""
    database = Database(f"sqlite:///{tmp_path}/data/one.db")
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def large(database_url: str) -> AsyncIterator[Database]:
    """On PostgreSQL."""
    database = Database(database_url)
    await database.open()
    yield database
    await database.close()


async def test_what_was_refused_for_lack_of_time_never_happens_later(small: Database) -> None:
    """An issuer told "not stored" phones the village; the same warning must not go out ten minutes later."""
    async with busy(small):
        with pytest.raises(StoreDown, match="nothing was stored"):
            await small.write(keep("refused"), 0.02)
    assert await small.read(kept) == ["blocker", "last"]


async def test_a_caller_whose_time_ends_while_its_operation_runs_learns_the_outcome(small: Database) -> None:
    """Nobody may be told "not stored" of what is just being stored."""
    blocker = Blocker()
    blocker.release(1.0)
    await small.write(blocker, 0.5)  # long enough to begin, too short for the outcome
    assert await small.read(kept) == ["blocker"]


async def test_what_is_cancelled_while_it_waits_never_happens(small: Database) -> None:
    """A claim nobody waits for would lock its slice until the lease lapses, and then make it doubtful."""
    async with busy(small):
        waiting = asyncio.ensure_future(small.write(keep("cancelled"), float("inf")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert await small.read(kept) == ["blocker", "last"]


async def test_an_outcome_is_kept_even_if_its_caller_is_cancelled(small: Database) -> None:
    """Who was reached is a fact; a process that ends must not lose it."""
    async with busy(small):
        settling = asyncio.ensure_future(small.write(keep("fact")))
        await asyncio.sleep(0)
        settling.cancel()
    assert await small.read(kept) == ["blocker", "fact", "last"]


async def test_a_group_runs_in_the_order_of_its_keys_and_the_rest_behind(small: Database) -> None:
    """Two processes that lock the same batches in the same order do not deadlock."""
    ran: list[str] = []
    tasks: list[asyncio.Future[None]] = []

    def note(mark: str, _tx: Tx) -> None:
        ran.append(mark)

    async with busy(small):
        for number, order in enumerate(["b", "", "a", "b"]):
            tasks.append(asyncio.ensure_future(small.write(partial(note, f"{order}{number}"), order=order)))
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert ran == ["a2", "b0", "b3", "1"]


async def test_a_full_disk_is_an_outage_and_not_the_fault_of_an_outcome(small: Database) -> None:
    """An outcome that fails at a full disk would be sent again; it waits until there is room."""
    pages = (await small.read(lambda tx: tx.all("PRAGMA page_count")))[0][0]
    await small.write(lambda tx: tx.all(f"PRAGMA max_page_count={pages}"))

    def large(tx: Tx) -> None:
        tx.run("INSERT INTO policy (digest, body, at) VALUES ('d', zeroblob(1000000), 0) ON CONFLICT DO NOTHING")

    with capture_logs() as logs:  # the limit is the connection's own: the next one finds room
        await asyncio.gather(small.write(large), *(small.write(keep(str(n))) for n in range(3)))
    assert [(log["event"], log.get("code")) for log in logs] == [("store_down", "SQLITE_FULL"), ("store_up", None)]
    assert await small.read(kept) == ["0", "1", "2"]


async def test_a_file_held_by_another_program_refuses_the_impatient_and_keeps_the_patient(small: Database) -> None:
    """A back-up tool may lock the file for a while; that loses no outcome and says so once."""
    await small.write(keep("before"))
    other = sqlite3.connect(small.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with capture_logs() as logs:
        patient = asyncio.ensure_future(small.write(keep("patient")))
        with pytest.raises(StoreDown):
            await small.write(keep("impatient"), 0.1)
        with pytest.raises(StoreDown):
            await small.write(keep("impatient"), 1.5)
        other.execute("ROLLBACK")
        await patient
    other.close()
    assert [log["event"] for log in logs] == ["store_down", "store_up"]
    assert await small.read(kept) == ["before", "patient"]


async def test_the_writer_outlives_a_first_connection_that_fails(small: Database) -> None:
    """A volume that is mounted late must not leave a gateway that accepts nothing until it is restarted."""
    folder = small.path.parent
    away = folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(StoreDown):
        await small.write(keep("early"), 0.3)
    with pytest.raises(StoreDown):
        await small.read(kept)
    away.rename(folder)
    await small.write(keep("late"))
    assert await small.read(kept) == ["late"]


async def test_a_refusing_postgresql_is_an_outage_that_outcomes_sit_out(large: Database) -> None:
    """A fail-over takes its time; nothing is lost meanwhile and nothing refused happens afterwards."""
    await large.write(keep("before"))
    with refusing(large.url), capture_logs() as logs:
        patient = asyncio.ensure_future(large.write(keep("patient")))
        with pytest.raises(StoreDown):
            await large.write(keep("impatient"), 0.3)
        with pytest.raises(StoreDown):
            await large.read(kept)
    await patient
    assert [log["event"] for log in logs] == ["store_down"]
    assert await large.read(kept) == ["before", "patient"]


async def test_a_full_disk_of_postgresql_refuses_the_impatient_and_keeps_the_patient(large: Database) -> None:
    """Its class 53100 means that nothing can be taken in now, not that the warning was wrong."""
    full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE '53100'; END $$"
    trigger = "CREATE TRIGGER full_disk BEFORE INSERT ON halt EXECUTE FUNCTION full_disk()"
    with psycopg.connect(large.url, autocommit=True) as connection:
        connection.execute(full)
        connection.execute(trigger)
        with pytest.raises(StoreDown):
            await large.write(keep("accept"), 0.3)
        assert large.down == "53100"
        patient = asyncio.ensure_future(large.write(keep("outcome")))
        connection.execute("DROP TRIGGER full_disk ON halt")
        await patient
    assert large.down == ""
    assert await large.read(kept) == ["outcome"]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("INSERT INTO policy (digest, body, at) VALUES (:long, '', 0)", "54000"),
        ("SELECT pg_sleep(5)", "57014"),
        ("SELECT 1 / 0", "22012"),
        ("SELECT 1 FROM nowhere", "42P01"),
    ],
)
async def test_what_postgresql_refuses_fails_alone_and_at_once(large: Database, sql: str, code: str) -> None:
    """Taken for an outage, one oversized row would hold up every warning of the county for ever."""

    def bad(tx: Tx) -> None:
        tx.run("SET LOCAL statement_timeout = 50")
        tx.run(sql, long=secrets.token_hex(20_000))

    async with busy(large):
        tasks = [asyncio.ensure_future(large.write(each)) for each in (keep("a"), bad, keep("b"))]
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, psycopg.Error) and result.sqlstate for result in results] == [False, code, False]
    assert await large.read(kept) == ["a", "b", "blocker", "last"]


async def test_an_error_does_not_carry_what_was_to_be_stored(large: Database) -> None:
    """Errors are logged; the driver's DETAIL quotes rows, and rows hold people."""

    def twice(tx: Tx) -> None:
        for _ in range(2):
            tx.run("INSERT INTO halt (scope, at, actor) VALUES ('secret-scope', 0, '')")

    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        await large.write(twice)
    assert "secret-scope" not in str(caught.value)
    assert "halt_pkey" in str(caught.value)
    with pytest.raises(psycopg.DataError) as read:
        await large.read(lambda tx: tx.all("SELECT 'secret-word'::int"))
    assert "secret-word" not in str(read.value)


async def test_a_deadlock_of_two_processes_fails_neither(large: Database, database_url: str) -> None:
    """PostgreSQL ends a deadlock by failing one side; that side is to try again, not to lose an outcome."""
    other = Database(database_url)
    await other.open()
    await large.write(lambda tx: [keep(name)(tx) for name in ("x", "y")])
    both = threading.Barrier(2, timeout=20)

    def crossing(first: str, second: str) -> Callable[[Tx], None]:
        met: list[bool] = []

        def operation(tx: Tx) -> None:
            tx.run("UPDATE halt SET at = at + 1 WHERE scope = :name", name=first)
            if not met:
                met.append(True)
                both.wait()
            tx.run("UPDATE halt SET at = at + 1 WHERE scope = :name", name=second)

        return operation

    await asyncio.gather(large.write(crossing("x", "y")), other.write(crossing("y", "x")))
    assert await large.read(lambda tx: tx.all("SELECT at FROM halt")) == [(2,), (2,)]
    await other.close()


async def test_a_connection_notices_within_seconds_that_its_server_is_gone(large: Database) -> None:
    """A fail-over that swallows a connection sends no farewell; the system's default is to wait two hours."""
    asked = await large.read(lambda tx: tx._connection.info.get_parameters())
    assert (asked["keepalives_idle"], asked["keepalives_count"], asked["tcp_user_timeout"]) == ("2", "3", "4000")
    assert await large.read(lambda tx: tx.one("SELECT current_setting('application_name')")) == ("mingluo",)


async def test_a_closing_process_does_not_wait_for_ever_for_a_database_that_is_away(database_url: str) -> None:
    """A process that cannot end is killed, with everything it still knew."""
    database = Database(database_url)
    await database.open()
    with refusing(database_url):
        waiting = asyncio.ensure_future(database.write(keep("never")))
        await asyncio.sleep(0)
        await database.close()
        with pytest.raises(StoreDown):
            await waiting
    with pytest.raises(StoreDown, match="closed"):
        await database.write(keep("late"))


async def test_a_look_waits_for_no_other_read_and_no_write(tmp_path: Path) -> None:
    """An export that takes minutes must not stand between a red warning and the place it is looked up in."""
    database = Database(f"sqlite:///{tmp_path}/one.db", readers=1)
    await database.open()
    released = threading.Event()

    def export(tx: Tx) -> None:
        assert released.wait(20)

    await database.write(keep("before"))
    reading = asyncio.ensure_future(database.read(export, 30.0))
    async with busy(database):
        assert await database.look(kept) == ["before"]
    assert await database.look(kept) == ["before", "blocker", "last"]
    released.set()
    await reading
    await database.close()


async def test_a_look_changes_nothing_and_shows_its_own_fault(tmp_path: Path) -> None:
    """It runs beside the writer: what would write through it would break the one order of writes."""
    database = Database(f"sqlite:///{tmp_path}/one.db")
    await database.open()
    with pytest.raises(StoreDown):
        await database.look(keep("one"))
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        await database.look(lambda tx: tx.one("SELECT 1 FROM nowhere"))
    assert await database.look(kept) == []
    await database.close()


def test_an_update_of_the_schema_that_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    """After a power cut amid an update the gateway must start, on the old schema or on the new one, never between."""
    path = tmp_path / "old.db"
    upgrade(f"sqlite:///{path}", "0008")

    def schema() -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(path)) as file:
            tables = file.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
            return [*tables, *file.execute("SELECT version_num FROM alembic_version")]

    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE numbering (name TEXT)")  # in the way of a later step
    before = schema()
    with pytest.raises(OperationalError, match="numbering"):
        upgrade(f"sqlite:///{path}")
    assert schema() == before
    with closing(sqlite3.connect(path)) as file:
        file.execute("DROP TABLE numbering")
    upgrade(f"sqlite:///{path}")
    assert ("0008",) not in schema()
