"""One SQL database for store and directory: SQLite in one process, or PostgreSQL for many.

Writes go through one thread with group commit: whatever waits (up to 64 operations) shares one
transaction and one fsync. Reads have a small pool of threads. An operation is a plain function of a
`Tx`. It may run twice (a failed group is repeated one by one; a lost connection is retried), so it
must be idempotent and touch nothing but its `Tx`.

Failures: an operation that raises fails alone. While the database is away, operations wait; each
fails with `StoreDown` when its own patience ends (accepting waits briefly, settling waits for ever).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import queue
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from urllib.parse import urlsplit

import psycopg

from gateway.errors import ConfigError, StoreDown

T = TypeVar("T")
Row = tuple[Any, ...]

GROUP = 64  # operations that may share one transaction
RECONNECT_S = 0.2
MAPPED_BYTES = 1 << 30  # of a SQLite file, read without a system call per page
PARAMETER = re.compile(r"(?<![:\w]):(\*?)([a-z_]+)")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """Microseconds since the epoch: how the database stores times."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment(value: int) -> datetime:
    """Return the aware UTC time of a stored value."""
    return EPOCH + timedelta(microseconds=value)


@lru_cache(maxsize=1024)
def _for_psycopg(sql: str) -> str:
    return PARAMETER.sub(r"%(\2)s", sql.replace("%", "%%"))


class Tx:
    """One transaction. SQL takes `:name` parameters; `:*name` expands a sequence into `(…, …)`."""

    def __init__(self, connection: Any, dialect: str) -> None:
        self._connection = connection
        self.dialect = dialect

    @property
    def postgresql(self) -> bool:
        """Whether the database is PostgreSQL."""
        return self.dialect == "postgresql"

    def _execute(self, sql: str, values: dict[str, Any]) -> Any:
        if ":*" in sql:
            sql, values = _expand(sql, values)
        if self.dialect == "sqlite":
            return self._connection.execute(sql, values)
        return self._connection.execute(_for_psycopg(sql), values)

    def run(self, sql: str, **values: Any) -> int:
        """Execute; return the number of rows changed."""
        return int(self._execute(sql, values).rowcount)

    def all(self, sql: str, **values: Any) -> list[Row]:
        """Execute; return all rows."""
        return cast(list[Row], self._execute(sql, values).fetchall())

    def one(self, sql: str, **values: Any) -> Row | None:
        """Execute; return the first row or None."""
        rows = self.all(sql, **values)
        return rows[0] if rows else None

    def many(self, sql: str, rows: Sequence[dict[str, Any]]) -> None:
        """Execute once per row."""
        if not rows:
            return
        if self.dialect == "sqlite":
            self._connection.executemany(sql, rows)
        else:
            with self._connection.cursor() as cursor:
                cursor.executemany(_for_psycopg(sql), rows)

    def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Bulk insert of rows known to be new: COPY on PostgreSQL, a prepared insert on SQLite."""
        names = ", ".join(columns)
        if self.dialect == "sqlite":
            marks = ", ".join("?" * len(columns))
            self._connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
            return
        with self._connection.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)


def _expand(sql: str, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Turn each `:*name` into a list of single parameters; an empty sequence matches nothing."""
    single = dict(values)

    def list_of(match: re.Match[str]) -> str:
        if not match[1]:
            return match[0]
        members = list(single.pop(match[2]))
        letters = [f"{match[2]}_{_letters(index)}" for index in range(len(members))]
        single.update(zip(letters, members, strict=True))
        return "(" + ", ".join(f":{name}" for name in letters) + ")" if members else "(NULL)"

    return PARAMETER.sub(list_of, sql), single


@lru_cache(maxsize=4096)
def _letters(index: int) -> str:
    text = ""
    while True:
        index, digit = divmod(index, 26)
        text = chr(97 + digit) + text
        if not index:
            return text


class _Operation(Generic[T]):
    """One queued write: its function, its future, and when its patience ends (monotonic seconds)."""

    __slots__ = ("deadline", "future", "run")

    def __init__(self, run: Callable[[Tx], T], future: asyncio.Future[T], deadline: float) -> None:
        self.run = run
        self.future = future
        self.deadline = deadline


class Database:
    """Connections, threads and group commit. `await open()` first, `await close()` last.

    Args:
        url: `sqlite:///path/to/file` or `postgresql://…`.
        readers: threads for reads.
    """

    def __init__(self, url: str, readers: int = 3) -> None:
        self.url = url
        self.dialect = "sqlite" if url.startswith("sqlite:") else "postgresql"
        if self.dialect == "postgresql" and not url.startswith(("postgresql://", "postgres://")):
            raise ConfigError(f"database URL must start with sqlite:/// or postgresql://, not {url.split(':', 1)[0]}:")
        self._queue: queue.SimpleQueue[_Operation[Any] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_loop, name="database-writer", daemon=True)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="database-reader")
        self._local = threading.local()
        self._lock_file: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened = False

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return Path(urlsplit(self.url).path)

    async def open(self) -> None:
        """Take the file (SQLite), bring the schema up to date, start the writer.

        Raises:
            ConfigError: another process holds the SQLite file.
            StoreDown: PostgreSQL cannot be reached.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._prepare)
        self._writer.start()
        self._opened = True

    def _prepare(self) -> None:
        if self.dialect == "sqlite":
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = self.path.with_name(self.path.name + ".lock").open("w")
            try:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(
                    f"{self.path.name} belongs to another running process; several processes need a postgresql:// URL"
                ) from error
        from sqlalchemy.exc import OperationalError

        from gateway.migrations import upgrade

        try:
            upgrade(self.url)
        except (psycopg.OperationalError, OperationalError) as error:
            raise StoreDown("the database cannot be reached") from error

    async def close(self) -> None:
        """Finish what is queued, then close."""
        if not self._opened:
            return
        self._opened = False
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        self._readers.shutdown(wait=True)
        if self._lock_file is not None:
            self._lock_file.close()

    async def write(self, operation: Callable[[Tx], T], patience_s: float | None = None) -> T:
        """Run an operation in the writer's next group; return after its commit.

        Raises:
            StoreDown: no commit within `patience_s` (None: wait for ever). It may still happen later.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        deadline = time.monotonic() + patience_s if patience_s is not None else float("inf")
        self._queue.put(_Operation(operation, future, deadline))
        if patience_s is None:
            return await future
        try:
            async with asyncio.timeout(patience_s + RECONNECT_S):
                return await future
        except TimeoutError:
            raise StoreDown("no commit in time") from None

    async def read(self, operation: Callable[[Tx], T], patience_s: float = 10.0) -> T:
        """Run a read-only operation on a reader's connection.

        Raises:
            StoreDown: no answer in time.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(patience_s):
                return await loop.run_in_executor(self._readers, self._read, operation)
        except TimeoutError:
            raise StoreDown("no answer in time") from None

    def _read(self, operation: Callable[[Tx], T]) -> T:
        for last in (False, True):
            try:
                if getattr(self._local, "connection", None) is None:
                    self._local.connection = self._connect(readonly=True)
                return operation(Tx(self._local.connection, self.dialect))
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self._local.connection = None
                if last:
                    raise StoreDown("the database cannot be reached") from error
        raise AssertionError("unreachable")

    def _connect(self, *, readonly: bool) -> Any:
        if self.dialect == "postgresql":
            return psycopg.connect(self.url, autocommit=True, connect_timeout=3)
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA cache_size=-65536")
        connection.execute(f"PRAGMA mmap_size={MAPPED_BYTES}")
        if readonly:
            connection.execute("PRAGMA query_only=ON")
        return connection

    def _write_loop(self) -> None:
        connection: Any = None
        ended = False
        while not ended:
            group, ended = self._next_group()
            while group:
                try:
                    if connection is None:
                        connection = self._connect(readonly=False)
                    self._commit_group(connection, group)
                    group = []
                except (psycopg.OperationalError, psycopg.InterfaceError):
                    connection = None
                    group = self._impatient(group)
                    if group:
                        time.sleep(RECONNECT_S)
        if connection is not None:
            connection.close()

    def _next_group(self) -> tuple[list[_Operation[Any]], bool]:
        first = self._queue.get()
        if first is None:
            return [], True
        group = [first]
        while len(group) < GROUP:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return group, True
            group.append(item)
        return group, False

    def _impatient(self, group: list[_Operation[Any]]) -> list[_Operation[Any]]:
        """Fail those whose patience has ended; return the rest, with whatever else has come meanwhile at the back."""
        now = time.monotonic()
        late = [operation for operation in group if operation.deadline <= now]
        self._answer([(operation, None, StoreDown("the database cannot be reached")) for operation in late])
        return [operation for operation in group if operation.deadline > now]

    def _commit_group(self, connection: Any, group: list[_Operation[Any]]) -> None:
        try:
            results = self._transaction(connection, group)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if not isinstance(error, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure):
                raise
            results = self._one_by_one(connection, group)
        except Exception:  # one operation's fault: each gets its own transaction and its own error
            results = self._one_by_one(connection, group)
        self._answer(results)

    def _one_by_one(
        self, connection: Any, group: list[_Operation[Any]]
    ) -> list[tuple[_Operation[Any], Any, Exception | None]]:
        results: list[tuple[_Operation[Any], Any, Exception | None]] = []
        for operation in group:
            try:
                results += self._transaction(connection, [operation])
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                results += self._transaction(connection, [operation])
            except (psycopg.OperationalError, psycopg.InterfaceError):
                raise
            except Exception as error:  # handed to the caller through its future
                results.append((operation, None, error))
        return results

    def _transaction(
        self, connection: Any, group: list[_Operation[Any]]
    ) -> list[tuple[_Operation[Any], Any, Exception | None]]:
        tx = Tx(connection, self.dialect)
        connection.execute("BEGIN IMMEDIATE" if self.dialect == "sqlite" else "BEGIN")
        try:
            results: list[tuple[_Operation[Any], Any, Exception | None]] = [
                (operation, operation.run(tx), None) for operation in group
            ]
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                connection.execute("ROLLBACK")
            raise
        return results

    def _answer(self, results: list[tuple[_Operation[Any], Any, Exception | None]]) -> None:
        if not results or self._loop is None or self._loop.is_closed():
            return

        def deliver() -> None:
            for operation, result, error in results:
                if operation.future.done():
                    continue  # its caller gave up or was cancelled
                if error is not None:
                    operation.future.set_exception(error)
                else:
                    operation.future.set_result(result)

        self._loop.call_soon_threadsafe(deliver)
